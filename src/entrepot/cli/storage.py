"""`entrepot backup` and `entrepot scrub`: work on the stack's storage, also while the server runs."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from entrepot import settings
from entrepot.cli import show
from entrepot.cli.client import HERE, StackOption
from entrepot.cli.show import Format, FormatOption
from entrepot.errors import EntrepotError
from entrepot.settings import StackFolder


def backup(
    target: Annotated[Path, typer.Argument(metavar="FILE", help="The new file; it must not exist.")],
    stack: StackOption = HERE,
    output: FormatOption = Format.table,
) -> None:
    """Write a consistent copy of the ledger. Content that is not in the ledger is in data/content: copy it afterwards."""
    from entrepot import server

    place = StackFolder(stack)
    os.umask(0o077)  # Whoever may not read the ledger may not read its copy.
    server.backup(place, settings.load(place), target)
    size_bytes = target.stat().st_size
    if output is Format.json:
        show.as_json({"file": str(target), "size_bytes": size_bytes})
    else:
        typer.echo(f"Wrote {target} ({show.size(size_bytes)}).")


def scrub(stack: StackOption = HERE, output: FormatOption = Format.table) -> None:
    """Read all content again and compare it with its recorded checksum."""
    from entrepot import server

    place = StackFolder(stack)
    report = server.scrub(place, settings.load(place), progress=_progress)
    if output is Format.json:
        damaged = [{"bucket": d.bucket, "key": d.key, "reason": d.reason} for d in report.damaged]
        show.as_json({"checked": report.checked, "damaged": damaged})
    if report.damaged:
        raise EntrepotError(
            f"{len(report.damaged)} of {report.checked} objects are damaged:\n"
            + "\n".join(f"  s3://{d.bucket}/{d.key}: {d.reason}" for d in report.damaged)
            + "\nRestore their content from a backup, or ask the sender for the file again."
        )
    if output is Format.table:
        typer.echo(f"{report.checked} objects checked, all as recorded.")


def _progress(checked: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{checked} of {total}", end="" if checked < total else "\n", file=sys.stderr, flush=True)
