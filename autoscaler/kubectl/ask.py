"""The commands that ask: pause, resume, release, override, rollback, promote, quarantine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from autoscaler.kubectl.options import Context, Kubeconfig, Name, Namespace, Wait, cluster_of

if TYPE_CHECKING:
    from autoscaler.kubectl.cluster import Cluster
    from autoscaler.kubectl.patches import Kind
    from trimtab.kube import Object


def pause(
    name: Name, wait: Wait = 15.0, namespace: Namespace = None, context: Context = None, kubeconfig: Kubeconfig = None
) -> None:
    """Stops all acts on a fleet: what would be done is still said. Serving goes on as it is.

    Example: kubectl trimtab pause intent
    """
    from autoscaler.kubectl import patches

    _change(cluster_of(kubeconfig, context, namespace), name, patches.paused(True), wait, f"fleet {name} is paused")


def resume(
    name: Name, wait: Wait = 15.0, namespace: Namespace = None, context: Context = None, kubeconfig: Kubeconfig = None
) -> None:
    """Lets Trimtab act on a paused fleet again.

    Example: kubectl trimtab resume intent
    """
    from autoscaler.kubectl import patches

    _change(cluster_of(kubeconfig, context, namespace), name, patches.paused(False), wait, f"fleet {name} is resumed")


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

    from autoscaler.kubectl import patches

    body = patches.release(version, time.time(), again=again)
    _change(cluster_of(kubeconfig, context, namespace), name, body, wait, f"version {version} of fleet {name} is released")


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

    from autoscaler.kubectl import patches, words

    if end == (replicas is not None) or (replicas is None) != (duration is None):
        raise typer.BadParameter("give --replicas and --for together, or --end alone")
    cluster = cluster_of(kubeconfig, context, namespace)
    if replicas is None or duration is None:
        _change(cluster, name, patches.no_override(), wait, f"the size of fleet {name} follows demand again")
        return
    until = time.time() + words.seconds_of(duration)
    done = f"fleet {name} is to have {replicas} replicas until {words.clock(until)} UTC"
    _change(cluster, name, patches.override(replicas, until), wait, done)


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
    from autoscaler.kubectl import patches

    cluster = cluster_of(kubeconfig, context, namespace)
    chosen = version if version is not None else patches.version_to_roll_back(cluster.fleet(name))
    _ask(cluster, name, "rollback", wait, version=chosen)


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
    from autoscaler.kubectl import patches

    cluster = cluster_of(kubeconfig, context, namespace)
    chosen = version if version is not None else patches.version_to_promote(cluster.fleet(name))
    _ask(cluster, name, "promote", wait, version=chosen)


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
    cluster = cluster_of(kubeconfig, context, namespace)
    _ask(cluster, cluster.fleet_of_pod(pod), "quarantine", wait, pod=pod)


def _change(cluster: Cluster, name: str, body: Object, wait: float, done: str) -> None:
    """Patches the spec and, unless told otherwise, waits until the operator has taken notice."""
    from autoscaler.kubectl import patches, show

    cluster.patch(name, body)
    if wait:
        patches.wait_for_notice(cluster, name, wait)
    show.said(done)


def _ask(cluster: Cluster, name: str, kind: Kind, wait: float, *, version: int | None = None, pod: str | None = None) -> None:
    """Makes a request and, unless told otherwise, waits for its answer; exit code 1 when it was not done."""
    import time

    from autoscaler.kubectl import patches, show

    request, body = patches.request(kind, time.time(), cluster.user(), version=version, pod=pod)
    cluster.patch(name, body)
    what = f"{kind} of {pod or f'version {version}'} in fleet {name}"
    if not wait:
        show.said(f"{what} is asked for (request {request})")
        return
    answer = patches.wait_for_answer(cluster, name, request, wait)
    show.said(f"{what}: {answer.outcome}" + (f": {answer.reason}" if answer.reason else ""))
    if answer.outcome != "applied":
        raise typer.Exit(1)
