"""Contents: what versions and parts share, and the bookkeeping that lets a blob be collected without a race.

A blob is *pending* from the moment it is durable until a transaction here names it; it is *garbage* from the
transaction that removes its last name. Both the naming and the dooming of a blob are write transactions, which the
database runs one after another: whichever comes second sees the first.
"""

from collections.abc import Callable

from entrepot import clock
from entrepot.blobs import Blob
from entrepot.database import Reader, Transaction

GARBAGE_GRACE_MS = 60 * 60 * 1000
"""A blob without a name stays this long, so that a download that began before can end."""


def add(tx: Transaction, blob: Blob, content_id: int, exists: Callable[[str], bool]) -> bool:
    """Record `blob` as content `content_id`; return False when the blob has been collected meanwhile.

    The collector dooms a blob, deletes its file, and only then forgets it, so one of the two checks sees it.
    """
    if blob.blob_id is not None:
        doomed = tx.one("SELECT 1 FROM s3_garbage WHERE blob_id = ?", (blob.blob_id,))
        if doomed is not None or not exists(blob.blob_id):
            return False
    tx.execute(
        "INSERT INTO s3_content (content_id, size_bytes, sha256, blob_id, data) VALUES (?, ?, ?, ?, ?)",
        (content_id, blob.size_bytes, blob.sha256, blob.blob_id, blob.inline),
    )
    return True


def find_blob(reader: Reader, blob_id: str) -> int | None:
    """Return the content that a blob is, or None."""
    row = reader.one("SELECT content_id FROM s3_content WHERE blob_id = ?", (blob_id,))
    return None if row is None else int(row[0])


def load_blob(reader: Reader, content_id: int) -> Blob | None:
    """Return a content as a Blob, with its bytes where they ride in the row."""
    row = reader.one("SELECT blob_id, data, size_bytes, sha256 FROM s3_content WHERE content_id = ?", (content_id,))
    return None if row is None else Blob(row[0], row[1], row[2], row[3])


def release(tx: Transaction, content_id: int | None) -> None:
    """Forget a content unless a version or part still names it; its blob becomes garbage."""
    if content_id is None:
        return
    if tx.one("SELECT 1 FROM s3_version WHERE content_id = ? LIMIT 1", (content_id,)) is not None:
        return
    if tx.one("SELECT 1 FROM s3_part WHERE content_id = ? LIMIT 1", (content_id,)) is not None:
        return
    row = tx.one("DELETE FROM s3_content WHERE content_id = ? RETURNING blob_id", (content_id,))
    if row is not None and row[0] is not None:
        tx.execute(
            "INSERT INTO s3_garbage (blob_id, due_at_ms, doomed) VALUES (?, ?, 0)",
            (row[0], clock.now_ms() + GARBAGE_GRACE_MS),
        )
