"""Schedules: AWS's expressions, and one event for each due time."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from entrepot import clock
from entrepot.database.sqlite import SQLiteDatabase
from entrepot.operations import Principal
from entrepot.services import events, sqs
from entrepot.services.events import schedule
from entrepot.services.events.errors import ValidationError
from tests.unit.test_events_buses import ANY, House


def ms(text: str) -> int:
    return int(datetime.strptime(text, "%Y-%m-%d %H:%M").replace(tzinfo=UTC).timestamp()) * 1000


@pytest.mark.parametrize(
    ("expression", "after", "due"),
    [
        # The examples of AWS's page, from a moment that is named here.
        ("cron(15 10 * * ? *)", "2026-11-23 10:15", ["2026-11-24 10:15", "2026-11-25 10:15"]),
        ("cron(0 18 ? * MON-FRI *)", "2026-11-27 12:00", ["2026-11-27 18:00", "2026-11-30 18:00"]),
        ("cron(0 8 1 * ? *)", "2026-11-23 00:00", ["2026-12-01 08:00", "2027-01-01 08:00"]),
        ("cron(0/15 * * * ? *)", "2026-11-23 23:40", ["2026-11-23 23:45", "2026-11-24 00:00"]),
        ("cron(0/5 8-17 ? * MON-FRI *)", "2026-11-20 17:55", ["2026-11-23 08:00", "2026-11-23 08:05"]),
        ("cron(15 10 ? * 6L 2026-2027)", "2026-11-01 00:00", ["2026-11-27 10:15", "2026-12-25 10:15"]),
        ("cron(0 0 ? * 3#2 *)", "2026-11-01 00:00", ["2026-11-10 00:00", "2026-12-08 00:00"]),
        ("cron(0 0 ? * FRI#5 *)", "2026-11-01 00:00", ["2027-01-29 00:00"]),
        ("cron(0 0 L * ? *)", "2028-02-01 00:00", ["2028-02-29 00:00", "2028-03-31 00:00"]),
        ("cron(0 0 LW * ? *)", "2026-10-01 00:00", ["2026-10-30 00:00", "2026-11-30 00:00"]),
        ("cron(0 0 1W * ? *)", "2026-08-01 12:00", ["2026-08-03 00:00", "2026-09-01 00:00"]),
        ("cron(0 0 31W * ? *)", "2026-05-01 00:00", ["2026-05-29 00:00", "2026-07-31 00:00"]),
        ("cron(0 12 29 FEB ? *)", "2026-01-01 00:00", ["2028-02-29 12:00", "2032-02-29 12:00"]),
        ("cron(0 0 ? * L *)", "2026-11-23 00:00", ["2026-11-28 00:00"]),
        ("cron(59 23 31 12 ? 2026)", "2026-11-23 00:00", ["2026-12-31 23:59"]),
    ],
)
def test_when_cron_is_due(expression: str, after: str, due: list[str]) -> None:
    parsed, at_ms = schedule.parse(expression), ms(after)
    assert isinstance(parsed, schedule.Cron)
    for expected in due:
        found = parsed.after(at_ms)
        assert found is not None
        assert clock.iso(found)[:16].replace("T", " ") == expected
        at_ms = found


def test_cron_can_be_over() -> None:
    parsed = schedule.parse("cron(0 0 1 1 ? 2026)")
    assert isinstance(parsed, schedule.Cron)
    assert parsed.after(ms("2026-01-01 00:00")) is None
    never = schedule.parse("cron(0 0 31 2 ? *)")
    assert isinstance(never, schedule.Cron)
    assert never.after(ms("2026-01-01 00:00")) is None


@pytest.mark.parametrize(
    "expression",
    [
        "", "rate(0 minutes)", "rate(1 minutes)", "rate(5 minute)", "rate(5 seconds)", "rate(-1 minutes)", "rate(5)",
        "every 5 minutes", "cron(0 0 * * *)", "cron(0 0 * * * *)", "cron(0 0 ? * ? *)", "cron(60 0 * * ? *)",
        "cron(0 24 * * ? *)", "cron(0 0 32 * ? *)", "cron(0 0 ? * 8 *)", "cron(0 0 ? * MON#6 *)", "cron(0 0 * 13 ? *)",
        "cron(0 0 32W * ? *)", "cron(0 0 * * ? 1969)", "cron(0 0 * * ? 2200)", "cron(5-1 0 * * ? *)",
        "cron(*/0 0 * * ? *)", "cron(0 0 L-3 * ? *)", "cron(0 ٣ * * ? *)", "cron(" + "0," * 5000 + "0 0 * * ? *)",
    ],
)  # fmt: skip
def test_expressions_that_aws_refuses(expression: str) -> None:
    with pytest.raises(ValidationError, match="ScheduleExpression is not valid"):
        schedule.parse(expression)


class TimedHouse(House):
    """A house whose clock the test turns."""

    at_ms = ms("2026-11-23 12:00")

    async def pass_time(self, until: str) -> list[str]:
        """Let time pass; return the times of the events that came of it."""
        self.at_ms = ms(until)
        while await self.events.fire_due() == 0:
            pass
        while await self.events.deliver_due() == 0:
            pass
        return [json.loads(message["Body"])["time"][11:16] for message in await self.received("q")]


@pytest.fixture
async def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[TimedHouse]:
    database = SQLiteDatabase(tmp_path / "ledger.db")
    try:
        database.migrate((*events.MIGRATIONS, *sqs.MIGRATIONS))
        made = TimedHouse(database)
        monkeypatch.setattr(clock, "now_ms", lambda: made.at_ms)
        yield made
    finally:
        await database.close()


async def scheduled(house: TimedHouse, expression: str) -> dict[str, Any]:
    queue = await house.queue("q", VisibilityTimeout="43200")
    answer = await house.do("PutRule", Name="r", ScheduleExpression=expression)
    await house.do("PutTargets", Rule="r", Targets=[{"Id": "t", "Arn": queue}])
    return answer


async def test_a_rate_gives_one_event_for_each_due_time(house: TimedHouse) -> None:
    await scheduled(house, "rate(5 minutes)")
    assert await house.pass_time("2026-11-23 12:04") == []
    assert await house.pass_time("2026-11-23 12:05") == ["12:05"]
    assert await house.pass_time("2026-11-23 12:05") == []
    await house.do("PutRule", Name="r", ScheduleExpression="rate(5 minutes)")
    assert await house.pass_time("2026-11-23 12:10") == ["12:10"], "the same rule put again keeps its due time"
    assert (await house.do("DescribeRule", Name="r"))["ScheduleExpression"] == "rate(5 minutes)"


async def test_the_event_is_awss(house: TimedHouse) -> None:
    rule_arn = (await scheduled(house, "rate(1 day)"))["RuleArn"]
    house.at_ms = ms("2026-11-24 12:00")
    await house.events.fire_due()
    await house.events.deliver_due()
    (message,) = await house.received("q")
    event = json.loads(message["Body"])
    assert len(event.pop("id")) == 36
    assert event == {
        "version": "0", "detail-type": "Scheduled Event", "source": "aws.events", "account": "000000000000",
        "time": "2026-11-24T12:00:00Z", "region": "us-east-1", "resources": [rule_arn], "detail": {},
    }  # fmt: skip


async def test_what_was_missed_while_the_server_was_down_fires_once(house: TimedHouse) -> None:
    await scheduled(house, "cron(0/5 * * * ? *)")
    house.events = events.Events(
        house.database, house.events.account, house.operations,
        principal_for_role=lambda arn, name: Principal(arn, "role", name, role_arn=arn),
        service_principal=Principal("events.amazonaws.com", "service", "events.amazonaws.com"),
        on_delivered=lambda tx, delivery: None, on_delivery_failed=lambda tx, delivery: None,
    )  # fmt: skip
    assert await house.pass_time("2026-11-23 13:02") == ["12:05"]
    assert await house.pass_time("2026-11-23 13:05") == ["13:05"]


async def test_a_disabled_or_deleted_rule_does_not_fire(house: TimedHouse) -> None:
    await scheduled(house, "rate(1 minute)")
    await house.do("DisableRule", Name="r")
    assert await house.pass_time("2026-11-23 12:10") == []
    await house.do("EnableRule", Name="r")
    assert await house.pass_time("2026-11-23 12:11") == ["12:11"]
    await house.do("RemoveTargets", Rule="r", Ids=["t"])
    await house.do("DeleteRule", Name="r")
    assert await house.pass_time("2026-11-23 12:30") == []


async def test_a_rule_can_have_a_pattern_and_a_schedule(house: TimedHouse) -> None:
    await scheduled(house, "rate(1 minute)")
    await house.do("PutRule", Name="r", ScheduleExpression="rate(1 minute)", EventPattern=ANY)
    await house.put(n=1)
    assert len(await house.received("q")) == 1
    assert await house.pass_time("2026-11-23 12:01") == ["12:01"]


async def test_only_the_default_bus_has_schedules(house: TimedHouse) -> None:
    await house.do("CreateEventBus", Name="b")
    with pytest.raises(ValidationError, match="only on the default event bus"):
        await house.do("PutRule", Name="r", EventBusName="b", ScheduleExpression="rate(1 minute)")
