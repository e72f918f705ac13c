"""One AWS service as the wire knows it: its model, its protocols and its routes, all made at first use."""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from botocore.model import OperationModel, ServiceModel

from entrepot.aws import models
from entrepot.aws.constraints import Constraints
from entrepot.aws.errors import BadRequestError, UnknownRouteError
from entrepot.aws.http import HttpRequest
from entrepot.aws.protocols import Pairs, WireProtocol
from entrepot.aws.protocols.json_rpc import JsonRpc
from entrepot.aws.protocols.query import Query
from entrepot.aws.protocols.rest_json import RestJson
from entrepot.aws.protocols.rest_xml import RestXml
from entrepot.aws.protocols.rpc_cbor import RpcCbor
from entrepot.aws.routing import Match, RouteTable

MAX_BODY_BYTES = 17 * 1024 * 1024
"""The largest body that is held in memory (DynamoDB's BatchWriteItem takes 16 MB)."""

MAX_XML_BODY_BYTES = 4 * 1024 * 1024
"""XML grows when it is parsed; CompleteMultipartUpload with 10,000 parts has 2.5 MB."""

_MAX_BODY_BYTES_OF = {
    ("lambda", "CreateFunction"): 70 * 1024 * 1024,
    ("lambda", "UpdateFunctionCode"): 70 * 1024 * 1024,
    ("lambda", "PublishLayerVersion"): 70 * 1024 * 1024,
    ("lambda", "Invoke"): 6 * 1024 * 1024 + 100 * 1024,
    ("events", "PutEvents"): 2 * 1024 * 1024,
    ("sts", "AssumeRole"): 256 * 1024,
}
"""Operations with limits of their own: a function's ZIP of 50 MB in Base64, a payload of 6 MB."""


@dataclass(frozen=True, slots=True)
class Target:
    """The operation that a request names, and how to read it."""

    service: "Service"
    operation: OperationModel
    labels: dict[str, str]
    pairs: Pairs
    protocol: WireProtocol
    protocol_name: str

    @property
    def max_body_bytes(self) -> int:
        """The largest body that is buffered for the operation."""
        default = MAX_XML_BODY_BYTES if self.protocol_name == "rest-xml" else MAX_BODY_BYTES
        return _MAX_BODY_BYTES_OF.get((self.service.name, self.operation.name), default)


class Service:
    """A service that the wire understands."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.model: ServiceModel = models.service_model(name)
        self.protocol_names: list[str] = self.model.metadata.get("protocols") or [self.model.metadata["protocol"]]
        self._protocols: dict[str, WireProtocol] = {}
        self._operations: dict[str, OperationModel] = {}
        self._streaming: dict[str, bool] = {}
        self.constraints = Constraints(strict="rest-xml" not in self.protocol_names)

    @cached_property
    def routes(self) -> RouteTable:
        """The route table; only rest services have one."""
        return RouteTable(self.model)

    def protocol(self, name: str) -> WireProtocol:
        """Return one of the service's protocols."""
        made = self._protocols.get(name)
        if made is None:
            made = self._protocols[name] = _PROTOCOLS[name](self.model)
        return made

    def protocol_name(self, request: HttpRequest) -> str:
        """Return the name of the protocol that the request speaks, the service's first where it does not say."""
        if len(self.protocol_names) > 1:
            if request.header("smithy-protocol") == "rpc-v2-cbor":
                return "smithy-rpc-v2-cbor"
            return "json" if request.header("x-amz-target") else "query"
        return self.protocol_names[0]

    def operation(self, name: str) -> OperationModel:
        """Return an operation's model; raise UnknownRouteError for a name that AWS does not have."""
        made = self._operations.get(name)
        if made is None:
            if name not in self.model.operation_names:
                raise UnknownRouteError(f"{self.name} has no operation {name[:100]!r}.")
            made = self._operations[name] = self.model.operation_model(name)
        return made

    def streams(self, operation: OperationModel) -> bool:
        """Return whether the request's payload is handed on as a stream."""
        known = self._streaming.get(operation.name)
        if known is None:
            shape: Any = operation.input_shape
            payload = None if shape is None else shape.serialization.get("payload")
            known = payload is not None and bool(shape.members[payload].serialization.get("streaming"))
            self._streaming[operation.name] = known
        return known

    def route(self, request: HttpRequest, protocol_name: str, path: str, pairs: Pairs) -> Match:
        """Return which operation the request names; for Query, `pairs` must have the form's fields."""
        match protocol_name:
            case "json":
                return Match(self._json_operation(request.header("x-amz-target") or ""), {})
            case "smithy-rpc-v2-cbor":
                return Match(_cbor_operation(self.model, path), {})
            case "query":
                return Match(_query_operation(self.model, pairs), {})
            case _:
                return self.routes.match(request.method, path, dict(pairs), request.headers)

    def _json_operation(self, target: str) -> str:
        prefix, _, name = target.rpartition(".")
        if prefix != self.model.metadata["targetPrefix"] or not name:
            raise UnknownRouteError(f"{target[:100]!r} is not a target of {self.name}.")
        return name


def _query_operation(model: ServiceModel, pairs: Pairs) -> str:
    fields = dict(pairs)
    name = fields.get("Action")
    if not name:
        raise UnknownRouteError("The request must have the parameter Action.")
    version = fields.get("Version", model.api_version)
    if version != model.api_version:
        raise BadRequestError(f"{model.service_name} has the version {model.api_version}, not {version[:32]!r}.")
    return name


def _cbor_operation(model: ServiceModel, path: str) -> str:
    parts = path.split("/")
    if len(parts) != 5 or parts[1::2] != ["service", "operation"] or parts[2] != model.metadata["targetPrefix"]:
        raise UnknownRouteError(f"{path[:100]!r} is not an operation of {model.service_name}.")
    return parts[4]


_PROTOCOLS: dict[str, type[JsonRpc] | type[Query] | type[RestJson] | type[RestXml] | type[RpcCbor]] = {
    "json": JsonRpc,
    "query": Query,
    "rest-json": RestJson,
    "rest-xml": RestXml,
    "smithy-rpc-v2-cbor": RpcCbor,
}


@lru_cache(maxsize=len(models.SERVICES))
def service(name: str) -> Service:
    """Return a service by botocore's name, one object for each."""
    return Service(name)


def guess(request: HttpRequest) -> str:
    """Return which service a request is for that does not say by its signature, to answer it in its protocol."""
    target = request.header("x-amz-target")
    if target:
        prefix = target.rpartition(".")[0]
        for name in models.SERVICES:
            metadata = models.service_model(name).metadata
            if metadata.get("targetPrefix") == prefix:
                return name
        return "dynamodb"
    if request.header("smithy-protocol"):
        return "cloudwatch"
    if (request.header("content-type") or "").startswith("application/x-www-form-urlencoded"):
        return "sts"
    return "lambda" if request.path[1:3] == "20" and "/functions" in request.path else "s3"
