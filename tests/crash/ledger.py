"""The last proof, in the stopped store: every place of every round, and the store itself."""

import asyncio
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

from entrepot.blobs.local import LocalBlobStore
from entrepot.database.sqlite import SQLiteDatabase
from entrepot.services.s3.collect import Collector
from tests.crash.book import Book, Place
from tests.crash.pipelines import COPY_DESTINATION, COPY_SOURCE, DESTINATIONS, TEMPORARY_SUFFIX
from tests.running import Stack

VERSIONS = """
SELECT b.name, v.key, lower(hex(c.sha256)), c.blob_id FROM s3_version v
JOIN s3_bucket b ON b.bucket_id = v.bucket_id LEFT JOIN s3_content c ON c.content_id = v.content_id ORDER BY v.sequence
"""


def check(stack: Stack, book: Book) -> None:
    """Check a stack whose server has stopped; raise AssertionError on a broken promise."""
    data = stack.folder / "data"
    ledger = sqlite3.connect(f"file:{data / 'ledger.db'}?mode=ro", uri=True)
    try:
        assert ledger.execute("PRAGMA integrity_check").fetchall() == [("ok",)], "the ledger is damaged"
        _check_versions(ledger, book)
        _check_executions(ledger)
    finally:
        ledger.close()
    assert "all as recorded" in stack.entrepot("scrub")
    _check_blobs(data)


def _check_versions(ledger: sqlite3.Connection, book: Book) -> None:
    """Source and destination of every place hold the same content, one that can be there, and as often as it arrived."""
    newest: dict[Place, str] = {}
    counts: Counter[Place] = Counter()
    for bucket, key, sha256, _ in ledger.execute(VERSIONS):
        newest[bucket, key] = sha256
        counts[bucket, key] += 1
    records: Counter[Place] = Counter()
    for bucket, key, status in ledger.execute(
        "SELECT p.source_bucket, f.key, f.status FROM files_file f JOIN files_pipeline p ON p.pipeline_id = f.pipeline_id"
    ):
        records[bucket, key] += 1
        assert status == 2 or key.endswith(TEMPORARY_SUFFIX), f"{key} has status {status}"
    for place in book.attempts:
        bucket, key = place
        found, delivered = newest.get(place), newest.get((DESTINATIONS[bucket], key))
        assert found == delivered, f"{key} is not the same in {bucket} and at its destination"
        assert found is None or found in book.possible(place), f"{key} has content that cannot be there"
        assert found is not None or not book.is_acknowledged(place), f"LOST: {key}"
        if bucket == COPY_SOURCE:
            copies = counts[COPY_DESTINATION, key]
            assert copies == records[place], f"DELIVERED TWICE: {key} arrived {records[place]} and left {copies} times"


def _check_executions(ledger: sqlite3.Connection) -> None:
    """Each attempt at each event started one execution, which has ended; nothing waits."""
    started: Counter[Any] = Counter()
    for name, status in ledger.execute("SELECT name, status FROM execution"):
        started[name[:36].replace("-", "")] += 1
        assert status in ("SUCCEEDED", "FAILED"), f"execution {name} is {status}"
    for key, event_id, redrives in ledger.execute("SELECT key, lower(hex(event_id)), redrive_count FROM files_file"):
        wanted = 0 if key.endswith(TEMPORARY_SUFFIX) else redrives + 1
        assert started.pop(event_id, 0) == wanted, f"{key} has not {wanted} executions"
    assert not started, f"executions of events that no file has: {started}"
    assert ledger.execute("SELECT count(*) FROM events_delivery").fetchone() == (0,), "deliveries wait still"


def _check_blobs(data: Path) -> None:
    """Content that a row names is there; what no row names is collected as garbage; nothing unfinished is left."""
    unfinished = [path for path in (data / "temporary").rglob("*") if path.is_file()]
    assert not unfinished, f"a clean stop left {unfinished}"
    orphans = len(_on_disk(data) - _named(data, "s3_content") - _named(data, "s3_garbage"))
    collected = asyncio.run(_collect(data))
    assert collected == orphans, f"{orphans} contents have no row, {collected} were collected"
    on_disk, named = _on_disk(data), _named(data, "s3_content")
    assert named <= on_disk, f"LOST: {len(named - on_disk)} contents have a row and no file"
    assert on_disk - named <= _named(data, "s3_garbage"), "content without a name is neither garbage nor collected"


async def _collect(data: Path) -> int:
    """Collect what crashes left behind, without the grace period; return how many contents."""
    database, blobs = SQLiteDatabase(data / "ledger.db"), LocalBlobStore(data)
    try:
        collector = Collector(database, blobs)
        await collector.find_orphans(grace_ms=-60_000)
        return await collector.collect()
    finally:
        await blobs.close()
        await database.close()


def _on_disk(data: Path) -> set[str]:
    return {path.name for path in (data / "content").rglob("*") if path.is_file()}


def _named(data: Path, table: str) -> set[str]:
    ledger = sqlite3.connect(f"file:{data / 'ledger.db'}?mode=ro", uri=True)
    try:
        return {row[0] for row in ledger.execute(f"SELECT blob_id FROM {table} WHERE blob_id IS NOT NULL")}
    finally:
        ledger.close()
