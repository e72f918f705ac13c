"""The operations on executions: start, stop, redrive, describe, list, history.

Source: https://docs.aws.amazon.com/step-functions/latest/apireference/API_StartExecution.html
"""

from collections.abc import Iterable

from entrepot import clock
from entrepot.arns import Account
from entrepot.database import Reader, Transaction
from entrepot.operations import (
    AsyncOperation,
    Call,
    Operation,
    Permission,
    ReadOperation,
    Request,
    Response,
    WriteOperation,
)
from entrepot.services.stepfunctions import executions, history, machines, versions
from entrepot.services.stepfunctions.errors import StateMachineTypeNotSupported, ValidationException
from entrepot.services.stepfunctions.executions import Execution, Summary
from entrepot.services.stepfunctions.machines import Machine
from entrepot.services.stepfunctions.operations import map_runs
from entrepot.services.stepfunctions.operations.requests import (
    limit_of,
    next_page,
    on,
    on_machine,
    standard_arn,
    text,
    token,
)
from entrepot.services.stepfunctions.service import StepFunctions, not_redrivable_because

_LAST = 1 << 62


def operations(service: StepFunctions) -> list[Operation]:
    """Return the operations on executions."""
    edge = _Executions(service)
    execution = "executionArn"
    return [
        WriteOperation("StartExecution", on_machine("StartExecution"), edge.start_execution),
        AsyncOperation("StartSyncExecution", on_machine("StartSyncExecution"), edge.start_sync_execution),
        WriteOperation("StopExecution", on("StopExecution", execution), edge.stop_execution),
        WriteOperation("RedriveExecution", on("RedriveExecution", execution), edge.redrive_execution),
        ReadOperation("DescribeExecution", on("DescribeExecution", execution), edge.describe_execution),
        ReadOperation("ListExecutions", _on_list, edge.list_executions),
        ReadOperation("GetExecutionHistory", on("GetExecutionHistory", execution), edge.get_execution_history),
    ]


def _on_list(request: Request) -> Iterable[Permission]:
    """A list is allowed on the state machine, or on the map run whose executions it shows."""
    by_map_run = bool(request.get("mapRunArn"))
    return (on("ListExecutions", "mapRunArn") if by_map_run else on_machine("ListExecutions"))(request)


class _Executions:
    def __init__(self, service: StepFunctions) -> None:
        self._service = service
        self._account = service.account

    def start_execution(self, tx: Transaction, request: Request, call: Call) -> Response:
        input_text = request.get("input")
        execution = self._service.start_execution(
            tx, text(request, "stateMachineArn"), request.get("name"), "{}" if input_text is None else input_text
        )
        return {"executionArn": execution.arn, "startDate": clock.from_ms(execution.started_at_ms)}

    async def start_sync_execution(self, request: Request, call: Call) -> Response:
        input_text = request.get("input")
        execution, in_time = await self._service.start_sync_execution(
            text(request, "stateMachineArn"), request.get("name"), "{}" if input_text is None else input_text
        )
        shown = await self._service.database.read(lambda reader: _shown_sync(reader, execution))
        return shown if in_time else {**shown, "status": "TIMED_OUT"}

    def stop_execution(self, tx: Transaction, request: Request, call: Call) -> Response:
        stopped_at_ms = self._service.stop_execution(
            tx, standard_arn(request), request.get("error"), request.get("cause")
        )
        return {"stopDate": clock.from_ms(stopped_at_ms)}

    def redrive_execution(self, tx: Transaction, request: Request, call: Call) -> Response:
        return {"redriveDate": clock.from_ms(self._service.redrive_execution(tx, standard_arn(request)))}

    def describe_execution(self, reader: Reader, request: Request, call: Call) -> Response:
        execution = self._service.execution(reader, standard_arn(request, children=True))
        return described(reader, self._account, execution, data=request.get("includedData") != "METADATA_ONLY")

    def list_executions(self, reader: Reader, request: Request, call: Call) -> Response:
        if request.get("mapRunArn"):
            return map_runs.list_children(reader, self._account, request)
        if request.get("redriveFilter"):
            raise ValidationException("redriveFilter is only for the executions of a map run: give mapRunArn.")
        limit, before = limit_of(request), token(request, int, _LAST)
        arn, status = text(request, "stateMachineArn"), request.get("statusFilter")
        if machines.split_arn(arn)[1]:
            machine, found = versions.executions_page(reader, self._account, arn, status, before, limit + 1)
        else:
            machine = machines.get(reader, self._account, arn)
            if machine.type == "EXPRESS":
                raise StateMachineTypeNotSupported("This operation is not supported by this type of state machine")
            found = executions.page(reader, self._account, machine, status, before, limit + 1)
        names = versions.of_executions(reader, [summary.id for summary in found[:limit]])
        return {
            "executions": [
                _listed(summary, machine) | _named_by(machine.arn, names.get(summary.id)) for summary in found[:limit]
            ],
            **next_page(found, limit, lambda summary: summary.id),
        }

    def get_execution_history(self, reader: Reader, request: Request, call: Call) -> Response:
        execution = self._service.execution(reader, standard_arn(request))
        include_data = request.get("includeExecutionData", True)
        limit = limit_of(request)
        if request.get("reverseOrder"):
            found = executions.events_before(reader, execution, token(request, int, _LAST), limit + 1)
        else:
            found = executions.events(reader, execution, token(request, int, 0) + 1, limit + 1)
        return {
            "events": [history.describe(event, include_data=include_data) for event in found[:limit]],
            **next_page(found, limit, lambda event: event.id),
        }


def described(reader: Reader, account: Account, execution: Execution, *, data: bool = True) -> Response:
    """Return an execution as DescribeExecution does; `data`: with its input and output."""
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
    if data:
        shown |= {"input": first["input"], "inputDetails": {"included": True}}
        if execution.status == "SUCCEEDED":
            shown |= {"output": last["output"], "outputDetails": {"included": True}}
    if execution.status != "RUNNING":
        shown["stopDate"] = clock.from_ms(execution.stopped_at_ms or 0)
        shown |= {member: last[member] for member in ("error", "cause") if member in last}
    shown |= _named_by(execution.machine.arn, versions.of_executions(reader, [execution.id]).get(execution.id))
    if execution.redriven_at_ms is not None:
        shown["redriveDate"] = clock.from_ms(execution.redriven_at_ms)
    run_arn = map_runs.arn_of_child(reader, account, execution)
    reason = not_redrivable_because(execution)
    if run_arn is not None:
        shown["mapRunArn"] = run_arn
    shown["redriveStatus"] = "NOT_REDRIVABLE"
    if reason is None:
        shown["redriveStatus"] = "REDRIVABLE" if run_arn is None else "REDRIVABLE_BY_MAP_RUN"
    else:
        shown["redriveStatusReason"] = reason
    return shown


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


def _named_by(machine_arn: str, named: tuple[int, str | None] | None) -> Response:
    """Return the version and alias by which an execution was started."""
    if named is None:
        return {}
    version, alias = named
    shown: Response = {"stateMachineVersionArn": f"{machine_arn}:{version}"}
    if alias is not None:
        shown["stateMachineAliasArn"] = f"{machine_arn}:{alias}"
    return shown
