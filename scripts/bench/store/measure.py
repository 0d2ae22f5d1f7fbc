"""A command's wall time and peak memory, and fresh file systems for commands to work on."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from stage import sh, unmount

ROOT = Path(__file__).resolve().parents[3]
OURS = str(ROOT / ".venv/bin/layerstore")
PATIENCE = 600  # seconds that one command may take at most
_INODES = 1_000_000
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

    def making(self, where: Path, before: frozenset[Path] = frozenset()) -> "Cost":
        """With the size of the largest file at or below `where` that was not there `before`."""
        new = files(where) - before
        return replace(self, result=max((path.stat().st_size for path in new), default=0) / (1 << 20))

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.seconds + other.seconds, self.processor + other.processor, max(self.mib, other.mib))


def files(where: Path) -> frozenset[Path]:
    """The file `where`, or those below it."""
    return frozenset(path for path in (where, *where.rglob("*")) if path.is_file())


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    """As users start it: compiled modules are kept, and no setting of the caller's own is passed on."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {**kept, **more}


def run(*words: str | Path, env: Mapping[str, str] | None = None) -> Cost:
    """Run a command to its end; SystemExit, with what it said, when it fails."""
    command = [str(word) for word in words]
    with tempfile.NamedTemporaryFile("r") as cost:
        process = subprocess.Popen(
            [sys.executable, "-ISE", _LAUNCH, cost.name, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=_environment(env or {}),
            start_new_session=True,
        )
        said = _output_of(process)
        if process.returncode:
            raise SystemExit(f"bench: {' '.join(command)}: {said.strip()[-2000:]}")
        seconds, processor, kib = map(float, cost.read().split())
    return Cost(seconds, processor, kib / 1024)


def _output_of(process: "subprocess.Popen[str]") -> str:
    """What a session's leader, and all in it, say until they end; whatever keeps us from waiting ends them:
    what they hold open could not be unmounted.
    """
    with process:
        try:
            return process.communicate(timeout=PATIENCE)[0]
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise


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
    """A new, empty ext4 on a loop device, mounted; gone at the end.

    The image is sparse, so its inode tables and journal are zeros already: writing them would take longer
    than many a row, and mounted so, the kernel does not write them behind anybody's back either.
    """
    image, disk = base / f"{name}.image", base / name
    with image.open("wb") as file:
        file.truncate(gib << 30)
    zeros = "lazy_itable_init=1,lazy_journal_init=1,nodiscard"
    sh("mkfs.ext4", "-q", "-m0", "-N", str(_INODES), "-E", zeros, image)
    disk.mkdir()
    try:
        sh("mount", "-o", "loop,noinit_itable", image, disk)
        yield disk
    finally:
        unmount_below(disk)
        disk.rmdir()
        image.unlink()


def unmount_below(top: Path) -> None:
    """Unmount `top` and what a contender left mounted below it, the deepest first."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for point in sorted((point for point in points if f"{point}/".startswith(f"{top}/")), reverse=True):
        unmount(Path(point))
