"""A real Prometheus with our rules as a child process, and the few questions that tests and benchmarks ask it."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import yaml

from dashboards.rules.files import files

Series = dict[str, Any]


class Prometheus:
    """Scrapes `targets_file` as job trimtab-targets and `parts` (name -> address and path) as job trimtab, and runs our rules.

    Without a `targets_file` it only answers queries over the blocks in its folder `data`.
    """

    def __init__(self, folder: Path, port: int, targets_file: Path | None, parts: dict[str, tuple[str, str]]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files(samples=False).items():
            # The windows' group has an interval of its own, made for days.
            (folder / name).write_text(content.replace("interval: 1m", "interval: 2s"))
        sample = yaml.safe_load(files()["prometheus.yml"])
        targets, own = sample["scrape_configs"]
        own["static_configs"] = [
            {"targets": [address], "labels": {"part": part, "__metrics_path__": path}} for part, (address, path) in parts.items()
        ]
        targets["file_sd_configs"] = [{"files": [str(targets_file)], "refresh_interval": "1s"}]
        sample["global"] = {"scrape_interval": "1s", "evaluation_interval": "2s"}
        sample["scrape_configs"] = [targets, own] if targets_file else []
        if targets_file is None:
            del sample["rule_files"]
        del sample["alerting"]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(sample))
        self.url = f"http://127.0.0.1:{port}"
        self._folder = folder
        self._argv = ["prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data"]
        self._argv += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn", "--storage.tsdb.retention.time=15d"]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts and waits until it answers queries."""
        log = (self._folder / "log").open("wb")
        self._process = subprocess.Popen(self._argv, cwd=self._folder, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while True:
            try:
                if httpx.get(f"{self.url}/-/ready", timeout=2).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError((self._folder / "log").read_text())
            time.sleep(0.1)

    def stop(self) -> None:
        """SIGTERM: the data folder stays whole."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(30)

    def cpu_seconds(self) -> float:
        """Processor time of the process so far: unlike the time on the clock it does not depend on what else runs here."""
        assert self._process is not None
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def get(self, path: str, **params: str | float) -> Any:
        """The `data` of an answer of the API."""
        answer = httpx.post(f"{self.url}/api/v1/{path}", data=params, timeout=60) if "query" in params else None
        answer = answer or httpx.get(f"{self.url}/api/v1/{path}", params=params, timeout=60)
        body = answer.json()
        assert body["status"] == "success", body
        return body["data"]

    def range(self, expr: str, start: float, end: float, step: float = 1.0) -> list[Series]:
        """The series of a range query that have a number in them."""
        found = self.get("query_range", query=expr, start=start, end=end, step=step)["result"]
        return [series for series in found if _numbers([float(value) for _, value in series["values"]])]

    def now(self, expr: str) -> list[Series]:
        """The series of an instant query that have a number."""
        return [series for series in self.get("query", query=expr)["result"] if _numbers([float(series["value"][1])])]


def _numbers(values: Sequence[float]) -> bool:
    return any(math.isfinite(value) for value in values)
