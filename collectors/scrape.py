"""One scrape: a GET, a deadline, limits; the result is always a Snapshot."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable

import httpx
from prometheus_client import Counter, Histogram

from collectors.clock import Clock
from collectors.discovery import Target
from collectors.exposition import Parser, ScrapeError
from collectors.settings import CollectSettings
from trimtab.codec import encode
from trimtab.messages import Snapshot

log = logging.getLogger(__name__)

SCRAPES = Counter("trimtab_collect_scrapes", "Scrapes by role and result: ok, or why it failed.", ["role", "result"])
SECONDS = Histogram(
    "trimtab_collect_scrape_seconds",
    "How long scrapes took, failed ones included.",
    ["role"],
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)

# Compression would let a small answer become a huge page; scrapes are of this machine or its neighbours.
HEADERS = {"Accept": "text/plain;version=0.0.4", "Accept-Encoding": "identity", "User-Agent": "trimtab-collector"}

# A broker refuses messages over 1 MiB, key, headers and framing included.
MESSAGE_BYTES = 1_000_000

_Name = tuple[str, str]


class Scraper:
    """Scrapes targets over kept-alive connections. Use as an async context manager."""

    def __init__(self, settings: CollectSettings, clock: Clock) -> None:
        self._settings, self._clock = settings, clock
        self._deadline = settings.interval_seconds * settings.deadline_ratio
        self._parsers: dict[_Name, Parser] = {}
        self._failing: dict[_Name, str] = {}
        # No limits of connections: each target has at most one, and one that hangs must not hold up another.
        self._client = httpx.AsyncClient(
            headers=HEADERS,
            timeout=None,  # noqa: S113 - one deadline over the whole scrape is set below
            follow_redirects=False,
            trust_env=False,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=60),
        )

    async def __aenter__(self) -> Scraper:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    def forget_others(self, targets: Iterable[Target]) -> None:
        """Lets go of what is remembered about targets that are gone."""
        names = {_name(target) for target in targets}
        for remembered in (self._parsers, self._failing):
            for gone in remembered.keys() - names:
                del remembered[gone]

    async def scrape(self, target: Target) -> Snapshot:
        """The target's page now. A scrape that fails in any way gives ``up=False``, the error in words and no series."""
        time_, start = self._clock.now(), time.perf_counter()
        series: dict[str, float | None] = {}
        failure: ScrapeError | None = None
        try:
            body, content_type = await self._page(target)
            series = self._parser(target).parse(body, content_type)
        except ScrapeError as error:
            failure = error
        snapshot = self._snapshot(target, time_, time.perf_counter() - start, series, failure)
        # A message that Kafka can never take would hold up everything behind it.
        if sum(map(len, series)) > MESSAGE_BYTES // 8 and (size := len(encode(snapshot))) > MESSAGE_BYTES:
            failure = ScrapeError("too_large", f"{len(series)} series make a message of {size} bytes, over {MESSAGE_BYTES}")
            snapshot = self._snapshot(target, time_, snapshot.took, {}, failure)
        self._note(target, failure, snapshot.took)
        return snapshot

    def _snapshot(
        self, target: Target, at: float, took: float, series: dict[str, float | None], failure: ScrapeError | None
    ) -> Snapshot:
        return Snapshot(
            target=target.target,
            fleet=target.fleet,
            role=target.role,
            pool=target.pool,
            version=target.version,
            time=at,
            took=took,
            up=failure is None,
            error=str(failure) if failure else None,
            series=series,
        )

    def _parser(self, target: Target) -> Parser:
        name = _name(target)
        if name not in self._parsers:
            self._parsers[name] = Parser(self._settings.limits, self._settings.keep.get(target.role, ()))
        return self._parsers[name]

    def _note(self, target: Target, failure: ScrapeError | None, took: float) -> None:
        SCRAPES.labels(target.role, failure.reason if failure else "ok").inc()
        SECONDS.labels(target.role).observe(took)
        name = _name(target)
        if failure and self._failing.get(name) != failure.reason:  # a target that stays away is logged once
            self._failing[name] = failure.reason
            log.warning("%s (%s) cannot be scraped: %s", target.target, target.url, failure)
        elif not failure and name in self._failing:
            del self._failing[name]
            log.info("%s can be scraped again", target.target)

    async def _page(self, target: Target) -> tuple[bytes, str]:
        """Body and content type; `ScrapeError` says what came instead."""
        start = time.perf_counter()
        try:
            async with asyncio.timeout(self._deadline):
                page = await self._tried(target)
        except TimeoutError as error:
            raise self._late() from error
        except (httpx.ConnectError, httpx.UnsupportedProtocol) as error:
            raise ScrapeError("connect", f"cannot connect: {_words(error)}") from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise ScrapeError("disconnect", f"the answer broke off or is no HTTP: {_words(error)}") from error
        # A process that was stopped for a while reads an old answer before its timer: counters of one time under another.
        if time.perf_counter() - start > self._deadline:
            raise self._late()
        return page

    def _late(self) -> ScrapeError:
        return ScrapeError("timeout", f"timed out: no whole answer within {self._deadline:.3g} s")

    async def _tried(self, target: Target) -> tuple[bytes, str]:
        try:
            return await self._get(target)
        except httpx.RemoteProtocolError as error:
            if "without sending a response" not in str(error):
                raise
            return await self._get(target)  # the target closed a kept-alive connection just as it was used again

    async def _get(self, target: Target) -> tuple[bytes, str]:
        most = self._settings.max_body_bytes
        async with self._client.stream("GET", target.url) as answer:
            if answer.is_redirect or answer.has_redirect_location:
                where = answer.headers.get("location", "nowhere")[:200]
                raise ScrapeError("redirect", f"answered {answer.status_code}, a redirect to {where!r}, which is not followed")
            if answer.status_code != 200:
                raise ScrapeError("status", f"answered {answer.status_code} {answer.reason_phrase[:100]}".rstrip())
            encoding = answer.headers.get("content-encoding", "identity")
            if encoding.lower() != "identity":
                raise ScrapeError("malformed", f"answered in encoding {encoding[:50]!r}, which was not asked for")
            chunks: list[bytes] = []
            size = 0
            async for chunk in answer.aiter_raw():
                size += len(chunk)
                if size > most:
                    raise ScrapeError("too_large", f"the page is larger than {most} bytes")
                chunks.append(chunk)
            return b"".join(chunks), answer.headers.get("content-type", "")


def _name(target: Target) -> _Name:
    """Two fleets may have targets of the same name."""
    return target.fleet, target.target


def _words(error: Exception) -> str:
    return (str(error) or type(error).__name__)[:200]
