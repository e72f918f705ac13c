"""What Lambda asks of other rooms, as typed callables: the composition passes them in."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from entrepot.database import Database
from entrepot.operations import Call, Decision, Operations, Permission, Principal
from entrepot.services.lambda_.errors import InvalidParameterValueError

ReadObject: TypeAlias = Callable[[Call, str, str, str | None, int], Awaitable[bytes]]
"""`read_object(call, bucket, key, version_id, limit_bytes)`: an object's content, with the caller's rights. Raises AwsError."""

PrincipalForRole: TypeAlias = Callable[[str, str], Principal]
"""`principal_for_role(role_arn, session_name)`: who acts in a session of a role."""

Matches: TypeAlias = Callable[[Mapping[str, Any]], bool]

CompilePattern: TypeAlias = Callable[[str], Matches]
"""From an event pattern's JSON text to the function that says whether a document matches it. Raises AwsError."""


Admits: TypeAlias = Callable[[Principal, Permission], bool]
"""Whether the policy of a permission's resource allows it by itself, whatever the caller's own policies say."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """`operations` is the gate: destinations, dead letters and event sources are operations of other services."""

    operations: Operations
    principal_for_role: PrincipalForRole
    read_object: ReadObject
    compile_pattern: CompilePattern
    admits: Admits


def alone(database: Database) -> Neighbours:
    """Return what stands in where Lambda is built without other rooms: everything that is asked for is refused."""

    async def read_object(call: Call, bucket: str, key: str, version_id: str | None, limit_bytes: int) -> bytes:
        raise InvalidParameterValueError("Code from S3 is not available here. Send it as ZipFile.")

    def compile_pattern(text: str) -> Matches:
        raise InvalidParameterValueError("Filters are not available here.")

    return Neighbours(
        Operations(database, lambda principal, permission: Decision(False, "", "no services are wired")),
        lambda role_arn, session_name: Principal(role_arn, "role", session_name, role_arn),
        read_object,
        compile_pattern,
        lambda principal, permission: False,
    )
