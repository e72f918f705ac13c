"""What every part of a step needs: events, texts, scopes, the context object, errors of the language.

The parts call one another through this class: what one of them owns and others need is declared here.
"""

from collections import deque
from collections.abc import Mapping
from typing import Any

from entrepot import clock
from entrepot.services.stepfunctions.happenings import Happening, ScheduledMapRun, ScheduledTask, Transition
from entrepot.services.stepfunctions.history import HISTORY_LIMIT_EVENTS, Event
from entrepot.services.stepfunctions.language.definition import Map, Parallel, StateMachine, Task
from entrepot.services.stepfunctions.language.evaluation import Json, QueryEvaluationError, Scope, StatesError
from entrepot.services.stepfunctions.language.json_text import dumps
from entrepot.services.stepfunctions.language.jsonata import JsonataScope
from entrepot.services.stepfunctions.language.path import Path
from entrepot.services.stepfunctions.state import ExecutionState

from .places import Place, next_due_ms

DATA_LIMIT_BYTES = 262_144
"""Largest input, output or result, as UTF-8 text. Source: Step Functions' service quotas."""

RETRIED = (Task, Parallel, Map)
"""The states with Retry and Catch."""


class HistoryFull(Exception):
    """There is room for one more event only: the last one."""


def too_large(text: str) -> bool:
    """Whether `text` is beyond `DATA_LIMIT_BYTES` in UTF-8."""
    length = len(text)
    return length > DATA_LIMIT_BYTES or (4 * length > DATA_LIMIT_BYTES and len(text.encode()) > DATA_LIMIT_BYTES)


def cause_in(place: Place, error: StatesError) -> str:
    """Return AWS's cause for an error of the language in a state."""
    where = f"the state '{place.frame.state}' (entered at the event id #{place.frame.entered_event})"
    return f"An error occurred while executing {where}. {error.cause}"


def limit_cause(name: str) -> str:
    """Return AWS's cause for a result that is too large."""
    return f"The state/task '{name}' returned a result with a size exceeding the maximum number of bytes service limit."


class Step:
    """One step under way, on its own copy of the state."""

    def __init__(self, machine: StateMachine, state: ExecutionState, happening: Happening) -> None:
        self.machine = machine
        self.state = state
        self.at_ms = happening.at_ms
        self.random = happening.random
        self.events: list[Event] = []
        self.tasks: list[ScheduledTask] = []
        self.map_runs: list[ScheduledMapRun] = []
        self.aborted_map_runs: list[int] = []
        self.redriven_map_runs: list[int] = []
        self.steps = 0
        self._ready: deque[Place] = deque()
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
            self.map_runs if running else [],
            self.aborted_map_runs,
            self.redriven_map_runs if running else [],
        )

    # ── owned by one part, needed by others ──────────────────────────────────────────────────────────────────────

    def _state_failed(
        self, place: Place, error: str | None, cause: str | None, *, by_child: bool = False, also: str | None = None
    ) -> None:
        """Retry, catch, or fail the workflow around the state. `also`: another name that Retry and Catch may use."""
        raise NotImplementedError

    def _start_iterations(self, place: Place) -> None:
        """Begin as many pending iterations as may run at once."""
        raise NotImplementedError

    # ── for all ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _guard(self, place: Place, work: Any, *arguments: Any) -> None:
        """Do `work(place, …)`; an error of the language fails the state."""
        try:
            work(place, *arguments)
        except StatesError as error:
            cause = cause_in(place, error)
            by_child = False
            if isinstance(error, QueryEvaluationError):
                self._record_evaluation_failed(place, error, cause)
                by_child = place.state.type in ("Parallel", "Map")
            self._state_failed(place, error.error, cause, by_child=by_child)

    def _record_evaluation_failed(self, place: Place, error: QueryEvaluationError, cause: str) -> None:
        details = {"error": error.error, "cause": cause, "location": error.location, "state": place.frame.state}
        self._record(place, "EvaluationFailed", details)

    def _record(self, place: Place | None, event_type: str, details: Mapping[str, Any]) -> int:
        state = self.state
        if state.last_event >= HISTORY_LIMIT_EVENTS - 1 and state.status == "RUNNING":
            raise HistoryFull
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
    def select(path: Path | None, scope: Scope) -> Json:
        """Return what InputPath or OutputPath gives; null gives `{}`."""
        return {} if path is None else path.evaluate(scope)

    def scope(self, place: Place) -> Scope:
        """Return what the expressions of a state see."""
        context = self._context(place)
        if place.state.is_jsonata:
            return JsonataScope({"input": place.frame.input, "context": context}, context, place.variables())
        return Scope(place.frame.input, context, place.variables())

    def _effective(self, place: Place) -> Scope:
        """Return the scope over the effective input, that of InputPath."""
        scope = self.scope(place)
        return scope if place.state.is_jsonata else scope.with_data(self.select(place.state.input_path, scope))

    @staticmethod
    def _arguments(place: Place, state: Task | Parallel, scope: Scope) -> Json:
        if state.parameters is not None:
            return state.parameters.evaluate(scope)
        return place.frame.input if state.is_jsonata else scope.data

    def _context(self, place: Place) -> dict[str, Json]:
        """Return the context object, `$$`."""
        if self._execution is None:
            self._execution = self._execution_context()
        state: dict[str, Json] = {"Name": place.frame.state, "EnteredTime": clock.iso(place.frame.entered_at_ms)}
        if isinstance(place.state, RETRIED):
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
