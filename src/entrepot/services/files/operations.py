"""The edge: Entrepot's own operations on files, in the shape of its model (`aws/models/entrepot`)."""

from typing import Any

from entrepot import clock
from entrepot.database import Reader, Transaction
from entrepot.operations import (
    AsyncOperation,
    Call,
    Operation,
    Permissions,
    ReadOperation,
    Request,
    Response,
    WriteOperation,
)
from entrepot.operations import Permission as Allowed
from entrepot.services.files.errors import ValidationError
from entrepot.services.files.listing import PAGE_LIMIT, Filter, list_files
from entrepot.services.files.record import STATUSES, FileRecord
from entrepot.services.files.redrive import failed_files, redrive_files
from entrepot.services.files.service import Files
from entrepot.services.files.story import story_of
from entrepot.services.files.timeline import timeline

DEFAULT_PAGE = 100


def operations(files: Files) -> list[Operation]:
    """Return the operations of `files`."""

    def permit(action: str) -> Permissions:
        resource = files.account.arn("entrepot", "file/*")
        return lambda _: (Allowed(f"entrepot:{action}", resource),)

    async def get_file(request: Request, call: Call) -> Response:
        return await _get_file(files, request)

    return [
        ReadOperation("ListFiles", permit("ListFiles"), lambda reader, request, call: _list_files(reader, request)),
        AsyncOperation("GetFile", permit("GetFile"), get_file),
        WriteOperation(
            "RedriveFiles",
            permit("RedriveFiles"),
            lambda tx, request, call: _redrive_files(files, tx, request, call),
        ),
    ]


def _list_files(reader: Reader, request: Request) -> Response:
    """ListFiles: newest first."""
    since = request.get("since")
    wanted = Filter(
        request.get("status"),
        request.get("customer_id"),
        None if since is None else int(since.timestamp() * 1000),
        request.get("key_prefix"),
    )
    limit = DEFAULT_PAGE if request.get("limit") is None else min(request["limit"], PAGE_LIMIT)
    page = list_files(reader, wanted, limit=limit, next_token=request.get("next_token"))
    response: Response = {"files": [_file(file) for file in page.files]}
    if page.next_token is not None:
        response["next_token"] = page.next_token
    return response


async def _get_file(files: Files, request: Request) -> Response:
    """GetFile: the record and its timeline. What other rooms no longer have is left out."""

    story = await story_of(files, request["file"])
    file = story.file
    lines = [] if files.log_lines is None else list(await files.log_lines(file, story.histories))
    return {
        "file": _file(file),
        "timeline": [
            {"timestamp": clock.iso(entry.at_ms), "kind": entry.kind, "title": entry.title, "detail": entry.detail}
            for entry in timeline(file, story.facts, story.histories, lines)
        ],
    }


def _redrive_files(files: Files, tx: Transaction, request: Request, call: Call) -> Response:
    """RedriveFiles: each file for itself; with `status` the newest hundred failed ones."""
    names, status = list(request.get("file_ids") or ()), request.get("status")
    if bool(names) == bool(status):
        raise ValidationError("Give file_ids or status, one of them.")
    if status is not None and not names:
        if status != "failed":
            raise ValidationError("Only status failed can be redriven.")
        names = failed_files(tx)
        if not names:
            return {"files": []}
    outcomes = redrive_files(
        files, tx, names, call, dry_run=bool(request.get("dry_run")), force=bool(request.get("force"))
    )
    return {
        "files": [
            {"file_id": outcome.file_id, "key": outcome.key}
            | ({} if outcome.error is None else {"error": outcome.error.message, "code": outcome.error.code})
            for outcome in outcomes
        ]
    }


def _file(file: FileRecord) -> dict[str, Any]:
    """Return a file as the API shows it: every member is always there."""
    return {
        "file_id": file.file_id,
        "key": file.key,
        "source_bucket": file.pipeline.source_bucket,
        "destination_bucket": file.pipeline.destination_bucket,
        "customer_id": file.customer_id,
        "size_bytes": file.size_bytes,
        "sha256": file.sha256,
        "status": STATUSES[file.status],
        "upload_timestamp": clock.iso(file.uploaded_at_ms),
        "transfer_timestamp": "" if file.transferred_at_ms is None else clock.iso(file.transferred_at_ms),
        "error_message": file.error_message or "",
        "execution_arn": file.execution_arn or "",
        "user_name": file.user_name,
        "source_ip": file.source_ip,
        "session_id": file.session_id or "",
        "event_id": file.event_id or "",
        "sequencer": f"{file.sequence:018X}",
        "redrive_count": file.redrive_count,
    }
