"""Saved queries and what is known of a group's fields."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from entrepot.services.logs.insights.scalars import json_fragment

SAVED_LIMIT = 1_000
"""Saved queries, at most. AWS's limit."""

FIELDS_LIMIT = 1_000
"""Fields that are discovered in an event, at most. AWS's limit."""

SAMPLE_EVENTS = 1_000
"""GetLogGroupFields looks at so many of the newest events."""

DEPTH_LIMIT = 20
"""Maps and lists deeper than this are not looked into."""


@dataclass(frozen=True, slots=True)
class QueryDefinition:
    """A query that somebody saved under a name."""

    definition_id: str
    name: str
    query_string: str
    log_groups: tuple[str, ...]
    changed_at_ms: int


def discovered(message: str) -> dict[str, str]:
    """Return the fields inside a line's JSON by dotted names, with their values as text."""
    text = message if message[:1] == "{" else json_fragment(message) if "{" in message else None
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    found: dict[str, str] = {}
    for name, leaf in _leaves(value, "", 0):
        if len(found) >= FIELDS_LIMIT:
            break
        found[name] = leaf if isinstance(leaf, str) else json.dumps(leaf)
    return found


def percentages(messages: Iterable[str]) -> list[tuple[str, int]]:
    """Return the fields of these lines with the share of lines that have them, in percent, most frequent first."""
    counts: Counter[str] = Counter()
    total = 0
    for message in messages:
        total += 1
        counts.update(("@message", "@timestamp", "@logStream", "@log", "@ingestionTime", *discovered(message)))
    return [(name, round(100 * count / total)) for name, count in counts.most_common(FIELDS_LIMIT)]


def _leaves(value: Any, prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
    if depth < DEPTH_LIMIT and isinstance(value, dict | list) and value:
        members = value.items() if isinstance(value, dict) else enumerate(value)
        for key, member in members:
            yield from _leaves(member, f"{prefix}.{key}" if prefix else str(key), depth + 1)
    elif prefix:
        yield prefix, value
