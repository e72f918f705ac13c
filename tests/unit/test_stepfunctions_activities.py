"""Activities: workers that ask for tasks, their heartbeats and time-outs, and what a restart leaves."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from entrepot.services.stepfunctions import activities
from entrepot.services.stepfunctions.errors import (
    ActivityDoesNotExist,
    InvalidDefinitionError,
    InvalidName,
    ResourceNotFound,
    TaskTimedOut,
)
from tests.unit.stepfunctions_site import Site, site

DEADLINE_S = 20.0


@pytest_asyncio.fixture
async def here(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path) as opened:
        yield opened


async def activity(here: Site, name: str = "work") -> str:
    return str((await here.call("CreateActivity", name=name))["activityArn"])


async def machine(here: Site, activity_arn: str, name: str = "m", **more: Any) -> str:
    state = {"Type": "Task", "Resource": activity_arn, "End": True, **more}
    return await here.create(name, {"StartAt": "A", "States": {"A": state}})


async def taken(here: Site, activity_arn: str, worker: str = "worker-1") -> tuple[str, Any]:
    polled = here.call("GetActivityTask", activityArn=activity_arn, workerName=worker)
    answer = await asyncio.wait_for(polled, DEADLINE_S)
    return answer["taskToken"], json.loads(answer["input"])


async def test_a_worker_does_a_task(here: Site) -> None:
    arn = await activity(here)
    execution = await here.begin(await machine(here, arn, TimeoutSeconds=60, HeartbeatSeconds=30), {"n": 1})
    token, given = await taken(here, arn)
    assert given == {"n": 1}
    await here.call("SendTaskHeartbeat", taskToken=token)
    await here.call("SendTaskSuccess", taskToken=token, output='{"done": true}')
    ended = await here.ended(execution)
    assert (ended["status"], json.loads(ended["output"])) == ("SUCCEEDED", {"done": True})
    history = await here.history(execution)
    assert [event["type"] for event in history] == [
        "ExecutionStarted",
        "TaskStateEntered",
        "ActivityScheduled",
        "ActivityStarted",
        "ActivitySucceeded",
        "TaskStateExited",
        "ExecutionSucceeded",
    ]
    assert history[2]["activityScheduledEventDetails"] == {
        "resource": arn,
        "input": '{"n":1}',
        "inputDetails": {"truncated": False},
        "timeoutInSeconds": 60,
        "heartbeatInSeconds": 30,
    }
    assert history[3]["activityStartedEventDetails"] == {"workerName": "worker-1"}
    assert json.loads(history[4]["activitySucceededEventDetails"]["output"]) == {"done": True}
    with pytest.raises(TaskTimedOut):
        await here.call("SendTaskSuccess", taskToken=token, output="1")


async def test_a_worker_that_waits_gets_the_task_at_once(here: Site) -> None:
    arn = await activity(here)
    polls = [asyncio.create_task(taken(here, arn, f"w{number}")) for number in range(3)]
    machine_arn = await machine(here, arn)
    for number in range(3):
        await here.begin(machine_arn, number)
    found = await asyncio.wait_for(asyncio.gather(*polls), DEADLINE_S)
    assert sorted(given for _, given in found) == [0, 1, 2]
    assert len({token for token, _ in found}) == 3


async def test_a_poll_ends_without_a_task(here: Site) -> None:
    arn = await activity(here)
    assert await here.service.get_activity_task(arn, None, limit_s=0.01) is None


async def test_polls_end_when_the_stack_stops(here: Site) -> None:
    arn = await activity(here)
    poll = asyncio.create_task(here.call("GetActivityTask", activityArn=arn))
    while not here.service._polls._polls:  # the poll has looked and waits
        await asyncio.sleep(0)
    await here.service.stop(drain_s=0)
    assert await asyncio.wait_for(poll, DEADLINE_S) == {}


async def test_failures_of_a_worker_are_retried_and_caught(here: Site) -> None:
    arn = await activity(here)
    retry = [{"ErrorEquals": ["Busy"], "IntervalSeconds": 1, "MaxAttempts": 1}]
    execution = await here.begin(await machine(here, arn, Retry=retry))
    for _ in range(2):
        token, _given = await taken(here, arn)
        await here.call("SendTaskFailure", taskToken=token, error="Busy", cause="later")
    ended = await here.ended(execution)
    assert (ended["status"], ended["error"], ended["cause"]) == ("FAILED", "Busy", "later")
    types = await here.event_types(execution)
    assert types.count("ActivityScheduled") == types.count("ActivityFailed") == 2


async def test_heartbeats_count_from_the_start_of_the_work(here: Site) -> None:
    arn = await activity(here)
    catch = [{"ErrorEquals": ["States.HeartbeatTimeout"], "Next": "C"}]
    state = {"Type": "Task", "Resource": arn, "HeartbeatSeconds": 1, "Catch": catch, "End": True}
    states = {"A": state, "C": {"Type": "Pass", "Result": "caught", "End": True}}
    execution = await here.begin(await here.create("m", {"StartAt": "A", "States": states}))
    described = await here.until(execution, lambda _: True)
    assert described["status"] == "RUNNING"
    row = await here.database.read(lambda reader: reader.one("SELECT due_at_ms FROM execution"))
    assert row is not None and row[0] is None  # nobody works on it: no heartbeat is missed
    token, _ = await taken(here, arn)
    ended = await here.ended(execution)
    assert json.loads(ended["output"]) == "caught"
    assert "ActivityTimedOut" in await here.event_types(execution)
    with pytest.raises(TaskTimedOut):
        await here.call("SendTaskHeartbeat", taskToken=token)


async def test_a_task_that_nobody_takes_times_out_and_is_given_to_nobody(here: Site) -> None:
    arn = await activity(here)
    execution = await here.begin(await machine(here, arn, TimeoutSeconds=1))
    ended = await here.ended(execution)
    assert (ended["status"], ended["error"]) == ("FAILED", "States.Timeout")
    assert (await here.event_types(execution))[-2:] == ["ActivityTimedOut", "ExecutionFailed"]
    assert await here.service.get_activity_task(arn, None, limit_s=0) is None
    assert await here.database.read(lambda reader: reader.all("SELECT * FROM activity_task")) == []


async def test_many_tasks_that_nobody_waits_for_hold_up_nobody(here: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activities, "used_by", lambda definition: False)  # so that their rows stay
    arn = await activity(here)
    machine_arn = await machine(here, arn)
    for _ in range(activities.STALE_LIMIT + 5):
        await here.call("StopExecution", executionArn=await here.begin(machine_arn))
    execution = await here.begin(machine_arn, "alive")
    token, given = await asyncio.wait_for(taken(here, arn), activities.LOOK_AGAIN_S / 2)
    assert given == "alive"
    await here.call("SendTaskSuccess", taskToken=token, output="1")
    assert (await here.ended(execution))["status"] == "SUCCEEDED"


async def test_a_task_waits_across_a_restart(tmp_path: Path) -> None:
    async with site(tmp_path) as before:
        arn = await activity(before)
        execution = await before.begin(await machine(before, arn), "x")
    async with site(tmp_path) as here:
        token, given = await taken(here, arn)
        assert given == "x"
    async with site(tmp_path) as after:
        await after.call("SendTaskSuccess", taskToken=token, output="2")
        assert (await after.ended(execution))["output"] == "2"


async def test_an_activity_that_does_not_exist(here: Site) -> None:
    arn = "arn:aws:states:us-east-1:111111111111:activity:none"
    ended = await here.ended(execution := await here.begin(await machine(here, arn)))
    assert (ended["status"], ended["error"]) == ("FAILED", "ActivityDoesNotExist")
    assert "ActivityScheduleFailed" in await here.event_types(execution)
    with pytest.raises(ActivityDoesNotExist):
        await here.call("GetActivityTask", activityArn=arn)
    with pytest.raises(ActivityDoesNotExist):
        await here.call("DescribeActivity", activityArn=arn)


async def test_activities_are_kept(here: Site) -> None:
    arn = await activity(here)
    assert await activity(here) == arn == "arn:aws:states:us-east-1:111111111111:activity:work"
    await activity(here, "other")
    with pytest.raises(InvalidName):
        await activity(here, "a b")
    page = await here.call("ListActivities", maxResults=1)
    rest = await here.call("ListActivities", nextToken=page["nextToken"])
    assert [entry["name"] for entry in [*page["activities"], *rest["activities"]]] == ["other", "work"]
    await here.call("TagResource", resourceArn=arn, tags=[{"key": "a", "value": "1"}, {"key": "b", "value": "2"}])
    await here.call("UntagResource", resourceArn=arn, tagKeys=["a"])
    assert (await here.call("ListTagsForResource", resourceArn=arn))["tags"] == [{"key": "b", "value": "2"}]
    await here.call("DeleteActivity", activityArn=arn)
    await here.call("DeleteActivity", activityArn=arn)
    with pytest.raises(ResourceNotFound):
        await here.call("ListTagsForResource", resourceArn=arn)


async def test_express_machines_have_no_activities(here: Site) -> None:
    arn = await activity(here)
    with pytest.raises(InvalidDefinitionError):
        await here.create(
            "x", {"StartAt": "A", "States": {"A": {"Type": "Task", "Resource": arn, "End": True}}}, "EXPRESS"
        )


async def test_the_newest_poll_is_woken() -> None:
    """A worker that asks again after its client's time-out leaves a poll behind that nobody reads any more."""
    polls = activities.Polls()
    activity = activities.Activity(1, "work", "arn:aws:states:us-east-1:000000000000:activity:work", 0, {})
    left_behind, asked_again = polls.begin(activity), polls.begin(activity)
    polls._wake_one(activity.id)
    assert asked_again.done()
    assert not left_behind.done()
