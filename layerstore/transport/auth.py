"""Authorization for one registry: answers its challenge, keeps a token for each scope until it expires.

A registry's token is sent to that registry only, and the user's credentials only to it or to the realm in its
challenge, which must be as safe as the registry itself (TLS, or this machine).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import httpx

from layerstore import model
from layerstore.errors import LayerstoreError
from layerstore.transport import challenge
from layerstore.transport.base import RegistryOptions, Stop
from layerstore.transport.challenge import Challenge
from layerstore.transport.credentials import Credentials
from layerstore.transport.errors import LoginNeeded, RegistryError, Transient, line, redacted, refusal
from layerstore.transport.hosts import is_loopback
from layerstore.transport.pace import awaiting_answer
from layerstore.transport.reading import read_all
from layerstore.transport.retry import STATUSES, Retry, asked_wait, transient

_DEFAULT_SECONDS = 60.0  # the lifetime of a token without one, by the specification
_MARGIN = 10.0
_ANSWER_LIMIT = 1 << 20
_CLIENT = "layerstore"

Scopes = tuple[str, ...]


class Authorizer:
    """Adds Authorization to requests. `lookup` finds the user's credentials when they are first needed."""

    def __init__(
        self,
        host: str,
        http: httpx.Client,
        lookup: Callable[[], Credentials | None],
        options: RegistryOptions,
        stop: Stop,
    ) -> None:
        self._host = host
        self._http = http
        self._lookup = lookup
        self._options = options
        self._stop = stop
        self._challenge: Challenge | None = None
        self._credentials: Credentials | None = None
        self._looked_up = False
        self._tokens: dict[Scopes, tuple[str, float]] = {}
        self._lock = threading.Lock()

    @property
    def credentials(self) -> Credentials | None:
        """The user's credentials, None for anonymous access."""
        if not self._looked_up:
            self._credentials, self._looked_up = self._lookup(), True
        return self._credentials

    @property
    def hint(self) -> str:
        """Return advice for a refusal without credentials; empty with them."""
        anonymous = self._looked_up and self._credentials is None
        return f" (layerstore login {self._host}?)" if anonymous else ""

    def learn(self, response: httpx.Response) -> None:
        """Store the challenge of a first response."""
        self._challenge = challenge.parse(response.headers.get_list("www-authenticate"))

    def header(self, scopes: Scopes) -> str | None:
        """Return the Authorization for a request with these scopes; None before a challenge."""
        with self._lock:
            return self._header(scopes)

    def challenged(self, response: httpx.Response, used: str | None, scopes: Scopes) -> bool:
        """After a 401 for `used`: whether there is another Authorization to try."""
        asked = challenge.parse(response.headers.get_list("www-authenticate"))
        with self._lock:
            if asked is None:
                return False
            if self._challenge is not None and self._header(scopes) != used:
                return True  # another thread has done this already
            self._challenge = asked
            self._tokens.pop(scopes, None)
            if asked.scheme == "basic" and self.credentials is None:
                raise LoginNeeded(
                    f"{self._host} requires a login: run layerstore login {self._host}", status=401
                )
            return self._header(scopes) != used

    def _header(self, scopes: Scopes) -> str | None:
        if self._challenge is None:
            return None
        credentials = self.credentials
        if self._challenge.scheme == "basic":
            return None if credentials is None else credentials.basic
        if credentials is not None and credentials.registry_token:
            if not _fits_a_header(credentials.registry_token):
                raise LoginNeeded(f"the stored token for {self._host} is invalid", status=401)
            return f"Bearer {credentials.registry_token}"
        token, until = self._tokens.get(scopes, ("", 0.0))
        if time.monotonic() >= until:
            token, seconds = self._fetch(self._challenge, scopes)
            self._tokens[scopes] = token, time.monotonic() + max(seconds - _MARGIN, seconds / 2)
        return f"Bearer {token}"

    def _fetch(self, asked: Challenge, scopes: Scopes) -> tuple[str, float]:
        """Return a token for these scopes from the realm, and its lifetime in seconds."""
        realm = self._realm(asked)
        retry = Retry(f"cannot get a token from {redacted(realm)}", self._options, self._stop)
        wanted = scopes or tuple(filter(None, [asked.parameters.get("scope", "")]))
        request = self._request(realm, asked.parameters.get("service", ""), wanted)
        while True:
            try:
                document = self._ask(request)
                break
            except Transient as error:
                retry.pause(error)
        token = document.get("token") or document.get("access_token")
        if not isinstance(token, str) or not _fits_a_header(token):
            raise RegistryError(f"{redacted(realm)} returned no token")
        seconds = document.get("expires_in")
        valid = isinstance(seconds, int | float) and not isinstance(seconds, bool) and seconds > 0
        return token, float(seconds) if valid and seconds is not None else _DEFAULT_SECONDS

    def _realm(self, asked: Challenge) -> httpx.URL:
        text = asked.parameters.get("realm", "")
        try:
            realm = httpx.URL(text)
        except (httpx.InvalidURL, ValueError):
            realm = httpx.URL("")
        if realm.scheme not in {"http", "https"} or not realm.host or realm.userinfo:
            raise RegistryError(f"{self._host} names an invalid token server: {line(text)}")
        if realm.scheme == "http" and not is_loopback(realm.host) and self._options.tls_verify:
            raise RegistryError(f"{self._host} names a token server without TLS: {redacted(realm)}")
        return realm

    def _request(self, realm: httpx.URL, service: str, scopes: Scopes) -> httpx.Request:
        credentials = self.credentials
        named = [("service", service)] if service else []
        if credentials is not None and credentials.identity_token:
            form = {
                "grant_type": "refresh_token",
                "client_id": _CLIENT,
                "service": service,
                "scope": " ".join(scopes),
                "refresh_token": credentials.identity_token,
            }
            return self._http.build_request("POST", realm, data=form)
        query: list[tuple[str, str | int | float | bool | None]] = [
            *realm.params.multi_items(),
            *named,
            *(("scope", scope) for scope in scopes),
        ]
        headers = {}
        if credentials is not None:
            headers["Authorization"] = credentials.basic
            query.append(("account", credentials.username))
        return self._http.build_request("GET", realm, params=query, headers=headers)

    def _ask(self, request: httpx.Request) -> dict[str, Any]:
        with transient(request.url):
            # A redirect is not followed: the credentials are for this realm.
            with awaiting_answer(self._options):
                response = self._http.send(request, stream=True, follow_redirects=False)
            body = read_all(response, _ANSWER_LIMIT, f"the answer of {redacted(request.url)}")
        if response.status_code in STATUSES:
            raise Transient(f"{response.status_code} {response.reason_phrase}", after=asked_wait(response))
        if response.status_code == 401 and self.credentials is not None:
            raise LoginNeeded(f"{self._host} refused the user name or the password", status=401)
        if response.status_code != 200:
            what = f"no access to {self._host}"
            raise refusal(what, response.status_code, response.reason_phrase, body)
        try:
            return model.parse_document(body)
        except LayerstoreError:
            raise RegistryError(f"{redacted(request.url)} returned no token") from None


def _fits_a_header(token: str) -> bool:
    return token.isascii() and token.isprintable() and token != ""
