"""Settlements: whoever counts files hears of each failure once for each time that the file was tried."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from entrepot.database.sqlite import SQLiteDatabase
from entrepot.services.files import settlements
from entrepot.services.files.record import FAILED, TRANSFERRED, TRANSFERRING, UPLOADED
from entrepot.services.files.settlements import Settlements


class Site:
    def __init__(self, path: Path) -> None:
        self.database = SQLiteDatabase(path)
        self.told: list[tuple[str, str]] = []
        self.settlements = Settlements(lambda settled: self.told.append((settled.file_id, settled.status)))

    async def reach(self, *statuses: int, file_id: str = "a", arrived: bool = True) -> None:
        for status in statuses:
            await self.database.write(
                lambda tx, status=status: self.settlements.tell(tx, status, file_id, 5, 1 if arrived else None)
            )


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(tmp_path / "ledger.db")
    yield made
    await made.database.close()


async def test_a_function_that_is_retried_fails_once(site: Site) -> None:
    await site.reach(UPLOADED, arrived=False)
    await site.reach(TRANSFERRING, FAILED, TRANSFERRING, FAILED, FAILED)
    assert site.told == [("a", "uploaded"), ("a", "failed")]


async def test_a_redrive_may_fail_again_and_a_delivery_is_always_told(site: Site) -> None:
    await site.reach(FAILED, UPLOADED, FAILED, TRANSFERRED, FAILED)
    assert [status for _, status in site.told] == ["failed", "failed", "transferred", "failed"]


async def test_what_is_rolled_back_is_not_told(site: Site) -> None:
    def dies(tx: object) -> None:
        site.settlements.tell(tx, FAILED, "a", 5, 1)  # type: ignore[arg-type]
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await site.database.write(dies)
    await site.reach(FAILED)
    assert site.told == [("a", "failed")]


async def test_few_failures_are_remembered(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settlements, "REMEMBERED_LIMIT", 2)
    for file_id in ("a", "b", "c", "c", "a"):
        await site.reach(FAILED, file_id=file_id)
    assert [file_id for file_id, _ in site.told] == ["a", "b", "c", "a"]
