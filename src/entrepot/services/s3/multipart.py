"""Multipart uploads: the rows of uploads and parts, and what makes a list of parts an object.

Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html (limits).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from entrepot import clock, ids
from entrepot.blobs import Blob
from entrepot.database import Reader, Row, Transaction
from entrepot.services.s3 import buckets, contents
from entrepot.services.s3.errors import (
    EntityTooLargeError,
    EntityTooSmallError,
    InvalidPartError,
    InvalidPartOrderError,
    MalformedXmlError,
    NoSuchUploadError,
)
from entrepot.services.s3.objects import Attributes

PART_LIMIT = 10_000
"""AWS's highest part number."""

PART_MINIMUM_BYTES = 5 * 1024 * 1024
"""AWS's smallest part, except the last."""

PART_MAXIMUM_BYTES = 5 * 1024 * 1024 * 1024
"""AWS's largest part, and largest single PUT."""

OBJECT_MAXIMUM_BYTES = 50 * 1024**4
"""AWS's largest object."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A multipart upload under way. `checksum_type` is '', 'COMPOSITE' or 'FULL_OBJECT'."""

    upload_id: str
    bucket: str
    key: str
    initiated_at_ms: int
    attributes: Attributes
    checksum_algorithm: str
    checksum_type: str


@dataclass(frozen=True, slots=True)
class Part:
    """One part. `etag` is its MD5 in hex; `checksum` is Base64 in the upload's algorithm, '' without one."""

    number: int
    content_id: int
    size_bytes: int
    etag: str
    modified_at_ms: int
    checksum: str


@dataclass(frozen=True, slots=True)
class NamedPart:
    """A part as the caller names it at completion."""

    number: int
    etag: str
    checksum: str = ""


def create(
    tx: Transaction, bucket: str, key: str, attributes: Attributes, checksum_algorithm: str, checksum_type: str
) -> Upload:
    """Begin an upload; raise NoSuchBucketError."""
    into = buckets.get(tx, bucket)
    upload = Upload(ids.random_hex(24), bucket, key, clock.now_ms(), attributes, checksum_algorithm, checksum_type)
    tx.execute(
        "INSERT INTO s3_upload (upload_id, bucket_id, key, initiated_at_ms, attributes, checksum_algorithm, "
        "checksum_type) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            upload.upload_id,
            into.bucket_id,
            key,
            upload.initiated_at_ms,
            attributes.to_json(),
            checksum_algorithm or None,
            checksum_type or None,
        ),
    )
    return upload


def get(reader: Reader, bucket: str, key: str, upload_id: str) -> Upload:
    """Return an upload under way; raise NoSuchBucketError or NoSuchUploadError."""
    within = buckets.get(reader, bucket)
    row = reader.one(
        "SELECT initiated_at_ms, attributes, checksum_algorithm, checksum_type FROM s3_upload "
        "WHERE upload_id = ? AND bucket_id = ? AND key = ?",
        (upload_id, within.bucket_id, key),
    )
    if row is None:
        raise NoSuchUploadError(upload_id)
    return Upload(upload_id, bucket, key, row[0], Attributes.from_json(row[1]), row[2] or "", row[3] or "")


def list_uploads(
    reader: Reader, bucket: str, *, prefix: str = "", after_key: str = "", after_upload_id: str = "", limit: int = 1000
) -> list[Upload]:
    """Return up to `limit` uploads by key and upload id, after the given ones."""
    within = buckets.get(reader, bucket)
    rows = reader.all(
        "SELECT upload_id, key, initiated_at_ms, attributes, checksum_algorithm, checksum_type FROM s3_upload "
        "WHERE bucket_id = ? AND key >= ? AND key >= ? AND (key > ? OR (upload_id > ? AND ? <> '')) "
        "ORDER BY key, upload_id LIMIT ?",
        (within.bucket_id, prefix, after_key, after_key, after_upload_id, after_upload_id, limit),
    )
    return [
        Upload(row[0], bucket, row[1], row[2], Attributes.from_json(row[3]), row[4] or "", row[5] or "")
        for row in rows
        if row[1].startswith(prefix)
    ]


def put_part(tx: Transaction, upload_id: str, number: int, part: Part) -> None:
    """Record a part, in the place of an earlier one with its number."""
    replaced = tx.one(
        "DELETE FROM s3_part WHERE upload_id = ? AND number = ? RETURNING content_id", (upload_id, number)
    )
    tx.execute(
        "INSERT INTO s3_part (upload_id, number, content_id, size_bytes, etag, modified_at_ms, checksum) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        (upload_id, number, part.content_id, part.size_bytes, part.etag, part.modified_at_ms, part.checksum or None),
    )
    if replaced is not None:
        contents.release(tx, replaced[0])


def list_parts(reader: Reader, upload_id: str, *, after: int = 0, limit: int = PART_LIMIT) -> list[Part]:
    """Return up to `limit` parts with numbers above `after`."""
    rows = reader.all(
        "SELECT number, content_id, size_bytes, etag, modified_at_ms, checksum FROM s3_part "
        "WHERE upload_id = ? AND number > ? ORDER BY number LIMIT ?",
        (upload_id, after, limit),
    )
    return [_part(row) for row in rows]


def chosen_parts(upload_id: str, present: Sequence[Part], named: Sequence[NamedPart]) -> list[Part]:
    """Return the parts that the caller names, in order, as AWS accepts them.

    Raises MalformedXmlError, InvalidPartOrderError, InvalidPartError, EntityTooSmallError or EntityTooLargeError.
    """
    if not named or len(named) > PART_LIMIT:
        raise MalformedXmlError
    by_number = {part.number: part for part in present}
    chosen: list[Part] = []
    previous = 0
    for name in named:
        if name.number <= previous:
            raise InvalidPartOrderError(upload_id)
        previous = name.number
        part = by_number.get(name.number)
        if part is None or part.etag != name.etag or (name.checksum and name.checksum != part.checksum):
            raise InvalidPartError(upload_id, name.number, name.etag)
        chosen.append(part)
    for part in chosen[:-1]:
        if part.size_bytes < PART_MINIMUM_BYTES:
            raise EntityTooSmallError(part.size_bytes, part.number, part.etag)
    size_bytes = sum(part.size_bytes for part in chosen)
    if size_bytes > OBJECT_MAXIMUM_BYTES:
        raise EntityTooLargeError(size_bytes, OBJECT_MAXIMUM_BYTES)
    return chosen


def blobs_of(reader: Reader, upload_id: str, parts: Sequence[Part]) -> list[Blob]:
    """Return the parts' contents; raise NoSuchUploadError when one is gone (the upload was aborted)."""
    found = [contents.load_blob(reader, part.content_id) for part in parts]
    if any(blob is None for blob in found):
        raise NoSuchUploadError(upload_id)
    return [blob for blob in found if blob is not None]


def etag_of(parts: Sequence[Part]) -> str:
    """Return the object's ETag: the MD5 of the parts' MD5s, and how many they are."""
    digest = hashlib.md5(b"".join(bytes.fromhex(part.etag) for part in parts), usedforsecurity=False)
    return f"{digest.hexdigest()}-{len(parts)}"


def parts_unchanged(reader: Reader, upload_id: str, parts: Sequence[Part]) -> bool:
    """Return whether the upload still has exactly these contents under these numbers."""
    now = {part.number: part.content_id for part in list_parts(reader, upload_id)}
    return all(now.get(part.number) == part.content_id for part in parts)


def remove(tx: Transaction, upload_id: str) -> None:
    """Forget an upload and its parts; contents that nothing else names become garbage."""
    unshared = (
        "NOT EXISTS (SELECT 1 FROM s3_version v WHERE v.content_id = s3_content.content_id) AND NOT EXISTS "
        "(SELECT 1 FROM s3_part o WHERE o.content_id = s3_content.content_id AND o.upload_id <> ?)"
    )
    tx.execute(
        "INSERT INTO s3_garbage (blob_id, due_at_ms, doomed) SELECT blob_id, ?, 0 FROM s3_content "  # noqa: S608
        "WHERE blob_id IS NOT NULL AND content_id IN (SELECT content_id FROM s3_part WHERE upload_id = ?) "
        f"AND {unshared}",
        (clock.now_ms() + contents.GARBAGE_GRACE_MS, upload_id, upload_id),
    )
    tx.execute(
        "DELETE FROM s3_content WHERE content_id IN (SELECT content_id FROM s3_part WHERE upload_id = ?) "  # noqa: S608
        f"AND {unshared}",
        (upload_id, upload_id),
    )
    tx.execute("DELETE FROM s3_part WHERE upload_id = ?", (upload_id,))
    tx.execute("DELETE FROM s3_upload WHERE upload_id = ?", (upload_id,))


def remove_all(tx: Transaction, bucket_id: int) -> None:
    """Forget every upload of a bucket that is being deleted."""
    for (upload_id,) in tx.all("SELECT upload_id FROM s3_upload WHERE bucket_id = ?", (bucket_id,)):
        remove(tx, upload_id)


def _part(row: Row) -> Part:
    return Part(row[0], row[1], row[2], row[3], row[4], row[5] or "")
