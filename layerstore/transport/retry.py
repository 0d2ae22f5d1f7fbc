"""When to try again: exponential back-off, and the registry's Retry-After."""

from __future__ import annotations

import email.utils
import random
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from layerstore.transport.base import RegistryOptions, Stop
from layerstore.transport.errors import RegistryError, Transient, line, redacted
from layerstore.transport.pace import TooSlow

STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
PROGRESS = 64 << 10  # bytes after which a failed attempt counts as progress
_LONGEST = 15.0


class Retry:
    """Counts failures in a row and pauses between attempts."""

    def __init__(self, what: str, options: RegistryOptions, stop: Stop) -> None:
        self.failures = 0
        self._what = what
        self._options = options
        self._stop = stop

    def progressed(self) -> None:
        """The last attempt failed after some progress: count anew."""
        self.failures = 0

    def pause(self, error: Transient) -> None:
        """Wait before the next attempt; RegistryError after too many."""
        self.failures += 1
        if self.failures >= self._options.attempts:
            raise RegistryError(
                f"{self._what}: {error} (gave up after {self.failures} attempts)", status=error.status
            ) from None
        wait = min(_LONGEST, self._options.backoff * 2 ** (self.failures - 1)) * random.uniform(0.75, 1.25)
        if error.after is not None:
            if error.after > self._options.max_wait:
                raise RegistryError(
                    f"{self._what}: {error}; the registry requests a pause of {error.after:.0f} seconds",
                    status=error.status,
                ) from None
            wait = max(wait, error.after)
        self._stop.sleep(wait)


def asked_wait(response: httpx.Response) -> float | None:
    """Return the Retry-After, given in seconds or as a date; None when missing or invalid."""
    text = response.headers.get("retry-after", "").strip()
    if text.isdigit():
        return float(text[:9])
    try:
        when = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, when.timestamp() - time.time())


@contextmanager
def transient(request_to: httpx.URL) -> Iterator[None]:
    """Turn an error of the connection (reset, timeout, an answer cut short) into a `Transient`."""
    try:
        yield
    except httpx.TimeoutException as error:
        cause = error.__cause__
        said = str(cause) if isinstance(cause, TooSlow) else "does not respond in time"
        raise Transient(f"{redacted(request_to)} {said}") from None
    except (httpx.TransportError, httpx.StreamError) as error:
        said = re.sub(r"\[Errno -?\d+\] ", "", line(str(error)))
        raise Transient(
            f"{redacted(request_to)}: {said or type(error).__name__}",
            refused=isinstance(error, httpx.ConnectError),
        ) from None
