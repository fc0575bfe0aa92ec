"""Makes ``dcgm-a100.csv.gz`` from the GWDG data set: ``python -m collectors.recordings.extract FOLDER`` (see SOURCE.txt)."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import sys
from datetime import datetime, timedelta
from pathlib import Path

NODE_A = "ggpu149_2025-06-12_gpus-dropped-off-bus_tidy.csv.bz2"
NODE_B = "ggpu142_2025-03-21_gpus-fell-off-bus_tidy.csv.bz2"

# kind, file, GPU, first sample, how many samples of ten minutes. The normal ones are the longest busy stretches of a GPU in which
# the power changes from each sample to the next and nothing is missing.
SEGMENTS = [
    ("normal", NODE_A, 0, "2025-06-07 20:10:00", 108),
    ("normal", NODE_A, 1, "2025-06-10 19:10:00", 126),
    ("normal", NODE_A, 2, "2025-06-09 16:00:00", 69),
    ("normal", NODE_A, 3, "2025-06-09 16:20:00", 112),
    ("normal", NODE_B, 0, "2025-03-20 13:10:00", 50),
    ("normal", NODE_B, 1, "2025-03-23 08:20:00", 54),
    ("normal", NODE_B, 2, "2025-03-20 04:30:00", 34),
    ("normal", NODE_B, 3, "2025-03-20 01:30:00", 74),
    ("xid79", NODE_B, 0, "2025-03-15 13:50:00", 24),
    ("xid79", NODE_B, 1, "2025-03-15 13:50:00", 24),
    ("xid79", NODE_B, 2, "2025-03-15 13:50:00", 24),
    ("xid79", NODE_B, 3, "2025-03-15 13:50:00", 24),
]
# A loop would make a counter fall back at each end, as a restarted driver does.
LEFT_OUT = "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"


def main(folder: Path) -> None:
    """Writes the file beside this module; the same input gives the same bytes."""
    rows: list[dict[str, str]] = []
    for kind, file, gpu, first, count in SEGMENTS:
        start = datetime.fromisoformat(first)
        times = {str(start + timedelta(minutes=10 * step)): {} for step in range(count)}  # type: dict[str, dict[str, str]]
        uuid = model = ""
        with bz2.open(folder / file, "rt", newline="") as source:
            for row in csv.DictReader(source):
                known = row["metric"].startswith("DCGM_FI_") and row["metric"] != LEFT_OUT
                if known and row["timeUtc"] in times and row["gpu"] and int(float(row["gpu"])) == gpu:
                    times[row["timeUtc"]][row["metric"]] = row["value"]
                    uuid, model = row["uuid"], row["modelName"]
        rows += [{"kind": kind, "uuid": uuid, "model": model, "time": time, **values} for time, values in times.items()]
    fields = ["kind", "uuid", "model", "time", *sorted({field for row in rows for field in row if field.startswith("DCGM_")})]
    text = io.StringIO()
    writer = csv.DictWriter(text, fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    data = gzip.compress(text.getvalue().encode(), mtime=0)
    Path(__file__).with_name("dcgm-a100.csv.gz").write_bytes(data)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
