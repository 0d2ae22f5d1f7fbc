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
    assert (line["Repository"], line["ID"], line["ManifestDigest"]) == ("multi", before, digest)
    base.run("tag", "multi:1", "multi:2")
    assert {line["ManifestDigest"] for line in base.objects("images")} == {digest}
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


def make_two(cli: Cli) -> dict[str, str]:
    """``two:1``, whose index has an image for this machine and one for linux/strange; their image IDs."""
    ids = {}
    listed = []
    for platform, file in ((f"linux/{host_architecture()}", "here"), ("linux/strange/v2", "there")):
        tar = io.BytesIO(tarball({file: b""}))
        ids[platform] = str(layerstore.import_(tar, f"x:{file}", platform=platform, root=cli.root))
        (image,) = layerstore.images(f"x:{file}", root=cli.root)
        os_name, architecture, *variant = platform.split("/")
        size = (cli.root / "oci/blobs/sha256" / image.digest.hex).stat().st_size
        wanted = {"os": os_name, "architecture": architecture, **({"variant": "v2"} if variant else {})}
        listed.append(
            {"mediaType": media.OCI_MANIFEST, "digest": image.digest, "size": size, "platform": wanted}
        )
    top = put(cli, {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": listed})
    named = {"org.opencontainers.image.ref.name": "two:1"}
    index = {"schemaVersion": 2, "manifests": [{"mediaType": media.OCI_INDEX, **top, "annotations": named}]}
    (cli.root / "oci/index.json").write_text(json.dumps(index))
    return ids


def test_every_verb_can_choose(cli: Cli, where: Path) -> None:
    """--platform takes the image it says, by the index's name or by its ID; none, this machine's."""
    ids = make_two(cli)
    here, there = ids.values()
    root = cli.root
    for platform, expected in ((None, here), ("linux/strange", there), ("linux/strange/v2", there)):
        assert layerstore.inspect("two:1", platform=platform, root=root)["Id"] == expected
        assert layerstore.history("two:1", platform=platform, root=root)[0].id == expected
        out = io.BytesIO()
        layerstore.export("two:1", out, platform=platform, root=root)
        assert (b"there" in out.getvalue()) == (expected == there)
    described = json.loads(cli.run("inspect", "--platform", "strange", "two:1"))[0]
    assert (described["Architecture"], described["Variant"]) == ("strange", "v2")
    cli.run("create", "--name", "w", "--platform", "linux/strange", "two:1")
    assert layerstore.ps(root=root)[0].image_id == there
    for words in (["create", "two:1"], ["history", "two:1"], ["inspect", here[7:19]]):
        assert "no image for linux/none; it has linux/" in cli.fail(*words, "--platform", "none")
    assert "no image for linux/strange/v9" in cli.fail("history", "--platform", "linux/strange/v9", "two:1")
    assert "platform is fixed at creation" in cli.fail("mount", "--platform", "strange", "w")


def test_load_can_choose(cli: Cli, where: Path) -> None:
    ids = make_two(cli)
    layerstore.save(["two:1"], where / "a.tar", root=cli.root)
    other = Cli(where / "other")
    assert other.run("load", "--platform", "linux/strange", "-i", where / "a.tar") == "Loaded image: two:1"
    (image,) = layerstore.images(root=other.root)
    assert image.id == ids["linux/strange/v2"]
    assert len(list((other.root / "oci/blobs/sha256").iterdir())) == 3
    assert "has no image for linux/other" in other.fail("save", "--platform", "other", "two:1")
    assert "no image for linux/none" in other.fail("load", "--platform", "none", "-i", where / "a.tar")
    assert layerstore.fsck(root=other.root).problems == []


def test_an_image_for_other_machines_alone_is_shown(cli: Cli) -> None:
    """As what it is, rather than as an error."""
    ids = make_two(cli)
    index_file = cli.root / "oci/index.json"
    top = json.loads(index_file.read_text())["manifests"][0]
    document = json.loads((cli.root / "oci/blobs/sha256" / top["digest"][7:]).read_text())
    alone = put(cli, {**document, "manifests": document["manifests"][1:]})
    index = {"schemaVersion": 2, "manifests": [{**top, **alone}]}
    index_file.write_text(json.dumps(index))
    (image,) = layerstore.images(root=cli.root)
    assert image.id == ids["linux/strange/v2"]
