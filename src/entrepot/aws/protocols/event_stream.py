"""Event streams: an answer that is a sequence of events, each a message of its own (application/vnd.amazon.eventstream).

Source: https://smithy.io/2.0/aws/amazon-eventstream.html
"""

import struct
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any, Protocol

from botocore.model import OperationModel

from entrepot.aws.protocols.json_body import JsonWriters, dumps

CONTENT_TYPE = "application/vnd.amazon.eventstream"

_PRELUDE = struct.Struct(">II")
_CHECKSUM = struct.Struct(">I")
_STRING = 7
"""The type of a header whose value is text."""


class Events(Protocol):
    """What an operation returns for its stream: each event is a mapping of one member's name to its value."""

    def __aiter__(self) -> AsyncIterator[Mapping[str, Any]]:
        """Return the events."""
        ...

    async def aclose(self) -> None:
        """End the stream; called once it is over or its reader has gone, also when nothing was read."""
        ...


def message(headers: Mapping[str, str], payload: bytes) -> bytes:
    """Return one message, with its lengths and checksums."""
    head = b"".join(
        bytes((len(name),)) + name.encode() + struct.pack(">BH", _STRING, len(value.encode())) + value.encode()
        for name, value in headers.items()
    )
    prelude = _PRELUDE.pack(16 + len(head) + len(payload), len(head))
    body = prelude + _CHECKSUM.pack(zlib.crc32(prelude)) + head + payload
    return body + _CHECKSUM.pack(zlib.crc32(body))


def stream_member(operation: OperationModel) -> str | None:
    """Return the name of the member that is an operation's stream of events."""
    stream: Any = operation.get_event_stream_output()
    if stream is None or operation.output_shape is None:
        return None
    members: Mapping[str, Any] = operation.output_shape.members
    return next((name for name, shape in members.items() if shape.name == stream.name), None)


class JsonEvents:
    """The messages of a stream, with JSON payloads: first the other members of the answer, then the events."""

    def __init__(self, operation: OperationModel, response: Mapping[str, Any], writers: JsonWriters) -> None:
        member = stream_member(operation)
        stream: Any = operation.get_event_stream_output()
        assert member is not None and operation.output_shape is not None
        self._events: Events = response[member]
        self._shapes: Mapping[str, Any] = stream.members
        self._writers = writers
        rest = {name: value for name, value in response.items() if name != member}
        self._first = dumps(writers.writer(operation.output_shape)(rest))
        self._messages = self._encoded()

    async def _encoded(self) -> AsyncGenerator[bytes, None]:
        yield message({":message-type": "event", ":event-type": "initial-response", **_JSON}, self._first)
        async for event in self._events:
            for name, value in event.items():
                shape = self._shapes[name]
                payload = dumps(self._writers.writer(shape)(value))
                if shape.metadata.get("exception"):
                    yield message({":message-type": "exception", ":exception-type": name, **_JSON}, payload)
                    return
                yield message({":message-type": "event", ":event-type": name, **_JSON}, payload)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        return await anext(self._messages)

    async def aclose(self) -> None:
        """End the stream."""
        await self._messages.aclose()
        await self._events.aclose()


_JSON = {":content-type": "application/json"}
