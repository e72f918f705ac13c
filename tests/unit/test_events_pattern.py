"""Event patterns: against a brute-force oracle that works as AWS's event-ruler describes itself, and what is refused."""

import json
import re
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entrepot.services.events.errors import InvalidEventPatternError
from entrepot.services.events.index import PatternIndex
from entrepot.services.events.pattern import DEPTH_LIMIT, EventPattern, EventTooDeepError

# ── the oracle: flatten the event, then try every combination of fields ──────────────────────────────────────────────


def flatten(event: Any) -> list[tuple[str, Any, dict[int, int]]]:
    """Every scalar with its dotted name and the array elements that it lies in."""
    found: list[tuple[str, Any, dict[int, int]]] = []
    arrays = iter(range(1_000_000))

    def walk(value: Any, path: tuple[str, ...], membership: dict[int, int]) -> None:
        if isinstance(value, dict):
            for key, below in value.items():
                walk(below, (*path, key), membership)
        elif isinstance(value, list):
            array = next(arrays)
            for place, element in enumerate(value):
                nested = isinstance(element, dict | list)
                walk(element, path, {**membership, array: place} if nested else membership)
        else:
            found.append((".".join(path), value, membership))

    walk(event, (), {})
    return found


def consistent(one: dict[int, int], other: dict[int, int]) -> bool:
    return all(other.get(array, place) == place for array, place in one.items())


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def same(one: Any, other: Any) -> bool:
    if is_number(one) and is_number(other):
        return float(one) == float(other)
    return type(one) is type(other) and one == other


def wildcard(pattern: str, value: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), value, re.DOTALL) is not None


def accepts(test: Any, value: Any) -> bool:
    if not isinstance(test, dict):
        return same(test, value)
    ((operator, argument),) = test.items()
    text = value if isinstance(value, str) else None
    match operator:
        case "exists":
            return argument is True
        case "prefix":
            return text is not None and text[: len(argument)] == argument
        case "suffix":
            return text is not None and (argument == "" or text[-len(argument) :] == argument)
        case "equals-ignore-case":
            return text is not None and text.lower() == argument.lower()
        case "wildcard":
            return text is not None and wildcard(argument, text)
        case "anything-but":
            if isinstance(argument, dict):
                return not any(accepts({name: one}, value) for name, one in argument.items())
            return not any(same(one, value) for one in (argument if isinstance(argument, list) else [argument]))
        case "numeric":
            pairs = zip(argument[::2], argument[1::2], strict=True)
            compare = {"=": "__eq__", "<": "__lt__", "<=": "__le__", ">": "__gt__", ">=": "__ge__"}
            return is_number(value) and all(getattr(float(value), compare[name])(float(bound)) for name, bound in pairs)
    raise AssertionError(operator)


def oracle(fields: dict[str, list[Any]], event: Any) -> bool:
    facts = flatten(event)
    names = sorted(fields)

    def go(position: int, chosen: dict[int, int]) -> bool:
        if position == len(names):
            return True
        name, tests = names[position], fields[names[position]]
        if {"exists": False} in tests and not any(n == name and consistent(chosen, m) for n, _, m in facts):
            return go(position + 1, chosen)
        return any(
            go(position + 1, {**chosen, **membership})
            for field, value, membership in facts
            if field == name
            and consistent(chosen, membership)
            and any(accepts(test, value) for test in tests if test != {"exists": False})
        )

    return go(0, {})


# ── what is generated ────────────────────────────────────────────────────────────────────────────────────────────────

KEYS = st.sampled_from("abc")
TEXTS = st.text("xyX.", max_size=4)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-2, 3), st.sampled_from([1.0, 2.5]), TEXTS)
EVENTS = st.dictionaries(
    KEYS,
    st.recursive(
        SCALARS,
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
        max_leaves=12,
    ),
    max_size=3,
)
WILDCARDS = st.text("xy*", min_size=1, max_size=5).filter(lambda text: "**" not in text)
PRESENT_TESTS = st.one_of(
    SCALARS,
    st.just({"exists": True}),
    st.builds(lambda text: {"prefix": text}, TEXTS),
    st.builds(lambda text: {"suffix": text}, TEXTS),
    st.builds(lambda text: {"equals-ignore-case": text}, TEXTS),
    st.builds(lambda text: {"wildcard": text}, WILDCARDS),
    st.builds(lambda value: {"anything-but": value}, st.one_of(TEXTS, st.integers(-2, 3), st.just(2.5))),
    st.builds(lambda values: {"anything-but": values}, st.lists(TEXTS, min_size=1, max_size=3)),
    st.builds(lambda text: {"anything-but": {"prefix": text}}, TEXTS.filter(bool)),
    st.builds(lambda text: {"anything-but": {"wildcard": text}}, WILDCARDS),
    st.builds(
        lambda name, bound: {"numeric": [name, bound]}, st.sampled_from(["=", "<", "<=", ">", ">="]), st.integers(-1, 3)
    ),
    st.builds(lambda low, more: {"numeric": [">", low, "<=", low + more]}, st.integers(-2, 1), st.integers(1, 3)),
)
LEAVES = st.one_of(st.lists(PRESENT_TESTS, min_size=1, max_size=2), st.just([{"exists": False}]))
PATHS = st.lists(KEYS, min_size=1, max_size=3).map(".".join)


def not_within_each_other(fields: dict[str, Any]) -> bool:
    return not any(one != other and other.startswith(one + ".") for one in fields for other in fields)


FIELDS = st.dictionaries(PATHS, LEAVES, min_size=1, max_size=4).filter(not_within_each_other)


def as_pattern(fields: dict[str, list[Any]]) -> str:
    pattern: dict[str, Any] = {}
    for path, tests in fields.items():
        *folders, name = path.split(".")
        below = pattern
        for folder in folders:
            below = below.setdefault(folder, {})
        below[name] = tests
    return json.dumps(pattern)


@settings(max_examples=250, deadline=None)
@given(FIELDS, EVENTS)
def test_agrees_with_the_oracle(fields: dict[str, list[Any]], event: dict[str, Any]) -> None:
    assert EventPattern.parse(as_pattern(fields)).matches(event) is oracle(fields, event)


@settings(max_examples=60, deadline=None)
@given(st.lists(FIELDS, min_size=1, max_size=8), EVENTS)
def test_the_index_finds_what_each_pattern_alone_would(
    patterns: list[dict[str, list[Any]]], event: dict[str, Any]
) -> None:
    compiled = [EventPattern.parse(as_pattern(fields)) for fields in patterns]
    index = PatternIndex((pattern, number) for number, pattern in enumerate(compiled))
    assert index.matching(event) == [number for number, fields in enumerate(patterns) if oracle(fields, event)]


@settings(max_examples=60, deadline=None)
@given(st.lists(FIELDS, min_size=2, max_size=3), FIELDS, EVENTS)
def test_or_is_one_of_its_branches(
    branches: list[dict[str, Any]], common: dict[str, Any], event: dict[str, Any]
) -> None:
    combined = [{**common, **branch} for branch in branches]
    if not all(map(not_within_each_other, combined)):
        return
    pattern = {**json.loads(as_pattern_flat(common)), "$or": [json.loads(as_pattern_flat(b)) for b in branches]}
    assert EventPattern.parse(json.dumps(pattern)).matches(event) is any(oracle(fields, event) for fields in combined)


def as_pattern_flat(fields: dict[str, list[Any]]) -> str:
    """Dotted keys are nested objects to a pattern."""
    return json.dumps(fields)


@settings(max_examples=60, deadline=None)
@given(
    st.text(max_size=60) | st.recursive(SCALARS, lambda i: st.lists(i) | st.dictionaries(st.text(), i)).map(json.dumps)
)
def test_any_text_is_a_pattern_or_refused(text: str) -> None:
    try:
        EventPattern.parse(text)
    except InvalidEventPatternError as error:
        assert error.message.startswith("Event pattern is not valid. Reason: ")


# ── single facts ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("pattern", "event", "expected"),
    [
        ('{"n": [300]}', '{"n": 3.0e2}', True),
        ('{"n": [3.0e2]}', '{"n": "300"}', False),
        ('{"n": [1]}', '{"n": true}', False),
        ('{"n": [null]}', '{"n": "null"}', False),
        ('{"n": [{"numeric": ["=", 0.1]}]}', '{"n": 0.10}', True),
        ('{"n": ["a"], "n": ["b"]}', '{"n": "b"}', True),
        ('{"n": ["a"], "n": ["b"]}', '{"n": "a"}', False),
        ('{"n": {"a": [1]}, "n": {"b": [2]}}', '{"n": {"a": 1, "b": 2}}', True),
        ('{"n": {"a": [1]}, "n": {"b": [2]}}', '{"n": {"b": 2}}', False),
        ('{"a": [{"prefix": {"equals-ignore-case": "EvenT"}}]}', '{"a": "eVENTs"}', True),
        ('{"a": [{"anything-but": {"suffix": ["/", ".filepart"]}}]}', '{"a": "in/x.csv.filepart"}', False),
        ('{"a": [{"anything-but": {"suffix": ["/", ".filepart"]}}]}', '{"a": "in/x.csv"}', True),
        ('{"a": [{"anything-but": {"equals-ignore-case": ["x"]}}]}', '{"a": "X"}', False),
        ('{"a": [{"wildcard": "dir/\\\\*.png"}]}', '{"a": "dir/*.png"}', True),
        ('{"a": [{"wildcard": "dir/\\\\*.png"}]}', '{"a": "dir/x.png"}', False),
        ('{"a": [{"wildcard": "*.png"}]}', '{"a": ".png"}', True),
        ('{"a": [{"wildcard": "a*a"}]}', '{"a": "a"}', False),
        ('{"a": [{"cidr": "10.0.0.0/24"}]}', '{"a": "10.0.0.255"}', True),
        ('{"a": [{"cidr": "10.0.0.0/24"}]}', '{"a": "10.0.1.0"}', False),
        ('{"a": [{"cidr": "10.0.0.0/24"}]}', '{"a": "::ffff:10.0.0.1"}', False),
        ('{"a": [{"cidr": "2001:db8::/64"}]}', '{"a": "2001:db8::1"}', True),
        ('{"a.b": ["x"]}', '{"a": {"b": "x"}}', True),
        ('{"a": {"b": ["x"]}}', '{"a.b": "x"}', True),
        ('{"a": {"b": ["x"]}}', '{"a.b": "y", "a": {"b": "x"}}', True),
        ('{"a": {"b": [1]}}', '{"a": [[{"b": 1}]]}', True),
        ('{"a": [{"exists": false}]}', '{"a": {"b": 1}}', True),
        ('{"a": [{"exists": true}]}', '{"a": {"b": 1}}', False),
        ('{"a": [{"exists": true}]}', '{"a": null}', True),
        ('{"$or": [{"a": [1]}, {"$or": [{"b": [1]}, {"c": [1]}]}]}', '{"c": 1}', True),
    ],
)  # fmt: skip
def test_matches_as_documented(pattern: str, event: str, expected: bool) -> None:
    assert EventPattern.parse(pattern).matches(json.loads(event)) is expected


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("[]", "Filter is not an object"),
        ("{}", "Empty objects are not allowed"),
        ('{"a": {}}', "Empty objects are not allowed"),
        ('{"a": [[1]]}', "Match value must be String, number, true, false, or null"),
        ('{"a": [{}]}', "Match expression name not found"),
        ('{"a": [{"regex": "x"}]}', "Unrecognized match type regex"),
        ('{"a": [{"prefix": "x", "suffix": "y"}]}', "Only one key allowed in match expression"),
        ('{"a": [{"exists": "true"}]}', "exists match pattern must be either true or false."),
        ('{"a": [{"numeric": [">", 2, "<", 1]}]}', "Bottom must be less than top"),
        ('{"a": [{"numeric": ["!", 2]}]}', "Unrecognized numeric range operator: !"),
        ('{"a": [{"numeric": [">", true]}]}', "Value of > must be numeric"),
        ('{"a": [{"numeric": []}]}', "Invalid member in numeric match"),
        ('{"a": [{"cidr": "10.0.0.0/32"}]}', "IPv4 mask bits must be < 32"),
        ('{"a": [{"cidr": "10.0.0.256/8"}]}', "Invalid IP address: 10.0.0.256"),
        ('{"a": [{"anything-but": [1, "x"]}]}', "Inside anything but list, either all values are number or string"),
        ('{"a": [{"anything-but": {"numeric": [1]}}]}', "Unsupported anything-but pattern: numeric"),
        ('{"a": [{"wildcard": "a\\\\b"}]}', "Invalid escape character at pos 2"),
        ('{"$or": [{"a": [1]}]}', "There must have at least 2 Objects in $or relationship."),
        ('{"$or": {"a": [1]}}', "It must be an Array followed with $or."),
        ('{"$or": [{"a": [1]}, 2]}', "Only JSON object is allowed in array of $or relationship."),
        ('{"$or": [{"prefix": [1]}, {"a": [1]}]}', "prefix is Ruler reserved fieldName which cannot be used inside $or."),
        ('{"a": [NaN]}', "Unrecognized token 'NaN'"),
        ('{"a": [1e999]}', "number out of range"),
        ("[" * 100_000, "The pattern nests deeper"),
        ('{"a":' * 150 + "[1]" + "}" * 150, "The pattern nests deeper"),
    ],
)  # fmt: skip
def test_refuses_with_the_reason(pattern: str, reason: str) -> None:
    with pytest.raises(InvalidEventPatternError) as refused:
        EventPattern.parse(pattern)
    assert refused.value.message.startswith(f"Event pattern is not valid. Reason: {reason}")


def test_or_cannot_multiply_without_bound() -> None:
    branches = [{"a": [number]} for number in range(11)]
    pattern = {"x": {"$or": branches}, "y": {"$or": branches}, "z": {"$or": branches}}
    with pytest.raises(InvalidEventPatternError, match="too complex"):
        EventPattern.parse(json.dumps(pattern))


def test_an_event_that_nests_too_deep_is_refused() -> None:
    event: Any = 1
    for _ in range(DEPTH_LIMIT + 2):
        event = [event]
    with pytest.raises(EventTooDeepError):
        EventPattern.parse('{"a": [1]}').matches({"a": event})
    with pytest.raises(EventTooDeepError):
        EventPattern.parse('{"a": [1]}').matches({"x.y": event})


def test_wildcards_do_not_go_back() -> None:
    pattern = EventPattern.parse('{"a": [{"wildcard": "*a*a*a*a*b"}]}')
    began = time.perf_counter()
    assert not pattern.matches({"a": "a" * 200_000})
    assert time.perf_counter() - began < 1  # Backtracking would take years.


def test_many_fields_in_many_arrays_stay_linear() -> None:
    fields = {f"k{number}": [{"exists": True}] for number in range(20)}
    event = {"d": [{f"k{number}": number for number in range(20) if number != place % 20} for place in range(2000)]}
    pattern = EventPattern.parse(json.dumps({"d": fields}))
    began = time.perf_counter()
    assert not pattern.matches(event)
    assert time.perf_counter() - began < 1
