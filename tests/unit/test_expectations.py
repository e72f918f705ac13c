"""Expectations: windows in every time zone, one outcome for each, and what is told."""

import dataclasses
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entrepot import clock
from entrepot.arns import Account
from entrepot.database import Reader, Transaction
from entrepot.database.sqlite import SQLiteDatabase
from entrepot.errors import AwsError
from entrepot.operations import Call, Decision, Operations, Principal
from entrepot.services import expectations
from entrepot.services.expectations.book import Index
from entrepot.services.expectations.errors import ValidationError
from entrepot.services.expectations.expectation import Expectation, compiled, expectation_of, of_json
from entrepot.services.expectations.windows import WEEKDAYS, Schedule, last_closed, next_window, window_at, window_on

ROOT = Call(Principal("arn:aws:iam::000000000000:root", "root", "root"), "REQ")
EVERY_DAY = WEEKDAYS
ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Asia/Kathmandu",
    "America/Santiago",
)


def ms(text: str, zone: str = "UTC") -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)


# ── windows ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_deadline_is_a_time_of_the_place_on_both_sides_of_a_change_of_clocks() -> None:
    berlin = Schedule("06:00", "Europe/Berlin", EVERY_DAY)
    utc = {day: window_on(berlin, date.fromisoformat(day)) for day in ("2026-03-28", "2026-03-29", "2026-10-25")}
    assert {day: clock.iso(w.deadline_at_ms)[11:16] for day, w in utc.items() if w} == {
        "2026-03-28": "05:00",
        "2026-03-29": "04:00",
        "2026-10-25": "05:00",
    }


def test_a_deadline_that_the_clock_skips_is_later_and_of_two_the_first_counts() -> None:
    berlin = Schedule("02:30", "Europe/Berlin", EVERY_DAY)
    skipped, twice = window_on(berlin, date(2026, 3, 29)), window_on(berlin, date(2026, 10, 25))
    assert skipped is not None and clock.iso(skipped.deadline_at_ms) == "2026-03-29T01:30:00.000Z"  # 03:30 there
    assert twice is not None and clock.iso(twice.deadline_at_ms) == "2026-10-25T00:30:00.000Z"


def test_a_date_that_a_place_left_out_has_no_window() -> None:
    samoa = Schedule("06:00", "Pacific/Apia", EVERY_DAY)
    assert window_on(samoa, date(2011, 12, 30)) is None
    assert window_on(samoa, date(2011, 12, 29)) is not None and window_on(samoa, date(2011, 12, 31)) is not None


def test_weekends_and_holidays_have_no_windows() -> None:
    working = Schedule("06:00", holidays=("2026-11-23",))
    friday = ms("2026-11-20T06:00")
    following = next_window(working, friday + 1)
    assert following is not None and following.date == "2026-11-24"


def test_an_expectation_goes_on_after_years_of_holidays_and_without_its_time_zone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    mondays = [date(2026, 11, 23) + timedelta(weeks=number) for number in range(366)]
    idle = Schedule("06:00", days=("mon",), holidays=tuple(day.isoformat() for day in mondays))
    following = next_window(idle, ms("2026-11-22T00:00"))
    assert following is not None and following.date == (mondays[-1] + timedelta(weeks=1)).isoformat()
    lost = window_on(Schedule("06:00", "Mars/Base"), date(2026, 11, 23))
    assert lost is not None and clock.iso(lost.deadline_at_ms) == "2026-11-23T06:00:00.000Z"
    assert "Mars/Base" in caplog.text


schedules = st.builds(
    Schedule,
    by=st.times().map(lambda t: t.strftime("%H:%M:%S")),
    time_zone=st.sampled_from(ZONES),
    days=st.sets(st.sampled_from(WEEKDAYS), min_size=1).map(lambda days: tuple(sorted(days))),
    window_s=st.integers(1, 604_800),
    grace_s=st.integers(0, 39_600),
)
moments = st.datetimes(datetime(2005, 1, 1), datetime(2035, 1, 1)).map(
    lambda moment: round(moment.replace(tzinfo=UTC).timestamp() * 1000)
)


@settings(max_examples=150, deadline=None)
@given(schedules, moments)
def test_windows_are_in_order_and_never_overlap(schedule: Schedule, at_ms: int) -> None:
    day = datetime.fromtimestamp(at_ms / 1000, UTC).date()
    windows = [w for offset in range(21) if (w := window_on(schedule, day + timedelta(days=offset))) is not None]
    assert len(windows) >= 2
    for window in windows:
        assert window.opens_at_ms < window.deadline_at_ms <= window.closes_at_ms
        assert WEEKDAYS[date.fromisoformat(window.date).weekday()] in schedule.days
        there = datetime.fromtimestamp(window.deadline_at_ms / 1000, ZoneInfo(schedule.time_zone))
        wanted = datetime.combine(date.fromisoformat(window.date), datetime.strptime(schedule.by, "%H:%M:%S").time())
        # It is the wanted time of that place, or later by what the clock was put forward over it (2 h at most).
        assert timedelta() <= there.replace(tzinfo=None, fold=0) - wanted <= timedelta(hours=2)
    for before, after in pairwise(windows):
        assert before.closes_at_ms <= after.opens_at_ms
        assert before.date < after.date


@settings(max_examples=150, deadline=None)
@given(schedules, moments)
def test_every_moment_is_in_a_window_or_between_two(schedule: Schedule, at_ms: int) -> None:
    inside, following, before = window_at(schedule, at_ms), next_window(schedule, at_ms), last_closed(schedule, at_ms)
    assert following is not None and following.closes_at_ms >= at_ms
    assert before is not None and before.closes_at_ms < at_ms
    assert inside == (following if following.opens_at_ms < at_ms else None)
    between = next_window(schedule, before.closes_at_ms + 1)
    assert between == following


# ── patterns ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("pattern", "key", "fits"),
    [
        ("acme/*.csv", "acme/a.csv", True),
        ("acme/*.csv", "acme/b/a.csv", False),
        ("acme/**.csv", "acme/b/a.csv", True),
        ("acme/report-????.csv", "acme/report-2026.csv", True),
        ("acme/report-????.csv", "acme/report-226.csv", False),
        ("acme/a.csv", "acme/aXcsv", False),
        ("acme/[a].csv", "acme/[a].csv", True),
        ("**", "ä\n/b", True),
        ("*" * 500 + "x", "y" * 1000, False),
    ],
)
def test_patterns(pattern: str, key: str, fits: bool) -> None:
    assert (compiled(pattern).fullmatch(key) is not None) == fits


@given(st.text(max_size=30), st.text(max_size=30))
def test_any_text_is_a_pattern_that_the_index_finds_as_the_pattern_does(pattern: str, key: str) -> None:
    one = Expectation("n", pattern, Schedule("06:00"))
    assert list(Index([one]).matching("b", key, "c")) == ([one] if compiled(pattern).fullmatch(key) else [])


def test_an_expectation_survives_its_row() -> None:
    one = expectation_of(
        {"name": "n", "key_pattern": "a*", "by": "06:00", "holidays": ["2026-12-25"], "days": ["Monday"]}
    )
    assert of_json(one.as_json()) == one and one.schedule.days == ("mon",)


@pytest.mark.parametrize(
    "wrong",
    [
        {"by": "25:00"}, {"by": "6"}, {"by": "06:00+01:00"}, {"time_zone": "Mars/Base"}, {"time_zone": "../../etc/passwd"},
        {"time_zone": "Europe"}, {"days": ["never"]}, {"holidays": ["tomorrow"]}, {"name": "a/b"}, {"name": ""},
        {"key_pattern": ""}, {"grace_s": 86_400}, {"window_s": 0}, {"maximum_files": 0}, {"minimum_size_bytes": -1},
        {"key_pattern": "\ud800"},
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused(wrong: Mapping[str, Any]) -> None:
    with pytest.raises(ValidationError):
        expectation_of({"name": "n", "key_pattern": "a*", "by": "06:00", **wrong})


# ── outcomes ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclasses.dataclass(frozen=True)
class Created:
    key: str
    size_bytes: int
    created_at_ms: int
    bucket: str = "in"


class House:
    """Expectations on a ledger, at a time that the test tells."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now_ms = ms("2026-11-22T12:00")
        self.events: list[tuple[str, Mapping[str, Any]]] = []
        self.counted: list[tuple[str, str]] = []
        self.there: list[expectations.Arrival] = []
        self.open()

    def open(self) -> None:
        self.database = SQLiteDatabase(self.path)
        self.database.migrate(expectations.MIGRATIONS)
        self.room = expectations.Expectations(
            self.database,
            Account(),
            emit=self._emit,
            on_outcome=lambda name, kind: self.counted.append((name, kind)),
            arrived_since=self._there,
        )
        self.operations = Operations(self.database, lambda principal, permission: Decision(True, "test", "test"))
        self.operations.add("entrepot", expectations.operations(self.room))

    async def reopen(self) -> None:
        await self.database.close()
        self.open()

    def _emit(self, tx: Transaction, kind: str, resource: str, detail: Mapping[str, Any]) -> None:
        assert resource.endswith(f":expectation/{detail['expectation']}")
        tx.after_commit(lambda: self.events.append((kind, detail)))

    def _there(self, reader: Reader, prefix: str, since_ms: int) -> list[expectations.Arrival]:
        return [file for file in self.there if file.key.startswith(prefix) and file.at_ms >= since_ms]

    async def ask(self, operation: str, **request: Any) -> dict[str, Any]:
        return await self.operations.perform("entrepot", operation, request, ROOT)

    async def put(self, **more: Any) -> None:
        await self.ask("PutExpectation", **{"name": "daily", "key_pattern": "acme/*.csv", "by": "06:00", **more})

    async def upload(self, at: str, key: str = "acme/a.csv", size_bytes: int = 5, customer_id: str = "acme") -> None:
        self.now_ms = ms(at)
        created = Created(key, size_bytes, self.now_ms)
        await self.database.write(lambda tx: self.room.file_arrived(tx, created, f"id of {key}", customer_id))

    async def look(self, at: str) -> float:
        self.now_ms = ms(at)
        return await self.room.look()

    async def outcomes(self) -> dict[str, str]:
        answer = await self.ask("GetExpectation", name="daily", limit=400)
        return {one["window"][5:]: one["outcome"] for one in reversed(answer["outcomes"])}

    def told(self) -> list[str]:
        return [kind.removeprefix("Expected File ") for kind, _ in self.events]


@pytest.fixture
async def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    made = House(tmp_path / "ledger.db")
    monkeypatch.setattr(clock, "now_ms", lambda: made.now_ms)
    yield made
    await made.database.close()


async def test_a_file_in_time_fulfils_its_window_and_no_other(house: House) -> None:
    await house.put()
    await house.upload("2026-11-23T05:59")
    await house.look("2026-11-24T06:00:02")
    assert await house.outcomes() == {"11-23": "arrived", "11-24": "missing"}
    assert house.told() == ["Arrived", "Missing"]
    assert house.counted == [("daily", "arrived"), ("daily", "missing")]
    arrived, missing = (detail for _, detail in house.events)
    assert arrived["file"]["key"] == "acme/a.csv" and arrived["deadline"] == "2026-11-23T06:00:00.000Z"
    assert "file" not in missing and missing["window"] == "2026-11-24"


async def test_a_late_file_is_late_and_is_not_taken_for_the_next_one(house: House) -> None:
    await house.put(grace_s=600)
    await house.upload("2026-11-23T06:05")  # within the grace
    await house.look("2026-11-24T06:10:02")
    await house.upload("2026-11-24T09:00")  # after it was missed
    await house.look("2026-11-25T06:10:02")
    assert await house.outcomes() == {"11-23": "late", "11-24": "late", "11-25": "missing"}
    assert house.told() == ["Late", "Missing", "Late", "Missing"]


async def test_a_late_file_that_comes_before_anybody_looked_is_missing_first(house: House) -> None:
    await house.put()
    await house.upload("2026-11-23T06:00:00.500000")
    assert house.told() == ["Missing", "Late"]


async def test_small_files_do_not_fulfil_and_more_than_wanted_are_duplicates(house: House) -> None:
    await house.put(minimum_size_bytes=10, maximum_files=2)
    await house.upload("2026-11-23T01:00", size_bytes=0)
    assert await house.outcomes() == {"11-23": "too-small"}
    for hour in (2, 3, 4):
        await house.upload(f"2026-11-23T0{hour}:00", size_bytes=10)
    await house.upload("2026-11-23T05:00", size_bytes=9)
    assert await house.outcomes() == {"11-23": "duplicate"}
    assert house.told() == ["Too Small", "Arrived", "Arrived", "Duplicate", "Too Small"]
    (outcome,) = (await house.ask("GetExpectation", name="daily"))["outcomes"]
    assert (outcome["files"], outcome["small_files"], outcome["size_bytes"]) == (3, 2, 10)


async def test_files_of_others_do_not_count(house: House) -> None:
    await house.put(customer_id="acme", source_bucket="in")
    await house.upload("2026-11-23T05:00", customer_id="globex")
    await house.upload("2026-11-23T05:00", key="acme/a.txt")
    assert await house.outcomes() == {} and house.told() == []


async def test_what_closed_while_nobody_was_there_is_caught_up_once(house: House) -> None:
    await house.put()
    await house.upload("2026-11-23T05:00")
    await house.reopen()
    house.now_ms = ms("2026-11-27T07:00")
    await house.room.start()
    await house.room.stop()
    await house.reopen()
    await house.room.look()
    assert await house.outcomes() == {"11-23": "arrived", "11-24": "missing", "11-25": "missing", "11-26": "missing",
                                      "11-27": "missing"}  # fmt: skip
    assert house.told() == ["Arrived"] + ["Missing"] * 4


async def test_years_of_absence_are_caught_up_in_bounded_transactions(house: House) -> None:
    await house.put(days=["mon"])
    await house.look("2031-11-24T07:00")
    assert house.told() == ["Missing"] * 262
    oldest = (await house.ask("GetExpectation", name="daily", limit=400))["outcomes"][-1]
    assert oldest["window"] >= "2030-10-01"  # older outcomes are forgotten


async def test_an_outcome_its_event_and_the_progress_are_one_transaction(house: House) -> None:
    await house.put()
    house.now_ms = ms("2026-11-23T07:00")

    def dies(tx: Transaction) -> None:
        house.room._settle_known(tx, "daily", house.now_ms)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await house.database.write(dies)
    assert await house.outcomes() == {} and house.told() == []
    await house.room.look()
    assert await house.outcomes() == {"11-23": "missing"} and house.told() == ["Missing"]


async def test_a_definition_that_was_rolled_back_expects_nothing(house: House) -> None:
    def dies(tx: Transaction) -> None:
        request = {"name": "daily", "key_pattern": "acme/*.csv", "by": "06:00"}
        house.operations.transact(tx, "entrepot", "PutExpectation", request, ROOT)
        house.room.file_arrived(tx, Created("acme/a.csv", 5, ms("2026-11-23T05:00")), "id", "acme")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await house.database.write(dies)
    await house.upload("2026-11-23T05:00")
    assert house.told() == []
    await house.put()
    assert (await house.ask("ListExpectations"))["expectations"][0]["name"] == "daily"
    await house.upload("2026-11-23T05:30")
    assert house.told() == ["Arrived"]


async def test_a_new_expectation_counts_what_is_there_and_the_same_again_changes_nothing(house: House) -> None:
    house.there = [
        expectations.Arrival("1", "in", "acme/old.csv", "acme", 5, ms("2026-11-22T17:00")),
        expectations.Arrival("2", "in", "acme/new.csv", "acme", 5, ms("2026-11-22T19:00")),
    ]
    house.now_ms = ms("2026-11-22T20:00")
    await house.put()
    await house.put()
    (shown,) = (await house.ask("ListExpectations"))["expectations"]
    assert shown["last_outcome"]["file_id"] == "2" and house.told() == ["Arrived"]
    assert shown["next_deadline"] == datetime(2026, 11, 23, 6, tzinfo=UTC)


async def test_a_changed_expectation_keeps_its_past_and_a_deleted_one_does_not(house: House) -> None:
    await house.put()
    await house.look("2026-11-23T07:00")
    await house.put(by="09:00")
    await house.look("2026-11-23T10:00")
    assert await house.outcomes() == {"11-23": "missing"}
    await house.ask("DeleteExpectation", name="daily")
    with pytest.raises(AwsError, match="no expectation"):
        await house.ask("GetExpectation", name="daily")
    with pytest.raises(AwsError, match="no expectation"):
        await house.ask("DeleteExpectation", name="daily")
    await house.put()
    assert await house.outcomes() == {}


async def test_the_level_tells_of_windows_that_brought_nothing(house: House) -> None:
    await house.put()
    await house.look("2026-11-23T07:00")
    assert await house.database.read(house.room.count_unmet) == 1
    await house.upload("2026-11-23T08:00")
    assert await house.database.read(house.room.count_unmet) == 0


async def test_it_is_looked_when_the_next_window_closes(house: House) -> None:
    await house.put()
    assert await house.look("2026-11-23T05:59:55") == pytest.approx(6.0)
    assert await house.look("2026-11-23T01:00") == 30.0


def _cases() -> Iterator[tuple[str, int]]:
    yield from (("2026-11-23T05:00", 0), ("2026-11-23T05:10", 5), ("2026-11-23T06:05", 5), ("2026-11-23T08:00", 5))


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(list(_cases())))
async def test_in_whichever_order_files_are_committed_there_is_one_outcome(
    order: list[tuple[str, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    house = House(tmp_path_factory.mktemp("order") / "ledger.db")
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(clock, "now_ms", lambda: house.now_ms)
            await house.put(grace_s=600, maximum_files=9)
            for at, size_bytes in order:
                await house.upload(at, size_bytes=size_bytes)
            assert set((await house.outcomes()).values()) <= {"arrived", "late"}
            assert len(await house.outcomes()) == 1
    finally:
        await house.database.close()
