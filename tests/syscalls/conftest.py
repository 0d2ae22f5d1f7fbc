"""File systems for the system call tests: small ones to fill, and ones that can or cannot do a thing."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

MountType = Callable[..., Path]


@pytest.fixture
def dir_fd(tmp_path: Path) -> Iterator[int]:
    """A descriptor of `tmp_path`."""
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.fixture
def root() -> None:
    if os.geteuid():
        pytest.skip("needs root")


@pytest.fixture
def tmpfs(root: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MountType]:
    """`tmpfs(size="1m")` mounts a new one and returns where."""
    with ExitStack() as stack:

        def make(size: str = "64m") -> Path:
            where = tmp_path_factory.mktemp("tmpfs")
            stack.enter_context(_mounted(["-t", "tmpfs", "-o", f"size={size}", "tmpfs"], where))
            return where

        yield make


@pytest.fixture
def image(root: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MountType]:
    """`image("mkfs.ext4", "-q", size=...)` mounts a new file system by a loop device; skips without one."""
    with ExitStack() as stack:

        def make(*mkfs: str, size: int = 32 << 20) -> Path:
            base = tmp_path_factory.mktemp("image")
            file, where = base / "image", base / "mounted"
            where.mkdir()
            with open(file, "wb") as new:
                new.truncate(size)
            try:
                subprocess.run([*mkfs, str(file)], check=True, capture_output=True, timeout=60)
                stack.enter_context(_mounted(["-o", "loop", str(file)], where))
            except (OSError, subprocess.CalledProcessError) as error:
                pytest.skip(f"no {mkfs[0]} or no loop device: {error}")
            return where

        yield make


@contextmanager
def _mounted(arguments: list[str], where: Path) -> Iterator[None]:
    subprocess.run(["mount", *arguments, str(where)], check=True, capture_output=True, timeout=60)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(where)], check=True, timeout=60)
