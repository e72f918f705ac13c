"""A request's expressions with its `ExpressionAttributeNames` and `ExpressionAttributeValues`.

Checks that every placeholder used is defined and every one defined is used, in AWS's words.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from entrepot.services.dynamodb.errors import ValidationException
from entrepot.services.dynamodb.expressions import Parsed, Path, Value
from entrepot.services.dynamodb.values import AttributeValue, Item, normalise

_NAME_KEY = re.compile(r"#[A-Za-z0-9_]+")
_VALUE_KEY = re.compile(r":[A-Za-z0-9_]+")

ResolvedPath = tuple[str | int, ...]


class Binding:
    """The placeholders of one request, checked and normalised."""

    __slots__ = ("_names", "_values")

    def __init__(
        self,
        parsed: Iterable[Parsed],
        names: Mapping[str, str] | None,
        values: Mapping[str, Any] | None,
        parameters: str,
    ) -> None:
        """Raise ValidationException. `parameters` names the expressions that the operation has, for messages."""
        expressions = tuple(parsed)
        if not expressions:
            _refuse_without_expression(names, values, parameters)
        self._names = _checked_names(names)
        self._values = _checked_values(values)
        used_names: set[str] = set()
        used_values: set[str] = set()
        for expression in expressions:
            for name in expression.names:
                if name not in self._names:
                    raise ValidationException(
                        f"Invalid {expression.parameter}: An expression attribute name used in the document path is "
                        f"not defined; attribute name: {name}"
                    )
                used_names.add(name)
            for value in expression.values:
                if value not in self._values:
                    raise ValidationException(
                        f"Invalid {expression.parameter}: An expression attribute value used in expression is not "
                        f"defined; attribute value: {value}"
                    )
                used_values.add(value)
        _refuse_unused("ExpressionAttributeNames", self._names, used_names)
        _refuse_unused("ExpressionAttributeValues", self._values, used_values)

    def path(self, path: Path) -> ResolvedPath:
        """Return a path with its `#names` replaced."""
        names = self._names
        return tuple(
            names[element] if isinstance(element, str) and element[0] == "#" else element for element in path.elements
        )

    def value(self, value: Value) -> AttributeValue:
        """Return the attribute value of `:name`."""
        return self._values[value.name]


def _refuse_without_expression(
    names: Mapping[str, str] | None, values: Mapping[str, Any] | None, parameters: str
) -> None:
    if names is not None:
        raise ValidationException("ExpressionAttributeNames can only be specified when using expressions")
    if values is not None:
        nothing = " and ".join(parameters.split(", "))
        verb = "are" if ", " in parameters else "is"
        raise ValidationException(
            f"ExpressionAttributeValues can only be specified when using expressions: {nothing} {verb} null"
        )


def _checked_names(names: Mapping[str, str] | None) -> Mapping[str, str]:
    if names is None:
        return {}
    if not names:
        raise ValidationException("ExpressionAttributeNames must not be empty")
    for key, name in names.items():
        if not _NAME_KEY.fullmatch(key):
            raise ValidationException(f'ExpressionAttributeNames contains invalid key: Syntax error; key: "{key}"')
        if not isinstance(name, str) or not name:
            raise ValidationException(f"ExpressionAttributeNames contains invalid value: must not be empty; key: {key}")
    return names


def _checked_values(values: Mapping[str, Any] | None) -> dict[str, AttributeValue]:
    if values is None:
        return {}
    if not values:
        raise ValidationException("ExpressionAttributeValues must not be empty")
    result: Item = {}
    for key, value in values.items():
        if not _VALUE_KEY.fullmatch(key):
            raise ValidationException(f'ExpressionAttributeValues contains invalid key: Syntax error; key: "{key}"')
        try:
            result[key] = normalise(value)[0]
        except ValidationException as error:
            raise ValidationException(
                f"ExpressionAttributeValues contains invalid value: {error.message} for key {key}"
            ) from None
    return result


def _refuse_unused(parameter: str, given: Mapping[str, Any], used: set[str]) -> None:
    if len(used) < len(given):
        unused = ", ".join(key for key in given if key not in used)
        raise ValidationException(f"Value provided in {parameter} unused in expressions: keys: {{{unused}}}")


def get_path(item: Item, path: ResolvedPath) -> AttributeValue | None:
    """Return the value at a path, or None when there is none."""
    value = item.get(path[0])  # type: ignore[arg-type]
    for element in path[1:]:
        if value is None:
            return None
        if isinstance(element, int):
            elements = value.get("L")
            value = elements[element] if elements is not None and element < len(elements) else None
        else:
            members = value.get("M")
            value = members.get(element) if members is not None else None
    return value
