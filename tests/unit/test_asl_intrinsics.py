"""Intrinsic functions and payload templates: results, limits, grammar, errors."""

import base64
import contextlib
import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrepot.services.stepfunctions.language import Scope, StatesError
from entrepot.services.stepfunctions.language.intrinsics import parse_call
from entrepot.services.stepfunctions.language.path_syntax import SyntaxProblem
from entrepot.services.stepfunctions.language.template import parse_expression, parse_template

DATA: dict[str, Any] = {
    "n": 3,
    "f": 1.5,
    "s": "a,b;c",
    "list": [1, 2, 2, 1.0, True, {"x": 1, "y": 2}, {"y": 2, "x": 1}],
    "o": {"a": 1, "b": {"c": None}},
    "null": None,
    "big": "x" * 10_001,
    "template": "{}-{}",
}


def call(text: str) -> Any:
    return parse_call(text, "x.$").evaluate(Scope(DATA, {"k": "ctx"}, {"v": "var"}))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("States.Array('Foo', 2020, -1.5, null, true, $.n)", ["Foo", 2020, -1.5, None, True, 3]),
        ("States.Array( )", []),
        ("States.Format('a {} b {}', 'x', $.n)", "a x b 3"),
        ("States.Format('{}', $.o)", "{a=1, b={c=null}}"),
        ("States.Format('{}{}{}', $.null, true, 1.5)", "nulltrue1.5"),
        ("States.Format($.template, 1, 2)", "1-2"),
        ("States.Format('\\{\\} \\'{}\\' \\\\', 1)", "{} '1' \\"),
        ("States.Format('no placeholder')", "no placeholder"),
        ("States.Format('{}', States.Format('{}', '\\{\\}'))", "{}"),
        ("States.Format('{} {}', $$.k, $v)", "ctx var"),
        ("States.StringToJson('\\{\"a\": [1, 2.5]\\}')", {"a": [1, 2.5]}),
        ("States.StringToJson('{\"a\":1}')", {"a": 1}),
        ("States.StringToJson('')", None),
        ("States.JsonToString($.o)", '{"a":1,"b":{"c":null}}'),
        ("States.JsonToString('a\"b')", '"a\\"b"'),
        ("States.ArrayPartition($.list[0:3], 2)", [[1, 2], [2]]),
        ("States.ArrayContains($.list, 2)", True),
        ("States.ArrayContains($.list, '2')", False),
        ("States.ArrayContains($.list, false)", False),
        ("States.ArrayContains($.list, $.list[6])", True),
        ("States.ArrayRange(1, 9, 2)", [1, 3, 5, 7, 9]),
        ("States.ArrayRange(3, 1, -1)", [3, 2, 1]),
        ("States.ArrayRange(3, 1, 1)", []),
        ("States.ArrayGetItem($.list, 1)", 2),
        ("States.ArrayLength($.list)", 7),
        ("States.ArrayUnique($.list)", [1, 2, 1.0, True, {"x": 1, "y": 2}]),
        ("States.Base64Encode('Data to encode é')", base64.b64encode("Data to encode é".encode()).decode()),
        ("States.Base64Decode('RGF0YSDDqQ==')", "Data é"),
        ("States.Hash('input data', 'SHA-256')", hashlib.sha256(b"input data").hexdigest()),
        ("States.Hash('input data', 'MD5')", hashlib.md5(b"input data").hexdigest()),
        ("States.JsonMerge($.o, $.o.b, false)", {"a": 1, "b": {"c": None}, "c": None}),
        ("States.MathAdd($.n, -1)", 2),
        ("States.MathAdd($.f, -2.5)", 0),
        ("States.StringSplit($.s, ',;')", ["a", "b", "c"]),
        ("States.StringSplit('', ',')", []),
        ("States.MathRandom(5, 6)", 5),
        ("States.ArrayGetItem(States.StringSplit($.s, ','), States.MathAdd(0, 1))", "b;c"),
    ],
)
def test_results(text: str, value: Any) -> None:
    result = call(text)
    assert result == value
    assert type(result) is type(value)


def test_array_unique_keeps_the_types_of_numbers() -> None:
    assert [type(item) for item in call("States.ArrayUnique($.list)")] == [int, int, float, bool, dict]


def test_uuid_and_random() -> None:
    assert len(call("States.UUID()")) == 36
    assert call("States.UUID()") != call("States.UUID()")
    assert all(1 <= call("States.MathRandom(1, 4)") < 4 for _ in range(50))
    assert call("States.MathRandom(0, 1000000, 7)") == call("States.MathRandom(0, 1000000, 7)")


@pytest.mark.parametrize(
    "text",
    [
        "States.Format('{} {}', 1)",
        "States.Format('{}', 1, 2)",
        "States.Format($.n)",
        "States.StringToJson('\\{')",
        "States.StringToJson('NaN')",
        "States.StringToJson($.n)",
        "States.ArrayPartition($.list, 0)",
        "States.ArrayPartition($.s, 1)",
        "States.ArrayRange(1, 1001, 1)",
        "States.ArrayRange(1, 2, 0)",
        "States.ArrayRange(0, 2000000000, 1)",
        "States.ArrayGetItem($.list, 7)",
        "States.ArrayGetItem($.list, -1)",
        "States.ArrayLength($.s)",
        "States.ArrayUnique($.o)",
        "States.Base64Encode($.big)",
        "States.Base64Encode($.n)",
        "States.Base64Decode('&&&&')",
        "States.Hash($.big, 'MD5')",
        "States.Hash($.s, 'CRC')",
        "States.Hash($.s, $.n)",
        "States.JsonMerge($.o, $.s, false)",
        "States.JsonMerge($.o, $.o, true)",
        "States.MathRandom(2, 2)",
        "States.MathAdd($.s, 1)",
        "States.MathAdd(2147483647, 1)",
        "States.StringSplit($.n, ',')",
    ],
)
def test_failures(text: str) -> None:
    with pytest.raises(StatesError) as caught:
        call(text)
    assert caught.value.error == "States.IntrinsicFailure"
    assert caught.value.cause.startswith(f"The function '{text}' had the following error: ")


def test_missing_argument_is_a_runtime_error() -> None:
    with pytest.raises(StatesError) as caught:
        call("States.JsonToString($.nope)")
    assert caught.value.error == "States.Runtime"
    assert "The JsonPath argument for the field '$.nope' could not be found in the input" in caught.value.cause


@pytest.mark.parametrize(
    "text",
    [
        *(
            "States.",
            "States.Nope()",
            "States.Array",
            "States.Array(",
            "States.Array(1,)",
            "States.Array(,1)",
            "States.Array(1 2)",
        ),
        *("States.Array('a)", "States.Array('\\n')", "States.Array('\\\"')", 'States.Array("a")', "States.Array(1) x"),
        *(
            "States.Array(a)",
            "States.Array($.)",
            "States.Array(1.)",
            "States.Array(--1)",
            "States.Array(1))",
            " States.UUID()",
        ),
        *("States.UUID(1)", "States.Hash('a')", "States.MathAdd(1,'-1')", "States.ArrayLength('a')", "States.Format()"),
        *("States.Format(1)", "States.JsonMerge($.a, $.b)", "States.Array(" * 11 + ")" * 11),
    ],
)
def test_syntax_errors(text: str) -> None:
    with pytest.raises(SyntaxProblem):
        parse_call(text, "f")


def test_ten_calls_may_be_nested() -> None:
    assert call("States.Array(" * 10 + ")" * 10) == [[[[[[[[[[]]]]]]]]]]


@given(st.text(alphabet="States.ArrayFormt()',$\\{}01 \"", max_size=30))
def test_arbitrary_text_is_an_expression_or_a_syntax_problem(text: str) -> None:
    for candidate in (text, f"States.Array({text})", f"States.Format('{text}')"):
        try:
            expression = parse_expression(candidate, "f")
        except SyntaxProblem:
            continue
        with contextlib.suppress(StatesError):
            expression.evaluate(Scope({"a": 1}, {}, {}))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=10,
)
NAMES_1 = [
    "ArrayLength",
    "ArrayUnique",
    "Base64Encode",
    "Base64Decode",
    "Format",
    "JsonToString",
    "StringToJson",
    "Array",
]
NAMES_2 = ["ArrayPartition", "ArrayContains", "ArrayGetItem", "Hash", "MathAdd", "MathRandom", "StringSplit", "Format"]


@given(json_values, json_values, json_values)
def test_any_arguments_give_a_value_or_a_states_error(a: Any, b: Any, c: Any) -> None:
    scope = Scope({"a": a, "b": b, "c": c}, {}, {})
    calls = [f"States.{name}($.a)" for name in NAMES_1] + [f"States.{name}($.a, $.b)" for name in NAMES_2]
    for text in [
        *calls,
        "States.ArrayRange($.a, $.b, $.c)",
        "States.JsonMerge($.a, $.b, $.c)",
        "States.Format('{}', $.a)",
    ]:
        with contextlib.suppress(StatesError):
            parse_call(text, "f").evaluate(scope)


def test_template() -> None:
    problems: list[tuple[str, str]] = []
    source = {
        "plain": {"deep": ["$.n", 1]},
        "n.$": "$.n",
        "nested": {"list": [{"v.$": "$$.k"}, 2], "call.$": "States.ArrayLength($.list)"},
        ".$": "$v",
    }
    template = parse_template(source, lambda *problem: problems.append(problem))
    value = template.evaluate(Scope(DATA, {"k": "ctx"}, {"v": "var"}))
    assert not problems
    expected = {"plain": {"deep": ["$.n", 1]}, "n": 3, "nested": {"list": [{"v": "ctx"}, 2], "call": 7}, "": "var"}
    assert value == expected
    assert list(value) == list(expected)
    assert value["plain"] is source["plain"], "constant parts are shared"


@pytest.mark.parametrize(
    ("source", "place"),
    [
        ({"a.$": "x"}, ""),
        ({"a.$": 1}, ""),
        ({"b": [{"a.$": "$."}]}, "/b[0]"),
        ({"a.$": "$.x", "a": 1}, ""),
        ({"b": {"a": 1, "a.$": "$.x"}}, "/b"),
    ],
)
def test_template_problems(source: Any, place: str) -> None:
    problems: list[tuple[str, str]] = []
    parse_template(source, lambda message, where: problems.append((message, where)))
    assert [where for _, where in problems] == [place]


@given(
    st.dictionaries(
        st.sampled_from(["a", "a.$", "b.$", ".$"]), st.sampled_from(["$", "$.a", "$$.x", "States.UUID()", 1, []])
    ),
    json_values,
)
def test_any_template_reports_or_evaluates(source: Any, data: Any) -> None:
    problems: list[tuple[str, str]] = []
    template = parse_template([source], lambda *problem: problems.append(problem))
    if not problems:
        with contextlib.suppress(StatesError):
            template.evaluate(Scope(data, {}, {}))


def test_values_that_are_too_deep_fail_as_the_language_says() -> None:
    deep: Any = 1
    for _ in range(3_000):
        deep = {"a": [deep]}
    scope = Scope({"deep": deep}, {}, {})
    for text in ("States.JsonToString($.deep)", "States.Format('{}', $.deep)", "States.Hash($.deep, 'MD5')"):
        with pytest.raises(StatesError) as caught:
            parse_call(text, "f").evaluate(scope)
        assert caught.value.error == "States.IntrinsicFailure"
    with pytest.raises(StatesError, match="nested"):
        parse_expression("$.missing", "f").evaluate(scope)


def test_deep_templates_can_be_evaluated() -> None:
    source: Any = {"a.$": "$.x"}
    for _ in range(150):
        source = {"a": source}
    problems: list[tuple[str, str]] = []
    template = parse_template(source, lambda *problem: problems.append(problem))
    assert not problems
    assert template.evaluate(Scope({"x": 1}, {}, {}))["a"]["a"]
