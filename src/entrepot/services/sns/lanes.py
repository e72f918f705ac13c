"""The deliverers: a lane per subscription, so that an endpoint that is slow or dead holds up nobody but itself.

A lane lives while something is due for its subscription; what is due later wakes it by a timer. What happened to a batch
is recorded in one transaction; a process that dies before that delivers again (at least once).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeAlias

from entrepot import clock
from entrepot.database import Database, Transaction
from entrepot.errors import StorageError
from entrepot.services.sns import outbox
from entrepot.services.sns.outbox import Batch

IN_FLIGHT_LIMIT = 64
"""Batches under way at the same time, over all subscriptions."""

FAILING_IN_FLIGHT_LIMIT = 16
"""How many of these may be for endpoints whose last delivery failed."""

BATCH_LIMIT = 4
"""Deliveries to one endpoint at the same time."""

POLL_S = 30.0
"""How often the ledger is asked for deliveries that nobody announced."""

RETRY_S = 5.0
"""How long a lane rests when the ledger cannot be used."""

LANES_PAGE = 500

Deliver: TypeAlias = Callable[[Batch], Awaitable[Callable[[Transaction], bool]]]
"""Delivers a batch; returns what records its outcome, which returns whether the endpoint works."""

log = logging.getLogger(__name__)


class Lanes:
    """All lanes of this process."""

    def __init__(self, database: Database, deliver: Deliver, pause_s: Callable[[Batch], float]) -> None:
        """`pause_s` says how long to wait after a batch, where its endpoint takes only so many a second."""
        self._database = database
        self._deliver = deliver
        self._pause_s = pause_s
        self._lanes: dict[int, asyncio.Task[None]] = {}
        self._again: set[int] = set()
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._failing: set[int] = set()
        self._slots = asyncio.Semaphore(IN_FLIGHT_LIMIT)
        self._failing_slots = asyncio.Semaphore(FAILING_IN_FLIGHT_LIMIT)
        self._polling: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Take up what waits from before."""
        self._polling = asyncio.create_task(self._poll_forever(), name="sns-outbox")

    async def stop(self) -> None:
        """Stop; deliveries under way are given up, and made again after the next start."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        tasks = [*self._lanes.values(), *([self._polling] if self._polling is not None else [])]
        self._polling = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def wake(self, subscription_ids: Iterable[int]) -> None:
        """Look at once for what is due for these subscriptions."""
        if self._polling is None:
            return
        for subscription_id in subscription_ids:
            timer = self._timers.pop(subscription_id, None)
            if timer is not None:
                timer.cancel()
            if subscription_id in self._lanes:
                self._again.add(subscription_id)
            else:
                self._lanes[subscription_id] = asyncio.create_task(self._run(subscription_id), name="sns-lane")

    async def _poll_forever(self) -> None:
        while True:
            try:
                after = 0
                while True:
                    found = await self._database.read(
                        lambda reader, after=after: outbox.subscription_ids(reader, after, LANES_PAGE)  # type: ignore[misc]
                    )
                    self.wake(one for one in found if one not in self._lanes and one not in self._timers)
                    if len(found) < LANES_PAGE:
                        break
                    after = found[-1]
            except StorageError as error:
                log.warning("Notifications that wait could not be looked for, will try again: %s", error)
            except Exception:  # the task's top frame
                log.exception("Notifications that wait could not be looked for, will try again")
            await asyncio.sleep(POLL_S)

    async def _run(self, subscription_id: int) -> None:
        rest_s: float | None = None
        try:
            while await self._step(subscription_id):
                pass
            due_at_ms = await self._database.read(lambda reader: outbox.next_due_ms(reader, subscription_id))
            if due_at_ms is not None:
                rest_s = max(0.0, (due_at_ms - clock.now_ms()) / 1000)
            else:
                self._failing.discard(subscription_id)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            if not isinstance(error, StorageError):
                log.exception("Delivering to a subscription failed")
            rest_s = RETRY_S
        finally:
            del self._lanes[subscription_id]
        if self._polling is None:
            return
        if subscription_id in self._again:
            self._again.discard(subscription_id)
            rest_s = 0.0
        if rest_s is not None:
            loop = asyncio.get_running_loop()
            self._timers[subscription_id] = loop.call_later(min(rest_s, 3_600.0), self._timer, subscription_id)

    def _timer(self, subscription_id: int) -> None:
        self._timers.pop(subscription_id, None)
        self.wake((subscription_id,))

    async def _step(self, subscription_id: int) -> bool:
        """Deliver what is due, at most a batch; return whether there may be more."""
        failing = subscription_id in self._failing
        async with self._failing_slots if failing else self._slots:
            self._again.discard(subscription_id)
            limit = 1 if failing else BATCH_LIMIT
            now_ms = clock.now_ms()
            batch = await self._database.read(lambda reader: outbox.due(reader, subscription_id, now_ms, limit))
            if not batch.deliveries:
                return False
            record = await self._deliver(batch)
            works = await self._database.write(record)
        if works:
            self._failing.discard(subscription_id)
        else:
            self._failing.add(subscription_id)
        pause_s = self._pause_s(batch)
        if pause_s > 0:
            await asyncio.sleep(pause_s)
        return True
