"""The edge of live tails: an operation whose answer is a stream of events.

Source: https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_StartLiveTail.html
"""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from typing import TYPE_CHECKING, Any

from entrepot import ids
from entrepot.errors import StorageError
from entrepot.operations import AsyncOperation, Call, Operation, Permission, Request, Response
from entrepot.services.logs.edge import Edge
from entrepot.services.logs.errors import InvalidParameterError
from entrepot.services.logs.filter_pattern import compile_pattern
from entrepot.services.logs.live_tail import LiveTail, TailedEvent
from entrepot.services.logs.names import group_name

if TYPE_CHECKING:
    from entrepot.services.logs.service import Logs

GROUPS_LIMIT = 10
"""Groups of a session. AWS's limit."""


def operations(logs: "Logs") -> list[Operation]:
    """Return the operations of live tails."""
    edge = _Edge(logs)
    return [AsyncOperation("StartLiveTail", edge.on_groups, edge.start_live_tail)]


class _Edge(Edge):
    """The operations as AWS names them."""

    def on_groups(self, request: Request) -> Iterable[Permission]:
        """Return the permissions for the groups that are named."""
        for name in self._groups(request):
            yield Permission("logs:StartLiveTail", f"{self.arn_prefix}{name}:*")

    def _groups(self, request: Request) -> list[str]:
        given = request.get("logGroupIdentifiers") or []
        if not 1 <= len(given) <= GROUPS_LIMIT:
            raise InvalidParameterError(f"A live tail looks at 1 to {GROUPS_LIMIT} log groups.")
        for arn in given:
            if not str(arn).startswith(self.arn_prefix) or str(arn).endswith("*"):
                raise InvalidParameterError(
                    f"The log group identifier {str(arn)[:600]!r} is not valid: give the group's ARN, without an asterisk."
                )
        return [group_name(arn, self.arn_prefix) for arn in given]

    async def start_live_tail(self, request: Request, call: Call) -> Response:
        streams, prefixes = request.get("logStreamNames") or [], request.get("logStreamNamePrefixes") or []
        groups = self._groups(request)
        if streams and prefixes:
            raise InvalidParameterError("logStreamNames and logStreamNamePrefixes are mutually exclusive parameters.")
        if (streams or prefixes) and len(groups) > 1:
            raise InvalidParameterError("Streams can be chosen in one log group only.")
        tail = LiveTail(groups, streams, prefixes, compile_pattern(request.get("logEventFilterPattern", "")))
        await self.logs.start_tail(tail)
        start = {
            "requestId": call.request_id,
            "sessionId": ids.random_uuid(),
            "logGroupIdentifiers": list(request["logGroupIdentifiers"]),
            "logStreamNames": streams,
            "logStreamNamePrefixes": prefixes,
            "logEventFilterPattern": request.get("logEventFilterPattern", ""),
        }
        return {"responseStream": _Session(self.logs, tail, start, self._shown)}

    def _shown(self, event: TailedEvent) -> dict[str, Any]:
        return {
            "logStreamName": event.stream,
            "logGroupIdentifier": f"{self.logs.account.account_id}:{event.group}",
            "message": event.message,
            "timestamp": event.timestamp_ms,
            "ingestionTime": event.ingested_at_ms,
        }


class _Session:
    """The stream of a session's events; it ends the session when it is closed, whether it was begun or not."""

    def __init__(self, logs: "Logs", tail: LiveTail, start: dict[str, Any], shown: Any) -> None:
        self._logs = logs
        self._tail = tail
        self._closed = False
        self._events = self._generate(start, shown)

    async def _generate(self, start: dict[str, Any], shown: Any) -> AsyncGenerator[dict[str, Any], None]:
        yield {"sessionStart": start}
        async for update in self._tail.updates():
            yield {
                "sessionUpdate": {
                    "sessionMetadata": {"sampled": update.sampled},
                    "sessionResults": [shown(event) for event in update.events],
                }
            }
        yield {"SessionTimeoutException": {"message": "The session has ended after its longest time of three hours."}}

    def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        return self

    async def __anext__(self) -> dict[str, Any]:
        return await anext(self._events)

    async def aclose(self) -> None:
        """End the session."""
        if not self._closed:
            self._closed = True
            await self._events.aclose()
            with contextlib.suppress(StorageError):  # the store closed before the listener did
                await self._logs.end_tail(self._tail)
