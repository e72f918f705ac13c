"""What every adapter of the database port must do."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import apsw
import pytest

from entrepot.database import ConstraintError, Database, Migration, Transaction
from entrepot.database.sqlite import SQLiteDatabase
from entrepot.errors import EntrepotError, StorageError, StorageFullError

TABLE = Migration("test", 1, ("CREATE TABLE item (name TEXT PRIMARY KEY, value INTEGER NOT NULL, data BLOB)",))

ADAPTERS: dict[str, Callable[[Path], Database]] = {"sqlite": lambda folder: SQLiteDatabase(folder / "ledger.db")}


@pytest.fixture(params=ADAPTERS)
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    opened = ADAPTERS[request.param](tmp_path)
    opened.migrate([TABLE])
    yield opened
    await opened.close()


def insert(name: str, value: int | None = 1) -> Callable[[Transaction], int]:
    return lambda tx: tx.execute("INSERT INTO item (name, value) VALUES (?, ?)", (name, value))


async def names(database: Database) -> list[str]:
    return await database.read(lambda reader: [row[0] for row in reader.all("SELECT name FROM item ORDER BY name")])


async def test_a_read_sees_every_answered_write(database: Database) -> None:
    assert await database.write(insert("a")) == 1
    assert await names(database) == ["a"]
    assert await database.scan(lambda reader: reader.one("SELECT value FROM item WHERE name = ?", ("a",))) == (1,)
    assert await database.read(lambda reader: reader.one("SELECT value FROM item WHERE name = ?", ("b",))) is None


async def test_an_error_undoes_its_write_alone(database: Database) -> None:
    def fails(tx: Transaction) -> None:
        insert("half")(tx)
        tx.after_commit(lambda: pytest.fail("called after a rollback"))
        raise LookupError("no")

    def breaks_key(tx: Transaction) -> None:
        insert("other half")(tx)
        insert("a")(tx)

    writes = [insert("a"), fails, breaks_key, insert("b"), insert("c", None), insert("d")]
    results = await asyncio.gather(*(database.write(one) for one in writes), return_exceptions=True)
    assert [type(one) for one in results] == [int, LookupError, ConstraintError, int, ConstraintError, int]
    assert await names(database) == ["a", "b", "d"]


async def test_a_statement_of_nonsense_fails_its_write_alone(database: Database) -> None:
    results = await asyncio.gather(
        database.write(insert("a")),
        database.write(lambda tx: tx.execute("SELEKT")),
        database.write(insert("b")),
        return_exceptions=True,
    )
    assert results[0] == results[2] == 1
    assert isinstance(results[1], Exception)
    assert await names(database) == ["a", "b"]


@pytest.mark.parametrize("raised", [SystemExit(1), KeyboardInterrupt(), StopIteration(), GeneratorExit()])
async def test_whatever_a_write_raises_the_next_one_works(database: Database, raised: BaseException) -> None:
    def work(tx: Transaction) -> None:
        insert("half")(tx)
        raise raised

    with pytest.raises(RuntimeError, match="nothing of it was stored"):
        await database.write(work)
    await database.write(insert("a"))
    assert await names(database) == ["a"]


async def test_a_savepoint_undoes_its_block(database: Database) -> None:
    called: list[str] = []

    def work(tx: Transaction) -> None:
        insert("a")(tx)
        tx.after_commit(lambda: called.append("a"))
        with pytest.raises(ConstraintError), tx.savepoint():
            insert("b")(tx)
            tx.after_commit(lambda: called.append("b"))
            with tx.savepoint():
                insert("c")(tx)
            insert("a")(tx)
        insert("d")(tx)

    await database.write(work)
    assert await names(database) == ["a", "d"]
    await asyncio.sleep(0)
    assert called == ["a"]


async def test_callbacks_run_on_the_loop_after_the_commit(database: Database) -> None:
    called: asyncio.Future[tuple[int, list[str]]] = asyncio.get_running_loop().create_future()
    tasks = []

    async def look() -> None:
        called.set_result((threading.get_ident(), await names(database)))

    def work(tx: Transaction) -> None:
        insert("a")(tx)
        tx.after_commit(lambda: tasks.append(asyncio.ensure_future(look())))

    await database.write(work)
    assert await asyncio.wait_for(called, 5) == (threading.get_ident(), ["a"])


async def test_a_cancelled_caller_harms_nobody(database: Database) -> None:
    first = asyncio.ensure_future(database.write(insert("a")))
    second = asyncio.ensure_future(database.write(insert("b")))
    first.cancel()
    assert await second == 1
    assert "b" in await names(database)


async def test_a_read_is_one_snapshot(database: Database) -> None:
    await database.write(insert("a"))
    entered, go_on = threading.Event(), threading.Event()

    def work(reader: object) -> tuple[object, object]:
        count = "SELECT COUNT(*) FROM item"
        before = reader.one(count)  # type: ignore[attr-defined]
        entered.set()
        assert go_on.wait(10)
        return before, reader.one(count)  # type: ignore[attr-defined]

    scan = asyncio.ensure_future(database.scan(work))
    await asyncio.to_thread(entered.wait, 10)
    await database.write(insert("b"))
    go_on.set()
    assert await scan == ((1,), (1,))
    assert await names(database) == ["a", "b"]


async def test_text_is_compared_by_its_bytes(database: Database) -> None:
    for name in ("b", "B", "ä", "a", "\U0001f600", "\ufffd", ""):
        await database.write(insert(name))
    found = await names(database)
    assert found == sorted(found, key=str.encode)


async def test_a_reader_cannot_write(database: Database) -> None:
    with pytest.raises(Exception, match="readonly"):
        await database.read(lambda reader: reader.all("DELETE FROM item RETURNING name"))


async def test_migrations_run_once_and_a_newer_store_is_refused(database: Database) -> None:
    await database.write(insert("a"))
    second = Migration("test", 2, ("ALTER TABLE item ADD COLUMN more TEXT",))
    database.migrate([second, TABLE])
    database.migrate([TABLE, second])
    assert await names(database) == ["a"]
    with pytest.raises(EntrepotError, match="newer version"):
        database.migrate([TABLE])


async def test_a_migration_that_fails_leaves_nothing(database: Database) -> None:
    broken = Migration("test", 2, ("CREATE TABLE other (a TEXT)", "SELEKT"))
    with pytest.raises(Exception, match="SELEKT"):
        database.migrate([TABLE, broken])
    database.migrate([TABLE, Migration("test", 2, ("CREATE TABLE other (a TEXT)",))])


async def test_a_backup_is_whole_and_never_overwrites(database: Database, tmp_path: Path) -> None:
    await asyncio.gather(*(database.write(insert(f"{number:04}")) for number in range(500)))
    target = tmp_path / "copy.db"
    await asyncio.gather(
        database.backup(str(target)), *(database.write(insert(f"later {number}")) for number in range(50))
    )
    copy = apsw.Connection(str(target), flags=apsw.SQLITE_OPEN_READONLY)
    assert copy.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert copy.execute("SELECT COUNT(*) FROM item").fetchone()[0] >= 500
    copy.close()
    with pytest.raises(StorageError, match="exists already"):
        await database.backup(str(target))


async def test_a_sound_store_has_no_faults(database: Database) -> None:
    assert await database.check() == []


async def test_a_closed_database_refuses(database: Database) -> None:
    last = asyncio.ensure_future(database.write(insert("last")))
    await asyncio.sleep(0)
    await database.close()
    assert await last == 1
    for use in (database.write(insert("b")), database.read(lambda reader: None), database.scan(lambda reader: None)):
        with pytest.raises(StorageError, match="closed"):
            await use


async def test_a_full_disk_fails_the_group_and_passes(database: Database, tmp_path: Path) -> None:
    """The store's own page limit stands for a full disk: SQLite answers SQLITE_FULL to both."""
    (pages,) = await database.write(lambda tx: tx.one("PRAGMA max_page_count = 20")) or (0,)
    assert pages == 20

    def big(tx: Transaction) -> int:
        return tx.execute("INSERT INTO item (name, value, data) VALUES ('big', 1, ?)", (bytes(200_000),))

    def swallows(tx: Transaction) -> None:
        try:
            big(tx)
        except StorageFullError:
            insert("after the failure")(tx)

    for work in (big, swallows):
        results = await asyncio.gather(
            database.write(insert("neighbour")), database.write(work), return_exceptions=True
        )
        assert any(isinstance(one, StorageFullError) for one in results)
    assert "after the failure" not in await names(database)
    assert "big" not in await names(database)
    await database.write(lambda tx: tx.one("PRAGMA max_page_count = 100000"))
    assert await database.write(big) == 1
    assert await database.check() == []


async def test_several_processes_may_write(database: Database, tmp_path: Path) -> None:
    other = SQLiteDatabase(tmp_path / "ledger.db")
    try:
        await asyncio.gather(
            *(
                one.write(insert(f"{index} {number}"))
                for index, one in enumerate((database, other))
                for number in range(50)
            )
        )
        assert len(await names(database)) == len(await names(other)) == 100
    finally:
        await other.close()


async def test_the_log_stays_bounded(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from entrepot.database import checkpoints

    monkeypatch.setattr(checkpoints, "BACKGROUND_PAGES", 50)
    monkeypatch.setattr(checkpoints, "FOREGROUND_PAGES", 200)
    for number in range(100):
        name = str(number)
        await database.write(
            lambda tx, name=name: tx.execute(  # type: ignore[misc]
                "INSERT INTO item (name, value, data) VALUES (?, 1, ?)", (name, bytes(100_000))
            )
        )
    # 100 × 25 pages were written; the log holds at most the limit and one group.
    assert (tmp_path / "ledger.db-wal").stat().st_size < 400 * 4200
