"""A small token server as docker-registry wants it: signed tokens for whoever knows the password."""

import base64
import json
import os
import secrets
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.layerstore.transport.servers import PASSWORD, USER

ISSUER, SERVICE = "token server of the tests", "registry of the tests"


@dataclass
class TokenServer:
    """What it was asked, and how long its tokens last."""

    url: str
    certificate: Path
    seconds: int = 300
    public: bool = False  # anonymous users may pull
    asked: list[dict[str, list[str]]] = field(default_factory=list)

    @property
    def auth(self) -> str:
        """The registry's auth section."""
        return (
            f"auth: {{token: {{realm: '{self.url}', service: '{SERVICE}', issuer: '{ISSUER}', "
            f"rootcertbundle: '{self.certificate}'}}}}\n"
        )


@contextmanager
def token_server(where: Path) -> Iterator[TokenServer]:
    key, certificate = where / "key.pem", where / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=tests",
         "-keyout", key, "-out", certificate],
        check=True, capture_output=True, timeout=30,
    )  # fmt: skip
    handler = type("Tokens", (_Tokens,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    state = TokenServer(f"http://127.0.0.1:{server.server_port}/token", certificate)
    handler.state, handler.key = state, key  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Tokens(BaseHTTPRequestHandler):
    state: TokenServer
    key: Path

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer(parse_qs(urlsplit(self.path).query), self._user())

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        known = form.get("refresh_token") == ["identity of ann"]
        self._answer({**form, "scope": form.get("scope", [""])[0].split()}, USER if known else None)

    def _user(self) -> str | None:
        given = self.headers.get("Authorization", "")
        expected = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        return USER if given == f"Basic {expected}" else "wrong" if given else ""

    def _answer(self, asked: dict[str, list[str]], user: str | None) -> None:
        self.state.asked.append(asked)
        if user not in {USER, ""} or (user == "" and not self.state.public):
            self.send_error(401)
            return
        access = []
        for scope in asked.get("scope", []):
            kind, name, actions = scope.split(":")
            granted = actions.split(",") if user else ["pull"]
            access.append({"type": kind, "name": name, "actions": granted})
        body = json.dumps({"token": self._token(access), "expires_in": self.state.seconds}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _token(self, access: list[dict[str, Any]]) -> str:
        pem = self.state.certificate.read_text()
        der = "".join(line for line in pem.splitlines() if "-----" not in line)
        now = int(time.time())
        head = {"typ": "JWT", "alg": "RS256", "x5c": [der]}
        claims = {"iss": ISSUER, "sub": USER, "aud": SERVICE, "iat": now, "nbf": now - 60,
                  "exp": now + self.state.seconds, "jti": secrets.token_hex(8), "access": access}  # fmt: skip
        signed = b".".join(_base64(json.dumps(part).encode()) for part in (head, claims))
        signature = subprocess.run(
            ["openssl", "dgst", "-sha256", "-sign", os.fspath(self.key)],
            input=signed, capture_output=True, check=True, timeout=10,
        ).stdout  # fmt: skip
        return (signed + b"." + _base64(signature)).decode()


def _base64(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")
