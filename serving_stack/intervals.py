"""How sure a counted ratio is. Pure."""

from __future__ import annotations

import math


def wilson(right: int, total: int, z: float = 1.959964) -> tuple[float, float]:
    """The Wilson score interval of a ratio: (low, high), 0..1. Wilson, J. Am. Stat. Assoc. 22 (1927)."""
    if total <= 0 or not 0 <= right <= total:
        raise ValueError(f"{right} of {total} is no ratio")
    ratio = right / total
    middle = ratio + z * z / (2 * total)
    spread = z * math.sqrt(ratio * (1 - ratio) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)
