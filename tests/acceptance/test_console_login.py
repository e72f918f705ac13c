"""Logins to the console: users by the CLI, passwords, one-time codes, sessions, waits, and metrics."""

import base64
import hmac
import re
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.acceptance.console_logins import PASSWORD, Visit, add_user, console_stack
from tests.running import Stack

SESSION = "entrepot_console"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with console_stack(tmp_path_factory.mktemp("console") / "site") as made:
        add_user(made, "ada")
        yield made


def _code(uri: str) -> str:
    """Return the one-time code for an otpauth:// address, computed here (RFC 6238)."""
    secret = parse_qs(urlsplit(uri).query)["secret"][0]
    digest = hmac.digest(base64.b32decode(secret), struct.pack(">Q", int(time.time()) // 30), "sha1")
    start = digest[19] & 15
    return f"{(struct.unpack('>I', digest[start : start + 4])[0] & 0x7FFFFFFF) % 1_000_000:06d}"


def test_login_opens_the_console(stack: Stack) -> None:
    with Visit(stack) as visit:
        first = visit.get("/files?status=failed")
        assert first.status_code == 303
        assert first.headers["location"] == "/login?to=%2Ffiles%3Fstatus%3Dfailed"
        answer = visit.login("ada", to="/files?status=failed")
        assert answer.status_code == 303
        assert answer.headers["location"] == "/files?status=failed"
        cookie = next(text for text in answer.headers.get_list("set-cookie") if text.startswith(f"{SESSION}="))
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert visit.get("/files").status_code == 200


def test_session_token_is_new_at_login_and_void_after_logout(stack: Stack) -> None:
    with Visit(stack) as visit:
        visit.http.cookies.set(SESSION, "a-token-that-somebody-planted-here")
        answer = visit.login("ada")
        assert answer.status_code == 303
        assert f"{SESSION}=a-token" not in str(answer.headers.get_list("set-cookie"))
    with Visit(stack) as planted:
        planted.http.cookies.set(SESSION, "a-token-that-somebody-planted-here")
        assert planted.get("/files").status_code == 303
    with Visit(stack) as visit:
        visit.login("ada")
        first = visit.http.cookies[SESSION]
        visit.login("ada")
        second = visit.http.cookies[SESSION]
        assert first != second
        assert visit.post("/logout", {}).status_code == 303
    for token in (first, second):
        with Visit(stack) as again:
            again.http.cookies.set(SESSION, token)
            assert again.get("/files").status_code == 303


def test_a_new_password_and_a_removal_end_sessions(stack: Stack) -> None:
    add_user(stack, "bert")
    with Visit(stack) as visit:
        visit.login("bert")
        assert visit.get("/files").status_code == 200
        add_user(stack, "bert", "another long password")
        assert visit.get("/files").status_code == 303
        assert visit.login("bert").status_code == 401
        assert visit.login("bert", "another long password").status_code == 303
        assert visit.get("/files").status_code == 200
        stack.entrepot("console-user", "remove", "bert")
        assert visit.get("/files").status_code == 303
        assert visit.login("bert", "another long password").status_code == 401


def test_one_time_codes_work_once(stack: Stack) -> None:
    printed = add_user(stack, "cleo", PASSWORD, "--totp")
    found = re.search(r"otpauth://totp/\S+", printed)
    assert found
    with Visit(stack) as visit:
        assert visit.login("cleo").status_code == 401
        assert visit.login("cleo", code="１２３４５６").status_code == 401
        code = _code(found[0])
        assert visit.login("cleo", code=code).status_code == 303
        assert visit.login("cleo", code=code).status_code == 401
    rows = {row["name"]: row["totp"] for row in stack.json("console-user", "list")}
    assert rows["cleo"] is True
    assert rows["ada"] is False


def test_the_cli_takes_no_weak_password_and_none_from_argv(stack: Stack) -> None:
    assert "12 to 256 characters" in _refused(stack, "dora", "short")
    assert "no password" in _refused(stack, "dora", "")
    assert "must have 1 to 64" in _refused(stack, "a/b", PASSWORD)
    assert stack.entrepot("console-user", "add", "dora", PASSWORD, expect=2)


def _refused(stack: Stack, name: str, password: str) -> str:
    return stack.entrepot("console-user", "add", name, expect=1, stdin=password + "\n")


def test_many_wrong_passwords_have_to_wait(tmp_path: Path) -> None:
    with console_stack(tmp_path / "site") as stack:
        add_user(stack, "ada")
        with Visit(stack) as visit:
            answers = [visit.login("ada", "wrong password").status_code for _ in range(11)]
            assert answers == [401] * 10 + [429]
            assert visit.login("ada").status_code == 429


def test_metrics_are_for_loopback_without_a_proxy(stack: Stack) -> None:
    with Visit(stack) as visit:
        assert visit.get("/metrics").status_code == 200
        for name in ("x-forwarded-for", "forwarded", "via", "x-real-ip"):
            answer = visit.get("/metrics", headers={name: "127.0.0.1"})
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"


def test_metrics_with_a_token_and_names_behind_a_proxy(tmp_path: Path) -> None:
    stack = console_stack(
        tmp_path / "site",
        section='public_url = "https://files.example.com"\nmetrics_token_file = "keys/metrics-token"',
    )
    (stack.folder / "keys").mkdir(exist_ok=True)
    (stack.folder / "keys" / "metrics-token").write_text("s3cret-for-metrics\n")
    with stack:
        add_user(stack, "ada")
        with Visit(stack) as visit:
            assert visit.get("/metrics").status_code == 401
            assert visit.get("/metrics", headers={"authorization": "Bearer s3cret"}).status_code == 401
            right = {"authorization": "Bearer s3cret-for-metrics"}
            assert visit.get("/metrics", headers=right).status_code == 200
            assert visit.get("/files", headers=right).status_code == 303
            page = visit.get("/login", headers={"host": "files.example.com"})
            assert page.status_code == 200
            assert "Secure" in page.headers["set-cookie"]
            assert visit.get("/login", headers={"host": "files.example.com.evil.test"}).status_code == 421
