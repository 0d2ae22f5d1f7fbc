"""The control socket where somebody else was there first, and how it is found again."""

import os
import stat
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from overlayfs_py.service import client, rundir
from overlayfs_py.service.control import ControlSocket
from tests.mounts import COMMAND, make_layers

pytestmark = [pytest.mark.root]
NOBODY = 65534
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def usual(where: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory that would be used below a /tmp of the test's own; not made yet."""
    (where / "tmp").mkdir()
    (where / "tmp").chmod(0o1777)
    monkeypatch.setattr(rundir, "_TEMPORARY", os.fsencode(where / "tmp"))
    return Path(os.fsdecode(rundir._temporary(os.geteuid())))


def somebody_elses(usual: Path) -> None:
    usual.mkdir()
    os.chown(usual, NOBODY, NOBODY)


def somebody_elses_and_open(usual: Path) -> None:
    somebody_elses(usual)
    usual.chmod(0o777)


def a_link_to_ours(usual: Path) -> None:
    (usual.parent / "mine").mkdir(mode=0o700)
    usual.symlink_to("mine")


def a_link_to_nothing(usual: Path) -> None:
    usual.symlink_to("nothing")


def a_file(usual: Path) -> None:
    usual.touch()


HOSTILE = [somebody_elses, somebody_elses_and_open, a_link_to_ours, a_link_to_nothing, a_file]


def control_in(run_dir: Path, mountpoint: bytes = b"/m") -> ControlSocket:
    return ControlSocket(os.fsencode(run_dir), mountpoint, {})


@pytest.mark.parametrize("spoil", HOSTILE)
def test_another_directory_is_made_and_found(usual: Path, spoil: Callable[[Path], None]) -> None:
    """Nothing is put into what is not ours, and nothing is looked for there."""
    spoil(usual)
    before = list(usual.parent.rglob("*"))
    control = control_in(usual)
    try:
        place = Path(os.fsdecode(control.path)).parent
        assert place.name.startswith(f"{usual.name}-")
        found = place.stat()
        assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (os.geteuid(), 0o700)
        assert stat.S_IMODE(os.stat(control.path).st_mode) == 0o600
        assert list(rundir.sockets(os.fsencode(usual), b"/m")) == [control.path]
        assert list(rundir.sockets(os.fsencode(usual), b"/other")) == []
        assert set(usual.parent.rglob("*")) - set(before) == {place, Path(os.fsdecode(control.path))}
    finally:
        control.close()


def test_the_next_daemon_takes_the_same(usual: Path) -> None:
    somebody_elses(usual)
    first, second = control_in(usual, b"/m"), control_in(usual, b"/n")
    try:
        assert os.path.dirname(first.path) == os.path.dirname(second.path)
        assert sorted(rundir.sockets(os.fsencode(usual))) == sorted([first.path, second.path])
    finally:
        first.close()
        second.close()


def test_directories_of_others_with_such_names_are_passed_over(usual: Path) -> None:
    """What somebody guesses, or copies, is not used."""
    somebody_elses(usual)
    fake = usual.with_name(f"{usual.name}-0000")
    somebody_elses(fake)
    (fake / "x-1.sock").touch()
    control = control_in(usual)
    try:
        assert os.fsdecode(os.path.dirname(control.path)) != str(fake)
        assert list(rundir.sockets(os.fsencode(usual))) == [control.path]
    finally:
        control.close()


def test_ours_with_a_wrong_mode_is_made_private(usual: Path) -> None:
    usual.mkdir()
    usual.chmod(0o777)
    control = control_in(usual)
    try:
        assert Path(os.fsdecode(control.path)).parent == usual
        assert stat.S_IMODE(usual.stat().st_mode) == 0o700
    finally:
        control.close()


@pytest.mark.parametrize("spoil", [a_file, somebody_elses, a_link_to_nothing])
def test_a_default_directory_that_cannot_be_used(
    usual: Path, where: Path, spoil: Callable[[Path], None]
) -> None:
    """Also one below /run or XDG_RUNTIME_DIR: the mount has a control socket elsewhere."""
    default = where / "overlayfs-py"
    spoil(default)
    control = control_in(default)
    try:
        assert Path(os.fsdecode(control.path)).parent == usual
        assert list(rundir.sockets(os.fsencode(default), b"/m")) == [control.path]
    finally:
        control.close()


def test_a_directory_that_was_asked_for_has_no_other(usual: Path, where: Path) -> None:
    somebody_elses(where / "chosen")
    with pytest.raises(PermissionError):
        control_in(where / "chosen")
    assert not usual.exists()


def test_a_path_too_long_for_a_socket(usual: Path, where: Path) -> None:
    """unix(7) has 107 bytes; below a deep XDG_RUNTIME_DIR it is reached by a descriptor."""
    deep = where / ("d" * 100) / "overlayfs-py"
    deep.parent.mkdir()
    control = control_in(deep)
    try:
        assert len(control.path) > 107
        with client.Connection(control.path) as connection:
            assert connection.pid == os.getpid()
    finally:
        control.close()
    assert not os.path.exists(control.path)


def test_an_impostor_is_not_asked(usual: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever listens there has to be this user, or root."""
    control = control_in(usual)
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
    try:
        answering = client._connect(control.path)
        assert answering is not None  # root
        answering.close()
        monkeypatch.setattr(client, "_CREDENTIALS", SomebodyElse("iII"))
        assert client._connect(control.path) is None
    finally:
        control.close()


class SomebodyElse(struct.Struct):
    """What the kernel says of a socket's other end, of another user."""

    def unpack(self, credentials: object) -> tuple[int, int, int]:
        return os.getpid(), 1, 1


# A machine where /tmp/overlayfs-py-65534 was made by root, and the user has no directory of their own.
_INSIDE = """
set -e
where=$1 device=$2 checkout=$3; shift 3
mount --bind "$where" "$where/tmp/layers"
mount --bind "$device" /dev/fuse
case $checkout in /tmp/*) # still there in the other /tmp
    mkdir -p "$where$checkout"
    mount --rbind "$checkout" "$where$checkout" ;;
esac
mount --rbind "$where/tmp" /tmp
[ ! -d /run/user ] || mount -t tmpfs none /run/user
exec setpriv --reuid=65534 --regid=65534 --clear-groups "$@"
"""
_SESSION = """
import json, os, subprocess, sys
command, top = sys.argv[1], '/tmp/layers'
merged = top + '/merged'
def run(*words):
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done
    return done
started = run(command, '-o', f'lowerdir={top}/lower0,upperdir={top}/upper,workdir={top}/work', merged)
assert 'control socket is in /tmp/overlayfs-py-65534-' in started.stderr, started
assert [m['mountpoint'] for m in json.loads(run(command + 'ctl', 'list', '--json').stdout)] == [merged]
run(command + 'ctl', 'umount', merged)
assert os.listdir('/tmp/overlayfs-py-65534') == []
"""


@pytest.mark.fuse
def test_a_user_whose_directory_somebody_made(where: Path) -> None:
    """From the mount to its unmount, found again by the command alone."""
    layers = make_layers(where)
    for path in (*layers.lowers, layers.upper, layers.work, layers.merged):
        os.chown(path, NOBODY, NOBODY)
    (where / "tmp/layers").mkdir(parents=True)
    (where / "tmp").chmod(0o1777)
    (where / "tmp/overlayfs-py-65534").mkdir(mode=0o755)
    device = where / "fuse"
    os.mknod(device, stat.S_IFCHR, os.stat("/dev/fuse").st_rdev)
    device.chmod(0o666)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("XDG_RUNTIME_DIR", None)
    words = ["unshare", "-m", "sh", "-c", _INSIDE, "sh", str(where), str(device), str(ROOT)]
    done = subprocess.run(
        [*words, sys.executable, "-c", _SESSION, COMMAND],
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
