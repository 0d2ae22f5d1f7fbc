"""The command line: every wrong input is one line and leaves nothing mounted; every caller's form works."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import overlayfs_py
from tests.mounts import Layers, LowerLayers, make_layers
from tests.service.starts import cleared, found_by_mount_8, is_mounted, one_line, options, pyctl
from tests.service.starts import overlayfs_py as run

fuse = [pytest.mark.fuse, pytest.mark.root]


def test_version() -> None:
    """`podman info` asks for it."""
    result = run("--version")
    assert result.returncode == 0
    assert overlayfs_py.__version__ in result.stdout


@pytest.mark.parametrize("word", ["-h", "--help"])
def test_help_has_examples(word: str) -> None:
    result = run(word)
    assert result.returncode == 0
    assert "examples:" in result.stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "mount point is missing"),
        (["a", "b", "c", "-o", "lowerdir=/"], "too many words"),
        (["-x", "/mnt"], "-x"),
        (["/mnt"], "no lower directory"),
        (["/mnt", "-o", "lowerdir=/,volatil"], "unknown option volatil"),
        (["/mnt", "-o", "lowerdir=/,nfs_export=on"], "nfs_export"),
        (["/mnt", "-o", "lowerdir=/,upperdir=/tmp"], "workdir"),
        (["/mnt", "-o"], "-o"),
        (["--config", "/nonexistent.toml"], "/nonexistent.toml: No such file"),
        (["/mnt", "-o", "lowerdir=/\n,x\ny=1"], "unknown option"),
    ],
)
def test_wrong_words(words: list[str], says: str) -> None:
    one_line(run(*words), says)


def missing_lower(layers: Layers) -> str:
    layers.lowers[0].rmdir()
    return str(layers.lowers[0])


def lower_is_a_file(layers: Layers) -> str:
    layers.lowers[0].rmdir()
    layers.lowers[0].touch()
    return str(layers.lowers[0])


def missing_upper(layers: Layers) -> str:
    layers.upper.rmdir()
    return str(layers.upper)


def missing_work(layers: Layers) -> str:
    layers.work.rmdir()
    return str(layers.work)


def missing_mountpoint(layers: Layers) -> str:
    layers.merged.rmdir()
    return str(layers.merged)


def mountpoint_is_a_file(layers: Layers) -> str:
    layers.merged.rmdir()
    layers.merged.touch()
    return str(layers.merged)


def upper_in_a_lower(layers: Layers) -> str:
    layers.upper.rmdir()
    layers.upper.symlink_to(layers.lowers[0] / "upper")
    (layers.lowers[0] / "upper").mkdir()
    return "upper"


def work_in_the_upper(layers: Layers) -> str:
    layers.work.rmdir()
    (layers.upper / "work").mkdir()
    layers.work.symlink_to(layers.upper / "work")
    return "work"


@pytest.mark.fuse
@pytest.mark.root
@pytest.mark.parametrize("foreground", [(), ("-f",)], ids=["background", "foreground"])
@pytest.mark.parametrize(
    "spoil",
    [
        missing_lower,
        lower_is_a_file,
        missing_upper,
        missing_work,
        missing_mountpoint,
        mountpoint_is_a_file,
        upper_in_a_lower,
        work_in_the_upper,
    ],
)
def test_unusable_directories(
    layers: Layers, spoil: Callable[[Layers], str], foreground: tuple[str, ...]
) -> None:
    """The line names the directory, and nothing is mounted."""
    name = spoil(layers)
    with cleared(layers.merged):
        one_line(run(*foreground, *options(layers), layers.merged), name)
        assert not is_mounted(layers)


@pytest.mark.fuse
@pytest.mark.root
def test_upper_and_work_on_different_file_systems(layers: Layers) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "none", layers.work], check=True)
    try:
        with cleared(layers.merged):
            one_line(run(*options(layers), layers.merged), "work")
            assert not is_mounted(layers)
    finally:
        subprocess.run(["umount", layers.work], check=True)


@pytest.mark.fuse
@pytest.mark.root
def test_work_directory_of_a_live_mount(layers: Layers, where: Path) -> None:
    (where / "second").mkdir()
    second = make_layers(where / "second")
    with cleared(layers.merged, second.merged):
        assert run(*options(layers), layers.merged).returncode == 0
        one_line(run(*options(layers), second.merged), str(layers.work))
        assert not is_mounted(second)
        assert pyctl("umount", layers.merged).returncode == 0
        assert run(*options(layers), second.merged).returncode == 0
        assert pyctl("umount", second.merged).returncode == 0


@pytest.mark.fuse
@pytest.mark.root
def test_busy_mount_point(layers: Layers, where: Path) -> None:
    (where / "second").mkdir()
    second = make_layers(where / "second")
    with cleared(layers.merged):
        assert run(*options(layers), layers.merged).returncode == 0
        one_line(run(*options(second), layers.merged), str(layers.merged), "already")
        assert pyctl("umount", layers.merged).returncode == 0
        assert not is_mounted(layers)


@pytest.mark.fuse
@pytest.mark.root
def test_engine_that_is_not_there(layers: Layers) -> None:
    result = run(*options(layers, "engine=pyfuse3", "data=passthrough"), layers.merged)
    one_line(result, "data=passthrough needs engine=native")
    assert not is_mounted(layers)


@pytest.mark.fuse
@pytest.mark.root
@pytest.mark.parametrize(
    "form",
    [
        "-o OPTS DIR",
        "DIR -o OPTS",
        "-oOPTS DIR",
        "SOURCE DIR -o OPTS",
        "-o HALF -o HALF DIR",
        "-s SOURCE -o OPTS DIR",
    ],
)
def test_forms(layers: Layers, form: str) -> None:
    """As people, podman, mount(8) and libfuse's own programs put the words."""
    lower, *rest = layers.options().split(",")
    halves = iter([lower, ",".join([*rest, ""])])
    words = []
    for word in form.split():
        word = word.replace("OPTS", layers.options({"nodev": ""})).replace("DIR", str(layers.merged))
        words.append(next(halves) if word == "HALF" else word)
    with cleared(layers.merged):
        result = run(*words)
        assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
        table = Path("/proc/self/mounts").read_text()
        (line,) = (line for line in table.splitlines() if f" {layers.merged} " in line)
        source, _, fstype, flags, *_ = line.split()
        assert source == ("SOURCE" if "SOURCE" in form else "overlayfs-py")
        assert fstype == "fuse.overlayfs-py"
        assert ("nodev" in flags.split(",")) == ("OPTS" in form)
        assert pyctl("umount", layers.merged).returncode == 0


@pytest.mark.fuse
@pytest.mark.root
def test_relative_paths_and_warnings(layers: Layers, where: Path) -> None:
    """Paths start where the caller is, also in the background, whose directory is /."""
    with cleared(layers.merged):
        result = run(
            "-o", "lowerdir=lower0,upperdir=upper,workdir=work,private,fast_ino=1", "merged", cwd=where
        )
        assert result.returncode == 0
        assert [line.split(":")[1] for line in result.stderr.splitlines()] == [" warning"] * 2
        (layers.merged / "x").touch()
        assert (where / "upper/x").exists()
        assert pyctl("umount", layers.merged).returncode == 0


@pytest.mark.fuse
@pytest.mark.root
def test_config_file(layers: Layers, where: Path) -> None:
    config = where / "c.toml"
    config.write_text(
        f'mountpoint = "{layers.merged}"\nlowerdir = ["{layers.lowers[0]}"]\n'
        f'upperdir = "{layers.upper}"\nworkdir = "{layers.work}"\nfsname = "from-config"\n'
    )
    with cleared(layers.merged):
        assert run("--config", config).returncode == 0
        assert f"from-config {layers.merged} " in Path("/proc/self/mounts").read_text()
        assert pyctl("umount", layers.merged).returncode == 0


@pytest.mark.fuse
@pytest.mark.root
def test_mount_8(layers: Layers, where: Path) -> None:
    """mount -t fuse.overlayfs-py and umount, through the helper mount.fuse3, which has no PATH of ours."""
    with found_by_mount_8(), cleared(layers.merged):
        given = layers.options({"noatime": "", "x-systemd.automount": "", "nodev": ""})
        mount = ["mount", "-t", "fuse.overlayfs-py", "layers", str(layers.merged), "-o", given]
        subprocess.run(mount, check=True, timeout=60)
        (layers.merged / "x").touch()
        shown = f"layers {layers.merged} fuse.overlayfs-py rw,nodev,noatime"
        assert shown in Path("/proc/mounts").read_text()
        subprocess.run(["umount", layers.merged], check=True, timeout=60)
        assert (layers.upper / "x").exists()


@pytest.mark.fuse
@pytest.mark.root
def test_thousand_lowers(where: Path) -> None:
    """1,000 lowers with 100-byte paths in one option string."""
    lowers = []
    for number in range(1000):
        path = where / f"{number:0{99 - len(str(where))}d}"
        path.mkdir()
        (path / f"file{number}").touch()
        lowers.append(path)
    assert {len(str(path)) for path in lowers} == {100}
    merged = where / "merged"
    merged.mkdir()
    layers = LowerLayers(lowers=tuple(lowers), merged=merged)
    with cleared(merged):
        result = run(*options(layers), merged)
        assert result.returncode == 0, result.stderr
        assert len(os.listdir(merged)) == 1000
        with pytest.raises(OSError, match="Read-only"):
            (merged / "x").touch()
        assert pyctl("umount", merged).returncode == 0
