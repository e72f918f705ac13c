"""`entrepot console-user`: who may log in to the console with a password. Passwords come from a prompt or stdin, never argv."""

import sys
from typing import Annotated

import typer

from entrepot.cli import show
from entrepot.cli.client import HERE, StackOption, connected
from entrepot.cli.show import Format, FormatOption
from entrepot.errors import EntrepotError

PASSWORD_LIMIT_BYTES = 4_096
"""What is read from stdin, at most."""

app = typer.Typer(no_args_is_help=True, help="Who may log in to the console with a password.")

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The user's name.")]
TotpOption = Annotated[
    bool | None,
    typer.Option("--totp/--no-totp", help="Ask for one-time codes, under a new secret; or no longer ask for them."),
]


@app.command("add")
def add(name: NameArgument, totp: TotpOption = None, stack: StackOption = HERE) -> None:
    """Create a user, or change a password: asked for at a terminal, else the first line of stdin. Sessions of the user end."""
    password = _password(name)
    request = {"name": name, "password": password} | ({} if totp is None else {"totp": totp})
    with connected(stack) as connection:
        answer = connection.client("entrepot").put_console_user(**request)
    typer.echo(f"{name} may log in to the console.")
    if "totp_uri" in answer:
        typer.echo("Give this to an authenticator; it is shown once:")
        typer.echo(answer["totp_uri"])


@app.command("list")
def list_users(stack: StackOption = HERE, output: FormatOption = Format.table) -> None:
    """List the users."""
    with connected(stack) as connection:
        rows = connection.client("entrepot").list_console_users()["users"]
    if output is Format.json:
        show.as_json(rows)
        return
    show.table(
        ("USER", "ONE-TIME CODE", "CREATED"),
        ((row["name"], "yes" if row["totp"] else "no", show.when(row["created_at"])) for row in rows),
        empty="Nobody may log in with a password.",
    )


@app.command("remove")
def remove(name: NameArgument, stack: StackOption = HERE) -> None:
    """Delete a user; their sessions end."""
    with connected(stack) as connection:
        connection.client("entrepot").delete_console_user(name=name)
    typer.echo(f"{name} may no longer log in to the console.")


def _password(name: str) -> str:
    """Return the password; raise EntrepotError when there is none."""
    if sys.stdin.isatty():
        password: str = typer.prompt(f"Password of {name}", hide_input=True, confirmation_prompt=True)
    else:
        password = sys.stdin.readline(PASSWORD_LIMIT_BYTES).rstrip("\r\n")
    if not password:
        raise EntrepotError("There is no password: type one, or write it to stdin.")
    return password
