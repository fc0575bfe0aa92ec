"""The commands that look: status, history, why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from autoscaler.kubectl.options import All, Context, Form, Kafka, Kubeconfig, Name, Namespace, Output, cluster_of

if TYPE_CHECKING:
    from autoscaler.kubectl.cluster import Cluster
    from trimtab.messages import Decision, Finding


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

    cluster = cluster_of(kubeconfig, context, namespace, all_namespaces)
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

    cluster = cluster_of(kubeconfig, context, namespace)
    now = time.time()
    earliest = now - words.seconds_of(since) if since else 0.0
    cluster.fleet(name)
    decisions, _ = _known(cluster, name, kafka)
    found = [each for each in decisions if each.time >= earliest][:limit]
    if output in (Output.json, Output.yaml):
        show.data(found, yaml=output is Output.yaml)
    else:
        show.decisions(found, now, wide=output is Output.wide)


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

    cluster = cluster_of(kubeconfig, context, namespace)
    known = reasons.of(cluster, thing, of, lambda name: _known(cluster, name, kafka))
    if output in (Output.json, Output.yaml):
        from autoscaler.kubectl import show

        show.data(known, yaml=output is Output.yaml)
    else:
        reasons.write(known, wide=output is Output.wide)


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
