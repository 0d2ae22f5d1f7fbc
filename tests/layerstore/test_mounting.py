"""mount, umount, diff and commit of live workspaces."""

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

import layerstore
from layerstore.errors import InUse, LayerstoreError
from tests.layerstore.commands import ROOTFS, Cli
from tests.waiting import wait_until

pytestmark = [pytest.mark.fuse, pytest.mark.root]


def daemons(mountpoint: Path) -> list[int]:
    wanted = os.fsencode(mountpoint)
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"overlayfs_py" in words and wanted in words:
                found.append(int(entry.name))
    return found


@pytest.fixture
def workspace(base: Cli) -> Path:
    """``w`` over ``base:1``, mounted; its root."""
    base.run("create", "--name", "w", "base:1")
    return Path(base.run("mount", "w"))


def test_main_job(base: Cli, workspace: Path) -> None:
    assert workspace == base.root / "workspaces/w/merged"
    assert (workspace / "etc/hosts").read_bytes() == ROOTFS["etc/hosts"]
    (workspace / "etc/hosts").write_text("changed")
    (workspace / "usr/lib/one").unlink()
    os.rename(workspace / "usr", workspace / "opt")
    (workspace / "new").mkdir()
    (workspace / "new/file").write_text("new")
    # A renamed directory is one mark in the upper and whole files in the layer.
    expected = [
        "C /etc",
        "C /etc/hosts",
        "A /new",
        "A /new/file",
        "A /opt",
        "A /opt/lib",
        "A /opt/lib/two",
        "D /usr",
    ]
    assert base.run("diff", "w").splitlines() == expected
    done = base.call("commit", "w", "base:2")
    assert done.returncode == 0
    base.run("umount", "w")
    assert base.run("diff", "w").splitlines() == expected
    assert base.run("diff", "base:1", "base:2").splitlines() == expected
    assert not daemons(workspace)
    base.run("create", "--name", "x", "base:2")
    again = Path(base.run("mount", "x"))
    found = sorted(str(path.relative_to(again)) for path in again.rglob("*"))
    assert "opt/lib/two" in found
    assert "opt/lib/one" not in found
    assert "usr" not in found
    assert (again / "opt/lib/two").read_bytes() == ROOTFS["usr/lib/two"]
    assert base.run("diff", "x") == ""
    base.run("umount", "x")


def test_states(base: Cli, workspace: Path) -> None:
    (line,) = base.objects("ps")
    assert (line["State"], line["Mount"]) == ("mounted", str(workspace))
    assert base.run("ps").splitlines()[1].split("   ")[-1].strip() == str(workspace)
    assert base.fail("mount", "w") == f"w is mounted already at {workspace}"
    assert "unmount it first" in base.fail("rm", "w")
    assert base.run("umount", "w") == ""
    (line,) = base.objects("ps")
    assert (line["State"], line["Mount"]) == ("unmounted", "")
    assert base.fail("umount", "w") == "w is not mounted"
    assert base.run("rm", "w") == "w"


def test_mounted_by_several_at_once(base: Cli) -> None:
    base.run("create", "--name", "w", "base:1")
    pipe = subprocess.PIPE
    processes = [
        base.start("mount", "w", stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe) for _ in range(3)
    ]
    answers = [process.communicate(timeout=60) for process in processes]
    assert sorted(process.returncode for process in processes) == [0, 1, 1]
    assert sum(b"mounted already" in err for _, err in answers) == 2
    assert len(daemons(base.root / "workspaces/w/merged")) == 1
    base.run("umount", "w")


def test_elsewhere(base: Cli, where: Path) -> None:
    base.run("create", "--name", "w", "base:1")
    (where / "mnt").mkdir()
    (where / "link").symlink_to(where / "mnt")
    assert base.run("mount", "w", where / "link") == str(where / "mnt")
    assert (where / "mnt/bin/sh").exists()
    base.run("umount", where / "mnt")
    assert list((where / "mnt").iterdir()) == []
    base.run("mount", "w", where / "mnt")
    assert base.run("umount", "w") == ""


def test_image_read_only(base: Cli, where: Path) -> None:
    (where / "mnt").mkdir()
    assert base.run("mount", "--read-only", "base:1", where / "mnt") == str(where / "mnt")
    assert (where / "mnt/etc/passwd").read_bytes() == ROOTFS["etc/passwd"]
    with pytest.raises(OSError, match="Read-only"):
        (where / "mnt/x").write_text("")
    assert "is mounted at" in base.fail("rmi", "base:1")
    base.run("umount", where / "mnt")
    assert not daemons(where / "mnt")
    assert "is not a mount of overlayfs-py" in base.fail("umount", where / "mnt")
    assert "needs a DIR" in base.fail("mount", "--read-only", "base:1", status=2)


def test_busy(base: Cli, workspace: Path) -> None:
    with (workspace / "etc/hosts").open():
        assert "in use" in base.fail("umount", "w")
        assert base.objects("ps")[0]["State"] == "mounted"
    base.run("umount", "w")


def test_mounted_inside(base: Cli, workspace: Path) -> None:
    """chroot users mount /proc: it is not taken away behind their backs, but by force."""
    subprocess.run(["mount", "-t", "proc", "proc", workspace / "proc"], check=True)
    assert base.fail("umount", "w") == f"cannot unmount {workspace}: {workspace}/proc is mounted inside"
    assert base.run("rm", "-f", "w") == "w"
    assert not daemons(workspace)
    assert str(workspace) not in Path("/proc/self/mountinfo").read_text()


def test_volumes(base: Cli, where: Path) -> None:
    """Bound at every mount, left out of diff and commit with the places made for them."""
    (where / "host").mkdir()
    (where / "host/file").write_text("of the host")
    (where / "one").write_text("a file")
    volumes = [
        "-v",
        f"{where}/host:/data/deep",
        "-v",
        f"{where}/one:/etc/one:ro",
        "-v",
        f"{where}/host:/usr/lib",
    ]
    base.run("create", "--name", "w", *volumes, "base:1")
    merged = Path(base.run("mount", "w"))
    (merged / "data/deep/new").write_text("x")
    assert (where / "host/new").read_text() == "x"
    assert (merged / "etc/one").read_text() == "a file"
    with pytest.raises(OSError, match="Read-only"):
        (merged / "etc/one").write_text("")
    assert sorted(os.listdir(merged / "usr/lib")) == ["file", "new"]
    assert base.run("diff", "w") == ""
    base.run("commit", "w", "base:2")
    assert len(base.objects("images")) == 2
    assert len(json.loads(base.run("inspect", "base:2"))[0]["RootFS"]["Layers"]) == 1
    base.run("umount", "w")
    assert (where / "host/file").read_text() == "of the host"
    merged = Path(base.run("mount", "w"))
    assert (merged / "data/deep/file").exists()
    base.run("rm", "-f", "w")
    assert (where / "host/file").exists()


def test_volume_gone(base: Cli, where: Path) -> None:
    (where / "host").mkdir()
    base.run("create", "--name", "w", "-v", f"{where}/host:/data", "base:1")
    (where / "host").rmdir()
    assert "cannot bind" in base.fail("mount", "w")
    assert base.objects("ps")[0]["State"] == "created"
    assert not daemons(base.root / "workspaces/w/merged")


def test_target_became_a_link(base: Cli, where: Path) -> None:
    """Whoever works in a workspace cannot lead its next mount astray (CVE-2021-30465)."""
    for name in ("host", "outside"):
        (where / name).mkdir()
    (where / "host/file").write_text("x")
    base.run("create", "--name", "w", "-v", f"{where}/host:/data", "base:1")
    upper = base.root / "workspaces/w/upper"
    (upper / "data").symlink_to(where / "outside")
    assert "symbolic link" in base.fail("mount", "w")
    assert list((where / "outside").iterdir()) == []
    assert not daemons(base.root / "workspaces/w/merged")


def test_init_layer_touched_by_the_user(base: Cli) -> None:
    base.run("create", "--name", "w", "--init", "base:1")
    merged = Path(base.run("mount", "w"))
    assert (merged / "etc/hosts").read_bytes() == b""
    (merged / "etc/resolv.conf").write_text("nameserver ::1\n")
    assert base.run("diff", "w").splitlines() == ["C /etc", "C /etc/resolv.conf"]
    base.run("commit", "w", "base:2")
    base.run("umount", "w")
    base.run("create", "--name", "x", "base:2")
    lowers = json.loads(base.run("inspect", "x"))[0]["GraphDriver"]["Data"]["LowerDir"].split(":")
    assert (Path(lowers[0]) / "etc/resolv.conf").read_text() == "nameserver ::1\n"
    assert not (Path(lowers[0]) / "etc/hostname").exists()
    assert (Path(lowers[1]) / "etc/hosts").read_bytes() == ROOTFS["etc/hosts"]


def test_commit_of_a_live_mount(base: Cli, workspace: Path) -> None:
    """Everything written is in the layer; it is told when writers could not be kept out."""
    with (workspace / "log").open("wb") as file:
        file.write(b"x" * 3_000_000)
        file.flush()
        paused = base.call("commit", "-p", "w", "base:2")
        unpaused = base.call("commit", "--no-pause", "w", "base:3")
    assert paused.returncode == unpaused.returncode == 0
    assert unpaused.stderr == b""
    assert re.fullmatch(rb"layerstore: w was paused for \d\.\d\d s\n", paused.stderr), paused.stderr
    base.run("umount", "w")
    for name in ("base:2", "base:3"):
        base.run("create", "--name", "x", name)
        lowers = json.loads(base.run("inspect", "x"))[0]["GraphDriver"]["Data"]["LowerDir"].split(":")
        assert (Path(lowers[0]) / "log").stat().st_size == 3_000_000
        base.run("rm", "x")


def test_killed_daemon(base: Cli, where: Path) -> None:
    """A dead mount is told, taken down with the volumes in it, and what was written is there again."""
    (where / "host").mkdir()
    (where / "host/file").write_text("x")
    base.run("create", "--name", "w", "-v", f"{where}/host:/data", "base:1")
    workspace = Path(base.run("mount", "w"))
    (workspace / "written").write_text("before")
    (pid,) = daemons(workspace)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not daemons(workspace))
    (line,) = base.objects("ps")
    assert line["State"] == "dead"
    assert "dead" in base.fail("mount", "w")
    assert base.run("diff", "w").splitlines() == ["A /written"]
    base.run("umount", "w")
    assert str(workspace) not in Path("/proc/self/mountinfo").read_text()
    assert Path(base.run("mount", "w")) == workspace
    assert (workspace / "written").read_text() == "before"
    assert (workspace / "data/file").read_text() == "x"
    base.run("umount", "w")


def test_failed_mount_leaves_nothing(base: Cli) -> None:
    base.run("create", "--name", "w", "base:1")
    place = base.root / "workspaces/w"
    os.rename(place / "work", place / "elsewhere")
    (place / "work").symlink_to("/proc/version")
    assert base.fail("mount", "w")
    assert base.objects("ps")[0]["State"] == "created"
    assert not daemons(place / "merged")


def test_functions(base: Cli, where: Path) -> None:
    name = layerstore.create("base:1", root=base.root)
    place = layerstore.mount(name, root=base.root)
    try:
        (place / "x").write_text("x")
        with pytest.raises(InUse):
            layerstore.mount(name, root=base.root)
        assert [str(change) for change in layerstore.diff(name, root=base.root)] == ["A /x"]
    finally:
        assert layerstore.umount(name, root=base.root) == place
    with pytest.raises(LayerstoreError, match="not mounted"):
        layerstore.umount(name, root=base.root)
    with pytest.raises(LayerstoreError, match="needs a directory"):
        layerstore.mount("base:1", read_only=True, root=base.root)
