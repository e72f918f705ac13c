"""What files need from other rooms, and what these report: shapes and typed callables, passed in by the server."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from entrepot.database import Reader, Transaction

if TYPE_CHECKING:
    from entrepot.services.files.record import FileRecord


class SourceVersion(Protocol):
    """The version that a copy took its content from."""

    @property
    def bucket(self) -> str: ...
    @property
    def key(self) -> str: ...
    @property
    def sequencer(self) -> str: ...


class CreatedObject(Protocol):
    """A version that became visible, as S3 reports it. `sha256` is hex; `sequencer` hex, growing."""

    @property
    def bucket(self) -> str: ...
    @property
    def key(self) -> str: ...
    @property
    def size_bytes(self) -> int: ...
    @property
    def etag(self) -> str: ...
    @property
    def version_id(self) -> str | None: ...
    @property
    def sequencer(self) -> str: ...
    @property
    def sha256(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def created_at_ms(self) -> int: ...
    @property
    def copied_from(self) -> SourceVersion | None: ...


class DeletedObject(Protocol):
    """A version that was removed, as S3 reports it."""

    @property
    def bucket(self) -> str: ...
    @property
    def key(self) -> str: ...


class DeliveryFact(Protocol):
    """An event that reached a target, or did not (`error`). `attempt` is 1, and one more for each redrive."""

    @property
    def event_id(self) -> str: ...
    @property
    def rule_arn(self) -> str: ...
    @property
    def target_id(self) -> str: ...
    @property
    def target_arn(self) -> str: ...
    @property
    def attempt(self) -> int: ...
    @property
    def execution_arn(self) -> str | None: ...
    @property
    def error(self) -> str | None: ...


class ExecutionFact(Protocol):
    """An execution that began or ended. `status` is AWS's: RUNNING, SUCCEEDED, FAILED, TIMED_OUT, ABORTED."""

    @property
    def execution_arn(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def stopped_at_ms(self) -> int | None: ...
    @property
    def error(self) -> str | None: ...
    @property
    def cause(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class SessionFacts:
    """What the timeline tells of the SFTP session that sent a file."""

    user_name: str
    source_ip: str
    client: str
    key_fingerprint: str
    logged_in_at_ms: int


@dataclass(frozen=True, slots=True)
class LoggedLine:
    """A line of a log group that mentions a file."""

    at_ms: int
    log_group_name: str
    message: str


@dataclass(frozen=True, slots=True)
class Settled:
    """A file reached `status` (uploaded, transferred, failed); `duration_ms` is the time since its arrival."""

    status: str
    size_bytes: int
    duration_ms: int | None
    over_sftp: bool
    file_id: str


OnRecorded: TypeAlias = Callable[[Transaction, CreatedObject, str, str], None]
"""`on_recorded(tx, created, file_id, customer_id)`: in the transaction that records a file, after its row is there."""

OnSettled: TypeAlias = Callable[[Settled], None]
"""`on_settled(settled)`: called on the event loop, after the commit."""

PutMetadataItem: TypeAlias = Callable[[Transaction, str, dict[str, Any]], None]
"""`put_metadata_item(tx, table_name, attributes)`: set attributes (plain values, `file_id` is the key) of an item, creating
it where missing. None removes an attribute; attributes that are not named stay."""

DeleteMetadataItem: TypeAlias = Callable[[Transaction, str, str], None]
"""`delete_metadata_item(tx, table_name, file_id)`."""

Redeliver: TypeAlias = Callable[[Transaction, Mapping[str, Any], int], int]
"""`redeliver(tx, event, attempt)`: queue an event for every target of every rule that it matches now; return how many."""

FindSession: TypeAlias = Callable[[Reader, str], SessionFacts | None]
"""`find_session(reader, session_id)`."""

ExecutionHistory: TypeAlias = Callable[[str], Awaitable[Sequence[Mapping[str, Any]]]]
"""`execution_history(execution_arn)`: the `events` of Step Functions' GetExecutionHistory; empty when it is gone."""

LogLines: TypeAlias = Callable[
    ["FileRecord", Mapping[str, Sequence[Mapping[str, Any]]]], Awaitable[Sequence[LoggedLine]]
]
"""`log_lines(file, histories)`: the lines of this file, and of the executions (ARN → history) it started, oldest first."""
