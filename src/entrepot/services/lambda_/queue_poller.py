"""A queue as an event source: messages are received, handed to the function in batches, and deleted when it succeeded.

A batch that fails stays in the queue: its messages become visible again after the queue's time-out, and go to the queue's
own dead letters when they were received too often. Killed at any moment, only the batches in flight are repeated.

Source: https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html
"""

import asyncio
import base64
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from entrepot import arns, clock, faults
from entrepot.database import Transaction
from entrepot.errors import AwsError, EntrepotError
from entrepot.operations import Call, Response
from entrepot.services.lambda_.batches import PAYLOAD_LIMIT_BYTES, compile_filters, item_failures
from entrepot.services.lambda_.errors import TooManyRequestsError
from entrepot.services.lambda_.event_source_mappings import EventSourceMapping
from entrepot.services.lambda_.sources import Report, SourcePorts, end_tasks

RECEIVE_LIMIT = 10
"""Messages of one receive."""

LONG_POLL_S = 20
"""How long a receive waits for the first message."""

PAUSE_AFTER_ERROR_S = 5.0
"""How long a queue that cannot be read is left alone."""

THROTTLE_PAUSE_S, THROTTLE_PAUSE_LIMIT_S = 0.5, 10.0
"""Between attempts to hand a batch to a function that has no room."""

VISIBILITY_SHARE = 0.8
"""A batch that finds no room is given back when this share of its visibility time-out is over."""

_log = logging.getLogger("entrepot.lambda")


@dataclass(slots=True)
class _Batch:
    messages: list[Mapping[str, Any]] = field(default_factory=list)
    size_bytes: int = 0
    received_at_s: float = field(default_factory=clock.monotonic_s)

    def add(self, messages: Sequence[Mapping[str, Any]]) -> None:
        self.messages += messages
        self.size_bytes += sum(2 * len(message["Body"]) + 1_000 for message in messages)


class QueuePoller:
    """Reads one queue for one mapping, as the function's role."""

    def __init__(self, mapping: EventSourceMapping, ports: SourcePorts, report: Report, concurrency: int) -> None:
        self._mapping = mapping
        self._ports = ports
        self._report = report
        arn = arns.parse(mapping.source_arn)
        self._url = f"{arn.account_id}/{arn.resource}"
        self._passes = compile_filters(mapping.settings.filters, ports.neighbours.compile_pattern)
        limit = mapping.settings.maximum_concurrency
        self._room = asyncio.Semaphore(concurrency if limit is None else min(limit, concurrency))
        self._running: set[asyncio.Task[None]] = set()
        self._visibility_s = 30.0

    async def run(self) -> None:
        """Poll until cancelled; the batches in flight may then come to their end."""
        try:
            while True:
                await self._room.acquire()
                try:
                    batch = await self._gather()
                except (AwsError, EntrepotError) as error:
                    self._room.release()
                    await self._report(f"PROBLEM: {error}")
                    await asyncio.sleep(PAUSE_AFTER_ERROR_S)
                    continue
                except BaseException:
                    self._room.release()
                    raise
                if not batch.messages:
                    self._room.release()
                    continue
                task = asyncio.create_task(self._process(batch))
                self._running.add(task)
                task.add_done_callback(self._running.discard)
        finally:
            await end_tasks(self._running)

    async def _call(self) -> Call:
        return await self._ports.call_as_function(self._mapping)

    # ── receiving ────────────────────────────────────────────────────────────────────────────────────────────────

    async def _gather(self) -> _Batch:
        """Receive the messages of one batch: what is there, or what comes within the window."""
        settings, batch = self._mapping.settings, _Batch()
        call = await self._call()
        await self._learn_visibility(call)
        wait_s, deadline_s = LONG_POLL_S, 0.0
        while len(batch.messages) < settings.batch_size and batch.size_bytes < PAYLOAD_LIMIT_BYTES:
            found = await self._receive(min(RECEIVE_LIMIT, settings.batch_size - len(batch.messages)), wait_s, call)
            now_s = clock.monotonic_s()
            if not batch.messages:
                if not found:
                    break
                batch.received_at_s, deadline_s = now_s, now_s + settings.window_s
            batch.add(found)
            left_s = deadline_s - now_s
            if left_s <= 0 and not (found and settings.window_s):
                break
            if left_s <= 0:
                break
            wait_s = min(LONG_POLL_S, max(1, int(left_s)))
        return batch

    async def _receive(self, limit: int, wait_s: int, call: Call) -> list[Mapping[str, Any]]:
        request = {
            "QueueUrl": self._url,
            "MaxNumberOfMessages": limit,
            "WaitTimeSeconds": wait_s,
            "MessageSystemAttributeNames": ["All"],
            "MessageAttributeNames": ["All"],
        }
        answer = await self._ports.neighbours.operations.perform("sqs", "ReceiveMessage", request, call)
        messages: list[Mapping[str, Any]] = answer.get("Messages", [])
        return messages

    async def _learn_visibility(self, call: Call) -> None:
        request = {"QueueUrl": self._url, "AttributeNames": ["VisibilityTimeout"]}
        answer = await self._ports.neighbours.operations.perform("sqs", "GetQueueAttributes", request, call)
        self._visibility_s = float(answer["Attributes"]["VisibilityTimeout"])

    # ── one batch ────────────────────────────────────────────────────────────────────────────────────────────────

    async def _process(self, batch: _Batch) -> None:
        try:
            records = [(message, self._record(message)) for message in batch.messages]
            wanted = [(message, record) for message, record in records if self._passes(record)]
            dropped = [message for message, record in records if not self._passes(record)]
            done = dropped + (await self._invoke(batch, wanted) if wanted else [])
            faults.reach("lambda.after-batch")
            if done:
                await self._delete(done)
        except (AwsError, EntrepotError) as error:
            _log.warning("A batch of %s stays in its queue: %s", self._mapping.source_arn, error)
            await self._report(f"PROBLEM: {error}")
        finally:
            self._room.release()

    async def _invoke(
        self, batch: _Batch, wanted: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]
    ) -> list[Mapping[str, Any]]:
        """Hand the messages to the function; return those that are done with."""
        mapping = self._mapping
        payload = json.dumps({"Records": [record for _, record in wanted]}, ensure_ascii=False).encode()
        give_up_at_s, pause_s = batch.received_at_s + self._visibility_s * VISIBILITY_SHARE, THROTTLE_PAUSE_S
        while True:
            try:
                result = await self._ports.invoke(mapping.function_name, payload, qualifier=mapping.qualifier)
                break
            except TooManyRequestsError:
                if clock.monotonic_s() + pause_s > give_up_at_s:
                    raise
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, THROTTLE_PAUSE_LIMIT_S)
        messages = [message for message, _ in wanted]
        if result.function_error is not None:
            await self._report("PROBLEM: Function call failed")
            return []
        if not mapping.settings.reports_item_failures:
            await self._report("OK")
            return messages
        failed = item_failures(result.payload, [message["MessageId"] for message in messages])
        await self._report("PROBLEM: Function call failed" if failed is None else "OK")
        return [] if failed is None else [message for message in messages if message["MessageId"] not in failed]

    async def _delete(self, messages: Sequence[Mapping[str, Any]]) -> None:
        """Delete messages from the queue, all in one transaction."""
        call, operations = await self._call(), self._ports.neighbours.operations
        entries = [
            {"Id": str(place), "ReceiptHandle": message["ReceiptHandle"]} for place, message in enumerate(messages)
        ]

        def delete(tx: Transaction) -> list[Response]:
            return [
                operations.transact(
                    tx,
                    "sqs",
                    "DeleteMessageBatch",
                    {"QueueUrl": self._url, "Entries": entries[start : start + RECEIVE_LIMIT]},
                    call,
                )
                for start in range(0, len(entries), RECEIVE_LIMIT)
            ]

        await self._ports.database.write(delete)

    def _record(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Return a message in the shape in which a function gets it."""
        record = {
            "messageId": message["MessageId"],
            "receiptHandle": message["ReceiptHandle"],
            "body": message["Body"],
            "attributes": dict(message.get("Attributes", {})),
            "messageAttributes": {
                name: _attribute(value) for name, value in message.get("MessageAttributes", {}).items()
            },
            "md5OfBody": message["MD5OfBody"],
            "eventSource": "aws:sqs",
            "eventSourceARN": self._mapping.source_arn,
            "awsRegion": arns.parse(self._mapping.source_arn).region,
        }
        if "MD5OfMessageAttributes" in message:
            record["md5OfMessageAttributes"] = message["MD5OfMessageAttributes"]
        return record


def _attribute(value: Mapping[str, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    if "StringValue" in value:
        shown["stringValue"] = value["StringValue"]
    if "BinaryValue" in value:
        shown["binaryValue"] = base64.b64encode(bytes(value["BinaryValue"])).decode()
    return {**shown, "stringListValues": [], "binaryListValues": [], "dataType": value["DataType"]}
