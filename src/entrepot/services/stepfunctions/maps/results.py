"""ResultWriter: what becomes of the outputs of child executions, in the state's result or as files in a bucket.

Source: https://docs.aws.amazon.com/step-functions/latest/dg/input-output-resultwriter.html
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from entrepot import clock
from entrepot.arns import Account
from entrepot.database import Database, Reader
from entrepot.errors import AwsError
from entrepot.services.stepfunctions import executions
from entrepot.services.stepfunctions.executions import Execution
from entrepot.services.stepfunctions.interpreter import DATA_LIMIT_BYTES, too_large
from entrepot.services.stepfunctions.language.distributed import ResultWriter
from entrepot.services.stepfunctions.language.evaluation import DATA_LIMIT_EXCEEDED, Json, StatesError
from entrepot.services.stepfunctions.language.json_text import dumps, loads

from . import rows
from .readers import AskS3
from .rows import Child, ChildStatus, MapRun

PAGE = 50
"""Children that are looked at together."""

FILE_LIMIT_BYTES = 4 << 20
"""A file of results is closed when it is larger; AWS's grow to 5 GB, here one is made in memory."""

_LAST = 1 << 62
_FILES = {
    "FAILED": (ChildStatus.FAILED, ChildStatus.TIMED_OUT, ChildStatus.ABORTED),
    "PENDING": (ChildStatus.PENDING,),
    "SUCCEEDED": (ChildStatus.SUCCEEDED,),
}


class WriterError(Exception):
    """The results cannot be written: the cause of States.ResultWriterFailed."""


class Results:
    """The results of one map run whose children have all ended."""

    def __init__(self, database: Database, account: Account, run: MapRun, writer: ResultWriter | None) -> None:
        self._database = database
        self._account = account
        self._run = run
        self._writer = writer or ResultWriter()

    async def collect(self) -> Json:
        """Return the results as the state's result. Raises StatesError when they are too large."""
        collected: list[Json] = []
        size, after = 2, -1
        while True:
            page = await self._database.read(partial(self._page, statuses=None, after=after, make=self._value))
            for number, value in page:
                after = number
                if value is not _NOTHING:
                    text = dumps(value)
                    size += len(text) + 1
                    collected += value if self._flattens and isinstance(value, list) else [value]
            if size > 4 * DATA_LIMIT_BYTES or len(page) < PAGE:
                break
        if too_large(dumps(collected)):
            raise StatesError(
                DATA_LIMIT_EXCEEDED,
                "The results of the map run are larger than the maximum number of bytes service limit. "
                "Use ResultWriter to export them to a bucket.",
            )
        return collected

    @property
    def _flattens(self) -> bool:
        return self._writer.transformation == "FLATTEN"

    def _page(
        self,
        reader: Reader,
        statuses: Sequence[ChildStatus] | None,
        after: int,
        make: Callable[[Reader, Child], Json],
    ) -> list[tuple[int, Json]]:
        """Return (number, what `make` makes) of the next children, those of other statuses as nothing."""
        status = statuses[0] if statuses is not None and len(statuses) == 1 else None
        page = rows.children(reader, self._run.id, status, after, PAGE)
        return [
            (child.number, make(reader, child) if statuses is None or child.status in statuses else _NOTHING)
            for child in page
        ]

    def _value(self, reader: Reader, child: Child) -> Json:
        """Return what is kept of a child under the transformation."""
        if child.status is ChildStatus.PENDING:
            return _NOTHING
        plain = child.status is ChildStatus.SUCCEEDED and self._writer.transformation != "NONE"
        if plain and child.content is not None:
            return loads(child.content)
        execution = self._execution(reader, child)
        if plain:
            return loads(executions.events_before(reader, execution, _LAST, 1)[0].details["output"])
        return _described(reader, execution)

    def _execution(self, reader: Reader, child: Child) -> Execution:
        assert child.execution_id is not None
        execution = executions.by_id(reader, self._account, child.execution_id)
        assert execution is not None
        return execution

    # ── files ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def export(self, ask_s3: AskS3, parameters: Json, state_machine_arn: str) -> Json:
        """Write the results into a bucket and return the state's result. Raises WriterError.

        Written again after a restart, the files are the same: nobody changes what has ended.
        """
        given = {name.lower(): value for name, value in parameters.items()} if isinstance(parameters, dict) else {}
        bucket, prefix = given.get("bucket"), given.get("prefix", "")
        if not isinstance(bucket, str) or not bucket or not isinstance(prefix, str):
            raise WriterError("The ResultWriter needs a Bucket and may have a Prefix: strings.")
        folder = "/".join(part for part in (prefix.rstrip("/"), self._run.arn.rpartition(":")[2]) if part)
        try:
            files = {
                name: await self._files(ask_s3, bucket, f"{folder}/{name}", statuses, state_machine_arn)
                for name, statuses in _FILES.items()
            }
            manifest = {"DestinationBucket": bucket, "MapRunArn": self._run.arn, "ResultFiles": files}
            key = f"{folder}/manifest.json"
            await _put(ask_s3, bucket, key, dumps(manifest).encode())
        except AwsError as error:
            raise WriterError(
                f"{error.message} (Service: S3, Status Code: {error.status}, Error Code: {error.code})"
            ) from error
        return {"MapRunArn": self._run.arn, "ResultWriterDetails": {"Bucket": bucket, "Key": key}}

    async def _files(
        self, ask_s3: AskS3, bucket: str, name: str, statuses: Sequence[ChildStatus], state_machine_arn: str
    ) -> list[dict[str, Json]]:
        """Write the files NAME_0.json, NAME_1.json … and return them as the manifest does."""
        files: list[dict[str, Json]] = []
        texts: list[str] = []
        size, after = 0, -1
        make = partial(self._record, state_machine_arn=state_machine_arn)

        async def close() -> None:
            key = f"{name}_{len(files)}.{'jsonl' if self._writer.lines else 'json'}"
            text = "".join(f"{line}\n" for line in texts) if self._writer.lines else f"[{','.join(texts)}]"
            content = text.encode()
            await _put(ask_s3, bucket, key, content)
            files.append({"Key": key, "Size": len(content)})
            texts.clear()

        while True:
            page = await self._database.read(partial(self._page, statuses=statuses, after=after, make=make))
            for number, found in page:
                after = number
                for value in found if found is not _NOTHING else ():
                    texts.append(dumps(value))
                    size += len(texts[-1])
            if size > FILE_LIMIT_BYTES or (len(page) < PAGE and texts):
                await close()
                size = 0
            if len(page) < PAGE:
                return files

    def _record(self, reader: Reader, child: Child, state_machine_arn: str) -> list[Json]:
        """Return what a file holds of a child."""
        if child.status is ChildStatus.PENDING and child.execution_id is None:
            text = child.content
            told = {"Input": text, "InputDetails": {"Included": True}, "StateMachineArn": state_machine_arn}
            return [{**told, "Status": "PENDING"}]
        if child.status is ChildStatus.SUCCEEDED and self._writer.transformation in ("COMPACT", "FLATTEN"):
            value = self._value(reader, child)
            return value if self._flattens and isinstance(value, list) else [value]
        return [_described(reader, self._execution(reader, child))]


_NOTHING: Any = object()


async def _put(ask_s3: AskS3, bucket: str, key: str, content: bytes) -> None:
    content_type = "application/json"
    await ask_s3("PutObject", {"Bucket": bucket, "Key": key, "Body": content, "ContentType": content_type})


def _described(reader: Reader, execution: Execution) -> dict[str, Json]:
    """Return a child execution with all that AWS writes about it."""
    first = executions.events(reader, execution, 1, 1)[0].details
    last = executions.events_before(reader, execution, _LAST, 1)[0]
    told: dict[str, Json] = {}
    for member, name in (("cause", "Cause"), ("error", "Error")):
        if member in last.details:
            told[name] = last.details[member]
    told |= {"ExecutionArn": execution.arn, "Input": first["input"], "InputDetails": {"Included": True}}
    told["Name"] = execution.name
    if execution.status == "SUCCEEDED":
        told |= {"Output": last.details["output"], "OutputDetails": {"Included": True}}
    told["RedriveCount"] = execution.redrive_count
    if execution.status == "SUCCEEDED":
        told |= {
            "RedriveStatus": "NOT_REDRIVABLE",
            "RedriveStatusReason": "Execution is SUCCEEDED and cannot be redriven",
        }
    elif execution.machine.type == "STANDARD":
        told["RedriveStatus"] = "REDRIVABLE_BY_MAP_RUN"
    told |= {"StartDate": clock.iso(execution.started_at_ms), "StateMachineArn": execution.machine.arn}
    return {**told, "Status": execution.status, "StopDate": clock.iso(last.at_ms)}
