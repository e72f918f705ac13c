"""Roles, their policies and API users' keys: rows, and functions of a transaction or reader.

Every change raises the version row, by which other processes notice that their compiled policies are old.
"""

import re
from dataclasses import dataclass

from entrepot import clock, ids
from entrepot.arns import Account
from entrepot.database import Reader, Transaction
from entrepot.services.iam.errors import (
    DeleteConflictError,
    EntityAlreadyExistsError,
    LimitExceededError,
    NoSuchEntityError,
    ValidationError,
)
from entrepot.services.iam.policy import MAX_POLICY_LENGTH, Policies, compile_policy, join
from entrepot.services.iam.trust import TrustPolicy, compile_trust_policy

MAX_ROLES = 1_000
"""Roles of an account (AWS's default quota)."""

MAX_MANAGED_POLICIES = 1_500
"""Customer managed policies of an account (AWS's default quota)."""

MAX_ATTACHED_POLICIES = 10
"""Managed policies attached to one role (AWS's default quota)."""

MAX_INLINE_CHARACTERS = 10_240
"""All inline policies of one role together, white space not counted (AWS's quota)."""

MAX_MANAGED_CHARACTERS = 6_144
"""One managed policy, white space not counted (AWS's quota)."""

MAX_ACCESS_KEYS = 10_000
"""Long-lived access keys of an account (5,000 users with two keys each)."""

MIN_SESSION_DURATION_S = 3_600
MAX_SESSION_DURATION_S = 43_200

_NAME = re.compile(r"[\w+=,.@-]+", re.ASCII)
_PATH = re.compile(r"/|/[\x21-\x7e]+/")


@dataclass(frozen=True, slots=True)
class Role:
    """A role as it is stored; `trust_policy` is its JSON text."""

    role_name: str
    arn: str
    role_id: str
    path: str
    description: str
    trust_policy: str
    max_session_duration_s: int
    created_at_ms: int


@dataclass(frozen=True, slots=True)
class ManagedPolicy:
    """A customer managed policy; `document` is its JSON text."""

    policy_name: str
    arn: str
    policy_id: str
    path: str
    description: str
    document: str
    created_at_ms: int


@dataclass(frozen=True, slots=True)
class CompiledRole:
    """What authorisation needs of a role."""

    role: Role
    policies: Policies
    trust: TrustPolicy


@dataclass(frozen=True, slots=True)
class UserKey:
    """A long-lived access key and whom it stands for; its secret is derived from the stack's master secret."""

    access_key_id: str
    user_name: str
    kind: str
    role_arn: str | None


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────

_ROLE_COLUMNS = "role_name, role_id, path, description, trust_policy, max_session_duration_s, created_at_ms"
_POLICY_COLUMNS = "policy_name, policy_arn, policy_id, path, description, document, created_at_ms"


def _role(account: Account, row: tuple[str, str, str, str, str, int, int]) -> Role:
    name, role_id, path, description, trust_policy, duration_s, created_at_ms = row
    return Role(
        name, role_arn(account, name, path), role_id, path, description, trust_policy, duration_s, created_at_ms
    )


def role_arn(account: Account, role_name: str, path: str = "/") -> str:
    """Return `arn:aws:iam::000000000000:role/path/name`."""
    return account.iam_arn(f"role{path}{role_name}")


def get_role(reader: Reader, account: Account, role_name: str) -> Role:
    """Raise NoSuchEntityError when there is none."""
    row = reader.one(f"SELECT {_ROLE_COLUMNS} FROM iam_role WHERE role_name = ?", (role_name,))  # noqa: S608
    if row is None:
        raise NoSuchEntityError(f"The role with name {role_name} cannot be found.")
    return _role(account, row)


def list_roles(reader: Reader, account: Account, path_prefix: str, after: str, limit: int) -> list[Role]:
    """Return at most `limit` roles by name, after the one named."""
    rows = reader.all(
        f"SELECT {_ROLE_COLUMNS} FROM iam_role WHERE role_name > ? AND substr(path, 1, ?) = ? "  # noqa: S608
        "ORDER BY role_name LIMIT ?",
        (after, len(path_prefix), path_prefix, limit),
    )
    return [_role(account, row) for row in rows]


def get_role_policy(reader: Reader, account: Account, role_name: str, policy_name: str) -> str:
    """Return an inline policy's JSON text; raise NoSuchEntityError."""
    get_role(reader, account, role_name)
    row = reader.one(
        "SELECT document FROM iam_role_policy WHERE role_name = ? AND policy_name = ?", (role_name, policy_name)
    )
    if row is None:
        raise NoSuchEntityError(f"The role policy with name {policy_name} cannot be found.")
    return str(row[0])


def list_role_policies(reader: Reader, role_name: str) -> list[str]:
    """Return the names of a role's inline policies."""
    rows = reader.all(
        "SELECT policy_name FROM iam_role_policy WHERE role_name = ? ORDER BY policy_name LIMIT ?",
        (role_name, MAX_INLINE_CHARACTERS),
    )
    return [row[0] for row in rows]


def get_policy(reader: Reader, policy_arn: str) -> ManagedPolicy:
    """Raise NoSuchEntityError when there is none."""
    row = reader.one(f"SELECT {_POLICY_COLUMNS} FROM iam_policy WHERE policy_arn = ?", (policy_arn,))  # noqa: S608
    if row is None:
        raise NoSuchEntityError(f"Policy {policy_arn} was not found.")
    return ManagedPolicy(*row)


def list_policies(reader: Reader, after: str, limit: int) -> list[ManagedPolicy]:
    """Return at most `limit` managed policies by ARN, after the one named."""
    rows = reader.all(
        f"SELECT {_POLICY_COLUMNS} FROM iam_policy WHERE policy_arn > ? ORDER BY policy_arn LIMIT ?",  # noqa: S608
        (after, limit),
    )
    return [ManagedPolicy(*row) for row in rows]


def attached_policies(reader: Reader, role_name: str) -> list[tuple[str, str, str]]:
    """Return (name, ARN, JSON text) of the managed policies attached to a role."""
    return reader.all(
        "SELECT p.policy_name, p.policy_arn, p.document FROM iam_role_attachment a "
        "JOIN iam_policy p ON p.policy_arn = a.policy_arn WHERE a.role_name = ? ORDER BY p.policy_arn LIMIT ?",
        (role_name, MAX_ATTACHED_POLICIES),
    )


def attachment_count(reader: Reader, policy_arn: str) -> int:
    """Return how many roles a managed policy is attached to."""
    row = reader.one("SELECT COUNT(*) FROM iam_role_attachment WHERE policy_arn = ?", (policy_arn,))
    return 0 if row is None else int(row[0])


def compile_role(reader: Reader, account: Account, role_name: str) -> CompiledRole | None:
    """Return what authorisation needs of a role, or None when there is no such role."""
    row = reader.one(f"SELECT {_ROLE_COLUMNS} FROM iam_role WHERE role_name = ?", (role_name,))  # noqa: S608
    if row is None:
        return None
    role = _role(account, row)
    compiled = [compile_policy(document, name) for name, document in policy_documents(reader, role_name)]
    return CompiledRole(role, join(compiled), compile_trust_policy(role.trust_policy))


def policy_documents(reader: Reader, role_name: str) -> list[tuple[str, str]]:
    """Return (name in decisions, JSON text) of a role's policies, inline ones first."""
    inline = reader.all(
        "SELECT policy_name, document FROM iam_role_policy WHERE role_name = ? ORDER BY policy_name LIMIT ?",
        (role_name, MAX_INLINE_CHARACTERS),
    )
    attached = [(name, document) for name, _, document in attached_policies(reader, role_name)]
    return [(f"role/{role_name} {name}", document) for name, document in [*inline, *attached]]


def version(reader: Reader) -> int:
    """Return the number that grows with every change of IAM."""
    row = reader.one("SELECT version FROM iam_version WHERE id = 1")
    assert row is not None
    return int(row[0])


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def raise_version(tx: Transaction) -> int:
    """Count one change; return the new version."""
    tx.execute("UPDATE iam_version SET version = version + 1 WHERE id = 1")
    return version(tx)


def insert_role(
    tx: Transaction,
    account: Account,
    role_name: str,
    trust_policy: str,
    *,
    path: str = "/",
    description: str = "",
    max_session_duration_s: int = MIN_SESSION_DURATION_S,
) -> Role:
    """Create a role. Raises EntityAlreadyExists, LimitExceeded, MalformedPolicyDocument, ValidationError."""
    check_name("roleName", role_name, 64)
    check_path(path)
    if not MIN_SESSION_DURATION_S <= max_session_duration_s <= MAX_SESSION_DURATION_S:
        raise ValidationError(
            f"1 validation error detected: Value '{max_session_duration_s}' at 'maxSessionDuration' failed to satisfy "
            f"constraint: Member must have value between {MIN_SESSION_DURATION_S} and {MAX_SESSION_DURATION_S}"
        )
    compile_trust_policy(trust_policy)
    if tx.one("SELECT 1 FROM iam_role WHERE role_name = ?", (role_name,)) is not None:
        raise EntityAlreadyExistsError(f"Role with name {role_name} already exists.")
    _check_quota(tx, "iam_role", MAX_ROLES, "roles")
    tx.execute(
        f"INSERT INTO iam_role ({_ROLE_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
        (role_name, new_id("AROA"), path, description, trust_policy, max_session_duration_s, clock.now_ms()),
    )
    return get_role(tx, account, role_name)


def update_trust_policy(tx: Transaction, account: Account, role_name: str, trust_policy: str) -> None:
    """Replace a role's trust policy. Raises NoSuchEntity, MalformedPolicyDocument."""
    get_role(tx, account, role_name)
    compile_trust_policy(trust_policy)
    tx.execute("UPDATE iam_role SET trust_policy = ? WHERE role_name = ?", (trust_policy, role_name))


def delete_role(tx: Transaction, account: Account, role_name: str) -> Role:
    """Delete a role that has no policies any more. Raises NoSuchEntity, DeleteConflict."""
    role = get_role(tx, account, role_name)
    if attached_policies(tx, role_name):
        raise DeleteConflictError("Cannot delete entity, must detach all policies first.")
    if list_role_policies(tx, role_name):
        raise DeleteConflictError("Cannot delete entity, must delete policies first.")
    tx.execute("DELETE FROM iam_role WHERE role_name = ?", (role_name,))
    return role


def put_role_policy(tx: Transaction, account: Account, role_name: str, policy_name: str, document: str) -> None:
    """Create or replace an inline policy. Raises NoSuchEntity, LimitExceeded, MalformedPolicyDocument."""
    get_role(tx, account, role_name)
    check_name("policyName", policy_name, 128)
    compile_policy(document, policy_name)
    others = tx.all(
        "SELECT document FROM iam_role_policy WHERE role_name = ? AND policy_name <> ? LIMIT ?",
        (role_name, policy_name, MAX_INLINE_CHARACTERS),
    )
    if sum(_characters(text) for (text,) in [*others, (document,)]) > MAX_INLINE_CHARACTERS:
        raise LimitExceededError(f"Maximum policy size of {MAX_INLINE_CHARACTERS} bytes exceeded for role {role_name}")
    tx.execute(
        "INSERT INTO iam_role_policy (role_name, policy_name, document) VALUES (?, ?, ?) "
        "ON CONFLICT (role_name, policy_name) DO UPDATE SET document = excluded.document",
        (role_name, policy_name, document),
    )


def delete_role_policy(tx: Transaction, account: Account, role_name: str, policy_name: str) -> None:
    """Raises NoSuchEntity."""
    get_role_policy(tx, account, role_name, policy_name)
    tx.execute("DELETE FROM iam_role_policy WHERE role_name = ? AND policy_name = ?", (role_name, policy_name))


def insert_policy(
    tx: Transaction, account: Account, policy_name: str, document: str, *, path: str = "/", description: str = ""
) -> ManagedPolicy:
    """Create a managed policy. Raises EntityAlreadyExists, LimitExceeded, MalformedPolicyDocument."""
    check_name("policyName", policy_name, 128)
    check_path(path)
    compile_policy(document, policy_name, max_length=MAX_POLICY_LENGTH)
    if _characters(document) > MAX_MANAGED_CHARACTERS:
        raise LimitExceededError(f"Cannot exceed quota for PolicySize: {MAX_MANAGED_CHARACTERS}")
    policy_arn = account.iam_arn(f"policy{path}{policy_name}")
    if tx.one("SELECT 1 FROM iam_policy WHERE policy_arn = ?", (policy_arn,)) is not None:
        raise EntityAlreadyExistsError(
            f"A policy called {policy_name} already exists. Duplicate names are not allowed."
        )
    _check_quota(tx, "iam_policy", MAX_MANAGED_POLICIES, "policies")
    tx.execute(
        f"INSERT INTO iam_policy ({_POLICY_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
        (policy_name, policy_arn, new_id("ANPA"), path, description, document, clock.now_ms()),
    )
    return get_policy(tx, policy_arn)


def delete_policy(tx: Transaction, policy_arn: str) -> None:
    """Delete a managed policy that is attached nowhere. Raises NoSuchEntity, DeleteConflict."""
    get_policy(tx, policy_arn)
    if attachment_count(tx, policy_arn):
        raise DeleteConflictError("Cannot delete a policy attached to entities.")
    tx.execute("DELETE FROM iam_policy WHERE policy_arn = ?", (policy_arn,))


def attach_role_policy(tx: Transaction, account: Account, role_name: str, policy_arn: str) -> None:
    """Attach a managed policy; once more changes nothing. Raises NoSuchEntity, LimitExceeded."""
    get_role(tx, account, role_name)
    get_policy(tx, policy_arn)
    arns = {arn for _, arn, _ in attached_policies(tx, role_name)}
    if policy_arn not in arns and len(arns) >= MAX_ATTACHED_POLICIES:
        raise LimitExceededError(f"Cannot exceed quota for PoliciesPerRole: {MAX_ATTACHED_POLICIES}")
    tx.execute(
        "INSERT INTO iam_role_attachment (role_name, policy_arn) VALUES (?, ?) ON CONFLICT DO NOTHING",
        (role_name, policy_arn),
    )


def detach_role_policy(tx: Transaction, account: Account, role_name: str, policy_arn: str) -> None:
    """Raises NoSuchEntity when it is not attached."""
    get_role(tx, account, role_name)
    if not tx.execute(
        "DELETE FROM iam_role_attachment WHERE role_name = ? AND policy_arn = ?", (role_name, policy_arn)
    ):
        raise NoSuchEntityError(f"Policy {policy_arn} was not found.")


def insert_user_key(tx: Transaction, key: UserKey) -> None:
    """Create or replace a long-lived key. Raises LimitExceeded."""
    _check_quota(tx, "iam_access_key", MAX_ACCESS_KEYS, "access keys")
    tx.execute(
        "INSERT INTO iam_access_key (access_key_id, user_name, kind, role_arn, created_at_ms) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT (access_key_id) DO UPDATE SET user_name = excluded.user_name, kind = excluded.kind, "
        "role_arn = excluded.role_arn",
        (key.access_key_id, key.user_name, key.kind, key.role_arn, clock.now_ms()),
    )


def delete_user_keys(tx: Transaction, user_name: str) -> list[str]:
    """Delete all keys of a user; return their ids."""
    rows = tx.all("DELETE FROM iam_access_key WHERE user_name = ? RETURNING access_key_id", (user_name,))
    return [row[0] for row in rows]


# ── checks ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def new_id(prefix: str) -> str:
    """Return a unique id as IAM gives them: `AROA` and 17 characters."""
    return prefix + ids.random_hex(9).upper()[:17]


def check_name(parameter: str, name: str, max_length: int) -> None:
    """Raise ValidationError unless `name` is one that IAM accepts."""
    if not name or len(name) > max_length or not _NAME.fullmatch(name):
        raise ValidationError(
            f"1 validation error detected: Value '{name[:max_length]}' at '{parameter}' failed to satisfy constraint: "
            rf"Member must satisfy regular expression pattern: [\w+=,.@-]+ and have 1 to {max_length} characters"
        )


def check_path(path: str) -> None:
    """Raise ValidationError unless `path` is one that IAM accepts (`/`, `/team/`)."""
    if len(path) > 512 or not _PATH.fullmatch(path):
        raise ValidationError(
            "The specified value for path is invalid. It must begin and end with / and contain only alphanumeric "
            "characters and/or / characters."
        )


def _characters(document: str) -> int:
    return sum(len(word) for word in document.split())


def _check_quota(tx: Transaction, table: str, limit: int, what: str) -> None:
    row = tx.one(f"SELECT COUNT(*) FROM {table}")  # noqa: S608 - a name from this file
    if row is not None and row[0] >= limit:
        raise LimitExceededError(f"Cannot exceed quota for {what} in the account: {limit}")
