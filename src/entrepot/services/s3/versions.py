"""Versions of objects: publish, copy, rename, delete and look up, each inside the caller's transaction.

Every change calls `on_object_created` or `on_object_deleted` in the same transaction: there is no moment in which an
object is visible and its event is not queued.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from entrepot import clock
from entrepot.blobs import Blob
from entrepot.database import Reader, Row, Transaction
from entrepot.operations import Call
from entrepot.services.s3 import buckets, contents, listing
from entrepot.services.s3.errors import (
    ContentCollectedError,
    InvalidRequestError,
    InvalidUriError,
    KeyTooLongError,
    MethodNotAllowedError,
    NoSuchKeyError,
    NoSuchVersionError,
    PreconditionFailedError,
)
from entrepot.services.s3.objects import (
    DEFAULT_CONTENT_TYPE,
    NO_ATTRIBUTES,
    Attributes,
    Bucket,
    CopiedFrom,
    ObjectCreated,
    ObjectDeleted,
    ObjectVersion,
    OnObjectCreated,
    OnObjectDeleted,
    multipart_etag_of,
    sequence_of,
    sequencer,
)
from entrepot.services.s3.sequence import Sequence

KEY_LIMIT_BYTES = 1024
"""AWS's limit for a key, in UTF-8."""

COPIES_LIMIT = 16
"""Copies of copies that roles (functions, state machines) make. A workflow that copies into a bucket whose events start it
would go on for ever; AWS Lambda stops such a loop after about as many rounds:
https://docs.aws.amazon.com/lambda/latest/dg/invocation-recursion.html"""

RENAME_LIMIT = 1000
"""At most this many objects change their name in one transaction."""

_VERSION = (
    "v.sequence, v.versioned, v.content_id, v.size_bytes, v.etag, v.modified_at_ms, v.mtime_ms, v.attributes, "
    "c.sha256, c.blob_id"
)


@dataclass(frozen=True, slots=True)
class Renamed:
    """What one call of `rename_prefix` did: how many objects, and where to go on (None: nothing is left)."""

    count: int
    next_after: str | None


def check_key(key: str) -> None:
    """Raise KeyTooLongError or InvalidUriError unless `key` is legal: 1 to 1,024 bytes of UTF-8."""
    try:
        size_bytes = len(key) if key.isascii() else len(key.encode())
    except UnicodeEncodeError:
        raise InvalidUriError from None
    if size_bytes > KEY_LIMIT_BYTES:
        raise KeyTooLongError(size_bytes)
    if not key:
        raise InvalidUriError


class Objects:
    """The objects of all buckets, as rows of the ledger."""

    def __init__(
        self,
        blob_exists: Callable[[str], bool],
        on_object_created: OnObjectCreated,
        on_object_deleted: OnObjectDeleted,
    ) -> None:
        self.sequence = Sequence()
        self._blob_exists = blob_exists
        self._on_object_created = on_object_created
        self._on_object_deleted = on_object_deleted

    # ── look-ups ─────────────────────────────────────────────────────────────────────────────────────────────────

    def head(
        self, reader: Reader, bucket: str, key: str, *, version_id: str | None = None, content: bool = False
    ) -> ObjectVersion | None:
        """Return an object's current version (or the one named), None where there is none.

        A delete marker on top means that there is no object; naming a delete marker returns it. `content` loads inline
        content too. `version_id` "null" is the version written without versioning. Raises NoSuchBucketError.
        """
        return self._find(reader, buckets.get(reader, bucket), key, version_id, content=content)

    def get(
        self, reader: Reader, bucket: str, key: str, *, version_id: str | None = None, content: bool = False
    ) -> ObjectVersion:
        """Return the version as `head` does; raise NoSuchKeyError, NoSuchVersionError or MethodNotAllowedError."""
        found = self.head(reader, bucket, key, version_id=version_id, content=content)
        if found is None:
            raise NoSuchKeyError(key) if version_id is None else NoSuchVersionError(key, version_id)
        if found.is_delete_marker:
            raise MethodNotAllowedError
        return found

    def _find(
        self, reader: Reader, bucket: Bucket, key: str, version: str | None = None, *, content: bool = False
    ) -> ObjectVersion | None:
        columns = f"{_VERSION}, c.data" if content else _VERSION
        sql = (
            f"SELECT {columns} FROM s3_version v LEFT JOIN s3_content c ON c.content_id = v.content_id "  # noqa: S608
            "WHERE v.bucket_id = ? AND v.key = ?"
        )
        if version is None:
            row = reader.one(f"{sql} ORDER BY v.sequence DESC LIMIT 1", (bucket.bucket_id, key))
            return None if row is None or row[2] is None else _version(bucket.name, key, row)
        if version == "null":
            row = reader.one(f"{sql} AND v.versioned = 0 ORDER BY v.sequence DESC LIMIT 1", (bucket.bucket_id, key))
        else:
            sequence = sequence_of(version)
            if sequence is None:
                return None
            row = reader.one(f"{sql} AND v.versioned = 1 AND v.sequence = ?", (bucket.bucket_id, key, sequence))
        return None if row is None else _version(bucket.name, key, row)

    # ── creation ─────────────────────────────────────────────────────────────────────────────────────────────────

    def publish(
        self,
        tx: Transaction,
        bucket: str,
        key: str,
        blob: Blob,
        call: Call,
        *,
        etag: str | None = None,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        attributes: Attributes | None = None,
        mtime_ms: int | None = None,
        reason: str = "PutObject",
        if_none_match: bool = False,
        if_match: str | None = None,
        content_id: int | None = None,
    ) -> ObjectVersion:
        """Make complete content visible under a key, and say so, in one transaction.

        `content_id` names content that the ledger has already (a part); else `blob` becomes new content. `etag` defaults
        to the multipart form of the SHA-256. `attributes` goes before `content_type` and `metadata`. `if_none_match`:
        only where no object is; `if_match`: only over the object with this ETag. Raises NoSuchBucketError,
        KeyTooLongError, PreconditionFailedError, or ContentCollectedError when the blob waited longer than the grace
        period.
        """
        check_key(key)
        into = buckets.get(tx, bucket)
        if if_none_match or if_match is not None:
            self.check_conditions(tx, into, key, if_none_match=if_none_match, if_match=if_match)
        sequence = self.sequence.next(tx)
        if content_id is None:
            self.add_content(tx, key, blob, sequence)
        if attributes is None:
            attributes = _attributes(content_type, metadata)
        version = ObjectVersion(
            bucket=bucket,
            key=key,
            sequence=sequence,
            versioned=into.versioning == "Enabled",
            content_id=sequence if content_id is None else content_id,
            size_bytes=blob.size_bytes,
            etag=etag if etag is not None else multipart_etag_of(blob.sha256),
            modified_at_ms=(now_ms := clock.now_ms()),
            mtime_ms=now_ms if mtime_ms is None else mtime_ms,
            attributes=attributes,
            sha256=blob.sha256,
            blob_id=blob.blob_id,
            inline=blob.inline,
        )
        self._put(tx, into, version, call, reason, None)
        return version

    def add_content(self, tx: Transaction, key: str, blob: Blob, content_id: int) -> None:
        """Record a finished blob as content; raise ContentCollectedError when it waited too long."""
        if not contents.add(tx, blob, content_id, self._blob_exists):
            raise ContentCollectedError(key)

    def check_conditions(
        self, reader: Reader, bucket: Bucket, key: str, *, if_none_match: bool, if_match: str | None
    ) -> None:
        """Raise PreconditionFailedError (or NoSuchKeyError, as AWS does for If-Match) unless the conditions hold."""
        current = self._find(reader, bucket, key)
        if if_none_match and current is not None:
            raise PreconditionFailedError("If-None-Match")
        if if_match is not None:
            if current is None:
                raise NoSuchKeyError(key)
            if if_match not in ("*", current.etag):
                raise PreconditionFailedError("If-Match")

    def copy_object(
        self,
        tx: Transaction,
        source: ObjectVersion,
        bucket: str,
        key: str,
        call: Call,
        *,
        attributes: Attributes | None = None,
        etag: str | None = None,
        mtime_ms: int | None = None,
        if_none_match: bool = False,
        if_match: str | None = None,
    ) -> ObjectVersion:
        """Give `source` (looked up in this transaction) another name, whatever its size, in a few rows.

        `attributes` replaces what the source carries; without it a copy onto itself is AWS's InvalidRequest.
        """
        if attributes is None and (source.bucket, source.key) == (bucket, key):
            current = self.head(tx, bucket, key)
            if current is not None and current.sequence == source.sequence:
                raise InvalidRequestError(
                    "This copy request is illegal because it is trying to copy an object to itself without changing "
                    "the object's metadata, storage class, website redirect location or encryption attributes."
                )
        check_key(key)
        into = buckets.get(tx, bucket)
        if if_none_match or if_match is not None:
            self.check_conditions(tx, into, key, if_none_match=if_none_match, if_match=if_match)
        kept = source.attributes if attributes is None else attributes
        copies = _copies(source, into, key, call)
        now_ms = clock.now_ms()
        version = replace(
            source,
            bucket=bucket,
            key=key,
            sequence=self.sequence.next(tx),
            versioned=into.versioning == "Enabled",
            etag=source.etag if etag is None else etag,
            modified_at_ms=now_ms,
            mtime_ms=now_ms if mtime_ms is None else mtime_ms,
            attributes=kept if kept.copies == copies else replace(kept, copies=copies),
        )
        self._put(tx, into, version, call, "CopyObject", source)
        return version

    def _put(
        self,
        tx: Transaction,
        bucket: Bucket,
        version: ObjectVersion,
        call: Call,
        reason: str,
        source: ObjectVersion | None,
    ) -> None:
        replaced = [] if version.versioned else self._null_versions(tx, bucket, version.key)
        self._insert(tx, bucket, version)
        for sequence, content_id in replaced:
            self._remove(tx, sequence, content_id)
        assert version.sha256 is not None
        created = ObjectCreated(
            bucket=version.bucket,
            key=version.key,
            size_bytes=version.size_bytes,
            etag=version.etag,
            version_id=version.version_id,
            sequencer=version.sequencer,
            sha256=version.sha256.hex(),
            reason=reason,
            created_at_ms=version.modified_at_ms,
            copied_from=None if source is None else CopiedFrom(source.bucket, source.key, source.sequencer),
            event_bridge=bucket.event_bridge,
        )
        self._on_object_created(tx, created, call)

    def _insert(self, tx: Transaction, bucket: Bucket, version: ObjectVersion) -> None:
        tx.execute(
            "INSERT INTO s3_version (sequence, bucket_id, key, versioned, content_id, size_bytes, etag, "
            "modified_at_ms, mtime_ms, attributes) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                version.sequence,
                bucket.bucket_id,
                version.key,
                int(version.versioned),
                version.content_id,
                version.size_bytes,
                version.etag,
                version.modified_at_ms,
                None if version.mtime_ms == version.modified_at_ms else version.mtime_ms,
                version.attributes.to_json(),
            ),
        )

    def _null_versions(self, tx: Transaction, bucket: Bucket, key: str) -> list[Row]:
        return tx.all(
            "SELECT sequence, content_id FROM s3_version WHERE bucket_id = ? AND key = ? AND versioned = 0",
            (bucket.bucket_id, key),
        )

    def _remove(self, tx: Transaction, sequence: int, content_id: int | None) -> None:
        tx.execute("DELETE FROM s3_version WHERE sequence = ?", (sequence,))
        contents.release(tx, content_id)

    # ── change and removal ───────────────────────────────────────────────────────────────────────────────────────

    def touch(self, tx: Transaction, bucket: str, key: str, *, mtime_ms: int) -> None:
        """Set the current version's mtime (SFTP's setstat); raise NoSuchKeyError."""
        version = self.get(tx, bucket, key)
        tx.execute("UPDATE s3_version SET mtime_ms = ? WHERE sequence = ?", (mtime_ms, version.sequence))

    def set_tags(self, tx: Transaction, version: ObjectVersion, tags: Mapping[str, str]) -> None:
        """Replace a version's tags."""
        attributes = replace(version.attributes, tags=dict(tags))
        tx.execute("UPDATE s3_version SET attributes = ? WHERE sequence = ?", (attributes.to_json(), version.sequence))

    def delete_object(
        self, tx: Transaction, bucket: str, key: str, call: Call, *, version_id: str | None = None
    ) -> ObjectDeleted | None:
        """Delete an object as AWS does; return what happened, None when there was nothing to delete.

        Without versioning the object goes; with it a delete marker comes on top (also where no object was). With
        `version_id` that version goes for good.
        """
        within = buckets.get(tx, bucket)
        if version_id is not None:
            return self._delete_version(tx, within, key, call, version_id)
        if within.versioning == "":
            version = self._find(tx, within, key)
            if version is None:
                return None
            self._remove(tx, version.sequence, version.content_id)
            return self._deleted(tx, within, key, call, None)
        check_key(key)
        replaced = self._null_versions(tx, within, key) if within.versioning == "Suspended" else []
        now_ms = clock.now_ms()
        marker = ObjectVersion(
            bucket=bucket,
            key=key,
            sequence=self.sequence.next(tx),
            versioned=within.versioning == "Enabled",
            content_id=None,
            size_bytes=0,
            etag="",
            modified_at_ms=now_ms,
            mtime_ms=now_ms,
        )
        self._insert(tx, within, marker)
        for sequence, content_id in replaced:
            self._remove(tx, sequence, content_id)
        return self._deleted(tx, within, key, call, marker.version_id, marker)

    def _delete_version(
        self, tx: Transaction, bucket: Bucket, key: str, call: Call, version_id: str
    ) -> ObjectDeleted | None:
        version = self._find(tx, bucket, key, version_id)
        if version is None:
            return None
        self._remove(tx, version.sequence, version.content_id)
        return self._deleted(tx, bucket, key, call, version.version_id)

    def _deleted(
        self,
        tx: Transaction,
        bucket: Bucket,
        key: str,
        call: Call,
        version_id: str | None,
        marker: ObjectVersion | None = None,
    ) -> ObjectDeleted:
        # A deletion has a sequencer of its own, so that whoever hears of it late knows what it came after.
        sequence = self.sequence.next(tx) if marker is None else marker.sequence
        deleted = ObjectDeleted(
            bucket=bucket.name,
            key=key,
            version_id=version_id,
            sequencer=sequencer(sequence),
            deletion_type="Permanently Deleted" if marker is None else "Delete Marker Created",
            reason="DeleteObject",
            deleted_at_ms=clock.now_ms(),
            event_bridge=bucket.event_bridge,
        )
        self._on_object_deleted(tx, deleted, call)
        return deleted

    # ── names ────────────────────────────────────────────────────────────────────────────────────────────────────

    def rename_object(
        self, tx: Transaction, bucket: str, source_key: str, destination_key: str, call: Call
    ) -> ObjectVersion:
        """Move an object to another key of its bucket, over what is there; raise NoSuchKeyError.

        Its time, attributes and ETag stay. The world sees a copy and a deletion, as it would on AWS.
        """
        source = self.get(tx, bucket, source_key)
        if source_key == destination_key:
            return source
        moved = self.copy_object(tx, source, bucket, destination_key, call, mtime_ms=source.mtime_ms)
        self.delete_object(tx, bucket, source_key, call)
        return moved

    def rename_prefix(
        self,
        tx: Transaction,
        bucket: str,
        source_prefix: str,
        destination_prefix: str,
        call: Call,
        *,
        after: str = "",
        limit: int = RENAME_LIMIT,
    ) -> Renamed:
        """Move up to `limit` objects below one prefix to the other (a folder's rename).

        Each object moves as a whole. While `next_after` is not None, call again in another transaction.
        Repeating a call that was interrupted goes on with what is left.

        Raises InvalidRequestError when one prefix is below the other.
        """
        if destination_prefix.startswith(source_prefix) or not source_prefix:
            raise InvalidRequestError(f"{source_prefix!r} cannot be moved into itself ({destination_prefix!r}).")
        page = listing.list_objects(tx, bucket, prefix=source_prefix, after=after, limit=limit)
        for entry in page.objects:
            self.rename_object(tx, bucket, entry.key, destination_prefix + entry.key[len(source_prefix) :], call)
        return Renamed(len(page.objects), page.next_after)


def _copies(source: ObjectVersion, into: Bucket, key: str, call: Call) -> int:
    """Return the new version's `copies`; raise InvalidRequestError where they have become a loop.

    Only copies that raise an event count: a bucket without events passes the number on, so that a delivery costs nothing.
    What people do in an SFTP session (their sessions are a role's, too) is no loop.
    """
    before = source.attributes.copies
    if call.principal.kind != "role" or call.session_id is not None or not into.event_bridge:
        return before
    if before >= COPIES_LIMIT:
        raise InvalidRequestError(
            f"{source.bucket}/{source.key} is a copy of copies, {before} deep, and is not copied to {into.name}/{key}: its "
            "workflow seems to start itself by what it copies. Let the rule's event pattern leave out what the workflow "
            "writes, or write into a bucket that does not send events."
        )
    return before + 1


def _attributes(content_type: str | None, metadata: Mapping[str, str] | None) -> Attributes:
    if content_type is None and not metadata:
        return NO_ATTRIBUTES
    return Attributes(content_type or DEFAULT_CONTENT_TYPE, dict(metadata or {}))


def _version(bucket: str, key: str, row: Row) -> ObjectVersion:
    return ObjectVersion(
        bucket=bucket,
        key=key,
        sequence=row[0],
        versioned=bool(row[1]),
        content_id=row[2],
        size_bytes=row[3],
        etag=row[4],
        modified_at_ms=row[5],
        mtime_ms=row[5] if row[6] is None else row[6],
        attributes=Attributes.from_json(row[7]),
        sha256=row[8],
        blob_id=row[9],
        inline=row[10] if len(row) > 10 else None,
    )
