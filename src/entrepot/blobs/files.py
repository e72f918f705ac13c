"""What the local store does with files: errors in its own words, shared fsyncs of directories, open files to read."""

import contextlib
import ctypes
import errno
import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path

from entrepot.errors import StorageError, StorageFullError

OPEN_FILES_LIMIT = 128
"""At most this many content files are kept open for reading."""

READ_BYTES = 1024 * 1024
"""Size of the pieces in which a whole file is read."""

_SYNC_FILE_RANGE_WRITE = 2
_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def storage_errors(what: str) -> Iterator[None]:
    """Turn an OSError into StorageFullError or StorageError that begins with `what`."""
    try:
        yield
    except OSError as error:
        raise storage_error(what, error) from error


def storage_error(what: str, error: OSError) -> StorageError:
    """Return what an OSError means to the caller."""
    if error.errno in _FULL:
        return StorageFullError(f"{what}: {error.strerror}. Free some space; writing works again then.")
    return StorageError(f"{what}: {error}")


def fsync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def digest_file(path: Path) -> tuple[bytes, int]:
    """Read a file and return its SHA-256 and size in bytes; raise StorageError."""
    sha256, size_bytes = hashlib.sha256(), 0
    with storage_errors(f"Content {path.name} could not be read"):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            # What the disk has counts, not what the kernel remembers of it.
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            while piece := os.read(descriptor, READ_BYTES):
                sha256.update(piece)
                size_bytes += len(piece)
        finally:
            os.close(descriptor)
    return sha256.digest(), size_bytes


class DirectorySync:
    """Makes names durable; callers that come while an fsync of the same directory runs share the next one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._turns: dict[Path, _Turn] = {}

    def sync(self, path: Path) -> None:
        """Return when every change made to the directory before this call is durable. Raises OSError."""
        with self._lock:
            turn = self._turns.setdefault(path, _Turn())
            turn.users += 1
            turn.asked += 1
            mine = turn.asked
        try:
            with turn.running:
                if turn.done >= mine:
                    return
                covered = turn.asked
                fsync_directory(path)
                turn.done = covered
        finally:
            with self._lock:
                turn.users -= 1
                if not turn.users:
                    del self._turns[path]


class _Turn:
    """The fsyncs of one directory: how many were asked for, and up to which one is done."""

    __slots__ = ("asked", "done", "running", "users")

    def __init__(self) -> None:
        self.asked = 0
        self.done = 0
        self.users = 0
        self.running = threading.Lock()


class Readers:
    """Open files of content, the latest used ones. Usable from any thread."""

    def __init__(self, path_of: Callable[[str], Path]) -> None:
        self._path_of = path_of
        self._lock = threading.Lock()
        self._open: OrderedDict[str, _Open] = OrderedDict()

    def read_cached(self, blob_id: str, offset_bytes: int, length_bytes: int) -> bytes | None:
        """Return the bytes if the file is open and the kernel has them in memory; never waits for the disk."""
        with self._lock:
            file = self._open.get(blob_id)
            if file is None:
                return None
            file.users += 1
        try:
            buffer = bytearray(length_bytes)
            count = os.preadv(file.descriptor, [buffer], offset_bytes, os.RWF_NOWAIT)
        except OSError:
            return None  # Not in memory, or a file system without RWF_NOWAIT.
        finally:
            self._leave(file)
        if count == length_bytes:
            return bytes(buffer)
        return None  # The end of the file, or the end of what is in memory: the slow way tells.

    def read(self, blob_id: str, offset_bytes: int, length_bytes: int) -> bytes:
        """Return up to `length_bytes`; fewer only at the end. Raises StorageError."""
        with storage_errors(f"Content {blob_id} could not be read"):
            file = self._enter(blob_id)
            try:
                data = os.pread(file.descriptor, length_bytes, offset_bytes)
                while len(data) < length_bytes:
                    more = os.pread(file.descriptor, length_bytes - len(data), offset_bytes + len(data))
                    if not more:
                        break
                    data += more
                return data
            finally:
                self._leave(file)

    def forget(self, blob_id: str) -> None:
        """Close the file once nobody reads it."""
        with self._lock:
            file = self._open.pop(blob_id, None)
            if file is not None:
                file.retire()

    def close(self) -> None:
        """Close all files."""
        with self._lock:
            while self._open:
                self._open.popitem()[1].retire()

    def _enter(self, blob_id: str) -> "_Open":
        with self._lock:
            file = self._open.get(blob_id)
            if file is not None:
                self._open.move_to_end(blob_id)
                file.users += 1
                return file
        descriptor = os.open(self._path_of(blob_id), os.O_RDONLY | os.O_CLOEXEC)
        with self._lock:
            file = self._open.get(blob_id)
            if file is not None:
                os.close(descriptor)
            else:
                file = self._open[blob_id] = _Open(descriptor)
                if len(self._open) > OPEN_FILES_LIMIT:
                    self._open.popitem(last=False)[1].retire()
            file.users += 1
            return file

    def _leave(self, file: "_Open") -> None:
        with self._lock:
            file.users -= 1
            if file.retired and not file.users:
                os.close(file.descriptor)


class _Open:
    """An open file and how many read it just now."""

    __slots__ = ("descriptor", "retired", "users")

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.users = 0
        self.retired = False

    def retire(self) -> None:
        """Close the file, now or when its last reader leaves. The caller holds the lock."""
        self.retired = True
        if not self.users:
            os.close(self.descriptor)


def _load_sync_file_range() -> Callable[[int, int, int, int], int] | None:
    try:
        function = ctypes.CDLL(None, use_errno=True).sync_file_range
    except (AttributeError, OSError):
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    function.restype = ctypes.c_int
    return function


_sync_file_range = _load_sync_file_range()


def start_write_back(descriptor: int, offset_bytes: int, length_bytes: int) -> None:
    """Ask the kernel to begin writing a range to the disk, so that the last fdatasync waits for little.

    Only a hint: it promises nothing, and a failure shows at fdatasync.
    """
    if _sync_file_range is not None:
        _sync_file_range(descriptor, offset_bytes, length_bytes, _SYNC_FILE_RANGE_WRITE)
