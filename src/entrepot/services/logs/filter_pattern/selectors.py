"""Selectors: the values that `$.a[0].b[*]` finds in a document, and the fields of a line that spaces divide."""

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import msgspec

from entrepot.services.logs.filter_pattern.regex import Refuse

Select: TypeAlias = Callable[[Any], list[Any]]
"""Every value that a selector finds; none when the field is absent."""

EVERY = object()
"""The step that goes into every member."""

_STEP = re.compile(r"""\.?\[(\d+|\*)\]|\.?\[(?:"([^"]*)"|'([^']*)')\]|\.(\*)|\.?([\w\-:/@]+)""")
_FIELD = re.compile(r"""\[([^\]]*)\]|"([^"]*)"|(\S+)""")
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)


def read_document(message: str) -> Any:
    """Return the JSON object with which a message ends (AWS skips what stands before it), or None."""
    start = message.find("{")
    if start < 0:
        return None
    try:
        return msgspec.json.decode(message if start == 0 else message[start:])
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None


def document_selector(selector: str, refuse: Refuse) -> Select:
    """Return what finds the values of a selector such as `$.a[0].b[*]`."""
    if not selector.startswith("$"):
        refuse(f"{selector!r} is not a selector such as $.a.b")
    steps: list[Any] = []
    at = 1
    while at < len(selector):
        match = _STEP.match(selector, at)
        if match is None:
            refuse(f"{selector!r} is not a selector such as $.a.b")
        index, double, single, star, name = match.groups()
        if star is not None or index == "*":
            steps.append(EVERY)
        elif index is not None:
            steps.append(int(index[:9]))
        else:
            steps.append(next(part for part in (double, single, name) if part is not None))
        at = match.end()
    return lambda document: _walk(document, steps)


def _walk(document: Any, steps: Sequence[Any]) -> list[Any]:
    found = [document]
    for step in steps:
        if isinstance(step, str):
            found = [value[step] for value in found if isinstance(value, dict) and step in value]
        elif step is EVERY:
            found = [item for value in found for item in _members(value)]
        else:
            found = [value[step] for value in found if isinstance(value, list) and step < len(value)]
    return found


def _members(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def field_selector(name: str, refuse: Refuse) -> Select:
    """Return what finds a field of a space-delimited line by its name."""
    if not _NAME.fullmatch(name):
        refuse(f"{name!r} is not a field")
    return lambda record: [record[name]] if name in record else []


def fields_reader(fields: Sequence[str | None]) -> Callable[[str], dict[str, str] | None]:
    """Return what reads a line into its fields by name; None stands for `...`, whose fields are named by their place."""
    gap = fields.index(None) if None in fields else -1
    names = [field for field in fields if field is not None]

    def read(message: str) -> dict[str, str] | None:
        values = [next(group for group in match.groups() if group is not None) for match in _FIELD.finditer(message)]
        if gap < 0:
            return dict(zip(names, values, strict=True)) if len(values) == len(names) else None
        if len(values) < len(names):
            return None
        unnamed = [str(place + 1) for place in range(gap, gap + len(values) - len(names))]
        return dict(zip([*names[:gap], *unnamed, *names[gap:]], values, strict=True))

    return read
