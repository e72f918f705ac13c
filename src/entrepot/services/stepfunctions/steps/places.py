"""Where frames hang in the tree and in the definition, and what can be read of an execution from there."""

import hmac
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from entrepot.services.stepfunctions.language.definition import Map, State, StateMachine, Task, Workflow
from entrepot.services.stepfunctions.language.evaluation import Json
from entrepot.services.stepfunctions.state import ExecutionState, Frame, Phase


@dataclass(slots=True)
class Place:
    """A frame, and where it hangs in the tree and in the definition."""

    frame: Frame
    workflow: Workflow
    parent: "Place | None" = None

    @property
    def index(self) -> int:
        """Which branch or iteration of the parent this is."""
        return self.frame.index

    @property
    def state(self) -> State:
        return self.workflow.states[self.frame.state]

    def child(self, frame: Frame) -> "Place":
        state = self.state
        workflow = state.item_processor if isinstance(state, Map) else state.branches[frame.index]  # type: ignore[attr-defined]
        return Place(frame, workflow, self)

    def children(self) -> "list[Place]":
        return [self.child(frame) for frame in self.frame.children]

    def variables(self) -> Mapping[str, Json]:
        if self.parent is None:
            return self.frame.variables
        outer = self.parent.variables()
        return {**outer, **self.frame.variables} if self.frame.variables else outer


def places(machine: StateMachine, state: ExecutionState) -> Iterator[Place]:
    """Yield the frames that run, outer ones first."""
    pending = [Place(state.root, machine)]
    while pending:
        place = pending.pop()
        yield place
        if place.frame.phase is Phase.CHILDREN:
            pending.extend(reversed(place.children()))


def running_frames(state: ExecutionState) -> list[Frame]:
    """Return the frames of `places`, in any order, for questions that need no more."""
    found, pending = [], [state.root]
    while pending:
        frame = pending.pop()
        found.append(frame)
        if frame.phase is Phase.CHILDREN:
            pending.extend(frame.children)
    return found


def adopt_older_maps(machine: StateMachine, state: ExecutionState) -> None:
    """Take over a state of format 1 (see `state.load`)."""
    pending = [Place(state.root, machine)]
    while pending:
        place = pending.pop()
        for number, child in enumerate(place.frame.children):
            child.index = number
        if place.frame.children:
            if isinstance(place.state, Map):
                place.frame.adopt_older_iterations()
            pending.extend(place.children())


EXPRESS_LIMIT_S = 300
"""How long an execution of an EXPRESS state machine may take. Source: Step Functions' service quotas."""


def timeout_at_ms(machine: StateMachine, state: ExecutionState) -> int | None:
    """Return when the whole execution times out, or None."""
    limit_s = machine.timeout_s
    if ":express:" in state.arn:
        limit_s = min(limit_s or EXPRESS_LIMIT_S, EXPRESS_LIMIT_S)
    if limit_s is None:
        return None
    begun_at_ms = state.redriven_at_ms if state.redriven_at_ms is not None else state.started_at_ms
    return begun_at_ms + limit_s * 1_000


def waiting_tasks(machine: StateMachine, state: ExecutionState) -> Iterator[tuple[int, Task, int]]:
    """Yield (task id, the state, id of its Scheduled event) for every task whose outcome is awaited."""
    for place in places(machine, state):
        if place.frame.phase is Phase.TASK and isinstance(place.state, Task):
            yield place.frame.task_id, place.state, place.frame.last_event - 1


def task_of(machine: StateMachine, state: ExecutionState, task_id: int) -> Task | None:
    """Return the state that waits for what its call began, or None when it does not wait any more."""
    for place in places(machine, state):
        if place.frame.task_id == task_id and place.frame.phase is Phase.AWAIT and isinstance(place.state, Task):
            return place.state
    return None


def awaited_task(state: ExecutionState, token: str) -> int | None:
    """Return the id of the task that waits for this token, or None."""
    for frame in state.frames():
        if frame.phase in (Phase.TASK, Phase.AWAIT) and frame.token and hmac.compare_digest(frame.token, token):
            return frame.task_id
    return None


def next_due_ms(machine: StateMachine, state: ExecutionState) -> int | None:
    """Return when the next timer of the execution is due, or None."""
    if state.status != "RUNNING":
        return None
    due = [frame.due_at_ms for frame in running_frames(state) if frame.due_at_ms is not None]
    end_at_ms = timeout_at_ms(machine, state)
    if end_at_ms is not None:
        due.append(end_at_ms)
    return min(due, default=None)
