"""Functions: creation, code, configuration, listing, deletion."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from entrepot.database import Reader, Transaction
from entrepot.operations import AsyncOperation, Call, Operation, ReadOperation, Request, Response, WriteOperation
from entrepot.services.lambda_ import code, destinations, functions, layers
from entrepot.services.lambda_.configuration import LATEST, FunctionConfiguration, check
from entrepot.services.lambda_.errors import InvalidParameterValueError, ResourceConflictError
from entrepot.services.lambda_.operations.edge import PAGE_LIMIT, Edge, page
from entrepot.services.lambda_.operations.tags import check_tags

TOTAL_CODE_LIMIT_BYTES = 80_530_636_800
"""All code of an account, as GetAccountSettings says it (75 GB). Not enforced: the disk's size is."""

_REFUSED: Mapping[str, tuple[str, ...]] = {
    "VpcConfig": ("SubnetIds", "SecurityGroupIds"),
    "FileSystemConfigs": (),
    "ImageConfig": (),
    "KMSKeyArn": (),
    "CodeSigningConfigArn": (),
    "TenancyConfig": (),
    "CapacityProviderConfig": (),
    "DurableConfig": (),
    "AcceleratorConfig": (),
    "PublishTo": (),
}
"""Members that ask for what is not here; refused when they say anything, never ignored."""


class Functions:
    """The operations, each named as AWS's in snake case."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._lambda = edge.lambda_

    def operations(self) -> list[Operation]:
        on, on_role, on_all = self._edge.on_function, self._edge.on_role, self._edge.on_all
        return [
            AsyncOperation("CreateFunction", on_role("CreateFunction"), self.create_function),
            ReadOperation("GetFunction", on("GetFunction"), self.get_function),
            ReadOperation("GetFunctionConfiguration", on("GetFunctionConfiguration"), self.get_function_configuration),
            AsyncOperation("UpdateFunctionCode", on("UpdateFunctionCode"), self.update_function_code),
            AsyncOperation(
                "UpdateFunctionConfiguration",
                on_role("UpdateFunctionConfiguration"),
                self.update_function_configuration,
            ),
            WriteOperation("DeleteFunction", on("DeleteFunction"), self.delete_function),
            ReadOperation("ListFunctions", on_all("ListFunctions"), self.list_functions),
            ReadOperation("GetAccountSettings", on_all("GetAccountSettings"), self.get_account_settings),
        ]

    async def create_function(self, request: Request, call: Call) -> Response:
        """Create a function, and publish it when Publish says so."""
        _refuse_what_is_not_here(request)
        if request.get("PackageType", "Zip") != "Zip":
            raise InvalidParameterValueError("Only functions of PackageType Zip are supported here.")
        for member in ("Runtime", "Handler"):
            if not request.get(member):
                raise InvalidParameterValueError(
                    "Runtime and Handler are mandatory parameters for functions created with deployment packages.",
                    Type="User",
                )
        tags = dict(request.get("Tags") or {})
        check_tags(tags)
        name = self._edge.unqualified(request)
        configuration = _changed(
            FunctionConfiguration(name, request["Role"], request["Handler"], request["Runtime"]), request
        )
        check(configuration)
        self._check_dead_letters(configuration, request)
        sha256, size_bytes = await self._installed(request.get("Code") or {}, call)
        configuration = replace(configuration, code_sha256=sha256, code_size_bytes=size_bytes)
        configuration = await self._with_layers(configuration, request.get("Layers"))

        def create(tx: Transaction) -> FunctionConfiguration:
            if functions.find(tx, name) is not None:
                raise ResourceConflictError(f"Function already exist: {name}", Type="User")
            created = self._lambda.put_function(tx, configuration)
            if tags:
                functions.write_tags(tx, name, tags)
            return self._published(tx, created, request)

        return self._edge.describe(await self._lambda.database.write(create))

    async def update_function_code(self, request: Request, call: Call) -> Response:
        """Give a function other code."""
        name = self._edge.unqualified(request)
        await self._lambda.database.read(lambda reader: self._edge.latest_at(reader, request))
        sha256, size_bytes = await self._installed(request, call)

        def update(tx: Transaction) -> FunctionConfiguration:
            changed = replace(self._edge.latest_at(tx, request), code_sha256=sha256, code_size_bytes=size_bytes)
            if request.get("Architectures"):
                changed = replace(changed, architectures=_architectures(request["Architectures"]))
            if request.get("DryRun"):
                return changed
            return self._published(tx, self._lambda.put_function(tx, changed), request)

        configuration = await self._lambda.database.read(lambda reader: self._edge.latest(reader, name))
        if configuration.layers:  # their size counts together with the code's
            await self._with_layers(replace(configuration, code_sha256=sha256), configuration.layers)
        return self._edge.describe(await self._lambda.database.write(update))

    def _check_dead_letters(self, configuration: FunctionConfiguration, request: Request) -> None:
        """Refuse a dead-letter queue or topic that the function's role may not send to."""
        if request.get("DeadLetterConfig") and configuration.dead_letter_arn:
            self._lambda.destinations.check_rights(configuration, configuration.dead_letter_arn)

    async def _installed(self, source: Request, call: Call) -> tuple[str, int]:
        """Unpack code that came with the request or lies in a bucket; return its (sha256 in hex, size in bytes)."""
        for member in ("ImageUri", "SourceKMSKeyArn", "PublishTo"):
            if source.get(member):
                raise InvalidParameterValueError(f"{member} is not supported here.")
        data, bucket, key = source.get("ZipFile"), source.get("S3Bucket"), source.get("S3Key")
        if (data and bucket) or (bucket and not key) or (not data and not bucket):
            raise InvalidParameterValueError("Please provide a source for function code.", Type="User")
        limit_bytes = code.ZIP_LIMIT_BYTES
        if bucket:
            limit_bytes = code.CODE_LIMIT_BYTES
            data = await self._lambda.neighbours.read_object(
                call, bucket, str(key), source.get("S3ObjectVersion"), limit_bytes
            )
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, code.install_zip, bytes(data or b""), self._lambda.code, limit_bytes)

    async def _with_layers(
        self, configuration: FunctionConfiguration, layer_arns: list[str] | tuple[str, ...] | None
    ) -> FunctionConfiguration:
        """Return the configuration with these layers laid out; None keeps what there is."""
        if layer_arns is None:
            return configuration
        if not layer_arns:
            return replace(configuration, layers=(), layer_sizes_bytes=(), layers_folder="")
        if tuple(layer_arns) == configuration.layers:  # they may be deleted by now: the function keeps them
            return configuration
        arns = tuple(layer_arns)
        found = await self._lambda.database.read(lambda reader: layers.resolve(reader, self._edge.account, arns))
        sha256s = [layer.code_sha256 for layer in found]
        folder = await asyncio.get_running_loop().run_in_executor(
            None, code.install_layers, sha256s, configuration.code_sha256, self._lambda.code
        )
        sizes = tuple(layer.code_size_bytes for layer in found)
        return replace(configuration, layers=arns, layer_sizes_bytes=sizes, layers_folder=folder)

    def _published(self, tx: Transaction, latest: FunctionConfiguration, request: Request) -> FunctionConfiguration:
        """Return $LATEST, or the version that Publish makes of it."""
        if not request.get("Publish"):
            return latest
        version = functions.publish(tx, latest, None)
        self._lambda.follow(tx, latest.name)
        return version

    async def update_function_configuration(self, request: Request, call: Call) -> Response:
        """Change what a function's configuration says."""
        _refuse_what_is_not_here(request)
        current = await self._lambda.database.read(lambda reader: self._edge.latest_at(reader, request))
        prepared = await self._with_layers(current, request.get("Layers"))
        self._check_dead_letters(_changed(current, request), request)

        def update(tx: Transaction) -> FunctionConfiguration:
            changed = _changed(self._edge.latest_at(tx, request), request)
            changed = replace(
                changed,
                layers=prepared.layers,
                layer_sizes_bytes=prepared.layer_sizes_bytes,
                layers_folder=prepared.layers_folder,
            )
            return self._lambda.put_function(tx, changed)

        return self._edge.describe(await self._lambda.database.write(update))

    def delete_function(self, tx: Transaction, request: Request, call: Call) -> Response:
        """Delete a function, or one version of it."""
        named = self._edge.reference(request)
        if not named.qualifier:
            self._lambda.delete_function(tx, named.name)
        elif named.qualifier == LATEST:
            raise InvalidParameterValueError(
                "$LATEST version cannot be deleted without deleting the function.", Type="User"
            )
        else:
            self._edge.latest(tx, named.name)
            if not named.qualifier.isdigit():
                raise InvalidParameterValueError("Deletion of aliases is not currently supported.", Type="User")
            functions.delete_version(tx, named.name, named.qualifier)
            self._lambda.follow(tx, named.name)
        return {}

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────

    def get_function(self, reader: Reader, request: Request, call: Call) -> Response:
        """Return a function or a version with the place of its code."""
        named = self._edge.reference(request)
        configuration = self._lambda.function(reader, named)
        response: Response = {
            "Configuration": self._edge.describe(configuration, named.qualifier),
            "Code": {"RepositoryType": "S3", "Location": (self._lambda.code / configuration.code_sha256).as_uri()},
        }
        if tags := functions.tags(reader, named.name):
            response["Tags"] = tags
        if named.is_latest and configuration.reserved_concurrency is not None:
            response["Concurrency"] = {"ReservedConcurrentExecutions": configuration.reserved_concurrency}
        return response

    def get_function_configuration(self, reader: Reader, request: Request, call: Call) -> Response:
        """Return the configuration of a function or a version."""
        named = self._edge.reference(request)
        return self._edge.describe(self._lambda.function(reader, named), named.qualifier)

    def list_functions(self, reader: Reader, request: Request, call: Call) -> Response:
        """Return functions by name; with FunctionVersion ALL every version of them too."""
        marker = str(request.get("Marker") or "")
        if request.get("FunctionVersion") == "ALL":
            return page(
                request,
                "Functions",
                PAGE_LIMIT,
                lambda limit: _all_versions(reader, marker, limit),
                lambda found: self._edge.describe(found, found.version),
                lambda found: f"{found.name}:{found.version}",
            )
        return page(
            request,
            "Functions",
            PAGE_LIMIT,
            lambda limit: functions.listing(reader, after=marker, limit=limit),
            self._edge.describe,
            lambda found: found.name,
        )

    def get_account_settings(self, reader: Reader, request: Request, call: Call) -> Response:
        """Return the limits and what is used of them."""
        count = size_bytes = reserved = 0
        after = ""
        while found := functions.listing(reader, after=after, limit=PAGE_LIMIT):
            after = found[-1].name
            count += len(found)
            size_bytes += sum(function.code_size_bytes for function in found)
            reserved += sum(function.reserved_concurrency or 0 for function in found)
        workers = self._lambda.worker_limit
        return {
            "AccountLimit": {
                "TotalCodeSize": TOTAL_CODE_LIMIT_BYTES,
                "CodeSizeUnzipped": code.CODE_LIMIT_BYTES,
                "CodeSizeZipped": code.ZIP_LIMIT_BYTES,
                "ConcurrentExecutions": workers,
                "UnreservedConcurrentExecutions": max(0, workers - reserved),
            },
            "AccountUsage": {"TotalCodeSize": size_bytes, "FunctionCount": count},
        }


def _all_versions(reader: Reader, marker: str, limit: int) -> list[FunctionConfiguration]:
    """Return functions by name, $LATEST first and then the published versions, after the marker `name:version`."""
    name, _, version = marker.partition(":")
    found: list[FunctionConfiguration] = []
    if name:
        after = int(version) if version.isdigit() else 0
        found += functions.versions(reader, name, after=after, limit=limit)
    while len(found) < limit:
        following = functions.listing(reader, after=name, limit=1)
        if not following:
            break
        name = following[0].name
        found += [*following, *functions.versions(reader, name, limit=limit)]
    return found[:limit]


def _refuse_what_is_not_here(request: Request) -> None:
    for member, parts in _REFUSED.items():
        value = request.get(member)
        if any(value.get(part) for part in parts) if parts and isinstance(value, dict) else value:
            raise InvalidParameterValueError(f"{member} is not supported here.")
    if (request.get("SnapStart") or {}).get("ApplyOn", "None") != "None":
        raise InvalidParameterValueError("SnapStart is not supported here.")
    if (request.get("TracingConfig") or {}).get("Mode", "PassThrough") != "PassThrough":
        raise InvalidParameterValueError("Active tracing is not supported here.")
    if (request.get("LoggingConfig") or {}).get("LogFormat", "Text") != "Text":
        raise InvalidParameterValueError("The log format JSON is not supported here.")


def _changed(configuration: FunctionConfiguration, request: Request) -> FunctionConfiguration:
    """Return the configuration with what the request sets."""
    members = {
        "Role": "role_arn",
        "Handler": "handler",
        "Runtime": "runtime",
        "Description": "description",
        "Timeout": "timeout_s",
        "MemorySize": "memory_size_mb",
    }
    changes: dict[str, Any] = {
        ours: request[theirs] for theirs, ours in members.items() if request.get(theirs) is not None
    }
    if request.get("Environment") is not None:
        changes["environment"] = dict(request["Environment"].get("Variables") or {})
    if group := (request.get("LoggingConfig") or {}).get("LogGroup"):
        changes["log_group"] = group
    if request.get("EphemeralStorage"):
        changes["ephemeral_storage_mb"] = request["EphemeralStorage"]["Size"]
    if request.get("Architectures"):
        changes["architectures"] = _architectures(request["Architectures"])
    if request.get("DeadLetterConfig") is not None:
        arn = request["DeadLetterConfig"].get("TargetArn") or ""
        if arn:
            destinations.check(arn, ("sqs", "sns"))
        changes["dead_letter_arn"] = arn
    return replace(configuration, **changes)


def _architectures(asked: list[str]) -> tuple[str, ...]:
    if len(asked) != 1 or asked[0] not in ("x86_64", "arm64"):
        raise InvalidParameterValueError("Architectures must be one of x86_64 and arm64.", Type="User")
    return tuple(asked)
