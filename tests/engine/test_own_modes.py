"""An ordinary user's mount: what modes keep its owner from changes nothing about what the owner may do."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.mounts import COMMAND
from tests.syscalls import ordinary_user

pytestmark = [
    pytest.mark.fuse,
    pytest.mark.root,
    pytest.mark.engine,
    pytest.mark.skipif(ordinary_user.why_not() is not None, reason=str(ordinary_user.why_not())),
]

SESSION = """
set -e
cd "$1"
export XDG_RUNTIME_DIR="$1/run"
"$2" -o "engine=$3,lowerdir=l,upperdir=u,workdir=w" m
trap 'fusermount3 -u m' EXIT
echo more >> m/ro/f
echo new > m/ro/sub/x
chmod u+w m/ro/g
touch m/ro/sub/x
chmod 0 m/ro/sub
chmod -R u+rwX m/ro
mv m/ro/sub m/ro/moved
rm -rf m/ro
mkdir -m 0 m/ro
rmdir m/ro
ls -A m
"""


def test_the_owner_may(engine: str) -> None:
    with ordinary_user.shared_area() as area:
        for name in ("l/ro/sub", "u", "w", "m", "run"):
            (area / name).mkdir(parents=True)
        for name, mode in (("l/ro/f", 0o644), ("l/ro/g", 0o444), ("l/ro/sub/x", 0o600)):
            (area / name).write_text("lower")
            (area / name).chmod(mode)
        for name, mode in (("l/ro/sub", 0o500), ("l/ro", 0o555)):
            (area / name).chmod(mode)
        _give_away(area)
        command = [*ordinary_user.as_user(area), "sh", "-c", SESSION, "sh", str(area), str(COMMAND), engine]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


CLOSED = """
set -e
cd "$1"
export XDG_RUNTIME_DIR="$1/run"
"$2" -o "engine=$3,lowerdir=l,upperdir=u,workdir=w" m
trap 'fusermount3 -u m' EXIT
! cat m/etc/shadow 2> /dev/null
! ls m/closed 2> /dev/null
mv m/etc/shadow m/etc/moved
stat -c %a m/etc/moved
chmod u+r m/etc/moved
cat m/etc/moved
getfattr --only-values -n user.x m/etc/moved
mv m/etc/linked m/etc/linked-too
echo more >> m/etc/writable
chmod 0 m/etc/writable
chmod 700 m/closed
ls m/closed
cat m/closed/file
chmod 700 m/closed/below
mv m/closed/below/file m/closed/out
cat m/no-search/file 2> /dev/null || chmod u+x m/no-search
cat m/no-search/file
echo new > m/no-read/new
chmod u+r m/no-read
ls m/no-read
rm -rf m/closed m/no-search m/no-read m/etc
ls -A m
"""


@pytest.mark.parametrize("index", ["off", "on"])
def test_what_keeps_its_owner_out(engine: str, index: str) -> None:
    """Files of mode 0 and closed directories of a lower, of which nothing changes, not even for a moment."""
    modes = {
        "etc": 0o755, "etc/shadow": 0, "etc/linked": 0, "etc/writable": 0o200,
        "closed": 0, "closed/file": 0o600, "closed/below": 0o100, "closed/below/file": 0o600,
        "no-search": 0o600, "no-search/file": 0o644, "no-read": 0o300, "no-read/file": 0o644,
    }  # fmt: skip
    with ordinary_user.shared_area() as area:
        for name in ("l/etc", "l/closed/below", "l/no-search", "l/no-read", "u", "w", "m", "run"):
            (area / name).mkdir(parents=True)
        for name in modes:
            if not (area / "l" / name).is_dir():
                (area / "l" / name).write_text(f"{name}\n")
                os.setxattr(area / "l" / name, "user.x", b"y\n")
        os.link(area / "l/etc/linked", area / "l/etc/other-name")
        for name in sorted(modes, reverse=True):
            (area / "l" / name).chmod(modes[name])
        _give_away(area)
        before = {name: (area / "l" / name).stat() for name in modes}
        words = [str(area), str(COMMAND), f"{engine},index={index}"]
        command = [*ordinary_user.as_user(area), "sh", "-c", CLOSED, "sh", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines() == [
            "0", "etc/shadow", "y", "below", "file", "closed/file", "no-search/file", "file", "new",
        ]  # fmt: skip
        for name, st in before.items():
            now = (area / "l" / name).stat()
            assert (now.st_mode, now.st_ctime_ns) == (st.st_mode, st.st_ctime_ns), name


def _give_away(area: Path) -> None:
    for name in ("l", "u", "w", "m", "run"):
        for top, names, files in os.walk(area / name):
            for path in (top, *(os.path.join(top, each) for each in names + files)):
                os.chown(path, ordinary_user.UID, ordinary_user.UID)
