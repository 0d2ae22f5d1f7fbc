"""All requests go through here: authorization, redirects, and which responses are worth another attempt.

`once` makes one attempt, `call` as many as the options allow. Authorization goes to the registry's own
origin only; a redirect from TLS to plain HTTP is refused.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx

from layerstore.transport import tls
from layerstore.transport.auth import Authorizer, Scopes
from layerstore.transport.base import RegistryOptions, Stop
from layerstore.transport.credentials import Credentials
from layerstore.transport.errors import RegistryError, Transient, explained, line, redacted, refusal
from layerstore.transport.hosts import api_host, is_loopback, without_port
from layerstore.transport.pace import awaiting_answer, bounded, bounded_transport
from layerstore.transport.reading import read_all, read_some
from layerstore.transport.retry import STATUSES, Retry, asked_wait, transient

_REDIRECTS = 5
_HEADERS = {"User-Agent": "layerstore", "Accept-Encoding": "identity"}

Body = Callable[[], Iterable[bytes]]  # called anew for each attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request that can be sent any number of times. `url` is absolute or a path of the API."""

    method: str
    url: str
    what: str  # for messages: "cannot get X"
    scopes: Scopes
    ok: frozenset[int]
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body | None = None


class Client:
    """A client of one registry. Use as a context manager; safe for several threads."""

    def __init__(
        self,
        base: httpx.URL,
        http: httpx.Client,
        authorizer: Authorizer,
        options: RegistryOptions,
        stop: Stop,
    ) -> None:
        self.options = options
        self.stop = stop
        self._base = base
        self._http = http
        self._authorizer = authorizer

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    @contextmanager
    def once(self, call: Call) -> Iterator[httpx.Response]:
        """Make one attempt; the caller reads the body, whose errors become `Transient`.

        Transient for what may work later, RegistryError for a status that is not in `call.ok`.
        """
        self.stop.check()
        url = self._base.join(call.url)
        with transient(url):
            response = self._authorized(call, url)
            try:
                self._judge(call, response)
                yield response
            finally:
                response.close()

    def ping(self, domain: str) -> bool:
        """Send a first request, for the authorization that the registry requires. False: it does not use this
        scheme.
        """
        call = Call(
            method="GET",
            url="/v2/",
            what=f"the registry {domain}",
            scopes=(),
            ok=frozenset({200, 400, 401, 403}),
        )
        url = self._base.join(call.url)
        with transient(url):
            response = self._redirected(call, url, None)
            self._judge(call, response)
            read_some(response)
            if response.status_code == 401 and _origin(response.url) == _origin(self._base):
                self._authorizer.learn(response)
        return response.status_code != 400

    def call(self, call: Call, limit: int = 0) -> tuple[httpx.Response, bytes]:
        """Return the response and up to `limit` bytes of its body, after as many attempts as allowed."""
        retry = Retry(call.what, self.options, self.stop)
        while True:
            try:
                with self.once(call) as response:
                    return response, read_all(response, limit, redacted(response.url)) if limit else b""
            except Transient as error:
                retry.pause(error)

    def _judge(self, call: Call, response: httpx.Response) -> None:
        status = response.status_code
        if status in call.ok:
            return
        body = b"" if call.method == "HEAD" else read_some(response)
        if status in STATUSES:
            _, said = explained(body)
            raise Transient(
                f"{status} {said or line(response.reason_phrase)}", status=status, after=asked_wait(response)
            )
        raise refusal(call.what, status, response.reason_phrase, body, hint=self._authorizer.hint)

    def _authorized(self, call: Call, url: httpx.URL) -> httpx.Response:
        """Send with the present authorization; when it is refused, once more with another."""
        used = self._authorizer.header(call.scopes)
        response = self._redirected(call, url, used)
        # The challenge of another host, reached by a redirect, is ignored: that host would get the
        # credentials.
        if response.status_code == 401 and _origin(response.url) == _origin(self._base):
            read_some(response)
            if self._authorizer.challenged(response, used, call.scopes):
                response = self._redirected(call, url, self._authorizer.header(call.scopes))
        return response

    def _redirected(self, call: Call, url: httpx.URL, authorization: str | None) -> httpx.Response:
        for _ in range(_REDIRECTS + 1):
            response = self._send(call, url, authorization)
            location = response.headers.get("location")
            if response.status_code not in {301, 302, 303, 307, 308} or not location:
                return response
            response.close()
            if call.method not in {"GET", "HEAD"}:
                raise RegistryError(f"{call.what}: {redacted(url)} redirects a {call.method} request")
            url = self.target(url, location)
        raise RegistryError(f"{call.what}: more than {_REDIRECTS} redirects")

    def target(self, base: httpx.URL | str, location: str) -> httpx.URL:
        """Return the target of a Location; RegistryError when it is less safe than its origin."""
        try:
            url = httpx.URL(base).join(location)
        except (httpx.InvalidURL, ValueError):
            raise RegistryError(f"{redacted(base)} redirects to an invalid URL") from None
        safe = url.scheme == "https" or (url.scheme == "http" and self._base.scheme == "http")
        if not safe or not url.host:
            raise RegistryError(f"{redacted(base)} redirects to a URL without TLS: {redacted(url)}")
        return url

    def _send(self, call: Call, url: httpx.URL, authorization: str | None) -> httpx.Response:
        headers = dict(call.headers)
        if authorization is not None and _origin(url) == _origin(self._base):
            headers["Authorization"] = authorization
        content = None if call.body is None else call.body()
        url = url.copy_with(userinfo=b"")  # httpx would send it as Basic authorization
        request = self._http.build_request(call.method, url, headers=headers, content=content)
        with awaiting_answer(self.options):
            return self._http.send(request, stream=True, follow_redirects=False)


def connect(
    domain: str, lookup: Callable[[], Credentials | None], options: RegistryOptions, stop: Stop
) -> Client:
    """Find out whether a registry speaks TLS or, where that is allowed, plain HTTP; the caller closes the
    client.
    """
    tls.check(options)
    host = api_host(domain)
    local = is_loopback(without_port(host))
    schemes = ["http", "https"] if local else ["https"] if options.tls_verify else ["https", "http"]
    retry = Retry(f"cannot reach the registry {domain}", options, stop)
    while True:
        failures: list[Transient] = []
        for scheme in schemes:
            http = _http_client(host, options, local=local)
            authorizer = Authorizer(domain, http, lookup, options, stop)
            client = Client(httpx.URL(f"{scheme}://{host}"), http, authorizer, options, stop)
            try:
                if client.ping(domain):
                    return client
            except Transient as error:
                failures.append(error)
            except BaseException:
                http.close()
                raise
            http.close()
        if all(failure.refused for failure in failures):
            raise RegistryError(f"cannot reach the registry {domain}: {failures[0]}")
        retry.pause(failures[0])


def _http_client(host: str, options: RegistryOptions, *, local: bool) -> httpx.Client:
    timeout = httpx.Timeout(options.timeout, connect=options.connect_timeout, pool=None)
    limits = httpx.Limits(max_connections=options.jobs + 2, max_keepalive_connections=options.jobs + 2)
    if local:
        # A proxy is never meant for this machine itself. This transport is for plain HTTP: it has no
        # certificates.
        plain = httpx.HTTPTransport(verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), limits=limits)
        secure = tls.LazyTransport(
            lambda: bounded_transport(
                httpx.HTTPTransport(verify=tls.context(host, options), limits=limits), options
            )
        )
        return httpx.Client(
            headers=_HEADERS,
            timeout=timeout,
            transport=bounded_transport(plain, options),
            mounts={"https://": secure},
            trust_env=False,
        )
    try:
        client = httpx.Client(
            headers=_HEADERS, timeout=timeout, limits=limits, verify=tls.context(host, options)
        )
        return bounded(client, options)
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        raise RegistryError(f"cannot use the proxy of the environment: {error}") from None


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port
