"""Subscriptions at the edge: their life and their attributes."""

import json
from collections.abc import Mapping
from typing import Any

from entrepot import arns
from entrepot.database import Reader, Transaction
from entrepot.operations import Call, Operation, Permission, ReadOperation, Request, Response, WriteOperation
from entrepot.services.sns import subscriptions, topics
from entrepot.services.sns.errors import InvalidParameter
from entrepot.services.sns.permissions import on_subscription, on_topic, topic_permission
from entrepot.services.sns.service import SNS
from entrepot.services.sns.subscriptions import CONFIRMED, PENDING, Subscription, dead_letter_arn
from entrepot.services.sns.topics import Topic

PAGE = 100
"""Subscriptions in one answer (AWS's limit)."""


def subscription_operations(sns: SNS) -> list[Operation]:
    """Return the operations on subscriptions."""
    edge = _Edge(sns)
    return [
        WriteOperation("Subscribe", edge.subscribing, edge.subscribe),
        WriteOperation("ConfirmSubscription", on_topic(sns, "ConfirmSubscription"), edge.confirm_subscription),
        WriteOperation("Unsubscribe", on_subscription(sns, "Unsubscribe"), edge.unsubscribe),
        ReadOperation(
            "ListSubscriptions", lambda _: [Permission("sns:ListSubscriptions", "*")], edge.list_subscriptions
        ),
        ReadOperation(
            "ListSubscriptionsByTopic", on_topic(sns, "ListSubscriptionsByTopic"), edge.list_subscriptions_by_topic
        ),
        ReadOperation(
            "GetSubscriptionAttributes", on_subscription(sns, "GetSubscriptionAttributes"), edge.get_attributes
        ),
        WriteOperation("SetSubscriptionAttributes", edge.setting, edge.set_attributes),
    ]


class _Edge:
    """The operations, each named as AWS's in snake case."""

    def __init__(self, sns: SNS) -> None:
        self._sns = sns

    def subscribing(self, request: Request) -> list[Permission]:
        """A right on the topic, and on what the topic will send to in the caller's name."""
        protocol, endpoint = request.get("Protocol") or "", request.get("Endpoint") or ""
        context = {"sns:Protocol": protocol, "sns:Endpoint": endpoint}
        needed = [topic_permission(self._sns, "Subscribe", request.get("TopicArn") or "", context)]
        needed += _sending(protocol, endpoint)
        return needed + _dead_letters(request.get("Attributes") or {})

    def setting(self, request: Request) -> list[Permission]:
        needed = on_subscription(self._sns, "SetSubscriptionAttributes")(request)
        return needed + _dead_letters({request.get("AttributeName") or "": request.get("AttributeValue") or ""})

    def subscribe(self, tx: Transaction, request: Request, call: Call) -> Response:
        """Subscribe an endpoint; one that is reached by a link has to confirm first."""
        topic = self._sns.topic(tx, request["TopicArn"])
        protocol, endpoint = request["Protocol"], request.get("Endpoint") or ""
        subscriptions.check_endpoint(topic, protocol, endpoint)
        if protocol in ("email", "email-json") and not self._sns.sends_mail:
            raise InvalidParameter(
                "Invalid parameter: Protocol: no mail goes out here. Name the SMTP server in [smtp] of stack.toml."
            )
        attributes = dict(request.get("Attributes") or {})
        scope = attributes.get("FilterPolicyScope", "MessageAttributes")
        for name, value in attributes.items():
            subscriptions.check_attribute(topic, protocol, self._sns.filters, name, value, scope)
        kept = {name: value for name, value in attributes.items() if value}
        subscription, asks = subscriptions.subscribe(tx, topic, protocol, endpoint, call.principal.arn, kept)
        if asks:
            self._sns.ask_to_confirm(tx, subscription)
        shown = subscription.status == CONFIRMED or request.get("ReturnSubscriptionArn")
        return {"SubscriptionArn": subscription.arn(self._sns.account) if shown else "pending confirmation"}

    def confirm_subscription(self, tx: Transaction, request: Request, call: Call) -> Response:
        """Confirm a subscription by the token that its endpoint got."""
        subscription = subscriptions.confirm(
            tx,
            self._sns.topic(tx, request["TopicArn"]),
            request["Token"],
            authenticated=True,
            on_unsubscribe=(request.get("AuthenticateOnUnsubscribe") or "").lower() == "true",
        )
        return {"SubscriptionArn": subscription.arn(self._sns.account)}

    def unsubscribe(self, tx: Transaction, request: Request, call: Call) -> Response:
        """End a subscription."""
        self._sns.unsubscribe(tx, subscriptions.get(tx, self._sns.account, request["SubscriptionArn"]))
        return {}

    def list_subscriptions(self, reader: Reader, request: Request, call: Call) -> Response:
        """Return all subscriptions, a page at a time."""
        return self._page(reader, None, request)

    def list_subscriptions_by_topic(self, reader: Reader, request: Request, call: Call) -> Response:
        """Return the subscriptions of a topic, a page at a time."""
        return self._page(reader, self._sns.topic(reader, request["TopicArn"]), request)

    def _page(self, reader: Reader, topic: Topic | None, request: Request) -> Response:
        token = request.get("NextToken") or "0"
        if not (token.isascii() and token.isdigit() and len(token) < 19):
            raise InvalidParameter("Invalid parameter: NextToken")
        found = subscriptions.listed(reader, topic, int(token), PAGE + 1)
        response: Response = {"Subscriptions": [self._shape(one) for one in found[:PAGE]]}
        return response | ({"NextToken": str(found[PAGE - 1].subscription_id)} if len(found) > PAGE else {})

    def _shape(self, subscription: Subscription) -> dict[str, str]:
        is_pending = subscription.status == PENDING
        return {
            "SubscriptionArn": "PendingConfirmation" if is_pending else subscription.arn(self._sns.account),
            "Owner": self._sns.account.account_id,
            "Protocol": subscription.protocol,
            "Endpoint": subscription.endpoint,
            "TopicArn": self._sns.topic_arn(subscription.topic_name),
        }

    def get_attributes(self, reader: Reader, request: Request, call: Call) -> Response:
        """Return all attributes of a subscription."""
        subscription = subscriptions.get(reader, self._sns.account, request["SubscriptionArn"])
        shown = {
            **self._shape(subscription),
            "SubscriptionArn": request["SubscriptionArn"],
            "PendingConfirmation": str(subscription.status == PENDING).lower(),
            "ConfirmationWasAuthenticated": str(subscription.authenticated).lower(),
            "RawMessageDelivery": "false",
            "SubscriptionPrincipal": subscription.principal,
            **subscription.attributes,
        }
        if subscription.filter_policy is not None:
            shown["FilterPolicyScope"] = subscription.filter_policy[1]
        if subscription.protocol in ("http", "https", "chat"):
            topic = topics.find(reader, subscription.topic_name)
            policy = subscription.delivery_policy(topic).shape()
            shown["EffectiveDeliveryPolicy"] = json.dumps(policy, separators=(",", ":"))
        return {"Attributes": shown}

    def set_attributes(self, tx: Transaction, request: Request, call: Call) -> Response:
        """Set one attribute of a subscription."""
        subscription = subscriptions.get(tx, self._sns.account, request["SubscriptionArn"])
        topic = topics.get(tx, subscription.topic_name)
        name, value = request["AttributeName"], request.get("AttributeValue") or ""
        scope = subscription.attributes.get("FilterPolicyScope", "MessageAttributes")
        subscriptions.check_attribute(topic, subscription.protocol, self._sns.filters, name, value, scope)
        if name == "FilterPolicyScope" and (policy := subscription.attributes.get("FilterPolicy")):
            self._sns.filters.check(policy, value)
        subscriptions.set_attribute(tx, subscription, name, value)
        return {}


def _sending(protocol: str, endpoint: str) -> list[Permission]:
    """Return what delivering to an endpoint of this installation does.

    On AWS the endpoint's own policy lets the topic in; here who subscribes must be allowed the same.
    """
    if protocol == "sqs":
        return [Permission("sqs:SendMessage", endpoint)]
    if protocol == "lambda":
        try:
            arn = arns.parse(endpoint)
        except ValueError:
            return []
        function = ":".join(arn.resource.split(":")[:2])
        return [Permission("lambda:InvokeFunction", endpoint.removesuffix(arn.resource) + function)]
    return []


def _dead_letters(attributes: Mapping[str, Any]) -> list[Permission]:
    arn = dead_letter_arn(attributes.get("RedrivePolicy") or "")
    return [] if arn is None else [Permission("sqs:SendMessage", arn)]
