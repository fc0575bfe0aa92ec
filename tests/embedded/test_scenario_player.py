"""Playing a scenario: the right acts at the right times, the traffic planned up front, the same choices from the same seed."""

import itertools
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from embedded import scenario as scenarios
from embedded import traffic_plan
from embedded.events import ReplicaFaultKind, VersionFault
from embedded.player import LEAK_BYTES_PER_REQUEST, Player, version_fault, victim
from embedded.recorder import Recorder
from embedded.scenario import Scenario
from embedded.timeline import acts, due
from serving_stack.fault import Fault
from serving_stack.traffic.plan import read_plan
from trimtab.errors import Missing
from trimtab.memory_bus import MemoryBus

QUICK = {
    "name": "quick",
    "duration": "300ms",
    "fleet": {"model": "intent", "replicas": {"min": 1, "max": 4}},
    "traffic": [{"at": "0s", "rate": "20/s"}, {"at": "200ms", "rate": "40/s", "arrivals": "constant"}],
    "events": [
        {"at": "0s", "surge": {"factor": 3, "for": "100ms"}},
        {"at": "50ms", "release": {"version": 2, "fault": {"kind": "wrong", "share": "30%"}}},
        {"at": "100ms", "replica_fault": {"kind": "slow", "by": "2s"}},
        {"at": "150ms", "telemetry_outage": {"targets": ["gateway"], "for": "1s"}},
    ],
    "expect": [{"never": "rollback"}],
}


class Actors:
    """Writes down what it is told, as a stack would do it."""

    def __init__(self, serving: Sequence[str] = ("a", "b", "c")) -> None:
        self.done: list[tuple[object, ...]] = []
        self._serving = list(serving)

    def release(self, version: int, fault: Fault | None = None) -> None:
        self.done.append(("release", version, fault))

    def inject(self, kind: ReplicaFaultKind, replica: str, seconds: float = 0.2) -> None:
        self.done.append(("inject", kind, replica, seconds))

    def serving(self, version: int | None = None) -> list[str]:
        return self._serving

    def telemetry_outage(self, which: str | Sequence[str], seconds: float) -> list[str]:
        if which == ["gateway"] and not self._serving:
            raise Missing("no target matches gateway")
        self.done.append(("outage", which, seconds))
        return ["gateway"]


def played(actors: Actors, tmp_path: Path, seed: int = 1) -> tuple[Player, Recorder]:
    scenario = Scenario.model_validate(QUICK)
    recorder = Recorder(MemoryBus(), scenario.spec(), tmp_path / "records.jsonl")
    zero = time.time()
    recorder.clock_starts(zero)
    player = Player(scenario, seed, actors, recorder)
    player.play(zero, threading.Event())
    return player, recorder


def test_every_event_is_played_in_order_and_noted(tmp_path: Path) -> None:
    actors = Actors()
    player, recorder = played(actors, tmp_path)
    hit = victim(["a", "b", "c"], 1, 2)
    assert actors.done == [
        ("release", 2, Fault(kind="wrong", share=0.3)),
        ("inject", "slow", hit, 2.0),
        ("outage", ["gateway"], 1.0),
    ]
    assert not player.trouble
    with recorder.recording() as recording:
        noted = [(note.detail["event"], note.detail["edge"]) for note in recording.notes]
        assert noted == [(0, "begin"), (1, "begin"), (0, "end"), (2, "begin"), (3, "begin"), (3, "end")]
        assert f"{hit} becomes slow by 2000 ms" in [note.words for note in recording.notes]


def test_an_event_that_cannot_be_brought_about_is_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    actors = Actors(serving=[])
    player, recorder = played(actors, tmp_path)
    assert [done[0] for done in actors.done] == ["release"]
    assert ["no replica in traffic" in player.trouble[0], "no target matches" in player.trouble[1]] == [True, True]
    with recorder.recording() as recording:
        assert [note.words for note in recording.notes if note.kind == "demo"] == player.trouble


def test_a_stop_ends_the_play_early(tmp_path: Path) -> None:
    scenario = Scenario.model_validate({**QUICK, "duration": "10m"})
    stop = threading.Event()
    stop.set()
    actors = Actors()
    Player(scenario, 1, actors, Recorder(MemoryBus(), scenario.spec(), tmp_path / "r.gz")).play(time.time() + 60, stop)
    assert actors.done == []


def test_due_splits_by_time() -> None:
    pending = acts(scenarios.read(scenarios.find("tour")))
    ready, later = due(pending, 120.0)
    assert [act.at for act in ready] == [70, 110, 120] and ready + later == pending
    assert due(pending, -5.0) == ([], pending) and due([], 3.0) == ([], [])


def test_the_seed_picks_the_replica() -> None:
    names = [f"intent-v1-{n}" for n in range(8)]
    assert victim(names, 7, 3) == victim(list(reversed(names)), 7, 3)
    assert len({victim(names, seed, 3) for seed in range(20)}) > 3
    assert victim([], 7, 3) is None


@pytest.mark.parametrize(
    ("fault", "served"),
    [
        ({"kind": "slow", "by": "200ms"}, Fault(kind="slow", seconds=0.2)),
        ({"kind": "failing", "share": "5%"}, Fault(kind="failing", share=0.05)),
        ({"kind": "crashing"}, Fault(kind="crashing")),
        ({"kind": "leaking"}, Fault(kind="leaking", bytes_per_request=LEAK_BYTES_PER_REQUEST)),
    ],
)
def test_faults_reach_the_served_model(fault: dict[str, str], served: Fault) -> None:
    assert version_fault(VersionFault.model_validate(fault)) == served
    assert version_fault(None) is None


def test_the_traffic_plan_is_one_the_generator_reads_and_shifted_by_the_warm_up(tmp_path: Path) -> None:
    scenario = Scenario.model_validate({**QUICK, "duration": "100s", "warmup": "45s"})
    plan = read_plan(traffic_plan.write(tmp_path / "plan.json", scenario, 11))
    assert (plan.seed, plan.duration, plan.warmup) == (11, 145.0, 0.0)
    assert [(surge.at, surge.factor, surge.lasts) for surge in plan.surges] == [(45.0, 3.0, 0.1)]
    warm, play = plan.segments[:-2], plan.segments[-2:]
    assert [(s.at, s.rate, s.arrivals) for s in play] == [(45.0, 20.0, None), (45.2, 40.0, "constant")]
    rates = [s.rate for s in warm]
    assert (min(rates), max(rates), rates[-1]) == (10.0, 40.0, 20.0)
    assert all(abs(a - b) <= 10.0 for a, b in itertools.pairwise(rates))


def test_requests_are_read_from_the_log_and_a_torn_line_is_left_out(tmp_path: Path) -> None:
    log = tmp_path / "requests.jsonl"
    log.write_text(
        '{"time":1.5,"at":0.5,"latency":0.25,"outcome":"ok","version":"2","assigned":"2"}\n'
        '{"time":2.5,"at":1.5,"latency":20.0,"outcome":"error","error":"timeout","attempts":3}\n'
        '{"time":2.6,"at":1.6,"latency":0.1,"outcome":"odd"}\n{"time":3.5,"at"'
    )
    first, second = traffic_plan.read_requests(log)
    assert (first.version, first.assigned, first.outcome, first.attempts) == (2, 2, "ok", 1)
    assert (second.version, second.outcome, second.attempts) == (None, "error", 3)
    with pytest.raises(Missing, match="client's requests"):
        traffic_plan.read_requests(tmp_path / "none.jsonl")
