"""What Trimtab's messages say about each fleet, kept so that a metrics page can show it. Pure: time is passed in.

Bounded on purpose: fleets, targets, detectors and open findings have limits, and what is beyond them is counted.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

from dashboards.settings import MetricsSettings
from trimtab.messages import FLEETS, Decision, DetectorModel, Finding, FleetSpec, FleetState, Forgotten, Message, Score

TAILS = (0.0001, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0)
"""Upper bounds of one minus the score: calibrated scores fall below each of them just that often."""
FAULTS = frozenset(("version_regression", "quality_shift", "replica_fault", "gpu_fault", "dependency_fault"))
_REMEMBERED = 2000


@dataclass
class DetectorView:
    """How a detector's scores have been since the start."""

    last: float = float("-inf")
    count: int = 0
    alarming: int = 0
    tail_sum: float = 0.0
    tails: list[int] = field(default_factory=lambda: [0] * len(TAILS))


@dataclass
class FleetView:
    """What is known of one fleet. Counters count from the start of this process; unknown is None."""

    spec: FleetSpec | None = None
    state: FleetState | None = None
    model: DetectorModel | None = None
    scores: dict[str, dict[str, Score]] = field(default_factory=dict)  # by target and detector
    detectors: dict[str, DetectorView] = field(default_factory=dict)
    open: dict[str, Finding] = field(default_factory=dict)
    findings: Counter[tuple[str, str]] = field(default_factory=Counter)
    ended: Counter[tuple[str, bool]] = field(default_factory=Counter)
    decisions: Counter[tuple[str, str]] = field(default_factory=Counter)
    decided: dict[tuple[str, str], float] = field(default_factory=dict)
    newest: dict[str, float] = field(default_factory=dict)
    answered: set[str] = field(default_factory=set)


class Observed:
    """Takes messages in the order they come; the views are read by `dashboards.families`."""

    def __init__(self, limits: MetricsSettings, alarm: float, started: float) -> None:
        self.limits, self.alarm, self.started = limits, alarm, started
        self.fleets: dict[str, FleetView] = {}
        self.left_out: Counter[str] = Counter()
        self._gone: dict[str, None] = {}  # fleets that were deleted: what is still on the way of them makes no new view
        self._known: deque[str] = deque()
        self._seen: set[str] = set()

    def take(self, topic: str, message: Message) -> None:
        """Learns from one message; what says nothing about a fleet is ignored."""
        fleet = getattr(message, "fleet", None)
        if isinstance(message, Forgotten):
            self._gone_for_good(topic, message.fleet)
            return
        if isinstance(message, FleetSpec):
            self._gone.pop(message.fleet, None)
        if fleet is None or fleet in self._gone or (view := self._view(fleet)) is None:
            return
        view.newest[topic] = max(view.newest.get(topic, 0.0), float(getattr(message, "time", 0.0)))
        match message:
            case FleetSpec():
                view.spec = message
            case FleetState():
                view.state = message
            case DetectorModel():
                view.model = message
            case Score():
                self._score(view, message)
            case Finding():
                self._finding(view, message)
            case Decision():
                self._decision(view, message)
            case _:
                pass

    def forget(self, now: float) -> None:
        """Drops scores and findings that nobody has repeated for `quiet_seconds`: they are unknown, not still so."""
        oldest = now - self.limits.quiet_seconds
        for view in self.fleets.values():
            for target, scores in list(view.scores.items()):
                view.scores[target] = {name: score for name, score in scores.items() if score.time >= oldest}
                if not view.scores[target]:
                    del view.scores[target]
            view.open = {key: finding for key, finding in view.open.items() if finding.time >= oldest}
            view.answered &= view.open.keys()

    def _gone_for_good(self, topic: str, fleet: str) -> None:
        if topic != FLEETS:
            if view := self.fleets.get(fleet):
                view.model = None
            return
        self.fleets.pop(fleet, None)
        self._gone[fleet] = None
        if len(self._gone) > _REMEMBERED:
            del self._gone[next(iter(self._gone))]

    def _view(self, fleet: str) -> FleetView | None:
        if fleet not in self.fleets:
            if len(self.fleets) >= self.limits.fleets:
                self.left_out["fleet"] += 1
                return None
            self.fleets[fleet] = FleetView()
        return self.fleets[fleet]

    def _score(self, view: FleetView, score: Score) -> None:
        if score.detector not in view.detectors:
            if len(view.detectors) >= self.limits.detectors:
                self.left_out["detector"] += 1
                return
            view.detectors[score.detector] = DetectorView()
        if not 0.0 <= score.score <= 1.0:  # NaN too: unknown counts nowhere
            return
        detector, tail = view.detectors[score.detector], 1.0 - score.score
        detector.last = max(detector.last, score.time)
        detector.count += 1
        detector.alarming += score.score >= self.alarm
        detector.tail_sum += tail
        for index, bound in enumerate(TAILS):
            detector.tails[index] += tail <= bound
        if score.target in view.scores or len(view.scores) < self.limits.targets:
            view.scores.setdefault(score.target, {})[score.detector] = score
        else:
            self.left_out["target"] += 1

    def _finding(self, view: FleetView, finding: Finding) -> None:
        if finding.time >= self.started and self._first_time(f"finding {finding.id}"):
            view.findings[finding.kind, finding.severity] += 1
        if finding.state == "firing":
            if finding.id in view.open or len(view.open) < self.limits.findings:
                view.open[finding.id] = finding
            else:
                self.left_out["finding"] += 1
            return
        view.open.pop(finding.id, None)
        if finding.time >= self.started and finding.kind in FAULTS and self._first_time(f"end of {finding.id}"):
            view.ended[finding.kind, finding.id in view.answered] += 1
        view.answered.discard(finding.id)

    def _decision(self, view: FleetView, decision: Decision) -> None:
        if decision.outcome == "applied":
            view.answered |= {reason for reason in decision.because if reason in view.open}
        key = (decision.action, decision.outcome)
        view.decided[key] = max(view.decided.get(key, 0.0), decision.time)
        if decision.time >= self.started and self._first_time(f"decision {decision.id} {decision.outcome}"):
            view.decisions[key] += 1

    def _first_time(self, what: str) -> bool:
        """Messages come at least once; each counts once."""
        if what in self._seen:
            return False
        self._seen.add(what)
        self._known.append(what)
        if len(self._known) > _REMEMBERED:
            self._seen.discard(self._known.popleft())
        return True
