"""Failure: Retry, Catch, what it does to the workflow around, and the end of an execution without success."""

from typing import Any

from entrepot.services.stepfunctions.history import HISTORY_LIMIT_EVENTS
from entrepot.services.stepfunctions.language.definition import Map, Parallel, Task, error_matches
from entrepot.services.stepfunctions.language.evaluation import RUNTIME, Json
from entrepot.services.stepfunctions.language.jsonata import JsonataScope
from entrepot.services.stepfunctions.state import Phase

from .base import RETRIED
from .leaving import Leaving
from .places import Place, places


class Failing(Leaving):
    """What becomes of a state that fails, and of those around it."""

    def _state_failed(
        self, place: Place, error: str | None, cause: str | None, *, by_child: bool = False, also: str | None = None
    ) -> None:
        """Retry, catch, or fail the workflow around the state. `also`: another name that Retry and Catch may use."""
        state, frame = place.state, place.frame
        frame.due_at_ms = None
        if isinstance(state, RETRIED):
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

    def _retry(self, place: Place, state: Task | Parallel | Map, error: str, also: str | None) -> bool:
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
            frame.attempts = tuple(attempts)
            frame.forget_children()
            frame.phase, frame.due_at_ms = Phase.RETRY, self.at_ms + round(delay_s * 1_000)
            return True
        return False

    def _catch(self, place: Place, catcher: Any, error_output: dict[str, Json]) -> None:
        scope = self.scope(place)
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

    def _workflow_failed(self, place: Place, error: str | None, cause: str | None) -> None:
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

    def _abort(self, place: Place) -> bool:
        """Stop a frame and all in it; say whether there was something to stop."""
        frame = place.frame
        if frame.phase in (Phase.DONE, Phase.PENDING, Phase.FAILED, Phase.ABORTED):
            return False
        if frame.phase is Phase.CHILDREN:
            for child in place.children():
                self._abort(child)
        if frame.phase is Phase.READY:
            return True  # it never entered the state, and enters it when redriven
        if frame.phase is Phase.MAP_RUN:
            self._abort_map_run(place)
        if place.state.type in ("Task", "Wait", "Parallel", "Map"):
            self._record(place, f"{place.state.type}StateAborted", {})
        frame.phase, frame.due_at_ms = Phase.ABORTED, None
        return True

    def _end(self, status: str, event: str, error: str | None, cause: str | None) -> None:
        """End the execution without success."""
        details = {name: text for name, text in (("error", error), ("cause", cause)) if text is not None}
        for place in list(places(self.machine, self.state)):
            if place.frame.phase is Phase.MAP_RUN:
                self._abort_map_run(place)
        for frame in self.state.frames():
            frame.due_at_ms = None
            if frame.phase in (
                Phase.AGAIN,
                Phase.TASK,
                Phase.WAIT,
                Phase.RETRY,
                Phase.CHILDREN,
                Phase.AWAIT,
                Phase.MAP_RUN,
            ):
                frame.phase = Phase.ABORTED
        self.state.status = status
        self._record(Place(self.state.root, self.machine), event, details)

    def _abort_map_run(self, place: Place) -> None:
        self.aborted_map_runs.append(place.frame.task_id)
        if self.state.last_event < HISTORY_LIMIT_EVENTS - 2:
            self._record(place, "MapRunAborted", {})

    def end_full(self) -> None:
        """The history has no room: this is its last event."""
        cause = f"The execution reached the maximum number of history events ({HISTORY_LIMIT_EVENTS})."
        self._end("FAILED", "ExecutionFailed", RUNTIME, cause)
