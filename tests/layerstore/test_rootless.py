"""The main job as an ordinary user, through fusermount3, with user.overlay marks."""

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.layerstore.commands import ROOTFS, tarball
from tests.syscalls import ordinary_user

PROGRAM = Path(sys.executable).parent / "layerstore"
pytestmark = [
    pytest.mark.fuse,
    pytest.mark.skipif(bool(ordinary_user.why_not()), reason=str(ordinary_user.why_not())),
]

SCRIPT = """
set -eu
ls="$1 --root $2/store"
$ls import - base:1 < "$2/t.tar" >/dev/null
$ls create --init --name w base:1
merged=$($ls mount w)
echo more >> "$merged/etc/passwd"
mv "$merged/usr" "$merged/opt"
chmod 600 "$merged/opt/lib/one"
rm -r "$merged/bin"
$ls diff w
$ls commit --no-pause w base:2 >/dev/null
echo x > "$merged/etc/closed"
chmod 444 "$merged/etc/closed" "$merged/etc/passwd"
mkdir "$merged/shut"
echo y > "$merged/shut/y"
chmod 555 "$merged/shut"
$ls commit --chain w base:3 >/dev/null
test -z "$($ls diff w)"
stat -c "chained %a" "$merged/shut" "$merged/etc/closed"
$ls fsck
$ls umount w
$ls create --name x base:2
merged=$($ls mount x)
ls -A "$merged" "$merged/opt/lib"
stat -c %a "$merged/opt/lib/one"
cmp "$merged/opt/lib/one" "$2/one"
! $ls create -v /etc:/mnt/etc --name v base:2 >/dev/null || ! $ls mount v
$ls rm -f x
"""


@pytest.mark.root
def test_main_job() -> None:
    with ordinary_user.shared_area() as area:
        home = area / "home"
        home.mkdir()
        (home / "t.tar").write_bytes(tarball(ROOTFS))
        (home / "one").write_bytes(b"1" * 5000)
        os.chown(home, ordinary_user.UID, ordinary_user.UID)
        done = subprocess.run(
            [*ordinary_user.as_user(area), "sh", "-c", SCRIPT, "sh", PROGRAM, home],
            capture_output=True,
            text=True,
            timeout=100,
            env={**os.environ, "HOME": str(home)},
        )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:3] == ["w", "D /bin", "C /etc"]
    assert "A /opt/lib/one" in lines
    assert "D /usr" in lines
    assert "600" in lines
    assert lines[-1] == "x"
    assert [line for line in lines if "chained" in line] == ["chained 555", "chained 444"]
    assert any("no problems" in line for line in lines)
    assert "only root may bind" in done.stderr


def closed_image() -> bytes:
    """As Fedora, RHEL and Arch have /etc/shadow, and directories that may not be listed or searched."""
    out = io.BytesIO()
    directories = {"etc": 0o755, "closed": 0, "closed/below": 0, "no-search": 0o600, "no-read": 0o300}
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, mode in directories.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            tar.addfile(entry)
        for name in (
            "etc/shadow",
            "etc/gshadow",
            "closed/file",
            "closed/below/file",
            "no-search/f",
            "no-read/f",
        ):
            entry = tarfile.TarInfo(name)
            entry.mode, entry.size = 0, len(name)
            entry.pax_headers = {"SCHILY.xattr.user.x": "value"}
            tar.addfile(entry, io.BytesIO(name.encode()))
        entry = tarfile.TarInfo("closed/link")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/nowhere"
        tar.addfile(entry)
    return out.getvalue()


BEGIN = """
$ls import - base:1 < t.tar >/dev/null
$ls create --name w base:1 >/dev/null
"""
READ = """
$ls fsck
$ls export base:1 > base.tar
$ls export w | cmp - base.tar
merged=$($ls mount w)
$ls cp w:/etc/shadow shadow
$ls cp w:/closed/file file
$ls cp -a w:/closed closed
$ls cp w:/ - > all.tar
mv "$merged/etc/shadow" "$merged/etc/moved"
mv "$merged/etc/gshadow" "$merged/gshadow"
chmod 700 "$merged/closed"
echo new > "$merged/closed/new"
chmod 0 "$merged/closed/new" "$merged/closed"
mkdir -m 0 "$merged/made"
$ls diff w > changes
$ls ps -s > sizes
$ls df >> sizes
$ls commit --no-pause w base:2 >/dev/null
$ls commit --squash-unchanged w base:3 >/dev/null
$ls umount w
$ls fsck
$ls diff base:1 base:2 | cmp - changes
$ls export w > w.tar
$ls export base:2 | cmp - w.tar
"""
END = """
$ls commit --chain w base:4 >/dev/null
test -z "$($ls diff w)"
$ls export w | cmp - w.tar
$ls fsck
$ls rm w
$ls prune -f --all >/dev/null
ls -A store/layers
"""


def as_ordinary_user(area: Path, script: str) -> str:
    """What it prints, run in the directory ``home``."""
    home = area / "home"
    start = 'set -eu; cd "$2"; ls="$1 --root $2/store";'
    done = subprocess.run(
        [*ordinary_user.as_user(area), "sh", "-c", start + script, "sh", PROGRAM, home],
        capture_output=True,
        text=True,
        timeout=200,
        env={**os.environ, "HOME": str(home)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.root
def test_what_keeps_its_owner_out() -> None:
    """Every verb reads it, nothing is changed by that, not even for a moment, and nothing of it is lost."""
    with ordinary_user.shared_area() as area:
        home = area / "home"
        home.mkdir()
        (home / "t.tar").write_bytes(closed_image())
        os.chown(home, ordinary_user.UID, ordinary_user.UID)
        as_ordinary_user(area, BEGIN)
        (layer,) = (home / "store/layers").iterdir()
        before = {path: (path.lstat().st_mode, path.lstat().st_ctime_ns) for path in layer.rglob("*")}
        as_ordinary_user(area, READ)
        assert {path: (path.lstat().st_mode, path.lstat().st_ctime_ns) for path in before} == before
        assert as_ordinary_user(area, END).splitlines()[-1] == "w"
        assert set((home / "changes").read_text().splitlines()) >= {
            "D /etc/shadow", "A /etc/moved", "A /gshadow", "C /closed", "A /closed/new", "A /made",
        }  # fmt: skip
        assert (home / "shadow").read_text() == "etc/shadow"
        assert (home / "shadow").stat().st_mode & 0o7777 == 0
        assert (home / "file").read_text() == "closed/file"
        assert (home / "closed/below/file").read_text() == "closed/below/file"
        assert os.getxattr(home / "closed/file", "user.x") == b"value"
        assert os.readlink(home / "closed/link") == "/nowhere"
        assert (home / "closed").stat().st_mode & 0o7777 == 0
        for name in ("base.tar", "all.tar"):
            with tarfile.open(home / name) as tar:
                found = {one.name.removeprefix("./"): one for one in tar}
                assert {name: found[name].mode for name in ("closed", "no-search", "etc/shadow")} == {
                    "closed": 0,
                    "no-search": 0o600,
                    "etc/shadow": 0,
                }
                for path in ("etc/shadow", "closed/below/file", "no-search/f", "no-read/f"):
                    held = tar.extractfile(found[path])
                    assert held is not None
                    assert held.read() == path.encode()
                    assert found[path].pax_headers["SCHILY.xattr.user.x"] == "value"
