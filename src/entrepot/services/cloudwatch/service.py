"""The service `CloudWatch`: metrics, the watch over alarms, dashboards."""

import asyncio
import contextlib
from pathlib import Path

from entrepot import clock
from entrepot.arns import Account
from entrepot.database import Database
from entrepot.errors import StorageError
from entrepot.services.cloudwatch.alarms.watch import Emit, RunAction, Watch
from entrepot.services.cloudwatch.metrics import Metric
from entrepot.services.cloudwatch.store import MetricStore


class CloudWatch:
    """CloudWatch with its values in the folder `path`, and alarms and dashboards in the ledger."""

    def __init__(self, database: Database, account: Account, path: Path, *, run_action: RunAction, emit: Emit) -> None:
        self.database = database
        self.account = account
        path.mkdir(parents=True, exist_ok=True)
        self._path = path / "metrics.db"
        self._run_action = run_action
        self._emit = emit
        self._store: MetricStore | None = None
        self._watch: Watch | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Open the store and begin to watch."""
        self._store = MetricStore(self._path)
        self._watch = Watch(self.database, self._store, self.account, run_action=self._run_action, emit=self._emit)
        self._tasks = [
            asyncio.create_task(self._store.keep(), name="metrics-writer"),
            asyncio.create_task(self._watch.keep(), name="alarms-watch"),
        ]

    async def stop(self) -> None:
        """Stop watching, and write what waits."""
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if self._store is not None:
            await self._store.close()
            self._store = None

    @property
    def store(self) -> MetricStore:
        """The values."""
        if self._store is None:
            raise StorageError("The metric store is not open.")
        return self._store

    @property
    def watch(self) -> Watch:
        """The watch over alarms."""
        if self._watch is None:
            raise StorageError("The metric store is not open.")
        return self._watch

    def record(
        self, metric: Metric, value: float, *, unit: str = "None", at_ms: int | None = None, resolution_s: int = 60
    ) -> None:
        """Record a value of a metric of this installation's own; never blocks, and does nothing before the start."""
        if self._store is not None:
            at_s = (clock.now_ms() if at_ms is None else at_ms) // 1000
            self._store.record(metric, value, at_s, unit=unit, resolution_s=resolution_s)
