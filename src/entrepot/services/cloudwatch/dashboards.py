"""Dashboards: a body of widgets under a name.

Source: https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/CloudWatch-Dashboard-Body-Structure.html
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from entrepot.database import Reader, Transaction
from entrepot.services.cloudwatch.errors import DashboardInvalidInputError

BODY_LIMIT_BYTES = 1 << 20
"""A body is at most this long."""

WIDGETS_LIMIT = 500
"""A dashboard has at most this many widgets. AWS's limit."""

TYPES = frozenset(("metric", "text", "log", "alarm", "explorer", "custom"))
"""The types of widgets that AWS knows."""

_NAME = re.compile(r"[A-Za-z0-9_-]{1,255}")


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A dashboard as it was put."""

    name: str
    body: str
    changed_at_ms: int


def check(name: str, body: str) -> list[tuple[str, str]]:
    """Return warnings as (path, message); DashboardInvalidInputError when the body cannot be a dashboard."""
    if not _NAME.fullmatch(name):
        raise _invalid("", f"The dashboard name {name[:300]!r} must have letters, digits, - and _ only, at most 255.")
    if len(body.encode()) > BODY_LIMIT_BYTES:
        raise _invalid("", f"The body is longer than {BODY_LIMIT_BYTES} bytes.")
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _invalid("", f"The field DashboardBody must be a valid JSON object: {error}") from None
    if not isinstance(parsed, dict) or not isinstance(parsed.get("widgets"), list):
        raise _invalid("/widgets", "Should have property widgets, an array.")
    if len(parsed["widgets"]) > WIDGETS_LIMIT:
        raise _invalid("/widgets", f"Should have at most {WIDGETS_LIMIT} widgets.")
    warnings: list[tuple[str, str]] = []
    for index, widget in enumerate(parsed["widgets"]):
        path = f"/widgets/{index}"
        if not isinstance(widget, dict) or widget.get("type") not in TYPES:
            raise _invalid(f"{path}/type", f"Should be one of {', '.join(sorted(TYPES))}.")
        if not isinstance(widget.get("properties"), dict):
            raise _invalid(f"{path}/properties", "Should have properties, an object.")
        warnings += [(f"{path}/{key}", "Should be a whole number.") for key in "xy" if not _whole(widget.get(key, 0))]
        for key, most in (("width", 24), ("height", 1_000)):
            if not _whole(widget.get(key, 1)) or not 1 <= widget.get(key, 1) <= most:
                raise _invalid(f"{path}/{key}", f"Should be a whole number from 1 to {most}.")
    return warnings


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _invalid(path: str, message: str) -> DashboardInvalidInputError:
    problem: Mapping[str, str] = {"DataPath": path, "Message": message}
    return DashboardInvalidInputError(
        f"The dashboard body is invalid: {path} {message}".replace("  ", " "), dashboardValidationMessages=[problem]
    )


def put(tx: Transaction, dashboard: Dashboard) -> None:
    """Write a dashboard, new or changed."""
    tx.execute(
        "INSERT INTO cloudwatch_dashboard (name, body, changed_at_ms) VALUES (?, ?, ?) "
        "ON CONFLICT (name) DO UPDATE SET body = excluded.body, changed_at_ms = excluded.changed_at_ms",
        (dashboard.name, dashboard.body, dashboard.changed_at_ms),
    )


def find(reader: Reader, name: str) -> Dashboard | None:
    """Return a dashboard."""
    row = reader.one("SELECT name, body, changed_at_ms FROM cloudwatch_dashboard WHERE name = ?", (name,))
    return None if row is None else Dashboard(*row)


def page(reader: Reader, prefix: str, after: str, limit: int) -> list[Dashboard]:
    """Return dashboards by name."""
    rows = reader.all(
        "SELECT name, body, changed_at_ms FROM cloudwatch_dashboard "
        "WHERE name > ? AND substr(name, 1, ?) = ? ORDER BY name LIMIT ?",
        (after, len(prefix), prefix, limit),
    )
    return [Dashboard(*row) for row in rows]


def delete(tx: Transaction, name: str) -> bool:
    """Delete a dashboard; False when there is none."""
    return bool(tx.execute("DELETE FROM cloudwatch_dashboard WHERE name = ?", (name,)))
