"""Versions and aliases of state machines, through the API."""

from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from entrepot.database import Migration
from entrepot.database.sqlite import SQLiteDatabase
from entrepot.errors import AwsError
from entrepot.services import stepfunctions
from entrepot.services.stepfunctions.errors import (
    ConflictException,
    InvalidName,
    ResourceNotFound,
    StateMachineDoesNotExist,
    ValidationException,
)
from tests.unit.stepfunctions_site import ROOT, Site, site


@pytest_asyncio.fixture
async def here(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path) as opened:
        yield opened


def passing(result: Any) -> str:
    import json

    return json.dumps({"StartAt": "S", "States": {"S": {"Type": "Pass", "Result": result, "End": True}}})


async def two_versions(here: Site) -> tuple[str, str, str]:
    """Return the ARNs of a state machine and of its two versions, which give 1 and 2."""
    arn = await here.create("m", passing(1))
    first = await here.call("PublishStateMachineVersion", stateMachineArn=arn, description="first")
    updated = await here.call("UpdateStateMachine", stateMachineArn=arn, definition=passing(2), publish=True)
    return arn, first["stateMachineVersionArn"], updated["stateMachineVersionArn"]


async def output(here: Site, arn: str) -> tuple[str, dict[str, Any]]:
    execution = await here.ended(await here.begin(arn))
    return execution["output"], execution


async def test_a_version_runs_the_revision_that_it_was_published_of(here: Site) -> None:
    arn, first, second = await two_versions(here)
    assert (first, second) == (f"{arn}:1", f"{arn}:2")
    await here.call("UpdateStateMachine", stateMachineArn=arn, definition=passing(3))
    told, execution = await output(here, first)
    assert (told, execution["stateMachineArn"], execution["stateMachineVersionArn"]) == ("1", arn, first)
    assert "stateMachineAliasArn" not in execution
    told, execution = await output(here, arn)
    assert told == "3" and "stateMachineVersionArn" not in execution
    described = await here.call("DescribeStateMachine", stateMachineArn=first)
    assert described["stateMachineArn"] == first and described["description"] == "first"
    assert described["definition"] == passing(1) and "revisionId" not in described
    listed = await here.call("ListExecutions", stateMachineArn=first)
    assert [entry["stateMachineVersionArn"] for entry in listed["executions"]] == [first]
    assert len((await here.call("ListExecutions", stateMachineArn=arn))["executions"]) == 2


async def test_publishing_the_same_revision_again_gives_the_same_version(here: Site) -> None:
    arn, _, second = await two_versions(here)
    again = await here.call("PublishStateMachineVersion", stateMachineArn=arn)
    assert again["stateMachineVersionArn"] == second
    revision = (await here.call("DescribeStateMachine", stateMachineArn=arn))["revisionId"]
    with pytest.raises(ConflictException):
        await here.call("PublishStateMachineVersion", stateMachineArn=arn, revisionId="INITIAL")
    same = await here.call("PublishStateMachineVersion", stateMachineArn=arn, revisionId=revision)
    assert same["stateMachineVersionArn"] == second


async def test_numbers_are_not_used_again(here: Site) -> None:
    arn, first, second = await two_versions(here)
    await here.call("DeleteStateMachineVersion", stateMachineVersionArn=second)
    await here.call("DeleteStateMachineVersion", stateMachineVersionArn=second)
    with pytest.raises(StateMachineDoesNotExist):
        await here.begin(second)
    third = await here.call("PublishStateMachineVersion", stateMachineArn=arn)
    assert third["stateMachineVersionArn"] == f"{arn}:3"
    page = await here.call("ListStateMachineVersions", stateMachineArn=arn, maxResults=1)
    assert [entry["stateMachineVersionArn"] for entry in page["stateMachineVersions"]] == [f"{arn}:3"]
    rest = await here.call("ListStateMachineVersions", stateMachineArn=arn, nextToken=page["nextToken"])
    assert [entry["stateMachineVersionArn"] for entry in rest["stateMachineVersions"]] == [first]
    assert "nextToken" not in rest


async def test_create_with_publish(here: Site) -> None:
    made = await here.call(
        "CreateStateMachine",
        name="p",
        definition=passing(1),
        roleArn="arn:aws:iam::111111111111:role/states",
        publish=True,
        versionDescription="one",
    )
    assert made["stateMachineVersionArn"] == made["stateMachineArn"] + ":1"
    with pytest.raises(ValidationException, match="Version description can only be set when publish is true"):
        await here.call("UpdateStateMachine", stateMachineArn=made["stateMachineArn"], versionDescription="two")


async def test_an_alias_leads_to_its_versions_by_their_weights(here: Site) -> None:
    arn, first, second = await two_versions(here)
    routing = [
        {"stateMachineVersionArn": first, "weight": 50},
        {"stateMachineVersionArn": second, "weight": 50},
    ]
    alias = (await here.call("CreateStateMachineAlias", name="PROD", routingConfiguration=routing))[
        "stateMachineAliasArn"
    ]
    assert alias == f"{arn}:PROD"
    outputs = Counter([(await output(here, alias))[0] for _ in range(40)])
    assert set(outputs) == {"1", "2"}  # one of them alone has a probability of 2^-39
    listed = (await here.call("ListExecutions", stateMachineArn=alias))["executions"]
    assert len(listed) == 40 and {entry["stateMachineAliasArn"] for entry in listed} == {alias}
    assert {entry["stateMachineVersionArn"] for entry in listed} == {first, second}
    await here.call(
        "UpdateStateMachineAlias",
        stateMachineAliasArn=alias,
        routingConfiguration=[{"stateMachineVersionArn": first, "weight": 100}],
    )
    assert {(await output(here, alias))[0] for _ in range(10)} == {"1"}
    described = await here.call("DescribeStateMachineAlias", stateMachineAliasArn=alias)
    assert described["routingConfiguration"] == [{"stateMachineVersionArn": first, "weight": 100}]
    with pytest.raises(ConflictException, match=r"referencing this version: \[PROD\]"):
        await here.call("DeleteStateMachineVersion", stateMachineVersionArn=first)
    assert (await here.call("ListStateMachineAliases", stateMachineArn=second))["stateMachineAliases"] == []
    assert len((await here.call("ListStateMachineAliases", stateMachineArn=arn))["stateMachineAliases"]) == 1
    await here.call("DeleteStateMachineAlias", stateMachineAliasArn=alias)
    with pytest.raises(ResourceNotFound):
        await here.call("DescribeStateMachineAlias", stateMachineAliasArn=alias)
    with pytest.raises(StateMachineDoesNotExist):
        await here.begin(alias)


@pytest.mark.parametrize(
    ("name", "weights", "error"),
    [
        ("123", (100,), InvalidName),
        ("a b", (100,), InvalidName),
        ("ok", (99,), ValidationException),
        ("ok", (60, 60), ValidationException),
        ("ok", (), ValidationException),
    ],
)
async def test_aliases_that_are_refused(here: Site, name: str, weights: tuple[int, ...], error: type[AwsError]) -> None:
    _, first, second = await two_versions(here)
    routing = [
        {"stateMachineVersionArn": version, "weight": weight}
        for version, weight in zip((first, second), weights, strict=False)
    ]
    with pytest.raises(error):
        await here.call("CreateStateMachineAlias", name=name, routingConfiguration=routing)


async def test_an_alias_with_other_routes_is_a_conflict(here: Site) -> None:
    arn, first, second = await two_versions(here)

    async def create(version: str) -> Any:
        routing = [{"stateMachineVersionArn": version, "weight": 100}]
        return await here.call("CreateStateMachineAlias", name="a", routingConfiguration=routing)

    assert await create(first) == await create(first)
    with pytest.raises(ConflictException):
        await create(second)
    with pytest.raises(ResourceNotFound):
        await create(f"{arn}:77")
    with pytest.raises(AwsError):
        await create(arn)


async def test_an_execution_keeps_the_revision_that_it_began_with(here: Site) -> None:
    waiting = (
        '{"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 1, "Next": "S"}, '
        '"S": {"Type": "Pass", "Result": "old", "End": true}}}'
    )
    arn = await here.create("m", waiting)
    execution = await here.begin(arn)
    await here.call("UpdateStateMachine", stateMachineArn=arn, definition=passing("new"))
    described = await here.call("DescribeStateMachineForExecution", executionArn=execution)
    assert described["definition"] == waiting and "revisionId" not in described
    assert (await here.ended(execution))["output"] == '"old"'


async def test_deleting_a_state_machine_deletes_its_versions_and_aliases(here: Site) -> None:
    arn, first, _ = await two_versions(here)
    routing = [{"stateMachineVersionArn": first, "weight": 100}]
    await here.call("CreateStateMachineAlias", name="a", routingConfiguration=routing)
    await here.call("DeleteStateMachine", stateMachineArn=arn)
    await here.create("m", passing(4))
    assert (await here.call("ListStateMachineVersions", stateMachineArn=arn))["stateMachineVersions"] == []
    assert (await here.call("ListStateMachineAliases", stateMachineArn=arn))["stateMachineAliases"] == []


async def test_iam_sees_the_state_machine_and_the_qualifier(here: Site) -> None:
    _, first, _ = await two_versions(here)
    operation = here.operations.find("stepfunctions", "StartExecution")
    assert operation is not None
    permission = next(iter(operation.permissions({"stateMachineArn": first})))
    assert permission.resource == first.rpartition(":")[0]
    assert permission.context == {"states:StateMachineQualifier": "1"}
    assert ROOT.principal.kind == "root"


async def test_a_ledger_of_before_opens(tmp_path: Path) -> None:
    before = [Migration(m.room, m.number, m.statements) for m in stepfunctions.MIGRATIONS if m.number == 1]
    old = SQLiteDatabase(tmp_path / "ledger.db")
    old.migrate(before)
    await old.close()
    async with site(tmp_path) as here:
        _, first, _ = await two_versions(here)
        assert (await output(here, first))[0] == "1"
