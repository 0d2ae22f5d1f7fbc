"""The TLS settings for one registry: the system's authorities, and the files of docker and podman.

``/etc/containers/certs.d/HOST[:PORT]`` and ``/etc/docker/certs.d/HOST[:PORT]`` hold authorities (``*.crt``)
and client certificates (``NAME.cert`` with ``NAME.key``).
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable
from pathlib import Path

import httpx

from layerstore.transport.base import RegistryOptions
from layerstore.transport.errors import RegistryError

CERTS_DIRS = (Path("/etc/containers/certs.d"), Path("/etc/docker/certs.d"))


def context(host: str, options: RegistryOptions) -> ssl.SSLContext:
    """Return the TLS settings: trusted authorities and the client's certificates."""
    made = ssl.create_default_context()
    if not options.tls_verify:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    places = [options.cert_dir] if options.cert_dir is not None else [top / host for top in CERTS_DIRS]
    for place in places:
        if place.is_dir():
            _load(made, place)
    return made


def check(options: RegistryOptions) -> None:
    """Raise RegistryError for a missing directory of certificates, before it is needed."""
    if options.cert_dir is not None and not options.cert_dir.is_dir():
        raise RegistryError(f"no such directory of certificates: {options.cert_dir}")


class LazyTransport(httpx.BaseTransport):
    """A transport that is made at the first request: reading the system's authorities takes long."""

    def __init__(self, make: Callable[[], httpx.BaseTransport]) -> None:
        self._make = make
        self._made: httpx.BaseTransport | None = None
        self._lock = threading.Lock()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        with self._lock:
            if self._made is None:
                self._made = self._make()
        return self._made.handle_request(request)

    def close(self) -> None:
        if self._made is not None:
            self._made.close()


def _load(made: ssl.SSLContext, place: Path) -> None:
    for path in sorted(place.iterdir()):
        try:
            if path.suffix == ".crt":
                made.load_verify_locations(cafile=path)
            elif path.suffix == ".cert":
                made.load_cert_chain(path, path.with_suffix(".key"))
        except (OSError, ssl.SSLError) as error:
            raise RegistryError(f"cannot use the certificate {path}: {error}") from None
