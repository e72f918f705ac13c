"""awsQuery (IAM, STS, SNS): a form with Action and dotted member names in, XML out.

Source: https://smithy.io/2.0/aws/protocols/aws-query-protocol.html
"""

from collections.abc import Mapping
from typing import Any

from botocore.model import OperationModel, ServiceModel

from entrepot.aws.errors import SerializationError
from entrepot.aws.http import HttpResponse
from entrepot.aws.protocols import Incoming, Pairs
from entrepot.aws.protocols.xml_body import XmlWriters, escape, scalar_from_text
from entrepot.aws.signature import query_pairs
from entrepot.errors import AwsError

MAX_FIELDS = 10_000
"""How many form fields a request may have."""

MAX_DEPTH = 32
"""How many dotted parts a field's name may have."""


def form_pairs(body: bytes, pairs: Pairs) -> Pairs:
    """Return the fields of the query string and of a form body."""
    try:
        text = body.decode("ascii")
    except UnicodeDecodeError:
        raise SerializationError("The form is not percent-encoded ASCII.") from None
    if text.count("&") >= MAX_FIELDS:
        raise SerializationError(f"The form has more than {MAX_FIELDS} fields.")
    return pairs + query_pairs(text)


class Query:
    """awsQuery for one service."""

    def __init__(self, model: ServiceModel) -> None:
        self._writers = XmlWriters()
        self._namespace = model.metadata.get("xmlNamespace", "")

    def read(self, operation: OperationModel, incoming: Incoming) -> dict[str, Any]:
        """See WireProtocol. The endpoint has put the form's fields into `pairs`."""
        if operation.input_shape is None:
            return {}
        root: dict[str, Any] = {}
        for name, value in incoming.pairs:
            _plant(root, name, value)
        result: dict[str, Any] = _read(operation.input_shape, root)
        return result

    def write(self, operation: OperationModel, response: Mapping[str, Any], request_id: str) -> HttpResponse:
        """See WireProtocol."""
        out = [f'<{operation.name}Response xmlns="{self._namespace}">']
        if operation.output_shape is not None:
            wrapper = operation.output_shape.serialization.get("resultWrapper")
            if wrapper:
                out.append(f"<{wrapper}>")
            self._writers.members(operation.output_shape)(out, response)
            if wrapper:
                out.append(f"</{wrapper}>")
        out.append(f"<ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata>")
        out.append(f"</{operation.name}Response>")
        return _respond(200, out, request_id)

    def fail(self, error: AwsError, code: str, status: int, request_id: str) -> HttpResponse:
        """See WireProtocol."""
        side = "Sender" if status < 500 else "Receiver"
        out = [
            f'<ErrorResponse xmlns="{self._namespace}"><Error><Type>{side}</Type><Code>{escape(code)}</Code>',
            f"<Message>{escape(error.message)}</Message></Error><RequestId>{request_id}</RequestId></ErrorResponse>",
        ]
        return _respond(status, out, request_id)


def _respond(status: int, out: list[str], request_id: str) -> HttpResponse:
    headers = {"x-amzn-RequestId": request_id, "Content-Type": "text/xml"}
    return HttpResponse(status, headers, "".join(out).encode("utf-8", "replace"))


def _plant(root: dict[str, Any], name: str, value: str) -> None:
    """Put `value` into nested dicts by its dotted name; refuse a name that is both a value and a parent."""
    parts = name.split(".")
    if len(parts) > MAX_DEPTH:
        raise SerializationError(f"The field name {name[:64]!r} has more than {MAX_DEPTH} parts.")
    node = root
    for part in parts[:-1]:
        child = node.setdefault(part, {})
        if not isinstance(child, dict):
            raise SerializationError(f"The field {name[:64]!r} is both a value and a structure.")
        node = child
    if parts[-1] in node:
        raise SerializationError(f"The field {name[:64]!r} came more than once.")
    node[parts[-1]] = value


def _read(shape: Any, node: Any) -> Any:
    match shape.type_name:
        case "structure":
            return _structure(shape, _nested(node))
        case "list":
            return [] if node == "" else [_read(shape.member, item) for item in _items(shape, node)]
        case "map":
            return {} if node == "" else dict(_entries(shape, node))
        case _:
            if isinstance(node, dict):
                raise SerializationError("A structure was found where a value is expected.")
            return scalar_from_text(shape)(node)


def _structure(shape: Any, node: dict[str, Any]) -> dict[str, Any]:
    values = {}
    for name, member in shape.members.items():
        wire_name = member.serialization.get("name", name)
        if member.type_name == "list" and member.serialization.get("flattened"):
            wire_name = member.member.serialization.get("name", wire_name)
        if wire_name in node:
            values[name] = _read(member, node[wire_name])
    return values


def _items(shape: Any, node: Any) -> list[Any]:
    node = _nested(node)
    if not shape.serialization.get("flattened"):
        node = _nested(node.get(shape.member.serialization.get("name", "member"), {}))
    return _numbered(node)


def _entries(shape: Any, node: Any) -> list[tuple[str, Any]]:
    node = _nested(node)
    if not shape.serialization.get("flattened"):
        node = _nested(node.get("entry", {}))
    key_name = shape.key.serialization.get("name", "key")
    value_name = shape.value.serialization.get("name", "value")
    entries = []
    for item in _numbered(node):
        item = _nested(item)
        if not isinstance(item.get(key_name), str):
            raise SerializationError("A map entry lacks its key.")
        entries.append((item[key_name], _read(shape.value, item.get(value_name, ""))))
    return entries


def _numbered(node: dict[str, Any]) -> list[Any]:
    if not all(key.isascii() and key.isdigit() and len(key) <= 6 for key in node):
        raise SerializationError("List members are numbered from 1.")
    return [node[key] for key in sorted(node, key=int)]


def _nested(node: Any) -> dict[str, Any]:
    if not isinstance(node, dict):
        raise SerializationError("A value was found where a structure is expected.")
    return node
