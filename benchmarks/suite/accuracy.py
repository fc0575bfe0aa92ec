"""The served model's accuracy on BANKING77's test split: int8 as it is served, beside float32, for each shipped adapter.

Figures: `int8_accuracy` and `float32_accuracy` of the newest adapter (ratios), `int8_loss_points` (percentage points).
"""

from __future__ import annotations

from benchmarks.frame import Cell, Options, Result
from serving_stack.accuracy import measure
from serving_stack.export import default_cache, ensure_exported, shipped


def run(options: Options) -> Result:
    """Measures each shipped adapter; quick: only the newest."""
    rows: list[dict[str, Cell]] = []
    figures: dict[str, float | None] = {}
    for adapter in shipped()[-1:] if options.quick else shipped():
        options.say(f"adapter {adapter}: exporting if needed, then asking 3,080 questions twice")
        float32, int8 = measure(ensure_exported(adapter, default_cache()))
        for weights, found in (("float32", float32), ("int8", int8)):
            rows.append(
                {
                    "adapter": adapter,
                    "weights": weights,
                    "right": f"{found.right}/{found.total}",
                    "accuracy": found.accuracy,
                    "low": found.low,
                    "high": found.high,
                    "megabytes": found.bytes / 1e6,
                    "questions_per_second": found.total / found.seconds,
                }
            )
        figures = {
            "int8_accuracy": int8.accuracy,
            "float32_accuracy": float32.accuracy,
            "int8_loss_points": 100 * (float32.accuracy - int8.accuracy),
        }
    return Result(rows, figures, ["95 % intervals by Wilson; the test split is used for nothing else"])
