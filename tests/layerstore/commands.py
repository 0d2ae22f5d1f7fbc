"""The command line under test as a process, and small tarballs to feed it."""

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from layerstore.store.store import Store

PROGRAM = Path(sys.executable).parent / "layerstore"
TIMEOUT = 60


class Cli:
    """``layerstore --root ROOT ...``; `run` insists on success, `fail` on exit 1 with one line on stderr."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def command(self, *words: object) -> list[str]:
        """The whole command line."""
        return [str(PROGRAM), "--root", str(self.root), *map(str, words)]

    def make_store(self) -> None:
        """An empty one, which no listing makes."""
        Store.open(self.root)

    def start(self, *words: object, **options: Any) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(self.command(*words), **options)

    def call(
        self, *words: object, stdin: bytes | None = None, env: Mapping[str, str] | None = None, **options: Any
    ) -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run(
            [PROGRAM, "--root", self.root, *map(str, words)],
            input=b"" if stdin is None else stdin,
            env={**os.environ, **(env or {})},
            capture_output=True,
            timeout=TIMEOUT,
            **options,
        )

    def run(self, *words: object, **options: Any) -> str:
        done = self.call(*words, **options)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().rstrip("\n")

    def fail(self, *words: object, status: int = 1, **options: Any) -> str:
        done = self.call(*words, **options)
        text = done.stderr.decode()
        assert done.returncode == status, (done, text)
        assert "Traceback" not in text
        assert text.count("\n") == 1, text
        assert text.startswith("layerstore: ")
        return text.removeprefix("layerstore: ").rstrip("\n")

    def objects(self, *words: object) -> list[dict[str, Any]]:
        """The objects of a listing with ``--format json``."""
        return [json.loads(line) for line in self.run(*words, "--format", "json").splitlines()]


def wait_until_it_hears(process: "subprocess.Popen[bytes]") -> None:
    """Until a command catches SIGTERM: signals that come before are Python's affair."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and process.poll() is None:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        caught = next((line for line in lines if line.startswith("SigCgt:")), "SigCgt: 0")
        if int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.002)


def tarball(files: Mapping[str, bytes | str | None], mode: str = "w") -> bytes:
    """A tar: bytes are a file, a string is a symbolic link's target, None a directory."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode, format=tarfile.PAX_FORMAT) as tar:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.mtime = 1_600_000_000
            if content is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
            elif isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
            else:
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return out.getvalue()


ROOTFS: dict[str, bytes | str | None] = {
    "bin": None,
    "bin/sh": b"#!sh\n",
    "etc": None,
    "etc/hosts": b"127.0.0.1 localhost\n",
    "etc/passwd": b"root:x:0:0::/:/bin/sh\n",
    "lib": "usr/lib",
    "proc": None,
    "usr": None,
    "usr/lib": None,
    "usr/lib/one": b"1" * 5000,
    "usr/lib/two": b"2" * 5000,
}


def contents(root: Path) -> list[str]:
    """Every path in a store but workspaces' own contents, to see that nothing was left or changed."""
    found = []
    for directory, names, files in os.walk(root):
        relative = os.path.relpath(directory, root)
        found += [os.path.join(relative, name) for name in [*names, *files]]
    return sorted(found)
