"""Who may do what in a store: modes whatever the umask, and no part of it another user's or a link."""

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from layerstore import environment
from layerstore.errors import LayerstoreError
from tests.layerstore.commands import ROOTFS, Cli, tarball
from tests.nobody import NOBODY, as_nobody

IMAGES = ("", "oci", "oci/blobs", "oci/blobs/sha256")
PARTS = (*IMAGES, "layers", "workspaces", "oci/index.json", "oci/oci-layout")


def modes(root: Path) -> dict[str, int]:
    """Of all but what is in layers and workspaces, which are closed."""
    found = {}
    for path in [root, *root.rglob("*")]:
        name = path.relative_to(root)
        if len(name.parts) < 2 or name.parts[0] == "oci":
            found[str(name)] = stat.S_IMODE(path.lstat().st_mode)
    return found


@pytest.mark.parametrize("umask", [0, 0o022, 0o077, 0o777])
def test_a_store_is_its_owners(cli: Cli, umask: int) -> None:
    """Whatever the umask, nobody else reads an image's secrets, or writes."""
    cli = Cli(cli.root.parent / "above/store")
    os.mkdir(cli.root.parent)
    cli.run("import", "-", "base:1", stdin=tarball(ROOTFS), umask=umask)
    cli.run("create", "--name", "w", "--init", "base:1", umask=umask)
    (cli.root / "workspaces/w/upper/new").write_text("new")
    cli.run("commit", "--chain", "w", "w:1", umask=umask)
    cli.run("export", "w", "-o", cli.root.parent / "out.tar")
    cli.run("rm", "w", umask=umask)
    assert {mode & 0o077 for mode in modes(cli.root).values()} == {0}
    assert {mode & 0o600 for mode in modes(cli.root).values()} == {0o600}


def test_directories_above_are_nobody_elses_to_write_in(cli: Cli) -> None:
    cli = Cli(cli.root.parent / "a/b/store")
    cli.run("import", "-", "base:1", stdin=tarball(ROOTFS), umask=0)
    for path in (cli.root.parent, cli.root.parent.parent):
        assert stat.S_IMODE(path.stat().st_mode) == 0o755


@pytest.mark.root
def test_shared(base: Cli, where: Path) -> None:
    """Everybody may read the images, also those that come later, and nothing else; nobody may write."""
    os.chmod(where, 0o755)
    layout = base.root / "oci"
    assert as_nobody(lambda: os.stat(layout / "index.json")) != 0
    base.run("--shared", "images")
    base.run("import", "-", "later:1", stdin=tarball({"f": b"later"}), umask=0o077)
    everything = [layout, *layout.rglob("*")]
    assert as_nobody(lambda: [path.is_dir() or path.read_bytes() for path in everything]) == 0
    assert {mode & 0o022 for mode in modes(base.root).values()} == {0}
    for closed in ("layers", "workspaces"):
        assert as_nobody(lambda closed=closed: os.listdir(base.root / closed)) != 0  # type: ignore[misc]
    if (skopeo := shutil.which("skopeo")) is None:
        pytest.skip("needs skopeo")
    done = subprocess.run(
        [skopeo, "inspect", f"oci:{layout}:later:1"], user=NOBODY, group=NOBODY, check=False
    )
    assert done.returncode == 0


@pytest.mark.root
def test_a_new_shared_store(cli: Cli, where: Path) -> None:
    os.chmod(where, 0o755)
    cli.run("--shared", "import", "-", "base:1", stdin=tarball(ROOTFS), umask=0o077)
    assert as_nobody(lambda: (cli.root / "oci/index.json").read_bytes()) == 0


def test_what_an_existing_store_says_of_reading_holds(base: Cli) -> None:
    """A group of readers, as chmod(1) made it."""
    for part in IMAGES:
        os.chmod(base.root / part, 0o750)
    base.run("import", "-", "later:1", stdin=tarball({"f": b"later"}), umask=0)
    found = modes(base.root)
    assert [found[part or "."] for part in IMAGES] == [0o750] * 4
    assert found["oci/index.json"] == 0o640
    assert sorted(mode for name, mode in found.items() if "sha256/" in name).count(0o640) == 3


def test_a_store_of_an_earlier_version(base: Cli) -> None:
    """0711 at its root, below which all could be read, and with an umask of 0 written."""
    for part, mode in modes(base.root).items():
        os.chmod(base.root / part, 0o777 if mode & 0o100 else 0o666)
    os.chmod(base.root, 0o711)
    base.run("images")
    found = modes(base.root)
    assert found["."] == 0o700
    assert {mode & 0o022 for mode in found.values()} == {0}
    assert found["layers"] & 0o777 == found["workspaces"] == 0o700  # layers/ has its sticky bit, too


@pytest.mark.root
@pytest.mark.parametrize("part", PARTS)
def test_somebody_elses(base: Cli, part: str) -> None:
    os.chown(base.root / part, NOBODY, -1)
    for words in (["images"], ["import", "-", "x:1"], ["fsck"]):
        line = base.fail(*words)
        assert line.startswith(f"{base.root / part} belongs to user {NOBODY}")
    os.chown(base.root / part, 0, -1)
    base.run("images")


@pytest.mark.parametrize("part", [*PARTS, "partial"])
def test_symbolic_links(base: Cli, part: str) -> None:
    real = base.root.parent / "real"
    if part == "partial":
        real.mkdir()
    else:
        (base.root / part).rename(real)
    (base.root / part).symlink_to(real)
    for words in (["images"], ["import", "-", "x:1"], ["fsck"]):
        assert base.fail(*words).startswith(f"{base.root / part} is a symbolic link")


@pytest.mark.root
def test_an_exchanged_index(cli: Cli, where: Path) -> None:
    """The store of an umask of 0, as it was, and what another user made of it."""
    cli.run("import", "-", "base:1", stdin=tarball(ROOTFS))
    os.chmod(where, 0o755)
    os.chmod(cli.root, 0o711)
    os.chmod(cli.root / "oci", 0o777)

    def exchange() -> None:
        os.unlink(cli.root / "oci/index.json")
        (cli.root / "oci/index.json").write_text("{}")

    assert as_nobody(exchange) == 0
    assert "belongs to user" in cli.fail("images")


def test_a_place_among_other_things(cli: Cli) -> None:
    cli.root.mkdir()
    (cli.root / "other").write_text("")
    os.chmod(cli.root, 0o777)
    assert "other users may write to" in cli.fail("import", "-", "x:1", stdin=tarball(ROOTFS))
    assert os.listdir(cli.root) == ["other"]
    assert stat.S_IMODE(cli.root.stat().st_mode) == 0o777
    os.chmod(cli.root, 0o1777)  # as /tmp, which stays so
    cli.run("import", "-", "x:1", stdin=tarball(ROOTFS))
    assert stat.S_IMODE(cli.root.stat().st_mode) == 0o1777


@pytest.mark.fuse
@pytest.mark.root
def test_a_mount_is_for_everybody(base: Cli, where: Path) -> None:
    """A workspace mounted outside of the store is for whoever its files let in."""
    os.chmod(where, 0o755)
    place = where / "mnt"
    place.mkdir()
    base.run("create", "--name", "w", "base:1")
    base.run("mount", "w", place)
    try:
        assert as_nobody(lambda: (place / "etc/hosts").read_bytes()) == 0
    finally:
        base.run("umount", "w")


LISTINGS = (
    ["images"],
    ["ps"],
    ["df"],
    ["df", "-v"],
    ["prune"],
    ["fsck"],
)
REFUSED = (
    ["inspect", "x"],
    ["history", "x"],
    ["rmi", "x"],
    ["rm", "x"],
    ["create", "x"],
    ["export", "x"],
    ["save", "x"],
    ["tag", "x", "y"],
    ["diff", "x"],
    ["commit", "x"],
    ["umount", "x"],
    ["cp", "x:/", "."],
)


def test_only_what_puts_something_in_makes_a_store(cli: Cli) -> None:
    for words in LISTINGS:
        cli.run(*words)
    for words in REFUSED:
        assert "no such" in cli.fail(*words)
    assert not cli.root.exists()
    cli.root.mkdir()
    for words in LISTINGS:
        cli.run(*words)
    assert os.listdir(cli.root) == []


def test_an_empty_path_is_no_store(cli: Cli, where: Path) -> None:
    here = where / "here"
    here.mkdir()
    for words in (["--root", "", "images"], ["--root=", "import", "-", "x:1"]):
        done = Cli.call(cli, *words, cwd=here)
        assert done.returncode == 1
        assert done.stderr == b"layerstore: the path of the store is empty\n"
    assert os.listdir(here) == []


def test_the_default_is_below_an_absolute_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LAYERSTORE_ROOT", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("XDG_DATA_HOME", "data")
    assert environment.default_root() == Path("/home/me/.local/share/layerstore")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert environment.default_root() == Path("/data/layerstore")
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", "here")
    with pytest.raises(LayerstoreError, match="no home directory"):
        environment.default_root()
