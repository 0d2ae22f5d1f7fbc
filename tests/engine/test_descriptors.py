"""A daemon that may open few files serves as one that may open many: nobody meets its EMFILE."""

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.mounts import Layers, OverlayMount, flavours, loop_filesystem, make_layers, status

pytestmark = [pytest.mark.fuse, pytest.mark.root, pytest.mark.slow]

Mounter = Callable[..., OverlayMount]
_FILES = 400


@pytest.fixture(params=flavours())
def engine(request: pytest.FixtureRequest) -> str:
    """Each engine with each of its data paths."""
    return str(request.param)


@pytest.fixture(params=[64, 256])
def few(request: pytest.FixtureRequest, layers: Layers, mount: Mounter) -> Iterator[Path]:
    """A mount of 400 lower files in 20 directories whose daemon may open few; at the end its control socket
    answers, it is below its limit, and nothing temporary is left.
    """
    for number in range(_FILES):
        path = layers.lowers[0] / f"d{number % 20}" / f"f{number}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"lower %d" % number)
    live = mount(layers, files=request.param)
    yield layers.merged
    assert status(live, "stats")["open_fds"] < request.param
    deadline = time.monotonic() + 20
    while os.listdir(layers.work / "work") and time.monotonic() < deadline:
        os.statvfs(layers.merged)  # the kernel says what it has forgotten between other requests
    assert os.listdir(layers.work / "work") == []


def lower_files(root: Path) -> Iterator[tuple[int, Path]]:
    return ((number, root / f"d{number % 20}" / f"f{number}") for number in range(_FILES))


def test_files_are_made_changed_moved_and_removed(few: Path) -> None:
    for number in range(_FILES):
        (few / f"d{number % 20}" / f"new{number}").write_bytes(b"new %d" % number)
    for number, path in lower_files(few):
        if number % 3 == 0:
            with open(path, "ab") as file:
                file.write(b" more")
        elif number % 3 == 1:
            path.chmod(0o600)
        else:
            path.rename(path.with_name(f"moved{number}"))
    for number, path in lower_files(few):
        found = path if number % 3 < 2 else path.with_name(f"moved{number}")
        assert found.read_bytes() == b"lower %d%s" % (number, b" more" if number % 3 == 0 else b"")
        new = few / f"d{number % 20}" / f"new{number}"
        assert new.read_bytes() == b"new %d" % number
        new.unlink()


def test_files_are_removed_while_open(few: Path) -> None:
    """More of them than the daemon may have descriptors, upper and lower ones."""
    with contextlib.ExitStack() as stack:
        files = []
        for number, path in lower_files(few):
            if number % 2:
                path.write_bytes(b"upper %d" % number)
            files.append((number, stack.enter_context(open(path, "r+b", buffering=0))))
            path.unlink()
        for number, file in files:
            assert os.fstat(file.fileno()).st_nlink == 0
            assert file.read() == (b"upper %d" if number % 2 else b"lower %d") % number
            file.write(b"!")
            file.seek(0)
            assert file.read(5) == (b"upper" if number % 2 else b"lower")


def test_many_clients_at_once(few: Path) -> None:
    """Syncs and copies in worker threads have descriptors of their own, which others wait for."""

    def work(number: int) -> bytes:
        path = few / f"d{number % 20}" / f"f{number}"
        with open(path, "r+b", buffering=0) as file:
            file.seek(0, os.SEEK_END)
            file.write(b"!" * 2_000_000)
            os.fsync(file.fileno())
        return path.read_bytes()[:20]

    with ThreadPoolExecutor(24) as pool:
        for number, found in enumerate(pool.map(work, range(72))):
            assert found == (b"lower %d" % number).ljust(20, b"!")


def test_directories_are_listed_and_removed_while_open(few: Path) -> None:
    made = []
    for number in range(150):
        path = few / f"new{number}"
        path.mkdir(mode=0o750)
        (path / "f").touch()
        assert os.listdir(path) == ["f"]
        made.append(path)
    fds = [os.open(path, os.O_RDONLY) for path in made]
    try:
        for path in made:
            (path / "f").unlink()
            path.rmdir()
        for fd in fds:
            assert os.fstat(fd).st_mode & 0o777 == 0o750
            os.fchmod(fd, 0o700)
            assert os.listdir(fd) == []
    finally:
        for fd in fds:
            os.close(fd)
    assert len(os.listdir(few)) == 20


def test_an_idle_upper_can_be_remounted_read_only(where: Path, mount: Mounter) -> None:
    """Once nobody has written for a while; afterwards writing goes on where it was."""
    with loop_filesystem(where, 64 << 20) as image:
        layers = make_layers(image)
        (layers.lowers[0] / "f").write_bytes(b"lower")
        live = mount(layers)
        for number in range(10):
            (layers.merged / f"n{number}").write_bytes(b"new")
        with open(layers.merged / "f", "ab") as file:
            file.write(b" more")
        with contextlib.suppress(
            subprocess.TimeoutExpired
        ):  # looks again and again, without a sleep of its own
            subprocess.run(
                ["sh", "-c", 'until mount -o remount,ro "$1" 2>/dev/null; do sleep 0.2; done', "-", image],
                timeout=20,
                check=True,
            )
        with pytest.raises(OSError, match="Read-only"):
            (layers.merged / "new").write_bytes(b"x")
        subprocess.run(["mount", "-o", "remount,rw", image], check=True)
        with open(layers.merged / "f", "ab") as file:
            file.write(b" again")
        assert (layers.upper / "f").read_bytes() == b"lower more again"
        live.unmount()


def test_more_layers_than_it_may_open(where: Path, mount: Mounter) -> None:
    layers = make_layers(where, lowers=40)
    with pytest.raises(AssertionError, match=r"42 layers .* only 64 files: raise its hard limit"):
        mount(layers, files=64)
