"""Invoke: at once, later, or only as a question."""

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from typing import Any

from entrepot.errors import AccessDeniedError
from entrepot.operations import AsyncOperation, Call, Operation, Permission, Request, Response
from entrepot.services.lambda_.configuration import Reference, refuse
from entrepot.services.lambda_.errors import InvalidParameterValueError, InvalidRequestContentError
from entrepot.services.lambda_.operations.edge import Edge

CONTEXT_LIMIT_BYTES = 3_583
"""The client context. AWS's limit."""


class Invoke:
    """The operation, named as AWS's in snake case."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._lambda = edge.lambda_

    def operations(self) -> list[Operation]:
        return [AsyncOperation("Invoke", self._permissions, self.invoke)]

    def _permissions(self, request: Request) -> Iterable[Permission]:
        return [self._permission(self._edge.reference(request), {})]

    def _permission(self, named: Reference, context: Mapping[str, str]) -> Permission:
        return Permission("lambda:InvokeFunction", self._edge.arn(named), context, self._lambda.policy(named))

    def _check_service(self, named: Reference, call: Call) -> None:
        """Refuse a service that acts for a rule or a topic unless the function's policy admits it, where it has one."""
        permission = self._permission(named, call.source)
        if permission.resource_policy and not self._lambda.neighbours.admits(call.principal, permission):
            raise AccessDeniedError(
                f"User: {call.principal.arn} is not authorized to perform: lambda:InvokeFunction on resource: "
                f"{permission.resource} because no statement of the function's resource policy admits "
                f"{call.principal.name} for {call.source_arn or 'an unnamed source'}: see AddPermission"
            )

    async def invoke(self, request: Request, call: Call) -> Response:
        """Run a function, or queue an invocation, or check that it could be invoked."""
        named = self._edge.reference(request)
        if call.principal.kind == "service":
            self._check_service(named, call)
        payload = _payload(request.get("Payload", b""))
        if request.get("TenantId") or request.get("DurableExecutionName"):
            raise InvalidParameterValueError("Tenants and durable executions are not supported here.")
        kind = request.get("InvocationType") or "RequestResponse"
        if kind not in ("Event", "RequestResponse", "DryRun"):
            refuse(kind, "invocationType", "satisfy enum value set: [Event, RequestResponse, DryRun]")
        if kind == "RequestResponse":
            return await self._invoke_now(named, payload, request, call.request_id)
        if kind == "DryRun":
            await self._lambda.database.read(lambda reader: self._lambda.function(reader, named))
            return {"StatusCode": 204, "Payload": b""}
        await self._lambda.database.write(
            lambda tx: self._lambda.invoke_async(tx, named.name, payload, call.request_id, named.qualifier)
        )
        return {"StatusCode": 202, "Payload": b""}

    async def _invoke_now(self, named: Reference, payload: bytes, request: Request, request_id: str) -> Response:
        want_tail = request.get("LogType") == "Tail"
        context = _client_context(request.get("ClientContext"))
        result = await self._lambda.invoke(
            named.name,
            payload,
            qualifier=named.qualifier,
            client_context=context,
            want_tail=want_tail,
            request_id=request_id,
        )
        response: Response = {
            "StatusCode": 200,
            "ExecutedVersion": result.executed_version,
            "Payload": result.payload,
        }
        if result.function_error is not None:
            response["FunctionError"] = result.function_error
        if want_tail:
            response["LogResult"] = base64.b64encode(result.log_tail).decode()
        return response


def _payload(payload: Any) -> bytes:
    """Return the payload as bytes, whether it came over the wire, as a stream, or from a state machine."""
    if payload is None:
        return b""
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
