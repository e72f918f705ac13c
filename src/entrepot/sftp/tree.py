"""Requests that name a path: stat, setstat, mkdir, rmdir, remove, rename. Folders are prefixes of keys, as on AWS.

A folder exists while an object lies below it, or its marker, the empty object `folder/`, which mkdir writes.
"""

import hashlib
from dataclasses import dataclass
from typing import Final

from entrepot.blobs import Blob
from entrepot.database import Reader, Transaction
from entrepot.services.s3.objects import ObjectVersion
from entrepot.services.s3.service import S3
from entrepot.services.transfer import partials
from entrepot.services.transfer.partials import PartialUpload
from entrepot.sftp.paths import LocatedPlace, Place
from entrepot.sftp.session import Session, list_context
from entrepot.sftp.status import failure, no_such_file, permission_denied
from entrepot.sftp.uploads import Upload, discard
from entrepot.sftp.wire import Attributes, Stat

RENAME_PAGE: Final = 500
"""Objects of a folder that are renamed in one transaction."""

EMPTY: Final = Blob(None, b"", 0, hashlib.sha256(b"").digest())

A_FOLDER: Final = Stat(True, 0, 0)


@dataclass(frozen=True, slots=True)
class Found:
    """What is at a place: an object, a folder, a parked upload of this user, or nothing of that."""

    version: ObjectVersion | None
    is_folder: bool
    partial: PartialUpload | None


def find(s3: S3, reader: Reader, at: LocatedPlace, user_name: str, *, content: bool = False) -> Found:
    """Look up a place. `content`: with the content of a small object."""
    if not at.key:
        s3.exists_below(reader, at.bucket, "")
        return Found(None, True, None)
    version = s3.head(reader, at.bucket, at.key, content=content)
    if version is not None:
        return Found(version, False, None)
    if s3.exists_below(reader, at.bucket, f"{at.key}/"):
        return Found(None, True, None)
    return Found(None, False, partials.find(reader, at.bucket, at.key, user_name))


async def look(session: Session, at: LocatedPlace, *, content: bool = False) -> Found:
    """Look up a place in a read of its own."""
    s3, user_name = session.site.s3, session.user.user_name
    return await session.site.database.read(lambda reader: find(s3, reader, at, user_name, content=content))


async def stat(session: Session, place: Place) -> Stat:
    """Return what a client sees at a place.

    Needs s3:GetObject on the object, or s3:ListBucket with the folder's prefix. The home layout is always there.
    """
    if place.fixed:
        return A_FOLDER
    at = place.located()
    if not session.decide("s3:GetObject", at.bucket, at.key).allowed:
        decision = session.decide("s3:ListBucket", at.bucket, None, list_context(place.folder))
        if not decision.allowed:
            session.denied("STAT", place, "s3:ListBucket", decision)
    found = await look(session, at)
    if found.version is not None:
        return Stat(False, found.version.size_bytes, found.version.mtime_ms // 1000)
    if found.is_folder:
        return A_FOLDER
    if found.partial is not None:
        return Stat(False, found.partial.size_bytes, found.partial.parked_at_ms // 1000)
    raise no_such_file()


async def set_attributes(session: Session, place: Place, attributes: Attributes) -> None:
    """Set size and time of a file; owner and mode are accepted and mean nothing, folders have none of it."""
    if place.fixed:
        return
    at = place.located()
    session.require("SETSTAT", place, "s3:PutObject", at.bucket, at.key)
    if attributes.size_bytes is None and attributes.mtime_s is None:
        await stat(session, place)
        return
    found = await look(session, at)
    if found.is_folder:
        return
    if found.version is None:
        raise no_such_file()
    upload = Upload(session, place, base=found.version)
    if attributes.size_bytes is not None:
        session.require("SETSTAT", place, "s3:GetObject", at.bucket, at.key)
        try:
            await upload.truncate(attributes.size_bytes)
        except BaseException:
            await upload.abort()
            raise
    if attributes.mtime_s is not None:
        upload.set_mtime(attributes.mtime_s)
    await upload.close()


async def make_folder(session: Session, place: Place) -> None:
    """Write the marker of a folder."""
    if place.fixed:
        raise failure("The folder exists already")
    at = place.located()
    if not at.key:
        raise permission_denied("Buckets are not made over SFTP")
    session.require("MKDIR", place, "s3:PutObject", at.bucket, place.folder)
    s3, user_name, call = session.site.s3, session.user.user_name, session.call()

    def make(tx: Transaction) -> None:
        found = find(s3, tx, at, user_name)
        if found.version is not None or found.is_folder:
            raise failure("A file or folder of that name exists already")
        s3.publish(tx, at.bucket, place.folder, EMPTY, call)

    await session.site.database.write(make)
    session.log("MKDIR", path=place.object_path)


async def remove_folder(session: Session, place: Place) -> None:
    """Remove an empty folder: its marker."""
    if place.fixed:
        raise permission_denied("This folder is part of your home directory")
    at = place.located()
    if not at.key:
        raise permission_denied("Buckets are not removed over SFTP")
    session.require("RMDIR", place, "s3:DeleteObject", at.bucket, place.folder)
    s3, call = session.site.s3, session.call()

    def remove(tx: Transaction) -> None:
        page = s3.list_objects(tx, at.bucket, prefix=place.folder, limit=2)
        keys = [entry.key for entry in page.objects]
        if not keys:
            if s3.head(tx, at.bucket, at.key) is not None:
                raise failure("Not a directory")
            raise no_such_file()
        if keys != [place.folder]:
            raise failure("The folder is not empty")
        s3.delete_object(tx, at.bucket, place.folder, call)

    await session.site.database.write(remove)
    session.log("RMDIR", path=place.object_path)


async def remove_file(session: Session, place: Place) -> None:
    """Delete an object, or what is parked of one."""
    if place.fixed:
        raise failure("Is a directory")
    at = place.located()
    session.require("DELETE", place, "s3:DeleteObject", at.bucket, at.key)
    s3, user_name, call = session.site.s3, session.user.user_name, session.call()

    def remove(tx: Transaction) -> PartialUpload | None:
        found = find(s3, tx, at, user_name)
        if found.version is not None:
            s3.delete_object(tx, at.bucket, at.key, call)
        elif found.partial is not None:
            partials.remove(tx, at.bucket, at.key, user_name)
        else:
            raise failure("Is a directory") if found.is_folder else no_such_file()
        return found.partial

    partial = await session.site.database.write(remove)
    if partial is not None:
        await discard(session, partial)
    session.log("DELETE", path=place.object_path)


async def rename(session: Session, source: Place, target: Place, *, replace: bool) -> None:
    """Rename a file or folder. Without `replace` an existing target is an error; a folder is never replaced."""
    if source.fixed or target.fixed:
        raise permission_denied("This folder is part of your home directory")
    old, new = source.located(), target.located()
    if not old.key or not new.key:
        raise permission_denied("Buckets are not renamed over SFTP")
    session.require("RENAME", target, "s3:PutObject", new.bucket, new.key)
    if not session.decide("s3:GetObject", old.bucket, old.key).allowed:
        session.require_list("RENAME", source, source.folder)  # or else the answer would tell what exists
    found = await look(session, old)
    if found.is_folder:
        await _rename_folder(session, source, target)
    elif found.version is not None:
        session.require("RENAME", source, "s3:GetObject", old.bucket, old.key)
        session.require("RENAME", source, "s3:DeleteObject", old.bucket, old.key)
        if old != new:
            await _rename_file(session, old, new, replace=replace)
    else:
        raise no_such_file()
    session.log("RENAME", path=source.object_path, new_path=target.object_path)


async def _rename_file(session: Session, old: LocatedPlace, new: LocatedPlace, *, replace: bool) -> None:
    s3, user_name, call = session.site.s3, session.user.user_name, session.call()

    def move(tx: Transaction) -> None:
        found = find(s3, tx, new, user_name)
        if found.is_folder:
            raise failure("A folder of that name exists already")
        if found.version is not None and not replace:
            raise failure("A file of that name exists already")
        _move_object(s3, tx, session, old, new)
        if found.partial is not None:
            partials.remove(tx, new.bucket, new.key, user_name)

    def _move_object(s3: S3, tx: Transaction, session: Session, old: LocatedPlace, new: LocatedPlace) -> None:
        if old.bucket == new.bucket:
            s3.rename_object(tx, old.bucket, old.key, new.key, call)
        else:
            version = s3.get(tx, old.bucket, old.key)
            s3.copy_object(tx, version, new.bucket, new.key, call, mtime_ms=version.mtime_ms)
            s3.delete_object(tx, old.bucket, old.key, call)

    await session.site.database.write(move)


async def _rename_folder(session: Session, source: Place, target: Place) -> None:
    """Move every object below a folder, page by page, after all of them were found to be allowed.

    Each object moves as a whole; a rename that is interrupted has moved some, and can be repeated for the rest.
    """
    old, new = source.located(), target.located()
    if old.bucket != new.bucket:
        raise failure("A folder cannot be renamed into another bucket; move its files")
    if target.folder.startswith(source.folder):
        raise failure("A folder cannot be renamed into itself")
    session.require_list("RENAME", source, source.folder)
    s3, user_name, call = session.site.s3, session.user.user_name, session.call()
    existing = await look(session, new)
    if existing.version is not None or existing.is_folder:
        raise failure("A file or folder of that name exists already")
    await _authorize_folder(session, source, target)
    after = ""
    while True:
        position = after

        def move(tx: Transaction, position: str = position) -> str | None:
            partials.remove(tx, new.bucket, new.key, user_name)
            renamed = s3.rename_prefix(
                tx, old.bucket, source.folder, target.folder, call, after=position, limit=RENAME_PAGE
            )
            return renamed.next_after

        following = await session.site.database.write(move)
        if following is None:
            return
        after = following


async def _authorize_folder(session: Session, source: Place, target: Place) -> None:
    """Require what a move needs for every object below the folder, before the first one moves."""
    s3, bucket, after, count = session.site.s3, source.located().bucket, "", 0
    while True:
        position = after
        page = await session.site.database.read(
            lambda reader, position=position: s3.list_objects(  # type: ignore[misc]
                reader, bucket, prefix=source.folder, after=position, limit=RENAME_PAGE
            )
        )
        for entry in page.objects:
            new_key = target.folder + entry.key[len(source.folder) :]
            session.require("RENAME", source, "s3:GetObject", bucket, entry.key)
            session.require("RENAME", source, "s3:DeleteObject", bucket, entry.key)
            session.require("RENAME", target, "s3:PutObject", bucket, new_key)
        count += len(page.objects)
        if count > session.site.settings.rename_limit:
            raise failure(f"The folder holds more than {session.site.settings.rename_limit} files; move them in parts")
        if page.next_after is None:
            return
        after = page.next_after
