"""The functions that SQLite lacks, as Python functions for a connection.

They never raise: a value that a function cannot use gives NULL, as AWS leaves a field out. Regular expressions are RE2's,
which take time in proportion to the text whatever the expression: no query can hang the server.
"""

import ipaddress
import json
import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, TypeAlias

import apsw

from entrepot.services.logs.insights.patterns import pattern_of, regex_of, severity_of

Value: TypeAlias = str | int | float | None

_NUMBER = re.compile(r"\s*[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?\s*", re.ASCII)
_PLAIN_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?", re.ASCII)
_DECODER = json.JSONDecoder()
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

LAMBDA_REPORT = {
    "duration": r"(?:^|\t)Duration: ([\d.]+) ms",
    "billedDuration": r"Billed Duration: ([\d.]+) ms",
    "initDuration": r"Init Duration: ([\d.]+) ms",
    "memorySize": r"Memory Size: (\d+) MB",
    "maxMemoryUsed": r"Max Memory Used: (\d+) MB",
    "xrayTraceId": r"XRAY TraceId: (\S+)",
}
"""The fields that are discovered in a function's REPORT line. Memory is shown in bytes, as AWS does."""

_REPORT = {name: re.compile(pattern) for name, pattern in LAMBDA_REPORT.items()}
_REQUEST_ID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")


class Regexes:
    """The compiled regular expressions of a query, with the last match of each at hand for its other groups."""

    def __init__(self, compiled: Sequence[Any]) -> None:
        self._compiled = compiled
        self._last: list[tuple[Value, Any]] = [(None, None)] * len(compiled)

    def matches(self, number: int, text: Value) -> int | None:
        """Return whether expression `number` is found in `text`."""
        return None if text is None else self._compiled[number].search(str(text).encode()) is not None

    def group(self, number: int, group: int, text: Value) -> str | None:
        """Return what a group of expression `number` matched in `text`."""
        if text is None:
            return None
        known, match = self._last[number]
        if known != text:
            # RE2 works on UTF-8; encoded once, its positions need no counting of characters.
            match = self._compiled[number].search(str(text).encode())
            self._last[number] = (text, match)
        found: bytes | None = None if match is None else match.group(group)
        return None if found is None else found.decode(errors="replace")


def register(connection: apsw.Connection, regexes: Regexes) -> None:
    """Give `connection` the functions of the language."""
    functions: tuple[tuple[str, Callable[..., Value], int], ...] = (
        ("re_matches", regexes.matches, 2),
        ("re_group", regexes.group, 3),
        ("to_number", to_number, 1),
        ("to_value", to_value, 1),
        ("compare", compare, 2),
        ("power", power, 2),
        ("to_upper", lambda text: None if text is None else text.upper(), 1),
        ("to_lower", lambda text: None if text is None else text.lower(), 1),
        ("is_blank", lambda text: int(text is None or not text.strip()), 1),
        ("is_ip", is_ip, 2),
        ("in_subnet", in_subnet, 3),
        ("json_text", json_text, 1),
        ("json_fragment", json_fragment, 1),
        ("lambda_report", lambda_report, 2),
        ("request_id", request_id, 1),
        ("date_floor", date_floor, 3),
        ("pattern_of", pattern_of, 1),
        ("pattern_regex", regex_of, 1),
        ("pattern_severity", severity_of, 1),
    )
    for name, function, count in functions:
        connection.create_scalar_function(name, function, count, deterministic=True)
    connection.create_aggregate_function("stddev", _made(_Deviation), 1)
    connection.create_aggregate_function("earliest", _made(_Earliest), 2)
    connection.create_aggregate_function("latest", _made(_Latest), 2)


def _made(aggregate: type["_Deviation | _Earliest"]) -> Any:
    """Return the factory of an aggregate as apsw wants it: an object with `step` and `final`."""
    return aggregate


def to_number(value: Value) -> int | float | None:
    """Return `value` as a number where it is one, written out or not."""
    if not isinstance(value, str):
        return value
    if len(value) > 40 or _NUMBER.fullmatch(value) is None:
        return None
    try:
        return int(value)
    except ValueError:
        return float(value)


def to_value(value: Value) -> Value:
    """Return `value` as a number where it is written as numbers are, else as it is: an id such as 007 or 1e5 stays text."""
    if not isinstance(value, str) or len(value) > 40 or _PLAIN_NUMBER.fullmatch(value) is None:
        return value
    return float(value) if "." in value else int(value)


def compare(left: Value, right: Value) -> int | None:
    """Return -1, 0 or 1; two numbers are compared as numbers, everything else as text; NULL with NULL."""
    if left is None or right is None:
        return None
    a, b = to_value(left), to_value(right)
    if isinstance(a, str) or isinstance(b, str):
        a, b = str(left), str(right)
    return (a > b) - (a < b)  # type: ignore[operator]


def power(base: Value, exponent: Value) -> float | None:
    """Return base ^ exponent; NULL where that is no real number."""
    try:
        result = math.pow(base, exponent)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return int(result) if result.is_integer() and abs(result) < 2**53 else result


@lru_cache(4096)
def is_ip(text: Value, version: int) -> int:
    """Return whether `text` is an IP address, of `version` 4 or 6 (0: either)."""
    try:
        address = ipaddress.ip_address(str(text))
    except ValueError:
        return 0
    return int(version in (0, address.version))


@lru_cache(4096)
def in_subnet(text: Value, subnet: Value, version: int) -> int:
    """Return whether the address `text` lies in `subnet` (CIDR)."""
    try:
        address, network = ipaddress.ip_address(str(text)), ipaddress.ip_network(str(subnet), strict=False)
    except ValueError:
        return 0
    return int(address.version == network.version and version in (0, address.version) and address in network)


def json_text(text: Value) -> str | None:
    """Return `text` if it is a JSON map or list."""
    if not isinstance(text, str) or text[:1] not in ("{", "["):
        return None
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return None
    return text


def json_fragment(text: Value) -> str | None:
    """Return the first JSON map inside a line, as AWS discovers it in functions' logs."""
    assert isinstance(text, str)
    start = text.find("{")
    try:
        value, end = _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError):
        return None
    return text[start:end] if isinstance(value, dict) else None


def lambda_report(text: Value, field: str) -> Value:
    """Return a field of a REPORT line."""
    found = _REPORT[field].search(str(text))
    if found is None:
        return None
    if field in ("memorySize", "maxMemoryUsed"):
        return int(found[1]) * 1_000_000
    return found[1] if field == "xrayTraceId" else to_number(found[1])


def request_id(text: Value) -> str | None:
    """Return the id of the request that a function's line belongs to."""
    found = _REQUEST_ID.search(str(text)[:400])
    return None if found is None else found[0]


def date_floor(time_ms: Value, count: Value, unit: str) -> int | None:
    """Return the start of the `count` weeks (from Monday), months, quarters or years around `time_ms` (UTC)."""
    if not isinstance(time_ms, int | float) or not isinstance(count, int) or count < 1:
        return None
    try:
        time = _EPOCH + timedelta(milliseconds=time_ms)
        if unit == "w":
            monday = (time - timedelta(days=time.weekday())).date().toordinal()
            weeks = (monday - 1) // 7 // count * count
            floor = datetime.fromordinal(weeks * 7 + 1).replace(tzinfo=UTC)
        else:
            months = {"mo": 1, "q": 3, "y": 12}[unit] * count
            since = (time.year * 12 + time.month - 1) // months * months
            floor = datetime(since // 12, since % 12 + 1, 1, tzinfo=UTC)
    except (OverflowError, ValueError):
        return None
    return int((floor - _EPOCH) / timedelta(milliseconds=1))


class _Deviation:
    """The standard deviation of a sample, by Welford's method."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = 0.0
        self.squares = 0.0

    def step(self, value: Value) -> None:
        if isinstance(value, int | float):
            self.count += 1
            before = value - self.mean
            self.mean += before / self.count
            self.squares += before * (value - self.mean)

    def final(self) -> float | None:
        return math.sqrt(self.squares / self.count) if self.count else None


class _Earliest:
    """The value of the event with the lowest time."""

    def __init__(self) -> None:
        self.time: float | None = None
        self.value: Value = None

    def step(self, value: Value, time: float) -> None:
        if value is not None and (self.time is None or time < self.time):
            self.time, self.value = time, value

    def final(self) -> Value:
        return self.value


class _Latest(_Earliest):
    """The value of the event with the highest time."""

    def step(self, value: Value, time: float) -> None:
        if value is not None and (self.time is None or time >= self.time):
            self.time, self.value = time, value
