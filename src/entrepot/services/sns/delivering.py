"""What a lane does with a batch: each delivery by its protocol, and what becomes of those that fail."""

import asyncio
import json
import logging
import random
from collections.abc import Callable
from typing import Any

from entrepot import arns, clock, ids
from entrepot.database import Transaction
from entrepot.errors import AwsError, EntrepotError
from entrepot.loglines import LogLine, WriteLog
from entrepot.operations import Call, Operations, Principal
from entrepot.outbound import Send
from entrepot.services.sns import channels, outbox
from entrepot.services.sns.channels import MailServer, NotDelivered
from entrepot.services.sns.envelopes import (
    CONFIRMATION,
    NOTIFICATION,
    TYPES,
    UNSUBSCRIBE_CONFIRMATION,
    Envelopes,
    to_text,
)
from entrepot.services.sns.messages import Message
from entrepot.services.sns.outbox import Batch, Waiting
from entrepot.services.sns.subscriptions import CONFIRMED, PENDING, UNSUBSCRIBED, Subscription
from entrepot.services.sns.topics import Topic

LOG_GROUP = "/entrepot/notifications"
"""Deliveries that failed, a stream per topic."""

MAILS_AT_ONCE = 4
"""Connections to the SMTP server."""

POSTS_AT_ONCE = 40
"""Posts under way, over all endpoints; the client that all rooms share has 64 connections."""

JITTER = 0.1
"""By how much of itself a pause before the next try may be longer, so that many do not come at once."""

_log = logging.getLogger(__name__)

_STATUS_OF_KIND = {NOTIFICATION: CONFIRMED, CONFIRMATION: PENDING, UNSUBSCRIBE_CONFIRMATION: UNSUBSCRIBED}


class Deliverer:
    """Delivers by every protocol, as the service `sns.amazonaws.com`."""

    def __init__(
        self,
        operations: Operations,
        envelopes: Envelopes,
        principal: Principal,
        *,
        send: Send,
        mail_server: MailServer | None,
        write_log: WriteLog | None,
    ) -> None:
        self._operations = operations
        self._envelopes = envelopes
        self._principal = principal
        self._send = send
        self._mail_server = mail_server
        self._write_log = write_log
        self._mails = asyncio.Semaphore(MAILS_AT_ONCE)
        self._posts = asyncio.Semaphore(POSTS_AT_ONCE)

    async def deliver(self, batch: Batch) -> Callable[[Transaction], bool]:
        """Deliver a batch; return what records its outcome (see `lanes.Deliver`)."""
        tries = [self._try(batch.subscription, batch.topic, waiting, message) for waiting, message in batch.deliveries]
        failures = await asyncio.gather(*tries)

        def record(tx: Transaction) -> bool:
            works = True
            for (waiting, message), failure in zip(batch.deliveries, failures, strict=True):
                if failure is None or batch.subscription is None:
                    outbox.remove(tx, waiting)
                else:
                    works = works and failure.is_final
                    self._failed(tx, batch.subscription, batch.topic, waiting, message, failure)
            return works

        return record

    def pause_s(self, batch: Batch) -> float:
        """Return how long the lane waits after a batch, where its endpoint takes only so many a second."""
        if batch.subscription is None or batch.subscription.protocol not in ("http", "https", "chat"):
            return 0.0
        per_s = batch.subscription.delivery_policy(batch.topic).per_s
        return 0.0 if per_s is None else len(batch.deliveries) / per_s

    async def _try(
        self, subscription: Subscription | None, topic: Topic | None, waiting: Waiting, message: Message | None
    ) -> NotDelivered | None:
        """Return why a delivery failed, None when it came through or nobody waits for it any more."""
        if subscription is None or topic is None or subscription.status != _STATUS_OF_KIND[waiting.kind]:
            return None
        if waiting.kind == NOTIFICATION and message is None:
            return None
        try:
            await self._deliver_one(subscription, topic, waiting, message)
        except NotDelivered as failure:
            return failure
        except AwsError as error:
            is_final = error.status < 500 and "Throttl" not in error.code and "TooMany" not in error.code
            return NotDelivered(f"{error.code}: {error.message}", is_final=is_final)
        except EntrepotError as error:
            return NotDelivered(str(error), is_final=False)
        except Exception as error:  # noqa: BLE001 - a delivery's top frame: one that cannot be made holds up no other
            _log.exception("Delivering to %s failed", subscription.arn(self._envelopes.account))
            return NotDelivered(f"{type(error).__name__}: {error}", is_final=False)
        return None

    async def _deliver_one(
        self, subscription: Subscription, topic: Topic, waiting: Waiting, message: Message | None
    ) -> None:
        version = topic.signature_version
        if message is None:
            document = self._envelopes.confirmation(waiting.kind, subscription, waiting.queued_at_ms, version)
        elif subscription.protocol == "lambda":
            await self._invoke(subscription, waiting, self._envelopes.function_event(message, subscription, version))
            return
        elif subscription.protocol == "sqs":
            request = self.queue_request(subscription, topic, message)
            call = self.call(subscription, str(waiting.delivery_id))
            await self._operations.perform("sqs", "SendMessage", request, call)
            return
        else:
            document = self._envelopes.notification(message, subscription, version)
        match subscription.protocol:
            case "http" | "https":
                await self._post(subscription, topic, waiting, message, document)
            case "chat":
                body = channels.chat_body(document.get("Subject"), document["Message"])
                policy = subscription.delivery_policy(topic)
                async with self._posts:
                    await channels.post(self._send, subscription.endpoint, {"Content-Type": policy.content_type}, body)
            case _:
                await self._mail(subscription, topic, message, document)

    async def _post(
        self,
        subscription: Subscription,
        topic: Topic,
        waiting: Waiting,
        message: Message | None,
        document: dict[str, Any],
    ) -> None:
        account = self._envelopes.account
        headers = {
            "x-amz-sns-message-type": TYPES[waiting.kind],
            "x-amz-sns-message-id": document["MessageId"],
            "x-amz-sns-topic-arn": document["TopicArn"],
        }
        if waiting.kind != CONFIRMATION:
            headers["x-amz-sns-subscription-arn"] = subscription.arn(account)
        text = to_text(document)
        if message is not None and subscription.is_raw:
            headers["x-amz-sns-rawdelivery"] = "true"
            text = message.text_for(subscription.protocol)
        headers["Content-Type"] = subscription.delivery_policy(topic).content_type
        async with self._posts:
            await channels.post(self._send, subscription.endpoint, headers, text.encode("utf-8", "replace"))

    async def _mail(
        self, subscription: Subscription, topic: Topic, message: Message | None, document: dict[str, Any]
    ) -> None:
        server = self._mail_server
        if server is None:
            raise NotDelivered("No mail goes out: [smtp] of stack.toml names no host.", is_final=False)
        compose = channels.confirmation_mail if message is None else channels.notification_mail
        as_json = subscription.protocol == "email-json"
        mail = compose(server.from_address, topic.display_name, subscription.endpoint, document, as_json=as_json)
        async with self._mails:
            await channels.send_mail(server, mail)

    async def _invoke(self, subscription: Subscription, waiting: Waiting, event: dict[str, Any]) -> None:
        payload = json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
        request = {"FunctionName": subscription.endpoint, "InvocationType": "Event", "Payload": payload}
        await self._operations.perform("lambda", "Invoke", request, self.call(subscription, str(waiting.delivery_id)))

    # ── queues ───────────────────────────────────────────────────────────────────────────────────────────────────

    def call(self, subscription: Subscription, *names: str) -> Call:
        """Return the call under which something is delivered, for the subscription's topic."""
        request_id = ids.derived_uuid("sns", *names)
        source_arn = self._envelopes.account.arn("sns", subscription.topic_name)
        return Call(self._principal, request_id, user_agent="sns.amazonaws.com", source_arn=source_arn)

    def queue_request(
        self, subscription: Subscription, topic: Topic, message: Message, queue_arn: str | None = None
    ) -> dict[str, Any]:
        """Return the SendMessage that brings a message to a queue, the subscription's unless another is named."""
        queue_arn = queue_arn or subscription.endpoint
        arn = arns.parse(queue_arn)
        request: dict[str, Any] = {"QueueUrl": f"{arn.account_id}/{arn.resource}"}
        if subscription.is_raw:
            request["MessageBody"] = message.text_for(subscription.protocol)
            if message.attributes:
                request["MessageAttributes"] = {name: dict(one) for name, one in message.attributes.items()}
        elif subscription.protocol == "lambda":
            event = self._envelopes.function_event(message, subscription, topic.signature_version)
            request["MessageBody"] = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
        else:
            request["MessageBody"] = to_text(
                self._envelopes.notification(message, subscription, topic.signature_version)
            )
        if queue_arn.endswith(".fifo") and message.group_id is not None:
            request["MessageGroupId"] = message.group_id
            request["MessageDeduplicationId"] = message.deduplication_id
        return request

    # ── failures ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _failed(
        self,
        tx: Transaction,
        subscription: Subscription,
        topic: Topic | None,
        waiting: Waiting,
        message: Message | None,
        failure: NotDelivered,
    ) -> None:
        """Try again later, or give the delivery up."""
        delay_s = None if failure.is_final else subscription.retry_policy(topic).delay_s(waiting.failures + 1)
        if delay_s is not None:
            delay_s *= random.uniform(1.0, 1.0 + JITTER)  # noqa: S311 - jitter, not a secret
            due_at_ms = clock.now_ms() + int(delay_s * 1000)
            outbox.postpone(tx, waiting, due_at_ms)
            self._report(subscription, message, failure.reason, f"trying again at {clock.iso(due_at_ms)}", waiting)
            return
        outbox.remove(tx, waiting)
        self.give_up(tx, subscription, topic, message, failure.reason, waiting)

    def give_up(
        self,
        tx: Transaction,
        subscription: Subscription,
        topic: Topic | None,
        message: Message | None,
        reason: str,
        waiting: Waiting | None = None,
    ) -> None:
        """Send a message that cannot be delivered to the subscription's dead-letter queue, where it has one."""
        queue_arn, outcome = subscription.dead_letter_arn, "given up"
        if message is not None and topic is not None and queue_arn is not None:
            request = self.queue_request(subscription, topic, message, queue_arn)
            try:
                call = self.call(subscription, message.uuid, subscription.uuid, "dead letter")
                self._operations.transact(tx, "sqs", "SendMessage", request, call)
                outcome = f"given up; the message is in {queue_arn}"
            except AwsError as error:
                outcome = f"given up; {queue_arn} did not take it either ({error.code}: {error.message})"
        self._report(subscription, message, reason, outcome, waiting)

    def _report(
        self, subscription: Subscription, message: Message | None, reason: str, outcome: str, waiting: Waiting | None
    ) -> None:
        if self._write_log is None:
            return
        line = {
            "topic": subscription.topic_name,
            "subscription": subscription.arn(self._envelopes.account),
            "protocol": subscription.protocol,
            "message_id": None if message is None else message.uuid,
            "tries": 1 + (0 if waiting is None else waiting.failures),
            "error": reason[:2_000],
            "outcome": outcome,
        }
        text = json.dumps(line, ensure_ascii=False, separators=(",", ":"))
        self._write_log(LOG_GROUP, subscription.topic_name, LogLine(clock.now_ms(), text))
