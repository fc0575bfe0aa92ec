"""From a `GatewayState` to Envoy's configuration files. Pure: the same state gives the same files.

    bootstrap.json      read once at start: ports, the listener, what is counted
    eds/v<n>.json       the endpoints of one version, eds/v<n>_grpc.json those for gRPC
    cds/clusters.json   the clusters: two per version, see below
    sds/server.json     which certificate to show, where there is TLS
    rds/route.json      the route: weights, timeouts, retries

Each kind has a directory of its own, as Envoy reads a file again at every event in its directory: in one directory the
event of a cluster's endpoints could make it read a new route while the clusters that it names were still unread.

Two Envoy clusters per version. ``<fleet>_v<n>`` is what the route's weights name: an aggregate over the version's own
replicas first, then those of the stable pool, then those of the previous one. ``<fleet>_v<n>_replicas`` holds the endpoints.
**Counting is by intention to treat**: everything that becomes of a request whose lot fell on version n is counted under
``<fleet>_v<n>``, also what stable replicas did for it after its own had failed. So a sick version cannot hide behind its
fallback: its failed tries and the time its users waited stay under its name.

What is pinned goes to the ``_replicas`` straight away, and copies to ``<fleet>_v<n>_mirror``: neither was a lot, and both would
spoil the comparison of versions. gRPC has clusters of its own, ``<fleet>_v<n>_grpc`` and ``..._grpc_replicas``, as its port is
another, but the first is counted under ``<fleet>_v<n>`` as well.

- ``upstream_rq_xx`` counts answers that went to clients once per request. Tries whose answer was thrown away and tried
  again are the same series with the label ``envoy_retry="retry"``: the sum over both is one count per answered try.
- ``upstream_rq_time`` is one value per request: from the request to the final answer, all tries and waits included.
"""

from __future__ import annotations

from pathlib import Path

from serving_stack.gateway.envoy_json import Json, resources
from serving_stack.gateway.render_clusters import clusters, endpoints
from serving_stack.gateway.render_listener import CERTIFICATES, CLUSTERS, ROUTES, bootstrap, certificates
from serving_stack.gateway.render_routes import routes
from serving_stack.gateway.state import GatewayState, check

BOOTSTRAP = "bootstrap.json"


def render(state: GatewayState, folder: Path) -> dict[str, Json]:
    """All files of the gateway: name relative to `folder` -> content. Raises SettingsError when the state is not valid."""
    check(state)
    return {
        **endpoints(state, folder),
        **({CERTIFICATES: certificates(state.tls)} if state.tls else {}),
        CLUSTERS: resources(clusters(state, folder)),
        ROUTES: routes(state),
        BOOTSTRAP: bootstrap(state, folder),
    }
