"""The tasks that leave the ledger, under way in this process: bounded, and fair between state machines.

What waits or runs here is only a shadow of the ledger: after a crash the executor finds every awaited task there and offers
it again. When too many wait, of one machine or of all, further ones are not taken; `on_room` says when to look into the ledger
for a machine's.
"""

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field

from .integrations import Prepared

RUNNING_LIMIT = 1_024
"""Tasks that run at once. What limits a function is the function's own concurrency."""

RUNNING_MACHINE_LIMIT = 256
"""Of one state machine: tasks that hang must not hold up those of others."""

WAITING_LIMIT = 10_000
"""Tasks that wait in memory; the others wait in the ledger only."""

WAITING_MACHINE_LIMIT = 1_000
"""Of one state machine: a backlog must not keep the tasks of others out."""


@dataclass(slots=True, eq=False)
class Job:
    """One task of one execution."""

    execution_id: int
    machine_id: int
    task_id: int
    prepared: Prepared
    reporting: bool = False
    """Its outcome is known and on its way to the ledger: too late to cancel."""
    cancelled: bool = False
    running: "asyncio.Task[None] | None" = field(default=None)


class Tasks:
    """A queue per state machine, served in turn. For the event loop's thread."""

    def __init__(self, run: Callable[[Job], Awaitable[None]], on_room: Callable[[int], None]) -> None:
        self._run = run
        self._on_room = on_room
        self._jobs: dict[int, dict[int, Job]] = {}
        self._incomplete: set[int] = set()
        """Executions of which some tasks are known here and others were refused."""
        self._waiting: dict[int, deque[Job]] = {}
        self._waiting_count = 0
        self._turns: OrderedDict[int, None] = OrderedDict()
        """The machines that have something waiting and may run more, in the order of their turns."""
        self._running: Counter[int] = Counter()
        self._running_count = 0
        self._refused: set[int] = set()
        self._stopped = True

    def open(self) -> None:
        """Begin to take jobs."""
        self._stopped = False

    def knows(self, execution_id: int, task_id: int) -> bool:
        """Whether the task waits or runs here."""
        return task_id in self._jobs.get(execution_id, ())

    def has_all_of(self, execution_id: int) -> bool:
        """Whether tasks of an execution wait or run here, and none was refused."""
        return execution_id in self._jobs and execution_id not in self._incomplete

    def refuses(self, machine_id: int) -> bool:
        """Whether a task of this state machine was refused, and there is no room yet."""
        return machine_id in self._refused

    def offer(self, job: Job) -> None:
        """Run a task as soon as there is room; one that is known already is not run twice."""
        if self._stopped or self.knows(job.execution_id, job.task_id):
            return
        of_machine = len(self._waiting.get(job.machine_id, ()))
        if self._waiting_count >= WAITING_LIMIT or of_machine >= WAITING_MACHINE_LIMIT:
            self._refused.add(job.machine_id)
            if job.execution_id in self._jobs:
                self._incomplete.add(job.execution_id)
            return
        self._jobs.setdefault(job.execution_id, {})[job.task_id] = job
        self._waiting.setdefault(job.machine_id, deque()).append(job)
        self._waiting_count += 1
        self._give_turn(job.machine_id)
        self._fill()

    def keep(self, execution_id: int, awaited: Collection[int]) -> None:
        """Cancel the tasks of an execution whose outcome nobody awaits any more."""
        for task_id, job in list(self._jobs.get(execution_id, {}).items()):
            if task_id not in awaited and not job.reporting:
                job.cancelled = True
                if job.running is not None:
                    job.running.cancel()

    def _give_turn(self, machine_id: int) -> None:
        if self._waiting.get(machine_id) and self._running[machine_id] < RUNNING_MACHINE_LIMIT:
            self._turns.setdefault(machine_id)

    def _fill(self) -> None:
        while self._turns and self._running_count < RUNNING_LIMIT and not self._stopped:
            machine_id, _ = self._turns.popitem(last=False)
            job = self._waiting[machine_id].popleft()
            self._waiting_count -= 1
            if job.cancelled:
                self._forget(job)
            else:
                self._running[machine_id] += 1
                self._running_count += 1
                job.running = asyncio.create_task(self._perform(job), name=f"task-{job.execution_id}-{job.task_id}")
            self._give_turn(machine_id)
        for machine_id in [machine_id for machine_id in self._refused if self._has_room(machine_id)]:
            self._refused.discard(machine_id)
            self._on_room(machine_id)

    def _has_room(self, machine_id: int) -> bool:
        """Whether so few wait that it is worth to look for more."""
        of_machine = len(self._waiting.get(machine_id, ()))
        return of_machine <= WAITING_MACHINE_LIMIT // 2 and self._waiting_count <= WAITING_LIMIT * 9 // 10

    async def _perform(self, job: Job) -> None:
        try:
            await self._run(job)
        except asyncio.CancelledError:
            if not job.cancelled:
                raise
        finally:
            self._running[job.machine_id] -= 1
            self._running_count -= 1
            self._forget(job)
            self._give_turn(job.machine_id)
            self._fill()

    def _forget(self, job: Job) -> None:
        known = self._jobs.get(job.execution_id, {})
        known.pop(job.task_id, None)
        if not known:
            self._jobs.pop(job.execution_id, None)
            self._incomplete.discard(job.execution_id)
        if not self._waiting.get(job.machine_id) and not self._running[job.machine_id]:
            self._waiting.pop(job.machine_id, None)
            del self._running[job.machine_id]

    async def stop(self, drain_s: float) -> None:
        """Begin nothing more, give what runs `drain_s` to end, then cancel it; the ledger has it still."""
        self._stopped = True
        self._waiting.clear()
        self._turns.clear()
        self._refused.clear()
        self._waiting_count = 0
        running = [job.running for jobs in self._jobs.values() for job in jobs.values() if job.running is not None]
        if running and drain_s > 0:
            await asyncio.wait(running, timeout=drain_s)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        self._jobs.clear()
        self._incomplete.clear()
