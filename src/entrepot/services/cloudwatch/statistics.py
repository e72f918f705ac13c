"""What is kept of many values: their number, sum, extremes, and a sketch from which percentiles are read.

A sketch counts values in buckets that grow by two per cent, so that a percentile is right to one per cent whatever the
values, and sketches of minutes add up to those of hours (DDSketch, VLDB 2019).

Source: https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/Statistics-definitions.html
"""

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

GROWTH = 1.02
"""Buckets grow by this factor: a value is known to one per cent."""

BUCKETS_LIMIT = 2_000
"""A sketch has at most this many buckets; then the smallest values share one."""

_LOG_GROWTH = math.log(GROWTH)
_NEAR_ZERO = 1e-9


@dataclass(slots=True)
class Statistic:
    """Values of one metric in one period. `buckets` maps an index to a number of values; empty without percentiles."""

    count: float = 0.0
    sum: float = 0.0
    minimum: float = math.inf
    maximum: float = -math.inf
    buckets: dict[int, float] = field(default_factory=dict)

    def add(self, value: float, count: float = 1.0) -> None:
        """Count `value`, `count` times."""
        self.count += count
        self.sum += value * count
        self.minimum = min(self.minimum, value)
        self.maximum = max(self.maximum, value)
        index = _index(value)
        self.buckets[index] = self.buckets.get(index, 0.0) + count
        if len(self.buckets) > BUCKETS_LIMIT:
            self._shrink()

    def merge(self, other: "Statistic") -> None:
        """Add what `other` has."""
        self.count += other.count
        self.sum += other.sum
        self.minimum = min(self.minimum, other.minimum)
        self.maximum = max(self.maximum, other.maximum)
        for index, count in other.buckets.items():
            self.buckets[index] = self.buckets.get(index, 0.0) + count
        if len(self.buckets) > BUCKETS_LIMIT:
            self._shrink()

    def _shrink(self) -> None:
        lowest, *others = sorted(self.buckets)
        while len(self.buckets) > BUCKETS_LIMIT:
            following = others.pop(0)
            self.buckets[following] += self.buckets.pop(lowest)
            lowest = following

    def ordered(self) -> list[tuple[float, float]]:
        """Return (value, count) from the lowest value up; extremes are exact."""
        return [
            (min(max(_value(index), self.minimum), self.maximum), count)
            for index, count in sorted(self.buckets.items())
        ]


def _index(value: float) -> int:
    """Return the bucket of a value: 0 near zero, positive above, negative below."""
    size = abs(value)
    if size < _NEAR_ZERO:
        return 0
    index = max(1, math.ceil(math.log(size / _NEAR_ZERO) / _LOG_GROWTH) + 1)
    return index if value > 0 else -index


def _value(index: int) -> float:
    if index == 0:
        return 0.0
    middle = _NEAR_ZERO * math.exp((abs(index) - 1) * _LOG_GROWTH) * 2 / (1 + GROWTH)
    return math.copysign(middle, index)


# ── what is asked of them ────────────────────────────────────────────────────────────────────────────────────────────

Read = Callable[[Statistic], float | None]

SIMPLE: dict[str, Read] = {
    "SampleCount": lambda statistic: statistic.count,
    "Sum": lambda statistic: statistic.sum,
    "Average": lambda statistic: statistic.sum / statistic.count if statistic.count else None,
    "Minimum": lambda statistic: statistic.minimum if statistic.count else None,
    "Maximum": lambda statistic: statistic.maximum if statistic.count else None,
}
"""The statistics that need no percentiles."""

_ONE = re.compile(r"(p|tm|tc|ts|wm)(\d{1,2}(?:\.\d{1,10})?|100)")
_RANGE = re.compile(r"(TM|TC|TS|WM|PR)\((-?[\d.]*)(%?):(-?[\d.]*)(%?)\)")


def reader(name: str) -> Read | None:
    """Return the function that reads statistic `name` (Average, p99, tm95, TM(10%:90%), PR(:300), IQM); None: unknown."""
    if name in SIMPLE:
        return SIMPLE[name]
    if name == "IQM":
        return _trimmed("TM", 0.25, 0.75)
    if found := _ONE.fullmatch(name):
        share = float(found[2]) / 100
        if found[1] == "p":
            return lambda statistic: percentile(statistic.ordered(), statistic.count, share)
        return _trimmed(found[1].upper(), 0.0, share)
    if found := _RANGE.fullmatch(name):
        return _ranged(found[1], found[2], found[4], in_percent=bool(found[3] or found[5]))
    return None


def _ranged(kind: str, low: str, high: str, *, in_percent: bool) -> Read | None:
    try:
        if in_percent and kind != "PR":
            return _trimmed(kind, float(low or 0) / 100, float(high or 100) / 100)
        return _between(kind, float(low) if low else -math.inf, float(high) if high else math.inf)
    except ValueError:
        return None


def percentile(ordered: list[tuple[float, float]], total: float, share: float) -> float | None:
    """Return the value below which `share` (0 to 1) of the values lie."""
    if not ordered:
        return None
    rank = share * max(0.0, total - 1)
    seen = 0.0
    for value, count in ordered:
        seen += count
        if seen > rank:
            return value
    return ordered[-1][0]


def _trimmed(kind: str, low: float, high: float) -> Read:
    """Return the reader of a statistic over the values between two shares of all."""

    def read(statistic: Statistic) -> float | None:
        first, last = low * statistic.count, high * statistic.count
        seen = 0.0
        kept = []
        for value, count in statistic.ordered():
            inside = min(seen + count, last) - max(seen, first)
            if inside > 0:
                kept.append((value, inside))
            seen += count
        if kind == "WM" and kept:
            kept += [(kept[0][0], first), (kept[-1][0], statistic.count - last)]
        return _summed(kind, kept, statistic.count)

    return read


def _between(kind: str, low: float, high: float) -> Read:
    """Return the reader of a statistic over the values in (low, high]."""

    def read(statistic: Statistic) -> float | None:
        kept = [(value, count) for value, count in statistic.ordered() if low < value <= high]
        return _summed(kind, kept, statistic.count)

    return read


def _summed(kind: str, kept: Iterable[tuple[float, float]], total: float) -> float | None:
    kept = list(kept)
    count = sum(count for _, count in kept)
    if kind == "TC":
        return count
    if kind == "PR":
        return 100 * count / total if total else None
    amount = sum(value * count for value, count in kept)
    if kind == "TS":
        return amount
    return amount / count if count else None
