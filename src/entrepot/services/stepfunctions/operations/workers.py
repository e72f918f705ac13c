"""The operations with which workers answer for tasks: SendTaskSuccess, SendTaskFailure, SendTaskHeartbeat.

Source: https://docs.aws.amazon.com/step-functions/latest/apireference/API_SendTaskSuccess.html
"""

from entrepot.database import Transaction
from entrepot.operations import Call, Operation, Request, Response, WriteOperation
from entrepot.services.stepfunctions.operations.requests import on_every, task_token
from entrepot.services.stepfunctions.service import StepFunctions


def operations(service: StepFunctions) -> list[Operation]:
    """Return the operations of workers."""
    edge = _Workers(service)
    return [
        WriteOperation("SendTaskSuccess", on_every("SendTaskSuccess"), edge.send_task_success),
        WriteOperation("SendTaskFailure", on_every("SendTaskFailure"), edge.send_task_failure),
        WriteOperation("SendTaskHeartbeat", on_every("SendTaskHeartbeat"), edge.send_task_heartbeat),
    ]


class _Workers:
    def __init__(self, service: StepFunctions) -> None:
        self._service = service

    def send_task_success(self, tx: Transaction, request: Request, call: Call) -> Response:
        output = request.get("output")
        self._service.send_task_success(tx, task_token(request), "" if output is None else output)
        return {}

    def send_task_failure(self, tx: Transaction, request: Request, call: Call) -> Response:
        self._service.send_task_failure(tx, task_token(request), request.get("error"), request.get("cause"))
        return {}

    def send_task_heartbeat(self, tx: Transaction, request: Request, call: Call) -> Response:
        self._service.send_task_heartbeat(tx, task_token(request))
        return {}
