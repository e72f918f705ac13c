"""The edge of EventBridge's buses and tags: AWS's operations in botocore's shapes (service `events`)."""

from typing import Any

from entrepot import arns, clock
from entrepot.database import Reader, Transaction
from entrepot.operations import Call, Operation, Permission, Permissions, Request, Response
from entrepot.services.events import edge, tags
from entrepot.services.events.edge import bus_arn, bus_name_of, check_name, page, tag_map
from entrepot.services.events.errors import (
    LimitExceededError,
    ResourceAlreadyExistsError,
    ResourceNotFoundError,
    ValidationError,
)
from entrepot.services.events.rules import DEFAULT_BUS, require_bus
from entrepot.services.events.service import Events

BUSES_LIMIT = 100
"""Event buses of one account. Source: https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-quota.html"""


def bus_operations(events: Events) -> list[Operation]:
    """Return the operations on buses and tags."""

    read, write = edge.reads(events), edge.writes(events)

    def on_bus(action: str) -> Permissions:
        return lambda request: [Permission(f"events:{action}", bus_arn(events, bus_name_of(request.get("Name"))))]

    def on_resource(action: str) -> Permissions:
        return lambda request: [Permission(f"events:{action}", str(request.get("ResourceARN", "*")))]

    return [
        write("CreateEventBus", on_bus("CreateEventBus"), create_event_bus),
        write("UpdateEventBus", on_bus("UpdateEventBus"), update_event_bus),
        write("DeleteEventBus", on_bus("DeleteEventBus"), delete_event_bus),
        read("DescribeEventBus", on_bus("DescribeEventBus"), describe_event_bus),
        read("ListEventBuses", lambda _: [Permission("events:ListEventBuses", "*")], list_event_buses),
        write("TagResource", on_resource("TagResource"), tag_resource),
        write("UntagResource", on_resource("UntagResource"), untag_resource),
        read("ListTagsForResource", on_resource("ListTagsForResource"), list_tags_for_resource),
    ]


# ── buses ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _check_bus_members(request: Request) -> None:
    for member in ("EventSourceName", "KmsKeyIdentifier", "DeadLetterConfig", "LogConfig"):
        if request.get(member):
            raise ValidationError(f"Parameter {member} is not supported here.")
    edge.check_description(request)


def create_event_bus(events: Events, tx: Transaction, request: Request, call: Call) -> Response:
    """Create a bus."""
    name = request["Name"]
    check_name(name, "name", 256)
    _check_bus_members(request)
    if tx.one("SELECT 1 FROM events_bus WHERE name = ?", (name,)) is not None:
        raise ResourceAlreadyExistsError(f"Event bus {name} already exists.")
    count = tx.one("SELECT count(*) FROM events_bus")
    if count is not None and count[0] >= BUSES_LIMIT:
        raise LimitExceededError(
            f"The requested resource exceeds the maximum number allowed: {BUSES_LIMIT} event buses."
        )
    at_ms, description = clock.now_ms(), request.get("Description") or ""
    tx.execute(
        "INSERT INTO events_bus (name, created_at_ms, modified_at_ms, description) VALUES (?, ?, ?, ?)",
        (name, at_ms, at_ms, description),
    )
    arn = bus_arn(events, name)
    tags.put(tx, arn, tag_map(request.get("Tags")))
    return {"EventBusArn": arn, **({"Description": description} if description else {})}


def update_event_bus(events: Events, tx: Transaction, request: Request, call: Call) -> Response:
    """Change a bus's description."""
    name = bus_name_of(request.get("Name"))
    require_bus(tx, name)
    _check_bus_members(request)
    description = request.get("Description") or ""
    tx.execute(
        "UPDATE events_bus SET description = ?, modified_at_ms = ? WHERE name = ?", (description, clock.now_ms(), name)
    )
    return {"Arn": bus_arn(events, name), "Name": name, **({"Description": description} if description else {})}


def delete_event_bus(events: Events, tx: Transaction, request: Request, call: Call) -> Response:
    """Delete a bus that has no rules; one that is not there is deleted already."""
    name = bus_name_of(request["Name"])
    if name == DEFAULT_BUS:
        raise ValidationError("Cannot delete event bus default.")
    if tx.one("SELECT 1 FROM events_rule WHERE bus_name = ? LIMIT 1", (name,)) is not None:
        raise ValidationError("Event bus can't be deleted since it has rules.")
    tx.execute("DELETE FROM events_bus WHERE name = ?", (name,))
    tags.forget(tx, bus_arn(events, name))
    return {}


def _bus_shape(events: Events, row: tuple[Any, ...]) -> Response:
    name, created_at_ms, modified_at_ms, description, policy = row
    shape = {
        "Name": name,
        "Arn": bus_arn(events, name),
        "CreationTime": clock.from_ms(created_at_ms),
        "LastModifiedTime": clock.from_ms(modified_at_ms or created_at_ms),
    }
    optional = {"Description": description, "Policy": policy}
    return {**shape, **{member: text for member, text in optional.items() if text}}


def describe_event_bus(events: Events, reader: Reader, request: Request, call: Call) -> Response:
    """Return one bus."""
    name = bus_name_of(request.get("Name"))
    row = reader.one(
        "SELECT name, created_at_ms, modified_at_ms, description, policy FROM events_bus WHERE name = ?", (name,)
    )
    if row is None:
        raise ResourceNotFoundError(f"Event bus {name} does not exist.")
    return _bus_shape(events, row)


def list_event_buses(events: Events, reader: Reader, request: Request, call: Call) -> Response:
    """Return buses by name."""
    rows = reader.all(
        "SELECT name, created_at_ms, modified_at_ms, description, policy FROM events_bus ORDER BY name LIMIT ?",
        (BUSES_LIMIT,),
    )
    found = {row[0]: row for row in rows if row[0].startswith(request.get("NamePrefix") or "")}
    names, token = page(list(found), request)
    return {"EventBuses": [_bus_shape(events, found[name]) for name in names], **token}


# ── tags ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _resource(events: Events, reader: Reader, request: Request) -> str:
    """Return the ARN of the rule or bus that a request names; raise ResourceNotFoundError, ValidationError."""
    arn = request["ResourceARN"]
    try:
        kind, _, name = arns.parse(arn).resource.partition("/")
    except ValueError:
        kind = name = ""
    if kind == "rule":
        events.rules.get(reader, *events.rules.parse_arn(arn))
    elif kind == "event-bus":
        require_bus(reader, name)
    else:
        raise ValidationError(f"Parameter ResourceARN is not valid: {arn[:200]!r} is no rule and no event bus.")
    return str(arn)


def tag_resource(events: Events, tx: Transaction, request: Request, call: Call) -> Response:
    """Add tags to a rule or bus."""
    tags.put(tx, _resource(events, tx, request), tag_map(request["Tags"]))
    return {}


def untag_resource(events: Events, tx: Transaction, request: Request, call: Call) -> Response:
    """Remove tags from a rule or bus."""
    tags.remove(tx, _resource(events, tx, request), request["TagKeys"])
    return {}


def list_tags_for_resource(events: Events, reader: Reader, request: Request, call: Call) -> Response:
    """Return the tags of a rule or bus."""
    found = tags.tags_of(reader, _resource(events, reader, request))
    return {"Tags": [{"Key": key, "Value": value} for key, value in found.items()]}
