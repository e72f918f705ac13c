"""What every command prints with: tables for people, JSON for programs."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any

import typer

from entrepot import clock
from entrepot.errors import EntrepotError


class Format(StrEnum):
    """How a command prints its result."""

    table = "table"
    json = "json"


FormatOption = Annotated[Format, typer.Option("-o", "--output", help="How to print.")]

STATUS_SIGNS: Mapping[str, tuple[str, str]] = {
    "transferred": ("✓", "green"),
    "SUCCEEDED": ("✓", "green"),
    "failed": ("✗", "red"),
    "FAILED": ("✗", "red"),
    "TIMED_OUT": ("✗", "red"),
    "ABORTED": ("✗", "yellow"),
    "transferring": ("…", "yellow"),
    "RUNNING": ("…", "yellow"),
    "uploaded": ("•", "cyan"),
}


def as_json(value: Any) -> None:
    """Print JSON: stable keys, times as ISO 8601 with Z."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, default=_plain))


def _plain(value: object) -> object:
    match value:
        case datetime():
            return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        case bytes():
            return value.decode("utf-8", "replace")
        case set() | frozenset():
            return sorted(value)
    raise TypeError(f"no JSON form for {type(value).__name__}")


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str) -> None:
    """Print a table that fits the terminal; `empty` when there is no row. Piped, it is not cut."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    body = list(rows)
    if not body:
        typer.echo(empty)
        return
    console = Console() if sys.stdout.isatty() else Console(width=400, no_color=True)
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        shown.add_column(column, overflow="fold", no_wrap=False)
    for row in body:
        shown.add_row(*(Text(printable(cell)) for cell in row))
    console.print(shown)


def printable(text: str) -> str:
    """Return the text with control characters shown as escapes: a file's name must not steer the terminal."""
    return "".join(c if c.isprintable() or c == "\t" else c.encode("unicode_escape").decode() for c in text)


def status(value: str) -> str:
    """Return a status with its sign: never colour alone."""
    sign, _ = STATUS_SIGNS.get(value, ("", ""))
    return f"{sign} {value}".strip()


def size(size_bytes: int) -> str:
    """Return a size for people: `50.0 MiB`."""
    if size_bytes < 1024:
        return f"{size_bytes} B"
    value = float(size_bytes)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        value /= 1024
        if value < 1024 or unit == "TiB":
            return f"{value:.1f} {unit}"
    raise AssertionError


def when(value: object) -> str:
    """Return a time in the operator's own zone, to the second; "" for none."""
    match value:
        case None | "":
            return ""
        case datetime():
            moment = value
        case int() | float():
            moment = datetime.fromtimestamp(value / 1000, UTC)
        case _:
            moment = datetime.fromisoformat(str(value))
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=UTC)
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def since(text: str | None) -> datetime | None:
    """Return the moment that `5m`, `2h`, `7d` or an ISO 8601 time names; raise EntrepotError for anything else."""
    if text is None:
        return None
    if text[:-1].isdigit() and len(text) <= 10 and text[-1:] in _UNITS:
        return clock.now() - timedelta(seconds=int(text[:-1]) * _UNITS[text[-1]])
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise EntrepotError(f"--since {text}: write 30s, 5m, 2h, 7d, or a time such as 2026-11-23T06:00:00Z.") from None
    return moment if moment.tzinfo else moment.astimezone()
