"""One map run under way: its items are read, its children begin and end, its results are collected, its state goes on.

Each step reads from the ledger where the run stands and moves it on in a transaction. A child begins in the transaction that
notes it, and the run ends in that of its state's next step: no child twice, no result lost.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Protocol, TypeAlias

from entrepot import clock, faults, ids
from entrepot.arns import Account
from entrepot.database import Database, Reader, Transaction
from entrepot.errors import StorageError
from entrepot.services.stepfunctions import executions, machines
from entrepot.services.stepfunctions.executions import ConflictError, Execution
from entrepot.services.stepfunctions.happenings import (
    Happening,
    MapRunBroken,
    MapRunDone,
    Redriven,
    Stopped,
)
from entrepot.services.stepfunctions.history import HISTORY_LIMIT_EVENTS
from entrepot.services.stepfunctions.interpreter import EVALUATION_LIMIT_S
from entrepot.services.stepfunctions.language.definition import Map
from entrepot.services.stepfunctions.language.evaluation import (
    EXCEED_TOLERATED_FAILURE_THRESHOLD,
    ITEM_READER_FAILED,
    RESULT_WRITER_FAILED,
    RUNTIME,
    Json,
    StatesError,
)
from entrepot.services.stepfunctions.language.json_text import dumps, loads
from entrepot.services.stepfunctions.language.jsonata_bounds import Meter
from entrepot.services.stepfunctions.machines import Machine
from entrepot.services.stepfunctions.steps.map_runs import Select, awaiting

from . import rows
from .batches import Batch, Limits, inputs, of_state
from .documents import ReaderError
from .readers import AskS3, Item, read
from .results import Results, WriterError
from .rows import Child, ChildStatus, Counts, MapRun, Stage

CONCURRENCY_LIMIT = 10_000
"""Children of a map run that run at once at most. Source: Step Functions' service quotas."""

READ_AHEAD_CHILDREN = 10_000
"""Children that wait at most; then the reader rests until some have begun."""

FILL_CHILDREN = 200
"""Children that are inserted in one transaction at most."""

FILL_BYTES = 262_144
"""Their inputs together are not much larger than this: reading them takes the event loop some milliseconds."""

BEGIN_CHILDREN = 20
"""Children that begin, or are stopped, in one transaction: each runs its first states in it."""

PAUSE_LIMIT_S = 10.0
"""Longest pause between attempts to write while the disk is full or broken."""

S3For: TypeAlias = Callable[[Execution, str], AskS3]
"""`s3_for(execution, purpose)`: S3 as the role of an execution."""

_log = logging.getLogger(__name__)


class Conductor(Protocol):
    """What a map run asks of the executor, all of it inside transactions."""

    def begin(
        self,
        tx: Transaction,
        machine: Machine,
        name: str,
        input_text: str,
        input_: Json,
        note: Callable[[Execution], None] | None = None,
    ) -> Execution:
        """Insert a new execution and run its first states; `note` is called before."""
        ...

    def advance(self, tx: Transaction, execution: Execution, happening: Happening) -> None:
        """Let something happen to an execution."""
        ...

    def chance(self) -> float:
        """Return a random number."""
        ...


class Driver:
    """Drives one map run."""

    def __init__(self, database: Database, account: Account, conductor: Conductor, s3_for: S3For, run_id: int) -> None:
        self.run_id = run_id
        self.wake = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self._database = database
        self._account = account
        self._conductor = conductor
        self._s3_for = s3_for
        self._batches: AsyncIterator[Batch] | None = None
        self._machine: Machine | None = None

    async def run(self, room: asyncio.Semaphore) -> None:
        """Do what there is to do until the run is done, a step whenever there is `room`."""
        pause_s = 0.1
        while True:
            self.wake.clear()
            try:
                run = await self._database.read(lambda reader: rows.by_id(reader, self._account, self.run_id))
                if run is None or run.stage is Stage.DONE:
                    if self.wake.is_set():
                        continue  # it was redriven since it was read
                    return
                async with room:
                    progress = await self._step(run)
                if not progress:
                    await self.wake.wait()
                pause_s = 0.1
            except (StorageError, ConflictError) as error:
                _log.warning("map run %s waits for the disk: %s", self.run_id, error)
                self._batches = None
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, PAUSE_LIMIT_S)
            except Exception as error:  # noqa: BLE001 - the task's top frame: every map run must end
                _log.exception("map run %s cannot go on", self.run_id)
                await asyncio.sleep(pause_s)
                await self._break(f"The map run cannot go on: {error!r}")

    async def _break(self, cause: str) -> None:
        try:
            await self._database.write(lambda tx: self._fail(tx, RUNTIME, cause, final=True))
        except StorageError as error:
            _log.error("map run %s could not be ended, it is tried again: %s", self.run_id, error)
            await asyncio.sleep(PAUSE_LIMIT_S)

    async def _step(self, run: MapRun) -> bool:
        """Do something for the run; say whether there may be more to do at once."""
        match run.stage:
            case Stage.OPEN:
                return await self._go_on(run)
            case Stage.STOPPING:
                return await self._stop_children(run)
            case _:
                await self._finish(run)
                return True

    def _current(self, reader: Reader) -> MapRun:
        run = rows.by_id(reader, self._account, self.run_id)
        assert run is not None
        return run

    # ── reading and running ──────────────────────────────────────────────────────────────────────────────────────

    async def _go_on(self, run: MapRun) -> bool:
        counts = await self._database.read(lambda reader: rows.counts(reader, self.run_id))
        if _exceeds(run, counts):
            cause = "The specified tolerated failure threshold was exceeded"
            await self._database.write(lambda tx: self._fail(tx, EXCEED_TOLERATED_FAILURE_THRESHOLD, cause))
            return True
        progress = False
        pending, running = counts.children[ChildStatus.PENDING], counts.children[ChildStatus.RUNNING]
        room = min(run.max_concurrency or CONCURRENCY_LIMIT, CONCURRENCY_LIMIT) - running
        if run.reading and pending < READ_AHEAD_CHILDREN and (pending < BEGIN_CHILDREN or room <= 0):
            progress = await self._fill(run)
        if room > 0 and pending:
            await self._database.write(partial(self._begin_children, limit=min(room, BEGIN_CHILDREN)))
            progress = True
        if not run.reading and not pending and not running:
            await self._database.write(self._all_ended)
            return True
        return progress

    def _all_ended(self, tx: Transaction) -> None:
        if self._current(tx).stage is Stage.OPEN:
            rows.set_stage(tx, self.run_id, Stage.WRITING)

    def _fail(self, tx: Transaction, error: str, cause: str, *, final: bool = False) -> None:
        """Let the run fail when its running children are stopped; `final`: without any results."""
        run = self._current(tx)
        if run.stage is Stage.DONE or (run.status != "RUNNING" and not final):
            return
        if final:
            self._end(
                tx, run, "FAILED", MapRunBroken(at_ms=clock.now_ms(), task_id=run.task_id, error=error, cause=cause)
            )
        else:
            rows.set_stage(tx, self.run_id, Stage.STOPPING, error, cause)

    async def _fill(self, run: MapRun) -> bool:
        """Read more items into children; False when nobody awaits them."""
        try:
            if self._batches is None:
                self._batches = await self._open(run)
            batches: list[Batch] = []
            size, ended = 0, True
            until_s = Meter.total_s + EVALUATION_LIMIT_S
            async for batch in self._batches:
                batches.append(batch)
                size += len(batch.text)
                if len(batches) >= FILL_CHILDREN or size >= FILL_BYTES or Meter.total_s >= until_s:
                    ended = False
                    break
        except ReaderError as error:
            await self._database.write(partial(self._fail, error=ITEM_READER_FAILED, cause=str(error)))
            return True
        except StatesError as error:
            await self._database.write(partial(self._fail, error=error.error, cause=error.cause))
            return True

        def work(tx: Transaction) -> None:
            now = self._current(tx)
            if now.stage is Stage.OPEN and now.next_child == run.next_child:
                last = batches[-1] if batches else None
                next_item = last.next_item if last is not None else now.next_item
                position = last.position if last is not None else now.position
                texts = [(batch.text, batch.items) for batch in batches]
                rows.add_children(tx, now, texts, next_item, position, reading=not ended)

        await self._database.write(work)
        if ended:
            self._batches = None
        faults.reach("stepfunctions.map-items-read")
        return True

    async def _open(self, run: MapRun) -> AsyncIterator[Batch]:
        """Return the inputs that no child has yet. Raises StatesError, ReaderError."""

        def look(reader: Reader) -> tuple[Execution | None, Json]:
            return executions.by_id(reader, self._account, run.execution_id), rows.request(reader, run.id)

        execution, request = await self._database.read(look)
        state, select = _awaiting(execution, run)
        assert execution is not None and state.distribution is not None
        limits = Limits(request["batch_items"], request["batch_bytes"], request["batch_input"], request["max_items"])
        items: AsyncIterator[Item]
        if state.distribution.reader is None:
            items = of_state(request["items"], run.position)
        else:
            ask_s3 = self._s3_for(execution, f"read-{run.id}")
            items = read(ask_s3, state.distribution.reader, request["parameters"], run.position)
        return inputs(items, select, limits, run.next_item)

    def _begin_children(self, tx: Transaction, limit: int) -> None:
        run = self._current(tx)
        if run.stage is not Stage.OPEN:
            return
        if self._machine is None:
            self._machine = machines.of_revision(tx, self._account, run.revision_id)
        for child in rows.children(tx, self.run_id, ChildStatus.PENDING, -1, limit):
            if child.execution_id is None:
                assert child.content is not None
                self._begin_child(tx, child, self._machine, child.content)
            else:
                self._redrive_child(tx, child, child.execution_id, self._machine)
        faults.reach("stepfunctions.map-children-begin")

    def _begin_child(self, tx: Transaction, child: Child, machine: Machine, text: str) -> None:
        def note(execution: Execution) -> None:
            rows.child_began(tx, self.run_id, child, execution.id)

        self._conductor.begin(tx, machine, ids.random_uuid(), text, loads(text), note)

    def _redrive_child(self, tx: Transaction, child: Child, execution_id: int, machine: Machine) -> None:
        """Run a child again that did not succeed: go on from where it failed, or anew when it is of type EXPRESS."""
        execution = executions.by_id(tx, self._account, execution_id)
        assert execution is not None and execution.state is not None
        if machine.type == "EXPRESS":
            self._begin_child(tx, child, machine, dumps(execution.state.input))
            return
        if execution.state.last_event >= HISTORY_LIMIT_EVENTS - 1:
            rows.child_ended(tx, self.run_id, child, rows.ENDED[execution.status], None)
            return
        rows.child_began(tx, self.run_id, child, execution_id)
        executions.reopen(tx, execution)
        self._conductor.advance(tx, execution, Redriven(at_ms=clock.now_ms(), random=self._conductor.chance()))

    async def _stop_children(self, run: MapRun) -> bool:
        """Stop running children, a page at a time; then go on to the results, or end."""
        self._batches = None

        def work(tx: Transaction) -> None:
            page = rows.children(tx, self.run_id, ChildStatus.RUNNING, -1, BEGIN_CHILDREN, content=False)
            for child in page:
                assert child.execution_id is not None
                execution = executions.by_id(tx, self._account, child.execution_id)
                if execution is not None and execution.status == "RUNNING":
                    self._conductor.advance(tx, execution, Stopped(at_ms=clock.now_ms(), error=None, cause=None))
                else:
                    rows.child_ended(tx, self.run_id, child, ChildStatus.ABORTED, None)
            if not page:
                stage = Stage.WRITING if run.status == "RUNNING" else Stage.DONE
                rows.set_stage(tx, self.run_id, stage, run.error, run.cause)

        await self._database.write(work)
        return True

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def _finish(self, run: MapRun) -> None:
        """Collect or write the results, and let the state go on or fail; what the run failed of comes before what comes later."""
        output: Json = None
        failure = None if run.error is None else (run.error, run.cause)
        try:
            output = await self._output(run)
        except WriterError as error:
            failure = failure or (RESULT_WRITER_FAILED, str(error))
        except StatesError as error:
            failure = failure or (error.error, error.cause)
        at_ms, dice = clock.now_ms(), self._conductor.chance()
        happening: MapRunDone | MapRunBroken = MapRunDone(at_ms=at_ms, random=dice, task_id=run.task_id, output=output)
        if failure is not None:
            name, cause = failure
            happening = MapRunBroken(at_ms=at_ms, random=dice, task_id=run.task_id, error=name, cause=cause)
        faults.reach("stepfunctions.map-results")
        status = "SUCCEEDED" if isinstance(happening, MapRunDone) else "FAILED"

        def work(tx: Transaction) -> None:
            now = self._current(tx)
            if now.stage is Stage.WRITING:
                self._end(tx, now, status, happening)

        await self._database.write(work)

    async def _output(self, run: MapRun) -> Json:
        """Return the state's result; of a run that failed it only matters what is written to the bucket."""

        def look(reader: Reader) -> tuple[Execution | None, Json, Machine]:
            return (
                executions.by_id(reader, self._account, run.execution_id),
                rows.request(reader, run.id),
                machines.of_revision(reader, self._account, run.revision_id),
            )

        execution, request, machine = await self._database.read(look)
        state, _ = _awaiting(execution, run)
        assert execution is not None and state.distribution is not None
        results = Results(self._database, self._account, run, state.distribution.writer)
        if request["writer"] is not None:
            ask_s3 = self._s3_for(execution, f"write-{run.id}")
            return await results.export(ask_s3, request["writer"], machine.arn)
        return None if run.error is not None else await results.collect()

    def _end(self, tx: Transaction, run: MapRun, status: str, happening: MapRunDone | MapRunBroken) -> None:
        rows.end(tx, run.id, status, Stage.DONE)
        execution = executions.by_id(tx, self._account, run.execution_id)
        if execution is not None and execution.status == "RUNNING":
            self._conductor.advance(tx, execution, happening)


def _awaiting(execution: Execution | None, run: MapRun) -> tuple[Map, Select]:
    """Return the state that waits for a run, and its ItemSelector. Raises StatesError when it does not wait any more."""
    found = None
    if execution is not None and execution.state is not None:
        found = awaiting(executions.parsed(execution.machine.definition), execution.state, run.task_id)
    if found is None:
        raise StatesError(RUNTIME, "The state does not wait for the map run any more.")
    return found


def _exceeds(run: MapRun, counts: Counts) -> bool:
    """Whether more items failed than may. Either limit alone decides, 0 stands for none; of all items once they are known."""
    failed = counts.failed_items
    if not failed:
        return False
    count, percentage = run.tolerated_count, run.tolerated_percentage
    if not count and not percentage:
        return True
    if count and failed > count:
        return True
    return bool(percentage and not run.reading and failed * 100 > percentage * counts.all_items)
