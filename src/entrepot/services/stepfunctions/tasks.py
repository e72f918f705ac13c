"""The tasks that leave the ledger, under way in this process: bounded, and fair between state machines.

What waits or runs here is only a shadow of the ledger: after a crash the executor finds every awaited task there and offers
it again. When too many wait, further ones are not taken; `on_room` says when to look into the ledger for them.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field

from .integrations import Prepared

RUNNING_LIMIT = 256
"""Tasks that run at once. What limits a function is the function's own concurrency."""

WAITING_LIMIT = 10_000
"""Tasks that wait in memory; the others wait in the ledger only."""


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

    def __init__(self, run: Callable[[Job], Awaitable[None]], on_room: Callable[[], None]) -> None:
        self._run = run
        self._on_room = on_room
        self._jobs: dict[int, dict[int, Job]] = {}
        self._waiting: OrderedDict[int, deque[Job]] = OrderedDict()
        self._waiting_count = 0
        self._running_count = 0
        self._refused = False
        self._stopped = True

    def open(self) -> None:
        """Begin to take jobs."""
        self._stopped = False

    def knows(self, execution_id: int, task_id: int) -> bool:
        """Whether the task waits or runs here."""
        return task_id in self._jobs.get(execution_id, ())

    def offer(self, job: Job) -> None:
        """Run a task as soon as there is room; one that is known already is not run twice."""
        if self._stopped or self.knows(job.execution_id, job.task_id):
            return
        if self._waiting_count >= WAITING_LIMIT:
            self._refused = True
            return
        self._jobs.setdefault(job.execution_id, {})[job.task_id] = job
        self._waiting.setdefault(job.machine_id, deque()).append(job)
        self._waiting_count += 1
        self._fill()

    def keep(self, execution_id: int, awaited: Collection[int]) -> None:
        """Cancel the tasks of an execution whose outcome nobody awaits any more."""
        for task_id, job in list(self._jobs.get(execution_id, {}).items()):
            if task_id not in awaited and not job.reporting:
                job.cancelled = True
                if job.running is not None:
                    job.running.cancel()

    def _fill(self) -> None:
        while self._waiting and self._running_count < RUNNING_LIMIT and not self._stopped:
            machine_id, queue = next(iter(self._waiting.items()))
            job = queue.popleft()
            self._waiting_count -= 1
            if queue:
                self._waiting.move_to_end(machine_id)
            else:
                del self._waiting[machine_id]
            if job.cancelled:
                self._forget(job)
                continue
            self._running_count += 1
            job.running = asyncio.create_task(self._perform(job), name=f"task-{job.execution_id}-{job.task_id}")
        if self._refused and self._waiting_count < WAITING_LIMIT // 2:
            self._refused = False
            self._on_room()

    async def _perform(self, job: Job) -> None:
        try:
            await self._run(job)
        except asyncio.CancelledError:
            if not job.cancelled:
                raise
        finally:
            self._running_count -= 1
            self._forget(job)
            self._fill()

    def _forget(self, job: Job) -> None:
        known = self._jobs.get(job.execution_id, {})
        known.pop(job.task_id, None)
        if not known:
            self._jobs.pop(job.execution_id, None)

    async def stop(self, drain_s: float) -> None:
        """Begin nothing more, give what runs `drain_s` to end, then cancel it; the ledger has it still."""
        self._stopped = True
        self._waiting.clear()
        self._waiting_count = 0
        running = [job.running for jobs in self._jobs.values() for job in jobs.values() if job.running is not None]
        if running and drain_s > 0:
            await asyncio.wait(running, timeout=drain_s)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        self._jobs.clear()
