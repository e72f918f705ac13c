"""What the server says before login, judged by ssh-audit; and how it treats strangers."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import asyncssh
import pytest

from entrepot import __version__
from entrepot.database import Reader
from entrepot.sftp import algorithms
from tests.acceptance.sftp_site import KEYS, SETTINGS, Site, run, running, until

POLICY = Path(__file__).with_name("ssh-audit.policy")

NIST_CURVES = "nistp"
"""AWS's policy has them; ssh-audit fails them for the suspicion that their constants were chosen."""


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with running(tmp_path) as site:
        yield site


async def test_ssh_audit_passes_the_policy(site: Site) -> None:
    output = await audit(site, "--policy", str(POLICY))
    assert "Passed" in output


async def test_ssh_audit_fails_nothing_but_the_nist_curves(site: Site) -> None:
    report = json.loads(await audit(site, "--json", check=False))
    assert report["banner"]["raw"] == f"SSH-2.0-Entrepot_{__version__}"
    assert report["compression"] == ["none"]
    failed = {
        entry["algorithm"]
        for kind in ("kex", "key", "enc", "mac")
        for entry in report[kind]
        if "fail" in entry.get("notes", {})
    }
    assert failed
    assert all(NIST_CURVES in name for name in failed), failed
    assert {entry["algorithm"] for entry in report["enc"]} == set(algorithms.CIPHERS)
    assert {entry["algorithm"] for entry in report["mac"]} == set(algorithms.MACS)
    offered = {entry["algorithm"] for entry in report["kex"]}
    assert offered == {*algorithms.KEY_EXCHANGES, "ext-info-s", "kex-strict-s-v00@openssh.com"}


async def audit(site: Site, *options: str, check: bool = True) -> str:
    command = Path(sys.executable).with_name("ssh-audit")
    return await run(
        str(command), "--skip-rate-test", *options, "-p", str(site.port), "127.0.0.1", cwd=site.folder, check=check
    )


async def test_only_public_keys_are_offered(site: Site) -> None:
    output = await run(
        "ssh", "-F", "none", "-o", "BatchMode=yes", "-o", "PreferredAuthentications=none", "-o",
        "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-p", str(site.port), "demo@127.0.0.1",
        cwd=site.folder, check=False,
    )  # fmt: skip
    assert "(publickey)" in output


async def test_six_refused_keys_end_the_connection(site: Site) -> None:
    keys = [asyncssh.generate_private_key("ssh-ed25519") for _ in range(7)]
    with pytest.raises(asyncssh.DisconnectError, match="Too many authentication failures"):
        await asyncssh.connect("127.0.0.1", site.port, username="demo", client_keys=keys, known_hosts=None, config=None)
    # asyncssh asks with each key; the sixth refusal ends it.
    assert len(site.log("AUTH_FAILURE")) == 6


async def test_a_user_who_is_not_there_is_looked_for_like_one_who_is(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same queries run, and the answers are the same: nothing tells the names that exist."""
    counts: list[list[str]] = []
    read = site.database.read

    async def counting(work):  # type: ignore[no-untyped-def]
        class Counting:
            def __init__(self, reader: Reader) -> None:
                self.reader = reader

            def one(self, sql, parameters=()):  # type: ignore[no-untyped-def]
                counts[-1].append(sql)
                return self.reader.one(sql, parameters)

            def all(self, sql, parameters=()):  # type: ignore[no-untyped-def]
                counts[-1].append(sql)
                return self.reader.all(sql, parameters)

        return await read(lambda reader: work(Counting(reader)))

    monkeypatch.setattr(site.database, "read", counting)
    errors = []
    for user in ("demo", "nobody", "x", "ü" * 50):
        counts.append([])
        with pytest.raises(asyncssh.PermissionDenied) as caught:
            await asyncssh.connect(
                "127.0.0.1", site.port, username=user, client_keys=[KEYS["other"]], known_hosts=None, config=None
            )
        errors.append(str(caught.value).replace(user, "U"))
    assert len(set(errors)) == 1
    assert len(counts[0]) == 2
    assert all(queries == counts[0] for queries in counts)


async def test_login_grace(tmp_path: Path) -> None:
    async with running(tmp_path, settings=replace(SETTINGS, login_grace_s=0.2)) as site:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        async with asyncio.timeout(5):
            assert (await reader.read(1000)).startswith(b"SSH-2.0-Entrepot_")
            while await reader.read(1000):
                pass
        writer.close()
        await until(lambda: site.server.gate.admission.connections == 0)


async def test_a_penalised_source_is_refused_before_anything_is_said(tmp_path: Path) -> None:
    settings = replace(SETTINGS, penalty_exempt=(), penalty_refused_key_s=100)
    async with running(tmp_path, settings=settings) as site:
        with pytest.raises(asyncssh.PermissionDenied):
            await asyncssh.connect(
                "127.0.0.1", site.port, username="demo", client_keys=[KEYS["other"]], known_hosts=None, config=None
            )
        await until(lambda: site.server.gate.admission.connections == 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        assert await reader.read(1000) == b"Not allowed at this time\r\n"
        writer.close()
        assert any("penalised" in str(line.get("message")) for line in site.log("ERROR"))


async def test_connections_and_start_ups_are_limited(tmp_path: Path) -> None:
    async with running(tmp_path, settings=replace(SETTINGS, startups_begin=2, startups_full=2)) as site:
        idle = [await asyncio.open_connection("127.0.0.1", site.port) for _ in range(2)]
        await until(lambda: site.server.gate.admission.startups == 2)
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        assert await reader.read(1000) == b"Exceeded MaxStartups\r\n"
        for _, open_writer in [*idle, (reader, writer)]:
            open_writer.close()
        await until(lambda: site.server.gate.admission.connections == 0)
        async with site.connect():
            assert site.server.gate.admission.startups == 0


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 70_000, b"SSH-2.0-x\r\n" + b"\x7f" * 50_000])
async def test_garbage_does_no_harm(site: Site, garbage: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(garbage)
    async with asyncio.timeout(5):
        try:
            while await reader.read(10_000):
                pass
        except ConnectionError:
            pass
    writer.close()
    await until(lambda: site.server.gate.admission.connections == 0)
    async with site.connect():
        pass


async def test_idle_sessions_end(tmp_path: Path) -> None:
    async with running(tmp_path, settings=replace(SETTINGS, idle_timeout_s=0.05)) as site:
        async with site.connect() as connection, connection.start_sftp_client() as client:
            await client.realpath(".")
            await until(lambda: not site.server.gate.logins, 15)
        await until(lambda: site.log("DISCONNECTED"))
        assert site.log("DISCONNECTED")[0]["message"] == "idle for too long"
