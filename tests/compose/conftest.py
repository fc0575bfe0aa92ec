"""The whole of docker-compose.yml, up once for all tests of this folder, with ports and volumes of its own."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

ROOT = Path(__file__).parent.parent.parent
USUAL = {"GATEWAY": 8080, "KAFKA": 29092, "PROMETHEUS": 9090, "ALERTMANAGER": 9093, "GRAFANA": 3000, "WEBHOOK": 9095}
START_SECONDS = 900
"""A small machine that others use too takes its time; a healthy one needs one or two minutes."""
T = TypeVar("T")


@dataclass(frozen=True)
class System:
    """The running system: `url("PROMETHEUS")`, and `compose(...)` for anything else."""

    compose: Callable[..., str]
    ports: dict[str, int]
    services: list[str]

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.ports[name]}"

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an instant query."""
        answer = httpx.get(f"{self.url('PROMETHEUS')}/api/v1/query", params={"query": expression}, timeout=30)
        found: list[dict[str, Any]] = answer.json()["data"]["result"]
        return found

    def until(self, look: Callable[[], T], what: str, seconds: float) -> T:
        """See `until`."""
        return until(look, what, seconds)

    def received(self, path: str) -> list[dict[str, Any]]:
        """What the webhook receiver got on a path."""
        got = httpx.get(self.url("WEBHOOK"), timeout=30).json()
        return [each for each in got if each["path"] == path]


def until(look: Callable[[], T], what: str, seconds: float) -> T:
    """The first truthy answer of `look`; fails in words when it does not come."""
    end = time.monotonic() + seconds
    while True:
        try:
            if found := look():
                return found
        except httpx.HTTPError:
            pass
        if time.monotonic() > end:
            pytest.fail(f"{what}: not within {seconds:.0f} s")
        time.sleep(1)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture(scope="session")
def compose_command() -> list[str]:
    """What `COMPOSE` says, else `docker compose`; skipped where there is none or no daemon."""
    command = shlex.split(os.environ.get("COMPOSE", "docker compose"))
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed: no Docker, no compose test (COMPOSE names another command)")
    asked = subprocess.run([*command, "ls"], capture_output=True, text=True, cwd=ROOT)
    if asked.returncode:
        pytest.skip(f"no Docker daemon answers: {(asked.stderr or asked.stdout).strip().splitlines()[-1:]}")
    return command


@pytest.fixture(scope="session")
def system(compose_command: list[str]) -> Iterator[System]:
    """Everything up and healthy, except Grafana where its image cannot be had (TRIMTAB_COMPOSE_WITHOUT=grafana).

    TRIMTAB_COMPOSE_PROJECT names a project that runs already, on the usual ports; it is used and left as it is.
    """
    running = os.environ.get("TRIMTAB_COMPOSE_PROJECT")
    ports = USUAL if running else dict(zip(USUAL, _free_ports(len(USUAL)), strict=True))
    env = os.environ | {f"TRIMTAB_{name}_PORT": str(port) for name, port in ports.items()}

    def compose(*arguments: str, timeout: float = 120) -> str:
        done = subprocess.run(
            [*compose_command, "-p", running or "trimtab-test", *arguments],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=env,
            timeout=timeout,
        )
        if done.returncode:
            raise RuntimeError(f"compose {shlex.join(arguments)}: {done.stderr[-3000:]}")
        return done.stdout

    without = set(os.environ.get("TRIMTAB_COMPOSE_WITHOUT", "").split())
    services = sorted(set(compose("config", "--services").split()) - without)
    if running:
        yield System(compose, ports, services)
        return
    compose("down", "-v", "--timeout", "10")
    try:
        try:
            pull = "never" if without else "missing"
            compose("up", "-d", "--no-build", "--pull", pull, *services, timeout=START_SECONDS)
            wanted = set(services) - {"prepare"}
            until(lambda: healthy(compose) >= wanted, f"all of {sorted(wanted)} healthy", START_SECONDS)
        except BaseException:
            print(compose("ps", "-a"), compose("logs", "--tail", "25"))
            raise
        yield System(compose, ports, services)
    finally:
        compose("down", "-v", "--timeout", "20", timeout=300)


def healthy(compose: Callable[..., str]) -> set[str]:
    """The services whose health check says yes."""
    shown = [json.loads(line) for line in compose("ps", "--format", "json").splitlines()]
    return {each["Service"] for each in shown if each.get("Health") == "healthy"}
