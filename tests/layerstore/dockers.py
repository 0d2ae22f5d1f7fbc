"""Debian's docker for tests: a daemon of our own below one directory, without a network."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

START_SECONDS = 40
_NO_NETWORK = (
    "--iptables=false",
    "--ip6tables=false",
    "--ip-forward=false",
    "--bridge=none",
    "--userland-proxy=false",
)


class Docker:
    """The client, speaking to the daemon of a test."""

    def __init__(self, socket: Path) -> None:
        client = "/usr/bin/docker" if os.access("/usr/bin/docker", os.X_OK) else "docker"
        self.words = [client, "-H", f"unix://{socket}"]
        self._env = {**os.environ, "DOCKER_CONFIG": str(socket.parent / "client")}

    def call(self, *words: object, stdin: bytes | None = None) -> "subprocess.CompletedProcess[bytes]":
        command = [*self.words, *map(str, words)]
        return subprocess.run(command, input=stdin, capture_output=True, timeout=100, env=self._env)

    def run(self, *words: object, stdin: bytes | None = None) -> str:
        done = self.call(*words, stdin=stdin)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().strip()

    def bytes(self, *words: object) -> bytes:
        done = self.call(*words)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def inspect(self, name: str) -> dict[str, Any]:
        import json

        described: dict[str, Any] = json.loads(self.run("inspect", name))[0]
        return described

    @property
    def version(self) -> tuple[int, ...]:
        text = self.run("version", "--format", "{{.Server.Version}}")
        return tuple(int(part) for part in text.split("+")[0].split("-")[0].split(".")[:2])


def lacking() -> str | None:
    """Why there can be no docker here."""
    if os.geteuid() != 0:
        return "needs root"
    missing = [program for program in ("dockerd", "containerd", "docker") if shutil.which(program) is None]
    return f"needs {', '.join(missing)} (Debian's docker.io)" if missing else None


@contextmanager
def docker_daemon(where: Path) -> Iterator[Docker]:
    """A daemon that keeps everything below `where`; ended, with its containerd, at the end."""
    socket = where / "docker.sock"
    command = [
        "dockerd",
        "--data-root",
        str(where / "data"),
        "--exec-root",
        str(where / "exec"),
        "-H",
        f"unix://{socket}",
    ]
    command += ["--pidfile", str(where / "pid"), "--storage-driver", "vfs", *_NO_NETWORK]
    with open(where / "log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=where)
    try:
        docker = Docker(socket)
        until = time.monotonic() + START_SECONDS
        while docker.call("version").returncode != 0:
            if process.poll() is not None or time.monotonic() > until:
                last = (where / "log").read_text(errors="replace").splitlines()[-1:]
                raise RuntimeError(f"dockerd does not run here: {' '.join(last)}")
            time.sleep(0.1)
        yield docker
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
