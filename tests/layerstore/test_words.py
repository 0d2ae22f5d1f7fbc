"""Words that are not UTF-8, paths of any bytes, and locales that know nothing: never a failure halfway."""

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

import layerstore
from layerstore.errors import LayerstoreError
from layerstore.model import HostPath
from tests.layerstore.commands import PROGRAM, ROOTFS, Cli, contents, tarball
from tests.layerstore.transport.proxy import serving

BYTES = os.fsdecode(b"x\xff")
PATH = os.fsdecode(b"n\xff\nl :,='\"\\d\x1b[2J")


@pytest.fixture
def work(base: Cli) -> Iterator[Cli]:
    base.run("create", "--name", "work", "base:1")
    yield base
    base.call("umount", "-f", "work")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["commit", "-m", BYTES, "work"], "the message is not UTF-8 text: x\\xff"),
        (["commit", "-a", BYTES, "work"], "the author is not UTF-8 text: x\\xff"),
        (["commit", "-c", f"ENV A={BYTES}", "work"], "-c is not UTF-8 text: ENV A=x\\xff"),
        (["commit", "-c", f"LABEL {BYTES}=1", "work"], "-c is not UTF-8 text: LABEL x\\xff=1"),
        (["commit", "-c", 'CMD ["\\ud800"]', "work"], "a string of the JSON form is not UTF-8 text: \\ud800"),
        (["commit", "work", BYTES], "invalid reference"),
        (["import", "-m", BYTES, "-"], "the message is not UTF-8 text: x\\xff"),
        (["import", "--platform", BYTES, "-"], "not a platform"),
        (["import", f"http://localhost:1/{BYTES}"], "the URL is not UTF-8 text"),
        (["tag", "base:1", BYTES], "invalid reference"),
        (["create", "--name", BYTES, "base:1"], "invalid name"),
        (["create", "--platform", BYTES, "base:1"], "not a platform"),
        (["login", "-u", BYTES, "--password-stdin", "localhost:1"], "the user name is not UTF-8 text"),
        (["rm", BYTES], "no such workspace: x\\xff"),
        (["history", BYTES], "invalid reference"),
    ],
)
def test_text_that_is_none(work: Cli, words: Sequence[str], says: str) -> None:
    """One line before any work is done."""
    before = contents(work.root)
    assert work.fail(*words, stdin=tarball(ROOTFS)).startswith(says)
    assert contents(work.root) == before


def test_text_in_a_locale_that_cannot_read_it(work: Cli) -> None:
    """UTF-8 is taken for what it is, and printed as it is."""
    cafe = "café 漢"
    for env in (
        {"LC_ALL": "C"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "POSIX"},
        {"LANG": "xx_YY", "LC_ALL": ""},
        {"PYTHONIOENCODING": "ascii"},
    ):
        work.run("commit", "-m", cafe, "-a", cafe, "-c", f"ENV X='{cafe}'", "work", "next", env=env)
        assert work.objects("history", "next")[0]["Comment"] == cafe
        for words in (
            ["history", "--no-trunc", "next"],
            ["inspect", "next"],
            ["history", "--format", "json"],
        ):
            done = work.call(*words, *(["next"] if words[-1] == "json" else []), env=env)
            assert cafe in done.stdout.decode(), (env, words, done.stderr)
        assert work.fail("inspect", "-f", f"{{{{.{cafe}", "next", env=env)


def test_json_in_a_stream_that_is_not_utf8(work: Cli) -> None:
    work.run("commit", "-m", "café \U0001f600", "work", "next")
    env = {"PYTHONIOENCODING": "latin-1"}
    shown = work.call("history", "--format", "json", "next", env=env).stdout
    assert json.loads(shown.decode("ascii").splitlines()[0])["Comment"] == "café \U0001f600"


@pytest.mark.fuse
@pytest.mark.parametrize("env", [{}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}])
def test_a_store_below_any_path(where: Path, env: dict[str, str]) -> None:
    """Mounts, binds, archives, rotation, upkeep: under a path with every sort of byte."""
    place = where / PATH
    for name in ("mnt,:", os.fsdecode(b"src\xfe")):
        (place / name).mkdir(parents=True)
    source = where / os.fsdecode(b"bound\xfe")
    source.mkdir()
    cli = Cli(place / "st:o,re")

    def run(*words: object) -> str:
        done = cli.call(*words, env=env)
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout.decode(errors="surrogateescape").rstrip("\n")

    cli.run("import", "-", "base:1", stdin=tarball(ROOTFS))
    run("create", "--name", "work", "-v", f"{source}:{os.fsdecode(b'/d')}{PATH[:2]}", "base:1")
    mountpoint = run("mount", "work")
    assert mountpoint == str(cli.root / "workspaces/work/merged")
    try:
        Path(mountpoint, "new").write_text("x")
        shown = json.loads(run("inspect", "work"))[0]
        assert (shown["MountPoint"], shown["Mounts"][0]["Source"]) == (mountpoint, str(source))
        assert json.loads(run("ps", "--format", "json"))["Mount"] == mountpoint
        assert json.loads(run("inspect", "-f", "{{json .MountPoint}}", "work")) == mountpoint
        assert "A /new" in run("diff", "work")
        run("cp", "work:/new", place / "copy")
        run("commit", "--chain", "work", "next:1")
    finally:
        run("umount", "work")
    run("mount", "--read-only", "next:1", place / "mnt,:")
    assert (place / "mnt,:/new").read_text() == "x"
    run("umount", place / "mnt,:")
    run("save", "-o", place / "a.tar", "next:1")
    run("load", "-i", place / "a.tar")
    run("export", "-o", place / "e.tar", "work")
    run("prune", "-f")
    run("df", "-v")
    assert run("fsck").endswith("no problems")
    run("rm", "work")


def test_paths_in_documents() -> None:
    for path in ("/plain", "/café", PATH, os.fsdecode(bytes(range(1, 256)))):
        text = HostPath(path).text
        assert "\udcff" not in text
        assert text.encode().decode() == text
        assert HostPath.parse(text) == path


def test_a_proxy_that_is_no_name(cli: Cli) -> None:
    said = cli.call("pull", "registry.invalid/x:1", env={"https_proxy": f"http://{BYTES}"}).stderr.decode()
    assert said.splitlines()[-1].startswith("layerstore: cannot use the proxy of the environment: ")


def test_a_url_as_people_type_it(cli: Cli, where: Path) -> None:
    """A space and letters of any script: they are escaped on the way, as Go's client does it."""
    (where / "files").mkdir()
    (where / "files/é x.tar").write_bytes(tarball(ROOTFS))

    class Files(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(where / "files"))

        def log_message(self, format: str, *words: object) -> None:
            pass

    with serving(lambda: Files) as host:
        for name in ("é x.tar", "%C3%A9%20x.tar"):
            cli.run("import", f"http://{host}/{name}")


def test_a_password_that_is_no_text(cli: Cli) -> None:
    said = cli.call("login", "-u", "x", "-p", BYTES, "localhost:1").stderr.decode().splitlines()
    assert said[1:] == ["layerstore: the password is not UTF-8 text: x\\xff"]


def test_a_record_with_no_path(work: Cli) -> None:
    """Somebody has written into the store what no path can be."""
    file = work.root / "workspaces/work/workspace.json"
    record = json.loads(file.read_text())
    file.write_text(json.dumps(record | {"mountpoint": "/x\0y"}))
    assert "is damaged" in work.fail("umount", "work")
    assert "a path contains a NUL" in work.fail("diff", "work")


def test_the_library_refuses_too(where: Path) -> None:
    with pytest.raises(LayerstoreError, match="the message is not UTF-8"):
        layerstore.import_("x.tar", message=BYTES, root=where / "store")


def test_environment_of_any_bytes(where: Path) -> None:
    root = where / PATH
    environment = {**os.environ, "LAYERSTORE_ROOT": str(root)}
    for words in (["--shared", "images"], ["images"]):  # the first makes the store
        done = subprocess.run([PROGRAM, *words], env=environment, capture_output=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, b"")
        assert root.is_dir()
