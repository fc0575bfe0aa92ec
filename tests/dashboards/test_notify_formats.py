"""Payloads, signatures, templates, links, pace and settings: pure."""

from __future__ import annotations

import json
import textwrap
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec
import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_structured_event
from cloudevents.core.formats.json import JSONFormat
from hypothesis import given
from hypothesis import strategies as st

from dashboards.notify import formats, pace, signing, template
from dashboards.notify.formats import Told
from dashboards.notify.incidents import Incidents
from dashboards.notify.settings import IncidentSettings, NotifySettings
from trimtab import settings as settings_files
from trimtab.errors import SettingsError
from trimtab.messages import Finding, IncidentUpdate

Make = Callable[..., Any]
NAMES = st.one_of(
    st.text(min_size=1, max_size=30), st.sampled_from(["a b/c", "q\"uo'te", "🚀 fleet", "{fleet}", "<@U1>&", "a\nb\\", "%2F"])
)


def update_of(*messages: Any) -> IncidentUpdate:
    incidents = Incidents(IncidentSettings())
    return [update for message in messages for update in incidents.add(message)][-1]


def finding_in(fleet: str, **changes: Any) -> Finding:
    values: dict[str, Any] = {
        "kind": "version_regression", "severity": "critical", "onset": 1.7e9, "time": 1.7e9, "state": "firing", "confidence": 0.9,
        "summary": "slower", "version": 3,
    }  # fmt: skip
    return Finding(id="f", fleet=fleet, **(values | changes))


# --- Standard Webhooks


def test_the_signature_is_that_of_the_reference_libraries() -> None:
    key = signing.key_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signature = signing.sign(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@given(st.binary(min_size=1), st.binary(), st.binary())
def test_only_the_right_key_body_and_time_verify(key: bytes, body: bytes, other: bytes) -> None:
    good = signing.sign(key, "id", 1000, body)
    assert signing.verify(key, "id", "1000", body, f"v1,AAAA {good} v1a,x", 1100.0)
    assert not signing.verify(key, "id", "1000", body, good, 1301.0)
    assert not signing.verify(key, "id", "1001", body, good, 1001.0)
    assert not signing.verify(key, "id2", "1000", body, good, 1000.0)
    assert not signing.verify(key, "id", "1000", body + b"x", good, 1000.0)
    assert signing.verify(key, "id", "1000", other, good, 1000.0) == (other == body)
    assert not signing.verify(key, "id", "²", body, good, 0.0)


@pytest.mark.parametrize("secret", ["", "  \n", "whsec_", "whsec_not base64!"])
def test_a_bad_secret_is_refused_without_being_shown(secret: str) -> None:
    with pytest.raises(ValueError, match="secret") as error:
        signing.key_of(secret)
    assert "not base64!" not in str(error.value)


# --- payloads


@given(NAMES)
def test_any_fleet_name_survives_every_format(fleet: str) -> None:
    update = update_of(finding_in(fleet))
    told = Told(update, "oncall", update.text)
    webhook, event = formats.alertmanager(told), formats.cloudevent(told)
    for payload in (webhook, event, formats.slack(told, "C1", None)):
        assert msgspec.json.decode(msgspec.json.encode(payload)) == payload
    assert webhook["alerts"][0]["labels"]["fleet"] == fleet
    assert unquote(event["source"].removeprefix("/trimtab/fleets/")) == fleet
    assert "/" not in event["source"].removeprefix("/trimtab/fleets/")
    assert event["data"]["incident"]["fleet"] == fleet
    link = template.link("https://g.example/d/x?var-fleet={fleet}&from={from_ms}", update.incident)
    assert link is not None and unquote(urlsplit(link).query.split("&")[0]) == f"var-fleet={fleet}"


@pytest.mark.parametrize("time", [-1e300, 0.0, 1e20, 1e300])
def test_no_time_breaks_a_payload(time: float) -> None:
    update = update_of(finding_in("intent", time=time, onset=time))
    told = Told(update, "oncall", update.text)
    for payload in (formats.alertmanager(told), formats.cloudevent(told), formats.pushed_alert(told, 1.7e9, 60)):
        msgspec.json.encode(payload)
    assert template.link("https://g.example/{from_ms}", update.incident)


def test_alertmanager_version_4(finding: Make) -> None:
    firing = formats.alertmanager(Told(update_of(finding("f", 1.7e9)), "oncall", "text", "https://g.example"))
    assert firing["version"] == "4"
    assert (firing["status"], firing["receiver"], firing["externalURL"]) == ("firing", "oncall", "https://g.example")
    assert set(firing) == {
        "version", "groupKey", "truncatedAlerts", "status", "receiver", "groupLabels", "commonLabels", "commonAnnotations",
        "externalURL",
        "alerts",
    }  # fmt: skip
    (alert,) = firing["alerts"]
    assert alert["labels"] == firing["commonLabels"]
    assert alert["labels"]["alertname"] == "TrimtabVersion"
    assert alert["labels"]["version"] == "3"
    assert (alert["startsAt"], alert["endsAt"]) == ("2023-11-14T22:13:20.000Z", "0001-01-01T00:00:00Z")
    over = update_of(finding("f", 1.7e9), finding("f", 1.7e9 + 10, state="resolved"))
    resolved = formats.alertmanager(Told(over, "oncall", "text"))
    assert (resolved["status"], resolved["alerts"][0]["endsAt"]) == ("resolved", "2023-11-14T22:13:30.000Z")
    assert (resolved["groupKey"], resolved["alerts"][0]["fingerprint"]) == (firing["groupKey"], alert["fingerprint"])


def test_cloudevents_are_read_by_the_reference_library(finding: Make) -> None:
    update = update_of(finding("f", 1.7e9, fleet='a b/"ü"🚀'))
    payload = formats.cloudevent(Told(update, "oncall", "text"))
    message = HTTPMessage({"content-type": formats.CONTENT_TYPES["cloudevents"]}, json.dumps(payload).encode())
    event = from_structured_event(message, JSONFormat())
    assert event.get_type() == "io.trimtab.incident.finding"
    assert event.get_id() == update.id
    assert event.get_subject() == update.incident.id
    assert event.get_time() == datetime.fromisoformat("2023-11-14T22:13:20+00:00")
    assert event.get_data()["finding"]["kind"] == "version_regression"  # type: ignore[index,call-overload]


def test_slack_threads_and_escapes(finding: Make) -> None:
    told = Told(update_of(finding("f", 0.0, fleet="<!channel> & co", summary="x" * 5000)), "ops", "y" * 5000, "https://g.example")
    first, later = formats.slack(told, "C1", None), formats.slack(told, "C1", "17.2")
    assert "thread_ts" not in first
    assert (later["thread_ts"], later["channel"]) == ("17.2", "C1")
    assert "<!channel>" not in first["text"]
    section = first["attachments"][0]["blocks"][0]["text"]
    assert (section["type"], len(section["text"])) == ("plain_text", 2900)
    assert "channel" not in formats.slack(told, None, None)


def test_a_pushed_alert_ends_by_itself_when_nobody_sends_it_again(finding: Make) -> None:
    told = Told(update_of(finding("f", 1.7e9)), "am", "text")
    assert formats.pushed_alert(told, 1.7e9 + 100, 60)["endsAt"] == formats.rfc3339(1.7e9 + 340)
    over = update_of(finding("f", 1.7e9), finding("f", 1.7e9 + 10, state="resolved"))
    assert formats.pushed_alert(Told(over, "am", "text"), 1.7e9 + 100, 60)["endsAt"] == formats.rfc3339(1.7e9 + 10)


# --- templates


def test_a_template_is_rendered_with_everything_it_knows(finding: Make) -> None:
    text = "{{ incident.severity|upper }} {{ update.title }}{% if finding %}: {{ finding.summary }}{% endif %}"
    template.check(text)
    assert template.render(text, update_of(finding("f", 0.0)), None) == "CRITICAL version 3 of fleet intent: version 3 is slower"


@pytest.mark.parametrize(
    "text",
    [
        "{{ incident.nothing }}", "{{ unknown }}", "{% if %}", "{{ finding.summary }}", "{{ 1 / 0 }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ range(10**9)|list }}", "{{ update.text.format(1, 2).x }}", "{% for x in y %}",
    ],
)  # fmt: skip
def test_a_template_that_would_fail_some_day_is_refused_at_start(text: str) -> None:
    with pytest.raises(ValueError, match="template"):
        template.check(text)


# --- pace


@given(st.integers(1, 10_000), st.floats(0.01, 10), st.floats(10, 1000), st.floats(0, 1))
def test_pauses_grow_to_their_limit_and_differ(attempt: int, first: float, limit: float, luck: float) -> None:
    whole = pace.pause(attempt, first, limit, 1.0)
    assert whole / 2 <= pace.pause(attempt, first, limit, luck) <= whole <= limit
    assert pace.pause(attempt + 1, first, limit, 1.0) >= whole


@given(st.integers(1, 100), st.lists(st.floats(0, 5), min_size=1, max_size=300))
def test_no_minute_holds_more_than_a_full_bucket_and_what_flows_in(limit: int, steps: list[float]) -> None:
    bucket, now, taken = pace.Bucket.full(limit, 0.0), 0.0, []
    for step in steps:
        now += step
        wait = bucket.take(now)
        if wait == 0:
            taken.append(now)
        else:
            assert bucket.take(now + wait + 1e-6) == 0.0
            taken.append(now + wait)
            now += wait + 1e-6
    for at in taken:
        assert sum(at - 60 < each <= at for each in taken) <= 2 * limit + 1


# --- settings


def load(tmp_path: Path, text: str) -> NotifySettings:
    file = tmp_path / "trimtab.yaml"
    file.write_text(text)
    return settings_files.load(NotifySettings, file)


def receiver(tmp_path: Path, **fields: object) -> NotifySettings:
    lines = [f"      {name}: {json.dumps(value)}" for name, value in fields.items()]
    return load(tmp_path, "notify:\n  receivers:\n    - name: ops\n" + "\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"format": "pager", "url": "https://x.example"}, "format"),
        ({"format": "slack", "url": "ftp://x.example"}, "must begin with http"),
        ({"format": "slack", "url": "http://x.example"}, "https"),
        ({"format": "slack"}, "one of url and url_file"),
        ({"format": "slack", "url_file": "/nowhere/url"}, "there is no file"),
        ({"format": "slack", "url": "https://me:pw@x.example"}, "must not hold a password"),
        ({"format": "slack", "url": "https://x.example", "channel": "C1"}, "token_file"),
        ({"format": "slack", "url": "https://x.example", "secret_file": "/nowhere/secret"}, "there is no file"),
        ({"format": "slack", "url": "https://x.example", "template": "{{ oops"}, "template line 1"),
        ({"format": "slack", "url": "https://x.example", "retries": 3}, "unknown key"),
    ],
)
def test_a_wrong_receiver_is_refused_with_its_line(tmp_path: Path, fields: dict[str, object], words: str) -> None:
    with pytest.raises(SettingsError, match=rf"trimtab.yaml:\d+: notify.receivers.*{words}"):
        receiver(tmp_path, **fields)


def test_receivers_have_different_names(tmp_path: Path) -> None:
    one = "{name: ops, format: slack, url: 'https://x.example'}"
    with pytest.raises(SettingsError, match="two receivers are called 'ops'"):
        load(tmp_path, f"notify: {{receivers: [{one}, {one}]}}")


@pytest.mark.parametrize(
    "url", ["javascript:alert(1)", "https://g.example/{nope}", "https://g.example/{fleet", "https://g.example/{}"]
)
def test_a_wrong_link_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="grafana_url"):
        IncidentSettings(grafana_url=url)


def test_the_snippet_in_the_docs_verifies_what_is_signed() -> None:
    text = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text()
    snippet: dict[str, Any] = {}
    exec(text.partition("```python\n")[2].partition("```")[0], snippet)
    for secret in ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "plain words"):
        now = int(time.time())
        signature = signing.sign(signing.key_of(secret), "id", now, b"body")
        headers = {"webhook-id": "id", "webhook-timestamp": str(now), "webhook-signature": f"v1,AAAA {signature}"}
        assert snippet["is_genuine"](headers, b"body", secret)
        assert not snippet["is_genuine"](headers, b"other", secret)
        assert not snippet["is_genuine"](headers | {"webhook-timestamp": str(now - 301)}, b"body", secret)


def test_the_settings_in_the_docs_are_valid(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text()
    block = text.partition("# trimtab.yaml\n")[2].partition("\n\nEvery field")[0]
    for name in ("oncall", "slack-token"):
        (tmp_path / name).write_text("secret")
    file = tmp_path / "trimtab.yaml"
    file.write_text(textwrap.dedent(block).replace("/run/secrets", str(tmp_path)))
    assert [each.name for each in settings_files.load(NotifySettings, file).receivers] == [
        "oncall",
        "archive",
        "ops-channel",
        "alertmanager",
    ]
    assert settings_files.load(IncidentSettings, file).grafana_url
