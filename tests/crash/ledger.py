"""The last proof, in the stopped store: every place of every round, and the store itself."""

import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

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
        _check_blobs(ledger, data)
    finally:
        ledger.close()
    assert "all as recorded" in stack.entrepot("scrub")


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


def _check_blobs(ledger: sqlite3.Connection, data: Path) -> None:
    """Content that a row names is there; what no row names waits to be collected; nothing unfinished is left."""
    on_disk = {path.name for path in (data / "content").rglob("*") if path.is_file()}
    named = {blob_id for (blob_id,) in ledger.execute("SELECT blob_id FROM s3_content WHERE blob_id IS NOT NULL")}
    assert named <= on_disk, f"LOST: {len(named - on_disk)} contents have a row and no file"
    unfinished = [path for path in (data / "temporary").rglob("*") if path.is_file()]
    assert not unfinished, f"a clean stop left {unfinished}"
