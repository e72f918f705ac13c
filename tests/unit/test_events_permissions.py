"""Who may put events on a bus: its policy beside the caller's own, as AWS combines them, decided by the real IAM."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from entrepot.arns import Account
from entrepot.database.sqlite import SQLiteDatabase
from entrepot.errors import AccessDeniedError
from entrepot.operations import Call, Operations, Principal
from entrepot.services import events, iam
from entrepot.services.events.bus_policy import POLICY_LIMIT_BYTES
from entrepot.services.events.errors import PolicyLengthExceededError, ResourceNotFoundError, ValidationError

ACCOUNT = Account()
ROOT = Call(Principal(ACCOUNT.iam_arn("root"), "root", "root"), "r")
BUS = ACCOUNT.arn("events", "event-bus/b")
CALLER = ACCOUNT.iam_arn("role/caller")
TRUST = json.dumps(
    {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"},
                                             "Action": "sts:AssumeRole"}]}
)  # fmt: skip


class House:
    """Events beside the real IAM, and a caller with a role."""

    def __init__(self, database: SQLiteDatabase) -> None:
        self.database = database
        self.iam = iam.IAM(database, ACCOUNT, secret=b"s" * 32)
        self.operations = Operations(database, self.iam.authorize)
        self.failed: list[events.Delivery] = []
        self.events = events.Events(
            database, ACCOUNT, self.operations,
            principal_for_role=self.iam.principal_for_role,
            service_principal=Principal("events.amazonaws.com", "service", "events.amazonaws.com"),
            on_delivered=lambda tx, delivery: None,
            on_delivery_failed=lambda tx, delivery: self.failed.append(delivery),
            check_policy=iam.check_resource_policy,
        )  # fmt: skip
        self.operations.add("events", events.operations(self.events))

    async def do(self, name: str, call: Call = ROOT, **request: Any) -> dict[str, Any]:
        return await self.operations.perform("events", name, request, call)

    async def role(self, *statements: dict[str, Any]) -> Call:
        policy = json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
        await self.database.write(
            lambda tx: self.iam.put_role(tx, "caller", trust_policy=TRUST, policies={"p": policy})
        )
        return Call(self.iam.principal_for_role(CALLER, "s"), "r-2")

    async def policy(self, *statements: dict[str, Any]) -> None:
        text = json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
        await self.do("PutPermission", EventBusName="b", Policy=text)

    async def put(self, call: Call, bus: str = "b", detail_type: str = "order") -> None:
        entry = {"Source": "shop", "DetailType": detail_type, "Detail": "{}", "EventBusName": bus}
        assert (await self.do("PutEvents", call, Entries=[entry]))["FailedEntryCount"] == 0


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    database = SQLiteDatabase(tmp_path / "ledger.db")
    try:
        database.migrate((*events.MIGRATIONS, *iam.MIGRATIONS))
        made = House(database)
        await made.iam.start()
        await made.do("CreateEventBus", Name="b")
        yield made
        await made.iam.stop()
    finally:
        await database.close()


def statement(effect: str = "Allow", principal: Any = "*", **more: Any) -> dict[str, Any]:
    return {"Sid": "s", "Effect": effect, "Principal": principal, "Action": "events:PutEvents", "Resource": BUS, **more}


NOTHING = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}
EVERYTHING = {"Effect": "Allow", "Action": "events:*", "Resource": "*"}


async def test_a_bus_without_a_policy_is_decided_by_the_caller_s_own(house: House) -> None:
    await house.put(await house.role(EVERYTHING))
    with pytest.raises(AccessDeniedError, match="events:PutEvents on resource: " + BUS):
        await house.put(await house.role(NOTHING))


async def test_a_policy_allows_what_the_caller_s_own_does_not(house: House) -> None:
    caller = await house.role(NOTHING)
    await house.policy(statement(principal={"AWS": CALLER}))
    await house.put(caller)
    with pytest.raises(AccessDeniedError):
        await house.put(caller, "default")
    await house.do("RemovePermission", EventBusName="b", StatementId="s")
    with pytest.raises(AccessDeniedError):
        await house.put(caller)


async def test_a_policy_denies_what_the_caller_s_own_allows(house: House) -> None:
    caller = await house.role(EVERYTHING)
    await house.policy(statement("Deny", Condition={"StringEquals": {"events:detail-type": "secret"}}))
    await house.put(caller)
    with pytest.raises(AccessDeniedError, match="explicit deny in a resource-based policy"):
        await house.put(caller, detail_type="secret")


async def test_one_denied_entry_refuses_the_call(house: House) -> None:
    caller = await house.role({**EVERYTHING, "Resource": BUS})
    good = {"Source": "shop", "DetailType": "d", "Detail": "{}", "EventBusName": BUS}
    with pytest.raises(AccessDeniedError, match="event-bus/default"):
        await house.do("PutEvents", caller, Entries=[good, {**good, "EventBusName": "default"}])


async def test_a_rule_that_forwards_is_stopped_by_the_other_bus_s_policy(house: House) -> None:
    await house.role({**EVERYTHING, "Resource": BUS})
    await house.do("PutRule", Name="over", EventPattern='{"source": ["shop"]}')
    await house.do("PutTargets", Rule="over", Targets=[{"Id": "t", "Arn": BUS, "RoleArn": CALLER}])
    await house.do("CreateArchive", ArchiveName="a", EventSourceArn=BUS)

    async def arrived() -> int:
        await house.put(ROOT, "default")
        while await house.events.deliver_due() == 0:
            pass
        count: int = (await house.do("DescribeArchive", ArchiveName="a"))["EventCount"]
        return count

    assert await arrived() == 1
    await house.policy(statement("Deny", Condition={"StringEquals": {"events:source": "shop"}}))
    assert await arrived() == 1
    assert "explicit deny" in str(house.failed[0].error)


async def test_a_bus_of_another_account_or_region_is_no_bus_of_this_one(house: House) -> None:
    await house.do("CreateArchive", ArchiveName="a", EventSourceArn=BUS)
    for other in (BUS.replace("us-east-1", "eu-west-1"), BUS.replace("000000000000", "111111111111")):
        await house.put(ROOT, other)
        await house.do("PutRule", Name="over", EventPattern='{"source": ["shop"]}')
        await house.do("PutTargets", Rule="over", Targets=[{"Id": "t", "Arn": other}])
        await house.put(ROOT, "default")
        while await house.events.deliver_due() == 0:
            pass
    assert (await house.do("DescribeArchive", ArchiveName="a"))["EventCount"] == 0
    assert len(house.failed) == 2 and "does not exist here" in str(house.failed[0].error)


async def test_statements_are_added_described_and_removed(house: House) -> None:
    add = {"EventBusName": "b", "Action": "events:PutEvents"}
    await house.do("PutPermission", **add, Principal="*", StatementId="everybody")
    await house.do("PutPermission", **add, Principal="111111111111", StatementId="other")
    condition = {"Type": "StringEquals", "Key": "aws:PrincipalOrgID", "Value": "o-1"}
    await house.do("PutPermission", **add, Principal="*", StatementId="everybody", Condition=condition)
    policy = json.loads((await house.do("DescribeEventBus", Name="b"))["Policy"])
    assert policy["Statement"] == [
        {"Sid": "other", "Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::111111111111:root"},
         "Action": "events:PutEvents", "Resource": BUS},
        {"Sid": "everybody", "Effect": "Allow", "Principal": "*", "Action": "events:PutEvents", "Resource": BUS,
         "Condition": {"StringEquals": {"aws:PrincipalOrgID": "o-1"}}},
    ]  # fmt: skip
    with pytest.raises(AccessDeniedError):
        await house.put(await house.role(NOTHING))
    with pytest.raises(ResourceNotFoundError, match="id does not exist"):
        await house.do("RemovePermission", EventBusName="b", StatementId="gone")
    await house.do("RemovePermission", EventBusName="b", RemoveAllPermissions=True)
    assert "Policy" not in await house.do("DescribeEventBus", Name="b")
    with pytest.raises(ResourceNotFoundError, match="does not have a policy"):
        await house.do("RemovePermission", EventBusName="b", StatementId="other")


@pytest.mark.parametrize(
    ("request_", "error", "match"),
    [
        ({"Action": "events:PutRule", "Principal": "*", "StatementId": "s"}, ValidationError, "'action'"),
        ({"Action": "events:PutEvents", "Principal": "me", "StatementId": "s"}, ValidationError, "'principal'"),
        ({"Action": "events:PutEvents", "Principal": "*", "StatementId": "a b"}, ValidationError, "StatementId"),
        ({"Action": "events:PutEvents", "Principal": "*"}, ValidationError, "StatementId"),
        ({"Policy": "{"}, ValidationError, "not valid"),
        ({"Policy": '{"Statement": [{"Effect": "Allow"}]}'}, ValidationError, "Principal"),
        ({"Policy": "x" * (POLICY_LIMIT_BYTES + 1)}, PolicyLengthExceededError, "longer"),
        ({"Policy": "{}", "Action": "events:PutEvents"}, ValidationError, "together"),
        ({"EventBusName": "gone", "Policy": "{}"}, ResourceNotFoundError, "gone"),
    ],
)
async def test_policies_that_are_refused(
    house: House, request_: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        await house.do("PutPermission", **{"EventBusName": "b", **request_})


async def test_an_endpoint_id_is_refused(house: House) -> None:
    entry = {"Source": "shop", "DetailType": "d", "Detail": "{}"}
    with pytest.raises(ValidationError, match="EndpointId"):
        await house.do("PutEvents", EndpointId="abcde.veo", Entries=[entry])
