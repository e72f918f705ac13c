"""What every command prints with: tables for people, JSON for programs."""

import json
import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import zip_longest
from typing import Annotated, Any

import typer

from entrepot import clock
from entrepot.errors import EntrepotError
from entrepot.loglines import printable


class Format(StrEnum):
    """How a command prints its result."""

    table = "table"
    json = "json"


FormatOption = Annotated[Format, typer.Option("-o", "--output", help="How to print.")]

NARROWEST = 8
"""No column of a table becomes narrower."""

TITLE_COLUMNS = 44
INDENT = " " * 16
"""A timeline's details begin after the title, or below it where they are long."""

STATUS_SIGNS: Mapping[str, str] = {
    "transferred": "✓",
    "SUCCEEDED": "✓",
    "failed": "✗",
    "FAILED": "✗",
    "TIMED_OUT": "✗",
    "ABORTED": "✗",
    "transferring": "…",
    "RUNNING": "…",
    "uploaded": "•",
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


PAGE_COLUMNS = 100
"""How wide prose and timelines are where there is no terminal to ask."""


def width() -> int:
    """Return how many columns a timeline may take."""
    return max(60, shutil.get_terminal_size((PAGE_COLUMNS, 24)).columns) if sys.stdout.isatty() else PAGE_COLUMNS


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str) -> None:
    """Print a table that fits the terminal; `empty` when there is no row.

    Piped, it is one line a row, whatever its length, without padding at its end.
    """
    from rich.cells import cell_len, chop_cells, set_cell_size

    body = [[printable(cell) for cell in row] for row in rows]
    if not body:
        typer.echo(empty)
        return
    table_ = [list(columns), *body]
    widths = [max(cell_len(row[place]) for row in table_) for place in range(len(columns))]
    if sys.stdout.isatty():
        _fit(widths, width())
    for number, row in enumerate(table_):
        pieces = [chop_cells(cell, size) or [""] for cell, size in zip(row, widths, strict=True)]
        for line in zip_longest(*pieces, fillvalue=""):
            cells = (set_cell_size(piece, size) for piece, size in zip(line, widths, strict=True))
            text = "  ".join(cells).rstrip()
            typer.echo(typer.style(text, bold=True) if number == 0 else text)


def _fit(widths: list[int], available: int) -> None:
    """Make the widest columns narrower until all fit side by side."""
    available -= 2 * (len(widths) - 1)
    while sum(widths) > available and max(widths) > NARROWEST:
        widths[widths.index(max(widths))] -= 1


def timeline(entries: Iterable[tuple[datetime, str, str]]) -> None:
    """Print (time, what, detail): the detail beside it, or wrapped below when it is long. A new day has a line of its own."""
    columns, day = width(), ""
    for moment, title, detail in entries:
        local = moment.astimezone()
        if (today := local.strftime("%Y-%m-%d %Z")) != day:
            typer.echo(today)
            day = today
        head = f"  {local.strftime('%H:%M:%S')}.{local.microsecond // 1000:03d}  {printable(title)}"
        told = " ".join(printable(detail.replace("\n", " ").replace("\t", "  ")).split(" "))
        if told and len(head) <= TITLE_COLUMNS and TITLE_COLUMNS + 2 + len(told) <= columns:
            typer.echo(f"{head:<{TITLE_COLUMNS}}  {told}")
            continue
        typer.echo(head.rstrip())
        for line in textwrap.wrap(told, columns - len(INDENT), break_on_hyphens=False):
            typer.echo(INDENT + line)


def status(value: str) -> str:
    """Return a status with its sign."""
    return f"{STATUS_SIGNS.get(value, '')} {value}".strip()


def short(text: str, limit: int) -> str:
    """Return at most `limit` characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


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


def when_ms(value_ms: int) -> str:
    """Return a time in milliseconds in the operator's own zone, to the millisecond."""
    return f"{when(value_ms)}.{value_ms % 1000:03d}"


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
