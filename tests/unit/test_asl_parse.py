"""Reading definitions: what comes out, and what is refused in which words."""

import contextlib
import copy
import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entrepot.services.stepfunctions.language import (
    InvalidDefinition,
    Scope,
    StateMachine,
    StatesError,
    UnsupportedFeature,
    error_matches,
    parse,
    validate,
)
from entrepot.services.stepfunctions.language.definition import (
    Choice,
    Fail,
    Integration,
    Map,
    Parallel,
    Pass,
    Task,
    Wait,
)

FUNCTION = "arn:aws:lambda:us-east-1:123456789012:function:f"


def machine(**states: Any) -> dict[str, Any]:
    return {"StartAt": next(iter(states)), "States": states}


def one(**state: Any) -> dict[str, Any]:
    return machine(S={"End": True, **state})


def read(definition: dict[str, Any]) -> StateMachine:
    return parse(json.dumps(definition))


def problems(definition: Any, express: bool = False) -> list[str]:
    return [str(diagnostic) for diagnostic in validate(json.dumps(definition), express)]


def task(**fields: Any) -> dict[str, Any]:
    return one(Type="Task", Resource=FUNCTION, **fields)


def inner(name: str = "I") -> dict[str, Any]:
    return machine(**{name: {"Type": "Pass", "End": True}})


def test_everything_is_read() -> None:
    definition = {
        "Comment": "c",
        "Version": "1.0",
        "TimeoutSeconds": 60,
        "StartAt": "T",
        "States": {
            "T": {
                "Type": "Task",
                "Comment": "t",
                "Resource": "arn:aws:states:::aws-sdk:s3:copyObject",
                "InputPath": "$.a",
                "OutputPath": None,
                "ResultPath": "$.r",
                "Parameters": {"Bucket.$": "$.b"},
                "ResultSelector": {"x.$": "$.y"},
                "TimeoutSeconds": 10,
                "HeartbeatSecondsPath": "$.h",
                "Credentials": {"RoleArn": "arn:aws:iam::1:role/r"},
                "Retry": [
                    {
                        "ErrorEquals": ["A", "B"],
                        "IntervalSeconds": 2,
                        "MaxAttempts": 0,
                        "BackoffRate": 1.5,
                        "MaxDelaySeconds": 9,
                        "JitterStrategy": "FULL",
                    },
                    {"ErrorEquals": ["States.ALL"]},
                ],
                "Catch": [
                    {"ErrorEquals": ["States.ALL"], "Next": "F", "ResultPath": None, "Assign": {"e.$": "$.Error"}}
                ],
                "Assign": {"v": 1},
                "Next": "M",
            },
            "M": {
                "Type": "Map",
                "ItemsPath": "$.items",
                "ItemSelector": {"i.$": "$$.Map.Item.Index"},
                "MaxConcurrency": 3,
                "ItemProcessor": {"ProcessorConfig": {"Mode": "INLINE"}, **inner("MI")},
                "Next": "P",
            },
            "P": {"Type": "Parallel", "Branches": [inner("P1"), inner("P2")], "Next": "C"},
            "C": {"Type": "Choice", "Choices": [{"Variable": "$.x", "IsNull": True, "Next": "W"}], "Default": "F"},
            "W": {"Type": "Wait", "TimestampPath": "$.t", "End": True},
            "F": {"Type": "Fail", "ErrorPath": "States.Format('{}', $.e)", "Cause": "c"},
        },
    }
    parsed = read(definition)
    assert (parsed.comment, parsed.version, parsed.timeout_s, parsed.start_at) == ("c", "1.0", 60, "T")
    states = parsed.states
    first = states["T"]
    assert isinstance(first, Task)
    assert first.resource.integration is Integration.AWS_SDK
    assert (first.resource.service, first.resource.action, first.resource.resource_type) == (
        "s3",
        "copyObject",
        "aws-sdk:s3",
    )
    assert first.output_path is None
    assert first.result_path is not None
    assert first.result_path.place({}, 1) == {"r": 1}
    assert first.timeout is not None
    assert first.timeout.evaluate(Scope({}, {}, {})) == 10
    assert first.heartbeat is not None
    assert first.heartbeat.evaluate(Scope({"h": 5}, {}, {})) == 5
    assert (first.retry[0].max_attempts, first.retry[0].full_jitter, first.retry[1].max_attempts) == (0, True, 3)
    assert [first.retry[0].delay_s(attempt) for attempt in (1, 2, 3, 6)] == [2.0, 3.0, 4.5, 9.0]
    assert first.catch[0].result_path is None
    mapped = states["M"]
    assert isinstance(mapped, Map)
    assert mapped.items(Scope({"items": [1]}, {}, {})) == [1]
    assert mapped.concurrency(Scope({}, {}, {})) == 3
    assert isinstance(states["P"], Parallel)
    assert isinstance(states["C"], Choice)
    assert isinstance(states["W"], Wait)
    assert states["W"].until_ms(Scope({"t": "1970-01-01T00:00:01Z"}, {}, {}), 0) == 1_000
    assert isinstance(states["F"], Fail)
    assert states["F"].evaluate(Scope({"e": "E"}, {}, {})) == ("E", "c")
    assert [found.name for found in parsed.tasks()] == ["T"]
    with pytest.raises(TypeError):
        states["X"] = first  # type: ignore[index]


def test_defaults() -> None:
    state = read(one(Type="Pass")).states["S"]
    assert isinstance(state, Pass)
    scope = Scope({"a": 1}, {}, {})
    assert state.input_path is not None
    assert state.input_path.evaluate(scope) == {"a": 1}
    assert state.result_path is not None
    assert state.result_path.place(1, 2) == 2
    assert (state.next, state.has_result, state.assign) == (None, False, None)
    assert read(one(Type="Pass", Result=None)).states["S"].has_result  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("definition", "expected"),
    [
        ({}, ["SCHEMA_VALIDATION_FAILED: These fields are required: [States, StartAt] at /"]),
        (
            machine(A={"Type": "Pass", "Next": "B"}, B={"Type": "Pass", "Next": "A"}),
            ["MISSING_END_STATE: Workflow has no terminal state at null"],
        ),
        (
            machine(A={"Type": "Pass", "Next": "B"}, B={"Type": "Pass", "Next": "A"}, C={"Type": "Pass", "End": True}),
            ['MISSING_TRANSITION_TARGET: State "C" is not reachable. at /States/C'],
        ),
        (
            machine(A={"Type": "Pass", "Next": "NOPE"}),
            [
                "MISSING_TRANSITION_TARGET: Missing 'Next' target: NOPE at /States/A/Next",
                "MISSING_END_STATE: Workflow has no terminal state at null",
            ],
        ),
        (
            {"StartAt": "NOPE", "States": {"A": {"Type": "Succeed"}}},
            ["MISSING_TRANSITION_TARGET: Missing 'Next' target: NOPE at /StartAt"],
        ),
        (
            machine(
                C={"Type": "Choice", "Choices": [{"Variable": "$", "IsNull": True, "Next": "X"}], "Default": "Y"},
                E={"Type": "Fail"},
            ),
            [
                "MISSING_TRANSITION_TARGET: Missing 'Next' target: Y at /States/C/Default",
                "MISSING_TRANSITION_TARGET: Missing 'Next' target: X at /States/C/Choices[0]/Next",
                'MISSING_TRANSITION_TARGET: State "E" is not reachable. at /States/E',
            ],
        ),
        (
            task(Catch=[{"ErrorEquals": ["A"], "Next": "X"}]),
            ["MISSING_TRANSITION_TARGET: Missing 'Next' target: X at /States/S/Catch[0]/Next"],
        ),
        (
            machine(
                C={"Type": "Choice", "Choices": [{"Variable": "$", "IsNull": True}], "Default": "E"}, E={"Type": "Fail"}
            ),
            ["SCHEMA_VALIDATION_FAILED: These fields are required: [Next] at /States/C/Choices[0]"],
        ),
        (
            one(Type="Map", TimeoutSeconds=1, ItemProcessor=inner()),
            ["SCHEMA_VALIDATION_FAILED: Field 'TimeoutSeconds' is not supported at /States/S"],
        ),
        (
            one(Type="Pass", Output=1),
            [
                "SCHEMA_VALIDATION_FAILED: The QueryLanguage is set to 'JSONPath', but field 'Output' is only supported "
                "for the 'JSONata' QueryLanguage at /States/S"
            ],
        ),
        (
            {"QueryLanguage": "JSONata", **one(Type="Pass", QueryLanguage="JSONPath")},
            [
                "SCHEMA_VALIDATION_FAILED: 'QueryLanguage' can not be 'JSONPath' if set to 'JSONata' "
                "for whole state machine at /States/S"
            ],
        ),
        (
            one(Type="Map", ItemProcessor={**inner(), "QueryLanguage": "JSONPath"}),
            ["SCHEMA_VALIDATION_FAILED: Field 'QueryLanguage' is not supported at /States/S/ItemProcessor"],
        ),
        (
            one(Type="Nope"),
            [
                "SCHEMA_VALIDATION_FAILED: The field 'Type' should have one of these values: "
                "[Task, Wait, Pass, Succeed, Fail, Choice, Parallel, Map] at /States/S/Type"
            ],
        ),
        (one(Type="Parallel", Branches=[]), ["SCHEMA_VALIDATION_FAILED: Value cannot be empty at /States/S/Branches"]),
        (
            one(Type="Parallel", Branches=[inner("S")]),
            ["DUPLICATE_STATE_NAME: Duplicate State name: S at /States/S/Branches[0]/States/S"],
        ),
        (
            one(Type="Parallel", Branches=[machine(A={"Type": "Pass", "Next": "S"}, B={"Type": "Succeed"})]),
            [
                "MISSING_TRANSITION_TARGET: Missing 'Next' target: S at /States/S/Branches[0]/States/A/Next",
                'MISSING_TRANSITION_TARGET: State "B" is not reachable. at /States/S/Branches[0]/States/B',
            ],
        ),
    ],
)
def test_messages(definition: dict[str, Any], expected: list[str]) -> None:
    assert problems(definition) == expected
    with pytest.raises(InvalidDefinition) as caught:
        read(definition)
    assert str(caught.value) == f"Invalid State Machine Definition: '{', '.join(expected)}'"


UNSUPPORTED_ON = {
    "TimeoutSeconds": ["Pass", "Wait", "Choice", "Succeed", "Fail", "Map", "Parallel"],
    "Catch": ["Pass", "Wait", "Choice", "Succeed", "Fail"],
    "Retry": ["Pass", "Wait", "Choice", "Succeed", "Fail"],
    "ResultPath": ["Wait", "Choice", "Succeed", "Fail"],
    "Parameters": ["Wait", "Choice", "Succeed", "Fail"],
    "InputPath": ["Fail"],
    "Assign": ["Succeed", "Fail"],
    "End": ["Choice", "Succeed", "Fail"],
    "Next": ["Choice", "Succeed", "Fail"],
}
VALID: dict[str, dict[str, Any]] = {
    "Pass": {"Type": "Pass", "End": True},
    "Wait": {"Type": "Wait", "Seconds": 1, "End": True},
    "Choice": {"Type": "Choice", "Choices": [{"Variable": "$", "IsNull": True, "Next": "E"}]},
    "Succeed": {"Type": "Succeed"},
    "Fail": {"Type": "Fail"},
    "Map": {"Type": "Map", "ItemProcessor": inner("I"), "End": True},
    "Parallel": {"Type": "Parallel", "Branches": [inner("I")], "End": True},
}
SAMPLE = {
    "TimeoutSeconds": 1,
    "Catch": [],
    "Retry": [],
    "ResultPath": "$",
    "Parameters": {},
    "InputPath": "$",
    "Assign": {},
}


@pytest.mark.parametrize(
    ("field", "kind"), [(field, kind) for field, kinds in UNSUPPORTED_ON.items() for kind in kinds]
)
def test_fields_that_a_type_does_not_have(field: str, kind: str) -> None:
    states = {"S": VALID[kind]}
    if kind == "Choice":
        states["E"] = {"Type": "Succeed"}
    assert problems({"StartAt": "S", "States": states}) == []
    states = copy.deepcopy(states)
    states["S"][field] = SAMPLE.get(field, "E" if field == "Next" else True)
    assert f"SCHEMA_VALIDATION_FAILED: Field '{field}' is not supported at /States/S" in problems(
        {"StartAt": "S", "States": states}
    )


@pytest.mark.parametrize(
    "definition",
    [
        {**one(Type="Pass"), "Nope": 1},
        {**one(Type="Pass"), "Version": "2.0"},
        {**one(Type="Pass"), "TimeoutSeconds": 0},
        {**one(Type="Pass"), "Comment": 1},
        {**one(Type="Pass"), "QueryLanguage": "XPath"},
        {"StartAt": "S", "States": []},
        {"StartAt": 1, "States": {"S": {"Type": "Succeed"}}},
        {"StartAt": "S", "States": {"S": 1}},
        {"StartAt": "S", "States": {}},
        {"StartAt": "S" * 81, "States": {"S" * 81: {"Type": "Succeed"}}},
        {"StartAt": "", "States": {"": {"Type": "Succeed"}}},
        machine(S={"End": True}),
        machine(S={"Type": "Pass"}),
        machine(S={"Type": "Pass", "End": False}),
        machine(S={"Type": "Pass", "End": "true"}),
        machine(S={"Type": "Pass", "Next": "S", "End": True}),
        machine(S={"Type": "Pass", "Next": 1, "End": False}),
        one(Type="Pass", InputPath="a"),
        one(Type="Pass", InputPath=1),
        one(Type="Pass", ResultPath="$$.a"),
        one(Type="Pass", ResultPath="$.a[*]"),
        one(Type="Pass", Parameters={"a.$": "x"}),
        one(Type="Pass", Assign=[1]),
        one(Type="Pass", Assign={"1a": 1}),
        one(Type="Pass", Assign={"states": 1}),
        one(Type="Pass", Assign={"a.b": 1}),
        one(Type="Wait"),
        one(Type="Wait", Seconds=1, SecondsPath="$.a"),
        one(Type="Wait", Seconds=-1),
        one(Type="Wait", Seconds=1.5),
        one(Type="Wait", Seconds=100_000_000),
        one(Type="Wait", Seconds=True),
        one(Type="Wait", Timestamp="2016-01-01"),
        one(Type="Wait", Timestamp=1),
        one(Type="Wait", SecondsPath="a"),
        one(Type="Task"),
        one(Type="Task", Resource=""),
        one(Type="Task", Resource=1),
        one(Type="Task", Resource=FUNCTION + ":"),
        one(Type="Task", Resource=FUNCTION + ":a:b"),
        task(TimeoutSeconds=0),
        task(TimeoutSeconds=1, TimeoutSecondsPath="$.a"),
        task(HeartbeatSeconds=5, TimeoutSeconds=5),
        task(ResultSelector=[1]),
        task(ResultSelector={"a.$": "$.a", "a": 1}),
        task(Credentials={}),
        task(Credentials="x"),
        task(Retry={}),
        task(Retry=[1]),
        task(Retry=[{}]),
        task(Retry=[{"ErrorEquals": []}]),
        task(Retry=[{"ErrorEquals": [1]}]),
        task(Retry=[{"ErrorEquals": ["States.ALL", "A"]}]),
        task(Retry=[{"ErrorEquals": ["States.ALL"]}, {"ErrorEquals": ["A"]}]),
        task(Retry=[{"ErrorEquals": ["A"], "IntervalSeconds": 0}]),
        task(Retry=[{"ErrorEquals": ["A"], "MaxAttempts": -1}]),
        task(Retry=[{"ErrorEquals": ["A"], "BackoffRate": 0.9}]),
        task(Retry=[{"ErrorEquals": ["A"], "BackoffRate": "2"}]),
        task(Retry=[{"ErrorEquals": ["A"], "MaxDelaySeconds": 1}]),
        task(Retry=[{"ErrorEquals": ["A"], "MaxDelaySeconds": 31_622_400}]),
        task(Retry=[{"ErrorEquals": ["A"], "JitterStrategy": "HALF"}]),
        task(Retry=[{"ErrorEquals": ["A"], "Next": "S"}]),
        task(Catch=[{"ErrorEquals": ["A"]}]),
        task(Catch=[{"ErrorEquals": ["A"], "Next": "S", "ResultPath": "x"}]),
        task(Catch=[{"ErrorEquals": ["A"], "Next": "S", "Output": 1}]),
        one(Type="Map"),
        one(Type="Map", ItemProcessor=1),
        one(Type="Map", ItemProcessor=inner("A"), Iterator=inner("B")),
        one(Type="Map", ItemProcessor={"ProcessorConfig": {"Mode": "X"}, **inner()}),
        one(Type="Map", ItemProcessor=inner(), ItemsPath=None),
        one(Type="Map", ItemProcessor=inner(), ItemsPath="$.a[*]"),
        one(Type="Map", ItemProcessor=inner(), ItemSelector={}, Parameters={}),
        one(Type="Map", ItemProcessor=inner(), MaxConcurrency=-1),
        one(Type="Map", ItemProcessor=inner(), MaxConcurrency=1, MaxConcurrencyPath="$.a"),
        one(Type="Parallel"),
        one(Type="Parallel", Branches=[{}]),
        one(Type="Parallel", Branches=[{**inner(), "TimeoutSeconds": 1}]),
        machine(S={"Type": "Fail", "Error": "a", "ErrorPath": "$.a"}),
        machine(S={"Type": "Fail", "CausePath": "a"}),
        machine(S={"Type": "Fail", "Cause": 1}),
    ],
)
def test_refused(definition: dict[str, Any]) -> None:
    with pytest.raises(InvalidDefinition) as caught:
        read(definition)
    assert not isinstance(caught.value, UnsupportedFeature)


@pytest.mark.parametrize(
    "rule",
    [
        {},
        {"Variable": "$.a"},
        {"Variable": "$.a", "StringEquals": "a", "NumericEquals": 1},
        {"Variable": "a", "StringEquals": "a"},
        {"StringEquals": "a"},
        {"Variable": "$.a", "StringEquals": 1},
        {"Variable": "$.a", "NumericEquals": "1"},
        {"Variable": "$.a", "NumericEquals": True},
        {"Variable": "$.a", "BooleanEquals": "true"},
        {"Variable": "$.a", "TimestampEquals": "2020"},
        {"Variable": "$.a", "IsNull": 1},
        {"Variable": "$.a", "StringEqualsPath": "b"},
        {"Variable": "$.a", "StringMatchesPath": "$.b"},
        {"Variable": "$.a", "Nope": 1},
        {"And": []},
        {"And": {}},
        {"Or": [1]},
        {"Not": []},
        {"Not": {"Variable": "$.a", "IsNull": True, "Next": "E"}},
        {"And": [{"Variable": "$.a", "IsNull": True}], "Or": [{"Variable": "$.a", "IsNull": True}]},
        {"Condition": "{% true %}"},
    ],
)
def test_refused_rules(rule: dict[str, Any]) -> None:
    definition = machine(
        C={"Type": "Choice", "Choices": [{**rule, "Next": "E"}], "Default": "E"}, E={"Type": "Succeed"}
    )
    assert problems(definition)
    assert all("/States/C/Choices[0]" in problem for problem in problems(definition))


@pytest.mark.parametrize(
    ("definition", "names"),
    [
        (one(Type="Task", Resource="arn:aws:states:::dynamodb:getItem.waitForTaskToken"), "is not recognized"),
        (one(Type="Task", Resource="arn:aws:states:::lambda:invoke.sync"), "is not recognized"),
        (one(Type="Task", Resource="arn:aws:states:::aws-sdk:sfn:startExecution.sync"), "is not recognized"),
        (one(Type="Task", Resource="arn:aws:states:::nope:doIt"), "is not recognized"),
        (one(Type="Task", Resource="foo:bar"), "is not recognized"),
        (one(Type="Task", Resource="arn:aws:lambda:REGION:ACCOUNT:function:f"), "is not recognized"),
        (one(Type="Task", Resource="${FunctionArn}"), "is not recognized"),
    ],
)
def test_features_refused_by_name(definition: dict[str, Any], names: str) -> None:
    with pytest.raises(UnsupportedFeature, match=names):
        read(definition)
    definition["Nope"] = 1
    with pytest.raises(InvalidDefinition) as caught:
        read(definition)
    assert not isinstance(caught.value, UnsupportedFeature), "what is wrong comes first"


def test_express_machines_have_no_callbacks() -> None:
    definition = one(Type="Task", Resource="arn:aws:states:::sqs:sendMessage.waitForTaskToken")
    assert "Express state machine does not support '.waitForTaskToken'" in problems(definition, express=True)[0]


@pytest.mark.parametrize(
    "text", ["", " ", "null", "[]", '"x"', "{", '{"a":NaN}', "not a definition", "[" * 5_000, "\ud800"]
)
def test_text_that_is_no_definition(text: str) -> None:
    with pytest.raises(InvalidDefinition):
        parse(text)


def test_size_and_depth_are_bounded() -> None:
    with pytest.raises(InvalidDefinition, match="larger than"):
        parse(json.dumps({**one(Type="Pass"), "Comment": "ä" * 600_000}, ensure_ascii=False))
    definition = inner("0")
    for number in range(1, 30):
        definition = machine(**{str(number): {"Type": "Parallel", "Branches": [definition], "End": True}})
    with pytest.raises(InvalidDefinition, match="TOO_DEEPLY_NESTED"):
        read(definition)
    rule: dict[str, Any] = {"Variable": "$", "IsNull": True}
    for _ in range(60):
        rule = {"Not": rule}
    with pytest.raises(InvalidDefinition, match="nested"):
        read(machine(C={"Type": "Choice", "Choices": [{**rule, "Next": "C"}], "Default": "E"}, E={"Type": "Succeed"}))


def test_large_definitions_are_read_in_time() -> None:
    states: dict[str, Any] = {f"S{n}": {"Type": "Pass", "Next": f"S{n + 1}"} for n in range(5_000)}
    started = time.monotonic()
    read({"StartAt": "S0", "States": {**states, "S5000": {"Type": "Succeed"}}})
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("names", "error", "result"),
    [
        (["A"], "A", True),
        (["A"], "B", False),
        (["States.ALL"], "B", True),
        (["States.ALL"], "States.Timeout", True),
        (["States.ALL"], "States.DataLimitExceeded", True),
        (["States.ALL"], "States.Runtime", False),
        (["States.TaskFailed"], "B", True),
        (["States.TaskFailed"], "States.Timeout", False),
        (["States.Runtime"], "States.Runtime", True),
    ],
)
def test_error_matches(names: list[str], error: str, result: bool) -> None:
    assert error_matches(tuple(names), error) is result


@pytest.mark.parametrize(("value", "seconds"), [(0, 0), (5, 5), ("7", 7)])
def test_wait_seconds_path(value: Any, seconds: int) -> None:
    state = read(one(Type="Wait", SecondsPath="$.s")).states["S"]
    assert isinstance(state, Wait)
    assert state.until_ms(Scope({"s": value}, {}, {}), 1_000) == 1_000 + seconds * 1_000


@pytest.mark.parametrize("value", [-1, 1.5, "x", None, True, [], 10**12])
def test_wrong_wait_seconds(value: Any) -> None:
    state = read(one(Type="Wait", SecondsPath="$.s")).states["S"]
    assert isinstance(state, Wait)
    with pytest.raises(StatesError, match="The SecondsPath parameter"):
        state.until_ms(Scope({"s": value}, {}, {}), 0)


def test_items_must_be_an_array() -> None:
    state = read(one(Type="Map", ItemProcessor=inner(), ItemsPath="$$.a")).states["S"]
    assert isinstance(state, Map)
    with pytest.raises(StatesError, match=r'Reference path "\$\.a" must point to array\.'):
        state.items(Scope({}, {"a": {}}, {}))


FIELD_NAMES = sorted(
    {*UNSUPPORTED_ON, *SAMPLE, "Type", "Resource", "Branches", "Choices", "ItemProcessor", "Seconds", "Default"}
)
scraps = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(
        ["$", "$.a", "A", "B", "States.ALL", "States.UUID()", "JSONata", "{% 1 %}", FUNCTION, *VALID, "Task"]
    )
    | st.text(max_size=3),
    lambda inside: (
        st.lists(inside, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [*FIELD_NAMES, "StartAt", "States", "A", "a.$", "Variable", "IsNull", "And", "Not", "ErrorEquals"]
            ),
            inside,
            max_size=5,
        )
    ),
    max_leaves=25,
)
state_scraps = st.builds(
    lambda base, extra: {**base, **extra},
    st.sampled_from([*VALID.values(), task()["States"]["S"]]),
    st.dictionaries(
        st.sampled_from([*FIELD_NAMES, "Condition", "QueryLanguage", "ItemReader", "ItemBatcher"]), scraps, max_size=3
    ),
)


@settings(max_examples=200)
@given(
    scraps | st.builds(lambda a, b: {"StartAt": "A", "States": {"A": a, "B": b}}, state_scraps | scraps, state_scraps)
)
def test_any_json_parses_or_is_an_invalid_definition(definition: Any) -> None:
    for express in (False, True):
        with contextlib.suppress(InvalidDefinition):
            parse(json.dumps(definition), express)


@given(st.text(max_size=30))
def test_any_text_parses_or_is_an_invalid_definition(text: str) -> None:
    with contextlib.suppress(InvalidDefinition):
        parse(text)


def distributed(execution_type: str = "STANDARD", **fields: Any) -> dict[str, Any]:
    config = {"Mode": "DISTRIBUTED", "ExecutionType": execution_type}
    return one(Type="Map", ItemProcessor={"ProcessorConfig": config, **inner()}, **fields)


READER = {"Resource": "arn:aws:states:::s3:getObject", "Parameters": {"Bucket": "b", "Key": "k"}}


@pytest.mark.parametrize(
    ("definition", "problem"),
    [
        (distributed(Label=""), "Label cannot be empty"),
        (distributed(Label="a" * 41), "Label cannot exceed 40 characters"),
        (distributed(Label="a b"), "Label contains invalid character: ' '"),
        (distributed(ItemReader={"Resource": "arn:aws:states:::s3:putObject"}), "is not recognized"),
        (distributed(ItemReader={**READER, "ReaderConfig": {"InputType": "CSV"}}), "CSVHeaderLocation"),
        (
            distributed(ItemReader={**READER, "ReaderConfig": {"InputType": "CSV", "CSVHeaderLocation": "GIVEN"}}),
            "CSVHeaders",
        ),
        (
            distributed(ItemReader={**READER, "ReaderConfig": {"InputType": "JSON", "ItemsPointer": "a"}}),
            "JSON Pointer",
        ),
        (distributed(ItemReader={**READER, "Arguments": {}}), "JSONata"),
        (distributed(ItemBatcher={}), "MaxItemsPerBatch"),
        (distributed(ResultWriter={}), "Resource"),
        (distributed(ResultWriter={"WriterConfig": {"Transformation": "NONE"}}), "OutputType"),
        (distributed(ToleratedFailurePercentage=101), "between 0 and 100"),
        (distributed(ToleratedFailureCount=1, ToleratedFailureCountPath="$.a"), "Only one"),
        (one(Type="Map", ItemProcessor={"ProcessorConfig": {"Mode": "DISTRIBUTED"}, **inner()}), "ExecutionType"),
    ],
)
def test_what_is_wrong_with_a_distributed_map(definition: dict[str, Any], problem: str) -> None:
    assert any(problem in found for found in problems(definition)), problems(definition)


def test_a_processor_of_type_express_has_no_patterns_that_wait() -> None:
    task = {"Type": "Task", "Resource": "arn:aws:states:::states:startExecution.sync", "End": True}
    processor = machine(Inner={**task, "Parameters": {"StateMachineArn": "a"}})
    for execution_type, found in (("STANDARD", 0), ("EXPRESS", 1)):
        config = {"Mode": "DISTRIBUTED", "ExecutionType": execution_type}
        definition = one(Type="Map", ItemProcessor={"ProcessorConfig": config, **processor})
        assert len(problems(definition)) == found


def test_a_distributed_map_is_not_for_express_machines() -> None:
    with pytest.raises(InvalidDefinition, match="DISTRIBUTED"):
        parse(json.dumps(distributed()), express=True)
