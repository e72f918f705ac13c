"""The edge of Transfer: AWS's operations on users, keys and the server, in the shapes of botocore's model "transfer".

Source: https://docs.aws.amazon.com/transfer/latest/APIReference/
"""

import base64
import dataclasses
from collections.abc import Callable
from typing import Any, Final

from entrepot import clock
from entrepot.database import Reader, Transaction
from entrepot.operations import (
    Call,
    Operation,
    Permission,
    Permissions,
    ReadOperation,
    Request,
    Response,
    WriteOperation,
)
from entrepot.services.transfer import users
from entrepot.services.transfer.errors import InvalidRequestError
from entrepot.services.transfer.service import Transfer
from entrepot.services.transfer.users import HomeDirectoryMapping, SshPublicKey, User

PAGE_LIMIT: Final = 1000
SECURITY_POLICY: Final = "TransferSecurityPolicy-2025-03"


def operations(service: Transfer) -> list[Operation]:
    """Return what the endpoint serves of Transfer."""

    def on_server(action: str) -> Permissions:
        return lambda request: [Permission(f"transfer:{action}", service.server_arn)]

    def on_user(action: str) -> Permissions:
        return lambda request: [Permission(f"transfer:{action}", service.user_arn(str(request.get("UserName", ""))))]

    def write(
        name: str, scope: Callable[[str], Permissions], run: Callable[[Transfer, Transaction, Request], Response]
    ) -> Operation:
        return WriteOperation(name, scope(name), lambda tx, request, call: run(service, tx, request))

    def read(
        name: str, scope: Callable[[str], Permissions], run: Callable[[Transfer, Reader, Request], Response]
    ) -> Operation:
        return ReadOperation(name, scope(name), lambda reader, request, call: run(service, reader, request))

    return [
        WriteOperation(
            "CreateUser", _create_permissions(service), lambda tx, r, call: create_user(service, tx, r, call)
        ),
        WriteOperation("UpdateUser", _update_permissions(service), lambda tx, r, call: update_user(service, tx, r)),
        read("DescribeUser", on_user, describe_user),
        read("ListUsers", on_server, list_users),
        write("DeleteUser", on_user, delete_user),
        write("ImportSshPublicKey", on_user, import_ssh_public_key),
        write("DeleteSshPublicKey", on_user, delete_ssh_public_key),
        read("DescribeServer", on_server, describe_server),
        read("ListServers", lambda name: lambda request: [Permission(f"transfer:{name}", "*")], list_servers),
    ]


def _create_permissions(service: Transfer) -> Permissions:
    return lambda request: [
        Permission("transfer:CreateUser", service.server_arn),
        Permission("iam:PassRole", str(request.get("Role", "")), {"iam:PassedToService": "transfer.amazonaws.com"}),
    ]


def _update_permissions(service: Transfer) -> Permissions:
    def permissions(request: Request) -> list[Permission]:
        wanted = [Permission("transfer:UpdateUser", service.user_arn(str(request.get("UserName", ""))))]
        if "Role" in request:
            context = {"iam:PassedToService": "transfer.amazonaws.com"}
            wanted.append(Permission("iam:PassRole", str(request["Role"]), context))
        return wanted

    return permissions


def create_user(service: Transfer, tx: Transaction, request: Request, call: Call) -> Response:
    """CreateUser: a user, maybe with a first key."""
    service.check_server(request["ServerId"])
    _refuse_posix_profile(request)
    body = request.get("SshPublicKeyBody")
    user = User(
        request["UserName"],
        request["Role"],
        request.get("HomeDirectory") or "",
        request.get("HomeDirectoryType") or "PATH",
        _mappings(request),
        request.get("Policy") or None,
        {tag["Key"]: tag["Value"] for tag in request.get("Tags") or ()},
        (SshPublicKey(body),) if body else (),
    )
    users.create_user(tx, service.server_id, user)
    return {"ServerId": service.server_id, "UserName": user.user_name}


def update_user(service: Transfer, tx: Transaction, request: Request) -> Response:
    """UpdateUser: what the request names is replaced, the rest stays."""
    user = _known(service, tx, request)
    _refuse_posix_profile(request)
    changes: dict[str, Any] = {}
    for member, name in (
        ("Role", "role_arn"),
        ("HomeDirectory", "home_directory"),
        ("HomeDirectoryType", "home_directory_type"),
    ):
        if member in request:
            changes[name] = request[member]
    if "Policy" in request:
        changes["policy"] = request["Policy"] or None
    if "HomeDirectoryMappings" in request:
        changes["home_directory_mappings"] = _mappings(request)
    kind = changes.get("home_directory_type", user.home_directory_type)
    if kind != user.home_directory_type:
        # What belongs to the former type goes with it.
        changes.setdefault(
            "home_directory_mappings" if kind == "PATH" else "home_directory", () if kind == "PATH" else ""
        )
    users.update_user(tx, dataclasses.replace(user, **changes))
    return {"ServerId": service.server_id, "UserName": user.user_name}


def describe_user(service: Transfer, reader: Reader, request: Request) -> Response:
    """DescribeUser"""
    user = _known(service, reader, request)
    described: dict[str, Any] = {
        "Arn": service.user_arn(user.user_name),
        "UserName": user.user_name,
        "Role": user.role_arn,
        "HomeDirectoryType": user.home_directory_type,
        "SshPublicKeys": [
            {
                "SshPublicKeyBody": key.body,
                "SshPublicKeyId": key.ssh_public_key_id,
                "DateImported": clock.from_ms(key.imported_at_ms),
            }
            for key in user.ssh_public_keys
        ],
    }
    if user.tags:
        described["Tags"] = [{"Key": key, "Value": value} for key, value in user.tags.items()]
    if user.home_directory:
        described["HomeDirectory"] = user.home_directory
    if user.home_directory_mappings:
        described["HomeDirectoryMappings"] = [
            {"Entry": mapping.entry, "Target": mapping.target} for mapping in user.home_directory_mappings
        ]
    if user.policy is not None:
        described["Policy"] = user.policy
    return {"ServerId": service.server_id, "User": described}


def list_users(service: Transfer, reader: Reader, request: Request) -> Response:
    """ListUsers, by name, in pages."""
    service.check_server(request["ServerId"])
    limit = min(request.get("MaxResults") or PAGE_LIMIT, PAGE_LIMIT)
    found = users.list_users(reader, _after(request.get("NextToken")), limit + 1)
    response: Response = {"ServerId": service.server_id, "Users": []}
    for user, key_count in found[:limit]:
        listed = {
            "Arn": service.user_arn(user.user_name),
            "UserName": user.user_name,
            "Role": user.role_arn,
            "HomeDirectoryType": user.home_directory_type,
            "SshPublicKeyCount": key_count,
        }
        if user.home_directory:
            listed["HomeDirectory"] = user.home_directory
        response["Users"].append(listed)
    if len(found) > limit:
        response["NextToken"] = base64.urlsafe_b64encode(found[limit - 1][0].user_name.encode()).decode()
    return response


def delete_user(service: Transfer, tx: Transaction, request: Request) -> Response:
    """DeleteUser"""
    service.check_server(request["ServerId"])
    users.delete_user(tx, service.server_id, request["UserName"])
    return {}


def import_ssh_public_key(service: Transfer, tx: Transaction, request: Request) -> Response:
    """ImportSshPublicKey"""
    service.check_server(request["ServerId"])
    key_id = users.import_key(tx, service.server_id, request["UserName"], request["SshPublicKeyBody"])
    return {"ServerId": service.server_id, "SshPublicKeyId": key_id, "UserName": request["UserName"]}


def delete_ssh_public_key(service: Transfer, tx: Transaction, request: Request) -> Response:
    """DeleteSshPublicKey"""
    _known(service, tx, request)
    users.delete_key(tx, service.server_id, request["UserName"], request["SshPublicKeyId"])
    return {}


def describe_server(service: Transfer, reader: Reader, request: Request) -> Response:
    """DescribeServer: the one there is."""
    service.check_server(request["ServerId"])
    return {
        "Server": {
            "Arn": service.server_arn,
            "ServerId": service.server_id,
            "Domain": "S3",
            "EndpointType": "PUBLIC",
            "IdentityProviderType": "SERVICE_MANAGED",
            "Protocols": ["SFTP"],
            "SecurityPolicyName": SECURITY_POLICY,
            "State": "ONLINE",
            "UserCount": users.count_users(reader),
            "StructuredLogDestinations": [f"{service.account.arn('logs', f'log-group:{service.log_group}')}:*"],
            **({"HostKeyFingerprint": service.host_key_fingerprint} if service.host_key_fingerprint else {}),
        }
    }


def list_servers(service: Transfer, reader: Reader, request: Request) -> Response:
    """ListServers: the one there is."""
    server = {
        "Arn": service.server_arn,
        "ServerId": service.server_id,
        "Domain": "S3",
        "EndpointType": "PUBLIC",
        "IdentityProviderType": "SERVICE_MANAGED",
        "State": "ONLINE",
        "UserCount": users.count_users(reader),
    }
    return {"Servers": [server]}


def _known(service: Transfer, reader: Reader, request: Request) -> User:
    service.check_server(request["ServerId"])
    user = users.find_user(reader, request["UserName"])
    if user is None:
        raise users.unknown_user(service.server_id, request["UserName"])
    return user


def _mappings(request: Request) -> tuple[HomeDirectoryMapping, ...]:
    mappings = request.get("HomeDirectoryMappings") or ()
    if any(mapping.get("Type", "DIRECTORY") == "FILE" for mapping in mappings):
        raise InvalidRequestError("Mappings of Type FILE are for EFS; objects are mapped by their folder.")
    return tuple(HomeDirectoryMapping(mapping["Entry"], mapping["Target"]) for mapping in mappings)


def _refuse_posix_profile(request: Request) -> None:
    if request.get("PosixProfile"):
        raise InvalidRequestError("PosixProfile is for servers of the EFS domain; this server's domain is S3.")


def _after(token: str | None) -> str:
    if not token:
        return ""
    try:
        return base64.urlsafe_b64decode(token.encode()).decode()
    except ValueError as error:
        raise InvalidRequestError("Invalid NextToken") from error
