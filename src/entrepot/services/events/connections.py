"""Connections: how API destinations and HTTP tasks prove who they are.

Secrets are sealed in the ledger, and opened only to be sent.

Source: https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-target-connection.html
"""

import asyncio
import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from entrepot import clock
from entrepot.arns import Account
from entrepot.database import Database, Reader, Transaction
from entrepot.outbound import Send
from entrepot.sealing import Seal, SealBrokenError
from entrepot.services.events.errors import ResourceNotFoundError, TargetError
from entrepot.services.events.oauth import Token, Tokens

API_KEY, BASIC, OAUTH = "API_KEY", "BASIC", "OAUTH_CLIENT_CREDENTIALS"

AUTHORIZING_LIMIT = 10
"""Connections that are authorised in one round."""

_COLUMNS = (
    "name, connection_id, description, authorization_type, state, state_reason, parameters, secret, created_at_ms, "
    "modified_at_ms, authorized_at_ms"
)
_PARAMETERS_OF = {API_KEY: "ApiKeyAuthParameters", BASIC: "BasicAuthParameters", OAUTH: "OAuthParameters"}


@dataclass(frozen=True, slots=True)
class Connection:
    """One connection. `parameters`: JSON as DescribeConnection shows it; `secret`: sealed, None when deauthorized."""

    name: str
    connection_id: str
    description: str
    authorization_type: str
    state: str
    state_reason: str
    parameters: str
    secret: bytes | None
    created_at_ms: int
    modified_at_ms: int
    authorized_at_ms: int | None


@dataclass(frozen=True, slots=True)
class ConnectionParameters:
    """What a connection adds to a request. All of it may be secret: none of it belongs into a log or an error."""

    headers: tuple[tuple[str, str], ...] = ()
    query: tuple[tuple[str, str], ...] = ()
    body: tuple[tuple[str, str], ...] = ()


def find(reader: Reader, name: str) -> Connection | None:
    """Return a connection by name."""
    row = reader.one(f"SELECT {_COLUMNS} FROM events_connection WHERE name = ?", (name,))  # noqa: S608
    return None if row is None else Connection(*row)


def all_connections(reader: Reader, limit: int) -> list[Connection]:
    """Return connections by name."""
    rows = reader.all(f"SELECT {_COLUMNS} FROM events_connection ORDER BY name LIMIT ?", (limit,))  # noqa: S608
    return [Connection(*row) for row in rows]


def put(tx: Transaction, connection: Connection) -> None:
    """Create or replace a connection."""
    tx.execute("DELETE FROM events_connection WHERE name = ?", (connection.name,))
    tx.execute(
        f"INSERT INTO events_connection ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
        (
            connection.name, connection.connection_id, connection.description, connection.authorization_type,
            connection.state, connection.state_reason, connection.parameters, connection.secret,
            connection.created_at_ms, connection.modified_at_ms, connection.authorized_at_ms,
        ),
    )  # fmt: skip


def delete(tx: Transaction, name: str) -> None:
    """Delete a connection with its secret."""
    tx.execute("DELETE FROM events_connection WHERE name = ?", (name,))


def without_secrets(authorization_type: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return AuthParameters as DescribeConnection shows them: no password, no key, no client secret, no secret values."""
    shown: dict[str, Any] = {}
    chosen = given.get(_PARAMETERS_OF[authorization_type]) or {}
    if authorization_type == BASIC:
        shown["BasicAuthParameters"] = {"Username": chosen["Username"]}
    elif authorization_type == API_KEY:
        shown["ApiKeyAuthParameters"] = {"ApiKeyName": chosen["ApiKeyName"]}
    else:
        shown["OAuthParameters"] = {
            "ClientParameters": {"ClientID": chosen["ClientParameters"]["ClientID"]},
            "AuthorizationEndpoint": chosen["AuthorizationEndpoint"],
            "HttpMethod": chosen["HttpMethod"],
        }
        if chosen.get("OAuthHttpParameters"):
            shown["OAuthParameters"]["OAuthHttpParameters"] = _shown_parameters(chosen["OAuthHttpParameters"])
    if given.get("InvocationHttpParameters"):
        shown["InvocationHttpParameters"] = _shown_parameters(given["InvocationHttpParameters"])
    return shown


def _shown_parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    return {
        kind: [
            {name: value for name, value in entry.items() if name != "Value" or not entry.get("IsValueSecret", True)}
            for entry in entries
        ]
        for kind, entries in given.items()
        if entries
    }


def pairs(given: Mapping[str, Any], kind: str) -> list[tuple[str, str]]:
    """Return HeaderParameters, QueryStringParameters or BodyParameters as pairs."""
    entries: Sequence[Mapping[str, Any]] = given.get(kind) or ()
    return [(entry["Key"], entry.get("Value") or "") for entry in entries if entry.get("Key")]


def _unusable(reason: str) -> TargetError:
    # The connection may be mended while the event waits.
    return TargetError(reason, dead_letter_code="NO_PERMISSIONS", retryable=True)


class Connections:
    """Opens connections for those who send requests."""

    def __init__(self, database: Database, account: Account, *, seal: Seal, send: Send) -> None:
        self._database = database
        self._account = account
        self._seal = seal
        self._tokens = Tokens(send)

    def arn(self, connection: Connection) -> str:
        """Return a connection's ARN."""
        return self._account.arn("events", f"connection/{connection.name}/{connection.connection_id}")

    def secret_arn(self, connection: Connection) -> str:
        """Return the ARN under which AWS would keep the secret."""
        name = f"secret:events!connection/{connection.name}/{connection.connection_id}-{connection.connection_id[:6]}"
        return self._account.arn("secretsmanager", name)

    def find_by_arn(self, reader: Reader, arn: str) -> Connection | None:
        """Return a connection by its ARN."""
        name = arn.partition(":connection/")[2].partition("/")[0]
        connection = find(reader, name)
        return connection if connection is not None and self.arn(connection) == arn else None

    def sealed(self, connection_id: str, authentication: Mapping[str, Any]) -> bytes:
        """Return AuthParameters sealed."""
        return self._seal.close(json.dumps(authentication).encode(), f"connection {connection_id}")

    def opened(self, connection: Connection) -> dict[str, Any]:
        """Return AuthParameters with their secrets; raise TargetError when there are none, or they cannot be opened."""
        if connection.secret is None:
            raise _unusable(
                f"Connection {connection.name} is deauthorized; give it authorization parameters with UpdateConnection."
            )
        try:
            plain = self._seal.open(connection.secret, f"connection {connection.connection_id}")
        except SealBrokenError as error:
            raise _unusable(str(error)) from None
        opened: dict[str, Any] = json.loads(plain)
        return opened

    async def parameters(self, arn: str, *, renew: bool = False) -> ConnectionParameters:
        """Return what a connection adds to a request; `renew` gets a new OAuth token in place of a refused one.

        Raises ResourceNotFoundError for no such connection, and TargetError when it cannot be used now.
        """
        connection = await self._database.read(lambda reader: self.find_by_arn(reader, arn))
        if connection is None:
            raise ResourceNotFoundError(f"Connection {arn} does not exist.")
        authentication = self.opened(connection)
        headers = [await self._authorization(connection, authentication, renew=renew)]
        added = authentication.get("InvocationHttpParameters") or {}
        return ConnectionParameters(
            (*pairs(added, "HeaderParameters"), *headers),
            tuple(pairs(added, "QueryStringParameters")),
            tuple(pairs(added, "BodyParameters")),
        )

    async def _authorization(
        self, connection: Connection, authentication: Mapping[str, Any], *, renew: bool
    ) -> tuple[str, str]:
        chosen = authentication[_PARAMETERS_OF[connection.authorization_type]]
        if connection.authorization_type == API_KEY:
            return chosen["ApiKeyName"], chosen["ApiKeyValue"]
        if connection.authorization_type == BASIC:
            user_and_password = f"{chosen['Username']}:{chosen['Password']}".encode()
            return "Authorization", f"Basic {base64.b64encode(user_and_password).decode()}"
        token = await self._token(connection, chosen, renew=renew)
        return "Authorization", f"{token.kind} {token.text}"

    async def _token(self, connection: Connection, chosen: Mapping[str, Any], *, renew: bool) -> Token:
        version = f"{connection.connection_id} {connection.modified_at_ms}"
        token = await self._tokens.token(version, chosen, renew=renew)
        if connection.state != "AUTHORIZED":
            await self._database.write(lambda tx: self._settle(tx, connection, "AUTHORIZED", ""))
        return token

    async def authorize_waiting(self) -> bool:
        """Ask for the first token of new OAuth connections; return whether there were any.

        A connection is AUTHORIZED when its authorization endpoint gave a token, else DEAUTHORIZED with the reason.
        """
        waiting = await self._database.read(
            lambda reader: reader.all(
                f"SELECT {_COLUMNS} FROM events_connection WHERE state = 'AUTHORIZING' LIMIT ?",  # noqa: S608
                (AUTHORIZING_LIMIT,),
            )
        )
        await asyncio.gather(*(self._authorize(Connection(*row)) for row in waiting))
        return bool(waiting)

    async def _authorize(self, connection: Connection) -> None:
        try:
            await self._token(connection, self.opened(connection)["OAuthParameters"], renew=True)
        except TargetError as error:
            reason = error.message
            await self._database.write(lambda tx: self._settle(tx, connection, "DEAUTHORIZED", reason))

    def _settle(self, tx: Transaction, connection: Connection, state: str, reason: str) -> None:
        """Record how an authorisation ended, unless the connection was changed meanwhile."""
        tx.execute(
            "UPDATE events_connection SET state = ?, state_reason = ?, authorized_at_ms = COALESCE(?, authorized_at_ms) "
            "WHERE connection_id = ? AND modified_at_ms = ? AND secret IS NOT NULL",
            (
                state, reason[:512], clock.now_ms() if state == "AUTHORIZED" else None, connection.connection_id,
                connection.modified_at_ms,
            ),
        )  # fmt: skip
