"""An expectation: which files, from whom, until when, how large and how many; and how it is written down."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import date, time
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

import re2

from entrepot.services.expectations.errors import ValidationError
from entrepot.services.expectations.windows import GRACE_LIMIT_S, WEEKDAYS, WINDOW_LIMIT_S, Schedule

PATTERN_LIMIT = 1024
HOLIDAYS_LIMIT = 366
SIZE_LIMIT_BYTES = 1 << 50
FILES_LIMIT = 1_000_000

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_BY = re.compile(r"[0-2][0-9]:[0-5][0-9](:[0-5][0-9])?")


@dataclass(frozen=True, slots=True)
class Expectation:
    """A file whose key fits `key_pattern`, in `source_bucket` and of `customer_id` (empty: any), in each window.

    Files below `minimum_size_bytes` do not fulfil it; more than `maximum_files` in one window are duplicates.
    """

    name: str
    key_pattern: str
    schedule: Schedule
    source_bucket: str = ""
    customer_id: str = ""
    minimum_size_bytes: int = 1
    maximum_files: int = 1
    description: str = ""
    prefix: str = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "prefix", literal_prefix(self.key_pattern))

    def fits(self, bucket: str, key: str, customer_id: str) -> bool:
        """Whether it is about a file."""
        return (
            self.source_bucket in ("", bucket)
            and self.customer_id in ("", customer_id)
            and key.startswith(self.prefix)
            and compiled(self.key_pattern).fullmatch(key) is not None
        )

    def as_json(self) -> str:
        """Return it for its row; `of_json` reads it again."""
        shape = asdict(self)
        del shape["prefix"]
        return json.dumps(shape, separators=(",", ":"))


def of_json(text: str) -> Expectation:
    """Return the expectation that `as_json` wrote."""
    shape = json.loads(text)
    schedule = shape.pop("schedule")
    schedule |= {name: tuple(schedule[name]) for name in ("days", "holidays")}
    return Expectation(schedule=Schedule(**schedule), **shape)


# ── patterns ─────────────────────────────────────────────────────────────────────────────────────────────────────────

_WILD = re.compile(r"\*\*|\*|\?")


def literal_prefix(pattern: str) -> str:
    """Return what every key that fits begins with."""
    wild = _WILD.search(pattern)
    return pattern if wild is None else pattern[: wild.start()]


@lru_cache(maxsize=4096)
def compiled(pattern: str) -> Any:
    """Return a pattern as a regular expression that takes linear time: `*` and `?` stay in their folder, `**` does not."""
    parts, place = [], 0
    for wild in _WILD.finditer(pattern):
        parts.append(re2.escape(pattern[place : wild.start()]))
        parts.append({"**": "(?s:.*)", "*": "[^/]*", "?": "[^/]"}[wild.group()])
        place = wild.end()
    return re2.compile("".join((*parts, re2.escape(pattern[place:]))))


# ── from requests ────────────────────────────────────────────────────────────────────────────────────────────────────


def expectation_of(request: Mapping[str, Any]) -> Expectation:
    """Return what a request of PutExpectation describes; raise ValidationError."""
    name, pattern = _text(request, "name"), _text(request, "key_pattern")
    if not _NAME.fullmatch(name):
        raise ValidationError("name must have 1 to 64 letters, digits, dots, hyphens or underscores.")
    if not 1 <= len(pattern) <= PATTERN_LIMIT:
        raise ValidationError(f"key_pattern must have 1 to {PATTERN_LIMIT} characters, such as acme/report-*.csv.")
    return Expectation(
        name,
        pattern,
        _schedule(request),
        source_bucket=_text(request, "source_bucket")[:63],
        customer_id=_text(request, "customer_id")[:1024],
        minimum_size_bytes=_number(request, "minimum_size_bytes", 1, 0, SIZE_LIMIT_BYTES),
        maximum_files=_number(request, "maximum_files", 1, 1, FILES_LIMIT),
        description=_text(request, "description")[:1024],
    )


def _schedule(request: Mapping[str, Any]) -> Schedule:
    by, zone = _text(request, "by"), _text(request, "time_zone") or "UTC"
    try:
        if not _BY.fullmatch(by):
            raise ValueError
        time.fromisoformat(by)
    except ValueError:
        raise ValidationError(f"by must be a time such as 06:00 or 06:00:30, not {by[:40]!r}.") from None
    try:
        ZoneInfo(zone)
    except (ValueError, KeyError, OSError):
        raise ValidationError(
            f"time_zone {zone[:60]!r} is unknown here; give a name of the IANA data base such as Europe/Berlin."
        ) from None
    days = tuple(dict.fromkeys(str(day)[:3].lower() for day in request.get("days") or WEEKDAYS[:5]))
    if unknown := [day for day in days if day not in WEEKDAYS]:
        raise ValidationError(f"days must be of {', '.join(WEEKDAYS)}, not {unknown[0]!r}.")
    holidays = tuple(request.get("holidays") or ())
    if len(holidays) > HOLIDAYS_LIMIT:
        raise ValidationError(f"holidays: at most {HOLIDAYS_LIMIT} dates.")
    try:
        holidays = tuple(sorted({date.fromisoformat(day).isoformat() for day in holidays}))
    except ValueError:
        raise ValidationError("holidays must be dates such as 2026-12-25.") from None
    return Schedule(
        by,
        zone,
        days,
        holidays,
        _number(request, "window_s", 43_200, 1, WINDOW_LIMIT_S),
        _number(request, "grace_s", 0, 0, GRACE_LIMIT_S),
    )


def _text(request: Mapping[str, Any], name: str) -> str:
    text: str = request.get(name) or ""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValidationError(f"{name} is not valid Unicode.") from None
    return text


def _number(request: Mapping[str, Any], name: str, default: int, low: int, high: int) -> int:
    value: int = default if request.get(name) is None else request[name]
    if not low <= value <= high:
        raise ValidationError(f"{name} must be between {low} and {high}.")
    return value
