"""An image for several platforms: its index has the name, this machine's image is used."""

import json

from layerstore import media
from layerstore.digest import Digest
from layerstore.image.find import host_architecture
from tests.layerstore.commands import Cli


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
    assert "used by the workspace" in base.fail("rmi", "-f", before)
    base.run("rm", "w")
    base.run("rmi", "-f", before)
    assert base.objects("images") == []
    assert list((base.root / "oci/blobs/sha256").iterdir()) == []


def test_nested_without_end(base: Cli) -> None:
    make_index(base, depth=6)
    assert "nested" in base.fail("history", "multi:1")
