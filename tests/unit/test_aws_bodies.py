"""Bodies from anybody: JSON, XML, CBOR, forms and constraints either read, or refuse in AWS's words; never anything else."""

import contextlib
import math
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrepot.aws import errors
from entrepot.aws.constraints import Constraints
from entrepot.aws.protocols import cbor, json_body, xml_body
from entrepot.aws.protocols.query import form_pairs
from entrepot.aws.routing import decode
from entrepot.aws.service import service
from entrepot.errors import AwsError

scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary()
)
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


@given(values)
def test_cbor_comes_back(value: Any) -> None:
    assert cbor.loads(cbor.dumps(value)) == value


def test_cbor_knows_time_and_indefinite_items() -> None:
    when = datetime(2026, 11, 23, 20, 15, 41, 500000, UTC)
    assert cbor.loads(cbor.dumps({"at": when})) == {"at": when}
    assert cbor.loads(bytes.fromhex("9f018202039f0405ffff")) == [1, [2, 3], [4, 5]]  # RFC 8949, appendix A
    assert cbor.loads(bytes.fromhex("bf61610161629f0203ffff")) == {"a": 1, "b": [2, 3]}
    assert cbor.loads(bytes.fromhex("7f657374726561646d696e67ff")) == "streaming"
    assert cbor.loads(bytes.fromhex("f93e00")) == 1.5
    assert math.isinf(cbor.loads(bytes.fromhex("f97c00")))


@given(st.binary(max_size=100))
def test_cbor_refuses_everything_else(data: bytes) -> None:
    with contextlib.suppress(errors.SerializationError):
        cbor.loads(data)


@pytest.mark.parametrize(
    "data", [b"\x81" * 100_000, b"\x9b" + b"\xff" * 8, b"\x5b" + b"\xff" * 8, b"\xa1\x01\x02", b"", b"\xff"]
)
def test_cbor_is_bounded(data: bytes) -> None:
    with pytest.raises(errors.SerializationError):
        cbor.loads(data)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_as_json_or_xml_or_form(data: bytes) -> None:
    for read in (json_body.loads, xml_body.parse, lambda body: form_pairs(body, [])):
        with contextlib.suppress(AwsError):
            read(data)


def test_brackets_inside_json_strings_are_not_depth() -> None:
    assert json_body.loads(b'{"a": "' + b"[" * 1000 + b'\\"["}') == {"a": "[" * 1000 + '"['}
    json_body.loads(b"[" * 64 + b"]" * 64)
    with pytest.raises(errors.SerializationError, match="deeper"):
        json_body.loads(b"[" * 65 + b"]" * 65)


@given(st.text())
def test_xml_text_is_escaped(text: str) -> None:
    document = f"<a b='{xml_body.escape(text)}'>{xml_body.escape(text)}</a>"
    with contextlib.suppress(errors.MalformedXmlError):  # Characters that XML cannot hold, as S3 answers them.
        root = xml_body.parse(document.encode("utf-8", "surrogatepass"))
        assert root.text == text or (root.text is None and text == "")


def read_json(shape: str, value: Any) -> Any:
    found = service("dynamodb").model.shape_for(shape)
    return json_body.JsonReaders().reader(found)(value)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"S": 1}, "NUMBER_VALUE cannot be converted to String"),
        ({"S": True}, "TRUE_VALUE cannot be converted to String"),
        ({"S": {}}, "Start of structure or map found where not expected."),
        ({"L": "x"}, "Unexpected field type"),
        ({"BOOL": "x"}, "STRING_VALUE cannot be converted to Boolean"),
        ("x", "Unexpected field type"),
    ],
)
def test_json_of_the_wrong_type_is_refused_in_aws_words(value: Any, says: str) -> None:
    with pytest.raises(errors.SerializationError) as caught:
        read_json("AttributeValue", value)
    assert caught.value.message == says


def test_unknown_json_members_are_ignored_and_nulls_are_absent() -> None:
    assert read_json("AttributeValue", {"S": "x", "New": [1], "N": None}) == {"S": "x"}


def problems(name: str, operation: str, value: dict[str, Any]) -> str:
    found = service(name)
    try:
        Constraints(strict=True).validate(found.model.operation_model(operation).input_shape, value)
    except errors.ValidationError as error:
        return error.message
    return ""


def test_constraints_speak_as_aws_does() -> None:
    said = problems("dynamodb", "Query", {"TableName": "t", "Limit": 0, "Select": "X"})
    assert said.startswith("2 validation errors detected: ")
    assert (
        "Value '0' at 'limit' failed to satisfy constraint: Member must have value greater than or equal to 1" in said
    )
    assert "Value 'X' at 'select' failed to satisfy constraint: Member must satisfy enum value set: [" in said
    assert problems("events", "PutRule", {"Name": "a b"}).endswith("regular expression pattern: [\\.\\-_A-Za-z0-9]+")
    assert problems("events", "PutRule", {"Name": "object-created", "EventPattern": "{}"}) == ""


def test_constraints_are_found_inside_lists_and_their_number_is_bounded() -> None:
    entries = [{"Id": "", "Arn": "a"} for _ in range(100)]
    said = problems("events", "PutTargets", {"Rule": "r", "Targets": entries})
    assert "at 'targets.1.member.id'" in said
    assert said.count("failed to satisfy") <= 10


def test_a_pattern_that_could_run_forever_is_not_tried() -> None:
    parameters = {"HeaderParameters": {"A": "x " * 200 + "\0"}}
    target = {"Id": "i", "Arn": "a", "HttpParameters": parameters}
    assert problems("events", "PutTargets", {"Rule": "r", "Targets": [target]}) == ""


@pytest.mark.parametrize(
    ("method", "path", "query", "operation"),
    [
        ("GET", "/", {}, "ListBuckets"),
        ("GET", "/b", {}, "ListObjects"),
        ("GET", "/b/", {"list-type": "2", "prefix": "x"}, "ListObjectsV2"),
        ("GET", "/b", {"versions": ""}, "ListObjectVersions"),
        ("GET", "/b//k", {}, "GetObject"),
        ("GET", "/b/k", {"uploadId": "u"}, "ListParts"),
        ("GET", "/b/k", {"partNumber": "1"}, "GetObject"),
        ("GET", "/b/k", {"x-id": "GetObject", "versionId": "v"}, "GetObject"),
        ("PUT", "/b/k", {"uploadId": "u", "partNumber": "1"}, "UploadPart"),
        ("POST", "/b/k", {"uploads": ""}, "CreateMultipartUpload"),
        ("POST", "/b/k", {"uploadId": "u"}, "CompleteMultipartUpload"),
        ("DELETE", "/b/k", {"uploadId": "u"}, "AbortMultipartUpload"),
        ("HEAD", "/b", {}, "HeadBucket"),
        ("PUT", "/b/WriteGetObjectResponse", {}, "PutObject"),
    ],
)
def test_s3_routes(method: str, path: str, query: dict[str, str], operation: str) -> None:
    assert service("s3").routes.match(method, path, query, {}).operation == operation


def test_s3_copies_by_header() -> None:
    head = {"x-amz-copy-source": "b/k"}
    routes = service("s3").routes
    assert routes.match("PUT", "/b/k", {}, head).operation == "CopyObject"
    assert routes.match("PUT", "/b/k", {"uploadId": "u", "partNumber": "1"}, head).operation == "UploadPartCopy"


@pytest.mark.parametrize(
    ("method", "path", "query", "error"),
    [
        ("PATCH", "/b/k", {}, errors.MethodNotAllowedError),
        ("POST", "/b", {}, errors.MethodNotAllowedError),
        ("PUT", "/b/k", {"uploadId": "u"}, errors.NotServedError),
        ("DELETE", "/b", {"acl": ""}, errors.NotServedError),
        ("PUT", "/b/k", {"torrent": ""}, errors.NotServedError),
    ],
)
def test_s3_refuses_what_it_would_have_to_ignore(
    method: str, path: str, query: dict[str, str], error: type[AwsError]
) -> None:
    with pytest.raises(error):
        service("s3").routes.match(method, path, query, {})


def test_labels_are_decoded_once() -> None:
    assert decode("a%252F%2F+%C3%A4") == "a%2F/+ä"
    for bad in ("%ff", "\xe4"):
        with pytest.raises(errors.BadRequestError):
            decode(bad)
