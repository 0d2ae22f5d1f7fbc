"""The user's credentials for registries: the files of docker and podman, and docker's credential helpers.

Each file is searched from the most specific key to the host alone (podman's keys may name a repository).
Secrets are in no `repr`.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from layerstore import model
from layerstore.errors import LayerstoreError
from layerstore.store import durable, locking
from layerstore.transport import credhelper

DOCKER_HUB_KEY = "https://index.docker.io/v1/"
_HUB_HOSTS = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
_LIMIT = 4 << 20

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Credentials:
    """A name and a password, or a token instead."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)

    @property
    def basic(self) -> str:
        """Return the value of a Basic Authorization header."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


def key_of(host: str) -> str:
    """Return the key of a host in docker's file and for helpers."""
    return DOCKER_HUB_KEY if host in _HUB_HOSTS else host


def find(host: str, repository: str, files: Sequence[Path]) -> Credentials | None:
    """Return the first credentials for this repository, None without any. LayerstoreError for a broken
    file.
    """
    for path in files:
        document = read(path)
        found = _from_helper(document, host) or _from_file(document, host, repository)
        if found is not None:
            return found
    return None


def store(host: str, credentials: Credentials, path: Path) -> str | None:
    """Store credentials in `path` or in the helper it names; return the helper's name, None for the file."""
    with _changing(path) as document:
        helper = _helper_for(document, host)
        if helper is not None:
            credhelper.store(helper, key_of(host), credentials.username, credentials.password)
            entry: Document = {}
        else:
            entry = {"auth": credentials.basic.removeprefix("Basic ")}
        auths = _section(document, "auths", path)
        _drop(auths, host)
        auths[key_of(host)] = entry
        write(path, document)
    return helper


def forget(host: str, path: Path) -> bool:
    """Remove the credentials of a host from `path` and the helper it names; return whether there were any."""
    if not path.exists():
        return False
    with _changing(path) as document:
        known = _drop(_section(document, "auths", path), host)
        helper = _helper_for(document, host)
        if helper is not None:
            known = credhelper.get(helper, key_of(host)) is not None or known
            credhelper.erase(helper, key_of(host))
        if known:
            write(path, document)
    return known


def read(path: Path) -> Document:
    """Read a file of credentials; empty when it is missing."""
    try:
        raw = durable.read_capped(Path(os.path.realpath(path)), _LIMIT)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    if not raw.strip():
        return {}
    try:
        return model.parse_document(raw)
    except LayerstoreError:
        raise LayerstoreError(f"{path} is not a JSON object") from None


def write(path: Path, document: Document) -> None:
    """Replace a file of credentials in one step, readable to its owner only. Under the lock of
    `_changing`.
    """
    raw = json.dumps(document, indent="\t", ensure_ascii=False).encode() + b"\n"
    durable.replace_file(Path(os.path.realpath(path)), raw, mode=0o600)


class _changing:
    """Read a file of credentials while no other login or logout changes it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        real = Path(os.path.realpath(path))
        real.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = locking.locked(real.parent)

    def __enter__(self) -> Document:
        self._lock.__enter__()
        try:
            return read(self._path)
        except BaseException:
            self._lock.__exit__(None, None, None)
            raise

    def __exit__(self, *_: object) -> None:
        self._lock.__exit__(None, None, None)


def _section(document: Document, name: str, path: Path) -> Document:
    section = document.get(name)
    if section is None:  # absent, or null, as Go writes an empty one
        section = document[name] = {}
    if not isinstance(section, dict):
        raise LayerstoreError(f"{path}: {name!r} is not an object")
    return section


def _drop(auths: Document, host: str) -> bool:
    """Remove a host under all forms of its key."""
    keys = [key for key in auths if _plain(key) in {_plain(key_of(host)), host}]
    for key in keys:
        del auths[key]
    return bool(keys)


def _helper_for(document: Document, host: str) -> str | None:
    special = document.get("credHelpers")
    if isinstance(special, dict):
        for key in (host, key_of(host), _plain(key_of(host))):
            if isinstance(special.get(key), str):
                return special[key] or None
    general = document.get("credsStore")
    return general if isinstance(general, str) and general else None


def _from_helper(document: Document, host: str) -> Credentials | None:
    helper = _helper_for(document, host)
    answer = None if helper is None else credhelper.get(helper, key_of(host))
    if answer is None:
        return None
    username, secret = answer
    if username == "<token>":
        return Credentials(identity_token=secret)
    return Credentials(username, secret)


def _from_file(document: Document, host: str, repository: str) -> Credentials | None:
    auths = document.get("auths")
    if not isinstance(auths, dict):
        return None
    by_name = {key: entry for key, entry in auths.items() if isinstance(entry, dict)}
    for key in _keys(host, repository):
        for form in (key, *(k for k in by_name if _plain(k) == key)):
            if form in by_name and (found := _credentials(by_name[form])) is not None:
                return found
    return None


def _keys(host: str, repository: str) -> Iterator[str]:
    """``host/a/b``, ``host/a``, ``host``."""
    parts = repository.split("/")
    for count in range(len(parts), 0, -1):
        yield "/".join([host, *parts[:count]])
    yield host
    if host in _HUB_HOSTS:
        yield from ("index.docker.io", "docker.io")


def _plain(key: str) -> str:
    """Return a key without the scheme and the API's path, which older dockers wrote."""
    bare = key.removeprefix("https://").removeprefix("http://").rstrip("/")
    return bare.removesuffix("/v1").removesuffix("/v2")


def _credentials(entry: Document) -> Credentials | None:
    username, password = str(entry.get("username") or ""), str(entry.get("password") or "")
    if isinstance(auth := entry.get("auth"), str) and auth:
        with suppress(binascii.Error, ValueError):
            name, _, secret = base64.b64decode(auth).decode().partition(":")
            username, password = name or username, secret.rstrip("\0") or password
    identity, registry = str(entry.get("identitytoken") or ""), str(entry.get("registrytoken") or "")
    if username == "<token>":
        identity, username, password = identity or password, "", ""
    found = Credentials(username, password, identity, registry)
    return found if username or identity or registry else None
