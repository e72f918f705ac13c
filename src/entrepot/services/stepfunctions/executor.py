"""The loop of executions: load, step, commit, act.

A transition, its history events and its outgoing work are one transaction. Tasks on this ledger run inside it; tasks that leave
it start after the commit, and their outcome is a transition of its own. All that has to happen is in the ledger: after a crash
`start` finds it there. Timers are rows too; what sleeps here only hastens them.
"""

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from entrepot import clock, faults
from entrepot.arns import Account
from entrepot.database import Database, Transaction
from entrepot.errors import AwsError, StorageError
from entrepot.loglines import WriteLog

from . import activities, executions, nested
from .activities import Polls
from .ends import Ends
from .executions import ConflictError, Execution
from .failures import TaskError
from .gathering import Gathered
from .happenings import (
    ActivityTaken,
    AwaitedSucceeded,
    Broken,
    Continued,
    Happening,
    HeartbeatCame,
    Redriven,
    ScheduledTask,
    Started,
    TaskFailed,
    TaskSucceeded,
    TimerFired,
    Transition,
)
from .history import Event
from .integrations import Integrations
from .interpreter import EVALUATION_LIMIT_S, STEP_LIMIT, step_in_place, task_of, waiting_tasks
from .language.definition import Integration
from .language.evaluation import RUNTIME, TASK_FAILED, Json
from .language.json_text import loads
from .language.jsonata_bounds import Meter
from .log import ExecutionLog
from .machines import Machine
from .maps.runs import MapRuns
from .recovery import Recovery
from .state import ExecutionState
from .tasks import Job, Tasks
from .timers import Timers

T = TypeVar("T")
chance = secrets.SystemRandom().random
"""Dice for the interpreter: of jitter, and of task tokens, which nobody may guess."""

_log = logging.getLogger(__name__)

CONFLICT_LIMIT = 5
"""Attempts at a transition that somebody else's write makes void; then the execution fails."""

STORAGE_RETRY_LIMIT_S = 10.0
"""Longest pause between attempts to write while the disk is full or broken."""


@dataclass(frozen=True, slots=True)
class ExecutionChange:
    """An execution began, ended or was redriven."""

    execution_arn: str
    state_machine_arn: str
    name: str
    status: str
    started_at_ms: int
    stopped_at_ms: int | None
    error: str | None
    cause: str | None


OnExecutionChanged: TypeAlias = Callable[[Transaction, ExecutionChange], None]
"""`on_execution_changed(tx, change)`: called in the transaction of the change."""


class Executor:
    """Runs executions. `advance` is for transactions, everything else for the event loop's thread."""

    def __init__(
        self,
        database: Database,
        account: Account,
        integrations: Integrations,
        write_log: WriteLog,
        on_execution_changed: OnExecutionChanged,
        polls: Polls,
    ) -> None:
        self._database = database
        self._account = account
        self._integrations = integrations
        self._polls = polls
        self._on_execution_changed = on_execution_changed
        self._execution_log = ExecutionLog(write_log)
        self._tasks = Tasks(self._perform, lambda machine_id: self._recovery.again(machine_id))
        self._background: set[asyncio.Task[None]] = set()
        self._timers = Timers(database, self._fire)
        self._recovery = Recovery(database, self._tasks, self._resume)
        self._depth = 0
        self._turns: dict[int, _Turn] = {}
        self._gathered: dict[int, Gathered] = {}
        self.map_runs = MapRuns(database, account, self, integrations.s3_for)
        self.ends = Ends(self._read)
        self._last_id = 0
        self._running = False

    async def start(self) -> None:
        """Begin to work; what was unfinished is taken up in the background."""
        self._running = True
        self._tasks.open()
        self.ends.start()
        self._spawn(self._recovery.run(), "executions-recovery")
        await self.map_runs.start()
        self._spawn(self._timers.watch(), "executions-timers")

    async def stop(self, drain_s: float) -> None:
        """Stop working, after at most `drain_s` for tasks under way. What they do not finish is done after the next start."""
        await self.map_runs.stop()  # no child begins that nobody would run
        await self._tasks.stop(drain_s)
        self.ends.stop()
        self._running = False
        for task in list(self._background):
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)

    # ── inside transactions ──────────────────────────────────────────────────────────────────────────────────────

    def begin(
        self,
        tx: Transaction,
        machine: Machine,
        name: str,
        input_text: str,
        input_: Json,
        note: Callable[[Execution], None] | None = None,
    ) -> Execution:
        """Insert a new execution and run its first states; `note` is called before it runs."""
        if not self._last_id:
            self._last_id = executions.last_id(tx)
        self._last_id = executions.new_id(self._last_id)
        execution = executions.begin(self._account, machine, self._last_id, name, input_)
        if note is not None:
            note(execution)
        # Ids only grow: when the clock was set back, the start that they tell lies ahead.
        at_ms = min(execution.started_at_ms, clock.now_ms())
        started = Started(at_ms=at_ms, random=chance(), input_text=input_text)
        self.advance(tx, execution, started)
        return execution

    def chance(self) -> float:
        """Return a random number for what happens."""
        return chance()

    def advance(self, tx: Transaction, execution: Execution, *happenings: Happening) -> None:
        """Let `happenings` happen: step, run what can run here, and write it all down.

        Raises ConflictError when another process changed the execution meanwhile.
        """
        under_way = self._turns.get(execution.id)
        if under_way is not None:
            # One of its own tasks did this (SendTaskSuccess, StopExecution): it happens when that task is done.
            under_way.pending.extend(happenings)
            return
        assert execution.state is not None
        status_before = execution.status if execution.version else None
        turn = self._turns[execution.id] = _Turn(self, tx, execution)
        self._depth += 1
        try:
            # A task that starts an execution must not run it inside its own: no recursion without end.
            turn.take(happenings, 0 if self._depth > 1 else STEP_LIMIT)
        finally:
            self._depth -= 1
            del self._turns[execution.id]
        events, state = turn.events, turn.state
        if not events and status_before is not None and turn.due_at_ms == turn.due_before_ms:
            self._afterwards(tx, execution, turn)
            return
        executions.save(tx, execution, state, events, turn.due_at_ms)
        self._report(tx, execution, status_before, events, redriven=isinstance(happenings[0], Redriven))
        faults.reach("stepfunctions.before-commit")
        self._afterwards(tx, execution, turn)

    def _report(
        self, tx: Transaction, execution: Execution, status_before: str | None, events: list[Event], redriven: bool
    ) -> None:
        if status_before is None or redriven:
            self._on_execution_changed(tx, _change(execution, "RUNNING", None))
        if execution.status != "RUNNING" and (status_before in (None, "RUNNING") or redriven):
            if activities.used_by(execution.machine.definition):
                activities.forget_execution(tx, execution.id)
            self._on_execution_changed(tx, _change(execution, execution.status, events[-1]))
            self.map_runs.execution_ended(tx, execution, events[-1])
            if execution.state is not None and execution.state.root.parent is not None:
                self._tell_parent(tx, execution, execution.state.root.parent, events[-1])

    def _tell_parent(self, tx: Transaction, ended: Execution, parent: tuple[int, int, int], last: Event) -> None:
        """Let the end of an execution happen to the task that waits for it."""
        waiting = executions.by_id(tx, self._account, parent[0])
        if waiting is None or waiting.status != "RUNNING" or waiting.state is None:
            return
        task = task_of(executions.parsed(waiting.machine.definition), self.state_of(waiting), parent[1])
        if task is not None:
            faults.reach("stepfunctions.before-parent")
            self.advance(tx, waiting, nested.outcome(ended, last, parent[1], task.resource.pattern, chance()))

    def under_way(self, arn: str) -> Execution | None:
        """Return the execution whose transition this transaction is part of; its row may not be there yet."""
        return next((turn.execution for turn in self._turns.values() if turn.execution.arn == arn), None)

    def state_of(self, execution: Execution) -> ExecutionState:
        """Return where an execution stands, also when a transition of it is under way in this transaction."""
        turn = self._turns.get(execution.id)
        state = execution.state if turn is None else turn.state
        assert state is not None
        return state

    def await_nested(self, tx: Transaction, started: Json, waiting: Execution, task_id: int) -> None:
        """Make the end of the execution that a task started end the task. Raises TaskError."""
        if self.under_way(started["ExecutionArn"]) is not None:
            raise TaskError(RUNTIME, "The execution would wait for its own end.")
        child = executions.get(tx, self._account, started["ExecutionArn"])
        assert child.state is not None
        deeper = waiting.state.root.parent[2] + 1 if waiting.state is not None and waiting.state.root.parent else 1
        if deeper > nested.NESTING_LIMIT:
            raise TaskError(RUNTIME, f"More than {nested.NESTING_LIMIT} executions would wait for one another.")
        if child.state.root.parent is not None:
            raise TaskError("StepFunctions.ExecutionAlreadyExistsException", f"Execution Already Exists: '{child.arn}'")
        child.state.root.parent = (waiting.id, task_id, deeper)
        executions.save(tx, child, child.state, [], child.due_at_ms)

    def _afterwards(self, tx: Transaction, execution: Execution, turn: "_Turn") -> None:
        """Arrange what has to be done once the transaction is durable."""
        logs = self._execution_log.lines(execution, turn.events)
        jobs, more, due_at_ms = turn.jobs, turn.more, turn.due_at_ms
        machine = executions.parsed(execution.machine.definition)
        awaited = {task_id for task_id, _, _ in waiting_tasks(machine, turn.state)} if turn.may_cancel else None
        # Whether somebody waits for the end is asked when it is durable: who comes later finds it in the ledger.
        ended = execution.status != "RUNNING" and execution.machine.type == "EXPRESS"
        if not (logs or jobs or more or due_at_ms is not None or awaited is not None or ended):
            return

        def act() -> None:
            faults.reach("stepfunctions.after-commit")
            self._execution_log.write(logs)
            if awaited is not None:
                self._tasks.keep(execution.id, awaited)
            for job in jobs:
                self._tasks.offer(job)
            if more and self._running:
                self._spawn(self._resume(execution.id), "execution-continues")
            if due_at_ms is not None:
                self._timers.hasten(due_at_ms)
            if ended:
                self.ends.tell(execution.id)

        tx.after_commit(act)

    def prepare(self, scheduled: ScheduledTask, execution: Execution, state: ExecutionState) -> Job:
        """Return a task ready to run. Raises TaskError."""
        prepared = self._integrations.prepare(scheduled, state)
        return Job(execution.id, execution.machine.id, scheduled.task_id, prepared)

    def offer_activity(self, tx: Transaction, execution: Execution, scheduled: ScheduledTask) -> None:
        """Let the task of an activity wait for a worker. Raises TaskError."""
        try:
            arn = scheduled.task.resource.arn
            self._polls.schedule(tx, self._account, arn, execution.id, scheduled.task_id)
        except AwsError as error:
            raise TaskError(type(error).code, error.message) from error

    def transact(self, tx: Transaction, job: Job) -> Json:
        """Run a task of this ledger. Raises TaskError."""
        return self._integrations.transact(tx, job.prepared)

    async def _read(self, execution_id: int) -> Execution:
        found = await self._database.read(lambda reader: executions.by_id(reader, self._account, execution_id))
        assert found is not None
        return found

    # ── tasks that leave the ledger ──────────────────────────────────────────────────────────────────────────────

    async def _perform(self, job: Job) -> None:
        faults.reach("stepfunctions.before-task")
        outcome: Json = None
        failure: TaskError | None = None
        try:
            outcome = await self._integrations.perform(job.prepared)
        except TaskError as error:
            failure = error
        except Exception as error:  # noqa: BLE001 - the task's top frame: whatever it was, the execution goes on
            _log.exception("task %s of execution %s broke", job.task_id, job.execution_id)
            failure = TaskError(TASK_FAILED, f"{job.prepared.operation} broke here: {error!r}")
        job.reporting = True
        faults.reach("stepfunctions.after-task")
        at_ms, dice = clock.now_ms(), chance()
        happening: Happening
        if failure is None:
            happening = TaskSucceeded(at_ms=at_ms, random=dice, task_id=job.task_id, output=outcome)
        else:
            happening = TaskFailed(
                at_ms=at_ms, random=dice, task_id=job.task_id, error=failure.error, cause=failure.cause
            )
        await self.happen(job.execution_id, happening)

    async def happen(self, execution_id: int, happening: Happening) -> None:
        """Let something happen to an execution, however long the disk is unable to record it."""
        waiting = self._gathered.get(execution_id)
        if waiting is not None and waiting.join(happening):
            await asyncio.shield(waiting.written)
            return
        gathered = self._gathered[execution_id] = Gathered(happening)

        def work(tx: Transaction) -> None:
            happenings = gathered.take()
            execution = executions.by_id(tx, self._account, execution_id)
            if execution is not None and execution.status == "RUNNING":
                self.advance(tx, execution, *happenings)

        try:
            await self._commit(execution_id, work)
        finally:
            if self._gathered.get(execution_id) is gathered:
                del self._gathered[execution_id]
            gathered.written.set_result(None)

    async def _resume(self, execution_id: int) -> None:
        """Go on with what is ready, and take up awaited tasks that nobody runs."""
        faults.reach("stepfunctions.before-resume")

        def work(tx: Transaction) -> None:
            execution = executions.by_id(tx, self._account, execution_id)
            if execution is not None and execution.status == "RUNNING":
                self.advance(tx, execution, Continued(at_ms=clock.now_ms(), random=chance()))
                if execution.status == "RUNNING":
                    self._take_up(tx, execution)

        await self._commit(execution_id, work)

    def _take_up(self, tx: Transaction, execution: Execution) -> None:
        """Run the tasks of an execution that were scheduled before this process began."""
        state = execution.state
        assert state is not None
        machine = executions.parsed(execution.machine.definition)
        for task_id, task, event_id in list(waiting_tasks(machine, state)):
            if self._tasks.knows(execution.id, task_id):
                continue
            details = executions.events(tx, execution, event_id, 1)[0].details
            text = details.get("parameters", details.get("input"))
            role_arn = details.get("taskCredentials", {}).get("roleArn")
            scheduled = ScheduledTask(task_id, task, loads(text), role_arn)
            outcome = _Turn(self, tx, execution).begin(scheduled)
            if isinstance(outcome, Job):
                tx.after_commit(lambda job=outcome: self._tasks.offer(job))  # type: ignore[misc]
            else:
                self.advance(tx, execution, outcome)
                if execution.status != "RUNNING":
                    return

    async def _commit(self, execution_id: int, work: Callable[[Transaction], None]) -> None:
        """Write a transition; wait while the disk refuses; end the execution if the transition is impossible."""
        pause_s, conflicts = 0.1, 0
        while True:
            try:
                await self._database.write(work)
                return
            except StorageError as error:
                if not self._running:
                    return
                _log.warning("execution %s waits for the disk: %s", execution_id, error)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, STORAGE_RETRY_LIMIT_S)
            except ConflictError:
                conflicts += 1
                if conflicts >= CONFLICT_LIMIT:
                    await self._break(execution_id, "The execution was changed by others at every attempt to go on.")
                    return
            except Exception as error:  # noqa: BLE001 - a transition's top frame: every execution must end
                _log.exception("execution %s cannot go on", execution_id)
                await self._break(execution_id, f"The state machine cannot go on: {error!r}")
                return

    async def _break(self, execution_id: int, cause: str) -> None:
        def work(tx: Transaction) -> None:
            execution = executions.by_id(tx, self._account, execution_id)
            if execution is not None and execution.status == "RUNNING":
                self.advance(tx, execution, Broken(at_ms=clock.now_ms(), cause=cause))

        try:
            await self._database.write(work)
        except Exception:  # noqa: BLE001 - nothing is left to try, and the others must go on
            _log.exception("execution %s could not be ended, the next start tries again", execution_id)

    async def _fire(self, execution_id: int) -> None:
        faults.reach("stepfunctions.before-timer")
        await self.happen(execution_id, TimerFired(at_ms=clock.now_ms(), random=chance()))

    def _spawn(self, work: "asyncio._CoroutineLike[None]", name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


class _Turn:
    """One transaction's share of an execution: steps until nothing more can be done in it."""

    def __init__(self, executor: Executor, tx: Transaction, execution: Execution) -> None:
        assert execution.state is not None
        self._executor = executor
        self._tx = tx
        self.execution = execution
        self._machine = executions.parsed(execution.machine.definition)
        self.state: ExecutionState = execution.state
        self.events: list[Event] = []
        self.jobs: list[Job] = []
        self.pending: deque[Happening] = deque()
        self.more = False
        self.may_cancel = False
        self.due_at_ms: int | None = None
        self.due_before_ms: int | None = execution.due_at_ms

    def take(self, happenings: Sequence[Happening], limit: int) -> None:
        """Step until only what takes time is left, or `limit` states were run."""
        quiet = Started | TaskSucceeded | AwaitedSucceeded | HeartbeatCame | ActivityTaken | Continued
        self.may_cancel = not all(isinstance(happening, quiet) for happening in happenings)
        pending = self.pending
        pending.extend(happenings)
        until_s = Meter.total_s + EVALUATION_LIMIT_S
        while pending:
            transition: Transition = step_in_place(self._machine, self.state, pending.popleft(), max(0, limit))
            limit = limit - transition.steps if Meter.total_s < until_s else 0
            self.state = transition.state
            self.events += transition.events
            self.more, self.due_at_ms = transition.more, transition.due_at_ms
            self._map_runs(transition)
            for scheduled in transition.tasks:
                outcome = self.begin(scheduled)
                if isinstance(outcome, Job):
                    self.jobs.append(outcome)
                else:
                    pending.append(outcome)

    def _map_runs(self, transition: Transition) -> None:
        """Begin, abort and redrive the map runs of a step."""
        map_runs = self._executor.map_runs
        for scheduled in transition.map_runs:
            map_runs.begin(self._tx, self.execution, scheduled)
        for task_id in transition.aborted_map_runs:
            map_runs.abort(self._tx, self.execution, task_id)
        for task_id in transition.redriven_map_runs:
            map_runs.redrive(self._tx, self.execution, task_id)

    def begin(self, scheduled: ScheduledTask) -> Job | TaskSucceeded | TaskFailed:
        """Run a task here and return its outcome, or return it ready to leave the ledger."""
        try:
            if scheduled.task.resource.integration is Integration.ACTIVITY:
                self._executor.offer_activity(self._tx, self.execution, scheduled)
                return TaskSucceeded(at_ms=clock.now_ms(), random=chance(), task_id=scheduled.task_id, output=None)
            job = self._executor.prepare(scheduled, self.execution, self.state)
            if job.prepared.leaves_ledger:
                return job
            if scheduled.task.resource.waits_for_execution:
                with self._tx.savepoint():  # What cannot be awaited is not started.
                    output = self._executor.transact(self._tx, job)
                    self._executor.await_nested(self._tx, output, self.execution, scheduled.task_id)
            else:
                output = self._executor.transact(self._tx, job)
        except TaskError as error:
            return TaskFailed(
                at_ms=clock.now_ms(),
                random=chance(),
                task_id=scheduled.task_id,
                error=error.error,
                cause=error.cause,
            )
        return TaskSucceeded(at_ms=clock.now_ms(), random=chance(), task_id=scheduled.task_id, output=output)


def _change(execution: Execution, status: str, last: Event | None) -> ExecutionChange:
    details = {} if last is None else last.details
    return ExecutionChange(
        execution.arn,
        execution.machine.arn,
        execution.name,
        status,
        execution.started_at_ms,
        None if last is None else last.at_ms,
        details.get("error"),
        details.get("cause"),
    )
