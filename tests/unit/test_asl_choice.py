"""Conditions of Choice rules, beyond what the recorded executions show."""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrepot.services.stepfunctions.language import Scope, StatesError
from entrepot.services.stepfunctions.language.choice import (
    COMPARISONS,
    TYPE_TESTS,
    And,
    Condition,
    IsPresent,
    Not,
    Or,
    matches_pattern,
)
from entrepot.services.stepfunctions.language.diagnostics import Findings
from entrepot.services.stepfunctions.language.fields import Fields
from entrepot.services.stepfunctions.language.parse_choices import parse_condition
from entrepot.services.stepfunctions.language.path import parse_path
from entrepot.services.stepfunctions.language.timestamps import timestamp_ms, timestamp_ns


def condition(source: dict[str, Any]) -> Condition:
    findings = Findings()
    fields = Fields(source, "/x", findings)
    parsed = parse_condition(fields)
    fields.finish()
    assert not findings.errors, findings.errors
    return parsed


def holds(source: dict[str, Any], data: Any) -> bool:
    return condition(source).holds(Scope(data, {"n": 5}, {"v": 5}))


@pytest.mark.parametrize(
    ("operator", "value", "expected", "result"),
    [
        ("NumericEquals", 1, 1.0, True),
        ("NumericEquals", True, 1, False),
        ("NumericLessThan", 1, 1.5, True),
        ("NumericGreaterThanEquals", 2, 2, True),
        ("NumericEquals", 9007199254740993, 9007199254740992.0, False),
        ("StringEquals", "a", "a", True),
        ("StringLessThan", "B", "a", True),
        ("StringGreaterThan", "\uffff", "\U0001f600", True),  # UTF-16 order, as Java compares
        ("StringEquals", 1, "1", False),
        ("BooleanEquals", False, False, True),
        ("BooleanEquals", 0, False, False),
        ("TimestampEquals", "2020-01-01T00:00:00Z", "2020-01-01T01:00:00+01:00", True),
        ("TimestampLessThan", "2020-01-01T00:00:00.000000001Z", "2020-01-01T00:00:00.000000002Z", True),
        ("TimestampGreaterThan", "2020-01-01", "2019-01-01T00:00:00Z", False),
        ("StringMatches", "log-2020.txt", "log-*.txt", True),
        ("StringMatches", "log-*.txt", "log-\\*.txt", True),
        ("StringMatches", "log-1.txt", "log-\\*.txt", False),
    ],
)
def test_comparisons(operator: str, value: Any, expected: Any, result: bool) -> None:
    assert holds({"Variable": "$.x", operator: expected}, {"x": value}) is result
    if operator != "StringMatches":
        assert holds({"Variable": "$.x", f"{operator}Path": "$.y"}, {"x": value, "y": expected}) is result


@given(
    st.sampled_from(sorted(COMPARISONS)), st.none() | st.lists(st.integers()) | st.dictionaries(st.text(), st.none())
)
def test_other_types_are_false(operator: str, value: Any) -> None:
    assert (
        holds({"Variable": "$.x", f"{operator}Path": "$.x"}, {"x": value}) is False
        if operator != "StringMatches"
        else True
    )


@given(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.lists(st.none())
    | st.just("2020-01-01T00:00:00Z")
)
def test_type_tests_agree_with_their_opposite(value: Any) -> None:
    for name, test in TYPE_TESTS.items():
        assert test(value, True) is not test(value, False), name


def test_logic_stops_early_and_reads_the_context_and_variables() -> None:
    missing = {"Variable": "$.missing", "NumericEquals": 1}
    yes = {"Variable": "$$.n", "NumericEqualsPath": "$v"}
    assert holds({"Or": [yes, missing]}, {})
    assert not holds({"And": [{"Not": yes}, missing]}, {})
    assert isinstance(condition({"Not": {"And": [{"Or": [yes]}]}}), Not)


def test_missing_variable_is_an_error_except_for_is_present() -> None:
    assert holds({"Variable": "$.a.b", "IsPresent": False}, {})
    assert holds({"Variable": "$.a", "IsPresent": True}, {"a": None})
    assert not holds({"Variable": "$.a[*]", "IsPresent": True}, {"a": []})
    for source in ({"Variable": "$.a", "IsNull": True}, {"Variable": "$.b", "NumericEqualsPath": "$.a"}):
        with pytest.raises(StatesError) as caught:
            holds(source, {"b": 1})
        assert caught.value.error == "States.Runtime"
        assert "Invalid path '$.a': The choice state's" in caught.value.cause
    with pytest.raises(
        StatesError, match=r"Invalid path '\$\.a': The choice state's condition path references an invalid"
    ):
        holds({"Variable": "$.a", "StringEquals": ""}, {})


def test_empty_trees() -> None:
    scope = Scope({}, {}, {})
    assert And(()).holds(scope)
    assert not Or(()).holds(scope)
    assert IsPresent(parse_path("$", "Variable"), True).holds(scope)


@pytest.mark.parametrize(
    ("text", "pattern", "result"),
    [
        ("", "", True),
        ("", "*", True),
        ("abc", "*", True),
        ("abc", "a*c", True),
        ("ac", "a*c", True),
        ("a", "a*a", False),
        ("abcabc", "*bc", True),
        ("abcabd", "*bc", False),
        ("abc", "abc*", True),
        ("aXbXc", "a*b*c", True),
        ("acb", "a*b*c", False),
        ("a\\b", "a\\\\b", True),
        ("a\\", "a\\", True),
        ("a\\n", "a\\n", True),
        ("**", "\\**\\*", True),
    ],
)
def test_patterns(text: str, pattern: str, result: bool) -> None:
    assert matches_pattern(text, pattern) is result


@given(st.text(alphabet="ab", max_size=12), st.lists(st.text(alphabet="ab", max_size=3), min_size=1, max_size=5))
def test_patterns_agree_with_search_by_trial(text: str, pieces: list[str]) -> None:
    def trial(rest: str, parts: list[str]) -> bool:
        if len(parts) == 1:
            return rest.endswith(parts[0])
        return any(
            rest.startswith(parts[0], at) and trial(rest[at + len(parts[0]) :], parts[1:])
            for at in range(len(rest) + 1)
        )

    expected = (
        text == pieces[0]
        if len(pieces) == 1
        else text.startswith(pieces[0]) and trial(text[len(pieces[0]) :], pieces[1:])
    )
    assert matches_pattern(text, "*".join(pieces)) is expected


def test_patterns_take_linear_time() -> None:
    started = time.monotonic()
    assert not matches_pattern("a" * 200_000, "*a" * 2_000 + "b")
    assert not matches_pattern("ab" * 100_000, "*" + "ab" * 1_000 + "c*" * 100)
    assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2016-03-14T01:59:00Z", 1_457_920_740_000),
        ("2016-03-14T01:59:00.0001Z", 1_457_920_740_001),
        ("2016-03-14T01:59:00.5-08:00", 1_457_949_540_500),
        ("1969-12-31T23:59:59Z", -1_000),
    ],
)
def test_timestamps(text: str, ms: int) -> None:
    assert timestamp_ms(text) == ms


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "2016-03-14",
            "2016-03-14T01:59:00",
            "2016-03-14 01:59:00Z",
            "2016-03-14t01:59:00Z",
            "2016-03-14T01:59:00z",
        ),
        *(
            "2016-02-30T00:00:00Z",
            "2016-13-01T00:00:00Z",
            "2016-01-01T24:00:00Z",
            "2016-01-01T00:00:60Z",
            "2016-01-01T00:00Z",
        ),
        *("2016-01-01T00:00:00.Z", "2016-01-01T00:00:00+0100", "2016-01-01T00:00:00+99:00", "٢٠١٦-01-01T00:00:00Z"),
        *("2016-01-01T00:00:00Z\n", "0000-01-01T00:00:00Z", "0001-01-01T00:00:00+18:00x"),
    ],
)
def test_no_timestamps(text: str) -> None:
    assert timestamp_ns(text) is None


@given(st.text(alphabet="0123456789-:.TZ+", max_size=35))
def test_arbitrary_text_never_raises(text: str) -> None:
    timestamp_ns(text)
    timestamp_ns("2016-01-01T00:00:00" + text)
    timestamp_ns("0001-01-01T00:00:00" + text)
