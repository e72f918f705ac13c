"""Reserved and provisioned concurrency."""

from dataclasses import replace

from entrepot.database import Reader, Transaction
from entrepot.operations import Call, Operation, ReadOperation, Request, Response, WriteOperation
from entrepot.services.lambda_ import concurrency
from entrepot.services.lambda_.concurrency import ProvisionedConcurrency
from entrepot.services.lambda_.configuration import FunctionConfiguration, Reference, refuse
from entrepot.services.lambda_.errors import (
    InvalidParameterValueError,
    ProvisionedConcurrencyConfigNotFoundError,
)
from entrepot.services.lambda_.operations.edge import PAGE_LIMIT, Edge, iso, page


class Concurrency:
    """The operations, each named as AWS's in snake case."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._lambda = edge.lambda_

    def operations(self) -> list[Operation]:
        on, name = self._edge.on_function, "ProvisionedConcurrencyConfig"
        return [
            WriteOperation("PutFunctionConcurrency", on("PutFunctionConcurrency"), self.put_function_concurrency),
            ReadOperation("GetFunctionConcurrency", on("GetFunctionConcurrency"), self.get_function_concurrency),
            WriteOperation(
                "DeleteFunctionConcurrency", on("DeleteFunctionConcurrency"), self.delete_function_concurrency
            ),
            WriteOperation(f"Put{name}", on(f"Put{name}"), self.put_provisioned_concurrency_config),
            ReadOperation(f"Get{name}", on(f"Get{name}"), self.get_provisioned_concurrency_config),
            WriteOperation(f"Delete{name}", on(f"Delete{name}"), self.delete_provisioned_concurrency_config),
            ReadOperation(f"List{name}s", on(f"List{name}s"), self.list_provisioned_concurrency_configs),
        ]

    # ── reserved ─────────────────────────────────────────────────────────────────────────────────────────────────

    def put_function_concurrency(self, tx: Transaction, request: Request, call: Call) -> Response:
        """Let a function run so many invocations at the same time, and no more."""
        reserved = request["ReservedConcurrentExecutions"]
        self._reserve(tx, request, reserved)
        return {"ReservedConcurrentExecutions": reserved}

    def get_function_concurrency(self, reader: Reader, request: Request, call: Call) -> Response:
        """Return what is reserved; nothing when the function shares with the others."""
        reserved = self._edge.latest(reader, self._edge.unqualified(request)).reserved_concurrency
        return {} if reserved is None else {"ReservedConcurrentExecutions": reserved}

    def delete_function_concurrency(self, tx: Transaction, request: Request, call: Call) -> Response:
        """Let a function share with the others."""
        self._reserve(tx, request, None)
        return {}

    def _reserve(self, tx: Transaction, request: Request, reserved: int | None) -> None:
        latest = self._edge.latest(tx, self._edge.unqualified(request))
        warm = sum(concurrency.by_version(tx, latest.name).values())
        if reserved is not None and reserved < warm:
            raise InvalidParameterValueError(
                f"Specified ReservedConcurrentExecutions for function decreases its reserved concurrency below {warm}, "
                "which is its provisioned concurrency.",
                Type="User",
            )
        self._lambda.put_function(tx, replace(latest, reserved_concurrency=reserved))

    # ── provisioned ──────────────────────────────────────────────────────────────────────────────────────────────

    def put_provisioned_concurrency_config(self, tx: Transaction, request: Request, call: Call) -> Response:
        """Keep so many workers of a version or an alias ready."""
        named, function = self._named(tx, request)
        requested = request["ProvisionedConcurrentExecutions"]
        if requested < 1:
            refuse(requested, "provisionedConcurrentExecutions", "have value greater than or equal to 1")
        others = sum(
            entry.requested for entry in concurrency.of_function(tx, named.name) if entry.qualifier != named.qualifier
        )
        reserved = self._edge.latest(tx, named.name).reserved_concurrency
        limit = self._lambda.worker_limit if reserved is None else reserved
        if requested + others > limit:
            raise InvalidParameterValueError(
                "Requested Provisioned Concurrency should not be greater than the reservedConcurrentExecution for "
                f"function ({limit})"
                if reserved is not None
                else f"Specified ConcurrentExecutions for function is greater than account's unreserved concurrency "
                f"[{limit}].",
                Type="User",
            )
        stored = concurrency.put(tx, named.name, named.qualifier, requested)
        self._lambda.follow(tx, named.name)
        return self._shape(stored, function)

    def get_provisioned_concurrency_config(self, reader: Reader, request: Request, call: Call) -> Response:
        """Return what was asked for and what is there."""
        named, function = self._named(reader, request)
        found = concurrency.find(reader, named.name, named.qualifier)
        if found is None:
            raise ProvisionedConcurrencyConfigNotFoundError(
                "No Provisioned Concurrency Config found for this function", Type="User"
            )
        return self._shape(found, function)

    def delete_provisioned_concurrency_config(self, tx: Transaction, request: Request, call: Call) -> Response:
        """Keep no workers ready for this version or alias; no error when none were, as AWS."""
        named, _ = self._named(tx, request)
        concurrency.delete(tx, named.name, named.qualifier)
        self._lambda.follow(tx, named.name)
        return {}

    def list_provisioned_concurrency_configs(self, reader: Reader, request: Request, call: Call) -> Response:
        """Return all of a function."""
        name = self._edge.latest(reader, self._edge.unqualified(request)).name
        after = str(request.get("Marker") or "")
        found = [entry for entry in concurrency.of_function(reader, name) if entry.qualifier > after]

        def shape(entry: ProvisionedConcurrency) -> Response:
            named = Reference(name, entry.qualifier)
            function = self._lambda.function(reader, named)
            return {"FunctionArn": self._edge.arn(named), **self._shape(entry, function)}

        return page(
            request,
            "ProvisionedConcurrencyConfigs",
            PAGE_LIMIT,
            lambda limit: found[:limit],
            shape,
            lambda entry: entry.qualifier,
        )

    def _named(self, reader: Reader, request: Request) -> tuple[Reference, FunctionConfiguration]:
        named = self._edge.reference(request)
        if named.is_latest:
            raise InvalidParameterValueError(
                "Provisioned Concurrency Configs cannot be applied to unpublished function versions.", Type="User"
            )
        return named, self._lambda.function(reader, named)

    def _shape(self, entry: ProvisionedConcurrency, function: FunctionConfiguration) -> Response:
        idle, busy, _, _ = self._lambda.pool.counts(function.key)
        allocated = min(entry.requested, idle + busy)
        return {
            "RequestedProvisionedConcurrentExecutions": entry.requested,
            "AllocatedProvisionedConcurrentExecutions": allocated,
            "AvailableProvisionedConcurrentExecutions": min(entry.requested, idle),
            "Status": "READY" if allocated == entry.requested else "IN_PROGRESS",
            "LastModified": iso(entry.modified_at_ms),
        }
