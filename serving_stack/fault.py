"""The fault that a version or a replica is told to have: what `fault.json` and a replica's fault file may say."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

FaultKind = Literal["slow", "failing", "wrong", "crashing", "leaking", "broken"]

_NEEDS: dict[FaultKind, str | None] = {
    "slow": "seconds",
    "failing": "share",
    "wrong": "share",
    "crashing": None,
    "leaking": "bytes_per_request",
    "broken": None,
}
_TAKES: dict[FaultKind, set[str]] = {
    "slow": {"seconds"},
    "failing": {"share"},
    "wrong": {"share"},
    "crashing": {"after_requests"},
    "leaking": {"bytes_per_request", "limit_bytes"},
    "broken": set(),
}


class Fault(BaseModel):
    """One fault. Which fields a kind needs and takes is checked: `Fault(kind="slow", seconds=0.2)`.

    `broken` makes the network fail on every input, until the replica gives up and ends itself.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    kind: FaultKind
    seconds: float | None = Field(None, gt=0, le=60, description="slow: seconds added to each batch")
    share: float | None = Field(
        None,
        gt=0,
        le=1,
        description="failing: share of batches answered with an error; wrong: answered wrongly, confidently, with HTTP 200",
    )
    after_requests: int | None = Field(
        None, ge=0, le=1_000_000, description="crashing: requests that are answered before the process dies; 5 if not given"
    )
    bytes_per_request: int | None = Field(None, gt=0, le=100_000_000, description="leaking: bytes kept per request")
    limit_bytes: int | None = Field(
        None, gt=0, le=16_000_000_000, description="leaking: the leak stops here, to spare the machine; 1 GB if not given"
    )

    @model_validator(mode="after")
    def _fields_of_kind(self) -> Self:
        given = {name for name in self.model_fields_set if name != "kind" and getattr(self, name) is not None}
        needed = _NEEDS[self.kind]
        if needed is not None and needed not in given:
            raise ValueError(f"a fault of kind {self.kind} needs `{needed}`")
        if odd := given - _TAKES[self.kind]:
            raise ValueError(f"a fault of kind {self.kind} takes no `{sorted(odd)[0]}`")
        return self

    def json_text(self) -> str:
        """As `fault.json` holds it."""
        return self.model_dump_json(exclude_none=True)


def set_fault(file: Path, fault: Fault | None) -> None:
    """Make a running replica have a fault, or None to end it; `file` is the fault file that its process was given."""
    if fault is None:
        file.unlink(missing_ok=True)
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.write_text(fault.json_text(), encoding="utf-8")
    temporary.replace(file)
