from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.codec import decode, encode
from trimtab.errors import Undecodable
from trimtab.messages import DECISIONS, TELEMETRY, TOPICS, Decision, Snapshot, key_of, stable_id

finite = st.floats(allow_nan=False, allow_infinity=False)
snapshots = st.builds(
    Snapshot,
    target=st.text(),
    fleet=st.text(),
    role=st.sampled_from(["triton", "gateway", "gpu", "node", "vllm", "app"]),
    pool=st.sampled_from([None, "stable", "canary", "previous"]),
    version=st.none() | st.integers(1, 2**31),
    time=finite,
    took=finite,
    up=st.booleans(),
    error=st.none() | st.text(),
    series=st.dictionaries(st.text(), st.none() | finite),
)


@given(snapshots)
def test_what_is_encoded_is_decoded(snapshot: Snapshot) -> None:
    assert decode(TELEMETRY, encode(snapshot)) == snapshot


@given(st.binary(), st.sampled_from(sorted(TOPICS)))
def test_any_bytes_decode_or_are_refused_in_words(data: bytes, topic: str) -> None:
    try:
        decode(topic, data)
    except Undecodable as error:
        assert str(error)


def test_unknown_fields_are_ignored() -> None:
    decision = Decision(id="d", fleet="f", time=1.0, action="hold", outcome="refused", reason="r")
    raw = msgspec.json.decode(encode(decision))
    assert decode(DECISIONS, msgspec.json.encode(raw | {"new": 1})) == decision


def test_from_is_called_from_on_the_wire() -> None:
    decision = Decision(id="d", fleet="f", time=1.0, action="scale", from_={"replicas": 1}, outcome="applied", reason="r")
    assert msgspec.json.decode(encode(decision))["from"] == {"replicas": 1}


def test_deeply_nested_input_is_refused() -> None:
    with pytest.raises(Undecodable):
        decode(TELEMETRY, b'{"x":' * 100_000)


def test_nan_becomes_unknown_and_not_zero() -> None:
    snapshot = Snapshot(target="t", fleet="f", role="gpu", time=1.0, took=0.0, up=True, series={"a": math.nan})
    decoded = decode(TELEMETRY, encode(snapshot))
    assert isinstance(decoded, Snapshot)
    assert decoded.series["a"] is None


def test_keys_and_ids() -> None:
    assert key_of(Snapshot(target="t", fleet="f", role="gpu", time=1.0, took=0.0, up=True)) == "t"
    assert key_of(Decision(id="d", fleet="f", time=1.0, action="hold", outcome="refused", reason="r")) == "f"
    assert stable_id("a", 1) == stable_id("a", 1) != stable_id("a", 2)
    assert stable_id("ab", "c") != stable_id("a", "bc")
