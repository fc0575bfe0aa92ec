"""What the API server says, as the plugin reads it; no cluster is needed."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from autoscaler.kubectl import decisions, patches, topics
from autoscaler.kubectl.cli import fleet as commands
from autoscaler.kubectl.cluster import explained
from autoscaler.kubectl.fleets import Fleet, fleet_of, moment
from autoscaler.kubectl.pods import pod_of
from trimtab.errors import Missing, TrimtabError
from trimtab.kube import Kube, KubeError
from trimtab.memory_bus import MemoryBus
from trimtab.messages import DECISIONS, FINDINGS, Finding


def thing(status: Any = None, **spec: Any) -> dict[str, Any]:
    meta = {"namespace": "prod", "name": "intent", "generation": 1, "creationTimestamp": "2026-11-24T10:00:00Z"}
    return {"metadata": meta, "spec": {"model": "intent", "version": 2, **spec}, "status": status}


def test_a_fleet(full_status: dict[str, Any]) -> None:
    fleet = fleet_of(thing(full_status, paused=True, override={"replicas": 3, "until": "2026-11-24T12:00:00Z"}))
    assert (fleet.ready, fleet.version, fleet.canary_version, fleet.canary_weight) == ("True", 1, 2, 20)
    assert fleet.paused and fleet.up_to_date and fleet.arrivals_per_second == 41.25
    assert [pool.role for pool in fleet.versions] == ["stable", "canary"] and fleet.override is not None
    assert fleet.last_decision.action == "shift_traffic" and fleet.quarantined == ["intent-v1-sick"]


@pytest.mark.parametrize("status", [None, {}, {"versions": "many"}, {"conditions": [{"status": "True"}]}, {"newField": {"a": 1}}])
def test_what_is_not_known_is_none_and_never_zero(status: Any) -> None:
    fleet = fleet_of(thing(status))
    assert fleet.ready == "Unknown" and not fleet.up_to_date
    assert [fleet.replicas, fleet.version, fleet.canary_weight, fleet.arrivals_per_second, fleet.slo] == [None] * 5


def test_moments() -> None:
    assert moment("1970-01-01T00:00:10Z") == moment("1970-01-01T01:00:10+01:00") == 10.0
    assert moment(None) is moment("soon") is None


def test_decisions_of_events_and_topic_are_told_once_with_the_last_word(make_decision: Any, make_event: Any) -> None:
    first, second = make_decision("a", 1.0, "scale"), make_decision("b", 2.0, "promote", outcome="failed")
    later = make_decision("b", 3.0, "promote")
    told = decisions.from_events([make_event(first), make_event(second)])
    assert told == [first, second]
    assert decisions.merged(told, [later]) == [later, first] == decisions.merged([later], told)


def test_events_without_the_whole_decision_give_what_they_say(make_decision: Any, make_event: Any) -> None:
    bare = make_event(make_decision("a", 1.0, "shift_traffic", outcome="refused"))
    bare["metadata"]["annotations"] = {}
    broken = make_event(make_decision("b", 1.0, "rollback"))
    broken["metadata"]["annotations"]["trimtab.dev/decision"] = "{"
    other = make_event(make_decision("c", 1.0, "hold")) | {"reason": "ScalingConflict"}
    other["metadata"] = {"name": "c", "annotations": None}
    found = decisions.from_events([bare, broken, other])
    assert [(each.action, each.outcome, each.reason) for each in found] == [
        ("shift_traffic", "refused", "because of a"),
        ("rollback", "applied", "because of b"),
    ]
    assert found[0].fleet == "prod_intent" and found[0].time == moment("2026-11-24T11:00:00Z")


def test_which_decisions_are_about_a_version_or_a_pod(make_decision: Any) -> None:
    named = make_decision("a", 1.0, "release", version=2)
    moved = make_decision("b", 2.0, "shift_traffic", to={"weights": {"1": 80, "2": 20}})
    out = make_decision("c", 3.0, "quarantine", version=1, target="intent-v1-sick")
    assert decisions.about([named, moved, out], version=2) == [named, moved]
    assert decisions.about([named, moved, out], version=1) == [moved, out]
    assert decisions.about([named, moved, out], pod="intent-v1-sick") == [out]


def test_the_topics_give_one_fleets_decisions_and_newest_findings(make_decision: Any) -> None:
    bus = MemoryBus()
    bus.ensure_topics()
    producer = bus.producer()
    mine, other = make_decision("a", 1.0, "scale"), make_decision("b", 2.0, "scale")
    producer.send(DECISIONS, mine)
    bus.append(DECISIONS, json.dumps({"id": "b", "fleet": "prod_other"}).encode())
    for state in ("firing", "resolved"):
        said = Finding(id="f", fleet="prod_intent", kind="saturation", severity="info", onset=0.0, time=1.0, state=state,
                       confidence=1.0, summary="")  # fmt: skip
        producer.send(FINDINGS, said)
    told, findings = topics.read(bus, "prod_intent")
    assert told == [mine] and findings["f"].state == "resolved" and other not in told


def pod(**parts: Any) -> dict[str, Any]:
    labels = {"trimtab.dev/version": "2", "trimtab.dev/role": "triton", "trimtab.dev/state": "serving"}
    given: dict[str, Any] = {
        "metadata": {"name": "p", "labels": labels},
        "spec": {"nodeName": "n1"},
        "status": {"phase": "Running"},
    }
    for part, values in parts.items():
        given[part] = given[part] | values
    return given


READY = {"conditions": [{"type": "Ready", "status": "True"}]}


@pytest.mark.parametrize(
    ("given", "state"),
    [
        (pod(status=READY), "serving"),
        (pod(), "starting"),
        (pod(status=READY, metadata={"labels": {"trimtab.dev/state": "quarantined"}}), "quarantined"),
        (pod(status=READY, metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"}), "leaving"),
        (pod(status={"phase": "Failed"}), "ended"),
        ({"metadata": {"name": "p"}}, "starting"),
    ],
)
def test_states_of_pods(given: dict[str, Any], state: str) -> None:
    assert pod_of(given).state == state


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ({"containerStatuses": [{"state": {"waiting": {"reason": "ErrImagePull", "message": "not found"}}}]},
         "ErrImagePull: not found"),
        ({"containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}]}, None),
        ({"containerStatuses": [{"name": "triton", "restartCount": 2, "state": {"running": {}},
                                 "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}]},
         "container triton ended with 137 (OOMKilled)"),
        ({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes: no GPU"}]},
         "Unschedulable: 0/1 nodes: no GPU"),
        ({"message": "The node was low on memory"}, "The node was low on memory"),
        (READY, None),
    ],
)  # fmt: skip
def test_troubles_of_pods(status: dict[str, Any], words: str | None) -> None:
    assert pod_of(pod(status=status)).trouble == words


def fleet(**status: Any) -> Fleet:
    return fleet_of(thing(status))


def test_what_a_rollback_and_a_promotion_mean() -> None:
    assert (
        patches.version_to_roll_back(fleet(version=1, canaryVersion=2)) == patches.version_to_promote(fleet(canaryVersion=2)) == 2
    )
    guard = [{"version": 2, "role": "stable"}, {"version": 1, "role": "previous"}]
    assert patches.version_to_roll_back(fleet(version=2, versions=guard)) == 2
    with pytest.raises(Missing, match="nothing to roll back to"):
        patches.version_to_roll_back(fleet(version=1, versions=[{"version": 1, "role": "stable"}]))
    with pytest.raises(Missing, match="no version of fleet 'intent' is on trial"):
        patches.version_to_promote(fleet(version=1))


def test_silence_is_explained_by_what_the_operator_said_last() -> None:
    assert "is it running?" in patches._silence(fleet(), "no answer")
    troubled = fleet(conditions=[{"type": "Degraded", "status": "True", "reason": "Unavailable", "message": "Kafka is away"}])
    assert patches._silence(troubled, "no answer") == "no answer; what it said last: Kafka is away"


def test_requests_are_as_the_operator_reads_them() -> None:
    from autoscaler.operator.requests import asked

    name, body = patches.request("quarantine", 5.0, "ann", pod="p")
    requests, refused = asked(body["metadata"]["annotations"], [])
    assert not refused and [(each.id, each.kind, each.pod, each.at, each.by) for each in requests] == [
        (name, "quarantine", "p", 5.0, "ann")
    ]
    again, body = patches.request("rollback", 5.0, "ann", version=3)
    [request], _ = asked(body["metadata"]["annotations"], [])
    assert request.version == 3 and again != name


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["override", "intent"], "--replicas and --for together"),
        (["override", "intent", "--replicas", "3"], "--replicas and --for together"),
        (["override", "intent", "--end", "--replicas", "3", "--for", "3m"], "--replicas and --for together"),
        (["release", "intent"], "Missing option '--version'"),
        (["release", "intent", "--version", "0"], "greater than or equal to 1"),
        (["status", "-A", "-n", "x"], "exclude each other"),
        (["status", "-o", "xml"], "'xml' is not one of"),
    ],
)
def test_wrong_arguments_are_refused(arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(commands, arguments)
    assert result.exit_code == 2 and words in " ".join(result.output.replace("│", " ").split())


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            KubeError(404, "", "404 page not found"),
            "the cluster at https://here does not know ModelFleets: Trimtab is not installed",
        ),
        (KubeError(401, "Unauthorized", "Unauthorized"), "does not know you"),
        (KubeError(403, "Forbidden", 'user "x" cannot list'), 'not allowed: user "x" cannot list'),
        (KubeError(422, "Invalid", "spec.version: Invalid value"), "not accepted: spec.version"),
    ],
)
def test_refusals_say_what_to_do(error: KubeError, words: str) -> None:
    client = SimpleNamespace(configuration=SimpleNamespace(host="https://here"))
    with pytest.raises(TrimtabError) as said, explained(Kube(client, "prod")):
        raise error
    assert words in str(said.value)


def test_without_a_cluster_it_says_where_it_looked(tmp_path: Path) -> None:
    result = CliRunner().invoke(commands, ["status", "--kubeconfig", str(tmp_path / "none")])
    assert isinstance(result.exception, TrimtabError) and f"looked in {tmp_path / 'none'}" in str(result.exception)


@pytest.mark.parametrize(
    "name", ["status", "history", "why", "pause", "resume", "release", "override", "rollback", "promote", "quarantine"]
)
def test_help_teaches_with_an_example(name: str) -> None:
    result = CliRunner().invoke(commands, [name, "--help"])
    assert result.exit_code == 0 and f"Example: kubectl trimtab {name}" in result.output
