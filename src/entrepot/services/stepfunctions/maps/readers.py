"""ItemReader: where the items of a map run come from, and how its reading goes on after a restart.

Every item comes with a position: reading from there gives the items after it. A position is the place in a listing or the
number of an item in an object, whose ETag must still be the same.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from entrepot.errors import AwsError
from entrepot.services.stepfunctions.language.distributed import ItemReader
from entrepot.services.stepfunctions.language.evaluation import Json
from entrepot.services.stepfunctions.language.json_text import InvalidJson, loads

from .documents import Entry, Pieces, ReaderError, csv_items, gunzip, json_items, json_lines, lines

MANIFEST_LIMIT_BYTES = 8 << 20
"""Size of an inventory's manifest.json, which lists files of many thousand objects each."""

PIECE_BYTES = 262_144
"""An object that comes in one piece is taken apart into pieces of this size."""

AskS3: TypeAlias = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]
"""`ask_s3(operation, request)`: perform an operation of S3 as the state machine's role. Raises AwsError."""


@dataclass(frozen=True, slots=True)
class Item:
    """One item."""

    key: str | None
    value: Json
    source: str
    """`$$.Map.Item.Source`: the URI of the object or bucket that it was found in."""
    position: Json
    """Where reading goes on after it."""


@dataclass(frozen=True, slots=True)
class _Object:
    bucket: str
    key: str
    version_id: str | None = None

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


async def read(ask_s3: AskS3, reader: ItemReader, parameters: Json, position: Json) -> AsyncIterator[Item]:
    """Yield the items after `position` (None: all). Raises ReaderError."""
    if not isinstance(parameters, dict):
        raise ReaderError("The parameters of the ItemReader must be an object.")
    given = {name.lower(): value for name, value in parameters.items()}
    try:
        if reader.action == "listObjectsV2":
            found = _flattened(ask_s3, reader, given, position) if reader.flatten else _listed(ask_s3, given, position)
        elif reader.manifest_type == "ATHENA_DATA":
            found = _athena(ask_s3, reader, _object(given), position)
        elif reader.input_type == "MANIFEST":
            found = _inventory(ask_s3, _object(given), position)
        else:
            found = _document(ask_s3, reader, _object(given), position)
        async for item in found:
            yield item
    except AwsError as error:
        raise ReaderError(
            f"{error.message} (Service: S3, Status Code: {error.status}, Error Code: {error.code})"
        ) from error


def _text(given: Mapping[str, Json], name: str, *, required: bool = True) -> str:
    value = given.get(name.lower(), "")
    if not isinstance(value, str) or (required and not value):
        raise ReaderError(f"The parameter {name} of the ItemReader must be a string.")
    return value


def _object(given: Mapping[str, Json]) -> _Object:
    return _Object(_text(given, "Bucket"), _text(given, "Key"), _text(given, "VersionId", required=False) or None)


# ── objects ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def _open(ask_s3: AskS3, place: _Object, etag: str | None) -> tuple[str, Pieces]:
    """Return the ETag and the bytes of an object, which must be the one that was read before. Raises AwsError."""
    request: dict[str, Any] = {"Bucket": place.bucket, "Key": place.key}
    if place.version_id is not None:
        request["VersionId"] = place.version_id
    if etag:
        request["IfMatch"] = etag
    response = await ask_s3("GetObject", request)
    pieces = _pieces(response.get("Body") or b"")
    gzipped = place.key.endswith(".gz") or response.get("ContentEncoding") == "gzip"
    return response.get("ETag") or "", gunzip(pieces) if gzipped else pieces


async def _pieces(body: Any) -> Pieces:
    if isinstance(body, bytes | bytearray | memoryview):
        for start in range(0, len(body), PIECE_BYTES):
            yield bytes(body[start : start + PIECE_BYTES])
        return
    async for piece in body:
        yield bytes(piece)


def entries_of(pieces: Pieces, reader: ItemReader) -> AsyncIterator[Entry]:
    """Yield the items of one object's bytes. Raises ReaderError."""
    if reader.input_type == "CSV":
        return csv_items(pieces, None if reader.first_row else reader.headers, reader.delimiter)
    if reader.input_type == "JSONL":
        return json_lines(pieces)
    return json_items(pieces, reader.items_pointer)


async def _document(ask_s3: AskS3, reader: ItemReader, place: _Object, position: Json) -> AsyncIterator[Item]:
    """Yield the items of one object. Its positions are (number of items read, ETag)."""
    done, etag = position or (0, None)
    etag, pieces = await _open(ask_s3, place, etag)
    number = 0
    async for key, value in entries_of(pieces, reader):
        number += 1
        if number > done:
            yield Item(key, value, place.uri, (number, etag))


# ── listings ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def _objects(ask_s3: AskS3, given: Mapping[str, Json], after: str | None) -> AsyncIterator[dict[str, Any]]:
    request: dict[str, Any] = {"Bucket": _text(given, "Bucket")}
    prefix = _text(given, "Prefix", required=False)
    if prefix:
        request["Prefix"] = prefix
    while True:
        response = await ask_s3("ListObjectsV2", {**request, **({"StartAfter": after} if after else {})})
        for entry in response.get("Contents") or ():
            after = str(entry["Key"])
            yield entry
        if not response.get("IsTruncated"):
            return


async def _listed(ask_s3: AskS3, given: Mapping[str, Json], position: Json) -> AsyncIterator[Item]:
    """Yield what a listing tells of each object. A position is the object's key."""
    bucket = _text(given, "Bucket")
    async for entry in _objects(ask_s3, given, position):
        shown: dict[str, Json] = {"Etag": entry.get("ETag", ""), "Key": entry["Key"]}
        if entry.get("LastModified") is not None:
            shown["LastModified"] = int(entry["LastModified"].timestamp())
        shown |= {"Size": entry.get("Size", 0), "StorageClass": entry.get("StorageClass", "STANDARD")}
        yield Item(None, shown, f"s3://{bucket}", entry["Key"])


async def _flattened(
    ask_s3: AskS3, reader: ItemReader, given: Mapping[str, Json], position: Json
) -> AsyncIterator[Item]:
    """Yield the items inside the objects of a listing. Positions: (last whole key, position in the next object)."""
    bucket = _text(given, "Bucket")
    after, inner = position or (None, None)
    async for entry in _objects(ask_s3, given, after):
        async for item in _document(ask_s3, reader, _Object(bucket, str(entry["Key"])), inner):
            yield Item(item.key, item.value, item.source, (after, item.position))
        after, inner = str(entry["Key"]), None


# ── manifests ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def _inventory(ask_s3: AskS3, place: _Object, position: Json) -> AsyncIterator[Item]:
    """Yield the rows of an S3 inventory. Positions: (number of the file, position in it)."""
    _, pieces = await _open(ask_s3, place, None)
    content = b""
    async for piece in pieces:
        content += piece
        if len(content) > MANIFEST_LIMIT_BYTES:
            raise ReaderError(f"The manifest {place.uri} is larger than {MANIFEST_LIMIT_BYTES} bytes.")
    try:
        manifest = loads(content.decode("utf-8-sig"))
        if manifest["fileFormat"] != "CSV":
            raise ReaderError(f"The inventory's format {manifest['fileFormat']} is not supported: only CSV is.")
        headers = tuple(name.strip() for name in manifest["fileSchema"].split(","))
        bucket = str(manifest["destinationBucket"]).rpartition(":")[2]
        files = [_Object(bucket, str(file["key"])) for file in manifest["files"]]
    except (InvalidJson, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ReaderError(f"{place.uri} is no manifest of an S3 inventory: {error!r}") from None
    rows = ItemReader(action="getObject", parameters=None, input_type="CSV", first_row=False, headers=headers)
    number, inner = position or (0, None)
    for index in range(number, len(files)):
        async for item in _document(ask_s3, rows, files[index], inner):
            yield Item(item.key, item.value, item.source, (index, item.position))
        inner = None


async def _athena(ask_s3: AskS3, reader: ItemReader, place: _Object, position: Json) -> AsyncIterator[Item]:
    """Yield the items of the files that an Athena manifest names, a URI a line. Positions: (line, position in the file)."""
    _, pieces = await _open(ask_s3, place, None)
    done, inner = position or (0, None)
    number = -1
    async for line in lines(pieces):
        uri = line.strip().strip('"')
        if not uri:
            continue
        number += 1
        if number < done:
            continue
        bucket, slash, key = uri.removeprefix("s3://").partition("/")
        if not uri.startswith("s3://") or not slash:
            raise ReaderError(f"The manifest {place.uri} has a line that is no S3 URI: {uri[:100]}")
        async for item in _document(ask_s3, reader, _Object(bucket, key), inner):
            yield Item(item.key, item.value, item.source, (number, item.position))
        inner = None
