"""Many processes at once, and processes that are killed."""

import json
import os
import random
import signal
import subprocess
import time

import pytest

from tests.layerstore.commands import ROOTFS, Cli, contents, tarball
from tests.waiting import wait_until


def finish(processes: "list[subprocess.Popen[bytes]]") -> list[str]:
    outputs = []
    for process in processes:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err.decode()
        outputs.append(out.decode().strip())
    return outputs


def pipes() -> dict[str, int]:
    return {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}


def check_whole(cli: Cli) -> None:
    """Every blob is what its name says, every image complete, and nothing temporary is left."""
    cli.make_store()
    assert not list(cli.root.rglob(".tmp-*"))
    done = cli.call("images", "-q")
    assert (done.returncode, done.stderr) == (0, b"")
    for blob in (cli.root / "oci/blobs/sha256").iterdir():
        out = subprocess.run(["sha256sum", blob], capture_output=True, check=True, timeout=30).stdout
        assert out.split()[0].decode() == blob.name


def test_tags_at_once(base: Cli) -> None:
    finish([base.start("tag", "base:1", f"t{number}:x", **pipes()) for number in range(12)])
    assert len(base.objects("images")) == 13
    assert len(json.loads((base.root / "oci/index.json").read_text())["manifests"]) == 13


def test_same_import_at_once(cli: Cli) -> None:
    tar = cli.root.parent / "t.tar"
    tar.write_bytes(tarball(ROOTFS))
    ids = finish([cli.start("import", tar, f"name:{number}", **pipes()) for number in range(5)])
    assert len(cli.objects("images")) == 5
    assert len(list((cli.root / "layers").iterdir())) == 1
    assert len(ids) == 5
    check_whole(cli)


def test_commits_at_once(base: Cli) -> None:
    for number in range(4):
        base.run("create", "--name", f"w{number}", "base:1")
        (base.root / f"workspaces/w{number}/upper/f").write_text(str(number))
    # Two commits of each, all under the same name: each is an image, one has the name at the end.
    names = [f"w{number}" for number in range(4)] * 2
    ids = finish([base.start("commit", name, "out:1", **pipes()) for name in names])
    listed = base.objects("images")
    assert len(set(ids)) == len(listed) - 1
    assert [line["Repository"] for line in listed].count("out") == 1
    check_whole(base)


def test_one_layer_is_unpacked_once(base: Cli) -> None:
    for layer in (base.root / "layers").iterdir():
        subprocess.run(["rm", "-r", layer], check=True)
    finish([base.start("create", "base:1", **pipes()) for _ in range(5)])
    assert len(list((base.root / "layers").iterdir())) == 1
    assert len(base.objects("ps")) == 5


def test_same_name_at_once(base: Cli) -> None:
    processes = [base.start("create", "--name", "w", "base:1", **pipes()) for _ in range(4)]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert sorted(process.returncode for process in processes) == [0, 1, 1, 1]
    assert sum(b"already exists" in err for _, err in outputs) == 3
    assert len(base.objects("ps")) == 1


def test_removal_while_others_write(base: Cli) -> None:
    """rmi never takes a blob that another process is about to refer to."""
    tar = base.root.parent / "t.tar"
    tar.write_bytes(tarball(ROOTFS))
    for number in range(4):
        writers = [base.start("import", tar, f"new:{number}{n}", **pipes()) for n in range(3)]
        base.run("tag", "base:1", "base:gone")
        base.run("rmi", "base:1")
        base.run("rmi", "base:gone")
        finish(writers)
        base.run("import", tar, "base:1")
        check_whole(base)


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["import", "commit", "create"])
def test_killed_at_any_moment(base: Cli, verb: str) -> None:
    """kill -9: the store is as before or has the whole result; the next command clears the rest."""
    random.seed(verb)
    big = {f"f{number}": os.urandom(20_000) for number in range(200)}
    (base.root.parent / "big.tar").write_bytes(tarball(big))
    base.run("create", "--name", "w", "base:1")
    for name, data in big.items():
        (base.root / "workspaces/w/upper" / name).write_bytes(data)
    before = contents(base.root)
    began = time.monotonic()
    words = {
        "import": ("import", base.root.parent / "big.tar", "new:1"),
        "commit": ("commit", "w", "new:1"),
        "create": ("create", "--name", "new", "base:1"),
    }[verb]
    base.run(*words)
    whole = time.monotonic() - began
    undo = {"create": ("rm", "new")}.get(verb, ("rmi", "new:1"))
    base.run(*undo)
    if verb == "create":
        for layer in (base.root / "layers").iterdir():
            subprocess.run(["rm", "-r", layer], check=True)
        before = contents(base.root)
    for _ in range(8):
        process = base.start(*words, **pipes())
        time.sleep(random.uniform(0.05, whole))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)
        check_whole(base)
        done = base.call(*undo)
        if done.returncode == 0:
            continue
        # What lost its way to a name is swept with the next removal.
        base.run("import", "-", "sweep:1", stdin=tarball({"x": os.urandom(8)}))
        base.run("rmi", "sweep:1")
    after = contents(base.root)
    if verb == "create":
        after = [path for path in after if not path.startswith("layers/")]
    assert after == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop(base: Cli, number: int) -> None:
    """A signal cleans up on the way out, also while a pipe has nothing to read."""
    process = base.start("import", "-", "x", **{**pipes(), "stdin": subprocess.PIPE})
    assert process.stdin is not None
    process.stdin.write(tarball({"f": b"x" * 100_000})[:60_000])
    process.stdin.flush()
    wait_until(lambda: list(base.root.rglob(".tmp-*")))
    process.send_signal(number)
    try:
        assert process.wait(20) == 128 + number
    finally:
        process.kill()
        process.communicate()
    assert not list(base.root.rglob(".tmp-*"))
