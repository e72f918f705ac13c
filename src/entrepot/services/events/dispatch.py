"""Deliveries on their way: a batch of what is due, each to its target.

A target whose operation is a transaction of this ledger (StartExecution) is called in the very transaction that removes
the delivery's row: both happen or neither. Other targets are leased, called outside, and then removed.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeAlias

from entrepot import clock, faults, ids
from entrepot.database import Database, Transaction
from entrepot.errors import AwsError, EntrepotError, InternalError
from entrepot.operations import AsyncOperation, Call, Operations, Permission, Principal
from entrepot.outbound import OutboundError, Send
from entrepot.services.events import api_destinations, delivery, http_invocation, targets
from entrepot.services.events.api_destinations import is_api_destination
from entrepot.services.events.connections import Connections
from entrepot.services.events.delivery import Queued
from entrepot.services.events.errors import ResourceNotFoundError, TargetError
from entrepot.services.events.input import input_text
from entrepot.services.events.outcomes import Outcomes
from entrepot.services.events.rate_limits import RateLimits
from entrepot.services.events.rulebook import Rulebook
from entrepot.services.events.rules import Rule, Target

PrincipalForRole: TypeAlias = Callable[[str, str], Principal]
"""`principal_for_role(role_arn, session_name)`: who a rule is when it calls its target; raises AwsError."""

BATCH_LIMIT = 32
"""Deliveries of one transaction, so that other writers need not wait long."""

IN_FLIGHT_LIMIT = 64
"""Deliveries to targets outside of the ledger that run at the same time."""

IN_FLIGHT_PER_TARGET_LIMIT = 16
"""Of those, to one target: a slow target leaves room for the others."""

LEASE_MS = 120_000
"""After this time a delivery that was begun outside of the ledger is begun again. A start does not wait for it."""

BUSY_PAUSE_MS = 200
"""When a target has as many deliveries in flight as it may have, the next waits this long, and those after it line up."""

BUSY_PAUSE_LIMIT_MS = 60_000
"""The longest wait in such a line; then it is looked at again."""

LINES_LIMIT = 10_000
"""Targets whose lines are remembered; beyond them, those that are over are forgotten."""

STOP_TIMEOUT_S = 5.0
"""How long `stop` waits for deliveries outside of the ledger."""

POLL_S = 1.0
"""How often the queue is looked at without a signal, for what other processes queued."""

UNAUTHORIZED_LIMIT = 10_000
"""Deliveries that were answered with 401 or 407 and wait for a new token."""

_SESSION_NAME = "entrepot-events"
_log = logging.getLogger(__name__)


class Forward(Protocol):
    """Puts an event on another bus of this ledger, in this transaction, when the caller may; raises AwsError."""

    def __call__(self, tx: Transaction, event: Mapping[str, Any], arn: str, call: Call, *, attempt: int) -> None: ...


@dataclass(frozen=True, slots=True)
class _Lease:
    """A delivery that happens outside of the ledger, by whoever holds this."""

    queued: Queued
    rule: Rule
    target: Target


class Dispatch:
    """Delivers what is due."""

    def __init__(
        self,
        database: Database,
        operations: Operations,
        rulebook: Rulebook,
        outcomes: Outcomes,
        *,
        principal_for_role: PrincipalForRole,
        service_principal: Principal,
        forward: Forward,
        wake: Callable[[], None],
        connections: Connections,
        send: Send,
    ) -> None:
        self._database = database
        self._operations = operations
        self._rulebook = rulebook
        self._outcomes = outcomes
        self._principal_for_role = principal_for_role
        self._service_principal = service_principal
        self._forward_event = forward
        self._wake = wake
        self._connections = connections
        self._send = send
        self._rate_limits = RateLimits()
        self._unauthorized: set[int] = set()
        self._lines: dict[str, int] = {}
        """For busy targets: when the last one in the line has its turn (ms). For transactions only."""
        self.in_flight: dict[asyncio.Task[None], str] = {}

    async def start(self) -> None:
        """Take up at once what an earlier process had begun."""
        try:
            await self._database.write(lambda tx: delivery.end_leases(tx, clock.now_ms()))
        except EntrepotError as error:
            _log.error("Deliveries that an earlier process had begun wait for the end of their lease: %s", error)

    async def stop(self) -> None:
        """Wait for deliveries under way, which their leases protect if they are cut off."""
        if self.in_flight:
            _, pending = await asyncio.wait(self.in_flight, timeout=STOP_TIMEOUT_S)
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

    async def deliver_due(self) -> float:
        """Deliver one batch of what is due; return after how many seconds to look again."""
        at_ms = clock.now_ms()
        due_at_ms = await self._database.read(delivery.next_due_ms)
        if due_at_ms is None or due_at_ms > at_ms:
            return POLL_S if due_at_ms is None else min((due_at_ms - at_ms) / 1000, POLL_S)
        busy = tuple(self.in_flight.values())
        try:
            leased = await self._database.write(lambda tx: self._deliver_batch(tx, at_ms, busy))
        except EntrepotError:
            raise
        except Exception:  # noqa: BLE001 - the one that failed is found and recorded below
            _log.exception("A batch of deliveries failed; each is tried alone.")
            leased = await self._deliver_singly(at_ms, busy)
        for lease in leased:
            task = asyncio.create_task(self._deliver_outside(lease), name=f"events-{lease.queued.delivery_id}")
            self.in_flight[task] = lease.target.arn
            task.add_done_callback(self._finished)
        return 0.0

    def _finished(self, task: "asyncio.Task[None]") -> None:
        del self.in_flight[task]
        self._wake()

    # ── inside a transaction ─────────────────────────────────────────────────────────────────────────────────────

    def _deliver_batch(self, tx: Transaction, at_ms: int, busy: tuple[str, ...]) -> list[_Lease]:
        leased: list[_Lease] = []
        for queued in delivery.due(tx, at_ms, BATCH_LIMIT):
            leased += self._deliver(tx, queued, (*busy, *(lease.target.arn for lease in leased)))
        return leased

    async def _deliver_singly(self, at_ms: int, busy: tuple[str, ...]) -> list[_Lease]:
        """Deliver a batch of which one item broke the transaction, so that only that one fails."""
        leased: list[_Lease] = []
        for queued in await self._database.read(lambda reader: delivery.due(reader, at_ms, BATCH_LIMIT)):
            now_busy = (*busy, *(lease.target.arn for lease in leased))
            try:
                leased += await self._database.write(partial(self._deliver_alone, queued, now_busy))
            except EntrepotError:
                raise
            except Exception as error:  # noqa: BLE001 - one delivery's top frame
                _log.exception("Delivery %s (event %s) failed.", queued.delivery_id, queued.event_id)
                await self._set_aside(queued, InternalError(f"{type(error).__name__}: {error}"))
        return leased

    async def _set_aside(self, queued: Queued, failure: AwsError) -> None:
        """Record the failure of a delivery; where even that fails, at least let the others pass."""
        try:
            await self._database.write(partial(self._outcomes.failed, queued, failure))
        except EntrepotError:
            raise
        except Exception:  # noqa: BLE001 - one delivery's top frame
            _log.exception("The failure of delivery %s could not be recorded.", queued.delivery_id)
            later_ms = clock.now_ms() + LEASE_MS
            await self._database.write(
                lambda tx: delivery.postpone(tx, queued.delivery_id, due_at_ms=later_ms, tries=queued.tries + 1)
            )

    def _deliver_alone(self, queued: Queued, busy: tuple[str, ...], tx: Transaction) -> list[_Lease]:
        return self._deliver(tx, queued, busy) if delivery.get(tx, queued.delivery_id) == queued else []

    def _deliver(self, tx: Transaction, queued: Queued, busy: tuple[str, ...]) -> list[_Lease]:
        """Deliver inside this transaction; where that has to happen outside, lease the row and return the lease.

        `busy` are the targets of deliveries under way.
        """
        known = self._rulebook.of(tx, queued.bus_name).target(queued.rule_name, queued.target_id)
        if known is None:
            self._outcomes.failed(queued, _gone(queued), tx)
            return []
        lease = _Lease(queued, *known)
        if targets.is_bus(lease.target.arn):
            self._forward(tx, lease)
            return []
        if is_api_destination(lease.target.arn):
            return self._lease_destination(tx, lease, busy)
        invocation = self._invocation(lease)
        if isinstance(self._operations.find(invocation.service, invocation.operation), AsyncOperation):
            return self._lease(tx, lease, busy)
        faults.reach("events.before-delivery")
        execution_arn = invocation.execution_arn
        try:
            call = self._call(lease)
            response = self._operations.transact(tx, invocation.service, invocation.operation, invocation.request, call)
            execution_arn = response.get("executionArn", execution_arn)
        except AwsError as error:
            if error.code != "ExecutionAlreadyExists":
                self._outcomes.failed(queued, error, tx)
                return []
        self._outcomes.delivered(queued, lease.rule, lease.target, execution_arn, tx)
        faults.reach("events.after-delivery")
        return []

    def _forward(self, tx: Transaction, lease: _Lease) -> None:
        """Put an event on another bus, with its id and all, in this transaction."""
        queued, target = lease.queued, lease.target
        try:
            event = json.loads(queued.event_text)
            self._forward_event(tx, event, target.arn, self._call(lease), attempt=queued.attempt)
        except AwsError as error:
            self._outcomes.failed(queued, error, tx)
            return
        self._outcomes.delivered(queued, lease.rule, target, None, tx)

    def _lease(self, tx: Transaction, lease: _Lease, busy: tuple[str, ...]) -> list[_Lease]:
        free = len(busy) < IN_FLIGHT_LIMIT and busy.count(lease.target.arn) < IN_FLIGHT_PER_TARGET_LIMIT
        now_ms = clock.now_ms()
        due_at_ms = now_ms + LEASE_MS if free else self._line_up(lease.target.arn, now_ms)
        queued = lease.queued
        delivery.postpone(tx, queued.delivery_id, due_at_ms=due_at_ms, tries=queued.tries, is_leased=free)
        return [lease] if free else []

    def _line_up(self, target_arn: str, now_ms: int) -> int:
        """Return when a delivery to a busy target has its turn (ms): a backlog must not be written anew at every pause."""
        if len(self._lines) > LINES_LIMIT:
            self._lines = {arn: turn_ms for arn, turn_ms in self._lines.items() if turn_ms > now_ms}
        after_the_last_ms = self._lines.get(target_arn, 0) + BUSY_PAUSE_MS // IN_FLIGHT_PER_TARGET_LIMIT
        turn_ms = min(max(now_ms + BUSY_PAUSE_MS, after_the_last_ms), now_ms + BUSY_PAUSE_LIMIT_MS)
        self._lines[target_arn] = turn_ms
        return turn_ms

    def _lease_destination(self, tx: Transaction, lease: _Lease, busy: tuple[str, ...]) -> list[_Lease]:
        """Lease a delivery to an API destination when its rate allows, else let it wait for its turn."""
        queued, arn, now_ms = lease.queued, lease.target.arn, clock.now_ms()
        destination = api_destinations.find_by_arn(tx, arn)
        if destination is None:
            self._outcomes.failed(queued, ResourceNotFoundError(f"API destination {arn} does not exist."), tx)
            return []
        if now_ms - queued.queued_at_ms > lease.target.retry_policy.maximum_event_age_s * 1000:
            late = "The event was too old before its turn came: the destination's rate limit is below what arrives."
            self._outcomes.failed(queued, TargetError(late, dead_letter_code="THROTTLING", retryable=True), tx)
            return []
        if len(busy) < IN_FLIGHT_LIMIT and busy.count(arn) < IN_FLIGHT_PER_TARGET_LIMIT:
            wait_ms = self._rate_limits.wait_ms(arn, queued.delivery_id, destination.rate_limit_per_s, now_ms)
            if wait_ms > 0:
                delivery.postpone(tx, queued.delivery_id, due_at_ms=now_ms + wait_ms, tries=queued.tries)
                return []
        return self._lease(tx, lease, busy)

    # ── outside of the ledger ────────────────────────────────────────────────────────────────────────────────────

    async def _deliver_outside(self, lease: _Lease) -> None:
        queued, target = lease.queued, lease.target
        try:
            faults.reach("events.before-delivery")
            await self._invoke(lease)
            faults.reach("events.after-delivery")
        except AwsError as error:
            failure = error
        except EntrepotError as error:
            failure = InternalError(str(error))
        except Exception as error:  # noqa: BLE001 - the task's top frame
            _log.exception("Delivery of event %s to %s failed.", queued.event_id, target.arn)
            failure = InternalError(f"{type(error).__name__}: {error}")
        else:
            await self._record(queued, partial(self._outcomes.delivered, queued, lease.rule, target, None))
            return
        await self._record(queued, partial(self._outcomes.failed, queued, failure))

    async def _invoke(self, lease: _Lease) -> None:
        if is_api_destination(lease.target.arn):
            await self._invoke_destination(lease)
            return
        invocation, call = self._invocation(lease), self._call(lease)
        if invocation.service == "logs":
            await self._ensure_stream(invocation.request, call)
        await self._operations.perform(invocation.service, invocation.operation, invocation.request, call)

    async def _invoke_destination(self, lease: _Lease) -> None:
        """Call an API destination; with OAuth a refused token is renewed for the next try."""
        arn = lease.target.arn
        self._operations.require(Permission("events:InvokeApiDestination", arn), self._call(lease))
        destination = await self._database.read(lambda reader: api_destinations.find_by_arn(reader, arn))
        if destination is None:
            raise ResourceNotFoundError(f"API destination {arn} does not exist.")
        renew = lease.queued.delivery_id in self._unauthorized
        self._unauthorized.discard(lease.queued.delivery_id)
        added = await self._connections.parameters(destination.connection_arn, renew=renew)
        http_parameters = lease.target.definition.get("HttpParameters") or {}
        event = json.loads(lease.queued.event_text)
        try:
            answer = await self._send(
                http_invocation.request_of(destination, added, http_parameters, event, self._input(lease))
            )
        except OutboundError as error:
            raise http_invocation.no_answer(error) from None
        if answer.status in http_invocation.UNAUTHORIZED and len(self._unauthorized) < UNAUTHORIZED_LIMIT:
            self._unauthorized.add(lease.queued.delivery_id)
        http_invocation.check_answer(answer, added)

    async def _record(self, queued: Queued, work: Callable[[Transaction], None]) -> None:
        try:
            await self._database.write(work)
        except EntrepotError as error:
            _log.error(
                "What became of event %s could not be recorded (%s); it is delivered again.", queued.event_id, error
            )

    async def _ensure_stream(self, request: Mapping[str, Any], call: Call) -> None:
        try:
            names = {name: request[name] for name in ("logGroupName", "logStreamName")}
            await self._operations.perform("logs", "CreateLogStream", names, call)
        except AwsError as error:
            if error.code != "ResourceAlreadyExistsException":
                raise

    # ── shared ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _input(self, lease: _Lease) -> str:
        queued, rule = lease.queued, lease.rule
        return input_text(
            lease.target, queued.event_text, lambda: json.loads(queued.event_text), rule_name=rule.name,
            rule_arn=rule.arn, queued_at_ms=queued.queued_at_ms,
        )  # fmt: skip

    def _invocation(self, lease: _Lease) -> targets.Invocation:
        queued = lease.queued
        return targets.invocation(
            lease.target, event_id=queued.event_id, rule_arn=lease.rule.arn, attempt=queued.attempt,
            input_text=self._input(lease), queued_at_ms=queued.queued_at_ms,
        )  # fmt: skip

    def _call(self, lease: _Lease) -> Call:
        queued, role_arn = lease.queued, lease.target.role_arn
        principal = self._principal_for_role(role_arn, _SESSION_NAME) if role_arn else self._service_principal
        request_id = ids.derived_uuid(queued.event_id, str(queued.delivery_id), str(queued.tries))
        return Call(principal, request_id, user_agent="events.amazonaws.com", source_arn=lease.rule.arn)


def _gone(queued: Queued) -> AwsError:
    return ResourceNotFoundError(
        f"Rule {queued.rule_name} has no target {queued.target_id} any more; it was removed while the event waited."
    )
