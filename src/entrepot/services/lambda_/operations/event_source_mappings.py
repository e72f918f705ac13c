"""Event source mappings: making, reading, changing and deleting them."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from entrepot import arns, clock, ids
from entrepot.database import Reader, Transaction
from entrepot.errors import AwsError
from entrepot.operations import (
    AsyncOperation,
    Call,
    Operation,
    Permission,
    Permissions,
    ReadOperation,
    Request,
    Response,
    WriteOperation,
)
from entrepot.services.lambda_ import destinations, event_source_mappings
from entrepot.services.lambda_.batches import compile_filters
from entrepot.services.lambda_.configuration import FunctionConfiguration, Reference, reference, refuse
from entrepot.services.lambda_.errors import InvalidParameterValueError, ResourceConflictError, ResourceNotFoundError
from entrepot.services.lambda_.event_source_mappings import MAPPINGS_LIMIT, EventSourceMapping, Settings
from entrepot.services.lambda_.operations.edge import Edge, page, timestamp
from entrepot.services.lambda_.operations.tags import check_tags

PAGE_LIMIT = 100
"""Mappings of a page. AWS's limit."""

STREAM_BATCH_SIZE = 100
"""The batch size of a stream that names none."""

_REFUSED = (
    "Topics", "Queues", "SourceAccessConfigurations", "SelfManagedEventSource", "AmazonManagedKafkaEventSourceConfig",
    "SelfManagedKafkaEventSourceConfig", "DocumentDBEventSourceConfig", "ProvisionedPollerConfig", "KMSKeyArn",
    "TumblingWindowInSeconds", "LoggingConfig", "StartingPositionTimestamp",
)  # fmt: skip
"""Members that ask for what is not here; refused when they say anything, never ignored."""

_OF_STREAMS = (
    "StartingPosition", "StartingPositionTimestamp", "BisectBatchOnFunctionError", "MaximumRetryAttempts",
    "MaximumRecordAgeInSeconds", "DestinationConfig", "ParallelizationFactor",
)  # fmt: skip


class EventSourceMappings:
    """The operations, each named as AWS's in snake case."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._lambda = edge.lambda_

    def operations(self) -> list[Operation]:
        on = self._on_mapping
        return [
            AsyncOperation(
                "CreateEventSourceMapping",
                self._on_new("CreateEventSourceMapping"),
                self.create_event_source_mapping,
            ),
            ReadOperation("GetEventSourceMapping", on("GetEventSourceMapping"), self.get_event_source_mapping),
            ReadOperation(
                "ListEventSourceMappings",
                self._edge.on_all("ListEventSourceMappings"),
                self.list_event_source_mappings,
            ),
            WriteOperation(
                "UpdateEventSourceMapping", on("UpdateEventSourceMapping"), self.update_event_source_mapping
            ),
            WriteOperation(
                "DeleteEventSourceMapping", on("DeleteEventSourceMapping"), self.delete_event_source_mapping
            ),
        ]

    @staticmethod
    def _on_new(action: str) -> Permissions:
        """Return the permission for a mapping that has no name yet; policies narrow it by the function."""

        def permissions(request: Request) -> Iterable[Permission]:
            yield Permission(f"lambda:{action}", "*", {"lambda:FunctionArn": str(request.get("FunctionName", ""))})

        return permissions

    def _on_mapping(self, action: str) -> Permissions:
        def permissions(request: Request) -> Iterable[Permission]:
            yield Permission(f"lambda:{action}", self._arn(str(request.get("UUID", ""))))

        return permissions

    def _arn(self, uuid: str) -> str:
        return self._edge.account.arn("lambda", f"event-source-mapping:{uuid}")

    # ── making and changing ──────────────────────────────────────────────────────────────────────────────────────

    async def create_event_source_mapping(self, request: Request, call: Call) -> Response:
        """Let a queue or a stream invoke a function."""
        _refuse_what_is_not_here(request)
        named = reference(self._edge.account, str(request.get("FunctionName", "")))
        source_arn = self._source(request.get("EventSourceArn"))
        is_queue = arns.parse(source_arn).service == "sqs"
        if is_queue and (given := [member for member in _OF_STREAMS if request.get(member) is not None]):
            raise InvalidParameterValueError(f"{given[0]} is not supported for SQS event sources.", Type="User")
        if not is_queue and request.get("ScalingConfig"):
            raise InvalidParameterValueError("ScalingConfig is supported for SQS event sources only.", Type="User")
        settings = Settings() if is_queue else self._starting(request)
        tags = dict(request.get("Tags") or {})
        check_tags(tags)
        mapping = EventSourceMapping(
            ids.random_uuid(),
            named.name,
            named.qualifier,
            source_arn,
            request.get("Enabled", True),
            self._changed(settings, request),
        )
        event_source_mappings.check(mapping)
        function = await self._lambda.database.read(lambda reader: self._lambda.function(reader, named))
        await self._check_source(mapping, function)

        def create(tx: Transaction) -> EventSourceMapping:
            self._check_unique(tx, mapping)
            stored = event_source_mappings.put(tx, mapping)
            if tags:
                event_source_mappings.write_tags(tx, mapping.uuid, tags)
            self._lambda.event_sources.follow(tx, mapping.uuid)
            return stored

        return self._shape(await self._lambda.database.write(create), "Creating")

    def _source(self, source_arn: str | None) -> str:
        try:
            arn = arns.parse(source_arn or "")
        except ValueError:
            arn = None
        account = self._edge.account
        is_queue = arn is not None and arn.service == "sqs"
        is_stream = arn is not None and arn.service == "dynamodb" and "/stream/" in arn.resource
        if arn is None or not (is_queue or is_stream):
            raise InvalidParameterValueError(
                f"Unrecognized event source: {str(source_arn)[:200]}. Event sources here are SQS queues and DynamoDB "
                "streams.",
                Type="User",
            )
        if (arn.region, arn.account_id) != (account.region, account.account_id):
            raise InvalidParameterValueError(f"Unrecognized event source: {str(arn)[:200]}", Type="User")
        return str(arn)

    @staticmethod
    def _starting(request: Request) -> Settings:
        position = request.get("StartingPosition")
        if position is None:
            raise InvalidParameterValueError(
                "1 validation error detected: Value null at 'startingPosition' failed to satisfy constraint: Member must "
                "not be null.",
                Type="User",
            )
        if position not in ("TRIM_HORIZON", "LATEST"):
            raise InvalidParameterValueError(
                f"Unsupported starting position for arn type: {str(position)[:50]}", Type="User"
            )
        at_ms = clock.now_ms() if position == "LATEST" else 0
        return Settings(batch_size=STREAM_BATCH_SIZE, starting_position=position, starting_at_ms=at_ms)

    async def _check_source(self, mapping: EventSourceMapping, function: FunctionConfiguration) -> None:
        """Read the source once, as the function's role: it must be there, and the role must be allowed to."""
        principal = self._lambda.neighbours.principal_for_role(function.role_arn, function.name)
        call = Call(principal, ids.random_uuid(), user_agent="lambda.amazonaws.com")
        operations = self._lambda.neighbours.operations
        arn = arns.parse(mapping.source_arn)
        try:
            if mapping.kind == "sqs":
                url = {"QueueUrl": f"{arn.account_id}/{arn.resource}"}
                for action in ("ReceiveMessage", "DeleteMessage"):
                    operations.require(Permission(f"sqs:{action}", mapping.source_arn), call)
                answer = await operations.perform("sqs", "GetQueueAttributes", {**url, "AttributeNames": ["All"]}, call)
                visibility_s = int(answer["Attributes"]["VisibilityTimeout"])
                if visibility_s < function.timeout_s:
                    raise InvalidParameterValueError(
                        f"Queue visibility timeout: {visibility_s} seconds is less than Function timeout: "
                        f"{function.timeout_s} seconds",
                        Type="User",
                    )
            else:
                for action in ("GetRecords", "GetShardIterator"):
                    operations.require(Permission(f"dynamodb:{action}", mapping.source_arn), call)
                await operations.perform("dynamodbstreams", "DescribeStream", {"StreamArn": mapping.source_arn}, call)
        except InvalidParameterValueError:
            raise
        except AwsError as error:
            if "NonExistent" in error.code or "DoesNotExist" in error.code or error.code.startswith("ResourceNotFound"):
                raise InvalidParameterValueError(
                    f"Error occurred while {'ReceiveMessage' if mapping.kind == 'sqs' else 'DescribeStream'}. "
                    f"{mapping.source_arn}: {error.message}",
                    Type="User",
                ) from None
            service = "SQS" if mapping.kind == "sqs" else "DynamoDB"
            raise InvalidParameterValueError(
                f"Cannot access stream or queue {mapping.source_arn} on {service}. Please ensure the role "
                f"{function.role_arn} can perform the actions that it needs: {error.message}",
                Type="User",
            ) from None

    def _check_unique(self, reader: Reader, mapping: EventSourceMapping) -> None:
        found = event_source_mappings.listing(reader, source_arn=mapping.source_arn, limit=MAPPINGS_LIMIT)
        same = [f for f in found if f.function_name == mapping.function_name and f.uuid != mapping.uuid]
        if same:
            raise ResourceConflictError(
                f"An event source mapping with {'SQS' if mapping.kind == 'sqs' else 'dynamodb'} arn "
                f'(" {mapping.source_arn} ") and function (" {mapping.function_name} ") already exists. Please update or '
                f"delete the existing mapping with UUID {same[0].uuid}",
                Type="User",
            )
        if len(event_source_mappings.listing(reader, limit=MAPPINGS_LIMIT)) >= MAPPINGS_LIMIT:
            raise InvalidParameterValueError(f"There are {MAPPINGS_LIMIT} event source mappings already.")

    def _changed(self, settings: Settings, request: Request) -> Settings:
        """Return the settings with what the request sets."""
        members = {
            "BatchSize": "batch_size",
            "MaximumBatchingWindowInSeconds": "window_s",
            "BisectBatchOnFunctionError": "bisects",
            "MaximumRetryAttempts": "maximum_retry_attempts",
            "MaximumRecordAgeInSeconds": "maximum_record_age_s",
        }
        changes: dict[str, Any] = {
            ours: request[theirs] for theirs, ours in members.items() if request.get(theirs) is not None
        }
        if request.get("FunctionResponseTypes") is not None:
            changes["reports_item_failures"] = "ReportBatchItemFailures" in request["FunctionResponseTypes"]
        if request.get("ScalingConfig") is not None:
            changes["maximum_concurrency"] = request["ScalingConfig"].get("MaximumConcurrency")
        if request.get("FilterCriteria") is not None:
            filters = tuple(entry.get("Pattern") or "{}" for entry in request["FilterCriteria"].get("Filters") or ())
            try:
                compile_filters(filters, self._lambda.neighbours.compile_pattern)
            except AwsError as error:
                raise InvalidParameterValueError(
                    f"Invalid filter pattern definition. {error.message}", Type="User"
                ) from None
            changes["filters"] = filters
        if request.get("DestinationConfig") is not None:
            arn = (request["DestinationConfig"].get("OnFailure") or {}).get("Destination") or ""
            if arn:
                destinations.check(arn, ("sqs", "sns"))
            changes["on_failure_arn"] = arn
        return replace(settings, **changes)

    def update_event_source_mapping(self, tx: Transaction, request: Request, call: Call) -> Response:
        """Change a mapping; its poller begins anew where it was."""
        _refuse_what_is_not_here(request)
        mapping = self._known(tx, request)
        if mapping.kind == "sqs" and (given := [m for m in _OF_STREAMS if request.get(m) is not None]):
            raise InvalidParameterValueError(f"{given[0]} is not supported for SQS event sources.", Type="User")
        mapping = replace(mapping, settings=self._changed(mapping.settings, request))
        if request.get("FunctionName"):
            named = self._edge.known(tx, reference(self._edge.account, str(request["FunctionName"])))
            mapping = replace(mapping, function_name=named.name, qualifier=named.qualifier)
            self._check_unique(tx, mapping)
        if request.get("Enabled") is not None:
            mapping = replace(mapping, is_enabled=request["Enabled"])
        event_source_mappings.check(mapping)
        stored = event_source_mappings.put(tx, mapping)
        self._lambda.event_sources.follow(tx, mapping.uuid)
        return self._shape(stored, "Updating")

    def delete_event_source_mapping(self, tx: Transaction, request: Request, call: Call) -> Response:
        """Let the source no longer invoke the function."""
        mapping = self._known(tx, request)
        event_source_mappings.delete(tx, mapping.uuid)
        self._lambda.event_sources.follow(tx, mapping.uuid)
        return self._shape(mapping, "Deleting")

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────

    def get_event_source_mapping(self, reader: Reader, request: Request, call: Call) -> Response:
        """Return a mapping."""
        return self._shape(self._known(reader, request))

    def list_event_source_mappings(self, reader: Reader, request: Request, call: Call) -> Response:
        """Return mappings, of one function or of one source where that is asked for."""
        name = None
        if request.get("FunctionName"):
            name = self._edge.known(reader, reference(self._edge.account, str(request["FunctionName"]))).name
        return page(
            request,
            "EventSourceMappings",
            PAGE_LIMIT,
            lambda limit: event_source_mappings.listing(
                reader,
                name=name,
                source_arn=request.get("EventSourceArn"),
                after=str(request.get("Marker") or ""),
                limit=limit,
            ),
            self._shape,
            lambda mapping: mapping.uuid,
        )

    def _known(self, reader: Reader, request: Request) -> EventSourceMapping:
        mapping = event_source_mappings.find(reader, str(request.get("UUID", "")))
        if mapping is None:
            raise ResourceNotFoundError("The resource you requested does not exist.", Type="User")
        return mapping

    def _shape(self, mapping: EventSourceMapping, state: str | None = None) -> Response:
        settings = mapping.settings
        response: Response = {
            "UUID": mapping.uuid,
            "BatchSize": settings.batch_size,
            "MaximumBatchingWindowInSeconds": settings.window_s,
            "EventSourceArn": mapping.source_arn,
            "FunctionArn": self._edge.arn(Reference(mapping.function_name, mapping.qualifier)),
            "LastModified": timestamp(mapping.modified_at_ms),
            "State": state or ("Enabled" if mapping.is_enabled else "Disabled"),
            "StateTransitionReason": "USER_INITIATED" if mapping.kind == "sqs" else "User action",
            "FunctionResponseTypes": ["ReportBatchItemFailures"] if settings.reports_item_failures else [],
            "EventSourceMappingArn": self._arn(mapping.uuid),
        }
        if settings.filters:
            response["FilterCriteria"] = {"Filters": [{"Pattern": text} for text in settings.filters]}
        if settings.maximum_concurrency is not None:
            response["ScalingConfig"] = {"MaximumConcurrency": settings.maximum_concurrency}
        if mapping.kind == "dynamodb":
            response |= {
                "StartingPosition": settings.starting_position,
                "ParallelizationFactor": 1,
                "BisectBatchOnFunctionError": settings.bisects,
                "MaximumRetryAttempts": settings.maximum_retry_attempts,
                "MaximumRecordAgeInSeconds": settings.maximum_record_age_s,
                "TumblingWindowInSeconds": 0,
                "LastProcessingResult": self._lambda.event_sources.result(mapping),
                "DestinationConfig": {
                    "OnFailure": {"Destination": settings.on_failure_arn} if settings.on_failure_arn else {}
                },
            }
        return response


def _refuse_what_is_not_here(request: Mapping[str, Any]) -> None:
    for member in _REFUSED:
        if request.get(member):
            raise InvalidParameterValueError(f"{member} is not supported here.")
    if (request.get("MetricsConfig") or {}).get("Metrics"):
        raise InvalidParameterValueError("MetricsConfig is not supported here.")
    if request.get("ParallelizationFactor") not in (None, 1):
        refuse(request["ParallelizationFactor"], "parallelizationFactor", "have value 1 here: a shard is read in order")
