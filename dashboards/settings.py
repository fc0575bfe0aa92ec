"""Settings of the exporter: section ``metrics`` of trimtab.yaml, or ``TRIMTAB_METRICS_<FIELD>``."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from trimtab.settings import Section


class MetricsSettings(Section, name="metrics"):
    """How many series the exporter may show at most, and when something counts as gone."""

    fleets: int = Field(
        100,
        ge=1,
        description="Fleets that get series; more are counted in trimtab_metrics_left_out. A fleet has about 90 series.",
    )
    targets: int = Field(
        500, ge=1, description="Targets of a fleet that get a series per detector; later ones are left out and counted."
    )
    detectors: int = Field(16, ge=1, description="Detectors that get series. There are eight; a stray name must not grow a page.")
    findings: int = Field(200, ge=1, description="Open findings of a fleet that get a series of their own.")
    quiet_seconds: float = Field(
        60.0,
        gt=0,
        description="Silence after which a score or an open finding is unknown and its series ends. Both come every few seconds.",
    )
    lag_seconds: float = Field(15.0, gt=0, description="How often the groups' offsets are read from Kafka, in seconds.")


class AlarmSettings(Section, name="detect"):
    """The one setting of detection that the dashboards draw; everything else in the section is for the detectors."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True)

    alarm: float = Field(0.995, gt=0.5, lt=1, description="Score from which a learned detector is taken as evidence.")
