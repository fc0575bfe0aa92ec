"""The options that the commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from autoscaler.kubectl.cluster import Cluster


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


def cluster_of(kubeconfig: Path | None, context: str | None, namespace: str | None, everywhere: bool = False) -> Cluster:
    """What the options say to look at. Nothing is sent yet."""
    from autoscaler.kubectl.cluster import Cluster
    from trimtab.kube import connect

    if namespace and everywhere:
        raise typer.BadParameter("--namespace and --all-namespaces exclude each other")
    kube = connect(kubeconfig, context)
    return Cluster(kube, None if everywhere else namespace or kube.namespace)
