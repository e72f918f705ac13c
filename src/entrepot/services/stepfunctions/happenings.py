"""What can happen to an execution, and what a step of the interpreter gives back."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from .history import Event
from .language.definition import Map, Task
from .language.evaluation import Json
from .state import ExecutionState


@dataclass(frozen=True, slots=True, kw_only=True)
class _Happening:
    at_ms: int
    """When it happened: the interpreter has no clock."""
    random: float = 1.0
    """A number in [0, 1): the interpreter throws no dice (JitterStrategy FULL)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Started(_Happening):
    """The execution begins."""

    input_text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Continued(_Happening):
    """Nothing new: go on with what is ready (after the bound of a transaction, after a restart)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSucceeded(_Happening):
    """A task gave its result."""

    task_id: int
    output: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFailed(_Happening):
    """A task failed."""

    task_id: int
    error: str
    cause: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitedSucceeded(_Happening):
    """What a task waits for after its call came: SendTaskSuccess, or its nested execution succeeded."""

    task_id: int
    output: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitedFailed(_Happening):
    """SendTaskFailure, or the nested execution of a task ended without success."""

    task_id: int
    error: str | None
    cause: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatCame(_Happening):
    """SendTaskHeartbeat."""

    task_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MapRunDone(_Happening):
    """A map run ended well; `output` is the result of its state."""

    task_id: int
    output: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class MapRunBroken(_Happening):
    """A map run failed."""

    task_id: int
    error: str
    cause: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityTaken(_Happening):
    """A worker took the task of an activity."""

    task_id: int
    worker: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TimerFired(_Happening):
    """What is due at `at_ms` or before is to be done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped(_Happening):
    """StopExecution."""

    error: str | None
    cause: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Redriven(_Happening):
    """RedriveExecution: go on from the states that did not succeed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken(_Happening):
    """The interpreter itself failed: the execution must end all the same."""

    cause: str


Happening: TypeAlias = (
    Started
    | Continued
    | TaskSucceeded
    | TaskFailed
    | AwaitedSucceeded
    | AwaitedFailed
    | HeartbeatCame
    | ActivityTaken
    | MapRunDone
    | MapRunBroken
    | TimerFired
    | Stopped
    | Redriven
    | Broken
)


@dataclass(frozen=True, slots=True)
class ScheduledTask:
    """Outgoing work: perform the state's resource with `parameters` and report under `task_id`."""

    task_id: int
    task: Task
    parameters: Json
    role_arn: str | None = None
    """The role of the state's Credentials; None means the state machine's."""


@dataclass(frozen=True, slots=True)
class ScheduledMapRun:
    """A map run that is to begin; its end is reported under `task_id`."""

    task_id: int
    arn: str
    state: Map
    items: Sequence[tuple[str | None, Json]] | None
    """(key or None, item) of the state's own input; None: the reader gives them."""
    parameters: Json
    """The reader's parameters."""
    max_items: int | None
    batch_items: int | None
    batch_bytes: int | None
    batch_input: Json
    writer: Json
    """The result writer's parameters; None: results stay in the state."""
    max_concurrency: int
    tolerated_count: int | None
    tolerated_percentage: float | None


@dataclass(slots=True)
class Transition:
    """What a step did: the new state, its events, and what the executor has to do about it."""

    state: ExecutionState
    events: list[Event] = field(default_factory=list)
    tasks: list[ScheduledTask] = field(default_factory=list)
    steps: int = 0
    """States that were run."""
    more: bool = False
    """The bound was reached: continue in another transaction."""
    due_at_ms: int | None = None
    """When the next timer is due."""
    map_runs: list[ScheduledMapRun] = field(default_factory=list)
    """Map runs that are to begin."""
    aborted_map_runs: list[int] = field(default_factory=list)
    """Tasks whose map runs are to be aborted."""
    redriven_map_runs: list[int] = field(default_factory=list)
    """Tasks whose map runs are to be redriven."""
