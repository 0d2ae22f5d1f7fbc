"""Where credentials come from, in which order, and what is never done with them."""

import base64
import json
import os
from pathlib import Path

import pytest

from layerstore import environment
from layerstore.errors import LayerstoreError
from layerstore.transport import challenge, credentials
from layerstore.transport.credentials import Credentials
from layerstore.transport.errors import redacted, refusal

HELPER = """#!/usr/bin/python3
import json, os, sys
path = os.path.join(os.environ["HOME"], "secrets.json")
kept = json.load(open(path)) if os.path.exists(path) else {}
words = sys.stdin.read()
if sys.argv[1] == "get":
    if words not in kept:
        print("credentials not found in native keychain")
        sys.exit(1)
    print(json.dumps(kept[words]))
elif sys.argv[1] == "store":
    kept[json.loads(words)["ServerURL"]] = json.loads(words)
elif sys.argv[1] == "erase":
    kept.pop(words, None)
json.dump(kept, open(path, "w"))
"""


def entry(user: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def write(path: Path, **document: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return path


@pytest.fixture
def helper(home: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A credential helper that is installed."""
    place = home / "bin"
    place.mkdir()
    (place / "docker-credential-tests").write_text(HELPER)
    (place / "docker-credential-tests").chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    return "tests"


def test_most_special_key_wins(tmp_path: Path) -> None:
    keys = {"host:5": "a", "host:5/team": "b", "host:5/team/app": "c", "https://old/v1/": "d"}
    path = write(tmp_path / "a.json", auths={key: entry(user, "x:y") for key, user in keys.items()})
    cases = (("host:5", "x", "a"), ("host:5", "team/x", "b"), ("host:5", "team/app", "c"), ("old", "x", "d"))
    for host, repository, user in cases:
        assert credentials.find(host, repository, [path]) == Credentials(user, "x:y")
    assert credentials.find("host", "team/app", [path]) is None
    assert credentials.find("evil", "host:5/team", [path]) is None


def test_docker_hub_has_many_names(tmp_path: Path) -> None:
    for key in ("https://index.docker.io/v1/", "index.docker.io", "docker.io"):
        path = write(tmp_path / "a.json", auths={key: entry("u", "p")})
        assert credentials.find("docker.io", "library/debian", [path]) == Credentials("u", "p")
    credentials.store("docker.io", Credentials("new", "p"), path)
    assert list(json.loads(path.read_text())["auths"]) == ["https://index.docker.io/v1/"]


def test_files_in_order(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docker, podman = home / ".docker/config.json", home / "run/containers/auth.json"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(home / "run"))
    assert environment.auth_files()[:2] == [docker, podman]
    assert credentials.find("h", "r", environment.auth_files()) is None
    write(podman, auths={"h": entry("podman", "p")})
    write(docker, auths={"h": {}, "other": entry("o", "p")})
    found = credentials.find("h", "r", environment.auth_files())
    assert found is not None
    assert found.username == "podman"
    write(docker, auths={"h": entry("docker", "p")})
    found = credentials.find("h", "r", environment.auth_files())
    assert found is not None
    assert found.username == "docker"
    monkeypatch.setenv("DOCKER_CONFIG", str(home / "d"))
    assert environment.auth_files()[0] == home / "d/config.json"
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(home / "only"))
    assert environment.auth_files() == [home / "only"]


def test_forms_of_an_entry(tmp_path: Path) -> None:
    forms: list[tuple[dict[str, str], Credentials | None]] = [
        ({"username": "u", "password": "p"}, Credentials("u", "p")),
        ({"identitytoken": "t"}, Credentials(identity_token="t")),
        ({"registrytoken": "t"}, Credentials(registry_token="t")),
        ({**entry("<token>", ""), "identitytoken": "t"}, Credentials(identity_token="t")),
        ({"auth": "not base64"}, None),
        ({"auth": ""}, None),
        ({}, None),
    ]
    for form, expected in forms:
        path = write(tmp_path / "a.json", auths={"h": form})
        assert credentials.find("h", "r", [path]) == expected


def test_helpers(helper: str, tmp_path: Path) -> None:
    """The helper of the host, else the general one, else the file."""
    path = write(tmp_path / "a.json", credHelpers={"h": helper}, auths={"file": entry("f", "p")})
    assert credentials.store("h", Credentials("u", "secret"), path) == helper
    assert "secret" not in path.read_text()
    assert credentials.find("h", "r", [path]) == Credentials("u", "secret")
    assert credentials.find("file", "r", [path]) == Credentials("f", "p")
    path = write(tmp_path / "b.json", credsStore=helper, auths={"file": entry("f", "p")})
    assert credentials.find("h", "r", [path]) == Credentials("u", "secret")
    assert credentials.find("file", "r", [path]) == Credentials("f", "p")
    assert credentials.store("x", Credentials("<token>", "idt"), path) == helper
    assert credentials.find("x", "r", [path]) == Credentials(identity_token="idt")
    assert credentials.forget("h", path)
    assert not credentials.forget("h", path)
    assert credentials.find("h", "r", [path]) is None


@pytest.mark.parametrize("name", ["../tests", "/bin/tests", "a b", "tests;id", "", "-x", "missing"])
def test_helper_names(helper: str, tmp_path: Path, name: str) -> None:
    """A helper is a program of PATH: never a path, never a command line."""
    path = write(tmp_path / "a.json", credHelpers={"h": name})
    if not name:
        assert credentials.find("h", "r", [path]) is None
        return
    with pytest.raises(LayerstoreError, match=r"invalid name of a credential helper|is not installed"):
        credentials.find("h", "r", [path])


def test_helper_of_the_current_directory(helper: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home / "bin")
    for path in ("", ".", "bin", ":"):
        monkeypatch.setenv("PATH", path)
        assert environment.find_program("docker-credential-tests") is None


@pytest.mark.parametrize("answer", ["no json", "[]", '{"Username": 1, "Secret": "x"}', "{}"])
def test_helper_that_talks_nonsense(home: Path, helper: str, tmp_path: Path, answer: str) -> None:
    (home / "bin/docker-credential-tests").write_text(f"#!/bin/sh\necho '{answer}'\n")
    path = write(tmp_path / "a.json", credsStore=helper)
    with pytest.raises(LayerstoreError, match="no valid credentials"):
        credentials.find("h", "r", [path])


def test_broken_files(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for content in ("", '{"auths": []}', '{"auths": {"h": 5}}', '{"credHelpers": 5, "credsStore": []}'):
        path.write_text(content)
        assert credentials.find("h", "r", [path]) is None
    for content in ("[]", "{", "null"):
        path.write_text(content)
        with pytest.raises(LayerstoreError, match=f"{path} is not a JSON object"):
            credentials.find("h", "r", [path])


def test_null_as_go_writes_it(tmp_path: Path) -> None:
    """docker's file without credentials: nothing is there, and a login adds to it."""
    file = tmp_path / "config.json"
    empty = {"auths": None, "credsStore": None, "credHelpers": None, "HttpHeaders": {"X": "y"}}
    file.write_text(json.dumps(empty))
    assert credentials.find("h.example", "x", [file]) is None
    assert not credentials.forget("h.example", file)
    credentials.store("h.example", Credentials("ann", "pw"), file)
    found = credentials.find("h.example", "x", [file])
    assert found is not None
    assert found.username == "ann"
    assert json.loads(file.read_text())["HttpHeaders"] == {"X": "y"}


def test_secrets_are_not_shown() -> None:
    made = Credentials("user", "hush", "hush", "hush")
    assert "hush" not in repr(made)
    url = "https://user:hush@host:5/path?X-Amz-Signature=hush#hush"
    assert redacted(url) == "https://host:5/path"
    body = b'{"errors": [{"code": "DENIED", "message": "no\\u001b[31m\\nway"}]}'
    assert str(refusal("cannot", 403, "Forbidden", body)) == "cannot: 403 DENIED (no [31m way)"
    assert len(str(refusal("cannot", 500, "x" * 5000, b"<html>"))) < 400


def test_challenges() -> None:
    def parsed(*headers: str) -> tuple[str, dict[str, str]] | None:
        found = challenge.parse(headers)
        return None if found is None else (found.scheme, found.parameters)

    assert parsed('Basic realm="a, b"') == ("basic", {"realm": "a, b"})
    assert parsed('Bearer realm="https://t/x",service="s",scope="a:b:pull,push"') == (
        "bearer",
        {"realm": "https://t/x", "service": "s", "scope": "a:b:pull,push"},
    )
    assert parsed('Basic realm=x, BEARER Realm="y\\"z"') == ("bearer", {"realm": 'y"z'})
    assert parsed("Basic realm=x", "Bearer realm=y") == ("bearer", {"realm": "y"})
    assert parsed("Negotiate", "Digest realm=x") is None
    assert parsed() is None
    assert parsed("Bearer " + "a" * 100_000) == ("bearer", {})
    assert parsed('"' * 5000) is None
