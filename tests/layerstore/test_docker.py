"""The real docker reads what we write and writes what we read, entry by entry."""

import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import layerstore
from tests.layerstore.commands import ROOTFS, Cli, tarball
from tests.layerstore.dialogs import SCRIPTS, ask_docker, recorded
from tests.layerstore.dockers import Docker, docker_daemon, lacking
from tests.layerstore.transport.servers import docker_registry, needs_registry
from tests.mounts import scratch

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(lacking() is not None, reason=lacking() or ""),
]

NAME = "host.example:5000/team/app:2"
RECORD = json.loads((Path(__file__).parent / "data/docker-commit.json").read_text())
FIELDS = [
    "Cmd",
    "Entrypoint",
    "Env",
    "ExposedPorts",
    "Healthcheck",
    "Labels",
    "OnBuild",
    "Shell",
    "User",
    "Volumes",
    "WorkingDir",
]


@pytest.fixture(scope="module")
def docker() -> Iterator[Docker]:
    with scratch() as where:
        try:
            daemon = docker_daemon(where)
            running = daemon.__enter__()
        except RuntimeError as reason:
            pytest.skip(str(reason))
        try:
            yield running
        finally:
            daemon.__exit__(None, None, None)


@pytest.fixture(scope="module")
def store() -> Iterator[Cli]:
    """A store with NAME: three layers with all that docker's own commits carry, whiteouts and opaque ones."""
    with scratch() as where:
        cli = Cli(where / "store")
        changes = ['CMD ["/bin/sh"]', "ENV A=b", "LABEL x=y"]
        tar = tarball(ROOTFS, "w:gz")
        layerstore.import_(io.BytesIO(tar), "base:1", changes=changes, root=cli.root)
        layerstore.create("base:1", name="w", root=cli.root)
        mounted = layerstore.mount("w", root=cli.root)
        try:
            change(mounted)
        finally:
            layerstore.umount("w", root=cli.root)
        layerstore.commit("w", "middle", message="the second", author="Ada", root=cli.root)
        layerstore.create("middle", name="v", root=cli.root)
        (cli.root / "workspaces/v/upper/last").write_text("last")
        layerstore.commit("v", NAME, changes=["ENTRYPOINT /go", "USER me"], root=cli.root)
        yield cli


def change(root: Path) -> None:
    """Every kind of change."""
    (root / "etc/hosts").unlink()
    for name in ("one", "two"):
        (root / "usr/lib" / name).unlink()
    (root / "usr/lib").rmdir()
    (root / "usr/lib").mkdir()
    (root / "usr/lib/three").write_text("3")
    os.link(root / "usr/lib/three", root / "hard")
    (root / "soft").symlink_to("/etc/passwd")
    os.mkfifo(root / "fifo")
    os.mknod(root / "device", 0o020640, os.makedev(1, 3))
    (root / "name é \n x").write_text("odd")
    (root / ("long-" * 40)).write_text("long")
    os.chown(root / "bin/sh", 12, 34)
    os.chmod(root / "bin/sh", 0o6755)
    os.chmod(root / "proc", 0o1777)
    with open(root / "sparse", "wb") as sparse:
        sparse.truncate(3 << 20)
    os.setxattr(
        root / "bin/sh", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000")
    )


def listing(tar: bytes, *, without: tuple[str, ...] = ()) -> dict[str, tuple[Any, ...]]:
    """What a tar holds, by name: kind, mode, owner, seconds, content or target."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        for one in opened:
            name = one.name.removeprefix("./").rstrip("/")
            if name in {"", "."} or name.split("/")[0] in without or name in without:
                continue
            file = opened.extractfile(one) if one.isreg() or one.islnk() else None
            content = file.read() if file is not None else one.linkname
            kind = tarfile.REGTYPE if one.islnk() else one.type
            times = () if one.isdir() else (int(one.mtime),)
            found[name] = (kind, one.mode & 0o7777, one.uid, one.gid, *times, content)
    return found


# What docker itself puts into every container.
INIT = (".dockerenv", "dev", "etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/mtab", "proc", "sys")


def exported(docker: Docker, image: str) -> dict[str, tuple[Any, ...]]:
    """The tree of an image as docker unpacks it."""
    container = docker.run("create", image, "/nothing")
    try:
        return listing(docker.bytes("export", container), without=INIT)
    finally:
        docker.run("rm", container)


def ours(cli: Cli, image: str) -> dict[str, tuple[Any, ...]]:
    out = io.BytesIO()
    layerstore.export(image, out, root=cli.root)
    return listing(out.getvalue(), without=INIT)


def image_id(cli: Cli, name: str) -> str:
    return str(layerstore.inspect(name, kind="image", root=cli.root)["Id"])


@pytest.mark.parametrize("form", ["docker", "oci"])
def test_docker_loads_what_we_save(docker: Docker, store: Cli, where: Path, form: str) -> None:
    if form == "oci" and docker.version < (25, 0):
        pytest.skip("docker before 25 reads no OCI archives")
    store.run("save", "--format", form, "-o", where / "a.tar", NAME, "base:1")
    said = docker.run("load", "-q", "-i", where / "a.tar")
    assert sorted(said.splitlines()) == ["Loaded image: base:1", f"Loaded image: {NAME}"]
    described = docker.inspect(NAME)
    assert described["Id"] == image_id(store, NAME)
    assert described["Config"]["Entrypoint"] == ["/bin/sh", "-c", "/go"]
    assert exported(docker, NAME) == ours(store, NAME)
    assert set(ours(store, NAME)) >= {"hard", "usr/lib/three", "last", "device", "name é \n x", "sparse"}
    passed_on = docker.bytes("save", NAME)
    docker.run("rmi", NAME, "base:1")
    docker.run("load", "-q", stdin=passed_on)
    assert docker.inspect(NAME)["Id"] == image_id(store, NAME)
    history = docker.bytes("history", "--format", "{{.Comment}}.", NAME).decode().splitlines()
    assert history == [".", "the second.", "Imported from -."]
    docker.run("rmi", NAME)


def test_we_load_what_docker_saves(docker: Docker, store: Cli, where: Path) -> None:
    """Also what docker itself committed: its whiteouts, its opaque directories."""
    store.run("save", "-o", where / "a.tar", "base:1")
    docker.run("load", "-q", "-i", where / "a.tar")
    container = docker.run("create", "base:1", "/nothing")
    new = tarball({"usr/lib/new": b"new", "etc/passwd": b"other\n", "deep": None, "deep/link": "../etc"})
    docker.run("cp", "-", f"{container}:/", stdin=new)
    docker.run("commit", "-m", "docker's", "-c", 'CMD ["x"]', container, "theirs:1")
    expected = exported(docker, "theirs:1")
    (where / "theirs.tar").write_bytes(docker.bytes("save", "theirs:1", "base:1"))
    other = Cli(where / "other")
    said = other.run("load", "-i", where / "theirs.tar")
    assert sorted(said.splitlines()) == ["Loaded image: base:1", "Loaded image: theirs:1"]
    assert image_id(other, "theirs:1") == docker.inspect("theirs:1")["Id"]
    assert ours(other, "theirs:1") == expected
    assert layerstore.fsck(root=other.root).problems == []
    docker.run("rm", container)
    docker.run("rmi", "theirs:1", "base:1")


@needs_registry
def test_docker_pushes_what_it_loaded(docker: Docker, store: Cli, where: Path) -> None:
    """It makes each layer's tar anew, and insists on the diffID it had."""
    store.run("save", "-o", where / "a.tar", NAME)
    docker.run("load", "-q", "-i", where / "a.tar")
    with docker_registry(where) as host:
        docker.run("tag", NAME, f"{host}/theirs:1")
        docker.run("push", f"{host}/theirs:1")
        docker.run("rmi", f"{host}/theirs:1", NAME)
        pulled = layerstore.pull(f"{host}/theirs:1", root=(other := Cli(where / "other")).root)
        assert pulled.image_id == image_id(store, NAME)
        assert ours(other, f"{host}/theirs:1") == ours(store, NAME)


@needs_registry
def test_through_a_registry(docker: Docker, store: Cli, where: Path) -> None:
    with docker_registry(where) as host:
        pushed = layerstore.push(NAME, f"{host}/team/app:2", root=store.root)
        said = docker.run("pull", f"{host}/team/app:2")
        assert f"Digest: {pushed.digest}" in said
        assert docker.inspect(f"{host}/team/app:2")["Id"] == image_id(store, NAME)
        assert exported(docker, f"{host}/team/app:2") == ours(store, NAME)
        docker.run("tag", f"{host}/team/app:2", f"{host}/theirs:1")
        assert "digest: sha256:" in docker.run("push", f"{host}/theirs:1")
        other = Cli(where / "other")
        pulled = layerstore.pull(f"{host}/theirs:1", root=other.root)
        assert pulled.image_id == image_id(store, NAME)
        assert ours(other, f"{host}/theirs:1") == ours(store, NAME)
        docker.run("rmi", f"{host}/theirs:1", f"{host}/team/app:2")


def test_docker_imports_what_we_export(docker: Docker, store: Cli) -> None:
    out = io.BytesIO()
    layerstore.export(NAME, out, root=store.root)
    docker.run("import", "-", "flat:1", stdin=out.getvalue())
    assert exported(docker, "flat:1") == ours(store, NAME)
    docker.run("rmi", "flat:1")


@needs_registry
@pytest.mark.parametrize("name", SCRIPTS)
def test_docker_still_says_so(docker: Docker, name: str) -> None:
    """What `test_dialogs` compares with, asked anew; only of the docker that was recorded."""
    if docker.version != (20, 10):
        pytest.skip("another docker says some of it in other words")
    assert ask_docker(docker, name) == recorded()[name]


def test_the_record_is_still_true(docker: Docker) -> None:
    """Some of what `test_instructions` compares with, asked anew; this docker may be another one."""
    docker.run("import", "-", "plain:1", stdin=tarball({"etc": None}))
    container = docker.run("create", "plain:1", "/c")
    chosen = [one for one in RECORD["commits"] if one["parent"] == "plain" and "sets" in one]
    for one in chosen[::12]:
        words = [word for line in one["changes"] for word in ("-c", line)]
        made = docker.run("commit", "--pause=false", *words, container)
        config = docker.inspect(made)["Config"]
        found = {key: config[key] for key in FIELDS if config.get(key)}
        expected = {**RECORD["parents"]["plain"], **one["sets"]}
        assert found == {key: value for key, value in expected.items() if value}
        docker.run("rmi", made)
    docker.run("rm", container)
    docker.run("rmi", "plain:1")


WALK = (
    "find / -xdev \\( -path /proc -o -path /sys -o -path /dev -o -path /etc/hosts -o -path /etc/hostname "
    "-o -path /etc/resolv.conf -o -path /.dockerenv -o -path /etc/mtab \\) -prune -o ! -type d -print "
    '| sort | while read -r f; do stat -c \'%n %a %u %g %s %h %Y\' "$f"; [ -p "$f" ] || md5sum < "$f"; done'
)


@pytest.mark.skipif(not Path("/bin/busybox").exists(), reason="needs busybox-static")
def test_docker_runs_what_we_commit(docker: Docker, where: Path) -> None:
    """A program in docker's container sees what the same program sees in our mount."""
    cli = Cli(where / "store")
    busybox = Path("/bin/busybox").read_bytes()
    tar = tarball({"bin": None, "bin/busybox": busybox, "bin/sh": "busybox", "old": b"old", "etc": None})
    layerstore.import_(io.BytesIO(tar), "bb:1", root=cli.root)
    layerstore.create("bb:1", name="w", root=cli.root)
    mounted = layerstore.mount("w", root=cli.root)
    try:
        (mounted / "bin/busybox").chmod(0o755)
        (mounted / "old").unlink()
        (mounted / "work").mkdir()
        (mounted / "work/new").write_text("new")
        os.chown(mounted / "work/new", 7, 8)
        os.link(mounted / "work/new", mounted / "work/again")
        os.mkfifo(mounted / "work/fifo")
        changes = ["WORKDIR /work", "USER 7:8", "ENV A=b", 'ENTRYPOINT ["/bin/busybox"]', 'CMD ["pwd"]']
        layerstore.commit("w", "bb:2", changes=changes, root=cli.root)
        command = ["chroot", str(mounted), "/bin/busybox", "sh", "-c", busy(WALK)]
        here = subprocess.run(command, capture_output=True, timeout=60, check=True).stdout.decode()
    finally:
        layerstore.umount("w", root=cli.root)
    cli.run("save", "-o", where / "a.tar", "bb:2")
    docker.run("load", "-q", "-i", where / "a.tar")
    run = ["run", "--rm", "--network", "none"]
    probe = docker.call(*run, "bb:2")
    if probe.returncode == 125:
        pytest.skip(f"docker starts no containers here: {probe.stderr.decode().splitlines()[0]}")
    assert probe.stdout == b"/work\n"
    assert docker.run(*run, "bb:2", "sh", "-c", "id -u; id -g; echo $A") == "7\n8\nb"
    there = docker.run(*run, "--user", "0:0", "bb:2", "sh", "-c", busy(WALK))
    assert there.splitlines() == here.splitlines()
    assert "/work/new 644 7 8 3 2" in there
    docker.run("rmi", "bb:2")


def busy(script: str) -> str:
    """A script whose programs are all busybox's."""
    names = ("find", "sort", "stat", "md5sum")
    return "".join(f'{name}() {{ /bin/busybox {name} "$@"; }}; ' for name in names) + script
