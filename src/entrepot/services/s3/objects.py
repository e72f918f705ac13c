"""What S3 is made of, as values: buckets, versions of objects, and what other rooms hear of their changes."""

import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from entrepot.database import Transaction
from entrepot.operations import Call

DEFAULT_CONTENT_TYPE = "binary/octet-stream"
"""What S3 answers for an object that was stored without a Content-Type."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """One bucket. `versioning` is '' (never enabled), 'Enabled' or 'Suspended'."""

    bucket_id: int
    name: str
    created_at_ms: int
    versioning: str
    event_bridge: bool


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a version carries beside its content.

    `headers` are the system headers that come back on GET, under botocore's member names (`CacheControl`,
    `ContentDisposition`, `ContentEncoding`, `ContentLanguage`, `Expires`, `WebsiteRedirectLocation`); `metadata` is the
    user's (`x-amz-meta-*`); `checksums` maps botocore's names (`ChecksumCRC32`, …) to their Base64.
    """

    content_type: str = DEFAULT_CONTENT_TYPE
    metadata: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    checksums: Mapping[str, str] = field(default_factory=dict)
    part_sizes: tuple[int, ...] = ()
    copies: int = 0
    """How many copies by roles, one after the other, led here: what tells a loop of workflows from a delivery."""

    def to_json(self) -> str | None:
        """Return the column's text; None when there is nothing to say, which is the usual case."""
        document: dict[str, object] = {}
        if self.content_type != DEFAULT_CONTENT_TYPE:
            document["t"] = self.content_type
        if self.metadata:
            document["m"] = dict(self.metadata)
        if self.headers:
            document["h"] = dict(self.headers)
        if self.tags:
            document["g"] = dict(self.tags)
        if self.checksums:
            document["c"] = dict(self.checksums)
        if self.part_sizes:
            document["p"] = [[size, len(list(run))] for size, run in itertools.groupby(self.part_sizes)]
        if self.copies:
            document["n"] = self.copies
        return json.dumps(document, separators=(",", ":"), ensure_ascii=False) if document else None

    @staticmethod
    def from_json(text: str | None) -> "Attributes":
        """Return what `to_json` wrote."""
        if text is None:
            return NO_ATTRIBUTES
        document = json.loads(text)
        return Attributes(
            document.get("t", DEFAULT_CONTENT_TYPE),
            document.get("m", {}),
            document.get("h", {}),
            document.get("g", {}),
            document.get("c", {}),
            tuple(size for size, count in document.get("p", ()) for _ in range(count)),
            document.get("n", 0),
        )


NO_ATTRIBUTES = Attributes()


@dataclass(frozen=True, slots=True)
class ObjectVersion:
    """One version of an object. `sequence` orders all versions of this ledger.

    A delete marker has no content: `content_id`, `sha256` and `blob_id` are None. `inline` is filled only where the
    content was asked for and rides in the ledger. `modified_at_ms` is S3's LastModified; `mtime_ms` what an SFTP
    client set (or else the same).
    """

    bucket: str
    key: str
    sequence: int
    versioned: bool
    content_id: int | None
    size_bytes: int
    etag: str
    modified_at_ms: int
    mtime_ms: int
    attributes: Attributes = NO_ATTRIBUTES
    sha256: bytes | None = None
    blob_id: str | None = None
    inline: bytes | None = None

    @property
    def sequencer(self) -> str:
        """S3's sequencer: 18 upper-case hex digits that grow with every version."""
        return sequencer(self.sequence)

    @property
    def version_id(self) -> str | None:
        """AWS's version id; None for a version written while the bucket was not versioned ("null")."""
        return version_id(self.sequence) if self.versioned else None

    @property
    def is_delete_marker(self) -> bool:
        """Whether this version says that the object was deleted."""
        return self.content_id is None


@dataclass(frozen=True, slots=True)
class CopiedFrom:
    """The version that a copy or rename took its content from."""

    bucket: str
    key: str
    sequencer: str


@dataclass(frozen=True, slots=True)
class ObjectCreated:
    """A version became visible. `reason` is AWS's: PutObject, CopyObject, CompleteMultipartUpload or POST Object.

    `version_id` is None in a bucket without versioning; `sha256` is lower-case hex. `event_bridge`: whether the bucket
    sends its events to EventBridge.
    """

    bucket: str
    key: str
    size_bytes: int
    etag: str
    version_id: str | None
    sequencer: str
    sha256: str
    reason: str
    created_at_ms: int
    copied_from: CopiedFrom | None = None
    event_bridge: bool = True


@dataclass(frozen=True, slots=True)
class ObjectDeleted:
    """A version was removed, or a delete marker was put over it.

    `deletion_type` is AWS's: `Permanently Deleted` or `Delete Marker Created`. `reason` is AWS's: `DeleteObject`.
    """

    bucket: str
    key: str
    version_id: str | None
    sequencer: str
    deletion_type: str
    reason: str
    deleted_at_ms: int
    event_bridge: bool = True


OnObjectCreated: TypeAlias = Callable[[Transaction, ObjectCreated, Call], None]
"""Called inside the transaction that makes a version visible."""

OnObjectDeleted: TypeAlias = Callable[[Transaction, ObjectDeleted, Call], None]
"""Called inside the transaction that removes a version or puts a delete marker over it."""


def sequencer(sequence: int) -> str:
    """Return the sequencer for a sequence."""
    return f"{sequence:018X}"


def version_id(sequence: int) -> str:
    """Return the version id for a sequence: 32 lower-case hex digits."""
    return f"{sequence:032x}"


def sequence_of(version_id: str) -> int | None:
    """Return the sequence that a version id stands for; None when it cannot be one of ours."""
    if len(version_id) != 32 or not version_id.isascii():
        return None
    try:
        sequence = int(version_id, 16)
    except ValueError:
        return None
    return sequence if 0 < sequence < 1 << 63 else None


def multipart_etag_of(sha256: bytes) -> str:
    """Return the ETag of an SFTP upload: of multipart form, as AWS Transfer's uploads have, so that nobody takes it
    for the content's MD5 (which is not computed)."""
    return f"{sha256[:16].hex()}-1"
