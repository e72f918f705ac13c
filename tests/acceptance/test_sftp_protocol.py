"""Corner cases of the protocol, by hand-made packets: what no stock client sends, and connections that die."""

import asyncio
import os
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import asyncssh
import pytest

from entrepot.blobs import Blob
from entrepot.errors import StorageFullError
from entrepot.operations import Decision, Permission, Principal
from entrepot.services.s3 import buckets
from entrepot.sftp import wire
from entrepot.sftp.status import BAD_MESSAGE, EOF, FAILURE, NO_SUCH_FILE, OK, OP_UNSUPPORTED, PERMISSION_DENIED
from tests.acceptance.sftp_site import BUCKET, SETTINGS, Site, demo_user, running, until
from tests.acceptance.sftp_wire import WireClient, text, wire_client

W, R = wire.OPEN_WRITE, wire.OPEN_READ
NEW = wire.OPEN_WRITE | wire.OPEN_CREATE | wire.OPEN_TRUNCATE


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with running(tmp_path) as site:
        yield site


@asynccontextmanager
async def client_of(site: Site) -> AsyncIterator[WireClient]:
    async with site.connect() as connection, wire_client(connection) as client:
        yield client


@pytest.fixture
async def client(site: Site) -> AsyncIterator[WireClient]:
    async with client_of(site) as client:
        yield client


async def sessions_ended(site: Site) -> None:
    await until(lambda: not site.server.gate.logins)


async def put(client: WireClient, path: bytes, data: bytes) -> None:
    handle = await client.open(path, NEW)
    for offset in range(0, len(data), 200_000):
        assert await client.write(handle, offset, data[offset : offset + 200_000]) == OK
    assert await client.close(handle) == OK


# ── only CLOSE publishes ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("size_bytes", [10, 1_500_000])
async def test_a_connection_that_dies_before_close_publishes_nothing(site: Site, size_bytes: int) -> None:
    data = os.urandom(size_bytes)
    async with client_of(site) as client:
        handle = await client.open(b"f", NEW)
        for offset in range(0, size_bytes, 200_000):
            assert await client.write(handle, offset, data[offset : offset + 200_000]) == OK
        client.kill()
        await sessions_ended(site)
    assert await site.keys() == []
    assert site.created == []


async def test_a_channel_that_ends_without_close_publishes_nothing(site: Site) -> None:
    async with client_of(site) as client:
        handle = await client.open(b"f", NEW)
        assert await client.write(handle, 0, b"data") == OK
        client._writer.write_eof()
        with pytest.raises(asyncio.IncompleteReadError):
            await client.reply()
    await sessions_ended(site)
    assert await site.keys() == []


async def test_half_a_close_packet_publishes_nothing(site: Site) -> None:
    async with client_of(site) as client:
        handle = await client.open(b"f", NEW)
        assert await client.write(handle, 0, b"data") == OK
        whole = struct.pack(">IBI", 9 + len(handle), wire.CLOSE, 99) + text(handle)
        client.send_raw(whole[:-1])
        client.kill()
        await sessions_ended(site)
    assert await site.keys() == []


async def test_the_reply_to_close_comes_after_the_commit(site: Site) -> None:
    async with client_of(site) as client:
        await put(client, b"f", b"data")
        assert await site.content("home/f") == b"data"


async def test_close_that_arrived_is_honoured_though_the_client_went_away(site: Site) -> None:
    async with client_of(site) as client:
        handle = await client.open(b"f", NEW)
        client.send_write(handle, 0, b"data")
        client.send(wire.CLOSE, text(handle))
        client._writer.write_eof()
        await until(lambda: site.log("CLOSE"))
    assert await site.content("home/f") == b"data"


# ── resume ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_cut_off_upload_can_be_resumed_by_its_user_alone(site: Site) -> None:
    data = os.urandom(700_000)
    async with client_of(site) as client:
        handle = await client.open(b"f", NEW)
        for offset in range(0, 400_000, 100_000):
            assert await client.write(handle, offset, data[offset : offset + 100_000]) == OK
        client.kill()
        await sessions_ended(site)
    other = demo_user(user_name="other")
    await site.put_user(other)
    async with site.connect("other") as connection, wire_client(connection) as stranger:
        assert await stranger.status(wire.STAT, text(b"f")) == NO_SUCH_FILE
        assert await stranger.open_status(b"f", W) == NO_SUCH_FILE
    assert await site.head("home/f") is None
    (site.folder / "f").write_bytes(data)
    output = await site.sftp("ls -l f", "reput f f")
    assert "400000" in output
    assert await site.content("home/f") == data
    rows = await site.database.read(lambda reader: reader.all("SELECT * FROM partial_upload"))
    assert rows == []


@pytest.mark.parametrize("loss", [None, 150_000], ids=["gone", "shorter than recorded"])
async def test_what_cannot_be_resumed_is_refused_once_and_then_begins_anew(site: Site, loss: int | None) -> None:
    """A client that saw the recorded size writes from there on: taken, that would publish a hole."""
    async with client_of(site) as client:
        handle = await client.open(b"f", NEW)
        assert await client.write(handle, 0, os.urandom(200_000)) == OK
        client.kill()
        await sessions_ended(site)
    (parked,) = (site.folder / "content" / "parked").iterdir()
    if loss is None:
        parked.unlink()
    else:
        os.truncate(parked, loss)
    async with client_of(site) as client:
        assert await client.open_status(b"f", W) == FAILURE
        assert await client.status(wire.STAT, text(b"f")) == NO_SUCH_FILE
        await put(client, b"f", b"new")
    assert await site.content("home/f") == b"new"


async def test_a_new_upload_replaces_what_was_parked(site: Site) -> None:
    async with client_of(site) as client:
        handle = await client.open(b"f", NEW)
        assert await client.write(handle, 0, os.urandom(200_000)) == OK
        client.kill()
        await sessions_ended(site)
    assert list((site.folder / "content" / "parked").iterdir())
    async with client_of(site) as client:
        await put(client, b"f", b"new")
    assert await site.content("home/f") == b"new"
    assert await site.database.read(lambda reader: reader.all("SELECT * FROM partial_upload")) == []
    assert list((site.folder / "content" / "parked").iterdir()) == []


async def test_uploads_with_holes_and_overwritten_objects_are_not_parked(site: Site) -> None:
    async with client_of(site) as client:
        await put(client, b"old", b"old")
        holes = await client.open(b"holes", NEW)
        assert await client.write(holes, 100_000, bytes(100_000)) == OK
        old = await client.open(b"old", NEW)
        assert await client.write(old, 0, bytes(100_000)) == OK
        client.kill()
        await sessions_ended(site)
    assert await site.content("home/old") == b"old"
    assert await site.database.read(lambda reader: reader.all("SELECT * FROM partial_upload")) == []


# ── open modes ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_open_modes(site: Site, client: WireClient) -> None:
    assert await client.open_status(b"f", R) == NO_SUCH_FILE
    assert await client.open_status(b"f", W) == NO_SUCH_FILE
    await put(client, b"f", b"0123456789")
    assert await client.open_status(b"f", NEW | wire.OPEN_EXCLUSIVE) == FAILURE
    assert await client.open_status(b"f/", NEW) == FAILURE
    assert await client.open_status(b"/", NEW) == FAILURE
    assert await client.open_status(b".", R) == FAILURE

    handle = await client.open(b"f", W | wire.OPEN_CREATE)
    assert await client.write(handle, 2, b"xx") == OK
    assert await client.write(handle, 12, b"yy") == OK
    assert await client.close(handle) == OK
    assert await site.content("home/f") == b"01xx456789\0\0yy"

    handle = await client.open(b"f", W | wire.OPEN_APPEND)
    assert await client.write(handle, 0, b"end") == OK
    assert await client.close(handle) == OK
    assert await site.content("home/f") == b"01xx456789\0\0yyend"

    handle = await client.open(b"f", R | W)
    assert await client.read(handle, 0, 4) == b"01xx"
    assert await client.write(handle, 0, b"ZZ") == OK
    assert await client.read(handle, 0, 4) == b"ZZxx"
    assert await client.read(handle, 100, 4) == EOF
    assert await client.close(handle) == OK

    handle = await client.open(b"f", R)
    assert await client.write(handle, 0, b"x") == PERMISSION_DENIED
    assert await client.close(handle) == OK
    handle = await client.open(b"f", W)
    assert await client.read(handle, 0, 1) == PERMISSION_DENIED
    events = len(site.created)
    assert await client.close(handle) == OK
    assert len(site.created) == events, "closing without a write publishes nothing"
    assert await client.close(handle) == FAILURE


async def test_exclusive_creation_is_decided_at_close_too(site: Site) -> None:
    async with client_of(site) as first, client_of(site) as second:
        flags = NEW | wire.OPEN_EXCLUSIVE
        one, two = await first.open(b"f", flags), await second.open(b"f", flags)
        assert await first.write(one, 0, b"one") == OK
        assert await second.write(two, 0, b"two") == OK
        assert await first.close(one) == OK
        assert await second.close(two) == FAILURE
    assert await site.content("home/f") == b"one"


async def test_a_bucket_deleted_under_an_upload_refuses_it_and_keeps_nothing(site: Site, client: WireClient) -> None:
    handle = await client.open(b"f", NEW)
    assert await client.write(handle, 0, os.urandom(200_000)) == OK
    await site.database.write(lambda tx: buckets.delete(tx, BUCKET))
    assert await client.close(handle) in (FAILURE, NO_SUCH_FILE)
    assert [path for path in site.folder.rglob("content/*/*/*") if path.is_file()] == []


async def test_a_reader_keeps_what_it_opened(site: Site, client: WireClient) -> None:
    for size in (1000, 2_000_000):
        old, new = os.urandom(size), os.urandom(size)
        await put(client, b"f", old)
        handle = await client.open(b"f", R)
        assert await client.read(handle, 0, 100) == old[:100]
        await put(client, b"f", new)
        assert await client.status(wire.REMOVE, text(b"f")) == OK
        got = b""
        while isinstance(block := await client.read(handle, len(got), 100_000), bytes):
            got += block
        assert got == old
        assert await client.read(handle, size - 10, 100) == old[-10:]
        assert await client.close(handle) == OK


async def test_pipelined_requests_of_many_files(site: Site, client: WireClient) -> None:
    handles = [await client.open(b"f%d" % number, NEW) for number in range(50)]
    for number, handle in enumerate(handles):
        client.send_write(handle, 0, b"%d" % number)
        client.send(wire.CLOSE, text(handle))
    client.send(wire.STAT, text(b"f49"))
    replies = [await client.reply() for _ in range(101)]
    assert all(body[:4] == bytes(4) for kind, _, body in replies if kind == wire.STATUS)
    assert [kind for kind, _, _ in replies].count(wire.ATTRS) == 1
    assert replies[-1][0] == wire.ATTRS, "a stat behind the CLOSEs sees their effect"
    assert len(await site.keys()) == 50


async def test_two_handles_of_one_file_the_later_close_wins(site: Site, client: WireClient) -> None:
    for _ in range(5):
        one, two = await client.open(b"f", NEW), await client.open(b"f", NEW)
        client.send_write(one, 0, os.urandom(200_000))
        client.send_write(two, 0, b"two")
        client.send(wire.CLOSE, text(one))
        client.send(wire.CLOSE, text(two))
        for _ in range(4):
            await client.reply()
        assert await site.content("home/f") == b"two"


# ── attributes ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_setstat(site: Site, client: WireClient) -> None:
    await put(client, b"f", b"0123456789")
    size = struct.pack(">IQ", wire.ATTR_SIZE, 4)
    assert await client.status(wire.SETSTAT, text(b"f") + size) == OK
    assert await site.content("home/f") == b"0123"
    longer = struct.pack(">IQ", wire.ATTR_SIZE, 6)
    assert await client.status(wire.SETSTAT, text(b"f") + longer) == OK
    assert await site.content("home/f") == b"0123\0\0"
    owner_and_mode = struct.pack(">IIII", wire.ATTR_UIDGID | wire.ATTR_PERMISSIONS, 1, 2, 0o600)
    assert await client.status(wire.SETSTAT, text(b"f") + owner_and_mode) == OK
    times = struct.pack(">III", wire.ATTR_TIMES, 5, 7)
    events = len(site.created)
    assert await client.status(wire.SETSTAT, text(b"f") + times) == OK
    version = await site.head("home/f")
    assert version is not None
    assert version.mtime_ms == 7000
    assert len(site.created) == events
    assert await client.status(wire.SETSTAT, text(b"none") + times) == NO_SUCH_FILE
    assert await client.status(wire.SETSTAT, text(b".") + times) == OK


async def test_a_file_that_is_mostly_holes_is_refused(site: Site, client: WireClient) -> None:
    """One byte far out costs its client nothing, and would keep a thread of the server busy for hours."""
    handle = await client.open(b"f", NEW)
    assert await client.write(handle, (5 << 40) - 1, b"x") == OK
    assert await client.close(handle) == FAILURE
    handle = await client.open(b"f", NEW | R)
    assert await client.write(handle, 1 << 40, b"x") == OK
    copy = await client.open(b"g", NEW)
    everything = text(handle) + struct.pack(">QQ", 0, 0) + text(copy) + struct.pack(">Q", 0)
    assert (await client.extended(b"copy-data", everything))[1][:4] == FAILURE.to_bytes(4, "big")
    assert await client.close(handle) == FAILURE
    assert await client.write(copy, (5 << 40), b"x") == FAILURE
    assert await client.write(copy, (1 << 64) - 1, b"x") == FAILURE
    assert await client.close(copy) == OK
    assert await client.status(wire.SETSTAT, text(b"g") + struct.pack(">IQ", wire.ATTR_SIZE, 1 << 40)) == FAILURE
    assert await site.content("home/g") == b""
    assert await site.keys() == ["home/g"]


async def test_space_reserved_beforehand_is_fine_once_it_is_filled(site: Site, client: WireClient) -> None:
    handle = await client.open(b"f", NEW)
    size = 65 << 20
    assert await client.status(wire.FSETSTAT, text(handle) + struct.pack(">IQ", wire.ATTR_SIZE, size)) == OK
    for offset in reversed(range(0, size, 128 << 10)):
        client.send_write(handle, offset, bytes(128 << 10))
    for _ in range(0, size, 128 << 10):
        assert int.from_bytes((await client.reply())[2][:4], "big") == OK
    assert await client.close(handle) == OK
    version = await site.head("home/f")
    assert version is not None and version.size_bytes == size


async def test_own_open_upload_can_be_asked_about(site: Site, client: WireClient) -> None:
    handle = await client.open(b"f", NEW)
    assert await client.write(handle, 0, b"12345") == OK
    kind, attributes = await client.ask(wire.STAT, text(b"f"))
    assert kind == wire.ATTRS
    assert struct.unpack_from(">IQ", attributes)[1] == 5
    assert await client.status(wire.SETSTAT, text(b"f") + struct.pack(">III", wire.ATTR_TIMES, 5, 7)) == OK
    async with client_of(site) as other:
        assert await other.status(wire.STAT, text(b"f")) == NO_SUCH_FILE
    assert await client.close(handle) == OK
    version = await site.head("home/f")
    assert version is not None
    assert version.mtime_ms == 7000


async def test_extensions(site: Site, client: WireClient) -> None:
    assert client.extensions[b"limits@openssh.com"] == b"1"
    kind, body = await client.extended(b"limits@openssh.com", b"")
    assert kind == wire.EXTENDED_REPLY
    assert struct.unpack(">QQQQ", body)[3] == SETTINGS.handles_per_session
    handle = await client.open(b"f", NEW)
    assert await client.write(handle, 0, os.urandom(100_000)) == OK
    kind, body = await client.extended(b"fsync@openssh.com", text(handle))
    assert (kind, body[:4]) == (wire.STATUS, bytes(4))
    assert await site.head("home/f") is None
    kind, body = await client.extended(b"fstatvfs@openssh.com", text(handle))
    assert kind == wire.EXTENDED_REPLY
    assert await client.close(handle) == OK
    assert (await client.extended(b"nonsense", b""))[1][:4] == OP_UNSUPPORTED.to_bytes(4, "big")
    assert await client.status(wire.READLINK, text(b"f")) == OP_UNSUPPORTED
    assert await client.status(wire.SYMLINK, text(b"f") + text(b"g")) == OP_UNSUPPORTED
    assert await client.status(77, b"") == OP_UNSUPPORTED


async def test_realpath_stays_inside(client: WireClient) -> None:
    for raw, expected in (
        (b".", f"/{BUCKET}/home"),
        (b"../../../..", "/"),
        (b"a/./b//../c", f"/{BUCKET}/home/a/c"),
        (b"/x/../../y", "/y"),
    ):
        kind, body = await client.ask(wire.REALPATH, text(raw))
        assert kind == wire.NAME
        fields = wire.Fields(body)
        assert fields.u32() == 1
        assert fields.string() == expected.encode()


async def test_hostile_paths(client: WireClient) -> None:
    for path in (b"\xff\xfe", b"a\0b", b"new\nline", b"\x1b[2J"):
        assert await client.open_status(path, NEW) == FAILURE
    assert await client.open_status(b"x" * 5000, NEW) == BAD_MESSAGE
    handle = await client.open(b"x" * 1100, NEW)
    assert await client.close(handle) == FAILURE
    assert await client.status(wire.STAT, text(b"f")[:-1] + b"") == BAD_MESSAGE


@pytest.mark.parametrize(
    "raw", [struct.pack(">IBI", 1 << 30, wire.WRITE, 1), struct.pack(">IBI", 0, 1, 1), b"GET / HTTP/1.1\r\n\r\n"]
)
async def test_malformed_packets_end_the_channel(site: Site, raw: bytes) -> None:
    async with client_of(site) as client:
        handle = await client.open(b"f", NEW)
        assert await client.write(handle, 0, b"data") == OK
        client.send_raw(raw)
        with pytest.raises(asyncio.IncompleteReadError):
            await client.reply()
    await sessions_ended(site)
    assert await site.keys() == []
    assert any("protocol error" in str(line["message"]) for line in site.log("ERROR"))


# ── listing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def names_of(client: WireClient, path: bytes) -> list[bytes]:
    kind, handle = await client.ask(wire.OPENDIR, text(path))
    assert kind == wire.HANDLE
    names = []
    while True:
        kind, body = await client.ask(wire.READDIR, handle)
        if kind == wire.STATUS:
            assert int.from_bytes(body[:4], "big") == EOF
            return names
        fields = wire.Fields(body)
        for _ in range(fields.u32()):
            names.append(fields.string())
            fields.string()
            fields.attributes()


async def test_listing_in_pages(site: Site, client: WireClient) -> None:
    empty = Blob(None, b"", 0, bytes(32))
    keys = [f"home/d/{number:05d}" for number in range(1234)]
    # Awkward neighbours: a file and a folder of one name, names that SFTP cannot say, an empty segment.
    keys += ["home/d/a", "home/d/a-b", "home/d/a/x", "home/d/a.c", "home/d//x", "home/d/../y", "home/d/bad\nname"]
    call = site.server.gate.logins
    session = next(iter(call.values())).session
    assert session is not None
    await site.database.write(lambda tx: [site.s3.publish(tx, BUCKET, key, empty, session.call()) for key in keys])
    names = await names_of(client, b"d")
    assert names == [f"{number:05d}".encode() for number in range(1234)] + [b"a", b"a-b", b"a.c"]
    assert await client.status(wire.OPENDIR, text(b"none")) == NO_SUCH_FILE
    assert await client.status(wire.OPENDIR, text(b"d/00001")) == FAILURE
    assert await names_of(client, b"/") == [BUCKET.encode()]


# ── permission ───────────────────────────────────────────────────────────────────────────────────────────────────────


def home_only(principal: Principal, permission: Permission) -> Decision:
    home = f"arn:aws:s3:::{principal.variables['transfer:HomeDirectory']}/"
    if permission.action == "s3:ListBucket":
        allowed = permission.context["s3:prefix"].startswith(principal.variables["transfer:HomeFolder"] + "/")
    else:
        allowed = permission.resource.startswith(home) and "secret" not in permission.resource
    return Decision(allowed, "role/sftp#Home", "" if allowed else "no statement allows it")


async def test_outside_the_home_everything_is_denied_and_audited(tmp_path: Path) -> None:
    async with running(tmp_path, authorize=home_only) as site, client_of(site) as client:
        await put(client, b"f", b"x")
        outside = text(b"/source-bucket/homeother/f")
        for kind in (wire.STAT, wire.OPENDIR, wire.REMOVE, wire.RMDIR):
            assert await client.status(kind, outside) == PERMISSION_DENIED
        assert await client.status(wire.MKDIR, outside + struct.pack(">I", 0)) == PERMISSION_DENIED
        assert await client.open_status(b"../homeother/f", R) == PERMISSION_DENIED
        assert await client.open_status(b"../homeother/f", NEW) == PERMISSION_DENIED
        assert await client.status(wire.RENAME, text(b"f") + outside) == PERMISSION_DENIED
        # The same answer whether or not something is there.
        assert await client.status(wire.RENAME, outside + text(b"g")) == PERMISSION_DENIED
        assert await client.status(wire.OPENDIR, text(b"/source-bucket")) == PERMISSION_DENIED
        denied = site.log("ERROR")
        assert {line["statement"] for line in denied} == {"role/sftp#Home"}
        assert {"OPEN", "OPENDIR", "STAT", "DELETE", "MKDIR", "RMDIR", "RENAME"} <= {
            line["operation"] for line in denied
        }


async def test_a_folder_with_one_forbidden_file_is_not_renamed_at_all(tmp_path: Path) -> None:
    async with running(tmp_path, authorize=home_only) as site, client_of(site) as client:
        await put(client, b"d/1", b"x")
        empty = Blob(None, b"", 0, bytes(32))
        session = next(iter(site.server.gate.logins.values())).session
        assert session is not None
        await site.database.write(lambda tx: site.s3.publish(tx, BUCKET, "home/d/secret", empty, session.call()))
        assert await client.status(wire.RENAME, text(b"d") + text(b"e")) == PERMISSION_DENIED
        assert await site.keys() == ["home/d/1", "home/d/secret"]


# ── limits and failures ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_handles_are_limited(tmp_path: Path) -> None:
    async with running(tmp_path, settings=replace(SETTINGS, handles_per_session=3)) as site, client_of(site) as client:
        handles = [await client.open(b"f%d" % number, NEW) for number in range(3)]
        assert await client.open_status(b"g", NEW) == FAILURE
        assert await client.status(wire.OPENDIR, text(b".")) == FAILURE
        assert await client.close(handles[0]) == OK
        assert await client.close(await client.open(b"g", NEW)) == OK


async def test_refused_commands_take_no_channels_away(site: Site) -> None:
    """Some clients ask for `md5sum` on the connection whose SFTP channels they go on with."""
    async with site.connect() as connection:
        for _ in range(2 * SETTINGS.channels_per_session):
            assert (await connection.run("md5sum f", check=False)).exit_status == 1
        async with wire_client(connection) as client:
            await put(client, b"f", b"x")


async def test_sessions_of_a_user_are_limited_and_listed(tmp_path: Path) -> None:
    async with running(tmp_path, settings=replace(SETTINGS, sessions_per_user=2)) as site:
        async with client_of(site) as first, client_of(site):
            with pytest.raises(asyncssh.Error):
                async with client_of(site):
                    pass
            await site.server.gate.wait_for_tasks(5)
            live = await site.transfer.live_sessions()
            assert [session.start.user_name for session in live] == ["demo", "demo"]
            assert live[0].start.source_ip == "127.0.0.1"
            await put(first, b"f", b"12345")
        await sessions_ended(site)
        await site.server.gate.wait_for_tasks(5)
        assert await site.transfer.live_sessions() == []
        assert sum(session.totals.bytes_in for session in await site.transfer.sessions()) == 5


async def test_an_operator_ends_a_session(site: Site) -> None:
    async with client_of(site) as client:
        await put(client, b"f", b"x")
        await site.server.gate.wait_for_tasks(5)
        (session,) = await site.transfer.live_sessions()
        assert await site.transfer.disconnect(session.start.session_id)
        await sessions_ended(site)
        await site.server.gate.wait_for_tasks(5)
    (ended,) = await site.transfer.sessions()
    assert ended.reason == "disconnected by an operator"
    assert not await site.transfer.disconnect(session.start.session_id)


async def test_a_full_disk_is_reported_and_nothing_is_published(site: Site, client: WireClient) -> None:
    handle = await client.open(b"f", NEW)
    assert await client.write(handle, 0, b"data") == OK
    writer = next(iter(site.server.gate.logins.values())).channels[0].files.upload_at
    upload = writer(next(iter(client_places(site))))
    assert upload is not None
    assert upload._writer is not None

    async def finish() -> Blob:
        raise StorageFullError("no room")

    upload._writer.finish = finish  # type: ignore[method-assign]
    _, body = await client.ask(wire.CLOSE, text(handle))
    assert int.from_bytes(body[:4], "big") == FAILURE
    assert b"No space left on the server" in body
    assert await site.keys() == []
    await put(client, b"f", b"room again")
    assert await site.content("home/f") == b"room again"


def client_places(site: Site):
    for login in site.server.gate.logins.values():
        for channel in login.channels:
            for file in channel.files._files.values():
                yield file.at


async def test_draining_lets_open_uploads_finish(site: Site) -> None:
    async with client_of(site) as client:
        handle = await client.open(b"f", NEW)
        assert await client.write(handle, 0, b"data") == OK
        stopping = asyncio.create_task(site.server.stop())
        await until(lambda: site.server._draining)
        assert await client.open_status(b"g", NEW) == FAILURE
        assert await client.write(handle, 4, b"more") == OK
        assert await client.close(handle) == OK
        await stopping
    assert await site.content("home/f") == b"datamore"


async def test_a_flood_of_requests_is_held_back(site: Site) -> None:
    """A client that asks for much and reads nothing keeps the server's memory bounded."""
    data = os.urandom(2_000_000)
    async with client_of(site) as client:
        await put(client, b"f", data)
        handle = await client.open(b"f", R)
        request = text(handle) + struct.pack(">QI", 0, 261_000)
        for _ in range(3000):
            client.send(wire.READ, request)
        channel = next(iter(site.server.gate.logins.values())).channels[0]
        await until(lambda: not channel._writable.is_set())
        assert channel._chan is not None
        assert channel._chan.get_write_buffer_size() < 2_000_000
        assert channel._queued_bytes < 2 * SETTINGS.queued_bytes_per_session
        client.kill()
        await sessions_ended(site)


async def test_a_write_that_fails_late_is_told_at_the_next_write_and_at_close(site: Site, client: WireClient) -> None:
    handle = await client.open(b"f", NEW)
    assert await client.write(handle, 0, b"data") == OK
    upload = next(iter(site.server.gate.logins.values())).channels[0].files.upload_at(next(iter(client_places(site))))
    assert upload is not None
    assert upload._writer is not None

    async def write(offset_bytes: int, data: bytes) -> None:
        raise StorageFullError("no room")

    upload._writer.write = write  # type: ignore[method-assign]
    assert await client.write(handle, 4, b"more") == FAILURE
    assert await client.write(handle, 8, b"more") == FAILURE
    _, body = await client.ask(wire.CLOSE, text(handle))
    assert b"No space left on the server" in body
    assert await site.keys() == []
    assert list((site.folder / "content" / "parked").iterdir()) == []


async def test_a_peer_that_answers_no_keep_alive_is_taken_for_dead(tmp_path: Path) -> None:
    settings = replace(SETTINGS, keepalive_interval_s=0.05, keepalive_count=1)
    async with running(tmp_path, settings=settings) as site, client_of(site) as client:
        handle = await client.open(b"f", NEW)
        assert await client.write(handle, 0, b"data") == OK
        transport = client.connection._transport
        assert transport is not None
        transport.pause_reading()
        await sessions_ended(site)
        assert await site.keys() == []
        client.kill()
