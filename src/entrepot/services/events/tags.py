"""Tags of rules and buses. Source: https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_TagResource.html"""

from collections.abc import Iterable, Mapping

from entrepot.database import Reader, Transaction
from entrepot.services.events.errors import ValidationError

TAGS_LIMIT = 50
"""Tags of one resource."""


def tags_of(reader: Reader, resource_arn: str) -> dict[str, str]:
    """Return the tags of a resource, by key."""
    rows = reader.all("SELECT key, value FROM events_tag WHERE resource_arn = ? ORDER BY key", (resource_arn,))
    return {str(key): str(value) for key, value in rows}


def put(tx: Transaction, resource_arn: str, tags: Mapping[str, str]) -> None:
    """Add tags, or change them; raise ValidationError."""
    if len({**tags_of(tx, resource_arn), **tags}) > TAGS_LIMIT:
        raise ValidationError(f"{resource_arn} would have more than {TAGS_LIMIT} tags.")
    for key, value in tags.items():
        if not 1 <= len(key) <= 128 or len(value) > 256 or key.lower().startswith("aws:"):
            raise ValidationError(f"The tag {key[:128]!r} is not valid.")
        tx.execute(
            "INSERT INTO events_tag (resource_arn, key, value) VALUES (?, ?, ?) "
            "ON CONFLICT (resource_arn, key) DO UPDATE SET value = excluded.value",
            (resource_arn, key, value),
        )


def remove(tx: Transaction, resource_arn: str, keys: Iterable[str]) -> None:
    """Remove tags by their keys."""
    for key in keys:
        tx.execute("DELETE FROM events_tag WHERE resource_arn = ? AND key = ?", (resource_arn, key))


def forget(tx: Transaction, resource_arn: str) -> None:
    """Drop the tags of a resource that is deleted."""
    tx.execute("DELETE FROM events_tag WHERE resource_arn = ?", (resource_arn,))
