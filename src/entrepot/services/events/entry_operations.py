"""The edge of what is put on buses: PutEvents and TestEventPattern in botocore's shapes (service `events`)."""

import json
from collections.abc import Mapping
from typing import Any

from entrepot import clock, ids
from entrepot.database import Reader, Transaction
from entrepot.errors import AwsError
from entrepot.operations import Call, Operation, Permission, Request, Response
from entrepot.services.events import edge
from entrepot.services.events import input as inputs
from entrepot.services.events.edge import bus_arn, bus_name_of
from entrepot.services.events.errors import ValidationError
from entrepot.services.events.leaf import finite
from entrepot.services.events.pattern import EventPattern, EventTooDeepError, normalised
from entrepot.services.events.service import Events

PUT_EVENTS_ENTRIES_LIMIT = 10
PUT_EVENTS_SIZE_LIMIT = 1_048_576
"""Bytes of one PutEvents request, counted as AWS counts them. Source:
https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-putevent-size.html"""


def entry_operations(events: Events) -> list[Operation]:
    """Return the operations on events themselves. PutEvents asks IAM entry by entry, because each bus has a policy."""
    read, write = edge.reads(events), edge.writes(events)
    return [
        write("PutEvents", lambda _: (), put_events),
        read("TestEventPattern", lambda _: [Permission("events:TestEventPattern", "*")], test_event_pattern),
    ]


class _EntryError(AwsError):
    """One entry of PutEvents is refused; the others are taken."""

    status = 400

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.entry_code = code


def put_events(events: Events, tx: Transaction, request: Request, call: Call) -> Response:
    """Put up to ten events; each is taken or refused for itself."""
    entries = request["Entries"]
    if not 0 < len(entries) <= PUT_EVENTS_ENTRIES_LIMIT:
        raise ValidationError(
            f"1 validation error detected: Value at 'entries' failed to satisfy constraint: Member must have length "
            f"between 1 and {PUT_EVENTS_ENTRIES_LIMIT}"
        )
    if request.get("EndpointId"):
        raise ValidationError("Parameter EndpointId is not supported here: there are no global endpoints.")
    size_bytes = sum(map(_entry_size_bytes, entries))
    if size_bytes > PUT_EVENTS_SIZE_LIMIT:
        raise ValidationError(
            f"Total size of the entries in the request is over the limit ({size_bytes} > {PUT_EVENTS_SIZE_LIMIT} bytes)."
        )
    buses = _allowed_buses(events, tx, entries, call)
    results: list[dict[str, str]] = []
    for entry in entries:
        try:
            event = _event_of(events, entry)
            if buses[entry.get("EventBusName")]:
                events.put_event(tx, event, bus_name_of(entry.get("EventBusName")))
            # AWS takes an event for a bus that does not exist and drops it.
            results.append({"EventId": event["id"]})
        except _EntryError as error:
            results.append({"ErrorCode": error.entry_code, "ErrorMessage": error.message})
    return {"FailedEntryCount": sum("ErrorCode" in result for result in results), "Entries": results}


def _allowed_buses(
    events: Events, reader: Reader, entries: list[Mapping[str, Any]], call: Call
) -> dict[str | None, bool]:
    """Return for each bus that entries name whether it exists; raise AccessDeniedError unless all entries are allowed."""
    found: dict[str | None, bool] = {}
    policies: dict[str, str | None] = {}
    asked: set[tuple[str, str, str]] = set()
    for entry in entries:
        given = entry.get("EventBusName")
        bus_name = bus_name_of(given)
        # An ARN of another account or region is asked for as it is, and leads to no bus of this one.
        arn = given if given and given.startswith("arn:") else bus_arn(events, bus_name)
        if arn not in policies:
            policies[arn] = events.bus_policy(reader, bus_name) if arn == bus_arn(events, bus_name) else None
        found[given] = policies[arn] is not None
        source, detail_type = entry.get("Source") or "", entry.get("DetailType") or ""
        if (arn, source, detail_type) not in asked:
            asked.add((arn, source, detail_type))
            context = {"events:source": source, "events:detail-type": detail_type}
            events.require(Permission("events:PutEvents", arn, context, policies[arn] or ""), call)
    return found


def _entry_size_bytes(entry: Mapping[str, Any]) -> int:
    size_bytes = 14 if entry.get("Time") is not None else 0
    for member in ("Source", "DetailType", "Detail"):
        size_bytes += len((entry.get(member) or "").encode("utf-8", "surrogatepass"))
    return size_bytes + sum(len(resource.encode("utf-8", "surrogatepass")) for resource in entry.get("Resources") or ())


def _event_of(events: Events, entry: Mapping[str, Any]) -> dict[str, Any]:
    for member in ("Source", "DetailType", "Detail"):
        if not entry.get(member):
            raise _EntryError(
                "InvalidArgument", f"Parameter {member} is not valid. Reason: {member} is a required argument."
            )
    if entry["Source"].startswith("aws."):
        raise _EntryError("NotAuthorizedForSourceException", "Not authorized for the source.")
    at_ms = int(entry["Time"].timestamp() * 1000) if entry.get("Time") is not None else clock.now_ms()
    event = {
        "version": "0",
        "id": ids.random_uuid(),
        "detail-type": entry["DetailType"],
        "source": entry["Source"],
        "account": events.account.account_id,
        "time": clock.iso(at_ms)[:19] + "Z",
        "region": events.account.region,
        "resources": list(entry.get("Resources") or ()),
        "detail": _detail(entry["Detail"]),
    }
    try:
        normalised(event)
        inputs.compact(event).encode()
    except (EventTooDeepError, RecursionError, UnicodeEncodeError):
        raise _EntryError("MalformedDetail", "Detail is malformed.") from None
    return event


def _detail(text: str) -> dict[str, Any]:
    try:
        detail = json.loads(text, parse_float=finite, parse_constant=finite)
    except (ValueError, RecursionError):
        raise _EntryError("MalformedDetail", "Detail is malformed.") from None
    if not isinstance(detail, dict):
        raise _EntryError("MalformedDetail", "Detail is malformed.")
    return detail


def test_event_pattern(events: Events, reader: Reader, request: Request, call: Call) -> Response:
    """Say whether a pattern matches an event. It need not have the whole envelope, as it must on AWS."""
    edge.check_pattern_length(request["EventPattern"])
    pattern = EventPattern.parse(request["EventPattern"])
    try:
        event = json.loads(request["Event"], parse_float=finite, parse_constant=finite)
    except (ValueError, RecursionError) as error:
        raise ValidationError(f"Parameter Event is not valid. Reason: it is not JSON ({error}).") from None
    if not isinstance(event, dict):
        raise ValidationError("Parameter Event is not valid. Reason: Event must be a JSON object.")
    try:
        return {"Result": pattern.matches(event)}
    except EventTooDeepError as error:
        raise ValidationError(f"Parameter Event is not valid. Reason: {error}") from None
