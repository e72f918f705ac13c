"""A published message: taken from a request and checked; kept in the ledger; read back.

Source: https://docs.aws.amazon.com/sns/latest/api/API_Publish.html
"""

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from entrepot import clock, ids
from entrepot.services.sns.errors import InvalidParameter, ParameterValueInvalid

MESSAGE_LIMIT_BYTES = 262_144
"""A message with its attributes (AWS: 256 KB)."""

SUBJECT_LIMIT = 100
ATTRIBUTES_LIMIT = 100
ATTRIBUTE_NAME_LIMIT = 256

_ATTRIBUTE_NAME = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_FIFO_ID = re.compile(r"[!-~]{1,128}")


@dataclass(frozen=True, slots=True)
class Message:
    """A message. `texts` has one text per protocol where the publisher gave several; `text` is the default.

    `attributes` are in AWS's shape: name → DataType with StringValue or BinaryValue.
    """

    uuid: str
    published_at_ms: int
    text: str
    texts: Mapping[str, str] = field(default_factory=dict)
    subject: str | None = None
    attributes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    group_id: str | None = None
    deduplication_id: str | None = None
    sequence: int | None = None

    def text_for(self, protocol: str) -> str:
        """Return what a protocol gets."""
        return self.texts.get(protocol, self.text)

    def numbered(self, sequence: int) -> "Message":
        """Return the message with its place in a FIFO topic."""
        return replace(self, sequence=sequence)

    def to_json(self) -> str:
        """Return the message as it lies in the ledger."""
        attributes = {
            name: [one["DataType"], one["StringValue"]]
            if "StringValue" in one
            else [one["DataType"], None, base64.b64encode(one["BinaryValue"]).decode()]
            for name, one in self.attributes.items()
        }
        kept: dict[str, Any] = {"id": self.uuid, "at": self.published_at_ms, "text": self.text}
        optional = {"texts": dict(self.texts), "subject": self.subject, "attributes": attributes}
        kept |= {name: value for name, value in optional.items() if value}
        return json.dumps(kept, ensure_ascii=False, separators=(",", ":"))


def from_json(text: str) -> Message:
    """Return the message that `to_json` wrote."""
    kept = json.loads(text)
    attributes = {
        name: {"DataType": one[0], "StringValue": one[1]}
        if one[1] is not None
        else {"DataType": one[0], "BinaryValue": base64.b64decode(one[2])}
        for name, one in kept.get("attributes", {}).items()
    }
    return Message(kept["id"], kept["at"], kept["text"], kept.get("texts", {}), kept.get("subject"), attributes)


def message_of(request: Mapping[str, Any], *, is_fifo: bool, by_content: bool) -> Message:
    """Return the message of a Publish, or of an entry of a PublishBatch. Raise InvalidParameter.

    `by_content`: a FIFO topic's ContentBasedDeduplication.
    """
    text = request.get("Message") or ""
    if not text:
        raise InvalidParameter("Invalid parameter: Empty message")
    if size_bytes(request) > MESSAGE_LIMIT_BYTES:
        raise InvalidParameter("Invalid parameter: Message too long")
    subject = request.get("Subject")
    if subject is not None:
        _check_subject(subject)
    texts: dict[str, str] = {}
    structure = request.get("MessageStructure")
    if structure is not None:
        if structure != "json":
            raise InvalidParameter(f"Invalid parameter: Invalid parameter: MessageStructure [{structure[:100]}]")
        text, texts = _texts(text)
    for one in (text, *texts.values()):
        if not _is_unicode(one):
            raise InvalidParameter("Invalid parameter: Message Reason: it is not valid Unicode")
    attributes = request.get("MessageAttributes") or {}
    if len(attributes) > ATTRIBUTES_LIMIT:
        raise InvalidParameter(f"Invalid parameter: MessageAttributes: more than {ATTRIBUTES_LIMIT} attributes")
    for name, attribute in attributes.items():
        _check_attribute(name, attribute)
    message = Message(ids.random_uuid(), clock.now_ms(), text, texts, subject, attributes)
    return _with_order(message, request, is_fifo=is_fifo, by_content=by_content)


def size_bytes(request: Mapping[str, Any]) -> int:
    """Return what counts of a message against the limit: its text and its attributes."""
    size = len((request.get("Message") or "").encode("utf-8", "surrogatepass"))
    for name, attribute in (request.get("MessageAttributes") or {}).items():
        text = attribute.get("StringValue") or ""
        size += len(name.encode()) + len(attribute.get("DataType") or "") + len(text.encode("utf-8", "surrogatepass"))
        size += len(attribute.get("BinaryValue") or b"")
    return size


def _is_unicode(text: str) -> bool:
    """Tell whether a text has no lone surrogates, which JSON can spell and no encoding can."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _with_order(message: Message, request: Mapping[str, Any], *, is_fifo: bool, by_content: bool) -> Message:
    group_id, deduplication_id = request.get("MessageGroupId"), request.get("MessageDeduplicationId")
    if not is_fifo:
        if deduplication_id is not None:
            raise InvalidParameter("Invalid parameter: MessageDeduplicationId Reason: The request includes "
                                   "MessageDeduplicationId parameter that is not valid for this topic type")  # fmt: skip
        if group_id is not None and not _FIFO_ID.fullmatch(group_id):
            raise InvalidParameter("Invalid parameter: MessageGroupId")
        return message
    if not group_id:
        raise InvalidParameter("Invalid parameter: The MessageGroupId parameter is required for FIFO topics")
    if deduplication_id is None and by_content:
        deduplication_id = ids.derived(message.text)
    if not deduplication_id:
        raise InvalidParameter("Invalid parameter: The topic should either have ContentBasedDeduplication enabled or "
                               "MessageDeduplicationId provided explicitly")  # fmt: skip
    for name, value in (("MessageGroupId", group_id), ("MessageDeduplicationId", deduplication_id)):
        if not _FIFO_ID.fullmatch(value):
            raise InvalidParameter(f"Invalid parameter: {name} Reason: {name} can only include alphanumeric and "
                                   "punctuation characters. 1 to 128 in length.")  # fmt: skip
    return replace(message, group_id=group_id, deduplication_id=deduplication_id)


def _check_subject(subject: str) -> None:
    if not 0 < len(subject) < SUBJECT_LIMIT or not subject.isprintable() or subject[0].isspace():
        raise InvalidParameter("Invalid parameter: Subject")


def _texts(text: str) -> tuple[str, dict[str, str]]:
    """Return (default, text per protocol) of a message with the structure json."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidParameter("Invalid parameter: Message Structure - JSON message body failed to parse") from None
    if not isinstance(document, dict) or not isinstance(document.get("default"), str):
        raise InvalidParameter("Invalid parameter: Message Structure - No default entry in JSON message body")
    return document.pop("default"), {name: one for name, one in document.items() if isinstance(one, str)}


def _check_attribute(name: str, attribute: Mapping[str, Any]) -> None:
    if len(name) > ATTRIBUTE_NAME_LIMIT or not _ATTRIBUTE_NAME.fullmatch(name):
        raise ParameterValueInvalid(f"The message attribute name '{name[:256]}' is invalid. It has letters, digits, "
                                    "hyphens, underscores and single periods inside, at most 256.")  # fmt: skip
    if name.lower().startswith(("aws.", "amazon.")):
        raise ParameterValueInvalid(f"The message attribute name '{name}' is reserved.")
    kind = attribute.get("DataType") or ""
    text, binary = attribute.get("StringValue"), attribute.get("BinaryValue")
    base = kind.partition(".")[0]
    if base not in ("String", "Number", "Binary") or len(kind) > 256:
        raise ParameterValueInvalid(f"The message attribute '{name}' has an invalid message attribute type, the set of "
                                    "supported type prefixes is Binary, Number, and String.")  # fmt: skip
    if text is not None and not _is_unicode(text):
        raise ParameterValueInvalid(f"The message attribute '{name}' is not valid Unicode.")
    if not (binary if base == "Binary" else text):
        raise ParameterValueInvalid(f"The message attribute '{name}' must contain non-empty message attribute value "
                                    f"for message attribute type '{kind}'.")  # fmt: skip
    if base == "Number" and not _NUMBER.fullmatch(str(text)):
        raise ParameterValueInvalid(f"Could not cast message attribute '{name}' value to number.")
