"""skopeo and we on the same registry: every digest survives, in both directions, in both formats."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

import layerstore
from layerstore.digest import Digest
from layerstore.store.store import Store
from tests.layerstore.commands import ROOTFS, Cli, tarball
from tests.layerstore.transport.samples import FAST, digests, image, multi
from tests.layerstore.transport.servers import PASSWORD, USER, needs_registry

pytestmark = [
    needs_registry,
    pytest.mark.skipif(shutil.which("skopeo") is None, reason="needs skopeo"),
]


def skopeo(*words: object) -> str:
    done = subprocess.run(
        ["skopeo", *map(str, words)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def name(host: str, tmp_path: Path) -> str:
    return f"{host}/interop/{Digest.of(os.fsencode(tmp_path)).short}"


@pytest.mark.parametrize("kind", ["oci", "v2s2"])
def test_skopeo_pushes_we_pull(base: Cli, other: Store, registry: str, tmp_path: Path, kind: str) -> None:
    """An image that was imported, changed into both formats by skopeo, pulled and mounted."""
    base.run("import", "-", "base:gz", stdin=tarball(ROOTFS, "w:gz"))
    ref = f"{name(registry, tmp_path)}:1"
    source = f"oci:{base.root}/oci:base:gz"
    skopeo("copy", "--dest-tls-verify=false", "--format", kind, source, f"docker://{ref}")
    digest = skopeo("inspect", "--tls-verify=false", "--format", "{{.Digest}}", f"docker://{ref}").strip()
    cli = Cli(other.root)
    cli.run("pull", ref)
    assert cli.objects("images", "--digests")[0]["Digest"] == digest
    made = cli.run("create", ref)
    (layer,) = (other.root / "layers").iterdir()
    assert sorted(str(path.relative_to(layer)) for path in layer.rglob("*")) == sorted(ROOTFS)
    cli.run("rm", made)


@pytest.mark.parametrize("docker", [False, True])
def test_we_push_skopeo_pulls(store: Store, registry: str, tmp_path: Path, docker: bool) -> None:
    ref = f"{name(registry, tmp_path)}:1"
    made = image(store, ref, [os.urandom(100_000), os.urandom(5)], docker=docker)
    layerstore.push(ref, root=store.root, options=FAST)
    assert ref.rpartition(":")[0] in skopeo("inspect", "--tls-verify=false", f"docker://{ref}")
    skopeo("copy", "--src-tls-verify=false", "--preserve-digests", f"docker://{ref}", f"dir:{tmp_path}/copy")
    assert Digest.of((tmp_path / "copy/manifest.json").read_bytes()) == made.digest


def test_all_platforms(store: Store, other: Store, registry: str, tmp_path: Path) -> None:
    """skopeo copies the index that we pushed, and we pull what it copied: still the same index."""
    ref, copy = f"{name(registry, tmp_path)}:1", f"{name(registry, tmp_path)}:2"
    made = multi(store, ref, [("amd64", ""), ("arm64", "v8")])
    layerstore.push(ref, root=store.root, options=FAST)
    tls = ("--src-tls-verify=false", "--dest-tls-verify=false")
    skopeo("copy", *tls, "--all", f"docker://{ref}", f"docker://{copy}")
    assert layerstore.pull(copy, all_platforms=True, root=other.root, options=FAST).digest == made.digest
    assert digests(other.root) == digests(store.root)


def test_part_of_an_index_in_place(store: Store, other: Store, registry: str, tmp_path: Path) -> None:
    """skopeo reads a store that has one platform of several; umoci does it no harm."""
    ref = f"{name(registry, tmp_path)}:1"
    multi(store, ref, [("arm64", "v8"), ("amd64", "")])
    layerstore.push(ref, root=store.root, options=FAST)
    layerstore.pull(ref, root=other.root, options=FAST)
    seen = json.loads(skopeo("inspect", f"oci:{other.root}/oci:{ref}"))
    assert seen["Architecture"] == "amd64"
    before = digests(other.root)
    if shutil.which("umoci") is not None:
        subprocess.run(["umoci", "gc", "--layout", other.oci], check=False, capture_output=True, timeout=30)
        assert digests(other.root) == before


def test_logins_are_shared(basic_registry: str, home: Path, tmp_path: Path) -> None:
    """skopeo uses our login and we use skopeo's."""
    mine, its = home / "mine.json", home / "its.json"
    cli = Cli(tmp_path / "root")
    words = ("-u", USER, "--password-stdin", "--authfile")
    cli.run("login", *words, mine, basic_registry, stdin=PASSWORD.encode())
    assert skopeo("login", "--get-login", "--authfile", mine, basic_registry).strip() == USER
    skopeo("login", "--tls-verify=false", "-u", USER, "-p", PASSWORD, "--authfile", its, basic_registry)
    ref = f"{basic_registry}/interop/shared:1"
    cli.run("import", "-", ref, stdin=tarball(ROOTFS))
    cli.run("push", "--authfile", its, ref)
    cli.run("pull", "--authfile", mine, ref)
    assert "requires a login" in cli.fail("pull", ref)
