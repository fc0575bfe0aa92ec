"""`why`: everything that is known about one replica or one version."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import msgspec

from autoscaler.kubectl import decisions, show, words
from autoscaler.kubectl.cluster import FLEET, Cluster
from autoscaler.kubectl.fleets import Fleet, Version
from autoscaler.kubectl.pods import Pod, pod_of
from trimtab.errors import Missing
from trimtab.messages import Decision, Finding

Known = Callable[[str], tuple[list[Decision], dict[str, Finding]]]
_VERSION = re.compile(r"^v?(\d{1,6})$")


class Why(msgspec.Struct, frozen=True, kw_only=True):
    """About a pod (`pod` is None when it is gone) or about a version (`pool` is None when it has none)."""

    fleet: str
    name: str
    version: int | None = None
    pod: Pod | None = None
    pool: Version | None = None
    pods: list[Pod] = []
    decisions: list[Decision] = []
    findings: list[Finding] = []


def of(cluster: Cluster, thing: str, fleet: str | None, known: Known) -> Why:
    """What is known. Raises `Missing` when nothing is."""
    match = _VERSION.match(thing)
    if match:
        return _version(cluster, int(match[1]), cluster.fleet(fleet) if fleet else _only(cluster), known)
    return _pod(cluster, thing, fleet, known)


def write(why: Why, *, wide: bool) -> None:
    """For people."""
    now = time.time()
    show.said(_where(why))
    if why.pods:
        show.said("")
        show.pods(why.pods, now)
    if why.findings:
        show.said("")
        show.findings(why.findings, now)
    show.said("")
    show.decisions(why.decisions, now, wide=wide)


def _version(cluster: Cluster, version: int, fleet: Fleet, known: Known) -> Why:
    told, findings = known(fleet.name)
    about = decisions.about(told, version=version)
    pool = next((each for each in fleet.versions if each.version == version), None)
    pods = [pod for pod in map(pod_of, cluster.pods(fleet.name)) if pod.version == version]
    if not about and pool is None and not pods and version != fleet.spec_version:
        raise Missing(
            f"nothing is known of version {version} of fleet '{fleet.name}'; versions with replicas: {_versions(fleet)}"
        )
    causes = _causes(about, findings, lambda finding: finding.version == version and finding.target is None)
    return Why(
        fleet=fleet.name, name=f"version {version}", version=version, pool=pool, pods=pods, decisions=about, findings=causes
    )


def _pod(cluster: Cluster, name: str, fleet: str | None, known: Known) -> Why:
    thing = cluster.pod(name)
    owner = fleet or ((thing or {}).get("metadata", {}).get("labels") or {}).get(FLEET) or _fleet_that_told(cluster, name)
    if owner is None:
        cluster.fleet_of_pod(name)  # which says what there is instead
        raise Missing(f"nothing is known of pod '{name}'")
    told, findings = known(owner)
    about = decisions.about(told, pod=name)
    if thing is None and not about:
        raise Missing(f"pod '{name}' is gone, and no decision of fleet '{owner}' names it (see --kafka for older ones)")
    pod = pod_of(thing) if thing else None
    causes = _causes(about, findings, lambda finding: finding.target == name)
    return Why(
        fleet=owner,
        name=name,
        version=pod.version if pod else None,
        pod=pod,
        pods=[pod] if pod else [],
        decisions=about,
        findings=causes,
    )


def _fleet_that_told(cluster: Cluster, pod: str) -> str | None:
    """The fleet of a pod that is gone: the one whose decisions name it."""
    told = decisions.about(decisions.from_events(cluster.events()), pod=pod)
    return told[0].fleet.partition("_")[2] if told else None


def _only(cluster: Cluster) -> Fleet:
    found = cluster.fleets()
    if len(found) == 1:
        return found[0]
    names = ", ".join(sorted(each.name for each in found)) or "none"
    raise Missing(f"which fleet's version? Say it with --fleet (in namespace {cluster.home}: {names})")


def _causes(about: list[Decision], findings: dict[str, Finding], direct: Callable[[Finding], bool]) -> list[Finding]:
    named = {cause for decision in about for cause in decision.because}
    return [finding for name, finding in findings.items() if name in named or direct(finding)]


def _where(why: Why) -> str:
    if why.pod is not None:
        place = f" on node {why.pod.node}" if why.pod.node else ""
        trouble = f"; {why.pod.trouble}" if why.pod.trouble else ""
        version = f"version {why.version}, " if why.version is not None else ""
        return f"{why.name} ({version}fleet {why.fleet}) is {why.pod.state}{place}{trouble}"
    if why.version is None:
        return f"{why.name} (fleet {why.fleet}) is gone"
    if why.pool is None:
        return f"{why.name} of fleet {why.fleet} has no replicas"
    share = f"{words.weight(why.pool.weight)} of the traffic"
    ready = f"{words.text(why.pool.ready)} of {words.text(why.pool.wanted)} replicas ready"
    return f"{why.name} of fleet {why.fleet} is {words.text(why.pool.role)}: {share}, {ready}"


def _versions(fleet: Fleet) -> str:
    return ", ".join(str(each.version) for each in fleet.versions) or "none"
