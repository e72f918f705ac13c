"""Resource policies of functions: AddPermission and its effect on services and on roles."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from entrepot import ids
from entrepot.errors import AccessDeniedError
from entrepot.operations import Call, Principal
from tests.unit.lambda_site import ARN, Site, code, site

RULE = "arn:aws:events:us-east-1:000000000000:rule/orders"
EVENTS = Principal("arn:aws:iam::000000000000:service/events.amazonaws.com", "service", "events.amazonaws.com")
ADD = {
    "FunctionName": "demo", "StatementId": "rule", "Action": "lambda:InvokeFunction",
    "Principal": "events.amazonaws.com", "SourceArn": RULE,
}  # fmt: skip


@pytest.fixture
async def at(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path) as made:
        await made.create(Publish=True)
        yield made


async def invoke_as_service(at: Site, function: str = "demo", source_arn: str = RULE) -> int:
    request = {"FunctionName": function, "InvocationType": "Event", "Payload": b"{}"}
    call = Call(EVENTS, ids.random_uuid(), source_arn=source_arn)
    answer = await at.operations.perform("lambda", "Invoke", request, call)
    status: int = answer["StatusCode"]
    return status


async def test_a_policy_from_its_first_statement_to_its_last(at: Site) -> None:
    assert await at.code_of("GetPolicy", FunctionName="demo") == "ResourceNotFoundException"
    added = json.loads((await at.do("AddPermission", **ADD, SourceAccount="000000000000"))["Statement"])
    assert added == {
        "Sid": "rule",
        "Effect": "Allow",
        "Principal": {"Service": "events.amazonaws.com"},
        "Action": "lambda:InvokeFunction",
        "Resource": ARN,
        "Condition": {
            "StringEquals": {"AWS:SourceAccount": "000000000000"},
            "ArnLike": {"AWS:SourceArn": RULE},
        },
    }
    assert await at.code_of("AddPermission", **ADD) == "ResourceConflictException"
    policy = await at.do("GetPolicy", FunctionName="demo")
    assert json.loads(policy["Policy"]) == {"Version": "2012-10-17", "Id": "default", "Statement": [added]}
    another = ADD | {"StatementId": "all", "Principal": "*"}
    assert await at.code_of("AddPermission", **another, RevisionId="old") == "PreconditionFailedException"
    await at.do("AddPermission", **another, RevisionId=policy["RevisionId"])
    lost = {"FunctionName": "demo", "StatementId": "lost"}
    assert await at.code_of("RemovePermission", **lost) == "ResourceNotFoundException"
    for statement_id in ("rule", "all"):
        await at.do("RemovePermission", FunctionName="demo", StatementId=statement_id)
    assert await at.code_of("GetPolicy", FunctionName="demo") == "ResourceNotFoundException"


async def test_a_service_needs_a_statement_where_there_is_a_policy(at: Site) -> None:
    assert await invoke_as_service(at) == 202, "without a policy, who put the target was asked"
    await at.do("AddPermission", **ADD)
    assert await invoke_as_service(at) == 202
    for source_arn in (RULE + "-other", ""):
        with pytest.raises(AccessDeniedError, match="resource policy"):
            await invoke_as_service(at, source_arn=source_arn)
    await at.do("AddPermission", **ADD | {"StatementId": "s3", "Principal": "s3.amazonaws.com"}, Qualifier="1")
    with pytest.raises(AccessDeniedError):
        await invoke_as_service(at, "demo:1")
    await at.do("RemovePermission", FunctionName="demo", StatementId="rule")
    assert await invoke_as_service(at, source_arn="") == 202


async def test_what_iam_is_told_of_the_policy(at: Site) -> None:
    await at.do("AddPermission", **ADD | {"Principal": "arn:aws:iam::000000000000:role/friend"})
    operation = at.operations.find("lambda", "Invoke")
    assert operation is not None
    (permission,) = operation.permissions({"FunctionName": "demo"})
    assert "role/friend" in permission.resource_policy
    (permission,) = operation.permissions({"FunctionName": "demo:1"})
    assert permission.resource_policy == "", "a policy is of exactly one function, version or alias"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"StatementId": "a b"}, "ValidationException"),
        ({"Action": "s3:GetObject"}, "ValidationException"),
        ({"Principal": "nobody"}, "InvalidParameterValueException"),
        ({"Qualifier": "$LATEST"}, "InvalidParameterValueException"),
        ({"PrincipalOrgID": "o-1234567890"}, "InvalidParameterValueException"),
        ({"Qualifier": "9"}, "ResourceNotFoundException"),
        ({"FunctionName": "nobody"}, "ResourceNotFoundException"),
    ],
    ids=str,
)
async def test_statements_that_are_refused(at: Site, change: dict[str, str], error: str) -> None:
    assert await at.code_of("AddPermission", **ADD | change) == error


async def test_a_policy_has_a_limit_and_goes_with_its_function(at: Site) -> None:
    for number in range(200):
        last = ADD | {"StatementId": f"s{number}", "SourceArn": RULE + "x" * 500}
        if number > 20 and await _is_full(at, last):
            break
        if number <= 20:
            await at.do("AddPermission", **last)
    else:
        pytest.fail("no limit")
    await at.do("DeleteFunction", FunctionName="demo")
    await at.do("CreateFunction", FunctionName="demo", Runtime="python3.12", Handler="h.x", Code=code(),
                Role="arn:aws:iam::000000000000:role/demo")  # fmt: skip
    assert await at.code_of("GetPolicy", FunctionName="demo") == "ResourceNotFoundException"


async def _is_full(at: Site, request: dict[str, str]) -> bool:
    try:
        await at.do("AddPermission", **request)
    except Exception as error:  # noqa: BLE001 - which one is what the test asks
        assert type(error).__name__ == "PolicyLengthExceededError"
        return True
    return False
