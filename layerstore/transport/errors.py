"""Errors of registries, each as one line without secrets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerstore import model
from layerstore.errors import LayerstoreError, NotFound

if TYPE_CHECKING:
    import httpx

_SHOWN = 300


class RegistryError(LayerstoreError):
    """A registry cannot be reached, refuses something or breaks the protocol; `status` is HTTP's, else 0."""

    def __init__(self, message: str, *, status: int = 0, codes: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.codes = codes


class MissingRemote(RegistryError, NotFound):
    """The registry has no such repository, tag, manifest or blob."""


class LoginNeeded(RegistryError):
    """The registry requires credentials, or refuses those it received."""


class Stopped(LayerstoreError):
    """This transfer was stopped because another one failed or the user interrupted all."""

    def __init__(self) -> None:
        super().__init__("stopped")


class Transient(Exception):
    """A failure that may be temporary; it never leaves the package."""

    def __init__(
        self, reason: str, *, status: int = 0, after: float | None = None, refused: bool = False
    ) -> None:
        super().__init__(reason)
        self.refused = refused  # there was not even a connection
        self.status = status
        self.after = after  # seconds to wait, as requested by the registry


def redacted(url: httpx.URL | str) -> str:
    """Return a URL for messages: without user, password and query, which gives access in signed URLs."""
    import httpx  # importing it takes longer than most verbs run, and all of them import these errors

    url = httpx.URL(url)
    return f"{url.scheme}://{url.netloc.decode('ascii', 'replace')}{url.path}"


def line(text: str) -> str:
    """Return foreign text for a message: printable, on one line, not too long."""
    flat = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return flat if len(flat) <= _SHOWN else flat[: _SHOWN - 1] + "…"


def refusal(what: str, status: int, reason: str, body: bytes, *, hint: str = "") -> RegistryError:
    """Return the error for a response that is no success; `body` is the registry's text about it."""
    codes, said = explained(body)
    message = f"{what}: {status} {said or line(reason)}".rstrip()
    if status in {401, 403}:
        return LoginNeeded(message + hint, status=status, codes=codes)
    if status == 404:
        return MissingRemote(message, status=status, codes=codes)
    return RegistryError(message, status=status, codes=codes)


def explained(body: bytes) -> tuple[tuple[str, ...], str]:
    """Return codes and messages of the specification's error document; empty for another body."""
    try:
        entries = model.parse_document(body).get("errors")
    except LayerstoreError:
        return (), ""
    codes: list[str] = []
    words: list[str] = []
    for entry in entries[:5] if isinstance(entries, list) else ():
        if isinstance(entry, dict):
            code, message = str(entry.get("code", "")), str(entry.get("message", ""))
            codes.append(code)
            words.append(f"{code} ({message})" if code and message else code or message)
    return tuple(codes), line("; ".join(words))
