"""New content of the local store on its way to its file: write behind, hashed while it streams."""

import asyncio
import contextlib
import hashlib
import os
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from entrepot import faults, ids
from entrepot.blobs import Blob
from entrepot.blobs.files import DirectorySync, fsync_directory, start_write_back, storage_errors
from entrepot.errors import StorageError

T = TypeVar("T")

IN_FLIGHT_LIMIT_BYTES = 4 * 1024 * 1024
"""A writer holds at most this much that is not in its file yet; then `write` waits."""

BATCH_BYTES = 1024 * 1024
"""Writes are handed to a thread in batches of about this size, so that hashing and writing run long without the GIL."""

WRITE_BACK_BYTES = 8 * 1024 * 1024
"""The kernel is asked to begin writing to the disk each time this much is new."""

REREAD_BYTES = 1024 * 1024
"""Size of the pieces in which content is read again to be hashed or copied."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a writer puts things: folders, a source of new (blob id, path), shared fsyncs and threads."""

    temporary: Path
    parked: Path
    new_path: Callable[[], tuple[str, Path]]
    directories: DirectorySync
    threads: Executor


class Digests:
    """The digests of a growing beginning of the content."""

    def __init__(self, *, md5: bool, crc32: bool) -> None:
        self._with_md5, self._with_crc32 = md5, crc32
        self.reset()

    def reset(self) -> None:
        """Begin again at offset 0."""
        self.size_bytes = 0
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False) if self._with_md5 else None
        self._crc32 = 0

    def update(self, data: bytes | memoryview) -> None:
        """Add what follows."""
        self._sha256.update(data)
        if self._md5 is not None:
            self._md5.update(data)
        if self._with_crc32:
            self._crc32 = zlib.crc32(data, self._crc32)
        self.size_bytes += len(data)

    def blob(self, blob_id: str | None, inline: bytes | None) -> Blob:
        """Return the content with its digests."""
        return Blob(
            blob_id,
            inline,
            self.size_bytes,
            self._sha256.digest(),
            None if self._md5 is None else self._md5.digest(),
            self._crc32 if self._with_crc32 else None,
        )


class LocalBlobWriter:
    """A `BlobWriter`. Its methods are for the event loop; only `_Job`s run in threads, one at a time."""

    def __init__(self, place: Place, *, inline_limit_bytes: int, md5: bool = False, crc32: bool = False) -> None:
        self._place = place
        self._inline_limit_bytes = inline_limit_bytes
        self._digests = Digests(md5=md5, crc32=crc32)
        self._memory: bytearray | None = bytearray()
        self._path: Path | None = None
        self._descriptor = -1
        self._size_bytes = 0
        self._waiting: list[tuple[int, bytes]] = []
        self._waiting_bytes = 0
        self._running_bytes = 0
        self._job: asyncio.Future[None] | None = None
        self._written_back = 0
        self._buffer = bytearray()
        self._error: StorageError | None = None
        self._done = False

    @property
    def size_bytes(self) -> int:
        return self._size_bytes

    # ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def write(self, offset_bytes: int, data: bytes) -> None:
        self._check()
        if not data:
            return
        end = offset_bytes + len(data)
        if self._memory is not None:
            if end <= self._inline_limit_bytes:
                self._write_memory(offset_bytes, data)
                return
            self._spill()
        self._waiting.append((offset_bytes, bytes(data)))
        self._waiting_bytes += len(data)
        self._size_bytes = max(self._size_bytes, end)
        if self._job is None and self._waiting_bytes >= BATCH_BYTES:
            self._start_job()
        while self._waiting_bytes + self._running_bytes > IN_FLIGHT_LIMIT_BYTES:
            await self._wait_job()
            self._check()

    def _write_memory(self, offset_bytes: int, data: bytes) -> None:
        memory = self._memory
        assert memory is not None
        if offset_bytes > len(memory):
            memory.extend(bytes(offset_bytes - len(memory)))
        memory[offset_bytes : offset_bytes + len(data)] = data
        self._size_bytes = len(memory)

    def _spill(self) -> None:
        """Go on in a temporary file: what is in memory becomes the first write."""
        assert self._memory is not None
        if self._memory:
            self._waiting.append((0, bytes(self._memory)))
            self._waiting_bytes += len(self._memory)
        self._memory = None

    def _start_job(self) -> None:
        batch, self._waiting = self._waiting, []
        self._running_bytes, self._waiting_bytes = self._waiting_bytes, 0
        self._job = asyncio.get_running_loop().run_in_executor(self._place.threads, self._write_batch, batch)
        self._job.add_done_callback(self._end_job)

    def _end_job(self, job: "asyncio.Future[None]") -> None:
        """Take note of a job that ended; called once it has, by whoever sees it first."""
        if self._job is not job:
            return
        self._job, self._running_bytes = None, 0
        if job.cancelled():
            self._error = self._error or StorageError("The content store is closing.")
        elif (error := job.exception()) is not None:
            self._error = error if isinstance(error, StorageError) else StorageError(f"Writing content failed: {error}")
        elif self._waiting_bytes >= BATCH_BYTES:
            self._start_job()

    async def _wait_job(self) -> None:
        if self._job is None:
            self._start_job()
        job = self._job
        assert job is not None
        with contextlib.suppress(StorageError):  # Kept in self._error by _end_job.
            await asyncio.shield(job)
        # The job's callback may not have run yet, and will not as long as nothing here gives way to the event loop.
        self._end_job(job)

    async def _drain(self) -> None:
        """Wait until everything is in the file; raise what failed."""
        while self._job is not None or self._waiting:
            self._check()
            await self._wait_job()
        self._check()

    def _check(self) -> None:
        assert not self._done, "the writer is finished"
        if self._error is not None:
            raise self._error

    # ── in a thread ──────────────────────────────────────────────────────────────────────────────────────────────

    def _open(self) -> None:
        if self._descriptor < 0:
            self._path = self._place.temporary / ids.random_hex(16)
            self._descriptor = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)

    def _write_batch(self, batch: list[tuple[int, bytes]]) -> None:
        with storage_errors("Content could not be written"):
            self._open()
            for offset, data in _joined(batch, self._buffer):
                _write_all(self._descriptor, data, offset)
                if offset == self._digests.size_bytes:
                    self._digests.update(data)
                elif offset < self._digests.size_bytes:
                    self._digests.reset()  # What was hashed has changed: finish reads it again.
                self._write_back_behind(offset + len(data))

    def _write_back_behind(self, end: int) -> None:
        if end - self._written_back >= WRITE_BACK_BYTES:
            start_write_back(self._descriptor, self._written_back, end - self._written_back)
            self._written_back = end

    def _finish(self, size_bytes: int) -> Blob:
        with storage_errors("Content could not be made durable"):
            self._open()
            self._hash_rest(size_bytes)
            faults.reach("blobs.before-fsync")
            os.fdatasync(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1
            blob_id, path = self._place.new_path()
            assert self._path is not None
            faults.reach("blobs.before-rename")
            self._path.rename(path)
            self._path = None
            faults.reach("blobs.after-rename")
            self._place.directories.sync(path.parent)
            faults.reach("blobs.after-directory-fsync")
            return self._digests.blob(blob_id, None)

    def _hash_rest(self, size_bytes: int) -> None:
        """Hash what was not hashed while it streamed (out of order, rewritten, resumed)."""
        if self._digests.size_bytes > size_bytes:
            self._digests.reset()
        while (offset := self._digests.size_bytes) < size_bytes:
            piece = os.pread(self._descriptor, min(REREAD_BYTES, size_bytes - offset), offset)
            if not piece:
                raise StorageError(f"Content shrank to {offset} of {size_bytes} bytes while it was written.")
            self._digests.update(piece)

    def _append_file(self, source: Path, size_bytes: int, at: int) -> None:
        with storage_errors(f"Content {source.name} could not be copied"):
            self._open()
            descriptor = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
            try:
                _copy_range(descriptor, self._descriptor, size_bytes, at)
            finally:
                os.close(descriptor)
            self._hash_rest(at + size_bytes)
            self._write_back_behind(at + size_bytes)

    def _discard(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()
            self._path = None

    # ── the rest of the port ─────────────────────────────────────────────────────────────────────────────────────

    async def read(self, offset_bytes: int, length_bytes: int) -> bytes:
        self._check()
        length = max(0, min(length_bytes, self._size_bytes - offset_bytes))
        if self._memory is not None:
            return bytes(self._memory[offset_bytes : offset_bytes + length])
        if not length:
            return b""
        await self._drain()

        def run() -> bytes:
            with storage_errors("Content could not be read"):
                return os.pread(self._descriptor, length, offset_bytes)

        return await self._in_thread(run)

    async def truncate(self, size_bytes: int) -> None:
        self._check()
        if self._memory is not None and size_bytes <= self._inline_limit_bytes:
            del self._memory[size_bytes:]
            self._memory.extend(bytes(size_bytes - len(self._memory)))
            self._size_bytes = size_bytes
            return
        if self._memory is not None:
            self._spill()
        await self._drain()

        def run() -> None:
            with storage_errors("Content could not be truncated"):
                self._open()
                os.ftruncate(self._descriptor, size_bytes)
                if size_bytes < self._digests.size_bytes:
                    self._digests.reset()

        await self._in_thread(run)
        self._size_bytes = size_bytes

    async def flush(self) -> None:
        self._check()
        if self._memory is not None:
            self._spill()
        await self._drain()

        def run() -> None:
            with storage_errors("Content could not be made durable"):
                self._open()
                os.fdatasync(self._descriptor)

        await self._in_thread(run)

    async def finish(self) -> Blob:
        self._check()
        if self._memory is not None:
            self._done = True
            data = bytes(self._memory)
            self._digests.update(data)
            return self._digests.blob(None, data)
        await self._drain()
        blob = await self._in_thread(lambda: self._finish(self._size_bytes))
        self._done = True
        self._buffer = bytearray()
        return blob

    async def append_file(self, source: Path, size_bytes: int) -> None:
        """Add the content of a file at the end, inside the kernel where it can."""
        self._check()
        if self._memory is not None:
            self._spill()
        await self._drain()
        at = self._size_bytes
        await self._in_thread(lambda: self._append_file(source, size_bytes, at))
        self._size_bytes += size_bytes

    async def adopt(self, path: Path) -> None:
        """Go on with an existing file; raise FileNotFoundError."""

        def run() -> int:
            own = self._place.temporary / ids.random_hex(16)
            path.rename(own)
            self._path = own
            with storage_errors("Interrupted content could not be opened"):
                self._descriptor = os.open(own, os.O_RDWR | os.O_CLOEXEC)
                return os.fstat(self._descriptor).st_size

        self._memory = None
        self._size_bytes = await self._in_thread(run)

    async def park(self) -> str | None:
        if self._done or self._size_bytes == 0:
            await self.abort()
            return None
        if self._memory is not None:
            self._spill()
        try:
            await self._drain()
        except StorageError:
            await self.abort()
            return None
        name = ids.random_hex(16)

        def run() -> None:
            with storage_errors("Interrupted content could not be kept"):
                assert self._path is not None
                os.utime(self._descriptor)
                os.fdatasync(self._descriptor)  # Whoever resumes goes on at the size that was recorded.
                os.close(self._descriptor)
                self._descriptor = -1
                self._path.rename(self._place.parked / name)
                self._path = None
                fsync_directory(self._place.parked)

        await self._in_thread(run)
        self._done = True
        return name

    async def abort(self) -> None:
        self._done = True
        self._memory, self._waiting, self._waiting_bytes = None, [], 0
        while self._job is not None:
            await self._wait_job()
        if self._descriptor >= 0 or self._path is not None:
            await self._in_thread(self._discard)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._place.threads, work)


def _joined(batch: list[tuple[int, bytes]], buffer: bytearray) -> Iterator[tuple[int, bytes | memoryview]]:
    """Yield the batch with neighbouring writes joined: fewer and longer stretches without the GIL.

    The joined bytes are in `buffer`, valid until the next step. It is used again for each batch: memory that is
    fresh from the kernel costs more than the copy.
    """
    index = 0
    while index < len(batch):
        start, first = batch[index]
        end, after = start + len(first), index + 1
        while after < len(batch) and batch[after][0] == end:
            end, after = end + len(batch[after][1]), after + 1
        if after == index + 1:
            yield start, first
        else:
            if len(buffer) < end - start:
                buffer.extend(bytes(end - start - len(buffer)))
            with memoryview(buffer) as view:
                for offset, data in batch[index:after]:
                    view[offset - start : offset - start + len(data)] = data
                with view[: end - start] as joined:
                    yield start, joined
        index = after


def _write_all(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    written = os.pwrite(descriptor, data, offset)
    while written < len(data):
        written += os.pwrite(descriptor, memoryview(data)[written:], offset + written)


def _copy_range(source: int, target: int, size_bytes: int, at: int) -> None:
    copied = 0
    while copied < size_bytes:
        try:
            count = os.copy_file_range(source, target, size_bytes - copied, copied, at + copied)
        except OSError:
            if copied:
                raise
            count = 0
        if count == 0:
            break
        copied += count
    while copied < size_bytes:  # A file system that cannot copy inside the kernel.
        piece = os.pread(source, min(REREAD_BYTES, size_bytes - copied), copied)
        if not piece:
            raise StorageError(f"Content ends at byte {copied} of {size_bytes}. Run a scrub.")
        _write_all(target, piece, at + copied)
        copied += len(piece)
