"""The one gate through which every AWS operation runs, whoever calls it.

The HTTP endpoint, the tasks of state machines and the targets of rules all call operations by AWS's names, with a
request and a response in the shape of botocore's service model (PascalCase keys, datetime for timestamps, bytes for
blobs). `Operations` authorises each call before it runs. Each service lists its operations in its `operations.py`:
that file is the edge where PascalCase ends.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from entrepot.database import Database, Reader, Transaction
from entrepot.errors import AccessDeniedError, AwsError

Request: TypeAlias = Mapping[str, Any]
Response: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks. Policies are found by `role_arn`; `session_policy` (JSON text) can only narrow them.

    `variables` feed policy variables (`aws:username`, `transfer:UserName`, `transfer:HomeDirectory`, …), `tags` are the
    user's own.
    """

    arn: str
    kind: Literal["root", "user", "role", "service"]
    name: str
    role_arn: str | None = None
    session_policy: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Call:
    """One request: who asks, from where, and the names under which it is traced.

    `host_id` (Transfer) or request id go into events and logs; `session_id` is the SFTP session, where there is one.
    `source_arn` is for whom a service acts (a rule, a topic): the condition key `aws:SourceArn`.
    """

    principal: Principal
    request_id: str
    source_ip: str = "127.0.0.1"
    session_id: str | None = None
    user_agent: str = ""
    source_arn: str = ""

    @property
    def source(self) -> dict[str, str]:
        """The condition keys that say for whom a service acts; none when nobody is named."""
        if not self.source_arn:
            return {}
        return {"aws:SourceArn": self.source_arn, "aws:SourceAccount": self.source_arn.split(":", 5)[4]}


@dataclass(frozen=True, slots=True)
class Permission:
    """One thing that IAM must allow: an action (`s3:PutObject`) on a resource ARN, with condition keys.

    A condition key that holds several values has a tuple. `resource_policy` is the policy of the resource itself (JSON
    text, "" for none), which can allow what the caller's policies do not, and deny what they allow.
    """

    action: str
    resource: str
    context: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    resource_policy: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """What IAM said: `statement` names the policy and statement that decided (`role/demo inline#AllowHome`)."""

    allowed: bool
    statement: str
    reason: str


Authorize: TypeAlias = Callable[[Principal, Permission], Decision]
Permissions: TypeAlias = Callable[[Request], Iterable[Permission]]
Require: TypeAlias = Callable[[Permission, Call], None]
"""Raises AccessDeniedError unless IAM allows one thing to the caller."""


OnPerformed: TypeAlias = Callable[[str, str, Request, Response | AwsError], None]
"""`on_performed(service, operation, request, outcome)`: on the event loop, after the answer or error is known."""


@dataclass(frozen=True, slots=True)
class ReadOperation:
    """An operation that only reads the ledger, with few rows."""

    name: str
    permissions: Permissions
    run: Callable[[Reader, Request, Call], Response]


@dataclass(frozen=True, slots=True)
class WriteOperation:
    """An operation whose whole effect is one transaction of the ledger.

    A state machine's task of this kind commits together with its state.
    """

    name: str
    permissions: Permissions
    run: Callable[[Transaction, Request, Call], Response]


@dataclass(frozen=True, slots=True)
class AsyncOperation:
    """An operation that streams, waits, or leaves the ledger."""

    name: str
    permissions: Permissions
    run: Callable[[Request, Call], Awaitable[Response]]


Operation: TypeAlias = ReadOperation | WriteOperation | AsyncOperation


class Operations:
    """All operations of all services, keyed by botocore's service name and AWS's operation name."""

    def __init__(self, database: Database, authorize: Authorize) -> None:
        self._database = database
        self._authorize = authorize
        self._operations: dict[tuple[str, str], Operation] = {}
        self.on_performed: OnPerformed = lambda service, name, request, outcome: None
        """Hears of every operation that was performed; whoever measures sets it."""

    def add(self, service: str, operations: Iterable[Operation]) -> None:
        """Register a service's operations; a name registered twice is a programming error."""
        for operation in operations:
            key = (service, operation.name)
            assert key not in self._operations, key
            self._operations[key] = operation

    def find(self, service: str, name: str) -> Operation | None:
        """Return the operation, or None when this endpoint does not serve it."""
        return self._operations.get((service, name))

    def names(self) -> list[tuple[str, str]]:
        """Return every (service, operation name) that is served, sorted."""
        return sorted(self._operations)

    def authorize(self, operation: Operation, request: Request, call: Call) -> None:
        """Raise AccessDeniedError unless IAM allows everything that the operation needs."""
        for permission in operation.permissions(request):
            self.require(permission, call)

    def require(self, permission: Permission, call: Call) -> None:
        """Raise AccessDeniedError unless IAM allows one thing; for operations that AWS decides part by part."""
        context = {"aws:SourceIp": call.source_ip, **call.source, **permission.context}
        decision = self._authorize(
            call.principal, Permission(permission.action, permission.resource, context, permission.resource_policy)
        )
        if not decision.allowed:
            because = "" if decision.reason.startswith("with ") else "because "
            raise AccessDeniedError(
                f"User: {call.principal.arn} is not authorized to perform: {permission.action} "
                f"on resource: {permission.resource} {because}{decision.reason}"
            )

    async def perform(self, service: str, name: str, request: Request, call: Call) -> Response:
        """Authorise and run one operation to its end; raise AwsError as AWS would."""
        operation = self._known(service, name)
        self.authorize(operation, request, call)
        try:
            response = await self._run(operation, request, call)
        except AwsError as error:
            self.on_performed(service, name, request, error)
            raise
        self.on_performed(service, name, request, response)
        return response

    async def _run(self, operation: Operation, request: Request, call: Call) -> Response:
        match operation:
            case ReadOperation(run=read):
                return await self._database.read(lambda reader: read(reader, request, call))
            case WriteOperation(run=write):
                return await self._database.write(lambda tx: write(tx, request, call))
            case AsyncOperation(run=perform):
                return await perform(request, call)

    def transact(self, tx: Transaction, service: str, name: str, request: Request, call: Call) -> Response:
        """Authorise and run a read or write operation inside the caller's transaction.

        An AwsError leaves no effect of the operation behind; the caller's transaction goes on.
        """
        operation = self._known(service, name)
        assert not isinstance(operation, AsyncOperation), f"{service}:{name} leaves the ledger"
        self.authorize(operation, request, call)
        with tx.savepoint():
            return operation.run(tx, request, call)

    def _known(self, service: str, name: str) -> Operation:
        operation = self._operations.get((service, name))
        if operation is None:
            raise UnknownOperationError(f"{service}:{name} is not implemented here.")
        return operation


class UnknownOperationError(AwsError):
    """The operation exists in AWS (or not at all) but is not served here."""

    code = "NotImplemented"
    status = 501
