"""What a target receives: the event, a constant, a part of the event, or a template filled from it.

Source: https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-transform-target-input.html
"""

import functools
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from entrepot import clock
from entrepot.services.events.errors import ValidationError
from entrepot.services.events.rules import Target

INPUT_LIMIT = 8192
"""Characters of Input and of InputTemplate."""

INPUT_PATHS_LIMIT = 100
"""Variables of one InputTransformer."""

REMEMBERED = 1024
"""Paths, and templates, that are remembered in their parsed form."""

Step: TypeAlias = str | int


class _Missing:
    """Stands for a path that leads nowhere in this event."""


_STEP = re.compile(r"\.([A-Za-z0-9_\-:/@$]+|\*)|\[\s*(\d{1,9}|\*)\s*\]|\[\s*'([^']*)'\s*\]|\[\s*\"([^\"]*)\"\s*\]")
_PLACEHOLDER = re.compile(r"<([A-Za-z0-9_.\-]+)>")

RESERVED = (
    "aws.events.rule-arn",
    "aws.events.rule-name",
    "aws.events.event.ingestion-time",
    "aws.events.event",
    "aws.events.event.json",
)


@functools.lru_cache(maxsize=REMEMBERED)
def parse_path(text: str) -> tuple[Step, ...]:
    """Return the steps of a JSON path (`$.detail.items[0].name`); raise ValidationError."""
    if not text.startswith("$"):
        raise ValidationError(f"Invalid JSON path {text!r}: it must start with '$'.")
    steps: list[Step] = []
    position = 1
    while position < len(text):
        found = _STEP.match(text, position)
        if found is None:
            raise ValidationError(f"Invalid JSON path {text!r}: not understood from character {position + 1}.")
        name, index, single, double = found.groups()
        if index is not None:
            steps.append("*" if index == "*" else int(index))
        else:
            steps.append(next(step for step in (name, single, double) if step is not None))
        position = found.end()
    return tuple(steps)


def at_path(event: Any, text: str) -> Any:
    """Return what is at a JSON path of the event; the class `_Missing` when nothing is."""
    return _walk(event, parse_path(text))


def value_at(event: Any, text: str) -> Any:
    """Return what is at a JSON path of the event; None when nothing is."""
    found = at_path(event, text)
    return None if found is _Missing else found


def _walk(value: Any, steps: tuple[Step, ...]) -> Any:
    for number, step in enumerate(steps):
        if step == "*":
            elements = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
            found = [_walk(element, steps[number + 1 :]) for element in elements]
            return [element for element in found if element is not _Missing]
        if isinstance(step, str):
            known = isinstance(value, dict) and step in value
        else:
            known = isinstance(value, list) and step < len(value)
        if not known:
            return _Missing
        value = value[step]
    return value


def compact(value: Any) -> str:
    """Return JSON text without spaces."""
    return _encoder.encode(value)


_encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def input_text(
    target: Target, event_text: str, event: Callable[[], Any], *, rule_name: str, rule_arn: str, queued_at_ms: int
) -> str:
    """Return what the target receives, as JSON text. `event` parses the event where it is needed."""
    if target.input is not None:
        return target.input
    if target.input_path is not None:
        if target.input_path == "$":
            return event_text
        part = at_path(event(), target.input_path)
        return "null" if part is _Missing else compact(part)
    if target.input_template is None:
        return event_text
    parsed = event()
    values = {name: at_path(parsed, path) for name, path in target.input_paths.items()}
    values["aws.events.rule-name"] = rule_name
    values["aws.events.rule-arn"] = rule_arn
    values["aws.events.event.ingestion-time"] = clock.iso(queued_at_ms)
    if "<aws.events.event" in target.input_template:
        values["aws.events.event.json"] = parsed
        values["aws.events.event"] = {key: value for key, value in parsed.items() if key != "detail"}
    return fill(target.input_template, values)


def fill(template: str, values: Mapping[str, Any]) -> str:
    """Return the template with its variables, as JSON text.

    A variable outside of quotes becomes a JSON value; inside of quotes a string's characters, and an object's JSON
    without its quotes. A path that leads nowhere gives an empty string. A template that is no JSON gives a JSON string.
    """
    parts: list[str] = []
    for part in _parts(template, frozenset(values)):
        if isinstance(part, str):
            parts.append(part)
            continue
        value = values[part.name]
        parts.append(_in_quotes(value) if part.inside else compact("" if value is _Missing else value))
    text = "".join(parts)
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return compact(text)
    return text


@dataclass(frozen=True, slots=True)
class _Variable:
    """A place in a template where a variable goes; `inside` of quotes or not."""

    name: str
    inside: bool


@functools.lru_cache(maxsize=REMEMBERED)
def _parts(template: str, names: frozenset[str]) -> tuple[str | _Variable, ...]:
    """Return a template as literal text and the variables (those of `names`) between it."""
    parts: list[str | _Variable] = []
    literal: list[str] = []
    inside = escaped = False
    position = 0
    while position < len(template):
        character = template[position]
        if character == "<" and not escaped:
            found = _PLACEHOLDER.match(template, position)
            if found is not None and found[1] in names:
                parts += ["".join(literal), _Variable(found[1], inside)]
                literal = []
                position = found.end()
                continue
        inside = inside != (character == '"' and not escaped)
        escaped = inside and character == "\\" and not escaped
        # AWS allows strings of a template to run over several lines.
        literal.append("\\n" if inside and character == "\n" else character)
        position += 1
    return (*parts, "".join(literal))


def _in_quotes(value: Any) -> str:
    if value is _Missing:
        return ""
    if isinstance(value, str):
        return compact(value)[1:-1]
    return compact(compact(value).replace('"', ""))[1:-1]


def check(target: Target) -> None:
    """Raise ValidationError unless the target's input is what AWS accepts."""
    given = [
        name
        for name, value in (
            ("Input", target.input), ("InputPath", target.input_path), ("InputTransformer", target.input_template)
        )
        if value is not None
    ]  # fmt: skip
    if len(given) > 1 or ("InputTransformer" in target.definition and given[:1] in (["Input"], ["InputPath"])):
        raise ValidationError(
            f"Only one of Input, InputPath, or InputTransformer must be provided for target {target.target_id}."
        )
    if target.input is not None:
        _check_input(target.target_id, target.input)
    if target.input_path is not None:
        parse_path(target.input_path)
    if "InputTransformer" in target.definition:
        _check_transformer(target)


def _check_input(target_id: str, text: str) -> None:
    if len(text) > INPUT_LIMIT:
        raise ValidationError(f"Input for target {target_id} is longer than {INPUT_LIMIT} characters.")
    try:
        json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValidationError(f"JSON syntax error in input for target {target_id}: {error}") from None


def _check_transformer(target: Target) -> None:
    template = target.input_template
    if not template:
        raise ValidationError(f"InputTemplate for target {target.target_id} must not be empty.")
    if len(template) > INPUT_LIMIT:
        raise ValidationError(f"InputTemplate for target {target.target_id} is longer than {INPUT_LIMIT} characters.")
    if len(target.input_paths) > INPUT_PATHS_LIMIT:
        raise ValidationError(f"InputPathsMap for target {target.target_id} has more than {INPUT_PATHS_LIMIT} entries.")
    for name, path in target.input_paths.items():
        if name.startswith("aws.") or not re.fullmatch(r"[A-Za-z0-9_\-]{1,256}", name):
            raise ValidationError(f"InputPathsMap key {name!r} for target {target.target_id} is reserved or malformed.")
        parse_path(path)
    known = {*target.input_paths, *RESERVED}
    for name in _PLACEHOLDER.findall(template):
        if name not in known:
            raise ValidationError(
                f"Invalid InputTemplate for target {target.target_id} : the variable <{name}> is not in InputPathsMap."
            )
    # `fill` wraps what is no JSON into a string, which a template that starts with a brace never gives otherwise.
    first = template.lstrip()[:1]
    if first in ("{", "[") and fill(template, dict.fromkeys(known, "")).lstrip()[:1] != first:
        raise ValidationError(f"Invalid InputTemplate for target {target.target_id} : it does not give JSON.")
