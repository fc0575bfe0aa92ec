"""What a person can set about detection: section ``detect`` of trimtab.yaml, or ``TRIMTAB_DETECT_<FIELD>``."""

from __future__ import annotations

from pydantic import Field

from trimtab.settings import Section


class DetectSettings(Section, name="detect"):
    """Times are seconds, ratios 0..1, counts of ticks say so."""

    interval: float = Field(1.0, gt=0, description="length of a tick in seconds; the interval of the scrapes")
    grace: float = Field(
        0.9,
        ge=0,
        description="seconds after a tick's end to wait for silent targets; a scrape that ran into its 0.8 s deadline on a busy "
        "machine must still be in time, else a replica that hangs is not seen",
    )
    future: float = Field(5.0, gt=0, description="a snapshot more seconds ahead of the clock is rejected: clocks drift by less")
    forget_ticks: int = Field(
        5, ge=2, description="ticks of silence after which a target counts as gone (scaled down), not as broken"
    )
    restart_grace: float = Field(
        10.0, ge=0, description="seconds after a start in which silence is no evidence: the backlog is still coming"
    )
    repeat: float = Field(5.0, gt=0, description="seconds between two messages of a finding that goes on")
    down_ticks: int = Field(2, ge=1, description="failed scrapes in a row that make a replica broken; one may be bad luck")
    gap_share: float = Field(0.6, gt=0, le=1, description="share of targets failing in one tick that makes it a telemetry gap")
    gap_ticks: int = Field(2, ge=1, description="ticks of a gap before it is a finding")
    gap_quiet_ticks: int = Field(
        3, ge=0, description="ticks after a gap in which no finding about replicas or versions may arise"
    )
    frozen_ticks: int = Field(
        4, ge=2, description="ticks with an identical page, after it had changed every tick, that make it frozen"
    )
    clear_ticks: int = Field(5, ge=1, description="ticks without evidence before a finding is resolved")
    alarm: float = Field(
        0.995, gt=0.5, lt=1, description="score from which a learned detector is taken as evidence: one normal tick in 200"
    )
    slow_seconds: float = Field(
        0.05, gt=0, description="a replica or version is slow only by at least this much: less does not hurt users"
    )
    error_share: float = Field(
        0.1, gt=0, lt=1, description="share of failed requests above the expected one that makes an error finding"
    )
    wrong_share: float = Field(0.08, gt=0, lt=1, description="loss of accuracy that matters; 30 % wrong answers lie far above it")
    leak_share: float = Field(
        0.03, gt=0, description="steady memory growth within the leak window, relative to the size, that is a leak"
    )
    surge_ratio: float = Field(
        1.7, gt=1, description="arrivals above (or below one over) this multiple of the baseline are a shift of demand"
    )
