"""``--filter`` of images, prune and ps, and what it must not mean."""

import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import layerstore
from layerstore.image import filters
from layerstore.image.filters import InvalidFilter
from tests.layerstore.commands import Cli, tarball

NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)


def make_three(root: Path) -> Cli:
    """``old:1`` (1970, label team=a), ``host:5000/team/mid:1`` (2001, team=b), ``new:1``, one nameless."""
    made = [
        ("new:1", "1700000000", "x=y"),
        ("old:1", "100", "team=a"),
        ("host:5000/team/mid:1", "1000000000", "team=b"),
        ("gone", "500", "y=z"),
        ("gone", "600", "y=z"),
    ]
    with pytest.MonkeyPatch.context() as patch:
        for name, epoch, label in made:
            patch.setenv("SOURCE_DATE_EPOCH", epoch)
            tar = tarball({name.replace("/", "_"): epoch.encode()})
            layerstore.import_(io.BytesIO(tar), name, changes=[f"LABEL {label}"], root=root)
    layerstore.rmi("gone", root=root)
    return Cli(root)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """Some images that nobody changes."""
    return make_three(tmp_path_factory.mktemp("three"))


def listed(cli: Cli, *wanted: str) -> list[str]:
    return [image.repository or "<none>" for image in layerstore.images(filters=wanted, root=cli.root)]


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (["dangling=true"], ["<none>"]),
        (["dangling=0"], ["new", "host:5000/team/mid", "old"]),
        (["label=team"], ["host:5000/team/mid", "old"]),
        (["label=team=a"], ["old"]),
        (["label=team", "label=team=b"], ["host:5000/team/mid"]),
        (["before=new:1"], ["host:5000/team/mid", "<none>", "old"]),
        (["before=new:1", "since=old:1"], ["host:5000/team/mid", "<none>"]),
        (["until=2001-01-01"], ["<none>", "old"]),
        (["until=2001-09-10T00:00:00Z", "dangling=false"], ["host:5000/team/mid", "old"]),
        (["until=100"], []),
        (["until=1h"], ["new", "host:5000/team/mid", "<none>", "old"]),
        (["reference=new", "reference=old:*"], ["new", "old"]),
        (["reference=*"], ["new", "old"]),
        (["reference=*/*/mid"], ["host:5000/team/mid"]),
        (["reference=*/team/[l-n]id:?"], ["host:5000/team/mid"]),
        (["reference=o[^m]d"], ["old"]),
    ],
)
def test_images(three: Cli, wanted: list[str], names: list[str]) -> None:
    assert listed(three, *wanted) == names


def test_on_the_command_line(three: Cli) -> None:
    wanted = ["--filter", "label=team", "-f", "before=new:1"]
    assert three.run("images", *wanted, "--format", "{{.Repository}}") == "host:5000/team/mid\nold"
    assert three.fail("images", "--filter", "before=nope") == "no such image: nope"


@pytest.mark.parametrize(
    "wrong", ["dangling=maybe", "nothing=1", "label", "label=", "until=soon", "label!=x", "until=" + "9" * 18]
)
def test_wrong_ones(three: Cli, wrong: str) -> None:
    with pytest.raises(InvalidFilter, match=r"invalid filter|not a time"):
        layerstore.images(filters=[wrong], root=three.root)


def test_prune(where: Path) -> None:
    three = make_three(where / "store")
    for wrong in (["dangling=true"], ["until=1h", "nope=1"]):
        with pytest.raises(InvalidFilter):
            layerstore.prune(filters=wrong, root=three.root)
    assert "only filter for workspaces" in three.fail("prune", "-f", "--workspaces", "--filter", "label=a")
    three.run("prune", "--filter", "until=500")
    assert listed(three, "dangling=true") == ["<none>"]
    assert not layerstore.prune(filters=["label!=zzz"], root=three.root).untagged
    assert listed(three) == ["new", "host:5000/team/mid", "old"]
    said = three.run("prune", "-af", "--filter", "label=team", "--filter", "label!=team=a")
    assert said.splitlines()[1] == "untagged: host:5000/team/mid:1"
    assert listed(three) == ["new", "old"]
    layerstore.prune(all_images=True, filters=["until=10m"], root=three.root)
    assert listed(three) == []
    assert layerstore.fsck(root=three.root).problems == []


def test_workspaces(base: Cli) -> None:
    base.run("create", "--name", "one", "base:1")
    base.run("create", "--name", "two", "base:1")
    base.run("import", "-", "other", stdin=tarball({"x": b""}))
    base.run("create", "--name", "third", "other")
    (base.root / "workspaces/one/upper/new").write_text("new")
    base.run("commit", "one", "base:2")
    base.run("create", "--name", "child", "base:2")
    names = {
        ("name=t",): "third two",
        ("name=one", "name=two"): "two one",
        ("status=mounted",): "",
        ("status=running", "status=exited"): "",
        ("status=created", "name=ird"): "third",
        ("ancestor=base:2",): "child",
        ("ancestor=base:1",): "child two one",
    }
    for wanted, found in names.items():
        words = [word for one in wanted for word in ("-f", one)]
        assert base.run("ps", "-q", *words).split() == found.split(), wanted
    assert base.run("ps", "-q", "-n", "2").split() == ["child", "third"]
    assert base.run("ps", "-ql") == "child"
    assert base.run("ps", "-aq").count("\n") == 3
    assert "one of created, mounted" in base.fail("ps", "--filter", "status=walking")
    assert "invalid filter" in base.fail("ps", "--filter", "volume=x")


@pytest.mark.parametrize(
    ("text", "when"),
    [
        ("0", datetime.fromtimestamp(0, UTC)),
        ("1700000000.5", datetime.fromtimestamp(1700000000.5, UTC)),
        ("24h", NOW - timedelta(hours=24)),
        ("1h30m", NOW - timedelta(minutes=90)),
        ("2024-01-02T03:04:05Z", datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2024-01-02T03:04:05+02:00", datetime(2024, 1, 2, 1, 4, 5, tzinfo=UTC)),
        ("2024-01-02", datetime(2024, 1, 2).astimezone()),
        ("2024-01-02T03:04", datetime(2024, 1, 2, 3, 4).astimezone()),
    ],
)
def test_times(text: str, when: datetime) -> None:
    assert filters.moment(text, NOW) == when


def test_patterns_are_no_expressions() -> None:
    assert filters.matches("a.b/c:1", "a.b/c")
    assert not filters.matches("axb/c:1", "a.b/c")
    assert filters.matches("a:1", r"\a:[0-9]")
    assert not filters.matches("a:x", "a:[!x]")
    assert not filters.matches("a", "[")
    with pytest.raises(InvalidFilter):
        filters.moment("yesterday", NOW)


def test_kinds_of_inspect(base: Cli) -> None:
    base.run("create", "--name", "base", "base:1")
    base.run("tag", "base:1", "base")
    assert json.loads(base.run("inspect", "base"))[0]["Name"] == "base"
    assert json.loads(base.run("inspect", "--type", "image", "base"))[0]["RepoTags"] == [
        "base:1",
        "base:latest",
    ]
    assert "no such workspace" in base.fail("inspect", "-f", "x", "--type", "workspace", "nothing")
    assert base.fail("inspect", "-f", "x", "--type", "image", "nothing") == "no such image: nothing"
