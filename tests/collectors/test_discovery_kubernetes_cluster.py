"""Discovery on a real API server with real pods, and with the API server cut off."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from collectors.collector import Collector
from collectors.discovery_kubernetes import API_AWAY, KubernetesDiscovery
from collectors.settings import CollectSettings
from trimtab.codec import decode
from trimtab.kube import Kube, connect, path_of
from trimtab.memory_bus import MemoryBus
from trimtab.messages import TELEMETRY, Snapshot

pytestmark = pytest.mark.e2e


class Cut:
    """A TCP relay in front of the API server that can be cut, and mended on the same port."""

    def __init__(self, host: str, port: int) -> None:
        self.to = (host, port)
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.server.getsockname()[1])
        self.open: list[socket.socket] = []
        self.away = False
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self.away = True
        for each in self.open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self.open.clear()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                here, _ = self.server.accept()
                if self.away:
                    here.close()
                    continue
                there = socket.create_connection(self.to)
                self.open += [here, there]
                for source, sink in ((here, there), (there, here)):
                    threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def namespace(kube: Kube) -> Iterator[str]:
    name = f"collect-{uuid.uuid4().hex[:8]}"
    kube.create(path_of("namespaces"), {"metadata": {"name": name}})
    wait(lambda: kube.get(path_of("serviceaccounts", name)).get("items"), "the namespace's service account")
    yield name
    kube.delete(path_of("namespaces", name=name))


def wait(condition: Callable[[], Any], what: str, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.05)


def make(kube: Kube, namespace: str, name: str, role: str = "triton", **labels: str) -> None:
    """A pod that never gets ready: its image does not exist. Its sandbox, and with it its address, are real."""
    kube.create(
        path_of("pods", namespace),
        {
            "metadata": {"name": name, "labels": {"trimtab.dev/fleet": "intent", "trimtab.dev/role": role, **labels}},
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "containers": [
                    {
                        "name": "triton",
                        "image": "nowhere.invalid/none:1",
                        "imagePullPolicy": "Never",
                        "ports": [{"name": "metrics", "containerPort": 8002}],
                    }
                ],
            },
        },
    )


def kubeconfig(folder: Path, cluster: dict[str, Any], user: dict[str, Any] | None) -> Path:
    """The kubeconfig in use, with a changed cluster or another user."""
    config = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())
    config["clusters"][0]["cluster"] |= cluster
    if user is not None:
        config["users"][0]["user"] = user
    file = folder / "kubeconfig"
    file.write_text(yaml.safe_dump(config))
    return file


def names(discovery: KubernetesDiscovery) -> list[str]:
    discovery.refresh()
    return [target.target for target in discovery.targets]


def test_pods_come_and_go(kube: Kube, namespace: str) -> None:
    make(kube, namespace, "early")
    discovery = KubernetesDiscovery(kube, namespace)
    try:
        wait(lambda: names(discovery) == ["early"], "the pod that was there, though it is not ready")
        make(kube, namespace, "late", role="gateway")
        make(kube, namespace, "wrong", role="cook")
        wait(lambda: names(discovery) == ["early", "late"], "a new pod")
        found = {target.target: target for target in discovery.targets}
        address = kube.get(path_of("pods", namespace, "late"))["status"]["podIP"]
        assert found["late"].url == f"http://{address}:8002/stats/prometheus" and found["late"].fleet == f"{namespace}_intent"
        kube.delete(path_of("pods", namespace, "early"))
        wait(lambda: names(discovery) == ["late"], "the pod to be gone")
        kube.patch(path_of("pods", namespace, "wrong"), {"metadata": {"labels": {"trimtab.dev/role": "app"}}})
        wait(lambda: names(discovery) == ["late", "wrong"], "a mended label")
    finally:
        discovery.close()


def test_an_api_server_that_is_away_keeps_the_targets(kube: Kube, namespace: str, tmp_path: Path) -> None:
    at = urlsplit(kube.host)
    relay = Cut(str(at.hostname), at.port or 443)
    far = connect(kubeconfig(tmp_path, {"server": f"https://127.0.0.1:{relay.port}", "tls-server-name": at.hostname}, None))
    make(kube, namespace, "before")
    discovery = KubernetesDiscovery(far, namespace)
    try:
        wait(lambda: names(discovery) == ["before"], "the first pod")
        assert API_AWAY._value.get() == 0
        relay.cut()
        wait(lambda: discovery.refresh() or discovery._pods.problem, "the outage to be noticed")
        make(kube, namespace, "during")
        kube.delete(path_of("pods", namespace, "before"))
        wait(lambda: kube.get(path_of("pods", namespace, "during"))["status"].get("podIP"), "the address of the second pod")
        assert names(discovery) == ["before"] and API_AWAY._value.get() == 1
        relay.away = False
        wait(lambda: names(discovery) == ["during"], "what happened meanwhile")
        wait(lambda: discovery.refresh() or API_AWAY._value.get() == 0, "the outage to be over")
    finally:
        relay.cut()
        discovery.close()


def test_without_permission_it_says_so_and_goes_on(kube: Kube, namespace: str, tmp_path: Path) -> None:
    token = kube.create(path_of("serviceaccounts", namespace, "default", sub="token"), {"spec": {}})["status"]["token"]
    poor = connect(kubeconfig(tmp_path, {}, {"token": token}))
    discovery = KubernetesDiscovery(poor, namespace)
    try:
        wait(lambda: discovery.problem, "the refusal")
        assert "cannot list resource" in str(discovery.problem) and names(discovery) == []
    finally:
        discovery.close()


def as_account(kube: Kube, namespace: str, folder: Path) -> Kube:
    """The API server as an account sees it that has the rights of the collector's ClusterRole, in its namespace."""
    documents = yaml.safe_load_all(Path("deploy/kubernetes/base/collector/rbac.yaml").read_text())
    rules = next(each["rules"] for each in documents if each["kind"] == "ClusterRole")
    api = "rbac.authorization.k8s.io/v1"
    kube.create(path_of("roles", namespace, api=api), {"metadata": {"name": "c"}, "rules": rules})
    kube.create(
        path_of("rolebindings", namespace, api=api),
        {
            "metadata": {"name": "c"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "c"},
            "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": namespace}],
        },
    )
    token = kube.create(path_of("serviceaccounts", namespace, "default", sub="token"), {"spec": {}})["status"]["token"]
    return connect(kubeconfig(folder, {}, {"token": token}))


def test_the_rights_of_the_manifest_are_enough_and_a_real_page_is_scraped(kube: Kube, namespace: str, tmp_path: Path) -> None:
    image = os.environ.get("TRIMTAB_CORE_IMAGE", "trimtab-core:dev")
    container = {
        "name": "exporter",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": ["replay-gpu", "--port", "9400", "--gpus", "1"],
        "env": [{"name": "TRIMTAB_METRICS_HOST", "value": "0.0.0.0"}],
        "ports": [{"name": "metrics", "containerPort": 9400}],
    }
    labels = {"trimtab.dev/fleet": "intent", "trimtab.dev/role": "gpu"}
    pod = {"metadata": {"name": "exporter", "labels": labels}, "spec": {"containers": [container]}}
    kube.create(path_of("pods", namespace), pod)
    source, bus = KubernetesDiscovery(as_account(kube, namespace, tmp_path), namespace), MemoryBus()
    bus.ensure_topics()

    async def collect() -> None:
        collector = Collector(CollectSettings(), source, bus)
        running = asyncio.create_task(collector.run())
        consumer, found = bus.consumer([TELEMETRY], group=None), False
        end = time.monotonic() + 120
        while not found and time.monotonic() < end:
            await asyncio.sleep(0.2)
            found = any(isinstance(each.message, Snapshot) and each.message.up for each in consumer.poll(0))
        collector.stop()
        await running
        assert found, "the page was never scraped"

    try:
        asyncio.run(collect())
    finally:
        source.close()
    assert source.problem is None or "404" in source.problem  # without the CRD there are no pools
    last = decode(TELEMETRY, bus.topics[TELEMETRY][-1][1])
    assert isinstance(last, Snapshot) and (last.target, last.fleet, last.role) == ("exporter", f"{namespace}_intent", "gpu")
    assert any(name.startswith("DCGM_FI_DEV_GPU_TEMP{") for name in last.series)
