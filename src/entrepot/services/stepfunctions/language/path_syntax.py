"""The grammar of paths: text to steps. Knows nothing of data.

The dialect is Jayway's, which AWS runs, with the additions of the language: `$$` (context object), `$name` (variable),
and backslash escapes in dot notation (https://states-language.net/spec.html#ref-paths). Path functions such as
`length()` and regular expressions in filters are refused.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

MAX_PATH_CHARACTERS = 4_096
"""The longest path that is accepted."""

MAX_FILTER_DEPTH = 20
"""How deeply filters and their parentheses may be nested in one path."""

MAX_VARIABLE_NAME_CHARACTERS = 80
"""AWS's limit: https://docs.aws.amazon.com/step-functions/latest/dg/workflow-variables.html."""

_INTEGER = re.compile(r"-?[0-9]{1,9}")
_NAME = re.compile(r"\w+")


class SyntaxProblem(ValueError):
    """The text is no path, call or template; str() says what is wrong where."""


@dataclass(frozen=True, slots=True)
class Keys:
    """`.a`, `['a']`, `['a','b']`."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Indexes:
    """`[0]`, `[-1]`, `[0,2]`."""

    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Slice:
    """`[1:3]`, `[1:]`, `[:3]`."""

    start: int | None
    stop: int | None


@dataclass(frozen=True, slots=True)
class Wildcard:
    """`.*`, `[*]`."""


@dataclass(frozen=True, slots=True)
class Descend:
    """`..`: the next step applies to every node below, too."""


@dataclass(frozen=True, slots=True)
class Filter:
    """`[?(…)]`; `test` is the compiled filter expression (`path_filter`)."""

    test: object


Step: TypeAlias = Keys | Indexes | Slice | Wildcard | Descend | Filter


class Cursor:
    """A position in a text, shared by the parsers of paths, filters and intrinsic calls."""

    __slots__ = ("depth", "pos", "text")

    def __init__(self, text: str, pos: int = 0) -> None:
        self.text = text
        self.pos = pos
        self.depth = 0

    def peek(self) -> str:
        """Return the next character, or an empty string at the end."""
        return self.text[self.pos : self.pos + 1]

    def take(self, literal: str) -> bool:
        """Step over `literal` if it is next."""
        if self.text.startswith(literal, self.pos):
            self.pos += len(literal)
            return True
        return False

    def expect(self, literal: str) -> None:
        """Step over `literal`. Raises `SyntaxProblem` when something else is next."""
        if not self.take(literal):
            raise self.problem(f"expected '{literal}'")

    def match(self, pattern: re.Pattern[str]) -> str | None:
        """Step over what `pattern` matches here and return it."""
        found = pattern.match(self.text, self.pos)
        if found is None:
            return None
        self.pos = found.end()
        return found.group()

    def skip_blanks(self) -> None:
        """Step over spaces and tabs."""
        while self.peek() in (" ", "\t", "\n", "\r") and self.peek():
            self.pos += 1

    def problem(self, what: str) -> SyntaxProblem:
        """Return the error that says `what` at this position."""
        return SyntaxProblem(f"{what} at position {self.pos} of '{self.text[:200]}'")


FilterParser: TypeAlias = Callable[[Cursor], object]


def is_variable_name(name: str) -> bool:
    """Whether `name` may name a variable: Unicode ID_Start, then ID_Continue, at most 80 characters, not `states`."""
    return (
        name.isidentifier()
        and not name.startswith("_")
        and len(name) <= MAX_VARIABLE_NAME_CHARACTERS
        and name != "states"
    )


def parse_root(cursor: Cursor) -> str:
    """Return the root of a path: `$`, `$$`, or a variable's name."""
    cursor.expect("$")
    if cursor.take("$"):
        return "$$"
    name = cursor.match(_NAME)
    if name is None:
        return "$"
    if not is_variable_name(name):
        raise cursor.problem(f"'{name[:100]}' is no valid variable name")
    return name


def parse_steps(cursor: Cursor, stops: str, filter_parser: FilterParser) -> tuple[Step, ...]:
    """Return the steps that follow a root. `stops`: characters that end the path (where it stands inside something)."""
    steps: list[Step] = []
    while (char := cursor.peek()) and char not in stops:
        if cursor.take(".."):
            steps.append(Descend())
            if cursor.peek() != "[":
                steps.append(_parse_dotted(cursor, stops))
        elif cursor.take("."):
            if cursor.peek() != "[":  # `$.['a']` is `$['a']`
                steps.append(_parse_dotted(cursor, stops))
        elif cursor.take("["):
            steps.append(_parse_bracket(cursor, filter_parser))
        else:
            raise cursor.problem(f"unexpected '{char}'")
    return tuple(steps)


def _parse_dotted(cursor: Cursor, stops: str) -> Step:
    """Parse what follows a dot: a name (backslash escapes the next character) or `*`."""
    if cursor.take("*"):
        return Wildcard()
    letters: list[str] = []
    while (char := cursor.peek()) and char not in ".[" and char not in stops:
        if char in " \t\r\n()'\"":
            raise cursor.problem(f"'{char}' must stand in bracket notation")
        cursor.pos += 1
        if char == "\\":
            char = _parse_escape(cursor)
        letters.append(char)
    if not letters:
        raise cursor.problem("a field name is missing")
    return Keys(("".join(letters),))


def _parse_escape(cursor: Cursor) -> str:
    char = cursor.peek()
    if not char:
        raise cursor.problem("nothing follows the backslash")
    cursor.pos += 1
    if char != "u":
        return char
    digits = cursor.text[cursor.pos : cursor.pos + 4]
    if re.fullmatch("[0-9A-Fa-f]{4}", digits) is None:
        return char
    cursor.pos += 4
    return chr(int(digits, 16))


def _parse_bracket(cursor: Cursor, filter_parser: FilterParser) -> Step:
    """Parse what follows `[`, including `]`."""
    cursor.skip_blanks()
    step: Step
    if cursor.take("*"):
        step = Wildcard()
    elif cursor.take("?"):
        step = Filter(_parse_filter(cursor, filter_parser))
    elif cursor.peek() in ("'", '"'):
        step = _parse_names(cursor)
    else:
        step = _parse_numbers(cursor)
    cursor.skip_blanks()
    cursor.expect("]")
    return step


def _parse_filter(cursor: Cursor, filter_parser: FilterParser) -> object:
    cursor.skip_blanks()
    if cursor.peek() != "(":
        raise cursor.problem("expected '(' after '?'")
    return filter_parser(cursor)


def _parse_names(cursor: Cursor) -> Keys:
    names = [parse_quoted(cursor)]
    cursor.skip_blanks()
    while cursor.take(","):
        cursor.skip_blanks()
        names.append(parse_quoted(cursor))
        cursor.skip_blanks()
    return Keys(tuple(names))


def parse_quoted(cursor: Cursor) -> str:
    """Parse a quoted name. A backslash is dropped only before a backslash or the quote itself, as AWS does."""
    quote = cursor.peek()
    if quote not in ("'", '"') or not quote:
        raise cursor.problem("expected a quoted name")
    cursor.pos += 1
    letters: list[str] = []
    while (char := cursor.peek()) != quote:
        if not char:
            raise cursor.problem(f"the closing {quote} is missing")
        cursor.pos += 1
        if char == "\\" and cursor.peek() in ("\\", quote) and cursor.peek():
            char = cursor.peek()
            cursor.pos += 1
        letters.append(char)
    cursor.pos += 1
    return "".join(letters)


def _parse_numbers(cursor: Cursor) -> Step:
    first = _parse_integer(cursor)
    if cursor.take(":"):
        cursor.skip_blanks()
        return Slice(first, _parse_integer(cursor))
    if first is None:
        raise cursor.problem("expected an index, a name in quotes, '*' or '?('")
    numbers = [first]
    while cursor.take(","):
        cursor.skip_blanks()
        number = _parse_integer(cursor)
        if number is None:
            raise cursor.problem("expected an index")
        numbers.append(number)
    return Indexes(tuple(numbers))


def _parse_integer(cursor: Cursor) -> int | None:
    digits = cursor.match(_INTEGER)
    cursor.skip_blanks()
    return None if digits is None else int(digits)


def is_definite(steps: tuple[Step, ...]) -> bool:
    """Whether the steps lead to one place at most (a list of names at the end gives one object)."""
    for number, step in enumerate(steps):
        if isinstance(step, Keys) and (len(step.names) == 1 or number == len(steps) - 1):
            continue
        if isinstance(step, Indexes) and len(step.numbers) == 1:
            continue
        return False
    return True
