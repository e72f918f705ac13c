"""A stack whose console asks for a login, and a browser without a screen for it (httpx)."""

import json
import re
from pathlib import Path
from typing import Any

import httpx

from tests.running import Stack

PASSWORD = "correct horse battery"
_TOKEN = re.compile(r'name="csrf_token" value="([^"]+)"')


def console_stack(folder: Path, *, login: str = "always", more: str = "", section: str = "") -> Stack:
    """Return a stack, not yet started, whose console asks for a login; `section` goes into [console], `more` below all."""
    stack = Stack(folder)
    path = folder / "stack.toml"
    text = path.read_text()
    assert "[console]" not in text
    path.write_text(f'{text}\n[console]\nlogin = "{login}"\n{section}\n{more}\n')
    return stack


def console_url(stack: Stack) -> str:
    """Return the console's address."""
    run: dict[str, Any] = json.loads((stack.folder / "data" / "run.json").read_text())
    return str(run["console"])


def add_user(stack: Stack, name: str, password: str = PASSWORD, *options: str) -> str:
    """Create a user of the console with the CLI, the password on stdin; return what it printed."""
    return stack.entrepot("console-user", "add", name, *options, stdin=password + "\n")


class Visit:
    """A visitor's browser: cookies, forms, no redirects of its own."""

    def __init__(self, stack: Stack) -> None:
        self.http = httpx.Client(base_url=console_url(stack), timeout=30)

    def __enter__(self) -> "Visit":
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def get(self, path: str, **more: Any) -> httpx.Response:
        """Ask for a page."""
        return self.http.get(path, **more)

    def token(self, path: str = "/files") -> str:
        """Return the token that forms on a page carry."""
        found = _TOKEN.findall(self.get(path).text)
        assert found, f"{path} has no form"
        return str(found[-1])

    def post(self, path: str, fields: dict[str, str], *, page: str = "/files") -> httpx.Response:
        """Send a form with the token of a page."""
        return self.http.post(path, data={"csrf_token": self.token(page), **fields})

    def login(self, name: str, password: str = PASSWORD, **fields: str) -> httpx.Response:
        """Send the login form."""
        return self.post("/login", {"name": name, "password": password, **fields}, page="/login")
