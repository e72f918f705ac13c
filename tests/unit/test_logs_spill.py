"""Lines that come faster than they can be written: they wait on disk, in order, across crashes; nothing is lost."""

import asyncio
import shutil
import threading
from collections import deque
from pathlib import Path

import apsw
from hypothesis import given
from hypothesis import strategies as st

from entrepot import clock
from entrepot.loglines import LogLine
from entrepot.services.logs.spill import Spill
from entrepot.services.logs.store import Store

BLOCKED_S = 2.5


def lines_of(folder: Path) -> list[str]:
    connection = apsw.Connection(str(folder / "logs.db"))
    rows = connection.execute("SELECT message FROM log_event ORDER BY seq").fetchall()
    connection.close()
    return [str(row[0]) for row in rows]


def spilled(folder: Path) -> list[Path]:
    return sorted(folder.glob("logs.db.spill-*"))


def blocked(folder: Path) -> apsw.Connection:
    """Return a connection that keeps everybody from writing until it is rolled back."""
    connection = apsw.Connection(str(folder / "logs.db"))
    connection.set_busy_timeout(10_000)
    connection.execute("BEGIN IMMEDIATE")
    return connection


async def test_nothing_is_lost_while_the_writer_is_blocked_for_seconds(tmp_path: Path) -> None:
    store = Store(tmp_path / "logs.db", queue_limit_bytes=200_000)
    blocker = blocked(tmp_path)
    began_s = clock.monotonic_s()
    count = 0
    while clock.monotonic_s() < began_s + BLOCKED_S:
        for _ in range(1_000):
            assert store.append("g", f"s{count % 3}", LogLine(1_000 + count, f"line {count}"))
            count += 1
        await asyncio.sleep(0.02)
    assert store.statistics().spilled_bytes > 0 and store.statistics().queued_bytes <= 200_000
    blocker.execute("ROLLBACK")
    await store.drained()
    assert store.append("g", "s0", LogLine(1, "the last"))
    await store.close()
    assert store.statistics().dropped == 0
    assert lines_of(tmp_path) == [*(f"line {number}" for number in range(count)), "the last"], "all, once, in order"
    assert not spilled(tmp_path)


async def test_what_waits_on_disk_survives_the_process(tmp_path: Path) -> None:
    folder, later = tmp_path / "first", tmp_path / "later"
    folder.mkdir()
    store = Store(folder / "logs.db", queue_limit_bytes=10_000)
    blocker = blocked(folder)
    for number in range(1_000):
        assert store.append("g", "s", LogLine(number, f"line {number}"))
    with store._condition:
        store._spill.flush()
        shutil.copytree(folder, later)  # what a process that is killed now leaves
    blocker.execute("ROLLBACK")
    await store.close()
    store = Store(later / "logs.db")
    await store.drained()
    await store.close()
    found = lines_of(later)
    first = int(found[0].split()[1])
    assert 0 < first < 100, "what was in memory is gone"
    assert found == [f"line {number}" for number in range(first, 1_000)]
    assert not spilled(later)


async def test_how_far_was_read_is_known_after_a_crash(tmp_path: Path) -> None:
    folder, later = tmp_path / "first", tmp_path / "later"
    folder.mkdir()
    store = Store(folder / "logs.db", queue_limit_bytes=1_000)
    blocker = blocked(folder)
    for number in range(15_000):
        assert store.append("g", "s", LogLine(number, f"line {number}"))
    finished = store._finish
    between = threading.Event()

    def copy(batch: object) -> None:
        """The moment after a commit, before anything else knows of it."""
        if getattr(batch, "spill_offset", 0) and not between.is_set():
            with store._condition:
                store._spill.flush()
                shutil.copytree(folder, later)
            between.set()
        finished(batch)  # type: ignore[arg-type]

    store._finish = copy  # type: ignore[method-assign]
    blocker.execute("ROLLBACK")
    await store.drained()
    await store.close()
    assert between.is_set()
    store = Store(later / "logs.db")
    await store.drained()
    await store.close()
    assert lines_of(later) == [f"line {number}" for number in range(15_000)], "none twice, none missing"


async def test_a_producer_waits_when_the_disk_has_no_room_either(tmp_path: Path) -> None:
    store = Store(tmp_path / "logs.db", queue_limit_bytes=2_000, spill_limit_bytes=2_000)
    gate, entered = threading.Event(), threading.Event()

    def block(_: object) -> None:
        entered.set()
        assert gate.wait(10)

    job = asyncio.create_task(store.run(block))
    await asyncio.to_thread(entered.wait, 10)

    def produce() -> list[bool]:
        return [store.append("g", "s", LogLine(number, f"line {number}")) for number in range(300)]

    producing = asyncio.create_task(asyncio.to_thread(produce))
    await asyncio.sleep(0.2)
    assert not producing.done(), "the producer is held up"
    gate.set()
    assert all(await producing)
    await job
    await store.close()
    assert lines_of(tmp_path) == [f"line {number}" for number in range(300)]


async def test_lines_that_cannot_be_written_at_the_end_wait_for_the_next_start(tmp_path: Path) -> None:
    store = Store(tmp_path / "logs.db")
    blocker = blocked(tmp_path)
    store._writer.session.connection.set_busy_timeout(10)
    for number in range(10):
        store.append("g", "s", LogLine(number, f"line {number}"))
    await store.close()
    blocker.execute("ROLLBACK")
    assert lines_of(tmp_path) == [] and len(spilled(tmp_path)) == 1
    store = Store(tmp_path / "logs.db")
    await store.close()
    assert lines_of(tmp_path) == [f"line {number}" for number in range(10)]


def test_a_torn_end_is_cut_off(tmp_path: Path) -> None:
    spill = Spill(tmp_path / "logs.db", 1 << 20)
    spill.open(3, 0)
    for number in range(5):
        assert spill.put(("g", "s", number, f"line {number}", 1))
    spill.flush()
    spill.close()
    (path,) = spilled(tmp_path)
    path.write_bytes(path.read_bytes()[:-3])
    (tmp_path / "logs.db.spill-1").write_bytes(b"old")
    spill = Spill(tmp_path / "logs.db", 1 << 20)
    spill.open(3, 0)
    assert spilled(tmp_path) == [path], "what was read long ago is gone"
    assert spill.put(("g", "s", 9, "after", 1))
    lines, offset = spill.take(100, spill.flush())
    assert [line[3] for line in lines] == ["line 0", "line 1", "line 2", "line 3", "after"]
    spill.done(offset)
    assert spill.waiting_bytes == 0 and spill.generation == 4


MESSAGES = st.text(st.characters(codec=None), max_size=30)


@given(st.lists(st.one_of(MESSAGES, st.integers(1, 5)), max_size=40))
def test_lines_come_out_as_they_went_in(steps: list[str | int]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        spill, expected = Spill(Path(name) / "logs.db", 1 << 20), deque[str]()
        spill.open(0, 0)
        for step in steps:
            if isinstance(step, str):
                assert spill.put(("g", "s", 1, step, 1))
                expected.append(step.encode(errors="replace").decode())
            elif spill.waiting_bytes:
                lines, offset = spill.take(step, spill.flush())
                assert [line[3] for line in lines] == [expected.popleft() for _ in range(min(step, len(expected)))]
                spill.done(offset)
        assert bool(spill.waiting_bytes) == bool(expected)
        spill.close()
