"""Login through an OpenID Connect provider: authorization code with PKCE, state and nonce.

Source: https://openid.net/specs/openid-connect-core-1_0.html, RFC 7636. Signatures are checked by PyJWT, with the keys that the
provider publishes; requests go through the outbound client, with its limits and denied networks.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote, urlencode

import jwt

from entrepot import clock
from entrepot.errors import EntrepotError
from entrepot.outbound import OutboundError, Request, Send

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures that are accepted: none without a signature, none with a shared secret."""

DISCOVERY_S = 3_600.0
"""What the provider says of itself, and its keys, are asked for again after this long."""

KEYS_AGAIN_S = 30.0
"""A token with an unknown key asks for the keys again, at most this often."""

LEEWAY_S = 60
"""How far the provider's clock may be off."""

TIMEOUT_S = 10.0
ANSWER_LIMIT_BYTES = 256 * 1024
CODE_LIMIT_CHARS = 4_096

NAME_LIMIT_CHARS = 200


class OidcError(EntrepotError):
    """A login through the provider came to nothing. The text is for the log; browsers are told less."""


@dataclass(frozen=True, slots=True)
class OidcSettings:
    """The provider, who we are there, and who may come in: by e-mail address (or @domain), or by group."""

    issuer: str
    client_id: str
    client_secret: str
    emails: Sequence[str] = ()
    groups: Sequence[str] = ()
    groups_claim: str = "groups"
    scopes: Sequence[str] = ("openid", "email", "profile")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One login under way, as the browser carries it to the provider and back."""

    state: str
    nonce: str
    verifier: str
    target: str

    def as_cookie(self) -> str:
        """Return the text of the cookie."""
        return ".".join((self.state, self.nonce, self.verifier, quote(self.target, safe="")))

    @classmethod
    def begin(cls, target: str) -> "Attempt":
        """Return an attempt that nobody can guess."""
        return cls(secrets.token_urlsafe(24), secrets.token_urlsafe(24), secrets.token_urlsafe(48), target)


class Oidc:
    """A provider, asked when somebody logs in."""

    def __init__(self, settings: OidcSettings, send: Send) -> None:
        self._settings = settings
        self._send = send
        self._configuration: Mapping[str, Any] = {}
        self._keys: Sequence[Mapping[str, Any]] = ()
        self._asked_at_s = self._keys_at_s = -DISCOVERY_S
        self._lock = asyncio.Lock()

    async def login_url(self, attempt: Attempt, redirect_uri: str) -> str:
        """Return where the browser goes to log in. Raises OidcError."""
        configuration = await self._discover()
        challenge = base64.urlsafe_b64encode(hashlib.sha256(attempt.verifier.encode()).digest()).rstrip(b"=").decode()
        query = {
            "response_type": "code",
            "client_id": self._settings.client_id,
            "redirect_uri": redirect_uri,
            "scope": " ".join(self._settings.scopes),
            "state": attempt.state,
            "nonce": attempt.nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        endpoint = str(configuration["authorization_endpoint"])
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}"

    async def finish(self, attempt: Attempt, code: str, redirect_uri: str) -> str:
        """Return the name of who logged in. Raises OidcError for whoever may not come in, and when anything does not fit."""
        token = await self._exchange(attempt, code, redirect_uri)
        claims = await self._verified(token)
        if not hmac.compare_digest(str(claims.get("nonce", "")).encode(), attempt.nonce.encode()):
            raise OidcError("The provider's token is not for this login: its nonce is another.")
        audience = claims["aud"]
        party = claims.get("azp")
        if (isinstance(audience, list) and len(audience) > 1 and party is None) or party not in (
            None,
            self._settings.client_id,
        ):
            raise OidcError("The provider's token was made for another party.")
        return self._admitted(claims)

    def _admitted(self, claims: Mapping[str, Any]) -> str:
        """Return the name of somebody who may come in; raise OidcError for anybody else."""
        settings = self._settings
        email = claims.get("email") if claims.get("email_verified") in (True, "true") else None
        groups = claims.get(settings.groups_claim)
        inside = isinstance(groups, list) and any(group in settings.groups for group in groups)
        if isinstance(email, str) and not inside:
            address = email.casefold()
            inside = any(
                address.endswith(one.casefold()) if one.startswith("@") else address == one.casefold()
                for one in settings.emails
            )
        name = email if isinstance(email, str) else str(claims["sub"])
        if not inside:
            raise OidcError(
                f"{name[:NAME_LIMIT_CHARS]!r} is neither among the e-mail addresses nor in the groups of [oidc]."
            )
        return name[:NAME_LIMIT_CHARS]

    # ── the provider ─────────────────────────────────────────────────────────────────────────────────────────────

    async def _discover(self) -> Mapping[str, Any]:
        async with self._lock:
            if self._configuration and clock.monotonic_s() - self._asked_at_s < DISCOVERY_S:
                return self._configuration
            issuer = self._settings.issuer
            found = await self._fetch(Request("GET", f"{issuer.rstrip('/')}/.well-known/openid-configuration"))
            if found.get("issuer") != issuer:
                raise OidcError(f"{issuer} says that it is {found.get('issuer')!r}; [oidc] issuer must be the same.")
            for key in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
                if not isinstance(found.get(key), str):
                    raise OidcError(f"The configuration of {issuer} has no {key}.")
            self._configuration, self._asked_at_s = found, clock.monotonic_s()
            self._keys = ()
            return found

    async def _exchange(self, attempt: Attempt, code: str, redirect_uri: str) -> str:
        """Return the id token for a code."""
        configuration, settings = await self._discover(), self._settings
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": attempt.verifier,
        }
        headers = [("content-type", "application/x-www-form-urlencoded"), ("accept", "application/json")]
        methods = configuration.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        if "client_secret_basic" in methods:
            pair = f"{quote(settings.client_id, safe='')}:{quote(settings.client_secret, safe='')}"
            headers.append(("authorization", "Basic " + base64.b64encode(pair.encode()).decode()))
        else:
            form |= {"client_id": settings.client_id, "client_secret": settings.client_secret}
        answer = await self._fetch(
            Request("POST", str(configuration["token_endpoint"]), headers, urlencode(form).encode())
        )
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise OidcError(f"The provider gave no id token; it said {str(answer.get('error'))[:200]!r}.")
        return token

    async def _verified(self, token: str) -> Mapping[str, Any]:
        """Return the claims of a token whose signature, issuer, audience and times are right."""
        try:
            header = jwt.get_unverified_header(token)
            algorithm = header.get("alg")
            if algorithm not in ALGORITHMS:
                raise OidcError(f"The provider signs with {algorithm!r}, which is not accepted.")
            key = await self._key(header.get("kid"), algorithm)
            claims: Mapping[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=self._settings.client_id,
                issuer=self._settings.issuer,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iat", "aud", "iss", "sub"]},
            )
        except jwt.PyJWTError as error:
            raise OidcError(f"The provider's token is not valid: {error}") from None
        return claims

    async def _key(self, key_id: object, algorithm: str) -> jwt.PyJWK:
        """Return the provider's key of this id, asked for again when it is not known."""
        for again in (False, True):
            for key in await self._published(again):
                if key.get("use", "sig") == "sig" and (key_id is None or key.get("kid") == key_id):
                    made = jwt.PyJWK(dict(key), algorithm=algorithm)
                    if made.key_type != "oct":
                        return made
        raise OidcError("The provider's token is signed with a key that it does not publish.")

    async def _published(self, again: bool) -> Sequence[Mapping[str, Any]]:
        configuration = await self._discover()
        async with self._lock:
            if not self._keys or (again and clock.monotonic_s() - self._keys_at_s > KEYS_AGAIN_S):
                found = (await self._fetch(Request("GET", str(configuration["jwks_uri"])))).get("keys")
                self._keys = [key for key in found if isinstance(key, dict)] if isinstance(found, list) else []
                self._keys_at_s = clock.monotonic_s()
            return self._keys

    async def _fetch(self, request: Request) -> Mapping[str, Any]:
        """Exchange a request; return the JSON object that answers it."""
        limited = Request(request.method, request.url, request.headers, request.body, TIMEOUT_S, ANSWER_LIMIT_BYTES)
        try:
            response = await self._send(limited)
            found = json.loads(response.body)
        except (OutboundError, ValueError, RecursionError) as error:
            raise OidcError(f"{request.url} gave no answer that can be read: {error}") from error
        if not isinstance(found, dict) or not (response.status == 200 or (response.status == 400 and "error" in found)):
            raise OidcError(f"{request.url} answered with status {response.status}.")
        return found


def carried(cookie: str) -> Attempt | None:
    """Return the attempt that a cookie carries; None when it is none."""
    parts = cookie.split(".")
    if len(cookie) > CODE_LIMIT_CHARS or len(parts) < 4 or not all(parts[:3]):
        return None
    return Attempt(parts[0], parts[1], parts[2], unquote(".".join(parts[3:])))
