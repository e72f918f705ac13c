"""Subscriptions: their rows, attributes, tokens and endpoints."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from entrepot import arns, clock, ids
from entrepot.arns import Account
from entrepot.database import Reader, Row, Transaction
from entrepot.services.sns import retries
from entrepot.services.sns.errors import InvalidParameter, NotFound, SubscriptionLimitExceeded
from entrepot.services.sns.filters import Filters
from entrepot.services.sns.retries import DeliveryPolicy, RetryPolicy
from entrepot.services.sns.topics import Topic, next_number

SUBSCRIPTIONS_LIMIT = 5_000
"""Subscriptions of a standard topic (AWS: 12,500,000)."""

FIFO_SUBSCRIPTIONS_LIMIT = 100
"""Subscriptions of a FIFO topic (AWS's limit)."""

TOKEN_LIFE_MS = 48 * 3_600_000
"""How long a subscription waits for its confirmation, and can be confirmed again after Unsubscribe (AWS: 2 days)."""

ENDPOINT_LIMIT = 2_048

PENDING, CONFIRMED, UNSUBSCRIBED = range(3)
PROTOCOLS = ("http", "https", "email", "email-json", "sqs", "lambda", "chat")
CONFIRMED_BY_LINK = ("http", "https", "email", "email-json")
"""Protocols whose endpoint has to say that it wants the messages."""

_EMAIL = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_URL = re.compile(r"(https?)://[!-~]+")


@dataclass(frozen=True, slots=True)
class Subscription:
    """A subscription's row. `status` is PENDING, CONFIRMED or UNSUBSCRIBED; `attributes` what was set."""

    subscription_id: int
    topic_id: int
    topic_name: str
    uuid: str
    protocol: str
    endpoint: str
    status: int
    principal: str
    token: str
    token_at_ms: int
    authenticated: bool
    authenticate_on_unsubscribe: bool
    attributes: Mapping[str, str]

    def arn(self, account: Account) -> str:
        """Return the subscription's ARN."""
        return account.arn("sns", f"{self.topic_name}:{self.uuid}")

    @property
    def is_raw(self) -> bool:
        """Tell whether the endpoint gets the message alone, without SNS's envelope."""
        return self.attributes.get("RawMessageDelivery", "false").lower() == "true"

    @property
    def filter_policy(self) -> tuple[str, str] | None:
        """Return (policy, scope), or None when everything is delivered."""
        text = self.attributes.get("FilterPolicy")
        return None if text is None else (text, self.attributes.get("FilterPolicyScope", "MessageAttributes"))

    @property
    def dead_letter_arn(self) -> str | None:
        """Return the queue for what cannot be delivered."""
        return dead_letter_arn(self.attributes.get("RedrivePolicy", ""))

    def delivery_policy(self, topic: Topic | None) -> DeliveryPolicy:
        """Return how its HTTP endpoint is called: its own policy over the topic's."""
        above, overrides = (DeliveryPolicy() if self.protocol != "chat" else retries.CHAT), False
        if self.protocol != "chat" and topic is not None and (text := topic.attributes.get("DeliveryPolicy")):
            above, overrides = retries.topic_policy(text)
        own = self.attributes.get("DeliveryPolicy")
        return above if overrides or not own else retries.subscription_policy(own, above)

    def retry_policy(self, topic: Topic | None) -> RetryPolicy:
        """Return when deliveries that failed are tried again."""
        if self.protocol in ("http", "https", "chat"):
            return self.delivery_policy(topic).retry
        return retries.MANAGED if self.protocol in ("sqs", "lambda") else retries.CUSTOMER


_COLUMNS = (
    "subscription_id, topic_id, topic_name, uuid, protocol, endpoint, status, principal, token, token_at_ms, "
    "authenticated, authenticate_on_unsubscribe, attributes"
)


def _subscription(row: Row) -> Subscription:
    *first, authenticated, on_unsubscribe, attributes = row
    first += [bool(authenticated), bool(on_unsubscribe), json.loads(attributes)]
    return Subscription(*first)


def _select(reader: Reader, where: str, parameters: Sequence[str | int]) -> list[Subscription]:
    # Nothing of a request is in the text: names and conditions come from this file, values are parameters.
    sql = f"SELECT {_COLUMNS} FROM sns_subscription WHERE {where}"  # noqa: S608
    return [_subscription(row) for row in reader.all(sql, parameters)]


def by_id(reader: Reader, subscription_id: int) -> Subscription | None:
    """Return a subscription, or None."""
    return next(iter(_select(reader, "subscription_id = ?", (subscription_id,))), None)


def get(reader: Reader, account: Account, subscription_arn: str) -> Subscription:
    """Return a subscription that was not ended; raise NotFound or InvalidParameter."""
    name, _, uuid = parse_arn(account, subscription_arn).partition(":")
    found = _select(reader, "uuid = ? AND topic_name = ? AND status <> ?", (uuid, name, UNSUBSCRIBED))
    if not found:
        raise NotFound("Subscription does not exist")
    return found[0]


def parse_arn(account: Account, subscription_arn: str) -> str:
    """Return `topic name:uuid` of a subscription's ARN; raise InvalidParameter or NotFound."""
    try:
        parts = arns.parse(subscription_arn)
    except ValueError:
        parts = None
    if parts is None or parts.service != "sns" or parts.resource.count(":") != 1:
        raise InvalidParameter("Invalid parameter: SubscriptionArn Reason: An ARN must have at least 6 elements, not "
                               f"{len(subscription_arn.split(':'))}")  # fmt: skip
    if account.arn("sns", parts.resource) != subscription_arn:
        raise NotFound("Subscription does not exist")
    return parts.resource


def confirmed(reader: Reader, topic: Topic) -> list[Subscription]:
    """Return all that get the messages of a topic."""
    return _select(
        reader,
        "topic_id = ? AND status = ? ORDER BY subscription_id LIMIT ?",
        (topic.topic_id, CONFIRMED, SUBSCRIPTIONS_LIMIT),
    )


def listed(reader: Reader, topic: Topic | None, after: int, limit: int) -> list[Subscription]:
    """Return subscriptions of one topic or of all, in the order in which they were made."""
    if topic is None:
        return _select(reader, "status <> ? AND subscription_id > ? ORDER BY subscription_id LIMIT ?",
                       (UNSUBSCRIBED, after, limit))  # fmt: skip
    return _select(reader, "topic_id = ? AND status <> ? AND subscription_id > ? ORDER BY subscription_id LIMIT ?",
                   (topic.topic_id, UNSUBSCRIBED, after, limit))  # fmt: skip


def counts(reader: Reader, topic: Topic) -> dict[int, int]:
    """Return how many subscriptions of a topic have each status."""
    rows = reader.all(
        "SELECT status, COUNT(*) FROM sns_subscription WHERE topic_id = ? GROUP BY status", (topic.topic_id,)
    )
    return {row[0]: row[1] for row in rows}


# ── changes ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def subscribe(
    tx: Transaction, topic: Topic, protocol: str, endpoint: str, principal_arn: str, attributes: Mapping[str, str]
) -> tuple[Subscription, bool]:
    """Create a subscription, or find it; return it and whether its endpoint must be asked to confirm."""
    found = _select(tx, "topic_id = ? AND protocol = ? AND endpoint = ?", (topic.topic_id, protocol, endpoint))
    status = PENDING if protocol in CONFIRMED_BY_LINK else CONFIRMED
    if found and found[0].status != UNSUBSCRIBED:
        if any(found[0].attributes.get(name) != value for name, value in attributes.items()):
            raise InvalidParameter(
                "Invalid parameter: Attributes Reason: Subscription already exists with different attributes"
            )
        if found[0].status == CONFIRMED:
            return found[0], False
        return _with_token(tx, found[0]), True
    if found:
        remove(tx, found[0].subscription_id)
    limit = FIFO_SUBSCRIPTIONS_LIMIT if topic.is_fifo else SUBSCRIPTIONS_LIMIT
    if sum(counts(tx, topic).values()) >= limit:
        raise SubscriptionLimitExceeded(f"The topic has {limit} subscriptions, which is the limit.")
    made = Subscription(
        next_number(tx), topic.topic_id, topic.topic_name, ids.random_uuid(), protocol, endpoint, status,
        principal_arn, ids.random_hex(32), clock.now_ms(), status == CONFIRMED, False, dict(attributes),
    )  # fmt: skip
    values = (*(getattr(made, name.strip()) for name in _COLUMNS.split(",")[:-1]), _json(attributes))
    tx.execute(
        f"INSERT INTO sns_subscription ({_COLUMNS}) VALUES ({', '.join('?' * len(values))})",  # noqa: S608 - names from above
        values,
    )
    return made, status == PENDING


def _with_token(tx: Transaction, subscription: Subscription) -> Subscription:
    fresh = replace(subscription, token=ids.random_hex(32), token_at_ms=clock.now_ms())
    tx.execute(
        "UPDATE sns_subscription SET token = ?, token_at_ms = ? WHERE subscription_id = ?",
        (fresh.token, fresh.token_at_ms, fresh.subscription_id),
    )
    return fresh


def confirm(tx: Transaction, topic: Topic, token: str, *, authenticated: bool, on_unsubscribe: bool) -> Subscription:
    """Confirm the subscription that a token was sent for; raise InvalidParameter."""
    subscription = check_token(tx, topic, token)
    if subscription.status != CONFIRMED:
        tx.execute(
            "UPDATE sns_subscription SET status = ?, authenticated = ?, authenticate_on_unsubscribe = ? "
            "WHERE subscription_id = ?",
            (CONFIRMED, int(authenticated), int(on_unsubscribe and authenticated), subscription.subscription_id),
        )
    return subscription


def check_token(reader: Reader, topic: Topic, token: str) -> Subscription:
    """Return the subscription that a token was sent for; raise InvalidParameter."""
    found = _select(reader, "topic_id = ? AND token = ?", (topic.topic_id, token)) if token else []
    if not found or (found[0].status != CONFIRMED and clock.now_ms() - found[0].token_at_ms > TOKEN_LIFE_MS):
        raise InvalidParameter("Invalid parameter: Token")
    return found[0]


def unsubscribe(tx: Transaction, subscription: Subscription) -> Subscription | None:
    """End a subscription. Where its endpoint can subscribe again by a link, return it with the token for that."""
    if subscription.protocol not in ("http", "https") or subscription.status != CONFIRMED:
        remove(tx, subscription.subscription_id)
        return None
    fresh = _with_token(tx, subscription)
    tx.execute(
        "UPDATE sns_subscription SET status = ? WHERE subscription_id = ?",
        (UNSUBSCRIBED, subscription.subscription_id),
    )
    return fresh


def remove(tx: Transaction, subscription_id: int) -> None:
    """Forget a subscription."""
    tx.execute("DELETE FROM sns_subscription WHERE subscription_id = ?", (subscription_id,))


def set_attribute(tx: Transaction, subscription: Subscription, name: str, value: str) -> None:
    """Set one attribute that was checked; an empty value removes it."""
    kept = {key: old for key, old in subscription.attributes.items() if key != name}
    if value and not (name == "FilterPolicy" and value.strip() == "{}"):
        kept[name] = value
    tx.execute(
        "UPDATE sns_subscription SET attributes = ? WHERE subscription_id = ?",
        (_json(kept), subscription.subscription_id),
    )


def sweep(tx: Transaction, now_ms: int, limit: int) -> int:
    """Forget subscriptions that nobody confirmed in time; return how many."""
    return tx.execute(
        "DELETE FROM sns_subscription WHERE subscription_id IN (SELECT subscription_id FROM sns_subscription "
        "WHERE status <> 1 AND token_at_ms < ? LIMIT ?)",
        (now_ms - TOKEN_LIFE_MS, limit),
    )


# ── what may be set ──────────────────────────────────────────────────────────────────────────────────────────────────


def check_endpoint(topic: Topic, protocol: str, endpoint: str) -> None:
    """Raise InvalidParameter unless messages of the topic can go to the endpoint."""
    if protocol not in PROTOCOLS:
        raise InvalidParameter(f"Invalid parameter: Amazon SNS does not support this protocol string: {protocol[:100]}")
    if topic.is_fifo and protocol != "sqs":
        raise InvalidParameter(f"Invalid parameter: Invalid protocol type: {protocol}")
    if not endpoint or len(endpoint) > ENDPOINT_LIMIT:
        raise InvalidParameter("Invalid parameter: Endpoint")
    match protocol:
        case "email" | "email-json":
            valid = _EMAIL.fullmatch(endpoint) is not None
            reason = "Email address"
        case "http" | "https":
            match = _URL.fullmatch(endpoint)
            valid = match is not None and match[1] == protocol
            reason = "Endpoint must match the specified protocol"
        case "chat":
            valid, reason = _URL.fullmatch(endpoint) is not None, "Endpoint must be a URL"
        case _:
            valid, reason = _is_arn_of(protocol, endpoint), f"{'SQS' if protocol == 'sqs' else 'Lambda'} endpoint ARN"
    if not valid:
        raise InvalidParameter(f"Invalid parameter: {reason}")
    if protocol == "sqs" and endpoint.endswith(".fifo") and not topic.is_fifo:
        raise InvalidParameter("Invalid parameter: Invalid parameter: Endpoint Reason: FIFO SQS Queues can not be "
                               "subscribed to standard SNS topics")  # fmt: skip


def _is_arn_of(service: str, text: str) -> bool:
    try:
        arn = arns.parse(text)
    except ValueError:
        return False
    return arn.service == service and (service == "sqs" or arn.resource.startswith("function:"))


def dead_letter_arn(redrive_policy: str) -> str | None:
    """Return the queue that a RedrivePolicy names; None for no policy. Raise InvalidParameter."""
    if not redrive_policy:
        return None
    try:
        document = json.loads(redrive_policy)
        arn = document["deadLetterTargetArn"]
        valid = isinstance(arn, str) and _is_arn_of("sqs", arn) and set(document) == {"deadLetterTargetArn"}
    except (ValueError, KeyError, TypeError, RecursionError):
        valid = False
    if not valid:
        raise InvalidParameter("Invalid parameter: RedrivePolicy: deadLetterTargetArn is an invalid arn")
    return str(arn)


def check_attribute(topic: Topic, protocol: str, filters: Filters, name: str, value: str, scope: str) -> None:
    """Raise InvalidParameter unless a subscription may have the attribute. `scope` is that of its filter policy."""
    match name:
        case "RawMessageDelivery":
            if value.lower() not in ("true", "false"):
                raise _refused(f"{name}: Invalid value [{value[:100]}]. Must be true or false.")
            if value.lower() == "true" and protocol not in ("sqs", "http", "https"):
                raise _refused(f"{name}: Raw message delivery is not supported for {protocol}")
        case "FilterPolicy":
            if value:
                filters.check(value, scope)
        case "FilterPolicyScope":
            filters.check("{}", value)
        case "DeliveryPolicy":
            if protocol not in ("http", "https", "chat"):
                raise _refused(f"{name}: Delivery policy is not supported for {protocol}")
            if value:
                retries.subscription_policy(value)
        case "RedrivePolicy":
            arn = dead_letter_arn(value)
            if arn is not None and arn.endswith(".fifo") != topic.is_fifo:
                kind = "FIFO" if topic.is_fifo else "standard"
                raise _refused(f"{name}: must use a {kind} queue as DLQ for a {kind} topic")
        case _:
            raise _refused(f"AttributeName Reason: {name[:100]} is not supported here")


def _refused(reason: str) -> InvalidParameter:
    return InvalidParameter(f"Invalid parameter: {reason}")


def _json(value: Mapping[str, str]) -> str:
    return json.dumps(dict(value), separators=(",", ":"))
