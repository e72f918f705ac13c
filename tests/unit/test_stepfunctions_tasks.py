"""Tasks that leave the ledger, in their thousands: bounded, fair between state machines, and none forgotten."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from entrepot.services.stepfunctions import recovery, tasks
from tests.unit.stepfunctions_site import Functions, site


def calling(function: str) -> dict[str, Any]:
    resource = f"arn:aws:lambda:us-east-1:111111111111:function:{function}"
    return {"StartAt": "T", "States": {"T": {"Type": "Task", "Resource": resource, "End": True}}}


@pytest.fixture
def little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "RUNNING_MACHINE_LIMIT", 2)
    monkeypatch.setattr(tasks, "WAITING_MACHINE_LIMIT", 4)
    monkeypatch.setattr(recovery, "RECOVERY_PAGE", 3)


async def test_a_backlog_that_does_not_fit_runs_to_its_end_and_each_task_once(
    tmp_path: Path, little_room: None
) -> None:
    functions, running, most = Functions(), 0, 0

    async def work(event: Any) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1
        return int(event["n"])

    functions.handlers["f"] = work
    async with site(tmp_path, functions) as here:
        machine = await here.create("m", calling("f"))
        arns = [await here.begin(machine, {"n": n}) for n in range(60)]
        for arn in arns:
            assert (await here.ended(arn))["status"] == "SUCCEEDED"
    assert sorted(event["n"] for _, event, _ in functions.invoked) == list(range(60)), "each task ran once"
    assert most <= 2


async def test_the_branches_that_found_no_room_run_too(tmp_path: Path, little_room: None) -> None:
    functions = Functions()
    functions.handlers["f"] = lambda event: "done"
    task = calling("f")["States"]["T"]
    branches = [{"StartAt": f"T{n}", "States": {f"T{n}": task}} for n in range(20)]
    parallel = {"StartAt": "P", "States": {"P": {"Type": "Parallel", "Branches": branches, "End": True}}}
    async with site(tmp_path, functions) as here:
        arn = await here.begin(await here.create("m", parallel))
        assert (await here.ended(arn))["status"] == "SUCCEEDED"
    assert len(functions.invoked) == 20


async def test_tasks_that_hang_do_not_hold_up_those_of_another_machine(tmp_path: Path, little_room: None) -> None:
    functions, gate = Functions(), asyncio.Event()

    async def hang(event: Any) -> str:
        await gate.wait()
        return "at last"

    functions.handlers |= {"hangs": hang, "works": lambda event: "done"}
    async with site(tmp_path, functions) as here:
        hanging = await here.create("hangs", calling("hangs"))
        stuck = [await here.begin(hanging) for _ in range(20)]
        works = await here.create("works", calling("works"))
        for _ in range(10):
            assert (await here.ended(await here.begin(works), 5))["status"] == "SUCCEEDED"
        gate.set()
        for arn in stuck:
            assert (await here.ended(arn))["status"] == "SUCCEEDED"
    assert len(functions.invoked) == 30


async def test_a_backlog_is_taken_up_after_a_restart(tmp_path: Path, little_room: None) -> None:
    functions, gate = Functions(), asyncio.Event()

    async def hang(event: Any) -> str:
        await gate.wait()
        return "at last"

    functions.handlers |= {"a": hang, "b": hang}
    async with site(tmp_path, functions) as before:
        arns = []
        for name in ("a", "b"):
            machine = await before.create(name, calling(name))
            arns += [await before.begin(machine) for _ in range(15)]
        await before.service.stop(0)
    gate.set()
    async with site(tmp_path, functions) as after:
        for arn in arns:
            assert (await after.ended(arn))["status"] == "SUCCEEDED"
