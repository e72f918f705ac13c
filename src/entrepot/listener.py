"""The HTTP/1.1 server: uvicorn's protocol on httptools, inside the running event loop, with limits of its own.

uvicorn bounds neither the head of a request nor the time that a client takes for it; this does. No signal handlers
are installed: who starts a listener stops it.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, MutableMapping
from email.utils import formatdate
from typing import Any, TypeAlias

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from entrepot import clock

MAX_HEAD_BYTES = 64 * 1024
"""Request line and headers together (a session token may have 8 KiB); also framing bytes that bring no body."""

MAX_HEADERS = 200
"""How many headers a request may have (S3 allows 2 KB of metadata)."""

MAX_TARGET_BYTES = 16 * 1024
"""Path and query; a key of 1,024 bytes takes up to 3 KiB, a presigned query with its token 10."""

MAX_CONNECTIONS = 2048
"""Open connections; further ones are answered 503 and closed."""

HEAD_TIMEOUT_S = 30.0
"""A connection whose request head is not complete after this long is closed."""

KEEP_ALIVE_TIMEOUT_S = 90
"""An idle connection is kept this long."""

BACKLOG = 512

GATHER_LIMIT_BYTES = 64 * 1024
"""What is written in one turn of the loop is gathered up to this size."""

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


class _Gathering:
    """A transport whose writes of one turn of the loop leave together.

    uvicorn writes the head of a response and its body by themselves, and uvloop sends each at once: two system calls, and a
    client that is woken for the head only to sleep again until the body comes.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0

    def write(self, data: bytes) -> None:
        if not self._waiting:
            self._loop.call_soon(self._flush)
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        if self._waiting_bytes > GATHER_LIMIT_BYTES:
            self._flush()

    def _flush(self) -> None:
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        if waiting and not self._transport.is_closing():
            self._transport.write(waiting[0] if len(waiting) == 1 else b"".join(waiting))

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class _Connection(HttpToolsProtocol):
    """uvicorn's connection, bounded."""

    _quiet_bytes = 0
    _progress = False
    _in_head = True
    _refusal: int | None = None
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(_Gathering(transport, self.loop))  # type: ignore[arg-type]
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, transport.close)
        if len(self.connections) > MAX_CONNECTIONS:
            self._refusal = 503
            self.send_400_response("Too many connections.")

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refusal is not None:
            return
        self._progress = False
        super().data_received(data)
        if self._progress:
            self._quiet_bytes = 0
            return
        self._quiet_bytes += len(data)
        if self._quiet_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refusal = 431
            self.send_400_response("The request head is too large.")

    def send_400_response(self, msg: str) -> None:
        """Answer with the refusal's status (400 unless a limit says otherwise) and close."""
        status, self._refusal = self._refusal or 400, self._refusal or 400
        body = msg.encode("ascii")
        self.transport.write(
            STATUS_LINE[status]
            + b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
            + body
        )
        self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self.transport.close)

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > MAX_TARGET_BYTES:
            self._refusal = 414
            raise httptools.HttpParserError("request target too long")

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            return  # trailers of Transfer-Encoding: chunked mean nothing here
        if len(self.headers) >= MAX_HEADERS:
            self._refusal = 431
            raise httptools.HttpParserError("too many headers")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._progress = True
        self._stop_head_timer()
        self.scope["entrepot.gone"] = self.transport.is_closing  # type: ignore[typeddict-unknown-key]
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._progress = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._progress = True
        super().on_message_complete()

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class Listener:
    """An ASGI app on a port."""

    def __init__(self, app: App) -> None:
        self._config = Config(
            app,
            http=_Connection,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_TIMEOUT_S,
        )
        self._config.load()
        self._state = ServerState()
        self._server: asyncio.Server | None = None
        self._dating: asyncio.TimerHandle | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; return the port (`port` 0 takes a free one). Raises OSError when the port is taken."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connection, host, port, backlog=BACKLOG)
        self._date()
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    def _connection(self) -> _Connection:
        return _Connection(self._config, self._state, {})

    def _date(self) -> None:
        """Keep the Date header current, once a second."""
        self._state.default_headers = [(b"date", formatdate(clock.now_ms() / 1000, usegmt=True).encode())]
        self._dating = asyncio.get_running_loop().call_later(1.0, self._date)

    async def stop(self, deadline_s: float) -> None:
        """Take no new connection, let requests under way end until the deadline, then cut what is left."""
        if self._server is None:
            return
        self._server.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        if self._state.tasks:
            await asyncio.wait(list(self._state.tasks), timeout=deadline_s)
        left: list[asyncio.Task[Any]] = [task for task in self._state.tasks if not task.done()]
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=1.0)
        for connection in list(self._state.connections):
            if connection.transport is not None:
                connection.transport.abort()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await self._server.wait_closed()
        if self._dating is not None:
            self._dating.cancel()
        self._server = None
