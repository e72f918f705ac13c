"""The Runtime API of one worker: a tiny HTTP server that speaks to awslambdaric and to nobody else.

Each worker has a listener of its own on the loopback, so a request needs no further proof of which worker it comes from.
That it is the worker is proved by its socket: the kernel must list it among the worker's open files.

Source: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

import asyncio
import os
from collections.abc import Callable
from typing import Protocol, cast

import httptools

from entrepot.services.lambda_.invocation import RESPONSE_LIMIT_BYTES, Invocation

HEADER_LIMIT_BYTES = 1_200_000
"""All headers of one request. awslambdaric sends the cause of an error in a header of up to 1 MiB."""

_PREFIX = b"/2018-06-01/runtime/"


class Runtime(Protocol):
    """Who does the work behind the API: a worker."""

    def is_own_connection(self, peer_port: int, own_port: int) -> bool:
        """Say whether a connection comes from the worker's own process."""
        ...

    def on_next(self, reply: Callable[[Invocation], None]) -> None:
        """The runtime asks for work; `reply` hands it over."""
        ...

    def on_response(self, request_id: str, payload: bytes | None) -> bool:
        """The handler has answered (None: with too much); False when no such invocation is running."""
        ...

    def on_error(self, request_id: str, payload: bytes) -> bool:
        """The handler has raised; False when no such invocation is running."""
        ...

    def on_init_error(self, payload: bytes) -> None:
        """The handler could not be loaded."""
        ...


class RuntimeApi(asyncio.Protocol):
    """One connection of a worker to its Runtime API."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._body: list[bytes] = []
        self._body_size = 0
        self._header_size = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        peer, own = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        if not peer or not self._runtime.is_own_connection(peer[1], own[1]):
            transport.close()
            return
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports do not derive from asyncio's

    @property
    def is_open(self) -> bool:
        """Whether the other side can still be spoken to."""
        return self._transport is not None

    def close(self) -> None:
        """Close the connection at once."""
        self._abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._abort()

    # ── the parser's callbacks ───────────────────────────────────────────────────────────────────────────────────

    def on_message_begin(self) -> None:
        self._url, self._body, self._body_size, self._header_size = b"", [], 0, 0

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_size += len(name) + len(value)
        if self._header_size > HEADER_LIMIT_BYTES:
            self._abort()
        elif name.lower() == b"expect" and self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._body_size += len(body)
        if self._body_size <= RESPONSE_LIMIT_BYTES:
            self._body.append(body)

    def on_message_complete(self) -> None:
        if self._transport is None or not self._url.startswith(_PREFIX):
            self._answer(404, b"Not Found")
            return
        body = b"".join(self._body)
        too_large = self._body_size > RESPONSE_LIMIT_BYTES
        match self._url[len(_PREFIX) :].decode("latin-1").split("/"):
            case ["invocation", "next"]:
                self._runtime.on_next(self._hand_over)
            case ["invocation", request_id, "response"]:
                known = self._runtime.on_response(request_id, None if too_large else body)
                self._answer_post(known, too_large)
            case ["invocation", request_id, "error"]:
                self._answer_post(self._runtime.on_error(request_id, body), False)
            case ["init", "error"]:
                self._answer_post(True, False)
                self._runtime.on_init_error(body)
            case _:
                self._answer(404, b"Not Found")

    # ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _answer_post(self, known: bool, too_large: bool) -> None:
        if not known:
            self._answer(400, b"Bad Request", b'{"errorMessage":"Invalid request ID","errorType":"InvalidRequestID"}')
        elif too_large:
            self._answer(
                413,
                b"Payload Too Large",
                b'{"errorMessage":"Exceeded maximum allowed payload size (6291556 bytes).",'
                b'"errorType":"RequestEntityTooLarge"}',
            )
        else:
            self._answer(202, b"Accepted", b'{"status":"OK"}\n')

    def _answer(self, status: int, reason: bytes, body: bytes = b"") -> None:
        if self._transport is not None:
            self._transport.write(
                b"HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
                % (status, reason, len(body), body)
            )

    def _hand_over(self, invocation: Invocation) -> None:
        if self._transport is None:
            return
        headers = [
            "HTTP/1.1 200 OK",
            "Content-Type: application/json",
            f"Lambda-Runtime-Aws-Request-Id: {invocation.request_id}",
            f"Lambda-Runtime-Deadline-Ms: {invocation.deadline_ms}",
            f"Lambda-Runtime-Invoked-Function-Arn: {invocation.function_arn}",
            f"Lambda-Runtime-Trace-Id: {invocation.trace_id}",
        ]
        if invocation.client_context:
            headers.append(f"Lambda-Runtime-Client-Context: {invocation.client_context}")
        headers.append(f"Content-Length: {len(invocation.payload)}\r\n\r\n")
        self._transport.write("\r\n".join(headers).encode("ascii") + invocation.payload)

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
            self._transport = None


def is_connection_of(pid: int, peer_port: int, own_port: int) -> bool:
    """Say whether the loopback connection from `peer_port` to `own_port` is held by the process `pid`.

    Its inode in /proc/net/tcp must be among the process's open files. Where /proc does not tell, the answer is no.
    """
    wanted = f"0100007F:{peer_port:04X} 0100007F:{own_port:04X} "
    try:
        with open("/proc/net/tcp", encoding="ascii") as table:  # noqa: PTH123 - read line by line, on every connection
            inode = next((line.split()[9] for line in table if wanted in line), None)
        if inode is None:
            return False
        target = f"socket:[{inode}]"
        folder = f"/proc/{pid}/fd"
        return any(_points_to(f"{folder}/{name}", target) for name in os.listdir(folder))  # noqa: PTH208
    except OSError:
        return False


def _points_to(path: str, target: str) -> bool:
    try:
        return os.readlink(path) == target  # noqa: PTH115 - the text as it is
    except OSError:
        return False
