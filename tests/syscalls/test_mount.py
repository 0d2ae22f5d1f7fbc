import contextlib
import ctypes
import errno
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from overlayfs_py.errors import MountError
from overlayfs_py.options import MountOptions
from overlayfs_py.syscalls import _fusermount, mount
from tests.syscalls import ordinary_user
from tests.syscalls.fuse_requests import INIT, EmptyDirectory

SERVER = Path(__file__).with_name("fuse_requests.py")
NAME = b"/a \\ b,c\td\xff\n"  # needs escaping everywhere

pytestmark = [
    pytest.mark.fuse,
    pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="needs /dev/fuse"),
]


@pytest.fixture
def where(root: None) -> Iterator[bytes]:
    """A directory where everything is unmounted afterwards."""
    with tempfile.TemporaryDirectory(prefix="mount-") as base:
        path = os.fsencode(base) + NAME
        os.mkdir(path)
        try:
            yield path
        finally:
            while subprocess.run(["umount", "-l", path], capture_output=True, timeout=30).returncode == 0:
                pass


@contextlib.contextmanager
def mounted(where: bytes, **options: Any) -> Iterator[int]:
    """Mounted by this process, which does not answer."""
    fd = mount.mount_fuse(MountOptions(mountpoint=where, **options))
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def served(
    where: bytes, *options: str, by: Sequence[str] = ()
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Mounted and answered by another process; gives it and its first line of output."""
    command: list[str | bytes] = [*by, sys.executable, str(SERVER), where, *options]
    environment = {**os.environ, "PYTHONPATH": str(SERVER.parents[2])}
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, errors="replace"
    )
    try:
        yield process, answer(process)
    finally:
        process.kill()
        process.communicate(timeout=30)


def ask(process: subprocess.Popen[str], line: str) -> str:
    assert process.stdin
    process.stdin.write(line + "\n")
    process.stdin.flush()
    return answer(process)


def answer(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def mounted_at(where: bytes) -> mount.MountRecord:
    """What is mounted there, for something must be."""
    found = mount.mounted_filesystem(where)
    assert found is not None
    return found


def test_a_mount_by_root(where: bytes) -> None:
    with mounted(where, fsname="my source, \\x", subtype="kind", nosuid=True, noatime=True) as fd:
        assert not os.get_inheritable(fd)
        assert int.from_bytes(os.read(fd, 1 << 20)[4:8], sys.byteorder) == INIT
        found = mounted_at(where)
        assert found.mountpoint == where
        assert found.source == b"my source, \\x"
        assert found.fstype == b"fuse.kind"
        assert found.root == b"/"
        assert {b"rw", b"nosuid", b"noatime"} <= set(found.options)
        assert not {b"ro", b"nodev", b"noexec"} & set(found.options)
        assert {b"user_id=0", b"group_id=0", b"default_permissions", b"allow_other"} <= set(
            found.super_options
        )
        assert mount.mounted_filesystem(where + b"/") == found
        assert mount.mounted_filesystem(os.path.dirname(where)) is None
        mount.unmount(where)
        with pytest.raises(OSError, match="No such device"):
            os.read(fd, 1 << 20)
    assert mount.mounted_filesystem(where) is None


@pytest.mark.parametrize(
    ("option", "word"),
    [
        ("read_only", b"ro"),
        ("nosuid", b"nosuid"),
        ("nodev", b"nodev"),
        ("noexec", b"noexec"),
        ("noatime", b"noatime"),
    ],
)
def test_each_flag(where: bytes, option: str, word: bytes) -> None:
    with mounted(where, **{option: True}):
        found = mounted_at(where)
        assert word in found.options
        if option == "read_only":
            assert b"ro" in found.super_options
        mount.unmount(where)


def test_allow_root_alone_keeps_others_out(where: bytes) -> None:
    with mounted(where, allow_root=True):
        assert b"allow_other" not in mounted_at(where).super_options
        mount.unmount(where)


def test_the_umask_is_left_to_us(where: bytes) -> None:
    """With a mount by root MKDIR carries the mode as the caller gave it, the umask beside it."""
    server = EmptyDirectory(mount.mount_fuse(MountOptions(mountpoint=where)))
    thread = server.start()
    try:
        made = subprocess.run(["mkdir", where + b"/x"], umask=0o077, capture_output=True, timeout=30)
        assert b"not permitted" in made.stderr
        assert server.made == [(0o777, 0o077)]
        assert not mount.is_stale(where)
    finally:
        mount.unmount(where, lazy=True)
        thread.join(10)
        os.close(server.fd)


def test_a_dead_mount_is_seen_and_cleared(where: bytes) -> None:
    assert not mount.is_stale(where)
    with mounted(where):
        pass
    assert mount.is_stale(where)
    assert mounted_at(where).fstype == b"fuse.overlayfs-py"
    with pytest.raises(MountError, match="dead FUSE mount"):
        mount.mount_fuse(MountOptions(mountpoint=where))
    mount.unmount(where)
    assert not mount.is_stale(where)
    assert mount.mounted_filesystem(where) is None


def test_an_unanswered_mount_hangs_nobody(where: bytes) -> None:
    """Nothing but is_stale and mounting again may ask the file system; they would wait here for ever."""
    with mounted(where):
        link = os.path.dirname(where) + b"/link"
        os.symlink(os.path.basename(where), link)
        assert mounted_at(link).mountpoint == where
        assert any(record.mountpoint == where for record in mount.mount_table())
        mount.unmount(link)
        assert mount.mounted_filesystem(where) is None


def test_the_topmost_of_several_mounts(where: bytes) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "below", where], check=True)
    assert mounted_at(where).source == b"below"
    with mounted(where, fsname="above"):
        assert mounted_at(where).source == b"above"
        mount.unmount(where)
    assert mounted_at(where).source == b"below"
    mount.unmount(where)
    assert mount.mounted_filesystem(where) is None


def test_a_hidden_mount_is_not_found(where: bytes) -> None:
    os.mkdir(where + b"/inner")
    subprocess.run(["mount", "-t", "tmpfs", "inner", where + b"/inner"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "cover", where], check=True)
    try:
        os.mkdir(where + b"/inner")
        assert mount.mounted_filesystem(where + b"/inner") is None
        assert mounted_at(where).source == b"cover"
    finally:
        subprocess.run(["umount", where], check=True)
        subprocess.run(["umount", where + b"/inner"], check=True)


def test_what_is_mounted_elsewhere() -> None:
    assert mounted_at(b"/").mountpoint == b"/"
    assert mounted_at(b"/proc").fstype == b"proc"
    assert mounted_at(b"/proc/..").mountpoint == b"/"
    assert mount.mounted_filesystem(b"/no/such/path") is None
    assert mount.mounted_filesystem(b"/proc/version") is None


def test_a_relative_mount_point(where: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(os.fsdecode(os.path.dirname(where)))
    name = os.path.basename(where)
    with mounted(name):
        assert mounted_at(name).mountpoint == where
        mount.unmount(name)


def test_a_busy_mount_and_a_lazy_unmount(where: bytes) -> None:
    with served(where) as (_, said):
        assert said == "mounted"
        fd = os.open(where, os.O_PATH)
        try:
            with pytest.raises(MountError, match=r"^cannot unmount .*: it is in use[^\n]*$"):
                mount.unmount(where)
            mount.unmount(where, lazy=True)
        finally:
            os.close(fd)
    assert mount.mounted_filesystem(where) is None


@pytest.mark.parametrize(
    ("name", "text"),
    [(b"missing", "No such file"), (b"file", "not a directory"), (b"file/x", "Not a directory")],
)
def test_bad_mount_points(tmp_path: Path, name: bytes, text: str) -> None:
    (tmp_path / "file").touch()
    path = os.fsencode(tmp_path) + b"/" + name
    with pytest.raises(MountError, match=rf"^cannot mount on {path.decode()}: .*{text}[^\n]*$"):
        mount.mount_fuse(MountOptions(mountpoint=path))


def test_unmounting_nothing(root: None, tmp_path: Path) -> None:
    with pytest.raises(MountError, match=rf"^cannot unmount {tmp_path}: nothing is mounted there$"):
        mount.unmount(os.fsencode(tmp_path))
    with pytest.raises(MountError, match="No such file"):
        mount.unmount(os.fsencode(tmp_path / "missing"))


def test_no_descriptor_leaks(where: bytes, tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with mounted(where):
            mount.unmount(where)
        with pytest.raises(MountError):
            mount.mount_fuse(MountOptions(mountpoint=os.fsencode(tmp_path / "missing")))
        mount.mounted_filesystem(where)
    assert len(os.listdir("/proc/self/fd")) == before


STALE = """
import sys, os
from overlayfs_py.syscalls import mount
where = os.fsencode(sys.argv[1])
before = mount.is_stale(where)
mount.unmount(where)
print(before, mount.is_stale(where))
"""


@pytest.mark.skipif(ordinary_user.why_not() is not None, reason=str(ordinary_user.why_not()))
class TestOrdinaryUser:
    """Through fusermount3."""

    @pytest.fixture
    def area(self) -> Iterator[Path]:
        with ordinary_user.shared_area() as area:
            yield area

    @pytest.fixture
    def where(self, area: Path) -> bytes:
        path = os.fsencode(area) + NAME
        os.mkdir(path)
        os.chown(path, ordinary_user.UID, ordinary_user.UID)
        return path

    @pytest.fixture
    def user(self, area: Path) -> list[str]:
        return ordinary_user.as_user(area)

    def test_mounts_and_unmounts(self, where: bytes, user: list[str]) -> None:
        with served(where, "noatime", "noexec", by=user) as (process, said):
            assert said == "mounted"
            found = mounted_at(where)
            assert found.fstype == b"fuse.overlayfs-py"
            assert found.source == b"overlayfs-py"
            assert {b"nosuid", b"nodev", b"noatime", b"noexec"} <= set(found.options)
            assert {b"user_id=65534", b"default_permissions"} <= set(found.super_options)
            assert b"allow_other" not in found.super_options
            with pytest.raises(PermissionError):
                os.listdir(where)  # not even root
            assert ask(process, "unmount") == "unmounted"
        assert mount.mounted_filesystem(where) is None

    def test_the_message_of_fusermount(self, where: bytes, user: list[str]) -> None:
        os.chown(where, 0, 0)
        with served(where, by=user) as (_, said):
            assert said.startswith(f"cannot mount on {os.path.dirname(where).decode()}/")
            assert "fusermount3: " in said
            assert "user has no write access to mountpoint" in said
        assert mount.mounted_filesystem(where) is None

    def test_allow_other_is_asked_for(self, where: bytes, user: list[str]) -> None:
        with served(where, "allow_other", by=user) as (_, said):
            if "user_allow_other" not in said:
                assert said == "mounted"  # this machine's /etc/fuse.conf permits it
                assert b"allow_other" in mounted_at(where).super_options

    def test_allow_root_is_refused(self, where: bytes, user: list[str]) -> None:
        with served(where, "allow_root", by=user) as (_, said):
            assert "allow_root needs a mount by root" in said

    def test_unmounting_errors(self, where: bytes, user: list[str]) -> None:
        with served(where, by=user) as (process, said):
            assert said == "mounted"
            assert ask(process, "unmount") == "unmounted"
            assert "fusermount3: entry for" in ask(process, "unmount")

    def test_a_lazy_unmount(self, where: bytes, user: list[str]) -> None:
        with served(where, by=user) as (process, said):
            assert said == "mounted"
            fd = os.open(where, os.O_PATH)
            try:
                assert "busy" in ask(process, "unmount").lower()
                assert ask(process, "unmount lazy") == "unmounted"
            finally:
                os.close(fd)

    def test_a_dead_mount(self, where: bytes, user: list[str]) -> None:
        with served(where, by=user) as (_, said):
            assert said == "mounted"
        command: list[str | bytes] = [*user, sys.executable, "-c", STALE, where]
        environment = {**os.environ, "PYTHONPATH": str(SERVER.parents[2])}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30)
        assert done.stdout == "True False\n", done.stderr
        assert mount.mounted_filesystem(where) is None

    def test_without_path(self, where: bytes, user: list[str]) -> None:
        """mount(8) starts its helpers with an empty environment."""
        with served(where, by=[*user, "env", "-u", "PATH"]) as (process, said):
            assert said == "mounted"
            assert ask(process, "unmount") == "unmounted"


class TestWithoutPrivilegeToMount:
    """Root, where mount(2) is refused: a container, a user namespace."""

    @pytest.fixture(autouse=True)
    def refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*arguments: object) -> int:
            ctypes.set_errno(errno.EPERM)
            return -1

        monkeypatch.setattr(mount, "_mount", refuse)
        monkeypatch.setattr(mount, "_umount2", refuse)

    def test_falls_back_to_fusermount(self, where: bytes) -> None:
        try:
            fd = mount.mount_fuse(MountOptions(mountpoint=where, fsname="a,b\\c d", read_only=True))
        except MountError as error:
            pytest.skip(str(error))
        with contextlib.closing(os.fdopen(fd, "rb", 0)):
            assert not os.get_inheritable(fd)
            found = mounted_at(where)
            assert found.source == b"a,b\\c d"
            assert b"ro" in found.options
            mount.unmount(where)
        assert mount.mounted_filesystem(where) is None

    def test_says_so_where_there_is_no_fusermount(self, where: bytes) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_fusermount, "_USUAL_PATH", "/nowhere")
            patch.setenv("PATH", "/nowhere")
            with pytest.raises(MountError, match=r"^cannot mount on .*: Operation not permitted$"):
                mount.mount_fuse(MountOptions(mountpoint=where))
            with pytest.raises(MountError, match=r"^cannot unmount .*: Operation not permitted$"):
                mount.unmount(where)
            patch.setattr(mount, "_may_mount", lambda: False)
            with pytest.raises(MountError, match="fusermount3 is not installed"):
                mount.mount_fuse(MountOptions(mountpoint=where))
