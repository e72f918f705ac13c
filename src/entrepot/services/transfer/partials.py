"""Uploads that were cut off: where their content is parked, for their user to resume within 24 hours."""

from dataclasses import dataclass
from typing import Final

from entrepot import clock
from entrepot.database import Reader, Transaction

EXPIRY_MS: Final = 24 * 3600 * 1000
"""A parked upload is kept this long."""

USER_LIMIT: Final = 100
"""Most parked uploads of a user; the oldest gives way."""


@dataclass(frozen=True, slots=True)
class PartialUpload:
    """Unfinished content; `parked` is its name in the content store."""

    bucket: str
    key: str
    user_name: str
    parked: str
    size_bytes: int
    parked_at_ms: int


_COLUMNS: Final = "bucket, key, user_name, parked, size_bytes, parked_at_ms"


def find(reader: Reader, bucket: str, key: str, user_name: str) -> PartialUpload | None:
    """Return what is parked of the user for the key and has not expired."""
    row = reader.one(
        f"SELECT {_COLUMNS} FROM partial_upload WHERE bucket = ? AND key = ? AND user_name = ? AND parked_at_ms > ?",  # noqa: S608
        (bucket, key, user_name, clock.now_ms() - EXPIRY_MS),
    )
    return None if row is None else PartialUpload(*row)


def put(tx: Transaction, partial: PartialUpload) -> list[str]:
    """Record parked content; return the names of parked content that it replaces."""
    replaced = [
        parked
        for (parked,) in tx.all(
            "SELECT parked FROM partial_upload WHERE bucket = ? AND key = ? AND user_name = ?",
            (partial.bucket, partial.key, partial.user_name),
        )
    ]
    tx.execute(
        f"INSERT INTO partial_upload ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?) "  # noqa: S608
        "ON CONFLICT (bucket, key, user_name) DO UPDATE SET parked = excluded.parked, "
        "size_bytes = excluded.size_bytes, parked_at_ms = excluded.parked_at_ms",
        (
            partial.bucket,
            partial.key,
            partial.user_name,
            partial.parked,
            partial.size_bytes,
            partial.parked_at_ms,
        ),
    )
    surplus = tx.all(
        "SELECT bucket, key, parked FROM partial_upload WHERE user_name = ? "
        "ORDER BY parked_at_ms DESC LIMIT 10 OFFSET ?",
        (partial.user_name, USER_LIMIT),
    )
    for bucket, key, parked in surplus:
        remove(tx, bucket, key, partial.user_name)
        replaced.append(parked)
    return [parked for parked in replaced if parked != partial.parked]


def remove(tx: Transaction, bucket: str, key: str, user_name: str) -> None:
    """Forget what is parked for the key: it was resumed, or the object exists now."""
    tx.execute("DELETE FROM partial_upload WHERE bucket = ? AND key = ? AND user_name = ?", (bucket, key, user_name))


def expire(tx: Transaction) -> list[str]:
    """Forget what is older than a day; return the names of the content to discard (at most 1,000)."""
    rows = tx.all(
        "SELECT bucket, key, user_name, parked FROM partial_upload WHERE parked_at_ms <= ? LIMIT 1000",
        (clock.now_ms() - EXPIRY_MS,),
    )
    for bucket, key, user_name, _ in rows:
        remove(tx, bucket, key, user_name)
    return [parked for *_, parked in rows]
