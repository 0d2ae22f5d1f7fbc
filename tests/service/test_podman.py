"""podman of an ordinary user with our command as mount_program: owners, whiteouts, builds, commits."""

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mounts import COMMAND, scratch

pytestmark = [pytest.mark.fuse, pytest.mark.root, pytest.mark.slow]

USER, FIRST_SUBORDINATE = 1001, 200000
NEEDED = ("podman", "runc", "newuidmap", "busybox")

# In namespaces of its own, which end with it: an ordinary user with subordinate ids, and a /dev/fuse open to
# everybody. Nothing on the machine changes, and what podman leaves running ends too.
_AROUND = """
for name in passwd group subuid subgid; do mount --bind etc/$name /etc/$name; done
mount --bind fuse /dev/fuse
cd home
exec setpriv --reuid=1001 --regid=1001 --clear-groups sh -e "$@"
"""

# Whether containers run here at all, without us.
_CONTROL = """
podman --root "$PWD/vfs" --storage-driver vfs build -q -t t -f - image >&2 <<X
FROM scratch
COPY bin/busybox /bin/sh
X
podman --root "$PWD/vfs" --storage-driver vfs run --rm t sh -c :
"""

_DOCKERFILE = """
FROM scratch
COPY bin/busybox /bin/busybox
RUN ["/bin/busybox", "sh", "-ec", "/bin/busybox --install -s /bin; mkdir -p /etc /tmp; chmod 1777 /tmp"]
RUN mkdir /old /kept && echo a >/old/a && echo b >/kept/b && echo c >/kept/c && echo gone >/gone
RUN rm -rf /old /gone /kept/b && mkdir /old && echo new >/old/new
"""

_STORAGE = """
[storage]
driver = "overlay"
graphroot = "{home}/store"
runroot = "{home}/run"
[storage.options.overlay]
mount_program = "{program}"
"""

_CONTAINERS = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
netns = "host"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""


class Home:
    """An ordinary user's home, with an image to build and podman's settings."""

    def __init__(self, where: Path) -> None:
        self.where = where
        self.home, etc = where / "home", where / "etc"
        (self.home / "image/bin").mkdir(parents=True)
        etc.mkdir()
        # The machine's own may have somebody with this number.
        (etc / "passwd").write_text(f"root:x:0:0::/root:/bin/sh\nu:x:{USER}:{USER}::{self.home}:/bin/sh\n")
        (etc / "group").write_text(f"root:x:0:\nu:x:{USER}:\n")
        for name in ("subuid", "subgid"):
            (etc / name).write_text(f"u:{FIRST_SUBORDINATE}:65536\n")
        (self.home / "image/Dockerfile").write_text(_DOCKERFILE)
        busybox = shutil.which("busybox")
        assert busybox is not None
        shutil.copy(busybox, self.home / "image/bin/busybox")
        (self.home / "storage.conf").write_text(_STORAGE.format(program=COMMAND, home=self.home))
        (self.home / "containers.conf").write_text(_CONTAINERS)
        (self.home / "run").mkdir(mode=0o700)
        os.mknod(where / "fuse", stat.S_IFCHR, os.stat("/dev/fuse").st_rdev)
        (where / "fuse").chmod(0o666)
        for path in (self.home, *self.home.rglob("*")):
            os.chown(path, USER, USER)

    def script(self, text: str) -> subprocess.CompletedProcess[str]:
        """Run a shell script as the user."""
        session = [
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "sh",
            "-ec",
            _AROUND,
        ]
        env = {
            "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin",
            "HOME": str(self.home),
            "XDG_RUNTIME_DIR": str(self.home / "run"),
            "CONTAINERS_CONF": str(self.home / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(self.home / "storage.conf"),
        }
        return subprocess.run(
            [*session, "sh", "-c", text, "sh"],
            env=env,
            cwd=self.where,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    def run(self, text: str) -> str:
        done = self.script(text)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def user() -> Iterator[Home]:
    """Who has built the image `t`, by which no container was made yet."""
    missing = [name for name in NEEDED if shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin") is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    with scratch() as where:
        home = Home(where)
        control = home.script(_CONTROL)
        if control.returncode:
            pytest.skip(f"podman runs no containers here: {control.stderr.strip().splitlines()[-1:]}")
        home.run("podman build -q -t t image >&2")
        yield home


_LOOK = (
    'grep " / " /proc/mounts; cat /kept/c /old/new; for f in /old/a /kept/b /gone; do test ! -e $f; done; '
)


def test_keep_id(user: Home) -> None:
    """The image's files are root's in the container and what the user makes is the user's; in the layer it
    has the container's number, the 1000th of the subordinate ones.
    """
    inside = _LOOK + "id -u; stat -c %u:%g /bin /kept/c; echo x >/tmp/mine; stat -c %u:%g /tmp/mine"
    told = user.run(f"podman run --name c1 --userns keep-id t sh -ec '{inside}'")
    first, *rest = told.split("\n")
    assert "fuse.overlayfs-py" in first
    assert rest == ["c", "new", "1001", "0:0", "0:0", "1001:1001", ""]
    made = [path for path in user.home.rglob("tmp/mine") if path.parts[-3] == "diff"]
    assert [path.stat().st_uid for path in made] == [FIRST_SUBORDINATE + USER - 1]
    assert any(user.home.rglob(".wh.gone"))  # the marks this is about


def test_build_and_commit(user: Home) -> None:
    """What a layer deletes stays deleted, in layers of a build, of a commit, and through a saved archive."""
    change = "rm -r /old; mkdir /old; rm /kept/c; echo more >/more; chown 5:6 /more"
    check = _LOOK.replace("/kept/c /old/new", "/more") + "test ! -e /kept/c; ls -A /old; stat -c %u:%g /more"
    script = f"""
        podman run --name c2 t sh -ec '{change}'
        podman commit -q c2 t2 >&2
        podman save -q -o saved t2
        podman run --rm t2 sh -ec '{check}'
        podman rmi -f t2 >&2
        podman load -q -i saved >&2
        podman run --rm t2 sh -ec '{check}'
        """
    told = user.run(script).splitlines()
    for mounted, *rest in (told[:3], told[3:]):
        assert "fuse.overlayfs-py" in mounted
        assert rest == ["more", "5:6"]
