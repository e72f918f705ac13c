"""Executions as rows: one of the table `execution`, and the older part of a long history in `execution_history`.

Functions take the transaction or reader first. A running execution has its state and the newest events in its row; one that
ended has its whole history there, folded. `version` guards every update: who comes second must read again.
"""

import bisect
import functools
import hashlib
import zlib
from dataclasses import dataclass

from entrepot import arns, clock, faults, ids
from entrepot.arns import Account
from entrepot.database import Reader, Transaction, Value

from . import history, machines, state
from .errors import ExecutionDoesNotExist, InvalidArn
from .history import Event
from .language import StateMachine, parse
from .language.evaluation import Json
from .machines import Machine
from .state import ExecutionState, Frame
from .steps.places import adopt_older_maps

TAIL_LIMIT_BYTES = 16_384
"""Events of a running execution beyond this move to `execution_history`, so that no transition rewrites a long row."""

_SEPARATOR = b"\x1e"

ID_BITS = 20
"""An execution's id is its start in milliseconds times 2^20, plus a number: a million starts fit into one millisecond."""


class ConflictError(Exception):
    """Somebody else changed the execution since it was read."""


@functools.lru_cache(maxsize=128)
def parsed(definition: str) -> StateMachine:
    """Return the machine of a definition that was accepted."""
    return parse(definition)


@functools.lru_cache(maxsize=128)
def words(definition: str) -> bytes:
    """Return the dictionary for histories of a definition."""
    return history.dictionary(definition)


@dataclass(slots=True)
class Execution:
    """A row. Changed only between its reading and its writing, in one transaction."""

    id: int
    name: str
    arn: str
    machine: Machine
    status: str
    version: int
    stopped_at_ms: int | None
    redrive_count: int
    redriven_at_ms: int | None
    first_event: int
    state: ExecutionState | None
    tail: bytes
    due_at_ms: int | None = None

    @property
    def started_at_ms(self) -> int:
        """When it started (ms since the epoch)."""
        return self.id >> ID_BITS


@dataclass(frozen=True, slots=True)
class Summary:
    """What a list shows of an execution."""

    id: int
    name: str
    arn: str
    status: str
    stopped_at_ms: int | None
    redrive_count: int
    redriven_at_ms: int | None


def execution_arn(account: Account, machine: Machine, name: str, id_: int) -> str:
    """Return the ARN; one of an EXPRESS machine ends in a UUID, since its names need not be unique."""
    return _arn(account, machine.name, machine.type, name, id_)


def _arn(account: Account, machine_name: str, type_: str, name: str, id_: int) -> str:
    if type_ == "EXPRESS":
        return account.arn("states", f"express:{machine_name}:{name}:{ids.derived_uuid(str(id_))}")
    return account.arn("states", f"execution:{machine_name}:{name}")


def _digest(arn: str) -> bytes:
    return hashlib.sha256(arn.split(":", 5)[5].encode()).digest()[:12]


_COLUMNS = (
    "id, name, revision_id, status, version, stopped_at_ms, redrive_count, redriven_at_ms, first_event, state, history, "
    "due_at_ms"
)


def find(reader: Reader, account: Account, arn: str) -> Execution | None:
    """Return the execution of this ARN, or None."""
    row = reader.one(f"SELECT {_COLUMNS} FROM execution WHERE digest = ?", (_digest(arn),))  # noqa: S608
    return None if row is None else _execution(reader, account, row)


def get(reader: Reader, account: Account, arn: str) -> Execution:
    """Return the execution of this ARN. Raises InvalidArn, ExecutionDoesNotExist."""
    try:
        parsed_arn = arns.parse(arn)
    except ValueError:
        raise InvalidArn(f"Invalid Arn: '{arn}'") from None
    kind = parsed_arn.resource.partition(":")[0]
    if parsed_arn.service != "states" or kind not in ("execution", "express"):
        raise InvalidArn(f"Invalid Arn: 'Resource type not valid in this context: {kind}'")
    found = find(reader, account, arn)
    if found is None or found.arn != arn:
        raise ExecutionDoesNotExist(f"Execution Does Not Exist: '{arn}'")
    return found


def by_id(reader: Reader, account: Account, id_: int) -> Execution | None:
    """Return the execution of this row id, or None."""
    row = reader.one(f"SELECT {_COLUMNS} FROM execution WHERE id = ?", (id_,))  # noqa: S608
    return None if row is None else _execution(reader, account, row)


def _execution(reader: Reader, account: Account, row: tuple[Value, ...]) -> Execution:
    (id_, name, revision_id, status, version, stopped_at_ms, redrive_count, redriven_at_ms, first_event, content,
     tail, due_at_ms) = row  # fmt: skip
    assert isinstance(id_, int) and isinstance(name, str) and isinstance(revision_id, int)
    assert isinstance(status, str) and isinstance(version, int) and isinstance(first_event, int)
    assert isinstance(tail, bytes) and isinstance(stopped_at_ms, int | None) and isinstance(content, bytes | None)
    assert isinstance(redrive_count, int | None) and isinstance(redriven_at_ms, int | None)
    machine = machines.of_revision(reader, account, revision_id)
    execution = Execution(
        id_,
        name,
        execution_arn(account, machine, name, id_),
        machine,
        status,
        version,
        stopped_at_ms,
        redrive_count or 0,
        redriven_at_ms,
        first_event,
        None,
        tail,
        due_at_ms if isinstance(due_at_ms, int) else None,
    )
    if content is not None:
        kept, _, running_tail = _inflate(content, machine).partition(_SEPARATOR)
        execution.tail = tail or running_tail
        loaded = state.load(kept)
        execution.state = _state(execution, loaded.input, loaded.root)
        execution.state.last_event, execution.state.last_task_id = loaded.last_event, loaded.last_task_id
        if loaded.format == 1:
            adopt_older_maps(parsed(machine.definition), execution.state)
    return execution


def _state(execution: Execution, input_: Json, root: Frame) -> ExecutionState:
    machine = execution.machine
    return ExecutionState(
        execution.arn, execution.name, machine.role_arn, machine.arn, machine.name, execution.started_at_ms, input_, root,
        execution.status, redrive_count=execution.redrive_count, redriven_at_ms=execution.redriven_at_ms,
    )  # fmt: skip


def begin(account: Account, machine: Machine, id_: int, name: str, input_: Json) -> Execution:
    """Return a new execution that is in no table yet."""
    arn = execution_arn(account, machine, name, id_)
    execution = Execution(id_, name, arn, machine, "RUNNING", 0, None, 0, None, 1, None, b"")
    execution.state = _state(execution, input_, Frame(parsed(machine.definition).start_at, input_))
    return execution


def save(
    tx: Transaction, execution: Execution, after: ExecutionState, events: list[Event], due_at_ms: int | None
) -> None:
    """Write what became of an execution: its new state and `events`, which follow those it has.

    Raises ConflictError when somebody else wrote it since it was read.
    """
    if after.status != "RUNNING":
        if events or execution.tail:
            definition = words(execution.machine.definition)
            execution.tail = history.fold(execution.tail, events, definition, execution.first_event)
            if events:
                execution.stopped_at_ms = events[-1].at_ms
    elif events:
        execution.tail = history.append(execution.tail, events)
        if len(execution.tail) > TAIL_LIMIT_BYTES:
            folded = history.fold(execution.tail, (), words(execution.machine.definition), execution.first_event)
            _set_aside(tx, execution, folded, after.last_event + 1)
    execution.state = after
    execution.status = after.status
    execution.redrive_count, execution.redriven_at_ms = after.redrive_count, after.redriven_at_ms
    if execution.version == 0:
        _insert(tx, execution, due_at_ms)
    else:
        _update(tx, execution, due_at_ms)
    execution.version += 1
    execution.due_at_ms = due_at_ms


def _set_aside(tx: Transaction, execution: Execution, folded: bytes, next_event: int) -> None:
    tx.execute(
        "INSERT INTO execution_history (execution_id, first_event, events) VALUES (?, ?, ?)",
        (execution.id, execution.first_event, folded),
    )
    faults.reach("stepfunctions.after-history")
    execution.first_event, execution.tail = next_event, b""


def reopen(tx: Transaction, execution: Execution) -> None:
    """Make an execution that ended ready for more events: its folded history is set aside."""
    assert execution.state is not None
    _set_aside(tx, execution, execution.tail, execution.state.last_event + 1)
    execution.stopped_at_ms = None


def _kept(execution: Execution) -> tuple[bytes | None, bytes]:
    """Return the columns (state, history).

    State and tail of a running execution are deflated together: they share most of their text, and a row that is as large
    while it runs as when it has ended leaves no holes in the ledger. A succeeded execution needs no state, one that failed
    needs it for a redrive.
    """
    if execution.status == "SUCCEEDED" or execution.state is None:
        return None, execution.tail
    tail = execution.tail if execution.status == "RUNNING" else b""
    text = state.dump(execution.state) + _SEPARATOR + tail
    deflate = zlib.compressobj(1, zlib.DEFLATED, -15, zdict=words(execution.machine.definition))
    content = deflate.compress(text) + deflate.flush()
    return content, b"" if execution.status == "RUNNING" else execution.tail


def _inflate(content: bytes, machine: Machine) -> bytes:
    return zlib.decompressobj(-15, zdict=words(machine.definition)).decompress(content)


def _waits(execution: Execution) -> int | None:
    return 1 if execution.status == "RUNNING" and execution.state is not None and execution.state.only_waits() else None


def _insert(tx: Transaction, execution: Execution, due_at_ms: int | None) -> None:
    machine = execution.machine
    content, events = _kept(execution)
    tx.execute(
        "INSERT INTO execution (id, digest, name, state_machine_id, revision_id, status, version, stopped_at_ms, "
        "due_at_ms, first_event, state, history, waits) VALUES (?, ?, ?, ?, ?, ?, 1, ?, ?, ?, ?, ?, ?)",
        (execution.id, _digest(execution.arn), execution.name, machine.id, machine.revision_id, execution.status,
         execution.stopped_at_ms, due_at_ms, execution.first_event, content, events, _waits(execution)),
    )  # fmt: skip


def _update(tx: Transaction, execution: Execution, due_at_ms: int | None) -> None:
    content, events = _kept(execution)
    changed = tx.execute(
        "UPDATE execution SET status = ?, version = version + 1, stopped_at_ms = ?, due_at_ms = ?, redrive_count = ?, "
        "redriven_at_ms = ?, first_event = ?, state = ?, history = ?, waits = ? WHERE id = ? AND version = ?",
        (execution.status, execution.stopped_at_ms, due_at_ms, execution.redrive_count or None,
         execution.redriven_at_ms, execution.first_event, content, events, _waits(execution), execution.id,
         execution.version),
    )  # fmt: skip
    if changed != 1:
        raise ConflictError(execution.arn)


def last_id(reader: Reader) -> int:
    """Return the greatest id, 0 when there is none."""
    row = reader.one("SELECT id FROM execution ORDER BY id DESC LIMIT 1")
    return 0 if row is None else int(row[0])


def unfinished(reader: Reader, after: tuple[int, int], limit: int) -> list[tuple[int, int]]:
    """Return up to `limit` (state machine id, execution id) of executions after `after` that somebody has to take up.

    It reads past all those that only wait: do it in a scan.
    """
    rows = reader.all(
        "SELECT state_machine_id, id FROM execution WHERE status = 'RUNNING' AND status <> 'SUCCEEDED' "
        "AND waits IS NULL AND (state_machine_id, id) > (?, ?) ORDER BY state_machine_id, id LIMIT ?",
        (*after, limit),
    )
    return [(machine_id, id_) for machine_id, id_ in rows]


def due(reader: Reader, limit: int) -> list[tuple[int, int]]:
    """Return the first `limit` (execution id, due at, ms), earliest first."""
    rows = reader.all(
        "SELECT id, due_at_ms FROM execution WHERE due_at_ms IS NOT NULL ORDER BY due_at_ms LIMIT ?", (limit,)
    )
    return [(id_, due_at_ms) for id_, due_at_ms in rows]


def page(
    reader: Reader, account: Account, machine: Machine, status: str | None, before: int, limit: int
) -> list[Summary]:
    """Return up to `limit` executions of a machine with ids below `before`, newest first."""
    wanted, parameters = "", [machine.id, before, limit]
    if status is not None:
        wanted = "AND status = ? " if status == "SUCCEEDED" else "AND status = ? AND status <> 'SUCCEEDED' "
        parameters.insert(1, status)  # type: ignore[arg-type]
    rows = reader.all(
        "SELECT id, name, status, stopped_at_ms, redrive_count, redriven_at_ms FROM execution "  # noqa: S608
        f"WHERE state_machine_id = ? {wanted}AND id < ? ORDER BY id DESC LIMIT ?",
        parameters,
    )
    return [
        Summary(
            id_,
            name,
            _arn(account, machine.name, machine.type, name, id_),
            status_,
            stopped_at_ms,
            redrives or 0,
            redriven,
        )
        for id_, name, status_, stopped_at_ms, redrives, redriven in rows
    ]


def events(reader: Reader, execution: Execution, first: int = 1, count: int | None = None) -> list[Event]:
    """Return the events from number `first` on, `count` of them if there are as many."""
    found: list[Event] = []
    for start in [*_parts(reader, execution, first), execution.first_event]:
        found += [event for event in _part(reader, execution, start) if event.id >= first]
        if count is not None and len(found) >= count:
            return found[:count]
    return found


def events_before(reader: Reader, execution: Execution, before: int, count: int) -> list[Event]:
    """Return up to `count` events before number `before`, the last one first."""
    found: list[Event] = []
    for start in [execution.first_event, *reversed(_parts(reader, execution, 1))]:
        if start < before and len(found) < count:
            found += [event for event in reversed(_part(reader, execution, start)) if event.id < before]
    return found[:count]


def _parts(reader: Reader, execution: Execution, first: int) -> list[int]:
    """Return the first events of the parts of a long history that were set aside, from the one with event `first` on."""
    if first >= execution.first_event:
        return []
    rows = reader.all(
        "SELECT first_event FROM execution_history WHERE execution_id = ? ORDER BY first_event", (execution.id,)
    )
    starts = [int(row[0]) for row in rows]
    return starts[max(0, bisect.bisect_right(starts, first) - 1) :]


def _part(reader: Reader, execution: Execution, start: int) -> list[Event]:
    if start == execution.first_event:
        content = execution.tail
    else:
        row = reader.one(
            "SELECT events FROM execution_history WHERE execution_id = ? AND first_event = ?", (execution.id, start)
        )
        content = b"" if row is None else row[0]
    return history.read(content, words(execution.machine.definition), start)


def new_id(previous: int) -> int:
    """Return an id for an execution that starts now, greater than `previous`."""
    return max(previous + 1, clock.now_ms() << ID_BITS)
