"""save, load, export: what goes out comes in again with its digests, and archives of others are read."""

import bz2
import gzip
import io
import json
import lzma
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

import layerstore
from tests.layerstore.archives import LAYER, layout, link, old_docker, pack, sha
from tests.layerstore.commands import ROOTFS, Cli, contents, tarball


@pytest.fixture
def other(cli: Cli) -> Cli:
    """A second, empty store."""
    return Cli(cli.root.with_name("other"))


@pytest.fixture
def two(base: Cli) -> Cli:
    """``base:1``, ``base:two`` and, with a layer more, ``host:5000/app:2``."""
    layerstore.tag("base:1", "base:two", root=base.root)
    layerstore.create("base:1", name="w", root=base.root)
    (base.root / "workspaces/w/upper/new").write_text("new")
    layerstore.commit("w", "host:5000/app:2", compression="zstd", root=base.root)
    return base


def digests(cli: Cli) -> dict[str, str]:
    return {f"{i['Repository']}:{i['Tag']}": i["ManifestDigest"] for i in cli.objects("images")}


def names(archive: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return tar.getnames()


def document(archive: bytes, name: str) -> list[dict[str, list[str]]]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        member = tar.extractfile(name)
        assert member is not None
        return list(json.load(member))


@pytest.mark.parametrize("form", ["docker", "oci"])
def test_digests_survive(two: Cli, other: Cli, form: str, where: Path) -> None:
    """Several images in one archive, and every manifest as it was."""
    archive = where / "a.tar"
    two.run("save", "--format", form, "-o", archive, "base", "host:5000/app:2")
    said = other.run("load", "-i", archive).splitlines()
    assert sorted(said) == [
        "Loaded image: base:1",
        "Loaded image: base:two",
        "Loaded image: host:5000/app:2",
    ]
    assert digests(other) == digests(two)
    again = where / "b.tar"
    other.run("save", "--format", form, "-o", again, "base", "host:5000/app:2")
    assert again.read_bytes() == archive.read_bytes()


def test_what_docker_reads(two: Cli) -> None:
    archive = two.call("save", "base:1", "host:5000/app:2").stdout
    assert {"manifest.json", "repositories", "index.json", "oci-layout"} < set(names(archive))
    first, second = document(archive, "manifest.json")
    assert first["RepoTags"] == ["base:1"]
    assert second["RepoTags"] == ["host:5000/app:2"]
    assert len(second["Layers"]) == 2
    for path in (first["Config"], *first["Layers"], *second["Layers"]):
        assert path in names(archive)


def test_names_are_saved_by_dockers_rules(two: Cli, other: Cli) -> None:
    """A repository is all its tags, a name itself, an ID no name."""
    whole = json.loads(two.run("inspect", "base:1"))[0]["Id"]
    assert document(two.call("save", whole).stdout, "manifest.json")[0]["RepoTags"] == []
    saved = document(two.call("save", "base:two", whole[7:19]).stdout, "manifest.json")
    assert [item["RepoTags"] for item in saved] == [["base:two"]]
    assert other.run("load", stdin=two.call("save", whole).stdout) == f"Loaded image ID: {whole}"
    assert digests(other).keys() == {"<none>:<none>"}
    assert two.fail("save", "nothing") == "no such image: nothing"


@pytest.mark.parametrize("squeeze", [gzip.compress, bz2.compress, lzma.compress, zstandard.compress])
def test_compressed_archives(base: Cli, other: Cli, squeeze: Callable[[bytes], bytes]) -> None:
    archive = base.call("save", "base:1").stdout
    assert other.run("load", stdin=squeeze(archive)) == "Loaded image: base:1"
    assert digests(other) == digests(base)


def test_an_old_docker_archive(cli: Cli) -> None:
    files = old_docker(tags=["docker.io/library/old:1", "localhost/mine:2"])
    assert cli.run("load", stdin=pack(files)).splitlines() == [
        "Loaded image: old:1",
        "Loaded image: localhost/mine:2",
    ]
    (config,) = (name for name in files if name.endswith(".json") and len(name) == 69)
    described = json.loads(cli.run("inspect", "old:1"))[0]
    assert described["Id"] == f"sha256:{config[:64]}"
    before = digests(cli)
    cli.run("load", stdin=pack(files))
    assert digests(cli) == before
    cli.run("create", "--name", "w", "old:1")
    assert cli.run("fsck").endswith("no problems")
    cli.run("rm", "w")
    cli.run("rmi", "old:1")
    cli.run("rmi", "localhost/mine:2")
    empty = Cli(cli.root.with_name("empty"))
    empty.make_store()
    assert contents(cli.root) == contents(empty.root)


def test_layers_that_are_links_within_the_archive(cli: Cli) -> None:
    """docker before 25 wrote equal layers once, skopeo links the old names to the new."""
    files = old_docker()
    manifest = json.loads(files["manifest.json"])
    manifest[0]["Layers"] = ["2" * 64 + "/layer.tar"]
    files["manifest.json"] = json.dumps(manifest).encode()
    files["2" * 64 + "/layer.tar"] = link("../" + "1" * 64 + "/layer.tar")
    assert cli.run("load", stdin=pack(files)) == "Loaded image: old:1"
    files["2" * 64 + "/layer.tar"] = link("1" * 64 + "/layer.tar", tarfile.LNKTYPE)
    assert cli.run("load", stdin=pack(files)) == "Loaded image: old:1"


@pytest.mark.parametrize("squeeze", [gzip.compress, zstandard.compress, bz2.compress, lzma.compress])
def test_compressed_layers_in_an_old_archive(cli: Cli, squeeze: Callable[[bytes], bytes]) -> None:
    cli.run("load", stdin=pack(old_docker(layer=squeeze(LAYER))))
    cli.run("create", "--name", "w", "old:1")


def test_names_in_an_oci_archive(cli: Cli) -> None:
    for name, shown in (
        ("docker.io/library/x:1", "x:1"),
        ("x", "x:latest"),
        ("host:5000/y:2", "host:5000/y:2"),
    ):
        assert cli.run("load", stdin=pack(layout(name=name))) == f"Loaded image: {shown}"
    done = cli.call("load", stdin=pack(layout(name="No Name")))
    assert done.stdout.startswith(b"Loaded image ID: sha256:")
    assert b"No Name" in done.stderr
    assert cli.call("load", stdin=pack(layout(name=None))).stdout.startswith(b"Loaded image ID: sha256:")


def test_a_taken_name_goes_to_the_loaded_image(base: Cli) -> None:
    done = base.call("load", stdin=pack(layout(name="base:1")))
    taken, said = done.stdout.decode().splitlines()
    assert taken.startswith("The image base:1 already exists, renaming the old one with ID sha256:")
    assert said == "Loaded image: base:1"
    assert sorted(digests(base)) == ["<none>:<none>", "base:1"]


def test_dots_and_directories_in_names(cli: Cli) -> None:
    files = [(f"./{name}", data) for name, data in layout().items()]
    assert cli.run("load", stdin=pack(files)) == "Loaded image: oci:1"


def test_save_writes_whole_files_or_none(base: Cli, where: Path) -> None:
    target = where / "out.tar"
    target.write_text("old")
    (digest,) = {i["ManifestDigest"] for i in base.objects("images")}
    manifest = json.loads((base.root / "oci/blobs/sha256" / digest[7:]).read_text())
    layer = base.root / "oci/blobs/sha256" / manifest["layers"][0]["digest"][7:]
    good = layer.read_bytes()
    layer.write_bytes(good[:-1] + b"!")
    assert "digest" in base.fail("save", "-o", target, "base:1")
    assert target.read_text() == "old"
    assert sorted(path.name for path in where.iterdir()) == ["out.tar", "store"]
    layer.write_bytes(good)
    base.run("save", "-o", target, "base:1")
    assert "manifest.json" in names(target.read_bytes())
    base.run("save", "-o", "/dev/null", "base:1")
    assert base.fail("save", "-o", where / "no/dir", "base:1").startswith("no such directory")
    assert "is a directory" in base.fail("save", "-o", where, "base:1")


def test_export(base: Cli, where: Path) -> None:
    base.run("create", "--name", "w", "base:1")
    upper = base.root / "workspaces/w/upper"
    (upper / "new").write_text("new")
    with tarfile.open(fileobj=io.BytesIO(base.call("export", "w").stdout)) as tar:
        assert set(tar.getnames()) == {".", *ROOTFS, "new"}
    base.run("export", "-o", where / "image.tar", "base:1")
    with tarfile.open(where / "image.tar") as tar:
        assert set(tar.getnames()) == {".", *ROOTFS}
    flat = base.run("import", where / "image.tar", "flat:1")
    assert base.run("diff", "base:1", "flat:1") == ""
    assert flat.startswith("sha256:")
    assert base.fail("export", "nothing") == "no such image: nothing"


def test_functions(base: Cli, other: Cli) -> None:
    out = io.BytesIO()
    seen: list[tuple[int, int]] = []
    layerstore.save(["base:1"], out, root=base.root, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1]
    out.seek(0)
    (one,) = layerstore.load(out, root=other.root)
    assert (one.reference, one.digest) == ("base:1", digests(base)["base:1"])
    tar = io.BytesIO()
    layerstore.export("base:1", tar, root=base.root)
    assert tar.getvalue().endswith(bytes(1024))


def test_what_is_here_is_not_stored_again(base: Cli) -> None:
    archive = base.call("save", "base:1").stdout
    before = {path.name: path.stat().st_ino for path in (base.root / "oci/blobs/sha256").iterdir()}
    base.run("load", stdin=archive)
    assert {path.name: path.stat().st_ino for path in (base.root / "oci/blobs/sha256").iterdir()} == before


def test_needless_blobs_do_not_stay(cli: Cli) -> None:
    files = {**layout(), f"blobs/sha256/{sha(b'junk')}": b"junk", "README": b"hello"}
    cli.run("load", stdin=pack(files))
    assert len(list((cli.root / "oci/blobs/sha256").iterdir())) == 3


def test_a_rootfs_is_no_image(cli: Cli) -> None:
    assert "layerstore import" in cli.fail("load", stdin=tarball(ROOTFS))
    assert "not a tar" in cli.fail("load", stdin=b"hello" * 200)
    assert "image archive" in cli.fail("load", stdin=b"")
