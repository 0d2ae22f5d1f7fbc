"""Two processes at once: an answer that one has not taken in yet, while another makes it wrong.

The kernel voids such answers itself for some changes (fi->attr_version rises) and not for others; those the
engine has to make known, or the old attributes stay for the whole attribute timeout.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.mounts import Layers, OverlayMount

pytestmark = [pytest.mark.fuse, pytest.mark.root, pytest.mark.engine]

_LOOKERS = 2
# On one processor with somebody who takes it away from time to time, so that an answer waits to be taken in.
_LOOK = """
import os, sys, time
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
if sys.argv[1] == 'pausing':
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    while True:
        end = time.monotonic() + 2e-3
        while time.monotonic() < end: pass
        time.sleep(5e-4)
while True:
    os.listdir(sys.argv[1])  # so that the access time is no longer known, which changers do not ask for
    os.stat(sys.argv[1])
"""
# Changes, and after some changes compares what the mount says with what the upper says.
_CHANGE = """
import os, sys, time
merged, upper, change, times = sys.argv[1:]
def entries(n):
    (os.unlink if n % 2 else os.mknod)(merged + '/new')
def directories(n):
    (os.rmdir if n % 2 else os.mkdir)(merged + '/new')
def renames(n):
    names = [merged + '/old', merged + '/older']
    os.rename(names[n % 2], names[1 - n % 2])
def links(n):
    os.unlink(merged + '/new') if n % 2 else os.link(merged + '/old', merged + '/new')
def attributes(n):
    os.removexattr(merged, 'user.x') if n % 2 else os.setxattr(merged, 'user.x', b'')
def times_of(path):
    st = os.stat(path)
    return st.st_mtime_ns, st.st_ctime_ns
wrong = 0
os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
for n in range(int(times)):
    locals()[change](n)
    if change == 'attributes' and n % 4 < 3:
        continue  # changes that make the kernel ask for nothing itself
    time.sleep(n % 5 * 1e-3)  # who was answered before that takes it in
    wrong += times_of(merged) != times_of(upper)
print(wrong)
"""


@contextmanager
def looking(path: str) -> Iterator[None]:
    """Processes that ask for the attributes all the time."""
    with ExitStack() as stack:
        for what in [path] * _LOOKERS + ["pausing"]:
            looker = stack.enter_context(subprocess.Popen([sys.executable, "-c", _LOOK, what]))
            stack.callback(looker.kill)
        yield


@pytest.mark.parametrize("change", ["entries", "directories", "renames", "links", "attributes"])
def test_times_of_a_directory(layers: Layers, mounted: OverlayMount, change: str) -> None:
    """Whoever looked at it meanwhile, after a change in it its times are the new ones."""
    directory = layers.merged / "directory"
    directory.mkdir()
    (directory / "old").touch()
    with looking(str(directory)):
        command = [
            sys.executable,
            "-c",
            _CHANGE,
            str(directory),
            str(layers.upper / "directory"),
            change,
            "1000",
        ]
        changing = subprocess.run(command, capture_output=True, check=True, timeout=100)
    assert int(changing.stdout) == 0
    assert os.stat(directory).st_mtime_ns == os.stat(layers.upper / "directory").st_mtime_ns
