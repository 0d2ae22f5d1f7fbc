"""Connect to the repository of a reference, with the user's credentials."""

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
    """Return the files with credentials; a login writes to the first."""
    return environment.auth_files() if options.authfile is None else [options.authfile]


def split(ref: Reference) -> tuple[str, str]:
    """Return domain and path of a reference's repository, with docker.io as the default."""
    domain, _, path = ref.full_repository.partition("/")
    return domain, path


@contextmanager
def open_repository(
    ref: Reference, options: RegistryOptions, stop: Stop, note: Note, *, push: bool = False
) -> Iterator[Repository]:
    """Yield the repository of a reference, connected."""
    domain, path = split(ref)
    with open_registry(domain, path, options, stop, note) as client:
        yield Repository(client, f"{domain}/{path}", path, push)


def open_registry(domain: str, path: str, options: RegistryOptions, stop: Stop, note: Note) -> Client:
    """Connect to a registry, with the user's credentials for its `path`; the caller closes the client."""

    def lookup() -> Credentials | None:
        try:
            return credentials.find(domain, path, auth_files(options))
        except LayerstoreError as error:
            # Most images are public: a broken helper must not prevent a pull.
            note(f"no credentials for {domain}: {error}")
            return None

    return connect(domain, lookup, options, stop)
