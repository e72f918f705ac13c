"""Spans of time that pages show: a range up to now, or from one time to another, by the address."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from starlette.requests import Request

from entrepot import clock
from entrepot.console import render

RANGES: Mapping[str, int] = {
    "15m": 900_000,
    "1h": 3_600_000,
    "3h": 10_800_000,
    "12h": 43_200_000,
    "1d": 86_400_000,
    "3d": 259_200_000,
    "7d": 604_800_000,
    "30d": 2_592_000_000,
}
"""Ranges that can be chosen, in milliseconds."""

LONGEST_MS = 3_660 * 86_400_000
"""A span is ten years long, at most."""

POINTS_AIM = 120
"""A chart has about so many points, when nobody says otherwise."""

PERIODS_S = (60, 300, 900, 3_600, 21_600, 86_400)


@dataclass(frozen=True, slots=True)
class Span:
    """From `start_ms` up to `end_ms`; `range` is the chosen range, "" when `since` and `until` are given."""

    range: str
    start_ms: int
    end_ms: int
    since: str = ""
    until: str = ""
    problem: str = ""

    @property
    def start(self) -> datetime:
        """The beginning."""
        return datetime.fromtimestamp(self.start_ms / 1000, UTC)

    @property
    def end(self) -> datetime:
        """The end."""
        return datetime.fromtimestamp(self.end_ms / 1000, UTC)

    @property
    def period_s(self) -> int:
        """How long a point of a chart over this span stands for."""
        wanted_s = (self.end_ms - self.start_ms) / 1000 / POINTS_AIM
        return next((period_s for period_s in PERIODS_S if period_s >= wanted_s), PERIODS_S[-1])

    def query(self) -> dict[str, str]:
        """Return the span as values of an address."""
        return {"range": self.range} if self.range else {"since": self.since, "until": self.until}


def span_of(request: Request, default: str = "1h") -> Span:
    """Return the span that the address asks for; one that makes no sense is told and replaced by the default."""
    query, now_ms = request.query_params, clock.now_ms()
    since, until = query.get("since", "").strip(), query.get("until", "").strip()
    wanted = query.get("range", "")
    problem = ""
    if since or until:
        start, end = _moment_ms(since), _moment_ms(until)
        end = now_ms if end is None and not until else end
        start = None if end is None else end - RANGES[default] if start is None and not since else start
        if start is not None and end is not None and start < end <= start + LONGEST_MS:
            return Span("", start, end, since, until)
        problem = f"From “{since[:40]}” to “{until[:40]}” is no span of time."
    if wanted not in RANGES:
        wanted = default
    return Span(wanted, now_ms - RANGES[wanted], now_ms, problem=problem)


def _moment_ms(text: str) -> int | None:
    moment = render.moment(int(text) if text.isdecimal() and len(text) < 15 else text) if text else None
    return None if moment is None else int(moment.timestamp() * 1000)
