"""The promises, checked through the public API in a life of the server, for every place that is pending."""

import random
import time
from collections import Counter, defaultdict
from datetime import UTC, datetime
from typing import Any, Final

from tests.crash.book import Book, Place
from tests.crash.clients import Api, fingerprint
from tests.crash.pipelines import DESTINATIONS, GATES, TEMPORARY_SUFFIX
from tests.running import wait_for

SETTLE_DEADLINE_S: Final = 60.0
HISTORY_SAMPLES: Final = 4
"""Executions whose history is read in each life."""


class Reconciliation:
    """One comparison of the book with the server. Raises AssertionError on a broken promise, and what boto3 raises when
    the server dies meanwhile."""

    def __init__(self, api: Api, book: Book, source: random.Random, since: datetime) -> None:
        self._api = api
        self._book = book
        self._random = source
        self._since = since
        """Wall-clock time before the first upload that is pending."""

    def run(self) -> None:
        """Wait until everything has settled, redrive what was refused, wait again, compare; then nothing is pending."""
        self._settle()
        self._redrive()
        rows = self._rows()
        self._check_places(rows)
        self._check_executions(rows)
        self._book.pending.clear()

    # ── waiting and redriving ────────────────────────────────────────────────────────────────────────────────────

    def _settle(self) -> None:
        wait_for(self._has_settled, deadline_s=SETTLE_DEADLINE_S, what="the end of all deliveries and executions")

    def _has_settled(self) -> bool:
        """In the order in which a file moves on, so that none is missed between two questions."""
        time.sleep(0.02)
        status = self._api("entrepot").get_status()
        assert status["dead_letters"] == 0, "GIVEN UP: an event is in the dead-letter store"
        return not status["pending_deliveries"] and not self._running() and not self._unsettled()

    def _running(self) -> bool:
        states = self._api("stepfunctions")
        return any(
            states.list_executions(stateMachineArn=arn, statusFilter="RUNNING", maxResults=1)["executions"]
            for arn in self._machines()
        )

    def _machines(self) -> list[str]:
        machines = self._api("stepfunctions").list_state_machines()["stateMachines"]
        return [machine["stateMachineArn"] for machine in machines]

    def _unsettled(self) -> list[dict[str, Any]]:
        """Return the rows of files that have no outcome; a file that was never renamed to its name waits for ever."""
        found = [*self._list(status="uploaded"), *self._list(status="transferring")]
        return [row for row in found if not row["key"].endswith(TEMPORARY_SUFFIX)]

    def _redrive(self) -> None:
        """Open the gates of the files that failed for them, and redrive: until no file is failed."""
        while failed := self._list(status="failed"):
            for row in failed:
                place = row["source_bucket"], row["key"]
                assert "/gated/" in row["key"], f"FAILED: {row['key']}: {row['error_message']}"
                assert place not in self._book.redriven_s, f"REDRIVE LOST: {row['key']} is failed after its redrive"
                self._book.pending.add(place)
                self._api("dynamodb").put_item(TableName=GATES, Item={"key": {"S": row["key"]}})
            answer = self._api("entrepot").redrive_files(file_ids=[row["file_id"] for row in failed[:100]])
            assert not [file for file in answer["files"] if "error" in file], answer["files"]
            now_s = time.monotonic()
            self._book.redriven_s |= {(row["source_bucket"], row["key"]): now_s for row in failed[:100]}
            self._settle()

    # ── comparing ────────────────────────────────────────────────────────────────────────────────────────────────

    def _check_places(self, rows: dict[Place, list[dict[str, Any]]]) -> None:
        arrived = self._versions(DESTINATIONS.keys())
        delivered = self._versions(DESTINATIONS.values())
        for key in (key for _, key in delivered):
            assert not key.endswith(TEMPORARY_SUFFIX), f"PARTIAL: {key} was delivered under its temporary name"
        for place in sorted(self._book.pending):
            bucket, key = place
            target = DESTINATIONS[bucket], key
            self._check_temporary(place, arrived, rows)
            if not arrived[place]:
                assert not self._book.is_acknowledged(place), f"LOST: {key} was acknowledged, and is not in {bucket}"
                assert not delivered[target], f"INVENTED: {key} was delivered, and is not in {bucket}"
                assert not rows[place], f"INVENTED: {key} has a record, and is not in {bucket}"
                continue
            self._check_content(place, rows[place])
            assert delivered[target], f"NOT DELIVERED: {key} is in {bucket} and not in {target[0]}"
            if _is_unique(place):
                assert delivered[target] == 1, f"DELIVERED TWICE: {key} has {delivered[target]} versions in {target[0]}"
                assert len(rows[place]) == 1, f"{key} has {len(rows[place])} records"

    def _check_content(self, place: Place, rows: list[dict[str, Any]]) -> None:
        """The newest content is in the source, at the destination and in the newest record, and was sent whole."""
        bucket, key = place
        s3, possible = self._api("s3"), self._book.possible(place)
        content = fingerprint(s3, DESTINATIONS[bucket], key)
        assert content in possible, f"PARTIAL, MIXED OR STALE: {key} at the destination is none of what it can be"
        if not _is_unique(place):
            newest = fingerprint(s3, bucket, key)
            assert content == newest, f"STALE: {key} at the destination is not the newest content of {bucket}"
        if not rows and not _is_unique(place):  # Nothing newer came through: the newest is an old one.
            rows = self._api("entrepot").list_files(limit=1, key_prefix=key)["files"]
        assert rows, f"{key} has no record"
        assert rows[0]["sha256"] == content, f"{key} is recorded with another SHA-256 than what was delivered"
        for row in rows:
            assert row["status"] == "transferred", f"{key} is {row['status']}: {row['error_message']}"
            sent = {attempt.sha256 for attempt in self._book.attempts[place]}
            assert row["sha256"] in sent, f"{key} has a record of content that nobody sent"

    def _check_temporary(self, place: Place, arrived: Counter[Place], rows: dict[Place, list[dict[str, Any]]]) -> None:
        """What was acknowledged under a temporary name is there under exactly one of its names."""
        bucket, key = place
        for attempt in self._book.attempts[place]:
            if not attempt.temporary:
                continue
            names = arrived[bucket, attempt.temporary], arrived[place]
            assert sum(names) <= 1, f"RENAMED BY HALVES: {key} is there under both names"
            assert names[0] == len(rows[bucket, attempt.temporary]), f"the record of {attempt.temporary} does not fit"
            if attempt.acknowledged:
                assert names[1] == 1, f"LOST: {key} was renamed"
            elif attempt.temporary_acknowledged_s is not None:
                assert sum(names) == 1, f"LOST: {attempt.temporary} was acknowledged"
            if names[0]:
                content = fingerprint(self._api("s3"), bucket, attempt.temporary)
                assert content == attempt.sha256, f"PARTIAL: {attempt.temporary} is not what was sent"

    def _check_executions(self, rows: dict[Place, list[dict[str, Any]]]) -> None:
        """Each attempt at each event has one execution, which succeeded (or failed for its gate)."""
        wanted = {row["event_id"]: row for found in rows.values() for row in found if _has_event(row)}
        started: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for execution in self._executions():
            started[execution["name"][:36]].append(execution)
        for event_id, row in wanted.items():
            found, count = started[event_id], row["redrive_count"] + 1
            assert len(found) == count, f"{row['key']} has {len(found)} executions, not {count}"
            statuses = sorted(execution["status"] for execution in found)
            assert statuses == ["FAILED"] * (count - 1) + ["SUCCEEDED"], f"{row['key']}: {statuses}"
            assert row["execution_arn"] in {execution["executionArn"] for execution in found}, row
        every = [execution for found in started.values() for execution in found]
        for execution in self._random.sample(every, min(HISTORY_SAMPLES, len(every))):
            self._check_history(execution)

    def _check_history(self, execution: dict[str, Any]) -> None:
        pages = self._api("stepfunctions").get_paginator("get_execution_history")
        events = [event for page in pages.paginate(executionArn=execution["executionArn"]) for event in page["events"]]
        name = execution["executionArn"]
        assert [event["id"] for event in events] == list(range(1, len(events) + 1)), f"GAPS in the history of {name}"
        types = [event["type"] for event in events]
        assert types[0] == "ExecutionStarted", f"{name} begins with {types[0]}"
        assert types[-1] == {"SUCCEEDED": "ExecutionSucceeded", "FAILED": "ExecutionFailed"}[execution["status"]]
        ends = [type_ for type_ in types if type_.startswith("Execution")]
        assert len(ends) == 2, f"{name} began or ended twice: {types}"
        entered = [event["stateEnteredEventDetails"]["name"] for event in events if event["type"].endswith("Entered")]
        assert len(entered) == len(set(entered)), f"{name} entered a state twice: {entered}"
        assert all(event["previousEventId"] < event["id"] for event in events), f"{name}: a cause after its effect"

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _rows(self) -> dict[Place, list[dict[str, Any]]]:
        """Return the records since the first pending upload, the newest first, by place."""
        found: dict[Place, list[dict[str, Any]]] = defaultdict(list)
        for row in self._list(since=self._since):
            found[row["source_bucket"], row["key"]].append(row)
        return found

    def _list(self, **filters: Any) -> list[dict[str, Any]]:
        entrepot = self._api("entrepot")
        rows: list[dict[str, Any]] = []
        while True:
            page = entrepot.list_files(limit=1000, **filters)
            rows += page["files"]
            if not page.get("next_token"):
                return rows
            filters["next_token"] = page["next_token"]

    def _versions(self, buckets: Any) -> Counter[Place]:
        """Return how many versions there are of the pending places, and of others in their folders."""
        s3 = self._api("s3")
        prefixes = {"".join(f"{folder}/" for folder in key.split("/")[:-1][:2]) for _, key in self._book.pending}
        counts: Counter[Place] = Counter()
        for bucket in buckets:
            for prefix in sorted(prefixes):
                for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=prefix):
                    versions = [version["Key"] for version in page.get("Versions", [])]
                    counts.update((bucket, key) for key in versions if not key.endswith("/"))
        return counts

    def _executions(self) -> list[dict[str, Any]]:
        """Return the executions that were started since the first pending upload."""
        found = []
        for arn in self._machines():
            pages = self._api("stepfunctions").get_paginator("list_executions").paginate(stateMachineArn=arn)
            for page in pages:
                new = [execution for execution in page["executions"] if execution["startDate"] >= self._since]
                found += new
                if len(new) < len(page["executions"]):
                    break
        return found


def _is_unique(place: Place) -> bool:
    """Whether only one upload ever writes this key (a resumed one is one)."""
    return "/hot/" not in place[1] and not place[1].startswith("shared/")


def _has_event(row: dict[str, Any]) -> bool:
    return not row["key"].endswith(TEMPORARY_SUFFIX)


def now() -> datetime:
    """Return the wall-clock time, which rows and executions carry."""
    return datetime.now(UTC)
