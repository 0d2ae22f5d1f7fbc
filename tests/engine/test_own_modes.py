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


def _give_away(area: Path) -> None:
    for name in ("l", "u", "w", "m", "run"):
        for top, names, files in os.walk(area / name):
            for path in (top, *(os.path.join(top, each) for each in names + files)):
                os.chown(path, ordinary_user.UID, ordinary_user.UID)
