"""Uploads the way each registry wants them, and resumed where the registry keeps what it has."""

import os
from dataclasses import replace
from typing import Any

import pytest

import layerstore
from layerstore.store.store import Store
from layerstore.transport.errors import RegistryError
from tests.layerstore.transport.samples import FAST, MIB, image
from tests.layerstore.transport.scripted import Answer, Scripted, scripted

LAYER = os.urandom(3 * MIB)


def push(store: Store, script: Scripted, **options: Any) -> None:
    """Push an image with LAYER; the registry has it then."""
    made = image(store, "app:1", [LAYER, b"small"])
    ref = f"{script.host}/app:1"
    pushed = layerstore.push("app:1", ref, root=store.root, options=replace(FAST, **options))
    assert pushed.digest == made.digest
    assert LAYER in script.blobs.values()
    assert len(script.blobs) == 3
    assert script.manifests["1"][0] == made.media_type


def sent(script: Scripted) -> list[int]:
    return [one.size for one in script.requests("^PATCH ")]


def test_plain(store: Store) -> None:
    """One request for the content, whatever its size; small blobs go with the PUT."""
    with scripted() as script:
        push(store, script)
        assert sent(script) == [len(LAYER)]
        assert "Content-Range" not in script.requests("^PATCH ")[0].headers
        assert len(script.requests("^PUT .*uploads")) == 3
        assert all(
            one.line.count("state=a%2Fb%3D&digest=sha256%3A") for one in script.requests("^PUT .*uploads")
        )


def test_chunks(store: Store) -> None:
    with scripted() as script:
        push(store, script, chunk_size=MIB)
        assert sorted(sent(script)) == [5, *[len(one) for one in _configs(script)], *[MIB] * 3]
        ranges = {one.headers["Content-Range"] for one in script.requests("^PATCH ")}
        assert {f"{start * MIB}-{(start + 1) * MIB - 1}" for start in range(3)} <= ranges


def _configs(script: Scripted) -> list[bytes]:
    return [blob for blob in script.blobs.values() if b"rootfs" in blob]


def test_resumed(store: Store) -> None:
    """Where the registry keeps what it got of a broken upload, only the rest is sent."""
    with scripted(break_after=[1_000_000, 500_000, 700_000]) as script:
        push(store, script)
        assert sent(script) == [1_000_000, 500_000, 700_000, len(LAYER) - 2_200_000]
        assert len(script.requests("^POST ")) == 3  # no upload was begun anew


def test_registry_without_patch(store: Store) -> None:
    with scripted(patch=False) as script:
        push(store, script)


def test_registry_without_content_in_put(store: Store) -> None:
    with scripted(put=False) as script:
        push(store, script)


def test_size_limit(store: Store) -> None:
    """A proxy before the registry takes requests up to some size only."""
    with scripted(limit=20 * MIB) as script:
        made = image(store, "app:1", [bytes(33 * MIB)])
        layerstore.push("app:1", f"{script.host}/app:1", root=store.root, options=FAST)
        assert sorted(sent(script)) == [0, *[MIB] * 1, *[4 * MIB] * 8]
        assert script.manifests["1"][1]
        assert made.size == len(script.manifests["1"][1])


def test_out_of_step(store: Store) -> None:
    """416: the registry has more or less than we think; it is asked, and gets what is missing."""

    with scripted() as script:

        def lie_once(_: object) -> Answer:
            script.answers.clear()
            return Answer(416)

        script.answers["^PATCH "] = lie_once
        push(store, script)
        assert len(script.requests("^GET .*uploads")) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405])
def test_registry_that_does_not_mount(store: Store, status: int) -> None:
    """A refusal to mount is no refusal to take the blob."""
    with scripted() as script:
        image(store, f"{script.host}/other:1", [LAYER])
        script.answers["^POST .*mount="] = Answer(status)
        push(store, script)
        assert len(script.requests("^POST .*&from=other")) == 1


def test_no_place_to_upload_to(store: Store) -> None:
    for headers, words in (
        ({}, "sends no URL for the upload"),
        ({"Location": "ftp://x/"}, "redirects to a URL without TLS"),
    ):
        with scripted(answers={"^POST ": Answer(202, headers=headers)}) as script:
            with pytest.raises(RegistryError, match=words):
                push(store, script)
