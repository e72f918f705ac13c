"""When timers fire: those that are due are read from the ledger, again and again; what sleeps here only hastens it.

An execution whose timer cannot fire (its row cannot be read, say) is set aside for a while, so that it does not stand in the way
of others.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from functools import partial

from entrepot import clock
from entrepot.database import Database

from . import executions

TIMER_PAGE = 200
"""Timers that fire together."""

TIMER_POLL_S = 5.0
"""The timers are read again after this time even if nobody hastened: the clock may have been set, or another process set one."""

ASIDE_S = 5.0
"""A timer that is due still after it fired is tried again after this time."""

_log = logging.getLogger(__name__)


class Timers:
    """The next timers of all executions. For the event loop's thread."""

    def __init__(self, database: Database, fire: Callable[[int], Awaitable[None]]) -> None:
        self._database = database
        self._fire = fire
        self._hastened = asyncio.Event()
        self._next_due_ms: int | None = None
        self._aside: dict[tuple[int, int], float] = {}

    def hasten(self, due_at_ms: int) -> None:
        """A timer was set: look earlier than planned if need be."""
        if self._next_due_ms is None or due_at_ms < self._next_due_ms:
            self._hastened.set()

    async def watch(self) -> None:
        """Fire what is due, for ever."""
        fired: set[tuple[int, int]] = set()
        while True:
            self._hastened.clear()
            try:
                fired, delay_s = await self._fire_due(fired)
            except Exception:  # noqa: BLE001 - the task's top frame: whatever it was, timers must go on
                _log.exception("the timers of executions could not be read; they are read again in %s s", TIMER_POLL_S)
                delay_s = TIMER_POLL_S
            if delay_s > 0:
                # Not wait_for: until Python 3.12 it forgets a cancellation that comes together with what it waits for.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(delay_s):
                        await self._hastened.wait()

    async def _fire_due(self, fired: set[tuple[int, int]]) -> tuple[set[tuple[int, int]], float]:
        """Fire a page of what is due; return it, and after how many seconds to look again. `fired`: the page before."""
        page = await self._database.read(partial(executions.due, limit=TIMER_PAGE + len(self._aside)))
        now_s = clock.monotonic_s()
        aside = self._aside | dict.fromkeys(fired.intersection(page), now_s + ASIDE_S)
        self._aside = {timer: until_s for timer, until_s in aside.items() if until_s > now_s}
        waiting = [timer for timer in page if timer not in self._aside]
        now_ms = clock.now_ms()
        due = [timer for timer in waiting if timer[1] <= now_ms]
        if due:
            await asyncio.gather(*(self._fire(execution_id) for execution_id, _ in due))
            return set(due), 0.0
        self._next_due_ms = waiting[0][1] if waiting else None
        return set(), min(TIMER_POLL_S, (waiting[0][1] - now_ms) / 1_000) if waiting else TIMER_POLL_S
