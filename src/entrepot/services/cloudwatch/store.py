"""The file of metric values: minutes, five minutes and hours side by side, filled from memory every few seconds.

Relaxed on purpose, as the log store is: a crash may lose the last seconds of metrics, never a file. What is recorded waits in
memory, one entry for each metric and period; a metric that is set a thousand times a second costs one row a minute.
"""

import asyncio
import json
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import apsw

from entrepot import clock
from entrepot.errors import EntrepotError, StorageError
from entrepot.services.cloudwatch.metrics import RESOLUTIONS_S, Metric
from entrepot.services.cloudwatch.statistics import Statistic

T = TypeVar("T")

FLUSH_INTERVAL_S = 5.0
"""What was recorded is written after at most this time, unless somebody reads it before."""

WAITING_LIMIT = 200_000
"""At most so many (metric, period) wait in memory; then the oldest values are given up and counted."""

SERIES_LIMIT = 100_000
"""Metrics with their dimensions, at most. A value for one more is given up and counted."""

TELL_INTERVAL_S = 60.0
"""A disk that takes nothing is told at most this often."""

SWEEP_INTERVAL_S = 3_600.0
"""How often values past their retention are deleted."""

_MIGRATIONS = (
    (
        "CREATE TABLE series ("
        "series_id INTEGER PRIMARY KEY, namespace TEXT NOT NULL, name TEXT NOT NULL, dimensions TEXT NOT NULL, "
        "unit TEXT NOT NULL, last_at_s INTEGER NOT NULL, UNIQUE (namespace, name, dimensions))",
        "CREATE TABLE datapoint ("
        "resolution_s INTEGER NOT NULL, series_id INTEGER NOT NULL, at_s INTEGER NOT NULL, count REAL NOT NULL, "
        "sum REAL NOT NULL, minimum REAL NOT NULL, maximum REAL NOT NULL, buckets TEXT NOT NULL, "
        "PRIMARY KEY (resolution_s, series_id, at_s)) WITHOUT ROWID",
    ),
)

_log = logging.getLogger("entrepot.cloudwatch")


class MetricStore:
    """The store in one file. `record` may be called from any thread, the rest from the event loop's."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._waiting: dict[tuple[Metric, int, int], Statistic] = {}
        self._units: dict[Metric, str] = {}
        self._ids: dict[Metric, int] = {}
        self.dropped = 0
        self._connection = self._opened()
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="metrics")
        self._swept_s = 0.0
        self._told_s = -TELL_INTERVAL_S

    def _opened(self) -> apsw.Connection:
        connection = apsw.Connection(str(self._path), statementcachesize=32)
        connection.set_busy_timeout(10_000)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        version = connection.execute("PRAGMA user_version").get or 0
        if version > len(_MIGRATIONS):
            raise EntrepotError(
                f"{self._path} was written by a newer version (schema {version}). Install that version."
            )
        connection.execute("BEGIN IMMEDIATE")
        for statements in _MIGRATIONS[version:]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version={len(_MIGRATIONS)}")
        connection.execute("COMMIT")
        return connection

    # ── recording ────────────────────────────────────────────────────────────────────────────────────────────────

    def record(
        self, metric: Metric, value: float, at_s: int, *, count: float = 1.0, unit: str = "None", resolution_s: int = 60
    ) -> None:
        """Record a value, `count` times; never blocks for the disk."""
        with self._lock:
            self._find(metric, at_s, unit, resolution_s).add(value, count)

    def record_statistic(
        self, metric: Metric, statistic: Statistic, at_s: int, *, unit: str, resolution_s: int
    ) -> None:
        """Record values that somebody has summed up."""
        with self._lock:
            self._find(metric, at_s, unit, resolution_s).merge(statistic)

    def _find(self, metric: Metric, at_s: int, unit: str, resolution_s: int) -> Statistic:
        key = (metric, at_s // resolution_s * resolution_s, resolution_s)
        statistic = self._waiting.get(key)
        if statistic is None:
            if len(self._waiting) >= WAITING_LIMIT:
                self._waiting.pop(next(iter(self._waiting)))
                self.dropped += 1
            statistic = self._waiting[key] = Statistic()
            self._units[metric] = unit
        return statistic

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def read(self, work: Callable[[apsw.Connection], T]) -> T:
        """Run a read on the store's thread, after everything recorded before is in the tables; StorageError."""

        def flushed() -> T:
            try:
                self._flush()
            except apsw.Error as error:
                self._tell(error)  # what is stored can be read all the same
            try:
                return work(self._connection)
            except apsw.Error as error:
                raise StorageError(f"The metrics in {self._path} cannot be read: {error}") from error

        return await asyncio.get_running_loop().run_in_executor(self._threads, flushed)

    async def series(self, namespace: str | None = None, name: str | None = None) -> list[tuple[Metric, str, int]]:
        """Return metrics with their unit and the time of their last value, in order."""

        def work(connection: apsw.Connection) -> list[tuple[Metric, str, int]]:
            rows = connection.execute(
                "SELECT namespace, name, dimensions, unit, last_at_s FROM series "
                "WHERE (?1 IS NULL OR namespace = ?1) AND (?2 IS NULL OR name = ?2) ORDER BY namespace, name, dimensions",
                (namespace, name),
            ).fetchall()
            return [(Metric(str(r[0]), str(r[1]), _dimensions(str(r[2]))), str(r[3]), int(r[4])) for r in rows]  # type: ignore[arg-type]

        return await self.read(work)

    async def values(
        self, metrics: Sequence[Metric], period_s: int, start_s: int, end_s: int, *, percentiles: bool
    ) -> list[dict[int, Statistic]]:
        """Return for each metric what was recorded in each period that begins at or after `start_s` and before `end_s`."""
        resolution_s = resolution(period_s, start_s)

        def work(connection: apsw.Connection) -> list[dict[int, Statistic]]:
            return [self._values(connection, m, resolution_s, period_s, start_s, end_s, percentiles) for m in metrics]

        return await self.read(work)

    def _values(
        self,
        connection: apsw.Connection,
        metric: Metric,
        resolution_s: int,
        period_s: int,
        start_s: int,
        end_s: int,
        percentiles: bool,
    ) -> dict[int, Statistic]:
        found: dict[int, Statistic] = {}
        series_id = self._id(metric)
        if series_id is None:
            return found
        parameters = (period_s, resolution_s, series_id, start_s, end_s)
        if not percentiles:
            rows = connection.execute(
                "SELECT at_s / ?1 * ?1 AS period, sum(count), sum(sum), min(minimum), max(maximum) FROM datapoint "
                "WHERE resolution_s = ?2 AND series_id = ?3 AND at_s >= ?4 AND at_s < ?5 GROUP BY period ORDER BY period",
                parameters,
            )
            return {int(r[0]): Statistic(*r[1:]) for r in rows}
        for at_s, count, total, minimum, maximum, buckets in connection.execute(
            "SELECT at_s / ?1 * ?1, count, sum, minimum, maximum, buckets FROM datapoint "
            "WHERE resolution_s = ?2 AND series_id = ?3 AND at_s >= ?4 AND at_s < ?5 ORDER BY at_s",
            parameters,
        ):
            statistic = Statistic(count, total, minimum, maximum, _buckets(str(buckets)))
            found.setdefault(int(at_s), Statistic()).merge(statistic)
        return found

    # ── on the store's thread ────────────────────────────────────────────────────────────────────────────────────

    async def keep(self) -> None:
        """Write what waits every few seconds and delete what is too old, for ever."""
        while True:
            await asyncio.sleep(FLUSH_INTERVAL_S)
            try:
                await self.read(self._sweep)
            except StorageError as error:
                _log.error("%s It is tried again.", error)

    async def close(self) -> None:
        """Write what waits and close."""
        await self.read(lambda connection: None)
        self._threads.shutdown()
        self._connection.close()

    def _tell(self, error: apsw.Error) -> None:
        now_s = clock.monotonic_s()
        if now_s - self._told_s > TELL_INTERVAL_S:
            self._told_s = now_s
            _log.error("Metrics cannot be written to %s: %s. They wait in memory; free disk space.", self._path, error)

    def _flush(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, {}
            units, self._units = self._units, {}
        if not waiting:
            return
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            for (metric, at_s, resolution_s), statistic in waiting.items():
                self._write(metric, at_s, resolution_s, statistic, units.get(metric))
            connection.execute("COMMIT")
        except apsw.Error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            self._ids.clear()
            with self._lock:
                for key, statistic in waiting.items():
                    if key in self._waiting:
                        self._waiting[key].merge(statistic)
                    elif len(self._waiting) < WAITING_LIMIT:
                        self._waiting[key] = statistic
                    else:
                        self.dropped += 1
            raise

    def _write(self, metric: Metric, at_s: int, resolution_s: int, statistic: Statistic, unit: str | None) -> None:
        connection = self._connection
        series_id = self._id(metric)
        if series_id is None:
            # Counted in the table: what is remembered here is a part of it, and none after a start or a sweep.
            if int(connection.execute("SELECT count(*) FROM series").get) >= SERIES_LIMIT:
                self.dropped += 1
                return
            connection.execute(
                "INSERT INTO series (namespace, name, dimensions, unit, last_at_s) VALUES (?, ?, ?, 'None', 0)",
                (metric.namespace, metric.name, json.dumps(metric.dimensions)),
            )
            series_id = self._ids[metric] = connection.last_insert_rowid()
        connection.execute(
            "UPDATE series SET last_at_s = max(last_at_s, ?), unit = coalesce(?, unit) WHERE series_id = ?",
            (at_s, unit, series_id),
        )
        for wider_s in RESOLUTIONS_S:
            if wider_s < resolution_s or (wider_s == 1 and resolution_s != 1):
                continue
            place = (wider_s, series_id, at_s // wider_s * wider_s)
            known = connection.execute(
                "SELECT count, sum, minimum, maximum, buckets FROM datapoint "
                "WHERE resolution_s = ? AND series_id = ? AND at_s = ?",
                place,
            ).fetchall()
            merged = Statistic()
            for count, total, minimum, maximum, buckets in known:
                merged = Statistic(count, total, minimum, maximum, _buckets(str(buckets)))  # type: ignore[arg-type]
            merged.merge(statistic)
            values = (merged.count, merged.sum, merged.minimum, merged.maximum, json.dumps(merged.buckets))
            connection.execute(
                "INSERT OR REPLACE INTO datapoint "
                "(resolution_s, series_id, at_s, count, sum, minimum, maximum, buckets) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (*place, *values),
            )

    def _id(self, metric: Metric) -> int | None:
        known = self._ids.get(metric)
        if known is None:
            rows = self._connection.execute(
                "SELECT series_id FROM series WHERE namespace = ? AND name = ? AND dimensions = ?",
                (metric.namespace, metric.name, json.dumps(metric.dimensions)),
            ).fetchall()
            for (series_id,) in rows:
                known = self._ids[metric] = int(series_id)  # type: ignore[arg-type]
        return known

    def _sweep(self, connection: apsw.Connection) -> None:
        now_s = clock.monotonic_s()
        if now_s - self._swept_s < SWEEP_INTERVAL_S:
            return
        self._swept_s = now_s
        today_s = clock.now_ms() // 1000
        for resolution_s, kept_s in RESOLUTIONS_S.items():
            connection.execute(
                "DELETE FROM datapoint WHERE resolution_s = ? AND at_s < ?", (resolution_s, today_s - kept_s)
            )
        connection.execute("DELETE FROM series WHERE last_at_s < ?", (today_s - max(RESOLUTIONS_S.values()),))
        self._ids.clear()


def resolution(period_s: int, start_s: int) -> int:
    """Return the widest kept period that divides `period_s` and still reaches back to `start_s`."""
    now_s = clock.now_ms() // 1000
    fitting = [wide_s for wide_s in RESOLUTIONS_S if period_s % wide_s == 0]
    reaching = [wide_s for wide_s in fitting if start_s >= now_s - RESOLUTIONS_S[wide_s]]
    if wide := [wide_s for wide_s in reaching if wide_s > 1]:
        return max(wide)
    return min(reaching or fitting)


def _dimensions(text: str) -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, value in json.loads(text))


def _buckets(text: str) -> dict[int, float]:
    return {int(index): count for index, count in json.loads(text).items()}
