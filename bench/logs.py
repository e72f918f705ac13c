"""Logs by numbers: lines a second of the writer, with and without filters, and Insights over a million events.

`python -m bench.logs` prints them. In-process: what is measured is the store, not the API. A file that is transferred writes
about 15 lines when everything is logged, so that 2,000 files a second are 30,000 lines.
"""

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from entrepot.arns import Account
from entrepot.loglines import LogLine
from entrepot.operations import AsyncOperation, Call, Principal
from entrepot.services.logs import Logs, operations
from entrepot.services.logs.metric_filters import Transformation

GROUP = "/aws/transfer/s-0123456789abcdef0"
LINES = 300_000
EVENTS = 1_000_000
ROUNDS = 3
SPACING_MS = 86
"""Between two events: a million of them are a day."""

QUERIES = {
    "`stats count(*) by bin(5m)`": "stats count(*) by bin(5m)",
    "the first query of the reference": (
        'fields @timestamp, @message | filter @message like "transferred" | stats count(*) by bin(5m)'
    ),
    "the second query of the reference": (
        r"fields @timestamp, @message | filter @message like /transferred/ | "
        r"parse @message /file_id\":\"(?<file_id>[^\"]+)/ | stats count(*) as Transfers by bin(1h)"
    ),
    "a regular expression": r"filter @message like /file-\d*7\.csv/ | stats count(*)",
    "`parse` with a regular expression": r"parse @message /session (?<id>\w+) of/ | stats count(*) by id",
    "sums of a JSON field": "filter status = 'transferred' | stats count(*), sum(size), pct(size, 99) by user",
    "the newest of one customer": 'filter user = "user-3" | sort @timestamp desc | limit 100',
}
"""What is asked of the million events."""

FILTERS = {
    "no filter": (),
    "a metric filter of terms": ("ERROR",),
    "a metric filter of JSON": ('{ $.status = "failed" }',),
    "5 metric filters of JSON": tuple(f'{{ $.status = "failed" && $.size > {number} }}' for number in range(5)),
    "a regular expression": ("%file-[0-9]*99%",),
}

CALL = Call(Principal("arn:aws:iam::000000000000:root", "root", "root"), "bench")


@dataclass(frozen=True)
class Figure:
    """One line of the table."""

    what: str
    value: str


def _message(number: int) -> str:
    said = {
        "role": "arn:aws:iam::000000000000:role/transfer-user",
        "activity-type": "CLOSE",
        "status": "failed" if number % 50 == 0 else "transferred",
        "user": f"user-{number % 16}",
        "size": number % 4_096,
        "file_id": f"{number:012x}",
        "path": f"/bucket/incoming/file-{number}.csv",
        "detail": f"session {number % 8:x}ab of the day",
    }
    return json.dumps(said, separators=(",", ":"))


async def _ingest(lines: int, patterns: tuple[str, ...]) -> tuple[float, float]:
    """Return lines a second, of wall time and of processor time, until everything is stored."""
    messages = [LogLine(1_700_000_000_000 + number, _message(number)) for number in range(lines)]
    with TemporaryDirectory() as folder:
        logs = Logs(Path(folder), Account())
        await logs.start()
        await logs.create_group(GROUP)
        for number, pattern in enumerate(patterns):
            await logs.filters.put_metric_filter(GROUP, f"f{number}", pattern, Transformation("m", "n", "1"))
        began_s, used_s = time.perf_counter(), time.process_time()
        for number, line in enumerate(messages):
            logs.write_log(GROUP, f"user-{number % 16}.0123456789abcdef", line)
        await logs.drained()
        await logs.groups()
        wall_s, cpu_s = time.perf_counter() - began_s, time.process_time() - used_s
        assert logs.statistics().dropped == 0 and logs.statistics().written == lines
        await logs.stop()
    return lines / wall_s, lines / cpu_s


async def _insights(events: int, rounds: int) -> list[Figure]:
    with TemporaryDirectory() as folder:
        logs = Logs(Path(folder), Account())
        await logs.start()
        begin_ms = 1_700_000_000_000
        for number in range(events):
            at_ms = begin_ms + number * SPACING_MS
            logs.write_log(GROUP, f"user-{number % 16}.0123456789abcdef", LogLine(at_ms, _message(number)))
            if number % 50_000 == 0:
                await logs.drained()
        await logs.groups()
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
        found = [Figure(f"{events:,} events on disk", f"{size / events:.0f} bytes an event")]
        run = {one.name: one.run for one in operations(logs) if isinstance(one, AsyncOperation)}
        for name, text in QUERIES.items():
            taken: list[float] = []
            used_s = time.process_time()
            for _ in range(rounds):
                began_s = time.perf_counter()
                request = {
                    "logGroupName": GROUP,
                    "queryString": text,
                    "startTime": begin_ms // 1000,
                    "endTime": begin_ms // 1000 + 2 * 86_400,
                }
                query = (await run["StartQuery"](request, CALL))["queryId"]
                while (answer := await run["GetQueryResults"]({"queryId": query}, CALL))["status"] in (
                    "Scheduled",
                    "Running",
                ):
                    await asyncio.sleep(0.005)
                taken.append(time.perf_counter() - began_s)
                assert answer["status"] == "Complete" and answer["results"], (name, answer["status"])
            found.append(
                Figure(
                    f"{events:,} events: {name}",
                    f"{statistics.median(taken):.2f} s ({(time.process_time() - used_s) / rounds:.2f} s of CPU)",
                )
            )
        await logs.stop()
    return found


def measure(scale: int = 1, rounds: int = ROUNDS) -> list[Figure]:
    """Return all figures; `scale` divides the work."""
    found = []
    for name, patterns in FILTERS.items():
        wall, cpu = asyncio.run(_ingest(LINES // scale, patterns))
        found.append(Figure(f"ingest, {name}", f"{wall:,.0f} lines/s ({cpu:,.0f} per CPU second)"))
    return found + asyncio.run(_insights(EVENTS // scale, rounds))


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=int, default=1, help="divide the work by this")
    show: Callable[[str], None] = print
    show("| what | figure |\n| --- | --- |")
    for figure in measure(parser.parse_args().scale):
        show(f"| {figure.what} | {figure.value} |")


if __name__ == "__main__":
    main()
