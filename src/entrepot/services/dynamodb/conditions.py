"""Conditions and filters: a syntax tree and its placeholders → a function of an item."""

from collections.abc import Callable
from typing import TypeAlias

from entrepot.services.dynamodb.binding import Binding, get_path
from entrepot.services.dynamodb.errors import ValidationException
from entrepot.services.dynamodb.expressions import (
    Between,
    Comparison,
    Condition,
    Function,
    In,
    Logical,
    Not,
    Operand,
    Path,
    Value,
)
from entrepot.services.dynamodb.values import TYPES, AttributeValue, Item, compare, size_of, type_of

Predicate: TypeAlias = Callable[[Item], bool]
Reader: TypeAlias = Callable[[Item], AttributeValue | None]

_ORDERS: dict[str, Callable[[int], bool]] = {
    "<": lambda order: order < 0,
    "<=": lambda order: order <= 0,
    ">": lambda order: order > 0,
    ">=": lambda order: order >= 0,
}


def bind_condition(condition: Condition, binding: Binding, parameter: str) -> Predicate:
    """Return a function that tells whether an item fulfils the condition. Raise ValidationException."""
    match condition:
        case Logical(operator="AND"):
            left, right = (bind_condition(side, binding, parameter) for side in (condition.left, condition.right))
            return lambda item: left(item) and right(item)
        case Logical():
            left, right = (bind_condition(side, binding, parameter) for side in (condition.left, condition.right))
            return lambda item: left(item) or right(item)
        case Not():
            negated = bind_condition(condition.condition, binding, parameter)
            return lambda item: not negated(item)
        case Comparison():
            return _comparison(condition, binding, parameter)
        case Between():
            return _between(condition, binding, parameter)
        case In():
            operand = _reader(condition.operand, binding, parameter)
            candidates = [_reader(candidate, binding, parameter) for candidate in condition.candidates]
            return lambda item: (value := operand(item)) is not None and any(value == c(item) for c in candidates)
        case Function():
            return _function(condition, binding, parameter)


def _reader(operand: Operand, binding: Binding, parameter: str) -> Reader:
    match operand:
        case Path():
            path = binding.path(operand)
            if len(path) == 1:
                name = path[0]
                return lambda item: item.get(name)  # type: ignore[arg-type]
            return lambda item: get_path(item, path)
        case Value():
            value = binding.value(operand)
            return lambda item: value
        case Function(name="size"):
            return _size(operand, binding, parameter)
        case _:
            raise AssertionError(f"the parser lets no {operand} through here")


def _size(function: Function, binding: Binding, parameter: str) -> Reader:
    argument = function.arguments[0]
    if isinstance(argument, Value) and size_of(binding.value(argument)) is None:
        raise _operand_type("size", binding.value(argument), parameter)
    measured = _reader(argument, binding, parameter)

    def read(item: Item) -> AttributeValue | None:
        value = measured(item)
        size = None if value is None else size_of(value)
        return None if size is None else {"N": str(size)}

    return read


def _operand_type(operator: str, value: AttributeValue, parameter: str) -> ValidationException:
    return ValidationException(
        f"Invalid {parameter}: Incorrect operand type for operator or function; operator or function: {operator}, "
        f"operand type: {type_of(value)}"
    )


def _comparison(condition: Comparison, binding: Binding, parameter: str) -> Predicate:
    left, right = (_reader(side, binding, parameter) for side in (condition.left, condition.right))
    operator = condition.operator
    if operator == "=":
        return lambda item: (value := left(item)) is not None and value == right(item)
    if operator == "<>":
        return lambda item: left(item) != right(item)
    for side in (condition.left, condition.right):
        if isinstance(side, Value) and type_of(binding.value(side)) not in ("S", "N", "B"):
            raise _operand_type(operator, binding.value(side), parameter)
    holds = _ORDERS[operator]

    def ordered(item: Item) -> bool:
        a, b = left(item), right(item)
        order = None if a is None or b is None else compare(a, b)
        return order is not None and holds(order)

    return ordered


def _between(condition: Between, binding: Binding, parameter: str) -> Predicate:
    if isinstance(condition.low, Value) and isinstance(condition.high, Value):
        check_bounds(binding.value(condition.low), binding.value(condition.high), parameter)
    operand, low, high = (
        _reader(part, binding, parameter) for part in (condition.operand, condition.low, condition.high)
    )

    def between(item: Item) -> bool:
        value, bottom, top = operand(item), low(item), high(item)
        if value is None or bottom is None or top is None:
            return False
        above, below = compare(value, bottom), compare(value, top)
        return above is not None and below is not None and above >= 0 and below <= 0

    return between


def check_bounds(low: AttributeValue, high: AttributeValue, parameter: str) -> None:
    """Raise ValidationException unless `low` and `high` are bounds of one range."""
    for bound in (low, high):
        if type_of(bound) not in ("S", "N", "B"):
            raise _operand_type("BETWEEN", bound, parameter)
    shown = f"lower bound operand: {value_text(low)}, upper bound operand: {value_text(high)}"
    order = compare(low, high)
    if order is None:
        raise ValidationException(
            f"Invalid {parameter}: The BETWEEN operator requires same data type for lower and upper bounds; {shown}"
        )
    if order > 0:
        raise ValidationException(
            f"Invalid {parameter}: The BETWEEN operator requires upper bound to be greater than or equal to lower "
            f"bound; {shown}"
        )


def value_text(value: AttributeValue) -> str:
    """Return a value as AWS's messages show it: `AttributeValue: {S:a}`."""
    kind = type_of(value)
    return f"AttributeValue: {{{kind}:{value[kind]}}}"


def _function(function: Function, binding: Binding, parameter: str) -> Predicate:
    first = _reader(function.arguments[0], binding, parameter)
    match function.name:
        case "attribute_exists":
            return lambda item: first(item) is not None
        case "attribute_not_exists":
            return lambda item: first(item) is None
        case "attribute_type":
            return _attribute_type(function, binding, parameter, first)
        case "begins_with":
            return _begins_with(function, binding, parameter, first)
        case "contains":
            second = _reader(function.arguments[1], binding, parameter)
            return lambda item: _contains(first(item), second(item))
        case name:
            raise AssertionError(f"the parser lets no {name} through here")


def _attribute_type(function: Function, binding: Binding, parameter: str, first: Reader) -> Predicate:
    operand = function.arguments[1]
    if not isinstance(operand, Value):
        raise ValidationException(
            f"Invalid {parameter}: Incorrect operand type for operator or function; operator or function: "
            "attribute_type, operand type: path"
        )
    value = binding.value(operand)
    kind = value.get("S")
    if kind is None:
        raise _operand_type("attribute_type", value, parameter)
    if kind not in TYPES:
        raise ValidationException(
            f"Invalid {parameter}: Invalid attribute type name found; type: {kind}, valid types: "
            f"{{{','.join(sorted(TYPES))}}}"
        )

    def is_type(item: Item) -> bool:
        found = first(item)
        return found is not None and kind in found

    return is_type


def _begins_with(function: Function, binding: Binding, parameter: str, first: Reader) -> Predicate:
    for operand in function.arguments:
        if isinstance(operand, Value) and type_of(binding.value(operand)) not in ("S", "B"):
            raise _operand_type("begins_with", binding.value(operand), parameter)
    second = _reader(function.arguments[1], binding, parameter)

    def begins(item: Item) -> bool:
        value, prefix = first(item), second(item)
        if value is None or prefix is None:
            return False
        for kind in ("S", "B"):
            if kind in value and kind in prefix:
                return bool(value[kind].startswith(prefix[kind]))
        return False

    return begins


def _contains(value: AttributeValue | None, part: AttributeValue | None) -> bool:
    if value is None or part is None:
        return False
    kind, part_kind = type_of(value), type_of(part)
    if kind == "L":
        return part in value["L"]
    if kind in ("S", "B"):
        return kind == part_kind and part[kind] in value[kind]
    return kind in ("SS", "NS", "BS") and part_kind == kind[0] and part[part_kind] in value[kind]
