"""The console in a real browser, on a stack with real transfers, one customer of which fails."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from axe_playwright_python.sync_playwright import Axe
from botocore.exceptions import ClientError
from playwright.sync_api import Browser, Page, expect

from tests.acceptance.console_site import CAUSE, Site, browser, picture, watched
from tests.running import wait_for

DESKTOP = {"width": 1280, "height": 860}
PHONE = {"width": 390, "height": 780}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def site(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One stack for the reading tests; those that change something change what no other test looks at."""
    made = Site(tmp_path_factory.mktemp("console"))
    try:
        yield made.start()
    finally:
        made.stack.stop()


@pytest.fixture(scope="module")
def workflows(site: Site) -> dict[str, str]:
    return site.start_workflows()


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """A page that must not complain: no script may fail, and the Content-Security-Policy must refuse nothing."""
    context = chromium.new_context(viewport=DESKTOP)
    opened = context.new_page()
    opened.set_default_timeout(20_000)
    troubles = watched(opened)
    yield opened
    context.close()
    assert not troubles


def at(execution_arn: str) -> str:
    return "/executions/" + quote(execution_arn, safe="")


# ── looking ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_failed_file_is_found_from_the_overview_and_its_cause_is_readable(page: Page, site: Site) -> None:
    page.goto(site.url)
    picture(page, "overview")
    failed = page.get_by_role("region", name="Failed files")
    expect(failed).to_contain_text(CAUSE)
    failed.get_by_role("link", name="demo/globex/manifest.csv").click()  # the first click
    expect(page.get_by_role("heading", level=1)).to_have_text("demo/globex/manifest.csv")
    expect(page.locator(".panel.bad")).to_contain_text(f"ValueError: {CAUSE}")
    expect(page.locator(".panel.bad")).not_to_contain_text("errorMessage")
    picture(page, "file")
    graph = page.locator(".graph")
    for state, status in (
        ("IdentifyFile", "succeeded"), ("TransferFile", "caught"), ("RecordFailure", "succeeded"), ("TransferFailed", "failed")
    ):  # fmt: skip
        expect(graph.locator("a", has_text=state).first).to_contain_text(status)
    expect(page.locator(".log")).to_contain_text("globex")
    page.get_by_role("link", name=site.failed["execution_arn"].rsplit(":", 1)[-1]).click()  # the second: its execution
    expect(page.locator(".panel.bad")).to_contain_text(CAUSE)
    expect(page.get_by_role("region", name="History", exact=True)).to_contain_text("ExecutionFailed")


def test_charts_and_numbers_move_without_a_reload(page: Page, site: Site) -> None:
    page.goto(site.url)
    card = page.locator(".card", has_text="Transferred").locator("b")
    before = int(card.inner_text().replace(",", ""))
    page.evaluate("window.stayed = true")
    site.stack.sftp(site.put_command(f"acme/late-{before}.csv", 500))
    expect(card).to_have_text(str(before + 1), timeout=20_000)
    expect(page.get_by_role("region", name="Recent files")).to_contain_text(f"acme/late-{before}.csv")
    assert page.evaluate("window.stayed"), "the page was loaded again"


def test_charts_have_a_cursor_where_the_assets_were_built(page: Page, site: Site) -> None:
    page.goto(site.url)
    if not page.evaluate("Boolean(window.uPlot)"):
        expect(page.locator(".chart svg").first).to_be_visible()  # the server's own pictures
        pytest.skip("`make assets` has not run: the charts are the server's pictures")
    chart = page.locator(".plot").first
    expect(chart.locator("canvas")).to_be_visible()
    chart.hover(position={"x": 400, "y": 80})
    expect(chart.locator(".tip")).to_contain_text(re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d · .*transferred \d"))
    box = chart.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 200, box["y"] + 80)
    page.mouse.down()
    page.mouse.move(box["x"] + 500, box["y"] + 80, steps=5)
    page.mouse.up()
    expect(page.locator("body[data-zoomed]")).to_have_count(1)
    page.mouse.dblclick(box["x"] + 300, box["y"] + 80)
    expect(page.locator("body[data-zoomed]")).to_have_count(0)


def test_executions_are_filtered_by_the_address_and_drawn_with_their_states(
    page: Page, site: Site, workflows: dict[str, str]
) -> None:
    page.goto(f"{site.url}/executions")
    page.get_by_role("combobox", name="State machine").select_option("onboarding")
    page.get_by_role("combobox", name="Status").select_option("FAILED")
    page.get_by_role("button", name="Search").click()
    assert "machine=onboarding" in page.url and "status=FAILED" in page.url
    picture(page, "executions")
    page.get_by_role("link", name="onboard-globex").click()
    graph = page.locator(".graph")
    for state, status in (
        ("Check in parallel", "succeeded"), ("Virus scan", "succeeded"), ("Validate", "succeeded ×3"),
        ("Small", "succeeded ×2"), ("Deliver", "caught"), ("Refuse", "failed"),
    ):  # fmt: skip
        expect(graph.locator("a", has=page.locator(f"text=/^{re.escape(state)}$/")).first).to_contain_text(status)
    not_reached = graph.locator("a", has_text="Ask an operator")
    expect(not_reached).to_have_class(re.compile("state-waiting"))
    picture(page.get_by_role("region", name="Graph"), "execution")
    graph.locator("a", has_text="Deliver").click()
    row = page.locator("tr:target")
    expect(row).to_contain_text(CAUSE)
    row.get_by_text("Input", exact=True).click()
    expect(row.locator("pre").first).to_contain_text('"size": 20')


def test_a_map_run_leads_to_the_execution_of_each_item(page: Page, site: Site, workflows: dict[str, str]) -> None:
    page.goto(site.url + at(workflows["fanned"]))
    expect(page.locator(".graph a", has_text="Each item").first).to_contain_text("Map (distributed)")
    page.get_by_role("link", name="those of this map run").click()
    listed = page.get_by_role("group", name="Executions").locator("tbody tr")
    expect(listed).to_have_count(4)
    page.get_by_role("combobox", name="Status").select_option("FAILED")
    page.get_by_role("button", name="Search").click()
    expect(listed).to_have_count(1)
    listed.get_by_role("link").click()
    expect(page.locator(".panel.bad")).to_contain_text("an item is larger than 3")
    expect(page.get_by_role("button", name="Start again")).to_have_count(0)


def test_an_express_execution_is_told_from_its_log(page: Page, site: Site, workflows: dict[str, str]) -> None:
    page.goto(site.url + at(workflows["express"]))
    expect(page.get_by_text("An Express execution")).to_be_visible()
    expect(page.locator(".graph a", has_text="Look up")).to_contain_text("succeeded")
    expect(page.get_by_role("button", name="Redrive")).to_have_count(0)
    page.goto(f"{site.url}/executions?machine=quick")
    expect(page.locator("main")).to_contain_text("its executions are not kept")


# ── doing ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_live_session_is_seen_with_its_file_and_can_be_ended(page: Page, site: Site, tmp_path: Path) -> None:
    (tmp_path / "large.bin").write_bytes(bytes(50_000_000))
    command = ["sftp", "-l", "8000", *site.stack.ssh_options(), "-b", "-", "demo@127.0.0.1"]
    client = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert client.stdin is not None
        client.stdin.write(f'put "{tmp_path / "large.bin"}" "large.bin"\n')
        client.stdin.close()

        def transferring() -> bool:
            listed = site.stack.client("entrepot").list_sessions(live=True)["sessions"]
            return any(file["bytes_done"] > 0 for session in listed for file in session.get("transfers", []))

        wait_for(transferring, what="the transfer")
        page.goto(f"{site.url}/sessions")
        row = page.get_by_role("region", name="Connected now").locator("tbody tr").first
        expect(row).to_contain_text("/my-source-sftp-bucket/demo/large.bin")
        picture(page, "sessions")
        row.get_by_role("button", name="Disconnect demo").click()
        expect(page.get_by_role("status")).to_contain_text("disconnected")
        assert client.wait(20) != 0
    finally:
        client.kill()
        client.wait(10)
    wait_for(lambda: not site.stack.json("sessions"), what="the end of the session")
    page.goto(f"{site.url}/sessions")
    ended = page.get_by_role("group", name="Ended sessions").locator("tbody tr").first
    expect(ended).to_contain_text("disconnected by an operator")
    assert site.stack.file_with("demo/large.bin", "transferred") is None


def test_keys_are_added_and_removed_and_a_denial_is_explained(page: Page, site: Site, tmp_path: Path) -> None:
    key = tmp_path / "second"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "laptop", "-f", key], check=True)
    page.goto(f"{site.url}/users")
    page.get_by_role("link", name="demo").click()
    page.get_by_label("Public key").fill(key.with_suffix(".pub").read_text())
    page.get_by_role("button", name="Add key").click()
    expect(page.get_by_role("status")).to_contain_text("stored")
    listed = page.get_by_role("region", name="Keys", exact=True)
    row = listed.locator("tr", has_text="laptop")
    shown = subprocess.run(["ssh-keygen", "-l", "-f", key], capture_output=True, text=True, check=True).stdout
    expect(row).to_contain_text(shown.split()[1])
    row.get_by_role("button", name="Remove").click()
    expect(listed).not_to_contain_text("laptop")
    page.get_by_label("Public key").fill("ssh-ed25519 nonsense")
    page.get_by_role("button", name="Add key").click()
    expect(page.get_by_role("status")).to_contain_text("not stored")

    site.stack.sftp("mkdir /my-destination-bucket/stolen", expect=1)
    denied = "the denial in the log"
    wait_for(lambda: "ACCESS_DENIED" in site.stack.entrepot("logs", "/aws/transfer/" + _server(site)), what=denied)
    page.reload()
    page.get_by_role("group", name="Denied lately").get_by_role("link", name="Explain").first.click()
    verdict = page.locator(".verdict")
    expect(verdict).to_contain_text("denied")
    expect(verdict).to_contain_text("no identity-based policy allows the s3:PutObject action")
    row = page.get_by_role("group", name="Statements").locator("tr", has_text="UseHomeFolder")
    expect(row.locator("td")).to_have_text([re.compile("UseHomeFolder"), "Allow", "✓yes", "✕no", "none", "✕no"])
    picture(page.locator("#why"), "denied")
    page.get_by_label("On (a path").fill("reports/a.csv")
    page.get_by_role("button", name="Explain").click()
    expect(verdict).to_contain_text("allowed s3:PutObject on arn:aws:s3:::my-source-sftp-bucket/demo/reports/a.csv")


def _server(site: Site) -> str:
    server_id: str = site.stack.client("transfer").list_servers()["Servers"][0]["ServerId"]
    return server_id


def test_the_operations_behind_the_pages_are_the_api_s_and_refuse_in_words(site: Site) -> None:
    client = site.stack.client("entrepot")
    explained = client.explain_access(user_name="demo", action="s3:ListBucket", path="/my-source-sftp-bucket/demo")
    assert explained["allowed"]
    assert explained["context"]["s3:prefix"] == "demo/"
    assert explained["statement"].endswith("#ListHomeFolder")
    role = "arn:aws:iam::000000000000:role/transfer-rule"
    refused = client.explain_access(role_arn=role, action="states:StartExecution", resource="arn:aws:states:::x")
    assert not refused["allowed"]
    for wrong, said in (
        ({"user_name": "nobody", "path": "/x"}, "no SFTP user nobody"),
        ({"user_name": "demo"}, "either resource"),
        ({"path": "/x"}, "either user_name or role_arn"),
        ({"role_arn": role, "path": "/x"}, "what an SFTP user sees"),
        ({"user_name": "demo", "path": "/"}, "home directory's layout"),
    ):
        with pytest.raises(ClientError, match=said):
            client.explain_access(action="s3:GetObject", **wrong)
    with pytest.raises(client.exceptions.ResourceNotFoundException, match="No session 00 is connected"):
        client.disconnect_session(session_id="00")


def test_a_function_is_tried_out_and_its_invocations_are_listed(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/functions")
    page.get_by_role("link", name="transfer", exact=True).click()
    recent = page.get_by_role("region", name="Recent invocations")
    expect(recent.locator("tr", has_text=CAUSE).first).to_contain_text("failed")
    picture(page, "function")
    page.get_by_label("Event (JSON)").fill('{"key": "demo/globex/x", "file_id": "x"}')
    page.get_by_role("button", name="Invoke").click()
    tried = page.locator("#try")
    expect(tried.get_by_role("status")).to_contain_text("failed")
    expect(tried).to_contain_text('"errorType": "ValueError"')
    expect(tried).to_contain_text("REPORT RequestId")
    page.get_by_label("Event (JSON)").fill("{")
    page.get_by_role("button", name="Invoke").click()
    expect(page.get_by_role("alert")).to_contain_text("not JSON")


def test_a_rule_is_tested_disabled_and_enabled(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/rules")
    page.get_by_role("link", name="object-created").click()
    expect(page.get_by_role("region", name="Targets", exact=True)).to_contain_text("stateMachine:transfer")
    page.get_by_role("button", name="Test").click()
    outcome = page.locator("#test").get_by_role("status")
    expect(outcome).to_contain_text("matches")
    event = json.loads(page.get_by_label("Event (JSON)").input_value())
    event["detail"]["object"]["key"] = "still-arriving.filepart"
    page.get_by_label("Event (JSON)").fill(json.dumps(event))
    page.get_by_role("button", name="Test").click()
    expect(outcome).to_contain_text("does not match")
    picture(page, "rule")
    page.get_by_role("button", name="Disable").click()
    expect(page.get_by_role("status")).to_contain_text("disabled")
    assert site.stack.client("events").describe_rule(Name="object-created")["State"] == "DISABLED"
    page.get_by_role("button", name="Enable").click()
    expect(page.locator(".facts")).to_contain_text("enabled")


def test_every_change_is_in_the_audit_log(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/rules/default/object-created")
    for name in ("Disable", "Enable"):
        page.get_by_role("button", name=name).click()
        expect(page.get_by_role("status")).to_be_visible()

    def audited() -> bool:
        told = site.stack.entrepot("logs", "/entrepot/audit")
        return "DisableRule" in told and "EnableRule" in told and "console/operator" in told

    wait_for(audited, what="the audit lines")


# ── for everybody ────────────────────────────────────────────────────────────────────────────────────────────────────

PAGES = {
    "overview": "/",
    "files": "/files",
    "file": "/files/{file}",
    "executions": "/executions",
    "execution": "{execution}",
    "express": "{express}",
    "functions": "/functions",
    "function": "/functions/transfer",
    "rules": "/rules",
    "rule": "/rules/default/object-created",
    "sessions": "/sessions",
    "users": "/users",
    "user": "/users/demo?action=s3%3APutObject&target=%2Fother%2Fx",
}


@pytest.mark.parametrize("name", PAGES)
def test_pages_suit_phones_dark_screens_keyboards_and_screen_readers(
    chromium: Browser, site: Site, workflows: dict[str, str], name: str
) -> None:
    address = site.url + PAGES[name].format(
        file=site.failed["file_id"], execution=at(workflows["nested"]), express=at(workflows["express"])
    )
    for viewport, scheme in ((PHONE, "light"), (DESKTOP, "dark")):
        context = chromium.new_context(viewport=viewport, color_scheme=scheme)
        page = context.new_page()
        troubles = watched(page)
        answer = page.goto(address)
        assert answer is not None and answer.status == 200
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{name} is wider than {viewport}"
        # In the dark only colours can differ.
        rules = None if scheme == "light" else {"runOnly": ["color-contrast"]}
        found = Axe().run(page, options=rules).response["violations"]
        serious = [
            f"{each['id']}: {each['help']}: {each['nodes'][0]['html'][:200]}"
            for each in found
            if each["impact"] in ("serious", "critical")
        ]
        assert not serious, f"{name}, {scheme}: {serious}"
        if viewport is PHONE and name in ("overview", "execution"):
            picture(page, f"{name}-phone")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip", (
            "the first stop is the way past the navigation"
        )
        assert not troubles
        context.close()


def test_redrive_delivers_the_failed_file_and_start_again_takes_the_corrected_definition(
    page: Page, site: Site, workflows: dict[str, str]
) -> None:
    """The last test on this stack: afterwards nothing fails any more."""
    site.correct_the_function()
    page.goto(f"{site.url}/?range=1h")
    page.get_by_role("region", name="Failed files").get_by_role("link", name="demo/globex/manifest.csv").click()
    page.get_by_role("button", name="Redrive").click()
    expect(page.get_by_role("status")).to_contain_text("delivered again")
    site.stack.delivered("demo/globex/manifest.csv")
    page.reload()
    expect(page.locator(".facts")).to_contain_text("transferred")
    expect(page.locator(".graph a", has_text="TransferFile")).to_contain_text("succeeded")

    corrected = {"StartAt": "Deliver", "States": {"Deliver": {"Type": "Pass", "End": True}}}
    machine = "arn:aws:states:us-east-1:000000000000:stateMachine:onboarding"
    site.stack.client("stepfunctions").update_state_machine(stateMachineArn=machine, definition=json.dumps(corrected))
    page.goto(site.url + at(workflows["nested"]))
    page.get_by_role("button", name="Start again").click()
    expect(page.get_by_role("status")).to_contain_text("Started again")
    assert "onboard-globex" not in page.url
    page.reload()
    expect(page.locator(".graph a", has_text="Deliver")).to_contain_text("succeeded")
    expect(page.locator(".facts")).to_contain_text("succeeded")
