"""The `_bulk` endpoint of OpenSearch and Elasticsearch: a request, and what became of each of its documents.

A document's id is its event's, so that a repeated batch overwrites itself.

Source: https://docs.opensearch.org/latest/api-reference/document-apis/bulk/
"""

import asyncio
import base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from entrepot import clock
from entrepot.errors import EntrepotError
from entrepot.outbound.errors import OutboundError
from entrepot.outbound.messages import Request, Response
from entrepot.services.logs.ports import DeliveryStream
from entrepot.services.logs.subscriptions.batches import Event

BODY_LIMIT_BYTES = 4 << 20
"""One request's documents, but at least one."""

EVENTS_LIMIT = 5_000
"""Documents in one request."""

ANSWER_LIMIT_BYTES = 8 << 20
TIMEOUT_S = 60.0

_QUERY = "/_bulk?filter_path=errors,items.*.status,items.*.error.type,items.*.error.reason"


class DeliveryFailedError(EntrepotError):
    """Nothing of a request was taken, or it is not known; try again later. The text says why and what to do."""


class TooLargeError(DeliveryFailedError):
    """The request was larger than the endpoint takes."""


class _Reason(msgspec.Struct):
    type: str = ""
    reason: str | None = ""


class _Item(msgspec.Struct):
    status: int
    error: _Reason | str | None = None


class _Answer(msgspec.Struct):
    errors: bool = False
    items: list[dict[str, _Item]] = []


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a request's events: those to send again, and those that will never be taken, with the reason."""

    again: list[Event]
    rejected: list[tuple[Event, str]]
    reason: str = ""


def fitting(events: Sequence[Event]) -> int:
    """Return how many of the first events go into one request."""
    size = 0
    for count, event in enumerate(events[:EVENTS_LIMIT]):
        size += len(event.message) + 500
        if count and size > BODY_LIMIT_BYTES:
            return count
    return min(len(events), EVENTS_LIMIT)


def body(stream: DeliveryStream, owner: str, group: str, events: Sequence[Event]) -> bytes:
    """Return the request's lines: an action and a document for each event."""
    lines: list[bytes] = []
    names: dict[int, str] = {}
    for event in events:
        hour = event.timestamp_ms // 3_600_000
        if hour not in names:
            names[hour] = datetime.fromtimestamp(hour * 3_600, UTC).strftime(stream.index)
        lines.append(msgspec.json.encode({"index": {"_index": names[hour], "_id": event.id}}))
        document = {
            "@timestamp": clock.iso(event.timestamp_ms),
            "@id": event.id,
            "@owner": owner,
            "@log_group": group,
            "@log_stream": event.stream,
            "@message": event.message,
        }
        lines.append(msgspec.json.encode(document))
    return b"\n".join(lines) + b"\n"


async def post(stream: DeliveryStream, owner: str, group: str, events: Sequence[Event]) -> Outcome:
    """Send events in one request; DeliveryFailedError when none was taken."""
    headers = [("Content-Type", "application/x-ndjson"), ("Accept", "application/json")]
    if stream.user:
        headers.append(("Authorization", await _basic(stream)))
    request = Request(
        "POST",
        stream.url.rstrip("/") + _QUERY,
        headers,
        await asyncio.to_thread(body, stream, owner, group, events),
        timeout_s=TIMEOUT_S,
        response_limit_bytes=ANSWER_LIMIT_BYTES,
    )
    try:
        response = await stream.send(request)
    except OutboundError as error:
        raise DeliveryFailedError(str(error)) from error
    return _outcome(stream, response, events)


async def _basic(stream: DeliveryStream) -> str:
    password = ""
    if stream.password_file is not None:
        try:
            password = (await asyncio.to_thread(stream.password_file.read_text, "utf-8")).strip()
        except (OSError, UnicodeDecodeError) as error:
            raise DeliveryFailedError(f"The password file {stream.password_file} cannot be read: {error}.") from error
    return "Basic " + base64.b64encode(f"{stream.user}:{password}".encode()).decode()


def _outcome(stream: DeliveryStream, response: Response, events: Sequence[Event]) -> Outcome:
    if response.status == 413:
        raise TooLargeError(f"{stream.url} takes no request of this size (413).")
    if response.status in (401, 403):
        raise DeliveryFailedError(
            f"{stream.url} refuses the user {stream.user!r} ({response.status}): see user and password_file in "
            f"[log_deliveries.{stream.name}]."
        )
    if not 200 <= response.status < 300:
        said = response.body[:300].decode(errors="replace")
        raise DeliveryFailedError(f"{stream.url} answered {response.status} {response.reason}: {said}")
    try:
        answer = msgspec.json.decode(response.body, type=_Answer)
    except msgspec.DecodeError as error:
        raise DeliveryFailedError(
            f"{stream.url} answered what is no answer of _bulk ({error}). Is it the right URL?"
        ) from error
    if len(answer.items) != len(events):
        if not answer.errors and not answer.items:
            return Outcome([], [])
        raise DeliveryFailedError(f"{stream.url} answered for {len(answer.items)} of {len(events)} documents.")
    again: list[Event] = []
    rejected: list[tuple[Event, str]] = []
    reason = ""
    for event, item in zip(events, answer.items, strict=True):
        result = next(iter(item.values()), None)
        if result is None or result.status == 429 or result.status >= 500:
            again.append(event)
            reason = reason or _reason(result)
        elif result.status >= 400 and result.status != 409:
            rejected.append((event, _reason(result)))
    return Outcome(again, rejected, reason)


def _reason(item: _Item | None) -> str:
    if item is None:
        return "no answer for the document"
    if isinstance(item.error, _Reason):
        return f"{item.status} {item.error.type}: {item.error.reason}"[:500]
    return f"{item.status} {item.error or ''}"[:500].strip()
