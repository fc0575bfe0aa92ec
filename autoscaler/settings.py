"""How the autoscaler decides: the section `autoscale`, every number with its meaning, unit, default and why."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from trimtab.settings import Section


class AutoscaleSettings(Section, name="autoscale"):
    """Demand, rollouts, quarantine and the loop around them."""

    # Collect
    interval_seconds: float = Field(
        0.5,
        gt=0,
        description="Longest pause between two looks at the fleet, in seconds. 0.5: half of a scrape interval; a "
        "finding is acted on at once.",
    )
    stale_seconds: float = Field(
        3.0,
        gt=0,
        description="Age in seconds after which the gateway's newest snapshot says nothing any more. 3: three missed "
        "scrapes at 1 s.",
    )

    # Demand
    target_utilisation: float = Field(
        0.75,
        gt=0,
        le=1,
        description="Share of capacity_per_replica that replicas are planned to use, as a ratio. 0.75: room for the "
        "bursts of one second that real arrivals have (variance twice that of Poisson) while a new "
        "replica starts.",
    )
    demand_window_seconds: float = Field(
        20.0,
        gt=0,
        description="Window of the steady demand estimate, in seconds. 20: long enough that bursts average out.",
    )
    surge_window_seconds: float = Field(
        2.0, gt=0, description="Window of the fast demand estimate, in seconds. 2: a surge shows within two scrapes."
    )
    burst_dispersion: float = Field(
        3.0,
        ge=1,
        description="Variance of arrivals over that of Poisson traffic, as a ratio; the fast estimate is lowered by "
        "one deviation of it. 3: recorded conversation traffic has 2 to 3 over one and two seconds, so "
        "its bursts alone do not add replicas.",
    )
    scale_down_window_seconds: float = Field(
        120.0,
        ge=0,
        description="Replicas fall only to the highest need of this window, in seconds. 120: a replica that is kept "
        "costs less than one that is missing when the next burst comes.",
    )

    # Rollout
    canary_weights: list[int] = Field(
        [20, 50],
        min_length=1,
        description="Shares of traffic in percent that a new version gets, step by step. 20 limits the harm, 50 "
        "compares fastest.",
    )
    step_seconds: float = Field(
        5.0,
        ge=0,
        description="Least time at each share, in seconds. 5: some snapshots of both versions before more users meet it.",
    )
    start_deadline_seconds: float = Field(
        60.0,
        gt=0,
        description="A canary that is not ready after this many seconds is rolled back. 60: several times the load "
        "time of a model.",
    )
    guard_seconds: float = Field(
        30.0,
        ge=0,
        description="How long the previous version stays warm after a promotion, in seconds, while the comparison goes on.",
    )
    guard_weight: int = Field(
        10,
        ge=1,
        le=50,
        description="Share of traffic in percent that the previous version keeps during the guard. 10: enough for a control.",
    )
    rollout_extra_ratio: float = Field(
        0.5,
        ge=0,
        description="Replicas that a rollout may add over max_replicas, as a share of it. 0.5: a full new pool "
        "beside half of the old one.",
    )

    # Verdict
    harm_alpha: float = Field(
        0.01,
        gt=0,
        lt=1,
        description="Chance that a version which is no worse than its margins is ever rolled back by the comparison, "
        "over a whole rollout. 0.01: one good release in a hundred.",
    )
    promote_alpha: float = Field(
        0.05,
        gt=0,
        lt=1,
        description="Chance that a version which is worse by a promotion margin is promoted. 0.05: the guard goes on comparing.",
    )
    min_requests: int = Field(
        50,
        ge=1,
        description="Requests that both versions must have answered side by side before a promotion. 50: fewer "
        "cannot show rare errors.",
    )
    error_harm_margin: float = Field(
        0.01, ge=0, lt=1, description="Failed requests (share) that a canary may have over the stable version. 0.01: a usual SLO."
    )
    slow_harm_margin: float = Field(
        0.10,
        ge=0,
        lt=1,
        description="Slow requests (share) over the stable version's. 0.10: a cold start or the noise of a shared "
        "machine is no harm.",
    )
    wrong_harm_margin: float = Field(
        0.02, ge=0, lt=1, description="Wrong answers (share) over the stable version's. 0.02: within the noise of a test split."
    )
    error_promote_margin: float = Field(
        0.05,
        gt=0,
        lt=1,
        description="A promotion needs a bound on additional failures (share) under this. 0.05: shown by ~100 requests.",
    )
    slow_promote_margin: float = Field(
        0.20,
        gt=0,
        lt=1,
        description="A promotion needs a bound on additional slow requests (share) under this. 0.20: shown by ~100.",
    )
    wrong_promote_margin: float = Field(
        0.15,
        gt=0,
        lt=1,
        description="A promotion needs a bound on additional wrong answers (share) under this. 0.15: shown by ~150.",
    )
    slow_quantile: float = Field(
        0.95,
        gt=0.5,
        lt=1,
        description="A request is slow above the histogram bound that this share of the stable version's recent "
        "requests stays under.",
    )
    slow_floor_seconds: float = Field(
        0.025,
        ge=0,
        description="A request faster than this is never slow, in seconds. 0.025: below, nobody notices a difference.",
    )
    slow_cap_per_tick: float = Field(
        1.6,
        gt=0,
        description="Slow requests of one tick weigh as much as at most this many independent ones of the canary. 1.6: one "
        "stall of a process makes many slow requests at once and must not roll back a version; a version that is always slow "
        "is found in the third tick.",
    )

    # Findings
    quarantine_confidence: float = Field(
        0.7, ge=0, le=1, description="Confidence (0..1) from which a replica_fault or gpu_fault finding takes its replica out."
    )
    rollback_confidence: float = Field(
        0.8,
        ge=0,
        le=1,
        description="Confidence (0..1) from which a version_regression or quality_shift finding rolls its version back.",
    )
    quarantine_share: float = Field(
        0.34,
        gt=0,
        le=1,
        description="Share of a pool that may be in quarantine at a time (always at least one). 0.34: one of three, "
        "one of five, two of six; when more look sick together, it is not a replica fault.",
    )
    together_seconds: float = Field(
        60.0,
        ge=0,
        description="Replicas that look sick within this time of each other count as sick together, in seconds. 60: "
        "a common cause shows everywhere within a minute.",
    )
    quarantines_per_window: int = Field(
        3, ge=0, description="Most quarantines within quarantine_window_seconds. 3: replacing more cures nothing; 0: none at all."
    )
    quarantine_window_seconds: float = Field(
        600.0, gt=0, description="Window of that budget, in seconds. 600: long enough to notice that replacing does not help."
    )
    release_after_seconds: float = Field(
        60.0, ge=0, description="A quarantined replica whose finding resolved is released after this many seconds of good health."
    )

    # Apply
    retry_seconds: float = Field(
        1.0, gt=0, description="First pause after a plan that was not accepted, in seconds; doubled each time."
    )
    retry_limit_seconds: float = Field(30.0, gt=0, description="Longest pause between two tries, in seconds.")
    host_timeout_seconds: float = Field(5.0, gt=0, description="How long a fleet host may take to answer, in seconds.")

    @model_validator(mode="after")
    def _steps_fit(self) -> Self:
        steps = self.canary_weights
        if steps != sorted(set(steps)) or steps[0] < 1 or steps[-1] > 99:
            raise ValueError("canary_weights must rise, each between 1 and 99")
        if self.rollout_extra_ratio < 1 - steps[-1] / 100:
            raise ValueError(
                f"with a last canary weight of {steps[-1]} rollout_extra_ratio must be at least {1 - steps[-1] / 100:.2f}, "
                "else a new pool cannot grow to the whole demand before it gets it"
            )
        return self
