"""Logs Insights: what queries answer, checked against a computation of the same in Python."""

import asyncio
import json
import math
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import apsw
import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from entrepot import clock
from entrepot.arns import Account
from entrepot.loglines import LogLine
from entrepot.operations import AsyncOperation, Call, Principal
from entrepot.services.logs import Logs, schema
from entrepot.services.logs.insights.compile import compile_query
from entrepot.services.logs.insights.errors import MalformedQueryError
from entrepot.services.logs.insights.operations import operations
from entrepot.services.logs.insights.scalars import Regexes, register

GROUP = "/aws/lambda/transfer"
START_MS = 1_763_900_000_000
COUNT = 600
CALL = Call(Principal("arn:aws:iam::0:root", "root", "root"), "request")


@dataclass(frozen=True)
class Line:
    """One event as written: its time, its text, and what the text says."""

    time_ms: int
    stream: str
    text: str
    said: dict[str, Any]


def written() -> list[Line]:
    """Return the lines of the group: JSON of transfers, REPORT lines, and plain text."""
    lines = []
    for i in range(COUNT):
        time_ms = START_MS + i * 7_001
        if i % 6 == 0:
            said: dict[str, Any] = {"@duration": (i % 50) + 0.5, "@maxMemoryUsed": 61_000_000}
            text = (
                f"REPORT RequestId: 1842{i:04d}-0355-5292-8387-dda00255d188\tDuration: {i % 50}.5 ms\t"
                "Billed Duration: 337 ms\tMemory Size: 256 MB\tMax Memory Used: 61 MB"
            )
        elif i % 6 == 1:
            said = {}
            text = f"[ERROR] user=user-{i % 4}, address: 10.0.{i % 3}.7, took {i * 3}ms of trouble"
        else:
            said = {
                "level": "INFO",
                "message": "File transferred" if i % 3 else "File failed",
                "file_id": f"{i:08x}",
                "size": i % 40,
                "customer": f"c{i % 5}",
                "detail": {"tags": ["a", f"t{i % 2}"], "deep": {"er": i % 7}},
            }
            text = json.dumps(said, separators=(",", ":"))
        lines.append(Line(time_ms, f"stream-{i % 3}", text, said))
    return lines


LINES = written()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def insights(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[str, Callable[..., Any]]]:
    path: Path = tmp_path_factory.mktemp("logs")
    logs = Logs(path, Account("000000000000", "us-east-1"))
    await logs.start()
    await logs.create_group(GROUP)
    for line in LINES:
        logs.write_log(GROUP, line.stream, LogLine(line.time_ms, line.text))
    yield {op.name: op.run for op in operations(logs) if isinstance(op, AsyncOperation)}
    await logs.stop()


on_one_loop = pytest.mark.asyncio(loop_scope="module")


async def answer(insights: dict[str, Callable[..., Any]], text: str, **more: Any) -> dict[str, Any]:
    """Run a query to its end and return GetQueryResults' answer."""
    request = {
        "logGroupName": GROUP,
        "startTime": START_MS // 1000,
        "endTime": START_MS // 1000 + 100_000,
        "queryString": text,
    } | more
    query_id = (await insights["StartQuery"](request, CALL))["queryId"]
    deadline_s = clock.monotonic_s() + 20
    while True:
        result: dict[str, Any] = await insights["GetQueryResults"]({"queryId": query_id}, CALL)
        if result["status"] not in ("Scheduled", "Running"):
            return result
        assert clock.monotonic_s() < deadline_s
        await asyncio.sleep(0.005)


async def rows(insights: dict[str, Callable[..., Any]], text: str, **more: Any) -> list[dict[str, str]]:
    """Return the rows of a query without their pointers."""
    result = await answer(insights, text, **more)
    assert result["status"] == "Complete"
    return [{f["field"]: f["value"] for f in row if f["field"] != "@ptr"} for row in result["results"]]


def shown(time_ms: int) -> str:
    """Return a time as AWS shows it."""
    return datetime.fromtimestamp(time_ms // 1000, UTC).strftime("%Y-%m-%d %H:%M:%S.") + f"{time_ms % 1000:03d}"


def number(value: float) -> str:
    """Return a number as AWS shows it."""
    return f"{value:.4f}".rstrip("0").rstrip(".")


def per_bin(lines: list[Line], length_ms: int) -> list[tuple[str, str]]:
    """Return the bins of these lines, newest first, with their counts."""
    counts = Counter(line.time_ms // length_ms * length_ms for line in lines)
    return [(shown(time_ms), str(counts[time_ms])) for time_ms in sorted(counts, reverse=True)]


# ── the reference's own queries ──────────────────────────────────────────────────────────────────────────────────────


@on_one_loop
async def test_transferred_per_five_minutes(insights: dict[str, Callable[..., Any]]) -> None:
    query = 'fields @timestamp, @message\n| filter @message like "transferred"\n| stats count(*) by bin(5m)'
    expected = per_bin([line for line in LINES if "transferred" in line.text], 300_000)
    assert [(row["bin(5m)"], row["count(*)"]) for row in await rows(insights, query)] == expected


@on_one_loop
async def test_transferred_per_hour_with_parsed_ids(insights: dict[str, Callable[..., Any]]) -> None:
    query = (
        "fields @timestamp, @message\n| filter @message like /transferred/\n"
        '| parse @message /file_id\\":\\"(?<file_id>[^\\"]+)/\n| stats count(*) as Transfers by bin(1h)'
    )
    expected = per_bin([line for line in LINES if "transferred" in line.text], 3_600_000)
    assert [(row["bin(1h)"], row["Transfers"]) for row in await rows(insights, query)] == expected


# ── each command ─────────────────────────────────────────────────────────────────────────────────────────────────────


@on_one_loop
async def test_without_fields_time_and_message_are_shown_newest_first(insights: dict[str, Callable[..., Any]]) -> None:
    got = await rows(insights, "limit 3")
    assert got == [{"@timestamp": shown(line.time_ms), "@message": line.text} for line in LINES[: COUNT - 4 : -1]]


@on_one_loop
async def test_fields_and_display(insights: dict[str, Callable[..., Any]]) -> None:
    got = await rows(
        insights,
        "fields customer as who, size * 2 + 1 as twice | filter ispresent(customer) | sort @timestamp | limit 2",
    )
    transfers = [line.said for line in LINES if "customer" in line.said]
    assert got == [{"who": said["customer"], "twice": number(said["size"] * 2 + 1)} for said in transfers[:2]]
    got = await rows(
        insights, "fields customer, size | display file_id | filter customer = 'c3' | sort file_id | limit 1"
    )
    assert got == [{"file_id": next(said["file_id"] for said in transfers if said["customer"] == "c3")}]


@pytest.mark.parametrize(
    ("condition", "keeps"),
    [
        ("size > 20", lambda line: line.said.get("size", -1) > 20),
        ("size >= 20 and size < 30", lambda line: 20 <= line.said.get("size", -1) < 30),
        ("customer in ['c1', 'c2']", lambda line: line.said.get("customer") in ("c1", "c2")),
        ("size in [1, 2, 3]", lambda line: line.said.get("size") in (1, 2, 3)),
        ("customer = 'c1' or size = 3", lambda line: line.said.get("customer") == "c1" or line.said.get("size") == 3),
        ("not ispresent(customer)", lambda line: "customer" not in line.said),
        ("@message not like 'File'", lambda line: "File" not in line.text),
        ("@message not like /File (failed|transferred)/", lambda line: "File" not in line.text),
        ("@message =~ /took \\d+ms/", lambda line: "took" in line.text),
        ("@message like /(?i)FAILED/", lambda line: "failed" in line.text),
        ("detail.deep.er = 3", lambda line: line.said.get("detail", {}).get("deep", {}).get("er") == 3),
        ("detail.tags.1 = 't1'", lambda line: line.said.get("detail", {}).get("tags", ["", ""])[1] == "t1"),
        ("@duration >= 25.5", lambda line: line.said.get("@duration", 0) >= 25.5),
        ('@type = "REPORT"', lambda line: line.text.startswith("REPORT")),
        ("@logStream = 'stream-1'", lambda line: line.stream == "stream-1"),
        ("@log like '/aws/lambda/'", lambda line: True),
        ("strcontains(@message, 'trouble')", lambda line: "trouble" in line.text),
        (
            "size % 7 = 3 and customer != 'c0'",
            lambda line: line.said.get("size", 0) % 7 == 3 and line.said["customer"] != "c0",
        ),
        ("size ^ 2 = 49", lambda line: line.said.get("size") == 7),
        ("-size < -38", lambda line: line.said.get("size", 0) > 38),
        ("strlen(customer) = 2 and tolower(level) = 'info'", lambda line: "customer" in line.said),
        (f"toMillis(@timestamp) < {START_MS + 70_000}", lambda line: line.time_ms < START_MS + 70_000),
    ],
)
@on_one_loop
async def test_filter(insights: dict[str, Callable[..., Any]], condition: str, keeps: Callable[[Line], bool]) -> None:
    kept = [line for line in LINES if keeps(line)]
    result = await answer(insights, f"filter {condition} | stats count(*) as n")
    found = [{f["field"]: f["value"] for f in row} for row in result["results"]]
    assert found == ([{"n": str(len(kept))}] if kept else [])
    assert kept, "the condition keeps nothing: it proves nothing"
    assert result["statistics"]["recordsMatched"] == len(kept)
    assert result["statistics"]["recordsScanned"] == COUNT
    assert result["statistics"]["bytesScanned"] == sum(len(line.text) for line in LINES)


@on_one_loop
async def test_parse_with_a_glob(insights: dict[str, Callable[..., Any]]) -> None:
    query = (
        'parse @message "user=*, address: *, took *ms of *" as user, address, took, what '
        "| filter ispresent(took) | stats sum(took), max(took), count(*) by user, what | sort user"
    )
    sums: dict[str, list[int]] = defaultdict(list)
    for line in LINES:
        if found := re.search(r"user=(\S+), .* took (\d+)ms", line.text):
            sums[found[1]].append(int(found[2]))
    assert await rows(insights, query) == [
        {
            "sum(took)": str(sum(took)),
            "max(took)": str(max(took)),
            "count(*)": str(len(took)),
            "user": user,
            "what": "trouble",
        }
        for user, took in sorted(sums.items())
    ]


@on_one_loop
async def test_parse_of_another_field_and_the_default_one(insights: dict[str, Callable[..., Any]]) -> None:
    got = await rows(insights, 'parse "address: *," as address | filter ispresent(address) | sort @timestamp | limit 1')
    assert got == [{"address": "10.0.1.7"}]
    got = await rows(
        insights, "parse message /File (?<how>\\w+)/ | filter ispresent(how) | stats count(*) as n by how | sort n desc"
    )
    how = Counter(line.said["message"].split()[1] for line in LINES if "message" in line.said)
    assert got == [{"n": str(n), "how": name} for name, n in how.most_common()]


@on_one_loop
async def test_every_aggregate(insights: dict[str, Callable[..., Any]]) -> None:
    query = (
        "filter ispresent(size) | stats count(*), count(size), count_distinct(size), sum(size), avg(size), min(size), "
        "max(size), pct(size, 50), pct(size, 90), stddev(size), earliest(file_id), latest(file_id), "
        "sortsFirst(file_id), sortsLast(file_id), max(size) - min(size) as spread by customer | sort customer"
    )
    groups: dict[str, list[Line]] = defaultdict(list)
    for line in LINES:
        if "size" in line.said:
            groups[line.said["customer"]].append(line)
    got = await rows(insights, query)
    assert [row["customer"] for row in got] == sorted(groups)
    for row in got:
        lines = groups[row["customer"]]
        sizes = sorted(line.said["size"] for line in lines)
        ids = [line.said["file_id"] for line in lines]
        assert row["count(*)"] == row["count(size)"] == str(len(lines))
        assert row["count_distinct(size)"] == str(len(set(sizes)))
        assert row["sum(size)"] == str(sum(sizes))
        assert row["avg(size)"] == number(statistics.mean(sizes))
        assert (row["min(size)"], row["max(size)"]) == (str(sizes[0]), str(sizes[-1]))
        assert row["spread"] == str(sizes[-1] - sizes[0])
        assert float(row["stddev(size)"]) == pytest.approx(statistics.pstdev(sizes), abs=1e-4)
        for percent in (50, 90):
            place = percent / 100 * (len(sizes) - 1)
            low = sizes[math.floor(place)]
            between = low + (sizes[math.ceil(place)] - low) * (place - math.floor(place))
            assert float(row[f"pct(size, {percent})"]) == pytest.approx(between, abs=1e-4)
        assert (row["earliest(file_id)"], row["latest(file_id)"]) == (ids[0], ids[-1])
        assert (row["sortsFirst(file_id)"], row["sortsLast(file_id)"]) == (min(ids), max(ids))


@on_one_loop
async def test_two_stats_and_a_filter_on_aggregates(insights: dict[str, Callable[..., Any]]) -> None:
    query = "stats count(*) as n by customer, bin(10m) as slot | filter n > 20 | stats max(n) as most by customer | sort customer"
    counts = Counter((line.said["customer"], line.time_ms // 600_000) for line in LINES if "customer" in line.said)
    nobody = Counter(line.time_ms // 600_000 for line in LINES if "customer" not in line.said)
    most: dict[str, int] = {}
    for (customer, _), n in counts.items():
        if n > 20:
            most[customer] = max(n, most.get(customer, 0))
    none = max((n for n in nobody.values() if n > 20), default=None)
    expected = ([{"most": str(none)}] if none else []) + [
        {"most": str(n), "customer": customer} for customer, n in sorted(most.items())
    ]
    assert await rows(insights, query) == expected


@on_one_loop
async def test_sort_limit_and_what_follows_a_limit(insights: dict[str, Callable[..., Any]]) -> None:
    got = await rows(insights, "filter ispresent(size) | fields file_id, size | sort size desc, file_id | limit 5")
    best = sorted((line.said for line in LINES if "size" in line.said), key=lambda s: (-s["size"], s["file_id"]))[:5]
    assert got == [{"file_id": said["file_id"], "size": str(said["size"])} for said in best]
    got = await rows(
        insights,
        "filter ispresent(size) | fields file_id, size | sort size desc, file_id | limit 5 | stats min(size) as least",
    )
    assert got == [{"least": str(best[-1]["size"])}]


@on_one_loop
async def test_dedup_keeps_the_first_in_the_order(insights: dict[str, Callable[..., Any]]) -> None:
    newest: dict[str, str] = {}
    for line in LINES:
        if "customer" in line.said:
            newest[line.said["customer"]] = line.said["file_id"]
    got = await rows(insights, "dedup customer | fields customer, file_id | sort customer")
    assert got == [{"customer": customer, "file_id": newest[customer]} for customer in sorted(newest)]
    got = await rows(
        insights, "filter ispresent(size) | sort size desc | dedup customer | fields customer, size | limit 1"
    )
    assert got[0]["size"] == str(max(line.said["size"] for line in LINES if "size" in line.said))


@on_one_loop
async def test_unnest(insights: dict[str, Callable[..., Any]]) -> None:
    query = "fields jsonParse(@message) as j | unnest j.detail.tags into tag | stats count(*) as n by tag | sort tag"
    with pytest.raises(MalformedQueryError):
        compile_query("unnest into tag", now_ms=0)
    tags = Counter(tag for line in LINES if "detail" in line.said for tag in line.said["detail"]["tags"])
    assert await rows(insights, query) == [{"n": str(n), "tag": tag} for tag, n in sorted(tags.items())]


@on_one_loop
async def test_pattern(insights: dict[str, Callable[..., Any]]) -> None:
    got = await rows(insights, "filter @message like /trouble|REPORT/ | pattern @message")
    assert len(got) == 2
    assert {row["@sampleCount"] for row in got} == {str(COUNT // 6)}
    assert sum(float(row["@ratio"]) for row in got) == pytest.approx(1)
    for row in got:
        matching = [line for line in LINES if re.fullmatch(row["@regexString"], line.text)]
        assert len(matching) == COUNT // 6
    assert {row["@severityLabel"] for row in got} == {"ERROR", "INFO"}


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("abs(-3)", "3"),
        ("ceil(1.2)", "2"),
        ("floor(-1.2)", "-2"),
        ("greatest(1, 5, 3)", "5"),
        ("least(4, 2)", "2"),
        ("log(1)", "0"),
        ("sqrt(16)", "4"),
        ("7 / 2", "3.5"),
        ("2 ^ 10", "1024"),
        ("1 + 2 * 3", "7"),
        ("(1 + 2) * 3", "9"),
        ("10 % 3", "1"),
        ("coalesce(nothing, 'x')", "x"),
        ("concat('a', 1, 'b')", "a1b"),
        ("ltrim('  a')", "a"),
        ("rtrim('axx', 'x')", "a"),
        ("trim('xax', 'x')", "a"),
        ("strlen('año')", "3"),
        ("toupper('año')", "AÑO"),
        ("substr('abcdef', 2)", "cdef"),
        ("substr('abcdef', 1, 2)", "bc"),
        ("replace('aba', 'a', 'x')", "xbx"),
        ("strcontains('abc', 'bc')", "1"),
        ("isempty('')", "1"),
        ("isblank('  ')", "1"),
        ("isempty('a')", "0"),
        ("isValidIp('10.0.0.1')", "1"),
        ("isValidIpv4('::1')", "0"),
        ("isValidIpv6('::1')", "1"),
        ("isIpv4InSubnet('10.1.2.3', '10.0.0.0/8')", "1"),
        ("isIpInSubnet('11.1.2.3', '10.0.0.0/8')", "0"),
        ("isIpv6InSubnet('fd00::1', 'fd00::/8')", "1"),
        ("fromMillis(1763900000123)", "2025-11-23 12:13:20.123"),
        ("datefloor(fromMillis(1763900000123), 1h)", "2025-11-23 12:00:00.000"),
        ("dateceil(fromMillis(1763900000123), 1h)", "2025-11-23 13:00:00.000"),
        ("datefloor(fromMillis(1763900000123), 1mo)", "2025-11-01 00:00:00.000"),
        ("datefloor(fromMillis(1763900000123), 1q)", "2025-10-01 00:00:00.000"),
        ("datefloor(fromMillis(1763900000123), 1w)", "2025-11-17 00:00:00.000"),
        ('jsonParse(\'{"a":[1,{"b c":2}]}\')["a"][1]["b c"]', "2"),
        ("'say \\\"hi\\\"'", 'say "hi"'),
    ],
)
@on_one_loop
async def test_functions(insights: dict[str, Callable[..., Any]], expression: str, value: str) -> None:
    assert await rows(insights, f"fields {expression} as x | limit 1") == [{"x": value}]


# ── errors and limits ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("query", "start", "words"),
    [
        ("fields @message | explode x", 18, "unsupported command 'explode'"),
        ("fields a b", 9, "unexpected symbol"),
        ("fields a,", 9, "unexpected end"),
        ("", 0, "unexpected end"),
        ("filter size >", 13, "unexpected end"),
        ("filter nosuch(size)", 7, "unknown function nosuch"),
        ("filter abs(1, 2) = 1", 7, "number of arguments"),
        ("filter count(*) > 1", 7, "only be used in stats"),
        ("stats count(*) | filter size > 1", 24, "not among those"),
        ("stats size by customer", 6, "neither an aggregate"),
        ("stats count(*) by bin(5)", 18, "takes a period"),
        ("parse @message /(\\w+)/", 0, "named groups"),
        ("parse @message 'a * b *' as x", 0, "2 wildcards"),
        ("filter @message like /a(?=b)/", 7, "invalid regular expression"),
        ("filter @message like /(/", 7, "invalid regular expression"),
        ("limit 0", 0, "from 1 to 10000"),
        ("stats count(*) | stats count(*) | stats count(*)", 40, "at most 2 stats"),
        ("fields " + "(" * 200 + "1" + ")" * 200, 0, "nest deeper"),
    ],
)
@on_one_loop
async def test_malformed_queries_say_where(
    insights: dict[str, Callable[..., Any]], query: str, start: int, words: str
) -> None:
    with pytest.raises(MalformedQueryError) as raised:
        await answer(insights, query)
    assert words in raised.value.message
    error = raised.value.members["queryCompileError"]
    assert isinstance(error, dict)
    assert error["location"]["startCharOffset"] == start
    assert error["location"]["endCharOffset"] >= start


@on_one_loop
async def test_a_regex_that_backtracks_elsewhere_takes_no_time(insights: dict[str, Callable[..., Any]]) -> None:
    begun_s = clock.monotonic_s()
    got = await rows(insights, "filter concat('" + "a" * 3000 + "', @message) like /^(a+)+$/ | stats count(*)")
    assert got == []
    assert clock.monotonic_s() - begun_s < 5


@on_one_loop
async def test_a_query_can_be_stopped(insights: dict[str, Callable[..., Any]]) -> None:
    ids = [
        (
            await insights["StartQuery"](
                {"logGroupName": GROUP, "startTime": 0, "endTime": 1 << 40, "queryString": "pattern @message"}, CALL
            )
        )["queryId"]
        for _ in range(5)
    ]
    assert await insights["StopQuery"]({"queryId": ids[-1]}, CALL) == {"success": True}
    result = await insights["GetQueryResults"]({"queryId": ids[-1]}, CALL)
    assert (result["status"], result["results"]) == ("Cancelled", [])
    listed = await insights["DescribeQueries"]({"status": "Cancelled"}, CALL)
    assert ids[-1] in [query["queryId"] for query in listed["queries"]]


@on_one_loop
async def test_the_pointer_leads_to_the_record(insights: dict[str, Callable[..., Any]]) -> None:
    result = await answer(insights, "filter file_id = '00000004' | fields file_id")
    (fields,) = result["results"]
    pointer = next(field["value"] for field in fields if field["field"] == "@ptr")
    record = (await insights["GetLogRecord"]({"logRecordPointer": pointer}, CALL))["logRecord"]
    assert record["@message"] == LINES[4].text
    assert record["detail.deep.er"] == "4"
    assert record["@logStream"] == "stream-1"


@on_one_loop
async def test_the_fields_of_a_group(insights: dict[str, Callable[..., Any]]) -> None:
    answered = await insights["GetLogGroupFields"]({"logGroupName": GROUP}, CALL)
    shares = {field["name"]: field["percent"] for field in answered["logGroupFields"]}
    assert shares["@message"] == 100
    assert shares["customer"] == shares["detail.deep.er"] == 67


@on_one_loop
async def test_saved_queries(insights: dict[str, Callable[..., Any]]) -> None:
    request = {"name": "Transfers", "queryString": "stats count(*)", "logGroupNames": [GROUP]}
    made = await insights["PutQueryDefinition"](request, CALL)
    await insights["PutQueryDefinition"]({**request, "queryString": "limit 5", **made}, CALL)
    (saved,) = (await insights["DescribeQueryDefinitions"]({"queryDefinitionNamePrefix": "Tr"}, CALL))[
        "queryDefinitions"
    ]
    assert (saved["queryString"], saved["logGroupNames"]) == ("limit 5", [GROUP])
    assert await insights["DeleteQueryDefinition"](made, CALL) == {"success": True}
    assert (await insights["DescribeQueryDefinitions"]({}, CALL))["queryDefinitions"] == []


# ── hostile input ────────────────────────────────────────────────────────────────────────────────────────────────────

WORDS = [
    "fields",
    "filter",
    "stats",
    "parse",
    "sort",
    "limit",
    "dedup",
    "unnest",
    "pattern",
    "display",
    "by",
    "as",
    "and",
    "or",
    "not",
    "like",
    "in",
    "count(*)",
    "bin(5m)",
    "@message",
    "a.b",
    "`x`",
    "'t'",
    "/r(?<g>.)/",
    "1",
    "2.5",
    "|",
    "(",
    ")",
    "[",
    "]",
    ",",
    "+",
    "-",
    "*",
    "/",
    "=",
    "!=",
    "asc",
    "desc",
    "into",
    "5m",
    "pct(a,5)",
    "#",
    '"',
    "\\",
]
words = st.sampled_from(WORDS)


def small_store() -> apsw.Connection:
    """Return a store with a few events."""
    connection = apsw.Connection(":memory:")
    for statements in schema.MIGRATIONS:
        for statement in statements:
            connection.execute(statement)
    connection.execute("INSERT INTO log_group VALUES (1, 'g', 0, NULL)")
    connection.execute("INSERT INTO log_stream VALUES (1, 1, 's', 0, 0, 9, 0, 0)")
    for number, text in enumerate(('{"a":{"b":[1,"x"]}}', "plain", "")):
        connection.execute("INSERT INTO log_event VALUES (1, ?, 0, 0, ?)", (number, text))
    return connection


STORE = small_store()
EVERYTHING: dict[str, str | int | float] = {"groups": "[1]", "log_prefix": "0:", "since_ms": 0, "until_ms": 1 << 60}


values = st.sampled_from(["@message", "@timestamp", "a", "a.b", "a.b.1", "n", "'x'", "3", "-1", "bin(5m)", "count(*)"])
expressions = st.recursive(
    values,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "/", "%", "^", "=", "<", "and", "or", "like", "=~"]), inner).map(
            " ".join
        ),
        st.tuples(st.sampled_from(["abs", "coalesce", "max", "earliest", "pct", "strlen", "jsonParse"]), inner).map(
            lambda call: f"{call[0]}({call[1]})"
        ),
        inner.map(lambda text: f"not ({text})"),
        inner.map(lambda text: f"{text} in [1, 'x', a]"),
        inner.map(lambda text: f"{text} like /x(y|z)/"),
    ),
    max_leaves=4,
)
commands = st.one_of(
    expressions.map("fields {} as n".format),
    expressions.map("filter {}".format),
    expressions.map("sort {} desc".format),
    expressions.map("dedup {}".format),
    expressions.map("pattern {}".format),
    st.tuples(expressions, expressions).map(lambda two: f"stats count(*) as a, {two[0]} by {two[1]}"),
    st.sampled_from(["display a, n", "limit 2", "unnest a.b into n", "unnest n into a", "parse a '*:*' as n, m"]),
)


@settings(max_examples=600, deadline=None)
@given(
    st.lists(commands, min_size=1, max_size=5).map(" | ".join)
    | st.lists(words, max_size=14).map(" ".join)
    | st.text(max_size=60)
)
def test_any_text_compiles_or_is_refused(text: str) -> None:
    try:
        compiled = compile_query(text, now_ms=0)
    except MalformedQueryError as error:
        assert 0 <= error.start <= error.end <= max(len(text), error.start + 200)
    else:
        register(STORE, Regexes(compiled.regexes))
        rows = STORE.execute(compiled.sql, EVERYTHING | compiled.parameters).fetchall()
        assert all(len(row) == len(compiled.columns) + 4 for row in rows)
