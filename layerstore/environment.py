"""The only place that reads the environment: where the store is, and the time images are given."""

import os
import time
from datetime import UTC, datetime
from pathlib import Path

from layerstore.errors import LayerstoreError

SYSTEM_ROOT = Path("/var/lib/layerstore")


def default_root() -> Path:
    """``$LAYERSTORE_ROOT``, ``/var/lib/layerstore`` for root, else the user's data directory."""
    if given := os.environ.get("LAYERSTORE_ROOT"):
        return Path(given)
    if os.geteuid() == 0:
        return SYSTEM_ROOT
    if data := os.environ.get("XDG_DATA_HOME"):
        return Path(data, "layerstore")
    return Path.home() / ".local/share/layerstore"


def is_debugging() -> bool:
    """``$LAYERSTORE_DEBUG``: an internal error shows its traceback."""
    return bool(os.environ.get("LAYERSTORE_DEBUG"))


def source_date_epoch() -> int | None:
    """SOURCE_DATE_EPOCH as whole seconds (reproducible-builds.org), None when unset."""
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return None
    try:
        seconds = int(text)
        datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        raise LayerstoreError(f"SOURCE_DATE_EPOCH is not a number of seconds: {text!r}") from None
    return seconds


def creation_time() -> str:
    """The time new images carry, in RFC 3339 with nanoseconds: SOURCE_DATE_EPOCH or now."""
    epoch = source_date_epoch()
    return format_time(time.time_ns() if epoch is None else epoch * 1_000_000_000)


def format_time(ns: int) -> str:
    """RFC 3339 in UTC, trailing zeros of the fraction left out as Go writes it."""
    seconds, rest = divmod(ns, 1_000_000_000)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f".{rest:09d}".rstrip("0").rstrip(".")
    return f"{text}{fraction}Z"
