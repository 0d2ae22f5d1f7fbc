"""Registries whose word about an upload is not to be trusted, or that want it in pieces of their own size."""

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

import layerstore
from layerstore.store.store import Store
from layerstore.transport.errors import RegistryError
from tests.layerstore.transport.proxy import Seen
from tests.layerstore.transport.samples import FAST, MIB, image
from tests.layerstore.transport.scripted import Answer, Scripted, scripted

LAYER = os.urandom(9 * MIB + 4321)

CLAIMS: dict[str, Callable[[int, int], str | None]] = {
    "stuck at nothing": lambda size, chunk: "0-0",
    "stuck at the first chunk": lambda size, chunk: f"0-{min(size, 2 * MIB) - 1}",
    "the last chunk's length": lambda size, chunk: f"0-{chunk - 1}",
    "the last chunk's bytes": lambda size, chunk: f"{size - chunk}-{size - 1}",
    "more than it has": lambda size, chunk: f"0-{size + 99}",
    "all there is in the world": lambda size, chunk: "0-9999999999999999999",
    "with a unit": lambda size, chunk: f"bytes 0-{size - 1}",
    "a size after it": lambda size, chunk: f"0-{size - 1}/{size}",
    "nothing": lambda size, chunk: None,
    "rubbish": lambda size, chunk: "bytes=-",
    "minus one": lambda size, chunk: f"0-{size - 1}",
}


def push(store: Store, script: Scripted, layer: bytes = LAYER, **options: Any) -> None:
    """Push an image with a layer; the registry has it then."""
    made = image(store, "app:1", [layer, b"small"])
    ref = f"{script.host}/app:1"
    pushed = layerstore.push("app:1", ref, root=store.root, options=replace(FAST, **options))
    assert pushed.digest == made.digest
    assert layer in script.blobs.values()


def bodies(script: Scripted) -> list[int]:
    """The sizes of the parts of LAYER that were taken, in order."""
    return [one.size for one in script.requests("^(PATCH|PUT) .*uploads") if one.size > 2000]


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
@pytest.mark.parametrize("how", ["whole", "chunks", "broken off", "broken chunks"])
def test_what_it_says_it_has(store: Store, claim: Callable[[int, int], str | None], how: str) -> None:
    """A 2xx is believed, whatever the Range beside it; after a failure a false one is found out."""
    broken = [3 * MIB, MIB] if "broken" in how else []
    with scripted(claim=claim, break_after=broken) as script:
        push(store, script, chunk_size=2 * MIB if "chunks" in how else 0)
        if "broken" not in how:
            assert sum(bodies(script)) == len(LAYER)


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
def test_chunks_of_its_size(store: Store, claim: Callable[[int, int], str | None]) -> None:
    """Chunks of more than 4 MiB get 416."""
    with scripted(largest=4 * MIB, claim=claim) as script:
        push(store, script)
        assert bodies(script) == [4 * MIB, 4 * MIB, len(LAYER) - 8 * MIB]


@pytest.mark.parametrize("largest", [4_000_000, MIB, 300_000])
def test_smaller_chunks(store: Store, largest: int) -> None:
    with scripted(largest=largest) as script:
        push(store, script)
        assert max(bodies(script)) <= largest


@pytest.mark.parametrize("says_least", [True, False])
def test_least_chunk(store: Store, says_least: bool) -> None:
    """OCI-Chunk-Min-Length is obeyed; who demands it without a word gets everything in one PUT."""
    with scripted(least=4 * MIB, says_least=says_least) as script:
        push(store, script, chunk_size=MIB)
        parts = [4 * MIB, 4 * MIB, len(LAYER) - 8 * MIB]
        assert bodies(script)[-3:] == parts if says_least else bodies(script)[-1] == len(LAYER)


def test_least_chunk_after_a_failure(store: Store) -> None:
    with scripted(least=5 * MIB, break_after=[6 * MIB]) as script:
        push(store, script)
        assert bodies(script) == [6 * MIB, len(LAYER) - 6 * MIB]


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_accepted(store: Store, status: int) -> None:
    with scripted(accepted=status) as script:
        push(store, script)
        assert bodies(script) == [len(LAYER)]


@pytest.mark.parametrize(
    "place",
    [
        "/v2/x/blobs/uploads/{name}",
        "/v2/x/blobs/uploads/{name}?",
        "/v2/x/blobs/uploads/{name}?a=%2F&b=c%3D#part",
        "http://{host}/v2/x/blobs/uploads/{name}?_state=x%2By",
        "//{host}/v2/x/blobs/uploads/{name}",
        "{name}",
        "./{name}?q",
        "../uploads/{name}",
    ],
)
def test_places(store: Store, place: str) -> None:
    """A Location is absolute, relative to its request, with a query or without."""
    with scripted(place=place) as script:
        push(store, script, chunk_size=4 * MIB)
        queries = {one.line.partition("?")[2] for one in script.requests("^PUT .*uploads")}
        query = place.partition("?")[2].partition("#")[0]
        assert all(one.startswith(f"{query}&digest=" if query else "digest=sha256%3A") for one in queries)


def test_no_place_in_between(store: Store) -> None:
    """An answer to a PATCH without a Location: it goes on where it was."""
    with scripted(place="/v2/x/blobs/uploads/{name}", moves=False) as script:
        push(store, script, chunk_size=4 * MIB)


@pytest.mark.parametrize("times", [1, 3, 9])
def test_it_forgets(store: Store, times: int) -> None:
    """An upload that expires in the middle is begun anew; where each does, everything goes in one PUT."""
    with scripted(forget_after=[4 * MIB] * times) as script:
        push(store, script, chunk_size=2 * MIB)
        assert (bodies(script)[-1] == len(LAYER)) == (times == 9)


@pytest.mark.parametrize("status", [500, 502, 503])
def test_errors_in_the_middle(store: Store, status: int) -> None:
    """It goes on from what the registry has."""
    with scripted() as script:
        count = iter(range(99))

        def sometimes(seen: Seen) -> bool:
            return next(count) % 3 == 1

        script.fails = lambda seen: (
            Answer(status) if seen.line.startswith("PATCH") and sometimes(seen) else None
        )
        push(store, script, chunk_size=2 * MIB, attempts=6)
        assert sum(one.size for one in script.requests("^PATCH ") if one.status < 300) >= len(LAYER)


@pytest.mark.parametrize("status", [400, 404, 405, 416, 500, 501, 503])
def test_no_patch_at_all(store: Store, status: int) -> None:
    """Before it gives up, everything goes in one PUT."""
    with scripted(answers={"^PATCH ": Answer(status)}) as script:
        push(store, script)
        assert bodies(script)[-1] == len(LAYER)


def test_a_wrong_digest_of_chunks(store: Store) -> None:
    """A registry that puts chunks together wrongly gets the blob in one piece."""
    with scripted() as script:
        script.mangles = True
        push(store, script, chunk_size=4 * MIB)
        assert bodies(script)[-1] == len(LAYER)


@pytest.mark.parametrize("limit", [4 * MIB, MIB, 600_000])
@pytest.mark.parametrize("size", [len(LAYER), 900_000])
def test_too_large(store: Store, limit: int, size: int) -> None:
    """413 from what is before a registry: smaller requests, also for what else goes in one."""
    with scripted(limit=limit) as script:
        push(store, script, LAYER[:size])
        assert max(bodies(script)) <= limit


def test_nothing_helps(store: Store) -> None:
    """It ends, with what was wrong first, and soon."""
    with scripted(answers={"^(PATCH|PUT) .*uploads": Answer(416)}) as script:
        with pytest.raises(RegistryError, match=r"cannot push .*416"):
            push(store, script)
        assert len(script.seen) < 60
    for status in (401, 403, 413):
        with scripted(answers={"^(PATCH|PUT) .*uploads": Answer(status)}) as script:
            with pytest.raises(RegistryError, match=str(status)):
                push(store, script)
            assert len(script.seen) < 40


@pytest.mark.parametrize(
    "answer",
    [
        lambda n: Answer(416, headers={"OCI-Chunk-Min-Length": str(n)}),
        lambda n: Answer(416, headers={"Range": f"0-{n}"}),
        lambda n: Answer(202, headers={"Range": f"0-{n}", "Location": f"/v2/x/blobs/uploads/u{n}"}),
    ],
)
def test_games(store: Store, answer: Callable[[int], Answer]) -> None:
    """A registry cannot keep us busy with ever new answers."""
    with scripted() as script:
        count = iter(range(10**6))
        script.answers["^PATCH "] = lambda seen: answer(next(count))
        script.answers["^PUT .*uploads"] = Answer(500)
        with pytest.raises(RegistryError, match="cannot push"):
            push(store, script, chunk_size=MIB)
        assert len(script.seen) < 200
