"""`entrepot logs`: reads log groups, and follows them."""

import json
import time
from datetime import timedelta
from typing import Annotated, Any

import typer

from entrepot import clock
from entrepot.cli import show
from entrepot.cli.client import HERE, StackOption, connected
from entrepot.cli.show import Format, FormatOption
from entrepot.loglines import printable

FOLLOW_INTERVAL_S = 1.0
FOLLOW_OVERLAP_MS = 5_000
"""Lines are written in batches: each poll looks this far back and leaves out what it has shown."""

SEEN_LIMIT = 100_000


def logs(
    group: Annotated[
        str | None, typer.Argument(metavar="GROUP", help="A log group; without it, list the groups.")
    ] = None,
    stack: StackOption = HERE,
    since: Annotated[str, typer.Option(help="How far back: 5m, 2h, 7d, or a time.")] = "1h",
    pattern: Annotated[str, typer.Option("--filter", help="A CloudWatch filter pattern.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="At most this many lines.")] = 10_000,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines arrive, until interrupted.")] = False,
    output: FormatOption = Format.table,
) -> None:
    """Show the lines of a log group, oldest first; without a group, list the groups.

    With --follow, -o json prints one object a line.
    """
    with connected(stack) as connection:
        client = connection.client("logs")
        if group is None:
            _groups(client, output)
            return
        moment = show.since(since) or clock.now() - timedelta(hours=1)
        start_ms = int(moment.timestamp() * 1000)
        seen: dict[str, None] = {}
        while True:
            events = _events(client, group, start_ms, pattern, limit)
            fresh = [event for event in events if event["eventId"] not in seen]
            for event in fresh:
                seen[event["eventId"]] = None
            while len(seen) > SEEN_LIMIT:
                del seen[next(iter(seen))]
            if output is Format.json and not follow:
                show.as_json(fresh)
            elif output is Format.json:
                for event in fresh:
                    typer.echo(json.dumps(event, ensure_ascii=False))
            else:
                for event in fresh:
                    typer.echo(f"{show.when_ms(event['timestamp'])}  {printable(event['message'].rstrip())}")
            if not follow:
                return
            if fresh:
                start_ms = max(start_ms, max(event["timestamp"] for event in fresh) - FOLLOW_OVERLAP_MS)
            time.sleep(FOLLOW_INTERVAL_S)


def _groups(client: Any, output: Format) -> None:
    groups = [found for page in client.get_paginator("describe_log_groups").paginate() for found in page["logGroups"]]
    if output is Format.json:
        show.as_json(groups)
        return
    show.table(
        ("LOG GROUP", "STORED"),
        ((found["logGroupName"], show.size(found.get("storedBytes", 0))) for found in groups),
        empty="No log groups yet.",
    )


def _events(client: Any, group: str, start_ms: int, pattern: str, limit: int) -> list[dict[str, Any]]:
    request = {"logGroupName": group, "startTime": start_ms}
    if pattern:
        request["filterPattern"] = pattern
    pages = client.get_paginator("filter_log_events").paginate(**request, PaginationConfig={"MaxItems": limit})
    return [event for page in pages for event in page["events"]]
