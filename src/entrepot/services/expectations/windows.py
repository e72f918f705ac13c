"""When files are expected: the windows of a schedule, each with one deadline, in the time of a place.

A window opens `window_s` before its deadline (never before the one before it closed) and closes `grace_s` after it. Its
identity is the date of its deadline. Clocks that are put forward or back: a deadline that its day's clock skips (02:30, when
02:00 becomes 03:00) is as much later as the clock is put forward; of one that comes twice the first counts; a date that a place
left out altogether (Samoa, 2011-12-30) has no window.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

WINDOW_LIMIT_S = 7 * 86_400
GRACE_LIMIT_S = 43_200
"""A longer grace would reach into the next day's window."""

SEARCH_LIMIT_DAYS = 2_600
"""So many days are looked through for the next window, or the one before: a year of holidays that are all on one weekday."""

DAY = timedelta(days=1)

_log = logging.getLogger("entrepot.expectations")


@dataclass(frozen=True, slots=True)
class Schedule:
    """`by` on each of `days` (of WEEKDAYS) that is none of `holidays` (ISO dates), in `time_zone` (IANA)."""

    by: str
    time_zone: str = "UTC"
    days: tuple[str, ...] = WEEKDAYS[:5]
    holidays: tuple[str, ...] = ()
    window_s: int = 43_200
    grace_s: int = 0


@dataclass(frozen=True, slots=True)
class Window:
    """One window: `opens_at_ms` < times of arrival ≤ `closes_at_ms`; after `deadline_at_ms` they are late."""

    date: str
    opens_at_ms: int
    deadline_at_ms: int
    closes_at_ms: int


@lru_cache(maxsize=1024)
def _zone(name: str) -> tzinfo:
    """Return a time zone; UTC for one that this machine knows no more, as an upload must not fail for that."""
    try:
        return ZoneInfo(name)
    except (ValueError, KeyError, OSError):
        _log.error(
            "This machine does not know the time zone %s (any more); expectations take UTC. Install tzdata.", name
        )
        return UTC


@lru_cache(maxsize=1024)
def _deadline_ms(by: str, time_zone: str, day: date) -> int:
    """Return the deadline of a date; fold 0 takes the first of two, and moves one that there is not forward."""
    moment = datetime.combine(day, time.fromisoformat(by), _zone(time_zone))
    return round(moment.timestamp() * 1000)


def _deadline_on(schedule: Schedule, day: date) -> int | None:
    """Return the deadline of a date, None when nothing is expected then."""
    if WEEKDAYS[day.weekday()] not in schedule.days or day.isoformat() in schedule.holidays:
        return None
    at_ms = _deadline_ms(schedule.by, schedule.time_zone, day)
    if at_ms >= _deadline_ms(schedule.by, schedule.time_zone, day + DAY):
        return None  # The place has no such date.
    return at_ms


def _previous_close_ms(schedule: Schedule, day: date) -> int:
    for back in range(1, SEARCH_LIMIT_DAYS):
        if (at_ms := _deadline_on(schedule, day - back * DAY)) is not None:
            return at_ms + schedule.grace_s * 1000
    return 0


def window_on(schedule: Schedule, day: date) -> Window | None:
    """Return the window with its deadline on a date."""
    deadline_ms = _deadline_on(schedule, day)
    if deadline_ms is None:
        return None
    opens_ms = max(deadline_ms - schedule.window_s * 1000, _previous_close_ms(schedule, day))
    return Window(day.isoformat(), opens_ms, deadline_ms, deadline_ms + schedule.grace_s * 1000)


def _local_date(schedule: Schedule, at_ms: int) -> date:
    return datetime.fromtimestamp(at_ms / 1000, UTC).astimezone(_zone(schedule.time_zone)).date()


def windows_from(schedule: Schedule, at_ms: int) -> Iterator[Window]:
    """Yield the windows that close at `at_ms` or later, in order."""
    day = _local_date(schedule, at_ms) - 2 * DAY
    for _ in range(SEARCH_LIMIT_DAYS):
        window = window_on(schedule, day)
        if window is not None and window.closes_at_ms >= at_ms:
            yield window
        day += DAY


def next_window(schedule: Schedule, at_ms: int) -> Window | None:
    """Return the first window that closes at `at_ms` or later; None when there is none for years."""
    return next(windows_from(schedule, at_ms), None)


def window_at(schedule: Schedule, at_ms: int) -> Window | None:
    """Return the window in which a file that arrives at `at_ms` counts."""
    window = next_window(schedule, at_ms)
    return window if window is not None and window.opens_at_ms < at_ms else None


def last_closed(schedule: Schedule, at_ms: int) -> Window | None:
    """Return the newest window that closed before `at_ms`."""
    day = _local_date(schedule, at_ms) + DAY
    for _ in range(SEARCH_LIMIT_DAYS):
        window = window_on(schedule, day)
        if window is not None and window.closes_at_ms < at_ms:
            return window
        day -= DAY
    return None


def closed_between(schedule: Schedule, after_ms: int, until_ms: int) -> Iterator[Window]:
    """Yield the windows that closed after `after_ms`, until `until_ms`, in order."""
    for window in windows_from(schedule, after_ms + 1):
        if window.closes_at_ms > until_ms:
            return
        yield window
