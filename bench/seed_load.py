"""`make seed-load`: a stack with very many files and log events, written through the services' own write path.

Each file is published in S3's source bucket and, where it is delivered, copied into the destination: what a delivery by SFTP
and a workflow leaves in the ledger as versions, records and items of the metadata table. Metrics and log events go the way
of a server's own. Executions and invocations are not made: they have a retention of their own. The clock is one that this
program turns, so that files spread over the days before now.
"""

import argparse
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import uvloop

from entrepot import clock, settings
from entrepot.blobs import Blob
from entrepot.cli.scaffold import scaffold
from entrepot.composition import Composition
from entrepot.database import Transaction
from entrepot.loglines import LogLine
from entrepot.services.files.record import FAILED, Records
from entrepot.settings import StackFolder

FILES = 10_000_000
EVENTS = 30_000_000
SPAN_MS = 30 * 86_400_000
"""Files arrived over so long a time, up to now."""

CUSTOMERS = 200
BATCH_FILES = 400
BATCH_EVENTS = 20_000
SOURCE, DESTINATION = "my-source-sftp-bucket", "my-destination-bucket"
FAILED_SHARE, WAITING_SHARE = 0.01, 0.000_1
ERROR = "PermissionError: [Errno 13] the partner's folder is read-only: /in"
LAMBDA_GROUP, TRANSFER_GROUP = "/aws/lambda/transfer", "/aws/transfer/stack"


@dataclass(frozen=True)
class Loaded:
    """What was written, and how long it took."""

    files: int
    events: int
    ledger_bytes: int
    logs_bytes: int
    metrics_bytes: int
    files_s: float
    events_s: float

    def lines(self) -> Iterator[str]:
        """Say it."""
        per_file = self.ledger_bytes / max(1, self.files)
        yield f"files:   {self.files:,} in {self.files_s:.0f} s; ledger {mb(self.ledger_bytes)} = {per_file:.0f} bytes a file"
        per_event = self.logs_bytes / max(1, self.events)
        yield f"events:  {self.events:,} in {self.events_s:.0f} s; log store {mb(self.logs_bytes)} = {per_event:.0f} bytes"
        yield f"metrics: {mb(self.metrics_bytes)}"


def mb(size_bytes: int) -> str:
    """Return a size in megabytes."""
    return f"{size_bytes / 1e6:,.0f} MB"


class TurnedClock:
    """Stands in for `clock.now_ms` while files are made; `at_ms` is what it tells."""

    def __init__(self) -> None:
        self.end_ms = clock.now_ms()
        self.at_ms = self.end_ms - SPAN_MS

    def now_ms(self) -> int:
        """Return the turned time."""
        return self.at_ms


def load(folder: Path, files: int, events: int) -> Loaded:
    """Make the stack in `folder` and fill it."""
    scaffold(folder)
    config = folder / "stack.toml"
    text = config.read_text()
    # No rule: an event without a target costs what it costs, and nothing runs when the stack is started.
    head, _, tail = text.partition("[rules.object-created]")
    config.write_text(head + tail[tail.index("[state_machines.transfer]") :])
    loaded = uvloop.run(_fill(folder, files, events))
    for line in loaded.lines():
        print(line, flush=True)
    return loaded


async def _fill(folder: Path, files: int, events: int) -> Loaded:
    place = StackFolder(folder)
    data = folder / "data"
    data.mkdir(exist_ok=True)
    turned = TurnedClock()
    clock.now_ms = turned.now_ms
    rooms = Composition(place, settings.load(place, {}), data)
    await rooms.logs.start()
    await rooms.furnish()
    await rooms.cloudwatch.start()
    began_s = time.monotonic()
    await _fill_files(rooms, turned, files)
    files_s = time.monotonic() - began_s
    began_s = time.monotonic()
    await _fill_events(rooms, turned, events)
    events_s = time.monotonic() - began_s
    turned.at_ms = turned.end_ms
    await rooms.cloudwatch.stop()
    await rooms.logs.stop()
    await rooms.close()
    ledger, logs, metrics = (
        sum(path.stat().st_size for path in data.glob(pattern))
        for pattern in ("ledger.db*", "logs/logs.db*", "metrics/*")
    )
    return Loaded(files, events, ledger, logs, metrics, files_s, events_s)


async def _fill_files(rooms: Composition, turned: TurnedClock, count: int) -> None:
    chance = random.Random(4)
    start_ms, told = turned.at_ms, time.monotonic()
    for first in range(0, count, BATCH_FILES):
        turned.at_ms = start_ms + SPAN_MS * first // count
        await rooms.database.write(partial(_some_files, rooms, chance, first, min(first + BATCH_FILES, count)))
        if time.monotonic() - told > 20:
            told = time.monotonic()
            print(f"  {first:,} files", flush=True)


def _some_files(rooms: Composition, chance: random.Random, first: int, last: int, tx: Transaction) -> None:
    for number in range(first, last):
        digest = number.to_bytes(8, "big") * 4
        key = f"customer-{chance.randrange(CUSTOMERS):03d}/in/invoice-{number:08d}.csv"
        version = rooms.s3.publish(tx, SOURCE, key, Blob(None, b"", 0, digest), rooms.root)
        luck = chance.random()
        if luck < FAILED_SHARE:
            record = Records(tx).one("sequence = ?", version.sequence)
            assert record is not None
            rooms.files.set_status(tx, record, FAILED, None, ERROR)
        elif luck > FAILED_SHARE + WAITING_SHARE:
            rooms.s3.copy_object(tx, version, DESTINATION, key, rooms.root)


async def _fill_events(rooms: Composition, turned: TurnedClock, count: int) -> None:
    """Log as servers and functions do: three lines a file, in streams of a session or a worker, growing in time."""
    start_ms = turned.end_ms - SPAN_MS
    for first in range(0, count, BATCH_EVENTS):
        turned.at_ms = start_ms + SPAN_MS * first // count
        for number in range(first, min(first + BATCH_EVENTS, count)):
            at_ms = start_ms + SPAN_MS * number // count
            group, stream, text = _line(number)
            rooms.write_log(group, stream, LogLine(at_ms, text))
        await rooms.logs.drained()


def _line(number: int) -> tuple[str, str, str]:
    file = number // 3
    key = f"customer-{file * 7919 % CUSTOMERS:03d}/in/invoice-{file:08d}.csv"
    if number % 3 == 0:
        session = f"{file // 5000:012x}"
        path = f"/{SOURCE}/{key}"
        return (
            TRANSFER_GROUP,
            f"demo.{session}",
            f'{{"role":"arn:aws:iam::000000000000:role/transfer-user","activity-type":"CLOSE","user":"demo","path":"{path}",'
            f'"bytes-in":"1024","session-id":"{session}"}}',
        )
    stream = f"2026/11/23/[$LATEST]{file // 20_000:032x}"
    if number % 3 == 1:
        status = "failed" if file % 100 == 0 else "transferred"
        text = f'{{"level":"INFO","file_id":"{file:064x}","key":"{key}","status":"{status}"}}'
    else:
        text = f"REPORT RequestId: {file:032x}\tDuration: {file % 90 + 3}.21 ms\tBilled Duration: 94 ms\tMemory Size: 256 MB"
    return LAMBDA_GROUP, stream, text


def main() -> None:
    """Fill a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the stack to make; must not exist")
    parser.add_argument("--files", type=int, default=FILES)
    parser.add_argument("--events", type=int, default=EVENTS)
    arguments = parser.parse_args()
    os.nice(5)
    load(arguments.folder, arguments.files, arguments.events)


if __name__ == "__main__":
    main()
