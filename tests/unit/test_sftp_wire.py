"""The bytes of SFTP version 3."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrepot.sftp import wire
from entrepot.sftp.status import StatusError
from entrepot.sftp.wire import Fields, Stat


def test_replies() -> None:
    assert wire.status_ok(7) == bytes.fromhex("000000116500000007000000000000000000000000")
    assert wire.data(1, b"ab") == bytes.fromhex("0000000b670000000100000002") + b"ab"
    reply = wire.status(1, 4, "nö")
    assert reply[4] == wire.STATUS
    assert len(reply) == 4 + int.from_bytes(reply[:4], "big")


def test_attributes_round_trip() -> None:
    encoded = Stat(False, 5_000_000_000, 1_600_000_000).encode()
    attributes = Fields(encoded).attributes()
    assert (attributes.size_bytes, attributes.mtime_s) == (5_000_000_000, 1_600_000_000)
    assert struct.unpack_from(">I", Stat(False, 0, 1 << 40).encode(), 24)[0] == 0xFFFFFFFF


def test_long_names() -> None:
    now_s = 1_700_000_000
    reply = wire.names(1, [(b"f", Stat(False, 12, now_s)), (b"d", Stat(True, 0, 0))], "demo", now_s)
    assert b"-rw-r--r--    1 demo     demo               12 Nov 14 22:13 f" in reply
    assert b"drwxr-xr-x    1 demo     demo                0 Jan  1  1970 d" in reply


@given(st.binary(max_size=100), st.lists(st.sampled_from(["u32", "u64", "string", "attributes"]), max_size=6))
def test_any_bytes_parse_or_are_a_bad_message(body: bytes, kinds: list[str]) -> None:
    fields = Fields(body)
    try:
        for kind in kinds:
            getattr(fields, kind)()
    except StatusError as error:
        assert error.code == 5


def test_too_many_extended_attributes() -> None:
    with pytest.raises(StatusError):
        Fields(struct.pack(">II", wire.ATTR_EXTENDED, 1 << 30)).attributes()
