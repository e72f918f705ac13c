"""SFTP version 3 as bytes: packet types, a parser of requests, attributes, and replies.

Source: draft-ietf-secsh-filexfer-02, and OpenSSH's PROTOCOL for the extensions. Nothing here does I/O.
"""

import stat
import struct
import time
from dataclasses import dataclass
from typing import Final

from entrepot.sftp.status import bad_message

INIT: Final = 1
VERSION: Final = 2
OPEN: Final = 3
CLOSE: Final = 4
READ: Final = 5
WRITE: Final = 6
LSTAT: Final = 7
FSTAT: Final = 8
SETSTAT: Final = 9
FSETSTAT: Final = 10
OPENDIR: Final = 11
READDIR: Final = 12
REMOVE: Final = 13
MKDIR: Final = 14
RMDIR: Final = 15
REALPATH: Final = 16
STAT: Final = 17
RENAME: Final = 18
READLINK: Final = 19
SYMLINK: Final = 20
EXTENDED: Final = 200
STATUS: Final = 101
HANDLE: Final = 102
DATA: Final = 103
NAME: Final = 104
ATTRS: Final = 105
EXTENDED_REPLY: Final = 201

OPEN_READ: Final = 0x01
OPEN_WRITE: Final = 0x02
OPEN_APPEND: Final = 0x04
OPEN_CREATE: Final = 0x08
OPEN_TRUNCATE: Final = 0x10
OPEN_EXCLUSIVE: Final = 0x20

ATTR_SIZE: Final = 0x01
ATTR_UIDGID: Final = 0x02
ATTR_PERMISSIONS: Final = 0x04
ATTR_TIMES: Final = 0x08
ATTR_EXTENDED: Final = 0x80000000
EXTENDED_ATTRIBUTES_LIMIT: Final = 64

PROTOCOL_VERSION: Final = 3

FILE_MODE: Final = stat.S_IFREG | 0o644
FOLDER_MODE: Final = stat.S_IFDIR | 0o755
UID: Final = 1000
GID: Final = 1000
"""Objects have no owner or mode; clients are shown these, so that they take files for theirs."""

_U32: Final = struct.Struct(">I")
_U64: Final = struct.Struct(">Q")
_ATTRS: Final = struct.Struct(">IQIIIII")
_HEADER: Final = struct.Struct(">IBI")
_STATUS: Final = struct.Struct(">IBII")
_STATUS_OK: Final = struct.Struct(">IBIIII")


class Fields:
    """Reads the fields of one request in order; raises BAD_MESSAGE where they do not fit."""

    __slots__ = ("_body", "_offset")

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._offset = 0

    def u32(self) -> int:
        offset = self._offset
        self._offset = offset + 4
        if self._offset > len(self._body):
            raise bad_message("The request is too short")
        return int(_U32.unpack_from(self._body, offset)[0])

    def u64(self) -> int:
        offset = self._offset
        self._offset = offset + 8
        if self._offset > len(self._body):
            raise bad_message("The request is too short")
        return int(_U64.unpack_from(self._body, offset)[0])

    def string(self) -> bytes:
        length = self.u32()
        offset = self._offset
        self._offset = offset + length
        if self._offset > len(self._body):
            raise bad_message("The request is too short")
        return self._body[offset : self._offset]

    def attributes(self) -> "Attributes":
        """Parse ATTRS; extended attributes are passed over."""
        flags = self.u32()
        size = self.u64() if flags & ATTR_SIZE else None
        if flags & ATTR_UIDGID:
            self.u32()
            self.u32()
        if flags & ATTR_PERMISSIONS:
            self.u32()
        mtime_s = None
        if flags & ATTR_TIMES:
            self.u32()
            mtime_s = self.u32()
        if flags & ATTR_EXTENDED:
            count = self.u32()
            if count > EXTENDED_ATTRIBUTES_LIMIT:
                raise bad_message("Too many extended attributes")
            for _ in range(count):
                self.string()
                self.string()
        return Attributes(size, mtime_s)


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a client asks to set and can be kept: owner and mode are accepted and mean nothing here."""

    size_bytes: int | None
    mtime_s: int | None


@dataclass(frozen=True, slots=True)
class Stat:
    """What a client is told of a file or folder."""

    is_folder: bool
    size_bytes: int
    mtime_s: int

    def encode(self) -> bytes:
        """Return ATTRS."""
        mode = FOLDER_MODE if self.is_folder else FILE_MODE
        time_s = min(max(self.mtime_s, 0), 0xFFFFFFFF)
        flags = ATTR_SIZE | ATTR_UIDGID | ATTR_PERMISSIONS | ATTR_TIMES
        return _ATTRS.pack(flags, self.size_bytes, UID, GID, mode, time_s, time_s)


def string(data: bytes) -> bytes:
    """Return a string field."""
    return _U32.pack(len(data)) + data


def packet(kind: int, request_id: int, body: bytes) -> bytes:
    """Return a reply with its length."""
    return _HEADER.pack(len(body) + 5, kind, request_id) + body


def status(request_id: int, code: int, text: str) -> bytes:
    """Return a STATUS reply."""
    message = text.encode("utf-8", "replace")[:1024]
    return packet(STATUS, request_id, _U32.pack(code) + string(message) + string(b"en"))


def status_ok(request_id: int) -> bytes:
    """Return the STATUS reply for success, the most frequent one."""
    return _STATUS_OK.pack(17, STATUS, request_id, 0, 0, 0)


def data(request_id: int, content: bytes) -> bytes:
    """Return a DATA reply."""
    return _STATUS.pack(len(content) + 9, DATA, request_id, len(content)) + content


def names(request_id: int, entries: list[tuple[bytes, Stat]], user: str, now_s: int) -> bytes:
    """Return a NAME reply with long names as `ls -l` prints them."""
    owner = f"{user[:32]:<8}"
    pieces = [_U32.pack(len(entries))]
    for name, entry in entries:
        long_name = _long_prefix(entry, owner, now_s) + name
        pieces += (string(name), string(long_name), entry.encode())
    return packet(NAME, request_id, b"".join(pieces))


def realpath(request_id: int, path: bytes) -> bytes:
    """Return the NAME reply to REALPATH: one name, without attributes."""
    return packet(NAME, request_id, _U32.pack(1) + string(path) + string(path) + _U32.pack(0))


_SIX_MONTHS_S: Final = 180 * 24 * 3600


def _long_prefix(entry: Stat, owner: str, now_s: int) -> bytes:
    recent = -_SIX_MONTHS_S < entry.mtime_s - now_s < _SIX_MONTHS_S
    when = time.strftime("%b %e %H:%M" if recent else "%b %e  %Y", time.gmtime(entry.mtime_s))
    mode = "drwxr-xr-x" if entry.is_folder else "-rw-r--r--"
    return f"{mode}    1 {owner} {owner} {entry.size_bytes:>12} {when} ".encode()
