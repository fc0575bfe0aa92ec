"""What must hold of any healthy target, without statistics: it answers, its page moves, its GPU is there.

Score: 1 - 1e-6 for a broken invariant, 0.99 for one that is odd but harmless by itself (a counter that was reset by a
restart, a number out of range), 0 otherwise. No warm-up. A false alarm costs a quarantine, so each rule needs a state that
was good before: a replica that never answered is starting, an XID that was there at first sight is old (DCGM never clears it).
Memory: a few numbers per replica and GPU.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np

from detectors.calibration import FLOOR
from detectors.members.base import Verdict
from detectors.observe import Gpu, Health, Observation
from detectors.settings import DetectSettings
from detectors.xid import meaning
from trimtab.messages import Severity

What = Literal["down", "hang", "stuck", "frozen", "reset", "range", "xid", "gpu_lost"]
NEVER_SECONDS = 90.0  # a model that has not loaded by then will not
DRAINED_TICKS = 5  # a replica that served nothing before it went was probably stopped on purpose
STUCK_TICKS = 3
XID_END = 10_000  # NVIDIA's codes lie far below: anything else on the page is garbage, not an error of the GPU
_TIMEOUT = ("timeout", "timed out", "deadline", "never answer", "no answer")


class Violation(NamedTuple):
    """A broken invariant. `hard` ones are findings, the others only evidence."""

    target: str
    what: What
    series: str
    observed: float | None
    expected: float | None
    words: str
    severity: Severity
    hard: bool


class _GpuState(msgspec.Struct):
    xid: int | None = None
    new_xid: int = 0
    memory_known: int = 0
    memory_missing: int = 0
    temperature: float = 0.0
    same: int = 0


class InvariantsMember:
    """The detector `invariants`; `found` holds what is broken in the last tick."""

    name = "invariants"

    def __init__(self, settings: DetectSettings) -> None:
        self.found: list[Violation] = []
        self._settings = settings
        self._stuck: dict[str, int] = {}
        self._gpus: dict[str, _GpuState] = {}

    def score(self, seen: Observation) -> Verdict:
        """One score per target of any role."""
        self.found = [*self._scrapes(seen), *self._numbers(seen)]
        for gpu in seen.gpus:
            self.found += self._gpu(gpu)
        on_page = {f"{g.target}/{g.gpu}" for g in seen.gpus}
        # A page that failed says nothing about its GPUs; they stay known.
        if any(h.role == "gpu" and h.up for h in seen.others):
            self._gpus = {key: state for key, state in self._gpus.items() if key in on_page}
        targets = sorted({h.target for h in (*seen.replicas, *seen.others)} | {v.target for v in self.found})
        broken = {t: [v for v in self.found if v.target == t] for t in targets}
        scores = [1 - FLOOR if any(v.hard for v in broken[t]) else 0.99 if broken[t] else 0.0 for t in targets]
        return Verdict(targets, np.array(scores), [[(v.series, 1.0) for v in broken[t]][:3] for t in targets])

    def _scrapes(self, seen: Observation) -> list[Violation]:
        busy = any(h.up and not h.idle_before for h in seen.replicas)
        found = []
        least_same = self._settings.frozen_ticks
        gateways = [h for h in seen.others if h.role == "gateway"]
        gateway_still = bool(gateways) and all(_stuck_page(h, least_same) for h in gateways)
        for h in (*seen.replicas, *seen.others):
            least = self._settings.down_ticks
            if h.role == "triton" and h.idle_before and busy:
                least = max(least, DRAINED_TICKS)
            never = not h.ever_up and h.fails > 0 and h.age >= NEVER_SECONDS
            if (h.ever_up and h.fails >= least) or never:
                found.append(_down(h, never))
            if h.up and _stuck_page(h, least_same) and (gateway_still or _must_move(h, seen, least_same)):
                words = f"{h.target} has shown the same page for {h.same + 1} ticks"
                found.append(Violation(h.target, "frozen", "page", float(h.same), 0.0, words, "warning", True))
        return found

    def _numbers(self, seen: Observation) -> list[Violation]:
        found = []
        stuck = {}
        for h, pending, done in zip(seen.replicas, seen.column("pending"), seen.column("requests"), strict=True):
            if h.reset:
                words = f"the counters of {h.target} went back: it was restarted"
                found.append(Violation(h.target, "reset", "nv_inference_request_success", None, None, words, "info", False))
            stuck[h.target] = self._stuck.get(h.target, 0) + 1 if pending >= 1 and done == 0 else 0
            if stuck[h.target] >= STUCK_TICKS:
                words = f"{h.target} answers its scrapes but finished nothing for {stuck[h.target]} ticks: {pending:.0f} pending"
                found.append(
                    Violation(
                        h.target, "stuck", "nv_inference_pending_request_count", float(pending), 0.0, words, "critical", True
                    )
                )
        self._stuck = stuck
        for name, most in (("confidence", 1.001), ("gpu_utilisation", 1.001), ("memory_bytes", np.inf), ("pending", np.inf)):
            column = seen.column(name)
            for i in np.flatnonzero((column < 0) | (column > most)):
                target = seen.replicas[i].target
                words = f"{name} of {target} is {column[i]:g}, which cannot be"
                found.append(Violation(target, "range", name, float(column[i]), None, words, "info", False))
        return found

    def _gpu(self, gpu: Gpu) -> list[Violation]:
        state = self._gpus.setdefault(f"{gpu.target}/{gpu.gpu}", _GpuState())
        target, found = gpu.pod or gpu.target, []
        if 0 <= gpu.values.get("gpu_xid", -1.0) < XID_END:
            code = int(gpu.values["gpu_xid"])
            if state.xid is not None and code != state.xid:
                state.new_xid = code
            state.xid = code
        temperature = gpu.values.get("gpu_temperature", state.temperature) + gpu.values.get("gpu_power", 0.0)
        state.same = state.same + 1 if temperature == state.temperature else 0
        state.temperature = temperature
        frozen = f"; its temperature and power have not moved for {state.same} ticks" if state.same >= 5 else ""
        where = f"GPU {gpu.gpu} of {gpu.target}" + (f", where {gpu.pod} runs" if gpu.pod else "")
        if state.new_xid:
            text, severity = meaning(state.new_xid)
            words = f"{where}, reports XID {state.new_xid}: {text}{frozen}"
            hard = severity != "info"
            found.append(Violation(target, "xid", "DCGM_FI_DEV_XID_ERRORS", float(state.new_xid), 0.0, words, severity, hard))
        if "gpu_memory" in gpu.values:
            state.memory_known, state.memory_missing = state.memory_known + 1, 0
        elif state.memory_known >= 3:
            state.memory_missing += 1
            if state.memory_missing >= 2:
                words = f"{where}, no longer reports its memory{frozen}"
                found.append(Violation(target, "gpu_lost", "DCGM_FI_DEV_FB_USED", None, None, words, "critical", True))
        return found

    def dump(self) -> dict[str, Any]:
        """The state as plain values."""
        return {"stuck": self._stuck, "gpus": msgspec.to_builtins(self._gpus)}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a dumped state."""
        self._stuck = dict(state["stuck"])
        self._gpus = {key: msgspec.convert(value, _GpuState) for key, value in state["gpus"].items()}


def _stuck_page(h: Health, ticks: int) -> bool:
    return h.lively and h.same >= ticks and h.role != "gpu"  # an idle GPU's numbers may well stand still


def _must_move(h: Health, seen: Observation, ticks: int) -> bool:
    """Whether something is known to happen on this target. One idle replica of several may just be out of traffic."""
    if h.role == "gateway":
        return True  # its own uptime is on its page
    if h.role == "app":
        return seen.arrivals > 0
    pool = [o for o in seen.replicas if o.version == h.version and o.up]
    return h.version is not None and seen.pool(h.version, "requests") >= 1.0 and all(o.same >= ticks for o in pool)


def _down(h: Health, never: bool) -> Violation:
    error = (h.error or "").lower()
    if never:
        words = f"{h.target} has never answered in {h.age:.0f} s: {h.error}"
        return Violation(h.target, "down", "up", 0.0, 1.0, words, "critical", True)
    if any(word in error for word in _TIMEOUT):
        words = f"{h.target} hangs: {h.fails} scrapes in a row got no answer, after it had answered"
        return Violation(h.target, "hang", "up", 0.0, 1.0, words, "critical", True)
    words = f"{h.target} is down: {h.fails} scrapes in a row failed ({h.error})"
    return Violation(h.target, "down", "up", 0.0, 1.0, words, "critical", True)
