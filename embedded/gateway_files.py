"""The gateway of a stack: its folder and ports, and its files as the fleet host changes the pools."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from embedded.host.reconcile import GatewayPool
from serving_stack import gateway


class GatewayFiles:
    """Keeps Envoy's files equal to what the host wants; safe to call from any thread."""

    def __init__(self, folder: Path, fleet: str) -> None:
        self._folder, self._fleet = folder, fleet
        self._ports: tuple[int, int] | None = None
        self._pools: tuple[gateway.GatewayPool, ...] = ()
        self._lock = threading.Lock()

    def place(self, listen: int, admin: int) -> gateway.GatewayProcess:
        """Write everything for a gateway on these ports, in a folder of its own; how to run it."""
        with self._lock:
            self._ports = (listen, admin)
            self._write()
            return gateway.gateway_process(self._folder / str(listen))

    def publish(self, pools: Sequence[GatewayPool], http_ports: Mapping[str, int]) -> None:
        """The host's `Publish`: pools by replica names, and each replica's HTTP port."""

        with self._lock:
            self._pools = tuple(
                gateway.GatewayPool(
                    version=pool.version,
                    role=pool.role,
                    weight=pool.weight,
                    endpoints=tuple(("127.0.0.1", http_ports[name]) for name in pool.listed),
                )
                for pool in pools
            )
            self._write()

    def _write(self) -> None:
        if self._ports is None:
            return  # the gateway has no place yet; `place` writes what is known then
        listen, admin = self._ports
        state = gateway.GatewayState(fleet=self._fleet, listen_port=listen, admin_port=admin, pools=self._pools)
        folder = self._folder / str(listen)
        folder.mkdir(parents=True, exist_ok=True)
        gateway.write(folder, gateway.render(state, folder))
