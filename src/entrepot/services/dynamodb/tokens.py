"""The words of DynamoDB's expression language."""

import re
from dataclasses import dataclass
from typing import Literal

from entrepot.services.dynamodb.errors import ValidationException

MAX_EXPRESSION_BYTES = 4_096
"""Length of an expression (AWS's limit)."""

Kind = Literal["name", "#name", ":value", "number", "symbol", "end"]

_TOKEN = re.compile(
    r"(?P<space>[ \t\r\n\f]+)"
    r"|(?P<word>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<number>[0-9]+)"
    r"|(?P<placeholder>[#:][A-Za-z0-9_]+)"
    r"|(?P<symbol><>|<=|>=|[=<>(),.\[\]+-])"
)


@dataclass(frozen=True, slots=True)
class Token:
    """One word, where it begins and where it ends."""

    kind: Kind
    text: str
    start: int
    end: int


def tokenize(expression: str, parameter: str) -> list[Token]:
    """Split an expression into words, the last of kind `end`. Raise ValidationException in AWS's words.

    `parameter` is the request's parameter: `UpdateExpression`.
    """
    if not expression or expression.isspace():
        raise ValidationException(f"Invalid {parameter}: The expression can not be empty;")
    size_bytes = len(expression.encode("utf-8", "replace"))
    if size_bytes > MAX_EXPRESSION_BYTES:
        raise ValidationException(
            f"Invalid {parameter}: Expression size has exceeded the maximum allowed size; expression size: {size_bytes}"
        )
    tokens: list[Token] = []
    position = 0
    while position < len(expression):
        match = _TOKEN.match(expression, position)
        if match is None:
            start = tokens[-1].start if tokens else 0
            near = expression[start : position + 2].strip()
            raise ValidationException(
                f'Invalid {parameter}: Syntax error; token: "{expression[position]}", near: "{near}"'
            )
        position = match.end()
        group, text = match.lastgroup, match.group()
        if group == "space":
            continue
        kind: Kind
        if group == "word":
            kind = "name"
        elif group == "placeholder":
            kind = "#name" if text[0] == "#" else ":value"
        else:
            kind = "number" if group == "number" else "symbol"
        tokens.append(Token(kind, text, match.start(), position))
    tokens.append(Token("end", "<EOF>", len(expression), len(expression)))
    return tokens
