"""Charts as SVG, drawn on the server: they need no script, obey the style sheet, and carry their numbers as text.

Status is never colour alone: every mark has a class for its colour and a title with its name and value, and each chart a table
of its numbers for screen readers.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from markupsafe import Markup, escape

NARROW = 560
WIDE = 1_160
"""Widths of charts, in units of their view."""

HEIGHT = 180
LEFT = 44
BOTTOM = 24
TOP = 10
TICKS = 4

LARGEST = 1e300
"""Values further from zero are not drawn, nor are those that are no numbers."""

DOTS_LIMIT = 120
"""A line of at most so many points shows each with its value."""

KINDS = tuple(f"series-{place}" for place in range(1, 9))
"""Classes that colour series, in turn."""


@dataclass(frozen=True, slots=True)
class Line:
    """Values over time, in milliseconds since the epoch; `kind` is the class that colours it."""

    label: str
    kind: str
    points: Sequence[tuple[int, float]]


@dataclass(frozen=True, slots=True)
class Level:
    """A value drawn across a chart, as an alarm's threshold is."""

    label: str
    kind: str
    value: float


def _drawable(lines: Sequence[Line]) -> list[Line]:
    """Return lines without values that have no place: infinite ones, and what is no number."""
    return [replace(line, points=[point for point in line.points if abs(point[1]) <= LARGEST]) for line in lines]


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of a whole."""

    label: str
    kind: str
    value: float


def bars(
    lines: Sequence[Line], start_ms: int, end_ms: int, period_ms: int, title: str, all_width: int = NARROW
) -> Markup:
    """Return stacked bars, one for each period."""
    lines = _drawable(lines)
    periods = range(start_ms // period_ms * period_ms, end_ms, period_ms)
    values = [dict(line.points) for line in lines]
    most = max((sum(value.get(at_ms, 0.0) for value in values) for at_ms in periods), default=0.0)
    top = _rounded(most)
    width = (all_width - LEFT) / max(1, len(periods))
    marks: list[Markup] = []
    for place, at_ms in enumerate(periods):
        below = 0.0
        for line, value in zip(lines, values, strict=True):
            amount = value.get(at_ms, 0.0)
            if amount <= 0:
                continue
            height = amount / top * (HEIGHT - TOP - BOTTOM)
            y = HEIGHT - BOTTOM - below - height
            text = f"{_clock(at_ms, period_ms)}: {amount:,.0f} {line.label}"
            marks.append(
                Markup(
                    '<rect class="mark {}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{}</title></rect>'
                ).format(line.kind, LEFT + place * width + 0.5, y, max(1.0, width - 1), height, text)
            )
            below += height
    legend = [(line.kind, line.label, f"{sum(value for _, value in line.points):,.0f}") for line in lines]
    plot = _plot("bars", lines, start_ms, end_ms, period_ms)
    return _framed(marks, lines, (0.0, top), start_ms, end_ms, title, all_width, legend, plot)


def curves(
    lines: Sequence[Line],
    start_ms: int,
    end_ms: int,
    title: str,
    all_width: int = NARROW,
    *,
    levels: Sequence[Level] = (),
) -> Markup:
    """Return lines over time, with levels drawn across; values may be below zero."""
    lines = _drawable(lines)
    values = [value for line in lines for _, value in line.points] + [level.value for level in levels]
    top = _rounded(max(values, default=0.0))
    bottom = -_rounded(-min(values)) if values and min(values) < 0 else 0.0
    span = max(1, end_ms - start_ms)

    def place(at_ms: int, value: float) -> tuple[float, float]:
        within = (min(max(value, bottom), top) - bottom) / (top - bottom)
        return LEFT + (at_ms - start_ms) / span * (all_width - LEFT), HEIGHT - BOTTOM - within * (HEIGHT - TOP - BOTTOM)

    marks = []
    for level in levels:
        _, y = place(start_ms, level.value)
        marks.append(
            Markup(
                '<line class="level {}" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"><title>{}: {:g}</title></line>'
            ).format(level.kind, LEFT, all_width, y, y, level.label, level.value)
        )
    for line in lines:
        seen = [(at_ms, value) for at_ms, value in line.points if start_ms <= at_ms <= end_ms]
        drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in seen))
        last = f": {amount(line.points[-1][1])}" if line.points else ""
        marks.append(
            Markup('<polyline class="curve {}" points="{}"><title>{}{}</title></polyline>').format(
                line.kind, drawn, line.label, last
            )
        )
        if len(seen) <= DOTS_LIMIT:
            marks += [_dot(line, place(*point), point, span // 24) for point in seen]
    legend = [(line.kind, line.label, amount(line.points[-1][1]) if line.points else "–") for line in lines]
    legend += [(f"level {level.kind}", level.label, f"{level.value:,g}") for level in levels]
    plot = _plot("curves", lines, start_ms, end_ms, levels=levels)
    return _framed(marks, lines, (bottom, top), start_ms, end_ms, title, all_width, legend, plot)


def _dot(line: Line, place: tuple[float, float], point: tuple[int, float], span_ms: int) -> Markup:
    text = f"{_clock(point[0], span_ms)}: {line.label} {amount(point[1])}"
    return Markup('<circle class="dot {}" cx="{:.1f}" cy="{:.1f}" r="2.500"><title>{}</title></circle>').format(
        line.kind, *place, text
    )


def pie(slices: Sequence[Slice], title: str) -> Markup:
    """Return a ring with its parts and their numbers beside it."""
    total = sum(part.value for part in slices)
    radius, around = 62.0, 2 * math.pi * 62.0
    marks = []
    if total <= 0:
        marks.append(Markup('<circle class="ring empty" cx="80" cy="80" r="62"/>'))
    done = 0.0
    for part in slices:
        share = part.value / total if total else 0.0
        if share <= 0:
            continue
        marks.append(
            Markup(
                '<circle class="ring {}" cx="80" cy="80" r="{}" stroke-dasharray="{:.2f} {:.2f}" stroke-dashoffset="{:.2f}" '
                'transform="rotate(-90 80 80)"><title>{}: {:,.0f} ({:.1%})</title></circle>'
            ).format(part.kind, radius, share * around, around, -done * around, part.label, part.value, share)
        )
        done += share
    legend = Markup("").join(
        Markup('<li><span class="swatch {}"></span>{} <b>{:,.0f}</b></li>').format(part.kind, part.label, part.value)
        for part in slices
    )
    return Markup(
        '<div class="pie"><svg viewBox="0 0 160 160" role="img" aria-label="{}">{}'
        '<text class="total" x="80" y="86" text-anchor="middle">{:,.0f}</text></svg><ul class="legend">{}</ul></div>'
    ).format(title, Markup("").join(marks), total, legend)


def ranks(slices: Sequence[Slice], title: str) -> Markup:
    """Return a bar for each part, one below the other."""
    most = max((part.value for part in slices), default=0.0) or 1.0
    rows = Markup("").join(
        Markup(
            '<li><span>{} <b>{}</b></span><svg viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
            '<rect class="mark {}" width="{:.2f}" height="8"/></svg></li>'
        ).format(part.label, amount(part.value), part.kind, max(0.5, part.value / most * 100))
        for part in slices
    )
    return Markup('<ul class="ranks" aria-label="{}">{}</ul>').format(title, rows)


def _plot(
    kind: str,
    lines: Sequence[Line],
    start_ms: int,
    end_ms: int,
    period_ms: int = 0,
    *,
    levels: Sequence[Level] = (),
) -> str:
    """Return a chart's numbers as JSON, for the script that draws it again with a cursor."""
    return json.dumps(
        {
            "kind": kind,
            "start": start_ms,
            "end": end_ms,
            "period": period_ms,
            "lines": [{"label": line.label, "kind": line.kind, "points": list(line.points)} for line in lines],
            "levels": [{"label": level.label, "kind": level.kind, "value": level.value} for level in levels],
        },
        separators=(",", ":"),
    )


def _framed(
    marks: Sequence[Markup],
    lines: Sequence[Line],
    reach: tuple[float, float],
    start_ms: int,
    end_ms: int,
    title: str,
    all_width: int,
    entries: Sequence[tuple[str, str, str]],
    plot: str,
) -> Markup:
    """Return marks within axes, with a legend and the numbers as a table."""
    bottom, top = reach
    axes = []
    for tick in range(TICKS + 1):
        y = HEIGHT - BOTTOM - tick / TICKS * (HEIGHT - TOP - BOTTOM)
        axes.append(
            Markup(
                '<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>'
                '<text class="axis" x="{}" y="{:.1f}" text-anchor="end">{}</text>'
            ).format(LEFT, all_width, y, y, LEFT - 6, y + 4, _figure(bottom + (top - bottom) * tick / TICKS))
        )
    span = end_ms - start_ms
    for tick in range(5):
        at_ms = start_ms + span * tick // 4
        anchor = "start" if tick == 0 else "end" if tick == 4 else "middle"
        axes.append(
            Markup('<text class="axis" x="{:.1f}" y="{}" text-anchor="{}">{}</text>').format(
                LEFT + (all_width - LEFT) * tick / 4, HEIGHT - 6, anchor, _clock(at_ms, span // 4)
            )
        )
    legend = Markup("").join(
        Markup('<li><span class="swatch {}"></span>{} <b>{}</b></li>').format(kind, label, figure)
        for kind, label, figure in entries
    )
    rows = Markup("").join(
        Markup("<tr><th>{}</th><td>{}</td></tr>").format(
            line.label, ", ".join(f"{_clock(at_ms, span // 24)} {value:g}" for at_ms, value in line.points if value)
        )
        for line in lines
    )
    long = Markup(' class="chart long" tabindex="0" role="group" aria-label="{}"').format(title)
    return Markup(
        '<div{} data-plot="{}"><svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}{}</svg>'
        '<ul class="legend">{}</ul><div class="for-readers"><table><caption>{}</caption>{}</table></div></div>'
    ).format(
        long if all_width > NARROW else Markup(' class="chart"'),
        plot,
        all_width,
        HEIGHT,
        title,
        Markup("").join(axes),
        Markup("").join(marks),
        legend,
        title,
        rows,
    )


def _rounded(most: float) -> float:
    """Return a round number at or above `most`, for the top of an axis."""
    if most < 1 / LARGEST or not math.isfinite(most):
        return 4.0
    power = 10.0 ** math.floor(math.log10(most))
    step = next((step for step in (1, 2, 4, 5, 8) if step * power >= most), 10)
    return max(step * power, 4.0 if most > 1 else step * power)


def amount(value: float) -> str:
    """Return a value as short as it can be read."""
    return f"{value:,.0f}" if abs(value) >= 1_000 or float(value).is_integer() else f"{value:.4g}"


def _figure(value: float) -> str:
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:g}{unit}"
    return f"{value:g}"


def _clock(at_ms: int, span_ms: int) -> str:
    """Return a time as short as the distance to the next one permits."""
    time = datetime.fromtimestamp(at_ms / 1000, UTC)
    if span_ms >= 86_400_000:
        return f"{time:%d %b}"
    return f"{time:%H:%M}" if span_ms >= 60_000 else f"{time:%H:%M:%S}"


__all__ = ["KINDS", "Level", "Line", "Slice", "amount", "bars", "curves", "escape", "pie", "ranks"]
