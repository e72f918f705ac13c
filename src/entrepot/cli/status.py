"""`entrepot env`, `status`, `users` and `sessions`: how to reach the server, and who is on it."""

import shlex
from typing import Annotated

import typer

from entrepot.cli import show
from entrepot.cli.client import HERE, StackOption, connected
from entrepot.cli.show import Format, FormatOption


def env(stack: StackOption = HERE, output: FormatOption = Format.table) -> None:
    """Print the variables that make AWS's tools talk to this server: eval "$(entrepot env)"."""
    with connected(stack) as connection:
        variables = {
            "AWS_ENDPOINT_URL": connection.endpoint_url,
            "AWS_ACCESS_KEY_ID": connection.key["access_key_id"],
            "AWS_SECRET_ACCESS_KEY": connection.key["secret_access_key"],
            "AWS_REGION": connection.run["region"],
            "AWS_DEFAULT_REGION": connection.run["region"],
        }
    if output is Format.json:
        show.as_json(variables)
        return
    for name, value in variables.items():
        typer.echo(f"export {name}={shlex.quote(value)}")


def status(stack: StackOption = HERE, output: FormatOption = Format.table) -> None:
    """Show whether the server runs, and the counts of files, executions, sessions and waiting deliveries."""
    with connected(stack) as connection:
        answer = connection.client("entrepot").get_status()
    answer.pop("ResponseMetadata", None)
    if output is Format.json:
        show.as_json(answer)
        return
    typer.echo(
        f"{connection.settings.stack.name}: serving since {show.when(answer['started_at'])}, pid {answer['pid']}"
    )
    typer.echo(f"  sftp      {answer['sftp']}")
    typer.echo(f"  api       {answer['api']}")
    files = answer["files"]
    typer.echo("  files     " + "   ".join(f"{show.status(name)} {files.get(name, 0)}" for name in sorted(files)))
    typer.echo(f"  sessions  {answer['sessions']} connected")
    typer.echo(f"  events    {answer['pending_deliveries']} waiting, {answer['dead_letters']} in the dead-letter store")
    functions = answer["functions"]
    typer.echo(
        f"  functions {functions['busy']} of {functions['workers']} workers busy, {functions['waiting']} invocations waiting "
        f"(oldest {functions['oldest_age_ms'] / 1000:.1f} s), {functions['queued']} asynchronous "
        f"(oldest {functions['oldest_queued_age_ms'] / 1000:.0f} s)"
    )
    for gap in functions["missing_isolation"]:
        typer.echo(f"            {gap}")
    typer.echo(f"  logs      {answer['dropped_log_lines']} lines dropped since the start")


def users(stack: StackOption = HERE, output: FormatOption = Format.table) -> None:
    """List the SFTP users with home directory, role and keys."""
    with connected(stack) as connection:
        client = connection.client("transfer")
        server_id = client.list_servers()["Servers"][0]["ServerId"]
        names = [
            user["UserName"]
            for page in client.get_paginator("list_users").paginate(ServerId=server_id)
            for user in page["Users"]
        ]
        rows = [client.describe_user(ServerId=server_id, UserName=name)["User"] for name in names]
    if output is Format.json:
        show.as_json(rows)
        return
    show.table(
        ("USER", "HOME", "ROLE", "KEYS"),
        (
            (
                row["UserName"],
                row.get("HomeDirectory")
                or ", ".join(f"{m['Entry']} → {m['Target']}" for m in row.get("HomeDirectoryMappings", [])),
                row.get("Role", "").rpartition("/")[2],
                str(len(row.get("SshPublicKeys", []))),
            )
            for row in rows
        ),
        empty="No users. Add [users.NAME] to stack.toml and restart.",
    )


def sessions(
    stack: StackOption = HERE,
    all_: Annotated[bool, typer.Option("--all", help="Ended ones too.")] = False,
    output: FormatOption = Format.table,
) -> None:
    """List the SFTP sessions: who is connected, from where, since when."""
    with connected(stack) as connection:
        rows = connection.client("entrepot").list_sessions(live=not all_)["sessions"]
    if output is Format.json:
        show.as_json(rows)
        return
    show.table(
        ("USER", "FROM", "SINCE", "UNTIL", "IN", "OUT", "CLIENT", "SESSION"),
        (
            (
                row["user_name"],
                row["source_ip"],
                show.when(row["login_at"]),
                show.when(row.get("closed_at")),
                show.size(row["bytes_in"]),
                show.size(row["bytes_out"]),
                row["client_version"],
                row["session_id"],
            )
            for row in rows
        ),
        empty="Nobody is connected." if not all_ else "No sessions yet.",
    )
