"""Archives and replays: what is kept, what comes back, under which names, and that a crash doubles nothing."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from entrepot import clock
from entrepot.database import Transaction
from entrepot.database.sqlite import SQLiteDatabase
from entrepot.errors import AwsError
from entrepot.operations import Call, Principal, WriteOperation
from entrepot.services import events, sqs
from entrepot.services.events import archives, replays
from entrepot.services.events.errors import (
    IllegalStatusError,
    LimitExceededError,
    ResourceAlreadyExistsError,
    ResourceNotFoundError,
    ValidationError,
)
from tests.unit.test_events_buses import ACCOUNT, House

BUS = ACCOUNT.arn("events", "event-bus/default")
ARCHIVE = ACCOUNT.arn("events", "archive/a")
MACHINE = {"Arn": ACCOUNT.arn("states", "stateMachine:m"), "RoleArn": ACCOUNT.iam_arn("role/r")}
START = datetime(2026, 11, 1, tzinfo=UTC)


class AlreadyExists(AwsError):
    code = "ExecutionAlreadyExists"
    status = 400


class ReplayHouse(House):
    """Also a state machine, and a clock for what is put."""

    def __init__(self, database: SQLiteDatabase) -> None:
        super().__init__(database)
        self.started: dict[str, dict[str, Any]] = {}
        self.operations.add("stepfunctions", [WriteOperation("StartExecution", lambda _: (), self.start_execution)])

    def start_execution(self, tx: Transaction, request: Any, call: Call) -> dict[str, Any]:
        if request["name"] in self.started:
            raise AlreadyExists("it is there")
        self.started[request["name"]] = json.loads(request["input"])
        return {}

    async def archive(self, name: str = "a", **more: Any) -> None:
        await self.do("CreateArchive", ArchiveName=name, EventSourceArn=BUS, **more)

    async def put_at(self, minute: int, **detail: Any) -> None:
        entry = {"Source": "shop", "DetailType": "order", "Detail": json.dumps(detail),
                 "Time": START + timedelta(minutes=minute)}  # fmt: skip
        assert (await self.do("PutEvents", Entries=[entry]))["FailedEntryCount"] == 0
        await self.deliver()

    async def deliver(self) -> None:
        while await self.events.deliver_due() == 0:
            pass

    async def replay(self, name: str, first: int = 0, last: int = 1000, filters: tuple[str, ...] = ()) -> None:
        await self.do(
            "StartReplay", ReplayName=name, EventSourceArn=ARCHIVE, EventStartTime=START + timedelta(minutes=first),
            EventEndTime=START + timedelta(minutes=last), Destination={"Arn": BUS, "FilterArns": list(filters)},
        )  # fmt: skip

    async def finish(self, name: str) -> dict[str, Any]:
        while True:
            await self.events.keep_up()
            await self.deliver()
            found = await self.do("DescribeReplay", ReplayName=name)
            if "ReplayEndTime" in found:
                return found


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[ReplayHouse]:
    database = SQLiteDatabase(tmp_path / "ledger.db")
    try:
        database.migrate((*events.MIGRATIONS, *sqs.MIGRATIONS))
        yield ReplayHouse(database)
    finally:
        await database.close()


async def test_an_archive_keeps_what_its_pattern_says_and_counts_it(house: ReplayHouse) -> None:
    await house.archive("all", Description="d", RetentionDays=3)
    await house.archive("some", EventPattern=json.dumps({"detail": {"n": [1]}}))
    for n in (1, 2, 1):
        await house.put(n=n)
    everything = await house.do("DescribeArchive", ArchiveName="all")
    some = await house.do("DescribeArchive", ArchiveName="some")
    assert (everything["EventCount"], some["EventCount"]) == (3, 2)
    assert everything["State"] == "ENABLED" and everything["RetentionDays"] == 3 and everything["Description"] == "d"
    assert everything["EventSourceArn"] == BUS and everything["ArchiveArn"] == ACCOUNT.arn("events", "archive/all")
    assert some["SizeBytes"] > 2 * 150 and "Description" not in some
    listed = await house.do("ListArchives", EventSourceArn=BUS, Limit=1)
    assert [entry["ArchiveName"] for entry in listed["Archives"]] == ["all"] and listed["NextToken"] == "all"


async def test_without_an_archive_an_event_costs_no_statement_more(house: ReplayHouse) -> None:
    await house.put(n=1)
    assert await house.database.read(lambda reader: reader.all("SELECT 1 FROM events_archived")) == []
    assert await house.database.read(lambda reader: house.events._rulebook.of(reader, "default").archives) is None


async def test_a_replay_starts_executions_of_its_own_once_each(house: ReplayHouse) -> None:
    await house.archive()
    await house.rule("r", MACHINE)
    for minute in range(5):
        await house.put_at(minute, n=minute)
    originals = dict(house.started)
    assert len(originals) == 5
    await house.replay("again", 1, 3)
    described = await house.finish("again")
    again = {name: event for name, event in house.started.items() if name not in originals}
    assert sorted(event["detail"]["n"] for event in again.values()) == [1, 2, 3]
    assert {event["replay-name"] for event in again.values()} == {"again"}
    assert {event["id"] for event in again.values()} < {event["id"] for event in originals.values()}
    assert (described["State"], described["EventLastReplayedTime"]) == ("COMPLETED", START + timedelta(minutes=3))
    assert (described["EventStartTime"], described["Destination"]) == (START + timedelta(minutes=1), {"Arn": BUS})
    await house.replay("once-more", 1, 3)
    await house.finish("once-more")
    assert len(house.started) == 5 + 3 + 3
    assert (await house.do("DescribeArchive", ArchiveName="a"))[
        "EventCount"
    ] == 5  # What is replayed is not kept again.


async def test_a_replay_reaches_a_corrected_rule_and_only_the_rules_it_names(house: ReplayHouse) -> None:
    await house.archive()
    arn = await house.rule("r", MACHINE, pattern=json.dumps({"detail": {"n": ["wrong"]}}))
    await house.rule("other", MACHINE)
    await house.put_at(0, n=1)
    assert len(house.started) == 1
    await house.do("PutRule", Name="r", EventPattern=json.dumps({"detail": {"n": [1]}}))
    await house.replay("fixed", filters=(arn,))
    await house.finish("fixed")
    assert len(house.started) == 2
    assert (await house.do("DescribeReplay", ReplayName="fixed"))["Destination"]["FilterArns"] == [arn]


async def test_a_rule_can_leave_replays_out(house: ReplayHouse) -> None:
    await house.archive()
    await house.rule("r", MACHINE, pattern=json.dumps({"source": ["shop"], "replay-name": [{"exists": False}]}))
    await house.put_at(0, n=1)
    await house.replay("x")
    await house.finish("x")
    assert len(house.started) == 1


async def test_a_replay_goes_on_after_every_death_and_queues_nothing_twice(
    house: ReplayHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replays, "STEP_LIMIT", 3)
    await house.archive()
    url = await house.queue("q")
    await house.rule("r", {"Arn": url})
    for minute in range(8):
        await house.put_at(minute, n=minute)
    assert len(await house.received("q")) == 8
    await house.replay("x")
    deaths = 0
    while (await house.do("DescribeReplay", ReplayName="x"))["State"] != "COMPLETED":
        # The process dies in the middle of the step's transaction; then a new one makes that step, and dies after it.
        work = house.events._replay
        seen = []

        def dies(tx: Transaction, replay: Any, event: Any, work: Any = work, seen: list[Any] = seen) -> None:
            work(tx, replay, event)
            seen.append(event)
            raise ConnectionError("killed")

        monkeypatch.setattr(house.events, "_replay", dies)
        try:
            await house.events.keep_up()
        except ConnectionError:
            deaths += 1
        house.events = events.Events(
            house.database, ACCOUNT, house.operations,
            principal_for_role=lambda arn, name: Principal(arn, "role", name, role_arn=arn),
            service_principal=Principal("events.amazonaws.com", "service", "events.amazonaws.com"),
            on_delivered=lambda tx, delivery: None, on_delivery_failed=lambda tx, delivery: None,
        )  # fmt: skip
        await house.events.keep_up()
        await house.deliver()
    assert deaths >= 2
    found = sorted(json.loads(message["Body"])["detail"]["n"] for message in await house.received("q"))
    assert found == list(range(8))


async def test_events_of_one_second_are_replayed_once_each(house: ReplayHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replays, "STEP_LIMIT", 3)
    await house.archive()
    await house.rule("r", MACHINE)
    for n in range(10):
        await house.put_at(5, n=n)
        await house.put_at(6 if n % 2 else 4, n=n)
    await house.replay("x", 4, 5)
    await house.finish("x")
    again = [event["detail"]["n"] for event in house.started.values() if "replay-name" in event]
    assert sorted(again) == sorted([*range(10), *range(0, 10, 2)])


async def test_live_events_go_first(house: ReplayHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replays, "DUE_LIMIT", 2)
    await house.archive()
    await house.rule("r", MACHINE)
    await house.put_at(0, n=0)
    await house.replay("x")
    entry = {"Source": "shop", "DetailType": "order", "Detail": "{}"}
    await house.do("PutEvents", Entries=[entry, entry])
    await house.events.keep_up()
    assert (await house.do("DescribeReplay", ReplayName="x"))["State"] == "STARTING"
    assert (await house.finish("x"))["State"] == "COMPLETED"


async def test_a_replay_is_cancelled_and_fails_without_its_archive(house: ReplayHouse) -> None:
    await house.archive()
    await house.rule("r", MACHINE)
    await house.put_at(0, n=0)
    await house.replay("x")
    assert (await house.do("CancelReplay", ReplayName="x"))["State"] == "CANCELLING"
    assert (await house.finish("x"))["State"] == "CANCELLED"
    with pytest.raises(IllegalStatusError):
        await house.do("CancelReplay", ReplayName="x")
    await house.replay("y")
    await house.do("DeleteArchive", ArchiveName="a")
    described = await house.finish("y")
    assert described["State"] == "FAILED" and "deleted" in described["StateReason"]
    assert len(house.started) == 1
    listed = await house.do("ListReplays", State="FAILED")
    assert [entry["ReplayName"] for entry in listed["Replays"]] == ["y"]


async def test_requests_that_are_refused(house: ReplayHouse) -> None:
    await house.archive()
    await house.do("CreateEventBus", Name="b")
    bus_b = ACCOUNT.arn("events", "event-bus/b")

    async def refused(error: type[Exception], match: str, name: str, **request: Any) -> None:
        with pytest.raises(error, match=match):
            await house.do(name, **request)

    await refused(
        ResourceAlreadyExistsError, "Archive a already exists", "CreateArchive", ArchiveName="a", EventSourceArn=BUS
    )
    await refused(
        ValidationError, "length less than or equal to 48", "CreateArchive", ArchiveName="a" * 49, EventSourceArn=BUS
    )
    await refused(ResourceNotFoundError, "nowhere does not exist", "CreateArchive", ArchiveName="n",
                  EventSourceArn=ACCOUNT.arn("events", "event-bus/nowhere"))  # fmt: skip
    await refused(
        ValidationError, "Must contain an event bus ARN", "CreateArchive", ArchiveName="n", EventSourceArn=ARCHIVE
    )
    for name in ("DescribeArchive", "UpdateArchive", "DeleteArchive"):
        await refused(ResourceNotFoundError, "Archive gone does not exist", name, ArchiveName="gone")
    await refused(ValidationError, "At most one filter", "ListArchives", NamePrefix="a", State="ENABLED")
    window = {"EventStartTime": START, "EventEndTime": START + timedelta(hours=1)}
    good = {"ReplayName": "x", "EventSourceArn": ARCHIVE, **window, "Destination": {"Arn": BUS}}
    await refused(ValidationError, "Archive gone does not exist", "StartReplay",
                  **good | {"EventSourceArn": ACCOUNT.arn("events", "archive/gone")})  # fmt: skip
    await refused(ValidationError, "Cross event bus replay", "StartReplay", **good | {"Destination": {"Arn": bus_b}})
    await refused(ValidationError, "must be before", "StartReplay", **good | {"EventEndTime": START})
    await refused(ResourceNotFoundError, "Rule gone", "StartReplay",
                  **good | {"Destination": {"Arn": BUS, "FilterArns": [ACCOUNT.arn("events", "rule/gone")]}})  # fmt: skip
    await house.do("StartReplay", **good)
    await refused(ResourceAlreadyExistsError, "Replay x already exists", "StartReplay", **good)
    for number in range(replays.ACTIVE_LIMIT - 1):
        await house.do("StartReplay", **good | {"ReplayName": f"x{number}"})
    await refused(LimitExceededError, "10 replays", "StartReplay", **good | {"ReplayName": "one-more"})


async def test_archives_let_go_of_what_is_old_and_of_what_was_deleted(
    house: ReplayHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "SWEEP_LIMIT", 2)
    await house.archive("a", RetentionDays=1)
    await house.archive("gone")
    for minute in range(5):
        await house.put_at(minute, n=minute)
    now_ms = int(START.timestamp() * 1000) + archives.DAY_MS + 150_000  # Minutes 0, 1 and 2 are over.

    async def sweep() -> None:
        while await house.database.write(lambda tx: archives.sweep(tx, now_ms)):
            pass

    await sweep()
    described = await house.do("DescribeArchive", ArchiveName="a")
    assert described["EventCount"] == 2
    (size,) = await house.database.read(
        lambda reader: reader.one("SELECT sum(length(event)) FROM events_archived JOIN events_archive "
                                  "USING (archive_id) WHERE name = 'a'")
    )  # fmt: skip
    assert described["SizeBytes"] == size
    await house.do("DeleteArchive", ArchiveName="gone")
    await sweep()
    rows = await house.database.read(lambda reader: reader.all("SELECT archived_id FROM events_archived"))
    assert len(rows) == 2
    await house.do("UpdateArchive", ArchiveName="a", RetentionDays=0)
    now_ms += 1000 * archives.DAY_MS
    await sweep()
    assert (await house.do("DescribeArchive", ArchiveName="a"))["EventCount"] == 2


async def test_an_update_changes_what_is_kept_from_now_on(house: ReplayHouse) -> None:
    await house.archive()
    await house.put(n=1)
    await house.do("UpdateArchive", ArchiveName="a", EventPattern=json.dumps({"detail": {"n": [2]}}))
    await house.put(n=1)
    await house.put(n=2)
    assert (await house.do("DescribeArchive", ArchiveName="a"))["EventCount"] == 2


async def test_a_forwarded_event_is_replayed_on_the_other_bus_too(house: ReplayHouse) -> None:
    await house.do("CreateEventBus", Name="b")
    await house.archive()
    await house.rule("over", {"Arn": ACCOUNT.arn("events", "event-bus/b")})
    await house.rule("there", MACHINE, bus="b")
    await house.put_at(0, n=0)
    await house.replay("x")
    await house.finish("x")
    assert len(house.started) == 2


async def test_a_fifo_queue_does_not_swallow_a_replay(house: ReplayHouse) -> None:
    await house.archive()
    arn = await house.queue("q.fifo", FifoQueue="true")
    await house.rule("r", {"Arn": arn, "SqsParameters": {"MessageGroupId": "g"}, "Input": '"constant"'})
    await house.put_at(0, n=0)
    (first,) = await house.received("q.fifo")
    url = "http://here/000000000000/q.fifo"
    await house.do("DeleteMessage", "sqs", QueueUrl=url, ReceiptHandle=first["ReceiptHandle"])
    await house.replay("x")
    await house.finish("x")
    (second,) = await house.received("q.fifo")
    assert first["Body"] == second["Body"] == '"constant"' and first["MessageId"] != second["MessageId"]


async def test_whoever_counts_attempts_says_the_number(house: ReplayHouse) -> None:
    asked: list[Any] = []

    def on_replayed(tx: Transaction, event_id: str, replay_name: str, starts_execution: bool) -> int:
        asked.append((replay_name, starts_execution))
        return 7

    house.events._on_replayed = on_replayed
    delivered: list[events.Delivery] = []
    house.events.outcomes.on_delivered = lambda tx, delivery: delivered.append(delivery)
    await house.archive()
    await house.rule("r", MACHINE)
    await house.put_at(0, n=0)
    await house.replay("x")
    await house.finish("x")
    assert asked == [("x", True)] and [delivery.attempt for delivery in delivered] == [1, 7]


async def test_old_replays_are_forgotten_but_no_number_is_used_twice(house: ReplayHouse) -> None:
    await house.archive()
    for name in ("x", "y"):
        await house.replay(name)
        await house.finish(name)
    later_ms = clock.now_ms() + replays.KEPT_MS + 1000
    await house.database.write(lambda tx: replays.forget_old(tx, later_ms))
    assert [entry["ReplayName"] for entry in (await house.do("ListReplays"))["Replays"]] == ["y"]
    before = await house.database.read(lambda reader: replays.find(reader, "y"))
    await house.replay("z")
    after = await house.database.read(lambda reader: replays.find(reader, "z"))
    assert before is not None and after is not None and after.replay_id == before.replay_id + 1
    assert replace(after, state="x").name == "z"
