"""The index finds exactly what matching each rule alone finds, and looks at few rules that do not match."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.events import RULE_SETS, _event, measure
from entrepot.services.events import index_table
from entrepot.services.events.index import CROWD_LIMIT, PatternIndex
from entrepot.services.events.pattern import EventPattern
from tests.unit.test_events_pattern import EVENTS, FIELDS, KEYS, PRESENT_TESTS, as_pattern, not_within_each_other

TEXTS = st.text("xyXYßİ.*\\", max_size=4)
ADDRESSES = st.sampled_from(["10.0.0.1", "10.1.0.1", "::1", "fe80::1", "10.0.0", "x"])
NUMBERS = st.one_of(st.integers(-3, 12), st.floats(-3, 12, allow_nan=False), st.just(2**70))
MORE_TESTS = st.one_of(
    PRESENT_TESTS,
    st.builds(lambda text: {"prefix": {"equals-ignore-case": text}}, TEXTS),
    st.builds(lambda text: {"suffix": {"equals-ignore-case": text}}, TEXTS),
    st.builds(lambda text: {"equals-ignore-case": text}, TEXTS),
    st.builds(lambda text: {"cidr": text}, st.sampled_from(["10.0.0.0/8", "10.0.0.0/16", "::/8", "fe80::/10"])),
    st.builds(lambda low, more: {"numeric": [">=", low, "<", low + more]}, NUMBERS, st.integers(1, 5)),
    st.builds(lambda bound: {"numeric": ["<", bound]}, NUMBERS),
    st.builds(lambda texts: {"anything-but": {"suffix": texts}}, st.lists(TEXTS.filter(bool), min_size=1, max_size=2)),
)
ABSENT = st.just({"exists": False})
MORE_FIELDS = st.one_of(
    FIELDS,
    st.dictionaries(KEYS, st.lists(st.one_of(MORE_TESTS, ABSENT), min_size=1, max_size=3), min_size=1, max_size=3),
)
MORE_EVENTS = st.one_of(
    EVENTS,
    st.dictionaries(
        st.sampled_from(["a", "b", "c", "a.b"]),
        st.one_of(
            TEXTS,
            ADDRESSES,
            NUMBERS,
            st.booleans(),
            st.none(),
            st.lists(st.one_of(TEXTS, NUMBERS, ADDRESSES), max_size=3),
        ),
        max_size=4,
    ),
)


def patterns_of(fields: dict[str, Any], branches: list[dict[str, Any]]) -> dict[str, Any]:
    pattern = json.loads(as_pattern(fields))
    if len(branches) > 1 and all(not_within_each_other({**fields, **branch}) for branch in branches):
        pattern["$or"] = [json.loads(as_pattern(branch)) for branch in branches]
    return pattern


PATTERNS = st.builds(patterns_of, MORE_FIELDS, st.lists(MORE_FIELDS, max_size=2))


@settings(max_examples=300, deadline=None)
@given(st.lists(PATTERNS, min_size=1, max_size=25), st.lists(MORE_EVENTS, min_size=1, max_size=4), st.booleans())
def test_the_index_finds_what_each_rule_alone_would(
    patterns: list[dict[str, Any]], events: list[dict[str, Any]], few_ranges: bool
) -> None:
    compiled = [EventPattern.parse(json.dumps(pattern)) for pattern in patterns]
    with pytest.MonkeyPatch.context() as patched:
        if few_ranges:
            patched.setattr(index_table, "RANGES_LIMIT", 2)
        index = PatternIndex((pattern, number) for number, pattern in enumerate(compiled))
        for event in events * 2:  # The second time from what it remembers.
            assert index.matching(event) == [n for n, pattern in enumerate(compiled) if pattern.matches(event)]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(sorted(RULE_SETS)), min_size=1, max_size=30), st.integers(0, 40))
def test_rules_that_share_most_of_their_fields(names: list[str], number: int) -> None:
    compiled = [EventPattern.parse(json.dumps(RULE_SETS[name](place))) for place, name in enumerate(names)]
    index = PatternIndex(enumerate_pairs(compiled))
    event = _event(number)
    event["detail"]["object"]["size"] = number * 3
    assert index.matching(event) == [n for n, pattern in enumerate(compiled) if pattern.matches(event)]


def enumerate_pairs(compiled: list[EventPattern]) -> list[tuple[EventPattern, int]]:
    return [(pattern, number) for number, pattern in enumerate(compiled)]


@pytest.mark.parametrize("name", sorted(RULE_SETS))
def test_few_rules_come_into_question_however_many_there_are(name: str) -> None:
    for count in (10, 1000):
        index = PatternIndex((EventPattern.parse(json.dumps(RULE_SETS[name](n))), n) for n in range(count))
        assert len(index._candidates(_event(3))) <= CROWD_LIMIT


def test_two_fields_together_tell_rules_apart() -> None:
    rules = [
        (EventPattern.parse(json.dumps({"source": [f"s{a}"], "detail-type": [f"t{b}"]})), (a, b))
        for a in range(20)
        for b in range(20)
    ]
    index = PatternIndex(rules)
    event = {"source": "s3", "detail-type": "t7"}
    assert index.matching(event) == [(3, 7)]
    assert len(index._candidates(event)) <= CROWD_LIMIT


def test_an_array_of_equal_values_costs_each_rule_once() -> None:
    pattern = EventPattern.parse(json.dumps({"a": ["x"], "b": ["y"]}))
    index = PatternIndex((pattern, number) for number in range(300))
    event = {"a": ["x"] * 10_000, "b": "z"}
    assert index.matching(event) == []
    assert len(index._candidates(event)) <= 300


def test_what_is_remembered_is_bounded() -> None:
    pattern = EventPattern.parse(json.dumps({"a": [{"anything-but": "x"}]}))
    index = PatternIndex([(pattern, "rule")])
    for number in range(index_table.ANSWERS_LIMIT + 10):
        assert index.matching({"a": str(number)}) == index.matching({"a": "y" * 1000}) == ["rule"]
    table = index._top.root.below["a"].table
    assert table is not None and len(table._answers) <= index_table.ANSWERS_LIMIT
    assert max(len(str(value)) for value in table._answers) <= index_table.ANSWERED_TEXT_LIMIT


def test_the_measurement_runs() -> None:
    rows = measure(events=5, rounds=1)
    assert {row.rule_count for row in rows} == {1, 100, 300, 1000} and all(row.events_per_cpu_s > 0 for row in rows)
