"""The edge of what belongs to groups beside their events: tags, and what is refused here.

Source: https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_TagResource.html
"""

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

from entrepot.operations import AsyncOperation, Call, Operation, Permission, Permissions, Request, Response
from entrepot.services.logs.edge import Edge
from entrepot.services.logs.errors import InvalidOperationError, InvalidParameterError
from entrepot.services.logs.names import group_name

if TYPE_CHECKING:
    from entrepot.services.logs.service import Logs

REFUSED = {
    "CreateExportTask": "Export tasks are not served here. Read events with FilterLogEvents, or subscribe a function.",
    "PutResourcePolicy": "Resource policies of logs are not served here: the services that write logs may do so already.",
    "PutDestination": "Destinations of other accounts are not served here. Name a function or a Firehose stream.",
    "AssociateKmsKey": "KMS keys are not served here: log groups are not encrypted by themselves.",
    "PutAccountPolicy": "Account policies are not served here. Put a subscription filter on each group.",
    "PutDataProtectionPolicy": "Data protection policies are not served here: nothing is masked.",
    "PutTransformer": "Transformers are not served here: events are stored as they come.",
}
"""Operations that are refused, with why and what to do instead."""

EMPTY = {
    "DescribeExportTasks": "exportTasks",
    "DescribeResourcePolicies": "resourcePolicies",
    "DescribeDestinations": "destinations",
    "DescribeAccountPolicies": "accountPolicies",
}
"""Listings of what is refused: there is none."""


def operations(logs: "Logs") -> list[Operation]:
    """Return the operations of tags, and those that are refused."""
    edge = _Edge(logs)
    return [
        AsyncOperation("TagResource", edge.on_resource("TagResource"), edge.tag_resource),
        AsyncOperation("UntagResource", edge.on_resource("UntagResource"), edge.untag_resource),
        AsyncOperation("ListTagsForResource", edge.on_resource("ListTagsForResource"), edge.list_tags_for_resource),
        AsyncOperation("TagLogGroup", edge.on_group("TagLogGroup"), edge.tag_log_group),
        AsyncOperation("UntagLogGroup", edge.on_group("UntagLogGroup"), edge.untag_log_group),
        AsyncOperation("ListTagsLogGroup", edge.on_group("ListTagsLogGroup"), edge.list_tags_log_group),
        *(AsyncOperation(name, edge.on_all(name), _refusing(why)) for name, why in REFUSED.items()),
        *(AsyncOperation(name, edge.on_all(name), _empty(member)) for name, member in EMPTY.items()),
    ]


class _Edge(Edge):
    """The operations as AWS names them."""

    def on_resource(self, action: str) -> Permissions:
        """Return the permission that an action on a group's ARN needs."""

        def permissions(request: Request) -> Iterable[Permission]:
            yield Permission(f"logs:{action}", f"{self.arn_prefix}{self._resource(request)}")

        return permissions

    def _resource(self, request: Request) -> str:
        """Return the name of the group whose ARN is given."""
        arn = str(request.get("resourceArn", ""))
        if not arn.startswith(self.arn_prefix):
            raise InvalidParameterError("The resourceArn must be that of a log group of this account and region.")
        return group_name(arn, self.arn_prefix)

    async def tag_resource(self, request: Request, call: Call) -> Response:
        await self.logs.change_tags(self._resource(request), request.get("tags") or {})
        return {}

    async def untag_resource(self, request: Request, call: Call) -> Response:
        await self.logs.change_tags(self._resource(request), {}, request.get("tagKeys") or ())
        return {}

    async def list_tags_for_resource(self, request: Request, call: Call) -> Response:
        return {"tags": await self.logs.tags(self._resource(request))}

    async def tag_log_group(self, request: Request, call: Call) -> Response:
        await self.logs.change_tags(self.group(request), request.get("tags") or {})
        return {}

    async def untag_log_group(self, request: Request, call: Call) -> Response:
        await self.logs.change_tags(self.group(request), {}, request.get("tags") or ())
        return {}

    async def list_tags_log_group(self, request: Request, call: Call) -> Response:
        return {"tags": await self.logs.tags(self.group(request))}


def _refusing(why: str) -> Callable[[Request, Call], Awaitable[Response]]:
    async def refuse(request: Request, call: Call) -> Response:
        raise InvalidOperationError(why)

    return refuse


def _empty(member: str) -> Callable[[Request, Call], Awaitable[Response]]:
    async def answer(request: Request, call: Call) -> Response:
        return {member: []}

    return answer
