"""A large blob over several connections at once, and what can go wrong with that."""

import itertools
import os
import signal
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import layerstore
from layerstore.digest import Digest
from layerstore.errors import DigestMismatch
from layerstore.store import partials
from layerstore.store.store import Store
from layerstore.transport import download, pieces
from layerstore.transport.errors import RegistryError
from tests.layerstore.transport.proxy import Fault, Proxy, faulty_proxy
from tests.layerstore.transport.samples import FAST, MIB, digests, image, leftovers
from tests.layerstore.transport.servers import needs_registry
from tests.waiting import wait_until

pytestmark = needs_registry

PIECE = MIB // 4
LAYER = os.urandom(20 * PIECE + 12345)
BLOB = f"^GET .*/blobs/{Digest.of(LAYER)}"


def slow(times: int = 99, *, no_range: bool = False) -> Fault:
    """Pieces come so slowly that there is time to help."""
    return Fault(BLOB, times=times, no_range=no_range, pause=0.002)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (pieces, download):
        monkeypatch.setattr(module, "PIECE", PIECE)
    monkeypatch.setattr(download, "_LARGE", 4 * PIECE)
    monkeypatch.setattr(download, "_TRIAL", 0.0)
    monkeypatch.setattr(download, "_FAST", 1 << 40)


@pytest.fixture(scope="module")
def repository(registry: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A repository that has an image with LAYER and a small one."""
    store = Store.open(tmp_path_factory.mktemp("source"))
    ref = f"{registry}/pieces/app:1"
    image(store, ref, [LAYER, b"small"])
    layerstore.push(ref, root=store.root, options=FAST)
    return ref


def pull(proxy: Proxy, other: Store, jobs: int = 4) -> None:
    layerstore.pull(f"{proxy.host}/pieces/app:1", root=other.root, options=replace(FAST, jobs=jobs))
    assert Digest.of(LAYER).hex in digests(other.root)
    assert not leftovers(other.root)


def ranges(proxy: Proxy) -> list[tuple[int, int]]:
    """The closed ranges that were asked for."""
    texts = [one.headers.get("Range", "") for one in proxy.requests(BLOB)]
    found = [text.removeprefix("bytes=").split("-") for text in texts if text]
    return sorted((int(start), int(end)) for start, end in found if end)


def test_all_connections_work_at_the_last_blob(repository: str, registry: str, other: Store) -> None:
    with faulty_proxy(registry, slow()) as proxy:
        pull(proxy, other)
        asked = ranges(proxy)
    assert len(asked) > 10
    assert all(end - start < PIECE for start, end in asked)
    assert all(before[1] + 1 == after[0] for before, after in itertools.pairwise(asked))
    assert asked[-1][1] == len(LAYER) - 1


def test_a_fast_connection_is_not_shared(
    repository: str, registry: str, other: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_FAST", 1)
    with faulty_proxy(registry) as proxy:
        pull(proxy, other)
        assert len(proxy.requests(BLOB)) == 1


def test_one_connection_needs_no_pieces(repository: str, registry: str, other: Store) -> None:
    with faulty_proxy(registry) as proxy:
        pull(proxy, other, jobs=1)
        assert len(proxy.requests(BLOB)) == 1
        assert not ranges(proxy)


@pytest.mark.parametrize(
    "fault",
    [
        {"reset": True, "times": 3},
        {"cut": 100_000, "times": 4},
        {"status": 429, "times": 3},
        {"status": 503, "times": 2, "headers": {"Retry-After": "1"}},
        {"short": 50_000, "times": 2},
    ],
    ids=["reset", "cut", "429", "503", "short"],
)
def test_a_piece_that_fails_is_asked_for_again(
    repository: str, registry: str, other: Store, fault: dict[str, Any]
) -> None:
    faults = [Fault(BLOB, skip=5, **fault), slow()]
    with faulty_proxy(registry, *faults) as proxy:
        pull(proxy, other)
        assert faults[0].times == 0
        assert ranges(proxy)


@pytest.mark.parametrize("skip", [1, 4])
def test_a_registry_that_ignores_ranges_sends_the_whole(
    repository: str, registry: str, other: Store, skip: int
) -> None:
    """It said that it takes ranges, and does not (any more)."""
    with faulty_proxy(registry, slow(skip), slow(no_range=True)) as proxy:
        pull(proxy, other)
        assert proxy.requests(BLOB)[-1].status == 200


def test_another_range_than_asked_for(repository: str, registry: str, other: Store) -> None:
    wrong = Fault(BLOB, skip=3, status=206, headers={"Content-Range": "bytes 5-9/10"})
    with faulty_proxy(registry, wrong, slow()) as proxy:
        pull(proxy, other)
        assert wrong.times == 0


def test_a_wrong_byte_is_found(repository: str, registry: str, other: Store) -> None:
    faults = [Fault(BLOB, skip=4, damage=True), slow()]
    with faulty_proxy(registry, *faults) as proxy:
        with pytest.raises(DigestMismatch, match="the content's digest is"):
            pull(proxy, other)
        assert not layerstore.images(root=other.root)
        proxy.faults.clear()
        pull(proxy, other)


def test_a_failed_pull_goes_on_from_what_is_written(repository: str, registry: str, other: Store) -> None:
    """What is on disk is a beginning of the blob, whatever came out of order."""
    with faulty_proxy(registry, slow(9), Fault(BLOB, times=99, status=503)) as proxy:
        with pytest.raises(RegistryError, match="gave up after 4 attempts"):
            pull(proxy, other)
        (left,) = leftovers(other.root)
        had = left.read_bytes()
        assert had
        assert LAYER.startswith(had)
        proxy.faults.clear()
        proxy.seen.clear()
        pull(proxy, other)
        assert proxy.requests(BLOB)[0].headers["Range"] == f"bytes={len(had)}-"


def _is_larger(path: Path, size: int) -> bool:
    return path.exists() and path.stat().st_size > size


def test_killed_in_the_middle(repository: str, registry: str, other: Store) -> None:
    """kill -9 loses what was in memory; what is on disk is a beginning, and the next pull goes on from it."""
    left = partials.directory(other) / Digest.of(LAYER).hex
    had = 0
    for _ in range(4):
        with faulty_proxy(registry, Fault(BLOB, times=999, pause=0.004)) as proxy:
            child = os.fork()
            if child == 0:
                try:
                    pull(proxy, other)
                finally:
                    os._exit(0)
            wait_until(partial(_is_larger, left, had + 2 * PIECE))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        now = left.read_bytes()
        assert len(now) > had
        assert LAYER.startswith(now)
        had = len(now)
    with faulty_proxy(registry) as proxy:
        pull(proxy, other)
        assert proxy.requests(BLOB)[0].headers["Range"] == f"bytes={had}-"


@pytest.mark.alone
def test_it_is_faster(repository: str, registry: str, other: Store, tmp_path_factory: object) -> None:
    """A registry that gives each connection little gives four of them more."""
    times = {}
    for jobs in (1, 4):
        with faulty_proxy(registry, Fault(BLOB, times=99, pause=0.01)) as proxy:
            started = time.monotonic()
            pull(proxy, other, jobs=jobs)
            times[jobs] = time.monotonic() - started
        (other.blobs / Digest.of(LAYER).hex).unlink()
    assert times[4] < 0.75 * times[1]


def test_memory_is_bounded(
    repository: str, registry: str, other: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One piece that does not come keeps the others from running far ahead of what is written."""
    ahead: list[int] = []
    receive = pieces.Pieces._deliver

    def watched(self: pieces.Pieces, start: int, data: list[bytes]) -> None:
        ahead.append(start + sum(map(len, data)) - self._partial.size)
        receive(self, start, data)

    monkeypatch.setattr(pieces.Pieces, "_deliver", watched)
    faults = [Fault(BLOB, skip=2, pause=0.05), slow()]
    with faulty_proxy(registry, *faults) as proxy:
        pull(proxy, other, jobs=8)
    assert max(ahead) <= (pieces._AHEAD + 1) * PIECE
    assert not partials.directory(other).exists()


class SlowPartial:
    """Ten of twenty bytes are being written until `go` is set."""

    def __init__(self) -> None:
        self.size, self.descriptor = 0, SimpleNamespace(size=20)
        self.begun, self.go = threading.Event(), threading.Event()

    def append(self, data: bytes) -> None:
        self.begun.set()
        assert self.go.wait(10)
        self.size += len(data)


def test_nobody_writes_when_it_has_ended() -> None:
    """What is left comes over one connection then, behind what is written."""
    partial = SlowPartial()
    shared = pieces.Pieces(cast(Any, None), cast(Any, partial), lambda *_: None)
    writer = threading.Thread(target=shared._deliver, args=(0, [bytes(10)]), daemon=True)
    writer.start()
    assert partial.begun.wait(10)
    ender = threading.Thread(target=shared.end, daemon=True)
    ender.start()
    ender.join(0.1)
    assert ender.is_alive()
    partial.go.set()
    ender.join(10)
    assert not ender.is_alive()
    shared._deliver(10, [bytes(10)])
    assert partial.size == 10
