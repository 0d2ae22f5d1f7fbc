"""What an engine adds to the union, seen through a real mount: caches, handles, errors, copies in threads."""

import errno
import fcntl
import mmap
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from overlayfs_py.service import client
from overlayfs_py.service.rundir import default_run_dir
from tests.mounts import Layers, OverlayMount, make_layers
from tests.nobody import NOBODY, as_nobody

pytestmark = [pytest.mark.fuse, pytest.mark.root]
Mounter = Callable[..., OverlayMount]


def statistics(mount: OverlayMount) -> dict[str, int]:
    with client.connect(default_run_dir(os.environ, os.geteuid()), mount.root) as daemon:
        return dict(daemon.ask("status")["statistics"])


def test_lists_dots_and_every_name_once(layers: Layers, mount: Mounter) -> None:
    names = {f"file{number}" for number in range(1000)}
    for name in names:
        (layers.lowers[0] / name).touch()
    mount(layers)
    listed = subprocess.run(["ls", "-fa", layers.merged], capture_output=True, text=True, check=True).stdout
    assert sorted(listed.split()) == sorted(names | {".", ".."})


def test_entry_types_and_numbers(layers: Layers, mount: Mounter) -> None:
    """d_type and d_ino say what stat says."""
    low = layers.lowers[0]
    (low / "dir").mkdir()
    (low / "file").touch()
    (low / "link").symlink_to("file")
    os.mkfifo(low / "fifo")
    os.mknod(low / "dev", stat.S_IFCHR, os.makedev(1, 3))
    os.link(low / "file", low / "hard")
    mount(layers)
    for entry in os.scandir(layers.merged):
        assert entry.inode() == os.lstat(entry.path).st_ino, entry.name
        assert entry.is_dir(follow_symlinks=False) == (entry.name == "dir")
        assert entry.is_symlink() == (entry.name == "link")


def test_numbers_of_broken_hard_links(layers: Layers, mount: Mounter) -> None:
    """index=off: names of a lower hard link share a number but not the inode; a copy-up gives a new one."""
    low = layers.lowers[0]
    (low / "one").write_text("text")
    for name in ("two", "three"):
        os.link(low / "one", low / name)
    mount(layers, {"index": "off"})
    for _ in range(2):
        for entry in os.scandir(layers.merged):
            assert entry.inode() == os.lstat(entry.path).st_ino, entry.name
    before = os.stat(layers.merged / "two").st_ino
    (layers.merged / "two").write_text("other")
    assert os.stat(layers.merged / "two").st_ino != before
    assert (layers.merged / "one").read_text() == (layers.merged / "three").read_text() == "text"
    for _ in range(2):
        for entry in os.scandir(layers.merged):
            assert entry.inode() == os.lstat(entry.path).st_ino, entry.name
    with (layers.merged / "two").open("a") as stream:
        os.listdir(layers.merged)
        stream.write(" more")
    assert (layers.merged / "two").read_text() == "other more"


def test_ten_thousand_names_in_half_a_second(layers: Layers, mount: Mounter) -> None:
    for number in range(10_000):
        (layers.lowers[0] / f"{number:05d}").touch()
    mount(layers)
    start = time.monotonic()
    assert len(os.listdir(layers.merged)) == 10_000
    assert time.monotonic() - start < 1.5  # 0.15 s alone; other suites share the machine


def test_rewound_directory_shows_what_is_new(mounted: OverlayMount) -> None:
    fd = os.open(mounted.root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert os.listdir(fd) == []
        os.mkdir(mounted.root + b"/new")
        os.lseek(fd, 0, os.SEEK_SET)
        assert os.listdir(fd) == ["new"]
    finally:
        os.close(fd)


def test_removed_names_do_not_disturb_a_listing(layers: Layers, mount: Mounter) -> None:
    """rm -r lists and removes at once: no name is left out."""
    for number in range(500):
        (layers.lowers[0] / f"{number}").touch()
    mount(layers)
    for entry in os.scandir(layers.merged):
        os.unlink(entry.path)
    assert os.listdir(layers.merged) == []


def test_missing_name_is_remembered_until_it_is_made(mounted: OverlayMount) -> None:
    path = mounted.root + b"/later"
    for _ in range(2):
        assert not os.path.exists(path)
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
    assert os.path.exists(path)


def test_link_counts_follow(mounted: OverlayMount) -> None:
    one, two = mounted.root + b"/one", mounted.root + b"/two"
    os.close(os.open(one, os.O_CREAT | os.O_WRONLY))
    os.link(one, two)
    assert os.stat(one).st_nlink == os.stat(two).st_nlink == 2
    os.unlink(one)
    assert os.stat(two).st_nlink == 1


def test_directory_attributes_follow_a_copy_up_below(layers: Layers, mount: Mounter) -> None:
    """A pure lower directory turns into a merged one, whose link count is 1, without a request of its own."""
    (layers.lowers[0] / "a/b/c").mkdir(parents=True)
    (layers.lowers[0] / "a/b/c/file").touch()
    mount(layers)
    for path in ("a", "a/b"):
        os.stat(layers.merged / path)
    with (layers.merged / "a/b/c/file").open("a") as stream:
        stream.write("x")
    for path in ("a", "a/b", "a/b/c"):
        assert os.stat(layers.merged / path).st_nlink == 1


def test_open_file_outlives_its_name(mounted: OverlayMount) -> None:
    path = mounted.root + b"/gone"
    fd = os.open(path, os.O_CREAT | os.O_RDWR)
    os.write(fd, b"kept")
    os.unlink(path)
    assert os.fstat(fd).st_nlink == 0
    assert os.pread(fd, 10, 0) == b"kept"
    os.write(fd, b" on")
    assert os.fstat(fd).st_size == 7
    os.close(fd)


def test_reader_sees_what_a_copy_up_brought(layers: Layers, mount: Mounter) -> None:
    (layers.lowers[0] / "file").write_text("old")
    mount(layers)
    with (layers.merged / "file").open("rb") as reader:
        mapped = mmap.mmap(reader.fileno(), 3, access=mmap.ACCESS_READ)
        (layers.merged / "file").write_text("new")
        assert os.pread(reader.fileno(), 3, 0) == b"new"
        assert mapped[:] == b"new"
        mapped.close()
    assert (layers.lowers[0] / "file").read_text() == "old"


def test_direct_io_needs_no_alignment_and_stays_coherent(mounted: OverlayMount) -> None:
    path = mounted.root + b"/direct"
    fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_DIRECT)
    try:
        os.write(fd, b"odd")
        with open(path, "rb") as buffered:
            assert buffered.read() == b"odd"
        os.pwrite(fd, b"ODD", 0)
        with open(path, "rb") as buffered:
            assert buffered.read() == b"ODD"
    finally:
        os.close(fd)


def test_shared_mapping_is_written(layers: Layers, mount: Mounter) -> None:
    (layers.lowers[0] / "file").write_bytes(b"a" * 8192)
    mounted = mount(layers)
    fd = os.open(layers.merged / "file", os.O_RDWR)
    with mmap.mmap(fd, 8192) as mapped:
        mapped[4096:4099] = b"xyz"
        mapped.flush()
    os.close(fd)
    mounted.unmount()
    assert (layers.upper / "file").read_bytes()[4096:4100] == b"xyza"


def test_nodes_are_forgotten(layers: Layers, mount: Mounter) -> None:
    """When the kernel drops its inodes, so do we; and everything is found again."""
    for number in range(200):
        (layers.lowers[0] / f"{number}").write_text(str(number))
    mounted = mount(layers)
    for path in layers.merged.iterdir():
        path.stat()
    assert statistics(mounted)["nodes"] > 200
    deadline = time.monotonic() + 20
    while statistics(mounted)["nodes"] > 50 and time.monotonic() < deadline:
        Path("/proc/sys/vm/drop_caches").write_text("2")
    assert statistics(mounted)["nodes"] <= 50
    assert (layers.merged / "17").read_text() == "17"


@pytest.mark.parametrize("umask", [0, 0o027, 0o077])
def test_created_as_the_caller_with_its_umask(mounted: OverlayMount, umask: int) -> None:
    os.chmod(mounted.root, 0o777)
    os.umask(old := os.umask(0))

    def make() -> None:
        os.umask(umask)
        os.close(os.open(mounted.root + b"/file", os.O_CREAT | os.O_WRONLY, 0o666))
        os.mkdir(mounted.root + b"/dir", 0o777)

    assert as_nobody(make) == 0
    for name, mode in ((b"/file", 0o666), (b"/dir", 0o777)):
        found = os.stat(mounted.root + name)
        assert (found.st_uid, found.st_gid) == (NOBODY, NOBODY)
        assert stat.S_IMODE(found.st_mode) == mode & ~umask
    assert os.umask(old) == old


def test_default_acl_beats_the_umask(mounted: OverlayMount) -> None:
    subprocess.run(["setfacl", "-d", "-m", "u::rwx,g::rwx,o::rwx", mounted.root], check=True)
    old = os.umask(0o077)
    try:
        os.close(os.open(mounted.root + b"/file", os.O_CREAT | os.O_WRONLY, 0o666))
    finally:
        os.umask(old)
    assert stat.S_IMODE(os.stat(mounted.root + b"/file").st_mode) == 0o666


def _privileged(mounted: OverlayMount) -> bytes:
    path = mounted.root + b"/program"
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
    os.write(fd := os.open(path, os.O_WRONLY), b"text")
    os.close(fd)
    os.chmod(path, 0o6777)
    return path


@pytest.mark.parametrize("how", ["write", "truncate", "open", "append"])
def test_an_ordinary_users_change_clears_setid(mounted: OverlayMount, how: str) -> None:
    path = _privileged(mounted)

    def change() -> None:
        if how == "truncate":
            os.truncate(path, 1)
        else:
            fd = os.open(path, os.O_WRONLY | {"open": os.O_TRUNC, "append": os.O_APPEND}.get(how, 0))
            if how != "open":
                os.write(fd, b"x")
            os.close(fd)

    assert as_nobody(change) == 0
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o777


def test_roots_write_keeps_setid_and_chown_clears_it(mounted: OverlayMount) -> None:
    path = _privileged(mounted)
    with open(path, "ab") as stream:
        stream.write(b"more")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o6777
    os.chown(path, 1, 1)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o777


def test_only_permitted_users_get_in(layers: Layers, mount: Mounter) -> None:
    (layers.lowers[0] / "secret").mkdir(mode=0o700)
    mount(layers)
    assert as_nobody(lambda: os.listdir(layers.merged / "secret")) == errno.EACCES
    assert as_nobody(lambda: os.listdir(layers.merged)) == 0


def test_locks_are_the_kernels(mounted: OverlayMount) -> None:
    path = mounted.root + b"/lock"
    first = os.open(path, os.O_CREAT | os.O_RDWR)
    second = os.open(path, os.O_RDWR)
    fcntl.flock(first, fcntl.LOCK_EX)
    with pytest.raises(BlockingIOError):
        fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(first)
    os.close(second)


def test_xattr_flags(mounted: OverlayMount) -> None:
    path = mounted.root + b"/file"
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
    with pytest.raises(OSError, match="No data") as caught:
        os.setxattr(path, "user.a", b"1", os.XATTR_REPLACE)
    assert caught.value.errno == errno.ENODATA
    os.setxattr(path, "user.a", b"1", os.XATTR_CREATE)
    with pytest.raises(FileExistsError):
        os.setxattr(path, "user.a", b"2", os.XATTR_CREATE)
    assert os.listxattr(path) == ["user.a"]


@pytest.mark.alone
def test_a_long_copy_lets_others_work(where: Path, mount: Mounter) -> None:
    """While a big file is copied up others are answered; a second writer waits and does not copy again."""
    layers = make_layers(where)
    big = layers.lowers[0] / "big"
    with big.open("wb") as stream:
        for _ in range(192):
            stream.write(os.urandom(1 << 20))
    mounted = mount(layers)
    target = layers.merged / "big"
    os.stat(target)
    writers = [threading.Thread(target=lambda at=at: _patch(target, at)) for at in (0, 1)]
    for thread in writers:
        thread.start()
    waits: list[float] = []
    while any(thread.is_alive() for thread in writers):
        start = time.monotonic()
        os.path.exists(layers.merged / f"missing{len(waits)}")
        waits.append(time.monotonic() - start)
    for thread in writers:
        thread.join()
    assert len(waits) > 20
    assert sorted(waits)[len(waits) // 2] < 0.05
    assert target.read_bytes()[:2] == b"\x01\x02"
    assert os.stat(target).st_size == 192 << 20
    assert statistics(mounted)["copies"] == 0
    assert [p for p in (layers.work / "work").iterdir() if p.name != "incompat"] == []


def _patch(path: Path, at: int) -> None:
    fd = os.open(path, os.O_WRONLY)
    try:
        os.pwrite(fd, bytes([at + 1]), at)
    finally:
        os.close(fd)


def test_failed_copy_up_reaches_the_caller(layers: Layers, mount: Mounter) -> None:
    """An upper without space: ENOSPC, the lower's content stays visible, nothing half-made is left."""
    (layers.lowers[0] / "big").write_bytes(b"x" * (8 << 20))
    small = layers.upper.parent / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", small], check=True)
    try:
        tight = Layers(lowers=layers.lowers, upper=small / "upper", work=small / "work", merged=layers.merged)
        (small / "upper").mkdir()
        (small / "work").mkdir()
        mounted = mount(tight)
        with pytest.raises(OSError, match="No space") as caught:  # at the open, or at the first write
            _patch(tight.merged / "big", 0)
        assert caught.value.errno == errno.ENOSPC
        assert (tight.merged / "big").stat().st_size == 8 << 20
        assert os.listdir(small / "upper") == []
        mounted.unmount()
    finally:
        subprocess.run(["umount", "-l", small], check=True)


def test_interrupted_caller_leaves_the_mount_alive(layers: Layers, mount: Mounter) -> None:
    """A reader killed in the middle of its requests costs nobody else anything."""
    (layers.lowers[0] / "file").write_bytes(b"x" * (4 << 20))
    mount(layers)
    read = f"open({str(layers.merged / 'file')!r}, 'rb').read()"
    script = f"{read}\nprint(flush=True)\nwhile True: {read}"
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
            assert process.stdout
            process.stdout.readline()
            process.send_signal(signal.SIGKILL)
    assert (layers.merged / "file").stat().st_size == 4 << 20
