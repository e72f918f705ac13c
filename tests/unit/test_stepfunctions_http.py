"""HTTP tasks: what is sent, what a connection adds, what answers and failures become, and that no secret is told."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from entrepot.outbound import ConnectionFailedError, Response, TimedOutError
from entrepot.services.stepfunctions import ConnectionParameters
from entrepot.services.stepfunctions.http_task import request_of
from tests.unit.stepfunctions_site import ROLE, Site, site

CONNECTION = "arn:aws:events:us-east-1:111111111111:connection/c/1"
SECRET = "s3cr3t & more"


@pytest_asyncio.fixture
async def here(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path) as opened:
        opened.connections[CONNECTION] = [ConnectionParameters((("X-Api-Key", SECRET),))]
        yield opened


def answer(status: int = 200, body: bytes = b'{"ok": true}', kind: str = "application/json") -> Response:
    return Response(status, "Told", (("Content-Type", kind), ("Set-Cookie", "a"), ("Set-Cookie", "b")), body, True)


def task(**parameters: Any) -> dict[str, Any]:
    given = {
        "ApiEndpoint": "https://api.example.com/v1",
        "Method": "POST",
        "Authentication": {"ConnectionArn": CONNECTION},
        **parameters,
    }
    return {"Type": "Task", "Resource": "arn:aws:states:::http:invoke", "Parameters": given, "End": True}


async def run(here: Site, state: dict[str, Any]) -> dict[str, Any]:
    arn = await here.create("m", {"StartAt": "H", "States": {"H": state}})
    return await here.ended(await here.begin(arn))


async def test_a_request_and_its_answer(here: Site) -> None:
    here.answers.append(answer())
    ended = await run(
        here,
        task(Headers={"X-A": ["1", "2"]}, QueryParameters={"q": ["a b", "c"], "n": 1}, RequestBody={"x": "é"}),
    )
    assert json.loads(ended["output"]) == {
        "Headers": {"content-type": ["application/json"], "set-cookie": ["a", "b"]},
        "ResponseBody": {"ok": True},
        "StatusCode": 200,
        "StatusText": "Told",
    }
    sent = here.sent[0]
    assert (sent.method, sent.url) == ("POST", "https://api.example.com/v1?q=a%20b&q=c&n=1")
    assert json.loads(sent.body) == {"x": "é"}
    headers = dict(sent.headers)
    assert headers["X-A"] == "1, 2" and headers["X-Api-Key"] == SECRET
    assert headers["Content-Type"] == "application/json"
    assert headers["User-Agent"] == "Amazon|StepFunctions|HttpInvoke|us-east-1"
    assert sent.timeout_s == 60
    history = await here.history(ended["executionArn"])
    assert [event["type"] for event in history][2:5] == ["TaskScheduled", "TaskStarted", "TaskSucceeded"]
    assert history[2]["taskScheduledEventDetails"]["resourceType"] == "http"
    assert SECRET not in json.dumps(history, default=str)


async def test_a_status_is_an_error_with_the_body_as_its_cause(here: Site) -> None:
    here.answers.append(answer(503, b"try later", "text/plain"))
    ended = await run(here, task())
    assert (ended["status"], ended["error"], ended["cause"]) == ("FAILED", "States.Http.StatusCode.503", "try later")


@pytest.mark.parametrize("failure", [TimedOutError("api.example.com did not answer"), ConnectionFailedError("no")])
async def test_no_answer(here: Site, failure: Any) -> None:
    here.answers.append(failure)
    ended = await run(here, task())
    assert (ended["error"], ended["cause"]) == ("States.Http.Socket", str(failure))


async def test_a_refused_token_is_renewed_once(here: Site) -> None:
    here.connections[CONNECTION] = [
        ConnectionParameters((("Authorization", "Bearer old"),)),
        ConnectionParameters((("Authorization", "Bearer new"),)),
    ]
    here.answers += [answer(401), answer()]
    assert (await run(here, task()))["status"] == "SUCCEEDED"
    assert [dict(sent.headers)["Authorization"] for sent in here.sent] == ["Bearer old", "Bearer new"]
    here.answers += [answer(401)]  # nothing newer is to be had: no second request
    arn = await here.create("n", {"StartAt": "H", "States": {"H": task()}})
    assert (await here.ended(await here.begin(arn)))["error"] == "States.Http.StatusCode.401"


async def test_a_connection_that_is_not_there(here: Site) -> None:
    ended = await run(here, task(Authentication={"ConnectionArn": CONNECTION + "x"}))
    assert ended["status"] == "FAILED" and "does not exist" in ended["cause"]
    assert here.sent == []


async def test_what_the_role_may_not_do(here: Site) -> None:
    here.denied.add("states:InvokeHTTPEndpoint")
    ended = await run(here, task())
    assert ended["status"] == "FAILED" and "states:InvokeHTTPEndpoint" in ended["cause"]
    assert here.sent == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"Method": "CONNECT"},
        {"ApiEndpoint": ""},
        {"Headers": {"Host": "other"}},
        {"Headers": {"X-Amz-Target": "x"}},
        {"Headers": "x"},
        {"Nope": 1},
        {"Authentication": {}},
        {"RequestBody": "x", "Transform": {"RequestBodyEncoding": "URL_ENCODED"}},
        {"RequestBody": {}, "Transform": {"RequestBodyEncoding": "GZIP"}},
    ],
)
async def test_parameters_that_are_none(here: Site, wrong: dict[str, Any]) -> None:
    ended = await run(here, task(**wrong))
    assert (ended["status"], ended["error"]) == ("FAILED", "States.Runtime")
    assert here.sent == []


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ("INDICES", "a%5B0%5D=1&a%5B1%5D=x+y&b%5Bc%5D=true"),
        ("BRACKETS", "a%5B%5D=1&a%5B%5D=x+y&b%5Bc%5D=true"),
        ("REPEAT", "a=1&a=x+y&b%5Bc%5D=true"),
        ("COMMAS", "a=1%2Cx+y&b%5Bc%5D=true"),
        ("NONE", "a=%5B1%2C%22x+y%22%5D&b%5Bc%5D=true"),
    ],
)
async def test_url_encoded_bodies(here: Site, arrays: str, expected: str) -> None:
    transform = {"RequestBodyEncoding": "URL_ENCODED", "RequestEncodingOptions": {"ArrayFormat": arrays}}
    here.answers.append(answer())
    await run(here, task(RequestBody={"a": [1, "x y"], "b": {"c": True}}, Transform=transform))
    assert here.sent[0].body.decode() == expected
    assert dict(here.sent[0].headers)["Content-Type"] == "application/x-www-form-urlencoded"


@given(st.dictionaries(st.text(min_size=1), st.text()), st.dictionaries(st.text(min_size=1), st.text()))
def test_nothing_breaks_out_of_the_query(asked: dict[str, str], added: dict[str, str]) -> None:
    parameters = {"ApiEndpoint": "https://h/p", "Method": "GET", "QueryParameters": asked}
    try:
        request = request_of(parameters, ConnectionParameters(query=tuple(added.items())), "r")
    except UnicodeEncodeError:
        return  # lone surrogates are in no JSON that was accepted
    query = request.url.partition("?")[2]
    assert dict(parse_qsl(query, keep_blank_values=True)) == {**asked, **added}


async def test_tracing_shows_the_exchange_and_hides_the_connection(here: Site) -> None:
    here.connections[CONNECTION] = [
        ConnectionParameters((("X-Api-Key", SECRET),), (("token", SECRET),), (("password", SECRET),))
    ]

    async def tried(**more: Any) -> dict[str, Any]:
        here.answers.append(answer())
        definition = json.dumps(task(RequestBody={"a": 1}))
        return await here.call("TestState", definition=definition, roleArn=ROLE, inspectionLevel="TRACE", **more)

    told = await tried()
    assert told["status"] == "SUCCEEDED"
    request = told["inspectionData"]["request"]
    assert (request["method"], request["protocol"]) == ("POST", "https")
    assert json.loads(request["headers"])["X-Api-Key"] == "[REDACTED]"
    for spelling in (SECRET, "s3cr3t", json.dumps(SECRET)):
        assert spelling not in json.dumps(told)
    assert told["inspectionData"]["response"]["statusCode"] == "200"
    revealed = await tried(revealSecrets=True)
    assert json.loads(revealed["inspectionData"]["request"]["headers"])["X-Api-Key"] == SECRET
