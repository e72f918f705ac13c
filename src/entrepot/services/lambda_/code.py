"""The code of functions on disk: write-once folders named by the SHA-256 of what was uploaded.

A deployment is copied, never run in place: all workers of a function run the same code, whatever happens to the source
meanwhile. Nothing outside the folder can be named by an archive: no absolute names, no `..`, no links.
"""

import errno
import hashlib
import io
import lzma
import os
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from entrepot import ids
from entrepot.services.lambda_.errors import InvalidParameterValueError, RequestTooLargeError

ZIP_LIMIT_BYTES = 50 * 1024 * 1024
"""An uploaded archive. AWS's limit for direct uploads."""

CODE_LIMIT_BYTES = 262_144_000
"""The code unpacked. AWS's limit."""

FILES_LIMIT = 20_000
"""Files in a function's code."""

_SKIPPED = frozenset({"__pycache__", ".git", ".bin"})
"""Folders of a function that are not its code; `.bin` holds npm's links to programs."""

_CHUNK = 1024 * 1024
_SEARCHABLE = 0o755
"""The mode of all folders of code."""
_DAMAGE = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    NotImplementedError,  # an exotic compression
    RuntimeError,  # an encrypted entry
    EOFError,
    ValueError,
)
_IMPOSSIBLE_NAMES = frozenset({None, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EINVAL})


def install_folder(source: Path, root: Path) -> tuple[str, int]:
    """Copy the folder `source` below `root`; return (sha256 of the content in hex, size in bytes)."""
    files = sorted(_walk(source))
    digest, size = hashlib.sha256(), 0
    for relative in files:
        content = (source / relative).read_bytes()
        size += len(content)
        _check_size(size)
        executable = os.access(source / relative, os.X_OK)
        digest.update(f"{relative}\0{int(executable)}\0{len(content)}\0".encode(errors="surrogateescape") + content)
    sha256 = digest.hexdigest()
    if not (root / sha256).is_dir():
        _publish(((PurePosixPath(name), source / name) for name in files), root, sha256)
    return sha256, size


def install_zip(data: bytes, root: Path, limit_bytes: int | None = None) -> tuple[str, int]:
    """Unpack an archive below `root`; return (sha256 of the archive in hex, its size in bytes).

    InvalidParameterValueError when it is no archive or names something outside; RequestTooLargeError when too large.
    """
    limit_bytes = ZIP_LIMIT_BYTES if limit_bytes is None else limit_bytes
    if len(data) > limit_bytes:
        raise RequestTooLargeError(f"Request must be smaller than {limit_bytes} bytes for the CreateFunction operation")
    sha256 = hashlib.sha256(data).hexdigest()
    if not (root / sha256).is_dir():
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                _publish(((_safe_name(entry), (archive, entry)) for entry in _entries(archive)), root, sha256)
        except (*_DAMAGE, OSError) as error:
            if isinstance(error, OSError) and error.errno not in _IMPOSSIBLE_NAMES:
                raise
            raise InvalidParameterValueError(
                "Could not unzip uploaded file. Please check your file, then try to upload again."
            ) from error
    return sha256, len(data)


def install_layers(sha256s: Sequence[str], code_sha256: str, root: Path) -> str:
    """Lay the content of layers over each other, the later over the earlier; return the folder's name below `root`.

    InvalidParameterValueError when they are too large together with the function's code.
    """
    merged: dict[PurePosixPath, Path] = {}
    for sha256 in sha256s:
        for name in _walk(root / sha256, everything=True):
            merged[PurePosixPath(name)] = root / sha256 / name
    size = sum(path.stat().st_size for path in merged.values())
    size += sum((root / code_sha256 / name).stat().st_size for name in _walk(root / code_sha256, everything=True))
    if size > CODE_LIMIT_BYTES:
        raise InvalidParameterValueError(
            "Function code combined with layers exceeds the maximum allowed size of "
            f"{CODE_LIMIT_BYTES} bytes. The actual size is {size} bytes.",
            Type="User",
        )
    folder = "layers-" + hashlib.sha256("/".join(sha256s).encode()).hexdigest()
    if not (root / folder).is_dir():
        for path in merged:  # a file of one layer where another has a folder
            if any(parent in merged for parent in path.parents):
                raise InvalidParameterValueError(f"The layers disagree about {str(path)[:200]!r}: a file and a folder.")
        _publish(merged.items(), root, folder)
    return folder


def collect_garbage(root: Path, used: Iterable[str]) -> None:
    """Remove the code that no function uses, and what an interrupted deployment left."""
    keep = set(used)
    for folder in root.iterdir() if root.is_dir() else ():
        if folder.name not in keep:
            shutil.rmtree(folder, ignore_errors=True)
        elif folder.stat().st_mode & _SEARCHABLE != _SEARCHABLE:  # installed before functions had users of their own
            _open(folder)


def _open(folder: Path) -> None:
    """Let the function's own user read its code, whatever the server's umask; nobody else reaches the folder around it."""
    for path, _, _ in os.walk(folder, topdown=False):
        Path(path).chmod(_SEARCHABLE)


def _walk(source: Path, *, everything: bool = False) -> Iterator[str]:
    """Yield the names of files; without `everything` what a build leaves behind is left out."""
    count = 0
    for folder, folders, names in os.walk(source):
        if not everything:
            folders[:] = [name for name in folders if name not in _SKIPPED]
        for name in (*names, *folders):
            path = Path(folder, name)
            if path.is_symlink():
                raise InvalidParameterValueError(
                    f"{path} is a symbolic link; a function's code must be plain files. Copy the file instead."
                )
        for name in names:
            path = Path(folder, name)
            if not path.is_file() or (name.endswith(".pyc") and not everything):
                continue
            count += 1
            if count > FILES_LIMIT:
                raise InvalidParameterValueError(f"{source} has more than {FILES_LIMIT} files.")
            yield path.relative_to(source).as_posix()


def _entries(archive: zipfile.ZipFile) -> Iterator[zipfile.ZipInfo]:
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    if not entries:
        raise InvalidParameterValueError("Uploaded file must be a non-empty zip")
    if len(entries) > FILES_LIMIT:
        raise InvalidParameterValueError(f"The archive has more than {FILES_LIMIT} files.")
    _check_size(sum(entry.file_size for entry in entries))
    yield from entries


def _safe_name(entry: zipfile.ZipInfo) -> PurePosixPath:
    """Return the entry's path, or refuse one that could leave the folder."""
    name = PurePosixPath(entry.filename)
    mode = entry.external_attr >> 16
    plain = stat.S_ISREG(mode) or stat.S_IFMT(mode) == 0
    if name.is_absolute() or ".." in name.parts or "\\" in entry.filename or "\0" in entry.orig_filename or not plain:
        raise InvalidParameterValueError(
            f"The archive's entry {entry.filename[:200]!r} is not a plain file inside the archive; "
            "links and names with .. or a leading / are refused."
        )
    return name


def _check_size(size: int) -> None:
    if size > CODE_LIMIT_BYTES:
        raise InvalidParameterValueError(f"Unzipped size must be smaller than {CODE_LIMIT_BYTES} bytes")


def _publish(
    files: Iterable[tuple[PurePosixPath, Path | tuple[zipfile.ZipFile, zipfile.ZipInfo]]], root: Path, sha256: str
) -> None:
    """Write the files to a temporary folder, make them durable, and give it its final name."""
    root.mkdir(parents=True, exist_ok=True)
    building = root / f"building-{ids.random_hex(8)}"
    building.mkdir()
    try:
        total = 0
        for name, source in files:
            target = building.joinpath(*name.parts)
            if target.exists():
                raise InvalidParameterValueError(f"The archive contains {str(name)[:200]!r} twice.")
            target.parent.mkdir(parents=True, exist_ok=True)
            total += _write(source, target)
            _check_size(total)
        _open(building)
        _sync(building)
        try:
            building.rename(root / sha256)
        except OSError:
            if not (root / sha256).is_dir():  # else another deployment of the same code came first
                raise
        _sync(root)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _write(source: Path | tuple[zipfile.ZipFile, zipfile.ZipInfo], target: Path) -> int:
    """Copy one file, bounded whatever the archive's directory claims; return its size."""
    if isinstance(source, Path):
        reader, executable = source.open("rb"), os.access(source, os.X_OK)
    else:
        archive, entry = source
        reader, executable = archive.open(entry), bool((entry.external_attr >> 16) & 0o111)  # type: ignore[assignment]
    size = 0
    with reader, target.open("xb") as writer:
        while chunk := reader.read(_CHUNK):
            size += len(chunk)
            _check_size(size)
            writer.write(chunk)
        writer.flush()
        os.fsync(writer.fileno())
    target.chmod(0o755 if executable else 0o644)
    return size


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
