"""The static checks are tests: a run of the suite is the whole gate."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("check", ["lint", "format", "types", "imports", "shell"])
def test_static_check_passes(check: str) -> None:
    """`scripts/lint CHECK` finds nothing."""
    done = subprocess.run([ROOT / "scripts/lint", check], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
