"""awsJson 1.0 and 1.1: everything in one JSON body, the operation in X-Amz-Target.

Source: https://smithy.io/2.0/aws/protocols/aws-json-1_1-protocol.html
"""

import zlib
from collections.abc import Mapping
from typing import Any

from botocore.model import OperationModel, ServiceModel

from entrepot.aws.errors import SerializationError
from entrepot.aws.http import HttpResponse
from entrepot.aws.protocols import Incoming
from entrepot.aws.protocols.error_codes import error_shape
from entrepot.aws.protocols.event_stream import CONTENT_TYPE, JsonEvents, stream_member
from entrepot.aws.protocols.json_body import JsonReaders, JsonWriters, dumps, loads
from entrepot.errors import AwsError

_DYNAMODB_PREFIX = "com.amazonaws.dynamodb.v20120810#"


class JsonRpc:
    """awsJson for one service."""

    def __init__(self, model: ServiceModel) -> None:
        self._model = model
        self._readers = JsonReaders()
        self._writers = JsonWriters()
        self._content_type = f"application/x-amz-json-{model.metadata.get('jsonVersion', '1.0')}"
        self._with_crc32 = model.service_name == "dynamodb"
        self._with_query_codes = "awsQueryCompatible" in model.metadata
        self._error_prefix = _DYNAMODB_PREFIX if model.service_name.startswith("dynamodb") else ""

    def read(self, operation: OperationModel, incoming: Incoming) -> dict[str, Any]:
        """See WireProtocol."""
        assert isinstance(incoming.body, bytes)
        value = loads(incoming.body) if incoming.body else {}
        if operation.input_shape is None:
            return {}
        if not isinstance(value, dict):
            raise SerializationError("Start of structure or map found where not expected.")
        result: dict[str, Any] = self._readers.reader(operation.input_shape)(value)
        return result

    def write(self, operation: OperationModel, response: Mapping[str, Any], request_id: str) -> HttpResponse:
        """See WireProtocol."""
        if operation.output_shape is None:
            return self._respond(200, b"", request_id)
        if stream_member(operation) is not None:
            headers = {"x-amzn-RequestId": request_id, "Content-Type": CONTENT_TYPE}
            return HttpResponse(200, headers, JsonEvents(operation, response, self._writers))
        return self._respond(200, dumps(self._writers.writer(operation.output_shape)(response)), request_id)

    def fail(self, error: AwsError, code: str, status: int, request_id: str) -> HttpResponse:
        """See WireProtocol."""
        document = error_members(self._model, self._writers, error, code)
        document["__type"] = self._error_prefix + code
        response = self._respond(status, dumps(document), request_id)
        response.headers["x-amzn-errortype"] = code
        if self._with_query_codes:
            side = "Sender" if status < 500 else "Receiver"
            response.headers["x-amzn-query-error"] = f"{error.query_code or code};{side}"
        return response

    def _respond(self, status: int, body: bytes, request_id: str) -> HttpResponse:
        headers = {"x-amzn-RequestId": request_id, "Content-Type": self._content_type}
        if self._with_crc32:
            headers["x-amz-crc32"] = str(zlib.crc32(body))
        return HttpResponse(status, headers, body)


def error_members(model: Any, writers: JsonWriters, error: AwsError, code: str) -> dict[str, Any]:
    """Return the body of a JSON error: the members of its shape in the model's spelling, and the message."""
    shape = error_shape(model, code)
    if shape is None:
        return {"message": error.message, **{name: str(value) for name, value in error.members.items()}}
    known = {name: value for name, value in error.members.items() if name in shape.members}
    document: dict[str, Any] = writers.writer(shape)(known)
    spelled = next((name for name in shape.members if name.lower() == "message"), "message")
    document[spelled] = error.message
    return document
