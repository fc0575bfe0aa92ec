"""A fleet's life under the operator, on a real API server: up, scaled, released, healed, asked, paused, removed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from world import World

from trimtab.kube import KubeError, fleet_name, fleet_path, path_of
from trimtab.messages import FLEETS, Forgotten

pytestmark = pytest.mark.e2e

Json = dict[str, Any]
Make = Callable[..., Json]
FAST = {"steps": [20, 50], "stepSeconds": 0, "guardSeconds": 3}


@pytest.fixture
def fleet(world: World, make_fleet: Make) -> Callable[..., str]:
    """Makes a fleet and waits until it serves."""

    def make(**spec: Any) -> str:
        name = str(make_fleet(**spec)["metadata"]["name"])
        world.ready(name)
        return name

    return make


def test_a_fleet_comes_up_and_says_so(world: World, fleet: Callable[..., str]) -> None:
    name = fleet(replicas={"min": 2, "max": 4})
    status = world.until(lambda: (s := world.status(name)).get("readyReplicas") == 2 and s, "two ready")
    assert (status["version"], status["replicas"], status["desiredReplicas"], status["readiness"]) == (1, 2, 2, "2/2")
    assert status["observedGeneration"] == 1 and status["plan"]["pools"][0]["weight"] == 100
    assert world.kube.get(path_of("services", world.namespace, name))["spec"]["ports"][0]["port"] == 80
    budget = world.kube.get(path_of("poddisruptionbudgets", world.namespace, name, api="policy/v1"))
    assert budget["metadata"]["ownerReferences"][0]["kind"] == "ModelFleet"
    event = world.until(lambda: world.events(name).get("ScaleApplied"), "an Event")
    assert "0 to 2 replicas" in event["message"]
    assert msgspec.json.decode(event["metadata"]["annotations"]["trimtab.dev/decision"])["action"] == "scale"
    scale = world.kube.get(fleet_path(world.namespace, name, sub="scale"))
    assert (scale["spec"]["replicas"], scale["status"]["replicas"]) == (2, 2)
    assert len(world.pods(name)) == 2 and "trimtab.dev/state=serving" in scale["status"]["selector"]


def test_replicas_follow_demand(world: World, fleet: Callable[..., str]) -> None:
    name = fleet(replicas={"min": 1, "max": 3}, scaling={"scaleDownWindowSeconds": 5})
    world.under(name, 80, lambda: world.status(name).get("readyReplicas") == 3, "three replicas for 80/s")
    world.under(name, 5, lambda: len(world.pods(name)) == 1, "one replica for 5/s")
    world.under(name, 5, lambda: world.status(name).get("slo") == "Met", "the SLO is met")


def test_a_release_is_tried_promoted_guarded_and_the_old_version_drained(world: World, fleet: Callable[..., str]) -> None:
    name = fleet(rollout=FAST)
    world.under(name, 20, lambda: world.condition(name, "TelemetryFresh").get("reason") == "Fresh", "telemetry")
    world.spec(name, version=2)
    world.under(name, 20, lambda: world.status(name).get("canaryVersion") == 2, "a canary")
    world.under(name, 400, lambda: world.status(name).get("version") == 2, "promoted")
    assert world.decisions(name, "promote")
    world.under(
        name, 20, lambda: not [p for p in world.pods(name) if p["metadata"]["labels"]["trimtab.dev/version"] == "1"], "v1 gone"
    )
    status = world.under(name, 20, lambda: (s := world.status(name)).get("phase") == "idle" and s, "idle")
    assert "canaryVersion" not in status and [pool["version"] for pool in status["plan"]["pools"]] == [2]


def test_a_person_promotes_rolls_back_and_releases_again(world: World, fleet: Callable[..., str]) -> None:
    name = fleet(rollout={**FAST, "guardSeconds": 600})
    assert "not on trial" in world.ask(name, "promote", version=7)["reason"]
    assert "no warm version" in world.ask(name, "rollback", version=1)["reason"]
    world.spec(name, version=2)
    world.under(name, 20, lambda: world.status(name).get("phase") == "canary", "a canary with traffic")
    answer: list[Json] = []

    def promoted() -> bool:
        return world.status(name).get("version") == 2

    import threading

    asking = threading.Thread(target=lambda: answer.append(world.ask(name, "promote", version=2)))
    asking.start()
    world.under(name, 20, promoted, "promoted on request")
    asking.join(20)
    assert answer[0]["outcome"] == "applied" and answer[0]["decision"]
    assert "the owner promotes" in world.decisions(name, "promote")[0].reason
    back = world.ask(name, "rollback", version=2)
    assert back["outcome"] == "applied", back
    world.until(lambda: world.status(name).get("version") == 1, "back to 1")
    assert world.status(name)["withdrawn"] == 2
    world.spec(name, version=1)
    world.until(lambda: "withdrawn" not in world.status(name), "another version ends the withdrawal")
    world.spec(name, version=2)
    world.until(lambda: world.status(name).get("canaryVersion") == 2, "released again")


def test_a_sick_replica_leaves_the_traffic_is_replaced_and_kept(world: World, fleet: Callable[..., str]) -> None:
    name = fleet(replicas={"min": 2, "max": 4})
    world.until(lambda: world.status(name).get("readyReplicas") == 2, "two ready")
    sick = world.pods(name)[0]["metadata"]["name"]
    world.find(name, kind="replica_fault", target=sick)
    (out,) = world.until(lambda: world.pods(name, state="quarantined"), "quarantined")
    assert out["metadata"]["name"] == sick
    assert [each["kind"] for each in out["metadata"]["ownerReferences"]] == ["ModelFleet"]
    world.until(lambda: world.status(name).get("readyReplicas") == 2, "two ready again")
    assert world.status(name)["quarantined"] == [sick] and world.status(name)["plan"]["quarantined"] == [sick]
    assert world.is_so(name, "Degraded", "ReplicaQuarantined")["message"].endswith(sick)
    assert world.until(lambda: world.events(name).get("QuarantineApplied"), "an Event")["type"] == "Warning"
    assert "in quarantine already" in world.ask(name, "quarantine", pod=sick)["reason"]
    assert "no replica of this fleet" in world.ask(name, "quarantine", pod="nobody")["reason"]
    other = world.pods(name)[0]["metadata"]["name"]
    answer = world.ask(name, "quarantine", pod=other)
    # The budget of a pool of two is one at a time: a request is no way around it.
    assert answer["outcome"] == "refused" and "not a replica fault" in answer["reason"]


def test_a_request_that_is_too_old_is_refused(world: World, fleet: Callable[..., str]) -> None:
    name = fleet()
    assert "requests are good for 600 s" in world.ask(name, "rollback", version=1, at=time.time() - 3600)["reason"]


def test_paused_and_frozen_fleets_say_what_they_do_not_do(world: World, fleet: Callable[..., str]) -> None:
    name = fleet(freezes=[{"name": "peak season"}])
    world.is_so(name, "Frozen", "Freeze")
    world.spec(name, version=2)
    assert "peak season" in world.is_so(name, "Frozen", "ReleaseWaits")["message"]
    assert world.status(name).get("canaryVersion") is None
    world.spec(name, paused=True)
    world.is_so(name, "Paused", "PausedByOwner")
    world.spec(name, freezes=[])
    world.until(lambda: any("paused by the owner" in d.reason for d in world.decisions(name)), "said, not done")
    assert len(world.status(name)["plan"]["pools"]) == 1
    world.spec(name, paused=False)
    world.until(lambda: world.status(name).get("canaryVersion") == 2, "the release begins")


def test_an_override_sets_the_size_for_a_time(world: World, fleet: Callable[..., str]) -> None:
    name = fleet(replicas={"min": 1, "max": 3}, scaling={"scaleDownWindowSeconds": 2})
    until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 8))
    world.spec(name, override={"replicas": 2, "until": until})
    world.under(name, 200, lambda: world.status(name).get("desiredReplicas") == 2, "exactly two under a demand for three")
    world.under(name, 200, lambda: world.status(name).get("desiredReplicas") == 3, "three after it has ended")


def test_kubectl_scale_sets_the_floor(world: World, fleet: Callable[..., str]) -> None:
    name = fleet(replicas={"min": 1, "max": 3})
    world.kube.patch(fleet_path(world.namespace, name, sub="scale"), {"spec": {"replicas": 2}})
    world.until(lambda: world.status(name).get("readyReplicas") == 2, "two replicas")
    with pytest.raises(KubeError, match="replicas.min must not be greater than replicas.max"):
        world.kube.patch(fleet_path(world.namespace, name, sub="scale"), {"spec": {"replicas": 9}})


def test_a_drill_and_a_changed_pod_spec_reach_the_pods(world: World, fleet: Callable[..., str]) -> None:
    name = fleet()
    fault = '{"kind":"slow","seconds":0.2}'
    world.annotate(name, drill_v1=fault)

    def drilled() -> bool:
        env = world.deployment(f"{name}-v1")["spec"]["template"]["spec"]["containers"][0].get("env", [])
        return {"name": "TRIMTAB_DRILL", "value": fault} in env

    world.until(drilled, "the drill is in the template")
    world.spec(name, resources={"requests": {"cpu": "2m"}})

    def resized() -> bool:
        container = world.deployment(f"{name}-v1")["spec"]["template"]["spec"]["containers"][0]
        return bool(container["resources"]["requests"]["cpu"] == "2m")

    world.until(resized, "the request is in the template")


def test_deleting_a_fleet_leaves_nothing_behind(world: World, fleet: Callable[..., str]) -> None:
    name = fleet(replicas={"min": 2, "max": 3})
    world.until(lambda: world.status(name).get("readyReplicas") == 2, "two ready")
    world.find(name, kind="replica_fault", target=world.pods(name)[0]["metadata"]["name"])
    world.until(lambda: world.pods(name, state="quarantined"), "quarantined")
    world.kube.delete(fleet_path(world.namespace, name))

    def gone() -> bool:
        try:
            world.fleet(name)
        except KubeError as error:
            return error.status == 404
        return False

    world.until(gone, "the fleet is gone")
    fleet_id = fleet_name(world.namespace, name)
    told = [each.message for each in world.bus.consumer([FLEETS], group=None, forgotten=True).poll(0)]
    assert [each for each in told if each.fleet == fleet_id][-1] == Forgotten(fleet=fleet_id)  # type: ignore[attr-defined]
    selector = f"trimtab.dev/fleet={name}"
    kinds = [("pods", "v1"), ("services", "v1"), ("deployments", "apps/v1"), ("replicasets", "apps/v1")]
    kinds += [("poddisruptionbudgets", "policy/v1"), ("rolebindings", "rbac.authorization.k8s.io/v1"), ("serviceaccounts", "v1")]
    for plural, api in kinds:
        where = path_of(plural, world.namespace, api=api)
        world.until(lambda where=where: not world.kube.get(where, labelSelector=selector)["items"], f"no {plural} left")


def test_a_fleet_that_is_deleted_while_kafka_is_away_stays_until_the_topics_know(world: World, fleet: Callable[..., str]) -> None:
    name = fleet()
    fleet_id = fleet_name(world.namespace, name)
    world.bus.away = True
    try:
        world.kube.delete(fleet_path(world.namespace, name))
        world.until(lambda: not world.pods(name) and not world.pods(name, "gateway"), "drained")
        time.sleep(3.0)
        assert world.fleet(name)["metadata"]["finalizers"]
    finally:
        world.bus.away = False

    def gone() -> bool:
        try:
            world.fleet(name)
        except KubeError as error:
            return error.status == 404
        return False

    world.until(gone, "the fleet is gone")
    told = [each.message for each in world.bus.consumer([FLEETS], group=None, forgotten=True).poll(0)]
    assert [each for each in told if each.fleet == fleet_id][-1] == Forgotten(fleet=fleet_id)  # type: ignore[attr-defined]
