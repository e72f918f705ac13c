"""One state run alone, as TestState runs it, with what every stage of its data flow gave.

The stages are those of https://docs.aws.amazon.com/step-functions/latest/dg/test-state-isolation.html. Nothing is recorded.
Calls and waiting are the caller's: they come in as `perform` and `pause`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from entrepot import clock, ids

from . import single_map
from .errors import ValidationException
from .failures import TaskError
from .http_task import Exchange
from .interpreter import too_large
from .language.definition import (
    Catcher,
    Choice,
    Fail,
    Map,
    Parallel,
    Pass,
    State,
    Succeed,
    Task,
    Wait,
    error_matches,
)
from .language.evaluation import (
    DATA_LIMIT_EXCEEDED,
    EXCEED_TOLERATED_FAILURE_THRESHOLD,
    NO_CHOICE_MATCHED,
    Json,
    Scope,
    StatesError,
)
from .language.json_text import dumps
from .language.jsonata import JsonataScope
from .language.parse import SINGLE_STATE_NAME
from .language.template import Template
from .state import ExecutionState

Perform: TypeAlias = Callable[[Task, Json, str | None], Awaitable[Json]]
"""`perform(task, arguments, role_arn)`: does what the task's resource stands for. Raises TaskError."""

Pause: TypeAlias = Callable[[float], Awaitable[None]]
"""Waits for so many seconds."""


@dataclass(frozen=True, slots=True)
class Mock:
    """What is to be taken for the outcome of the state's call: a result, or an error."""

    result: Json = None
    fails: bool = False
    error: str | None = None
    cause: str | None = None


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What is said to have happened before: AWS's TestStateConfiguration."""

    retries_made: int = 0
    failed_iterations: int = 0
    reader_data: str | None = None


@dataclass(slots=True)
class Outcome:
    """What became of the state. `stages` has the values of its data flow by AWS's names of them, in snake_case."""

    status: str = "SUCCEEDED"
    output: Json = None
    error: str | None = None
    cause: str | None = None
    next: str | None = None
    stages: dict[str, Json] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)
    """max_concurrency, tolerated_failure_count, tolerated_failure_percentage of a Map."""
    error_details: dict[str, int] = field(default_factory=dict)
    """retry_index, retry_backoff_interval_seconds, catch_index."""
    variables: Mapping[str, Json] = field(default_factory=dict)
    exchange: Exchange | None = None
    """What an HTTP task sent and was answered."""


class SingleState:
    """One run of one state."""

    def __init__(
        self,
        state: State,
        input_: Json,
        context: dict[str, Json],
        variables: Mapping[str, Json],
        circumstances: Circumstances,
        mock: Mock | None,
        entered_at_ms: int,
    ) -> None:
        self._state = state
        self._input = input_
        self._context = context
        self._circumstances = circumstances
        self._mock = mock
        self._entered_at_ms = entered_at_ms
        self._arguments: Json = None
        self._role_arn: str | None = None
        self.outcome = Outcome(stages={"input": input_}, variables=variables)

    async def run(self, perform: Perform, pause: Pause) -> Outcome:
        """Run the state and return what became of it. Raises ValidationException when the mock does not fit."""
        # Expressions may take a while: not on the event loop.
        await asyncio.to_thread(self._guarded, self._before)
        state = self._state
        if self.outcome.status == "SUCCEEDED" and isinstance(state, Wait):
            await pause(self._wait_s)
        if self.outcome.status == "SUCCEEDED" and isinstance(state, Task):
            try:
                result = self._mocked() if self._mock else await perform(state, self._arguments, self._role_arn)
            except TaskError as error:
                await asyncio.to_thread(self._fail, error.error, error.cause)
            else:
                await asyncio.to_thread(self._guarded, lambda: self._finish_task(result))
        return self.outcome

    def _mocked(self) -> Json:
        mock = self._mock
        assert mock is not None
        if mock.fails:
            raise TaskError(mock.error or "", mock.cause)
        return mock.result

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except StatesError as error:
            self._fail(error.error, error.cause)

    # ── before the call ──────────────────────────────────────────────────────────────────────────────────────────

    _wait_s = 0.0

    def _before(self) -> None:
        match self._state:
            case Pass() as state:
                self._pass(state)
            case Choice() as state:
                self._choose(state)
            case Wait() as state:
                until_ms = state.until_ms(self._effective(), self._entered_at_ms)
                self._wait_s = max(0.0, (until_ms - self._entered_at_ms) / 1_000)
                self._leave_with_input(state)
            case Succeed() as state:
                self._leave_with_input(state)
            case Fail() as state:
                error, cause = state.evaluate(self._scope())
                self._fail(error, cause)
            case Task() as state:
                self._prepare_task(state)
            case Parallel() as state:
                self._parallel(state)
            case Map() as state:
                self._map(state)

    def _pass(self, state: Pass) -> None:
        scope = self._scope()
        if state.is_jsonata:
            self._leave(scope, self._input, state.output, state.assign, state.next)
            return
        if state.has_result:
            result = self._note("result", state.result)
        else:
            result = self._note("after_input_path", self._select(state.input_path, scope))
            if state.parameters is not None:
                result = state.parameters.evaluate(scope.with_data(result))
            self._note("after_parameters", result)
        self._note("after_result_selector", result)
        self._finish(state, scope, result)

    def _choose(self, state: Choice) -> None:
        scope = self._effective()
        chosen, assign, output = state.default, state.assign, state.output
        for rule in state.choices:
            if rule.condition.holds(scope):
                chosen, assign, output = rule.next, rule.assign, rule.output
                break
        if chosen is None:
            text = "Failed to transition out of the state. The state does not point to a next state."
            raise StatesError(NO_CHOICE_MATCHED, text)
        if state.is_jsonata:
            self._leave(scope, self._input, output, assign, chosen)
        else:
            self._exit(self._select(state.output_path, scope), self._assigned(assign, scope), chosen)

    def _leave_with_input(self, state: State) -> None:
        scope = self._effective()
        if state.is_jsonata:
            self._leave(scope, self._input, state.output, state.assign, state.next)
        else:
            self._exit(self._select(state.output_path, scope), self._assigned(state.assign, scope), state.next)

    def _prepare_task(self, state: Task) -> None:
        scope = self._effective()
        self._arguments = self._evaluated_arguments(state, scope)
        self._note("after_arguments" if state.is_jsonata else "after_parameters", self._arguments)
        for limit in (state.timeout, state.heartbeat):
            if limit is not None:
                limit.evaluate(scope)
        if state.credentials is not None:
            self._role_arn = state.credentials.evaluate(scope).get("RoleArn")

    def _parallel(self, state: Parallel) -> None:
        scope = self._scope()
        if not state.is_jsonata:
            scope = scope.with_data(self._select(state.input_path, scope))
        self._evaluated_arguments(state, scope)  # AWS tells nothing of it (recorded), but for what goes wrong
        self._take_mock(state)

    def _map(self, state: Map) -> None:
        scope = self._effective()
        found = single_map.entries(state, scope, self._circumstances.reader_data)
        if self._circumstances.reader_data is None and not state.is_jsonata:
            self._note("after_items_path", single_map.values(found))
        elif single_map.has_pointer(state):
            self._note("after_items_pointer", single_map.values(found))
        self.outcome.numbers["max_concurrency"] = state.concurrency(scope)
        chosen = single_map.selected(state, scope, found)
        if state.item_selector is not None:
            self._note("after_item_selector", chosen)
        batches = single_map.batched(state, scope, chosen)
        if batches is not None:
            self._note("after_item_batcher", batches)
        self._check_failures(state, scope, len(chosen if batches is None else batches))
        self._take_mock(state)

    def _check_failures(self, state: Map, scope: Scope, iterations: int) -> None:
        """Raise when more iterations are said to have failed than there are, or than may."""
        failed = self._circumstances.failed_iterations
        if failed > iterations:
            raise ValidationException(
                "Map iteration failure count must be less than or equal to the number of Map iterations"
            )
        count, percentage = single_map.tolerance(state, scope)
        if count is not None:
            self.outcome.numbers["tolerated_failure_count"] = count
        if percentage is not None:
            self.outcome.numbers["tolerated_failure_percentage"] = float(percentage)
        beyond_count = count is not None and failed > count
        if beyond_count or (percentage is not None and iterations and 100 * failed > percentage * iterations):
            # Without a tolerance AWS lets the mocked result stand (recorded), whatever is said to have failed.
            text = "The specified tolerated failure threshold was exceeded"
            raise StatesError(EXCEED_TOLERATED_FAILURE_THRESHOLD, text)

    def _take_mock(self, state: Parallel | Map) -> None:
        try:
            result = self._mocked()
        except TaskError as error:
            self._fail(error.error, error.cause)
            return
        if isinstance(state, Map) and single_map.exports(state):
            if not isinstance(result, dict):
                raise ValidationException("Mocked result must be a JSON object.")
        elif not isinstance(result, list):
            raise ValidationException("Mocked result must be an array.")
        if isinstance(state, Parallel) and len(result) != len(state.branches):
            raise ValidationException(
                "Mocked result must contain the same number of items as number of Parallel branches."
            )
        self._finish_result(state, result)

    # ── after the call ───────────────────────────────────────────────────────────────────────────────────────────

    def _finish_task(self, result: Json) -> None:
        assert isinstance(self._state, Task)
        self._finish_result(self._state, self._note("result", result))

    def _finish_result(self, state: Task | Parallel | Map, result: Json) -> None:
        scope = self._scope()
        if isinstance(scope, JsonataScope):
            self._leave(scope.with_states(result=result), result, state.output, state.assign, state.next)
            return
        if state.result_selector is not None:
            result = state.result_selector.evaluate(scope.with_data(result))
        self._finish(state, scope, self._note("after_result_selector", result))

    def _finish(self, state: Pass | Task | Parallel | Map, scope: Scope, result: Json) -> None:
        data = self._input
        if state.result_path is not None:
            data = state.result_path.place(data, result)
        self._note("after_result_path", data)
        assigned = self._assigned(state.assign, scope.with_data(result))
        self._exit(self._select(state.output_path, scope.with_data(data)), assigned, state.next)

    def _leave(
        self, scope: Scope, unchanged: Json, output: Template | None, assign: Template | None, following: str | None
    ) -> None:
        assigned = self._assigned(assign, scope)
        self._exit(output.evaluate(scope) if output is not None else unchanged, assigned, following)

    def _exit(self, output: Json, assigned: Mapping[str, Json], following: str | None) -> None:
        outcome = self.outcome
        if too_large(dumps(output)):
            text = (
                f"The state/task '{self._state.name}' returned a result with a size exceeding the maximum number of "
                "bytes service limit."
            )
            raise StatesError(DATA_LIMIT_EXCEEDED, text)
        outcome.output, outcome.next = output, following
        outcome.variables = {**outcome.variables, **assigned}

    # ── failure ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _fail(self, error: str | None, cause: str | None) -> None:
        outcome, state = self.outcome, self._state
        outcome.status, outcome.error, outcome.cause, outcome.output = "FAILED", error, cause, None
        if not isinstance(state, Task | Parallel | Map):
            return
        for index, retrier in enumerate(state.retry):
            if error_matches(retrier.error_equals, error or ""):
                outcome.error_details["retry_index"] = index
                made = self._circumstances.retries_made
                if made < retrier.max_attempts:
                    outcome.status = "RETRIABLE"
                    outcome.error_details["retry_backoff_interval_seconds"] = round(retrier.delay_s(made + 1))
                    return
                break
        for index, catcher in enumerate(state.catch):
            if error_matches(catcher.error_equals, error or ""):
                try:
                    self._catch(catcher, {"Error": error} if cause is None else {"Error": error, "Cause": cause})
                except StatesError as broken:
                    outcome.error, outcome.cause = broken.error, broken.cause
                    return
                outcome.error_details["catch_index"] = index
                outcome.status = "CAUGHT_ERROR"
                return

    def _catch(self, catcher: Catcher, error_output: dict[str, Json]) -> None:
        scope = self._scope()
        if isinstance(scope, JsonataScope):
            scope = scope.with_states(errorOutput=error_output)
            self._leave(scope, error_output, catcher.output, catcher.assign, catcher.next)
            return
        data = self._input
        if catcher.result_path is not None:
            data = catcher.result_path.place(data, error_output)
        self._exit(data, self._assigned(catcher.assign, scope.with_data(error_output)), catcher.next)

    # ── what all of them need ────────────────────────────────────────────────────────────────────────────────────

    def _note(self, stage: str, value: Any) -> Any:
        self.outcome.stages[stage] = value
        return value

    def _scope(self) -> Scope:
        if self._state.is_jsonata:
            data = {"input": self._input, "context": self._context}
            return JsonataScope(data, self._context, self.outcome.variables)
        return Scope(self._input, self._context, self.outcome.variables)

    def _effective(self) -> Scope:
        scope = self._scope()
        if self._state.is_jsonata:
            return scope
        return scope.with_data(self._note("after_input_path", self._select(self._state.input_path, scope)))

    def _evaluated_arguments(self, state: Task | Parallel, scope: Scope) -> Json:
        if state.parameters is not None:
            return state.parameters.evaluate(scope)
        return self._input if state.is_jsonata else scope.data

    @staticmethod
    def _select(path: Any, scope: Scope) -> Json:
        return {} if path is None else path.evaluate(scope)

    @staticmethod
    def _assigned(assign: Template | None, scope: Scope) -> Mapping[str, Json]:
        return {} if assign is None else assign.evaluate(scope)


def alone_context(alone: ExecutionState, state: State) -> dict[str, Json]:
    """Return the context object of a state that is tested without one being given."""
    told: dict[str, Json] = {"Name": SINGLE_STATE_NAME, "EnteredTime": clock.iso(alone.started_at_ms)}
    if isinstance(state, Task | Parallel | Map):
        told["RetryCount"] = 0
    context: dict[str, Json] = {
        "Execution": {
            "Id": alone.arn,
            "Input": alone.input,
            "Name": alone.name,
            "RoleArn": alone.role_arn or None,
            "StartTime": clock.iso(alone.started_at_ms),
        },
        "StateMachine": {"Id": alone.machine_arn, "Name": alone.machine_name},
        "State": told,
    }
    if isinstance(state, Task) and state.resource.waits_for_token:
        context["Task"] = {"Token": ids.random_uuid()}
    return context
