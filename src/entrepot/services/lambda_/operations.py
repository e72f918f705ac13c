"""The edge of Lambda: botocore's service `lambda`, PascalCase in and out.

Source: https://docs.aws.amazon.com/lambda/latest/api/API_Operations.html
"""

import asyncio
import base64
import binascii
import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from entrepot import clock
from entrepot.database import Reader, Transaction
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
from entrepot.services.lambda_ import code
from entrepot.services.lambda_.configuration import FunctionConfiguration, check, function_arn, function_name, not_found
from entrepot.services.lambda_.errors import (
    InvalidParameterValueError,
    InvalidRequestContentError,
    PreconditionFailedError,
    ResourceConflictError,
)
from entrepot.services.lambda_.service import Lambda

LIST_LIMIT = 50
"""Functions in a page of ListFunctions. AWS's limit."""

CONTEXT_LIMIT_BYTES = 3_583
"""The client context. AWS's limit."""

_REFUSED = {
    "VpcConfig": ("SubnetIds", "SecurityGroupIds"),
    "Layers": (),
    "FileSystemConfigs": (),
    "ImageConfig": (),
    "KMSKeyArn": (),
    "DeadLetterConfig": ("TargetArn",),
    "CodeSigningConfigArn": (),
    "TenancyConfig": (),
    "CapacityProviderConfig": (),
    "DurableConfig": (),
    "AcceleratorConfig": (),
}
"""Members that ask for what is not here; refused when they say anything, never ignored."""


def operations(lambda_: Lambda) -> list[Operation]:
    """Return the operations of botocore's service `lambda`."""
    edge = _Edge(lambda_)
    on = edge.on_function
    return [
        AsyncOperation("CreateFunction", edge.on_role("CreateFunction"), edge.create_function),
        ReadOperation("GetFunction", on("GetFunction"), edge.get_function),
        ReadOperation("GetFunctionConfiguration", on("GetFunctionConfiguration"), edge.get_function_configuration),
        AsyncOperation("UpdateFunctionCode", on("UpdateFunctionCode"), edge.update_function_code),
        WriteOperation(
            "UpdateFunctionConfiguration",
            edge.on_role("UpdateFunctionConfiguration"),
            edge.update_function_configuration,
        ),
        WriteOperation("DeleteFunction", on("DeleteFunction"), edge.delete_function),
        ReadOperation("ListFunctions", edge.on_all("ListFunctions"), edge.list_functions),
        AsyncOperation("Invoke", on("InvokeFunction"), edge.invoke),
        WriteOperation("PutFunctionConcurrency", on("PutFunctionConcurrency"), edge.put_function_concurrency),
        ReadOperation("GetFunctionConcurrency", on("GetFunctionConcurrency"), edge.get_function_concurrency),
        WriteOperation("DeleteFunctionConcurrency", on("DeleteFunctionConcurrency"), edge.delete_function_concurrency),
    ]


class _Edge:
    """The operations as AWS names them."""

    def __init__(self, lambda_: Lambda) -> None:
        self._lambda = lambda_
        self._account = lambda_.account

    def on_function(self, action: str) -> Permissions:
        """Return the permission that an action on a function needs."""

        def permissions(request: Request) -> Iterable[Permission]:
            yield Permission(f"lambda:{action}", function_arn(self._account, self._name(request)))

        return permissions

    def on_role(self, action: str) -> Permissions:
        """Return what an action needs that may give a function a role: also to pass that role."""
        on_function = self.on_function(action)

        def permissions(request: Request) -> Iterable[Permission]:
            yield from on_function(request)
            if request.get("Role"):
                yield Permission("iam:PassRole", request["Role"], {"iam:PassedToService": "lambda.amazonaws.com"})

        return permissions

    def on_all(self, action: str) -> Permissions:
        """Return the permission that a listing needs."""

        def permissions(request: Request) -> Iterable[Permission]:
            yield Permission(f"lambda:{action}", "*")

        return permissions

    def _name(self, request: Request) -> str:
        return function_name(self._account, str(request.get("FunctionName", "")), request.get("Qualifier"))

    def _known(self, tx: Transaction, request: Request) -> FunctionConfiguration:
        """Return the function as the transaction sees it, if it is at the revision that is asked for."""
        name = self._name(request)
        configuration = self._lambda.find(tx, name)
        if configuration is None:
            raise not_found(function_arn(self._account, name))
        if request.get("RevisionId") not in (None, configuration.revision_id):
            raise PreconditionFailedError(
                "The RevisionId provided does not match the latest RevisionId. Call the GetFunction/GetAlias API to "
                "retrieve the latest RevisionId",
                Type="User",
            )
        return configuration

    # ── functions ────────────────────────────────────────────────────────────────────────────────────────────────

    async def create_function(self, request: Request, call: Call) -> Response:
        _refuse_what_is_not_here(request)
        if request.get("PackageType", "Zip") != "Zip":
            raise InvalidParameterValueError("Only functions of PackageType Zip are supported here.")
        if request.get("Publish"):
            raise InvalidParameterValueError("Versions are not supported here; there is $LATEST only.")
        for member in ("Runtime", "Handler"):
            if not request.get(member):
                raise InvalidParameterValueError(
                    "Runtime and Handler are mandatory parameters for functions created with deployment packages."
                )
        configuration = _changed(
            FunctionConfiguration(self._name(request), request["Role"], request["Handler"], request["Runtime"]), request
        )
        check(configuration)
        sha256, size_bytes = await self._unpack(request.get("Code", {}))
        configuration = replace(configuration, code_sha256=sha256, code_size_bytes=size_bytes)

        def create(tx: Transaction) -> FunctionConfiguration:
            if self._lambda.find(tx, configuration.name) is not None:
                raise ResourceConflictError(f"Function already exist: {configuration.name}", Type="User")
            return self._lambda.put_function(tx, configuration)

        return self._describe(await self._lambda.database.write(create))

    async def update_function_code(self, request: Request, call: Call) -> Response:
        if request.get("Publish"):
            raise InvalidParameterValueError("Versions are not supported here; there is $LATEST only.")
        name = self._name(request)
        await self._lambda.database.read(lambda reader: self._lambda.function(reader, name))
        sha256, size_bytes = await self._unpack(request)

        def update(tx: Transaction) -> FunctionConfiguration:
            changed = replace(self._known(tx, request), code_sha256=sha256, code_size_bytes=size_bytes)
            return changed if request.get("DryRun") else self._lambda.put_function(tx, changed)

        return self._describe(await self._lambda.database.write(update))

    async def _unpack(self, source: Request) -> tuple[str, int]:
        if source.get("S3Bucket") or source.get("ImageUri"):
            raise InvalidParameterValueError("Code from S3 or an image is not supported here. Send it as ZipFile.")
        data = source.get("ZipFile")
        if not data:
            raise InvalidParameterValueError("Please provide a source for function code.")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, code.install_zip, bytes(data), self._lambda.code)

    def update_function_configuration(self, tx: Transaction, request: Request, call: Call) -> Response:
        _refuse_what_is_not_here(request)
        return self._describe(self._lambda.put_function(tx, _changed(self._known(tx, request), request)))

    def delete_function(self, tx: Transaction, request: Request, call: Call) -> Response:
        self._lambda.delete_function(tx, self._name(request))
        return {}

    def get_function(self, reader: Reader, request: Request, call: Call) -> Response:
        configuration = self._lambda.function(reader, self._name(request))
        response: Response = {
            "Configuration": self._describe(configuration),
            "Code": {"RepositoryType": "S3", "Location": (self._lambda.code / configuration.code_sha256).as_uri()},
        }
        if configuration.reserved_concurrency is not None:
            response["Concurrency"] = {"ReservedConcurrentExecutions": configuration.reserved_concurrency}
        return response

    def get_function_configuration(self, reader: Reader, request: Request, call: Call) -> Response:
        return self._describe(self._lambda.function(reader, self._name(request)))

    def list_functions(self, reader: Reader, request: Request, call: Call) -> Response:
        limit = min(int(request.get("MaxItems", LIST_LIMIT)), LIST_LIMIT)
        found = self._lambda.functions(reader, after=request.get("Marker", ""), limit=limit + 1)
        response: Response = {"Functions": [self._describe(function) for function in found[:limit]]}
        if len(found) > limit:
            response["NextMarker"] = found[limit - 1].name
        return response

    def _describe(self, configuration: FunctionConfiguration) -> Response:
        modified = clock.iso(configuration.modified_at_ms).replace("Z", "+0000")
        response: Response = {
            "FunctionName": configuration.name,
            "FunctionArn": function_arn(self._account, configuration.name),
            "Runtime": configuration.runtime,
            "Role": configuration.role_arn,
            "Handler": configuration.handler,
            "CodeSize": configuration.code_size_bytes,
            "Description": configuration.description,
            "Timeout": configuration.timeout_s,
            "MemorySize": configuration.memory_size_mb,
            "LastModified": modified,
            "CodeSha256": base64.b64encode(bytes.fromhex(configuration.code_sha256)).decode(),
            "Version": "$LATEST",
            "TracingConfig": {"Mode": "PassThrough"},
            "RevisionId": configuration.revision_id,
            "State": "Active",
            "LastUpdateStatus": "Successful",
            "PackageType": "Zip",
            "Architectures": ["x86_64"],
            "EphemeralStorage": {"Size": 512},
            "SnapStart": {"ApplyOn": "None", "OptimizationStatus": "Off"},
            "LoggingConfig": {"LogFormat": "Text", "LogGroup": configuration.log_group_name},
        }
        if configuration.environment:
            response["Environment"] = {"Variables": dict(configuration.environment)}
        return response

    # ── concurrency ──────────────────────────────────────────────────────────────────────────────────────────────

    def put_function_concurrency(self, tx: Transaction, request: Request, call: Call) -> Response:
        reserved = request["ReservedConcurrentExecutions"]
        self._lambda.put_function(tx, replace(self._known(tx, request), reserved_concurrency=reserved))
        return {"ReservedConcurrentExecutions": reserved}

    def get_function_concurrency(self, reader: Reader, request: Request, call: Call) -> Response:
        reserved = self._lambda.function(reader, self._name(request)).reserved_concurrency
        return {} if reserved is None else {"ReservedConcurrentExecutions": reserved}

    def delete_function_concurrency(self, tx: Transaction, request: Request, call: Call) -> Response:
        self._lambda.put_function(tx, replace(self._known(tx, request), reserved_concurrency=None))
        return {}

    # ── invoke ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def invoke(self, request: Request, call: Call) -> Response:
        name = self._name(request)
        payload = _payload(request.get("Payload", b""))
        if request.get("TenantId") or request.get("DurableExecutionName"):
            raise InvalidParameterValueError("Tenants and durable executions are not supported here.")
        match request.get("InvocationType", "RequestResponse"):
            case "RequestResponse":
                return await self._invoke_now(name, payload, request, call.request_id)
            case "Event":
                await self._lambda.database.write(lambda tx: self._lambda.invoke_async(tx, name, payload))
                return {"StatusCode": 202, "Payload": b""}
            case "DryRun":
                await self._lambda.database.read(lambda reader: self._lambda.function(reader, name))
                return {"StatusCode": 204, "Payload": b""}
            case other:
                raise InvalidParameterValueError(
                    f"1 validation error detected: Value '{str(other)[:100]}' at 'invocationType' failed to satisfy "
                    "constraint: Member must satisfy enum value set: [Event, RequestResponse, DryRun]"
                )

    async def _invoke_now(self, name: str, payload: bytes, request: Request, request_id: str) -> Response:
        want_tail = request.get("LogType") == "Tail"
        context = _client_context(request.get("ClientContext"))
        result = await self._lambda.invoke(
            name, payload, client_context=context, want_tail=want_tail, request_id=request_id
        )
        response: Response = {"StatusCode": 200, "ExecutedVersion": "$LATEST", "Payload": result.payload}
        if result.function_error is not None:
            response["FunctionError"] = result.function_error
        if want_tail:
            response["LogResult"] = base64.b64encode(result.log_tail).decode()
        return response


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
    changes: dict[str, Any] = {ours: request[theirs] for theirs, ours in members.items() if theirs in request}
    if "Environment" in request:
        changes["environment"] = dict(request["Environment"].get("Variables", {}))
    if group := (request.get("LoggingConfig") or {}).get("LogGroup"):
        changes["log_group"] = group
    return replace(configuration, **changes)


def _payload(payload: Any) -> bytes:
    """Return the payload as bytes, whether it came over the wire, as a stream, or from a state machine."""
    if isinstance(payload, str):
        return payload.encode()
    if hasattr(payload, "read"):
        return bytes(payload.read())
    return bytes(payload)


def _client_context(encoded: str | None) -> str:
    """Return the client context's JSON in one ASCII line, fit for a header."""
    if not encoded:
        return ""
    if len(encoded) > CONTEXT_LIMIT_BYTES:
        raise InvalidRequestContentError(f"Client context must be at most {CONTEXT_LIMIT_BYTES} bytes of base64.")
    try:
        return json.dumps(json.loads(base64.b64decode(encoded, validate=True)))
    except (binascii.Error, ValueError, RecursionError):
        raise InvalidRequestContentError("Client context must be a valid Base64-encoded JSON object.") from None
