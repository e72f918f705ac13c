"""Logins through an OpenID Connect provider, which is a small one of the test's own."""

import base64
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.acceptance.console_logins import Visit, console_stack
from tests.running import Stack

CLIENT, SECRET = "entrepot", "a:secret/with+signs"


@dataclass
class Provider:
    """What the provider says next, and what it was asked. `claims` go over those of a right token."""

    issuer: str = ""
    key: rsa.RSAPrivateKey = field(default_factory=lambda: rsa.generate_private_key(65_537, 2_048))
    key_id: str = "first"
    claims: dict[str, Any] = field(default_factory=dict)
    algorithm: str = "RS256"
    signed_with: Any = None
    asked: dict[str, str] = field(default_factory=dict)
    token_requests: list[dict[str, str]] = field(default_factory=list)

    def configuration(self) -> dict[str, Any]:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize?tenant=a",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
        }

    def keys(self) -> dict[str, Any]:
        public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key()))
        return {"keys": [{**public, "kid": self.key_id, "use": "sig", "alg": "RS256"}]}

    def token(self) -> str:
        now_s = int(time.time())
        claims = {
            "iss": self.issuer,
            "sub": "17",
            "aud": CLIENT,
            "exp": now_s + 300,
            "iat": now_s,
            "nonce": self.asked["nonce"],
            "email": "ada@example.com",
            "email_verified": True,
            **self.claims,
        }
        claims = {name: value for name, value in claims.items() if value is not None}
        key = self.signed_with or self.key
        return jwt.encode(claims, key if self.algorithm != "none" else None, self.algorithm, {"kid": self.key_id})

    def exchange(self, form: dict[str, str], authorization: str) -> tuple[int, dict[str, Any]]:
        """Answer the token endpoint: the client, the code and the verifier must be right."""
        self.token_requests.append(form)
        name, _, secret = base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        right = (
            (unquote(name), unquote(secret)) == (CLIENT, SECRET)
            and form["code"] == "the-code"
            and form["redirect_uri"] == self.asked["redirect_uri"]
            and base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == self.asked["code_challenge"]
        )
        return (200, {"id_token": self.token(), "token_type": "Bearer"}) if right else (400, {"error": "invalid_grant"})


def _handler(provider: Provider) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _json(self, status: int, content: dict[str, Any]) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            pages = {"/.well-known/openid-configuration": provider.configuration, "/keys": provider.keys}
            self._json(200, pages[self.path]())

        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
            status, content = provider.exchange(
                {name: values[0] for name, values in form.items()}, self.headers.get("authorization", "")
            )
            self._json(status, content)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler


@pytest.fixture(scope="module")
def served() -> Iterator[Provider]:
    provider = Provider()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(provider))
    provider.issuer = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield provider
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def stack(served: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    section = f"""[oidc]
issuer = "{served.issuer}"
client_id = "{CLIENT}"
client_secret_file = "keys/oidc-secret"
emails = ["ada@example.com", "@trusted.example"]
groups = ["operators"]
"""
    made = console_stack(tmp_path_factory.mktemp("oidc") / "site", more=section)
    (made.folder / "keys").mkdir(exist_ok=True)
    (made.folder / "keys" / "oidc-secret").write_text(SECRET + "\n")
    with made:
        yield made


@pytest.fixture
def provider(served: Provider) -> Provider:
    served.claims, served.algorithm, served.signed_with = {}, "RS256", None
    return served


def _begin(visit: Visit, provider: Provider, target: str = "/files") -> None:
    """Follow the link of the login page to the provider."""
    assert 'href="/login/oidc' in visit.get("/login").text
    answer = visit.get("/login/oidc?" + urlencode({"to": target}))
    assert answer.status_code == 303
    address = urlsplit(answer.headers["location"])
    assert answer.headers["location"].startswith(f"{provider.issuer}/authorize?tenant=a&")
    provider.asked = {name: values[0] for name, values in parse_qs(address.query).items()}
    assert provider.asked["response_type"] == "code"
    assert provider.asked["code_challenge_method"] == "S256"
    assert provider.asked["redirect_uri"] == f"{visit.http.base_url}/login/oidc/callback".replace("//login", "/login")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie


def _come_back(visit: Visit, provider: Provider, **query: str) -> httpx.Response:
    return visit.get(
        "/login/oidc/callback?" + urlencode({"code": "the-code", "state": provider.asked["state"], **query})
    )


def test_who_is_named_comes_in(stack: Stack, provider: Provider) -> None:
    with Visit(stack) as visit:
        _begin(visit, provider, "/files?status=failed")
        answer = _come_back(visit, provider)
        assert answer.status_code == 200
        assert 'content="0;url=/files?status=failed"' in answer.text
        cookies = answer.headers.get_list("set-cookie")
        assert any("entrepot_console=" in text and "SameSite=strict" in text for text in cookies)
        page = visit.get("/files")
        assert page.status_code == 200
        assert "ada@example.com" in page.text
        assert _come_back(visit, provider).status_code == 403, "an attempt is good for one answer"


@pytest.mark.parametrize(
    ("claims", "status"),
    [
        ({"email": "Ada@Example.com"}, 200),
        ({"email": "bert@trusted.example"}, 200),
        ({"email": "eve@example.com"}, 403),
        ({"email": "eve@nottrusted.example"}, 403),
        ({"email": "eve@evil.test", "groups": ["guests", "operators"]}, 200),
        ({"email": None, "groups": ["operators"]}, 200),
        ({"email": "eve@evil.test", "groups": "operators"}, 403),
        ({"email_verified": False}, 403),
        ({"email_verified": None}, 403),
        ({"nonce": "another"}, 403),
        ({"nonce": None}, 403),
        ({"aud": "another"}, 403),
        ({"aud": [CLIENT, "another"]}, 403),
        ({"aud": [CLIENT, "another"], "azp": CLIENT}, 200),
        ({"azp": "another"}, 403),
        ({"iss": "https://evil.test"}, 403),
        ({"exp": 1_000}, 403),
        ({"exp": None}, 403),
        ({"iat": int(time.time()) + 86_400}, 403),
        ({"sub": None}, 403),
    ],
)
def test_tokens_must_be_right(stack: Stack, provider: Provider, claims: dict[str, Any], status: int) -> None:
    provider.claims = claims
    with Visit(stack) as visit:
        _begin(visit, provider)
        answer = _come_back(visit, provider)
        assert answer.status_code == status
        assert visit.get("/files").status_code == (200 if status == 200 else 303)
        if status == 403:
            assert "eve" not in answer.text


def test_signatures_must_be_the_providers(stack: Stack, provider: Provider) -> None:
    secrets: list[tuple[str, Any]] = [
        ("RS256", rsa.generate_private_key(65_537, 2_048)),
        ("ES256", ec.generate_private_key(ec.SECP256R1())),
        ("HS256", json.dumps(provider.keys()["keys"][0])),
        ("HS256", SECRET * 3),
        ("none", None),
    ]
    for algorithm, key in secrets:
        provider.algorithm, provider.signed_with = algorithm, key
        with Visit(stack) as visit:
            _begin(visit, provider)
            assert _come_back(visit, provider).status_code == 403, algorithm
            assert visit.get("/files").status_code == 303


def test_answers_belong_to_the_browser_that_asked(stack: Stack, provider: Provider) -> None:
    with Visit(stack) as victim, Visit(stack) as eve:
        _begin(eve, provider)
        assert _come_back(victim, provider).status_code == 403, "a login that somebody else began"
        assert _come_back(eve, provider, state="x").status_code == 403
        _begin(eve, provider)
        provider.asked["redirect_uri"] = "https://evil.test/"
        assert _come_back(eve, provider).status_code == 403
        _begin(eve, provider)
        assert _come_back(eve, provider, code="wrong").status_code == 403
        _begin(eve, provider)
        assert eve.get("/login/oidc/callback?error=access_denied&state=" + provider.asked["state"]).status_code == 403
        assert eve.get("/files").status_code == 303


def test_logins_lead_nowhere_else(stack: Stack, provider: Provider) -> None:
    for target in ("https://evil.test/", "//evil.test", '/"><script>alert(1)</script>'):
        with Visit(stack) as visit:
            _begin(visit, provider, target)
            answer = _come_back(visit, provider)
            assert answer.status_code == 200
            assert "evil.test" not in answer.text
            assert "<script>alert" not in answer.text


def test_a_stack_whose_provider_admits_nobody_is_refused(stack: Stack) -> None:
    path = stack.folder / "stack.toml"
    text = path.read_text()
    lines = [line for line in text.splitlines() if not line.startswith(("emails =", "groups ="))]
    path.write_text("\n".join(lines))
    try:
        assert "names neither emails nor groups" in stack.entrepot("check", expect=3)
    finally:
        path.write_text(text)
