"""The command tree and the mapping from errors to messages and exit codes."""

import typer

from entrepot import __version__
from entrepot.cli import console_users, executions, expectations, files, logs, status, storage, up
from entrepot.cli.client import NotFoundError, UnreachableError
from entrepot.cli.scaffold import init
from entrepot.errors import EntrepotError
from entrepot.settings import SettingsError

EXIT_FAILED = 1
EXIT_INVALID_STACK = 3
EXIT_UNREACHABLE = 4
EXIT_NOT_FOUND = 5

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A managed file transfer pipeline: SFTP in, events, workflows, functions, delivery.",
)


def _version(show: bool) -> None:
    if show:
        typer.echo(f"entrepot {__version__}")
        raise typer.Exit


@app.callback()
def root(version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print it.")) -> None:
    """A managed file transfer pipeline: SFTP in, events, workflows, functions, delivery."""


app.command()(init)
app.command()(up.check)
app.command()(up.up)
app.command()(status.env)
app.command()(status.status)
app.command(name="files")(files.list_files)
app.command(name="file")(files.show_file)
app.command()(files.redrive)
app.command(name="executions")(executions.list_executions)
app.command(name="execution")(executions.show_execution)
app.command(name="expectations")(expectations.list_expectations)
app.command(name="expectation")(expectations.show_expectation)
app.command()(logs.logs)
app.command()(status.users)
app.command()(status.sessions)
app.add_typer(console_users.app, name="console-user")
app.command()(storage.backup)
app.command()(storage.scrub)


def exit_code_of(error: Exception) -> tuple[int, str | None]:
    """Return the exit code and the message for an error; the message is None for a programming error."""
    match error:
        case SettingsError():
            return EXIT_INVALID_STACK, str(error)
        case UnreachableError():
            return EXIT_UNREACHABLE, str(error)
        case NotFoundError():
            return EXIT_NOT_FOUND, str(error)
        case EntrepotError():
            return EXIT_FAILED, str(error)
    return EXIT_FAILED, None
