"""Numbers of versions: they only grow, also over rollbacks, restarts, a clock that is set back, and other processes."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from entrepot import clock
from entrepot.database import Transaction
from entrepot.database.sqlite import SQLiteDatabase
from entrepot.services import s3
from entrepot.services.s3 import sequence
from entrepot.services.s3.sequence import AHEAD, PER_MS, Sequence


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[SQLiteDatabase]:
    database = SQLiteDatabase(tmp_path / "ledger.db")
    database.migrate(s3.MIGRATIONS)
    yield database
    await database.close()


async def many(database: SQLiteDatabase, numbers: Sequence, count: int = 1) -> list[int]:
    return await database.write(lambda tx: [numbers.next(tx) for _ in range(count)])


async def test_numbers_follow_the_clock(database: SQLiteDatabase) -> None:
    before = clock.now_ms() * PER_MS
    (number,) = await many(database, Sequence())
    assert before <= number <= clock.now_ms() * PER_MS


async def test_the_bound_is_rarely_written(database: SQLiteDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    now_ms = clock.now_ms()
    monkeypatch.setattr(sequence.clock, "now_ms", lambda: now_ms)
    numbers, written = Sequence(), []

    def work(tx: Transaction) -> int:
        execute, tx.execute = tx.execute, lambda *a: written.append(a) or execute(*a)  # type: ignore[method-assign, assignment, func-returns-value]
        return numbers.next(tx)

    given = [await database.write(work) for _ in range(200)]
    assert given == sorted(set(given)) and len(written) == 1


async def test_numbers_grow_over_rollbacks_restarts_and_a_clock_that_is_set_back(
    database: SQLiteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_ms, given = clock.now_ms(), []
    monkeypatch.setattr(sequence.clock, "now_ms", lambda: now_ms)
    numbers = Sequence()

    def rolled_back(tx: Transaction) -> None:
        numbers.next(tx)
        raise ValueError

    for step in range(12):
        if step % 4 == 3:
            numbers = Sequence()  # another process after a crash
        if step == 5:
            now_ms -= 3_600_000
        with pytest.raises(ValueError):
            await database.write(rolled_back)
        given += await many(database, numbers, AHEAD // 2)
    assert given == sorted(set(given))


async def test_two_that_number_one_ledger_never_give_the_same_number(database: SQLiteDatabase) -> None:
    one, other, given = Sequence(), Sequence(), []
    for _ in range(6):
        given += await many(database, one, AHEAD // 2)
        given += await many(database, other, AHEAD // 2)
    assert len(given) == len(set(given))
