"""What docker-compose.yml promises, read from the file: no Docker needed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
OTHERS = {"kafka", "prometheus", "alertmanager", "grafana"}
"""Images of others: they run as a user of their own."""


@pytest.mark.parametrize("name", SERVICES)
class TestEveryService:
    def test_its_image_is_pinned(self, name: str) -> None:
        tag = SERVICES[name]["image"].rpartition(":")[2]
        assert tag == "-dev}" or re.match(r"v?\d+\.\d+\.\d+$", tag)

    def test_it_has_limits(self, name: str) -> None:
        assert {"mem_limit"} <= SERVICES[name].keys()
        assert name == "prepare" or {"cpus", "pids_limit"} <= SERVICES[name].keys()

    def test_it_has_no_capability_and_gains_none(self, name: str) -> None:
        service = SERVICES[name]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert name == "prepare" or "cap_add" not in service
        assert "privileged" not in service

    def test_it_writes_only_to_volumes(self, name: str) -> None:
        assert name == "kafka" or SERVICES[name]["read_only"] is True  # Kafka's image writes its configuration at start

    def test_it_is_no_root(self, name: str) -> None:
        if name not in OTHERS and name != "prepare":
            assert SERVICES[name]["user"] == "10001:10001"

    def test_it_is_published_on_loopback_only(self, name: str) -> None:
        assert all(str(port).startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))

    def test_its_health_is_looked_at(self, name: str) -> None:
        assert name == "prepare" or "healthcheck" in SERVICES[name]

    def test_what_is_mounted_from_here_is_there(self, name: str) -> None:
        for mount in SERVICES[name].get("volumes", []):
            if isinstance(mount, dict) and mount["type"] == "bind":
                assert (ROOT / mount["source"]).exists()
                assert mount["read_only"] is True


def test_no_secret_is_in_the_files() -> None:
    for path in [ROOT / "docker-compose.yml", *(ROOT / "deploy" / "compose").rglob("*")]:
        if path.is_file():
            assert not re.search(r"whsec_[A-Za-z0-9+/]{8}|(?i:password|token|secret):\s*\S*[A-Za-z0-9]{12}", path.read_text()), (
                path
            )


def _arguments(service: dict[str, Any]) -> list[str]:
    """The `trimtab` command line of a service; empty when it runs something else."""
    begins = "trimtab-container" if service["image"].startswith("trimtab-serving") else "trimtab"
    whole = [*service.get("entrypoint", ["tini", "--", begins]), *service.get("command", [])]
    whole = [re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", word) for word in whole]
    ours = service["image"].startswith("trimtab-") and "trimtab" in whole
    return whole[whole.index("trimtab") + 1 :] if ours else []


@pytest.mark.parametrize("name", [name for name, service in SERVICES.items() if _arguments(service)])
def test_the_command_line_is_one_that_the_command_takes(name: str) -> None:
    import typer

    from trimtab.cli import app

    first, *rest = _arguments(SERVICES[name])
    command: Any = typer.main.get_command(app).get_command(None, first)  # type: ignore[attr-defined]
    if rest[0] in getattr(command, "commands", ()):
        command, rest = command.commands[rest[0]], rest[1:]
    command.make_context(first, rest)  # raises for an option that does not exist or is missing
