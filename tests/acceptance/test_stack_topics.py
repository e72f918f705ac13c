"""Topics and tables of `stack.toml`: made at the start, changed and taken back with the file."""

import json
import urllib.request
from pathlib import Path

from tests.acceptance.receivers import HttpReceiver, MailReceiver
from tests.running import Stack, wait_for

TOPIC = "arn:aws:sns:us-east-1:000000000000:alerts"

ADDED = """
[smtp]
host = "127.0.0.1"
port = {port}
starttls = false

[tables.sessions]
partition_key = "id"
time_to_live = "expires"
stream = "NEW_IMAGE"

[topics.alerts]
display_name = "Deliveries"
"""

SUBSCRIPTION = """
[[topics.alerts.subscriptions]]
protocol = "{protocol}"
endpoint = "{endpoint}"
{more}
"""


def test_topics_and_their_subscriptions_follow_the_file(tmp_path: Path) -> None:
    stack = Stack(tmp_path / "stack")
    toml = stack.folder / "stack.toml"
    with HttpReceiver() as http, MailReceiver() as mail:
        original = toml.read_text() + ADDED.format(port=mail.port)
        chat = SUBSCRIPTION.format(
            protocol="chat", endpoint=f"{http.url}/chat", more='filter_policy = \'{"level":["bad"]}\''
        )
        toml.write_text(original + chat + SUBSCRIPTION.format(protocol="email", endpoint="ops@example.com", more=""))
        with stack:
            sns = stack.client("sns")
            found = {one["Protocol"]: one for one in sns.list_subscriptions_by_topic(TopicArn=TOPIC)["Subscriptions"]}
            assert set(found) == {"chat", "email"}
            wait_for(lambda: mail.box.mails, what="the confirmation")
            level = {"level": {"DataType": "String", "StringValue": "bad"}}
            sns.publish(TopicArn=TOPIC, Message="fine")
            sns.publish(TopicArn=TOPIC, Message="late", MessageAttributes=level)
            wait_for(lambda: http.at("/chat"), what="the chat")
            tables = stack.client("dynamodb")
            description = tables.describe_time_to_live(TableName="sessions")["TimeToLiveDescription"]
            assert description == {"TimeToLiveStatus": "ENABLED", "AttributeName": "expires"}
            stream = tables.describe_table(TableName="sessions")["Table"]["LatestStreamArn"]
        assert [json.loads(post.body)["text"] for post in http.at("/chat")] == ["late"]

        chat = SUBSCRIPTION.format(protocol="chat", endpoint=f"{http.url}/chat", more="")
        toml.write_text(original + chat + SUBSCRIPTION.format(protocol="email", endpoint="ops@example.com", more=""))
        with stack:
            sns = stack.client("sns")
            sns.publish(TopicArn=TOPIC, Message="fine")
            wait_for(lambda: len(http.at("/chat")) == 2, what="the chat")
            assert len(mail.box.mails) == 1  # Who was asked is not asked again.
            link = mail.box.mails[0].get_content().splitlines()[4]
            link = f"{stack.api}/?{link.partition('/?')[2]}"  # The port is another one now.
            with urllib.request.urlopen(link, timeout=10) as answer:
                assert answer.status == 200
            table = stack.client("dynamodb").describe_table(TableName="sessions")["Table"]
            assert table["LatestStreamArn"] == stream

        toml.write_text(original + SUBSCRIPTION.format(protocol="email", endpoint="ops@example.com", more=""))
        with stack:
            (kept,) = stack.client("sns").list_subscriptions_by_topic(TopicArn=TOPIC)["Subscriptions"]
            assert kept["Endpoint"] == "ops@example.com"
            assert kept["SubscriptionArn"].startswith(TOPIC)
        broken = SUBSCRIPTION.format(protocol="email", endpoint="nobody", more="")
        toml.write_text(original + broken)
        assert "stack.toml:" in stack.entrepot("check", expect=3)
