"""Deployments: what an archive may contain, and that a copy is deterministic."""

import io
import os
import stat
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from entrepot.services.lambda_ import code
from entrepot.services.lambda_.errors import InvalidParameterValueError, RequestTooLargeError


def archive(*entries: tuple[str, bytes], mode: int = stat.S_IFREG | 0o644) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, content in entries:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            zipped.writestr(info, content)
    return buffer.getvalue()


def test_an_archive_is_unpacked_once_under_its_hash(tmp_path: Path) -> None:
    data = archive(("handler.py", b"x = 1"), ("lib/tool.sh", b"#!"), mode=stat.S_IFREG | 0o755)
    sha256, size = code.install_zip(data, tmp_path / "code")
    assert size == len(data)
    assert (tmp_path / "code" / sha256 / "lib" / "tool.sh").stat().st_mode & 0o777 == 0o755
    assert code.install_zip(data, tmp_path / "code") == (sha256, size)
    assert [path.name for path in (tmp_path / "code").iterdir()] == [sha256]


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "..\\x", "a/.."])
def test_names_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidParameterValueError):
        code.install_zip(archive((name, b"x")), tmp_path / "code")
    assert not list((tmp_path / "code").glob("*")) and not (tmp_path / "x").exists()


def test_links_doubles_garbage_and_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "code"
    for data in (
        archive(("link", b"/etc/passwd"), mode=stat.S_IFLNK | 0o777),
        archive(("fifo", b""), mode=stat.S_IFIFO | 0o644),
        archive(("a", b"x"), ("a/b", b"x")),
        archive(),
        b"PK\x03\x04 no archive",
        b"",
    ):
        with pytest.raises(InvalidParameterValueError):
            code.install_zip(data, root)
    monkeypatch.setattr(code, "CODE_LIMIT_BYTES", 100_000)
    with pytest.raises(InvalidParameterValueError, match="Unzipped size"):
        code.install_zip(archive(("zeros", bytes(200_000))), root)
    monkeypatch.setattr(code, "ZIP_LIMIT_BYTES", 10)
    with pytest.raises(RequestTooLargeError):
        code.install_zip(archive(("a", b"x")), root)
    assert not list(root.glob("*"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(st.data())
def test_a_damaged_archive_is_unpacked_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    damaged = bytearray(archive(("handler.py", b"x = 1" * 50), ("b.py", b"y")))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        sha256, _ = code.install_zip(bytes(damaged), tmp_path / "code")
    except (InvalidParameterValueError, RequestTooLargeError):
        return
    for path in (tmp_path / "code").rglob("*"):
        assert path.resolve().is_relative_to(tmp_path / "code") and not path.is_symlink()
    assert (tmp_path / "code" / sha256).is_dir()


def test_a_folder_has_the_same_hash_wherever_it_is(tmp_path: Path) -> None:
    for name in ("one", "two"):
        folder = tmp_path / name
        (folder / "__pycache__").mkdir(parents=True)
        (folder / "__pycache__" / f"{name}.pyc").write_bytes(b"whatever")
        (folder / "sub").mkdir()
        (folder / "handler.py").write_text("x = 1")
        (folder / "sub" / "a.txt").write_text("a")
    first = code.install_folder(tmp_path / "one", tmp_path / "code")
    assert first == code.install_folder(tmp_path / "two", tmp_path / "code")
    (tmp_path / "two" / "handler.py").write_text("x = 2")
    second = code.install_folder(tmp_path / "two", tmp_path / "code")
    assert second != first
    code.collect_garbage(tmp_path / "code", [second[0]])
    assert [path.name for path in (tmp_path / "code").iterdir()] == [second[0]]
    (tmp_path / "two" / "link").symlink_to("/etc/passwd")
    with pytest.raises(InvalidParameterValueError, match="symbolic link"):
        code.install_folder(tmp_path / "two", tmp_path / "code")


def test_a_functions_own_user_may_read_its_code_whatever_the_servers_umask(tmp_path: Path) -> None:
    source, root = tmp_path / "source", tmp_path / "code"
    (source / "deep" / "deeper").mkdir(parents=True)
    (source / "deep" / "deeper" / "module.py").write_text("")
    before = os.umask(0o077)
    try:
        sha256, _ = code.install_folder(source, root)
    finally:
        os.umask(before)
    folders = [root / sha256, root / sha256 / "deep", root / sha256 / "deep" / "deeper"]
    assert {folder.stat().st_mode & 0o777 for folder in folders} == {0o755}
    for folder in folders:  # As an older server left it.
        folder.chmod(0o700)
    code.collect_garbage(root, [sha256])
    assert {folder.stat().st_mode & 0o777 for folder in folders} == {0o755}


def test_what_npm_links_is_left_out(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "node_modules" / ".bin").mkdir(parents=True)
    (source / "node_modules" / "tool.js").write_text("1")
    (source / "node_modules" / ".bin" / "tool").symlink_to("../tool.js")
    sha256, _ = code.install_folder(source, tmp_path / "code")
    installed = tmp_path / "code" / sha256
    assert [path.name for path in installed.rglob("*") if path.is_file()] == ["tool.js"]
