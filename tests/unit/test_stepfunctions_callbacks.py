"""Tasks that wait: for their token, for heartbeats, for nested executions; and executions that a caller waits for."""

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import pytest

from entrepot.errors import AwsError
from entrepot.services.stepfunctions import nested

from .stepfunctions_site import Functions, Site, site

WAITING = "arn:aws:states:::lambda:invoke.waitForTaskToken"
NESTED = "arn:aws:states:::states:startExecution"


def one(**state: Any) -> dict[str, Any]:
    return {"StartAt": "S", "States": {"S": {"End": True, **state}}}


def waiting(**more: Any) -> dict[str, Any]:
    parameters = {"FunctionName": "f", "Payload": {"token.$": "$$.Task.Token", "n.$": "$.n"}}
    return one(Type="Task", Resource=WAITING, Parameters=parameters, **more)


class Tokens(Functions):
    """A function `f` that keeps the tokens it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens: list[str] = []
        self.handlers["f"] = self._keep

    def _keep(self, event: Any) -> Any:
        self.tokens.append(event["token"])
        return {"kept": True}


async def submitted(here: Site, arn: str) -> None:
    for _ in range(2_000):
        if "TaskSubmitted" in await here.event_types(arn):
            return
        await asyncio.sleep(0.01)
    raise AssertionError(await here.event_types(arn))


async def refused(here: Site, operation: str, **request: Any) -> str:
    with pytest.raises(AwsError) as caught:
        await here.call(operation, **request)
    return type(caught.value).code


async def test_success_comes_with_the_token_also_after_a_restart(tmp_path: Path) -> None:
    functions = Tokens()
    async with site(tmp_path, functions) as here:
        arn = await here.begin(await here.create("m", waiting()), {"n": 1})
        await submitted(here, arn)
    async with site(tmp_path, functions) as here:
        (token,) = functions.tokens
        assert await refused(here, "SendTaskSuccess", taskToken=token, output="{") == "InvalidOutput"
        await here.call("SendTaskSuccess", taskToken=token, output='{"done": 1}')
        execution = await here.ended(arn)
        assert json.loads(execution["output"]) == {"done": 1}
        assert await here.event_types(arn) == [
            "ExecutionStarted", "TaskStateEntered", "TaskScheduled", "TaskStarted", "TaskSubmitted", "TaskSucceeded",
            "TaskStateExited", "ExecutionSucceeded",
        ]  # fmt: skip
        events = await here.history(arn)
        kept = events[4]["taskSubmittedEventDetails"]
        assert (kept["resourceType"], kept["resource"]) == ("lambda", "invoke.waitForTaskToken")
        assert json.loads(kept["output"])["Payload"] == {"kept": True}
        assert len(functions.tokens) == 1, "the call must not be made again"
        assert await refused(here, "SendTaskSuccess", taskToken=token, output="1") == "TaskTimedOut"
        assert await refused(here, "SendTaskHeartbeat", taskToken=token) == "TaskTimedOut"
        for wrong in ("x", "", "W10=", token[:-8]):
            assert await refused(here, "SendTaskFailure", taskToken=wrong) == "InvalidToken"


async def test_a_token_may_come_back_before_the_call_does(tmp_path: Path) -> None:
    functions = Functions()
    async with site(tmp_path, functions) as here:
        gate = asyncio.Event()

        async def answer_first(event: Any) -> Any:
            await here.call("SendTaskSuccess", taskToken=event["token"], output="5")
            await gate.wait()
            return "too late"

        functions.handlers["f"] = answer_first
        arn = await here.begin(await here.create("m", waiting()), {"n": 1})
        assert (await here.ended(arn))["output"] == "5"
        gate.set()
        assert "TaskSubmitted" not in await here.event_types(arn)


@pytest.mark.parametrize(
    "content",
    [
        '["no ARN", 1, "x"]',
        '[["a"], 1, "x"]',
        '["a:b", 1, "x"]',
        "[" * 1_500,
        '{"a": 1, "b": 2, "c": 3}',
        "1",
        "\u00ff",
    ],
)
async def test_what_is_no_token_is_refused_as_one(tmp_path: Path, content: str) -> None:
    async with site(tmp_path) as here:
        with pytest.raises(AwsError) as refused:
            token = base64.urlsafe_b64encode(content.encode("latin-1")).decode()
            await here.call("SendTaskSuccess", taskToken=token, output="{}")
        assert refused.value.code == "InvalidToken"


async def test_an_execution_that_nobody_can_wait_for_is_not_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nested, "NESTING_LIMIT", 2)
    async with site(tmp_path) as here:
        arn = await here.create("0", one(Type="Pass"))
        for name in ("1", "2", "3"):
            parameters = {"StateMachineArn": arn, "Name": f"of-{name}"}
            arn = await here.create(name, one(Type="Task", Resource=f"{NESTED}.sync:2", Parameters=parameters))
        ended = await here.ended(await here.begin(arn, name="outermost"))
        names = await here.database.read(lambda reader: reader.all("SELECT name FROM execution ORDER BY id"))
    assert ended["status"] == "FAILED" and "would wait for one another" in ended["cause"]
    assert [name for (name,) in names] == ["outermost", "of-3", "of-2"]


async def test_who_waits_for_an_execution_is_told_that_the_server_stops(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        machine = await here.create("m", one(Type="Wait", Seconds=1), type_="EXPRESS")
        waiting = asyncio.ensure_future(here.call("StartSyncExecution", stateMachineArn=machine))
        while not await here.database.read(lambda reader: reader.one("SELECT 1 FROM execution")):
            await asyncio.sleep(0.01)
        await here.service.stop(0)
        with pytest.raises(AwsError) as told:
            await asyncio.wait_for(waiting, 0.9)
        assert told.value.code == "ServiceUnavailable"


@pytest.mark.parametrize("late", [False, True], ids=["at-once", "later"])
@pytest.mark.parametrize("pattern", ["", ".sync:2"])
async def test_an_execution_that_starts_itself_is_there_once(tmp_path: Path, pattern: str, late: bool) -> None:
    """Under its own name and with its own input it finds itself; it cannot wait for its own end."""
    start = {
        "Type": "Task",
        "Resource": f"{NESTED}{pattern}",
        "Parameters": {
            "StateMachineArn.$": "$$.StateMachine.Id",
            "Name.$": "$$.Execution.Name",
            "Input.$": "$$.Execution.Input",
        },
        "ResultSelector": {"arn.$": "$.ExecutionArn"},
        "End": True,
    }
    definition = {
        "StartAt": "W" if late else "S",
        "States": {"W": {"Type": "Wait", "Seconds": 1, "Next": "S"}, "S": start},
    }
    if not late:
        del definition["States"]["W"]  # type: ignore[attr-defined]
    async with site(tmp_path) as here:
        arn = await here.begin(await here.create("m", definition), {"x": 1}, "self")
        ended = await here.ended(arn)
        rows = await here.database.read(lambda reader: reader.one("SELECT count(*) FROM execution"))
    assert rows == (1,)
    if pattern:
        assert (ended["status"], ended["cause"]) == ("FAILED", "The execution would wait for its own end.")
    else:
        assert json.loads(ended["output"]) == {"arn": arn}


async def test_failure_can_be_retried_and_each_attempt_has_its_token(tmp_path: Path) -> None:
    functions = Tokens()
    async with site(tmp_path, functions) as here:
        retry = [{"ErrorEquals": ["Again"], "MaxAttempts": 1, "IntervalSeconds": 1}]
        arn = await here.begin(await here.create("m", waiting(Retry=retry)), {"n": 1})
        await submitted(here, arn)
        await here.call("SendTaskFailure", taskToken=functions.tokens[0], error="Again", cause="c")
        await here.until(arn, lambda _: len(functions.tokens) == 2)
        assert functions.tokens[0] != functions.tokens[1]
        assert await refused(here, "SendTaskFailure", taskToken=functions.tokens[0]) == "TaskTimedOut"
        await here.call("SendTaskFailure", taskToken=functions.tokens[1], error="Enough", cause="really")
        execution = await here.ended(arn)
        assert (execution["status"], execution["error"], execution["cause"]) == ("FAILED", "Enough", "really")


async def test_heartbeats_keep_a_task_waiting(tmp_path: Path) -> None:
    functions = Tokens()
    async with site(tmp_path, functions) as here:
        catch = [{"ErrorEquals": ["States.HeartbeatTimeout"], "Next": "Z"}]
        definition = waiting(HeartbeatSeconds=1, Catch=catch)
        definition["States"]["Z"] = {"Type": "Pass", "Result": "no heartbeat", "End": True}
        arn = await here.begin(await here.create("m", definition), {"n": 1})
        await submitted(here, arn)
        for _ in range(4):
            await asyncio.sleep(0.4)
            await here.call("SendTaskHeartbeat", taskToken=functions.tokens[0])
        assert (await here.call("DescribeExecution", executionArn=arn))["status"] == "RUNNING"
        assert json.loads((await here.ended(arn))["output"]) == "no heartbeat"
        events = await here.history(arn)
        timed_out = next(event for event in events if event["type"] == "TaskTimedOut")["taskTimedOutEventDetails"]
        assert timed_out["error"] == "States.Timeout"


async def test_a_state_machine_may_answer_with_the_token_it_was_handed(tmp_path: Path) -> None:
    functions = Tokens()
    async with site(tmp_path, functions) as here:
        answer = {
            "Type": "Task",
            "Resource": "arn:aws:states:::aws-sdk:sfn:sendTaskSuccess",
            "Parameters": {"TaskToken.$": "$.token", "Output": {"by": "another"}},
            "End": True,
        }
        hand_over = {
            "Type": "Task",
            "Resource": "arn:aws:states:::aws-sdk:sfn:startExecution.waitForTaskToken",
            "Parameters": {"StateMachineArn.$": "$.answer", "Input": {"token.$": "$$.Task.Token"}},
            "End": True,
        }
        answering = await here.create("answering", {"StartAt": "A", "States": {"A": answer}})
        execution, _ = await here.run({"StartAt": "H", "States": {"H": hand_over}}, {"answer": answering})
        assert json.loads(execution["output"]) == {"by": "another"}


@pytest.mark.parametrize("pattern", [".sync", ".sync:2"])
async def test_nested_executions_end_the_task(tmp_path: Path, pattern: str) -> None:
    async with site(tmp_path, Functions()) as here:
        child = await here.create(
            "child", {"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 1, "End": True}}}
        )
        parent = one(
            Type="Task",
            Resource=NESTED + pattern,
            Parameters={"StateMachineArn": child, "Name": "c", "Input": {"a": 1}},
        )
        execution, events = await here.run(parent, {})
        told = json.loads(execution["output"])
        assert told["Output"] == ({"a": 1} if pattern == ".sync:2" else '{"a":1}')
        assert told["Input"] == ({"a": 1} if pattern == ".sync:2" else '{"a":1}')
        assert (told["Status"], told["Name"], told["StateMachineArn"]) == ("SUCCEEDED", "c", child)
        assert [event["type"] for event in events][2:6] == [
            "TaskScheduled", "TaskStarted", "TaskSubmitted", "TaskSucceeded",
        ]  # fmt: skip
        assert events[2]["taskScheduledEventDetails"]["resource"] == f"startExecution{pattern}"


async def test_a_nested_failure_fails_the_task(tmp_path: Path) -> None:
    async with site(tmp_path, Functions()) as here:
        child = await here.create(
            "child", {"StartAt": "F", "States": {"F": {"Type": "Fail", "Error": "E", "Cause": "c"}}}
        )
        execution, _ = await here.run(
            one(Type="Task", Resource=NESTED + ".sync:2", Parameters={"StateMachineArn": child})
        )
        assert (execution["status"], execution["error"]) == ("FAILED", "States.TaskFailed")
        cause = json.loads(execution["cause"])
        assert (cause["Status"], cause["Error"], cause["Cause"]) == ("FAILED", "E", "c")


async def test_nesting_survives_a_restart(tmp_path: Path) -> None:
    wait = {"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 1, "End": True}}}
    async with site(tmp_path, Functions()) as here:
        inner = await here.create("inner", wait)
        middle = await here.create(
            "middle", one(Type="Task", Resource=NESTED + ".sync", Parameters={"StateMachineArn": inner})
        )
        outer = await here.create(
            "outer", one(Type="Task", Resource=NESTED + ".sync", Parameters={"StateMachineArn": middle})
        )
        arn = await here.begin(outer)
        await submitted(here, arn)
    async with site(tmp_path, Functions()) as here:
        assert (await here.ended(arn))["status"] == "SUCCEEDED"
        types = await here.event_types(arn)
        assert types.count("TaskScheduled") == types.count("TaskSucceeded") == 1


async def test_without_a_pattern_the_parent_does_not_wait(tmp_path: Path) -> None:
    async with site(tmp_path, Functions()) as here:
        child = await here.create(
            "child", {"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 60, "End": True}}}
        )
        execution, _ = await here.run(one(Type="Task", Resource=NESTED, Parameters={"StateMachineArn": child}))
        assert execution["status"] == "SUCCEEDED" and "ExecutionArn" in json.loads(execution["output"])


async def test_start_sync_execution_answers_with_the_outcome(tmp_path: Path) -> None:
    functions = Functions()
    functions.handlers["f"] = lambda event: {"got": event}
    arn = "arn:aws:lambda:us-east-1:111111111111:function:f"
    async with site(tmp_path, functions) as here:
        express = await here.create("express", one(Type="Task", Resource=arn), "EXPRESS")
        answers = await asyncio.gather(
            *(here.call("StartSyncExecution", stateMachineArn=express, input=str(n)) for n in range(5))
        )
        assert [json.loads(answer["output"]) for answer in answers] == [{"got": n} for n in range(5)]
        assert {answer["status"] for answer in answers} == {"SUCCEEDED"}
        failing = await here.create(
            "failing", {"StartAt": "F", "States": {"F": {"Type": "Fail", "Error": "E"}}}, "EXPRESS"
        )
        answer = await here.call("StartSyncExecution", stateMachineArn=failing)
        assert (answer["status"], answer["error"]) == ("FAILED", "E") and "output" not in answer
        standard = await here.create("standard", one(Type="Pass"))
        assert await refused(here, "StartSyncExecution", stateMachineArn=standard) == "StateMachineTypeNotSupported"


async def test_an_execution_that_stops_itself_is_stopped(tmp_path: Path) -> None:
    async with site(tmp_path, Functions()) as here:
        stop = one(
            Type="Task",
            Resource="arn:aws:states:::aws-sdk:sfn:stopExecution",
            Parameters={"ExecutionArn.$": "$$.Execution.Id", "Error": "Me"},
            Next="Z",
        )
        del stop["States"]["S"]["End"]
        stop["States"]["Z"] = {"Type": "Wait", "Seconds": 60, "End": True}
        execution, _ = await here.run(stop)
        assert (execution["status"], execution["error"]) == ("ABORTED", "Me")
