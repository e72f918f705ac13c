"""Asynchronous invocations: a durable queue in the ledger, run with AWS's two retries, then kept as dead with the error.

Queued in the caller's transaction, removed when the function has answered without an error. A crash in between runs the
invocation again: at least once, as AWS.

Source: https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from entrepot import clock, faults, ids
from entrepot.database import Database, Reader, Row, Transaction
from entrepot.errors import AwsError, EntrepotError
from entrepot.services.lambda_.errors import RequestTooLargeError, ResourceNotFoundError, TooManyRequestsError
from entrepot.services.lambda_.invocation import InvocationResult

ASYNC_PAYLOAD_LIMIT_BYTES = 1_048_576
"""An asynchronous payload. AWS's limit (1 MB)."""

RETRY_DELAYS_S = (60.0, 120.0)
"""After the first and second failed attempt. AWS's delays."""

THROTTLE_DELAY_S = 5.0
"""A throttled attempt does not count; it is repeated after this time until MAX_AGE_S."""

MAX_AGE_S = 6 * 3600.0
"""An event older than this is not tried again. AWS's default."""

IN_FLIGHT_LIMIT = 32
"""Asynchronous invocations that run or wait for a worker at the same time."""

DEAD_KEPT_MS = 14 * 86_400_000
"""Dead invocations are deleted after this time."""

POLL_INTERVAL_S = 5.0
"""How often the queue is looked at without a hint."""

Invoke: TypeAlias = Callable[[str, bytes, str], Awaitable[InvocationResult]]
"""(function name, payload, request id) → result."""

_log = logging.getLogger("entrepot.lambda")


class AsyncInvocations:
    """The queue and the task that works it off."""

    def __init__(
        self,
        database: Database,
        invoke: Invoke,
        on_dead: Callable[[str, str, str], None],
        retry_delays_s: Sequence[float] = RETRY_DELAYS_S,
    ) -> None:
        self._database = database
        self._invoke = invoke
        self._on_dead = on_dead
        self._retry_delays_s = tuple(retry_delays_s)
        self._wake = asyncio.Event()
        self._in_flight: dict[str, asyncio.Task[None]] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Work off what waits."""
        self._task = asyncio.create_task(self._run_forever(), name="lambda-async")

    async def stop(self) -> None:
        """Stop; what was under way runs again after the next start."""
        tasks = [*self._in_flight.values(), *([self._task] if self._task else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def queue(self, tx: Transaction, function_name: str, payload: bytes, request_id: str | None = None) -> str:
        """Queue an invocation in the caller's transaction; return its request id.

        The same `request_id` queues once. RequestTooLargeError beyond 1 MB.
        """
        if len(payload) > ASYNC_PAYLOAD_LIMIT_BYTES:
            raise RequestTooLargeError(
                f"{len(payload)} byte payload is too large for the Event invocation type "
                f"(limit {ASYNC_PAYLOAD_LIMIT_BYTES} bytes)"
            )
        request_id = request_id or ids.random_uuid()
        now_ms = clock.now_ms()
        tx.execute(
            "INSERT INTO lambda_async_invocation "
            "(request_id, function_name, payload, state, attempts, due_at_ms, created_at_ms) "
            "VALUES (?, ?, ?, 'waiting', 0, ?, ?) ON CONFLICT (request_id) DO NOTHING",
            (request_id, function_name, payload, now_ms, now_ms),
        )
        tx.after_commit(self._wake.set)
        return request_id

    async def dead(self, limit: int = 100) -> list[Row]:
        """Return (request_id, function_name, payload, attempts, created_at_ms, error) of dead ones, newest first."""
        return await self._database.read(
            lambda reader: reader.all(
                "SELECT request_id, function_name, payload, attempts, created_at_ms, error "
                "FROM lambda_async_invocation WHERE state = 'dead' ORDER BY due_at_ms DESC LIMIT ?",
                (limit,),
            )
        )

    async def _run_forever(self) -> None:
        await self._forget_old_dead()
        while True:
            self._wake.clear()
            try:
                delay_s = await self._start_due()
            except EntrepotError as error:
                _log.error("Asynchronous invocations could not be read: %s They are tried again.", error)
                delay_s = POLL_INTERVAL_S
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), delay_s)

    async def _start_due(self) -> float:
        """Start what is due, as far as there is room; return after how many seconds to look again."""
        rows = await self._database.read(self._waiting)
        now_ms = clock.now_ms()
        for request_id, name, payload, attempts, due_at_ms, created_at_ms in rows:
            if len(self._in_flight) >= IN_FLIGHT_LIMIT:
                return POLL_INTERVAL_S  # the end of one wakes us
            if request_id in self._in_flight:
                continue
            if due_at_ms > now_ms:
                return min(POLL_INTERVAL_S, float(due_at_ms - now_ms) / 1000)
            task = asyncio.create_task(self._attempt(request_id, name, payload, attempts, created_at_ms))
            self._in_flight[request_id] = task
        return POLL_INTERVAL_S

    @staticmethod
    def _waiting(reader: Reader) -> list[Row]:
        return reader.all(
            "SELECT request_id, function_name, payload, attempts, due_at_ms, created_at_ms "
            "FROM lambda_async_invocation WHERE state = 'waiting' ORDER BY due_at_ms LIMIT ?",
            (2 * IN_FLIGHT_LIMIT,),
        )

    async def _attempt(self, request_id: str, name: str, payload: bytes, attempts: int, created_at_ms: int) -> None:
        try:
            error, counts = await self._outcome(name, payload, request_id)
            faults.reach("lambda.after-invocation")
            await self._record(request_id, name, error, attempts + counts, bool(counts), created_at_ms)
        except EntrepotError as failure:
            _log.error("The outcome of the invocation %s of %s is not recorded: %s", request_id, name, failure)
            await asyncio.sleep(POLL_INTERVAL_S)
        finally:
            del self._in_flight[request_id]
            self._wake.set()

    async def _outcome(self, name: str, payload: bytes, request_id: str) -> tuple[str | None, int]:
        """Run once; return the error if there was one, and whether the attempt counts (1 or 0)."""
        try:
            result = await self._invoke(name, payload, request_id)
        except ResourceNotFoundError as error:
            return f"{error.code}: {error.message}", len(self._retry_delays_s) + 1
        except TooManyRequestsError as error:
            return f"{error.code}: {error.message}", 0
        except AwsError as error:
            return f"{error.code}: {error.message}", 1
        failed = result.error()
        return (None if failed is None else f"{failed[0]}: {failed[1]}"[:2_000]), 1

    async def _record(
        self, request_id: str, name: str, error: str | None, attempts: int, counted: bool, created_at_ms: int
    ) -> None:
        """Remove what succeeded; postpone what failed, or declare it dead."""
        if error is None:
            await self._database.write(
                lambda tx: tx.execute("DELETE FROM lambda_async_invocation WHERE request_id = ?", (request_id,))
            )
            return
        now_ms = clock.now_ms()
        dead = attempts > len(self._retry_delays_s) or now_ms - created_at_ms > MAX_AGE_S * 1000
        delay_s = 0.0 if dead else self._retry_delays_s[attempts - 1] if counted else THROTTLE_DELAY_S
        await self._database.write(
            lambda tx: tx.execute(
                "UPDATE lambda_async_invocation SET state = ?, attempts = ?, due_at_ms = ?, error = ? "
                "WHERE request_id = ?",
                ("dead" if dead else "waiting", attempts, now_ms + int(delay_s * 1000), error, request_id),
            )
        )
        if dead:
            self._on_dead(name, request_id, error)

    async def _forget_old_dead(self) -> None:
        before_ms = clock.now_ms() - DEAD_KEPT_MS
        try:
            await self._database.write(
                lambda tx: tx.execute(
                    "DELETE FROM lambda_async_invocation WHERE state = 'dead' AND due_at_ms < ?", (before_ms,)
                )
            )
        except EntrepotError as error:
            _log.error("Old dead invocations were not deleted: %s", error)
