"""The host alone: its store, the plan it begins with, other targets, and that it names its fleet once."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from embedded.gateway_files import GatewayFiles
from embedded.host import alone
from embedded.host.cli import _drills
from embedded.host.fleet import Ports
from embedded.host.reconcile import GatewayPool
from serving_stack import repository
from serving_stack.export import INT8
from serving_stack.fault import Fault
from serving_stack.gateway.settings import GatewaySettings
from trimtab.errors import Missing, SettingsError
from trimtab.memory_bus import MemoryBus
from trimtab.messages import FLEETS, FleetPlan, FleetSpec, PoolPlan

SPEC = FleetSpec(fleet="intent", model="intent", version=1, min_replicas=2, capacity_per_replica=30.0)


@pytest.fixture
def how(tmp_path: Path) -> alone.Alone:
    """A host over a store with versions 1 and 2."""
    exported = tmp_path / "exported"
    exported.mkdir()
    for name in (INT8, "tokenizer.json", "intents.json"):
        (exported / name).write_text("{}")
    for version in (1, 2):
        repository.publish(tmp_path / "shipped", "intent", version, exported)
    work = tmp_path / "work"
    work.mkdir()
    return alone.Alone(
        spec=SPEC,
        store=tmp_path / "shipped",
        work=work,
        gateway=tmp_path / "gateway",
        targets=tmp_path / "targets.json",
        address="10.0.0.7",
        listen="127.0.0.1",
        port=7070,
        drills={3: Fault(kind="slow", seconds=0.2)},
    )


class TestStore:
    def test_it_has_what_was_shipped_and_the_drills(self, how: alone.Alone) -> None:
        store = alone._store(how)
        assert repository.versions(store, "intent") == [1, 2, 3]
        assert json.loads((store / "intent" / "3" / "fault.json").read_text())["seconds"] == 0.2
        for version in (1, 2, 3):
            repository.verify(store, "intent", version)

    def test_it_is_made_anew_at_each_start(self, how: alone.Alone) -> None:
        alone._store(how)
        assert repository.versions(alone._store(how), "intent") == [1, 2, 3]
        assert repository.versions(how.store, "intent") == [1, 2]  # what was shipped is not touched

    def test_a_drill_does_not_take_the_place_of_a_version(self, how: alone.Alone) -> None:
        with pytest.raises(SettingsError, match="version 2 is a shipped one"):
            alone._store(other(how, drills={2: Fault(kind="crashing")}))

    def test_an_empty_store_is_said(self, how: alone.Alone, tmp_path: Path) -> None:
        with pytest.raises(Missing, match="no version of model intent"):
            alone._store(other(how, store=tmp_path / "nothing"))


class TestFirstPlan:
    def test_at_first_it_is_the_least_of_the_spec(self, how: alone.Alone) -> None:
        (pool,) = alone._first_plan(how, how.work / "plan.json").pools
        assert (pool.version, pool.replicas, pool.weight) == (1, 2, 100)

    def test_later_it_is_the_last_one(self, how: alone.Alone) -> None:
        last = FleetPlan(fleet="intent", decision="d7", pools=[PoolPlan(version=2, role="stable", replicas=3, weight=100)])
        (how.work / "plan.json").write_bytes(msgspec.json.encode(last))
        assert alone._first_plan(how, how.work / "plan.json") == last

    @pytest.mark.parametrize("damaged", [b"", b"{", b"[]", b'{"fleet": 1}', b"\xff\xfe"])
    def test_a_damaged_file_does_not_stop_it(self, how: alone.Alone, damaged: bytes, capsys: pytest.CaptureFixture[str]) -> None:
        (how.work / "plan.json").write_bytes(damaged)
        assert alone._first_plan(how, how.work / "plan.json").decision == "first"
        assert "is damaged" in capsys.readouterr().out


class TestOtherTargets:
    def test_they_are_read_as_file_sd_says(self, tmp_path: Path) -> None:
        labels = {"fleet": "intent", "role": "gateway", "target": "gateway", "__metrics_path__": "/stats/prometheus"}
        (tmp_path / "also.json").write_text(json.dumps([{"targets": ["gateway:9901"], "labels": labels}]))
        (target,) = alone.other_targets(tmp_path / "also.json")
        assert target.entry(target.address) == {"targets": ["gateway:9901"], "labels": labels}

    @pytest.mark.parametrize(
        "wrong", ["", "{}x", '{"targets": []}', '[{"targets": ["a:1"]}]', '[{"targets": ["a:1"], "labels": {}}]', "7"]
    )
    def test_what_is_wrong_is_said(self, tmp_path: Path, wrong: str) -> None:
        (tmp_path / "also.json").write_text(wrong)
        with pytest.raises(SettingsError, match=r"also\.json is not a list of targets"):
            alone.other_targets(tmp_path / "also.json")

    def test_a_file_that_is_not_there_is_said(self, tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match=r"also\.json: No such file"):
            alone.other_targets(tmp_path / "also.json")


class TestAnnounce:
    def test_a_fleet_is_named_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(alone, "QUIET_SECONDS", 0.05)
        bus = MemoryBus()
        for _ in range(2):  # a restart
            alone._announce(bus, SPEC, threading.Event())
        assert len(bus.topics[FLEETS]) == 1

    @pytest.mark.integration
    def test_it_waits_for_a_kafka_that_is_away(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(alone, "KAFKA_PAUSE_SECONDS", 0.01)
        bus, stop = MemoryBus(away=True), threading.Event()
        waiting = threading.Thread(target=alone._announce, args=(bus, SPEC, stop))
        waiting.start()
        stop.set()
        waiting.join(5)
        assert not waiting.is_alive()


class TestGatewayFilesForAnotherContainer:
    def test_envoy_listens_for_others_and_finds_the_replicas(self, tmp_path: Path) -> None:
        files = GatewayFiles(tmp_path, "intent", "intent", GatewaySettings(), "10.0.0.7", shared=True)
        files.place(8080, 9902)
        files.publish([GatewayPool(1, "stable", 100, ("intent-v1-1",))], {"intent-v1-1": Ports(4711, 4712, 4713)})
        written = "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
        assert '"10.0.0.7"' in written and "4711" in written
        assert "4712" in (tmp_path / "eds" / "v1_grpc.json").read_text()
        assert '"0.0.0.0"' in written and "9901" in written


def other(how: alone.Alone, **changes: object) -> alone.Alone:
    """A copy with other values."""
    return replace(how, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", ["x", "[]", '{"a": {"kind": "slow"}}', '{"3": {"kind": "slow"}}', '{"3": {"kind": "odd"}}'])
def test_drills_that_are_none_are_refused(wrong: str) -> None:
    with pytest.raises(SettingsError, match="--drills is not"):
        _drills(wrong)


def test_no_drills_is_no_mistake() -> None:
    assert _drills("") == {}
    assert _drills('{"3": {"kind": "slow", "seconds": 0.2}}') == {3: Fault(kind="slow", seconds=0.2)}
