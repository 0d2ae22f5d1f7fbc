"""Registries that never stop answering: a byte now and then, interim answers without end, false lengths."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

import layerstore
from layerstore.digest import Digest
from layerstore.errors import LayerstoreError
from layerstore.store import partials
from layerstore.store.store import Store
from layerstore.transport import client, pace
from layerstore.transport.errors import RegistryError
from layerstore.transport.meter import Meter
from tests.layerstore.transport.samples import FAST, digests, image, leftovers
from tests.layerstore.transport.scripted import Scripted, scripted
from tests.layerstore.transport.test_hostile import LAYER, offer

QUICK = replace(FAST, timeout=0.6, rate_window=0.3, min_rate=1000, attempts=3, connect_timeout=1)
Odd = Callable[[socket.socket, bytes], bool]  # answers a request by hand; False: let the registry do it


@contextmanager
def before(registry: Scripted, odd: Odd) -> Iterator[str]:
    """A relay before a registry, that answers some requests itself."""
    server = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def relay(here: socket.socket) -> None:
        with here:
            while head := _head(here):
                if odd(here, head):
                    return
                host, _, port = registry.host.partition(":")
                with socket.create_connection((host, int(port))) as there:
                    there.sendall(head.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
                    first = there.recv(1 << 16)
                    here.sendall(first.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
                    while data := there.recv(1 << 16):
                        here.sendall(data)
                return

    def accept() -> None:
        while not ended.is_set():
            try:
                here, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=_quietly, args=(relay, here), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.getsockname()[1]}"
    finally:
        ended.set()
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(5)


def _quietly(run: Callable[[socket.socket], None], here: socket.socket) -> None:
    try:
        run(here)
    except OSError:
        pass  # the client has had enough


def _head(here: socket.socket) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n") and (data := here.recv(1)):
        head += data
    return head


def drip(here: socket.socket, data: bytes, pause: float = 0.02) -> None:
    for number in range(len(data)):
        here.sendall(data[number : number + 1])
        time.sleep(pause)


def endless(here: socket.socket, data: bytes, pause: float) -> None:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        here.sendall(data)
        time.sleep(pause)


OK = b"HTTP/1.1 200 OK\r\n"


def after(head: bytes, rest: Callable[[socket.socket], None]) -> Callable[[socket.socket], None]:
    def way(here: socket.socket) -> None:
        here.sendall(OK + head + b"\r\n")
        rest(here)

    return way


HEADS: dict[str, Callable[[socket.socket], None]] = {
    "the head drips": lambda s: drip(s, OK + b"X: " + b"y" * 5000),
    "interim answers, slowly": lambda s: endless(s, b"HTTP/1.1 102 Processing\r\n\r\n", 0.05),
    "interim answers, fast": lambda s: endless(s, b"HTTP/1.1 103 Hints\r\nLink: <x>\r\n\r\n" * 500, 0),
    "interim answers, in time": lambda s: endless(
        s, b"HTTP/1.1 103 H\r\nX: " + b"y" * 900 + b"\r\n\r\n", 0.1
    ),
    "nothing": lambda s: time.sleep(10),
}
BODIES = {
    "the body drips": after(b"Content-Length: 5000\r\n", lambda s: drip(s, LAYER)),
    "chunks drip": after(b"Transfer-Encoding: chunked\r\n", lambda s: endless(s, b"1\r\nx\r\n", 0.05)),
    "a body of no length drips": after(b"", lambda s: drip(s, LAYER)),
}
WAYS = [
    pytest.param(way, where, id=f"{name} {where.decode()}")
    for where, ways in ((b"/blobs/", HEADS | BODIES), (b"/manifests/", HEADS | BODIES), (b"/v2/ ", HEADS))
    for name, way in ways.items()
]


@pytest.mark.parametrize(("way", "where"), WAYS)
def test_too_slow(other: Store, way: Callable[[socket.socket], None], where: bytes) -> None:
    """One line, after as many attempts as anything else gets, and soon."""

    def odd(here: socket.socket, head: bytes) -> bool:
        if where in head:
            way(here)
        return where in head

    with scripted() as registry:
        offer(registry)
        with before(registry, odd) as host:
            started = time.monotonic()
            with pytest.raises(RegistryError, match=r"gave up after 3 attempts") as caught:
                layerstore.pull(f"{host}/app", root=other.root, options=QUICK)
            assert str(caught.value).isprintable()
            assert time.monotonic() - started < 15
    assert not layerstore.images(root=other.root)


def test_a_slow_push(store: Store) -> None:
    """The answer to an upload comes no faster."""

    def odd(here: socket.socket, head: bytes) -> bool:
        if head.startswith((b"POST", b"PUT", b"PATCH")):
            HEADS["interim answers, slowly"](here)
            return True
        return False

    with scripted() as registry:
        image(store, "app", [LAYER])
        with before(registry, odd) as host:
            with pytest.raises(RegistryError, match=r"bytes a second \(gave up after 3 attempts"):
                layerstore.push("app", f"{host}/app", root=store.root, options=QUICK)


def test_a_slow_token(other: Store) -> None:
    def odd(here: socket.socket, head: bytes) -> bool:
        HEADS["the head drips"](here)
        return True

    with scripted() as registry, before(registry, odd) as realm:
        with before(registry, _challenging(f'Bearer realm="http://{realm}/t"')) as host:
            with pytest.raises(
                RegistryError, match=r"cannot get a token .* bytes a second \(gave up after 3"
            ):
                layerstore.pull(f"{host}/app", root=other.root, options=QUICK)


def _challenging(challenge: str) -> Odd:
    def odd(here: socket.socket, head: bytes) -> bool:
        text = f"HTTP/1.1 401 No\r\nWWW-Authenticate: {challenge}\r\nContent-Length: 0\r\n\r\n"
        here.sendall(text.encode())
        return True

    return odd


def test_a_slow_tarball(other: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is imported or loaded from a URL is no different."""
    monkeypatch.setattr("layerstore.transport.input.Meter", lambda: Meter(1000, 0.3))

    def odd(here: socket.socket, head: bytes) -> bool:
        BODIES["the body drips"](here)
        return True

    with scripted() as registry, before(registry, odd) as host:
        for verb in (layerstore.import_, layerstore.load):
            started = time.monotonic()
            with pytest.raises(
                LayerstoreError, match=r"cannot read .*: the server sends less than 1000 bytes a s"
            ):
                verb(f"http://{host}/x.tar", root=other.root)
            assert time.monotonic() - started < 5
    assert digests(other.root) == set()


def test_taken_up_where_it_was(other: Store) -> None:
    """What has come of a blob is kept, and the rest asked for."""
    asked: list[bytes] = []

    def odd(here: socket.socket, head: bytes) -> bool:
        if str(Digest.of(LAYER)).encode() not in head:
            return False
        asked.append(head)
        if len(asked) == 1:
            here.sendall(OK + b"Content-Length: 5000\r\n\r\n" + LAYER[:3000])
            drip(here, LAYER[3000:])
        ranged = b"HTTP/1.1 206 Partial\r\nContent-Range: bytes %d-4999/5000\r\nContent-Length: %d\r\n\r\n"
        start = int(head.partition(b"bytes=")[2].partition(b"-")[0])
        here.sendall(ranged % (start, 5000 - start) + LAYER[start:])
        return True

    with scripted() as registry:
        offer(registry)
        with before(registry, odd) as host:
            layerstore.pull(f"{host}/app", root=other.root, options=QUICK)
    assert len(asked) == 2
    assert Digest.of(LAYER).hex in digests(other.root)
    assert not leftovers(other.root)
    assert not partials.directory(other).exists()


def test_slow_but_steady(other: Store) -> None:
    """A connection above the least rate is given all the time it needs."""

    def odd(here: socket.socket, head: bytes) -> bool:
        if str(Digest.of(LAYER)).encode() in head:
            here.sendall(OK + b"Content-Length: 5000\r\n\r\n")
            for start in range(0, 5000, 200):
                here.sendall(LAYER[start : start + 200])
                time.sleep(0.05)
            return True
        return False

    with scripted() as registry:
        offer(registry)
        with before(registry, odd) as host:
            layerstore.pull(f"{host}/app", root=other.root, options=replace(QUICK, attempts=1))


LENGTHS = {
    "longer than told": (b"Content-Length: 5000\r\n\r\n" + LAYER + b"more", None),
    "longer, without a length": (b"\r\n" + LAYER + b"more", "longer than the 5000 bytes"),
    "shorter than told": (b"Content-Length: 5000\r\n\r\n" + LAYER[:-7], "gave up"),
    "shorter, without a length": (b"\r\n" + LAYER[:-7], "gave up"),
    "a larger length": (b"Content-Length: 6000\r\n\r\n" + LAYER, None),
    "a smaller length": (b"Content-Length: 4000\r\n\r\n" + LAYER, "gave up"),
    "two lengths": (b"Content-Length: 5000\r\nContent-Length: 4000\r\n\r\n" + LAYER, "gave up"),
    "no number": (b"Content-Length: many\r\n\r\n" + LAYER, "gave up"),
    "chunks that lie": (b"Transfer-Encoding: chunked\r\n\r\nffff\r\n" + LAYER, None),
    "chunks without end": (b"Transfer-Encoding: chunked\r\n\r\n1388\r\n" + LAYER + b"\r\n", None),
}


@pytest.mark.parametrize(("answer", "words"), LENGTHS.values(), ids=LENGTHS)
def test_lengths(other: Store, answer: bytes, words: str | None) -> None:
    """Digest and size decide; whatever a header said, nothing false is kept."""

    def odd(here: socket.socket, head: bytes) -> bool:
        if str(Digest.of(LAYER)).encode() in head:
            here.sendall(OK + answer)
            return True
        return False

    with scripted() as registry:
        offer(registry)
        with before(registry, odd) as host:
            if words is None:
                layerstore.pull(f"{host}/app", root=other.root, options=QUICK)
            else:
                with pytest.raises(LayerstoreError, match=words):
                    layerstore.pull(f"{host}/app", root=other.root, options=QUICK)
    digests(other.root)


@pytest.mark.parametrize("proxy", [None, "http://127.0.0.1:1", "https://127.0.0.1:1"])
def test_every_connection_is_bounded(proxy: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """With TLS and through proxies too: what httpx connects by is ours."""
    if proxy is not None:
        monkeypatch.setenv("HTTPS_PROXY", proxy)
    with client._http_client("registry.example.org", QUICK, local=False) as http:
        used = [one for one in {http._transport, *http._mounts.values()} if one is not None]
        assert len(used) == (1 if proxy is None else 2)
        assert all(isinstance(one._pool._network_backend, pace._Backend) for one in used)  # type: ignore[attr-defined]
