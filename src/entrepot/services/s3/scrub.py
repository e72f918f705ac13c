"""Scrub: reads every content again and compares it with the SHA-256 and size that were recorded when it arrived."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from entrepot.blobs import BlobStore
from entrepot.database import Database, Reader, Row
from entrepot.errors import StorageError
from entrepot.services.s3.objects import version_id

BATCH_LIMIT = 100
"""Contents looked up at once: with inline content, a few megabytes."""


@dataclass(frozen=True, slots=True)
class Damaged:
    """Content that is not what was stored. `blob_id` is None where it rides in the ledger.

    A part of an upload under way has its upload's bucket and key.
    """

    bucket: str
    key: str
    version_id: str | None
    blob_id: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class ScrubReport:
    """What a scrub found: how many contents (copies share one) and bytes were read, and each name of each damaged content."""

    checked: int
    size_bytes: int
    damaged: tuple[Damaged, ...]


async def scrub(database: Database, blobs: BlobStore, progress: Callable[[int, int], None]) -> ScrubReport:
    """Verify all content that versions and parts name; works beside a running server.

    `progress` is told how many contents are done, of how many. Content that is deleted meanwhile is passed over.
    """
    total = await database.scan(lambda reader: _count(reader))
    done, size_bytes, last = 0, 0, 0
    damaged: list[Damaged] = []
    while batch := await database.scan(lambda reader, after=last: _batch(reader, after)):  # type: ignore[misc]
        for row, inline_digest in batch:
            content_id, expected_size, expected, blob_id, _ = row
            reason = await _fault(blobs, blob_id, expected_size, expected, inline_digest)
            if reason is not None:
                names = await database.scan(lambda reader, content_id=content_id: _names(reader, content_id))  # type: ignore[misc]
                damaged += [Damaged(bucket, key, version, blob_id, reason) for bucket, key, version in names]
            last, done, size_bytes = content_id, done + 1, size_bytes + expected_size
            progress(done, max(total, done))
    return ScrubReport(done, size_bytes, tuple(damaged))


def _count(reader: Reader) -> int:
    row = reader.one("SELECT COUNT(*) FROM s3_content")
    assert row is not None
    return int(row[0])


def _batch(reader: Reader, after: int) -> list[tuple[Row, bytes | None]]:
    """Return contents with the digest of what is inline (hashed here, beside the event loop)."""
    rows = reader.all(
        "SELECT content_id, size_bytes, sha256, blob_id, data FROM s3_content WHERE content_id > ? "
        "ORDER BY content_id LIMIT ?",
        (after, BATCH_LIMIT),
    )
    return [(row, None if row[4] is None else hashlib.sha256(row[4]).digest()) for row in rows]


async def _fault(
    blobs: BlobStore, blob_id: str | None, expected_size: int, expected: bytes, inline_digest: bytes | None
) -> str | None:
    """Return what is wrong with a content, None when it is whole."""
    if blob_id is None:
        if inline_digest == expected:
            return None
        return "its bytes in the ledger do not have the SHA-256 that was recorded"
    try:
        digest, size_bytes = await blobs.digest(blob_id)
    except StorageError as error:
        return str(error)
    if size_bytes != expected_size:
        return f"it has {size_bytes} bytes on the disk, {expected_size} were stored"
    if digest != expected:
        return f"its SHA-256 on the disk is {digest.hex()}, {expected.hex()} was stored"
    return None


def _names(reader: Reader, content_id: int) -> list[tuple[str, str, str | None]]:
    """Return (bucket, key, version id) of every version and part that names a content: none once it was deleted."""
    versions = reader.all(
        "SELECT b.name, v.key, v.sequence, v.versioned FROM s3_version v JOIN s3_bucket b ON b.bucket_id = v.bucket_id "
        "WHERE v.content_id = ?",
        (content_id,),
    )
    parts = reader.all(
        "SELECT b.name, u.key FROM s3_part p JOIN s3_upload u ON u.upload_id = p.upload_id "
        "JOIN s3_bucket b ON b.bucket_id = u.bucket_id WHERE p.content_id = ?",
        (content_id,),
    )
    return [
        *((bucket, key, version_id(sequence) if versioned else None) for bucket, key, sequence, versioned in versions),
        *((bucket, key, None) for bucket, key in parts),
    ]
