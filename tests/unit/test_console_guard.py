"""The guard around the console's application, without sockets; and logins' arithmetic."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from entrepot.console import visitors
from entrepot.console.guard import HEADERS, Guard, public_names
from entrepot.console.oidc import Attempt, carried
from entrepot.console.pages.login import FAILURES_LIMIT, Failures
from entrepot.database.sqlite import SQLiteDatabase


@pytest.fixture
async def database(tmp_path: Path) -> Any:
    made = SQLiteDatabase(tmp_path / "ledger.db")
    made.migrate(visitors.MIGRATIONS)
    yield made
    await made.close()


async def _broken(request: Request) -> Response:
    raise RuntimeError("nobody expected this: <script>")


def _client(database: SQLiteDatabase, **more: Any) -> httpx.AsyncClient:
    app = Guard(Starlette(routes=[Route("/", _broken)]), database=database, hosts=frozenset(), **more)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")


async def test_answers_to_what_nobody_expected_have_the_headers_and_tell_nothing(database: SQLiteDatabase) -> None:
    async with _client(database, login_required=False) as client:
        answer = await client.get("/")
    assert answer.status_code == 500
    assert "nobody expected" not in answer.text
    for name, value in HEADERS.items():
        assert answer.headers[name] == value


async def test_sessions_end_when_idle_and_when_old(database: SQLiteDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    now_ms = 1_000_000_000_000
    monkeypatch.setattr("entrepot.clock.now_ms", lambda: now_ms)
    token = await database.write(lambda tx: visitors.open_session(tx, "ada"))

    async def is_open() -> bool:
        return await database.read(lambda reader: visitors.find_session(reader, token)) is not None

    assert await is_open()
    now_ms += visitors.SESSION_IDLE_MS
    assert await is_open()
    now_ms += 1
    assert not await is_open()
    now_ms = 1_000_000_000_000
    while now_ms <= 1_000_000_000_000 + visitors.SESSION_LIMIT_MS:
        assert await is_open()
        await database.write(lambda tx: visitors.touch_session(tx, token))
        now_ms += visitors.SESSION_IDLE_MS
    assert not await is_open()


def test_one_time_codes_are_those_of_the_rfc() -> None:
    # RFC 6238, appendix B, with SHA-1; the last six of its eight digits.
    secret = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
    for at_s, code in (
        (59, "287082"),
        (1_111_111_109, "081804"),
        (1_234_567_890, "005924"),
        (20_000_000_000, "353130"),
    ):
        assert visitors.totp_step(secret, code, at_s) == at_s // 30
        assert visitors.totp_step(secret, code, at_s + 90) is None
    assert visitors.totp_step(secret, "２８７０８２", 59) is None
    assert visitors.totp_step(secret, "", 59) is None


def test_addresses_wait_longer_every_time_and_networks_together(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0
    monkeypatch.setattr("entrepot.clock.monotonic_s", lambda: now_s)
    failures = Failures()
    for _ in range(FAILURES_LIMIT):
        assert not failures.waits("2001:db8::1")
        failures.count("2001:db8::1")
    assert failures.waits("2001:db8::ffff")
    assert not failures.waits("2001:db8:1::1")
    waits = []
    for _ in range(10):
        began_s = now_s
        while failures.waits("2001:db8::1"):
            now_s += 30
        waits.append(now_s - began_s)
        failures.count("2001:db8::1")
    assert waits[:3] == [60, 120, 240]
    assert waits[-1] == 3_600
    failures.forget("2001:db8::2")
    assert not failures.waits("2001:db8::1")


def test_attempts_survive_the_cookie() -> None:
    attempt = Attempt.begin('/files?key=a.b&x="; path=/')
    assert carried(attempt.as_cookie()) == attempt
    for text in ("", "a", "a.b.c", "..." + "x", ".b.c.d", "x" * 5_000):
        assert carried(text) is None


def test_names_of_public_addresses() -> None:
    assert public_names("https://Files.example.com:8443") == {"files.example.com"}
    assert public_names("") == frozenset()
