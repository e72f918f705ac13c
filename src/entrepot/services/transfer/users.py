"""Users as AWS Transfer has them, and their rows.

Source: https://docs.aws.amazon.com/transfer/latest/APIReference/API_CreateUser.html
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias, cast

from entrepot import clock, ids
from entrepot.database import Reader, Row, Transaction
from entrepot.services.transfer.errors import InvalidRequestError, ResourceExistsError, ResourceNotFoundError
from entrepot.services.transfer.public_keys import PublicKey, parse_public_key

USER_NAME: Final = re.compile(r"\w[\w@.-]{2,99}", re.ASCII)
ROLE_ARN: Final = re.compile(r"arn:[a-z-]+:iam::[0-9]{12}:role/\S{1,512}")
PATH_LIMIT_CHARACTERS: Final = 1024
MAPPINGS_LIMIT: Final = 1000
"""Most mappings of a user. (AWS allows more for some; a folder that shows a thousand roots is no longer a folder.)"""
POLICY_LIMIT_CHARACTERS: Final = 2048
KEYS_LIMIT: Final = 10
"""Most keys of a user, as AWS has it."""
TAGS_LIMIT: Final = 50
USER_VARIABLE: Final = "${transfer:UserName}"

HomeDirectoryType: TypeAlias = Literal["PATH", "LOGICAL"]


@dataclass(frozen=True, slots=True)
class HomeDirectoryMapping:
    """What a LOGICAL user sees at `entry` is what is at `target`, `/bucket/folder`. Both may hold the user variable."""

    entry: str
    target: str


@dataclass(frozen=True, slots=True)
class SshPublicKey:
    """One key of a user; `body` is the line as it was given."""

    body: str
    ssh_public_key_id: str = ""
    imported_at_ms: int = 0

    def parse(self) -> PublicKey:
        """Return the key itself."""
        return parse_public_key(self.body)


@dataclass(frozen=True, slots=True)
class User:
    """An SFTP user. `policy` is a session policy (JSON text), which can only narrow what the role allows."""

    user_name: str
    role_arn: str
    home_directory: str = ""
    home_directory_type: HomeDirectoryType = "PATH"
    home_directory_mappings: tuple[HomeDirectoryMapping, ...] = ()
    policy: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    ssh_public_keys: tuple[SshPublicKey, ...] = ()


def validate(user: User) -> None:
    """Raise InvalidRequestError where AWS would."""
    if not USER_NAME.fullmatch(user.user_name):
        raise InvalidRequestError(
            f"User name {user.user_name[:100]!r} is not valid: 3 to 100 letters, digits and _ @ . - "
            "with none of . - @ at first."
        )
    if not ROLE_ARN.fullmatch(user.role_arn):
        raise InvalidRequestError(f"Role {user.role_arn[:200]!r} is not the ARN of a role.")
    if user.home_directory:
        _check_path("HomeDirectory", user.home_directory)
    if user.home_directory_type == "LOGICAL":
        _check_mappings(user)
    elif user.home_directory_type != "PATH":
        raise InvalidRequestError(f"HomeDirectoryType {user.home_directory_type!r} is neither PATH nor LOGICAL.")
    elif user.home_directory_mappings:
        raise InvalidRequestError("HomeDirectoryMappings can be used with HomeDirectoryType LOGICAL only.")
    if user.policy is not None:
        _check_policy(user.policy)
    if len(user.tags) > TAGS_LIMIT:
        raise InvalidRequestError(f"A user has {TAGS_LIMIT} tags at most.")
    if len(user.ssh_public_keys) > KEYS_LIMIT:
        raise InvalidRequestError(f"A user has {KEYS_LIMIT} public keys at most.")
    for key in user.ssh_public_keys:
        key.parse()


def _check_mappings(user: User) -> None:
    if user.home_directory:
        raise InvalidRequestError("HomeDirectory cannot be set when HomeDirectoryType is LOGICAL.")
    if not user.home_directory_mappings:
        raise InvalidRequestError("HomeDirectoryMappings must be set when HomeDirectoryType is LOGICAL.")
    if len(user.home_directory_mappings) > MAPPINGS_LIMIT:
        raise InvalidRequestError(f"A user has {MAPPINGS_LIMIT} mappings at most.")
    entries = set()
    for mapping in user.home_directory_mappings:
        _check_path("Entry", mapping.entry)
        _check_path("Target", mapping.target)
        entry = mapping.entry.rstrip("/")
        if entry in entries:
            raise InvalidRequestError(f"Entry {mapping.entry!r} is there twice.")
        entries.add(entry)


def _check_path(name: str, path: str) -> None:
    if not path.startswith("/") or len(path) > PATH_LIMIT_CHARACTERS:
        raise InvalidRequestError(
            f"{name} {path[:100]!r} must begin with / and have {PATH_LIMIT_CHARACTERS} characters at most."
        )
    if any(ord(character) < 32 or ord(character) == 127 for character in path):
        raise InvalidRequestError(f"{name} {path[:100]!r} holds control characters.")
    segments = [segment for segment in path.split("/") if segment]
    if "." in segments or ".." in segments:
        raise InvalidRequestError(f"{name} {path[:100]!r} must not hold . or .. as a segment.")
    if name != "Entry" and not segments:
        raise InvalidRequestError(f"{name} {path!r} names no bucket: write /bucket or /bucket/folder.")


def _check_policy(policy: str) -> None:
    if len(policy) > POLICY_LIMIT_CHARACTERS:
        raise InvalidRequestError(f"The session policy has more than {POLICY_LIMIT_CHARACTERS} characters.")
    try:
        document = json.loads(policy)
    except ValueError as error:
        raise InvalidRequestError(f"The session policy is not JSON: {error}") from error
    if not isinstance(document, dict) or "Statement" not in document:
        raise InvalidRequestError("The session policy is not a policy document: it has no Statement.")


# ── rows ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

_COLUMNS: Final = "user_name, role_arn, home_directory, home_directory_type, home_directory_mappings, policy, tags"


def find_user(reader: Reader, user_name: str) -> User | None:
    """Return the user with all keys, or None."""
    row = reader.one(f"SELECT {_COLUMNS} FROM transfer_user WHERE user_name = ?", (user_name,))  # noqa: S608
    # The keys are looked up in any case, so that an unknown user costs the same as a known one.
    keys = reader.all(
        "SELECT body, ssh_public_key_id, imported_at_ms FROM transfer_ssh_public_key WHERE user_name = ? "
        "ORDER BY imported_at_ms, ssh_public_key_id LIMIT ?",
        (user_name, KEYS_LIMIT),
    )
    return None if row is None else _user(row, tuple(SshPublicKey(*key) for key in keys))


def list_users(reader: Reader, after: str, limit: int) -> list[tuple[User, int]]:
    """Return up to `limit` users by name behind `after`, without keys but with their number."""
    rows = reader.all(
        f"SELECT {_COLUMNS}, (SELECT COUNT(*) FROM transfer_ssh_public_key k WHERE k.user_name = u.user_name) "  # noqa: S608
        "FROM transfer_user u WHERE user_name > ? ORDER BY user_name LIMIT ?",
        (after, limit),
    )
    return [(_user(row[:-1], ()), row[-1]) for row in rows]


def count_users(reader: Reader) -> int:
    """Return how many users there are."""
    row = reader.one("SELECT COUNT(*) FROM transfer_user")
    assert row is not None
    return int(row[0])


def _user(row: Row, keys: tuple[SshPublicKey, ...]) -> User:
    name, role_arn, home_directory, home_directory_type, mappings, policy, tags = row
    return User(
        name,
        role_arn,
        home_directory,
        cast(HomeDirectoryType, home_directory_type),
        tuple(HomeDirectoryMapping(entry, target) for entry, target in json.loads(mappings)),
        policy,
        json.loads(tags),
        keys,
    )


def create_user(tx: Transaction, server_id: str, user: User) -> None:
    """Write a new user; raise ResourceExistsError or InvalidRequestError."""
    if tx.one("SELECT 1 FROM transfer_user WHERE user_name = ?", (user.user_name,)):
        raise ResourceExistsError("User already exists", f"{server_id}/{user.user_name}", "User")
    put_user(tx, user)


def put_user(tx: Transaction, user: User) -> None:
    """Write the user and exactly these keys, whether or not the user exists; raise InvalidRequestError.

    A key that the user has already keeps its id and time.
    """
    validate(user)
    _write(tx, user)
    known = {
        parse_public_key(body).data: key_id
        for body, key_id in tx.all(
            "SELECT body, ssh_public_key_id FROM transfer_ssh_public_key WHERE user_name = ?", (user.user_name,)
        )
    }
    wanted = {key.parse().data: key for key in user.ssh_public_keys}
    for data, key_id in known.items():
        if data not in wanted:
            tx.execute("DELETE FROM transfer_ssh_public_key WHERE ssh_public_key_id = ?", (key_id,))
    for data, key in wanted.items():
        if data not in known:
            _insert_key(tx, user.user_name, key.body)


def update_user(tx: Transaction, user: User) -> None:
    """Write what is changed of an existing user, without the keys; raise InvalidRequestError."""
    validate(user)
    _write(tx, user)


def _write(tx: Transaction, user: User) -> None:
    mappings = json.dumps([(m.entry, m.target) for m in user.home_directory_mappings], separators=(",", ":"))
    tx.execute(
        f"INSERT INTO transfer_user ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?) "  # noqa: S608
        "ON CONFLICT (user_name) DO UPDATE SET role_arn = excluded.role_arn, home_directory = excluded.home_directory, "
        "home_directory_type = excluded.home_directory_type, "
        "home_directory_mappings = excluded.home_directory_mappings, policy = excluded.policy, tags = excluded.tags",
        (
            user.user_name,
            user.role_arn,
            user.home_directory,
            user.home_directory_type,
            mappings,
            user.policy,
            json.dumps(dict(user.tags), separators=(",", ":"), ensure_ascii=False),
        ),
    )


def delete_user(tx: Transaction, server_id: str, user_name: str) -> None:
    """Remove a user and the keys; raise ResourceNotFoundError."""
    if not tx.execute("DELETE FROM transfer_user WHERE user_name = ?", (user_name,)):
        raise unknown_user(server_id, user_name)
    tx.execute("DELETE FROM transfer_ssh_public_key WHERE user_name = ?", (user_name,))


def import_key(tx: Transaction, server_id: str, user_name: str, body: str) -> str:
    """Give a user one more key; return its id.

    Raises InvalidRequestError, ResourceExistsError, ResourceNotFoundError.
    """
    user = find_user(tx, user_name)
    if user is None:
        raise unknown_user(server_id, user_name)
    data = parse_public_key(body).data
    if any(key.parse().data == data for key in user.ssh_public_keys):
        raise ResourceExistsError("SSH public key already exists", f"{server_id}/{user_name}", "SSHPublicKey")
    if len(user.ssh_public_keys) >= KEYS_LIMIT:
        raise InvalidRequestError(f"A user has {KEYS_LIMIT} public keys at most.")
    return _insert_key(tx, user_name, body)


def delete_key(tx: Transaction, server_id: str, user_name: str, ssh_public_key_id: str) -> None:
    """Take a key away; raise ResourceNotFoundError."""
    if not tx.execute(
        "DELETE FROM transfer_ssh_public_key WHERE user_name = ? AND ssh_public_key_id = ?",
        (user_name, ssh_public_key_id),
    ):
        raise ResourceNotFoundError("Unknown SSH public key", ssh_public_key_id, "SSHPublicKey")


def _insert_key(tx: Transaction, user_name: str, body: str) -> str:
    key_id = f"key-{ids.random_hex(9)[:17]}"
    tx.execute(
        "INSERT INTO transfer_ssh_public_key (ssh_public_key_id, user_name, body, imported_at_ms) VALUES (?, ?, ?, ?)",
        (key_id, user_name, body.strip(), clock.now_ms()),
    )
    return key_id


def unknown_user(server_id: str, user_name: str) -> ResourceNotFoundError:
    """Return the error for a user that does not exist."""
    return ResourceNotFoundError("Unknown user", f"{server_id}/{user_name}", "User")
