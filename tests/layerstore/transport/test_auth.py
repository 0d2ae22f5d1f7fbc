"""Basic and Bearer authentication against docker-registry; tokens that end half-way."""

import base64
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

import layerstore
from layerstore.digest import Digest
from layerstore.errors import LayerstoreError
from layerstore.store.store import Store
from layerstore.transport.errors import LoginNeeded
from tests.layerstore.commands import Cli
from tests.layerstore.transport.proxy import Fault, faulty_proxy
from tests.layerstore.transport.samples import FAST, MIB, digests, image
from tests.layerstore.transport.servers import PASSWORD, USER, needs_registry
from tests.layerstore.transport.tokens import TokenServer

pytestmark = needs_registry


def name(host: str, tmp_path: Path) -> str:
    return f"{host}/auth/{Digest.of(os.fsencode(tmp_path)).short}:1"


def write_auth(path: Path, host: str, user: str = USER, password: str = PASSWORD) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    auth = base64.b64encode(f"{user}:{password}".encode()).decode()
    path.write_text(json.dumps({"auths": {host: {"auth": auth}}}))


def round_trip(store: Store, other: Store, ref: str) -> None:
    made = image(store, ref, [os.urandom(2 * MIB), b"small"])
    layerstore.push(ref, root=store.root, options=FAST)
    assert layerstore.pull(ref, root=other.root, options=FAST).digest == made.digest
    assert digests(other.root) <= digests(store.root)


def test_basic(store: Store, other: Store, basic_registry: str, tmp_path: Path, home: Path) -> None:
    ref = name(basic_registry, tmp_path)
    image(store, ref, [b"layer"])
    with pytest.raises(LoginNeeded, match=f"{basic_registry} requires a login: run layerstore login"):
        layerstore.push(ref, root=store.root, options=FAST)
    write_auth(home / ".docker/config.json", basic_registry)
    round_trip(store, other, ref)
    write_auth(home / ".docker/config.json", basic_registry, password="wrong")
    with pytest.raises(LoginNeeded, match="401"):
        layerstore.pull(ref, root=store.root, options=FAST)


def test_tokens(
    store: Store, other: Store, token_registry: str, tokens: TokenServer, tmp_path: Path, home: Path
) -> None:
    """One token for each scope, kept as long as it lasts."""
    ref = name(token_registry, tmp_path)
    write_auth(home / ".docker/config.json", token_registry)
    round_trip(store, other, ref)
    path = ref.split("/", 1)[1].rpartition(":")[0]
    assert [one["scope"] for one in tokens.asked] == [
        [f"repository:{path}:pull,push"],
        [f"repository:{path}:pull"],
    ]
    assert all(one["account"] == [USER] and one["service"] for one in tokens.asked)


def test_tokens_for_a_mount(
    store: Store, token_registry: str, tokens: TokenServer, tmp_path: Path, home: Path
) -> None:
    ref = name(token_registry, tmp_path)
    write_auth(home / ".docker/config.json", token_registry)
    image(store, ref, [os.urandom(1000)])
    layerstore.push(ref, root=store.root, options=FAST)
    states: list[str] = []
    layerstore.push(
        ref,
        ref.replace("/auth/", "/copy/"),
        root=store.root,
        options=FAST,
        report=lambda *a: states.append(a[1]),
    )
    assert states.count("mounted") == 2
    assert len(tokens.asked[-1]["scope"]) == 2


def test_short_tokens(
    store: Store, other: Store, token_registry: str, tokens: TokenServer, tmp_path: Path, home: Path
) -> None:
    """A token that runs out is asked for anew."""
    tokens.seconds = 1
    write_auth(home / ".docker/config.json", token_registry)
    round_trip(store, other, name(token_registry, tmp_path))


def test_public_and_private(
    store: Store, other: Store, token_registry: str, tokens: TokenServer, tmp_path: Path, home: Path
) -> None:
    """Without credentials what is public can be pulled and nothing be pushed."""
    ref = name(token_registry, tmp_path)
    image(store, ref, [b"layer"])
    write_auth(home / ".docker/config.json", token_registry)
    layerstore.push(ref, root=store.root, options=FAST)
    (home / ".docker/config.json").unlink()
    with pytest.raises(LoginNeeded, match=f"no access to {token_registry}: 401"):
        layerstore.pull(ref, root=other.root, options=FAST)
    tokens.public = True
    layerstore.pull(ref, root=other.root, options=FAST)
    ref2 = ref.replace("/auth/", "/other/")
    with pytest.raises(LoginNeeded, match=rf"401 UNAUTHORIZED .*layerstore login {token_registry}\?\)"):
        layerstore.push(ref, ref2, root=store.root, options=FAST)


def test_identity_token(
    store: Store, other: Store, token_registry: str, tokens: TokenServer, tmp_path: Path, home: Path
) -> None:
    """docker's "identitytoken" is exchanged, not sent to the registry."""
    (home / ".docker").mkdir()
    (home / ".docker/config.json").write_text(
        json.dumps({"auths": {token_registry: {"identitytoken": "identity of ann"}}})
    )
    round_trip(store, other, name(token_registry, tmp_path))
    assert tokens.asked[0]["grant_type"] == ["refresh_token"]


@pytest.mark.parametrize("where", ["^GET .*manifests", "^GET .*blobs", "^PATCH ", "^PUT .*blobs", "^POST "])
def test_refused_half_way(
    store: Store,
    other: Store,
    token_registry: str,
    tokens: TokenServer,
    tmp_path: Path,
    home: Path,
    where: str,
) -> None:
    """A 401 in between is answered by a new token, once."""
    challenge = f'Bearer realm="{tokens.url}",service="registry of the tests",scope="repository:x:pull"'
    fault = Fault(where, status=401, headers={"WWW-Authenticate": challenge}, skip=0)
    with faulty_proxy(token_registry, fault) as proxy:
        write_auth(home / ".docker/config.json", proxy.host)
        round_trip(store, other, name(proxy.host, tmp_path))
        assert fault.times == 0
        fault.times = 99
        with pytest.raises(LoginNeeded, match="401"):
            round_trip(store, Store.open(tmp_path / "third"), name(proxy.host, tmp_path / "x"))
        assert 99 - fault.times <= 2 * FAST.jobs


def test_login(basic_registry: str, home: Path, tmp_path: Path) -> None:
    """Only what the registry took is kept, for its owner alone; logout forgets it."""
    cli, path = Cli(tmp_path / "root"), home / ".docker/config.json"
    secret = PASSWORD.encode() + b"\n"
    assert "401" in cli.fail("login", "-u", USER, "--password-stdin", basic_registry, stdin=b"wrong")
    assert not path.exists()
    words = ("login", "-u", USER, "--password-stdin", basic_registry)
    assert cli.run(*words, stdin=secret) == "Login Succeeded"
    assert path.stat().st_mode & 0o777 == 0o600
    assert base64.b64decode(json.loads(path.read_text())["auths"][basic_registry]["auth"]) == secret[
        :-1
    ].replace(PASSWORD.encode(), f"{USER}:{PASSWORD}".encode())
    assert PASSWORD not in cli.fail("pull", f"{basic_registry}/none")
    assert cli.run("logout", basic_registry) == f"Removing login credentials for {basic_registry}"
    assert json.loads(path.read_text()) == {"auths": {}}
    assert "Not logged in" in cli.run("logout", basic_registry)
    cli.fail("login", basic_registry, status=2)
    cli.fail("login", "-u", USER, basic_registry, status=2)
    assert "no password" in cli.fail(*words, stdin=b"\n")
    assert "not a registry's host name" in cli.fail("login", "-u", "x", "--password-stdin", "a/b", stdin=b"y")


def test_login_keeps_the_rest(basic_registry: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other registries and settings of the file stay, and a symbolic link stays one."""
    real, link = home / "dotfiles.json", home / "docker/config.json"
    link.parent.mkdir()
    link.symlink_to(real)
    real.write_text(json.dumps({"psFormat": "x", "auths": {"other": {"auth": "eDp5"}}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(link.parent))
    layerstore.login(basic_registry, USER, PASSWORD)
    document = json.loads(real.read_text())
    assert link.is_symlink()
    assert document["psFormat"] == "x"
    assert set(document["auths"]) == {"other", basic_registry}
    options = replace(FAST, authfile=home / "mine/auth.json")
    layerstore.login(f"https://{basic_registry}/v2/", USER, PASSWORD, options=options)
    assert set(json.loads((home / "mine/auth.json").read_text())["auths"]) == {basic_registry}
    with pytest.raises(LayerstoreError):
        layerstore.login(basic_registry, "a:b", PASSWORD)
