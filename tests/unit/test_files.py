"""Files: what each report of another room does to a file's record, its item, and its timeline."""

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from entrepot import ids
from entrepot.arns import Account
from entrepot.clock import from_ms
from entrepot.database import Reader, Transaction
from entrepot.database.sqlite import SQLiteDatabase
from entrepot.errors import AwsError
from entrepot.operations import Call, Decision, Operations, Principal
from entrepot.services import files
from entrepot.services.files.errors import ResourceNotFoundError, ValidationError
from entrepot.services.files.event import object_created_event
from entrepot.services.files.listing import Filter, find_file, list_files

ACCOUNT = Account()
SOURCE, DESTINATION, TABLE = "in", "out", "FileTransferMetadata"
MACHINE = ACCOUNT.arn("states", "stateMachine:transfer")
RULE = ACCOUNT.arn("events", "rule/object-created")
UPLOADED_AT_MS = 1_700_000_000_000
DEMO = Call(Principal("arn:aws:iam::000000000000:user/demo", "user", "demo"), "REQ1", "10.1.2.3", "s-1")


@dataclass(frozen=True)
class Version:
    bucket: str
    key: str
    sequencer: str


@dataclass(frozen=True)
class Created:
    bucket: str
    key: str
    sequencer: str
    size_bytes: int = 5
    sha256: str = "ab" * 32
    etag: str = f"{'ab' * 16}-1"
    version_id: str | None = None
    reason: str = "PutObject"
    created_at_ms: int = UPLOADED_AT_MS
    copied_from: Version | None = None


@dataclass(frozen=True)
class Delivered:
    event_id: str
    attempt: int = 1
    rule_arn: str = RULE
    target_id: str = "t"
    target_arn: str = MACHINE
    execution_arn: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class Change:
    execution_arn: str
    status: str
    error: str | None = None
    cause: str | None = None
    started_at_ms: int = UPLOADED_AT_MS
    stopped_at_ms: int | None = None


@dataclass
class House:
    """Files on a ledger, beside a table, a queue, executions and logs that only remember."""

    database: SQLiteDatabase
    items: dict[str, dict[str, Any]] = field(default_factory=dict)
    redelivered: list[tuple[Mapping[str, Any], int]] = field(default_factory=list)
    histories: dict[str, list[Mapping[str, Any]]] = field(default_factory=dict)
    targets: int = 1
    last: int = 0

    def __post_init__(self) -> None:
        self.files = files.Files(
            self.database, ACCOUNT,
            pipelines=[files.Pipeline(SOURCE, DESTINATION, TABLE)],
            put_metadata_item=self.put_item,
            delete_metadata_item=lambda tx, table, file_id: self.items.pop(file_id, None) and None,
            redeliver=self.redeliver,
            session=lambda reader, session_id: files.SessionFacts(
                "demo", "10.1.2.3", "OpenSSH_9.2", "SHA256:xyz", UPLOADED_AT_MS - 1000
            ),
            execution_history=self.execution_history,
            log_lines=self.log_lines,
        )  # fmt: skip
        self.operations = Operations(self.database, lambda principal, permission: Decision(True, "test", "test"))
        self.operations.add("entrepot", files.operations(self.files))

    def put_item(self, tx: Transaction, table_name: str, item: dict[str, Any]) -> None:
        assert table_name == TABLE
        old = self.items.get(item["file_id"])
        new = {name: value for name, value in ((old or {}) | item).items() if value is not None}
        self.items[item["file_id"]] = new
        self.files.item_changed(tx, table_name, {}, old and typed(old), typed(new))

    def redeliver(self, tx: Transaction, event: Mapping[str, Any], attempt: int) -> int:
        self.redelivered.append((event, attempt))
        return self.targets

    async def execution_history(self, arn: str) -> list[Mapping[str, Any]]:
        return self.histories.get(arn, [])

    async def log_lines(self, file: files.FileRecord, histories: object) -> list[files.LoggedLine]:
        return [
            files.LoggedLine(UPLOADED_AT_MS + 50, "/aws/lambda/transfer", f"copying {file.key}\n"),
            files.LoggedLine(UPLOADED_AT_MS + 50, "/aws/vendedlogs/states/transfer", "the history again"),
        ]

    async def upload(self, key: str = "acme/a.csv", call: Call = DEMO, **changes: Any) -> "Upload":
        self.last += 1
        created = Created(SOURCE, key, f"{self.last:018X}", **changes)
        upload = Upload(created, ids.derived(SOURCE, key, created.sequencer), ids.random_uuid())
        await self.write(self.files.record_upload, created, call, upload.event_id)
        return upload

    async def write(self, method: Any, *arguments: Any) -> None:
        await self.database.write(lambda tx: method(tx, *arguments))

    async def deliver(self, upload: "Upload", attempt: int = 1) -> str:
        arn = upload.execution_arn(attempt)
        await self.write(self.files.execution_changed, Change(arn, "RUNNING"))
        await self.write(self.files.delivered, Delivered(upload.event_id, attempt, execution_arn=arn))
        return arn

    async def ended(self, arn: str, status: str, error: str | None = None, cause: str | None = None) -> None:
        await self.write(self.files.execution_changed, Change(arn, status, error, cause))

    async def copied(self, upload: "Upload", bucket: str = DESTINATION) -> None:
        created = upload.created
        source = Version(created.bucket, created.key, created.sequencer)
        self.last += 1
        copy = Created(bucket, created.key, f"{self.last:018X}", reason="CopyObject", copied_from=source,
                       created_at_ms=UPLOADED_AT_MS + 60)  # fmt: skip
        await self.write(self.files.object_copied, copy)

    async def item_becomes(self, upload: "Upload", **attributes: Any) -> None:
        item = {"file_id": upload.file_id, **attributes}
        await self.database.write(lambda tx: self.put_item(tx, TABLE, item))

    async def do(self, name: str, **request: Any) -> dict[str, Any]:
        return await self.operations.perform("entrepot", name, request, DEMO)

    async def row(self, upload: "Upload") -> dict[str, Any]:
        return (await self.do("GetFile", file=upload.file_id))["file"]

    async def status(self, upload: "Upload") -> str:
        row = await self.row(upload)
        assert self.items[upload.file_id]["status"] == row["status"]
        assert self.items[upload.file_id].get("error_message", "") == row["error_message"]
        return str(row["status"])


@dataclass(frozen=True)
class Upload:
    created: Created
    file_id: str
    event_id: str

    def execution_arn(self, attempt: int = 1) -> str:
        name = f"{self.event_id}_{ids.derived(RULE, 't', str(attempt))[:32]}"
        return ACCOUNT.arn("states", f"execution:transfer:{name}")


def typed(item: Mapping[str, Any]) -> dict[str, Any]:
    return {name: {"S": value} for name, value in item.items()}


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    database = SQLiteDatabase(tmp_path / "ledger.db")
    database.migrate(files.MIGRATIONS)
    yield House(database)
    await database.close()


# ── uploads ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_upload_makes_a_row_and_an_item(house: House) -> None:
    upload = await house.upload()
    row = await house.row(upload)
    assert row == {
        "file_id": upload.file_id, "key": "acme/a.csv", "source_bucket": SOURCE, "destination_bucket": DESTINATION,
        "customer_id": "acme", "size_bytes": 5, "sha256": "ab" * 32, "status": "uploaded",
        "upload_timestamp": "2023-11-14T22:13:20.000Z", "transfer_timestamp": "", "error_message": "",
        "execution_arn": "", "user_name": "demo", "source_ip": "10.1.2.3", "session_id": "s-1",
        "event_id": upload.event_id, "sequencer": upload.created.sequencer, "redrive_count": 0,
    }  # fmt: skip
    assert house.items[upload.file_id] == {
        "file_id": upload.file_id, "key": "acme/a.csv", "source_bucket": SOURCE, "destination_bucket": DESTINATION,
        "customer_id": "acme", "upload_timestamp": "2023-11-14T22:13:20.000Z", "status": "uploaded",
    }  # fmt: skip


async def test_whose_file_it_is(house: House) -> None:
    tagged = Call(Principal("arn", "user", "u", tags={"customer_id": "tagged"}), "r")
    assert (await house.row(await house.upload("folder/x", tagged)))["customer_id"] == "tagged"
    assert (await house.row(await house.upload("folder/x")))["customer_id"] == "folder"
    assert (await house.row(await house.upload("x")))["customer_id"] == ""


async def test_folder_markers_and_other_buckets_have_no_record(house: House) -> None:
    await house.upload("folder/")
    await house.write(house.files.record_upload, Created("other", "k", "FF"), DEMO, None)
    assert (await house.do("ListFiles"))["files"] == []
    assert house.items == {}


async def test_a_lost_table_keeps_no_file_from_arriving(house: House, caplog: pytest.LogCaptureFixture) -> None:
    def gone(tx: Transaction, table_name: str, item: dict[str, Any]) -> None:
        raise AwsError("Requested resource not found")

    house.files._put_metadata_item = gone
    upload = await house.upload()
    assert (await house.row(upload))["status"] == "uploaded"
    assert "create the table again" in caplog.text


async def test_a_renamed_upload_keeps_who_sent_it(house: House) -> None:
    temporary = await house.upload("acme/a.csv.filepart")
    source = Version(SOURCE, temporary.created.key, temporary.created.sequencer)
    renamer = Call(Principal("arn", "user", "other"), "r2", "10.9.9.9", "s-2")
    final = await house.upload("acme/a.csv", renamer, copied_from=source, reason="CopyObject")
    await house.write(house.files.object_deleted, Version(SOURCE, temporary.created.key, "FF"))
    row = await house.row(final)
    assert (row["user_name"], row["source_ip"], row["session_id"]) == ("demo", "10.1.2.3", "s-1")
    assert [file["key"] for file in (await house.do("ListFiles"))["files"]] == ["acme/a.csv"]
    assert list(house.items) == [final.file_id]
    timeline = (await house.do("GetFile", file=final.file_id))["timeline"]
    assert any(entry["detail"].startswith("from acme/a.csv.filepart") for entry in timeline)


async def test_a_deleted_file_keeps_its_record(house: House) -> None:
    upload = await house.upload()
    await house.write(house.files.object_deleted, Version(SOURCE, upload.created.key, "FF"))
    assert await house.status(upload) == "uploaded"
    copied = await house.upload("copy", copied_from=Version(SOURCE, upload.created.key, upload.created.sequencer))
    await house.deliver(upload)
    await house.write(house.files.object_deleted, Version(SOURCE, upload.created.key, "FF"))
    assert await house.status(upload) == "uploaded"
    assert await house.status(copied) == "uploaded"


# ── what the workflow reports ────────────────────────────────────────────────────────────────────────────────────────


async def test_the_item_is_projected_onto_the_record(house: House) -> None:
    upload = await house.upload()
    arn = await house.deliver(upload)
    await house.item_becomes(upload, status="transferring")
    assert await house.status(upload) == "transferring"
    await house.item_becomes(upload, status="transferred", transfer_timestamp="2023-11-14T22:13:21.250000")
    await house.ended(arn, "SUCCEEDED")
    row = await house.row(upload)
    assert (row["status"], row["transfer_timestamp"]) == ("transferred", "2023-11-14T22:13:21.250Z")
    assert row["execution_arn"] == arn
    await house.item_becomes(upload, status="failed", error_message="later trouble")
    row = await house.row(upload)
    assert (row["status"], row["transfer_timestamp"], row["error_message"]) == ("failed", "", "later trouble")


async def test_items_that_are_not_ours_change_nothing(house: House) -> None:
    upload = await house.upload()

    def report(tx: Transaction) -> None:
        for table, new in (
            ("Other", typed({"file_id": upload.file_id, "status": "failed"})),
            (TABLE, typed({"file_id": "not hex", "status": "failed"})),
            (TABLE, typed({"file_id": upload.file_id, "status": "odd"})),
            (TABLE, {"file_id": {"S": upload.file_id}, "status": {"N": "1"}}),
            (TABLE, {"status": {"S": "failed"}}),
            (TABLE, None),
        ):
            house.files.item_changed(tx, table, {}, None, new)

    await house.database.write(report)
    assert await house.status(upload) == "uploaded"


@pytest.mark.parametrize(
    ("status", "error", "cause", "message"),
    [
        ("FAILED", "KeyError", '{"errorMessage": "no such key", "errorType": "KeyError"}', "KeyError: no such key"),
        ("FAILED", None, None, "The execution failed"),
        ("TIMED_OUT", "States.Timeout", None, "The execution timed out: States.Timeout"),
        ("ABORTED", None, "by hand", "The execution was stopped: by hand"),
    ],
)
async def test_a_failed_execution_fails_the_file(
    house: House, status: str, error: str | None, cause: str | None, message: str
) -> None:
    upload = await house.upload()
    arn = await house.deliver(upload)
    await house.ended(arn, status, error, cause)
    assert await house.status(upload) == "failed"
    assert (await house.row(upload))["error_message"] == message


async def test_what_the_workflow_said_itself_stays(house: House) -> None:
    upload = await house.upload()
    arn = await house.deliver(upload)
    await house.item_becomes(upload, status="failed", error_message="its own words")
    await house.ended(arn, "FAILED", "X", "y")
    assert (await house.row(upload))["error_message"] == "its own words"
    done = await house.upload("b")
    arn = await house.deliver(done)
    await house.item_becomes(done, status="transferred", transfer_timestamp="garbage")
    await house.ended(arn, "FAILED", "X", "y")
    assert await house.status(done) == "transferred"


async def test_a_workflow_that_only_copies_is_a_delivery(house: House) -> None:
    upload = await house.upload()
    arn = await house.deliver(upload)
    await house.copied(upload)
    await house.ended(arn, "SUCCEEDED")
    assert await house.status(upload) == "transferred"
    assert (await house.row(upload))["transfer_timestamp"] == "2023-11-14T22:13:20.060Z"


async def test_a_copy_of_a_newer_version_delivers_the_older(house: House) -> None:
    older, newer = await house.upload(), await house.upload()
    first, second = await house.deliver(older), await house.deliver(newer)
    await house.copied(newer)
    await house.ended(second, "SUCCEEDED")
    await house.ended(first, "SUCCEEDED")
    assert await house.status(older) == "transferred"
    again = await house.upload()
    await house.ended(await house.deliver(again), "SUCCEEDED")
    assert await house.status(again) == "failed", "an older version's copy does not deliver a newer one"


async def test_success_without_a_delivery_is_a_failure(house: House) -> None:
    upload = await house.upload()
    arn = await house.deliver(upload)
    await house.copied(upload, bucket=SOURCE)
    await house.ended(arn, "SUCCEEDED")
    assert await house.status(upload) == "failed"
    assert "ended without a delivery" in (await house.row(upload))["error_message"]


async def test_an_execution_may_end_before_its_delivery_is_recorded(house: House) -> None:
    upload = await house.upload()
    arn = upload.execution_arn()
    await house.ended(arn, "RUNNING")
    await house.ended(arn, "FAILED", "E", "c")
    await house.write(house.files.delivered, Delivered(upload.event_id, execution_arn=arn))
    row = await house.row(upload)
    assert (row["error_message"], row["execution_arn"]) == ("E: c", upload.execution_arn())


async def test_executions_of_nobody_are_ignored(house: House) -> None:
    upload = await house.upload()
    for name in ("by-hand", "x" * 69, f"{ids.random_uuid()}_{'0' * 32}"):
        await house.ended(ACCOUNT.arn("states", f"execution:transfer:{name}"), "FAILED")
    await house.write(house.files.delivered, Delivered("not-a-uuid", execution_arn=upload.execution_arn()))
    await house.write(house.files.delivery_failed, Delivered(ids.random_uuid(), error="E: x"))
    assert await house.status(upload) == "uploaded"


async def test_an_event_that_cannot_be_delivered_fails_the_file(house: House) -> None:
    upload = await house.upload()
    await house.write(house.files.delivery_failed, Delivered(upload.event_id, error="StateMachineDoesNotExist: gone"))
    assert await house.status(upload) == "failed"
    assert "StateMachineDoesNotExist: gone" in (await house.row(upload))["error_message"]


# ── redrive ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def failed_upload(house: House, key: str = "acme/a.csv") -> Upload:
    upload = await house.upload(key)
    await house.ended(await house.deliver(upload), "FAILED", "E", "broken")
    return upload


async def test_redrive_delivers_the_same_event_under_the_next_attempt(house: House) -> None:
    upload = await failed_upload(house)
    answer = await house.do("RedriveFiles", file_ids=[upload.file_id[:12]])
    assert answer == {"files": [{"file_id": upload.file_id, "key": "acme/a.csv"}]}
    ((event, attempt),) = house.redelivered
    assert attempt == 2
    assert event["id"] == upload.event_id
    assert event["time"] == "2023-11-14T22:13:20Z"
    assert event["detail"] == {
        "version": "0", "bucket": {"name": SOURCE},
        "object": {"key": "acme/a.csv", "size": 5, "etag": upload.created.etag, "sequencer": upload.created.sequencer},
        "request-id": "REQ1", "requester": "000000000000", "source-ip-address": "10.1.2.3", "reason": "PutObject",
    }  # fmt: skip
    assert await house.status(upload) == "uploaded"
    assert (await house.row(upload))["redrive_count"] == 1
    await house.ended(upload.execution_arn(1), "FAILED", "late", "news")
    assert await house.status(upload) == "uploaded", "an older attempt decides nothing any more"
    second = await house.deliver(upload, 2)
    await house.ended(upload.execution_arn(1), "FAILED", "late", "news")
    await house.copied(upload)
    await house.ended(second, "SUCCEEDED")
    assert await house.status(upload) == "transferred"
    kinds = [entry["kind"] for entry in (await house.do("GetFile", file=upload.file_id))["timeline"]]
    assert kinds.count("delivery") == 2
    assert kinds.count("redrive") == 1


async def test_a_replay_is_a_new_attempt_in_the_record_and_the_timeline(house: House) -> None:
    upload = await house.upload()
    first = await house.deliver(upload)
    await house.copied(upload)
    await house.ended(first, "SUCCEEDED")
    assert await house.status(upload) == "transferred"
    attempt = await house.database.write(lambda tx: files.replayed(house.files, tx, upload.event_id, "again", True))
    assert attempt == 2 and await house.status(upload) == "uploaded"
    second = await house.deliver(upload, 2)
    await house.ended(first, "FAILED", "E", "the old attempt says nothing any more")
    assert await house.status(upload) == "uploaded"
    await house.ended(second, "SUCCEEDED")
    assert await house.status(upload) == "transferred"
    timeline = (await house.do("GetFile", file=upload.file_id))["timeline"]
    assert [entry["title"] for entry in timeline if entry["kind"] == "replay"] == ["Replayed by again"]
    attempts = [entry["detail"].rpartition(" ")[2] for entry in timeline if entry["kind"] == "delivery"]
    assert attempts == ["1", "2"]
    # To a queue alone: noted, but nothing will say that it is transferred again.
    assert await house.database.write(lambda tx: files.replayed(house.files, tx, upload.event_id, "q", False)) == 3
    assert await house.status(upload) == "transferred"


async def test_a_replayed_event_that_is_no_files_has_no_attempt(house: House) -> None:
    for event_id in (ids.random_uuid(), "no uuid"):
        assert await house.database.write(lambda tx, e=event_id: files.replayed(house.files, tx, e, "r", True)) is None


async def test_what_redrive_refuses(house: House) -> None:
    done, failed = await house.upload("done"), await failed_upload(house)
    silent = Created(SOURCE, "silent", "FFFF")
    await house.write(house.files.record_upload, silent, DEMO, None)
    answer = await house.do("RedriveFiles", file_ids=[done.file_id, "nothing", failed.file_id, "silent"], dry_run=True)
    assert [file.get("code") for file in answer["files"]] == [
        "ValidationException", "ResourceNotFoundException", None, "ValidationException",
    ]  # fmt: skip
    assert house.redelivered == []
    assert await house.status(failed) == "failed"
    assert "code" not in (await house.do("RedriveFiles", file_ids=[done.file_id], force=True))["files"][0]
    house.targets = 0
    answer = await house.do("RedriveFiles", file_ids=[failed.file_id])
    assert "No enabled rule" in answer["files"][0]["error"]
    assert await house.status(failed) == "failed"
    for wrong in ({}, {"file_ids": ["a"], "status": "failed"}, {"status": "uploaded"}, {"file_ids": ["a"] * 101}):
        with pytest.raises(ValidationError):
            await house.do("RedriveFiles", **wrong)


async def test_all_failed_files_are_redriven(house: House) -> None:
    failed = [await failed_upload(house, f"{number}") for number in range(3)]
    await house.upload("fine")
    answer = await house.do("RedriveFiles", status="failed")
    assert [file["file_id"] for file in answer["files"]] == [upload.file_id for upload in reversed(failed)]
    assert await house.do("RedriveFiles", status="failed") == {"files": []}


async def test_step_functions_own_redrive_reopens_the_file(house: House) -> None:
    upload = await failed_upload(house)
    await house.ended(upload.execution_arn(), "RUNNING")
    assert await house.status(upload) == "uploaded"
    await house.copied(upload)
    await house.ended(upload.execution_arn(), "SUCCEEDED")
    assert await house.status(upload) == "transferred"


async def test_the_event_is_rebuilt_in_full(house: House) -> None:
    upload = await house.upload(etag="0" * 32, version_id="v1", reason="CompleteMultipartUpload")
    record = await house.database.read(lambda reader: find_file(reader, upload.file_id))
    detail = object_created_event(ACCOUNT, record)["detail"]
    assert (detail["object"]["etag"], detail["object"]["version-id"]) == ("0" * 32, "v1")
    assert detail["reason"] == "CompleteMultipartUpload"


# ── finding, listing, explaining ─────────────────────────────────────────────────────────────────────────────────────


async def test_files_are_found_by_id_its_beginning_or_key(house: House) -> None:
    first, second = await house.upload("acme/ü.csv"), await house.upload("acme/ü.csv")
    assert (await house.do("GetFile", file=first.file_id))["file"]["sequencer"] == first.created.sequencer
    assert (await house.do("GetFile", file=first.file_id[:9]))["file"]["file_id"] == first.file_id
    assert (await house.do("GetFile", file="acme/ü.csv"))["file"]["file_id"] == second.file_id
    hexish = await house.upload("abcd")
    assert (await house.do("GetFile", file="abcd"))["file"]["file_id"] == hexish.file_id
    for unknown in ("acme/x", "f" * 64, "", "'; --"):
        with pytest.raises(ResourceNotFoundError):
            await house.do("GetFile", file=unknown)


async def test_an_ambiguous_beginning_is_refused(house: House) -> None:
    await house.upload()
    await house.upload()
    await house.database.write(
        lambda tx: [
            tx.execute("UPDATE files_file SET file_id = ? WHERE sequence = ?", (bytes.fromhex("ab" * 31 + end), number))
            for number, end in ((1, "01"), (2, "02"))
        ]
    )
    with pytest.raises(ValidationError, match="Several file ids begin with abab"):
        await house.do("GetFile", file="abab")


async def collected(house: House, **request: Any) -> list[str]:
    keys: list[str] = []
    token: dict[str, str] = {}
    for _ in range(50):
        page = await house.do("ListFiles", **request, **token)
        assert len(page["files"]) <= request["limit"]
        keys += [file["key"] for file in page["files"]]
        if "next_token" not in page:
            return keys
        token = {"next_token": page["next_token"]}
    raise AssertionError("endless pages")


async def test_listings_are_filtered_and_paged_newest_first(house: House) -> None:
    uploads = [
        await house.upload(f"{'acme' if n % 3 else 'zeta'}/{n:02}", created_at_ms=UPLOADED_AT_MS + n * 1000)
        for n in range(20)
    ]
    for upload in uploads[::4]:
        await house.item_becomes(upload, status="transferred", transfer_timestamp="2023-11-14T22:14:00Z")
    keys = [upload.created.key for upload in reversed(uploads)]
    for limit in (1, 3, 19, 20, 21):
        assert await collected(house, limit=limit) == keys
    assert await collected(house, limit=2, customer_id="zeta") == [key for key in keys if key.startswith("zeta")]
    assert await collected(house, limit=2, key_prefix="zeta/1") == [key for key in keys if key.startswith("zeta/1")]
    transferred = [upload.created.key for upload in reversed(uploads[::4])]
    assert await collected(house, limit=2, status="transferred") == transferred
    assert await collected(house, limit=4, status="uploaded") == [key for key in keys if key not in transferred]
    both = [key for key in transferred if key.startswith("acme")]
    assert await collected(house, limit=2, status="transferred", customer_id="acme") == both
    since = datetime.fromtimestamp(UPLOADED_AT_MS / 1000 + 15, UTC)
    assert await collected(house, limit=2, since=since) == keys[:5]
    assert await collected(house, limit=2, since=since, key_prefix="acme") == [k for k in keys[:5] if k[0] == "a"]


async def test_a_page_looks_at_a_bounded_number_of_rows(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("entrepot.services.files.listing.SCAN_LIMIT", 4)
    monkeypatch.setattr("entrepot.services.files.listing.SCATTERED_LIMIT", 4)
    monkeypatch.setattr("entrepot.services.files.listing.CHUNK", 2)
    monkeypatch.setattr("entrepot.services.files.listing.SORTED_LIMIT", 3)
    rare = await house.upload("acme/rare")
    await house.item_becomes(rare, status="transferred")
    for number in range(20):
        await house.upload(f"acme/{number}")
    page = await house.do("ListFiles", status="transferred", limit=2)
    assert page["files"] == []
    assert "next_token" in page
    assert await collected(house, limit=2, status="transferred") == ["acme/rare"]
    assert await collected(house, limit=2, key_prefix="acme/r") == ["acme/rare"]
    assert len(await collected(house, limit=5, key_prefix="acme/")) == 21
    for limit in (1, 2, 3, 50):
        assert len(await collected(house, limit=limit, key_prefix="acme/", status="uploaded")) == 20
        assert len(await collected(house, limit=limit, key_prefix="acme/", customer_id="acme")) == 21
        assert len(await collected(house, limit=limit, key_prefix="acme/", since=from_ms(UPLOADED_AT_MS))) == 21
        assert await collected(house, limit=limit, key_prefix="acme/", since=from_ms(UPLOADED_AT_MS + 1)) == []


@pytest.mark.parametrize(
    "request_",
    [
        {"status": "odd"},
        {"limit": 0},
        {"next_token": "nonsense"},
        {"next_token": "MTp4"},
        {"next_token": "ü"},
        {"key_prefix": "\ud800"},
        {"customer_id": "\ud800"},
    ],
)
async def test_malformed_listings_are_refused(house: House, request_: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        await house.do("ListFiles", **request_)


async def test_listings_use_an_index(house: House) -> None:
    """Ten million rows must cost what a page costs."""
    for where in (
        "sequence < ? ORDER BY sequence DESC LIMIT 10",
        "customer_id = 'x' AND sequence < ? ORDER BY sequence DESC LIMIT 10",
        "status <> 2 AND status = 3 AND sequence < ? ORDER BY sequence DESC LIMIT 10",
        "status <> 2 AND status = 3 AND customer_id = 'x' AND sequence < ? ORDER BY sequence DESC LIMIT 10",
        "key = 'x' AND sequence < ? ORDER BY sequence DESC LIMIT 1",
        "event_id = ?",
    ):
        plan = await house.database.read(
            lambda reader, where=where: reader.all(
                f"EXPLAIN QUERY PLAN SELECT * FROM files_file WHERE {where}", (b"1",)
            )
        )
        text = " ".join(row[3] for row in plan)
        assert "SEARCH" in text, where
        assert "TEMP B-TREE" not in text, where


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        ({}, "INTEGER PRIMARY KEY (rowid<?)"),
        ({"status": "failed"}, "files_file_status (status=? AND sequence<?)"),
        ({"status": "transferred"}, "INTEGER PRIMARY KEY (rowid>? AND rowid<?)"),
        ({"customer_id": "a"}, "files_file_customer (customer_id=? AND sequence<?)"),
        (
            {"customer_id": "a", "status": "failed"},
            "files_file_customer_status (customer_id=? AND status=? AND sequence<?)",
        ),
        ({"key_prefix": "a/"}, "INTEGER PRIMARY KEY (rowid>? AND rowid<?)"),
        ({"key_prefix": "a/", "status": "uploaded"}, "files_file_status (status=? AND sequence>? AND sequence<?)"),
        ({"key_prefix": "a/", "customer_id": "a"}, "files_file_customer (customer_id=? AND sequence>? AND sequence<?)"),
        (
            {"key_prefix": "a/", "customer_id": "a", "status": "failed"},
            "files_file_customer (customer_id=? AND sequence>? AND sequence<?)",
        ),
    ],
    ids=str,
)
async def test_every_filter_has_its_index(
    house: House, monkeypatch: pytest.MonkeyPatch, wanted: dict[str, str], index: str
) -> None:
    monkeypatch.setattr("entrepot.services.files.listing.SORTED_LIMIT", 1)
    monkeypatch.setattr("entrepot.services.files.listing.CHUNK", 2)
    for number in range(5):
        await house.upload(f"a/{number}")

    def plans(reader: Reader) -> list[str]:
        told: list[str] = []

        class Explained:
            def one(self, sql: str, parameters: Any = ()) -> Any:
                return reader.one(sql, parameters)

            def all(self, sql: str, parameters: Any = ()) -> Any:
                if "ORDER BY sequence DESC LIMIT ?" in sql:
                    told.extend(row[3] for row in reader.all(f"EXPLAIN QUERY PLAN {sql}", parameters))
                return reader.all(sql, parameters)

        list_files(Explained(), Filter(**wanted), limit=10)
        return told

    plan = (await house.database.read(plans))[0]
    assert plan.endswith(index)


async def test_looking_keys_up_reads_no_rows_and_counting_reads_an_index(house: House) -> None:
    for sql in (
        "SELECT sequence FROM files_file WHERE key >= 'a' AND key < 'b' LIMIT 2001",
        "SELECT (SELECT count(*) FROM files_file), (SELECT max(sequence) FROM files_file)",
    ):
        plan = await house.database.read(lambda reader, sql=sql: reader.all(f"EXPLAIN QUERY PLAN {sql}"))
        assert any("COVERING INDEX" in row[3] for row in plan), plan


async def test_counts(house: House) -> None:
    upload = await house.upload()
    await house.upload()
    await house.item_becomes(upload, status="transferred")
    assert await house.database.read(house.files.count_by_status) == {
        "uploaded": 1, "transferring": 0, "transferred": 1, "failed": 0,
    }  # fmt: skip


async def test_the_timeline_tells_everything_in_order(house: House) -> None:
    upload = await house.upload()
    arn = await house.deliver(upload)

    def at(ms: int) -> datetime:
        return datetime.fromtimestamp((UPLOADED_AT_MS + ms) / 1000, UTC)

    house.histories[arn] = [
        {"id": 1, "type": "ExecutionStarted", "timestamp": at(10), "executionStartedEventDetails": {"input": "{}"}},
        {"id": 2, "type": "TaskStateEntered", "timestamp": at(11),
         "stateEnteredEventDetails": {"name": "TransferFile", "input": '{"key": "a"}'}},
        {"id": 3, "type": "TaskFailed", "timestamp": at(12), "taskFailedEventDetails": {"error": "E", "cause": "c"}},
        {"id": 4, "type": "TaskScheduled", "timestamp": at(13), "taskScheduledEventDetails": {}},
        {"id": 5, "type": "TaskStateExited", "timestamp": at(14),
         "stateExitedEventDetails": {"name": "TransferFile", "output": "1"}},
        {"id": 6, "type": "ExecutionSucceeded", "timestamp": at(70), "executionSucceededEventDetails": {"output": "1"}},
    ]  # fmt: skip
    await house.copied(upload)
    await house.item_becomes(upload, status="transferred", transfer_timestamp="2023-11-14T22:13:20.065Z")
    timeline = (await house.do("GetFile", file=upload.file_id))["timeline"]
    told = [(entry["kind"], entry["title"]) for entry in timeline if entry["kind"] != "delivery"]
    assert told == [
        ("session", "demo logged in"), ("upload", "Uploaded by demo (PutObject)"), ("event", "Event Object Created"),
        ("execution", "Execution started"), ("state", "State TransferFile entered"), ("state", "TaskFailed"),
        ("state", "State TransferFile left"), ("log", "/aws/lambda/transfer"), ("log", "/aws/vendedlogs/states/transfer"),
            ("copy", "Copied to the destination"),
        ("status", "Transferred"), ("execution", "Execution succeeded"),
    ]  # fmt: skip
    assert [entry["title"] for entry in timeline if entry["kind"] == "delivery"] == ["Rule object-created matched"]
    details = {entry["title"]: entry["detail"] for entry in timeline}
    assert details["TaskFailed"] == "E: c"
    assert "SHA256:xyz" in details["demo logged in"]
    assert details["Copied to the destination"] == f"s3://{DESTINATION}/acme/a.csv"
    json.dumps(timeline)


async def test_a_delivery_comes_before_the_execution_that_it_started(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("entrepot.clock.now_ms", lambda: UPLOADED_AT_MS + 12)
    upload = await house.upload()
    arn = await house.deliver(upload)
    begun = datetime.fromtimestamp((UPLOADED_AT_MS + 10) / 1000, UTC)
    house.histories[arn] = [
        {"id": 1, "type": "ExecutionStarted", "timestamp": begun, "executionStartedEventDetails": {"input": "{}"}},
        {"id": 2, "type": "ExecutionTimedOut", "timestamp": begun, "executionTimedOutEventDetails": {"error": "E"}},
    ]
    timeline = (await house.do("GetFile", file=upload.file_id))["timeline"]
    titles = [entry["title"] for entry in timeline]
    assert titles[3:6] == ["Rule object-created matched", "Execution started", "Execution timed out"]


async def test_a_delivered_file_costs_little(house: House) -> None:
    uploads = [await house.upload(f"customer-{n % 7}/inbound/report-{n:06}.csv") for n in range(100)]
    for upload in uploads:
        arn = await house.deliver(upload)
        await house.copied(upload)
        await house.ended(arn, "SUCCEEDED")
    ((size_bytes,),) = await house.database.read(
        lambda reader: reader.all(
            "SELECT sum(pgsize - unused) FROM dbstat WHERE name LIKE 'files_%' OR name LIKE 'sqlite_autoindex_files%'"
        )
    )
    assert size_bytes / len(uploads) < 500, size_bytes / len(uploads)
