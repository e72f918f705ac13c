"""The edge of Step Functions: botocore's service `stepfunctions`, camelCase dictionaries in and out.

Source: https://docs.aws.amazon.com/step-functions/latest/apireference/API_Operations.html
"""

import base64
import json
from collections.abc import Callable
from typing import Any

from entrepot import clock
from entrepot.database import Reader, Transaction
from entrepot.operations import (
    AsyncOperation,
    Call,
    Operation,
    Permission,
    Permissions,
    ReadOperation,
    Request,
    Response,
    WriteOperation,
)

from . import executions, history, machines
from .errors import (
    InvalidArn,
    InvalidLoggingConfiguration,
    InvalidToken,
    MissingRequiredParameter,
    ResourceNotFound,
    StateMachineDoesNotExist,
    ValidationException,
)
from .executions import Execution, Summary
from .language.parse import validate
from .machines import Logging, Machine
from .service import StepFunctions, not_redrivable_because

PAGE_LIMIT = 1_000
"""Most entries of a page. Source: the maxResults of ListExecutions, GetExecutionHistory."""

PAGE_DEFAULT = 100
"""Entries of a page when maxResults is absent or 0."""

_LAST = 1 << 62


def operations(service: StepFunctions) -> list[Operation]:
    """Return the operations of botocore's service `stepfunctions`."""
    edge = _Edge(service)
    machine, execution, every = edge.on_machine, edge.on_execution, edge.on_every
    return [
        WriteOperation("CreateStateMachine", edge.on_new_machine, edge.create_state_machine),
        WriteOperation("UpdateStateMachine", edge.on_update, edge.update_state_machine),
        WriteOperation("DeleteStateMachine", machine("DeleteStateMachine"), edge.delete_state_machine),
        ReadOperation("DescribeStateMachine", machine("DescribeStateMachine"), edge.describe_state_machine),
        ReadOperation("ListStateMachines", every("ListStateMachines"), edge.list_state_machines),
        ReadOperation(
            "ValidateStateMachineDefinition",
            every("ValidateStateMachineDefinition"),
            edge.validate_state_machine_definition,
        ),
        WriteOperation("StartExecution", machine("StartExecution"), edge.start_execution),
        AsyncOperation("StartSyncExecution", machine("StartSyncExecution"), edge.start_sync_execution),
        WriteOperation("SendTaskSuccess", every("SendTaskSuccess"), edge.send_task_success),
        WriteOperation("SendTaskFailure", every("SendTaskFailure"), edge.send_task_failure),
        WriteOperation("SendTaskHeartbeat", every("SendTaskHeartbeat"), edge.send_task_heartbeat),
        WriteOperation("StopExecution", execution("StopExecution"), edge.stop_execution),
        WriteOperation("RedriveExecution", execution("RedriveExecution"), edge.redrive_execution),
        ReadOperation("DescribeExecution", execution("DescribeExecution"), edge.describe_execution),
        ReadOperation(
            "DescribeStateMachineForExecution",
            execution("DescribeStateMachineForExecution"),
            edge.describe_state_machine_for_execution,
        ),
        ReadOperation("ListExecutions", machine("ListExecutions"), edge.list_executions),
        ReadOperation("GetExecutionHistory", execution("GetExecutionHistory"), edge.get_execution_history),
        WriteOperation("TagResource", edge.on_resource("TagResource"), edge.tag_resource),
        WriteOperation("UntagResource", edge.on_resource("UntagResource"), edge.untag_resource),
        ReadOperation("ListTagsForResource", edge.on_resource("ListTagsForResource"), edge.list_tags_for_resource),
    ]


class _Edge:
    """The operations as methods: each turns a request into a call of the subject and its answer into a response."""

    def __init__(self, service: StepFunctions) -> None:
        self._service = service
        self._account = service.account

    # ── permissions ──────────────────────────────────────────────────────────────────────────────────────────────

    def _on(self, action: str, member: str) -> Permissions:
        return lambda request: [Permission(f"states:{action}", str(request.get(member) or "*"))]

    def on_machine(self, action: str) -> Permissions:
        return self._on(action, "stateMachineArn")

    def on_execution(self, action: str) -> Permissions:
        return self._on(action, "executionArn")

    def on_resource(self, action: str) -> Permissions:
        return self._on(action, "resourceArn")

    def on_every(self, action: str) -> Permissions:
        return lambda _: [Permission(f"states:{action}", "*")]

    def on_new_machine(self, request: Request) -> list[Permission]:
        arn = self._account.arn("states", f"stateMachine:{request.get('name', '*')}")
        return [Permission("states:CreateStateMachine", arn), *_pass_role(request)]

    def on_update(self, request: Request) -> list[Permission]:
        arn = str(request.get("stateMachineArn") or "*")
        return [Permission("states:UpdateStateMachine", arn), *_pass_role(request)]

    # ── state machines ───────────────────────────────────────────────────────────────────────────────────────────

    def create_state_machine(self, tx: Transaction, request: Request, call: Call) -> Response:
        _refuse_versions(request)
        machine = self._service.create_state_machine(
            tx,
            name=_text(request, "name"),
            definition=_text(request, "definition"),
            role_arn=_text(request, "roleArn"),
            type_=request.get("type") or "STANDARD",
            logging=_logging(request) or Logging(),
            tracing=_tracing(request) or "{}",
            tags={tag["key"]: tag.get("value", "") for tag in request.get("tags") or ()},
        )
        return {"stateMachineArn": machine.arn, "creationDate": clock.from_ms(machine.created_at_ms)}

    def update_state_machine(self, tx: Transaction, request: Request, call: Call) -> Response:
        _refuse_versions(request)
        members = ("definition", "roleArn", "loggingConfiguration", "tracingConfiguration")
        if all(request.get(member) is None for member in members):
            raise MissingRequiredParameter("Either the definition, the role ARN, or the configuration must be given.")
        machine = self._machine(tx, request)
        updated = self._service.update_state_machine(
            tx,
            machine,
            definition=request.get("definition"),
            role_arn=request.get("roleArn"),
            logging=_logging(request),
            tracing=_tracing(request),
        )
        return {"updateDate": clock.from_ms(updated.updated_at_ms), "revisionId": updated.revision}

    def delete_state_machine(self, tx: Transaction, request: Request, call: Call) -> Response:
        try:
            machines.delete(tx, self._machine(tx, request))
        except StateMachineDoesNotExist:
            return {}
        return {}

    def describe_state_machine(self, reader: Reader, request: Request, call: Call) -> Response:
        machine = self._machine(reader, request)
        return {
            **_described(machine),
            "status": "ACTIVE",
            "type": machine.type,
            "creationDate": clock.from_ms(machine.created_at_ms),
        }

    def describe_state_machine_for_execution(self, reader: Reader, request: Request, call: Call) -> Response:
        machine = self._execution(reader, request).machine
        return {**_described(machine), "updateDate": clock.from_ms(machine.updated_at_ms)}

    def list_state_machines(self, reader: Reader, request: Request, call: Call) -> Response:
        limit = _limit(request)
        found = machines.page(reader, self._account, _token(request, str, ""), limit + 1)
        shown = [
            {
                "stateMachineArn": machine.arn,
                "name": machine.name,
                "type": machine.type,
                "creationDate": clock.from_ms(machine.created_at_ms),
            }
            for machine in found[:limit]
        ]
        return {"stateMachines": shown, **_next(found, limit, lambda machine: machine.name)}

    def validate_state_machine_definition(self, reader: Reader, request: Request, call: Call) -> Response:
        limit = int(request.get("maxResults") or PAGE_DEFAULT)
        found = validate(_text(request, "definition"), request.get("type") == "EXPRESS")
        diagnostics = [
            {"severity": d.severity, "code": d.code, "message": d.message}
            | ({} if d.location is None else {"location": d.location})
            for d in found
        ]
        result = "FAIL" if any(d.severity == "ERROR" for d in found) else "OK"
        return {"result": result, "diagnostics": diagnostics[:limit], "truncated": len(diagnostics) > limit}

    # ── executions ───────────────────────────────────────────────────────────────────────────────────────────────

    def start_execution(self, tx: Transaction, request: Request, call: Call) -> Response:
        input_text = request.get("input")
        execution = self._service.start_execution(
            tx, _text(request, "stateMachineArn"), request.get("name"), "{}" if input_text is None else input_text
        )
        return {"executionArn": execution.arn, "startDate": clock.from_ms(execution.started_at_ms)}

    async def start_sync_execution(self, request: Request, call: Call) -> Response:
        input_text = request.get("input")
        execution, in_time = await self._service.start_sync_execution(
            _text(request, "stateMachineArn"), request.get("name"), "{}" if input_text is None else input_text
        )
        shown = await self._service.database.read(lambda reader: _shown_sync(reader, execution))
        return shown if in_time else {**shown, "status": "TIMED_OUT"}

    def send_task_success(self, tx: Transaction, request: Request, call: Call) -> Response:
        output = request.get("output")
        self._service.send_task_success(tx, _token_text(request), "" if output is None else output)
        return {}

    def send_task_failure(self, tx: Transaction, request: Request, call: Call) -> Response:
        self._service.send_task_failure(tx, _token_text(request), request.get("error"), request.get("cause"))
        return {}

    def send_task_heartbeat(self, tx: Transaction, request: Request, call: Call) -> Response:
        self._service.send_task_heartbeat(tx, _token_text(request))
        return {}

    def stop_execution(self, tx: Transaction, request: Request, call: Call) -> Response:
        stopped_at_ms = self._service.stop_execution(
            tx, _text(request, "executionArn"), request.get("error"), request.get("cause")
        )
        return {"stopDate": clock.from_ms(stopped_at_ms)}

    def redrive_execution(self, tx: Transaction, request: Request, call: Call) -> Response:
        return {"redriveDate": clock.from_ms(self._service.redrive_execution(tx, _text(request, "executionArn")))}

    def describe_execution(self, reader: Reader, request: Request, call: Call) -> Response:
        execution = self._execution(reader, request)
        first = executions.events(reader, execution, 1, 1)[0].details
        last = executions.events_before(reader, execution, _LAST, 1)[0].details
        shown: Response = {
            "executionArn": execution.arn,
            "stateMachineArn": execution.machine.arn,
            "name": execution.name,
            "status": execution.status,
            "startDate": clock.from_ms(execution.started_at_ms),
            "redriveCount": execution.redrive_count,
        }
        if request.get("includedData") != "METADATA_ONLY":
            shown |= {"input": first["input"], "inputDetails": {"included": True}}
            if execution.status == "SUCCEEDED":
                shown |= {"output": last["output"], "outputDetails": {"included": True}}
        if execution.status != "RUNNING":
            shown["stopDate"] = clock.from_ms(execution.stopped_at_ms or 0)
            shown |= {member: last[member] for member in ("error", "cause") if member in last}
        if execution.redriven_at_ms is not None:
            shown["redriveDate"] = clock.from_ms(execution.redriven_at_ms)
        reason = not_redrivable_because(execution)
        shown["redriveStatus"] = "REDRIVABLE" if reason is None else "NOT_REDRIVABLE"
        if reason is not None:
            shown["redriveStatusReason"] = reason
        return shown

    def list_executions(self, reader: Reader, request: Request, call: Call) -> Response:
        if request.get("mapRunArn"):
            raise ValidationException("mapRunArn is not supported: there are no distributed maps here yet.")
        if request.get("redriveFilter"):
            raise ValidationException("redriveFilter is not supported: it is for map runs.")
        machine = self._machine(reader, request)
        limit, before = _limit(request), _token(request, int, _LAST)
        found = executions.page(reader, self._account, machine, request.get("statusFilter"), before, limit + 1)
        return {
            "executions": [_listed(summary, machine) for summary in found[:limit]],
            **_next(found, limit, lambda summary: summary.id),
        }

    def get_execution_history(self, reader: Reader, request: Request, call: Call) -> Response:
        execution = self._execution(reader, request)
        include_data = request.get("includeExecutionData", True)
        limit = _limit(request)
        if request.get("reverseOrder"):
            found = executions.events_before(reader, execution, _token(request, int, _LAST), limit + 1)
        else:
            found = executions.events(reader, execution, _token(request, int, 0) + 1, limit + 1)
        return {
            "events": [history.describe(event, include_data=include_data) for event in found[:limit]],
            **_next(found, limit, lambda event: event.id),
        }

    # ── tags ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def tag_resource(self, tx: Transaction, request: Request, call: Call) -> Response:
        machine = self._tagged(tx, request)
        added = {tag["key"]: tag.get("value", "") for tag in request.get("tags") or ()}
        machines.set_tags(tx, machine, {**machine.tags, **added})
        return {}

    def untag_resource(self, tx: Transaction, request: Request, call: Call) -> Response:
        machine = self._tagged(tx, request)
        gone = set(request.get("tagKeys") or ())
        machines.set_tags(tx, machine, {key: value for key, value in machine.tags.items() if key not in gone})
        return {}

    def list_tags_for_resource(self, reader: Reader, request: Request, call: Call) -> Response:
        machine = self._tagged(reader, request)
        return {"tags": [{"key": key, "value": value} for key, value in sorted(machine.tags.items())]}

    def _tagged(self, reader: Reader, request: Request) -> Machine:
        arn = _text(request, "resourceArn")
        try:
            return machines.get(reader, self._account, arn)
        except StateMachineDoesNotExist:
            raise ResourceNotFound(f"Resource not found: '{arn}'") from None

    def _machine(self, reader: Reader, request: Request) -> Machine:
        return machines.get(reader, self._account, _text(request, "stateMachineArn"))

    def _execution(self, reader: Reader, request: Request) -> Execution:
        return self._service.execution(reader, _text(request, "executionArn"))


def _text(request: Request, member: str) -> str:
    value = request.get(member)
    if not isinstance(value, str) or not value:
        if member.endswith("Arn"):
            raise InvalidArn(f"Invalid Arn: '{value or ''}'")
        raise ValidationException(
            f"1 validation error detected: Value null at '{member}' failed to satisfy constraint: Member must not be null"
        )
    return value


def _token_text(request: Request) -> str:
    token = request.get("taskToken")
    if not isinstance(token, str) or not token:
        raise InvalidToken("Invalid Token: 'Invalid token'")
    return token


def _shown_sync(reader: Reader, execution: Execution) -> Response:
    """Return an ended execution as StartSyncExecution does."""
    first = executions.events(reader, execution, 1, 1)[0]
    last = executions.events_before(reader, execution, _LAST, 1)[0]
    duration_ms = last.at_ms - execution.started_at_ms
    shown: Response = {
        "executionArn": execution.arn,
        "stateMachineArn": execution.machine.arn,
        "name": execution.name,
        "startDate": clock.from_ms(execution.started_at_ms),
        "stopDate": clock.from_ms(last.at_ms),
        "status": "FAILED" if execution.status == "ABORTED" else execution.status,
        "input": first.details["input"],
        "inputDetails": {"included": True},
        # AWS bills in steps of 100 ms and 64 MB.
        "billingDetails": {
            "billedMemoryUsedInMB": 64,
            "billedDurationInMilliseconds": -(-max(1, duration_ms) // 100) * 100,
        },
    }
    shown |= {member: last.details[member] for member in ("error", "cause") if member in last.details}
    if execution.status == "SUCCEEDED":
        shown |= {"output": last.details["output"], "outputDetails": {"included": True}}
    return shown


def _pass_role(request: Request) -> list[Permission]:
    role_arn = request.get("roleArn")
    return [Permission("iam:PassRole", role_arn, {"iam:PassedToService": "states.amazonaws.com"})] if role_arn else []


def _refuse_versions(request: Request) -> None:
    for member in ("publish", "versionDescription"):
        if request.get(member):
            raise ValidationException(f"{member} is not supported: there are no versions of state machines here yet.")
    if (request.get("encryptionConfiguration") or {}).get("type", "AWS_OWNED_KEY") != "AWS_OWNED_KEY":
        raise ValidationException("encryptionConfiguration with a customer managed key is not supported here.")


def _logging(request: Request) -> Logging | None:
    given = request.get("loggingConfiguration")
    if given is None:
        return None
    destinations = given.get("destinations") or []
    if len(destinations) > 1:
        raise InvalidLoggingConfiguration("Invalid Logging Configuration: Must specify exactly one Log Destination.")
    group = destinations[0].get("cloudWatchLogsLogGroup") if destinations else None
    return machines.check_logging(
        given.get("level") or "OFF",
        bool(given.get("includeExecutionData", False)),
        None if group is None else group.get("logGroupArn"),
    )


def _tracing(request: Request) -> str | None:
    given = request.get("tracingConfiguration")
    if given is None:
        return None
    if given.get("enabled"):
        raise ValidationException("tracingConfiguration is not supported: there is no X-Ray here.")
    return "{}"


def _described(machine: Machine) -> Response:
    logging: Response = {
        "level": machine.logging.level,
        "includeExecutionData": machine.logging.include_execution_data,
    }
    if machine.logging.level != "OFF":
        account = machine.arn.split(":stateMachine:")[0].replace(":states:", ":logs:")
        arn = f"{account}:log-group:{machine.log_group_name}:*"
        logging["destinations"] = [{"cloudWatchLogsLogGroup": {"logGroupArn": arn}}]
    return {
        "stateMachineArn": machine.arn,
        "name": machine.name,
        "definition": machine.definition,
        "roleArn": machine.role_arn,
        "loggingConfiguration": logging,
        "tracingConfiguration": {"enabled": False},
        "revisionId": machine.revision,
    }


def _listed(summary: Summary, machine: Machine) -> Response:
    shown: Response = {
        "executionArn": summary.arn,
        "stateMachineArn": machine.arn,
        "name": summary.name,
        "status": summary.status,
        "startDate": clock.from_ms(summary.id >> executions.ID_BITS),
        "redriveCount": summary.redrive_count,
    }
    if summary.stopped_at_ms is not None:
        shown["stopDate"] = clock.from_ms(summary.stopped_at_ms)
    if summary.redriven_at_ms is not None:
        shown["redriveDate"] = clock.from_ms(summary.redriven_at_ms)
    return shown


def _limit(request: Request) -> int:
    wanted = int(request.get("maxResults") or PAGE_DEFAULT)
    if not 0 < wanted <= PAGE_LIMIT:
        raise ValidationException(f"maxResults must be between 0 and {PAGE_LIMIT}, not {wanted}.")
    return wanted


def _token(request: Request, kind: type[Any], absent: Any) -> Any:
    token = request.get("nextToken")
    if token is None:
        return absent
    try:
        value = json.loads(base64.urlsafe_b64decode(token))
    except ValueError:
        value = None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise InvalidToken(f"Invalid Token: '{token}'")
    return value


def _next(found: list[Any], limit: int, position: Callable[[Any], Any]) -> Response:
    """Return the token of the next page, when there is one."""
    if len(found) <= limit:
        return {}
    return {"nextToken": base64.urlsafe_b64encode(json.dumps(position(found[limit - 1])).encode()).decode()}
