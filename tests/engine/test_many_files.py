"""More files than the daemon may open descriptors: nothing fails, and all contents are right."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = os.environ.get("FILES", "1500")

pytestmark = [pytest.mark.fuse, pytest.mark.root, pytest.mark.slow]


@pytest.mark.parametrize(
    ("contender", "limit"),
    [("cached", 64), ("cached", 256), ("writeback", 64), ("passthrough", 64), ("pyfuse3", 64)],
)
def test_all_of_them(where: Path, contender: str, limit: int) -> None:
    """`scripts/bench/many`: creates, appends, copies, copy-ups, renames, removals while open, lists; each is
    read back through the mount and from the upper, and the daemon answers and logs no complaint.
    """
    command = [
        *(sys.executable, str(ROOT / "scripts/bench/many.py"), "--dir", str(where), "--files", FILES),
        *("--limits", str(limit), "--contenders", contender),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=3000 if "FILES" in os.environ else 100
    )
    assert done.returncode == 0, done.stdout + done.stderr
