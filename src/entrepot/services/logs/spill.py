"""Lines that wait on disk for the writer, in order, when those in memory are too many.

A file of records that are appended and read once; how far it has been read is kept in the log store, in the same transaction
as what was read, so that a crash neither loses nor repeats a line that reached the file. A file that has been read to its end
is replaced by one of the next generation.
"""

import contextlib
import logging
import os
import struct
from pathlib import Path
from typing import BinaryIO, TypeAlias

import msgspec

Line: TypeAlias = tuple[str, str, int, str, int]
"""Group, stream, timestamp in milliseconds, message, and what it costs in memory."""

_HEAD = struct.Struct("<I")
_decode = msgspec.msgpack.Decoder(tuple[str, str, int, str, int]).decode
_encode = msgspec.msgpack.Encoder().encode
_log = logging.getLogger("entrepot.logs")

RECORD_LIMIT_BYTES = 8 << 20
"""No record is longer; what says so is not one."""


class Spill:
    """The spilled lines beside the log store `path`. The store's lock guards `put` and `flush`; one thread reads."""

    def __init__(self, path: Path, limit_bytes: int) -> None:
        self._path = path
        self._limit = limit_bytes
        self._file: BinaryIO | None = None
        self._end = 0
        self._broken = False
        self.generation = 0
        self.offset = 0
        """How far the file of `generation` has been read, in the newest committed transaction."""

    def open(self, generation: int, offset: int) -> None:
        """Take up what an earlier process left, of which `generation` was read up to `offset`."""
        self.generation, self.offset = generation, offset
        for old in self._path.parent.glob(f"{self._path.name}.spill-*"):
            number = old.suffix.removeprefix(".spill-")
            read = offset if number == str(generation) else 0
            if not number.isdigit() or int(number) < generation or _whole_records(old, read) <= read:
                old.unlink()
                continue
            self.generation, self.offset, self._end = int(number), read, _whole_records(old, read)
            os.truncate(old, self._end)
            _log.warning("%d bytes of log lines wait in %s from the last run.", self.waiting_bytes, old)

    @property
    def _name(self) -> Path:
        return self._path.with_name(f"{self._path.name}.spill-{self.generation}")

    @property
    def waiting_bytes(self) -> int:
        """Bytes that have not been read."""
        return self._end - self.offset

    def put(self, line: Line) -> bool:
        """Append a line; False when there is no room, or the disk takes nothing."""
        try:
            record = _encode(line)
        except UnicodeEncodeError:  # a lone surrogate
            record = _encode((*line[:3], line[3].encode(errors="replace").decode(), line[4]))
        if (
            self._broken
            or self.waiting_bytes + len(record) + _HEAD.size > self._limit
            or len(record) > RECORD_LIMIT_BYTES
        ):
            return False
        try:
            if self._file is None:
                self._file = self._name.open("ab", buffering=1 << 18)
                self._end = self._file.tell()
            self._file.write(_HEAD.pack(len(record)))
            self._file.write(record)
        except OSError as error:
            self._fail(error)
            return False
        self._end += len(record) + _HEAD.size
        return True

    def _fail(self, error: OSError) -> None:
        """Take no more until what is in the file has been read: it may end within a record."""
        _log.error("Log lines cannot be kept in %s: %s. Free disk space.", self._name, error)
        self.close()
        self._broken = True
        with contextlib.suppress(OSError):
            self._end = self._name.stat().st_size

    def flush(self) -> int:
        """Hand everything to the file system; return up to where `take` may read."""
        if self._file is not None:
            try:
                self._file.flush()
            except OSError as error:
                self._fail(error)
        return self._end

    def take(self, count: int, end: int) -> tuple[list[Line], int]:
        """Return up to `count` lines, and the offset after them."""
        lines: list[Line] = []
        at = self.offset
        with self._name.open("rb") as file:
            file.seek(at)
            while len(lines) < count and at < end:
                head = file.read(_HEAD.size)
                size = _HEAD.unpack(head)[0] if len(head) == _HEAD.size else 0
                record = file.read(size) if 0 < size <= RECORD_LIMIT_BYTES else b""
                try:
                    lines.append(_decode(record))
                except msgspec.DecodeError:  # the end of what a crash left half written
                    _log.warning("%d bytes at the end of %s are no log lines.", end - at, self._name)
                    return lines, end
                at += _HEAD.size + size
        return lines, at

    def done(self, offset: int) -> None:
        """Forget what was read up to `offset`, which is in the store now; the store's lock is held."""
        self.offset = offset
        if offset >= self._end:
            self.close()
            self._broken = False
            self._name.unlink(missing_ok=True)
            self.generation, self.offset, self._end = self.generation + 1, 0, 0

    def close(self) -> None:
        """Close the file; what has not been read stays for the next process."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None


def _whole_records(path: Path, offset: int) -> int:
    """Return where the last whole record of a file ends."""
    size = path.stat().st_size
    with path.open("rb") as file:
        while True:
            file.seek(offset)
            head = file.read(_HEAD.size)
            end = offset + _HEAD.size + (_HEAD.unpack(head)[0] if len(head) == _HEAD.size else size)
            if end > size:
                return offset
            offset = end
