"""The operations on map runs, and the lists of their child executions.

Source: https://docs.aws.amazon.com/step-functions/latest/apireference/API_DescribeMapRun.html
"""

from collections.abc import Mapping

from entrepot import clock
from entrepot.arns import Account
from entrepot.database import Reader, Transaction
from entrepot.operations import Call, Operation, ReadOperation, Request, Response, WriteOperation
from entrepot.services.stepfunctions import executions, machines
from entrepot.services.stepfunctions.errors import InvalidArn, ResourceNotFound, ValidationException
from entrepot.services.stepfunctions.executions import Execution
from entrepot.services.stepfunctions.maps import rows
from entrepot.services.stepfunctions.maps.rows import ChildStatus, MapRun, Stage
from entrepot.services.stepfunctions.operations.requests import limit_of, next_page, on, text, token
from entrepot.services.stepfunctions.service import StepFunctions

CONCURRENCY_LIMIT = 10_000
"""The greatest maxConcurrency that AWS takes for a map run."""

_LAST = 1 << 62
_MEMBERS = {
    ChildStatus.PENDING: "pending",
    ChildStatus.RUNNING: "running",
    ChildStatus.SUCCEEDED: "succeeded",
    ChildStatus.FAILED: "failed",
    ChildStatus.TIMED_OUT: "timedOut",
    ChildStatus.ABORTED: "aborted",
}


def operations(service: StepFunctions) -> list[Operation]:
    """Return the operations on map runs."""
    edge = _MapRuns(service)
    return [
        ReadOperation("DescribeMapRun", on("DescribeMapRun", "mapRunArn"), edge.describe_map_run),
        ReadOperation("ListMapRuns", on("ListMapRuns", "executionArn"), edge.list_map_runs),
        WriteOperation("UpdateMapRun", on("UpdateMapRun", "mapRunArn"), edge.update_map_run),
    ]


class _MapRuns:
    def __init__(self, service: StepFunctions) -> None:
        self._service = service
        self._account = service.account

    def describe_map_run(self, reader: Reader, request: Request, call: Call) -> Response:
        run = map_run(reader, self._account, text(request, "mapRunArn"))
        counts = rows.counts(reader, run.id)
        shown: Response = {
            "mapRunArn": run.arn,
            "executionArn": _parent(reader, self._account, run).arn,
            "status": run.status,
            "startDate": clock.from_ms(run.started_at_ms),
            "maxConcurrency": run.max_concurrency,
            "toleratedFailurePercentage": run.tolerated_percentage or 0.0,
            "toleratedFailureCount": run.tolerated_count or 0,
            "itemCounts": _counted(run, counts.items),
            "executionCounts": _counted(run, counts.children),
            "redriveCount": run.redrive_count,
        }
        if run.stopped_at_ms is not None:
            shown["stopDate"] = clock.from_ms(run.stopped_at_ms)
        if run.redriven_at_ms is not None:
            shown["redriveDate"] = clock.from_ms(run.redriven_at_ms)
        return shown

    def list_map_runs(self, reader: Reader, request: Request, call: Call) -> Response:
        execution = self._service.execution(reader, text(request, "executionArn"))
        limit, before = limit_of(request), token(request, int, _LAST)
        found = rows.of_execution(reader, self._account, execution.id, before, limit + 1)
        return {
            "mapRuns": [_listed(reader, self._account, run, execution) for run in found[:limit]],
            **next_page(found, limit, lambda run: run.id),
        }

    def update_map_run(self, tx: Transaction, request: Request, call: Call) -> Response:
        run = map_run(tx, self._account, text(request, "mapRunArn"))
        concurrency = request.get("maxConcurrency")
        count, percentage = request.get("toleratedFailureCount"), request.get("toleratedFailurePercentage")
        if concurrency is None and count is None and percentage is None:
            raise ValidationException(
                "One of maxConcurrency, toleratedFailureCount, toleratedFailurePercentage is required."
            )
        if concurrency is not None and not 0 <= concurrency <= CONCURRENCY_LIMIT:
            raise ValidationException(f"maxConcurrency must be between 0 and {CONCURRENCY_LIMIT}.")
        if count is not None and count < 0:
            raise ValidationException("toleratedFailureCount must not be negative.")
        if percentage is not None and not 0 <= percentage <= 100:
            raise ValidationException("toleratedFailurePercentage must be between 0 and 100.")
        if run.status != "RUNNING":
            raise ValidationException(f"The map run is {run.status} and cannot be updated.")
        self._service.map_runs.update(tx, run, concurrency, count, percentage)
        return {}


def map_run(reader: Reader, account: Account, arn: str) -> MapRun:
    """Return the map run of an ARN. Raises InvalidArn, ResourceNotFound."""
    if ":mapRun:" not in arn:
        raise InvalidArn(f"Invalid Arn: '{arn}'")
    found = rows.by_arn(reader, account, arn)
    if found is None:
        raise ResourceNotFound(f"Resource not found: '{arn}'")
    return found


def arn_of_child(reader: Reader, account: Account, execution: Execution) -> str | None:
    """Return the ARN of the map run that an execution is a child of, or None."""
    found = rows.child_of(reader, execution.id) if "/" in execution.machine.name else None
    run = None if found is None else rows.by_id(reader, account, found[0])
    return None if run is None else run.arn


def list_children(reader: Reader, account: Account, request: Request) -> Response:
    """Return the answer of ListExecutions for a map run, newest first."""
    if request.get("stateMachineArn"):
        raise ValidationException("Only one of stateMachineArn and mapRunArn can be given.")
    run = map_run(reader, account, text(request, "mapRunArn"))
    limit, before = limit_of(request), token(request, int, _LAST)
    status, wanted = request.get("statusFilter"), request.get("redriveFilter")
    if status == "PENDING_REDRIVE":
        return {"executions": []}
    found = rows.executions_of(reader, run.id, None if status is None else _status(status), before, limit + 1)
    shown = []
    for child in found[:limit]:
        execution = executions.by_id(reader, account, child.execution_id or 0)
        if execution is None or (wanted is not None and (wanted == "REDRIVEN") != bool(execution.redrive_count)):
            continue
        shown.append(_child(execution, run, child.items))
    return {"executions": shown, **next_page(found, limit, lambda child: child.execution_id)}


def _status(name: str) -> ChildStatus:
    return ChildStatus.RUNNING if name == "RUNNING" else rows.ENDED[name]


def _child(execution: Execution, run: MapRun, items: int) -> Response:
    shown: Response = {
        "executionArn": execution.arn,
        "stateMachineArn": execution.machine.arn,
        "name": execution.name,
        "status": execution.status,
        "startDate": clock.from_ms(execution.started_at_ms),
        "mapRunArn": run.arn,
        "itemCount": items,
        "redriveCount": execution.redrive_count,
    }
    if execution.stopped_at_ms is not None and execution.status != "RUNNING":
        shown["stopDate"] = clock.from_ms(execution.stopped_at_ms)
    if execution.redriven_at_ms is not None:
        shown["redriveDate"] = clock.from_ms(execution.redriven_at_ms)
    return shown


def _parent(reader: Reader, account: Account, run: MapRun) -> Execution:
    execution = executions.by_id(reader, account, run.execution_id)
    assert execution is not None
    return execution


def _listed(reader: Reader, account: Account, run: MapRun, execution: Execution) -> Response:
    shown: Response = {
        "executionArn": execution.arn,
        "mapRunArn": run.arn,
        "stateMachineArn": machines.of_revision(reader, account, run.revision_id).arn,
        "startDate": clock.from_ms(run.started_at_ms),
    }
    if run.stopped_at_ms is not None:
        shown["stopDate"] = clock.from_ms(run.stopped_at_ms)
    return shown


def _counted(run: MapRun, counts: Mapping[ChildStatus, int]) -> Response:
    shown = {member: counts[status] for status, member in _MEMBERS.items()}
    ended = sum(counts[status] for status in ChildStatus if status not in (ChildStatus.PENDING, ChildStatus.RUNNING))
    written = ended if run.stage is Stage.DONE and run.status != "ABORTED" else 0
    pending_redrive = counts[ChildStatus.PENDING] if run.redrive_count and run.status == "RUNNING" else 0
    return {
        **shown,
        "total": sum(counts.values()),
        "resultsWritten": written,
        "failuresNotRedrivable": 0,
        "pendingRedrive": pending_redrive,
    }
