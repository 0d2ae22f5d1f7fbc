"""The only module that reads the environment: where the store is, the time of new images, limits."""

import os
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from layerstore.errors import LayerstoreError

SYSTEM_ROOT = Path("/var/lib/layerstore")


def default_root() -> Path:
    """Return ``$LAYERSTORE_ROOT``, ``/var/lib/layerstore`` for root, else the user's data directory."""
    if given := os.environ.get("LAYERSTORE_ROOT"):
        return Path(given)
    if os.geteuid() == 0:
        return SYSTEM_ROOT
    data = Path(os.environ.get("XDG_DATA_HOME", ""))
    if not data.is_absolute():  # which is to be ignored (XDG Base Directory Specification)
        data = _home() / ".local/share"
    return data / "layerstore"


def _home() -> Path:
    with suppress(RuntimeError):
        if (home := Path.home()).is_absolute():
            return home
    raise LayerstoreError("no home directory: set --root or $LAYERSTORE_ROOT to the path of the store")


def limits() -> str:
    """Return ``$LAYERSTORE_LIMITS``: limits for input, as ``NAME=N,...``."""
    return os.environ.get("LAYERSTORE_LIMITS", "")


def is_debugging() -> bool:
    """Return whether ``$LAYERSTORE_DEBUG`` is set: an internal error shows its traceback."""
    return bool(os.environ.get("LAYERSTORE_DEBUG"))


def source_date_epoch() -> int | None:
    """Return SOURCE_DATE_EPOCH as whole seconds (reproducible-builds.org), None when unset."""
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
    """Return the time of new images, in RFC 3339 with nanoseconds: SOURCE_DATE_EPOCH or now."""
    epoch = source_date_epoch()
    return format_time(time.time_ns() if epoch is None else epoch * 1_000_000_000)


def format_time(ns: int) -> str:
    """Format a time in RFC 3339 in UTC, without trailing zeros of the fraction, as Go does."""
    seconds, rest = divmod(ns, 1_000_000_000)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f".{rest:09d}".rstrip("0").rstrip(".")
    return f"{text}{fraction}Z"


def auth_files() -> list[Path]:
    """Return the files with credentials for registries; a login writes to the first.

    ``$REGISTRY_AUTH_FILE`` alone when it is set (podman's rule); else docker's file, then podman's.
    """
    if given := os.environ.get("REGISTRY_AUTH_FILE"):
        return [Path(given)]
    home = Path(os.environ.get("HOME") or "/")
    docker = Path(os.environ.get("DOCKER_CONFIG") or home / ".docker") / "config.json"
    config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    podman = [Path(runtime, "containers/auth.json")] if runtime else []
    return [docker, *podman, config / "containers/auth.json"]


def find_program(name: str) -> Path | None:
    """Find a program in the absolute directories of PATH: never one in the current directory."""
    for directory in os.environ.get("PATH", os.defpath).split(os.pathsep):
        path = Path(directory, name)
        if path.is_absolute() and path.is_file() and os.access(path, os.X_OK):
            return path
    return None
