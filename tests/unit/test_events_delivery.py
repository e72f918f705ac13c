"""Rules, targets and the delivery of events, on a real ledger, with targets that the test defines."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from entrepot import clock, ids
from entrepot.arns import Account
from entrepot.database import Transaction
from entrepot.database.sqlite import SQLiteDatabase
from entrepot.errors import AwsError
from entrepot.operations import AsyncOperation, Call, Decision, Operations, Principal, WriteOperation
from entrepot.services import events
from entrepot.services.events import dead_letters, delivery
from entrepot.services.events.delivery import Queued, is_retryable, retry_at_ms
from entrepot.services.events.errors import InvalidEventPatternError, ResourceNotFoundError, ValidationError
from entrepot.services.events.rules import RetryPolicy
from entrepot.services.events.targets import execution_name

ACCOUNT = Account()
ROOT = Call(Principal("arn:aws:iam::000000000000:root", "root", "root"), "r-1")
MACHINE = ACCOUNT.arn("states", "stateMachine:transfer")
FUNCTION = ACCOUNT.arn("lambda", "function:transfer")
LOG_GROUP = ACCOUNT.arn("logs", "log-group:/aws/events/seen")
ROLE = ACCOUNT.iam_arn("role/rule")
PATTERN = json.dumps({"source": ["aws.s3"], "detail": {"bucket": {"name": ["in"]}}})


class Throttled(AwsError):
    code = "ThrottlingException"
    status = 400


class AlreadyExists(AwsError):
    code = "ExecutionAlreadyExists"
    status = 400


class House:
    """Events on a ledger, beside a state machine, a function and a log group that can be told to fail."""

    def __init__(self, database: SQLiteDatabase) -> None:
        self.database = database
        self.denied: set[str] = set()
        self.failures: list[Exception] = []
        self.invoked: list[Any] = []
        self.logged: list[Any] = []
        self.hold = asyncio.Event()
        self.hold.set()
        self.delivered: list[events.Delivery] = []
        self.failed: list[events.Delivery] = []
        self.operations = Operations(database, self.authorize)
        self.operations.add("stepfunctions", [WriteOperation("StartExecution", lambda _: (), self.start_execution)])
        self.operations.add("lambda", [AsyncOperation("Invoke", lambda _: (), self.invoke)])
        self.operations.add(
            "logs",
            [
                AsyncOperation("CreateLogStream", lambda _: (), self.create_log_stream),
                AsyncOperation("PutLogEvents", lambda _: (), self.put_log_events),
            ],
        )
        self.events = self.made()
        self.operations.add("events", events.operations(self.events))

    def made(self) -> events.Events:
        return events.Events(
            self.database, ACCOUNT, self.operations,
            principal_for_role=lambda arn, name: Principal(arn, "role", name, role_arn=arn),
            service_principal=Principal("events.amazonaws.com", "service", "events.amazonaws.com"),
            on_delivered=lambda tx, d: self.delivered.append(d),
            on_delivery_failed=lambda tx, d: self.failed.append(d),
        )  # fmt: skip

    def authorize(self, principal: Principal, permission: Any) -> Decision:
        return Decision(permission.action not in self.denied, "test", "the test says so")

    def start_execution(self, tx: Transaction, request: Any, call: Call) -> dict[str, Any]:
        assert call.principal.role_arn == ROLE
        if self.failures:
            raise self.failures.pop(0)
        if tx.one("SELECT 1 FROM execution WHERE name = ?", (request["name"],)):
            raise AlreadyExists("it is there")
        tx.execute("INSERT INTO execution (name, input) VALUES (?, ?)", (request["name"], request["input"]))
        return {}

    async def invoke(self, request: Any, call: Call) -> dict[str, Any]:
        await self.hold.wait()
        if self.failures:
            raise self.failures.pop(0)
        assert request["InvocationType"] == "Event"
        self.invoked.append(json.loads(request["Payload"]))
        return {}

    async def create_log_stream(self, request: Any, call: Call) -> dict[str, Any]:
        return {}

    async def put_log_events(self, request: Any, call: Call) -> dict[str, Any]:
        self.logged.append(request)
        return {}

    async def do(self, name: str, **request: Any) -> dict[str, Any]:
        return await self.operations.perform("events", name, request, ROOT)

    async def put_rule(self, *targets: dict[str, Any], name: str = "r", pattern: str = PATTERN) -> None:
        await self.do("PutRule", Name=name, EventPattern=pattern)
        if targets:
            await self.do("PutTargets", Rule=name, Targets=list(targets))

    async def put_event(self, key: str = "a.csv", **changes: Any) -> str:
        event = s3_event(key) | changes
        return await self.database.write(lambda tx: self.events.put_event(tx, event))

    async def executions(self) -> list[tuple[str, str]]:
        rows = await self.database.read(lambda reader: reader.all("SELECT name, input FROM execution ORDER BY name"))
        return [(name, text) for name, text in rows]

    async def pending(self) -> int:
        return await self.database.read(self.events.count_pending)


def s3_event(key: str = "a.csv") -> dict[str, Any]:
    return {
        "version": "0", "id": ids.random_uuid(), "detail-type": "Object Created", "source": "aws.s3",
        "account": "0", "time": "2026-11-23T00:00:00Z", "region": "r", "resources": [],
        "detail": {"bucket": {"name": "in"}, "object": {"key": key, "size": 3}},
    }  # fmt: skip


def machine_target(**more: Any) -> dict[str, Any]:
    return {"Id": "t", "Arn": MACHINE, "RoleArn": ROLE, **more}


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[House]:
    database = SQLiteDatabase(path)
    database.migrate(events.MIGRATIONS)
    await database.write(
        lambda tx: tx.execute("CREATE TABLE IF NOT EXISTS execution (name TEXT PRIMARY KEY, input TEXT)")
    )
    try:
        yield House(database)
    finally:
        await database.close()


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with opened(tmp_path / "ledger.db") as made:
        yield made
        await made.events.stop()


async def until(condition: Callable[[], Any], timeout_s: float = 5) -> None:
    async with asyncio.timeout(timeout_s):
        while True:
            answer = condition()
            if await answer if asyncio.iscoroutine(answer) else answer:
                return
            await asyncio.sleep(0.005)


async def emptied(house: House) -> None:
    async def is_empty() -> bool:
        return await house.pending() == 0

    await until(is_empty)


# ── delivery ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_matching_event_starts_one_execution_under_its_derived_name(house: House) -> None:
    await house.put_rule(machine_target())
    await house.events.start()
    event_id = await house.put_event("ü b.csv")
    await emptied(house)
    arn = ACCOUNT.arn("events", "rule/r")
    name = execution_name(event_id, arn, "t", 1)
    assert name == f"{event_id}_{ids.derived(arn, 't', '1')[:32]}"
    ((found, text),) = await house.executions()
    assert found == name
    assert json.loads(text)["detail"]["object"]["key"] == "ü b.csv"
    (delivered,) = house.delivered
    assert delivered.execution_arn == ACCOUNT.arn("states", f"execution:transfer:{name}")
    assert (delivered.rule_arn, delivered.target_id, delivered.attempt) == (arn, "t", 1)
    assert delivered.event["id"] == event_id


async def test_what_no_rule_matches_leaves_nothing(house: House) -> None:
    await house.put_rule(machine_target())
    await house.put_event(source="other")
    assert await house.pending() == 0
    await house.do("DisableRule", Name="r")
    await house.put_event()
    assert await house.pending() == 0
    await house.do("EnableRule", Name="r")
    await house.put_event()
    assert await house.pending() == 1


async def test_a_rolled_back_rule_is_never_used(house: House) -> None:
    await house.put_rule(machine_target())

    def put_and_fail(tx: Transaction) -> None:
        house.operations.transact(tx, "events", "PutRule", {"Name": "r", "EventPattern": '{"source": ["other"]}'}, ROOT)
        assert house.events.matching_rules(tx, s3_event()) == []
        raise ValidationError("undo")

    with pytest.raises(ValidationError):
        await house.database.write(put_and_fail)
    await house.put_event()
    assert await house.pending() == 1


async def test_deliveries_survive_the_process(tmp_path: Path) -> None:
    async with opened(tmp_path / "ledger.db") as first:
        await first.put_rule(machine_target())
        event_id = await first.put_event()
    async with opened(tmp_path / "ledger.db") as second:
        await second.events.start()
        await emptied(second)
        await second.events.stop()
        assert [name[:36] for name, _ in await second.executions()] == [event_id]


async def test_two_loops_deliver_once(house: House) -> None:
    await house.put_rule(machine_target())
    wanted = {await house.put_event(f"{number}") for number in range(100)}
    other = house.made()
    await asyncio.gather(house.events.start(), other.start())
    await emptied(house)
    await other.stop()
    assert {name[:36] for name, _ in await house.executions()} == wanted
    assert len(house.delivered) == 100


async def test_an_execution_that_exists_counts_as_delivered(house: House) -> None:
    await house.put_rule(machine_target())
    house.failures = [AlreadyExists("it is there")]
    await house.put_event()
    await house.events.start()
    await emptied(house)
    assert len(house.delivered) == 1
    assert house.failed == []


async def test_throttling_is_tried_again_and_does_not_block_others(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "BACKOFF_FIRST_MS", 20)
    await house.put_rule(machine_target())
    house.failures = [Throttled("slow down"), Throttled("slow down")]
    first = await house.put_event("first")
    await house.put_event("second")
    await house.put_event("third")
    await house.events.start()
    await emptied(house)
    assert len(house.delivered) == 3
    assert {delivered.event_id for delivered in house.delivered} >= {first}
    assert house.delivered[0].event["detail"]["object"]["key"] == "third"


async def test_a_refused_permission_goes_to_the_dead_letters_at_once(house: House) -> None:
    await house.put_rule(machine_target())
    house.failures = [ResourceNotFoundError("no such machine")]
    event_id = await house.put_event()
    await house.events.start()
    await emptied(house)
    (failed,) = house.failed
    assert failed.error == "ResourceNotFoundException: no such machine"
    assert failed.execution_arn is None
    (letter,) = await house.database.read(lambda reader: dead_letters.list_dead_letters(reader))
    assert (letter.event_id, letter.error_code, letter.tries) == (event_id, "ResourceNotFoundException", 1)
    assert letter.target_arn == MACHINE
    await house.database.write(lambda tx: house.events.redrive_dead_letter(tx, letter.dead_letter_id))
    await emptied(house)
    assert len(await house.executions()) == 1
    assert await house.database.read(house.events.count_dead_letters) == 0


async def test_a_bug_in_one_target_spares_the_others(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "BACKOFF_FIRST_MS", 20)
    await house.put_rule(machine_target())
    house.failures = [KeyError("bug"), KeyError("bug")]
    for number in range(5):
        await house.put_event(f"{number}")
    await house.events.start()
    await emptied(house)
    assert len(await house.executions()) == 5


async def test_a_bug_in_a_listener_spares_the_others(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    await house.put_rule(machine_target(RetryPolicy={"MaximumRetryAttempts": 0}))
    poisoned = await house.put_event("poison")
    for number in range(5):
        await house.put_event(f"{number}")

    def listen(tx: Transaction, delivered: events.Delivery) -> None:
        if delivered.event_id == poisoned:
            raise AwsError("bug")

    house.events.outcomes.on_delivered = house.events.outcomes.on_delivery_failed = listen
    await house.events.start()

    async def others_done() -> bool:
        return len(await house.executions()) == 5

    await until(others_done)
    assert await house.pending() == 1


async def test_a_target_that_was_removed_meanwhile(house: House) -> None:
    await house.put_rule(machine_target())
    await house.put_event()
    await house.do("RemoveTargets", Rule="r", Ids=["t"])
    await house.events.start()
    await emptied(house)
    assert house.failed[0].error is not None
    assert "no target t any more" in house.failed[0].error


async def test_functions_and_log_groups_are_reached_outside(house: House) -> None:
    await house.put_rule(
        {"Id": "f", "Arn": FUNCTION, "InputPath": "$.detail.object"}, {"Id": "l", "Arn": LOG_GROUP + ":*"}, machine_target()
    )  # fmt: skip
    event_id = await house.put_event("k")
    await house.events.start()
    await emptied(house)
    assert house.invoked == [{"key": "k", "size": 3}]
    (request,) = house.logged
    assert (request["logGroupName"], request["logStreamName"]) == ("/aws/events/seen", event_id)
    assert json.loads(request["logEvents"][0]["message"])["id"] == event_id
    assert sorted(d.target_id for d in house.delivered) == ["f", "l", "t"]


async def test_a_target_that_hangs_does_not_hold_up_others(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("entrepot.services.events.dispatch.BUSY_PAUSE_MS", 10)
    await house.put_rule({"Id": "f", "Arn": FUNCTION}, machine_target())
    house.hold.clear()
    for number in range(40):
        await house.put_event(f"{number}")
    await house.events.start()

    async def all_started() -> bool:
        return len(await house.executions()) == 40

    await until(all_started)
    assert house.invoked == []
    house.hold.set()
    await emptied(house)
    assert len(house.invoked) == 40


async def test_a_backlog_for_a_target_that_hangs_is_not_written_again_and_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    postponed, postpone = 0, delivery.postpone

    def counted(*arguments: Any, **named: Any) -> None:
        nonlocal postponed
        postponed += 1
        postpone(*arguments, **named)

    monkeypatch.setattr(delivery, "postpone", counted)
    await house.put_rule({"Id": "f", "Arn": FUNCTION})
    house.hold.clear()
    for number in range(200):
        await house.put_event(f"{number}")
    await house.events.start()
    await asyncio.sleep(1.0)
    assert 200 <= postponed < 400, "each of 200 is written at every pause, five times a second"
    house.hold.set()


async def test_an_interrupted_outside_delivery_is_done_again_after_the_next_start(house: House) -> None:
    await house.put_rule({"Id": "f", "Arn": FUNCTION})
    await house.put_event()
    house.hold.clear()
    await house.events.start()
    await until(lambda: bool(house.events.dispatch.in_flight))
    tasks = list(house.events.dispatch.in_flight)
    for task in tasks:
        task.cancel()  # As if the process had died.
    await asyncio.gather(*tasks, return_exceptions=True)
    await house.events.stop()
    due_at_ms = await house.database.read(delivery.next_due_ms)
    assert due_at_ms is not None and due_at_ms > clock.now_ms() + 60_000, "its lease protects it from this process"
    house.hold.set()
    house.events = house.made()
    await house.events.start()
    await emptied(house)
    assert len(house.invoked) == 1


async def test_redelivery_uses_the_next_name_and_todays_target(house: House) -> None:
    await house.put_rule(machine_target(Input='"old"'))
    await house.events.start()
    event = s3_event()
    await house.database.write(lambda tx: house.events.put_event(tx, event))
    await emptied(house)
    await house.put_rule(machine_target(Input='"new"'))
    arn = ACCOUNT.arn("events", "rule/r")
    await house.database.write(lambda tx: house.events.redeliver(tx, event, arn, "t", 2))
    await emptied(house)
    assert {text for _, text in await house.executions()} == {'"old"', '"new"'}
    assert await house.database.write(lambda tx: house.events.redeliver_matching(tx, event, 2)) == 1
    await emptied(house)
    assert len(await house.executions()) == 2
    with pytest.raises(ResourceNotFoundError):
        await house.database.write(lambda tx: house.events.redeliver(tx, event, arn, "gone", 3))


async def test_redelivery_drops_the_dead_letter(house: House) -> None:
    await house.put_rule(machine_target())
    await house.events.start()
    house.failures = [ResourceNotFoundError("gone"), ResourceNotFoundError("gone")]
    event, other = s3_event(), s3_event()
    await house.database.write(lambda tx: [house.events.put_event(tx, e) for e in (event, other)])
    await emptied(house)
    assert await house.database.read(house.events.count_dead_letters) == 2
    await house.database.write(lambda tx: house.events.redeliver_matching(tx, event, 2))
    await emptied(house)
    assert await house.database.read(house.events.count_dead_letters) == 1


async def test_dead_letters_are_bounded(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letters, "KEPT_LIMIT", 3)
    await house.put_rule(machine_target())
    house.failures = [ResourceNotFoundError("gone") for _ in range(5)]
    put = [await house.put_event(f"{number}") for number in range(5)]
    await house.events.start()
    await emptied(house)
    letters = await house.database.read(lambda reader: dead_letters.list_dead_letters(reader))
    assert [letter.event_id for letter in letters] == put[2:]


def test_the_retry_policy() -> None:
    queued = Queued(1, 0, 0, "default", "r", "t", 1, 3, "e", "{}")
    due_at_ms = retry_at_ms(queued, RetryPolicy(), 1000)
    assert due_at_ms is not None
    assert 1000 + 4000 <= due_at_ms <= 1000 + 8000
    assert retry_at_ms(queued, RetryPolicy(maximum_retry_attempts=3), 1000) is None
    assert retry_at_ms(queued, RetryPolicy(maximum_event_age_s=60), 60_000) is None
    assert is_retryable(Throttled("x"))
    assert not is_retryable(ResourceNotFoundError("x"))


# ── operations ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_rules_are_put_described_listed_and_deleted(house: House) -> None:
    answer = await house.do("PutRule", Name="r", EventPattern=PATTERN, Description="d", RoleArn=ROLE)
    assert answer == {"RuleArn": ACCOUNT.arn("events", "rule/r")}
    described = await house.do("DescribeRule", Name="r")
    assert described["EventPattern"] == PATTERN
    assert (described["State"], described["Description"], described["EventBusName"]) == ("ENABLED", "d", "default")
    for number in range(3):
        await house.do("PutRule", Name=f"s{number}", EventPattern=PATTERN, State="DISABLED")
    page = await house.do("ListRules", NamePrefix="s", Limit=2)
    assert [rule["Name"] for rule in page["Rules"]] == ["s0", "s1"]
    page = await house.do("ListRules", NamePrefix="s", Limit=2, NextToken=page["NextToken"])
    assert [rule["Name"] for rule in page["Rules"]] == ["s2"]
    assert "NextToken" not in page
    await house.do("PutTargets", Rule="r", Targets=[machine_target()])
    with pytest.raises(ValidationError, match="since it has targets"):
        await house.do("DeleteRule", Name="r")
    assert (await house.do("ListTargetsByRule", Rule="r"))["Targets"] == [machine_target()]
    assert (await house.do("ListRuleNamesByTarget", TargetArn=MACHINE))["RuleNames"] == ["r"]
    removed = await house.do("RemoveTargets", Rule="r", Ids=["t", "u"])
    assert [failed["TargetId"] for failed in removed["FailedEntries"]] == ["u"]
    await house.do("DeleteRule", Name="r")
    with pytest.raises(ResourceNotFoundError, match="Rule r does not exist on EventBus default"):
        await house.do("DescribeRule", Name="r")


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ({"Id": "t", "Arn": "nonsense"}, "Provided Arn is not in correct format"),
        ({"Id": "t", "Arn": MACHINE}, "RoleArn is required for target"),
        ({"Id": "t", "Arn": "arn:aws:kinesis:us-east-1:000000000000:stream/q"}, "not supported here"),
        (machine_target(Input="{"), "JSON syntax error in input"),
        (machine_target(Input="1", InputPath="$"), "Only one of Input, InputPath, or InputTransformer"),
        (machine_target(InputPath="detail"), "must start with '\\$'"),
        (machine_target(InputTransformer={"InputTemplate": '{"a": <x>}'}), "not in InputPathsMap"),
        (machine_target(InputTransformer={"InputTemplate": '{"a": '}), "does not give JSON"),
        (machine_target(RetryPolicy={"MaximumRetryAttempts": 186}), "between 0 and 185"),
        (machine_target(SqsParameters={}), "SqsParameters are for queues only"),
        (machine_target(Id="a b"), "must match"),
    ],
)
async def test_targets_that_are_refused(house: House, target: dict[str, Any], reason: str) -> None:
    await house.put_rule()
    with pytest.raises(ValidationError, match=reason):
        await house.do("PutTargets", Rule="r", Targets=[target])
    assert (await house.do("ListTargetsByRule", Rule="r"))["Targets"] == []


async def test_refusals_of_rules(house: House) -> None:
    with pytest.raises(InvalidEventPatternError):
        await house.do("PutRule", Name="r", EventPattern='{"a": 1}')
    with pytest.raises(ValidationError, match="ScheduleExpression is not valid"):
        await house.do("PutRule", Name="r", ScheduleExpression="rate(1 minutes)")
    with pytest.raises(ValidationError, match="not valid Unicode"):
        await house.do("PutRule", Name="r", EventPattern='{"a": ["\ud800"]}')
    with pytest.raises(ResourceNotFoundError, match="Event bus other does not exist"):
        await house.do("PutRule", Name="r", EventPattern=PATTERN, EventBusName="other")
    await house.put_rule()
    with pytest.raises(AwsError) as refused:
        await house.do("PutTargets", Rule="r", Targets=[machine_target(Id=f"t{number}") for number in range(6)])
    assert refused.value.code == "LimitExceededException"


async def test_put_events_takes_each_entry_for_itself(house: House) -> None:
    await house.put_rule(machine_target(), pattern='{"source": ["mine"], "detail": {"n": [300]}}')
    good = {"Source": "mine", "DetailType": "d", "Detail": '{"n": 3.0e2}', "Time": datetime(2026, 1, 2, tzinfo=UTC)}
    answer = await house.do(
        "PutEvents",
        Entries=[
            good, good | {"Detail": "{"}, good | {"Source": "aws.s3"}, {"Source": "mine", "DetailType": "d"},
            good | {"Detail": "[" * 100_000}, good | {"Detail": '{"n": 1e999}'}, good | {"Detail": '{"x": "\\ud800"}'},
            good | {"Detail": "[]"},
        ],
    )  # fmt: skip
    assert answer["FailedEntryCount"] == 7
    assert [entry.get("ErrorCode") for entry in answer["Entries"]] == [
        None, "MalformedDetail", "NotAuthorizedForSourceException", "InvalidArgument", "MalformedDetail",
        "MalformedDetail", "MalformedDetail", "MalformedDetail",
    ]  # fmt: skip
    await house.events.start()
    await emptied(house)
    ((name, text),) = await house.executions()
    assert name.startswith(answer["Entries"][0]["EventId"])
    assert json.loads(text)["time"] == "2026-01-02T00:00:00Z"
    with pytest.raises(ValidationError, match="length between 1 and 10"):
        await house.do("PutEvents", Entries=[good] * 11)
    with pytest.raises(ValidationError, match="over the limit"):
        await house.do("PutEvents", Entries=[good | {"Detail": json.dumps({"x": "y" * 1_100_000})}])


async def test_a_pattern_is_tried(house: House) -> None:
    event = json.dumps(s3_event())
    assert await house.do("TestEventPattern", EventPattern=PATTERN, Event=event) == {"Result": True}
    assert await house.do("TestEventPattern", EventPattern='{"source": ["x"]}', Event=event) == {"Result": False}
    assert await house.do("TestEventPattern", EventPattern=PATTERN, Event="{}") == {"Result": False}
    for bad in ("{", "[]", "7"):
        with pytest.raises(ValidationError, match="Parameter Event is not valid"):
            await house.do("TestEventPattern", EventPattern=PATTERN, Event=bad)


async def test_buses(house: House) -> None:
    assert (await house.do("DescribeEventBus"))["Arn"] == ACCOUNT.arn("events", "event-bus/default")
    assert [bus["Name"] for bus in (await house.do("ListEventBuses"))["EventBuses"]] == ["default"]
    with pytest.raises(ResourceNotFoundError):
        await house.do("DescribeEventBus", Name="other")
