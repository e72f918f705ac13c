"""Attribute values: DynamoDB's types in its JSON form (`{"S": "a"}`), checked, normalised, measured, compared.

Normalised means: numbers in AWS's plain notation, sets sorted. Two normalised values are equal exactly when DynamoDB
calls them equal, so that Python's `==` does.

Source: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html
"""

import re
from collections.abc import Mapping
from decimal import Context, Decimal, InvalidOperation
from typing import Any, TypeAlias

from entrepot.services.dynamodb.errors import ValidationException

AttributeValue: TypeAlias = dict[str, Any]
"""One key, the type (S N B SS NS BS BOOL NULL L M), and its value; numbers are text, binaries bytes."""

Item: TypeAlias = dict[str, AttributeValue]

MAX_ITEM_SIZE_BYTES = 400 * 1024
"""Size of an item, names and values (AWS's limit)."""

MAX_DEPTH = 32
"""Levels of nested lists and maps (AWS's limit)."""

MAX_DIGITS = 38
"""Significant digits of a number (AWS's limit)."""

MAX_NUMBER_LENGTH = 512
"""Characters of a number's text that are looked at."""

TYPES = ("S", "N", "B", "SS", "NS", "BS", "BOOL", "NULL", "L", "M")

_PLAIN_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,37}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,9})?")
_EXACT = Context(prec=400)
_SETS = {"SS": "string", "NS": "number", "BS": "binary"}


def normalise_number(text: Any) -> str:
    """Return a number in AWS's notation: no exponent, no superfluous zeros. Raise ValidationException."""
    if not isinstance(text, str):
        raise ValidationException("A value provided cannot be converted into a number")
    if _PLAIN_INTEGER.fullmatch(text):
        return text
    if text == "" or len(text) > MAX_NUMBER_LENGTH or not _NUMBER.fullmatch(text):
        shown = text if len(text) <= 64 else f"{text[:64]}…"
        if text == "":
            raise ValidationException("The parameter cannot be converted to a numeric value")
        raise ValidationException(f"The parameter cannot be converted to a numeric value: {shown}")
    return number_text(Decimal(text))


def number_text(number: Decimal) -> str:
    """Return the text of a number within DynamoDB's range. Raise ValidationException outside of it."""
    if not number:
        return "0"
    magnitude = number.adjusted()
    if magnitude > 125:
        raise ValidationException(
            "Number overflow. Attempting to store a number with magnitude larger than supported range"
        )
    if magnitude < -130:
        raise ValidationException(
            "Number underflow. Attempting to store a number with magnitude smaller than supported range"
        )
    sign, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)
    text = "".join(map(str, digits)).lstrip("0")
    stripped = text.rstrip("0")
    exponent += len(text) - len(stripped)
    if len(stripped) > MAX_DIGITS:
        raise ValidationException("Attempting to store more than 38 significant digits in a Number")
    if exponent >= 0:
        plain = stripped + "0" * exponent
    elif -exponent < len(stripped):
        plain = f"{stripped[:exponent]}.{stripped[exponent:]}"
    else:
        plain = f"0.{'0' * (-exponent - len(stripped))}{stripped}"
    return f"-{plain}" if sign else plain


def add_numbers(left: str, right: str, *, subtract: bool = False) -> str:
    """Return left + right (or left - right) exactly. Raise ValidationException outside of DynamoDB's range."""
    a, b = Decimal(left), Decimal(right)
    try:
        return number_text(_EXACT.subtract(a, b) if subtract else _EXACT.add(a, b))
    except InvalidOperation as error:
        raise ValidationException(
            "Number overflow. Attempting to store a number with magnitude larger than supported range"
        ) from error


def normalise_item(item: Any) -> tuple[Item, int]:
    """Return a checked item and its size in bytes. Raise ValidationException."""
    if not isinstance(item, Mapping):
        raise ValidationException("The item must be a map of attribute names to attribute values")
    result: Item = {}
    size_bytes = 0
    for name, value in item.items():
        if type(value) is dict and len(value) == 1 and type(text := value.get("S")) is str:
            result[name] = value  # the usual case, a string, needs no change
            size_bytes += len(name.encode()) + (len(text) if text.isascii() else len(encode_text(text)))
            continue
        if not name:
            raise ValidationException("One or more parameter values were invalid: an attribute name is empty")
        result[name], value_size_bytes = normalise(value)
        size_bytes += len(encode_text(name)) + value_size_bytes
    return result, size_bytes


def check_size(size_bytes: int, *, update: bool = False) -> None:
    """Raise ValidationException when an item is too large."""
    if size_bytes > MAX_ITEM_SIZE_BYTES:
        what = "Item size to update has exceeded" if update else "Item size has exceeded"
        raise ValidationException(f"{what} the maximum allowed size")


def encode_text(text: str) -> bytes:
    """Return UTF-8. Raise ValidationException for text that has none (lone surrogates)."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ValidationException("A string holds characters that UTF-8 cannot express") from None


def normalise(value: Any, depth: int = 0) -> tuple[AttributeValue, int]:
    """Return a checked attribute value and its size in bytes. Raise ValidationException."""
    if not isinstance(value, Mapping) or not value:
        raise ValidationException(
            "Supplied AttributeValue is empty, must contain exactly one of the supported datatypes"
        )
    if len(value) > 1:
        raise ValidationException(
            "Supplied AttributeValue has more than one datatypes set, must contain exactly one of the supported "
            "datatypes"
        )
    ((kind, content),) = value.items()
    match kind:
        case "S" if isinstance(content, str):
            return {"S": content}, len(encode_text(content))
        case "N":
            number = normalise_number(content)
            return {"N": number}, number_size(number)
        case "B" if isinstance(content, (bytes, bytearray, memoryview)):
            return {"B": bytes(content)}, len(content)
        case "BOOL" if isinstance(content, bool):
            return {"BOOL": content}, 1
        case "NULL" if content is True:
            return {"NULL": True}, 1
        case "NULL":
            raise ValidationException(
                "One or more parameter values were invalid: Null attribute value types must have the value of true"
            )
        case "SS" | "NS" | "BS" if isinstance(content, (list, tuple, set, frozenset)):
            return _normalise_set(kind, list(content))
        case "L" | "M" if isinstance(content, (list, tuple) if kind == "L" else Mapping):
            if depth >= MAX_DEPTH:
                raise ValidationException("Nesting Levels have exceeded supported limits")
            return _normalise_document(kind, content, depth)
        case _ if kind in TYPES:
            raise ValidationException(f"The value of the type {kind} has the wrong form")
        case _:
            raise ValidationException(
                "Supplied AttributeValue is empty, must contain exactly one of the supported datatypes"
            )


def _normalise_document(kind: str, content: Any, depth: int) -> tuple[AttributeValue, int]:
    size_bytes = 3
    if kind == "L":
        elements = []
        for element in content:
            normalised, element_size_bytes = normalise(element, depth + 1)
            elements.append(normalised)
            size_bytes += 1 + element_size_bytes
        return {"L": elements}, size_bytes
    members = {}
    for name, member in content.items():
        members[name], member_size_bytes = normalise(member, depth + 1)
        size_bytes += 1 + len(encode_text(name)) + member_size_bytes
    return {"M": members}, size_bytes


def _normalise_set(kind: str, content: list[Any]) -> tuple[AttributeValue, int]:
    if not content:
        raise ValidationException(f"One or more parameter values were invalid: An {_SETS[kind]} set  may not be empty")
    element = kind[0]
    pairs = [normalise({element: one}) for one in content]
    values = [pair[0][element] for pair in pairs]
    if len(set(values)) != len(values):
        shown = ", ".join(str(one) for one in content[:20])
        raise ValidationException(
            f"One or more parameter values were invalid: Input collection [{shown}] contains duplicates."
        )
    values.sort(key=Decimal if kind == "NS" else None)
    return {kind: values}, sum(pair[1] for pair in pairs)


def number_size(number: str) -> int:
    """Return the size in bytes that AWS counts for a normalised number, about (digits + 1) / 2 + 1."""
    digits = number.lstrip("-").replace(".", "").strip("0")
    return (len(digits) + 1) // 2 + 1 + number.startswith("-")


def type_of(value: AttributeValue) -> str:
    """Return `S`, `N`, …"""
    for kind in value:
        return kind
    raise AssertionError("a normalised value has a type")


def compare(left: AttributeValue, right: AttributeValue) -> int | None:
    """Return a negative, zero or positive number; None where DynamoDB knows no order (other or different types)."""
    kind = type_of(left)
    if kind != type_of(right) or kind not in ("S", "N", "B"):
        return None
    a, b = left[kind], right[kind]
    if kind == "N":
        a, b = Decimal(a), Decimal(b)
    return int(a > b) - int(a < b)


def size_of(value: AttributeValue) -> int | None:
    """Return what the function `size` says, or None for types that have no size."""
    kind = type_of(value)
    content = value[kind]
    if kind == "S":
        return len(content.encode())
    return len(content) if kind in ("B", "SS", "NS", "BS", "L", "M") else None


def to_attribute_value(value: Any) -> AttributeValue:
    """Return a plain Python value as an attribute value; raise TypeError for what has none.

    str → S, bool → BOOL, int, float and Decimal → N, bytes → B, None → NULL, list → L, dict → M, set → SS, NS or BS.
    """
    match value:
        case str():
            return {"S": value}
        case bool():
            return {"BOOL": value}
        case int() | float() | Decimal():
            return {"N": normalise_number(str(value))}
        case bytes():
            return {"B": value}
        case None:
            return {"NULL": True}
        case list() | tuple():
            return {"L": [to_attribute_value(element) for element in value]}
        case dict():
            return {"M": {name: to_attribute_value(member) for name, member in value.items()}}
        case set() | frozenset() if value:
            elements = [to_attribute_value(element) for element in value]
            kinds = {type_of(element) for element in elements}
            if len(kinds) == 1 and (kind := kinds.pop()) in ("S", "N", "B"):
                return normalise({f"{kind}S": [element[kind] for element in elements]})[0]
    raise TypeError(f"DynamoDB has no type for {type(value).__name__}")


def to_item(values: Mapping[str, Any]) -> Item:
    """Return plain Python values as an item."""
    return {name: to_attribute_value(value) for name, value in values.items()}


def from_attribute_value(value: AttributeValue) -> Any:
    """Return an attribute value as a plain Python value; numbers become int or Decimal, sets become sets."""
    kind = type_of(value)
    content = value[kind]
    match kind:
        case "N":
            return _python_number(content)
        case "NULL":
            return None
        case "L":
            return [from_attribute_value(element) for element in content]
        case "M":
            return {name: from_attribute_value(member) for name, member in content.items()}
        case "SS" | "BS":
            return set(content)
        case "NS":
            return {_python_number(element) for element in content}
        case _:
            return content


def _python_number(text: str) -> int | Decimal:
    return Decimal(text) if "." in text else int(text)


def from_item(item: Item) -> dict[str, Any]:
    """Return an item as plain Python values."""
    return {name: from_attribute_value(value) for name, value in item.items()}
