"""Events: takes events in, matches them against the rules, and has them delivered, each exactly as often as it must.

An event is matched in the transaction that puts it; what matches becomes rows of a queue there, which `dispatch.py` empties.
Three loops run: one delivers and fires schedules, one does what has time (replays, what archives no longer keep), one
authorises connections.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

from entrepot import clock, faults, ids
from entrepot.arns import Account
from entrepot.database import Database, Reader, Transaction
from entrepot.errors import EntrepotError
from entrepot.loglines import WriteLog
from entrepot.operations import Call, Operations, Permission, Principal
from entrepot.outbound import DeniedError, Request, Response, Send
from entrepot.sealing import Seal
from entrepot.services.events import archives, dead_letters, delivery, due_times, replays, targets
from entrepot.services.events.connections import Connections
from entrepot.services.events.delivery import OnDelivery
from entrepot.services.events.dispatch import POLL_S, Dispatch, PrincipalForRole
from entrepot.services.events.errors import ResourceNotFoundError, ValidationError
from entrepot.services.events.input import compact
from entrepot.services.events.outcomes import Outcomes
from entrepot.services.events.pattern import EventTooDeepError
from entrepot.services.events.replays import Replay
from entrepot.services.events.rulebook import Rulebook
from entrepot.services.events.rules import DEFAULT_BUS, Rule, Rules

OnReplayed: TypeAlias = Callable[[Transaction, str, str, bool], int | None]
"""`on_replayed(tx, event_id, replay_name, starts_execution)`: an event is about to be delivered once more; returns the
attempt under which that happens where somebody counts them, else None."""

CheckPolicy: TypeAlias = Callable[[str], object]
"""`check_policy(text)`: raises AwsError unless the text is a policy of a resource."""

SWEEP_PERIOD_S = 60.0
"""How often archives are looked at for what they no longer keep."""

CONNECTIONS_POLL_S = 10.0
"""How often connections that another process made are looked for."""

_log = logging.getLogger(__name__)


async def _no_network(request: Request) -> Response:
    raise DeniedError("Nothing can be called: these events have no client for HTTP.")


def _check_json(text: str) -> None:
    try:
        json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValidationError(str(error)) from None


class Events:
    """Amazon EventBridge. `start` and `stop` its loops."""

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
        on_replayed: OnReplayed | None = None,
        check_policy: CheckPolicy | None = None,
        send: Send | None = None,
        seal: Seal | None = None,
        write_log: WriteLog | None = None,
    ) -> None:
        """`send` calls HTTP endpoints; without it none can be.

        `seal` keeps the secrets of connections; without it they last as long as this object.
        """
        send = send or _no_network
        self.connections = Connections(
            database, account, seal=seal or Seal(bytes.fromhex(ids.random_hex(32)), "events"), send=send
        )
        self.database = database
        self.account = account
        self.require = operations.require
        self.check_policy = check_policy or _check_json
        self.rules = Rules(account.arn("events", "rule/"))
        self._rulebook = Rulebook(self.rules)
        self._on_replayed = on_replayed
        self.on_matched: Callable[[Sequence[str]], None] = lambda rule_names: None
        """Hears after the commit which rules an event matched; whoever measures sets it."""
        self._wake = asyncio.Event()
        self._wake_upkeep = asyncio.Event()
        self._wake_connections = asyncio.Event()
        self._swept_at_s = float("-inf")
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []
        self._authorizing: asyncio.Task[None] | None = None
        self.outcomes = Outcomes(
            self.rules, self._rulebook, operations, service_principal=service_principal, on_delivered=on_delivered,
            on_delivery_failed=on_delivery_failed, write_log=write_log,
        )  # fmt: skip
        self.dispatch = Dispatch(
            database, operations, self._rulebook, self.outcomes, principal_for_role=principal_for_role,
            service_principal=service_principal, forward=self._forward, wake=self._wake.set,
            connections=self.connections, send=send,
        )  # fmt: skip

    async def start(self) -> None:
        """Begin to deliver; what an earlier process left is delivered first."""
        assert not self._tasks
        self._stopping = False
        await self.dispatch.start()
        self._wake.set()
        self._wake_upkeep.set()
        self._wake_connections.set()
        self._tasks = [
            asyncio.create_task(self._repeat("Delivering events", self._wake, self._deliver), name="events-delivery"),
            asyncio.create_task(self._repeat("Replaying", self._wake_upkeep, self.keep_up), name="events-upkeep"),
        ]
        self._authorizing = asyncio.create_task(
            self._repeat("Authorising connections", self._wake_connections, self._authorize), name="events-connections"
        )

    async def stop(self) -> None:
        """Stop taking deliveries; wait for those under way, which their leases protect if they are cut off."""
        self._stopping = True
        self._wake.set()
        self._wake_upkeep.set()
        if self._authorizing is not None:
            self._authorizing.cancel()  # Whoever is not authorised yet is asked for again at the next start.
            await asyncio.gather(self._authorizing, return_exceptions=True)
            self._authorizing = None
        # Not cancelled: what the delivery loop has leased has to be begun, or it waits for its lease to run out.
        await asyncio.gather(*self._tasks)
        self._tasks = []
        await self.dispatch.stop()

    # ── events come in ───────────────────────────────────────────────────────────────────────────────────────────

    def put_event(
        self, tx: Transaction, event: Mapping[str, Any], bus_name: str = DEFAULT_BUS, *, forwarded: bool = False,
        attempt: int = 1,
    ) -> str:  # fmt: skip
        """Archive a complete event (AWS's envelope), and queue it for every target of every enabled rule that it matches.

        One that was `forwarded` by another bus goes to no third one, as in AWS; so it cannot go round for ever.
        Returns the event's id. Raises ValidationError when it nests too deep.
        """
        event_id: str = event["id"]
        rules = self._rulebook.of(tx, bus_name)
        try:
            matching = rules.index.matching(event)
            keeping = rules.archives.matching(event) if rules.archives is not None else ()
        except EventTooDeepError as error:
            raise ValidationError(str(error)) from None
        text = compact(event) if keeping or matching else ""
        if keeping and "replay-name" not in event:
            for archive in keeping:
                archives.keep(tx, archive, event, text, clock.now_ms())
        if matching:
            self._queue(tx, event_id, text, matching, attempt, forwarded=forwarded)
            names = [rule.name for rule in matching]
            tx.after_commit(lambda: self.on_matched(names))
        return event_id

    def matching_rules(self, reader: Reader, event: Mapping[str, Any], bus_name: str = DEFAULT_BUS) -> list[Rule]:
        """Return the enabled rules that the event matches, with their targets."""
        return self._rulebook.of(reader, bus_name).index.matching(event)

    def redeliver(self, tx: Transaction, event: Mapping[str, Any], rule_arn: str, target_id: str, attempt: int) -> None:
        """Queue an event once more for one target, under a new attempt and therefore a new execution name.

        Raises ResourceNotFoundError when the rule or its target is gone.
        """
        bus_name, rule_name = self.rules.parse_arn(rule_arn)
        if self._rulebook.of(tx, bus_name).target(rule_name, target_id) is None:
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
        return self._queue(tx, event["id"], compact(event), rules, attempt)

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
        self, tx: Transaction, event_id: str, text: str, rules: list[Rule], attempt: int, *, forwarded: bool = False
    ) -> int:
        at_ms, count = clock.now_ms(), 0
        for rule in rules:
            for target in rule.targets:
                if forwarded and targets.is_bus(target.arn):
                    continue
                delivery.queue(
                    tx, due_at_ms=at_ms, bus_name=rule.bus_name, rule_name=rule.name, target_id=target.target_id,
                    attempt=attempt, event_id=event_id, event_text=text,
                )  # fmt: skip
                count += 1
        if count:
            tx.after_commit(self._wake.set)
        return count

    def bus_policy(self, reader: Reader, bus_name: str) -> str | None:
        """Return the resource policy of a bus (JSON, '' when it has none); None when there is no such bus."""
        row = reader.one("SELECT policy FROM events_bus WHERE name = ?", (bus_name,))
        return None if row is None else str(row[0])

    def _forward(self, tx: Transaction, event: Mapping[str, Any], arn: str, call: Call, *, attempt: int) -> None:
        """Put an event on another bus of this account, with its id and all; raise AwsError."""
        bus_name = arn.rpartition("event-bus/")[2]
        own = arn == self.account.arn("events", f"event-bus/{bus_name}")
        policy = self.bus_policy(tx, bus_name) if own else None
        context = {
            "events:source": str(event.get("source", "")),
            "events:detail-type": str(event.get("detail-type", "")),
            "events:eventBusInvocation": "true",
        }
        self.require(Permission("events:PutEvents", arn, context, policy or ""), call)
        if policy is None:
            raise ResourceNotFoundError(f"Event bus {arn} does not exist here.")
        with tx.savepoint():
            self.put_event(tx, event, bus_name, forwarded=True, attempt=attempt)

    # ── the loops ────────────────────────────────────────────────────────────────────────────────────────────────

    async def _repeat(self, what: str, wake: asyncio.Event, work: Callable[[], Awaitable[float]]) -> None:
        """Work until `stop`; after each time, wait as long as it says, or until somebody wakes it."""
        pause_s = 0.0
        while not self._stopping:
            if pause_s > 0:
                with suppress(TimeoutError):
                    await asyncio.wait_for(wake.wait(), pause_s)
            wake.clear()
            if self._stopping:
                return
            try:
                pause_s = await work()
            except EntrepotError as error:
                _log.error("%s is not possible now (%s); what is due stays queued. Trying again.", what, error)
                pause_s = POLL_S
            except Exception:  # noqa: BLE001 - the task's top frame
                _log.exception("%s failed; what is due stays queued. Trying again.", what)
                pause_s = POLL_S

    async def _deliver(self) -> float:
        return min(await self.fire_due(), await self.dispatch.deliver_due())

    async def deliver_due(self) -> float:
        """Deliver one batch of what is due; return after how many seconds to look again."""
        return await self.dispatch.deliver_due()

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
        rule = self._rulebook.of(tx, due.bus_name).by_name.get(due.rule_name)
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
        self._queue(tx, str(event["id"]), compact(event), [rule], 1)

    async def keep_up(self) -> float:
        """Bring replays further and archives down to what they keep; return after how many seconds to look again."""
        now_ms = clock.now_ms()
        pause_s = POLL_S
        if await self.database.read(lambda reader: replays.is_due(reader, now_ms)):
            await self.database.write(lambda tx: replays.step(tx, now_ms, self._replay))
            faults.reach("events.after-replay-step")
            pause_s = replays.STEP_PAUSE_S
        if clock.monotonic_s() - self._swept_at_s > SWEEP_PERIOD_S:
            if await self._sweep(now_ms):
                pause_s = min(pause_s, replays.STEP_PAUSE_S)
            else:
                self._swept_at_s = clock.monotonic_s()
        return pause_s

    async def _sweep(self, now_ms: int) -> bool:
        """Remove a batch of what is kept no longer; return whether there may be more. Writes only where there is some."""
        if await self.database.read(lambda reader: reader.one("SELECT 1 FROM events_replay LIMIT 1")) is not None:
            await self.database.write(lambda tx: replays.forget_old(tx, now_ms))
        if await self.database.read(lambda reader: reader.one("SELECT 1 FROM events_archived LIMIT 1")) is None:
            return False
        return await self.database.write(lambda tx: archives.sweep(tx, now_ms))

    async def _authorize(self) -> float:
        return 0.0 if await self.connections.authorize_waiting() else CONNECTIONS_POLL_S

    def connection_changed(self) -> None:
        """Authorise a new or changed connection soon."""
        self._wake_connections.set()

    def replay_started(self) -> None:
        """Make the first step of a replay soon."""
        self._wake_upkeep.set()

    def _replay(self, tx: Transaction, replay: Replay, event: dict[str, Any]) -> None:
        """Queue an archived event for the rules that a replay is for, as they are now."""
        event = {**event, "replay-name": replay.name}
        rules = [
            rule
            for rule in self.matching_rules(tx, event, replay.bus_name)
            if rule.targets and (not replay.filter_arns or rule.arn in replay.filter_arns)
        ]
        if not rules:
            return
        attempt = None
        if self._on_replayed is not None:
            starts = any(targets.is_state_machine(target.arn) for rule in rules for target in rule.targets)
            attempt = self._on_replayed(tx, event["id"], replay.name, starts)
        # Each attempt has execution names of its own; an event that nobody counts has one attempt for each replay.
        attempt = 1 + replay.replay_id if attempt is None else attempt
        self._queue(tx, event["id"], compact(event), rules, attempt)
