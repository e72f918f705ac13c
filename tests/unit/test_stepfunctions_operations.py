"""Step Functions' API: machines, executions, history, redrive, tags, permissions; and what executions leave behind."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from entrepot import arns
from entrepot.errors import AccessDeniedError, AwsError
from tests.unit.stepfunctions_site import ROLE, ROOT, Functions, Site, site

PASS = {"StartAt": "P", "States": {"P": {"Type": "Pass", "End": True}}}
WAIT = {"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 3600, "End": True}}}
INVOKE = "arn:aws:states:::lambda:invoke"


def task(resource: str, parameters: Any = None, **more: Any) -> dict[str, Any]:
    state = {"Type": "Task", "Resource": resource, "End": True, **more}
    if parameters is not None:
        state["Parameters"] = parameters
    return {"StartAt": "T", "States": {"T": state}}


def put(name: str = "x", **more: Any) -> dict[str, Any]:
    return {"TableName": "t", "Item": {"name": {"S": name}}, **more}


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path) as opened:
        yield opened


async def refused(awaitable: Any) -> AwsError:
    with pytest.raises(AwsError) as caught:
        await awaitable
    return caught.value


# ── state machines ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_creating_the_same_machine_again_answers_the_same(here: Site) -> None:
    first = await here.create("m", PASS)
    assert first == "arn:aws:states:us-east-1:111111111111:stateMachine:m" == await here.create("m", PASS)
    error = await refused(here.create("m", WAIT))
    assert (type(error).code, error.message) == (
        "StateMachineAlreadyExists",
        f"State Machine Already Exists: '{first}'",
    )


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"name": "a b"}, "InvalidName"),
        ({"name": "a" * 81}, "InvalidName"),
        ({"name": "a/b"}, "InvalidName"),
        ({"roleArn": "nobody"}, "InvalidArn"),
        ({"roleArn": "arn:aws:s3:::bucket"}, "InvalidArn"),
        ({"definition": "{"}, "InvalidDefinition"),
        ({"definition": json.dumps({"StartAt": "X", "States": {}})}, "InvalidDefinition"),
        ({"definition": json.dumps(task("arn:aws:states:::aws-sdk:s3:noSuchThing"))}, "InvalidDefinition"),
        ({"definition": json.dumps(task("arn:aws:states:::aws-sdk:nosuchservice:get"))}, "InvalidDefinition"),
        ({"type": "FAST"}, "StateMachineTypeNotSupported"),
        ({"versionDescription": "x"}, "ValidationException"),
        ({"loggingConfiguration": {"level": "LOUD"}}, "InvalidLoggingConfiguration"),
        ({"loggingConfiguration": {"level": "ALL"}}, "InvalidLoggingConfiguration"),
        ({"name": "a\ud800"}, "InvalidName"),
        ({"name": "a\u00a0b"}, "InvalidName"),
        ({"tags": [{"key": str(n), "value": ""} for n in range(51)]}, "TooManyTags"),
    ],
)
async def test_a_machine_that_is_refused_leaves_nothing(here: Site, change: dict[str, Any], code: str) -> None:
    request = {"name": "m", "definition": json.dumps(PASS), "roleArn": ROLE, **change}
    assert type(await refused(here.call("CreateStateMachine", **request))).code == code
    assert (await here.call("ListStateMachines"))["stateMachines"] == []


async def test_a_description_tells_of_variables(here: Site) -> None:
    state = {"Type": "Pass", "Assign": {"a": 1}, "Next": "Q"}
    used = {"Type": "Pass", "OutputPath": "$a", "End": True}
    arn = await here.create("m", {"StartAt": "P", "States": {"P": state, "Q": used}})
    assert (await here.call("DescribeStateMachine", stateMachineArn=arn))["variableReferences"] == {"Q": ["a"]}
    brief = await here.call("DescribeStateMachine", stateMachineArn=arn, includedData="METADATA_ONLY")
    assert brief["definition"] == "{}" and "variableReferences" not in brief


async def test_an_update_is_for_executions_that_start_later(here: Site) -> None:
    arn = await here.create("m", WAIT)
    running = await here.begin(arn)
    assert "revisionId" not in await here.call("DescribeStateMachine", stateMachineArn=arn)
    updated = await here.call("UpdateStateMachine", stateMachineArn=arn, definition=json.dumps(PASS))
    assert updated["revisionId"] == (await here.call("DescribeStateMachine", stateMachineArn=arn))["revisionId"]
    assert (await here.ended(await here.begin(arn)))["status"] == "SUCCEEDED"
    assert (await here.call("DescribeExecution", executionArn=running))["status"] == "RUNNING"
    old = await here.call("DescribeStateMachineForExecution", executionArn=running)
    assert json.loads(old["definition"]) == WAIT
    again = await here.call("UpdateStateMachine", stateMachineArn=arn, definition=json.dumps(PASS))
    assert again["revisionId"] == updated["revisionId"]


async def test_a_deleted_machine_is_gone_and_its_executions_stay(here: Site) -> None:
    arn = await here.create("m", PASS)
    execution = await here.begin(arn)
    await here.ended(execution)
    await here.call("DeleteStateMachine", stateMachineArn=arn)
    await here.call("DeleteStateMachine", stateMachineArn=arn)
    assert type(await refused(here.begin(arn))).code == "StateMachineDoesNotExist"
    assert (await here.call("DescribeExecution", executionArn=execution))["status"] == "SUCCEEDED"
    assert await here.create("m", WAIT) == arn


async def test_machines_are_listed_in_pages(here: Site) -> None:
    for number in range(5):
        await here.create(f"m{number}", PASS)
    names, more = [], {}
    while True:
        page = await here.call("ListStateMachines", maxResults=2, **more)
        names += [machine["name"] for machine in page["stateMachines"]]
        if "nextToken" not in page:
            break
        more = {"nextToken": page["nextToken"]}
    assert names == [f"m{number}" for number in range(5)]
    assert type(await refused(here.call("ListStateMachines", nextToken="bm8="))).code == "InvalidToken"


async def test_validation_says_what_is_wrong(here: Site) -> None:
    assert (await here.call("ValidateStateMachineDefinition", definition=json.dumps(PASS)))["result"] == "OK"
    found = await here.call("ValidateStateMachineDefinition", definition=json.dumps({"StartAt": "A", "States": {}}))
    assert found["result"] == "FAIL" and found["diagnostics"][0]["severity"] == "ERROR"


async def test_tags(here: Site) -> None:
    arn = await here.create("m", PASS, tags=[{"key": "a", "value": "1"}])
    await here.call("TagResource", resourceArn=arn, tags=[{"key": "b", "value": "2"}])
    await here.call("UntagResource", resourceArn=arn, tagKeys=["a"])
    assert (await here.call("ListTagsForResource", resourceArn=arn))["tags"] == [{"key": "b", "value": "2"}]


async def test_permissions_are_iams(here: Site) -> None:
    arn = await here.create("m", PASS)
    here.denied.add("states:StartExecution")
    error = await refused(here.begin(arn))
    assert isinstance(error, AccessDeniedError) and f"states:StartExecution on resource: {arn}" in error.message


# ── executions ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_name_starts_one_execution(here: Site) -> None:
    arn = await here.create("m", WAIT)
    first = await here.begin(arn, {"a": 1}, "once")
    assert await here.begin(arn, {"a": 1}, "once") == first
    assert type(await refused(here.begin(arn, {"a": 2}, "once"))).code == "ExecutionAlreadyExists"
    await here.call("StopExecution", executionArn=first)
    error = await refused(here.begin(arn, {"a": 1}, "once"))
    assert error.message == f"Execution Already Exists: '{first}'"
    assert [change.status for change in here.changes] == ["RUNNING", "ABORTED"]


@pytest.mark.parametrize("text", ["{", "", "NaN", '"\\ud800"', "[" * 5_000 + "]" * 5_000, '"' + "a" * 262_144 + '"'])
async def test_input_that_is_not_json_is_refused_or_survives(here: Site, text: str) -> None:
    arn = await here.create("m", PASS)
    try:
        started = await here.call("StartExecution", stateMachineArn=arn, input=text)
    except AwsError as error:
        assert type(error).code == "InvalidExecutionInput"
    else:
        execution = await here.ended(started["executionArn"])
        assert execution["status"] == "SUCCEEDED" and json.loads(execution["output"]) == json.loads(text)


@pytest.mark.parametrize(
    ("arn", "code"),
    [
        ("arn:aws:states:us-east-1:111111111111:execution:m:none", "ExecutionDoesNotExist"),
        ("arn:aws:states:us-east-1:111111111111:stateMachine:m", "InvalidArn"),
        ("nonsense", "InvalidArn"),
    ],
)
async def test_an_execution_that_is_not_there(here: Site, arn: str, code: str) -> None:
    assert type(await refused(here.call("DescribeExecution", executionArn=arn))).code == code
    assert type(await refused(here.call("GetExecutionHistory", executionArn=arn))).code == code


async def test_describe_tells_input_output_and_times(here: Site) -> None:
    execution, events = await here.run(PASS, {"key": "Grüße.csv"})
    assert (execution["input"], execution["output"]) == ('{"key": "Gr\\u00fc\\u00dfe.csv"}', '{"key":"Grüße.csv"}')
    assert execution["startDate"] <= execution["stopDate"] <= datetime.now(UTC)
    assert execution["redriveStatus"] == "NOT_REDRIVABLE"
    assert execution["redriveStatusReason"] == "Execution is SUCCEEDED and cannot be redriven."
    assert events[0]["executionStartedEventDetails"] == {
        "input": execution["input"],
        "inputDetails": {"truncated": False},
        "roleArn": ROLE,
    }
    assert events[1]["previousEventId"] == 0
    assert events[-1]["executionSucceededEventDetails"]["output"] == execution["output"]


async def test_executions_are_listed_by_status_newest_first(here: Site) -> None:
    choice = {
        "StartAt": "C",
        "States": {
            "C": {"Type": "Choice", "Choices": [{"Variable": "$", "BooleanEquals": True, "Next": "S"}], "Default": "F"},
            "S": {"Type": "Succeed"},
            "F": {"Type": "Fail", "Error": "No"},
        },
    }
    arn = await here.create("m", choice)
    begun = [await here.begin(arn, number % 2 == 0) for number in range(6)]
    for execution in begun:
        await here.ended(execution)
    listed = (await here.call("ListExecutions", stateMachineArn=arn))["executions"]
    assert [entry["executionArn"] for entry in listed] == begun[::-1]
    failed = await here.call("ListExecutions", stateMachineArn=arn, statusFilter="FAILED", maxResults=2)
    rest = await here.call(
        "ListExecutions", stateMachineArn=arn, statusFilter="FAILED", maxResults=2, nextToken=failed["nextToken"]
    )
    assert [entry["executionArn"] for entry in failed["executions"] + rest["executions"]] == begun[1::2][::-1]
    assert "nextToken" not in rest


async def test_history_in_pages_both_ways_and_without_data(here: Site) -> None:
    _, events = await here.run(
        {"StartAt": "A", "States": {"A": {"Type": "Pass", "Next": "B"}, "B": {"Type": "Succeed"}}}
    )
    arn = (await here.call("ListExecutions", stateMachineArn=await here.create("m", {
        "StartAt": "A", "States": {"A": {"Type": "Pass", "Next": "B"}, "B": {"Type": "Succeed"}}})))["executions"][0][
        "executionArn"]  # fmt: skip
    found, more = [], {}
    while True:
        page = await here.call("GetExecutionHistory", executionArn=arn, maxResults=2, reverseOrder=True, **more)
        found += page["events"]
        if "nextToken" not in page:
            break
        more = {"nextToken": page["nextToken"]}
    assert found == events[::-1]
    bare = await here.call("GetExecutionHistory", executionArn=arn, includeExecutionData=False)
    assert bare["events"][1]["stateEnteredEventDetails"] == {"name": "A"}


async def test_a_long_history_is_kept_in_parts(here: Site) -> None:
    states: dict[str, Any] = {
        f"S{number}": {"Type": "Pass", "Result": "x" * 900 + str(number), "Next": f"S{number + 1}"}
        for number in range(120)
    }
    states["S120"] = {"Type": "Wait", "Seconds": 1, "Next": "S121"}
    states["S121"] = {"Type": "Pass", "End": True}
    execution, events = await here.run({"StartAt": "S0", "States": states})
    parts = await here.database.read(lambda reader: reader.one("SELECT COUNT(*) FROM execution_history"))
    assert parts is not None and parts[0] >= 1
    assert [event["id"] for event in events] == list(range(1, 2 * 122 + 3))
    assert json.loads(execution["output"]) == "x" * 900 + "119"
    page = await here.call("GetExecutionHistory", executionArn=execution["executionArn"], maxResults=1000)
    tail = await here.call(
        "GetExecutionHistory", executionArn=execution["executionArn"], maxResults=3, nextToken="MjQw"
    )  # after event 240
    assert tail["events"] == page["events"][240:243]


async def test_stopping_ends_an_execution_and_its_tasks(here: Site) -> None:
    cancelled = asyncio.Event()

    async def hang(event: Any) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            cancelled.set()

    here.functions.handlers["hang"] = hang
    arn = await here.begin(await here.create("m", task(INVOKE, {"FunctionName": "hang", "Payload": {}})))
    while not here.functions.invoked:
        await asyncio.sleep(0.01)
    await here.call("StopExecution", executionArn=arn, error="Enough", cause="because")
    await asyncio.wait_for(cancelled.wait(), 5)
    execution = await here.ended(arn)
    assert (execution["status"], execution["error"], execution["cause"]) == ("ABORTED", "Enough", "because")
    assert await here.event_types(arn) == [
        "ExecutionStarted", "TaskStateEntered", "TaskScheduled", "TaskStarted", "ExecutionAborted",
    ]  # fmt: skip


async def test_a_machine_times_out(here: Site) -> None:
    execution, events = await here.run({**WAIT, "TimeoutSeconds": 1})
    assert (execution["status"], execution["error"]) == ("TIMED_OUT", "States.Timeout")
    assert events[-1]["type"] == "ExecutionTimedOut"


# ── tasks ────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_task_on_this_ledger_commits_with_its_state(here: Site) -> None:
    execution, events = await here.run(task("arn:aws:states:::dynamodb:putItem", put()))
    assert execution["status"] == "SUCCEEDED"
    rows = await here.database.read(lambda reader: reader.one("SELECT version FROM execution"))
    assert rows == (1,), "one transaction from start to end"
    assert events[2]["taskScheduledEventDetails"] == {
        "resourceType": "dynamodb",
        "resource": "putItem",
        "region": "us-east-1",
        "parameters": '{"TableName":"t","Item":{"name":{"S":"x"}}}',
    }
    output = json.loads(execution["output"])
    assert output["SdkHttpMetadata"]["HttpStatusCode"] == 200 and "RequestId" in output["SdkResponseMetadata"]


@pytest.mark.parametrize(
    ("resource", "error", "cause"),
    [
        (
            "arn:aws:states:::dynamodb:putItem",
            "DynamoDB.ConditionalCheckFailedException",
            "The conditional request failed (Service: AmazonDynamoDBv2; Status Code: 400; "
            "Error Code: ConditionalCheckFailedException; Request ID: ",
        ),
        (
            "arn:aws:states:::aws-sdk:dynamodb:putItem",
            "DynamoDb.ConditionalCheckFailedException",
            "The conditional request failed (Service: DynamoDb, Status Code: 400, Request ID: ",
        ),
    ],
)
async def test_a_failed_task_leaves_no_effect(here: Site, resource: str, error: str, cause: str) -> None:
    execution, _ = await here.run(task(resource, put(ConditionExpression="attribute_not_exists(name)")))
    assert execution["error"] == error and execution["cause"].startswith(cause)
    assert await here.database.read(lambda reader: reader.all("SELECT * FROM item")) == []


async def test_a_task_without_permission_fails(here: Site) -> None:
    here.denied.add("dynamodb:PutItem")
    execution, _ = await here.run(task("arn:aws:states:::aws-sdk:dynamodb:putItem", put()))
    assert execution["error"] == "DynamoDb.DynamoDbException"
    assert "is not authorized to perform: dynamodb:PutItem" in execution["cause"]


async def test_parameters_that_do_not_fit_fail_the_execution(here: Site) -> None:
    definition = task(
        "arn:aws:states:::aws-sdk:dynamodb:putItem",
        put(Nonsense=1),
        Catch=[{"ErrorEquals": ["States.ALL"], "Next": "T"}],
    )
    execution, _ = await here.run(definition)
    assert execution["error"] == "States.Runtime" and "'Nonsense' is not supported" in execution["cause"]


async def test_sdk_members_are_pascal_case_both_ways(here: Site) -> None:
    inner = await here.create("inner", PASS)
    execution, _ = await here.run(
        task("arn:aws:states:::aws-sdk:sfn:startExecution", {"StateMachineArn": inner, "Name": "n", "Input": {"a": 1}})
    )
    started = json.loads(execution["output"])
    assert started["ExecutionArn"] == "arn:aws:states:us-east-1:111111111111:execution:inner:n"
    assert started["StartDate"].endswith("Z")
    assert json.loads((await here.ended(started["ExecutionArn"]))["output"]) == {"a": 1}


async def test_a_machine_that_starts_itself_does_not_eat_the_stack(here: Site) -> None:
    arn = "arn:aws:states:us-east-1:111111111111:stateMachine:self"
    await here.create("self", task("arn:aws:states:::aws-sdk:sfn:startExecution", {"StateMachineArn": arn}))
    first = await here.begin(arn)
    assert (await here.ended(first))["status"] == "SUCCEEDED"
    await here.call("DeleteStateMachine", stateMachineArn=arn)
    while not any(change.status == "FAILED" for change in here.changes):
        await asyncio.sleep(0.01)


async def test_a_function_that_reports_garbage(here: Site) -> None:
    here.functions.handlers["garbage"] = lambda event: b"not json"
    execution, _ = await here.run(task(INVOKE, {"FunctionName": "garbage", "Payload": {}}))
    assert execution["error"] == "Lambda.Unknown"


async def test_the_request_id_of_a_task_is_the_same_after_a_restart(tmp_path: Path) -> None:
    functions = Functions()
    functions.handlers["hang"] = lambda event: asyncio.sleep(3600)
    async with site(tmp_path, functions) as before:
        arn = await before.begin(await before.create("m", task(INVOKE, {"FunctionName": "hang", "Payload": [1]})))
        while not functions.invoked:
            await asyncio.sleep(0.01)
    functions.handlers["hang"] = lambda event: event
    async with site(tmp_path, functions) as after:
        execution = await after.ended(arn)
        types = await after.event_types(arn)
    assert functions.invoked[0] == functions.invoked[1], "the same function, payload and request id"
    assert types.count("TaskScheduled") == 1
    assert json.loads(execution["output"])["Payload"] == [1]


# ── redrive ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_redrive_goes_on_from_what_failed(here: Site) -> None:
    broken = True

    def flaky(event: Any) -> Any:
        if broken and event == 2:
            raise ValueError("two")
        return event

    here.functions.handlers["flaky"] = flaky
    each = task("arn:aws:lambda:us-east-1:111111111111:function:flaky")
    definition = {
        "StartAt": "Put",
        "States": {
            "Put": {
                "Type": "Task",
                "Resource": "arn:aws:states:::dynamodb:putItem",
                "Parameters": put("redriven"),
                "ResultPath": None,
                "Next": "M",
            },
            "M": {"Type": "Map", "MaxConcurrency": 1, "ItemProcessor": each, "End": True},
        },
    }
    execution, _ = await here.run(definition, [1, 2, 3])
    assert (execution["status"], execution["redriveStatus"]) == ("FAILED", "REDRIVABLE")
    broken = False
    arn = execution["executionArn"]
    await here.call("RedriveExecution", executionArn=arn)
    execution = await here.ended(arn)
    assert (execution["status"], json.loads(execution["output"])) == ("SUCCEEDED", [1, 2, 3])
    assert execution["redriveCount"] == 1 and execution["redriveDate"] >= execution["startDate"]
    assert [event for _, event, _ in here.functions.invoked] == [1, 2, 2, 3]
    assert await here.database.read(lambda reader: reader.one("SELECT writes FROM item")) == (1,)
    events = await here.history(arn)
    assert [event["id"] for event in events] == list(range(1, len(events) + 1))
    redriven = next(event for event in events if event["type"] == "ExecutionRedriven")
    assert redriven["executionRedrivenEventDetails"] == {"redriveCount": 1}
    assert [change.status for change in here.changes] == ["RUNNING", "FAILED", "RUNNING", "SUCCEEDED"]
    error = await refused(here.call("RedriveExecution", executionArn=arn))
    assert (type(error).code, error.message) == (
        "ExecutionNotRedrivable",
        "Execution is SUCCEEDED and cannot be redriven.",
    )


async def test_a_stopped_wait_is_redriven(here: Site) -> None:
    arn = await here.begin(
        await here.create("m", {"StartAt": "W", "States": {"W": {**WAIT["States"]["W"], "Seconds": 1}}})
    )  # type: ignore[index]
    await here.call("StopExecution", executionArn=arn)
    await here.call("RedriveExecution", executionArn=arn)
    assert (await here.ended(arn))["status"] == "SUCCEEDED"
    assert await here.event_types(arn) == [
        "ExecutionStarted", "WaitStateEntered", "ExecutionAborted", "ExecutionRedriven", "WaitStateExited",
        "ExecutionSucceeded",
    ]  # fmt: skip


# ── what is written besides ──────────────────────────────────────────────────────────────────────────────────────────


async def test_log_lines_have_awss_shape_and_level(here: Site) -> None:
    group = arns.Account("111111111111").arn("logs", "log-group:/aws/vendedlogs/states/mine:*")
    destination = {"cloudWatchLogsLogGroup": {"logGroupArn": group}}
    logging = {"level": "ALL", "includeExecutionData": False, "destinations": [destination]}
    await here.ended(await here.begin(await here.create("all", PASS, loggingConfiguration=logging)))
    assert {line[0] for line in here.lines} == {"/aws/vendedlogs/states/mine"}
    entered = json.loads(here.lines[1][2].message)
    assert entered["type"] == "PassStateEntered" and entered["details"] == {"name": "P"}
    assert (entered["id"], entered["previous_event_id"], entered["redrive_count"]) == ("2", "0", "0")
    here.lines.clear()
    failing = {"StartAt": "F", "States": {"F": {"Type": "Fail", "Error": "E", "Cause": "C"}}}
    for level, types in (
        ("FATAL", ["ExecutionFailed"]),
        ("ERROR", ["FailStateEntered", "ExecutionFailed"]),
        ("OFF", []),
    ):
        logging = {"level": level, "destinations": [destination]}
        await here.ended(await here.begin(await here.create(level, failing, loggingConfiguration=logging)))
        assert [json.loads(line[2].message)["type"] for line in here.lines] == types
        here.lines.clear()


async def test_start_execution_inside_another_transaction_is_undone_with_it(here: Site) -> None:
    arn = await here.create("m", task("arn:aws:states:::dynamodb:putItem", put()))

    def work(tx: Any) -> None:
        here.operations.transact(tx, "stepfunctions", "StartExecution", {"stateMachineArn": arn}, ROOT)
        raise ValueError("the delivery failed")

    with pytest.raises(ValueError, match="the delivery failed"):
        await here.database.write(work)
    assert (await here.call("ListExecutions", stateMachineArn=arn))["executions"] == []
    assert await here.database.read(lambda reader: reader.all("SELECT * FROM item")) == []


async def test_many_executions_of_one_machine_do_not_keep_another_waiting(here: Site) -> None:
    gate = asyncio.Event()

    async def wait(event: Any) -> None:
        await gate.wait()

    here.functions.handlers |= {"wait": wait, "quick": lambda event: "quick"}
    busy = await here.create("busy", task(INVOKE, {"FunctionName": "wait", "Payload": {}}))
    quick = await here.create("quick", task(INVOKE, {"FunctionName": "quick", "Payload": {}}))
    many = [await here.begin(busy) for _ in range(300)]
    while len(here.functions.invoked) < 256:
        await asyncio.sleep(0.01)
    behind = await here.begin(quick)
    gate.set()
    await here.ended(behind)
    for arn in many:
        assert (await here.ended(arn))["status"] == "SUCCEEDED"
    names = [name for name, _, _ in here.functions.invoked]
    assert names.index("quick") < 270, "it came up before the queue of the other machine was empty"


async def test_an_express_machine_may_use_a_name_twice(here: Site) -> None:
    arn = await here.create("fast", PASS, "EXPRESS")
    first, second = await here.begin(arn, name="n"), await here.begin(arn, name="n")
    assert first != second and ":express:fast:n:" in first
    assert (await here.ended(second))["status"] == "SUCCEEDED"


async def test_the_api_tells_nothing_of_express_executions(here: Site) -> None:
    group = {"logGroupArn": "arn:aws:logs:us-east-1:111111111111:log-group:express:*"}
    logging = {"level": "ALL", "includeExecutionData": True, "destinations": [{"cloudWatchLogsLogGroup": group}]}
    machine = await here.create("fast", PASS, "EXPRESS", loggingConfiguration=logging)
    arn = await here.begin(machine, {"a": 1})
    await here.ended(arn)
    for operation in (
        "DescribeExecution",
        "GetExecutionHistory",
        "StopExecution",
        "RedriveExecution",
        "DescribeStateMachineForExecution",
    ):
        error = await refused(here.call(operation, executionArn=arn))
        assert (type(error).code, error.message) == (
            "InvalidArn",
            "Invalid Arn: 'Resource type not valid in this context: express'",
        )
    error = await refused(here.call("ListExecutions", stateMachineArn=machine))
    assert type(error).code == "StateMachineTypeNotSupported"
    told = [json.loads(line.message) for group, _, line in here.lines if group == "express"]
    assert [line["type"] for line in told] == await here.event_types(arn)
    assert {line["execution_arn"] for line in told} == {arn}
    assert json.loads(told[0]["details"]["input"]) == {"a": 1}
