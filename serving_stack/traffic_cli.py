"""The command `trimtab traffic`: real inference requests at the arrival times of a plan, each answer checked."""

# ruff: noqa: B008 (options are defaults: that is how typer reads them)

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import typer

traffic = typer.Typer(help="Send real inference traffic to a fleet, open loop, and check each answer.")


class _Arrivals(StrEnum):
    poisson = "poisson"
    constant = "constant"


class _Trace(StrEnum):
    azure_conv = "azure-conv"


@traffic.command()
def _traffic(
    url: str = typer.Option("http://127.0.0.1:8000", help="The gateway, or one Triton server."),
    model: str = typer.Option("intent", help="The model to ask, as Triton names it."),
    plan: Path | None = typer.Option(
        None,
        help="YAML or JSON file: seed, duration, warmup, segments [{at, rate, arrivals | trace}], surges [{at, factor, for}].",
    ),
    rate: float = typer.Option(20.0, min=0, max=100_000, help="Requests per second on average (without --plan)."),
    arrivals: _Arrivals = typer.Option(_Arrivals.poisson, help="poisson: independent; constant: evenly spaced (without --plan)."),
    trace: _Trace | None = typer.Option(None, help="Arrivals of a recorded trace at --rate, in place of --arrivals."),
    duration: float | None = typer.Option(None, min=0.001, help="Seconds (without --plan). Without it: until SIGTERM or Ctrl-C."),
    seed: int = typer.Option(0, min=0, help="Decides arrival times and the order of questions: the same seed, the same traffic."),
    start_at: float | None = typer.Option(None, help="Unix time of time zero, so that others share the clock. Default: now."),
    timeout: float = typer.Option(20.0, min=0.1, help="Seconds until the client gives up on an answer: an error."),
    max_in_flight: int = typer.Option(5000, min=1, help="Open requests at most; what is due beyond that is dropped: an error."),
    metrics_port: int | None = typer.Option(None, min=1, max=65535, help="Serve Prometheus metrics on this loopback port."),
    log: Path | None = typer.Option(None, help="Write JSON lines, one per second and version: counts and percentiles."),
    requests: Path | None = typer.Option(None, help="Write JSON lines, one per request: time, latency, version, outcome."),
    summary: Path | None = typer.Option(None, help="Write the summary (also printed at the end) to this file."),
) -> None:
    """Send BANKING77 questions at planned times and check each answer against the known label.

    The loop is open: a request is sent when its time has come, whether or not earlier ones are answered, and latency counts
    from that time, so that a slow server cannot hide by slowing the client down.

    Example: trimtab traffic --url http://127.0.0.1:8080 --rate 20 --trace azure-conv --duration 60
    """
    import msgspec

    from serving_stack.traffic import Files, Plan, Segment, Target, read_plan, send

    if plan is None:
        segment = Segment(rate=rate, trace=trace.value) if trace else Segment(rate=rate, arrivals=arrivals.value)
        what = Plan(seed=seed, duration=duration, segments=(segment,))
    else:
        what = read_plan(plan)
    target = Target(url=url, model=model, timeout=timeout, max_in_flight=max_in_flight)
    files = Files(log=log, requests=requests, summary=summary)
    result = send(what, target, files=files, start_at=start_at, metrics_port=metrics_port)
    typer.echo(msgspec.json.format(msgspec.json.encode(result), indent=1).decode())
