"""The deliverer: one task for each subscription that has something waiting, with back-off of its own."""

import asyncio
import json
import logging
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence

from entrepot import clock
from entrepot.arns import Account
from entrepot.errors import AwsError, StorageError
from entrepot.loglines import LogLine, WriteLog
from entrepot.services.logs.errors import InvalidParameterError
from entrepot.services.logs.ports import DeliveryStream, InvokeFunction
from entrepot.services.logs.store import Store
from entrepot.services.logs.subscriptions import awslogs, bulk
from entrepot.services.logs.subscriptions.batches import Batch, Event, Work, forget, next_work, waiting_filters
from entrepot.services.logs.subscriptions.bulk import DeliveryFailedError

DELIVERY_LOG_GROUP = "/entrepot/log-deliveries"
"""What went wrong with deliveries, a stream for each filter."""

FIRST_PAUSE_S = 1.0
"""The pause after a first failure; it doubles with each further one."""

LONGEST_PAUSE_S = 300.0

AT_ONCE_LIMIT = 8
"""Exchanges with destinations at the same time."""

REJECTED_TOLD = 20
"""Of the events that a destination refuses in one answer, so many are told one by one."""

_log = logging.getLogger("entrepot.logs")


class Deliveries:
    """All deliveries of subscription filters. `wake` may be called from any thread."""

    def __init__(
        self,
        account: Account,
        invoke_function: InvokeFunction | None,
        streams: Sequence[DeliveryStream],
        write_log: WriteLog,
    ) -> None:
        self._account = account
        self._invoke = invoke_function
        self._streams = {account.arn("firehose", f"deliverystream/{stream.name}"): stream for stream in streams}
        self._write_log = write_log
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken: set[int] = set()
        self._something = asyncio.Event()
        self._running: dict[int, asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(AT_ONCE_LIMIT)

    # ── what is subscribed ───────────────────────────────────────────────────────────────────────────────────────

    async def check(self, group: str, destination_arn: str) -> None:
        """Raise InvalidParameterError unless a group's events can be delivered to a destination."""
        if destination_arn in self._streams:
            return
        if ":firehose:" in destination_arn:
            raise InvalidParameterError(
                "Could not deliver test message to specified Firehose stream. Check if the given Firehose stream is in ACTIVE "
                f"state. (Deliveries are named in stack.toml: [log_deliveries.{destination_arn.rpartition('/')[2]}].)"
            )
        if ":lambda:" not in destination_arn or self._invoke is None:
            raise InvalidParameterError(
                "destinationArn must be of a function, or of a Firehose stream that [log_deliveries] of stack.toml names."
            )
        if destination_arn.split(":function:")[-1].split(":")[0] == group.removeprefix("/aws/lambda/"):
            raise InvalidParameterError(
                "The function writes to this log group itself: each delivery would make the next one."
            )
        try:
            await self._invoke(destination_arn, b"", self._source(group))
        except AwsError as error:
            raise InvalidParameterError(
                "Could not execute the lambda function. Make sure you have given CloudWatch Logs permission to execute your "
                f"function. ({error.message})"
            ) from error

    def _source(self, group: str) -> str:
        return self._account.arn("logs", f"log-group:{group}:*")

    # ── the task ─────────────────────────────────────────────────────────────────────────────────────────────────

    def wake(self, filter_ids: Iterable[int]) -> None:
        """Say that there is something to deliver for these filters."""
        ids = set(filter_ids)
        if ids and self._loop is not None:
            self._loop.call_soon_threadsafe(self._wake, ids)

    def _wake(self, filter_ids: Iterable[int]) -> None:
        self._woken.update(filter_ids)
        self._something.set()

    async def keep(self, store: Store) -> None:
        """Deliver for ever, beginning with what an earlier process left."""
        self._loop = asyncio.get_running_loop()
        try:
            self._wake(await store.read(waiting_filters))
            while True:
                await self._something.wait()
                self._something.clear()
                for filter_id in self._woken - self._running.keys():
                    self._woken.discard(filter_id)
                    task = asyncio.create_task(self._empty(store, filter_id), name=f"logs-subscription-{filter_id}")
                    self._running[filter_id] = task
                    task.add_done_callback(lambda _, i=filter_id: self._ended(i))  # type: ignore[misc]
        finally:
            self._loop = None
            for task in self._running.values():
                task.cancel()
            await asyncio.gather(*self._running.values(), return_exceptions=True)

    def _ended(self, filter_id: int) -> None:
        del self._running[filter_id]
        if self._woken:
            self._something.set()

    async def _empty(self, store: Store, filter_id: int) -> None:
        """Deliver until nothing waits for a filter's destination any more."""
        pauses = _Pauses()
        while True:
            try:
                work = await store.read(lambda session: next_work(session, filter_id))
                if work is None:
                    return
                await self._deliver(store, work, pauses)
            except StorageError as error:
                _log.error("Deliveries of log events wait: %s", error)
                await pauses.pause()
            except Exception:  # noqa: BLE001 - the task's top frame: what waits is tried again
                _log.exception("Delivering log events failed")
                await pauses.pause()

    async def _deliver(self, store: Store, work: Work, pauses: "_Pauses") -> None:
        stream = self._streams.get(work.destination_arn)
        if stream is not None:
            await self._to_bulk(stream, work, pauses, lambda: self._is_there(store, work))
            await self._forget(store, work, work.batches)
            return
        for batches in awslogs.groups(work.batches):
            if not await self._to_function(work, batches, pauses, lambda: self._is_there(store, work)):
                return
            await self._forget(store, work, batches)

    async def _is_there(self, store: Store, work: Work) -> bool:
        """Return whether the filter still has this destination: else nothing is tried again."""
        row = await store.read(
            lambda session: session.one(
                "SELECT 1 FROM subscription_filter WHERE filter_id = ? AND destination_arn = ?",
                (work.filter_id, work.destination_arn),
            )
        )
        return row is not None

    async def _forget(self, store: Store, work: Work, batches: list[Batch]) -> None:
        size = sum(batch.stored_bytes for batch in batches)

        def delete(session: object) -> None:
            forget(session, batches)  # type: ignore[arg-type]
            store.taps.freed(work.filter_id, size)

        await store.run(delete, apart=True)

    # ── to a function ────────────────────────────────────────────────────────────────────────────────────────────

    async def _to_function(
        self, work: Work, batches: list[Batch], pauses: "_Pauses", goes_on: Callable[[], Awaitable[bool]]
    ) -> bool:
        """Invoke the function with batches of one stream; False when the filter has gone meanwhile."""
        events = [event for batch in batches for event in batch.events]
        parts = await asyncio.to_thread(
            lambda: list(awslogs.payloads(self._account.account_id, work.group, work.filter_name, events))
        )
        for _, payload in parts:
            if not payload:
                self._tell(
                    work, "An event is too large for a function: it is not delivered, and stays in its log group."
                )
                continue
            while True:
                try:
                    if self._invoke is None:
                        raise DeliveryFailedError("Functions are not served here.")
                    async with self._slots:
                        await self._invoke(work.destination_arn, payload, self._source(work.group))
                    pauses.over()
                    break
                except (AwsError, DeliveryFailedError) as error:
                    self._tell(work, f"{error} It is tried again in {pauses.next_s:.0f} s.", len(events))
                await pauses.pause()
                if not await goes_on():
                    return False
        return True

    # ── to _bulk ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def _to_bulk(
        self, stream: DeliveryStream, work: Work, pauses: "_Pauses", goes_on: Callable[[], Awaitable[bool]]
    ) -> None:
        """Send events until the endpoint has taken or refused each of them."""
        left = [event for batch in work.batches for event in batch.events]
        most = bulk.EVENTS_LIMIT
        while left:
            count = min(most, bulk.fitting(left))
            try:
                async with self._slots:
                    outcome = await bulk.post(stream, self._account.account_id, work.group, left[:count])
            except bulk.TooLargeError as error:
                if count == 1:
                    self._reject(work, [(left.pop(0), str(error))])
                most = max(1, count // 2)
                continue
            except DeliveryFailedError as error:
                self._tell(work, f"{error} It is tried again in {pauses.next_s:.0f} s.", len(left))
                await pauses.pause()
                if not await goes_on():
                    return
                continue
            left = [*outcome.again, *left[count:]]
            self._reject(work, outcome.rejected)
            if not outcome.again:
                pauses.over()
                continue
            self._tell(
                work,
                f"{stream.url} did not take {len(outcome.again)} of {count} events ({outcome.reason}). They are sent again in "
                f"{pauses.next_s:.0f} s.",
                len(outcome.again),
            )
            await pauses.pause()
            if not await goes_on():
                return

    def _reject(self, work: Work, rejected: Sequence[tuple[Event, str]]) -> None:
        for event, reason in rejected[:REJECTED_TOLD]:
            self._tell(work, f"The event {event.id} of {event.stream} is refused for good: {reason}", 1)
        if len(rejected) > REJECTED_TOLD:
            self._tell(work, f"{len(rejected) - REJECTED_TOLD} more events are refused for good.", len(rejected))

    def _tell(self, work: Work, what: str, events: int = 1) -> None:
        """Say it to the operator, in the server's log and in the log group of deliveries."""
        _log.warning("The subscription filter %s of %s: %s", work.filter_name, work.group, what)
        line = {"logGroup": work.group, "filter": work.filter_name, "destination": work.destination_arn}
        text = json.dumps({**line, "events": events, "message": what}, ensure_ascii=False, separators=(",", ":"))
        self._write_log(DELIVERY_LOG_GROUP, work.filter_name, LogLine(clock.now_ms(), text))


class _Pauses:
    """Growing pauses between failures."""

    def __init__(self) -> None:
        self.next_s = FIRST_PAUSE_S

    async def pause(self) -> None:
        """Wait; the next pause is twice as long."""
        now_s, self.next_s = self.next_s, min(self.next_s * 2, LONGEST_PAUSE_S)
        await asyncio.sleep(now_s * random.uniform(0.8, 1.0))  # noqa: S311 - spreads load, keeps no secret

    def over(self) -> None:
        """Begin with the shortest again."""
        self.next_s = FIRST_PAUSE_S
