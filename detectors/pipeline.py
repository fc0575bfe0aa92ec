"""From snapshots to scores and findings of one fleet: tick, observe, score, fuse, diagnose, in this order."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import msgspec
import numpy as np

from detectors import fusion
from detectors.context import Context
from detectors.diagnosis import Diagnosis
from detectors.features import NAMES, Extractor
from detectors.members.base import Detector, LearnedDetector, Verdict
from detectors.members.canary import CanaryMember
from detectors.members.change_point import ChangePointMember
from detectors.members.cnn_lstm import CnnLstmMember
from detectors.members.history import HistoryMember
from detectors.members.invariants import InvariantsMember
from detectors.members.isolation_forest import IsolationForestMember
from detectors.members.peers import PeersMember
from detectors.models_store import Models
from detectors.observe import Observation, Observer
from detectors.settings import DetectSettings
from detectors.ticks import Tick, Ticker
from trimtab.errors import Undecodable
from trimtab.messages import Finding, FleetSpec, Score, Snapshot

__all__ = ["DetectSettings", "Output", "Pipeline"]

STATE = 2


class Output(NamedTuple):
    """What became known since the last call."""

    scores: list[Score]
    findings: list[Finding]


class Pipeline:
    """Detection for one fleet. Pure: time is passed in, `now` is processing time in unix seconds and never goes back.

    The same calls give the same output; `dump` and `restore` between any two of them change nothing.
    """

    def __init__(self, fleet: str, settings: DetectSettings, models: Models | None = None) -> None:
        self.fleet = fleet
        self._settings = settings
        self._ticker = Ticker(settings.interval, settings.grace, settings.future, settings.forget_ticks, settings.restart_grace)
        self._observer, self._extractor = Observer(fleet), Extractor()
        self._invariants, self._canary = InvariantsMember(settings), CanaryMember(settings)
        self._history, self._change = HistoryMember(), ChangePointMember(settings.surge_ratio, settings.interval)
        self._always: list[Detector] = [self._invariants, PeersMember(), self._history, self._canary, self._change]
        self._learned: list[LearnedDetector] = []
        self._diagnosis = Diagnosis(fleet, settings)
        self._spec: FleetSpec | None = None
        self._models: Models | None = None
        if models is not None:
            self.use(models)

    @property
    def refused(self) -> dict[str, int]:
        """How many snapshots were refused, by reason: late, future, duplicate."""
        return {"late": self._ticker.late, "future": self._ticker.rejected_future, "duplicate": self._ticker.duplicate}

    def on_snapshot(self, snapshot: Snapshot, now: float) -> Output:
        """Take one snapshot of this fleet; returns what the ticks that it completes tell."""
        return self._ticks(self._ticker.offer(snapshot, now))

    def on_time(self, now: float) -> Output:
        """Time has passed: ticks whose targets are silent close. Call it a few times per second."""
        return self._ticks(self._ticker.advance(now))

    def on_spec(self, spec: FleetSpec) -> None:
        """Take what the owner wants: its capacity tells when a queue is explained by load."""
        if spec.fleet == self.fleet:
            self._spec = spec

    def use(self, models: Models) -> None:
        """Put newly trained detectors into place; they warm up on the next ticks, everything else goes on."""
        self._models = models
        self._learned = [
            IsolationForestMember(models.forest, models.forest_calibration),
            CnnLstmMember(models.network, models.network_scale, models.network_calibration),
        ]

    def _ticks(self, ticks: list[Tick]) -> Output:
        output = Output([], [])
        for tick in ticks:
            scores, findings = self._tick(tick)
            output.scores.extend(scores)
            output.findings.extend(findings)
        return output

    def _tick(self, tick: Tick) -> Output:
        seen = self._observer.observe(tick)
        rows = self._extractor.rows(seen)
        scaler = self._models.scaler if self._models else None
        residuals = scaler.residuals(rows) if scaler else np.full((len(seen.replicas), len(NAMES)), math.nan)
        seen = seen._replace(residuals=residuals)
        verdicts = {detector.name: detector.score(seen) for detector in (*self._always, *self._learned)}
        verdicts[fusion.NAME] = fusion.fuse(seen, verdicts)
        context = Context(
            seen=seen,
            settings=self._settings,
            spec=self._spec,
            verdicts=verdicts,
            violations=self._invariants.found,
            comparisons=self._canary.found,
            surging=self._change.on > 0,
            expected=self._history.expected,
            scaler=scaler,
            remembered={},
        )
        findings = self._diagnosis.diagnose(context, self._change)
        suspects = self._diagnosis.suspects(seen)
        for learned in self._learned:
            learned.settle(suspects)
        return Output([score for name, verdict in verdicts.items() for score in _scores(seen, name, verdict)], findings)

    def dump(self) -> bytes:
        """The whole state, except settings and models."""
        state = {
            "state": STATE,
            "fleet": self.fleet,
            "ticker": self._ticker.dump(),
            "observer": self._observer.dump(),
            "extractor": self._extractor.dump(),
            "members": {detector.name: detector.dump() for detector in (*self._always, *self._learned)},
            "diagnosis": self._diagnosis.dump(),
            "spec": self._spec,
        }
        return msgspec.msgpack.encode(state)

    @classmethod
    def restore(cls, data: bytes, settings: DetectSettings, models: Models | None) -> Pipeline:
        """A pipeline that goes on where `dump` was called; raises `Undecodable` for bytes that are no such state."""
        try:
            state: dict[str, Any] = msgspec.msgpack.decode(data, strict=False)
            if state["state"] != STATE:
                raise Undecodable(f"detection state of version {state['state']}, this version reads {STATE}")
            pipeline = cls(state["fleet"], settings, models)
            pipeline._ticker.restore(state["ticker"])
            pipeline._observer.restore(state["observer"])
            pipeline._extractor.restore(state["extractor"])
            for detector in (*pipeline._always, *pipeline._learned):
                if detector.name in state["members"]:
                    detector.restore(state["members"][detector.name])
            pipeline._diagnosis.restore(state["diagnosis"])
            pipeline._spec = msgspec.convert(state["spec"], FleetSpec | None)
        except (msgspec.MsgspecError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise Undecodable(f"not a detection state: {error}") from error
        return pipeline


def _scores(seen: Observation, name: str, verdict: Verdict) -> list[Score]:
    return [
        Score(fleet=seen.fleet, target=target, time=seen.time, detector=name, score=round(float(score), 6), top=top)
        for target, score, top in zip(verdict.targets, verdict.scores, verdict.top, strict=True)
        if math.isfinite(score)
    ]
