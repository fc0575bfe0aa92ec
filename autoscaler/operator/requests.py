"""What people ask of a fleet by annotations, and how it ended. Pure.

One annotation per kind, ``trimtab.dev/request-<kind>``, holds JSON such as
``{"id": "k3f9", "version": 2, "at": 1764000000.0, "by": "kubectl"}``; a quarantine has ``pod`` in place of ``version``.
One id is acted on once; the annotation may stay. The answer is in ``status.requests``.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from autoscaler.memory import PolicyMemory
from autoscaler.operator.meaning import way_back
from autoscaler.rollout import Phase
from trimtab.messages import Decision, Evidence, Finding, Outcome, stable_id

Kind = Literal["rollback", "promote", "quarantine"]
KINDS: tuple[Kind, ...] = ("rollback", "promote", "quarantine")
PREFIX = "trimtab.dev/request-"
_TOO_OLD_SECONDS = 600.0
_PATIENCE_SECONDS = 120.0
_KEPT = 10


class Request(msgspec.Struct, frozen=True):
    """One request as it was asked."""

    kind: Kind
    id: str
    at: float
    by: str = ""
    version: int | None = None
    pod: str | None = None


class Answer(msgspec.Struct, frozen=True):
    """How a request ended."""

    id: str
    kind: str
    outcome: Outcome
    reason: str
    decision: str | None
    time: float


class _Asked(msgspec.Struct):
    id: str
    at: float
    by: str = ""
    version: int | None = None
    pod: str | None = None


def asked(annotations: dict[str, str], answered: list[dict[str, Any]]) -> tuple[list[Request], list[Answer]]:
    """The requests that have no answer yet, and answers to those that cannot be read."""
    known = {str(each.get("id")) for each in answered}
    requests: list[Request] = []
    refused: list[Answer] = []
    for kind in KINDS:
        text = annotations.get(PREFIX + kind)
        if text is None:
            continue
        try:
            raw = msgspec.json.decode(text, type=_Asked)
        except msgspec.DecodeError as error:
            name = stable_id(kind, text)
            if name not in known:
                refused.append(Answer(name, kind, "refused", f"the annotation {PREFIX}{kind} cannot be read: {error}", None, 0.0))
            continue
        if raw.id not in known:
            requests.append(Request(kind, raw.id, raw.at, raw.by, raw.version, raw.pod))
    return requests, refused


def refusal(request: Request, memory: PolicyMemory, pods: set[str], quarantined: set[str], now: float) -> str | None:
    """Why a request cannot be met, in words; None when it can be tried."""
    rollout = memory.rollout
    if now - request.at > _TOO_OLD_SECONDS:
        return f"it is {now - request.at:.0f} s old, and requests are good for {_TOO_OLD_SECONDS:.0f} s"
    if memory.spec is not None and memory.spec.paused:
        return "the fleet is paused"
    if request.kind == "quarantine":
        if request.pod in quarantined:
            return f"{request.pod} is in quarantine already"
        return None if request.pod in pods else f"{request.pod} is no replica of this fleet"
    if request.version is None:
        return "it names no version"
    if request.kind == "promote":
        trial = rollout.candidate
        return None if request.version == trial else f"version {request.version} is not on trial ({trial or 'no version'} is)"
    if request.version not in (rollout.candidate, rollout.stable):
        return f"version {request.version} does not serve"
    if way_back(rollout, request.version) is None:
        return f"version {request.version} serves alone: there is no warm version to go back to"
    return None


def outcome(request: Request, memory: PolicyMemory, decisions: list[Decision], since: float, now: float) -> Answer | None:
    """How a request that is being tried ended; None while it has not."""
    finding = finding_id(request)
    for decision in decisions:
        mine = {
            "promote": decision.action == "promote" and decision.version == request.version,
            "rollback": decision.action == "rollback",
            "quarantine": finding in decision.because,
        }[request.kind]
        if mine:
            done = decision.outcome if decision.action != "hold" else "refused"
            return Answer(request.id, request.kind, done, decision.reason, decision.id, now)
    if request.kind == "promote" and memory.rollout.candidate != request.version:
        promoted = memory.rollout.stable == request.version and memory.rollout.phase is Phase.GUARD
        words = "promoted" if promoted else f"version {request.version} is no longer on trial"
        return Answer(request.id, request.kind, "applied" if promoted else "refused", words, None, now)
    if now - since > _PATIENCE_SECONDS:
        return Answer(request.id, request.kind, "failed", f"not done within {_PATIENCE_SECONDS:.0f} s", None, now)
    return None


def finding(request: Request, fleet: str, version: int | None, now: float, state: Literal["firing", "resolved"]) -> Finding:
    """A quarantine on request, as a finding: the policy answers it within its budget, and a replay sees it as well."""
    who = request.by or "a person"
    return Finding(
        id=finding_id(request),
        fleet=fleet,
        target=request.pod,
        version=version,
        kind="replica_fault",
        severity="critical",
        onset=request.at,
        time=now,
        state=state,
        confidence=1.0,
        summary=f"{who} asks for the quarantine of {request.pod}",
        evidence=[Evidence(detector="owner", series="request")],
    )


def finding_id(request: Request) -> str:
    """The id of that finding."""
    return stable_id("request", request.kind, request.id)


def kept(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The newest answers."""
    return [*old, *new][-_KEPT:]
