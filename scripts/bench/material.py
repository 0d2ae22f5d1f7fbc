"""What the layers hold: written once, into the template image."""

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

from operations import MIB, file_names
from scale import files
from stage import sh

SMALL = b"x" * 2048
LONG_AGO = 1_600_000_000
ARCHIVED, COMMITTED = files(3000), files(5000)

Fill = Callable[[Path], None]  # gets a directory that exists


def write_files(directory: Path, count: int, content: bytes = SMALL, prefix: str = "file") -> None:
    """`count` files of `content` in `directory`, which is made when it is missing."""
    directory.mkdir(parents=True, exist_ok=True)
    directory_fd = os.open(directory, os.O_RDONLY)
    for name in file_names(count, prefix):
        fd = os.open(name, os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=directory_fd)
        os.write(fd, content)
        os.close(fd)
    os.close(directory_fd)


def nothing(directory: Path) -> None:
    """An empty directory."""


def small_files(count: int, content: bytes = SMALL) -> Fill:
    return lambda directory: write_files(directory, count, content)


def big_files(mib: int, *names: str) -> Fill:
    def fill(directory: Path) -> None:
        for name in names:
            with (directory / name).open("wb", buffering=0) as file:
                for _ in range(mib):
                    file.write(MIB)

    return fill


def archive(directory: Path) -> None:
    """A tree of small files in 60 directories, a tar of it, and the directory to unpack it in."""
    for number in range(60):
        write_files(directory / f"tree/dir-{number:02d}", ARCHIVED // 60)
    sh("tar", "-cf", "archive.tar", "tree", cwd=directory)
    (directory / "out").mkdir()


def python_home(directory: Path) -> None:
    """The interpreter and its library, without the parts that no program imports."""
    library = Path(sysconfig.get_path("stdlib"))
    left_out = shutil.ignore_patterns(
        "test", "tests", "*-packages", "config-*", "idlelib", "tkinter", "ensurepip", "lib2to3"
    )
    (directory / "bin").mkdir()
    shutil.copy2(Path(sys.executable).resolve(), directory / "bin/python3")
    shutil.copytree(
        library, directory / "lib" / library.name, symlinks=True, ignore=left_out, dirs_exist_ok=True
    )


GIT = ("git", "-c", "user.name=bench", "-c", "user.email=bench@localhost", "-c", "gc.auto=0")
GIT_ENVIRONMENT = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}


def repository(directory: Path) -> None:
    """Committed files in 100 directories. They are old, so that no file is younger than the index."""
    for number in range(100):
        place = directory / f"dir-{number:02d}"
        write_files(place, COMMITTED // 100, b"int number = %d;\n" % number)
        for name in file_names(COMMITTED // 100):
            os.utime(place / name, (LONG_AGO, LONG_AGO))
    for words in (("init", "-q"), ("add", "."), ("commit", "-q", "-m", "all"), ("repack", "-a", "-d", "-q")):
        subprocess.run([*GIT, *words], cwd=directory, env=GIT_ENVIRONMENT, check=True, capture_output=True)


def c_sources(directory: Path) -> None:
    """50 C files, each with five headers of the same directory."""
    for number in range(5):
        lines = [f"static int shared_{number}_{line}(int x) {{ return x + {line}; }}" for line in range(20)]
        (directory / f"header{number}.h").write_text("\n".join(lines) + "\n")
    head = "".join(f'#include "header{number}.h"\n' for number in range(5))
    for number in range(50):
        calls = " + ".join(f"shared_{header}_{number % 20}(x)" for header in range(5))
        (directory / f"source{number}.c").write_text(f"{head}int f{number}(int x) {{ return {calls}; }}\n")
