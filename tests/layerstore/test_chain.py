"""commit --squash-unchanged and --chain of real workspaces, and what a kill leaves."""

import io
import json
import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

import layerstore
from layerstore.digest import Digest
from layerstore.layer.write.commit import export_tree
from layerstore.store.store import Store
from layerstore.workspace.quiescing import stack_of
from layerstore.workspace.record import open_workspace
from tests import snapshots
from tests.layerstore.commands import Cli, contents
from tests.layerstore.layer.write.kernel_mounts import tree_of

pytestmark = [pytest.mark.fuse, pytest.mark.root]

Tree = dict[bytes, snapshots.Facts]

# Every call that changes the store or a workspace.
MOMENTS = (
    "renameat2", "rename", "renameat", "mkdir", "mkdirat", "linkat", "unlinkat", "rmdir", "unlink", "fsync",
    "syncfs", "utimensat", "fchown", "fchmod", "setxattr", "removexattr", "write",
)  # fmt: skip
CRITICAL = {"renameat2", "rename", "fsync", "syncfs"}


@pytest.fixture
def workspace(base: Cli) -> Path:
    """``w`` over ``base:1``, mounted; its root."""
    base.run("create", "--name", "w", "base:1")
    return Path(base.run("mount", "w"))


def change(root: Path) -> None:
    """Something of everything that leaves marks in an upper."""
    (root / "etc/hosts").write_text("changed")
    (root / "usr/lib/one").unlink()
    os.chown(root / "usr/lib/two", 5, 5)
    os.rename(root / "usr", root / "opt")
    shutil.rmtree(root / "proc")
    (root / "proc").mkdir(mode=0o700)
    (root / "new").mkdir()
    (root / "new/file").write_text("new")
    os.link(root / "new/file", root / "new/again")
    os.symlink("file", root / "new/link")


def seen(root: Path, *, times: bool = True) -> Tree:
    tree = tree_of(root)
    return tree if times else {path: {**facts, "mtime": 0} for path, facts in tree.items()}


def assert_same(one: Tree, other: Tree) -> None:
    assert not snapshots.differences(one, other, ("before", "after"))


def unpacked_by_umoci(cli: Cli, name: str, where: Path) -> Tree:
    umoci = shutil.which("umoci")
    if umoci is None:
        pytest.skip("needs umoci")
    bundle = where / f"bundle-{name.replace(':', '-')}"
    command = [umoci, "unpack", "--image", f"{cli.root}/oci:{name}", str(bundle)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return seen(bundle / "rootfs", times=False)


def test_squashed_is_what_umoci_unpacks(base: Cli, workspace: Path, where: Path) -> None:
    (workspace / "etc/hosts").write_bytes((workspace / "etc/hosts").read_bytes())
    (workspace / "usr/lib/one").write_bytes(b"1" * 4999 + b"2")
    os.utime(workspace / "lib", follow_symlinks=False)
    done = base.call("commit", "--squash-unchanged", "w", "w:2")
    assert done.returncode == 0
    assert b"left out 2 unchanged files (20B)\n" in done.stderr
    assert base.run("diff", "base:1", "w:2").splitlines() == ["C /usr", "C /usr/lib", "C /usr/lib/one"]
    assert_same(seen(workspace, times=False), unpacked_by_umoci(base, "w:2", where))
    base.run("umount", "w")


def test_nothing_left_to_commit(base: Cli, workspace: Path) -> None:
    """Touched files alone make a step of history and no layer."""
    (workspace / "etc/hosts").write_bytes((workspace / "etc/hosts").read_bytes())
    (workspace / "x").write_bytes(b"")
    (workspace / "x").unlink()
    base.run("umount", "w")
    base.run("commit", "--squash-unchanged", "w", "w:2")
    assert len(json.loads(base.run("inspect", "w:2"))[0]["RootFS"]["Layers"]) == 1
    base.run("commit", "w", "w:3")
    assert len(json.loads(base.run("inspect", "w:3"))[0]["RootFS"]["Layers"]) == 2


def test_chain(base: Cli, workspace: Path, where: Path) -> None:
    """The mount shows the same tree afterwards, with an empty upper over one layer more."""
    change(workspace)
    before = seen(workspace)
    image_id = base.run("commit", "--chain", "w", "w:2")
    assert_same(before, seen(workspace))
    assert os.listdir(base.root / "workspaces/w/upper") == []
    assert base.run("diff", "w") == ""
    (line,) = base.objects("ps")
    assert (line["Image"], line["ImageID"], line["State"]) == ("w:2", image_id, "mounted")
    assert "no problems" in base.run("fsck")  # the layer is what unpacking its blob gives
    assert_same(seen(workspace, times=False), unpacked_by_umoci(base, "w:2", where))
    (workspace / "new/file").write_text("newer")
    (workspace / "opt/lib/two").unlink()
    before = seen(workspace)
    base.run("umount", "w")
    base.run("commit", "--chain", "w")  # without a name, and not mounted
    assert_same(before, seen(Path(base.run("mount", "w"))))
    base.run("umount", "w")
    assert len(base.objects("history", "w:2")) == 2
    assert len(list((base.root / "layers").iterdir())) == 3
    assert "no problems" in base.run("fsck")
    base.run("rm", "w")


def test_chain_of_nothing(base: Cli) -> None:
    base.run("create", "--name", "w", "base:1")
    image_id = base.run("commit", "--chain", "-c", "ENV A=1", "w", "w:2")
    assert base.objects("ps")[0]["ImageID"] == image_id
    assert len(list((base.root / "layers").iterdir())) == 1
    assert base.run("diff", "w") == ""


def test_chain_is_reproducible(base: Cli) -> None:
    """With SOURCE_DATE_EPOCH the files in the layer have the times that the layer says."""
    base.run("create", "--name", "w", "base:1")
    (base.root / "workspaces/w/upper/new").write_text("new")
    base.run("commit", "--chain", "w", "w:2", env={"SOURCE_DATE_EPOCH": "1700000000"})
    assert "no problems" in base.run("fsck")
    assert base.run("diff", "w") == ""
    assert (Path(base.run("mount", "w")) / "new").stat().st_mtime == 1_700_000_000
    base.run("umount", "w")


def test_chain_with_init_and_volume(base: Cli, where: Path) -> None:
    """The init layer stays below what has been changed over it, and out of every image."""
    (where / "host").mkdir()
    (where / "host/x").write_text("host")
    base.run("create", "--name", "w", "--init", "-v", f"{where}/host:/data", "base:1")
    root = Path(base.run("mount", "w"))
    (root / "etc/hosts").write_text("mine")
    (root / ".dockerenv").unlink()
    (root / "data/y").write_text("y")
    before = seen(root)
    for number in (2, 3):
        base.run("commit", "--chain", "w", f"w:{number}")
        assert_same(before, seen(root))
        (root / f"new{number}").write_text("n")
        before = seen(root)
    assert (where / "host/y").read_text() == "y"
    base.run("umount", "w")
    assert base.run("diff", "base:1", "w:3").splitlines() == ["C /etc", "C /etc/hosts", "A /new2"]
    assert json.loads((base.root / "workspaces/w/workspace.json").read_text())["init_depth"] == 2


def test_refused_while_in_use(base: Cli, workspace: Path, where: Path) -> None:
    (where / "host").mkdir()
    base.run("umount", "w")
    base.run("rm", "w")
    base.run("create", "--name", "w", "-v", f"{where}/host:/data", "base:1")
    base.run("mount", "w")
    (workspace / "new").write_text("new")
    (where / "host/x").write_text("x")
    before = contents(base.root / "oci")
    with open(workspace / "new") as held:
        line = base.fail("commit", "--chain", "w", "w:2")
        assert line.startswith("w cannot continue over a new image while it is in use: ")
        assert held.read() == "new"
    assert contents(base.root / "oci") == before
    assert (workspace / "data/x").read_text() == "x", "its volumes are still there"
    base.run("commit", "--chain", "w", "w:2")
    assert (workspace / "data/x").read_text() == "x"
    base.run("umount", "w")


def test_mounted_again_after_a_failure(base: Cli, workspace: Path) -> None:
    (workspace / ".wh.x").write_text("no layer can hold this")
    assert ".wh.x" in base.fail("commit", "--chain", "w", "w:2")
    assert (workspace / "etc/hosts").exists()
    assert base.objects("ps")[0]["Image"] == "base:1"
    base.run("umount", "w")


def test_several_at_once(base: Cli) -> None:
    """Whoever waited for the workspace finds the one that took its place, not the one that is gone."""
    base.run("create", "--name", "w", "base:1")
    (base.root / "workspaces/w/upper/new").write_text("new")
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    started = [base.start("commit", "--chain", "w", f"w:{number}", **pipes) for number in range(4)]
    for process in started:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    (record,) = base.objects("ps")
    assert len(json.loads(base.run("inspect", record["ImageID"]))[0]["RootFS"]["Layers"]) == 2
    assert "no problems" in base.run("fsck")


def kill_points(strace: str, base: Cli, log: Path) -> list[tuple[str, int]]:
    """Of each call that changes something: every one if it is one that makes things durable or visible, else
    some.
    """
    command = [strace, "-f", "-qq", "-o", str(log), "-e", f"trace={','.join(MOMENTS)}"]
    subprocess.run([*command, *base.command("commit", "--chain", "w", "w:0")], check=True, timeout=60)
    counts = Counter(line.split()[1].partition("(")[0] for line in log.read_text().splitlines())
    points = []
    for moment, count in counts.items():
        step = 1 if moment in CRITICAL else max(1, count // 5)
        points += [(moment, nth) for nth in range(1, count + 1, step)]
    return points


def shown(base: Cli) -> Digest:
    """What a mount would show, as the digest of it all."""
    workspace = open_workspace(Store.open(base.root), "w")
    return export_tree(stack_of(workspace), io.BytesIO()).diff_id


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed(base: Cli, workspace: Path, where: Path) -> None:
    """kill -9 at any step: the workspace is as before, or over the new image, and shows the same tree."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("needs strace")
    base.run("umount", "w")
    for number, (moment, nth) in enumerate(kill_points(strace, base, where / "log")):
        change_again(base, number)
        before = shown(base)
        words = [strace, "-f", "-qq", "-o", "/dev/null", "-e", f"trace={moment}", "-e"]
        words += [
            f"inject={moment}:signal=SIGKILL:when={nth}",
            *base.command("commit", "--chain", "w", "w:2"),
        ]
        subprocess.run(words, capture_output=True, timeout=60)
        # Opens the store, which clears what is left over, and unpacks what is missing.
        list(layerstore.diff("w", root=base.root))
        assert not list(base.root.rglob(".tmp-*"))
        assert shown(base) == before, (moment, nth)
        if number % 10 == 9:
            assert_sound(base, before)
    assert open_workspace(Store.open(base.root), "w").record.init_depth > 5, "it never came to the new image"
    assert_sound(base, shown(base))


def change_again(base: Cli, number: int) -> None:
    """Write something, now and then through a mount, which leaves marks."""
    if number % 10:
        (base.root / f"workspaces/w/upper/new{number}").write_text(str(number))
        return
    root = Path(base.run("mount", "w"))
    (root / f"dir{number}").mkdir()
    (root / f"dir{number}/file").write_text(str(number))
    os.chown(root / "etc/hosts", number, 0)
    for path in root.glob("dir?"):
        os.rename(path, root / f"{path.name}moved")
    base.run("umount", "w")


def assert_sound(base: Cli, tree: Digest) -> None:
    """It mounts, shows the tree, and fsck is content."""
    base.run("mount", "w")
    base.run("umount", "w")
    assert shown(base) == tree
    assert "no problems" in base.run("fsck")
