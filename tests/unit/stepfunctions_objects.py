"""A small S3 in memory, for tests of distributed Maps: GetObject in pieces, ListObjectsV2 in pages, PutObject."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from entrepot.errors import AwsError
from entrepot.operations import AsyncOperation, Call, Operation, Permission, Request, Response


class NoSuchKey(AwsError):
    code = "NoSuchKey"
    status = 404


class PreconditionFailed(AwsError):
    code = "PreconditionFailed"
    status = 412


class Objects:
    """Objects by "BUCKET/KEY"; `asked` has the operations that were performed."""

    def __init__(self, piece_bytes: int = 7, page: int = 2) -> None:
        self.contents: dict[str, bytes] = {}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.refused: set[str] = {"missing"}
        """Buckets that take nothing."""
        self.piece_bytes = piece_bytes
        self.page = page

    def operations(self) -> list[Operation]:
        return [
            AsyncOperation("GetObject", lambda _: [Permission("s3:GetObject", "*")], self.get),
            AsyncOperation("ListObjectsV2", lambda _: [Permission("s3:ListBucket", "*")], self.list),
            AsyncOperation("PutObject", lambda _: [Permission("s3:PutObject", "*")], self.put),
        ]

    async def get(self, request: Request, call: Call) -> Response:
        self.asked.append(("GetObject", dict(request)))
        content = self.contents.get(f"{request['Bucket']}/{request['Key']}")
        if content is None:
            raise NoSuchKey("The specified key does not exist.")
        etag = f'"{hash(content):x}"'
        if request.get("IfMatch", etag) != etag:
            raise PreconditionFailed("At least one of the pre-conditions you specified did not hold")

        async def pieces() -> AsyncIterator[bytes]:
            for start in range(0, len(content), self.piece_bytes):
                yield content[start : start + self.piece_bytes]

        return {"Body": pieces(), "ETag": etag, "ContentLength": len(content)}

    async def list(self, request: Request, call: Call) -> Response:
        self.asked.append(("ListObjectsV2", dict(request)))
        prefix = f"{request['Bucket']}/{request.get('Prefix', '')}"
        names = sorted(name for name in self.contents if name.startswith(prefix))
        keys = [name.partition("/")[2] for name in names]
        keys = [key for key in keys if key > request.get("StartAfter", "")]
        at = datetime(2026, 11, 23, tzinfo=UTC)
        shown = [
            {"Key": key, "ETag": '"e"', "Size": 1, "LastModified": at, "StorageClass": "STANDARD"}
            for key in keys[: self.page]
        ]
        return {"Contents": shown, "IsTruncated": len(keys) > self.page}

    async def put(self, request: Request, call: Call) -> Response:
        self.asked.append(("PutObject", {"Bucket": request["Bucket"], "Key": request["Key"]}))
        if request["Bucket"] in self.refused:
            raise NoSuchKey("The specified bucket does not exist")
        self.contents[f"{request['Bucket']}/{request['Key']}"] = bytes(request["Body"])
        return {}
