"""The constraints of the models: required members, lengths, ranges, patterns, enumerations, in AWS's words.

A shape becomes one check at first use; shapes without any constraint inside cost nothing.
Source: https://smithy.io/2.0/spec/constraint-traits.html; the texts are those that the services answer.
"""

import re
from collections.abc import Callable, Collection
from typing import Any, TypeAlias

from entrepot.aws.errors import ValidationError

Check: TypeAlias = Callable[[Any, str, list[str]], None]

MAX_PROBLEMS = 10
"""How many broken constraints one answer names."""

MAX_PATTERN_LENGTH = 2048
"""Patterns are not tried on longer values (their length constraint speaks first), so that none takes long."""

MAX_SHOWN = 256
"""How much of an offending value is shown."""

_UNREADABLE = re.compile(r"\\[pPz]|\\u10000|\\uD800")
_EXPLOSIVE = re.compile(r"[+*]\)[+*]")
_SCALARS = ("string", "integer", "long", "short", "byte", "float", "double")


class Constraints:
    """The checks of one service's shapes. `strict` is False where only required members are checked (S3)."""

    def __init__(self, *, strict: bool) -> None:
        self._strict = strict
        self._made: dict[str, Check | None] = {}

    def validate(self, shape: Any, value: Any) -> None:
        """Raise ValidationError naming every broken constraint (at most MAX_PROBLEMS)."""
        check = self._check(shape)
        if check is None:
            return
        problems: list[str] = []
        check(value, "", problems)
        if problems:
            count = len(problems)
            plural = "error" if count == 1 else "errors"
            raise ValidationError(f"{count} validation {plural} detected: {'; '.join(problems[:MAX_PROBLEMS])}")

    def _check(self, shape: Any) -> Check | None:
        if shape.name not in self._made:
            self._made[shape.name] = self._make(shape) if self._has_any(shape, set()) else None
        return self._made[shape.name]

    def _has_any(self, shape: Any, seen: set[str]) -> bool:
        if shape.name in seen:
            return False
        seen.add(shape.name)
        kind = shape.type_name
        if kind == "structure":
            return bool(shape.required_members) or any(self._has_any(m, seen) for m in shape.members.values())
        own = self._strict and any(name in shape.metadata for name in ("min", "max", "pattern", "enum"))
        if kind == "list":
            return own or self._has_any(shape.member, seen)
        if kind == "map":
            return own or self._has_any(shape.key, seen) or self._has_any(shape.value, seen)
        return own and (kind in _SCALARS or kind == "blob")

    def _make(self, shape: Any) -> Check:
        match shape.type_name:
            case "structure":
                return self._structure(shape)
            case "list":
                return self._list(shape)
            case "map":
                return self._map(shape)
            case "string":
                return _string(shape)
            case "blob":
                return _size(shape, "length")
            case _:
                return _number(shape)

    def _structure(self, shape: Any) -> Check:
        required = tuple(shape.required_members)
        members: dict[str, Check] | None = None

        def check(value: Any, path: str, problems: list[str]) -> None:
            nonlocal members
            if members is None:
                found = {name: self._check(member) for name, member in shape.members.items()}
                members = {name: inner for name, inner in found.items() if inner is not None}
            for name in required:
                if name not in value:
                    problems.append(
                        f"Value null at '{_join(path, _lowered(name))}' failed to satisfy constraint: "
                        "Member must not be null"
                    )
            for name, item in value.items():
                inner = members.get(name)
                if inner is not None:
                    inner(item, _join(path, _lowered(name)), problems)

        return check

    def _list(self, shape: Any) -> Check:
        size = _size(shape, "length") if self._strict else None
        inner: Check | None = None
        made = False

        def check(value: Any, path: str, problems: list[str]) -> None:
            nonlocal inner, made
            if not made:
                inner, made = self._check(shape.member), True
            if size is not None:
                size(value, path, problems)
            if inner is not None:
                for number, item in enumerate(value, 1):
                    inner(item, f"{path}.{number}.member", problems)
                    if len(problems) >= MAX_PROBLEMS:
                        return

        return check

    def _map(self, shape: Any) -> Check:
        size = _size(shape, "length") if self._strict else None
        inner: tuple[Check | None, Check | None] | None = None

        def check(value: Any, path: str, problems: list[str]) -> None:
            nonlocal inner
            if inner is None:
                inner = (self._check(shape.key), self._check(shape.value))
            check_key, check_value = inner
            if size is not None:
                size(value, path, problems)
            for key, item in value.items():
                if check_key is not None:
                    check_key(key, path, problems)
                if check_value is not None:
                    check_value(item, f"{path}.{key}.member", problems)
                if len(problems) >= MAX_PROBLEMS:
                    return

        return check


def _string(shape: Any) -> Check:
    size = _size(shape, "length")
    pattern = _pattern(shape.metadata.get("pattern"))
    enum: Collection[str] = shape.metadata.get("enum", ())

    def check(value: Any, path: str, problems: list[str]) -> None:
        size(value, path, problems)
        if pattern is not None and len(value) <= MAX_PATTERN_LENGTH and not pattern.fullmatch(value):
            problems.append(
                _problem(value, path, f"Member must satisfy regular expression pattern: {shape.metadata['pattern']}")
            )
        if enum and value not in enum:
            problems.append(_problem(value, path, f"Member must satisfy enum value set: [{', '.join(enum)}]"))

    return check


def _pattern(text: str | None) -> re.Pattern[str] | None:
    """Return the model's (Java) pattern, or None where Python cannot read it, reads it otherwise (`\\u10000`), or could
    take exponential time over it."""
    if not text or _UNREADABLE.search(text) or _EXPLOSIVE.search(text):
        return None
    try:
        return re.compile(text, re.ASCII)
    except re.error:
        return None


def _size(shape: Any, noun: str) -> Check:
    low, high = shape.metadata.get("min"), shape.metadata.get("max")

    def check(value: Any, path: str, problems: list[str]) -> None:
        if low is not None and len(value) < low:
            problems.append(_problem(value, path, f"Member must have {noun} greater than or equal to {low}"))
        if high is not None and len(value) > high:
            problems.append(_problem(value, path, f"Member must have {noun} less than or equal to {high}"))

    return check


def _number(shape: Any) -> Check:
    low, high = shape.metadata.get("min"), shape.metadata.get("max")

    def check(value: Any, path: str, problems: list[str]) -> None:
        if low is not None and value < low:
            problems.append(_problem(value, path, f"Member must have value greater than or equal to {low}"))
        if high is not None and value > high:
            problems.append(_problem(value, path, f"Member must have value less than or equal to {high}"))

    return check


def _problem(value: Any, path: str, constraint: str) -> str:
    shown = "java.nio.HeapByteBuffer" if isinstance(value, bytes) else str(value)
    if len(shown) > MAX_SHOWN:
        shown = shown[:MAX_SHOWN] + "…"
    return f"Value '{shown}' at '{path}' failed to satisfy constraint: {constraint}"


def _lowered(name: str) -> str:
    return name[:1].lower() + name[1:]


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
