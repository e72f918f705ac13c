"""Named points of the durable path at which a test may kill the process.

A point costs one comparison while none is armed. `docs/durability.md` lists them.
"""

import os
import signal

_armed: dict[str, int] = {}


def arm(point: str, nth: int) -> None:
    """Kill this process with SIGKILL when `point` is reached for the `nth` time (1 is the first)."""
    _armed[point] = nth


def reach(point: str) -> None:
    """Pass the named point; with it armed, count down and die there."""
    if _armed and point in _armed:
        _armed[point] -= 1
        if _armed[point] <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
