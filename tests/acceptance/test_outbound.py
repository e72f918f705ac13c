"""Requests to the outside over real connections: what is sent, what comes back, and every way in which nothing does."""

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from entrepot.outbound import (
    ConnectionFailedError,
    DeniedError,
    InvalidRequestError,
    Outbound,
    OutboundError,
    Policy,
    Request,
    TimedOutError,
)

Answer = Callable[[bytes], Awaitable[bytes] | bytes]


@asynccontextmanager
async def server(answer: Answer, tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that reads one message at a time and sends what `answer` gives; yields its port and what came in."""
    came_in: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                body = await reader.readexactly(int(length[0].split(b":")[1])) if length else b""
                came_in.append(head + body)
                answered = answer(head + body)
                writer.write(answered if isinstance(answered, bytes) else await answered)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield listening.sockets[0].getsockname()[1], came_in
    finally:
        listening.close()


@asynccontextmanager
async def client(*args: Any, **kwargs: Any) -> AsyncIterator[Outbound]:
    outbound = Outbound(*args, **kwargs)
    try:
        yield outbound
    finally:
        await outbound.close()


def ok(_: bytes) -> bytes:
    return b"HTTP/1.1 200 Fine\r\nContent-Length: 5\r\nX-Who: me\r\n\r\nhello"


async def test_a_request_and_its_answer() -> None:
    async with server(ok) as (port, came_in), client() as outbound:
        request = Request("POST", f"http://127.0.0.1:{port}/a?b=c", [("X-Key", "secret"), ("Host", "evil")], b"{}")
        response = await outbound.send(request)
        await outbound.send(Request("GET", f"http://127.0.0.1:{port}/"))
    assert (response.status, response.reason, response.body, response.is_whole) == (200, "Fine", b"hello", True)
    assert response.header("x-who") == "me" and response.header("missing") is None
    head, _, body = came_in[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /a?b=c HTTP/1.1\r\n") and body == b"{}"
    assert b"X-Key: secret" in head and b"evil" not in head and b"Content-Length: 2" in head
    assert b"content-length" not in came_in[1].lower()


async def test_a_redirect_is_an_answer() -> None:
    async with server(lambda _: b"HTTP/1.1 302 x\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n") as (
        port,
        came_in,
    ), client() as outbound:  # fmt: skip
        assert (await outbound.send(Request("GET", f"http://127.0.0.1:{port}/"))).status == 302
    assert len(came_in) == 1


async def test_a_long_answer_is_cut_and_an_endless_one_ends() -> None:
    long = b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n" + b"x" * 200_000
    async with server(lambda _: long) as (port, _), client() as outbound:
        response = await outbound.send(Request("GET", f"http://127.0.0.1:{port}/", response_limit_bytes=1000))
        assert (len(response.body), response.is_whole) == (1000, False)


async def test_no_answer_in_time() -> None:
    async def never(_: bytes) -> bytes:
        await asyncio.sleep(30)
        return b""

    async with server(never) as (port, _), client() as outbound:
        with pytest.raises(TimedOutError, match=r"127\.0\.0\.1 did not answer within 0\.1 s"):
            await outbound.send(Request("GET", f"http://127.0.0.1:{port}/", timeout_s=0.1))


async def test_nobody_listens_no_http_and_a_broken_connection() -> None:
    async with server(lambda _: b"") as (port, _):
        pass
    async with client() as outbound:
        with pytest.raises(ConnectionFailedError):
            await outbound.send(Request("GET", f"http://127.0.0.1:{port}/"))
        for answer in (b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", b"HTTP/1.1 20"):

            async def once(_: bytes, answer: bytes = answer) -> bytes:
                return answer

            async with server(once) as (port, _):
                with pytest.raises((ConnectionFailedError, TimedOutError)):
                    await outbound.send(Request("GET", f"http://127.0.0.1:{port}/", timeout_s=0.3))


async def test_denied_addresses_are_never_connected() -> None:
    async with server(ok) as (port, came_in), client(Policy.of(["127.0.0.0/8"])) as outbound:
        for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1"):
            with pytest.raises(OutboundError):
                await outbound.send(Request("GET", f"http://{host}:{port}/"))
        with pytest.raises(DeniedError, match="denied_networks"):
            await outbound.send(Request("GET", f"https://127.0.0.1:{port}/"))
    assert came_in == []
    async with client() as outbound:
        with pytest.raises(DeniedError, match="https"):
            await outbound.send(Request("GET", "http://192.0.2.1/"))


@pytest.mark.parametrize("headers", [[("X", "a\r\nY: b")], [("a b", "c")], [("", "x")], [("ü", "x")], [("X", "a\0b")]])
async def test_malformed_headers_are_not_sent_nor_told(headers: list[tuple[str, str]]) -> None:
    async with server(ok) as (port, came_in), client() as outbound:
        with pytest.raises(InvalidRequestError) as refusal:
            await outbound.send(Request("GET", f"http://127.0.0.1:{port}/", headers))
        with pytest.raises(InvalidRequestError):
            await outbound.send(Request("G ET", f"http://127.0.0.1:{port}/"))
    assert came_in == [] and "Y: b" not in str(refusal.value)


async def test_certificates_are_verified(tmp_path: Path) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-keyout", "key.pem", "-out", "cert.pem", "-subj", "/CN=x", "-addext", "subjectAltName=IP:127.0.0.1"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    async with server(ok, context) as (port, came_in):
        async with client() as outbound:
            with pytest.raises(ConnectionFailedError, match="certificate"):
                await outbound.send(Request("GET", f"https://127.0.0.1:{port}/"))
        assert came_in == []
        async with client(ca_file=tmp_path / "cert.pem") as outbound:
            assert (await outbound.send(Request("GET", f"https://127.0.0.1:{port}/"))).status == 200
            with pytest.raises(ConnectionFailedError, match="certificate"):
                await outbound.send(Request("GET", f"https://localhost:{port}/"))


async def test_requests_beyond_the_connections_wait() -> None:
    async with server(ok) as (port, came_in), client() as outbound:
        url = f"http://127.0.0.1:{port}/"
        answers = await asyncio.gather(*(outbound.send(Request("GET", url, timeout_s=60)) for _ in range(200)))
    assert len(came_in) == 200 and {answer.status for answer in answers} == {200}
