"""Other tools read the store in place, and we read what they write into it."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.layerstore.commands import ROOTFS, Cli, tarball

needs_skopeo = pytest.mark.skipif(shutil.which("skopeo") is None, reason="needs skopeo")
needs_umoci = pytest.mark.skipif(shutil.which("umoci") is None, reason="needs umoci")


def tool(*words: object) -> str:
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def two(base: Cli) -> Cli:
    """``base:1`` and, with a layer more, ``host.example:5000/team/app:2``."""
    base.run("create", "--name", "w", "base:1")
    (base.root / "workspaces/w/upper/new").write_text("new")
    base.run("commit", "-c", "ENV A=1", "w", "host.example:5000/team/app:2")
    return base


@needs_skopeo
def test_skopeo_inspect(two: Cli) -> None:
    for name, layers in (("base:1", 1), ("host.example:5000/team/app:2", 2)):
        seen = json.loads(tool("skopeo", "inspect", f"oci:{two.root}/oci:{name}"))
        assert len(seen["Layers"]) == layers
        assert seen["Digest"] == two.objects("images", "--digests", name)[0]["ManifestDigest"]
        config = json.loads(tool("skopeo", "inspect", "--config", f"oci:{two.root}/oci:{name}"))
        assert len(config["rootfs"]["diff_ids"]) == layers


@needs_skopeo
def test_skopeo_copies_out_and_in(two: Cli, where: Path) -> None:
    """Digests survive the way through another layout, and what skopeo put in place is ours too."""
    # skopeo compresses a plain layer on its way, so here is a compressed one.
    name = "host.example:5000/team/app:3"
    two.run("import", "-", name, stdin=tarball(ROOTFS, "w:gz"))
    tool("skopeo", "copy", f"oci:{two.root}/oci:{name}", f"oci:{where}/copy:x")
    tool("skopeo", "copy", f"oci:{where}/copy:x", f"oci:{two.root}/oci:back:1")
    images = {f"{i['Repository']}:{i['Tag']}": i for i in two.objects("images")}
    assert images["back:1"]["ID"] == images[name]["ID"]
    assert images["back:1"]["ManifestDigest"] == images[name]["ManifestDigest"]
    tool("skopeo", "copy", f"oci:{two.root}/oci:{name}", f"docker-archive:{where}/archive.tar:a:b")


@needs_umoci
def test_umoci(two: Cli, where: Path) -> None:
    layout = two.root / "oci"
    assert sorted(tool("umoci", "list", "--layout", layout).split()) == [
        "base:1",
        "host.example:5000/team/app:2",
    ]
    tool("umoci", "stat", "--image", f"{layout}:host.example:5000/team/app:2")
    bundle = where / "bundle"
    tool("umoci", "unpack", "--rootless", "--image", f"{layout}:host.example:5000/team/app:2", bundle)
    found = {str(path.relative_to(bundle / "rootfs")) for path in (bundle / "rootfs").rglob("*")}
    assert found == {*ROOTFS, "new"}
    tool("umoci", "tag", "--image", f"{layout}:base:1", "tagged")
    tool("umoci", "config", "--image", f"{layout}:base:1", "--tag", "umoci:1", "--config.user", "me")
    assert json.loads(two.run("inspect", "umoci:1"))[0]["Config"]["User"] == "me"
    assert two.run("history", "tagged")
    two.run("rm", "w")
    for name in ("base:1", "host.example:5000/team/app:2"):
        two.run("rmi", name)
    tool("umoci", "gc", "--layout", layout)
    assert two.run("create", "--name", "x", "umoci:1") == "x"


@needs_umoci
def test_images_made_by_umoci(cli: Cli) -> None:
    """A layout that umoci began: bare tags for names, manifests without a media type."""
    cli.make_store()
    layout = cli.root / "oci"
    tool("umoci", "new", "--image", f"{layout}:latest")
    (line,) = cli.objects("images")
    assert line["Repository"] == "<none>"
    assert line["Tag"] == "latest"
    assert cli.run("history", "latest") is not None
    cli.run("tag", "latest", "app:1")
    assert len(cli.objects("images", "app")) == 1
