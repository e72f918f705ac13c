"""Versions of objects: publish, overwrite, copy, rename, delete, with the events that each one raises."""

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest

from entrepot.database import Transaction
from entrepot.operations import Call, Principal
from entrepot.services.s3 import ObjectCreated, ObjectDeleted, buckets, event_detail
from entrepot.services.s3.collect import Collector
from entrepot.services.s3.errors import (
    ContentCollectedError,
    InvalidRequestError,
    KeyTooLongError,
    NoSuchBucketError,
    NoSuchKeyError,
    PreconditionFailedError,
)
from entrepot.services.s3.objects import NO_ATTRIBUTES
from entrepot.services.s3.scrub import scrub
from entrepot.services.s3.service import S3
from entrepot.services.s3.versions import COPIES_LIMIT
from tests.unit.s3_site import CALL, blob_of, opened


async def upload(s3: S3, data: bytes) -> object:
    writer = s3.blobs.create()
    await writer.write(0, data)
    return await writer.finish()


async def counts(s3: S3) -> tuple[int, int, int]:
    return await s3.database.read(
        lambda reader: tuple(  # type: ignore[return-value]
            reader.all(f"SELECT COUNT(*) FROM {table}")[0][0] for table in ("s3_version", "s3_content", "s3_garbage")
        )
    )


async def test_overwriting_replaces_where_there_are_no_versions(tmp_path: Path) -> None:
    async with opened(tmp_path) as (s3, heard):
        first = await s3.database.write(lambda tx: s3.publish(tx, "bucket", "k", blob_of(b"one"), CALL))
        second = await s3.database.write(lambda tx: s3.publish(tx, "bucket", "k", blob_of(b"two"), CALL))
        assert second.sequencer > first.sequencer
        assert len(second.sequencer) == 18 and second.sequencer == second.sequencer.upper()
        assert second.version_id is None
        assert await counts(s3) == (1, 1, 0)
        found = await s3.database.read(lambda reader: s3.get(reader, "bucket", "k"))
        assert await s3.read(found, 1, 10) == b"wo"
        created = heard[1]
        assert isinstance(created, ObjectCreated)
        assert (created.etag, created.sequencer, created.reason) == (second.etag, second.sequencer, "PutObject")
        assert second.etag.endswith("-1") and len(second.etag) == 34
        await s3.database.write(lambda tx: s3.delete_object(tx, "bucket", "k", CALL))
        assert await s3.database.write(lambda tx: s3.delete_object(tx, "bucket", "k", CALL)) is None
        assert await counts(s3) == (0, 0, 0)
        assert isinstance(heard[2], ObjectDeleted) and heard[2].sequencer > second.sequencer and len(heard) == 3


async def test_versions_are_kept_and_marked(tmp_path: Path) -> None:
    async with opened(tmp_path) as (s3, heard):
        old = await s3.database.write(lambda tx: s3.publish(tx, "bucket", "k", blob_of(b"null"), CALL))
        await s3.database.write(lambda tx: buckets.set_versioning(tx, "bucket", "Enabled"))
        one = await s3.database.write(lambda tx: s3.publish(tx, "bucket", "k", blob_of(b"one"), CALL))
        marker = await s3.database.write(lambda tx: s3.delete_object(tx, "bucket", "k", CALL))
        assert marker is not None and marker.deletion_type == "Delete Marker Created"
        assert await s3.database.read(lambda reader: s3.head(reader, "bucket", "k")) is None
        for version_id, content in (("null", b"null"), (one.version_id, b"one")):
            found = await s3.database.read(lambda reader, v=version_id: s3.get(reader, "bucket", "k", version_id=v))
            assert await s3.read(found, 0, 10) == content
        await s3.database.write(lambda tx: s3.delete_object(tx, "bucket", "k", CALL, version_id=marker.version_id))
        found = await s3.database.read(lambda reader: s3.get(reader, "bucket", "k"))
        assert found.version_id == one.version_id
        await s3.database.write(lambda tx: buckets.set_versioning(tx, "bucket", "Suspended"))
        await s3.database.write(lambda tx: s3.publish(tx, "bucket", "k", blob_of(b"null 2"), CALL))
        assert (
            await s3.database.read(
                lambda reader: reader.one("SELECT 1 FROM s3_version WHERE sequence = ?", (old.sequence,))
            )
            is None
        )
        assert await counts(s3) == (2, 2, 0)
        assert [type(one).__name__ for one in heard] == [
            "ObjectCreated", "ObjectCreated", "ObjectDeleted", "ObjectDeleted", "ObjectCreated"]  # fmt: skip


async def test_copies_share_their_content(tmp_path: Path) -> None:
    async with opened(tmp_path) as (s3, heard):
        data = os.urandom(5000)
        blob = await upload(s3, data)
        source = await s3.database.write(lambda tx: s3.publish(tx, "bucket", "a", blob, CALL))  # type: ignore[arg-type]
        await s3.database.write(lambda tx: s3.copy_object(tx, s3.get(tx, "bucket", "a"), "bucket", "b", CALL))
        copied = heard[-1]
        assert isinstance(copied, ObjectCreated) and copied.copied_from is not None
        assert (copied.reason, copied.copied_from.sequencer, copied.sha256) == (
            "CopyObject", source.sequencer, heard[0].sha256)  # type: ignore[union-attr] # fmt: skip
        assert await counts(s3) == (2, 1, 0)
        await s3.database.write(lambda tx: s3.delete_object(tx, "bucket", "a", CALL))
        assert await counts(s3) == (1, 1, 0)
        found = await s3.database.read(lambda reader: s3.get(reader, "bucket", "b"))
        assert b"".join([piece async for piece in s3.stream(found, 10)]) == data[10:]
        await s3.database.write(lambda tx: s3.delete_object(tx, "bucket", "b", CALL))
        assert await counts(s3) == (0, 0, 1)
        with pytest.raises(InvalidRequestError, match="to itself"):
            await s3.database.write(lambda tx: s3.publish(tx, "bucket", "c", blob_of(b"c"), CALL))
            await s3.database.write(lambda tx: s3.copy_object(tx, s3.get(tx, "bucket", "c"), "bucket", "c", CALL))


async def test_renames_move_whole_folders_in_chunks(tmp_path: Path) -> None:
    async with opened(tmp_path) as (s3, heard):

        def fill(tx: object) -> None:
            for number in range(25):
                s3.publish(tx, "bucket", f"old/{number:02}", blob_of(b"%d" % number), CALL, mtime_ms=number)  # type: ignore[arg-type]

        await s3.database.write(fill)
        moved, after = 0, ""
        while True:
            done = await s3.database.write(
                lambda tx, after=after: s3.rename_prefix(tx, "bucket", "old/", "new/x/", CALL, after=after, limit=10)
            )
            moved += done.count
            if done.next_after is None:
                break
            after = done.next_after
        assert moved == 25
        page = await s3.database.read(lambda reader: s3.list_objects(reader, "bucket"))
        assert [(one.key, one.mtime_ms) for one in page.objects] == [(f"new/x/{n:02}", n) for n in range(25)]
        assert sum(isinstance(one, ObjectDeleted) for one in heard) == 25
        with pytest.raises(InvalidRequestError):
            await s3.database.write(lambda tx: s3.rename_prefix(tx, "bucket", "new/", "new/y/", CALL))


async def test_what_cannot_be_published_is_refused(tmp_path: Path) -> None:
    async with opened(tmp_path) as (s3, heard):
        for bucket, key, error in (("nowhere", "k", NoSuchBucketError), ("bucket", "ä" * 513, KeyTooLongError)):
            with pytest.raises(error):
                await s3.database.write(lambda tx, b=bucket, k=key: s3.publish(tx, b, k, blob_of(b""), CALL))
        one = await s3.database.write(lambda tx: s3.publish(tx, "bucket", "k", blob_of(b"1"), CALL, if_none_match=True))
        for conditions, error in (
            ({"if_none_match": True}, PreconditionFailedError),
            ({"if_match": "other"}, PreconditionFailedError),
        ):
            with pytest.raises(error):
                await s3.database.write(
                    lambda tx, c=conditions: s3.publish(tx, "bucket", "k", blob_of(b"2"), CALL, **c)
                )
        with pytest.raises(NoSuchKeyError):
            await s3.database.write(lambda tx: s3.publish(tx, "bucket", "m", blob_of(b""), CALL, if_match="x"))
        await s3.database.write(lambda tx: s3.publish(tx, "bucket", "k", blob_of(b"2"), CALL, if_match=one.etag))
        assert len(heard) == 2


async def test_only_one_of_many_wins_an_empty_key(tmp_path: Path) -> None:
    async with opened(tmp_path) as (s3, _):
        results = await asyncio.gather(
            *(
                s3.database.write(
                    lambda tx, n=n: s3.publish(tx, "bucket", "k", blob_of(b"%d" % n), CALL, if_none_match=True)
                )
                for n in range(20)
            ),
            return_exceptions=True,
        )
        assert sum(isinstance(one, PreconditionFailedError) for one in results) == 19


def test_the_event_has_the_shape_of_aws() -> None:
    created = ObjectCreated("b", "a key/ä", 5, "etag", None, "0" * 17 + "A", "00", "PutObject", 0)
    assert event_detail(created, CALL) == {
        "version": "0",
        "bucket": {"name": "b"},
        "object": {"key": "a key/ä", "size": 5, "etag": "etag", "sequencer": "00000000000000000A"},
        "request-id": "request-1",
        "requester": "000000000000",
        "source-ip-address": "127.0.0.1",
        "reason": "PutObject",
    }
    deleted = ObjectDeleted("b", "k", "v", "0A", "Permanently Deleted", "DeleteObject", 0)
    detail = event_detail(deleted, CALL)
    assert detail["object"] == {"key": "k", "version-id": "v", "sequencer": "0A"}
    assert detail["deletion-type"] == "Permanently Deleted"


# ── collection and scrub ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_collection_takes_what_nothing_names(tmp_path: Path) -> None:
    async with opened(tmp_path) as (s3, _):
        kept, orphan = await upload(s3, os.urandom(5000)), await upload(s3, os.urandom(5000))
        await s3.database.write(lambda tx: s3.publish(tx, "bucket", "a", kept, CALL))  # type: ignore[arg-type]
        assert await s3.collector.find_orphans() == 0  # Both are young.
        assert await s3.collector.find_orphans(grace_ms=-60_000) == 1
        assert await s3.collector.collect() == 1
        assert s3.blobs.exists(kept.blob_id)  # type: ignore[attr-defined]
        with pytest.raises(ContentCollectedError):
            await s3.database.write(lambda tx: s3.publish(tx, "bucket", "b", orphan, CALL))  # type: ignore[arg-type]
        assert await counts(s3) == (1, 1, 0)
        await s3.database.write(lambda tx: s3.delete_object(tx, "bucket", "a", CALL))
        assert await s3.collector.collect() == 0  # Its grace lasts.
        await s3.database.write(lambda tx: tx.execute("UPDATE s3_garbage SET due_at_ms = 0"))
        assert await s3.collector.collect() == 1
        assert not s3.blobs.exists(kept.blob_id)  # type: ignore[attr-defined]


async def test_collection_never_takes_what_is_being_committed(tmp_path: Path) -> None:
    """Collectors without any grace race publishers: whatever was published is there, whatever was refused was told."""
    async with opened(tmp_path) as (s3, _):
        published: dict[str, bytes] = {}
        refused = 0
        stop = asyncio.Event()

        async def publish(worker: int) -> None:
            nonlocal refused
            for number in range(12):
                data = os.urandom(2000)
                blob = await upload(s3, data)
                key = f"{worker}/{number}"
                try:
                    await s3.database.write(lambda tx, k=key, b=blob: s3.publish(tx, "bucket", k, b, CALL))
                    published[key] = data
                except ContentCollectedError:
                    refused += 1

        async def collect() -> None:
            collector = Collector(s3.database, s3.blobs)
            while not stop.is_set():
                await collector.find_orphans(grace_ms=-60_000)
                await collector.collect()

        collectors = [asyncio.create_task(collect()) for _ in range(2)]
        await asyncio.gather(*(publish(worker) for worker in range(6)))
        stop.set()
        await asyncio.gather(*collectors)
        assert len(published) + refused == 72
        for key, data in published.items():
            found = await s3.database.read(lambda reader, k=key: s3.get(reader, "bucket", k))
            assert await s3.read(found, 0, 5000) == data


async def test_scrub_finds_each_kind_of_damage(tmp_path: Path) -> None:
    async with opened(tmp_path) as (s3, _):
        blobs = {}
        for name in ("flipped", "short", "gone", "whole"):
            blobs[name] = await upload(s3, os.urandom(5000))
            await s3.database.write(lambda tx, n=name: s3.publish(tx, "bucket", n, blobs[n], CALL))
        for name in ("inline", "inline damaged"):
            await s3.database.write(lambda tx, n=name: s3.publish(tx, "bucket", n, blob_of(n.encode()), CALL))
        await s3.database.write(lambda tx: s3.copy_object(tx, s3.get(tx, "bucket", "flipped"), "bucket", "copy", CALL))
        assert (await scrub(s3.database, s3.blobs, lambda done, total: None)).damaged == ()
        paths = {name: next((tmp_path / "store").rglob(blob.blob_id)) for name, blob in blobs.items()}  # type: ignore[attr-defined]
        damaged = bytearray(paths["flipped"].read_bytes())
        damaged[2500] ^= 1
        paths["flipped"].write_bytes(damaged)
        os.truncate(paths["short"], 4999)
        paths["gone"].unlink()
        await s3.database.write(
            lambda tx: tx.execute("UPDATE s3_content SET data = ? WHERE data = ?", (b"?", b"inline damaged"))
        )
        told: list[tuple[int, int]] = []
        report = await scrub(s3.database, s3.blobs, lambda done, total: told.append((done, total)))
        assert {one.key for one in report.damaged} == {"flipped", "copy", "short", "gone", "inline damaged"}
        assert (report.checked, told[-1]) == (6, (6, 6))


async def test_a_workflow_that_starts_itself_by_its_copies_is_stopped(tmp_path: Path) -> None:
    role = Call(Principal("arn:aws:sts::000000000000:assumed-role/w/s", "role", "s", role_arn="w"), "request")
    user = replace(role, session_id="an SFTP session")
    async with opened(tmp_path) as (s3, _):

        def rounds(tx: Transaction) -> int:
            buckets.create(tx, "elsewhere")
            buckets.set_event_bridge(tx, "bucket", enabled=True)
            version = s3.publish(tx, "bucket", "k", blob_of(b"x"), user)
            for number in range(100):
                version = s3.copy_object(tx, version, "elsewhere", "delivered", role)
                assert version.attributes.copies == number
                version = s3.copy_object(tx, version, "bucket", f"{number}", user)
                version = s3.rename_object(tx, "bucket", version.key, f"{number}-renamed", user)
                try:
                    fresh = replace(NO_ATTRIBUTES, content_type="text/plain")
                    version = s3.copy_object(tx, version, "bucket", f"{number}-copied", role, attributes=fresh)
                except InvalidRequestError as error:
                    assert "seems to start itself" in error.message
                    return number
                assert version.attributes.content_type == "text/plain"
            return -1

        assert await s3.database.write(rounds) == COPIES_LIMIT
