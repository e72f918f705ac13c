"""Groups, streams and events: tokens, limits, retention, batching, and what survives a restart."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from entrepot import clock
from entrepot.arns import Account
from entrepot.errors import AwsError, EntrepotError, StorageError
from entrepot.loglines import LogLine
from entrepot.operations import AsyncOperation, Call, Principal
from entrepot.services.logs import Logs, operations
from entrepot.services.logs.store import MESSAGE_LIMIT_BYTES, Store

CALL = Call(Principal("arn:aws:iam::000000000000:root", "root", "root"), "request")


class Client:
    """Calls the operations as the wire does."""

    def __init__(self, logs: Logs) -> None:
        self.logs = logs
        self._operations = {operation.name: operation for operation in operations(logs)}

    async def __call__(self, name: str, **request: Any) -> dict[str, Any]:
        operation = self._operations[name]
        assert isinstance(operation, AsyncOperation)
        list(operation.permissions(request))
        return await operation.run(request, CALL)

    async def code(self, name: str, **request: Any) -> str:
        with pytest.raises(AwsError) as caught:
            await self(name, **request)
        return caught.value.code


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    logs = Logs(tmp_path, Account())
    await logs.start()
    yield Client(logs)
    await logs.stop()


async def put(client: Client, times: list[int], stream: str = "s") -> dict[str, Any]:
    events = [{"timestamp": at, "message": f"m{at}"} for at in times]
    return await client("PutLogEvents", logGroupName="g", logStreamName=stream, logEvents=events)


async def with_stream(client: Client) -> int:
    await client("CreateLogGroup", logGroupName="g")
    await client("CreateLogStream", logGroupName="g", logStreamName="s")
    return clock.now_ms()


async def test_groups_and_streams_come_and_go(client: Client) -> None:
    await with_stream(client)
    assert await client.code("CreateLogGroup", logGroupName="g") == "ResourceAlreadyExistsException"
    assert await client.code("CreateLogStream", logGroupName="g", logStreamName="s") == "ResourceAlreadyExistsException"
    assert await client.code("CreateLogStream", logGroupName="x", logStreamName="s") == "ResourceNotFoundException"
    assert await client.code("GetLogEvents", logGroupName="g", logStreamName="x") == "ResourceNotFoundException"
    assert await client.code("CreateLogGroup", logGroupName="a:b") == "InvalidParameterException"
    await client("PutRetentionPolicy", logGroupName="g", retentionInDays=7)
    assert await client.code("PutRetentionPolicy", logGroupName="g", retentionInDays=8) == "InvalidParameterException"
    (group,) = (await client("DescribeLogGroups", logGroupNamePrefix="g"))["logGroups"]
    assert group["retentionInDays"] == 7
    assert group["arn"] == "arn:aws:logs:us-east-1:000000000000:log-group:g:*"
    await client("DeleteRetentionPolicy", logGroupName="g")
    await put(client, [clock.now_ms()])
    await client("DeleteLogStream", logGroupName="g", logStreamName="s")
    await client("DeleteLogGroup", logGroupName=group["arn"])
    assert await client("DescribeLogGroups") == {"logGroups": []}


async def test_pages_of_groups_and_streams(client: Client) -> None:
    for number in range(3):
        client.logs.write_log(f"g{number}", "x", LogLine(1000, "m"))
        client.logs.write_log("many", f"s{number}", LogLine(1000 + number, "m"))
    first = await client("DescribeLogGroups", limit=2)
    second = await client("DescribeLogGroups", limit=2, nextToken=first["nextToken"])
    assert [group["logGroupName"] for group in first["logGroups"] + second["logGroups"]] == ["g0", "g1", "g2", "many"]
    request = {"logGroupName": "many", "orderBy": "LastEventTime", "descending": True, "limit": 2}
    first = await client("DescribeLogStreams", **request)
    second = await client("DescribeLogStreams", **request, nextToken=first["nextToken"])
    assert [stream["logStreamName"] for stream in first["logStreams"] + second["logStreams"]] == ["s2", "s1", "s0"]
    assert await client.code("DescribeLogGroups", nextToken="%%%") == "InvalidParameterException"


async def test_get_log_events_walks_both_ways(client: Client) -> None:
    now = await with_stream(client)
    await put(client, [now + at for at in range(5)])

    async def get(**more: Any) -> tuple[list[int], dict[str, Any]]:
        page = await client("GetLogEvents", logGroupName="g", logStreamName="s", limit=2, **more)
        return [event["timestamp"] - now for event in page["events"]], page

    times, page = await get()
    assert times == [3, 4]
    times, page = await get(nextToken=page["nextBackwardToken"])
    assert times == [1, 2]
    times, forward = await get(nextToken=page["nextForwardToken"])
    assert times == [3, 4]
    times, last = await get(nextToken=forward["nextForwardToken"])
    assert times == [] and last["nextForwardToken"] == forward["nextForwardToken"], "the end repeats its token"
    await put(client, [now + 9])
    assert (await get(nextToken=last["nextForwardToken"]))[0] == [9]
    assert (await get(startFromHead=True, startTime=now + 1, endTime=now + 3))[0] == [1, 2]
    assert await client.code("GetLogEvents", logGroupName="g", logStreamName="s", nextToken="f/1") == (
        "InvalidParameterException"
    )


async def test_put_log_events_has_awss_limits(client: Client) -> None:
    now = await with_stream(client)
    answer = await put(client, [now - 15 * 86_400_000])
    assert answer["rejectedLogEventsInfo"] == {"tooOldLogEventEndIndex": 1}
    answer = await put(client, [now, now + 3 * 3_600_000])
    assert answer["rejectedLogEventsInfo"] == {"tooNewLogEventStartIndex": 1}
    for events in (
        [],
        [{"timestamp": now, "message": ""}],
        [{"timestamp": now, "message": "x"}, {"timestamp": now - 1, "message": "x"}],
        [{"timestamp": now - 86_400_001, "message": "x"}, {"timestamp": now, "message": "x"}],
        [{"timestamp": now, "message": "x" * 600_000}] * 2,
        [{"timestamp": now, "message": "x"}] * 10_001,
    ):
        code = await client.code("PutLogEvents", logGroupName="g", logStreamName="s", logEvents=events)
        assert code == "InvalidParameterException"
    events = (await client("GetLogEvents", logGroupName="g", logStreamName="s"))["events"]
    assert [event["timestamp"] for event in events] == [now], "what was rejected is not stored"


async def test_filter_merges_streams_in_order_and_pages(client: Client) -> None:
    for at in range(300):
        message = json.dumps({"n": at})
        client.logs.write_log("g", f"s{at % 7}", LogLine(1_000 + at, message))
    request = {
        "logGroupName": "g",
        "filterPattern": "{ $.n >= 100 }",
        "startTime": 1_000,
        "endTime": 1_250,
        "limit": 40,
    }
    found: list[int] = []
    page = await client("FilterLogEvents", **request)
    found += [json.loads(event["message"])["n"] for event in page["events"]]
    while "nextToken" in page:
        page = await client("FilterLogEvents", **request, nextToken=page["nextToken"])
        found += [json.loads(event["message"])["n"] for event in page["events"]]
    assert found == list(range(100, 251)), "the end is inclusive, nothing twice, nothing lost"
    page = await client("FilterLogEvents", logGroupName="g", logStreamNames=["s3"])
    assert {event["logStreamName"] for event in page["events"]} == {"s3"}
    page = await client("FilterLogEvents", logGroupName="g", logStreamNamePrefix="s4")
    assert {event["logStreamName"] for event in page["events"]} == {"s4"}


async def test_search_finds_text_in_time_over_groups(client: Client) -> None:
    client.logs.write_log("a", "s", LogLine(1_000, "file-1 began"))
    client.logs.write_log("b", "s", LogLine(1_500, "file-1 went on"))
    client.logs.write_log("a", "s", LogLine(2_000, "file-2 began"))
    client.logs.write_log("a", "s", LogLine(9_000, "file-1 too late"))
    found = await client.logs.search(["a", "b", "missing"], 1_000, 5_000, "file-1")
    assert [(line.group, line.timestamp_ms) for line in found] == [("a", 1_000), ("b", 1_500)]


async def test_retention_deletes_what_is_older(client: Client) -> None:
    now = clock.now_ms()
    for days in (10, 9, 1):
        client.logs.write_log("g", "s", LogLine(now - days * 86_400_000, f"{days} days"))
    client.logs.write_log("g", "ended", LogLine(now - 30 * 86_400_000, "old"))
    assert await client.logs.enforce_retention() == 0
    await client("PutRetentionPolicy", logGroupName="g", retentionInDays=5)
    assert await client.logs.enforce_retention() == 3
    page = await client("FilterLogEvents", logGroupName="g")
    assert [event["message"] for event in page["events"]] == ["1 days"]
    streams = (await client("DescribeLogStreams", logGroupName="g"))["logStreams"]
    assert [stream["logStreamName"] for stream in streams] == ["s"], "a stream without events is gone"


async def test_lines_survive_a_restart_and_hostile_text(tmp_path: Path) -> None:
    logs = Logs(tmp_path, Account())
    await logs.start()
    hostile = ["\ud800 lone surrogate", "nul \0 inside", "é" * MESSAGE_LIMIT_BYTES, "plain"]
    for message in hostile:
        logs.write_log("g", "s", LogLine(1_000, message))
    await logs.stop()
    logs.write_log("g", "s", LogLine(1_000, "after the end"))
    logs = Logs(tmp_path, Account())
    await logs.start()
    events = await logs.events_after("g", "s", (0, 0), since_ms=0, until_ms=1 << 60, limit=10)
    assert [event.message[:5] for event in events] == ["? lon", "nul \0"]
    rest = await logs.events_after("g", "s", (1_000, events[-1].position.seq), since_ms=0, until_ms=1 << 60, limit=10)
    assert len(rest[0].message.encode()) <= MESSAGE_LIMIT_BYTES and rest[0].message.endswith("[truncated]")
    assert logs.statistics().dropped == 0
    await logs.stop()


async def test_a_full_queue_drops_counts_and_recovers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = Store(tmp_path / "logs.db", queue_limit_bytes=10_000, spill_limit_bytes=0)
    gate, entered = threading.Event(), threading.Event()

    def block(_: object) -> None:
        entered.set()
        assert gate.wait(10)

    blocked = asyncio.create_task(store.run(block))
    await asyncio.to_thread(entered.wait, 10)
    taken = [store.append("g", "s", LogLine(1, "x" * 840)) for _ in range(20)]
    assert taken == [True] * 10 + [False] * 10
    gate.set()
    await blocked
    await store.drained()
    assert store.append("g", "s", LogLine(2, "room again"))
    await store.close()
    assert (store.statistics().written, store.statistics().dropped) == (11, 10)
    assert "10 log lines were dropped" in caplog.text


async def test_a_failed_job_leaves_no_trace_and_lines_stay(tmp_path: Path) -> None:
    store = Store(tmp_path / "logs.db")
    store.append("g", "s", LogLine(1, "before"))

    def fail(session: Any) -> None:
        session.execute("DELETE FROM log_event")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await store.run(fail)
    assert await store.read(lambda session: session.all("SELECT message FROM log_event")) == [("before",)]
    await store.close()
    with pytest.raises(StorageError):
        await store.run(lambda _: None)


async def test_a_line_of_the_wrong_type_does_not_end_the_writer(tmp_path: Path) -> None:
    store = Store(tmp_path / "logs.db")
    store.append("g", "s", LogLine("now", "x"))  # type: ignore[arg-type]
    with pytest.raises(StorageError):
        await store.run(lambda _: None)
    store.append("g", "s", LogLine(1, "good"))
    assert await store.read(lambda session: session.all("SELECT message FROM log_event")) == [("good",)]
    assert (store.statistics().dropped, store.statistics().queued_bytes) == (1, 0)
    await store.close()


async def test_a_store_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    connection = apsw.Connection(str(tmp_path / "logs.db"))
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(EntrepotError, match="newer version"):
        await Logs(tmp_path, Account()).start()
