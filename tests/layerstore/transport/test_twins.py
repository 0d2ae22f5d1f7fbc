"""Images that a registry has under docker's types, read in place and by name by tools that know OCI's."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

import layerstore
from layerstore import media
from layerstore.digest import Digest
from layerstore.store import index
from layerstore.store.store import Store
from tests.layerstore.archives import config_of, dumps, sha
from tests.layerstore.commands import ROOTFS, Cli, tarball
from tests.layerstore.transport.samples import FAST
from tests.layerstore.transport.scripted import scripted

pytestmark = pytest.mark.root
ARCHITECTURES = ("amd64", "arm64")


def docker_manifest(file: str, architecture: str) -> tuple[bytes, list[bytes]]:
    layer = tarball({**ROOTFS, file: b""})
    config = dumps(
        {**json.loads(config_of(layer)), "architecture": architecture, "history": [{"created_by": "x"}]}
    )
    document = {
        "schemaVersion": 2,
        "mediaType": media.DOCKER_MANIFEST,
        "config": described(media.DOCKER_CONFIG, config),
        "layers": [described(media.DOCKER_LAYER, layer)],
    }
    return dumps(document), [config, layer]


def described(kind: str, raw: bytes, **more: Any) -> dict[str, Any]:
    return {"mediaType": kind, "digest": f"sha256:{sha(raw)}", "size": len(raw), **more}


@pytest.fixture
def ref() -> Any:
    """A reference to a docker image; ``:list`` is one for two platforms."""
    with scripted() as script:
        entries = []
        for architecture in ARCHITECTURES:
            raw, contents = docker_manifest(architecture, architecture)
            script.blobs.update({str(Digest.of(blob)): blob for blob in contents})
            script.manifests["1"] = script.manifests[str(Digest.of(raw))] = media.DOCKER_MANIFEST, raw
            platform = {"os": "linux", "architecture": architecture}
            entries.append(described(media.DOCKER_MANIFEST, raw, platform=platform))
        top = dumps({"schemaVersion": 2, "mediaType": media.DOCKER_INDEX, "manifests": entries})
        script.manifests["list"] = script.manifests[str(Digest.of(top))] = media.DOCKER_INDEX, top
        yield f"{script.host}/app"


def tool(*words: object) -> str:
    done = subprocess.run(
        [os.fspath(word) if isinstance(word, Path) else str(word) for word in words],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def others_read(cli: Cli, name: str, where: Path, file: str) -> None:
    """skopeo and umoci find the image by its name and unpack it."""
    oci = cli.root / "oci"
    assert json.loads(tool("skopeo", "inspect", f"oci:{oci}:{name}"))["Architecture"] == file
    new = f"{file}-{len(os.listdir(where))}"
    tool("skopeo", "copy", "-q", f"oci:{oci}:{name}", f"docker-archive:{where}/{new}.tar")
    bundle = where / f"bundle-{new}"
    tool("umoci", "unpack", "--rootless", "--image", f"{oci}:{name}", bundle)
    assert (bundle / "rootfs" / file).exists()


def test_by_name(ref: str, cli: Cli, where: Path) -> None:
    """The image keeps its digest, and has one entry for everybody who asks us."""
    pulled = layerstore.pull(f"{ref}:1", root=cli.root, options=FAST)
    others_read(cli, f"{ref}:1", where, "arm64")
    cli.run("tag", f"{ref}:1", "mine:2")
    others_read(cli, "mine:2", where, "arm64")
    entries = index.read(Store.open(cli.root)).manifests
    assert {(entry.digest, entry.media_type) for entry in entries} == {(pulled.digest, media.DOCKER_MANIFEST)}
    assert sorted(filter(None, map(index.name_of, entries))) == sorted([f"{ref}:1", "mine:2"])
    assert len(cli.objects("images")) == 2
    pushed = layerstore.push("mine:2", f"{ref}:again", root=cli.root, options=FAST)
    assert pushed.digest == pulled.digest
    assert layerstore.fsck(root=cli.root).problems == []


def test_it_goes_with_its_image(ref: str, cli: Cli, where: Path) -> None:
    layerstore.pull(f"{ref}:1", root=cli.root, options=FAST)
    cli.run("tag", f"{ref}:1", "mine:2")
    layerstore.prune(root=cli.root)
    cli.run("rmi", f"{ref}:1")
    others_read(cli, "mine:2", where, "arm64")
    assert tool("umoci", "ls", "--layout", cli.root / "oci") == "mine:2\n"
    tool("umoci", "gc", "--layout", cli.root / "oci")
    assert layerstore.fsck(root=cli.root).problems == []
    cli.run("rmi", "mine:2")
    assert list((cli.root / "oci/blobs/sha256").iterdir()) == []
    assert json.loads((cli.root / "oci/index.json").read_text())["manifests"] == []


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the list has an image for amd64 and arm64")
def test_lists(ref: str, cli: Cli, where: Path) -> None:
    """Of an image for several platforms the others see what is here."""
    pulled = layerstore.pull(f"{ref}:list", root=cli.root, options=FAST)
    others_read(cli, f"{ref}:list", where, "amd64")
    layerstore.pull(f"{ref}:list", all_platforms=True, root=cli.root, options=FAST)
    said = tool("skopeo", "--override-arch=arm64", "inspect", f"oci:{cli.root}/oci:{ref}:list")
    assert json.loads(said)["Architecture"] == "arm64"
    (line,) = layerstore.images(root=cli.root)
    assert line.digest == pulled.digest
    assert layerstore.push(f"{ref}:list", f"{ref}:b", root=cli.root, options=FAST).digest == pulled.digest
    assert layerstore.fsck(root=cli.root).problems == []


def test_what_others_change(ref: str, cli: Cli, where: Path) -> None:
    """A name that umoci gives is one, and an image that it changes is another."""
    pulled = layerstore.pull(f"{ref}:1", root=cli.root, options=FAST)
    oci = cli.root / "oci"
    tool("umoci", "tag", "--image", f"{oci}:{ref}:1", "theirs")
    tool("umoci", "config", "--image", f"{oci}:{ref}:1", "--author", "me")
    found = {index.name_of(entry): entry.digest for entry in index.read(Store.open(cli.root)).manifests}
    assert found["theirs"] == pulled.digest
    assert found[f"{ref}:1"] != pulled.digest
    assert layerstore.inspect(f"{ref}:1", root=cli.root)["Author"] == "me"
    tool("umoci", "rm", "--image", f"{oci}:theirs")
    assert "theirs" not in [line.tag for line in layerstore.images(root=cli.root)]
    assert layerstore.fsck(root=cli.root).problems == []


def test_loaded_and_committed(ref: str, cli: Cli, where: Path) -> None:
    """An archive keeps docker's manifest, and no twin; a child is an OCI image as ever."""
    pulled = layerstore.pull(f"{ref}:1", root=cli.root, options=FAST)
    layerstore.save([f"{ref}:1"], where / "a.tar", root=cli.root)
    (loaded,) = layerstore.load(str(where / "a.tar"), root=where / "other")
    assert loaded.digest == pulled.digest
    others_read(Cli(where / "other"), f"{ref}:1", where, "arm64")
    name = layerstore.create(f"{ref}:1", root=cli.root)
    layerstore.commit(name, "child:1", changes=["ENV a=b"], root=cli.root)
    others_read(cli, "child:1", where, "arm64")
