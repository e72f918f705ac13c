"""Templates, and how values are shown: sizes, times, durations, names."""

import json
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from starlette.requests import Request
from starlette.responses import HTMLResponse

from entrepot import clock
from entrepot.console.workflow_states import readable_cause

FOLDER = Path(__file__).parent

GLYPHS = {
    "transferred": "✓",
    "SUCCEEDED": "✓",
    "OK": "✓",
    "failed": "✕",
    "FAILED": "✕",
    "ALARM": "✕",
    "CAUGHT": "!",
    "TIMED_OUT": "◷",
    "ABORTED": "◼",
    "transferring": "▸",
    "RUNNING": "▸",
    "PENDING_REDRIVE": "↻",
    "uploaded": "•",
    "INSUFFICIENT_DATA": "?",
    "ENABLED": "●",
    "DISABLED": "○",
    "arrived": "✓",
    "late": "◷",
    "missing": "✕",
    "too-small": "✕",
    "duplicate": "!",
    "waiting": "…",
    "allowed": "✓",
    "denied": "✕",
}
"""A sign for each status, so that it is never told by colour alone."""

TEXT_CHARS = 20_000
"""An input, output or answer is shown up to so many characters."""

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")


@cache
def environment() -> Environment:
    """Return the templates; everything that comes from outside is escaped."""
    made = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "size": size,
        "when": when,
        "iso": iso,
        "ago": ago,
        "duration": duration,
        "number": number,
        "short": short,
        "path": path,
        "pretty": pretty,
        "arn_name": arn_name,
        "glyph": lambda status: GLYPHS.get(status, "•"),
        "words": words,
        "anchor": anchor,
        "cause": readable_cause,
        "clipped": clipped,
    }
    return made


def page(request: Request, template: str, /, status_code: int = 200, **context: Any) -> HTMLResponse:
    """Return a page. Templates see `request`, the visitor, the CSRF token and the current section."""
    visitor = request.state.visitor
    html = (
        environment()
        .get_template(template)
        .render(
            request=request,
            visitor=visitor,
            csrf_token=visitor.csrf_token if visitor is not None else "",
            notice=_notice(request),
            vendor=request.app.state.vendor,
            stack_name=request.app.state.stack_name,
            now_ms=clock.now_ms(),
            **context,
        )
    )
    return HTMLResponse(html, status_code)


def _notice(request: Request) -> str:
    """Return what the page before says was done; a link from elsewhere says nothing here."""
    own = request.headers.get("sec-fetch-site", "same-origin") == "same-origin"
    return request.query_params.get("notice", "") if own else ""


def size(count: float | None) -> str:
    """Return a number of bytes as people say it."""
    if count is None:
        return "–"
    value = float(count)
    for unit in _UNITS:
        if value < 1024 or unit == _UNITS[-1]:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError


def moment(value: Any) -> datetime | None:
    """Return a time in UTC from what operations give: a datetime, ISO 8601, or milliseconds."""
    if value in (None, ""):
        return None
    if isinstance(value, datetime):
        return value.astimezone(UTC)
    if isinstance(value, int | float):
        return datetime.fromtimestamp(value / 1000, UTC)
    try:
        parsed = datetime.fromisoformat(str(value).replace("Z", "+00:00"))
    except ValueError:
        return None
    return parsed.astimezone(UTC) if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def when(value: Any) -> str:
    """Return a time for a table: 2026-11-23 22:31:07 (UTC)."""
    time = moment(value)
    return "–" if time is None else f"{time:%Y-%m-%d %H:%M:%S}"


def iso(value: Any) -> str:
    """Return a time for a `datetime` attribute."""
    time = moment(value)
    return "" if time is None else time.isoformat(timespec="milliseconds")


def ago(value: Any) -> str:
    """Return how long ago a time was."""
    time = moment(value)
    if time is None:
        return "–"
    return f"{duration(max(0.0, clock.now_ms() - time.timestamp() * 1000))} ago"


def duration(milliseconds: float | None) -> str:
    """Return a length of time as people say it."""
    if milliseconds is None:
        return "–"
    if milliseconds < 1:
        return "0 ms"
    if milliseconds < 1_000:
        return f"{milliseconds:.0f} ms"
    seconds = milliseconds / 1_000
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} min"
    return f"{hours // 24} days"


def number(value: float | None) -> str:
    """Return a number with its thousands apart."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.2f}"


def short(text: str | None, length: int = 12) -> str:
    """Return the beginning of an id."""
    return "–" if not text else text if len(text) <= length else text[:length] + "…"


def path(*parts: str, **query: Any) -> str:
    """Return a link within the console: parts are quoted, empty query values left out."""
    given = {name: value for name, value in query.items() if value not in (None, "")}
    return "/" + "/".join(quote(part, safe="") for part in parts) + (f"?{urlencode(given)}" if given else "")


def pretty(value: Any) -> str:
    """Return JSON for reading: a text that holds JSON is laid out, other text stays as it is."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return str(value)
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def words(status: str) -> str:
    """Return a status for reading: TIMED_OUT is "timed out"."""
    return status.lower().replace("_", " ")


def anchor(name: str) -> str:
    """Return a name as an id within a page, without spaces."""
    return quote(name, safe="").replace("%", "_")


def clipped(text: str) -> str:
    """Return the beginning of a text that is too long for a page, and how much is missing."""
    if len(text) <= TEXT_CHARS:
        return text
    return f"{text[:TEXT_CHARS]}\n… {len(text) - TEXT_CHARS:,} more characters: the API has all of it"


def arn_name(arn: str | None) -> str:
    """Return the last part of an ARN."""
    return "–" if not arn else arn.rsplit(":", 1)[-1]


def with_query(request: Request, **changed: Any) -> str:
    """Return the current page's address with some of its query changed; None or "" takes a value away."""
    query: dict[str, Any] = {**request.query_params, **changed}
    kept = {name: value for name, value in query.items() if value not in (None, "") and name != "notice"}
    address: str = request.url.path
    return address + (f"?{urlencode(kept)}" if kept else "")
