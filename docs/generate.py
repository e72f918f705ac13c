"""Writes the reference pages from the code: settings, commands, operations. A test compares the pages with the code.

python docs/generate.py
"""

import dataclasses
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import msgspec
import typer.main

from entrepot import settings
from entrepot.sftp import SFTPSettings

DOCS = Path(__file__).parent
HEADER = "<!-- Written by docs/generate.py from the code; edit there. -->\n\n"


def pages() -> dict[str, str]:
    """Return the text of every generated page by its file name."""
    return {
        "settings.md": settings_page(),
        "commands.md": commands_page(),
        "operations.md": operations_page(),
        "metrics.md": metrics_page(),
    }


# ── settings ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def settings_page() -> str:
    lines = [
        HEADER + "# Settings",
        "",
        "All of `stack.toml`. Scalars of `[stack]`, `[server]`, `[storage]` and `[sftp]` can be overridden by variables such as",
        "`ENTREPOT_SERVER_API_PORT`. An unknown key is an error that names its line.",
        "",
    ]
    for name, shape in get_type_hints(settings.Settings, include_extras=True).items():
        if name == "sftp":
            lines += _sftp_section()
            continue
        entry = get_args(shape)[1] if get_origin(shape) is dict else shape
        lines += _struct_section(f"[{name}.NAME]" if get_origin(shape) is dict else f"[{name}]", entry)
        for field in msgspec.structs.fields(entry):
            inner = next((a for a in get_args(field.type) if _is_struct(a)), None)
            if inner is not None:
                lines += _struct_section(f"[[{name}.NAME.{field.name}]]", inner)
    return "\n".join(lines).rstrip() + "\n"


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _struct_section(title: str, struct: Any) -> list[str]:
    lines = [f"## `{title}`", "", _sentence(struct.__doc__), "", "| key | type | default |", "| --- | --- | --- |"]
    for field in msgspec.structs.fields(struct):
        default = "required" if field.required else f"`{_default(field)}`"
        lines.append(f"| `{field.encode_name}` | {_type(field.type)} | {default} |")
    return [*lines, ""]


def _default(field: Any) -> str:
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    return {None: "none", True: "true", False: "false"}.get(value, repr(value)) if not isinstance(value, dict) else "{}"


def _sentence(text: str | None) -> str:
    cleaned = re.sub(r"\s+", " ", text or "").strip()
    text = re.sub(r"^`\[{1,2}[^`]*`:?\s*", "", cleaned)
    return text[:1].upper() + text[1:]


def _type(kind: Any) -> str:
    constraints = []
    if hasattr(kind, "__metadata__"):
        for meta in kind.__metadata__:
            if meta.ge is not None or meta.le is not None:
                low, high = ("" if v is None else f"{v:,}" for v in (meta.ge, meta.le))
                constraints.append(f"{low} to {high}" if high else f"at least {low}")
            if meta.pattern:
                constraints.append(f"`{meta.pattern}`".replace("|", "\\|"))
        kind = kind.__origin__
    name = {int: "integer", str: "string", bool: "boolean"}.get(kind) or str(kind)
    if get_origin(kind) is not None:
        arguments = [_type(a) for a in get_args(kind) if a not in (type(None), Ellipsis)]
        origin = get_origin(kind)
        name = "list of " + arguments[0] if origin is tuple else "table" if origin is dict else " or ".join(arguments)
    elif _is_struct(kind):
        name = "tables"
    return ", ".join([name, *constraints])


def _sftp_section() -> list[str]:
    lines = ["## `[sftp]`", "", "The limits of the SFTP server.", "", "| key | default | what |", "| --- | --- | --- |"]
    comments = attribute_docs(SFTPSettings)
    for field in dataclasses.fields(SFTPSettings):
        if field.name in ("host", "port"):
            continue
        value = field.default
        assert value is not dataclasses.MISSING, f"{field.name} has no default to show"
        shown = {True: "true", False: "false"}.get(value, value) if isinstance(value, bool) else value
        lines.append(f"| `{field.name}` | `{shown}` | {comments.get(field.name, '')} |")
    return [*lines, ""]


def attribute_docs(cls: type) -> dict[str, str]:
    """Return the docstrings below the attributes of a class; attributes in a row share the one below them."""
    import ast

    body = ast.parse(inspect.getsource(cls)).body[0]
    assert isinstance(body, ast.ClassDef)
    found: dict[str, str] = {}
    waiting: list[str] = []
    for node in body.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            waiting.append(node.target.id)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            text = _sentence(node.value.value).replace("|", "\\|")
            found.update(dict.fromkeys(waiting, text))
            waiting = []
    return found


# ── commands ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def commands_page() -> str:
    from entrepot.cli.app import app

    lines = [
        HEADER + "# Commands",
        "",
        "`init`, `check`, `up`, `backup` and `scrub` work on the stack's folder; all others talk to the running server's public",
        "API, with the operator's key in `keys/operator.json`. Exit codes:",
        "",
        "| code | meaning |",
        "| --- | --- |",
        "| 0 | done |",
        "| 1 | the request failed, or part of it |",
        "| 2 | wrong usage |",
        "| 3 | the stack is invalid |",
        "| 4 | the server cannot be reached |",
        "| 5 | no such thing |",
        "| 130 | interrupted |",
        "",
    ]
    group = typer.main.get_command(app)
    for name, command in _commands(group, ""):
        lines += [f"## `entrepot {name}`", "", _sentence(command.help), ""]
        rows = [row for parameter in command.params if (row := _parameter(parameter))]
        if rows:
            lines += ["| option | what | default |", "| --- | --- | --- |", *rows, ""]
    return "\n".join(lines).rstrip() + "\n"


def _commands(group: Any, above: str) -> Iterator[tuple[str, Any]]:
    """Yield every command with its whole name, those of groups below their group."""
    for name, command in sorted(group.commands.items()):
        yield f"{above}{name}", command
        if hasattr(command, "commands"):
            yield from _commands(command, f"{above}{name} ")


def _parameter(parameter: Any) -> str | None:
    if parameter.name == "help":
        return None
    named = parameter.param_type_name == "argument"
    shown = (parameter.metavar or parameter.name.upper()) if named else ", ".join(parameter.opts)
    default = "" if parameter.default in (None, False) or callable(parameter.default) else f"`{parameter.default}`"
    default = "`.`" if default == "`.`" else default
    text = (parameter.help or "").replace("|", "\\|")
    return f"| `{shown}` | {text} | {default} |".replace("`[ID]...`", "`ID…`")


# ── operations ───────────────────────────────────────────────────────────────────────────────────────────────────────


def operations_page() -> str:
    lines = [
        HEADER + "# Operations",
        "",
        "What the endpoint serves, by service. Every call is signed (SigV4) and authorised. Anything else is answered with AWS's",
        "error for what is not implemented, naming the operation. The same operations are tasks of state machines",
        "(`arn:aws:states:::aws-sdk:SERVICE:operation`).",
        "",
    ]
    for service, names in sorted(served().items()):
        lines += [f"## {service}", "", ", ".join(f"`{name}`" for name in sorted(names)), ""]
    return "\n".join(lines).rstrip() + "\n"


def served() -> dict[str, list[str]]:
    """Return the names of the operations by service, from the composition of a scratch stack."""
    import asyncio
    import tempfile

    from entrepot import access, status
    from entrepot.cli.scaffold import scaffold
    from entrepot.composition import Composition
    from entrepot.settings import StackFolder, load

    async def names(folder: Path) -> list[tuple[str, str]]:
        place = StackFolder(folder)
        loaded = load(place, {})
        (folder / "data").mkdir(exist_ok=True)
        rooms = Composition(place, loaded, folder / "data")
        own = [*status.operations(rooms, lambda: status.Addresses("", ""), 0), *access.operations(rooms)]
        try:
            return [*rooms.operations.names(), *(("entrepot", operation.name) for operation in own)]
        finally:
            await rooms.close()

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "stack"
        scaffold(folder)
        found = asyncio.run(names(folder))
    by_service: dict[str, list[str]] = {}
    for service, name in found:
        by_service.setdefault(service, []).append(name)
    return by_service


# ── metrics ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def metrics_page() -> str:
    from entrepot.telemetry import Telemetry
    from entrepot.telemetry.catalogue import CATALOGUE

    lines = [
        HEADER + "# Metrics",
        "",
        "What is measured without anybody's asking: for CloudWatch's tools (`ListMetrics`, `GetMetricData`, alarms, dashboards,",
        "Grafana) and for Prometheus. Whatever else there is to count is recorded with PutMetricData, or by a log group's metric",
        "filter.",
        "",
        "## CloudWatch",
        "",
        "AWS's own metrics have AWS's names and units. Those of the namespace `Entrepot` are kept for each ten seconds,",
        "the others for each minute. A metric is recorded once for each set of dimensions; *none* is over all.",
        "",
    ]
    namespace = ""
    for listed in CATALOGUE:
        if listed.namespace != namespace:
            namespace = listed.namespace
            lines += ["", f"### {namespace}", "", "| metric | unit | dimensions | what |", "| --- | --- | --- | --- |"]
        dimensions = "; ".join(", ".join(f"`{name}`" for name in names) or "none" for names in listed.dimensions)
        lines.append(f"| `{listed.name}` | {listed.unit} | {dimensions} | {listed.meaning} |")
    lines += [
        "",
        "## Prometheus",
        "",
        "At `/metrics` of the console's listener. Labels are names that the operator gives; of each at most 1,000.",
    ]
    lines += ["", "| metric | type | labels | what |", "| --- | --- | --- | --- |"]
    scratch: Any = None
    registry = Telemetry(scratch, "").registry
    for metric in sorted(registry._collector_to_names, key=lambda one: str(one._name)):  # type: ignore[attr-defined]
        made: Any = metric
        name = made._name + ("_total" if made._type == "counter" else "")
        labels = ", ".join(f"`{label}`" for label in made._labelnames) or "none"
        lines.append(f"| `{name}` | {made._type} | {labels} | {made._documentation} |")
    return "\n".join(lines).replace("\n\n\n", "\n\n").rstrip() + "\n"


def changed() -> Iterator[str]:
    """Yield the names of pages that are not what the code says."""
    for name, text in pages().items():
        path = DOCS / name
        if not path.exists() or path.read_text() != text:
            yield name


if __name__ == "__main__":
    for page, text in pages().items():
        (DOCS / page).write_text(text)
        print(f"wrote {page}", file=sys.stderr)
