"""The state machine as immutable typed values: what `parse` makes and the interpreter walks.

Every path, template and intrinsic call in it is compiled. Nothing here evaluates, waits or knows an execution.
Source of the names: https://states-language.net/spec.html.

Conventions:

* `next is None` on a state means End (or a terminal state).
* `input_path`/`output_path`: `$` when absent; None when null in the definition (gives `{}`).
* `result_path`: `$` when absent; None when null (the result is dropped, the input passes).
* templates (`parameters`, `result_selector`, `assign` …): None when absent.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar

from .choice import Condition
from .distributed import Amount, Distribution
from .evaluation import (
    ALL,
    DATA_LIMIT_EXCEEDED,
    RUNTIME,
    TASK_FAILED,
    TIMEOUT,
    Expression,
    Json,
    QueryEvaluationError,
    Scope,
    StatesError,
    shown,
)
from .jsonata import JsonataExpression
from .path import Path, ReferencePath
from .template import Template
from .timestamps import timestamp_ms

MAX_SECONDS = 99_999_999
"""The greatest number of seconds in any field, as AWS has it."""

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")


class QueryLanguage(Enum):
    """The language of a state's expressions."""

    JSONPATH = "JSONPath"
    JSONATA = "JSONata"


class Integration(Enum):
    """What kind of thing a Task's resource is."""

    FUNCTION_ARN = "function"
    """`arn:aws:lambda:…:function:NAME[:QUALIFIER]`: the result is the function's payload. History: LambdaFunction*."""

    OPTIMIZED = "optimized"
    """`arn:aws:states:::lambda:invoke` and the like. History: Task*."""

    ACTIVITY = "activity"
    """`arn:aws:states:…:activity:NAME`: a worker asks for it with GetActivityTask. History: Activity*."""

    AWS_SDK = "aws-sdk"
    """`arn:aws:states:::aws-sdk:SERVICE:ACTION`. History: Task*."""


@dataclass(frozen=True, slots=True)
class Resource:
    """The Resource of a Task, taken apart.

    `arn:aws:states:::aws-sdk:s3:copyObject`: service "s3", action "copyObject", history's resourceType "aws-sdk:s3".
    `arn:aws:states:::lambda:invoke`: service "lambda", action "invoke", resourceType "lambda".
    A function's ARN: service "lambda", action "invoke".
    """

    arn: str
    integration: Integration
    service: str
    action: str
    pattern: str = ""
    """`.waitForTaskToken`, `.sync`, `.sync:2`; empty when the call's own result is the task's."""

    @property
    def resource(self) -> str:
        """`resource` of history events: `invoke`, `invoke.waitForTaskToken`."""
        return self.action + self.pattern

    @property
    def waits_for_token(self) -> bool:
        """Whether SendTaskSuccess or SendTaskFailure ends the task."""
        return self.pattern == ".waitForTaskToken"

    @property
    def waits_for_execution(self) -> bool:
        """Whether the end of the execution that the call starts ends the task."""
        return self.pattern.startswith(".sync")

    @property
    def resource_type(self) -> str:
        """`resourceType` of history events: `lambda`, `aws-sdk:s3`."""
        return f"aws-sdk:{self.service}" if self.integration is Integration.AWS_SDK else self.service


@dataclass(frozen=True, slots=True)
class Seconds:
    """A number of seconds, written in the definition or found (`TimeoutSeconds`, `TimeoutSecondsPath` …)."""

    value_s: int | None = None
    path: Path | None = None
    field: str = ""
    expression: JsonataExpression | None = None

    def evaluate(self, scope: Scope) -> int:
        """Return the seconds. Raises `StatesError` when the path or expression gives no integer in range."""
        if self.expression is not None:
            return _integer_from(self.expression, scope, lowest=1)
        if self.path is None:
            return self.value_s or 0
        return _integer_at(self.path, scope, lowest=1)


@dataclass(frozen=True, slots=True)
class Retrier:
    """One entry of Retry."""

    error_equals: tuple[str, ...]
    interval_s: int = 1
    max_attempts: int = 3
    backoff_rate: float = 2.0
    max_delay_s: int | None = None
    full_jitter: bool = False
    """JitterStrategy FULL."""

    def delay_s(self, attempt: int) -> float:
        """Return the seconds to wait before retry number `attempt` (1 is the first retry), without jitter."""
        delay = float(self.interval_s)
        ceiling = float(self.max_delay_s) if self.max_delay_s is not None else 31_622_400.0
        for _ in range(attempt - 1):
            delay *= self.backoff_rate
            if delay >= ceiling:
                return ceiling
        return min(delay, ceiling)


@dataclass(frozen=True, slots=True)
class Catcher:
    """One entry of Catch. `{"Error": …, "Cause": …}` is placed by `result_path` in the input; with JSONata `output` says."""

    error_equals: tuple[str, ...]
    next: str
    result_path: ReferencePath | None
    assign: Template | None = None
    output: Template | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What every state has."""

    type: ClassVar[str] = ""

    name: str
    input_path: Path | None
    output_path: Path | None
    next: str | None = None
    assign: Template | None = None
    comment: str | None = None
    query_language: QueryLanguage = QueryLanguage.JSONPATH
    output: Template | None = None
    """JSONata's Output; None when absent."""

    @property
    def is_jsonata(self) -> bool:
        """Whether its expressions are JSONata; they are then evaluated in a `JsonataScope`."""
        return self.query_language is QueryLanguage.JSONATA


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass(State):
    """Passes its input, its parameters or a fixed result on."""

    type: ClassVar[str] = "Pass"

    parameters: Template | None = None
    has_result: bool = False
    result: Json = None
    result_path: ReferencePath | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Task(State):
    """One unit of work."""

    type: ClassVar[str] = "Task"

    resource: Resource
    parameters: Template | None = None
    """Parameters, or JSONata's Arguments."""
    credentials: Template | None = None
    result_selector: Template | None = None
    result_path: ReferencePath | None
    retry: tuple[Retrier, ...] = ()
    catch: tuple[Catcher, ...] = ()
    timeout: Seconds | None = None
    heartbeat: Seconds | None = None


@dataclass(frozen=True, slots=True)
class ChoiceRule:
    """One entry of Choices."""

    condition: Condition
    next: str
    assign: Template | None = None
    output: Template | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice(State):
    """The first rule whose condition holds says where to go; `assign` of the state goes with `default`."""

    type: ClassVar[str] = "Choice"

    choices: tuple[ChoiceRule, ...]
    default: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait(State):
    """Waits for a time: exactly one of the six is set."""

    type: ClassVar[str] = "Wait"

    seconds: int | None = None
    seconds_path: Path | None = None
    timestamp_ms: int | None = None
    timestamp_path: Path | None = None
    seconds_expression: JsonataExpression | None = None
    timestamp_expression: JsonataExpression | None = None

    def until_ms(self, scope: Scope, entered_at_ms: int) -> int:
        """Return when the wait ends (ms since the epoch; may be in the past). Raises `StatesError`."""
        if self.seconds_expression is not None:
            return entered_at_ms + _integer_from(self.seconds_expression, scope, lowest=0) * 1_000
        if self.timestamp_expression is not None:
            return _timestamp_from(self.timestamp_expression, scope)
        if self.seconds is not None:
            return entered_at_ms + self.seconds * 1_000
        if self.timestamp_ms is not None:
            return self.timestamp_ms
        if self.seconds_path is not None:
            return entered_at_ms + _wait_seconds(self.seconds_path, scope) * 1_000
        assert self.timestamp_path is not None
        return _wait_timestamp_ms(self.timestamp_path, scope)


@dataclass(frozen=True, slots=True, kw_only=True)
class Succeed(State):
    """Ends its branch well."""

    type: ClassVar[str] = "Succeed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fail(State):
    """Ends its branch with an error; each of the two texts is fixed or found by an expression."""

    type: ClassVar[str] = "Fail"

    error: str | None = None
    error_path: Expression | None = None
    cause: str | None = None
    cause_path: Expression | None = None

    def evaluate(self, scope: Scope) -> tuple[str | None, str | None]:
        """Return (error, cause). Raises `StatesError` States.Runtime when an expression gives no string."""
        error = self.error if self.error_path is None else _text_at(self.error_path, "ErrorPath", scope)
        cause = self.cause if self.cause_path is None else _text_at(self.cause_path, "CausePath", scope)
        return error, cause


@dataclass(frozen=True, slots=True)
class Workflow:
    """A start state and states: the body of a machine, of a Parallel's branch, of a Map's processor."""

    start_at: str
    states: Mapping[str, State]
    comment: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parallel(State):
    """Runs all its branches on the same input; the result is the list of their outputs."""

    type: ClassVar[str] = "Parallel"

    branches: tuple[Workflow, ...]
    parameters: Template | None = None
    result_selector: Template | None = None
    result_path: ReferencePath | None
    retry: tuple[Retrier, ...] = ()
    catch: tuple[Catcher, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Map(State):
    """Runs its processor once per item; the result is the list of the outputs in the items' order."""

    type: ClassVar[str] = "Map"

    item_processor: Workflow
    items_path: Path
    items_template: Template | JsonataExpression | None = None
    """JSONata's Items; None means the state's input."""
    item_selector: Template | None = None
    """ItemSelector, or the older Parameters: evaluated per item with `$$.Map.Item.{Index,Value}` in the context."""
    max_concurrency: int = 0
    max_concurrency_path: Path | None = None
    max_concurrency_expression: JsonataExpression | None = None
    tolerated_count: Amount | None = None
    """ToleratedFailureCount; in mode INLINE it means nothing, but its expression must give a number."""
    tolerated_percentage: Amount | None = None
    """ToleratedFailurePercentage; likewise."""
    distribution: Distribution | None = None
    """What the mode DISTRIBUTED adds; None in mode INLINE."""
    result_selector: Template | None = None
    result_path: ReferencePath | None
    retry: tuple[Retrier, ...] = ()
    catch: tuple[Catcher, ...] = ()

    def items(self, scope: Scope) -> list[Json]:
        """Return the items. Raises `StatesError` when there is no list."""
        items = self.mapped(scope)
        assert isinstance(items, list)
        return items

    def mapped(self, scope: Scope) -> list[Json] | dict[str, Json]:
        """Return what is mapped over: a list, in mode DISTRIBUTED also an object. Raises `StatesError`."""
        kinds: tuple[Any, ...] = (list,) if self.distribution is None else (list, dict)
        if self.is_jsonata:
            return self._jsonata_items(scope, kinds)
        items: list[Json] | dict[str, Json] = self.items_path.evaluate(scope)
        if not isinstance(items, kinds):
            text = self.items_path.text
            shown_path = text[1:] if self.items_path.root == "$$" else text
            raise StatesError(RUNTIME, f'Reference path "{shown_path}" must point to array.')
        return items  # type: ignore[no-any-return]

    def _jsonata_items(self, scope: Scope, kinds: tuple[Any, ...]) -> list[Json] | dict[str, Json]:
        items: list[Json] | dict[str, Json]
        if isinstance(self.items_template, JsonataExpression) and dict not in kinds:
            items = self.items_template.typed(scope, "array")
        elif self.items_template is not None:
            items = self.items_template.evaluate(scope)
        else:
            items = scope.data["input"]
        if not isinstance(items, kinds):
            raise QueryEvaluationError("Items", f"Map state input must be an array but was: {shown(items)}")
        return items  # type: ignore[no-any-return]

    def concurrency(self, scope: Scope) -> int:
        """Return how many iterations may run at once; 0 means no limit. Raises `StatesError`."""
        for amount in (self.tolerated_count, self.tolerated_percentage):
            if self.distribution is None and amount is not None and amount.expression is not None:
                _integer_from(amount.expression, scope, lowest=0)
        if self.max_concurrency_expression is not None:
            return _integer_from(self.max_concurrency_expression, scope, lowest=0)
        if self.max_concurrency_path is None:
            return self.max_concurrency
        return _integer_at(self.max_concurrency_path, scope, lowest=0)


@dataclass(frozen=True, slots=True)
class StateMachine(Workflow):
    """A whole definition."""

    timeout_s: int | None = None
    version: str = "1.0"
    query_language: QueryLanguage = field(default=QueryLanguage.JSONPATH)

    def all(self) -> Iterator[State]:
        """Yield every state, those inside Parallel and Map included."""
        pending: list[Workflow] = [self]
        while pending:
            for state in pending.pop().states.values():
                yield state
                if isinstance(state, Parallel):
                    pending.extend(state.branches)
                elif isinstance(state, Map):
                    pending.append(state.item_processor)

    def tasks(self) -> Iterator[Task]:
        """Yield every Task, those inside Parallel and Map included (to check that each resource can be served)."""
        return (state for state in self.all() if isinstance(state, Task))


def error_matches(error_equals: tuple[str, ...], error: str) -> bool:
    """Whether a retrier or catcher with these names takes `error`.

    States.ALL takes everything but States.Runtime (AWS's page says that it does not take States.DataLimitExceeded, but
    recorded executions show that it does); States.TaskFailed takes everything but States.Timeout and those two.
    Source: https://docs.aws.amazon.com/step-functions/latest/dg/concepts-error-handling.html.
    """
    if error in error_equals:
        return True
    if error == RUNTIME:
        return False
    return ALL in error_equals or (TASK_FAILED in error_equals and error not in (TIMEOUT, DATA_LIMIT_EXCEEDED))


def _integer_of(value: Json) -> int | None:
    """Return an integer, also where AWS takes its text (recorded: "1" for MaxConcurrencyPath); None for anything else."""
    if type(value) is int:
        return value
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        return int(value)
    return None


def _integer_at(path: Path, scope: Scope, lowest: int) -> int:
    """Return the integer at a path (MaxConcurrencyPath, TimeoutSecondsPath, HeartbeatSecondsPath)."""
    value = path.evaluate(scope)
    number = _integer_of(value)
    if number is None or number > MAX_SECONDS:
        text = value if isinstance(value, str) else shown(value)
        raise StatesError(
            RUNTIME,
            f'The {path.field} field refers to value "{text}" which is not a valid integer: {path.text}',
        )
    if number < lowest:
        name = path.field.removesuffix("Path")
        raise StatesError(RUNTIME, f"{name} cannot be {'negative' if lowest == 0 else 'less than 1'}.")
    return number


def _integer_from(expression: JsonataExpression, scope: Scope, lowest: int) -> int:
    """Return the integer that a JSONata field gives."""
    number = expression.typed(scope, "number")
    if not lowest <= number <= MAX_SECONDS or number != int(number):
        raise QueryEvaluationError(
            expression.field,
            f"The {expression.field} field must be an integer between {lowest} and {MAX_SECONDS}, but was: {shown(number)}",
        )
    return int(number)


def _timestamp_from(expression: JsonataExpression, scope: Scope) -> int:
    text = expression.typed(scope, "string")
    at_ms = timestamp_ms(text)
    if at_ms is None:
        raise QueryEvaluationError(
            expression.field,
            f"The Timestamp field cannot be parsed as an ISO-8601 extended offset date-time format string: {text}",
        )
    return at_ms


def _wait_seconds(path: Path, scope: Scope) -> int:
    value = path.evaluate(scope)
    number = _integer_of(value)
    text = value if isinstance(value, str) else shown(value)
    if number is None:
        raise StatesError(RUNTIME, f"The SecondsPath parameter cannot be parsed as a long value: {path.text} == {text}")
    if not 0 <= number <= MAX_SECONDS:
        raise StatesError(RUNTIME, f"The SecondsPath parameter references an invalid value: {path.text} == {text}")
    return number


def _wait_timestamp_ms(path: Path, scope: Scope) -> int:
    value = path.evaluate(scope)
    at_ms = timestamp_ms(value) if isinstance(value, str) else None
    if at_ms is None:
        text = value if isinstance(value, str) else shown(value)
        raise StatesError(
            RUNTIME,
            "The TimestampPath parameter does not reference a valid ISO-8601 extended offset date-time format string: "
            f"{path.text} == {text}",
        )
    return at_ms


def _text_at(expression: Expression, field_name: str, scope: Scope) -> str:
    if isinstance(expression, JsonataExpression):
        text: str = expression.typed(scope, "string")
        return text
    value = expression.evaluate(scope)
    if not isinstance(value, str):
        raise StatesError(
            RUNTIME, f"The {field_name} field '{expression.text}' must refer to a string, but was: {shown(value)}"
        )
    return value
