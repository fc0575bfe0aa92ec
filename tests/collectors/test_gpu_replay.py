"""The replay exporter: only recorded values, live when normal, frozen when fallen off the bus, and honest about it."""

from __future__ import annotations

import itertools
import json
import socket
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from collectors.exposition import Parser
from collectors.gpu_replay import Recording, Replay, recordings, serve
from trimtab.errors import Missing, SettingsError

LIVE = ("DCGM_FI_DEV_POWER_USAGE", "DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_GPU_UTIL")


class Hand:
    """A clock moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def state(replay: Replay) -> dict[str, dict[str, float]]:
    """gpu -> field -> value, as the page shows it now."""
    found: dict[str, dict[str, float]] = {}
    for metric in replay.collect():
        for sample in metric.samples:
            if "gpu" in sample.labels:
                found.setdefault(sample.labels["gpu"], {})[sample.name] = sample.value
    return found


NORMAL = [recording for recording in recordings() if recording.kind == "normal"]
FAULTS = [recording for recording in recordings() if recording.kind == "xid79"]


def test_recordings_are_there() -> None:
    assert (len(NORMAL), len(FAULTS)) == (8, 4)
    assert len({recording.uuid for recording in NORMAL}) == 8


@pytest.mark.parametrize("recording", NORMAL, ids=lambda recording: recording.uuid)
def test_normal_recordings_never_look_frozen_or_broken(recording: Recording) -> None:
    played = [*recording.samples, recording.samples[0]]  # with the seam of the loop
    assert len(recording.samples) >= 30
    for before, after in itertools.pairwise(played):
        assert after["DCGM_FI_DEV_XID_ERRORS"] == 0
        assert after["DCGM_FI_DEV_FB_USED"] >= 0
        assert before["DCGM_FI_DEV_POWER_USAGE"] != after["DCGM_FI_DEV_POWER_USAGE"]
        assert before.keys() == after.keys()
    counters = [name for name in played[0] if name.endswith(("_TOTAL", "_ROWS", "_COUNTER", "CONSUMPTION"))]
    assert "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION" not in counters
    for name in counters:
        assert len({sample[name] for sample in recording.samples}) == 1, f"{name} would fall back at the seam"


@pytest.mark.parametrize("recording", FAULTS, ids=lambda recording: recording.uuid)
def test_the_recorded_fault_is_xid_79_frozen_and_without_memory(recording: Recording) -> None:
    assert all(sample == recording.samples[0] for sample in recording.samples)
    first = recording.samples[0]
    assert first["DCGM_FI_DEV_XID_ERRORS"] == 79
    assert "DCGM_FI_DEV_FB_USED" not in first
    assert all(name in first for name in LIVE)


def test_plays_one_recorded_sample_per_second_and_loops() -> None:
    hand = Hand()
    replay = Replay(2, clock=hand)
    for second in range(len(NORMAL[0].samples) + 3):
        hand.now = 100.0 + second + 0.4
        shown = state(replay)
        assert shown["0"] == NORMAL[0].samples[second % len(NORMAL[0].samples)]
        assert shown["1"] == NORMAL[1].samples[second % len(NORMAL[1].samples)]
    hand.now = 101.9
    assert state(Replay(1, speed=5, clock=hand))["0"] == NORMAL[0].samples[0]


def test_speed() -> None:
    hand = Hand()
    replay = Replay(1, speed=5, clock=hand)
    hand.now += 2.1
    assert state(replay)["0"] == NORMAL[0].samples[10]


def test_assignment_and_fault_files_are_followed(tmp_path: Path) -> None:
    assignment, faults, hand = tmp_path / "gpus.json", tmp_path / "faults.json", Hand()
    replay = Replay(3, assignment=assignment, faults=faults, clock=hand)

    def pods() -> dict[str, str | None]:
        return {
            sample.labels["gpu"]: sample.labels.get("pod")
            for metric in replay.collect()
            for sample in metric.samples
            if sample.name == "DCGM_FI_DEV_XID_ERRORS"
        }

    def xid() -> list[float]:
        return [state(replay)[gpu]["DCGM_FI_DEV_XID_ERRORS"] for gpu in "012"]

    assert pods() == {"0": None, "1": None, "2": None}
    assert xid() == [0, 0, 0]

    assignment.write_text('{"0": "intent-v1-1", "1": "intent-v1-2"}')
    assert pods() == {"0": "intent-v1-1", "1": "intent-v1-2", "2": None}

    before = state(replay)["1"]
    assert "DCGM_FI_DEV_FB_USED" in before
    faults.write_text('{"intent-v1-2": "xid79", "2": "xid79"}')
    for second in range(60):
        hand.now = 200.0 + second
        assert xid() == [0, 79, 79]
        assert state(replay)["1"] == FAULTS[1].samples[0]

    faults.write_text('{"intent-v1-2": "melted"}')  # wrong: goes on as before
    assert xid() == [0, 79, 79]
    faults.write_text('{"intent-v1-2": "xid79"}')
    assert xid() == [0, 79, 0]
    assignment.write_text('{"1": "intent-v1-3"}')  # given to another replica: healthy
    assert xid() == [0, 0, 0]
    faults.unlink()
    assert xid() == [0, 0, 0]


@pytest.mark.parametrize(
    ("text", "said"), [("[]", "faults.json:1"), ('{"a": "fire"}', "faults.json:1: a:"), ('{"a', "faults.json:1")]
)
def test_a_wrong_file_at_the_start_is_refused(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "faults.json"
    file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        Replay(1, faults=file)
    assert said in str(caught.value)


def test_the_page_over_http(tmp_path: Path) -> None:
    assignment = tmp_path / "gpus.json"
    assignment.write_text(json.dumps({str(i): f"intent-v1-{i}" for i in range(10)}))
    port, stop = serve(Replay(10, assignment=assignment, hostname="node-a"), 0)
    try:
        with pytest.raises(Missing, match=f"cannot listen on 127.0.0.1:{port}"):
            serve(Replay(1), port)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            body = answer.read()
    finally:
        stop()
    with pytest.raises(OSError), socket.create_connection(("127.0.0.1", port), timeout=2):
        pass
    families = {family.name: family for family in text_string_to_metric_families(body.decode())}
    assert "REPLAY" in families["DCGM_FI_DEV_GPU_TEMP"].documentation
    assert "CC BY 4.0" in families["trimtab_gpu_replay_info"].samples[0].labels["source"]
    labels = [sample.labels for sample in families["DCGM_FI_DEV_XID_ERRORS"].samples]
    assert [label["pod"] for label in labels] == [f"intent-v1-{i}" for i in range(10)]
    assert len({label["UUID"] for label in labels}) == 10
    assert {label["Hostname"] for label in labels} == {"node-a"}
    assert {label["modelName"] for label in labels} == {"NVIDIA A100-SXM4-80GB"}
    series = Parser(keep=("DCGM_", "trimtab_gpu_")).parse(body)
    assert sum(key.startswith("DCGM_FI_DEV_FB_USED{") for key in series) == 10
