"""A worker's output as log events, and how AWS words a runtime's end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrepot import clock
from entrepot.services.lambda_.invocation import InvocationResult, exit_reason
from entrepot.services.lambda_.output import INVOCATION_LIMIT_BYTES, LINE_LIMIT_BYTES, Output


def events(*chunks: bytes) -> list[str]:
    found: list[str] = []
    output = Output(lambda _, text: found.append(text))
    output.begin()
    for chunk in chunks:
        output.feed(chunk)
    output.end()
    return found


def frame(text: bytes, timestamp_ms: int | None = None) -> bytes:
    at_us = (timestamp_ms or clock.now_ms()) * 1000
    return b"\xa5\x5a\x00\x03" + len(text).to_bytes(4, "big") + at_us.to_bytes(8, "big") + text


def test_lines_and_frames_come_in_the_order_of_writing() -> None:
    stream = b"one\ntw" + b"o\n" + frame(b"[ERROR] x\nTraceback") + b"three\nrest"
    assert events(stream) == ["one\n", "two\n", "[ERROR] x\nTraceback", "three\n", "rest"]


@given(
    st.lists(st.sampled_from([b"a line\n", b"no end", b"\n", frame(b"a\nb"), "é\n".encode()]), max_size=8), st.data()
)
def test_how_the_bytes_are_cut_does_not_matter(parts: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=5)))
    chunks = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    # a magic number that is cut in two cannot be told from an unfinished line until the rest is there
    assert "".join(events(*chunks)) == "".join(events(stream))


@given(st.lists(st.binary(max_size=200), max_size=10))
def test_any_bytes_are_taken(chunks: list[bytes]) -> None:
    events(*chunks)


def test_a_frame_with_an_absurd_length_is_text() -> None:
    absurd = b"\xa5\x5a\x00\x03\xff\xff\xff\xff" + bytes(8)
    assert events(absurd + b"after\n")[-1] == "after\n"


def test_long_lines_and_much_output_are_bounded() -> None:
    found = events(b"x" * (LINE_LIMIT_BYTES * 2 + 10))
    assert [len(text) for text in found] == [LINE_LIMIT_BYTES, LINE_LIMIT_BYTES, 10]
    found = events(*[b"y" * 65_535 + b"\n"] * 400)
    assert sum(map(len, found[:-1])) <= INVOCATION_LIMIT_BYTES
    assert "bytes of log output were dropped" in found[-1]


@pytest.mark.parametrize(
    ("returncode", "reason"),
    [
        (0, "Runtime exited without providing a reason"),
        (3, "Runtime exited with error: exit status 3"),
        (-9, "Runtime exited with error: signal: killed"),
        (-11, "Runtime exited with error: signal: segmentation fault"),
        (-64, "Runtime exited with error: signal: 64"),
    ],
)
def test_exit_reasons(returncode: int, reason: str) -> None:
    assert exit_reason(returncode) == reason


def test_errors_are_read_from_any_payload() -> None:
    assert InvocationResult("i", b"1").error() is None
    assert InvocationResult("i", b'{"errorType":"A","errorMessage":"b"}', "Unhandled").error() == ("A", "b")
    assert InvocationResult("i", b"[\xff", "Unhandled").error() == ("Unknown", "[\ufffd")
