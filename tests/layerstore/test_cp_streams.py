"""cp with ``-``: a tar into a directory of a workspace and out of it, and what a hostile one may not do."""

import io
import os
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from layerstore.errors import LayerstoreError
from layerstore.workspace.tarring import Archiver
from layerstore.workspace.untarring import Extractor
from tests.layerstore.commands import Cli, tarball
from tests.layerstore.test_cp import swapping, tree

ROUNDS = 10_000


class Roots:
    """Extracts into a directory that stands for a workspace's root, and archives what is in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()
        self.fd = os.open(root, os.O_PATH | os.O_DIRECTORY)

    def extract(self, tar: bytes, path: str = "/", *, archive: bool = False) -> None:
        Extractor(self.fd, os.fsencode(path), archive).extract(io.BytesIO(tar))

    def archive(self, path: str, name: str) -> bytes:
        fd = os.open(self.root / path, os.O_PATH | os.O_NOFOLLOW)
        try:
            out = io.BytesIO()
            Archiver(out, lambda line: None).write(fd, os.fsencode(name))
            return out.getvalue()
        finally:
            os.close(fd)


@pytest.fixture
def there(where: Path) -> Iterator[Roots]:
    roots = Roots(where / "root")
    yield roots
    os.close(roots.fd)


def member(name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"", **more: object) -> bytes:
    """A tar of one member."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo(name)
        info.type, info.size, info.mtime = kind, len(content), 5
        for key, value in more.items():
            setattr(info, key, value)
        tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def names(tar: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        return opened.getnames()


def test_everything_comes_through(there: Roots, where: Path) -> None:
    top = there.root / "a"
    (top / "sub").mkdir(parents=True)
    (top / "file").write_bytes(b"x" * 3_000_000)
    os.link(top / "file", top / "sub/linked")
    (top / "link").symlink_to("/nowhere")
    os.mkfifo(top / "fifo", 0o640)
    with open(top / "sparse", "wb") as sparse:
        sparse.truncate(50 << 20)
        sparse.seek(20 << 20)
        sparse.write(b"data")
    os.setxattr(top / "file", "user.mine", b"\0binary")
    os.chmod(top / "sub", 0o1711)
    for path in (top / "file", top / "sub", top):
        os.utime(path, ns=(1, 1_234_567_890_123_456_789))
    tar = there.archive("a", "b")
    assert len(tar) < 4_000_000
    assert names(tar)[:2] == ["b", "b/fifo"]
    there.extract(tar, archive=True)
    new = there.root / "b"
    assert tree(new) == tree(top) | {"fifo": "/"}
    assert (new / "file").stat().st_ino == (new / "sub/linked").stat().st_ino
    assert os.getxattr(new / "file", "user.mine") == b"\0binary"
    assert (new / "sparse").stat().st_blocks < 1000
    for name in ("file", "sub", "fifo", "."):
        old, made = (top / name).lstat(), (new / name).lstat()
        assert (old.st_mode, old.st_uid) == (made.st_mode, made.st_uid)
        if name != "fifo":
            assert made.st_mtime_ns == 1_234_567_890_123_456_789, name


@pytest.mark.root
def test_owners_and_set_id_bits_only_when_asked_for(there: Roots) -> None:
    tar = member("f", content=b"x", mode=0o6755, uid=12, gid=34)
    there.extract(tar)
    status = (there.root / "f").stat()
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (0, 0o755)
    there.extract(tar, archive=True)
    status = (there.root / "f").stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (12, 34, 0o6755)


def test_links_lead_where_they_would_inside(there: Roots) -> None:
    (there.root / "real").mkdir()
    (there.root / "abs").symlink_to("/real")
    (there.root / "up").symlink_to("../../../real")
    there.extract(tarball({"abs/one": b"1", "up/two": b"2", "new/deep/three": b"3"}))
    assert tree(there.root / "real") == {"one": "1", "two": "2"}
    assert (there.root / "abs").is_symlink()
    assert (there.root / "new/deep/three").read_text() == "3"
    there.extract(tarball({"/".join("x" * 1500): b"deep"}))
    there.extract(tarball({"four": b"4"}), "/abs")
    assert (there.root / "real/four").exists()


def test_the_last_component_is_replaced_not_followed(there: Roots, where: Path) -> None:
    (where / "canary").write_text("the host's")
    (there.root / "f").symlink_to(where / "canary")
    there.extract(tarball({"f": b"mine"}))
    assert (there.root / "f").read_text() == "mine"
    assert not (there.root / "f").is_symlink()
    assert (where / "canary").read_text() == "the host's"


@pytest.mark.parametrize(
    ("tar", "words"),
    [
        (member("../out", content=b"x"), r"'\.\.'"),
        (member("a/../../out", content=b"x"), r"'\.\.'"),
        (member("d", content=b"x"), "cannot overwrite a directory"),
        (member("f", tarfile.DIRTYPE), "cannot overwrite a non-directory"),
        (member("f/below", content=b"x"), "Not a directory"),
        (member("new", tarfile.LNKTYPE, linkname="../outside"), r"'\.\.'"),
        (member("new", tarfile.LNKTYPE, linkname="nothing"), "which does not exist"),
        (member("new", tarfile.LNKTYPE, linkname="d"), "the directory d"),
        (member("x" * 300, content=b"x"), "255 bytes"),
        (b"no tar at all" * 100, "not a tar"),
        (member("cut", content=b"x" * 5000)[:2000], "ends in the middle"),
    ],
)
def test_refused(there: Roots, where: Path, tar: bytes, words: str) -> None:
    (there.root / "d").mkdir()
    (there.root / "f").write_text("old")
    (where / "outside").write_text("the host's")
    with pytest.raises((LayerstoreError, OSError), match=words):
        there.extract(tar)
    assert tree(there.root) == {"d": "/", "f": "old"}
    assert sorted(path.name for path in where.iterdir()) == ["outside", "root"]


def test_absolute_names_and_links_stay_inside(there: Roots, where: Path) -> None:
    canary = where / "canary"
    canary.mkdir()
    (there.root / "out").symlink_to(canary)
    with pytest.raises(OSError, match=r"No such file|Not a directory|File exists"):
        there.extract(member("out/f", content=b"x"))
    there.extract(member("/etc/f", content=b"x"))
    assert (there.root / "etc/f").exists()
    assert list(canary.iterdir()) == []
    there.extract(member("link", tarfile.SYMTYPE, linkname="/etc"))
    there.extract(member("link/g", content=b"g"))
    assert (there.root / "etc/g").read_text() == "g"


def test_a_swapped_component_never_leads_out(there: Roots, where: Path) -> None:
    """A directory on the way becomes a link to the host again and again: 0 escapes in either direction."""
    host = where / "host"
    (there.root / "a/b").mkdir(parents=True)
    (host / "b").mkdir(parents=True)
    (host / "secret").write_text("the host's")
    (host / "b/secret").write_text("the host's")
    before = {path: path.stat().st_ctime_ns for path in (host, host / "b", host / "secret")}
    tar = tarball({"a/b/new": b"new", "a/b/dir": None, "a/f": b"f"})
    done = {"in": 0, "out": 0}
    with swapping(there.root / "a", host):
        for _ in range(ROUNDS // 4):
            with suppress(LayerstoreError, OSError):
                there.extract(tar)
                done["in"] += 1
            for _ in range(3):
                with suppress(LayerstoreError, OSError):
                    assert b"the host's" not in there.archive("", "x")
                    done["out"] += 1
    assert min(done.values()) > 0, done
    assert {path: path.stat().st_ctime_ns for path in before} == before
    assert sorted(path.name for path in (host / "b").iterdir()) == ["secret"]


@pytest.mark.fuse
def test_on_the_command_line(base: Cli, where: Path) -> None:
    base.run("create", "--name", "w", "base:1")
    packed = subprocess.run(
        ["gzip"], input=tarball({"new/f": b"new"}), capture_output=True, check=True
    ).stdout
    assert base.run("cp", "-", "w:/etc", stdin=packed) == ""
    assert base.run("diff", "w").splitlines() == ["C /etc", "A /etc/new", "A /etc/new/f"]
    done = base.call("cp", "w:/etc", "-")
    assert (done.returncode, done.stderr) == (0, b"")
    assert names(done.stdout) == ["etc", "etc/hosts", "etc/new", "etc/new/f", "etc/passwd"]
    listed = subprocess.run(["tar", "-t"], input=base.call("cp", "w:/etc/.", "-").stdout, capture_output=True)
    assert listed.stdout.splitlines()[:2] == [b"./", b"./hosts"]
    with tarfile.open(fileobj=io.BytesIO(base.call("cp", "w:/lib", "-").stdout)) as tar:
        assert [(one.name, one.linkname) for one in tar] == [("lib", "usr/lib")]
    followed = base.call("cp", "-L", "w:/lib", "-").stdout
    assert names(followed) == ["lib", "lib/one", "lib/two"]
    assert "not an existing directory" in base.fail("cp", "-", "w:/etc/hosts", stdin=packed)
    assert "not an existing directory" in base.fail("cp", "-", "w:/nothing", stdin=packed)
    assert "invalid tar" in base.fail("cp", "-", "w:/etc", stdin=b"x" * 2000)
    assert [one["State"] for one in base.objects("ps")] == ["created"]
