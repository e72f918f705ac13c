"""JSONata as AWS has it: values, errors, references that are refused, and bounds on hostile expressions."""

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entrepot.services.stepfunctions.language import InvalidDefinition, parse
from entrepot.services.stepfunctions.language.evaluation import QueryEvaluationError
from entrepot.services.stepfunctions.language.jsonata import JsonataScope, compile_expression
from entrepot.services.stepfunctions.language.path_syntax import SyntaxProblem

INPUT = {"a": None, "b": [1, None, {"c": None}], "d": {"e": 1}, "s": "x", "none": [], "one": [0], "n": 2.5}
FUNCTION = "arn:aws:lambda:us-east-1:111111111111:function:f"


def value(text: str, **variables: Any) -> Any:
    return compile_expression(text, "Output/r").evaluate(JsonataScope({"input": INPUT, "context": {}}, {}, variables))


def problem(text: str) -> str:
    with pytest.raises(QueryEvaluationError) as caught:
        value(text)
    assert caught.value.location == "Output/r" and caught.value.error == "States.QueryEvaluationError"
    start = f"The JSONata expression '{text}' specified for the field 'Output/r' "
    assert caught.value.cause.startswith(start)
    return caught.value.cause.removeprefix(start)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$states.input.a", None),
        ("$states.input.d.e", 1),
        ("$states.input.none", []),
        ("$states.input.one", [0]),
        ("$states.input.b.c", None),
        ("$map($states.input.b, function($x){ $type($x) })", ["number", "null", "object"]),
        ("$exists($states.input.a) and $not($exists($states.input.zz))", True),
        ("$v", {"w": None}),
        ("$v.w", None),
        ('{"k": $states.input.a, "gone": $states.input.zz}', {"k": None}),
        ("10 / 2", 5),
        ("5.5 % 2", 1.5),
        ("1/0", "Infinity"),
        ("[-1/0, 0/0]", ["-Infinity", "NaN"]),
        ("1e308 * 10", "Infinity"),
        ("$string(1e20)", "100000000000000000000"),
        ("$string(1e21)", "1e+21"),
        ('$string({"a": [0.1 + 0.2, null, "é"]})', '{"a":[0.3,null,"é"]}'),
        ("$partition([1, 2, 3, 4, 5], 2.9)", [[1, 2], [3, 4], [5]]),
        ("$range(0, 9, 3)", [0, 3, 6, 9]),
        ("$range(9, 0, -4)", [9, 5, 1]),
        ("$range(1, 9, 9)", 1),
        ('$hash("input", "SHA-1")', "140f86aae51ab9e1cda9b4254fe98a74eb54c1a1"),
        ("$random(42)", 0.7275636800328681),
        ("$length($uuid())", 36),
        ('$parse("{\\"a\\": [1.0, null]}")', {"a": [1, None]}),
        ('$contains("hello$world", /^hello\\$/)', True),
        ('$replace("abcabc", /b(c)/, "[$1$0$$]")', "a[cbc$]a[cbc$]"),
        ('$replace("abcabc", "b", "$0")', "a$0ca$0c"),
        ('$replace("aaa", /a/, function($m){ $m.match & "1" }, 2)', "a1a1a"),
        ('$split("a1b2c", /[0-9]/)', ["a", "b", "c"]),
        ("$count($distinct([1, '1', 1, {'a': 1}, {'a': 1}]))", 3),
        ("$count([1..873782])", 873782),
        ('$spread([{"a": 1, "b": 2}, 3])', [{"a": 1}, {"b": 2}, 3]),
        ("$count($spread([1..100000]))", 100000),
        ("$reduce([1..3], $append)", [1, 2, 3]),
        ("1" + "+1" * 99, 100),
        ('$toMillis("2020-01-02", "[Y]-[M]-[D]")', 1577923200000),
        ("$now() = $now()", True),
    ],
)
def test_value(text: str, expected: Any) -> None:
    found = value(text, v={"w": None})
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("$states.input.zz", "returned nothing (undefined)."),
        ("$nope", "returned nothing (undefined)."),
        ("$partition([], 2)", "returned nothing (undefined)."),
        ("$range(0, 3)", "returned nothing (undefined)."),
        ("function($x){ $x }", "returned an unsupported result type."),
        ("[1, $sum]", "returned an unsupported result type."),
        (
            '$abs("x")',
            'threw an error during evaluation. T0410: Argument 1 of function "abs" does not match function signature',
        ),
        (
            '$sum(["a"])',
            'threw an error during evaluation. T0412: Argument 1 of function "sum" must be an array of "numbers"',
        ),
        ('$eval("1+1")', "threw an error during evaluation. T1006: Attempted to invoke a non-function"),
        (
            '1 + "a"',
            'threw an error during evaluation. T2002: The right side of the "+" operator must evaluate to a number',
        ),
        ('$number("abc")', 'threw an error during evaluation. D3030: Unable to cast value to a number: "abc"'),
        ('$parse("{\\"a\\":1,\\"a\\":2}")', "threw an error during evaluation. D3137: Invalid JSON"),
        ('$error("no")', "threw an error during evaluation. D3137: no"),
        (
            '$hash("x", "MD4")',
            "threw an error during evaluation. D3137: Hash algorithm 'MD4' must be one of SHA-1, SHA-384, SHA-256, "
            "SHA-512, MD5",
        ),
    ],
)
def test_error(text: str, cause: str) -> None:
    assert problem(text) == cause


MEMORY = (
    "threw an error during evaluation: Expression evaluation memory limit exceeded: Check for excessive memory usage"
)
STACK = (
    "threw an error during evaluation: Stack overflow error: Check for non-terminating recursive function. "
    "Consider rewriting as tail-recursive."
)
TIME = "threw an error during evaluation: Expression evaluation timeout: Check for infinite loop"
DOUBLING = '($p := function($s, $n) { $n = 0 ? $s : $p([$s, $s], $n - 1) }; $string($p("x", 60)))'


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("($f := function($x){ 1 + $f($x + 1) }; $f(1))", STACK),
        ("1" + "+1" * 200, STACK),
        ('($p := function($s, $n) { $n = 0 ? $s : $p($s & $s, $n - 1) }; $length($p("x", 50)))', MEMORY),
        (DOUBLING, MEMORY),
        ("[1..873783]", MEMORY),
        ("$range(1, 1e15, 1)", MEMORY),
        ('$pad("x", 1e12)', MEMORY),
        ('$join([1..200].$pad("x", 100000))', MEMORY),
        ('$replace($pad("a", 10000, "a"), "a", $pad("b", 10000, "b"))', MEMORY),
        ('$replace($pad("a", 10000, "a"), /a/, $pad("b", 10000, "b"))', MEMORY),
        ('$formatInteger(1e15, "I")', MEMORY),
        ("$reduce([1..100000], $append)", TIME),
        ('$contains($pad("a", 40, "a") & "b", /^(a|a)*$/)', TIME),
    ],
)
def test_hostile_expressions_end(text: str, cause: str) -> None:
    assert problem(text) == cause


def test_an_endless_loop_ends_after_a_second_of_processor_time() -> None:
    before_s = time.thread_time()
    assert problem("($f := function($x){ $f($x + 1) }; $f(1))") == TIME
    assert 0.9 < time.thread_time() - before_s < 3


def test_many_slow_expressions_of_a_state_do_not_add_up() -> None:
    slow = compile_expression("($f := function($x){ $f($x + 1) }; $f(1))", "Output")
    scope = JsonataScope({"input": {}, "context": {}}, {}, {})
    before_s = time.thread_time()
    for _ in range(50):
        with pytest.raises(QueryEvaluationError):
            slow.evaluate(scope.with_states(result=1))
    assert time.thread_time() - before_s < 4


def test_hostile_signatures_and_pictures_end() -> None:
    before_s = time.thread_time()
    problem("($f := function($a)<" + "n+" * 30 + ":n>{ 1 }; $f(" + "1," * 40 + '"x"))')
    problem('$toMillis($pad("1", 60, "1") & "x", "' + "[Y]" * 30 + '")')
    assert time.thread_time() - before_s < 2


@settings(max_examples=150, deadline=None)
@given(st.text(st.sampled_from("$abstates.input()[]{}=+-*/%&\"'~>|:;,?!@^#1 0functionx\\"), max_size=40))
def test_any_text_gives_a_value_or_a_named_error(text: str) -> None:
    try:
        found = value(text)
    except (SyntaxProblem, QueryEvaluationError):
        return
    json.dumps(found, allow_nan=False)


def one(**state: Any) -> str:
    return json.dumps({"QueryLanguage": "JSONata", "StartAt": "S", "States": {"S": {"End": True, **state}}})


@pytest.mark.parametrize(
    ("definition", "finding"),
    [
        (
            one(Type="Pass", Output={"v": "{% phone %}"}),
            "UNSUPPORTED_JSONATA_EXPRESSION: Reference to 'phone' at the top level is not supported. at /States/S/Output/v",
        ),
        (
            one(Type="Pass", Output="{% $$.a %}"),
            "UNSUPPORTED_JSONATA_EXPRESSION: Reference to '$$' is not supported. at /States/S/Output",
        ),
        (
            one(Type="Pass", Output="{% $states.result %}"),
            "UNSUPPORTED_JSONATA_EXPRESSION: Reference to '$states.result' is not supported. at /States/S/Output",
        ),
        (
            one(Type="Task", Resource=FUNCTION, Arguments=["{% $states.errorOutput %}"]),
            "UNSUPPORTED_JSONATA_EXPRESSION: Reference to '$states.errorOutput' is not supported. at /States/S/Arguments[0]",
        ),
        (one(Type="Pass", Output="{% a[1,2) %}"), 'INVALID_JSONATA_EXPRESSION: S0202: Expected "]", got ","'),
        (one(Type="Pass", Output="{% 1 %"), "must start with '{%' and end with '%}' at /States/S/Output"),
        (one(Type="Pass", Assign={"a-b": 1}), "'a-b' is not a valid variable name at /States/S/Assign"),
        (one(Type="Pass", Assign={"states": 1}), "'states' is not a valid variable name at /States/S/Assign"),
        (one(Type="Map", Items={"a": 1}), "Expected value of type Array at /States/S/Items"),
    ],
)
def test_refused_at_creation(definition: str, finding: str) -> None:
    with pytest.raises(InvalidDefinition) as caught:
        parse(definition)
    assert finding in str(caught.value)


def test_names_behind_the_first_step_are_not_at_the_top_level() -> None:
    texts = ["$states.input.items[value > 3]", "$states.input.(a + b)", "$states.input^(a)", '$states.input.{"k": b}']
    for text in texts:
        parse(one(Type="Pass", Output="{% " + text + " %}"))
