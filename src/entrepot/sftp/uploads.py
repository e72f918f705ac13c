"""A file that is open for writing: new content streams to the store, and becomes the object at CLOSE.

Only `close` publishes, and only a CLOSE packet of the client calls it. `drop`, for a connection that went away, parks or
discards.
"""

from typing import Final

from entrepot import clock, faults
from entrepot.blobs import BlobWriter
from entrepot.database import Transaction
from entrepot.errors import AwsError, StorageError
from entrepot.services.s3.objects import ObjectVersion
from entrepot.services.transfer import partials
from entrepot.services.transfer.partials import PartialUpload
from entrepot.sftp.paths import LocatedPlace, Place
from entrepot.sftp.session import Session
from entrepot.sftp.status import failure

COPY_BLOCK_BYTES: Final = 1 << 20
"""Existing content that is written into is copied in blocks of this size."""

SIZE_LIMIT_BYTES: Final = 5 << 40
"""S3's largest object."""

HOLES_LIMIT_BYTES: Final = 64 << 20
"""Most bytes of a file that its client never wrote (it wrote far beyond the end, or extended the file).

They cost the client nothing, and the server as much as others when the content is hashed or read. (AWS Transfer takes no
holes at all.)
"""


class Upload:
    """An open file that can be written.

    `base` is the object that exists and was not truncated: its content is copied before the first change. `created` says
    that CLOSE publishes even when nothing is written. `partial` is a parked upload for the same key, resumed or replaced.
    """

    def __init__(
        self,
        session: Session,
        place: Place,
        *,
        base: ObjectVersion | None = None,
        created: bool = False,
        exclusive: bool = False,
        append: bool = False,
        readable: bool = False,
        partial: PartialUpload | None = None,
        writer: BlobWriter | None = None,
    ) -> None:
        self.session = session
        self.place = place
        self.at: LocatedPlace = place.located()
        self.readable = readable
        self._base = base
        self._changed = created
        self._exclusive = exclusive
        self._append = append
        self._partial = partial
        self._writer = writer
        self._contiguous_bytes: int | None = writer.size_bytes if writer is not None else 0
        self._given_bytes = (
            self.size_bytes
        )  # of the content, how much came from somewhere; what is rewritten counts twice
        self._mtime_s: int | None = None
        self._error: Exception | None = None
        self._bytes_in = 0

    @property
    def size_bytes(self) -> int:
        """The size that the file would have if it were closed now."""
        if self._writer is not None:
            return self._writer.size_bytes
        return self._base.size_bytes if self._base is not None else 0

    @property
    def bytes_in(self) -> int:
        """How many bytes the client has written."""
        return self._bytes_in

    @property
    def mtime_s(self) -> int:
        """The time that it would have, in seconds since the epoch."""
        if self._mtime_s is not None:
            return self._mtime_s
        if self._base is not None and not self._changed:
            return self._base.mtime_ms // 1000
        return clock.now_ms() // 1000

    async def write(self, offset_bytes: int, data: bytes) -> None:
        """Take data; return when it is queued. An earlier failure of the disk is raised here or by `close`."""
        writer = await self._begin()
        if self._append:
            offset_bytes = writer.size_bytes
        end_bytes = offset_bytes + len(data)
        if end_bytes > SIZE_LIMIT_BYTES:
            raise failure("The file would be larger than 5 TiB, the largest object of S3")
        self._contiguous_bytes = end_bytes if self._contiguous_bytes == offset_bytes else None
        self._given_bytes += len(data)
        self._bytes_in += len(data)
        self.session.bytes_in += len(data)
        try:
            await writer.write(offset_bytes, data)
        except StorageError as error:
            self._error = error
            raise

    async def read(self, offset_bytes: int, length_bytes: int) -> bytes:
        """Return what the file holds now."""
        if self._writer is not None:
            return await self._writer.read(offset_bytes, length_bytes)
        if self._base is not None:
            return await self.session.site.s3.read(self._base, offset_bytes, length_bytes)
        return b""

    async def truncate(self, size_bytes: int) -> None:
        """Cut or extend the file."""
        if size_bytes > SIZE_LIMIT_BYTES:
            raise failure("The file would be larger than 5 TiB, the largest object of S3")
        if size_bytes == self.size_bytes:
            return
        if size_bytes == 0 and self._writer is None:
            self._base = None
        writer = await self._begin()
        self._contiguous_bytes = None
        await writer.truncate(size_bytes)
        self._given_bytes = min(self._given_bytes, size_bytes)

    def check_holes(self) -> None:
        """Raise FAILURE when too much of the content was never written."""
        if self.size_bytes - self._given_bytes > HOLES_LIMIT_BYTES:
            raise failure(f"More than {HOLES_LIMIT_BYTES >> 20} MiB of the file were never written")

    def set_mtime(self, mtime_s: int) -> None:
        """Keep the time for CLOSE: it costs no commit of its own."""
        self._mtime_s = mtime_s

    async def flush(self) -> None:
        """Make durable what was written so far (fsync@openssh.com)."""
        if self._writer is not None:
            await self._writer.flush()

    async def _begin(self) -> BlobWriter:
        if self._error is not None:
            raise self._error
        self._changed = True
        if self._writer is None:
            self._writer = self.session.site.blobs.create()
            if self._base is not None and self._base.size_bytes:
                await self._copy_base(self._base, self._writer)
        return self._writer

    async def _copy_base(self, base: ObjectVersion, writer: BlobWriter) -> None:
        s3 = self.session.site.s3
        try:
            for offset_bytes in range(0, base.size_bytes, COPY_BLOCK_BYTES):
                await writer.write(offset_bytes, await s3.read(base, offset_bytes, COPY_BLOCK_BYTES))
        except Exception as error:
            self._error = error
            raise

    async def close(self) -> None:
        """Make the content durable and visible; return after the commit. Raises what went wrong, also earlier."""
        if self._error is not None:
            await self.abort()
            raise self._error
        if not self._changed:
            await self._close_unchanged()
            return
        writer = self._writer if self._writer is not None else self.session.site.blobs.create()
        self._writer = writer
        try:
            self.check_holes()
            blob = await writer.finish()
        except BaseException:
            await self.abort()
            raise
        faults.reach("sftp.before-publish")
        session, at, partial = self.session, self.at, self._partial
        call = session.call()
        mtime_ms = None if self._mtime_s is None else self._mtime_s * 1000
        exclusive = self._exclusive

        def publish(tx: Transaction) -> None:
            session.site.s3.publish(tx, at.bucket, at.key, blob, call, mtime_ms=mtime_ms, if_none_match=exclusive)
            if partial is not None:
                partials.remove(tx, at.bucket, at.key, session.user.user_name)

        try:
            await session.site.database.write(publish)
        except AwsError:  # refused, so that no row names the content
            if blob.blob_id is not None:
                await session.site.blobs.remove(blob.blob_id)
            raise
        faults.reach("sftp.after-publish")
        session.files_in += 1
        session.log("CLOSE", path=self.place.object_path, bytes_in=self._bytes_in)
        if partial is not None:
            await discard(session, partial)

    async def _close_unchanged(self) -> None:
        mtime_s, at = self._mtime_s, self.at
        if mtime_s is not None:
            s3 = self.session.site.s3
            await self.session.site.database.write(lambda tx: s3.touch(tx, at.bucket, at.key, mtime_ms=mtime_s * 1000))
        self.session.log("CLOSE", path=self.place.object_path, bytes_in=0)

    async def drop(self) -> None:
        """The connection went away: park what can be resumed, discard the rest. Nothing becomes visible."""
        writer, self._writer = self._writer, None
        if writer is None:
            return
        session, at = self.session, self.at
        size_bytes = writer.size_bytes
        resumable = self._error is None and self._base is None and self._contiguous_bytes == size_bytes > 0
        parked: str | None = None
        if resumable and await self._nothing_exists():
            try:
                parked = await writer.park()
            except StorageError:
                parked = None
        if parked is None:
            await writer.abort()
            return
        partial = PartialUpload(at.bucket, at.key, session.user.user_name, parked, size_bytes, clock.now_ms())
        replaced = await session.site.database.write(lambda tx: partials.put(tx, partial))
        session.log("PARTIAL_CLOSE", path=self.place.object_path, bytes_in=self._bytes_in)
        for name in replaced:
            await discard_parked(session, name)

    async def _nothing_exists(self) -> bool:
        site, at = self.session.site, self.at
        return await site.database.read(lambda reader: site.s3.head(reader, at.bucket, at.key) is None)

    async def abort(self) -> None:
        """Discard the content."""
        writer, self._writer = self._writer, None
        if writer is not None:
            await writer.abort()


async def discard(session: Session, partial: PartialUpload) -> None:
    """Discard the content of a parked upload; its row is gone already."""
    await discard_parked(session, partial.parked)


async def discard_parked(session: Session, parked: str) -> None:
    """Discard parked content by name; fine when it is gone."""
    try:
        writer = await session.site.blobs.resume(parked)
    except (FileNotFoundError, StorageError):
        return
    await writer.abort()
