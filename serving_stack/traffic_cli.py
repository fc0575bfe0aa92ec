"""The command `trimtab traffic`: real inference requests at the arrival times of a plan, each answer checked."""

# ruff: noqa: B008 (options are defaults: that is how typer reads them)

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from serving_stack.traffic import Files, Plan, Target

traffic = typer.Typer(help="Send real inference traffic to a fleet, open loop, and check each answer.")


class _Arrivals(StrEnum):
    poisson = "poisson"
    constant = "constant"
    bursty = "bursty"
    diurnal = "diurnal"


@traffic.command()
def _traffic(
    url: str = typer.Option("http://127.0.0.1:8000", help="The gateway, or one Triton server: http, https, grpc or grpcs."),
    model: str = typer.Option("intent", help="The model to ask, as Triton names it."),
    pin_version: int | None = typer.Option(None, min=0, help="Ask the gateway for this version, whatever the weights say."),
    adapter: list[str] = typer.Option([], help="Ask for this adapter of the model. May be repeated: one is drawn per request."),
    skew: float = typer.Option(0.0, min=0, max=5, help="The k-th adapter is asked k^-SKEW as often as the first (Zipf's law)."),
    feedback_after: float | None = typer.Option(
        None, min=0, help="Seconds after an answer at which its version is told the right label: to the model MODEL_feedback."
    ),
    token_file: Path | None = typer.Option(None, help="File with a bearer token to send along."),
    ca_file: Path | None = typer.Option(None, help="PEM file of certificates to believe with https and grpcs."),
    plan: Path | None = typer.Option(
        None,
        help="YAML or JSON file: seed, duration, warmup, segments [{at, rate | speed, arrivals | trace | trace_file, day, cv}], "
        "surges [{at, factor, for}]. In place of the options down to --duration.",
    ),
    rate: float | None = typer.Option(None, min=0, max=100_000, help="Requests per second on average. Default: 20."),
    arrivals: _Arrivals | None = typer.Option(
        None, help="poisson: independent (the default); constant: evenly spaced; bursty: see --cv; diurnal: see --day."
    ),
    trace: str | None = typer.Option(
        None,
        help="Recorded demand in place of --arrivals: azure-conv, vllm-sweep-100 (200 ... 1000, 1500, 2000), or curves of rates: "
        "servegen-m-large, -m-mid, -m-small, -deepseek-r1, -mm-image.",
    ),
    trace_file: Path | None = typer.Option(
        None,
        help="Recorded demand of your own: times in seconds, one a line; or Azure's, BurstGPT's or ServeGen's CSV (.gz, .xz).",
    ),
    trace_column: str | None = typer.Option(None, help="Which column of a CSV --trace-file."),
    speed: float | None = typer.Option(
        None, min=0, help="In place of --rate: play the recording as it was, this many times as fast, once unless --duration."
    ),
    day: float | None = typer.Option(None, min=0, help="Seconds that a day is played in, with diurnal and curves. Default: 600."),
    cv: float | None = typer.Option(None, min=0, help="Deviation of gaps over their mean: 1 is Poisson. Default with bursty: 3."),
    duration: float | None = typer.Option(None, min=0.001, help="Seconds (without --plan). Without it: until SIGTERM or Ctrl-C."),
    seed: int = typer.Option(0, min=0, help="Decides arrival times and the order of questions: the same seed, the same traffic."),
    start_at: float | None = typer.Option(None, help="Unix time of time zero, so that others share the clock. Default: now."),
    timeout: float = typer.Option(20.0, min=0.1, help="Seconds until the client gives up on an answer: an error."),
    max_in_flight: int = typer.Option(5000, min=1, help="Open requests at most; what is due beyond that is dropped: an error."),
    metrics_port: int | None = typer.Option(None, min=1, max=65535, help="Serve Prometheus metrics on this loopback port."),
    log: Path | None = typer.Option(None, help="Write JSON lines, one per second and version: counts and percentiles."),
    requests: Path | None = typer.Option(None, help="Write JSON lines, one per request: time, latency, version, outcome."),
    histograms: Path | None = typer.Option(None, help="Write an HDR histogram log (.hlog): one per second and version."),
    summary: Path | None = typer.Option(None, help="Write the summary to this file, as JSON."),
    json: bool | None = typer.Option(None, "--json/--table", help="How to print the summary. Default: a table in a terminal."),
    progress: bool | None = typer.Option(None, help="Show how it goes, on standard error. Default: in a terminal."),
) -> None:
    """Send BANKING77 questions at planned times and check each answer against the known label.

    The loop is open: a request is sent when its time has come, whether or not earlier ones are answered, and latency counts
    from that time, so that a slow server cannot hide by slowing the client down.

    Example: trimtab traffic --url http://127.0.0.1:8080 --rate 20 --trace azure-conv --duration 60

    The same over gRPC, as bursty as it gets: trimtab traffic --url grpc://127.0.0.1:8080 --arrivals bursty --cv 5

    A vLLM server's load as it was recorded: trimtab traffic --trace vllm-sweep-900 --speed 1
    """
    from serving_stack.traffic import Files, Target, one_segment, read_plan
    from trimtab.errors import SettingsError

    shape: dict[str, object] = {
        "rate": rate,
        "speed": speed,
        "arrivals": arrivals.value if arrivals else None,
        "trace": trace,
        "day": day,
        "cv": cv,
    }
    shape |= {"trace_file": trace_file, "trace_column": trace_column}
    if plan is None:
        if rate is None and speed is None:
            shape["rate"] = 20.0
        what = one_segment(seed=seed, duration=duration, **shape)
    elif given := [name for name, value in {**shape, "duration": duration}.items() if value is not None]:
        raise SettingsError(f"--plan says it all: leave out --{given[0].replace('_', '-')}")
    else:
        what = read_plan(plan)
    target = Target(
        url=url,
        model=model,
        timeout=timeout,
        max_in_flight=max_in_flight,
        pin=pin_version,
        adapters=tuple(adapter),
        skew=skew,
        feedback_after=feedback_after,
        token_file=token_file,
        ca_file=ca_file,
    )
    files = Files(log=log, requests=requests, histograms=histograms, summary=summary)
    _print(_send(what, target, files, start_at, metrics_port, progress), json, pin_version)


def _send(
    plan: Plan, target: Target, files: Files, start_at: float | None, metrics_port: int | None, progress: bool | None
) -> dict[str, object]:
    from rich.console import Console

    from serving_stack.traffic import send

    console = Console(stderr=True)
    if not (console.is_terminal if progress is None else progress):
        return send(plan, target, files=files, start_at=start_at, metrics_port=metrics_port)
    from rich.live import Live

    from serving_stack.traffic.report import line

    with Live(console=console, transient=True, auto_refresh=False) as live:
        return send(
            plan,
            target,
            files=files,
            start_at=start_at,
            metrics_port=metrics_port,
            show=lambda now: live.update(line(now), refresh=True),
        )


def _print(summary: dict[str, object], json: bool | None, pin: int | None) -> None:
    from rich.console import Console

    console = Console()
    if not console.is_terminal if json is None else json:
        import msgspec

        typer.echo(msgspec.json.format(msgspec.json.encode(summary), indent=1).decode())
        return
    from serving_stack.traffic.report import adapters, remarks, table

    console.print(table(summary))
    if (asked := adapters(summary)) is not None:
        console.print(asked)
    for remark in remarks(summary, pin):
        console.print(remark, highlight=False)
