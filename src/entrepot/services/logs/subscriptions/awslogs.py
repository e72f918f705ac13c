"""What a function gets from a subscription: events of one stream, as AWS packs them.

Source: https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/SubscriptionFilters.html#LambdaFunctionExample
"""

import base64
import gzip
from collections.abc import Iterator, Sequence

import msgspec

from entrepot.services.logs.subscriptions.batches import Batch, Event

EVENTS_LIMIT_BYTES = 512 * 1024
"""Events in one invocation, before compression."""

PAYLOAD_LIMIT_BYTES = 1_000_000
"""A payload may have this much; an event that makes a larger one by itself is given up."""


def groups(batches: Sequence[Batch]) -> Iterator[list[Batch]]:
    """Yield batches that go into one invocation: neighbours of the same stream, up to EVENTS_LIMIT_BYTES."""
    together: list[Batch] = []
    size = 0
    for batch in batches:
        weight = sum(len(event.message) + 100 for event in batch.events)
        if together and (together[0].stream != batch.stream or size + weight > EVENTS_LIMIT_BYTES):
            yield together
            together, size = [], 0
        together.append(batch)
        size += weight
    if together:
        yield together


def payloads(owner: str, group: str, filter_name: str, events: Sequence[Event]) -> Iterator[tuple[int, bytes]]:
    """Yield (number of events, payload) for events of one stream; a payload that is too large is parted, or empty for an
    event that is too large by itself."""
    document = {
        "messageType": "DATA_MESSAGE",
        "owner": owner,
        "logGroup": group,
        "logStream": events[0].stream,
        "subscriptionFilters": [filter_name],
        "logEvents": [{"id": event.id, "timestamp": event.timestamp_ms, "message": event.message} for event in events],
    }
    data = base64.b64encode(gzip.compress(msgspec.json.encode(document), 6, mtime=0)).decode()
    payload = msgspec.json.encode({"awslogs": {"data": data}})
    if len(payload) <= PAYLOAD_LIMIT_BYTES:
        yield len(events), payload
    elif len(events) == 1:
        yield 1, b""
    else:
        middle = len(events) // 2
        yield from payloads(owner, group, filter_name, events[:middle])
        yield from payloads(owner, group, filter_name, events[middle:])
