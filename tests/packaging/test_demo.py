"""`make demo` on the small tree: it succeeds, and it leaves nothing behind however it ends."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.root, pytest.mark.fuse, pytest.mark.slow]


def start(tmp: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "DEMO_ROOTFS": "busybox", "DEMO_DIR": str(tmp)}
    return subprocess.Popen(
        [ROOT / "scripts/demo/run"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def assert_nothing_is_left(tmp: Path) -> None:
    mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if str(tmp) in line]
    assert mounts == []
    assert list(tmp.iterdir()) == []


def test_the_main_job_from_nothing(tmp_path: Path) -> None:
    """Import to comparison by three readers, with the time of each step."""
    demo = start(tmp_path)
    output, _ = demo.communicate(timeout=110)
    assert demo.returncode == 0, output
    assert output.count("entries equal") == 2
    assert "What was done, and how long it took:" in output
    assert_nothing_is_left(tmp_path)


def test_interrupted_it_cleans_up(tmp_path: Path) -> None:
    """SIGTERM while the workspace is mounted: unmounted, removed, exit status 130."""
    demo = start(tmp_path)
    assert demo.stdout is not None
    for line in demo.stdout:
        if " diff demo-work" in line:
            demo.send_signal(signal.SIGTERM)
            break
    output, _ = demo.communicate(timeout=110)
    assert demo.returncode == 130, output
    assert "Traceback" not in output
    assert_nothing_is_left(tmp_path)
