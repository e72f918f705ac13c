"""TestState beyond what was recorded: real calls, waiting, Maps with readers and batchers, what is refused."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from entrepot.errors import AwsError
from entrepot.services.stepfunctions.language import InvalidDefinition
from entrepot.services.stepfunctions.language.parse import parse_state
from tests.unit.stepfunctions_site import ROLE, Functions, Site, site

FUNCTION = "arn:aws:lambda:us-east-1:111111111111:function:f"


@pytest_asyncio.fixture
async def here(tmp_path: Path) -> AsyncIterator[Site]:
    functions = Functions()
    functions.handlers["f"] = lambda event: {"got": event}
    async with site(tmp_path, functions) as opened:
        yield opened


async def tried(here: Site, state: dict[str, Any], input_: Any = None, **more: Any) -> dict[str, Any]:
    given = {"definition": json.dumps(state), "input": json.dumps({} if input_ is None else input_), **more}
    answer = await here.call("TestState", **given)
    for name in ("output", "inspectionData"):
        if name in answer:
            found = answer[name]
            answer[name] = json.loads(found) if isinstance(found, str) else found
    return answer


async def refused(here: Site, state: dict[str, Any], **more: Any) -> tuple[str, str]:
    with pytest.raises(AwsError) as caught:
        await tried(here, state, **more)
    return type(caught.value).code, caught.value.message


async def test_a_function_is_called(here: Site) -> None:
    state = {"Type": "Task", "Resource": FUNCTION, "ResultPath": "$.r", "Next": "N"}
    answer = await tried(here, state, {"a": 1}, roleArn=ROLE)
    assert answer == {"status": "SUCCEEDED", "output": {"a": 1, "r": {"got": {"a": 1}}}, "nextState": "N"}


async def test_an_operation_of_the_ledger_is_called_as_the_role(here: Site) -> None:
    item = {"TableName": "t", "Item": {"name": {"S": "x"}}}
    state = {"Type": "Task", "Resource": "arn:aws:states:::dynamodb:putItem", "Parameters": item, "End": True}
    assert (await tried(here, state, roleArn=ROLE))["status"] == "SUCCEEDED"
    assert await here.database.read(lambda reader: reader.all("SELECT name, writes FROM item")) == [("x", 1)]
    here.denied.add("dynamodb:PutItem")
    answer = await tried(here, state, roleArn=ROLE)
    assert answer["status"] == "FAILED" and "not authorized" in answer["cause"]


async def test_a_failure_is_retried_and_then_caught(here: Site) -> None:
    def broken(event: Any) -> Any:
        raise ValueError("no")

    here.functions.handlers["f"] = broken
    state = {
        "Type": "Task",
        "Resource": FUNCTION,
        "Retry": [{"ErrorEquals": ["ValueError"], "IntervalSeconds": 3, "BackoffRate": 2, "MaxAttempts": 2}],
        "Catch": [{"ErrorEquals": ["States.ALL"], "ResultPath": "$.e", "Next": "C"}],
        "End": True,
    }
    asked = {"roleArn": ROLE, "inspectionLevel": "DEBUG"}
    answer = await tried(here, state, stateConfiguration={"retrierRetryCount": 1}, **asked)
    assert answer["status"] == "RETRIABLE" and "output" not in answer
    assert answer["inspectionData"]["errorDetails"] == {"retryIndex": 0, "retryBackoffIntervalSeconds": 6}
    answer = await tried(here, state, {"a": 1}, stateConfiguration={"retrierRetryCount": 2}, **asked)
    assert (answer["status"], answer["nextState"], answer["error"]) == ("CAUGHT_ERROR", "C", "ValueError")
    assert answer["output"]["a"] == 1 and answer["output"]["e"]["Error"] == "ValueError"
    assert answer["inspectionData"]["errorDetails"] == {"retryIndex": 0, "catchIndex": 0}


async def test_a_wait_waits(here: Site) -> None:
    state = {"Type": "Wait", "SecondsPath": "$.s", "End": True}
    answer = await tried(here, state, {"s": 0}, inspectionLevel="TRACE")
    assert (answer["status"], answer["output"]) == ("SUCCEEDED", {"s": 0})
    failed = await tried(here, state, {"s": "x"})
    assert failed["status"] == "FAILED" and failed["error"] == "States.Runtime"


async def test_variables_are_assigned(here: Site) -> None:
    state = {"Type": "Pass", "Assign": {"b.$": "$.x", "c.$": "$a"}, "End": True}
    answer = await tried(here, state, {"x": 2}, variables='{"a": 1}', inspectionLevel="DEBUG")
    assert json.loads(answer["inspectionData"]["variables"]) == {"a": 1, "b": 2, "c": 1}


def mapped(**more: Any) -> dict[str, Any]:
    processor = {
        "ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"},
        "StartAt": "P",
        "States": {"P": {"Type": "Pass", "End": True}},
    }
    return {"Type": "Map", "ItemProcessor": processor, "End": True, **more}


def reading(**config: Any) -> dict[str, Any]:
    parameters = {"Bucket": "b", "Key": "k"}
    return {"Resource": "arn:aws:states:::s3:getObject", "ReaderConfig": config, "Parameters": parameters}


@pytest.mark.parametrize(
    ("config", "data", "items"),
    [
        ({"InputType": "JSON"}, '[1, {"a": 2}]', [1, {"a": 2}]),
        ({"InputType": "JSONL"}, '1\n{"a": 2}\n', [1, {"a": 2}]),
        (
            {"InputType": "CSV", "CSVHeaderLocation": "FIRST_ROW"},
            "a,b\n1,x\n2,y\n",
            [{"a": "1", "b": "x"}, {"a": "2", "b": "y"}],
        ),
        ({"InputType": "JSON", "MaxItems": 1}, "[1, 2]", [1]),
    ],
)
async def test_what_a_reader_reads(here: Site, config: dict[str, Any], data: str, items: list[Any]) -> None:
    selector = {"v.$": "$$.Map.Item.Value", "i.$": "$$.Map.Item.Index"}
    state = mapped(ItemReader=reading(**config), ItemSelector=selector, ItemBatcher={"MaxItemsPerBatch": 1})
    answer = await tried(
        here, state, mock={"result": "[0]"}, stateConfiguration={"mapItemReaderData": data}, inspectionLevel="TRACE"
    )
    chosen = [{"v": item, "i": index} for index, item in enumerate(items)]
    told = answer["inspectionData"]
    assert (answer["status"], answer["output"]) == ("SUCCEEDED", [0])
    assert json.loads(told["afterItemSelector"]) == chosen
    assert json.loads(told["afterItemBatcher"]) == [{"Items": [item]} for item in chosen]


async def test_results_that_are_written_are_told_as_an_object(here: Site) -> None:
    writer = {"Resource": "arn:aws:states:::s3:putObject", "Parameters": {"Bucket": "b", "Prefix": "p"}}
    state = mapped(ItemsPath="$.items", ResultWriter=writer)
    answer = await tried(here, state, {"items": [1]}, mock={"result": '{"MapRunArn": "m"}'})
    assert (answer["status"], answer["output"]) == ("SUCCEEDED", {"MapRunArn": "m"})
    assert (await refused(here, state, input_={"items": [1]}, mock={"result": "[1]"}))[0] == "ValidationException"


async def test_data_that_the_reader_cannot_read(here: Site) -> None:
    state = mapped(ItemReader=reading(InputType="JSON"))
    answer = await tried(here, state, mock={"result": "[]"}, stateConfiguration={"mapItemReaderData": "{"})
    assert (answer["status"], answer["error"]) == ("FAILED", "States.ItemReaderFailed")


@pytest.mark.parametrize(
    ("state", "more", "code"),
    [
        ({"Type": "Pass", "End": True}, {"stateName": "X"}, "InvalidDefinition"),
        ({"StartAt": "A", "States": {"A": {"Type": "Succeed"}}}, {"stateName": "X"}, "ValidationException"),
        ({"Type": "Task", "Resource": FUNCTION, "End": True}, {}, "InvalidArn"),
        ({"Type": "Task", "Resource": FUNCTION, "End": True}, {"roleArn": "x"}, "InvalidArn"),
        ({"Type": "Succeed"}, {"context": "{}"}, "ValidationException"),
        ({"Type": "Succeed"}, {"variables": "[]"}, "ValidationException"),
        ({"Type": "Task", "Resource": FUNCTION, "End": True}, {"mock": {}}, "ValidationException"),
        ({"Type": "Task", "Resource": FUNCTION, "End": True}, {"mock": {"result": "{"}}, "ValidationException"),
        (
            {"Type": "Task", "Resource": FUNCTION, "End": True},
            {"mock": {"result": "1", "errorOutput": {"error": "E"}}},
            "ValidationException",
        ),
        (
            {"Type": "Task", "Resource": "arn:aws:states:::sqs:sendMessage.waitForTaskToken", "End": True},
            {"roleArn": ROLE},
            "InvalidDefinition",
        ),
        (
            mapped(),
            {"mock": {"errorOutput": {"error": "E"}}, "stateConfiguration": {"errorCausedByState": "Q"}},
            "ValidationException",
        ),
    ],
)
async def test_what_is_refused(here: Site, state: dict[str, Any], more: dict[str, Any], code: str) -> None:
    assert (await refused(here, state, **more))[0] == code


async def test_input_that_is_no_json(here: Site) -> None:
    with pytest.raises(AwsError) as caught:
        await here.call("TestState", definition='{"Type": "Succeed"}', input="{")
    assert type(caught.value).code == "InvalidExecutionInput"


async def test_required_members_of_a_mocked_result(here: Site) -> None:
    resource = "arn:aws:states:::states:startExecution"
    state = {"Type": "Task", "Resource": resource, "Parameters": {"StateMachineArn": "m"}, "End": True}
    assert (await refused(here, state, mock={"result": "{}"}))[0] == "ValidationException"
    for mode in ("PRESENT", "NONE"):
        answer = await tried(here, state, mock={"result": "{}", "fieldValidationMode": mode})
        assert answer["status"] == "SUCCEEDED"
    wrong = '{"ExecutionArn": 1}'
    assert (await refused(here, state, mock={"result": wrong, "fieldValidationMode": "PRESENT"}))[1].endswith(
        "Field 'ExecutionArn' must be a string"
    )


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["Type", "Resource", "Next", "End", "Branches", "Choices", "Retry"]), _JSON))
def test_any_json_is_a_state_or_refused(source: dict[str, Any]) -> None:
    for type_ in ("Task", "Pass", "Map", "Parallel", "Choice", "Wait", "Fail", "Succeed"):
        try:
            state = parse_state(json.dumps({**source, "Type": type_}))
        except InvalidDefinition:
            continue
        assert state.name == "StateName"
