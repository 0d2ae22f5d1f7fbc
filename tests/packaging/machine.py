"""A small Debian with a real systemd in systemd-nspawn, and our installation in it.

systemd is only ever booted in a root file system of its own, never on the machine's.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class Unavailable(Exception):
    """The machine cannot be made here; str() is the reason to skip with."""


class Machine:
    """A booted container: `root` is its tree, `leader` its first process."""

    def __init__(self, root: Path, leader: int) -> None:
        self.root = root
        self.leader = leader

    def run(self, *command: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a command in all of the container's namespaces."""
        enter = ["nsenter", "-t", str(self.leader), "-a", "--", *command]
        return subprocess.run(
            enter, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL
        )

    def check(self, *command: str) -> str:
        """The command's output; it must succeed."""
        done = self.run(*command)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def systemctl(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.run("systemctl", "--no-pager", *words)

    def show(self, unit: str, key: str) -> str:
        """One property of a unit."""
        return self.check("systemctl", "show", "--value", "-p", key, unit)

    def journal(self, unit: str) -> list[str]:
        """What the unit's processes have said since boot, without systemd's own words."""
        identifier = self.check(
            "journalctl", "--no-pager", "-o", "cat", "-u", unit, "SYSLOG_IDENTIFIER=overlayfs-py"
        )
        return identifier.splitlines()

    def is_mounted(self, path: str) -> bool:
        """In the container's first mount namespace, so seen by everything in it."""
        return self.run("mountpoint", "-q", path).returncode == 0

    def wait_for(self, what: str, *command: str, seconds: float = 20) -> None:
        """Until the command succeeds; `what` is said when it never does."""
        deadline = time.monotonic() + seconds
        while self.run(*command).returncode != 0:
            assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
            time.sleep(0.1)

    def layers(self, name: str) -> str:
        """Make /srv/NAME with a lower holding one file, an upper, a work and a merged directory."""
        base = self.root / "srv" / name
        for directory in ("lower", "upper", "work", "merged"):
            (base / directory).mkdir(parents=True)
        (base / "lower/hello").write_text("from the lower\n")
        return f"/srv/{name}"

    def configure(self, name: str, text: str) -> None:
        directory = self.root / "etc/overlayfs-py"
        directory.mkdir(exist_ok=True)
        (directory / f"{name}.toml").write_text(text)


def lacking() -> str | None:
    """Why no machine can be booted here."""
    if os.geteuid() != 0:
        return "needs root"
    for program in ("systemd-nspawn", "debootstrap", "nsenter"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    return None


def unpack_root(target: Path) -> None:
    """The cached Debian tree; made from the mirror the first time."""
    done = subprocess.run([ROOT / "scripts/rootfs", "systemd"], capture_output=True, text=True)
    if done.returncode:
        raise Unavailable(f"no root file system with systemd: {done.stderr.strip().splitlines()[-1]}")
    command = ["tar", "--numeric-owner", "-xpf", done.stdout.strip(), "-C", str(target)]
    subprocess.run(command, check=True, timeout=120)


def install_into(root: Path) -> None:
    """`make install` with that tree as DESTDIR, for the tree's own Python."""
    environment = {**os.environ, "DESTDIR": str(root), "PREFIX": "/usr/local", "PYTHON": "/usr/bin/python3"}
    done = subprocess.run(
        [ROOT / "scripts/install"], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr


def leader_of(nspawn: subprocess.Popen[bytes]) -> int | None:
    """The container's first process, once there is one."""
    try:
        children = Path(f"/proc/{nspawn.pid}/task/{nspawn.pid}/children").read_text().split()
    except OSError:
        return None
    return int(children[0]) if children else None


def wait_until_running(nspawn: subprocess.Popen[bytes], log: Path, seconds: float = 60) -> int:
    """The leader's process id once systemd says that it has started."""
    deadline = time.monotonic() + seconds
    state = "no process"
    while time.monotonic() < deadline and nspawn.poll() is None:
        leader = leader_of(nspawn)
        if leader is not None:
            asked = Machine(Path("/"), leader).run("systemctl", "is-system-running")
            state = asked.stdout.strip()
            if state in ("running", "degraded"):
                return leader
        time.sleep(0.1)
    raise Unavailable(f"systemd-nspawn does not boot here ({state}): {log.read_text().strip()[-300:]}")


@contextmanager
def booted_machine() -> Iterator[Machine]:
    """Boot one; it is shut down, and its tree removed, at the end."""
    reason = lacking()
    if reason:
        raise Unavailable(reason)
    base = Path(tempfile.mkdtemp(prefix="overlayfs-py-machine-", dir="/var/tmp"))
    root, log = base / "root", base / "console"
    root.mkdir()
    try:
        unpack_root(root)
        install_into(root)
        options = ["-q", "--register=no", "--keep-unit", "--bind=/dev/fuse", "--console=pipe", "--boot"]
        with log.open("wb") as console:
            nspawn = subprocess.Popen(
                ["systemd-nspawn", "-D", str(root), *options],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
            )
        try:
            yield Machine(root, wait_until_running(nspawn, log))
        finally:
            shut_down(nspawn)
    finally:
        shutil.rmtree(base)


def shut_down(nspawn: subprocess.Popen[bytes]) -> None:
    """Halt in order (SIGTERM), then at once (a second one), then without asking."""
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
        if nspawn.poll() is None:
            nspawn.send_signal(number)
            try:
                nspawn.wait(timeout=20)
            except subprocess.TimeoutExpired:
                continue
