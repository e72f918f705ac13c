"""RFC 3339 timestamps with the language's restrictions: upper-case T, and Z or a numeric offset.

Source: https://states-language.net/spec.html#timestamps.
"""

import re
from datetime import UTC, datetime, timedelta, timezone

_TIMESTAMP = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,9}))?"
    r"(?:Z|([+-])([0-9]{2}):([0-9]{2}))"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NS_PER_S = 1_000_000_000
_MAX_OFFSET_HOURS = 18


def timestamp_ns(text: str) -> int | None:
    """Return nanoseconds since the epoch, or None when `text` is no valid timestamp."""
    match = _TIMESTAMP.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, sign, offset_h, offset_m = match.groups()
    try:
        zone: timezone = UTC
        if sign is not None:
            if int(offset_h) > _MAX_OFFSET_HOURS or int(offset_m) > 59:
                return None
            offset = timedelta(hours=int(offset_h), minutes=int(offset_m))
            zone = timezone(-offset if sign == "-" else offset)
        at = datetime(int(year), int(month), int(day), int(hour), int(minute), int(second), tzinfo=zone)
    except ValueError:
        return None
    delta = at - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * _NS_PER_S + int((fraction or "").ljust(9, "0"))


def timestamp_ms(text: str) -> int | None:
    """Return milliseconds since the epoch (rounded up), or None when `text` is no valid timestamp."""
    ns = timestamp_ns(text)
    return None if ns is None else -(-ns // 1_000_000)
