"""Where `import` reads from (a file, a URL, a stream), and what it does with the bytes on their way
in.
"""

import http.client
import os
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeGuard, cast
from urllib.parse import quote, urlsplit

from layerstore.digest import Hasher, Readable
from layerstore.errors import LayerstoreError, NotFound
from layerstore.transport.meter import MIN_RATE, Meter

_URL_SECONDS = 60
_PEEK = 6
_RECOMPRESSED = (b"BZh", b"\xfd7zXZ\x00")  # bzip2 and xz: no layer may be compressed so


def is_url(source: str | Readable) -> TypeGuard[str]:
    return isinstance(source, str) and source.startswith(("http://", "https://"))


@contextmanager
def open_tarball(source: str | Readable) -> Iterator[Readable]:
    """The bytes of a file, a URL or an open stream (not closed here); one clear error when they cannot be
    had.
    """
    if not isinstance(source, str):
        yield source
    elif is_url(source):
        with _open_url(source) as response, _hung_up(response):
            yield _Download(response, source)
    else:
        try:
            # Without a buffer: a thread that waits for a named pipe holds its lock, which closing wants.
            file = open(source, "rb", buffering=0)  # noqa: SIM115 - only the opening is to be explained
        except FileNotFoundError:
            raise NotFound(f"no such file: {source}") from None
        with file:
            yield file


class Peeked:
    """A stream whose first bytes can be looked at; digests all that is read and reports how much it was."""

    def __init__(self, stream: Readable, progress: Callable[[int], None] | None) -> None:
        self._stream = stream
        self._progress = progress
        self.hasher = Hasher()
        self._head = b""
        while len(self._head) < _PEEK and (data := stream.read(_PEEK - len(self._head))):
            self._head += data
        self.must_be_recompressed = self._head.startswith(_RECOMPRESSED)

    def read(self, size: int = -1, /) -> bytes:
        if self._head and size >= 0:
            data, self._head = self._head[:size], self._head[size:]
        else:
            data, self._head = self._head + self._stream.read(size), b""
        self.hasher.update(data)
        if self._progress is not None:
            self._progress(self.hasher.size)
        return data


class Tee:
    """Passes a stream on and hands every byte to `write` as well."""

    def __init__(self, stream: Readable, write: Callable[[bytes], object]) -> None:
        self._stream = stream
        self._write = write

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(size)
        self._write(data)
        return data


class Pieces:
    """An iterator of pieces as a stream."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._left = memoryview(b"")

    def read(self, size: int = -1, /) -> bytes:
        if size < 0:
            return bytes(self._left) + b"".join(self._pieces)
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._left = memoryview(piece)
        data, self._left = bytes(self._left[:size]), self._left[size:]
        return data


class _Download:
    """A response's body; a connection that ends too early, or drips, is an error."""

    def __init__(self, response: http.client.HTTPResponse, url: str) -> None:
        self._response, self._url, self._count = response, url, 0
        length = response.headers.get("Content-Length", "")
        self._expected = int(length) if length.isdigit() else None
        self._meter = Meter()

    def read(self, size: int = -1, /) -> bytes:
        began = time.monotonic()
        try:
            # No more than has come: reading on for the rest of it may take for ever.
            data = self._response.read() if size < 0 else self._response.read1(size)
        except (OSError, http.client.HTTPException) as error:
            raise LayerstoreError(f"cannot read {self._url}: {error}") from None
        if self._meter.is_too_slow(len(data), time.monotonic() - began):
            raise LayerstoreError(f"cannot read {self._url}: less than {MIN_RATE} bytes a second come")
        self._count += len(data)
        if not data and size != 0 and self._expected is not None and self._count < self._expected:
            raise LayerstoreError(f"{self._url} ended after {self._count} of {self._expected} bytes")
        return data


@contextmanager
def _hung_up(response: http.client.HTTPResponse) -> Iterator[None]:
    """The connection is shut down at the end, also while a thread waits for what it brings: closing waits for
    that thread.
    """
    if response.isclosed():  # there was nothing in it
        yield
        return
    with socket.socket(fileno=os.dup(response.fileno())) as connection:
        try:
            yield
        finally:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def _quoted(url: str) -> str:
    """A URL as people type it: what may not stand in a path or query is escaped, as Go's client does."""
    parts = urlsplit(url)
    path, query = (quote(part, safe="%/:?@!$&'()*+,;=~") for part in (parts.path, parts.query))
    return parts._replace(path=path, query=query).geturl()


def _open_url(url: str) -> http.client.HTTPResponse:
    try:
        request = urllib.request.Request(_quoted(url), headers={"User-Agent": "layerstore"})
        return cast(http.client.HTTPResponse, urllib.request.urlopen(request, timeout=_URL_SECONDS))
    except urllib.error.HTTPError as error:
        raise LayerstoreError(f"cannot get {url}: {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        reason = error.reason.strerror if isinstance(error.reason, OSError) else None
        raise LayerstoreError(f"cannot get {url}: {reason or error.reason}") from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise LayerstoreError(f"cannot get {url}: {error}") from None
