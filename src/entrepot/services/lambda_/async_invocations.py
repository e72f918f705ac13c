"""Asynchronous invocations: a durable queue in the ledger, retried as AWS does, with destinations and dead letters.

Queued in the caller's transaction, removed when the function has answered. The outcome's record commits with the removal.
A crash in between runs the invocation again: at least once, as AWS. What failed for good and went nowhere else is kept.

Source: https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from entrepot import clock, faults, ids
from entrepot.database import Database, Reader, Row, Transaction
from entrepot.errors import AwsError, EntrepotError
from entrepot.services.lambda_ import event_invoke_config
from entrepot.services.lambda_.configuration import FunctionConfiguration, Reference
from entrepot.services.lambda_.destinations import Condition, Destinations, Outcome
from entrepot.services.lambda_.errors import RequestTooLargeError, ResourceNotFoundError, TooManyRequestsError
from entrepot.services.lambda_.invocation import InvocationResult, error_payload

ASYNC_PAYLOAD_LIMIT_BYTES = 1_048_576
"""An asynchronous payload. AWS's limit (1 MB)."""

RETRY_DELAYS_S = (60.0, 120.0)
"""After the first and second failed attempt. AWS's delays."""

THROTTLE_DELAY_S, THROTTLE_DELAY_LIMIT_S = 1.0, 300.0
"""A throttled attempt, or one that the server could not make, does not count; the pauses double, as AWS documents."""

IN_FLIGHT_LIMIT = 64
"""Asynchronous invocations that run or wait for a worker at the same time."""

IN_FLIGHT_FUNCTION_LIMIT = 16
"""Of one function, so that one that hangs does not hold up the others."""

DEAD_KEPT_MS = 14 * 86_400_000
"""Dead invocations are deleted after this time."""

POLL_INTERVAL_S = 5.0
"""How often the queue is looked at without a hint."""

Invoke: TypeAlias = Callable[[Reference, bytes, str], Awaitable[InvocationResult]]
"""(function, payload, request id) → result."""

FindFunction: TypeAlias = Callable[[Reader, Reference], FunctionConfiguration]
"""Returns the version that a reference stands for; raises ResourceNotFoundError."""

_log = logging.getLogger("entrepot.lambda")

_COLUMNS = "request_id, function_name, qualifier, attempts, due_at_ms, created_at_ms"


@dataclass(frozen=True, slots=True)
class Queued:
    """An invocation that waits, without its payload, which may be large. `attempts` counts those that failed."""

    request_id: str
    function_name: str
    qualifier: str
    attempts: int
    due_at_ms: int
    created_at_ms: int

    @property
    def reference(self) -> Reference:
        return Reference(self.function_name, self.qualifier)


@dataclass(frozen=True, slots=True)
class _Attempt:
    """How one attempt ended. `error` is None after a success; `counts` is 0 for what may be repeated for hours."""

    payload: bytes
    response: bytes
    error: str | None = None
    counts: int = 1
    status_code: int = 200
    function_error: str | None = None
    version: str = "$LATEST"
    is_final: bool = False


class AsyncInvocations:
    """The queue and the task that works it off."""

    def __init__(
        self,
        database: Database,
        invoke: Invoke,
        find_function: FindFunction,
        destinations: Destinations,
        on_dead: Callable[[str, str, str], None],
        retry_delays_s: Sequence[float] = RETRY_DELAYS_S,
    ) -> None:
        self._database = database
        self._invoke = invoke
        self._find_function = find_function
        self._destinations = destinations
        self._on_dead = on_dead
        self._retry_delays_s = tuple(retry_delays_s)
        self._wake = asyncio.Event()
        self._in_flight: dict[str, asyncio.Task[None]] = {}
        self._per_function: dict[str, int] = {}
        self._last_function = ""
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

    def queue(self, tx: Transaction, reference: Reference, payload: bytes, request_id: str | None = None) -> str:
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
            "(request_id, function_name, qualifier, payload, state, attempts, due_at_ms, created_at_ms) "
            "VALUES (?, ?, ?, ?, 'waiting', 0, ?, ?) ON CONFLICT (request_id) DO NOTHING",
            (request_id, reference.name, reference.qualifier, payload, now_ms, now_ms),
        )
        tx.after_commit(self._wake.set)
        return request_id

    @staticmethod
    def backlog(reader: Reader) -> tuple[int, int]:
        """Return how many invocations are not finished, and when the oldest of them was queued (0 when there is none)."""
        row = reader.one("SELECT count(*), min(created_at_ms) FROM lambda_async_invocation WHERE state = 'waiting'", ())
        return (int(row[0]), int(row[1] or 0)) if row else (0, 0)

    async def dead(self, limit: int = 100) -> list[Row]:
        """Return (request_id, function_name, payload, attempts, created_at_ms, error) of dead ones, newest first."""
        return await self._database.read(
            lambda reader: reader.all(
                "SELECT request_id, function_name, payload, attempts, created_at_ms, error "
                "FROM lambda_async_invocation WHERE state = 'dead' ORDER BY due_at_ms DESC LIMIT ?",
                (limit,),
            )
        )

    # ── the queue ────────────────────────────────────────────────────────────────────────────────────────────────

    async def _run_forever(self) -> None:
        await self._forget_old_dead()
        while True:
            self._wake.clear()
            try:
                delay_s = await self._start_due()
            except EntrepotError as error:
                _log.error("Asynchronous invocations could not be read: %s They are tried again.", error)
                delay_s = POLL_INTERVAL_S
            except Exception:  # noqa: BLE001 - the task's top frame: the queue must go on
                _log.exception("Asynchronous invocations could not be started. They are tried again.")
                delay_s = POLL_INTERVAL_S
            # Not wait_for: until Python 3.12 it forgets a cancellation that comes together with what it waits for.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self._wake.wait()

    async def _start_due(self) -> float:
        """Start what is due, each function in its turn, as far as there is room; return when to look again, in seconds."""
        rows = await self._database.read(self._waiting)
        now_ms, delay_s = clock.now_ms(), POLL_INTERVAL_S
        for queued in rows:
            name = queued.function_name
            if queued.request_id in self._in_flight:
                continue
            if queued.due_at_ms > now_ms:
                delay_s = min(delay_s, (queued.due_at_ms - now_ms) / 1000)
                continue
            if len(self._in_flight) >= IN_FLIGHT_LIMIT:
                break  # the end of one wakes us
            if self._per_function.get(name, 0) >= IN_FLIGHT_FUNCTION_LIMIT:
                continue
            self._per_function[name] = self._per_function.get(name, 0) + 1
            self._last_function = name
            self._in_flight[queued.request_id] = asyncio.create_task(self._run(queued))
        return delay_s

    def _waiting(self, reader: Reader) -> list[Queued]:
        """Return the oldest waiting invocations of each function, beginning after the one that was served last."""
        names: list[str] = []
        after = ""
        while len(names) < IN_FLIGHT_LIMIT * 4:
            row = reader.one(
                "SELECT function_name FROM lambda_async_invocation WHERE state = 'waiting' AND function_name > ? "
                "ORDER BY function_name LIMIT 1",
                (after,),
            )
            if row is None:
                break
            after = row[0]
            names.append(after)
        names.sort(key=lambda name: (name <= self._last_function, name))
        found: list[list[Queued]] = []
        for name in names:
            running = self._per_function.get(name, 0)
            rows = reader.all(
                f"SELECT {_COLUMNS} FROM lambda_async_invocation WHERE state = 'waiting' AND function_name = ? "  # noqa: S608
                "ORDER BY due_at_ms LIMIT ?",
                (name, 1 if running >= IN_FLIGHT_FUNCTION_LIMIT else IN_FLIGHT_FUNCTION_LIMIT + running),
            )
            found.append([Queued(*row) for row in rows])
        most = max(map(len, found), default=0)
        return [queue[place] for place in range(most) for queue in found if place < len(queue)]

    # ── one invocation ───────────────────────────────────────────────────────────────────────────────────────────

    async def _run(self, queued: Queued) -> None:
        name, request_id = queued.function_name, queued.request_id
        try:
            attempt = await self._attempt(queued)
            faults.reach("lambda.after-invocation")
            await self._database.write(lambda tx: self._record(tx, queued, attempt))
        except EntrepotError as failure:
            _log.error("The outcome of the invocation %s of %s is not recorded: %s", request_id, name, failure)
            await asyncio.sleep(POLL_INTERVAL_S)
        except Exception:  # noqa: BLE001 - the task's top frame: it is tried again, but not at once
            _log.exception("The invocation %s of %s broke here. It is tried again.", request_id, name)
            await asyncio.sleep(POLL_INTERVAL_S)
        finally:
            del self._in_flight[request_id]
            self._per_function[name] -= 1
            if not self._per_function[name]:
                del self._per_function[name]
            self._wake.set()

    async def _attempt(self, queued: Queued) -> _Attempt:
        """Run the function once."""
        payload = await self._database.read(lambda reader: _payload(reader, queued.request_id))
        try:
            result = await self._invoke(queued.reference, payload, queued.request_id)
        except AwsError as error:
            text = f"{error.code}: {error.message}"
            disabled = (
                isinstance(error, TooManyRequestsError)
                and error.members.get("Reason") == "ReservedFunctionConcurrentInvocationLimitExceeded"
                and await self._is_disabled(queued)
            )
            gone = isinstance(error, ResourceNotFoundError) or disabled
            again = isinstance(error, TooManyRequestsError) or error.status >= 500
            response = error_payload(error.code, error.message)
            counts = 0 if again or gone else 1
            return _Attempt(payload, response, text[:2_000], counts, error.status, is_final=gone)
        failed = result.error()
        if failed is None:
            return _Attempt(payload, result.payload, version=result.executed_version)
        text = f"{failed[0]}: {failed[1]}"[:2_000]
        return _Attempt(
            payload, result.payload, text, function_error=result.function_error, version=result.executed_version
        )

    async def _is_disabled(self, queued: Queued) -> bool:
        """Whether the function's reserved concurrency is 0: its events are given up at once, as AWS does."""
        function = await self._database.read(
            lambda reader: self._find_function(reader, Reference(queued.function_name))
        )
        return function.reserved_concurrency == 0

    def _record(self, tx: Transaction, queued: Queued, attempt: _Attempt) -> None:
        """Remove what succeeded; postpone what failed, or give it up."""
        config = event_invoke_config.find(tx, queued.reference) or event_invoke_config.DEFAULT
        attempts = queued.attempts + attempt.counts
        if attempt.error is None:
            self._remove(tx, queued)
            if config.on_success_arn is not None:
                self._send(tx, queued, attempt, config.on_success_arn, "Success", attempts)
            return
        now_ms = clock.now_ms()
        age_s = (now_ms - queued.created_at_ms) / 1000
        if attempt.counts:
            delays_s = self._retry_delays_s[: config.retry_attempts]
            exhausted = attempts > len(delays_s)
            delay_s = 0.0 if exhausted else delays_s[attempts - 1]
        else:
            exhausted = attempt.is_final
            delay_s = min(max(THROTTLE_DELAY_S, age_s), THROTTLE_DELAY_LIMIT_S)
        if not exhausted and age_s + delay_s <= config.event_age_s:
            tx.execute(
                "UPDATE lambda_async_invocation SET attempts = ?, due_at_ms = ?, error = ? WHERE request_id = ?",
                (attempts, now_ms + int(delay_s * 1000), attempt.error, queued.request_id),
            )
            return
        self._give_up(
            tx,
            queued,
            attempt,
            config.on_failure_arn,
            "RetriesExhausted" if exhausted else "EventAgeExceeded",
            attempts,
        )

    def _give_up(
        self, tx: Transaction, queued: Queued, attempt: _Attempt, destination_arn: str | None, condition: Condition,
        attempts: int,
    ) -> None:  # fmt: skip
        """Hand the event on to where failures go; without such a place, or when it cannot be reached, keep it."""
        sent = [
            self._send(tx, queued, attempt, arn, condition, attempts)
            for arn in (destination_arn, self._dead_letter_arn(tx, queued))
            if arn
        ]
        if any(sent):
            self._remove(tx, queued)
        else:
            tx.execute(
                "UPDATE lambda_async_invocation SET state = 'dead', attempts = ?, due_at_ms = ?, error = ? "
                "WHERE request_id = ?",
                (attempts, clock.now_ms(), attempt.error, queued.request_id),
            )
        error = attempt.error or ""
        tx.after_commit(lambda: self._on_dead(queued.function_name, queued.request_id, error))

    def _dead_letter_arn(self, tx: Transaction, queued: Queued) -> str | None:
        try:
            return self._find_function(tx, queued.reference).dead_letter_arn or None
        except ResourceNotFoundError:
            return None

    def _send(
        self, tx: Transaction, queued: Queued, attempt: _Attempt, arn: str, condition: Condition, attempts: int
    ) -> bool:
        """Send the outcome to a destination, or the event to the dead-letter queue; whether that took it."""
        outcome = Outcome(
            queued.request_id,
            self._destinations.executed_arn(queued.function_name, queued.qualifier or attempt.version),
            condition,
            attempts,
            attempt.payload,
            attempt.response,
            attempt.status_code,
            attempt.version,
            attempt.function_error,
            attempt.error or "",
        )
        try:
            function = self._find_function(tx, queued.reference)
            with tx.savepoint():
                if arn == function.dead_letter_arn and condition != "Success":
                    self._destinations.send_dead_letter(tx, function, outcome)
                else:
                    self._destinations.send_outcome(tx, function, arn, outcome)
        except AwsError as error:
            _log.error(
                "The outcome (%s) of the invocation %s of %s could not be sent to %s: %s: %s",
                condition, queued.request_id, queued.function_name, arn, error.code, error.message,
            )  # fmt: skip
            return False
        return True

    @staticmethod
    def _remove(tx: Transaction, queued: Queued) -> None:
        tx.execute("DELETE FROM lambda_async_invocation WHERE request_id = ?", (queued.request_id,))

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


def _payload(reader: Reader, request_id: str) -> bytes:
    row = reader.one("SELECT payload FROM lambda_async_invocation WHERE request_id = ?", (request_id,))
    return b"{}" if row is None else bytes(row[0])
