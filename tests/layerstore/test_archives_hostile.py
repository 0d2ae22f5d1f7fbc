"""Archives that try something: refused in one line, and nothing of them stays."""

import gzip
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import layerstore
from layerstore.errors import LayerstoreError
from layerstore.store.store import Store
from tests.layerstore.archives import LAYER, config_of, dumps, layout, link, old_docker, pack, sha
from tests.layerstore.commands import contents

Files = dict[str, Any]


def docker(**changes: Any) -> Files:
    """An old docker-archive whose ``manifest.json`` says something else."""
    files = old_docker()
    item = {**json.loads(files["manifest.json"])[0], **changes}
    return {**files, "manifest.json": dumps([item])}


def blob(data: bytes) -> dict[str, Any]:
    return {
        "mediaType": "application/vnd.oci.image.layer.v1.tar",
        "digest": f"sha256:{sha(data)}",
        "size": len(data),
    }


def described(**changes: Any) -> dict[str, Any]:
    return {"manifest": {"layers": [{**blob(LAYER), **changes}]}}


def without(files: Files, name: str) -> Files:
    return {key: value for key, value in files.items() if key != name}


def replaced(files: Files, **documents: Any) -> Files:
    return {**files, **{name.replace("_", "."): value for name, value in documents.items()}}


def layer_name() -> str:
    return f"blobs/sha256/{sha(LAYER)}"


def another_image() -> Files:
    other = config_of()
    item = {"Config": f"{sha(other)}.json", "RepoTags": ["oci:1"], "Layers": []}
    return {**layout(), f"{sha(other)}.json": other, "manifest.json": dumps([item])}


def deep(count: int) -> bytes:
    return b"[" * count + b"]" * count


CASES: dict[str, tuple[Callable[[], Any], str]] = {
    # Paths in manifest.json and names of members never become paths.
    "config outside": (lambda: docker(Config="../../../../etc/passwd"), "points outside"),
    "config absolute": (lambda: docker(Config="/etc/passwd"), "points outside"),
    "config missing": (lambda: docker(Config="0" * 64 + ".json"), "is missing"),
    "config is something else": (
        lambda: {**docker(Config="f" * 64 + ".json"), "f" * 64 + ".json": b"{}"},
        "digest",
    ),
    "layer outside": (lambda: docker(Layers=["../../etc/passwd"]), "points outside"),
    "layer a directory": (lambda: docker(Layers=["1" * 64]), "is missing"),
    "layer with NUL": (lambda: docker(Layers=["a\0b"]), "points outside"),
    "layers too few": (lambda: docker(Layers=[]), "0 layers"),
    "layer of another image": (lambda: old_docker(layer=LAYER + b"x"), "diffID"),
    "member outside": (lambda: {**layout(), "../evil": b"x"}, "points outside"),
    "member absolute": (lambda: {**layout(), "/etc/evil": b"x"}, "points outside"),
    "member within, then outside": (lambda: {**layout(), "a/../../evil": b"x"}, "points outside"),
    # Links are names within the archive or nothing.
    "layer a link to the host": (
        lambda: {**docker(Layers=["l"]), "l": link("/etc/passwd")},
        "points outside",
    ),
    "layer a link upwards": (
        lambda: {**docker(Layers=["l"]), "l": link("../../etc/passwd")},
        "points outside",
    ),
    "layer a link to nothing": (lambda: {**docker(Layers=["l"]), "l": link("etc/passwd")}, "is missing"),
    "layer a link in a circle": (
        lambda: {**docker(Layers=["l"]), "l": link("m"), "m": link("l")},
        "is missing",
    ),
    "index.json a link": (
        lambda: {**without(layout(), "index.json"), "index.json": link("i"), "i": b"{}"},
        "a link",
    ),
    "manifest.json a link": (lambda: {**old_docker(), "manifest.json": link("m"), "m": b"[]"}, "a link"),
    "blob a symlink": (
        lambda: {**without(layout(), layer_name()), layer_name(): link("../../x")},
        "is a link",
    ),
    "blob a hard link": (
        lambda: {**without(layout(), layer_name()), layer_name(): link("x", tarfile.LNKTYPE), "x": LAYER},
        "is a link",
    ),
    "blob a device": (
        lambda: {**without(layout(), layer_name()), layer_name(): link("", tarfile.CHRTYPE)},
        "not an ordinary file",
    ),
    "a fifo": (lambda: {**layout(), "x": link("", tarfile.FIFOTYPE)}, "not an ordinary file"),
    # Digests, sizes, types.
    "blob with another content": (lambda: {**layout(), layer_name(): b"something else"}, "digest is"),
    "blob name upper case": (lambda: {**layout(), "blobs/sha256/" + "A" * 64: b"x"}, "not a sha256 digest"),
    "blob name short": (lambda: {**layout(), "blobs/sha256/abc": b"x"}, "not a sha256 digest"),
    "blob of another algorithm": (lambda: {**layout(), "blobs/md5/" + "a" * 64: b"x"}, "not a sha256 digest"),
    "digest a path": (
        lambda: layout(**described(digest="sha256:../../../../etc/passwd")),
        "not a sha256 digest",
    ),
    "index entry a path": (
        lambda: layout(entry={"digest": "sha256:../../index.json"}),
        "not a sha256 digest",
    ),
    "size too small": (lambda: layout(**described(size=1)), "missing"),
    "size too big": (lambda: layout(**described(size=1 << 40)), "missing"),
    "size negative": (lambda: layout(**described(size=-1)), "impossible"),
    "size beyond all": (lambda: layout(**described(size=1 << 70)), "impossible"),
    "layer of an unknown type": (
        lambda: layout(**described(mediaType="text/plain")),
        "unsupported media type",
    ),
    "layer missing": (lambda: without(layout(), layer_name()), "is missing"),
    "manifest is an index too": (lambda: layout(manifest={"manifests": []}), "both layers and manifests"),
    "index is a manifest too": (
        lambda: replaced(layout(), index_json=dumps({"schemaVersion": 2, "manifests": [], "layers": []})),
        "fields of a manifest",
    ),
    "manifest of the wrong type": (
        lambda: layout(manifest={"mediaType": "application/vnd.oci.image.index.v1+json"}),
        "but its descriptor says",
    ),
    "entry of no image": (lambda: layout(entry={"mediaType": "text/plain"}), "invalid manifest"),
    # Two readings.
    "another image by that name": (another_image, "two different images"),
    "a file twice": (lambda: [*layout().items(), ("index.json", b"{}")], "occurs twice"),
    # Sizes and shapes of documents.
    "deep manifest.json": (lambda: replaced(old_docker(), manifest_json=deep(100)), "nested deeper"),
    "manifest.json an object": (lambda: replaced(old_docker(), manifest_json=b"{}"), "manifest.json"),
    "manifest.json huge": (lambda: replaced(old_docker(), manifest_json=b" " * (5 << 20)), "larger than"),
    "layout of the future": (
        lambda: {**layout(), "oci-layout": b'{"imageLayoutVersion":"2.0.0"}'},
        "version",
    ),
    "no oci-layout": (lambda: without(layout(), "oci-layout"), "oci-layout"),
    "index.json no JSON": (lambda: replaced(layout(), index_json=b"\xff\xfe"), "invalid index"),
}


@pytest.mark.parametrize("case", CASES)
def test_refused(case: str, where: Path) -> None:
    make, words = CASES[case]
    root = where / "store"
    Store.open(root)
    before = contents(root)
    archive = where / "archive"
    archive.write_bytes(pack(make()))
    with pytest.raises(LayerstoreError) as caught:
        layerstore.load(str(archive), root=root)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert contents(root) == before


def test_cut_off_anywhere(where: Path) -> None:
    """An archive that ends early, plain or compressed, leaves nothing behind."""
    root = where / "store"
    Store.open(root)
    before = contents(root)
    whole = pack(old_docker())
    for raw, needed in (
        (whole, whole.index(b'[{"Config"')),
        (squeezed := gzip.compress(whole), len(squeezed)),
    ):
        for at in range(100, needed, needed // 8):
            archive = where / "archive"
            archive.write_bytes(raw[:at])
            with pytest.raises(LayerstoreError):
                layerstore.load(str(archive), root=root)
    assert contents(root) == before


def test_bomb(where: Path) -> None:
    """A member that says it has exabytes is refused by its size, not by a full disk."""
    info = tarfile.TarInfo("big")
    info.size = 8 << 60
    archive = where / "archive"
    archive.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(LayerstoreError, match="refused"):
        layerstore.load(str(archive), root=where / "store")
