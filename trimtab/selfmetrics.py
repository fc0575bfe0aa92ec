"""Metrics of Trimtab's own processes, for Prometheus. Each part defines its metrics beside the code that they measure."""

from __future__ import annotations

import os

from prometheus_client import Info, start_http_server

_build = Info("trimtab_build", "Which process this is and its version.")


def describe(service: str) -> None:
    """Says on this process's page which part it is; `serve` does it by itself."""
    from importlib.metadata import version

    _build.info({"service": service, "version": version("trimtab")})


def metrics_host() -> str:
    """Where metrics are served unless somebody says otherwise: loopback, or TRIMTAB_METRICS_HOST (0.0.0.0 in a pod)."""
    return os.environ.get("TRIMTAB_METRICS_HOST") or "127.0.0.1"


def serve(service: str, port: int, host: str | None = None) -> int:
    """Serves this process's metrics at ``http://host:port/metrics`` in a thread; returns the port (port 0: any free one)."""
    describe(service)
    server, _thread = start_http_server(port, addr=host or metrics_host())
    return int(server.server_port)
