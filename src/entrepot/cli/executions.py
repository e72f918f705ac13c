"""`entrepot executions` and `entrepot execution`: what the state machines did, state by state."""

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from entrepot.cli import show
from entrepot.cli.client import HERE, Connection, StackOption, connected
from entrepot.cli.show import Format, FormatOption
from entrepot.loglines import printable

EVENT_PAGE = 1000

DETAIL_CHARACTERS = 200
"""The table shows so much of an input or output; -o json has the whole."""


def list_executions(
    stack: StackOption = HERE,
    status: Annotated[str | None, typer.Option(help="RUNNING, SUCCEEDED, FAILED, TIMED_OUT or ABORTED.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most this many, newest first.")] = 20,
    output: FormatOption = Format.table,
) -> None:
    """List the executions of all state machines, newest first."""
    with connected(stack) as connection:
        rows = sorted(_executions(connection, status, limit), key=lambda row: row["startDate"], reverse=True)[:limit]
    if output is Format.json:
        show.as_json(rows)
        return
    show.table(
        ("STARTED", "STATUS", "TOOK", "STATE MACHINE", "EXECUTION ARN"),
        (
            (
                show.when(row["startDate"]),
                show.status(row["status"]),
                _took(row),
                row["stateMachineArn"].rpartition(":")[2],
                row["executionArn"],
            )
            for row in rows
        ),
        empty="No executions yet.",
    )


def _executions(connection: Connection, status: str | None, limit: int) -> Iterator[dict[str, Any]]:
    client = connection.client("stepfunctions")
    wanted = {"statusFilter": status} if status else {}
    for page in client.get_paginator("list_state_machines").paginate():
        for machine in page["stateMachines"]:
            pages = client.get_paginator("list_executions").paginate(
                stateMachineArn=machine["stateMachineArn"],
                PaginationConfig={"MaxItems": limit, "PageSize": min(limit, 1000)},
                **wanted,
            )
            for found in pages:
                yield from found["executions"]


def _took(row: Mapping[str, Any]) -> str:
    if row.get("stopDate") is None:
        return ""
    seconds = (row["stopDate"] - row["startDate"]).total_seconds()
    return f"{seconds * 1000:.0f} ms" if seconds < 10 else f"{seconds:.0f} s"


def show_execution(
    arn: Annotated[str, typer.Argument(metavar="ARN", help="The execution's ARN.")],
    stack: StackOption = HERE,
    output: FormatOption = Format.table,
) -> None:
    """Show one execution: its states with times, inputs and errors."""
    with connected(stack) as connection:
        client = connection.client("stepfunctions")
        execution = client.describe_execution(executionArn=arn)
        execution.pop("ResponseMetadata", None)
        pages = client.get_paginator("get_execution_history").paginate(
            executionArn=arn, PaginationConfig={"PageSize": EVENT_PAGE}
        )
        events = [event for page in pages for event in page["events"]]
    if output is Format.json:
        show.as_json({**execution, "events": events})
        return
    typer.echo(f"{show.status(execution['status'])}  {execution['executionArn']}")
    typer.echo(f"started {show.when(execution['startDate'])}  took {_took(execution) or 'not ended'}")
    typer.echo(f"input   {printable(execution.get('input', ''))}")
    if execution.get("output") is not None:
        typer.echo(f"output  {printable(execution['output'])}")
    if execution.get("error") or execution.get("cause"):
        typer.echo(f"error   {printable(execution.get('error', ''))}: {printable(execution.get('cause', ''))}")
    typer.echo("")
    start = execution["startDate"]
    show.table(
        ("EVENT", "AT", "TYPE", "STATE", "DETAIL"),
        (
            (
                str(event["id"]),
                f"+{(event['timestamp'] - start).total_seconds() * 1000:.0f} ms",
                event["type"],
                _details(event).get("name", ""),
                show.short(_detail(event), DETAIL_CHARACTERS),
            )
            for event in events
        ),
        empty="No history.",
    )


def _details(event: Mapping[str, Any]) -> dict[str, Any]:
    return next((value for key, value in event.items() if key.endswith("EventDetails")), {})


def _detail(event: Mapping[str, Any]) -> str:
    details = _details(event)
    if "error" in details or "cause" in details:
        return f"{details.get('error', '')}: {details.get('cause', '')}"
    for member in ("input", "parameters", "output", "resource"):
        if member in details:
            value = details[member]
            return value if isinstance(value, str) else json.dumps(value, default=str)
    return ""
