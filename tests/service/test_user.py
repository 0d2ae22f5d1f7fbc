"""An ordinary user: mounts through fusermount3, has a run directory of their own, unmounts without root."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mounts import COMMAND, Layers

pytestmark = [pytest.mark.fuse, pytest.mark.root]
NOBODY = 65534
ROOT = Path(__file__).resolve().parents[2]
# A mount namespace in which /dev/fuse is open to everybody, as udev makes it on real machines.
_INSIDE = 'mount --bind "$1" /dev/fuse; shift; exec setpriv --reuid=65534 --regid=65534 --clear-groups "$@"'

_SESSION = """
import json, os, signal, subprocess, sys, time
command, lower, upper, work, merged = sys.argv[1:]
options = f'lowerdir={lower},upperdir={upper},workdir={work}'
def run(*words): return subprocess.run(words, capture_output=True, text=True, timeout=60)
def start():
    result = run(command, '-o', options, merged)
    assert result.returncode == 0, result
    return result.stderr
def pyctl(*words):
    result = run(command + 'ctl', *words)
    assert result.returncode == 0, result
    return result.stdout
def mounts(): return [m for m in json.loads(pyctl('list', '--json')) if m['mountpoint'] == merged]
def mounted(): return f' {merged} fuse.overlayfs-py ' in open('/proc/self/mounts').read()
def wait_until(condition):
    for _ in range(1000):
        if condition(): return
        time.sleep(0.01)
    sys.exit('waited too long')

start()
assert 'nosuid,nodev' in open('/proc/self/mounts').read().split(f' {merged} ')[1].split()[1]
assert open(merged + '/file').read() == 'low'
open(merged + '/file', 'a').write('er')
assert open(upper + '/file').read() == 'lower'
os.unlink(merged + '/gone')
assert not os.path.exists(merged + '/gone')
os.mkdir(merged + '/dir')
os.rename(merged + '/dir', merged + '/renamed')
assert os.stat(merged + '/renamed').st_uid == os.getuid()
assert merged in pyctl('list')
refused = run(command, '-o', 'remount,ro', merged)
assert 'only root may' in refused.stderr and refused.stderr.count('\\n') == 1, refused
pyctl('umount', merged)
assert not mounted()

start()
assert sorted(os.listdir(merged)) == ['file', 'renamed']
assert run('fusermount3', '-u', merged).returncode == 0
assert not mounted()
wait_until(lambda: not mounts())

start()
os.kill(mounts()[0]['pid'], signal.SIGKILL)
wait_until(lambda: not mounts())
assert 'clearing the dead mount' in start()
assert open(merged + '/file').read() == 'lower'
pyctl('umount', merged)
refused = run(command, '-o', options, '/proc')
assert refused.returncode == 1 and refused.stderr.count('\\n') == 1, refused
"""


def test_whole_life_as_an_ordinary_user(layers: Layers, where: Path) -> None:
    (layers.lowers[0] / "file").write_text("low")
    (layers.lowers[0] / "gone").touch()
    for path in (layers.lowers[0], layers.lowers[0] / "file", layers.upper, layers.work, layers.merged):
        os.chown(path, NOBODY, NOBODY)
    device = where / "fuse"
    os.mknod(device, stat.S_IFCHR, os.stat("/dev/fuse").st_rdev)
    device.chmod(0o666)
    home = where / "run"
    home.mkdir(mode=0o700)
    os.chown(home, NOBODY, NOBODY)
    words = [COMMAND, layers.lowers[0], layers.upper, layers.work, layers.merged]
    result = subprocess.run(
        ["unshare", "-m", "sh", "-ec", _INSIDE, "sh", device, sys.executable, "-c", _SESSION, *words],
        env={**os.environ, "XDG_RUNTIME_DIR": str(home), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert result.returncode == 0, result.stderr
