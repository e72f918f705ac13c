"""Map states in mode DISTRIBUTED: what a map run is told, and what its end means. Children and items are not known here."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from entrepot import ids
from entrepot.services.stepfunctions.happenings import Continued, MapRunBroken, MapRunDone, ScheduledMapRun
from entrepot.services.stepfunctions.language.definition import Map, StateMachine
from entrepot.services.stepfunctions.language.distributed import Amount, Distribution
from entrepot.services.stepfunctions.language.evaluation import DATA_LIMIT_EXCEEDED, Json, Scope, StatesError
from entrepot.services.stepfunctions.language.jsonata import JsonataScope
from entrepot.services.stepfunctions.state import ExecutionState, Phase

from .base import Step, cause_in, limit_cause, too_large
from .failing import Failing
from .places import Place, places

Select: TypeAlias = Callable[[int, str | None, Json, str], Json]
"""`select(index, key, item, source)`: what ItemSelector makes of an item. Raises `StatesError`."""

STATE_DATA = "STATE_DATA"
"""`$$.Map.Item.Source` of items that come from the state's input."""


class MapRuns(Failing):
    """What a step does about map runs."""

    def _map_run(self, place: Place, state: Map, distribution: Distribution) -> None:
        frame = place.frame
        scope = self._effective(place)
        items = None if distribution.reader is not None else _items(state, scope)
        self._record(place, "MapStateStarted", {"length": len(items or ())})
        task_id = self.state.last_task_id + 1
        run = self._scheduled(place, state, distribution, scope, items, task_id)
        frame.token = run.arn
        self.state.last_task_id = frame.task_id = task_id
        self._record(place, "MapRunStarted", {"mapRunArn": frame.token})
        frame.phase = Phase.MAP_RUN
        self.map_runs.append(run)

    def _scheduled(
        self,
        place: Place,
        state: Map,
        distribution: Distribution,
        scope: Scope,
        items: Sequence[tuple[str | None, Json]] | None,
        task_id: int,
    ) -> ScheduledMapRun:
        reader, batcher, writer = distribution.reader, distribution.batcher, distribution.writer
        concurrency = state.concurrency(scope)
        count, percentage = state.tolerated_count, state.tolerated_percentage
        machine_arn = self.state.machine_arn.replace(":stateMachine:", ":mapRun:", 1)
        uuid = ids.derived_uuid(self.state.arn, str(self.state.redrive_count), str(task_id), repr(self.random))
        batch_input = None
        if batcher is not None and batcher.batch_input is not None:
            batch_input = batcher.batch_input.evaluate(scope)
        return ScheduledMapRun(
            task_id=task_id,
            arn=f"{machine_arn}/{distribution.label}:{uuid}",
            state=state,
            items=items,
            parameters=reader.parameters.evaluate(scope)
            if reader is not None and reader.parameters is not None
            else {},
            max_items=_integer(reader.max_items, scope) if reader is not None else None,
            batch_items=_integer(batcher.max_items, scope) if batcher is not None else None,
            batch_bytes=_integer(batcher.max_bytes, scope) if batcher is not None else None,
            batch_input=batch_input,
            writer=writer.parameters.evaluate(scope) if writer is not None and writer.parameters is not None else None,
            max_concurrency=concurrency,
            tolerated_count=None if count is None else count.not_negative(scope),
            tolerated_percentage=None if percentage is None else percentage.percentage(scope),
        )

    def _map_run_ended(self, happening: MapRunDone | MapRunBroken) -> None:
        for place in places(self.machine, self.state):
            if place.frame.phase is Phase.MAP_RUN and place.frame.task_id == happening.task_id:
                if isinstance(happening, MapRunDone):
                    self._guard(place, self._map_run_done, happening.output)
                else:
                    self._map_run_broken(place, happening.error, happening.cause)
                return

    def _map_run_done(self, place: Place, output: Json) -> None:
        state = place.state
        assert isinstance(state, Map)
        if too_large(self._text(output)):
            self._map_run_broken(place, DATA_LIMIT_EXCEEDED, limit_cause(state.name))
            return
        begun = place.frame.last_event
        self._record(place, "MapRunSucceeded", {})
        self._record(place, "MapStateSucceeded", {})
        place.frame.last_event = begun  # recorded executions show it: MapStateExited comes after MapRunStarted
        self._finish_result(place, state, output)

    def _map_run_broken(self, place: Place, error: str, cause: str | None) -> None:
        details: dict[str, Any] = {"error": error}
        if cause is not None:
            details["cause"] = cause
        self._record(place, "MapRunFailed", details)
        self._state_failed(place, error, cause, by_child=True)

    def _redrive_map_run(self, place: Place) -> None:
        frame = place.frame
        self._record(place, "MapRunRedriven", {"mapRunArn": frame.token, "redriveCount": self.state.redrive_count})
        frame.phase = Phase.MAP_RUN
        self.redriven_map_runs.append(frame.task_id)


def _integer(amount: Amount | None, scope: Scope) -> int | None:
    return None if amount is None else amount.integer(scope)


def _items(state: Map, scope: Scope) -> list[tuple[str | None, Json]]:
    """Return (key, item) of the state's own items; a JSON object has keys, an array None. Raises `StatesError`."""
    found = state.mapped(scope)
    return list(found.items()) if isinstance(found, dict) else [(None, item) for item in found]


def awaiting(machine: StateMachine, state: ExecutionState, task_id: int) -> tuple[Map, Select] | None:
    """Return the Map state that waits for the map run of a task, and what makes an item the input of a child, or None."""
    for place in places(machine, state):
        if place.frame.phase is Phase.MAP_RUN and place.frame.task_id == task_id and isinstance(place.state, Map):
            return place.state, _selector(Step(machine, state, Continued(at_ms=place.frame.entered_at_ms)), place)
    return None


def _selector(step: Step, place: Place) -> Select:
    """Return what ItemSelector does; its errors are told as errors of the state."""
    state = place.state
    assert isinstance(state, Map)
    template = state.item_selector
    if template is None:
        return lambda _index, _key, item, _source: item
    scope = step.scope(place)
    data = scope.data if state.is_jsonata else step.select(state.input_path, scope)

    def select(index: int, key: str | None, item: Json, source: str) -> Json:
        told: dict[str, Json] = {"Index": index, "Value": item, "Source": source}
        if key is not None:
            told["Key"] = key
        context = {**scope.context, "Map": {"Item": told}}
        try:
            if state.is_jsonata:
                return template.evaluate(JsonataScope({**data, "context": context}, context, scope.variables))
            return template.evaluate(Scope(data, context, scope.variables))
        except StatesError as error:
            raise StatesError(error.error, cause_in(place, error)) from error

    return select
