"""Topics at the edge: their life, attributes, permissions and tags."""

import json
from typing import Any

from entrepot.database import Reader, Transaction
from entrepot.operations import Call, Operation, Permission, ReadOperation, Request, Response, WriteOperation
from entrepot.services.sns import retries, subscriptions, topics
from entrepot.services.sns.errors import InvalidParameter, NotFound, ResourceNotFound
from entrepot.services.sns.permissions import on_topic
from entrepot.services.sns.service import SNS
from entrepot.services.sns.subscriptions import CONFIRMED, PENDING, UNSUBSCRIBED
from entrepot.services.sns.topics import Topic

PAGE = 100
"""Topics in one answer (AWS's limit)."""

_PERMITTED = ("Publish", "RemovePermission", "SetTopicAttributes", "DeleteTopic", "ListSubscriptionsByTopic",
              "GetTopicAttributes", "AddPermission", "Subscribe", "Receive")  # fmt: skip


def topic_operations(sns: SNS) -> list[Operation]:
    """Return the operations on topics."""
    edge = _Edge(sns)
    return [
        WriteOperation("CreateTopic", edge.by_name, edge.create_topic),
        WriteOperation("DeleteTopic", on_topic(sns, "DeleteTopic"), edge.delete_topic),
        ReadOperation("ListTopics", lambda _: [Permission("sns:ListTopics", "*")], edge.list_topics),
        ReadOperation("GetTopicAttributes", on_topic(sns, "GetTopicAttributes"), edge.get_topic_attributes),
        WriteOperation("SetTopicAttributes", on_topic(sns, "SetTopicAttributes"), edge.set_topic_attributes),
        WriteOperation("AddPermission", on_topic(sns, "AddPermission"), edge.add_permission),
        WriteOperation("RemovePermission", on_topic(sns, "RemovePermission"), edge.remove_permission),
        WriteOperation("TagResource", on_topic(sns, "TagResource", "ResourceArn"), edge.tag_resource),
        WriteOperation("UntagResource", on_topic(sns, "UntagResource", "ResourceArn"), edge.untag_resource),
        ReadOperation("ListTagsForResource", on_topic(sns, "ListTagsForResource", "ResourceArn"), edge.list_tags),
    ]


class _Edge:
    """The operations, each named as AWS's in snake case."""

    def __init__(self, sns: SNS) -> None:
        self._sns = sns

    def by_name(self, request: Request) -> list[Permission]:
        return [Permission("sns:CreateTopic", self._sns.topic_arn(request.get("Name") or ""))]

    def create_topic(self, tx: Transaction, request: Request, call: Call) -> Response:
        """Create a topic, or find the one with this name and these attributes."""
        if request.get("DataProtectionPolicy"):
            raise InvalidParameter("Invalid parameter: DataProtectionPolicy is not supported here")
        attributes = dict(request.get("Attributes") or {})
        policy = attributes.pop("Policy", "")
        is_new = topics.find(tx, request["Name"]) is None
        topic = topics.create(tx, request["Name"], attributes, _tags(request))
        if policy and is_new:
            self._sns.set_policy(tx, topic, policy)
        tx.after_commit(self._sns.prepare_key)
        return {"TopicArn": self._sns.topic_arn(topic.topic_name)}

    def delete_topic(self, tx: Transaction, request: Request, call: Call) -> Response:
        """Delete a topic and its subscriptions; nothing happens when it is gone."""
        try:
            topic = self._sns.topic(tx, request["TopicArn"])
        except NotFound:
            return {}
        topics.delete(tx, topic)
        self._sns.note_policy(tx, topic.topic_name, "")
        return {}

    def list_topics(self, reader: Reader, request: Request, call: Call) -> Response:
        """Return the ARNs of all topics, a page at a time."""
        names = topics.list_names(reader, request.get("NextToken") or "", PAGE + 1)
        response: Response = {"Topics": [{"TopicArn": self._sns.topic_arn(name)} for name in names[:PAGE]]}
        return response | ({"NextToken": names[PAGE - 1]} if len(names) > PAGE else {})

    def get_topic_attributes(self, reader: Reader, request: Request, call: Call) -> Response:
        """Return all attributes of a topic."""
        topic = self._sns.topic(reader, request["TopicArn"])
        counts = subscriptions.counts(reader, topic)
        shown = {
            "TopicArn": request["TopicArn"],
            "Owner": self._sns.account.account_id,
            "DisplayName": "",
            "SubscriptionsConfirmed": str(counts.get(CONFIRMED, 0)),
            "SubscriptionsPending": str(counts.get(PENDING, 0)),
            "SubscriptionsDeleted": str(counts.get(UNSUBSCRIBED, 0)),
            "EffectiveDeliveryPolicy": _effective_policy(topic),
            "Policy": json.dumps(self._default_policy(topic), separators=(",", ":")),
            **({"ContentBasedDeduplication": "false", "FifoThroughputScope": "Topic"} if topic.is_fifo else {}),
            **topic.attributes,
        }
        return {"Attributes": shown}

    def set_topic_attributes(self, tx: Transaction, request: Request, call: Call) -> Response:
        """Set one attribute of a topic."""
        topic, value = self._sns.topic(tx, request["TopicArn"]), request.get("AttributeValue") or ""
        if request["AttributeName"] == "Policy":
            self._sns.set_policy(tx, topic, value)
        else:
            topics.set_attribute(tx, topic, request["AttributeName"], value)
        return {}

    # ── permissions ──────────────────────────────────────────────────────────────────────────────────────────────

    def _default_policy(self, topic: Topic) -> dict[str, Any]:
        """Return what AWS shows for a topic without a policy of its own. It grants nothing beside IAM."""
        statement = {
            "Sid": "__default_statement_ID",
            "Effect": "Allow",
            "Principal": {"AWS": "*"},
            "Action": [f"SNS:{action}" for action in _PERMITTED if action != "Receive"],
            "Resource": self._sns.topic_arn(topic.topic_name),
            "Condition": {"StringEquals": {"AWS:SourceOwner": self._sns.account.account_id}},
        }
        return {"Version": "2008-10-17", "Id": "__default_policy_ID", "Statement": [statement]}

    def _statements(self, topic: Topic) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        text = topic.attributes.get("Policy")
        document = json.loads(text) if text else self._default_policy(topic)
        statements = document["Statement"]
        return document, statements if isinstance(statements, list) else [statements]

    def add_permission(self, tx: Transaction, request: Request, call: Call) -> Response:
        """Add a statement to a topic's policy."""
        topic, label = self._sns.topic(tx, request["TopicArn"]), request["Label"]
        document, statements = self._statements(topic)
        if any(statement.get("Sid") == label for statement in statements):
            raise InvalidParameter("Invalid parameter: Statement already exists")
        for action in request["ActionName"]:
            if action not in _PERMITTED:
                raise InvalidParameter(
                    f"Invalid parameter: Policy statement action out of service scope! {action[:100]}"
                )
        for account_id in request["AWSAccountId"]:
            if not (account_id.isascii() and account_id.isdigit() and len(account_id) == 12):
                raise InvalidParameter(f"Invalid parameter: PrincipalId {account_id[:100]} is not valid")
        accounts = [f"arn:{self._sns.account.partition}:iam::{one}:root" for one in request["AWSAccountId"]]
        statement = {
            "Sid": label,
            "Effect": "Allow",
            "Principal": {"AWS": accounts},
            "Action": [f"SNS:{action}" for action in request["ActionName"]],
            "Resource": request["TopicArn"],
        }
        self._sns.set_policy(tx, topic, json.dumps({**document, "Statement": [*statements, statement]}))
        return {}

    def remove_permission(self, tx: Transaction, request: Request, call: Call) -> Response:
        """Remove a statement from a topic's policy."""
        topic = self._sns.topic(tx, request["TopicArn"])
        document, statements = self._statements(topic)
        kept = [statement for statement in statements if statement.get("Sid") != request["Label"]]
        if len(kept) == len(statements):
            raise NotFound("Invalid parameter: Statement does not exist")
        self._sns.set_policy(tx, topic, json.dumps({**document, "Statement": kept}) if kept else "")
        return {}

    # ── tags ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _tagged(self, reader: Reader, request: Request) -> Topic:
        try:
            return self._sns.topic(reader, request["ResourceArn"])
        except NotFound:
            raise ResourceNotFound("Topic does not exist") from None

    def tag_resource(self, tx: Transaction, request: Request, call: Call) -> Response:
        """Add tags, or change them."""
        topic = self._tagged(tx, request)
        topics.set_tags(tx, topic, {**topic.tags, **_tags(request)})
        return {}

    def untag_resource(self, tx: Transaction, request: Request, call: Call) -> Response:
        """Remove tags by their keys."""
        topic, gone = self._tagged(tx, request), set(request["TagKeys"])
        topics.set_tags(tx, topic, {key: value for key, value in topic.tags.items() if key not in gone})
        return {}

    def list_tags(self, reader: Reader, request: Request, call: Call) -> Response:
        """Return the tags of a topic."""
        tags = self._tagged(reader, request).tags
        return {"Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}


def _tags(request: Request) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in request.get("Tags") or ()}


def _effective_policy(topic: Topic) -> str:
    text = topic.attributes.get("DeliveryPolicy")
    policy, overrides = retries.topic_policy(text) if text else (retries.DeliveryPolicy(), False)
    http: dict[str, Any] = {
        "defaultHealthyRetryPolicy": policy.retry.shape(),
        "disableSubscriptionOverrides": overrides,
    }
    if policy.per_s is not None:
        http["defaultThrottlePolicy"] = {"maxReceivesPerSecond": policy.per_s}
    http["defaultRequestPolicy"] = {"headerContentType": policy.content_type}
    return json.dumps({"http": http}, separators=(",", ":"))
