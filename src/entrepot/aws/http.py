"""One HTTP exchange as the rest of the wire sees it: bounded, with its body as a stream, free of ASGI.

Header values are kept as latin-1, byte for byte what the client signed.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from entrepot.aws.errors import (
    DuplicateHeaderError,
    IncompleteBodyError,
    RequestBodyTooLargeError,
    RequestTimeoutError,
)

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Body: TypeAlias = AsyncIterator[bytes]

BODY_IDLE_TIMEOUT_S = 60.0
"""A client that sends nothing of its announced body for this long is given up."""

DRAIN_TIMEOUT_S = 5.0
"""How long the rest of a refused request's body is waited for, before the answer goes out and the connection ends."""

SEND_IDLE_TIMEOUT_S = 120.0
"""A client that takes nothing of its response for this long is given up."""

_SINGLE = frozenset(
    {
        b"authorization", b"content-length", b"content-md5", b"content-type", b"host", b"range", b"x-amz-content-sha256",
        b"x-amz-copy-source", b"x-amz-date", b"x-amz-decoded-content-length", b"x-amz-security-token", b"x-amz-target",
    }
)  # fmt: skip
"""Headers that decide what a request means; sent twice, two readers could read two requests."""


@dataclass(slots=True)
class HttpRequest:
    """A request whose head has been read; `body` gives the rest.

    `path` and `query` are percent-encoded as they came; `headers` have lower-case names, values joined by `,` where a
    name came more than once.
    """

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: "RequestBody"
    source_ip: str = "127.0.0.1"

    def header(self, name: str) -> str | None:
        """Return a header's value by its lower-case name."""
        return self.headers.get(name)


@dataclass(slots=True)
class HttpResponse:
    """A response: `body` is sent as it is, or streamed when it is an iterator (then give Content-Length)."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | Body = b""


class RequestBody:
    """The body of a request as an iterator that fails when the client does.

    A client that disconnects or stalls before the announced end makes the iterator raise, so that whoever consumes it
    aborts and publishes nothing.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.begun = False
        self.ended = False

    def __aiter__(self) -> Body:
        return self

    async def __anext__(self) -> bytes:
        self.begun = True
        while not self.ended:
            try:
                async with asyncio.timeout(BODY_IDLE_TIMEOUT_S):
                    message = await self._receive()
            except TimeoutError:
                raise RequestTimeoutError from None
            if message["type"] == "http.disconnect":
                raise IncompleteBodyError("The client disconnected before the end of the request body.")
            self.ended = not message.get("more_body", False)
            chunk: bytes = message.get("body", b"")
            if chunk:
                return chunk
        raise StopAsyncIteration

    async def read(self, max_bytes: int) -> bytes:
        """Return the whole body; raise RequestBodyTooLargeError beyond `max_bytes`."""
        chunks: list[bytes] = []
        size_bytes = 0
        async for chunk in self:
            size_bytes += len(chunk)
            if size_bytes > max_bytes:
                raise RequestBodyTooLargeError(max_bytes)
            chunks.append(chunk)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def drain(self, max_bytes: int) -> bool:
        """Throw away what is left, up to `max_bytes` and DRAIN_TIMEOUT_S; return whether the end was reached."""
        left = max_bytes
        try:
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                while not self.ended and left > 0:
                    left -= len(await anext(self, b""))
        except (IncompleteBodyError, RequestTimeoutError, TimeoutError):
            return False
        return self.ended


def read_request(scope: Scope, receive: Receive) -> HttpRequest:
    """Return the request of an ASGI scope; raise DuplicateHeaderError for an ambiguous one."""
    client = scope.get("client")
    return HttpRequest(
        method=scope["method"],
        path=scope["raw_path"].decode("latin-1"),
        query=scope["query_string"].decode("latin-1"),
        headers=_headers(scope["headers"]),
        body=RequestBody(receive),
        source_ip=client[0] if client else "127.0.0.1",
    )


def _headers(pairs: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in pairs:
        name = raw_name.decode("latin-1")
        value = raw_value.decode("latin-1")
        if name in headers:
            if raw_name in _SINGLE:
                raise DuplicateHeaderError(name)
            value = f"{headers[name]},{value}"
        headers[name] = value
    return headers


async def send_response(
    send: Send, response: HttpResponse, *, head: bool, gone: Callable[[], bool] | None = None
) -> None:
    """Send a response; a HEAD's body is left out. What a body iterator raises goes on: the connection is then cut.

    `gone` says whether the client has left, so that nothing more is read for it.
    """
    body = response.body
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in response.headers.items()]
    if isinstance(body, bytes) and not _has(response.headers, "content-length") and response.status not in (204, 304):
        headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    if isinstance(body, bytes):
        await send({"type": "http.response.body", "body": b"" if head else body})
        return
    try:
        if head:
            await send({"type": "http.response.body", "body": b""})
        else:
            await _stream(send, body, gone)
    finally:
        close = getattr(body, "aclose", None)
        if close is not None:
            await close()


async def _stream(send: Send, body: Body, gone: Callable[[], bool] | None) -> None:
    async for chunk in body:
        if gone is not None and gone():
            return
        async with asyncio.timeout(SEND_IDLE_TIMEOUT_S):
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def _has(headers: Mapping[str, str], name: str) -> bool:
    return any(key.lower() == name for key in headers)
