"""Content in local files: `content/ab/cd/<blob id>`, written once.

New content streams to `temporary/<process>/` and is hashed on the way, beside the event loop. `finish` makes it durable
(fdatasync), gives it its name (rename) and makes the name durable (fsync of the directory): content that has a name is
whole, whatever happens. `parked/` keeps interrupted uploads.
"""

import asyncio
import contextlib
import fcntl
import os
import shutil
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from entrepot import clock, ids
from entrepot.blobs import Blob, BlobWriter
from entrepot.blobs.files import DirectorySync, Readers, digest_file, storage_errors
from entrepot.blobs.writer import LocalBlobWriter, Place
from entrepot.errors import StorageError

INLINE_LIMIT_BYTES = 32_768
"""Content up to this size rides in the ledger's row: one fsync for both (measured: docs/decisions/0002)."""

STREAM_PIECE_BYTES = 262_144
"""Size of the pieces that `stream` yields."""

PARKED_LIFETIME_MS = 24 * 60 * 60 * 1000
"""Interrupted uploads can be resumed for this long."""

THREADS = 4
"""Threads that write, hash and sync; each piece of work releases the GIL for most of its time."""

DIRECTORY_SECONDS = 256
"""All content finished within this many seconds shares a directory, so that concurrent uploads share its fsync."""


class LocalBlobStore:
    """A `BlobStore` in the folder `root`. Several processes may share it."""

    def __init__(self, root: Path, *, inline_limit_bytes: int = INLINE_LIMIT_BYTES) -> None:
        self._root = root
        self._inline_limit_bytes = inline_limit_bytes
        self._content, self._parked = root / "content", root / "parked"
        self._temporary_root = root / "temporary"
        with storage_errors(f"The content store {root} could not be opened"):
            for folder in (self._content, self._parked, self._temporary_root):
                folder.mkdir(parents=True, exist_ok=True)
            self._lock, self._temporary = _own_folder(self._temporary_root)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="blobs")
        self._directories = DirectorySync()
        self._readers = Readers(self._path)

    # ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────

    def create(self, *, md5: bool = False, crc32: bool = False) -> LocalBlobWriter:
        return LocalBlobWriter(self._place(), inline_limit_bytes=self._inline_limit_bytes, md5=md5, crc32=crc32)

    async def resume(self, parked: str, *, md5: bool = False) -> BlobWriter:
        if "/" in parked or not parked:
            raise FileNotFoundError(parked)
        writer = LocalBlobWriter(self._place(), inline_limit_bytes=self._inline_limit_bytes, md5=md5)
        await writer.adopt(self._parked / parked)
        return writer

    def _place(self) -> Place:
        return Place(self._temporary, self._parked, self._new_path, self._directories, self._threads)

    def _new_path(self) -> tuple[str, Path]:
        slot = (clock.now_ms() // (DIRECTORY_SECONDS * 1000)) & 0xFFFF
        blob_id = f"{slot:04x}{ids.random_hex(14)}"
        path = self._path(blob_id)
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._directories.sync(path.parent.parent)
            self._directories.sync(self._content)
        return blob_id, path

    async def concatenate(self, blobs: list[Blob]) -> Blob:
        writer = LocalBlobWriter(self._place(), inline_limit_bytes=self._inline_limit_bytes)
        try:
            for blob in blobs:
                if blob.blob_id is None:
                    assert blob.inline is not None
                    await writer.write(writer.size_bytes, blob.inline)
                else:
                    await writer.append_file(self._path(blob.blob_id), blob.size_bytes)
            return await writer.finish()
        except BaseException:
            await writer.abort()
            raise

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def read(self, blob_id: str, offset_bytes: int, length_bytes: int) -> bytes:
        cached = self._readers.read_cached(blob_id, offset_bytes, length_bytes)
        if cached is not None:
            return cached
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._readers.read, blob_id, offset_bytes, length_bytes)

    async def stream(self, blob_id: str, offset_bytes: int, length_bytes: int) -> AsyncIterator[bytes]:
        end = offset_bytes + length_bytes
        while offset_bytes < end:
            piece = await self.read(blob_id, offset_bytes, min(STREAM_PIECE_BYTES, end - offset_bytes))
            if not piece:
                raise StorageError(f"Content {blob_id} ends at byte {offset_bytes}, before byte {end}. Run a scrub.")
            offset_bytes += len(piece)
            yield piece

    async def digest(self, blob_id: str) -> tuple[bytes, int]:
        return await asyncio.get_running_loop().run_in_executor(self._threads, digest_file, self._path(blob_id))

    def exists(self, blob_id: str) -> bool:
        return self._path(blob_id).exists()

    def _path(self, blob_id: str) -> Path:
        return self._content / blob_id[:2] / blob_id[2:4] / blob_id

    # ── housekeeping ─────────────────────────────────────────────────────────────────────────────────────────────

    async def remove(self, blob_id: str) -> None:
        def run() -> None:
            with storage_errors(f"Content {blob_id} could not be deleted"), contextlib.suppress(FileNotFoundError):
                self._path(blob_id).unlink()

        self._readers.forget(blob_id)
        await asyncio.get_running_loop().run_in_executor(self._threads, run)

    async def list_ids(self, *, older_than_ms: int) -> AsyncIterator[list[str]]:
        loop = asyncio.get_running_loop()
        for first in await loop.run_in_executor(self._threads, _names, self._content):
            for second in await loop.run_in_executor(self._threads, _names, self._content / first):
                folder = self._content / first / second
                found = await loop.run_in_executor(self._threads, _older_than, folder, older_than_ms)
                for start in range(0, len(found), 500):
                    yield found[start : start + 500]

    async def sweep(self) -> int:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._sweep)

    def _sweep(self) -> int:
        removed = _remove_dead_folders(self._temporary_root)
        expired_ms = clock.now_ms() - PARKED_LIFETIME_MS
        for name in _older_than(self._parked, expired_ms):
            with contextlib.suppress(FileNotFoundError):
                (self._parked / name).unlink()
                removed += 1
        return removed

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(None, self._threads.shutdown)
        self._readers.close()
        shutil.rmtree(self._temporary, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            self._temporary.with_suffix(".lock").unlink()
        os.close(self._lock)


def _names(folder: Path) -> list[str]:
    with storage_errors(f"{folder} could not be listed"):
        return sorted(entry.name for entry in folder.iterdir())


def _older_than(folder: Path, at_ms: int) -> list[str]:
    found = []
    with storage_errors(f"{folder} could not be listed"), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                if entry.stat().st_mtime_ns // 1_000_000 < at_ms:
                    found.append(entry.name)
    return found


def _own_folder(root: Path) -> tuple[int, Path]:
    """Make this process's folder for unfinished content; its lock lives as long as the process."""
    while True:
        name = ids.random_hex(8)
        lock = root / f"{name}.lock"
        descriptor = os.open(lock, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if lock.stat().st_ino == os.fstat(descriptor).st_ino:
                folder = root / name
                folder.mkdir()
                return descriptor, folder
        except (BlockingIOError, FileNotFoundError):
            pass  # Another process sweeps just now and took the new lock for a dead one's: take another name.
        os.close(descriptor)


def _remove_dead_folders(root: Path) -> int:
    """Delete the folders whose lock nobody holds; return how many files were in them."""
    removed = 0
    for lock in root.glob("*.lock"):
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass
        else:
            folder = lock.with_suffix("")
            removed += sum(1 for _ in folder.glob("*"))
            shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(FileNotFoundError):
                lock.unlink()
        finally:
            os.close(descriptor)
    return removed
