"""The tags of Step Functions' resources.

Source: https://docs.aws.amazon.com/step-functions/latest/apireference/API_TagResource.html
"""

from entrepot.database import Reader, Transaction
from entrepot.operations import Call, Operation, ReadOperation, Request, Response, WriteOperation
from entrepot.services.stepfunctions import activities, machines
from entrepot.services.stepfunctions.activities import Activity
from entrepot.services.stepfunctions.errors import ActivityDoesNotExist, ResourceNotFound, StateMachineDoesNotExist
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
        added = {tag["key"]: tag.get("value", "") for tag in request.get("tags") or ()}
        tagged = self._tagged(tx, request)
        _set_tags(tx, tagged, {**tagged.tags, **added})
        return {}

    def untag_resource(self, tx: Transaction, request: Request, call: Call) -> Response:
        gone = set(request.get("tagKeys") or ())
        tagged = self._tagged(tx, request)
        _set_tags(tx, tagged, {key: value for key, value in tagged.tags.items() if key not in gone})
        return {}

    def list_tags_for_resource(self, reader: Reader, request: Request, call: Call) -> Response:
        tagged = self._tagged(reader, request)
        return {"tags": [{"key": key, "value": value} for key, value in sorted(tagged.tags.items())]}

    def _tagged(self, reader: Reader, request: Request) -> Machine | Activity:
        arn = text(request, "resourceArn")
        try:
            if activities.is_activity(arn):
                return activities.get(reader, self._account, arn)
            return machines.get(reader, self._account, arn)
        except (ActivityDoesNotExist, StateMachineDoesNotExist):
            raise ResourceNotFound(f"Resource not found: '{arn}'") from None


def _set_tags(tx: Transaction, tagged: Machine | Activity, tags: dict[str, str]) -> None:
    if isinstance(tagged, Activity):
        activities.set_tags(tx, tagged, tags)
    else:
        machines.set_tags(tx, tagged, tags)
