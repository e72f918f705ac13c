"""How long pages, and queries of logs, take on a full stack: `python -m bench.pages FOLDER`, after `make seed-load`.

The server runs as it would, with its background work; one client asks, one request at a time.
"""

import argparse
import json
import os
import statistics
import time
import urllib.request
from functools import partial
from pathlib import Path
from typing import Any

from bench.seed_load import LAMBDA_GROUP
from tests.running import Stack, wait_for

RUNS = 15
FILES_AIM_MS, OVERVIEW_AIM_MS = 200, 500


def pages(newest_key: str) -> list[tuple[str, str, int]]:
    """Return words, path and aim in milliseconds of each page."""
    key = newest_key
    customer = key.partition("/")[0]
    return [
        ("Overview, an hour", "/?range=1h", OVERVIEW_AIM_MS),
        ("Overview, 24 hours", "/?range=24h", OVERVIEW_AIM_MS),
        ("Overview, 30 days", "/?range=30d", OVERVIEW_AIM_MS),
        ("Overview's refreshing part", "/fragments/overview", OVERVIEW_AIM_MS),
        ("Files", "/files", FILES_AIM_MS),
        ("Files' refreshing part", "/fragments/files", FILES_AIM_MS),
        ("Files by whole key", f"/files?key={key}", FILES_AIM_MS),
        ("Files by beginning of a key (few)", f"/files?key={key[:-5]}", FILES_AIM_MS),
        ("Files by beginning of a key (many)", f"/files?key={customer}/", FILES_AIM_MS),
        ("Files by a key that is not there", "/files?key=nobody/in/", FILES_AIM_MS),
        ("Files by customer", f"/files?customer={customer}", FILES_AIM_MS),
        ("Files by a customer that is not there", "/files?customer=nobody", FILES_AIM_MS),
        ("Files failed", "/files?status=failed", FILES_AIM_MS),
        ("Files waiting", "/files?status=uploaded", FILES_AIM_MS),
        ("Files under way (none)", "/files?status=transferring", FILES_AIM_MS),
        ("Files delivered", "/files?status=transferred", FILES_AIM_MS),
        ("Files failed of a customer", f"/files?status=failed&customer={customer}", FILES_AIM_MS),
        ("Files waiting of a customer (hardly any)", f"/files?status=uploaded&customer={customer}", FILES_AIM_MS),
        ("Files failed, keys of a customer (many)", f"/files?status=failed&key={customer}/", FILES_AIM_MS),
        (
            "Files since a day ago",
            f"/files?since={time.strftime('%Y-%m-%dT%H:%M', time.gmtime(time.time() - 86_400))}",
            FILES_AIM_MS,
        ),
    ]


def measure(folder: Path) -> list[str]:
    """Return a table of measurements as lines of Markdown."""
    stack = Stack(folder)
    began = time.monotonic()
    with stack:
        started_s = time.monotonic() - began
        address = json.loads((folder / "data" / "run.json").read_text())["console"]
        newest = stack.json("files", "--limit", "1")[0]
        rows = ["| page | median ms | slowest ms | first ms | aim ms |", "| --- | --- | --- | --- | --- |"]
        wanted = [*pages(newest["key"]), ("A file", f"/files/{newest['file_id']}", FILES_AIM_MS)]
        for words, path, aim_ms in wanted:
            times = [_get(address + path) for _ in range(RUNS + 1)]
            first, again = times[0], times[1:]
            median = statistics.median(again)
            mark = "" if median <= aim_ms else " **slow**"
            rows.append(f"| {words} | {median:.0f}{mark} | {max(again):.0f} | {first:.0f} | {aim_ms} |")
        rows.append("")
        rows.append(f"The server was ready after {started_s:.1f} s.")
    return rows


QUERIES = (
    ("events by 5 minutes", "stats count(*) as events by bin(5m)"),
    (
        "the reference's: transfers by hour",
        'filter @message like /transferred/ | parse @message /file_id\\":\\"(?<file_id>[^\\"]+)/ '
        "| stats count(*) as Transfers by bin(1h)",
    ),
    ("the newest failures", 'filter status = "failed" | sort @timestamp desc | limit 20'),
)


def measure_logs(folder: Path) -> list[str]:
    """Return a table of queries of Logs Insights over the function's log as lines of Markdown."""
    rows = ["| query | of the last | events looked at | ms |", "| --- | --- | --- | --- |"]
    with Stack(folder) as stack:
        logs = stack.client("logs")
        stream = logs.describe_log_streams(
            logGroupName=LAMBDA_GROUP, orderBy="LastEventTime", descending=True, limit=1
        )["logStreams"][0]
        end_s = stream["lastEventTimestamp"] // 1000 + 1
        for words, text in QUERIES:
            for days in (1, 30):
                began = time.perf_counter()
                query_id = logs.start_query(
                    logGroupName=LAMBDA_GROUP, startTime=end_s - days * 86_400, endTime=end_s, queryString=text
                )["queryId"]
                answer = wait_for(partial(_ended, logs, query_id), deadline_s=120, what="the query")
                looked_at = int(answer["statistics"]["recordsScanned"])
                took_ms = (time.perf_counter() - began) * 1000
                state = "" if answer["status"] == "Complete" else f" ({answer['status']})"
                rows.append(f"| {words} | {days} days | {looked_at:,} | {took_ms:.0f}{state} |")
    return rows


def _ended(logs: Any, query_id: str) -> Any:
    answer = logs.get_query_results(queryId=query_id)
    return None if answer["status"] in ("Scheduled", "Running") else answer


def _get(url: str) -> float:
    """Return how long an answer takes, in milliseconds."""
    began = time.perf_counter()
    with urllib.request.urlopen(url, timeout=60) as answer:
        answer.read()
        assert answer.status == 200
    return (time.perf_counter() - began) * 1000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} cores\n")
    for measured in (measure, measure_logs):
        for line in [*measured(arguments.folder), ""]:
            print(line, flush=True)


if __name__ == "__main__":
    main()
