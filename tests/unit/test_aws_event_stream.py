"""Event streams as botocore reads them."""

from collections.abc import AsyncIterator
from typing import Any

from botocore.eventstream import EventStreamBuffer
from hypothesis import given
from hypothesis import strategies as st

from entrepot.aws.protocols import event_stream
from entrepot.aws.protocols.json_body import loads
from entrepot.aws.service import service


@given(
    st.dictionaries(st.sampled_from([":event-type", ":message-type", "x"]), st.text(max_size=20)),
    st.binary(max_size=100),
    st.integers(1, 50),
)
def test_messages_are_botocores(headers: dict[str, str], payload: bytes, piece: int) -> None:
    headers = {name: value.encode("utf-8", "replace").decode() for name, value in headers.items()}
    wire = event_stream.message(headers, payload) * 2
    buffer = EventStreamBuffer()
    found: list[Any] = []
    for start in range(0, len(wire), piece):
        buffer.add_data(wire[start : start + piece])
        found += list(buffer)
    assert [(one.headers, one.payload) for one in found] == [(headers, payload)] * 2


class Stream:
    """A stream of given events that remembers whether it was closed."""

    def __init__(self, *events: dict[str, Any]) -> None:
        self.events = list(events)
        self.closed = False

    def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        return self

    async def __anext__(self) -> dict[str, Any]:
        if not self.events:
            raise StopAsyncIteration
        return self.events.pop(0)

    async def aclose(self) -> None:
        self.closed = True


async def test_an_answer_begins_with_its_other_members_and_ends_with_an_exception() -> None:
    logs = service("logs")
    operation = logs.operation("StartLiveTail")
    stream = Stream(
        {"sessionStart": {"sessionId": "s"}},
        {"SessionTimeoutException": {"message": "over"}},
        {"sessionUpdate": {"sessionResults": []}},
    )
    response = logs.protocol("json").write(operation, {"responseStream": stream}, "request")
    assert response.headers["Content-Type"] == event_stream.CONTENT_TYPE
    assert not isinstance(response.body, bytes)
    buffer: Any = EventStreamBuffer()
    async for chunk in response.body:
        buffer.add_data(chunk)
    found = [(one.headers.get(":event-type") or one.headers[":exception-type"], loads(one.payload)) for one in buffer]
    assert found == [
        ("initial-response", {}),
        ("sessionStart", {"sessionId": "s"}),
        ("SessionTimeoutException", {"message": "over"}),
    ], "nothing comes after an exception"
    await response.body.aclose()  # type: ignore[attr-defined]
    assert stream.closed
    assert event_stream.stream_member(logs.operation("PutLogEvents")) is None
