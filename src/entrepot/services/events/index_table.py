"""One field of an index: from a value of the event to the rules that may accept it.

What is filed under a key is found by every value that a leaf with that key accepts; it may be found by others too.
"""

from bisect import bisect_left
from collections.abc import Iterable
from typing import Generic, TypeVar

from entrepot.services.events.leaf import Key, Leaf, Token, address_of, token

C = TypeVar("C")

RANGES_LIMIT = 65_536
"""Entries that overlapping ranges of numbers may take together; where they would take more, they are asked one by one."""

ANSWERS_LIMIT = 1024
"""Values whose answers of leaves without a key are remembered."""

ANSWERED_TEXT_LIMIT = 256
"""Characters of the longest value whose answers are remembered."""

CIDR_TEXT_LIMIT = 45
"""Characters of the longest IP address."""


class Table(Generic[C]):
    """Crowds of rules, each filed under keys of one field. `finish` it before asking."""

    __slots__ = (
        "_answers", "_bounds", "_by_lowered", "_cidrs", "_exact", "_leaves", "_lowered", "_prefixes", "_ranges",
        "_segments", "_suffixes", "_texts",
    )  # fmt: skip

    def __init__(self) -> None:
        self._exact: dict[Token, C] = {}
        self._lowered: dict[str, C] = {}
        self._prefixes: dict[tuple[bool, int], dict[str, C]] = {}
        self._suffixes: dict[tuple[bool, int], dict[str, C]] = {}
        self._ranges: dict[tuple[float, float], C] = {}
        self._cidrs: dict[tuple[int, int], dict[int, C]] = {}
        self._leaves: dict[str, tuple[Leaf, C]] = {}
        self._bounds: list[float] = []
        self._segments: list[tuple[C, ...]] = []
        self._answers: dict[Token, tuple[C, ...]] = {}
        self._texts = self._by_lowered = False

    def exact(self, wanted: Token, new: C) -> C:
        """Return the crowd of an exact value, `new` when there is none yet."""
        return self._exact.setdefault(wanted, new)

    def key(self, key: Key, new: C) -> C:
        """Return the crowd of a key, `new` when there is none yet."""
        kind, what, more = key
        if kind == "text":
            return self._lowered.setdefault(what, new)
        if kind == "prefix":
            return self._prefixes.setdefault((more, len(what)), {}).setdefault(what, new)
        if kind == "suffix":
            return self._suffixes.setdefault((more, len(what)), {}).setdefault(what, new)
        if kind == "range":
            return self._ranges.setdefault((what, more), new)
        assert kind == "cidr", kind
        return self._cidrs.setdefault(what, {}).setdefault(more, new)

    def leaf(self, leaf: Leaf, new: C) -> C:
        """Return the crowd of a leaf that no key describes, `new` when there is none yet."""
        return self._leaves.setdefault(leaf.source, (leaf, new))[1]

    def crowds(self) -> list[C]:
        """Return all crowds."""
        by_text = [crowds for table in (self._prefixes, self._suffixes) for crowds in table.values()]
        return [
            *self._exact.values(), *self._lowered.values(), *self._ranges.values(),
            *(crowd for _, crowd in self._leaves.values()),
            *(crowd for crowds in by_text for crowd in crowds.values()),
            *(crowd for crowds in self._cidrs.values() for crowd in crowds.values()),
        ]  # fmt: skip

    def finish(self) -> None:
        """Cut the ranges into segments between their bounds: a number then finds all ranges around it at once."""
        self._by_lowered = bool(self._lowered) or any(ignoring for ignoring, _ in (*self._prefixes, *self._suffixes))
        self._texts = self._by_lowered or bool(self._prefixes or self._suffixes or self._cidrs)
        bounds = sorted({bound for span in self._ranges for bound in span})
        places = {bound: place for place, bound in enumerate(bounds)}
        if sum(2 * (places[high] - places[low]) + 1 for low, high in self._ranges) > RANGES_LIMIT:
            return
        # Segment 2i + 1 is bounds[i] itself, segment 2i what lies before it.
        segments: list[list[C]] = [[] for _ in range(2 * len(bounds) + 1)]
        for (low, high), crowd in self._ranges.items():
            for place in range(2 * places[low] + 1, 2 * places[high] + 2):
                segments[place].append(crowd)
        self._bounds, self._segments = bounds, [tuple(segment) for segment in segments]

    def find(self, value: object, found: dict[C, None]) -> None:
        """Add the crowds that may accept a scalar."""
        wanted = token(value)
        crowd = self._exact.get(wanted)
        if crowd is not None:
            found[crowd] = None
        if self._texts and isinstance(value, str):
            self._find_text(value, found)
        elif self._ranges and isinstance(value, int | float) and not isinstance(value, bool):
            self._find_number(value, found)
        if self._leaves:
            answers = self._answers.get(wanted)
            if answers is None:
                answers = tuple(crowd for leaf, crowd in self._leaves.values() if leaf.accepts(value))
                if not isinstance(wanted, str) or len(wanted) <= ANSWERED_TEXT_LIMIT:
                    if len(self._answers) >= ANSWERS_LIMIT:
                        self._answers.clear()
                    self._answers[wanted] = answers
            found.update(dict.fromkeys(answers))

    def _find_text(self, value: str, found: dict[C, None]) -> None:
        lowered = value.lower() if self._by_lowered else value
        crowd = self._lowered.get(lowered) if self._by_lowered else None
        if crowd is not None:
            found[crowd] = None
        for (ignoring_case, length), by_text in self._prefixes.items():
            crowd = by_text.get((lowered if ignoring_case else value)[:length])
            if crowd is not None:
                found[crowd] = None
        for (ignoring_case, length), by_text in self._suffixes.items():
            text = lowered if ignoring_case else value
            crowd = by_text.get(text[len(text) - length :] if length <= len(text) else text)
            if crowd is not None:
                found[crowd] = None
        if self._cidrs and len(value) <= CIDR_TEXT_LIMIT:
            self._find_address(value, found)

    def _find_address(self, value: str, found: dict[C, None]) -> None:
        address = address_of(value)
        for (version, shift), by_network in self._cidrs.items():
            if address is not None and address.version == version:
                crowd = by_network.get(int(address) >> shift)
                if crowd is not None:
                    found[crowd] = None

    def _find_number(self, value: float, found: dict[C, None]) -> None:
        if not self._segments:
            found.update((crowd, None) for (low, high), crowd in self._ranges.items() if low <= value <= high)
            return
        place = bisect_left(self._bounds, value)
        at_bound = place < len(self._bounds) and self._bounds[place] == value
        found.update(dict.fromkeys(self._segments[2 * place + 1 if at_bound else 2 * place]))


def keys_of(leaf: Leaf) -> Iterable[tuple[str, Key | Token | str]] | None:
    """Return what a leaf is filed under, as (kind, what): None when the field's absence is accepted too."""
    if leaf.absent:
        return None
    if leaf.exists or leaf.keys is None:
        return [("leaf", leaf.source)]
    return [*(("exact", wanted) for wanted in leaf.exact), *(("key", key) for key in leaf.keys)]
