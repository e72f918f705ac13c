"""restJson1 (Lambda): members in path, query and headers, the rest in a JSON body.

Source: https://smithy.io/2.0/aws/protocols/aws-restjson1-protocol.html
"""

from collections.abc import Mapping
from typing import Any

from botocore.model import OperationModel, ServiceModel

from entrepot.aws.errors import SerializationError
from entrepot.aws.http import HttpResponse
from entrepot.aws.protocols import Incoming
from entrepot.aws.protocols.json_body import JsonReaders, JsonWriters, dumps, loads
from entrepot.aws.protocols.json_rpc import error_members
from entrepot.aws.protocols.rest import RestInput, RestOutput
from entrepot.errors import AwsError


class RestJson:
    """restJson1 for one service."""

    def __init__(self, model: ServiceModel) -> None:
        self._model = model
        self._readers = JsonReaders()
        self._writers = JsonWriters()
        self._inputs: dict[str, RestInput] = {}
        self._outputs: dict[str, RestOutput] = {}

    def read(self, operation: OperationModel, incoming: Incoming) -> dict[str, Any]:
        """See WireProtocol. A blob payload is bytes (the endpoint buffers it unless the operation streams)."""
        layout = self._inputs.get(operation.name)
        if layout is None:
            layout = self._inputs[operation.name] = RestInput(operation)
        values = layout.read(incoming.request, incoming.labels, incoming.pairs)
        body = incoming.body
        if layout.payload is not None:
            member = layout.shape.members[layout.payload]
            if member.type_name in ("blob", "string") or not isinstance(body, bytes):
                if body != b"":
                    values[layout.payload] = body
            elif body:
                values[layout.payload] = self._readers.reader(member)(loads(body))
        elif layout.body_members and body:
            assert isinstance(body, bytes)
            document = loads(body)
            if not isinstance(document, dict):
                raise SerializationError("Start of structure or map found where not expected.")
            values.update(self._readers.reader(layout.shape)(document))
        return values

    def write(self, operation: OperationModel, response: Mapping[str, Any], request_id: str) -> HttpResponse:
        """See WireProtocol."""
        layout = self._outputs.get(operation.name)
        if layout is None:
            layout = self._outputs[operation.name] = RestOutput(operation)
        headers = {"x-amzn-RequestId": request_id}
        status, rest = layout.write(response, headers)
        if layout.payload is not None:
            payload = rest.get(layout.payload)
            member = layout.shape.members[layout.payload]
            if member.type_name in ("structure", "list", "map") and payload is not None:
                payload = dumps(self._writers.writer(member)(payload))
            headers.setdefault("Content-Type", "application/json")
            return HttpResponse(status, headers, payload.encode() if isinstance(payload, str) else payload or b"")
        if not layout.body_members:
            return HttpResponse(status, headers)
        headers["Content-Type"] = "application/json"
        return HttpResponse(status, headers, dumps(self._writers.writer(layout.shape)(rest)))

    def fail(self, error: AwsError, code: str, status: int, request_id: str) -> HttpResponse:
        """See WireProtocol."""
        headers = {"x-amzn-RequestId": request_id, "x-amzn-ErrorType": code, "Content-Type": "application/json"}
        return HttpResponse(status, headers, dumps(error_members(self._model, self._writers, error, code)))
