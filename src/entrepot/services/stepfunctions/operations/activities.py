"""The operations on activities, and the poll of their workers.

Source: https://docs.aws.amazon.com/step-functions/latest/apireference/API_GetActivityTask.html
"""

from entrepot import clock
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
from entrepot.services.stepfunctions import activities
from entrepot.services.stepfunctions.activities import Activity
from entrepot.services.stepfunctions.errors import InvalidName
from entrepot.services.stepfunctions.operations.requests import (
    limit_of,
    next_page,
    on,
    on_every,
    refuse_keys,
    text,
    token,
)
from entrepot.services.stepfunctions.service import StepFunctions


def operations(service: StepFunctions) -> list[Operation]:
    """Return the operations on activities."""
    edge = _Activities(service)
    arn = "activityArn"
    return [
        WriteOperation("CreateActivity", edge.on_new_activity, edge.create_activity),
        WriteOperation("DeleteActivity", on("DeleteActivity", arn), edge.delete_activity),
        ReadOperation("DescribeActivity", on("DescribeActivity", arn), edge.describe_activity),
        ReadOperation("ListActivities", on_every("ListActivities"), edge.list_activities),
        AsyncOperation("GetActivityTask", on("GetActivityTask", arn), edge.get_activity_task),
    ]


class _Activities:
    def __init__(self, service: StepFunctions) -> None:
        self._service = service
        self._account = service.account

    def on_new_activity(self, request: Request) -> list[Permission]:
        arn = self._account.arn("states", f"activity:{request.get('name', '*')}")
        return [Permission("states:CreateActivity", arn)]

    def create_activity(self, tx: Transaction, request: Request, call: Call) -> Response:
        refuse_keys(request)
        name = request.get("name")
        if not isinstance(name, str) or not name:
            raise InvalidName("Invalid Name: ''")
        tags = {tag["key"]: tag.get("value", "") for tag in request.get("tags") or ()}
        activity = activities.create(tx, self._account, name, tags)
        return {"activityArn": activity.arn, "creationDate": clock.from_ms(activity.created_at_ms)}

    def delete_activity(self, tx: Transaction, request: Request, call: Call) -> Response:
        activities.delete(tx, self._account, text(request, "activityArn"))
        return {}

    def describe_activity(self, reader: Reader, request: Request, call: Call) -> Response:
        activity = activities.get(reader, self._account, text(request, "activityArn"))
        return {**_shown(activity), "encryptionConfiguration": {"type": "AWS_OWNED_KEY"}}

    def list_activities(self, reader: Reader, request: Request, call: Call) -> Response:
        limit = limit_of(request)
        found = activities.page(reader, self._account, token(request, str, ""), limit + 1)
        shown = [_shown(activity) for activity in found[:limit]]
        return {"activities": shown, **next_page(found, limit, lambda activity: activity.name)}

    async def get_activity_task(self, request: Request, call: Call) -> Response:
        taken = await self._service.get_activity_task(text(request, "activityArn"), request.get("workerName"))
        return {} if taken is None else {"taskToken": taken[0], "input": taken[1]}


def _shown(activity: Activity) -> Response:
    return {
        "activityArn": activity.arn,
        "name": activity.name,
        "creationDate": clock.from_ms(activity.created_at_ms),
    }
