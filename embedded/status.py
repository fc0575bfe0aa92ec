"""What `trimtab status` shows of each running stack: processes' addresses, replicas, weights and the last decisions."""

from __future__ import annotations

import time

import httpx
import msgspec
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from embedded.runs import Run, running
from trimtab import settings
from trimtab.bus import BusSettings, connect
from trimtab.errors import TrimtabError
from trimtab.messages import DECISIONS, Decision, FleetState

DECISIONS_SHOWN = 8
READ_SECONDS = 3.0
QUIET_SECONDS = 0.7
TIMEOUT_SECONDS = 2.0


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """One stack. What could not be asked is None and `problems` says why in words."""

    run: Run
    state: FleetState | None = None
    decisions: list[Decision] | None = None
    problems: list[str] = []


def statuses() -> list[Status]:
    """The status of every stack that runs on this machine."""
    return [_status(run) for run in running()]


def _status(run: Run) -> Status:
    problems: list[str] = []
    state: FleetState | None = None
    decisions: list[Decision] | None = None
    try:
        answer = httpx.get(f"{run.addresses['host']}/v1/fleets/{run.fleet}", timeout=TIMEOUT_SECONDS, trust_env=False)
        state = msgspec.json.decode(answer.raise_for_status().content, type=FleetState)
    except (KeyError, httpx.HTTPError, msgspec.DecodeError) as error:
        problems.append(f"The fleet host does not answer: {error}")
    try:
        decisions = last_decisions(run.addresses["kafka"], run.fleet)
    except (KeyError, TrimtabError) as error:
        problems.append(f"Kafka does not answer: {error}")
    return Status(run=run, state=state, decisions=decisions, problems=problems)


def last_decisions(bootstrap: str, fleet: str, count: int = DECISIONS_SHOWN) -> list[Decision]:
    """The newest decisions about a fleet, oldest first. Raises `Unavailable`."""
    bus = connect(settings.load(BusSettings).model_copy(update={"bootstrap": bootstrap, "timeout_seconds": 5.0}))
    consumer = bus.consumer([DECISIONS], group=None)
    found: list[Decision] = []
    deadline = last = time.monotonic()
    deadline += READ_SECONDS
    try:
        while time.monotonic() < deadline and (not found or time.monotonic() - last < QUIET_SECONDS):
            for record in consumer.poll(0.2):
                last = time.monotonic()
                if isinstance(record.message, Decision) and record.message.fleet == fleet:
                    found.append(record.message)
    finally:
        consumer.close()
    return sorted(found, key=lambda decision: decision.time)[-count:]


def render(status: Status) -> RenderableType:
    """Tables for a terminal."""
    run, parts = status.run, list[RenderableType]()
    minutes = (time.time() - run.started) / 60
    parts.append(Text(f"fleet {run.fleet}: process {run.pid}, up for {minutes:.0f} min, folder {run.folder}", style="bold"))
    where = Table("part", "address", box=None)
    for name, address in sorted(run.addresses.items()):
        where.add_row(name, address)
    parts.append(where)
    if status.state is not None:
        replicas = Table("version", "pool", "weight", "replica", "phase", "in traffic", "error")
        for pool in status.state.pools:
            for i, replica in enumerate(pool.replicas):
                first = (str(pool.version), pool.role, f"{pool.weight} %") if i == 0 else ("", "", "")
                error = (replica.error or "").split("\n")[0]
                replicas.add_row(*first, replica.name, replica.phase, "yes" if replica.in_traffic else "no", error)
        parts.append(replicas)
    if status.decisions is not None:
        decisions = Table("time", "decision", "outcome", "reason")
        for decision in status.decisions:
            clock = time.strftime("%H:%M:%S", time.localtime(decision.time))
            decisions.add_row(clock, decision.action, decision.outcome, decision.reason)
        parts.append(decisions if status.decisions else Text("no decisions yet"))
    parts += [Text(problem, style="red") for problem in status.problems]
    return Group(*parts)
