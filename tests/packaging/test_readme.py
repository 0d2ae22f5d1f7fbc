"""The examples of the README and the guides, run as they stand there, but in a scratch directory."""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.root, pytest.mark.fuse, pytest.mark.slow]


def examples(document: str, heading: str, language: str) -> list[str]:
    """The code blocks of that language below the heading."""
    text = (ROOT / document).read_text()
    section = text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return re.findall(rf"```{language}\n(.*?)```", section, flags=re.DOTALL)


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A directory on a real file system, from which everything is unmounted at the end."""
    with tempfile.TemporaryDirectory(prefix="overlayfs-py-readme-", dir="/var/tmp") as name:
        try:
            yield Path(name)
        finally:
            for line in reversed(Path("/proc/mounts").read_text().splitlines()):
                if f" {name}/" in line:
                    subprocess.run(["umount", "-l", line.split()[1]], check=False)


def run(scratch: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PATH": f"{ROOT}/.venv/bin:/usr/sbin:/sbin:{os.environ['PATH']}",
        "LAYERSTORE_ROOT": f"{scratch}/store",
    }
    return subprocess.run(command, cwd=scratch, env=environment, capture_output=True, text=True, timeout=100)


def test_a_newcomer_follows_the_readme(scratch: Path) -> None:
    """Its five lines for each tool, one after the other in one directory: each does what its comment says."""
    first = examples("README.md", "Mount directories as one", "")[0]
    second = examples("README.md", "Change an image", "")[0]
    done = run(scratch, "bash", "-euxo", "pipefail", "-c", first + second)
    assert done.returncode == 0, done.stderr
    assert (scratch / "lower/greeting").read_text() == "hello\n"
    assert (scratch / "upper/greeting").read_text() == "changed\n"
    assert "A /motd" in done.stdout
    after = "layerstore umount work && layerstore rm work"
    assert after in (ROOT / "README.md").read_text()
    assert run(scratch, "bash", "-euxc", after).returncode == 0
    inspect = f"skopeo inspect oci:{scratch}/store/oci:demo:hi"
    assert len(json.loads(run(scratch, "bash", "-euc", inspect).stdout)["Layers"]) == 2


def test_mount_a_stack(scratch: Path) -> None:
    """The lower keeps its content, the upper has the change, the control command sees the mount."""
    script = examples("docs/mounting.md", "Mount a stack", "")[0]
    done = run(scratch, "bash", "-euxc", script)
    assert done.returncode == 0, done.stderr
    assert f"{scratch}/merged" in done.stdout
    assert (scratch / "base/greeting").read_text() == "hello\n"
    assert (scratch / "upper/greeting").read_text() == "changed\n"
    assert not os.path.ismount(scratch / "merged")


def test_mount_from_python(scratch: Path) -> None:
    """The context manager mounts, and unmounts at its end."""
    for name in ("base", "upper", "work", "merged"):
        (scratch / name).mkdir()
    script = examples("docs/mounting.md", "From Python", "python")[0].replace("/srv", str(scratch))
    script = script.replace(
        "    ...", f"    assert __import__('os').path.ismount('{scratch}/merged')\n    ..."
    )
    done = run(scratch, sys.executable, "-c", script)
    assert done.returncode == 0, done.stderr
    assert not os.path.ismount(scratch / "merged")


def test_change_an_image(scratch: Path) -> None:
    """Import, create, mount, change, diff, commit, history and a reader of somebody else's."""
    made = subprocess.run([ROOT / "scripts/rootfs", "busybox"], capture_output=True, text=True, check=True)
    (scratch / "rootfs.tar").symlink_to(made.stdout.strip())
    script = examples("docs/images.md", "Change an image", "")[0].replace(
        "/var/lib/layerstore", f"{scratch}/store"
    )
    done = run(scratch, "bash", "-euxo", "pipefail", "-c", script)
    assert done.returncode == 0, done.stderr
    for line in ("C /etc", "A /etc/motd", "D /usr/share/doc", "slimmer"):
        assert line in done.stdout, done.stdout
