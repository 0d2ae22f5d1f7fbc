"""What docker 20.10 says of its own images, recorded, is what we say of the same images; and names, digests
and histories are docker's where no record is needed.
"""

import io
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

import layerstore
from layerstore.image import find, sizes
from layerstore.store import blobs
from layerstore.store.store import Store
from tests.layerstore.archives import dumps, old_docker, pack, sha
from tests.layerstore.commands import ROOTFS, Cli, tarball
from tests.layerstore.transport.servers import docker_registry, needs_registry

DATA = Path(__file__).parent / "data"
# Made by docker import and commit, written by docker save; docker inspect, history and images were asked.
ARCHIVE = DATA / "docker-images.tar.gz"
RECORD = json.loads((DATA / "docker-images.json").read_text())
OURS = {"CompressedSize", "Descriptor"}  # keys that docker 20.10 has not


@pytest.fixture
def loaded(cli: Cli) -> Cli:
    cli.run("load", "-q", "-i", ARCHIVE)
    return cli


@pytest.mark.parametrize("theirs", RECORD["inspect"], ids=lambda theirs: theirs["RepoTags"][0])
def test_inspect(loaded: Cli, theirs: dict[str, Any]) -> None:
    """Every key, in docker's order, but for the driver's own data."""
    (ours,) = json.loads(loaded.run("inspect", theirs["RepoTags"][0]))
    assert [key for key in ours if key not in OURS] == list(theirs)
    assert {key: ours[key] for key in theirs if key != "GraphDriver"} == {
        key: theirs[key] for key in theirs if key != "GraphDriver"
    }
    assert list(ours["GraphDriver"]) == list(theirs["GraphDriver"])
    assert list(ours["Config"]) == list(theirs["Config"])


@pytest.mark.parametrize("name", RECORD["history"])
def test_history(loaded: Cli, name: str) -> None:
    lines = [
        json.loads(line)
        for line in loaded.run("history", "--no-trunc", "--format", "json", name).splitlines()
    ]
    for ours, theirs in zip(lines, RECORD["history"][name], strict=True):
        assert {key: ours[key] for key in theirs if key != "CreatedSince"} == {
            key: theirs[key] for key in theirs if key != "CreatedSince"
        }


def test_images(loaded: Cli) -> None:
    def of(lines: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
        changing = {"CreatedSince", "CreatedAt"}
        keys = RECORD["images"][0].keys() - changing
        return {f"{line['Repository']}:{line['Tag']}": {key: line[key] for key in keys} for line in lines}

    assert of(loaded.objects("images", "--no-trunc")) == of(RECORD["images"])


def test_sizes_are_kept_with_the_blob(loaded: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer is read once; one that is gone or is no tar has the size it has in the store."""
    store = Store.open(loaded.root)
    (before,) = layerstore.images("gold/base", root=store.root)
    assert before.size == 10047 < before.compressed_size
    assert layerstore.images(sizes=False, root=store.root)[0].size is None
    (layer,) = find.find(store, "gold/base:1").image.manifest.layers
    place = blobs.path_of(store, layer.digest)
    place.rename(loaded.root / "whole")
    assert sizes.of_layer(store, layer) == layer.size
    place.write_bytes(bytes(layer.size))
    assert sizes.of_layer(store, layer) == layer.size
    (loaded.root / "whole").rename(place)
    monkeypatch.setattr(sizes, "_measured", None)
    assert layerstore.images("gold/base", root=store.root) == [before]


def test_one_image_of_two_manifests(base: Cli) -> None:
    """docker's images are known by their ID alone, so there is one, and rmi takes it away whole."""
    layout = old_docker(tags=["a:1"])
    base.run("load", stdin=pack(layout))
    image_id = base.objects("images", "a")[0]["ID"]
    twin = twin_of(base, "a:1")
    assert [line["ID"] for line in base.objects("images")].count(image_id) == 1
    assert base.run("images", "-q", "--filter", "dangling=true") == ""
    base.run("tag", "a:1", "b:1")
    index_named(base, twin, "c:1")
    assert [line["ID"] for line in base.objects("images")].count(image_id) == 3
    (described,) = json.loads(base.run("inspect", "a:1"))
    assert described["RepoTags"] == ["a:1", "b:1", "c:1"]
    assert base.run("rmi", "c:1") == "Untagged: c:1"
    assert base.objects("images", "a") != []
    index_named(base, twin, "c:1")
    why = "it has several names (a:1, b:1, c:1): remove those, or use rmi -f"
    assert base.fail("rmi", image_id) == f"conflict: unable to delete {image_id} (must be forced): {why}"
    lines = base.run("rmi", "-f", image_id).splitlines()
    assert lines[:3] == ["Untagged: a:1", "Untagged: b:1", "Untagged: c:1"]
    assert lines[3].startswith(f"Deleted: sha256:{image_id}")
    assert image_id not in base.run("images", "-q").split()
    assert layerstore.fsck(root=base.root).problems == []
    assert not (base.root / "oci/blobs/sha256" / twin["digest"][7:]).exists()


def twin_of(cli: Cli, name: str) -> dict[str, Any]:
    """Another manifest of the same configuration and layers, nameless."""
    described = layerstore.inspect(name, root=cli.root)["Descriptor"]
    place = cli.root / "oci/blobs/sha256"
    manifest = json.loads((place / described["digest"][7:]).read_text())
    raw = dumps({**manifest, "annotations": {"a": "twin"}})
    (place / sha(raw)).write_bytes(raw)
    entry = {"mediaType": described["mediaType"], "digest": f"sha256:{sha(raw)}", "size": len(raw)}
    index_named(cli, entry, None)
    return entry


def index_named(cli: Cli, entry: dict[str, Any], name: str | None) -> None:
    file = cli.root / "oci/index.json"
    index = json.loads(file.read_text())
    named = {} if name is None else {"annotations": {"org.opencontainers.image.ref.name": name}}
    index["manifests"].append({**entry, **named})
    file.write_text(json.dumps(index))


def test_the_same_image_nameless_twice(base: Cli) -> None:
    image_id = base.run("import", "-", stdin=tarball({"x": b""}))
    twin_of(base, image_id)
    assert [line["ID"] for line in base.objects("images")].count(image_id[7:19]) == 1
    assert base.run("rmi", image_id).splitlines()[0] == f"Deleted: {image_id}"
    assert image_id[7:19] not in base.run("images", "-q").split()


def test_prune_of_one_manifest_of_two(base: Cli) -> None:
    """The nameless manifest goes, the image does not, and nothing else is said."""
    twin = twin_of(base, "base:1")
    assert "deleted" not in base.run("prune")
    assert not (base.root / "oci/blobs/sha256" / twin["digest"][7:]).exists()
    assert len(base.objects("images")) == 1


def without_history(cli: Cli, *, entries: list[dict[str, Any]] | None = None) -> None:
    """An image ``plain:1`` of two layers; with another number of steps than layers."""
    one, two = tarball({"one": b"1" * 100}), tarball({"two": b"2" * 200})
    diff_ids = [f"sha256:{sha(layer)}" for layer in (one, two)]
    document: dict[str, Any] = {"architecture": "amd64", "os": "linux", "created": "2020-01-02T03:04:05Z"}
    document["rootfs"] = {"type": "layers", "diff_ids": diff_ids}
    if entries is not None:
        document["history"] = entries
    config = dumps(document)
    item = {"Config": f"{sha(config)}.json", "RepoTags": ["plain:1"], "Layers": ["1.tar", "2.tar"]}
    cli.run(
        "load",
        stdin=pack(
            {f"{sha(config)}.json": config, "1.tar": one, "2.tar": two, "manifest.json": dumps([item])}
        ),
    )


@pytest.mark.parametrize(
    "entries",
    [
        None,
        [{"created_by": "one"}],
        [{"created_by": "one"}, {"created_by": "two"}, {"created_by": "none"}],
        [{"created_by": "one"}, {"created_by": "set", "empty_layer": True}],
    ],
)
def test_commit_over_a_history_that_does_not_fit(cli: Cli, entries: list[dict[str, Any]] | None) -> None:
    """The step stands beside its own layer, and those below beside theirs."""
    without_history(cli, entries=entries)
    before = [line["SizeBytes"] for line in cli.objects("history", "plain:1")]
    cli.run("create", "--name", "w", "plain:1")
    (cli.root / "workspaces/w/upper/three").write_bytes(b"3" * 300)
    cli.run("commit", "-m", "mine", "w", "plain:2")
    top, *rest = cli.objects("history", "plain:2")
    assert (top["SizeBytes"], top["Comment"]) == (300, "mine")
    assert [line["SizeBytes"] for line in rest] == before
    assert sorted(before)[-2:] == [100, 200]


def test_a_history_of_parents(base: Cli) -> None:
    """IMAGE is there for what the store has: the parent, its parent, not what was removed."""
    for at in (1, 2):
        base.run("create", "--name", "w", f"base:{at}")
        (base.root / "workspaces/w/upper" / f"new{at}").write_text("new")
        base.run("commit", "-c", f'CMD ["sh", "-c", "echo {at}"]', "w", f"base:{at + 1}")
        base.run("rm", "w")
    ids = [line["ID"] for tag in (3, 2, 1) for line in base.objects("images", f"base:{tag}")]
    assert base.run("history", "-q", "base:3").split() == ids
    assert [line["CreatedBy"] for line in base.objects("history", "base:3")] == [
        "sh -c echo 1",
        "layerstore commit",  # no command: docker makes no container of such an image
        "",
    ]
    base.run("rmi", "base:2")
    assert base.run("history", "-q", "base:3").split() == [ids[0], "<missing>", ids[2]]
    assert json.loads(base.run("inspect", "base:3"))[0]["Parent"] == ""


@needs_registry
def test_digests_by_push_and_pull(base: Cli, where: Path) -> None:
    """A name has a digest once its registry has it; it goes with the last tag of the repository."""
    (where / "registry").mkdir()
    with docker_registry(where / "registry") as host:
        app = f"{host}/app"
        base.run("tag", "base:1", f"{app}:1")
        base.run("tag", "base:1", f"{host}/other:1")
        assert layerstore.inspect("base:1", root=base.root)["RepoDigests"] == []
        digest = layerstore.push(f"{app}:1", root=base.root).digest
        assert layerstore.inspect("base:1", root=base.root)["RepoDigests"] == [f"{app}@{digest}"]
        base.run("tag", "base:1", f"{app}:2")
        digests = {f"{line['Repository']}:{line['Tag']}": line["Digest"] for line in base.objects("images")}
        assert digests == {
            "base:1": "<none>",
            f"{host}/other:1": "<none>",
            f"{app}:1": digest,
            f"{app}:2": digest,
        }
        assert base.run("rmi", f"{app}:1") == f"Untagged: {app}:1"
        assert base.objects("images", app)[0]["Digest"] == digest
        assert base.run("rmi", f"{app}@{digest}") == f"Untagged: {app}@{digest}"
        assert base.objects("images", app)[0]["Digest"] == "<none>"
        layerstore.push(f"{app}:2", root=base.root)
        assert base.run("rmi", f"{app}:2") == f"Untagged: {app}:2\nUntagged: {app}@{digest}"
        other = Cli(where / "other")
        other.run("pull", "-q", f"{app}:1")
        (line,) = other.objects("images")
        assert line["Digest"] == line["ManifestDigest"] == digest
        other.run("pull", "-q", f"{app}@{digest}")
        assert layerstore.inspect(f"{app}:1", root=other.root)["RepoTags"] == [f"{app}:1"]
        said = other.run("rmi", f"{app}:1").splitlines()
        assert said[:2] == [f"Untagged: {app}:1", f"Untagged: {app}@{digest}"]
        assert said[2].startswith(f"Deleted: sha256:{line['ID']}")
        other.run("pull", "-q", f"{app}@{digest}")
        assert other.run("rmi", line["ID"]).splitlines()[0] == f"Untagged: {app}@{digest}"


def test_a_new_image_under_the_name_has_no_digest(base: Cli) -> None:
    """Another program's layout may hold containerd's label; a name that moves on does not keep it."""
    index = json.loads((base.root / "oci/index.json").read_text())
    index["manifests"][0]["annotations"]["containerd.io/distribution.source.docker.io"] = "library/base"
    (base.root / "oci/index.json").write_text(json.dumps(index))
    assert base.objects("images")[0]["Digest"].startswith("sha256:")
    layerstore.import_(io.BytesIO(tarball({**ROOTFS, "x": b"x"})), "base:1", root=base.root)
    assert [line["Digest"] for line in base.objects("images")] == ["<none>", "<none>"]


def test_nothing_has_a_type_in_templates(base: Cli) -> None:
    """Go prints an empty list or map for what JSON calls null."""

    def shown(form: str) -> str:
        return base.run("inspect", "-f", form, "base:1")

    assert (
        shown("{{.Config.Env}} {{.Config.Labels}} {{.Config.Shell}} {{.Config.Healthcheck}}")
        == "[] map[] [] <nil>"
    )
    assert shown("{{json .Config.Env}} {{len .Config.Cmd}}") == "null 0"
    assert (
        shown("{{range .Config.Env}}x{{else}}none{{end}} {{if .Config.Labels}}x{{else}}no{{end}}")
        == "none no"
    )
    assert shown(
        '{{.Config.Labels.none}}|{{index .Config.Labels "none"}}|{{with .Config.Volumes}}x{{end}}'
    ) == ("<no value>||")
    assert shown('{{println .Config.Cmd}}{{printf "%v" .Config.Volumes}}') == "[]\nmap[]"


@pytest.mark.parametrize(
    ("answer", "left"), [("y\n", 1), ("Y", 1), ("n\n", 2), ("\n", 2), ("", 1), ("yes\n", 2)]
)
def test_prune_asks(base: Cli, answer: str, left: int) -> None:
    """Through a pipe, too. Where there is no answer, what has no name goes, as jobs of cron expect."""
    base.run("import", "-", stdin=tarball({"x": b""}))
    said = base.run("prune", stdin=answer.encode())
    assert said.startswith("WARNING! This will remove all dangling images.\n") is bool(answer)
    assert "Total reclaimed space: " in said
    assert len(base.objects("images")) == left
    assert "use -f" in base.call("prune", "--all").stderr.decode()
    base.run("prune", "--all", stdin=answer.encode() or b"n")
    assert len(base.objects("images")) == (0 if answer in {"y\n", "Y"} else left)


def test_prune_says_all_that_goes(base: Cli) -> None:
    base.run("create", "--name", "w", "base:1")
    said = base.run("prune", "--workspaces", stdin=b"n").splitlines()
    assert said[0] == "WARNING! This will remove:"
    assert said[1].startswith("  - all stopped containers ")
    assert said[2:4] == ["  - all dangling images", ""]
    assert base.run("ps", "-q") == "w"


@needs_registry
def test_login_with_what_is_kept(cli: Cli, where: Path) -> None:
    (where / "registry").mkdir()
    subprocess.run(["htpasswd", "-Bbc", where / "users", "ann", "right"], check=True, capture_output=True)
    auth = f"auth: {{htpasswd: {{realm: x, path: {where / 'users'}}}}}\n"
    env = {"REGISTRY_AUTH_FILE": str(where / "login.json")}
    with docker_registry(where / "registry", auth=auth) as host:
        assert "give it with -u" in cli.fail("login", host, env=env, status=2)
        done = cli.call("login", "-u", "ann", "-p", "right", host, env=env)
        assert done.stdout == b"Login Succeeded\n"
        assert b"WARNING! Using --password via the CLI is insecure. Use --password-stdin.\n" in done.stderr
        said = cli.run("login", host, env=env)
        assert said == "Authenticating with existing credentials...\nLogin Succeeded"
        subprocess.run(["htpasswd", "-Bb", where / "users", "ann", "new"], check=True, capture_output=True)
        done = cli.call("login", host, env=env)
        assert done.stdout == b"Authenticating with existing credentials...\n"
        assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)
        assert (
            cli.run("login", "-u", "ann", "--password-stdin", host, env=env, stdin=b"new")
            == "Login Succeeded"
        )
        cli.run("logout", host, env=env)
        assert "give it with -u" in cli.fail("login", host, env=env, status=2)


def test_saved_files_are_their_owners_alone(base: Cli, where: Path) -> None:
    """They hold what may not be read in the image, such as /etc/shadow; also where a file was before."""
    (where / "old").write_text("old")
    for verb, name in (("save", "a"), ("save", "old"), ("export", "b")):
        base.run(verb, "-o", where / name, "base:1")
        assert (where / name).stat().st_mode & 0o777 == 0o600
