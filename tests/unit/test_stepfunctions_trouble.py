"""Executions when the disk is full, when somebody else writes too, and when the interpreter itself breaks."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from entrepot import clock
from entrepot.database import Transaction
from entrepot.errors import StorageFullError
from entrepot.services.stepfunctions import executions, executor, gathering, recovery, timers
from entrepot.services.stepfunctions.executions import ConflictError
from entrepot.services.stepfunctions.happenings import Continued, Happening, TaskSucceeded
from tests.unit.stepfunctions_site import ACCOUNT, Functions, Site, site

MACHINE = {
    "StartAt": "T",
    "States": {
        "T": {"Type": "Task", "Resource": "arn:aws:lambda:us-east-1:111111111111:function:f", "Next": "P"},
        "P": {
            "Type": "Task",
            "Resource": "arn:aws:states:::aws-sdk:dynamodb:putItem",
            "Parameters": {"TableName": "t", "Item": {"name": {"S": "x"}}},
            "End": True,
        },
    },
}


async def item_writes(here: Site) -> Any:
    return await here.database.read(lambda reader: reader.one("SELECT writes FROM item"))


async def test_an_outcome_waits_until_the_disk_has_room(tmp_path: Path) -> None:
    functions, full = Functions(), True
    refusals = 0
    async with site(tmp_path, functions) as here:
        write = here.database.write

        def refusing(work: Callable[[Transaction], Any]) -> Awaitable[Any]:
            nonlocal refusals
            if not full:
                return write(work)
            refusals += 1
            future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            future.set_exception(StorageFullError("no room"))
            return future

        def fill(event: Any) -> str:
            here.database.write = refusing  # type: ignore[method-assign, assignment]
            return "done"

        functions.handlers["f"] = fill
        arn = await here.begin(await here.create("m", MACHINE))
        while refusals < 2:
            await asyncio.sleep(0.01)
        full = False
        assert (await here.ended(arn))["status"] == "SUCCEEDED"
        assert len(functions.invoked) == 1, "the function need not run again"
        assert await item_writes(here) == (1,)


async def test_two_that_share_a_ledger_record_an_outcome_once(tmp_path: Path) -> None:
    gate = asyncio.Event()

    async def wait(event: Any) -> str:
        await gate.wait()
        return "done"

    functions = Functions()
    functions.handlers["f"] = wait
    async with site(tmp_path, functions) as one:
        arn = await one.begin(await one.create("m", MACHINE))
        async with site(tmp_path, functions) as other:
            while len(functions.invoked) < 2:
                await asyncio.sleep(0.01)
            gate.set()
            assert (await other.ended(arn))["status"] == "SUCCEEDED"
            types = await one.event_types(arn)
            assert types.count("LambdaFunctionSucceeded") == 1 == types.count("TaskScheduled")
            assert await item_writes(one) == (1,)


async def test_who_writes_second_is_refused(tmp_path: Path) -> None:
    functions = Functions()
    functions.handlers["f"] = lambda event: asyncio.sleep(3600)
    async with site(tmp_path, functions) as here:
        arn = await here.begin(await here.create("m", MACHINE))

        def work(tx: Transaction) -> None:
            first, second = executions.get(tx, ACCOUNT, arn), executions.get(tx, ACCOUNT, arn)
            assert first.state is not None and second.state is not None
            executions.save(tx, first, first.state, [], None)
            executions.save(tx, second, second.state, [], None)

        with pytest.raises(ConflictError):
            await here.database.write(work)


async def test_an_execution_whose_interpretation_breaks_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    step = executor.step_in_place

    def broken(machine: Any, state: Any, happening: Happening, limit: int) -> Any:
        if isinstance(happening, TaskSucceeded | Continued):
            raise RecursionError("a bug")
        return step(machine, state, happening, limit)

    monkeypatch.setattr(executor, "step_in_place", broken)
    functions = Functions()
    functions.handlers["f"] = lambda event: "done"
    async with site(tmp_path, functions) as here:
        execution = await here.ended(await here.begin(await here.create("m", MACHINE)))
        assert (execution["status"], execution["error"]) == ("FAILED", "States.Runtime")
        assert "a bug" in execution["cause"] and "cannot go on" in caplog.text


async def test_timers_survive_a_restart(tmp_path: Path) -> None:
    definition = {"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 1, "End": True}}}
    async with site(tmp_path) as before:
        arn = await before.begin(await before.create("m", definition))
    async with site(tmp_path) as after:
        execution = await after.ended(arn)
        events = await after.history(arn)
    assert execution["status"] == "SUCCEEDED"
    assert (events[2]["timestamp"] - events[1]["timestamp"]).total_seconds() >= 1
    assert json.loads(execution["output"]) == {} and execution["stopDate"] <= clock.now()


async def test_an_execution_that_cannot_be_read_stands_in_nobodys_way(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its timer is due for ever, and its recovery fails; others' timers fire, and others are recovered."""
    monkeypatch.setattr(timers, "TIMER_PAGE", 1)
    monkeypatch.setattr(recovery, "RECOVERY_PAGE", 1)
    waits = {"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 1, "End": True}}}
    functions = Functions()
    functions.handlers["f"] = lambda event: "done"
    async with site(tmp_path, functions, start=False) as before:
        await before.begin(await before.create("bad", waits))
        waiting = await before.begin(await before.create("waits", waits))
        calling = await before.begin(await before.create("calls", MACHINE))
        damage = "UPDATE execution SET state = x'00', due_at_ms = 1 WHERE id = (SELECT min(id) FROM execution)"
        await before.database.write(lambda tx: tx.execute(damage))
    async with site(tmp_path, functions) as after:
        assert (await after.ended(calling))["status"] == "SUCCEEDED"
        assert (await after.ended(waiting))["status"] == "SUCCEEDED"
    assert "could not be ended" in caplog.text


async def test_a_clock_that_is_set_back_makes_nothing_wait_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = {"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 1, "End": True}}}
    async with site(tmp_path) as here:
        machine, now_ms = await here.create("m", waits), clock.now_ms
        with monkeypatch.context() as ahead:
            ahead.setattr(clock, "now_ms", lambda: now_ms() + 3_600_000)
            await here.begin(machine, name="ahead")
        arn = await here.begin(machine, name="back")
        assert (await here.ended(arn))["status"] == "SUCCEEDED"


async def test_after_a_start_nobody_looks_at_what_only_waits(tmp_path: Path) -> None:
    waits = {"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 60, "End": True}}}
    both = {"StartAt": "B", "States": {"B": {"Type": "Parallel", "Branches": [waits, MACHINE], "End": True}}}
    token = {
        "StartAt": "C",
        "States": {
            "C": {
                "Type": "Task",
                "Resource": "arn:aws:states:::lambda:invoke.waitForTaskToken",
                "Parameters": {"FunctionName": "f", "Payload": {"token.$": "$$.Task.Token"}},
                "End": True,
            }
        },
    }
    functions = Functions()
    functions.handlers["f"] = lambda event: "done"

    async def unfinished(here: Site) -> set[str]:
        found = await here.database.scan(lambda reader: executions.unfinished(reader, (-1, -1), 10))
        rows = [
            await here.database.read(lambda reader, id_=id_: executions.by_id(reader, ACCOUNT, id_)) for _, id_ in found
        ]  # type: ignore[misc]
        return {row.machine.name for row in rows if row is not None}

    machines = {"waits": waits, "calls": MACHINE, "both": both, "token": token}
    async with site(tmp_path, functions, start=False) as before:
        arns = {name: await before.begin(await before.create(name, machine)) for name, machine in machines.items()}
        assert await unfinished(before) == {"calls", "both", "token"}  # of `token`, the call is still to be made
        await before.database.write(
            lambda tx: tx.execute("UPDATE execution SET waits = NULL")
        )  # as older code stored it
    async with site(tmp_path, functions) as after:
        assert (await after.ended(arns["calls"]))["status"] == "SUCCEEDED"
        deadline_s = clock.monotonic_s() + 10
        while left := await unfinished(after) - {"waits"}:
            assert clock.monotonic_s() < deadline_s, left
            await asyncio.sleep(0.01)


async def test_outcomes_that_come_together_are_written_together(tmp_path: Path) -> None:
    each = {"StartAt": "T", "States": {"T": {**MACHINE["States"]["T"], "End": True}}}  # type: ignore[index]
    del each["States"]["T"]["Next"]
    machine = {"StartAt": "M", "States": {"M": {"Type": "Map", "ItemProcessor": each, "End": True}}}
    functions = Functions()
    functions.handlers["f"] = lambda event: event
    async with site(tmp_path, functions) as here:
        arn = await here.begin(await here.create("m", machine), list(range(40)))
        ended = await here.ended(arn)
        row = await here.database.read(lambda reader: reader.one("SELECT version FROM execution"))
    assert (ended["status"], json.loads(ended["output"])) == ("SUCCEEDED", list(range(40)))
    assert row is not None and row[0] < 20


async def test_what_comes_after_a_write_has_begun_waits_for_the_next() -> None:
    happenings = [Continued(at_ms=at_ms) for at_ms in range(gathering.GATHER_LIMIT + 1)]
    gathered = gathering.Gathered(happenings[0])
    assert [gathered.join(happening) for happening in happenings[1:]] == [True] * (gathering.GATHER_LIMIT - 1) + [False]
    assert gathered.take() == happenings[:-1] == gathered.take()
    late = gathering.Gathered(happenings[0])
    late.take()
    assert not late.join(happenings[1]) and late.take() == happenings[:1]
