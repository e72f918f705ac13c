"""SNS end to end: a real server, boto3, an HTTP endpoint that verifies signatures, an SMTP server, queues, functions."""

import base64
import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.acceptance.receivers import HttpReceiver, MailReceiver
from tests.running import Stack, wait_for

ACCOUNT = "000000000000"

FUNCTION = """
def lambda_handler(event, context):
    for record in event["Records"]:
        print("notified of", record["Sns"]["Message"], record["EventSource"])
"""

WORKFLOW = {
    "StartAt": "Tell",
    "States": {
        "Tell": {
            "Type": "Task",
            "Resource": "arn:aws:states:::sns:publish",
            "Parameters": {
                "TopicArn.$": "$.topic",
                "Message.$": "$.message",
                "Subject": "From a workflow",
                "MessageAttributes": {"kind": {"DataType": "String", "StringValue": "workflow"}},
            },
            "End": True,
        }
    },
}

ADDED = """
[smtp]
host = "127.0.0.1"
port = {port}
from = "entrepot@example.com"
starttls = false

[functions.notified]
folder = "functions/notified"
handler = "handler.lambda_handler"
role = "transfer-function"

[roles.telling]
policy = "policies/telling.json"

[state_machines.telling]
definition = "workflows/telling.asl.json"
role = "telling"
"""


@pytest.fixture(scope="module")
def http() -> Iterator[HttpReceiver]:
    with HttpReceiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def mail() -> Iterator[MailReceiver]:
    with MailReceiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, mail: MailReceiver) -> Iterator[Stack]:
    made = Stack(tmp_path_factory.mktemp("notifications") / "stack")
    (made.folder / "functions" / "notified").mkdir()
    (made.folder / "functions" / "notified" / "handler.py").write_text(FUNCTION)
    (made.folder / "workflows" / "telling.asl.json").write_text(json.dumps(WORKFLOW))
    statement = {"Effect": "Allow", "Action": ["sns:Publish", "logs:*"], "Resource": "*"}
    (made.folder / "policies" / "telling.json").write_text(
        json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    )
    with (made.folder / "stack.toml").open("a") as file:
        file.write(ADDED.format(port=mail.port))
    with made:
        yield made


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


def verify(document: dict[str, Any]) -> None:
    """Verify a document as AWS's documentation says; raise InvalidSignature."""
    key = x509.load_pem_x509_certificate(get(document["SigningCertURL"]).encode()).public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    names = ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"]
    if document["Type"] != "Notification":
        names = ["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]
    text = "".join(f"{name}\n{document[name]}\n" for name in names if name in document)
    digest = {"1": hashes.SHA1(), "2": hashes.SHA256()}[document["SignatureVersion"]]
    key.verify(base64.b64decode(document["Signature"]), text.encode(), padding.PKCS1v15(), digest)


def queue(stack: Stack, name: str) -> tuple[Any, str, str]:
    """Create a queue; return (client, URL, ARN)."""
    client = stack.client("sqs")
    url = client.create_queue(QueueName=name)["QueueUrl"]
    return client, url, f"arn:aws:sqs:us-east-1:{ACCOUNT}:{name}"


def received(client: Any, url: str) -> dict[str, Any]:
    (message,) = client.receive_message(QueueUrl=url, WaitTimeSeconds=10, MessageAttributeNames=["All"])["Messages"]
    client.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    found: dict[str, Any] = message
    return found


def test_an_http_endpoint_verifies_what_it_gets(stack: Stack, http: HttpReceiver) -> None:
    sns = stack.client("sns")
    topic = sns.create_topic(Name="web", Attributes={"SignatureVersion": "2"}, Tags=[{"Key": "a", "Value": "b"}])[
        "TopicArn"
    ]
    answer = sns.subscribe(TopicArn=topic, Protocol="http", Endpoint=f"{http.url}/web")
    assert answer["SubscriptionArn"] == "pending confirmation"
    wait_for(lambda: http.at("/web"), what="the confirmation")
    asked = json.loads(http.at("/web")[0].body)
    verify(asked)
    arn = re.search("<SubscriptionArn>(.*)</SubscriptionArn>", get(asked["SubscribeURL"]))
    assert arn is not None
    attributes = sns.get_subscription_attributes(SubscriptionArn=arn[1])["Attributes"]
    assert attributes["PendingConfirmation"] == "false"
    sns.publish(
        TopicArn=topic, Message="grüße\nzwei", Subject="Hi",
        MessageAttributes={"n": {"DataType": "Number", "StringValue": "7"}, "b": {"DataType": "Binary", "BinaryValue": b"\x00"}},
    )  # fmt: skip
    wait_for(lambda: len(http.at("/web")) == 2, what="the notification")
    notification = json.loads(http.at("/web")[1].body)
    verify(notification)
    assert notification["Message"] == "grüße\nzwei"
    assert notification["MessageAttributes"]["n"] == {"Type": "Number", "Value": "7"}
    assert http.at("/web")[1].headers["user-agent"] == "Amazon Simple Notification Service Agent"
    get(notification["UnsubscribeURL"])
    wait_for(lambda: len(http.at("/web")) == 3, what="the farewell")
    verify(json.loads(http.at("/web")[2].body))
    assert sns.list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"] == []
    assert sns.list_tags_for_resource(ResourceArn=topic)["Tags"] == [{"Key": "a", "Value": "b"}]


def test_only_the_links_need_no_signature(stack: Stack) -> None:
    for query in ("Action=ListTopics", "Action=Publish&TopicArn=x&Message=y", "Action=ConfirmSubscription&TopicArn=x"):
        with pytest.raises(urllib.error.HTTPError) as raised:
            get(f"{stack.api}/?{query}")
        assert 400 <= raised.value.code < 500
        raised.value.close()


def test_mail_is_confirmed_by_its_link(stack: Stack, mail: MailReceiver) -> None:
    sns = stack.client("sns")
    topic = sns.create_topic(Name="mail", Attributes={"DisplayName": 'The "Files"'})["TopicArn"]
    for protocol, address in (("email", "ops@example.com"), ("email-json", "robot@example.com")):
        sns.subscribe(TopicArn=topic, Protocol=protocol, Endpoint=address)
        wait_for(lambda address=address: mail.box.to(address), what="the confirmation")
        (asked,) = mail.box.to(address)
        text = asked.get_content()
        link = json.loads(text)["SubscribeURL"] if protocol == "email-json" else text.split("\n")[4].strip()
        assert "ConfirmSubscriptionResult" in get(link)
    sns.publish(TopicArn=topic, Message="3 Dateien fehlen: größe", Subject="Alarm")
    wait_for(lambda: len(mail.box.mails) == 4, what="the notifications")
    told = mail.box.to("ops@example.com")[1]
    assert told["Subject"] == "Alarm"
    assert str(told["From"]) == '"The \\"Files\\"" <entrepot@example.com>'
    assert told.get_content().splitlines()[0] == "3 Dateien fehlen: größe"
    document = json.loads(mail.box.to("robot@example.com")[1].get_content())
    verify(document)
    get(document["UnsubscribeURL"])
    assert [one["Endpoint"] for one in sns.list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]] == [
        "ops@example.com"
    ]


def test_a_refused_recipient_is_given_up_into_the_queue(stack: Stack) -> None:
    sns = stack.client("sns")
    client, url, arn = queue(stack, "dead-mails")
    topic = sns.create_topic(Name="refused")["TopicArn"]
    subscription = sns.subscribe(
        TopicArn=topic, Protocol="email", Endpoint="refused@example.com", ReturnSubscriptionArn=True,
        Attributes={"RedrivePolicy": json.dumps({"deadLetterTargetArn": arn})},
    )["SubscriptionArn"]  # fmt: skip
    assert sns.get_subscription_attributes(SubscriptionArn=subscription)["Attributes"]["PendingConfirmation"] == "true"
    logs = stack.client("logs")

    def lines() -> list[dict[str, Any]]:
        try:
            found = logs.filter_log_events(logGroupName="/entrepot/notifications", filterPattern="refused")["events"]
        except ClientError:
            return []
        return [json.loads(event["message"]) for event in found]

    (line,) = wait_for(lines, what="the line about the refusal")
    assert "550" in line["error"]
    assert line["outcome"] == "given up"
    assert "Messages" not in client.receive_message(QueueUrl=url)  # A confirmation is no message to keep.


def test_queues_functions_and_chats(stack: Stack, http: HttpReceiver) -> None:
    sns = stack.client("sns")
    client, url, arn = queue(stack, "all")
    topic = sns.create_topic(Name="fan-out")["TopicArn"]
    function = f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:notified"
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn,
                  Attributes={"FilterPolicy": json.dumps({"kind": [{"prefix": "a"}]})})  # fmt: skip
    sns.subscribe(TopicArn=topic, Protocol="lambda", Endpoint=function)
    sns.subscribe(TopicArn=topic, Protocol="chat", Endpoint=f"{http.url}/chat")
    entries = [
        {"Id": str(n), "Message": f"m{n}", "MessageAttributes": {"kind": {"DataType": "String", "StringValue": kind}}}
        for n, kind in enumerate(("abc", "xyz"))
    ]
    answer = sns.publish_batch(TopicArn=topic, PublishBatchRequestEntries=entries)
    assert [one["Id"] for one in answer["Successful"]] == ["0", "1"]
    body = json.loads(received(client, url)["Body"])
    assert body["Message"] == "m0"
    verify(body)
    wait_for(lambda: len(http.at("/chat")) == 2, what="the chat")
    assert {json.loads(post.body)["text"] for post in http.at("/chat")} == {"m0", "m1"}
    logs = stack.client("logs")

    def printed() -> bool:
        try:
            found = logs.filter_log_events(logGroupName="/aws/lambda/notified", filterPattern='"notified of"')["events"]
        except ClientError:
            return False
        return {event["message"].strip() for event in found} == {"notified of m0 aws:sns", "notified of m1 aws:sns"}

    wait_for(printed, what="the function's lines")


def test_a_workflow_publishes_with_its_state(stack: Stack) -> None:
    sns, states = stack.client("sns"), stack.client("stepfunctions")
    client, url, arn = queue(stack, "told")
    topic = sns.create_topic(Name="told")["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn, Attributes={"RawMessageDelivery": "true"})
    execution = states.start_execution(
        stateMachineArn=f"arn:aws:states:us-east-1:{ACCOUNT}:stateMachine:telling",
        input=json.dumps({"topic": topic, "message": "done"}),
    )["executionArn"]
    message = received(client, url)
    assert message["Body"] == "done"
    assert message["MessageAttributes"]["kind"]["StringValue"] == "workflow"
    ended = wait_for(
        lambda: next(
            (one for one in [states.describe_execution(executionArn=execution)] if one["status"] != "RUNNING"), None
        )
    )
    assert ended["status"] == "SUCCEEDED"
    assert set(json.loads(ended["output"])) >= {"MessageId"}


def test_a_topics_policy_is_evaluated(stack: Stack) -> None:
    sns, iam, sts = stack.client("sns"), stack.client("iam"), stack.client("sts")
    trust = {"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "Action": "sts:AssumeRole"}]}  # fmt: skip
    role = iam.create_role(RoleName="teller", AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    topic = sns.create_topic(Name="guarded")["TopicArn"]
    key = sts.assume_role(RoleArn=role, RoleSessionName="test")["Credentials"]
    teller = boto3.client(
        "sns", endpoint_url=stack.api, region_name="us-east-1", aws_access_key_id=key["AccessKeyId"],
        aws_secret_access_key=key["SecretAccessKey"], aws_session_token=key["SessionToken"],
    )  # fmt: skip

    def allowed() -> bool:
        try:
            teller.publish(TopicArn=topic, Message="x")
        except ClientError as error:
            assert error.response["Error"]["Code"] == "AuthorizationError"
            return False
        return True

    def set_policy(*statements: dict[str, Any]) -> None:
        document = {"Version": "2012-10-17", "Statement": [{"Resource": topic, **one} for one in statements]}
        sns.set_topic_attributes(TopicArn=topic, AttributeName="Policy", AttributeValue=json.dumps(document))

    assert not allowed()
    set_policy({"Sid": "a", "Effect": "Allow", "Principal": {"AWS": role}, "Action": "SNS:Publish"})
    assert allowed()
    set_policy({"Sid": "a", "Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "Action": "SNS:*"})
    assert not allowed()
    set_policy(
        {"Sid": "a", "Effect": "Allow", "Principal": "*", "Action": "SNS:Publish"},
        {"Sid": "b", "Effect": "Deny", "Principal": {"AWS": role}, "Action": "SNS:Publish"},
    )
    assert not allowed()
    assert sns.publish(TopicArn=topic, Message="x")["MessageId"]


def test_errors_have_awss_codes(stack: Stack) -> None:
    sns = stack.client("sns")
    topic = sns.create_topic(Name="errors")["TopicArn"]
    for code, call in (
        ("NotFound", lambda: sns.publish(TopicArn=topic + "x", Message="x")),
        ("InvalidParameter", lambda: sns.publish(TopicArn=topic, Message="x", Subject="\n")),
        ("InvalidParameter", lambda: sns.subscribe(TopicArn=topic, Protocol="sms", Endpoint="+41")),
        (
            "ParameterValueInvalid",
            lambda: sns.publish(TopicArn=topic, Message="x", MessageAttributes={"a": {"DataType": "X"}}),
        ),
        ("NotFound", lambda: sns.unsubscribe(SubscriptionArn=f"{topic}:0f0e0d0c-0b0a-4909-8807-060504030201")),
    ):
        with pytest.raises(ClientError) as raised:
            call()
        assert raised.value.response["Error"]["Code"] == code


def test_what_was_published_survives_a_kill(stack: Stack, http: HttpReceiver) -> None:
    """The endpoint is down while messages are published and the server is killed; they arrive after the restart."""
    sns = stack.client("sns")
    topic = sns.create_topic(Name="crash")["TopicArn"]
    policy = {"healthyRetryPolicy": {"minDelayTarget": 1, "maxDelayTarget": 1, "numRetries": 100}}
    sns.subscribe(TopicArn=topic, Protocol="http", Endpoint=f"{http.url}/crash",
                  Attributes={"DeliveryPolicy": json.dumps(policy)})  # fmt: skip
    wait_for(lambda: http.at("/crash"), what="the confirmation")
    token = json.loads(http.at("/crash")[0].body)["Token"]
    sns.confirm_subscription(TopicArn=topic, Token=token)
    http.status["/crash"] = 503
    ids = {sns.publish(TopicArn=topic, Message=str(number))["MessageId"] for number in range(20)}
    stack.kill()
    http.status["/crash"] = 200
    http.posts.clear()
    stack.start()

    def arrived() -> bool:
        return {json.loads(post.body)["MessageId"] for post in http.at("/crash")} == ids

    wait_for(arrived, what="all that was published")
    verify(json.loads(http.at("/crash")[0].body))  # With the same key as before.
    assert (Path(stack.folder) / "keys" / "notifications.pem").stat().st_mode & 0o777 == 0o600
