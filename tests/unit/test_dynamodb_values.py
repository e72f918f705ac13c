"""Attribute values: numbers, their order as keys, sizes, and what is refused."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entrepot.services.dynamodb.encoding import decode_body, decode_number, encode_body, encode_number
from entrepot.services.dynamodb.errors import ValidationException
from entrepot.services.dynamodb.values import (
    MAX_DEPTH,
    add_numbers,
    from_item,
    normalise,
    normalise_item,
    normalise_number,
    to_item,
)

digits = st.integers(min_value=-(10**38) + 1, max_value=10**38 - 1)
numbers = st.builds(lambda n, e: Decimal(n).scaleb(e), digits, st.integers(min_value=-130, max_value=87))


@given(numbers, numbers)
@settings(max_examples=250)
def test_encoded_numbers_are_in_numeric_order_and_come_back(a: Decimal, b: Decimal) -> None:
    first, second = normalise_number(str(a)), normalise_number(str(b))
    assert Decimal(first) == a
    assert (encode_number(first) < encode_number(second)) == (a < b)
    assert (encode_number(first) == encode_number(second)) == (a == b)
    assert decode_number(encode_number(first)) == first


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("0", "0"), ("-0", "0"), ("0.000", "0"), ("007", "7"), ("+1", "1"), ("1.50", "1.5"), (".5", "0.5"), ("5.", "5"),
        ("1e3", "1000"), ("1E-3", "0.001"), ("-1200e-2", "-12"), ("123456789.0123", "123456789.0123"),
        ("9" * 38, "9" * 38), ("9" * 38 + "00", "9" * 38 + "00"), ("1e125", "1" + "0" * 125), ("1e-130", "0." + "0" * 129 + "1"),
    ],
)  # fmt: skip
def test_numbers_are_normalised_as_aws_does(text: str, normalised: str) -> None:
    assert normalise_number(text) == normalised


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be converted to a numeric value"),
        ("abc", "cannot be converted to a numeric value: abc"),
        ("1_000", "cannot be converted"),
        ("NaN", "cannot be converted"),
        ("Infinity", "cannot be converted"),
        ("١", "cannot be converted"),
        ("1 ", "cannot be converted"),
        ("9" * 39, "more than 38 significant digits"),
        ("1e126", "Number overflow"),
        ("1e-131", "Number underflow"),
        ("1e999999999", "Number overflow"),
        (1, "cannot be converted"),
    ],
)
def test_numbers_that_are_refused(text: Any, message: str) -> None:
    with pytest.raises(ValidationException, match=message):
        normalise_number(text)


def test_arithmetic_is_exact() -> None:
    assert add_numbers("0.1", "0.2") == "0.3"
    assert add_numbers("1", "1", subtract=True) == "0"
    with pytest.raises(ValidationException, match="38 significant digits"):
        add_numbers("1" + "0" * 125, "0." + "0" * 129 + "1")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, "Supplied AttributeValue is empty"),
        ({"S": "a", "N": "1"}, "more than one datatypes set"),
        ({"X": "a"}, "Supplied AttributeValue is empty"),
        ({"S": 1}, "wrong form"),
        ({"B": "text"}, "wrong form"),
        ({"BOOL": "true"}, "wrong form"),
        ({"NULL": False}, "must have the value of true"),
        ({"SS": []}, "An string set  may not be empty"),
        ({"NS": ["1", "1.0"]}, r"Input collection \[1, 1.0\] contains duplicates"),
        ({"SS": ["a", 1]}, "wrong form"),
        ({"S": "\ud800"}, "UTF-8"),
        ("S", "Supplied AttributeValue is empty"),
    ],
)
def test_values_that_are_refused(value: Any, message: str) -> None:
    with pytest.raises(ValidationException, match=message):
        normalise(value)


def test_nesting_is_bounded() -> None:
    value: Any = {"S": "x"}
    for _ in range(MAX_DEPTH):
        value = {"L": [value]}
    normalise(value)
    with pytest.raises(ValidationException, match="Nesting Levels"):
        normalise({"M": {"a": value}})


attribute_values = st.recursive(
    st.one_of(
        st.text(max_size=8).map(lambda s: {"S": s}),
        st.integers().map(lambda n: {"N": str(n % 10**30)}),
        st.binary(max_size=8).map(lambda b: {"B": b}),
        st.booleans().map(lambda b: {"BOOL": b}),
        st.just({"NULL": True}),
        st.sets(st.text(max_size=4), min_size=1, max_size=3).map(lambda s: {"SS": list(s)}),
        st.sets(st.integers(0, 99).map(str), min_size=1, max_size=3).map(lambda s: {"NS": list(s)}),
        st.sets(st.binary(max_size=4), min_size=1, max_size=3).map(lambda s: {"BS": list(s)}),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda v: {"L": v}),
        st.dictionaries(st.text(max_size=4), inner, max_size=3).map(lambda v: {"M": v}),
    ),
    max_leaves=8,
)
items = st.dictionaries(st.text(min_size=1, max_size=6), attribute_values, max_size=5)


@given(items)
@settings(max_examples=300)
def test_an_item_comes_back_from_the_ledger_as_it_was(item: dict[str, Any]) -> None:
    normalised, size_bytes = normalise_item(item)
    assert decode_body(encode_body(normalised, ("k",))) == {k: v for k, v in normalised.items() if k != "k"}
    assert size_bytes >= sum(len(name.encode()) for name in item)
    assert normalise_item(normalised)[0] == normalised


@given(st.dictionaries(st.text(min_size=1, max_size=4), st.recursive(
    st.one_of(st.text(max_size=5), st.integers(-(10**30), 10**30), st.booleans(), st.none(), st.binary(max_size=4)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=6,
), max_size=4))  # fmt: skip
def test_plain_values_come_back(values: dict[str, Any]) -> None:
    assert from_item(normalise_item(to_item(values))[0]) == values


def test_sizes_are_counted_as_aws_counts() -> None:
    assert normalise_item({"ab": {"S": "é"}})[1] == 4
    assert normalise_item({"n": {"N": "-12.50"}})[1] == 1 + 4
    assert normalise({"BOOL": True})[1] == normalise({"NULL": True})[1] == 1
    assert normalise({"L": []})[1] == 3
    assert normalise({"M": {"a": {"S": "b"}}})[1] == 3 + 1 + 2
