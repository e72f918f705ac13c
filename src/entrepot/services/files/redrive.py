"""Delivering files again, by a redrive or a replay: their events go once more to the rules, under a new attempt."""

from dataclasses import dataclass

from entrepot import clock
from entrepot.database import Transaction
from entrepot.errors import AwsError
from entrepot.operations import Call
from entrepot.services.files.errors import ValidationError
from entrepot.services.files.event import object_created_event
from entrepot.services.files.listing import Filter, find_file, list_files
from entrepot.services.files.record import FAILED, STATUSES, UPLOADED, FileRecord
from entrepot.services.files.service import Files

REDRIVE_LIMIT = 100
"""Files of one call."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one file. `error` is None where it was (or, in a dry run, would be) redriven."""

    file_id: str
    key: str
    error: AwsError | None


def redrive_files(
    files: Files, tx: Transaction, names: list[str], call: Call, *, dry_run: bool, force: bool
) -> list[Outcome]:
    """Redrive files named by id or beginning of an id; only failed ones, unless `force`."""
    if not 0 < len(names) <= REDRIVE_LIMIT:
        raise ValidationError(f"file_ids must have between 1 and {REDRIVE_LIMIT} entries.")
    outcomes: list[Outcome] = []
    for name in names:
        try:
            file = find_file(tx, name)
        except AwsError as error:
            outcomes.append(Outcome(name, "", error))
            continue
        try:
            _check(file, force=force)
            if not dry_run:
                _redrive(files, tx, file, call)
        except AwsError as error:
            outcomes.append(Outcome(file.file_id, file.key, error))
        else:
            outcomes.append(Outcome(file.file_id, file.key, None))
    return outcomes


def failed_files(tx: Transaction) -> list[str]:
    """Return the ids of the failed files that one call redrives: the newest."""
    page = list_files(tx, Filter(status=STATUSES[FAILED]), limit=REDRIVE_LIMIT)
    return [file.file_id for file in page.files]


def _check(file: FileRecord, *, force: bool) -> None:
    if file.status != FAILED and not force:
        raise ValidationError(
            f"{file.key} is {STATUSES[file.status]}; only failed files are redriven, unless force is set."
        )
    if file.event_id is None:
        raise ValidationError(
            f"{file.key} raised no event: its bucket does not send events to EventBridge. Upload it again."
        )


def _redrive(files: Files, tx: Transaction, file: FileRecord, call: Call) -> None:
    """Queue the event under the next attempt. An older attempt that is still under way no longer decides the status."""
    count = file.redrive_count + 1
    if files.redeliver(tx, object_created_event(files.account, file), count + 1) == 0:
        raise ValidationError(f"No enabled rule with a target matches {file.key} now; put or enable one first.")
    facts: dict[str, object] = {"by": call.principal.name, "error": file.error_message}
    files.note(tx, file.sequence, clock.now_ms(), "redrive", facts | _newest_delivery(tx, file))
    tx.execute("UPDATE files_file SET redrive_count = ? WHERE sequence = ?", (count, file.sequence))
    files.set_status(tx, file, UPLOADED, None, None)


def replayed(files: Files, tx: Transaction, event_id: str, replay_name: str, starts_execution: bool) -> int | None:
    """Note that a replay is about to deliver a file's event again; return the attempt under which it does.

    None when the event is no file's. Only an execution says how the new attempt ends, so without one the status stays.
    """
    file = files.find_by_event(tx, event_id)
    if file is None:
        return None
    count = file.redrive_count + 1
    facts: dict[str, object] = {"replay": replay_name, "error": file.error_message}
    files.note(tx, file.sequence, clock.now_ms(), "replay", facts | _newest_delivery(tx, file))
    tx.execute("UPDATE files_file SET redrive_count = ? WHERE sequence = ?", (count, file.sequence))
    if starts_execution:
        files.set_status(tx, file, UPLOADED, None, None)
    return count + 1


def _newest_delivery(tx: Transaction, file: FileRecord) -> dict[str, object]:
    """Return what the record says of the newest delivery, which the next one will replace."""
    if file.route is None:
        return {}
    row = tx.one("SELECT route_id FROM files_file WHERE sequence = ?", (file.sequence,))
    assert row is not None
    return {"route_id": row[0], "attempt": file.attempt, "delivered_at_ms": file.delivered_at_ms}
