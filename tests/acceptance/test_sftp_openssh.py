"""OpenSSH's sftp and scp against the server."""

import os
from pathlib import Path

import pytest

from tests.acceptance.sftp_site import BUCKET, ClientError, Site, running


@pytest.fixture
async def site(tmp_path: Path):
    async with running(tmp_path) as site:
        yield site


async def test_put_get_ls(site: Site) -> None:
    data = os.urandom(3_000_000)
    (site.folder / "a.bin").write_bytes(data)
    (site.folder / "b.csv").write_bytes(b"a,b\n1,2\n")
    output = await site.sftp("put a.bin", "put b.csv", "ls -l", "get a.bin a.out", "pwd")
    assert (site.folder / "a.out").read_bytes() == data
    assert await site.content("home/b.csv") == b"a,b\n1,2\n"
    assert "3000000" in output
    assert "b.csv" in output
    assert f"/{BUCKET}/home" in output
    assert [event.key for event in site.created] == ["home/a.bin", "home/b.csv"]
