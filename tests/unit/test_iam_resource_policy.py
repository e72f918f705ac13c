"""Policies of resources beside those of the caller: who is allowed, who is denied, and what is malformed."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrepot.errors import AwsError
from entrepot.operations import Decision, Permission, Principal
from entrepot.services.iam.errors import MalformedPolicyDocumentError
from entrepot.services.iam.resource_policy import beside_resource_policy, check_resource_policy

ACCOUNT = "000000000000"
TOPIC = f"arn:aws:sns:us-east-1:{ACCOUNT}:t"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/r"
SESSION = Principal(f"arn:aws:sts::{ACCOUNT}:assumed-role/r/s", "role", "r/s", role_arn=ROLE)
NARROWED = Principal(SESSION.arn, "role", "r/s", role_arn=ROLE, session_policy="{}")
ROOT = Principal(f"arn:aws:iam::{ACCOUNT}:root", "root", "root")
EVENTS = Principal("arn:aws:iam::000000000000:service/events.amazonaws.com", "service", "events.amazonaws.com")
ALLOWED = Decision(True, "own", "own allows it")
NOT_ALLOWED = Decision(False, "", "no identity-based policy allows the action")
DENIED = Decision(False, "own", "with an explicit deny in an identity-based policy")


def statement(effect: str, principal: Any, **more: Any) -> dict[str, Any]:
    return {"Effect": effect, "Principal": principal, "Action": "SNS:Publish", "Resource": TOPIC, **more}


def decide(
    own: Decision, principal: Principal, *statements: dict[str, Any], context: dict[str, str] | None = None
) -> Decision:
    text = json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
    return beside_resource_policy(own, principal, Permission("sns:Publish", TOPIC, context or {}, text), {})


@pytest.mark.parametrize(
    ("principal", "named"),
    [
        (SESSION, {"AWS": ROLE}),
        (SESSION, {"AWS": SESSION.arn}),
        (SESSION, {"AWS": ["arn:aws:iam::000000000000:role/other", ROLE]}),
        (SESSION, "*"),
        (SESSION, {"AWS": "*"}),
        (EVENTS, {"Service": "events.amazonaws.com"}),
        (EVENTS, "*"),
        (EVENTS, {"AWS": "*"}),
        (ROOT, {"AWS": ACCOUNT}),
    ],
)
def test_who_is_named_is_allowed(principal: Principal, named: Any) -> None:
    assert decide(NOT_ALLOWED, principal, statement("Allow", named)).allowed
    assert not decide(ALLOWED, principal, statement("Deny", named)).allowed


@pytest.mark.parametrize(
    ("principal", "named"),
    [
        (SESSION, {"AWS": f"{ROLE}-2"}),
        (SESSION, {"Service": "events.amazonaws.com"}),
        (EVENTS, {"Service": "sns.amazonaws.com"}),
        (EVENTS, {"AWS": ACCOUNT}),
        (SESSION, {"AWS": f"arn:aws:iam::{ACCOUNT}:user/r"}),
    ],
)
def test_who_is_not_named_is_not_touched(principal: Principal, named: Any) -> None:
    assert decide(NOT_ALLOWED, principal, statement("Allow", named)) == NOT_ALLOWED
    assert decide(ALLOWED, principal, statement("Deny", named)) == ALLOWED


@pytest.mark.parametrize("named", [ACCOUNT, f"arn:aws:iam::{ACCOUNT}:root"])
def test_an_account_allows_only_whom_its_own_policies_allow(named: str) -> None:
    assert not decide(NOT_ALLOWED, SESSION, statement("Allow", {"AWS": named})).allowed
    assert decide(ALLOWED, SESSION, statement("Allow", {"AWS": named})).allowed
    assert not decide(ALLOWED, SESSION, statement("Deny", {"AWS": named})).allowed


def test_a_deny_wins_whatever_allows() -> None:
    allow, deny = statement("Allow", "*"), statement("Deny", {"AWS": ROLE})
    assert not decide(ALLOWED, SESSION, allow, deny).allowed
    assert decide(DENIED, SESSION, allow) == DENIED
    assert decide(ALLOWED, ROOT, allow, deny).allowed


def test_a_session_policy_is_not_widened() -> None:
    assert not decide(NOT_ALLOWED, NARROWED, statement("Allow", "*")).allowed
    assert not decide(ALLOWED, NARROWED, statement("Deny", "*")).allowed


def test_action_resource_and_condition_must_fit() -> None:
    assert not decide(NOT_ALLOWED, SESSION, statement("Allow", "*", Action="SNS:Subscribe")).allowed
    assert not decide(NOT_ALLOWED, SESSION, statement("Allow", "*", Resource=f"{TOPIC}-2")).allowed
    assert decide(NOT_ALLOWED, SESSION, statement("Allow", "*", Action="sns:*", Resource="*")).allowed
    source = statement("Allow", "*", Condition={"ArnEquals": {"aws:SourceArn": "arn:aws:events:us-east-1:1:rule/r"}})
    assert not decide(NOT_ALLOWED, EVENTS, source).allowed
    assert not decide(
        NOT_ALLOWED, EVENTS, source, context={"aws:SourceArn": "arn:aws:events:us-east-1:1:rule/x"}
    ).allowed
    assert decide(NOT_ALLOWED, EVENTS, source, context={"aws:SourceArn": "arn:aws:events:us-east-1:1:rule/r"}).allowed


@pytest.mark.parametrize(
    "document",
    [
        {"Statement": {"Effect": "Allow", "Action": "sns:Publish", "Resource": "*"}},
        {"Statement": {"Effect": "Allow", "NotPrincipal": "*", "Action": "sns:Publish", "Resource": "*"}},
        {"Statement": statement("Allow", {})},
        {"Statement": statement("Allow", {"Federated": "x"})},
        {"Statement": statement("Maybe", "*")},
        {"Statement": statement("Allow", "*", Action="publish")},
        {"Statement": statement("Allow", "*", Resource="topic")},
        {"Statement": statement("Allow", "*", Condition={"Like": {"a": "b"}})},
        {"Statement": []},
    ],
)
def test_malformed_policies_are_refused(document: dict[str, Any]) -> None:
    with pytest.raises(MalformedPolicyDocumentError):
        check_resource_policy(json.dumps(document))


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
        ["Statement", "Effect", "Principal", "Action", "Resource", "Condition", "AWS", "x"]), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(_json)
def test_no_document_breaks_the_check(document: Any) -> None:
    with contextlib.suppress(AwsError):
        check_resource_policy(json.dumps(document))
