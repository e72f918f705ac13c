"""The book: all expectations, found by the beginnings of keys, as a transaction sees them."""

from collections.abc import Iterator

from entrepot.database import Reader, Transaction
from entrepot.services.expectations.expectation import Expectation, of_json


class Index:
    """Expectations by the literal beginning of their patterns: a look-up for each length that a beginning has."""

    def __init__(self, expectations: list[Expectation]) -> None:
        self._by_prefix: dict[str, list[Expectation]] = {}
        for one in expectations:
            self._by_prefix.setdefault(one.prefix, []).append(one)
        self._lengths = sorted({len(prefix) for prefix in self._by_prefix})

    def matching(self, bucket: str, key: str, customer_id: str) -> Iterator[Expectation]:
        """Yield the expectations that are about a file."""
        for length in self._lengths:
            if length > len(key):
                return
            for one in self._by_prefix.get(key[:length], ()):
                if one.fits(bucket, key, customer_id):
                    yield one


class Book:
    """Remembers the index; what is changed but not durable yet is read anew in each transaction."""

    def __init__(self) -> None:
        self._index: Index | None = None
        self._known = False
        self._changing: set[object] = set()

    def of(self, reader: Reader) -> Index | None:
        """Return the index, None when nothing is expected. For the thread that writes."""
        if self._changing:
            return _read(reader)
        if not self._known:
            self._index, self._known = _read(reader), True
        return self._index

    def change(self, tx: Transaction) -> None:
        """Say that this transaction changes expectations. One that is rolled back costs speed, never correctness."""
        token = object()
        self._changing.add(token)
        self._known = False
        tx.after_commit(lambda: self._changing.discard(token))


def _read(reader: Reader) -> Index | None:
    found = every(reader)
    return Index(found) if found else None


def every(reader: Reader) -> list[Expectation]:
    """Return all expectations by name."""
    rows = reader.all("SELECT definition FROM expectations_expectation ORDER BY name LIMIT ?", (EXPECTATIONS_LIMIT,))
    return [of_json(row[0]) for row in rows]


EXPECTATIONS_LIMIT = 1_000
"""Expectations of one installation."""
