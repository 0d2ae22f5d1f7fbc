"""Documents are parsed strictly."""

import json
import time

import pytest

from layerstore import media, model
from layerstore.digest import Digest
from layerstore.errors import InvalidImage, LayerstoreError, LimitExceeded, UnsupportedMedia
from layerstore.limits import DEFAULT_LIMITS

DIGEST = Digest.of(b"x")
CONFIG = {"mediaType": media.OCI_CONFIG, "digest": DIGEST, "size": 1}
MANIFEST = {"schemaVersion": 2, "mediaType": media.OCI_MANIFEST, "config": CONFIG, "layers": [CONFIG]}
INDEX = {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": [CONFIG]}


def manifest_with(**changes: object) -> bytes:
    return json.dumps({**MANIFEST, **changes}).encode()


def test_manifest() -> None:
    manifest = model.parse_manifest(manifest_with(unknown={"a": 1}), media.OCI_MANIFEST)
    assert manifest.config.digest == DIGEST
    assert isinstance(manifest.config.digest, Digest)
    assert model.parse_manifest(json.dumps({**MANIFEST, "mediaType": ""}).encode()).layers


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (manifest_with(manifests=[]), InvalidImage),
        (manifest_with(manifests=None), InvalidImage),
        (manifest_with(mediaType=media.OCI_INDEX), InvalidImage),
        (manifest_with(mediaType=media.DOCKER_MANIFEST), InvalidImage),
        (manifest_with(schemaVersion=1), UnsupportedMedia),
        (manifest_with(config={**CONFIG, "size": -1}), InvalidImage),
        (manifest_with(layers=[{**CONFIG, "size": -7}]), InvalidImage),
        (manifest_with(config={**CONFIG, "size": 1 << 80}), InvalidImage),
        (manifest_with(config={**CONFIG, "size": "1"}), InvalidImage),
        (manifest_with(config={**CONFIG, "digest": "sha256:../../x"}), InvalidImage),
        (manifest_with(config={**CONFIG, "digest": DIGEST.upper()}), InvalidImage),
        (manifest_with(config={**CONFIG, "digest": "sha512:" + "a" * 128}), InvalidImage),
        (manifest_with(layers=[CONFIG] * (DEFAULT_LIMITS.max_layers + 1)), LimitExceeded),
        (manifest_with(layers={}), InvalidImage),
        (manifest_with(layers=[None]), InvalidImage),
        (manifest_with(config=None), InvalidImage),
        (manifest_with(config={**CONFIG, "digest": None}), InvalidImage),
        (b"", InvalidImage),
        (b"[]", InvalidImage),
        (b"\xff\xfe", InvalidImage),
        (manifest_with()[:-1], InvalidImage),
        (manifest_with() + b"x", InvalidImage),
        (b"[" * 10_000_000, LimitExceeded),
        (b'{"a":' * 100_000, LimitExceeded),
        (b" " * (DEFAULT_LIMITS.max_document + 1), LimitExceeded),
    ],
)
def test_manifest_refused(raw: bytes, error: type[LayerstoreError]) -> None:
    with pytest.raises(error):
        model.parse_manifest(raw, media.OCI_MANIFEST)


def test_index_that_is_a_manifest_too() -> None:
    extras: list[dict[str, object]] = [{"layers": []}, {"config": CONFIG}]
    for extra in extras:
        with pytest.raises(InvalidImage):
            model.parse_index(json.dumps({**INDEX, **extra}).encode())
    assert model.parse_index(json.dumps(INDEX).encode()).manifests


def test_config() -> None:
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [DIGEST]}}
    parsed = model.parse_config(json.dumps({**config, "history": None, "container": "x"}).encode())
    assert parsed.steps == []
    with pytest.raises(InvalidImage):
        model.parse_config(json.dumps({**config, "rootfs": {"type": "tree", "diff_ids": []}}).encode())
    with pytest.raises(InvalidImage):
        model.parse_config(json.dumps({**config, "rootfs": {"type": "layers", "diff_ids": ["x"]}}).encode())
    lists: list[object] = [{"Env": [1]}, {"Env": "A=1"}, {"Cmd": "sh"}, {"OnBuild": {}}]
    for wrong in [*lists, {"Labels": {"a": 1}}, []]:
        with pytest.raises(InvalidImage):
            model.parse_config(json.dumps({**config, "config": wrong}).encode())
    plain = {
        "Env": None,
        "Cmd": ["x"],
        "OnBuild": ["RUN x"],
        "ArgsEscaped": True,
        "Healthcheck": {"Test": ["NONE"]},
    }
    assert model.parse_config(json.dumps({**config, "config": plain}).encode()).config == plain


def test_depth_check_is_linear() -> None:
    """Unterminated strings and escapes must not make the check quadratic (CVE-2023-25153 and its kin)."""
    for hostile in (b'"\\"' * 300_000, b'"' * 1_000_001, b"\\" * 1_000_000 + b'"'):
        start = time.monotonic()
        with pytest.raises(InvalidImage):
            model.parse_manifest(hostile)
        assert time.monotonic() - start < 5


def test_encoding_is_deterministic() -> None:
    assert model.encode({"b": 1, "a": DIGEST}) == b'{"a":"%s","b":1}' % DIGEST.encode()
