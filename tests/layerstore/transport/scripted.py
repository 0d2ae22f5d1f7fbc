"""A registry of a few lines that does as a test says: hostile answers, and every way to upload."""

import itertools
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

from layerstore.digest import Digest
from tests.layerstore.transport.proxy import Seen, serving


@dataclass
class Answer:
    """A response."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


Reply = Answer | Callable[[Seen], Answer]


@dataclass
class Scripted:
    """`answers` by a pattern of ``METHOD PATH``; else a registry that keeps everything in memory.

    `patch` False knows no PATCH, `put` False no content in PUT; `limit` is the largest body it takes;
    `break_after` resets an upload after so many bytes of it, once for each entry, and keeps those.

    `claim` is what it says it has (a Range, None: nothing), of the bytes in all and those of the last chunk;
    `largest` and `least` the chunks it takes, else 416, `says_least` whether it says so; `accepted` the
    status of a PATCH that it took; `place` where an upload goes on, `moves` whether each answer says so;
    `forget_after` forgets an upload (404) that has so many bytes, once for each entry; `fails` answers a
    request, whose body is dropped; `mangles` puts chunks together in the wrong order.
    """

    answers: dict[str, Reply] = field(default_factory=dict)
    patch: bool = True
    put: bool = True
    limit: int = 1 << 40
    break_after: list[int] = field(default_factory=list)
    claim: Callable[[int, int], str | None] = lambda size, _: f"0-{max(0, size - 1)}"
    largest: int = 1 << 40
    least: int = 0
    says_least: bool = True
    accepted: int = 202
    place: str = "/v2/x/blobs/uploads/{name}?state=a%2Fb%3D"
    moves: bool = True
    forget_after: list[int] = field(default_factory=list)
    fails: Callable[[Seen], Answer | None] = lambda _: None
    mangles: bool = False
    chunks: dict[str, int] = field(default_factory=dict)  # the last one's size
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    uploads: dict[str, bytes] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    host: str = ""
    numbers: Iterator[int] = field(default_factory=itertools.count)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def requests(self, pattern: str) -> list[Seen]:
        return [one for one in self.seen if re.search(pattern, one.line)]


@contextmanager
def scripted(**how: object) -> Iterator[Scripted]:
    script = Scripted(**how)  # type: ignore[arg-type]
    with serving(lambda: type("Handler", (_Handler,), {"script": script})) as script.host:
        yield script


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    script: Scripted

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _serve(self) -> None:
        line = f"{self.command} {self.path}"
        seen = Seen(line, dict(self.headers))
        with self.script.lock:
            self.script.seen.append(seen)
        answer: Reply | None = next((a for p, a in self.script.answers.items() if re.search(p, line)), None)
        answer = answer or self.script.fails(seen)
        if answer is None:
            answer = self._registry(seen)
        else:
            seen.size = len(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
            if not isinstance(answer, Answer):
                answer = answer(seen)
        if answer is not None:
            seen.status = answer.status
            self._send(answer)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = _serve

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def _registry(self, seen: Seen) -> Answer | None:
        path = self.path.partition("?")[0]
        if path == "/v2/":
            return Answer()
        if match := re.search(r"/uploads/(\w*)$", path):
            return self._upload(match[1], seen)
        if match := re.search("/blobs/(.*)", path):
            blob = self.script.blobs.get(match[1])
            return Answer(404) if blob is None else Answer(200, blob)
        return self._manifest(path.rpartition("/")[2])

    def _manifest(self, word: str) -> Answer:
        if self.command == "PUT":
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            for name in (word, str(Digest.of(raw))):
                self.script.manifests[name] = self.headers["Content-Type"], raw
            return Answer(201)
        if word not in self.script.manifests:
            return Answer(404)
        kind, raw = self.script.manifests[word]
        return Answer(200, raw, {"Content-Type": kind})

    def _upload(self, name: str, seen: Seen) -> Answer | None:
        script = self.script
        if self.command == "POST":
            with script.lock:
                name = f"u{next(script.numbers)}"
                script.uploads[name] = b""
            return self._accepted(name, 202)
        if script.forget_after and len(script.uploads.get(name, b"")) >= script.forget_after[0]:
            script.forget_after.pop(0)
            del script.uploads[name]
        length = int(self.headers.get("Content-Length") or 0)
        if name not in script.uploads:
            self.rfile.read(length)
            return Answer(404)
        if self.command == "GET":
            return self._accepted(name, 204)
        if length > script.limit:
            self.close_connection = True
            return Answer(413)
        if self.command == "PATCH" and not script.patch:
            self.close_connection = True
            return Answer(405)
        start = int((self.headers.get("Content-Range") or str(len(script.uploads[name]))).partition("-")[0])
        short = self.command == "PATCH" and script.chunks.get(name, script.least) < script.least
        if (
            start != len(script.uploads[name])
            or (self.command == "PATCH" and length > script.largest)
            or short
        ):
            self.rfile.read(length)
            return self._accepted(name, 416)
        if not self._receive(name, length, seen):
            return None
        if self.command == "PATCH":
            return self._accepted(name, script.accepted)
        return self._finish(name, length)

    def _receive(self, name: str, length: int, seen: Seen) -> bool:
        cut = self.script.break_after.pop(0) if self.command == "PATCH" and self.script.break_after else None
        data = self.rfile.read(length if cut is None else min(cut, length))
        seen.size = len(data)
        had = self.script.uploads[name]
        self.script.uploads[name] = data + had if self.script.mangles else had + data
        self.script.chunks[name] = len(data)
        if cut is not None:
            self.close_connection = True
        return cut is None

    def _finish(self, name: str, length: int) -> Answer:
        if length and not self.script.put:
            del self.script.uploads[name]
            return Answer(400)
        digest = self.path.partition("digest=")[2].replace("%3A", ":")
        content = self.script.uploads.pop(name)
        if Digest.of(content) != digest:
            return Answer(400, b'{"errors":[{"code":"DIGEST_INVALID","message":"no"}]}')
        self.script.blobs[digest] = content
        return Answer(201)

    def _accepted(self, name: str, status: int) -> Answer:
        script = self.script
        says = status != 416 and (script.moves or self.command == "POST")
        headers = {"Location": script.place.format(name=name, host=script.host)} if says else {}
        claimed = script.claim(len(script.uploads[name]), script.chunks.get(name, 0))
        if claimed is not None:
            headers["Range"] = claimed
        if script.least and script.says_least:
            headers["OCI-Chunk-Min-Length"] = str(script.least)
        return Answer(status, headers=headers)
