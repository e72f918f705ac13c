"""What a service needs to write to a log group, without knowing who stores it; and how a line is shown to a person."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class LogLine:
    """One log event: `timestamp_ms` since the epoch and its text (at most 256 KiB in UTF-8)."""

    timestamp_ms: int
    message: str


WriteLog: TypeAlias = Callable[[str, str, LogLine], None]
"""`write_log(log_group_name, log_stream_name, line)`: queue one line; groups and streams are made as needed.

Never raises. Lines that come too fast wait on disk; only when that is full does a caller wait, a second at most, and the
store counts what it could not take.
"""


def printable(text: str) -> str:
    """Return the text with control characters shown as escapes: a file's name must not steer the terminal."""
    return "".join(c if c.isprintable() or c == "\t" else c.encode("unicode_escape").decode() for c in text)
