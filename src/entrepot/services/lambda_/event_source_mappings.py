"""Event source mappings: a queue or a stream whose records invoke a function, as rows, checked as AWS checks them.

Source: https://docs.aws.amazon.com/lambda/latest/dg/invocation-eventsourcemapping.html
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

from entrepot import arns, clock
from entrepot.database import Reader, Row, Transaction
from entrepot.services.lambda_.configuration import refuse
from entrepot.services.lambda_.errors import InvalidParameterValueError

BATCH_LIMIT = 10_000
FIFO_BATCH_LIMIT = 10
UNWINDOWED_BATCH_LIMIT = 10
"""Records of one batch: of a stream or a standard queue with a window; of a FIFO queue; of a queue without a window."""

WINDOW_LIMIT_S = 300
"""A batch is gathered for at most this long."""

FILTERS_LIMIT = 10
FILTER_LIMIT_LENGTH = 4_096
"""Filters of a mapping, and characters of each."""

CONCURRENCY_MINIMUM, CONCURRENCY_LIMIT = 2, 1_000
"""MaximumConcurrency of a queue."""

RETRY_LIMIT, AGE_MINIMUM_S, AGE_LIMIT_S = 10_000, 60, 604_800
"""MaximumRetryAttempts and MaximumRecordAgeInSeconds of a stream; -1 is without end."""

MAPPINGS_LIMIT = 1_000
"""Mappings of the account: each has a task of its own."""

NOT_YET = "No records processed"
"""LastProcessingResult before the first batch."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How records become invocations. -1 means without end; None means AWS's default."""

    batch_size: int = 10
    window_s: int = 0
    reports_item_failures: bool = False
    filters: tuple[str, ...] = ()
    maximum_concurrency: int | None = None
    starting_position: str = ""
    starting_at_ms: int = 0
    bisects: bool = False
    maximum_retry_attempts: int = -1
    maximum_record_age_s: int = -1
    on_failure_arn: str = ""


@dataclass(frozen=True, slots=True)
class EventSourceMapping:
    """A mapping of a source to a function, version or alias."""

    uuid: str
    function_name: str
    qualifier: str
    source_arn: str
    is_enabled: bool
    settings: Settings
    result: str = NOT_YET
    modified_at_ms: int = 0

    @property
    def kind(self) -> Literal["sqs", "dynamodb"]:
        """What the source is."""
        return "sqs" if arns.parse(self.source_arn).service == "sqs" else "dynamodb"


def check(mapping: EventSourceMapping) -> None:
    """Raise ValidationError or InvalidParameterValueError when AWS would refuse the mapping."""
    settings, is_queue = mapping.settings, mapping.kind == "sqs"
    limit = FIFO_BATCH_LIMIT if mapping.source_arn.endswith(".fifo") else BATCH_LIMIT
    if not 1 <= settings.batch_size <= BATCH_LIMIT:
        refuse(settings.batch_size, "batchSize", f"have value between 1 and {BATCH_LIMIT}")
    if settings.batch_size > limit:
        raise InvalidParameterValueError(f"Batch size cannot be greater than {limit} for FIFO queues.", Type="User")
    if not 0 <= settings.window_s <= WINDOW_LIMIT_S:
        refuse(settings.window_s, "maximumBatchingWindowInSeconds", f"have value between 0 and {WINDOW_LIMIT_S}")
    if mapping.source_arn.endswith(".fifo") and settings.window_s:
        raise InvalidParameterValueError("Batching window is not supported for FIFO queues.", Type="User")
    if is_queue and settings.batch_size > UNWINDOWED_BATCH_LIMIT and not settings.window_s:
        raise InvalidParameterValueError(
            "Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10",
            Type="User",
        )
    concurrency = settings.maximum_concurrency
    if concurrency is not None and not CONCURRENCY_MINIMUM <= concurrency <= CONCURRENCY_LIMIT:
        refuse(concurrency, "scalingConfig.maximumConcurrency",
               f"have value between {CONCURRENCY_MINIMUM} and {CONCURRENCY_LIMIT}")  # fmt: skip
    if not -1 <= settings.maximum_retry_attempts <= RETRY_LIMIT:
        refuse(settings.maximum_retry_attempts, "maximumRetryAttempts", f"have value between -1 and {RETRY_LIMIT}")
    age_s = settings.maximum_record_age_s
    if age_s != -1 and not AGE_MINIMUM_S <= age_s <= AGE_LIMIT_S:
        refuse(age_s, "maximumRecordAgeInSeconds", f"have value between {AGE_MINIMUM_S} and {AGE_LIMIT_S}, or -1")
    if len(settings.filters) > FILTERS_LIMIT:
        raise InvalidParameterValueError(f"A mapping has at most {FILTERS_LIMIT} filters.", Type="User")
    if any(len(text) > FILTER_LIMIT_LENGTH for text in settings.filters):
        refuse("…", "filterCriteria.filters.pattern", f"have length less than or equal to {FILTER_LIMIT_LENGTH}")


# ── rows ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

_COLUMNS = "uuid, name, qualifier, source_arn, state, document, result, modified_at_ms"


def _read(row: Row) -> EventSourceMapping:
    uuid, name, qualifier, source_arn, state, text, result, modified_at_ms = row
    document = json.loads(text)
    document["filters"] = tuple(document["filters"])
    settings = Settings(**document)
    return EventSourceMapping(
        uuid, name, qualifier, source_arn, state == "Enabled", settings, result or NOT_YET, modified_at_ms
    )


def find(reader: Reader, uuid: str) -> EventSourceMapping | None:
    """Return a mapping, or None."""
    row = reader.one(
        f"SELECT {_COLUMNS} FROM lambda_event_source_mapping WHERE uuid = ?",  # noqa: S608
        (uuid,),
    )
    return None if row is None else _read(row)


def listing(
    reader: Reader, *, name: str | None = None, source_arn: str | None = None, after: str = "", limit: int
) -> list[EventSourceMapping]:
    """Return mappings by uuid, of one function or of one source where that is given."""
    rows = reader.all(
        f"SELECT {_COLUMNS} FROM lambda_event_source_mapping "  # noqa: S608
        "WHERE uuid > ? AND (name = ? OR ? IS NULL) AND (source_arn = ? OR ? IS NULL) ORDER BY uuid LIMIT ?",
        (after, name, name, source_arn, source_arn, limit),
    )
    return [_read(row) for row in rows]


def put(tx: Transaction, mapping: EventSourceMapping) -> EventSourceMapping:
    """Write a mapping, new or changed; return it as stored."""
    mapping = replace(mapping, modified_at_ms=clock.now_ms())
    tx.execute(
        f"INSERT INTO lambda_event_source_mapping ({_COLUMNS}, tags) VALUES (?, ?, ?, ?, ?, ?, ?, ?, '{{}}') "  # noqa: S608
        "ON CONFLICT (uuid) DO UPDATE SET name = excluded.name, qualifier = excluded.qualifier, state = excluded.state, "
        "document = excluded.document, modified_at_ms = excluded.modified_at_ms",
        (
            mapping.uuid,
            mapping.function_name,
            mapping.qualifier,
            mapping.source_arn,
            "Enabled" if mapping.is_enabled else "Disabled",
            json.dumps(asdict(mapping.settings)),
            mapping.result,
            mapping.modified_at_ms,
        ),
    )
    return mapping


def delete(tx: Transaction, uuid: str) -> None:
    """Delete a mapping with its positions."""
    tx.execute("DELETE FROM lambda_event_source_mapping WHERE uuid = ?", (uuid,))
    tx.execute("DELETE FROM lambda_event_source_position WHERE uuid = ?", (uuid,))


def write_result(tx: Transaction, uuid: str, result: str) -> None:
    """Remember how the last batch went."""
    tx.execute("UPDATE lambda_event_source_mapping SET result = ? WHERE uuid = ?", (result, uuid))


def tags(reader: Reader, uuid: str) -> dict[str, str]:
    """Return the tags of a mapping."""
    row = reader.one("SELECT tags FROM lambda_event_source_mapping WHERE uuid = ?", (uuid,))
    found: dict[str, str] = json.loads(row[0]) if row else {}
    return found


def write_tags(tx: Transaction, uuid: str, tags: Mapping[str, str]) -> None:
    """Replace the tags of a mapping."""
    tx.execute("UPDATE lambda_event_source_mapping SET tags = ? WHERE uuid = ?", (json.dumps(dict(tags)), uuid))


# ── how far a stream is read ─────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Position:
    """Everything up to `sequence_number` ('' before the first record) is done; `is_finished`: the shard has ended."""

    sequence_number: str = ""
    is_finished: bool = False


def positions(reader: Reader, uuid: str) -> dict[str, Position]:
    """Return how far a mapping has read each shard."""
    rows = reader.all(
        "SELECT shard_id, sequence_number, is_finished FROM lambda_event_source_position WHERE uuid = ?", (uuid,)
    )
    return {shard_id: Position(sequence_number, bool(is_finished)) for shard_id, sequence_number, is_finished in rows}


def write_position(tx: Transaction, uuid: str, shard_id: str, position: Position) -> None:
    """Remember how far a shard is read; nothing when the mapping is gone."""
    tx.execute(
        "INSERT INTO lambda_event_source_position (uuid, shard_id, sequence_number, is_finished) "
        "SELECT uuid, ?, ?, ? FROM lambda_event_source_mapping WHERE uuid = ? "
        "ON CONFLICT (uuid, shard_id) DO UPDATE SET sequence_number = excluded.sequence_number, "
        "is_finished = excluded.is_finished",
        (shard_id, position.sequence_number, int(position.is_finished), uuid),
    )


def forget_shards(tx: Transaction, uuid: str, gone: Sequence[str]) -> None:
    """Drop the positions of shards that the stream no longer has."""
    for shard_id in gone:
        tx.execute("DELETE FROM lambda_event_source_position WHERE uuid = ? AND shard_id = ?", (uuid, shard_id))
