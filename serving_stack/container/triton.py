"""The Triton container: puts the version together, then becomes Triton."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from pydantic import ValidationError

from serving_stack.adapters_content import lend_adapters
from serving_stack.fault import Fault
from serving_stack.repository import publish, versions
from serving_stack.triton import ReplicaProcess, replica_process
from trimtab.errors import Missing, SettingsError

HTTP_PORT, GRPC_PORT, METRICS_PORT = 8000, 8001, 8002
WORK = Path("/tmp/trimtab")  # noqa: S108 (the pod's own emptyDir)
FAULT_FILE = WORK / "fault.json"
"""Where `trimtab-container fault` writes; see `serving_stack.fault`."""


def start(store: Path, model: str, version: int, drill: str) -> None:
    """Replace this process by Triton serving `version` of `model`; does not return.

    `drill` is a `Fault` as JSON that all replicas of the version shall have, or empty. Raises `Missing` or `SettingsError`.
    """
    process = prepare(store, model, version, drill, WORK / socket.gethostname())
    process.clean_up()  # of a Triton that was killed in this pod
    os.execve(process.argv[0], process.argv, process.env)  # noqa: S606


def prepare(store: Path, model: str, version: int, drill: str, folder: Path) -> ReplicaProcess:
    """How to run the version; with a drill it is assembled anew, with that fault, in a store of its own beside `folder`."""
    fault = _fault(drill)
    if fault is not None:
        source = source_of_drill(versions(store, model), version)
        if source is None:
            raise Missing(f"model {model} has no version in {store} that a drill could be made from")
        published, store = store / model / str(source), folder.parent / "store"
        publish(store, model, version, published, fault)
        lend_adapters(published.parent.parent, model, store)
    elif version not in versions(store, model):
        has = ", ".join(map(str, versions(store, model))) or "none"
        raise Missing(f"version {version} of model {model} does not exist: {store} has {has}")
    return replica_process(
        store,
        model,
        version,
        folder,
        http_port=HTTP_PORT,
        metrics_port=METRICS_PORT,
        grpc_port=GRPC_PORT,
        fault_file=FAULT_FILE,
        host="0.0.0.0",  # noqa: S104 (a pod's address is the pod's own; NetworkPolicies say who may come)
    )


def source_of_drill(there: list[int], version: int) -> int | None:
    """The version whose files a drill uses: its own, or the newest that is there; None when there is none."""
    return version if version in there else max(there, default=None)


def _fault(drill: str) -> Fault | None:
    if not drill.strip():
        return None
    try:
        return Fault.model_validate_json(drill)
    except ValidationError as error:
        first = error.errors()[0]
        raise SettingsError(f"TRIMTAB_DRILL is not a fault: {first['msg']}") from error
