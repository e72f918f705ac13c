"""The numbers of versions and contents: each greater than every one before, in this ledger.

They follow the clock where they can (16 a millisecond), so that a ledger restored from a backup does not give out numbers
again that the world has seen. The ledger holds a bound that no number has passed; it is moved a second ahead at a time, so
that a version costs no statement for its number. After a start, numbers begin behind the bound.
"""

from entrepot import clock
from entrepot.database import Transaction

PER_MS = 16
"""Numbers of a millisecond."""

AHEAD = 1_000 * PER_MS
"""How far the bound is moved ahead of the numbers."""


class Sequence:
    """The numbers of one ledger. `next` is for transactions, which the database runs one after another."""

    def __init__(self) -> None:
        self._last = 0
        self._bound = 0
        self._written = 0

    def next(self, tx: Transaction) -> int:
        """Return the next number. A transaction that is rolled back leaves a gap, never a number twice."""
        number = max(self._last + 1, clock.now_ms() * PER_MS)
        if number > self._bound:
            number = self._move_bound(tx, number)
        self._last = number
        return number

    def _move_bound(self, tx: Transaction, number: int) -> int:
        """Move the bound beyond `number`; return the number, greater if somebody else gave out numbers meanwhile."""
        row = tx.one("SELECT value FROM s3_sequence WHERE name = 'version'")
        assert row is not None
        if row[0] not in (self._bound, self._written):  # another process, or the one before this
            number = max(number, row[0] + 1)
        bound = self._written = number + AHEAD
        tx.execute("UPDATE s3_sequence SET value = ? WHERE name = 'version'", (bound,))
        tx.after_commit(lambda: self._committed(bound))
        return number

    def _committed(self, bound: int) -> None:
        self._bound = max(self._bound, bound)
