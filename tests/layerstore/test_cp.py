"""cp: docker's rules for paths, and links that never lead out of a workspace."""

import os
import signal
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from layerstore.errors import LayerstoreError
from layerstore.verbs.cp import split
from layerstore.workspace import resolving
from layerstore.workspace.copying import Copier
from layerstore.workspace.resolving import CopySide
from tests.layerstore.commands import Cli

ROUNDS = 10_000


def copy(
    source: Path, src: str, target: Path, dst: str, *, follow: bool = False, archive: bool = False
) -> None:
    """Copy between two directories that each stand for a root."""
    with ExitStack() as held:
        sides = []
        for root, path in ((source, src), (target, dst)):
            fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
            held.callback(os.close, fd)
            sides.append(CopySide(fd, os.fsencode(path), path))
        fd = resolving.open_source(sides[0], follow=follow)
        held.callback(os.close, fd)
        is_dir = stat.S_ISDIR(os.fstat(fd).st_mode)
        place = resolving.find_target(sides[1], held, source=sides[0], source_is_dir=is_dir)
        Copier(archive, lambda _line: None).copy(fd, place)


@pytest.fixture
def here(where: Path) -> Path:
    """The one root: a file, a tree, links."""
    root = where / "here"
    (root / "d/sub").mkdir(parents=True)
    (root / "f").write_text("file")
    (root / "d/one").write_text("1")
    (root / "d/sub/two").write_text("2")
    (root / "d/link").symlink_to("/f")
    (root / "to-d").symlink_to("d")
    (root / "to-f").symlink_to("/f")
    return root


@pytest.fixture
def there(where: Path) -> Path:
    """The other root: a directory, a file, links."""
    root = where / "there"
    (root / "dir").mkdir(parents=True)
    (root / "file").write_text("old")
    (root / "to-dir").symlink_to("/dir")
    (root / "to-file").symlink_to("file")
    (root / "to-nothing").symlink_to("dir/new")
    return root


def tree(root: Path) -> dict[str, str]:
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        found[name] = (
            f"-> {path.readlink()}" if path.is_symlink() else path.read_text() if path.is_file() else "/"
        )
    return found


TREE = {"link": "-> /f", "one": "1", "sub": "/", "sub/two": "2"}


@pytest.mark.parametrize(
    ("src", "dst", "place", "expected"),
    [
        ("/f", "/new", "new", "file"),
        ("/f", "/file", "file", "file"),
        ("/f", "/dir", "dir/f", "file"),
        ("/f", "/dir/", "dir/f", "file"),
        ("/f", "/dir/.", "dir/f", "file"),
        ("/f", "/", "f", "file"),
        ("/f", "/to-dir", "dir/f", "file"),
        ("/f", "/to-file", "file", "file"),
        ("/f", "/to-nothing", "dir/new", "file"),
        ("/f", "/../../dir", "dir/f", "file"),
        ("/to-f", "/new", "new", "-> /f"),
        ("/d", "/new", "new", TREE),
        ("/d", "/new/", "new", TREE),
        ("/d", "/dir", "dir/d", TREE),
        ("/d/", "/dir", "dir/d", TREE),
        ("/d/.", "/dir", "dir", TREE),
        ("/d/.", "/new", "new", TREE),
        ("/to-d/", "/dir", "dir/to-d", TREE),
        ("/to-d", "/dir", "dir/to-d", "-> d"),
    ],
)
def test_where_it_goes(here: Path, there: Path, src: str, dst: str, place: str, expected: object) -> None:
    copy(here, src, there, dst)
    found = there / place
    if isinstance(expected, dict):
        assert tree(found) == expected
    elif found.is_symlink():
        assert f"-> {found.readlink()}" == expected
    else:
        assert found.read_text() == expected
    assert (there / "to-file").is_symlink()
    assert not [name for name in tree(there) if ".tmp-" in name]


@pytest.mark.parametrize(
    ("src", "dst", "words"),
    [
        ("/nothing", "/new", "no such file"),
        ("/f/", "/new", "Not a directory"),
        ("/f", "/no/new", "no such file"),
        ("/f", "/new/", "does not exist"),
        ("/d", "/file", "not a directory"),
        ("/d/.", "/file", "not a directory"),
        ("/f", "/file/", "not a directory"),
        ("/f", "/fifo", "neither a directory nor a regular file"),
        ("/f", "/loop", "Too many levels"),
    ],
)
def test_refused(here: Path, there: Path, src: str, dst: str, words: str) -> None:
    os.mkfifo(there / "fifo")
    (there / "loop").symlink_to("loop")
    before = sorted(os.listdir(there))
    with pytest.raises(LayerstoreError, match=words):
        copy(here, src, there, dst)
    assert sorted(os.listdir(there)) == before


def test_following_the_source(here: Path, there: Path) -> None:
    copy(here, "/to-f", there, "/a", follow=True)
    copy(here, "/to-d", there, "/b", follow=True)
    assert (there / "a").read_text() == "file"
    assert tree(there / "b") == TREE


def test_kinds_do_not_give_way(here: Path, there: Path) -> None:
    (there / "dir/f").mkdir()
    with pytest.raises(LayerstoreError, match="overwrite a directory"):
        copy(here, "/f", there, "/dir")
    (there / "dir/d").write_text("x")
    with pytest.raises(LayerstoreError, match="cannot overwrite a non-directory"):
        copy(here, "/d", there, "/dir")
    (there / "dir/d").unlink()
    (there / "dir/d").symlink_to("/dir")
    with pytest.raises(LayerstoreError, match="cannot overwrite a non-directory"):
        copy(here, "/d", there, "/dir")


def test_into_itself(here: Path) -> None:
    with pytest.raises(LayerstoreError, match="into itself"):
        copy(here, "/d", here, "/d/sub/new")
    with pytest.raises(LayerstoreError, match="into itself"):
        copy(here, "/", here, "/d")


def test_what_is_kept(here: Path, there: Path) -> None:
    """Modes, times, hard links, holes; set-id bits and owners only when asked."""
    source = here / "d/one"
    os.link(source, here / "d/sub/again")
    source.chmod(0o4751)
    os.utime(source, ns=(1, 1_500_000_000_123_456_789))
    os.setxattr(source, "user.note", b"hello")
    with open(here / "d/holes", "wb") as file:
        file.truncate(1 << 24)
    os.mkfifo(here / "d/fifo")
    os.chmod(here / "d/fifo", 0o620)
    os.chmod(here / "d/sub", 0o1711)
    copy(here, "/d", there, "/new")
    made = there / "new/one"
    assert stat.S_IMODE(made.stat().st_mode) == 0o751
    assert made.stat().st_mtime_ns == 1_500_000_000_123_456_789
    assert made.samefile(there / "new/sub/again")
    assert os.getxattr(made, "user.note") == b"hello"
    assert (there / "new/holes").stat().st_blocks == 0
    assert stat.S_ISFIFO((there / "new/fifo").stat().st_mode)
    assert stat.S_IMODE((there / "new/fifo").stat().st_mode) == 0o620
    assert stat.S_IMODE((there / "new/sub").stat().st_mode) == 0o1711
    copy(here, "/d", there, "/kept", archive=True)
    assert stat.S_IMODE((there / "kept/one").stat().st_mode) == 0o4751


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_owners(here: Path, there: Path) -> None:
    os.chown(here / "d/one", 12, 34)
    copy(here, "/d", there, "/mine")
    copy(here, "/d", there, "/theirs", archive=True)
    assert ((there / "mine/one").stat().st_uid, (there / "theirs/one").stat().st_uid) == (0, 12)


def test_words() -> None:
    assert split("w:/x") == ("w", "/x")
    assert split("w:x:y") == ("w", "x:y")
    for host in ("/a:b", "./a:b", "../a:b", "a", "a/b:c"):
        assert split(host) == (None, host)


@contextmanager
def swapping(path: Path, outside: Path) -> Iterator[None]:
    """Meanwhile another process makes `path` by turns a directory and a link to `outside`."""
    spare, link = path.with_name("spare"), path.with_name("link")
    link.symlink_to(outside)
    steps = ((path, spare), (link, path), (path, link), (spare, path))
    parent, child = os.getpid(), os.fork()
    if child == 0:
        while os.getppid() == parent:
            for old, new in steps:
                with suppress(OSError):
                    os.rename(old, new)
        os._exit(0)
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_swapped_component_never_leads_out(where: Path) -> None:
    """Reading and writing through a component that becomes a link to the host: 0 escapes."""
    root, host, out = where / "root", where / "host", where / "out"
    for directory in (root / "a/b", host / "b", out):
        directory.mkdir(parents=True)
    (root / "a/b/secret").write_text("mine")
    (host / "b/secret").write_text("the host's")
    (out / "new").write_text("new")
    canary = {path: path.stat().st_ctime_ns for path in (host, host / "b", host / "b/secret")}
    done = {"read": 0, "written": 0}
    with swapping(root / "a", host):
        for _ in range(ROUNDS):
            with suppress(LayerstoreError, OSError):
                copy(root, "/a/b/secret", out, "/got")
                assert (out / "got").read_text() == "mine"
                done["read"] += 1
            with suppress(LayerstoreError, OSError):
                copy(root, "/a", out, "/tree")
                done["read"] += 1
            with suppress(LayerstoreError, OSError):
                copy(out, "/new", root, "/a/b")
                copy(out, "/new", root, "/a/b/secret2")
                done["written"] += 1
    assert (out / "got").read_text() == "mine"
    assert min(done.values()) > 0, done
    assert {path: path.stat().st_ctime_ns for path in canary} == canary
    assert sorted(path.name for path in (host / "b").iterdir()) == ["secret"]
    assert "the host's" not in tree(out).values()


def test_a_workspace(base: Cli, where: Path) -> None:
    """Mounted or not, in both directions, and between workspaces; afterwards it is as it was."""
    for name in ("w", "v"):
        base.run("create", "--name", name, "base:1")
    (where / "new").write_text("new")
    done = base.call("cp", where / "new", "w:/etc/")
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith(b"Successfully copied ")
    assert base.run("diff", "w").splitlines() == ["C /etc", "A /etc/new"]
    assert [one["State"] for one in base.objects("ps")] == ["created", "created"]
    base.run("mount", "w")
    try:
        base.run("cp", "w:/lib/one", where / "one")
        base.run("cp", "-a", "w:/etc/.", "v:/copied")
        assert [one["State"] for one in base.objects("ps") if one["Name"] == "w"] == ["mounted"]
    finally:
        base.run("umount", "w")
    assert (where / "one").read_text() == "1" * 5000
    base.run("cp", "v:copied", where)
    assert sorted(os.listdir(where / "copied")) == ["hosts", "new", "passwd"]
    assert "no such workspace" in base.fail("cp", "nothing:/x", where)
    assert "no such file" in base.fail("cp", "w:/nothing", where)
    assert "neither path" in base.fail("cp", where / "one", where / "two")
    assert "one of the two" in base.fail("cp", "-", "-")
    assert "neither path" in base.fail("cp", "-", where / "one")


def test_links_in_a_workspace_stay_in_it(base: Cli, where: Path) -> None:
    base.run("create", "--name", "w", "base:1")
    upper = base.root / "workspaces/w/upper"
    canary = where / "canary"
    canary.mkdir()
    (canary / "secret").write_text("the host's")
    (upper / "out").symlink_to(canary)
    (upper / "file").symlink_to(canary / "secret")
    (where / "new").write_text("new")
    base.run("mount", "w")
    try:
        assert "no such file" in base.fail("cp", "w:/out/secret", where / "got")
        assert "no such file" in base.fail("cp", "-L", "w:/file", where / "got")
        base.fail("cp", where / "new", "w:/out/secret")
        base.fail("cp", where / "new", "w:/file")
        base.fail("cp", where / "new", "w:/proc/self/root/x")
    finally:
        base.run("umount", "w")
    assert os.listdir(canary) == ["secret"]
    assert (canary / "secret").read_text() == "the host's"
