"""Read the body of a response, never more than expected, and check where in a blob it begins."""

from __future__ import annotations

import re
import time

import httpx

from layerstore.errors import LimitExceeded

_SECONDS = 120.0  # for a document; a registry that takes longer does so on purpose
_RANGE = re.compile(r"bytes (\d{1,19})-")


def is_range_from(response: httpx.Response, start: int) -> bool:
    """Whether the response is a part of the blob (206) that begins there."""
    match = _RANGE.match(response.headers.get("content-range", ""))
    return response.status_code == 206 and match is not None and int(match[1]) == start


def read_all(response: httpx.Response, limit: int, what: str) -> bytes:
    """Return the whole body as transferred; close the response. LimitExceeded when it is longer."""
    try:
        data = bytearray()
        until = time.monotonic() + _SECONDS
        for piece in response.iter_raw():
            data += piece
            if len(data) > limit:
                raise LimitExceeded(f"{what} is larger than {limit} bytes")
            if time.monotonic() > until:
                raise httpx.ReadTimeout(f"{what} arrives too slowly")
        return bytes(data)
    finally:
        response.close()


def read_some(response: httpx.Response, limit: int = 64 << 10) -> bytes:
    """Return the beginning of a body, for a message; close the response and ignore errors."""
    try:
        data = bytearray()
        for piece in response.iter_raw():
            data += piece
            if len(data) >= limit:
                break
        return bytes(data[:limit])
    except (httpx.TransportError, httpx.StreamError):
        return b""
    finally:
        response.close()
