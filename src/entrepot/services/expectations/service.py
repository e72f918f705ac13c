"""Expectations: what should arrive until when; each window gets its one outcome, and whoever listens is told.

A file counts in the transaction that records it. A window in which nothing came is settled after it closed, or at the next
start when nobody was there; the outcome, its event and how far is settled are one transaction.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from typing import Any, Protocol, TypeAlias

from entrepot import clock
from entrepot.arns import Account
from entrepot.database import Database, Reader, Transaction
from entrepot.errors import StorageError
from entrepot.services.expectations import outcomes
from entrepot.services.expectations.book import EXPECTATIONS_LIMIT, Book, every
from entrepot.services.expectations.errors import LimitExceededError, ResourceNotFoundError
from entrepot.services.expectations.expectation import Expectation, of_json
from entrepot.services.expectations.outcomes import UNMET, Arrival, Kind, Outcome
from entrepot.services.expectations.windows import Window, closed_between, last_closed, next_window, window_at

LOOK_INTERVAL_S = 30.0
"""Windows are looked at so often, and when the next one closes."""

SETTLE_DELAY_MS = 1_000
"""A file that arrived just before a window closed may be committed so much later."""

SETTLED_AT_ONCE = 100
"""Windows that one transaction settles."""

DETAIL_TYPES: Mapping[Kind, str] = {
    "arrived": "Expected File Arrived",
    "late": "Expected File Late",
    "missing": "Expected File Missing",
    "too-small": "Expected File Too Small",
    "duplicate": "Expected File Duplicate",
}

Emit: TypeAlias = Callable[[Transaction, str, str, Mapping[str, Any]], None]
"""`emit(tx, detail_type, resource_arn, detail)`: put an event of entrepot.expectations on the default bus."""

OnOutcome: TypeAlias = Callable[[str, Kind], None]
"""`on_outcome(name, kind)`: called on the event loop, after the commit."""

ArrivedSince: TypeAlias = Callable[[Reader, str, int], Iterable[Arrival]]
"""`arrived_since(reader, key_prefix, since_ms)`: files that are there already."""


class Created(Protocol):
    """A version that became visible."""

    @property
    def bucket(self) -> str: ...
    @property
    def key(self) -> str: ...
    @property
    def size_bytes(self) -> int: ...
    @property
    def created_at_ms(self) -> int: ...


_log = logging.getLogger("entrepot.expectations")


class Expectations:
    """The expectations and their watch."""

    def __init__(
        self,
        database: Database,
        account: Account,
        *,
        emit: Emit,
        on_outcome: OnOutcome = lambda name, kind: None,
        arrived_since: ArrivedSince = lambda reader, prefix, since_ms: (),
    ) -> None:
        self.database = database
        self.account = account
        self._emit = emit
        self._on_outcome = on_outcome
        self._arrived_since = arrived_since
        self._book = Book()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Settle what closed while nobody was there, then begin to watch."""
        await self.look()
        self._task = asyncio.create_task(self._keep(), name="expectations-watch")

    async def stop(self) -> None:
        """Stop watching."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    # ── what is expected ─────────────────────────────────────────────────────────────────────────────────────────

    def put(self, tx: Transaction, wanted: Expectation) -> None:
        """Expect something from now on; the window that is open counts what came already. Past outcomes stay."""
        row = tx.one("SELECT definition FROM expectations_expectation WHERE name = ?", (wanted.name,))
        if row is not None and of_json(row[0]) == wanted:
            return
        now_ms = clock.now_ms()
        if row is not None:
            self._settle(tx, of_json(row[0]), now_ms)
        elif len(every(tx)) >= EXPECTATIONS_LIMIT:
            raise LimitExceededError(f"There are {EXPECTATIONS_LIMIT} expectations already; delete one.")
        tx.execute(
            "INSERT INTO expectations_expectation (name, definition, settled_until_ms) VALUES (?, ?, ?) "
            "ON CONFLICT (name) DO UPDATE SET definition = excluded.definition, settled_until_ms = excluded.settled_until_ms",
            (wanted.name, wanted.as_json(), now_ms),
        )
        self._book.change(tx)
        tx.after_commit(self._wake.set)
        window = window_at(wanted.schedule, now_ms)
        if window is not None and outcomes.find(tx, wanted.name, window.date) is None:
            there = self._arrived_since(tx, wanted.prefix, window.opens_at_ms)
            for file in sorted(there, key=lambda file: file.at_ms):
                if file.at_ms > window.opens_at_ms and wanted.fits(file.bucket, file.key, file.customer_id):
                    self._arrived(tx, wanted, file)

    def delete(self, tx: Transaction, name: str) -> None:
        """Expect it no more, and forget its outcomes; raise ResourceNotFoundError."""
        if not tx.execute("DELETE FROM expectations_expectation WHERE name = ?", (name,)):
            raise _unknown(name)
        outcomes.forget(tx, name)
        self._book.change(tx)

    def find(self, reader: Reader, name: str) -> Expectation:
        """Return an expectation; raise ResourceNotFoundError."""
        row = reader.one("SELECT definition FROM expectations_expectation WHERE name = ?", (name,))
        if row is None:
            raise _unknown(name)
        return of_json(row[0])

    def count_unmet(self, reader: Reader) -> int:
        """Return how many expectations have brought no usable file in their newest window."""
        rows = reader.all(
            "SELECT outcome FROM expectations_outcome o WHERE window_date = "
            "(SELECT MAX(window_date) FROM expectations_outcome WHERE name = o.name) LIMIT ?",
            (EXPECTATIONS_LIMIT,),
        )
        return sum(row[0] in UNMET for row in rows)

    # ── what arrives ─────────────────────────────────────────────────────────────────────────────────────────────

    def file_arrived(self, tx: Transaction, created: Created, file_id: str, customer_id: str) -> None:
        """Count a file where it was expected; in the transaction that records it."""
        index = self._book.of(tx)
        if index is None:
            return
        for one in index.matching(created.bucket, created.key, customer_id):
            self._arrived(
                tx,
                one,
                Arrival(file_id, created.bucket, created.key, customer_id, created.size_bytes, created.created_at_ms),
            )

    def _arrived(self, tx: Transaction, one: Expectation, file: Arrival) -> None:
        window = window_at(one.schedule, file.at_ms)
        if window is None:
            self._arrived_after(tx, one, file)
            return
        before = outcomes.find(tx, one.name, window.date) or outcomes.missing(one.name, window, file.at_ms)
        in_time: Kind = "late" if file.at_ms > window.deadline_at_ms else "arrived"
        if file.size_bytes < one.minimum_size_bytes:
            kind: Kind = "too-small"
            after = replace(before, small_files=before.small_files + 1)
            if before.kind in UNMET:
                after = replace(after, kind=kind).told_of(file)
        elif before.files == 0:
            kind, after = in_time, replace(before, kind=in_time, files=1).told_of(file)
        else:
            kind = "duplicate" if before.files >= one.maximum_files else in_time
            after = replace(before, kind="duplicate" if kind == "duplicate" else before.kind, files=before.files + 1)
        self._tell(tx, one, replace(after, decided_at_ms=file.at_ms), kind, file)

    def _arrived_after(self, tx: Transaction, one: Expectation, file: Arrival) -> None:
        """A file between two windows: it is late where the last one brought nothing, else nobody waits for it."""
        window = last_closed(one.schedule, file.at_ms)
        if window is None:
            return
        self._settle(tx, one, file.at_ms)
        before = outcomes.find(tx, one.name, window.date)
        if before is None or before.kind not in UNMET:
            return
        if file.size_bytes < one.minimum_size_bytes:
            small = replace(before, kind="too-small", small_files=before.small_files + 1, decided_at_ms=file.at_ms)
            self._tell(tx, one, small.told_of(file), "too-small", file)
        else:
            late = replace(before, kind="late", files=1, decided_at_ms=file.at_ms)
            self._tell(tx, one, late.told_of(file), "late", file)

    def _tell(self, tx: Transaction, one: Expectation, outcome: Outcome, kind: Kind, file: Arrival | None) -> None:
        """Write an outcome down, and say what happened."""
        outcomes.save(tx, outcome)
        detail: dict[str, Any] = {
            "expectation": one.name,
            "window": outcome.window_date,
            "deadline": clock.iso(outcome.deadline_at_ms),
            "key-pattern": one.key_pattern,
            "customer-id": one.customer_id or (file.customer_id if file else ""),
            "outcome": outcome.kind,
            "minimum-size": one.minimum_size_bytes,
            "maximum-files": one.maximum_files,
            "files": outcome.files,
        }
        if file is not None:
            detail["file"] = {
                "file-id": file.file_id,
                "bucket": file.bucket,
                "key": file.key,
                "size": file.size_bytes,
                "arrived": clock.iso(file.at_ms),
            }
        self._emit(tx, DETAIL_TYPES[kind], self.account.arn("entrepot", f"expectation/{one.name}"), detail)
        name = one.name
        tx.after_commit(lambda: self._on_outcome(name, kind))

    # ── what does not ────────────────────────────────────────────────────────────────────────────────────────────

    async def _keep(self) -> None:
        while True:
            wait_s = LOOK_INTERVAL_S
            try:
                wait_s = await self.look()
            except StorageError as error:
                _log.error("Expectations cannot be looked at: %s It is tried again.", error)
            except Exception:  # noqa: BLE001 - the task's top frame
                _log.exception("Expectations could not be looked at; it is tried again.")
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()

    async def look(self) -> float:
        """Settle every window that has closed; return in how many seconds to look again."""
        now_ms = clock.now_ms() - SETTLE_DELAY_MS
        wait_s = LOOK_INTERVAL_S
        rows = await self.database.scan(
            lambda reader: reader.all(
                "SELECT definition, settled_until_ms FROM expectations_expectation LIMIT ?", (EXPECTATIONS_LIMIT,)
            )
        )
        for definition, settled_until_ms in rows:
            one = of_json(definition)
            while next(closed_between(one.schedule, settled_until_ms, now_ms), None) is not None:
                settled = await self.database.write(partial(self._settle_known, name=one.name, until_ms=now_ms))
                if settled is None:
                    break
                settled_until_ms = settled
            following = next_window(one.schedule, now_ms + 1)
            if following is not None:
                wait_s = min(wait_s, (following.closes_at_ms - now_ms) / 1000)
        return max(wait_s, 0.05)

    def _settle_known(self, tx: Transaction, name: str, until_ms: int) -> int | None:
        row = tx.one("SELECT definition FROM expectations_expectation WHERE name = ?", (name,))
        return None if row is None else self._settle(tx, of_json(row[0]), until_ms)

    def _settle(self, tx: Transaction, one: Expectation, until_ms: int) -> int | None:
        """Give each window that has closed its outcome; return until when it is done. None: it is expected no more."""
        row = tx.one("SELECT settled_until_ms FROM expectations_expectation WHERE name = ?", (one.name,))
        if row is None:
            return None
        settled_until_ms: int = row[0]
        windows = list(islice(closed_between(one.schedule, settled_until_ms, until_ms), SETTLED_AT_ONCE))
        if not windows:
            return settled_until_ms
        for window in windows:
            self._settle_window(tx, one, window)
        settled_until_ms, newest_date = windows[-1].closes_at_ms, windows[-1].date
        tx.execute(
            "UPDATE expectations_expectation SET settled_until_ms = ? WHERE name = ?", (settled_until_ms, one.name)
        )
        oldest = datetime.fromisoformat(newest_date).replace(tzinfo=UTC) - timedelta(days=outcomes.OUTCOMES_KEPT_DAYS)
        outcomes.forget(tx, one.name, oldest.date().isoformat())
        return settled_until_ms

    def _settle_window(self, tx: Transaction, one: Expectation, window: Window) -> None:
        if outcomes.find(tx, one.name, window.date) is None:
            self._tell(tx, one, outcomes.missing(one.name, window, clock.now_ms()), "missing", None)


def _unknown(name: str) -> ResourceNotFoundError:
    return ResourceNotFoundError(f"There is no expectation {name[:64]!r}. `entrepot expectations` lists them.")
