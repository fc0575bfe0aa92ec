"""The pipeline as its callers meet it: restarts, hot swap, hostile snapshots, stored models."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from detectors import models_store
from detectors.pipeline import Output, Pipeline
from detectors.training import train
from trimtab import codec
from trimtab.errors import Missing, Undecodable
from trimtab.messages import Snapshot


def story(world: Any, replica: Any) -> list[list[Snapshot]]:
    """Ninety ticks with a hang, an outage, a bad version and a surge."""
    w = world([replica("a"), replica("b")], seed=13)
    ticks = []
    for t in range(90):
        w.replicas["b"].state = "hang" if 30 <= t < 38 else "up"
        w.outage = w.all_targets() if 48 <= t < 54 else None
        if t == 62:
            w.replicas["c"] = replica("c", version=2, role="canary", weight=0.6, extra=0.2)
        w.rate = 80 if t >= 75 else 20
        ticks.append(w.step())
    return ticks


def play(pipeline: Pipeline, tick: list[Snapshot]) -> Output:
    outputs = [pipeline.on_snapshot(s, s.time + s.took) for s in tick] + [pipeline.on_time(tick[0].time + 0.9)]
    return Output([s for o in outputs for s in o.scores], [f for o in outputs for f in o.findings])


def test_a_restart_at_every_tick_changes_nothing(world: Any, replica: Any, settings: Any, models: Any) -> None:
    ticks = story(world, replica)
    whole = Pipeline("intent", settings, models)
    expected = [play(whole, tick) for tick in ticks]
    pipeline = Pipeline("intent", settings, models)
    for tick, output in zip(ticks, expected, strict=True):
        pipeline = Pipeline.restore(pipeline.dump(), settings, models)
        found = play(pipeline, tick)
        assert [codec.encode(m) for m in found.findings] == [codec.encode(m) for m in output.findings]
        assert [codec.encode(m) for m in found.scores] == [codec.encode(m) for m in output.scores]
    assert {f.kind for o in expected for f in o.findings} == {
        "replica_fault",
        "telemetry_gap",
        "version_regression",
        "demand_shift",
    }
    assert len(pipeline.dump()) < 200_000


def test_models_are_swapped_in_while_running(world: Any, replica: Any, settings: Any, models: Any) -> None:
    w = world([replica("a")], seed=3)
    pipeline = Pipeline("intent", settings)
    w.run(pipeline, 20)
    assert not {s.detector for s in w.scores} & {"isolation_forest", "cnn_lstm"}
    pipeline.use(models)
    w.run(pipeline, 15)
    assert {"isolation_forest", "cnn_lstm"} <= {s.detector for s in w.scores}
    assert Pipeline.restore(pipeline.dump(), settings, None) is not None  # without models it goes on, unlearned


@pytest.mark.parametrize("data", [b"", b"\x80", b"garbage", b"\x81\xa5state\x01", b"\x81\xa5state\x63"])
def test_bytes_that_are_no_state_are_refused_in_words(data: bytes, settings: Any) -> None:
    with pytest.raises(Undecodable):
        Pipeline.restore(data, settings, None)


VALUE = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True))
SERIES = st.sampled_from(
    [
        'nv_inference_request_success{version="1"}',
        'nv_inference_request_failure{version="1"}',
        'nv_inference_compute_infer_duration_us{version="1"}',
        'nv_inference_pending_request_count{version="1"}',
        'trimtab_model_resident_memory_bytes{version="1"}',
        'envoy_cluster_upstream_rq_xx{envoy_cluster_name="intent_v1",envoy_response_code_class="5"}',
        'envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name="intent_v1",le="nonsense"}',
        'envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name="intent_v1",le="10"}',
        'envoy_http_downstream_rq_total{envoy_http_conn_manager_prefix="intent"}',
        'trimtab_traffic_requests_total{outcome="wrong",version="x"}',
        'DCGM_FI_DEV_XID_ERRORS{gpu="0",pod="a"}',
        "DCGM_FI_DEV_FB_USED{}",
        "nonsense{{",
        "",
    ]
)
SNAPSHOT = st.builds(
    Snapshot,
    target=st.sampled_from("abg"),
    fleet=st.just("intent"),
    role=st.sampled_from(["triton", "gateway", "gpu", "app", "vllm", "node"]),
    pool=st.sampled_from([None, "stable", "canary", "previous"]),
    version=st.sampled_from([None, 1, 2]),
    time=st.one_of(st.floats(0, 30), st.sampled_from([float("nan"), float("inf"), -1e300, -1e18, 1e18])),
    took=st.floats(0, 1),
    up=st.booleans(),
    error=st.sampled_from([None, "timeout", ""]),
    series=st.dictionaries(SERIES, VALUE, max_size=8),
)


@hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(snapshots=st.lists(SNAPSHOT, max_size=25))
def test_no_snapshot_breaks_it(snapshots: list[Snapshot], settings: Any, models: Any) -> None:
    pipeline = Pipeline("intent", settings, models)
    for i, snapshot in enumerate(snapshots):
        output = pipeline.on_snapshot(snapshot, 2.0 + i)
        assert all(0 <= s.score <= 1 for s in output.scores)
    pipeline.on_time(60.0)
    Pipeline.restore(pipeline.dump(), settings, models)


def test_stored_models_score_the_same_and_need_no_torch(tmp_path: Path, models: Any, recording: Any, settings: Any) -> None:
    digest = models_store.save(models, tmp_path / "m")
    assert models_store.save(models_store.load(tmp_path / "m"), tmp_path / "n") and len(digest) == 64
    code = (
        # The store and the pipeline, in a process that has seen nothing else.
        "import sys; from pathlib import Path; from detectors import models_store;"
        "from detectors.pipeline import Pipeline, DetectSettings;"
        f"Pipeline('intent', DetectSettings(), models_store.load(Path({str(tmp_path / 'm')!r})));"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    outputs = []
    for each in (models, models_store.load(tmp_path / "m")):
        pipeline = Pipeline("intent", settings, each)
        outputs.append([s.score for snapshot in recording for s in pipeline.on_snapshot(snapshot, snapshot.time).scores])
    assert outputs[0] == outputs[1] and len(outputs[0]) > 100


@pytest.mark.parametrize("name", [models_store.FOREST, models_store.NETWORK, models_store.FACTS, models_store.DIGEST])
def test_changed_or_missing_files_are_refused(tmp_path: Path, models: Any, name: str) -> None:
    models_store.save(models, tmp_path)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(Missing, match="changed"):
        models_store.load(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(Missing, match="trimtab train"):
        models_store.load(tmp_path)


def test_too_little_telemetry_is_said(recording: Any, settings: Any) -> None:
    with pytest.raises(Missing, match="too little telemetry"):
        train(recording[:40], "intent", settings, lambda step, share: None)
    with pytest.raises(Missing, match="too little telemetry"):
        train([], "intent", settings, lambda step, share: None)
