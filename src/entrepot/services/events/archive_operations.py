"""The edge of archives and replays: AWS's operations in botocore's shapes (service `events`)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from entrepot import clock, ids
from entrepot.database import Reader, Transaction
from entrepot.operations import Call, Operation, Permission, Permissions, Request, Response
from entrepot.services.events import archives, edge, replays
from entrepot.services.events.archives import Archive
from entrepot.services.events.edge import bus_arn, bus_name_of, check_name, page
from entrepot.services.events.errors import (
    IllegalStatusError,
    LimitExceededError,
    ResourceAlreadyExistsError,
    ResourceNotFoundError,
    ValidationError,
)
from entrepot.services.events.pattern import EventPattern
from entrepot.services.events.replays import Replay
from entrepot.services.events.rules import RULES_LIMIT, require_bus
from entrepot.services.events.service import Events

ARCHIVES_LIMIT = 100
"""Archives of one account."""

FILTERS_LIMIT = RULES_LIMIT
"""Rules that one replay can name."""

_STATES = ("ENABLED", "DISABLED", "CREATING", "UPDATING", "CREATE_FAILED", "UPDATE_FAILED")


def archive_operations(events: Events) -> list[Operation]:
    """Return the operations on archives and replays."""
    read, write = edge.reads(events), edge.writes(events)

    def on_archive(action: str) -> Permissions:
        return lambda request: [Permission(f"events:{action}", archive_arn(events, request.get("ArchiveName", "")))]

    def on_replay(action: str) -> Permissions:
        return lambda request: [Permission(f"events:{action}", replay_arn(events, request.get("ReplayName", "")))]

    def on_any(action: str) -> Permissions:
        return lambda _: [Permission(f"events:{action}", "*")]

    return [
        write("CreateArchive", on_archive("CreateArchive"), create_archive),
        read("DescribeArchive", on_archive("DescribeArchive"), describe_archive),
        read("ListArchives", on_any("ListArchives"), list_archives),
        write("UpdateArchive", on_archive("UpdateArchive"), update_archive),
        write("DeleteArchive", on_archive("DeleteArchive"), delete_archive),
        write("StartReplay", _on_start_replay(events), start_replay),
        read("DescribeReplay", on_replay("DescribeReplay"), describe_replay),
        read("ListReplays", on_any("ListReplays"), list_replays),
        write("CancelReplay", on_replay("CancelReplay"), cancel_replay),
    ]


def _on_start_replay(events: Events) -> Permissions:
    """Who replays reads the archive and puts its events on the bus."""

    def of(request: Request) -> list[Permission]:
        return [
            Permission("events:StartReplay", replay_arn(events, request.get("ReplayName", ""))),
            Permission("events:StartReplay", str(request.get("EventSourceArn", "*"))),
        ]

    return of


def archive_arn(events: Events, name: str) -> str:
    """Return the ARN of an archive."""
    return events.account.arn("events", f"archive/{name}")


def replay_arn(events: Events, name: str) -> str:
    """Return the ARN of a replay."""
    return events.account.arn("events", f"replay/{name}")


# ── archives ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _archive(reader: Reader, name: str) -> Archive:
    archive = archives.find(reader, name)
    if archive is None:
        raise ResourceNotFoundError(f"Archive {name} does not exist.")
    return archive


def _check(request: Request) -> None:
    if request.get("KmsKeyIdentifier"):
        raise ValidationError("Parameter KmsKeyIdentifier is not supported here.")
    edge.check_description(request)
    edge.check_text(request)
    if (request.get("RetentionDays") or 0) < 0:
        raise ValidationError("RetentionDays must not be negative.")
    if request.get("EventPattern"):
        edge.check_pattern_length(request["EventPattern"])
        EventPattern.parse(request["EventPattern"])


def create_archive(events: Events, tx: Transaction, request: Request, call: Call) -> Response:
    """Begin to keep the events of a bus."""
    name = request["ArchiveName"]
    check_name(name, "archiveName", 48)
    _check(request)
    bus_name = _bus_of(events, tx, request["EventSourceArn"])
    if archives.find(tx, name) is not None:
        raise ResourceAlreadyExistsError(f"Archive {name} already exists.")
    if len(archives.all_archives(tx, ARCHIVES_LIMIT)) >= ARCHIVES_LIMIT:
        raise LimitExceededError(
            f"The requested resource exceeds the maximum number allowed: {ARCHIVES_LIMIT} archives."
        )
    archive = Archive(
        int(ids.random_hex(7), 16), name, bus_name, request.get("Description") or "", request.get("EventPattern") or "",
        request.get("RetentionDays") or 0, clock.now_ms(), 0, 0,
    )  # fmt: skip
    archives.put(tx, archive)
    events.rules.changed(tx, bus_name)
    return _archive_state(events, archive)


def _bus_of(events: Events, reader: Reader, arn: str) -> str:
    bus_name = bus_name_of(arn)
    if arn != bus_arn(events, bus_name):
        raise ValidationError("Parameter EventSourceArn is not valid. Reason: Must contain an event bus ARN.")
    require_bus(reader, bus_name)
    return bus_name


def _archive_state(events: Events, archive: Archive) -> Response:
    return {
        "ArchiveArn": archive_arn(events, archive.name),
        "State": "ENABLED",
        "CreationTime": clock.from_ms(archive.created_at_ms),
    }


def _archive_shape(events: Events, archive: Archive) -> Response:
    """Return what ListArchives tells of an archive."""
    return {
        "ArchiveName": archive.name,
        "EventSourceArn": bus_arn(events, archive.bus_name),
        "State": "ENABLED",
        "RetentionDays": archive.retention_days,
        "SizeBytes": archive.size_bytes,
        "EventCount": archive.event_count,
        "CreationTime": clock.from_ms(archive.created_at_ms),
    }


def describe_archive(events: Events, reader: Reader, request: Request, call: Call) -> Response:
    """Return one archive."""
    archive = _archive(reader, request["ArchiveName"])
    shape = {**_archive_shape(events, archive), "ArchiveArn": archive_arn(events, archive.name)}
    if archive.description:
        shape["Description"] = archive.description
    if archive.event_pattern:
        shape["EventPattern"] = archive.event_pattern
    return shape


def list_archives(events: Events, reader: Reader, request: Request, call: Call) -> Response:
    """Return archives by name; at most one filter."""
    given = [name for name in ("NamePrefix", "EventSourceArn", "State") if request.get(name)]
    if len(given) > 1:
        raise ValidationError(
            "At most one filter is allowed for ListArchives. Use either : State, EventSourceArn, or NamePrefix."
        )
    state = request.get("State")
    if state and state not in _STATES:
        raise edge.not_in_enumeration("state", state, _STATES)
    found = {
        archive.name: archive
        for archive in archives.all_archives(reader, ARCHIVES_LIMIT)
        if archive.name.startswith(request.get("NamePrefix") or "")
        and request.get("EventSourceArn") in (None, "", bus_arn(events, archive.bus_name))
        and state in (None, "", "ENABLED")
    }
    names, token = page(list(found), request)
    return {"Archives": [_archive_shape(events, found[name]) for name in names], **token}


def update_archive(events: Events, tx: Transaction, request: Request, call: Call) -> Response:
    """Change what an archive keeps from now on, and for how long. What is not given stays."""
    archive = _archive(tx, request["ArchiveName"])
    _check(request)
    changed = {
        field: request[member]
        for field, member in (
            ("description", "Description"), ("event_pattern", "EventPattern"), ("retention_days", "RetentionDays")
        )
        if request.get(member) is not None
    }  # fmt: skip
    archive = dataclasses.replace(archive, **changed)
    archives.put(tx, archive)
    events.rules.changed(tx, archive.bus_name)
    return _archive_state(events, archive)


def delete_archive(events: Events, tx: Transaction, request: Request, call: Call) -> Response:
    """Delete an archive with all that it keeps."""
    archive = _archive(tx, request["ArchiveName"])
    archives.delete(tx, archive)
    events.rules.changed(tx, archive.bus_name)
    return {}


# ── replays ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def start_replay(events: Events, tx: Transaction, request: Request, call: Call) -> Response:
    """Begin to put archived events on their bus once more, from one time to another, both included."""
    name, source_arn = request["ReplayName"], request["EventSourceArn"]
    check_name(name, "replayName", 64)
    edge.check_description(request)
    edge.check_text(request)
    if replays.find(tx, name) is not None:
        raise ResourceAlreadyExistsError(f"Replay {name} already exists.")
    archive_name = source_arn.rpartition("archive/")[2]
    archive = archives.find(tx, archive_name)
    if archive is None or source_arn != archive_arn(events, archive_name):
        raise ValidationError(f"Parameter EventSourceArn is not valid. Reason: Archive {archive_name} does not exist.")
    filter_arns = _check_destination(events, tx, request["Destination"], archive)
    # Events name seconds; who asks for events since 12:00:00.5 means the one of 12:00:00.7, which says 12:00:00.
    start_at_ms = int(request["EventStartTime"].timestamp()) * 1000
    end_at_ms = int(request["EventEndTime"].timestamp() * 1000)
    if request["EventStartTime"] >= request["EventEndTime"]:
        raise ValidationError(
            "Parameter EventEndTime is not valid. Reason: EventStartTime must be before EventEndTime."
        )
    if replays.count_active(tx) >= replays.ACTIVE_LIMIT:
        raise LimitExceededError(
            f"The requested resource exceeds the maximum number allowed: {replays.ACTIVE_LIMIT} replays at a time."
        )
    now_ms = clock.now_ms()
    replays.start(
        tx, name=name, description=request.get("Description") or "", archive_id=archive.archive_id,
        archive_arn=source_arn, bus_name=archive.bus_name, filter_arns=filter_arns, start_at_ms=start_at_ms,
        end_at_ms=end_at_ms, now_ms=now_ms,
    )  # fmt: skip
    tx.after_commit(events.replay_started)
    return {
        "ReplayArn": replay_arn(events, name),
        "State": "STARTING",
        "ReplayStartTime": clock.from_ms(now_ms),
    }


def _check_destination(events: Events, reader: Reader, destination: Mapping[str, Any], archive: Archive) -> list[str]:
    """Return the rules that a replay is for; raise ValidationError, ResourceNotFoundError."""
    arn = destination["Arn"]
    bus_name = bus_name_of(arn)
    if arn != bus_arn(events, bus_name):
        raise ValidationError("Parameter Destination.Arn is not valid. Reason: Must contain an event bus ARN.")
    require_bus(reader, bus_name)
    if bus_name != archive.bus_name:
        raise ValidationError(
            "Parameter Destination.Arn is not valid. Reason: Cross event bus replay is not permitted."
        )
    filter_arns = list(destination.get("FilterArns") or ())
    if len(filter_arns) > FILTERS_LIMIT:
        raise ValidationError(f"Destination.FilterArns must not have more than {FILTERS_LIMIT} entries.")
    for rule_arn in filter_arns:
        rule_bus, rule_name = events.rules.parse_arn(rule_arn)
        if rule_bus != bus_name or rule_arn != events.rules.rule_arn(rule_bus, rule_name):
            raise ValidationError(
                f"Parameter Destination.FilterArns is not valid. Reason: {rule_arn[:300]} is no rule of {bus_name}."
            )
        events.rules.get(reader, rule_bus, rule_name)
    return filter_arns


def _replay(reader: Reader, name: str) -> Replay:
    replay = replays.find(reader, name)
    if replay is None:
        raise ResourceNotFoundError(f"Replay {name} does not exist.")
    return replay


def _replay_shape(replay: Replay) -> Response:
    """Return what ListReplays tells of a replay."""
    shape: Response = {
        "ReplayName": replay.name,
        "EventSourceArn": replay.archive_arn,
        "State": replay.state,
        "EventStartTime": clock.from_ms(replay.start_at_ms),
        "EventEndTime": clock.from_ms(replay.end_at_ms),
        "ReplayStartTime": clock.from_ms(replay.started_at_ms),
    }
    if replay.state_reason:
        shape["StateReason"] = replay.state_reason
    if replay.last_event_at_ms is not None:
        shape["EventLastReplayedTime"] = clock.from_ms(replay.last_event_at_ms)
    if replay.ended_at_ms is not None:
        shape["ReplayEndTime"] = clock.from_ms(replay.ended_at_ms)
    return shape


def describe_replay(events: Events, reader: Reader, request: Request, call: Call) -> Response:
    """Return one replay."""
    replay = _replay(reader, request["ReplayName"])
    destination: dict[str, Any] = {"Arn": bus_arn(events, replay.bus_name)}
    if replay.filter_arns:
        destination["FilterArns"] = list(replay.filter_arns)
    shape = {**_replay_shape(replay), "ReplayArn": replay_arn(events, replay.name), "Destination": destination}
    if replay.description:
        shape["Description"] = replay.description
    return shape


def list_replays(events: Events, reader: Reader, request: Request, call: Call) -> Response:
    """Return replays by name; at most one filter."""
    given = [name for name in ("NamePrefix", "EventSourceArn", "State") if request.get(name)]
    if len(given) > 1:
        raise ValidationError(
            "At most one filter is allowed for ListReplays. Use either : State, EventSourceArn, or NamePrefix."
        )
    found = {
        replay.name: replay
        for replay in replays.all_replays(reader, request.get("NamePrefix") or "", request.get("NextToken") or "", 1000)
        if request.get("EventSourceArn") in (None, "", replay.archive_arn)
        and request.get("State") in (None, "", replay.state)
    }
    names, token = page(list(found), request)
    return {"Replays": [_replay_shape(found[name]) for name in names], **token}


def cancel_replay(events: Events, tx: Transaction, request: Request, call: Call) -> Response:
    """Stop a replay; what it has put on the bus is delivered."""
    replay = _replay(tx, request["ReplayName"])
    if replay.state not in ("STARTING", "RUNNING"):
        raise IllegalStatusError(f"Replay {replay.name} is not in a valid state for this operation.")
    replays.cancel(tx, replay)
    tx.after_commit(events.replay_started)
    return {"ReplayArn": replay_arn(events, replay.name), "State": "CANCELLING"}
