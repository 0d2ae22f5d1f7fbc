import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from overlayfs_py.syscalls import openat
from tests.syscalls.conftest import MountType


def test_opens_beneath_a_directory(tmp_path: Path, dir_fd: int) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_bytes(b"hello")
    fd = openat.open_beneath(dir_fd, b"a/../a/file", os.O_RDONLY)
    try:
        assert os.read(fd, 10) == b"hello"
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


def test_mode_counts_only_for_what_is_created(tmp_path: Path, dir_fd: int) -> None:
    fd = openat.open_beneath(dir_fd, b"new", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o640)
    os.close(fd)
    assert (tmp_path / "new").stat().st_mode & 0o7777 == 0o640
    os.close(openat.open_beneath(dir_fd, b"new", os.O_RDONLY, 0o777))
    fd = openat.open_beneath(dir_fd, b".", os.O_TMPFILE | os.O_WRONLY, 0o600)
    assert os.fstat(fd).st_nlink == 0
    os.close(fd)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        (b"missing", errno.ENOENT),
        (b"../outside", errno.EXDEV),
        (b"/etc/passwd", errno.EXDEV),
        (b"link", errno.ELOOP),
        (b"way/file", errno.ELOOP),
        (b"dir/file/x", errno.ENOTDIR),
        (b"n" * 256, errno.ENAMETOOLONG),
    ],
)
def test_never_leaves_and_never_follows(tmp_path: Path, dir_fd: int, path: bytes, code: int) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "file").touch()
    (tmp_path / "link").symlink_to("dir/file")
    (tmp_path / "way").symlink_to("dir")
    with pytest.raises(OSError) as raised:  # noqa: PT011 - the errno is checked below
        openat.open_beneath(dir_fd, path, os.O_RDONLY)
    assert raised.value.errno == code


def test_a_symbolic_link_itself_can_be_opened(tmp_path: Path, dir_fd: int) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    fd = openat.open_beneath(dir_fd, b"link", os.O_PATH | os.O_NOFOLLOW)
    try:
        assert os.readlink(b"", dir_fd=fd) == b"nowhere"
    finally:
        os.close(fd)


def test_retries_while_renames_run(tmp_path: Path, dir_fd: int) -> None:
    """openat2 gives EAGAIN for ``..`` when any rename ran meanwhile; the caller must not see it."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    script = "import os, sys\nos.chdir(sys.argv[1])\nwhile True: os.rename('x', 'y'); os.rename('y', 'x')"
    (tmp_path / "x").touch()
    renamer = subprocess.Popen([sys.executable, "-c", script, tmp_path])
    try:
        for _ in range(3000):
            os.close(openat.open_beneath(dir_fd, b"a/b/../../a/b/..", os.O_PATH))
    finally:
        renamer.kill()
        renamer.wait()


def test_a_signal_does_not_end_a_waiting_open(tmp_path: Path, dir_fd: int) -> None:
    os.mkfifo(tmp_path / "fifo")
    rang = []
    before = signal.signal(signal.SIGALRM, lambda *arguments: rang.append(1))
    writer = threading.Timer(0.3, lambda: os.close(os.open(tmp_path / "fifo", os.O_WRONLY)))
    writer.start()
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        os.close(openat.open_beneath(dir_fd, b"fifo", os.O_RDONLY))
    finally:
        signal.signal(signal.SIGALRM, before)
        writer.join()
    assert rang == [1]


def test_clone_tree_is_a_private_mount(root: None, tmp_path: Path, tmpfs: MountType) -> None:
    where = tmpfs()
    (where / "sub").mkdir()
    (where / "file").write_bytes(b"hello")
    over = where / "sub"
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", over], check=True)
    try:
        (over / "hidden").touch()
        fd = openat.clone_tree(os.fsencode(where))
    finally:
        subprocess.run(["umount", over], check=True)
    try:
        assert sorted(os.listdir(fd)) == ["file", "sub"]
        sub = openat.open_beneath(fd, b"sub", os.O_RDONLY)
        assert os.listdir(sub) == []
        os.close(sub)
        new = openat.open_beneath(fd, b"new", os.O_CREAT | os.O_WRONLY, 0o600)
        assert os.write(new, b"x") == 1
        os.fsync(new)
        os.close(new)
        os.mkdir("made", dir_fd=fd)
        os.rename("new", "made/new", src_dir_fd=fd, dst_dir_fd=fd)
        assert (where / "made" / "new").read_bytes() == b"x"
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


def test_clone_tree_errors(root: None, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        openat.clone_tree(os.fsencode(tmp_path / "file"))
    with pytest.raises(FileNotFoundError):
        openat.clone_tree(os.fsencode(tmp_path / "missing"))


def test_clone_tree_needs_privilege(root: None) -> None:
    script = (
        "from overlayfs_py.syscalls import openat\n"
        "try: openat.clone_tree(b'/tmp')\n"
        "except PermissionError as e: print(e.errno)"
    )
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-c", script]
    assert subprocess.run(command, check=True, capture_output=True, timeout=30).stdout == b"1\n"
