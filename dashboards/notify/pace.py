"""How long to wait: between attempts, and for a receiver's rate limit. Pure: times and a random number in, seconds out."""

from __future__ import annotations

from dataclasses import dataclass


def pause(attempt: int, first: float, limit: float, luck: float) -> float:
    """Seconds before attempt number `attempt` + 1 (from 1): doubled each time, the half of it left to `luck` (0..1).

    The jitter keeps many senders from coming back in step after an outage.
    """
    whole = min(limit, first * 2.0 ** min(attempt - 1, 30))
    return whole * (0.5 + 0.5 * luck)


@dataclass
class Bucket:
    """A token bucket: `per_minute` deliveries a minute, as many at once after a quiet minute."""

    per_minute: int
    tokens: float
    at: float

    @staticmethod
    def full(per_minute: int, now: float) -> Bucket:
        """A bucket after a quiet minute."""
        return Bucket(per_minute, float(per_minute), now)

    def take(self, now: float) -> float:
        """Takes a token and returns 0, or returns the seconds until there is one."""
        self.tokens = min(self.per_minute, self.tokens + max(0.0, now - self.at) * self.per_minute / 60)
        self.at = max(self.at, now)
        if self.tokens >= 1:
            self.tokens -= 1
            return 0.0
        return (1 - self.tokens) * 60 / self.per_minute
