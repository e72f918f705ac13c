"""What rest-json and rest-xml share: members in path, query and headers; the rest is one body."""

import base64
import json
import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from botocore.model import OperationModel

from entrepot.aws import timestamps
from entrepot.aws.errors import BadRequestError, SerializationError
from entrepot.aws.http import HttpRequest
from entrepot.aws.protocols.xml_body import scalar_as_text, scalar_from_text

_log = logging.getLogger(__name__)
ReadHeader: TypeAlias = Callable[[str], Any]
WriteHeader: TypeAlias = Callable[[Any], str]


class RestInput:
    """Where the members of one operation's request are."""

    def __init__(self, operation: OperationModel) -> None:
        self.shape: Any = operation.input_shape
        self.payload: str | None = None
        self.body_members = False
        self._labels: list[tuple[str, str, ReadHeader]] = []
        self._query: dict[str, tuple[str, bool, ReadHeader]] = {}
        self._query_map: str | None = None
        self._headers: list[tuple[str, str, ReadHeader]] = []
        self._prefixes: list[tuple[str, str]] = []
        if self.shape is None:
            return
        self.payload = self.shape.serialization.get("payload")
        for name, member in self.shape.members.items():
            self._place(name, member)

    def _place(self, name: str, member: Any) -> None:
        wire_name = member.serialization.get("name", name)
        match member.serialization.get("location"):
            case "uri":
                self._labels.append((wire_name, name, scalar_from_text(member)))
            case "querystring" if member.type_name == "map":
                self._query_map = name
            case "querystring":
                is_list = member.type_name == "list"
                self._query[wire_name] = (name, is_list, scalar_from_text(member.member if is_list else member))
            case "header":
                self._headers.append((wire_name.lower(), name, _header_reader(member)))
            case "headers":
                self._prefixes.append((wire_name.lower(), name))
            case None if name != self.payload:
                self.body_members = True

    def read(self, request: HttpRequest, labels: Mapping[str, str], pairs: list[tuple[str, str]]) -> dict[str, Any]:
        """Return the members outside the body; raise BadRequestError naming one that cannot be read."""
        values: dict[str, Any] = {}
        name = ""
        try:
            for wire_name, name, read in self._labels:
                values[name] = read(labels[wire_name])
            for wire_name, text in pairs:
                known = self._query.get(wire_name)
                if known is not None:
                    name = known[0]
                    value = known[2](text)
                    if known[1]:
                        values.setdefault(name, []).append(value)
                    else:
                        values[name] = value
                elif self._query_map is not None:
                    values.setdefault(self._query_map, {})[wire_name] = text
            headers = request.headers
            for header, name, read in self._headers:
                found = headers.get(header)
                if found is not None:
                    values[name] = read(found)
        except SerializationError as error:
            raise BadRequestError(f"Invalid value for {name}: {error.message}", ArgumentName=name) from None
        for prefix, name in self._prefixes:
            found_map = {key[len(prefix) :]: _utf8(text) for key, text in headers.items() if key.startswith(prefix)}
            if found_map:
                values[name] = found_map
        return values


def _utf8(text: str) -> str:
    """Headers are bytes: UTF-8 where they are UTF-8, else latin-1."""
    if text.isascii():
        return text
    try:
        return text.encode("latin-1").decode()
    except UnicodeDecodeError:
        return text


def _header_reader(member: Any) -> ReadHeader:
    if member.type_name == "list":
        read_item = _header_reader(member.member)
        return lambda text: [read_item(item.strip().strip('"')) for item in text.split(",") if item.strip()]
    if member.serialization.get("jsonvalue"):
        return _json_header
    if member.type_name == "string":
        return _utf8
    return scalar_from_text(member)


def _json_header(text: str) -> Any:
    try:
        return json.loads(base64.b64decode(text, validate=True))
    except ValueError:
        raise SerializationError("not JSON in base64") from None


class RestOutput:
    """Where the members of one operation's response go."""

    def __init__(self, operation: OperationModel) -> None:
        self.shape: Any = operation.output_shape
        self.payload: str | None = None
        self.body_members = False
        self.status: int = operation.http.get("responseCode") or 200
        self._status_member: str | None = None
        self._headers: dict[str, tuple[str, WriteHeader]] = {}
        self._prefixes: dict[str, str] = {}
        if self.shape is None:
            return
        self.payload = self.shape.serialization.get("payload")
        for name, member in self.shape.members.items():
            wire_name = member.serialization.get("name", name)
            match member.serialization.get("location"):
                case "header":
                    self._headers[name] = (wire_name, _header_writer(member))
                case "headers":
                    self._prefixes[name] = wire_name
                case "statusCode":
                    self._status_member = name
                case _ if name != self.payload:
                    self.body_members = True

    def write(self, response: Mapping[str, Any], headers: dict[str, str]) -> tuple[int, dict[str, Any]]:
        """Put members into `headers`; return the status and the members that belong in the body."""
        status = self.status
        rest: dict[str, Any] = {}
        for name, value in response.items():
            if value is None:
                continue
            known = self._headers.get(name)
            if known is not None:
                headers[known[0]] = _one_line(known[1](value))
            elif name == self._status_member:
                status = int(value)
            elif name in self._prefixes:
                for key, text in value.items():
                    headers[self._prefixes[name] + key] = _one_line(text)
            else:
                rest[name] = value
        return status, rest


def _one_line(text: str) -> str:
    """A header value is one line of latin-1; text beyond it goes as the bytes of its UTF-8."""
    if not text.isprintable():
        text = "".join(character if character.isprintable() or ord(character) > 0x9F else " " for character in text)
    return text if text.isascii() else text.encode("utf-8", "replace").decode("latin-1")


def _header_writer(member: Any) -> WriteHeader:
    if member.type_name == "list":
        write_item = _header_writer(member.member)
        return lambda values: ",".join(write_item(value) for value in values)
    if member.serialization.get("jsonvalue"):
        return lambda value: base64.b64encode(json.dumps(value, separators=(",", ":")).encode()).decode()
    if member.type_name == "timestamp" and "timestampFormat" not in member.serialization:
        return lambda value: value if isinstance(value, str) else timestamps.rfc822(value)
    if member.type_name == "string":
        return str
    return scalar_as_text(member, "rfc822")
