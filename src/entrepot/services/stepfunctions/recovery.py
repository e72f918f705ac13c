"""Taking up executions that have something to do and nobody here who does it: after a start, and when a backlog finds room.

The others have their timers and tokens in the ledger.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial

from entrepot.database import Database

from . import executions
from .tasks import Tasks

RECOVERY_PAGE = 100
"""Unfinished executions that are taken up together."""

RECOVERY_PAUSE_S = 5.0
"""When the unfinished executions cannot be read, they are read again after this time."""

_LAST = 1 << 62
"""No execution's id is greater."""

_log = logging.getLogger(__name__)


class Recovery:
    """For the event loop's thread. `resume` takes up one execution, and offers its tasks to `tasks`."""

    def __init__(self, database: Database, tasks: Tasks, resume: Callable[[int], Awaitable[None]]) -> None:
        self._database = database
        self._tasks = tasks
        self._resume = resume
        self._wanted = asyncio.Event()
        self._machines_with_room: set[int] = set()

    def again(self, machine_id: int) -> None:
        """There is room for tasks of a machine of which some were refused."""
        self._machines_with_room.add(machine_id)
        self._wanted.set()

    async def run(self) -> None:
        """Take up every unfinished execution, and then those of a machine whenever there is room for its tasks; for ever."""
        machines: set[int | None] = {None}
        while True:
            try:
                for machine_id in list(machines):
                    await self._recover(machine_id)
                    machines.discard(machine_id)
            except Exception:  # noqa: BLE001 - the task's top frame: whatever it was, executions must be taken up
                _log.exception("the unfinished executions could not be read; again in %s s", RECOVERY_PAUSE_S)
                await asyncio.sleep(RECOVERY_PAUSE_S)
                continue
            await self._wanted.wait()
            self._wanted.clear()
            machines |= self._machines_with_room
            self._machines_with_room.clear()

    async def _recover(self, of_machine: int | None) -> None:
        """Take up every execution (of one machine) that has something to do, a page at a time, as far as there is room."""
        after = (-1 if of_machine is None else of_machine, -1)
        while page := await self._database.scan(partial(executions.unfinished, after=after, limit=RECOVERY_PAGE)):
            wanted = [(machine, id_) for machine, id_ in page if of_machine in (None, machine)]
            await asyncio.gather(*(self._resume(id_) for _, id_ in wanted if not self._tasks.has_all_of(id_)))
            if len(wanted) < len(page):
                return
            machine_id, _ = after = page[-1]
            if self._tasks.refuses(machine_id):
                after = machine_id, _LAST
