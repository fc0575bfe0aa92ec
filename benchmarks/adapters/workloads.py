"""Which adapter each request asks for: Zipf's law over 500, standing still or drifting, or a recorded fortnight. Seeded."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from serving_stack.traffic.recorded import Rates, Trace, shipped

ADAPTERS = 500
EXPONENT = 0.9
"""Of Zipf's law."""
CURVES: tuple[Trace, ...] = ("servegen-m-large", "servegen-m-mid", "servegen-m-small")
SESSION = 4.0
"""Requests of one user for one adapter, on average (geometric), in the recorded fortnight."""
AT_ONCE = 40
"""Users whose requests come between each other's."""


def zipf(count: int, seed: int) -> list[str]:
    """Popularity stands still."""
    return drawn(count, seed, drift=0.0)


def drifting(count: int, seed: int) -> list[str]:
    """Every hundredth request or so one adapter rises or falls to another place of the same law."""
    return drawn(count, seed, drift=0.01)


def fortnight(count: int, seed: int) -> list[str]:
    """Fourteen recorded days (ServeGen).

    Each adapter's demand follows one of three models' curves, in a time zone of its own, with a weight by Zipf's law; one in
    twenty gets another weight each day. Users ask some times in a row, between each other.
    """
    rng = np.random.default_rng([seed, 3])
    curves = [shipped(name) for name in CURVES]
    assert all(isinstance(each, Rates) for each in curves)
    rates = np.array([each.rates / each.rates.mean() for each in curves if isinstance(each, Rates)])  # [curve, step]
    steps, day = rates.shape[1], 144
    of, zone = rng.integers(len(CURVES), size=ADAPTERS), rng.integers(day, size=ADAPTERS)
    weight = rng.permutation(_law(ADAPTERS))
    users = max(1, round(count / SESSION))
    waiting: list[tuple[str, int]] = []
    asked: list[str] = []
    total = rates.sum(0) / rates.sum()
    for step, arrivals in enumerate(rng.multinomial(users, total)):
        if step % day == 0:
            some = rng.random(ADAPTERS) < 0.05
            weight[some] = rng.permutation(weight[some])
        now = weight * rates[of, (step + zone) % steps]
        for which in rng.choice(ADAPTERS, size=arrivals, p=now / now.sum()):
            waiting.append((str(which), int(rng.geometric(1 / SESSION))))
            while len(waiting) > AT_ONCE:
                _ask_one(waiting, asked, rng)
    while waiting:
        _ask_one(waiting, asked, rng)
    return asked


WORKLOADS: dict[str, Callable[[int, int], list[str]]] = {"zipf": zipf, "drift": drifting, "trace": fortnight}


def _ask_one(waiting: list[tuple[str, int]], asked: list[str], rng: np.random.Generator) -> None:
    at = int(rng.integers(len(waiting)))
    name, left = waiting[at]
    asked.append(name)
    if left > 1:
        waiting[at] = name, left - 1
    else:
        waiting[at] = waiting[-1]
        waiting.pop()


def _law(adapters: int) -> NDArray[np.float64]:
    share = 1.0 / np.arange(1, adapters + 1) ** EXPONENT
    normed: NDArray[np.float64] = share / share.sum()
    return normed


def drawn(count: int, seed: int, drift: float, adapters: int = ADAPTERS) -> list[str]:
    """By Zipf's law; with the probability `drift` a request is followed by a change of one adapter's rank."""
    rng = np.random.default_rng([seed, 1])
    law = np.cumsum(_law(adapters))
    ranked = [str(each) for each in rng.permutation(adapters)]
    asked = []
    for ask, moves in zip(rng.random(count), rng.random(count) < drift, strict=True):
        asked.append(ranked[min(adapters - 1, int(np.searchsorted(law, ask)))])
        if moves:
            mover = ranked.pop(int(rng.integers(adapters)))
            ranked.insert(min(adapters - 1, int(np.searchsorted(law, rng.random()))), mover)
    return asked
