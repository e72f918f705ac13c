"""Access keys without stored secrets.

The secret of every key is derived from the stack's master secret. Temporary credentials are stateless: the session
token carries its claims and an HMAC-SHA-256 over them, so that every process that holds the master secret can verify
it, and nothing has to be stored or cleaned up.
"""

import base64
import binascii
import dataclasses
import hashlib
import hmac
import json
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from entrepot import clock, ids
from entrepot.arns import Account
from entrepot.credentials import Credentials
from entrepot.operations import Principal
from entrepot.services.iam.errors import ValidationError

MAX_TOKEN_LENGTH = 8_192
"""Characters of a session token; longer ones are not looked at."""

MAX_SESSION_POLICY_LENGTH = 2_048
"""Characters of a session policy (AWS's limit)."""

VERIFIED_TOKENS = 1_024
"""Verified tokens that are remembered, so that a worker's many calls cost one HMAC."""

USER_ID = "aws:userid"
"""The policy variable that names a session of a role by the role's unique id."""

_FORMAT = "EN1."


@dataclass(frozen=True, slots=True)
class Claims:
    """What a session token says. `role_arn` is None for the account's own (root) session.

    `role_id` is the role's unique id (`AROA…`): another role of the same name is not the one that was assumed.
    """

    role_arn: str | None
    session_name: str
    expires_at_ms: int
    session_policy: str | None = None
    role_id: str | None = None


class AccessKeys:
    """Derives secrets, issues session tokens and verifies them."""

    def __init__(self, account: Account, secret: bytes) -> None:
        """`secret` is the stack's master secret, 32 bytes."""
        if len(secret) < 32:
            raise ValueError("the master secret must have 32 bytes")
        self._account = account
        self._token_key = hmac.digest(secret, b"entrepot/iam/session-token", hashlib.sha256)
        self._secret_key = hmac.digest(secret, b"entrepot/iam/secret-access-key", hashlib.sha256)
        self._id_key = hmac.digest(secret, b"entrepot/iam/access-key-id", hashlib.sha256)
        self._verified: OrderedDict[tuple[str, str], Credentials] = OrderedDict()

    def derived_key_id(self, user_name: str) -> str:
        """Return the same `AKIA…` for the same user of the same stack."""
        return "AKIA" + _base32(hmac.digest(self._id_key, user_name.encode(), hashlib.sha256))

    def secret_access_key(self, access_key_id: str, session_token: str = "") -> str:
        """Return the 40 characters that belong to a key (and token)."""
        message = f"{access_key_id}\n{session_token}".encode()
        return base64.b64encode(hmac.digest(self._secret_key, message, hashlib.sha256))[:40].decode()

    def issue(self, claims: Claims) -> Credentials:
        """Return new temporary credentials with these claims."""
        access_key_id = "ASIA" + _base32(bytes.fromhex(ids.random_hex(16)))
        payload = json.dumps(
            [access_key_id, *dataclasses.astuple(claims)],
            separators=(",", ":"),
        ).encode()
        token = _FORMAT + base64.urlsafe_b64encode(self._tag(payload) + payload).decode().rstrip("=")
        assert len(token) <= MAX_TOKEN_LENGTH, "claims are bounded before they get here"
        return self._credentials(access_key_id, token, claims)

    def verify(self, access_key_id: str, session_token: str) -> Credentials | None:
        """Return the credentials of an authentic token, also when they have expired; None for any other."""
        known = self._verified.get((access_key_id, session_token))
        if known is not None:
            self._verified.move_to_end((access_key_id, session_token))
            return known
        claims = self._claims(access_key_id, session_token)
        if claims is None:
            return None
        credentials = self._credentials(access_key_id, session_token, claims)
        self._verified[(access_key_id, session_token)] = credentials
        if len(self._verified) > VERIFIED_TOKENS:
            self._verified.popitem(last=False)
        return credentials

    def _tag(self, payload: bytes) -> bytes:
        return hmac.digest(self._token_key, payload, hashlib.sha256)

    def _claims(self, access_key_id: str, token: str) -> Claims | None:
        if len(token) > MAX_TOKEN_LENGTH or not token.startswith(_FORMAT):
            return None
        body = token[len(_FORMAT) :]
        try:
            raw = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        if base64.urlsafe_b64encode(raw).decode().rstrip("=") != body:
            return None  # one token has one spelling
        tag, payload = raw[:32], raw[32:]
        if not hmac.compare_digest(tag, self._tag(payload)):
            return None
        fields: list[Any] = json.loads(payload)  # authentic: this class wrote it
        if not hmac.compare_digest(str(fields[0]).encode(), access_key_id.encode("utf-8", "replace")):
            return None
        return Claims(*fields[1:])

    def _credentials(self, access_key_id: str, token: str, claims: Claims) -> Credentials:
        if claims.role_arn is None:
            principal = root_principal(self._account)
        else:
            principal = role_principal(claims.role_arn, claims.session_name, claims.session_policy, claims.role_id)
        secret = self.secret_access_key(access_key_id, token)
        return Credentials(access_key_id, secret, token, principal, claims.expires_at_ms)


def _base32(digest: bytes) -> str:
    return base64.b32encode(digest)[:16].decode()


def root_principal(account: Account) -> Principal:
    """Return the account's owner, the operator."""
    return Principal(account.iam_arn("root"), "root", "root")


def role_principal(
    role_arn: str, session_name: str, session_policy: str | None = None, role_id: str | None = None
) -> Principal:
    """Return who acts in a session of a role (`arn:aws:iam::000000000000:role/path/name`). Raises ValidationError.

    With `role_id` the session is one of exactly that role: it has no rights once the role was deleted and made anew.
    """
    prefix, _, name = role_arn.partition(":role/")
    parts = prefix.split(":")
    if len(parts) != 5 or not name:
        raise ValidationError(f"{role_arn} is not the ARN of a role")
    partition, account_id = parts[1], parts[4]
    role_name = name.rsplit("/", 1)[-1]
    return Principal(
        arn=f"arn:{partition}:sts::{account_id}:assumed-role/{role_name}/{session_name}",
        kind="role",
        name=session_name,
        role_arn=role_arn,
        session_policy=session_policy,
        variables={} if role_id is None else {USER_ID: f"{role_id}:{session_name}"},
    )


def expiry_ms(duration_s: int) -> int:
    """Return the time `duration_s` from now."""
    return clock.now_ms() + duration_s * 1000
