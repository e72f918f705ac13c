"""The edge of SQS: AWS's operations in botocore's shapes (service `sqs`).

Source: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_Operations.html
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from entrepot import arns, clock
from entrepot.database import Reader, Transaction
from entrepot.errors import AwsError
from entrepot.operations import (
    AsyncOperation,
    Call,
    Operation,
    Permission,
    Permissions,
    ReadOperation,
    Request,
    Response,
    WriteOperation,
)
from entrepot.services.sqs import contents, queues, receiving, sending
from entrepot.services.sqs.errors import (
    BatchEntryIdsNotDistinct,
    BatchRequestTooLong,
    EmptyBatchRequest,
    InvalidAttributeName,
    InvalidBatchEntryId,
    InvalidParameterValue,
    QueueDoesNotExist,
    TooManyEntriesInBatchRequest,
)
from entrepot.services.sqs.queues import Queue
from entrepot.services.sqs.receiving import Received
from entrepot.services.sqs.sending import Message, Sent
from entrepot.services.sqs.service import SQS

BATCH_LIMIT = 10
"""Entries of one batch, and messages of one receive."""

PAGE_LIMIT = 1_000
"""Queues that one answer lists."""

_ENTRY_ID = re.compile(r"[A-Za-z0-9_-]{1,80}")
_Do: TypeAlias = Callable[[Transaction, Mapping[str, Any]], Response]


def operations(sqs: SQS) -> list[Operation]:
    """Return SQS's operations."""
    edge = _Edge(sqs)
    return [
        WriteOperation("CreateQueue", edge.by_name("CreateQueue"), edge.create_queue),
        ReadOperation("GetQueueUrl", edge.by_name("GetQueueUrl"), edge.get_queue_url),
        ReadOperation("ListQueues", lambda _: [Permission("sqs:ListQueues", "*")], edge.list_queues),
        WriteOperation("DeleteQueue", edge.on_queue("DeleteQueue"), edge.delete_queue),
        ReadOperation("GetQueueAttributes", edge.on_queue("GetQueueAttributes"), edge.get_queue_attributes),
        WriteOperation("SetQueueAttributes", edge.on_queue("SetQueueAttributes"), edge.set_queue_attributes),
        WriteOperation("PurgeQueue", edge.on_queue("PurgeQueue"), edge.purge_queue),
        WriteOperation("TagQueue", edge.on_queue("TagQueue"), edge.tag_queue),
        WriteOperation("UntagQueue", edge.on_queue("UntagQueue"), edge.untag_queue),
        ReadOperation("ListQueueTags", edge.on_queue("ListQueueTags"), edge.list_queue_tags),
        ReadOperation("ListDeadLetterSourceQueues", edge.on_queue("ListDeadLetterSourceQueues"), edge.list_sources),
        WriteOperation("SendMessage", edge.on_queue("SendMessage"), edge.send_message),
        WriteOperation("SendMessageBatch", edge.on_queue("SendMessage"), edge.send_message_batch),
        AsyncOperation("ReceiveMessage", edge.on_queue("ReceiveMessage"), edge.receive_message),
        WriteOperation("DeleteMessage", edge.on_queue("DeleteMessage"), edge.delete_message),
        WriteOperation("DeleteMessageBatch", edge.on_queue("DeleteMessage"), edge.delete_message_batch),
        WriteOperation("ChangeMessageVisibility", edge.on_queue("ChangeMessageVisibility"), edge.change_visibility),
        WriteOperation(
            "ChangeMessageVisibilityBatch", edge.on_queue("ChangeMessageVisibility"), edge.change_visibility_batch
        ),
    ]


class _Edge:
    """The operations, each named as AWS's in snake case."""

    def __init__(self, sqs: SQS) -> None:
        self._sqs = sqs

    def by_name(self, action: str) -> Permissions:
        return lambda request: [Permission(f"sqs:{action}", self._sqs.queue_arn(request.get("QueueName", "")))]

    def on_queue(self, action: str) -> Permissions:
        def of(request: Request) -> list[Permission]:
            return [Permission(f"sqs:{action}", self._sqs.queue_arn(self._sqs.queue_name(request.get("QueueUrl", ""))))]

        return of

    def _queue(self, reader: Reader, request: Request) -> Queue:
        return queues.get(reader, self._sqs.queue_name(request["QueueUrl"]))

    # ── queues ───────────────────────────────────────────────────────────────────────────────────────────────────

    def create_queue(self, tx: Transaction, request: Request, call: Call) -> Response:
        """Create a queue, or find the one with this name and these attributes."""
        attributes, tags = request.get("Attributes") or {}, request.get("tags") or {}
        queue = queues.create(tx, self._sqs.account, request["QueueName"], attributes, tags)
        return {"QueueUrl": self._sqs.queue_url(queue.queue_name)}

    def get_queue_url(self, reader: Reader, request: Request, call: Call) -> Response:
        """Return the URL of a queue by its name."""
        if request.get("QueueOwnerAWSAccountId", self._sqs.account.account_id) != self._sqs.account.account_id:
            raise QueueDoesNotExist
        return {"QueueUrl": self._sqs.queue_url(queues.get(reader, request["QueueName"]).queue_name)}

    def list_queues(self, reader: Reader, request: Request, call: Call) -> Response:
        """Return the URLs of queues by name."""
        return self._page(
            "QueueUrls",
            request,
            lambda after, limit: queues.list_names(reader, request.get("QueueNamePrefix") or "", after, limit),
        )

    def list_sources(self, reader: Reader, request: Request, call: Call) -> Response:
        """Return the URLs of the queues whose dead letters go to this one."""
        found = queues.sources_of(reader, self._sqs.account, self._queue(reader, request).queue_name)
        return self._page("queueUrls", request, lambda after, limit: [name for name in found if name > after][:limit])

    def _page(self, member: str, request: Request, names_after: Callable[[str, int], list[str]]) -> Response:
        given = request.get("MaxResults")
        if given is not None and not 1 <= given <= PAGE_LIMIT:
            raise InvalidParameterValue(
                "Value for parameter MaxResults is invalid. Reason: Must be between 1 and 1000."
            )
        limit = given or PAGE_LIMIT
        names = names_after(request.get("NextToken") or "", limit + 1)
        more = given is not None and len(names) > limit
        urls = [self._sqs.queue_url(name) for name in names[:limit]]
        return {member: urls, **({"NextToken": names[limit - 1]} if more else {})}

    def delete_queue(self, tx: Transaction, request: Request, call: Call) -> Response:
        """Delete a queue and all its messages."""
        queues.delete(tx, self._queue(tx, request).queue_name)
        return {}

    def purge_queue(self, tx: Transaction, request: Request, call: Call) -> Response:
        """Delete all messages of a queue."""
        queues.purge(tx, self._queue(tx, request).queue_name)
        return {}

    def set_queue_attributes(self, tx: Transaction, request: Request, call: Call) -> Response:
        """Set attributes of a queue."""
        queue_name = self._queue(tx, request).queue_name
        queues.set_attributes(tx, self._sqs.account, queue_name, request["Attributes"])
        return {}

    def get_queue_attributes(self, reader: Reader, request: Request, call: Call) -> Response:
        """Return the attributes that were asked for."""
        queue, asked = self._queue(reader, request), request.get("AttributeNames") or []
        for name in asked:
            if name not in _ATTRIBUTES:
                raise InvalidAttributeName(f"Unknown Attribute {name}.")
        everything = "All" in asked
        counts = (name.startswith("Approximate") for name in asked)
        shown = self._attributes(reader, queue, with_counts=everything or any(counts))
        return {"Attributes": {name: value for name, value in shown.items() if everything or name in asked}}

    def _attributes(self, reader: Reader, queue: Queue, *, with_counts: bool) -> dict[str, str]:
        shown = {
            "QueueArn": self._sqs.queue_arn(queue.queue_name),
            "CreatedTimestamp": str(queue.created_at_ms // 1000),
            "LastModifiedTimestamp": str(queue.modified_at_ms // 1000),
            **{name: str(queue.number(name)) for name in queues.NUMBERS},
        }
        if queue.is_fifo:
            shown |= {"FifoQueue": "true", "ContentBasedDeduplication": "false", "DeduplicationScope": "queue",
                      "FifoThroughputLimit": "perQueue"}  # fmt: skip
        shown |= {name: value for name, value in queue.attributes.items() if name not in queues.NUMBERS}
        if with_counts:
            visible, in_flight, delayed = receiving.counts(reader, queue, clock.now_ms())
            shown["ApproximateNumberOfMessages"] = str(visible)
            shown["ApproximateNumberOfMessagesNotVisible"] = str(in_flight)
            shown["ApproximateNumberOfMessagesDelayed"] = str(delayed)
        return shown

    # ── tags ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def tag_queue(self, tx: Transaction, request: Request, call: Call) -> Response:
        """Add tags, or change them."""
        queue = self._queue(tx, request)
        queues.set_tags(tx, queue.queue_name, {**queue.tags, **request["Tags"]})
        return {}

    def untag_queue(self, tx: Transaction, request: Request, call: Call) -> Response:
        """Remove tags by their keys."""
        queue = self._queue(tx, request)
        gone = set(request["TagKeys"])
        queues.set_tags(tx, queue.queue_name, {key: value for key, value in queue.tags.items() if key not in gone})
        return {}

    def list_queue_tags(self, reader: Reader, request: Request, call: Call) -> Response:
        """Return the tags of a queue."""
        tags = dict(self._queue(reader, request).tags)
        return {"Tags": tags} if tags else {}

    # ── messages ─────────────────────────────────────────────────────────────────────────────────────────────────

    def send_message(self, tx: Transaction, request: Request, call: Call) -> Response:
        """Send one message."""
        message = _message(request)
        queue_name = self._sqs.queue_name(request["QueueUrl"])
        return _sent_shape(message, self._sqs.send_message(tx, queue_name, message, _sender_id(call)))

    def send_message_batch(self, tx: Transaction, request: Request, call: Call) -> Response:
        """Send up to ten messages, each for itself."""
        queue, size_bytes = self._queue(tx, request), 0
        _check_entries(request["Entries"])
        for entry in request["Entries"]:
            size_bytes += len((entry.get("MessageBody") or "").encode("utf-8", "surrogatepass"))
        if size_bytes > queues.MESSAGE_LIMIT_BYTES:
            raise BatchRequestTooLong(
                f"Batch requests cannot be longer than {queues.MESSAGE_LIMIT_BYTES} bytes. You have sent {size_bytes} "
                "bytes."
            )

        def send(tx: Transaction, entry: Mapping[str, Any]) -> Response:
            message = _message(entry)
            sent = self._sqs.send_message(tx, queue.queue_name, message, _sender_id(call))
            return _sent_shape(message, sent)

        return _each(tx, request["Entries"], send)

    async def receive_message(self, request: Request, call: Call) -> Response:
        """Receive up to ten messages."""
        limit = request.get("MaxNumberOfMessages", 1)
        if not 1 <= limit <= BATCH_LIMIT:
            raise InvalidParameterValue(
                f"Value {limit} for parameter MaxNumberOfMessages is invalid. Reason: Must be between 1 and 10, if "
                "provided."
            )
        wait_s, visibility_s = request.get("WaitTimeSeconds"), request.get("VisibilityTimeout")
        if wait_s is not None and not 0 <= wait_s <= 20:
            raise InvalidParameterValue(
                f"Value {wait_s} for parameter WaitTimeSeconds is invalid. Reason: Must be >= 0 and <= 20, if provided."
            )
        if visibility_s is not None and not 0 <= visibility_s <= receiving.VISIBILITY_LIMIT_S:
            raise InvalidParameterValue(
                f"Value {visibility_s} for parameter VisibilityTimeout is invalid. Reason: Must be between 0 and 43200."
            )
        queue_name, attempt_id = self._sqs.queue_name(request["QueueUrl"]), request.get("ReceiveRequestAttemptId")
        if attempt_id is not None and not queue_name.endswith(".fifo"):
            raise InvalidParameterValue("The request include parameter ReceiveRequestAttemptId which is not valid for "
                                        "this queue type")  # fmt: skip
        found = await self._sqs.receive(
            queue_name, limit=limit, visibility_s=visibility_s, wait_s=wait_s, attempt_id=attempt_id
        )
        system = [*(request.get("AttributeNames") or ()), *(request.get("MessageSystemAttributeNames") or ())]
        for name in system:
            if name not in _SYSTEM_ATTRIBUTES:
                raise InvalidAttributeName(f"Unknown Attribute {name}.")
        named = request.get("MessageAttributeNames") or []
        return {"Messages": [_received_shape(message, system, named) for message in found]} if found else {}

    def delete_message(self, tx: Transaction, request: Request, call: Call) -> Response:
        """Delete a message by its receipt handle."""
        self._delete(tx, self._queue(tx, request), request)
        return {}

    def delete_message_batch(self, tx: Transaction, request: Request, call: Call) -> Response:
        """Delete up to ten messages, each for itself."""
        queue = self._queue(tx, request)
        _check_entries(request["Entries"])
        return _each(tx, request["Entries"], lambda tx, entry: self._delete(tx, queue, entry))

    def _delete(self, tx: Transaction, queue: Queue, entry: Mapping[str, Any]) -> Response:
        receiving.delete(tx, queue, entry["ReceiptHandle"])
        if queue.is_fifo:  # The next of its group can be received.
            tx.after_commit(lambda: self._sqs.wake(queue.queue_name))
        return {}

    def change_visibility(self, tx: Transaction, request: Request, call: Call) -> Response:
        """Change for how long a received message stays invisible."""
        self._change_visibility(tx, self._queue(tx, request), request)
        return {}

    def change_visibility_batch(self, tx: Transaction, request: Request, call: Call) -> Response:
        """Change the visibility of up to ten messages, each for itself."""
        queue = self._queue(tx, request)
        _check_entries(request["Entries"])
        return _each(tx, request["Entries"], lambda tx, entry: self._change_visibility(tx, queue, entry))

    def _change_visibility(self, tx: Transaction, queue: Queue, entry: Mapping[str, Any]) -> Response:
        receiving.change_visibility(tx, queue, entry["ReceiptHandle"], entry.get("VisibilityTimeout") or 0)
        tx.after_commit(lambda: self._sqs.wake(queue.queue_name))
        return {}


# ── batches ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _check_entries(entries: list[Mapping[str, Any]]) -> None:
    if not entries:
        raise EmptyBatchRequest("There should be at least one entry in the request.")
    if len(entries) > BATCH_LIMIT:
        raise TooManyEntriesInBatchRequest(
            f"Maximum number of entries per request are {BATCH_LIMIT}. You have sent {len(entries)}."
        )
    seen: set[str] = set()
    for entry in entries:
        if not _ENTRY_ID.fullmatch(entry["Id"]):
            raise InvalidBatchEntryId("A batch entry id can only contain alphanumeric characters, hyphens and "
                                      "underscores. It can be at most 80 letters long.")  # fmt: skip
        if entry["Id"] in seen:
            raise BatchEntryIdsNotDistinct(f"Id {entry['Id']} repeated.")
        seen.add(entry["Id"])


def _each(tx: Transaction, entries: list[Mapping[str, Any]], do: _Do) -> Response:
    successful, failed = [], []
    for entry in entries:
        try:
            with tx.savepoint():
                successful.append({"Id": entry["Id"], **do(tx, entry)})
        except AwsError as error:
            code = error.query_code or error.code
            failed.append(
                {"Id": entry["Id"], "SenderFault": error.status < 500, "Code": code, "Message": error.message}
            )
    return {name: found for name, found in (("Successful", successful), ("Failed", failed)) if found}


# ── shapes ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _message(entry: Mapping[str, Any]) -> Message:
    return Message(
        entry["MessageBody"],
        entry.get("MessageAttributes") or {},
        entry.get("MessageSystemAttributes") or {},
        entry.get("DelaySeconds"),
        entry.get("MessageGroupId"),
        entry.get("MessageDeduplicationId"),
    )


def _sender_id(call: Call) -> str:
    principal = call.principal
    if principal.kind == "root":
        return arns.parse(principal.arn).account_id
    return principal.arn if principal.kind == "service" else principal.name


def _sent_shape(message: Message, sent: Sent) -> Response:
    shape: Response = {"MessageId": sent.message_id, "MD5OfMessageBody": contents.md5_of_body(message.body)}
    if message.attributes:
        shape["MD5OfMessageAttributes"] = contents.md5_of_attributes(message.attributes)
    if message.system_attributes:
        shape["MD5OfMessageSystemAttributes"] = contents.md5_of_attributes(message.system_attributes)
    if sent.sequence is not None:
        shape["SequenceNumber"] = f"{sent.sequence:020d}"
    return shape


_ATTRIBUTES = frozenset(
    {
        "All", "Policy", "VisibilityTimeout", "MaximumMessageSize", "MessageRetentionPeriod", "QueueArn",
        "ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible", "ApproximateNumberOfMessagesDelayed",
        "CreatedTimestamp", "LastModifiedTimestamp", "DelaySeconds", "ReceiveMessageWaitTimeSeconds", "RedrivePolicy",
        "FifoQueue", "ContentBasedDeduplication", "KmsMasterKeyId", "KmsDataKeyReusePeriodSeconds",
        "DeduplicationScope", "FifoThroughputLimit", "RedriveAllowPolicy", "SqsManagedSseEnabled",
    }
)  # fmt: skip

_SYSTEM_ATTRIBUTES = frozenset(
    {
        "All", "SenderId", "SentTimestamp", "ApproximateReceiveCount", "ApproximateFirstReceiveTimestamp",
        "SequenceNumber", "MessageDeduplicationId", "MessageGroupId", "AWSTraceHeader", "DeadLetterQueueSourceArn",
    }
)  # fmt: skip


def _received_shape(message: Received, system: list[str], named: list[str]) -> Response:
    shape: Response = {
        "MessageId": message.message_id,
        "ReceiptHandle": message.receipt_handle,
        "MD5OfBody": contents.md5_of_body(message.body),
        "Body": message.body,
    }
    known = _system_attributes(message)
    chosen = {name: value for name, value in known.items() if "All" in system or name in system}
    if chosen:
        shape["Attributes"] = chosen
    attributes = {
        name: sending.attribute_of(kept)
        for name, kept in message.details.get("attributes", {}).items()
        if _is_named(name, named)
    }
    if attributes:
        shape["MessageAttributes"] = attributes
        shape["MD5OfMessageAttributes"] = contents.md5_of_attributes(attributes)
    return shape


def _system_attributes(message: Received) -> dict[str, str]:
    known = {
        "SenderId": message.details["sender"],
        "SentTimestamp": str(message.sent_at_ms),
        "ApproximateReceiveCount": str(message.receive_count),
        "ApproximateFirstReceiveTimestamp": str(message.first_received_at_ms),
    }
    if message.group_id:
        known["MessageGroupId"] = message.group_id
    details = message.details
    if "deduplication_id" in details:
        known["MessageDeduplicationId"] = details["deduplication_id"]
        known["SequenceNumber"] = f"{message.sequence:020d}"
    if "trace" in details:
        known["AWSTraceHeader"] = details["trace"]
    if "source_arn" in details:
        known["DeadLetterQueueSourceArn"] = details["source_arn"]
    return known


def _is_named(name: str, asked: list[str]) -> bool:
    return any(
        wanted in ("All", ".*", name) or (wanted.endswith(".*") and name.startswith(wanted[:-1])) for wanted in asked
    )
