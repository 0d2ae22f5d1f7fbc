"""Debian's docker-registry on a free loopback port, with no, Basic or Bearer authentication."""

import http.server
import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

needs_registry = pytest.mark.skipif(shutil.which("docker-registry") is None, reason="needs docker-registry")
USER, PASSWORD = "ann", "s3cret:with a colon"
START_SECONDS = 15


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def web_server(handler: Callable[..., http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    """The URL of a web server whose requests `handler` answers."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def docker_registry(where: Path, auth: str = "", http: str = "") -> Iterator[str]:
    """A running registry's ``127.0.0.1:PORT``; `auth` and `http` add to its configuration."""
    host = f"127.0.0.1:{free_port()}"
    config = where / "registry.yml"
    config.write_text(
        "version: 0.1\n"
        "log: {level: error, accesslog: {disabled: true}}\n"
        f"storage: {{filesystem: {{rootdirectory: {where}/data}}, delete: {{enabled: true}}}}\n"
        f"http:\n  addr: '{host}'\n  secret: for-tests\n{http}{auth}"
    )
    # Every REGISTRY_* variable would be a setting of its own to it.
    environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(where)}
    with open(where / "registry.log", "wb") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", config], env=environment, stdout=log, stderr=log, cwd=where
        )
        try:
            wait_until_up(host, process)
            yield host
        finally:
            process.terminate()
            process.wait(timeout=10)


def wait_until_up(host: str, process: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        assert process.poll() is None, "docker-registry ended"
        try:
            urllib.request.urlopen(f"http://{host}/v2/", timeout=1).close()
            return
        except urllib.error.HTTPError as error:
            error.close()
            return
        except OSError:
            time.sleep(0.02)
    raise TimeoutError("docker-registry does not answer")
