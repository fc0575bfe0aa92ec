"""The Kubernetes API as JSON: paths in, plain dicts out, and errors in words.

Credentials, TLS and connections are those of the official client; its thousand model classes are not loaded, which keeps a small
process small and a command quick. Watching is in `trimtab.kube_watch`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prometheus_client import Counter

from trimtab.errors import Missing, TrimtabError, Unavailable

Object = dict[str, Any]

GROUP = "trimtab.dev"
API_VERSION = f"{GROUP}/v1alpha1"
MODEL_FLEETS = "modelfleets"

REQUESTS = Counter(
    "trimtab_kube_requests_total", "Requests to the Kubernetes API; code 'none': no answer came.", ["verb", "code"]
)

MERGE_PATCH = "application/merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"

_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class KubeError(TrimtabError):
    """The API server refused a request. `status` is the HTTP code, `reason` its word for it, such as ``NotFound``."""

    def __init__(self, status: int, reason: str, words: str) -> None:
        super().__init__(words)
        self.status, self.reason = status, reason


def path_of(plural: str, namespace: str | None = None, name: str | None = None, *, api: str = "v1", sub: str = "") -> str:
    """The path of a resource.

    >>> path_of("modelfleets", "prod", "intent", api="trimtab.dev/v1alpha1", sub="status")
    '/apis/trimtab.dev/v1alpha1/namespaces/prod/modelfleets/intent/status'
    """
    root = f"/apis/{api}" if "/" in api else f"/api/{api}"
    place = f"/namespaces/{namespace}" if namespace else ""
    return f"{root}{place}/{plural}" + (f"/{name}" if name else "") + (f"/{sub}" if sub else "")


def fleet_path(namespace: str | None = None, name: str | None = None, *, sub: str = "") -> str:
    """The path of ModelFleets: of all, of a namespace's, or of one."""
    return path_of(MODEL_FLEETS, namespace, name, api=API_VERSION, sub=sub)


def fleet_name(namespace: str, name: str) -> str:
    """A ModelFleet's name in all messages; unambiguous, as Kubernetes names have no underscore."""
    return f"{namespace}_{name}"


def condition(thing: Mapping[str, Any], kind: str) -> Object:
    """The condition of that type in an object's status; empty where it has none."""
    found = (thing.get("status") or {}).get("conditions") or ()
    return next((each for each in found if each.get("type") == kind), {})


def is_ready(thing: Mapping[str, Any]) -> bool:
    """Whether the condition Ready of a pod, a node or a ModelFleet is True. Whether it is on its way out is another question."""
    return condition(thing, "Ready").get("status") == "True"


class Kube:
    """One API server. Safe for several threads. `namespace` is the context's own, or the pod's."""

    def __init__(self, client: Any, namespace: str) -> None:
        self._client, self.namespace = client, namespace

    @property
    def host(self) -> str:
        """The API server's address."""
        return str(self._client.configuration.host)

    @property
    def configuration(self) -> Any:
        """The official client's configuration, for a library that makes its own connections."""
        return self._client.configuration

    def new_client(self) -> Any:
        """Another client of the same API server, for what changes the client that it is given (`kubernetes.stream`)."""
        return type(self._client)(self._client.configuration)

    def apart(self) -> Kube:
        """The same API server over connections of its own, for whoever cuts them off from another thread."""
        return Kube(self.new_client(), self.namespace)

    def close(self) -> None:
        """Closes the connections; nobody may be asking."""
        self._client.rest_client.pool_manager.clear()

    def get(self, path: str, **query: object) -> Object:
        """One object, or a list with its ``items``. Raises `KubeError`, or `Unavailable` when there is no answer."""
        return self.request("GET", path, query)

    def patch(self, path: str, body: Object, *, kind: str = MERGE_PATCH, **query: object) -> Object:
        """Changes an object; returns it as it is then."""
        return self.request("PATCH", path, query, body, kind)

    def apply(self, path: str, body: Object, *, manager: str, force: bool = True) -> Object:
        """Server-side apply: the object's fields in `body` are as said and owned by `manager`; made when it is not there.

        Without `force` a field of another owner is a `KubeError` with status 409.
        """
        return self.request("PATCH", path, {"fieldManager": manager, "force": str(force).lower()}, body, APPLY_PATCH)

    def create(self, path: str, body: Object) -> Object:
        """Makes an object."""
        return self.request("POST", path, {}, body)

    def delete(self, path: str, **query: object) -> Object:
        """Asks for an object to be removed; finalizers may keep it for a while."""
        return self.request("DELETE", path, query)

    def request(
        self, method: str, path: str, query: Mapping[str, object], body: Object | None = None, kind: str = "application/json"
    ) -> Object:
        """Any request whose answer is JSON."""
        import urllib3

        answer = self.open(method, path, query, body, kind)
        try:
            found: Object = json.loads(answer.read() or b"{}")
        except ValueError as error:
            raise Unavailable(f"{self.host} answers {method} {path} with something that is not JSON: {error}") from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unavailable(f"{self.host} broke off its answer to {method} {path}: {_root(error)}") from error
        return found

    def open(
        self,
        method: str,
        path: str,
        query: Mapping[str, object],
        body: Object | None = None,
        kind: str = "application/json",
        timeout: tuple[float, float] = (5.0, 15.0),
    ) -> Any:
        """The answer as urllib3 gives it, not yet read. `timeout`: seconds to connect, and between two pieces of the answer."""
        import urllib3
        from kubernetes.client.exceptions import ApiException

        headers = {"Accept": "application/json", **({"Content-Type": kind} if body is not None else {})}
        verb, code = "watch" if query.get("watch") else method.lower(), "none"
        given = [(key, value) for key, value in query.items() if value not in (None, "")]
        try:
            request = self._client.param_serialize(
                method, path, query_params=given, header_params=headers, body=body, auth_settings=["BearerToken"]
            )
            answer = self._client.call_api(*request, _request_timeout=timeout).response
            code = str(answer.status)
            if answer.status >= 400:
                raise _refusal(answer.status, answer.read(), f"{method} {path}")
        except ApiException as error:  # TLS
            raise Unavailable(f"the Kubernetes API at {self.host} cannot be reached: {error.reason}") from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unavailable(f"the Kubernetes API at {self.host} does not answer: {_root(error)}") from error
        finally:
            REQUESTS.labels(verb, code).inc()
        return answer


def connect(kubeconfig: Path | str | None = None, context: str | None = None) -> Kube:
    """The API server of a kubeconfig ($KUBECONFIG, ~/.kube/config), or in a pod that of its own cluster.

    Nothing is sent yet. Raises `Missing` when there is no way to know the cluster.
    """
    try:
        import kubernetes.config
        from kubernetes.client import ApiClient, Configuration
    except ImportError as error:
        raise Missing("the Kubernetes client is not installed: pip install 'trimtab[autoscale]'") from error

    import yaml

    config: Any = kubernetes.config  # it has no types
    configuration = Configuration()
    configuration.retries = 1
    in_pod = kubeconfig is None and context is None and "KUBERNETES_SERVICE_HOST" in os.environ and "KUBECONFIG" not in os.environ
    try:
        if in_pod:
            config.load_incluster_config(client_configuration=configuration)
            namespace = _NAMESPACE_FILE.read_text().strip()
        else:
            file = str(kubeconfig) if kubeconfig else None
            config.load_kube_config(config_file=file, context=context, client_configuration=configuration)
            namespace = _namespace_of(config, file, context)
    except (config.ConfigException, yaml.YAMLError, OSError, KeyError, TypeError, AttributeError) as error:
        where = kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config"
        words = " ".join(str(error).split())
        raise Missing(f"no Kubernetes cluster is known: {words} (looked in {where}; see --kubeconfig and --context)") from error
    return Kube(ApiClient(configuration), namespace)


def _namespace_of(config: Any, file: str | None, context: str | None) -> str:
    contexts, active = config.list_kube_config_contexts(config_file=file)
    chosen = next((each for each in contexts if each["name"] == context), active) if context else active
    return str(chosen["context"].get("namespace") or "default")


def _refusal(status: int, data: bytes, what: str) -> TrimtabError:
    try:
        said = json.loads(data)
        message, reason = str(said.get("message", "")), str(said.get("reason", ""))
    except (ValueError, AttributeError):
        message, reason = data[:200].decode("utf-8", "replace").strip(), ""
    if status == 429 or status >= 500:
        return Unavailable(f"the Kubernetes API answers {status} to {what}: {message or reason}")
    return KubeError(status, reason, message or f"{what} was refused with {status} {reason}".rstrip())


def _root(error: BaseException) -> str:
    """The last cause, without the layers of connection pools around it."""
    reason = getattr(error, "reason", None)
    inner = reason if isinstance(reason, BaseException) else None
    text = _root(inner) if inner else str(error) or type(error).__name__
    return text.rsplit(": ", 1)[-1] if "object at 0x" in text else text
