"""Intrinsic calls: `States.Format('{} of {}', $.a, States.ArrayLength($.b))`. Grammar and compilation.

The functions themselves are in `intrinsic_functions`. Sources: https://states-language.net/spec.html#appendix-b and
https://docs.aws.amazon.com/step-functions/latest/dg/intrinsic-functions.html.
"""

import dataclasses
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from .evaluation import INTRINSIC_FAILURE, RUNTIME, Json, Scope, StatesError, shown
from .intrinsic_functions import FUNCTIONS, Function, IntrinsicProblem
from .json_text import InvalidJson
from .path import Path, parse_path_at
from .path_syntax import Cursor, SyntaxProblem

MAX_NESTING = 10
"""AWS: "You can nest up to 10 intrinsic functions within a field in your workflows"."""

MAX_CALL_CHARACTERS = 10_000
"""The longest call that is accepted."""

MAX_ARGUMENTS = 256
"""How many arguments a call may have; AWS does not document its bound."""

_NAME = re.compile(r"States\.[A-Za-z0-9]+")
_NUMBER = re.compile(r"-?[0-9]{1,40}(?:\.[0-9]{1,40})?(?:[eE][+-]?[0-9]{1,3})?(?=[\s,)])")
_WORD = re.compile(r"[a-z]+")
_WORDS: dict[str, Json] = {"true": True, "false": False, "null": None}
_ESCAPABLE = "'{}\\"
_BRACE_ESCAPES = {"{": "\\{", "}": "\\}", "\\": "\\\\"}

Argument: TypeAlias = Callable[[Scope], Json]


@dataclass(frozen=True, slots=True)
class IntrinsicCall:
    """A compiled call. Made by `parse_call`."""

    text: str
    field: str
    run: Argument = dataclasses.field(repr=False, compare=False)

    def evaluate(self, scope: Scope) -> Json:
        """Return the result. Raises `StatesError`: States.IntrinsicFailure, or States.Runtime for a missing path."""
        return self.run(scope)


@dataclass(frozen=True, slots=True)
class _Parsed:
    """An argument: how to get it, and what it is when it is written in the definition."""

    get: Argument
    kind: str
    literal: Json = None


def parse_call(text: str, field: str) -> IntrinsicCall:
    """Compile a call. Raises `SyntaxProblem`."""
    if len(text) > MAX_CALL_CHARACTERS:
        raise SyntaxProblem(f"an intrinsic call may have {MAX_CALL_CHARACTERS} characters at most")
    cursor = Cursor(text)
    run = _parse_call(cursor)
    cursor.skip_blanks()
    if cursor.peek():
        raise cursor.problem(f"unexpected '{cursor.peek()}' after the call")
    return IntrinsicCall(text, field, run)


def _parse_call(cursor: Cursor) -> Argument:
    start = cursor.pos
    name = cursor.match(_NAME)
    function = FUNCTIONS.get(name or "")
    if name is None or function is None:
        raise cursor.problem("expected an intrinsic function")
    cursor.depth += 1
    if cursor.depth > MAX_NESTING:
        raise cursor.problem(f"intrinsic functions can be nested {MAX_NESTING} deep at most")
    arguments = _parse_arguments(cursor, is_format=name == "States.Format")
    cursor.depth -= 1
    _check_arguments(cursor, name, function, arguments)
    return _bound(cursor.text[start : cursor.pos], function, arguments)


def _bound(text: str, function: Function, arguments: list[_Parsed]) -> Argument:
    """Return the call with its compiled arguments."""
    getters = tuple(argument.get for argument in arguments)
    run = function.run

    def call(scope: Scope) -> Json:
        values = [get(scope) for get in getters]
        try:
            return run(values)
        except (IntrinsicProblem, InvalidJson, RecursionError) as problem:
            raise StatesError(INTRINSIC_FAILURE, f"The function '{text}' had the following error: {problem}") from None

    return call


def _parse_arguments(cursor: Cursor, is_format: bool) -> list[_Parsed]:
    cursor.skip_blanks()
    cursor.expect("(")
    arguments: list[_Parsed] = []
    cursor.skip_blanks()
    while not cursor.take(")"):
        if arguments:
            cursor.expect(",")
            cursor.skip_blanks()
        if len(arguments) >= MAX_ARGUMENTS:
            raise cursor.problem(f"a call may have {MAX_ARGUMENTS} arguments at most")
        arguments.append(_parse_argument(cursor, keep_escapes=is_format and not arguments))
        cursor.skip_blanks()
    return arguments


def _parse_argument(cursor: Cursor, keep_escapes: bool) -> _Parsed:
    char = cursor.peek()
    if char == "'":
        text = _parse_string(cursor, keep_escapes)
        return _Parsed(lambda _: text, "string", text)
    if char == "$":
        path = parse_path_at(cursor, "", stops=",) \t\r\n")
        return _Parsed(_path_argument(path), "path")
    if char == "S":
        return _Parsed(_parse_call(cursor), "call")
    digits = cursor.match(_NUMBER)
    if digits is not None:
        number: Json = float(digits) if any(mark in digits for mark in ".eE") else int(digits)
        if abs(number) == math.inf:
            raise cursor.problem("the number is out of range")
        return _Parsed(lambda _: number, "number", number)
    word = cursor.match(_WORD)
    if word in _WORDS:
        value = _WORDS[word]
        return _Parsed(lambda _: value, "null" if value is None else "boolean", value)
    raise cursor.problem("expected an argument: a path, a string in single quotes, a number or a call")


def _path_argument(path: Path) -> Argument:
    """Return the path as an argument, with the error AWS raises when it finds nothing."""

    def get(scope: Scope) -> Json:
        try:
            return path.read(scope)
        except (KeyError, IndexError, TypeError):
            data = scope.data if path.root == "$" else scope.context if path.root == "$$" else None
            raise StatesError(
                RUNTIME,
                f"The JsonPath argument for the field '{path.text}' could not be found in the input '{shown(data)}'",
            ) from None

    return get


def _parse_string(cursor: Cursor, keep_escapes: bool) -> str:
    """Parse a string in single quotes. Only quote, braces and backslash may be escaped.

    `keep_escapes`: the format string keeps the backslashes before braces and backslashes, which Format itself reads.
    """
    cursor.expect("'")
    letters: list[str] = []
    while (char := cursor.peek()) != "'":
        if not char:
            raise cursor.problem("the closing ' is missing")
        cursor.pos += 1
        if char == "\\":
            char = cursor.peek()
            if not char or char not in _ESCAPABLE:
                raise cursor.problem("only ' { } and \\ can be escaped")
            cursor.pos += 1
            if keep_escapes:
                char = _BRACE_ESCAPES.get(char, char)
        letters.append(char)
    cursor.pos += 1
    return "".join(letters)


def _check_arguments(cursor: Cursor, name: str, function: Function, arguments: list[_Parsed]) -> None:
    """Refuse a wrong number of arguments, and literals of a type that the function can never take."""
    if not function.fewest <= len(arguments) <= function.most:
        raise cursor.problem(f"{name} does not take {len(arguments)} arguments")
    for argument, kinds in zip(arguments, function.literals, strict=False):
        if argument.kind not in ("path", "call") and argument.kind not in kinds:
            raise cursor.problem(f"{name} does not take a {argument.kind} there")
