"""JSONata expressions: `{% $states.input.x %}`, compiled once, evaluated often, in bounds.

The language is jsonata-python's, a port of the reference implementation (docs/decisions/0006). Here are what AWS makes of
it: its functions, its bounds, its texts for errors, no context at the top level, null apart from nothing. A plain path such
as `$states.input.a.b` is looked up here, without the library: it is the commonest expression by far.
"""

import dataclasses
import json
import math
import re
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_RECURSION_LIMIT_BEFORE = sys.getrecursionlimit()

import jsonata.datetimeutils as library_dates  # noqa: E402 - the recursion limit is read first: the library changes it
import jsonata.jsonata as library  # noqa: E402
import jsonata.signature as library_signatures  # noqa: E402
from jsonata.jexception import JException  # noqa: E402
from jsonata.parser import Parser  # noqa: E402

from .evaluation import Json, QueryEvaluationError, Scope, shown  # noqa: E402
from .json_text import MAX_DEPTH  # noqa: E402
from .jsonata_bounds import (  # noqa: E402
    MEMORY_LIMIT_BYTES,
    NUMBER_BYTES,
    BoundedRe,
    Exceeded,
    Guard,
    Meter,
    memory_exceeded,
    regex_engine,
)
from .jsonata_functions import FUNCTIONS, NULL, null_marked, string  # noqa: E402
from .path_syntax import SyntaxProblem  # noqa: E402

MAX_EXPRESSION_CHARACTERS = 32_768
"""The longest expression that is accepted."""

RECURSION_LIMIT = 4_000
"""Python's own limit, for the whole process: 100 levels of an expression are some 1,500 of Python's."""

# The library sets 10,000 when it is imported, which would let hostile JSON exhaust a thread's stack elsewhere.
sys.setrecursionlimit(max(_RECURSION_LIMIT_BEFORE, RECURSION_LIMIT))
# Patterns that the library makes of pictures and signatures must end, too; and it must not print.
library_dates.re = BoundedRe
library_signatures.re = BoundedRe
library.print = lambda *_: None

_PLAIN_PATH = re.compile(r"\$([A-Za-z][A-Za-z0-9_]*)((?:\.[A-Za-z_][A-Za-z0-9_]*)*)")
_WORDS = frozenset({"and", "or", "in", "true", "false", "null", "function"})
_TYPES = {"a": "arrays", "b": "booleans", "f": "functions", "n": "numbers", "o": "objects", "s": "strings"}
_PLACEHOLDER = re.compile(r"\{\{\{?\w+\}?\}\}")
_MISSING = object()
_lock = threading.Lock()


class JsonataScope(Scope):
    """A scope for JSONata: `data` is `$states`, `variables` are bound by their names."""

    __slots__ = ("_bindings", "meter")

    def __init__(
        self,
        states: Mapping[str, Json],
        context: Mapping[str, Json],
        variables: Mapping[str, Json],
        meter: Meter | None = None,
    ) -> None:
        super().__init__(states, context, variables)
        self.meter = meter or Meter()
        self._bindings: dict[str, Any] | None = None

    def with_states(self, **more: Json) -> "JsonataScope":
        """Return the same scope with more members of `$states` (`result`, `errorOutput`)."""
        return JsonataScope({**self.data, **more}, self.context, self.variables, self.meter)

    def bindings(self) -> dict[str, Any]:
        """Return `$states` and the variables as the library wants them."""
        if self._bindings is None:
            self._bindings = {name: null_marked(value) for name, value in self.variables.items()}
            self._bindings["states"] = null_marked(dict(self.data))
        return self._bindings


class _Undefined(Exception):
    """The expression gave nothing."""


class _Unsupported(Exception):
    """The expression gave what is no JSON: a function."""


class _Engine(library.Jsonata):  # type: ignore[misc]  # the library has no types
    """The library's evaluator, with the arithmetic and the bounds of JSONata on AWS."""

    def evaluate_numeric_expression(self, lhs: Any, rhs: Any, op: Any) -> Any:
        """As the library, but what no number can hold becomes infinity or NaN, and `%` keeps fractions."""
        if op in ("/", "%") and _is_number(lhs) and _is_number(rhs):
            return _divided(float(lhs), float(rhs), op)
        try:
            return super().evaluate_numeric_expression(lhs, rhs, op)
        except JException as error:
            current = error.current
            if (
                error.error == "D1001"
                and isinstance(current, float)
                and not _is_infinite(lhs)
                and not _is_infinite(rhs)
            ):
                return current
            raise

    def evaluate_range_expression(self, lhs: Any, rhs: Any) -> Any:
        """As the library, but refuse what is beyond the bounds before it is made."""
        if isinstance(lhs, int) and isinstance(rhs, int) and NUMBER_BYTES * (rhs - lhs + 1) > MEMORY_LIMIT_BYTES:
            raise memory_exceeded()
        return super().evaluate_range_expression(lhs, rhs)

    def evaluate_string_concat(self, lhs: Any, rhs: Any) -> str:
        """As the library, with our texts of numbers."""
        return "".join("" if part is None else string(part, None) for part in (lhs, rhs))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_infinite(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _divided(left: float, right: float, op: str) -> Any:
    """Return a quotient or remainder as JavaScript has it."""
    if not math.isfinite(left) or not math.isfinite(right):
        raise JException("D1001", -1, left if not math.isfinite(left) else right)
    if right == 0:
        return math.nan if op == "%" or left == 0 else math.copysign(math.inf, left)
    found = left / right if op == "/" else math.fmod(left, right)
    return int(found) if math.isfinite(found) and found.is_integer() else found


def _base_frame() -> Any:
    frame = library.Jsonata.Frame(library.Jsonata.static_frame)
    for name, function in FUNCTIONS.items():
        frame.bindings[name] = function
    return frame


_BASE_FRAME = _base_frame()


@dataclass(frozen=True, slots=True)
class JsonataExpression:
    """A compiled expression. Made by `compile_expression`. `field` is its place in the state: `Output/a[0]`."""

    text: str
    field: str
    plain: tuple[str, ...] | None = None
    """The names of a plain path, the variable's first."""
    engine: Any = dataclasses.field(repr=False, compare=False, default=None)

    def evaluate(self, scope: Scope) -> Json:
        """Return the value. Raises `QueryEvaluationError`."""
        assert isinstance(scope, JsonataScope)
        if self.plain is not None:
            found = _look_up(self.plain, scope)
            if found is not _MISSING:
                return found
        try:
            return _to_json(self._run(scope), 0)
        except _Undefined:
            raise self._error("returned nothing (undefined).") from None
        except _Unsupported:
            raise self._error("returned an unsupported result type.") from None
        except JException as error:
            raise self._error(f"threw an error during evaluation. {error.error}: {_message(error)}") from None
        except Exceeded as error:
            raise self._error(f"threw an error during evaluation: {error}") from None
        except RecursionError:
            raise self._error("threw an error during evaluation: Stack overflow error") from None
        # What else the library raises (ValueError, TypeError …) comes of the expression, too: the state fails, not we.
        except Exception as error:  # noqa: BLE001
            raise self._error(f"threw an error during evaluation: {error}") from None

    def _run(self, scope: JsonataScope) -> Any:
        bindings, guard = scope.bindings(), Guard(scope.meter)
        frame = library.Jsonata.Frame(_BASE_FRAME)
        frame.bindings.update(bindings)
        frame.bindings["__evaluate_entry"] = guard.enter
        frame.bindings["__evaluate_exit"] = guard.exit
        with _lock, guard:  # the syntax tree carries marks while it is evaluated
            # The library's functions look for the evaluation under way here.
            library.Jsonata.CURRENT.jsonata = self.engine
            self.engine.environment = frame
            try:
                found = self.engine.evaluate(None)
            finally:
                self.engine.environment = _BASE_FRAME
        if found is None:
            raise _Undefined
        return found

    def _error(self, what: str) -> QueryEvaluationError:
        text = f"The JSONata expression '{self.text}' specified for the field '{self.field}' {what}"
        return QueryEvaluationError(self.field, text)

    def typed(self, scope: Scope, kind: str) -> Json:
        """Return the value, which must be an `array`, `number`, `string` or `boolean`. Raises `QueryEvaluationError`."""
        value = self.evaluate(scope)
        if kind_of(value) != kind:
            raise self._error(
                f"returned an unexpected result type. Expected '{kind}', but was '{kind_of(value)}' for value: "
                f"{shown(value)}"
            )
        return value


def kind_of(value: Json) -> str:
    """Return JSON's name of a value's type."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def _look_up(names: tuple[str, ...], scope: JsonataScope) -> Any:
    """Return what a plain path finds when all on the way are objects; `_MISSING` leaves it to the library."""
    first, *rest = names
    value: Any = scope.data if first == "states" else scope.variables.get(first, _MISSING)
    for name in rest:
        if not isinstance(value, Mapping):
            return _MISSING
        value = value.get(name, _MISSING)
    return dict(value) if value is scope.data else value


def _to_json(value: Any, depth: int) -> Json:
    """Return a result of the library as JSON. Raises `_Unsupported`, `Exceeded`."""
    if value is NULL or value is None:
        return None
    if isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if depth >= MAX_DEPTH - 10:
        raise memory_exceeded()
    if isinstance(value, dict):
        return {str(key): _to_json(part, depth + 1) for key, part in value.items()}
    if isinstance(value, list):
        return [_to_json(part, depth + 1) for part in value]
    raise _Unsupported


def _message(error: JException) -> str:
    """Return the text of an error as the reference implementation writes it, from the library's parts."""
    template = JException.error_codes.get(error.error)
    if template is None:
        return str(error)
    # The port's catalogue says "Object" where the reference says "function".
    template = template.replace("Object", "function")
    given = (error.current, error.expected, error.extra)
    parts = iter(given[1:] if error.error == "D1002" else given)  # the port puts the operator first there

    def fill(match: re.Match[str]) -> str:
        value = next(parts, None)
        if error.error == "T0412" and value is error.extra:
            value = _TYPES.get(value, value)
        if match.group().startswith("{{{"):
            return str(value)
        try:
            return json.dumps(_to_json(value, 0), ensure_ascii=False, separators=(",", ":"))[:1_000]
        except (_Unsupported, Exceeded, ValueError):
            return '""'

    return _PLACEHOLDER.sub(fill, template).replace("  ", " ")


def is_expression(text: str) -> bool:
    """Whether a string of a definition is an expression."""
    return text.startswith("{%") and text.endswith("%}") and len(text) >= 4


def compile_expression(text: str, field: str) -> JsonataExpression:
    """Compile what stands between `{%` and `%}`. Raises `SyntaxProblem` with the parser's message."""
    text = text.strip()
    if len(text) > MAX_EXPRESSION_CHARACTERS:
        raise SyntaxProblem(f"A JSONata expression may have {MAX_EXPRESSION_CHARACTERS} characters at most")
    try:
        with _lock:
            engine = _Engine(text, regex_engine)
    except JException as error:
        raise SyntaxProblem(f"{error.error}: {_message(error)}") from None
    except RecursionError:
        raise SyntaxProblem("the expression is nested too deeply") from None
    # Patterns that do not compile, escapes that are none: the library lets their errors through as they come.
    except Exception as error:  # noqa: BLE001
        raise SyntaxProblem(f"the expression cannot be read: {error}") from None
    engine.set_validate_input(False)
    engine.set_output_convert_nulls(False)
    return JsonataExpression(text, field, _plain_names(text), engine)


def _plain_names(text: str) -> tuple[str, ...] | None:
    match = _PLAIN_PATH.fullmatch(text)
    if match is None:
        return None
    names = (match[1], *match[2].split(".")[1:])
    return None if _WORDS & set(names) or names[0] in FUNCTIONS else names


def is_function(name: str) -> bool:
    """Whether a variable of this name is one of the functions that every expression has."""
    return _BASE_FRAME.lookup(name) is not None


def syntax_tree(expression: JsonataExpression) -> Parser.Symbol:
    """Return the root of an expression's tree, to look for what AWS does not allow in it."""
    return expression.engine.ast
