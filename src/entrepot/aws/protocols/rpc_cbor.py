"""smithy-rpc-v2-cbor (CloudWatch, by botocore's choice): one CBOR body, the operation in the path.

Source: https://smithy.io/2.0/additional-specs/protocols/smithy-rpc-v2.html
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from botocore.model import OperationModel, ServiceModel

from entrepot.aws import timestamps
from entrepot.aws.errors import SerializationError
from entrepot.aws.http import HttpResponse
from entrepot.aws.protocols import Incoming, cbor
from entrepot.aws.protocols.error_codes import error_shape
from entrepot.errors import AwsError


class RpcCbor:
    """rpc-v2-cbor for one service."""

    def __init__(self, model: ServiceModel) -> None:
        self._model = model

    def read(self, operation: OperationModel, incoming: Incoming) -> dict[str, Any]:
        """See WireProtocol."""
        assert isinstance(incoming.body, bytes)
        value = cbor.loads(incoming.body) if incoming.body else {}
        if operation.input_shape is None:
            return {}
        result: dict[str, Any] = _read(operation.input_shape, value)
        return result

    def write(self, operation: OperationModel, response: Mapping[str, Any], request_id: str) -> HttpResponse:
        """See WireProtocol."""
        shape = operation.output_shape
        return _respond(200, b"" if shape is None else cbor.dumps(_write(shape, response)), request_id)

    def fail(self, error: AwsError, code: str, status: int, request_id: str) -> HttpResponse:
        """See WireProtocol."""
        shape = error_shape(self._model, code)
        document = {} if shape is None else _write(shape, error.members)
        document["__type"] = code
        document["message"] = error.message
        return _respond(status, cbor.dumps(document), request_id)


def _respond(status: int, body: bytes, request_id: str) -> HttpResponse:
    headers = {
        "x-amzn-RequestId": request_id,
        "smithy-protocol": "rpc-v2-cbor",
        "Content-Type": "application/cbor",
    }
    return HttpResponse(status, headers, body)


_TYPES: dict[str, tuple[type, ...]] = {
    "structure": (dict,),
    "map": (dict,),
    "list": (list,),
    "blob": (bytes,),
    "boolean": (bool,),
    "string": (str,),
    "integer": (int,),
    "long": (int,),
    "float": (float, int),
    "double": (float, int),
    "timestamp": (datetime, float, int),
}


def _read(shape: Any, value: Any) -> Any:
    kind: str = shape.type_name
    fits = isinstance(value, _TYPES.get(kind, (str,))) and (kind == "boolean" or not isinstance(value, bool))
    if not fits:
        raise SerializationError(f"A {type(value).__name__} was found where a {kind} is expected.")
    match kind:
        case "structure":
            members = shape.members
            return {k: _read(members[k], v) for k, v in value.items() if k in members and v is not None}
        case "list":
            return [_read(shape.member, item) for item in value if item is not None]
        case "map":
            return {key: _read(shape.value, item) for key, item in value.items() if item is not None}
        case "timestamp":
            return value if isinstance(value, datetime) else timestamps.from_unix(value)
        case "float" | "double":
            return float(value)
        case _:
            return value


def _write(shape: Any, value: Any) -> Any:
    match shape.type_name:
        case "structure":
            members = shape.members
            return {k: _write(members[k], v) for k, v in value.items() if k in members and v is not None}
        case "list":
            return [_write(shape.member, item) for item in value]
        case "map":
            return {key: _write(shape.value, item) for key, item in value.items()}
        case "timestamp":
            return value.astimezone(UTC)
        case "float" | "double":
            return float(value)
        case _:
            return value
