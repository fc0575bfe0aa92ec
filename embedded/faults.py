"""The faults that a scenario injects into a running stack. Every one is real: signals, slow answers, recorded GPU telemetry."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from embedded.host.fleet import FleetHost
from embedded.host.targets import Target, TargetsFile, write_atomically
from serving_stack.fault import Fault, set_fault
from trimtab.errors import Missing

ReplicaFaultKind = Literal["hang", "slow", "crash", "gpu"]
SLOW_SECONDS = 0.2
"""How much a slow replica adds to each batch when nothing else is said."""


def fault_file(replicas: Path, name: str) -> Path:
    """Where a replica's process looks for a fault that only it has; `replicas` is the folder of all replicas."""
    return replicas / name / "fault.json"


class Faults:
    """Injects faults into one fleet and lifts them all in the end."""

    def __init__(self, host: FleetHost, targets: TargetsFile, replicas: Path, gpu_faults: Path) -> None:
        self._host, self._targets, self._replicas, self._gpu_faults = host, targets, replicas, gpu_faults
        self._gpus: dict[str, str] = {}
        self._slow: set[str] = set()
        self._timers: list[threading.Timer] = []
        write_atomically(gpu_faults, "{}")

    def inject(self, kind: ReplicaFaultKind, replica: str, seconds: float = SLOW_SECONDS) -> None:
        """Make a replica hang (SIGSTOP), crash (SIGKILL), slow (by `seconds` per batch) or lose its GPU (XID 79 replayed).

        Raises `Missing` when no such replica runs.
        """
        try:
            process = self._host.process(replica)
        except KeyError:
            raise Missing(f"there is no replica {replica} to inject {kind} into") from None
        if not process.tree():
            raise Missing(f"replica {replica} runs no more: {kind} cannot be injected")
        match kind:
            case "hang":
                process.signal_tree(signal.SIGSTOP)
            case "crash":
                process.signal_tree(signal.SIGKILL)
            case "slow":
                set_fault(fault_file(self._replicas, replica), Fault(kind="slow", seconds=seconds))
                self._slow.add(replica)
            case "gpu":
                self._gpus[replica] = "xid79"
                write_atomically(self._gpu_faults, json.dumps(self._gpus))

    def telemetry_outage(self, which: str | Sequence[str], seconds: float) -> list[str]:
        """Scrapes of these targets (`all`, a role, a name, or several of these) hang for `seconds`; the names hit now.

        Targets that match and come later are hit too. Raises `Missing` when nothing matches now.
        """
        words = {which} if isinstance(which, str) else set(which)

        def matches(target: Target) -> bool:
            return "all" in words or target.role in words or target.target in words

        hit = [target.target for target in self._targets.all() if matches(target)]
        if not hit:
            known = ", ".join(target.target for target in self._targets.all())
            raise Missing(f"no target matches {', '.join(sorted(words))}: there are {known or 'none'}")
        handle = self._targets.black_out(matches)
        timer = threading.Timer(seconds, self._targets.lift, (handle,))
        timer.daemon = True
        timer.start()
        self._timers.append(timer)
        return hit

    def lift(self) -> None:
        """End every fault that can be ended: outages, slowness, GPU faults. What hangs or has crashed stays so."""
        for timer in self._timers:
            timer.cancel()
            timer.function(*timer.args)
        self._timers.clear()
        for replica in self._slow:
            set_fault(fault_file(self._replicas, replica), None)
        self._slow.clear()
        self._gpus.clear()
        write_atomically(self._gpu_faults, "{}")
