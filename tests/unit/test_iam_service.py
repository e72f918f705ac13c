"""IAM as the other rooms use it: roles, keys, sessions, operations; and STS on top of it."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entrepot import clock
from entrepot.arns import Account
from entrepot.database.sqlite import SQLiteDatabase
from entrepot.errors import AwsError
from entrepot.operations import Call, Decision, Operations, Permission, Principal
from entrepot.services import iam, sts
from entrepot.services.iam import IAM
from entrepot.services.iam.credentials import VERIFIED_TOKENS, AccessKeys, Claims, root_principal

ACCOUNT = Account()
SECRET = bytes(range(32))
ROLE_ARN = "arn:aws:iam::000000000000:role/demo"
TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "transfer.amazonaws.com", "AWS": "000000000000"},
                "Action": "sts:AssumeRole",
            }
        ],
    }
)
PUT = Permission("s3:PutObject", "arn:aws:s3:::source/demo/file")


def allow(action: str, resource: str = "*", **more: Any) -> str:
    statement = {"Effect": "Allow", "Action": action, "Resource": resource, **more}
    return json.dumps({"Version": "2012-10-17", "Statement": statement})


@dataclass
class Stack:
    database: SQLiteDatabase
    iam: IAM
    operations: Operations
    audited: list[tuple[Principal, Permission, Decision]]
    caller: Principal

    async def call(self, service: str, operation: str, **request: Any) -> dict[str, Any]:
        return await self.operations.perform(service, operation, request, Call(self.caller, "request"))

    async def fails(self, service: str, operation: str, code: str, **request: Any) -> AwsError:
        with pytest.raises(AwsError) as raised:
            await self.call(service, operation, **request)
        assert raised.value.code == code
        return raised.value


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    database = SQLiteDatabase(tmp_path / "ledger.db")
    database.migrate(iam.MIGRATIONS)
    audited: list[tuple[Principal, Permission, Decision]] = []
    service = IAM(database, ACCOUNT, secret=SECRET, audit=lambda *what: audited.append(what))
    await service.start()
    operations = Operations(database, service.authorize)
    operations.add("iam", iam.operations(service))
    operations.add(
        "sts", sts.operations(sts.STS(ACCOUNT, service.assume_role, service.issue_session_token, service.role_id))
    )
    await database.write(
        lambda tx: service.put_role(
            tx, "demo", trust_policy=TRUST, policies={"home": allow("s3:*", "arn:aws:s3:::${transfer:HomeDirectory}/*")}
        )
    )
    yield Stack(database, service, operations, audited, root_principal(ACCOUNT))
    await service.stop()
    await database.close()


def user(**more: Any) -> Principal:
    variables = {"transfer:HomeDirectory": "source/demo"}
    return Principal("arn:aws:transfer:::user/s/demo", "user", "demo", role_arn=ROLE_ARN, variables=variables, **more)


async def test_a_user_has_the_roles_policies_narrowed_by_the_session_policy(stack: Stack) -> None:
    assert stack.iam.authorize(user(), PUT) == Decision(True, "role/demo home#0", "role/demo home#0 allows it")
    assert not stack.iam.authorize(user(), Permission("s3:PutObject", "arn:aws:s3:::source/other/file")).allowed
    assert not stack.iam.authorize(user(session_policy=allow("s3:GetObject")), PUT).allowed
    assert stack.iam.authorize(user(session_policy=allow("s3:Put*")), PUT).allowed
    assert stack.iam.authorize(user(session_policy="{"), PUT).reason == "its session policy is not valid"
    assert [decision.allowed for _, _, decision in stack.audited] == [True, False, False, True, False]


async def test_who_is_not_known_may_nothing(stack: Stack) -> None:
    for principal in (
        Principal("arn:aws:iam::000000000000:user/x", "user", "x"),
        Principal("x", "role", "x", role_arn="arn:aws:iam::000000000000:role/nobody"),
        Principal("x", "root", "x", role_arn="arn:aws:iam::000000000000:role/nobody"),
        Principal("x", "service", "ec2.amazonaws.com"),
    ):
        assert not stack.iam.authorize(principal, PUT).allowed


async def test_an_audit_that_fails_denies(stack: Stack) -> None:
    def fails(principal: Principal, permission: Permission, decision: Decision) -> None:
        raise OSError("the audit log cannot be written")

    careful = IAM(stack.database, ACCOUNT, secret=SECRET, audit=fails)
    assert not careful.authorize(root_principal(ACCOUNT), PUT).allowed


async def test_services_may_what_their_table_says(stack: Stack) -> None:
    events = Principal("events", "service", "events.amazonaws.com")
    assert stack.iam.authorize(events, Permission("states:StartExecution", "arn:aws:states:::x")).allowed
    assert not stack.iam.authorize(events, PUT).allowed
    assert stack.iam.authorize(root_principal(ACCOUNT), PUT).allowed


async def test_tags_and_the_time_are_condition_keys(stack: Stack) -> None:
    tagged = allow("s3:*", Condition={"StringEquals": {"aws:PrincipalTag/team": "blue"}})
    dated = allow("s3:*", Condition={"DateGreaterThan": {"aws:CurrentTime": "2020-01-01T00:00:00Z"}})
    assert stack.iam.authorize(user(session_policy=tagged, tags={"team": "blue"}), PUT).allowed
    assert not stack.iam.authorize(user(session_policy=tagged, tags={"team": "red"}), PUT).allowed
    assert stack.iam.authorize(user(session_policy=dated), PUT).allowed


async def test_the_callers_address_is_a_condition_key(stack: Stack) -> None:
    policy = allow("iam:*", Condition={"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}})
    await stack.database.write(lambda tx: stack.iam.put_role(tx, "net", trust_policy=TRUST, policies={"p": policy}))
    principal = stack.iam.principal_for_role("arn:aws:iam::000000000000:role/net", "s")
    request = {"RoleName": "net"}
    await stack.operations.perform("iam", "GetRole", request, Call(principal, "r", source_ip="10.1.1.1"))
    with pytest.raises(AwsError, match="because no identity-based policy allows the iam:GetRole action"):
        await stack.operations.perform("iam", "GetRole", request, Call(principal, "r", source_ip="192.0.2.1"))


async def test_a_change_is_in_force_when_it_is_answered(stack: Stack) -> None:
    request = {"RoleName": "demo", "PolicyName": "home"}
    assert stack.iam.authorize(user(), PUT).allowed
    await stack.call("iam", "PutRolePolicy", **request, PolicyDocument=allow("s3:GetObject"))
    assert not stack.iam.authorize(user(), PUT).allowed
    await stack.call("iam", "PutRolePolicy", **request, PolicyDocument=allow("s3:PutObject"))
    assert stack.iam.authorize(user(), PUT).allowed
    await stack.call("iam", "DeleteRolePolicy", **request)
    assert not stack.iam.authorize(user(), PUT).allowed


async def test_a_change_that_is_rolled_back_is_not_in_force(stack: Stack) -> None:
    def work(tx: Any) -> None:
        stack.iam.put_role(tx, "demo", trust_policy=TRUST, policies={"all": allow("*")})
        raise RuntimeError("rolled back")

    with pytest.raises(RuntimeError):
        await stack.database.write(work)
    assert not stack.iam.authorize(user(), Permission("sns:Publish", "*")).allowed


async def test_another_process_notices_a_change(stack: Stack) -> None:
    other = IAM(stack.database, ACCOUNT, secret=SECRET)
    await other.refresh()
    assert other.authorize(user(), PUT).allowed
    key = await stack.database.write(lambda tx: stack.iam.put_user_key(tx, "operator"))
    await stack.call("iam", "DeleteRolePolicy", RoleName="demo", PolicyName="home")
    assert other.authorize(user(), PUT).allowed
    await other.refresh()
    assert not other.authorize(user(), PUT).allowed
    assert other.find_credentials(key.access_key_id, None) == key


async def test_the_operators_key_is_always_the_same_and_not_stored(stack: Stack) -> None:
    first = await stack.database.write(lambda tx: stack.iam.put_user_key(tx, "operator"))
    again = await stack.database.write(lambda tx: stack.iam.put_user_key(tx, "operator"))
    assert first == again == stack.iam.find_credentials(first.access_key_id, None)
    assert first.access_key_id.startswith("AKIA") and len(first.access_key_id) == 20
    assert len(first.secret_access_key) == 40
    assert first.secret_access_key not in repr(first)
    stored = await stack.database.read(lambda reader: reader.all("SELECT * FROM iam_access_key"))
    assert first.secret_access_key not in repr(stored)
    other = IAM(stack.database, ACCOUNT, secret=bytes(32))
    assert (await stack.database.write(lambda tx: other.put_user_key(tx, "operator"))) != first
    await stack.database.write(lambda tx: stack.iam.delete_user_keys(tx, "operator"))
    assert stack.iam.find_credentials(first.access_key_id, None) is None


async def test_temporary_credentials_are_known_to_every_process(stack: Stack) -> None:
    issued = stack.iam.issue_credentials(ROLE_ARN, "session", session_policy=allow("s3:Get*"))
    other = IAM(stack.database, ACCOUNT, secret=SECRET)
    assert other.find_credentials(issued.access_key_id, issued.session_token) == issued
    assert issued.principal.arn == "arn:aws:sts::000000000000:assumed-role/demo/session"
    assert issued.principal.role_arn == ROLE_ARN and issued.principal.session_policy == allow("s3:Get*")
    assert issued.expires_at_ms is not None and issued.expires_at_ms > clock.now_ms() + 3_500_000
    assert other.find_credentials(issued.access_key_id, None) is None
    stranger = IAM(stack.database, ACCOUNT, secret=bytes(32))
    assert stranger.find_credentials(issued.access_key_id, issued.session_token) is None
    for session_name, duration_s, policy in (("", 900, None), ("x/y", 900, None), ("s", 60, None), ("s", 900, "{")):
        with pytest.raises(AwsError):
            stack.iam.issue_credentials(ROLE_ARN, session_name, duration_s=duration_s, session_policy=policy)


KEYS = AccessKeys(ACCOUNT, SECRET)
ISSUED = KEYS.issue(Claims(ROLE_ARN, "session", 1_900_000_000_000, None))


@given(st.data())
@settings(max_examples=250)
def test_a_token_that_was_tampered_with_never_verifies(data: st.DataObject) -> None:
    assert ISSUED.session_token is not None
    tampered = list(ISSUED.session_token)
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(tampered) - 1))
        tampered[position : position + data.draw(st.integers(0, 2))] = data.draw(
            st.text(alphabet="AZaz09-_=.\n é", max_size=2)
        )
    token = "".join(tampered)
    if token != ISSUED.session_token:
        assert KEYS.verify(ISSUED.access_key_id, token) is None
    assert KEYS.verify("ASIA" + "A" * 16, ISSUED.session_token) is None
    assert KEYS.verify(data.draw(st.text(max_size=20)), data.draw(st.text(max_size=60))) is None


def test_verified_tokens_are_remembered_up_to_a_limit() -> None:
    keys = AccessKeys(ACCOUNT, SECRET)
    for number in range(VERIFIED_TOKENS + 10):
        issued = keys.issue(Claims(ROLE_ARN, f"s{number}", 1_900_000_000_000))
        assert issued.session_token is not None
        assert keys.verify(issued.access_key_id, issued.session_token) == issued
    assert len(keys._verified) == VERIFIED_TOKENS


async def test_only_a_roles_arn_makes_a_principal(stack: Stack) -> None:
    for arn in ("", "demo", "role/demo", "arn:aws:iam::000000000000:user/demo", ":role/", ":role/x"):
        with pytest.raises(AwsError):
            stack.iam.principal_for_role(arn, "session")


async def test_role_operations(stack: Stack) -> None:
    created = await stack.call(
        "iam", "CreateRole", RoleName="new", Path="/team/", AssumeRolePolicyDocument=TRUST, Description="d"
    )
    assert created["Role"]["Arn"] == "arn:aws:iam::000000000000:role/team/new"
    got = await stack.call("iam", "GetRole", RoleName="new")
    assert unquote(got["Role"]["AssumeRolePolicyDocument"]) == TRUST
    page = await stack.call("iam", "ListRoles", MaxItems=1)
    assert [role["RoleName"] for role in page["Roles"]] == ["demo"] and page["IsTruncated"]
    page = await stack.call("iam", "ListRoles", Marker=page["Marker"])
    assert [role["RoleName"] for role in page["Roles"]] == ["new"] and not page["IsTruncated"]
    await stack.fails("iam", "CreateRole", "EntityAlreadyExists", RoleName="new", AssumeRolePolicyDocument=TRUST)
    await stack.fails("iam", "CreateRole", "MalformedPolicyDocument", RoleName="x", AssumeRolePolicyDocument="{}")
    await stack.fails("iam", "CreateRole", "ValidationError", RoleName="a b", AssumeRolePolicyDocument=TRUST)
    await stack.fails("iam", "GetRole", "NoSuchEntity", RoleName="nobody")
    await stack.fails("iam", "DeleteRole", "DeleteConflict", RoleName="demo")
    await stack.call("iam", "DeleteRole", RoleName="new")
    await stack.fails("iam", "DeleteRole", "NoSuchEntity", RoleName="new")


async def test_inline_policy_operations(stack: Stack) -> None:
    on_role = {"RoleName": "demo"}
    document = allow("s3:GetObject")
    await stack.call("iam", "PutRolePolicy", **on_role, PolicyName="more", PolicyDocument=document)
    assert (await stack.call("iam", "ListRolePolicies", **on_role))["PolicyNames"] == ["home", "more"]
    got = await stack.call("iam", "GetRolePolicy", **on_role, PolicyName="more")
    assert unquote(got["PolicyDocument"]) == document
    error = await stack.fails(
        "iam",
        "PutRolePolicy",
        "MalformedPolicyDocument",
        **on_role,
        PolicyName="bad",
        PolicyDocument='{"Statement": {"Effect": "Allow", "Action": "s3", "Resource": "*"}}',
    )
    assert error.message.startswith("Statement.Action: 's3'")
    long = allow("s3:GetObject", "arn:aws:s3:::" + "x" * 10_500)
    await stack.fails("iam", "PutRolePolicy", "LimitExceeded", **on_role, PolicyName="x", PolicyDocument=long)
    await stack.fails("iam", "GetRolePolicy", "NoSuchEntity", **on_role, PolicyName="none")


async def test_managed_policy_operations(stack: Stack) -> None:
    created = await stack.call("iam", "CreatePolicy", PolicyName="publish", PolicyDocument=allow("sns:Publish"))
    arn = created["Policy"]["Arn"]
    publish = Permission("sns:Publish", "arn:aws:sns:us-east-1:000000000000:topic")
    assert not stack.iam.authorize(user(), publish).allowed
    await stack.call("iam", "AttachRolePolicy", RoleName="demo", PolicyArn=arn)
    assert stack.iam.authorize(user(), publish).statement == "role/demo publish#0"
    attached = await stack.call("iam", "ListAttachedRolePolicies", RoleName="demo")
    assert attached["AttachedPolicies"] == [{"PolicyName": "publish", "PolicyArn": arn}]
    assert (await stack.call("iam", "GetPolicy", PolicyArn=arn))["Policy"]["AttachmentCount"] == 1
    await stack.fails("iam", "DeletePolicy", "DeleteConflict", PolicyArn=arn)
    await stack.call("iam", "DetachRolePolicy", RoleName="demo", PolicyArn=arn)
    assert not stack.iam.authorize(user(), publish).allowed
    await stack.call("iam", "DeletePolicy", PolicyArn=arn)
    await stack.fails("iam", "AttachRolePolicy", "NoSuchEntity", RoleName="demo", PolicyArn=arn)


async def test_a_simulation_explains(stack: Stack) -> None:
    response = await stack.call(
        "iam",
        "SimulatePrincipalPolicy",
        PolicySourceArn=ROLE_ARN,
        ActionNames=["s3:PutObject", "sns:Publish"],
        ResourceArns=["arn:aws:s3:::source/demo/x"],
        ContextEntries=[{"ContextKeyName": "transfer:HomeDirectory", "ContextKeyValues": ["source/demo"]}],
    )
    decisions = [(result["EvalActionName"], result["EvalDecision"]) for result in response["EvaluationResults"]]
    assert decisions == [("s3:PutObject", "allowed"), ("sns:Publish", "implicitDeny")]
    assert response["EvaluationResults"][0]["MatchedStatements"][0]["SourcePolicyId"] == "role/demo home#0"


async def test_sts(stack: Stack) -> None:
    identity = await stack.call("sts", "GetCallerIdentity")
    assert identity == {
        "UserId": "000000000000",
        "Account": "000000000000",
        "Arn": "arn:aws:iam::000000000000:root",
    }
    assumed = await stack.call("sts", "AssumeRole", RoleArn=ROLE_ARN, RoleSessionName="me")
    keys = assumed["Credentials"]
    found = stack.iam.find_credentials(keys["AccessKeyId"], keys["SessionToken"])
    assert found is not None and found.secret_access_key == keys["SecretAccessKey"]
    stack.caller = found.principal
    identity = await stack.call("sts", "GetCallerIdentity")
    assert identity["Arn"] == "arn:aws:sts::000000000000:assumed-role/demo/me"
    assert identity["UserId"] == assumed["AssumedRoleUser"]["AssumedRoleId"]
    await stack.fails("sts", "AssumeRole", "AccessDeniedException", RoleArn=ROLE_ARN, RoleSessionName="me")
    await stack.fails("sts", "GetSessionToken", "AccessDeniedException")
    stack.caller = root_principal(ACCOUNT)
    token = (await stack.call("sts", "GetSessionToken", DurationSeconds=900))["Credentials"]
    session = stack.iam.find_credentials(token["AccessKeyId"], token["SessionToken"])
    assert session is not None and session.principal.kind == "root"


async def test_a_role_is_assumed_only_by_whom_it_trusts(stack: Stack) -> None:
    trust = json.dumps(
        {
            "Statement": [
                {"Effect": "Allow", "Principal": {"Service": ["lambda.amazonaws.com"]}, "Action": "sts:AssumeRole"},
                {"Effect": "Deny", "Principal": {"Service": "events.amazonaws.com"}, "Action": "*"},
            ]
        }
    )
    await stack.database.write(lambda tx: stack.iam.put_role(tx, "fn", trust_policy=trust))
    arn = "arn:aws:iam::000000000000:role/fn"
    await stack.fails("sts", "AssumeRole", "AccessDeniedException", RoleArn=arn, RoleSessionName="me")
    assert stack.iam.assume_role(Principal("x", "service", "lambda.amazonaws.com"), arn, "s", 900, None)
    for principal in (Principal("x", "service", "events.amazonaws.com"), Principal("x", "service", "s3.amazonaws.com")):
        with pytest.raises(AwsError):
            stack.iam.assume_role(principal, arn, "s", 900, None)
    conditional = json.loads(trust)
    conditional["Statement"][0]["Condition"] = {"StringEquals": {"sts:ExternalId": "x"}}
    await stack.fails(
        "iam",
        "CreateRole",
        "MalformedPolicyDocument",
        RoleName="c",
        AssumeRolePolicyDocument=json.dumps(conditional),
    )


async def test_a_session_ends_with_its_role_also_when_another_takes_its_name(stack: Stack) -> None:
    name, arn = "temporary", "arn:aws:iam::000000000000:role/temporary"

    async def make() -> None:
        await stack.call("iam", "CreateRole", RoleName=name, AssumeRolePolicyDocument=TRUST)
        await stack.call("iam", "PutRolePolicy", RoleName=name, PolicyName="p", PolicyDocument=allow("s3:*"))

    await make()
    issued = stack.iam.issue_credentials(arn, "session")
    found = stack.iam.find_credentials(issued.access_key_id, issued.session_token)
    assert found is not None
    assert stack.iam.authorize(found.principal, PUT).allowed
    await stack.call("iam", "DeleteRolePolicy", RoleName=name, PolicyName="p")
    await stack.call("iam", "DeleteRole", RoleName=name)
    assert not stack.iam.authorize(found.principal, PUT).allowed
    await make()
    assert not stack.iam.authorize(found.principal, PUT).allowed
    assert stack.iam.authorize(stack.iam.issue_credentials(arn, "session").principal, PUT).allowed
