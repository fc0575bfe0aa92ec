"""How a replica uses its machine: the settings section `serving`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import Field

from trimtab.settings import Section

MOST_INSTANCES = 8


class ServingSettings(Section, name="serving"):
    """A Triton replica: how many processes and threads compute, how requests share batches, and whether feedback is taken."""

    instances: int = Field(
        1,
        ge=0,
        le=64,
        description="Processes of the model in one replica. 0: one for each core that the replica may use. They bring more than "
        "threads do, and each holds the model in memory; replicas that share cores want 1.",
    )
    threads: int = Field(1, ge=1, le=64, description="Threads that compute one batch, in each instance.")
    batching: bool = Field(True, description="Whether requests that arrive together share a batch.")
    max_batch: int = Field(32, ge=1, le=256, description="Texts in a batch at the most, also in one request.")
    queue_delay_microseconds: int = Field(
        2000,
        ge=0,
        le=1_000_000,
        description="How long a request may wait for others to share its batch: about a tenth of what a full batch takes.",
    )
    device: Literal["cpu", "cuda", "tensorrt"] = Field(
        "cpu", description="Where the network runs; a GPU needs onnxruntime-gpu, as NVIDIA's image can have it."
    )
    feedback: bool = Field(
        False,
        description="Whether the replica has the model `<model>_feedback`, which takes labels that become known later (18 MB).",
    )


def instances(settings: ServingSettings) -> int:
    """How many instances: those that were asked for, or one for each usable core (a GPU: one)."""
    if settings.instances:
        return settings.instances
    if settings.device != "cpu":
        return 1
    return max(1, min(MOST_INSTANCES, int(usable_cores()) // settings.threads))


def usable_cores(control_group: Path = Path("/sys/fs/cgroup/cpu.max")) -> float:
    """Cores that this process may use: its affinity, or less where a container's quota says so."""
    cores = float(len(os.sched_getaffinity(0)))
    try:
        quota, period = control_group.read_text().split()
        return min(cores, float(quota) / float(period)) if quota != "max" else cores
    except (OSError, ValueError):
        return cores
