"""A proxy before a registry that fails as it is told: so many times, at the requests that match."""

import http.client
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_PIECE = 16 << 10


@dataclass
class Fault:
    """What goes wrong with requests whose ``METHOD PATH`` matches: `times` of them, after `skip` good ones.

    `status` answers so without asking the registry; `reset` breaks the connection before anything is said,
    `take` after so many bytes of the request's body, `cut` after so many bytes of the answer's; `short`
    claims the answer ends there; `damage` changes a byte; `no_range` hides a Range header from the registry;
    `pause` waits so many seconds before each piece of the answer; `replace` is the body instead.
    """

    where: str
    times: int = 1
    skip: int = 0
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    reset: bool = False
    take: int | None = None
    cut: int | None = None
    short: int | None = None
    damage: bool = False
    no_range: bool = False
    pause: float = 0.0
    replace: bytes | None = None


@dataclass
class Seen:
    """A request that came in."""

    line: str
    headers: Mapping[str, str]
    size: int = 0  # of its body, as far as it was read
    status: int = 0


class Proxy:
    """`host` is where it listens; `seen` what came; `faults` what goes wrong."""

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.host = ""
        self.faults: list[Fault] = []
        self.seen: list[Seen] = []
        self._lock = threading.Lock()

    def fault_for(self, line: str) -> Fault | None:
        with self._lock:
            for fault in self.faults:
                if fault.times > 0 and re.search(fault.where, line):
                    if fault.skip > 0:
                        fault.skip -= 1
                        return None
                    fault.times -= 1
                    return fault
        return None

    def requests(self, pattern: str) -> list[Seen]:
        return [one for one in self.seen if re.search(pattern, one.line)]


@contextmanager
def serving(make: Callable[[], type[BaseHTTPRequestHandler]]) -> Iterator[str]:
    """A server of that handler; its ``127.0.0.1:PORT``."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), make())
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def faulty_proxy(upstream: str, *faults: Fault) -> Iterator[Proxy]:
    proxy = Proxy(upstream)
    proxy.faults += faults
    with serving(lambda: type("Handler", (_Handler,), {"proxy": proxy})) as host:
        proxy.host = host
        yield proxy


class Broken(Exception):
    """The connection is to be reset now."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Proxy

    def log_message(self, format: str, *args: object) -> None:
        pass

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (Broken, ConnectionError):
            self.close_connection = True
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()  # a reset, as nothing lingers
            self.wfile = _Nothing()  # type: ignore[assignment]

    def _serve(self) -> None:
        line = f"{self.command} {self.path}"
        seen = Seen(line, dict(self.headers))
        self.proxy.seen.append(seen)
        fault = self.proxy.fault_for(line)
        if fault is not None and fault.reset:
            raise Broken
        body = self._body(seen, fault)
        if fault is not None and fault.status:
            seen.status = fault.status
            self._plain(fault)
            return
        self._forward(body, fault, seen)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

    def _body(self, seen: Seen, fault: Fault | None) -> bytes:
        total = int(self.headers.get("Content-Length") or 0)
        wanted = total if fault is None or fault.take is None else min(total, fault.take)
        body = self.rfile.read(wanted)
        seen.size = len(body)
        if fault is not None and fault.take is not None:
            raise Broken
        return body

    def _plain(self, fault: Fault) -> None:
        self.send_response(fault.status)
        body = fault.replace or b""
        for name, value in {"Content-Length": str(len(body)), **fault.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _forward(self, body: bytes, fault: Fault | None, seen: Seen) -> None:
        headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
        if fault is not None and fault.no_range:
            headers.pop("Range", None)
        connection = http.client.HTTPConnection(self.proxy.upstream, timeout=20)
        try:
            connection.request(self.command, self.path, body or None, headers)
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        seen.status = response.status
        fault = fault or Fault("")
        content = content if fault.replace is None else fault.replace
        if fault.damage:
            content = content[:-1] + bytes([content[-1] ^ 1])
        length = len(content) if fault.short is None else fault.short
        self.send_response(response.status)
        for name, value in response.getheaders():
            if name.lower() not in {"content-length", "transfer-encoding", "date", "server", "connection"}:
                self.send_header(name, value)
        real = response.getheader("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", real or str(length))
        self.end_headers()
        self._send(content[:length], fault)

    def _send(self, content: bytes, fault: Fault) -> None:
        if self.command == "HEAD":
            return
        end = len(content) if fault.cut is None else fault.cut
        for start in range(0, min(end, len(content)), _PIECE):
            if fault.pause:
                time.sleep(fault.pause)
            self.wfile.write(content[start : min(start + _PIECE, end)])
        if fault.cut is not None:
            self.wfile.flush()
            time.sleep(0.05)  # a reset overtakes what is still on its way
            raise Broken


class _Nothing:
    """The file of a connection that is gone."""

    closed = False

    def write(self, data: bytes) -> int:
        return len(data)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass
