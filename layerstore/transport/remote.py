"""From a reference to the repository it names, with the user's credentials at hand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from layerstore import environment
from layerstore.callbacks import Note
from layerstore.errors import LayerstoreError
from layerstore.reference import Reference
from layerstore.transport import credentials
from layerstore.transport.base import RegistryOptions, Stop
from layerstore.transport.client import Client, connect
from layerstore.transport.credentials import Credentials
from layerstore.transport.registry import Repository


def auth_files(options: RegistryOptions) -> list[Path]:
    """Where credentials are looked for; a login writes to the first."""
    return environment.auth_files() if options.authfile is None else [options.authfile]


def split(ref: Reference) -> tuple[str, str]:
    """The domain and the path of a reference's repository, docker.io's filled in."""
    domain, _, path = ref.full_repository.partition("/")
    return domain, path


@contextmanager
def open_repository(
    ref: Reference, options: RegistryOptions, stop: Stop, note: Note, *, push: bool = False
) -> Iterator[Repository]:
    """The repository of a reference, connected to."""
    domain, path = split(ref)
    with open_registry(domain, path, options, stop, note) as client:
        yield Repository(client, f"{domain}/{path}", path, push)


def open_registry(domain: str, path: str, options: RegistryOptions, stop: Stop, note: Note) -> Client:
    """A registry, connected to with the user's credentials for `path` of it; the caller closes the client."""

    def lookup() -> Credentials | None:
        try:
            return credentials.find(domain, path, auth_files(options))
        except LayerstoreError as error:
            # Most of what is pulled is public: a helper that does not work need not hinder that.
            note(f"no credentials for {domain}: {error}")
            return None

    return connect(domain, lookup, options, stop)
