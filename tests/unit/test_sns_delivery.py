"""SNS's way out: what endpoints get, how it is tried again, and that one endpoint holds up nobody but itself."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from entrepot.outbound import ConnectionFailedError, DeniedError, OutboundError, Request
from entrepot.services.sns import public_links, retries
from entrepot.services.sns.retries import RetryPolicy
from tests.unit.sns_site import ENDPOINT, Site

AT_ONCE = json.dumps({"healthyRetryPolicy": {"numRetries": 3, "numNoDelayRetries": 3}})


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(tmp_path)
    await made.sns.start()
    yield made
    await made.close()


def posts(site: Site, host: str = "") -> list[dict[str, Any]]:
    """The documents that went to a host."""
    return [json.loads(request.body) for request in site.sent if host in request.url]


async def verified(site: Site, document: dict[str, Any]) -> bool:
    """Verify a signature as AWS's documentation says: the certificate of SigningCertURL, the string of sorted keys."""
    url = document["SigningCertURL"]
    assert url.startswith(f"{ENDPOINT}/")
    answer = await public_links.answer(site.sns, url.removeprefix(ENDPOINT), {})
    assert answer[0] == 200
    key = x509.load_pem_x509_certificate(answer[2]).public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    keys = ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"]
    if document["Type"] != "Notification":
        keys = ["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]
    text = "".join(f"{name}\n{document[name]}\n" for name in keys if name in document)
    digest: hashes.HashAlgorithm = {"1": hashes.SHA1(), "2": hashes.SHA256()}[document["SignatureVersion"]]
    try:
        key.verify(base64.b64decode(document["Signature"]), text.encode(), padding.PKCS1v15(), digest)
    except InvalidSignature:
        return False
    return True


@pytest.mark.parametrize("version", ["1", "2"])
async def test_an_http_endpoint_confirms_and_gets_signed_notifications(site: Site, version: str) -> None:
    topic = await site.topic(SignatureVersion=version)
    arn = await site.subscribe(topic, "https", "https://a.example/hook")
    await site.until(lambda: len(site.sent) == 1)
    (asked,) = posts(site)
    headers = dict(site.sent[0].headers)
    assert asked["Type"] == headers["x-amz-sns-message-type"] == "SubscriptionConfirmation"
    assert headers["Content-Type"] == "text/plain; charset=UTF-8"
    assert "x-amz-sns-subscription-arn" not in headers
    assert await verified(site, asked)
    query = dict(pair.split("=") for pair in asked["SubscribeURL"].partition("?")[2].split("&"))
    assert public_links.is_public("GET", "/", query)
    status, _, answer = await public_links.answer(site.sns, "/", query)
    assert status == 200
    assert f"<SubscriptionArn>{arn}</SubscriptionArn>".encode() in answer
    await site.call("Publish", TopicArn=topic, Message="größe <&>", Subject="Hi")
    await site.until_empty()
    notification, headers = posts(site)[1], dict(site.sent[1].headers)
    assert notification["Type"] == headers["x-amz-sns-message-type"] == "Notification"
    assert headers["x-amz-sns-subscription-arn"] == arn
    assert headers["x-amz-sns-message-id"] == notification["MessageId"]
    assert await verified(site, notification)
    assert not await verified(site, {**notification, "Message": "forged"})
    assert await site.count("sns_message") == 0


async def test_an_unsubscribed_endpoint_is_told_and_can_come_back(site: Site) -> None:
    topic = await site.topic()
    arn = await site.subscribe_confirmed(topic, "https", "https://a.example/")
    await site.until_empty()
    query = {"Action": "Unsubscribe", "SubscriptionArn": arn}
    assert (await public_links.answer(site.sns, "/", query))[0] == 200
    assert (await public_links.answer(site.sns, "/", query))[0] == 200
    await site.until_empty()
    told = posts(site)[-1]
    assert told["Type"] == "UnsubscribeConfirmation"
    assert await verified(site, told)
    assert (await site.call("ListSubscriptions"))["Subscriptions"] == []
    await site.call("Publish", TopicArn=topic, Message="x")
    assert await site.count("sns_delivery") == 0
    await site.call("ConfirmSubscription", TopicArn=topic, Token=told["Token"])
    assert len((await site.call("ListSubscriptions"))["Subscriptions"]) == 1


async def test_who_asked_for_authentication_is_not_unsubscribed_by_the_link(site: Site) -> None:
    topic = await site.topic()
    arn = await site.subscribe(topic, "https", "https://a.example/")
    await site.call(
        "ConfirmSubscription", TopicArn=topic, Token=await site.token(arn), AuthenticateOnUnsubscribe="true"
    )
    status, _, body = await public_links.answer(site.sns, "/", {"Action": "Unsubscribe", "SubscriptionArn": arn})
    assert status == 403
    assert b"AuthorizationError" in body


@pytest.mark.parametrize(
    "query",
    [
        {"Action": "ConfirmSubscription"},
        {"Action": "ConfirmSubscription", "TopicArn": "x", "Token": "y"},
        {"Action": "Unsubscribe"},
        {"Action": "Unsubscribe", "SubscriptionArn": "arn:aws:sns:us-east-1:000000000000:<script>"},
    ],
)
async def test_links_that_lead_nowhere(site: Site, query: dict[str, str]) -> None:
    status, kind, body = await public_links.answer(site.sns, "/", query)
    assert (status, kind) == (400, "text/xml")
    assert b"<script" not in body


def test_only_links_are_public() -> None:
    assert not public_links.is_public("POST", "/", {"Action": "ConfirmSubscription"})
    assert not public_links.is_public("GET", "/", {"Action": "Publish"})
    assert not public_links.is_public("GET", "/bucket", {"Action": "Unsubscribe"})


async def test_raw_delivery_posts_the_message_alone(site: Site) -> None:
    topic = await site.topic()
    policy = json.dumps({"requestPolicy": {"headerContentType": "application/json"}})
    await site.subscribe_confirmed(
        topic, "https", "https://a.example/", RawMessageDelivery="true", DeliveryPolicy=policy
    )
    await site.until_empty()
    await site.call("Publish", TopicArn=topic, Message='{"a":1}')
    await site.until_empty()
    headers = dict(site.sent[-1].headers)
    assert site.sent[-1].body == b'{"a":1}'
    assert headers["x-amz-sns-rawdelivery"] == "true"
    assert headers["Content-Type"] == "application/json"


async def test_a_function_gets_an_event(site: Site) -> None:
    topic = await site.topic()
    function = "arn:aws:lambda:us-east-1:000000000000:function:f"
    arn = await site.subscribe(topic, "lambda", function)
    attributes = {"kind": {"DataType": "String", "StringValue": "a"}}
    await site.call("Publish", TopicArn=topic, Message="x", MessageAttributes=attributes)
    await site.until(lambda: len(site.invoked) == 1)
    assert (site.invoked[0]["FunctionName"], site.invoked[0]["InvocationType"]) == (function, "Event")
    (record,) = json.loads(site.invoked[0]["Payload"])["Records"]
    assert (record["EventSource"], record["EventVersion"], record["EventSubscriptionArn"]) == ("aws:sns", "1.0", arn)
    assert record["Sns"]["MessageAttributes"] == {"kind": {"Type": "String", "Value": "a"}}
    assert (record["Sns"]["Message"], record["Sns"]["Subject"]) == ("x", None)
    assert {"SigningCertUrl", "UnsubscribeUrl", "Signature"} <= set(record["Sns"])


async def test_a_chat_gets_its_text(site: Site) -> None:
    topic = await site.topic()
    await site.subscribe(topic, "chat", "https://hooks.example/services/T/B/x")
    await site.call("Publish", TopicArn=topic, Message="3 files failed", Subject="Alarm")
    await site.until(lambda: len(site.sent) == 1)
    assert json.loads(site.sent[0].body) == {"text": "*Alarm*\n3 files failed"}
    assert dict(site.sent[0].headers)["Content-Type"] == "application/json"


# ── failures ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("failure", [500, 503, 429, ConnectionFailedError("refused")])
async def test_an_endpoint_that_fails_is_tried_again_and_then_the_queue_gets_it(
    site: Site, failure: int | OutboundError
) -> None:
    topic, dead = await site.topic(), await site.queue("dead")
    await site.subscribe_confirmed(
        topic, "https", "https://a.example/", DeliveryPolicy=AT_ONCE,
        RedrivePolicy=json.dumps({"deadLetterTargetArn": dead}),
    )  # fmt: skip
    await site.until_empty()
    site.sent.clear()
    site.answers = lambda request: failure
    published = await site.call("Publish", TopicArn=topic, Message="x")
    await site.until_empty()
    assert len(site.sent) == 4
    (message,) = await site.received("dead")
    assert json.loads(message["Body"])["MessageId"] == published["MessageId"]
    assert [json.loads(line)["tries"] for line in site.lines] == [1, 2, 3, 4]
    assert await site.count("sns_message") == 0


@pytest.mark.parametrize("failure", [400, 403, 404, 301, DeniedError("metadata")])
async def test_what_cannot_get_better_is_given_up_at_once(site: Site, failure: int | OutboundError) -> None:
    topic = await site.topic()
    await site.subscribe_confirmed(topic, "https", "https://a.example/", DeliveryPolicy=AT_ONCE)
    await site.until_empty()
    site.sent.clear()
    site.answers = lambda request: failure
    await site.call("Publish", TopicArn=topic, Message="x")
    await site.until_empty()
    assert len(site.sent) == 1
    assert json.loads(site.lines[-1])["outcome"] == "given up"


async def test_a_dead_endpoint_holds_up_nobody_else(site: Site) -> None:
    topic = await site.topic()
    await site.subscribe_confirmed(topic, "https", "https://dead.example/")
    await site.subscribe_confirmed(topic, "https", "https://live.example/")
    await site.until_empty()
    site.sent.clear()
    answer = asyncio.Event()
    send = site.sns._deliverer._send

    async def slow(request: Request) -> Any:
        if "dead" in request.url:
            await answer.wait()
        return await send(request)

    site.sns._deliverer._send = slow
    for number in range(50):
        await site.call("Publish", TopicArn=topic, Message=str(number))
    await site.until(lambda: len(posts(site, "live")) == 50)
    assert posts(site, "dead") == []
    answer.set()
    await site.until_empty()
    assert len(posts(site, "dead")) == 50


async def test_many_dead_endpoints_hold_up_nobody_else(site: Site) -> None:
    """More endpoints hang than there are places for failing ones, each with many messages."""
    topic = await site.topic()
    for number in range(20):
        await site.subscribe_confirmed(topic, "https", f"https://dead.example/{number}", DeliveryPolicy=AT_ONCE)
    await site.subscribe_confirmed(topic, "https", "https://live.example/")
    await site.until_empty()
    site.sent.clear()
    send = site.sns._deliverer._send

    async def slow(request: Request) -> Any:
        if "dead" in request.url:
            await asyncio.sleep(0.2)  # stands for the time-out of 15 s
            raise ConnectionFailedError("timed out")
        return await send(request)

    site.sns._deliverer._send = slow
    for number in range(20):
        await site.call("Publish", TopicArn=topic, Message=str(number))
    await site.until(lambda: len(posts(site, "live")) == 20)
    assert await site.count("sns_delivery") > 200


async def test_a_delivery_that_breaks_is_given_up_like_others(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    topic = await site.topic()
    await site.subscribe_confirmed(topic, "https", "https://a.example/", DeliveryPolicy=AT_ONCE)
    await site.until_empty()
    send = site.sns._deliverer._send

    async def broken(request: Request) -> Any:
        if b"poison" in request.body:
            raise ValueError("a bug")
        return await send(request)

    site.sns._deliverer._send = broken
    await site.call("Publish", TopicArn=topic, Message="poison")
    await site.call("Publish", TopicArn=topic, Message="fine")
    await site.until_empty()
    assert [document["Message"] for document in posts(site) if document["Type"] == "Notification"] == ["fine"]
    assert json.loads(site.lines[-1])["outcome"] == "given up"
    assert "a bug" in caplog.text


async def test_what_waits_is_delivered_after_a_restart(tmp_path: Path) -> None:
    first = Site(tmp_path)
    topic = await first.topic()
    await first.subscribe_confirmed(topic, "https", "https://a.example/")
    published = await first.call("Publish", TopicArn=topic, Message="x", Subject="s",
                                 MessageAttributes={"b": {"DataType": "Binary", "BinaryValue": b"\x00"}})  # fmt: skip
    assert first.sent == []  # Nothing delivers: this process never started its lanes.
    await first.close()
    second = Site(tmp_path)
    await second.sns.start()
    await second.until_empty()
    notification = next(document for document in posts(second) if document["Type"] == "Notification")
    assert notification["MessageId"] == published["MessageId"]
    assert notification["MessageAttributes"] == {"b": {"Type": "Binary", "Value": "AA=="}}
    assert await verified(second, notification)
    await second.close()


async def test_a_deleted_topics_deliveries_are_forgotten(tmp_path: Path) -> None:
    site = Site(tmp_path)
    topic = await site.topic()
    await site.subscribe_confirmed(topic, "https", "https://a.example/")
    await site.call("Publish", TopicArn=topic, Message="x")
    await site.call("DeleteTopic", TopicArn=topic)
    await site.sns.start()
    await site.until_empty()
    assert site.sent == []
    assert await site.count("sns_message") == 0
    await site.close()


async def test_a_rate_that_an_endpoint_asks_for_is_kept(site: Site) -> None:
    topic = await site.topic()
    policy = json.dumps({"throttlePolicy": {"maxReceivesPerSecond": 40}})
    await site.subscribe_confirmed(topic, "https", "https://a.example/", DeliveryPolicy=policy)
    await site.until_empty()
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    for number in range(20):
        await site.call("Publish", TopicArn=topic, Message=str(number))
    await site.until_empty()
    assert loop.time() - began_s > 0.25


# ── when ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def delays(policy: RetryPolicy, count: int) -> list[float | None]:
    return [policy.delay_s(failures) for failures in range(1, count + 1)]


def test_the_phases_are_those_that_aws_documents() -> None:
    assert delays(retries.HTTP, 4) == [20, 20, 20, None]
    managed = delays(retries.MANAGED, 17)
    assert managed[:5] == [0, 0, 0, 1, 1]
    assert managed[5:15] == [1, 2, 4, 8, 16, 20, 20, 20, 20, 20]
    assert managed[15:] == [20, 20]
    assert retries.MANAGED.delay_s(100_015) == 20
    assert retries.MANAGED.delay_s(100_016) is None
    mail = delays(retries.CUSTOMER, 51)
    assert mail[:2] == [10, 10]
    assert mail[11:13] == [600, 600]
    assert mail[49:] == [600, None]


@pytest.mark.parametrize("function", retries.FUNCTIONS)
def test_delays_grow_from_the_least_to_the_most(function: str) -> None:
    policy = RetryPolicy(1, 100, 10, function=function)
    grown = [delay for delay in delays(policy, 10) if delay is not None]
    assert grown == sorted(grown)
    assert (grown[0], round(grown[-1], 6)) == (1, 100)
