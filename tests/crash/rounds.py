"""The rounds: a stack with two pipelines, uploaders that keep a book of what was acknowledged, and the reconciliation."""

import asyncio
import contextlib
import hashlib
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncssh
import botocore.exceptions

from tests.running import Stack, wait_for

POINTS = (
    "blobs.before-fsync",
    "blobs.before-rename",
    "blobs.after-rename",
    "blobs.after-directory-fsync",
    "database.before-commit",
    "database.after-commit",
    "events.before-delivery",
    "events.after-delivery",
    "stepfunctions.before-commit",
    "stepfunctions.after-commit",
    "stepfunctions.before-task",
    "stepfunctions.after-task",
)
"""Every named point of the durable path (docs/durability.md)."""

USERS = ("anna", "bert", "cora")
SETTLE_DEADLINE_S = 60.0

COPY_WORKFLOW = {
    "Comment": "Deliver without a function: the copy commits with its state.",
    "StartAt": "Copy",
    "States": {
        "Copy": {
            "Type": "Task",
            "Resource": "arn:aws:states:::aws-sdk:s3:copyObject",
            "Parameters": {
                "Bucket": "copied-bucket",
                "Key.$": "$.key",
                "CopySource.$": "States.Format('{}/{}', $.source_bucket, $.key)",
            },
            "ResultPath": None,
            "End": True,
        }
    },
}

EXTRA_TOML = """
[buckets.copy-source-bucket]
[buckets.copied-bucket]
versioning = true

[pipelines.copy]
source_bucket = "copy-source-bucket"
destination_bucket = "copied-bucket"
metadata_table = "FileTransferMetadata"

[rules.copy]
event_pattern = "rules/copy.json"

[[rules.copy.targets]]
id = "copy"
state_machine = "copy"
role = "everything"
input_paths = { source_bucket = "$.detail.bucket.name", key = "$.detail.object.key" }
input_template = '{"source_bucket": <source_bucket>, "key": <key>}'

[state_machines.copy]
definition = "workflows/copy.asl.json"
role = "everything"

[roles.everything]
policy = "policies/everything.json"
"""


@dataclass
class Book:
    """What the clients know: SHA-256 of everything sent, and which of it was acknowledged."""

    sent: dict[tuple[str, str], str] = field(default_factory=dict)
    acknowledged: set[tuple[str, str]] = field(default_factory=set)


def make_stack(folder: Path) -> Stack:
    """Return a stack with the default pipeline, one without a function into a versioned bucket, and three users."""
    stack = Stack(folder)
    (folder / "rules" / "copy.json").write_text(
        json.dumps({"source": ["aws.s3"], "detail": {"bucket": {"name": ["copy-source-bucket"]}}})
    )
    (folder / "workflows" / "copy.asl.json").write_text(json.dumps(COPY_WORKFLOW))
    (folder / "policies" / "everything.json").write_text(
        json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]})
    )
    users = "".join(
        f"[users.{name}]\nrole = 'everything'\npublic_keys = ['keys/demo.pub']\n"
        f"home_directory_mappings = [\n"
        f"  {{ entry = '/function', target = '/my-source-sftp-bucket/{name}' }},\n"
        f"  {{ entry = '/copy', target = '/copy-source-bucket/{name}' }},\n]\n"
        for name in USERS
    )
    with (folder / "stack.toml").open("a") as file:
        file.write(EXTRA_TOML + users)
    return stack


def content_of(key: str, size_bytes: int) -> bytes:
    """Return content that is a function of its key, so that a part or a mix of files can be told from the whole."""
    return random.Random(key).randbytes(size_bytes)


class Rounds:
    """Round after round on one stack. `report` is told one line per round."""

    def __init__(self, folder: Path, seed: int, report: Callable[[str], None]) -> None:
        self.random = random.Random(seed)
        self.stack = make_stack(folder)
        self.book = Book()
        self.report = report
        self.deaths: Counter[str] = Counter()
        self.number = 0

    def run(self, rounds: int) -> None:
        """Run the rounds and the last reconciliation; raise AssertionError on the first broken promise."""
        for _ in range(rounds):
            self.number += 1
            self.one_round()
        self.stack.start()
        self.reconcile(set(self.book.sent))
        code = self.stack.stop()
        assert code == 0, f"the last server ended with exit code {code}"

    def one_round(self) -> None:
        """Start (maybe armed at a point), upload, die, start again, reconcile what this round sent."""
        point = self._next_point()
        environment = {}
        if point:
            nth = self.random.choice((1, 2, 3, 5, 8, 13, 21, 34))
            environment["ENTREPOT_STORAGE_CRASH_AT"] = f"{point}:{nth}"
        before = set(self.book.sent)
        try:
            self.stack.start(**environment)
        except AssertionError:
            # Armed points of the ledger may be reached before the server is ready: that is a death like any other.
            assert point, "the server did not start"
        else:
            asyncio.run(self._uploads(self.random.uniform(0.2, 1.5)))
            self._die()
        self.deaths[point or "at random"] += 1
        self.stack.start()
        self.reconcile(set(self.book.sent) - before)
        self.stack.kill()
        self.report(
            f"round {self.number}: died {point or 'at random'}; "
            f"{len(self.book.acknowledged)} of {len(self.book.sent)} files acknowledged so far"
        )

    def _next_point(self) -> str:
        """Return the named point to die at, or "" for a random moment (every third round)."""
        return self.random.choice((*POINTS, *("",) * (len(POINTS) // 2)))

    def _die(self) -> None:
        self.stack.kill()

    # ── uploading ────────────────────────────────────────────────────────────────────────────────────────────────

    async def _uploads(self, duration_s: float) -> None:
        end = time.monotonic() + duration_s
        tasks = [asyncio.create_task(self._sftp_user(user, end, self.random.random())) for user in USERS]
        tasks.append(asyncio.create_task(self._s3_user(end, self.random.random())))
        await asyncio.gather(*tasks)

    def _next(self, source: random.Random, owner: str) -> tuple[str, str, bytes]:
        """Return bucket, key and content of a new file: mostly small, some beyond the inline limit, some large."""
        bucket = source.choice(("my-source-sftp-bucket", "copy-source-bucket"))
        key = f"{owner}/{self.number}/{source.getrandbits(48):012x}"
        size = source.choice((0, 1, 4096, 4096, 40_000, 150_000, 700_000, 3_000_000))
        content = content_of(key, size)
        self.book.sent[(bucket, key)] = hashlib.sha256(content).hexdigest()
        return bucket, key, content

    async def _sftp_user(self, user: str, end: float, seed: float) -> None:
        source = random.Random(seed)
        with contextlib.suppress(OSError, asyncssh.Error, ConnectionError):
            async with self._sftp(user) as sftp:
                for folder in ("/function", "/copy"):
                    await sftp.makedirs(f"{folder}/{self.number}", exist_ok=True)
                while time.monotonic() < end:
                    bucket, key, content = self._next(source, user)
                    folder = "/function" if bucket == "my-source-sftp-bucket" else "/copy"
                    file = await sftp.open(f"{folder}/{key.partition('/')[2]}", "wb")
                    await file.write(content)
                    if source.random() < 0.05:
                        # A client that gives up: the connection drops, so this must never be delivered.
                        self.book.sent[(bucket, key)] = "partial"
                        return
                    await file.close()
                    self.book.acknowledged.add((bucket, key))

    @contextlib.asynccontextmanager
    async def _sftp(self, user: str) -> AsyncIterator[asyncssh.SFTPClient]:
        connection = await asyncssh.connect(
            "127.0.0.1",
            self.stack.sftp_port,
            username=user,
            client_keys=[str(self.stack.folder / "keys" / "demo")],
            known_hosts=None,
            config=None,
        )
        try:
            yield await connection.start_sftp_client()
        finally:
            connection.abort()

    async def _s3_user(self, end: float, seed: float) -> None:
        source = random.Random(seed)
        client = self.stack.client("s3")
        while time.monotonic() < end:
            bucket, key, content = self._next(source, "s3")
            try:
                await asyncio.to_thread(client.put_object, Bucket=bucket, Key=key, Body=content)
            except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError):
                return
            self.book.acknowledged.add((bucket, key))

    # ── reconciling ──────────────────────────────────────────────────────────────────────────────────────────────

    def reconcile(self, mine: set[tuple[str, str]]) -> None:
        """Check the promises for these files, once everything has settled."""
        acknowledged = mine & self.book.acknowledged
        wait_for(lambda: self._settled(), deadline_s=SETTLE_DEADLINE_S, what="the end of all executions")
        s3 = self.stack.client("s3")
        for destination, source in (
            ("my-destination-bucket", "my-source-sftp-bucket"),
            ("copied-bucket", "copy-source-bucket"),
        ):
            arrived = self._versions(s3, source)
            delivered = self._versions(s3, destination)
            for bucket, key in sorted(mine):
                if bucket != source:
                    continue
                name, wanted = f"{bucket}/{key}", self.book.sent[(bucket, key)]
                if (bucket, key) in acknowledged:
                    assert arrived.get(key), f"LOST: {name} was acknowledged and is not in the source bucket"
                    assert delivered.get(key), f"NOT DELIVERED: {name} was acknowledged"
                assert bool(arrived.get(key)) == bool(delivered.get(key)), f"{name} is in one bucket only"
                if key in delivered:
                    assert delivered[key] == 1, f"DELIVERED TWICE: {name} has {delivered[key]} versions"
                    content = s3.get_object(Bucket=destination, Key=key)["Body"].read()
                    assert hashlib.sha256(content).hexdigest() == wanted, f"PARTIAL or mixed content delivered: {name}"
        self._check_executions(mine)

    def _settled(self) -> bool:
        states = self.stack.client("stepfunctions")
        for machine in states.list_state_machines()["stateMachines"]:
            found = states.list_executions(
                stateMachineArn=machine["stateMachineArn"], statusFilter="RUNNING", maxResults=1
            )
            if found["executions"]:
                return False
        entrepot = self.stack.client("entrepot")
        return not any(entrepot.list_files(status=status, limit=1)["files"] for status in ("uploaded", "transferring"))

    @staticmethod
    def _versions(s3: Any, bucket: str) -> dict[str, int]:
        counts: Counter[str] = Counter()
        for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
            counts.update(version["Key"] for version in page.get("Versions", []) if not version["Key"].endswith("/"))
        return counts

    def _check_executions(self, mine: set[tuple[str, str]]) -> None:
        """Every file that arrived has one execution, which succeeded; none has two."""
        rows = {(row["source_bucket"], row["key"]): row for row in self._files()}
        for place in mine & self.book.acknowledged:
            row = rows.get(place)
            assert row is not None, f"{'/'.join(place)} was acknowledged and has no record"
            assert row["status"] == "transferred", f"{'/'.join(place)} is {row['status']}: {row['error_message']}"
            assert row["sha256"] == self.book.sent[place], f"{'/'.join(place)} is recorded with another checksum"
        arns = Counter(row["execution_arn"] for row in rows.values())
        assert max(arns.values(), default=1) == 1, f"two files share an execution: {arns.most_common(2)}"
        states = self.stack.client("stepfunctions")
        total = 0
        for machine in states.list_state_machines()["stateMachines"]:
            pages = states.get_paginator("list_executions").paginate(stateMachineArn=machine["stateMachineArn"])
            for page in pages:
                for execution in page["executions"]:
                    total += 1
                    assert execution["status"] == "SUCCEEDED", f"{execution['executionArn']} {execution['status']}"
        assert total == len(rows), f"DUPLICATE EXECUTIONS: {total} executions for {len(rows)} files"

    def _files(self) -> list[dict[str, Any]]:
        entrepot = self.stack.client("entrepot")
        rows: list[dict[str, Any]] = []
        token: dict[str, str] = {}
        while True:
            page = entrepot.list_files(limit=1000, **token)
            rows += page["files"]
            if not page.get("nextToken"):
                return rows
            token = {"nextToken": page["nextToken"]}
