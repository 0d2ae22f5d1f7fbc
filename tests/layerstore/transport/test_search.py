"""search: docker hub's form of it, and the catalogue of every other registry."""

import json
from pathlib import Path

import pytest

import layerstore
from layerstore.errors import LayerstoreError
from tests.layerstore.commands import Cli
from tests.layerstore.transport.proxy import Seen
from tests.layerstore.transport.samples import FAST
from tests.layerstore.transport.scripted import Answer, Scripted, scripted
from tests.layerstore.transport.servers import PASSWORD, USER, needs_registry

RESULTS = [
    {"name": "team/app", "description": "An\n  app" + "." * 60, "star_count": 3, "is_official": False},
    {"name": "app", "description": "\x1b[2J", "star_count": 70, "is_official": True, "is_automated": True},
]


def answer(document: object, **headers: str) -> Answer:
    return Answer(body=json.dumps(document).encode(), headers=headers)


HUB = {r"GET /v1/search\?": answer({"num_results": 2, "results": RESULTS})}


def shown(script: Scripted, *words: str) -> str:
    return Cli(Path("/nonexistent/store")).run("search", *words, f"{script.host}/app")


def test_hub_s_form() -> None:
    with scripted(answers=HUB) as script:
        lines = shown(script).splitlines()
        assert lines[0].split() == ["NAME", "DESCRIPTION", "STARS", "OFFICIAL", "AUTOMATED"]
        assert lines[1].split()[:1] == [f"{script.host}/app"]
        assert "\\x1b[2J" in lines[1]
        assert lines[1].endswith("70        [OK]       [OK]")
        assert "An app" in lines[2]
        assert "…" in lines[2]
        assert "…" not in shown(script, "--no-trunc")
        assert shown(script, "--format", "{{.StarCount}}", "-f", "stars=10") == "70"
        assert shown(script, "--format", "{{.Name}}", "--filter=is-official=false").endswith("/team/app")
        assert shown(script, "--format", "{{.Name}}", "--limit=1").count("\n") == 0
        assert script.requests(r"/v1/search\?q=app&n=25")
        assert not script.requests("_catalog")


def catalog(seen: Seen) -> Answer:
    if "last=" in seen.line:
        return answer({"repositories": ["team/app", "zoo"]})
    return answer({"repositories": ["app", "base"]}, Link='</v2/_catalog?last=base>; rel="next"')


@pytest.mark.parametrize(
    "first", [Answer(404), Answer(401), Answer(405, b"<html>"), Answer(200, b"<html>"), Answer(200, b"{}")]
)
def test_the_catalogue(first: Answer) -> None:
    """Where there is no search, whatever the registry says instead."""
    with scripted(answers={"v1/search": first, "_catalog": catalog}) as script:
        names = [hit.name for hit in layerstore.search(f"{script.host}/app", options=FAST)]
        assert names == [f"{script.host}/app", f"{script.host}/team/app"]
        assert len(layerstore.search(f"{script.host}/", options=FAST)) == 4
        assert len(layerstore.search(f"{script.host}/", limit=3, options=FAST)) == 3


@pytest.mark.parametrize("wrong", [{"repositories": "abc"}, {"repositories": [1]}, []])
def test_no_catalogue(wrong: object) -> None:
    with scripted(answers={"v1/search": Answer(404), "_catalog": answer(wrong)}) as script:
        with pytest.raises(LayerstoreError):
            layerstore.search(f"{script.host}/app", options=FAST)


@needs_registry
def test_a_real_registry(registry: str, base: Cli) -> None:
    """docker-registry has the catalogue alone; what is found can be pulled."""
    base.run("push", "base:1", f"{registry}/looked/for:1")
    assert base.run("search", "--format", "{{.Name}}", f"{registry}/looked") == f"{registry}/looked/for"
    assert base.run("search", "-f", "stars=1", "--format", "{{.Name}}", f"{registry}/looked") == ""


@needs_registry
def test_a_registry_that_wants_a_login(basic_registry: str, base: Cli, home: Path) -> None:
    """By the credentials of login, as for a pull."""
    assert "requires a login" in base.fail("search", f"{basic_registry}/")
    base.run("login", "-u", USER, "-p", PASSWORD, basic_registry)
    base.run("push", "base:1", f"{basic_registry}/for/members")
    assert (
        base.run("search", "--format={{.Name}}", f"{basic_registry}/mem") == f"{basic_registry}/for/members"
    )


def test_wrong_words(cli: Cli) -> None:
    assert "KEY=VALUE" in cli.fail("search", "--filter", "colour=red", "localhost:1/x")
    assert "number of stars" in cli.fail("search", "--filter", "stars=many", "localhost:1/x")
    assert "true or false" in cli.fail("search", "--filter", "is-official=yes", "localhost:1/x")
    assert "host name" in cli.fail("search", "not_a.host:x/y")
    assert "search term" in cli.fail("search", "docker.io/")
    assert "cannot reach" in cli.fail("search", "localhost:1/x")
