"""A pattern: how it reads a message, what it demands of it, and which values it names in it."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn, TypeAlias

from entrepot.services.logs.errors import InvalidParameterError
from entrepot.services.logs.filter_pattern.conditions import Conditions, as_text
from entrepot.services.logs.filter_pattern.regex import Refuse
from entrepot.services.logs.filter_pattern.selectors import (
    Select,
    document_selector,
    field_selector,
    fields_reader,
    read_document,
)
from entrepot.services.logs.filter_pattern.terms import compile_terms

Matches: TypeAlias = Callable[[str], bool]

PATTERN_LIMIT_CHARS = 1_024
"""AWS's limit for a filter pattern."""

REGEXES_LIMIT = 2
"""Regular expressions in one JSON or space-delimited pattern. AWS's limit."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """A compiled pattern. `read` makes of a message what `test` looks at, or None when it is not of the pattern's form.

    Patterns of the form "json" read alike: who has several reads a message once. `names` are the fields of a
    space-delimited pattern.
    """

    form: Literal["terms", "json", "fields"]
    read: Callable[[str], Any]
    test: Callable[[Any], bool]
    selectors: Mapping[str, Select] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    regexes: int = 0

    def matches(self, message: str) -> bool:
        """Return whether the message matches."""
        record = self.read(message)
        return record is not None and self.test(record)

    def extracted(self, record: Any) -> dict[str, str]:
        """Return the values that the pattern names in what it read, by `$.selector` or `$field`."""
        if self.form == "fields":
            return {f"${name}": value for name, value in record.items()}
        return {selector: _shown(found[0]) for selector, select in self.selectors.items() if (found := select(record))}

    def value(self, selector: str) -> Callable[[Any], str | None]:
        """Return what finds the text of one value (`$.size`, `$bytes`) in what the pattern read; InvalidParameterError."""

        def refuse(why: str) -> NoReturn:
            raise InvalidParameterError(f"Invalid metric transformation: {why}.")

        if self.form == "json":
            select = document_selector(selector, refuse)
        elif self.form == "fields":
            select = field_selector(selector[1:], refuse)
            if selector[1:] not in self.names:
                refuse(f"the pattern has no field {selector[1:]!r}")
        else:
            refuse(f"{selector} needs a JSON or space-delimited pattern, which has values")

        def find(record: Any) -> str | None:
            found = select(record)
            return as_text(found[0]) if found else None

        return find


def parse(pattern: str) -> Pattern:
    """Return a pattern compiled; InvalidParameterError when it is none."""
    if len(pattern) > PATTERN_LIMIT_CHARS:
        raise InvalidParameterError(
            f"1 validation error detected: Value at 'filterPattern' failed to satisfy constraint: "
            f"Member must have length less than or equal to {PATTERN_LIMIT_CHARS}"
        )

    def refuse(why: str) -> NoReturn:
        raise InvalidParameterError(f"Invalid filter pattern {pattern!r}: {why}")

    text = pattern.strip()
    if not text:
        return Pattern("terms", _itself, lambda _: True)
    if text.startswith("{"):
        if not text.endswith("}"):
            refuse("the closing } is missing")
        found = _json_pattern(text[1:-1], refuse)
    elif text.startswith("["):
        if not text.endswith("]"):
            refuse("the closing ] is missing")
        found = _fields_pattern(text[1:-1], refuse)
    else:
        test, regexes = compile_terms(text, refuse)
        return Pattern("terms", _itself, test, regexes=regexes)
    if found.regexes > REGEXES_LIMIT:
        refuse(f"it has more than {REGEXES_LIMIT} regular expressions")
    return found


def compile_pattern(pattern: str) -> Matches:
    """Return a function that says whether a message matches; InvalidParameterError when `pattern` is not one."""
    return parse(pattern).matches


def _itself(message: str) -> str:
    return message


def _shown(value: Any) -> str:
    text = as_text(value)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")) if text is None else text


def _json_pattern(body: str, refuse: Refuse) -> Pattern:
    conditions = Conditions(body, document_selector, refuse)
    condition = conditions.read()
    return Pattern("json", read_document, condition, conditions.selectors, regexes=conditions.regexes)


def _fields_pattern(body: str, refuse: Refuse) -> Pattern:
    fields: list[str | None] = []
    tests: list[Callable[[Any], bool]] = []
    regexes = 0
    for part in map(str.strip, _split_fields(body)):
        if part == "...":
            if None in fields:
                refuse("only one ... is allowed")
            fields.append(None)
            continue
        name = re.match(r"[(\s]*([A-Za-z_]\w*)", part, re.ASCII)
        if name is None:
            refuse(f"{part!r} is not a field")
        fields.append(name[1])
        if part != name[1]:
            conditions = Conditions(part, field_selector, refuse)
            tests.append(conditions.read())
            regexes += conditions.regexes
    names = tuple(field for field in fields if field is not None)
    if len(set(names)) != len(names):
        refuse("two fields have the same name")
    return Pattern(
        "fields", fields_reader(fields), lambda record: all(test(record) for test in tests), {}, names, regexes
    )


def _split_fields(body: str) -> Iterator[str]:
    """Yield what stands between the commas that are not in quotes or a regular expression."""
    start, at, inside = 0, 0, ""
    while at < len(body):
        char = body[at]
        if inside:
            if char == "\\":
                at += 1
            elif char == inside:
                inside = ""
        elif char == '"' or (char == "%" and body[start:at].rstrip().endswith("=")):
            inside = char
        elif char == ",":
            yield body[start:at]
            start = at + 1
        at += 1
    yield body[start:]
