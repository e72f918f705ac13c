"""The operation TestState.

Source: https://docs.aws.amazon.com/step-functions/latest/apireference/API_TestState.html
"""

import re
from typing import Any

from entrepot.operations import AsyncOperation, Call, Operation, Permission, Request, Response
from entrepot.services.stepfunctions import machines, mocks
from entrepot.services.stepfunctions.errors import (
    InvalidArn,
    InvalidDefinitionError,
    InvalidExecutionInput,
    ValidationException,
)
from entrepot.services.stepfunctions.language import InvalidDefinition
from entrepot.services.stepfunctions.language.definition import Integration, Map, Parallel, State, Task, Workflow
from entrepot.services.stepfunctions.language.evaluation import Json
from entrepot.services.stepfunctions.language.json_text import InvalidJson, dumps, loads
from entrepot.services.stepfunctions.language.parse import parse_state
from entrepot.services.stepfunctions.operations.requests import text
from entrepot.services.stepfunctions.service import StepFunctions
from entrepot.services.stepfunctions.single_state import Circumstances, Mock, Outcome

_MOCKED = (Task, Map, Parallel)
_WORD = re.compile(r"_([a-z])")


def operations(service: StepFunctions) -> list[Operation]:
    """Return TestState."""
    edge = _Testing(service)
    return [AsyncOperation("TestState", _permissions, edge.test_state)]


def _permissions(request: Request) -> list[Permission]:
    needed = [Permission("states:TestState", "*")]
    if request.get("revealSecrets"):
        needed.append(Permission("states:RevealSecrets", "*"))
    role_arn = request.get("roleArn")
    if role_arn:
        context = {"iam:PassedToService": "states.amazonaws.com"}
        needed.append(Permission("iam:PassRole", str(role_arn), context))
    return needed


class _Testing:
    def __init__(self, service: StepFunctions) -> None:
        self._service = service

    async def test_state(self, request: Request, call: Call) -> Response:
        state = _state(request)
        role_arn = request.get("roleArn")
        if role_arn is not None:
            machines.check_role(role_arn)
        mock = _mock(request, state)
        _check_supported(state, mock)
        if mock is None and isinstance(state, Task) and role_arn is None:
            raise InvalidArn("Invalid Role Arn: a role is required to test this state without a mock.")
        given = request.get("context")
        if given is not None and mock is None:
            raise ValidationException("context may only be specified together with a mock.")
        outcome = await self._service.test_state(
            state,
            _input(request),
            role_arn=role_arn,
            context=None if given is None else _object(given, "context"),
            variables=_object(request.get("variables") or "{}", "variables"),
            mock=mock,
            circumstances=_circumstances(request, state),
            reveal_secrets=bool(request.get("revealSecrets")),
        )
        return _shown(outcome, request.get("inspectionLevel") or "INFO")


def _state(request: Request) -> State:
    name = request.get("stateName")
    try:
        return parse_state(text(request, "definition"), name)
    except InvalidDefinition as error:
        raise InvalidDefinitionError(str(error)) from error
    except KeyError:
        raise ValidationException(f"The state '{name}' does not exist in the definition.") from None


def _check_supported(state: State, mock: Mock | None) -> None:
    """Raise unless the state can be tested so: with a mock what has an outcome, without one what runs here and now."""
    if mock is not None:
        if not isinstance(state, _MOCKED):
            raise ValidationException(f"State type '{state.type}' is not supported when a mock is specified")
        return
    if isinstance(state, Map | Parallel):
        raise InvalidDefinitionError(
            "TestState API does not support Map or Parallel states. "
            "Supported state types include: [Task, Wait, Pass, Succeed, Fail, Choice]"
        )
    if isinstance(state, Task) and state.resource.pattern:
        raise InvalidDefinitionError(
            f"TestState API does not support the '{state.resource.pattern}' service integration pattern without a mock."
        )
    if isinstance(state, Task) and state.resource.integration is Integration.ACTIVITY:
        raise InvalidDefinitionError("TestState API does not support Activity tasks without a mock.")


def _mock(request: Request, state: State) -> Mock | None:
    given = request.get("mock")
    if given is None:
        return None
    error, result = given.get("errorOutput"), given.get("result")
    if (error is None) == (result is None):
        raise ValidationException("A test mock should have only one of the following fields: [result, errorOutput].")
    if error is not None:
        return Mock(fails=True, error=error.get("error"), cause=error.get("cause"))
    value = _json(result, "Mocked result")
    if isinstance(state, Task):
        mocks.check(state.resource, value, given.get("fieldValidationMode") or mocks.STRICT)
    return Mock(result=value)


def _circumstances(request: Request, state: State) -> Circumstances:
    given = request.get("stateConfiguration") or {}
    caused_by = given.get("errorCausedByState")
    if caused_by is not None and not (isinstance(state, Map | Parallel) and caused_by in _inner_names(state)):
        raise ValidationException(f"The state '{caused_by}' of errorCausedByState does not exist in the tested state.")
    return Circumstances(
        retries_made=int(given.get("retrierRetryCount") or 0),
        failed_iterations=int(given.get("mapIterationFailureCount") or 0),
        reader_data=given.get("mapItemReaderData"),
    )


def _inner_names(state: Map | Parallel) -> set[str]:
    names: set[str] = set()
    pending: list[Workflow] = [state.item_processor] if isinstance(state, Map) else list(state.branches)
    while pending:
        for name, inner in pending.pop().states.items():
            names.add(name)
            if isinstance(inner, Map):
                pending.append(inner.item_processor)
            elif isinstance(inner, Parallel):
                pending.extend(inner.branches)
    return names


def _input(request: Request) -> Json:
    given = request.get("input")
    try:
        return loads("{}" if given is None else given)
    except InvalidJson as error:
        raise InvalidExecutionInput(f"Invalid State Machine Execution Input: '{error}'") from None


def _json(given: str, name: str) -> Json:
    try:
        return loads(given)
    except InvalidJson as error:
        raise ValidationException(f"{name} must be valid JSON: {error}") from None


def _object(given: str, name: str) -> dict[str, Json]:
    value = _json(given, name)
    if not isinstance(value, dict):
        raise ValidationException(f"{name} must be a JSON object.")
    return value


def _shown(outcome: Outcome, level: str) -> Response:
    shown: Response = {"status": outcome.status}
    if outcome.status in ("SUCCEEDED", "CAUGHT_ERROR"):
        shown["output"] = dumps(outcome.output)
        if outcome.next is not None:
            shown["nextState"] = outcome.next
    if outcome.error is not None:
        shown["error"] = outcome.error
    if outcome.cause is not None:
        shown["cause"] = outcome.cause
    if level != "INFO":
        shown["inspectionData"] = _inspected(outcome)
    if level == "TRACE" and outcome.exchange is not None:
        shown["inspectionData"]["request"] = outcome.exchange.request
        if outcome.exchange.response is not None:
            shown["inspectionData"]["response"] = outcome.exchange.response
    return shown


def _inspected(outcome: Outcome) -> dict[str, Any]:
    inspected: dict[str, Any] = {_camel(name): dumps(value) for name, value in outcome.stages.items()}
    inspected |= {_camel(name): value for name, value in outcome.numbers.items()}
    if outcome.error_details:
        inspected["errorDetails"] = {_camel(name): value for name, value in outcome.error_details.items()}
    if outcome.variables:
        inspected["variables"] = dumps(dict(outcome.variables))
    return inspected


def _camel(name: str) -> str:
    return _WORD.sub(lambda match: match[1].upper(), name)
