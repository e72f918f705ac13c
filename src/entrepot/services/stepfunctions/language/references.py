"""Which variables the states of a definition refer to, as DescribeStateMachine tells.

Source: https://docs.aws.amazon.com/step-functions/latest/apireference/API_DescribeStateMachine.html
"""

import contextlib
import functools
import re
from collections.abc import Iterator
from typing import Any

from . import json_text
from .evaluation import Json
from .jsonata import compile_expression, is_expression
from .jsonata_check import variables
from .path_syntax import SyntaxProblem

_INNER = ("Branches", "ItemProcessor", "Iterator")
"""What holds states of its own."""

_TEXTS = ("Comment", "Result")
"""What is taken as it stands."""

_PATH_FIELDS = re.compile(r".+Path|.+\.\$|Variable|.+PathEquals")
_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'")
_VARIABLE = re.compile(r"(?<![\w$.@])\$([^\W\d]\w*)")


@functools.lru_cache(maxsize=128)
def variable_references(definition: str) -> dict[str, tuple[str, ...]]:
    """Return the variables by state, sorted, of a definition that was accepted; states without any are not in it."""
    source = json_text.loads(definition)
    found: dict[str, tuple[str, ...]] = {}
    pending: list[tuple[Any, str]] = [(source, source.get("QueryLanguage", "JSONPath"))]
    while pending:
        workflow, default = pending.pop()
        for name, state in workflow["States"].items():
            language = state.get("QueryLanguage", default)
            named = sorted(set(_named(state, "", jsonata=language == "JSONata")))
            if named:
                found[name] = tuple(named)
            inner = [state[field] for field in _INNER if field in state]
            pending.extend(
                (part, default) for field in inner for part in (field if isinstance(field, list) else [field])
            )
    return found


def _named(value: Json, field: str, *, jsonata: bool) -> Iterator[str]:
    if isinstance(value, dict):
        for key, part in value.items():
            if field or key not in (*_INNER, *_TEXTS):
                yield from _named(part, key, jsonata=jsonata)
    elif isinstance(value, list):
        for part in value:
            yield from _named(part, field, jsonata=jsonata)
    elif isinstance(value, str) and jsonata and is_expression(value):
        with contextlib.suppress(SyntaxProblem):  # a text that is no expression: the definition was accepted
            yield from variables(compile_expression(value[2:-2], field))
    elif isinstance(value, str) and not jsonata and _PATH_FIELDS.fullmatch(field):
        yield from _VARIABLE.findall(_QUOTED.sub("", value))
