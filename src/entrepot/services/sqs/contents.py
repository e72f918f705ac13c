"""What a message holds: limits, allowed characters, and the MD5 digests that SDKs compare.

Source: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-message-metadata.html
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from entrepot.services.sqs.errors import InvalidMessageContents, InvalidParameterValue

ATTRIBUTES_LIMIT = 10
"""Attributes of one message."""

_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NAME = re.compile(r"(?!\.)(?!.*\.\.)[A-Za-z0-9_.-]{1,256}(?<!\.)")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def check_body(body: str) -> None:
    """Raise InvalidMessageContents or InvalidParameterValue for a body that AWS does not take."""
    if not body:
        raise InvalidParameterValue("The request must contain the parameter MessageBody.")
    if _FORBIDDEN.search(body):
        raise InvalidMessageContents("Invalid characters found. Valid unicode characters are #x9 | #xA | #xD | "
                                     "#x20 to #xD7FF | #xE000 to #xFFFD | #x10000 to #x10FFFF")  # fmt: skip


def check_attributes(attributes: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise InvalidParameterValue for message attributes that AWS does not take."""
    if len(attributes) > ATTRIBUTES_LIMIT:
        raise InvalidParameterValue(
            f"Number of message attributes [{len(attributes)}] exceeds the allowed maximum [10]."
        )
    for name, attribute in attributes.items():
        if not _NAME.fullmatch(name) or name.lower().startswith(("aws.", "amazon.")):
            raise InvalidParameterValue(
                f"The message attribute name '{name[:256]}' is invalid. Attribute name can contain A-Z, a-z, 0-9, "
                "underscore (_), hyphen (-), and period (.) characters."
            )
        _check_attribute(name, attribute)


def _check_attribute(name: str, attribute: Mapping[str, Any]) -> None:
    data_type = attribute.get("DataType") or ""
    kind = data_type.partition(".")[0]
    if kind not in ("String", "Number", "Binary") or len(data_type) > 256:
        raise InvalidParameterValue(
            f"The message attribute '{name}' has an invalid message attribute type, the set of supported type prefixes "
            "is Binary, Number, and String."
        )
    if attribute.get("StringListValues") or attribute.get("BinaryListValues"):
        raise InvalidParameterValue("Message attribute list values in SendMessage operation are not supported.")
    value = attribute.get("BinaryValue" if kind == "Binary" else "StringValue")
    if not value:
        raise InvalidParameterValue(
            f"The message attribute '{name}' must contain non-empty message attribute value for message attribute type "
            f"'{kind}'."
        )
    if kind != "Binary" and _FORBIDDEN.search(value):
        raise InvalidMessageContents(f"The message attribute '{name}' has characters that are not allowed.")
    if kind == "Number" and not _NUMBER.fullmatch(value):
        raise InvalidParameterValue(f"Can't cast the value of message attribute '{name}' to a number.")


def size_bytes(body: str, attributes: Mapping[str, Mapping[str, Any]]) -> int:
    """Return what counts towards the limit: the body, and name, type and value of each attribute."""
    size = len(body.encode())
    for name, attribute in attributes.items():
        size += len(name.encode()) + len(attribute["DataType"].encode()) + len(_value(attribute))
    return size


def md5_of_body(body: str) -> str:
    """Return the MD5 of a body, in hex."""
    return hashlib.md5(body.encode(), usedforsecurity=False).hexdigest()


def md5_of_attributes(attributes: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the MD5 of message attributes, in hex, as AWS computes it."""
    digest = hashlib.md5(usedforsecurity=False)
    for name in sorted(attributes):
        attribute = attributes[name]
        for part in (name.encode(), attribute["DataType"].encode()):
            digest.update(len(part).to_bytes(4, "big") + part)
        value = _value(attribute)
        digest.update(b"\x02" if attribute["DataType"].startswith("Binary") else b"\x01")
        digest.update(len(value).to_bytes(4, "big") + value)
    return digest.hexdigest()


def _value(attribute: Mapping[str, Any]) -> bytes:
    if attribute["DataType"].startswith("Binary"):
        return bytes(attribute["BinaryValue"])
    return str(attribute["StringValue"]).encode()
