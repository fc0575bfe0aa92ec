"""The Flink job's health as metrics, so that an alert can wait for it: running, last heartbeat, newest checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from detectors import checkpoints


class HealthMetrics(Collector):
    """Made afresh at each scrape. What has not happened yet has no sample: a missing checkpoint is not one of 1970."""

    def __init__(self, state: Callable[[], str], heartbeat: Path, folder: Path) -> None:
        self._state, self._heartbeat, self._folder = state, heartbeat, folder

    def collect(self) -> Iterator[Metric]:
        """The three families."""
        running = GaugeMetricFamily("trimtab_detect_job_running", "1 while Flink says that the job runs.")
        running.add_metric([], self._state() == "RUNNING")
        yield running
        beat = GaugeMetricFamily("trimtab_detect_heartbeat_timestamp_seconds", "When a tick last came through the whole job.")
        at = GaugeMetricFamily("trimtab_detect_checkpoint_timestamp_seconds", "When the newest completed checkpoint was written.")
        for family, when in ((beat, self._beat()), (at, self._checkpoint())):
            if when is not None:
                family.add_metric([], when)
            yield family

    def _beat(self) -> float | None:
        try:
            return float(self._heartbeat.read_text().split()[0])
        except (OSError, ValueError, IndexError):
            return None

    def _checkpoint(self) -> float | None:
        try:
            newest = next(iter(checkpoints.completed(self._folder)), None)
            return (newest / "_metadata").stat().st_mtime if newest else None
        except OSError:  # Flink removes old ones while we look
            return None
