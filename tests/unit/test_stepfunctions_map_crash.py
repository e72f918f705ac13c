"""Map runs that are interrupted at every commit: no child twice, no effect lost, the same history."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from entrepot.errors import AwsError
from tests.unit.stepfunctions_objects import Objects
from tests.unit.stepfunctions_site import Site, site
from tests.unit.test_stepfunctions_crash import Crash, comparable
from tests.unit.test_stepfunctions_map_runs import CALL, WRITER, counted, machine, reader, refusing, run_of

PUT = {
    "StartAt": "Put",
    "States": {
        "Put": {
            "Type": "Task",
            "Resource": "arn:aws:states:::dynamodb:putItem",
            "Parameters": {"TableName": "t", "Item": {"name": {"S.$": "$.Items[0]"}}},
            "ResultPath": None,
            "Next": "Call",
        },
        "Call": {"Type": "Task", "Resource": CALL, "End": True},
    },
}
DURABLE = machine(
    PUT,
    MaxConcurrency=2,
    ItemReader=reader(InputType="JSONL"),
    ItemBatcher={"MaxItemsPerBatch": 1},
    ResultWriter=WRITER,
)


async def interrupted(folder: Path, left: int, lost: bool) -> tuple[Any, bool]:
    """Run the machine, die at the commit number `left`, restart, and return what it came to."""
    folder.mkdir()
    objects = Objects()
    objects.contents["in/items"] = b'"a"\n"b"\n"c"\n"d"\n"e"\n'
    async with site(folder, refusing(), start=False) as before:
        before.operations.add("s3", objects.operations())
        name = await before.create("m", DURABLE)
        crash = Crash(before, left, lost)
        await before.service.start()
        arn = name.replace("stateMachine", "execution") + ":run"
        running = asyncio.ensure_future(_whole(before, name, arn))
        crashed = asyncio.ensure_future(crash.crashed.wait())
        await asyncio.wait({running, crashed}, return_when=asyncio.FIRST_COMPLETED)
        died = not running.done()
        for task in (running, crashed):
            task.cancel()
        await asyncio.gather(running, crashed, return_exceptions=True)
    async with site(folder, refusing()) as after:
        after.operations.add("s3", objects.operations())
        try:
            await after.call("DescribeExecution", executionArn=arn)
        except AwsError:
            await after.begin(name, {}, "run")
        execution = await after.ended(arn)
        history = comparable(await after.history(arn))
        run = await run_of(after, arn)
        counts = await after.database.read(lambda reader: reader.all("SELECT name, writes FROM item ORDER BY name"))
        rows = await after.database.read(lambda reader: reader.one("SELECT COUNT(*) FROM execution"))
    assert counts == [(letter, 1) for letter in "abcde"], "an effect was repeated or lost"
    assert rows == (6,), "a child began twice, or not at all"
    assert run["itemCounts"] == counted(succeeded=5, total=5, resultsWritten=5)
    return (execution["status"], history), died


async def _whole(here: Site, machine_arn: str, arn: str) -> None:
    await here.begin(machine_arn, {}, "run")
    await here.ended(arn)


@pytest.mark.parametrize("lost", [False, True], ids=["after-commit", "before-commit"])
async def test_a_map_run_that_dies_at_any_commit_ends_as_if_nothing_had_happened(tmp_path: Path, lost: bool) -> None:
    boundaries = range(1, 15)
    outcomes = await asyncio.gather(*(interrupted(tmp_path / str(left), left, lost) for left in boundaries))
    expected, died = await interrupted(tmp_path / "undisturbed", 10_000, lost)
    assert not died and expected[0] == "SUCCEEDED"
    assert sum(died for _, died in outcomes) >= 8, "most boundaries must lie inside the execution"
    for left, (outcome, _) in zip(boundaries, outcomes, strict=True):
        assert outcome == expected, f"after {left} transactions"
