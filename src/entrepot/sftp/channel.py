"""One SFTP channel: packets from the wire into a bounded queue, worked on in order by one task, replies gathered.

asyncssh carries the SSH protocol; the SFTP protocol is spoken here and not by asyncssh's own SFTP server, for three
reasons. That one calls a file's `close` for a CLOSE packet and for a lost connection alike, while here only the packet
may publish. It has no bound on what is queued, and it spends more time on a small file than everything else together.

A CLOSE waits for the disk beside the queue: requests for other files go on meanwhile (and share its commit); whatever
could tell the difference waits.
"""

import asyncio
import logging
import struct
from collections import deque
from collections.abc import Callable
from typing import Final

import asyncssh

from entrepot import clock
from entrepot.sftp import requests, wire
from entrepot.sftp.requests import OpenFiles
from entrepot.sftp.session import Session
from entrepot.sftp.settings import SFTP_PACKET_LIMIT_BYTES
from entrepot.sftp.status import OP_UNSUPPORTED, StatusError, of_error

logger = logging.getLogger(__name__)

REFUSAL_TEXT: Final = b"This service allows sftp connections only (scp of OpenSSH 9 and newer works; older: scp -s).\n"

REPLIES_LIMIT_BYTES: Final = 256 << 10
"""Replies are gathered up to this size."""

UNSENT_LIMIT_BYTES: Final = 512 << 10
"""While more than this waits for the client's window, no further request is worked on."""

QUEUED_REQUESTS_LIMIT: Final = 4096
"""Most requests that wait in one channel, however small they are."""

_LENGTH_AND_TYPE: Final = struct.Struct(">IBI")
REQUEST_OVERHEAD_BYTES: Final = 128


class UserLoad:
    """What all sessions of a user have queued in this process."""

    __slots__ = ("queued_bytes", "sessions")

    def __init__(self) -> None:
        self.queued_bytes = 0
        self.sessions = 0


class Channel(asyncssh.SSHServerSession[bytes]):
    """The server's end of one `session` channel."""

    def __init__(self, session: Session, load: UserLoad, ended: "Callable[[Channel], None]") -> None:
        self.session = session
        self._when_ended = ended
        self._load = load
        self._settings = session.site.settings
        self._chan: asyncssh.SSHServerChannel[bytes] | None = None
        self._is_sftp = False
        self._buffer = bytearray()
        self._queue: deque[tuple[int, int, bytes]] = deque()
        self._queued_bytes = 0
        self._paused = False
        self._ended = False
        self._gone = False
        self._wake = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._initialised = False
        self._working = False
        self.files = OpenFiles(session)
        self.task: asyncio.Task[None] | None = None
        self.last_activity_s = clock.monotonic_s()

    @property
    def is_busy(self) -> bool:
        """Whether requests wait or are worked on."""
        return bool(self._queue) or self._working or self.files.is_closing

    @property
    def is_over(self) -> bool:
        """Whether nothing of the channel is left, so that another may take its place."""
        return self._gone if self.task is None else self.task.done()

    # ── what asyncssh calls ──────────────────────────────────────────────────────────────────────────────────────

    def connection_made(self, chan: "asyncssh.SSHServerChannel[bytes]") -> None:
        self._chan = chan
        chan.set_write_buffer_limits(UNSENT_LIMIT_BYTES)

    def subsystem_requested(self, subsystem: str) -> bool:
        self._is_sftp = subsystem == "sftp"
        return self._is_sftp

    def exec_requested(self, command: str) -> bool:
        return True

    def shell_requested(self) -> bool:
        return True

    def session_started(self) -> None:
        if self._is_sftp:
            self.task = asyncio.get_running_loop().create_task(self._run(), name="sftp-channel")
        elif self._chan is not None:
            self._chan.write_stderr(REFUSAL_TEXT)
            self._chan.exit(1)

    def data_received(self, data: bytes, datatype: int | None) -> None:
        if not self._is_sftp or self._ended:
            return
        self.last_activity_s = clock.monotonic_s()
        buffer = self._buffer
        buffer += data
        offset = 0
        available = len(buffer)
        while available - offset >= 9:
            length, kind, request_id = _LENGTH_AND_TYPE.unpack_from(buffer, offset)
            if not 5 <= length <= SFTP_PACKET_LIMIT_BYTES:
                self._protocol_error(f"a packet of {length} bytes")
                return
            if available - offset < length + 4:
                break
            body = bytes(memoryview(buffer)[offset + 9 : offset + 4 + length])
            offset += length + 4
            self._enqueue(kind, request_id, body)
        if offset:
            del buffer[:offset]
        if not self._wake.is_set():
            self._wake.set()
        self._throttle()

    def eof_received(self) -> bool:
        self._ended = True
        self._wake.set()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = self._gone = True
        self._chan = None
        self._wake.set()
        self._writable.set()
        if self.task is None:
            self._when_ended(self)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # ── the queue ────────────────────────────────────────────────────────────────────────────────────────────────

    def _enqueue(self, kind: int, request_id: int, body: bytes) -> None:
        self._queue.append((kind, request_id, body))
        size = len(body) + REQUEST_OVERHEAD_BYTES
        self._queued_bytes += size
        self._load.queued_bytes += size

    def _throttle(self) -> None:
        """Stop reading from the wire while too much waits; the SSH window then stops the client."""
        full = (
            self._queued_bytes > self._settings.queued_bytes_per_session
            or len(self._queue) > QUEUED_REQUESTS_LIMIT
            or self._load.queued_bytes > self._settings.in_flight_bytes_per_user
        )
        if full and not self._paused and self._queue and self._chan is not None:
            self._paused = True
            self._chan.pause_reading()

    def _dequeue(self) -> tuple[int, int, bytes]:
        packet = self._queue.popleft()
        size = len(packet[2]) + REQUEST_OVERHEAD_BYTES
        self._queued_bytes -= size
        self._load.queued_bytes -= size
        return packet

    def _unthrottle(self) -> None:
        if self._paused and self._queued_bytes <= self._settings.queued_bytes_per_session // 2:
            self._paused = False
            if self._chan is not None:
                self._chan.resume_reading()

    def _protocol_error(self, text: str) -> None:
        """End the channel: after a malformed packet nothing that follows can be trusted."""
        self.session.log("ERROR", message=f"SFTP protocol error: {text}", operation="PROTOCOL")
        self._ended = True
        self._buffer.clear()
        self._wake.set()

    # ── the task ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def _run(self) -> None:
        try:
            while True:
                while self._queue:
                    kind, request_id, body = self._dequeue()
                    self._working = True
                    await self._answer(kind, request_id, body)
                    self._working = False
                    self._unthrottle()
                    if not self._writable.is_set():
                        self._flush()
                        await self._writable.wait()
                if self._ended:
                    break
                self._wake.clear()
                await self._wake.wait()
            await self.files.settle()
        finally:
            self._load.queued_bytes -= self._queued_bytes
            self._queue.clear()
            await self.files.drop()
            self._flush()
            if self._chan is not None:
                self._chan.exit(0)
            self._when_ended(self)

    async def _answer(self, kind: int, request_id: int, body: bytes) -> None:
        if not self._initialised:
            self._initialise(kind, request_id)
            return
        if kind == wire.CLOSE:
            await self._close(request_id, body)
            return
        self._send(await self._reply(kind, request_id, body))

    async def _reply(self, kind: int, request_id: int, body: bytes) -> bytes:
        """Work on one request; every error becomes its status."""
        try:
            if kind == wire.WRITE:
                await requests.write(self.files, body)
                return wire.status_ok(request_id)
            handler = requests.HANDLERS.get(kind)
            if handler is None:
                raise StatusError(OP_UNSUPPORTED, "Operation not supported")
            return await handler(self.files, request_id, wire.Fields(body))
        except Exception as error:  # noqa: BLE001 - the top frame of a request: whatever fails, the client is told
            return self._failed(request_id, error, requests.NAMES.get(kind, str(kind)))

    def _failed(self, request_id: int, error: Exception, operation: str) -> bytes:
        status = of_error(error)
        if not isinstance(error, StatusError):
            if status.text.startswith("The server failed"):
                logger.error("SFTP request %s of %s failed", operation, self.session.stream, exc_info=error)
            self.session.log("ERROR", operation=operation, message=f"{type(error).__name__}: {error}"[:500])
        return wire.status(request_id, status.code, status.text)

    async def _close(self, request_id: int, body: bytes) -> None:
        """Take the handle away at once; answer when the content is durable and visible."""
        try:
            work = self.files.close(wire.Fields(body).string())
        except StatusError as error:
            self._send(wire.status(request_id, error.code, error.text))
            return
        if work is None:
            self._send(wire.status_ok(request_id))
            return

        async def finish() -> None:
            try:
                if work.before is not None:
                    await asyncio.wait([work.before])
                await work.upload.close()
                reply = wire.status_ok(request_id)
            except Exception as error:  # noqa: BLE001 - as above
                reply = self._failed(request_id, error, "CLOSE")
            finally:
                work.done()
            self._send(reply)

        work.task = asyncio.get_running_loop().create_task(finish(), name="sftp-close")

    def _initialise(self, kind: int, version: int) -> None:
        if kind != wire.INIT or version < wire.PROTOCOL_VERSION:
            self._protocol_error(f"expected INIT with version 3 or later, got type {kind}")
            return
        self._initialised = True
        body = b"".join(wire.string(name) + wire.string(value) for name, value in requests.EXTENSIONS)
        self._send(wire.packet(wire.VERSION, wire.PROTOCOL_VERSION, body))

    # ── replies ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _send(self, reply: bytes) -> None:
        """Queue a reply; replies of the same turn of the loop leave in one SSH packet."""
        if not self._out:
            asyncio.get_running_loop().call_soon(self._flush)
        self._out.append(reply)
        self._out_bytes += len(reply)
        if self._out_bytes > REPLIES_LIMIT_BYTES:
            self._flush()

    def _flush(self) -> None:
        out, self._out, self._out_bytes = self._out, [], 0
        if out and self._chan is not None and not self._chan.is_closing():
            self._chan.write(out[0] if len(out) == 1 else b"".join(out))
