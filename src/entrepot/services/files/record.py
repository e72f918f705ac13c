"""A file's record: the value, its row, and the names that derive from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from entrepot import ids
from entrepot.clock import iso
from entrepot.database import Reader, Row

STATUSES: Final = ("uploaded", "transferring", "transferred", "failed")
UPLOADED, TRANSFERRING, TRANSFERRED, FAILED = range(4)


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A source bucket, where its files are to go, and the DynamoDB table that accounts for them."""

    source_bucket: str
    destination_bucket: str
    metadata_table: str


@dataclass(frozen=True, slots=True)
class Route:
    """A target of a rule, as events went to it.

    `execution_prefix` is the executions' ARN without the name; empty where there is none that the name leads to.
    """

    rule_arn: str
    target_id: str
    target_arn: str
    execution_prefix: str

    def execution_name(self, event_id: str, attempt: int) -> str:
        """Return the name of the execution that this event started; docs/decisions/0001 says how it is made."""
        return f"{event_id}_{ids.derived(self.rule_arn, self.target_id, str(attempt))[:32]}"

    def execution_arn(self, event_id: str, attempt: int) -> str | None:
        """Return the ARN of that execution."""
        return self.execution_prefix + self.execution_name(event_id, attempt) if self.execution_prefix else None


@dataclass(frozen=True, slots=True)
class FileRecord:
    """One version of a key in a source bucket, and what became of it. `sha256` and `file_id` are hex.

    `attempt` and `delivered_at_ms` are of the newest delivery that started an execution (`route`).
    """

    sequence: int
    file_id: str
    pipeline: Pipeline
    key: str
    customer_id: str
    size_bytes: int
    sha256: str
    etag: str
    version_id: str | None
    reason: str
    status: int
    uploaded_at_ms: int
    transferred_at_ms: int | None
    error_message: str | None
    event_id: str | None
    user_name: str
    source_ip: str
    session_id: str | None
    request_id: str
    renamed_from: str | None
    redrive_count: int
    route: Route | None
    attempt: int | None
    delivered_at_ms: int | None
    copied_at_ms: int | None
    copied_sequence: int | None
    copied_bucket: str
    copied_key: str

    @property
    def execution_arn(self) -> str | None:
        """The newest execution that this file's event started."""
        if self.route is None or self.event_id is None or self.attempt is None:
            return None
        return self.route.execution_arn(self.event_id, self.attempt)

    @property
    def is_copied_out(self) -> bool:
        """Whether this version was copied into another bucket."""
        return self.copied_at_ms is not None and self.copied_bucket != self.pipeline.source_bucket

    def metadata_item(self) -> dict[str, Any]:
        """Return the attributes of the file's item in its metadata table (plain values, None: to be removed)."""
        return {
            "file_id": self.file_id,
            "source_bucket": self.pipeline.source_bucket,
            "destination_bucket": self.pipeline.destination_bucket,
            "key": self.key,
            "customer_id": self.customer_id,
            "upload_timestamp": iso(self.uploaded_at_ms),
            "status": STATUSES[self.status],
            "transfer_timestamp": None if self.transferred_at_ms is None else iso(self.transferred_at_ms),
            "error_message": self.error_message,
        }


COLUMNS: Final = (
    "sequence, file_id, pipeline_id, key, customer_id, size_bytes, sha256, etag, version_id, reason, status, "
    "uploaded_at_ms, transferred_at_ms, error_message, event_id, user_name, source_ip, session_id, request_id, "
    "renamed_from, redrive_count, route_id, attempt, delivered_at_ms, copied_at_ms, copied_sequence, copied_bucket, "
    "copied_key"
)


def sequence_of(sequencer: str) -> int:
    """Return the number in S3's sequencer."""
    return int(sequencer, 16)


def file_id_of(bucket: str, key: str, sequencer: str) -> str:
    """Return the file's id: a state machine computes the same (docs/decisions/0001)."""
    return ids.derived(bucket, key, sequencer)


def derived_etag(sha256: str) -> str:
    """Return the ETag that uploads over SFTP have, which need not be stored."""
    return f"{sha256[:32]}-1"


def pipelines(reader: Reader) -> dict[int, Pipeline]:
    """Return all pipelines that records name, by number."""
    rows = reader.all("SELECT pipeline_id, source_bucket, destination_bucket, metadata_table FROM files_pipeline")
    return {row[0]: Pipeline(*row[1:]) for row in rows}


def routes(reader: Reader) -> dict[int, Route]:
    """Return all routes that records name, by number."""
    rows = reader.all("SELECT route_id, rule_arn, target_id, target_arn, execution_prefix FROM files_route")
    return {row[0]: Route(*row[1:]) for row in rows}


class Records:
    """Turns rows into records; made for one transaction or read, so that it knows every pipeline and route."""

    def __init__(self, reader: Reader, known: Mapping[int, Pipeline] | None = None) -> None:
        """`known` are pipelines of earlier transactions: their rows never change."""
        self._reader = reader
        self._known = known or {}
        self._pipelines: dict[int, Pipeline] | None = None
        self._routes: dict[int, Route] | None = None

    def one(self, where: str, *parameters: Any) -> FileRecord | None:
        """Return the first record of `WHERE …` (the text is the caller's own, never input)."""
        row = self._reader.one(f"SELECT {COLUMNS} FROM files_file WHERE {where}", parameters)  # noqa: S608
        return None if row is None else self.of(row)

    def all(self, where: str, *parameters: Any) -> list[FileRecord]:
        """Return all records of `WHERE … LIMIT …`."""
        rows = self._reader.all(f"SELECT {COLUMNS} FROM files_file WHERE {where}", parameters)  # noqa: S608
        return [self.of(row) for row in rows]

    def of(self, row: Row) -> FileRecord:
        """Return the record of a row with COLUMNS."""
        pipeline, sha256 = self._known.get(row[2]) or self._pipeline(row[2]), row[6].hex()
        return FileRecord(
            row[0], row[1].hex(), pipeline, row[3], row[4], row[5], sha256, row[7] or derived_etag(sha256), row[8],
            row[9] or "PutObject", row[10], row[11], row[12], row[13], None if row[14] is None else str(UUID(bytes=row[14])),
            row[15], row[16], row[17], row[18], row[19], row[20], None if row[21] is None else self.route(row[21]),
            row[22], row[23], row[24], row[25], row[26] or pipeline.destination_bucket, row[27] or row[3],
        )  # fmt: skip

    def _pipeline(self, pipeline_id: int) -> Pipeline:
        if self._pipelines is None:
            self._pipelines = pipelines(self._reader)
        return self._pipelines[pipeline_id]

    def route(self, route_id: int) -> Route:
        """Return the route of a number."""
        if self._routes is None:
            self._routes = routes(self._reader)
        return self._routes[route_id]
