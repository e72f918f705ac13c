"""Reads metric math by the grammar in `math.lark`."""

from functools import cache
from importlib.resources import files
from typing import Any

from lark import Lark, Token, Transformer, UnexpectedInput, v_args

from entrepot.services.cloudwatch.expressions.parse import (
    Array,
    Binary,
    Call,
    ExpressionError,
    Name,
    Negative,
    Node,
    Number,
    Text,
    unquoted,
)


def read(text: str) -> Node:
    """Return the tree of an expression; ExpressionError says where it cannot be read."""
    try:
        node: Node = _Builder().transform(grammar("math.lark").parse(text))
    except UnexpectedInput as error:
        place = error.pos_in_stream
        where = "at its end" if place is None or place < 0 or place >= len(text) else f"at character {place + 1}"
        raise ExpressionError(f"Error in expression '{text}': it cannot be read {where}.") from None
    return node


@cache
def grammar(name: str) -> Lark:
    """Return the parser of a grammar beside this file."""
    return Lark(files(__package__).joinpath(name).read_text(encoding="utf-8"), parser="lalr", maybe_placeholders=True)


@v_args(inline=True)
class _Builder(Transformer[Token, Any]):
    """Lark's tree to ours; one method for each rule."""

    def start(self, node: Node) -> Node:
        return node

    def binary(self, left: Node, symbol: Token, right: Node) -> Node:
        return Binary({"AND": "&&", "OR": "||"}.get(str(symbol), str(symbol)), left, right)

    def signed(self, sign: Token, operand: Node) -> Node:
        return Negative(operand) if sign == "-" else operand

    def name(self, token: Token) -> Node:
        return Name(str(token))

    def number(self, token: Token) -> Node:
        return Number(float(token))

    def text(self, token: Token) -> Node:
        return Text(unquoted(token))

    def array(self, *items: Node) -> Node:
        return Array(items)

    def call(self, function: Token, *arguments: Node | None) -> Node:
        return Call(str(function), tuple(argument for argument in arguments if argument is not None))
