"""An exception in any handler costs that one request an errno and nothing else: the mount lives on."""

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from overlayfs_py.engine.libfuse.operations import HANDLERS
from overlayfs_py.engine.native import dispatch, wire
from tests import rawcalls
from tests.engine.faulty_daemon import EXCEPTIONS
from tests.mounts import Layers, OverlayMount

pytestmark = [pytest.mark.fuse, pytest.mark.root]
ROOT = Path(__file__).resolve().parents[2]
FS_IOC_GETFLAGS = 0x80086601


class FaultyMount(OverlayMount):
    """A mount whose handlers fail on demand; nothing is cached, so that every action asks."""

    fault_file: Path

    def command(self) -> list[str]:
        options = self.layers.options({"timeout": "0", "engine": self.engine, **self.options})
        program = [sys.executable, "-m", "tests.engine.faulty_daemon", str(self.fault_file)]
        return [*program, "-f", "-o", options, str(self.layers.merged)]


# "opens" is the native engine in a session that handles opens.
@pytest.fixture(params=["pyfuse3", "native", "opens"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def faulty(layers: Layers, where: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyMount]:
    monkeypatch.chdir(ROOT)
    low = layers.lowers[0]
    (low / "dir").mkdir()
    (low / "file").write_text("content")
    (low / "link").symlink_to("file")
    (low / "target").write_text("")
    engine = "pyfuse3" if kind == "pyfuse3" else "native"
    mount = FaultyMount(layers, {"data": "passthrough"} if kind == "opens" else {}, engine=engine)
    mount.fault_file = where / "fault"
    mount.fault_file.write_text("")
    with mount:
        yield mount


def _descriptor(path: bytes, use: Callable[[int], object], flags: int = os.O_RDWR) -> None:
    """Use an open file; opening and closing it are not what fails here."""
    fd = os.open(path, flags)
    try:
        use(fd)
    finally:
        os.close(fd)


# Handler -> an action in the mount `m` that reaches it.
ACTIONS: dict[str, Callable[[bytes], object]] = {
    "lookup": lambda m: os.stat(m + b"/file"),
    "mknod": lambda m: os.mkfifo(m + b"/fifo"),
    "mkdir": lambda m: os.mkdir(m + b"/new"),
    "symlink": lambda m: os.symlink("x", m + b"/sym"),
    "link": lambda m: os.link(m + b"/file", m + b"/hard"),
    "unlink": lambda m: os.unlink(m + b"/file"),
    "rmdir": lambda m: os.rmdir(m + b"/dir"),
    "rename": lambda m: os.rename(m + b"/file", m + b"/renamed"),
    "readlink": lambda m: os.readlink(m + b"/link"),
    "getattr": lambda m: os.stat(m),
    "setattr": lambda m: os.chmod(m + b"/file", 0o600),
    "statfs": lambda m: os.statvfs(m),
    "getxattr": lambda m: os.getxattr(m + b"/file", "user.x"),
    "listxattr": lambda m: os.listxattr(m + b"/file"),
    "setxattr": lambda m: os.setxattr(m + b"/file", "user.x", b"1"),
    "removexattr": lambda m: os.removexattr(m + b"/file", "user.x"),
    "create": lambda m: os.close(os.open(m + b"/created", os.O_CREAT | os.O_WRONLY)),
    "open": lambda m: os.close(os.open(m + b"/file", os.O_RDONLY)),
    "read": lambda m: _descriptor(m + b"/file", lambda fd: os.read(fd, 5)),
    "write": lambda m: _descriptor(m + b"/file", lambda fd: os.write(fd, b"x")),
    "fsync": lambda m: _descriptor(m + b"/file", os.fsync),
    "opendir": lambda m: os.close(os.open(m + b"/dir", os.O_RDONLY | os.O_DIRECTORY)),
    "readdir": lambda m: os.listdir(m + b"/dir"),
    "fsyncdir": lambda m: _descriptor(m, os.fsync, os.O_RDONLY | os.O_DIRECTORY),
}
# Nobody waits for the answer of these.
UNANSWERED: dict[str, Callable[[bytes], object]] = {
    "release": lambda m: os.close(os.open(m + b"/file", os.O_RDONLY)),
    "releasedir": lambda m: os.listdir(m + b"/dir"),
    "forget": lambda m: Path("/proc/sys/vm/drop_caches").write_text("2"),
}


def _read_anew(fd: int) -> bytes:
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    return os.read(fd, 5)


def _copy(root: bytes) -> None:
    _descriptor(
        root + b"/file", lambda fd: _descriptor(root + b"/target", lambda to: os.copy_file_range(fd, to, 5))
    )


NATIVE: dict[str, Callable[[bytes], object]] = {
    **ACTIONS,
    "read": lambda m: _descriptor(m + b"/file", _read_anew, os.O_RDONLY),
    "readdirplus": ACTIONS["readdir"],
    "rename2": lambda m: rawcalls.renameat2(m + b"/file", m + b"/dir", rawcalls.RENAME_EXCHANGE),
    "fallocate": lambda m: _descriptor(m + b"/file", lambda fd: os.posix_fallocate(fd, 0, 5)),
    "lseek": lambda m: _descriptor(m + b"/file", lambda fd: os.lseek(fd, 0, os.SEEK_DATA)),
    "copy_file_range_64": _copy,
    "tmpfile": lambda m: os.close(os.open(m, os.O_TMPFILE | os.O_RDWR)),
    "ioctl": lambda m: _descriptor(m + b"/file", lambda fd: fcntl.ioctl(fd, FS_IOC_GETFLAGS, bytes(8))),
}
for _refused in ("open", "opendir", "create", "readdir"):
    del NATIVE[_refused]
# What the kernel does not ask a mount like this one, asks a newer kernel only, or has no plain call for.
NOT_REACHED = {
    *(
        "bmap",
        "interrupt",
        "notify_reply",
        "destroy",
        "init",
        "syncfs",
        "statx",
        "releasedir",
        "batch_forget",
    ),
    *("release", "copy_file_range", "readdir", "write"),
}
KINDS = {
    "pyfuse3": (ACTIONS, UNANSWERED),
    "native": (NATIVE, {"forget": UNANSWERED["forget"], "batch_forget": UNANSWERED["forget"]}),
    "opens": (
        {name: ACTIONS[name] for name in ("open", "create")},
        {"release": UNANSWERED["release"]},
    ),
}


def test_every_handler_has_an_action() -> None:
    assert set(ACTIONS) | set(UNANSWERED) == set(HANDLERS)
    native = {name for name in NATIVE if name != "write"} | NOT_REACHED | {"forget"}
    refused = {name.lower() for name in dispatch.REFUSED}
    assert native | refused == {row.handler for row in wire.OPS.values()}


def _check_lives(faulty: FaultyMount, what: tuple[str, str]) -> None:
    faulty.fault_file.write_text("")
    assert Path(os.fsdecode(faulty.root), "file").read_text() == "content", what


def test_every_handler_with_every_exception(faulty: FaultyMount, kind: str) -> None:
    answered, unanswered = KINDS[kind]
    own = {"OSError", "FUSEError"} if kind == "pyfuse3" else {"OSError"}
    for exception in EXCEPTIONS:
        expected = errno.EDOM if exception in own else errno.EIO
        for handler, action in answered.items():
            faulty.fault_file.write_text(f"{handler} {exception}")
            with pytest.raises(OSError, match=r".") as caught:
                action(faulty.root)
            assert caught.value.errno == expected, (handler, exception)
            _check_lives(faulty, (handler, exception))
        for handler, action in unanswered.items():
            faulty.fault_file.write_text(f"{handler} {exception}")
            action(faulty.root)
            _check_lives(faulty, (handler, exception))
    defects = len(EXCEPTIONS) - len(own)
    handlers = len(answered) + len(unanswered)
    assert len(answered) * defects <= faulty.output().count("Traceback") <= handlers * defects


def test_clean_end_after_faults(faulty: FaultyMount) -> None:
    faulty.fault_file.write_text("read ValueError")
    subprocess.run(["cat", os.fsdecode(faulty.root) + "/file"], capture_output=True, check=False)
    faulty.fault_file.write_text("")
    assert faulty.terminate() == 0
