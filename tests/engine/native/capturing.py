"""Captures real messages of this machine's kernel: ``python -m tests.engine.native.capturing tests/wire``.

Mounts a small overlay, does in it what makes the kernel send each message once, and writes the first
message of each kind as hex, one file an opcode. Needs root.
"""

import contextlib
import fcntl
import os
import platform
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from unittest import mock

import trio

from overlayfs_py.engine.native import wire
from overlayfs_py.engine.native.engine import NativeEngine
from overlayfs_py.options import MountOptions, ServiceOptions, UnionOptions
from overlayfs_py.syscalls.mount import mount_fuse, unmount
from overlayfs_py.union.overlay import Overlay

_FS_IOC_GETFLAGS = 0x80086601


def work(root: Path) -> None:
    """Everything once. Runs in a child process, as its calls wait for the parent's loop."""
    subprocess.run(["stat", root / "lower"], check=True, stdout=subprocess.DEVNULL)  # STATX
    os.listdir(root)
    (root / "made").write_bytes(b"contents")
    (root / "lower").read_bytes()
    os.symlink("target", root / "link")
    os.readlink(root / "link")
    os.mkdir(root / "directory")
    os.rename(root / "made", root / "directory/moved")
    os.link(root / "directory/moved", root / "second")
    os.setxattr(root / "second", "user.one", b"value")
    os.getxattr(root / "second", "user.one")
    os.listxattr(root / "second")
    os.removexattr(root / "second", "user.one")
    os.statvfs(root)
    fd = os.open(root / "second", os.O_RDWR)
    os.fsync(fd)
    os.posix_fallocate(fd, 0, 1 << 16)
    os.lseek(fd, 0, os.SEEK_HOLE)
    nameless = os.open(root, os.O_TMPFILE | os.O_RDWR)
    os.copy_file_range(fd, nameless, 5, 0)
    fcntl.ioctl(fd, _FS_IOC_GETFLAGS, bytes(8))
    os.close(nameless)
    os.ftruncate(fd, 3)
    os.close(fd)
    directory = os.open(root / "directory", os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)
    with contextlib.suppress(OSError):
        os.mknod(root / "device", 0o20600, os.makedev(1, 3))
    os.unlink(root / "second")
    os.unlink(root / "directory/moved")
    os.rmdir(root / "directory")


def capture(into: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        for part in ("lower", "upper", "work", "merged"):
            (top / part).mkdir()
        (top / "lower/lower").write_bytes(b"lower")
        lower, upper, work_dir = (os.fsencode(top / part) for part in ("lower", "upper", "work"))
        overlay = Overlay.open(UnionOptions(lower=(lower,), upper=upper, work=work_dir))
        engine = NativeEngine(overlay, ServiceOptions())
        serve = engine._dispatcher.serve
        seen: set[int] = set()

        def keep(buffer: bytearray | bytes, length: int) -> None:
            opcode = wire.IN_HEADER.unpack_from(buffer)[1]
            if opcode not in seen:
                seen.add(opcode)
                _write(into, opcode, bytes(buffer[:length]))
            serve(buffer, length)

        mountpoint = os.fsencode(top / "merged")
        with mock.patch.object(engine._dispatcher, "serve", keep):
            engine.attach(mount_fuse(MountOptions(mountpoint=mountpoint)))
            trio.run(_serve, engine, top / "merged")
            engine.close()
        overlay.close()


async def _serve(engine: NativeEngine, root: Path) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(engine.serve)
        command = [sys.executable, "-m", "tests.engine.native.capturing", "--work", str(root)]
        await trio.run_process(command)
        await trio.to_thread.run_sync(unmount, os.fsencode(root))


def _write(into: Path, opcode: int, message: bytes) -> None:
    name = wire.OPS[opcode].name if opcode in wire.OPS else "UNKNOWN"
    text = "\n".join(textwrap.wrap(message.hex(" ", 4), 90))
    (into / f"{opcode:02}-{name.lower()}.hex").write_text(
        f"# Linux {platform.release().split('-')[0]}: {name}\n{text}\n"
    )


if __name__ == "__main__":
    if sys.argv[1] == "--work":
        work(Path(sys.argv[2]))
    else:
        capture(Path(sys.argv[1]))
