"""Executions that are interrupted at every commit: whatever the moment, they end as if nothing had happened."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from entrepot.database import Transaction
from tests.unit.stepfunctions_site import Functions, Site, site

T = TypeVar("T")
PUT = {"Type": "Task", "Resource": "arn:aws:states:::dynamodb:putItem"}
CALL = "arn:aws:lambda:us-east-1:111111111111:function:double"
MACHINE = {
    "StartAt": "Begin",
    "States": {
        "Begin": {"Type": "Pass", "Parameters": {"number.$": "$.number", "name": "once"}, "Next": "Record"},
        "Record": {
            **PUT,
            "Parameters": {"TableName": "t", "Item": {"name": {"S.$": "$.name"}}},
            "ResultPath": None,
            "Assign": {"recorded": True},
            "Next": "Double",
        },
        "Double": {"Type": "Task", "Resource": CALL, "ResultPath": "$.doubled", "Next": "Each"},
        "Each": {
            "Type": "Map",
            "MaxConcurrency": 1,
            "ItemsPath": "$.doubled",
            "ItemProcessor": {
                "StartAt": "Again",
                "States": {
                    "Again": {
                        "Type": "Task",
                        "Resource": "arn:aws:states:::lambda:invoke",
                        "Parameters": {"FunctionName": "fail_once", "Payload.$": "$"},
                        "ResultSelector": {"value.$": "$.Payload", "recorded.$": "$recorded"},
                        "Retry": [{"ErrorEquals": ["TimeoutError"], "IntervalSeconds": 1, "MaxAttempts": 1}],
                        "Catch": [{"ErrorEquals": ["States.TaskFailed"], "Next": "Sorry"}],
                        "End": True,
                    },
                    "Sorry": {"Type": "Pass", "Result": "sorry", "End": True},
                },
            },
            "Next": "Rest",
        },
        "Rest": {"Type": "Wait", "Seconds": 1, "Next": "RecordAgain"},
        "RecordAgain": {
            **PUT,
            "Parameters": {"TableName": "t", "Item": {"name": {"S": "twice"}}},
            "ResultPath": None,
            "End": True,
        },
    },
}


def fail_once(number: int) -> int:
    if number == 8:
        raise TimeoutError("always too slow")
    if number == 12:
        raise ValueError("twelve")
    return number


def double(event: dict[str, Any]) -> list[int]:
    return [event["number"] * 2, event["number"] * 3, 10]


def functions() -> Functions:
    made = Functions()
    made.handlers = {"double": double, "fail_once": fail_once}
    return made


class _NotDurable(Exception):
    """The process died before the commit."""


class Crash:
    """Lets `left` transactions commit. What comes after them, and what they wanted to do next, never happens."""

    def __init__(self, here: Site, left: int, lost: bool) -> None:
        self.left = left
        self.lost = lost
        self.crashed = asyncio.Event()
        self._write = here.database.write
        here.database.write = self.write  # type: ignore[method-assign, assignment]

    def write(self, work: Callable[[Transaction], T]) -> "asyncio.Future[T]":
        loop = asyncio.get_running_loop()
        if self.left == 0:
            self.crashed.set()
            return loop.create_future()
        self.left -= 1
        if self.left > 0:
            return self._write(work)  # type: ignore[return-value]

        def last(tx: Transaction) -> T:
            class Deaf:
                def __getattr__(self, name: str) -> Any:
                    return getattr(tx, name)

                def after_commit(self, callback: Callable[[], None]) -> None:
                    """Nobody is left to be called."""

            value = work(Deaf())  # type: ignore[arg-type]
            if self.lost:
                raise _NotDurable
            return value

        future = asyncio.ensure_future(self._write(last))
        future.add_done_callback(lambda done: (done.exception(), self.crashed.set()))
        return loop.create_future()


def comparable(events: list[dict[str, Any]]) -> list[Any]:
    """History without what differs from run to run: times, request ids."""
    return [(event["id"], event["previousEventId"], event["type"], _data(event)) for event in events]


def _data(event: dict[str, Any]) -> Any:
    for member, details in event.items():
        if member.endswith("EventDetails"):
            return {
                key: value
                for key, value in details.items()
                if key in ("name", "index", "length", "error", "assignedVariables", "resource", "resourceType")
            }
    return None


async def interrupted(folder: Path, left: int, lost: bool) -> tuple[Any, bool]:
    """Run the machine, die at the commit number `left`, restart, and return what it came to."""
    folder.mkdir()
    async with site(folder, functions(), start=False) as before:
        machine = await before.create("m", MACHINE)
        crash = Crash(before, left, lost)
        await before.service.start()
        beginning = asyncio.ensure_future(before.begin(machine, {"number": 4}, "run"))
        arn = machine.replace("stateMachine", "execution") + ":run"
        ending = asyncio.ensure_future(_when_ended(before, arn, beginning))
        crashed = asyncio.ensure_future(crash.crashed.wait())
        await asyncio.wait({ending, crashed}, return_when=asyncio.FIRST_COMPLETED)
        died = not ending.done()
        for task in (beginning, ending, crashed):
            task.cancel()
        await asyncio.gather(beginning, ending, crashed, return_exceptions=True)
    async with site(folder, functions()) as after:
        # The client had no answer: it asks again, under the same name.
        if "ExecutionStarted" not in await _types(after, arn):
            await after.begin(machine, {"number": 4}, "run")
        execution = await after.ended(arn)
        history = comparable(await after.history(arn))
        counts = await after.database.read(lambda reader: reader.all("SELECT name, writes FROM item ORDER BY name"))
        changes = await after.database.read(lambda reader: reader.all("SELECT status FROM change ORDER BY number"))
        rows = await after.database.read(lambda reader: reader.one("SELECT COUNT(*) FROM execution"))
    assert rows == (1,)
    assert counts == [("once", 1), ("twice", 1)], "an effect was repeated or lost"
    assert changes == [("RUNNING",), ("SUCCEEDED",)]
    return (execution["status"], execution["output"], history), died


async def _when_ended(here: Site, arn: str, beginning: "asyncio.Future[str]") -> None:
    await beginning
    await here.ended(arn)


async def _types(here: Site, arn: str) -> list[str]:
    try:
        return await here.event_types(arn)
    except Exception:  # noqa: BLE001 - the execution does not exist
        return []


@pytest.mark.parametrize("lost", [False, True], ids=["after-commit", "before-commit"])
async def test_an_execution_that_dies_at_any_commit_ends_as_if_nothing_had_happened(tmp_path: Path, lost: bool) -> None:
    boundaries = range(1, 11)
    outcomes = await asyncio.gather(*(interrupted(tmp_path / str(left), left, lost) for left in boundaries))
    expected, died = await interrupted(tmp_path / "undisturbed", 10_000, lost)
    assert not died
    assert expected[0] == "SUCCEEDED"
    assert json.loads(expected[1]) == ["sorry", "sorry", {"value": 10, "recorded": True}]
    crashes = [died for _, died in outcomes]
    assert sum(crashes) >= 6, "most boundaries must lie inside the execution"
    for left, (outcome, _) in zip(boundaries, outcomes, strict=True):
        assert outcome == expected, f"after {left} transactions"
