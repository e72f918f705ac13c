"""The readers of a distributed Map: documents in pieces of any size, listings, manifests, and going on from a position."""

import csv
import gzip
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrepot.operations import Call, Principal
from entrepot.services.stepfunctions.language.distributed import ItemReader
from entrepot.services.stepfunctions.language.evaluation import StatesError
from entrepot.services.stepfunctions.maps.batches import Batch, Limits, inputs, of_state
from entrepot.services.stepfunctions.maps.documents import (
    ITEM_LIMIT_CHARACTERS,
    ReaderError,
    csv_items,
    gunzip,
    json_items,
    json_lines,
)
from entrepot.services.stepfunctions.maps.readers import Item, read
from tests.unit.stepfunctions_objects import Objects

CALL = Call(Principal("arn:aws:iam::111111111111:role/r", "role", "r"), "request")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 10**12) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


async def pieces(content: bytes, size: int = 3) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def of(entries: AsyncIterator[Any]) -> list[Any]:
    return [entry async for entry in entries]


async def values(entries: AsyncIterator[Any]) -> list[Any]:
    return [value async for _, value in entries]


@given(items=st.lists(JSON, max_size=6), size=st.integers(1, 40), indent=st.sampled_from([None, 1]))
async def test_a_json_array_in_pieces_gives_its_elements(items: list[Any], size: int, indent: int | None) -> None:
    content = json.dumps(items, indent=indent, ensure_ascii=False).encode("utf-8", "surrogatepass")
    try:
        content.decode()
    except UnicodeDecodeError:
        return
    assert await values(json_items(pieces(content, size), ())) == items


@given(before=JSON, items=st.lists(JSON, max_size=4), size=st.integers(1, 20))
async def test_a_pointer_leads_past_anything_to_the_array(before: Any, items: list[Any], size: int) -> None:
    document = {"a": before, "b": {"c": [before, {"d/e": items}], "x": before}, "z": before}
    content = json.dumps(document).encode()
    assert await values(json_items(pieces(content, size), ("b", "c", "1", "d/e"))) == items


async def test_a_json_object_gives_its_members_with_their_keys() -> None:
    assert await of(json_items(pieces(b'{"a": [1], "b": 2 }'), ())) == [("a", [1]), ("b", 2)]
    assert await of(json_items(pieces(b" { } "), ())) == []


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'"text"', "Attempting to map over non-iterable node."),
        (b"[1, 2", "ends too early"),
        (b"[1 2]", "comma"),
        (b"[nope]", "not JSON"),
        (b"", "ends too early"),
        (b'{"a" 1}', "colon"),
        (b"[" * 5_000, "not JSON"),
        (b"\xff\xfe[]", "UTF-8"),
        (b'["' + b"x" * (2 * ITEM_LIMIT_CHARACTERS) + b'"]', "more than"),
    ],
)
async def test_what_is_no_json_array_is_told(content: bytes, problem: str) -> None:
    with pytest.raises(ReaderError, match=problem):
        await of(json_items(pieces(content, 100_000), ()))


async def test_a_pointer_to_nothing_is_told() -> None:
    for pointer in (("x",), ("a", "x"), ("l", "7")):
        with pytest.raises(ReaderError, match="leads to nothing"):
            await of(json_items(pieces(b'{"a": 1, "l": [[]]}'), pointer))


async def test_json_lines() -> None:
    assert await values(json_lines(pieces(b'{"a":1}\r\n\n[2]\n"x"'))) == [{"a": 1}, [2], "x"]
    with pytest.raises(ReaderError, match="Line 2"):
        await of(json_lines(pieces(b"1\n{\n")))


FIELD = st.text(st.characters(exclude_characters="\\\r\x00", exclude_categories=["Cs"]), max_size=6)


@given(rows=st.lists(st.lists(FIELD, min_size=3, max_size=3), min_size=1, max_size=5), size=st.integers(1, 30))
async def test_csv_rows_come_back_as_they_were_written(rows: list[list[str]], size: int) -> None:
    written = io.StringIO()
    csv.writer(written, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
    found = await values(csv_items(pieces(written.getvalue().encode(), size), ("a", "b", "c"), ","))
    assert found == [dict(zip("abc", row, strict=True)) for row in rows]


async def test_csv_as_recorded_on_aws() -> None:
    content = b"H1,\nValue4,Value5,Value6\n,,,\ntrue,1,'HelloWorld'\nNull,None,\n   \n"
    assert await values(csv_items(pieces(content), None, ",")) == [
        {"": "Value5", "H1": "Value4"},
        {"": "", "H1": ""},
        {"": "1", "H1": "true"},
        {"": "None", "H1": "Null"},
        {"": "", "H1": "   "},
    ]
    with pytest.raises(ReaderError, match=r"^CSV headers cannot contain duplicates\.$"):
        await of(csv_items(pieces(b"x\n"), ("a", "a"), ","))


async def test_csv_delimiters_quotes_and_backslashes() -> None:
    assert await values(csv_items(pieces(b'a|b\n"x|""y"|2\\|3\n'), None, "|")) == [{"a": 'x|"y', "b": "2|3"}]
    assert await values(csv_items(pieces(b'a,b\n"two\nlines",\\"q\\"\n'), None, ",")) == [
        {"a": "two\nlines", "b": '"q"'}
    ]
    with pytest.raises(ReaderError, match="longer than"):
        await of(csv_items(pieces(b'a\n"' + b"x\n" * (ITEM_LIMIT_CHARACTERS // 2), 65_536), None, ","))


async def test_gzip_of_several_members() -> None:
    content = gzip.compress(b"[1,") + gzip.compress(b"2]")
    assert await values(json_items(gunzip(pieces(content)), ())) == [1, 2]
    with pytest.raises(ReaderError, match="gzip"):
        await of(gunzip(pieces(b"no gzip at all")))


# ── readers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def items_of(objects: Objects, reader: ItemReader, parameters: Any, position: Any = None) -> list[Item]:
    async def ask(operation: str, request: dict[str, Any]) -> dict[str, Any]:
        run = {"GetObject": objects.get, "ListObjectsV2": objects.list}[operation]
        return await run(request, CALL)

    return [item async for item in read(ask, reader, parameters, position)]


def stored() -> Objects:
    objects = Objects()
    objects.contents = {
        "b/in/1.json": b"[1,2]",
        "b/in/2.json": b"[3]",
        "b/in/3.json": b"[4,5]",
        "b/rows.csv.gz": gzip.compress(b'"b","k1","1"\n"b","k2","2"\n'),
        "b/more.csv": b'"b","k3","3"\n',
        "b/athena.csv": b"s3://b/in/1.json\ns3://b/in/3.json\n",
        "b/lines": b"1\n2\n3\n",
    }
    objects.contents["b/manifest.json"] = json.dumps(
        {
            "sourceBucket": "src",
            "destinationBucket": "arn:aws:s3:::b",
            "fileFormat": "CSV",
            "fileSchema": "Bucket, Key, Size",
            "files": [{"key": "rows.csv.gz"}, {"key": "more.csv"}],
        }
    ).encode()
    return objects


READERS = {
    "json": (ItemReader("getObject", None, "JSON"), {"Bucket": "b", "Key": "in/1.json"}, 2),
    "lines": (ItemReader("getObject", None, "JSONL"), {"Bucket": "b", "Key": "lines"}, 3),
    "listing": (ItemReader("listObjectsV2", None), {"Bucket": "b", "Prefix": "in/"}, 3),
    "flattened": (ItemReader("listObjectsV2", None, "JSON", flatten=True), {"Bucket": "b", "Prefix": "in/"}, 5),
    "inventory": (ItemReader("getObject", None, "MANIFEST"), {"Bucket": "b", "Key": "manifest.json"}, 3),
}


@pytest.mark.parametrize("name", READERS)
async def test_reading_goes_on_after_every_item(name: str) -> None:
    reader, parameters, count = READERS[name]
    objects = stored()
    items = await items_of(objects, reader, parameters)
    assert len(items) == count
    for number, item in enumerate(items, 1):
        position = json.loads(json.dumps(item.position))
        rest = await items_of(objects, reader, parameters, position)
        assert [one.value for one in rest] == [one.value for one in items[number:]]


async def test_what_items_look_like() -> None:
    objects = stored()
    listed = await items_of(objects, *READERS["listing"][:2])
    assert listed[0].value == {
        "Etag": '"e"', "Key": "in/1.json", "LastModified": 1795392000, "Size": 1, "StorageClass": "STANDARD"
    }  # fmt: skip
    inventory = await items_of(objects, *READERS["inventory"][:2])
    assert inventory[2].value == {"Bucket": "b", "Key": "k3", "Size": "3"}
    assert inventory[2].source == "s3://b/more.csv"
    athena = ItemReader("getObject", None, "JSON", manifest_type="ATHENA_DATA")
    assert [item.value for item in await items_of(objects, athena, {"Bucket": "b", "Key": "athena.csv"})] == [
        1,
        2,
        4,
        5,
    ]


async def test_an_object_that_changed_is_not_read_on() -> None:
    objects = stored()
    reader, parameters, _ = READERS["lines"]
    position = (await items_of(objects, reader, parameters))[0].position
    objects.contents["b/lines"] = b"9\n8\n7\n"
    with pytest.raises(ReaderError, match="pre-conditions"):
        await items_of(objects, reader, parameters, position)


@pytest.mark.parametrize("parameters", [None, {}, {"Bucket": 1, "Key": "k"}, {"Bucket": "b", "Key": "nothing"}])
async def test_parameters_that_lead_nowhere_are_told(parameters: Any) -> None:
    with pytest.raises(ReaderError):
        await items_of(stored(), READERS["json"][0], parameters)


# ── batches ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def batches_of(items: list[Any], limits: Limits, position: Any = None) -> list[Batch]:
    entries: list[tuple[str | None, Any]] = [(None, item) for item in items]
    found = inputs(of_state(entries, position), lambda index, key, item, source: item, limits, position or 0)
    return [batch async for batch in found]


@given(
    items=st.lists(JSON, max_size=12),
    most=st.none() | st.integers(1, 4),
    size=st.none() | st.integers(40, 200),
    head=st.none() | st.just({"a": "é"}),
    first=st.none() | st.integers(1, 15),
)
async def test_batches_hold_all_items_in_order_within_the_limits(
    items: list[Any], most: int | None, size: int | None, head: Any, first: int | None
) -> None:
    limits = Limits(most, size, head, first)
    found = await batches_of(items, limits)
    taken = items[:first]
    if not limits.batched:
        assert [json.loads(batch.text) for batch in found] == taken
    else:
        parts = [json.loads(batch.text) for batch in found]
        assert [item for part in parts for item in part["Items"]] == taken
        assert all(part.get("BatchInput") == head for part in parts)
        for batch, part in zip(found, parts, strict=True):
            assert len(part["Items"]) == batch.items <= (most or 12)
            assert size is None or batch.items == 1 or len(batch.text.encode()) <= size
    assert [batch.next_item for batch in found] == [batch.position for batch in found]
    for number, batch in enumerate(found, 1):
        rest = await batches_of(items, limits, batch.position)
        assert [one.text for one in rest] == [one.text for one in found[number:]]


async def test_limits_of_items() -> None:
    assert len(await batches_of([1] * 5, Limits(None, None, None, 0))) == 5
    with pytest.raises(ReaderError, match=r"^field MaxItems must be positive$"):
        await batches_of([1], Limits(None, None, None, -1))
    with pytest.raises(StatesError, match="larger than"):
        await batches_of(["x" * 300_000], Limits(None, None, None, None))
