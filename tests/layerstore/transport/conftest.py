"""Registries for the whole run, stores for each test, and nobody's real credentials."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from layerstore.store.store import Store
from tests.layerstore.transport.servers import docker_registry
from tests.layerstore.transport.tokens import TokenServer, token_server

# `htpasswd -Bbn ann 's3cret:with a colon'`; docker-registry takes bcrypt only.
HTPASSWD = "ann:$2y$05$FlKZCgmQB44alqhrWy/xn.vXihIzZKmkBlvVG0kBUBisJtl/YEIeO"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home directory."""
    place = tmp_path / "home"
    place.mkdir()
    monkeypatch.setenv("HOME", str(place))
    proxies = [scheme + "_proxy" for scheme in ("http", "https", "all")]
    files = ["DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"]
    for name in [*files, *proxies, *map(str.upper, proxies)]:
        monkeypatch.delenv(name, raising=False)
    return place


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Where images are made."""
    return Store.open(tmp_path / "store")


@pytest.fixture
def other(tmp_path: Path) -> Store:
    """Where they are pulled to."""
    return Store.open(tmp_path / "other")


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry for everybody."""
    with docker_registry(tmp_path_factory.mktemp("registry")) as host:
        yield host


@pytest.fixture(scope="session")
def basic_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry that wants a user name and a password."""
    where = tmp_path_factory.mktemp("basic")
    (where / "htpasswd").write_text(HTPASSWD + "\n")
    with docker_registry(where, f"auth: {{htpasswd: {{realm: tests, path: {where}/htpasswd}}}}\n") as host:
        yield host


@pytest.fixture(scope="session")
def _tokens(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TokenServer]:
    with token_server(tmp_path_factory.mktemp("tokens")) as server:
        yield server


@pytest.fixture
def tokens(_tokens: TokenServer) -> TokenServer:
    """The token server, with nothing asked yet."""
    _tokens.asked.clear()
    _tokens.public, _tokens.seconds = False, 300
    return _tokens


@pytest.fixture(scope="session")
def token_registry(tmp_path_factory: pytest.TempPathFactory, _tokens: TokenServer) -> Iterator[str]:
    """A registry that wants tokens of `tokens`."""
    with docker_registry(tmp_path_factory.mktemp("token-registry"), _tokens.auth) as host:
        yield host
