"""Images of many entries go through every verb with right results; FILES in the environment says how many."""

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.layerstore.commands import Cli, tarball

FILES = int(os.environ.get("FILES", "0"))
_DIRECTORIES = 40

pytestmark = [pytest.mark.root, pytest.mark.fuse]

Tree = dict[str, bytes | str | None]  # as `tarball` takes it


def _run(cli: Cli, *words: object, stdin: bytes = b"") -> bytes:
    """What the command printed, however long it took."""
    done = subprocess.run(cli.command(*words), input=stdin, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def _image(count: int) -> Tree:
    """Files, and a symbolic link for each tenth of them, in some directories."""
    tree: Tree = {f"d{number:02d}": None for number in range(_DIRECTORIES)}
    for number in range(count):
        directory, name = f"d{number % _DIRECTORIES:02d}", f"{number:06d}"
        tree[f"{directory}/{name}"] = name if number % 10 == 5 else name.encode()
    return tree


def _change(merged: Path, tree: Tree) -> tuple[Tree, list[str]]:
    """Change many of each kind, below `merged` too: what is there then, and what `diff` has to say."""
    after, said = dict(tree), set[str]()
    for name, content in tree.items():
        if content is None:
            continue
        path, directory = merged / name, name.partition("/")[0]
        if directory == "d00":
            del after[name]  # with its directory
            continue
        match int(name[-6:]) % 10:
            case 1:
                path.unlink()
                del after[name]
                said.add(f"D /{name}")
            case 2:
                path.write_bytes(b"changed")
                after[name] = b"changed"
                said.add(f"C /{name}")
            case 3:
                path.rename(f"{path}.new")
                after[f"{name}.new"] = after.pop(name)
                said |= {f"D /{name}", f"A /{name}.new"}
            case _:
                continue
        said.add(f"C /{directory}")
    subprocess.run(["rm", "-r", merged / "d00"], check=True)
    del after["d00"]
    said.add("D /d00")
    return after, sorted(said)


def _look(merged: Path) -> Tree:
    """What a mount shows."""
    found: Tree = {}
    for directory, directories, names in os.walk(merged):
        for name in [*directories, *names]:
            path = Path(directory, name)
            key = str(path.relative_to(merged))
            found[key] = (
                os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
            )
    return found


def _read(archive: bytes) -> Tree:
    """What a tar holds."""
    found: Tree = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isreg() else None
            found[member.name] = content.read() if content else member.linkname if member.issym() else None
    found.pop(".", None)
    return found


def _through_every_verb(cli: Cli, count: int) -> None:
    tree = _image(count)
    _run(cli, "import", "-", "big:1", stdin=tarball(tree))
    _run(cli, "create", "--name", "w", "big:1")
    merged = Path(_run(cli, "mount", "w").decode().strip())
    assert _look(merged) == tree
    after, said = _change(merged, tree)
    assert _look(merged) == after
    _run(cli, "umount", "w")
    assert sorted(_run(cli, "diff", "w").decode().splitlines()) == said
    _run(cli, "commit", "w", "big:2")
    assert sorted(_run(cli, "diff", "big:1", "big:2").decode().splitlines()) == said
    assert _read(_run(cli, "export", "w")) == _read(_run(cli, "export", "big:2")) == after
    _run(cli, "fsck")
    _run(cli, "rm", "w")
    archive = cli.root.parent / "archive"
    _run(cli, "save", "-o", archive, "big:2")
    other = Cli(cli.root.parent / "other")
    _run(other, "load", "-i", archive)
    _run(other, "create", "--name", "again", "big:2")
    merged = Path(_run(other, "mount", "again").decode().strip())
    assert _look(merged) == after
    _run(other, "umount", "again")
    _run(other, "fsck")


@pytest.mark.slow
def test_some(cli: Cli) -> None:
    _through_every_verb(cli, 1000)


@pytest.mark.fuzz
@pytest.mark.timeout(0)
@pytest.mark.skipif(not FILES, reason="FILES is not set")
def test_as_many_as_asked(cli: Cli) -> None:
    _through_every_verb(cli, FILES)
