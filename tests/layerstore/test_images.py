"""images, history, inspect, tag, rmi: names and what becomes of them."""

import io
import json
from pathlib import Path

import pytest

import layerstore
from layerstore.digest import Digest
from layerstore.errors import InUse, NotFound
from tests.layerstore.commands import ROOTFS, Cli, contents, tarball


def image_id(cli: Cli, name: str) -> str:
    return str(json.loads(cli.run("inspect", name))[0]["Id"])


def test_table(base: Cli) -> None:
    header, line = base.run("images").splitlines()
    assert " ".join(header.split()) == "REPOSITORY TAG IMAGE ID CREATED SIZE"
    assert line.split()[:3] == ["base", "1", image_id(base, "base:1")[7:19]]
    assert header.index("TAG") == line.index("1")
    assert base.objects("ls")[0]["ID"] == base.objects("images")[0]["ID"]
    assert base.run("images", "--digests").splitlines()[1].split()[2] == "<none>"  # no registry knows it
    assert base.run("images", "-q", "--no-trunc") == image_id(base, "base:1")


def test_filter(base: Cli) -> None:
    base.run("tag", "base:1", "base:two")
    base.run("tag", "base:1", "host:5000/a/other")
    tags = [(line["Repository"], line["Tag"]) for line in base.objects("images")]
    assert sorted(tags) == [("base", "1"), ("base", "two"), ("host:5000/a/other", "latest")]
    assert len(base.objects("images", "base")) == 2
    assert len(base.objects("images", "base:t*")) == 1
    assert len(base.objects("images", "host:5000/*/oth?r")) == 1
    assert base.objects("images", "*other*") == []  # as docker: no wildcard stands for a slash
    assert base.objects("images", "nothing") == []
    assert base.run("images", "-q").count("\n") == 0


def test_finding(base: Cli) -> None:
    whole = image_id(base, "base:1")
    base.run("tag", "base:1", "other")
    manifest = base.objects("images")[0]["ManifestDigest"]
    for word in (whole, whole[7:], whole[7:19], whole[:20], "other", "other:latest",
                 "docker.io/library/other",
                 f"base@{manifest}"):  # fmt: skip
        assert image_id(base, word) == whole
    for word in (
        "nothing",
        "base",
        "base:2",
        "ffff",
        "sha256:" + "0" * 64,
        f"nothing@{manifest}",
        "host/base:1",
    ):
        assert base.fail("history", word) == f"no such image: {word}"
    assert "invalid reference" in base.fail("history", "Bad")


def test_a_name_wins_over_an_id(base: Cli) -> None:
    other = base.run("import", "-", stdin=tarball({"x": b""}))
    prefix = image_id(base, "base:1")[7:13]
    base.run("tag", other, f"{prefix}:latest")
    assert image_id(base, prefix) == other


def test_ambiguous_prefix(cli: Cli) -> None:
    tars = (tarball({f"f{number}": b""}) for number in range(17))  # of 16 first digits, one comes twice
    ids = {layerstore.import_(io.BytesIO(tar), root=cli.root).hex for tar in tars}
    first = next(a[0] for a in ids for b in ids if a != b and a[0] == b[0])
    assert "ambiguous" in cli.fail("history", first)


def test_inspect_has_dockers_shape(base: Cli) -> None:
    (described,) = json.loads(base.run("inspect", "base:1"))
    assert list(described)[:3] == ["Id", "RepoTags", "RepoDigests"]
    assert described["RepoDigests"] == []  # no registry knows it
    assert described["RootFS"]["Type"] == "layers"
    assert described["GraphDriver"]["Data"]["LowerDir"].startswith(str(base.root / "layers"))
    done = base.call("inspect", "nothing", "base:1")
    assert done.returncode == 1
    assert done.stderr == b"layerstore: no such image or workspace: nothing\n"
    assert len(json.loads(done.stdout)) == 1


def test_untag_and_delete(base: Cli) -> None:
    base.run("tag", "base:1", "base:2")
    assert base.run("rmi", "base:2") == "Untagged: base:2"
    whole = image_id(base, "base:1")
    base.run("tag", "base:1", "base:2")
    assert "several names" in base.fail("rmi", whole[7:19])
    lines = base.run("rmi", "-f", whole[7:19]).splitlines()
    assert lines[:3] == ["Untagged: base:1", "Untagged: base:2", f"Deleted: {whole}"]
    assert contents(base.root) == contents(empty_root(base))


def empty_root(cli: Cli) -> Path:
    empty = Cli(cli.root.with_name("empty"))
    empty.make_store()
    return empty.root


def test_shared_layers_stay(base: Cli) -> None:
    base.run("create", "--name", "w", "base:1")
    (base.root / "workspaces/w/upper/new").write_text("new")
    base.run("commit", "w", "base:2")
    assert "used by the workspace w" in base.fail("rmi", "base:1")
    base.run("rm", "w")
    base.run("rmi", "base:1")
    base.run("create", "--name", "again", "base:2")
    base.run("rm", "again")
    base.run("rmi", "base:2")
    assert contents(base.root) == contents(empty_root(base))


def test_replaced_image_stays_nameless(base: Cli) -> None:
    old = image_id(base, "base:1")
    new = base.run("import", "-", "base:1", stdin=tarball({"x": b""}))
    assert {line["ID"]: line["Repository"] for line in base.objects("images")} == {
        new[7:19]: "base",
        old[7:19]: "<none>",
    }


def test_functions(base: Cli) -> None:
    (line,) = layerstore.images(root=base.root)
    assert isinstance(line.id, Digest)
    layerstore.tag("base:1", "base:2", root=base.root)
    assert [line.tag for line in layerstore.images("base", root=base.root)] == ["1", "2"]
    assert [step.comment for step in layerstore.history("base:1", root=base.root)] == ["Imported from -"]
    with pytest.raises(NotFound):
        layerstore.tag("nothing", "x", root=base.root)
    with pytest.raises(InUse):
        layerstore.rmi(line.id, root=base.root)
    with pytest.raises(AttributeError):
        _ = layerstore.nothing


def test_damaged_images(base: Cli) -> None:
    """A damaged image is told and does not hide the others; what lies is refused."""
    cli = base
    digest = cli.objects("images")[0]["ManifestDigest"]
    cli.run("import", "-", "good", stdin=tarball({"x": b""}))
    place = cli.root / "oci/blobs/sha256" / digest[7:]
    raw = place.read_bytes()
    place.write_bytes(raw.replace(b'"schemaVersion":2', b'"schemaVersion":3'))
    done = cli.call("images", "-q")
    assert done.stdout.count(b"\n") == 1
    assert b"digest" in done.stderr
    assert "digest" in cli.fail("create", "base:1")
    place.unlink()
    assert "missing" in cli.fail("create", "base:1")
    # Nothing is swept while it is not known what an image needs.
    layers = set((cli.root / "layers").iterdir())
    assert "Deleted" in cli.run("rmi", "good")
    assert len(layers - set((cli.root / "layers").iterdir())) <= 2


def test_layer_with_a_wrong_diff_id(base: Cli) -> None:
    """A config that promises another content than the layer has is found out when it is unpacked."""
    index_file = base.root / "oci/index.json"
    index = json.loads(index_file.read_text())
    manifest = json.loads((base.root / "oci/blobs/sha256" / index["manifests"][0]["digest"][7:]).read_text())
    config = json.loads((base.root / "oci/blobs/sha256" / manifest["config"]["digest"][7:]).read_text())
    config["rootfs"]["diff_ids"] = ["sha256:" + "0" * 64]
    for document, holder in ((config, manifest["config"]), (manifest, index["manifests"][0])):
        raw = json.dumps(document).encode()
        holder["digest"], holder["size"] = str(Digest.of(raw)), len(raw)
        (base.root / "oci/blobs/sha256" / holder["digest"][7:]).write_bytes(raw)
    index_file.write_text(json.dumps(index))
    before = contents(base.root)
    assert "diffID" in base.fail("create", "base:1")
    assert contents(base.root) == before


def test_rootfs_is_what_was_imported(base: Cli) -> None:
    (layer,) = (base.root / "layers").iterdir()
    assert sorted(str(path.relative_to(layer)) for path in layer.rglob("*")) == sorted(ROOTFS)


def test_rmi_without_pruning(base: Cli) -> None:
    """What the image needed stays, until something is pruned."""
    found = {path.name for path in base.root.glob("oci/blobs/*/*")}
    lines = base.run("rmi", "--no-prune", "base:1").splitlines()
    assert [line.split(":")[0] for line in lines] == ["Untagged", "Deleted"]
    assert base.run("images", "-q") == ""
    assert {path.name for path in base.root.glob("oci/blobs/*/*")} == found
    base.run("prune")
    assert not list(base.root.glob("oci/blobs/*/*"))
