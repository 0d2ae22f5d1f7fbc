"""Minimum rates of connections: a byte now and then must not keep a request waiting for ever.

httpx only limits the wait for the next byte, so a byte a second, or interim responses (1xx) without end,
would keep a request waiting. Here data must have a minimum rate, averaged over the time spent waiting for it
(not over the time of its reader), and a response must begin within a time limit.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpcore
import httpx

from layerstore.transport.base import RegistryOptions
from layerstore.transport.meter import Meter

_HEAD = 1 << 20  # bytes of headers and interim responses; more is an attack
_awaited = threading.local()  # .seconds, .bytes: left for the response that this thread waits for


class TooSlow(httpcore.TimeoutException):
    """The connection is too slow. The message follows the URL."""


def bounded(client: httpx.Client, options: RegistryOptions) -> httpx.Client:
    """Apply the limits of `options` to every connection of a client."""
    for transport in {client._transport, *client._mounts.values()}:
        if isinstance(transport, httpx.HTTPTransport):
            bounded_transport(transport, options)
    return client


def bounded_transport(transport: httpx.HTTPTransport, options: RegistryOptions) -> httpx.HTTPTransport:
    """Do the same for one transport. httpx has no public access to its connections."""
    pool = transport._pool
    pool._network_backend = _Backend(pool._network_backend, options)
    return transport


@contextmanager
def awaiting_answer(options: RegistryOptions) -> Iterator[None]:
    """Within, limit the wait for a response to twice `timeout` after the last byte was sent."""
    _awaited.seconds, _awaited.bytes = 2 * options.timeout, _HEAD
    try:
        yield
    finally:
        del _awaited.seconds, _awaited.bytes


class _Backend(httpcore.NetworkBackend):
    def __init__(self, real: httpcore.NetworkBackend, options: RegistryOptions) -> None:
        self._real = real
        self._options = options

    def connect_tcp(self, *args: Any, **more: Any) -> httpcore.NetworkStream:
        return _Stream(self._real.connect_tcp(*args, **more), self._options)

    def sleep(self, seconds: float) -> None:
        self._real.sleep(seconds)


class _Stream(httpcore.NetworkStream):
    """A connection that fails with a timeout when it is too slow."""

    def __init__(self, real: httpcore.NetworkStream, options: RegistryOptions) -> None:
        self._real = real
        self._options = options
        self._reads = False  # since the last write
        self._sent_at = time.monotonic()
        self._meter = Meter(options.min_rate, options.rate_window)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        began = time.monotonic()
        data = self._real.read(max_bytes, timeout)
        now = time.monotonic()
        if hasattr(_awaited, "seconds"):
            _awaited.bytes -= len(data)
            if now - self._sent_at > _awaited.seconds or _awaited.bytes < 0:
                raise TooSlow("does not complete its response")
        if self._reads:
            self._count(len(data), now - began)
        else:
            # The time before a response begins is limited by the timeout.
            self._reads = True
            self._meter.restart()
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        began = time.monotonic()
        if self._reads:
            self._reads = False
            self._meter.restart()
        self._real.write(buffer, timeout)
        self._sent_at = time.monotonic()
        self._count(len(buffer), self._sent_at - began)

    def _count(self, size: int, seconds: float) -> None:
        if self._meter.is_too_slow(size, seconds):
            raise TooSlow(f"transfers less than {self._options.min_rate} bytes a second")

    def close(self) -> None:
        self._real.close()

    def start_tls(self, *args: Any, **more: Any) -> httpcore.NetworkStream:
        return _Stream(self._real.start_tls(*args, **more), self._options)

    def get_extra_info(self, info: str) -> Any:
        return self._real.get_extra_info(info)
