"""Documents as Go programs write them: null, or nothing, where a list or a map is empty."""

import io
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

import layerstore
from layerstore import media, model
from layerstore.digest import Digest
from layerstore.errors import InvalidImage
from layerstore.model import Manifest
from tests.layerstore.archives import LAYER, dumps, layout, old_docker, pack, sha
from tests.layerstore.commands import Cli, tarball

DIGEST = Digest.of(b"x")
BLOB = {"mediaType": media.OCI_CONFIG, "digest": DIGEST, "size": 1}
EMPTY_FIELDS = {"urls": None, "annotations": None, "data": None, "platform": None, "artifactType": None}


@pytest.mark.parametrize("layers", [{}, {"layers": None}, {"layers": []}])
def test_manifest(layers: dict[str, None]) -> None:
    document = {"schemaVersion": 2, "mediaType": None, "subject": None, "annotations": None}
    raw = dumps({**document, "config": {**BLOB, **EMPTY_FIELDS}, **layers})
    manifest = model.parse_manifest(raw, media.OCI_MANIFEST)
    assert (manifest.layers, manifest.media_type, manifest.config.urls) == ([], "", [])


@pytest.mark.parametrize("manifests", [{}, {"manifests": None}])
def test_index(manifests: dict[str, None]) -> None:
    assert model.parse_index(dumps({"schemaVersion": 2, "annotations": None, **manifests})).manifests == []
    platform = {
        "os": "linux",
        "architecture": "arm64",
        "os.features": None,
        "variant": None,
        "os.version": None,
    }
    entry = {**BLOB, **EMPTY_FIELDS, "platform": platform, "annotations": {"a": None}}
    (found,) = model.parse_index(dumps({"schemaVersion": 2, "manifests": [entry]})).manifests
    assert found.platform == model.Platform(os="linux", architecture="arm64")


@pytest.mark.parametrize(
    "rootfs",
    [
        {},
        {"rootfs": None},
        {"rootfs": {}},
        {"rootfs": {"type": "layers"}},
        {"rootfs": {"type": None, "diff_ids": None}},
    ],
)
def test_config(rootfs: dict[str, Any]) -> None:
    names = (
        "Env",
        "Cmd",
        "Entrypoint",
        "Labels",
        "ExposedPorts",
        "Volumes",
        "OnBuild",
        "Shell",
        "Healthcheck",
    )
    inner = dict.fromkeys((*names, "User", "WorkingDir", "StopSignal"))
    for config in ({"config": None}, {}, {"config": inner}, {"config": {"Labels": {"a": None}}}):
        history = [
            {"created": None, "created_by": None, "empty_layer": None, "author": None, "comment": None}
        ]
        plain = {"architecture": "amd64", "os": "linux", "variant": None, "created": None, "author": None}
        parsed = model.parse_config(dumps({**plain, **rootfs, **config, "history": history}))
        assert parsed.rootfs.diff_ids == []
        assert parsed.steps == [model.History()]
    assert model.parse_config(dumps({"architecture": "amd64", "os": "linux", "history": None})).steps == []


def test_what_is_no_null_is_checked_as_before() -> None:
    for wrong in ({"layers": "null"}, {"config": "null"}, {"schemaVersion": None}):
        with pytest.raises(InvalidImage):
            model.parse_manifest(dumps({"schemaVersion": 2, "config": BLOB, "annotations": None, **wrong}))


def test_what_we_write_has_its_lists() -> None:
    """The specification demands them, empty ones too."""
    config = model.Descriptor(media_type=media.OCI_CONFIG, digest=DIGEST, size=1)
    assert json.loads(model.encode(Manifest(schema_version=2, config=config)))["layers"] == []
    assert json.loads(model.encode(model.Index(schema_version=2)))["manifests"] == []


def without_layers(fields: dict[str, Any]) -> dict[str, bytes]:
    """A layout with an image of nothing, as buildkit writes one of ``FROM scratch``."""
    config = dumps(
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", **fields}, "config": None}
    )
    blob = {"mediaType": media.OCI_CONFIG, "digest": f"sha256:{sha(config)}", "size": len(config)}
    layers = {"layers": None} if "diff_ids" in fields else {}
    manifest = dumps({"schemaVersion": 2, "mediaType": media.OCI_MANIFEST, "config": blob, **layers})
    entry = {"mediaType": media.OCI_MANIFEST, "digest": f"sha256:{sha(manifest)}", "size": len(manifest)}
    named = {**entry, "annotations": {"org.opencontainers.image.ref.name": "none:1", "x": None}, "urls": None}
    return {
        f"blobs/sha256/{sha(config)}": config,
        f"blobs/sha256/{sha(manifest)}": manifest,
        "index.json": dumps({"schemaVersion": 2, "manifests": [named], "annotations": None}),
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
    }


@pytest.mark.root
@pytest.mark.parametrize("fields", [{"diff_ids": None}, {}])
def test_an_image_of_nothing(cli: Cli, where: Path, fields: dict[str, Any]) -> None:
    """It is loaded, listed, changed, committed, saved, and read by others."""
    cli.run("load", stdin=pack(without_layers(fields)))
    root = cli.root
    assert layerstore.inspect("none:1", root=root)["RootFS"]["Layers"] == []
    assert layerstore.history("none:1", root=root) == []
    assert [line.repository for line in layerstore.images(root=root)] == ["none"]
    name = layerstore.create("none:1", root=root)
    layerstore.cp(io.BytesIO(tarball({"hello": b"abc"})), f"{name}:/", root=root)
    changes = ["ENV A=b", "LABEL c=d", "EXPOSE 80", "VOLUME /v", "ONBUILD RUN x"]
    layerstore.commit(name, "some:1", changes=changes, root=root)
    described = layerstore.inspect("some:1", root=root)
    assert described["Config"]["Env"] == ["A=b"]
    assert described["Config"]["ExposedPorts"] == {"80/tcp": {}}
    out = io.BytesIO()
    layerstore.export("some:1", out, root=root)
    assert b"hello" in out.getvalue()
    layerstore.save(["none:1", "some:1"], where / "both.tar", root=root)
    assert len(layerstore.load(str(where / "both.tar"), root=where / "other")) == 2
    for one in ("none:1", "some:1"):
        subprocess.run(["skopeo", "inspect", f"oci:{root}/oci:{one}"], check=True, capture_output=True)
    assert layerstore.fsck(root=root).problems == []
    layerstore.rm(name, root=root)


@pytest.mark.parametrize(
    "item",
    [
        {"RepoTags": None, "Layers": ["1" * 64 + "/layer.tar"], "Parent": None, "LayerSources": None},
        {"Layers": ["1" * 64 + "/layer.tar"]},
    ],
)
def test_docker_archives(cli: Cli, item: dict[str, Any]) -> None:
    files = old_docker()
    config = next(
        name for name in files if name.endswith(".json") and name not in {"manifest.json"} and len(name) > 60
    )
    files["manifest.json"] = dumps([{"Config": config, **item}])
    assert cli.run("load", stdin=pack(files)).startswith("Loaded image ID: sha256:")
    empty = dumps({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": None}})
    for layers in ({"Layers": None}, {}):
        nothing = [{"Config": f"{sha(empty)}.json", "RepoTags": ["none:1"], **layers}]
        cli.run("load", stdin=pack({f"{sha(empty)}.json": empty, "manifest.json": dumps(nothing)}))
        assert layerstore.inspect("none:1", root=cli.root)["RootFS"]["Layers"] == []


def test_the_stores_own_index(base: Cli) -> None:
    """umoci writes null for a layout without images."""
    (base.root / "oci/index.json").write_text('{"schemaVersion":2,"manifests":null,"annotations":null}')
    assert base.run("images", "-q") == ""
    base.run("load", stdin=pack(layout(layer=LAYER)))
    assert base.run("images", "-q") != ""
