"""The edge of Logs Insights: operations of botocore's service `logs`.

Source: https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_StartQuery.html
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from entrepot import clock, ids
from entrepot.operations import AsyncOperation, Call, Operation, Permission, Permissions, Request, Response
from entrepot.services.logs.errors import InvalidParameterError, ResourceNotFoundError
from entrepot.services.logs.insights.compile import ROWS_LIMIT, compile_query
from entrepot.services.logs.insights.definitions import (
    SAMPLE_EVENTS,
    SAVED_LIMIT,
    QueryDefinition,
    discovered,
    percentages,
)
from entrepot.services.logs.insights.errors import QueryLimitError
from entrepot.services.logs.insights.queries import formatted, pointed
from entrepot.services.logs.names import group_name, opened, sealed

if TYPE_CHECKING:
    from entrepot.services.logs.service import Logs

GROUPS_LIMIT = 50
"""A query looks at no more groups. AWS's limit."""

SECONDS_BELOW = 100_000_000_000
"""A start or end below this is meant in seconds, above in milliseconds: clients send both."""

PAGE = 100
"""Queries or saved queries in a page."""


def operations(logs: "Logs") -> list[Operation]:
    """Return the operations of Logs Insights."""
    edge = _Edge(logs)
    everywhere = edge.on_all
    return [
        AsyncOperation("StartQuery", edge.on_groups("StartQuery"), edge.start_query),
        AsyncOperation("GetQueryResults", everywhere("GetQueryResults"), edge.get_query_results),
        AsyncOperation("StopQuery", everywhere("StopQuery"), edge.stop_query),
        AsyncOperation("DescribeQueries", everywhere("DescribeQueries"), edge.describe_queries),
        AsyncOperation("GetLogRecord", everywhere("GetLogRecord"), edge.get_log_record),
        AsyncOperation("GetLogGroupFields", edge.on_groups("GetLogGroupFields"), edge.get_log_group_fields),
        AsyncOperation("PutQueryDefinition", everywhere("PutQueryDefinition"), edge.put_query_definition),
        AsyncOperation("DescribeQueryDefinitions", everywhere("DescribeQueryDefinitions"), edge.describe_definitions),
        AsyncOperation("DeleteQueryDefinition", everywhere("DeleteQueryDefinition"), edge.delete_query_definition),
    ]


class _Edge:
    """The operations as AWS names them."""

    def __init__(self, logs: "Logs") -> None:
        self._logs = logs
        self._arn_prefix = logs.account.arn("logs", "log-group:")

    def on_groups(self, action: str) -> Permissions:
        """Return the permission that an action on one or more groups needs."""

        def permissions(request: Request) -> Iterable[Permission]:
            for name in self._groups(request):
                yield Permission(f"logs:{action}", f"{self._arn_prefix}{name}:*")

        return permissions

    def on_all(self, action: str) -> Permissions:
        """Return the permission of an action that names no group."""

        def permissions(request: Request) -> Iterable[Permission]:
            yield Permission(f"logs:{action}", "*")

        return permissions

    def _groups(self, request: Request) -> list[str]:
        given = [request[key] for key in ("logGroupName", "logGroupIdentifier") if request.get(key)]
        given += [*request.get("logGroupNames", ()), *request.get("logGroupIdentifiers", ())]
        if not 1 <= len(given) <= GROUPS_LIMIT:
            raise InvalidParameterError(
                f"Name 1 to {GROUPS_LIMIT} log groups, by logGroupName, logGroupNames or logGroupIdentifiers."
            )
        return [group_name(str(name), self._arn_prefix) for name in given]

    # ── queries ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def start_query(self, request: Request, call: Call) -> Response:
        if (language := request.get("queryLanguage", "CWLI")) != "CWLI":
            raise InvalidParameterError(f"The query language {language} is not supported here; use CWLI.")
        since_ms, until_ms = _milliseconds(request["startTime"]), _milliseconds(request["endTime"])
        if request["endTime"] < SECONDS_BELOW:
            until_ms += 999  # the whole last second: both ends are inclusive
        if until_ms < since_ms:
            raise InvalidParameterError("End time should not be less than start time.")
        limit = request.get("limit", ROWS_LIMIT)
        if not 1 <= limit <= ROWS_LIMIT:
            raise InvalidParameterError(f"The limit must be from 1 to {ROWS_LIMIT}.")
        text = request["queryString"]
        compiled = compile_query(text, now_ms=clock.now_ms(), limit=limit)
        groups = await self._logs.group_ids(self._groups(request))
        prefix = f"{self._logs.account.account_id}:"
        query = self._logs.queries.start(compiled, text, groups, prefix, since_ms, until_ms)
        return {"queryId": query.query_id}

    async def get_query_results(self, request: Request, call: Call) -> Response:
        query = self._logs.queries.find(request["queryId"])
        start = int(opened(request["nextToken"])) if request.get("nextToken") else 0
        count = request.get("maxItems", ROWS_LIMIT)
        page = query.rows[start : start + count]
        response: Response = {
            "queryLanguage": "CWLI",
            "status": query.status,
            "results": [[{"field": name, "value": value} for name, value in row] for row in page],
            "statistics": {
                "recordsMatched": float(query.statistics.records_matched),
                "recordsScanned": float(query.statistics.records_scanned),
                "bytesScanned": float(query.statistics.bytes_scanned),
                "estimatedRecordsSkipped": 0.0,
                "estimatedBytesSkipped": 0.0,
                "logGroupsScanned": float(len(query.groups)),
            },
        }
        if start + count < len(query.rows):
            response["nextToken"] = sealed(str(start + count))
        return response

    async def stop_query(self, request: Request, call: Call) -> Response:
        if not self._logs.queries.stop(request["queryId"]):
            raise InvalidParameterError(f"Query {request['queryId']} has ended already; it cannot be stopped.")
        return {"success": True}

    async def describe_queries(self, request: Request, call: Call) -> Response:
        wanted = request.get("logGroupName")
        status = request.get("status")
        queries = [
            query
            for query in self._logs.queries.newest_first()
            if (not wanted or wanted in query.groups) and (not status or status == query.status)
        ]
        start = int(opened(request["nextToken"])) if request.get("nextToken") else 0
        count = request.get("maxResults", PAGE)
        response: Response = {
            "queries": [
                {
                    "queryLanguage": "CWLI",
                    "queryId": query.query_id,
                    "queryString": query.text,
                    "status": query.status,
                    "createTime": query.created_at_ms,
                    "logGroupName": query.groups[0],
                }
                for query in queries[start : start + count]
            ]
        }
        if start + count < len(queries):
            response["nextToken"] = sealed(str(start + count))
        return response

    # ── records and fields ───────────────────────────────────────────────────────────────────────────────────────

    async def get_log_record(self, request: Request, call: Call) -> Response:
        place = pointed(request["logRecordPointer"])
        found = await self._logs.event_at(*place) if place is not None else None
        if found is None:
            raise InvalidParameterError("The log record pointer names no event; it may have expired.")
        group, event = found
        record = {
            "@timestamp": formatted(event.position.timestamp_ms, "time"),
            "@ingestionTime": formatted(event.ingested_at_ms, "time"),
            "@message": event.message,
            "@logStream": event.stream,
            "@log": f"{self._logs.account.account_id}:{group}",
            "@ptr": request["logRecordPointer"],
        }
        return {"logRecord": record | discovered(event.message)}

    async def get_log_group_fields(self, request: Request, call: Call) -> Response:
        (group,) = self._groups(request)
        until_ms = _milliseconds(request["time"]) + 480_000 if request.get("time") else clock.now_ms()
        messages = await self._logs.newest_messages(group, until_ms, SAMPLE_EVENTS)
        return {"logGroupFields": [{"name": name, "percent": share} for name, share in percentages(messages)]}

    # ── saved queries ────────────────────────────────────────────────────────────────────────────────────────────

    async def put_query_definition(self, request: Request, call: Call) -> Response:
        text = request["queryString"]
        compile_query(text, now_ms=clock.now_ms())
        known = await self._logs.query_definitions()
        definition_id = request.get("queryDefinitionId")
        if definition_id is not None and all(known_one.definition_id != definition_id for known_one in known):
            raise ResourceNotFoundError(f"The query definition {definition_id} does not exist.")
        for other in known:
            if other.name == request["name"] and other.definition_id != definition_id:
                raise InvalidParameterError(f"A query definition with the name {other.name} exists already.")
        if definition_id is None and len(known) >= SAVED_LIMIT:
            raise QueryLimitError(f"There are {SAVED_LIMIT} query definitions already; delete one.")
        groups = tuple(group_name(name, self._arn_prefix) for name in request.get("logGroupNames", ()))
        definition = QueryDefinition(definition_id or ids.random_uuid(), request["name"], text, groups, clock.now_ms())
        await self._logs.save_query_definition(definition)
        return {"queryDefinitionId": definition.definition_id}

    async def describe_definitions(self, request: Request, call: Call) -> Response:
        prefix = request.get("queryDefinitionNamePrefix", "")
        known = [one for one in await self._logs.query_definitions() if one.name.startswith(prefix)]
        start = int(opened(request["nextToken"])) if request.get("nextToken") else 0
        count = request.get("maxResults", PAGE)
        response: Response = {
            "queryDefinitions": [
                {
                    "queryLanguage": "CWLI",
                    "queryDefinitionId": one.definition_id,
                    "name": one.name,
                    "queryString": one.query_string,
                    "lastModified": one.changed_at_ms,
                    "logGroupNames": list(one.log_groups),
                }
                for one in known[start : start + count]
            ]
        }
        if start + count < len(known):
            response["nextToken"] = sealed(str(start + count))
        return response

    async def delete_query_definition(self, request: Request, call: Call) -> Response:
        if not await self._logs.delete_query_definition(request["queryDefinitionId"]):
            raise ResourceNotFoundError(f"The query definition {request['queryDefinitionId']} does not exist.")
        return {"success": True}


def _milliseconds(time: int) -> int:
    return time * 1_000 if time < SECONDS_BELOW else time
