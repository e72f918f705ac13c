"""The edge of DynamoDB Streams: AWS's operations in botocore's shapes (service `dynamodbstreams`).

Source: https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_Operations_Amazon_DynamoDB_Streams.html
"""

import base64
import binascii
import json
import re
from typing import Any

from entrepot import arns, clock, ids
from entrepot.database import Reader
from entrepot.operations import Call, Operation, Permission, ReadOperation, Request, Response
from entrepot.services.dynamodb import streams
from entrepot.services.dynamodb.dynamodb import DynamoDB
from entrepot.services.dynamodb.errors import (
    ExpiredIteratorException,
    ResourceNotFoundException,
    TrimmedDataAccessException,
    ValidationException,
)
from entrepot.services.dynamodb.requests import size_of_item
from entrepot.services.dynamodb.streams import EXPIRE, INSERT, MODIFY, REMOVE, SEQUENCE_BASE, Record, Stream

LISTED = 100
"""Streams in one answer (AWS's limit)."""

ITERATOR_LIFE_MS = 15 * 60_000
"""How long a shard iterator can be used (AWS: 15 minutes)."""

_EVENT_NAMES = {INSERT: "INSERT", MODIFY: "MODIFY", REMOVE: "REMOVE", EXPIRE: "REMOVE"}
_STREAM_RESOURCE = re.compile(r"table/([a-zA-Z0-9_.-]{3,255})/stream/([^/]{1,64})")
_SEQUENCE_NUMBER = re.compile(r"[0-9]{21,40}")


def stream_operations(service: DynamoDB) -> list[Operation]:
    """Return the operations of the service `dynamodbstreams`."""
    edge = _Edge(service)
    return [
        ReadOperation("ListStreams", edge.on_streams_of_table, edge.list_streams),
        ReadOperation("DescribeStream", edge.on_stream("DescribeStream"), edge.describe_stream),
        ReadOperation("GetShardIterator", edge.on_stream("GetShardIterator"), edge.get_shard_iterator),
        ReadOperation("GetRecords", edge.on_iterator, edge.get_records),
    ]


class _Edge:
    """The operations, each named as AWS's in snake case."""

    def __init__(self, service: DynamoDB) -> None:
        self._service = service

    def on_streams_of_table(self, request: Request) -> list[Permission]:
        name = request.get("TableName")
        scope = "*" if name is None else f"{self._service.table_arn(name)}/stream/*"
        return [Permission("dynamodb:ListStreams", scope)]

    def on_stream(self, action: str) -> Any:
        return lambda request: [Permission(f"dynamodb:{action}", str(request.get("StreamArn", "*")))]

    def on_iterator(self, request: Request) -> list[Permission]:
        return [Permission("dynamodb:GetRecords", _read_iterator(str(request.get("ShardIterator")))[0])]

    def _stream(self, reader: Reader, stream_arn: str) -> Stream:
        """Return a stream by its ARN; raise ResourceNotFoundException."""
        try:
            parts = arns.parse(stream_arn)
        except ValueError:
            raise ValidationException(f"Invalid StreamArn: {stream_arn[:200]}") from None
        match = _STREAM_RESOURCE.fullmatch(parts.resource)
        stream = None
        if match is not None and self._service.account.arn("dynamodb", parts.resource) == stream_arn:
            stream = streams.find_stream(reader, match[1], match[2])
        if stream is None:
            raise ResourceNotFoundException(f"Requested resource not found: Stream: {stream_arn[:1024]} not found")
        return stream

    def _arn(self, stream: Stream) -> str:
        return f"{self._service.table_arn(stream.table_name)}/stream/{stream.label}"

    def list_streams(self, reader: Reader, request: Request, call: Call) -> Response:
        """Return the streams of a table or of all, also those that were disabled less than 24 hours ago."""
        limit = min(int(request.get("Limit", LISTED)), LISTED)
        name = request.get("TableName")
        after = ("", "")
        if start := request.get("ExclusiveStartStreamArn"):
            stream = self._stream(reader, start)
            after = (stream.table_name, stream.label)
        table_name = None if name is None else self._service.table_name(name)
        found = streams.list_streams(reader, table_name, after, limit + 1)
        shown = [
            {"StreamArn": self._arn(stream), "TableName": stream.table_name, "StreamLabel": stream.label}
            for stream in found[:limit]
        ]
        return {"Streams": shown} | ({"LastEvaluatedStreamArn": shown[-1]["StreamArn"]} if len(found) > limit else {})

    def describe_stream(self, reader: Reader, request: Request, call: Call) -> Response:
        """Return a stream and its shard."""
        stream = self._stream(reader, request["StreamArn"])
        numbers = {"StartingSequenceNumber": _shown(stream.first_sequence)}
        if stream.disabled_at_ms is not None:
            numbers["EndingSequenceNumber"] = _shown(max(stream.last_sequence, stream.first_sequence))
        is_after = (request.get("ExclusiveStartShardId") or "") >= stream.shard_id
        # No shard has a parent, so none has children to be asked for by a ShardFilter.
        shards = [] if is_after or request.get("ShardFilter") else [stream]
        roles = zip(stream.keys.attributes, ("HASH", "RANGE"), strict=False)
        description = {
            "StreamArn": self._arn(stream),
            "StreamLabel": stream.label,
            "StreamStatus": "ENABLED" if stream.disabled_at_ms is None else "DISABLED",
            "StreamViewType": stream.view_type,
            "CreationRequestDateTime": clock.from_ms(stream.created_at_ms),
            "TableName": stream.table_name,
            "KeySchema": [{"AttributeName": attribute.name, "KeyType": role} for attribute, role in roles],
            "Shards": [{"ShardId": one.shard_id, "SequenceNumberRange": numbers} for one in shards],
        }
        return {"StreamDescription": description}

    def get_shard_iterator(self, reader: Reader, request: Request, call: Call) -> Response:
        """Return where in the shard to begin."""
        stream = self._stream(reader, request["StreamArn"])
        if request["ShardId"] != stream.shard_id:
            raise ResourceNotFoundException(
                f"Requested resource not found: Shard: {request['ShardId']} in Stream: {self._arn(stream)} not found"
            )
        position = self._position(stream, request["ShardIteratorType"], request.get("SequenceNumber"))
        return {"ShardIterator": _iterator(self._arn(stream), position)}

    def _position(self, stream: Stream, kind: str, number: str | None) -> int:
        """Return the sequence number to read first; 0 is the oldest there is."""
        if kind in ("TRIM_HORIZON", "LATEST"):
            if number is not None:
                raise ValidationException(f"SequenceNumber must not be given with the ShardIteratorType {kind}")
            return 0 if kind == "TRIM_HORIZON" else stream.last_sequence + 1
        if number is None or not _SEQUENCE_NUMBER.fullmatch(number):
            raise ValidationException(f"Invalid SequenceNumber for the ShardIteratorType {kind}: {str(number)[:100]}")
        sequence = int(number) - SEQUENCE_BASE + (kind == "AFTER_SEQUENCE_NUMBER")
        if sequence < stream.first_sequence:
            raise _trimmed()
        return min(sequence, stream.last_sequence + 1)

    def get_records(self, reader: Reader, request: Request, call: Call) -> Response:
        """Return the records from an iterator on, and the iterator behind them."""
        stream_arn, position, issued_at_ms = _read_iterator(request["ShardIterator"])
        if clock.now_ms() - issued_at_ms > ITERATOR_LIFE_MS:
            raise ExpiredIteratorException("The shard iterator is older than 15 minutes. Ask for another.")
        stream = self._stream(reader, stream_arn)
        position = position or stream.first_sequence
        if position < stream.first_sequence:
            raise _trimmed()
        limit = int(request.get("Limit", streams.MAX_RECORDS))
        if not 1 <= limit <= streams.MAX_RECORDS:
            raise ValidationException(f"Limit must be between 1 and {streams.MAX_RECORDS}")
        found = streams.read_records(reader, stream, position, limit)
        following = found[-1].sequence + 1 if found else position
        response: Response = {"Records": [self._record_shape(stream, record) for record in found]}
        if stream.disabled_at_ms is None or following <= stream.last_sequence:
            response["NextShardIterator"] = _iterator(stream_arn, following)
        return response

    def _record_shape(self, stream: Stream, record: Record) -> dict[str, Any]:
        images = {
            name: image for name, image in (("NewImage", record.new), ("OldImage", record.old)) if image is not None
        }
        change = {
            "ApproximateCreationDateTime": clock.from_ms(record.created_at_ms // 1000 * 1000),
            "Keys": record.key,
            **images,
            "SequenceNumber": _shown(record.sequence),
            "SizeBytes": size_of_item(record.key) + sum(map(size_of_item, images.values())),
            "StreamViewType": stream.view_type,
        }
        shape: dict[str, Any] = {
            "eventID": ids.derived(self._arn(stream), str(record.sequence))[:32],
            "eventName": _EVENT_NAMES[record.kind],
            "eventVersion": "1.1",
            "eventSource": "aws:dynamodb",
            "awsRegion": self._service.account.region,
            "dynamodb": change,
        }
        if record.kind == EXPIRE:
            shape["userIdentity"] = {"PrincipalId": "dynamodb.amazonaws.com", "Type": "Service"}
        return shape


def _shown(sequence: int) -> str:
    return str(SEQUENCE_BASE + sequence)


def _trimmed() -> TrimmedDataAccessException:
    return TrimmedDataAccessException(
        "The operation attempted to read past the oldest stream record in a shard: records older than 24 hours are gone."
    )


def _iterator(stream_arn: str, position: int) -> str:
    """Return a shard iterator. It is no secret: reading is allowed or denied by the stream's ARN in it."""
    inner = json.dumps([position, clock.now_ms()], separators=(",", ":")).encode()
    return f"{stream_arn}|1|{base64.b64encode(inner).decode()}"


def _read_iterator(text: str) -> tuple[str, int, int]:
    """Return (stream ARN, sequence number to read first, when it was issued). Raise ValidationException."""
    try:
        stream_arn, version, inner = text.split("|")
        position, issued_at_ms = json.loads(base64.b64decode(inner, validate=True))
        if version != "1" or type(position) is not int or type(issued_at_ms) is not int or not 0 <= position < 2**62:
            raise ValueError
    except (ValueError, TypeError, binascii.Error, RecursionError):
        raise ValidationException("Invalid ShardIterator") from None
    return stream_arn, position, issued_at_ms
