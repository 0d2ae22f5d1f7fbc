"""An image to and from Debian's docker-registry on this machine, one of its own for each contender."""

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stage import settle, sh

from store.measure import OURS, Cost, run

_START_SECONDS = 15


@contextmanager
def registry(disk: Path) -> Iterator[str]:
    """A running registry's HOST:PORT; its blobs lie on `disk`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{probe.getsockname()[1]}"
    config = disk / "registry.yml"
    config.write_text(
        "version: 0.1\n"
        "log: {level: error, accesslog: {disabled: true}}\n"
        f"storage: {{filesystem: {{rootdirectory: {disk}/registry}}}}\n"
        f"http: {{addr: '{host}', secret: bench}}\n"
    )
    environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(disk)}
    with open(disk / "registry.log", "wb") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", config], env=environment, stdout=log, stderr=log
        )
        try:
            _wait_for(host, process)
            yield host
        finally:
            process.terminate()
            process.wait(timeout=20)


def _wait_for(host: str, process: "subprocess.Popen[bytes]") -> None:
    name, _, port = host.partition(":")
    until = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < until:
        try:
            socket.create_connection((name, int(port)), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit("bench: docker-registry does not start")


@dataclass(frozen=True)
class Source:
    """The same image as a layout and in a store of ours; nothing writes there."""

    layout: Path
    store: Path


def prepare(disk: Path, layout: Path) -> Source:
    source = Source(layout, disk / "source")
    program = f"{OURS} --root {source.store}"
    sh("bash", "-euo", "pipefail", "-c", f"tar -C {layout} -cf - . | {program} load -q")
    return source


def layerstore(disk: Path, source: Source) -> tuple[Cost, Cost]:
    """(push, pull); the store to pull into is new."""
    with registry(disk) as host:
        settle()
        pushed = run(OURS, "--root", source.store, "push", "-q", "x", f"{host}/x:1")
        settle()
        return pushed, run(OURS, "--root", disk / "target", "pull", "-q", f"{host}/x:1")


def skopeo(disk: Path, source: Source) -> tuple[Cost, Cost]:
    """(push, pull), from and into image layouts."""
    with registry(disk) as host:
        settle()
        there = f"docker://{host}/x:1"
        pushed = run("skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{source.layout}:x", there)
        settle()
        return pushed, run("skopeo", "copy", "-q", "--src-tls-verify=false", there, f"oci:{disk}/pulled:x")


CONTENDERS = {"layerstore": layerstore, "skopeo": skopeo}
