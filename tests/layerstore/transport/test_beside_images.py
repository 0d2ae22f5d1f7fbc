"""Signatures, SBOMs, charts and the like lie among images: what is an image is taken, the rest told."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import layerstore
from layerstore import media
from layerstore.digest import Digest
from layerstore.errors import LayerstoreError, UnsupportedMedia
from layerstore.store.store import Store
from tests.layerstore.archives import config_of, dumps, layout, pack, sha
from tests.layerstore.commands import ROOTFS, Cli, tarball
from tests.layerstore.transport.samples import FAST
from tests.layerstore.transport.scripted import Answer, Scripted, scripted

EMPTY = "application/vnd.oci.empty.v1+json"
NAME = "org.opencontainers.image.ref.name"


def described(kind: str, raw: bytes, **more: Any) -> dict[str, Any]:
    return {"mediaType": kind, "digest": f"sha256:{sha(raw)}", "size": len(raw), **more}


def artifact(config_type: str, config: bytes, layer_type: str, **more: Any) -> tuple[bytes, list[bytes]]:
    """A manifest of something, and its blobs."""
    layer = f"a {layer_type}".encode()
    document = {
        "schemaVersion": 2,
        "mediaType": media.OCI_MANIFEST,
        "config": described(config_type, config),
        "layers": [described(layer_type, layer)],
        **more,
    }
    return dumps(document), [config, layer]


SUBJECT = described(media.OCI_MANIFEST, b"an image")
ARTIFACTS = {
    # cosign's signatures have an image's configuration.
    "cosign": artifact(
        media.OCI_CONFIG,
        dumps(
            {
                "architecture": "",
                "os": "",
                "config": {},
                "rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha(b'')}"]},
            }
        ),
        "application/vnd.dev.cosign.simplesigning.v1+json",
    ),
    "helm": artifact(
        "application/vnd.cncf.helm.config.v1+json",
        b'{"name":"x"}',
        "application/vnd.cncf.helm.chart.content.v1.tar+gzip",
    ),
    "sbom": artifact(
        EMPTY, b"{}", "application/spdx+json", artifactType="application/spdx+json", subject=SUBJECT
    ),
    "wasm": artifact("application/vnd.wasm.config.v0+json", b"{ }", "application/wasm"),
    "empty": artifact(EMPTY, b"{}", EMPTY, artifactType="application/vnd.example+type"),
    "attestation": artifact(
        media.OCI_CONFIG,
        dumps({"architecture": "unknown", "os": "unknown", "rootfs": None}),
        "application/vnd.in-toto+json",
    ),
}


def referrers() -> bytes:
    """What registries without referrers have under the tag ``sha256-HEX``: an index of artifacts."""
    entries = [
        described(media.OCI_MANIFEST, raw, artifactType="application/spdx+json")
        for raw, _ in ARTIFACTS.values()
    ]
    return dumps({"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": entries})


def image(file: str) -> tuple[bytes, list[bytes]]:
    layer = tarball({**ROOTFS, file: b""})
    config = config_of(layer)
    document = {
        "schemaVersion": 2,
        "mediaType": media.OCI_MANIFEST,
        "config": described(media.OCI_CONFIG, config),
        "layers": [described(media.OCI_LAYER, layer)],
    }
    return dumps(document), [config, layer]


def with_attestation(manifest: bytes) -> bytes:
    """buildx's index around an image."""
    unknown = {"os": "unknown", "architecture": "unknown"}
    entries = [
        described(media.OCI_MANIFEST, ARTIFACTS["attestation"][0], platform=unknown),
        described(media.OCI_MANIFEST, manifest, platform={"os": "linux", "architecture": "amd64"}),
        described("application/vnd.oci.artifact.manifest.v1+json", b'{"blobs":[]}', artifactType="x/y"),
    ]
    return dumps({"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": entries})


ONE, TWO = image("one"), image("two")
MARK = f"sha256-{sha(ONE[0])}"


@pytest.fixture
def filled() -> Any:
    """A registry with a repository of all kinds."""
    with scripted() as script:
        tags = {
            "1": (media.OCI_MANIFEST, ONE[0]),
            f"{MARK}.sig": (media.OCI_MANIFEST, ARTIFACTS["cosign"][0]),
            MARK: (media.OCI_INDEX, referrers()),
            "chart": (media.OCI_MANIFEST, ARTIFACTS["helm"][0]),
            "old": ("application/vnd.docker.distribution.manifest.v1+prettyjws", b'{"schemaVersion":1}'),
            "artifact": ("application/vnd.oci.artifact.manifest.v1+json", b'{"blobs":[]}'),
            "sbom": (media.OCI_MANIFEST, ARTIFACTS["sbom"][0]),
            "windows": (media.OCI_INDEX, windows()),
            "z": (media.OCI_INDEX, with_attestation(TWO[0])),
        }
        for tag, (kind, raw) in tags.items():
            script.manifests[tag] = script.manifests[str(Digest.of(raw))] = kind, raw
        for manifest, contents in (*ARTIFACTS.values(), ONE, TWO):
            script.manifests[str(Digest.of(manifest))] = media.OCI_MANIFEST, manifest
            script.blobs.update({str(Digest.of(blob)): blob for blob in contents})
        script.answers["tags/list"] = Answer(200, dumps({"name": "app", "tags": [*tags]}))
        yield script


def windows() -> bytes:
    entry = described(media.OCI_MANIFEST, b"none", platform={"os": "windows", "architecture": "amd64"})
    return dumps({"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": [entry]})


NO_IMAGES = (f"{MARK}.sig", MARK, "chart", "old", "artifact", "sbom", "windows")


def test_pull_of_all_tags(filled: Scripted, cli: Cli) -> None:
    """The images come, each of the rest is told in a line, and that is no failure."""
    done = cli.call("pull", "-a", f"{filled.host}/app")
    remarks = done.stderr.decode().splitlines()
    assert done.returncode == 0, remarks
    assert {line.partition(" is left out: ")[0] for line in remarks} == {
        f"layerstore: {filled.host}/app:{tag}" for tag in NO_IMAGES
    }
    named = sorted(str(line.tag) for line in layerstore.images(root=cli.root))
    assert named == ["1", "z"]
    assert layerstore.fsck(root=cli.root).problems == []


@pytest.mark.parametrize("tag", NO_IMAGES)
def test_pull_of_that_tag(filled: Scripted, cli: Cli, tag: str) -> None:
    """Asked for by name it is an error, and nothing stays."""
    said = cli.fail("pull", f"{filled.host}/app:{tag}")
    assert "image" in said or "media type" in said
    assert list((cli.root / "oci/blobs/sha256").iterdir()) == []


def test_nothing_but_other_things(filled: Scripted, cli: Cli) -> None:
    filled.answers["tags/list"] = Answer(200, dumps({"name": "app", "tags": ["chart", "sbom"]}))
    done = cli.call("pull", "-a", f"{filled.host}/app")
    assert done.returncode == 1
    assert (
        done.stderr.decode().splitlines()[-1]
        == f"layerstore: no image of {filled.host}/app is usable on this machine"
    )


def test_another_failure_ends_it(filled: Scripted, cli: Cli) -> None:
    filled.answers[f"blobs/{Digest.of(ONE[1][1])}"] = Answer(404)
    assert "404" in cli.fail("pull", "-a", f"{filled.host}/app")


def test_all_platforms(filled: Scripted, other: Store) -> None:
    """What an index has beside images comes along, and goes along when it is pushed."""
    del filled.manifests["z"]
    entries = json.loads(with_attestation(TWO[0]))
    entries["manifests"].pop()
    raw = dumps(entries)
    filled.manifests["z"] = media.OCI_INDEX, raw
    pulled = layerstore.pull(f"{filled.host}/app:z", all_platforms=True, root=other.root, options=FAST)
    assert pulled.digest == Digest.of(raw)
    assert (
        layerstore.push(f"{filled.host}/app:z", f"{filled.host}/b:z", root=other.root, options=FAST).digest
        == pulled.digest
    )
    assert layerstore.fsck(root=other.root).problems == []


def set_of(*named: tuple[str, str, bytes], blobs: list[bytes]) -> dict[str, bytes]:
    """An oci-archive of these documents (name, media type, content)."""
    entries = [described(kind, raw, annotations={NAME: name}) for name, kind, raw in named]
    everything = [*blobs, *(raw for _, _, raw in named)]
    return {
        **{f"blobs/sha256/{sha(raw)}": raw for raw in everything},
        "index.json": dumps({"schemaVersion": 2, "manifests": entries}),
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
    }


def artifacts() -> tuple[list[tuple[str, str, bytes]], list[bytes]]:
    named = [(f"{kind}:1", media.OCI_MANIFEST, raw) for kind, (raw, _) in ARTIFACTS.items()]
    named += [("referrers:1", media.OCI_INDEX, referrers()), ("odd:1", "application/x-odd", b'{"x":1}')]
    return named, [blob for _, contents in ARTIFACTS.values() for blob in contents]


def test_load_of_a_set(cli: Cli) -> None:
    named, contents = artifacts()
    contents += [*ONE[1], *TWO[1], TWO[0], b'{"blobs":[]}']
    images = [("one:1", media.OCI_MANIFEST, ONE[0]), ("two:1", media.OCI_INDEX, with_attestation(TWO[0]))]
    done = cli.call("load", stdin=pack(set_of(*named[:3], *images, *named[3:], blobs=contents)))
    assert done.returncode == 0, done.stderr
    assert done.stdout == b"Loaded image: one:1\nLoaded image: two:1\n"
    left_out = {line.partition(" is left out: ")[0] for line in done.stderr.decode().splitlines()}
    assert left_out == {f"layerstore: {name}" for name, _, _ in named}
    assert layerstore.fsck(root=cli.root).problems == []
    for name in ("one:1", "two:1"):
        cli.run("rmi", name)
    assert list((cli.root / "oci/blobs/sha256").iterdir()) == []


@pytest.mark.parametrize("number", range(len(ARTIFACTS) + 2))
def test_load_of_that_alone(cli: Cli, number: int) -> None:
    named, contents = artifacts()
    said = cli.fail("load", stdin=pack(set_of(named[number], blobs=contents)))
    assert "not an image" in said or "media type" in said
    assert list((cli.root / "oci/blobs/sha256").iterdir()) == []


def test_a_broken_image_is_no_other_thing(cli: Cli) -> None:
    """Something of an image missing is an error as before, and nothing is stored."""
    named, contents = artifacts()
    archive = set_of(*named, ("one:1", media.OCI_MANIFEST, ONE[0]), blobs=[*contents, ONE[1][0]])
    assert "is missing" in cli.fail("load", stdin=pack(archive))
    assert list((cli.root / "oci/blobs/sha256").iterdir()) == []


def test_both_documents(cli: Cli) -> None:
    """docker's manifest.json beside a layout with other things."""
    files: dict[str, bytes] = layout(name="oci:1")
    entries = json.loads(files["index.json"])
    chart, contents = ARTIFACTS["helm"]
    entries["manifests"].insert(0, described(media.OCI_MANIFEST, chart, annotations={NAME: "chart:1"}))
    files["index.json"] = dumps(entries)
    files.update({f"blobs/sha256/{sha(raw)}": raw for raw in (chart, *contents)})
    done = cli.call("load", stdin=pack(files))
    assert (done.returncode, done.stdout) == (0, b"Loaded image: oci:1\n")


def test_all_tags_of_the_store(cli: Cli, where: Path) -> None:
    """push -a and save of a repository in which another tool put a chart."""
    cli.run("load", stdin=pack(layout(name="app:1")))
    chart, contents = ARTIFACTS["helm"]
    for raw in (chart, *contents):
        (cli.root / "oci/blobs/sha256" / sha(raw)).write_bytes(raw)
    place = cli.root / "oci/index.json"
    index = json.loads(place.read_text())
    with scripted() as script:
        for entry in list(index["manifests"]):
            entry["annotations"][NAME] = f"{script.host}/app:1"
        mark = {NAME: f"{script.host}/app:chart"}
        index["manifests"].insert(0, described(media.OCI_MANIFEST, chart, annotations=mark))
        place.write_text(json.dumps(index))
        for words in (("push", "-a"), ("save", "-o", where / "a.tar")):
            done = cli.call(*words, f"{script.host}/app")
            assert done.returncode == 0, done.stderr
            assert done.stderr.decode().startswith(f"layerstore: {script.host}/app:chart is left out: ")
        assert [*script.manifests][:1] == ["1"]
        assert "chart" not in script.manifests
    assert "not an image" in cli.fail("save", "-o", where / "b.tar", f"{script.host}/app:chart")
    assert len(layerstore.load(str(where / "a.tar"), root=where / "other")) == 1


def test_in_the_store(cli: Cli) -> None:
    """What another tool put there is left alone: listed by nobody, needed by it, and no problem to fsck."""
    cli.run("load", stdin=pack(layout()))
    named, contents = artifacts()
    files: Mapping[str, bytes] = set_of(*named, blobs=contents)
    for path, raw in files.items():
        if path.startswith("blobs/"):
            (cli.root / "oci" / path).write_bytes(raw)
    place = cli.root / "oci/index.json"
    index = json.loads(place.read_text())
    index["manifests"] += json.loads(files["index.json"])["manifests"]
    place.write_text(json.dumps(index))
    assert [line.repository for line in layerstore.images(root=cli.root)] == ["oci"]
    result = layerstore.fsck(repair=True, root=cli.root)
    assert result.problems == []
    layerstore.prune(root=cli.root)
    cli.run("rmi", "oci:1")
    assert {path.name for path in (cli.root / "oci/blobs/sha256").iterdir()} == {
        Path(path).name for path in files if path.startswith("blobs/")
    }
    with pytest.raises(UnsupportedMedia):
        layerstore.inspect("helm:1", root=cli.root)
    with pytest.raises(LayerstoreError):
        layerstore.push("cosign:1", "127.0.0.1:1/x:1", root=cli.root, options=FAST)
