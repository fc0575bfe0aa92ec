"""Messages to bytes and back: JSON, strict about types, indifferent to unknown fields."""

from __future__ import annotations

import functools
from typing import TypeVar

import msgspec

from trimtab.errors import Undecodable
from trimtab.messages import SCHEMA, TOPICS, Message

M = TypeVar("M", bound=Message)

_encoder = msgspec.json.Encoder()


def encode(message: Message) -> bytes:
    """The message as JSON bytes."""
    return _encoder.encode(message)


@functools.cache
def _decoder(kind: type[Message]) -> msgspec.json.Decoder[Message]:
    return msgspec.json.Decoder(kind)


def decode_as(kind: type[M], data: bytes) -> M:
    """`data` as a message of this kind; raises `Undecodable` with the reason in words."""
    try:
        message = _decoder(kind).decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Undecodable(f"not a {kind.__name__}: {error}") from error
    if message.schema != SCHEMA:
        raise Undecodable(f"{kind.__name__} has schema {message.schema}, this version reads {SCHEMA}")
    return message  # type: ignore[return-value]


def decode(topic: str, data: bytes) -> Message:
    """`data` as the message that travels on `topic`; raises `Undecodable` with the reason in words."""
    return decode_as(TOPICS[topic], data)
