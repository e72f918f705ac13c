"""How fast a function may print: its workers together fill a bucket that drains at a steady rate.

When it is full, the pipe is not read for a while; the function's next `print` then waits, as on a slow terminal. So output costs
the server a bounded part of its time, whatever is printed.
"""

from entrepot import clock

BURST_BYTES = 4 * 1024 * 1024
RATE_BYTES_PER_S = 1024 * 1024
"""What a function's workers may log at once, and for long."""

EVENT_COST_BYTES = 256
"""What a log event costs beside its text: who prints empty lines is to have no more of the server than who prints long ones."""

DROPPED_PART = 16
"""Bytes that are only counted and dropped cost this many times less."""


class Pace:
    """One function's allowance."""

    def __init__(self) -> None:
        self._left = float(BURST_BYTES)
        self._at_s = clock.monotonic_s()

    def spend(self, cost_bytes: float) -> None:
        """Take this much; more than is left is a debt that must be waited for."""
        now_s = clock.monotonic_s()
        self._left = min(BURST_BYTES, self._left + (now_s - self._at_s) * RATE_BYTES_PER_S) - cost_bytes
        self._at_s = now_s

    def wait_s(self) -> float:
        """Return after how many seconds the next byte may be read; 0 for now."""
        if self._left >= 0:
            return 0.0
        return max(0.0, -self._left / RATE_BYTES_PER_S - (clock.monotonic_s() - self._at_s))
