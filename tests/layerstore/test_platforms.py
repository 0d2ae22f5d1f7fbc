"""An image for several platforms: its index has the name, this machine's image is used."""

import io
import json
from pathlib import Path

import layerstore
from layerstore import media
from layerstore.digest import Digest
from layerstore.image.platforms import host_architecture
from tests.layerstore.commands import Cli, tarball


def put(cli: Cli, document: object) -> dict[str, object]:
    raw = json.dumps(document).encode()
    digest = Digest.of(raw)
    (cli.root / "oci/blobs/sha256" / digest.hex).write_bytes(raw)
    return {"digest": digest, "size": len(raw)}


def make_index(cli: Cli, depth: int = 1) -> str:
    """``multi:1``: an index of a strange platform's image and ``base:1``; the index's digest."""
    index_file = cli.root / "oci/index.json"
    index = json.loads(index_file.read_text())
    (ours,) = index["manifests"]
    strange = put(cli, {"schemaVersion": 2})
    entries = [
        {"mediaType": media.OCI_MANIFEST, **strange, "platform": {"architecture": "strange", "os": "linux"}},
        {
            "mediaType": ours["mediaType"],
            "digest": ours["digest"],
            "size": ours["size"],
            "platform": {"architecture": host_architecture(), "os": "linux"},
        },
    ]
    for _ in range(depth):
        nested = put(cli, {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": entries})
        entries = [{"mediaType": media.OCI_INDEX, **nested}]
    ours["annotations"] = None
    index["manifests"] = [
        {**entries[0], "annotations": {"org.opencontainers.image.ref.name": "multi:1"}},
    ]
    index_file.write_text(json.dumps(index))
    return str(entries[0]["digest"])


def test_this_machines_is_chosen(base: Cli) -> None:
    before = base.objects("images")[0]["ID"]
    digest = make_index(base)
    (line,) = base.objects("images")
    assert (line["Repository"], line["ID"], line["Digest"]) == ("multi", before, digest)
    base.run("tag", "multi:1", "multi:2")
    assert {line["Digest"] for line in base.objects("images")} == {digest}
    base.run("create", "--name", "w", f"multi@{digest}")
    base.run("rmi", "multi:2")
    assert "used by the workspace" in base.fail("rmi", before)
    base.run("rm", "w")
    base.run("rmi", "-f", before)
    assert base.objects("images") == []
    assert list((base.root / "oci/blobs/sha256").iterdir()) == []


def test_archives_keep_the_index(base: Cli, where: Path) -> None:
    """save and load keep the index's digest, also when images of other platforms are not here; --platform
    takes one of them.
    """
    layerstore.import_(io.BytesIO(tarball({"x": b""})), "strange:1", root=base.root)
    entries = {str(line.repository): line for line in layerstore.images(root=base.root)}
    listed = []
    for repository, architecture in (("base", host_architecture()), ("strange", "strange"), ("", "absent")):
        digest = entries[repository].digest if repository else Digest.of(b"")
        size = (base.root / "oci/blobs/sha256" / digest.hex).stat().st_size if repository else 7
        platform = {"architecture": architecture, "os": "linux"}
        listed.append({"mediaType": media.OCI_MANIFEST, "digest": digest, "size": size, "platform": platform})
    top = put(base, {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": listed})
    named = {"org.opencontainers.image.ref.name": "multi:1"}
    index = {"schemaVersion": 2, "manifests": [{"mediaType": media.OCI_INDEX, **top, "annotations": named}]}
    (base.root / "oci/index.json").write_text(json.dumps(index))
    for form in ("docker", "oci"):
        other = where / form
        base.run("save", "--format", form, "-o", where / "a.tar", "multi")
        (one,) = layerstore.load(str(where / "a.tar"), root=other)
        assert (one.reference, one.digest, one.image_id) == ("multi:1", top["digest"], entries["base"].id)
        assert layerstore.fsck(root=other).problems == []
        assert len(list((other / "oci/blobs/sha256").iterdir())) == 7
    base.run("save", "--platform", "linux/strange", "-o", where / "a.tar", "multi:1")
    (one,) = layerstore.load(str(where / "a.tar"), root=where / "third")
    assert (one.reference, one.digest) == ("multi:1", entries["strange"].digest)
    assert "not in the store" in base.fail("save", "--platform", "absent", "multi:1")
    assert "no image for linux/nothing" in base.fail("save", "--platform", "nothing", "multi:1")


def test_nested_without_end(base: Cli) -> None:
    make_index(base, depth=6)
    assert "nested" in base.fail("history", "multi:1")
