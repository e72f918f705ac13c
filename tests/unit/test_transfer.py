"""The Transfer service: users, keys, sessions, parked uploads, and AWS's operations on them."""

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import UTC
from pathlib import Path
from typing import Any

import asyncssh
import botocore.session
import pytest
from botocore.validate import ParamValidator

from entrepot import clock
from entrepot.arns import Account
from entrepot.database import Reader
from entrepot.database.sqlite import SQLiteDatabase
from entrepot.errors import AccessDeniedError, AwsError
from entrepot.operations import Call, Decision, Operations, Principal
from entrepot.services import transfer
from entrepot.services.transfer import SessionStart, SessionTotals, SshPublicKey, Transfer, User, partials, sessions
from entrepot.services.transfer.errors import InvalidRequestError, ResourceExistsError, ResourceNotFoundError
from entrepot.services.transfer.partials import PartialUpload
from entrepot.services.transfer.users import HomeDirectoryMapping, validate

ROLE = "arn:aws:iam::000000000000:role/r"
CALL = Call(Principal("arn:aws:iam::000000000000:root", "root", "root"), "1")


def public_key(kind: str = "ssh-ed25519") -> str:
    return asyncssh.generate_private_key(kind).export_public_key().decode().strip()


KEY_1, KEY_2 = public_key(), public_key("ecdsa-sha2-nistp256")


class Service:
    """The service behind the gate, called as the endpoint would; shapes are checked against botocore's model."""

    def __init__(self, folder: Path) -> None:
        self.database = SQLiteDatabase(folder / "ledger.db")
        self.database.migrate(transfer.MIGRATIONS)
        self.transfer = Transfer(self.database, Account())
        self.allowed = True
        self.operations = Operations(self.database, lambda principal, permission: Decision(self.allowed, "s", "no"))
        self.operations.add("transfer", transfer.operations(self.transfer))
        self.model = botocore.session.get_session().get_service_model("transfer")

    async def call(self, name: str, **request: Any) -> dict[str, Any]:
        model = self.model.operation_model(name)
        response = await self.operations.perform("transfer", name, request, CALL)
        if model.output_shape is not None:
            report = ParamValidator().validate(response, model.output_shape)
            assert not report.has_errors(), report.generate_report()
        return response


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    service = Service(tmp_path)
    await service.transfer.start()
    yield service
    await service.database.close()


async def test_the_life_of_a_user(service: Service) -> None:
    server_id = service.transfer.server_id
    assert len(server_id) == 19
    created = await service.call(
        "CreateUser",
        ServerId=server_id,
        UserName="alice",
        Role=ROLE,
        HomeDirectory="/bucket/alice",
        SshPublicKeyBody=KEY_1,
        Tags=[{"Key": "customer_id", "Value": "c1"}],
    )
    assert created == {"ServerId": server_id, "UserName": "alice"}
    imported = await service.call("ImportSshPublicKey", ServerId=server_id, UserName="alice", SshPublicKeyBody=KEY_2)
    with pytest.raises(ResourceExistsError):
        await service.call("ImportSshPublicKey", ServerId=server_id, UserName="alice", SshPublicKeyBody=KEY_2 + " c")
    user = (await service.call("DescribeUser", ServerId=server_id, UserName="alice"))["User"]
    assert [key["SshPublicKeyBody"] for key in user["SshPublicKeys"]] == [KEY_1, KEY_2]
    assert user["SshPublicKeys"][0]["DateImported"].tzinfo is UTC
    assert user["Tags"] == [{"Key": "customer_id", "Value": "c1"}]
    await service.call(
        "DeleteSshPublicKey", ServerId=server_id, UserName="alice", SshPublicKeyId=imported["SshPublicKeyId"]
    )
    await service.call(
        "UpdateUser",
        ServerId=server_id,
        UserName="alice",
        HomeDirectoryType="LOGICAL",
        HomeDirectoryMappings=[{"Entry": "/", "Target": "/bucket/a"}],
    )
    user = (await service.call("DescribeUser", ServerId=server_id, UserName="alice"))["User"]
    assert "HomeDirectory" not in user
    assert user["HomeDirectoryMappings"] == [{"Entry": "/", "Target": "/bucket/a"}]
    assert len(user["SshPublicKeys"]) == 1
    with pytest.raises(ResourceExistsError):
        await service.call("CreateUser", ServerId=server_id, UserName="alice", Role=ROLE)
    await service.call("DeleteUser", ServerId=server_id, UserName="alice")
    with pytest.raises(ResourceNotFoundError) as caught:
        await service.call("DescribeUser", ServerId=server_id, UserName="alice")
    assert caught.value.members["ResourceType"] == "User"
    assert await service.database.read(lambda r: r.all("SELECT * FROM transfer_ssh_public_key")) == []


async def test_servers_and_pages_of_users(service: Service) -> None:
    server_id = service.transfer.server_id
    for number in range(7):
        await service.call("CreateUser", ServerId=server_id, UserName=f"user{number}", Role=ROLE)
    names, token = [], None
    while True:
        page = await service.call(
            "ListUsers", ServerId=server_id, MaxResults=3, **({"NextToken": token} if token else {})
        )
        names += [user["UserName"] for user in page["Users"]]
        token = page.get("NextToken")
        if token is None:
            break
    assert names == [f"user{number}" for number in range(7)]
    with pytest.raises(InvalidRequestError):
        await service.call("ListUsers", ServerId=server_id, NextToken="\udcff")
    assert (await service.call("DescribeServer", ServerId=server_id))["Server"]["UserCount"] == 7
    assert (await service.call("ListServers"))["Servers"][0]["ServerId"] == server_id
    with pytest.raises(ResourceNotFoundError):
        await service.call("DescribeServer", ServerId="s-00000000000000000")
    service.allowed = False
    with pytest.raises(AccessDeniedError):
        await service.call("ListServers")


@pytest.mark.parametrize(
    "changes",
    [
        {"user_name": "ab"},
        {"user_name": "-abc"},
        {"user_name": "a b c"},
        {"user_name": "übel"},
        {"role_arn": "r"},
        {"home_directory": "bucket"},
        {"home_directory": "/"},
        {"home_directory": "/b/../c"},
        {"home_directory": "/b\n"},
        {"home_directory": "/" + "x" * 1024},
        {"home_directory_type": "OTHER"},
        {"home_directory_type": "LOGICAL"},
        {"home_directory_type": "LOGICAL", "home_directory": "/b", "home_directory_mappings": (("/", "/b"),)},
        {"home_directory_mappings": (("/", "/b"),)},
        {"home_directory_type": "LOGICAL", "home_directory_mappings": (("/a", "/b"), ("/a/", "/c"))},
        {"home_directory_type": "LOGICAL", "home_directory_mappings": (("a", "/b"),)},
        {"home_directory_type": "LOGICAL", "home_directory_mappings": (("/a", "/"),)},
        {"policy": "{"},
        {"policy": "[]"},
        {"policy": "x" * 2049},
        {"public_keys": ("ssh-ed25519 AAAA",)},
        {"public_keys": tuple(public_key() for _ in range(11))},
    ],
)
def test_users_that_aws_refuses(changes: dict[str, Any]) -> None:
    values: dict[str, Any] = {"user_name": "alice", "role_arn": ROLE, **changes}
    if "home_directory_mappings" in values:
        values["home_directory_mappings"] = tuple(HomeDirectoryMapping(*m) for m in values["home_directory_mappings"])
    values["ssh_public_keys"] = tuple(SshPublicKey(body) for body in values.pop("public_keys", ()))
    with pytest.raises(InvalidRequestError):
        validate(User(**values))


def test_keys() -> None:
    for kind in ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa"):
        key = asyncssh.generate_private_key(kind)
        parsed = transfer.parse_public_key(key.export_public_key().decode() + "\n")
        assert parsed.key_type == kind
        assert parsed.fingerprint == key.get_fingerprint()
    sk_ed25519 = (
        "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAIFHp1WqkSh9xPZ5cUlXbM8E9bWUcJzPNHSXSnVZFuv0z"
        "AAAABHNzaDo= token"
    )
    assert transfer.parse_public_key(sk_ed25519).comment == "token"
    short_rsa = asyncssh.generate_private_key("ssh-rsa", key_size=1024).export_public_key().decode()
    good = KEY_1.split()
    for bad in (
        "",
        "ssh-ed25519",
        short_rsa,
        f"ssh-dss {good[1]}",
        f"ssh-rsa {good[1]}",
        f"ssh-ed25519 {good[1][:-8]}",
        f"ssh-ed25519 !{good[1]}",
        f'command="x" {KEY_1}',
        f"{KEY_1}\n{KEY_2}",
        asyncssh.generate_private_key("ssh-ed25519").export_private_key().decode(),
        "x" * 3000,
    ):
        with pytest.raises(InvalidRequestError):
            transfer.parse_public_key(bad)


async def test_put_user_keeps_keys_that_stay(service: Service) -> None:
    async def put(*bodies: str) -> dict[str, str]:
        user = User("alice", ROLE, "/b", ssh_public_keys=tuple(SshPublicKey(body) for body in bodies))
        await service.database.write(lambda tx: service.transfer.put_user(tx, user))
        found = await service.database.read(lambda reader: service.transfer.find_user(reader, "alice"))
        assert found is not None
        return {key.body: key.ssh_public_key_id for key in found.ssh_public_keys}

    first = await put(KEY_1)
    second = await put(KEY_1, KEY_2)
    assert second[KEY_1] == first[KEY_1]
    assert set(await put(KEY_2)) == {KEY_2}


def test_principal() -> None:
    service = Transfer.__new__(Transfer)
    service.account = Account()
    principal = service.principal(User("alice", ROLE, "/bucket/home/${transfer:UserName}", tags={"t": "v"}))
    assert principal.arn == "arn:aws:sts::000000000000:assumed-role/r/transfer-user-alice"
    assert principal.variables["transfer:HomeDirectory"] == "bucket/home/alice"
    assert principal.variables["transfer:HomeFolder"] == "home/alice"
    assert principal.variables["transfer:HomeBucket"] == "bucket"
    logical = User(
        "alice", ROLE, home_directory_type="LOGICAL", home_directory_mappings=(HomeDirectoryMapping("/x", "/b"),)
    )
    assert "transfer:HomeBucket" not in service.principal(logical).variables


async def test_sessions(service: Service) -> None:
    start = SessionStart("s1", "alice", "192.0.2.1", 5, "SSH-2.0-x", "SHA256:x", clock.now_ms())
    await service.database.write(lambda tx: sessions.open_session(tx, start))
    assert [s.start for s in await service.transfer.live_sessions()] == [start]
    assert await service.database.read(lambda reader: sessions.count_live(reader, "alice")) == 1
    ended: list[str] = []
    service.transfer.on_disconnect = ended.append
    assert await service.transfer.disconnect("s1")
    assert not await service.transfer.disconnect("s2")
    assert ended == ["s1"]
    assert await service.database.read(sessions.requested_disconnects) == ["s1"]
    await service.database.write(lambda tx: sessions.close_session(tx, "s1", "bye", SessionTotals(1, 2, 3, 4)))
    assert await service.transfer.live_sessions() == []
    (closed,) = await service.transfer.sessions()
    assert (closed.reason, closed.totals) == ("bye", SessionTotals(1, 2, 3, 4))


@pytest.mark.parametrize(("live", "index"), [(True, "transfer_session_live"), (False, "transfer_session_login")])
async def test_sessions_are_listed_by_an_index(service: Service, live: bool, index: str) -> None:
    """Millions of ended sessions must not be passed over for the few that live."""

    def plan(reader: Reader) -> list[str]:
        told: list[str] = []

        class Explained:
            def one(self, sql: str, parameters: Any = ()) -> Any:
                return reader.one(sql, parameters)

            def all(self, sql: str, parameters: Any = ()) -> Any:
                told.extend(row[3] for row in reader.all(f"EXPLAIN QUERY PLAN {sql}", parameters))
                return reader.all(sql, parameters)

        sessions.list_sessions(Explained(), live=live)
        return told

    assert (await service.database.read(plan))[0].endswith(f"USING INDEX {index}")


async def test_sessions_of_a_dead_process_are_closed_at_start(service: Service) -> None:
    start = SessionStart("s1", "alice", "192.0.2.1", 5, "SSH-2.0-x", "SHA256:x", clock.now_ms())
    await service.database.write(lambda tx: sessions.open_session(tx, start))
    process = await asyncio.create_subprocess_exec("true")
    await process.wait()
    for pid, live in ((os.getppid(), 1), (process.pid, 0)):
        await service.database.write(lambda tx, pid=pid: tx.execute("UPDATE transfer_session SET process = ?", (pid,)))
        await service.transfer.start()
        assert len(await service.transfer.live_sessions()) == live


async def test_partials(service: Service) -> None:
    def partial(key: str, parked: str, age_ms: int = 0) -> PartialUpload:
        return PartialUpload("b", key, "alice", parked, 5, clock.now_ms() - age_ms)

    write, read = service.database.write, service.database.read
    assert await write(lambda tx: partials.put(tx, partial("k", "p1"))) == []
    assert await write(lambda tx: partials.put(tx, partial("k", "p2"))) == ["p1"]
    found = await read(lambda reader: partials.find(reader, "b", "k", "alice"))
    assert found is not None
    assert found.parked == "p2"
    assert await read(lambda reader: partials.find(reader, "b", "k", "bob")) is None
    await write(lambda tx: partials.put(tx, partial("old", "p3", age_ms=partials.EXPIRY_MS + 1)))
    assert await read(lambda reader: partials.find(reader, "b", "old", "alice")) is None
    assert await write(partials.expire) == ["p3"]
    replaced = []
    for number in range(partials.USER_LIMIT + 3):
        replaced += await write(lambda tx, n=number: partials.put(tx, partial(f"k{n}", f"q{n}", age_ms=1000 - n)))
    assert len(replaced) == 4


def test_errors_have_aws_codes() -> None:
    for error in (InvalidRequestError, ResourceExistsError, ResourceNotFoundError):
        assert issubclass(error, AwsError)
        assert error.code.endswith("Exception")
