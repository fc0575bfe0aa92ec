"""The plugin on a real API server: a ModelFleet whose status a thread writes as the operator would, its Events and pods."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import yaml

from autoscaler.kubectl.cli import main
from autoscaler.kubectl.fleets import moment
from trimtab.kube import Kube, fleet_path, path_of

pytestmark = pytest.mark.e2e
ANSWERED = {
    "rollback": ("applied", "version 2 is taken out of traffic"),
    "promote": ("refused", "version 9 is not on trial (2 is)"),
    "quarantine": ("applied", "intent-v1-a is out of traffic"),
}


def wait(condition: Callable[[], Any], what: str, seconds: float = 30.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.05)
    return found


class World:
    """A namespace with one fleet."""

    def __init__(self, kube: Kube, status: dict[str, Any], make_event: Any, make_decision: Any) -> None:
        self.kube, self.namespace = kube, f"plugin-{uuid.uuid4().hex[:8]}"
        self._status, self._event, self._decision = status, make_event, make_decision
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._operate, daemon=True)

    def __enter__(self) -> World:
        kube, place = self.kube, self.namespace
        kube.create(path_of("namespaces"), {"metadata": {"name": place}})
        wait(lambda: kube.get(path_of("serviceaccounts", place)).get("items"), "the service account")
        kube.create(
            fleet_path(place),
            {
                "apiVersion": "trimtab.dev/v1alpha1",
                "kind": "ModelFleet",
                "metadata": {"name": "intent"},
                # Paused: an operator that happens to run on this cluster does nothing to it.
                "spec": {"model": "intent", "version": 1, "capacityPerReplica": 40, "paused": True},
            },
        )
        self.write(self._status)
        now = time.time()
        for made in (
            self._decision("d1", now - 300, "scale", from_={"replicas": 1}, to={"replicas": 2}, reason="55.0 requests/s arrive"),
            self._decision("d2", now - 200, "release", version=2, reason="version 2 is released: a canary starts"),
            self._decision("d3", now - 100, "quarantine", version=1, target="intent-v1-sick", reason="it hangs", because=["f1"]),
            self._decision("d4", now - 50, "hold", outcome="refused", reason="too few samples"),
        ):
            kube.create(path_of("events", place), self._event(made, place))
        for name, state in (("intent-v1-a", "serving"), ("intent-v1-sick", "quarantined")):
            kube.create(path_of("pods", place), self._pod(name, state))
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(5)
        self.kube.delete(path_of("namespaces", name=self.namespace))

    def operate(self) -> None:
        """From now on requests are answered and specs are noticed."""
        self._thread.start()

    def write(self, status: dict[str, Any]) -> None:
        self.kube.patch(fleet_path(self.namespace, "intent", sub="status"), {"status": status})

    def fleet(self) -> dict[str, Any]:
        return self.kube.get(fleet_path(self.namespace, "intent"))

    def run(self, *arguments: str, kubeconfig: Path | None = None) -> tuple[int, str]:
        """(exit code, all output) of a command, in this process: starting one costs a second."""
        more = ["--kubeconfig", str(kubeconfig)] if kubeconfig else []
        out = io.StringIO()
        code: int | str | None = 0
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(out):
            patch.setattr(sys, "argv", ["kubectl-trimtab", *arguments, "-n", self.namespace, *more])
            try:
                main()
            except SystemExit as end:
                code = end.code
        return int(code or 0), out.getvalue()

    def _operate(self) -> None:
        answers: list[dict[str, Any]] = []
        while not self._over.wait(0.1):
            fleet = self.fleet()
            for kind, (outcome, reason) in ANSWERED.items():
                text = fleet["metadata"].get("annotations", {}).get(f"trimtab.dev/request-{kind}")
                request = json.loads(text) if text else None
                if request and request["id"] not in [each["id"] for each in answers]:
                    answers.append({"id": request["id"], "kind": kind, "outcome": outcome, "reason": reason})
            self.write({"observedGeneration": fleet["metadata"]["generation"], "requests": answers})

    @staticmethod
    def _pod(name: str, state: str) -> dict[str, Any]:
        labels = {
            "trimtab.dev/fleet": "intent",
            "trimtab.dev/role": "triton",
            "trimtab.dev/version": "1",
            "trimtab.dev/state": state,
        }
        container = {"name": "triton", "image": "nowhere.invalid/none:1", "imagePullPolicy": "Never"}
        spec = {"terminationGracePeriodSeconds": 0, "containers": [container]}
        return {"metadata": {"name": name, "labels": labels}, "spec": spec}


@pytest.fixture(scope="module")
def cluster(kube: Kube) -> Kube:
    for lease in kube.get(path_of("leases", api="coordination.k8s.io/v1"))["items"]:
        renewed = moment(lease["spec"].get("renewTime"))
        if lease["metadata"]["name"] == "trimtab-operator" and renewed is not None and time.time() - renewed < 30:
            pytest.skip("an operator leads on this cluster: it would write the status that these tests write")
    return kube


@pytest.fixture
def world(cluster: Kube, full_status: dict[str, Any], make_event: Any, make_decision: Any) -> Iterator[World]:
    with World(cluster, full_status, make_event, make_decision) as world:
        yield world


def test_status(world: World) -> None:
    plugin = Path(sys.executable).parent / "kubectl-trimtab"  # as kubectl starts it
    started = subprocess.run([plugin, "status", "-n", world.namespace], capture_output=True, text=True, timeout=60)
    code, table = started.returncode, started.stdout
    head, line = table.splitlines()
    assert code == 0
    assert head.split() == ["NAME", "READY", "VERSION", "CANARY", "WEIGHT", "REPLICAS", "SLO", "PAUSED", "LAST-DECISION", "AGE"]
    assert line.split()[:8] == ["intent", "True", "1", "2", "20%", "3/3", "Met", "true"]
    assert "\x1b" not in table  # no colours in a pipe
    assert "ARRIVALS" in world.run("status", "-o", "wide")[1] and "41.2/s" in world.run("status", "-o", "wide")[1]
    code, detail = world.run("status", "intent")
    assert code == 0 and "intent-v1-sick" in detail and "quarantined" in detail and "version 2 with 20% of the traffic" in detail
    assert json.loads(world.run("status", "intent", "-o", "json")[1])["fleet"]["versions"][1]["weight"] == 20
    assert yaml.safe_load(world.run("status", "-o", "yaml")[1])[0]["arrivalsPerSecond"] == 41.25


def test_history_and_why(world: World) -> None:
    code, table = world.run("history", "intent")
    lines = table.splitlines()
    assert code == 0 and [next(a for a in ("hold", "quarantine", "release", "scale") if a in line) for line in lines[1:]] == [
        "hold", "quarantine", "release", "scale",
    ]  # fmt: skip
    assert "replicas 1 -> 2" in lines[-1] and "55.0 requests/s arrive" in lines[-1]
    assert len(json.loads(world.run("history", "intent", "--since", "150s", "-o", "json")[1])) == 2
    code, text = world.run("why", "intent-v1-sick")
    assert code == 0 and "is quarantined" in text and "it hangs" in text and "too few" not in text
    code, text = world.run("why", "v2")
    assert (
        code == 0
        and "version 2 of fleet intent is canary: 20% of the traffic, 1 of 1 replicas ready" in text
        and "a canary starts" in text
    )
    code, text = world.run("why", "intent-v1-sock")
    assert code == 2 and "there is no pod 'intent-v1-sock'" in text and "did you mean intent-v1-sick" in text
    world.kube.delete(path_of("pods", world.namespace, "intent-v1-sick"))
    wait(lambda: "is gone" in world.run("why", "intent-v1-sick")[1], "the pod to be gone")
    assert "it hangs" in world.run("why", "intent-v1-sick")[1]


def test_changes_of_the_spec_wait_until_they_are_noticed(world: World) -> None:
    world.operate()
    assert world.run("resume", "intent") == (0, "fleet intent is resumed\n")
    assert world.fleet()["spec"]["paused"] is False
    assert world.run("pause", "intent") == (0, "fleet intent is paused\n")
    assert world.run("release", "intent", "--version", "3", "--again") == (0, "version 3 of fleet intent is released\n")
    assert world.fleet()["spec"]["version"] == 3 and "trimtab.dev/released-at" in world.fleet()["metadata"]["annotations"]
    code, text = world.run("override", "intent", "--replicas", "3", "--for", "30m")
    assert code == 0 and "is to have 3 replicas until" in text and world.fleet()["spec"]["override"]["replicas"] == 3
    assert world.run("override", "intent", "--end")[0] == 0 and "override" not in world.fleet()["spec"]
    code, text = world.run("override", "intent", "--replicas", "3000", "--for", "30m")
    assert code == 2 and "not accepted" in text and "should be less than or equal to 1000" in text


def test_requests_wait_for_their_answers(world: World) -> None:
    world.operate()
    assert world.run("rollback", "intent") == (
        0,
        "rollback of version 2 in fleet intent: applied: version 2 is taken out of traffic\n",
    )
    assert json.loads(world.fleet()["metadata"]["annotations"]["trimtab.dev/request-rollback"])["by"]
    code, text = world.run("promote", "intent", "--version", "9")
    assert code == 1 and "promote of version 9 in fleet intent: refused: version 9 is not on trial" in text
    assert world.run("quarantine", "intent-v1-a")[0] == 0
    assert json.loads(world.fleet()["metadata"]["annotations"]["trimtab.dev/request-quarantine"])["pod"] == "intent-v1-a"


def test_without_an_operator_it_says_so(world: World) -> None:
    code, text = world.run("rollback", "intent", "--wait", "1")
    assert code == 2 and "the operator has not answered request" in text and "is it running?" in text
    assert world.run("rollback", "intent", "--wait", "0")[0] == 0
    code, text = world.run("release", "intent", "--version", "4", "--wait", "1")
    assert code == 2 and "the change is made, but the operator has not taken notice of it" in text


def test_errors_say_what_to_do(world: World, kube: Kube, tmp_path: Path) -> None:
    code, text = world.run("status", "intend")
    assert (code, text) == (2, f"error: there is no fleet 'intend' in namespace {world.namespace}; did you mean intent?\n")
    assert "did you mean intent?" in world.run("pause", "intend")[1]
    account = path_of("serviceaccounts", world.namespace, "default", sub="token")
    config = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())
    config["users"][0]["user"] = {"token": kube.create(account, {"spec": {}})["status"]["token"]}
    poor = tmp_path / "poor"
    poor.write_text(yaml.safe_dump(config))
    code, text = world.run("pause", "intent", kubeconfig=poor)
    assert code == 2 and "not allowed: " in text and "cannot patch resource" in text
    config["users"][0]["user"] = {"token": "wrong"}
    poor.write_text(yaml.safe_dump(config))
    assert "does not know you" in world.run("status", kubeconfig=poor)[1]
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    poor.write_text(yaml.safe_dump(config))
    code, text = world.run("status", kubeconfig=poor)
    assert code == 2 and "the Kubernetes API at https://127.0.0.1:1 does not answer" in text and "Traceback" not in text
