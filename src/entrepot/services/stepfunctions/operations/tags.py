"""The tags of Step Functions' resources.

Source: https://docs.aws.amazon.com/step-functions/latest/apireference/API_TagResource.html
"""

from entrepot.database import Reader, Transaction
from entrepot.operations import Call, Operation, ReadOperation, Request, Response, WriteOperation
from entrepot.services.stepfunctions import machines
from entrepot.services.stepfunctions.errors import ResourceNotFound, StateMachineDoesNotExist
from entrepot.services.stepfunctions.machines import Machine
from entrepot.services.stepfunctions.operations.requests import on, text
from entrepot.services.stepfunctions.service import StepFunctions


def operations(service: StepFunctions) -> list[Operation]:
    """Return the operations on tags."""
    edge = _Tags(service)
    return [
        WriteOperation("TagResource", on("TagResource", "resourceArn"), edge.tag_resource),
        WriteOperation("UntagResource", on("UntagResource", "resourceArn"), edge.untag_resource),
        ReadOperation("ListTagsForResource", on("ListTagsForResource", "resourceArn"), edge.list_tags_for_resource),
    ]


class _Tags:
    def __init__(self, service: StepFunctions) -> None:
        self._account = service.account

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
        arn = text(request, "resourceArn")
        try:
            return machines.get(reader, self._account, arn)
        except StateMachineDoesNotExist:
            raise ResourceNotFound(f"Resource not found: '{arn}'") from None
