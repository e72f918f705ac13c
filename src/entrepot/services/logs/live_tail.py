"""Live tail: events of some groups as they are stored, for one who watches, at most so many a second.

Source: https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_StartLiveTail.html
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from entrepot import clock
from entrepot.services.logs.filter_pattern import Matches

UPDATE_INTERVAL_S = 1.0
"""How often a session is told what is new, also when nothing is."""

EVENTS_LIMIT = 500
"""Events in one update; when there are more, these are a sample. AWS's limit."""

SESSION_LIMIT_S = 3 * 3_600.0
"""A session ends after this time. AWS's limit."""

SESSIONS_LIMIT = 15
"""Sessions at the same time. AWS's limit."""


@dataclass(frozen=True, slots=True)
class TailedEvent:
    """One event as a live tail shows it."""

    group: str
    stream: str
    timestamp_ms: int
    ingested_at_ms: int
    message: str


@dataclass(frozen=True, slots=True)
class Update:
    """What came since the last update; `sampled` when there was more than is shown."""

    events: Sequence[TailedEvent]
    sampled: bool


class LiveTail:
    """One session. `wants` and `add` are the writer thread's, the rest the event loop's."""

    def __init__(
        self, groups: Sequence[str], streams: Sequence[str], prefixes: Sequence[str], matches: Matches
    ) -> None:
        self.groups = tuple(groups)
        self._streams = frozenset(streams)
        self._prefixes = tuple(prefixes)
        self._matches = matches
        self._lock = threading.Lock()
        self._events: list[TailedEvent] = []
        self._more = False
        self._ended = asyncio.Event()

    def wants(self, stream: str, message: str) -> bool:
        """Return whether the session shows this event."""
        if self._streams and stream not in self._streams:
            return False
        if self._prefixes and not stream.startswith(self._prefixes):
            return False
        return self._matches(message)

    def add(self, event: TailedEvent) -> None:
        """Keep an event for the next update."""
        with self._lock:
            if len(self._events) < EVENTS_LIMIT:
                self._events.append(event)
            else:
                self._more = True

    def take(self) -> Update:
        """Return what came since the last call."""
        with self._lock:
            update = Update(self._events, self._more)
            self._events, self._more = [], False
            return update

    async def updates(self) -> AsyncIterator[Update]:
        """Yield an update each second, until the session's time is over."""
        end_s = clock.monotonic_s() + SESSION_LIMIT_S
        while clock.monotonic_s() < end_s:
            try:
                async with asyncio.timeout(UPDATE_INTERVAL_S):
                    await self._ended.wait()
                return
            except TimeoutError:
                yield self.take()

    def end(self) -> None:
        """Let `updates` end at once."""
        self._ended.set()
