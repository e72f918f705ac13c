"""SNS and what may come from outside: whatever it is, the answer is one of SNS's errors."""

import contextlib
import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entrepot.services import events
from entrepot.services.dynamodb.errors import ValidationException
from entrepot.services.dynamodb.stream_operations import _read_iterator
from entrepot.services.sns import messages, retries, subscriptions
from entrepot.services.sns.channels import chat_body, confirmation_mail, notification_mail
from entrepot.services.sns.errors import InvalidParameter, ParameterValueInvalid
from entrepot.services.sns.filters import Filters, attribute_values
from entrepot.services.sns.messages import from_json, message_of
from entrepot.services.sns.signing import string_to_sign
from entrepot.services.sns.topics import Topic

FILTERS = Filters(lambda text: events.EventPattern.parse(text).matches)
TOPIC = Topic("t", 1, 0, {}, {})

_leaf = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
_json = st.recursive(
    _leaf,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(max_size=4)
            | st.sampled_from(["$or", "prefix", "suffix", "numeric", "anything-but", "exists", "cidr"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@given(_json, st.sampled_from(["MessageAttributes", "MessageBody"]), _json)
def test_a_policy_is_refused_or_decides(document: Any, scope: str, body: Any) -> None:
    text = json.dumps(document)
    with contextlib.suppress(InvalidParameter):
        FILTERS.check(text, scope)
        assert FILTERS.accepts(text, scope, body if isinstance(body, Mapping) else {}, lambda: body) in (True, False)


@pytest.mark.parametrize(
    "text", ["{" * 10_000, "[" * 10_000, '{"a":' * 5_000, "", "\x00", '{"a":[1e999]}', '{"a":[NaN]}']
)
def test_a_policy_that_is_no_json_or_too_deep_is_refused(text: str) -> None:
    for scope in ("MessageAttributes", "MessageBody"):
        with pytest.raises(InvalidParameter):
            FILTERS.check(text, scope)


@given(_json)
def test_a_delivery_policy_is_refused_or_bounded(document: Any) -> None:
    for text in (json.dumps(document), json.dumps({"healthyRetryPolicy": document})):
        with contextlib.suppress(InvalidParameter):
            policy = retries.subscription_policy(text).retry
            assert policy.delay_s(policy.retries + 1) is None


_number = st.integers(0, 100)


@given(
    _number, _number, _number, _number, st.integers(1, 3_600), st.integers(1, 3_600), st.sampled_from(retries.FUNCTIONS)
)
def test_the_delays_of_a_policy_are_within_its_targets(
    count: int, none: int, least: int, most: int, low: int, high: int, function: str
) -> None:
    given_policy = {
        "numRetries": count, "numNoDelayRetries": none, "numMinDelayRetries": least, "numMaxDelayRetries": most,
        "minDelayTarget": low, "maxDelayTarget": high, "backoffFunction": function,
    }  # fmt: skip
    with contextlib.suppress(InvalidParameter):
        policy = retries.subscription_policy(json.dumps({"healthyRetryPolicy": given_policy})).retry
        delays = [policy.delay_s(failures) for failures in range(1, count + 1)]
        assert all(delay is not None and (delay == 0 or low <= delay <= high + 1e-9) for delay in delays)
        assert sum(delay or 0 for delay in delays) <= retries.TOTAL_LIMIT_S


_text = st.text(max_size=20)
_attribute = st.fixed_dictionaries(
    {"DataType": _text | st.sampled_from(["String", "Number", "Binary", "String.Array", "Number.int"])},
    optional={"StringValue": _text | st.sampled_from(["1e5", "[1]", "nan"]), "BinaryValue": st.binary(max_size=4)},
)


@given(
    st.fixed_dictionaries(
        {"Message": _text},
        optional={
            "Subject": _text,
            "MessageStructure": st.sampled_from(["json", "x"]),
            "MessageAttributes": st.dictionaries(_text | st.sampled_from(["a", "a.b"]), _attribute, max_size=3),
            "MessageGroupId": _text,
        },
    )
)
@settings(max_examples=200)
def test_a_message_is_refused_or_comes_back_whole(request: dict[str, Any]) -> None:
    try:
        message = message_of(request, is_fifo=False, by_content=False)
    except (InvalidParameter, ParameterValueInvalid):
        return
    kept = from_json(message.to_json())
    assert kept.text == message.text
    assert kept.subject == message.subject
    assert set(kept.attributes) == set(message.attributes)
    attribute_values(kept.attributes)


@given(_text, _text)
def test_mails_have_the_headers_that_they_were_given(subject: str, text: str) -> None:
    try:
        messages._check_subject(subject)
    except InvalidParameter:
        return
    document = {"Message": text, "Subject": subject, "UnsubscribeURL": "u", "TopicArn": "t", "SubscribeURL": "s"}
    for compose in (notification_mail, confirmation_mail):
        for as_json in (False, True):
            mail = compose("from@example.com", 'A "B" <c>', "to@example.com", document, as_json=as_json)
            raw = mail.as_bytes()
            head = raw.split(b"\r\n\r\n")[0].lower()
            assert head.count(b"\nto:") == 1
            assert b"\nbcc:" not in head


@pytest.mark.parametrize(
    "endpoint",
    ["a@b.example\r\nRCPT TO:<x@y>", "<a@b.example>", "a@b.example>", "a b@c.example", "a@-b", "@", "a@" + "b" * 300],
)
def test_addresses_that_are_none(endpoint: str) -> None:
    with pytest.raises(InvalidParameter):
        subscriptions.check_endpoint(TOPIC, "email", endpoint)


def test_a_chat_gets_no_more_than_it_takes() -> None:
    assert len(json.loads(chat_body("s", "x" * 262_144))["text"]) < 30_010


@given(st.dictionaries(st.sampled_from(["Message", "Subject", "MessageId", "TopicArn", "Timestamp"]), _text))
def test_what_is_signed_names_every_member(document: dict[str, str]) -> None:
    signed = string_to_sign({**document, "Type": "Notification"}).decode()
    assert all(f"{name}\n{value}\n" in signed for name, value in document.items())


@given(st.text(max_size=60))
def test_iterators_from_anywhere(text: str) -> None:
    with contextlib.suppress(ValidationException):
        _, position, _ = _read_iterator(text)
        assert position >= 0


@pytest.mark.parametrize(
    "request_",
    [
        {"Message": "\ud800"},
        {"Message": '{"default":"\\ud800"}', "MessageStructure": "json"},
        {"Message": '{"default":"x","sqs":"\\ud800"}', "MessageStructure": "json"},
        {"Message": "x", "MessageAttributes": {"a": {"DataType": "String", "StringValue": "\udc00"}}},
    ],
)
def test_what_no_encoding_can_write_is_refused(request_: dict[str, Any]) -> None:
    with pytest.raises((InvalidParameter, ParameterValueInvalid)):
        message_of(request_, is_fifo=False, by_content=False)
