"""What a rule is, as plain values that become Prometheus's YAML."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

RUNBOOKS = "http://127.0.0.1:8000/runbooks"
"""Where `mkdocs serve` shows docs/runbooks; `trimtab rules write --runbooks` takes the address where yours are served."""

Urgency = Literal["critical", "warning", "none"]


@dataclass(frozen=True)
class Record:
    """A recording rule; its name is ``level:metric:operation``."""

    name: str
    expr: str

    def entry(self) -> dict[str, object]:
        """As Prometheus reads it."""
        return {"record": self.name, "expr": self.expr}


@dataclass(frozen=True)
class Alert:
    """An alert. `critical` wakes somebody, `warning` waits for working hours, `none` is the dead man's switch."""

    name: str
    expr: str
    urgency: Urgency
    summary: str
    description: str
    hold: str | None = None
    labels: dict[str, str] = field(default_factory=dict)

    def entry(self, runbooks: str) -> dict[str, object]:
        """As Prometheus reads it."""
        waits: dict[str, object] = {"for": self.hold} if self.hold else {}
        return {
            "alert": self.name,
            "expr": self.expr,
            **waits,
            "labels": {"severity": self.urgency, **self.labels},
            "annotations": {
                "summary": self.summary,
                "description": self.description,
                "runbook_url": f"{runbooks}/{self.name}/",
            },
        }
