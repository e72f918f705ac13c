"""Topics: their rows, attributes and tags."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from entrepot import clock
from entrepot.database import Reader, Row, Transaction
from entrepot.services.sns import retries
from entrepot.services.sns.errors import InvalidParameter, NotFound, TagLimitExceeded, TopicLimitExceeded

TOPICS_LIMIT = 10_000
"""Topics of an account (AWS: 100,000 standard, 1,000 FIFO)."""

TAGS_LIMIT = 50
DISPLAY_NAME_LIMIT = 100
POLICY_LIMIT_BYTES = 30_720

_NAME = re.compile(r"[A-Za-z0-9_-]{1,256}")
_FIFO_NAME = re.compile(r"[A-Za-z0-9_-]{1,251}\.fifo")
_FIFO_ONLY = ("FifoTopic", "ContentBasedDeduplication", "FifoThroughputScope")


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic's row. `attributes` holds what was set, by AWS's names."""

    topic_name: str
    topic_id: int
    created_at_ms: int
    attributes: Mapping[str, str]
    tags: Mapping[str, str]

    @property
    def is_fifo(self) -> bool:
        """Tell whether messages keep their order and come once."""
        return self.topic_name.endswith(".fifo")

    @property
    def display_name(self) -> str:
        """Return what mail shows as its sender."""
        return self.attributes.get("DisplayName", "")

    @property
    def signature_version(self) -> str:
        """Return 1 (SHA-1) or 2 (SHA-256)."""
        return self.attributes.get("SignatureVersion", "1")


def next_number(tx: Transaction, count: int = 1) -> int:
    """Return a number that was never given out before, greater than all that were; the first of so many."""
    row = tx.one("UPDATE sns_counter SET value = value + ? WHERE name = 'number' RETURNING value", (count,))
    assert row is not None
    last: int = row[0]
    return last - count + 1


def _topic(row: Row) -> Topic:
    return Topic(row[0], row[1], row[2], json.loads(row[3]), json.loads(row[4]))


def find(reader: Reader, topic_name: str) -> Topic | None:
    """Return a topic, or None."""
    row = reader.one(
        "SELECT topic_name, topic_id, created_at_ms, attributes, tags FROM sns_topic WHERE topic_name = ?",
        (topic_name,),
    )
    return None if row is None else _topic(row)


def get(reader: Reader, topic_name: str) -> Topic:
    """Return a topic; raise NotFound."""
    topic = find(reader, topic_name)
    if topic is None:
        raise NotFound("Topic does not exist")
    return topic


def list_names(reader: Reader, after: str, limit: int) -> list[str]:
    """Return names of topics in order."""
    rows = reader.all(
        "SELECT topic_name FROM sns_topic WHERE topic_name > ? ORDER BY topic_name LIMIT ?", (after, limit)
    )
    return [row[0] for row in rows]


def policies(reader: Reader) -> list[tuple[str, str]]:
    """Return (topic name, policy) of all topics that have one of their own."""
    rows = reader.all("SELECT topic_name, attributes FROM sns_topic WHERE attributes LIKE '%\"Policy\":%'")
    found = ((row[0], json.loads(row[1]).get("Policy")) for row in rows)
    return [(name, policy) for name, policy in found if policy]


def create(tx: Transaction, topic_name: str, attributes: Mapping[str, str], tags: Mapping[str, str]) -> Topic:
    """Create a topic, or find the one with this name, these attributes and tags."""
    is_fifo = attributes.get("FifoTopic", "false").lower() == "true"
    if not (_FIFO_NAME if is_fifo else _NAME).fullmatch(topic_name):
        raise InvalidParameter(
            "Invalid parameter: Topic Name" if not is_fifo
            else "Invalid parameter: Fifo Topic names must end with .fifo and must be made up of only uppercase and "
                 "lowercase ASCII letters, numbers, underscores, and hyphens, and must be between 1 and 256 characters long."
        )  # fmt: skip
    for name, value in attributes.items():
        check_attribute(name, value, is_fifo=is_fifo, at_creation=True)
    check_tags(tags)
    found = find(tx, topic_name)
    if found is not None:
        if any(found.attributes.get(name) != value for name, value in attributes.items()):
            raise InvalidParameter(
                "Invalid parameter: Attributes Reason: Topic already exists with different attributes"
            )
        if tags and dict(tags) != dict(found.tags):
            raise InvalidParameter("Invalid parameter: Tags Reason: Topic already exists with different tags")
        return found
    count = tx.one("SELECT COUNT(*) FROM sns_topic")
    if count is not None and count[0] >= TOPICS_LIMIT:
        raise TopicLimitExceeded(f"The account has {TOPICS_LIMIT} topics, which is the limit.")
    topic = Topic(topic_name, next_number(tx), clock.now_ms(), dict(attributes), dict(tags))
    tx.execute(
        "INSERT INTO sns_topic (topic_name, topic_id, created_at_ms, attributes, tags) VALUES (?, ?, ?, ?, ?)",
        (topic_name, topic.topic_id, topic.created_at_ms, _json(attributes), _json(tags)),
    )
    return topic


def set_attribute(tx: Transaction, topic: Topic, name: str, value: str) -> Topic:
    """Set one attribute; an empty value removes it."""
    check_attribute(name, value, is_fifo=topic.is_fifo, at_creation=False)
    kept = {key: old for key, old in topic.attributes.items() if key != name}
    if value:
        kept[name] = value
    tx.execute("UPDATE sns_topic SET attributes = ? WHERE topic_id = ?", (_json(kept), topic.topic_id))
    return Topic(topic.topic_name, topic.topic_id, topic.created_at_ms, kept, topic.tags)


def set_tags(tx: Transaction, topic: Topic, tags: Mapping[str, str]) -> None:
    """Replace the tags of a topic."""
    check_tags(tags)
    tx.execute("UPDATE sns_topic SET tags = ? WHERE topic_id = ?", (_json(tags), topic.topic_id))


def delete(tx: Transaction, topic: Topic) -> None:
    """Delete a topic with its subscriptions; deliveries that wait find nobody any more and are swept away."""
    tx.execute("DELETE FROM sns_topic WHERE topic_id = ?", (topic.topic_id,))
    tx.execute("DELETE FROM sns_subscription WHERE topic_id = ?", (topic.topic_id,))


def check_attribute(name: str, value: str, *, is_fifo: bool, at_creation: bool) -> None:
    """Raise InvalidParameter unless a topic may have this attribute with this value. The policy is checked elsewhere."""
    problem = None
    match name:
        case "DisplayName":
            if len(value) > DISPLAY_NAME_LIMIT or not value.isprintable():
                problem = f"DisplayName must be at most {DISPLAY_NAME_LIMIT} printable characters long"
        case "DeliveryPolicy":
            if value:
                retries.topic_policy(value)
        case "Policy":
            if len(value.encode("utf-8", "surrogatepass")) > POLICY_LIMIT_BYTES:
                problem = "Policy is too large"
        case "SignatureVersion":
            if value not in ("1", "2"):
                problem = "SignatureVersion must be 1 or 2"
        case "FifoTopic":
            if not at_creation or value.lower() not in ("true", "false"):
                problem = "FifoTopic is true or false and cannot be changed"
        case "ContentBasedDeduplication":
            if value.lower() not in ("true", "false"):
                problem = "ContentBasedDeduplication is true or false"
        case "FifoThroughputScope":
            if value not in ("Topic", "MessageGroup"):
                problem = "FifoThroughputScope is Topic or MessageGroup"
        case _:
            problem = f"the attribute {name[:100]} is not supported here"
    if problem is None and name in _FIFO_ONLY and not is_fifo and value.lower() != "false":
        problem = f"{name} is for FIFO topics only"
    if problem is not None:
        raise InvalidParameter(f"Invalid parameter: AttributeName Reason: {problem}")


def check_tags(tags: Mapping[str, str]) -> None:
    """Raise unless the tags may be a topic's."""
    if len(tags) > TAGS_LIMIT:
        raise TagLimitExceeded("Could not complete request: tag quota of per resource exceeded")
    for key, value in tags.items():
        if not 0 < len(key) <= 128 or len(value) > 256 or key.lower().startswith("aws:"):
            raise InvalidParameter(f"Invalid parameter: Tags Reason: the tag {key[:128]!r} is not valid")


def _json(value: Mapping[str, str]) -> str:
    return json.dumps(dict(value), separators=(",", ":"))
