"""What the operations on a topic need: the caller's right, beside which the topic's own policy is evaluated."""

from collections.abc import Callable, Mapping

from entrepot.operations import Permission, Permissions, Request
from entrepot.services.sns.errors import InvalidParameter
from entrepot.services.sns.service import SNS


def on_topic(sns: SNS, action: str, member: str = "TopicArn") -> Permissions:
    """Return what an operation on the topic in a member of the request needs."""
    return lambda request: [topic_permission(sns, action, str(request.get(member) or ""))]


def topic_permission(
    sns: SNS, action: str, topic_arn: str, context: Mapping[str, str | tuple[str, ...]] | None = None
) -> Permission:
    """Return one right on a topic. Raise InvalidParameter where there is no ARN."""
    if not topic_arn:
        raise InvalidParameter("Invalid parameter: TopicArn")
    return Permission(f"sns:{action}", topic_arn, context or {}, sns.policy_of(topic_arn))


def on_subscription(sns: SNS, action: str) -> Callable[[Request], list[Permission]]:
    """Return what an operation on a subscription needs: a right on its topic."""
    return lambda request: [topic_permission(sns, action, str(request.get("SubscriptionArn") or "").rpartition(":")[0])]
