"""The interpreter of state machines: `step(machine, state, happening) -> Transition`.

Pure: no I/O, no clock, no dice; what it needs comes in with the happening. It must not know the ledger, operations or AWS's
API. Source: https://states-language.net/spec.html; the order of events is that of recorded executions on AWS.
"""

import hmac
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from entrepot import clock

from . import tokens
from .happenings import (
    AwaitedFailed,
    AwaitedSucceeded,
    Broken,
    Happening,
    HeartbeatCame,
    Redriven,
    ScheduledTask,
    Started,
    Stopped,
    TaskFailed,
    TaskSucceeded,
    TimerFired,
    Transition,
)
from .history import HISTORY_LIMIT_EVENTS, Event
from .language.definition import (
    Choice,
    Fail,
    Integration,
    Map,
    Parallel,
    Pass,
    State,
    StateMachine,
    Succeed,
    Task,
    Wait,
    Workflow,
    error_matches,
)
from .language.evaluation import (
    DATA_LIMIT_EXCEEDED,
    HEARTBEAT_TIMEOUT,
    NO_CHOICE_MATCHED,
    RUNTIME,
    TIMEOUT,
    Json,
    QueryEvaluationError,
    Scope,
    StatesError,
)
from .language.json_text import dumps
from .language.jsonata import JsonataScope
from .language.jsonata_bounds import Meter
from .language.path import Path
from .language.template import Template
from .state import ExecutionState, Frame, Phase

STEP_LIMIT = 100
"""States that one step runs at most, so that a transaction does not hold the ledger for long."""

EVALUATION_LIMIT_S = 0.25
"""Processor time of expressions after which a step takes no further state, so that slow ones do not add up in a transaction."""

MAP_CONCURRENCY_LIMIT = 40
"""Iterations of an inline Map that run at once at most. Source: Step Functions' service quotas."""

DATA_LIMIT_BYTES = 262_144
"""Largest input, output or result, as UTF-8 text. Source: Step Functions' service quotas."""

_RETRIED = (Task, Parallel, Map)


def step(machine: StateMachine, state: ExecutionState, happening: Happening, limit: int = STEP_LIMIT) -> Transition:
    """Return what becomes of `state` when `happening` happens. `state` itself is not changed.

    A happening that comes too late (a task that timed out, a timer that was done) changes nothing.
    """
    run = _Run(machine, state.copy(), happening)
    try:
        run.apply(happening)
        run.drain(limit)
    except _HistoryFull:
        run.end_full()
    return run.result()


def waiting_tasks(machine: StateMachine, state: ExecutionState) -> Iterator[tuple[int, Task, int]]:
    """Yield (task id, the state, id of its Scheduled event) for every task whose outcome is awaited."""
    for place in _places(machine, state):
        if place.frame.phase is Phase.TASK and isinstance(place.state, Task):
            yield place.frame.task_id, place.state, place.frame.last_event - 1


def task_of(machine: StateMachine, state: ExecutionState, task_id: int) -> Task | None:
    """Return the state that waits for what its call began, or None when it does not wait any more."""
    for place in _places(machine, state):
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
    due = [p.frame.due_at_ms for p in _places(machine, state) if p.frame.due_at_ms is not None]
    if machine.timeout_s is not None:
        due.append(_timeout_at_ms(machine, state))
    return min(due, default=None)


def too_large(text: str) -> bool:
    """Whether `text` is beyond `DATA_LIMIT_BYTES` in UTF-8."""
    length = len(text)
    return length > DATA_LIMIT_BYTES or (4 * length > DATA_LIMIT_BYTES and len(text.encode()) > DATA_LIMIT_BYTES)


class _HistoryFull(Exception):
    """There is room for one more event only: the last one."""


@dataclass(slots=True)
class _Place:
    """A frame, and where it hangs in the tree and in the definition."""

    frame: Frame
    workflow: Workflow
    parent: "_Place | None" = None
    index: int = 0

    @property
    def state(self) -> State:
        return self.workflow.states[self.frame.state]

    def child(self, index: int) -> "_Place":
        state = self.state
        workflow = state.item_processor if isinstance(state, Map) else state.branches[index]  # type: ignore[attr-defined]
        return _Place(self.frame.children[index], workflow, self, index)

    def children(self) -> "list[_Place]":
        return [self.child(index) for index in range(len(self.frame.children))]

    def variables(self) -> Mapping[str, Json]:
        if self.parent is None:
            return self.frame.variables
        outer = self.parent.variables()
        return {**outer, **self.frame.variables} if self.frame.variables else outer


def _places(machine: StateMachine, state: ExecutionState) -> Iterator[_Place]:
    """Yield the frames that run, outer ones first."""
    pending = [_Place(state.root, machine)]
    while pending:
        place = pending.pop()
        yield place
        if place.frame.phase is Phase.CHILDREN:
            pending.extend(reversed(place.children()))


def _timeout_at_ms(machine: StateMachine, state: ExecutionState) -> int:
    begun_at_ms = state.redriven_at_ms if state.redriven_at_ms is not None else state.started_at_ms
    return begun_at_ms + (machine.timeout_s or 0) * 1_000


class _Run:
    """One step under way, on its own copy of the state."""

    def __init__(self, machine: StateMachine, state: ExecutionState, happening: Happening) -> None:
        self.machine = machine
        self.state = state
        self.at_ms = happening.at_ms
        self.random = happening.random
        self.events: list[Event] = []
        self.tasks: list[ScheduledTask] = []
        self.steps = 0
        self._ready: deque[_Place] = deque()
        self._texts: dict[int, tuple[Json, str]] = {}
        self._execution: dict[str, Any] | None = None

    def result(self) -> Transition:
        running = self.state.status == "RUNNING"
        return Transition(
            self.state,
            self.events,
            self.tasks if running else [],
            self.steps,
            running and bool(self._ready),
            next_due_ms(self.machine, self.state),
        )

    # ── what happens ─────────────────────────────────────────────────────────────────────────────────────────────

    def apply(self, happening: Happening) -> None:
        state = self.state
        if isinstance(happening, Redriven):
            self._redrive(_Place(state.root, self.machine))
        elif state.status != "RUNNING":
            return
        elif isinstance(happening, Started):
            self._record(None, "ExecutionStarted", {"input": happening.input_text, "roleArn": state.role_arn})
        elif isinstance(happening, TaskSucceeded | TaskFailed):
            self._task_ended(happening)
        elif isinstance(happening, AwaitedSucceeded | AwaitedFailed | HeartbeatCame):
            self._awaited_came(happening)
        elif isinstance(happening, TimerFired):
            self._fire_timers()
        elif isinstance(happening, Stopped):
            self._end("ABORTED", "ExecutionAborted", happening.error, happening.cause)
        elif isinstance(happening, Broken):
            self._end("FAILED", "ExecutionFailed", RUNTIME, happening.cause)
        if state.status == "RUNNING":
            queued = {id(place.frame) for place in self._ready}
            for place in _places(self.machine, state):
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
    def _is_live(place: _Place) -> bool:
        """Whether all around the place still waits for it (a sibling may have failed since it was queued)."""
        parent = place.parent
        while parent is not None:
            children = parent.frame.children
            if parent.frame.phase is not Phase.CHILDREN or not (
                place.index < len(children) and children[place.index] is place.frame
            ):
                return False
            place, parent = parent, parent.parent
        return True

    def _task_ended(self, happening: TaskSucceeded | TaskFailed) -> None:
        for place in _places(self.machine, self.state):
            if place.frame.phase is Phase.TASK and place.frame.task_id == happening.task_id:
                state = place.state
                if isinstance(happening, TaskFailed):
                    self._task_failed(place, happening.error, happening.cause)
                elif isinstance(state, Task) and state.resource.pattern:
                    self._task_submitted(place, state, happening.output)
                else:
                    self._task_succeeded(place, happening.output)
                return

    def _awaited_came(self, happening: AwaitedSucceeded | AwaitedFailed | HeartbeatCame) -> None:
        """A token came back, perhaps before the call that sent it out did; or a nested execution ended."""
        for place in _places(self.machine, self.state):
            frame = place.frame
            if frame.phase not in (Phase.TASK, Phase.AWAIT) or frame.task_id != happening.task_id:
                continue
            if isinstance(happening, AwaitedSucceeded):
                self._task_succeeded(place, happening.output)
            elif isinstance(happening, AwaitedFailed):
                self._task_failed(place, happening.error, happening.cause)
            elif frame.heartbeat_s:
                self._set_limit(frame)
            return

    def _fire_timers(self) -> None:
        if self.machine.timeout_s is not None and _timeout_at_ms(self.machine, self.state) <= self.at_ms:
            self._end("TIMED_OUT", "ExecutionTimedOut", TIMEOUT, None)
            return
        due = [
            place
            for place in _places(self.machine, self.state)
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

    def _redrive(self, root: _Place) -> None:
        state = self.state
        state.status = "RUNNING"
        state.redrive_count += 1
        state.redriven_at_ms = self.at_ms
        root.frame.last_event = state.last_event
        self._record(None, "ExecutionRedriven", {"redriveCount": state.redrive_count})
        root.frame.last_event = state.last_event
        self._revive(root)

    def _revive(self, place: _Place) -> None:
        """Make every state that did not succeed run again; what is done stays done."""
        frame = place.frame
        if frame.phase not in (Phase.FAILED, Phase.ABORTED):
            return
        frame.attempts, frame.due_at_ms, frame.heartbeat = (), None, False
        if not frame.children:
            frame.phase = Phase.AGAIN
            return
        frame.phase = Phase.CHILDREN
        for child in place.children():
            self._revive(child)
        if isinstance(place.state, Map):
            self._start_iterations(place)
        self._check_children(place)

    # ── entering states ──────────────────────────────────────────────────────────────────────────────────────────

    def _enter(self, place: _Place) -> None:
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

    def _guard(self, place: _Place, work: Any, *arguments: Any) -> None:
        """Do `work(place, …)`; an error of the language fails the state."""
        try:
            work(place, *arguments)
        except StatesError as error:
            where = f"the state '{place.frame.state}' (entered at the event id #{place.frame.entered_event})"
            cause = f"An error occurred while executing {where}. {error.cause}"
            by_child = False
            if isinstance(error, QueryEvaluationError):
                self._record_evaluation_failed(place, error, cause)
                by_child = place.state.type in ("Parallel", "Map")
            self._state_failed(place, error.error, cause, by_child=by_child)

    def _record_evaluation_failed(self, place: _Place, error: QueryEvaluationError, cause: str) -> None:
        details = {"error": error.error, "cause": cause, "location": error.location, "state": place.frame.state}
        self._record(place, "EvaluationFailed", details)

    def _pass(self, place: _Place) -> None:
        state = place.state
        assert isinstance(state, Pass)
        scope = self._scope(place)
        if state.is_jsonata:
            self._leave(place, scope, place.frame.input, state.output, state.assign, state.next)
            return
        result = self._select(state.input_path, scope)
        if state.parameters is not None:
            result = state.parameters.evaluate(scope.with_data(result))
        if state.has_result:
            result = state.result
        self._finish(place, scope, result)

    def _choose(self, place: _Place) -> None:
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
        self._exit(place, self._select(state.output_path, scope), assigned, chosen)

    def _wait(self, place: _Place) -> None:
        state, frame = place.state, place.frame
        assert isinstance(state, Wait)
        until_ms = state.until_ms(self._effective(place), self.at_ms)
        if until_ms <= self.at_ms:
            self._leave_with_input(place)
        else:
            frame.phase, frame.due_at_ms = Phase.WAIT, until_ms

    def _leave_with_input(self, place: _Place) -> None:
        """Exit a state that has no result: Wait, Succeed."""
        state = place.state
        scope = self._effective(place)
        if state.is_jsonata:
            self._leave(place, scope, place.frame.input, state.output, state.assign, state.next)
            return
        assigned = state.assign.evaluate(scope) if state.assign is not None else None
        self._exit(place, self._select(state.output_path, scope), assigned, state.next)

    def _fail(self, place: _Place) -> None:
        state = place.state
        assert isinstance(state, Fail)
        error, cause = state.evaluate(self._effective(place))
        self._state_failed(place, error, cause)

    def _schedule(self, place: _Place) -> None:
        state, frame = place.state, place.frame
        assert isinstance(state, Task)
        frame.token = ""
        if state.resource.waits_for_token:
            frame.token = tokens.make(self.state.arn, self.state.last_task_id + 1, self.random)
        scope = self._effective(place)
        parameters = self._arguments(place, state, scope)
        timeout_s = state.timeout.evaluate(scope) if state.timeout is not None else None
        heartbeat_s = state.heartbeat.evaluate(scope) if state.heartbeat is not None else None
        text = self._text(parameters)
        if too_large(text):
            raise StatesError(DATA_LIMIT_EXCEEDED, f"The input of the state/task '{state.name}' is too large.")
        role_arn = None
        if state.credentials is not None:
            role_arn = state.credentials.evaluate(scope).get("RoleArn")
        self._record_scheduled(place, state, text, timeout_s, heartbeat_s, role_arn)
        frame.phase = Phase.TASK
        self.state.last_task_id += 1
        frame.task_id = self.state.last_task_id
        frame.timeout_at_ms = None if timeout_s is None else self.at_ms + timeout_s * 1_000
        frame.heartbeat_s = heartbeat_s or 0
        self._set_limit(frame)
        self.tasks.append(ScheduledTask(frame.task_id, state, parameters, role_arn))

    def _set_limit(self, frame: Frame) -> None:
        """Set when a task times out: at the end of its time, or when no heartbeat came for too long."""
        frame.due_at_ms, frame.heartbeat = frame.timeout_at_ms, False
        if frame.heartbeat_s:
            beat_at_ms = self.at_ms + frame.heartbeat_s * 1_000
            if frame.due_at_ms is None or beat_at_ms < frame.due_at_ms:
                frame.due_at_ms, frame.heartbeat = beat_at_ms, True

    def _record_scheduled(
        self,
        place: _Place,
        state: Task,
        text: str,
        timeout_s: int | None,
        heartbeat_s: int | None,
        role_arn: str | None,
    ) -> None:
        resource = state.resource
        limits: dict[str, Any] = {}
        if timeout_s is not None:
            limits["timeoutInSeconds"] = timeout_s
        if role_arn is not None:
            limits["taskCredentials"] = {"roleArn": role_arn}
        if resource.integration is Integration.FUNCTION_ARN:
            self._record(place, "LambdaFunctionScheduled", {"resource": resource.arn, "input": text, **limits})
            self._record(place, "LambdaFunctionStarted", {})
            return
        if heartbeat_s is not None:
            limits["heartbeatInSeconds"] = heartbeat_s
        kind = {"resourceType": resource.resource_type, "resource": resource.resource}
        region = self.state.arn.split(":", 4)[3]
        self._record(place, "TaskScheduled", {**kind, "region": region, "parameters": text, **limits})
        self._record(place, "TaskStarted", kind)

    def _fork(self, place: _Place) -> None:
        state, frame = place.state, place.frame
        assert isinstance(state, Parallel)
        data = self._arguments(place, state, self._effective(place))
        started = self._record(place, "ParallelStateStarted", {})
        frame.phase = Phase.CHILDREN
        frame.children = [Frame(branch.start_at, data, last_event=started) for branch in state.branches]
        self._ready.extend(place.children())

    def _map(self, place: _Place) -> None:
        state, frame = place.state, place.frame
        assert isinstance(state, Map)
        scope = self._effective(place)
        items, concurrency = state.items(scope), state.concurrency(scope)
        self._record(place, "MapStateStarted", {"length": len(items)})
        start_at = state.item_processor.start_at
        frame.phase = Phase.CHILDREN
        frame.concurrency = min(concurrency or MAP_CONCURRENCY_LIMIT, MAP_CONCURRENCY_LIMIT)
        frame.children = [Frame(start_at, None, Phase.PENDING, item=item) for item in items]
        self._start_iterations(place)
        self._check_children(place)

    def _start_iterations(self, place: _Place) -> None:
        """Begin as many pending iterations as may run at once."""
        state, frame = place.state, place.frame
        assert isinstance(state, Map)
        running = sum(child.phase not in (Phase.PENDING, Phase.DONE) for child in frame.children)
        for index, child in enumerate(frame.children):
            if running >= frame.concurrency:
                return
            if child.phase is Phase.PENDING:
                running += 1
                self._start_iteration(place, state, place.child(index))

    def _start_iteration(self, place: _Place, state: Map, iteration: _Place) -> None:
        child = iteration.frame
        child.last_event = place.frame.last_event
        self._record(iteration, "MapIterationStarted", {"name": state.name, "index": iteration.index})
        child.input = child.item
        if state.item_selector is not None:
            scope = self._scope(place)
            item = {"Item": {"Index": iteration.index, "Value": child.item}}
            context = {**scope.context, "Map": item}
            if state.is_jsonata:
                inner: Scope = JsonataScope({**scope.data, "context": context}, context, scope.variables)
            else:
                inner = Scope(self._select(state.input_path, scope), context, scope.variables)
            child.input = state.item_selector.evaluate(inner)
        child.phase = Phase.READY
        self._ready.append(iteration)

    # ── leaving states ───────────────────────────────────────────────────────────────────────────────────────────

    def _finish(self, place: _Place, scope: Scope, result: Json) -> None:
        """Exit a state that has a result. Assign and OutputPath see the variables as they were."""
        state = place.state
        assert isinstance(state, Pass | Task | Parallel | Map)
        data = place.frame.input
        if state.result_path is not None:
            data = state.result_path.place(data, result)
        assigned = state.assign.evaluate(scope.with_data(result)) if state.assign is not None else None
        self._exit(place, self._select(state.output_path, scope.with_data(data)), assigned, state.next)

    def _leave(
        self,
        place: _Place,
        scope: Scope,
        unchanged: Json,
        output: Template | None,
        assign: Template | None,
        following: str | None,
    ) -> None:
        """Exit a state in JSONata: Assign and Output see the same; without Output `unchanged` is the output."""
        assigned = assign.evaluate(scope) if assign is not None else None
        self._exit(place, output.evaluate(scope) if output is not None else unchanged, assigned, following)

    def _exit(self, place: _Place, output: Json, assigned: Mapping[str, Json] | None, following: str | None) -> None:
        frame, state = place.frame, place.state
        text = self._text(output)
        if too_large(text):
            self._state_failed(place, DATA_LIMIT_EXCEEDED, _limit_cause(state.name))
            return
        details: dict[str, Any] = {"name": state.name, "output": text}
        if assigned:
            details["assignedVariables"] = {name: dumps(value) for name, value in assigned.items()}
            frame.variables = {**frame.variables, **assigned}
        self._record(place, f"{state.type}StateExited", details)
        frame.input, frame.attempts, frame.children, frame.due_at_ms = output, (), [], None
        if following is not None:
            frame.state, frame.phase = following, Phase.READY
            self._ready.append(place)
            return
        frame.phase = Phase.DONE
        self._workflow_ended(place)

    def _workflow_ended(self, place: _Place) -> None:
        parent = place.parent
        if parent is None:
            self.state.status = "SUCCEEDED"
            self._record(place, "ExecutionSucceeded", {"output": self._text(place.frame.input)})
            return
        if isinstance(parent.state, Map):
            self._record(place, "MapIterationSucceeded", {"name": parent.frame.state, "index": place.index})
            parent.frame.last_event = place.frame.last_event
            self._guard(parent, self._start_iterations)
        parent.frame.last_event = place.frame.last_event
        self._check_children(parent)

    def _check_children(self, place: _Place) -> None:
        if place.frame.phase is Phase.CHILDREN and all(child.phase is Phase.DONE for child in place.frame.children):
            self._guard(place, self._join)

    def _join(self, place: _Place) -> None:
        """All branches or iterations are done."""
        state, frame = place.state, place.frame
        assert isinstance(state, Parallel | Map)
        if isinstance(state, Map):
            self._record(place, "MapStateSucceeded", {})
        result: Json = [child.input for child in frame.children]
        self._finish_result(place, state, result)

    def _finish_result(self, place: _Place, state: Task | Parallel | Map, result: Json) -> None:
        scope = self._scope(place)
        if isinstance(scope, JsonataScope):
            self._leave(place, scope.with_states(result=result), result, state.output, state.assign, state.next)
            return
        if state.result_selector is not None:
            result = state.result_selector.evaluate(scope.with_data(result))
        self._finish(place, scope, result)

    # ── the outcome of tasks ─────────────────────────────────────────────────────────────────────────────────────

    def _task_submitted(self, place: _Place, state: Task, output: Json) -> None:
        """The call was made; its result is told, but the task goes on."""
        text = self._text(output)
        if too_large(text):
            self._task_failed(place, DATA_LIMIT_EXCEEDED, _limit_cause(state.resource.resource_type))
            return
        place.frame.phase = Phase.AWAIT
        self._record_outcome(place, state, "Submitted", {"output": text})

    def _task_succeeded(self, place: _Place, output: Json) -> None:
        state, frame = place.state, place.frame
        assert isinstance(state, Task)
        text = self._text(output)
        if too_large(text):
            function = state.resource.integration is Integration.FUNCTION_ARN
            name = state.resource.arn if function else state.resource.resource_type
            self._task_failed(place, DATA_LIMIT_EXCEEDED, _limit_cause(name))
            return
        frame.due_at_ms = None
        self._record_outcome(place, state, "Succeeded", {"output": text})
        self._guard(place, self._finish_result, state, output)

    def _task_failed(self, place: _Place, error: str | None, cause: str | None) -> None:
        state = place.state
        assert isinstance(state, Task)
        place.frame.due_at_ms = None
        details = {name: text for name, text in (("error", error), ("cause", cause)) if text is not None}
        self._record_outcome(place, state, "Failed", details)
        self._state_failed(place, error, cause)

    def _task_timed_out(self, place: _Place, *, by_heartbeat: bool) -> None:
        """Fail with States.Timeout; a missing heartbeat is told so, too, but can be caught as States.HeartbeatTimeout."""
        state = place.state
        assert isinstance(state, Task)
        self._record_outcome(place, state, "TimedOut", {"error": TIMEOUT})
        self._state_failed(place, TIMEOUT, None, also=HEARTBEAT_TIMEOUT if by_heartbeat else None)

    def _record_outcome(self, place: _Place, state: Task, outcome: str, details: dict[str, Any]) -> None:
        resource = state.resource
        if resource.integration is Integration.FUNCTION_ARN:
            self._record(place, f"LambdaFunction{outcome}", details)
        else:
            kind = {"resourceType": resource.resource_type, "resource": resource.resource}
            self._record(place, f"Task{outcome}", {**kind, **details})

    # ── failure ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _state_failed(
        self, place: _Place, error: str | None, cause: str | None, *, by_child: bool = False, also: str | None = None
    ) -> None:
        """Retry, catch, or fail the workflow around the state. `also`: another name that Retry and Catch may use."""
        state, frame = place.state, place.frame
        frame.due_at_ms = None
        if isinstance(state, _RETRIED):
            if self._retry(place, state, error or "", also):
                return
            for catcher in state.catch:
                if error_matches(catcher.error_equals, error or "") or also in catcher.error_equals:
                    output: dict[str, Json] = {} if error is None else {"Error": error}
                    if cause is not None:
                        output["Cause"] = cause
                    self._guard(place, self._catch, catcher, output)
                    return
        if by_child:
            self._record(place, f"{state.type}StateFailed", {})
        frame.phase = Phase.FAILED
        self._workflow_failed(place, error, cause)

    def _retry(self, place: _Place, state: Task | Parallel | Map, error: str, also: str | None) -> bool:
        frame = place.frame
        for number, retrier in enumerate(state.retry):
            if not error_matches(retrier.error_equals, error) and also not in retrier.error_equals:
                continue
            attempts = list(frame.attempts) or [0] * len(state.retry)
            if attempts[number] >= retrier.max_attempts:
                return False
            attempts[number] += 1
            delay_s = retrier.delay_s(attempts[number])
            if retrier.full_jitter:
                delay_s *= self.random
            frame.attempts, frame.children = tuple(attempts), []
            frame.phase, frame.due_at_ms = Phase.RETRY, self.at_ms + round(delay_s * 1_000)
            return True
        return False

    def _catch(self, place: _Place, catcher: Any, error_output: dict[str, Json]) -> None:
        scope = self._scope(place)
        if isinstance(scope, JsonataScope):
            scope = scope.with_states(errorOutput=error_output)
            self._leave(place, scope, error_output, catcher.output, catcher.assign, catcher.next)
            return
        scope = scope.with_data(error_output)
        data = place.frame.input
        if catcher.result_path is not None:
            data = catcher.result_path.place(data, error_output)
        assigned = catcher.assign.evaluate(scope) if catcher.assign is not None else None
        self._exit(place, data, assigned, catcher.next)

    def _workflow_failed(self, place: _Place, error: str | None, cause: str | None) -> None:
        parent = place.parent
        if parent is None:
            self._end("FAILED", "ExecutionFailed", error, cause)
            return
        is_map = isinstance(parent.state, Map)
        if is_map:
            self._record(place, "MapIterationFailed", {"name": parent.frame.state, "index": place.index})
        if isinstance(place.state, Task):
            # AWS records this of the task that failed, too (recorded executions show it), not of a Fail state.
            self._record(place, "TaskStateAborted", {})
        last_event = place.frame.last_event
        for sibling in parent.children():
            if sibling.index != place.index and self._abort(sibling) and is_map:
                self._record(sibling, "MapIterationAborted", {"name": parent.frame.state, "index": sibling.index})
        parent.frame.last_event = last_event
        self._state_failed(parent, error, cause, by_child=True)

    def _abort(self, place: _Place) -> bool:
        """Stop a frame and all in it; say whether there was something to stop."""
        frame = place.frame
        if frame.phase in (Phase.DONE, Phase.PENDING, Phase.FAILED, Phase.ABORTED):
            return False
        if frame.phase is Phase.CHILDREN:
            for child in place.children():
                self._abort(child)
        if frame.phase is Phase.READY:
            return True  # it never entered the state, and enters it when redriven
        if place.state.type in ("Task", "Wait", "Parallel", "Map"):
            self._record(place, f"{place.state.type}StateAborted", {})
        frame.phase, frame.due_at_ms = Phase.ABORTED, None
        return True

    def _end(self, status: str, event: str, error: str | None, cause: str | None) -> None:
        """End the execution without success."""
        details = {name: text for name, text in (("error", error), ("cause", cause)) if text is not None}
        for frame in self.state.frames():
            frame.due_at_ms = None
            if frame.phase in (Phase.AGAIN, Phase.TASK, Phase.WAIT, Phase.RETRY, Phase.CHILDREN, Phase.AWAIT):
                frame.phase = Phase.ABORTED
        self.state.status = status
        self._record(_Place(self.state.root, self.machine), event, details)

    def end_full(self) -> None:
        """The history has no room: this is its last event."""
        cause = f"The execution reached the maximum number of history events ({HISTORY_LIMIT_EVENTS})."
        self._end("FAILED", "ExecutionFailed", RUNTIME, cause)

    # ── what all of them need ────────────────────────────────────────────────────────────────────────────────────

    def _record(self, place: _Place | None, event_type: str, details: Mapping[str, Any]) -> int:
        state = self.state
        if state.last_event >= HISTORY_LIMIT_EVENTS - 1 and state.status == "RUNNING":
            raise _HistoryFull
        state.last_event += 1
        previous_id = state.root.last_event if place is None else place.frame.last_event
        self.events.append(Event(state.last_event, event_type, self.at_ms, previous_id, details))
        if place is not None:
            place.frame.last_event = state.last_event
        return state.last_event

    def _text(self, value: Json) -> str:
        """Return the JSON text of a value; an output is mostly the next state's input."""
        if not isinstance(value, dict | list):
            return dumps(value)
        known = self._texts.get(id(value))
        if known is None:
            known = self._texts[id(value)] = (value, dumps(value))
        return known[1]

    @staticmethod
    def _select(path: Path | None, scope: Scope) -> Json:
        return {} if path is None else path.evaluate(scope)

    def _scope(self, place: _Place) -> Scope:
        context = self._context(place)
        if place.state.is_jsonata:
            return JsonataScope({"input": place.frame.input, "context": context}, context, place.variables())
        return Scope(place.frame.input, context, place.variables())

    def _effective(self, place: _Place) -> Scope:
        """Return the scope over the effective input, that of InputPath."""
        scope = self._scope(place)
        return scope if place.state.is_jsonata else scope.with_data(self._select(place.state.input_path, scope))

    @staticmethod
    def _arguments(place: _Place, state: Task | Parallel, scope: Scope) -> Json:
        if state.parameters is not None:
            return state.parameters.evaluate(scope)
        return place.frame.input if state.is_jsonata else scope.data

    def _context(self, place: _Place) -> dict[str, Json]:
        """Return the context object, `$$`."""
        if self._execution is None:
            self._execution = self._execution_context()
        state: dict[str, Json] = {"Name": place.frame.state, "EnteredTime": clock.iso(place.frame.entered_at_ms)}
        if isinstance(place.state, _RETRIED):
            state["RetryCount"] = place.frame.retry_count
        token = place.frame.token if isinstance(place.state, Task) else ""
        context: dict[str, Json] = {
            "Execution": self._execution,
            "StateMachine": {"Id": self.state.machine_arn, "Name": self.state.machine_name},
            "State": state,
        }
        if token:
            context["Task"] = {"Token": token}
        inner = place
        while inner.parent is not None:
            if isinstance(inner.parent.state, Map):
                context["Map"] = {"Item": {"Index": inner.index, "Value": inner.frame.item}}
                break
            inner = inner.parent
        return context

    def _execution_context(self) -> dict[str, Json]:
        state = self.state
        context = {
            "Id": state.arn,
            "Input": state.input,
            "StartTime": clock.iso(state.started_at_ms),
            "Name": state.name,
            "RoleArn": state.role_arn,
            "RedriveCount": state.redrive_count,
        }
        if state.redriven_at_ms is not None:
            context["RedriveTime"] = clock.iso(state.redriven_at_ms)
        return context


def _limit_cause(name: str) -> str:
    return f"The state/task '{name}' returned a result with a size exceeding the maximum number of bytes service limit."
