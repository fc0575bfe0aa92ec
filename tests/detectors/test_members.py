"""The contract of every detector, over all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from detectors.features import Extractor
from detectors.members.base import Detector
from detectors.members.canary import CanaryMember
from detectors.members.change_point import ChangePointMember
from detectors.members.cnn_lstm import WINDOW, CnnLstmMember
from detectors.members.history import HistoryMember
from detectors.members.invariants import InvariantsMember
from detectors.members.isolation_forest import FEATURE_COUNT, IsolationForestMember, Trees
from detectors.members.peers import PeersMember
from detectors.observe import Observation, Observer
from detectors.ticks import Tick

Make = Callable[[], Detector]
NAMES = ["invariants", "isolation_forest", "cnn_lstm", "peers", "history", "canary", "change_point"]


@pytest.fixture(params=NAMES)
def make(request: pytest.FixtureRequest, settings: Any, models: Any) -> Make:
    makers: dict[str, Make] = {
        "invariants": lambda: InvariantsMember(settings),
        "isolation_forest": lambda: IsolationForestMember(models.forest, models.forest_calibration),
        "cnn_lstm": lambda: CnnLstmMember(models.network, models.network_scale, models.network_calibration),
        "peers": PeersMember,
        "history": HistoryMember,
        "canary": lambda: CanaryMember(settings),
        "change_point": lambda: ChangePointMember(settings.surge_ratio, settings.interval),
    }
    return makers[request.param]


@pytest.fixture(scope="module")
def observations(world: Any, replica: Any, models: Any) -> list[Observation]:
    """Seventy ticks with a canary, a slow replica, a replica that is gone for a while, and a surge."""
    w = world([replica("a"), replica("b"), replica("c", version=2, role="canary", weight=0.5)], seed=2)
    observer, extractor, found = Observer("intent"), Extractor(), []
    for t in range(70):
        w.replicas["b"].extra = 0.2 if 30 <= t < 40 else 0.0
        w.replicas["a"].state = "down" if 45 <= t < 50 else "up"
        w.rate = 80 if t >= 60 else 20
        seen = observer.observe(Tick(t, float(t + 1), {s.target: s for s in w.step()}, []))
        found.append(seen._replace(residuals=models.scaler.residuals(extractor.rows(seen))))
    return found


def table(detector: Detector, observations: list[Observation]) -> list[dict[str, float]]:
    verdicts = [detector.score(seen) for seen in observations]
    return [dict(zip(v.targets, v.scores.tolist(), strict=True)) for v in verdicts]


def same(a: list[dict[str, float]], b: list[dict[str, float]]) -> None:
    assert [set(x) for x in a] == [set(x) for x in b]
    for x, y in zip(a, b, strict=True):
        for target in x:
            assert x[target] == pytest.approx(y[target], abs=1e-6, nan_ok=True)


def test_scores_are_in_range_and_something_is_said(make: Make, observations: list[Observation]) -> None:
    scores = np.array([s for row in table(make(), observations) for s in row.values()])
    known = scores[np.isfinite(scores)]
    assert len(known) > 30 and ((known >= 0) & (known < 1)).all()


def test_a_prefix_gives_the_same_scores_as_the_whole(make: Make, observations: list[Observation]) -> None:
    same(table(make(), observations)[:40], table(make(), observations[:40]))


def test_a_restart_in_the_middle_changes_nothing(make: Make, observations: list[Observation]) -> None:
    whole = table(make(), observations)
    first = make()
    before = table(first, observations[:35])
    second = make()
    second.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(first.dump()), strict=False))
    same(whole, before + table(second, observations[35:]))


def test_the_order_of_targets_does_not_matter(make: Make, observations: list[Observation]) -> None:
    def permuted(seen: Observation) -> Observation:
        order = list(range(len(seen.replicas)))[::-1]
        return seen._replace(
            replicas=[seen.replicas[i] for i in order], values=seen.values[order], residuals=seen.residuals[order]
        )

    same(table(make(), observations), table(make(), [permuted(seen) for seen in observations]))


def test_the_first_tick_gives_no_statistical_score(make: Make, observations: list[Observation]) -> None:
    detector = make()
    scores = list(table(detector, observations[:1])[0].values())
    if detector.name != "invariants":
        assert not np.isfinite(scores).any()


def test_unknown_everywhere_stays_unknown(make: Make, observations: list[Observation]) -> None:
    def blind(seen: Observation) -> Observation:
        nothing = {name: np.full(getattr(seen, name).shape, np.nan) for name in ("values", "residuals", "pools")}
        return seen._replace(**nothing, arrivals=float("nan"), replicas=list(seen.replicas))

    detector = make()
    rows = table(detector, [blind(seen) for seen in observations])
    if detector.name != "invariants":
        assert not np.isfinite([s for row in rows for s in row.values()]).any()


def test_an_unknown_tick_in_between_does_not_poison_the_rest(make: Make, observations: list[Observation]) -> None:
    holes = [
        seen._replace(
            values=np.full(seen.values.shape, np.nan), residuals=np.full(seen.residuals.shape, np.nan), arrivals=float("nan")
        )
        if 20 <= i < 24
        else seen
        for i, seen in enumerate(observations)
    ]
    last = [s for row in table(make(), holes)[30:] for s in row.values()]
    assert np.isfinite(last).any()


def test_a_constant_series_is_never_alarming(make: Make, observations: list[Observation]) -> None:
    still = [observations[20]._replace(tick=i, time=float(i)) for i in range(60)]
    scores = np.array([s for row in table(make(), still) for s in row.values()])
    assert not (scores[np.isfinite(scores)] > 0.995).any()


def test_no_replicas_at_all(make: Make, observations: list[Observation]) -> None:
    empty = observations[0]._replace(
        replicas=[],
        values=observations[0].values[:0],
        residuals=observations[0].residuals[:0],
        versions=[],
        pools=observations[0].pools[:0],
        others=[],
        gpus=[],
    )
    make().score(empty)


def test_flat_trees_score_like_scikit_learn_and_survive_storage() -> None:
    from sklearn.ensemble import IsolationForest  # here, because every worker imports this file and few run this test

    rng = np.random.default_rng(1)
    rows = rng.normal(0, 3, (50, FEATURE_COUNT))
    forest = IsolationForest(n_estimators=20, random_state=1).fit(rng.normal(0, 1, (300, FEATURE_COUNT)))
    trees = Trees.of(forest)
    assert trees.statistic(rows) == pytest.approx(-forest.score_samples(rows), abs=1e-12)
    again = Trees.from_bytes(trees.to_bytes())
    assert (again.statistic(rows) == trees.statistic(rows)).all()


def test_the_stored_network_forecasts_as_the_trained_one() -> None:
    import onnxruntime

    from detectors.members.cnn_lstm_network import CnnLstm, to_onnx

    network = CnnLstm(5).eval()
    inputs = np.random.default_rng(3).normal(size=(4, WINDOW, 10))
    session = onnxruntime.InferenceSession(to_onnx(network))
    stored = session.run(None, {"window": inputs.astype(np.float32)})[0]
    assert stored == pytest.approx(network.forecast(inputs), abs=1e-5)


@pytest.mark.parametrize(("part", "value"), [("left", 10**6), ("right", -3), ("feature", 99)])
def test_trees_that_point_outside_themselves_are_refused(models: Any, part: str, value: int) -> None:
    spoiled = getattr(models.forest, part).copy()
    spoiled[0, 0] = value
    with pytest.raises(ValueError, match="forest"):
        Trees.from_bytes(replace(models.forest, **{part: spoiled}).to_bytes())
    with pytest.raises(ValueError, match="not a forest|pickle"):
        Trees.from_bytes(b"garbage")


def test_the_learned_detectors_see_a_slow_replica(models: Any, observations: list[Observation]) -> None:
    forest = table(IsolationForestMember(models.forest, models.forest_calibration), observations)
    network = table(CnnLstmMember(models.network, models.network_scale, models.network_calibration), observations)
    slow, healthy = range(31, 40), range(12, 30)
    for scores in (forest, network):
        assert min(scores[t]["b"] for t in slow) > max(scores[t]["b"] for t in healthy)
        assert np.median([scores[t]["b"] for t in slow]) > 0.95
    # A surge alone is no anomaly of a replica.
    assert np.nanmedian([scores[t]["c"] for t in range(62, 70) for scores in (forest, network)]) < 0.99
