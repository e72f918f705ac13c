"""Access keys as the wire needs them: who signs with which secret, until when.

IAM issues them and finds them again (`FindCredentials`); `aws/` verifies signatures with them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from entrepot.operations import Principal


@dataclass(frozen=True, slots=True)
class Credentials:
    """One access key, long-lived (`session_token` and `expires_at_ms` are None) or temporary.

    The secret and the token never show in `repr`, hence not in logs.
    """

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(repr=False)
    principal: Principal
    expires_at_ms: int | None = None


FindCredentials: TypeAlias = Callable[[str, str | None], Credentials | None]
"""(access_key_id, session_token) → the credentials, or None when no such key exists. Must not block.

Expired credentials may be returned: the wire compares the token and the expiry and answers ExpiredToken.
"""
