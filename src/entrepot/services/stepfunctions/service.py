"""The service: state machines and executions, as `server.py` constructs it.

Everything that changes the ledger is a function of a transaction, so that others (the delivery of an event, a stack) can do
it inside theirs.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from entrepot import clock, faults, ids
from entrepot.arns import Account
from entrepot.database import Database, Reader, Transaction
from entrepot.loglines import WriteLog
from entrepot.operations import Operations
from entrepot.outbound import Send

from . import activities, executions, history, machines, tokens, versions
from .activities import Activity, Polls, awaiting_frame
from .errors import (
    ExecutionAlreadyExists,
    ExecutionNotRedrivable,
    InvalidDefinitionError,
    InvalidExecutionInput,
    InvalidOutput,
    StateMachineTypeNotSupported,
    TaskTimedOut,
)
from .executions import Execution
from .executor import Executor, OnExecutionChanged, chance
from .happenings import ActivityTaken, AwaitedFailed, AwaitedSucceeded, HeartbeatCame, Redriven, ScheduledTask, Stopped
from .history import HISTORY_LIMIT_EVENTS
from .http_task import HttpTaskError, HttpTasks, OpenConnection
from .integrations import HTTP, AssumeRole, Integrations, PrincipalForRole
from .interpreter import DATA_LIMIT_BYTES, awaited_task, too_large
from .language.definition import Integration, State, Task
from .language.diagnostics import ERROR, SCHEMA_VALIDATION_FAILED, Diagnostic
from .language.evaluation import TIMEOUT, Json
from .language.json_text import InvalidJson, dumps, loads
from .machines import Logging, Machine
from .maps.runs import MapRuns
from .single_state import Circumstances, Mock, Outcome, SingleState, alone_context
from .state import ExecutionState, Frame

REDRIVABLE_PERIOD_MS = 14 * 86_400_000
"""An execution can be redriven this long after it ended. Source: RedriveExecution."""

REDRIVE_LIMIT = 1_000
"""How often an execution can be redriven. Source: RedriveExecution."""


TEST_LIMIT_S = 300.0
"""How long TestState may take. Source: TestState."""

SYNC_LIMIT_S = 300.0
"""How long StartSyncExecution waits: an EXPRESS execution ends within five minutes. Source: service quotas."""

DRAIN_S = 5.0
"""How long a stop waits for the tasks under way, so that a function need not run again after the next start."""


class StepFunctions:
    """State machines and their executions."""

    def __init__(
        self,
        database: Database,
        account: Account,
        operations: Operations,
        *,
        principal_for_role: PrincipalForRole,
        assume_role: AssumeRole,
        write_log: WriteLog,
        on_execution_changed: OnExecutionChanged,
        send: Send | None = None,
        open_connection: OpenConnection | None = None,
    ) -> None:
        """`send` and `open_connection` are for HTTP tasks, which are refused without them."""
        self.database = database
        self.account = account
        http = HttpTasks(send, open_connection) if send is not None and open_connection is not None else None
        self._integrations = Integrations(operations, account, principal_for_role, assume_role, http)
        self._polls = Polls()
        self._executor = Executor(database, account, self._integrations, write_log, on_execution_changed, self._polls)

    @property
    def map_runs(self) -> MapRuns:
        """The runs of distributed Maps."""
        return self._executor.map_runs

    async def start(self) -> None:
        """Begin to run executions; those that were unfinished go on in the background."""
        self._polls.start()
        await self._executor.start()

    async def stop(self, drain_s: float = DRAIN_S) -> None:
        """Stop running executions; tasks under way have `drain_s` to end. The others go on after the next start."""
        self._polls.stop()
        await self._executor.stop(drain_s)

    # ── state machines ───────────────────────────────────────────────────────────────────────────────────────────

    def create_state_machine(
        self,
        tx: Transaction,
        *,
        name: str,
        definition: str,
        role_arn: str,
        type_: str = "STANDARD",
        logging: Logging | None = None,
        tracing: str = "{}",
        tags: Mapping[str, str] | None = None,
    ) -> Machine:
        """Create a state machine, or return the one that is the same.

        Raises InvalidName, InvalidArn, InvalidDefinitionError, StateMachineAlreadyExists, StateMachineLimitExceeded.
        """
        machine = machines.create(
            tx,
            self.account,
            name=name,
            definition=definition,
            role_arn=role_arn,
            type_=type_,
            logging=logging,
            tracing=tracing,
            tags=tags,
        )
        self.check_resources(definition)
        return machine

    def update_state_machine(
        self,
        tx: Transaction,
        machine: Machine,
        *,
        definition: str | None = None,
        role_arn: str | None = None,
        logging: Logging | None = None,
        tracing: str | None = None,
    ) -> Machine:
        """Change what is given, for executions that start from now on, and return the machine as it is then.

        Raises InvalidArn, InvalidDefinitionError.
        """
        machines.update(tx, machine, definition=definition, role_arn=role_arn, logging=logging, tracing=tracing)
        if definition is not None:
            self.check_resources(definition)
        return machines.get(tx, self.account, machine.arn)

    def check_resources(self, definition: str) -> None:
        """Raise InvalidDefinitionError when a task's resource is one that is not served here."""
        for found in self.unserved(definition):
            raise InvalidDefinitionError(f"Invalid State Machine Definition: '{found}'")

    def unserved(self, definition: str) -> list[Diagnostic]:
        """Return what is to be said of tasks whose resource is not served here, in a definition that can be parsed."""
        told = []
        for task in executions.parsed(definition).tasks():
            if not self._integrations.serves(task.resource):
                text = f"The resource provided {task.resource.arn} is not recognized."
                if task.resource.integration is not Integration.FUNCTION_ARN:
                    text += " The resource is not served here."
                place = f"/States/{task.name}/Resource"
                told.append(Diagnostic(ERROR, SCHEMA_VALIDATION_FAILED, text, place))
        return told

    # ── executions ───────────────────────────────────────────────────────────────────────────────────────────────

    def start_execution(
        self, tx: Transaction, state_machine_arn: str, name: str | None = None, input_text: str = "{}"
    ) -> Execution:
        """Start an execution, or return the one that runs under this name with the same input.

        The ARN may be that of a version or an alias.
        Its first states run in this very transaction. Raises StateMachineDoesNotExist, InvalidArn, InvalidName,
        InvalidExecutionInput, ExecutionAlreadyExists.
        """
        resolved = versions.resolve(tx, self.account, state_machine_arn, chance())
        machine, given_name = resolved.machine, name
        if name is None:
            name = ids.random_uuid()
        else:
            machines.check_name(name)
        try:
            if len(input_text) > DATA_LIMIT_BYTES or len(input_text.encode()) > DATA_LIMIT_BYTES:
                raise InvalidExecutionInput(
                    f"Invalid State Machine Execution Input: more than {DATA_LIMIT_BYTES} bytes"
                )
            value = loads(input_text)
            dumps(value)
        except (InvalidJson, ValueError, RecursionError) as error:
            raise InvalidExecutionInput(f"Invalid State Machine Execution Input: '{error}'") from None
        if machine.type != "EXPRESS" and given_name is not None:
            arn = executions.execution_arn(self.account, machine, name, 0)
            # One that starts itself in its very first transaction has no row yet.
            existing = self._executor.under_way(arn) or executions.find(tx, self.account, arn)
            if existing is not None:
                state = existing.state
                if existing.status == "RUNNING" and state is not None and dumps(state.input) == dumps(value):
                    return existing
                raise ExecutionAlreadyExists(f"Execution Already Exists: '{arn}'")
        execution = self._executor.begin(tx, machine, name, input_text, value)
        versions.note_execution(tx, execution.id, resolved)
        return execution

    def stop_execution(self, tx: Transaction, arn: str, error: str | None, cause: str | None) -> int:
        """End an execution as ABORTED; return when it stopped (ms). One that has ended stays as it is.

        Raises InvalidArn, ExecutionDoesNotExist, StateMachineTypeNotSupported.
        """
        execution = self._executor.under_way(arn) or executions.get(tx, self.account, arn)
        if execution.machine.type == "EXPRESS":
            raise StateMachineTypeNotSupported("Executions of EXPRESS state machines cannot be stopped.")
        if execution.status == "RUNNING":
            self._executor.advance(tx, execution, Stopped(at_ms=clock.now_ms(), error=error, cause=cause))
        # One that stops itself by a task has not ended before that task has.
        return clock.now_ms() if execution.stopped_at_ms is None else execution.stopped_at_ms

    def redrive_execution(self, tx: Transaction, arn: str) -> int:
        """Go on from the states that did not succeed; return when (ms).

        Raises InvalidArn, ExecutionDoesNotExist, ExecutionNotRedrivable.
        """
        execution = executions.get(tx, self.account, arn)
        reason = not_redrivable_because(execution)
        if reason is None and "/" in execution.machine.name:
            reason = "Execution is a child of a map run: redrive the execution of the map run."
        if reason is not None:
            raise ExecutionNotRedrivable(reason)
        at_ms = clock.now_ms()
        executions.reopen(tx, execution)
        self._executor.advance(tx, execution, Redriven(at_ms=at_ms, random=chance()))
        return at_ms

    async def start_sync_execution(
        self, state_machine_arn: str, name: str | None = None, input_text: str = "{}"
    ) -> tuple[Execution, bool]:
        """Start an execution of an EXPRESS machine; return it when it has ended, and whether it did so in time.

        Raises StateMachineDoesNotExist, InvalidArn, InvalidName, InvalidExecutionInput, StateMachineTypeNotSupported.
        """

        def work(tx: Transaction) -> Execution:
            machine = versions.resolve(tx, self.account, state_machine_arn, 0.0).machine
            if machine.type != "EXPRESS":
                raise StateMachineTypeNotSupported("This operation is not supported by this type of state machine")
            return self.start_execution(tx, state_machine_arn, name, input_text)

        execution = await self.database.write(work)
        if execution.status != "RUNNING":
            return execution, True
        ended = await self._executor.ends.wait(execution.id, SYNC_LIMIT_S)
        if ended is not None:
            return ended, True
        await self._executor.happen(execution.id, Stopped(at_ms=clock.now_ms(), error=TIMEOUT, cause=None))
        return await self.database.read(lambda reader: executions.get(reader, self.account, execution.arn)), False

    # ── task tokens ──────────────────────────────────────────────────────────────────────────────────────────────

    def send_task_success(self, tx: Transaction, token: str, output_text: str) -> None:
        """End the task that waits for this token well. Raises InvalidToken, InvalidOutput, TaskTimedOut."""
        try:
            output = loads(output_text)
            dumps(output)
        except (InvalidJson, ValueError, RecursionError) as error:
            raise InvalidOutput(f"Invalid Output: '{error}'") from None
        if too_large(output_text):
            raise InvalidOutput(f"Invalid Output: more than {DATA_LIMIT_BYTES} bytes")
        execution, task_id = self._awaiting(tx, token)
        happening = AwaitedSucceeded(at_ms=clock.now_ms(), random=chance(), task_id=task_id, output=output)
        self._executor.advance(tx, execution, happening)

    def send_task_failure(self, tx: Transaction, token: str, error: str | None, cause: str | None) -> None:
        """Fail the task that waits for this token. Raises InvalidToken, TaskTimedOut."""
        execution, task_id = self._awaiting(tx, token)
        happening = AwaitedFailed(at_ms=clock.now_ms(), random=chance(), task_id=task_id, error=error, cause=cause)
        self._executor.advance(tx, execution, happening)

    def send_task_heartbeat(self, tx: Transaction, token: str) -> None:
        """Give the task that waits for this token time until its next heartbeat. Raises InvalidToken, TaskTimedOut."""
        execution, task_id = self._awaiting(tx, token)
        self._executor.advance(tx, execution, HeartbeatCame(at_ms=clock.now_ms(), random=chance(), task_id=task_id))

    def _awaiting(self, tx: Transaction, token: str) -> tuple[Execution, int]:
        arn = tokens.execution_arn(token)
        execution = self._executor.under_way(arn) or executions.find(tx, self.account, arn)
        task_id = None
        if execution is not None and execution.status == "RUNNING":
            task_id = awaited_task(self._executor.state_of(execution), token)
        if execution is None or task_id is None:
            raise TaskTimedOut("Task Timed Out: 'Provided task does not exist anymore'")
        faults.reach("stepfunctions.before-answer")
        return execution, task_id

    # ── activities ───────────────────────────────────────────────────────────────────────────────────────────────

    async def get_activity_task(
        self, arn: str, worker: str | None, limit_s: float = activities.POLL_LIMIT_S
    ) -> tuple[str, str] | None:
        """Return (token, input) of the next task of an activity, or None when there was none for `limit_s`.

        Raises InvalidArn, ActivityDoesNotExist, ActivityWorkerLimitExceeded.
        """
        until_ms = clock.now_ms() + round(limit_s * 1_000)
        while True:
            activity = await self.database.read(lambda reader: activities.get(reader, self.account, arn))
            poll = self._polls.begin(activity)
            try:
                if await self.database.read(lambda reader, of=activity: activities.waiting(reader, of, 1)):  # type: ignore[misc]
                    taken = await self.database.write(lambda tx, of=activity: self._take(tx, of, worker))  # type: ignore[misc]
                    if taken is not None:
                        return taken
                    continue  # those that nobody waits for any more are gone: look at what comes after them
                left_s = (until_ms - clock.now_ms()) / 1_000
                if left_s <= 0 or self._polls.stopped:
                    return None
                await asyncio.wait([poll], timeout=min(left_s, activities.LOOK_AGAIN_S))
            finally:
                self._polls.end(activity, poll)

    def _take(self, tx: Transaction, activity: Activity, worker: str | None) -> tuple[str, str] | None:
        """Give the activity's first task that is still awaited to a worker."""
        for task in activities.waiting(tx, activity):
            activities.remove(tx, task)
            execution = executions.by_id(tx, self.account, task.execution_id)
            if execution is None or execution.status != "RUNNING":
                continue
            state = self._executor.state_of(execution)
            frame = awaiting_frame(state, task.task_id)
            if frame is not None:
                scheduled = executions.events(tx, execution, frame.last_event, 1)[0]
                taken = ActivityTaken(at_ms=clock.now_ms(), random=chance(), task_id=task.task_id, worker=worker)
                self._executor.advance(tx, execution, taken)
                return frame.token, scheduled.details["input"]
        return None

    # ── one state alone ──────────────────────────────────────────────────────────────────────────────────────────

    async def test_state(
        self,
        state: State,
        input_: Json,
        *,
        role_arn: str | None,
        context: dict[str, Json] | None,
        variables: Mapping[str, Json],
        mock: Mock | None,
        circumstances: Circumstances,
        reveal_secrets: bool = False,
    ) -> Outcome:
        """Run one state without an execution, for at most `TEST_LIMIT_S`.

        `context` stands for the whole context object. Raises ValidationException when the mock does not fit.
        """
        name, machine_name, now_ms = ids.random_uuid(), ids.random_uuid(), clock.now_ms()
        alone = ExecutionState(
            self.account.arn("states", f"express:{machine_name}:{name}"),
            name,
            role_arn or "",
            self.account.arn("states", f"stateMachine:{machine_name}"),
            machine_name,
            now_ms,
            input_,
            Frame(state.name, input_),
        )
        given = alone_context(alone, state) if context is None else context
        run = SingleState(state, input_, given, variables, circumstances, mock, now_ms)

        async def perform(task: Task, arguments: Json, task_role_arn: str | None) -> Json:
            prepared = self._integrations.prepare(ScheduledTask(1, task, arguments, task_role_arn), alone)
            if prepared.service is HTTP:
                try:
                    result, run.outcome.exchange = await self._integrations.exchange(prepared, reveal=reveal_secrets)
                except HttpTaskError as error:
                    run.outcome.exchange = error.exchange
                    raise
                return result
            if prepared.leaves_ledger:
                return await self._integrations.perform(prepared)
            return await self.database.write(lambda tx: self._integrations.transact(tx, prepared))

        try:
            async with asyncio.timeout(TEST_LIMIT_S):
                return await run.run(perform, asyncio.sleep)
        except TimeoutError:
            return Outcome(status="FAILED", error=TIMEOUT, stages=run.outcome.stages)

    def recorded_events(self, reader: Reader, arn: str, limit: int = 1_000) -> list[dict[str, Any]]:
        """Return the first events of an execution as GetExecutionHistory has them, also of an EXPRESS machine.

        AWS tells no history of those; here it is for whom this process belongs to. Raises ExecutionDoesNotExist.
        """
        execution = executions.get(reader, self.account, arn)
        return [history.describe(event) for event in executions.events(reader, execution, 1, limit)]

    def execution(self, reader: Reader, arn: str) -> Execution:
        """Return an execution. Raises InvalidArn, ExecutionDoesNotExist."""
        return executions.get(reader, self.account, arn)


def not_redrivable_because(execution: Execution) -> str | None:
    """Return AWS's reason why an execution cannot be redriven, or None when it can."""
    if execution.machine.type == "EXPRESS":
        return "Execution is of type EXPRESS and cannot be redriven."
    if execution.machine.deleted_at_ms is not None:
        return "State machine is in DELETING status."
    if execution.status in ("RUNNING", "SUCCEEDED"):
        return f"Execution is {execution.status} and cannot be redriven."
    if execution.state is None or execution.state.last_event >= HISTORY_LIMIT_EVENTS - 1:
        return "Execution history event limit exceeded."
    if execution.redrive_count >= REDRIVE_LIMIT:
        return "Execution redrive limit exceeded."
    if clock.now_ms() - (execution.stopped_at_ms or 0) > REDRIVABLE_PERIOD_MS:
        return "Execution redrivable period exceeded."
    return None
