"""A stack with something to see at the console, and a real browser to see it with."""

import io
import json
import os
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, sync_playwright

from tests.running import Stack, wait_for

CAUSE = "column 4 of globex's manifest is no date: '31.02.2026'"

CHECK = f"""    if event["key"].startswith("demo/globex/"):
        raise ValueError({CAUSE!r})
"""

DOCUMENTS = Path(__file__).parents[2] / "docs" / "img"

SCREENSHOTS = os.environ.get("SCREENSHOTS")
"""With SCREENSHOTS=1 in the environment, the pictures of the documentation are taken again."""


@contextmanager
def browser() -> Iterator[Browser]:
    """Start Debian's Chromium; skip without it, fail without it in CI."""
    chromium = shutil.which("chromium")
    if chromium is None:
        missing = "the console's pages need a browser: apt-get install chromium"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        try:
            yield started
        finally:
            started.close()


class Site:
    """A running stack: eight files of acme are delivered, one of globex fails, and there are workflows of every kind."""

    def __init__(self, folder: Path) -> None:
        self.stack = Stack(folder / "transfers")
        self._files = folder / "files"
        self._files.mkdir()
        handler = self.stack.folder / "functions" / "transfer" / "handler.py"
        self.good_handler = handler.read_text()
        line = '    file_id = event["file_id"]\n'
        assert line in self.good_handler
        handler.write_text(self.good_handler.replace(line, line + CHECK))
        workflow = self.stack.folder / "workflows" / "transfer.asl.json"
        workflow.write_text(workflow.read_text().replace('"MaxAttempts": 2', '"MaxAttempts": 1'))

    def start(self) -> "Site":
        """Start the server and send the files."""
        self.stack.start()
        self.url: str = json.loads((self.stack.folder / "data" / "run.json").read_text())["console"]
        puts = [self.put_command(f"acme/invoice-{number}.csv", 1_000 * (number + 1)) for number in range(8)]
        self.stack.sftp("mkdir acme", "mkdir globex", *puts, self.put_command("globex/manifest.csv", 9_000))
        self.failed = wait_for(
            lambda: self.stack.file_with("demo/globex/manifest.csv", "failed"), what="the failure of globex"
        )
        for number in range(8):
            self.stack.delivered(f"demo/acme/invoice-{number}.csv")
        return self

    def put_command(self, name: str, size_bytes: int) -> str:
        """Return the command that uploads a file of random bytes."""
        path = self._files / name.replace("/", "-")
        path.write_bytes(os.urandom(size_bytes))
        return f'put "{path}" "{name}"'

    def correct_the_function(self) -> None:
        """Deploy the function without the check that globex's file fails."""
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as written:
            written.writestr("handler.py", self.good_handler)
        self.stack.client("lambda").update_function_code(FunctionName="transfer", ZipFile=archive.getvalue())

    def start_workflows(self) -> dict[str, str]:
        """Create a nested and an Express state machine; return the ARNs of an ended execution of each."""
        client = self.stack.client("stepfunctions")
        role = f"arn:aws:iam::{'0' * 12}:role/transfer-workflow"
        nested = client.create_state_machine(name="onboarding", definition=json.dumps(ONBOARDING), roleArn=role)
        group = f"arn:aws:logs:us-east-1:{'0' * 12}:log-group:/aws/vendedlogs/states/quick:*"
        quick = client.create_state_machine(
            name="quick",
            type="EXPRESS",
            definition=json.dumps(QUICK),
            roleArn=role,
            loggingConfiguration={
                "level": "ALL",
                "includeExecutionData": True,
                "destinations": [{"cloudWatchLogsLogGroup": {"logGroupArn": group}}],
            },
        )
        every = {"Effect": "Allow", "Action": "states:*", "Resource": "*"}
        self.stack.client("iam").put_role_policy(
            RoleName="transfer-workflow",
            PolicyName="fan-out",
            PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [every]}),
        )
        fan_out = client.create_state_machine(name="fan-out", definition=json.dumps(FAN_OUT), roleArn=role)
        fanned = client.start_execution(stateMachineArn=fan_out["stateMachineArn"], input='{"items": [1, 2, 3, 4]}')
        failed = client.start_execution(stateMachineArn=nested["stateMachineArn"], name="onboard-globex")
        express = client.start_execution(stateMachineArn=quick["stateMachineArn"], input='{"order": 7}')
        arn: str = failed["executionArn"]
        wait_for(
            lambda: client.describe_execution(executionArn=arn)["status"] == "FAILED", what="the end of the workflow"
        )
        logs = self.stack.client("logs")
        wait_for(
            lambda: any(
                "ExecutionSucceeded" in event["message"]
                for event in logs.filter_log_events(logGroupName="/aws/vendedlogs/states/quick")["events"]
            ),
            what="the log of the Express execution",
        )
        fanned_arn: str = fanned["executionArn"]
        wait_for(
            lambda: client.describe_execution(executionArn=fanned_arn)["status"] == "SUCCEEDED", what="the map run"
        )
        return {"nested": arn, "express": express["executionArn"], "fanned": fanned_arn}


def watched(page: Page) -> list[str]:
    """Return a list that gathers what the browser complains about: errors of scripts, and what the policy refused."""
    troubles: list[str] = []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("console", lambda message: troubles.append(message.text) if message.type == "error" else None)
    return troubles


def picture(page: Page | Locator, name: str, **options: Any) -> None:
    """Take a picture for the documentation, when asked to."""
    if SCREENSHOTS:
        DOCUMENTS.mkdir(exist_ok=True)
        page.screenshot(path=DOCUMENTS / f"{name}.png", animations="disabled", **options)


QUICK = {
    "StartAt": "Look up",
    "States": {"Look up": {"Type": "Pass", "Next": "Done"}, "Done": {"Type": "Succeed"}},
}

FAN_OUT = {
    "StartAt": "Each item",
    "States": {
        "Each item": {
            "Type": "Map",
            "ItemsPath": "$.items",
            "ToleratedFailureCount": 1,
            "ItemProcessor": {
                "ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"},
                "StartAt": "Check",
                "States": {
                    "Check": {
                        "Type": "Choice",
                        "Choices": [{"Variable": "$", "NumericGreaterThan": 3, "Next": "Bad"}],
                        "Default": "Good",
                    },
                    "Good": {"Type": "Succeed"},
                    "Bad": {"Type": "Fail", "Error": "TooLarge", "Cause": "an item is larger than 3"},
                },
            },
            "End": True,
        }
    },
}

ONBOARDING = {
    "StartAt": "Read manifest",
    "States": {
        "Read manifest": {"Type": "Pass", "Result": {"files": [1, 2, 3], "size": 20}, "Next": "How large?"},
        "How large?": {
            "Type": "Choice",
            "Choices": [
                {"Variable": "$.size", "NumericGreaterThan": 1000, "Next": "Ask an operator"},
                {"Variable": "$.size", "NumericGreaterThan": 10, "Next": "Check in parallel"},
            ],
            "Default": "Refuse",
        },
        "Ask an operator": {"Type": "Wait", "Seconds": 1, "Next": "Check in parallel"},
        "Check in parallel": {
            "Type": "Parallel",
            "ResultPath": None,
            "Branches": [
                {
                    "StartAt": "Virus scan",
                    "States": {
                        "Virus scan": {"Type": "Pass", "Next": "Signature"},
                        "Signature": {"Type": "Pass", "End": True},
                    },
                },
                {
                    "StartAt": "Each file",
                    "States": {
                        "Each file": {
                            "Type": "Map",
                            "ItemsPath": "$.files",
                            "ItemProcessor": {
                                "StartAt": "Validate",
                                "States": {
                                    "Validate": {
                                        "Type": "Choice",
                                        "Choices": [{"Variable": "$", "NumericGreaterThan": 2, "Next": "Large"}],
                                        "Default": "Small",
                                    },
                                    "Large": {"Type": "Pass", "End": True},
                                    "Small": {"Type": "Pass", "End": True},
                                },
                            },
                            "End": True,
                        }
                    },
                },
            ],
            "Next": "Deliver",
        },
        "Deliver": {
            "Type": "Task",
            "Resource": "arn:aws:states:::lambda:invoke",
            "Parameters": {"FunctionName": "transfer", "Payload": {"key": "demo/globex/x", "file_id": "x"}},
            "Catch": [{"ErrorEquals": ["States.ALL"], "ResultPath": "$.error", "Next": "Wait a while"}],
            "End": True,
        },
        "Wait a while": {"Type": "Wait", "Seconds": 1, "Next": "Tries left?"},
        "Tries left?": {
            "Type": "Choice",
            "Choices": [{"Variable": "$.never", "IsPresent": True, "Next": "Deliver"}],
            "Default": "Refuse",
        },
        "Refuse": {"Type": "Fail", "Error": "Refused", "Cause": "nothing more can be done"},
    },
}
