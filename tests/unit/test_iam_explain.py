"""Why something is allowed or denied: the explanation agrees with the evaluator, whatever the policies."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from entrepot.operations import Permission
from entrepot.services.iam.explain import explain

VARIABLES = {"transfer:HomeDirectory": "bucket/home"}
WANTED = Permission("s3:GetObject", "arn:aws:s3:::bucket/home/a.txt", {"aws:SourceIp": "10.0.0.1"})


def policy(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def test_each_part_of_a_statement_answers_for_itself() -> None:
    inside = {"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}, "Bool": {"aws:SecureTransport": "true"}}
    resource = "arn:aws:s3:::${transfer:HomeDirectory}/*"
    home = {"Sid": "Home", "Effect": "Allow", "Action": "s3:Get*", "Resource": resource, "Condition": inside}
    other = {"Effect": "Deny", "Action": "s3:Put*", "Resource": "*"}
    elsewhere = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::other/*"}
    found = explain([("role/r p", policy(home, other)), ("role/r q", policy(elsewhere))], None, WANTED, VARIABLES)
    assert not found.decision.allowed
    assert "no identity-based policy allows" in found.decision.reason
    first, second, third = found.statements
    assert (first.label, first.action_matches, first.resource_matches, first.applies) == (
        "role/r p#Home",
        True,
        True,
        False,
    )
    assert {answer.key: answer.holds for answer in first.conditions} == {
        "aws:sourceip": True,
        "aws:securetransport": False,
    }
    assert json.loads(first.text) == home
    assert (second.action_matches, second.resource_matches, second.applies) == (False, True, False)
    assert (third.label, third.action_matches, third.resource_matches) == ("role/r q#0", True, False)


STATEMENTS = st.fixed_dictionaries(
    {
        "Effect": st.sampled_from(["Allow", "Deny"]),
        "Action": st.sampled_from(["s3:*", "s3:PutObject", "*"]),
        "Resource": st.sampled_from(["*", "arn:aws:s3:::${transfer:HomeDirectory}/*", "arn:aws:s3:::${aws:nothing}/*"]),
    },
    optional={
        "Condition": st.sampled_from([{"StringEquals": {"aws:SourceIp": ip}} for ip in ("10.0.0.1", "10.9.9.9")])
    },
)
POLICIES = st.lists(STATEMENTS, min_size=1, max_size=3).map(lambda statements: policy(*statements))


@given(st.lists(POLICIES, max_size=3), st.none() | POLICIES)
def test_the_decision_follows_from_the_statements(documents: list[str], session: str | None) -> None:
    named = [(f"role/r p{number}", text) for number, text in enumerate(documents)]
    found = explain(named, session, WANTED, VARIABLES)
    applying = [statement for statement in found.statements if statement.applies]
    denied = any(not statement.allows for statement in applying)
    kinds = {statement.kind for statement in applying if statement.allows}
    allowed = not denied and "identity" in kinds and (session is None or "session" in kinds)
    assert found.decision.allowed == allowed
    if found.decision.statement:
        assert found.decision.statement in {statement.label for statement in applying}
