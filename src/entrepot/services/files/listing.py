"""Finding files: by id, beginning of an id or key, and listings, newest first, page by page.

A page costs the same in a ledger of ten million files: it walks one index from where the last page ended, and it looks at
no more than SCAN_LIMIT rows; when few of those fit the filters, the page is short and its token says where to go on.
"""

import base64
import re
from dataclasses import dataclass

from entrepot.database import Reader
from entrepot.services.files.errors import ResourceNotFoundError, ValidationError
from entrepot.services.files.record import STATUSES, TRANSFERRED, FileRecord, Records

PAGE_LIMIT = 1000
"""Files of one page."""

SCAN_LIMIT = 10_000
"""Rows that one page looks at."""

CHUNK = 1000

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
    records, files, looked_at = Records(reader), list[FileRecord](), 0
    conditions, parameters = "", list[str | int]()
    if wanted.status is not None and STATUSES.index(wanted.status) != TRANSFERRED:
        # The indexes on status are partial: their condition has to be said.
        conditions, parameters = "status <> 2 AND status = ? AND ", [STATUSES.index(wanted.status)]
    if wanted.customer_id is not None:
        conditions, parameters = f"{conditions}customer_id = ? AND ", [*parameters, wanted.customer_id]
    while looked_at < SCAN_LIMIT:
        size = min(CHUNK, limit + 1) if looked_at == 0 else CHUNK
        chunk = records.all(f"{conditions}sequence < ? ORDER BY sequence DESC LIMIT ?", *parameters, before, size)
        for file in chunk:
            if wanted.since_ms is not None and file.uploaded_at_ms < wanted.since_ms:
                return Page(files, None)  # They arrived in this order: all others are older.
            if _fits(file, wanted):
                if len(files) == limit:
                    return Page(files, _token(files[-1].sequence))
                files.append(file)
            before = file.sequence
        looked_at += len(chunk)
        if len(chunk) < size:
            return Page(files, None)
    return Page(files, _token(before))


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
