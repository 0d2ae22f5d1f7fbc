"""The main job as an ordinary user, through fusermount3, with user.overlay marks."""

import os
import subprocess
import sys
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
