"""Layered layout of a directed graph, top to bottom: where boxes stand and which way links go. Pure.

The method is Sugiyama's, as Gansner, Koutsofios, North and Vo tell it ("A Technique for Drawing Directed Graphs", 1993): break
cycles, rank by the longest path, give long links a place in every rank they pass, order ranks by barycentres, and move boxes
towards what they are linked with. A link's label is a place of its own in the rank between, so that labels cover nothing.
"""

from bisect import bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

RANK_GAP = 34.0
"""Between the bottom of a rank and the top of the next."""

BOX_GAP = 26.0
"""Between two boxes of a rank."""

PORT_GAP = 16.0
"""Between two links at the same side of a box."""

PASSING_WIDTH = 14.0
LABEL_HEIGHT = 16.0

ORDERING_SWEEPS = 12
MOVING_SWEEPS = 30

PLACES_LIMIT = 3_000
"""Boxes and places that links pass, at most: more take too long, and nobody can read them."""

Point = tuple[float, float]


class TooLargeError(Exception):
    """A graph has more than PLACES_LIMIT boxes and places that links pass."""


@dataclass(frozen=True, slots=True)
class Link:
    """From one box to another, by their places in the sequence of boxes; `label_width` is 0 without a label."""

    tail: int
    head: int
    label_width: float = 0.0


@dataclass(frozen=True, slots=True)
class Arrangement:
    """`corners` are the boxes' left upper corners; `routes` the points of each link; `labels` the centres of labels."""

    width: float
    height: float
    corners: list[Point]
    routes: list[list[Point]]
    labels: list[Point | None]


def arrange(boxes: Sequence[Point], links: Sequence[Link]) -> Arrangement:
    """Return where boxes (width, height) stand; the first one is at the top. Raise TooLargeError."""
    if not boxes:
        return Arrangement(0.0, 0.0, [], [], [])
    forward = _without_cycles(len(boxes), links)
    ranks = _ranks(len(boxes), links, forward)
    passed = sum(max(0, abs(ranks[link.tail] - ranks[link.head]) - 1) for link in links)
    if len(boxes) + passed > PLACES_LIMIT:
        raise TooLargeError
    graph = _Ranked(boxes, links, forward, ranks)
    graph.order()
    graph.move()
    return graph.arrangement()


def _without_cycles(count: int, links: Sequence[Link]) -> list[bool]:
    """Tell for each link whether it goes down; those that close a cycle go up."""
    leaving: list[list[int]] = [[] for _ in range(count)]
    for place, link in enumerate(links):
        leaving[link.tail].append(place)
    forward = [True] * len(links)
    state = [0] * count  # 0 unseen, 1 on the path, 2 done
    for first in range(count):
        if state[first]:
            continue
        state[first] = 1
        path = [(first, iter(leaving[first]))]
        while path:
            box, rest = path[-1]
            place = next(rest, -1)
            if place < 0:
                state[box] = 2
                path.pop()
                continue
            head = links[place].head
            if state[head] == 1:
                forward[place] = False
            elif state[head] == 0:
                state[head] = 1
                path.append((head, iter(leaving[head])))
    return forward


def _ranks(count: int, links: Sequence[Link], forward: Sequence[bool]) -> list[int]:
    """Return each box's rank: the longest way to it. Labels and links that go up need a rank in between."""
    below: list[list[tuple[int, int]]] = [[] for _ in range(count)]
    above = [0] * count
    for link, down in zip(links, forward, strict=True):
        if link.tail == link.head:
            continue
        tail, head = (link.tail, link.head) if down else (link.head, link.tail)
        below[tail].append((head, 2 if link.label_width or not down else 1))
        above[head] += 1
    ranks = [0] * count
    ready = [box for box in range(count) if not above[box]]
    while ready:
        box = ready.pop()
        for head, length in below[box]:
            ranks[head] = max(ranks[head], ranks[box] + length)
            above[head] -= 1
            if not above[head]:
                ready.append(head)
    return ranks


class _Ranked:
    """Boxes and the places that links pass, by rank. Items below `len(boxes)` are boxes."""

    def __init__(
        self, boxes: Sequence[Point], links: Sequence[Link], forward: Sequence[bool], ranks: Sequence[int]
    ) -> None:
        self._boxes, self._links = boxes, links
        self._widths = [width for width, _ in boxes]
        self._rank_of = list(ranks)
        self._above: list[list[int]] = [[] for _ in boxes]
        self._below: list[list[int]] = [[] for _ in boxes]
        self._chains: list[list[int]] = []
        self._labelled: list[int | None] = []
        for link, down in zip(links, forward, strict=True):
            self._add_chain(link, down)
        depth = max(self._rank_of) + 1
        self._rows: list[list[int]] = [[] for _ in range(depth)]
        for item in self._discovered():
            self._rows[self._rank_of[item]].append(item)
        self._x = [0.0] * len(self._widths)

    def _add_chain(self, link: Link, down: bool) -> None:
        tail, head = (link.tail, link.head) if down else (link.head, link.tail)
        chain = [tail]
        labelled = None
        passed = range(self._rank_of[tail] + 1, self._rank_of[head]) if tail != head else range(0)
        for rank in passed:
            item = len(self._widths)
            first = rank == (passed.start if down else passed.stop - 1)
            if first and link.label_width:
                labelled = item
            self._widths.append(link.label_width if first and link.label_width else PASSING_WIDTH)
            self._rank_of.append(rank)
            self._above.append([])
            self._below.append([])
            chain.append(item)
        chain.append(head)
        if tail != head:
            for upper, lower in pairwise(chain):
                self._below[upper].append(lower)
                self._above[lower].append(upper)
        self._chains.append(chain if down else chain[::-1])
        self._labelled.append(labelled)

    def _discovered(self) -> list[int]:
        """Return all items in the order in which a walk from the top finds them."""
        seen: dict[int, None] = {}
        for first in range(len(self._widths)):
            waiting = [first]
            while waiting:
                item = waiting.pop()
                if item in seen:
                    continue
                seen[item] = None
                waiting.extend(reversed(self._below[item]))
        return list(seen)

    # ── order within ranks ───────────────────────────────────────────────────────────────────────────────────────

    def order(self) -> None:
        """Order each rank so that few links cross."""
        best, fewest = [list(row) for row in self._rows], self._crossings()
        for sweep in range(ORDERING_SWEEPS):
            if not fewest:
                break
            down = sweep % 2 == 0
            rows = self._rows[1:] if down else self._rows[-2::-1]
            neighbours = self._above if down else self._below
            for row in rows:
                places = self._places()
                means = {
                    item: sum(places[other] for other in neighbours[item]) / len(neighbours[item])
                    if neighbours[item]
                    else places[item]
                    for item in row
                }
                row.sort(key=means.__getitem__)
            crossings = self._crossings()
            if crossings < fewest:
                best, fewest = [list(row) for row in self._rows], crossings
        self._rows = best

    def _places(self) -> dict[int, int]:
        return {item: place for row in self._rows for place, item in enumerate(row)}

    def _crossings(self) -> int:
        places, crossings = self._places(), 0
        for row in self._rows:
            heads: list[int] = []
            for item in row:
                ends = sorted(places[lower] for lower in self._below[item])
                crossings += sum(len(heads) - bisect_right(heads, end) for end in ends)
                for end in ends:
                    insort(heads, end)
        return crossings

    # ── places ───────────────────────────────────────────────────────────────────────────────────────────────────

    def move(self) -> None:
        """Set each item's centre: near those it is linked with, none on another."""
        for row in self._rows:
            x = 0.0
            for item in row:
                self._x[item] = x + self._widths[item] / 2
                x += self._widths[item] + BOX_GAP
        for sweep in range(MOVING_SWEEPS):
            last = sweep >= MOVING_SWEEPS - 12
            for row in self._rows if sweep % 2 == 0 else self._rows[::-1]:
                wanted = []
                for item in row:
                    near = [*self._above[item], *self._below[item]] if last else self._near(item, sweep)
                    wanted.append(sum(self._x[other] for other in near) / len(near) if near else self._x[item])
                self._settle(row, wanted)

    def _near(self, item: int, sweep: int) -> list[int]:
        return self._above[item] if sweep % 2 == 0 else self._below[item]

    def _settle(self, row: Sequence[int], wanted: Sequence[float]) -> None:
        """Place a rank as near to what is wanted as its order and the gaps permit (isotonic regression)."""
        offsets, reach = [], 0.0
        for place, item in enumerate(row):
            if place:
                reach += (self._widths[row[place - 1]] + self._widths[item]) / 2 + BOX_GAP
            offsets.append(reach)
        pools: list[tuple[float, float, int]] = []  # mean, weight, items
        for place, item in enumerate(row):
            straight = 8.0 if item >= len(self._boxes) else 1.0
            pools.append((wanted[place] - offsets[place], straight, 1))
            while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
                (mean, weight, items), (other, more, count) = pools[-2], pools[-1]
                pools[-2:] = [((mean * weight + other * more) / (weight + more), weight + more, items + count)]
        place = 0
        for mean, _, items in pools:
            for _ in range(items):
                self._x[row[place]] = mean + offsets[place]
                place += 1

    # ── the result ───────────────────────────────────────────────────────────────────────────────────────────────

    def arrangement(self) -> Arrangement:
        """Return corners, routes and labels, moved so that everything begins at 0."""
        left = min(x - width / 2 for x, width in zip(self._x, self._widths, strict=True))
        right = max(x + width / 2 for x, width in zip(self._x, self._widths, strict=True))
        centres = [x - left for x in self._x]
        tops, bottoms, y = [], [], 0.0
        for row in self._rows:
            height = max((self._height(item) for item in row), default=0.0)
            tops.append(y)
            bottoms.append(y + height)
            y += height + RANK_GAP
        corners = [(centres[box] - width / 2, tops[self._rank_of[box]]) for box, (width, _) in enumerate(self._boxes)]
        ports = self._ports(centres)
        routes = [self._route(chain, ports[place], centres, tops, bottoms) for place, chain in enumerate(self._chains)]
        labels = [
            None if item is None else (centres[item], tops[self._rank_of[item]] + LABEL_HEIGHT / 2)
            for item in self._labelled
        ]
        width = max(right - left, *(x for route in routes for x, _ in route), 0.0)
        return Arrangement(width, bottoms[-1], corners, routes, labels)

    def _ports(self, centres: Sequence[float]) -> list[tuple[float, float]]:
        """Return how far from the middle of its boxes each link begins and ends, so that links do not begin in an end."""
        sides: dict[tuple[int, bool], list[tuple[float, int, int]]] = {}
        for place, chain in enumerate(self._chains):
            down = self._rank_of[chain[0]] < self._rank_of[chain[-1]]
            if chain[0] != chain[-1]:
                sides.setdefault((chain[0], down), []).append((centres[chain[1]], place, 0))
                sides.setdefault((chain[-1], not down), []).append((centres[chain[-2]], place, 1))
        ports = [[0.0, 0.0] for _ in self._chains]
        for (box, _), ends in sides.items():
            gap = min(PORT_GAP, self._widths[box] / (len(ends) + 1))
            for number, (_, place, end) in enumerate(sorted(ends)):
                ports[place][end] = (number - (len(ends) - 1) / 2) * gap
        return [(tail, head) for tail, head in ports]

    def _height(self, item: int) -> float:
        return self._boxes[item][1] if item < len(self._boxes) else LABEL_HEIGHT

    def _route(
        self,
        chain: Sequence[int],
        ports: tuple[float, float],
        centres: Sequence[float],
        tops: Sequence[float],
        bottoms: Sequence[float],
    ) -> list[Point]:
        """Return the points of a link, from box to box, straight through the ranks that it passes."""
        tail, head = chain[0], chain[-1]
        if tail == head:
            x, y = centres[tail] + self._widths[tail] / 2, tops[self._rank_of[tail]]
            return [(x, y + 10), (x + BOX_GAP, y + 16), (x, y + 22)]
        down = self._rank_of[tail] < self._rank_of[head]
        points: list[Point] = []
        for item in chain:
            x, rank = centres[item], self._rank_of[item]
            top, bottom = tops[rank], tops[rank] + self._height(item)
            if item == tail:
                x += ports[0]
                points += [(x, bottom), (x, bottoms[rank])] if down else [(x, top)]
            elif item == head:
                x += ports[1]
                points += [(x, top)] if down else [(x, bottoms[rank]), (x, bottom)]
            else:
                points += [(x, tops[rank]), (x, bottoms[rank])] if down else [(x, bottoms[rank]), (x, tops[rank])]
        return [point for place, point in enumerate(points) if not place or point != points[place - 1]]
