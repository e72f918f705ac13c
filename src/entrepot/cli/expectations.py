"""`entrepot expectations` and `expectation`: what should arrive until when, and what came of it."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from entrepot.cli import show
from entrepot.cli.client import HERE, StackOption, connected
from entrepot.cli.show import Format, FormatOption
from entrepot.loglines import printable

OUTCOME_SIGNS: Mapping[str, str] = {"arrived": "✓", "late": "◷", "missing": "✗", "too-small": "✗", "duplicate": "!"}


def list_expectations(stack: StackOption = HERE, output: FormatOption = Format.table) -> None:
    """List what should arrive until when, with the newest outcome and the next deadline. Times are local."""
    with connected(stack) as connection:
        rows = connection.client("entrepot").list_expectations()["expectations"]
    if output is Format.json:
        show.as_json(rows)
        return
    show.table(
        ("EXPECTATION", "FILES", "CUSTOMER", "BY", "LAST", "OF", "NEXT DEADLINE"),
        (
            (
                row["name"],
                row["key_pattern"],
                row["customer_id"] or "any",
                f"{row['by']} {row['time_zone']}",
                _sign(row.get("last_outcome", {}).get("outcome", "")),
                row.get("last_outcome", {}).get("window", ""),
                show.when(row.get("next_deadline")),
            )
            for row in rows
        ),
        empty="Nothing is expected. [expectations.NAME] in stack.toml says what should arrive until when.",
    )


def show_expectation(
    name: Annotated[str, typer.Argument(help="The expectation's name.")],
    stack: StackOption = HERE,
    limit: Annotated[int, typer.Option(min=1, max=400, help="At most this many windows, newest first.")] = 30,
    output: FormatOption = Format.table,
) -> None:
    """Show an expectation and what came of its newest windows. Times are local."""
    with connected(stack) as connection:
        answer = connection.client("entrepot").get_expectation(name=name, limit=limit)
    one = answer["expectation"]
    if output is Format.json:
        show.as_json({**one, "outcomes": answer["outcomes"]})
        return
    typer.echo(f"{printable(one['name'])}  {printable(one['key_pattern'])}")
    facts = {
        "by": f"{one['by']} {one['time_zone']}, {' '.join(one['days'])}",
        "customer": one["customer_id"] or "any",
        "size": f"at least {one['minimum_size_bytes']} bytes, at most {one['maximum_files']} files",
        "next": show.when(one.get("next_deadline")),
    }
    for fact, value in facts.items():
        typer.echo(f"  {fact:<10} {printable(value)}")
    typer.echo("")
    show.table(
        ("WINDOW", "OUTCOME", "FILES", "TOO SMALL", "ARRIVED", "SIZE", "KEY"),
        (_row(outcome) for outcome in answer["outcomes"]),
        empty="No window has ended yet.",
    )


def _row(outcome: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        outcome["window"],
        _sign(outcome["outcome"]),
        str(outcome["files"]),
        str(outcome["small_files"]),
        show.when(outcome.get("arrived")),
        show.size(outcome["size_bytes"]) if "size_bytes" in outcome else "",
        outcome.get("key", ""),
    )


def _sign(outcome: str) -> str:
    return f"{OUTCOME_SIGNS.get(outcome, '•')} {outcome}" if outcome else "•"
