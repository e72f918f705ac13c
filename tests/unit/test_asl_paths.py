"""Paths: syntax, what they find, what they say when they find nothing, and how long they may take."""

import contextlib
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrepot.services.stepfunctions.language import Scope, StatesError
from entrepot.services.stepfunctions.language.path import (
    parse_path,
    parse_reference_path,
    parse_result_path,
)
from entrepot.services.stepfunctions.language.path_syntax import SyntaxProblem, is_variable_name

STORE: dict[str, Any] = {
    "store": {
        "book": [
            {"title": "A", "price": 8, "tags": ["x", "y"], "isbn": None},
            {"title": "B", "price": 12.5, "tags": []},
            {"title": "C", "price": 22, "tags": ["y"], "used": True},
        ],
        "bicycle": {"price": 19, "a.b": 1, "it's": 2, "a b": 3, "Ünï": 4, "": 5},
    },
    "limit": 10,
    "text": "word",
    "nothing": None,
}
SCOPE = Scope(STORE, {"Execution": {"Id": "e"}, "a": [0, 1]}, {"v": {"w": [7]}, "größe": 3})


def find(text: str) -> Any:
    return parse_path(text, "x.$").evaluate(SCOPE)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$", STORE),
        ("$.limit", 10),
        ("$.nothing", None),
        ("$.store.book[1].title", "B"),
        ("$.store.book[-1].title", "C"),
        ("$['store']['bicycle']['a.b']", 1),
        ('$["store"]["bicycle"]["it\'s"]', 2),
        ("$.store.bicycle['it\\'s']", 2),
        ("$.store.bicycle.a\\.b", 1),
        ("$.store.bicycle['a b']", 3),
        ("$.store.bicycle.['a b']", 3),
        ("$.store.bicycle.Ünï", 4),
        ("$.store.bicycle['']", 5),
        ("$$.Execution.Id", "e"),
        ("$$['a'][1]", 1),
        ("$$", {"Execution": {"Id": "e"}, "a": [0, 1]}),
        ("$v.w[0]", 7),
        ("$größe", 3),
        ("$.store.book[*].title", ["A", "B", "C"]),
        ("$.store.book[0,2].title", ["A", "C"]),
        ("$.store.book[1:].title", ["B", "C"]),
        ("$.store.book[:1].title", ["A"]),
        ("$.store.book[-2:].title", ["B", "C"]),
        ("$.store.book[0:2].title", ["A", "B"]),
        ("$.store.book[7:].title", []),
        ("$..price", [8, 12.5, 22, 19]),
        ("$..book[0].title", ["A"]),
        ("$.store.*.price", [19]),
        ("$.store.bicycle['price','it\\'s']", {"price": 19, "it's": 2}),
        ("$.store.book[?(@.price > 10)].title", ["B", "C"]),
        ("$.store.book[?(@.price>=8 && @.price<20)].title", ["A", "B"]),
        ("$.store.book[?(@.price < 10 || @.used == true)].title", ["A", "C"]),
        ("$.store.book[?(!(@.used))].title", ["A", "B"]),
        ("$.store.book[?(@.isbn)].title", ["A"]),
        ("$.store.book[?(@.isbn == null)].title", ["A"]),
        ("$.store.book[?(@.price > $.limit)].title", ["B", "C"]),
        ("$.store.book[?(@.title in ['A','C'])].title", ["A", "C"]),
        ("$.store.book[?(@.title nin ['A'])].title", ["B", "C"]),
        ("$.store.book[?(@.tags contains 'y')].title", ["A", "C"]),
        ("$.store.book[?(@.tags size 2)].title", ["A"]),
        ("$.store.book[?(@.tags empty true)].title", ["B"]),
        ("$.store.book[?(@.tags anyof ['x'])].title", ["A"]),
        ("$.store.book[?(@.tags noneof ['x'])].title", ["B", "C"]),
        ("$.store.book[?(@.tags subsetof ['y'])].title", ["B", "C"]),
        ("$.store.book[?(@.price == '8')].title", ["A"]),
        ("$.store.book[?(@.title == A)].title", ["A"]),
        ("$.store.book[?(@.tags[0] == 'y')].title", ["C"]),
        ("$.store.book[?(@.title < 1)].title", []),
        ("$..[?(@.price == 19)]['a.b']", [1]),
        ("$.missing[*].x", []),
        ("$.limit[1:]", []),
        ("$.text[?(@.a)]", []),
    ],
)
def test_finds(text: str, value: Any) -> None:
    assert find(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "$.x",
        "$.store.x.y",
        "$.store.book[3]",
        "$.store.book.title",
        "$.text[0]",
        "$.text.a",
        "$.nothing.a",
        "$$.x",
        "$w",
    ],
)
def test_missing_definite_path_is_an_error(text: str) -> None:
    assert not parse_path(text, "x.$").exists(SCOPE)
    with pytest.raises(StatesError) as caught:
        find(text)
    assert caught.value.error == "States.Runtime"
    assert caught.value.cause.startswith(f"The JSONPath '{text}' specified for the field 'x.$' could not be found")


def test_cause_shows_the_input() -> None:
    with pytest.raises(StatesError) as caught:
        parse_path("$.a.b", "k.$").evaluate(Scope({"a": {}, "ü": 1.5}, {}, {}))
    assert caught.value.cause.endswith("""could not be found in the input '{"a":{},"ü":1.5}'""")


def test_cause_is_bounded() -> None:
    with pytest.raises(StatesError) as caught:
        parse_path("$.a", "k.$").evaluate(Scope({"b": "x" * 200_000}, {}, {}))
    assert len(caught.value.cause) < 32_768


@pytest.mark.parametrize(
    ("text", "field", "cause"),
    [
        ("$.a", "InputPath", "Invalid path '$.a' : No results for path: $['a']"),
        ("$.s.a", "OutputPath", "Invalid path '$.s.a' : No results for path: $['s']['a']"),
        ("$.a.b", "InputPath", "Invalid path '$.a.b' : Missing property in path $['a']"),
        ("$.l[4]", "InputPath", "Invalid path '$.l[4]' : No results for path: $['l'][4]"),
        ("$.a", "Variable", "Invalid path '$.a': The choice state's condition path references an invalid value."),
        ("$.s.a", "ItemsPath", 'Unable to apply step "a" to input {}'),
    ],
)
def test_causes_by_field(text: str, field: str, cause: str) -> None:
    with pytest.raises(StatesError) as caught:
        parse_path(text, field).evaluate(Scope({"s": {}, "l": []}, {}, {}))
    assert caught.value.cause == cause


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "a",
            "a.b",
            ".guid",
            "..guid",
            "()",
            "$...",
            "$.",
            "$..",
            "$. a",
            "$.a b",
            "$[",
            "$[]",
            "$['a",
            "$['a'",
            "$[a]",
        ),
        *("$$23", "$$a", "$1", "$_a", "$states.input", "$.a..", "$.a[", "$.a[1", "$.a[1:2:3]", "$.a[1,]", "$.a['b',]"),
        *("$.a.length()", "$.length()", "$[?(@.a =~ /x/)]", "$[?(@.a", "$[?@.a]", "$[?()]", "$[?(1)]", "$[?($$.a)]"),
        *("bug$.library", " $.a", "$.a ", "$.a\\", "$x-y", "$.a[99999999999]"),
    ],
)
def test_syntax_errors(text: str) -> None:
    with pytest.raises(SyntaxProblem):
        parse_path(text, "f")


@pytest.mark.parametrize("text", ["$.a[*]", "$..a", "$.a[1:]", "$.a[0,1]", "$['a','b']", "$.a[?(@.b)]", "$.*"])
def test_no_reference_path(text: str) -> None:
    parse_path(text, "f")
    with pytest.raises(SyntaxProblem):
        parse_reference_path(text, "f")


@pytest.mark.parametrize("text", ["$$", "$$.a", "$foo", "$foo.a"])
def test_result_path_is_below_the_input(text: str) -> None:
    with pytest.raises(SyntaxProblem):
        parse_result_path(text)


@pytest.mark.parametrize(
    ("name", "ok"),
    [("a", True), ("größe", True), ("a1_", True), ("_a", False), ("1", False), ("states", False), ("a-b", False)],
)
def test_variable_names(name: str, ok: bool) -> None:
    assert is_variable_name(name) is ok
    assert is_variable_name(name * 90) is False


@pytest.mark.parametrize(
    ("data", "path", "expected"),
    [
        ({"a": 1}, "$", 9),
        ({"a": 1}, "$.b", {"a": 1, "b": 9}),
        ({"a": {"x": 1}}, "$.a.b.c", {"a": {"x": 1, "b": {"c": 9}}}),
        ({"a": [1, {"b": 2}]}, "$.a[1].b", {"a": [1, {"b": 9}]}),
        ({"a": [1, 2]}, "$.a[-1]", {"a": [1, 9]}),
        ({}, "$.a\\.b", {"a.b": 9}),
        ([1, 2], "$[0]", [9, 2]),
    ],
)
def test_result_path_places(data: Any, path: str, expected: Any) -> None:
    before = repr(data)
    assert parse_result_path(path).place(data, 9) == expected
    assert repr(data) == before


@pytest.mark.parametrize(
    ("data", "path"),
    [
        ({"a": 1}, "$.a.b"),
        (None, "$.a"),
        ("x", "$.a"),
        ([1], "$.a"),
        ({}, "$[0]"),
        ({"a": []}, "$.a[0]"),
        ({}, "$.a[0]"),
    ],
)
def test_result_path_that_does_not_fit(data: Any, path: str) -> None:
    with pytest.raises(StatesError) as caught:
        parse_result_path(path).place(data, 9)
    assert caught.value.error == "States.ResultPathMatchFailure"
    assert caught.value.cause.startswith("Unable to apply step")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=15,
)
path_pieces = st.sampled_from(
    [".a", ".b", "[0]", "[-1]", "[*]", "..", "..a", ".*", "[1:]", "[?(@.a > 1)]", "[?(@..b)]", "['a','b']", "[0,1]"]
)


@given(st.lists(path_pieces, max_size=6), json_values)
def test_evaluation_raises_only_states_errors(pieces: list[str], data: Any) -> None:
    try:
        path = parse_path("$" + "".join(pieces), "f")
    except SyntaxProblem:
        return
    try:
        found = path.evaluate(Scope(data, {}, {}))
    except StatesError:
        assert path.definite
        assert not path.exists(Scope(data, {}, {}))
    else:
        assert path.definite or isinstance(found, list)


@given(st.text(alphabet="$.[]'\"ab01*?()@<>=!&|,: \\-", max_size=40))
def test_arbitrary_text_is_a_path_or_a_syntax_problem(text: str) -> None:
    try:
        path = parse_path("$" + text, "f")
    except SyntaxProblem:
        return
    with contextlib.suppress(StatesError):
        path.evaluate(Scope({"a": [{"b": 1}]}, {}, {}))


def test_walks_are_bounded() -> None:
    deep: Any = 1
    for _ in range(150):
        deep = {"a": deep, "b": [1] * 20}
    path = parse_path("$" + "..*" * 8, "f")
    started = time.monotonic()
    with pytest.raises(StatesError, match="visits more than"):
        path.evaluate(Scope(deep, {}, {}))
    assert time.monotonic() - started < 5
    nested_filters = parse_path("$..[?($..a)]", "f")
    with pytest.raises(StatesError, match="visits more than"):
        nested_filters.evaluate(Scope([{"a": n} for n in range(2000)], {}, {}))


def test_deep_filters_are_refused() -> None:
    with pytest.raises(SyntaxProblem, match="nested"):
        parse_path("$[?" + "(" * 500 + "@.a" + ")" * 500 + "]", "f")
    with pytest.raises(SyntaxProblem):
        parse_path("$" + "[?(@" * 300, "f")
