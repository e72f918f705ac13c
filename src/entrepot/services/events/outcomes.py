"""What becomes of a delivery: done, tried again later, or given up into a queue or the dead-letter store; and who hears of it."""

import logging

from entrepot import clock, ids
from entrepot.database import Transaction
from entrepot.errors import AwsError
from entrepot.loglines import LogLine, WriteLog
from entrepot.operations import Call, Operations, Principal
from entrepot.services.events import dead_letters, delivery
from entrepot.services.events.delivery import Delivery, OnDelivery, Queued
from entrepot.services.events.errors import TargetError
from entrepot.services.events.input import compact
from entrepot.services.events.rulebook import Rulebook
from entrepot.services.events.rules import Rule, Rules, Target

LOG_GROUP = "/aws/events/deliveries"
"""Where failed deliveries are logged."""

_log = logging.getLogger(__name__)


class Outcomes:
    """Records outcomes, each in the transaction of whoever found out."""

    def __init__(
        self,
        rules: Rules,
        rulebook: Rulebook,
        operations: Operations,
        *,
        service_principal: Principal,
        on_delivered: OnDelivery,
        on_delivery_failed: OnDelivery,
        write_log: WriteLog | None,
    ) -> None:
        self._rules = rules
        self._rulebook = rulebook
        self._operations = operations
        self._service_principal = service_principal
        self.on_delivered = on_delivered
        self.on_delivery_failed = on_delivery_failed
        self._write_log = write_log

    def delivered(self, queued: Queued, rule: Rule, target: Target, execution_arn: str | None, tx: Transaction) -> None:
        """Take a delivery that reached its target out of the queue."""
        if delivery.remove(tx, queued.delivery_id):
            self.on_delivered(
                tx,
                Delivery(
                    queued.event_id, queued.event_text, rule.name, rule.arn, target.target_id, target.arn,
                    queued.attempt, execution_arn,
                ),
            )  # fmt: skip

    def failed(self, queued: Queued, error: AwsError, tx: Transaction) -> None:
        """Try again later, or give the delivery up into the dead-letter store."""
        known = self._rulebook.of(tx, queued.bus_name).target(queued.rule_name, queued.target_id)
        target = None if known is None else known[1]
        at_ms = clock.now_ms()
        if target is not None and delivery.is_retryable(error):
            at_least_ms = error.retry_after_ms if isinstance(error, TargetError) else 0
            due_at_ms = delivery.retry_at_ms(queued, target.retry_policy, at_ms, at_least_ms)
            if due_at_ms is not None:
                delivery.postpone(tx, queued.delivery_id, due_at_ms=due_at_ms, tries=queued.tries + 1)
                self._report(queued, error, f"trying again at {clock.iso(due_at_ms)}")
                return
        if delivery.remove(tx, queued.delivery_id):
            self._give_up(tx, queued, target, error, at_ms)

    def _give_up(self, tx: Transaction, queued: Queued, target: Target | None, error: AwsError, at_ms: int) -> None:
        target_arn, dead_letter_arn = "" if target is None else target.arn, None
        if (
            target is not None
            and target.dead_letter_arn is not None
            and self._send_dead_letter(tx, queued, target, error)
        ):
            dead_letter_arn = target.dead_letter_arn
            self._report(queued, error, f"given up; the event is in {dead_letter_arn}")
        else:
            dead_letters.bury(tx, queued, target_arn, error, at_ms)
            self._report(queued, error, "given up; the event is in the dead-letter store")
        self.on_delivery_failed(
            tx,
            Delivery(
                queued.event_id, queued.event_text, queued.rule_name,
                self._rules.rule_arn(queued.bus_name, queued.rule_name), queued.target_id, target_arn, queued.attempt,
                None, f"{error.code}: {error.message}", dead_letter_arn,
            ),
        )  # fmt: skip

    def _send_dead_letter(self, tx: Transaction, queued: Queued, target: Target, error: AwsError) -> bool:
        """Send an event that is given up to the target's own queue; return whether that took it."""
        assert target.dead_letter_arn is not None
        rule_arn = self._rules.rule_arn(queued.bus_name, queued.rule_name)
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
