"""Metric filters, subscription filters and live tails: what they see of the events that are stored, and what they do with it."""

import asyncio
import base64
import gzip
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from entrepot import clock
from entrepot.arns import Account
from entrepot.errors import AwsError, StorageError
from entrepot.loglines import LogLine
from entrepot.operations import AsyncOperation, Call, Principal
from entrepot.outbound.errors import ConnectionFailedError
from entrepot.outbound.messages import Request, Response
from entrepot.services.logs import DeliveryStream, Logs, operations
from entrepot.services.logs import metric_filters as metric_filters_module
from entrepot.services.logs import taps as taps_module
from entrepot.services.logs.subscriptions import DELIVERY_LOG_GROUP, bulk, deliveries
from entrepot.services.logs.subscriptions.batches import Event

CALL = Call(Principal("arn:aws:iam::000000000000:root", "root", "root"), "request")
FUNCTION = "arn:aws:lambda:us-east-1:000000000000:function:watcher"
STREAM = "arn:aws:firehose:us-east-1:000000000000:deliverystream/search"
MINUTE_MS = 60_000


class Site:
    """Logs with a book of metrics, a function and a `_bulk` endpoint beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.metrics: list[tuple[Any, ...]] = []
        self.payloads: list[dict[str, Any]] = []
        self.function_fails = 0
        self.requests: list[Request] = []
        self.documents: dict[str, dict[str, Any]] = {}
        self.answers: list[Callable[[list[Any]], Response]] = []
        self.logs = self.made()

    def made(self) -> Logs:
        password = self.folder / "password"
        password.write_text("secret\n")
        stream = DeliveryStream(
            "search", "https://search.example.com:9200/", "logs-%Y.%m.%d", "me", password, self.send
        )
        return Logs(
            self.folder / "logs",
            Account(),
            record_metric=lambda *values: self.metrics.append(values),
            invoke_function=self.invoke,
            delivery_streams=[stream],
        )

    async def invoke(self, arn: str, payload: bytes, source: str) -> None:
        if not arn.endswith(":watcher"):
            raise AwsError("no such function")
        if self.function_fails and payload:
            self.function_fails -= 1
            raise AwsError("not now")
        if payload:
            data = json.loads(payload)["awslogs"]["data"]
            self.payloads.append(json.loads(gzip.decompress(base64.b64decode(data))))

    async def send(self, request: Request) -> Response:
        self.requests.append(request)
        lines = [json.loads(line) for line in request.body.decode().splitlines()]
        pairs = list(zip(lines[::2], lines[1::2], strict=True))
        if self.answers:
            return self.answers.pop(0)(pairs)
        return self.taken(pairs)

    def taken(self, pairs: list[Any], statuses: dict[str, int] | None = None) -> Response:
        items = []
        for action, document in pairs:
            status = (statuses or {}).get(document["@message"], 201)
            item: dict[str, Any] = {"status": status}
            if status < 300:
                self.documents[action["index"]["_id"]] = {"index": action["index"]["_index"], **document}
            else:
                item["error"] = {"type": "failure", "reason": "because"}
            items.append({"index": item})
        return answer(200, {"errors": bool(statuses), "items": items})

    async def __call__(self, name: str, **request: Any) -> dict[str, Any]:
        operation = {one.name: one for one in operations(self.logs)}[name]
        assert isinstance(operation, AsyncOperation)
        list(operation.permissions(request))
        return await operation.run(request, CALL)

    async def code(self, name: str, **request: Any) -> str:
        with pytest.raises(AwsError) as caught:
            await self(name, **request)
        return caught.value.code

    def write(self, *messages: str, stream: str = "s", at_ms: int | None = None) -> None:
        for message in messages:
            self.logs.write_log("g", stream, LogLine(at_ms or clock.now_ms(), message))

    async def written(self) -> None:
        await self.logs.drained()
        await self.logs.groups()

    async def metric_filter(self, pattern: str, name: str = "f", **transformation: Any) -> None:
        made = {"metricName": "m", "metricNamespace": "n", "metricValue": "1", **transformation}
        await self(
            "PutMetricFilter", logGroupName="g", filterName=name, filterPattern=pattern, metricTransformations=[made]
        )

    async def subscribe(self, arn: str, pattern: str = "", name: str = "to") -> None:
        await self(
            "PutSubscriptionFilter", logGroupName="g", filterName=name, filterPattern=pattern, destinationArn=arn
        )


def answer(status: int, document: object) -> Response:
    return Response(status, "said", (), json.dumps(document).encode(), True)


async def until(condition: Callable[[], object], what: str) -> None:
    deadline_s = clock.monotonic_s() + 10
    while not condition():
        assert clock.monotonic_s() < deadline_s, what
        await asyncio.sleep(0.01)


@pytest.fixture
async def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    monkeypatch.setattr(deliveries, "FIRST_PAUSE_S", 0.02)
    made = Site(tmp_path)
    await made.logs.start()
    await made("CreateLogGroup", logGroupName="g")
    yield made
    await made.logs.stop()


# ── metric filters ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_metric_filter_counts_and_measures(site: Site) -> None:
    await site.metric_filter("{ $.status = 500 }", name="errors", unit="Count")
    await site.metric_filter("[ip, ..., bytes > 10]", name="bytes", metricValue="$bytes", metricName="b")
    await site.metric_filter(
        "{ $.ms = * }", name="ms", metricValue="$.ms", metricName="t", dimensions={"Who": "$.user", "By": "$.via.name"}
    )
    site.write('{"status":500}', '{"status":200}', "127.0.0.1 GET 11", "127.0.0.1 GET 9", at_ms=1_000_000)
    site.write('{"ms":2.5,"user":"ann","via":{"name":"sftp"}}', '{"ms":3,"user":"ann"}', '{"ms":"x"}', at_ms=1_000_000)
    site.write("another group's")
    await site.written()
    assert sorted(site.metrics) == [
        ("n", "b", (), 11.0, "None", 1_000_000),
        ("n", "m", (), 1.0, "Count", 1_000_000),
        ("n", "t", (("By", "sftp"), ("Who", "ann")), 2.5, "None", 1_000_000),
    ]


async def test_the_default_stands_for_minutes_without_a_match(site: Site) -> None:
    await site.metric_filter("ERROR", defaultValue=0.0)
    site.write("fine", "fine", at_ms=5 * MINUTE_MS + 7)
    site.write("fine", "ERROR", "ERROR", at_ms=6 * MINUTE_MS + 7)
    await site.written()
    site.write("fine", at_ms=5 * MINUTE_MS + 8)
    await site.written()
    assert sorted(value[3:] for value in site.metrics) == [
        (0.0, "None", 5 * MINUTE_MS),
        (1.0, "None", 6 * MINUTE_MS + 7),
        (1.0, "None", 6 * MINUTE_MS + 7),
    ]


async def test_dimensions_are_bounded(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metric_filters_module, "SERIES_LIMIT", 3)
    await site.metric_filter("{ $.user = * }", dimensions={"User": "$.user"})
    site.write(*(json.dumps({"user": f"u{number % 5}"}) for number in range(10)))
    await site.written()
    assert [value[2][0][1] for value in site.metrics] == ["u0", "u1", "u2", "u0", "u1", "u2"]


async def test_metric_filters_are_described_replaced_and_deleted(site: Site) -> None:
    await site.metric_filter("a", name="one")
    await site.metric_filter("b", name="two", metricName="other")
    await site.metric_filter("c", name="one", metricValue="2.5")
    page = await site("DescribeMetricFilters", logGroupName="g", limit=1)
    (first,) = page["metricFilters"]
    assert (first["filterName"], first["filterPattern"]) == ("one", "c")
    assert first["metricTransformations"][0]["metricValue"] == "2.5"
    page = await site("DescribeMetricFilters", logGroupName="g", limit=1, nextToken=page["nextToken"])
    assert [one["filterName"] for one in page["metricFilters"]] == ["two"] and "nextToken" not in page
    found = await site("DescribeMetricFilters", metricName="other", metricNamespace="n")
    assert [one["filterName"] for one in found["metricFilters"]] == ["two"]
    (group,) = (await site("DescribeLogGroups"))["logGroups"]
    assert group["metricFilterCount"] == 2
    await site("DeleteMetricFilter", logGroupName="g", filterName="one")
    assert await site.code("DeleteMetricFilter", logGroupName="g", filterName="one") == "ResourceNotFoundException"
    site.write("c", "b")
    await site.written()
    assert [value[1] for value in site.metrics] == ["other"]
    await site("DeleteLogGroup", logGroupName="g")
    assert (await site("DescribeMetricFilters"))["metricFilters"] == []


@pytest.mark.parametrize(
    ("pattern", "transformation"),
    [
        ("{ $.a = ", {}),
        ("ERROR", {"metricValue": "$.a"}),
        ("ERROR", {"metricValue": "many"}),
        ("[a, b]", {"metricValue": "$c"}),
        ("{ $.a = 1 }", {"dimensions": {"A": "$.a"}, "defaultValue": 0.0}),
        ("{ $.a = 1 }", {"dimensions": dict.fromkeys("abcd", "$.a")}),
        ("ERROR", {"metricName": "a:b"}),
        ("ERROR", {"metricValue": "nan"}),
    ],
)
async def test_metric_filters_that_make_no_sense_are_refused(
    site: Site, pattern: str, transformation: dict[str, Any]
) -> None:
    with pytest.raises(AwsError) as caught:
        await site.metric_filter(pattern, **transformation)
    assert caught.value.code == "InvalidParameterException"


async def test_limits_of_filters(site: Site) -> None:
    for number in range(100):
        await site.metric_filter("x", name=f"f{number}")
    with pytest.raises(AwsError) as caught:
        await site.metric_filter("x", name="more")
    assert caught.value.code == "LimitExceededException"
    for number in range(5):
        await site.metric_filter("%x%", name=f"f{number}")
    with pytest.raises(AwsError) as caught:
        await site.metric_filter("%x%", name="f9")
    assert caught.value.code == "LimitExceededException"
    await site.subscribe(FUNCTION, name="a")
    await site.subscribe(FUNCTION, name="b")
    with pytest.raises(AwsError) as caught:
        await site.subscribe(FUNCTION, name="c")
    assert caught.value.code == "LimitExceededException"


async def test_a_pattern_is_tried_before_it_is_put(site: Site) -> None:
    found = await site(
        "TestMetricFilter", filterPattern="[ip, ..., bytes]", logEventMessages=["1.2.3.4 x 7", "one", "5.6.7.8 9"]
    )
    assert found["matches"] == [
        {
            "eventNumber": 1,
            "eventMessage": "1.2.3.4 x 7",
            "extractedValues": {"$ip": "1.2.3.4", "$2": "x", "$bytes": "7"},
        },
        {"eventNumber": 3, "eventMessage": "5.6.7.8 9", "extractedValues": {"$ip": "5.6.7.8", "$bytes": "9"}},
    ]


# ── subscription filters ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_function_gets_matching_events_as_aws_packs_them(site: Site) -> None:
    await site.subscribe(FUNCTION, "{ $.level = error }")
    site.function_fails = 2
    site.write('{"level":"error","n":1}', '{"level":"info"}', '{"level":"error","n":2}', at_ms=5_000)
    site.write('{"level":"error","n":3}', stream="other", at_ms=6_000)
    await until(lambda: len(site.payloads) == 2, "two streams, two invocations, after two that failed")
    first = site.payloads[0]
    assert {name: first[name] for name in first if name != "logEvents"} == {
        "messageType": "DATA_MESSAGE",
        "owner": "000000000000",
        "logGroup": "g",
        "logStream": "s",
        "subscriptionFilters": ["to"],
    }
    assert [(event["timestamp"], json.loads(event["message"])["n"]) for event in first["logEvents"]] == [
        (5_000, 1),
        (5_000, 2),
    ]
    page = await site("FilterLogEvents", logGroupName="g", logStreamNames=["s"])
    assert first["logEvents"][0]["id"] == page["events"][0]["eventId"]
    told = await site("FilterLogEvents", logGroupName=DELIVERY_LOG_GROUP)
    assert "not now" in told["events"][0]["message"]


async def test_bulk_documents_failures_and_refusals(site: Site) -> None:
    await site.subscribe(STREAM, "-skipped")

    def down(pairs: list[Any]) -> Response:
        raise ConnectionFailedError("search.example.com cannot be reached")

    site.answers = [
        down,
        lambda pairs: answer(503, "busy"),
        lambda pairs: site.taken(pairs, {"later": 429, "bad": 400}),
    ]
    site.write("first", "later", "skipped", "bad", "last", at_ms=86_400_000 * 366)
    await until(lambda: len(site.documents) == 3, "what can be taken is taken")
    assert sorted(one["@message"] for one in site.documents.values()) == ["first", "last", "later"]
    document = next(iter(site.documents.values()))
    assert document | {"@id": "", "@message": ""} == {
        "index": "logs-1971.01.02",
        "@timestamp": "1971-01-02T00:00:00.000Z",
        "@id": "",
        "@owner": "000000000000",
        "@log_group": "g",
        "@log_stream": "s",
        "@message": "",
    }
    assert ("Authorization", "Basic " + base64.b64encode(b"me:secret").decode()) in site.requests[0].headers
    assert site.requests[0].url.startswith("https://search.example.com:9200/_bulk?")
    await until(lambda: site.requests[-1].body.count(b"\n") == 2, "only what was not taken is sent again")
    told = json.dumps(await site("FilterLogEvents", logGroupName=DELIVERY_LOG_GROUP))
    for word in ("cannot be reached", "503", "refused for good: 400 failure: because"):
        assert word in told, word


async def test_what_waits_survives_the_process(site: Site) -> None:
    def down(pairs: list[Any]) -> Response:
        raise ConnectionFailedError("down")

    site.answers = [down] * 1_000
    await site.subscribe(STREAM)
    site.write(*(f"line {number}" for number in range(50)))
    await until(lambda: site.requests, "it was tried")
    await site.logs.stop()
    assert not site.documents
    site.answers.clear()
    site.logs = site.made()
    await site.logs.start()
    await until(lambda: len(site.documents) == 50, "the next process delivers it")


async def test_a_full_spill_is_told_and_room_comes_again(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(taps_module, "WAITING_LIMIT_BYTES", 300)
    site.answers = [lambda pairs: answer(500, "")] * 5
    await site.subscribe(STREAM)
    for number in range(10):
        site.write(f"{number} ".join("abcdefghijkl"))
        await site.written()
    assert "is all there is room for" in caplog.text
    await until(lambda: site.documents, "delivered in the end")
    kept = len(site.documents)
    assert 0 < kept < 10
    await until(lambda: site.logs.filters and not site.answers, "the destination answers again")
    monkeypatch.setattr(taps_module, "WAITING_LIMIT_BYTES", 1 << 20)
    site.write("the last")
    await until(lambda: any(one["@message"] == "the last" for one in site.documents.values()), "it goes on")


@pytest.mark.parametrize(
    "arn",
    [
        "arn:aws:firehose:us-east-1:000000000000:deliverystream/unknown",
        "arn:aws:lambda:us-east-1:000000000000:function:unknown",
        "arn:aws:kinesis:us-east-1:000000000000:stream/x",
        "nonsense",
    ],
)
async def test_destinations_that_are_not_there_are_refused(site: Site, arn: str) -> None:
    with pytest.raises(AwsError) as caught:
        await site.subscribe(arn)
    assert caught.value.code == "InvalidParameterException"


async def test_nothing_is_delivered_in_circles(site: Site) -> None:
    await site("CreateLogGroup", logGroupName="/aws/lambda/watcher")
    await site("CreateLogGroup", logGroupName=DELIVERY_LOG_GROUP)
    request = {"filterName": "f", "filterPattern": "", "destinationArn": FUNCTION}
    for group in ("/aws/lambda/watcher", DELIVERY_LOG_GROUP):
        assert await site.code("PutSubscriptionFilter", logGroupName=group, **request) == "InvalidParameterException"


async def test_subscription_filters_are_described_and_deleted(site: Site) -> None:
    await site.subscribe(STREAM, "x", name="a")
    await site.subscribe(FUNCTION, "y", name="b")
    page = await site("DescribeSubscriptionFilters", logGroupName="g", limit=1)
    assert page["subscriptionFilters"][0]["destinationArn"] == STREAM
    page = await site("DescribeSubscriptionFilters", logGroupName="g", nextToken=page["nextToken"])
    assert [one["filterName"] for one in page["subscriptionFilters"]] == ["b"]
    await site("DeleteSubscriptionFilter", logGroupName="g", filterName="b")
    assert await site.code("DeleteSubscriptionFilter", logGroupName="g", filterName="b") == "ResourceNotFoundException"
    site.write("y")
    await site.written()
    assert not site.payloads


async def test_a_request_that_is_too_large_is_parted(site: Site) -> None:
    def small(pairs: list[Any]) -> Response:
        too_large = len(pairs) > 2 or any(document["@message"] == "huge" for _, document in pairs)
        return answer(413, "") if too_large else site.taken(pairs)

    site.answers = [small] * 20
    await site.subscribe(STREAM)
    site.write("a", "b", "c", "huge", "d")
    await until(lambda: len(site.documents) == 4, "all but the one that never fits")


def test_requests_hold_so_much() -> None:
    assert bulk.fitting([Event("", "s", 0, "x" * 1_000)] * 20_000) == bulk.BODY_LIMIT_BYTES // 1_500
    assert bulk.fitting([Event("", "s", 0, "x" * 5_000_000)]) == 1
    assert bulk.fitting([Event("", "s", 0, "x")] * 20_000) == bulk.EVENTS_LIMIT


# ── live tails ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_live_tail_shows_what_is_stored_from_now_on(site: Site) -> None:
    site.write("before")
    await site.written()
    arn = "arn:aws:logs:us-east-1:000000000000:log-group:g"
    found = await site(
        "StartLiveTail", logGroupIdentifiers=[arn], logStreamNamePrefixes=["s"], logEventFilterPattern="-secret"
    )
    stream = found["responseStream"]
    start = await anext(stream)
    assert start["sessionStart"]["logGroupIdentifiers"] == [arn]
    site.write("one", "secret", at_ms=7_000)
    site.write("other", stream="x")
    await site.written()
    update = (await anext(stream))["sessionUpdate"]
    assert [(one["message"], one["timestamp"]) for one in update["sessionResults"]] == [("one", 7_000)]
    site.write(*(f"{number}" for number in range(600)))
    await site.written()
    update = (await anext(stream))["sessionUpdate"]
    assert len(update["sessionResults"]) == 500 and update["sessionMetadata"] == {"sampled": True}
    await site.logs.end_tails()
    assert "SessionTimeoutException" in await anext(stream)
    await stream.aclose()
    await stream.aclose()


async def test_live_tails_are_counted_and_checked(site: Site) -> None:
    arn = "arn:aws:logs:us-east-1:000000000000:log-group:g"
    assert await site.code("StartLiveTail", logGroupIdentifiers=[arn + "x"]) == "ResourceNotFoundException"
    for identifiers in ([], ["g"], [arn + ":*"], [arn] * 11):
        assert await site.code("StartLiveTail", logGroupIdentifiers=identifiers) == "InvalidParameterException"
    sessions = [(await site("StartLiveTail", logGroupIdentifiers=[arn]))["responseStream"] for _ in range(15)]
    assert await site.code("StartLiveTail", logGroupIdentifiers=[arn]) == "LimitExceededException"
    for session in sessions:
        await session.aclose()
    await (await site("StartLiveTail", logGroupIdentifiers=[arn]))["responseStream"].aclose()


# ── tags, refusals ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_groups_have_tags(site: Site) -> None:
    arn = "arn:aws:logs:us-east-1:000000000000:log-group:t"
    await site("CreateLogGroup", logGroupName="t", tags={"a": "1"})
    await site("TagResource", resourceArn=arn, tags={"b": "2"})
    await site("TagLogGroup", logGroupName="t", tags={"c": "3"})
    await site("UntagResource", resourceArn=arn, tagKeys=["a"])
    assert await site("ListTagsForResource", resourceArn=arn) == {"tags": {"b": "2", "c": "3"}}
    assert await site("ListTagsLogGroup", logGroupName="t") == {"tags": {"b": "2", "c": "3"}}
    assert await site.code("TagResource", resourceArn=arn, tags={"aws:x": ""}) == "InvalidParameterException"
    assert await site.code("TagResource", resourceArn=arn + "x", tags={"a": ""}) == "ResourceNotFoundException"
    many = {str(number): "" for number in range(51)}
    assert await site.code("TagResource", resourceArn=arn, tags=many) == "TooManyTagsException"
    assert len((await site("ListTagsForResource", resourceArn=arn))["tags"]) == 2


async def test_what_is_not_served_is_refused_by_name(site: Site) -> None:
    assert await site.code("CreateExportTask", logGroupName="g") == "InvalidOperationException"
    assert await site.code("PutResourcePolicy") == "InvalidOperationException"
    assert await site("DescribeResourcePolicies") == {"resourcePolicies": []}
    assert await site.code("CreateLogGroup", logGroupName="k", kmsKeyId="k") == "InvalidParameterException"


async def test_what_is_past_its_retention_is_neither_taken_nor_shown(site: Site) -> None:
    now = clock.now_ms()
    site.write("old", at_ms=now - 86_400_000 - 1_000)
    site.write("young", at_ms=now - 86_400_000 + 60_000)
    await site("PutRetentionPolicy", logGroupName="g", retentionInDays=1)
    for name in ("GetLogEvents", "FilterLogEvents"):
        found = await site(name, logGroupName="g", **({"logStreamName": "s"} if name == "GetLogEvents" else {}))
        assert [event["message"] for event in found["events"]] == ["young"], name
    events = [{"timestamp": now - at, "message": "x"} for at in (86_400_000 + 5_000, 1_000)]
    found = await site("PutLogEvents", logGroupName="g", logStreamName="s", logEvents=events[:1])
    assert found["rejectedLogEventsInfo"] == {"expiredLogEventEndIndex": 1}


async def test_hostile_numbers_and_documents_do_not_stop_the_writer(site: Site) -> None:
    await site.metric_filter("{ $.n = * }", metricValue="$.n", dimensions={"User": "$.user"})
    for number in ("1e999", "-1e999", "1" * 5_000, '"' + "9" * 60 + '"', '"NaN"', "true", "[1]", '{"a":1}'):
        site.write(f'{{"user":"u","n":{number}}}')
    site.write('{"user":"u","n":3}', "{" * 100_000, '{"user":{},"n":1}', '{"user":"' + "x" * 5_000 + '","n":4}')
    await site.written()
    values = {value[3]: value[2][0][1] for value in site.metrics}
    assert values.keys() <= {3.0, 4.0, float("9" * 60)} and {3.0, 4.0} <= values.keys()
    assert len(values[4.0]) <= 1_024
    assert site.logs.statistics().dropped == 0
    assert site.logs.statistics().written == 12


async def test_a_filter_is_not_there_when_its_commit_failed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    await site.metric_filter("x")
    store = site.logs._opened
    blocker = store._open()
    blocker.execute("BEGIN IMMEDIATE")
    store._writer.session.connection.set_busy_timeout(1)
    with pytest.raises(StorageError):
        await site.subscribe(STREAM)
    site.write("x kept")
    blocker.execute("ROLLBACK")
    await site.written()
    assert (await site("DescribeSubscriptionFilters", logGroupName="g"))["subscriptionFilters"] == []
    assert [value[3] for value in site.metrics] == [1.0], "counted once, although its batch may have been tried twice"
    assert not site.documents


async def test_who_subscribes_a_function_must_be_allowed_to_invoke_it(site: Site) -> None:
    operation = {one.name: one for one in operations(site.logs)}["PutSubscriptionFilter"]
    request = {"logGroupName": "g", "filterName": "f", "filterPattern": "", "destinationArn": FUNCTION}
    assert [(one.action, one.resource) for one in operation.permissions(request)] == [
        ("logs:PutSubscriptionFilter", "arn:aws:logs:us-east-1:000000000000:log-group:g:*"),
        ("lambda:InvokeFunction", FUNCTION),
    ]
