"""`entrepot backup` and `entrepot scrub`: work on the stack's storage, also while the server runs."""

from pathlib import Path
from typing import Annotated

import typer

from entrepot import settings
from entrepot.cli.client import HERE, StackOption
from entrepot.errors import EntrepotError
from entrepot.settings import StackFolder


def backup(
    target: Annotated[Path, typer.Argument(metavar="FILE", help="The new file; it must not exist.")],
    stack: StackOption = HERE,
) -> None:
    """Write a consistent copy of the ledger. Content that is not in the ledger is in data/content: copy it afterwards."""
    from entrepot import server

    place = StackFolder(stack)
    server.backup(place, settings.load(place), target)
    typer.echo(f"Wrote {target} ({target.stat().st_size} bytes).")


def scrub(stack: StackOption = HERE) -> None:
    """Read all content again and compare it with its recorded checksum."""
    from entrepot import server

    place = StackFolder(stack)
    report = server.scrub(place, settings.load(place), progress=_progress)
    if report.damaged:
        raise EntrepotError(
            f"{len(report.damaged)} of {report.checked} objects are damaged:\n"
            + "\n".join(f"  s3://{d.bucket}/{d.key}: {d.reason}" for d in report.damaged)
            + "\nRestore their content from a backup, or ask the sender for the file again."
        )
    typer.echo(f"{report.checked} objects checked, all as recorded.")


def _progress(checked: int, total: int) -> None:
    import sys

    if sys.stderr.isatty():
        print(f"\r{checked} of {total}", end="" if checked < total else "\n", file=sys.stderr, flush=True)
