"""Users: who may log in over SFTP, with which keys, where to; and why something was denied to them."""

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from entrepot import clock
from entrepot.console import render
from entrepot.console.ask import Ask
from entrepot.console.pages.forms import ask, done, field
from entrepot.errors import AwsError
from entrepot.services.transfer import parse_public_key

PAGE_SIZE = 200

SFTP_ACTIONS = (
    ("s3:PutObject", "upload a file, or make a folder"),
    ("s3:GetObject", "download a file"),
    ("s3:ListBucket", "list a folder"),
    ("s3:DeleteObject", "remove a file or a folder"),
)
"""What SFTP's requests ask IAM for, in words."""

DENIALS_SHOWN = 10
DENIALS_SPAN_MS = 7 * 86_400_000


async def users(request: Request) -> Response:
    """The list."""
    asking = ask(request)
    server = await _server(asking)
    answer = await asking(
        "transfer",
        "ListUsers",
        ServerId=server,
        MaxResults=PAGE_SIZE,
        NextToken=request.query_params.get("next") or None,
    )
    next_token = answer.get("NextToken")
    return render.page(
        request,
        "users.html",
        section="users",
        users=answer["Users"],
        next_page=render.with_query(request, next=next_token) if next_token else "",
    )


async def user(request: Request) -> Response:
    """A user: keys, home, role; and the form that explains decisions."""
    asking, name = ask(request), request.path_params["name"]
    server = await _server(asking)
    found = (await asking("transfer", "DescribeUser", ServerId=server, UserName=name))["User"]
    query = request.query_params
    asked = {"action": query.get("action", "").strip(), "target": query.get("target", "").strip()}
    explained, problem = None, ""
    if asked["action"] and asked["target"]:
        kind = "resource" if asked["target"].startswith("arn:") or asked["target"] == "*" else "path"
        try:
            explained = await asking(
                "entrepot", "ExplainAccess", user_name=name, action=asked["action"], **{kind: asked["target"]}
            )
        except AwsError as error:
            problem = error.message
    live_sessions = (await asking("entrepot", "ListSessions", live=True))["sessions"]
    return render.page(
        request,
        "user.html",
        section="users",
        user=found,
        keys=[_key(stored) for stored in found["SshPublicKeys"]],
        home=found.get("HomeDirectory", ""),
        mappings=found.get("HomeDirectoryMappings", []),
        policy=found.get("Policy", ""),
        tags=found.get("Tags", []),
        customer=next((tag["Value"] for tag in found.get("Tags", []) if tag["Key"] == "customer_id"), name),
        connected=sum(session["user_name"] == name for session in live_sessions),
        actions=SFTP_ACTIONS,
        asked=asked,
        explained=explained,
        problem=problem,
        denials=await _denials(asking, name),
    )


def _key(stored: dict[str, Any]) -> dict[str, Any]:
    """Return a stored key for the table."""
    parsed = parse_public_key(stored["SshPublicKeyBody"])
    return {
        "id": stored["SshPublicKeyId"],
        "imported_at": stored["DateImported"],
        "type": parsed.key_type,
        "fingerprint": parsed.fingerprint,
        "comment": parsed.comment,
    }


async def _denials(asking: Ask, name: str) -> list[dict[str, Any]]:
    """Return what was denied to a user lately, as the server's log tells, the newest first."""
    server = await _server(asking)
    try:
        answer = await asking(
            "logs",
            "FilterLogEvents",
            logGroupName=f"/aws/transfer/{server}",
            filterPattern='{ $.message = "ACCESS_DENIED" && $.user = "' + name + '" }',
            startTime=clock.now_ms() - DENIALS_SPAN_MS,
            limit=1_000,
        )
    except AwsError:
        return []
    denials = []
    for logged in reversed(answer["events"][-DENIALS_SHOWN:]):
        try:
            line = json.loads(logged["message"])
        except ValueError:
            continue
        denials.append({**dict.fromkeys(("operation", "path", "action", "statement", "reason"), ""), **line,
                        "at_ms": logged["timestamp"]})  # fmt: skip
    return denials


async def _server(asking: Ask) -> str:
    """Return the id of the SFTP server, the only one there is."""
    servers = (await asking("transfer", "ListServers"))["Servers"]
    server_id: str = servers[0]["ServerId"]
    return server_id


# ── what can be done ─────────────────────────────────────────────────────────────────────────────────────────────────


async def add_key(request: Request) -> Response:
    """Store a public key."""
    asking, name = ask(request), request.path_params["name"]
    request.app.state.console.note(request, "ImportSshPublicKey", name)
    body = " ".join(field(request, "body").split())
    try:
        await asking(
            "transfer", "ImportSshPublicKey", ServerId=await _server(asking), UserName=name, SshPublicKeyBody=body
        )
    except AwsError as error:
        return done(render.path("users", name), f"The key was not stored: {error.message}")
    return done(render.path("users", name), "The key is stored: the user can log in with it at once.")


async def delete_key(request: Request) -> Response:
    """Remove a public key; sessions that logged in with it go on."""
    asking, name, key_id = ask(request), request.path_params["name"], field(request, "key_id")
    request.app.state.console.note(request, "DeleteSshPublicKey", f"{name} {key_id}")
    await asking("transfer", "DeleteSshPublicKey", ServerId=await _server(asking), UserName=name, SshPublicKeyId=key_id)
    return done(render.path("users", name), "The key is removed. Sessions that logged in with it go on until they end.")


ROUTES = [
    Route("/users", users, name="users"),
    Route("/users/{name}", user, name="user"),
    Route("/users/{name}/keys", add_key, methods=["POST"], name="user_add_key"),
    Route("/users/{name}/keys/delete", delete_key, methods=["POST"], name="user_delete_key"),
]
