"""create, ps, rm, and diff and commit of workspaces that are not mounted."""

import json
import os
import re
from pathlib import Path

import pytest

import layerstore
from layerstore.errors import AlreadyExists, InvalidReference, LayerstoreError, NotFound
from layerstore.workspace import names
from tests.layerstore.commands import Cli, contents, tarball

FIXED = {"SOURCE_DATE_EPOCH": "1700000000"}


def test_create(base: Cli) -> None:
    assert base.run("create", "--name", "w.1_a-b", "base:1") == "w.1_a-b"
    made_up = base.run("create", "base:1")
    assert re.fullmatch(r"[a-z]+_[a-z]+", made_up)
    place = base.root / "workspaces" / made_up
    assert sorted(os.listdir(place)) == ["merged", "upper", "work", "workspace.json"]
    assert [line["Name"] for line in base.objects("ps")] == [made_up, "w.1_a-b"]
    assert base.run("ps", "-q").split() == [made_up, "w.1_a-b"]
    header, line, _ = base.run("ps").splitlines()
    assert header.split() == ["NAME", "IMAGE", "STATUS", "CREATED", "MOUNT"]
    assert line.split()[:3] == [made_up, "base:1", "Created"]


def test_upper_looks_like_the_images_root(cli: Cli) -> None:
    """The merged root has the upper's attributes: they must be the image's from the start."""
    cli.run("import", "-", "base", stdin=tarball({"./": None, "x": b""}))
    cli.run("create", "--name", "w", "base")
    (layer,) = (cli.root / "layers").iterdir()
    ours, image = (path.stat() for path in (cli.root / "workspaces/w/upper", layer))
    assert (ours.st_mode, ours.st_uid, ours.st_mtime_ns) == (image.st_mode, image.st_uid, image.st_mtime_ns)
    assert image.st_mtime == 1_600_000_000


def test_umask_does_not_matter(cli: Cli) -> None:
    """A careless umask of who runs the command must not lock everybody out of the system in the image."""
    for mask in (0o077, 0):
        cli.run("import", "-", f"base:{mask}", stdin=tarball({"x": b"", "y/z": b""}), umask=mask)
        name = cli.run("create", "--init", f"base:{mask}", umask=mask)
        init, upper = (cli.root / "workspaces" / name / part for part in ("init", "upper"))
        (layer,) = (cli.root / "layers").iterdir()
        for place in (
            layer,
            layer / "y",
            upper,
            init,
            init / "dev",
            init / "etc",
            init / "etc/hosts",
            init / "sys",
        ):
            assert place.stat().st_mode & 0o777 == 0o755, place
        cli.run("rm", name)
        cli.run("rmi", f"base:{mask}")


def test_refused(base: Cli) -> None:
    base.run("create", "--name", "w", "base:1")
    before = contents(base.root)
    assert base.fail("create", "--name", "w", "base:1") == "the workspace w already exists"
    for name in ("../x", "", ".hidden", "a/b", "-x", "a b", "x" * 200, "é"):
        with pytest.raises(InvalidReference):
            layerstore.create("base:1", name=name, root=base.root)
    how = "run `layerstore pull nothing` or use --pull missing"
    assert base.fail("create", "nothing") == f"no such image: nothing ({how})"
    for volume in ("x", "/etc", "name:/x", "/nowhere:/x", "/etc:/", "/etc:x", "/etc:/../x", "/etc:/proc/x",
                   "/etc:/sys", "/etc:/x:weird"):  # fmt: skip
        with pytest.raises(LayerstoreError, match=r"volume|mount target"):
            layerstore.create("base:1", volumes=[volume], root=base.root)
    assert base.fail("rm", "nothing") == "no such workspace: nothing"
    assert base.fail("umount", "w") == "w is not mounted"
    assert base.fail("mount", "nothing") == "no such workspace: nothing"
    assert base.fail("mount", "base:1") == "no such workspace: base:1"
    assert base.fail("commit", "nothing") == "no such workspace: nothing"
    assert base.fail("diff", "nothing") == "no such workspace: nothing"
    assert base.fail("mount", "w", base.root / "nowhere").endswith("is not a directory")
    assert contents(base.root) == before


def test_rm_goes_on_after_an_error(base: Cli) -> None:
    base.run("create", "--name", "a", "base:1")
    base.run("create", "--name", "b", "base:1")
    done = base.call("rm", "a", "nothing", "b")
    assert (done.returncode, done.stdout) == (1, b"a\nb\n")
    assert list((base.root / "workspaces").iterdir()) == []


def test_inspect(base: Cli) -> None:
    base.run("create", "--name", "w", "--init", "-v", "/etc:/mnt/etc:ro", "base:1")
    (described,) = json.loads(base.run("inspect", "w"))
    assert described["Name"] == "w"
    assert described["State"]["Status"] == "created"
    assert described["GraphDriver"]["Data"]["UpperDir"] == str(base.root / "workspaces/w/upper")
    (mount,) = described["Mounts"]
    assert (mount["Source"], mount["Destination"], mount["RW"]) == ("/etc", "/mnt/etc", False)


@pytest.mark.root
def test_init_layer(base: Cli) -> None:
    """docker's places, over the image's own, with nothing else of the image changed."""
    base.run(
        "create", "--name", "w", "--init", "-v", "/etc:/usr/share/x", "-v", "/etc/hostname:/usr/h", "base:1"
    )
    init = base.root / "workspaces/w/init"
    found = {str(path.relative_to(init)) for path in init.rglob("*")}
    assert found >= {"dev/console", "dev/pts", "dev/shm", "etc/hostname", "etc/mtab", "etc/resolv.conf",
                     "sys", "usr/share/x", "usr/h", ".dockerenv"}  # fmt: skip
    assert (init / "etc/hosts").read_bytes() == b""
    assert (init / "usr/share/x").is_dir()
    assert (init / "usr/h").is_file()
    assert os.readlink(init / "etc/mtab") == "/proc/mounts"
    assert "etc/passwd" not in found
    assert base.run("diff", "w") == ""
    assert base.run("commit", "w", "base:2")
    assert len(json.loads(base.run("inspect", "base:2"))[0]["RootFS"]["Layers"]) == 1


def test_mount_target_through_a_link(base: Cli) -> None:
    """An image cannot steer a mount elsewhere with a symbolic link."""
    before = contents(base.root)
    assert "symbolic link" in base.fail("create", "-v", "/etc:/lib/x", "base:1")
    assert "symbolic link" in base.fail("create", "-v", "/etc:/lib", "base:1")
    assert "not a directory" in base.fail("create", "-v", "/etc:/etc/hosts", "base:1")
    assert "a directory" in base.fail("create", "-v", "/etc/hostname:/etc", "base:1")
    assert contents(base.root) == before


def change(cli: Cli, name: str) -> Path:
    """A workspace whose upper was changed without a mount."""
    cli.run("create", "--name", name, "base:1")
    upper = cli.root / "workspaces" / name / "upper"
    (upper / "new").mkdir()
    (upper / "new/file").write_bytes(b"new")
    os.utime(upper / "new/file", (1_800_000_000, 1_800_000_000))
    return upper


def test_commit(base: Cli) -> None:
    change(base, "w")
    words = ["-a", "Ada <a@b>", "-m", "more", "-c", 'CMD ["/bin/x"]', "-c", "LABEL a=b", "-p", "w", "base:2"]
    image_id = base.run("commit", *words)
    child, parent = json.loads(base.run("inspect", "base:2", "base:1"))
    assert child["Id"] == image_id
    assert child["Author"] == "Ada <a@b>"
    said = {key: value for key, value in child["Config"].items() if value}
    assert said == {"Cmd": ["/bin/x"], "Labels": {"a": "b"}}
    assert child["Parent"] == parent["Id"]
    assert child["RootFS"]["Layers"][:-1] == parent["RootFS"]["Layers"]
    new, old = base.objects("history", "base:2")
    assert (new["ID"], new["CreatedBy"], new["Comment"]) == (image_id[7:19], "layerstore commit", "more")
    assert (old["ID"], old["Comment"]) == (parent["Id"][7:19], "Imported from -")
    manifests = [
        json.loads((base.root / "oci/blobs/sha256" / described["Descriptor"]["digest"][7:]).read_text())
        for described in (child, parent)
    ]
    assert manifests[0]["layers"][0] == manifests[1]["layers"][0]
    base.run("create", "--name", "next", "base:2")
    lowers = json.loads(base.run("inspect", "next"))[0]["GraphDriver"]["Data"]["LowerDir"].split(":")
    assert (Path(lowers[0]) / "new/file").read_bytes() == b"new"
    assert len(lowers) == 2


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_commit_is_reproducible(base: Cli, compression: str) -> None:
    ids = set()
    for name in ("first", "second"):
        change(base, name)
        ids.add(base.run("commit", "--compression", compression, name, env=FIXED))
    assert len(ids) == 1
    (described,) = json.loads(base.run("inspect", ids.pop()))
    manifest = json.loads(
        (base.root / "oci/blobs/sha256" / described["Descriptor"]["digest"][7:]).read_text()
    )
    suffix = {"gzip": "tar+gzip", "zstd": "tar+zstd", "none": "tar"}[compression]
    assert manifest["layers"][1]["mediaType"].endswith(suffix)
    assert described["Created"] == "2023-11-14T22:13:20Z"


def test_commit_of_nothing(base: Cli) -> None:
    """As docker: no layer, but an image with one more step."""
    base.run("create", "--name", "w", "base:1")
    base.run("commit", "-c", "USER me", "w", "base:2")
    (described,) = json.loads(base.run("inspect", "base:2"))
    assert len(described["RootFS"]["Layers"]) == 1
    assert described["Config"]["User"] == "me"
    new, _ = base.objects("history", "base:2")
    assert new["SizeBytes"] == 0


def test_failed_commit_leaves_nothing(base: Cli) -> None:
    upper = change(base, "w")
    before = contents(base.root)
    assert base.fail("commit", "-c", "FOO", "w").startswith("-c 'FOO'")
    assert "lower case" in base.fail("commit", "w", "Bad")
    assert "Invalid value" in base.fail("commit", "--compression", "lzma", "w", status=2)
    (upper / ".wh.name").write_text("what no layer can say")
    assert ".wh.name" in base.fail("commit", "w", "base:2")
    (upper / ".wh.name").unlink()
    assert contents(base.root) == before


def test_socket_is_left_out_with_a_note(base: Cli) -> None:
    import socket

    upper = change(base, "w")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(upper / "s"))
    done = base.call("commit", "w", "base:2")
    assert done.returncode == 0
    assert b"/s" in done.stderr


def test_removed_layers_come_back(base: Cli) -> None:
    """Unpacked layers are only a cache of the blobs."""
    change(base, "w")
    (layer,) = (base.root / "layers").iterdir()
    os.rename(layer, base.root / "layers" / "elsewhere")
    base.run("commit", "w", "base:2")
    assert layer.is_dir()


def test_functions(base: Cli) -> None:
    name = layerstore.create("base:1", root=base.root)
    with pytest.raises(AlreadyExists):
        layerstore.create("base:1", name=name, root=base.root)
    (line,) = layerstore.ps(root=base.root)
    assert (line.name, line.status, line.mountpoint) == (name, "created", None)
    (base.root / "workspaces" / name / "upper" / "x").write_text("x")
    notes: list[str] = []
    image_id = layerstore.commit(name, "base:x", message="m", root=base.root, note=notes.append)
    assert notes == []
    assert layerstore.history("base:x", root=base.root)[0].id == image_id
    layerstore.rm(name, root=base.root)
    with pytest.raises(NotFound):
        layerstore.rm(name, root=base.root)


def test_damaged_record(base: Cli) -> None:
    base.run("create", "--name", "w", "base:1")
    base.run("create", "--name", "v", "base:1")
    (base.root / "workspaces/w/workspace.json").write_text("{}")
    done = base.call("ps", "-q")
    assert (done.returncode, done.stdout) == (0, b"v\n")
    assert b"damaged" in done.stderr
    assert "damaged" in base.fail("mount", "w")


def test_names() -> None:
    for _ in range(50):
        names.check(names.made_up())
    with pytest.raises(InvalidReference):
        names.check("..")
