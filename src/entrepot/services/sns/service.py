"""SNS: topics and subscriptions of one account, what is published, and who delivers it."""

import asyncio
import json
import logging
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

from entrepot import arns, clock
from entrepot.arns import Account
from entrepot.database import Database, Reader, Transaction
from entrepot.errors import AwsError, StorageError
from entrepot.loglines import WriteLog
from entrepot.operations import Operations, Principal
from entrepot.outbound import Send
from entrepot.services.sns import outbox, subscriptions, topics
from entrepot.services.sns.channels import MailServer
from entrepot.services.sns.delivering import Deliverer
from entrepot.services.sns.envelopes import CONFIRMATION, NOTIFICATION, UNSUBSCRIBE_CONFIRMATION, Envelopes
from entrepot.services.sns.errors import InvalidParameter, NotFound
from entrepot.services.sns.filters import CompilePattern, Filters, attribute_values
from entrepot.services.sns.lanes import Lanes
from entrepot.services.sns.messages import Message
from entrepot.services.sns.signing import Signer
from entrepot.services.sns.subscriptions import Subscription
from entrepot.services.sns.topics import Topic

DIRECT_DELIVERIES = 100
"""Queues to which a message goes within the transaction of Publish; further ones get it through the outbox."""

DEDUPLICATION_MS = 300_000
"""How long a FIFO topic knows a message again (AWS: 5 minutes)."""

SWEEP_INTERVAL_S = 10.0
SWEEP_ROWS = 500
"""How often, and how many, rows that are needed no more are removed."""

CheckPolicy: TypeAlias = Callable[[str], None]
"""Raises AwsError unless the text is a valid policy of a resource."""

log = logging.getLogger(__name__)


class SNS:
    """The topics of one account."""

    def __init__(
        self,
        database: Database,
        account: Account,
        operations: Operations,
        *,
        endpoint_url: Callable[[], str],
        key_file: Path,
        compile_pattern: CompilePattern,
        check_policy: CheckPolicy,
        send: Send,
        mail_server: MailServer | None = None,
        write_log: WriteLog | None = None,
    ) -> None:
        """`key_file` holds the key that signs, made when it is missing. `endpoint_url` is how receivers reach us."""
        self.account = account
        self.database = database
        self.operations = operations
        self.filters = Filters(compile_pattern)
        self.check_policy = check_policy
        self.sends_mail = mail_server is not None
        self.signer = Signer(key_file)
        self.envelopes = Envelopes(account, self.signer, endpoint_url)
        principal = Principal(account.iam_arn("service/sns.amazonaws.com"), "service", "sns.amazonaws.com")
        self._deliverer = Deliverer(
            operations, self.envelopes, principal, send=send, mail_server=mail_server, write_log=write_log
        )
        self._lanes = Lanes(database, self._deliverer.deliver, self._deliverer.pause_s)
        self._policies: dict[str, str] = {}
        self._changes = 0
        self._preparing: asyncio.Future[str] | None = None
        self._sweeping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Take up the deliveries that wait, and begin to sweep."""
        await self.load_policies()
        await self._lanes.start()
        self._sweeping = asyncio.create_task(self._sweep_forever(), name="sns-sweep")

    async def stop(self) -> None:
        """Stop delivering and sweeping."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.gather(self._sweeping, return_exceptions=True)
            self._sweeping = None
        await self._lanes.stop()

    async def _sweep_forever(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_INTERVAL_S)
            try:
                await self.sweep()
                await self.load_policies()
            except StorageError as error:
                log.warning("Rows that SNS needs no more could not be removed, will try again: %s", error)
            except Exception:  # the task's top frame
                log.exception("Rows that SNS needs no more could not be removed, will try again")

    async def sweep(self) -> None:
        """Forget what was not confirmed in time, and old de-duplication ids; each in small steps."""
        now_ms = clock.now_ms()
        while await self.database.write(lambda tx: subscriptions.sweep(tx, now_ms, SWEEP_ROWS)) == SWEEP_ROWS:
            pass
        while await self.database.write(lambda tx: _sweep_deduplication(tx, now_ms)) == SWEEP_ROWS:
            pass

    def prepare_key(self) -> None:
        """Make or read the key that signs, beside the event loop, so that the first Publish need not wait for it."""
        if self._preparing is None:
            self._preparing = asyncio.get_running_loop().run_in_executor(None, self.signer.certificate_path)
            self._preparing.add_done_callback(_report_key)

    # ── topics ───────────────────────────────────────────────────────────────────────────────────────────────────

    def topic_arn(self, topic_name: str) -> str:
        """Return a topic's ARN."""
        return self.account.arn("sns", topic_name)

    def topic_name(self, topic_arn: str) -> str:
        """Return the name in a topic's ARN; raise InvalidParameter or NotFound (another account or region)."""
        try:
            parts = arns.parse(topic_arn)
        except ValueError:
            parts = None
        if parts is None or parts.service != "sns" or ":" in parts.resource:
            raise InvalidParameter("Invalid parameter: TopicArn Reason: An ARN must have at least 6 elements, not "
                                   f"{len(topic_arn.split(':'))}" if topic_arn.count(":") < 5
                                   else "Invalid parameter: TopicArn")  # fmt: skip
        if self.topic_arn(parts.resource) != topic_arn:
            raise NotFound("Topic does not exist")
        return parts.resource

    def topic(self, reader: Reader, topic_arn: str) -> Topic:
        """Return a topic by its ARN; raise NotFound."""
        return topics.get(reader, self.topic_name(topic_arn))

    def policy_of(self, topic_arn: str) -> str:
        """Return a topic's own policy, as the gate evaluates it beside the caller's; "" for none."""
        return self._policies.get(topic_arn, "")

    async def load_policies(self) -> None:
        """Read all topics' policies, so that deciding needs no read."""
        while True:
            changes = self._changes
            rows = await self.database.scan(topics.policies)
            if changes == self._changes:  # else what was read may lack a change of our own
                break
        self._policies = {self.topic_arn(name): policy for name, policy in rows}

    def set_policy(self, tx: Transaction, topic: Topic, policy: str) -> None:
        """Set a topic's policy, in force once this transaction is durable. Raises InvalidParameter."""
        if policy:
            try:
                self.check_policy(policy)
            except AwsError as error:
                raise InvalidParameter(f"Invalid parameter: Policy Error: {error.message}") from None
        topics.set_attribute(tx, topic, "Policy", policy)
        self.note_policy(tx, topic.topic_name, policy)

    def note_policy(self, tx: Transaction, topic_name: str, policy: str) -> None:
        """Use a policy from this transaction's commit on; "" for none."""
        arn = self.topic_arn(topic_name)

        def note() -> None:
            self._changes += 1
            if policy:
                self._policies[arn] = policy
            else:
                self._policies.pop(arn, None)

        tx.after_commit(note)

    # ── subscriptions ────────────────────────────────────────────────────────────────────────────────────────────

    def ask_to_confirm(self, tx: Transaction, subscription: Subscription) -> None:
        """Queue the message that asks an endpoint whether it wants a topic's messages."""
        self._queue(tx, [subscription.subscription_id], 0, CONFIRMATION)

    def unsubscribe(self, tx: Transaction, subscription: Subscription) -> None:
        """End a subscription; an HTTP endpoint is told so, with a link to subscribe again."""
        ended = subscriptions.unsubscribe(tx, subscription)
        if ended is not None:
            self._queue(tx, [ended.subscription_id], 0, UNSUBSCRIBE_CONFIRMATION)

    def _queue(self, tx: Transaction, subscription_ids: list[int], message_id: int, kind: int) -> None:
        outbox.queue(tx, subscription_ids, message_id, kind, clock.now_ms())
        tx.after_commit(lambda: self._lanes.wake(subscription_ids))

    # ── messages ─────────────────────────────────────────────────────────────────────────────────────────────────

    def publish(self, tx: Transaction, topic: Topic, message: Message) -> Message:
        """Publish a message; return it, or what a FIFO topic took as this message before.

        To queues it goes in this very transaction; what leaves the ledger is queued in it.
        """
        if topic.is_fifo:
            known = _known(tx, topic, message)
            if known is not None:
                return known
            message = _in_order(tx, topic, message)
        attributes = attribute_values(message.attributes)
        body = lru_cache(maxsize=1)(lambda: _parsed(message.text))
        outside: list[int] = []
        direct = 0
        for subscription in subscriptions.confirmed(tx, topic):
            policy = subscription.filter_policy
            if policy is not None and not self.filters.accepts(*policy, attributes, body):
                continue
            if subscription.protocol == "sqs" and (direct < DIRECT_DELIVERIES or topic.is_fifo):
                direct += 1
                self._send_to_queue(tx, topic, subscription, message)
            else:
                outside.append(subscription.subscription_id)
        if outside:
            message_id = outbox.put_message(tx, message, len(outside))
            self._queue(tx, outside, message_id, NOTIFICATION)
        return message

    def _send_to_queue(self, tx: Transaction, topic: Topic, subscription: Subscription, message: Message) -> None:
        request = self._deliverer.queue_request(subscription, topic, message)
        try:
            call = self._deliverer.call(subscription, message.uuid, subscription.uuid)
            self.operations.transact(tx, "sqs", "SendMessage", request, call)
        except AwsError as error:
            self._deliverer.give_up(tx, subscription, topic, message, f"{error.code}: {error.message}")


def _report_key(made: "asyncio.Future[str]") -> None:
    if not made.cancelled() and (error := made.exception()) is not None:
        log.error("%s", error)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


# ── FIFO topics ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _deduplication_key(topic: Topic, message: Message) -> str:
    per_group = topic.attributes.get("FifoThroughputScope") == "MessageGroup"
    return f"{message.group_id}\n{message.deduplication_id}" if per_group else f"\n{message.deduplication_id}"


def _known(tx: Transaction, topic: Topic, message: Message) -> Message | None:
    """Return the message that was published with the same de-duplication id less than five minutes ago."""
    row = tx.one(
        "SELECT message_uuid, published_at_ms, sequence FROM sns_deduplication "
        "WHERE topic_id = ? AND deduplication_key = ? AND published_at_ms > ?",
        (topic.topic_id, _deduplication_key(topic, message), clock.now_ms() - DEDUPLICATION_MS),
    )
    return None if row is None else Message(row[0], row[1], message.text, sequence=row[2])


def _in_order(tx: Transaction, topic: Topic, message: Message) -> Message:
    """Return the message with its sequence number, and remember it."""
    message = message.numbered(topics.next_number(tx))
    tx.execute(
        "INSERT INTO sns_deduplication (topic_id, deduplication_key, published_at_ms, message_uuid, sequence) "
        "VALUES (?, ?, ?, ?, ?) ON CONFLICT (topic_id, deduplication_key) DO UPDATE SET "
        "published_at_ms = excluded.published_at_ms, message_uuid = excluded.message_uuid, sequence = excluded.sequence",
        (topic.topic_id, _deduplication_key(topic, message), message.published_at_ms, message.uuid, message.sequence),
    )
    return message


def _sweep_deduplication(tx: Transaction, now_ms: int) -> int:
    return tx.execute(
        "DELETE FROM sns_deduplication WHERE (topic_id, deduplication_key) IN (SELECT topic_id, deduplication_key "
        "FROM sns_deduplication WHERE published_at_ms < ? LIMIT ?)",
        (now_ms - DEDUPLICATION_MS, SWEEP_ROWS),
    )
