"""Metric filters: numbers that log events carry, or stand for, as values of metrics.

Source: https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/MonitoringLogData.html
"""

import json
import logging
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from entrepot.services.logs.errors import InvalidParameterError
from entrepot.services.logs.filter_pattern import parse
from entrepot.services.logs.filter_pattern.conditions import text_number
from entrepot.services.logs.ports import Dimensions, RecordMetric

FILTERS_LIMIT = 100
"""Metric filters of a group. AWS's limit."""

DIMENSIONS_LIMIT = 3
"""Dimensions of a metric filter. AWS's limit."""

SERIES_LIMIT = 1_000
"""Different values of dimensions that one filter makes metrics of; events with further ones are not counted. AWS switches a
filter off that makes as many within an hour."""

DIMENSION_LIMIT_CHARS = 1_024
"""A dimension's value is cut here. CloudWatch's limit."""

MINUTE_MS = 60_000

_log = logging.getLogger("entrepot.logs")


@dataclass(frozen=True, slots=True)
class Transformation:
    """What a metric filter makes of a matching event.

    `value` is a number, or a selector of one (`$.size`, `$bytes`); `dimensions` are names with selectors.
    """

    name: str
    namespace: str
    value: str
    default: float | None = None
    unit: str = "None"
    dimensions: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return it for storing."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class MetricFilter:
    """A metric filter as it was put."""

    group: str
    name: str
    pattern: str
    transformation: Transformation
    created_at_ms: int


class MetricRule:
    """A metric filter compiled, with what it gathers in one transaction of the writer.

    InvalidParameterError when the pattern or the transformation is none.
    """

    def __init__(self, name: str, pattern: str, transformation: Transformation) -> None:
        self._identity = (name, pattern, transformation)
        self.name = name
        self.pattern = parse(pattern)
        self._transformation = transformation
        self._value = self._value_of(transformation.value)
        if len(transformation.dimensions) > DIMENSIONS_LIMIT:
            raise InvalidParameterError(
                f"Invalid metric transformation: a metric filter can have at most {DIMENSIONS_LIMIT} dimensions."
            )
        if transformation.dimensions and transformation.default is not None:
            raise InvalidParameterError(
                "Invalid metric transformation: dimensions and default value are mutually exclusive properties."
            )
        self._dimensions = [
            (name, self.pattern.value(selector)) for name, selector in sorted(transformation.dimensions.items())
        ]
        self._gathered: list[tuple[Dimensions, float, int]] = []
        self._seen_minutes: set[int] = set()
        self._told_minutes: dict[int, None] = {}
        self._series: set[Dimensions] = set()
        self._told_full = False

    def is_of(self, name: str, pattern: str, transformation: str) -> bool:
        """Return whether this is the filter of a stored row."""
        return self._identity == (name, pattern, Transformation(**json.loads(transformation)))

    def _value_of(self, text: str) -> Callable[[Any], float | None]:
        if text.startswith("$"):
            find = self.pattern.value(text)
            return lambda record: None if (found := find(record)) is None else text_number(found)
        number = text_number(text)
        if number is None or not math.isfinite(number):
            raise InvalidParameterError(
                f"Invalid metric transformation: the metric value {text!r} is neither a number nor a selector."
            )
        return lambda _: number

    def take(self, record: Any, timestamp_ms: int) -> None:
        """Look at one event, as the pattern read it."""
        if self._transformation.default is not None:
            self._seen_minutes.add(timestamp_ms // MINUTE_MS)
        if record is None or not self.pattern.test(record):
            return
        value = self._value(record)
        if value is None or not math.isfinite(value):
            return
        dimensions: Dimensions = ()
        if self._dimensions:
            found = [(name, find(record)) for name, find in self._dimensions]
            if any(not text for _, text in found):
                return
            dimensions = tuple((name, str(text)[:DIMENSION_LIMIT_CHARS]) for name, text in found)
            if not self._has_room(dimensions):
                return
        self._gathered.append((dimensions, value, timestamp_ms))

    def _has_room(self, dimensions: Dimensions) -> bool:
        if dimensions in self._series:
            return True
        if len(self._series) < SERIES_LIMIT:
            self._series.add(dimensions)
            return True
        if not self._told_full:
            self._told_full = True
            _log.error(
                "The metric filter %s met more than %d different values of its dimensions: events with further ones are not "
                "counted until it is put again. Choose dimensions with few values.",
                self.name,
                SERIES_LIMIT,
            )
        return False

    def committed(self, record: RecordMetric) -> None:
        """Record what was gathered; and the default value, once, for a minute that has events but no match."""
        what = self._transformation
        gathered, self._gathered = self._gathered, []
        for dimensions, value, at_ms in gathered:
            record(what.namespace, what.name, dimensions, value, what.unit, at_ms)
            if what.default is not None:
                self._told_minutes[at_ms // MINUTE_MS] = None
        if what.default is None:
            return
        for minute in sorted(self._seen_minutes - self._told_minutes.keys()):
            record(what.namespace, what.name, (), what.default, what.unit, minute * MINUTE_MS)
            self._told_minutes[minute] = None
        self._seen_minutes.clear()
        while len(self._told_minutes) > SERIES_LIMIT:
            del self._told_minutes[next(iter(self._told_minutes))]

    def forget(self) -> None:
        """Drop what was gathered."""
        self._gathered.clear()
        self._seen_minutes.clear()
