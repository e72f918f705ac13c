"""A file that is open for reading only: blocks of it, one ahead of the client."""

import asyncio

from entrepot.services.s3.objects import ObjectVersion
from entrepot.sftp.paths import Place
from entrepot.sftp.session import Session
from entrepot.sftp.settings import READ_AHEAD_BYTES


class Download:
    """An open object. What was opened stays readable when the name is replaced or removed meanwhile."""

    def __init__(self, session: Session, place: Place, version: ObjectVersion) -> None:
        self.session = session
        self.place = place
        self.version = version
        self._block = b""
        self._block_offset = 0
        self._ahead: asyncio.Task[bytes] | None = None
        self._ahead_offset = -1
        self._bytes_out = 0

    @property
    def bytes_out(self) -> int:
        """How many bytes the client has read."""
        return self._bytes_out

    async def read(self, offset_bytes: int, length_bytes: int) -> bytes:
        """Return up to `length_bytes`, nothing at the end."""
        size_bytes = self.version.size_bytes
        length_bytes = min(length_bytes, size_bytes - offset_bytes)
        if length_bytes <= 0:
            return b""
        pieces = []
        while length_bytes > 0:
            start = offset_bytes - self._block_offset
            if not 0 <= start < len(self._block):
                await self._load(offset_bytes)
                start = offset_bytes - self._block_offset
            piece = self._block[start : start + length_bytes]
            if not piece:
                break
            pieces.append(piece)
            offset_bytes += len(piece)
            length_bytes -= len(piece)
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._bytes_out += len(data)
        self.session.bytes_out += len(data)
        return data

    async def _load(self, offset_bytes: int) -> None:
        sequential = offset_bytes == self._block_offset + len(self._block)
        if self.version.blob_id is None:
            self._block, self._block_offset = await self._fetch(0), 0
            return
        if self._ahead is not None and self._ahead_offset == offset_bytes:
            task, self._ahead = self._ahead, None
            self._block = await task
        else:
            self._cancel()
            self._block = await self._fetch(offset_bytes)
        self._block_offset = offset_bytes
        following = offset_bytes + len(self._block)
        if sequential and following < self.version.size_bytes:
            self._ahead_offset = following
            self._ahead = asyncio.create_task(self._fetch(following), name="sftp-read-ahead")

    async def _fetch(self, offset_bytes: int) -> bytes:
        return await self.session.site.s3.read(self.version, offset_bytes, READ_AHEAD_BYTES)

    def _cancel(self) -> None:
        if self._ahead is not None:
            self._ahead.cancel()
            self._ahead = None

    def close(self) -> None:
        """Release the blocks; tell the log."""
        self._cancel()
        self._block = b""
        self.session.files_out += 1
        self.session.site.transfer.on_file_sent(self._bytes_out)
        self.session.log("CLOSE", path=self.place.object_path, bytes_out=self._bytes_out)

    def drop(self) -> None:
        """Release the blocks of a connection that went away."""
        self._cancel()
        self._block = b""
