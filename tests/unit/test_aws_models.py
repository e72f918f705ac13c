"""Every operation of every model: what botocore sends is routed and read back; what is written, botocore reads.

botocore's own serialisers and parsers stand for the clients; the values are made from the shapes.
"""

import datetime as datetimes
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from botocore.awsrequest import HeadersDict
from botocore.parsers import create_parser
from botocore.serialize import create_serializer

from entrepot.aws import models
from entrepot.aws.http import HttpRequest, RequestBody
from entrepot.aws.protocols import Incoming
from entrepot.aws.protocols.query import form_pairs
from entrepot.aws.routing import _SUPERSEDED
from entrepot.aws.service import Service, service
from entrepot.aws.signature import query_pairs

MAX_DEPTH = 6
WHEN = datetimes.datetime(2026, 11, 23, 20, 15, 41, tzinfo=datetimes.UTC)
TEXT = "a b/c+d&<e>='ä日\"%2F?#"


async def _no_body() -> Any:
    return {"type": "http.disconnect"}


def value_of(shape: Any, depth: int, *, all_members: bool, place: str | None = None) -> Any:
    """A value of the shape; recursion stops at MAX_DEPTH."""
    place = shape.serialization.get("location", place)
    match shape.type_name:
        case "structure":
            if getattr(shape, "is_document_type", False):
                return {"any": ["thing", 1, None]}
            chosen = [name for name in shape.members if all_members or name in shape.required_members]
            chosen = [name for name in chosen if depth < MAX_DEPTH or _is_leaf(shape.members[name])]
            if getattr(shape, "is_tagged_union", False):
                chosen = chosen[:1]
            return {n: value_of(shape.members[n], depth + 1, all_members=all_members, place=place) for n in chosen}
        case "list":
            return [value_of(shape.member, depth + 1, all_members=all_members, place=place)] * 2
        case "map":
            # Names of headers have no case and no spaces.
            key = "k-1" if place == "headers" else "Key 1/ä"
            return {key: value_of(shape.value, depth + 1, all_members=all_members, place=place)}
        case "timestamp":
            return WHEN
        case "blob":
            return b"\x00\x7f blob"
        case "boolean":
            return True
        case "integer" | "long" | "short" | "byte":
            return 200
        case "float" | "double":
            return 1.5
        case _:
            return "plain-text_1" if place in ("header", "headers") else TEXT


def _is_leaf(shape: Any) -> bool:
    return shape.type_name not in ("structure", "list", "map")


def http_request(sent: dict[str, Any], protocol_name: str) -> tuple[HttpRequest, bytes]:
    path, _, query = sent["url_path"].partition("?")
    more = sent["query_string"]
    pairs = list(more.items()) if isinstance(more, dict) else []
    flat = [(name, item) for name, value in pairs for item in (value if isinstance(value, list) else [value])]
    query = "&".join(filter(None, [query, urlencode(flat, quote_via=quote)]))
    body = sent["body"]
    if isinstance(body, dict):
        body = urlencode(body).encode()
    head = {name.lower(): str(value) for name, value in sent["headers"].items()}
    if protocol_name == "smithy-rpc-v2-cbor":
        head["smithy-protocol"] = "rpc-v2-cbor"
    return HttpRequest(sent["method"], path, query, head, RequestBody(_no_body)), body


def read_back(found: Service, protocol_name: str, name: str, parameters: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    operation = found.model.operation_model(name)
    sent = create_serializer(protocol_name, include_validation=False).serialize_to_request(parameters, operation)
    request, body = http_request(sent, protocol_name)
    pairs = query_pairs(request.query)
    if protocol_name == "query":
        pairs = form_pairs(body, pairs)
    match = found.route(request, protocol_name, request.path, pairs)
    protocol = found.protocol(protocol_name)
    return match.operation, protocol.read(operation, Incoming(request, match.labels, pairs, body))


def drop_empty(value: Any) -> Any:
    """Empty structures cannot be told from absent ones in Query's forms."""
    if isinstance(value, dict):
        kept = {key: drop_empty(item) for key, item in value.items()}
        return {key: item for key, item in kept.items() if item != {}}
    return [drop_empty(item) for item in value] if isinstance(value, list) else value


def cases() -> list[tuple[str, str]]:
    return [(name, protocol) for name in models.SERVICES for protocol in service(name).protocol_names]


def unlike(operation: Any) -> bool:
    """Operations whose messages are event streams, or that are never routed to."""
    return operation.has_event_stream_input or operation.has_event_stream_output or operation.name in _SUPERSEDED


@pytest.mark.parametrize("all_members", [False, True], ids=["required", "all"])
@pytest.mark.parametrize(("name", "protocol_name"), cases())
def test_what_botocore_sends_is_read_back(name: str, protocol_name: str, all_members: bool) -> None:
    found = service(name)
    for operation_name in found.model.operation_names:
        operation = found.model.operation_model(operation_name)
        if unlike(operation):
            continue
        parameters: dict[str, Any] = {}
        if operation.input_shape is not None:
            parameters = value_of(operation.input_shape, 0, all_members=all_members)
        routed, got = read_back(found, protocol_name, operation_name, parameters)
        assert routed == operation_name
        if found.streams(operation):
            payload = operation.input_shape.serialization["payload"]
            assert got.pop(payload, b"") == parameters.pop(payload, b"")
        assert drop_empty(got) == drop_empty(parameters), operation_name


@pytest.mark.parametrize(("name", "protocol_name"), cases())
def test_what_is_written_botocore_reads(name: str, protocol_name: str) -> None:
    found = service(name)
    protocol = found.protocol(protocol_name)
    for operation_name in found.model.operation_names:
        operation = found.model.operation_model(operation_name)
        if unlike(operation) or operation_name == "GetBucketLocation":
            continue
        result: dict[str, Any] = {}
        if operation.output_shape is not None:
            result = value_of(operation.output_shape, 0, all_members=True)
        response = protocol.write(operation, result, "REQUEST-1")
        assert isinstance(response.body, bytes)
        answer = {"body": response.body, "headers": HeadersDict(response.headers), "status_code": response.status}
        streams = operation.has_streaming_output
        got = create_parser(protocol_name).parse(answer, operation.output_shape)
        metadata = got.pop("ResponseMetadata")
        assert metadata.get("RequestId", "REQUEST-1") == "REQUEST-1"
        if response.status == 204 or operation.http["method"] == "HEAD":
            continue
        if streams:
            result = {key: got.get(key, value) for key, value in result.items()}
        assert drop_empty(got) == drop_empty(result), operation_name
