"""Listing: an index scan that leaps over what a delimiter rolls up, so that a folder of a million keys costs one seek.

Keys are compared by their UTF-8 bytes, which is the order of code points.
"""

from dataclasses import dataclass, field

from entrepot.database import Reader, Row, Value
from entrepot.services.s3 import buckets
from entrepot.services.s3.errors import NoSuchBucketError
from entrepot.services.s3.objects import Bucket

FIRST_BATCH = 32
"""Rows read at first, doubled from batch to batch: few are read in vain, and long pages need few reads."""

BATCH_LIMIT = 512
"""At most this many rows are read at once."""

EXAMINED_LIMIT = 5_000
"""At most this many rows are examined for one page, which may then have fewer entries than asked for (delete markers
and old versions are passed over one by one)."""


_LIST_COLUMNS = "v.key, v.sequence, v.content_id, v.size_bytes, v.etag, v.modified_at_ms, v.mtime_ms, v.versioned"


@dataclass(frozen=True, slots=True)
class Entry:
    """One object in a listing. Times are milliseconds since the epoch."""

    key: str
    size_bytes: int
    etag: str
    modified_at_ms: int
    mtime_ms: int
    sequence: int


@dataclass(slots=True)
class Page:
    """A part of a listing: objects and common prefixes, each in order; `next_after` is None at the end."""

    objects: list[Entry] = field(default_factory=list)
    common_prefixes: list[str] = field(default_factory=list)
    next_after: str | None = None

    def __len__(self) -> int:
        return len(self.objects) + len(self.common_prefixes)


@dataclass(frozen=True, slots=True)
class VersionEntry:
    """One version or delete marker in a listing of versions."""

    key: str
    sequence: int
    versioned: bool
    is_delete_marker: bool
    is_latest: bool
    size_bytes: int
    etag: str
    modified_at_ms: int


@dataclass(slots=True)
class VersionPage:
    """A part of a listing of versions. `next_key` and `next_sequence` are the last entry's; None at the end."""

    versions: list[VersionEntry] = field(default_factory=list)
    common_prefixes: list[str] = field(default_factory=list)
    next_key: str | None = None
    next_sequence: int | None = None

    def __len__(self) -> int:
        return len(self.versions) + len(self.common_prefixes)


def after_prefix(prefix: str) -> str | None:
    """Return the first text that is greater than every text with `prefix`; None when there is none."""
    for index in range(len(prefix) - 1, -1, -1):
        code = ord(prefix[index])
        if code < 0x10FFFF:
            # Surrogates are no characters: U+D7FF is followed by U+E000.
            return prefix[:index] + chr(0xE000 if code == 0xD7FF else code + 1)
    return None


def exists_below(reader: Reader, bucket: str, prefix: str) -> bool:
    """Return whether any object's key starts with `prefix`. Raises NoSuchBucketError."""
    end = after_prefix(prefix)
    if end is not None:
        # Mostly there is nothing at all, which one statement tells.
        row = reader.one(
            "SELECT EXISTS (SELECT 1 FROM s3_version v WHERE v.bucket_id = b.bucket_id AND v.key >= ? AND v.key < ?) "
            "FROM s3_bucket b WHERE b.name = ?",
            (prefix, end, bucket),
        )
        if row is None:
            raise NoSuchBucketError(bucket)
        if not row[0]:
            return False
    return len(list_objects(reader, bucket, prefix=prefix, limit=1)) > 0


def list_objects(
    reader: Reader, bucket: str, *, prefix: str = "", delimiter: str = "", after: str = "", limit: int = 1000
) -> Page:
    """Return up to `limit` objects and common prefixes whose names come after `after`, in order.

    `after` is a key, or a common prefix that was returned: all below it is passed over then. Raises
    NoSuchBucketError.
    """
    page = Page()
    scan = _Scan(reader, buckets.get(reader, bucket), prefix, _LIST_COLUMNS)
    scan.start_after(after, delimiter)
    last, previous = after, None
    while limit > 0 and (row := scan.next()) is not None:
        key = row[0]
        is_current, previous = key != previous, key
        if not is_current or row[2] is None:
            if scan.examined >= EXAMINED_LIMIT and not (delimiter and key.endswith(delimiter)):
                page.next_after = key
                break
            continue
        if len(page) >= limit:
            page.next_after = last
            break
        cut = key.find(delimiter, len(prefix)) if delimiter else -1
        if cut >= 0:
            last = key[: cut + len(delimiter)]
            page.common_prefixes.append(last)
            scan.leap(last)
        else:
            last = key
            page.objects.append(Entry(key, row[3], row[4], row[5], row[5] if row[6] is None else row[6], row[1]))
    return page


def list_versions(
    reader: Reader,
    bucket: str,
    *,
    prefix: str = "",
    delimiter: str = "",
    after_key: str = "",
    after_sequence: int | None = None,
    limit: int = 1000,
) -> VersionPage:
    """Return up to `limit` versions, delete markers and common prefixes: by key, the newest version of each first.

    Goes on after one version (`after_key` with `after_sequence`) or after all versions of a key. Raises
    NoSuchBucketError.
    """
    page = VersionPage()
    scan = _Scan(reader, buckets.get(reader, bucket), prefix, _LIST_COLUMNS, all_versions=True)
    previous: str | None = None
    if after_sequence is None:
        scan.start_after(after_key, delimiter)
    else:
        scan.start_at(after_key, after_sequence)
        previous = after_key
    last_key, last_sequence = after_key, after_sequence
    while limit > 0 and (row := scan.next()) is not None:
        if len(page) >= limit:
            page.next_key, page.next_sequence = last_key, last_sequence
            break
        key, sequence, content_id, size_bytes, etag, modified_at_ms, _, versioned = row
        is_latest, previous = key != previous, key
        cut = key.find(delimiter, len(prefix)) if delimiter else -1
        if cut >= 0:
            last_key, last_sequence = key[: cut + len(delimiter)], None
            page.common_prefixes.append(last_key)
            scan.leap(last_key)
        else:
            last_key, last_sequence = key, sequence
            page.versions.append(
                VersionEntry(
                    key, sequence, bool(versioned), content_id is None, is_latest, size_bytes, etag, modified_at_ms
                )
            )
    return page


class _Scan:
    """Rows of one bucket in order of key, newest version first, read in batches, with a way to leap over a prefix.

    Between batches it goes on behind the last key; with `all_versions`, first with the rest of that key's versions.
    """

    def __init__(
        self, reader: Reader, bucket: Bucket, prefix: str, columns: str, *, all_versions: bool = False
    ) -> None:
        self._reader = reader
        self._bucket_id = bucket.bucket_id
        self._sql = f"SELECT {columns} FROM s3_version v WHERE v.bucket_id = ? AND "  # noqa: S608 - constant columns
        self._prefix = prefix
        self._end = after_prefix(prefix)
        self._all_versions = all_versions
        self._ranges: list[tuple[str, tuple[Value, ...]]] = []
        self._seek("v.key >= ?", prefix)
        self._rows: list[Row] = []
        self._index = 0
        self._size = FIRST_BATCH
        self.examined = 0

    def start_after(self, after: str, delimiter: str) -> None:
        """Begin after a key, or behind a common prefix (which ends with the delimiter)."""
        if after < self._prefix or not after:
            return
        if delimiter and after.endswith(delimiter) and after.find(delimiter, len(self._prefix)) >= 0:
            self._seek_behind(after)
        else:
            self._seek("v.key > ?", after)

    def start_at(self, key: str, sequence: int) -> None:
        """Begin after one version of a key."""
        self._seek("v.key > ?", key)
        self._ranges.append(("v.key = ? AND v.sequence < ?", (key, sequence)))

    def leap(self, prefix: str) -> None:
        """Pass over every row whose key starts with `prefix`."""
        while self._index < len(self._rows) and self._rows[self._index][0].startswith(prefix):
            self._index += 1
        if self._index >= len(self._rows):
            self._rows, self._index, self._size = [], 0, FIRST_BATCH
            self._seek_behind(prefix)

    def next(self) -> Row | None:
        """Return the next row, or None at the end."""
        while self._index >= len(self._rows):
            if not self._ranges:
                return None
            self._fill()
        row = self._rows[self._index]
        self._index += 1
        self.examined += 1
        return row

    def _seek_behind(self, prefix: str) -> None:
        behind = after_prefix(prefix)
        if behind is None:
            self._ranges = []
        else:
            self._seek("v.key >= ?", behind)

    def _seek(self, where: str, key: str) -> None:
        bounded = (where, (key,)) if self._end is None else (f"{where} AND v.key < ?", (key, self._end))
        self._ranges = [bounded]

    def _fill(self) -> None:
        """Read a batch of the range on top; what comes behind it replaces the range."""
        where, parameters = self._ranges.pop()
        self._rows = self._reader.all(
            f"{self._sql}{where} ORDER BY v.key, v.sequence DESC LIMIT ?",
            (self._bucket_id, *parameters, self._size),
        )
        self._index = 0
        if len(self._rows) == self._size:
            key, sequence = self._rows[-1][0], self._rows[-1][1]
            if self._all_versions:
                self.start_at(key, sequence)
            else:
                self._seek("v.key > ?", key)
        self._size = min(self._size * 2, BATCH_LIMIT)


def null_sequence(reader: Reader, bucket: str, key: str) -> int | None:
    """Return the sequence of a key's version "null", None where it has none."""
    row = reader.one(
        "SELECT sequence FROM s3_version WHERE bucket_id = ? AND key = ? AND versioned = 0 "
        "ORDER BY sequence DESC LIMIT 1",
        (buckets.get(reader, bucket).bucket_id, key),
    )
    return None if row is None else int(row[0])
