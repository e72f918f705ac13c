"""How often API destinations are called: each has slots in time, and a delivery that must wait gets the next free one.

A delivery's row is written once to wait for its slot, not each second anew. Slots are in memory: after a start they are
given out anew.
"""

import random

HORIZON_MS = 60_000
"""Slots are given out so far ahead; what would come later asks again then."""

BURST_MS = 50
"""A destination that was left alone may be called at once as often as it may in this time (at 300 a second: 16 times)."""

SLOTS_LIMIT = 100_000
"""Slots that are given out at the same time, before those that nobody came for are dropped."""


class RateLimits:
    """The slots of all API destinations."""

    def __init__(self) -> None:
        self._next_free_ms: dict[str, float] = {}
        self._slots: dict[int, float] = {}

    def wait_ms(self, arn: str, delivery_id: int, rate_per_s: int, now_ms: int) -> int:
        """Return how long a delivery has to wait before it asks again; 0 when it may go now."""
        if len(self._slots) >= SLOTS_LIMIT or len(self._next_free_ms) >= SLOTS_LIMIT:
            self._forget_old(now_ms)
        slot_ms = self._slots.get(delivery_id)
        if slot_ms is None:
            slot_ms = max(self._next_free_ms.get(arn, 0.0), float(now_ms - BURST_MS))
            if slot_ms - now_ms > HORIZON_MS:
                return HORIZON_MS + int(random.uniform(0, 1000))  # noqa: S311 - so that not all ask at once
            self._next_free_ms[arn] = slot_ms + 1000 / rate_per_s
        if slot_ms <= now_ms:
            self._slots.pop(delivery_id, None)
            return 0
        self._slots[delivery_id] = slot_ms
        return max(1, round(slot_ms - now_ms))

    def _forget_old(self, now_ms: int) -> None:
        """Drop slots that nobody came for, and destinations that nobody waits for."""
        self._slots = {key: slot_ms for key, slot_ms in self._slots.items() if slot_ms > now_ms - HORIZON_MS}
        self._next_free_ms = {arn: free_ms for arn, free_ms in self._next_free_ms.items() if free_ms > now_ms}
