"""What the operations of CloudWatch Logs share at the edge: names of groups, permissions, limits of pages."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from entrepot.operations import Permission, Permissions, Request
from entrepot.services.logs.errors import InvalidParameterError
from entrepot.services.logs.names import group_name

if TYPE_CHECKING:
    from entrepot.services.logs.service import Logs


class Edge:
    """The base of the operations' classes."""

    def __init__(self, logs: "Logs") -> None:
        self.logs = logs
        self.arn_prefix = logs.account.arn("logs", "log-group:")

    def group(self, request: Request) -> str:
        """Return the group's name, given as name or ARN."""
        given = str(request.get("logGroupName") or request.get("logGroupIdentifier") or "")
        return group_name(given, self.arn_prefix)

    # ── permissions ──────────────────────────────────────────────────────────────────────────────────────────────

    def on_group(self, action: str) -> Permissions:
        """Return the permission that an action on a group needs."""

        def permissions(request: Request) -> Iterable[Permission]:
            yield Permission(f"logs:{action}", f"{self.arn_prefix}{self.group(request)}:*")

        return permissions

    def on_stream(self, action: str) -> Permissions:
        """Return the permission that an action on a stream needs."""

        def permissions(request: Request) -> Iterable[Permission]:
            stream = request.get("logStreamName", "")
            yield Permission(f"logs:{action}", f"{self.arn_prefix}{self.group(request)}:log-stream:{stream}")

        return permissions

    def on_all(self, action: str) -> Permissions:
        """Return the permission that a listing needs."""

        def permissions(request: Request) -> Iterable[Permission]:
            yield Permission(f"logs:{action}", f"{self.arn_prefix}*")

        return permissions


def limit_of(request: Request, default: int, most: int) -> int:
    """Return how many a page shall have; InvalidParameterError."""
    limit = request.get("limit", default)
    if not 1 <= limit <= most:
        raise InvalidParameterError(
            f"1 validation error detected: Value '{limit}' at 'limit' failed to satisfy constraint: "
            f"Member must have value between 1 and {most}"
        )
    return int(limit)
