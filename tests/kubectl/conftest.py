"""A ModelFleet, its pods and Events as they are on a cluster."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import to_builtins

from trimtab.messages import Decision

STATUS: dict[str, Any] = {
    "observedGeneration": 1,
    "conditions": [
        {"type": "Ready", "status": "True", "reason": "AsPlanned", "message": "3 of 3 replicas are ready",
         "lastTransitionTime": "2026-11-24T10:00:00Z"},
        {"type": "Progressing", "status": "True", "reason": "Canary", "message": "version 2 has 20 % of the traffic",
         "lastTransitionTime": "2026-11-24T11:00:00Z"},
    ],
    "replicas": 3, "readyReplicas": 3, "desiredReplicas": 3, "readiness": "3/3",
    "version": 1, "canaryVersion": 2, "canaryWeight": 20, "phase": "canary",
    "versions": [{"version": 1, "role": "stable", "weight": 80, "wanted": 2, "ready": 2},
                 {"version": 2, "role": "canary", "weight": 20, "wanted": 1, "ready": 1}],
    "quarantined": ["intent-v1-sick"], "slo": "Met", "demand": {"arrivalsPerSecond": 41.25},
    "lastDecision": {"id": "d3", "action": "shift_traffic", "outcome": "applied", "version": 2,
                     "reason": "version 2 is ready and gets 20 % of the traffic", "time": "2026-11-24T11:00:00Z"},
}  # fmt: skip


def decision(name: str, time: float, action: Any, **fields: Any) -> Decision:
    given: dict[str, Any] = {"outcome": "applied", "reason": f"because of {name}", **fields}
    return Decision(id=name, fleet="prod_intent", time=time, action=action, **given)


def event(made: Decision, namespace: str = "prod") -> dict[str, Any]:
    """The Event of a decision, as the operator makes it."""
    return {
        "metadata": {
            "name": f"intent.{made.id}",
            "namespace": namespace,
            "annotations": {"trimtab.dev/decision": json.dumps(to_builtins(made))},
        },
        "involvedObject": {"apiVersion": "trimtab.dev/v1alpha1", "kind": "ModelFleet", "name": "intent", "namespace": namespace},
        "reason": "".join(part.capitalize() for part in made.action.split("_")) + made.outcome.capitalize(),
        "message": made.reason,
        "type": "Normal",
        "lastTimestamp": "2026-11-24T11:00:00Z",
        "source": {"component": "trimtab-operator"},
    }


@pytest.fixture
def make_decision() -> Any:
    return decision


@pytest.fixture
def make_event() -> Any:
    return event


@pytest.fixture
def full_status() -> dict[str, Any]:
    return json.loads(json.dumps(STATUS))  # type: ignore[no-any-return]
