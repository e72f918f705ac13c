"""`entrepot up` runs a stack in the foreground; `entrepot check` validates it without starting."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from entrepot import settings
from entrepot.cli import show
from entrepot.cli.client import HERE, StackOption
from entrepot.cli.show import Format, FormatOption
from entrepot.settings import StackFolder

PortOption = Annotated[int | None, typer.Option(min=0, max=65535, help="0 = any free port.")]


def up(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The stack's folder.")] = HERE,
    sftp_port: PortOption = None,
    api_port: PortOption = None,
    console_port: PortOption = None,
) -> None:
    """Run the stack in the foreground until SIGTERM or Ctrl-C; print one line when it serves."""
    ports = {"sftp_port": sftp_port, "api_port": api_port, "console_port": console_port}
    chosen = json.dumps({name: port for name, port in ports.items() if port is not None})
    # The same process goes on as the server, without what only commands need: that saves memory for as long as it serves.
    os.execv(sys.executable, [sys.executable, "-m", "entrepot.serve", str(folder), chosen])  # noqa: S606 - our own module


def check(stack: StackOption = HERE, output: FormatOption = Format.table) -> None:
    """Validate stack.toml and every pattern, definition, policy and key, without starting anything."""
    from entrepot import server

    place = StackFolder(stack)
    loaded = settings.load(place)
    missing = server.check(place, loaded)
    counts = {
        "bucket": len(loaded.buckets),
        "user": len(loaded.users),
        "rule": len(loaded.rules),
        "state machine": len(loaded.state_machines),
        "function": len(loaded.functions),
    }
    if output is Format.json:
        numbers = {f"{name.replace(' ', '_')}s": n for name, n in counts.items()}
        show.as_json({"valid": True, "missing_isolation": missing, **numbers})
        return
    typer.echo("The stack is valid: " + ", ".join(f"{n} {name}{'' if n == 1 else 's'}" for name, n in counts.items()))
    for gap in missing:
        typer.echo(f"Functions are isolated less than they could be: {gap}")
