"""The service as the other rooms see it: the objects of the ledger with their content."""

import asyncio
from collections.abc import AsyncIterator

from entrepot.arns import Account
from entrepot.blobs import BlobStore
from entrepot.database import Database, Reader
from entrepot.services.s3 import listing
from entrepot.services.s3.collect import Collector
from entrepot.services.s3.errors import NoSuchKeyError
from entrepot.services.s3.objects import ObjectVersion, OnObjectCreated, OnObjectDeleted
from entrepot.services.s3.versions import Objects


class S3(Objects):
    """Buckets and objects: rows in `database`, content in `blobs` or in the row.

    Functions that take `tx` or `reader` run inside the caller's transaction. `start` begins the collection of content
    that nothing names; `stop` ends it.
    """

    def __init__(
        self,
        database: Database,
        blobs: BlobStore,
        account: Account,
        *,
        on_object_created: OnObjectCreated,
        on_object_deleted: OnObjectDeleted,
    ) -> None:
        super().__init__(blobs.exists, on_object_created, on_object_deleted)
        self.database = database
        self.blobs = blobs
        self.account = account
        self.collector = Collector(database, blobs)
        self._collecting: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin collecting in the background."""
        self._collecting = asyncio.create_task(self.collector.run(), name="s3-collector")

    async def stop(self) -> None:
        """Stop collecting."""
        if self._collecting is not None:
            self._collecting.cancel()
            await asyncio.gather(self._collecting, return_exceptions=True)
            self._collecting = None

    # ── listing ──────────────────────────────────────────────────────────────────────────────────────────────────

    def list_objects(
        self, reader: Reader, bucket: str, *, prefix: str = "", delimiter: str = "", after: str = "", limit: int = 1000
    ) -> listing.Page:
        """See `listing.list_objects`."""
        return listing.list_objects(reader, bucket, prefix=prefix, delimiter=delimiter, after=after, limit=limit)

    def exists_below(self, reader: Reader, bucket: str, prefix: str) -> bool:
        """Return whether any object's key starts with `prefix`."""
        return listing.exists_below(reader, bucket, prefix)

    # ── content ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def read(self, version: ObjectVersion, offset_bytes: int, length_bytes: int) -> bytes:
        """Return up to `length_bytes` of a version's content; fewer only at its end.

        Raises NoSuchKeyError when inline content went away with its last name meanwhile (a blob stays for the grace
        period); whoever reads for long loads the version with `content=True`. Raises StorageError when the disk fails.
        """
        if version.blob_id is not None:
            return await self.blobs.read(version.blob_id, offset_bytes, length_bytes)
        data = await self._inline(version)
        return data[offset_bytes : offset_bytes + length_bytes]

    async def stream(
        self, version: ObjectVersion, offset_bytes: int = 0, length_bytes: int | None = None
    ) -> AsyncIterator[bytes]:
        """Yield a range of a version's content (to its end without `length_bytes`) in pieces of bounded size."""
        length = version.size_bytes - offset_bytes if length_bytes is None else length_bytes
        if version.blob_id is None:
            data = await self._inline(version)
            if piece := data[offset_bytes : offset_bytes + length]:
                yield piece
            return
        async for piece in self.blobs.stream(version.blob_id, offset_bytes, length):
            yield piece

    async def _inline(self, version: ObjectVersion) -> bytes:
        if version.inline is not None:
            return version.inline
        content_id = version.content_id

        def load(reader: Reader) -> bytes | None:
            row = reader.one("SELECT data FROM s3_content WHERE content_id = ?", (content_id,))
            return None if row is None else row[0]

        data = await self.database.read(load)
        if data is None:
            raise NoSuchKeyError(version.key)
        return data
