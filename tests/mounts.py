"""Mounts for tests: kernel overlayfs through mount(2), and ours through its command line.

Each is a context manager that leaves nothing mounted, whatever happened to the daemon meanwhile.
"""

import contextlib
import errno
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from overlayfs_py.service import client
from overlayfs_py.service.rundir import default_run_dir
from tests import rawcalls

COMMAND = Path(sys.executable).parent / "overlayfs-py"
START_TIMEOUT = 30.0
STOP_TIMEOUT = 30.0

# Module that makes an engine available, by engine name.
_ENGINE_MODULES = {
    "pyfuse3": "overlayfs_py.engine.libfuse.engine",
    "native": "overlayfs_py.engine.native.engine",
}

# What a mount of ours can be asked for by name: an engine, or an engine's other data path.
_FILES = int(os.environ.get("FILES", "0"))
_FLAVOURS = {data: {"engine": "native", "data": data} for data in ("passthrough", "writeback")}


def engines() -> list[str]:
    """The engines this checkout has."""
    return [name for name, module in _ENGINE_MODULES.items() if _importable(module)]


def flavours() -> list[str]:
    """The engines, and the data paths that make another engine of one."""
    return [*engines(), *(name for name, options in _FLAVOURS.items() if options["engine"] in engines())]


def _importable(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


@dataclass(frozen=True, kw_only=True)
class LowerLayers:
    """The directories of a mount that has no upper: lowers topmost first, and where it is mounted."""

    lowers: tuple[Path, ...]
    merged: Path

    def options(self, extra: Mapping[str, str] | None = None) -> str:
        """The option string both kernel overlayfs and ours understand."""
        more = [f"{key}={value}" if value else key for key, value in (extra or {}).items()]
        return ",".join(self._directories() + more)

    def _directories(self) -> list[str]:
        return ["lowerdir=" + ":".join(str(path) for path in self.lowers)]


@dataclass(frozen=True, kw_only=True)
class Layers(LowerLayers):
    """The directories of a mount that can be written to."""

    upper: Path
    work: Path

    def _directories(self) -> list[str]:
        return [*super()._directories(), f"upperdir={self.upper}", f"workdir={self.work}"]


def make_layers(where: Path, *, lowers: int = 1) -> Layers:
    """Fresh empty directories under `where`."""
    paths = tuple(where / f"lower{number}" for number in range(lowers))
    layers = Layers(lowers=paths, upper=where / "upper", work=where / "work", merged=where / "merged")
    for path in (*paths, where / "upper", where / "work", where / "merged"):
        path.mkdir(mode=0o755)
    return layers


class KernelMount:
    """A mount of the kernel's overlayfs."""

    def __init__(self, layers: LowerLayers, options: Mapping[str, str] | None = None) -> None:
        self.layers = layers
        self.options = dict(options or {})

    @property
    def root(self) -> bytes:
        return os.fsencode(self.layers.merged)

    def __enter__(self) -> Self:
        """EBUSY is waited out: a mount namespace that somebody cloned keeps the last mount alive."""
        data = self.layers.options(self.options).encode()
        deadline = time.monotonic() + 20
        while True:
            try:
                rawcalls.mount(b"overlay", self.root, b"overlay", 0, data)
                return self
            except OSError as error:
                if error.errno != errno.EBUSY or time.monotonic() > deadline:
                    raise
            time.sleep(0.05)

    def __exit__(self, *_: object) -> None:
        unmount(self.root)


@dataclass
class OverlayMount:
    """Our mount: `overlayfs-py -f` as a child, so that its pid is known and nothing outlives the test."""

    layers: LowerLayers
    options: Mapping[str, str] = field(default_factory=dict)
    engine: str = "auto"
    allow_other: bool = True
    files: int = 0  # how many the daemon may have open, if not as many as we
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    log: Path | None = field(default=None, init=False)

    @property
    def root(self) -> bytes:
        return os.fsencode(self.layers.merged)

    def command(self) -> list[str]:
        options = dict(self.options)
        if self.engine != "auto":
            options |= _FLAVOURS.get(self.engine, {"engine": self.engine})
        if self.allow_other:
            options["allow_other"] = ""
        limited = ["prlimit", f"--nofile={self.files}:{self.files}"] if self.files else []
        return [*limited, str(COMMAND), "-f", "-o", self.layers.options(options), str(self.layers.merged)]

    def __enter__(self) -> Self:
        handle, name = tempfile.mkstemp(prefix="overlayfs-py-", suffix=".log")
        self.log = Path(name)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
            ready.bind("")  # an abstract address of the kernel's choice
            ready.settimeout(0.05)
            address = "@" + ready.getsockname()[1:].decode()
            with open(handle, "wb") as log:
                self.process = subprocess.Popen(
                    self.command(),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**os.environ, "NOTIFY_SOCKET": address},
                )
            try:
                self._wait_ready(ready)
            except BaseException:
                self.kill()
                self._close()
                raise
        return self

    def _wait_ready(self, ready: socket.socket) -> None:
        """Until the daemon says READY=1, when its own look at the mount is over."""
        assert self.process is not None
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):
                if b"READY=1" in ready.recv(4096):
                    return
            if self.process.poll() is not None:
                raise AssertionError(f"overlayfs-py exited {self.process.returncode}: {self.output()}")
        raise AssertionError(f"no mount after {START_TIMEOUT} s: {self.output()}")

    def output(self) -> str:
        """What the daemon printed."""
        return self.log.read_text(errors="replace") if self.log and self.log.exists() else ""

    def kill(self) -> None:
        """kill -9, as a crash: the mount stays behind, dead.

        A daemon with a thread inside its own mount cannot die; the connection is aborted then, and it fails.
        """
        if self.process is None:
            return
        self.process.kill()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(OSError):
                rawcalls.umount(self.root, rawcalls.MNT_FORCE)
            self.process.wait(20)
            raise AssertionError("killed, and still there: a thread of it waited for its own mount") from None

    def terminate(self) -> int:
        """SIGTERM: a clean end, the exit status is returned."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_TIMEOUT)

    def unmount(self) -> int:
        """umount(8)'s way: returns the daemon's exit status once it is gone."""
        assert self.process is not None
        unmount(self.root)
        return self.process.wait(STOP_TIMEOUT)

    def clear(self) -> None:
        """After kill(): take the dead mount away."""
        if rawcalls.is_mounted(self.root):
            rawcalls.umount(self.root, rawcalls.MNT_DETACH)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self.process is not None and self.process.poll() is None and error is None:
                self.unmount()
        finally:
            self.kill()
            self._close()

    def _close(self) -> None:
        with contextlib.suppress(OSError):
            self.clear()
        if self.log is not None:
            self.log.unlink(missing_ok=True)


def status(mount: OverlayMount, verb: str = "status") -> dict[str, Any]:
    """What its daemon says of it; `verb` "stats": its figures."""
    with client.connect(default_run_dir(os.environ, os.geteuid()), mount.root) as daemon:
        return dict(daemon.ask(verb))


def unmount(root: bytes, seconds: float = 10.0) -> None:
    """Unmount, waiting a moment for whoever still has it open; then lazily, and complain."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            rawcalls.umount(root)
            return
        except OSError as error:
            if error.errno == errno.EINVAL:
                return
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                rawcalls.umount(root, rawcalls.MNT_DETACH)
                raise AssertionError(f"{os.fsdecode(root)} would not unmount: {error}") from None
        time.sleep(0.01)


@contextlib.contextmanager
def scratch(prefix: str = "overlay-test-", *, under: Path | None = None) -> Iterator[Path]:
    """A directory every user can enter, on a file system fit for an upper, gone afterwards. podman takes
    paths for image names, in which underscores may not stand anywhere: it is named in hexadecimal digits.
    """
    with contextlib.nullcontext(str(under)) if under else _fit_directory() as where:
        path = Path(where) / f"{prefix}{secrets.token_hex(6)}"
        path.mkdir(mode=0o755)
        path.chmod(0o755)
        try:
            yield path
        finally:
            remove(path)


def remove(path: Path) -> None:
    """Delete a scratch directory: names may be anything, modes as well, mounts below it gone already."""
    points = [line.split(b" ")[4] for line in Path("/proc/self/mountinfo").read_bytes().splitlines()]
    for point in sorted(
        (point for point in points if point.startswith(os.fsencode(path) + b"/")), reverse=True
    ):
        rawcalls.umount(point, rawcalls.MNT_DETACH)
    subprocess.run(["rm", "-rf", "--one-file-system", str(path)], check=False, timeout=120 + _FILES // 50)


@contextlib.contextmanager
def _fit_directory() -> Iterator[str]:
    """TMPDIR when its file system takes trusted xattrs and file handles, else a loop image."""
    where = tempfile.gettempdir()
    kind = subprocess.run(
        ["stat", "-fc", "%T", where], check=True, capture_output=True, text=True
    ).stdout.strip()
    if kind in {"ext2/ext3", "xfs", "btrfs"}:
        yield where
        return
    with loop_filesystem(Path(where), 1 << 30) as mounted:
        yield str(mounted)


_GROUND_BYTES = max(1 << 30, _FILES << 15)  # ext4 has an inode every 16 KiB


@contextlib.contextmanager
def quick_ground() -> Iterator[Path]:
    """An ext4 in memory when the machine has room for one: the same semantics, and fsync costs nothing."""
    if os.access("/dev/shm", os.W_OK) and os.path.exists("/dev/loop-control"):
        with loop_filesystem(Path("/dev/shm"), _GROUND_BYTES) as mounted:
            yield mounted
    else:
        with scratch() as path:
            yield path


@contextlib.contextmanager
def loop_filesystem(where: Path, size: int) -> Iterator[Path]:
    """A fresh ext4 of `size` bytes, mounted at a new directory under `where`."""
    top = Path(tempfile.mkdtemp(prefix="overlay-ext4-", dir=where))
    image, mounted = top / "image", top / "mounted"
    top.chmod(0o755)
    mounted.mkdir()
    try:
        with image.open("wb") as stream:
            stream.truncate(size)
        subprocess.run(["mkfs.ext4", "-q", "-m0", "-E", "nodiscard", str(image)], check=True, timeout=60)
        subprocess.run(["mount", "-o", "loop", str(image), str(mounted)], check=True, timeout=60)
        yield mounted
    finally:
        subprocess.run(["umount", "-l", str(mounted)], check=False, stderr=subprocess.DEVNULL, timeout=60)
        subprocess.run(["rm", "-rf", str(top)], check=False, timeout=60)
