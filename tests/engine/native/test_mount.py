"""What only this engine promises, through real mounts: requests saved, further messages, backing files."""

import ctypes
import errno
import fcntl
import mmap
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests import rawcalls
from tests.mounts import Layers, LowerLayers, OverlayMount, status
from tests.waiting import wait_until

pytestmark = [pytest.mark.fuse, pytest.mark.root]

FS_IOC_GETFLAGS, FS_IOC_SETFLAGS = 0x80086601, 0x40086602
FS_NODUMP_FL = 0x40


@pytest.fixture
def native() -> Iterator[Callable[..., OverlayMount]]:
    """native(layers, data) -> a live mount of this engine."""
    with ExitStack() as stack:

        def start(layers: Layers, data: str = "cached") -> OverlayMount:
            mount = OverlayMount(layers, {"data": data}, engine="native")
            return stack.enter_context(mount)

        yield start


def requests(mount: OverlayMount, action: Callable[[], object]) -> int:
    """How many requests `action` costs."""
    before = int(status(mount)["statistics"]["requests"])
    action()
    return int(status(mount)["statistics"]["requests"]) - before


def read(path: Path) -> bytes:
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.read(fd, 1 << 20)
    finally:
        os.close(fd)


def test_answers_come_from_the_kernels_caches(layers: Layers, native: Callable[..., OverlayMount]) -> None:
    """The second time nothing is asked: contents, opens, listings, names, missing names, symlinks."""
    lower = layers.lowers[0]
    for number in range(100):
        (lower / f"f{number}").write_bytes(b"contents")
    (lower / "link").symlink_to("f1")
    mount = native(layers)
    top = layers.merged

    def use() -> None:
        os.listdir(top)
        for number in range(100):
            read(top / f"f{number}")
            assert not (top / f"missing{number}").exists()
        os.readlink(top / "link")

    use()
    os.stat(top / "f1")
    assert requests(mount, use) <= 2  # the attributes of the root, perhaps


def test_sixteen_openers_cost_one_read(layers: Layers, native: Callable[..., OverlayMount]) -> None:
    (layers.lowers[0] / "file").write_bytes(b"x" * 4096)
    mount = native(layers)
    read(layers.merged / "file")
    assert requests(mount, lambda: [read(layers.merged / "file") for _ in range(16)]) <= 1


def test_reads_ahead_in_large_requests(layers: Layers, native: Callable[..., OverlayMount]) -> None:
    size = 32 << 20
    (layers.lowers[0] / "big").write_bytes(os.urandom(1 << 20) * 32)
    mount = native(layers)
    with open(layers.merged / "big", "rb", buffering=0) as file:
        count = requests(mount, lambda: [file.read(1 << 16) for _ in range(size >> 16)])
    assert count < 32 * 8, "128 KiB at a time would be 256"


@pytest.mark.parametrize("size", [0, 1, 65_536, (1 << 20) - 8192, (5 << 20) + 123])
def test_contents_arrive_whole(layers: Layers, native: Callable[..., OverlayMount], size: int) -> None:
    """In order, at random, past the page cache and by a mapping, also where the file has a hole."""
    content = os.urandom(size)
    path = layers.lowers[0] / "file"
    path.write_bytes(content)
    os.truncate(path, size + (3 << 20))
    content += bytes(3 << 20)
    native(layers)
    for flags in (0, os.O_DIRECT):
        fd = os.open(layers.merged / "file", os.O_RDONLY | flags)
        try:
            buffer = mmap.mmap(-1, len(content) + 8192)
            got = 0
            while step := os.preadv(fd, [memoryview(buffer)[got:]], got):
                got += step
            assert buffer[:got] == content
            buffer.close()
        finally:
            os.close(fd)
    with (layers.merged / "file").open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as m:
        assert m[:] == content


def test_birth_time(layers: Layers, native: Callable[..., OverlayMount]) -> None:
    path = layers.lowers[0] / "file"
    path.write_bytes(b"x")
    native(layers)
    born = [
        subprocess.run(["stat", "-c", "%W %w", where], check=True, capture_output=True).stdout
        for where in (path, layers.merged / "file")
    ]
    assert born[0] == born[1]
    assert born[0].split()[0] != b"0"


def test_inode_flags(layers: Layers, native: Callable[..., OverlayMount]) -> None:
    (layers.lowers[0] / "file").write_bytes(b"x")
    native(layers)
    fd = os.open(layers.merged / "file", os.O_RDONLY)
    try:
        before = struct.unpack("=L", fcntl.ioctl(fd, FS_IOC_GETFLAGS, bytes(4)))[0]
        fcntl.ioctl(fd, FS_IOC_SETFLAGS, struct.pack("=L", before | FS_NODUMP_FL))
        assert struct.unpack("=L", fcntl.ioctl(fd, FS_IOC_GETFLAGS, bytes(4)))[0] & FS_NODUMP_FL
        with pytest.raises(OSError, check=lambda error: error.errno == errno.ENOTTY):
            fcntl.ioctl(fd, 0x5401, bytes(64))  # TCGETS
    finally:
        os.close(fd)
    assert os.listdir(layers.upper) == ["file"]


@pytest.fixture
def chattr(layers: Layers) -> Iterator[Callable[[str], None]]:
    """Changes the flags of ``merged/file``, which are taken off at the end so that it can be removed."""

    def change(flags: str) -> None:
        subprocess.run(["chattr", flags, layers.merged / "file"], check=True, timeout=10)

    try:
        yield change
    finally:
        subprocess.run(["chattr", "-ia", layers.upper / "file"], capture_output=True, timeout=10)


def append(path: Path, offset: int | None = None) -> None:
    fd = os.open(path, os.O_RDWR | (os.O_APPEND if offset is None else 0))
    try:
        assert (os.write(fd, b"x") if offset is None else os.pwrite(fd, b"y", offset)) == 1
    finally:
        os.close(fd)


@pytest.mark.parametrize("data", ["cached", "passthrough"])
def test_append_only_and_immutable_files(
    layers: Layers, native: Callable[..., OverlayMount], chattr: Callable[[str], None], data: str
) -> None:
    """As in the kernel: the flags hold at once, and after a remount."""
    (layers.lowers[0] / "file").write_bytes(b"one")
    mount = native(layers, data)
    file = layers.merged / "file"
    append(file)
    chattr("+a")
    for _ in range(2):
        with pytest.raises(PermissionError):
            append(file, 0)
        with pytest.raises(PermissionError):
            os.truncate(file, 1)
        append(file)
        append(file)
        mount.unmount()
        mount = native(layers, data)
    assert file.read_bytes() == b"one" + b"x" * 5
    chattr("-a")
    append(file, 0)
    chattr("+i")
    with pytest.raises(PermissionError):
        append(file)
    chattr("-i")
    append(file)


def test_holes(layers: Layers, native: Callable[..., OverlayMount]) -> None:
    with (layers.lowers[0] / "sparse").open("wb") as file:
        file.seek(1 << 20)
        file.write(b"data")
    native(layers)
    fd = os.open(layers.merged / "sparse", os.O_RDWR)
    try:
        assert os.lseek(fd, 0, os.SEEK_DATA) == 1 << 20
        assert os.lseek(fd, 0, os.SEEK_HOLE) == 0
        os.pwrite(fd, b"more", 1 << 18)  # seen at once: nothing is held back
        assert os.lseek(fd, 0, os.SEEK_DATA) == 1 << 18
    finally:
        os.close(fd)


def test_running_program_is_busy(layers: Layers, native: Callable[..., OverlayMount]) -> None:
    program = layers.lowers[0] / "program"
    program.write_bytes(Path("/bin/sleep").read_bytes())
    program.chmod(0o755)
    native(layers)
    process = subprocess.Popen([layers.merged / "program", "30"])
    try:
        wait_until(lambda: os.readlink(f"/proc/{process.pid}/exe") == str(layers.merged / "program"))
        with pytest.raises(OSError, check=lambda error: error.errno == errno.ETXTBSY):
            os.open(layers.merged / "program", os.O_WRONLY)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("lock", [fcntl.flock, fcntl.lockf])
def test_locks_between_processes(
    layers: Layers, native: Callable[..., OverlayMount], lock: Callable[[int, int], None]
) -> None:
    native(layers)
    path = layers.merged / "lock"
    with path.open("wb") as file:
        lock(file.fileno(), fcntl.LOCK_EX)
        script = (
            f"import fcntl, sys; f = open({str(path)!r}, 'r+b')\n"
            f"try: fcntl.{lock.__name__}(f.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
            "except OSError: sys.exit(9)"
        )
        assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 9
        lock(file.fileno(), fcntl.LOCK_UN)
        assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_forgotten_nodes_are_found_again(layers: Layers, native: Callable[..., OverlayMount]) -> None:
    """The kernel drops what it knows, several times a second, while files are made, moved and read."""
    mount = native(layers)
    done = threading.Event()

    def forget() -> None:
        while not done.wait(0.02):
            rawcalls.remount(mount.root)

    thread = threading.Thread(target=forget)
    thread.start()
    try:
        for number in range(300):
            place = layers.merged / f"d{number % 7}"
            place.mkdir(exist_ok=True)
            (place / f"f{number}").write_bytes(b"%d" % number)
            (place / f"f{number}").rename(place / f"g{number}")
            assert (place / f"g{number}").read_bytes() == b"%d" % number
    finally:
        done.set()
        thread.join()
    assert sum(len(list(place.iterdir())) for place in layers.merged.iterdir()) == 300


def test_nodes_go_when_forgotten(layers: Layers, native: Callable[..., OverlayMount]) -> None:
    for number in range(500):
        (layers.lowers[0] / f"f{number}").touch()
    mount = native(layers)
    for path in layers.merged.iterdir():
        path.stat()
    assert status(mount)["statistics"]["nodes"] > 500
    rawcalls.remount(mount.root)

    def forgotten() -> bool:
        os.stat(layers.merged)  # FORGET comes with the next request at the latest
        rawcalls.remount(mount.root)
        return int(status(mount)["statistics"]["nodes"]) <= 10

    wait_until(forgotten)


# -- data=passthrough --------------------------------------------------------------------------


@pytest.fixture
def backed(layers: Layers, native: Callable[..., OverlayMount]) -> OverlayMount:
    (layers.lowers[0] / "lower").write_bytes(b"lower" * 1000)
    mount = native(layers, "passthrough")
    if not status(mount)["engine"]["passthrough"]:
        pytest.skip("no passthrough on this machine")
    return mount


def test_reads_and_writes_reach_nobody(layers: Layers, backed: OverlayMount) -> None:
    fd = os.open(layers.merged / "new", os.O_RDWR | os.O_CREAT)
    try:
        work: list[Callable[[], object]] = [
            lambda: os.pwrite(fd, b"x" * 65536, 0),
            lambda: os.pread(fd, 65536, 0),
        ]
        assert requests(backed, lambda: [step() for step in work * 50]) <= 4
        assert os.fstat(fd).st_size == 65536
    finally:
        os.close(fd)


def test_reader_of_a_lower_sees_what_is_written(layers: Layers, backed: OverlayMount) -> None:
    """tail -f: the file moves to the upper while somebody reads it."""
    reader = os.open(layers.merged / "lower", os.O_RDONLY)
    writer = os.open(layers.merged / "lower", os.O_WRONLY | os.O_APPEND)
    try:
        assert os.pread(reader, 5, 0) == b"lower"
        os.write(writer, b"appended")
        assert os.pread(reader, 100, 5000) == b"appended"
        mapped = mmap.mmap(reader, 0, prot=mmap.PROT_READ)
        assert mapped[5000:] == b"appended"
        mapped.close()
    finally:
        os.close(reader)
        os.close(writer)
    fd = os.open(layers.merged / "lower", os.O_RDONLY)  # nobody has it open: the upper file itself
    try:
        assert requests(backed, lambda: os.pread(fd, 5000, 0)) <= 1
    finally:
        os.close(fd)


def test_direct_io_wants_what_the_layer_wants(layers: Layers, backed: OverlayMount) -> None:
    """As with kernel overlayfs; a lower file comes through the page cache, which wants nothing."""

    def outcomes(path: Path) -> list[int | str]:
        found: list[int | str] = []
        fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
        buffer = mmap.mmap(-1, 8192)
        for offset, size in ((0, 4096), (4096, 4096), (100, 512), (0, 100)):
            try:
                found.append(os.preadv(fd, [memoryview(buffer)[:size]], offset))
            except OSError as error:
                found.append(errno.errorcode[error.errno or 0])
        os.close(fd)
        return found

    (layers.merged / "new").write_bytes(b"n" * 5000)
    assert outcomes(layers.merged / "new") == outcomes(layers.upper / "new")
    assert outcomes(layers.merged / "lower") == [4096, 904, 512, 100]


def test_mapped_writes_change_the_time(layers: Layers, backed: OverlayMount) -> None:
    """The kernel writes behind our back; stat tells it all the same."""
    path = layers.merged / "mapped"
    path.write_bytes(bytes(8192))
    os.utime(path, ns=(10**18, 10**18))
    fd = os.open(path, os.O_RDWR)
    try:
        assert os.fstat(fd).st_mtime_ns == 10**18
        mapped = mmap.mmap(fd, 8192)
        mapped[:3] = b"abc"
        mapped.flush()
        mapped.close()
        assert os.fstat(fd).st_mtime_ns > 10**18
    finally:
        os.close(fd)
    assert path.read_bytes()[:3] == b"abc"


def test_ordinary_writer_clears_setid_at_the_open(layers: Layers, backed: OverlayMount) -> None:
    path = layers.merged / "tool"
    path.write_bytes(b"x")
    path.chmod(0o6777)
    fd = _open_as_nobody(path)
    try:
        assert path.stat().st_mode & 0o7777 == 0o777
        path.chmod(0o6777)
        assert path.stat().st_mode & 0o7777 == 0o777, "not while somebody else can write unseen"
    finally:
        os.close(fd)
    path.chmod(0o6777)
    assert path.stat().st_mode & 0o7777 == 0o6777


def _open_as_nobody(path: Path) -> int:
    """Open for writing with another user's credentials (of this thread only, for the file system)."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.setfsgid(65534)
    libc.setfsuid(65534)
    try:
        return os.open(path, os.O_WRONLY)
    finally:
        libc.setfsuid(0)
        libc.setfsgid(0)


def test_read_only_mount_shares_the_layers_pages(layers: Layers, native: Callable[..., OverlayMount]) -> None:
    (layers.lowers[0] / "lower").write_bytes(b"lower" * 1000)
    image = LowerLayers(lowers=layers.lowers, merged=layers.merged)
    mount = native(image, "passthrough")
    if not status(mount)["engine"]["passthrough"]:
        pytest.skip("no passthrough on this machine")
    with open(layers.merged / "lower", "rb", buffering=0) as file:
        assert requests(mount, lambda: file.read(5000)) <= 1
