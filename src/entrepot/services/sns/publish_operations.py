"""Publish and PublishBatch at the edge."""

import re
from collections.abc import Mapping
from typing import Any

from entrepot.database import Transaction
from entrepot.errors import AwsError
from entrepot.operations import Call, Operation, Permission, Request, Response, WriteOperation
from entrepot.services.sns import messages
from entrepot.services.sns.envelopes import shown_sequence
from entrepot.services.sns.errors import (
    BatchEntryIdsNotDistinct,
    BatchRequestTooLong,
    EmptyBatchRequest,
    InvalidBatchEntryId,
    InvalidParameter,
    TooManyEntriesInBatchRequest,
)
from entrepot.services.sns.permissions import on_topic, topic_permission
from entrepot.services.sns.service import SNS
from entrepot.services.sns.topics import Topic

BATCH_LIMIT = 10
"""Entries of one batch (AWS's limit)."""

_ENTRY_ID = re.compile(r"[A-Za-z0-9_-]{1,80}")


def publish_operations(sns: SNS) -> list[Operation]:
    """Return the operations that publish."""
    edge = _Edge(sns)
    return [
        WriteOperation("Publish", edge.publishing, edge.publish),
        WriteOperation("PublishBatch", on_topic(sns, "Publish"), edge.publish_batch),
    ]


class _Edge:
    """The operations, each named as AWS's in snake case."""

    def __init__(self, sns: SNS) -> None:
        self._sns = sns

    def publishing(self, request: Request) -> list[Permission]:
        return [topic_permission(self._sns, "Publish", _topic_arn(request))]

    def publish(self, tx: Transaction, request: Request, call: Call) -> Response:
        """Publish one message."""
        return self._publish(tx, self._sns.topic(tx, _topic_arn(request)), request)

    def publish_batch(self, tx: Transaction, request: Request, call: Call) -> Response:
        """Publish up to ten messages, each for itself."""
        topic = self._sns.topic(tx, request["TopicArn"])
        entries = request.get("PublishBatchRequestEntries") or []
        _check_entries(entries)
        successful, failed = [], []
        for entry in entries:
            try:
                with tx.savepoint():
                    successful.append({"Id": entry["Id"], **self._publish(tx, topic, entry)})
            except AwsError as error:
                failed.append(
                    {"Id": entry["Id"], "Code": error.code, "Message": error.message, "SenderFault": error.status < 500}
                )
        return {"Successful": successful, "Failed": failed}

    def _publish(self, tx: Transaction, topic: Topic, entry: Mapping[str, Any]) -> Response:
        by_content = topic.attributes.get("ContentBasedDeduplication", "false").lower() == "true"
        message = messages.message_of(entry, is_fifo=topic.is_fifo, by_content=by_content)
        published = self._sns.publish(tx, topic, message)
        response: Response = {"MessageId": published.uuid}
        if published.sequence is not None:
            response["SequenceNumber"] = shown_sequence(published.sequence)
        return response


def _topic_arn(request: Request) -> str:
    """Return the topic of a Publish. Raise InvalidParameter for a phone number or no topic."""
    if request.get("PhoneNumber"):
        raise InvalidParameter("Invalid parameter: PhoneNumber Reason: text messages are not supported here")
    arn = request.get("TopicArn") or request.get("TargetArn")
    if not arn:
        raise InvalidParameter("Invalid parameter: TopicArn or TargetArn Reason: no value for required parameter")
    return str(arn)


def _check_entries(entries: list[Mapping[str, Any]]) -> None:
    if not entries:
        raise EmptyBatchRequest("The batch request doesn't contain any entries.")
    if len(entries) > BATCH_LIMIT:
        raise TooManyEntriesInBatchRequest("The batch request contains more entries than permissible.")
    seen: set[str] = set()
    for entry in entries:
        if not _ENTRY_ID.fullmatch(entry["Id"]):
            raise InvalidBatchEntryId("The Id of a batch entry in a batch request doesn't abide by the specification.")
        if entry["Id"] in seen:
            raise BatchEntryIdsNotDistinct("Two or more batch entries in the request have the same Id.")
        seen.add(entry["Id"])
    if sum(map(messages.size_bytes, entries)) > messages.MESSAGE_LIMIT_BYTES:
        raise BatchRequestTooLong("The length of all the messages put together is more than the limit.")
