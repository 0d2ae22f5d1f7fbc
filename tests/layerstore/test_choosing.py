"""Of several images every verb takes the one containerd and skopeo take, however the index is written."""

import io
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import layerstore
from layerstore import media
from layerstore.digest import Digest
from layerstore.errors import NotFound, UnsupportedMedia
from layerstore.image import platforms
from layerstore.store.store import Store
from tests.layerstore.commands import Cli, tarball
from tests.layerstore.test_platforms import put
from tests.layerstore.transport.samples import FAST
from tests.layerstore.transport.scripted import scripted

AMD64 = pytest.mark.skipif(platforms.host_architecture() != "amd64", reason="the order is this machine's")
IN_TOTO = "application/vnd.in-toto+json"


def attestation(cli: Cli, platform: dict[str, str]) -> dict[str, Any]:
    """What buildx puts beside an image: as much like one as can be."""
    layer = put(cli, {"statement": platform})
    config = {
        "architecture": "unknown",
        "os": "unknown",
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": media.OCI_MANIFEST,
        "config": {"mediaType": media.OCI_CONFIG, **put(cli, config)},
        "layers": [{"mediaType": IN_TOTO, **layer}],
    }
    mark = {"vnd.docker.reference.type": "attestation-manifest"}
    return {
        "mediaType": media.OCI_MANIFEST,
        **put(cli, manifest),
        "platform": platform,
        "annotations": mark if platform["os"] != "unknown" else {},
    }


def made(cli: Cli, texts: Sequence[str]) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Entries of an index for these platforms ("": none is said, "?": an attestation), and the image IDs."""
    Store.open(cli.root)
    ids, entries = {}, []
    for text in texts:
        if text.startswith("?"):
            system, _, architecture = (text[1:] or "unknown/unknown").partition("/")
            entries.append(attestation(cli, {"os": system, "architecture": architecture}))
            continue
        tar, name = io.BytesIO(tarball({text.replace("/", "-") or "none": b""})), f"x:{len(entries)}"
        ids[text] = str(layerstore.import_(tar, name, platform=text or "linux/amd64", root=cli.root))
        (image,) = layerstore.images(name, root=cli.root)
        size = (cli.root / "oci/blobs/sha256" / image.digest.hex).stat().st_size
        entry = {"mediaType": media.OCI_MANIFEST, "digest": image.digest, "size": size}
        if text:
            said = platforms.parse(text)
            entry["platform"] = {"os": said.os, "architecture": said.architecture, "variant": said.variant}
        entries.append(entry)
    return entries, ids


def enter(cli: Cli, entries: list[dict[str, Any]]) -> dict[str, object]:
    """Make them the image ``multi:1``."""
    top = put(cli, {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": entries})
    named = {"org.opencontainers.image.ref.name": "multi:1"}
    index = {"schemaVersion": 2, "manifests": [{"mediaType": media.OCI_INDEX, **top, "annotations": named}]}
    (cli.root / "oci/index.json").write_text(json.dumps(index))
    return top


@AMD64
def test_every_verb_takes_the_same(cli: Cli, where: Path) -> None:
    """Not the first: it may be an attestation, or for a better machine."""
    entries, ids = made(cli, ["linux/amd64/v3", "linux/386", "linux/amd64", "linux/arm64"])
    beside = attestation(cli, {"os": "unknown", "architecture": "unknown"})
    disguised = attestation(cli, {"os": "linux", "architecture": "amd64"})
    top = enter(cli, [beside, *entries, disguised])
    mine, root = ids["linux/amd64"], cli.root
    assert cli.objects("images")[0]["ID"] == Digest(mine).short
    assert layerstore.inspect("multi:1", root=root)["Id"] == mine
    assert layerstore.history("multi:1", root=root)[0].id == mine
    layerstore.create("multi:1", name="w", root=root)
    assert layerstore.ps(root=root)[0].image_id == mine
    out = io.BytesIO()
    layerstore.export("multi:1", out, root=root)
    assert b"linux-amd64\0" in out.getvalue()
    layerstore.save(["multi:1"], where / "a.tar", root=root)
    (loaded,) = layerstore.load(str(where / "a.tar"), root=where / "other")
    assert (loaded.image_id, loaded.digest) == (mine, top["digest"])
    with scripted() as registry:
        ref = f"{registry.host}/multi:1"
        assert layerstore.push("multi:1", ref, root=root, options=FAST).digest == top["digest"]
        for every in (False, True):
            place = where / f"pulled-{every}"
            pulled = layerstore.pull(ref, all_platforms=every, root=place, options=FAST)
            assert (pulled.image_id, pulled.digest) == (mine, top["digest"])
            assert layerstore.inspect(ref, root=place)["Id"] == mine
            again = f"{registry.host}/again:{every}"
            notes: list[str] = []
            pushed = layerstore.push(ref, again, root=place, options=FAST, note=notes.append)
            assert (pushed.digest == top["digest"]) == every
            assert notes == (
                [] if every else [f"the store lacks some platforms of {ref}: pushing only linux/amd64"]
            )
        oci = f"oci:{where / 'skopeo'}"
        copy = ["skopeo", "--override-arch=amd64", "copy", "--src-tls-verify=false", f"docker://{ref}", oci]
        subprocess.run(copy, check=True, capture_output=True)
        manifest = json.loads((where / "skopeo/index.json").read_text())["manifests"][0]["digest"]
        config = json.loads((where / "skopeo/blobs/sha256" / manifest[7:]).read_text())["config"]
        assert config["digest"] == mine


STAND_INS = [
    ("linux/arm/v7", ["linux/arm64", "linux/arm/v5", "linux/arm/v6"], "linux/arm/v6"),
    ("linux/arm/v7", ["linux/arm/v8", "linux/arm/v5"], "linux/arm/v5"),
    ("linux/arm", ["linux/arm/v5", "linux/arm/v6"], "linux/arm/v6"),
    ("linux/armhf", ["linux/arm/v6", "linux/arm"], "linux/arm"),
    ("linux/amd64/v3", ["linux/386", "linux/amd64/v4", "linux/amd64", "linux/amd64/v2"], "linux/amd64/v2"),
    ("linux/amd64/v2", ["linux/386", "linux/amd64/v3", "linux/amd64"], "linux/amd64"),
    ("linux/amd64", ["linux/arm", "linux/386"], "linux/386"),
    ("linux/amd64/v1", ["linux/amd64/v2", "linux/amd64"], "linux/amd64"),
    ("linux/arm64", ["linux/arm/v7", "linux/arm64/v9", "linux/arm/v8"], "linux/arm/v8"),
    ("linux/arm64/v8", ["linux/arm64/v8.1", "linux/arm/v5"], "linux/arm/v5"),
    ("linux/arm64/v9.1", ["linux/arm64", "linux/arm64/v8.6", "linux/arm64/v8.7"], "linux/arm64/v8.6"),
    ("linux/arm64/v9.1", ["linux/arm64/v8.6", "linux/arm64/v9", "linux/arm64/v9.2"], "linux/arm64/v9"),
    ("linux/ppc64le", ["linux/ppc64", "linux/ppc64le/power9"], "linux/ppc64le/power9"),
    (
        "windows(10.0.17763)/amd64",
        ["windows(10.0.2)/amd64", "windows(10.0.17763.55)/amd64"],
        "windows(10.0.17763.55)/amd64",
    ),
    ("linux/amd64", ["?", "?linux/amd64", "linux/amd64"], "linux/amd64"),
]


@pytest.mark.parametrize(("wanted", "offered", "chosen"), STAND_INS)
def test_what_stands_in(wanted: str, offered: list[str], chosen: str, cli: Cli) -> None:
    """containerd's order, from the store and from a registry."""
    entries, ids = made(cli, offered)
    for entry, text in zip(entries, offered, strict=True):
        if version := platforms.parse(text.strip("?") or "x").os_version:
            entry["platform"]["os.version"] = version
    enter(cli, entries)
    root = cli.root
    assert layerstore.inspect("multi:1", platform=wanted, root=root)["Id"] == ids[chosen]
    if "?" not in offered:
        with scripted() as registry:
            ref = f"{registry.host}/multi:1"
            layerstore.push("multi:1", ref, root=root, options=FAST)
            other = root.parent / "other"
            assert layerstore.pull(ref, platform=wanted, root=other, options=FAST).image_id == ids[chosen]


@pytest.mark.parametrize(
    ("wanted", "offered"),
    [
        ("linux/amd64", ["linux/amd64/v2"]),
        ("linux/arm/v6", ["linux/arm/v7"]),
        ("linux/arm64/v8", ["linux/arm64/v8.2"]),
        ("linux/386", ["linux/amd64"]),
        ("linux/amd64", ["freebsd/amd64"]),
        ("windows(10.0.17763)/amd64", ["windows/arm64"]),
    ],
)
def test_what_does_not(wanted: str, offered: list[str], cli: Cli) -> None:
    entries, _ = made(cli, offered)
    enter(cli, entries)
    with pytest.raises(NotFound, match="has no image for"):
        layerstore.inspect("multi:1", platform=wanted, root=cli.root)


def test_features_that_nobody_has(cli: Cli) -> None:
    """An image that needs more than plain Linux is the last choice."""
    entries, ids = made(cli, ["linux/arm64", "linux/arm64/v8"])
    entries[0]["platform"]["os.features"] = ["erofs"]
    enter(cli, entries)
    assert layerstore.inspect("multi:1", platform="arm64", root=cli.root)["Id"] == ids["linux/arm64/v8"]


def test_no_platform_is_said(cli: Cli, where: Path) -> None:
    """Then the image itself says it; an index around it may say it too."""
    entries, ids = made(cli, ["linux/arm64", "", "linux/s390x"])
    for entry in entries:
        entry.pop("platform", None)
    nested = put(cli, {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": entries[:2]})
    around = {"mediaType": media.OCI_INDEX, **nested}
    for top in (entries, [around, entries[2]], [{**entries[2], "platform": None}, around]):
        digest = enter(cli, top)["digest"]
        with scripted() as registry:
            ref = f"{registry.host}/multi:1"
            layerstore.push("multi:1", ref, root=cli.root, options=FAST)
            for wanted, text in (("amd64", ""), ("arm64", "linux/arm64"), ("s390x", "linux/s390x")):
                assert layerstore.inspect("multi:1", platform=wanted, root=cli.root)["Id"] == ids[text]
                other = where / "other"
                assert layerstore.pull(ref, platform=wanted, root=other, options=FAST).image_id == ids[text]
            with pytest.raises(NotFound, match="no image for linux/riscv64; it has linux/amd64"):
                layerstore.pull(ref, platform="riscv64", root=other, options=FAST)
            every = layerstore.pull(ref, all_platforms=True, root=where / "every", options=FAST)
            assert every.digest == digest
            assert layerstore.fsck(root=where / "every").problems == []


def test_all_platforms_but_ours(cli: Cli, where: Path) -> None:
    """An image for other machines alone can be had whole, nested indexes and all."""
    entries, ids = made(cli, ["?", "linux/s390x", "linux/riscv64"])
    nested = put(cli, {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": entries[1:]})
    top = enter(cli, [entries[0], {"mediaType": media.OCI_INDEX, **nested}])
    with scripted() as registry:
        ref = f"{registry.host}/multi:1"
        layerstore.push("multi:1", ref, root=cli.root, options=FAST)
        other = Store.open(where / "other")
        pulled = layerstore.pull(ref, all_platforms=True, root=other.root, options=FAST)
        assert (pulled.digest, pulled.image_id) == (top["digest"], ids["linux/s390x"])
        assert layerstore.inspect(ref, platform="riscv64", root=other.root)["Id"] == ids["linux/riscv64"]
        assert (
            layerstore.push(ref, f"{registry.host}/b:1", root=other.root, options=FAST).digest
            == top["digest"]
        )


def test_an_image_for_one_platform(cli: Cli, where: Path) -> None:
    """Asked for another, there is none: it is not taken for what it is not."""
    layerstore.import_(io.BytesIO(tarball({"x": b""})), "arm:1", platform="linux/arm/v6", root=cli.root)
    with scripted() as registry:
        ref = f"{registry.host}/arm:1"
        layerstore.push("arm:1", ref, root=cli.root, options=FAST)
        for wanted in ("linux/amd64", "linux/arm/v5"):
            for taken in (
                lambda wanted: layerstore.pull(ref, platform=wanted, root=where / "other", options=FAST),
                lambda wanted: layerstore.inspect("arm:1", platform=wanted, root=cli.root),
                lambda wanted: layerstore.push("arm:1", ref, platform=wanted, root=cli.root, options=FAST),
            ):
                with pytest.raises(NotFound, match=r"has no image for .*; it has linux/arm/v6"):
                    taken(wanted)
        assert layerstore.images(root=where / "other") == []
        layerstore.pull(ref, platform="linux/arm/v7", root=where / "other", options=FAST)


def test_attestations_alone(cli: Cli) -> None:
    entries, _ = made(cli, ["?", "?linux/amd64"])
    enter(cli, entries)
    with pytest.raises(UnsupportedMedia, match="has no image for"):
        layerstore.inspect("multi:1", platform="amd64", root=cli.root)


def test_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a machine calls itself."""
    for name, text in {
        "x86_64": "linux/amd64",
        "aarch64": "linux/arm64",
        "armv7l": "linux/arm/v7",
        "armv6l": "linux/arm/v6",
        "i686": "linux/386",
        "riscv64": "linux/riscv64",
    }.items():
        monkeypatch.setattr("platform.machine", lambda name=name: name)
        assert platforms.shown(platforms.host()) == text
