"""Five hundred ModelFleets on one operator: what they cost, and how long a finding takes to become a patch.

The real operator as a process of its own, a real API server ($KUBECONFIG) and a real broker. **The pods cost nothing**: no
scheduler takes them, and the benchmark plays the kubelet. Each fleet has a page of a gateway each second. Measured with a tenth
of the fleets first and then with all of them, by the same process: how the cost grows. In the end the operator is started anew.

Figures: `cores`, `rss_mib`, `requests_per_second` (steady, all fleets); `start_requests_per_fleet`; `p50_seconds`, `p95_seconds`,
`p99_seconds`, `worst_seconds` from a finding to the patch; `small_...` the same with few; `takeover_seconds`; `lost` findings.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from benchmarks.fleets.meter import Cost, cost
from benchmarks.fleets.stage import Stage, stage
from benchmarks.frame import Cell, Options, Result
from trimtab.errors import SettingsError, Unavailable
from trimtab.kube import KubeError, connect, fleet_path

TAKES = {"fleets"}

_NOTES = [
    "the pods do not run: no scheduler takes them, and the benchmark patches their status to Ready, as KWOK does",
    "requests: of the operator's own client, without those of kopf: two patches per fleet at its start, and watches",
    "restarts: the operator lost the lead, as when the API server is away, and was started again; costs are then since that",
    "a finding's time: from just before it is sent to the bus to the pod's new label on a watch in another process",
]


def run(options: Options) -> Result:
    """500 fleets unless `--fleets` says otherwise; quick: 20, with short measurements."""
    if not os.environ.get("KUBECONFIG"):
        raise SettingsError("the benchmark 'fleets' needs a Kubernetes cluster to try things on: set KUBECONFIG")
    kube = connect()
    try:
        kube.get(fleet_path(), limit=1)
    except KubeError as error:
        if error.status == 404:
            words = "this cluster knows no ModelFleet: kubectl apply --server-side -f deploy/kubernetes/base/crd/modelfleet.yaml"
            raise SettingsError(words) from error
        raise
    most = options.fleets or (20 if options.quick else 500)
    small = max(1, most // 10)
    steady, findings = (6.0, 10) if options.quick else (30.0, 100)
    rows: list[dict[str, Cell]] = []
    figures: dict[str, float | None] = {}
    lost = 0
    with tempfile.TemporaryDirectory(prefix="trimtab-fleets-") as folder, stage(kube, Path(folder)) as on:
        for count, prefix in ((small, "small_"), (most, "")):
            row, found, missed = _measure(on, count, steady, findings, options)
            rows.append(row)
            figures |= {f"{prefix}{key}": value for key, value in found.items()}
            lost += missed
        began = time.monotonic()
        options.say("another operator takes over")
        on.operator()
        on.followed(120)
        figures["takeover_seconds"] = time.monotonic() - began
        figures["takeover_requests"] = float(on.look().requests.total())
    return Result(rows, {**figures, "lost": float(lost)}, _NOTES)


def _measure(
    on: Stage, count: int, steady: float, findings: int, options: Options
) -> tuple[dict[str, Cell], dict[str, float | None], int]:
    options.say(f"{count} fleets: they start")
    new, first, lives = count - on.made, on.look(), on.restarts
    on.make(count)
    on.followed(300)
    ready = on.ready(600)
    started = cost(first, on.look())
    options.say(f"{ready} of {count} are ready after {started.seconds:.0f} s; {started.by_verb}; steady for {steady:.0f} s")
    time.sleep(min(10.0, steady / 3))
    calm = _steady(on, steady)
    options.say(
        f"steady: {calm.rss_mib:.0f} MiB, {calm.cores:.2f} cores, {calm.by_verb}, {calm.steps_per_second:.0f} steps/s; findings"
    )
    # One each for fleets that had none: a second one soon after the first is no replica fault to the policy.
    most = min(new, findings)
    times = on.find([f"f{count - new + number * new // most}" for number in range(most)], 0.2)
    known = sorted(each for each in times if each is not None)
    shares = {f"p{round(share * 100)}": _share(known, share) for share in (0.5, 0.95, 0.99)} | {
        "worst": known[-1] if known else None
    }
    options.say(f"from a finding to the patch: {shares}, {len(times) - len(known)} lost")
    row: dict[str, Cell] = {
        "fleets": count,
        "ready": ready,
        "restarts": on.restarts - lives,
        "start_s": round(started.seconds, 1),
        "start_requests/s": round(started.per_second, 1),
        **_row(calm),
        "findings": len(times),
        **{f"{name}_ms": None if value is None else round(value * 1000) for name, value in shares.items()},
    }
    found = {
        "ready": float(ready),
        "restarts": float(on.restarts - lives),
        "cores": calm.cores,
        "rss_mib": calm.rss_mib,
        "requests_per_second": calm.per_second,
        "start_seconds": started.seconds,
        "start_requests_per_fleet": started.requests.total() / new if new else None,
        "refused": float(calm.refused + started.refused),
        **{f"{name}_seconds": value for name, value in shares.items()},
    }
    return row, found, len(times) - len(known)


def _steady(on: Stage, seconds: float) -> Cost:
    """What the operator costs while nothing happens; once more when it was started again meanwhile."""
    for _ in range(3):
        before, lives = on.look(), on.restarts
        time.sleep(seconds)
        after = on.look()
        if on.restarts == lives:
            return cost(before, after)
    raise Unavailable("the operator was started again in each of three measurements: see why it loses the lead")


def _row(calm: Cost) -> dict[str, Cell]:
    return {
        "cores": round(calm.cores, 3),
        "rss_mib": round(calm.rss_mib),
        "requests/s": round(calm.per_second, 2),
        "steps/s": round(calm.steps_per_second, 1),
    }


def _share(known: list[float], share: float) -> float | None:
    return known[min(len(known) - 1, int(share * len(known)))] if known else None
