"""Finding files: by id, beginning of an id or key, and listings, newest first, page by page.

A page costs the same in a ledger of ten million files: it walks one index from where the last page ended, and it looks at
no more than SCAN_LIMIT rows; when few of those fit the filters, the page is short and its token says where to go on.
"""

import base64
import re
from dataclasses import dataclass
from typing import TypeAlias

from entrepot.database import Reader
from entrepot.services.files.errors import ResourceNotFoundError, ValidationError
from entrepot.services.files.record import STATUSES, TRANSFERRED, FileRecord, Records

PAGE_LIMIT = 1000
"""Files of one page."""

SCAN_LIMIT = 10_000
"""Rows that one page looks at, about, where they lie side by side."""

SCATTERED_LIMIT = 2_000
"""Rows that one page looks at, about, by way of an index: each may be a read of its own from the disk."""

CHUNK = 1000
"""Rows that are looked at in one statement."""

CHUNK_BY_KEY = 100

SORTED_LIMIT = 2000
"""A key prefix that no more files have is looked up by key and sorted; a commoner one filters the newest files."""

_PREFIX_LENGTH = 4
"""Fewer digits are no beginning of an id."""

LAST_SEQUENCE = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Filter:
    """What to list; None: anything. `since_ms` milliseconds since the epoch, inclusive."""

    status: str | None = None
    customer_id: str | None = None
    since_ms: int | None = None
    key_prefix: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Files, newest first; `next_token` is None at the end."""

    files: list[FileRecord]
    next_token: str | None


def find_file(reader: Reader, name: str) -> FileRecord:
    """Return the file with this id, this unique beginning of an id, or this key (the newest).

    Raises ResourceNotFoundError, and ValidationError when several ids begin so.
    """
    records = Records(reader)
    _check_text(name)
    if re.fullmatch(rf"[0-9a-f]{{{_PREFIX_LENGTH},64}}", name):
        low, high = bytes.fromhex(name.ljust(64, "0")), bytes.fromhex(name.ljust(64, "f"))
        found = records.all("file_id BETWEEN ? AND ? ORDER BY file_id LIMIT 2", low, high)
        if len(found) > 1:
            raise ValidationError(f"Several file ids begin with {name}; give more of its digits.")
        if found:
            return found[0]
    file = records.one("key = ? ORDER BY sequence DESC LIMIT 1", name)
    if file is None:
        raise ResourceNotFoundError(f"No file has the id or key {name!r}. `entrepot files` lists what arrived.")
    return file


def list_files(reader: Reader, wanted: Filter, *, limit: int, next_token: str | None = None) -> Page:
    """Return a page of files. Raises ValidationError."""
    if not 1 <= limit <= PAGE_LIMIT:
        raise ValidationError(f"limit must be between 1 and {PAGE_LIMIT}.")
    if wanted.status is not None and wanted.status not in STATUSES:
        raise ValidationError(f"status must be one of {', '.join(STATUSES)}.")
    _check_text(wanted.customer_id or "")
    _check_text(wanted.key_prefix or "")
    before = LAST_SEQUENCE if next_token is None else _sequence(next_token)
    if wanted.key_prefix:
        few = _by_key(reader, wanted, before, limit + 1)
        if few is not None:
            token = _token(few[limit - 1].sequence) if len(few) > limit else None
            return Page(few[:limit], token)
    return _newest(reader, wanted, before, limit)


def recent_files(reader: Reader, key_prefix: str, since_ms: int) -> list[FileRecord]:
    """Return the newest files whose keys begin so and that arrived since; at most PAGE_LIMIT."""
    return list_files(reader, Filter(key_prefix=key_prefix or None, since_ms=since_ms), limit=PAGE_LIMIT).files


def _newest(reader: Reader, wanted: Filter, before: int, limit: int) -> Page:
    """Walk the best index down from `before`."""
    (indexed, parameters), (others, values) = _conditions(wanted)
    files, looked_at, scan_limit = list[FileRecord](), 0, SCATTERED_LIMIT if indexed else SCAN_LIMIT
    while looked_at < scan_limit:
        low, until, places = 0, "", list[int]()
        if others:
            # The rows between here and the end of the next chunk are looked at where they are, not carried here.
            end = reader.one(
                f"SELECT sequence FROM files_file WHERE {indexed}sequence < ? ORDER BY sequence DESC LIMIT 1 OFFSET ?",  # noqa: S608 - constants
                (*parameters, before, CHUNK - 1),
            )
            if end is not None:
                low, until, places = end[0], " AND sequence >= ?", [end[0]]
        found = Records(reader).all(
            f"{indexed}{others}sequence < ?{until} ORDER BY sequence DESC LIMIT ?",
            *parameters, *values, before, *places, limit + 1 - len(files),
        )  # fmt: skip
        for file in found:
            if wanted.since_ms is not None and file.uploaded_at_ms < wanted.since_ms:
                return Page(files, None)  # They arrived in this order: all others are older.
            files.append(file)
        if len(files) > limit:
            return Page(files[:limit], _token(files[limit - 1].sequence))
        if low == 0 or _is_older(reader, low, wanted.since_ms):
            return Page(files, None)
        before = low
        looked_at += CHUNK
    return Page(files, _token(before))


Conditions: TypeAlias = tuple[str, list[str | int]]
"""Conditions of SQL, each followed by AND, and their values."""


def _conditions(wanted: Filter) -> tuple[Conditions, Conditions]:
    """Return the conditions that an index knows, and those that are looked up in the rows."""
    status = None if wanted.status is None else STATUSES.index(wanted.status)
    indexed, parameters = "", list[str | int]()
    others, values = "", list[str | int]()
    if wanted.customer_id is not None:
        indexed, parameters = "customer_id = ? AND ", [wanted.customer_id]
    if status is not None and (status == TRANSFERRED or (wanted.customer_id is not None and wanted.key_prefix)):
        # Together with a window of sequences, SQLite would take the index on status alone: the worse one of the two.
        others, values = "status = ? AND ", [status]
    elif status is not None:
        # The indexes on status are partial: their condition has to be said.
        indexed, parameters = f"status <> 2 AND status = ? AND {indexed}", [status, *parameters]
    if wanted.key_prefix:
        # As an expression: an index on keys would have to be sorted by arrival.
        others, values = f"{others}key || '' >= ? AND ", [*values, wanted.key_prefix]
        if (end := _after_prefix(wanted.key_prefix)) is not None:
            others, values = f"{others}key || '' < ? AND ", [*values, end]
    return (indexed, parameters), (others, values)


def _is_older(reader: Reader, sequence: int, since_ms: int | None) -> bool:
    """Whether a file, and so every one before it, arrived before `since_ms`."""
    if since_ms is None:
        return False
    row = reader.one("SELECT uploaded_at_ms FROM files_file WHERE sequence = ?", (sequence,))
    return row is not None and row[0] < since_ms


def _by_key(reader: Reader, wanted: Filter, before: int, limit: int) -> list[FileRecord] | None:
    """Return the first `limit` files that fit, newest first, when few keys begin so; else None.

    The index on keys knows the sequences, too: rows are read only for what the page shows.
    """
    prefix = wanted.key_prefix or ""
    end = _after_prefix(prefix)
    where, parameters = ("key >= ? AND key < ?", (prefix, end)) if end else ("key >= ?", (prefix,))
    found = reader.all(
        f"SELECT sequence FROM files_file WHERE {where} LIMIT ?",  # noqa: S608 - constants
        (*parameters, SORTED_LIMIT + 1),
    )
    if len(found) > SORTED_LIMIT:
        return None
    sequences = sorted((row[0] for row in found if row[0] < before), reverse=True)
    records, files = Records(reader), list[FileRecord]()
    for first in range(0, len(sequences), CHUNK_BY_KEY):
        chunk = sequences[first : first + CHUNK_BY_KEY]
        marks = ", ".join("?" for _ in chunk)
        for file in records.all(f"sequence IN ({marks}) ORDER BY sequence DESC", *chunk):
            if wanted.since_ms is not None and file.uploaded_at_ms < wanted.since_ms:
                return files
            if _fits(file, wanted):
                files.append(file)
                if len(files) == limit:
                    return files
    return files


def _after_prefix(prefix: str) -> str | None:
    """Return the first text (in the order of code points, which is that of UTF-8) after all that begin so."""
    for place in range(len(prefix) - 1, -1, -1):
        following = ord(prefix[place]) + 1
        if 0xD800 <= following <= 0xDFFF:
            following = 0xE000
        if following <= 0x10FFFF:
            return prefix[:place] + chr(following)
    return None


def _fits(file: FileRecord, wanted: Filter) -> bool:
    return (
        (wanted.status is None or STATUSES[file.status] == wanted.status)
        and (wanted.customer_id is None or file.customer_id == wanted.customer_id)
        and (not wanted.key_prefix or file.key.startswith(wanted.key_prefix))
    )


def _check_text(text: str) -> None:
    """Raise ValidationError for text that is no Unicode (a lone surrogate): no key can be so."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValidationError("The text is not valid Unicode.") from None


def _token(sequence: int) -> str:
    return base64.urlsafe_b64encode(f"1:{sequence}".encode()).decode()


def _sequence(token: str) -> int:
    try:
        version, _, number = base64.urlsafe_b64decode(token.encode("ascii")).decode("ascii").partition(":")
        if version == "1" and number.isdigit() and len(number) < 20:
            return min(int(number), LAST_SEQUENCE)
    except ValueError:
        pass
    raise ValidationError("next_token is not one that this operation gave.")
