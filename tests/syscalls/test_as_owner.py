"""What its mode keeps its owner from: read all the same, without a change of anything."""

import errno
import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from overlayfs_py.syscalls import as_owner, owner_process
from tests.mounts import scratch
from tests.nobody import NOBODY, as_nobody

pytestmark = pytest.mark.root


@pytest.fixture
def tree() -> Iterator[Path]:
    """All nobody's, but `foreign`; nothing in it can be read by its mode."""
    with scratch() as where:
        top = where / "tree"
        (top / "closed/below").mkdir(parents=True)
        for name in ("file", "foreign", "closed/file", "closed/below/file"):
            (top / name).write_text("content")
            os.setxattr(top / name, "user.x", b"value")
            (top / name).chmod(0)
        (top / "closed/link").symlink_to("nowhere")
        for path in (top, *top.rglob("*")):
            if path.name != "foreign":
                os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
        for name in ("closed/below", "closed"):
            (top / name).chmod(0)
        yield top


def facts(top: Path) -> list[tuple[str, int, int]]:
    """A chmod(2) shows as a change time, also when the mode is the same again."""
    found = [(str(path), path.lstat()) for path in (top, *sorted(top.rglob("*")))]
    return [(path, st.st_mode, st.st_ctime_ns) for path, st in found]


def read(fd: int) -> bytes:
    try:
        return os.read(fd, 99)
    finally:
        os.close(fd)


def acting(action: Callable[[int], None], top: Path) -> int:
    def act() -> None:
        fd = os.open(top, os.O_RDONLY)
        action(fd)
        os.close(fd)

    return as_nobody(act)


def look_at_everything(top_fd: int) -> None:
    for flags in (os.O_RDONLY, os.O_RDWR, os.O_RDONLY | os.O_NOFOLLOW | os.O_NOATIME):
        assert read(as_owner.open_at(top_fd, b"file", flags)) == b"content"
    inode = as_owner.open_at(top_fd, b"file", os.O_PATH)
    assert read(as_owner.open_at(inode, b"", os.O_RDONLY)) == b"content"
    assert as_owner.getxattr_at(inode, b"", "user.x") == b"value"
    assert as_owner.getxattr_at(top_fd, b"file", "user.x") == b"value"
    closed = as_owner.open_at(top_fd, b"closed", os.O_RDONLY | os.O_DIRECTORY)
    assert sorted(os.listdir(closed)) == ["below", "file", "link"]
    assert stat.S_IMODE(as_owner.stat_at(closed, b"file").st_mode) == 0
    assert as_owner.readlink_at(closed, b"link") == b"nowhere"
    assert as_owner.listxattr_at(closed, b"file") == ["user.x"]
    assert as_owner.getxattr_at(closed, b"file", "user.x") == b"value"
    for descriptor in (
        as_owner.open_at(closed, b"file", os.O_RDONLY),
        as_owner.open_beneath(top_fd, b"closed/below/file", os.O_RDONLY),
    ):
        assert not os.get_inheritable(descriptor)
        assert read(descriptor) == b"content"


def test_an_owner_reads_what_is_theirs(tree: Path) -> None:
    before = facts(tree)
    assert acting(look_at_everything, tree) == 0
    assert facts(tree) == before


def test_by_a_wider_mode_for_a_moment(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where user namespaces are not allowed."""
    monkeypatch.setattr(owner_process, "ask", lambda *_: (False, None))
    before = facts(tree)
    assert acting(look_at_everything, tree) == 0
    assert [fact[:2] for fact in facts(tree)] == [fact[:2] for fact in before]


def test_through_closed_directories_in_a_root(tree: Path) -> None:
    def action(fd: int) -> None:
        assert read(as_owner.open_in_root(fd, b"/closed/below/../file", os.O_RDONLY)) == b"content"

    assert acting(action, tree) == 0


def test_attributes_are_set_and_removed(tree: Path) -> None:
    def action(fd: int) -> None:
        as_owner.setxattr_at(fd, b"file", "user.x", b"other")
        as_owner.setxattr_at(fd, b"closed", "user.y", b"")
        as_owner.removexattr_at(as_owner.open_at(fd, b"closed", os.O_PATH), b"file", "user.x")

    assert acting(action, tree) == 0
    assert os.getxattr(tree / "file", "user.x") == b"other"
    assert os.listxattr(tree / "closed") == ["user.y"]
    assert os.listxattr(tree / "closed/file") == []


@pytest.mark.parametrize("helped", [True, False])
def test_what_is_not_ours_stays_closed(tree: Path, monkeypatch: pytest.MonkeyPatch, helped: bool) -> None:
    if not helped:
        monkeypatch.setattr(owner_process, "ask", lambda *_: (False, None))
    before = facts(tree)
    assert acting(lambda fd: os.close(as_owner.open_at(fd, b"foreign", os.O_RDONLY)), tree) == errno.EACCES
    assert acting(lambda fd: [as_owner.getxattr_at(fd, b"foreign", "user.x")], tree) == errno.EACCES  # type: ignore[arg-type]
    assert acting(lambda fd: os.close(as_owner.open_at(fd, b"missing", os.O_RDONLY)), tree) == errno.ENOENT
    assert facts(tree) == before


def test_the_helper_is_started_again(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When nobody has asked for a while it ends; whoever was forked has one of their own."""
    asking = owner_process._Client()
    monkeypatch.setattr(owner_process, "ask", asking.ask)
    before = facts(tree)

    def action(fd: int) -> None:
        assert read(as_owner.open_at(fd, b"file", os.O_RDONLY)) == b"content"
        assert asking._socket is not None
        asking._socket.shutdown(2)
        assert read(as_owner.open_at(fd, b"file", os.O_RDONLY)) == b"content"
        pid = os.fork()
        if pid == 0:
            os._exit(0 if read(as_owner.open_at(fd, b"file", os.O_RDONLY)) == b"content" else 1)
        assert os.waitpid(pid, 0)[1] == 0
        assert read(as_owner.open_at(fd, b"file", os.O_RDONLY)) == b"content"

    assert acting(action, tree) == 0
    assert facts(tree) == before


def test_an_interruption_does_not_mix_answers_up(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asking = owner_process._Client()
    monkeypatch.setattr(owner_process, "ask", asking.ask)
    receive = owner_process._receive

    def interrupted(connection: socket.socket) -> tuple[bytes, list[int]]:
        monkeypatch.setattr(owner_process, "_receive", receive)
        raise KeyboardInterrupt

    def action(fd: int) -> None:
        assert read(as_owner.open_at(fd, b"file", os.O_RDONLY)) == b"content"
        monkeypatch.setattr(owner_process, "_receive", interrupted)
        with pytest.raises(KeyboardInterrupt):
            as_owner.open_at(fd, b"file", os.O_RDONLY)
        assert as_owner.getxattr_at(fd, b"file", "user.x") == b"value"

    assert acting(action, tree) == 0
