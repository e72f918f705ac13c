"""An S3 service over a real ledger and content store in a folder, with the bucket `bucket`, for tests."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from entrepot.arns import Account
from entrepot.blobs import Blob
from entrepot.blobs.local import LocalBlobStore
from entrepot.database.sqlite import SQLiteDatabase
from entrepot.operations import Call, Principal
from entrepot.services.s3 import MIGRATIONS, S3, ObjectCreated, ObjectDeleted, buckets

CALL = Call(Principal("arn:aws:iam::000000000000:root", "root", "operator"), "request-1")


def blob_of(data: bytes) -> Blob:
    """Return inline content."""
    return Blob(None, data, len(data), hashlib.sha256(data).digest())


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[tuple[S3, list[ObjectCreated | ObjectDeleted]]]:
    """Open a service; what happens to objects is appended to the list."""
    heard: list[ObjectCreated | ObjectDeleted] = []
    database = SQLiteDatabase(folder / "ledger.db")
    database.migrate(MIGRATIONS)
    blobs = LocalBlobStore(folder / "store", inline_limit_bytes=1000)
    service = S3(
        database,
        blobs,
        Account(),
        on_object_created=lambda tx, created, call: heard.append(created),
        on_object_deleted=lambda tx, deleted, call: heard.append(deleted),
    )
    await database.write(lambda tx: buckets.create(tx, "bucket"))
    try:
        yield service, heard
    finally:
        await service.stop()
        await blobs.close()
        await database.close()
