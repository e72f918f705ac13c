"""Payload templates, compiled once: a JSON value in which a field `x.$` becomes `x` with the value of its expression.

Source: https://states-language.net/spec.html#payload-template.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from .evaluation import Expression, Json, Scope
from .intrinsics import parse_call
from .path import parse_path
from .path_syntax import SyntaxProblem

Build: TypeAlias = Callable[[Scope], Json]

Report: TypeAlias = Callable[[str, str], None]
"""Takes a message and the place below the template (`/a/b[0]`)."""


@dataclass(frozen=True, slots=True)
class Template:
    """A compiled template. Made by `parse_template`. Constant parts are shared between results, never copied."""

    source: Json
    build: Build = dataclasses.field(repr=False, compare=False)

    def evaluate(self, scope: Scope) -> Json:
        """Return the filled-in value. Raises `StatesError`."""
        return self.build(scope)


def parse_expression(text: str, field: str) -> Expression:
    """Compile a path or an intrinsic call. Raises `SyntaxProblem`."""
    if text.startswith("$"):
        return parse_path(text, field)
    if text.startswith("States."):
        return parse_call(text, field)
    raise SyntaxProblem("expected a JSONPath or an intrinsic function call")


def parse_template(source: Json, report: Report) -> Template:
    """Compile a template. Every problem goes to `report`; the template is usable when there was none."""
    build = _compile(source, "", report)
    return Template(source, build if build is not None else lambda _: source)


def _compile(source: Json, place: str, report: Report) -> Build | None:
    """Return how to build this part, None when it is constant."""
    if isinstance(source, dict):
        return _compile_object(source, place, report)
    if isinstance(source, list):
        return _compile_list(source, place, report)
    return None


def _compile_list(source: list[Json], place: str, report: Report) -> Build | None:
    builds = [_compile(item, f"{place}[{number}]", report) for number, item in enumerate(source)]
    if all(build is None for build in builds):
        return None
    parts = tuple(zip(builds, source, strict=True))
    return lambda scope: [constant if build is None else build(scope) for build, constant in parts]


def _compile_object(source: dict[str, Json], place: str, report: Report) -> Build | None:
    parts: list[tuple[str, Build | None, Json]] = []
    names: set[str] = set()
    for key, value in source.items():
        dynamic = key.endswith(".$")
        name = key[:-2] if dynamic else key
        if name in names:
            report(f"The field '{name}' is there twice once the '.$' suffix is removed", place)
        names.add(name)
        build = _compile_field(key, value, place, report) if dynamic else _compile(value, f"{place}/{key}", report)
        parts.append((name, build, value))
    if all(build is None for _, build, _ in parts):
        return None
    fields = tuple(parts)
    return lambda scope: {name: constant if build is None else build(scope) for name, build, constant in fields}


def _compile_field(key: str, value: Json, place: str, report: Report) -> Build | None:
    try:
        if not isinstance(value, str):
            raise SyntaxProblem("expected a string")
        return parse_expression(value, key).evaluate
    except SyntaxProblem:
        report(f"The value for the field '{key}' must be a valid JSONPath or a valid intrinsic function call", place)
        return None
