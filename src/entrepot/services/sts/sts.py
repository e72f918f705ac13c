"""STS's part: the callables that it is given, under AWS's words."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from entrepot.arns import Account
from entrepot.credentials import Credentials
from entrepot.operations import Principal

AssumeRole: TypeAlias = Callable[[Principal, str, str, int, str | None], Credentials]
"""(caller, role_arn, session_name, duration_s, session_policy) → credentials; raises AwsError."""

IssueSessionToken: TypeAlias = Callable[[Principal, int], Credentials]
"""(caller, duration_s) → credentials; raises AwsError."""

RoleId: TypeAlias = Callable[[str], str | None]
"""(role_arn) → the role's unique id (`AROA…`), or None."""


@dataclass(frozen=True, slots=True)
class STS:
    """The Security Token Service of one account."""

    account: Account
    assume_role: AssumeRole
    issue_session_token: IssueSessionToken
    role_id: RoleId
