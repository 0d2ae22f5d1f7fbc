"""Images that want something to be run or read on the host: nothing of them is code, a command or a path."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import layerstore
from tests.layerstore.archives import config_of, dumps, layout, pack, sha
from tests.layerstore.commands import ROOTFS, Cli, tarball

pytestmark = pytest.mark.root

# Everything an image can say that a careless tool hands to a shell, a loader or an opener.
COMMAND = "$(touch {canary}); `touch {canary}`; | touch {canary} #"
PROGRAM = b"#!/bin/sh\ntouch {canary}\n"
TEMPTING = ("bin/sh", "usr/bin/env", "usr/bin/tar", "sbin/mount", "usr/bin/newuidmap", "bin/fusermount3")
LIBRARIES = (
    "lib/x86_64-linux-gnu/libnss_files.so.2",
    "usr/lib/libc.so.6",
    "sitecustomize.py",
    "site.py",
    "json.py",
)


def tempting_image(canary: Path) -> bytes:
    """Programs and libraries under names that a tool may look for, labels and commands for a shell."""
    program = PROGRAM.replace(b"{canary}", os.fsencode(canary))
    files: dict[str, bytes | str | None] = {**ROOTFS, **dict.fromkeys((*TEMPTING, *LIBRARIES), program)}
    files.pop("lib")
    layer = tarball(files)
    command = COMMAND.replace("{canary}", str(canary))
    config = json.loads(config_of(layer))
    config["author"] = command
    config["config"] = {
        "Cmd": ["/bin/sh", "-c", command],
        "Entrypoint": [command],
        "Env": [f"LD_PRELOAD={canary}", f"PYTHONPATH=/{command}", f"PATH={command}"],
        "Labels": {"run": command, command: "x", "io.containerd.image.name": command},
        "User": command,
        "WorkingDir": command,
        "Healthcheck": {"Test": ["CMD-SHELL", command]},
    }
    config["history"] = [{"created_by": command, "author": command}]
    return pack(_files(layer, dumps(config)))


def _files(layer: bytes, config: bytes) -> dict[str, bytes]:
    """An oci-archive around another configuration."""
    described = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": f"sha256:{sha(config)}"}
    files = layout(name="evil:1", layer=layer, manifest={"config": {**described, "size": len(config)}})
    return {**files, f"blobs/sha256/{sha(config)}": config}


def test_nothing_is_run_or_loaded(where: Path) -> None:
    """CVE-2019-14271 (docker cp loaded the container's libraries), CVE-2026-53488 (a label was run): in a
    process that records each program it starts, but its own daemon, and each library and module it loads.
    """
    canary = where / "canary"
    archive = where / "evil.tar"
    archive.write_bytes(tempting_image(canary))
    program = """
        import io, os, sys
        import layerstore
        from pathlib import Path
        where = Path(sys.argv[1])
        root = where / "store"
        seen, daemon = [], [sys.executable, "-P", "-m", "overlayfs_py"]
        layerstore.load(str(where / "evil.tar"), root=root)
        def watch(event, arguments):
            if event == "subprocess.Popen" and arguments[1][:4] == daemon:
                return
            if event in ("os.exec", "os.posix_spawn", "os.system", "subprocess.Popen", "os.forkpty"):
                seen.append((event, repr(arguments)))
            elif event in ("ctypes.dlopen", "import", "exec") and str(where) in repr(arguments):
                seen.append((event, repr(arguments)))
        sys.addaudithook(watch)
        layerstore.load(str(where / "evil.tar"), root=root)
        layerstore.images(root=root)
        layerstore.history("evil:1", root=root)
        layerstore.inspect("evil:1", root=root)
        name = layerstore.create("evil:1", init=True, root=root)
        layerstore.inspect(name, root=root)
        layerstore.cp(f"{name}:/bin/sh", str(where / "sh"), root=root)
        layerstore.cp(f"{name}:/usr", str(where / "usr"), root=root)
        layerstore.cp(str(where / "sh"), f"{name}:/bin/new", root=root)
        layerstore.diff(name, root=root)
        layerstore.commit(name, "evil:2", root=root)
        layerstore.export(name, io.BytesIO(), root=root)
        layerstore.save(["evil:2"], io.BytesIO(), root=root)
        layerstore.fsck(root=root)
        layerstore.rm(name, root=root)
        print(seen)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(where)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, cwd=where)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"
    assert not canary.exists()


def test_mounting_runs_nothing_of_the_image(base: Cli, where: Path) -> None:
    """The daemon and the helpers are the host's, though the image has programs of the same names."""
    canary = where / "canary"
    base.run("load", stdin=tempting_image(canary))
    name = base.run("create", "--init", "evil:1")
    root = Path(base.run("mount", name))
    try:
        assert (root / "bin/sh").read_bytes().startswith(b"#!/bin/sh")
        base.run("commit", "--no-pause", name, "evil:2")
        base.run("cp", f"{name}:/sbin/mount", where / "mount")
    finally:
        base.run("umount", name)
    assert not canary.exists()


LINKS = {
    # What an image makes a symbolic link of -> where it leads; CANARY is a file or a directory of the host.
    "etc/passwd": "CANARY/f",
    "etc/hosts": "CANARY/f",
    "etc/hostname": "../../../../../../../../CANARY/f",
    "etc/resolv.conf": "CANARY/new",
    "etc/mtab": "CANARY/f",
    "proc": "CANARY",
    "sys": "/proc/self/root/CANARY",
    "dev": "CANARY",
}


@pytest.mark.parametrize("whole", [False, True], ids=["files", "etc itself"])
def test_links_to_the_host_are_not_followed(base: Cli, where: Path, whole: bool) -> None:
    """CVE-2024-9676, CVE-2026-53489: what tools read or write in a root by a well-known name."""
    host = where / "host"
    host.mkdir()
    (host / "f").write_bytes(b"secret of the host")
    links = {"etc": "CANARY"} if whole else LINKS
    files: dict[str, bytes | str | None] = {
        key: value for key, value in ROOTFS.items() if not key.startswith("etc/")
    }
    if whole:
        del files["etc"]
    del files["proc"]
    files |= {name: target.replace("CANARY", str(host)) for name, target in links.items()}
    before = [(path, path.stat().st_mtime_ns) for path in (host, host / "f")]
    base.run("import", "-c", "USER passwd", "-", "links:1", stdin=tarball(files))
    done = base.call("create", "--init", "--name", "w", "links:1")
    if done.returncode == 0:
        root = Path(base.run("mount", "w"))
        try:
            (root / "written").write_bytes(b"x")
            base.run("commit", "--no-pause", "w", "links:2")
            base.call("cp", "-L", "w:/etc/passwd", where / "copied")
        finally:
            base.run("umount", "w")
        base.run("save", "-o", where / "saved.tar", "links:2")
        assert b"secret of the host" not in (where / "saved.tar").read_bytes()
        assert not (where / "copied").exists() or b"secret" not in (where / "copied").read_bytes()
    else:
        assert done.stderr.decode().count("\n") == 1
    assert [(path, path.stat().st_mtime_ns) for path in (host, host / "f")] == before
    assert os.listdir(host) == ["f"]


@pytest.mark.parametrize("target", ["/proc", "/proc/1", "/sys/fs", "/proc/../sys", "/dev/../proc/self"])
def test_nothing_is_mounted_over_proc_or_sys(base: Cli, where: Path, target: str) -> None:
    """CVE-2019-16884, CVE-2025-52881."""
    (where / "host").mkdir()
    assert "mount target" in base.fail("create", "-v", f"{where}/host:{target}", "base:1")


def test_own_files_are_opened_without_following_links(base: Cli, where: Path) -> None:
    """CVE-2026-53489: a record or a document of the store that is a link to somebody's file is not read."""
    name = base.run("create", "base:1")
    secret = where / "secret"
    for path, verb in (
        (base.root / "workspaces" / name / "workspace.json", ("inspect", name)),
        (base.root / "oci/oci-layout", ("images",)),
        (base.root / "oci/index.json", ("images",)),
    ):
        kept = path.read_bytes()
        secret.write_bytes(kept)
        path.unlink()
        path.symlink_to(secret)
        assert base.call(*verb).returncode == 1, path
        path.unlink()
        path.write_bytes(kept)
        assert base.call(*verb).returncode == 0, path


def test_a_name_moves_in_one_step(base: Cli) -> None:
    """CVE-2026-50195: whoever reads a tag while it is moved finds the old image or the new one, whole."""
    base.run("import", "-", "other:1", stdin=tarball({"only": b"this"}))
    ids = {base.run("images", "-q", "--no-trunc", name) for name in ("base:1", "other:1")}
    program = """
        import sys, layerstore
        for _ in range(60):
            layerstore.tag("base:1", "moving:1", root=sys.argv[1])
            layerstore.tag("other:1", "moving:1", root=sys.argv[1])
    """
    base.run("tag", "base:1", "moving:1")
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(program), str(base.root)]) as mover:
        while mover.poll() is None:
            found = layerstore.inspect("moving:1", root=base.root)
            assert found["Id"] in ids
            assert len(found["RootFS"]["Layers"]) == 1
    assert mover.returncode == 0
