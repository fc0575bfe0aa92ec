from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys; from pathlib import Path
from opentelemetry import trace
from trimtab import tracing
tracing.setup("test", Path(sys.argv[1]))
with tracing.span("scrape", target="a"):
    carried = tracing.headers()
assert tracing.headers() == {}
with tracing.span("act", carried | {"other": b"\\xff"}):
    pass
trace.get_tracer_provider().shutdown()
"""


def test_a_trace_goes_on_through_headers(tmp_path: Path) -> None:
    # A process of its own: OpenTelemetry's provider can be set only once.
    subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path / "spans.jsonl")], check=True)
    scrape, act = (json.loads(line) for line in (tmp_path / "spans.jsonl").read_text().splitlines())
    assert scrape["trace"] == act["trace"]
    assert act["parent"] == scrape["span"]
    assert scrape["attributes"] == {"target": "a"}
    assert scrape["service"] == "test"
