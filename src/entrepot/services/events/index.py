"""The rules of a bus, compiled and indexed, so that an event costs what its matching rules cost, not all rules.

Each alternative of a rule is filed under the exact values of one field, the one whose values the fewest others ask for
(`detail.bucket.name`, say). An event looks up its own values of those fields, and only what it finds there is matched.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Generic, TypeVar

from entrepot.services.events.leaf import Token, token
from entrepot.services.events.pattern import Alternative, EventPattern, Path, normalised, values_at

T = TypeVar("T")


class PatternIndex(Generic[T]):
    """Compiled patterns, each standing for a value (a rule). Immutable once built."""

    def __init__(self, patterns: Iterable[tuple[EventPattern, T]]) -> None:
        self._values: list[T] = []
        self._by_field: dict[str, dict[Token, list[tuple[Alternative, int]]]] = {}
        self._others: list[tuple[Alternative, int]] = []
        alternatives: list[tuple[Alternative, int]] = []
        for number, (pattern, value) in enumerate(patterns):
            self._values.append(value)
            alternatives += [(alternative, number) for alternative in pattern.alternatives]
        asked = Counter(
            (field, wanted)
            for alternative, _ in alternatives
            for field, leaf in alternative.fields.items()
            if not (leaf.tests or leaf.exists or leaf.absent)
            for wanted in leaf.exact
        )
        for alternative, number in alternatives:
            self._file(alternative, number, asked)
        self._fields: list[tuple[Path, dict[Token, list[tuple[Alternative, int]]]]] = [
            (tuple(field.split(".")), found) for field, found in self._by_field.items()
        ]

    def _file(self, alternative: Alternative, number: int, asked: Mapping[tuple[str, Token], int]) -> None:
        best: tuple[int, str] | None = None
        for field, leaf in alternative.fields.items():
            if leaf.exact and not (leaf.tests or leaf.exists or leaf.absent):
                crowd = max(asked[field, wanted] for wanted in leaf.exact)
                if best is None or (crowd, field) < best:
                    best = (crowd, field)
        if best is None:
            self._others.append((alternative, number))
            return
        by_value = self._by_field.setdefault(best[1], {})
        for wanted in alternative.fields[best[1]].exact:
            by_value.setdefault(wanted, []).append((alternative, number))

    def matching(self, event: Mapping[str, Any]) -> list[T]:
        """Return the values of all patterns that the event matches, in the order in which they were given.

        Raises EventTooDeepError.
        """
        plain = normalised(event)
        found: set[int] = set()
        for path, by_value in self._fields:
            for value in values_at(plain, path):
                for alternative, number in by_value.get(token(value), ()):
                    if number not in found and alternative.matches(plain):
                        found.add(number)
        for alternative, number in self._others:
            if number not in found and alternative.matches(plain):
                found.add(number)
        return [self._values[number] for number in sorted(found)]
