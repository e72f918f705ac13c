"""What every adapter of the content store's port must do."""

import asyncio
import errno
import hashlib
import os
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from entrepot import clock
from entrepot.blobs import Blob
from entrepot.blobs import writer as writer_module
from entrepot.blobs.local import LocalBlobStore
from entrepot.errors import StorageError, StorageFullError

INLINE = 1000


@pytest.fixture(params=["local"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LocalBlobStore]:
    opened = LocalBlobStore(tmp_path, inline_limit_bytes=INLINE)
    yield opened
    await opened.close()


async def content(store: LocalBlobStore, blob: Blob) -> bytes:
    if blob.blob_id is None:
        assert blob.inline is not None
        return blob.inline
    return b"".join([piece async for piece in store.stream(blob.blob_id, 0, blob.size_bytes)])


async def put(store: LocalBlobStore, data: bytes, piece: int = 32_768) -> Blob:
    writer = store.create(md5=True, crc32=True)
    for offset in range(0, len(data), piece):
        await writer.write(offset, data[offset : offset + piece])
    return await writer.finish()


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]


@pytest.mark.parametrize("size", [0, 1, INLINE, INLINE + 1, 100_000, 9_000_000])
async def test_what_goes_in_comes_out_with_its_digests(store: LocalBlobStore, size: int) -> None:
    data = os.urandom(size)
    blob = await put(store, data)
    assert (blob.inline is None) == (size > INLINE)
    assert blob.size_bytes == size
    assert blob.sha256 == hashlib.sha256(data).digest()
    assert blob.md5 == hashlib.md5(data).digest()
    assert blob.crc32 == zlib.crc32(data)
    assert await content(store, blob) == data
    if blob.blob_id is not None:
        assert await store.read(blob.blob_id, 500, 700) == data[500:1200]
        assert await store.read(blob.blob_id, size - 5, 700) == data[-5:]
        assert await store.read(blob.blob_id, size + 5, 700) == b""
        assert await store.digest(blob.blob_id) == (blob.sha256, size)


OPERATION = st.one_of(
    st.tuples(st.just("write"), st.integers(0, 5000), st.binary(min_size=1, max_size=3000)),
    st.tuples(st.just("truncate"), st.integers(0, 5000), st.just(b"")),
    st.tuples(st.just("read"), st.integers(0, 5000), st.binary(min_size=1, max_size=3000)),
    st.tuples(st.just("flush"), st.just(0), st.just(b"")),
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=st.lists(OPERATION, max_size=12), batch=st.sampled_from([1, 4000]))
async def test_writes_in_any_order_give_what_a_file_would(
    tmp_path: Path, operations: list[tuple[str, int, bytes]], batch: int
) -> None:
    store, model = LocalBlobStore(tmp_path / "any", inline_limit_bytes=INLINE), bytearray()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer_module, "BATCH_BYTES", batch)
        patch.setattr(writer_module, "IN_FLIGHT_LIMIT_BYTES", 4000)
        writer = store.create()
        for name, offset, data in operations:
            if name == "write":
                await writer.write(offset, data)
                model.extend(bytes(max(0, offset - len(model))))
                model[offset : offset + len(data)] = data
            elif name == "truncate":
                await writer.truncate(offset)
                del model[offset:]
                model.extend(bytes(offset - len(model)))
            elif name == "read":
                assert await writer.read(offset, len(data)) == model[offset : offset + len(data)]
            else:
                await writer.flush()
            assert writer.size_bytes == len(model)
        blob = await writer.finish()
    assert await content(store, blob) == model
    assert blob.sha256 == hashlib.sha256(model).digest()
    await store.close()


async def test_abort_leaves_nothing(store: LocalBlobStore, tmp_path: Path) -> None:
    writer = store.create()
    await writer.write(0, os.urandom(3_000_000))
    await writer.abort()
    await writer.abort()
    assert files(tmp_path) == []


async def test_interrupted_content_goes_on(store: LocalBlobStore, tmp_path: Path) -> None:
    data = os.urandom(2_000_000)
    for cut in (10, 1_500_000):
        writer = store.create()
        await writer.write(0, data[:cut])
        parked = await writer.park()
        assert parked is not None
        again = await store.resume(parked)
        assert again.size_bytes == cut
        assert await again.read(0, 10) == data[:10]
        await again.write(cut, data[cut:])
        blob = await again.finish()
        assert (blob.size_bytes, blob.sha256) == (len(data), hashlib.sha256(data).digest())
        with pytest.raises(FileNotFoundError):
            await store.resume(parked)
    for strange in ("nothing", "../content", ""):
        with pytest.raises(FileNotFoundError):
            await store.resume(strange)
    assert await store.create().park() is None


async def test_concatenation(store: LocalBlobStore) -> None:
    pieces = [os.urandom(size) for size in (2_500_000, 10, 0, 5_000)]
    blobs = [await put(store, piece) for piece in pieces]
    whole = await store.concatenate(blobs)
    assert await content(store, whole) == b"".join(pieces)
    assert whole.sha256 == hashlib.sha256(b"".join(pieces)).digest()
    assert await content(store, blobs[0]) == pieces[0]


async def test_removed_content_is_gone_but_not_for_who_reads(store: LocalBlobStore) -> None:
    data = os.urandom(1_000_000)
    blob = await put(store, data)
    assert blob.blob_id is not None
    assert store.exists(blob.blob_id)
    stream = store.stream(blob.blob_id, 0, len(data))
    await anext(stream)
    await store.remove(blob.blob_id)
    await store.remove(blob.blob_id)
    assert not store.exists(blob.blob_id)
    with pytest.raises(StorageError, match="could not be read"):
        await store.read(blob.blob_id, 0, 10)
    with pytest.raises(StorageError):
        await store.digest(blob.blob_id)


async def test_ids_are_listed_by_age(store: LocalBlobStore) -> None:
    blob = await put(store, os.urandom(5000))
    now_ms = clock.now_ms()
    assert [ids async for ids in store.list_ids(older_than_ms=now_ms - 60_000)] == []
    assert [ids async for ids in store.list_ids(older_than_ms=now_ms + 60_000)] == [[blob.blob_id]]


async def test_a_sweep_takes_the_dead_and_the_expired_only(store: LocalBlobStore, tmp_path: Path) -> None:
    alive = store.create()
    await alive.write(0, os.urandom(2_000_000))
    await alive.flush()
    kept = await (await _written(store)).park()
    expired = await (await _written(store)).park()
    assert kept and expired
    os.utime(tmp_path / "parked" / expired, (1, 1))
    dead = tmp_path / "temporary" / "dead"
    dead.mkdir()
    (dead / "file").write_bytes(b"x")
    (tmp_path / "temporary" / "dead.lock").touch()
    assert await store.sweep() == 2
    assert not dead.exists()
    assert [path.name for path in files(tmp_path / "parked")] == [kept]
    assert (await alive.finish()).size_bytes == 2_000_000


async def _written(store: LocalBlobStore) -> writer_module.LocalBlobWriter:
    writer = store.create()
    await writer.write(0, bytes(2000))
    return writer


@pytest.mark.parametrize(
    ("call", "number", "expected"),
    [
        ("pwrite", errno.ENOSPC, StorageFullError),
        ("pwrite", errno.EDQUOT, StorageFullError),
        ("pwrite", errno.EIO, StorageError),
        ("fdatasync", errno.EIO, StorageError),
        ("fdatasync", errno.ENOSPC, StorageFullError),
        ("fsync", errno.EIO, StorageError),
    ],
)
async def test_a_failing_disk_is_told_and_passes(
    store: LocalBlobStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    number: int,
    expected: type[StorageError],
) -> None:
    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    data = os.urandom(3_000_000)
    await put(store, data)  # The content's folder exists from now on.
    writer = store.create()
    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(expected):
            for offset in range(0, len(data), 32_768):
                await writer.write(offset, data[offset : offset + 32_768])
            await writer.finish()
        await writer.abort()
    assert files(tmp_path / "temporary") == []
    assert await content(store, await put(store, data)) == data


async def test_a_writer_holds_a_bounded_amount(store: LocalBlobStore) -> None:
    writer = store.create()
    for number in range(64):
        await writer.write(number * 1_000_000, bytes(1_000_000))
        assert writer._waiting_bytes + writer._running_bytes <= writer_module.IN_FLIGHT_LIMIT_BYTES
    await writer.abort()


async def test_many_writers_at_once(store: LocalBlobStore) -> None:
    data = [os.urandom(200_000 + number) for number in range(24)]
    blobs = await asyncio.gather(*(put(store, one) for one in data))
    for one, blob in zip(data, blobs, strict=True):
        assert await content(store, blob) == one
