"""The rules of a bus, compiled and indexed, so that an event costs what its matching rules cost, not all rules.

Each alternative of a rule is filed under what one of its fields accepts: the field under which the fewest others lie. Where
many lie there all the same, they are indexed once more by their other fields. An event looks up its own values, and only
what it finds there is matched. So the cost is that of the event's fields, and of the rules that come into question.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Generic, TypeVar

from entrepot.services.events.index_table import Table, keys_of
from entrepot.services.events.pattern import Alternative, EventPattern, normalised

T = TypeVar("T")

CROWD_LIMIT = 4
"""Alternatives that are matched one by one; more are indexed by another field."""

_COST = {"exact": 0, "key": 1, "leaf": 2}
"""Which of two fields with the same crowd is asked: the cheaper one."""


class _Crowd:
    """Alternatives that are filed together: to be matched one by one, or by an index of their own.

    `used` are the fields by which they came together."""

    __slots__ = ("_inner", "members", "used")

    def __init__(self) -> None:
        self.members: list[int] = []
        self.used: frozenset[str] = frozenset()
        self._inner: _Level | None = None

    def inner(self, alternatives: list[Alternative]) -> "_Level":
        """Return the index of a large crowd, made when it is needed for the first time."""
        if self._inner is None:
            self._inner = _Level(alternatives, self.members, self.used)
        return self._inner


class _Place:
    """One field, or a level above fields: what lies there, and below each key."""

    __slots__ = ("below", "table")

    def __init__(self) -> None:
        self.below: dict[str, _Place] = {}
        self.table: Table[_Crowd] | None = None


class _Level:
    """An index of some alternatives by fields that the levels above have not used."""

    __slots__ = ("others", "root")

    def __init__(self, alternatives: list[Alternative], members: list[int], used: frozenset[str]) -> None:
        self.root = _Place()
        self.others: list[int] = []
        filed = {number: _fields(alternatives[number], used) for number in members}
        asked = Counter((field, key) for fields in filed.values() for field, keys in fields.items() for key in keys)
        tables: dict[str, Table[_Crowd]] = {}
        for number, fields in filed.items():
            if not fields:
                self.others.append(number)
                continue
            _, _, field = min(
                (max(asked[field, key] for key in keys), max(_COST[kind] for kind, _ in keys), field)
                for field, keys in fields.items()
            )
            table = tables.setdefault(field, Table())
            for kind, what in fields[field]:
                if kind == "exact":
                    crowd = table.exact(what, _Crowd())
                elif kind == "key":
                    crowd = table.key(what, _Crowd())
                else:
                    crowd = table.leaf(alternatives[number].fields[field], _Crowd())
                crowd.members.append(number)
        for field, table in tables.items():
            self._put(field, table)
            for crowd in table.crowds():
                crowd.used = used | {field}

    def _put(self, field: str, table: Table[_Crowd]) -> None:
        table.finish()
        place = self.root
        for step in field.split("."):
            place = place.below.setdefault(step, _Place())
        place.table = table


def _fields(alternative: Alternative, used: frozenset[str]) -> dict[str, list[tuple[str, Any]]]:
    """Return the fields by which an alternative can be filed, with what it is filed under."""
    found = {}
    for field, leaf in alternative.fields.items():
        keys = None if field in used else keys_of(leaf)
        if keys is not None:
            found[field] = list(keys)
    return found


def _look(place: _Place, value: Any, found: dict[_Crowd, None]) -> None:
    """Add the crowds that lie at the values of an event, from a place on."""
    if isinstance(value, dict):
        below = place.below
        if len(below) <= len(value):
            for key, inner in below.items():
                if key in value:
                    _look(inner, value[key], found)
        else:
            for key, element in value.items():
                if key in below:
                    _look(below[key], element, found)
    elif isinstance(value, list):
        for element in value:
            _look(place, element, found)
    elif place.table is not None:
        place.table.find(value, found)


class PatternIndex(Generic[T]):
    """Compiled patterns, each standing for a value (a rule). Immutable once built."""

    def __init__(self, patterns: Iterable[tuple[EventPattern, T]]) -> None:
        self._values: list[T] = []
        self._alternatives: list[Alternative] = []
        self._numbers: list[int] = []
        for number, (pattern, value) in enumerate(patterns):
            self._values.append(value)
            self._alternatives += pattern.alternatives
            self._numbers += [number] * len(pattern.alternatives)
        self._top = _Level(self._alternatives, list(range(len(self._alternatives))), frozenset())

    def matching(self, event: Mapping[str, Any]) -> list[T]:
        """Return the values of all patterns that the event matches, in the order in which they were given.

        Raises EventTooDeepError.
        """
        plain = normalised(event)
        found: set[int] = set()
        for candidate in self._candidates(plain):
            number = self._numbers[candidate]
            if number not in found and self._alternatives[candidate].matches(plain):
                found.add(number)
        return [self._values[number] for number in sorted(found)]

    def _candidates(self, plain: Mapping[str, Any]) -> set[int]:
        """Return the alternatives that may match: each that does is among them."""
        candidates: set[int] = set()
        levels = [self._top]
        while levels:
            level = levels.pop()
            candidates.update(level.others)
            crowds: dict[_Crowd, None] = {}
            _look(level.root, plain, crowds)
            for crowd in crowds:
                if len(crowd.members) <= CROWD_LIMIT:
                    candidates.update(crowd.members)
                else:
                    levels.append(crowd.inner(self._alternatives))
        return candidates
