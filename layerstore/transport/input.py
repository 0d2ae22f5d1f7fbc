"""Read a tarball from a file, a URL or an open stream."""

import http.client
import os
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TypeGuard, cast
from urllib.parse import quote, urlsplit

from layerstore.digest import Readable
from layerstore.errors import LayerstoreError, NotFound
from layerstore.transport.meter import MIN_RATE, Meter

_URL_SECONDS = 60


def is_url(source: str | Readable) -> TypeGuard[str]:
    return isinstance(source, str) and source.startswith(("http://", "https://"))


@contextmanager
def open_input(source: str | Readable) -> Iterator[Readable]:
    """Yield the bytes of a file, a URL or an open stream; a stream stays the caller's.

    Raises NotFound for a file that does not exist and LayerstoreError for a URL that cannot be read.
    """
    if not isinstance(source, str):
        yield source
    elif is_url(source):
        with _open_url(source) as response, _hung_up(response):
            yield _Download(response, source)
    else:
        try:
            # Unbuffered: a thread that waits for a named pipe would hold the buffer's lock, and closing would
            # wait.
            file = open(source, "rb", buffering=0)  # noqa: SIM115 - only the opening is to be explained
        except FileNotFoundError:
            raise NotFound(f"no such file: {source}") from None
        with file:
            yield file


class _Download:
    """Reads a response's body. Raises LayerstoreError when the connection ends early or is too slow."""

    def __init__(self, response: http.client.HTTPResponse, url: str) -> None:
        self._response, self._url, self._count = response, url, 0
        length = response.headers.get("Content-Length", "")
        self._expected = int(length) if length.isdigit() else None
        self._meter = Meter()

    def read(self, size: int = -1, /) -> bytes:
        began = time.monotonic()
        try:
            # Only what has arrived: the rest may never come.
            data = self._response.read() if size < 0 else self._response.read1(size)
        except (OSError, http.client.HTTPException) as error:
            raise LayerstoreError(f"cannot read {self._url}: {error}") from None
        if self._meter.is_too_slow(len(data), time.monotonic() - began):
            raise LayerstoreError(
                f"cannot read {self._url}: the server sends less than {MIN_RATE} bytes a second"
            )
        self._count += len(data)
        if not data and size != 0 and self._expected is not None and self._count < self._expected:
            raise LayerstoreError(f"{self._url} ended after {self._count} of {self._expected} bytes")
        return data


@contextmanager
def _hung_up(response: http.client.HTTPResponse) -> Iterator[None]:
    """Shut down the connection at the end, even while a thread reads from it, for which closing would
    wait.
    """
    if response.isclosed():  # the body is empty
        yield
        return
    with socket.socket(fileno=os.dup(response.fileno())) as connection:
        try:
            yield
        finally:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def _quoted(url: str) -> str:
    """Escape characters that a path or a query must not contain, as Go's client does."""
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
