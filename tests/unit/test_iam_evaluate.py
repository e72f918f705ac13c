"""Decisions as AWS documents them, and what must hold for every policy."""

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entrepot.operations import Decision, Permission
from entrepot.services.iam import globs
from entrepot.services.iam.errors import MalformedPolicyDocumentError
from entrepot.services.iam.evaluate import evaluate
from entrepot.services.iam.policy import Policies, compile_policy, join
from entrepot.services.iam.service_linked import ADMINISTRATOR, NOTHING

BUCKET = "arn:aws:s3:::bucket"


def statement(effect: str = "Allow", action: Any = "s3:GetObject", resource: Any = "*", **more: Any) -> dict[str, Any]:
    result = {"Effect": effect, "Action": action, "Resource": resource, **more}
    for negated, plain in (("NotAction", "Action"), ("NotResource", "Resource")):
        if negated in more:
            del result[plain]
    return result


def policy(*statements: dict[str, Any], version: str = "2012-10-17", name: str = "role/demo home") -> Policies:
    return compile_policy(json.dumps({"Version": version, "Statement": list(statements)}), name)


def decide(
    *statements: dict[str, Any],
    action: str = "s3:GetObject",
    resource: str = f"{BUCKET}/key",
    context: dict[str, Any] | None = None,
    variables: dict[str, str] | None = None,
    session: Policies | None = None,
) -> Decision:
    return evaluate(policy(*statements), session, Permission(action, resource, context or {}), variables or {})


@pytest.mark.parametrize(
    ("statements", "action", "resource", "allowed"),
    [
        ([statement()], "s3:GetObject", f"{BUCKET}/key", True),
        ([statement()], "s3:PutObject", f"{BUCKET}/key", False),
        ([statement(action="S3:getobject")], "s3:GetObject", f"{BUCKET}/key", True),
        ([statement(action="s3:Get*")], "s3:GetObjectTagging", f"{BUCKET}/key", True),
        ([statement(action="s3:Get?bject")], "s3:GetObject", f"{BUCKET}/key", True),
        ([statement(action="*")], "dynamodb:PutItem", "*", True),
        ([statement(action=["s3:PutObject", "s3:GetObject"])], "s3:GetObject", f"{BUCKET}/key", True),
        ([statement(NotAction="s3:Delete*")], "s3:GetObject", f"{BUCKET}/key", True),
        ([statement(NotAction="s3:Delete*")], "s3:DeleteObject", f"{BUCKET}/key", False),
        ([statement(NotResource=f"{BUCKET}/private/*")], "s3:GetObject", f"{BUCKET}/key", True),
        ([statement(NotResource=f"{BUCKET}/private/*")], "s3:GetObject", f"{BUCKET}/private/key", False),
        ([statement(resource=f"{BUCKET}/*")], "s3:GetObject", f"{BUCKET}/a/b/c", True),
        ([statement(resource=f"{BUCKET}/*")], "s3:GetObject", BUCKET, False),
        ([statement(resource=f"{BUCKET}/*")], "s3:GetObject", "arn:aws:s3:::bucket2/a", False),
        ([statement(resource=f"{BUCKET}/home/*/in?")], "s3:GetObject", f"{BUCKET}/home/a/b/in1", True),
        ([statement(resource=f"{BUCKET}/home/*/in?")], "s3:GetObject", f"{BUCKET}/home/a/in", False),
        ([statement(resource=f"{BUCKET}/Key")], "s3:GetObject", f"{BUCKET}/key", False),
        # A wildcard does not leave its part of the ARN, save in the last one, which may hold colons.
        ([statement(resource="arn:aws:s3:*:secret")], "s3:GetObject", "arn:aws:s3:::secret", None),
        ([statement(resource="arn:aws:s3:*:*:bucket/*")], "s3:GetObject", f"{BUCKET}/key", True),
        ([statement(resource="arn:*:s3:::bucket/*")], "s3:GetObject", f"{BUCKET}/key", True),
        ([statement(resource="arn:aws:lambda:*:*:function")], "lambda:X", "arn:aws:lambda:r:1:x:function", False),
        (
            [statement(action="lambda:*", resource="arn:aws:lambda:*:*:*:f")],
            "lambda:X",
            "arn:aws:lambda:r:1:function:f",
            True,
        ),
        # Deny wins, wherever it stands; without an Allow the answer is no.
        ([statement("Deny"), statement()], "s3:GetObject", f"{BUCKET}/key", False),
        ([statement(action="*"), statement("Deny", "s3:*", f"{BUCKET}/k*")], "s3:GetObject", f"{BUCKET}/key", False),
        ([statement(action="*"), statement("Deny", "s3:*", f"{BUCKET}/x*")], "s3:GetObject", f"{BUCKET}/key", True),
        ([statement("Deny", NotAction="s3:GetObject"), statement(action="*")], "s3:GetObject", f"{BUCKET}/key", True),
        ([statement("Deny", NotAction="s3:GetObject"), statement(action="*")], "s3:PutObject", f"{BUCKET}/key", False),
    ],
)
def test_decisions(statements: list[dict[str, Any]], action: str, resource: str, allowed: bool | None) -> None:
    if allowed is None:
        with pytest.raises(MalformedPolicyDocumentError, match="must be in ARN format"):
            policy(*statements)
    else:
        assert decide(*statements, action=action, resource=resource).allowed is allowed


def test_decisions_say_why() -> None:
    assert decide(statement(Sid="AllowHome")).statement == "role/demo home#AllowHome"
    assert decide(statement("Deny"), statement()) == Decision(
        False, "role/demo home#0", "with an explicit deny in an identity-based policy"
    )
    assert decide(statement(), action="s3:PutObject") == Decision(
        False, "", "no identity-based policy allows the s3:PutObject action"
    )
    narrowed = policy(statement(resource=f"{BUCKET}/home/*"), name="session policy")
    assert decide(statement(), session=narrowed).reason == "no session policy allows the s3:GetObject action"
    assert decide(statement(), session=narrowed, resource=f"{BUCKET}/home/x").allowed
    denying = policy(statement(action="*"), statement("Deny"), name="session policy")
    assert decide(statement(), session=denying).reason == "with an explicit deny in a session policy"
    assert decide(statement(action="s3:PutObject"), session=policy(statement())).reason.startswith("no identity-based")


VARIABLES = {
    "aws:username": "anna",
    "transfer:UserName": "anna",
    "transfer:HomeDirectory": "bucket/home/anna",
    "transfer:HomeFolder": "home/anna",
    "transfer:HomeBucket": "bucket",
    "aws:PrincipalTag/team": "blue*",
}


@pytest.mark.parametrize(
    ("pattern", "resource", "allowed"),
    [
        ("arn:aws:s3:::${transfer:HomeDirectory}/*", f"{BUCKET}/home/anna/x", True),
        ("arn:aws:s3:::${transfer:HomeDirectory}/*", f"{BUCKET}/home/annabel/x", False),
        ("arn:aws:s3:::${transfer:homedirectory}*", f"{BUCKET}/home/anna", True),
        ("arn:aws:s3:::${transfer:HomeBucket}/home/${transfer:UserName}/?", f"{BUCKET}/home/anna/x", True),
        ("arn:aws:s3:::bucket/${aws:PrincipalTag/team}", f"{BUCKET}/blue*", True),
        ("arn:aws:s3:::bucket/${aws:PrincipalTag/team}", f"{BUCKET}/bluebell", False),
        ("arn:aws:s3:::bucket/${*}${?}${$}", f"{BUCKET}/*?$", True),
        ("arn:aws:s3:::bucket/${*}", f"{BUCKET}/anything", False),
        ("arn:aws:s3:::bucket/${aws:nobody, 'guest'}/*", f"{BUCKET}/guest/x", True),
        ("arn:aws:s3:::bucket/${aws:username, 'guest'}/*", f"{BUCKET}/guest/x", False),
        ("arn:aws:s3:::bucket/${aws:nobody}*", f"{BUCKET}/x", False),
        ("arn:aws:s3:::bucket/$username", f"{BUCKET}/$username", True),
    ],
)
def test_policy_variables(pattern: str, resource: str, allowed: bool) -> None:
    assert decide(statement(resource=pattern), resource=resource, variables=VARIABLES).allowed is allowed


def test_a_variable_without_a_value_never_lets_anybody_in() -> None:
    unknown = "arn:aws:s3:::bucket/${aws:nobody}/*"
    everything = statement(action="*")
    assert not decide(statement(NotResource=unknown)).allowed
    assert not decide(everything, statement("Deny", resource=unknown)).allowed
    assert not decide(everything, statement("Deny", NotResource=unknown)).allowed
    condition = {"StringEquals": {"s3:prefix": "${aws:nobody}"}}
    context = {"s3:prefix": "x"}
    assert not decide(statement(Condition=condition), context=context).allowed
    assert not decide(everything, statement("Deny", Condition=condition), context=context).allowed
    negated = {"StringNotEquals": {"s3:prefix": "${aws:nobody}"}}
    assert not decide(statement(Condition=negated), context=context).allowed
    assert not decide(everything, statement("Deny", Condition=negated), context=context).allowed


def test_a_value_stays_within_its_part_of_the_arn() -> None:
    pattern = "arn:aws:sns:us-east-1:${aws:username}:topic"
    resource = "arn:aws:sns:us-east-1:1:mine:topic"
    for condition in ({}, {"ArnLike": {"k": pattern}}):
        one = statement(action="sns:*", resource="*" if condition else pattern, Condition=condition)
        request = {"action": "sns:Publish", "resource": resource, "context": {"k": resource}}
        assert not decide(one, **request, variables={"aws:username": "1:mine"}).allowed
        assert decide(
            one,
            action="sns:Publish",
            resource="arn:aws:sns:us-east-1:1:topic",
            context={"k": "arn:aws:sns:us-east-1:1:topic"},
            variables={"aws:username": "1"},
        ).allowed


def test_old_policies_have_no_variables() -> None:
    old = policy(statement(resource="arn:aws:s3:::bucket/${aws:username}"), version="2008-10-17")
    assert evaluate(old, None, Permission("s3:GetObject", f"{BUCKET}/${{aws:username}}"), VARIABLES).allowed
    assert not evaluate(old, None, Permission("s3:GetObject", f"{BUCKET}/anna"), VARIABLES).allowed


@pytest.mark.parametrize(
    ("condition", "context", "allowed"),
    [
        ({"StringEquals": {"k": "a"}}, {"K": "a"}, True),
        ({"StringEquals": {"k": ["b", "a"]}}, {"k": "a"}, True),
        ({"StringEquals": {"k": "a"}}, {"k": "A"}, False),
        ({"StringEquals": {"k": "a"}}, {}, False),
        ({"StringEquals": {"k": "a*"}}, {"k": "abc"}, False),
        ({"StringEqualsIfExists": {"k": "a"}}, {}, True),
        ({"StringEqualsIfExists": {"k": "a"}}, {"k": "b"}, False),
        ({"StringNotEquals": {"k": ["a", "b"]}}, {"k": "b"}, False),
        ({"StringNotEquals": {"k": ["a", "b"]}}, {"k": "c"}, True),
        ({"StringNotEquals": {"k": "a"}}, {}, True),
        ({"StringEqualsIgnoreCase": {"k": "AbC"}}, {"k": "aBc"}, True),
        ({"StringNotEqualsIgnoreCase": {"k": "AbC"}}, {"k": "aBc"}, False),
        ({"StringLike": {"k": "home/${aws:username}/*"}}, {"k": "home/anna/x"}, True),
        ({"StringLike": {"k": "home/${aws:username}/*"}}, {"k": "home/bob/x"}, False),
        ({"StringNotLike": {"k": "a*"}}, {"k": "abc"}, False),
        ({"NumericLessThanEquals": {"k": "10"}}, {"k": "10.0"}, True),
        ({"NumericLessThan": {"k": 10}}, {"k": "10"}, False),
        ({"NumericGreaterThan": {"k": "9"}}, {"k": "10"}, True),
        ({"NumericGreaterThanEquals": {"k": "9"}}, {"k": "8"}, False),
        ({"NumericEquals": {"k": "9"}}, {"k": "nine"}, False),
        ({"NumericNotEquals": {"k": "9"}}, {"k": "8"}, True),
        ({"DateGreaterThan": {"k": "2026-01-01T00:00:00Z"}}, {"k": "2026-01-01T00:00:01Z"}, True),
        ({"DateLessThan": {"k": "2026-01-01T00:00:00Z"}}, {"k": "1767225599"}, True),
        ({"DateEquals": {"k": "2026-01-01"}}, {"k": "9" * 400}, False),
        ({"DateEquals": {"k": "2026-01-01"}}, {"k": "2026-01-01T00:00:00+00:00"}, True),
        ({"Bool": {"k": "true"}}, {"k": "True"}, True),
        ({"Bool": {"k": True}}, {"k": "false"}, False),
        ({"BinaryEquals": {"k": "QmluYXJ5"}}, {"k": "QmluYXJ5"}, True),
        ({"IpAddress": {"k": ["10.0.0.0/8", "2001:db8::/32"]}}, {"k": "10.1.2.3"}, True),
        ({"IpAddress": {"k": "10.0.0.0/8"}}, {"k": "::ffff:10.1.2.3"}, True),
        ({"IpAddress": {"k": "10.0.0.0/8"}}, {"k": "11.0.0.1"}, False),
        ({"IpAddress": {"k": "10.0.0.0/8"}}, {"k": "not an address"}, False),
        ({"NotIpAddress": {"k": "10.0.0.0/8"}}, {"k": "10.0.0.1"}, False),
        ({"NotIpAddress": {"k": "10.0.0.0/8"}}, {"k": "11.0.0.1"}, True),
        ({"ArnLike": {"k": "arn:aws:sns:*:1:topic-*"}}, {"k": "arn:aws:sns:eu-west-1:1:topic-x"}, True),
        ({"ArnEquals": {"k": "arn:aws:sns:*:1:topic"}}, {"k": "arn:aws:sns:a:b:1:topic"}, False),
        ({"ArnNotLike": {"k": "arn:aws:sns:*:1:*"}}, {"k": "arn:aws:sns:r:1:x"}, False),
        ({"ArnNotEquals": {"k": "arn:aws:sns:r:1:x"}}, {"k": "arn:aws:sns:r:1:y"}, True),
        ({"Null": {"k": "true"}}, {}, True),
        ({"Null": {"k": "true"}}, {"k": "a"}, False),
        ({"Null": {"k": False}}, {"k": "a"}, True),
        ({"ForAllValues:StringEquals": {"k": ["a", "b"]}}, {"k": ("a", "b", "a")}, True),
        ({"ForAllValues:StringEquals": {"k": ["a", "b"]}}, {"k": ("a", "c")}, False),
        ({"ForAllValues:StringEquals": {"k": ["a", "b"]}}, {}, True),
        ({"ForAnyValue:StringLike": {"k": ["x*"]}}, {"k": ("a", "xy")}, True),
        ({"ForAnyValue:StringLike": {"k": ["x*"]}}, {"k": ()}, False),
        ({"ForAnyValue:StringNotEquals": {"k": "a"}}, {}, False),
        ({"StringEquals": {"k": "a"}}, {"k": ("a", "b")}, False),
        ({"StringEquals": {"k": "a", "l": "b"}}, {"k": "a"}, False),
        ({"StringEquals": {"k": "a"}, "Null": {"l": "true"}}, {"k": "a"}, True),
        ({"StringEquals": {"aws:username": "anna"}}, {}, True),
    ],
)
def test_conditions(condition: dict[str, Any], context: dict[str, Any], allowed: bool) -> None:
    assert decide(statement(Condition=condition), context=context, variables=VARIABLES).allowed is allowed


@pytest.mark.parametrize(
    ("document", "place"),
    [
        ("{", "line 1, column 2"),
        ("[]", "must be a JSON object"),
        ('{"Statement": [], "Statement": []}', "'Statement' occurs twice"),
        ('{"Version": "2012-10-18", "Statement": []}', "Version: must be one of"),
        ('{"Version": "2012-10-17"}', "Statement: is missing"),
        ('{"Statement": []}', "Statement: must hold 1 to"),
        ('{"Statement": [7]}', "Statement[0]: must be a JSON object"),
        ('{"Statement": {}, "Statment": 1}', "Statment: is not an element of a policy"),
        (json.dumps({"Statement": [statement(), {**statement(), "Effect": "allow"}]}), "Statement[1].Effect"),
        (json.dumps({"Statement": statement(Principal="*")}), "Statement.Principal: an identity policy"),
        (json.dumps({"Statement": statement(Actions="*")}), "Statement.Actions: is not an element"),
        (json.dumps({"Statement": {"Effect": "Allow", "Action": "*"}}), "must have either Resource or NotResource"),
        (json.dumps({"Statement": {**statement(), "NotAction": "*"}}), "must have either Action or NotAction"),
        (json.dumps({"Statement": statement(action=["s3:GetObject", "GetObject"])}), "Statement.Action[1]: 'GetObject'"),
        (json.dumps({"Statement": statement(action=[])}), "Statement.Action: must not be empty"),
        (json.dumps({"Statement": statement(action=7)}), "Statement.Action: must be a string"),
        (json.dumps({"Statement": statement(resource="bucket/*")}), 'Statement.Resource: \'bucket/*\': must be in ARN format'),
        (json.dumps({"Version": "2012-10-17", "Statement": statement(resource="arn:aws:s3:::${a")}), "not closed"),
        (json.dumps({"Version": "2012-10-17", "Statement": statement(resource="arn:aws:s3:::${a, b}")}), "single quotes"),
        (json.dumps({"Statement": [statement(Sid="x"), statement(Sid="x")]}), "Statement[1].Sid: 'x' occurs twice"),
        (json.dumps({"Statement": statement(Condition={"StringIs": {"k": "a"}})}), "Condition.StringIs.k: 'StringIs' is not"),
        (json.dumps({"Statement": statement(Condition={"IpAddress": {"k": "10.0.0.0/33"}})}), "is not an IP address"),
        (json.dumps({"Statement": statement(Condition={"DateEquals": {"k": "9" * 400}})}), "is not a date"),
        (json.dumps({"Statement": statement(Condition={"Bool": {"k": "yes"}})}), "neither true nor false"),
        (json.dumps({"Statement": statement(Condition={"ForSome:StringLike": {"k": "a"}})}), "neither ForAllValues"),
        (json.dumps({"Statement": statement(Condition={"StringLike": "a"})}), "Condition.StringLike: must be"),
        (json.dumps({"Statement": statement(Condition={"StringEquals": {"dynamodb:LeadingKeys": "a"}})}), "not supported"),
        ("[" * 100_000, "nested too deeply"),
        (" " * 200_000, "longer than"),
    ],
)  # fmt: skip
def test_policies_that_are_refused(document: str, place: str) -> None:
    with pytest.raises(MalformedPolicyDocumentError) as raised:
        compile_policy(document, "p")
    assert place in raised.value.message


# ── what must hold for every policy ──────────────────────────────────────────────────────────────────────────────────

texts = st.text(alphabet="ab*?:/${}'", max_size=12)
patterns = st.one_of(st.just("*"), texts.map(lambda text: f"arn:aws:s3:::{text}"))
actions = st.sampled_from(["*", "s3:*", "s3:Get*", "s3:GetObject", "s3:Put?bject", "sns:*"])
conditions = st.dictionaries(
    st.sampled_from(
        [
            "StringLike",
            "StringNotEquals",
            "NumericLessThan",
            "ForAllValues:StringEquals",
            "Null",
            "Bool",
            "NotIpAddress",
        ]
    ),
    st.dictionaries(
        st.sampled_from(["k", "aws:username"]), st.one_of(texts, st.just("true"), st.just("7")), min_size=1, max_size=2
    ),
    max_size=2,
)
statements = st.builds(statement, st.sampled_from(["Allow", "Deny"]), actions, patterns, Condition=conditions)
contexts = st.dictionaries(
    st.sampled_from(["k", "K", "aws:username"]), st.one_of(texts, st.tuples(texts, texts)), max_size=2
)
permissions = st.builds(
    Permission,
    st.sampled_from(["s3:GetObject", "s3:PutObject", "sns:Publish", ""]),
    st.one_of(texts, texts.map(lambda text: f"arn:aws:s3:::{text}")),
    contexts,
)


def compiled(given: list[dict[str, Any]]) -> Policies:
    kept = []
    for one in given:
        try:
            kept.append(policy(one))
        except MalformedPolicyDocumentError:
            continue
    return join(kept)


@given(st.lists(statements, max_size=4), st.lists(statements, max_size=3), permissions, contexts)
@settings(max_examples=250)
def test_deny_wins_and_session_policies_only_narrow(
    identity: list[dict[str, Any]], session: list[dict[str, Any]], permission: Permission, variables: dict[str, Any]
) -> None:
    policies, session_policy = compiled(identity), compiled(session)
    plain = evaluate(policies, None, permission, variables)
    narrowed = evaluate(policies, session_policy, permission, variables)
    assert plain.reason
    assert plain.allowed or not narrowed.allowed
    assert not evaluate(NOTHING, session_policy, permission, variables).allowed
    denying = join([policies, policy(statement("Deny", "*", "*"))])
    denied = evaluate(denying, None, permission, variables)
    assert not denied.allowed and "explicit deny" in denied.reason
    assert evaluate(ADMINISTRATOR, None, permission, variables).allowed


@given(st.text(max_size=200) | st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5),
       lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["Version", "Statement", "Effect", "Action",
       "Resource", "Condition", "StringLike", "Null", "Sid"]), inner, max_size=5), max_leaves=12).map(json.dumps))  # fmt: skip
@settings(max_examples=250)
def test_whatever_comes_in_only_a_malformed_policy_comes_out(document: str) -> None:
    try:
        compile_policy(document, "p")
    except MalformedPolicyDocumentError as error:
        assert error.message


def test_an_exception_while_deciding_denies() -> None:
    broken = Permission("s3:GetObject", None, {})  # type: ignore[arg-type]
    decision = evaluate(policy(statement(resource=f"{BUCKET}/*")), None, broken, {})
    assert not decision.allowed and "could not be evaluated" in decision.reason


def match_slowly(pattern: str, text: str) -> bool:
    """The textbook's table of prefixes, as an oracle."""
    row = [True] + [False] * len(text)
    for character in pattern:
        following = [row[0] and character == "*"]
        for position, other in enumerate(text, 1):
            if character == "*":
                following.append(row[position] or following[position - 1])
            else:
                following.append(row[position - 1] and character in ("?", other))
        row = following
    return row[-1]


@given(st.text(alphabet="ab*?", max_size=10), st.text(alphabet="ab*?", max_size=12))
@settings(max_examples=250)
def test_wildcards_match_as_the_textbook_says(pattern: str, text: str) -> None:
    matches = globs.matcher(globs.tokenize(pattern, variables=True, wildcards=True))
    assert matches(text) is match_slowly(pattern, text)


def test_wildcards_do_not_backtrack() -> None:
    match = globs.matcher(globs.tokenize("*a?" * 200 + "b", variables=True, wildcards=True))
    started = time.perf_counter()
    assert not match("a" * 20_000)
    assert time.perf_counter() - started < 2
