"""Map runs as rows: the run, what was asked of it, how many children are in which status, and every child.

A child is a row before it is an execution: it is inserted with its input when its items were read, and begins in the very
transaction that notes its execution. Functions take the transaction or reader first.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from entrepot import clock
from entrepot.arns import Account
from entrepot.database import Reader, Transaction
from entrepot.services.stepfunctions.language.evaluation import Json


class Stage(IntEnum):
    """What there is to do for a map run. The numbers are stored."""

    OPEN = 0
    """Items are read and children run."""
    STOPPING = 1
    """It failed or was aborted: children that still run are to be stopped."""
    WRITING = 2
    """All children have ended: the results are to be collected, the state is to go on."""
    DONE = 3


class ChildStatus(IntEnum):
    """Where a child stands. The numbers are stored."""

    PENDING = 0
    RUNNING = 1
    SUCCEEDED = 2
    FAILED = 3
    TIMED_OUT = 4
    ABORTED = 5


ENDED = {
    "SUCCEEDED": ChildStatus.SUCCEEDED,
    "FAILED": ChildStatus.FAILED,
    "TIMED_OUT": ChildStatus.TIMED_OUT,
    "ABORTED": ChildStatus.ABORTED,
}
"""The status of a child by that of its execution."""

UNSUCCESSFUL = (ChildStatus.FAILED, ChildStatus.TIMED_OUT, ChildStatus.ABORTED)


@dataclass(frozen=True, slots=True)
class MapRun:
    """A row of `map_run`."""

    id: int
    arn: str
    execution_id: int
    task_id: int
    revision_id: int
    """Of the machine that the children run."""
    status: str
    stage: Stage
    reading: bool
    """Whether there may be items that no child has yet."""
    next_item: int
    """The index of the first item that no child has yet."""
    next_child: int
    position: Json
    """Where the reader goes on."""
    max_concurrency: int
    tolerated_count: int | None
    tolerated_percentage: float | None
    error: str | None
    cause: str | None
    redrive_count: int
    redriven_at_ms: int | None
    started_at_ms: int
    stopped_at_ms: int | None


@dataclass(frozen=True, slots=True)
class Counts:
    """How many children, and items in them, are in each status."""

    children: Mapping[ChildStatus, int]
    items: Mapping[ChildStatus, int]

    @property
    def failed_items(self) -> int:
        """Items of children that ended without success."""
        return sum(self.items[status] for status in UNSUCCESSFUL)

    @property
    def all_items(self) -> int:
        """Items of all children that are known yet."""
        return sum(self.items.values())


@dataclass(frozen=True, slots=True)
class Child:
    """A row of `map_run_child`."""

    number: int
    status: ChildStatus
    items: int
    execution_id: int | None
    content: str | None
    """Its input until it begins; its output when it succeeded and the state's result needs it."""


_COLUMNS = (
    "id, arn, execution_id, task_id, revision_id, status, stage, reading, next_item, next_child, position, max_concurrency, "
    "tolerated_count, tolerated_percentage, error, cause, redrive_count, redriven_at_ms, started_at_ms, stopped_at_ms"
)


def _map_run(account: Account, row: tuple[Any, ...]) -> MapRun:
    (
        id_,
        resource,
        execution_id,
        task_id,
        revision_id,
        status,
        stage,
        reading,
        next_item,
        next_child,
        position,
        *more,
    ) = row
    return MapRun(
        id_, account.arn("states", resource), execution_id, task_id, revision_id, status, Stage(stage), bool(reading),
        next_item, next_child, json.loads(position), *more,
    )  # fmt: skip


def insert(
    tx: Transaction,
    arn: str,
    execution_id: int,
    task_id: int,
    revision_id: int,
    max_concurrency: int,
    tolerated: tuple[int | None, float | None],
    request: Json,
) -> int:
    """Insert a map run that has no children yet; return its id. `request` is what it needs to know beside its columns."""
    row = tx.one("SELECT id FROM map_run ORDER BY id DESC LIMIT 1")
    id_ = 1 if row is None else int(row[0]) + 1
    tx.execute(
        "INSERT INTO map_run (id, arn, execution_id, task_id, revision_id, status, stage, reading, next_item, next_child, "
        "position, max_concurrency, tolerated_count, tolerated_percentage, redrive_count, started_at_ms) "
        "VALUES (?, ?, ?, ?, ?, 'RUNNING', 0, 1, 0, 0, 'null', ?, ?, ?, 0, ?)",
        (id_, _resource(arn), execution_id, task_id, revision_id, max_concurrency, *tolerated, clock.now_ms()),
    )
    text = json.dumps(request, ensure_ascii=False, separators=(",", ":"))
    tx.execute("INSERT INTO map_run_request (map_run_id, request) VALUES (?, ?)", (id_, text))
    for status in ChildStatus:
        tx.execute(
            "INSERT INTO map_run_count (map_run_id, status, children, items) VALUES (?, ?, 0, 0)", (id_, int(status))
        )
    return id_


def _resource(arn: str) -> str:
    return arn.split(":", 5)[5]


def by_id(reader: Reader, account: Account, id_: int) -> MapRun | None:
    """Return a map run, or None."""
    row = reader.one(f"SELECT {_COLUMNS} FROM map_run WHERE id = ?", (id_,))  # noqa: S608
    return None if row is None else _map_run(account, row)


def by_arn(reader: Reader, account: Account, arn: str) -> MapRun | None:
    """Return the map run of an ARN, or None."""
    if arn.count(":") < 7 or account.arn("states", _resource(arn)) != arn:
        return None
    row = reader.one(f"SELECT {_COLUMNS} FROM map_run WHERE arn = ?", (_resource(arn),))  # noqa: S608
    return None if row is None else _map_run(account, row)


def by_task(reader: Reader, account: Account, execution_id: int, task_id: int) -> MapRun | None:
    """Return the map run that a task of an execution waits for, or None."""
    row = reader.one(
        f"SELECT {_COLUMNS} FROM map_run WHERE execution_id = ? AND task_id = ?",  # noqa: S608
        (execution_id, task_id),
    )
    return None if row is None else _map_run(account, row)


def of_execution(reader: Reader, account: Account, execution_id: int, before: int, limit: int) -> list[MapRun]:
    """Return up to `limit` map runs of an execution with ids below `before`, newest first."""
    rows = reader.all(
        f"SELECT {_COLUMNS} FROM map_run WHERE execution_id = ? AND id < ? ORDER BY id DESC LIMIT ?",  # noqa: S608
        (execution_id, before, limit),
    )
    return [_map_run(account, row) for row in rows]


def unfinished(reader: Reader, after: int, limit: int) -> list[int]:
    """Return the ids of up to `limit` map runs after `after` for which there is something to do."""
    rows = reader.all("SELECT id FROM map_run WHERE stage < 3 AND id > ? ORDER BY id LIMIT ?", (after, limit))
    return [row[0] for row in rows]


def request(reader: Reader, id_: int) -> Json:
    """Return what `insert` was given as request."""
    row = reader.one("SELECT request FROM map_run_request WHERE map_run_id = ?", (id_,))
    assert row is not None, id_
    return json.loads(row[0])


def counts(reader: Reader, id_: int) -> Counts:
    """Return how many children are in which status."""
    rows = reader.all("SELECT status, children, items FROM map_run_count WHERE map_run_id = ?", (id_,))
    return Counts({ChildStatus(row[0]): row[1] for row in rows}, {ChildStatus(row[0]): row[2] for row in rows})


def _count(tx: Transaction, id_: int, status: ChildStatus, children: int, items: int) -> None:
    tx.execute(
        "UPDATE map_run_count SET children = children + ?, items = items + ? WHERE map_run_id = ? AND status = ?",
        (children, items, id_, int(status)),
    )


def add_children(
    tx: Transaction, run: MapRun, inputs: Sequence[tuple[str, int]], next_item: int, position: Json, *, reading: bool
) -> None:
    """Insert pending children, (input, number of items) each, and note how far the items are read."""
    for number, (text, items) in enumerate(inputs, run.next_child):
        tx.execute(
            "INSERT INTO map_run_child (map_run_id, number, status, items, content) VALUES (?, ?, 0, ?, ?)",
            (run.id, number, items, text),
        )
    _count(tx, run.id, ChildStatus.PENDING, len(inputs), sum(items for _, items in inputs))
    tx.execute(
        "UPDATE map_run SET next_item = ?, next_child = ?, position = ?, reading = ? WHERE id = ?",
        (next_item, run.next_child + len(inputs), json.dumps(position), int(reading), run.id),
    )


def executions_of(reader: Reader, id_: int, status: ChildStatus | None, before: int, limit: int) -> list[Child]:
    """Return up to `limit` children that are executions with ids below `before`, newest first, of one status or all."""
    wanted, parameters = "", [id_, before, limit]
    if status is not None:
        wanted = "AND status = ? "
        parameters.insert(1, int(status))
    rows = reader.all(
        "SELECT number, status, items, execution_id FROM map_run_child WHERE map_run_id = ? "  # noqa: S608
        f"AND execution_id IS NOT NULL {wanted}AND execution_id < ? ORDER BY execution_id DESC LIMIT ?",
        parameters,
    )
    return [Child(number, ChildStatus(status_), items, execution, None) for number, status_, items, execution in rows]


def children(
    reader: Reader, id_: int, status: ChildStatus | None, after: int, limit: int, *, content: bool = True
) -> list[Child]:
    """Return up to `limit` children after number `after`, of one status or all."""
    wanted, parameters = "", [id_, after, limit]
    if status is not None:
        wanted = "AND status = ? " + ("" if status is ChildStatus.SUCCEEDED else "AND status <> 2 ")
        parameters.insert(1, int(status))
    rows = reader.all(
        f"SELECT number, status, items, execution_id, {'content' if content else 'NULL'} FROM map_run_child "  # noqa: S608
        f"WHERE map_run_id = ? {wanted}AND number > ? ORDER BY number LIMIT ?",
        parameters,
    )
    return [
        Child(number, ChildStatus(status_), items, execution, text) for number, status_, items, execution, text in rows
    ]


def child_began(tx: Transaction, id_: int, child: Child, execution_id: int) -> None:
    """Note that a child is this execution now; to be called before it runs."""
    tx.execute(
        "UPDATE map_run_child SET status = 1, execution_id = ?, content = NULL WHERE map_run_id = ? AND number = ?",
        (execution_id, id_, child.number),
    )
    _count(tx, id_, child.status, -1, -child.items)
    _count(tx, id_, ChildStatus.RUNNING, 1, child.items)


def child_of(reader: Reader, execution_id: int) -> tuple[int, Child] | None:
    """Return (map run's id, child) of an execution, or None when it is no child."""
    row = reader.one(
        "SELECT map_run_id, number, status, items FROM map_run_child "
        "WHERE execution_id = ? AND execution_id IS NOT NULL",
        (execution_id,),
    )
    return None if row is None else (row[0], Child(row[1], ChildStatus(row[2]), row[3], execution_id, None))


def child_ended(tx: Transaction, id_: int, child: Child, status: ChildStatus, output: str | None) -> None:
    """Note that a running child ended; `output` is kept for the state's result."""
    tx.execute(
        "UPDATE map_run_child SET status = ?, content = ? WHERE map_run_id = ? AND number = ?",
        (int(status), output, id_, child.number),
    )
    _count(tx, id_, child.status, -1, -child.items)
    _count(tx, id_, status, 1, child.items)


def set_stage(tx: Transaction, id_: int, stage: Stage, error: str | None = None, cause: str | None = None) -> None:
    """Move a map run on."""
    tx.execute("UPDATE map_run SET stage = ?, error = ?, cause = ? WHERE id = ?", (int(stage), error, cause, id_))


def end(tx: Transaction, id_: int, status: str, stage: Stage) -> None:
    """End a map run under one of AWS's statuses."""
    tx.execute(
        "UPDATE map_run SET status = ?, stage = ?, stopped_at_ms = ? WHERE id = ?",
        (status, int(stage), clock.now_ms(), id_),
    )


def reopen(tx: Transaction, id_: int) -> None:
    """Make a map run that ended without success run on, from the children that did not succeed."""
    tx.execute(
        "UPDATE map_run SET status = 'RUNNING', stage = 0, error = NULL, cause = NULL, stopped_at_ms = NULL, "
        "redrive_count = redrive_count + 1, redriven_at_ms = ? WHERE id = ?",
        (clock.now_ms(), id_),
    )
    known = counts(tx, id_)
    for status in UNSUCCESSFUL:
        tx.execute(
            "UPDATE map_run_child SET status = 0 WHERE map_run_id = ? AND status = ? AND status <> 2",
            (id_, int(status)),
        )
        _count(tx, id_, ChildStatus.PENDING, known.children[status], known.items[status])
        _count(tx, id_, status, -known.children[status], -known.items[status])


def update(
    tx: Transaction,
    id_: int,
    max_concurrency: int | None,
    tolerated_count: int | None,
    tolerated_percentage: float | None,
) -> None:
    """Change what is given (UpdateMapRun)."""
    tx.execute(
        "UPDATE map_run SET max_concurrency = COALESCE(?, max_concurrency), tolerated_count = COALESCE(?, tolerated_count), "
        "tolerated_percentage = COALESCE(?, tolerated_percentage) WHERE id = ?",
        (max_concurrency, tolerated_count, tolerated_percentage, id_),
    )
