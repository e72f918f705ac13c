"""The only module that reads time. Everything else asks here, so that tests can stand in for it."""

import functools
import time
from datetime import UTC, datetime


def now_ms() -> int:
    """Return milliseconds since the Unix epoch."""
    return time.time_ns() // 1_000_000


def now() -> datetime:
    """Return the current time, aware, in UTC."""
    return datetime.fromtimestamp(time.time(), UTC)


def monotonic_s() -> float:
    """Return seconds of a clock that never goes backwards; only differences mean anything."""
    return time.monotonic()


def thread_s() -> float:
    """Return seconds of processor time that this thread has used; only differences mean anything."""
    return time.thread_time()


def from_ms(at_ms: int) -> datetime:
    """Return `at_ms` (milliseconds since the epoch) as an aware UTC datetime."""
    return datetime.fromtimestamp(at_ms / 1000, UTC)


def iso(at_ms: int) -> str:
    """Return `at_ms` as ISO 8601 with milliseconds and Z: `2026-11-23T19:57:14.123Z`."""
    seconds, milliseconds = divmod(at_ms, 1000)
    return f"{_iso_second(seconds)}.{milliseconds:03d}Z"


@functools.lru_cache(maxsize=64)
def _iso_second(seconds: int) -> str:
    """Return the text down to the second; nearly all calls ask for the same few seconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
