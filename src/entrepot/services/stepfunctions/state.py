"""Where an execution stands: a tree of frames that serialises to a little JSON.

A frame is one running workflow: the machine itself, a branch of a Parallel, an iteration of a Map. It stands at one state.
Counters, variables and due times live here, never in definitions. Values are shared with the history and never changed.
A large Map costs what runs of it: iterations that have not begun are items, those that are done are outputs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from .language.evaluation import Json
from .stored_json import pack, unpack


class Phase(IntEnum):
    """What a frame does at its state. The numbers are stored."""

    READY = 0
    """About to enter the state."""
    AGAIN = 1
    """About to run the state once more (Retry, redrive): it was entered already."""
    TASK = 2
    """Waits for the outcome of task `task_id`."""
    WAIT = 3
    """A Wait state, until `due_at_ms`."""
    RETRY = 4
    """Waits for its next attempt, until `due_at_ms`."""
    CHILDREN = 5
    """Waits for its branches or iterations."""
    FAILED = 6
    """The state failed and nothing caught it."""
    ABORTED = 7
    """Stopped because something else failed or the execution was stopped."""
    PENDING = 8
    """An iteration that has not begun, as older code stored it."""
    DONE = 9
    """The frame's workflow ended; `input` is its output."""
    AWAIT = 10
    """The call of task `task_id` was made; waits for its token or its nested execution."""
    MAP_RUN = 11
    """A distributed Map: waits for the map run of `task_id`, whose ARN is `token`."""


@dataclass(slots=True)
class Frame:
    """One running workflow. Changed only inside one `step`, on its own copy."""

    state: str
    input: Json
    phase: Phase = Phase.READY
    variables: Mapping[str, Json] = field(default_factory=dict)
    last_event: int = 0
    entered_event: int = 0
    entered_at_ms: int = 0
    attempts: tuple[int, ...] = ()
    """Retries made, per entry of the state's Retry."""
    task_id: int = 0
    due_at_ms: int | None = None
    heartbeat: bool = False
    """`due_at_ms` of a task is its heartbeat's, not its time-out's."""
    children: "list[Frame]" = field(default_factory=list)
    """All branches of a Parallel; of a Map the iterations that have begun and are not done."""
    concurrency: int = 0
    """How many iterations may run at once; 0 means all."""
    item: Json = None
    """The item of an iteration, as `$$.Map.Item.Value`."""
    token: str = ""
    """The token of the task that waits for one; of a distributed Map the ARN of its map run, also when it has failed."""
    timeout_at_ms: int | None = None
    """When a task with heartbeats times out in any case; `due_at_ms` is what comes first."""
    heartbeat_s: int = 0
    """The longest time between two heartbeats; 0 means none are asked for."""
    parent: tuple[int, int, int] | None = None
    """Of a root: the execution and its task that wait for this one's end (`.sync`), and how many wait in a row."""
    index: int = 0
    """Which branch or iteration this is."""
    items: list[Json] | None = None
    """What a Map iterates over."""
    begun: int = 0
    """How many iterations have begun: those with an index below it."""
    outputs: dict[int, Json] = field(default_factory=dict)
    """The output of each iteration that is done."""

    def copy(self) -> "Frame":
        """Return a copy of the tree; the JSON values are shared."""
        return Frame(
            self.state, self.input, self.phase, self.variables, self.last_event, self.entered_event, self.entered_at_ms,
            self.attempts, self.task_id, self.due_at_ms, self.heartbeat, [child.copy() for child in self.children],
            self.concurrency, self.item, self.token, self.timeout_at_ms, self.heartbeat_s, self.parent, self.index,
            self.items, self.begun, self.outputs.copy(),
        )  # fmt: skip

    def forget_children(self) -> None:
        """Let go of branches or iterations."""
        self.children, self.items, self.begun, self.outputs = [], None, 0, {}

    def adopt_older_iterations(self) -> None:
        """Take what older code stored of a Map, a child for every item, as it is kept now."""
        self.items = [child.item for child in self.children]
        pending = (child.phase is Phase.PENDING for child in self.children)
        self.begun = next((index for index, is_pending in enumerate(pending) if is_pending), len(self.items))
        for index, child in enumerate(self.children):
            child.index = index
        self.outputs = {child.index: child.input for child in self.children if child.phase is Phase.DONE}
        self.children = [child for child in self.children if child.phase not in (Phase.PENDING, Phase.DONE)]

    @property
    def retry_count(self) -> int:
        """`$$.State.RetryCount`: all retries of the state in this visit."""
        return sum(self.attempts)


@dataclass(slots=True)
class ExecutionState:
    """All that the interpreter knows of an execution. `step` copies it; nobody else changes it."""

    arn: str
    name: str
    role_arn: str
    machine_arn: str
    machine_name: str
    started_at_ms: int
    input: Json
    root: Frame
    status: str = "RUNNING"
    last_event: int = 0
    last_task_id: int = 0
    redrive_count: int = 0
    redriven_at_ms: int | None = None

    def copy(self) -> "ExecutionState":
        """Return a copy; the JSON values are shared."""
        return ExecutionState(
            self.arn, self.name, self.role_arn, self.machine_arn, self.machine_name, self.started_at_ms, self.input,
            self.root.copy(), self.status, self.last_event, self.last_task_id, self.redrive_count, self.redriven_at_ms,
        )  # fmt: skip

    def frames(self) -> "list[Frame]":
        """Return every frame of the tree."""
        found, pending = [], [self.root]
        while pending:
            frame = pending.pop()
            found.append(frame)
            pending.extend(frame.children)
        return found

    def only_waits(self) -> bool:
        """Whether nothing is to be done before a timer fires or something comes from outside."""
        return all(frame.phase in _WAITING for frame in self.frames())


_WAITING = frozenset({Phase.WAIT, Phase.RETRY, Phase.AWAIT, Phase.CHILDREN, Phase.DONE, Phase.MAP_RUN})


class _Values:
    """The JSON values of a state, each once, by identity."""

    def __init__(self) -> None:
        self.values: list[Json] = []
        self._places: dict[int, int] = {}

    def place(self, value: Json) -> int:
        found = self._places.get(id(value))
        if found is None:
            found = self._places[id(value)] = len(self.values)
            self.values.append(value)
        return found


def dump(state: ExecutionState) -> bytes:
    """Return what changes in a state; what the tables know (ARNs, start) is given to `load` again."""
    values = _Values()
    values.place(state.input)
    root = _dump_frame(state.root, values)
    content = [state.last_event, state.last_task_id, root, values.values, _FORMAT]
    return pack(content)


def _dump_frame(frame: Frame, values: _Values) -> list[Any]:
    row: list[Any] = [
        frame.state,
        values.place(frame.input),
        int(frame.phase),
        frame.last_event,
        frame.entered_event,
        frame.entered_at_ms,
        values.place(frame.variables) if frame.variables else -1,
        frame.attempts,
        frame.task_id,
        frame.due_at_ms,
        int(frame.heartbeat),
        frame.concurrency,
        values.place(frame.item) if frame.item is not None else -1,
        [_dump_frame(child, values) for child in frame.children],
        frame.token,
        frame.timeout_at_ms,
        frame.heartbeat_s,
        frame.parent,
        frame.index,
        values.place(frame.items) if frame.items is not None else -1,
        frame.begun,
        [frame.outputs.get(index) for index in range(frame.begun)],
    ]
    while len(row) > _FIXED and row[-1] == _DEFAULTS[len(row) - _FIXED - 1]:
        row.pop()
    return row


_FIXED = 6
"""How many members every row has; those after them are left out from the end while they have their default."""

_DEFAULTS: list[Any] = [-1, (), 0, None, 0, 0, -1, [], "", None, 0, None, 0, -1, 0, []]

_INDEX = _FIXED + 12
"""Where a row has the frame's index."""

_FORMAT = 2
"""Of what is stored. In the first one, a Map had a child for every item."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What was kept of a state."""

    last_event: int
    last_task_id: int
    input: Json
    root: Frame
    format: int


def load(content: bytes) -> Loaded:
    """Return what `dump` kept. In format 1, `adopt_older_iterations` is due for Maps."""
    last_event, last_task_id, root, values, *later = unpack(content)
    return Loaded(last_event, last_task_id, values[0], _load_frame(root, values), later[0] if later else 1)


def _load_frame(row: list[Any], values: list[Json]) -> Frame:
    name, place, phase, last_event, entered_event, entered_at_ms, *more = row
    (variables, attempts, task_id, due_at_ms, heartbeat, concurrency, item, children, token, timeout_at_ms, heartbeat_s,
     parent, index, items, begun, outputs) = more + _DEFAULTS[len(more) :]  # fmt: skip
    return Frame(
        name,
        values[place],
        Phase(phase),
        values[variables] if variables >= 0 else {},
        last_event,
        entered_event,
        entered_at_ms,
        tuple(attempts),
        task_id,
        due_at_ms,
        bool(heartbeat),
        [_load_frame(child, values) for child in children],
        concurrency,
        values[item] if item >= 0 else None,
        token,
        timeout_at_ms,
        heartbeat_s,
        None if parent is None else (parent[0], parent[1], parent[2]),
        index,
        values[items] if items >= 0 else None,
        begun,
        _outputs_of_done(outputs, children),
    )


def _outputs_of_done(outputs: list[Json], children: list[list[Any]]) -> dict[int, Json]:
    """Return the outputs by iteration: what has begun and is no child is done."""
    done = dict(enumerate(outputs))
    if done:
        for row in children:
            done.pop(row[_INDEX] if len(row) > _INDEX else 0, None)
    return done
