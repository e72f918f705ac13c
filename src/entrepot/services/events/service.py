"""Events: takes events in, matches them against the rules, and delivers them, each exactly as often as it must.

An event is matched in the transaction that puts it; what matches becomes rows of a queue there. The delivery loop takes
what is due in batches. A target whose operation is a transaction of this ledger (StartExecution) is called in the very
transaction that removes the row: both happen or neither. Other targets are leased, called outside, and then removed.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from entrepot import clock, faults, ids
from entrepot.arns import Account
from entrepot.database import Database, Reader, Transaction
from entrepot.errors import AwsError, EntrepotError, InternalError
from entrepot.loglines import LogLine, WriteLog
from entrepot.operations import AsyncOperation, Call, Operations, Permission, Principal
from entrepot.services.events import dead_letters, delivery, due_times, targets
from entrepot.services.events.delivery import Delivery, OnDelivery, Queued
from entrepot.services.events.errors import ResourceNotFoundError, ValidationError
from entrepot.services.events.index import PatternIndex
from entrepot.services.events.input import compact, input_text
from entrepot.services.events.pattern import EventPattern, EventTooDeepError
from entrepot.services.events.rules import DEFAULT_BUS, Rule, Rules, Target, require_bus

PrincipalForRole: TypeAlias = Callable[[str, str], Principal]
"""`principal_for_role(role_arn, session_name)`: who a rule is when it calls its target; raises AwsError."""

BATCH_LIMIT = 32
"""Deliveries of one transaction, so that other writers need not wait long."""

IN_FLIGHT_LIMIT = 64
"""Deliveries to targets outside of the ledger that run at the same time."""

IN_FLIGHT_PER_TARGET_LIMIT = 16
"""Of those, to one target: a slow target leaves room for the others."""

LEASE_MS = 120_000
"""After this time a delivery that was begun outside of the ledger is begun again: its process must have died."""

BUSY_PAUSE_MS = 200
"""When a target has as many deliveries in flight as it may have, the next waits this long."""

STOP_TIMEOUT_S = 5.0
"""How long `stop` waits for deliveries outside of the ledger."""

POLL_S = 1.0
"""How often the queue is looked at without a signal, for what other processes queued."""

LOG_GROUP = "/aws/events/deliveries"
"""Where failed deliveries are logged."""

_SESSION_NAME = "entrepot-events"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Lease:
    """A delivery that happens outside of the ledger, by whoever holds this."""

    queued: Queued
    rule: Rule
    target: Target


class Events:
    """Amazon EventBridge. `start` and `stop` its delivery loop."""

    def __init__(
        self,
        database: Database,
        account: Account,
        operations: Operations,
        *,
        principal_for_role: PrincipalForRole,
        service_principal: Principal,
        on_delivered: OnDelivery,
        on_delivery_failed: OnDelivery,
        write_log: WriteLog | None = None,
    ) -> None:
        self.database = database
        self.account = account
        self.rules = Rules(account.arn("events", "rule/"))
        self._operations = operations
        self._principal_for_role = principal_for_role
        self._service_principal = service_principal
        self._on_delivered = on_delivered
        self._on_delivery_failed = on_delivery_failed
        self._write_log = write_log
        self._indices: dict[str, tuple[str, PatternIndex[Rule], dict[str, Rule]]] = {}
        self._wake = asyncio.Event()
        self._loop_task: asyncio.Task[None] | None = None
        self._stopping = False
        self._in_flight: dict[asyncio.Task[None], str] = {}

    async def start(self) -> None:
        """Begin to deliver; what an earlier process left is delivered first."""
        assert self._loop_task is None
        self._stopping = False
        self._wake.set()
        self._loop_task = asyncio.create_task(self._deliver_forever(), name="events-delivery")

    async def stop(self) -> None:
        """Stop taking deliveries; wait for those under way, which their leases protect if they are cut off."""
        if self._loop_task is not None:
            self._stopping = True
            self._wake.set()
            await self._loop_task  # Not cancelled: what it has leased has to be begun, or it waits for LEASE_MS.
            self._loop_task = None
        if self._in_flight:
            _, pending = await asyncio.wait(self._in_flight, timeout=STOP_TIMEOUT_S)
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

    # ── events come in ───────────────────────────────────────────────────────────────────────────────────────────

    def put_event(
        self, tx: Transaction, event: Mapping[str, Any], bus_name: str = DEFAULT_BUS, *, forwarded: bool = False
    ) -> str:
        """Queue a complete event (AWS's envelope) for every target of every enabled rule that it matches.

        One that was `forwarded` by another bus goes to no third one, as in AWS; so it cannot go round for ever.
        Returns the event's id. Raises ValidationError when it nests too deep.
        """
        event_id: str = event["id"]
        try:
            matching = self._index(tx, bus_name)[0].matching(event)
        except EventTooDeepError as error:
            raise ValidationError(str(error)) from None
        if not matching:
            return event_id
        self._queue(tx, event, matching, 1, forwarded=forwarded)
        return event_id

    def matching_rules(self, reader: Reader, event: Mapping[str, Any], bus_name: str = DEFAULT_BUS) -> list[Rule]:
        """Return the enabled rules that the event matches, with their targets."""
        return self._index(reader, bus_name)[0].matching(event)

    def redeliver(self, tx: Transaction, event: Mapping[str, Any], rule_arn: str, target_id: str, attempt: int) -> None:
        """Queue an event once more for one target, under a new attempt and therefore a new execution name.

        Raises ResourceNotFoundError when the rule or its target is gone.
        """
        bus_name, rule_name = self.rules.parse_arn(rule_arn)
        rule = self._index(tx, bus_name)[1].get(rule_name)
        if rule is None or _target(rule, target_id) is None:
            raise ResourceNotFoundError(f"{rule_arn} has no target {target_id} any more; add it to deliver again.")
        dead_letters.forget(tx, event["id"], bus_name, rule_name, target_id)
        delivery.queue(
            tx, due_at_ms=clock.now_ms(), bus_name=bus_name, rule_name=rule_name, target_id=target_id,
            attempt=attempt, event_id=event["id"], event_text=compact(event),
        )  # fmt: skip
        tx.after_commit(self._wake.set)

    def redeliver_matching(self, tx: Transaction, event: Mapping[str, Any], attempt: int) -> int:
        """Queue an event once more for every target of every enabled rule of the default bus that it matches now.

        Returns how many deliveries were queued.
        """
        rules = self.matching_rules(tx, event)
        for rule in rules:
            for target in rule.targets:
                dead_letters.forget(tx, event["id"], rule.bus_name, rule.name, target.target_id)
        return self._queue(tx, event, rules, attempt)

    def count_pending(self, reader: Reader) -> int:
        """Return how many deliveries wait."""
        row = reader.one("SELECT count(*) FROM events_delivery")
        return 0 if row is None else int(row[0])

    def count_dead_letters(self, reader: Reader) -> int:
        """Return how many deliveries were given up."""
        row = reader.one("SELECT count(*) FROM events_dead_letter")
        return 0 if row is None else int(row[0])

    def redrive_dead_letter(self, tx: Transaction, dead_letter_id: int) -> None:
        """Deliver a dead letter again, under the same attempt: nothing was started under that name."""
        letter = dead_letters.take(tx, dead_letter_id)
        if letter is None:
            raise ResourceNotFoundError(f"There is no dead letter {dead_letter_id}.")
        rule_arn = self.rules.rule_arn(letter.bus_name, letter.rule_name)
        self.redeliver(tx, json.loads(letter.event_text), rule_arn, letter.target_id, letter.attempt)

    def _queue(
        self, tx: Transaction, event: Mapping[str, Any], rules: list[Rule], attempt: int, *, forwarded: bool = False
    ) -> int:
        text, at_ms, count = compact(event), clock.now_ms(), 0
        for rule in rules:
            for target in rule.targets:
                if forwarded and targets.is_bus(target.arn):
                    continue
                delivery.queue(
                    tx, due_at_ms=at_ms, bus_name=rule.bus_name, rule_name=rule.name, target_id=target.target_id,
                    attempt=attempt, event_id=event["id"], event_text=text,
                )  # fmt: skip
                count += 1
        if count:
            tx.after_commit(self._wake.set)
        return count

    def _index(self, reader: Reader, bus_name: str) -> tuple[PatternIndex[Rule], dict[str, Rule]]:
        """Return the enabled rules compiled, and all rules by name, as this transaction sees them."""
        version = self.rules.version(reader, bus_name)
        kept = self._indices.get(bus_name)
        if kept is None or kept[0] != version:
            rules = self.rules.all(reader, bus_name)
            enabled = [
                (EventPattern.parse(rule.event_pattern), rule)
                for rule in rules
                if rule.state == "ENABLED" and rule.event_pattern
            ]
            kept = (version, PatternIndex(enabled), {rule.name: rule for rule in rules})
            self._indices[bus_name] = kept
        return kept[1], kept[2]

    # ── events go out ────────────────────────────────────────────────────────────────────────────────────────────

    async def _deliver_forever(self) -> None:
        pause_s = 0.0
        while not self._stopping:
            if pause_s > 0:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), pause_s)
            self._wake.clear()
            if self._stopping:
                return
            try:
                pause_s = min(await self.fire_due(), await self.deliver_due())
            except EntrepotError as error:
                _log.error("Events cannot be delivered now (%s); they stay queued. Trying again.", error)
                pause_s = POLL_S
            except Exception:  # noqa: BLE001 - the task's top frame
                _log.exception("Delivering events failed; they stay queued. Trying again.")
                pause_s = POLL_S

    async def fire_due(self) -> float:
        """Queue the events of scheduled rules that are due; return after how many seconds to look again."""
        at_ms = clock.now_ms()
        due_at_ms = await self.database.read(due_times.next_due_ms)
        if due_at_ms is None or due_at_ms > at_ms:
            return POLL_S if due_at_ms is None else min((due_at_ms - at_ms) / 1000, POLL_S)
        await self.database.write(lambda tx: due_times.fire_due(tx, at_ms, self._fire))
        return 0.0

    def _fire(self, tx: Transaction, due: due_times.Due) -> None:
        """Queue a scheduled rule's event for its own targets; no other rule sees it."""
        rule = self._index(tx, due.bus_name)[1].get(due.rule_name)
        if rule is None:  # Rule and due time go together; were one missing, the others still have to fire.
            return
        event = {
            "version": "0",
            "id": ids.derived_uuid(rule.arn, str(due.due_at_ms)),
            "detail-type": "Scheduled Event",
            "source": "aws.events",
            "account": self.account.account_id,
            "time": clock.iso(due.due_at_ms)[:19] + "Z",
            "region": self.account.region,
            "resources": [rule.arn],
            "detail": {},
        }
        self._queue(tx, event, [rule], 1)

    async def deliver_due(self) -> float:
        """Deliver one batch of what is due; return after how many seconds to look again."""
        at_ms = clock.now_ms()
        due_at_ms = await self.database.read(delivery.next_due_ms)
        if due_at_ms is None or due_at_ms > at_ms:
            return POLL_S if due_at_ms is None else min((due_at_ms - at_ms) / 1000, POLL_S)
        busy = tuple(self._in_flight.values())
        try:
            leased = await self.database.write(lambda tx: self._deliver_batch(tx, at_ms, busy))
        except EntrepotError:
            raise
        except Exception:  # noqa: BLE001 - the one that failed is found and recorded below
            _log.exception("A batch of deliveries failed; each is tried alone.")
            leased = await self._deliver_singly(at_ms, busy)
        for lease in leased:
            task = asyncio.create_task(self._deliver_outside(lease), name=f"events-{lease.queued.delivery_id}")
            self._in_flight[task] = lease.target.arn
            task.add_done_callback(self._finished)
        return 0.0

    def _finished(self, task: "asyncio.Task[None]") -> None:
        del self._in_flight[task]
        self._wake.set()

    def _deliver_batch(self, tx: Transaction, at_ms: int, busy: tuple[str, ...]) -> list[_Lease]:
        leased: list[_Lease] = []
        for queued in delivery.due(tx, at_ms, BATCH_LIMIT):
            leased += self._deliver(tx, queued, (*busy, *(lease.target.arn for lease in leased)))
        return leased

    async def _deliver_singly(self, at_ms: int, busy: tuple[str, ...]) -> list[_Lease]:
        """Deliver a batch of which one item broke the transaction, so that only that one fails."""
        leased: list[_Lease] = []
        for queued in await self.database.read(lambda reader: delivery.due(reader, at_ms, BATCH_LIMIT)):
            now_busy = (*busy, *(lease.target.arn for lease in leased))
            try:
                leased += await self.database.write(partial(self._deliver_alone, queued, now_busy))
            except EntrepotError:
                raise
            except Exception as error:  # noqa: BLE001 - one delivery's top frame
                _log.exception("Delivery %s (event %s) failed.", queued.delivery_id, queued.event_id)
                await self._set_aside(queued, InternalError(f"{type(error).__name__}: {error}"))
        return leased

    async def _set_aside(self, queued: Queued, failure: AwsError) -> None:
        """Record the failure of a delivery; where even that fails, at least let the others pass."""
        try:
            await self.database.write(partial(self._failed, queued, failure))
        except EntrepotError:
            raise
        except Exception:  # noqa: BLE001 - one delivery's top frame
            _log.exception("The failure of delivery %s could not be recorded.", queued.delivery_id)
            later_ms = clock.now_ms() + LEASE_MS
            await self.database.write(
                lambda tx: delivery.postpone(tx, queued.delivery_id, due_at_ms=later_ms, tries=queued.tries + 1)
            )

    def _deliver_alone(self, queued: Queued, busy: tuple[str, ...], tx: Transaction) -> list[_Lease]:
        return self._deliver(tx, queued, busy) if delivery.get(tx, queued.delivery_id) == queued else []

    def _deliver(self, tx: Transaction, queued: Queued, busy: tuple[str, ...]) -> list[_Lease]:
        """Deliver inside this transaction; where that has to happen outside, lease the row and return the lease.

        `busy` are the targets of deliveries under way.
        """
        rule = self._index(tx, queued.bus_name)[1].get(queued.rule_name)
        target = None if rule is None else _target(rule, queued.target_id)
        if rule is None or target is None:
            self._failed(queued, _gone(queued), tx)
            return []
        if targets.is_bus(target.arn):
            self._forward(tx, _Lease(queued, rule, target))
            return []
        invocation = self._invocation(queued, rule, target)
        if isinstance(self._operations.find(invocation.service, invocation.operation), AsyncOperation):
            return self._lease(tx, _Lease(queued, rule, target), busy)
        faults.reach("events.before-delivery")
        execution_arn = invocation.execution_arn
        try:
            call = self._call(queued, target)
            response = self._operations.transact(tx, invocation.service, invocation.operation, invocation.request, call)
            execution_arn = response.get("executionArn", execution_arn)
        except AwsError as error:
            if error.code != "ExecutionAlreadyExists":
                self._failed(queued, error, tx)
                return []
        self._delivered(_Lease(queued, rule, target), execution_arn, tx)
        faults.reach("events.after-delivery")
        return []

    def _forward(self, tx: Transaction, lease: _Lease) -> None:
        """Put an event on another bus, with its id and all, in this transaction."""
        queued, target = lease.queued, lease.target
        bus_name = target.arn.rpartition("event-bus/")[2]
        try:
            self._operations.require(Permission("events:PutEvents", target.arn), self._call(queued, target))
            require_bus(tx, bus_name)
            with tx.savepoint():
                self.put_event(tx, json.loads(queued.event_text), bus_name, forwarded=True)
        except AwsError as error:
            self._failed(queued, error, tx)
            return
        self._delivered(lease, None, tx)

    def _lease(self, tx: Transaction, lease: _Lease, busy: tuple[str, ...]) -> list[_Lease]:
        free = len(busy) < IN_FLIGHT_LIMIT and busy.count(lease.target.arn) < IN_FLIGHT_PER_TARGET_LIMIT
        due_at_ms = clock.now_ms() + (LEASE_MS if free else BUSY_PAUSE_MS)
        delivery.postpone(tx, lease.queued.delivery_id, due_at_ms=due_at_ms, tries=lease.queued.tries)
        return [lease] if free else []

    async def _deliver_outside(self, lease: _Lease) -> None:
        queued, rule, target = lease.queued, lease.rule, lease.target
        try:
            invocation = self._invocation(queued, rule, target)
            faults.reach("events.before-delivery")
            call = self._call(queued, target)
            if invocation.service == "logs":
                await self._ensure_stream(invocation.request, call)
            await self._operations.perform(invocation.service, invocation.operation, invocation.request, call)
            faults.reach("events.after-delivery")
        except AwsError as error:
            failure = error
        except EntrepotError as error:
            failure = InternalError(str(error))
        except Exception as error:  # noqa: BLE001 - the task's top frame
            _log.exception("Delivery of event %s to %s failed.", queued.event_id, target.arn)
            failure = InternalError(f"{type(error).__name__}: {error}")
        else:
            await self._record(queued, partial(self._delivered, lease, None))
            return
        await self._record(queued, partial(self._failed, queued, failure))

    async def _record(self, queued: Queued, work: Callable[[Transaction], None]) -> None:
        try:
            await self.database.write(work)
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

    def _invocation(self, queued: Queued, rule: Rule, target: Target) -> targets.Invocation:
        text = input_text(
            target,
            queued.event_text,
            lambda: json.loads(queued.event_text),
            rule_name=rule.name,
            rule_arn=rule.arn,
            queued_at_ms=queued.queued_at_ms,
        )
        return targets.invocation(
            target, event_id=queued.event_id, rule_arn=rule.arn, attempt=queued.attempt, input_text=text,
            queued_at_ms=queued.queued_at_ms,
        )  # fmt: skip

    def _call(self, queued: Queued, target: Target) -> Call:
        role_arn = target.role_arn
        principal = self._principal_for_role(role_arn, _SESSION_NAME) if role_arn else self._service_principal
        request_id = ids.derived_uuid(queued.event_id, str(queued.delivery_id), str(queued.tries))
        return Call(principal, request_id, user_agent="events.amazonaws.com")

    def _delivered(self, lease: _Lease, execution_arn: str | None, tx: Transaction) -> None:
        queued, rule, target = lease.queued, lease.rule, lease.target
        if delivery.remove(tx, queued.delivery_id):
            self._on_delivered(
                tx,
                Delivery(
                    queued.event_id, queued.event_text, rule.name, rule.arn, target.target_id, target.arn,
                    queued.attempt, execution_arn,
                ),
            )  # fmt: skip

    def _failed(self, queued: Queued, error: AwsError, tx: Transaction) -> None:
        """Try again later, or give the delivery up into the dead-letter store."""
        rule = self._index(tx, queued.bus_name)[1].get(queued.rule_name)
        target = None if rule is None else _target(rule, queued.target_id)
        at_ms = clock.now_ms()
        if target is not None and delivery.is_retryable(error):
            due_at_ms = delivery.retry_at_ms(queued, target.retry_policy, at_ms)
            if due_at_ms is not None:
                delivery.postpone(tx, queued.delivery_id, due_at_ms=due_at_ms, tries=queued.tries + 1)
                self._report(queued, error, f"trying again at {clock.iso(due_at_ms)}")
                return
        if not delivery.remove(tx, queued.delivery_id):
            return
        target_arn = "" if target is None else target.arn
        if (
            target is not None
            and target.dead_letter_arn is not None
            and self._send_dead_letter(tx, queued, target, error)
        ):
            self._report(queued, error, f"given up; the event is in {target.dead_letter_arn}")
        else:
            dead_letters.bury(tx, queued, target_arn, error, at_ms)
            self._report(queued, error, "given up; the event is in the dead-letter store")
        self._on_delivery_failed(
            tx,
            Delivery(
                queued.event_id, queued.event_text, queued.rule_name,
                self.rules.rule_arn(queued.bus_name, queued.rule_name), queued.target_id, target_arn, queued.attempt,
                None, f"{error.code}: {error.message}",
            ),
        )  # fmt: skip

    def _send_dead_letter(self, tx: Transaction, queued: Queued, target: Target, error: AwsError) -> bool:
        """Send an event that is given up to the target's own queue; return whether that took it."""
        assert target.dead_letter_arn is not None
        rule_arn = self.rules.rule_arn(queued.bus_name, queued.rule_name)
        request = dead_letters.message(queued, target, rule_arn, error)
        call = Call(self._service_principal, ids.derived_uuid(queued.event_id, str(queued.delivery_id), "dead letter"))
        try:
            self._operations.transact(tx, "sqs", "SendMessage", request, call)
        except AwsError as failure:
            _log.error(
                "The dead letter of event %s could not be sent to %s (%s: %s); it is in the server's own store.",
                queued.event_id, target.dead_letter_arn, failure.code, failure.message,
            )  # fmt: skip
            return False
        return True

    def _report(self, queued: Queued, error: AwsError, outcome: str) -> None:
        if self._write_log is not None:
            message = compact(
                {
                    "event_id": queued.event_id,
                    "rule": queued.rule_name,
                    "target_id": queued.target_id,
                    "attempt": queued.attempt,
                    "tries": queued.tries + 1,
                    "error": f"{error.code}: {error.message}",
                    "outcome": outcome,
                }
            )
            self._write_log(LOG_GROUP, queued.rule_name, LogLine(clock.now_ms(), message))


def _target(rule: Rule, target_id: str) -> Target | None:
    for target in rule.targets:
        if target.target_id == target_id:
            return target
    return None


def _gone(queued: Queued) -> AwsError:
    return ResourceNotFoundError(
        f"Rule {queued.rule_name} has no target {queued.target_id} any more; it was removed while the event waited."
    )
