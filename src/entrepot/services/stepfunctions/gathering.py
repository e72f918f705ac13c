"""What happens to one execution at about the same time is written together.

While the write for one happening waits for its turn, others of the same execution join it: the outcomes of a Map's
iterations then cost one reading and one writing of the execution together, not one each.
"""

import asyncio
import threading

from .happenings import Happening

GATHER_LIMIT = 100
"""Happenings that are written together at most, so that a transaction does not hold the ledger for long."""


class Gathered:
    """Happenings of one execution that wait for one write. `join` is for the event loop's thread, `take` for the writer's."""

    __slots__ = ("_closed", "_happenings", "_lock", "written")

    def __init__(self, first: Happening) -> None:
        self._lock = threading.Lock()
        self._happenings = [first]
        self._closed = False
        self.written: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def join(self, happening: Happening) -> bool:
        """Add a happening; False when it is too late."""
        with self._lock:
            if self._closed or len(self._happenings) >= GATHER_LIMIT:
                return False
            self._happenings.append(happening)
            return True

    def take(self) -> list[Happening]:
        """Return all of them, for a write that begins (also when it has to be repeated); nobody can join any more."""
        with self._lock:
            self._closed = True
            return self._happenings
