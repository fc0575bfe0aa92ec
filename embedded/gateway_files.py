"""The gateway of a stack: its folder and ports, and its files as the fleet host changes the pools."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from embedded.host.fleet import Ports
from embedded.host.reconcile import GatewayPool
from serving_stack import gateway
from serving_stack.gateway import place
from serving_stack.gateway.settings import GatewaySettings, with_settings


class GatewayFiles:
    """Keeps Envoy's files equal to what the host wants; safe to call from any thread.

    `address` is the replicas' IP address. With `shared` Envoy runs elsewhere: it finds its files in `folder` itself, and
    listens on all its addresses. Settings that cannot be meant raise `SettingsError` from `place`.
    """

    def __init__(
        self,
        folder: Path,
        fleet: str,
        model: str,
        settings: GatewaySettings,
        address: str = "127.0.0.1",
        *,
        shared: bool = False,
    ) -> None:
        self._folder, self._fleet, self._model, self._address, self._shared = folder, fleet, model, address, shared
        self._settings = settings
        self._ports: tuple[int, int] | None = None
        self._pools: tuple[gateway.GatewayPool, ...] = ()
        self._lock = threading.Lock()

    def place(self, listen: int, admin: int) -> gateway.GatewayProcess:
        """Write everything for a gateway on these ports, in a folder of its own; how to run it."""
        with self._lock:
            self._ports = (listen, admin)
            self._write()
            return gateway.gateway_process(self._place(listen))

    def publish(self, pools: Sequence[GatewayPool], ports: Mapping[str, Ports]) -> None:
        """The host's `Publish`: pools by replica names, and each replica's ports."""
        with self._lock:
            self._pools = tuple(
                gateway.GatewayPool(
                    version=pool.version,
                    role=pool.role,
                    weight=pool.weight,
                    endpoints=tuple((self._address, ports[name].http) for name in pool.listed),
                    grpc=tuple((self._address, ports[name].grpc) for name in pool.listed),
                )
                for pool in pools
            )
            self._write()

    def _write(self) -> None:
        if self._ports is None:
            return  # the gateway has no place yet; `place` writes what is known then
        listen, admin = self._ports
        state = gateway.GatewayState(
            fleet=self._fleet,
            listen_port=listen,
            admin_port=admin,
            pools=self._pools,
            host=place.HOST if self._shared else "127.0.0.1",
            metrics_port=place.METRICS_PORT if self._shared else None,
            model=self._model,
            grpc=True,
        )
        state = with_settings(state, self._settings, open_to_others=self._shared)
        folder = self._place(listen)
        folder.mkdir(parents=True, exist_ok=True)
        gateway.write(folder, gateway.render(state, folder))

    def _place(self, listen: int) -> Path:
        return self._folder if self._shared else self._folder / str(listen)
