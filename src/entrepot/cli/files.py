"""`entrepot files`, `file` and `redrive`: what arrived, what became of it, and another try."""

import re
import sys
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Annotated, Any

import typer

from entrepot.cli import show
from entrepot.cli.client import HERE, Connection, NotFoundError, StackOption, connected
from entrepot.cli.show import Format, FormatOption
from entrepot.errors import EntrepotError
from entrepot.loglines import printable

PAGE = 1000
STATES_LOG_GROUPS = "/aws/vendedlogs/states/"
"""Log groups that repeat the states of executions."""

STATE_CHARACTERS = 84
"""A timeline shows so much of a state's input or output: one line."""

SHOWN_ID_CHARACTERS = 12
"""Tables show the beginning of a file_id; every command takes it for the whole."""


def list_files(
    stack: StackOption = HERE,
    status: Annotated[str | None, typer.Option(help="uploaded, transferring, transferred or failed.")] = None,
    customer: Annotated[str | None, typer.Option(help="Only files of this customer.")] = None,
    since: Annotated[str | None, typer.Option(help="Only files since: 5m, 2h, 7d, or a time.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="At most this many, newest first.")] = 50,
    output: FormatOption = Format.table,
) -> None:
    """List the files that arrived, newest first, and what became of them."""
    with connected(stack) as connection:
        rows = list(_files(connection, limit, status=status, customer_id=customer, since=show.since(since)))
    if output is Format.json:
        show.as_json(rows)
        return
    show.table(
        ("FILE", "KEY", "CUSTOMER", "SIZE", "STATUS", "UPLOADED", "TRANSFERRED", "ERROR"),
        (
            (
                row["file_id"][:SHOWN_ID_CHARACTERS],
                row["key"],
                row["customer_id"],
                show.size(row["size_bytes"]),
                show.status(row["status"]),
                show.when(row["upload_timestamp"]),
                show.when(row.get("transfer_timestamp")),
                show.short(row.get("error_message") or "", 200),
            )
            for row in rows
        ),
        empty="No files yet.",
    )


def _files(connection: Connection, limit: int, **filters: Any) -> Iterator[dict[str, Any]]:
    client = connection.client("entrepot")
    wanted = {name: value for name, value in filters.items() if value is not None}
    while limit > 0:
        page = client.list_files(limit=min(limit, PAGE), **wanted)
        yield from page["files"]
        limit -= len(page["files"])
        if not page.get("next_token"):
            return
        wanted["next_token"] = page["next_token"]


def show_file(
    file: Annotated[str, typer.Argument(metavar="ID|KEY", help="A file_id, its beginning, or a key (the newest).")],
    stack: StackOption = HERE,
    all_: Annotated[bool, typer.Option("--all", help="Nothing shortened; also the state machines' log lines.")] = False,
    output: FormatOption = Format.table,
) -> None:
    """Explain one file: who sent it, what happened to it when, and where it went. Times are local."""
    with connected(stack) as connection:
        answer = connection.client("entrepot").get_file(file=file)
    row, timeline = answer["file"], answer["timeline"]
    if output is Format.json:
        show.as_json({**row, "timeline": timeline})
        return
    typer.echo(f"{show.status(row['status'])}  {printable(row['key'])}")
    facts = {
        "file_id": row["file_id"],
        "size": f"{show.size(row['size_bytes'])} ({row['size_bytes']} bytes)",
        "sha256": row["sha256"],
        "from": f"s3://{row['source_bucket']}/{row['key']}",
        "to": f"s3://{row['destination_bucket']}/{row['key']}",
        "customer": row["customer_id"],
        "execution": row.get("execution_arn") or "none",
    }
    if row.get("error_message"):
        facts["error"] = row["error_message"]
    for name, value in facts.items():
        typer.echo(f"  {name:<10} {printable(value)}")
    typer.echo("")
    shown = [entry for entry in timeline if all_ or not entry["title"].startswith(STATES_LOG_GROUPS)]
    show.timeline((datetime.fromisoformat(entry["timestamp"]), entry["title"], _detail(entry, all_)) for entry in shown)
    if len(shown) < len(timeline):
        typer.echo(f"\n{len(timeline) - len(shown)} log lines of state machines repeat this: --all shows them.")


def _detail(entry: Mapping[str, Any], all_: bool) -> str:
    """Return a detail for people: the input of a state is shortened, an execution's long ARN is its name."""
    detail: str = entry.get("detail", "")
    match entry["kind"]:
        case "state" if detail.startswith(("{", "[")) and not all_:
            return show.short(detail, STATE_CHARACTERS)
        case "execution" | "delivery" if not all_:
            return re.sub(r"arn:[\w-]*:states:[^:]*:\d*:\w+:", "", detail)
    return detail


def redrive(
    files: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="The files to deliver again.")] = None,
    stack: StackOption = HERE,
    status: Annotated[str | None, typer.Option(help="All files of this status; only failed is allowed.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done.")] = False,
    output: FormatOption = Format.table,
) -> None:
    """Deliver failed files again, through the rule and with today's definitions."""
    if bool(files) == bool(status):
        raise typer.BadParameter("Name file ids, or --status failed (one of them, not both).")
    if status not in (None, "failed"):
        raise typer.BadParameter("Only --status failed can be redriven.")
    with connected(stack) as connection:
        client = connection.client("entrepot")
        chosen = files or [row["file_id"] for row in _files(connection, 1_000_000, status="failed")]
        results = list(_redriven(client, chosen, dry_run))
    if output is Format.json:
        show.as_json(results)
    else:
        verb = "would be redriven" if dry_run else "redriven"
        for result in results:
            name = printable(f"{result['file_id'][:SHOWN_ID_CHARACTERS]}  {result.get('key', '')}")
            typer.echo(f"✗ {name}: {result['error']}" if result.get("error") else f"✓ {name} {verb}")
        if not results:
            typer.echo("No failed files.")
    if any(result.get("error") for result in results):
        unknown = len(results) == 1 and results[0].get("code") == "ResourceNotFoundException"
        error = NotFoundError if unknown else EntrepotError
        raise error(f"{sum(bool(r.get('error')) for r in results)} of {len(results)} files could not be redriven.")


def _redriven(client: Any, chosen: list[str], dry_run: bool) -> Iterator[dict[str, Any]]:
    for first in range(0, len(chosen), 100):
        if sys.stderr.isatty() and len(chosen) > 100:
            print(f"\r{first} of {len(chosen)}", end="", file=sys.stderr, flush=True)
        yield from client.redrive_files(file_ids=chosen[first : first + 100], dry_run=dry_run)["files"]
