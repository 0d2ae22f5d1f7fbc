"""What all transfers share: settings, progress reports, and how to stop them."""

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
    """Settings for connections to a registry. The defaults suit the internet.

    `tls_verify` False accepts any certificate, and plain HTTP where there is no TLS; otherwise plain HTTP is
    for this machine only. `cert_dir` replaces ``/etc/docker/certs.d/HOST`` and the like, `authfile` the files
    in which docker and podman store credentials.
    """

    tls_verify: bool = True
    cert_dir: Path | None = None
    authfile: Path | None = None
    jobs: int = 4  # blobs at the same time
    attempts: int = 6  # failures in a row without progress
    backoff: float = 0.5  # seconds before the second attempt; doubled each time
    max_wait: float = 60.0  # the longest Retry-After that is obeyed
    connect_timeout: float = 15.0
    timeout: float = 60.0  # without a single byte
    min_rate: int = meter.MIN_RATE  # bytes a second, on average of `rate_window` seconds of waiting
    rate_window: float = meter.WINDOW
    chunk_size: int = 0  # of an upload; 0: whole blobs, in chunks only after that failed


class Stop:
    """Once set, every transfer ends at its next byte, and every pause at once."""

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
    """A `BlobReport` that does nothing."""
