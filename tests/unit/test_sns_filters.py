"""SNS's filter policies: which messages a queue gets."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.sns_site import Site


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(tmp_path)
    yield made
    await made.close()


def attributes(**values: Any) -> dict[str, dict[str, Any]]:
    shapes: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        if isinstance(value, list):
            shapes[name] = {"DataType": "String.Array", "StringValue": json.dumps(value)}
        elif isinstance(value, str):
            shapes[name] = {"DataType": "String", "StringValue": value}
        else:
            shapes[name] = {"DataType": "Number", "StringValue": str(value)}
    return shapes


ON_ATTRIBUTES = [
    ({"store": ["a", "b"]}, {"store": "a"}, True),
    ({"store": ["a", "b"]}, {"store": "c"}, False),
    ({"store": ["a"]}, {}, False),
    ({"store": ["a"], "event": ["b"]}, {"store": "a"}, False),
    ({"store": ["a"], "event": ["b"]}, {"store": "a", "event": "b", "more": "x"}, True),
    ({"store": ["a"]}, {"store": ["x", "a"]}, True),
    ({"store": [{"anything-but": ["a", "b"]}]}, {"store": "c"}, True),
    ({"store": [{"anything-but": ["a", "b"]}]}, {"store": "a"}, False),
    ({"store": [{"anything-but": "a"}]}, {"store": ["a", "b"]}, True),
    ({"store": [{"anything-but": {"prefix": "bas"}}]}, {"store": "rugby"}, True),
    ({"store": [{"anything-but": {"prefix": "bas"}}]}, {"store": "baseball"}, False),
    ({"store": [{"anything-but": {"suffix": "ball"}}]}, {"store": "baseball"}, False),
    ({"store": [{"prefix": "bas"}]}, {"store": "baseball"}, True),
    ({"store": [{"suffix": "ball"}]}, {"store": "baseball"}, True),
    ({"store": [{"suffix": "ball"}]}, {"store": "rugby"}, False),
    ({"store": [{"equals-ignore-case": "TENNIS"}]}, {"store": "tennis"}, True),
    ({"ip": [{"cidr": "10.0.0.0/24"}]}, {"ip": "10.0.0.255"}, True),
    ({"ip": [{"cidr": "10.0.0.0/24"}]}, {"ip": "10.1.0.0"}, False),
    ({"price": [100]}, {"price": 100}, True),
    ({"price": [100]}, {"price": "100"}, False),
    ({"price": ["100"]}, {"price": 100}, False),
    ({"price": [{"numeric": [">", 0, "<=", 150]}]}, {"price": 150}, True),
    ({"price": [{"numeric": [">", 0, "<=", 150]}]}, {"price": 150.5}, False),
    ({"price": [{"anything-but": [100, 500]}]}, {"price": 101}, True),
    ({"price": [{"anything-but": [100, 500]}]}, {"price": 500}, False),
    ({"store": [{"exists": True}]}, {"store": "x"}, True),
    ({"store": [{"exists": True}]}, {}, False),
    ({"store": [{"exists": False}]}, {"other": "x"}, True),
    ({"store": [{"exists": False}]}, {"store": "x"}, False),
    ({"store": [None, "a"]}, {"store": "a"}, True),
    ({"source": ["x"], "$or": [{"metric": ["cpu"]}, {"ns": ["ec2"]}]}, {"source": "x", "ns": "ec2"}, True),
    ({"source": ["x"], "$or": [{"metric": ["cpu"]}, {"ns": ["ec2"]}]}, {"source": "x", "ns": "ecs"}, False),
    ({}, {}, True),
]


@pytest.mark.parametrize(("policy", "values", "delivered"), ON_ATTRIBUTES)
async def test_a_policy_on_attributes(site: Site, policy: Any, values: dict[str, Any], delivered: bool) -> None:
    topic, queue = await site.topic(), await site.queue("q")
    await site.subscribe(topic, "sqs", queue, FilterPolicy=json.dumps(policy))
    await site.call("Publish", TopicArn=topic, Message="x", MessageAttributes=attributes(**values))
    assert len(await site.received("q")) == delivered


ON_BODY = [
    ({"store": ["a"]}, {"store": "a"}, True),
    ({"detail": {"state": ["ok"], "n": [{"numeric": ["<", 5]}]}}, {"detail": {"state": "ok", "n": 4}}, True),
    ({"detail": {"state": ["ok"]}}, {"detail": {"state": "bad"}}, False),
    ({"list": ["b"]}, {"list": ["a", "b"]}, True),
    ({"flag": [True]}, {"flag": True}, True),
    ({"flag": [True]}, {"flag": "true"}, False),
    ({"none": [None]}, {"none": None}, True),
    ({"store": ["a"]}, "no object", False),
    ({"store": ["a"]}, ["a"], False),
    ({}, "no object", True),
]


@pytest.mark.parametrize(("policy", "body", "delivered"), ON_BODY)
async def test_a_policy_on_the_body(site: Site, policy: Any, body: Any, delivered: bool) -> None:
    topic, queue = await site.topic(), await site.queue("q")
    await site.subscribe(topic, "sqs", queue, FilterPolicy=json.dumps(policy), FilterPolicyScope="MessageBody")
    text = body if isinstance(body, str) else json.dumps(body)
    await site.call("Publish", TopicArn=topic, Message=text)
    assert len(await site.received("q")) == delivered


async def test_a_policy_can_be_set_and_taken_away(site: Site) -> None:
    topic, queue = await site.topic(), await site.queue("q")
    arn = await site.subscribe(topic, "sqs", queue)

    async def set_policy(text: str) -> None:
        await site.call(
            "SetSubscriptionAttributes", SubscriptionArn=arn, AttributeName="FilterPolicy", AttributeValue=text
        )

    await set_policy('{"a":["b"]}')
    shown = (await site.call("GetSubscriptionAttributes", SubscriptionArn=arn))["Attributes"]
    assert (shown["FilterPolicy"], shown["FilterPolicyScope"]) == ('{"a":["b"]}', "MessageAttributes")
    await site.call("Publish", TopicArn=topic, Message="x")
    assert await site.received("q") == []
    await set_policy("{}")
    await site.call("Publish", TopicArn=topic, Message="x")
    assert len(await site.received("q")) == 1
