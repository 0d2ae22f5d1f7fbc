"""The TLS settings for one registry: the system's authorities, and the files docker and podman look for.

``/etc/containers/certs.d/HOST[:PORT]`` and ``/etc/docker/certs.d/HOST[:PORT]`` hold authorities (``*.crt``)
and client certificates (``NAME.cert`` with ``NAME.key``).
"""

from __future__ import annotations

import ssl
from pathlib import Path

from layerstore.transport.base import RegistryOptions
from layerstore.transport.errors import RegistryError

CERTS_DIRS = (Path("/etc/containers/certs.d"), Path("/etc/docker/certs.d"))


def context(host: str, options: RegistryOptions) -> ssl.SSLContext:
    """What to demand of a registry's certificate, and what to show it."""
    made = ssl.create_default_context()
    if not options.tls_verify:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    places = [options.cert_dir] if options.cert_dir is not None else [top / host for top in CERTS_DIRS]
    for place in places:
        if place.is_dir():
            _load(made, place)
        elif options.cert_dir is not None:
            raise RegistryError(f"no such directory of certificates: {place}")
    return made


def _load(made: ssl.SSLContext, place: Path) -> None:
    for path in sorted(place.iterdir()):
        try:
            if path.suffix == ".crt":
                made.load_verify_locations(cafile=path)
            elif path.suffix == ".cert":
                made.load_cert_chain(path, path.with_suffix(".key"))
        except (OSError, ssl.SSLError) as error:
            raise RegistryError(f"cannot use the certificate {path}: {error}") from None
