"""The topics of `stack.toml`: made, and their subscriptions brought to what the file says."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from entrepot.arns import Account
from entrepot.settings import Topic, TopicSubscription

Operate: TypeAlias = Callable[..., dict[str, Any]]
"""`operate(service, operation, **request)`: runs an operation in the stack's transaction; raises AwsError."""


def put_topic(operate: Operate, account: Account, name: str, topic: Topic) -> list[str]:
    """Make a topic and its subscriptions as the file says; return the names under which these are remembered."""
    arn = account.arn("sns", name)
    operate("sns", "CreateTopic", Name=name, Attributes={"FifoTopic": "true"} if name.endswith(".fifo") else {})
    operate("sns", "SetTopicAttributes", TopicArn=arn, AttributeName="DisplayName", AttributeValue=topic.display_name)
    there = _subscribed(operate, arn)
    for subscription in topic.subscriptions:
        endpoint, attributes = _endpoint(account, subscription), _attributes(subscription)
        found = there.get((subscription.protocol, endpoint))
        if found is None:  # Else who is asked already would be asked again with every start.
            request = {"TopicArn": arn, "Protocol": subscription.protocol, "Endpoint": endpoint}
            operate("sns", "Subscribe", **request, Attributes=attributes)
        elif found.startswith("arn:"):
            _set(operate, found, {"FilterPolicy": "{}", "FilterPolicyScope": "MessageAttributes"})
            if subscription.protocol in ("sqs", "http", "https"):
                _set(operate, found, {"RawMessageDelivery": "false"})
            _set(operate, found, attributes)
    return list(subscription_names(account, {name: topic}))


def subscription_names(account: Account, topics: Mapping[str, Topic]) -> dict[str, TopicSubscription]:
    """Return all subscriptions by the names under which they are remembered: `topic protocol endpoint`."""
    return {
        f"{name} {one.protocol} {_endpoint(account, one)}": one
        for name, topic in topics.items()
        for one in topic.subscriptions
    }


def remove_subscription(operate: Operate, account: Account, name: str) -> None:
    """End a subscription that the file names no more; one that was never confirmed is forgotten by itself."""
    topic_name, protocol, endpoint = name.split(" ", 2)
    found = _subscribed(operate, account.arn("sns", topic_name)).get((protocol, endpoint), "")
    if found.startswith("arn:"):
        operate("sns", "Unsubscribe", SubscriptionArn=found)


def _attributes(subscription: TopicSubscription) -> dict[str, str]:
    attributes = {"RawMessageDelivery": "true"} if subscription.raw else {}
    if subscription.filter_policy is not None:
        attributes["FilterPolicyScope"] = subscription.filter_policy_scope
        attributes["FilterPolicy"] = subscription.filter_policy
    return attributes


def _set(operate: Operate, subscription_arn: str, attributes: Mapping[str, str]) -> None:
    for name, value in attributes.items():
        request = {"SubscriptionArn": subscription_arn, "AttributeName": name, "AttributeValue": value}
        operate("sns", "SetSubscriptionAttributes", **request)


def _subscribed(operate: Operate, topic_arn: str) -> dict[tuple[str, str], str]:
    """Return the subscriptions of a topic: (protocol, endpoint) → ARN, or `PendingConfirmation`."""
    found: dict[tuple[str, str], str] = {}
    token: dict[str, str] = {}
    while True:
        page = operate("sns", "ListSubscriptionsByTopic", TopicArn=topic_arn, **token)
        found |= {(one["Protocol"], one["Endpoint"]): one["SubscriptionArn"] for one in page["Subscriptions"]}
        if "NextToken" not in page:
            return found
        token = {"NextToken": page["NextToken"]}


def _endpoint(account: Account, subscription: TopicSubscription) -> str:
    """Return a subscription's endpoint; a queue's or function's name becomes its ARN."""
    endpoint = subscription.endpoint
    if endpoint.startswith("arn:") or subscription.protocol not in ("sqs", "lambda"):
        return endpoint
    return (
        account.arn("sqs", endpoint)
        if subscription.protocol == "sqs"
        else account.arn("lambda", f"function:{endpoint}")
    )
