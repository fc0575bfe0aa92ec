"""What a scenario may expect of a run, as a scenario file may write it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, StrictInt, Tag, model_validator

from embedded.events import EventKind, Part
from embedded.units import PositiveDuration, Share
from trimtab.messages import Action, FindingKind

Direction = Literal["up", "down"]


class DecisionExpected(Part):
    """Such a decision must be applied, `within` a time after each event of the kind `of`.

    For releases and a `version`, only the releases of that version are meant.
    """

    decision: Action
    direction: Direction | None = None
    version: StrictInt | None = None
    within: PositiveDuration | None = None
    of: EventKind | None = None


class FindingExpected(Part):
    """Such a finding must fire, with the same `within` and `of` as decisions."""

    finding: FindingKind
    version: StrictInt | None = None
    within: PositiveDuration | None = None
    of: EventKind | None = None


class NeverExpected(Part):
    """Such a decision must not be applied: in the whole run, `during` lasting events, or `after` events until the end."""

    never: Action
    direction: Direction | None = None
    version: StrictInt | None = None
    during: EventKind | None = None
    after: EventKind | None = None

    @model_validator(mode="after")
    def _one_window(self) -> NeverExpected:
        if self.during is not None and self.after is not None:
            raise ValueError("give either during or after, not both")
        return self


class AtMostShare(Part):
    """An upper bound as a percentage."""

    at_most: Share


class AtMostDuration(Part):
    """An upper bound as a duration."""

    at_most: PositiveDuration


class AtMostReplicas(Part):
    """An upper bound on replicas, `during` lasting events or, without it, in the whole run."""

    at_most: StrictInt = Field(ge=1)
    during: EventKind | None = None


class ClientErrorsExpected(Part):
    """At most this share of client requests fails, from time zero to the end."""

    client_errors: AtMostShare


class P99Expected(Part):
    """The 99th percentile of client latency over the whole run, from the intended send time."""

    p99: AtMostDuration


class ReplicasExpected(Part):
    """Scaling never asks for more replicas than this."""

    replicas: AtMostReplicas


def _form(value: Any) -> str | None:
    keys = value.keys() if isinstance(value, dict) else vars(value).keys() if isinstance(value, Part) else ()
    return next((form for form in ("decision", "finding", "never", "client_errors", "p99", "replicas") if form in keys), None)


Expectation = Annotated[
    Annotated[DecisionExpected, Tag("decision")]
    | Annotated[FindingExpected, Tag("finding")]
    | Annotated[NeverExpected, Tag("never")]
    | Annotated[ClientErrorsExpected, Tag("client_errors")]
    | Annotated[P99Expected, Tag("p99")]
    | Annotated[ReplicasExpected, Tag("replicas")],
    Discriminator(
        _form,
        custom_error_type="expectation",
        custom_error_message="an expectation is one of decision, finding, never, client_errors, p99, replicas",
    ),
]
