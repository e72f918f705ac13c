"""When a delivery that failed is tried again: the four phases of a delivery policy.

Source: https://docs.aws.amazon.com/sns/latest/dg/sns-message-delivery-retries.html
"""

import json
from dataclasses import dataclass
from typing import Any

from entrepot.services.sns.errors import InvalidParameter

TOTAL_LIMIT_S = 3_600
"""The longest time over which a delivery to an HTTP endpoint is tried again (AWS's limit)."""

RETRIES_LIMIT = 100
FUNCTIONS = ("linear", "arithmetic", "geometric", "exponential")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """A policy's phases: at once, after the least delay, growing delays, the longest delay."""

    min_delay_s: int = 20
    max_delay_s: int = 20
    retries: int = 3
    no_delay_retries: int = 0
    min_delay_retries: int = 0
    max_delay_retries: int = 0
    function: str = "linear"

    @property
    def backoff_retries(self) -> int:
        """Return how many retries have growing delays."""
        return self.retries - self.no_delay_retries - self.min_delay_retries - self.max_delay_retries

    def delay_s(self, failures: int) -> float | None:
        """Return how long to wait after so many failures (from 1); None when it is not tried again."""
        if failures > self.retries:
            return None
        step = failures - self.no_delay_retries
        if step <= 0:
            return 0.0
        step -= self.min_delay_retries
        if step <= 0:
            return float(self.min_delay_s)
        if step <= self.backoff_retries:
            return self._growing_s(step)
        return float(self.max_delay_s)

    def _growing_s(self, step: int) -> float:
        least, most, steps = float(self.min_delay_s), float(self.max_delay_s), self.backoff_retries
        if steps == 1 or least >= most:
            return least
        share = (step - 1) / (steps - 1)
        match self.function:
            case "linear":
                return least + (most - least) * share
            case "arithmetic":
                return least + (most - least) * share * step / steps
            case "geometric":
                return least * float((most / least) ** share)
            case _:
                return min(most, least * 2.0 ** (step - 1))

    def shape(self) -> dict[str, Any]:
        """Return the policy in AWS's JSON."""
        return {
            "minDelayTarget": self.min_delay_s,
            "maxDelayTarget": self.max_delay_s,
            "numRetries": self.retries,
            "numMaxDelayRetries": self.max_delay_retries,
            "numNoDelayRetries": self.no_delay_retries,
            "numMinDelayRetries": self.min_delay_retries,
            "backoffFunction": self.function,
        }


HTTP = RetryPolicy()
"""What an HTTP endpoint has unless a policy says otherwise: three retries, 20 seconds apart."""

MANAGED = RetryPolicy(1, 20, 100_015, 3, 2, 100_000, "exponential")
"""Queues and functions: over 23 days."""

CUSTOMER = RetryPolicy(10, 600, 50, 0, 2, 38, "exponential")
"""Mail and chat: over 6 hours."""


@dataclass(frozen=True, slots=True)
class DeliveryPolicy:
    """How an HTTP endpoint is called. `per_s` limits deliveries per second; `content_type` is the header of posts."""

    retry: RetryPolicy = HTTP
    per_s: int | None = None
    content_type: str = "text/plain; charset=UTF-8"

    def shape(self) -> dict[str, Any]:
        """Return the policy in AWS's JSON for a subscription."""
        shape: dict[str, Any] = {"healthyRetryPolicy": self.retry.shape()}
        if self.per_s is not None:
            shape["throttlePolicy"] = {"maxReceivesPerSecond": self.per_s}
        return shape | {"requestPolicy": {"headerContentType": self.content_type}}


CHAT = DeliveryPolicy(CUSTOMER, 1, "application/json")
"""What a chat's webhook has unless a policy says otherwise: one post per second, as Slack asks for."""

_NUMBERS = {
    "minDelayTarget": ("min_delay_s", 1, TOTAL_LIMIT_S),
    "maxDelayTarget": ("max_delay_s", 1, TOTAL_LIMIT_S),
    "numRetries": ("retries", 0, RETRIES_LIMIT),
    "numMaxDelayRetries": ("max_delay_retries", 0, RETRIES_LIMIT),
    "numNoDelayRetries": ("no_delay_retries", 0, RETRIES_LIMIT),
    "numMinDelayRetries": ("min_delay_retries", 0, RETRIES_LIMIT),
}
_CONTENT_TYPES = ("application/json", "text/plain", "text/html", "application/xml", "text/xml", "text/css",
                  "text/csv", "application/octet-stream", "application/x-www-form-urlencoded",
                  "application/xhtml+xml", "application/rss+xml", "application/atom+xml", "application/soap+xml",
                  "application/javascript", "text/javascript")  # fmt: skip


def topic_policy(text: str) -> tuple[DeliveryPolicy, bool]:
    """Return a topic's DeliveryPolicy and whether it overrides those of subscriptions. Raise InvalidParameter."""
    document = _object(_json(text), "http", ("http",))
    http = _object(
        document.get("http", {}),
        "http",
        ("defaultHealthyRetryPolicy", "disableSubscriptionOverrides", "defaultThrottlePolicy", "defaultRequestPolicy"),
    )
    overrides = http.get("disableSubscriptionOverrides", False)
    if not isinstance(overrides, bool):
        raise _refused("disableSubscriptionOverrides is not a boolean")
    parts = [http.get(f"default{name}") for name in ("HealthyRetryPolicy", "ThrottlePolicy", "RequestPolicy")]
    return _policy(*parts), overrides


def subscription_policy(text: str, above: DeliveryPolicy | None = None) -> DeliveryPolicy:
    """Return a subscription's DeliveryPolicy, over its topic's. Raise InvalidParameter."""
    names = ("healthyRetryPolicy", "throttlePolicy", "requestPolicy", "sicklyRetryPolicy", "guaranteed")
    document = _object(_json(text), "DeliveryPolicy", names)
    retry, throttle, request = (document.get(name) for name in names[:3])
    return _policy(retry, throttle, request, above)


def _policy(retry: Any, throttle: Any, request: Any, above: DeliveryPolicy | None = None) -> DeliveryPolicy:
    above = above or DeliveryPolicy()
    per_s = above.per_s
    if throttle is not None:
        per_s = _object(throttle, "throttlePolicy", ("maxReceivesPerSecond",)).get("maxReceivesPerSecond")
        if per_s is not None and (type(per_s) is not int or per_s < 1):
            raise _refused("maxReceivesPerSecond must be an integer greater than 0")
    content_type = above.content_type
    if request is not None:
        content_type = _object(request, "requestPolicy", ("headerContentType",)).get("headerContentType", content_type)
        if not isinstance(content_type, str) or content_type.partition(";")[0].strip().lower() not in _CONTENT_TYPES:
            raise _refused("headerContentType is not one of those that are supported")
        if not content_type.isascii() or not content_type.isprintable() or len(content_type) > 200:
            raise _refused("headerContentType is malformed")
    return DeliveryPolicy(above.retry if retry is None else _retry(retry), per_s, content_type)


def _retry(value: Any) -> RetryPolicy:
    given = _object(value, "healthyRetryPolicy", (*_NUMBERS, "backoffFunction"))
    arguments: dict[str, Any] = {}
    for name, (field, least, most) in _NUMBERS.items():
        if given.get(name) is None:
            continue
        if type(given[name]) is not int or not least <= given[name] <= most:
            raise _refused(f"healthyRetryPolicy.{name} must be an integer between {least} and {most}")
        arguments[field] = given[name]
    function = given.get("backoffFunction") or "linear"
    if function not in FUNCTIONS:
        raise _refused(f"healthyRetryPolicy.backoffFunction must be one of: {', '.join(FUNCTIONS)}")
    policy = RetryPolicy(**arguments, function=function)
    if policy.max_delay_s < policy.min_delay_s:
        raise _refused("healthyRetryPolicy.maxDelayTarget must be greater than or equal to minDelayTarget")
    if policy.backoff_retries < 0:
        raise _refused("healthyRetryPolicy.numRetries must be greater than or equal to total of numMinDelayRetries, "
                       "numNoDelayRetries and numMaxDelayRetries")  # fmt: skip
    total_s = sum(policy.delay_s(failures) or 0 for failures in range(1, policy.retries + 1))
    if total_s > TOTAL_LIMIT_S:
        raise _refused(f"healthyRetryPolicy: the total of all delays, {total_s:.0f} s, exceeds {TOTAL_LIMIT_S} s")
    return policy


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise _refused("failed to parse JSON.") from None


def _object(value: Any, place: str, names: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _refused(f"{place} must be an object")
    if unknown := [name for name in value if name not in names]:
        raise _refused(f"Unrecognized field {unknown[0][:100]!r} in {place}")
    return value


def _refused(reason: str) -> InvalidParameter:
    return InvalidParameter(f"Invalid parameter: DeliveryPolicy: {reason}")
