"""What all tests share: a real Kafka broker and a real API server, each made ready once and only when a test asks for it."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from trimtab.kube import Kube, KubeError, connect, fleet_path, path_of

# Brokers come and go in tests: their client's words about it would bury those of a test that failed.
logging.getLogger("kafka").setLevel(logging.CRITICAL)

BASE = Path(__file__).parents[1] / "deploy/kubernetes/base"


def free_port() -> int:
    """A loopback port that is free now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _die_with_parent() -> None:
    """A killed test run leaves no broker behind."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class RunningBroker:
    """A broker on a folder of its own that tests may stop and start again on the same address."""

    def __init__(self, folder: Path) -> None:
        from embedded import broker

        self.folder = folder
        self.port, self.controller_port = free_port(), free_port()
        self.bootstrap = f"127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None
        broker.format_storage(folder, self.port, self.controller_port)

    def start(self) -> None:
        """Start and wait until it answers."""
        from embedded import broker

        argv, env = broker.broker_process(self.folder, self.port, self.controller_port)
        log = (self.folder / "stderr.log").open("ab")
        self.process = subprocess.Popen(argv, env=env, stdout=log, stderr=log, preexec_fn=_die_with_parent)
        log.close()
        broker.wait_ready(self.bootstrap, timeout=60)

    def stop(self) -> None:
        """Stop as the supervisor does: SIGTERM, then SIGKILL."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)
        self.process = None


@pytest.fixture(scope="session")
def make_broker() -> Iterator[Callable[[Path], RunningBroker]]:
    """Makes started brokers of a test's own, for tests that restart them: `make_broker(folder)`."""
    made: list[RunningBroker] = []

    def make(folder: Path) -> RunningBroker:
        broker = RunningBroker(folder)
        made.append(broker)
        broker.start()
        return broker

    yield make
    for broker in made:
        broker.stop()


@pytest.fixture(scope="session")
def kafka(make_broker: Callable[[Path], RunningBroker], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The bootstrap address of the session's real broker, e.g. ``127.0.0.1:40217``. It has no topics yet."""
    return make_broker(tmp_path_factory.mktemp("kafka")).bootstrap


@pytest.fixture(scope="session")
def kube() -> Kube:
    """The API server of $KUBECONFIG, with the CRD and the gateway's role as the repository has them."""
    import yaml

    if not os.environ.get("KUBECONFIG"):
        pytest.skip("needs a Kubernetes cluster: set KUBECONFIG")
    found = connect()
    for kind, api, file in (
        ("customresourcedefinitions", "apiextensions.k8s.io/v1", "crd/modelfleet.yaml"),
        ("clusterroles", "rbac.authorization.k8s.io/v1", "gateway-role.yaml"),
    ):
        given = yaml.safe_load((BASE / file).read_text())
        found.apply(path_of(kind, None, given["metadata"]["name"], api=api), given, manager="trimtab-install")
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with contextlib.suppress(KubeError):
            found.get(fleet_path())
            return found
        time.sleep(0.1)
    raise AssertionError("the API server does not serve ModelFleets a minute after their CRD was applied")
