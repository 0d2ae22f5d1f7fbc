"""The list of a repository's tags: pages, and what is no list of tags."""

import json

import pytest

import layerstore
from layerstore.errors import InvalidReference, LayerstoreError
from tests.layerstore.transport.samples import FAST
from tests.layerstore.transport.scripted import Answer, scripted


def page(tags: object, **headers: str) -> Answer:
    return Answer(200, json.dumps({"name": "app", "tags": tags}).encode(), headers)


def test_pages() -> None:
    with scripted() as script:
        script.answers["tags/list$"] = page(["1", "2"], Link='</v2/app/tags/list?last=2>; rel="next"')
        script.answers["last=2"] = page(["3"])
        found = layerstore.remote_tags(f"{script.host}/app", options=FAST)
    assert found == [f"{script.host}/app:{number}" for number in "123"]


def test_none() -> None:
    with scripted(answers={"tags/list": page(None)}) as script:
        assert layerstore.remote_tags(f"{script.host}/app", options=FAST) == []


@pytest.mark.parametrize("tags", [["../x"], "abc", [1], ["a" * 200], {"x": 1}, ["ok", "a b"]])
def test_no_tags(tags: object) -> None:
    with scripted(answers={"tags/list": page(tags)}) as script:
        with pytest.raises(LayerstoreError, match="the registry's list of tags is invalid"):
            layerstore.remote_tags(f"{script.host}/app", options=FAST)


def test_pages_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("layerstore.transport.paging._MAX_PAGES", 5)
    with scripted(answers={"tags/list": page([], Link='</v2/app/tags/list>; rel="next"')}) as script:
        with pytest.raises(LayerstoreError, match="more than 5 pages"):
            layerstore.remote_tags(f"{script.host}/app", options=FAST)


def test_further_pages_elsewhere_get_no_credentials() -> None:
    with scripted(answers={"steal": page(["x"])}) as evil, scripted() as script:
        script.answers["tags/list"] = page([], Link=f'<http://{evil.host}/steal>; rel="next"')
        layerstore.remote_tags(f"{script.host}/app", options=FAST)
        assert all("Authorization" not in seen.headers for seen in evil.seen)


def test_all_tags_of_one_tag() -> None:
    with pytest.raises(InvalidReference, match="without a tag"):
        layerstore.remote_tags("app:1")
