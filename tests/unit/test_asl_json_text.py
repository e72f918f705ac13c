"""JSON as Step Functions reads and writes it."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrepot.services.stepfunctions.language.json_text import MAX_DEPTH, InvalidJson, dumps, loads

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(values)
def test_round_trip(value: Any) -> None:
    text = dumps(value)
    text.encode()
    assert loads(text) == json.loads(text)
    assert dumps(loads(text)) == text


def test_integers_and_floats_stay_what_they_are() -> None:
    assert dumps(loads("[1, 1.0, 12345678901234567890, -0.5]")) == "[1,1.0,12345678901234567890,-0.5]"


def test_output_is_compact_and_keeps_letters() -> None:
    assert dumps({"ä": ["é", "\x00"]}) == '{"ä":["é","\\u0000"]}'


def test_half_a_surrogate_pair_can_be_written() -> None:
    assert loads(dumps("\ud800")) == "\ud800"
    dumps("\ud800ä").encode()


def test_last_of_duplicate_keys_wins() -> None:
    assert loads('{"a":1,"a":2}') == {"a": 2}


@pytest.mark.parametrize(
    "text", ["", "nul", "NaN", "[Infinity]", "-Infinity", "1e999", "[1,]", "'a'", "1" * 5000, "01"]
)
def test_refused(text: str) -> None:
    with pytest.raises(InvalidJson):
        loads(text)


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"[{":', "}"), ('{"\\\\\\"":[', "]}")])
def test_depth_is_bounded_exactly(opening: str, closing: str) -> None:
    levels = opening.count("[") - opening.count('"[{"') + opening.count("{") - opening.count('"[{"')
    deepest = MAX_DEPTH // levels
    loads(opening * deepest + "1" + closing * deepest)
    with pytest.raises(InvalidJson, match="nested"):
        loads(opening * (deepest + 1) + "1" + closing * (deepest + 1))


def test_many_brackets_are_not_deep() -> None:
    text = json.dumps([{"a": [1, '"[[[{{{\\']}] * 1000)
    assert loads(text) == json.loads(text)


@given(st.text(alphabet='[]{}",:\\a1 ', max_size=60))
def test_arbitrary_text_raises_only_invalid_json(text: str) -> None:
    with contextlib.suppress(InvalidJson):
        assert loads(text, max_depth=3) == json.loads(text)


def test_absurd_depth_is_refused_quickly() -> None:
    with pytest.raises(InvalidJson):
        loads("[" * 200_000)


def test_what_is_written_can_be_read_back() -> None:
    value: object = 1
    for _ in range(MAX_DEPTH):
        value = {"a": value}
    assert loads(dumps(value)) == value
    with pytest.raises(InvalidJson, match="nested"):
        dumps([value])
    for _ in range(5_000):
        value = [value]
    with pytest.raises(InvalidJson, match="nested"):
        dumps(value)
