"""The edge: Entrepot's own operations on who may log in to the console, in the shape of its model (`aws/models/entrepot`)."""

import asyncio
import base64
import logging
import re
import secrets
from urllib.parse import quote, urlencode

from entrepot import clock
from entrepot.arns import Account
from entrepot.console import visitors
from entrepot.console.errors import LimitExceededError, ResourceNotFoundError, ValidationError
from entrepot.console.visitors import PASSWORD_LEAST_CHARS, PASSWORD_MOST_CHARS
from entrepot.database import Database, Reader, Transaction
from entrepot.operations import (
    AsyncOperation,
    Call,
    Operation,
    Permission,
    Permissions,
    ReadOperation,
    Request,
    Response,
    WriteOperation,
)

USERS_LIMIT = 1_000
"""Users of the console, at most."""

TOTP_SECRET_BYTES = 20
"""As long as the digest of HMAC-SHA-1, as RFC 4226 recommends."""

_NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}")

log = logging.getLogger("entrepot.console")


def operations(database: Database, account: Account, stack_name: str) -> list[Operation]:
    """Return the operations on the console's users."""

    def permit(action: str) -> Permissions:
        resource = account.arn("entrepot", "console-user/*")
        return lambda _: (Permission(f"entrepot:{action}", resource),)

    async def put(request: Request, call: Call) -> Response:
        return await _put_console_user(database, stack_name, request, call)

    return [
        AsyncOperation("PutConsoleUser", permit("PutConsoleUser"), put),
        ReadOperation("ListConsoleUsers", permit("ListConsoleUsers"), lambda reader, *_: _list_console_users(reader)),
        WriteOperation("DeleteConsoleUser", permit("DeleteConsoleUser"), _delete_console_user),
    ]


async def _put_console_user(database: Database, stack_name: str, request: Request, call: Call) -> Response:
    """PutConsoleUser: a new user, or another password; whatever session the user has ends.

    `totp` true asks for one-time codes under a new secret, false no longer asks; without it, that stays as it is.
    """
    name, password = request["name"], request["password"]
    if not _NAME.fullmatch(name):
        raise ValidationError("The name must have 1 to 64 letters, digits, or . _ @ -")
    if not PASSWORD_LEAST_CHARS <= len(password) <= PASSWORD_MOST_CHARS:
        raise ValidationError(f"The password must have {PASSWORD_LEAST_CHARS} to {PASSWORD_MOST_CHARS} characters.")
    if password.casefold() == name.casefold():
        raise ValidationError("The password must not be the name.")
    wanted = request.get("totp")
    secret = (
        base64.b32encode(secrets.token_bytes(TOTP_SECRET_BYTES)).decode() if wanted else None if wanted is None else ""
    )
    hashed = await asyncio.to_thread(visitors.hash_password, password)

    def put(tx: Transaction) -> None:
        if visitors.secrets_of(tx, name) is None and visitors.count_users(tx) >= USERS_LIMIT:
            raise LimitExceededError(f"There are {USERS_LIMIT} users of the console already; delete one.")
        visitors.put_user(tx, name, hashed, secret)

    await database.write(put)
    log.info("%s set the password of the console's user %s.", call.principal.name, name)
    response: Response = {"name": name}
    if secret:
        query = urlencode({"secret": secret, "issuer": f"Entrepot {stack_name}"}, quote_via=quote)
        response["totp_uri"] = f"otpauth://totp/{quote(f'Entrepot {stack_name}')}:{quote(name)}?{query}"
    return response


def _list_console_users(reader: Reader) -> Response:
    """ListConsoleUsers: by name."""
    return {
        "users": [
            {"name": name, "totp": totp, "created_at": clock.from_ms(created_at_ms)}
            for name, totp, created_at_ms in visitors.users(reader)
        ]
    }


def _delete_console_user(tx: Transaction, request: Request, call: Call) -> Response:
    """DeleteConsoleUser: the user's sessions end, too."""
    if not visitors.delete_user(tx, request["name"]):
        raise ResourceNotFoundError(f"The console has no user {request['name'][:100]}.")
    tx.after_commit(lambda: log.info("%s deleted the console's user %s.", call.principal.name, request["name"]))
    return {}
