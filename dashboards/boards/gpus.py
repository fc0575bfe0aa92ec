"""Replicas and GPUs: utilisation, saturation and errors of each."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from dashboards.boards.kind import PREFIX, Board
from dashboards.panels import GOOD_AT_ZERO, Section, heat, rows
from dashboards.panels import lines as plain_lines

# One series per replica or GPU, in every panel.
lines = partial(plain_lines, many=True)


def sections() -> Sequence[Section]:
    """Spread over replicas first, then each replica, then each GPU."""
    return [
        (
            "Over all replicas",
            [
                heat(
                    "Inference time",
                    "Mean per request: a second band is a sick replica or version.",
                    "s",
                    "replica_infer_seconds",
                ),
                heat("Time in the queue", "Mean per request.", "s", "replica_queue_seconds"),
                heat(
                    "GPU utilisation", "Bad for scaling, good for seeing which card does not work.", "percent", "gpu_utilisation"
                ),
                heat("GPU temperature", "Cores.", "celsius", "gpu_temperature"),
            ],
        ),
        (
            "Each replica",
            [
                lines("Requests", "Answered.", "reqps", "replica_requests", span=8),
                lines("Busy", "Seconds of inference per second: utilisation.", "percentunit", "replica_busy", span=8),
                lines("Pending", "Requests that wait in Triton: saturation.", "short", "replica_pending", span=8),
                lines("Failures", "Failed inside Triton: errors.", "reqps", "replica_failures", span=8),
                lines("Memory", "Resident memory of the model's process; a slope is a leak.", "bytes", "replica_memory", span=8),
                lines("Confidence", "Mean confidence of the answers.", "none", "replica_confidence", most=1, span=8),
                lines("Scraped", "1 while Prometheus can scrape the replica.", "none", "replica_up", most=1, span=24, height=5),
            ],
        ),
        (
            "Each GPU: utilisation and saturation",
            [
                lines("Utilisation", "As DCGM says.", "percent", "gpu_utilisation", most=100, span=8),
                lines("Memory used", "Share of the frame buffer.", "percentunit", "gpu_memory_used", most=1, span=8),
                lines("Power", "Watts.", "watt", "gpu_power", span=8),
                lines("Temperature", "Cores.", "celsius", "gpu_temperature", span=8),
                lines("Memory temperature", "HBM.", "celsius", "gpu_memory_temperature", span=8),
                lines(
                    "Clock of the fastest of its model",
                    "Below 1 under load the card is throttled; DCGM's default counters hold no throttle reasons.",
                    "percentunit",
                    "gpu_throttle",
                    most=1,
                    span=8,
                ),
            ],
        ),
        (
            "Each GPU: errors",
            [
                rows(
                    "Last XID",
                    "The last error code; DCGM never clears it. 0 is none; 48, 63, 64, 79, 94 and 95 are hardware.",
                    "none",
                    "gpu_xid",
                    colours=GOOD_AT_ZERO,
                    span=8,
                ),
                lines("New XIDs", "Changes of the last XID within 10 minutes.", "short", "gpu_xid_changes", span=8),
                lines("GPUs with frozen telemetry", "Power has not changed at all in 5 minutes.", "short", "gpu_frozen", span=8),
                lines(
                    "Remapped rows, uncorrectable",
                    "ECC: rows replaced after an uncorrectable error.",
                    "short",
                    "gpu_rows_uncorrectable",
                    span=6,
                ),
                lines(
                    "Remapped rows, correctable",
                    "ECC: rows replaced after correctable errors.",
                    "short",
                    "gpu_rows_correctable",
                    span=6,
                ),
                lines(
                    "Remapping failed", "ECC: 1 when no spare row is left; replace the card.", "short", "gpu_remap_failed", span=6
                ),
                lines("PCIe replays", "In 10 minutes; a steady rate is a bad link.", "short", "gpu_pcie_replays", span=6),
            ],
        ),
    ]


BOARD = Board(
    f"{PREFIX}gpus", "Trimtab / Replicas and GPUs", "Utilisation, saturation and errors of replicas and GPUs.", sections
)
