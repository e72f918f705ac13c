"""How many events a second the rules of a bus are matched against: the pure matcher, by the process's CPU time.

`python -m bench.events` prints a table. Nothing is stored or delivered: that is measured end to end elsewhere.
"""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from entrepot.services.events.index import PatternIndex
from entrepot.services.events.pattern import EventPattern

RULES = (1, 100, 300, 1000)
"""How many rules the bus has; AWS's quota is 300."""

EVENTS = 20_000
ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement: what the rules look at, how many there are, how many match each event."""

    rules: str
    rule_count: int
    matching: float
    events_per_cpu_s: float


Rules = Callable[[int], dict[str, Any]]


def _bucket(number: int) -> dict[str, Any]:
    return {
        "source": ["aws.s3"],
        "detail-type": ["Object Created"],
        "detail": {"bucket": {"name": [f"bucket-{number}"]}},
    }


def _prefix(number: int) -> dict[str, Any]:
    key = {"key": [{"prefix": f"customer-{number:04d}/"}]}
    return {"source": ["aws.s3"], "detail": {"bucket": {"name": ["bucket-0"]}, "object": key}}


def _size(number: int) -> dict[str, Any]:
    return {
        "source": ["aws.s3"],
        "detail": {"object": {"size": [{"numeric": [">=", number * 10, "<", number * 10 + 10]}]}},
    }


def _suffix(number: int) -> dict[str, Any]:
    return {"source": ["aws.s3"], "detail": {"object": {"key": [{"wildcard": f"*/*.{number:04d}.csv"}]}}}


def _not(number: int) -> dict[str, Any]:
    return {"detail": {"bucket": {"name": [{"anything-but": ["bucket-0", f"bucket-{number + 1}"]}]}}}


def _own_field(number: int) -> dict[str, Any]:
    return {"detail": {"object": {f"field-{number}": ["x"]}}}


RULE_SETS: dict[str, Rules] = {
    "a bucket each": _bucket,
    "one bucket, a prefix each": _prefix,
    "a range of sizes each": _size,
    "a wildcard each": _suffix,
    "anything but this bucket": _not,
    "a field each": _own_field,
}


def _event(number: int) -> dict[str, Any]:
    return {
        "version": "0",
        "id": "17793124-05d4-b198-2fde-7ededc63b103",
        "detail-type": "Object Created",
        "source": "aws.s3",
        "account": "000000000000",
        "time": "2026-11-23T19:57:14Z",
        "region": "us-east-1",
        "resources": ["arn:aws:s3:::bucket-0"],
        "detail": {
            "version": "0",
            "bucket": {"name": "bucket-0"},
            "object": {
                "key": f"customer-0000/report-{number}.0000.csv",
                "size": number % 10,
                "etag": "b1946ac92492d2347c6235b4d2611184",
                "sequencer": "00000000000000617F",
            },
            "request-id": "N4N7GDK58NMKJ12R",
            "requester": "000000000000",
            "source-ip-address": "192.0.2.17",
            "reason": "PutObject",
        },
    }


def measure(events: int = EVENTS, rounds: int = ROUNDS) -> list[Row]:
    """Match `events` different events against each set of rules; the median of some rounds."""
    found = []
    sent = [_event(number) for number in range(events)]
    for name, rule in RULE_SETS.items():
        for count in RULES:
            index = PatternIndex((EventPattern.parse(json.dumps(rule(number))), number) for number in range(count))
            figures, matches = [], 0
            for _ in range(rounds):
                begin = time.process_time()
                matches = sum(len(index.matching(event)) for event in sent)
                figures.append(events / (time.process_time() - begin))
            found.append(Row(name, count, matches / events, statistics.median(figures)))
    return found


def main() -> None:
    """Print the table."""
    print("| rules look at | rules | matching | events per CPU second |")
    print("| --- | --- | --- | --- |")
    for row in measure():
        print(f"| {row.rules} | {row.rule_count:,} | {row.matching:g} | {row.events_per_cpu_s:,.0f} |")


if __name__ == "__main__":
    main()
