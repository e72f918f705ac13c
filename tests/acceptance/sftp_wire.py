"""A bare SFTP client: packets by hand, for what no stock client sends."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncssh

from entrepot.sftp import wire


def text(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value


class WireClient:
    """Sends requests and takes replies, in any order and number."""

    def __init__(
        self,
        connection: asyncssh.SSHClientConnection,
        writer: "asyncssh.SSHWriter[bytes]",
        reader: "asyncssh.SSHReader[bytes]",
    ) -> None:
        self.connection = connection
        self._writer = writer
        self._reader = reader
        self._next = 0
        self.extensions: dict[bytes, bytes] = {}

    def send(self, kind: int, body: bytes) -> int:
        self._next += 1
        self._writer.write(struct.pack(">IBI", len(body) + 5, kind, self._next) + body)
        return self._next

    def send_raw(self, data: bytes) -> None:
        self._writer.write(data)

    async def reply(self) -> tuple[int, int, bytes]:
        """Return (kind, request id, body) of the next reply."""
        (length,) = struct.unpack(">I", await self._reader.readexactly(4))
        packet = await self._reader.readexactly(length)
        kind, request_id = struct.unpack_from(">BI", packet)
        return kind, request_id, packet[5:]

    async def ask(self, kind: int, body: bytes) -> tuple[int, bytes]:
        request_id = self.send(kind, body)
        async with asyncio.timeout(20):
            answer, answered_id, body = await self.reply()
        assert answered_id == request_id
        return answer, body

    async def status(self, kind: int, body: bytes) -> int:
        """Return the status code of a request that answers with one."""
        answer, reply = await self.ask(kind, body)
        assert answer == wire.STATUS, answer
        return int.from_bytes(reply[:4], "big")

    async def open(self, path: bytes, flags: int) -> bytes:
        answer, reply = await self.ask(wire.OPEN, text(path) + struct.pack(">II", flags, 0))
        assert answer == wire.HANDLE, reply
        return reply[4:]

    async def open_status(self, path: bytes, flags: int) -> int:
        return await self.status(wire.OPEN, text(path) + struct.pack(">II", flags, 0))

    async def write(self, handle: bytes, offset: int, data: bytes) -> int:
        return await self.status(wire.WRITE, text(handle) + struct.pack(">Q", offset) + text(data))

    def send_write(self, handle: bytes, offset: int, data: bytes) -> int:
        return self.send(wire.WRITE, text(handle) + struct.pack(">Q", offset) + text(data))

    async def read(self, handle: bytes, offset: int, length: int) -> bytes | int:
        """Return the data, or the status code."""
        answer, reply = await self.ask(wire.READ, text(handle) + struct.pack(">QI", offset, length))
        return reply[4:] if answer == wire.DATA else int.from_bytes(reply[:4], "big")

    async def close(self, handle: bytes) -> int:
        return await self.status(wire.CLOSE, text(handle))

    async def extended(self, name: bytes, body: bytes) -> tuple[int, bytes]:
        return await self.ask(wire.EXTENDED, text(name) + body)

    def kill(self) -> None:
        """Cut the TCP connection, without a word of SSH."""
        transport = self.connection._transport
        assert transport is not None
        transport.abort()


@asynccontextmanager
async def wire_client(connection: asyncssh.SSHClientConnection, *, version: int = 3) -> AsyncIterator[WireClient]:
    """Open an SFTP channel and exchange versions."""
    writer, reader, _ = await connection.open_session(subsystem="sftp", encoding=None)
    client = WireClient(connection, writer, reader)
    client.send_raw(struct.pack(">IBI", 5, wire.INIT, version))
    kind, spoken, body = await client.reply()
    assert (kind, spoken) == (wire.VERSION, 3)
    fields = wire.Fields(body)
    while body and fields._offset < len(body):
        name = fields.string()
        client.extensions[name] = fields.string()
    yield client
