"""Archives to and from skopeo, podman and umoci: what is kept is told by each test's name."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

import layerstore
from tests.layerstore.commands import ROOTFS, Cli, tarball

needs_skopeo = pytest.mark.skipif(shutil.which("skopeo") is None, reason="needs skopeo")
needs_umoci = pytest.mark.skipif(shutil.which("umoci") is None, reason="needs umoci")
needs_podman = pytest.mark.skipif(
    shutil.which("podman") is None or os.geteuid() != 0, reason="needs podman, and root"
)

NAME = "host.example:5000/team/app:2"


def tool(*words: object, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [str(word) for word in words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **(env or {})},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def app(cli: Cli) -> Cli:
    """``host.example:5000/team/app:2``, of two layers in gzip."""
    cli.run("import", "-", "base:1", stdin=tarball(ROOTFS, "w:gz"))
    layerstore.create("base:1", name="w", root=cli.root)
    (cli.root / "workspaces/w/upper/new").write_text("new")
    (cli.root / "workspaces/w/upper/etc").mkdir()
    os.mknod(cli.root / "workspaces/w/upper/etc/hosts", 0o020000, 0) if os.geteuid() == 0 else None
    layerstore.commit("w", NAME, root=cli.root)
    return cli


@pytest.fixture
def other(cli: Cli) -> Cli:
    return Cli(cli.root.with_name("other"))


def one(cli: Cli) -> tuple[str, str]:
    """Manifest digest and image ID of the image in question."""
    (image,) = layerstore.images("host.example:5000/team/app", root=cli.root)
    return str(image.digest), str(image.id)


@needs_skopeo
def test_skopeo_reads_our_oci_archive_and_keeps_the_digest(app: Cli, other: Cli, where: Path) -> None:
    ours, theirs = where / "ours.tar", where / "theirs.tar"
    app.run("save", "--format", "oci", "-o", ours, NAME)
    assert json.loads(tool("skopeo", "inspect", f"oci-archive:{ours}:{NAME}"))["Digest"] == one(app)[0]
    tool("skopeo", "copy", f"oci-archive:{ours}:{NAME}", f"oci-archive:{theirs}:{NAME}")
    assert other.run("load", "-i", theirs) == f"Loaded image: {NAME}"
    assert one(other) == one(app)


@needs_skopeo
def test_skopeo_reads_our_docker_archive_and_keeps_the_id(app: Cli, other: Cli, where: Path) -> None:
    """skopeo makes a manifest of its own around plain layers: only the ID survives that way.

    What it then finds in the image layout of the same archive has the digest too.
    """
    ours, theirs = where / "ours.tar", where / "theirs.tar"
    app.run("save", "-o", ours, NAME)
    tool("skopeo", "copy", f"docker-archive:{ours}:{NAME}", f"docker-archive:{theirs}:{NAME}")
    assert other.run("load", "-i", theirs) == f"Loaded image: {NAME}"
    assert one(other)[1] == one(app)[1]
    assert json.loads(tool("skopeo", "inspect", f"oci-archive:{ours}:2"))["Digest"] == one(app)[0]
    layerstore.create(NAME, name="x", root=other.root)
    assert layerstore.fsck(root=other.root).problems == []


@needs_skopeo
def test_what_skopeo_made_comes_back_the_same(app: Cli, other: Cli, where: Path) -> None:
    """Docker's manifests and types, through an archive of ours."""
    schema2 = where / "schema2"
    tool("skopeo", "copy", "--format", "v2s2", f"oci:{app.root}/oci:{NAME}", f"dir:{schema2}")
    tool("skopeo", "copy", f"oci:{app.root}/oci:{NAME}", f"oci-archive:{where}/a.tar")
    done = other.call("load", "-i", where / "a.tar")
    assert done.stdout.decode() == f"Loaded image ID: {one(app)[1]}\n"
    (image,) = layerstore.images(root=other.root)
    assert str(image.digest) == one(app)[0]
    assert (image.repository, image.tag) == (None, None)


@needs_umoci
def test_umoci_unpacks_what_came_through_an_archive(app: Cli, where: Path) -> None:
    app.run("save", "--format", "oci", "-o", where / "a.tar", NAME)
    layout = where / "layout"
    layout.mkdir()
    tool("tar", "-C", layout, "-xf", where / "a.tar")
    tool("umoci", "unpack", "--rootless", "--image", f"{layout}:{NAME}", where / "bundle")
    found = {str(path.relative_to(where / "bundle/rootfs")) for path in (where / "bundle/rootfs").rglob("*")}
    gone = {"etc/hosts"} if os.geteuid() == 0 else set()
    assert found == {*ROOTFS, "new"} - gone


@needs_podman
@pytest.mark.slow
@pytest.mark.parametrize("form", ["docker", "oci"])
def test_podman_loads_and_saves(app: Cli, other: Cli, where: Path, form: str) -> None:
    (where / "storage.conf").write_text(
        f'[storage]\ndriver = "vfs"\ngraphroot = "{where}/podman"\nrunroot = "{where}/run"\n'
    )
    (where / "containers.conf").write_text('[engine]\nevents_logger = "file"\ncgroup_manager = "cgroupfs"\n')
    env = {
        "CONTAINERS_STORAGE_CONF": str(where / "storage.conf"),
        "CONTAINERS_CONF": str(where / "containers.conf"),
    }
    app.run("save", "--format", form, "-o", where / "ours.tar", NAME)
    assert NAME in tool("podman", "load", "-q", "-i", where / "ours.tar", env=env)
    found = json.loads(tool("podman", "image", "inspect", NAME, env=env))[0]
    assert f"sha256:{found['Id']}" == one(app)[1]
    tool("podman", "save", "-q", "--format", f"{form}-archive", "-o", where / "theirs.tar", NAME, env=env)
    assert other.run("load", "-i", where / "theirs.tar") == f"Loaded image: {NAME}"
    assert one(other)[1] == one(app)[1]
    assert layerstore.create(NAME, name="x", root=other.root) == "x"
    assert layerstore.fsck(root=other.root).problems == []
