"""SQS: the queues of one account, for the operations and for other rooms."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeAlias

from entrepot import clock, faults
from entrepot.arns import Account
from entrepot.database import Database, Transaction
from entrepot.errors import StorageError
from entrepot.services.sqs import queues, receiving, sending, sweeping
from entrepot.services.sqs.errors import OverLimit, QueueDoesNotExist
from entrepot.services.sqs.receiving import Received
from entrepot.services.sqs.sending import Message, Sent

EndpointUrl: TypeAlias = Callable[[], str]
"""Returns the URL under which the operations are served, which every queue's URL begins with."""

LONG_POLLS_LIMIT = 5_000
"""Callers that wait for messages at the same time."""

POLL_S = 1.0
"""How often a waiting caller looks without a signal, for what other processes sent."""

SWEEP_INTERVAL_S = 5.0
"""How often messages of deleted queues, old messages and old de-duplication ids are looked for."""

_log = logging.getLogger(__name__)


class SQS:
    """Amazon SQS. `start` and `stop` its sweeper."""

    def __init__(self, database: Database, account: Account, *, endpoint_url: EndpointUrl) -> None:
        self.database = database
        self.account = account
        self._endpoint_url = endpoint_url
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._waiting_count = 0
        self._stopping = False
        self._sweeping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to sweep away what nobody can receive any more."""
        self._sweeping = asyncio.create_task(self._sweep_forever(), name="sqs-sweep")

    async def stop(self) -> None:
        """Stop sweeping; callers that wait for messages are answered with what there is."""
        self._stopping = True
        for queue_name in list(self._waiting):
            self.wake(queue_name)
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.gather(self._sweeping, return_exceptions=True)
            self._sweeping = None

    # ── names ────────────────────────────────────────────────────────────────────────────────────────────────────

    def queue_arn(self, queue_name: str) -> str:
        """Return a queue's ARN."""
        return self.account.arn("sqs", queue_name)

    def queue_url(self, queue_name: str) -> str:
        """Return a queue's URL."""
        return f"{self._endpoint_url()}/{self.account.account_id}/{queue_name}"

    def queue_name(self, queue_url: str) -> str:
        """Return the name in a queue's URL, whatever host it names; raise QueueDoesNotExist for another account."""
        parts = queue_url.rstrip("/").split("/")
        if len(parts) > 1 and parts[-2] != self.account.account_id:
            raise QueueDoesNotExist
        return parts[-1]

    # ── messages ─────────────────────────────────────────────────────────────────────────────────────────────────

    def send_message(self, tx: Transaction, queue_name: str, message: Message, sender_id: str) -> Sent:
        """Send a message within the caller's transaction; raises the AwsErrors of SendMessage."""
        queue = queues.get(tx, queue_name)
        sent = sending.send(tx, queue, message, sender_id)
        tx.after_commit(lambda: self.wake(queue_name))
        return sent

    def wake(self, queue_name: str) -> None:
        """Let those who wait for messages of a queue look again."""
        for event in self._waiting.get(queue_name, ()):
            event.set()

    async def receive(
        self, queue_name: str, *, limit: int, visibility_s: int | None, wait_s: int | None, attempt_id: str | None
    ) -> list[Received]:
        """Receive up to `limit` messages, waiting up to `wait_s` seconds for the first of them."""
        queue = await self.database.read(lambda reader: queues.get(reader, queue_name))
        deadline_s = clock.monotonic_s() + (queue.number("ReceiveMessageWaitTimeSeconds") if wait_s is None else wait_s)
        if self._waiting_count >= LONG_POLLS_LIMIT:
            raise OverLimit(f"{LONG_POLLS_LIMIT} callers wait for messages already; try again later.")
        arrived = asyncio.Event()
        self._waiting.setdefault(queue_name, set()).add(arrived)
        self._waiting_count += 1
        try:
            while True:
                arrived.clear()
                found, pause_s = await self._look(queue_name, limit, visibility_s, attempt_id)
                left_s = deadline_s - clock.monotonic_s()
                if found or left_s <= 0 or self._stopping:
                    return found
                # Not wait_for: until Python 3.12 it forgets a cancellation that comes together with what it waits for.
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(left_s, pause_s)):
                        await arrived.wait()
        finally:
            self._waiting_count -= 1
            waiting = self._waiting[queue_name]
            waiting.discard(arrived)
            if not waiting:
                del self._waiting[queue_name]

    async def _look(
        self, queue_name: str, limit: int, visibility_s: int | None, attempt_id: str | None
    ) -> tuple[list[Received], float]:
        """Receive what is there now; else say after how many seconds to look again."""

        def work(tx: Transaction) -> list[Received]:
            queue = queues.get(tx, queue_name)
            timeout_s = queue.number("VisibilityTimeout") if visibility_s is None else visibility_s
            found = receiving.receive(tx, self.account, queue, limit, timeout_s, attempt_id)
            if queue.redrive_policy is not None:
                target_name = queue.redrive_policy.dead_letter_queue_name
                tx.after_commit(lambda: self.wake(target_name))
            return found

        at_ms = clock.now_ms()
        if attempt_id is None:  # An empty queue costs no transaction.
            next_ms = await self.database.read(
                lambda reader: receiving.next_visible_ms(reader, queues.get(reader, queue_name))
            )
            if next_ms is None or next_ms > at_ms:
                return [], POLL_S if next_ms is None else min(POLL_S, (next_ms - at_ms) / 1000)
        found = await self.database.write(work)
        faults.reach("sqs.after-receive")
        return found, POLL_S

    # ── sweeping ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def _sweep_forever(self) -> None:
        while True:
            try:
                await self.sweep()
            except StorageError as error:
                _log.warning("Old messages could not be removed, will try again: %s", error)
            except Exception:  # noqa: BLE001 - the task's top frame
                _log.exception("Old messages could not be removed, will try again")
            await asyncio.sleep(SWEEP_INTERVAL_S)

    async def sweep(self) -> None:
        """Remove what is left of deleted and purged queues, messages past their retention, and old ids."""
        while await self.database.read(sweeping.doomed):
            await self.database.write(sweeping.sweep_doomed)
        at_ms = clock.now_ms()
        for queue_name in await self.database.scan(lambda reader: sweeping.expired(reader, at_ms)):
            while await self.database.write(partial(_sweep_expired, queue_name, at_ms)):
                pass
        while await self.database.read(lambda reader: sweeping.old_ids(reader, at_ms)):
            await self.database.write(lambda tx: sweeping.sweep_ids(tx, at_ms))


def _sweep_expired(queue_name: str, at_ms: int, tx: Transaction) -> bool:
    return sweeping.sweep_expired(tx, queue_name, at_ms)
