"""The watch: looks at every alarm's values, changes states, and sets off their actions.

A change of state, its history, its event and its notifications are one transaction: whoever was to be told is told, once,
however the process ends.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from entrepot import clock
from entrepot.arns import Account
from entrepot.database import Database, Transaction
from entrepot.errors import AwsError, StorageError
from entrepot.services.cloudwatch.alarms import alarm as alarms
from entrepot.services.cloudwatch.alarms import words
from entrepot.services.cloudwatch.alarms.alarm import Alarm, StateValue
from entrepot.services.cloudwatch.alarms.composite import parse_rule
from entrepot.services.cloudwatch.alarms.threshold import EXTRA_PERIODS, Rule, judge
from entrepot.services.cloudwatch.metric_data import Query, metric_data, read_series
from entrepot.services.cloudwatch.metrics import Metric
from entrepot.services.cloudwatch.store import MetricStore

TICK_S = 5.0
"""How often alarms are looked at; one is judged anew when a period of its has ended."""

COMPOSITE_ROUNDS = 10
"""Composite alarms over composite alarms settle in at most this many rounds of one look."""

FORGET_INTERVAL_S = 3_600.0

RunAction: TypeAlias = Callable[[Transaction, str, str, str], None]
"""`run_action(tx, action_arn, subject, message)`: publish to a topic, or invoke a function, within the transaction."""

Emit: TypeAlias = Callable[[Transaction, str, Sequence[str], Mapping[str, Any]], None]
"""`emit(tx, detail_type, resources, detail)`: put an event of aws.cloudwatch on the default bus."""

_log = logging.getLogger("entrepot.cloudwatch")


class Watch:
    """Judges alarms. Everything is called from the event loop's thread, except `change`, which is for transactions."""

    def __init__(
        self, database: Database, store: MetricStore, account: Account, *, run_action: RunAction, emit: Emit
    ) -> None:
        self._database = database
        self._store = store
        self._account = account
        self._run_action = run_action
        self._emit = emit
        self._judged: dict[str, tuple[int, int]] = {}
        self._forgot_s = 0.0

    async def keep(self) -> None:
        """Look at the alarms for ever."""
        while True:
            await asyncio.sleep(TICK_S)
            try:
                await self.look()
            except StorageError as error:
                _log.error("Alarms cannot be judged: %s It is tried again.", error)
            except Exception:  # noqa: BLE001 - the task's top frame
                _log.exception("Alarms could not be judged; it is tried again.")

    async def look(self) -> None:
        """Judge every alarm whose period has ended since it was judged, then the composite ones."""
        known = await self._database.scan(alarms.every)
        now_ms = clock.now_ms()
        for one in known:
            if one.kind == "MetricAlarm":
                await self._look_at(one, now_ms)
        for _ in range(COMPOSITE_ROUNDS):
            if not await self._look_at_composites():
                break
        if clock.monotonic_s() - self._forgot_s > FORGET_INTERVAL_S:
            self._forgot_s = clock.monotonic_s()
            while await self._database.write(lambda tx: alarms.forget(tx, now_ms - alarms.HISTORY_KEPT_MS)):
                pass

    async def _look_at(self, one: Alarm, now_ms: int) -> None:
        period_s = period_of(one.definition)
        end_s = now_ms // 1000 // period_s * period_s
        key = (end_s, one.configured_at_ms)
        if self._judged.get(one.name) == key and one.updated_at_ms < end_s * 1000:
            return
        self._judged[one.name] = key
        rule = rule_of(one.definition)
        start_s = end_s - (rule.evaluation_periods + EXTRA_PERIODS) * period_s
        try:
            points = await self._points(one.definition, period_s, start_s, end_s)
        except AwsError as error:
            await self._settle(one, "INSUFFICIENT_DATA", f"Unable to evaluate the alarm: {error.message}", "")
            return
        periods = [(at_s, points.get(at_s)) for at_s in range(start_s, end_s, period_s)]
        verdict = judge(rule, periods)
        state = verdict.state or one.state
        if state != one.state:
            data = words.reason_data(one, rule, periods, period_s, now_ms)
            await self._settle(one, state, words.reason(rule, verdict, state), data)

    async def _points(
        self, definition: Mapping[str, Any], period_s: int, start_s: int, end_s: int
    ) -> Mapping[int, float]:
        if definition.get("Metrics"):
            results = await metric_data(self._store, queries_of(definition["Metrics"]), start_s, end_s)
            return results[0].series.points if results else {}
        statistic = definition.get("Statistic") or definition["ExtendedStatistic"]
        metric = metric_of(definition)
        (series,) = await read_series(self._store, [metric], statistic, period_s, start_s, end_s)
        return series.points

    async def _look_at_composites(self) -> bool:
        known = await self._database.scan(alarms.every)
        states: dict[str, StateValue] = {one.name: one.state for one in known}
        changed = False
        for one in known:
            if one.kind != "CompositeAlarm":
                continue
            rule = parse_rule(one.definition["AlarmRule"])
            state: StateValue = "ALARM" if rule.holds(states) else "OK"
            if state != one.state:
                children = ", ".join(f"{name} is {states.get(name, 'missing')}" for name in sorted(rule.children))
                await self._settle(
                    one, state, f"{one.definition['AlarmRule']} is {state == 'ALARM'}: {children}"[:1023], ""
                )
                changed = True
        return changed

    async def _settle(self, one: Alarm, state: StateValue, reason: str, reason_data: str) -> None:
        def settle(tx: Transaction) -> None:
            now = alarms.find(tx, one.name)
            if now is not None and now.configured_at_ms == one.configured_at_ms and now.state == one.state != state:
                self.change(tx, now, state, reason, reason_data)

        await self._database.write(settle)

    # ── inside transactions ──────────────────────────────────────────────────────────────────────────────────────

    def change(self, tx: Transaction, before: Alarm, state: StateValue, reason: str, reason_data: str) -> Alarm:
        """Put an alarm into a state and set off what that sets off."""
        now_ms = clock.now_ms()
        after = replace(
            before,
            state=state,
            reason=reason,
            reason_data=reason_data,
            updated_at_ms=now_ms,
            transitioned_at_ms=now_ms if state != before.state else before.transitioned_at_ms,
        )
        alarms.save(tx, after)
        summary = f"Alarm updated from {before.state} to {state}"
        data = {"version": "1.0", "oldState": _history_state(before), "newState": _history_state(after)}
        alarms.remember(tx, after, now_ms, "StateUpdate", summary, data)
        if state == before.state:
            return after
        arn = self._account.arn("cloudwatch", f"alarm:{after.name}")
        self._emit(tx, "CloudWatch Alarm State Change", [arn], words.change_event(before, after))
        if not self._suppressed(tx, after):
            for action in after.actions(state):
                self._act(tx, after, before.state, arn, action, now_ms)
        return after

    def _act(self, tx: Transaction, after: Alarm, old: StateValue, arn: str, action: str, now_ms: int) -> None:
        subject, message = words.notification(after, old, self._account, arn, self._account.region)
        data: dict[str, Any] = {"actionState": "Succeeded", "stateUpdateTimestamp": after.updated_at_ms}
        data |= {"notificationResource": action, "publishedMessage": message}
        try:
            with tx.savepoint():
                self._run_action(tx, action, subject, message)
        except AwsError as error:
            _log.error("The alarm %s could not run its action %s: %s", after.name, action, error.message)
            data = {**data, "actionState": "Failed", "error": error.message}
            alarms.remember(tx, after, now_ms, "Action", f"Failed to execute action {action}: {error.message}", data)
        else:
            alarms.remember(tx, after, now_ms, "Action", f"Successfully executed action {action}", data)

    def _suppressed(self, tx: Transaction, composite: Alarm) -> bool:
        """Whether another alarm keeps a composite alarm's actions back."""
        name = composite.definition.get("ActionsSuppressor")
        suppressor = alarms.find(tx, name.rsplit(":alarm:", 1)[-1]) if name else None
        return suppressor is not None and suppressor.state == "ALARM"


def _history_state(one: Alarm) -> dict[str, Any]:
    return {"stateValue": one.state, "stateReason": one.reason, "stateReasonData": one.reason_data[:1_500]}


# ── definitions ──────────────────────────────────────────────────────────────────────────────────────────────────────


def period_of(definition: Mapping[str, Any]) -> int:
    """Return the length of an alarm's periods, in seconds."""
    if not definition.get("Metrics"):
        return int(definition["Period"])
    periods = [query.get("Period") or query.get("MetricStat", {}).get("Period") for query in definition["Metrics"]]
    return max((int(period) for period in periods if period), default=300)


def rule_of(definition: Mapping[str, Any]) -> Rule:
    """Return when an alarm raises."""
    periods = int(definition["EvaluationPeriods"])
    return Rule(
        definition["ComparisonOperator"],
        float(definition["Threshold"]),
        periods,
        int(definition.get("DatapointsToAlarm") or periods),
        definition.get("TreatMissingData") or "missing",
    )


def metric_of(shape: Mapping[str, Any]) -> Metric:
    """Return the metric that a shape with Namespace, MetricName and Dimensions names."""
    dimensions = tuple(sorted((d["Name"], d["Value"]) for d in shape.get("Dimensions") or ()))
    return Metric(shape.get("Namespace", ""), shape.get("MetricName", ""), dimensions)


def queries_of(shapes: Sequence[Mapping[str, Any]]) -> list[Query]:
    """Return the queries that AWS's MetricDataQuery shapes name."""
    found = []
    for shape in shapes:
        stat = shape.get("MetricStat")
        found.append(
            Query(
                shape["Id"],
                None if stat is None else metric_of(stat["Metric"]),
                "" if stat is None else stat["Stat"],
                int(shape.get("Period") or (stat or {}).get("Period") or 0),
                shape.get("Expression"),
                shape.get("Label"),
                shape.get("ReturnData", True),
            )
        )
    return found
