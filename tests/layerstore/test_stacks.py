"""One layer over different others: every image shows its own, and what is the same lies in the store once."""

import io
import os
import signal
import stat
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import layerstore
from layerstore.digest import Digest, chain_ids
from tests.layerstore.archives import config_of, dumps, sha
from tests.layerstore.commands import Cli, contents
from tests.layerstore.layer.tars import END, directory, hard_link, member, pax

pytestmark = pytest.mark.root

# The same tar over both: a directory that is only implied, a hard link into the layer below.
TOP = member(b"app/x", b"x") + hard_link(b"hl", b"data") + END
A = directory(b"./") + directory(b"app/", 0o777, uid=7) + member(b"data", b"from A", mode=0o606, uid=5) + END
B = (
    directory(b"./")
    + pax({b"SCHILY.xattr.user.of": b"B"})
    + directory(b"app/", 0o711)
    + member(b"data", b"from B")
    + END
)
COMPLETE = directory(b"./") + directory(b"app/", 0o755) + member(b"app/y", b"y" * 100_000) + END
DEPENDENT = {
    "implied directory": member(b"app/x", b"x"),
    "hard link": hard_link(b"hl", b"data"),
    "opaque root": member(b".wh..wh..opq") + member(b"new"),
    "whiteout in what is implied": member(b"app/.wh.x"),
    "opaque mark in what is implied": member(b"app/.wh..wh..opq"),
    "through what may be a symlink": member(b"app/sub/x"),
}
INDEPENDENT = {
    "complete": directory(b"app/") + member(b"app/x") + hard_link(b"hl", b"app/x"),
    "whiteouts": member(b".wh.app") + directory(b"d/") + member(b"d/.wh.x") + member(b"d/.wh..wh..opq"),
    "implied in what is hidden": directory(b"d/") + member(b"d/.wh..wh..opq") + member(b"d/e/x"),
    "through its own symlink": directory(b"d/") + member(b"l", kind=b"2", link=b"d") + member(b"l/x"),
}


def archive(name: str, *layers: bytes) -> bytes:
    """What ``docker save`` writes."""
    config = config_of(*layers)
    names = [f"{number}/layer.tar" for number in range(len(layers))]
    manifest = dumps([{"Config": f"{sha(config)}.json", "RepoTags": [name], "Layers": names}])
    files = {
        f"{sha(config)}.json": config,
        "manifest.json": manifest,
        **dict(zip(names, layers, strict=True)),
    }
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path, data in files.items():
            info = tarfile.TarInfo(path)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def exported(cli: Cli, name: str) -> dict[str, tuple[int, int, bytes]]:
    """Mode, owner and content of everything in an image or a workspace."""
    done = cli.call("export", name)
    assert done.returncode == 0, done.stderr.decode()
    found = {}
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        for info in tar:
            file = tar.extractfile(info) if info.isreg() else None
            content = file.read() if file else info.linkname.encode()
            found[info.name] = (info.mode, info.uid, content)
    return found


def own(*layers: bytes) -> str:
    """The name of the topmost in this stack alone."""
    *_, (_, chain_id) = chain_ids(Digest.of(layer) for layer in layers)
    return chain_id.hex


def in_layers(cli: Cli) -> set[str]:
    return set(os.listdir(cli.root / "layers"))


@pytest.fixture
def both(cli: Cli) -> Cli:
    """The command line on a store with the images ``a:1`` and ``b:1``."""
    cli.run("load", stdin=archive("a:1", A, TOP))
    cli.run("load", stdin=archive("b:1", B, TOP))
    return cli


def check_both(cli: Cli, suffix: str = "1") -> None:
    a, b = exported(cli, f"a:{suffix}"), exported(cli, f"b:{suffix}")
    assert (a["app"][:2], a["data"]) == ((0o777, 7), (0o606, 5, b"from A"))
    assert (b["app"][:2], b["data"]) == ((0o711, 0), (0o644, 0, b"from B"))
    assert (a["app/x"], b["app/x"]) == ((0o644, 0, b"x"),) * 2


@pytest.mark.parametrize("first", ["a:1", "b:1"])
def test_no_image_shows_anothers(both: Cli, first: str) -> None:
    both.run("export", first, "-o", both.root.parent / "first.tar")
    check_both(both)
    assert in_layers(both) == {sha(A), sha(B), own(A, TOP), own(B, TOP)}
    assert layerstore.fsck(root=both.root).problems == []
    both.run("create", "--name", "w", "b:1")
    assert exported(both, "w")["data"] == (0o644, 0, b"from B")
    assert os.listxattr(both.root / "layers" / own(A, TOP) / "app") == []
    assert os.getxattr(both.root / "layers" / own(B, TOP) / "app", "user.of") == b"B"


def test_a_mount_shows_its_own(both: Cli, where: Path) -> None:
    (where / "mnt").mkdir()
    for name, data in (("a:1", b"from A"), ("b:1", b"from B")):
        both.run("mount", "--read-only", name, where / "mnt")
        try:
            assert (where / "mnt/hl").read_bytes() == data
        finally:
            both.run("umount", where / "mnt")


def test_what_is_the_same_lies_there_once(cli: Cli) -> None:
    cli.run("load", stdin=archive("a:1", A, COMPLETE))
    cli.run("load", stdin=archive("b:1", B, COMPLETE))
    assert exported(cli, "a:1")["app"] == exported(cli, "b:1")["app"] == (0o755, 0, b"")
    assert in_layers(cli) == {sha(A), sha(B), sha(COMPLETE)}


@pytest.mark.parametrize("case", [*DEPENDENT, *INDEPENDENT])
def test_what_depends_on_the_layers_below(cli: Cli, case: str) -> None:
    tar = (DEPENDENT | INDEPENDENT)[case] + END
    cli.run("load", stdin=archive("a:1", A, tar))
    cli.run("load", stdin=archive("alone:1", tar)) if case in INDEPENDENT else None
    exported(cli, "a:1")
    assert in_layers(cli) == {sha(A), own(A, tar) if case in DEPENDENT else sha(tar)}
    assert layerstore.fsck(root=cli.root).problems == []


def test_a_layer_at_the_bottom_and_over_another(cli: Cli) -> None:
    """Over nothing the chainID is the diffID; that must not be taken for a layer that is always the same."""
    tar = member(b"app/x", b"x") + END
    cli.run("import", "-", "bottom:1", stdin=tar)
    cli.run("load", stdin=archive("a:1", A, tar))
    cli.run("load", stdin=archive("twice:1", A, tar, B, tar))
    assert exported(cli, "bottom:1")["app"][:2] == (0o755, 0)
    assert exported(cli, "a:1")["app"][:2] == (0o777, 7)
    assert exported(cli, "twice:1")["app"][:2] == (0o711, 0)
    assert in_layers(cli) == {sha(tar) + ".base", sha(A), sha(B), own(A, tar), own(A, tar, B, tar)}
    assert layerstore.fsck(root=cli.root).problems == []


def test_both_kinds_are_counted_and_freed(both: Cli) -> None:
    both.run("load", stdin=archive("c:1", A, COMPLETE))
    for name in ("a:1", "b:1", "c:1"):
        exported(both, name)
    (layers,) = (line for line in both.objects("df") if line["Type"] == "Layers")
    assert (layers["TotalCount"], layers["Active"]) == (5, 0)
    details = layerstore.df_details(root=both.root)
    top = Digest.of(TOP)
    assert sorted((one.diff_id == top, one.images) for one in details.layers) == [
        *[(False, 1)] * 2,
        (False, 2),
        *[(True, 1)] * 2,
    ]
    lines = both.run("rmi", "b:1").splitlines()
    assert f"Deleted: sha256:{own(B, TOP)}" in lines
    assert in_layers(both) == {sha(A), own(A, TOP), sha(COMPLETE)}
    check = layerstore.fsck(root=both.root)
    assert (check.problems, check.layers) == ([], 3)
    layerstore.prune(root=both.root, all_images=True)
    assert in_layers(both) == set()
    assert not [path for path in contents(both.root) if "blobs/sha256/" in path]


def test_fsck_judges_each_in_its_own_stack(both: Cli) -> None:
    check_both(both)
    assert layerstore.fsck(root=both.root, repair=True).problems == []
    assert len(in_layers(both)) == 4
    bad = both.root / "layers" / own(B, TOP)
    (bad / "app").chmod(0o777)
    (problem,) = layerstore.fsck(root=both.root, repair=True).problems
    assert problem.repaired
    assert "/app differs from its blob" in problem.what
    assert not bad.exists()
    check_both(both)
    assert layerstore.fsck(root=both.root).problems == []


def test_fsck_finds_what_cannot_be_shared(both: Cli) -> None:
    """As another program, or an older one, may have put it there."""
    exported(both, "a:1")
    os.rename(both.root / "layers" / own(A, TOP), both.root / "layers" / sha(TOP))
    (problem,) = layerstore.fsck(root=both.root, repair=True).problems
    assert problem.repaired
    assert "images must not share it" in problem.what
    check_both(both)


def test_a_damaged_layer_is_not_held_against_those_above(both: Cli) -> None:
    """They cannot be judged over it; once it is unpacked again, they can."""
    check_both(both)
    (both.root / "layers" / sha(A) / "data").write_bytes(b"changed")
    notes: list[str] = []
    (problem,) = layerstore.fsck(root=both.root, repair=True, note=notes.append).problems
    assert sha(A) in problem.what
    assert [note for note in notes if sha(TOP) in note and note.startswith("not checked")]
    assert own(A, TOP) in in_layers(both)
    check_both(both)
    assert layerstore.fsck(root=both.root).problems == []


def test_a_committed_layer_is_shared(both: Cli) -> None:
    """Ours name every directory; so moved or unpacked, they are the same over any layers."""
    both.run("create", "--name", "w", "a:1")
    (both.root / "workspaces/w/upper/app").mkdir(0o777)
    (both.root / "workspaces/w/upper/app/new").write_text("new")
    both.run("commit", "--chain", "w", "c:1")
    before = in_layers(both)
    new = before - {sha(A), own(A, TOP)}
    assert len(new) == 1
    for name in new:
        subprocess.run(["rm", "-r", both.root / "layers" / name], check=True)
    assert exported(both, "c:1")["app/new"][2] == b"new"
    assert in_layers(both) == before
    assert layerstore.fsck(root=both.root).problems == []


def test_many_at_once(both: Cli) -> None:
    started = [
        both.start("export", name, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for name in ("a:1", "b:1") * 4
    ]
    for number, process in enumerate(started):
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err.decode()
        with tarfile.open(fileobj=io.BytesIO(out)) as tar:
            file = tar.extractfile("data")
            assert file is not None
            assert file.read() == (b"from B" if number % 2 else b"from A")
    assert len(in_layers(both)) == 4


def made_before(cli: Cli, *, of: str, base: bytes) -> Path:
    """Unpack an image and make the store one of before: all layers under their diffIDs. The topmost's
    place.
    """
    exported(cli, of)
    place = cli.root / "layers" / sha(TOP)
    os.rename(cli.root / "layers" / own(base, TOP), place)
    (cli.root / "layers").chmod(0o700)
    return place


def test_an_old_store_is_believed_where_it_is_right(both: Cli) -> None:
    """What proves to be an image's own is taken as it is: workspaces know its inodes."""
    inode = made_before(both, of="a:1", base=A).stat().st_ino
    base_inode = (both.root / "layers" / sha(A)).stat().st_ino
    assert layerstore.fsck(root=both.root).problems == []
    assert in_layers(both) == {sha(A) + ".old", sha(TOP) + ".old"}
    check_both(both, "1")
    assert (both.root / "layers" / own(A, TOP)).stat().st_ino == inode
    assert (both.root / "layers" / sha(A)).stat().st_ino == base_inode
    assert in_layers(both) == {sha(A), sha(B), own(A, TOP), own(B, TOP)}
    assert layerstore.fsck(root=both.root).problems == []


def test_an_old_store_is_not_believed_where_it_is_wrong(both: Cli) -> None:
    made_before(both, of="a:1", base=A)
    assert exported(both, "b:1")["data"] == (0o644, 0, b"from B")
    assert sha(TOP) + ".old" in in_layers(both)  # a:1 may still need it
    both.run("prune", "-f")
    assert sha(TOP) + ".old" in in_layers(both)
    both.run("rmi", "a:1")
    assert in_layers(both) == {sha(B), own(B, TOP)}


def test_a_damaged_layer_of_an_old_store(both: Cli) -> None:
    place = made_before(both, of="a:1", base=A)
    (place / "app/x").write_bytes(b"?")
    (problem,) = layerstore.fsck(root=both.root).problems
    assert "/app/x differs from its blob" in problem.what
    check_both(both)
    assert layerstore.fsck(root=both.root).problems != []
    both.run("prune", "-f")
    assert layerstore.fsck(root=both.root).problems == []
    assert in_layers(both) == {sha(A), sha(B), own(A, TOP), own(B, TOP)}


def test_a_mounted_workspace_of_an_old_store_goes_on(both: Cli) -> None:
    """Whatever becomes of the layer it was mounted over: that is moved, found wrong, and not needed."""
    both.run("create", "--name", "w", "b:1")
    both.run("mount", "w")
    merged = both.root / "workspaces/w/merged"
    try:
        place = made_before(both, of="b:1", base=B)
        (place / "app/x").chmod(0o600)  # so what w was mounted over is not what b:1 is
        assert exported(both, "b:1")["app/x"][0] == 0o644
        both.run("prune", "-f")
        both.run("rmi", "a:1")
        assert stat.S_IMODE((merged / "app/x").stat().st_mode) == 0o600
        assert (merged / "hl").read_bytes() == b"from B"
        (merged / "app/x").write_bytes(b"changed")
        (merged / "data").rename(merged / "app/data")
        assert sorted(os.listdir(merged / "app")) == ["data", "x"]
        assert {line["Name"]: line["Status"] for line in both.objects("ps")}["w"].startswith("Mounted")
    finally:
        both.run("umount", "w")
    both.run("prune", "-f")
    assert in_layers(both) == {sha(B), own(B, TOP)}
    both.run("mount", "w")
    try:
        assert (merged / "app/x").read_bytes() == b"changed"
        assert (merged / "app/data").read_bytes() == b"from B"
    finally:
        both.run("umount", "w")
    both.run("commit", "w", "c:1")
    assert exported(both, "c:1")["app/x"][2] == b"changed"


# Two names of one file of the layer, in a directory that the layer only implies.
LINKED = (
    member(b"app/one", b"old" * 9) + hard_link(b"app/two", b"app/one") + hard_link(b"x", b"app/one") + END
)


@pytest.mark.parametrize("init", [[], ["--init"]], ids=["", "init"])
@pytest.mark.parametrize("known", [True, False], ids=["set aside", "gone"])
def test_hard_links_over_layers_that_were_unpacked_again(cli: Cli, known: bool, init: list[str]) -> None:
    """What only the index knew of goes into the upper, if the layers are there that it was an index of; with
    or without, the workspace can be mounted again.
    """
    cli.run("load", stdin=archive("l:1", A, LINKED))
    cli.run("create", *init, "--name", "w", "l:1")
    merged = cli.root / "workspaces/w/merged"
    cli.run("mount", "w")
    try:
        (merged / "app/one").write_bytes(b"new")
        (merged / "app/one").unlink()
        assert (merged / "app/two").read_bytes() == b"new"
        (merged / "app").rename(merged / "moved")
    finally:
        cli.run("umount", "w")
    layers = cli.root / "layers"
    if known:
        os.rename(layers / own(A, LINKED), layers / sha(LINKED))
        (layers / sha(LINKED) / "app/two").chmod(0o600)
        (cli.root / "layers").chmod(0o700)
    else:
        _clear(layers)
    for _ in range(2):
        cli.run("mount", "w")
        try:
            assert not (merged / "app").exists()
            assert not (merged / "moved/one").exists()
            assert (merged / "moved/two").read_bytes() == (b"new" if known else b"old" * 9)
            assert not known or (merged / "x").samefile(merged / "moved/two")
        finally:
            cli.run("umount", "w")
    cli.run("prune", "-f")
    assert layerstore.fsck(root=cli.root).problems == []


def _shows_both(cli: Cli) -> None:
    assert exported(cli, "b:1")["data"][2] == b"from B"
    assert exported(cli, "a:1")["data"][2] == b"from A"


@pytest.mark.slow
@pytest.mark.parametrize("old", [True, False])
def test_kills_at_any_moment(both: Cli, old: bool) -> None:
    """Neither while layers are unpacked nor while an old store is taken over is anything lost or mixed up."""
    command = both.command("export", "b:1", "-o", both.root.parent / "out.tar")
    start = time.monotonic()
    subprocess.run(command, check=True, timeout=60)
    usual = time.monotonic() - start
    for play in range(12):
        layerstore.prune(root=both.root)
        _clear(both.root / "layers")
        if old:
            made_before(both, of="a:1", base=A)
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        time.sleep(usual * (0.4 + play / 15))
        process.send_signal(signal.SIGKILL)
        process.wait()
        _shows_both(both)
        assert layerstore.fsck(root=both.root).problems == []
        assert not list((both.root / "layers").glob(".tmp-*"))
    check_both(both)


def _clear(layers: Path) -> None:
    for path in layers.iterdir():
        subprocess.run(["rm", "-r", path], check=True)


def test_setting_aside_what_is_set_aside_already(both: Cli) -> None:
    """The mark was lost, or an older program wrote here meanwhile."""
    place = made_before(both, of="a:1", base=A)
    both.run("images")
    place.mkdir()
    (both.root / "layers").chmod(0o700)
    assert layerstore.fsck(root=both.root).problems == []
    assert in_layers(both) == {sha(A) + ".old", sha(TOP) + ".old", sha(TOP) + ".old.1"}
    check_both(both)
    both.run("prune", "-f")
    assert in_layers(both) == {sha(A), sha(B), own(A, TOP), own(B, TOP)}


@pytest.mark.parametrize(
    "stop",
    [
        lambda root: (root / "layers" / sha(A)).rename(root / "layers" / (sha(A) + ".old")),
        lambda root: [path.rename(f"{path}.old") for path in (root / "layers").iterdir()],
    ],
    ids=["half", "all, without the mark"],
)
def test_killed_while_setting_aside(both: Cli, stop: Callable[[Path], object]) -> None:
    made_before(both, of="a:1", base=A)
    stop(both.root)
    check_both(both)
    assert in_layers(both) == {sha(A), sha(B), own(A, TOP), own(B, TOP)}
