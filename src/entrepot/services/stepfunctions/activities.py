"""Activities: tasks that workers ask for. Their rows, and who waits for a task of theirs.

A task that waits for a worker is a row of `activity_task`, written in the transaction of its ActivityScheduled event and
gone in that of ActivityStarted. What waits here is only woken by this process's own writes; a poll also looks by itself now
and then. Source: https://docs.aws.amazon.com/step-functions/latest/dg/concepts-activities.html
"""

import asyncio
import functools
import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from entrepot import arns, clock
from entrepot.arns import Account
from entrepot.database import Reader, Transaction

from . import machines
from .errors import (
    ActivityDoesNotExist,
    ActivityLimitExceeded,
    ActivityWorkerLimitExceeded,
    InvalidArn,
    TooManyTags,
)
from .executions import parsed
from .language.definition import Integration
from .state import ExecutionState, Frame, Phase

ACTIVITY_LIMIT = 10_000
"""Activities of an account. Source: Step Functions' service quotas."""

WORKER_LIMIT = 1_000
"""Polls that wait for tasks of one activity at once. Source: Step Functions' service quotas."""

POLL_LIMIT_S = 60.0
"""How long GetActivityTask waits. Source: GetActivityTask."""

LOOK_AGAIN_S = 10.0
"""A waiting poll looks into the ledger after this time even if nobody woke it."""

STALE_LIMIT = 100
"""Tasks that a poll drops at most in one transaction because nobody waits for them any more."""


@dataclass(frozen=True, slots=True)
class Activity:
    """A kind of work that workers do."""

    id: int
    name: str
    arn: str
    created_at_ms: int
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Waiting:
    """A task that no worker has taken yet."""

    number: int
    execution_id: int
    task_id: int


def is_activity(arn: str) -> bool:
    """Whether an ARN is that of an activity."""
    return ":states:" in arn and ":activity:" in arn


def _name_in_arn(arn: str) -> str:
    try:
        parsed = arns.parse(arn)
    except ValueError:
        raise InvalidArn(f"Invalid Arn: '{arn}'") from None
    kind, _, name = parsed.resource.partition(":")
    if parsed.service != "states" or kind != "activity" or not name:
        raise InvalidArn(f"Invalid Arn: 'Resource type not valid in this context: {kind}'")
    return name


def _activity(account: Account, row: tuple[Any, ...]) -> Activity:
    id_, name, created_at_ms, tags = row
    return Activity(id_, name, account.arn("states", f"activity:{name}"), created_at_ms, json.loads(tags))


_COLUMNS = "id, name, created_at_ms, tags"


def find(reader: Reader, account: Account, arn: str) -> Activity | None:
    """Return the activity of this ARN, or None. Raises InvalidArn."""
    name = _name_in_arn(arn)
    row = reader.one(f"SELECT {_COLUMNS} FROM activity WHERE name = ?", (name,))  # noqa: S608
    found = None if row is None else _activity(account, row)
    return found if found is not None and found.arn == arn else None


def get(reader: Reader, account: Account, arn: str) -> Activity:
    """Return the activity of this ARN. Raises InvalidArn, ActivityDoesNotExist."""
    found = find(reader, account, arn)
    if found is None:
        raise ActivityDoesNotExist(f"Activity Does Not Exist: '{arn}'")
    return found


def page(reader: Reader, account: Account, after: str, limit: int) -> list[Activity]:
    """Return up to `limit` activities whose names come after `after`."""
    rows = reader.all(
        f"SELECT {_COLUMNS} FROM activity WHERE name > ? ORDER BY name LIMIT ?",  # noqa: S608
        (after, limit),
    )
    return [_activity(account, row) for row in rows]


def create(tx: Transaction, account: Account, name: str, tags: Mapping[str, str]) -> Activity:
    """Create an activity, or return the one of this name. Raises InvalidName, TooManyTags, ActivityLimitExceeded."""
    machines.check_name(name)
    if len(tags) > machines.TAG_LIMIT:
        raise TooManyTags(f"An activity can have {machines.TAG_LIMIT} tags.")
    arn = account.arn("states", f"activity:{name}")
    found = find(tx, account, arn)
    if found is not None:
        return found
    row = tx.one("SELECT COUNT(*) FROM activity")
    if row is not None and row[0] >= ACTIVITY_LIMIT:
        raise ActivityLimitExceeded(f"There are {ACTIVITY_LIMIT} activities already.")
    tx.execute(
        "INSERT INTO activity (name, created_at_ms, tags) VALUES (?, ?, ?)",
        (name, clock.now_ms(), json.dumps(dict(tags))),
    )
    return get(tx, account, arn)


def delete(tx: Transaction, account: Account, arn: str) -> None:
    """Delete an activity; one that is not there is no error. Tasks of it wait until they time out. Raises InvalidArn."""
    activity = find(tx, account, arn)
    if activity is not None:
        tx.execute("DELETE FROM activity WHERE id = ?", (activity.id,))
        tx.execute("DELETE FROM activity_task WHERE activity_id = ?", (activity.id,))


def set_tags(tx: Transaction, activity: Activity, tags: Mapping[str, str]) -> None:
    """Replace the tags. Raises TooManyTags."""
    if len(tags) > machines.TAG_LIMIT:
        raise TooManyTags(f"An activity can have {machines.TAG_LIMIT} tags.")
    tx.execute("UPDATE activity SET tags = ? WHERE id = ?", (json.dumps(dict(tags)), activity.id))


@functools.lru_cache(maxsize=256)
def used_by(definition: str) -> bool:
    """Whether a definition that was accepted has tasks of activities."""
    return any(task.resource.integration is Integration.ACTIVITY for task in parsed(definition).tasks())


# ── tasks ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def waiting(reader: Reader, activity: Activity, limit: int = STALE_LIMIT) -> list[Waiting]:
    """Return the first tasks that wait for a worker, in the order in which they were scheduled."""
    rows = reader.all(
        "SELECT number, execution_id, task_id FROM activity_task WHERE activity_id = ? ORDER BY number LIMIT ?",
        (activity.id, limit),
    )
    return [Waiting(number, execution_id, task_id) for number, execution_id, task_id in rows]


def remove(tx: Transaction, task: Waiting) -> None:
    """Forget a task: a worker has it, or nobody waits for it any more."""
    tx.execute("DELETE FROM activity_task WHERE number = ?", (task.number,))


def forget_execution(tx: Transaction, execution_id: int) -> None:
    """Forget the tasks of an execution that has ended."""
    tx.execute("DELETE FROM activity_task WHERE execution_id = ?", (execution_id,))


class Polls:
    """Who waits for tasks of which activity. For the event loop's thread."""

    def __init__(self) -> None:
        self._polls: dict[int, deque[asyncio.Future[None]]] = {}
        self._stopped = False

    def schedule(self, tx: Transaction, account: Account, arn: str, execution_id: int, task_id: int) -> None:
        """Let a task wait for a worker. Raises InvalidArn, ActivityDoesNotExist."""
        activity = get(tx, account, arn)
        tx.execute(
            "INSERT INTO activity_task (activity_id, execution_id, task_id) VALUES (?, ?, ?)",
            (activity.id, execution_id, task_id),
        )
        tx.after_commit(lambda: self._wake_one(activity.id))

    def _wake_one(self, activity_id: int) -> None:
        polls = self._polls.get(activity_id, deque())
        while polls:
            # The newest: a worker that lost patience and asked again has left its older polls behind, which nobody reads.
            poll = polls.pop()
            if not poll.done():
                poll.set_result(None)
                return

    def begin(self, activity: Activity) -> "asyncio.Future[None]":
        """Return what is done when there may be a task. Raises ActivityWorkerLimitExceeded."""
        polls = self._polls.setdefault(activity.id, deque())
        if len(polls) >= WORKER_LIMIT:
            raise ActivityWorkerLimitExceeded(f"{WORKER_LIMIT} workers wait for tasks of '{activity.arn}' already.")
        poll: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        polls.append(poll)
        if self._stopped:
            poll.cancel()
        return poll

    def end(self, activity: Activity, poll: "asyncio.Future[None]") -> None:
        """A poll does not wait any more."""
        polls = self._polls.get(activity.id, deque())
        if poll in polls:
            polls.remove(poll)
        if not polls:
            self._polls.pop(activity.id, None)

    @property
    def stopped(self) -> bool:
        """Whether polls end at once: the stack stops."""
        return self._stopped

    def start(self) -> None:
        """Let polls wait."""
        self._stopped = False

    def stop(self) -> None:
        """End all polls."""
        self._stopped = True
        for polls in list(self._polls.values()):
            for poll in list(polls):
                if not poll.done():
                    poll.set_result(None)


def awaiting_frame(state: ExecutionState, task_id: int) -> Frame | None:
    """Return the frame of a task that waits for a worker, or None when it does not wait any more."""
    for frame in state.frames():
        if frame.task_id == task_id and frame.phase is Phase.AWAIT:
            return frame
    return None
