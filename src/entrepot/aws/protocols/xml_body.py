"""XML bodies by shape, for rest-xml requests and for rest-xml and Query responses.

Document types and entities are refused before a parser sees them; the number of elements is bounded.
"""

import base64
import binascii
import logging
import re
from collections.abc import Callable
from typing import Any, TypeAlias
from xml.etree import ElementTree

from botocore.model import Shape

from entrepot.aws import timestamps
from entrepot.aws.errors import MalformedXmlError, SerializationError

Read: TypeAlias = Callable[[ElementTree.Element], Any]
Write: TypeAlias = Callable[[list[str], str, Any], None]

MAX_ELEMENTS = 200_000
"""How many tags an XML body may have (CompleteMultipartUpload with 10,000 parts has about 80,000)."""

_XSI = "http://www.w3.org/2001/XMLSchema-instance"
_SPECIAL = re.compile('[&<>"\r\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x85\u2028\ufffe\uffff]')
_log = logging.getLogger(__name__)


def parse(body: bytes) -> ElementTree.Element:
    """Return the root element; raise MalformedXmlError for anything but a plain, bounded UTF-8 document."""
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise MalformedXmlError("it is not UTF-8") from None
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise MalformedXmlError("document type declarations are not allowed")
    if text.count("<") > MAX_ELEMENTS:
        raise MalformedXmlError("it has too many elements")
    try:
        return ElementTree.fromstring(text)  # noqa: S314  no document type gets here, hence no entities
    except (ElementTree.ParseError, ValueError):
        raise MalformedXmlError from None


def escape(text: str) -> str:
    """Return text for an element or attribute; characters that XML lacks become references, as S3 sends them."""
    return _SPECIAL.sub(_reference, text) if _SPECIAL.search(text) else text


def _reference(match: re.Match[str]) -> str:
    character = match.group()
    named = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"}.get(character)
    return named or f"&#x{ord(character):x};"


def local_name(tag: str) -> str:
    """Return a tag without its namespace."""
    return tag.rpartition("}")[2]


class XmlReaders:
    """Readers of one service's shapes."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, str], Read] = {}

    def reader(self, shape: Shape) -> Read:
        """Return the function that turns an element into the shape's Python value."""
        key = (shape.name, str(sorted(shape.serialization.items(), key=str)))
        made = self._made.get(key)
        if made is None:
            made = self._made[key] = self._make(shape)
        return made

    def _make(self, shape: Any) -> Read:
        match shape.type_name:
            case "structure":
                return self._structure(shape)
            case "list":
                return self._list(shape)
            case "map":
                return self._map(shape)
            case _:
                return _scalar_reader(shape)

    def _structure(self, shape: Any) -> Read:
        members: dict[str, tuple[str, Any, Read]] = {}
        attributes: dict[str, str] = {}

        def prepare() -> None:
            for name, member in shape.members.items():
                wire_name = member.serialization.get("name", name)
                if member.serialization.get("xmlAttribute"):
                    attributes[wire_name.replace("xsi:", f"{{{_XSI}}}")] = name
                elif "location" not in member.serialization:
                    flat = bool(member.serialization.get("flattened"))
                    members[wire_name] = (name, flat and member.type_name, self._item_reader(member, flat))

        def read(element: ElementTree.Element) -> dict[str, Any]:
            if not members and not attributes:
                prepare()
            result: dict[str, Any] = {}
            for attribute, name in attributes.items():
                if attribute in element.attrib:
                    result[name] = element.attrib[attribute]
            for child in element:
                known = members.get(local_name(child.tag))
                if known is None:
                    continue
                name, flat, convert = known
                if flat == "list":
                    result.setdefault(name, []).append(convert(child))
                elif flat == "map":
                    result.setdefault(name, {}).update([convert(child)])
                else:
                    result[name] = convert(child)
            return result

        return read

    def _item_reader(self, member: Any, flat: bool) -> Read:
        if flat and member.type_name == "list":
            return self.reader(member.member)
        if flat and member.type_name == "map":
            return self._entry(member)
        return self.reader(member)

    def _list(self, shape: Any) -> Read:
        convert: Read | None = None

        def read(element: ElementTree.Element) -> list[Any]:
            nonlocal convert
            if convert is None:
                convert = self.reader(shape.member)
            return [convert(child) for child in element]

        return read

    def _map(self, shape: Any) -> Read:
        entry = self._entry(shape)
        return lambda element: dict(entry(child) for child in element)

    def _entry(self, shape: Any) -> Read:
        key_name = shape.key.serialization.get("name", "key")
        value_name = shape.value.serialization.get("name", "value")

        def read(element: ElementTree.Element) -> tuple[str, Any]:
            parts = {local_name(child.tag): child for child in element}
            if key_name not in parts or value_name not in parts:
                raise MalformedXmlError("a map entry lacks its key or value")
            return parts[key_name].text or "", self.reader(shape.value)(parts[value_name])

        return read


def _scalar_reader(shape: Any) -> Read:
    from_text = scalar_from_text(shape)

    def read(element: ElementTree.Element) -> Any:
        if len(element):
            raise MalformedXmlError(f"{local_name(element.tag)} must be text")
        try:
            return from_text(element.text or "")
        except SerializationError as error:
            raise MalformedXmlError(f"{local_name(element.tag)}: {error.message}") from None

    return read


def scalar_from_text(shape: Any) -> Callable[[str], Any]:
    """Return the function that reads a scalar shape from text (element, header, query, form field)."""
    match shape.type_name:
        case "integer" | "long" | "short" | "byte":
            return _integer
        case "float" | "double":
            return _float
        case "boolean":
            return _boolean
        case "timestamp":
            return timestamps.parse
        case "blob":
            return _blob
        case _:
            return str


def _integer(text: str) -> int:
    digits = text.strip().removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 19):
        raise SerializationError(f"{text[:64]!r} is not an integer")
    return int(text)


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise SerializationError(f"{text[:64]!r} is not a number") from None


def _boolean(text: str) -> bool:
    lowered = text.strip().lower()
    if lowered not in ("true", "false"):
        raise SerializationError(f"{text[:64]!r} is not a boolean")
    return lowered == "true"


def _blob(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise SerializationError("The blob is not base64.") from None


class XmlWriters:
    """Writers of one service's shapes."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, str], Write] = {}

    def writer(self, shape: Shape) -> Write:
        """Return the function that appends a value as an element of a given name to a list of strings."""
        key = (shape.name, str(sorted(shape.serialization.items(), key=str)))
        made = self._made.get(key)
        if made is None:
            made = self._made[key] = self._make(shape)
        return made

    def members(self, shape: Any) -> Callable[[list[str], Any], None]:
        """Return the function that appends a structure's members without an element around them."""
        known: dict[str, tuple[str, Write]] = {}

        def write(out: list[str], value: Any) -> None:
            if not known:
                for name, member in shape.members.items():
                    if not member.serialization.get("xmlAttribute") and "location" not in member.serialization:
                        known[name] = (_element_name(name, member), self.writer(member))
            for name, (wire_name, write_member) in known.items():
                item = value.get(name)
                if item is not None:
                    write_member(out, wire_name, item)
            for name in value.keys() - shape.members.keys():
                _log.warning("%s has no member %r; it was left out of the response", shape.name, name)

        return write

    def _make(self, shape: Any) -> Write:
        match shape.type_name:
            case "structure":
                return self._structure(shape)
            case "list":
                return self._list(shape)
            case "map":
                return self._map(shape)
            case _:
                text = scalar_as_text(shape, "iso8601")

                def write(out: list[str], name: str, value: Any) -> None:
                    out.append(f"<{name}>{escape(text(value))}</{name}>")

                return write

    def _structure(self, shape: Any) -> Write:
        write_members = self.members(shape)
        attributes = {
            name: member.serialization["name"]
            for name, member in shape.members.items()
            if member.serialization.get("xmlAttribute")
        }
        namespace = f' xmlns:xsi="{_XSI}"' if attributes else ""

        def write(out: list[str], name: str, value: Any) -> None:
            extra = "".join(f' {wire}="{escape(value[key])}"' for key, wire in attributes.items() if key in value)
            out.append(f"<{name}{namespace}{extra}>")
            write_members(out, value)
            out.append(f"</{name}>")

        return write

    def _list(self, shape: Any) -> Write:
        flat = bool(shape.serialization.get("flattened"))
        item_name = shape.member.serialization.get("name", "member")
        convert: Write | None = None

        def write(out: list[str], name: str, value: Any) -> None:
            nonlocal convert
            if convert is None:
                convert = self.writer(shape.member)
            if flat:
                for item in value:
                    convert(out, name, item)
                return
            out.append(f"<{name}>")
            for item in value:
                convert(out, item_name, item)
            out.append(f"</{name}>")

        return write

    def _map(self, shape: Any) -> Write:
        flat = bool(shape.serialization.get("flattened"))
        key_name = shape.key.serialization.get("name", "key")
        value_name = shape.value.serialization.get("name", "value")

        def write(out: list[str], name: str, value: Any) -> None:
            convert = self.writer(shape.value)
            entry = name if flat else "entry"
            if not flat:
                out.append(f"<{name}>")
            for key, item in value.items():
                out.append(f"<{entry}><{key_name}>{escape(key)}</{key_name}>")
                convert(out, value_name, item)
                out.append(f"</{entry}>")
            if not flat:
                out.append(f"</{name}>")

        return write


def _element_name(name: str, member: Any) -> str:
    if member.type_name == "list" and member.serialization.get("flattened"):
        item_name: str | None = member.member.serialization.get("name")
        if item_name is not None:
            return item_name
    wire_name: str = member.serialization.get("name", name)
    return wire_name


def scalar_as_text(shape: Any, timestamp_format: str) -> Callable[[Any], str]:
    """Return the function that writes a scalar shape as text; `timestamp_format` is the protocol's default."""
    match shape.type_name:
        case "boolean":
            return lambda value: "true" if value else "false"
        case "timestamp":
            own_format = shape.serialization.get("timestampFormat", timestamp_format)
            return lambda at: timestamps.as_text(at, own_format)
        case "blob":
            return lambda value: base64.b64encode(value.encode() if isinstance(value, str) else value).decode()
        case _:
            return str
