"""The Helm chart: in step with the kustomize base, and with its defaults the same objects."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

FOLDER = Path(__file__).parents[2] / "deploy/helm"
Json = dict[str, Any]


def load() -> Any:
    spec = importlib.util.spec_from_file_location("trimtab_helm_build", FOLDER / "build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


build = load()


@pytest.fixture(scope="module")
def base() -> list[Json]:
    if shutil.which("kubectl") is None:
        pytest.skip("needs kubectl, which renders the base")
    found: list[Json] = build.rendered_base()
    return found


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("helm") is None:
        pytest.skip("needs helm")
    return subprocess.run(["helm", *arguments], capture_output=True, text=True, timeout=60)


def template(*arguments: str) -> list[Json]:
    place = ("--namespace", "trimtab", "--kube-version", "1.33.0")
    done = helm("template", "trimtab", str(FOLDER / "trimtab"), *place, *arguments)
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]


def plain(thing: Any, key: str = "") -> Any:
    """Without what only one of the two has: hashes in names, checksums, and the tag that an overlay gives to images."""
    if isinstance(thing, dict):
        found = {each: plain(value, each) for each, value in thing.items() if not each.startswith("checksum/")}
        return {each: value for each, value in found.items() if not (each == "annotations" and not value)}
    if isinstance(thing, list):
        return [plain(each, key) for each in thing]
    if key == "image":
        return str(thing).removesuffix(":dev")
    return build.plain_name(thing) if key == "name" and isinstance(thing, str) else thing


def by_name(things: list[Json]) -> dict[tuple[str, str], Json]:
    found = {(each["kind"], each["metadata"]["name"]): each for each in map(plain, things)}
    assert len(found) == len(things)
    return found


def test_the_chart_is_what_the_base_gives(base: list[Json]) -> None:
    wanted = build.files(base)
    chart = FOLDER / "trimtab"
    there = {str(file.relative_to(chart)): file.read_text() for file in chart.rglob("*") if file.is_file()}
    assert there == wanted, "say: python deploy/helm/build.py"


def test_the_defaults_give_the_bases_objects(base: list[Json]) -> None:
    wanted = by_name([each for each in base if each["kind"] != "Namespace"])  # Helm makes that: --create-namespace
    assert by_name(template()) == wanted


def test_the_crd_comes_along(base: list[Json]) -> None:
    (found,) = (each for each in template("--include-crds") if each["kind"] == "CustomResourceDefinition")
    assert found == yaml.safe_load((build.BASE / "crd/modelfleet.yaml").read_text())


def test_values_reach_their_places() -> None:
    given = {
        "images.core": "r.example.com/core:v9",
        "images.detect": "r.example.com/detect:v9",
        "images.serving": "r.example.com/serving:v9",
        "kafka.bootstrap": "k:9092",
        "kafka.replication": "3",
        "checkpoints.storageClass": "files",
        "checkpoints.size": "7Gi",
        "operator.replicas": "3",
        "taskmanager.replicas": "2",
        "taskmanager.resources.limits.memory": "9Gi",
        "settings.TRIMTAB_AUTOSCALE_TARGET_UTILISATION": "0.5",
    }
    found = by_name(template("--namespace", "elsewhere", *(f"--set={key}={value}" for key, value in given.items())))
    settings = found["ConfigMap", "trimtab-settings"]["data"]
    assert settings["TRIMTAB_KAFKA_BOOTSTRAP"] == "k:9092" and settings["TRIMTAB_KAFKA_REPLICATION"] == "3"
    assert settings["TRIMTAB_OPERATOR_SERVING_IMAGE"] == "r.example.com/serving:v9"
    assert settings["TRIMTAB_OPERATOR_CORE_IMAGE"] == "r.example.com/core:v9"
    assert settings["TRIMTAB_AUTOSCALE_TARGET_UTILISATION"] == "0.5"
    claim = found["PersistentVolumeClaim", "trimtab-checkpoints"]["spec"]
    assert claim["storageClassName"] == "files" and claim["resources"]["requests"]["storage"] == "7Gi"
    deployments = {name: each["spec"] for (kind, name), each in found.items() if kind == "Deployment"}
    assert deployments["trimtab-operator"]["replicas"] == 3 and deployments["trimtab-taskmanager"]["replicas"] == 2
    worker = deployments["trimtab-taskmanager"]["template"]["spec"]["containers"][0]
    assert worker["resources"] == {"limits": {"memory": "9Gi"}, "requests": {"cpu": "200m", "memory": "1Gi"}}
    images = {c["image"] for each in deployments.values() for c in each["template"]["spec"]["containers"]}
    assert images == {"r.example.com/core:v9", "r.example.com/detect:v9"}
    assert {each["metadata"].get("namespace", "elsewhere") for each in found.values()} == {"elsewhere"}
    subjects = [s["namespace"] for (kind, _), each in found.items() if kind.endswith("Binding") for s in each["subjects"]]
    assert set(subjects) == {"elsewhere"}


def test_pods_are_made_anew_when_their_settings_change() -> None:
    def checksums(*arguments: str) -> dict[str, str]:
        made = [each for each in template(*arguments) if each["kind"] == "Deployment"]
        return {
            each["metadata"]["name"]: each["spec"]["template"]["metadata"]["annotations"]["checksum/settings"] for each in made
        }

    before, after = checksums(), checksums("--set=kafka.bootstrap=k:1")
    assert len(before) == 4 and all(after[name] != before[name] for name in before)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("kafka.boostrap=k:1", "boostrap"),
        ("kafka.bootstrap=", "bootstrap"),
        ("operator.replicas=0", "replicas"),
        ("settings.PATH=x", "PATH"),
    ],
)
def test_values_that_cannot_be_meant_are_refused(given: str, words: str) -> None:
    done = helm("template", "trimtab", str(FOLDER / "trimtab"), "--kube-version", "1.33.0", "--set", given)
    assert done.returncode != 0 and words in done.stderr


def test_helm_finds_nothing_wrong() -> None:
    done = helm("lint", "--strict", str(FOLDER / "trimtab"))
    assert done.returncode == 0, done.stdout + done.stderr
