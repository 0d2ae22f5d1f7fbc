"""A command's wall time and peak memory, and fresh file systems for commands to work on."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from stage import settle, sh, unmount

ROOT = Path(__file__).resolve().parents[3]
OURS = str(ROOT / ".venv/bin/layerstore")
PATIENCE = 600  # seconds that any one command may take
_INODES = 400_000
_LAUNCH = Path(__file__).with_name("launch.py")


@dataclass(frozen=True)
class Cost:
    """`processor`: seconds of all processes; `mib`: the largest resident set of any one of them (wait4's);
    `result`: MiB of what was made, where that differs.
    """

    seconds: float
    processor: float
    mib: float
    result: float = 0.0

    def making(self, where: Path) -> "Cost":
        """With the size of the largest file at or below `where`."""
        files = [path for path in where.rglob("*") if path.is_file()] if where.is_dir() else [where]
        return replace(self, result=max(path.stat().st_size for path in files) / (1 << 20))

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.seconds + other.seconds, self.processor + other.processor, max(self.mib, other.mib))


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    """As users start it: compiled modules are kept, and no setting of the caller's own is passed on."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {**kept, **more}


def run(*words: str | Path, env: Mapping[str, str] | None = None) -> Cost:
    """Run a command to its end; SystemExit, with what it said, when it fails."""
    command = [str(word) for word in words]
    with tempfile.NamedTemporaryFile("r") as cost:
        done = subprocess.run(
            [sys.executable, "-ISE", _LAUNCH, cost.name, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=_environment(env or {}),
            timeout=PATIENCE,
        )
        if done.returncode:
            raise SystemExit(f"bench: {' '.join(command)}: {done.stdout.strip()[-2000:]}")
        seconds, processor, kib = map(float, cost.read().split())
    return Cost(seconds, processor, kib / 1024)


def shell(line: str) -> Cost:
    """Run a pipeline of the shell, all of whose commands must succeed."""
    return run("bash", "-euo", "pipefail", "-c", line)


def said_by(*words: str | Path) -> str:
    """What an unmeasured command prints."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, env=_environment({}))
    if done.returncode:
        raise SystemExit(f"bench: {' '.join(map(str, words))}: {done.stderr.strip()}")
    return done.stdout.strip()


@contextmanager
def fresh_disk(base: Path, name: str, gib: int = 24) -> Iterator[Path]:
    """A new, empty ext4 on a loop device, mounted; gone at the end."""
    image, disk = base / f"{name}.image", base / name
    with image.open("wb") as file:
        file.truncate(gib << 30)
    eager = "lazy_itable_init=0,lazy_journal_init=0,nodiscard"
    sh("mkfs.ext4", "-q", "-m0", "-N", str(_INODES), "-E", eager, image)
    disk.mkdir()
    try:
        sh("mount", "-o", "loop", image, disk)
        try:
            settle()
            yield disk
        finally:
            _release(disk)
            unmount(disk)
    finally:
        disk.rmdir()
        image.unlink()


def _release(disk: Path) -> None:
    """Unmount what a contender left mounted below `disk`, the deepest first."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for point in sorted((point for point in points if point.startswith(f"{disk}/")), reverse=True):
        unmount(Path(point))
