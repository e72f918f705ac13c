"""Patterns of IAM policies: `*`, `?` and policy variables, compiled once and matched without backtracking.

Matching takes at most length of the text × length of the pattern steps, whatever the pattern. A value that a variable
brings in is literal: a `*` in a user's name matches a `*`, nothing else.

Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_variables.html
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias


@dataclass(frozen=True, slots=True)
class Variable:
    """`${name}` or `${name, 'default'}`; the name in lower case, as IAM compares it."""

    name: str
    default: str | None = None


class Substituted(str):
    """A variable's value: literal as a whole, so that a colon in it does not begin another part of an ARN."""

    __slots__ = ()


class _Wildcard:
    """`*` (any text) or `?` (any one character)."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return f"<{self.text}>"


ANY_TEXT: Final = _Wildcard("*")
ANY_CHARACTER: Final = _Wildcard("?")

Token: TypeAlias = str | Variable | _Wildcard
Lookup: TypeAlias = Callable[[str], str | None]
Matcher: TypeAlias = Callable[[str], bool]


def tokenize(text: str, *, variables: bool, wildcards: bool) -> tuple[Token, ...]:
    """Split `text` into literals, wildcards and variables; raise ValueError with the reason when it is malformed.

    With `variables` off (policies of Version 2008-10-17) `${…}` is plain text.
    """
    tokens: list[Token] = []
    literal: list[str] = []
    position = 0
    while position < len(text):
        character = text[position]
        if variables and text.startswith("${", position):
            end = text.find("}", position)
            if end < 0:
                raise ValueError(f"the policy variable at character {position} is not closed with a brace")
            token = _variable(text[position + 2 : end])
            position = end + 1
            if isinstance(token, str):
                literal.append(token)
                continue
        elif wildcards and character in "*?":
            token = ANY_TEXT if character == "*" else ANY_CHARACTER
            position += 1
        else:
            literal.append(character)
            position += 1
            continue
        if literal:
            tokens.append("".join(literal))
            literal.clear()
        tokens.append(token)
    if literal:
        tokens.append("".join(literal))
    return tuple(tokens)


def _variable(inside: str) -> Token:
    if inside in ("*", "?", "$"):
        return inside
    name, comma, default = inside.partition(",")
    name, default = name.strip(), default.strip()
    if not name or any(character in name for character in "${}' "):
        raise ValueError(f"${{{inside}}} is not a policy variable")
    if not comma:
        return Variable(name.lower())
    if len(default) < 2 or default[0] != "'" or default[-1] != "'":
        raise ValueError(f"the default value of ${{{name}}} must stand in single quotes")
    return Variable(name.lower(), default[1:-1])


def has_variables(tokens: Sequence[Token]) -> bool:
    """Tell whether the tokens need values before they can be matched."""
    return any(isinstance(token, Variable) for token in tokens)


def variable_names(tokens: Sequence[Token]) -> set[str]:
    """Return the names of the variables among the tokens, in lower case."""
    return {token.name for token in tokens if isinstance(token, Variable)}


def substitute(tokens: Sequence[Token], lookup: Lookup) -> tuple[Token, ...] | None:
    """Return the tokens with each variable's value as literal text, or None when one has neither value nor default."""
    result: list[Token] = []
    for token in tokens:
        if isinstance(token, Variable):
            value = lookup(token.name)
            if value is None:
                value = token.default
            if value is None:
                return None
            result.append(Substituted(value))
        else:
            result.append(token)
    return tuple(result)


def literal_text(tokens: Sequence[Token]) -> str:
    """Return the text of tokens that have no variables; wildcards stand for themselves."""
    return "".join(token.text if isinstance(token, _Wildcard) else token for token in tokens)  # type: ignore[misc]


def split_arn(tokens: Sequence[Token]) -> tuple[tuple[Token, ...], ...]:
    """Split a pattern at its first five colons into the parts of an ARN; colons inside variables do not count."""
    parts: list[list[Token]] = [[]]
    for token in tokens:
        if not isinstance(token, str) or isinstance(token, Substituted):
            parts[-1].append(token)
            continue
        rest = token
        while len(parts) < 6 and ":" in rest:
            before, _, rest = rest.partition(":")
            if before:
                parts[-1].append(before)
            parts.append([])
        if rest:
            parts[-1].append(rest)
    return tuple(tuple(part) for part in parts)


def matcher(tokens: Sequence[Token]) -> Matcher:
    """Return a function that tells whether a text matches tokens without variables."""
    pieces: list[list[Token]] = [[]]
    for token in tokens:
        if token is ANY_TEXT:
            pieces.append([])
        else:
            pieces[-1].append(token)
    if all(isinstance(token, str) for piece in pieces for token in piece):
        return _literal_matcher(["".join(piece) for piece in pieces])  # type: ignore[arg-type]
    return _glob_matcher([_Piece(piece) for piece in pieces])


def _literal_matcher(pieces: list[str]) -> Matcher:
    """Match literals that `*` parts: the first anchored left, the last right, the others found from left to right."""
    if len(pieces) == 1:
        return pieces[0].__eq__
    first, last, middle = pieces[0], pieces[-1], tuple(piece for piece in pieces[1:-1] if piece)
    if not middle and not last:
        return (lambda text: True) if not first else (lambda text: text.startswith(first))
    shortest = len(first) + len(last)

    def match(text: str) -> bool:
        if len(text) < shortest or not text.startswith(first) or not text.endswith(last):
            return False
        position, end = len(first), len(text) - len(last)
        for piece in middle:
            found = text.find(piece, position, end)
            if found < 0:
                return False
            position = found + len(piece)
        return True

    return match


class _Piece:
    """Literals at fixed offsets, with `?` between them."""

    __slots__ = ("length", "literals")

    def __init__(self, tokens: Sequence[Token]) -> None:
        self.literals: list[tuple[int, str]] = []
        self.length = 0
        for token in tokens:
            if isinstance(token, str):
                self.literals.append((self.length, token))
                self.length += len(token)
            else:
                self.length += 1

    def at(self, text: str, position: int) -> bool:
        return all(text.startswith(literal, position + offset) for offset, literal in self.literals)

    def find(self, text: str, position: int, end: int) -> int:
        last = end - self.length
        if not self.literals:
            return position if position <= last else -1
        offset, literal = self.literals[0]
        while position <= last:
            found = text.find(literal, position + offset, end)
            if found < 0 or found - offset > last:
                return -1
            position = found - offset
            if self.at(text, position):
                return position
            position += 1
        return -1


def _glob_matcher(pieces: list[_Piece]) -> Matcher:
    first, last, middle = pieces[0], pieces[-1], tuple(pieces[1:-1])
    if len(pieces) == 1:
        return lambda text: len(text) == first.length and first.at(text, 0)

    def match(text: str) -> bool:
        position, end = first.length, len(text) - last.length
        if position > end or not first.at(text, 0) or not last.at(text, end):
            return False
        for piece in middle:
            found = piece.find(text, position, end)
            if found < 0:
                return False
            position = found + piece.length
        return True

    return match
