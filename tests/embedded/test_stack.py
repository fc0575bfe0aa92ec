"""The whole stack on real Kafka, Flink, Triton and Envoy: comes up, serves, acts on a release, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from embedded.stack import Stack
from embedded.status import last_decisions, statuses
from serving_stack.fault import Fault
from trimtab.errors import Missing, Unavailable
from trimtab.messages import TELEMETRY, FleetSpec, Snapshot

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]


def spec() -> FleetSpec:
    return FleetSpec(fleet="intent", model="intent", version=1, min_replicas=2, max_replicas=3, capacity_per_replica=30.0)


def below(folder: Path) -> list[int]:
    """Living processes that name the folder on their command line, as all parts of a stack do."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and str(folder) in " ".join(process.cmdline()):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def gone(folder: Path, seconds: float = 30.0) -> bool:
    end = time.monotonic() + seconds
    while below(folder) and time.monotonic() < end:
        time.sleep(0.1)
    return not below(folder)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("stack")
    with Stack(folder, spec(), seed=1) as made:
        yield made
        names = {row.name for row in made.status()}
    assert {"kafka", "gateway", "collect", "detect", "autoscale", "replay-gpu", "intent-v1-1"} <= names
    assert gone(folder)


def ask(stack: Stack) -> httpx.Response:
    body = {"inputs": [{"name": "text", "shape": [1, 1], "datatype": "BYTES", "data": [["my card did not arrive"]]}]}
    return httpx.post(f"{stack.addresses['gateway']}/v2/models/intent/infer", json=body, timeout=20)


def test_serves_and_is_scraped(stack: Stack) -> None:
    answer = ask(stack)
    assert answer.status_code == 200, answer.text
    assert answer.json()["outputs"][0]["data"]
    consumer = stack.bus().consumer([TELEMETRY], group=None)
    seen: set[str] = set()
    end = time.monotonic() + 30
    while not {"gateway", "gpu-node", "intent-v1-1", "intent-v1-2"} <= seen and time.monotonic() < end:
        for record in consumer.poll(0.5):
            assert isinstance(record.message, Snapshot)
            if record.message.up:
                seen.add(record.message.target)
    consumer.close()
    assert {"gateway", "gpu-node", "intent-v1-1", "intent-v1-2"} <= seen


def test_status_finds_it(stack: Stack) -> None:
    (found,) = [each for each in statuses() if each.run.folder == str(stack.folder)]
    assert found.problems == []
    assert found.state is not None
    assert sorted(replica.name for pool in found.state.pools for replica in pool.replicas) == ["intent-v1-1", "intent-v1-2"]
    assert stack.peak_memory_bytes > 500_000_000


def test_a_broker_killed_in_the_middle_of_the_run_loses_no_scrape(stack: Stack) -> None:
    killed = time.time()
    stack.supervisor.process("kafka").signal_tree(signal.SIGKILL)
    times: list[float] = []
    end = time.monotonic() + 90
    while (not times or max(times) < killed + 15) and time.monotonic() < end:
        try:
            consumer = stack.bus().consumer([TELEMETRY], group=None)
        except Unavailable:
            continue  # still away
        for _ in range(5):
            messages = [record.message for record in consumer.poll(1.0)]
            times += [m.time for m in messages if isinstance(m, Snapshot) and m.target == "gateway" and m.time > killed - 5]
        consumer.close()
    around = sorted(set(times))
    assert around[-1] > killed + 15, "telemetry did not come back"
    assert max(after - before for before, after in pairwise(around)) < 2.5, "scrapes made while the broker was away are missing"


def spans(stack: Stack, process: str) -> list[dict[str, Any]]:
    """What a process has recorded; it writes a span about a second after it has ended."""
    return [json.loads(line) for line in (stack.folder / "spans" / f"{process}.jsonl").read_text().splitlines()]


def test_a_hanging_replica_still_lets_clients_be_answered_and_one_trace_runs_from_scrape_to_act(stack: Stack) -> None:
    sick = stack.serving()[0]
    stack.inject("hang", sick)
    assert all(ask(stack).status_code == 200 for _ in range(4))
    end = time.monotonic() + 60
    act = None
    while act is None and time.monotonic() < end:
        time.sleep(1)
        acts = [span for span in spans(stack, "autoscale") if span["name"] == "decide and apply"]
        act = next(
            (s for s in acts if (s["attributes"]["action"], s["attributes"]["outcome"]) == ("quarantine", "applied")), None
        )
    assert act is not None, "the replica that hangs was not quarantined"
    (decision,) = [d for d in last_decisions(stack.addresses["kafka"], "intent", 100) if d.id == act["attributes"]["decision"]]
    assert decision.target == sick
    (detect,) = [span for span in spans(stack, "detect") if span["span"] == act["parent"]]
    (scrape,) = [span for span in spans(stack, "collect") if span["span"] == detect["parent"]]
    assert act["trace"] == detect["trace"] == scrape["trace"]
    assert (scrape["name"], scrape["attributes"]["target"], scrape["attributes"]["up"]) == ("scrape", sick, False)
    assert (detect["name"], detect["attributes"]["kind"]) == ("detect", "replica_fault")
    assert scrape["start"] <= detect["start"] <= act["start"]
    with pytest.raises(Missing, match="no replica"):
        stack.inject("hang", "intent-v7-1")


def test_a_crashing_release_is_decided_on_and_never_promoted(stack: Stack) -> None:
    plan = stack.folder / "plan.json"
    plan.write_text(json.dumps({"seed": 1, "duration": 90, "segments": [{"at": 0, "rate": 10}]}))
    traffic = stack.start_traffic(plan)
    stack.release(2, Fault(kind="crashing", after_requests=3))
    end = time.monotonic() + 80
    decided = []
    while "rollback" not in decided and time.monotonic() < end:
        decided = [decision.action for decision in last_decisions(stack.addresses["kafka"], "intent", 100)]
        time.sleep(1)
    assert "rollback" in decided
    assert "promote" not in decided
    traffic.stop()
    summary = json.loads((stack.folder / "traffic-summary.json").read_text())
    assert summary["sent"] > 0
    assert summary["ok"] > 0.8 * summary["sent"]  # real answers, right ones, even beside a version that crashes


def test_up_stops_cleanly_on_ctrl_c_and_a_second_stack_runs_beside_it(stack: Stack, tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "trimtab", "up", "--folder", str(tmp_path), "--rate", "5", "--no-train"]
    process = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "Ctrl-C stops everything" in line:
            break
    else:
        pytest.fail("".join(lines))
    assert len([each for each in statuses() if each.run.folder in (str(tmp_path), str(stack.folder))]) == 2
    process.send_signal(signal.SIGINT)
    rest = process.stdout.read()
    assert process.wait(60) == 0, rest
    assert "stopped; logs and topics" in rest
    assert gone(tmp_path)
    assert ask(stack).status_code == 200
