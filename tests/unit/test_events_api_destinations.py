"""Connections and API destinations: what is sent, what each answer means, and that no secret is told or stored in the open."""

import base64
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrepot import clock
from entrepot.database.sqlite import SQLiteDatabase
from entrepot.errors import AwsError
from entrepot.loglines import LogLine
from entrepot.operations import Principal
from entrepot.outbound import (
    ConnectionFailedError,
    DeniedError,
    OutboundError,
    Request,
    Response,
    TimedOutError,
    UnknownHostError,
)
from entrepot.outbound.url import parse
from entrepot.sealing import Seal, SealBrokenError
from entrepot.services import events, sqs
from entrepot.services.events import connections
from entrepot.services.events.api_destinations import ApiDestination
from entrepot.services.events.connections import ConnectionParameters
from entrepot.services.events.errors import ResourceAlreadyExistsError, ResourceNotFoundError, ValidationError
from entrepot.services.events.http_invocation import request_of, retry_after_ms
from entrepot.services.events.rate_limits import HORIZON_MS, RateLimits
from tests.unit.test_events_buses import ACCOUNT, House

SECRET = "s3cr3t-value"
API_KEY = {"ApiKeyAuthParameters": {"ApiKeyName": "X-Key", "ApiKeyValue": SECRET}}
OAUTH = {
    "OAuthParameters": {
        "ClientParameters": {"ClientID": "me", "ClientSecret": SECRET},
        "AuthorizationEndpoint": "https://auth.example/token",
        "HttpMethod": "POST",
    }
}
ROLE = ACCOUNT.iam_arn("role/caller")
Answer = Response | OutboundError


def answer(status: int = 200, body: Any = b"", **headers: str) -> Response:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Response(status, "", tuple((name.replace("_", "-"), value) for name, value in headers.items()), text, True)


class HttpHouse(House):
    """Also a network that answers what the test says, and a log."""

    def __init__(self, database: SQLiteDatabase) -> None:
        super().__init__(database)
        self.sent: list[Request] = []
        self.answers: list[Answer] = []
        self.always: Callable[[Request], Answer] = lambda request: answer()
        self.lines: list[str] = []
        self.events = events.Events(
            database, ACCOUNT, self.operations,
            principal_for_role=lambda arn, name: Principal(arn, "role", name, role_arn=arn),
            service_principal=Principal("events.amazonaws.com", "service", "events.amazonaws.com"),
            on_delivered=lambda tx, delivery: None,
            on_delivery_failed=lambda tx, delivery: self.failed.append(delivery),
            send=self.send, seal=Seal(b"k" * 32, "events connections"), write_log=self.write_log,
        )  # fmt: skip
        self.operations._operations = {
            key: value for key, value in self.operations._operations.items() if key[0] != "events"
        }
        self.operations.add("events", events.operations(self.events))

    async def send(self, request: Request) -> Response:
        self.sent.append(request)
        found = self.answers.pop(0) if self.answers else self.always(request)
        if isinstance(found, OutboundError):
            raise found
        return found

    def write_log(self, group: str, stream: str, line: LogLine) -> None:
        self.lines.append(line.message)

    async def destination(
        self, auth: dict[str, Any] = API_KEY, kind: str = "API_KEY", target: dict[str, Any] | None = None, **more: Any
    ) -> None:
        """A connection, an API destination, and a rule that calls it."""
        made = await self.do("CreateConnection", Name="c", AuthorizationType=kind, AuthParameters=auth)
        given = {"InvocationEndpoint": "https://api.example/in", "HttpMethod": "POST", **more}
        found = await self.do("CreateApiDestination", Name="d", ConnectionArn=made["ConnectionArn"], **given)
        assert found["ApiDestinationState"] == "ACTIVE"
        await self.rule("r", {"Arn": found["ApiDestinationArn"], "RoleArn": ROLE, **(target or {})})

    async def settle(self) -> None:
        """Deliver what is due, and wait for what is under way."""
        while await self.events.deliver_due() == 0 or self.events.dispatch.in_flight:
            for task in list(self.events.dispatch.in_flight):
                await task

    async def put_and_settle(self, **detail: Any) -> str:
        event_id = await self.put(**detail)
        await self.settle()
        return event_id

    async def try_again(self) -> None:
        """Let what waits for another try be due."""
        await self.database.write(lambda tx: tx.execute("UPDATE events_delivery SET due_at_ms = 0"))
        await self.settle()

    async def waiting(self) -> list[tuple[int, int]]:
        """Return (pause until the next try in ms, tries) of each delivery that waits."""
        rows = await self.database.read(lambda reader: reader.all("SELECT due_at_ms, tries FROM events_delivery"))
        return [(due_at_ms - clock.now_ms(), tries) for due_at_ms, tries in rows]


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[HttpHouse]:
    database = SQLiteDatabase(tmp_path / "ledger.db")
    try:
        database.migrate((*events.MIGRATIONS, *sqs.MIGRATIONS))
        yield HttpHouse(database)
    finally:
        await database.close()


# ── what is sent ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_event_is_posted_with_the_key_and_awss_headers(house: HttpHouse) -> None:
    await house.destination()
    event_id = await house.put_and_settle(n=1)
    (request,) = house.sent
    assert (request.method, request.url, request.timeout_s) == ("POST", "https://api.example/in", 5.0)
    assert dict(request.headers) == {
        "Content-Type": "application/json; charset=utf-8", "X-Key": SECRET, "Range": "bytes=0-1048575",
        "User-Agent": "Amazon/EventBridge/ApiDestinations",
    }  # fmt: skip
    body = json.loads(request.body)
    assert (body["id"], body["detail"]) == (event_id, {"n": 1})
    assert await house.waiting() == [] and house.failed == []


async def test_parameters_of_target_and_connection(house: HttpHouse) -> None:
    added = {
        "HeaderParameters": [{"Key": "X-Both", "Value": "connection"}],
        "QueryStringParameters": [{"Key": "both", "Value": "connection", "IsValueSecret": False}],
        "BodyParameters": [{"Key": "site", "Value": "north"}],
    }
    http_parameters = {
        "PathParameterValues": ["$.detail.customer", "fixed value"],
        "HeaderParameters": {"X-Both": "target", "X-Who": "$.source", "User-Agent": "mine"},
        "QueryStringParameters": {"both": "target", "n": "$.detail.n", "none": "$.detail.none"},
    }
    await house.destination(
        {"BasicAuthParameters": {"Username": "u", "Password": SECRET}, "InvocationHttpParameters": added}, "BASIC",
        {"HttpParameters": http_parameters, "InputPath": "$.detail"},
        InvocationEndpoint="https://api.example/*/in/*?v=1", HttpMethod="PUT",
    )  # fmt: skip
    await house.put_and_settle(customer="a/../b", n=[1])
    (request,) = house.sent
    assert request.url == ("https://api.example/a%2F..%2Fb/in/fixed%20value?v=1&both=connection&n=%5B1%5D&none=")
    headers = dict(request.headers)
    assert headers["Authorization"] == "Basic " + base64.b64encode(f"u:{SECRET}".encode()).decode()
    assert (headers["X-Both"], headers["X-Who"]) == ("connection", "shop")
    assert headers["User-Agent"] == "Amazon/EventBridge/ApiDestinations"
    assert json.loads(request.body) == {"customer": "a/../b", "n": [1], "site": "north"}


async def test_the_role_must_be_allowed_to_call(house: HttpHouse) -> None:
    await house.destination()
    house.denied.add("events:InvokeApiDestination")
    await house.put_and_settle()
    assert house.sent == [] and "AccessDenied" in str(house.failed[0].error)


DESTINATION = ApiDestination("d", "1", "", "c", "https://api.example/a/*/b/*?q=*", "POST", 1, 0, 0)


@given(
    st.dictionaries(st.sampled_from(["a", "b"]), st.recursive(st.none() | st.text() | st.floats(allow_nan=False),
                    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5)),
    st.text(max_size=20),
)  # fmt: skip
def test_nothing_in_an_event_changes_where_it_goes(detail: dict[str, Any], text: str) -> None:
    http_parameters = {
        "PathParameterValues": ["$.detail.a", "$.detail.b"], "QueryStringParameters": {"x": "$.detail.a", text: "y"},
    }  # fmt: skip
    request = request_of(DESTINATION, ConnectionParameters(), http_parameters, {"detail": detail}, "{}")
    place = parse(request.url)
    path, _, query = place.target.partition("?")
    assert (place.scheme, place.host, place.port) == ("https", "api.example", 443)
    assert [part for number, part in enumerate(path.split("/")) if number in (1, 3)] == ["a", "b"]
    assert path.count("/") == 4 and query.startswith("q=*&") and "#" not in place.target


def test_a_missing_path_parameter_is_told() -> None:
    with pytest.raises(AwsError, match="2 path parameters"):
        request_of(DESTINATION, ConnectionParameters(), {"PathParameterValues": ["x"]}, {}, "{}")


# ── what an answer means ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("status", [401, 407, 409, 429, 500, 503])
async def test_statuses_that_are_retried(house: HttpHouse, status: int) -> None:
    await house.destination()
    house.answers = [answer(status)]
    await house.put_and_settle()
    assert [tries for _, tries in await house.waiting()] == [1]
    await house.try_again()
    assert len(house.sent) == 2 and await house.waiting() == [] and house.failed == []


@pytest.mark.parametrize("status", [302, 400, 403, 404, 408, 422])
async def test_statuses_that_are_not_retried(house: HttpHouse, status: int) -> None:
    await house.destination()
    house.answers = [answer(status, b"because")]
    await house.put_and_settle()
    assert await house.waiting() == []
    assert f"HTTP status {status} with payload: because" in str(house.failed[0].error)


async def test_retry_after_is_heeded_when_it_is_longer(house: HttpHouse) -> None:
    await house.destination()
    house.answers = [answer(429, Retry_After="120"), answer(503, Retry_After="0"), answer(503, Retry_After="-1")]
    await house.put_and_settle()
    ((pause_ms, _),) = await house.waiting()
    assert 110_000 < pause_ms <= 120_000
    await house.try_again()
    ((pause_ms, _),) = await house.waiting()
    assert 0 < pause_ms <= 2_000
    await house.try_again()
    assert await house.waiting() == [] and len(house.failed) == 1


@pytest.mark.parametrize(
    ("error", "retried", "code"),
    [(TimedOutError("slow"), True, "TIMEOUT"), (ConnectionFailedError("reset"), True, "CONNECTION_FAILURE"),
     (UnknownHostError("nowhere"), False, "CONNECTION_FAILURE"), (DeniedError("no"), False, "CONNECTION_FAILURE")],
)  # fmt: skip
async def test_no_answer(house: HttpHouse, error: OutboundError, retried: bool, code: str) -> None:
    queue = await house.queue("dead")
    policy = {"DeadLetterConfig": {"Arn": queue}, "RetryPolicy": {"MaximumRetryAttempts": 1}}
    await house.destination(target=policy)
    house.answers = [error, error]
    await house.put_and_settle()
    assert len(await house.waiting()) == int(retried)
    await house.try_again()
    ((message),) = await house.received("dead")
    attributes = {name: value["StringValue"] for name, value in message["MessageAttributes"].items()}
    assert attributes["ERROR_CODE"] == code and str(error) in attributes["ERROR_MESSAGE"]
    assert attributes.get("RETRY_ATTEMPTS") == ("1" if retried else None)
    assert attributes.get("EXHAUSTED_RETRY_CONDITION") == ("MaximumRetryAttempts" if retried else None)
    assert json.loads(message["Body"])["source"] == "shop"


async def test_a_destination_or_connection_that_is_gone(house: HttpHouse) -> None:
    await house.destination()
    await house.do("DeleteConnection", Name="c")
    await house.put_and_settle()
    await house.do("DeleteApiDestination", Name="d")
    await house.put_and_settle()
    assert ["does not exist" in str(failed.error) for failed in house.failed] == [True, True]
    assert house.sent == []


@pytest.mark.parametrize(
    ("header", "expected"),
    [(None, 0), ("5", 5000), ("-3", -3000), ("1.5", 1500), ("soon", 0), ("", 0), ("9" * 400, 0), ("nan", 0), ("inf", 0),
     ("Wed, 21 Oct 2015 07:28:00 GMT", 0)],
)  # fmt: skip
def test_retry_after(header: str | None, expected: int) -> None:
    assert retry_after_ms(header) == expected


# ── rate limits ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_slots_are_given_out_once_each() -> None:
    limits = RateLimits()
    waits = [limits.wait_ms("d", number, 10, 1000) for number in range(5)]
    assert waits == [0, 50, 150, 250, 350]
    assert limits.wait_ms("other", 99, 10, 1000) == 0
    assert limits.wait_ms("d", 2, 10, 1100) == 50, "not yet"
    assert limits.wait_ms("d", 2, 10, 1150) == 0
    assert limits.wait_ms("d", 5, 10, 1150) == 300
    far = [limits.wait_ms("slow", number, 1, 0) for number in range(1000, 1100)]
    assert max(far) <= HORIZON_MS + 1000


async def test_calls_wait_for_their_turn_without_counting_as_tries(house: HttpHouse) -> None:
    await house.destination(InvocationRateLimitPerSecond=2)
    for number in range(3):
        await house.put(n=number)
    await house.settle()
    assert len(house.sent) == 1
    assert [tries for _, tries in await house.waiting()] == [0, 0]
    pauses = sorted(pause_ms for pause_ms, _ in await house.waiting())
    assert 300 < pauses[0] <= 500 < pauses[1] <= 1000


# ── secrets ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_no_secret_is_described_logged_or_stored_in_the_open(house: HttpHouse, tmp_path: Path) -> None:
    shown = {"Key": "k", "Value": "public", "IsValueSecret": False}
    hidden = {"HeaderParameters": [{"Key": "h", "Value": SECRET, "IsValueSecret": True}, shown]}
    for name, kind, parameters in (
        ("a", "API_KEY", API_KEY),
        ("b", "BASIC", {"BasicAuthParameters": {"Username": "u", "Password": SECRET}}),
        ("o", "OAUTH_CLIENT_CREDENTIALS", OAUTH),
    ):
        await house.do("CreateConnection", Name=name, AuthorizationType=kind,
                       AuthParameters={**parameters, "InvocationHttpParameters": hidden})  # fmt: skip
        described = await house.do("DescribeConnection", Name=name)
        assert SECRET not in json.dumps(described, default=str)
        assert described["AuthParameters"]["InvocationHttpParameters"]["HeaderParameters"] == [
            {"Key": "h", "IsValueSecret": True}, shown,
        ]  # fmt: skip
        assert described["SecretArn"].startswith(
            "arn:aws:secretsmanager:us-east-1:000000000000:secret:events!connection/"
        )
    assert SECRET not in json.dumps(await house.do("ListConnections"), default=str)
    rows = await house.database.read(lambda reader: reader.all("SELECT * FROM events_connection"))
    assert SECRET not in repr(rows)
    await house.database.backup(str(tmp_path / "copy.db"))
    assert SECRET.encode() not in (tmp_path / "copy.db").read_bytes()
    house.always = lambda request: answer(500, b"no")
    await house.destination()
    await house.put_and_settle()
    assert house.lines and SECRET not in "".join(house.lines)


async def test_an_endpoint_that_repeats_what_it_was_sent_tells_no_secret(house: HttpHouse) -> None:
    await house.destination({"BasicAuthParameters": {"Username": "u", "Password": SECRET}}, "BASIC")
    basic = base64.b64encode(f"u:{SECRET}".encode()).decode()
    house.answers = [answer(400, f"bad header: Authorization: Basic {basic}, {basic}".encode())]
    await house.put_and_settle()
    told = str(house.failed[0].error) + "".join(house.lines)
    assert basic not in told and "bad header: Authorization: ***, ***" in told


async def test_a_secret_that_cannot_be_opened_can_be_given_anew(house: HttpHouse) -> None:
    await house.do("CreateConnection", Name="o", AuthorizationType="OAUTH_CLIENT_CREDENTIALS", AuthParameters=OAUTH)
    await house.destination()
    house.events.connections._seal = Seal(b"x" * 32, "events connections")
    await house.put_and_settle()
    assert [tries for _, tries in await house.waiting()] == [1] and house.sent == []
    assert await house.events.connections.authorize_waiting()
    described = await house.do("DescribeConnection", Name="o")
    assert described["ConnectionState"] == "DEAUTHORIZED" and "keys/secret" in described["StateReason"]
    with pytest.raises(ValidationError, match="ApiKeyName"):
        await house.do("UpdateConnection", Name="c", AuthParameters={"ApiKeyAuthParameters": {"ApiKeyValue": "v"}})
    await house.do("UpdateConnection", Name="c", AuthParameters=API_KEY)
    await house.try_again()
    assert len(house.sent) == 1 and await house.waiting() == []


def test_a_seal_opens_only_with_its_secret_purpose_and_name() -> None:
    sealed = Seal(b"a" * 32, "p").close(b"plain", "n")
    assert Seal(b"a" * 32, "p").open(sealed, "n") == b"plain" and b"plain" not in sealed
    for seal, name in ((Seal(b"b" * 32, "p"), "n"), (Seal(b"a" * 32, "q"), "n"), (Seal(b"a" * 32, "p"), "m")):
        with pytest.raises(SealBrokenError):
            seal.open(sealed, name)
    with pytest.raises(SealBrokenError):
        Seal(b"a" * 32, "p").open(b"", "n")


# ── OAuth ────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def oauth(house: HttpHouse, **token: Any) -> None:
    count = 0

    def network(request: Request) -> Answer:
        nonlocal count
        if "auth.example" not in request.url:
            return answer()
        count += 1
        return answer(200, {"access_token": f"t{count}", "token_type": "bearer", **token})

    house.always = network
    await house.destination(OAUTH, "OAUTH_CLIENT_CREDENTIALS")


async def test_a_token_is_asked_for_once_and_kept(house: HttpHouse) -> None:
    await oauth(house, expires_in=3600)
    assert (await house.do("DescribeConnection", Name="c"))["ConnectionState"] == "AUTHORIZING"
    assert await house.events.connections.authorize_waiting()
    described = await house.do("DescribeConnection", Name="c")
    assert described["ConnectionState"] == "AUTHORIZED" and "LastAuthorizedTime" in described
    for number in range(3):
        await house.put_and_settle(n=number)
    asked, *called = house.sent
    assert parse_qs(asked.body.decode()) == {
        "grant_type": ["client_credentials"], "client_id": ["me"], "client_secret": [SECRET]
    }  # fmt: skip
    assert dict(asked.headers)["Content-Type"] == "application/x-www-form-urlencoded"
    assert [dict(request.headers)["Authorization"] for request in called] == ["Bearer t1"] * 3


async def test_a_refused_token_is_renewed_for_the_next_try(house: HttpHouse) -> None:
    await oauth(house, expires_in=3600)
    await house.put_and_settle()
    house.answers = [answer(401)]
    await house.put_and_settle()
    await house.try_again()
    tokens = [dict(request.headers).get("Authorization") for request in house.sent]
    assert tokens == [None, "Bearer t1", "Bearer t1", None, "Bearer t2"]


async def test_a_token_that_is_about_to_expire_is_renewed_before(
    house: HttpHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    await oauth(house, expires_in=100)
    await house.put_and_settle()
    now_s = clock.monotonic_s()
    monkeypatch.setattr(clock, "monotonic_s", lambda: now_s + 41)
    await house.put_and_settle()
    assert dict(house.sent[-1].headers)["Authorization"] == "Bearer t2"


@pytest.mark.parametrize(
    "bad",
    [answer(400), answer(200, b"no json"), answer(200, {"access_token": 7}), answer(200, ["x"]), TimedOutError("slow"),
     answer(200, {"access_token": "x" * 20_000}), answer(200, b"[" * 100_000)],
)  # fmt: skip
async def test_a_refused_authorization_is_told_and_tried_again(house: HttpHouse, bad: Answer) -> None:
    await house.destination(OAUTH, "OAUTH_CLIENT_CREDENTIALS")
    house.answers = [bad]
    await house.events.connections.authorize_waiting()
    described = await house.do("DescribeConnection", Name="c")
    assert described["ConnectionState"] == "DEAUTHORIZED" and "authorization endpoint" in described["StateReason"]
    assert (await house.do("DescribeApiDestination", Name="d"))["ApiDestinationState"] == "INACTIVE"
    house.answers = [bad]
    await house.put_and_settle()
    assert [tries for _, tries in await house.waiting()] == [1]
    house.answers = [answer(200, {"access_token": "t", "expires_in": "60"})]
    await house.try_again()
    assert await house.waiting() == []
    assert (await house.do("DescribeConnection", Name="c"))["ConnectionState"] == "AUTHORIZED"


async def test_a_token_by_get_and_as_json(house: HttpHouse) -> None:
    get = {"OAuthParameters": {**OAUTH["OAuthParameters"], "HttpMethod": "GET"}}
    parameters = {
        "HeaderParameters": [{"Key": "content-type", "Value": "application/json"}],
        "BodyParameters": [{"Key": "audience", "Value": "a"}],
        "QueryStringParameters": [{"Key": "q", "Value": "1"}],
    }
    as_json = {"OAuthParameters": {**OAUTH["OAuthParameters"], "OAuthHttpParameters": parameters}}
    for name, chosen in (("g", get), ("j", as_json)):
        await house.do(
            "CreateConnection", Name=name, AuthorizationType="OAUTH_CLIENT_CREDENTIALS", AuthParameters=chosen
        )
    house.always = lambda request: answer(200, {"access_token": "t"})
    await house.events.connections.authorize_waiting()
    by_get, by_json = house.sent
    assert by_get.body == b"" and f"client_secret={SECRET}" in by_get.url
    assert by_json.url.endswith("?q=1")
    assert json.loads(by_json.body) == {
        "grant_type": "client_credentials", "client_id": "me", "client_secret": SECRET, "audience": "a"
    }  # fmt: skip


# ── the operations ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_connections_are_changed_deauthorized_and_deleted(house: HttpHouse) -> None:
    created = await house.do("CreateConnection", Name="c", AuthorizationType="API_KEY", AuthParameters=API_KEY,
                             Description="d")  # fmt: skip
    arn = created["ConnectionArn"]
    assert created["ConnectionState"] == "AUTHORIZED" and ":connection/c/" in arn
    changed = {"ApiKeyAuthParameters": {"ApiKeyValue": "new"}}
    await house.do("UpdateConnection", Name="c", AuthParameters=changed)
    assert (await house.events.connections.parameters(arn)).headers == (("X-Key", "new"),)
    await house.do("UpdateConnection", Name="c", AuthorizationType="BASIC",
                   AuthParameters={"BasicAuthParameters": {"Username": "u", "Password": "p"}})  # fmt: skip
    described = await house.do("DescribeConnection", Name="c")
    assert described["AuthParameters"] == {"BasicAuthParameters": {"Username": "u"}}
    assert described["Description"] == "d" and described["ConnectionArn"] == arn
    assert (await house.do("DeauthorizeConnection", Name="c"))["ConnectionState"] == "DEAUTHORIZING"
    assert (await house.do("DescribeConnection", Name="c"))["ConnectionState"] == "DEAUTHORIZED"
    rows = await house.database.read(lambda reader: connections.all_connections(reader, 10))
    assert rows[0].secret is None
    with pytest.raises(AwsError, match="deauthorized"):
        await house.events.connections.parameters(arn)
    with pytest.raises(ValidationError, match="Password"):
        await house.do("UpdateConnection", Name="c", AuthParameters={"BasicAuthParameters": {"Username": "u"}})
    assert (await house.do("DeleteConnection", Name="c"))["ConnectionState"] == "DELETING"
    for operation in ("DescribeConnection", "UpdateConnection", "DeauthorizeConnection", "DeleteConnection"):
        with pytest.raises(ResourceNotFoundError):
            await house.do(operation, Name="c")
    with pytest.raises(ResourceNotFoundError):
        await house.events.connections.parameters(arn)


async def test_api_destinations_are_changed_listed_and_deleted(house: HttpHouse) -> None:
    await house.destination()
    await house.do(
        "UpdateApiDestination", Name="d", HttpMethod="PATCH", InvocationRateLimitPerSecond=7, Description="x"
    )
    described = await house.do("DescribeApiDestination", Name="d")
    assert (described["HttpMethod"], described["InvocationRateLimitPerSecond"]) == ("PATCH", 7)
    assert described["InvocationEndpoint"] == "https://api.example/in" and described["Description"] == "x"
    (listed,) = (await house.do("ListApiDestinations", ConnectionArn=described["ConnectionArn"]))["ApiDestinations"]
    assert listed["Name"] == "d"
    await house.do("DeleteApiDestination", Name="d")
    for operation in ("DescribeApiDestination", "UpdateApiDestination", "DeleteApiDestination"):
        with pytest.raises(ResourceNotFoundError):
            await house.do(operation, Name="d")


async def test_requests_that_are_refused(house: HttpHouse) -> None:
    async def refused(error: type[Exception], match: str, name: str, **request: Any) -> None:
        with pytest.raises(error, match=match):
            await house.do(name, **request)

    good = {"Name": "c", "AuthorizationType": "API_KEY", "AuthParameters": API_KEY}
    made = await house.do("CreateConnection", **good)
    await refused(ResourceAlreadyExistsError, "already exists", "CreateConnection", **good)
    good |= {"Name": "n"}
    await refused(
        ValidationError, "ApiKeyAuthParameters.ApiKeyName", "CreateConnection", **good | {"AuthParameters": {}}
    )
    await refused(ValidationError, "enum value set", "CreateConnection", **good | {"AuthorizationType": "NONE"})
    two_lines = {"ApiKeyAuthParameters": {"ApiKeyName": "a\r\nb", "ApiKeyValue": "c"}}
    await refused(ValidationError, "control characters", "CreateConnection", **good | {"AuthParameters": two_lines})
    await refused(ValidationError, "regular expression", "CreateConnection", **good | {"Name": "a b"})
    file = {"OAuthParameters": {**OAUTH["OAuthParameters"], "AuthorizationEndpoint": "file:///etc/passwd"}}
    await refused(ValidationError, "AuthorizationEndpoint", "CreateConnection",
                  **good | {"AuthorizationType": "OAUTH_CLIENT_CREDENTIALS", "AuthParameters": file})  # fmt: skip
    good = {"Name": "d", "ConnectionArn": made["ConnectionArn"], "HttpMethod": "POST",
            "InvocationEndpoint": "https://x.example/"}  # fmt: skip
    await refused(ResourceNotFoundError, "Connection", "CreateApiDestination", **good | {"ConnectionArn": "arn:aws:x"})
    await refused(ValidationError, "httpMethod", "CreateApiDestination", **good | {"HttpMethod": "TRACE"})
    await refused(
        ValidationError, "InvocationEndpoint", "CreateApiDestination", **good | {"InvocationEndpoint": "gopher://x"}
    )
    await refused(
        ValidationError, "only the path", "CreateApiDestination", **good | {"InvocationEndpoint": "https://*/"}
    )
    await refused(ValidationError, "at least 1", "CreateApiDestination", **good | {"InvocationRateLimitPerSecond": 0})
    arn = (await house.do("CreateApiDestination", **good))["ApiDestinationArn"]
    await house.do("PutRule", Name="r", EventPattern='{"source": ["x"]}')
    await refused(ValidationError, "RoleArn is required", "PutTargets", Rule="r", Targets=[{"Id": "t", "Arn": arn}])
    target = {"Id": "t", "Arn": arn, "RoleArn": ROLE}
    await refused(ValidationError, "no name of a header", "PutTargets", Rule="r",
                  Targets=[{**target, "HttpParameters": {"HeaderParameters": {"a:b": "c"}}}])  # fmt: skip
    await refused(ValidationError, "control character", "PutTargets", Rule="r",
                  Targets=[{**target, "HttpParameters": {"HeaderParameters": {"a": "c\r\nd: e"}}}])  # fmt: skip
    queue = await house.queue("q")
    await refused(ValidationError, "API destinations only", "PutTargets", Rule="r",
                  Targets=[{"Id": "t", "Arn": queue, "HttpParameters": {}}])  # fmt: skip
