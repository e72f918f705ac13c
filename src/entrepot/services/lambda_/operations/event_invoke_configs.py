"""How asynchronous invocations are retried and where their outcome goes."""

from dataclasses import replace
from typing import Any

from entrepot.database import Reader, Transaction
from entrepot.operations import Call, Operation, ReadOperation, Request, Response, WriteOperation
from entrepot.services.lambda_ import destinations, event_invoke_config
from entrepot.services.lambda_.configuration import LATEST, Reference, refuse
from entrepot.services.lambda_.errors import InvalidParameterValueError, ResourceNotFoundError
from entrepot.services.lambda_.event_invoke_config import EventInvokeConfig
from entrepot.services.lambda_.operations.edge import PAGE_LIMIT, Edge, page, timestamp

_DESTINATIONS = ("sqs", "sns", "lambda", "events")


class EventInvokeConfigs:
    """The operations, each named as AWS's in snake case."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    def operations(self) -> list[Operation]:
        on, name = self._edge.on_function, "FunctionEventInvokeConfig"
        return [
            WriteOperation(f"Put{name}", on(f"Put{name}"), self.put_function_event_invoke_config),
            WriteOperation(f"Update{name}", on(f"Update{name}"), self.update_function_event_invoke_config),
            ReadOperation(f"Get{name}", on(f"Get{name}"), self.get_function_event_invoke_config),
            WriteOperation(f"Delete{name}", on(f"Delete{name}"), self.delete_function_event_invoke_config),
            ReadOperation(f"List{name}s", on(f"List{name}s"), self.list_function_event_invoke_configs),
        ]

    def put_function_event_invoke_config(self, tx: Transaction, request: Request, call: Call) -> Response:
        """Replace what is configured."""
        if not any(request.get(m) is not None for m in ("MaximumRetryAttempts", "MaximumEventAgeInSeconds",
                                                        "DestinationConfig")):  # fmt: skip
            raise InvalidParameterValueError(
                "You must specify at least one of error handling or destination setting.", Type="User"
            )
        return self._put(tx, request, EventInvokeConfig())

    def update_function_event_invoke_config(self, tx: Transaction, request: Request, call: Call) -> Response:
        """Change what is configured, member by member."""
        return self._put(tx, request, self._configured(tx, self._edge.reference(request)))

    def _put(self, tx: Transaction, request: Request, config: EventInvokeConfig) -> Response:
        named = self._edge.known(tx, self._edge.reference(request))
        changed = self._changed(config, request, named)
        function = self._edge.lambda_.function(tx, named)
        for arn in (changed.on_success_arn, changed.on_failure_arn):
            if arn is not None:
                self._edge.lambda_.destinations.check_rights(function, arn)
        config = event_invoke_config.put(tx, named, changed)
        return self._shape(named, config)

    def _changed(self, config: EventInvokeConfig, request: Request, named: Reference) -> EventInvokeConfig:
        attempts, age_s = request.get("MaximumRetryAttempts"), request.get("MaximumEventAgeInSeconds")
        if attempts is not None:
            if not 0 <= attempts <= event_invoke_config.MAXIMUM_RETRY_ATTEMPTS:
                refuse(attempts, "maximumRetryAttempts", "have value less than or equal to 2")
            config = replace(config, maximum_retry_attempts=attempts)
        if age_s is not None:
            if not event_invoke_config.AGE_MINIMUM_S <= age_s <= event_invoke_config.AGE_LIMIT_S:
                refuse(age_s, "maximumEventAgeInSeconds", "have value between 60 and 21600")
            config = replace(config, maximum_event_age_s=age_s)
        given = request.get("DestinationConfig")
        if given is not None:
            if "OnSuccess" in given:
                config = replace(config, on_success_arn=self._destination(given["OnSuccess"], named))
            if "OnFailure" in given:
                config = replace(config, on_failure_arn=self._destination(given["OnFailure"], named))
        return config

    def _destination(self, given: Any, named: Reference) -> str | None:
        arn: str | None = (given or {}).get("Destination") or None
        if arn is None:
            return None
        destinations.check(arn, _DESTINATIONS)
        if arn.endswith(".fifo"):
            raise InvalidParameterValueError(
                f"The destination ARN {arn[:200]} is invalid: FIFO queues and topics are no destinations.", Type="User"
            )
        if arn in (self._edge.arn(named), self._edge.arn(Reference(named.name))):
            raise InvalidParameterValueError("You can't specify the function as a destination for itself.", Type="User")
        return arn

    def get_function_event_invoke_config(self, reader: Reader, request: Request, call: Call) -> Response:
        """Return what is configured for a function, version or alias."""
        named = self._edge.known(reader, self._edge.reference(request))
        return self._shape(named, self._configured(reader, named))

    def delete_function_event_invoke_config(self, tx: Transaction, request: Request, call: Call) -> Response:
        """Return to AWS's defaults."""
        named = self._edge.known(tx, self._edge.reference(request))
        self._configured(tx, named)
        event_invoke_config.delete(tx, named)
        return {}

    def list_function_event_invoke_configs(self, reader: Reader, request: Request, call: Call) -> Response:
        """Return what is configured for a function, its versions and its aliases."""
        name = self._edge.latest(reader, self._edge.unqualified(request)).name
        after = str(request.get("Marker") or "")
        found = [entry for entry in event_invoke_config.of_function(reader, name) if entry[0] > after]
        return page(
            request,
            "FunctionEventInvokeConfigs",
            PAGE_LIMIT,
            lambda limit: found[:limit],
            lambda entry: self._shape(Reference(name, entry[0]), entry[1]),
            lambda entry: entry[0],
        )

    def _configured(self, reader: Reader, named: Reference) -> EventInvokeConfig:
        config = event_invoke_config.find(reader, named)
        if config is None:
            arn = self._edge.arn(Reference(named.name, named.qualifier or LATEST))
            raise ResourceNotFoundError(f"The function {arn} doesn't have an EventInvokeConfig", Type="User")
        return config

    def _shape(self, named: Reference, config: EventInvokeConfig) -> Response:
        response: Response = {
            "LastModified": timestamp(config.modified_at_ms),
            "FunctionArn": self._edge.arn(Reference(named.name, named.qualifier or LATEST)),
            "DestinationConfig": {
                "OnSuccess": {"Destination": config.on_success_arn} if config.on_success_arn else {},
                "OnFailure": {"Destination": config.on_failure_arn} if config.on_failure_arn else {},
            },
        }
        if config.maximum_retry_attempts is not None:
            response["MaximumRetryAttempts"] = config.maximum_retry_attempts
        if config.maximum_event_age_s is not None:
            response["MaximumEventAgeInSeconds"] = config.maximum_event_age_s
        return response
