"""Settings of incidents (what belongs to one thread) and of the notifier (who is told, and how)."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from dashboards.notify import template
from trimtab.messages import Severity
from trimtab.settings import Section

Format = Literal["alertmanager", "cloudevents", "slack", "alertmanager_api"]


class IncidentSettings(Section, name="incident"):
    """Which findings and decisions are one incident, and where its links lead."""

    settle_seconds: float = Field(
        60.0, gt=0, description="An incident in which no finding fires ends when nothing happened for so long, in seconds."
    )
    reopen_seconds: float = Field(
        300.0,
        ge=0,
        description="A fault of the same subject within so many seconds of its end goes on in its thread: flapping is one cause.",
    )
    stale_seconds: float = Field(
        3600.0,
        gt=0,
        description="A finding that is not heard of for so long ends its incident, in words that say that the end is not known.",
    )
    reminder_seconds: float = Field(
        14_400.0,
        gt=0,
        description="How often an incident that goes on is said again, in seconds. Keep it below kafka.retention_seconds.",
    )
    remember_seconds: float = Field(
        7200.0, gt=0, description="How long an incident that is over still takes in what belongs to it, in seconds."
    )
    grafana_url: str | None = Field(
        None,
        description="Link to a dashboard with the fields {fleet}, {from_ms}, {to_ms} (filled in, URL-encoded), such as "
        "https://grafana.example/d/trimtab-fleet?var-fleet={fleet}&from={from_ms}&to={to_ms}. Default: no link.",
    )

    @field_validator("grafana_url")
    @classmethod
    def _known_fields(cls, url: str | None) -> str | None:
        return None if url is None else template.checked_link(url)


class Receiver(BaseModel):
    """One receiver of notifications."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,60}$")] = Field(
        description="Unique name; names the receiver's place in the stream: renaming one makes it a new receiver."
    )
    format: Format = Field(
        description="alertmanager: Alertmanager's webhook, version 4. cloudevents: CloudEvents 1.0, structured JSON. "
        "slack: Slack's incoming webhook, or with `channel` its chat.postMessage. "
        "alertmanager_api: pushes to Alertmanager, re-sent while firing."
    )
    url: str | None = Field(
        None, description="Where to POST. https, or http to this machine, or anywhere with plain_http. Either this or url_file."
    )
    url_file: Path | None = Field(
        None, description="File with the url, when it is a secret itself, as Slack's incoming webhooks are. Read at start."
    )
    plain_http: bool = Field(False, description="Allow http to another machine: whoever is on the way can read it all.")
    secret_file: Path | None = Field(
        None, description="File with the secret that signs each delivery (whsec_… or any text). Read again for each one."
    )
    token_file: Path | None = Field(
        None, description="File with a token, sent as `Authorization: Bearer …`. Read again for each one."
    )
    ca_file: Path | None = Field(
        None, description="Certificates (PEM) that the receiver's is checked against, instead of the system's."
    )
    channel: str | None = Field(
        None, description="slack only: channel id for chat.postMessage; then an incident is a real thread."
    )
    min_severity: Severity = Field(
        "warning", description="Incidents below it are not sent. warning: neither demand nor good rollouts wake anybody."
    )
    fleets: list[str] = Field([], description="Only these fleets. Default: all.")
    template: str | None = Field(
        None,
        description="Jinja template of the text; it knows `update`, `incident`, `finding`, `decision`, `link`. Checked at start.",
    )
    timeout_seconds: float = Field(15.0, gt=0, le=120, description="How long one attempt may take, in seconds.")
    retry_first_seconds: float = Field(
        0.5, gt=0, description="Pause before the second attempt, in seconds; it doubles each time."
    )
    retry_limit_seconds: float = Field(30.0, gt=0, description="The longest pause between attempts, in seconds.")
    give_up_seconds: float = Field(
        3600.0, gt=0, description="After so long an update becomes a dead letter and the next one is tried, in seconds."
    )
    max_per_minute: int = Field(60, ge=1, description="Most deliveries in a minute; more wait, and none is dropped.")
    max_age_seconds: float = Field(
        21_600.0, gt=0, description="Older updates become dead letters at once: a new receiver gets no history. In seconds."
    )
    resend_seconds: float = Field(
        60.0, gt=0, description="alertmanager_api only: how often a firing incident is sent again, in seconds."
    )

    @model_validator(mode="after")
    def _sensible(self) -> Receiver:
        for file in (self.url_file, self.secret_file, self.token_file, self.ca_file):
            if file is not None and not (file.is_file() and os.access(file, os.R_OK)):
                raise ValueError(f"there is no file {file} that can be read")
        if (self.url is None) == (self.url_file is None):
            raise ValueError("one of url and url_file is needed")
        parts = urlsplit(self.address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("url must begin with http:// or https:// and a host")
        if parts.username or parts.password:
            raise ValueError("url must not hold a password: use token_file or secret_file")
        if parts.scheme == "http" and not self.plain_http and not _is_here(parts.hostname):
            raise ValueError("url must be https for another machine (or set plain_http: true)")
        if self.channel is not None and (self.format != "slack" or self.token_file is None):
            raise ValueError("channel is for format slack, with a token_file")
        if self.template is not None:
            template.check(self.template)
        return self

    @property
    def address(self) -> str:
        """The url, wherever it is set. Not for logs."""
        return self.url if self.url_file is None else self.url_file.read_text(encoding="utf-8").strip()  # type: ignore[return-value]


class NotifySettings(Section, name="notify"):
    """Who is told of incidents."""

    receivers: list[Receiver] = Field(
        [], description="Any number of receivers; each has its own place in the stream and its own pace."
    )

    @field_validator("receivers")
    @classmethod
    def _different_names(cls, receivers: list[Receiver]) -> list[Receiver]:
        names = [receiver.name for receiver in receivers]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"two receivers are called '{min(twice)}'")
        return receivers


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
