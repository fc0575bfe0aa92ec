"""The whole notifier on a bus in memory, with real HTTP receivers: slow, down, failing, redirecting."""

from __future__ import annotations

import json
import logging
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dashboards.notify import redeliver, signing
from dashboards.notify.delivery import Sender
from dashboards.notify.service import Notifier
from dashboards.notify.settings import IncidentSettings, NotifySettings, Receiver
from trimtab.memory_bus import MemoryBus
from trimtab.messages import DECISIONS, FINDINGS, NOTIFY_DEAD, NOTIFY_SENT, Delivery, Message

pytestmark = pytest.mark.integration

Make = Callable[..., Any]
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def receiver(name: str, url: str, **fields: Any) -> Receiver:
    quick = {"format": "cloudevents", "retry_first_seconds": 0.01, "retry_limit_seconds": 0.05, "timeout_seconds": 2.0}
    return Receiver(name=name, url=url, **(quick | fields))


class Running:
    """A notifier in a thread, on a bus that survives it."""

    def __init__(self, bus: MemoryBus, receivers: list[Receiver], incidents: IncidentSettings) -> None:
        self.stop = threading.Event()
        self.notifier = Notifier(bus, incidents, NotifySettings(receivers=receivers), self.stop)
        self.thread = threading.Thread(target=self.notifier.run)
        self.thread.start()

    def end(self) -> None:
        self.stop.set()
        self.thread.join(20)
        assert not self.thread.is_alive()


@pytest.fixture
def bus() -> MemoryBus:
    made = MemoryBus()
    made.ensure_topics()
    return made


@pytest.fixture
def notify(bus: MemoryBus) -> Iterator[Callable[..., Running]]:
    made: list[Running] = []

    def start(*receivers: Receiver, **incidents: Any) -> Running:
        made.append(Running(bus, list(receivers), IncidentSettings(**incidents)))
        return made[-1]

    yield start
    for each in made:
        each.end()


def say(bus: MemoryBus, topic: str, *messages: Message) -> None:
    producer = bus.producer()
    for message in messages:
        producer.send(topic, message)


def logged(bus: MemoryBus, topic: str) -> list[Delivery]:
    return [record.message for record in bus.read_all([topic]) if isinstance(record.message, Delivery)]


def types(hook: Any) -> list[str]:
    return [each.body["type"].rpartition(".")[2] for each in hook.accepted]


def test_an_incident_is_one_signed_thread_at_every_receiver(
    bus: MemoryBus, notify: Make, hook: Make, finding: Make, decision: Make, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text(SECRET + "\n")
    one, two = hook(), hook()
    notify(receiver("one", one.url, secret_file=tmp_path / "secret"), receiver("two", two.url))
    now = time.time()
    say(bus, FINDINGS, finding("f", now), finding("f", now + 0.1))
    one.wait(1)
    say(bus, DECISIONS, decision("d", now + 0.2, because=["f"]))
    one.wait(2)
    say(bus, FINDINGS, finding("f", now + 0.3, state="resolved"))
    for each in (one, two):
        each.wait(3)
        assert types(each) == ["finding", "act", "resolved"]
        assert len({request.body["subject"] for request in each.accepted}) == 1
    for request in one.accepted:
        headers = request.headers
        assert headers["webhook-id"] == headers["idempotency-key"] == request.body["id"]
        key = signing.key_of(SECRET)
        assert signing.verify(
            key, headers["webhook-id"], headers["webhook-timestamp"], request.raw, headers["webhook-signature"], time.time()
        )
    assert "webhook-signature" not in two.accepted[0].headers


def test_a_receiver_that_is_slow_down_or_failing_holds_up_nobody_else(
    bus: MemoryBus, notify: Make, hook: Make, finding: Make
) -> None:
    good, slow, failing, down = hook(), hook(delay=1.0), hook(status=500), hook()
    down.stop()
    notify(*(receiver(n, h.url) for n, h in (("down", down), ("failing", failing), ("slow", slow), ("good", good))))
    now = time.time()
    say(bus, FINDINGS, *(finding(f"f{n}", now, version=n) for n in range(20)))
    good.wait(20)
    assert len(slow.accepted) < 20
    assert not failing.accepted
    # Those that come back get all of it, in order.
    failing.status = 200
    down.start()
    for each in (failing, down):
        each.wait(20)
        assert [request.body["data"]["finding"]["version"] for request in each.accepted] == list(range(20))


def test_retries_carry_the_same_id_and_a_new_signature_time(bus: MemoryBus, notify: Make, hook: Make, finding: Make) -> None:
    there = hook(answers=[500, 503, 404, 429, 408])
    notify(receiver("ops", there.url))
    say(bus, FINDINGS, finding("f", time.time()))
    there.wait(1)
    assert len(there.received) == 6
    assert len({each.headers["webhook-id"] for each in there.received}) == 1
    assert len({each.raw for each in there.received}) == 1


def test_retry_after_is_respected(bus: MemoryBus, notify: Make, hook: Make, finding: Make) -> None:
    there = hook(answers=[429], headers={"retry-after": "1"})
    notify(receiver("ops", there.url))
    say(bus, FINDINGS, finding("f", time.time()))
    there.wait(1)
    assert there.received[1].at - there.received[0].at >= 0.99


def test_a_redirect_is_a_dead_letter_with_words_and_is_not_followed(
    bus: MemoryBus, notify: Make, hook: Make, finding: Make
) -> None:
    elsewhere = hook()
    there = hook(status=307, headers={"location": f"{elsewhere.url}?token=hush"})
    notify(receiver("ops", there.url))
    say(bus, FINDINGS, finding("f", time.time()))
    _until(lambda: logged(bus, NOTIFY_DEAD))
    (letter,) = logged(bus, NOTIFY_DEAD)
    assert letter.reason == "answered 307, a redirect to http://127.0.0.1: not followed; set the url to where it should go"
    assert (letter.attempts, elsewhere.received) == (1, [])


def test_what_cannot_be_delivered_becomes_a_dead_letter_and_the_next_is_tried(
    bus: MemoryBus, notify: Make, hook: Make, finding: Make
) -> None:
    there = hook(answers=[422])
    notify(receiver("ops", there.url))
    say(bus, FINDINGS, finding("f1", time.time(), version=1), finding("f2", time.time(), version=2))
    there.wait(1)
    assert [letter.reason for letter in logged(bus, NOTIFY_DEAD)] == ["answered 422 Unprocessable Entity"]
    # ... and is delivered when it is asked for, once, under its old id.
    history = redeliver.recorded(bus)
    letters = redeliver.undelivered(history)
    receivers = {"ops": receiver("ops", there.url)}
    results = list(redeliver.redeliver(bus, letters, receivers, IncidentSettings(), history))
    assert [result.delivered for result in results] == [True]
    assert there.accepted[-1].headers["webhook-id"] == there.received[0].headers["webhook-id"] == letters[0].id
    assert redeliver.undelivered(redeliver.recorded(bus)) == []


def test_a_receiver_that_stays_away_is_given_up_and_redelivery_keeps_the_order(
    bus: MemoryBus, notify: Make, hook: Make, finding: Make
) -> None:
    there = hook(status=500)
    notify(receiver("ops", there.url, give_up_seconds=0.1))
    say(bus, FINDINGS, *(finding(f"f{n}", time.time(), version=n) for n in range(3)))
    _until(lambda: len(logged(bus, NOTIFY_DEAD)) == 3)
    history = redeliver.recorded(bus)
    letters, receivers = redeliver.undelivered(history), {"ops": receiver("ops", there.url)}
    still = list(redeliver.redeliver(bus, letters, receivers, IncidentSettings(), history))
    assert [(each.delivered, each.words) for each in still] == [
        (False, "answered 500 Internal Server Error"),
        (None, "not tried: the one before it failed"),
        (None, "not tried: the one before it failed"),
    ]
    there.status = 200
    assert all(each.delivered for each in redeliver.redeliver(bus, letters, receivers, IncidentSettings(), history))
    assert [request.body["data"]["finding"]["version"] for request in there.accepted] == [0, 1, 2]


def test_a_restart_repeats_nothing_and_goes_on_in_the_same_thread(
    bus: MemoryBus, notify: Make, hook: Make, finding: Make, decision: Make
) -> None:
    there = hook()
    now = time.time()
    first = notify(receiver("ops", there.url))
    say(bus, FINDINGS, finding("f", now))
    there.wait(1)
    first.end()
    say(bus, DECISIONS, decision("d", now + 1, because=["f"]))  # while it was away
    notify(receiver("ops", there.url))
    say(bus, FINDINGS, finding("f", now + 5), finding("f", now + 6, state="resolved"))
    there.wait(3)
    time.sleep(0.3)
    assert sorted(types(there)) == ["act", "finding", "resolved"]
    assert len({each.body["subject"] for each in there.accepted}) == 1
    assert len({each.headers["webhook-id"] for each in there.accepted}) == len(there.received) == 3


def test_a_kill_before_the_commit_repeats_nothing_that_was_logged(
    bus: MemoryBus, notify: Make, hook: Make, finding: Make
) -> None:
    there = hook()
    first = notify(receiver("ops", there.url))
    say(bus, FINDINGS, finding("f", time.time()))
    there.wait(1)
    _until(lambda: logged(bus, NOTIFY_SENT))
    first.end()
    bus.commits.clear()  # as if no commit had come through: neither the grouping's nor the receiver's
    notify(receiver("ops", there.url))
    say(bus, FINDINGS, finding("g", time.time(), version=9))
    there.wait(2)
    time.sleep(0.2)
    assert [each.body["data"]["finding"]["id"] for each in there.received] == ["f", "g"]


def test_severity_and_fleet_choose_what_a_receiver_hears(bus: MemoryBus, notify: Make, hook: Make, finding: Make) -> None:
    everything, pager, mine = hook(), hook(), hook()
    notify(
        receiver("all", everything.url, min_severity="info"),
        receiver("pager", pager.url, min_severity="critical"),
        receiver("mine", mine.url, fleets=["a/b 🚀"], min_severity="info"),
    )
    now = time.time()
    surge = finding("s", now, kind="demand_shift", version=None, severity="info")
    say(bus, FINDINGS, surge, finding("f", now), finding("g", now, fleet="a/b 🚀", severity="warning"))
    everything.wait(3)
    pager.wait(1)
    mine.wait(1)
    time.sleep(0.2)
    assert [each.body["data"]["finding"]["id"] for each in pager.received] == ["f"]
    assert [each.body["data"]["finding"]["id"] for each in mine.received] == ["g"]


def test_old_updates_wake_nobody_and_are_kept_as_dead_letters(bus: MemoryBus, notify: Make, hook: Make, finding: Make) -> None:
    there = hook()
    say(bus, FINDINGS, finding("old", time.time() - 100_000, version=1), finding("new", time.time(), version=2))
    notify(receiver("ops", there.url), stale_seconds=1e9, reminder_seconds=1e9)
    there.wait(1)
    assert [each.body["data"]["finding"]["id"] for each in there.received] == ["new"]
    assert [letter.attempts for letter in logged(bus, NOTIFY_DEAD)] == [0]


def test_the_rate_limit_delays_and_drops_nothing(bus: MemoryBus, notify: Make, hook: Make, finding: Make) -> None:
    there = hook()
    notify(receiver("ops", there.url, max_per_minute=300))
    say(bus, FINDINGS, *(finding(f"f{n}", time.time(), version=n) for n in range(305)))
    there.wait(305)
    assert there.accepted[304].at - there.accepted[0].at >= 0.9  # five more than a minute's worth, at five a second


def test_slack_threads_survive_a_restart(bus: MemoryBus, notify: Make, hook: Make, finding: Make, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("xoxb-1")
    api = hook(content=b'{"ok": true, "ts": "17.01"}')
    ops = receiver("ops", api.url, format="slack", channel="C1", token_file=tmp_path / "token")
    first = notify(ops)
    say(bus, FINDINGS, finding("f", time.time()))
    api.wait(1)
    _until(lambda: logged(bus, NOTIFY_SENT))
    first.end()
    notify(ops)
    say(bus, FINDINGS, finding("f", time.time() + 1, state="resolved"))
    requests = api.wait(2)
    assert [each.body.get("thread_ts") for each in requests] == [None, "17.01"]
    assert requests[0].headers["authorization"] == "Bearer xoxb-1"


def test_slack_that_says_no_with_a_200_is_not_a_success(hook: Make, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("xoxb-1")
    api = hook(content=b'{"ok": false, "error": "channel_not_found"}')
    sender = Sender(receiver("ops", api.url, format="slack", channel="C1", token_file=tmp_path / "token"))
    answer = sender.send(b"{}", "application/json", "id")
    assert (answer.verdict, answer.words) == ("again", "Slack refused: channel_not_found")


def test_what_fires_is_pushed_to_alertmanager_again_until_it_is_over(
    bus: MemoryBus, notify: Make, hook: Make, finding: Make
) -> None:
    api = hook()
    notify(receiver("am", api.url, format="alertmanager_api", resend_seconds=0.1))
    now = time.time()
    say(bus, FINDINGS, finding("f", now, severity="warning"))
    api.wait(3)
    say(bus, FINDINGS, finding("f", now + 1, severity="critical"))
    _until(lambda: any(len(each.body) == 2 for each in api.accepted))
    say(bus, FINDINGS, finding("f", now + 2, state="resolved"))
    _until(
        lambda: (
            "webhook-id" in api.accepted[-1].headers and api.accepted[-1].body[0]["annotations"]["description"].endswith("slower")
        )
    )
    escalated = next(each.body for each in api.accepted if len(each.body) == 2)
    assert [alert["labels"]["severity"] for alert in escalated] == ["critical", "warning"]
    time.sleep(0.3)
    count = len(api.accepted)
    time.sleep(0.4)
    assert len(api.accepted) == count


def test_no_secret_is_ever_logged_or_shown(
    bus: MemoryBus, notify: Make, hook: Make, finding: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secret, token = tmp_path / "secret", tmp_path / "token"
    secret.write_text("whsec_aHVzaGh1c2g=")
    token.write_text("t0ps3cret")
    there = hook(answers=[500, 401])
    ops = receiver("ops", there.url, secret_file=secret, token_file=token)
    notify(ops)
    say(bus, FINDINGS, finding("f", time.time()))
    there.wait(1)
    secret.write_text("whsec_!!broken!!")
    say(bus, FINDINGS, finding("g", time.time(), version=7))
    _until(lambda: "cannot be used" in caplog.text)
    secret.write_text("whsec_aHVzaGh1c2g=")  # a new secret is taken up without a restart
    there.wait(2)
    seen = caplog.text + repr(ops) + "".join(value.decode() for stored in bus.topics.values() for _, value, _ in stored)
    for hidden in ("aHVzaGh1c2g", "hushhush", "t0ps3cret", "broken"):
        assert hidden not in seen


def test_a_url_that_is_a_secret_stays_in_its_file(
    bus: MemoryBus, notify: Make, hook: Make, finding: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    there = hook(answers=[500, 302], headers={"location": "/services/T0/hushhush"})
    (tmp_path / "url").write_text(f"http://127.0.0.1:{there.port}/services/T0/hushhush\n")
    ops = Receiver(name="ops", format="slack", url_file=tmp_path / "url", retry_first_seconds=0.01)
    notify(ops)
    say(bus, FINDINGS, finding("f", time.time()), finding("g", time.time(), version=7))
    there.wait(1)
    _until(lambda: logged(bus, NOTIFY_DEAD))
    seen = caplog.text + repr(ops) + repr(logged(bus, NOTIFY_DEAD))
    assert "hushhush" not in seen
    assert "a redirect to another path" in seen


def test_tls_is_checked(hook: Make, tmp_path: Path) -> None:
    certificate, key = _self_signed(tmp_path)
    there = hook()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    there._server.socket = context.wrap_socket(there._server.socket, server_side=True)
    url = f"https://localhost:{there.port}/hook"
    refused = Sender(receiver("ops", url)).send(b"{}", "application/json", "id")
    assert refused.verdict == "again"
    assert "CERTIFICATE_VERIFY_FAILED" in refused.words
    assert Sender(receiver("ops", url, ca_file=certificate)).send(b"{}", "application/json", "id").verdict == "delivered"


def test_the_bus_may_come_and_go(bus: MemoryBus, notify: Make, hook: Make, finding: Make) -> None:
    there = hook()
    notify(receiver("ops", there.url))
    say(bus, FINDINGS, finding("f", time.time()))
    there.wait(1)
    bus.away = True
    time.sleep(0.7)
    bus.away = False
    say(bus, FINDINGS, finding("g", time.time(), version=9))
    there.wait(2)
    assert len(there.received) == 2
    assert json.loads(there.received[1].raw)["data"]["finding"]["id"] == "g"


def _until(true: Callable[[], object], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def _self_signed(folder: Path) -> tuple[Path, Path]:
    import subprocess

    certificate, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key,
         "-out", certificate,
         "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key
