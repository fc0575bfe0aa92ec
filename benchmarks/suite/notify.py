"""From a finding on the bus to an accepted webhook: through the notifier, beside a loop that groups and keeps nothing.

A real broker, the real notifier with several receivers (one of them answers 500 all the time), receivers in this process. The
alternative reads the findings' topic and posts each at once: what grouping, durable queues and order cost on top of it.

Figures: `p50_seconds`, `p95_seconds`, `p99_seconds`, `worst_seconds` of the healthy receivers; `alternative_p95_seconds`;
`lost`, `repeated` (deliveries).
"""

from __future__ import annotations

import http.server
import json
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from benchmarks.frame import Cell, Options, Result
from dashboards.notify.service import Notifier
from dashboards.notify.settings import IncidentSettings, NotifySettings, Receiver
from embedded import broker
from trimtab.bus import Bus, BusSettings, connect
from trimtab.messages import FINDINGS, Finding

_GOOD, _EVERY_SECONDS = 3, 0.2


def run(options: Options) -> Result:
    """Sends findings at a steady pace, half of them resolutions; quick: 100 of them instead of 1000."""
    count = 100 if options.quick else 1000
    with tempfile.TemporaryDirectory(prefix="trimtab-notify-") as folder, _broker(Path(folder)) as bootstrap:
        bus = connect(BusSettings(bootstrap=bootstrap))
        bus.ensure_topics()
        options.say(f"{count} findings through the notifier, to {_GOOD} receivers and one that fails")
        ours, repeated = _through(bus, count, _notifier)
        options.say(f"{count} findings through a loop that posts each at once")
        plain, _ = _through(bus, count, _loop)
    rows: list[dict[str, Cell]] = []
    for name, found in (("notifier", ours), ("a plain loop", plain)):
        rows += [{"through": name, "receiver": receiver, **_row(times, count)} for receiver, times in found.items()]
    all_ = sorted(seconds for times in ours.values() for seconds in times.values())
    other = sorted(seconds for times in plain.values() for seconds in times.values())
    sent = sum(len(times) for times in ours.values())
    return Result(
        rows,
        {
            "p50_seconds": _share(all_, 0.5),
            "p95_seconds": _share(all_, 0.95),
            "p99_seconds": _share(all_, 0.99),
            "worst_seconds": all_[-1] if all_ else None,
            "alternative_p95_seconds": _share(other, 0.95),
            "lost": float(_GOOD * count - sent),
            "repeated": float(repeated),
        },
        ["time from just before the finding is sent to the moment the receiver has read the request"],
    )


Times = dict[str, float]


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, status: int) -> None:
        self.status = status
        self.arrived: Times = {}
        self.repeated = 0
        super().__init__(("127.0.0.1", 0), _Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["content-length"]))
        now = time.time()
        finding = json.loads(raw)["data"]["finding"]
        if finding is not None:
            key = f"{finding['id']}/{finding['state']}"
            self.server.repeated += key in self.server.arrived
            self.server.arrived.setdefault(key, now)
        self.send_response(self.server.status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def _through(
    bus: Bus, count: int, start: Callable[[Bus, list[_Server], threading.Event], threading.Thread]
) -> tuple[dict[str, Times], int]:
    """Seconds until each finding arrived, per healthy receiver; and how many arrived there again."""
    servers = [*(_Server(200) for _ in range(_GOOD)), _Server(500)]
    stop = threading.Event()
    thread = start(bus, servers, stop)
    producer = bus.producer()
    name = f"{start.__name__}-{time.time():.0f}"
    sent: Times = {}

    def send(number: int, state: str) -> None:
        now = time.time()
        sent[f"{name}-{number}/{state}"] = now
        producer.send(FINDINGS, _finding(f"{name}-{number}", number, now, state))
        producer.flush()

    # The first one finds everybody in place; it is not counted.
    send(-1, "firing")
    _wait(lambda: all(server.arrived for server in servers[:_GOOD]), 60)
    sent.clear()
    for number in range(count // 2):
        for state in ("firing", "resolved"):
            send(number, state)
            time.sleep(_EVERY_SECONDS if count <= 100 else _EVERY_SECONDS / 4)
    _wait(lambda: all(sent.keys() <= server.arrived.keys() for server in servers[:_GOOD]), 30)
    stop.set()
    thread.join(60)
    producer.close()
    for server in servers:
        server.shutdown()
        server.server_close()
    found = {
        f"webhook {number}": {key: server.arrived[key] - at for key, at in sent.items() if key in server.arrived}
        for number, server in enumerate(servers[:_GOOD], 1)
    }
    return found, sum(server.repeated for server in servers[:_GOOD])


def _notifier(bus: Bus, servers: list[_Server], stop: threading.Event) -> threading.Thread:
    receivers = [
        Receiver(name=f"r{n}-{server.server_port}", format="cloudevents", url=server.url, max_per_minute=100_000)
        for n, server in enumerate(servers)
    ]
    notifier = Notifier(bus, IncidentSettings(reopen_seconds=0), NotifySettings(receivers=receivers), stop)
    thread = threading.Thread(target=notifier.run)
    thread.start()
    return thread


def _loop(bus: Bus, servers: list[_Server], stop: threading.Event) -> threading.Thread:
    """What one would write first: no group, no retries; without the receiver that fails, which would hold up the rest."""

    def work() -> None:
        consumer = bus.consumer([FINDINGS], group=None, start="latest")
        with httpx.Client(trust_env=False) as client:
            while not stop.is_set():
                for record in consumer.poll(0.5):
                    finding = record.message
                    assert isinstance(finding, Finding)
                    for server in servers[:_GOOD]:
                        client.post(server.url, json={"data": {"finding": {"id": finding.id, "state": finding.state}}})
        consumer.close()

    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(3)  # it reads from now on, so it must be there first
    return thread


def _finding(id: str, number: int, now: float, state: str) -> Finding:
    return Finding(
        id=id, fleet="bench", target=f"replica-{number}", kind="replica_fault", severity="critical", onset=now, time=now,
        state="firing" if state == "firing" else "resolved", confidence=1.0, summary="a replica that hangs",
    )  # fmt: skip


def _row(times: Times, count: int) -> dict[str, Cell]:
    known = sorted(times.values())
    shares = {f"p{int(q * 100)}_ms": _milliseconds(_share(known, q)) for q in (0.5, 0.95, 0.99)}
    return {"findings": count, "arrived": len(known), **shares, "worst_ms": _milliseconds(known[-1] if known else None)}


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000


def _share(known: list[float], share: float) -> float | None:
    return known[min(len(known) - 1, int(share * len(known)))] if known else None


def _wait(true: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.05)


@contextmanager
def _broker(folder: Path) -> Iterator[str]:
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        port, controller = one.getsockname()[1], two.getsockname()[1]
    broker.format_storage(folder, port, controller)
    argv, env = broker.broker_process(folder, port, controller)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(argv, env=env, stdout=log, stderr=log)
    try:
        broker.wait_ready(f"127.0.0.1:{port}", timeout=60)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)
