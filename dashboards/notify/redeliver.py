"""Dead letters once more: which are still undelivered (pure), and sending them in order."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from msgspec.structs import replace

from dashboards.notify.delivery import Sender
from dashboards.notify.settings import IncidentSettings, Receiver
from dashboards.notify.voices import voice_of
from trimtab.bus import Bus
from trimtab.messages import NOTIFY_DEAD, NOTIFY_SENT, Delivery


@dataclass(frozen=True)
class Redelivered:
    """What became of one dead letter; `delivered` is None when it was not tried."""

    letter: Delivery
    delivered: bool | None
    words: str


def undelivered(deliveries: Iterable[Delivery]) -> list[Delivery]:
    """The dead letters that were never delivered since, each once, in order of their updates."""
    letters: dict[tuple[str, str], Delivery] = {}
    sent: set[tuple[str, str]] = set()
    for each in deliveries:
        if each.dead:
            letters[each.receiver, each.id] = each
        else:
            sent.add((each.receiver, each.id))
    left = [letter for key, letter in letters.items() if key not in sent and letter.update is not None]
    return sorted(left, key=lambda letter: letter.update.time if letter.update else 0.0)


def recorded(bus: Bus) -> list[Delivery]:
    """Every delivery and dead letter that the topics hold."""
    return [record.message for record in bus.read_all([NOTIFY_SENT, NOTIFY_DEAD]) if isinstance(record.message, Delivery)]


def redeliver(
    bus: Bus, letters: Iterable[Delivery], receivers: Mapping[str, Receiver], settings: IncidentSettings, history: list[Delivery]
) -> Iterator[Redelivered]:
    """Tries each letter once, under its old id; what is accepted is logged. After a failure the receiver's others wait."""
    producer = bus.producer()
    senders = {name: Sender(receiver) for name, receiver in receivers.items()}
    voices = {name: voice_of(receiver, settings) for name, receiver in receivers.items()}
    for name, voice in voices.items():
        voice.restore([], [each for each in history if each.receiver == name])
    failed: set[str] = set()
    try:
        for letter in letters:
            update, name = letter.update, letter.receiver
            if update is None or name not in receivers:
                yield Redelivered(letter, None, "its receiver is not in the settings")
            elif name in failed:
                yield Redelivered(letter, None, "not tried: the one before it failed")
            else:
                request = voices[name].request(update, time.time())
                answer = senders[name].send(request.body, request.content_type, request.id)
                if answer.verdict == "delivered":
                    thread = voices[name].delivered(update, answer)
                    done = replace(letter, time=time.time(), attempts=1, dead=False, reason=None, thread=thread, update=None)
                    producer.send(NOTIFY_SENT, done)
                    producer.flush()
                else:
                    failed.add(name)
                yield Redelivered(letter, answer.verdict == "delivered", answer.words)
    finally:
        producer.close()
        for sender in senders.values():
            sender.close()
