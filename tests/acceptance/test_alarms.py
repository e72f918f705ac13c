"""Whoever runs it is told: files that fail and a file that does not come raise alarms, which mail, remember and end."""

import re
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from tests.acceptance.receivers import MailReceiver
from tests.running import Stack, wait_for

SOURCE = "my-source-sftp-bucket"
FILES, FAILING = 100, 3
ADDRESS = "operations@example.com"

ADDED = """
[smtp]
host = "127.0.0.1"
port = {port}
starttls = false

[[topics.transfer-alerts.subscriptions]]
protocol = "email"
endpoint = "operations@example.com"
"""


def furnished(folder: Path, mail_port: int) -> Stack:
    """Return the default stack with alarms on periods of ten seconds, and a function that fails for some files."""
    stack = Stack(folder)
    toml = stack.folder / "stack.toml"
    text = toml.read_text() + ADDED.format(port=mail_port)
    toml.write_text(re.sub(r"(?m)^\[alarms\.[a-z-]+\]$", r"\g<0>\nperiod_s = 10", text))
    handler = stack.folder / "functions" / "transfer" / "handler.py"
    raising = '    if "broken" in event["key"]:\n        raise ValueError("the file is broken")\n'
    source = handler.read_text()
    place = source.index("    file_id = event[")
    handler.write_text(source[:place] + raising + source[place:])
    return stack


def states(stack: Stack, alarm: str) -> list[str]:
    """Return the summaries of an alarm's changes of state, oldest first."""
    items = stack.client("cloudwatch").describe_alarm_history(AlarmName=alarm, HistoryItemType="StateUpdate")
    return [
        item["HistorySummary"].rsplit(" ", 1)[-1]
        for item in sorted(items["AlarmHistoryItems"], key=lambda item: item["Timestamp"])
    ]


def state(stack: Stack, alarm: str) -> str:
    (found,) = stack.client("cloudwatch").describe_alarms(AlarmNames=[alarm])["MetricAlarms"]
    value: str = found["StateValue"]
    return value


def counted(stack: Stack, metric_name: str, **dimensions: str) -> float:
    """Return the sum of a metric over the last hour."""
    now = datetime.now(UTC)
    points = stack.client("cloudwatch").get_metric_statistics(
        Namespace="Entrepot", MetricName=metric_name, Statistics=["Sum"], Period=60,
        Dimensions=[{"Name": name, "Value": value} for name, value in dimensions.items()],
        StartTime=now - timedelta(hours=1), EndTime=now + timedelta(hours=1),
    )["Datapoints"]  # fmt: skip
    return sum(float(point["Sum"]) for point in points)


def subjects(mails: list[EmailMessage], alarm: str) -> list[str]:
    return [str(mail["Subject"]).split(":")[0] for mail in mails if alarm in str(mail["Subject"])]


def confirm(mail: EmailMessage) -> None:
    link = re.search(r"http://\S+", mail.get_content())
    assert link is not None
    with urllib.request.urlopen(link[0], timeout=10) as answer:
        assert answer.status == 200


def upload(stack: Stack) -> None:
    s3 = stack.client("s3")

    def put(number: int) -> Any:
        name = f"broken-{number}" if number < FAILING else f"fine-{number}"
        return s3.put_object(Bucket=SOURCE, Key=f"demo/{name}.csv", Body=b"a,b\n")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(put, range(FILES)))


def test_failed_files_and_a_missing_one_raise_alarms_that_mail_and_end(tmp_path: Path) -> None:
    with MailReceiver() as mail, furnished(tmp_path / "stack", mail.port) as stack:
        wait_for(lambda: mail.box.to(ADDRESS), what="the mail that asks to confirm")
        confirm(mail.box.to(ADDRESS)[0])
        alarms = ("failed-transfers", "missing-files")
        wait_for(lambda: all(state(stack, alarm) == "OK" for alarm in alarms), what="alarms without cause")

        deadline = datetime.now(UTC) + timedelta(seconds=5)
        stack.client("entrepot").put_expectation(
            name="nightly", key_pattern="demo/nightly-*.csv", by=f"{deadline:%H:%M:%S}", window_s=2,
            days=["mon", "tue", "wed", "thu", "fri", "sat", "sun"],
        )  # fmt: skip
        upload(stack)

        for alarm in alarms:
            wait_for(lambda alarm=alarm: state(stack, alarm) == "ALARM", deadline_s=40, what=f"the alarm {alarm}")
            wait_for(lambda alarm=alarm: "ALARM" in subjects(mail.box.mails, alarm), what=f"the mail of {alarm}")
        assert state(stack, "undelivered-file") == "OK"
        failed = next(m for m in mail.box.mails if str(m["Subject"]).startswith('ALARM: "failed-transfers"'))
        assert "entrepot files --status failed" in failed.get_content()
        assert len(stack.json("files", "--status", "failed", "--limit", "200")) == FAILING
        assert len(stack.json("files", "--status", "transferred", "--limit", "200")) == FILES - FAILING
        assert counted(stack, "Files", Status="failed") == FAILING, "a function that is retried counts once"
        (expected,) = stack.json("expectations")
        assert expected["last_outcome"]["outcome"] == "missing"
        assert "missing" in stack.entrepot("expectation", "nightly")

        # The file comes after all: its window was missed, and then it was late.
        stack.client("s3").put_object(Bucket=SOURCE, Key="demo/nightly-1.csv", Body=b"a,b\n")
        assert stack.json("expectation", "nightly")["outcomes"][0]["outcome"] == "late"

        for alarm in alarms:
            wait_for(lambda alarm=alarm: state(stack, alarm) == "OK", deadline_s=60, what=f"the end of {alarm}")
            wait_for(lambda alarm=alarm: "OK" in subjects(mail.box.mails, alarm)[1:], what=f"the last mail of {alarm}")
            assert states(stack, alarm)[-2:] == ["ALARM", "OK"]
            assert subjects(mail.box.mails, alarm)[-2:] == ["ALARM", "OK"]


def test_expectations_follow_the_file_and_mistakes_name_their_line(tmp_path: Path) -> None:
    stack = Stack(tmp_path / "stack")
    toml = stack.folder / "stack.toml"
    original = toml.read_text()
    daily = '\n[expectations.daily]\nkey_pattern = "demo/*.csv"\nby = "06:00"\ntime_zone = "{zone}"\n'
    toml.write_text(original + daily.format(zone="Mars/Base"))
    told = stack.entrepot("check", expect=3)
    assert f"stack.toml:{original.count(chr(10)) + 2}:" in told and "Europe/Berlin" in told
    toml.write_text(original + daily.format(zone="Europe/Berlin"))
    with stack:
        assert [one["time_zone"] for one in stack.json("expectations")] == ["Europe/Berlin"]
        assert "daily" in stack.entrepot("expectations")
        assert "nothing" not in stack.entrepot("expectation", "none", expect=5)
    toml.write_text(original)
    with stack:
        assert stack.json("expectations") == []


def test_what_was_missed_while_the_server_was_dead_is_told_at_its_start(tmp_path: Path) -> None:
    stack = Stack(tmp_path / "stack")
    with stack:
        deadline = datetime.now(UTC) + timedelta(seconds=4)
        stack.client("entrepot").put_expectation(
            name="nightly", key_pattern="demo/nightly-*.csv", by=f"{deadline:%H:%M:%S}", window_s=1,
            days=["mon", "tue", "wed", "thu", "fri", "sat", "sun"],
        )  # fmt: skip
        stack.kill()
        wait_for(lambda: datetime.now(UTC) > deadline + timedelta(seconds=1.1), what="the deadline")
        stack.start()
        shown = stack.json("expectation", "nightly")
        assert [outcome["outcome"] for outcome in shown["outcomes"]] == ["missing"]
        assert counted(stack, "ExpectationsMissed", Expectation="nightly") == 1
