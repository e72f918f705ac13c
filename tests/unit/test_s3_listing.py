"""Listing against a brute-force model, and how little of the index it reads."""

from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from entrepot.blobs import Blob
from entrepot.services.s3 import buckets, listing
from tests.unit.s3_site import CALL, blob_of, opened

SEGMENT = st.sampled_from(["", "a", "b", "ab", "ä", "\ud7ff", "\U0010ffff", "!", "0", " "])
KEY = st.lists(SEGMENT, min_size=1, max_size=4).map("/".join).filter(bool)
NAMES = st.lists(KEY, max_size=25)


def expected(keys: set[str], prefix: str, delimiter: str, after: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for key in sorted(keys, key=str.encode):
        if not key.startswith(prefix):
            continue
        cut = key.find(delimiter, len(prefix)) if delimiter else -1
        entry = ("object", key) if cut < 0 else ("prefix", key[: cut + len(delimiter)])
        is_prefix_marker = bool(delimiter) and after.endswith(delimiter) and after.find(delimiter, len(prefix)) >= 0
        passed = entry[1].startswith(after) if is_prefix_marker and after.startswith(prefix) else False
        if key > after and not passed and entry not in found:
            found.append(entry)
    return found


def pages(reader: Any, prefix: str, delimiter: str, after: str, limit: int) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    while True:
        page = listing.list_objects(reader, "bucket", prefix=prefix, delimiter=delimiter, after=after, limit=limit)
        assert len(page) <= limit
        both = [("object", one.key) for one in page.objects] + [("prefix", one) for one in page.common_prefixes]
        found += sorted(both, key=lambda entry: entry[1].encode())
        if page.next_after is None:
            return found
        assert page.next_after.encode() > after.encode()
        after = page.next_after


@settings(max_examples=60, deadline=None)
@given(
    keys=NAMES,
    deleted=NAMES,
    prefix=st.one_of(st.just(""), KEY),
    delimiter=st.sampled_from(["", "/", "a", "b/"]),
    after=st.one_of(st.just(""), KEY),
    limit=st.integers(1, 7),
    versioned=st.booleans(),
    batch=st.integers(1, 5),
    examined=st.integers(1, 50),
)
async def test_a_listing_is_what_brute_force_finds(
    tmp_path_factory: Any,
    keys: list[str],
    deleted: list[str],
    prefix: str,
    delimiter: str,
    after: str,
    limit: int,
    versioned: bool,
    batch: int,
    examined: int,
) -> None:
    import pytest

    async with opened(tmp_path_factory.mktemp("s3")) as (s3, _):

        def fill(tx: Any) -> None:
            if versioned:
                buckets.set_versioning(tx, "bucket", "Enabled")
            for key in keys + keys[:5]:
                s3.publish(tx, "bucket", key, blob_of(b"x"), CALL)
            for key in deleted:
                s3.delete_object(tx, "bucket", key, CALL)

        await s3.database.write(fill)
        present = set(keys) - set(deleted)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(listing, "FIRST_BATCH", batch)
            patch.setattr(listing, "EXAMINED_LIMIT", examined)
            found = await s3.database.read(lambda reader: pages(reader, prefix, delimiter, after, limit))
        assert found == expected(present, prefix, delimiter, after)


@settings(max_examples=30, deadline=None)
@given(keys=NAMES, deleted=NAMES, limit=st.integers(1, 5), batch=st.integers(1, 4))
async def test_versions_page_by_page(
    tmp_path_factory: Any, keys: list[str], deleted: list[str], limit: int, batch: int
) -> None:
    import pytest

    async with opened(tmp_path_factory.mktemp("s3")) as (s3, _):
        model: list[tuple[str, int]] = []

        def fill(tx: Any) -> None:
            buckets.set_versioning(tx, "bucket", "Enabled")
            for key in keys + keys:
                model.append((key, s3.publish(tx, "bucket", key, blob_of(b"x"), CALL).sequence))
            for key in deleted:
                done = s3.delete_object(tx, "bucket", key, CALL)
                assert done is not None
                model.append((key, int(done.sequencer, 16)))

        def read(reader: Any) -> list[tuple[str, int]]:
            found, key, sequence = [], "", None
            while True:
                page = listing.list_versions(reader, "bucket", after_key=key, after_sequence=sequence, limit=limit)
                found += [(one.key, one.sequence) for one in page.versions]
                latest = {one.key for one in page.versions if one.is_latest}
                assert len(latest) == sum(one.is_latest for one in page.versions)
                if page.next_key is None:
                    return found
                key, sequence = page.next_key, page.next_sequence

        await s3.database.write(fill)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(listing, "FIRST_BATCH", batch)
            found = await s3.database.read(read)
        assert found == sorted(model, key=lambda one: (one[0].encode(), -one[1]))


class Counting:
    """A reader that counts the rows it gives out."""

    def __init__(self, reader: Any) -> None:
        self.reader, self.rows, self.statements = reader, 0, 0

    def all(self, sql: str, parameters: Any = ()) -> list[Any]:
        rows: list[Any] = self.reader.all(sql, parameters)
        self.rows, self.statements = self.rows + len(rows), self.statements + 1
        return rows

    def one(self, sql: str, parameters: Any = ()) -> Any:
        return self.reader.one(sql, parameters)


async def test_a_folder_of_many_keys_costs_a_seek(tmp_path: Path) -> None:
    async with opened(tmp_path) as (s3, _):

        def fill(tx: Any) -> None:
            for folder in ("a", "b", "c"):
                for number in range(3000):
                    s3.publish(tx, "bucket", f"{folder}/{number:06}", Blob(None, b"", 0, bytes(32)), CALL)

        await s3.database.write(fill)

        def read(reader: Any) -> tuple[list[str], int]:
            counting = Counting(reader)
            page = listing.list_objects(counting, "bucket", delimiter="/")
            return page.common_prefixes, counting.rows

        prefixes, rows = await s3.database.read(read)
        assert prefixes == ["a/", "b/", "c/"]
        assert rows <= 3 * listing.FIRST_BATCH


async def test_the_index_is_used(tmp_path: Path) -> None:
    async with opened(tmp_path) as (s3, _):
        plans: list[str] = []

        class Explaining(Counting):
            def all(self, sql: str, parameters: Any = ()) -> list[Any]:
                plans.extend(row[3] for row in self.reader.all(f"EXPLAIN QUERY PLAN {sql}", parameters))
                rows: list[Any] = self.reader.all(sql, parameters)
                return rows

        await s3.database.write(lambda tx: s3.publish(tx, "bucket", "a/b", blob_of(b""), CALL))
        await s3.database.read(
            lambda reader: listing.list_objects(Explaining(reader), "bucket", prefix="a/", delimiter="/")
        )
        assert plans
        assert all("USING INDEX s3_version_key (bucket_id=? AND key>? AND key<?)" in plan for plan in plans), plans


def test_behind_a_prefix() -> None:
    assert listing.after_prefix("a/") == "a0"
    assert listing.after_prefix("a\U0010ffff") == "b"
    assert listing.after_prefix("\ud7ff") == "\ue000"
    assert listing.after_prefix("\U0010ffff") is None
    assert listing.after_prefix("") is None
