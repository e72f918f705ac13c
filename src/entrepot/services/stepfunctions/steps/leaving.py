"""Leaving states: results, Output and Assign, the end of a workflow, the join of branches and iterations."""

from collections.abc import Mapping
from typing import Any

from entrepot.services.stepfunctions.language.definition import Map, Parallel, Pass, Task
from entrepot.services.stepfunctions.language.evaluation import DATA_LIMIT_EXCEEDED, Json, Scope
from entrepot.services.stepfunctions.language.json_text import dumps
from entrepot.services.stepfunctions.language.jsonata import JsonataScope
from entrepot.services.stepfunctions.language.template import Template
from entrepot.services.stepfunctions.state import Phase

from .base import Step, limit_cause, too_large
from .places import Place


class Leaving(Step):
    """How a state is left."""

    def _finish(self, place: Place, scope: Scope, result: Json) -> None:
        """Exit a state that has a result. Assign and OutputPath see the variables as they were."""
        state = place.state
        assert isinstance(state, Pass | Task | Parallel | Map)
        data = place.frame.input
        if state.result_path is not None:
            data = state.result_path.place(data, result)
        assigned = state.assign.evaluate(scope.with_data(result)) if state.assign is not None else None
        self._exit(place, self.select(state.output_path, scope.with_data(data)), assigned, state.next)

    def _leave(
        self,
        place: Place,
        scope: Scope,
        unchanged: Json,
        output: Template | None,
        assign: Template | None,
        following: str | None,
    ) -> None:
        """Exit a state in JSONata: Assign and Output see the same; without Output `unchanged` is the output."""
        assigned = assign.evaluate(scope) if assign is not None else None
        self._exit(place, output.evaluate(scope) if output is not None else unchanged, assigned, following)

    def _leave_with_input(self, place: Place) -> None:
        """Exit a state that has no result: Wait, Succeed."""
        state = place.state
        scope = self._effective(place)
        if state.is_jsonata:
            self._leave(place, scope, place.frame.input, state.output, state.assign, state.next)
            return
        assigned = state.assign.evaluate(scope) if state.assign is not None else None
        self._exit(place, self.select(state.output_path, scope), assigned, state.next)

    def _exit(self, place: Place, output: Json, assigned: Mapping[str, Json] | None, following: str | None) -> None:
        frame, state = place.frame, place.state
        text = self._text(output)
        if too_large(text):
            self._state_failed(place, DATA_LIMIT_EXCEEDED, limit_cause(state.name))
            return
        details: dict[str, Any] = {"name": state.name, "output": text}
        if assigned:
            details["assignedVariables"] = {name: dumps(value) for name, value in assigned.items()}
            frame.variables = {**frame.variables, **assigned}
        self._record(place, f"{state.type}StateExited", details)
        frame.input, frame.attempts, frame.due_at_ms = output, (), None
        frame.forget_children()
        if following is not None:
            frame.state, frame.phase = following, Phase.READY
            self._ready.append(place)
            return
        frame.phase = Phase.DONE
        self._workflow_ended(place)

    def _workflow_ended(self, place: Place) -> None:
        parent = place.parent
        if parent is None:
            self.state.status = "SUCCEEDED"
            self._record(place, "ExecutionSucceeded", {"output": self._text(place.frame.input)})
            return
        if isinstance(parent.state, Map):
            self._record(place, "MapIterationSucceeded", {"name": parent.frame.state, "index": place.index})
            parent.frame.last_event = place.frame.last_event
            parent.frame.children = [child for child in parent.frame.children if child is not place.frame]
            parent.frame.outputs[place.index] = place.frame.input
            self._guard(parent, self._start_iterations)
        parent.frame.last_event = place.frame.last_event
        self._check_children(parent)

    def _check_children(self, place: Place) -> None:
        frame = place.frame
        if frame.phase is not Phase.CHILDREN:
            return
        if frame.items is None:
            done = all(child.phase is Phase.DONE for child in frame.children)
        else:
            done = len(frame.outputs) == len(frame.items)
        if done:
            self._guard(place, self._join)

    def _join(self, place: Place) -> None:
        """All branches or iterations are done."""
        state, frame = place.state, place.frame
        assert isinstance(state, Parallel | Map)
        if isinstance(state, Map):
            self._record(place, "MapStateSucceeded", {})
        result: Json
        if frame.items is None:
            result = [child.input for child in frame.children]
        else:
            result = [frame.outputs[index] for index in range(len(frame.items))]
        self._finish_result(place, state, result)

    def _finish_result(self, place: Place, state: Task | Parallel | Map, result: Json) -> None:
        scope = self.scope(place)
        if isinstance(scope, JsonataScope):
            self._leave(place, scope.with_states(result=result), result, state.output, state.assign, state.next)
            return
        if state.result_selector is not None:
            result = state.result_selector.evaluate(scope.with_data(result))
        self._finish(place, scope, result)
