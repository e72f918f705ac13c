"""DynamoDB's expressions: text → immutable syntax trees, with AWS's validation errors.

A tree keeps its placeholders (`#name`, `:value`), so that one parse serves every request with the same text: parses are
remembered. `conditions.py`, `updates.py` and `queries.py` give trees their meaning.

Source: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Expressions.html
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import NoReturn, TypeAlias

from entrepot.services.dynamodb.errors import ValidationException
from entrepot.services.dynamodb.reserved_words import RESERVED_WORDS
from entrepot.services.dynamodb.tokens import Token, tokenize

REMEMBERED = 1_024
"""Parsed expressions that are remembered, of each kind."""

MAX_NESTING = 64
"""Levels of parentheses and NOT."""

MAX_OPERATORS = 300
"""Operators and functions in one expression (AWS's limit)."""

MAX_IN_OPERANDS = 100
"""Values of IN (AWS's limit)."""

COMPARATORS = ("=", "<>", "<", "<=", ">", ">=")
_CONDITION_FUNCTIONS = {
    "attribute_exists": 1,
    "attribute_not_exists": 1,
    "attribute_type": 2,
    "begins_with": 2,
    "contains": 2,
    "size": 1,
}
_UPDATE_FUNCTIONS = {"if_not_exists": 2, "list_append": 2}
_PATH_FIRST = ("attribute_exists", "attribute_not_exists", "if_not_exists")
_OPERATOR_WORDS = {"AND", "OR", "NOT", "BETWEEN", "IN"}
_SECTIONS = ("SET", "REMOVE", "ADD", "DELETE")


@dataclass(frozen=True, slots=True)
class Path:
    """A document path: names (`a`, `#a`) and list indexes."""

    elements: tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Value:
    """`:name`, a value of the request."""

    name: str


@dataclass(frozen=True, slots=True)
class Function:
    """A call such as `begins_with(a, :b)`."""

    name: str
    arguments: "tuple[Operand, ...]"


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """`left + right` or `left - right` in SET."""

    operator: str
    left: "Operand"
    right: "Operand"


Operand: TypeAlias = Path | Value | Function | Arithmetic


@dataclass(frozen=True, slots=True)
class Comparison:
    """`left operator right`, one of COMPARATORS."""

    operator: str
    left: Operand
    right: Operand


@dataclass(frozen=True, slots=True)
class Between:
    """`operand BETWEEN low AND high`."""

    operand: Operand
    low: Operand
    high: Operand


@dataclass(frozen=True, slots=True)
class In:
    """`operand IN (a, b)`."""

    operand: Operand
    candidates: tuple[Operand, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """`NOT condition`."""

    condition: "Condition"


@dataclass(frozen=True, slots=True)
class Logical:
    """`left AND right` or `left OR right`."""

    operator: str
    left: "Condition"
    right: "Condition"


Condition: TypeAlias = Comparison | Between | In | Not | Logical | Function


@dataclass(frozen=True, slots=True)
class Action:
    """One action of an update: SET path = operand, REMOVE path, ADD path value, DELETE path value."""

    section: str
    path: Path
    operand: Operand | None


@dataclass(frozen=True, slots=True)
class Parsed:
    """What was parsed, and which placeholders it uses. Exactly one of the three bodies is filled."""

    parameter: str
    names: tuple[str, ...]
    values: tuple[str, ...]
    condition: Condition | None = None
    actions: tuple[Action, ...] = ()
    paths: tuple[Path, ...] = ()


@lru_cache(maxsize=REMEMBERED)
def parse_condition(text: str, parameter: str) -> Parsed:
    """Parse a condition, filter or key condition. Raise ValidationException in AWS's words."""
    parser = _Parser(text, parameter, _CONDITION_FUNCTIONS)
    condition = parser.condition()
    parser.expect_end()
    return Parsed(parameter, tuple(parser.names), tuple(parser.values), condition=condition)


@lru_cache(maxsize=REMEMBERED)
def parse_update(text: str, parameter: str = "UpdateExpression") -> Parsed:
    """Parse an update expression. Raise ValidationException in AWS's words."""
    parser = _Parser(text, parameter, _UPDATE_FUNCTIONS)
    actions = parser.update()
    parser.expect_end()
    return Parsed(parameter, tuple(parser.names), tuple(parser.values), actions=actions)


@lru_cache(maxsize=REMEMBERED)
def parse_projection(text: str, parameter: str = "ProjectionExpression") -> Parsed:
    """Parse a projection expression. Raise ValidationException in AWS's words."""
    parser = _Parser(text, parameter, {})
    paths = [parser.path()]
    while parser.take(","):
        paths.append(parser.path())
    parser.expect_end()
    return Parsed(parameter, tuple(parser.names), tuple(parser.values), paths=tuple(paths))


class _Parser:
    """Recursive descent over the tokens of one expression."""

    def __init__(self, text: str, parameter: str, functions: dict[str, int]) -> None:
        self._text = text
        self._parameter = parameter
        self._functions = functions
        self._tokens = tokenize(text, parameter)
        self._position = 0
        self._depth = 0
        self._operators = 0
        self.names: dict[str, None] = {}
        self.values: dict[str, None] = {}

    # ── tokens ───────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def _token(self) -> Token:
        return self._tokens[self._position]

    def _is_word(self, word: str) -> bool:
        return self._token.kind == "name" and self._token.text.upper() == word

    def _take_word(self, word: str) -> bool:
        if self._is_word(word):
            self._position += 1
            return True
        return False

    def take(self, symbol: str) -> bool:
        """Go past a symbol if it is next."""
        if self._token.kind == "symbol" and self._token.text == symbol:
            self._position += 1
            return True
        return False

    def _expect(self, symbol: str) -> None:
        if not self.take(symbol):
            self._syntax_error()

    def expect_end(self) -> None:
        """Refuse whatever follows."""
        if self._token.kind != "end":
            self._syntax_error()

    def _error(self, message: str) -> NoReturn:
        raise ValidationException(f"Invalid {self._parameter}: {message}")

    def _syntax_error(self) -> NoReturn:
        token = self._token
        before = self._tokens[max(0, self._position - 1)]
        after = self._tokens[min(len(self._tokens) - 1, self._position + 1)]
        near = self._text[before.start : after.end].strip()
        self._error(f'Syntax error; token: "{token.text}", near: "{near}"')

    def _count_operator(self) -> None:
        self._operators += 1
        if self._operators > MAX_OPERATORS:
            self._error(
                "The expression contains too many operators; number of operators: "
                f"{self._operators}, maximum number of operators: {MAX_OPERATORS}"
            )

    # ── operands ─────────────────────────────────────────────────────────────────────────────────────────────────

    def path(self) -> Path:
        """Parse `a.b[1]`."""
        elements: list[str | int] = [self._path_name()]
        while True:
            if self.take("."):
                elements.append(self._path_name())
            elif self.take("["):
                if self._token.kind != "number" or len(self._token.text) > 9:
                    self._syntax_error()
                elements.append(int(self._token.text))
                self._position += 1
                self._expect("]")
            else:
                return Path(tuple(elements))

    def _path_name(self) -> str:
        token = self._token
        if token.kind == "#name":
            self.names[token.text] = None
        elif token.kind != "name" or token.text.upper() in _OPERATOR_WORDS:
            self._syntax_error()
        elif token.text.upper() in RESERVED_WORDS:
            self._error(f"Attribute name is a reserved keyword; reserved keyword: {token.text}")
        self._position += 1
        return token.text

    def _operand(self) -> Operand:
        token = self._token
        if token.kind == ":value":
            self.values[token.text] = None
            self._position += 1
            return Value(token.text)
        following = self._tokens[min(self._position + 1, len(self._tokens) - 1)]
        if token.kind == "name" and following.kind == "symbol" and following.text == "(":
            if token.text.upper() in _OPERATOR_WORDS:
                self._syntax_error()
            return self._function()
        return self.path()

    def _function(self) -> Function:
        name = self._token.text
        self._enter()
        self._position += 2
        arguments = [self._operand()]
        while self.take(","):
            arguments.append(self._operand())
        self._expect(")")
        self._depth -= 1
        known = self._functions.get(name)
        if known is None:
            if name in _CONDITION_FUNCTIONS or name in _UPDATE_FUNCTIONS:
                place = "an update" if self._functions is _UPDATE_FUNCTIONS else "a condition"
                self._error(f"The function is not allowed in {place} expression; function: {name}")
            self._error(f"Invalid function name; function: {name}")
        if len(arguments) != known:
            self._error(
                "Incorrect number of operands for operator or function; operator or function: "
                f"{name}, number of operands: {len(arguments)}"
            )
        if name in _PATH_FIRST and not isinstance(arguments[0], Path):
            self._error(f"Operator or function requires a document path; operator or function: {name}")
        return Function(name, tuple(arguments))

    def _enter(self) -> None:
        self._depth += 1
        self._count_operator()
        if self._depth > MAX_NESTING:
            self._error(f"The expression is nested too deeply; maximum depth: {MAX_NESTING}")

    # ── conditions ───────────────────────────────────────────────────────────────────────────────────────────────

    def condition(self) -> Condition:
        """Parse `a OR b`, loosest first."""
        left = self._conjunction()
        while self._take_word("OR"):
            self._count_operator()
            left = Logical("OR", left, self._conjunction())
        return left

    def _conjunction(self) -> Condition:
        left = self._negation()
        while self._take_word("AND"):
            self._count_operator()
            left = Logical("AND", left, self._negation())
        return left

    def _negation(self) -> Condition:
        if self._take_word("NOT"):
            self._enter()
            negated = Not(self._negation())
            self._depth -= 1
            return negated
        if self._token.kind == "symbol" and self._token.text == "(":
            return self._parenthesized()
        return self._simple()

    def _parenthesized(self) -> Condition:
        self._enter()
        self._position += 1
        redundant = self._token.kind == "symbol" and self._token.text == "("
        inner_start = self._position
        condition = self.condition()
        if redundant and self._closes(inner_start):
            self._error("The expression has redundant parentheses;")
        self._expect(")")
        self._depth -= 1
        return condition

    def _closes(self, opening: int) -> bool:
        """Tell whether the parenthesis at `opening` is closed by the token just read."""
        depth = 0
        for index in range(opening, self._position):
            text, kind = self._tokens[index].text, self._tokens[index].kind
            if kind == "symbol" and text in "()":
                depth += 1 if text == "(" else -1
                if depth == 0:
                    return index == self._position - 1
        return False

    def _simple(self) -> Condition:
        left = self._operand()
        token = self._token
        if token.kind == "symbol" and token.text in COMPARATORS:
            self._position += 1
            self._count_operator()
            right = self._operand()
            self._check_distinct(token.text, left, right)
            for operand in (left, right):
                self._check_operand(token.text, operand)
            return Comparison(token.text, left, right)
        if self._take_word("BETWEEN"):
            return self._between(left)
        if self._take_word("IN"):
            return self._in(left)
        if isinstance(left, Function):
            if left.name == "size":
                self._error("The function is not allowed to be used this way in an expression; function: size")
            for argument in left.arguments:
                if isinstance(argument, Function) and argument.name != "size":
                    self._check_operand(left.name, argument)
            return left
        return self._syntax_error()

    def _between(self, operand: Operand) -> Between:
        self._count_operator()
        low = self._operand()
        if not self._take_word("AND"):
            self._syntax_error()
        high = self._operand()
        for one in (operand, low, high):
            self._check_operand("BETWEEN", one)
        return Between(operand, low, high)

    def _in(self, operand: Operand) -> In:
        self._count_operator()
        self._expect("(")
        candidates = [self._operand()]
        while self.take(","):
            candidates.append(self._operand())
        self._expect(")")
        if len(candidates) > MAX_IN_OPERANDS:
            self._error(
                "Incorrect number of operands for operator or function; operator or function: IN, "
                f"number of operands: {len(candidates) + 1}"
            )
        for one in (operand, *candidates):
            self._check_operand("IN", one)
        return In(operand, tuple(candidates))

    def _check_operand(self, operator: str, operand: Operand) -> None:
        if isinstance(operand, Function) and operand.name != "size":
            self._error(f"The function is not allowed to be used this way in an expression; function: {operand.name}")

    def _check_distinct(self, operator: str, left: Operand, right: Operand) -> None:
        if isinstance(left, Path) and left == right:
            self._error(
                "The first operand must be distinct from the remaining operands for this operator or function; "
                f"operator: {operator}, first operand: {path_text(left.elements)}"
            )

    # ── updates ──────────────────────────────────────────────────────────────────────────────────────────────────

    def update(self) -> tuple[Action, ...]:
        """Parse `SET … REMOVE … ADD … DELETE …`, each section once."""
        actions: list[Action] = []
        seen: set[str] = set()
        while self._token.kind != "end":
            section = self._token.text.upper()
            if self._token.kind != "name" or section not in _SECTIONS:
                self._syntax_error()
            if section in seen:
                self._error(f'The "{section}" section can only be used once in an update expression;')
            seen.add(section)
            self._position += 1
            actions.append(self._action(section))
            while self.take(","):
                actions.append(self._action(section))
        return tuple(actions)

    def _action(self, section: str) -> Action:
        path = self.path()
        self._count_operator()
        if section == "REMOVE":
            return Action(section, path, None)
        if section == "SET":
            self._expect("=")
            return Action(section, path, self._set_operand())
        if self._token.kind != ":value":
            self._syntax_error()
        return Action(section, path, self._operand())

    def _set_operand(self) -> Operand:
        left = self._term()
        token = self._token
        if token.kind == "symbol" and token.text in "+-":
            self._position += 1
            self._count_operator()
            return Arithmetic(token.text, left, self._term())
        return left

    def _term(self) -> Operand:
        if self.take("("):
            self._enter()
            inner = self._set_operand()
            self._expect(")")
            self._depth -= 1
            return inner
        return self._operand()


def path_text(elements: tuple[str | int, ...]) -> str:
    """Return a path as AWS's messages show it: `[a, b, [1]]`."""
    return f"[{', '.join(f'[{element}]' if isinstance(element, int) else element for element in elements)}]"
