"""One file explained: everything that happened to it, in the order of time, from the ledger and from what the executions and
logs still hold."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from entrepot.database import Reader
from entrepot.services.files.ports import LoggedLine, SessionFacts
from entrepot.services.files.record import FileRecord, Records, Route

EXECUTION_STARTED = "Execution started"

SAME_TRANSACTION_MS = 1000
"""An execution that began so shortly before a delivery was recorded is the one that it started."""

ENTRIES_LIMIT = 1000
"""Entries of one timeline; of more, the oldest and the newest halves are shown."""

DETAIL_LIMIT = 1000
"""Characters of one entry's detail."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened. `kind` is for programs: session, upload, event, delivery, delivery-failed, execution, state,
    log, copy, redrive, replay or status."""

    at_ms: int
    kind: str
    title: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the ledger holds beside the record: notes, and all executions that were started for the file."""

    notes: tuple[Entry, ...]
    execution_arns: tuple[str, ...]
    session: SessionFacts | None


def facts_of(reader: Reader, file: FileRecord, session: SessionFacts | None) -> Facts:
    """Read the notes of a file."""
    records = Records(reader)
    rows = reader.all(
        "SELECT at_ms, kind, facts FROM files_note WHERE sequence = ? ORDER BY note_id LIMIT ?",
        (file.sequence, ENTRIES_LIMIT),
    )
    notes: list[Entry] = []
    arns: list[str] = []
    for at_ms, kind, text in rows:
        facts = json.loads(text)
        route = None if facts.get("route_id") is None else records.route(facts["route_id"])
        notes += _NOTES[kind](at_ms, facts, route)
        if route is not None and file.event_id is not None and facts.get("attempt") is not None:
            arn = route.execution_arn(file.event_id, facts["attempt"])
            arns += [arn] if arn is not None and arn not in arns else []
    if file.execution_arn is not None and file.execution_arn not in arns:
        arns.append(file.execution_arn)
    return Facts(tuple(notes), tuple(arns), session)


def timeline(
    file: FileRecord, facts: Facts, histories: Mapping[str, Sequence[Mapping[str, Any]]], lines: Sequence[LoggedLine]
) -> list[Entry]:
    """Return the entries in the order of time; at the same time, cause before effect."""
    entries = [*_arrival(file, facts.session), *facts.notes]
    if file.route is not None and file.delivered_at_ms is not None:
        entries += _delivery(file.delivered_at_ms, {"attempt": file.attempt}, file.route)
    for arn in facts.execution_arns:
        entries += _execution(arn, histories.get(arn, ()))
    entries += [Entry(line.at_ms, "log", line.log_group_name, line.message.rstrip()) for line in lines]
    if file.copied_at_ms is not None:
        where = f"s3://{file.copied_bucket}/{file.copied_key}"
        title = "Copied to the destination" if file.is_copied_out else "Copied inside of the source bucket"
        entries.append(Entry(file.copied_at_ms, "copy", title, where))
    if file.transferred_at_ms is not None:
        entries.append(Entry(file.transferred_at_ms, "status", "Transferred"))
    entries = _in_order(entries)
    if file.error_message:
        entries.append(Entry(max(e.at_ms for e in entries), "status", "Failed", file.error_message))
    if len(entries) > ENTRIES_LIMIT:
        half = ENTRIES_LIMIT // 2
        gap = Entry(entries[half].at_ms, "log", f"{len(entries) - 2 * half} more entries", "Look into the log groups.")
        entries = [*entries[:half], gap, *entries[-half:]]
    return [Entry(e.at_ms, e.kind, e.title, _short(e.detail)) for e in entries]


def _in_order(entries: list[Entry]) -> list[Entry]:
    """Sort by time, cause before effect. A delivery is recorded after its execution began, in the same transaction."""
    begun = sorted(entry.at_ms for entry in entries if entry.title == EXECUTION_STARTED)

    def place(entry: Entry) -> tuple[int, int]:
        at_ms = entry.at_ms
        if entry.kind == "delivery":
            at_ms = max((start for start in begun if at_ms - SAME_TRANSACTION_MS <= start <= at_ms), default=at_ms)
        return at_ms, _CAUSES.get(entry.kind, len(_CAUSES))

    return sorted((replace(entry, at_ms=place(entry)[0]) for entry in entries), key=place)


_CAUSES = {"session": 0, "upload": 1, "event": 2, "delivery": 3}


def _arrival(file: FileRecord, session: SessionFacts | None) -> list[Entry]:
    entries = []
    if session is not None:
        entries.append(
            Entry(
                session.logged_in_at_ms,
                "session",
                f"{session.user_name} logged in",
                f"from {session.source_ip} with key {session.key_fingerprint}, {session.client}, "
                f"session {file.session_id}",
            )
        )
    if file.renamed_from is not None:
        title = f"Renamed by {file.user_name}"
        detail = f"from {file.renamed_from}; {file.size_bytes} bytes, SHA-256 {file.sha256}"
    else:
        title = f"Uploaded by {file.user_name} ({file.reason})"
        detail = f"from {file.source_ip}; {file.size_bytes} bytes, SHA-256 {file.sha256}"
    entries.append(Entry(file.uploaded_at_ms, "upload", title, detail))
    if file.event_id is not None:
        entries.append(Entry(file.uploaded_at_ms, "event", "Event Object Created", f"id {file.event_id}"))
    return entries


def _resource(arn: str) -> str:
    """Return the name at the end of an ARN: `rule/object-created` → `object-created`."""
    return arn.rpartition(":")[2].rpartition("/")[2]


def _delivery(at_ms: int, facts: Mapping[str, Any], route: Route | None) -> list[Entry]:
    assert route is not None
    title = f"Rule {_resource(route.rule_arn)} matched"
    return [Entry(at_ms, "delivery", title, f"delivered to {route.target_arn}, attempt {facts['attempt']}")]


def _delivery_failed(at_ms: int, facts: Mapping[str, Any], route: Route | None) -> list[Entry]:
    title = f"Rule {_resource(facts['rule_arn'])} matched, but the delivery failed"
    return [
        Entry(at_ms, "delivery-failed", title, f"{facts['target_arn']}, attempt {facts['attempt']}: {facts['error']}")
    ]


def _redrive(at_ms: int, facts: Mapping[str, Any], route: Route | None) -> list[Entry]:
    return _again(at_ms, facts, route, "redrive", f"Redriven by {facts['by']}")


def _replay(at_ms: int, facts: Mapping[str, Any], route: Route | None) -> list[Entry]:
    return _again(at_ms, facts, route, "replay", f"Replayed by {facts['replay']}")


def _again(at_ms: int, facts: Mapping[str, Any], route: Route | None, kind: str, title: str) -> list[Entry]:
    """Return the delivery that was the newest until then, and that there is to be another."""
    entries = []
    if route is not None and facts.get("delivered_at_ms") is not None:
        entries += _delivery(facts["delivered_at_ms"], facts, route)
    because = f"it had failed: {facts['error']}" if facts.get("error") else ""
    entries.append(Entry(at_ms, kind, title, because))
    return entries


_NOTES: Mapping[str, Callable[[int, Mapping[str, Any], Route | None], list[Entry]]] = {
    "delivery": _delivery,
    "delivery-failed": _delivery_failed,
    "redrive": _redrive,
    "replay": _replay,
}

# ── executions ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _execution(arn: str, events: Sequence[Mapping[str, Any]]) -> list[Entry]:
    """Return what a timeline tells of GetExecutionHistory's events: begin and end, states, and errors."""
    entries = []
    for event in events:
        told = _told(arn, event)
        if told is not None:
            kind, title, detail = told
            entries.append(Entry(_at_ms(event["timestamp"]), kind, title, detail))
    return entries


def _told(arn: str, event: Mapping[str, Any]) -> tuple[str, str, str] | None:
    kind: str = event["type"]
    details: Mapping[str, Any] = next(
        (value for name, value in event.items() if name.endswith("EventDetails") and isinstance(value, Mapping)), {}
    )
    error = ": ".join(part for part in (details.get("error"), details.get("cause")) if part)
    if kind.startswith("Execution"):
        if kind == "ExecutionStarted":
            return "execution", EXECUTION_STARTED, arn
        what = {"ExecutionTimedOut": "timed out"}.get(kind, kind.removeprefix("Execution").lower())
        return "execution", f"Execution {what}", error
    if kind.endswith("StateEntered"):
        return "state", f"State {details.get('name', '?')} entered", _text(details.get("input"))
    if kind.endswith("StateExited"):
        return "state", f"State {details.get('name', '?')} left", _text(details.get("output"))
    if error or kind.endswith(("Failed", "TimedOut", "Aborted")):
        return "state", kind, error
    return None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _at_ms(value: object) -> int:
    """Return the milliseconds of a timestamp as operations give it (a datetime, or seconds since the epoch)."""
    if isinstance(value, datetime):
        return round(value.timestamp() * 1000)
    assert isinstance(value, int | float)
    return round(value * 1000)


def _short(text: str) -> str:
    return text if len(text) <= DETAIL_LIMIT else text[: DETAIL_LIMIT - 1] + "…"
