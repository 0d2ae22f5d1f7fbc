"""Pull and push against Debian's docker-registry."""

import os
from pathlib import Path

import pytest

import layerstore
from layerstore import media, model
from layerstore.digest import Digest
from layerstore.errors import LayerstoreError, NotFound
from layerstore.image import find
from layerstore.store import blobs, index
from layerstore.store.store import Store
from layerstore.transport.errors import MissingRemote
from tests.layerstore.commands import Cli
from tests.layerstore.transport.proxy import faulty_proxy
from tests.layerstore.transport.samples import FAST, MIB, digests, image, leftovers, multi
from tests.layerstore.transport.servers import needs_registry

pytestmark = needs_registry


def name(host: str, tmp_path: Path, tag: str = "1") -> str:
    """A repository of the test's own."""
    return f"{host}/{Digest.of(os.fsencode(tmp_path)).short}/app:{tag}"


@pytest.mark.parametrize("docker", [False, True])
def test_there_and_back(store: Store, other: Store, registry: str, tmp_path: Path, docker: bool) -> None:
    """Every byte survives, in Docker's format as in OCI's; empty and repeated layers too."""
    ref = name(registry, tmp_path)
    layers = [os.urandom(3 * MIB), b"", os.urandom(70_000), b""]
    made = image(store, ref, layers, docker=docker)
    pushed = layerstore.push(ref, root=store.root, options=FAST)
    assert (pushed.digest, pushed.size, pushed.tag) == (made.digest, made.size, "1")
    pulled = layerstore.pull(ref, root=other.root, options=FAST)
    assert (pulled.digest, pulled.is_new, pulled.reference) == (made.digest, True, ref)
    assert digests(other.root) == digests(store.root)
    assert not leftovers(other.root)
    (entry,) = index.read(other).manifests
    assert (entry.media_type, index.name_of(entry)) == (made.media_type, ref)
    assert not layerstore.pull(ref, root=other.root, options=FAST).is_new


@pytest.mark.parametrize("layer_type", [media.OCI_LAYER, media.OCI_LAYER_ZSTD])
def test_layer_types(store: Store, other: Store, registry: str, tmp_path: Path, layer_type: str) -> None:
    """A plain layer is not compressed on its way, and zstd is as good as gzip."""
    ref = name(registry, tmp_path)
    made = image(store, ref, [os.urandom(1000)], layer_type=layer_type)
    layerstore.push(ref, root=store.root, options=FAST)
    assert layerstore.pull(ref, root=other.root, options=FAST).digest == made.digest


def test_nothing_is_sent_or_loaded_twice(store: Store, other: Store, registry: str, tmp_path: Path) -> None:
    shared = os.urandom(100_000)
    with faulty_proxy(registry) as proxy:
        ref = name(proxy.host, tmp_path)
        image(store, ref, [shared, os.urandom(1000)])
        layerstore.push(ref, root=store.root, options=FAST)
        first = len(proxy.requests("^(POST|PATCH) |^PUT .*blobs"))
        layerstore.push(ref, root=store.root, options=FAST)
        assert len(proxy.requests("^(POST|PATCH) |^PUT .*blobs")) == first
        layerstore.pull(ref, root=other.root, options=FAST)
        again = name(proxy.host, tmp_path, "2")
        image(store, again, [shared, b"more"])
        layerstore.push(again, root=store.root, options=FAST)
        proxy.seen.clear()
        layerstore.pull(again, root=other.root, options=FAST)
        assert len(proxy.requests("^GET .*blobs/")) == 2  # the configuration and one layer


def test_mounted_from_another_repository(store: Store, registry: str, tmp_path: Path) -> None:
    with faulty_proxy(registry) as proxy:
        ref = name(proxy.host, tmp_path)
        image(store, ref, [os.urandom(100_000)])
        layerstore.push(ref, root=store.root, options=FAST)
        proxy.seen.clear()
        states: list[str] = []
        layerstore.push(
            ref,
            ref.replace("/app", "/copy"),
            root=store.root,
            options=FAST,
            report=lambda digest, state, done, total: states.append(state),
        )
        assert states.count("mounted") == 2
        assert not proxy.requests("^PATCH|^PUT .*blobs")
        # A name that never was in the registry is no harm.
        image(store, name(proxy.host, tmp_path, "3").replace("/app", "/never"), [b"only here"])
        layerstore.push(
            name(proxy.host, tmp_path, "3").replace("/app", "/never"), ref, root=store.root, options=FAST
        )


def test_several_platforms(store: Store, other: Store, registry: str, tmp_path: Path) -> None:
    """The index is kept with this machine's image; one platform or all can be chosen."""
    ref = name(registry, tmp_path)
    made = multi(store, ref, [("amd64", ""), ("arm64", "v8"), ("arm", "v6"), ("arm", "v7")])
    assert layerstore.push(ref, root=store.root, options=FAST).digest == made.digest
    whole = digests(store.root)
    pulled = layerstore.pull(ref, root=other.root, options=FAST)
    assert pulled.digest == made.digest
    assert len(digests(other.root)) == 4
    assert layerstore.inspect(ref, root=other.root)["RepoDigests"] == [f"{ref[:-2]}@{made.digest}"]
    notes: list[str] = []
    alone = layerstore.push(ref, ref[:-1] + "alone", root=other.root, options=FAST, note=notes.append)
    entries = model.parse_index(blobs.read_blob(store, made)).manifests
    assert alone.digest == entries[0].digest
    assert "lacks some platforms" in notes[0]
    arm = layerstore.pull(ref, platform="arm", root=other.root, options=FAST)
    assert arm.digest == entries[3].digest
    assert layerstore.inspect(ref, root=other.root)["Architecture"] == "arm"
    layerstore.pull(ref, all_platforms=True, root=other.root, options=FAST)
    assert digests(other.root) == whole
    assert layerstore.push(ref, ref[:-1] + "again", root=other.root, options=FAST).digest == made.digest
    with pytest.raises(NotFound, match="no image for linux/s390x; it has linux/amd64, linux/arm/v6"):
        layerstore.pull(ref, platform="s390x", root=other.root, options=FAST)


def test_by_digest(store: Store, other: Store, registry: str, tmp_path: Path) -> None:
    ref = name(registry, tmp_path)
    made = image(store, ref, [b"layer"])
    layerstore.push(ref, root=store.root, options=FAST)
    exact = f"{ref[:-2]}@{made.digest}"
    assert layerstore.pull(exact, root=other.root, options=FAST).reference == exact
    assert layerstore.inspect(exact, root=other.root)["Architecture"] == "amd64"
    (line,) = layerstore.images(root=other.root)
    assert (line.repository, line.tag) == (ref[:-2], None)
    with pytest.raises(MissingRemote, match="MANIFEST_UNKNOWN"):
        layerstore.pull(f"{ref[:-2]}@{Digest.of(b'')}", root=other.root, options=FAST)


def test_what_is_not_there(store: Store, registry: str, tmp_path: Path) -> None:
    ref = name(registry, tmp_path)
    with pytest.raises(MissingRemote, match="404 MANIFEST_UNKNOWN"):
        layerstore.pull(ref, root=store.root, options=FAST)
    with pytest.raises(LayerstoreError, match=r"cannot reach the registry 127.0.0.1:1: .*refused"):
        layerstore.pull("127.0.0.1:1/app", root=store.root)
    with pytest.raises(NotFound, match="no such image"):
        layerstore.push(ref, root=store.root, options=FAST)
    assert not leftovers(store.root)


def test_damaged_blob_of_ours(store: Store, registry: str, tmp_path: Path) -> None:
    ref = name(registry, tmp_path)
    layer = os.urandom(2 * MIB)
    image(store, ref, [layer])
    blobs.path_of(store, Digest.of(layer)).write_bytes(bytes(len(layer)))
    with pytest.raises(LayerstoreError, match=f"blob {Digest.of(layer)}: the content's digest is"):
        layerstore.push(ref, root=store.root, options=FAST)


def test_command_line(store: Store, other: Store, registry: str, tmp_path: Path) -> None:
    """docker's words; and what was pulled can be pushed on under its own name."""
    ref = name(registry, tmp_path)
    made = image(store, "app:1", [b"layer"])
    cli, there = Cli(store.root), Cli(other.root)
    line = f"1: digest: {made.digest} size: {made.size}"
    (diff_id,) = layerstore.inspect("app:1", root=store.root)["RootFS"]["Layers"]
    (blob,) = find.find(store, "app:1").image.manifest.layers
    going, coming = diff_id.short, blob.digest.short
    title = f"The push refers to repository [{ref[:-2]}]"
    assert cli.run("push", "app:1", ref).splitlines() == [
        title,
        f"{going}: Preparing",
        f"{going}: Pushed",
        line,
    ]
    assert there.run("pull", ref).splitlines() == [
        f"1: Pulling from {ref[:-2].partition('/')[2]}",
        f"{coming}: Pulling fs layer",
        f"{coming}: Verifying Checksum",
        f"{coming}: Download complete",
        f"{coming}: Pull complete",
        f"Digest: {made.digest}",
        f"Status: Downloaded newer image for {ref}",
        ref,
    ]
    assert "up to date" in there.run("pull", ref)
    assert there.run("pull", "-q", ref) == ref
    assert there.run("push", ref).splitlines() == [
        title,
        f"{going}: Preparing",
        f"{going}: Layer already exists",
        line,
    ]
    assert there.run("push", "-q", there.run("images", "-q")) == made.digest
    assert "MANIFEST_UNKNOWN" in there.fail("pull", ref + "x")
    assert "invalid reference" in there.fail("pull", "Not/A:reference:")
    assert "no image for linux/s390x" not in there.fail("pull", "--platform", "a/b/c/d", ref)
    there.fail("pull", "--platform", "arm", "--all-platforms", ref, status=2)
    assert "cannot be named by a digest" in cli.fail("push", "app:1", f"{ref}@{made.digest}")


def test_options(store: Store, registry: str, tmp_path: Path) -> None:
    """--tls-verify=false reaches a registry without TLS also where it need not be there."""
    ref = name(registry, tmp_path)
    image(store, ref, [b"layer"])
    cli = Cli(store.root)
    cli.run("push", "--tls-verify=false", "--chunk-size", 3, ref)
    assert "no such directory" in cli.fail("pull", "--cert-dir", "/nowhere", ref)


def test_all_tags(store: Store, other: Store, registry: str, tmp_path: Path) -> None:
    path = f"{registry}/tags/{Digest.of(os.fsencode(tmp_path)).short}"
    made = {tag: image(store, f"{path}:{tag}", [tag.encode()]).digest for tag in ("1", "two", "latest")}
    image(store, f"{path}-other:1", [b"other"])
    ours, theirs = Cli(store.root), Cli(other.root)
    said = [line for line in ours.run("push", "-a", path).splitlines() if "digest: " in line]
    assert [line.split(":")[0] for line in said] == ["1", "latest", "two"]
    pulled = theirs.run("pull", "-a", "-q", path).splitlines()
    assert sorted(pulled) == [f"{path}:{tag}" for tag in sorted(made)]
    assert {str(one.tag): one.digest for one in layerstore.images(path, root=other.root)} == made
    assert theirs.run("pull", path).splitlines()[0] == "Using default tag: latest"
    assert "without a tag" in theirs.fail("pull", "-a", f"{path}:1")
    assert "no image of" in ours.fail("push", "-a", f"{path}-nothing")
    assert "omit REF" in ours.fail("push", "-a", path, "x", status=2)
    assert "404" in theirs.fail("pull", "-a", f"{path}-nothing")
