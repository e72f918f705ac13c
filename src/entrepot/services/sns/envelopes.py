"""What endpoints get: SNS's documents around a message, signed, in AWS's shapes.

Source: https://docs.aws.amazon.com/sns/latest/dg/sns-message-and-json-formats.html
"""

import base64
import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import urlencode

from entrepot import clock, ids
from entrepot.arns import Account
from entrepot.services.sns.messages import Message
from entrepot.services.sns.signing import Signer
from entrepot.services.sns.subscriptions import Subscription

SIGNATURES = 512
"""Signatures that are remembered: all subscriptions to a message share one."""

NOTIFICATION, CONFIRMATION, UNSUBSCRIBE_CONFIRMATION = range(3)
TYPES = ("Notification", "SubscriptionConfirmation", "UnsubscribeConfirmation")

_CONFIRMATION_TEXTS = {
    CONFIRMATION: "You have chosen to subscribe to the topic {topic}.\nTo confirm the subscription, visit the "
    "SubscribeURL included in this message.",
    UNSUBSCRIBE_CONFIRMATION: "You have chosen to deactivate subscription {subscription}.\nTo cancel this operation and "
    "restore the subscription, visit the SubscribeURL included in this message.",
}


class Envelopes:
    """Builds the documents. `endpoint_url` returns the URL under which receivers reach this installation."""

    def __init__(self, account: Account, signer: Signer, endpoint_url: Callable[[], str]) -> None:
        self.account = account
        self._signer = signer
        self._endpoint_url = endpoint_url
        self._signature = lru_cache(maxsize=SIGNATURES)(self._sign)

    def notification(self, message: Message, subscription: Subscription, version: str) -> dict[str, Any]:
        """Return the Notification of a message for a subscription."""
        document: dict[str, Any] = {
            "Type": "Notification",
            "MessageId": message.uuid,
            **({"SequenceNumber": shown_sequence(message.sequence)} if message.sequence is not None else {}),
            "TopicArn": self.account.arn("sns", subscription.topic_name),
            **({"Subject": message.subject} if message.subject is not None else {}),
            "Message": message.text_for(subscription.protocol),
            "Timestamp": clock.iso(message.published_at_ms),
        }
        self._close(document, version)
        document["UnsubscribeURL"] = self.unsubscribe_url(subscription)
        if message.attributes:
            document["MessageAttributes"] = attribute_shapes(message.attributes)
        return document

    def confirmation(self, kind: int, subscription: Subscription, at_ms: int, version: str) -> dict[str, Any]:
        """Return a SubscriptionConfirmation or an UnsubscribeConfirmation."""
        topic_arn = self.account.arn("sns", subscription.topic_name)
        text = _CONFIRMATION_TEXTS[kind].format(topic=topic_arn, subscription=subscription.arn(self.account))
        document = {
            "Type": TYPES[kind],
            "MessageId": ids.derived_uuid(subscription.token, TYPES[kind]),
            "Token": subscription.token,
            "TopicArn": topic_arn,
            "Message": text,
            "SubscribeURL": self.subscribe_url(subscription),
            "Timestamp": clock.iso(at_ms),
        }
        self._close(document, version)
        return document

    def function_event(self, message: Message, subscription: Subscription, version: str) -> dict[str, Any]:
        """Return the event of a function."""
        notification = self.notification(message, subscription, version)
        notification["SigningCertUrl"] = notification.pop("SigningCertURL")
        notification["UnsubscribeUrl"] = notification.pop("UnsubscribeURL")
        notification.setdefault("Subject", None)
        notification.setdefault("MessageAttributes", {})
        return {
            "Records": [
                {
                    "EventSource": "aws:sns",
                    "EventVersion": "1.0",
                    "EventSubscriptionArn": subscription.arn(self.account),
                    "Sns": notification,
                }
            ]
        }

    def subscribe_url(self, subscription: Subscription) -> str:
        """Return the link that confirms a subscription."""
        topic_arn = self.account.arn("sns", subscription.topic_name)
        return self._link(Action="ConfirmSubscription", TopicArn=topic_arn, Token=subscription.token)

    def unsubscribe_url(self, subscription: Subscription) -> str:
        """Return the link that ends a subscription."""
        return self._link(Action="Unsubscribe", SubscriptionArn=subscription.arn(self.account))

    def _link(self, **parameters: str) -> str:
        return f"{self._endpoint_url()}/?{urlencode(parameters, safe=':')}"

    def _close(self, document: dict[str, Any], version: str) -> None:
        signed = tuple((name, value) for name, value in document.items())
        document["SignatureVersion"] = version
        document["Signature"] = self._signature(signed, version)
        document["SigningCertURL"] = f"{self._endpoint_url()}{self._signer.certificate_path()}"

    def _sign(self, document: tuple[tuple[str, Any], ...], version: str) -> str:
        return self._signer.sign(dict(document), version)


def shown_sequence(sequence: int) -> str:
    """Return a FIFO topic's sequence number as AWS shows it, with 20 digits."""
    return str(10**19 + sequence)


def attribute_shapes(attributes: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Return message attributes as documents show them."""
    return {
        name: {
            "Type": attribute["DataType"],
            "Value": attribute["StringValue"]
            if "StringValue" in attribute
            else base64.b64encode(attribute["BinaryValue"]).decode(),
        }
        for name, attribute in attributes.items()
    }


def to_text(document: Mapping[str, Any]) -> str:
    """Return a document as AWS writes it: a member a line."""
    return json.dumps(document, ensure_ascii=False, indent=2, separators=(",", " : "))
