"""Comparing two streams of yes/no outcomes that run at the same time, with guarantees that survive looking at every tick.

The e-values are those of Turner, Ly and Grünwald, "Generic E-variables for exact sequential k-sample tests" (JSPI 230, 2024,
arXiv:2106.02693), extended to a null hypothesis about the difference as in Turner and Grünwald, "Exact anytime-valid confidence
intervals for contingency tables and beyond" (2023, arXiv:2203.09785). In one block (a tick) stream a has n_a outcomes, stream b
n_b. For an alternative (p_a, p_b) chosen before the block and the point (q_a, q_b) of the null that is nearest in
n_a KL(p_a|q_a) + n_b KL(p_b|q_b),

    S = prod over outcomes of  P_p(outcome) / P_q(outcome)

has expectation <= 1 for every point of a convex null: with g the expected factor of one outcome, nearness says
n_a (g_a - 1) + n_b (g_b - 1) <= 0, so g_a^n_a g_b^n_b <= 1 by the inequality of means. Rates may drift from tick to
tick, as long as each tick obeys the null. A product over ticks is a test martingale and so is a mixture of such products
over alternatives; Ville's inequality then bounds the chance that it *ever* reaches 1/alpha by alpha. Raising S to a power <= 1
keeps this (Jensen), and is how outcomes that come in clumps are given less weight. A part of the wealth is kept aside and
invested little by little, so that a harm which begins late is found as well (a mixture over the time when it begins).

The bound on the difference inverts tests of "p_b - p_a >= d" over a grid of d.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

HARM_ALTERNATIVES = (0.02, 0.05, 0.1, 0.2, 0.35, 0.55, 0.8, 0.97)
"""Rates of stream b that the harm test bets on; a grid on which every harm has a neighbour within a few tenths of a nat."""

BOUND_GRID = (0.02, 0.03, 0.05, 0.08, 0.1, 0.12, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.7)
"""Differences that the upper bound can take; above the last one it is 1."""

_RESERVE = 0.2
_INVESTED_PER_TICK = 0.02
_EDGE = 1e-4
_FLOOR = -600.0


class Block(msgspec.Struct, frozen=True):
    """What one tick showed: outcomes of stream a (stable) and b (canary), and how many of them were bad."""

    a_bad: int
    a_total: int
    b_bad: int
    b_total: int

    @property
    def size(self) -> float:
        """Outcomes of b against an endless a that would tell as much: n_a n_b / (n_a + n_b)."""
        return self.a_total * self.b_total / max(1, self.a_total + self.b_total)


class Rate(msgspec.Struct, frozen=True):
    """What is known of stream a's rate before the next block: bad outcomes out of a total, recent history included."""

    bad: float = 0.0
    total: float = 0.0

    @property
    def estimate(self) -> float:
        """The rate, drawn a little towards small values, never 0 or 1."""
        return (self.bad + 0.1) / (self.total + 2.0)

    def scaled(self, limit: float) -> Rate:
        """The same rate, known no better than from `limit` outcomes."""
        keep = min(1.0, limit / self.total) if self.total > 0 else 1.0
        return Rate(self.bad * keep, self.total * keep)

    def plus(self, bad: float, total: float, limit: float = 500.0) -> Rate:
        """With more outcomes; history beyond `limit` outcomes fades."""
        old = self.scaled(limit)
        return Rate(old.bad + bad, old.total + total)


class Wealth(msgspec.Struct, frozen=True):
    """An e-process: the logarithm of what each bet holds, and of what is kept aside."""

    bets: list[float]
    reserve: float

    @property
    def log_value(self) -> float:
        """Natural logarithm of the e-value now."""
        return _log_sum([*self.bets, self.reserve])


class HarmTest(msgspec.Struct, frozen=True):
    """E-process against "b is worse than a by at most `margin`". Large wealth is evidence of harm."""

    margin: float
    base: Rate = Rate()
    wealth: Wealth = msgspec.field(default_factory=lambda: _first_wealth())
    best: float = 0.0
    """Largest log e-value so far; Ville's inequality is about this one."""

    def observe(self, block: Block, cap: float | None = None) -> HarmTest:
        """After one more tick. `cap`: let this tick weigh at most as much as so many outcomes of b against an endless a."""
        power = min(1.0, cap / block.size) if cap and block.size else 1.0
        guess = self.base.estimate
        moved, reserve = _invest(self.wealth)
        bets = [
            max(_FLOOR, log + power * log_e_value(block, guess, alternative, self.margin, harm=True))
            for log, alternative in zip(moved, HARM_ALTERNATIVES, strict=True)
        ]
        wealth = Wealth(bets, reserve)
        return HarmTest(self.margin, self.base.plus(block.a_bad, block.a_total), wealth, max(self.best, wealth.log_value))

    def found(self, alpha: float) -> bool:
        """Whether harm is established with false alarm rate `alpha`."""
        return self.best >= -math.log(alpha)


class BoundTest(msgspec.Struct, frozen=True):
    """Upper confidence bound on p_b - p_a that holds at all times at once; each grid point is a test of its own."""

    base: Rate = Rate()
    logs: list[list[float]] = msgspec.field(default_factory=lambda: [[math.log(1 / 3)] * 3 for _ in BOUND_GRID])
    best: list[float] = msgspec.field(default_factory=lambda: [0.0] * len(BOUND_GRID))

    def observe(self, block: Block) -> BoundTest:
        """After one more tick."""
        guess = self.base.estimate
        logs = []
        for difference, old in zip(BOUND_GRID, self.logs, strict=True):
            alternatives = (guess, guess + difference / 3, guess - difference / 2)
            logs.append(
                [
                    max(_FLOOR, log + log_e_value(block, guess, alternative, difference, harm=False))
                    for log, alternative in zip(old, alternatives, strict=True)
                ]
            )
        best = [max(old, _log_sum(new)) for old, new in zip(self.best, logs, strict=True)]
        return BoundTest(self.base.plus(block.a_bad, block.a_total), logs, best)

    def upper(self, alpha: float) -> float:
        """The smallest difference that is rejected together with all larger ones, at level `alpha`; 1.0 when none is."""
        bound = 1.0
        for difference, best in zip(reversed(BOUND_GRID), reversed(self.best), strict=True):
            if best < -math.log(alpha):
                break
            bound = difference
        return bound


def log_e_value(block: Block, p_a: float, p_b: float, difference: float, *, harm: bool) -> float:
    """Logarithm of one block's e-value for the alternative (p_a, p_b).

    The null is p_b <= p_a + difference (`harm`) or p_b >= p_a + difference. An alternative inside the null bets nothing: 0.0.
    """
    p_a, p_b = _clip(p_a), _clip(p_b)
    beyond = p_b - p_a - difference
    if (beyond <= 0) if harm else (beyond >= 0):
        return 0.0
    q_a = _nearest(block.a_total, p_a, block.b_total, p_b, difference)
    return _log_ratio(block.a_bad, block.a_total, p_a, q_a) + _log_ratio(block.b_bad, block.b_total, p_b, q_a + difference)


def combined_log(values: Sequence[float]) -> float:
    """Logarithm of the mean of e-values given as logarithms: the mean of e-processes is one, whatever their dependence."""
    return _log_sum(list(values)) - math.log(len(values))


def _nearest(n_a: int, p_a: float, n_b: int, p_b: float, difference: float) -> float:
    """q_a on the border p_b = p_a + difference that is nearest to (p_a, p_b); by bisection of the convex distance's slope."""
    low, high = 1e-12, 1 - 1e-12 - difference

    def slope(q: float) -> float:
        r = q + difference
        return n_a * (q - p_a) / (q * (1 - q)) + n_b * (r - p_b) / (r * (1 - r))

    if high <= low or slope(low) >= 0:
        return low
    if slope(high) <= 0:
        return high
    for _ in range(40):
        middle = (low + high) / 2
        if slope(middle) > 0:
            high = middle
        else:
            low = middle
    return (low + high) / 2


def _first_wealth() -> Wealth:
    bets = [math.log((1 - _RESERVE) / len(HARM_ALTERNATIVES))] * len(HARM_ALTERNATIVES)
    return Wealth(bets, math.log(_RESERVE))


def _invest(wealth: Wealth) -> tuple[list[float], float]:
    share = wealth.reserve + math.log(_INVESTED_PER_TICK / len(wealth.bets))
    return [_log_sum([bet, share]) for bet in wealth.bets], wealth.reserve + math.log1p(-_INVESTED_PER_TICK)


def _log_ratio(bad: int, total: int, p: float, q: float) -> float:
    return bad * math.log(p / q) + (total - bad) * math.log((1 - p) / (1 - q))


def _clip(p: float) -> float:
    return min(max(p, _EDGE), 1 - _EDGE)


def _log_sum(logs: list[float]) -> float:
    top = max(logs)
    return top + math.log(sum(math.exp(log - top) for log in logs))
