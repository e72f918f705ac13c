"""Logs, Insights, alarms, topics and dashboards at the console, in a real browser."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.acceptance.console_logins import console_url
from tests.acceptance.console_site import browser, picture, watched
from tests.running import Stack, wait_for

GROUP = "/own/orders"
DESKTOP = {"width": 1280, "height": 860}
PHONE = {"width": 390, "height": 780}

BODY = {
    "start": "-PT2H",
    "widgets": [
        {"type": "text", "width": 24, "properties": {"markdown": "# Orders\n**All** of [them](https://example.com)"}},
        {
            "type": "metric",
            "width": 12,
            "properties": {
                "title": "Load of both",
                "metrics": [
                    ["Own", "Load", "Host", "a", {"id": "m1"}],
                    ["...", "b"],
                    [{"expression": "m1*2", "label": "twice a"}],
                ],
                "period": 300,
                "stat": "Maximum",
                "annotations": {"horizontal": [{"label": "too much", "value": 12}]},
            },
        },
        {
            "type": "metric",
            "width": 6,
            "properties": {
                "title": "Sums",
                "view": "singleValue",
                "setPeriodToTimeRange": True,
                "stat": "Sum",
                "metrics": [["Own", "Load", "Host", "a"], [".", ".", ".", "b"]],
            },
        },
        {"type": "metric", "width": 6, "properties": {"view": "pie", "metrics": [["Own", "Load", "Host", "a"]]}},
        {"type": "metric", "width": 6, "properties": {"view": "bar", "metrics": [["Own", "Load", "Host", "a"]]}},
        {
            "type": "log",
            "width": 12,
            "properties": {"title": "By level", "query": f"SOURCE '{GROUP}' | stats count(*) as lines by level"},
        },
        {"type": "metric", "width": 6, "properties": {"title": "Wrong", "metrics": [["Own"]]}},
    ],
}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def stack(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("watching") / "site") as made:
        logs, cloudwatch = made.client("logs"), made.client("cloudwatch")
        logs.create_log_group(logGroupName=GROUP)
        logs.create_log_stream(logGroupName=GROUP, logStreamName="one")
        now_ms = int(time.time() * 1000)
        logs.put_log_events(
            logGroupName=GROUP,
            logStreamName="one",
            logEvents=[
                {
                    "timestamp": now_ms - (29 - number) * 60_000,
                    "message": json.dumps({"level": "ERROR" if number % 6 == 0 else "INFO", "order": number}),
                }
                for number in range(30)
            ],
        )
        now = datetime.now(UTC)
        for host, value in (("a", 5.0), ("b", 9.0)):
            cloudwatch.put_metric_data(
                Namespace="Own",
                MetricData=[
                    {
                        "MetricName": "Load",
                        "Dimensions": [{"Name": "Host", "Value": host}],
                        "Timestamp": now - timedelta(minutes=minutes),
                        "Value": value,
                    }
                    for minutes in range(1, 61)
                ],
            )
        cloudwatch.put_dashboard(DashboardName="Orders", DashboardBody=json.dumps(BODY))
        wait_for(lambda: len(logs.filter_log_events(logGroupName=GROUP)["events"]) == 30, what="the lines")
        yield made


@pytest.fixture
def page(chromium: Browser, stack: Stack) -> Iterator[Page]:
    """A page that must not complain, but of forms that were wrong."""
    context = chromium.new_context(viewport=DESKTOP, base_url=console_url(stack))
    opened = context.new_page()
    opened.set_default_timeout(20_000)
    troubles = watched(opened)
    yield opened
    context.close()
    assert not [trouble for trouble in troubles if "status of 400" not in trouble]


# ── logs and Insights ────────────────────────────────────────────────────────────────────────────────────────────────


def test_lines_are_filtered_and_new_ones_appear(page: Page, stack: Stack) -> None:
    page.goto("/logs")
    page.get_by_role("link", name=GROUP, exact=True).click()
    expect(page.locator(".lines > li")).to_have_count(30)
    expect(page.locator(".lines > li").first).to_contain_text('"order": 29')
    page.get_by_label("Filter pattern").fill('{ $.level = "ERROR" }')
    page.get_by_role("button", name="Search").click()
    expect(page.locator(".lines > li")).to_have_count(5)
    page.locator(".lines summary").last.click()
    stack.client("logs").put_log_events(
        logGroupName=GROUP,
        logStreamName="one",
        logEvents=[{"timestamp": int(time.time() * 1000), "message": '{"level": "ERROR", "order": "fresh"}'}],
    )
    expect(page.locator(".lines > li").first).to_contain_text("fresh")
    expect(page.locator(".lines details[open]")).to_have_count(1)


def test_a_pattern_that_is_none_is_told(page: Page) -> None:
    page.goto("/logs?" + urlencode({"group": GROUP, "pattern": "{ $.level = "}))
    expect(page.get_by_role("alert")).to_be_visible()
    page.goto("/logs?" + urlencode({"group": GROUP, "since": "2020-01-01T00:00:00", "until": "2020-01-02T00:00:00"}))
    expect(page.get_by_text("No lines in this span of time.")).to_be_visible()


def test_how_long_lines_are_kept_can_be_changed(page: Page, stack: Stack) -> None:
    page.goto("/logs?" + urlencode({"group": GROUP}))
    page.get_by_label("Keep lines for").select_option("90")
    page.get_by_role("button", name="Change").click()
    expect(page.get_by_role("status")).to_have_text("Lines are kept for 90 days.")
    (group,) = stack.client("logs").describe_log_groups(logGroupNamePrefix=GROUP)["logGroups"]
    assert group["retentionInDays"] == 90


def test_a_query_is_run_drawn_saved_and_deleted(page: Page) -> None:
    page.goto("/logs/insights")
    page.get_by_label("Log groups").select_option(GROUP)
    page.get_by_role("textbox", name="Query").fill("filter order < 29\n| stats count(*) as lines by bin(1h), level")
    page.get_by_role("button", name="Run query").click()
    expect(page.get_by_role("heading", name="By time")).to_be_visible()
    cells = page.get_by_role("region", name="Rows").locator("tbody td:nth-child(1)").all_inner_texts()
    assert sum(int(text) for text in cells) == 29
    page.get_by_label("Save this query as").fill("Lines by level")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status")).to_contain_text("Saved")
    page.get_by_role("link", name="Lines by level").click()
    expect(page.get_by_role("heading", name="By time")).to_be_visible()
    page.get_by_role("button", name="Delete Lines by level").click()
    expect(page.get_by_role("status")).to_contain_text("deleted")
    expect(page.get_by_role("link", name="Lines by level")).to_have_count(0)


def test_the_place_of_a_mistake_is_marked(page: Page) -> None:
    query = "fields @timestamp\n| frobnicate level\n| limit 5"
    page.goto("/logs/insights?" + urlencode({"group": GROUP, "query": query}))
    expect(page.get_by_role("heading", name="The query cannot be run")).to_be_visible()
    expect(page.locator("pre mark")).to_contain_text("frobnicate")
    expect(page.get_by_role("textbox", name="Query")).to_have_value(query)


# ── alarms and topics ────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_alarm_is_made_tested_silenced_and_deleted(page: Page, stack: Stack) -> None:
    page.goto("/alarms")
    page.get_by_role("link", name="New alarm").click()
    page.get_by_label("Name", exact=True).fill("load/of a")
    page.get_by_label("Metric").select_option(label="Own Load (Host=a)")
    page.get_by_label("Threshold").fill("much")
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("alert")).to_contain_text("must be numbers")
    expect(page.get_by_label("Name", exact=True)).to_have_value("load/of a")
    page.get_by_label("Threshold").fill("1000")
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("heading", name="load/of a")).to_be_visible()
    expect(page.locator(".chart .legend").first).to_contain_text("threshold > 1,000")
    page.get_by_label("Set the state to").select_option("ALARM")
    page.get_by_label("Reason").fill("a drill")
    page.get_by_role("button", name="Set", exact=True).click()
    expect(page.get_by_role("region", name="History").get_by_text("to ALARM")).to_be_visible()
    page.get_by_role("button", name="Disable actions").click()
    expect(page.get_by_text("Its actions are disabled: nobody is told.")).to_be_visible()
    alarm = stack.client("cloudwatch").describe_alarms(AlarmNames=["load/of a"])["MetricAlarms"][0]
    assert alarm["ActionsEnabled"] is False
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("status")).to_contain_text("is deleted")
    assert not stack.client("cloudwatch").describe_alarms(AlarmNames=["load/of a"])["MetricAlarms"]


def test_a_topic_is_made_and_subscribed_to(page: Page, stack: Stack) -> None:
    page.goto("/topics")
    page.get_by_label("New topic").fill("night-shift")
    page.get_by_role("button", name="Create").click()
    page.get_by_label("Protocol").select_option("sqs")
    page.get_by_label("Endpoint").fill("not an arn")
    page.get_by_role("button", name="Subscribe").click()
    expect(page.get_by_role("alert")).to_be_visible()
    queue = stack.client("sqs").create_queue(QueueName="night")["QueueUrl"]
    arn = stack.client("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"][
        "QueueArn"
    ]
    page.get_by_label("Endpoint").fill(arn)
    page.get_by_role("button", name="Subscribe").click()
    expect(page.get_by_role("cell", name="confirmed", exact=True)).to_be_visible()
    page.get_by_role("button", name=f"Remove {arn}").click()
    expect(page.get_by_text("Nobody is told.")).to_be_visible()


# ── dashboards ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_dashboard_shows_its_widgets(page: Page) -> None:
    page.goto("/dashboards")
    page.get_by_role("link", name="Orders").click()
    expect(page.get_by_role("link", name="them")).to_have_attribute("href", "https://example.com")
    load = page.locator("section", has=page.get_by_role("heading", name="Load of both"))
    expect(load.locator(".legend")).to_contain_text("a 5")
    expect(load.locator(".legend")).to_contain_text("b 9")
    expect(load.locator(".legend")).to_contain_text("twice a 10")
    expect(load.locator(".legend")).to_contain_text("too much 12")
    sums = page.locator("section", has=page.get_by_role("heading", name="Sums")).locator("dd")
    assert sums.all_inner_texts() == ["300", "540"]
    rows = page.locator("section", has=page.get_by_role("heading", name="By level")).locator("tbody tr")
    assert {tuple(row.split("\t")) for row in rows.all_inner_texts()} >= {("25", "INFO")}
    expect(page.get_by_text("Row 0 of the metrics needs a namespace")).to_be_visible()


def test_a_dashboard_is_made_edited_and_deleted(page: Page, stack: Stack) -> None:
    page.goto("/new-dashboard")
    page.get_by_label("Name", exact=True).fill("Mine")
    page.get_by_label("Body").fill('{"widgets": [')
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert")).to_contain_text("valid JSON")
    text = {"type": "text", "width": 6, "properties": {"markdown": "Hello *there*"}}
    page.get_by_label("Body").fill(json.dumps({"widgets": [text]}))
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Hello there")).to_be_visible()
    page.get_by_role("link", name="Edit").click()
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("status")).to_contain_text("is deleted")
    names = [one["DashboardName"] for one in stack.client("cloudwatch").list_dashboards()["DashboardEntries"]]
    assert names == ["Orders"]


def test_every_change_is_in_the_audit_log(page: Page, stack: Stack) -> None:
    page.goto("/new-dashboard")
    page.get_by_label("Name", exact=True).fill("Audited")
    page.get_by_role("button", name="Save").click()
    page.get_by_role("link", name="Edit").click()
    page.get_by_role("button", name="Delete").click()
    logs = stack.client("logs")

    def actions() -> set[str]:
        events = logs.filter_log_events(logGroupName="/entrepot/audit")["events"]
        lines = [json.loads(event["message"]) for event in events]
        return {line["action"] for line in lines if line["decision"] == "CHANGE" and line["resource"] == "Audited"}

    wait_for(lambda: actions() == {"PutDashboard", "DeleteDashboards"}, what="the audit lines")


# ── for everybody ────────────────────────────────────────────────────────────────────────────────────────────────────

PAGES = {
    "logs": "/logs",
    "group": "/logs?" + urlencode({"group": GROUP}),
    "insights": "/logs/insights?" + urlencode({"group": GROUP, "query": "stats count(*) as lines by bin(5m), level"}),
    "mistake": "/logs/insights?" + urlencode({"group": GROUP, "query": "frobnicate"}),
    "alarms": "/alarms",
    "alarm": "/alarms/failed-transfers",
    "new alarm": "/new-alarm",
    "topics": "/topics",
    "topic": "/topics/transfer-alerts",
    "dashboards": "/dashboards",
    "dashboard": "/dashboards/Orders",
    "dashboard body": "/dashboards/Orders/edit",
    "new dashboard": "/new-dashboard",
}


@pytest.mark.parametrize("name", PAGES)
def test_pages_suit_phones_dark_screens_and_screen_readers(chromium: Browser, stack: Stack, name: str) -> None:
    for viewport, scheme in ((PHONE, "light"), (DESKTOP, "dark")):
        context = chromium.new_context(viewport=viewport, color_scheme=scheme)
        page = context.new_page()
        troubles = watched(page)
        answer = page.goto(console_url(stack) + PAGES[name])
        assert answer is not None and answer.status == 200
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{name} is wider than {viewport}"
        violations = Axe().run(page).response["violations"]
        serious = [
            f"{each['id']}: {each['help']}: {each['nodes'][0]['html'][:200]}"
            for each in violations
            if each["impact"] in ("serious", "critical")
        ]
        assert not serious, f"{name}, {scheme}: {serious}"
        assert not troubles
        if viewport is DESKTOP and name in ("insights", "alarm", "dashboard"):
            page.emulate_media(color_scheme="light")
            picture(page, name)
        context.close()
