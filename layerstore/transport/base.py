"""What every transfer shares: its settings, how it tells its progress, and how it is stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from layerstore.digest import Digest
from layerstore.transport import meter
from layerstore.transport.errors import Stopped

BlobState = Literal["waiting", "moving", "retrying", "present", "mounted", "done"]
BlobReport = Callable[
    [Digest, BlobState, int, int], None
]  # which blob, what happens to it, bytes done, bytes in all


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryOptions:
    """How a registry is spoken to. The defaults suit the internet.

    `tls_verify` False accepts any certificate and, where there is no TLS at all, plain HTTP; plain HTTP is
    otherwise spoken to this machine alone. `cert_dir` stands in for ``/etc/docker/certs.d/HOST`` and its
    like, `authfile` for the files docker and podman keep credentials in.
    """

    tls_verify: bool = True
    cert_dir: Path | None = None
    authfile: Path | None = None
    jobs: int = 4  # blobs under way at once
    attempts: int = 6  # in a row without progress
    backoff: float = 0.5  # seconds before the second attempt; doubled each time
    max_wait: float = 60.0  # the longest pause a registry's Retry-After is obeyed for
    connect_timeout: float = 15.0
    timeout: float = 60.0  # without a single byte
    min_rate: int = meter.MIN_RATE  # bytes a second, on average of `rate_window` seconds of waiting
    rate_window: float = meter.WINDOW
    chunk_size: int = 0  # of an upload; 0: whole blobs, in chunks only after that failed


class Stop:
    """Set once: every transfer ends at its next byte, every pause at once."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        self._event.set()

    def check(self) -> None:
        if self._event.is_set():
            raise Stopped

    def sleep(self, seconds: float) -> None:
        if self._event.wait(seconds):
            raise Stopped


def ignore(digest: Digest, state: BlobState, done: int, total: int) -> None:
    """A `BlobReport` for when nobody looks."""
