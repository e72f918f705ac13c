"""`entrepot up` runs a stack in the foreground; `entrepot check` validates it without starting."""

import logging
import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from entrepot import settings
from entrepot.cli import show
from entrepot.cli.client import HERE, StackOption
from entrepot.cli.show import Format, FormatOption
from entrepot.settings import StackFolder

PortOption = Annotated[int | None, typer.Option(min=0, max=65535, help="0 = any free port.")]


class OneLine(logging.Formatter):
    """One line a record, and indented ones for an exception: a key or a name from outside must not forge a line."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = show.printable(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:
        return "\n".join(f"  {show.printable(line)}" for line in super().formatException(ei).split("\n"))


def up(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The stack's folder.")] = HERE,
    sftp_port: PortOption = None,
    api_port: PortOption = None,
    console_port: PortOption = None,
) -> None:
    """Run the stack in the foreground until SIGTERM or Ctrl-C; print one line when it serves."""
    from entrepot import server

    stack = StackFolder(folder)
    loaded = settings.load(stack)
    ports = {"sftp_port": sftp_port, "api_port": api_port, "console_port": console_port}
    chosen = {name: port for name, port in ports.items() if port is not None}
    loaded = msgspec.structs.replace(loaded, server=msgspec.structs.replace(loaded.server, **chosen))
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("asyncssh").setLevel(logging.WARNING)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    server.run(stack, loaded, on_ready=lambda addresses: print(addresses.ready_line(), flush=True))


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
