"""The loop over a bus and a fleet in memory: acts once, survives a kill at any point, says failures, and replays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from autoscaler import recording, statefile
from autoscaler.actuators.memory import MemoryActuator
from autoscaler.loop import Autoscaler
from autoscaler.release import newest_spec, release
from autoscaler.replay import replay
from autoscaler.settings import AutoscaleSettings
from trimtab import tracing
from trimtab.errors import Missing, SettingsError, Unavailable
from trimtab.memory_bus import MemoryBus
from trimtab.messages import DECISIONS, FINDINGS, FLEETS, STATES, TELEMETRY, Decision, FleetPlan, FleetState

Make = Callable[..., Any]
SETTINGS = AutoscaleSettings()


class World:
    """A simulated fleet whose pages, findings and specs travel over a bus to a real loop."""

    def __init__(self, simulation: Make, state: Path) -> None:
        self.sim = simulation(seed=3)
        self.sim.actuator = MemoryActuator(clock=lambda: self.sim.now)
        self.bus = MemoryBus()
        self.bus.ensure_topics()
        self.producer = self.bus.producer()
        self.state = state
        self.loop = self.start()
        self.sim.step = self.step

    def start(self) -> Autoscaler:
        return Autoscaler(self.bus, self.sim.actuator, "intent", SETTINGS, self.state, clock=lambda: self.sim.now)

    def step(self, snapshots: list[Any]) -> None:
        for topic, messages in ((FLEETS, self.sim.pending_specs), (TELEMETRY, snapshots), (FINDINGS, self.sim.pending_findings)):
            trace = b"ee" if topic == TELEMETRY else b"ab"
            for message in messages:
                with tracing.span("test"):
                    self.producer.send(topic, message, {"traceparent": b"00-" + trace * 16 + b"-" + b"cd" * 8 + b"-01"})
        self.sim.pending_specs, self.sim.pending_findings = [], []
        self.loop.once(0.0)
        self.sim.memory = self.loop.saved.memory

    def kill(self) -> None:
        """As kill -9: nothing is closed or committed, and another process starts."""
        self.loop = self.start()

    def published(self, topic: str = DECISIONS) -> list[Any]:
        return [record.message for record in self.bus.consumer([topic], group=None).poll(0)]


@pytest.fixture
def world(simulation: Make, tmp_path: Path) -> World:
    return World(simulation, tmp_path / "state.json")


def scripted(world: World) -> None:
    world.sim.run(30)
    world.sim.rate = 80.0
    world.sim.run(10)
    world.sim.release(2)
    world.sim.run(25)
    world.sim.find(kind="replica_fault", target=world.sim.names(world.sim.memory.rollout.stable)[0], id="q1")
    world.sim.run(10)
    world.sim.telemetry = False
    world.sim.run(10)


def test_what_was_recorded_replays_to_the_same_decisions(world: World, tmp_path: Path) -> None:
    scripted(world)
    assert {d.action for d in world.published()} >= {"scale", "shift_traffic", "promote", "quarantine", "hold"}
    records = recording.from_bus(world.bus, quiet_seconds=0.01)
    file = tmp_path / "recording.jsonl"
    assert recording.write(file, records) == len(records)
    report = replay(recording.read(file), "intent", SETTINGS)
    assert report.differences == []
    assert len(report.decisions) == len({d.id for d in world.published()}) and report.steps > 150


def test_a_replay_with_other_settings_or_a_changed_record_shows_the_difference(world: World) -> None:
    scripted(world)
    records = recording.from_bus(world.bus, quiet_seconds=0.01)
    other = SETTINGS.model_copy(update={"quarantine_confidence": 0.99})
    words = [difference.words for difference in replay(records, "intent", other).differences]
    assert any("only in the recording" in line and "quarantine" in line for line in words)
    assert any("only in the replay" in line for line in words)


@pytest.mark.parametrize("moment", ["save", "apply", "publish", "commit"])
def test_a_kill_at_any_point_neither_repeats_nor_forgets(world: World, moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    world.sim.run(30)
    applied: list[FleetPlan] = []
    apply = world.sim.actuator.apply
    monkeypatch.setattr(world.sim.actuator, "apply", lambda plan: (applied.append(plan), apply(plan))[1])

    class Killed(BaseException):
        pass

    def kill(*_: Any, **__: Any) -> None:
        raise Killed

    world.sim.find(kind="replica_fault", target=(sick := world.sim.names(1)[0]), id="q1")
    with monkeypatch.context() as patch:
        match moment:
            case "save":
                patch.setattr(statefile, "save", kill)
            case "apply":
                patch.setattr(world.sim.actuator, "apply", kill)
            case "publish":
                patch.setattr(world.loop._producer, "flush", kill)
                patch.setattr(world.loop._producer, "send", lambda *_: None)
            case "commit":
                patch.setattr(world.loop._consumer, "commit", kill)
        with pytest.raises(Killed):
            world.sim.run(3)
    world.kill()
    world.sim.run(20)
    quarantines = [d for d in world.published() if d.action == "quarantine"]
    assert {d.id for d in quarantines} and len({d.id for d in quarantines}) == 1
    assert len({msgspec.json.encode(plan) for plan in applied if plan.quarantined}) == 1
    assert sick not in world.sim.names(1) and len(world.sim.names(1)) == 2
    assert len(world.sim.memory.quarantine_times) == 1


def test_a_restart_reads_nothing_twice_and_skips_nothing(world: World) -> None:
    world.sim.run(20)
    before = world.loop.saved.consumed
    world.kill()
    world.loop._consumer = world.bus.consumer((TELEMETRY, FINDINGS, FLEETS), group=None)  # even when every record comes again
    world.sim.run(20)
    assert world.loop.saved.consumed[f"{TELEMETRY}:0"] == before[f"{TELEMETRY}:0"] + 40
    assert len([d for d in world.published() if d.action == "scale"]) == 1


def test_a_plan_that_is_not_accepted_is_said_and_tried_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.sim.run(30)
    tries = []

    def refuse(plan: FleetPlan) -> None:
        tries.append(world.sim.now)
        raise Unavailable("the fleet host is away")

    world.sim.rate = 80.0
    with monkeypatch.context() as patch:
        patch.setattr(world.sim.actuator, "apply", refuse)
        world.sim.run(20)
    failed = [d for d in world.published() if d.outcome == "failed"]
    assert failed and "the fleet host is away" in failed[0].reason and 2 <= len(tries) <= 12
    world.sim.run(40)
    assert {d.id for d in failed} <= {d.id for d in world.published() if d.outcome == "applied"}
    assert len(world.sim.names(1)) == 4
    assert replay(recording.from_bus(world.bus, quiet_seconds=0.01), "intent", SETTINGS).differences == []


def test_an_invalid_plan_is_not_hammered(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.sim.run(30)
    tries = []

    def refuse(plan: FleetPlan) -> None:
        tries.append(plan)
        raise SettingsError("more replicas than this host may run")

    monkeypatch.setattr(world.sim.actuator, "apply", refuse)
    world.sim.rate = 80.0
    world.sim.run(20)
    assert len(tries) == len({plan.decision for plan in tries})
    assert any("more replicas than" in d.reason for d in world.published() if d.outcome == "failed")


def test_a_fleet_that_cannot_be_observed_is_said_once_and_nothing_is_lost(world: World) -> None:
    world.sim.run(30)
    observe = world.sim.actuator.observe
    world.sim.find(kind="replica_fault", target=world.sim.names(1)[0], id="q1")
    world.loop._actuator = MemoryActuator(clock=lambda: world.sim.now, away=True)
    world.sim.run(10)
    held = [d for d in world.published() if d.because == ["actuator_away"]]
    assert len(held) == 1 and held[0].outcome == "failed"
    assert not [d for d in world.published() if d.action == "quarantine"]
    world.loop._actuator = world.sim.actuator
    assert observe("intent")
    world.sim.run(10)
    assert len([d for d in world.published() if d.action == "quarantine"]) == 1


def test_a_bus_that_is_away_loses_no_decision(world: World) -> None:
    world.sim.run(30)
    world.sim.find(kind="replica_fault", target=world.sim.names(1)[0], id="q1")
    world.producer.send(FINDINGS, world.sim.pending_findings.pop())
    world.bus.away = False
    flush = world.loop._producer.flush
    world.loop._producer.flush = _away  # type: ignore[method-assign]
    for _ in range(3):
        with pytest.raises(Unavailable):
            world.loop.once(0.0)
    world.loop._producer.flush = flush  # type: ignore[method-assign]
    world.loop.once(0.0)
    assert len([d for d in world.published() if d.action == "quarantine"]) == 1


def _away(timeout: float = 10.0) -> None:
    raise Unavailable("the bus is away")


def test_each_decision_continues_the_trace_of_its_finding(world: World) -> None:
    tracing.setup("test")
    world.sim.run(30)
    world.sim.find(kind="replica_fault", target=world.sim.names(1)[0], id="q1")
    world.sim.run(2)
    (record,) = [
        record
        for record in world.bus.consumer([DECISIONS], group=None).poll(0)
        if isinstance(record.message, Decision) and record.message.action == "quarantine"
    ]
    assert record.headers["traceparent"].split(b"-")[1] == b"ab" * 16


def test_a_decision_without_a_finding_continues_the_trace_of_the_newest_page(world: World) -> None:
    tracing.setup("test")
    world.sim.run(30)
    world.sim.rate = 80.0
    world.sim.run(10)
    records = world.bus.consumer([DECISIONS], group=None).poll(0)
    traces = {r.headers["traceparent"].split(b"-")[1] for r in records if r.message.action == "scale"}  # type: ignore[attr-defined]
    assert traces == {b"ee" * 16}


def test_states_say_how_far_the_topics_were_read(world: World) -> None:
    world.sim.run(5)
    states = [message for message in world.published(STATES) if isinstance(message, FleetState)]
    assert states[-1].consumed == {f"{TELEMETRY}:0": 10, f"{FLEETS}:0": 1}


@pytest.mark.parametrize("content", [b"", b"{", b'{"fleet": "other"}', b'{"fleet": "intent", "schema": 9}', b"\xff\xfe"])
def test_a_state_file_of_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "state.json"
    file.write_bytes(content)
    with pytest.raises(SettingsError, match=r"state\.json:1"):
        statefile.load(file, "intent")


def test_a_recording_with_a_bad_line_names_the_line(tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    file.write_text('\n{"topic": "trimtab.nothing", "partition": 0, "offset": 0, "time": 1, "message": {}}\n')
    with pytest.raises(SettingsError, match=r"r\.jsonl:2: 'trimtab.nothing'"):
        recording.read(file)
    with pytest.raises(SettingsError, match="cannot be read"):
        recording.read(tmp_path / "none.jsonl")


def test_release_publishes_the_newest_spec_with_the_version(world: World) -> None:
    with pytest.raises(Missing, match="no fleet 'nobody'"):
        newest_spec(world.bus, "nobody", wait_seconds=0.05)
    world.sim.run(1)
    spec = release(world.bus, "intent", 2, 0.0)
    assert (spec.version, spec.max_replicas) == (2, 4) and spec.time > world.sim.spec.time
    assert world.published(FLEETS)[-1] == spec
    with pytest.raises(SettingsError, match="start at 1"):
        release(world.bus, "intent", 0, 1.0)
    world.bus.producer().forget(FLEETS, "intent")
    with pytest.raises(Missing, match="no fleet 'intent'"):
        newest_spec(world.bus, "intent", wait_seconds=0.05)
