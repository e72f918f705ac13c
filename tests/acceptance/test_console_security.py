"""What the console holds against: every route of the router, without login, without token, and with hostile text."""

import json
import re
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import httpx
import paramiko
import pytest

from entrepot.console import pages
from entrepot.console.guard import HEADERS
from tests.acceptance.console_logins import Visit, add_user, console_stack
from tests.running import Stack, wait_for

WITHOUT_LOGIN = {"login", "login_form", "login_provider", "login_callback", "metrics"}
"""Names of the routes that answer without a login; `metrics` on loopback only, which test_console_login.py looks at."""

HOSTILE = "<zap-1 onclick=alert(1)>\"'&</td><script>alert(2)</script>"
"""What must never come back as markup."""

MARKUP = re.compile(r"<zap-1|<script>alert|</td><script|<img src=zap", re.IGNORECASE)

ROUTES = [
    (route.name, method, re.sub(r"\{[^}]+\}", "x", route.path))
    for route in pages.routes()
    for method in sorted((route.methods or set()) - {"HEAD"})
]
GETS = [(name, path) for name, method, path in ROUTES if method == "GET"]
POSTS = [(name, path) for name, method, path in ROUTES if method == "POST"]
STREAM = "/events"
"""Answers for as long as somebody listens; looked at by itself."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with console_stack(tmp_path_factory.mktemp("console") / "site") as made:
        add_user(made, "ada")
        yield made


@pytest.fixture
def stranger(stack: Stack) -> Iterator[Visit]:
    with Visit(stack) as visit:
        yield visit


@pytest.fixture(scope="module")
def ada(stack: Stack) -> Iterator[Visit]:
    with Visit(stack) as visit:
        assert visit.login("ada").status_code == 303
        yield visit


def test_there_are_routes_of_both_kinds() -> None:
    assert len(GETS) > 15
    assert len(POSTS) > 8
    assert {method for _, method, _ in ROUTES} == {"GET", "POST"}


# ── login and tokens ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("name", "path"), [entry for entry in GETS if entry[0] not in WITHOUT_LOGIN])
def test_no_page_without_login(stranger: Visit, name: str, path: str) -> None:
    answer = stranger.get(path)
    assert (answer.status_code, answer.headers["location"].partition("?")[0]) == (303, "/login")
    assert stranger.http.head(path).status_code == 303


@pytest.mark.parametrize(("name", "path"), POSTS)
def test_no_form_without_login(stranger: Visit, name: str, path: str) -> None:
    for fields in ({}, {"csrf_token": ""}, {"csrf_token": "x"}):
        answer = stranger.http.post(path, data=fields)
        assert answer.status_code == ((403 if fields else 415) if name in WITHOUT_LOGIN else 401)


@pytest.mark.parametrize(("name", "path"), POSTS)
def test_no_form_without_its_token(ada: Visit, stack: Stack, name: str, path: str) -> None:
    post = ada.http.post
    right = ada.token()
    assert post(path).status_code in (403, 415)
    assert post(path, data={"a": "b"}).status_code == 403
    assert post(path, data={"csrf_token": right[:-1] + ("A" if right[-1] != "A" else "B")}).status_code == 403
    assert post(path + f"?csrf_token={right}", data={"a": "b"}).status_code == 403
    assert post(path, data={"csrf_token": right}, headers={"sec-fetch-site": "cross-site"}).status_code == 403
    assert post(path, data={"csrf_token": right}, headers={"sec-fetch-site": "same-site"}).status_code == 403
    plain = {"content-type": "text/plain"}
    assert post(path, content=f"csrf_token={right}".encode(), headers=plain).status_code == 415
    assert post(path, files={"csrf_token": (None, right)}).status_code == 415


def test_the_token_of_another_session_is_refused(ada: Visit, stack: Stack) -> None:
    with Visit(stack) as other:
        other.login("ada")
        foreign = other.token()
        assert foreign != ada.token()
        assert ada.http.post("/files/redrive", data={"csrf_token": foreign}).status_code == 403


def test_without_logins_forms_still_need_their_token(tmp_path: Path) -> None:
    with console_stack(tmp_path / "site", login="auto") as stack, Visit(stack) as visit:
        right = visit.token()
        for _, path in POSTS:
            assert visit.http.post(path, data={"csrf_token": "x"}).status_code == 403
        assert visit.http.post("/files/redrive", data={"csrf_token": right}).status_code == 303


def test_other_methods_are_refused(ada: Visit) -> None:
    for _, path in [*GETS, *POSTS]:
        for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
            assert ada.http.request(method, path).status_code == 405
    for _, path in POSTS:
        if path not in dict(GETS).values():
            assert ada.get(path).status_code in (400, 404, 405), path


def test_unknown_users_take_as_long_as_known_ones(stack: Stack) -> None:
    took: dict[str, list[float]] = {"ada": [], "nobody-of-that-name": []}
    with Visit(stack) as visit:
        for _ in range(4):
            for name, times in took.items():
                token = visit.token("/login")
                began = time.perf_counter()
                answer = visit.http.post(
                    "/login", data={"csrf_token": token, "name": name, "password": "wrong wrong wrong"}
                )
                times.append(time.perf_counter() - began)
                assert answer.status_code == 401
                assert "Name, password or code is wrong." in answer.text
        assert visit.login("ada").status_code == 303
    known, unknown = statistics.median(took["ada"]), statistics.median(took["nobody-of-that-name"])
    assert 0.3 < unknown / known < 3


# ── other sites ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "host",
    ["evil.test", "localhost.evil.test", "127.0.0.1.evil.test", "127.0.0.1@evil.test", "evil.test:80", "", "[::1]x"],
)
def test_other_names_are_refused(ada: Visit, host: str) -> None:
    for path in ("/", "/login", "/static/style.css", "/metrics"):
        answer = ada.get(path, headers={"host": host})
        assert answer.status_code in (400, 421), (host, path)


def test_pages_of_other_sites_cannot_ask_for_parts(ada: Visit) -> None:
    images = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}
    assert ada.get("/logs/insights?query=stats+count(*)", headers=images).status_code == 403
    assert ada.get("/events", headers=images).status_code == 403
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert ada.get("/files", headers=link).status_code == 200


def test_links_from_elsewhere_put_no_words_into_the_consoles_mouth(ada: Visit, stranger: Visit) -> None:
    address = "/files?status=failed&notice=Call+555"
    for site, shown in (("cross-site", False), ("same-site", False), ("none", False), ("same-origin", True)):
        answer = ada.get(address, headers={"sec-fetch-site": site, "sec-fetch-mode": "navigate"})
        assert ("Call 555" in answer.text) is shown
    assert stranger.get(address).headers["location"] == "/login?to=%2Ffiles%3Fstatus%3Dfailed"


def test_every_answer_has_the_headers(ada: Visit, stranger: Visit) -> None:
    answers = [ada.get(path) for _, path in GETS if path != STREAM]
    answers += [stranger.get(path) for _, path in GETS]
    answers += [ada.http.post(path, data={"a": "b"}) for _, path in POSTS]
    answers += [
        ada.get("/no-such-page"),
        ada.get("/static/no-such-file"),
        ada.get("/static/style.css"),
        ada.get("/", headers={"host": "evil.test"}),
        ada.http.put("/"),
    ]
    with ada.http.stream("GET", STREAM) as streamed:
        answers.append(streamed)
    for answer in answers:
        for name, value in HEADERS.items():
            assert answer.headers.get(name) == value, (answer.request.url, answer.status_code, name)
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert "access-control-allow-origin" not in answer.headers
        assert answer.status_code < 500 or answer.status_code == 501, answer.request.url


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.test/",
        "//evil.test/",
        "/\\evil.test/",
        "\\\\evil.test",
        "/%0d%0aLocation:https://evil.test",
        "/\t/evil.test",
        "/\r\n/evil.test",
        "javascript:alert(1)",
        "http:evil.test",
        "///evil.test",
        " //evil.test",
        "/ok\x00",
        "evil.test",
    ],
)
def test_logins_lead_nowhere_else(stack: Stack, target: str) -> None:
    with Visit(stack) as visit:
        form = visit.get("/login?" + urlencode({"to": target}))
        assert 'action="/login"' in form.text
        answer = visit.login("ada", to=target)
        assert answer.status_code == 303
        place = answer.headers["location"]
        assert place == "/" or (place.startswith("/") and place == target and "%0d" in place.lower())
        assert "evil.test" not in httpx.URL(answer.url).join(place).host


# ── paths and sizes ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/..%2fapp.py",
        "/static/%2e%2e/app.py",
        "/static/%2e%2e%2f%2e%2e%2f%2e%2e%2fpyproject.toml",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/static/..%5capp.py",
        "/static/style.css%00.png",
        "/static/.%2e/templates/base.html",
        "/static/",
        "/static",
        "/login/../files",
        "/login/%2e%2e/files",
        "/login/oidc/../../files",
        "/static/..%2f..%2ffiles",
    ],
)
def test_paths_lead_nowhere_else(stack: Stack, path: str) -> None:
    with Visit(stack) as visit:
        port = visit.http.base_url.port
        text = _raw(port or 0, f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
    status = int(text.split()[1])
    assert status in (303, 307, 400, 404, 405)
    if status in (303, 307):
        assert re.search(r"(?i)^location: (/login\?|http://127\.0\.0\.1/static/)", text, re.MULTILINE)
    for secret in ("root:", "import ", "[project]", "<h1>Files"):
        assert secret not in text


def _raw(port: int, request: str) -> str:
    """Return the answer to a request as it is written here: clients would tidy its path."""
    import socket

    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(request.encode("latin-1"))
        found = b""
        while piece := connection.recv(65_536):
            found += piece
    return found.decode(errors="replace")


ODD_IDS = [
    "..%2f..%2fetc%2fpasswd",
    "%00",
    "%ff%fe",
    "a%2f..%2fb",
    "'; DROP TABLE file; --",
    "%F0%9F%92%A9",
    "x" * 5_000,
    ".",
]


@pytest.mark.parametrize("odd", ODD_IDS)
def test_odd_ids_are_not_found(ada: Visit, odd: str) -> None:
    for route in pages.routes():
        if "{" in route.path and "GET" in (route.methods or ()):
            answer = ada.get(re.sub(r"\{[^}]+\}", odd, route.path))
            assert answer.status_code in (200, 303, 307, 400, 403, 404, 501), (answer.request.url, answer.status_code)
            assert "Traceback" not in answer.text


def test_long_forms_are_refused(ada: Visit, stranger: Visit) -> None:
    token = ada.token()
    long = {"csrf_token": token, "body": "x" * (1 << 20)}
    assert ada.http.post("/dashboards/put", data=long).status_code == 413
    many = {f"field{place}": "x" for place in range(600)}
    assert ada.http.post("/files/redrive", data={"csrf_token": token, **many}).status_code == 400
    assert stranger.http.post("/login", data={"name": "x" * 20_000}).status_code == 413
    kind = {"content-type": "application/x-www-form-urlencoded"}
    assert ada.http.post("/files/redrive", content=b"csrf_token=%ff%fe", headers=kind).status_code == 400
    assert ada.get("/files?key=" + "x" * 20_000).status_code == 414


# ── hostile text ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def hostile(stack: Stack, ada: Visit) -> dict[str, str]:
    """Fill the stack with hostile text by its own ways in; return the addresses where it must be seen, and as what."""
    seen: dict[str, str] = {}
    name = "<zap-1 onclick=alert(1)>'&.csv"
    file = stack.folder / "upload.csv"
    file.write_bytes(b"1")
    stack.sftp(f'put {file} "{name}"', f'put {file} "<img src=zap onerror=alert(3)>"')
    listed = wait_for(
        lambda: [row for row in stack.json("files") if row["key"].endswith(name)], what="the hostile file"
    )
    file_id = listed[0]["file_id"]
    wait_for(
        lambda: [row for row in stack.json("files") if row["file_id"] == file_id and row["status"] == "transferred"],
        what="its delivery",
    )
    seen["/files"] = seen[f"/files/{file_id}"] = seen["/"] = seen["/executions"] = ""
    seen["/files"] = seen[f"/files/{file_id}"] = seen["/"] = "&lt;zap-1"
    stack.client("dynamodb").update_item(
        TableName="FileTransferMetadata",
        Key={"file_id": {"S": file_id}},
        UpdateExpression="SET #s = :s, error_message = :e",
        ExpressionAttributeNames={"#s": "status"},
        ExpressionAttributeValues={":s": {"S": "failed"}, ":e": {"S": f"Broken: {HOSTILE}"}},
    )
    _logs(stack, seen)
    _alarms(stack, seen)
    _dashboards(stack, seen)
    return seen


def _logs(stack: Stack, seen: dict[str, str]) -> None:
    logs, now_ms = stack.client("logs"), int(time.time() * 1000)
    stream = "<zap-1>stream"
    logs.create_log_group(logGroupName="/hostile")
    logs.create_log_stream(logGroupName="/hostile", logStreamName=stream)
    lines = [HOSTILE, json.dumps({"text": HOSTILE, HOSTILE: 1})]
    logs.put_log_events(
        logGroupName="/hostile",
        logStreamName=stream,
        logEvents=[{"timestamp": now_ms, "message": line} for line in lines],
    )
    logs.put_query_definition(name=f"{HOSTILE}"[:200], queryString=f"filter @message like '{HOSTILE[:7]}'")
    wait_for(lambda: logs.filter_log_events(logGroupName="/hostile")["events"], what="the hostile lines")
    seen["/logs?" + urlencode({"group": "/hostile"})] = "&lt;zap-1"
    seen["/logs?" + urlencode({"group": "/hostile", "stream": stream})] = "&lt;zap-1"
    query = {"group": "/hostile", "query": "fields @message, @logStream, text"}
    seen["/logs/insights?" + urlencode(query)] = "&lt;zap-1"
    query = {"group": "/hostile", "query": "stats count(*) as `<zap-1>` by bin(1m), @message"}
    seen["/logs/insights?" + urlencode(query)] = "&lt;zap-1"
    query = {"group": "/hostile", "query": f"fields @message\n| {HOSTILE}"}
    seen["/logs/insights?" + urlencode(query)] = "&lt;"


def _alarms(stack: Stack, seen: dict[str, str]) -> None:
    cloudwatch, sns = stack.client("cloudwatch"), stack.client("sns")
    name = "<zap-1 onclick=alert(1)>"
    cloudwatch.put_metric_data(
        Namespace="Hostile",
        MetricData=[{"MetricName": name, "Dimensions": [{"Name": "<zap-1>d", "Value": "<zap-1>v"}], "Value": 1.0}],
    )
    cloudwatch.put_metric_alarm(
        AlarmName=name,
        AlarmDescription=HOSTILE,
        Namespace="Hostile",
        MetricName=name,
        Dimensions=[{"Name": "<zap-1>d", "Value": "<zap-1>v"}],
        Statistic="Sum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=0,
        ComparisonOperator="GreaterThanThreshold",
    )
    cloudwatch.set_alarm_state(AlarmName=name, StateValue="ALARM", StateReason=HOSTILE)
    topic = sns.create_topic(Name="hostile", Attributes={"DisplayName": "<zap-1>"})["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="https", Endpoint="https://example.com/<zap-1>")
    seen["/alarms"] = seen[f"/alarms/{quote(name)}"] = "&lt;zap-1"
    seen["/topics/hostile"] = "&lt;zap-1"


def _dashboards(stack: Stack, seen: dict[str, str]) -> None:
    links = "[a](javascript:alert(1)) [b](data:text/html,<zap-1>) ![c](x onerror=alert(1))"
    metric: dict[str, Any] = {
        "metrics": [["Hostile", "<zap-1 onclick=alert(1)>", "<zap-1>d", "<zap-1>v", {"label": HOSTILE}]],
        "title": HOSTILE,
        "annotations": {"horizontal": [{"label": HOSTILE, "value": 1}]},
    }
    found = [{"type": "text", "properties": {"markdown": f"# {HOSTILE}\n{HOSTILE}\n\n{links}"}}]
    found += [
        {"type": "metric", "properties": {**metric, "view": view}}
        for view in ("timeSeries", "singleValue", "bar", "pie", HOSTILE)
    ]
    found += [
        {"type": "log", "properties": {"query": f"SOURCE '{HOSTILE}' | fields @message", "title": HOSTILE}},
        {"type": "log", "properties": {"query": "SOURCE '/hostile' | fields @message, text", "title": HOSTILE}},
        {"type": "alarm", "properties": {"alarms": [f"arn:aws:cloudwatch:us-east-1:0:alarm:{HOSTILE}"], "title": "a"}},
    ]
    stack.client("cloudwatch").put_dashboard(DashboardName="hostile", DashboardBody=json.dumps({"widgets": found}))
    seen["/dashboards/hostile"] = seen["/dashboards/hostile/edit"] = "&lt;zap-1"


def test_hostile_text_is_shown_as_text(ada: Visit, hostile: dict[str, str]) -> None:
    for path, text in hostile.items():
        answer = ada.get(path)
        assert answer.status_code == 200, (path, answer.text[:500])
        assert not MARKUP.search(answer.text), (path, MARKUP.search(answer.text))
        assert text in answer.text, path
    page = ada.get("/dashboards/hostile").text
    assert 'href="javascript:' not in page
    assert 'href="data:' not in page
    assert "<img" not in page


# fmt: off
PARAMETERS = (
    "key", "customer", "status", "since", "until", "notice", "group", "stream", "pattern", "query", "range", "name",
    "contains", "to", "next", "state", "machine", "history", "token", "metric", "topic", "user", "action", "resource",
)
# fmt: on


@pytest.mark.parametrize(("name", "path"), [entry for entry in GETS if entry[1] != STREAM])
def test_hostile_parameters_are_shown_as_text(ada: Visit, hostile: dict[str, str], name: str, path: str) -> None:
    texts = (HOSTILE, "\u202e\x00\x1b[31m", "{{7*7}}${7*7}", "-1", "999999999999999999999999", "1e309", "[", "\ud7ff")
    for text in texts:
        answer = ada.get(path + "?" + urlencode(dict.fromkeys(PARAMETERS, text)))
        assert answer.status_code < 500 or answer.status_code == 501, (path, text)
        assert not MARKUP.search(answer.text), (path, text)
        assert "49" not in re.findall(r"\{\{7\*7\}\}|\b49\b", answer.text) or "{{7*7}}" in answer.text
    for parameter in PARAMETERS:
        answer = ada.get(path + "?" + urlencode({parameter: HOSTILE}))
        assert answer.status_code < 500 or answer.status_code == 501, (path, parameter)
        assert not MARKUP.search(answer.text), (path, parameter)


def test_hostile_clients_are_shown_as_text(stack: Stack, ada: Visit) -> None:
    transport = paramiko.Transport(("127.0.0.1", stack.sftp_port))
    transport.local_version = "SSH-2.0-<zap-1 onclick=alert(1)>"
    try:
        key = paramiko.Ed25519Key.from_private_key_file(str(stack.folder / "keys" / "demo"))
        transport.connect(username="demo", pkey=key)
        client = paramiko.SFTPClient.from_transport(transport)
        assert client is not None
        for path in ("/sessions", "/"):
            answer = ada.get(path, headers={"user-agent": HOSTILE.replace("\n", ""), "referer": HOSTILE})
            assert not MARKUP.search(answer.text), path
        client.close()
    finally:
        transport.close()


def test_hostile_names_of_users_who_fail_are_kept_apart(stack: Stack) -> None:
    with Visit(stack) as visit:
        answer = visit.login(f"{HOSTILE}\nINFO forged line", "wrong password wrong")
        assert answer.status_code == 401
        assert not MARKUP.search(answer.text)
        assert visit.login("ada").status_code == 303
    assert "\nINFO forged line" not in stack.server_log()
