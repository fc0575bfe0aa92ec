"""A publisher that is killed at any moment leaves a whole version or none."""

import random
import signal
import subprocess
import sys
import time

import pytest

from serving_stack.repository import Origin, publish_files, verify, versions
from serving_stack.repository_gc import collect

pytestmark = pytest.mark.integration

PUBLISH = """
import sys
from pathlib import Path
from serving_stack.repository import Origin, publish_files
files = {f"part{i}.txt": bytes([97 + i]) * 2_000_000 for i in range(6)}
print("ready", flush=True)
sys.stdin.readline()
publish_files(Path(sys.argv[1]), "intent", None, files | {"who.txt": sys.argv[2].encode()}, origin=Origin())
print("done", flush=True)
"""


def publisher(store, who):
    process = subprocess.Popen(
        [sys.executable, "-c", PUBLISH, str(store), str(who)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    return process


def test_kill_9_at_any_moment_leaves_a_whole_version_or_none(tmp_path):
    store, chance, midway = tmp_path / "store", random.Random(7), 0
    for round_ in range(10):
        process = publisher(store, round_)
        process.stdin.write("go\n")
        process.stdin.flush()
        half = None
        while process.poll() is None and half is None:  # until it has begun
            half = next((f for f in (store / "intent").glob(".next-*")), None) if (store / "intent").is_dir() else None
        time.sleep(chance.random() * 0.02)
        process.send_signal(signal.SIGKILL)
        said = process.communicate()[0]
        midway += any((store / "intent").glob(".next-*"))
        for version in versions(store, "intent"):
            verify(store, "intent", version)
        if "done" in said:
            assert any((store / "intent" / str(v) / "who.txt").read_text() == str(round_) for v in versions(store, "intent"))
        collect(store, None, dry_run=False)
        assert not any((store / "intent").glob(".*")), "what was left half made is gone"
    assert midway, "no kill hit a publication: the test showed nothing"
    assert publish_files(store, "intent", None, {"a.txt": b"a"}, origin=Origin()).is_dir()


def test_gc_does_not_take_away_what_a_living_process_is_making(tmp_path):
    store = tmp_path / "store"
    publishers = [publisher(store, n) for n in range(3)]
    for process in publishers:
        process.stdin.write("go\n")
        process.stdin.flush()
    while any(process.poll() is None for process in publishers):
        collect(store, None, dry_run=False)
        time.sleep(0.005)
    assert [p.communicate()[0] for p in publishers] == ["done\n"] * 3
    assert versions(store, "intent") == [1, 2, 3]
    for version in (1, 2, 3):
        verify(store, "intent", version)
