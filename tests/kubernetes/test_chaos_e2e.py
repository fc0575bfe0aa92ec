"""Everything is killed at random under traffic: nothing wrong is done, nothing twice, hardly a request fails, and all heals.

A measurement more than a test: `CHAOS_SECONDS` says for how long (900 is a quarter of an hour; without it this is skipped) and
`CHAOS_SEED` in which order. What happened is printed as it happens: `pytest -s -m e2e tests/kubernetes/test_chaos_e2e.py`.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trimtab.errors import Unavailable
from trimtab.kube import Kube, KubeError, fleet_path, is_ready, path_of

SECONDS = int(os.environ.get("CHAOS_SECONDS", "0"))
SEED = int(os.environ.get("CHAOS_SEED", "1"))
PAUSE = (15.0, 30.0)
RATE = 20
HEALING_SECONDS = 420.0
LOST_WITH_A_GATEWAY = 8
"""Requests that a killed Envoy holds, or that still go to its address: this client does not try again."""
SYSTEM, FLEETS = "trimtab", "trimtab-demo"
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not SECONDS, reason="takes minutes and a quiet machine: set CHAOS_SECONDS"),
]
LEASES = "coordination.k8s.io/v1"

READ_DECISIONS = """
import json, sys
from trimtab.bus import BusSettings, connect
from trimtab import codec, settings
bus = connect(settings.load(BusSettings))
for record in bus.read_all(["trimtab.decisions"], since=float(sys.argv[1]), until=float(sys.argv[2])):
    print(codec.encode(record.message).decode())
"""


class Monkey:
    """Kills one thing at a time. `victims` are the names of serving pods that it killed."""

    def __init__(self, kube: Kube, seed: int) -> None:
        self._kube, self._dice = kube, random.Random(seed)
        self.victims: set[str] = set()
        self.kills: Counter[str] = Counter()

    def strike(self) -> str:
        """Kills something; says what."""
        acts: dict[str, Callable[[], str]] = {
            "operator": lambda: self._pod(SYSTEM, "app.kubernetes.io/name=trimtab-operator"),
            "lease": self._lease,
            "collector": lambda: self._pod(SYSTEM, "app.kubernetes.io/name=trimtab-collector"),
            "task manager": lambda: self._pod(SYSTEM, "app.kubernetes.io/name=trimtab-taskmanager"),
            "broker": lambda: self._pod(SYSTEM, "app.kubernetes.io/name=kafka"),
            "gateway": lambda: self._pod(FLEETS, "trimtab.dev/role=gateway"),
            "replica": lambda: self._pod(FLEETS, "trimtab.dev/role=triton,trimtab.dev/state=serving"),
        }
        if api_server() is not None:
            acts["API server"] = self._api_server
        what = self._dice.choice(sorted(acts))
        words = acts[what]()
        self.kills[what] += 1
        return f"{what}: {words}"

    def _pod(self, namespace: str, selector: str) -> str:
        pods = [pod["metadata"]["name"] for pod in self._kube.get(path_of("pods", namespace), labelSelector=selector)["items"]]
        if not pods:
            return "none there"
        name = self._dice.choice(sorted(pods))
        if "triton" in selector:
            self.victims.add(name)
        self._kube.delete(path_of("pods", namespace, name), gracePeriodSeconds=0)
        return name

    def _lease(self) -> str:
        leases = [each["metadata"]["name"] for each in self._kube.get(path_of("leases", SYSTEM, api=LEASES))["items"]]
        for name in leases:
            self._kube.delete(path_of("leases", SYSTEM, name, api=LEASES))
        return ", ".join(leases) or "none there"

    def _api_server(self) -> str:
        process = api_server()
        assert process is not None
        argv = (process / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        folder = (process / "cwd").resolve()
        os.kill(int(process.name), signal.SIGKILL)
        time.sleep(5.0)
        subprocess.Popen(argv, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        return f"pid {process.name}, started again after 5 s"


def api_server() -> Path | None:
    """The API server's process, where it runs on this very machine."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if b"kube-apiserver\0" in (process / "cmdline").read_bytes()[:200]:
                return process
        except OSError:
            continue
    return None


def healed(kube: Kube) -> bool:
    """The fleet is Ready, and so is every Deployment of the system and of the fleet."""
    try:
        ready = is_ready(kube.get(fleet_path(FLEETS, "intent")))
        deployments = [each for ns in (SYSTEM, FLEETS) for each in kube.get(path_of("deployments", ns, api="apps/v1"))["items"]]
    except (KubeError, Unavailable):
        return False
    return ready and all(each["status"].get("readyReplicas", 0) == each["spec"]["replicas"] for each in deployments)


def decisions(since: float, until: float) -> list[dict[str, Any]]:
    """What the operator decided, from the topic."""
    done = subprocess.run(
        [
            "kubectl",
            "exec",
            "-n",
            SYSTEM,
            "deploy/trimtab-operator",
            "--",
            "python3",
            "-c",
            READ_DECISIONS,
            str(since),
            str(until),
        ],
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def test_everything_is_killed_at_random_and_nothing_wrong_is_done(
    kube: Kube, system: None, traffic_in: Any, until: Callable[..., Any]
) -> None:
    kube.patch(fleet_path(FLEETS, "intent"), {"spec": {"replicas": {"min": 2}}})
    until(lambda: healed(kube), "all is healed", HEALING_SECONDS)
    began = time.time()
    traffic = traffic_in(FLEETS, SECONDS, RATE)
    monkey, pauses = Monkey(kube, SEED), random.Random(SEED)
    while time.time() - began < SECONDS - PAUSE[1]:
        time.sleep(pauses.uniform(*PAUSE))
        try:
            print(f"{time.time() - began:6.1f} s  {monkey.strike()}", flush=True)
        except (KubeError, Unavailable) as error:
            print(f"{time.time() - began:6.1f} s  not possible: {error}", flush=True)
    summary = traffic.summary()
    until(lambda: healed(kube), "all is healed", HEALING_SECONDS)

    said = decisions(began, time.time())
    acts = [each for each in said if each["outcome"] == "applied" and each["action"] != "hold"]
    print(f"kills {dict(monkey.kills)}\nacts {Counter(each['action'] for each in acts)}\nclients {summary}")
    for each in acts:
        print(f"{each['time'] - began:6.1f} s  {each['action']}: {each['reason']}")
    assert not [each for each in acts if each["action"] in ("rollback", "promote", "shift_traffic")]
    assert {each["target"] for each in acts if each["action"] == "quarantine"} <= monkey.victims
    assert max(Counter(each["id"] for each in acts).values(), default=0) <= 1
    assert summary["errors"] <= max(0.001 * summary["sent"], LOST_WITH_A_GATEWAY * monkey.kills["gateway"])
