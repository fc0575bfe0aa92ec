"""Cold start: from `trimtab models add` to the first good answer."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import httpx

from benchmarks.serve.stage import MODEL, VERSION, Kind, started
from trimtab.errors import Unavailable


def measure(adapter: int, folder: Path, body: bytes) -> tuple[float, float]:
    """Seconds of `models add` (the adapter was exported before), and from the start of the replica to its first good answer."""
    store = folder / "cold"
    begin = time.perf_counter()
    argv = [sys.executable, "-m", "trimtab", "models", "add", "--adapter", str(adapter), "--store", str(store)]
    done = subprocess.run([*argv, "--version", str(VERSION)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Unavailable(f"models add failed: {done.stderr.strip()[-300:]}")
    added = time.perf_counter() - begin
    begin = time.perf_counter()
    with started(Kind("cold", "int8"), store, adapter) as running:
        answer = httpx.post(f"{running.gateway}/v2/models/{MODEL}/infer", content=body, trust_env=False, timeout=30)
        answer.raise_for_status()
        return added, time.perf_counter() - begin
