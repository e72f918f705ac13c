"""Labels with live values: `${LAST}`, `${MAX_TIME}`, `${PROP('Dim.FunctionName')}`, filled in for one series.

Source: https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/graph-dynamic-labels.html
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone

from entrepot import clock
from entrepot.services.cloudwatch.errors import ValidationError
from entrepot.services.cloudwatch.expressions import Series

_VALUE = re.compile(r"\$\{(?:PROP\('([^']*)'\)|([A-Z_]+))\}")
_OFFSET = re.compile(r"([+-])(\d{2})(\d{2})")


@dataclass(frozen=True, slots=True)
class Place:
    """Where metrics are, and whose time labels tell."""

    account_id: str = ""
    region: str = ""
    zone: timezone = UTC


def zone_of(text: str | None) -> timezone:
    """Return the time zone of LabelOptions (`+0130`); ValidationError for anything else."""
    if not text:
        return UTC
    found = _OFFSET.fullmatch(text)
    if found is None or int(found[2]) > 23 or int(found[3]) > 59:
        raise ValidationError(f"The value {text} for parameter LabelOptions.Timezone is not valid: it is like +0130.")
    offset = timedelta(hours=int(found[2]), minutes=int(found[3]))
    return timezone(-offset if found[1] == "-" else offset)


def filled(label: str, series: Series, place: Place) -> str:
    """Return a label with its values filled in; what there is no value for becomes nothing, unknown names stay."""
    if "${" not in label:
        return label
    figures = _figures(series, place)
    properties = {
        **series.facts,
        "Period": str(series.period_s),
        "AccountId": place.account_id,
        "AccountLabel": place.account_id,
        "Region": place.region,
    }

    def value(found: re.Match[str]) -> str:
        if found[1] is not None:
            return properties.get(found[1], "")
        return figures.get(found[2], found[0])

    return _VALUE.sub(value, label)


def _figures(series: Series, place: Place) -> Mapping[str, str]:
    """Return the live values of a series by name; empty ones while it has no values."""
    figures = dict.fromkeys(_NAMES, "")
    figures |= {"LABEL": series.label, "DATAPOINT_COUNT": str(len(series.points))}
    points = series.points
    if not points:
        return figures
    times = {"FIRST": min(points), "LAST": max(points)}
    times |= {"MIN": min(points, key=lambda at: (points[at], -at)), "MAX": max(points, key=lambda at: (points[at], at))}
    now_s = clock.now_ms() // 1000
    for name, at_s in times.items():
        figures[name] = _number(points[at_s])
        figures[f"{name}_TIME"] = datetime.fromtimestamp(at_s, place.zone).strftime("%Y-%m-%d %H:%M:%S %Z")
        figures[f"{name}_TIME_RELATIVE"] = _length(now_s - at_s)
    figures["SUM"] = _number(sum(points.values()))
    figures["AVG"] = _number(sum(points.values()) / len(points))
    for first, last in (("FIRST", "LAST"), ("MIN", "MAX")):
        figures[f"{first}_{last}_RANGE"] = _number(abs(points[times[last]] - points[times[first]]))
        figures[f"{first}_{last}_TIME_RANGE"] = _length(abs(times[last] - times[first]))
    return figures


_NAMES = (
    *("AVG", "SUM", "FIRST_LAST_RANGE", "FIRST_LAST_TIME_RANGE", "MIN_MAX_RANGE", "MIN_MAX_TIME_RANGE"),
    *(f"{name}{ending}" for name in ("FIRST", "LAST", "MIN", "MAX") for ending in ("", "_TIME", "_TIME_RELATIVE")),
)


def _number(value: float) -> str:
    """Return a value with at most three decimals."""
    return f"{value:.3f}".rstrip("0").rstrip(".") if abs(value) < 1e15 else f"{value:.6g}"


def _length(seconds: int) -> str:
    """Return a length of time: 2d 3h, 5m 10s, 0s."""
    parts = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        count, seconds = divmod(max(0, seconds), size)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2]) or "0s"
