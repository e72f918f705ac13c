"""Event patterns: parsed and validated once into an immutable matcher, as AWS's event-ruler understands them.

A pattern is a list of alternatives (`$or` multiplied out); an alternative is a tree of field names with a `Leaf` where
values are compared. Matching walks that tree beside the event and never goes back, so it is linear in what it looks at.

Arrays: one element is chosen per array, and all fields of the pattern that lie in that array must match in that element.
`exists: false` is judged as event-ruler does: fields are taken in the order of their names, so an absent field that comes
before any chosen element must be absent from all elements. A key with dots is the same as nested objects.

Source: https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-event-patterns.html and aws/event-ruler.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

from entrepot.services.events.leaf import RESERVED_IN_OR, Leaf, ObjectPairs, compile_leaf, finite, invalid

ALTERNATIVES_LIMIT = 1000
"""Combinations that `$or` may multiply out to, as AWS's quota."""

DEPTH_LIMIT = 100
"""How deep patterns and events may nest."""

Path: TypeAlias = tuple[str, ...]
Fields: TypeAlias = dict[str, Leaf]


class EventTooDeepError(ValueError):
    """The event nests deeper than DEPTH_LIMIT."""


@dataclass(frozen=True, slots=True)
class Node:
    """One level of a pattern: what is accepted here, and below each key.

    `absent_ok`: the pattern is content when nothing is here. For arrays: `absent_everywhere` are the paths that no
    element may have; where there are any, one chosen element must match `rest` (None: nothing more), else this node.
    """

    leaf: Leaf | None
    children: tuple[tuple[str, "Node"], ...]
    absent_ok: bool
    absent_everywhere: tuple[Path, ...]
    rest: "Node | None"


@dataclass(frozen=True, slots=True)
class Alternative:
    """One combination of fields that all must match. `fields` by their dotted names."""

    fields: Mapping[str, Leaf]
    root: Node

    def matches(self, event: Mapping[str, Any]) -> bool:
        """Return whether a normalised event matches."""
        return _matches(self.root, event)


@dataclass(frozen=True, slots=True)
class EventPattern:
    """A compiled event pattern."""

    alternatives: tuple[Alternative, ...]

    @staticmethod
    def parse(text: str) -> "EventPattern":
        """Compile a pattern's JSON text; raise InvalidEventPatternError with AWS's reason."""
        try:
            document = json.loads(
                text, object_pairs_hook=ObjectPairs, parse_float=finite, parse_constant=_refuse_constant
            )
        except RecursionError:
            raise invalid(f"The pattern nests deeper than {DEPTH_LIMIT} levels") from None
        except json.JSONDecodeError as error:
            raise invalid(f"{error.msg}\n at [Source: (String); line: {error.lineno}, column: {error.colno}]") from None
        except ValueError as error:
            raise invalid(str(error)) from None
        if not isinstance(document, ObjectPairs):
            raise invalid(f'Filter is not an object\n at [Source: (String)"{text[:500]}"; line: 1, column: 2]')
        combinations = _object([], (), document, inside_or=False)
        return EventPattern(tuple(Alternative(fields, _tree(fields)) for fields in combinations))

    def matches(self, event: Mapping[str, Any]) -> bool:
        """Return whether an event (as `json.loads` gives it) matches."""
        plain = normalised(event)
        return any(alternative.matches(plain) for alternative in self.alternatives)


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"Unrecognized token '{text}'")


# ── from JSON to alternatives ────────────────────────────────────────────────────────────────────────────────────────


def _object(rules: list[Fields], path: Path, pairs: ObjectPairs, *, inside_or: bool) -> list[Fields]:
    """Return `rules` with the fields of an object added to each of them."""
    if not pairs:
        raise invalid("Empty objects are not allowed")
    if len(path) > DEPTH_LIMIT:
        raise invalid(f"The pattern nests deeper than {DEPTH_LIMIT} levels")
    for name, value in pairs:
        if name == "$or":
            rules = _or(rules, path, value)
        elif inside_or and name in RESERVED_IN_OR:
            raise invalid(f"{name} is Ruler reserved fieldName which cannot be used inside $or.")
        elif isinstance(value, ObjectPairs):
            rules = _object(rules, (*path, name), value, inside_or=inside_or)
        elif isinstance(value, list):
            leaf, field = compile_leaf(value), ".".join((*path, name))
            rules = [{**fields, field: leaf} for fields in rules or [{}]]
        else:
            raise invalid(f'"{name}" must be an object or an array')
    return rules


def _or(rules: list[Fields], path: Path, value: object) -> list[Fields]:
    if not isinstance(value, list) or isinstance(value, ObjectPairs):
        raise invalid("It must be an Array followed with $or.")
    if any(not isinstance(choice, ObjectPairs) for choice in value):
        raise invalid("Only JSON object is allowed in array of $or relationship.")
    if len(value) < 2:
        raise invalid("There must have at least 2 Objects in $or relationship.")
    combinations: list[Fields] = []
    for choice in value:
        combinations += _object([dict(fields) for fields in rules or [{}]], path, choice, inside_or=True)
        if len(combinations) > ALTERNATIVES_LIMIT:
            raise invalid(f"Rule is too complex - $or makes more than {ALTERNATIVES_LIMIT} combinations")
    return combinations


def _tree(fields: Fields) -> Node:
    return _node([(tuple(name.split(".")), fields[name]) for name in sorted(fields)])


def _node(fields: list[tuple[Path, Leaf]]) -> Node:
    """Build the tree of fields, given by their paths from here in the order of their full names."""
    leaf: Leaf | None = None
    below: dict[str, list[tuple[Path, Leaf]]] = {}
    for path, accepted in fields:
        if path:
            below.setdefault(path[0], []).append((path[1:], accepted))
        else:
            leaf = accepted
    children = tuple((key, _node(rest)) for key, rest in below.items())
    absent_ok = (leaf is None or leaf.absent) and all(child.absent_ok for _, child in children)
    early = 0
    while early < len(fields) and fields[early][1].absent_only:
        early += 1
    rest = _node(fields[early:]) if 0 < early < len(fields) else None
    return Node(leaf, children, absent_ok, tuple(path for path, _ in fields[:early]), rest)


# ── matching ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _matches(node: Node, value: object) -> bool:
    if isinstance(value, dict):
        if node.leaf is not None and not node.leaf.absent:
            return False
        for key, child in node.children:
            if key in value:
                if not _matches(child, value[key]):
                    return False
            elif not child.absent_ok:
                return False
        return True
    if isinstance(value, list):
        for path in node.absent_everywhere:
            if values_at(value, path):
                return False
        wanted = node.rest if node.absent_everywhere else node
        if wanted is None:
            return True
        if not value:
            return wanted.absent_ok
        return any(_matches(wanted, element) for element in value)
    if node.leaf is not None and not node.leaf.accepts(value):
        return False
    return not node.children or all(child.absent_ok for _, child in node.children)


def values_at(value: Any, path: Path) -> Sequence[object]:
    """Return the scalars at a path of a normalised event, of all elements of arrays."""
    for place, step in enumerate(path):
        if not isinstance(value, dict):
            return _in_elements(value, path[place:]) if isinstance(value, list) else ()
        if step not in value:
            return ()
        value = value[step]
    if isinstance(value, list):
        return _in_elements(value, ())
    return () if isinstance(value, dict) else (value,)


def _in_elements(elements: list[Any], path: Path) -> list[object]:
    return [value for element in elements for value in values_at(element, path)]


def normalised(event: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the event with dotted keys as nested objects: itself when there are none, which is the usual case.

    Raises EventTooDeepError.
    """
    if not _has_dotted_key(event.values(), 0) and "." not in "".join(event):
        return event
    plain = _nested(event)
    assert isinstance(plain, dict)
    return plain


def _has_dotted_key(values: Iterable[Any], depth: int) -> bool:
    if depth > DEPTH_LIMIT:
        raise EventTooDeepError(f"The event nests deeper than {DEPTH_LIMIT} levels.")
    for value in values:
        if isinstance(value, str):
            continue
        if isinstance(value, dict):
            if "." in "".join(value):
                # Go on below it all the same, for the sake of the depth.
                _has_dotted_key(value.values(), depth + 1)
                return True
            if _has_dotted_key(value.values(), depth + 1):
                return True
        elif isinstance(value, list) and _has_dotted_key(value, depth + 1):
            return True
    return False


def _nested(value: Any) -> Any:
    if isinstance(value, Mapping):
        result: dict[str, Any] = {}
        for key, below in value.items():
            _put(result, key.split("."), _nested(below))
        return result
    if isinstance(value, list):
        return [_nested(element) for element in value]
    return value


def _put(target: dict[str, Any], path: list[str], value: Any) -> None:
    """Put a value at a path; what is there already stays as an alternative, as the elements of an array are."""
    for step in path[:-1]:
        below = target.setdefault(step, {})
        if not isinstance(below, dict):
            value_below: dict[str, Any] = {}
            target[step] = [below, value_below]
            below = value_below
        target = below
    last = path[-1]
    if last not in target:
        target[last] = value
    elif isinstance(target[last], dict) and isinstance(value, dict):
        for key, below in value.items():
            _put(target[last], [key], below)
    else:
        target[last] = [target[last], value]
