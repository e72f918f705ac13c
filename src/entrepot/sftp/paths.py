"""Paths: from the client's bytes to one canonical type, and from there to a bucket and key.

A path is canonicalised once: strict UTF-8, no control characters, segments; `.` and `..` are resolved within the virtual
root and cannot leave it. Prefixes are compared by segment, never as strings.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from entrepot.services.transfer.users import USER_VARIABLE, User
from entrepot.sftp.status import FAILURE, StatusError, bad_message, no_such_file

PATH_LIMIT_BYTES: Final = 4096
"""The longest path that is accepted on the wire."""

Segments = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VirtualPath:
    """An absolute path as the client sees it. The root has no segments; no segment is empty, `.` or `..`."""

    segments: Segments = ()

    @staticmethod
    def parse(raw: bytes, start: "VirtualPath") -> "VirtualPath":
        """Return the path for bytes of the wire, relative ones from `start`; raise StatusError."""
        if len(raw) > PATH_LIMIT_BYTES:
            raise bad_message(f"The path is longer than {PATH_LIMIT_BYTES} bytes")
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            raise StatusError(FAILURE, "File names must be UTF-8") from None
        if has_control_characters(text):
            raise StatusError(FAILURE, "File names must not hold control characters")
        resolved: list[str] = [] if text.startswith("/") else list(start.segments)
        for segment in text.split("/"):
            if segment == "..":
                if resolved:
                    resolved.pop()
            elif segment not in ("", "."):
                resolved.append(segment)
        return VirtualPath(tuple(resolved))

    def encode(self) -> bytes:
        """Return the path for the wire."""
        return ("/" + "/".join(self.segments)).encode()

    def __str__(self) -> str:
        return "/" + "/".join(self.segments)


def has_control_characters(text: str) -> bool:
    """Return whether text holds C0 or C1 control characters, DEL, or U+2028/2029 (they end lines in logs)."""
    if text.isascii() and text.isprintable():
        return False
    return any(ord(c) < 32 or 127 <= ord(c) < 160 or c in "\u2028\u2029" for c in text)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a path leads: a bucket and key (`''` is the bucket itself), or a folder that is only shown (`bucket` None).

    `entries` are the names of mapped folders directly below. `fixed`: part of the user's home layout, which always
    exists and cannot be removed or renamed.
    """

    path: VirtualPath
    bucket: str | None
    key: str
    entries: frozenset[str] = frozenset()
    fixed: bool = False

    @property
    def folder(self) -> str:
        """The prefix of the keys below this place when it is a folder: `''` or `key/`."""
        return f"{self.key}/" if self.key else ""

    @property
    def object_path(self) -> str:
        """`/bucket/key`, as AWS Transfer logs paths."""
        return f"/{self.bucket}/{self.key}" if self.bucket is not None else str(self.path)

    def located(self) -> "LocatedPlace":
        """Return bucket and key; raise NO_SUCH_FILE where the path leads to no bucket."""
        if self.bucket is None:
            raise no_such_file()
        return LocatedPlace(self.bucket, self.key)


@dataclass(frozen=True, slots=True)
class LocatedPlace:
    """A bucket and key."""

    bucket: str
    key: str


@dataclass(frozen=True, slots=True)
class _Node:
    """A folder of a LOGICAL layout; `target` is set where an entry is mapped."""

    children: "dict[str, _Node]" = field(default_factory=dict)
    target: list[Segments] = field(default_factory=list)


class HomeDirectory:
    """Maps a user's paths to buckets and keys.

    With `PATH`, the path is `/bucket/key` and the user starts in the home directory. With `LOGICAL`, the longest mapped
    entry counts; entries below show up as folders. Source:
    https://docs.aws.amazon.com/transfer/latest/userguide/logical-dir-mappings.html
    """

    def __init__(self, user: User) -> None:
        def split(path: str) -> Segments:
            return tuple(s for s in path.replace(USER_VARIABLE, user.user_name).split("/") if s)

        self._root: _Node | None = None
        self.start = VirtualPath()
        if user.home_directory_type == "LOGICAL":
            self._root = _tree((split(m.entry), split(m.target)) for m in user.home_directory_mappings)
        else:
            self.start = VirtualPath(split(user.home_directory))

    def parse(self, raw: bytes) -> VirtualPath:
        """Return the canonical path for bytes of the wire; raise StatusError."""
        return VirtualPath.parse(raw, self.start)

    def place(self, path: VirtualPath) -> Place:
        """Return where the path leads; raise NO_SUCH_FILE where no mapping covers it."""
        return self._place_by_path(path) if self._root is None else self._place_by_mapping(path, self._root)

    def _place_by_path(self, path: VirtualPath) -> Place:
        home = self.start.segments
        fixed = home[: len(path.segments)] == path.segments
        if not path.segments:
            return Place(path, None, "", frozenset(home[:1]), True)
        return Place(path, path.segments[0], "/".join(path.segments[1:]), frozenset(), fixed)

    def _place_by_mapping(self, path: VirtualPath, root: _Node) -> Place:
        node: _Node | None = root
        target = root.target
        rest = 0
        for depth, segment in enumerate(path.segments):
            node = node.children.get(segment) if node is not None else None
            if node is not None and node.target:
                target, rest = node.target, depth + 1
        entries = frozenset(node.children) if node is not None else frozenset()
        if not target:
            if node is None:
                raise no_such_file()
            return Place(path, None, "", entries, True)
        segments = target[0] + path.segments[rest:]
        return Place(path, segments[0], "/".join(segments[1:]), entries, node is not None)


def _tree(mappings: Iterable[tuple[Segments, Segments]]) -> _Node:
    root = _Node()
    for entry, target in mappings:
        node = root
        for segment in entry:
            node = node.children.setdefault(segment, _Node())
        node.target.append(target)
    return root
