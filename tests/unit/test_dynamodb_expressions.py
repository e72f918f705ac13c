"""The expression language: what it means, what AWS refuses in which words, and that nothing else ever comes out."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entrepot.services.dynamodb.binding import Binding
from entrepot.services.dynamodb.conditions import bind_condition
from entrepot.services.dynamodb.errors import ValidationException
from entrepot.services.dynamodb.expressions import Parsed, parse_condition, parse_projection, parse_update
from entrepot.services.dynamodb.requests import project
from entrepot.services.dynamodb.reserved_words import RESERVED_WORDS
from entrepot.services.dynamodb.updates import Update

ITEM: dict[str, Any] = {
    "id": {"S": "x"},
    "n": {"N": "5"},
    "s": {"S": "hello"},
    "b": {"B": b"\x01\x02"},
    "tags": {"SS": ["a", "b"]},
    "nums": {"NS": ["1", "2"]},
    "lst": {"L": [{"S": "zero"}, {"N": "1"}, {"M": {"deep": {"S": "yes"}}}]},
    "mp": {"M": {"kid": {"N": "7"}, "dotted.name": {"BOOL": True}}},
    "nothing": {"NULL": True},
}
VALUES: dict[str, Any] = {
    ":five": {"N": "5.0"}, ":six": {"N": "6"}, ":four": {"N": "4"}, ":hello": {"S": "hello"}, ":he": {"S": "he"},
    ":a": {"S": "a"},
    ":b": {"B": b"\x01\x02"}, ":b1": {"B": b"\x01"}, ":one": {"N": "1"}, ":typeS": {"S": "S"}, ":typeNULL": {"S": "NULL"},
    ":tags": {"SS": ["b", "a"]}, ":zero": {"S": "zero"}, ":true": {"BOOL": True}, ":lst": {"L": [{"S": "x"}]},
    ":bc": {"SS": ["b", "c"]}, ":ab": {"SS": ["a", "b"]}, ":mp": {"M": {}},
}  # fmt: skip
NAMES = {"#d": "dotted.name", "#status": "status", "#n": "n"}


def bind(parsed: Parsed) -> Binding:
    names = {key: NAMES[key] for key in parsed.names} or None
    values = {key: VALUES[key] for key in parsed.values} or None
    return Binding([parsed], names, values, parsed.parameter)


def holds(text: str) -> bool:
    parsed = parse_condition(text, "ConditionExpression")
    assert parsed.condition is not None
    return bind_condition(parsed.condition, bind(parsed), "ConditionExpression")(ITEM)


def update(text: str, item: dict[str, Any] | None = None) -> dict[str, Any]:
    parsed = parse_update(text)
    return Update(parsed, bind(parsed), ("id",)).apply(ITEM if item is None else item)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("n = :five", True), ("#n = :five", True), ("n <> :five", False), ("n < :six", True), ("n <= :five", True),
        ("n > :five", False), ("n >= :five", True), (":six > n", True), ("n = :hello", False), ("n < :hello", False),
        ("absent = :five", False), ("absent <> :five", True), ("absent < :five", False), ("tags = :tags", True),
        ("b = :b", True), ("begins_with(b, :b1)", True), ("begins_with(s, :he)", True), ("begins_with(n, :he)", False),
        ("contains(s, :he)", True), ("contains(tags, :a)", True), ("contains(tags, :he)", False), ("contains(nums, :one)", True),
        ("contains(lst, :zero)", True), ("contains(lst, :one)", True), ("contains(absent, :a)", False),
        ("attribute_exists(mp.kid)", True), ("attribute_exists(mp.#d)", True), ("attribute_not_exists(mp.another)", True),
        ("attribute_exists(lst[2].deep)", True), ("attribute_exists(lst[3])", False), ("attribute_exists(n[0])", False),
        ("attribute_type(s, :typeS)", True), ("attribute_type(nothing, :typeNULL)", True), ("attribute_type(n, :typeS)", False),
        ("size(s) = :five", True), ("size(tags) < :five", True), ("size(n) > :one", False),
        ("size(lst) BETWEEN :one AND :five", True),
        ("n BETWEEN :four AND :six", True), ("n BETWEEN :six AND :six", False), ("s IN (:a, :hello)", True), ("s IN (:a)", False),
        ("NOT n = :five", False), ("NOT NOT n = :five", True), ("n = :six OR n = :five AND s = :hello", True),
        ("(n = :six OR n = :five) AND s = :a", False), ("not (n = :six) aNd s = :hello", True),
        ("n = :six AND absent = :a OR s = :hello", True),
    ],
)  # fmt: skip
def test_conditions(text: str, expected: bool) -> None:
    assert holds(text) is expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Invalid ConditionExpression: The expression can not be empty;"),
        ("a = = :five", 'Syntax error; token: "=", near: "= = :five"'),
        ("a =", 'Syntax error; token: "<EOF>", near: "="'),
        ("a ! :five", 'Syntax error; token: "!"'),
        ("a = :five)", 'Syntax error; token: ")"'),
        ("status = :five", "Attribute name is a reserved keyword; reserved keyword: status"),
        ("a.Name = :five", "Attribute name is a reserved keyword; reserved keyword: Name"),
        ("#x = :five", "attribute name used in the document path is not defined; attribute name: #x"),
        ("a = :x", "attribute value used in expression is not defined; attribute value: :x"),
        ("a = a", "The first operand must be distinct from the remaining operands"),
        ("((a = :five))", "The expression has redundant parentheses;"),
        ("foo(a)", "Invalid function name; function: foo"),
        ("if_not_exists(a, :five)", "The function is not allowed in a condition expression; function: if_not_exists"),
        ("attribute_exists(a, b)", "operator or function: attribute_exists, number of operands: 2"),
        ("attribute_exists(:five)", "requires a document path; operator or function: attribute_exists"),
        ("begins_with(a, :five)", "operator or function: begins_with, operand type: N"),
        ("a < :true", "operator or function: <, operand type: BOOL"),
        ("a BETWEEN :six AND :five", "requires upper bound to be greater than or equal to lower bound"),
        ("a BETWEEN :hello AND :five", "requires same data type for lower and upper bounds"),
        ("attribute_type(a, :a)", "Invalid attribute type name found; type: a"),
        ("size(a)", "function: size"),
        ("a[1.5] = :five", "Syntax error"),
        ("a = :five AND", 'token: "<EOF>"'),
        ("(" * 4000, "nested too deeply"),
        ("NOT " * 1000 + "a = :five", "nested too deeply"),
        ("a = :five" + " AND a = :five" * 250, "too many operators"),
        ("a" * 5000, "Expression size has exceeded the maximum allowed size; expression size: 5000"),
    ],
)
def test_conditions_that_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValidationException) as raised:
        parsed = parse_condition(text, "ConditionExpression")
        used = {key: value for key, value in VALUES.items() if key in parsed.values} or None
        binding = Binding([parsed], None, used, "ConditionExpression")
        assert parsed.condition is not None
        bind_condition(parsed.condition, binding, "ConditionExpression")
    assert message in raised.value.message
    assert raised.value.message.startswith("Invalid ConditionExpression: ")


def test_unused_placeholders_are_refused() -> None:
    parsed = parse_condition("#a = :a", "FilterExpression")
    a, more = {"#a": "x"}, {":a": {"S": ""}}
    with pytest.raises(ValidationException, match=r"ExpressionAttributeNames unused in expressions: keys: \{#b\}"):
        Binding([parsed], {**a, "#b": "y"}, more, "FilterExpression")
    with pytest.raises(ValidationException, match=r"ExpressionAttributeValues unused in expressions: keys: \{:b\}"):
        Binding([parsed], a, {**more, ":b": {"S": ""}}, "FilterExpression")
    with pytest.raises(ValidationException, match="can only be specified when using expressions"):
        Binding([], a, None, "FilterExpression")
    with pytest.raises(ValidationException, match=r"when using expressions: UpdateExpression and Cond.* are null"):
        Binding([], None, more, "UpdateExpression, ConditionExpression")
    with pytest.raises(ValidationException, match='contains invalid key: Syntax error; key: "a"'):
        Binding([parsed], {"a": "x"}, more, "FilterExpression")
    with pytest.raises(ValidationException, match="ExpressionAttributeNames must not be empty"):
        Binding([parsed], {}, more, "FilterExpression")


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("SET n = :six", "n", {"N": "6"}),
        ("set n = n + :one", "n", {"N": "6"}),
        ("SET n = :one - n", "n", {"N": "-4"}),
        ("SET fresh = if_not_exists(absent, :five)", "fresh", {"N": "5"}),
        ("SET n = if_not_exists(n, :one) + :one", "n", {"N": "6"}),
        ("SET lst = list_append(lst, :lst)", "lst", {"L": [*ITEM["lst"]["L"], {"S": "x"}]}),
        (
            "SET lst = list_append(if_not_exists(absent, :lst), lst)",
            "lst",
            {"L": [{"S": "x"}, *ITEM["lst"]["L"]]},
        ),
        ("SET lst[0] = :a", "lst", {"L": [{"S": "a"}, *ITEM["lst"]["L"][1:]]}),
        ("SET lst[99] = :a", "lst", {"L": [*ITEM["lst"]["L"], {"S": "a"}]}),
        ("SET lst[2].deep = n", "lst", {"L": [*ITEM["lst"]["L"][:2], {"M": {"deep": {"N": "5"}}}]}),
        ("SET mp.#d = :a", "mp", {"M": {"kid": {"N": "7"}, "dotted.name": {"S": "a"}}}),
        ("REMOVE lst[0], lst[2]", "lst", {"L": [{"N": "1"}]}),
        ("REMOVE mp.kid", "mp", {"M": {"dotted.name": {"BOOL": True}}}),
        ("REMOVE s", "s", None),
        ("REMOVE absent", "absent", None),
        ("ADD n :one", "n", {"N": "6"}),
        ("ADD fresh :one", "fresh", {"N": "1"}),
        ("ADD tags :bc", "tags", {"SS": ["a", "b", "c"]}),
        ("DELETE tags :bc", "tags", {"SS": ["a"]}),
        ("DELETE tags :ab", "tags", None),
        ("DELETE absent :ab", "absent", None),
        ("SET n = s, s = n", "n", {"S": "hello"}),
        ("SET n = s, s = n", "s", {"N": "5"}),
        ("REMOVE n SET s = n", "s", {"N": "5"}),
    ],
)
def test_updates(text: str, name: str, expected: Any) -> None:
    before = repr(ITEM)
    assert update(text).get(name) == expected
    assert repr(ITEM) == before, "the item before the update must stay as it was"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SET n = :one SET s = :a", 'The "SET" section can only be used once in an update expression;'),
        ("SET n = :one, n = :five", "Two document paths overlap with each other; must remove or rewrite one of these paths; "
         "path one: [n], path two: [n]"),
        ("SET mp.kid = :one REMOVE mp", "Two document paths overlap"),
        ("SET mp.kid = :one, mp[0] = :five", "Two document paths conflict with each other"),
        ("SET id = :one", "Cannot update attribute id. This attribute is part of the key"),
        ("SET n = absent", "The provided expression refers to an attribute that does not exist in the item"),
        ("SET n = s + :one", "An operand in the update expression has an incorrect data type"),
        ("SET n = n + :a", "Incorrect operand type for operator or function; operator or function: +, operand type: S"),
        ("SET n = list_append(n, :lst)", "An operand in the update expression has an incorrect data type"),
        ("SET n.x = :one", "The document path provided in the update expression is invalid for update"),
        ("SET absent.x = :one", "The document path provided in the update expression is invalid for update"),
        ("REMOVE absent.x", "The document path provided in the update expression is invalid for update"),
        ("ADD s :one", "An operand in the update expression has an incorrect data type"),
        ("ADD n :a", "Incorrect operand type for operator or function; operator: ADD, operand type: STRING"),
        ("DELETE n :one", "operator: DELETE, operand type: NUMBER"),
        ("ADD n n", "Syntax error"),
        ("SET n", "Syntax error"),
        ("n = :one", "Syntax error"),
        ("SET n = contains(n, :one)", "The function is not allowed in an update expression; function: contains"),
        ("SET status = :one", "reserved keyword: status"),
        ("SET n = " + "(" * 1000 + ":one" + ")" * 1000, "nested too deeply"),
    ],
)  # fmt: skip
def test_updates_that_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValidationException) as raised:
        update(text)
    assert message in raised.value.message


def test_projection() -> None:
    parsed = parse_projection("mp.kid, lst[2].deep, lst[0], absent, s")
    assert project(ITEM, [bind(parsed).path(path) for path in parsed.paths]) == {
        "mp": {"M": {"kid": {"N": "7"}}},
        "lst": {"L": [{"S": "zero"}, {"M": {"deep": {"S": "yes"}}}]},
        "s": {"S": "hello"},
    }


def test_reserved_words_are_awss() -> None:
    assert {"STATUS", "NAME", "DATA", "COUNT", "TTL", "ZONE", "ABORT", "KEY", "SOURCE"} <= RESERVED_WORDS
    assert not {"FILE_ID", "CUSTOMER_ID", "MESSAGE", "ID", "SOURCE_BUCKET"} & RESERVED_WORDS


words = st.sampled_from(
    [*VALUES, *NAMES, "a", "n", "s", "lst", "mp", "AND", "OR", "NOT", "BETWEEN", "IN", "SET", "REMOVE", "ADD", "DELETE", "=",
    "<>",
     "<", ">=", "(", ")", ",", ".", "[", "]", "0", "17", "+", "-", "size", "contains", "attribute_exists", "begins_with",
     "if_not_exists",
     "list_append", "attribute_type", " ", "#", ":", "!"]
)  # fmt: skip
expressions = st.one_of(
    st.lists(words, max_size=14).map(" ".join), st.lists(words, max_size=8).map("".join), st.text(max_size=30)
)


@given(expressions)
@settings(max_examples=300)
def test_whatever_comes_in_only_a_validation_exception_comes_out(text: str) -> None:
    try:
        holds(text)
    except (ValidationException, KeyError) as error:
        assert isinstance(error, ValidationException) or str(error)[1] in "#:"
    for operation in (update, lambda given: parse_projection(given)):
        try:
            operation(text)
        except (ValidationException, KeyError) as error:
            assert isinstance(error, ValidationException) or str(error)[1] in "#:"
