"""Buckets: naming rules, creation, deletion, versioning and whether they send events to EventBridge.

Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
"""

import ipaddress
import re
from dataclasses import replace

from entrepot import clock
from entrepot.database import Reader, Row, Transaction
from entrepot.services.s3.errors import (
    BucketAlreadyOwnedByYouError,
    BucketNotEmptyError,
    InvalidBucketNameError,
    NoSuchBucketError,
)
from entrepot.services.s3.objects import Bucket

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{1,61})[a-z0-9]")
_RESERVED_PREFIXES = ("xn--", "sthree-", "amzn-s3-demo-")
_RESERVED_SUFFIXES = ("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3")
_COLUMNS = "bucket_id, name, created_at_ms, versioning, event_bridge"


def check_name(name: str) -> None:
    """Raise InvalidBucketNameError unless `name` is a legal bucket name."""
    legal = _NAME.fullmatch(name) is not None and ".." not in name and ".-" not in name and "-." not in name
    if not legal or name.startswith(_RESERVED_PREFIXES) or name.endswith(_RESERVED_SUFFIXES) or _is_address(name):
        raise InvalidBucketNameError(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.IPv4Address(name)
    except ValueError:
        return False
    return True


def find(reader: Reader, name: str) -> Bucket | None:
    """Return the bucket, or None."""
    row = reader.one(f"SELECT {_COLUMNS} FROM s3_bucket WHERE name = ?", (name,))  # noqa: S608 - constant columns
    return None if row is None else _bucket(row)


def get(reader: Reader, name: str) -> Bucket:
    """Return the bucket; raise NoSuchBucketError."""
    bucket = find(reader, name)
    if bucket is None:
        raise NoSuchBucketError(name)
    return bucket


def list_all(reader: Reader, *, prefix: str = "", after: str = "", limit: int = 1000) -> list[Bucket]:
    """Return up to `limit` buckets in order of their names."""
    rows = reader.all(
        f"SELECT {_COLUMNS} FROM s3_bucket WHERE name > ? AND name >= ? ORDER BY name LIMIT ?",  # noqa: S608
        (after, prefix, limit),
    )
    return [_bucket(row) for row in rows if row[1].startswith(prefix)]


def create(tx: Transaction, name: str) -> Bucket:
    """Create a bucket; raise InvalidBucketNameError or BucketAlreadyOwnedByYouError."""
    check_name(name)
    if find(tx, name) is not None:
        raise BucketAlreadyOwnedByYouError(name)
    tx.execute(
        "INSERT INTO s3_bucket (name, created_at_ms, versioning, event_bridge) VALUES (?, ?, '', 0)",
        (name, clock.now_ms()),
    )
    return get(tx, name)


def delete(tx: Transaction, name: str) -> None:
    """Delete an empty bucket; raise BucketNotEmptyError while it has a version or an upload under way."""
    bucket = get(tx, name)
    in_use = tx.one("SELECT 1 FROM s3_version WHERE bucket_id = ? LIMIT 1", (bucket.bucket_id,))
    if in_use is not None:
        raise BucketNotEmptyError(name, versioned=bucket.versioning != "")
    # AWS refuses neither: uploads that were begun die with their bucket. Their parts are released by the caller.
    tx.execute("DELETE FROM s3_bucket WHERE bucket_id = ?", (bucket.bucket_id,))


def set_versioning(tx: Transaction, name: str, status: str) -> Bucket:
    """Set versioning to 'Enabled' or 'Suspended'."""
    bucket = get(tx, name)
    tx.execute("UPDATE s3_bucket SET versioning = ? WHERE bucket_id = ?", (status, bucket.bucket_id))
    return replace(bucket, versioning=status)


def set_event_bridge(tx: Transaction, name: str, *, enabled: bool) -> Bucket:
    """Say whether the bucket sends its events to EventBridge."""
    bucket = get(tx, name)
    tx.execute("UPDATE s3_bucket SET event_bridge = ? WHERE bucket_id = ?", (int(enabled), bucket.bucket_id))
    return replace(bucket, event_bridge=enabled)


def _bucket(row: Row) -> Bucket:
    bucket_id, name, created_at_ms, versioning, event_bridge = row
    return Bucket(bucket_id, name, created_at_ms, versioning, bool(event_bridge))
