"""What nobody well-meaning sends, over raw sockets: each is refused, nothing is published, the endpoint serves on."""

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from entrepot import listener
from entrepot.aws import endpoint as endpoint_module
from entrepot.aws import http
from entrepot.operations import Call, Response
from tests.acceptance.wire_endpoint import KEY, REGION, RunningEndpoint, operation
from tests.running import wait_for

FAKES = {
    "dynamodb": [operation("PutItem", lambda request, call: {})],
    "sts": [operation("GetCallerIdentity", lambda request, call: {"Arn": "a", "Account": "0"})],
}


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEndpoint]:
    with RunningEndpoint(FAKES, tmp_path_factory.mktemp("wire-hostile")) as running:
        running.client("s3").create_bucket(Bucket="inbox")
        yield running


def signed(
    endpoint: RunningEndpoint, method: str, path: str, body: bytes = b"", service: str = "s3", **head: str
) -> bytes:
    """The bytes of a signed request."""
    headers = {name.replace("_", "-"): value for name, value in head.items()}
    request = AWSRequest(method, endpoint.url + path, headers=headers, data=body)
    signer = S3SigV4Auth if service == "s3" else SigV4Auth
    signer(Credentials(KEY.access_key_id, KEY.secret_access_key), service, REGION).add_auth(request)
    prepared = request.prepare()
    lines = [f"{method} {path} HTTP/1.1", f"host: 127.0.0.1:{endpoint.port}", f"content-length: {len(body)}"]
    for name, value in prepared.headers.items():
        if name.lower() not in ("host", "content-length"):
            lines.append(f"{name}: {value.decode() if isinstance(value, bytes) else value}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def json_request(endpoint: RunningEndpoint, body: bytes) -> bytes:
    return signed(endpoint, "POST", "/", body, "dynamodb", x_amz_target="DynamoDB_20120810.PutItem")


def ask(endpoint: RunningEndpoint, request: bytes) -> tuple[int, bytes]:
    """Send bytes, read until the peer closes or the response is whole; return its status (0: none) and everything."""
    with socket.create_connection(("127.0.0.1", endpoint.port), 10) as connection:
        connection.settimeout(10)
        with contextlib.suppress(OSError):  # It may be refused while it is still being sent.
            connection.sendall(request)
        got = b""
        while not _whole(got):
            try:
                piece = connection.recv(65_536)
            except ConnectionError:
                break
            if not piece:
                break
            got += piece
    return (int(got.split(b" ", 2)[1]) if got else 0), got


def _whole(got: bytes) -> bool:
    head, end, body = got.partition(b"\r\n\r\n")
    lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return bool(end and lengths) and len(body) >= int(lengths[0])


@pytest.fixture(autouse=True)
def serves_on(endpoint: RunningEndpoint) -> Iterator[None]:
    """After each test the endpoint still answers, and nothing was published."""
    yield
    assert endpoint.client("s3").list_objects_v2(Bucket="inbox")["KeyCount"] == 0
    wait_for(lambda: endpoint.endpoint._buffered_bytes == 0, what="no body counted as buffered")


def test_health_and_cors_need_no_signature(endpoint: RunningEndpoint) -> None:
    status, got = ask(endpoint, b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
    assert status == 200 and got.endswith(b'{"status":"ok"}')
    status, got = ask(endpoint, b"OPTIONS /inbox/k HTTP/1.1\r\nhost: x\r\norigin: http://page\r\n\r\n")
    assert status == 200 and b"Access-Control-Allow-Methods".lower() in got.lower()


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * 300 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nhost: x\r\na: " + b"b" * 2_000_000, 431),
        (b"GET / HTTP/1.1\r\n" + b"x" * 2_000_000, 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello", 400),
        (b"GET / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n", 400),
        (b"PUT /inbox/k HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\nhello", 400),
        (b"GET / HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: x\r\nauthorization: a\r\nauthorization: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: x\r\na\x00b: c\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: x\r\na: b\r\n c\r\n\r\n", 400),
        (b"BREW / HTTP/1.1\r\nhost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", 403),
        (b"GET /inbox/k HTTP/1.1\r\nhost: x\r\nauthorization: AWS4-HMAC-SHA256 \xff\xfe\r\n\r\n", 400),
        (b"GET /inbox/%ff%fe HTTP/1.1\r\nhost: x\r\n\r\n", 403),
        (b"GET http://elsewhere/ HTTP/1.1\r\nhost: x\r\n\r\n", 403),
    ],
)
def test_what_is_not_a_signed_request_is_refused(endpoint: RunningEndpoint, request_bytes: bytes, status: int) -> None:
    assert ask(endpoint, request_bytes)[0] == status


def test_trailers_without_end_are_cut_off(endpoint: RunningEndpoint) -> None:
    head = b"PUT /inbox/k HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: "
    status, _ = ask(endpoint, head + b"y" * 3_000_000)
    assert status in (0, 403, 431)


def test_a_path_that_is_not_utf8_is_refused(endpoint: RunningEndpoint) -> None:
    status, got = ask(endpoint, signed(endpoint, "PUT", "/inbox/%FF%FE", b"x"))
    assert status == 400 and b"not UTF-8" in got


def test_a_client_that_leaves_in_the_middle_publishes_nothing(endpoint: RunningEndpoint) -> None:
    whole = signed(endpoint, "PUT", "/inbox/partial", b"x" * 1_000_000)
    for end in (len(whole) - 1, len(whole) - 999_000, len(whole) // 2):
        endpoint.records.clear()
        with socket.create_connection(("127.0.0.1", endpoint.port), 10) as connection:
            connection.sendall(whole[:end])
        wait_for(lambda: endpoint.records, what="the request ended")
        assert endpoint.records[0].code == "IncompleteBody"


def test_a_body_that_stalls_is_given_up(endpoint: RunningEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "BODY_IDLE_TIMEOUT_S", 0.2)
    status, got = ask(endpoint, signed(endpoint, "PUT", "/inbox/stalled", b"x" * 1000)[:-10])
    assert status == 400 and b"RequestTimeout" in got


def test_a_head_that_dawdles_is_cut_off(endpoint: RunningEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "HEAD_TIMEOUT_S", 0.2)
    assert ask(endpoint, b"GET /health HTTP/1.1\r\nhost:") == (0, b"")
    assert ask(endpoint, b"") == (0, b"")


def test_too_many_connections_are_refused(endpoint: RunningEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "MAX_CONNECTIONS", 0)
    assert ask(endpoint, b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")[0] == 503
    monkeypatch.undo()


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b'"text"',
        b"\xff\xfe",
        b'{"TableName": NaN, "Item": {}}',
        b'{"TableName": "t", "Item": {"a": {"N": 1}}}',
        b'{"TableName": "t", "Item": []}',
        b'{"TableName": 5, "Item": {}}',
        b'{"TableName": "t", "Item": {"a": {"B": "not base64!"}}}',
        b'{"TableName": "t", "Item": ' + b'{"a": {"M": ' * 5000 + b"{}" + b"}}" * 5000 + b"}",
        b"[" * 200_000,
        b"9" * 10_000,
    ],
    ids=lambda body: body[:20],
)
def test_json_that_is_not_the_operations_is_refused(endpoint: RunningEndpoint, body: bytes) -> None:
    status, got = ask(endpoint, json_request(endpoint, body))
    assert status == 400 and b"SerializationException" in got


def test_a_body_that_is_too_large_is_refused_before_it_is_read(endpoint: RunningEndpoint) -> None:
    request = json_request(endpoint, b"{}").replace(b"content-length: 2\r\n", b"content-length: 99999999\r\n")
    status, got = ask(endpoint, request)
    assert status == 413 and b"RequestEntityTooLargeException" in got


def test_a_client_that_waits_to_send_is_refused_at_once(endpoint: RunningEndpoint) -> None:
    request = signed(endpoint, "PUT", "/no-such-bucket/key", b"x" * 500_000, expect="100-continue")
    status, got = ask(endpoint, request[: request.index(b"\r\n\r\n") + 4])
    assert status == 404 and b"NoSuchBucket" in got and b"100 Continue" not in got


def test_bodies_in_memory_are_bounded_together(endpoint: RunningEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_module, "MAX_BUFFERED_BYTES", 10)
    status, got = ask(endpoint, json_request(endpoint, json.dumps({"TableName": "t", "Item": {}}).encode()))
    assert status == 503 and b"reduce your request rate" in got


XML_BOMB = b"""<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY lol "lol"><!ENTITY l2 "&lol;&lol;&lol;&lol;">]>
<Delete><Object><Key>&l2;</Key></Object></Delete>"""


@pytest.mark.parametrize(
    "body",
    [
        XML_BOMB,
        XML_BOMB.decode().encode("utf-16"),
        b"<Delete><Object>",
        b"<Other/>",
        b"<Delete>" + b"<a/>" * 300_000 + b"</Delete>",
        b"<Delete><Object><Key><deep/></Key></Object></Delete>",
        b"\xff\xff",
        b"<Delete><Quiet>perhaps</Quiet><Object><Key>k</Key></Object></Delete>",
        b"<Delete></Delete>",
    ],
    ids=lambda body: body[:30],
)
def test_xml_that_is_not_the_operations_is_refused(endpoint: RunningEndpoint, body: bytes) -> None:
    status, got = ask(endpoint, signed(endpoint, "POST", "/inbox?delete", body))
    assert status == 400 and b"<Code>MalformedXML</Code>" in got, got


@pytest.mark.parametrize("query", ["uploadId=x", "acl", "uploads", "tagging&versionId=1", "legal-hold"])
def test_a_subresource_is_never_taken_for_the_object(endpoint: RunningEndpoint, query: str) -> None:
    status, _ = ask(endpoint, signed(endpoint, "PUT", f"/inbox/k?{query}", b"content"))
    assert status >= 400


@pytest.mark.parametrize(
    "form",
    [
        b"",
        b"Action=",
        b"Action=Unknown&Version=2011-06-15",
        b"Action=GetCallerIdentity&Version=1999-01-01",
        b"Action=GetCallerIdentity&Action=GetCallerIdentity&Version=2011-06-15&" + b"a=b&" * 20_000,
        b"Action=\xff&Version=2011-06-15",
        b"Action=%ff&Version=2011-06-15",
    ],
    ids=lambda form: form[:40],
)
def test_a_form_that_names_no_operation_is_refused(endpoint: RunningEndpoint, form: bytes) -> None:
    head = {"content_type": "application/x-www-form-urlencoded"}
    status, got = ask(endpoint, signed(endpoint, "POST", "/", form, "sts", **head))
    assert status == 400 and b"<ErrorResponse" in got, got


def test_a_target_of_another_service_is_refused(endpoint: RunningEndpoint) -> None:
    request = signed(endpoint, "POST", "/", b"{}", "logs", x_amz_target="DynamoDB_20120810.PutItem")
    status, got = ask(endpoint, request)
    assert status == 400 and b"UnknownOperationException" in got


def test_a_service_that_is_not_served_is_refused_by_name(endpoint: RunningEndpoint) -> None:
    status, got = ask(endpoint, signed(endpoint, "POST", "/", b"{}", "kms", x_amz_target="TrentService.ListKeys"))
    assert status == 501 and b"kms" in got


def test_a_download_that_nobody_takes_ends(endpoint: RunningEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "SEND_IDLE_TIMEOUT_S", 0.3)
    sent = threading.Event()

    async def get_object(request: Any, call: Call) -> Response:
        async def forever() -> Any:
            try:
                while True:
                    yield b"x" * 65_536
            finally:
                sent.set()

        return {"Body": forever(), "ContentLength": 1 << 40}

    with RunningEndpoint({"s3": [operation("GetObject", get_object)]}) as running:
        for read_bytes in (0, 100_000):  # One client that stays and takes nothing; one that leaves.
            sent.clear()
            with socket.create_connection(("127.0.0.1", running.port), 10) as connection:
                connection.sendall(signed(running, "GET", "/inbox/endless"))
                connection.recv(read_bytes or 1)
                if read_bytes:
                    connection.close()
                assert sent.wait(10)


def test_a_head_of_nothing_has_no_body(endpoint: RunningEndpoint) -> None:
    status, got = ask(endpoint, signed(endpoint, "HEAD", "/inbox/nothing"))
    assert status == 404 and got.endswith(b"\r\n\r\n")
    with pytest.raises(ClientError, match="404"):
        endpoint.client("s3").head_object(Bucket="inbox", Key="nothing")


def test_keep_alive_serves_pipelined_requests_in_order(endpoint: RunningEndpoint) -> None:
    two = (
        signed(endpoint, "GET", "/inbox?list-type=2") + b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", endpoint.port), 10) as connection:
        connection.settimeout(10)
        connection.sendall(two)
        got = b""
        while piece := connection.recv(65_536):
            got += piece
    assert got.index(b"ListBucketResult") < got.index(b'{"status":"ok"}')
