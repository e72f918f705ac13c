"""What a worker prints, cut into log events, within bounds.

One pipe carries standard output, standard error and awslambdaric's telemetry frames (a magic number, a length, a time, a
message; each frame is one event, several lines of a stack trace included), so the order is the order of writing. The
bytes of the magic number cannot occur in UTF-8 text.
"""

import re
from collections.abc import Callable

from entrepot import clock
from entrepot.services.lambda_.pace import DROPPED_PART, EVENT_COST_BYTES

LINE_LIMIT_BYTES = 256 * 1024
"""A longer line is cut into several events."""

INVOCATION_LIMIT_BYTES = 4 * 1024 * 1024
INVOCATION_LIMIT_EVENTS = 50_000
"""What one invocation may log; the rest is counted and dropped, and a line says so."""

_MAGIC = re.compile(rb"\xa5\x5a\x00[\x00-\x1f]")
_LINE = re.compile(rb"[^\n]*\n|[^\n]+")
_HEADER_BYTES = 16


class Output:
    """Takes bytes as they come and calls `emit(timestamp_ms, text)` for each event."""

    def __init__(self, emit: Callable[[int, str], None]) -> None:
        self._emit = emit
        self._buffer = bytearray()
        self._taken = self._events = 0
        self._dropped = 0

    @property
    def is_full(self) -> bool:
        """Whether the invocation has logged all that it may."""
        return self._taken >= INVOCATION_LIMIT_BYTES or self._events >= INVOCATION_LIMIT_EVENTS

    def begin(self) -> None:
        """A new invocation starts: its budget is fresh."""
        self._taken = self._events = self._dropped = 0

    def end(self) -> None:
        """The invocation is over: an unfinished line is an event, and dropped output is told."""
        if self._buffer:
            self._line(bytes(self._buffer))
            self._buffer.clear()
        if self._dropped:
            self._emit(
                clock.now_ms(),
                f"[entrepot] Log output was truncated: {self._dropped} bytes of log output were dropped, because one "
                f"invocation may log {INVOCATION_LIMIT_BYTES} bytes in {INVOCATION_LIMIT_EVENTS} events.\n",
            )
            self._dropped = 0

    def feed(self, data: bytes) -> float:
        """Take what was read from the pipe; return what that costs, for the function's Pace."""
        if self.is_full:
            self._dropped += len(data) + len(self._buffer)
            self._buffer.clear()
            return len(data) / DROPPED_PART
        bytes_before, events_before = self._taken, self._events
        self._feed(data)
        cost = self._taken - bytes_before + (self._events - events_before) * EVENT_COST_BYTES
        return max(len(data) / DROPPED_PART, cost)

    def _feed(self, data: bytes) -> None:
        self._buffer += data
        while self._buffer:
            frame = _MAGIC.search(self._buffer)
            if frame is None:
                self._lines(len(self._buffer))
                return
            if frame.start() > 0:
                self._lines(frame.start(), whole=True)
                continue
            if not self._frame():
                return

    def _lines(self, end: int, *, whole: bool = False) -> None:
        """Emit the lines up to `end`; with `whole` also the last one that has no end of line."""
        last = end if whole else self._buffer.rfind(b"\n", 0, end) + 1
        if not last and end > LINE_LIMIT_BYTES:
            last = LINE_LIMIT_BYTES
        for line in _LINE.findall(self._buffer[:last]):
            self._line(line)
        del self._buffer[:last]

    def _frame(self) -> bool:
        """Emit the frame that begins the buffer; False when it is not complete yet."""
        if len(self._buffer) < _HEADER_BYTES:
            return False
        length = int.from_bytes(self._buffer[4:8], "big")
        if length > INVOCATION_LIMIT_BYTES:  # no frame of awslambdaric: take the bytes as text
            self._line(bytes(self._buffer[:_HEADER_BYTES]))
            del self._buffer[:_HEADER_BYTES]
            return True
        if len(self._buffer) < _HEADER_BYTES + length:
            return False
        timestamp_ms = int.from_bytes(self._buffer[8:16], "big") // 1000
        now_ms = clock.now_ms()
        if not now_ms - 3_600_000 < timestamp_ms <= now_ms:
            timestamp_ms = now_ms
        self._line(bytes(self._buffer[_HEADER_BYTES : _HEADER_BYTES + length]), timestamp_ms)
        del self._buffer[: _HEADER_BYTES + length]
        return True

    def _line(self, line: bytes, timestamp_ms: int | None = None) -> None:
        for start in range(0, len(line), LINE_LIMIT_BYTES):
            part = line[start : start + LINE_LIMIT_BYTES]
            self._taken += len(part)
            self._events += 1
            if self.is_full:
                self._dropped += len(part)
                continue
            self._emit(timestamp_ms or clock.now_ms(), bytes(part).decode(errors="replace"))
