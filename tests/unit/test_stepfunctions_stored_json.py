"""JSON in the ledger: what comes back is what was kept, also of older code."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from entrepot.services.stepfunctions.stored_json import pack, unpack

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters()), inner),
    max_leaves=20,
)


def same(one: Any, other: Any) -> bool:
    return repr(one) == repr(other)  # 1 and 1.0, 0.0 and -0.0 are not the same


@given(VALUES)
def test_what_was_kept_comes_back(value: Any) -> None:
    assert same(unpack(pack(value)), value)


@given(VALUES)
def test_what_older_code_kept_comes_back(value: Any) -> None:
    assert same(unpack(json.dumps(value, separators=(",", ":"))), value)
    try:
        content = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        return  # older code could not keep it
    assert same(unpack(content), value)


def test_lone_surrogates_and_control_characters_come_back() -> None:
    value = {"\ud800": ["a\udfff", "\x1e\x00", 10**40, -0.0]}
    assert same(unpack(pack(value)), value)
    assert b"\x1e" not in pack(value) and b"\x1e" not in pack("\x1e")
