"""A replica of one kind behind an Envoy, for as long as a `with` lasts."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

import serving_stack
from serving_stack.export import ADAPTERS, FLOAT, INT8, INTENTS, TOKENIZER, default_cache, ensure_exported
from serving_stack.gateway import GatewayPool, GatewayState, gateway_process, render, write
from serving_stack.models_settings import ModelsSettings
from serving_stack.repository import publish
from serving_stack.serving_settings import ServingSettings
from serving_stack.triton import replica_process
from trimtab.errors import Unavailable

HERE = Path(__file__).parent
MODEL, VERSION = "intent", 1


@dataclass(frozen=True)
class Kind:
    """A way of serving the same adapter. `grouped`: whether texts of a batch are grouped by length."""

    name: str
    weights: str  # int8, fp32 or torch
    batching: bool = True
    grouped: bool = True
    instances: int = 1
    threads: int = 1


@dataclass(frozen=True)
class Running:
    """Where to ask: the gateway, Triton behind it, and Triton's metrics page."""

    gateway: str
    triton: str
    metrics_url: str
    processes: tuple[int, ...]

    def cpu_seconds(self) -> float:
        """Processor time of Triton, its model processes and Envoy so far: hardly depends on what else the machine does."""
        roots = [psutil.Process(number) for number in self.processes]
        times = [each.cpu_times() for root in roots for each in (root, *root.children(recursive=True))]
        return sum(time.user + time.system for time in times)

    def counters(self) -> dict[str, float]:
        """Name -> sum over its series on Triton's page."""
        found: dict[str, float] = {}
        for line in httpx.get(self.metrics_url, trust_env=False).text.splitlines():
            if not line.startswith("#"):
                series, _, value = line.rpartition(" ")
                name = series.partition("{")[0]
                found[name] = found.get(name, 0.0) + float(value)
        return found


def stores(adapter: int, folder: Path) -> dict[str, Path]:
    """A store for each kind of weights; torch reads the adapter itself, so int8's serves it as well."""
    exported = ensure_exported(adapter, default_cache())
    made: dict[str, Path] = {}
    for weights, file in (("int8", INT8), ("fp32", FLOAT)):
        source = folder / f"{weights}-files"
        source.mkdir(parents=True)
        for name, target in ((file, INT8), (TOKENIZER, TOKENIZER), (INTENTS, INTENTS)):
            (source / target).symlink_to(exported / name)
        made[weights] = folder / weights
        publish(made[weights], MODEL, VERSION, source)
    return made | {"torch": made["int8"]}


@contextmanager
def started(kind: Kind, store: Path, adapter: int) -> Iterator[Running]:
    """Start Triton and Envoy, and wait until a question is answered through both. Raises `Unavailable` with Triton's log."""
    http, metrics, listen, admin = free_ports(4)
    with ExitStack() as after:
        folder = Path(after.enter_context(tempfile.TemporaryDirectory(prefix="trimtab-serve-")))
        serving = ServingSettings(batching=kind.batching, instances=kind.instances, threads=kind.threads)
        plan = replica_process(
            store, MODEL, VERSION, folder / "replica", http_port=http, metrics_port=metrics,
            signatures=ModelsSettings(), serving=serving,
        )  # fmt: skip
        _exchange(kind, plan.folder / "repository" / MODEL / str(VERSION), adapter)
        after.callback(plan.clean_up)
        triton = after.enter_context(_process(plan.argv, plan.env, folder / "triton.log"))
        pool = GatewayPool(version=VERSION, role="stable", weight=100, endpoints=(("127.0.0.1", http),))
        state = GatewayState(fleet="bench", listen_port=listen, admin_port=admin, pools=(pool,))
        (folder / "gateway").mkdir()
        write(folder / "gateway", render(state, folder / "gateway"))
        envoy = gateway_process(folder / "gateway")
        proxy = after.enter_context(_process(envoy.argv, dict(os.environ) | envoy.env, folder / "envoy.log"))
        _until(plan.ready_url, triton, folder / "triton.log")
        _until(envoy.ready_url, triton, folder / "envoy.log")
        yield Running(envoy.url, f"http://127.0.0.1:{http}", plan.metrics_url, (triton.pid, proxy.pid))


def _exchange(kind: Kind, version: Path, adapter: int) -> None:
    """Put this benchmark's own files in the place of the published ones; the version's manifest is then this replica's own."""
    changed: dict[str, Path | str] = {}
    if kind.weights == "torch":
        about = {"root": str(Path(serving_stack.__file__).parent.parent), "adapter": str(ADAPTERS / str(adapter))}
        changed |= {"network.py": HERE / "torch_network.py", "torch.json": json.dumps(about)}
    if not kind.grouped:
        changed["batches.py"] = HERE / "one_group.py"
    if not changed:
        return
    manifest = json.loads((version / "manifest.json").read_text())
    manifest["files"] = {name: digest for name, digest in manifest["files"].items() if name not in changed}
    for name, content in (changed | {"manifest.json": json.dumps(manifest)}).items():
        (version / name).unlink(missing_ok=True)
        if isinstance(content, Path):
            shutil.copyfile(content, version / name)
        else:
            (version / name).write_text(content)


@contextmanager
def _process(argv: Sequence[str], env: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as file:
        process = subprocess.Popen(argv, env=env, stdout=file, stderr=file, start_new_session=True)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _until(url: str, process: subprocess.Popen[bytes], log: Path, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(url, timeout=2, trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.02)
    raise Unavailable(f"{url} was not ready in {seconds:.0f} s: {log.read_text(errors='replace')[-600:]}")


def free_ports(count: int) -> list[int]:
    """Ports on loopback that nobody has now."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports
