"""`kubectl trimtab ...` and `trimtab fleet ...`."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from autoscaler.kubectl.asks import Kind
    from autoscaler.kubectl.cluster import Cluster
    from trimtab.kube import Object
    from trimtab.messages import Decision, Finding

fleet = typer.Typer(
    name="kubectl trimtab",
    add_completion=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    help="Look at fleets of model servers on Kubernetes, and ask things of them.\n\n"
    "The same commands are `kubectl trimtab ...` and `trimtab fleet ...`. They read and patch ModelFleets; the operator acts.",
)


class Output(StrEnum):
    """How to write what was found."""

    wide = "wide"
    json = "json"
    yaml = "yaml"


Namespace = Annotated[
    str | None, typer.Option("--namespace", "-n", help="Namespace. Default: the context's.", show_default=False)
]
All = Annotated[bool, typer.Option("--all-namespaces", "-A", help="Look in every namespace.")]
Context = Annotated[str | None, typer.Option(help="Context of the kubeconfig. Default: the current one.", show_default=False)]
Kubeconfig = Annotated[
    Path | None, typer.Option(help="Kubeconfig file. Default: $KUBECONFIG, then ~/.kube/config.", show_default=False)
]
Form = Annotated[Output | None, typer.Option("--output", "-o", help="More columns, or data for programs.", show_default=False)]
Kafka = Annotated[
    str | None,
    typer.Option(help="Kafka's address, host:port: also decisions and findings that are older than Events.", show_default=False),
]
Wait = Annotated[float, typer.Option("--wait", min=0, help="Seconds to wait for the operator's answer. 0: do not wait.")]
Name = Annotated[str, typer.Argument(metavar="FLEET", help="Name of the ModelFleet.")]


@fleet.command()
def status(
    name: Annotated[str | None, typer.Argument(metavar="[FLEET]", help="One fleet in detail. Default: a line for each.")] = None,
    namespace: Namespace = None,
    all_namespaces: All = False,
    output: Form = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Shows how fleets are: versions, traffic, replicas, SLO, and what was decided last.

    Example: kubectl trimtab status -A

    Example: kubectl trimtab status intent -o json
    """
    import time

    from autoscaler.kubectl import show
    from autoscaler.kubectl.pods import pod_of

    cluster = _cluster(kubeconfig, context, namespace, all_namespaces)
    if name is None:
        found = cluster.fleets()
        if output in (Output.json, Output.yaml):
            show.data(found, yaml=output is Output.yaml)
        elif found:
            show.fleets(found, time.time(), wide=output is Output.wide, namespaces=all_namespaces)
        else:
            typer.echo(f"No fleets found in {'any namespace' if all_namespaces else f'namespace {cluster.home}'}.", err=True)
        return
    one = cluster.fleet(name)
    pods = sorted((pod_of(each) for each in cluster.pods(name)), key=lambda pod: (pod.role != "triton", pod.role or "", pod.name))
    if output in (Output.json, Output.yaml):
        show.data({"fleet": one, "pods": pods}, yaml=output is Output.yaml)
    else:
        show.fleet(one, pods, time.time())


@fleet.command()
def history(
    name: Name,
    limit: Annotated[int, typer.Option(min=1, help="Most decisions to show, the newest first.")] = 20,
    since: Annotated[
        str | None, typer.Option(help="Only decisions of this time, such as 30m, 2h or 1d.", show_default=False)
    ] = None,
    kafka: Kafka = None,
    namespace: Namespace = None,
    output: Form = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Shows what was decided about a fleet and why, refusals included. Newest first, times in UTC.

    Decisions come from Kubernetes Events, which most API servers keep for an hour, and with --kafka from the topic.

    Example: kubectl trimtab history intent --since 2h

    Example: kubectl trimtab history intent --kafka kafka.trimtab:9092 -o wide
    """
    import time

    from autoscaler.kubectl import show, words

    cluster = _cluster(kubeconfig, context, namespace)
    now = time.time()
    earliest = now - words.seconds_of(since) if since else 0.0
    cluster.fleet(name)
    decisions, _ = _known(cluster, name, kafka)
    found = [each for each in decisions if each.time >= earliest][:limit]
    if output in (Output.json, Output.yaml):
        show.data(found, yaml=output is Output.yaml)
    else:
        show.decisions(found, now, wide=output is Output.wide)


@fleet.command()
def why(
    thing: Annotated[str, typer.Argument(metavar="POD|VERSION", help="Name of a pod, or a version such as 2 or v2.")],
    of: Annotated[
        str | None,
        typer.Option("--fleet", "-f", help="The fleet. Needed for a version unless there is but one.", show_default=False),
    ] = None,
    kafka: Kafka = None,
    namespace: Namespace = None,
    output: Form = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Shows why a pod or a version is where it is: its state, and every decision about it with the reason.

    Example: kubectl trimtab why intent-v1-6d5f7c9b4-x2x7p

    Example: kubectl trimtab why v2 --fleet intent --kafka kafka.trimtab:9092
    """
    from autoscaler.kubectl import reasons

    cluster = _cluster(kubeconfig, context, namespace)
    known = reasons.of(cluster, thing, of, lambda name: _known(cluster, name, kafka))
    if output in (Output.json, Output.yaml):
        from autoscaler.kubectl import show

        show.data(known, yaml=output is Output.yaml)
    else:
        reasons.write(known, wide=output is Output.wide)


@fleet.command()
def pause(
    name: Name, wait: Wait = 15.0, namespace: Namespace = None, context: Context = None, kubeconfig: Kubeconfig = None
) -> None:
    """Stops all acts on a fleet: what would be done is still said. Serving goes on as it is.

    Example: kubectl trimtab pause intent
    """
    from autoscaler.kubectl import asks

    _change(_cluster(kubeconfig, context, namespace), name, asks.paused(True), wait, f"fleet {name} is paused")


@fleet.command()
def resume(
    name: Name, wait: Wait = 15.0, namespace: Namespace = None, context: Context = None, kubeconfig: Kubeconfig = None
) -> None:
    """Lets Trimtab act on a paused fleet again.

    Example: kubectl trimtab resume intent
    """
    from autoscaler.kubectl import asks

    _change(_cluster(kubeconfig, context, namespace), name, asks.paused(False), wait, f"fleet {name} is resumed")


@fleet.command()
def release(
    name: Name,
    version: Annotated[int, typer.Option(min=1, help="Version of the model repository that should serve.")],
    again: Annotated[bool, typer.Option("--again", help="Also when it was released and rolled back before.")] = False,
    wait: Wait = 15.0,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Releases a version: a canary starts, and is promoted or rolled back by what it does.

    Example: kubectl trimtab release intent --version 3
    """
    import time

    from autoscaler.kubectl import asks

    body = asks.release(version, time.time(), again=again)
    _change(_cluster(kubeconfig, context, namespace), name, body, wait, f"version {version} of fleet {name} is released")


@fleet.command()
def override(
    name: Name,
    replicas: Annotated[
        int | None, typer.Option(min=1, help="Size of the serving pool, within the fleet's bounds.", show_default=False)
    ] = None,
    duration: Annotated[
        str | None, typer.Option("--for", help="How long it holds, such as 30m or 2h.", show_default=False)
    ] = None,
    end: Annotated[bool, typer.Option("--end", help="End an override now: the size follows demand again.")] = False,
    wait: Wait = 15.0,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Sets the number of replicas by hand for a time. It ends by itself, so it cannot be forgotten.

    Example: kubectl trimtab override intent --replicas 6 --for 30m

    Example: kubectl trimtab override intent --end
    """
    import time

    from autoscaler.kubectl import asks, words

    if end == (replicas is not None) or (replicas is None) != (duration is None):
        raise typer.BadParameter("give --replicas and --for together, or --end alone")
    cluster = _cluster(kubeconfig, context, namespace)
    if replicas is None or duration is None:
        _change(cluster, name, asks.no_override(), wait, f"the size of fleet {name} follows demand again")
        return
    until = time.time() + words.seconds_of(duration)
    done = f"fleet {name} is to have {replicas} replicas until {words.clock(until)} UTC"
    _change(cluster, name, asks.override(replicas, until), wait, done)


@fleet.command()
def rollback(
    name: Name,
    version: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="The version that shall go. Default: the canary, or in the guard the newly promoted one.",
            show_default=False,
        ),
    ] = None,
    wait: Wait = 15.0,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Takes a version on trial out of traffic at once; during the guard, goes back to the previous version.

    Example: kubectl trimtab rollback intent
    """
    from autoscaler.kubectl import asks

    cluster = _cluster(kubeconfig, context, namespace)
    chosen = version if version is not None else asks.version_to_roll_back(cluster.fleet(name))
    _ask(cluster, name, "rollback", wait, version=chosen)


@fleet.command()
def promote(
    name: Name,
    version: Annotated[
        int | None, typer.Option(min=1, help="The version. Default: the one on trial.", show_default=False)
    ] = None,
    wait: Wait = 15.0,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Promotes the version on trial without waiting for the comparison. The guard period follows as always.

    Example: kubectl trimtab promote intent
    """
    from autoscaler.kubectl import asks

    cluster = _cluster(kubeconfig, context, namespace)
    chosen = version if version is not None else asks.version_to_promote(cluster.fleet(name))
    _ask(cluster, name, "promote", wait, version=chosen)


@fleet.command()
def quarantine(
    pod: Annotated[str, typer.Argument(metavar="POD", help="Name of a replica's pod.")],
    wait: Wait = 15.0,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Takes one replica out of traffic and replaces it, within the fleet's budget. The pod is kept for a while to be looked at.

    Example: kubectl trimtab quarantine intent-v1-6d5f7c9b4-x2x7p
    """
    cluster = _cluster(kubeconfig, context, namespace)
    _ask(cluster, cluster.fleet_of_pod(pod), "quarantine", wait, pod=pod)


def main() -> None:
    """`kubectl-trimtab`: an error that a person can understand is printed as such and exits with 2."""
    from trimtab.errors import TrimtabError

    try:
        fleet()
    except TrimtabError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)


def _cluster(kubeconfig: Path | None, context: str | None, namespace: str | None, everywhere: bool = False) -> Cluster:
    from autoscaler.kubectl.cluster import Cluster
    from trimtab.kube import connect

    if namespace and everywhere:
        raise typer.BadParameter("--namespace and --all-namespaces exclude each other")
    kube = connect(kubeconfig, context)
    return Cluster(kube, None if everywhere else namespace or kube.namespace)


def _known(cluster: Cluster, name: str, kafka: str | None) -> tuple[list[Decision], dict[str, Finding]]:
    """All decisions about a fleet, newest first, and its findings where Kafka is given."""
    from autoscaler.kubectl import decisions, topics
    from trimtab.kube import fleet_name

    told = decisions.from_events(cluster.events(name))
    if kafka is None:
        return decisions.merged(told), {}
    from trimtab.bus import BusSettings, connect

    read, findings = topics.read(connect(BusSettings(bootstrap=kafka)), fleet_name(cluster.home, name))
    return decisions.merged(told, read), findings


def _change(cluster: Cluster, name: str, body: Object, wait: float, done: str) -> None:
    """Patches the spec and, unless told otherwise, waits until the operator has taken notice."""
    from autoscaler.kubectl import asks, show

    cluster.patch(name, body)
    if wait:
        asks.wait_for_notice(cluster, name, wait)
    show.said(done)


def _ask(cluster: Cluster, name: str, kind: Kind, wait: float, *, version: int | None = None, pod: str | None = None) -> None:
    """Makes a request and, unless told otherwise, waits for its answer; exit code 1 when it was not done."""
    import time

    from autoscaler.kubectl import asks, show

    request, body = asks.request(kind, time.time(), cluster.user(), version=version, pod=pod)
    cluster.patch(name, body)
    what = f"{kind} of {pod or f'version {version}'} in fleet {name}"
    if not wait:
        show.said(f"{what} is asked for (request {request})")
        return
    answer = asks.wait_for_answer(cluster, name, request, wait)
    show.said(f"{what}: {answer.outcome}" + (f": {answer.reason}" if answer.reason else ""))
    if answer.outcome != "applied":
        raise typer.Exit(1)
