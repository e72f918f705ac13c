"""Schedule expressions: `rate(5 minutes)` and `cron(0 10 ? * MON-FRI *)` with AWS's six fields, in UTC.

Pure: an expression says which due time follows another. No library has this dialect (six fields with a year, `?`, `L`,
`W`, `#`, Sunday = 1).
Source: https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-scheduled-rule-pattern.html
"""

import calendar
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from entrepot.services.events.errors import ValidationError

LAST_YEAR = 2199
"""The last year that a cron expression can name."""

_UNITS_MS = {"minute": 60_000, "hour": 3_600_000, "day": 86_400_000}
_MONTHS = {
    name: number
    for number, name in enumerate(
        ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"], 1
    )
}
_DAYS = {name: number for number, name in enumerate(["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"], 1)}
_RATE = re.compile(r"rate\(\s*([0-9]{1,9})\s+(minute|hour|day)(s?)\s*\)")
_CRON = re.compile(r"cron\(\s*([^()]*?)\s*\)")


def _invalid() -> ValidationError:
    return ValidationError("Parameter ScheduleExpression is not valid.")


@dataclass(frozen=True, slots=True)
class Rate:
    """Every `period_ms`, counted from when the rule was made."""

    period_ms: int

    def after(self, at_ms: int, since_ms: int) -> int:
        """Return the first due time after `at_ms`; due times are `since_ms` and whole periods more."""
        return since_ms + ((at_ms - since_ms) // self.period_ms + 1) * self.period_ms


@dataclass(frozen=True, slots=True)
class Cron:
    """The minutes, in UTC, that six fields name."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    day_of_month: str
    months: tuple[int, ...]
    day_of_week: str
    years: tuple[int, ...]

    def after(self, at_ms: int, since_ms: int = 0) -> int | None:
        """Return the first due time after `at_ms`, in milliseconds; None when there is none any more."""
        start = datetime.fromtimestamp(at_ms // 60_000 * 60, UTC) + timedelta(minutes=1)
        for year in self.years:
            if year < start.year:
                continue
            for month in self.months:
                if (year, month) < (start.year, start.month):
                    continue
                for day in self.days(year, month):
                    if (year, month, day) < (start.year, start.month, start.day):
                        continue
                    found = self._in_day(datetime(year, month, day, tzinfo=UTC), start)
                    if found is not None:
                        return int(found.timestamp()) * 1000
        return None

    def _in_day(self, day: datetime, start: datetime) -> datetime | None:
        for hour in self.hours:
            for minute in self.minutes:
                due = day.replace(hour=hour, minute=minute)
                if due >= start:
                    return due
        return None

    def days(self, year: int, month: int) -> list[int]:
        """Return the days of a month that the expression names, sorted."""
        last = calendar.monthrange(year, month)[1]
        if self.day_of_month == "?":
            return _days_of_week(self.day_of_week, year, month, last)
        return _days_of_month(self.day_of_month, year, month, last)


Schedule: TypeAlias = Rate | Cron


def parse(expression: str) -> Schedule:
    """Return what an expression says; raise ValidationError, as PutRule does."""
    rate = _RATE.fullmatch(expression)
    if rate is not None:
        count = int(rate[1])
        # AWS takes `1 minute` and `5 minutes` only, not the other way round.
        if count < 1 or (rate[3] == "s") != (count > 1):
            raise _invalid()
        return Rate(count * _UNITS_MS[rate[2]])
    cron = _CRON.fullmatch(expression) if len(expression) <= 256 else None
    fields = cron[1].upper().split() if cron is not None else []
    if len(fields) != 6 or (fields[2] == "?") == (fields[4] == "?"):
        raise _invalid()
    _check_days(fields[2], fields[4])
    return Cron(
        _numbers(fields[0], 0, 59),
        _numbers(fields[1], 0, 23),
        fields[2],
        _numbers(fields[3], 1, 12, _MONTHS),
        fields[4],
        _numbers(fields[5], 1970, LAST_YEAR),
    )


def _numbers(field: str, least: int, greatest: int, names: dict[str, int] | None = None) -> tuple[int, ...]:
    """Return what a field of numbers, ranges and steps names, sorted."""
    found: set[int] = set()
    for part in field.split(","):
        span, slash, step_text = part.partition("/")
        step = _number(step_text, 1, greatest, None) if slash else 1
        if span == "*":
            first, last = least, greatest
        else:
            low, dash, high = span.partition("-")
            first = _number(low, least, greatest, names)
            last = _number(high, least, greatest, names) if dash else (greatest if slash else first)
        if first > last:
            raise _invalid()
        found.update(range(first, last + 1, step))
    return tuple(sorted(found))


def _number(text: str, least: int, greatest: int, names: dict[str, int] | None) -> int:
    if names and text in names:
        return names[text]
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and least <= int(text) <= greatest):
        raise _invalid()
    return int(text)


_WEEKDAY_NEAR = re.compile(r"([0-9]{1,2})W")
_LAST_OF_WEEK = re.compile(r"([1-7]|SUN|MON|TUE|WED|THU|FRI|SAT)L")
_NTH_OF_WEEK = re.compile(r"([1-7]|SUN|MON|TUE|WED|THU|FRI|SAT)#([1-5])")


def _check_days(day_of_month: str, day_of_week: str) -> None:
    """Raise ValidationError unless the fields of days can be read."""
    if day_of_month not in ("?", "L", "LW"):
        near = _WEEKDAY_NEAR.fullmatch(day_of_month)
        if near is None:
            _numbers(day_of_month, 1, 31)
        elif not 1 <= int(near[1]) <= 31:
            raise _invalid()
    if day_of_week in ("?", "L") or _LAST_OF_WEEK.fullmatch(day_of_week) or _NTH_OF_WEEK.fullmatch(day_of_week):
        return
    _numbers(day_of_week, 1, 7, _DAYS)


def _weekday(year: int, month: int, day: int) -> int:
    """Return AWS's number of a day of the week: Sunday is 1."""
    return (calendar.weekday(year, month, day) + 1) % 7 + 1


def _days_of_month(field: str, year: int, month: int, last: int) -> list[int]:
    if field == "L":
        return [last]
    if field == "LW":
        return [_nearest_weekday(year, month, last, last)]
    near = _WEEKDAY_NEAR.fullmatch(field)
    if near is not None:
        day = int(near[1])
        return [_nearest_weekday(year, month, day, last)] if day <= last else []
    return [day for day in _numbers(field, 1, 31) if day <= last]


def _nearest_weekday(year: int, month: int, day: int, last: int) -> int:
    """Return the day from Monday to Friday that is nearest, in the same month."""
    weekday = _weekday(year, month, day)
    if weekday == 7:
        return day - 1 if day > 1 else day + 2
    if weekday == 1:
        return day + 1 if day < last else day - 2
    return day


def _days_of_week(field: str, year: int, month: int, last: int) -> list[int]:
    if field == "L":
        field = "7"
    ends, nth = _LAST_OF_WEEK.fullmatch(field), _NTH_OF_WEEK.fullmatch(field)
    named = ends or nth
    wanted = (_number(named[1], 1, 7, _DAYS),) if named else _numbers(field, 1, 7, _DAYS)
    days = [day for day in range(1, last + 1) if _weekday(year, month, day) in wanted]
    if ends:
        return days[-1:]
    if nth:
        number = int(nth[2])
        return days[number - 1 : number]
    return days
