"""The interpreter of state machines: `step(machine, state, happening) -> Transition`.

Pure: no I/O, no clock, no dice; what it needs comes in with the happening. It must not know the ledger, operations or AWS's
API. Its parts by subject are in `steps`. Source: https://states-language.net/spec.html; the order of events is that of
recorded executions on AWS.
"""

from .happenings import (
    ActivityTaken,
    AwaitedFailed,
    AwaitedSucceeded,
    Broken,
    Happening,
    HeartbeatCame,
    MapRunBroken,
    MapRunDone,
    Redriven,
    Started,
    Stopped,
    TaskFailed,
    TaskSucceeded,
    TimerFired,
    Transition,
)
from .language.definition import Choice, Fail, Map, Parallel, Pass, StateMachine, Succeed, Task, Wait
from .language.evaluation import NO_CHOICE_MATCHED, RUNTIME, TIMEOUT, StatesError
from .language.jsonata_bounds import Meter
from .state import ExecutionState, Frame, Phase
from .steps.base import DATA_LIMIT_BYTES, HistoryFull, too_large
from .steps.map_states import MapStates
from .steps.places import (
    Place,
    awaited_task,
    next_due_ms,
    places,
    running_frames,
    task_of,
    timeout_at_ms,
    waiting_tasks,
)
from .steps.task_states import TaskStates

__all__ = [
    "DATA_LIMIT_BYTES",
    "EVALUATION_LIMIT_S",
    "STEP_LIMIT",
    "awaited_task",
    "next_due_ms",
    "step",
    "step_in_place",
    "task_of",
    "too_large",
    "waiting_tasks",
]

STEP_LIMIT = 100
"""States that one step runs at most, so that a transaction does not hold the ledger for long."""

EVALUATION_LIMIT_S = 0.25
"""Processor time of expressions after which a step takes no further state, so that slow ones do not add up in a transaction."""


def step(machine: StateMachine, state: ExecutionState, happening: Happening, limit: int = STEP_LIMIT) -> Transition:
    """Return what becomes of `state` when `happening` happens. `state` itself is not changed.

    A happening that comes too late (a task that timed out, a timer that was done) changes nothing.
    """
    return step_in_place(machine, state.copy(), happening, limit)


def step_in_place(machine: StateMachine, state: ExecutionState, happening: Happening, limit: int) -> Transition:
    """Like `step`, for the owner of `state`, which becomes the state after the step."""
    run = _Run(machine, state, happening)
    try:
        run.apply(happening)
        run.drain(limit)
    except HistoryFull:
        run.end_full()
    return run.result()


class _Run(TaskStates, MapStates):
    """One step: what happens, and entering states."""

    def apply(self, happening: Happening) -> None:
        state = self.state
        if isinstance(happening, Redriven):
            self._redrive(Place(state.root, self.machine))
        elif state.status != "RUNNING":
            return
        elif isinstance(happening, Started):
            self._record(None, "ExecutionStarted", {"input": happening.input_text, "roleArn": state.role_arn})
        elif isinstance(happening, TaskSucceeded | TaskFailed):
            self._task_ended(happening)
        elif isinstance(happening, AwaitedSucceeded | AwaitedFailed | HeartbeatCame | ActivityTaken):
            self._awaited_came(happening)
        elif isinstance(happening, MapRunDone | MapRunBroken):
            self._map_run_ended(happening)
        elif isinstance(happening, TimerFired):
            self._fire_timers()
        elif isinstance(happening, Stopped):
            self._end("ABORTED", "ExecutionAborted", happening.error, happening.cause)
        elif isinstance(happening, Broken):
            self._end("FAILED", "ExecutionFailed", RUNTIME, happening.cause)
        if state.status == "RUNNING":
            queued = {id(place.frame) for place in self._ready}
            ready = [frame for frame in running_frames(state) if frame.phase in (Phase.READY, Phase.AGAIN)]
            if all(id(frame) in queued for frame in ready):
                return
            for place in places(self.machine, state):
                if place.frame.phase in (Phase.READY, Phase.AGAIN) and id(place.frame) not in queued:
                    self._ready.append(place)

    def drain(self, limit: int) -> None:
        """Run what is ready, the branches in turn."""
        until_s = Meter.total_s + EVALUATION_LIMIT_S
        while self._ready and self.steps < limit and self.state.status == "RUNNING" and Meter.total_s < until_s:
            place = self._ready.popleft()
            if place.frame.phase in (Phase.READY, Phase.AGAIN) and self._is_live(place):
                self.steps += 1
                self._enter(place)

    @staticmethod
    def _is_live(place: Place) -> bool:
        """Whether all around the place still waits for it (a sibling may have failed since it was queued)."""
        parent = place.parent
        while parent is not None:
            if parent.frame.phase is not Phase.CHILDREN or all(c is not place.frame for c in parent.frame.children):
                return False
            place, parent = parent, parent.parent
        return True

    def _fire_timers(self) -> None:
        end_at_ms = timeout_at_ms(self.machine, self.state)
        if end_at_ms is not None and end_at_ms <= self.at_ms:
            self._end("TIMED_OUT", "ExecutionTimedOut", TIMEOUT, None)
            return
        due = [
            place
            for place in places(self.machine, self.state)
            if place.frame.due_at_ms is not None and place.frame.due_at_ms <= self.at_ms
        ]
        for place in due:
            frame = place.frame
            if frame.due_at_ms is None or not self._is_live(place) or self.state.status != "RUNNING":
                continue
            frame.due_at_ms = None
            if frame.phase is Phase.WAIT:
                self._guard(place, self._leave_with_input)
            elif frame.phase is Phase.RETRY:
                frame.phase = Phase.AGAIN
            elif frame.phase in (Phase.TASK, Phase.AWAIT):
                self._task_timed_out(place, by_heartbeat=frame.heartbeat)

    def _redrive(self, root: Place) -> None:
        state = self.state
        state.status = "RUNNING"
        state.redrive_count += 1
        state.redriven_at_ms = self.at_ms
        root.frame.last_event = state.last_event
        self._record(None, "ExecutionRedriven", {"redriveCount": state.redrive_count})
        root.frame.last_event = state.last_event
        self._revive(root)

    def _revive(self, place: Place) -> None:
        """Make every state that did not succeed run again; what is done stays done."""
        frame = place.frame
        if frame.phase not in (Phase.FAILED, Phase.ABORTED):
            return
        frame.attempts, frame.due_at_ms, frame.heartbeat = (), None, False
        if isinstance(place.state, Map) and place.state.distribution is not None and frame.token:
            self._redrive_map_run(place)
            return
        if not frame.children and not frame.outputs:
            frame.phase = Phase.AGAIN
            return
        frame.phase = Phase.CHILDREN
        for child in place.children():
            self._revive(child)
        if isinstance(place.state, Map):
            self._guard(place, self._start_iterations)
        self._check_children(place)

    def _enter(self, place: Place) -> None:
        frame, state = place.frame, place.state
        if frame.phase is Phase.READY:
            frame.attempts, frame.entered_at_ms = (), self.at_ms
            details = {"name": state.name, "input": self._text(frame.input)}
            frame.entered_event = self._record(place, f"{state.type}StateEntered", details)
        match state:
            case Task():
                self._guard(place, self._schedule)
            case Pass():
                self._guard(place, self._pass)
            case Choice():
                self._guard(place, self._choose)
            case Wait():
                self._guard(place, self._wait)
            case Succeed():
                self._guard(place, self._leave_with_input)
            case Fail():
                self._guard(place, self._fail)
            case Parallel():
                self._guard(place, self._fork)
            case Map():
                self._guard(place, self._map)
            case _:
                raise AssertionError(state.type)

    def _pass(self, place: Place) -> None:
        state = place.state
        assert isinstance(state, Pass)
        scope = self.scope(place)
        if state.is_jsonata:
            self._leave(place, scope, place.frame.input, state.output, state.assign, state.next)
            return
        result = self.select(state.input_path, scope)
        if state.parameters is not None:
            result = state.parameters.evaluate(scope.with_data(result))
        if state.has_result:
            result = state.result
        self._finish(place, scope, result)

    def _choose(self, place: Place) -> None:
        state = place.state
        assert isinstance(state, Choice)
        scope = self._effective(place)
        chosen, assign, output = state.default, state.assign, state.output
        for rule in state.choices:
            if rule.condition.holds(scope):
                chosen, assign, output = rule.next, rule.assign, rule.output
                break
        if chosen is None:
            text = "Failed to transition out of the state. The state does not point to a next state."
            raise StatesError(NO_CHOICE_MATCHED, text)
        if state.is_jsonata:
            self._leave(place, scope, place.frame.input, output, assign, chosen)
            return
        assigned = assign.evaluate(scope) if assign is not None else None
        self._exit(place, self.select(state.output_path, scope), assigned, chosen)

    def _wait(self, place: Place) -> None:
        state, frame = place.state, place.frame
        assert isinstance(state, Wait)
        until_ms = state.until_ms(self._effective(place), self.at_ms)
        if until_ms <= self.at_ms:
            self._leave_with_input(place)
        else:
            frame.phase, frame.due_at_ms = Phase.WAIT, until_ms

    def _fail(self, place: Place) -> None:
        state = place.state
        assert isinstance(state, Fail)
        error, cause = state.evaluate(self._effective(place))
        self._state_failed(place, error, cause)

    def _fork(self, place: Place) -> None:
        state, frame = place.state, place.frame
        assert isinstance(state, Parallel)
        data = self._arguments(place, state, self._effective(place))
        started = self._record(place, "ParallelStateStarted", {})
        frame.phase = Phase.CHILDREN
        frame.children = [
            Frame(branch.start_at, data, last_event=started, index=index) for index, branch in enumerate(state.branches)
        ]
        self._ready.extend(place.children())
