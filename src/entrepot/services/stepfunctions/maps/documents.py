"""The items inside S3 objects, one after the other as their bytes come: CSV, JSON, JSON Lines.

Nothing here holds more than one item and one piece of the object. Source:
https://docs.aws.amazon.com/step-functions/latest/dg/input-output-itemreader.html
"""

import codecs
import csv
import re
import zlib
from collections.abc import AsyncIterator, Sequence
from typing import TypeAlias

from entrepot.services.stepfunctions.language.evaluation import Json
from entrepot.services.stepfunctions.language.json_text import InvalidJson, decode_at, loads

ITEM_LIMIT_CHARACTERS = 1_048_576
"""Text of one item; the input of a child has a quarter of it at most."""

GZIP_PIECE_BYTES = 65_536
"""What is inflated at once."""

Pieces: TypeAlias = AsyncIterator[bytes]
Entry: TypeAlias = tuple[str | None, Json]
"""(key or None, item): the members of a JSON object have keys."""

_ESCAPED = re.compile(r"\\.", re.DOTALL)
_STRUCTURE = re.compile(r'[\[\]{}"]')
_IN_STRING = re.compile(r'["\\]')
_SPACE = re.compile(r"[ \t\n\r]*")


class ReaderError(Exception):
    """The items cannot be read: the cause of States.ItemReaderFailed."""


async def gunzip(pieces: Pieces) -> Pieces:
    """Yield the inflated bytes of a gzip file, of all its members."""
    inflate = zlib.decompressobj(31)
    try:
        async for piece in pieces:
            data = piece
            while data:
                yield inflate.decompress(data, GZIP_PIECE_BYTES)
                data = inflate.unconsumed_tail
                if inflate.eof:
                    data, inflate = inflate.unused_data, zlib.decompressobj(31)
    except zlib.error as error:
        raise ReaderError(f"The object is not a gzip file: {error}") from None


async def _texts(pieces: Pieces) -> AsyncIterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    try:
        async for piece in pieces:
            text = decoder.decode(piece)
            if text:
                yield text
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        raise ReaderError("The object is not text in UTF-8.") from None


async def lines(pieces: Pieces) -> AsyncIterator[str]:
    """Yield the lines of a text without their ends. Raises ReaderError."""
    rest = ""
    async for text in _texts(pieces):
        *whole, rest = (rest + text).split("\n")
        for line in whole:
            yield line.removesuffix("\r")
        if len(rest) > ITEM_LIMIT_CHARACTERS:
            raise ReaderError(f"A line is longer than {ITEM_LIMIT_CHARACTERS} characters.")
    if rest:
        yield rest.removesuffix("\r")


async def json_lines(pieces: Pieces) -> AsyncIterator[Entry]:
    """Yield the values of JSON Lines. Raises ReaderError."""
    number = 0
    async for line in lines(pieces):
        number += 1
        if line.strip():
            try:
                yield None, loads(line)
            except InvalidJson as error:
                raise ReaderError(f"Line {number} is not JSON: {error}") from None


async def csv_items(pieces: Pieces, headers: Sequence[str] | None, delimiter: str) -> AsyncIterator[Entry]:
    """Yield the rows of a CSV file as objects of strings; `headers` None: they are in the first row. Raises ReaderError."""
    names: list[str] | None = None if headers is None else _checked(headers)
    async for row in _rows(pieces, delimiter):
        if names is None:
            names = _checked(row)
            continue
        values = row + [""] * (len(names) - len(row)) if len(row) < len(names) else row
        yield None, dict(zip(names, values, strict=False))


def _checked(headers: Sequence[str]) -> list[str]:
    if len(set(headers)) != len(headers):
        raise ReaderError("CSV headers cannot contain duplicates.")
    return list(headers)


async def _rows(pieces: Pieces, delimiter: str) -> AsyncIterator[list[str]]:
    record: list[str] = []
    size, quotes = 0, 0
    async for line in lines(pieces):
        record.append(line)
        size += len(line) + 1
        if '"' in line:
            quotes += (_ESCAPED.sub("", line) if "\\" in line else line).count('"')
        if quotes % 2:
            if size > ITEM_LIMIT_CHARACTERS:
                raise ReaderError(f"A CSV record is longer than {ITEM_LIMIT_CHARACTERS} characters.")
            continue
        row = _row("\n".join(record), delimiter)
        record, size, quotes = [], 0, 0
        if row:
            yield row
    if record:
        yield _row("\n".join(record), delimiter)


def _row(record: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([record], delimiter=delimiter, escapechar="\\"), [])
    except csv.Error as error:
        raise ReaderError(f"The CSV record '{record[:100]}' cannot be read: {error}") from None


async def json_items(pieces: Pieces, pointer: Sequence[str]) -> AsyncIterator[Entry]:
    """Yield the elements of a JSON array, or the members of an object, where `pointer` leads. Raises ReaderError."""
    text = _JsonText(_texts(pieces))
    for key in pointer:
        await text.descend(key)
    opening = await text.peek()
    if opening not in ("[", "{"):
        raise ReaderError("Attempting to map over non-iterable node.")
    text.at += 1
    closing = "]" if opening == "[" else "}"
    if await text.peek() == closing:
        return
    while True:
        name = await text.key() if opening == "{" else None
        yield name, await text.value()
        if await text.next_one() == closing:
            return


class _JsonText:
    """A JSON text that is read while it comes. `at` is the place in `buffer`, which holds what is not consumed yet."""

    def __init__(self, texts: AsyncIterator[str]) -> None:
        self._texts = texts
        self.buffer = ""
        self.at = 0
        self._ended = False

    async def _more(self) -> bool:
        """Append the next piece; False at the end."""
        if self._ended:
            return False
        text = await anext(self._texts, "")
        if not text:
            self._ended = True
            return False
        self.buffer, self.at = self.buffer[self.at :] + text, 0
        return True

    async def peek(self) -> str:
        """Return the next character after white space. Raises ReaderError at the end."""
        while True:
            found = _SPACE.match(self.buffer, self.at)
            self.at = found.end() if found is not None else self.at
            if self.at < len(self.buffer):
                return self.buffer[self.at]
            if not await self._more():
                raise ReaderError("The JSON document ends too early.")

    async def value(self) -> Json:
        """Read a whole value. Raises ReaderError."""
        await self.peek()
        while True:
            try:
                value, end = decode_at(self.buffer, self.at)
                # A number may go on in the next piece.
                if end < len(self.buffer) or not await self._more():
                    self.at = end
                    return value
            except InvalidJson as error:
                if len(self.buffer) - self.at > ITEM_LIMIT_CHARACTERS:
                    raise ReaderError(
                        f"An item has more than {ITEM_LIMIT_CHARACTERS} characters, or is no JSON."
                    ) from None
                if not await self._more():
                    raise ReaderError(f"The document is not JSON: {error}") from None

    async def key(self) -> str:
        """Read a member's key and the colon. Raises ReaderError."""
        found = await self.value()
        if not isinstance(found, str) or await self.peek() != ":":
            raise ReaderError("The document is not JSON: a member of an object needs a string and a colon.")
        self.at += 1
        return found

    async def next_one(self) -> str:
        """Pass the comma between elements, or the bracket at the end; return it. Raises ReaderError."""
        found = await self.peek()
        if found not in ",]}":
            raise ReaderError(f"The document is not JSON: there is {found!r} where a comma or the end must be.")
        self.at += 1
        return found

    async def descend(self, wanted: str) -> None:
        """Go to a member of the object, or an element of the array, that comes next. Raises ReaderError."""
        opening = await self.peek()
        if opening not in ("[", "{"):
            raise ReaderError(f"The ItemsPointer leads to nothing: '{wanted}' is looked for in no object and no array.")
        self.at += 1
        number, closing = 0, "]" if opening == "[" else "}"
        if await self.peek() != closing:
            while True:
                name = await self.key() if opening == "{" else str(number)
                if name == wanted:
                    return
                await self._skip()
                if await self.next_one() == closing:
                    break
                number += 1
        raise ReaderError(f"The ItemsPointer leads to nothing: there is no '{wanted}'.")

    async def _skip(self) -> None:
        """Pass a value, however large."""
        if await self.peek() not in "[{":
            await self.value()
            return
        depth, in_string = 0, False
        while True:
            found = (_IN_STRING if in_string else _STRUCTURE).search(self.buffer, self.at)
            if found is None:
                self.at = len(self.buffer)
                if not await self._more():
                    raise ReaderError("The JSON document ends too early.")
                continue
            mark, self.at = found.group(), found.end()
            if mark == "\\":
                while self.at >= len(self.buffer) and await self._more():
                    pass
                self.at += 1
            elif mark == '"':
                in_string = not in_string
            else:
                depth += 1 if mark in "[{" else -1
                if depth == 0:
                    return
