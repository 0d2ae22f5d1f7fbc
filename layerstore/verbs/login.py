"""``login`` and ``logout``: credentials for a registry, checked before they are stored."""

from layerstore import reference
from layerstore.errors import InvalidReference, checked_text
from layerstore.transport import credentials, remote
from layerstore.transport.base import RegistryOptions, Stop
from layerstore.transport.client import Call, connect
from layerstore.transport.credentials import Credentials

DEFAULT_HOST = "docker.io"


def login(host: str, username: str, password: str, *, options: RegistryOptions | None = None) -> str | None:
    """Check credentials with a registry and store them where docker and podman find them.

    Returns the name of the credential helper that stores them; None: a file that only its owner can read.
    """
    domain = _domain(host)
    username = checked_text(username, "the user name")
    if not username or ":" in username or not all(c.isprintable() for c in username):
        raise InvalidReference("a user name may not be empty or have a colon or control characters in it")
    chosen = options or RegistryOptions()
    mine = Credentials(username, checked_text(password, "the password"))
    with connect(domain, lambda: mine, chosen, Stop()) as client:
        client.call(
            Call(
                method="GET",
                url="/v2/",
                what=f"cannot log in to {domain}",
                scopes=(),
                ok=frozenset({200}),
            )
        )
    return credentials.store(domain, mine, remote.auth_files(chosen)[0])


def kept_login(host: str, *, options: RegistryOptions | None = None) -> Credentials | None:
    """Return the user name and password that an earlier login stored for a registry, or None."""
    kept = credentials.find(_domain(host), "", remote.auth_files(options or RegistryOptions()))
    return kept if kept is not None and kept.username and kept.password else None


def logout(host: str, *, options: RegistryOptions | None = None) -> bool:
    """Remove the credentials for a registry; returns whether there were any."""
    domain = _domain(host)
    files = remote.auth_files(options or RegistryOptions())
    forgotten = [credentials.forget(domain, path) for path in files]  # every file, not only the first
    return any(forgotten)


def _domain(host: str) -> str:
    """Return the host of what a user may write: a name, a URL, one of docker.io's names."""
    bare = host.removeprefix("https://").removeprefix("http://").rstrip("/")
    bare = bare.removesuffix("/v1").removesuffix("/v2")
    if bare in {"", "index.docker.io", "registry-1.docker.io"}:
        return DEFAULT_HOST
    if "/" in bare or not reference.is_domain(bare):
        raise InvalidReference(f"not a registry's host name: {host!r}")
    return bare
