"""What an expression sees while it is evaluated, and the one error that evaluation raises.

`Scope` is the data behind `$`, `$$` and `$name`. `StatesError` carries one of the error names that the Amazon States
Language reserves, and AWS's text for the cause. This module must not know states, syntax or executions.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from . import json_text

RUNTIME = "States.Runtime"
PARAMETER_PATH_FAILURE = "States.ParameterPathFailure"
RESULT_PATH_MATCH_FAILURE = "States.ResultPathMatchFailure"
REFERENCE_PATH_CONFLICT = "States.ReferencePathConflict"
INTRINSIC_FAILURE = "States.IntrinsicFailure"
NO_CHOICE_MATCHED = "States.NoChoiceMatched"
QUERY_EVALUATION_ERROR = "States.QueryEvaluationError"
DATA_LIMIT_EXCEEDED = "States.DataLimitExceeded"
BRANCH_FAILED = "States.BranchFailed"
TASK_FAILED = "States.TaskFailed"
TIMEOUT = "States.Timeout"
HEARTBEAT_TIMEOUT = "States.HeartbeatTimeout"
PERMISSIONS = "States.Permissions"
ALL = "States.ALL"
EXCEED_TOLERATED_FAILURE_THRESHOLD = "States.ExceedToleratedFailureThreshold"
ITEM_READER_FAILED = "States.ItemReaderFailed"
RESULT_WRITER_FAILED = "States.ResultWriterFailed"

MAX_SHOWN_CHARACTERS = 8_192
"""How much of a value an error's cause shows. AWS cuts causes at 32,768 characters."""

# JSON as Python's json module gives it: dict, list, str, int, float, bool, None.
# Values are shared, never copied: nobody may change a value that came out of an evaluation.
Json = Any


class StatesError(Exception):
    """A failure that the language knows by name (`error`), with AWS's explanation (`cause`).

    `cause` is what AWS says about the expression. The interpreter puts
    "An error occurred while executing the state 'X' (entered at the event id #2). " in front of it.
    """

    def __init__(self, error: str, cause: str) -> None:
        super().__init__(f"{error}: {cause}")
        self.error = error
        self.cause = cause


class QueryEvaluationError(StatesError):
    """A JSONata field failed: States.QueryEvaluationError. `location` names the field: `Output/a[0]`."""

    def __init__(self, location: str, cause: str) -> None:
        super().__init__(QUERY_EVALUATION_ERROR, cause)
        self.location = location


class Scope:
    """The data that expressions read: `data` is `$`, `context` is `$$`, `variables` are `$name`.

    Nothing here is changed by an evaluation. `with_data` gives the scope of the next stage of a state
    (input, effective input, result …) with the same context and variables.
    """

    __slots__ = ("context", "data", "variables")

    def __init__(self, data: Json, context: Mapping[str, Json], variables: Mapping[str, Json]) -> None:
        self.data = data
        self.context = context
        self.variables = variables

    def with_data(self, data: Json) -> "Scope":
        """Return the same scope over other data."""
        return Scope(data, self.context, self.variables)


class Expression(Protocol):
    """Something that gives a JSON value in a scope: a path, an intrinsic call."""

    @property
    def text(self) -> str:
        """The source text as it stands in the definition."""
        ...

    def evaluate(self, scope: Scope) -> Json:
        """Return the value. Raises `StatesError`."""
        ...


def shown(value: Json) -> str:
    """Return `value` as JSON for an error's cause, cut at a bound."""
    try:
        text = json_text.dumps(dict(value) if isinstance(value, Mapping) else value)
    except json_text.InvalidJson as problem:
        return f"({problem})"
    return text if len(text) <= MAX_SHOWN_CHARACTERS else text[:MAX_SHOWN_CHARACTERS] + "..."
