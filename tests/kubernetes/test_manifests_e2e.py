"""The overlays, as kubectl renders them and as the API server takes them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.e2e

OVERLAYS = Path(__file__).parents[2] / "deploy/kubernetes/overlays"
MAY_BE_ROOT = {("trimtab-try-volumes", "volumes")}
"""The job that hands folders of the node over; nothing of it is in production."""

Json = dict[str, Any]


def kubectl(*arguments: str, given: str | None = None) -> str:
    if shutil.which("kubectl") is None:
        pytest.skip("needs kubectl")
    done = subprocess.run(["kubectl", *arguments], input=given, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def rendered(overlay: str) -> list[Json]:
    return list(yaml.safe_load_all(kubectl("kustomize", str(OVERLAYS / overlay))))


def pods(things: list[Json]) -> list[tuple[tuple[str, str], Json]]:
    """((namespace, name), pod spec) of whatever makes pods."""
    found = [
        ((thing["metadata"]["namespace"], thing["metadata"]["name"]), thing["spec"]["template"]["spec"])
        for thing in things
        if thing["kind"] in ("Deployment", "Job")
    ]
    assert found
    return found


@pytest.mark.parametrize("overlay", ["try", "production"])
def test_every_pod_is_restricted_bounded_and_read_only(overlay: str) -> None:
    for where, spec in pods(rendered(overlay)):
        if where in MAY_BE_ROOT:
            assert overlay == "try"
            continue
        assert spec["securityContext"]["runAsNonRoot"], where
        assert spec["securityContext"]["runAsUser"] == 10001, where
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, where
        for container in spec["containers"]:
            context = container["securityContext"]
            assert not context["allowPrivilegeEscalation"], where
            assert context["readOnlyRootFilesystem"], where
            assert context["capabilities"] == {"drop": ["ALL"]}, where
            assert container["resources"]["limits"]["memory"], where
            assert container["resources"]["requests"]["cpu"], where
        assert not any("hostPath" in volume for volume in spec["volumes"]), where


@pytest.mark.parametrize("overlay", ["try", "production"])
def test_only_who_asks_the_api_server_gets_a_token(overlay: str) -> None:
    named = {where[1]: spec["automountServiceAccountToken"] for where, spec in pods(rendered(overlay))}
    assert {name for name, token in named.items() if token} == {"trimtab-collector", "trimtab-operator"}


@pytest.mark.parametrize("overlay", ["try", "production"])
def test_the_api_server_takes_every_object(overlay: str, kube: Any) -> None:
    things = [each for each in rendered(overlay) if each["kind"] != "CustomResourceDefinition"]
    for each in things:  # beside whatever is installed already
        each["metadata"]["name"] += "-dry"
        if "namespace" in each["metadata"]:
            each["metadata"]["namespace"] = "default"
    said = kubectl("create", "--dry-run=server", "-f", "-", given=yaml.safe_dump_all(things))
    assert len(said.splitlines()) == len(things)


def test_production_says_where_its_images_are() -> None:
    for where, spec in pods(rendered("production")):
        for container in spec["containers"]:
            assert container["image"].startswith("registry.example.com/"), where
    settings = next(
        each for each in rendered("production") if each["kind"] == "ConfigMap" and "settings" in each["metadata"]["name"]
    )
    for name in ("TRIMTAB_OPERATOR_SERVING_IMAGE", "TRIMTAB_OPERATOR_CORE_IMAGE"):
        assert settings["data"][name].startswith("registry.example.com/")
