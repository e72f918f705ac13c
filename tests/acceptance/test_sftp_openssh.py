"""OpenSSH's sftp and scp against the server."""

import os
from pathlib import Path

import pytest

from tests.acceptance.sftp_site import BUCKET, ClientError, Site, demo_user, logical, run, running, ssh_options


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


async def test_empty_file_spaces_and_letters(site: Site) -> None:
    (site.folder / "empty").write_bytes(b"")
    (site.folder / "Überweisung März.csv").write_bytes(b"x")
    await site.sftp("put empty", 'put "Überweisung März.csv"', 'get "Überweisung März.csv" back')
    assert await site.content("home/empty") == b""
    assert await site.content("home/Überweisung März.csv") == b"x"


async def test_folders(site: Site) -> None:
    (site.folder / "f").write_bytes(b"f")
    output = await site.sftp("mkdir in", "cd in", "mkdir deep", "put f deep/f", "ls -la", "pwd", "cd ..", "ls -l")
    assert await site.keys() == ["home/in/", "home/in/deep/", "home/in/deep/f"]
    assert "drwxr-xr-x" in output
    with pytest.raises(ClientError):
        await site.sftp("rmdir in/deep")
    with pytest.raises(ClientError):
        await site.sftp("mkdir in")
    await site.sftp("rm in/deep/f", "rmdir in/deep", "rmdir in")
    assert await site.keys() == []
    with pytest.raises(ClientError):
        await site.sftp("rmdir in")


async def test_recursive_put_and_get(site: Site) -> None:
    for name in ("tree/a", "tree/x/b", "tree/x/y/c"):
        path = site.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    await site.sftp("put -r tree", "get -r tree back")
    assert (site.folder / "back/x/y/c").read_bytes() == b"tree/x/y/c"


async def test_rename_of_files_and_folders(site: Site) -> None:
    (site.folder / "f").write_bytes(b"new")
    (site.folder / "g").write_bytes(b"old")
    # OpenSSH's rename uses posix-rename, which replaces; `-l` is the plain one.
    await site.sftp("put f a.filepart", "put g a", "rename a.filepart a")
    assert await site.content("home/a") == b"new"
    assert await site.keys() == ["home/a"]
    await site.sftp("put g b")
    with pytest.raises(ClientError):
        await site.sftp("rename -l a b")
    await site.sftp("mkdir d", "put f d/1", "put f d/2", "rename d e", "ls e")
    assert await site.keys() == ["home/a", "home/b", "home/e/", "home/e/1", "home/e/2"]
    with pytest.raises(ClientError):
        await site.sftp("rename e e/inside")
    with pytest.raises(ClientError):
        await site.sftp("rename a e")


async def test_times_are_kept_without_a_commit_of_their_own(site: Site) -> None:
    (site.folder / "f").write_bytes(b"f")
    os.utime(site.folder / "f", (1_600_000_000, 1_600_000_000))
    output = await site.sftp("put -p f", "ls -l f", "get -p f g", "chmod 600 f")
    assert "Sep 13  2020" in output
    assert (site.folder / "g").stat().st_mtime == 1_600_000_000
    version = await site.head("home/f")
    assert version is not None
    assert version.mtime_ms == 1_600_000_000_000


async def test_scp_both_ways(site: Site) -> None:
    data = os.urandom(200_000)
    (site.folder / "f").write_bytes(data)
    await site.scp("f", "demo@127.0.0.1:g")
    await site.scp("demo@127.0.0.1:g", "back")
    assert (site.folder / "back").read_bytes() == data


async def test_legacy_scp_and_shell_are_refused_with_a_reason(site: Site) -> None:
    (site.folder / "f").write_bytes(b"f")
    output = await site.scp("-O", "f", "demo@127.0.0.1:f", check=False)
    assert "sftp connections only" in output
    options = (*ssh_options(site.key_file()), "-p", str(site.port))
    for command in ([], ["id"]):
        output = await run("ssh", *options, "demo@127.0.0.1", *command, cwd=site.folder, check=False)
        assert "sftp connections only" in output
        assert "uid=" not in output
    output = await run(
        "ssh", *options, "-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:1", "demo@127.0.0.1",
        cwd=site.folder, check=False,
    )  # fmt: skip
    assert "forward" in output


async def test_unknown_user_and_unknown_key_are_told_the_same(site: Site) -> None:
    answers = []
    for user, key in (("demo", "other"), ("nobody", "demo"), ("x", "demo")):
        options = (*ssh_options(site.key_file(key)), "-p", str(site.port))
        answers.append(await run("ssh", *options, "-l", user, "127.0.0.1", cwd=site.folder, check=False))
    assert {answer.replace("demo", "U").replace("nobody", "U").replace("x@", "U@") for answer in answers} == {
        "U@127.0.0.1: Permission denied (publickey).\r\n"
    }
    assert [line["user"] for line in site.log("AUTH_FAILURE")] == ["demo", "nobody", "x"]


async def test_user_keys_of_every_type(site: Site) -> None:
    (site.folder / "f").write_bytes(b"f")
    for kind, options in (("rsa", ("-b", "3072")), ("ecdsa", ("-b", "256")), ("ecdsa", ("-b", "521"))):
        path = site.folder / f"{kind}{options[1]}"
        await run("ssh-keygen", "-q", "-t", kind, *options, "-N", "", "-f", str(path), cwd=site.folder)
        public = path.with_name(path.name + ".pub").read_text().strip()
        key = type(demo_user().ssh_public_keys[0])(public)
        await site.put_user(demo_user(ssh_public_keys=(*demo_user().ssh_public_keys, key)))
        await run(
            "sftp", "-q", "-b", "-", *ssh_options(path), "-P", str(site.port), "demo@127.0.0.1",
            stdin=f"put f {kind}\n", cwd=site.folder,
        )  # fmt: skip
    with pytest.raises(ClientError):
        await run(
            "ssh", *ssh_options(site.folder / "rsa3072"), "-o", "PubkeyAcceptedAlgorithms=ssh-rsa", "-p",
            str(site.port), "demo@127.0.0.1", cwd=site.folder,
        )  # fmt: skip


async def test_df_and_links(site: Site) -> None:
    (site.folder / "f").write_bytes(b"f")
    output = await site.sftp("df", "put f")
    assert "%" in output
    for command in ("ln f g", "ln -s f g"):
        with pytest.raises(ClientError, match=r"support"):
            await site.sftp(command)


async def test_resume_of_an_object_by_reput(site: Site) -> None:
    data = os.urandom(300_000)
    (site.folder / "part").write_bytes(data[:100_000])
    (site.folder / "f").write_bytes(data)
    await site.sftp("put part f", "reput f f")
    assert await site.content("home/f") == data


async def test_copy(site: Site) -> None:
    data = os.urandom(2_500_000)
    (site.folder / "f").write_bytes(data)
    await site.sftp("put f", "copy f g")
    assert await site.content("home/g") == data


async def test_logical_home(site: Site) -> None:
    await site.put_user(
        demo_user(
            **logical(
                ("/", f"/{BUCKET}/users/${{transfer:UserName}}"),
                ("/reports/2026", "/second-bucket/r"),
            )
        )
    )
    (site.folder / "f").write_bytes(b"f")
    output = await site.sftp(
        "pwd", "put f", "ls", "cd reports", "ls", "put f 2026/g", "cd 2026", "ls", "cd ../..", "ls"
    )
    assert "Remote working directory: /\n" in output
    assert await site.keys() == ["users/demo/f"]
    assert await site.keys("second-bucket") == ["r/g"]
    assert "reports" in output
    for command in ("rmdir reports", "rmdir reports/2026", "rename reports r", "rename f reports"):
        with pytest.raises(ClientError):
            await site.sftp(command)
    # Below /reports the entry "/" counts for what is not mapped further.
    await site.sftp("put f reports/other")
    assert await site.keys() == ["users/demo/f", "users/demo/reports/other"]


async def test_structured_log(site: Site) -> None:
    (site.folder / "f").write_bytes(b"12345")
    await site.sftp("put f", "get f g", "mkdir d", "rename f h", "rm h", "rmdir d")
    (connected,) = site.log("CONNECTED")
    assert connected["user"] == "demo"
    assert connected["home-dir"] == f"/{BUCKET}/home"
    assert str(connected["client"]).startswith("SSH-2.0-OpenSSH")
    assert connected["kex"]
    assert "," in str(connected["ciphers"])
    close_in, close_out = site.log("CLOSE")
    assert close_in["path"] == f"/{BUCKET}/home/f"
    assert (close_in["bytes-in"], close_out["bytes-out"]) == (5, 5)
    first, second = site.log("OPEN")
    assert first["mode"] == "CREATE|TRUNCATE|WRITE"
    assert second["mode"] == "READ"
    for kind in ("MKDIR", "RENAME", "DELETE", "RMDIR"):
        assert len(site.log(kind)) == 1
    assert len({line["session-id"] for line in (connected, close_in, first)}) == 1
    group, stream, _ = site.lines[0]
    assert group == f"/aws/transfer/{site.transfer.server_id}"
    assert stream == f"demo.{connected['session-id']}"
