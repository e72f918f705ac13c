"""The map runs of this process: each is driven by a task of its own, and begun, aborted and told of inside transactions.

The ledger knows where each run stands; what is here is made anew after a restart.
"""

import asyncio
import logging
from functools import partial

from entrepot.arns import Account
from entrepot.database import Database, Transaction
from entrepot.errors import StorageError
from entrepot.services.stepfunctions.executions import Execution
from entrepot.services.stepfunctions.happenings import ScheduledMapRun
from entrepot.services.stepfunctions.history import Event

from . import rows
from .driver import PAUSE_LIMIT_S, Conductor, Driver, S3For
from .machines import child_machine
from .rows import ChildStatus, MapRun, Stage

WORKING_LIMIT = 32
"""Map runs that read, begin children or write at once. Those whose children run need no turn: nested ones could not end."""

_log = logging.getLogger(__name__)


class MapRuns:
    """The map runs of this process."""

    def __init__(self, database: Database, account: Account, conductor: Conductor, s3_for: S3For) -> None:
        self._database = database
        self._account = account
        self._conductor = conductor
        self._s3_for = s3_for
        self._drivers: dict[int, Driver] = {}
        self._room = asyncio.Semaphore(WORKING_LIMIT)
        self._recovery: asyncio.Task[None] | None = None
        self._running = False

    async def start(self) -> None:
        """Take up the map runs that are unfinished, in the background."""
        self._running = True
        self._recovery = asyncio.create_task(self._recover(), name="map-runs-recovery")

    async def stop(self) -> None:
        """Stop driving; the ledger has where every run stands."""
        self._running = False
        tasks = [driver.task for driver in self._drivers.values() if driver.task is not None]
        if self._recovery is not None:
            tasks.append(self._recovery)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._drivers.clear()

    async def _recover(self) -> None:
        after = -1
        while True:
            try:
                page = await self._database.read(partial(rows.unfinished, after=after, limit=100))
            except StorageError as error:
                _log.warning("the unfinished map runs cannot be read, they are read again: %s", error)
                await asyncio.sleep(PAUSE_LIMIT_S)
                continue
            if not page:
                return
            for run_id in page:
                self._drive(run_id)
            after = page[-1]

    def _drive(self, run_id: int) -> None:
        """Make sure that a run is driven, and that its driver looks into the ledger."""
        driver = self._drivers.get(run_id)
        if driver is None:
            if not self._running:
                return
            driver = self._drivers[run_id] = Driver(
                self._database, self._account, self._conductor, self._s3_for, run_id
            )
            driver.task = asyncio.create_task(self._run(driver), name=f"map-run-{run_id}")
        driver.wake.set()

    async def _run(self, driver: Driver) -> None:
        try:
            await driver.run(self._room)
        finally:
            if self._drivers.get(driver.run_id) is driver:
                del self._drivers[driver.run_id]

    # ── inside transactions of executions ────────────────────────────────────────────────────────────────────────

    def begin(self, tx: Transaction, execution: Execution, scheduled: ScheduledMapRun) -> None:
        """Insert a map run; it begins when that is durable."""
        distribution = scheduled.state.distribution
        assert distribution is not None
        machine = child_machine(tx, self._account, execution.machine, distribution)
        request = {
            "items": scheduled.items,
            "parameters": scheduled.parameters,
            "max_items": scheduled.max_items,
            "batch_items": scheduled.batch_items,
            "batch_bytes": scheduled.batch_bytes,
            "batch_input": scheduled.batch_input,
            "writer": scheduled.writer,
        }
        run_id = rows.insert(
            tx,
            scheduled.arn,
            execution.id,
            scheduled.task_id,
            machine.revision_id,
            scheduled.max_concurrency,
            (scheduled.tolerated_count, scheduled.tolerated_percentage),
            request,
        )
        tx.after_commit(partial(self._drive, run_id))

    def abort(self, tx: Transaction, execution: Execution, task_id: int) -> None:
        """End the map run of a task that nobody awaits any more; its children are stopped."""
        run = rows.by_task(tx, self._account, execution.id, task_id)
        if run is not None and run.status == "RUNNING":
            rows.end(tx, run.id, "ABORTED", Stage.STOPPING)
            tx.after_commit(partial(self._drive, run.id))

    def redrive(self, tx: Transaction, execution: Execution, task_id: int) -> None:
        """Let a map run go on from the children that did not succeed."""
        run = rows.by_task(tx, self._account, execution.id, task_id)
        if run is not None:
            rows.reopen(tx, run.id)
            tx.after_commit(partial(self._drive, run.id))

    def update(
        self,
        tx: Transaction,
        run: MapRun,
        max_concurrency: int | None,
        tolerated_count: int | None,
        tolerated_percentage: float | None,
    ) -> None:
        """Change the limits of a running map run that are given."""
        rows.update(tx, run.id, max_concurrency, tolerated_count, tolerated_percentage)
        tx.after_commit(partial(self._drive, run.id))

    def execution_ended(self, tx: Transaction, execution: Execution, last: Event) -> None:
        """Note the end of an execution that may be a child."""
        if "/" not in execution.machine.name:
            return
        found = rows.child_of(tx, execution.id)
        if found is None or found[1].status is not ChildStatus.RUNNING:
            return
        run_id, child = found
        rows.child_ended(tx, run_id, child, rows.ENDED[execution.status], last.details.get("output"))
        tx.after_commit(partial(self._drive, run_id))
