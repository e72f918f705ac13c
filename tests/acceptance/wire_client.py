"""Signed requests in a wire protocol of the test's choice, to a running server.

botocore chooses one protocol for each service; other SDKs, older ones, and Grafana choose others of those that AWS serves.
"""

import http.client
import json
from typing import Any
from urllib.parse import urlencode, urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.model import ServiceModel
from botocore.parsers import create_parser
from botocore.serialize import create_serializer

from entrepot.aws.models import session
from tests.running import Stack

SIGNING_NAMES = {"cloudwatch": "monitoring"}


class RefusedError(Exception):
    """An answer with an error; `code` and `status` as the client sees them."""

    def __init__(self, code: str, message: str, status: int) -> None:
        super().__init__(f"{code} ({status}): {message}")
        self.code, self.message, self.status = code, message, status


class WireClient:
    """Calls a service of a stack's server in `protocol` (query, json, smithy-rpc-v2-cbor)."""

    def __init__(self, stack: Stack, service: str, protocol: str) -> None:
        key = json.loads((stack.folder / "keys" / "operator.json").read_text())
        self._credentials = Credentials(key["access_key_id"], key["secret_access_key"])
        self._region = json.loads((stack.folder / "data" / "run.json").read_text())["region"]
        self._signing_name = SIGNING_NAMES.get(service, service)
        self._url = stack.api
        client = session().client(service, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
        model = client.meta.service_model
        self._model = ServiceModel(model._service_description, service)
        self._serializer = create_serializer(protocol)
        self._parser = create_parser(protocol)

    def __call__(self, operation: str, **parameters: Any) -> dict[str, Any]:
        """Call an operation; return its answer; RefusedError for an error."""
        model = self._model.operation_model(operation)
        request = self._serializer.serialize_to_request(parameters, model)
        body = request["body"]
        if isinstance(body, dict):
            body = urlencode(body)
        status, headers, content = self.send(request["url_path"], dict(request["headers"]), body)
        answer: dict[str, Any] = self._parser.parse(
            {"status_code": status, "headers": headers, "body": content}, model.output_shape
        )
        if status >= 300:
            error = answer.get("Error", {})
            raise RefusedError(error.get("Code", ""), error.get("Message", ""), status)
        answer.pop("ResponseMetadata", None)
        return answer

    def send(self, path: str, headers: dict[str, str], body: str | bytes) -> tuple[int, dict[str, str], bytes]:
        """Sign and send a request as it is; return status, headers and body."""
        request = AWSRequest("POST", self._url + path, headers=headers, data=body)
        SigV4Auth(self._credentials, self._signing_name, self._region).add_auth(request)
        place = urlsplit(self._url)
        connection = http.client.HTTPConnection(place.hostname or "", place.port or 80, timeout=30)
        try:
            connection.request("POST", path, request.body, dict(request.headers.items()))
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()
