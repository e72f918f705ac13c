"""Functions on Node.js through AWS's own client from npm, where node and npm are installed."""

import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from entrepot.arns import Account
from entrepot.database.sqlite import SQLiteDatabase
from entrepot.errors import AwsError
from entrepot.services.lambda_ import MIGRATIONS, FunctionConfiguration, InvocationResult, Lambda

ROLE = "arn:aws:iam::000000000000:role/demo"
VERSION = "3.3.0"

HANDLER = """
const shared = (() => { try { return require("shared"); } catch { return "no layer"; } })();
exports.handler = async (event, context) => {
  console.log("working on", event.n);
  if (event.fail) throw new TypeError("on purpose");
  if (event.hang) await new Promise((resolve) => setTimeout(resolve, 60000));
  if (event.exit) process.exit(3);
  return { n: event.n + 1, arn: context.invokedFunctionArn, version: context.functionVersion,
           id: context.awsRequestId, left: context.getRemainingTimeInMillis(), text: "\u00fc".repeat(event.n), shared };
};
"""


@pytest.fixture(scope="module")
def node_modules(pytestconfig: pytest.Config) -> Path:
    """Install the client once, without its native part, into pytest's cache."""
    if shutil.which("node", path="/usr/local/bin:/usr/bin:/bin") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed")
    assert pytestconfig.cache is not None
    folder = pytestconfig.cache.mkdir("npm")
    found = folder / "node_modules"
    if not (found / "aws-lambda-ric" / "package.json").is_file():
        install = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(folder)]
        run = subprocess.run([*install, f"aws-lambda-ric@{VERSION}"], capture_output=True, text=True, timeout=90)
        if run.returncode:
            pytest.skip(f"aws-lambda-ric could not be installed: {run.stderr[-300:]}")
    return found


class House:
    def __init__(self, lambda_: Lambda, folder: Path) -> None:
        self.lambda_ = lambda_
        self.folder = folder

    async def put(self, **settings: Any) -> None:
        self.folder.mkdir(exist_ok=True)
        (self.folder / "index.js").write_text(HANDLER)
        configuration = FunctionConfiguration(
            "demo", ROLE, "index.handler", "nodejs22.x", code_folder=self.folder, memory_size_mb=256, **settings
        )
        await self.lambda_.database.write(lambda tx: self.lambda_.put_function(tx, configuration))

    async def invoke(self, event: Any) -> InvocationResult:
        return await self.lambda_.invoke("demo", json.dumps(event).encode(), want_tail=True)


@pytest.fixture
async def house(tmp_path: Path, node_modules: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path, node_modules) as made:
        yield made


@asynccontextmanager
async def open_house(folder: Path, node_modules: Path | None) -> AsyncIterator[House]:
    database = SQLiteDatabase(folder / "ledger.db")
    database.migrate(MIGRATIONS)
    lambda_ = Lambda(
        database,
        Account(),
        folder=folder / "lambda",
        issue_credentials=lambda role, session: SimpleNamespace(  # type: ignore[arg-type,return-value]
            access_key_id="ASIAEXAMPLE", secret_access_key="secret", session_token=role, expires_at_ms=None
        ),
        endpoint_url=lambda: "http://127.0.0.1:4566",
        write_log=lambda group, stream, line: None,
        node_modules=node_modules,
    )
    await lambda_.start()
    try:
        yield House(lambda_, folder / "source")
    finally:
        await lambda_.stop()
        await database.close()


async def test_a_handler_answers_fails_and_logs(house: House) -> None:
    await house.put(timeout_s=20)
    first, second = [await house.invoke({"n": n}) for n in (1, 70_000)]
    answers = [json.loads(result.payload) for result in (first, second)]
    assert [answer["n"] for answer in answers] == [2, 70_001]
    assert answers[1]["text"] == "\u00fc" * 70_000, "multi-byte text over several pieces"
    assert answers[0]["arn"].endswith(":function:demo") and answers[0]["version"] == "$LATEST"
    assert answers[0]["id"] == first.request_id and 0 < answers[0]["left"] <= 20_000
    assert answers[0]["shared"] == "no layer"
    failed = await house.invoke({"n": 1, "fail": True})
    assert failed.function_error == "Unhandled"
    document = json.loads(failed.payload)
    assert (document["errorType"], document["errorMessage"]) == ("TypeError", "on purpose") and document["trace"]
    tail = failed.log_tail.decode()
    assert "working on 1" in tail and "REPORT RequestId" in tail
    ended = await house.invoke({"n": 1, "exit": True})
    assert json.loads(ended.payload)["errorType"] == "Runtime.ExitError"
    assert json.loads((await house.invoke({"n": 5})).payload)["n"] == 6, "a new worker takes over"


async def test_a_handler_that_hangs_is_ended(house: House) -> None:
    await house.put(timeout_s=1)
    result = await house.invoke({"n": 1, "hang": True})
    assert "Task timed out after 1.00 seconds" in json.loads(result.payload)["errorMessage"]


async def test_without_the_client_the_error_says_what_to_do(tmp_path: Path, node_modules: Path) -> None:
    async with open_house(tmp_path, None) as house:
        await house.put()
        with pytest.raises(AwsError, match="npm install --ignore-scripts aws-lambda-ric"):
            await house.invoke({"n": 1})


async def test_the_functions_own_client_comes_first(tmp_path: Path, node_modules: Path) -> None:
    async with open_house(tmp_path, None) as house:
        own = tmp_path / "source" / "node_modules" / "aws-lambda-ric"
        shutil.copytree(node_modules / "aws-lambda-ric" / "dist", own / "dist")
        shutil.copytree(node_modules / "aws-lambda-ric" / "bin", own / "bin")
        shutil.copy(node_modules / "aws-lambda-ric" / "package.json", own)
        await house.put(timeout_s=20)
        assert json.loads((await house.invoke({"n": 1})).payload)["n"] == 2
