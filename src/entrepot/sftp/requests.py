"""SFTP's requests: one small function each, from the fields of the packet to the bytes of the reply."""

import asyncio
import logging
import os
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from entrepot import clock
from entrepot.blobs import BlobWriter
from entrepot.errors import AwsError, StorageError
from entrepot.services.transfer import OpenFile as Transferring
from entrepot.services.transfer import partials
from entrepot.services.transfer.partials import PartialUpload
from entrepot.sftp import tree, wire
from entrepot.sftp.downloads import Download
from entrepot.sftp.listing import Listing
from entrepot.sftp.paths import LocatedPlace, Place
from entrepot.sftp.session import Session
from entrepot.sftp.settings import READ_LIMIT_BYTES, SFTP_PACKET_LIMIT_BYTES, WRITE_LIMIT_BYTES
from entrepot.sftp.status import EOF, OP_UNSUPPORTED, StatusError, bad_message, failure, no_such_file, permission_denied
from entrepot.sftp.uploads import Upload
from entrepot.sftp.wire import Fields, Stat

logger = logging.getLogger(__name__)

COPY_BLOCK_BYTES: Final = 1 << 20

EXTENSIONS: Final = (
    (b"posix-rename@openssh.com", b"1"),
    (b"statvfs@openssh.com", b"2"),
    (b"fstatvfs@openssh.com", b"2"),
    (b"fsync@openssh.com", b"1"),
    (b"lsetstat@openssh.com", b"1"),
    (b"limits@openssh.com", b"1"),
    (b"copy-data", b"1"),
)
"""What the VERSION packet offers (OpenSSH's PROTOCOL; copy-data: draft-ietf-secsh-filexfer-extensions-00)."""

OpenFile: TypeAlias = Upload | Download | Listing


@dataclass(slots=True)
class Closing:
    """A CLOSE that waits for the disk. `before` is an earlier one for the same file: the later CLOSE is to win."""

    upload: Upload
    done: Callable[[], None]
    before: "asyncio.Task[None] | None"
    task: "asyncio.Task[None] | None" = field(default=None)


class OpenFiles:
    """The handles of one channel, and the CLOSEs under way."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._files: dict[bytes, OpenFile] = {}
        self._next = 0
        self._closing: dict[LocatedPlace, Closing] = {}

    @property
    def open_count(self) -> int:
        """How many handles are open, and CLOSEs under way."""
        return len(self._files) + len(self._closing)

    @property
    def is_closing(self) -> bool:
        """Whether a CLOSE waits for the disk."""
        return bool(self._closing)

    @property
    def open_uploads(self) -> int:
        """How many files are open for writing, or waiting for the disk."""
        return sum(isinstance(file, Upload) for file in self._files.values()) + len(self._closing)

    def transfers(self) -> list[Transferring]:
        """Return the files that are being read or written, those on their way to the disk too."""
        found = []
        for file in (*self._files.values(), *(closing.upload for closing in self._closing.values())):
            if isinstance(file, Upload):
                found.append(Transferring(file.place.object_path, "in", file.bytes_in))
            elif isinstance(file, Download):
                found.append(Transferring(file.place.object_path, "out", file.bytes_out))
        return found

    def add(self, file: OpenFile) -> bytes:
        """Return a handle for the file; raise FAILURE when there are too many."""
        self._next = (self._next + 1) & 0xFFFFFFFF
        handle = self._next.to_bytes(4, "big")
        self._files[handle] = file
        return handle

    def check_room(self) -> None:
        """Raise FAILURE when no more handles may be opened."""
        limit = self.session.site.settings.handles_per_session
        if self.open_count >= limit:
            raise failure(f"{limit} files are open in this session already; close some")
        if self.session.site.is_draining():
            raise failure("The server is about to stop; connect again")

    def get(self, handle: bytes) -> OpenFile:
        """Return the open file; raise FAILURE for an unknown handle."""
        file = self._files.get(handle)
        if file is None:
            raise failure("Invalid handle")
        return file

    def upload_at(self, at: LocatedPlace) -> Upload | None:
        """Return this channel's own open upload for a place, which its client may ask about before CLOSE."""
        for file in self._files.values():
            if isinstance(file, Upload) and file.at == at:
                return file
        return None

    def close(self, handle: bytes) -> Closing | None:
        """Take the handle away; return what must be waited for, None when it is done."""
        file = self.get(handle)
        del self._files[handle]
        if isinstance(file, Upload):
            earlier = self._closing.get(file.at)
            before = earlier.task if earlier is not None else None
            closing = Closing(file, lambda: self._settled(file.at, closing), before)
            self._closing[file.at] = closing
            return closing
        if isinstance(file, Download):
            file.close()
        return None

    def _settled(self, at: LocatedPlace, closing: Closing) -> None:
        if self._closing.get(at) is closing:
            del self._closing[at]

    async def settle(self, at: LocatedPlace | None = None) -> None:
        """Wait for the CLOSEs under way (of one place, or all): what follows must see their effect."""
        if not self._closing:
            return
        waiting = list(self._closing.values()) if at is None else [c for p, c in self._closing.items() if p == at]
        tasks = [closing.task for closing in waiting if closing.task is not None]
        if tasks:
            await asyncio.wait(tasks)

    async def drop(self) -> None:
        """The connection is gone: nothing of what is open becomes visible."""
        files, self._files = list(self._files.values()), {}
        for file in files:
            if isinstance(file, Upload):
                try:
                    await file.drop()
                except (AwsError, StorageError):
                    logger.exception("A cut-off upload of %s was not kept for resuming", file.place.object_path)
            elif isinstance(file, Download):
                file.drop()

    def place(self, raw: bytes) -> Place:
        """Return where a path of the wire leads."""
        home = self.session.home
        return home.place(home.parse(raw))


Handler: TypeAlias = Callable[[OpenFiles, int, Fields], Awaitable[bytes]]

_WRITE: Final = struct.Struct(">I4sQI")


async def write(files: OpenFiles, body: bytes) -> None:
    """WRITE: the most frequent request, unpacked in one go."""
    if len(body) < 20:
        raise bad_message("The request is too short")
    handle_length, handle, offset_bytes, length = _WRITE.unpack_from(body)
    if handle_length != 4:
        raise failure("Invalid handle")
    if length > len(body) - 20:
        raise bad_message("The request is shorter than its data")
    file = files.get(handle)
    if not isinstance(file, Upload):
        raise permission_denied("The file is not open for writing")
    if length:
        # Like OpenSSH, ignore what follows the data: rclone's last packet of a file carries the whole of its buffer.
        await file.write(offset_bytes, body[20 : 20 + length])


async def read(files: OpenFiles, request_id: int, fields: Fields) -> bytes:
    """READ"""
    file, offset_bytes = files.get(fields.string()), fields.u64()
    length_bytes = min(fields.u32(), READ_LIMIT_BYTES)
    if isinstance(file, Listing) or (isinstance(file, Upload) and not file.readable):
        raise permission_denied("The file is not open for reading")
    content = await file.read(offset_bytes, length_bytes)
    if not content and length_bytes:
        return wire.status(request_id, EOF, "End of file")
    return wire.data(request_id, content)


# ── open ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def open_file(files: OpenFiles, request_id: int, fields: Fields) -> bytes:
    """OPEN"""
    raw, flags = fields.string(), fields.u32()
    attributes = fields.attributes()
    files.check_room()
    place = files.place(raw)
    if raw.endswith(b"/"):
        raise failure("Is a directory")
    if place.bucket is None or not place.key or place.fixed:
        raise failure("Is a directory")
    await files.settle(place.located())
    writes = bool(flags & (wire.OPEN_WRITE | wire.OPEN_APPEND))
    file: OpenFile = await (_open_write(files, place, flags) if writes else _open_read(files, place))
    if isinstance(file, Upload) and attributes.mtime_s is not None:
        file.set_mtime(attributes.mtime_s)
    return wire.packet(wire.HANDLE, request_id, wire.string(files.add(file)))


async def _open_read(files: OpenFiles, place: Place) -> Download:
    session, at = files.session, place.located()
    decision = session.require("OPEN", place, "s3:GetObject", at.bucket, at.key)
    found = await tree.look(session, at, content=True)
    if found.version is None:
        raise failure("Is a directory") if found.is_folder else no_such_file()
    session.log("OPEN", path=place.object_path, mode="READ", statement=decision.statement)
    return Download(session, place, found.version)


async def _open_write(files: OpenFiles, place: Place, flags: int) -> Upload:
    session, at = files.session, place.located()
    decision = session.require("OPEN", place, "s3:PutObject", at.bucket, at.key)
    found = await tree.look(session, at)
    if found.is_folder:
        raise failure("Is a directory")
    exists = found.version is not None
    creates, truncates = bool(flags & wire.OPEN_CREATE), bool(flags & wire.OPEN_TRUNCATE)
    exclusive = creates and bool(flags & wire.OPEN_EXCLUSIVE)
    if exclusive and exists:
        raise failure("The file exists already")
    resumes = not exists and not truncates and not exclusive and found.partial is not None
    if not exists and not creates and not resumes:
        raise no_such_file()
    keeps = exists and not truncates
    if keeps or flags & wire.OPEN_READ:
        # What is kept, or can be read through this handle, is read on the user's behalf.
        session.require("OPEN", place, "s3:GetObject", at.bucket, at.key)
    upload = Upload(
        session,
        place,
        base=found.version if keeps else None,
        created=not keeps,
        exclusive=exclusive,
        append=bool(flags & wire.OPEN_APPEND),
        readable=bool(flags & wire.OPEN_READ),
        partial=found.partial,
        writer=await _resume(session, found.partial) if resumes and found.partial is not None else None,
    )
    session.log("OPEN", path=place.object_path, mode=_mode(flags), statement=decision.statement)
    return upload


async def _resume(session: Session, partial: PartialUpload) -> BlobWriter:
    """Take the parked content over.

    A client that saw its size writes from there on: were it gone, a hole would be published. So this is refused, and with
    the record gone too, the client's next attempt starts anew.
    """
    at_bucket, at_key = partial.bucket, partial.key
    await session.site.database.write(lambda tx: partials.remove(tx, at_bucket, at_key, session.user.user_name))
    try:
        writer = await session.site.blobs.resume(partial.parked)
    except FileNotFoundError:
        raise failure("The interrupted upload is not there any more; upload the file from its beginning") from None
    if writer.size_bytes != partial.size_bytes:
        await writer.abort()
        raise failure("The interrupted upload is damaged; upload the file from its beginning")
    return writer


def _mode(flags: int) -> str:
    names = ("READ", "WRITE", "APPEND", "CREATE", "TRUNCATE", "EXCLUSIVE")
    return "|".join(sorted(name for bit, name in enumerate(names) if flags & (1 << bit)))


# ── attributes ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _stat_of(file: OpenFile) -> Stat:
    match file:
        case Upload():
            return Stat(False, file.size_bytes, file.mtime_s)
        case Download():
            return Stat(False, file.version.size_bytes, file.version.mtime_ms // 1000)
        case Listing():
            return tree.A_FOLDER


async def stat(files: OpenFiles, request_id: int, fields: Fields) -> bytes:
    """STAT and LSTAT: there are no links."""
    place = files.place(fields.string())
    await files.settle()
    found: Stat | None = None
    if place.bucket is not None and (upload := files.upload_at(place.located())) is not None:
        found = _stat_of(upload)
    if found is None:
        found = await tree.stat(files.session, place)
    return wire.packet(wire.ATTRS, request_id, found.encode())


async def fstat(files: OpenFiles, request_id: int, fields: Fields) -> bytes:
    """FSTAT"""
    return wire.packet(wire.ATTRS, request_id, _stat_of(files.get(fields.string())).encode())


async def setstat(files: OpenFiles, request_id: int, fields: Fields) -> bytes:
    """SETSTAT and lsetstat@openssh.com"""
    place, attributes = files.place(fields.string()), fields.attributes()
    await files.settle()
    upload = files.upload_at(place.located()) if place.bucket is not None else None
    if upload is not None:
        await _set(upload, attributes)
    else:
        await tree.set_attributes(files.session, place, attributes)
    return wire.status_ok(request_id)


async def fsetstat(files: OpenFiles, request_id: int, fields: Fields) -> bytes:
    """FSETSTAT: on an open upload it costs nothing, CLOSE commits it."""
    file, attributes = files.get(fields.string()), fields.attributes()
    if isinstance(file, Upload):
        await _set(file, attributes)
    elif isinstance(file, Download):
        await tree.set_attributes(files.session, file.place, attributes)
    return wire.status_ok(request_id)


async def _set(upload: Upload, attributes: wire.Attributes) -> None:
    if attributes.size_bytes is not None:
        await upload.truncate(attributes.size_bytes)
    if attributes.mtime_s is not None:
        upload.set_mtime(attributes.mtime_s)


# ── folders and names ────────────────────────────────────────────────────────────────────────────────────────────────


async def opendir(files: OpenFiles, request_id: int, fields: Fields) -> bytes:
    """OPENDIR"""
    place = files.place(fields.string())
    files.check_room()
    await files.settle()
    if place.bucket is not None:
        files.session.require_list("OPENDIR", place, place.folder)
        if not place.fixed:
            found = await tree.look(files.session, place.located())
            if not found.is_folder:
                raise no_such_file() if found.version is None else failure("Not a directory")
    return wire.packet(wire.HANDLE, request_id, wire.string(files.add(Listing(files.session, place))))


async def readdir(files: OpenFiles, request_id: int, fields: Fields) -> bytes:
    """READDIR"""
    file = files.get(fields.string())
    if not isinstance(file, Listing):
        raise failure("The handle is not a folder's")
    page = await file.page()
    if not page:
        return wire.status(request_id, EOF, "End of directory")
    return wire.names(request_id, page, files.session.user.user_name, clock.now_ms() // 1000)


async def mkdir(files: OpenFiles, request_id: int, fields: Fields) -> bytes:
    """MKDIR"""
    place = files.place(fields.string())
    await files.settle()
    await tree.make_folder(files.session, place)
    return wire.status_ok(request_id)


async def rmdir(files: OpenFiles, request_id: int, fields: Fields) -> bytes:
    """RMDIR"""
    place = files.place(fields.string())
    await files.settle()
    await tree.remove_folder(files.session, place)
    return wire.status_ok(request_id)


async def remove(files: OpenFiles, request_id: int, fields: Fields) -> bytes:
    """REMOVE"""
    place = files.place(fields.string())
    await files.settle()
    await tree.remove_file(files.session, place)
    return wire.status_ok(request_id)


async def rename(files: OpenFiles, request_id: int, fields: Fields) -> bytes:
    """RENAME: an existing target is an error."""
    return await _rename(files, request_id, fields, replace=False)


async def posix_rename(files: OpenFiles, request_id: int, fields: Fields) -> bytes:
    """posix-rename@openssh.com: an existing target file is replaced."""
    return await _rename(files, request_id, fields, replace=True)


async def _rename(files: OpenFiles, request_id: int, fields: Fields, *, replace: bool) -> bytes:
    source, target = files.place(fields.string()), files.place(fields.string())
    await files.settle()
    await tree.rename(files.session, source, target, replace=replace)
    return wire.status_ok(request_id)


async def realpath(files: OpenFiles, request_id: int, fields: Fields) -> bytes:
    """REALPATH: the canonical path, whether or not something is there."""
    return wire.realpath(request_id, files.session.home.parse(fields.string()).encode())


# ── extensions ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def extended(files: OpenFiles, request_id: int, fields: Fields) -> bytes:
    """EXTENDED: by name."""
    handler = _EXTENDED.get(fields.string())
    if handler is None:
        raise StatusError(OP_UNSUPPORTED, "Operation not supported")
    return await handler(files, request_id, fields)


async def fsync(files: OpenFiles, request_id: int, fields: Fields) -> bytes:
    """fsync@openssh.com: what was written is durable; it is not visible before CLOSE."""
    file = files.get(fields.string())
    if isinstance(file, Upload):
        await file.flush()
    return wire.status_ok(request_id)


async def limits(files: OpenFiles, request_id: int, fields: Fields) -> bytes:
    """limits@openssh.com"""
    handles = files.session.site.settings.handles_per_session
    body = struct.pack(">QQQQ", SFTP_PACKET_LIMIT_BYTES, READ_LIMIT_BYTES, WRITE_LIMIT_BYTES, handles)
    return wire.packet(wire.EXTENDED_REPLY, request_id, body)


async def statvfs(files: OpenFiles, request_id: int, fields: Fields) -> bytes:
    """statvfs@openssh.com: the store's file system."""
    files.place(fields.string())
    return _statvfs(files, request_id)


async def fstatvfs(files: OpenFiles, request_id: int, fields: Fields) -> bytes:
    """fstatvfs@openssh.com"""
    files.get(fields.string())
    return _statvfs(files, request_id)


def _statvfs(files: OpenFiles, request_id: int) -> bytes:
    folder = files.session.site.storage_folder
    if folder is None:
        raise StatusError(OP_UNSUPPORTED, "The store has no limit of its own")
    v = os.statvfs(folder)
    body = struct.pack(
        ">11Q", v.f_bsize, v.f_frsize, v.f_blocks, v.f_bfree, v.f_bavail, v.f_files, v.f_ffree, v.f_favail, 0, 0x2, 255
    )
    return wire.packet(wire.EXTENDED_REPLY, request_id, body)


async def copy_data(files: OpenFiles, request_id: int, fields: Fields) -> bytes:
    """copy-data: from one open file into another, without going through the client. Length 0 means to the end."""
    source, offset_bytes, length_bytes = files.get(fields.string()), fields.u64(), fields.u64()
    target, target_offset_bytes = files.get(fields.string()), fields.u64()
    if isinstance(source, Listing) or not isinstance(target, Upload):
        raise permission_denied("Copying needs one file open for reading and one open for writing")
    if isinstance(source, Upload) and not source.readable:
        raise permission_denied("The source is not open for reading")
    if source is target:
        raise failure("A file cannot be copied into itself")
    if isinstance(source, Upload):
        source.check_holes()
    left = length_bytes or None
    while left is None or left > 0:
        block = await source.read(offset_bytes, COPY_BLOCK_BYTES if left is None else min(left, COPY_BLOCK_BYTES))
        if not block:
            break
        await target.write(target_offset_bytes, block)
        offset_bytes += len(block)
        target_offset_bytes += len(block)
        left = None if left is None else left - len(block)
    return wire.status_ok(request_id)


async def unsupported(files: OpenFiles, request_id: int, fields: Fields) -> bytes:
    """READLINK, SYMLINK and hardlink@openssh.com: objects have no links."""
    raise StatusError(OP_UNSUPPORTED, "Links are not supported")


_EXTENDED: Final[Mapping[bytes, Handler]] = {
    b"posix-rename@openssh.com": posix_rename,
    b"statvfs@openssh.com": statvfs,
    b"fstatvfs@openssh.com": fstatvfs,
    b"fsync@openssh.com": fsync,
    b"lsetstat@openssh.com": setstat,
    b"limits@openssh.com": limits,
    b"copy-data": copy_data,
    b"hardlink@openssh.com": unsupported,
}

HANDLERS: Final[Mapping[int, Handler]] = {
    wire.OPEN: open_file,
    wire.READ: read,
    wire.LSTAT: stat,
    wire.FSTAT: fstat,
    wire.SETSTAT: setstat,
    wire.FSETSTAT: fsetstat,
    wire.OPENDIR: opendir,
    wire.READDIR: readdir,
    wire.REMOVE: remove,
    wire.MKDIR: mkdir,
    wire.RMDIR: rmdir,
    wire.REALPATH: realpath,
    wire.STAT: stat,
    wire.RENAME: rename,
    wire.READLINK: unsupported,
    wire.SYMLINK: unsupported,
    wire.EXTENDED: extended,
}
"""Every request but WRITE and CLOSE, which the channel handles itself."""

NAMES: Final[Mapping[int, str]] = {
    **{kind: handler.__name__.upper() for kind, handler in HANDLERS.items()},
    wire.OPEN: "OPEN",
    wire.WRITE: "WRITE",
}
"""How requests are called in the log."""
