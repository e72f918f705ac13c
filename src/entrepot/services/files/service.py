"""Files: one record per file, kept by what the other rooms report, each report inside its own transaction."""

import json
import logging
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from entrepot import clock
from entrepot.arns import Account
from entrepot.database import Database, Reader, Transaction
from entrepot.errors import AwsError
from entrepot.operations import Call
from entrepot.services.files.ports import (
    CreatedObject,
    DeletedObject,
    DeleteMetadataItem,
    DeliveryFact,
    ExecutionFact,
    ExecutionHistory,
    FindSession,
    LogLines,
    OnRecorded,
    OnSettled,
    PutMetadataItem,
    Redeliver,
)
from entrepot.services.files.record import (
    FAILED,
    STATUSES,
    TRANSFERRED,
    TRANSFERRING,
    UPLOADED,
    FileRecord,
    Pipeline,
    Records,
    Route,
    derived_etag,
    file_id_of,
    sequence_of,
)
from entrepot.services.files.settlements import Settlements

ERROR_LIMIT = 2000
"""Characters of an error message that a record keeps."""

EXECUTION_NAME_LENGTH = 69
"""An event's id, an underscore, and 32 hex digits: the name of an execution that an event started."""

_log = logging.getLogger(__name__)


class Files:
    """The accounts of all files."""

    def __init__(
        self,
        database: Database,
        account: Account,
        *,
        pipelines: Iterable[Pipeline] = (),
        put_metadata_item: PutMetadataItem,
        redeliver: Redeliver,
        delete_metadata_item: DeleteMetadataItem | None = None,
        session: FindSession | None = None,
        execution_history: ExecutionHistory | None = None,
        log_lines: LogLines | None = None,
        on_settled: OnSettled | None = None,
        on_recorded: OnRecorded | None = None,
    ) -> None:
        self.database = database
        self.account = account
        self.redeliver = redeliver
        self.find_session = session
        self.execution_history = execution_history
        self.log_lines = log_lines
        self._settlements = Settlements(on_settled)
        self._on_recorded = on_recorded
        self._counted = (0, 0)
        self._put_metadata_item = put_metadata_item
        self._delete_metadata_item = delete_metadata_item
        self._pipeline_ids: dict[Pipeline, int] = {}
        self._pipelines: dict[int, Pipeline] = {}
        self._own_item: str | None = None
        self._route_ids: dict[Route, int] = {}
        self.set_pipelines(pipelines)

    def set_pipelines(self, pipelines: Iterable[Pipeline]) -> None:
        """Say which buckets are sources from now on; records that exist keep their pipeline."""
        self._by_source = {pipeline.source_bucket: pipeline for pipeline in pipelines}
        self._tables = {pipeline.metadata_table for pipeline in self._by_source.values()}

    # ── S3 reports ───────────────────────────────────────────────────────────────────────────────────────────────

    def record_upload(self, tx: Transaction, created: CreatedObject, call: Call, event_id: str | None) -> None:
        """Record a version that became visible in a source bucket, in its own transaction. Folder markers have none."""
        pipeline = self._by_source.get(created.bucket)
        if pipeline is None or created.key.endswith("/"):
            return
        sequence, file_id = sequence_of(created.sequencer), file_id_of(created.bucket, created.key, created.sequencer)
        customer_id = call.principal.tags.get("customer_id") or _first_folder(created.key)
        sender: tuple[str, str, str | None] = (call.principal.name, call.source_ip, call.session_id)
        renamed_from = None
        source = created.copied_from
        if source is not None and source.bucket == created.bucket:
            origin = tx.one(
                "SELECT user_name, source_ip, session_id, customer_id FROM files_file WHERE sequence = ?",
                (sequence_of(source.sequencer),),
            )
            if origin is not None:
                sender, renamed_from = (origin[0], origin[1], origin[2]), source.key
                customer_id = call.principal.tags.get("customer_id") or _first_folder(created.key) or origin[3]
                self.object_copied(tx, created)
        etag = None if created.etag.strip('"') == derived_etag(created.sha256) else created.etag
        tx.execute(
            "INSERT INTO files_file (sequence, file_id, pipeline_id, key, customer_id, size_bytes, sha256, etag, "
            "version_id, reason, status, uploaded_at_ms, event_id, user_name, source_ip, session_id, request_id, "
            "renamed_from, redrive_count) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?, ?, ?, ?, ?, ?, 0)",
            (
                sequence, bytes.fromhex(file_id), self._pipeline_id(tx, pipeline), created.key, customer_id,
                created.size_bytes, bytes.fromhex(created.sha256), etag, created.version_id,
                None if created.reason == "PutObject" else created.reason, created.created_at_ms,
                None if event_id is None else UUID(event_id).bytes, *sender, call.request_id, renamed_from,
            ),
        )  # fmt: skip
        self._put_item(
            tx,
            pipeline,
            {
                "file_id": file_id,
                "source_bucket": pipeline.source_bucket,
                "destination_bucket": pipeline.destination_bucket,
                "key": created.key,
                "customer_id": customer_id,
                "upload_timestamp": clock.iso(created.created_at_ms),
                "status": "uploaded",
            },
        )
        if self._on_recorded is not None:
            self._on_recorded(tx, created, file_id, customer_id)
        self._settlements.tell(tx, UPLOADED, file_id, created.size_bytes, None, over_sftp=call.session_id is not None)

    def object_copied(self, tx: Transaction, created: CreatedObject) -> None:
        """Record that a version of a source bucket was copied (a delivery, when it went into another bucket)."""
        source = created.copied_from
        if source is None or source.bucket not in self._by_source:
            return
        pipeline = self._by_source[source.bucket]
        inside = created.bucket == source.bucket
        row = tx.one(
            "UPDATE files_file SET copied_at_ms = ?, copied_sequence = ?, copied_bucket = ?, copied_key = ? "
            "WHERE sequence = ? AND (copied_at_ms IS NULL OR ? = 0) "  # A copy inside tells less than a delivery.
            "RETURNING status, route_id",
            (
                created.created_at_ms,
                sequence_of(created.sequencer),
                None if created.bucket == pipeline.destination_bucket and not inside else created.bucket,
                None if created.key == source.key else created.key,
                sequence_of(source.sequencer),
                int(inside),
            ),
        )
        if row == (UPLOADED, None) and created.bucket == pipeline.destination_bucket and not inside:
            # No execution will say how it ended: a function that is the rule's own target, or an operator, delivered it.
            file = Records(tx, self._pipelines).one("sequence = ?", sequence_of(source.sequencer))
            assert file is not None
            self.set_status(tx, file, TRANSFERRED, created.created_at_ms, None)

    def object_deleted(self, tx: Transaction, deleted: DeletedObject) -> None:
        """Drop the record of an upload under a temporary name (`x.filepart`) that was renamed before anything ran.

        The record of the new name tells of it. Any other record stays.
        """
        if deleted.bucket not in self._by_source:
            return
        file = Records(tx).one(
            "key = ? AND status = 0 AND route_id IS NULL AND copied_bucket = ? ORDER BY sequence DESC LIMIT 1",
            deleted.key,
            deleted.bucket,
        )
        if file is None:
            return
        tx.execute("DELETE FROM files_file WHERE sequence = ?", (file.sequence,))
        sequence = file.sequence
        tx.after_commit(lambda: self._uncount(sequence))
        if self._delete_metadata_item is not None:
            self._delete_metadata_item(tx, file.pipeline.metadata_table, file.file_id)

    def _uncount(self, sequence: int) -> None:
        last, total = self._counted
        if sequence <= last:
            self._counted = (last, total - 1)

    # ── DynamoDB reports ─────────────────────────────────────────────────────────────────────────────────────────

    def item_changed(
        self,
        tx: Transaction,
        table_name: str,
        key: Mapping[str, Any],
        old: Mapping[str, Any] | None,
        new: Mapping[str, Any] | None,
    ) -> None:
        """Project a changed item of a metadata table (DynamoDB's JSON) onto the record with its file_id."""
        if new is None or table_name not in self._tables or self._own_item is not None:
            return  # What this room writes itself is in the record already.
        names = ("status", "transfer_timestamp", "error_message")
        now = [_string(new, name) for name in names]
        if now[0] not in STATUSES or (now == ["uploaded", None, None] and old is None):
            return  # Nothing to tell; the latter is the item that `record_upload` puts.
        if old is not None and now == [_string(old, name) for name in names]:
            return
        try:
            file_id = bytes.fromhex(_string(new, "file_id") or "")
        except ValueError:
            return
        transferred_at_ms = None
        if now[0] == "transferred":
            transferred_at_ms = _timestamp_ms(now[1]) or clock.now_ms()
        status = STATUSES.index(now[0])
        row = tx.one(
            "UPDATE files_file SET status = ?, transferred_at_ms = ?, error_message = ? WHERE file_id = ? "
            "RETURNING size_bytes, uploaded_at_ms",
            (status, transferred_at_ms, _bounded(now[2]), file_id),
        )
        if row is not None:
            self._settlements.tell(tx, status, file_id.hex(), row[0], row[1])

    # ── EventBridge reports ──────────────────────────────────────────────────────────────────────────────────────

    def delivered(self, tx: Transaction, delivery: DeliveryFact) -> None:
        """Link the execution that a file's event started; note other deliveries."""
        event_id, at_ms = _event_id(delivery.event_id), clock.now_ms()
        if event_id is None:
            return
        route_id = self._route_id(tx, _route(delivery))
        if delivery.execution_arn is not None and tx.execute(
            "UPDATE files_file SET route_id = ?, attempt = ?, delivered_at_ms = ? "
            "WHERE event_id = ? AND (attempt IS NULL OR attempt < ?)",
            (route_id, delivery.attempt, at_ms, event_id, delivery.attempt),
        ):
            return
        row = tx.one("SELECT sequence FROM files_file WHERE event_id = ?", (event_id,))
        if row is not None:
            self.note(tx, row[0], at_ms, "delivery", {"route_id": route_id, "attempt": delivery.attempt})

    def delivery_failed(self, tx: Transaction, delivery: DeliveryFact) -> None:
        """A file whose event could not be delivered has failed, unless another delivery brought it further."""
        event_id = _event_id(delivery.event_id)
        file = None if event_id is None else Records(tx).one("event_id = ?", event_id)
        if file is None:
            return
        facts = {
            "rule_arn": delivery.rule_arn,
            "target_arn": delivery.target_arn or delivery.target_id,
            "attempt": delivery.attempt,
            "error": _bounded(delivery.error),
        }
        self.note(tx, file.sequence, clock.now_ms(), "delivery-failed", facts)
        if file.status == UPLOADED and (file.attempt or 0) < delivery.attempt:
            target = delivery.target_arn or f"target {delivery.target_id}"
            self.set_status(
                tx, file, FAILED, None,
                f"The event of this file could not be delivered to {target}: {delivery.error}. Mend the cause, then redrive.",
            )  # fmt: skip

    def find_by_event(self, reader: Reader, event_id: str) -> FileRecord | None:
        """Return the file whose arrival an event tells of; None when there is none."""
        found = _event_id(event_id)
        return None if found is None else Records(reader, self._pipelines).one("event_id = ?", found)

    # ── Step Functions reports ───────────────────────────────────────────────────────────────────────────────────

    def execution_changed(self, tx: Transaction, change: ExecutionFact) -> None:
        """Settle the file whose event started this execution, when the workflow did not do so itself."""
        # arn:aws:states:REGION:ACCOUNT:execution:MACHINE:NAME, or …:express:MACHINE:NAME:ID
        name = change.execution_arn.split(":")[7:8]
        event_id = _event_id(name[0][:36]) if name and len(name[0]) == EXECUTION_NAME_LENGTH else None
        if event_id is None:
            return
        row = tx.one("SELECT status FROM files_file WHERE event_id = ?", (event_id,))
        reopened = change.status == "RUNNING"
        if row is None or reopened != (row[0] == FAILED) or row[0] == TRANSFERRED:
            return  # The usual ways: it has just begun, or the workflow has said itself how it ended.
        records = Records(tx, self._pipelines)
        file = records.one("event_id = ?", event_id)
        if file is None or not self._is_current(file, name[0]):
            return
        if reopened:
            self.set_status(tx, file, UPLOADED, None, None)  # Step Functions' own redrive.
        elif change.status != "SUCCEEDED":
            self.set_status(tx, file, FAILED, None, _failure(change))
        elif (copied_at_ms := _copied_at_ms(records, file)) is not None:
            self.set_status(tx, file, TRANSFERRED, copied_at_ms, None)
        else:
            self.set_status(
                tx, file, FAILED, None,
                "The workflow ended without a delivery: it neither copied this file into another bucket nor set its status. "
                "Look at the execution's output, mend the state machine or its function, then redrive.",
            )  # fmt: skip

    def _is_current(self, file: FileRecord, execution_name: str) -> bool:
        """Whether an execution belongs to the file's newest attempt; it may report before its delivery is recorded."""
        if file.route is None or file.event_id is None:
            return True
        attempt = file.redrive_count + 1
        if file.attempt == attempt:
            return file.route.execution_name(file.event_id, attempt) == execution_name
        return execution_name not in (file.route.execution_name(file.event_id, past) for past in range(1, attempt))

    # ── shared ───────────────────────────────────────────────────────────────────────────────────────────────────

    def set_status(
        self, tx: Transaction, file: FileRecord, status: int, transferred_at_ms: int | None, error_message: str | None
    ) -> None:
        """Change a record and its item."""
        error_message = _bounded(error_message)
        tx.execute(
            "UPDATE files_file SET status = ?, transferred_at_ms = ?, error_message = ? WHERE sequence = ?",
            (status, transferred_at_ms, error_message, file.sequence),
        )
        item = file.metadata_item() | {
            "status": STATUSES[status],
            "transfer_timestamp": None if transferred_at_ms is None else clock.iso(transferred_at_ms),
            "error_message": error_message,
        }
        self._put_item(tx, file.pipeline, item)
        self._settlements.tell(tx, status, file.file_id, file.size_bytes, file.uploaded_at_ms)

    def note(self, tx: Transaction, sequence: int, at_ms: int, kind: str, facts: Mapping[str, Any]) -> None:
        """Keep something that seldom happens, for the timeline."""
        text = json.dumps(facts, ensure_ascii=False, separators=(",", ":"))
        tx.execute(
            "INSERT INTO files_note (sequence, at_ms, kind, facts) VALUES (?, ?, ?, ?)", (sequence, at_ms, kind, text)
        )

    def count_by_status(self, reader: Reader) -> dict[str, int]:
        """Return how many files have each status.

        All files are counted once after a start, by the smallest index; then only those that came since.
        """
        counts = dict.fromkeys(STATUSES, 0)
        rows = reader.all("SELECT status, count(*) FROM files_file WHERE status <> 2 GROUP BY status")
        counts |= {STATUSES[status]: count for status, count in rows}
        last, total = self._counted
        if last:
            newer = reader.one("SELECT count(*), max(sequence) FROM files_file WHERE sequence > ?", (last,))
        else:
            # Without a condition no row is read, only an index that is a fifth of the table.
            newer = reader.one("SELECT (SELECT count(*) FROM files_file), (SELECT max(sequence) FROM files_file)")
        if newer is not None and newer[0]:
            last, total = self._counted = (newer[1], total + newer[0])
        counts["transferred"] = total - sum(counts.values())
        return counts

    def oldest_undelivered_ms(self, reader: Reader) -> int | None:
        """Return when the oldest file arrived that is neither delivered nor failed; None when there is none."""
        rows = [
            reader.one(
                "SELECT uploaded_at_ms FROM files_file WHERE status <> 2 AND status = ? ORDER BY sequence LIMIT 1",
                (status,),
            )
            for status in (UPLOADED, TRANSFERRING)
        ]
        return min((row[0] for row in rows if row is not None), default=None)

    def _put_item(self, tx: Transaction, pipeline: Pipeline, item: dict[str, Any]) -> None:
        self._own_item = item["file_id"]
        try:
            self._put_metadata_item(tx, pipeline.metadata_table, item)
        except AwsError as error:
            # A table that somebody deleted must not keep files from arriving; the record has all of it.
            _log.error(
                "The item of file %s (%s) could not be written to table %s: %s: %s. The file's record is complete; "
                "create the table again.",
                item["file_id"], item["key"], pipeline.metadata_table, error.code, error.message,
            )  # fmt: skip
        finally:
            self._own_item = None

    def _pipeline_id(self, tx: Transaction, pipeline: Pipeline) -> int:
        known = self._pipeline_ids.get(pipeline)
        if known is not None:
            return known
        values = (pipeline.source_bucket, pipeline.destination_bucket, pipeline.metadata_table)
        tx.execute(
            "INSERT INTO files_pipeline (source_bucket, destination_bucket, metadata_table) VALUES (?, ?, ?) "
            "ON CONFLICT (source_bucket, destination_bucket, metadata_table) DO NOTHING",
            values,
        )
        row = tx.one(
            "SELECT pipeline_id FROM files_pipeline "
            "WHERE source_bucket = ? AND destination_bucket = ? AND metadata_table = ?",
            values,
        )
        assert row is not None
        number = int(row[0])

        def remember() -> None:
            self._pipeline_ids[pipeline] = number
            self._pipelines[number] = pipeline

        tx.after_commit(remember)
        return number

    def _route_id(self, tx: Transaction, route: Route) -> int:
        known = self._route_ids.get(route)
        if known is not None:
            return known
        tx.execute(
            "INSERT INTO files_route (rule_arn, target_id, target_arn, execution_prefix) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (rule_arn, target_id, target_arn) DO NOTHING",
            (route.rule_arn, route.target_id, route.target_arn, route.execution_prefix),
        )
        row = tx.one(
            "SELECT route_id FROM files_route WHERE rule_arn = ? AND target_id = ? AND target_arn = ?",
            (route.rule_arn, route.target_id, route.target_arn),
        )
        assert row is not None
        number = int(row[0])
        tx.after_commit(lambda: self._route_ids.__setitem__(route, number))
        return number


def _first_folder(key: str) -> str:
    folder, slash, _ = key.partition("/")
    return folder if slash else ""


def _bounded(text: str | None) -> str | None:
    return text if text is None or len(text) <= ERROR_LIMIT else text[: ERROR_LIMIT - 1] + "…"


def _string(item: Mapping[str, Any], name: str) -> str | None:
    """Return a string attribute of an item in DynamoDB's JSON; None when it is missing or no string."""
    value = item.get(name)
    if isinstance(value, Mapping):
        value = value.get("S")
    return value if isinstance(value, str) else None


def _timestamp_ms(text: str | None) -> int | None:
    """Return what a workflow wrote as ISO 8601 (without a zone: UTC) in milliseconds; None when it is none."""
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def _event_id(text: str) -> bytes | None:
    try:
        return UUID(text).bytes
    except ValueError:
        return None


def _route(delivery: DeliveryFact) -> Route:
    arn, prefix = delivery.execution_arn or "", ""
    if arn.split(":")[5:6] == ["execution"]:
        prefix = arn[: arn.rindex(":") + 1]
    return Route(delivery.rule_arn, delivery.target_id, delivery.target_arn, prefix)


def _failure(change: ExecutionFact) -> str:
    """Return one line about why an execution failed; a function's error is found inside the cause."""
    cause = change.cause or ""
    try:
        document = json.loads(cause)
    except (ValueError, RecursionError):
        document = None
    if isinstance(document, dict) and isinstance(document.get("errorMessage"), str):
        cause = document["errorMessage"]
    ended = {"TIMED_OUT": "The execution timed out", "ABORTED": "The execution was stopped"}.get(change.status, "")
    return ": ".join(part for part in (ended, change.error or "", cause) if part) or "The execution failed"


def _copied_at_ms(records: Records, file: FileRecord) -> int | None:
    """Return when this version, or a newer one of its key, was copied into another bucket."""
    if file.is_copied_out:
        return file.copied_at_ms
    newer = records.one(
        "key = ? AND sequence > ? AND copied_at_ms IS NOT NULL AND (copied_bucket IS NULL OR copied_bucket <> ?) "
        "ORDER BY sequence LIMIT 1",
        file.key,
        file.sequence,
        file.pipeline.source_bucket,
    )
    if newer is None or newer.pipeline.source_bucket != file.pipeline.source_bucket:
        return None
    return newer.copied_at_ms
