"""How to run one replica: a Triton server process that serves one published version, from a folder of its own."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from serving_stack import repository_launch
from serving_stack.adapters_content import is_set
from serving_stack.adapters_triton import FORWARDED, edge_config
from serving_stack.models_settings import ModelsSettings
from serving_stack.repository import verify
from serving_stack.serving_settings import ServingSettings
from serving_stack.triton_config import FEEDBACK, feedback_config, intent_config
from trimtab.errors import Missing
from trimtab.settings import load

EXIT_TIMEOUT_SECONDS = 5
FEEDBACK_CODE = Path(__file__).parent / "intent_feedback"


@dataclass(frozen=True)
class ReplicaProcess:
    """What a supervisor needs to start a replica, to see that it is ready, to scrape it, and to clean up after it.

    `ready_url` answers 200 only when this version of this model is loaded. SIGTERM lets requests in flight finish for up to
    `exit_timeout` seconds. Call `clean_up` when the process is gone: one that was killed leaves shared memory behind.
    """

    argv: list[str]
    env: dict[str, str]
    folder: Path
    ready_url: str
    metrics_url: str
    infer_url: str
    exit_timeout: float
    shm_prefix: str

    def clean_up(self) -> None:
        """Remove the shared memory of a process that no longer runs; does nothing after an orderly stop."""
        for region in Path("/dev/shm").glob(f"{self.shm_prefix}*"):  # noqa: S108
            region.unlink(missing_ok=True)


def replica_process(
    store: Path,
    model: str,
    version: int,
    folder: Path,
    *,
    http_port: int,
    metrics_port: int,
    grpc_port: int | None = None,
    fault_file: Path | None = None,
    host: str = "127.0.0.1",
    signatures: ModelsSettings | None = None,
    serving: ServingSettings | None = None,
) -> ReplicaProcess:
    """Lay out a replica's folder and say how to run it; starts nothing.

    `folder` belongs to this replica alone and is named like it; it gets `repository/` (links to the version's files),
    and `backends/`.
    Without `grpc_port` there is no gRPC. `fault_file` need not exist: `serving_stack.fault.set_fault` writes it to make this one
    replica have a fault. `host` is the address that is listened on; `signatures` says whose are believed, `serving` how
    the machine is used (None: as the settings say). A version that is changed, not whole, of the wrong shape or not signed as it
    must be is refused by the process before it becomes Triton: it says why in its log and exits with 1.
    Raises `Missing` when Triton, the version's folder, or this Python's shared library is not there.
    """
    server = server_folder()
    signatures = signatures or load(ModelsSettings)
    serving = serving or load(ServingSettings)
    published = store.absolute() / model / str(version)
    if not published.is_dir():
        verify(store, model, version)  # raises, in words
    folder = folder.absolute()
    repository = folder / "repository" / model
    shutil.rmtree(folder / "repository", ignore_errors=True)
    repository.mkdir(parents=True)
    _link(published, repository / str(version))
    adapters, feedback = is_set(published), serving.feedback and not is_set(published)
    config = edge_config(store, model, version, serving) if adapters else intent_config(model, version, serving)
    (repository / "config.pbtxt").write_text(config, encoding="utf-8")
    if feedback:
        _lay_out_feedback(published, folder / "repository", model, version)
    _backends(server, folder / "backends")
    prefix = f"trimtab_{folder.name}_{http_port}_"
    loaded = [model, model + FEEDBACK] if feedback else [model]
    triton = _argv(server, folder, loaded, http_port, grpc_port, metrics_port, prefix, host)
    return ReplicaProcess(
        argv=repository_launch.command(
            store,
            model,
            version,
            triton,
            trusted_keys=signatures.trusted_keys,
            require_signature=signatures.require_signature,
        ),
        env=_env(server, fault_file),
        folder=folder,
        ready_url=f"http://127.0.0.1:{http_port}/v2/models/{model}/versions/{version}/ready",
        metrics_url=f"http://127.0.0.1:{metrics_port}/metrics",
        infer_url=f"http://127.0.0.1:{http_port}/v2/models/{model}/infer",
        exit_timeout=EXIT_TIMEOUT_SECONDS,
        shm_prefix=prefix,
    )


def _link(published: Path, to: Path) -> None:
    """Links to a version's own files, in a folder of the replica's own: Python's caches come here, not into the store."""
    to.mkdir()
    for file in published.iterdir():
        if not file.is_dir():
            (to / file.name).symlink_to(file)


def _lay_out_feedback(published: Path, repository: Path, model: str, version: int) -> None:
    """The model that takes feedback: this installation's own code, and the version's labels."""
    to = repository / (model + FEEDBACK)
    (to / str(version)).mkdir(parents=True)
    (to / "config.pbtxt").write_text(feedback_config(model, version), encoding="utf-8")
    for file in (*FEEDBACK_CODE.glob("*.py"), published / "intents.json"):
        (to / str(version) / file.name).symlink_to(file)


def server_folder() -> Path:
    """Where Triton lies: `bin/tritonserver`, `backends/`, and the stub that runs Python models."""
    found = importlib.util.find_spec("pytriton")
    if found is None or found.origin is None:
        raise Missing("Triton is not installed: pip install 'trimtab[serve]'")
    folder = Path(found.origin).parent / "tritonserver"
    if not (folder / "bin" / "tritonserver").is_file():
        raise Missing(f"{folder} has no bin/tritonserver: reinstall nvidia-pytriton 0.7.0")
    return folder


def _stub(server: Path) -> Path:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = server / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.is_file():
        raise Missing(f"this Triton runs no models on Python {version}: use Python 3.11 or 3.12")
    return stub


def _python_library() -> Path:
    """The folder of libpython: the stub embeds the same Python that runs Trimtab."""
    name = str(sysconfig.get_config_var("INSTSONAME") or "")
    places = [sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("LIBPL"), Path(sys.base_prefix) / "lib"]
    if multiarch := sysconfig.get_config_var("MULTIARCH"):
        places.append(Path("/usr/lib") / str(multiarch))
    for place in places:
        if place and ".so" in name and (Path(str(place)) / name).is_file():
            return Path(str(place))
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    raise Missing(
        f"Triton needs this Python's shared library (libpython{version}.so), which is not there: "
        f"install it (apt install libpython{version}) or use uv's own Python (uv venv --managed-python)"
    )


def _backends(server: Path, to: Path) -> None:
    """Triton's Python backend with the stub of this Python beside it, as links: Triton looks for the stub only there."""
    shutil.rmtree(to, ignore_errors=True)
    (to / "python").mkdir(parents=True)
    for file in (server / "backends" / "python").iterdir():
        (to / "python" / file.name).symlink_to(file)
    (to / "python" / "triton_python_backend_stub").symlink_to(_stub(server))


def _argv(
    server: Path, folder: Path, loaded: list[str], http: int, grpc: int | None, metrics: int, prefix: str, host: str
) -> list[str]:
    options = {
        "id": folder.name,
        "model-repository": folder / "repository",
        "backend-directory": folder / "backends",
        "model-control-mode": "explicit",
        "exit-on-error": "true",
        "exit-timeout-secs": EXIT_TIMEOUT_SECONDS,
        "http-address": host,
        "http-port": http,
        "http-thread-count": 2,
        "http-header-forward-pattern": FORWARDED,
        "allow-grpc": "false" if grpc is None else "true",
        "metrics-address": host,
        "metrics-port": metrics,
        "metrics-interval-ms": 500,
        "allow-gpu-metrics": "false",
        "allow-cpu-metrics": "false",
        "model-load-thread-count": len(loaded),
        "pinned-memory-pool-byte-size": 0,
        "log-format": "ISO8601",
    }
    if grpc is not None:
        options |= {"grpc-address": host, "grpc-port": grpc, "grpc-infer-allocation-pool-size": 1}
        options["grpc-header-forward-pattern"] = FORWARDED
    argv = [str(server / "bin" / "tritonserver")]
    argv += [f"--{name}={value}" for name, value in options.items()]
    argv += [f"--load-model={each}" for each in loaded]
    argv.append("--disable-auto-complete-config")
    argv.append("--metrics-config=summary_latencies=true")
    shared = (f"shm-region-prefix-name={prefix}", "shm-default-byte-size=1048576", "shm-growth-byte-size=1048576")
    return argv + [f"--backend-config=python,{setting}" for setting in shared]


def _env(server: Path, fault_file: Path | None) -> dict[str, str]:
    libraries = [str(server.parent.parent / "nvidia_pytriton.libs"), str(_python_library())]
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "LD_", "TRIMTAB_", "VIRTUAL_ENV"))}
    env |= {
        "LD_LIBRARY_PATH": ":".join(libraries),
        # The stub's embedded Python ignores PYTHONPATH: it takes the environment of the `python3` that is first on the path.
        "PATH": os.pathsep.join((str(Path(sys.prefix) / "bin"), os.environ.get("PATH", os.defpath))),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "MALLOC_ARENA_MAX": "2",
    }
    if fault_file is not None:
        env["TRIMTAB_REPLICA_FAULT_FILE"] = str(fault_file.absolute())
    return env
