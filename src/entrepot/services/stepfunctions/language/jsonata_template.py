"""JSON values with JSONata in them, compiled once: every string `{% … %}`, wherever it stands, becomes its value."""

from collections.abc import Callable
from dataclasses import dataclass

from .evaluation import Json, Scope
from .jsonata import JsonataExpression, compile_expression, is_expression
from .jsonata_check import unsupported_references
from .path_syntax import SyntaxProblem
from .template import Build, Template

INVALID_JSONATA_EXPRESSION = "INVALID_JSONATA_EXPRESSION"
UNSUPPORTED_JSONATA_EXPRESSION = "UNSUPPORTED_JSONATA_EXPRESSION"

Report = Callable[[str, str, str | None], None]
"""Takes a message, the place below the field (`/a/b[0]`), and a code (None: the schema's)."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an expression stands: its field as AWS names it in causes, and what `$states` has there."""

    field: str
    result: bool = False
    error_output: bool = False


def parse_jsonata_template(source: Json, place: Place, report: Report) -> Template:
    """Compile a value. Every problem goes to `report`; the template is usable when there was none."""
    build = _compile(source, place, "", report)
    return Template(source, build if build is not None else lambda _: source)


def parse_jsonata(text: str, place: Place, below: str, report: Report) -> JsonataExpression | None:
    """Compile a string that opens an expression; None after a problem."""
    if not is_expression(text):
        report("A JSONata expression must start with '{%' and end with '%}'", below, None)
        return None
    try:
        expression = compile_expression(text[2:-2], place.field + below)
    except SyntaxProblem as problem:
        report(str(problem), below, INVALID_JSONATA_EXPRESSION)
        return None
    for message in unsupported_references(expression, result=place.result, error_output=place.error_output):
        report(message, below, UNSUPPORTED_JSONATA_EXPRESSION)
    return expression


def _compile(source: Json, place: Place, below: str, report: Report) -> Build | None:
    """Return how to build this part, None when it is constant."""
    if isinstance(source, str):
        if not source.startswith("{%"):
            return None
        expression = parse_jsonata(source, place, below, report)
        return None if expression is None else expression.evaluate
    if isinstance(source, list):
        builds = [_compile(item, place, f"{below}[{number}]", report) for number, item in enumerate(source)]
        if all(build is None for build in builds):
            return None
        parts = tuple(zip(builds, source, strict=True))
        return lambda scope: [constant if build is None else build(scope) for build, constant in parts]
    if isinstance(source, dict):
        fields = tuple((key, _compile(value, place, f"{below}/{key}", report), value) for key, value in source.items())
        if all(build is None for _, build, _ in fields):
            return None
        return lambda scope: _built(fields, scope)
    return None


def _built(fields: tuple[tuple[str, Build | None, Json], ...], scope: Scope) -> dict[str, Json]:
    return {key: constant if build is None else build(scope) for key, build, constant in fields}
