"""The collector process: discovery + scrapes at their time + spool -> ``trimtab.telemetry``."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import signal

from prometheus_client import Counter

from collectors.clock import Clock
from collectors.discovery import Source, Target
from collectors.scrape import Scraper
from collectors.settings import CollectSettings
from collectors.spool import Spool
from trimtab import tracing
from trimtab.bus import Bus
from trimtab.errors import TrimtabError

log = logging.getLogger(__name__)

SKIPPED = Counter("trimtab_collect_skipped", "Scrapes left out because the process could not keep up.", ["role"])


def phase(target: str, interval: float) -> float:
    """When in each interval a target is scraped, in seconds: spread by its name, the same in every process."""
    return int.from_bytes(hashlib.sha256(target.encode()).digest()[:4], "big") / 2**32 * interval


class Collector:
    """Scrapes every target of the source once per interval until stopped."""

    def __init__(self, settings: CollectSettings, source: Source, bus: Bus) -> None:
        self._settings, self._bus, self._source = settings, bus, source
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Ends `run` in order: no scrape is cut off half-way into the bus, and what is known is delivered."""
        self._stop.set()

    async def run(self) -> int:
        """Runs until `stop`; returns how many snapshots could not be delivered at the end."""
        spool = Spool(self._bus, self._settings.spool_series)
        running: dict[Target, asyncio.Task[None]] = {}
        try:
            async with Scraper(self._settings, Clock()) as scraper:
                while not self._stop.is_set():
                    if spool.broken:
                        raise TrimtabError("the collector cannot deliver snapshots any more; its log says why")
                    self._follow(scraper, spool, running)
                    await self._sleep(self._settings.interval_seconds / 2)
                for task in running.values():
                    task.cancel()
                await asyncio.gather(*running.values(), return_exceptions=True)
        finally:
            left = await asyncio.to_thread(spool.stop, self._settings.stop_seconds)
        return left

    def _follow(self, scraper: Scraper, spool: Spool, running: dict[Target, asyncio.Task[None]]) -> None:
        """Starts what is new and stops what is gone."""
        self._source.refresh()
        wanted = set(self._source.targets)
        for target in running.keys() - wanted:
            running.pop(target).cancel()
        for target in [target for target, task in running.items() if task.done()]:  # only by an error nobody foresaw
            log.error("scraping %s failed and starts again", target.target, exc_info=running.pop(target).exception())
        scraper.forget_others(wanted)
        for target in wanted - running.keys():
            running[target] = asyncio.create_task(self._repeat(target, scraper, spool), name=f"scrape {target.target}")

    async def _repeat(self, target: Target, scraper: Scraper, spool: Spool) -> None:
        """One target, for ever: at most one scrape at a time, each at the target's own moment of the interval."""
        loop, interval = asyncio.get_running_loop(), self._settings.interval_seconds
        offset = phase(target.target, interval)
        turn = int((loop.time() - offset) // interval)
        while True:
            now = int((loop.time() - offset) // interval)
            if now > turn:
                SKIPPED.labels(target.role).inc(now - turn)
            turn = max(turn, now) + 1
            await asyncio.sleep(max(0.0, turn * interval + offset - loop.time()))
            with tracing.span("scrape", target=target.target, role=target.role, fleet=target.fleet) as span:
                snapshot = await scraper.scrape(target)
                span.set_attribute("up", snapshot.up)
                spool.put(snapshot, tracing.headers())

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        except TimeoutError:
            pass


async def run(settings: CollectSettings, source: Source, bus: Bus) -> int:
    """Collects until SIGTERM or SIGINT; returns the number of snapshots that could not be delivered."""
    collector = Collector(settings, source, bus)
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, collector.stop)
    try:
        return await collector.run()
    finally:
        source.close()
