"""What the plugin reads from the API server, with errors that say what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager

from autoscaler.kubectl.fleets import Fleet, fleet_of
from trimtab.errors import Missing, TrimtabError
from trimtab.kube import MODEL_FLEETS, Kube, KubeError, Object, fleet_path, path_of

FLEET, VERSION, STATE = "trimtab.dev/fleet", "trimtab.dev/version", "trimtab.dev/state"


class Cluster:
    """One API server and the namespace that is looked at (None: all)."""

    def __init__(self, kube: Kube, namespace: str | None) -> None:
        self.kube, self.namespace = kube, namespace

    @property
    def home(self) -> str:
        """The namespace for what has one."""
        return self.namespace or self.kube.namespace

    def fleets(self) -> list[Fleet]:
        """All ModelFleets that are looked at."""
        with explained(self.kube):
            found = self.kube.get(fleet_path(self.namespace))
        return [fleet_of(each) for each in found.get("items") or []]

    def raw_fleet(self, name: str) -> Object:
        """One ModelFleet as it is. Raises `Missing` with names that are like it."""
        with explained(self.kube):
            try:
                return self.kube.get(fleet_path(self.home, name))
            except KubeError as error:
                if error.status != 404 or MODEL_FLEETS not in str(error):
                    raise
        known = [each.name for each in Cluster(self.kube, self.home).fleets()]
        raise Missing(f"there is no fleet '{name}' in namespace {self.home}{_near(name, known)}")

    def fleet(self, name: str) -> Fleet:
        """One ModelFleet."""
        return fleet_of(self.raw_fleet(name))

    def pods(self, fleet: str | None = None) -> list[Object]:
        """The pods of a fleet, or of all fleets of the namespace."""
        with explained(self.kube):
            found = self.kube.get(path_of("pods", self.home), labelSelector=f"{FLEET}={fleet}" if fleet else FLEET)
        return list(found.get("items") or [])

    def pod(self, name: str) -> Object | None:
        """One pod; None when it is not there."""
        with explained(self.kube):
            try:
                return self.kube.get(path_of("pods", self.home, name))
            except KubeError as error:
                if error.status == 404:
                    return None
                raise

    def fleet_of_pod(self, name: str) -> str:
        """The fleet that a pod belongs to. Raises `Missing`."""
        pod = self.pod(name)
        if pod is None:
            known = [each["metadata"]["name"] for each in self.pods()]
            raise Missing(f"there is no pod '{name}' in namespace {self.home}{_near(name, known)}")
        fleet = (pod["metadata"].get("labels") or {}).get(FLEET)
        if not fleet:
            raise Missing(f"pod '{name}' belongs to no fleet: it has no label {FLEET}")
        return str(fleet)

    def events(self, fleet: str | None = None) -> list[Object]:
        """Kubernetes Events about one ModelFleet of the namespace, or about all."""
        about = "involvedObject.kind=ModelFleet" + (f",involvedObject.name={fleet}" if fleet else "")
        with explained(self.kube):
            found = self.kube.get(path_of("events", self.home), fieldSelector=about)
        return list(found.get("items") or [])

    def patch(self, name: str, body: Object) -> Fleet:
        """Changes a ModelFleet; returns it as it is then."""
        with explained(self.kube):
            try:
                return fleet_of(self.kube.patch(fleet_path(self.home, name), body, fieldManager="kubectl-trimtab"))
            except KubeError as error:
                if error.status == 404 and MODEL_FLEETS in str(error):
                    return self.fleet(name)  # which says what there is instead
                raise

    def user(self) -> str:
        """Who asks, as the API server knows them; "kubectl" when it does not say."""
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        try:
            answer = self.kube.create(path_of("selfsubjectreviews", api="authentication.k8s.io/v1"), review)
        except TrimtabError:
            return "kubectl"
        return str(answer.get("status", {}).get("userInfo", {}).get("username") or "kubectl")


@contextmanager
def explained(kube: Kube) -> Iterator[None]:
    """Refusals of the API server as sentences that say what to do."""
    try:
        yield
    except KubeError as error:
        if error.status == 404 and MODEL_FLEETS not in str(error):
            raise Missing(
                f"the cluster at {kube.host} does not know ModelFleets: Trimtab is not installed there "
                "(kubectl apply -k deploy/kubernetes/overlays/try), or this is another cluster (see --context)"
            ) from error
        if error.status == 401:
            raise TrimtabError(f"the cluster at {kube.host} does not know you: log in again, or see --context") from error
        if error.status == 403:
            raise TrimtabError(f"not allowed: {error} (which rights each command needs: docs/kubectl.md)") from error
        if error.status == 422:
            raise TrimtabError(f"not accepted: {error}") from error
        raise


def _near(name: str, known: list[str]) -> str:
    """Names like this one, in words; else all there are, when they are few."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return f"; did you mean {' or '.join(near)}?"
    if not known:
        return "; there is none at all"
    return f"; there are {', '.join(sorted(known))}" if len(known) <= 8 else f"; there are {len(known)} others"
