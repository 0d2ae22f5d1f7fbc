"""docker's groups, and options as docker's users write them."""

import json
import re
import shutil
import subprocess
from collections.abc import Sequence

import click
import pytest

from layerstore.cli import program, spelling
from layerstore.cli.verbs import GROUPS, VERBS
from tests.layerstore.commands import ROOTFS, Cli, tarball
from tests.layerstore.test_cli import complete

DOCKER = shutil.which("docker")

# What the verbs that we share have in docker only: a platform of an image and links are not removed apart.
ABSENT = {"rm": {"--link"}, "rmi": {"--platform"}, "images": {"--tree"}, "version": {"--kubeconfig"}}
# Our own verbs in docker's groups, and our verbs whose options in docker are those of `run`.
OWN = {"container mount", "container umount", "system fsck"}


@click.command()
@click.option("-q", "--quiet", is_flag=True)
@click.option("-a", "--all", is_flag=True)
@click.option("-p/ ", "--pause/--no-pause", default=True)
@click.option("-f", "--format")
@click.argument("words", nargs=-1)
def sample() -> None:
    """A command to spell options for."""


@pytest.mark.parametrize(
    ("typed", "means"),
    [
        ("--quiet=true x", "--quiet x"),
        ("--quiet=T", "--quiet"),
        ("--quiet --quiet=false", ""),
        ("--quiet=false --quiet", "--quiet"),
        ("--pause=false", "--no-pause"),
        ("--no-pause=false", "-p"),
        ("-p=0", "--no-pause"),
        ("-aq", "-a -q"),
        ("-qa=false", "-q"),
        ("-aqf=x y", "-a -q -f x y"),
        ("-afx", "-a -f x"),
        ("-f --quiet=false", "-f --quiet=false"),
        ("--format --quiet=false", "--format --quiet=false"),
        ("--format=--quiet=false", "--format=--quiet=false"),
        ("-f=", "-f ="),
        ("-q -- -q=false", "-q -- -q=false"),
        ("- x", "- x"),
        ("-qz", "-q -z"),
        ("--nonsense=true", "--nonsense=true"),
    ],
)
def test_spelling(typed: str, means: str) -> None:
    assert spelling.plain(sample.params, typed.split()) == means.split()


def test_a_flag_is_true_or_false(cli: Cli) -> None:
    said = cli.fail("image", "ls", "--no-trunc=maybe", status=2)
    assert said == "--no-trunc is true or false, not 'maybe'; see layerstore image ls --help"
    assert cli.fail("ps", "-aq=2", status=2).startswith("-q is true or false")


@pytest.fixture
def work(base: Cli) -> Cli:
    base.run("create", "--name", "work", "base:1")
    return base


def timeless(listing: str) -> str:
    """A listing without how long ago anything was."""
    return " ".join(re.sub(r"\d+ seconds? ago|Less than a second ago", "just now", listing).split())


@pytest.mark.parametrize(
    ("group", "short"),
    [
        ("image ls", "images"),
        ("image list -q", "images -q"),
        ("image history base:1", "history base:1"),
        ("image inspect base:1", "inspect base:1"),
        ("container ls -aq=true", "ps -aq"),
        ("container list", "ps"),
        ("container ps --no-trunc=true", "ps --no-trunc"),
        ("container inspect work", "inspect --type=container work"),
        ("container diff work", "diff work"),
        ("system df", "df"),
        ("system info --format={{.Images}}", "info -f {{.Images}}"),
        ("images -f=reference=base --format={{.ID}}", "images -q"),
        ("help image ls", "image ls --help"),
    ],
)
def test_the_same_under_another_name(work: Cli, group: str, short: str) -> None:
    first, second = (work.run(*words.split()) for words in (group, short))
    assert timeless(first) == timeless(second)


def test_groups_know_their_own(work: Cli) -> None:
    assert work.call("image", "inspect", "work").stderr.startswith(b"layerstore: no such image")
    assert work.call("container", "inspect", "base:1").stderr.startswith(b"layerstore: no such workspace")
    assert work.fail("image", "inspect", "--type", "image", "base:1", status=2)
    assert "Commands:" in work.run("image")
    assert work.fail("container", "nonsense", status=2).endswith("see layerstore container --help")


def test_a_round_through_the_groups(cli: Cli) -> None:
    """The verbs of a tutorial that spells them by groups."""
    tar = cli.root.parent / "a.tar"
    cli.run("image", "import", "-", "base:1", stdin=tarball(ROOTFS))
    name = cli.run("container", "create", "--disable-content-trust=true", "base:1")
    cli.run("container", "cp", __file__, f"{name}:/etc/new")
    assert "A /etc/new" in cli.run("container", "diff", name)
    cli.run("container", "commit", "-m=one", "--pause=false", name, "next:1")
    assert cli.run("image", "history", "--format={{.Comment}}", "next:1").startswith("one")
    cli.run("image", "tag", "next:1", "next:2")
    cli.run("image", "save", "-o", tar, "next:1")
    cli.run("image", "rm", "next:1", "next:2")
    cli.run("image", "load", "-i", tar)
    assert cli.run("container", "rm", "-v", name) == name
    assert json.loads(cli.run("image", "inspect", "next:1"))[0]["Comment"] == "one"
    cli.run("image", "remove", "-f=true", "next:1")
    assert cli.run("image", "ls", "-q", "next") == ""


def test_prune_by_groups(work: Cli) -> None:
    """Of a group's own; with everything it asks."""
    work.run("commit", "work")
    for words in (["container", "prune"], ["system", "prune"], ["image", "prune", "-a"]):
        assert "cannot ask" in work.fail(*words, status=2)
    work.run("container", "prune", "-f", "--filter", "until=24h")
    assert work.run("ps", "-q") == "work"
    assert "until=TIME" in work.fail("system", "prune", "-f", "--filter", "label=x")
    assert "work" in work.run("container", "prune", "--force=true").splitlines()
    assert work.run("ps", "-q") == ""
    assert len(work.run("images", "-q").split()) == 2
    work.run("create", "--name", "other", "base:1")
    work.run("image", "prune", "-f")
    assert (work.run("images", "-q").count("\n"), work.run("ps", "-q")) == (0, "other")
    work.run("system", "prune", "-af", "--volumes")
    assert (work.run("images", "-q"), work.run("ps", "-q")) == ("", "")


@pytest.mark.fuse
def test_rename(work: Cli) -> None:
    """What is written in it comes along; a name that is taken, a wrong one and a mounted one are refused."""
    work.run("create", "--name", "other", "base:1")
    work.run("cp", __file__, "work:/etc/new")
    assert work.fail("rename", "work", "other") == "the workspace other already exists"
    assert work.fail("rename", "work", "work") == "the workspace is already named work"
    assert work.fail("rename", "work", "../x").startswith("invalid name")
    assert work.fail("rename", "none", "x") == "no such workspace: none"
    work.run("mount", "work")
    try:
        assert "unmount it first" in work.fail("rename", "work", "new")
    finally:
        work.run("umount", "work")
    assert work.run("container", "rename", "work", "new") == ""
    assert sorted(work.run("ps", "-q").split()) == ["new", "other"]
    assert "A /etc/new" in work.run("diff", "new")
    mountpoint = work.run("mount", "new")
    work.run("umount", "new")
    assert mountpoint == str(work.root / "workspaces/new/merged")
    assert work.run("fsck").endswith("no problems")


def test_completion_in_groups(work: Cli) -> None:
    assert complete(work, "image", "l") == ["plain,load", "plain,ls"]
    assert complete(work, "container", "rm", "w") == ["plain,work"]
    assert complete(work, "image", "rm", "bas") == ["plain,base:1"]
    assert "plain,--no-trunc" in complete(work, "image", "ls", "--no")
    assert complete(work, "sys") == ["plain,system"]


def test_info_and_version(work: Cli) -> None:
    told = json.loads(work.run("info", "--format", "json"))
    assert (told["Containers"], told["ContainersRunning"], told["Images"]) == (1, 0, 1)
    assert told["DockerRootDir"] == str(work.root)
    assert " Containers: 1\n" in work.run("info")
    version = work.run("version", "--format", "{{.Client.Version}} {{.Server.Version}}").split()
    assert version[0] == version[1]
    assert work.run("-v").endswith(version[0])
    assert re.search(rf"Version: +{version[0]}\n", work.run("version"))
    assert "no field" in work.fail("version", "-f", "{{.Nonsense}}")


def docker_help(*words: str) -> str:
    assert DOCKER is not None
    done = subprocess.run([DOCKER, *words, "--help"], capture_output=True, text=True, timeout=60)
    return done.stdout


def ours(words: Sequence[str]) -> click.Command:
    command: click.Command | None = program.layerstore
    for word in words:
        assert isinstance(command, click.Group)
        command = command.get_command(click.Context(command), word)
    assert command is not None, words
    return command


@pytest.mark.skipif(DOCKER is None, reason="needs docker's client")
@pytest.mark.parametrize("group", GROUPS)
def test_groups_are_docker_s(group: str) -> None:
    """What is in a group is in docker's, and so is every alias."""
    theirs = set(re.findall(r"^  ([a-z]+) ", docker_help(group), re.MULTILINE))
    for verb, spelled in GROUPS[group].spellings.items():
        if f"{group} {verb}" in OWN:
            continue
        assert verb in theirs
        aliases = set(
            re.findall(rf"docker {group} ([a-z]+)", docker_help(group, verb).partition("Aliases:")[2])
        )
        assert aliases <= {verb, *spelled.aliases}


@pytest.mark.skipif(DOCKER is None, reason="needs docker's client")
@pytest.mark.parametrize(
    "verb", [*(verb for verb in VERBS if verb != "create"), *["system prune", "image prune"]]
)
def test_options_are_docker_s(verb: str) -> None:
    """Every option of a verb that both have is known, by its short name too, or named here as absent."""
    words = ["system", "df"] if verb == "df" else verb.split()
    text = docker_help(*words)
    if "Options:" not in text or not text.strip().startswith("Usage:  docker " + " ".join(words)):
        pytest.skip("docker has no such verb")
    known = {name: one for one in ours(verb.split()).params for name in one.opts}
    pattern = r"^ +(?:(-\w), )?(--[a-z-]+)(?: (\w+))?  "
    for short, name, value in re.findall(pattern, text.partition("Options:")[2], re.MULTILINE):
        if name in ABSENT.get(verb, set()):
            assert name not in known
            continue
        option = known[name]
        assert isinstance(option, click.Option)
        assert option.is_flag is not bool(value), name
        assert not short or known.get(short) is option, name


def test_trust_cannot_be_insisted_on(cli: Cli) -> None:
    for words in (["pull", "localhost:1/x"], ["push", "x"], ["create", "x"]):
        said = cli.fail(words[0], "--disable-content-trust=false", words[1], status=2)
        assert "does not verify signatures" in said
