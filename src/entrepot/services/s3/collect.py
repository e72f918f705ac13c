"""Garbage collection: deletes content that no version and no part names, and never content that is being committed.

A blob is deleted in three steps: *doom* (a write transaction checks that nothing names it and marks it), delete the
file, *forget* the mark. Naming a blob (`contents.add`) is a write transaction too, which refuses a marked blob and one
whose file is gone. Write transactions run one after another, in whatever process they are: a blob is either named
before it can be doomed, or refused afterwards. A crash between the steps leaves a mark, and the next round goes on.
"""

import asyncio
from dataclasses import dataclass

from entrepot import clock
from entrepot.blobs import BlobStore
from entrepot.database import Database, Reader, Transaction
from entrepot.errors import EntrepotError

ORPHAN_GRACE_MS = 24 * 60 * 60 * 1000
"""Content that was finished but never named stays this long: its commit may still be under way."""

ROUND_INTERVAL_S = 60.0
"""Seconds between two rounds over the garbage."""

ORPHAN_INTERVAL_S = 6 * 60 * 60.0
"""Seconds between two searches of the store for content that was never named (after crashes)."""

BATCH_LIMIT = 200
"""At most this many blobs are doomed in one transaction."""


@dataclass(frozen=True, slots=True)
class Collected:
    """What a round did."""

    blobs: int
    orphans: int


class Collector:
    """Collects the garbage of one ledger and its content store. Several processes may do so at once."""

    def __init__(self, database: Database, blobs: BlobStore) -> None:
        self._database = database
        self._blobs = blobs

    async def run(self) -> None:
        """Collect until cancelled. A failing disk is tried again in the next round."""
        next_search_s = clock.monotonic_s()
        while True:
            try:
                if clock.monotonic_s() >= next_search_s:
                    next_search_s = clock.monotonic_s() + ORPHAN_INTERVAL_S
                    await self._blobs.sweep()
                    await self.find_orphans()
                await self.collect()
            except EntrepotError:
                pass  # The next round tries again; whoever writes meanwhile hears of the failing disk.
            await asyncio.sleep(ROUND_INTERVAL_S)

    async def find_orphans(self, *, grace_ms: int = ORPHAN_GRACE_MS) -> int:
        """Turn content older than the grace period that nothing names into garbage; return how many."""
        found = 0
        async for blob_ids in self._blobs.list_ids(older_than_ms=clock.now_ms() - grace_ms):

            def unnamed(reader: Reader, ids: list[str] = blob_ids) -> list[str]:
                return [blob_id for blob_id in ids if not _is_known(reader, blob_id)]

            candidates = await self._database.scan(unnamed)
            if not candidates:
                continue

            def mark(tx: Transaction, ids: list[str] = candidates) -> int:
                orphans = [blob_id for blob_id in ids if not _is_known(tx, blob_id)]
                for blob_id in orphans:
                    tx.execute("INSERT INTO s3_garbage (blob_id, due_at_ms, doomed) VALUES (?, ?, 0)", (blob_id, 0))
                return len(orphans)

            found += await self._database.write(mark)
        return found

    async def collect(self) -> int:
        """Delete all garbage that is due; return how many blobs."""
        total = 0
        while doomed := await self._database.write(_doom):
            for blob_id in doomed:
                await self._blobs.remove(blob_id)

            def forget(tx: Transaction, ids: list[str] = doomed) -> None:
                for blob_id in ids:
                    tx.execute("DELETE FROM s3_garbage WHERE blob_id = ?", (blob_id,))

            await self._database.write(forget)
            total += len(doomed)
        return total


def _is_known(reader: Reader, blob_id: str) -> bool:
    if reader.one("SELECT 1 FROM s3_content WHERE blob_id = ?", (blob_id,)) is not None:
        return True
    return reader.one("SELECT 1 FROM s3_garbage WHERE blob_id = ?", (blob_id,)) is not None


def _doom(tx: Transaction) -> list[str]:
    due = tx.all(
        "SELECT blob_id FROM s3_garbage WHERE due_at_ms <= ? ORDER BY due_at_ms LIMIT ?",
        (clock.now_ms(), BATCH_LIMIT),
    )
    doomed = []
    for (blob_id,) in due:
        if tx.one("SELECT 1 FROM s3_content WHERE blob_id = ?", (blob_id,)) is not None:
            tx.execute("DELETE FROM s3_garbage WHERE blob_id = ?", (blob_id,))
            continue
        tx.execute("UPDATE s3_garbage SET doomed = 1 WHERE blob_id = ?", (blob_id,))
        doomed.append(blob_id)
    return doomed
