"""A registry with TLS: which certificates are believed, and that nothing goes in the clear by itself."""

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import layerstore
from layerstore.store.store import Store
from layerstore.transport import hosts, tls
from layerstore.transport.base import RegistryOptions, Stop
from layerstore.transport.client import connect
from layerstore.transport.errors import RegistryError
from tests.layerstore.transport.samples import FAST, image
from tests.layerstore.transport.servers import docker_registry, needs_registry


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with ``ca.crt``, a certificate for 127.0.0.1 nobody else knows, and its key."""
    where = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=tests",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", where / "key.pem", "-out", where / "ca.crt"],
        check=True, capture_output=True, timeout=30,
    )  # fmt: skip
    return where


@pytest.fixture(scope="module")
def secure(certificate: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry that speaks TLS only."""
    where = tmp_path_factory.mktemp("secure")
    more = f"  tls: {{certificate: {certificate}/ca.crt, key: {certificate}/key.pem}}\n"
    with docker_registry(where, http=more) as host:
        yield host


@needs_registry
def test_certificates(store: Store, secure: str, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ref = f"{secure}/tls/app:1"
    made = image(store, ref, [b"layer"])
    with pytest.raises(RegistryError, match=r"(?i)certificate.verify.failed"):
        layerstore.push(ref, root=store.root, options=FAST)
    layerstore.push(ref, root=store.root, options=replace(FAST, cert_dir=certificate))
    layerstore.pull(ref, root=store.root, options=replace(FAST, tls_verify=False))
    (certificate / secure).mkdir(exist_ok=True)
    (certificate / secure / "ca.crt").write_bytes((certificate / "ca.crt").read_bytes())
    monkeypatch.setattr(tls, "CERTS_DIRS", (certificate,))
    assert layerstore.pull(ref, root=store.root, options=FAST).digest == made.digest


def test_bad_certificates(tmp_path: Path) -> None:
    (tmp_path / "x.crt").write_text("nonsense")
    with pytest.raises(RegistryError, match=r"cannot use the certificate .*x\.crt"):
        tls.context("host", RegistryOptions(cert_dir=tmp_path))


def test_plain_http_is_for_this_machine(registry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The very same registry, were it elsewhere, would be spoken to with TLS or not at all."""
    connect(registry, lambda: None, FAST, Stop()).__exit__()
    monkeypatch.setattr("layerstore.transport.client.is_loopback", lambda host: False)
    with pytest.raises(RegistryError, match=f"cannot reach the registry {registry}: https://"):
        connect(registry, lambda: None, FAST, Stop())
    connect(registry, lambda: None, replace(FAST, tls_verify=False), Stop()).__exit__()


def test_hosts() -> None:
    for host in ("localhost", "LocalHost.", "127.0.0.1", "127.9.9.9", "[::1]", "::1"):
        assert hosts.is_loopback(host)
    for host in (
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "128.0.0.1",
        "[::2]",
        "",
        "127.1",
        "0.0.0.0",
    ):
        assert not hosts.is_loopback(host)
    assert hosts.without_port("[::1]:5000") == "[::1]"
    assert hosts.without_port("h:5000") == "h"
    assert hosts.api_host("docker.io") == "registry-1.docker.io"
    assert hosts.api_host("docker.io:5000") == "docker.io:5000"
