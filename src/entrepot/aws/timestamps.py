"""Timestamps on the wire, in the three formats of the models: `iso8601`, `rfc822` and `unixTimestamp`.

Inside they are aware datetimes in UTC. Source: https://smithy.io/2.0/spec/protocol-traits.html#timestampformat-trait
"""

from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime

from entrepot.aws.errors import SerializationError


def parse(text: str) -> datetime:
    """Return the time that a text in any of the formats names; raise SerializationError for anything else."""
    try:
        if text[:1].isdigit() or text[:1] == "-":
            if "T" not in text and text.count("-") < 2:
                return from_unix(float(text))
            at = datetime.fromisoformat(text)
        else:
            at = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError):
        raise SerializationError(f"Not a timestamp: {text[:64]!r}") from None
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def from_unix(seconds: float) -> datetime:
    """Return the time `seconds` after the epoch; raise SerializationError when there is no such date."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        raise SerializationError(f"Not a timestamp: {seconds!r}") from None


def iso8601(at: datetime) -> str:
    """Return `2026-11-23T20:00:00.123Z`, as S3's and Query's bodies carry it."""
    utc = at.astimezone(UTC)
    return f"{utc:%Y-%m-%dT%H:%M:%S}.{utc.microsecond // 1000:03d}Z"


def rfc822(at: datetime) -> str:
    """Return `Mon, 23 Nov 2026 20:00:00 GMT`, as headers carry it."""
    return format_datetime(at.astimezone(UTC), usegmt=True)


def unix(at: datetime) -> int | float:
    """Return seconds since the epoch to the millisecond, as JSON carries it."""
    seconds = round(at.timestamp(), 3)
    return int(seconds) if seconds == int(seconds) else seconds


def as_text(at: datetime, timestamp_format: str) -> str:
    """Return the time in the named format."""
    if timestamp_format == "rfc822":
        return rfc822(at)
    if timestamp_format == "unixTimestamp":
        return str(unix(at))
    return iso8601(at)
