"""A registry behind a bad connection: it works in the end, or fails with the right words."""

import os
import time
from pathlib import Path

import pytest

import layerstore
from layerstore.digest import Digest
from layerstore.errors import DigestMismatch, LayerstoreError
from layerstore.store import partials
from layerstore.store.store import Store
from layerstore.transport.errors import RegistryError
from layerstore.transport.pull import Pulled
from tests.layerstore.transport.proxy import Fault, Proxy, faulty_proxy
from tests.layerstore.transport.samples import FAST, MIB, digests, image, leftovers
from tests.layerstore.transport.servers import needs_registry

pytestmark = needs_registry

LAYER = os.urandom(2 * MIB)
BLOB = f"^GET .*/blobs/{Digest.of(LAYER)}"


@pytest.fixture(scope="module")
def repository(registry: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A repository that has an image with LAYER."""
    store = Store.open(tmp_path_factory.mktemp("source"))
    ref = f"{registry}/faults/app:1"
    image(store, ref, [LAYER, b"small"])
    layerstore.push(ref, root=store.root, options=FAST)
    return ref


def pull(proxy: Proxy, other: Store) -> Pulled:
    return layerstore.pull(f"{proxy.host}/faults/app:1", root=other.root, options=FAST)


GOOD_IN_THE_END = {
    "reset at the ping": Fault("^GET /v2/$", reset=True, times=2),
    "reset at the manifest": Fault("^GET .*manifests", reset=True, times=2),
    "reset at each blob": Fault("^GET .*blobs", reset=True, times=3),
    "429": Fault("^GET ", status=429, times=3),
    "429 with the time to wait": Fault("^GET .*blobs", status=429, headers={"Retry-After": "1"}),
    "500": Fault("^GET ", status=500, times=3),
    "503 at the manifest": Fault("manifests", status=503, times=3),
    "the answer breaks off": Fault(BLOB, cut=700_000, times=3),
    "it breaks off before the first byte": Fault(BLOB, cut=0, times=3),
    "the answer is too short": Fault(BLOB, short=300_000, times=3),
    "the manifest breaks off": Fault("manifests", cut=50, times=3),
    "no ranges": Fault(BLOB, cut=1_500_000),
    "slow": Fault(BLOB, pause=0.002),
}


@pytest.mark.parametrize("fault", GOOD_IN_THE_END.values(), ids=GOOD_IN_THE_END)
def test_pull_in_spite_of(repository: str, registry: str, other: Store, fault: Fault) -> None:
    fault = Fault(**vars(fault))
    started = time.monotonic()
    with faulty_proxy(registry, fault) as proxy:
        pull(proxy, other)
        assert fault.times == 0
    assert Digest.of(LAYER).hex in digests(other.root)
    assert not leftovers(other.root)
    if "Retry-After" in fault.headers:
        assert time.monotonic() - started >= 1


def test_resumed_not_repeated(repository: str, registry: str, other: Store) -> None:
    """What has arrived is not asked for again, however often the connection breaks."""
    with faulty_proxy(registry, Fault(BLOB, cut=400_000, times=5)) as proxy:
        pull(proxy, other)
        ranges = [one.headers.get("Range") for one in proxy.requests(BLOB)]
    starts = [int(text[6:-1]) for text in ranges[1:] if text]
    assert len(starts) == 5
    assert starts == sorted(starts)
    assert starts[-1] > 1_500_000  # five times four hundred thousand, but what a reset swallows


def test_interrupted_pull_is_resumed(repository: str, registry: str, other: Store) -> None:
    """What one process has loaded, the next goes on with."""
    with faulty_proxy(
        registry, Fault(BLOB, cut=1_000_000, times=1), Fault(BLOB, reset=True, times=9)
    ) as proxy:
        with pytest.raises(RegistryError, match=r"cannot get the blob .* \(gave up after 4 attempts\)"):
            pull(proxy, other)
        (left,) = leftovers(other.root)
        had = left.stat().st_size
        assert 500_000 < had <= 1_000_000
        assert not layerstore.images(root=other.root)
        proxy.faults.clear()
        proxy.seen.clear()
        pull(proxy, other)
        (request,) = proxy.requests(BLOB)
        assert request.headers["Range"] == f"bytes={had}-"
    assert not leftovers(other.root)
    assert not partials.directory(other).exists()


def test_range_ignored(repository: str, registry: str, other: Store) -> None:
    faults = [Fault(BLOB, cut=1_000_000), Fault(BLOB, no_range=True)]
    with faulty_proxy(registry, *faults) as proxy:
        pull(proxy, other)
    assert Digest.of(LAYER).hex in digests(other.root)


@pytest.mark.parametrize(
    "answer", [Fault(BLOB, status=416), Fault(BLOB, status=206, headers={"Content-Range": "bytes 5-9/10"})]
)
def test_range_refused(repository: str, registry: str, other: Store, answer: Fault) -> None:
    """A registry that cannot send the rest sends the whole."""
    with faulty_proxy(registry, Fault(BLOB, cut=1_000_000), Fault(**vars(answer))) as proxy:
        pull(proxy, other)
        assert proxy.requests(BLOB)[-1].headers.get("Range") is None
    assert Digest.of(LAYER).hex in digests(other.root)


def test_damaged_leftover(repository: str, registry: str, other: Store) -> None:
    """A leftover that is not the blob's beginning (or is longer than it) is found out and loaded anew."""
    for left in (b"x" * 1000, b"x" * len(LAYER), b"x" * (len(LAYER) + 1)):
        partials.directory(other).mkdir(exist_ok=True)
        (partials.directory(other) / Digest.of(LAYER).hex).write_bytes(left)
        with faulty_proxy(registry) as proxy:
            pull(proxy, other)
        assert Digest.of(LAYER).hex in digests(other.root)
        (other.blobs / Digest.of(LAYER).hex).unlink()


WRONG = {
    "a byte differs": (Fault(BLOB, damage=True), DigestMismatch, "the content's digest is"),
    "too long": (Fault(BLOB, replace=LAYER + b"x"), DigestMismatch, "longer than the 2097152 bytes"),
    "something short": (
        Fault(BLOB, replace=b"<html>", times=99),
        LayerstoreError,
        r"sent \d+ of 2097152 bytes",
    ),
    "no manifest": (Fault("manifests", replace=b"<html>"), DigestMismatch, "the registry says"),
    "gone": (Fault(BLOB, status=404), LayerstoreError, "404 Not Found"),
    "forbidden": (Fault(BLOB, status=403), LayerstoreError, "403 Forbidden"),
    "never": (Fault(BLOB, status=503, times=99), LayerstoreError, r"503 .*\(gave up after 4 attempts\)"),
    "in an hour": (
        Fault(BLOB, status=429, headers={"Retry-After": "3600"}),
        LayerstoreError,
        "429 Too Many Requests; the registry requests a pause of 3600 seconds",
    ),
}


@pytest.mark.parametrize(("fault", "error", "words"), WRONG.values(), ids=WRONG)
def test_pull_fails(
    repository: str, registry: str, other: Store, fault: Fault, error: type[Exception], words: str
) -> None:
    """Nothing false gets into the store, and no image that is not whole gets a name."""
    fault = Fault(**vars(fault))
    with faulty_proxy(registry, fault) as proxy:
        with pytest.raises(error, match=words):
            pull(proxy, other)
        assert not layerstore.images(root=other.root)
        assert Digest.of(LAYER).hex not in digests(other.root)
        proxy.faults.clear()
        pull(proxy, other)
    digests(other.root)


def test_stalled(repository: str, registry: str, other: Store) -> None:
    """A connection on which nothing comes any more is given up and taken up again."""
    from dataclasses import replace

    with faulty_proxy(registry, Fault(BLOB, pause=2.0)) as proxy:
        options = replace(FAST, timeout=0.3)
        layerstore.pull(f"{proxy.host}/faults/app:1", root=other.root, options=options)
    assert Digest.of(LAYER).hex in digests(other.root)


PUSHED_IN_THE_END = {
    "reset before": Fault("^(HEAD|POST|PUT|PATCH) ", reset=True, times=3),
    "reset in the blob": Fault("^PATCH ", take=900_000, times=2),
    "reset in the end": Fault("^PUT .*blobs", reset=True, times=2),
    "the answer gets lost": Fault("^PUT .*blobs", cut=0, times=1),
    "429 at the blob": Fault("^PATCH ", status=429, times=2),
    "502 at the manifest": Fault("^PUT .*manifests", status=502, times=2),
    "503 at the start": Fault("^POST ", status=503, times=2),
    "416": Fault("^PATCH ", status=416, times=1),
}


@pytest.mark.parametrize("fault", PUSHED_IN_THE_END.values(), ids=PUSHED_IN_THE_END)
def test_push_in_spite_of(registry: str, store: Store, other: Store, tmp_path: Path, fault: Fault) -> None:
    fault = Fault(**vars(fault))
    made = image(store, "app", [os.urandom(2 * MIB), os.urandom(3000)])
    with faulty_proxy(registry, fault) as proxy:
        ref = f"{proxy.host}/pushed/{Digest.of(os.fsencode(tmp_path)).short}:1"
        layerstore.push("app", ref, root=store.root, options=FAST)
        assert fault.times == 0
        assert layerstore.pull(ref, root=other.root, options=FAST).digest == made.digest
    assert digests(other.root) == digests(store.root)


def test_finished_blobs_are_not_sent_again(registry: str, store: Store, tmp_path: Path) -> None:
    """A push that failed leaves what it had finished; the next one sends the rest."""
    layers = [os.urandom(200_000 + number) for number in range(4)]
    image(store, "app", layers)
    with faulty_proxy(registry, Fault("^PUT .*manifests", status=400)) as proxy:
        ref = f"{proxy.host}/again/{Digest.of(os.fsencode(tmp_path)).short}:1"
        with pytest.raises(RegistryError, match=r"cannot push .*: 400"):
            layerstore.push("app", ref, root=store.root, options=FAST)
        assert len(proxy.requests("^PUT .*blobs")) == 5
        layerstore.push("app", ref, root=store.root, options=FAST)
        assert len(proxy.requests("^PUT .*blobs")) == 5
