"""Who visits: logins, sessions and what protects them.

On loopback the console asks for no login unless it is told to; anywhere else it does. A session is a random token in a cookie
(HttpOnly, SameSite=Strict); the ledger holds its SHA-256 only. Passwords are kept as scrypt hashes.
"""

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from functools import cache

from entrepot import clock
from entrepot.database import Migration, Reader, Transaction

COOKIE = "entrepot_console"

SESSION_IDLE_MS = 12 * 3_600_000
"""A session ends when it was not used for this long."""

SESSION_LIMIT_MS = 7 * 86_400_000
"""A session ends after this long in any case."""

SESSIONS_KEPT = 1_000

TOUCH_MS = 300_000
"""The use of a session is written down at most this often."""

PASSWORD_LEAST_CHARS = 12
PASSWORD_MOST_CHARS = 256

_N, _R, _P = 2**15, 8, 1
"""scrypt's cost: 32 MiB and about 80 ms."""

TOTP_STEP_S = 30
TOTP_DIGITS = 6

MIGRATIONS = (
    Migration(
        "console",
        1,
        (
            """CREATE TABLE console_user (
                name TEXT PRIMARY KEY,
                password_hash TEXT NOT NULL,
                totp_secret TEXT NOT NULL,
                totp_used_step INTEGER NOT NULL,
                created_at_ms INTEGER NOT NULL
            )""",
            """CREATE TABLE console_session (
                token_hash BLOB PRIMARY KEY,
                user_name TEXT NOT NULL,
                csrf_token TEXT NOT NULL,
                created_at_ms INTEGER NOT NULL,
                used_at_ms INTEGER NOT NULL
            )""",
        ),
    ),
)


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who is looking: a name, and the token that their forms must carry."""

    name: str
    csrf_token: str
    logged_in: bool


# ── passwords and one-time codes ─────────────────────────────────────────────────────────────────────────────────────


def hash_password(password: str) -> str:
    """Return a salted scrypt hash."""
    salt = secrets.token_bytes(16)
    return f"scrypt${base64.b64encode(salt).decode()}${base64.b64encode(_scrypt(password, salt)).decode()}"


def check_password(password: str, hashed: str) -> bool:
    """Whether a password is the one of a hash; takes as long whether or not it is."""
    _, salt, wanted = hashed.split("$")
    given = _scrypt(password[:PASSWORD_MOST_CHARS], base64.b64decode(salt))
    return hmac.compare_digest(given, base64.b64decode(wanted))


def _scrypt(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=_N, r=_R, p=_P, maxmem=64 * 1024 * 1024, dklen=32)


@cache
def nobody() -> str:
    """Return what an unknown user's password is compared with, so that they take as long as a known one."""
    return hash_password(secrets.token_hex())


def totp_step(secret: str, code: str, now_s: int) -> int | None:
    """Return the step at which a one-time code is right (RFC 6238), one step of drift allowed; None when it is wrong."""
    key = base64.b32decode(secret + "=" * (-len(secret) % 8))
    for step in (now_s // TOTP_STEP_S + drift for drift in (0, -1, 1)):
        digest = hmac.digest(key, step.to_bytes(8, "big"), "sha1")
        start = digest[-1] & 15
        number = int.from_bytes(digest[start : start + 4], "big") & 0x7FFFFFFF
        if hmac.compare_digest(f"{number % 10**TOTP_DIGITS:0{TOTP_DIGITS}d}".encode(), code.encode()):
            return step
    return None


# ── users ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def put_user(tx: Transaction, name: str, password_hash: str, totp_secret: str | None = None) -> None:
    """Create a user, or change their password; their sessions end. Without a secret ("" for none), that stays as it is."""
    now_ms = clock.now_ms()
    tx.execute(
        "INSERT INTO console_user (name, password_hash, totp_secret, totp_used_step, created_at_ms) "
        "VALUES (?, ?, ?, 0, ?) ON CONFLICT (name) DO UPDATE SET password_hash = excluded.password_hash",
        (name, password_hash, totp_secret or "", now_ms),
    )
    if totp_secret is not None:
        tx.execute("UPDATE console_user SET totp_secret = ?, totp_used_step = 0 WHERE name = ?", (totp_secret, name))
    tx.execute("DELETE FROM console_session WHERE user_name = ?", (name,))


def count_users(reader: Reader) -> int:
    """Return how many users there are."""
    row = reader.one("SELECT count(*) FROM console_user")
    return 0 if row is None else int(row[0])


def delete_user(tx: Transaction, name: str) -> bool:
    """Delete a user and end their sessions; False when there is neither, as a provider's users have sessions only."""
    ended = tx.execute("DELETE FROM console_session WHERE user_name = ?", (name,))
    return bool(tx.execute("DELETE FROM console_user WHERE name = ?", (name,)) or ended)


def users(reader: Reader) -> list[tuple[str, bool, int]]:
    """Return name, whether a one-time code is asked for, and when they were created."""
    rows = reader.all("SELECT name, totp_secret <> '', created_at_ms FROM console_user ORDER BY name LIMIT 1000")
    return [(row[0], bool(row[1]), row[2]) for row in rows]


def secrets_of(reader: Reader, name: str) -> tuple[str, str] | None:
    """Return a user's password hash and one-time secret."""
    row = reader.one("SELECT password_hash, totp_secret FROM console_user WHERE name = ?", (name,))
    return None if row is None else (row[0], row[1])


def use_totp(tx: Transaction, name: str, step: int) -> bool:
    """Note that a one-time code was used; False when it was used before."""
    return bool(
        tx.execute(
            "UPDATE console_user SET totp_used_step = ? WHERE name = ? AND totp_used_step < ?", (step, name, step)
        )
    )


# ── sessions ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def open_session(tx: Transaction, name: str) -> str:
    """Begin a session; return its token, which is new at every login."""
    token, now_ms = secrets.token_urlsafe(32), clock.now_ms()
    tx.execute("DELETE FROM console_session WHERE created_at_ms < ?", (now_ms - SESSION_LIMIT_MS,))
    tx.execute(
        "DELETE FROM console_session WHERE token_hash IN "
        "(SELECT token_hash FROM console_session ORDER BY used_at_ms DESC LIMIT -1 OFFSET ?)",
        (SESSIONS_KEPT,),
    )
    tx.execute(
        "INSERT INTO console_session (token_hash, user_name, csrf_token, created_at_ms, used_at_ms) VALUES (?, ?, ?, ?, ?)",
        (_hash(token), name, new_token(), now_ms, now_ms),
    )
    return token


def find_session(reader: Reader, token: str) -> tuple[Visitor, int] | None:
    """Return the visitor of a session that has not ended, and when it was last used."""
    row = reader.one(
        "SELECT user_name, csrf_token, created_at_ms, used_at_ms FROM console_session WHERE token_hash = ?",
        (_hash(token),),
    )
    now_ms = clock.now_ms()
    if row is None or row[2] < now_ms - SESSION_LIMIT_MS or row[3] < now_ms - SESSION_IDLE_MS:
        return None
    return Visitor(row[0], row[1], True), row[3]


def touch_session(tx: Transaction, token: str) -> None:
    """Note that a session is in use."""
    tx.execute("UPDATE console_session SET used_at_ms = ? WHERE token_hash = ?", (clock.now_ms(), _hash(token)))


def close_session(tx: Transaction, token: str) -> None:
    """End a session."""
    tx.execute("DELETE FROM console_session WHERE token_hash = ?", (_hash(token),))


def new_token() -> str:
    """Return a token that nobody can guess, for forms."""
    return secrets.token_urlsafe(24)


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
