"""What targets receive: InputPath and InputTransformer."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entrepot.services.events.errors import ValidationError
from entrepot.services.events.input import fill, input_text, parse_path
from entrepot.services.events.rules import Target, target_of
from entrepot.services.events.targets import invocation

EVENT = {
    "id": "e-1",
    "source": "aws.s3",
    "resources": ["arn:one", "arn:two"],
    "detail": {
        "key": 'a "b" \\ ü\n.csv', "size": 300, "ok": True, "nothing": None, "instance-id": "i-1",
        "deep": {"list": [{"n": 1}, {"n": 2}]},
    },
}  # fmt: skip


def received(**definition: Any) -> str:
    target = target_of({"Id": "t", "Arn": "arn:aws:lambda:r:0:function:f", **definition})
    return text_for(target)


def text_for(target: Target) -> str:
    return input_text(
        target, json.dumps(EVENT), lambda: EVENT, rule_name="r", rule_arn="arn:rule", queued_at_ms=1_700_000_000_123
    )


def transformed(template: str, **paths: str) -> Any:
    return json.loads(received(InputTransformer={"InputTemplate": template, "InputPathsMap": paths}))


def test_the_event_as_it_is() -> None:
    assert received() == json.dumps(EVENT)
    assert received(InputPath="$") == json.dumps(EVENT)
    assert received(Input='{"x": 1}') == '{"x": 1}'


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("$.detail.size", 300),
        ("$.detail.instance-id", "i-1"),
        ("$.resources[1]", "arn:two"),
        ("$['detail']['deep'].list[0].n", 1),
        ("$.detail.deep.list[*].n", [1, 2]),
        ("$.detail.gone", None),
        ("$.resources[7]", None),
    ],
)
def test_paths(path: str, expected: Any) -> None:
    assert json.loads(received(InputPath=path)) == expected


@pytest.mark.parametrize("path", ["", "detail", "$.", "$..a", "$.a[", "$.a[-1]", "$.a[?(@.b)]", "$ .a"])
def test_paths_that_are_refused(path: str) -> None:
    with pytest.raises(ValidationError):
        parse_path(path)


def test_values_outside_of_quotes_are_json() -> None:
    answer = transformed(
        '{"k": <k>, "n": <n>, "b": <b>, "z": <z>, "d": <d>, "gone": <gone>}',
        k="$.detail.key", n="$.detail.size", b="$.detail.ok", z="$.detail.nothing", d="$.detail.deep", gone="$.x",
    )  # fmt: skip
    detail = EVENT["detail"]
    assert isinstance(detail, dict)
    assert answer == {"k": detail["key"], "n": 300, "b": True, "z": None, "d": detail["deep"], "gone": ""}


def test_values_inside_of_quotes_are_text() -> None:
    answer = transformed(
        '"<k> has <n> of \\"<id>\\" <gone>."', k="$.detail.key", n="$.detail.size", id="$.id", gone="$.x"
    )
    assert answer == 'a "b" \\ ü\n.csv has 300 of "e-1" .'
    assert transformed('{"text": "<d>"}', d="$.detail.deep.list") == {"text": "[{n:1},{n:2}]"}


def test_reserved_variables() -> None:
    template = (
        '{"rule": "<aws.events.rule-name>", "arn": <aws.events.rule-arn>, "at": <aws.events.event.ingestion-time>,'
        ' "event": <aws.events.event>, "json": <aws.events.event.json>}'
    )
    answer = transformed(template)
    assert answer["rule"] == "r"
    assert answer["arn"] == "arn:rule"
    assert answer["at"] == "2023-11-14T22:13:20.123Z"
    assert answer["event"] == {key: value for key, value in EVENT.items() if key != "detail"}
    assert answer["json"] == EVENT


def test_a_template_over_several_lines_is_one_text() -> None:
    assert transformed('"one <id>\ntwo"', id="$.id") == "one e-1\ntwo"
    assert transformed("no json <id>", id="$.id") == 'no json "e-1"'
    assert transformed('"<unknown>"') == "<unknown>"


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40), st.text(max_size=20) | st.integers() | st.none() | st.dictionaries(st.text(), st.text()))
def test_what_comes_out_is_always_json(template: str, value: Any) -> None:
    json.loads(fill(template, {"a": value}))
    assert json.loads(fill('{"x": <a>}', {"a": value})) == {"x": value}
    assert isinstance(json.loads(fill('{"x": "- <a> -"}', {"a": value}))["x"], str)


@pytest.mark.parametrize(
    ("template", "paths", "expected"),
    [
        ('{"timestamp": "<at>", "message": "size <n>"}', {"at": "$.time", "n": "$.detail.size"},
         (1_700_000_000_000, "size 300")),
        ('{"timestamp": 1700000000007, "message": <deep>}', {"deep": "$.detail.deep"},
         (1_700_000_000_007, '{"list":[{"n":1},{"n":2}]}')),
        ('{"timestamp": "soon", "message": "x"}', {}, (5, "x")),
        ('{"message": "x", "more": 1}', {}, (5, '{"message": "x", "more": 1}')),
        ('"x"', {}, (5, '"x"')),
    ],
)  # fmt: skip
def test_the_line_of_a_log_group(template: str, paths: dict[str, str], expected: tuple[int, str]) -> None:
    transformer = {"InputTemplate": template, "InputPathsMap": paths}
    target = target_of({"Id": "t", "Arn": "arn:aws:logs:r:0:log-group:/g", "InputTransformer": transformer})
    event = EVENT | {"time": "2023-11-14T22:13:20Z"}
    text = input_text(target, json.dumps(event), lambda: event, rule_name="r", rule_arn="arn:rule", queued_at_ms=5)
    made = invocation(target, event_id="e", rule_arn="arn:rule", attempt=1, input_text=text, queued_at_ms=5)
    assert made.request["logEvents"] == [{"timestamp": expected[0], "message": expected[1]}]
