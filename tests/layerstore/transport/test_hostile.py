"""Registries that want more than they should get: credentials, memory, another image's name."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import layerstore
from layerstore import media, model
from layerstore.digest import Digest
from layerstore.errors import DigestMismatch, InvalidImage, LayerstoreError, LimitExceeded, UnsupportedMedia
from layerstore.store.store import Store
from layerstore.transport.errors import LoginNeeded, RegistryError
from tests.layerstore.transport.samples import FAST, config, digests, leftovers
from tests.layerstore.transport.scripted import Answer, Scripted, scripted
from tests.layerstore.transport.test_auth import write_auth

LAYER = b"layer" * 1000


def descriptor(kind: str, raw: bytes, **more: Any) -> dict[str, Any]:
    return {"mediaType": kind, "digest": Digest.of(raw), "size": len(raw), **more}


def offer(script: Scripted, **more: Any) -> dict[str, Any]:
    """An honest image in the registry's memory; `more` replaces fields of its manifest."""
    raw = config([LAYER])
    script.blobs.update({str(Digest.of(blob)): blob for blob in (raw, LAYER)})
    manifest = {
        "schemaVersion": 2,
        "mediaType": media.OCI_MANIFEST,
        "config": descriptor(media.OCI_CONFIG, raw),
        "layers": [descriptor(media.OCI_LAYER_GZIP, LAYER)],
        **more,
    }
    publish(script, manifest)
    return manifest


def publish(script: Scripted, document: object, kind: str = media.OCI_MANIFEST) -> bytes:
    raw = document if isinstance(document, bytes) else model.encode(document)
    script.manifests["latest"] = script.manifests[str(Digest.of(raw))] = kind, raw
    return raw


def pull(script: Scripted, other: Store, **how: Any) -> Any:
    return layerstore.pull(f"{script.host}/app", root=other.root, options=FAST, **how)


def refused(script: Scripted, other: Store, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        pull(script, other)
    assert not layerstore.images(root=other.root)
    digests(other.root)


def test_honest(other: Store) -> None:
    with scripted() as script:
        offer(script)
        pull(script, other)


def test_layers_elsewhere(other: Store) -> None:
    """CVE-2020-15157: a layer's own URL is never followed."""
    with scripted() as evil, scripted() as script:
        layer = descriptor(media.OCI_LAYER_GZIP, LAYER, urls=[f"http://{evil.host}/steal"])
        offer(script, layers=[layer])
        refused(script, other, UnsupportedMedia, "stored outside the registry")
        assert not evil.seen


def test_redirect_drops_authorization(other: Store, home: Path) -> None:
    """Storage behind a redirect gets no credentials, nor is its challenge answered."""
    with scripted() as storage, scripted() as script:
        offer(script)
        write_auth(home / ".docker/config.json", script.host)
        write_auth(home / ".config/containers/auth.json", storage.host)
        script.answers["GET /v2/$"] = Answer(401, headers={"WWW-Authenticate": "Basic realm=x"})
        place = f"http://{storage.host}/v2/app/blobs/{Digest.of(LAYER)}?signature=hush"
        script.answers[f"GET .*{Digest.of(LAYER)}"] = Answer(307, headers={"Location": place})
        storage.blobs.update(script.blobs)
        pull(script, other)
        assert all("Authorization" in one.headers for one in script.requests("manifests|blobs"))
        assert storage.seen
        assert not any("Authorization" in one.headers for one in storage.seen)
        (other.blobs / Digest.of(LAYER).hex).unlink()
        storage.answers["GET"] = Answer(401, headers={"WWW-Authenticate": "Basic realm=x"})
        with pytest.raises(LoginNeeded, match="401") as caught:
            pull(script, other)
        assert "hush" not in str(caught.value)
        assert not any("Authorization" in one.headers for one in storage.seen)


def test_upload_elsewhere(store: Store, home: Path) -> None:
    """A place to upload to on another host gets the blob, not the credentials."""
    from tests.layerstore.transport.samples import image

    with scripted() as storage, scripted() as script:
        write_auth(home / ".docker/config.json", script.host)
        script.answers["GET /v2/$"] = Answer(401, headers={"WWW-Authenticate": "Basic realm=x"})
        place = f"http://{storage.host}/v2/x/blobs/uploads/u0"
        script.answers["^POST"] = Answer(202, headers={"Location": place})
        storage.uploads["u0"] = b""
        image(store, "app", [])
        layerstore.push("app", f"{script.host}/app", root=store.root, options=replace(FAST, jobs=1))
        assert storage.blobs
        assert "Authorization" in script.requests("^POST")[0].headers
        assert not any("Authorization" in one.headers for one in storage.seen)


def test_redirects_without_end(other: Store) -> None:
    with scripted() as script:
        script.answers["manifests"] = Answer(302, headers={"Location": "/v2/app/manifests/again"})
        refused(script, other, RegistryError, "more than 5 redirects")
        assert len(script.seen) < 10
        script.answers["manifests"] = Answer(302, headers={"Location": "file:///etc/passwd"})
        refused(script, other, RegistryError, "redirects to a URL without TLS")


@pytest.mark.parametrize(
    "realm",
    [
        "",
        "/token",
        "file:///etc/passwd",
        "http://evil.example/token",
        "https://u:p@evil.example/",
        "ftp://x/",
        "\\",
    ],
)
def test_realms(other: Store, home: Path, realm: str) -> None:
    """Credentials go to a token server with TLS, or on this machine, or nowhere."""
    with scripted() as script:
        offer(script)
        write_auth(home / ".docker/config.json", script.host)
        script.answers["v2"] = Answer(401, headers={"WWW-Authenticate": f'Bearer realm="{realm}"'})
        refused(script, other, RegistryError, r"names an? (invalid )?token server")


def test_token_servers(other: Store, home: Path) -> None:
    """Answers that are no tokens; a redirect gets no credentials."""
    with scripted() as tokens, scripted() as evil, scripted() as script:
        offer(script)
        write_auth(home / ".docker/config.json", script.host)
        challenge = f'Bearer realm="http://{tokens.host}/token"'
        script.answers["v2"] = Answer(401, headers={"WWW-Authenticate": challenge})
        cases = {
            b"{}": "returned no token",
            b"<html>": "returned no token",
            b'{"token": 5}': "returned no token",
            b'{"token": "a\\r\\nX-Evil: b"}': "returned no token",
            b'{"token": "' + b"a" * (2 << 20) + b'"}': "larger than",
        }
        for body, words in cases.items():
            tokens.answers["token"] = Answer(200, body)
            refused(script, other, LayerstoreError, words)
        tokens.answers["token"] = Answer(302, headers={"Location": f"http://{evil.host}/"})
        refused(script, other, RegistryError, "302")
        assert not evil.seen


def test_credentials_are_for_their_host(other: Store, home: Path) -> None:
    with scripted() as script:
        offer(script)
        write_auth(home / ".docker/config.json", "127.0.0.1:1")
        script.answers["v2"] = Answer(401, headers={"WWW-Authenticate": "Basic realm=x"})
        refused(script, other, LoginNeeded, "requires a login")
        assert not any("Authorization" in one.headers for one in script.seen)


def test_documents(other: Store) -> None:
    """What is no image, or two things at once, is refused before a layer is loaded."""
    with scripted() as script:
        good = offer(script)
        index = {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": []}
        wrong_config = {
            **good,
            "config": {**good["config"], "mediaType": "application/vnd.cncf.helm.config.v1+json"},
        }
        chart = {**good, "layers": [descriptor("application/x-chart", LAYER)]}
        cases: list[tuple[object, str, type[Exception], str]] = [
            ({**good, "manifests": []}, media.OCI_MANIFEST, InvalidImage, "both layers and manifests"),
            (good, media.DOCKER_MANIFEST, InvalidImage, "but its descriptor says"),
            (good, media.OCI_INDEX, InvalidImage, "invalid index"),
            ({**good, "manifests": []}, media.OCI_INDEX, InvalidImage, "is described|fields of a manifest"),
            (index, media.OCI_MANIFEST, InvalidImage, "invalid manifest"),
            (index, media.OCI_INDEX, LayerstoreError, "no image for linux/amd64; it has none"),
            ({**good, "schemaVersion": 1}, "", UnsupportedMedia, "schemaVersion 1"),
            (
                good,
                "application/vnd.docker.distribution.manifest.v1+prettyjws",
                UnsupportedMedia,
                "not an image",
            ),
            (good, "text/html", UnsupportedMedia, "not an image"),
            (b"[" * 5000, media.OCI_MANIFEST, LimitExceeded, "nested"),
            (b"\xff" * 10, media.OCI_MANIFEST, InvalidImage, "invalid manifest"),
            (wrong_config, media.OCI_MANIFEST, UnsupportedMedia, "not an image but"),
            (chart, media.OCI_MANIFEST, UnsupportedMedia, "unsupported media type application/x-chart"),
        ]
        for document, kind, error, words in cases:
            publish(script, document, kind)
            refused(script, other, error, words)
        assert not script.requests(f"blobs/{Digest.of(LAYER)}")


def test_digests(other: Store) -> None:
    """CVE-2024-3727: what is no digest never gets into a path or a URL."""
    with scripted() as script:
        for digest in (
            "sha256:../../../x",
            "sha256:" + "A" * 64,
            "sha256:" + "a" * 63,
            "md5:" + "a" * 32,
            "",
        ):
            layer = {**descriptor(media.OCI_LAYER_GZIP, LAYER), "digest": digest}
            offer(script, layers=[layer])
            refused(script, other, InvalidImage, "not a sha256 digest")
        assert not script.requests("blobs")


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (-1, "impossible"),
        (1 << 62, "more than are free"),
        (10, "longer than the 10 bytes"),
        (6000, "sent 5000 of"),
    ],
)
def test_sizes(other: Store, size: int, words: str) -> None:
    with scripted() as script:
        offer(script, layers=[{**descriptor(media.OCI_LAYER_GZIP, LAYER), "size": size}])
        refused(script, other, LayerstoreError, words)


def test_large_documents(other: Store) -> None:
    """Neither a manifest nor a configuration may fill the memory."""
    with scripted() as script:
        offer(script)
        publish(script, b" " * (5 << 20))
        refused(script, other, LimitExceeded, "larger than 4194304 bytes")
        huge = {**descriptor(media.OCI_CONFIG, b""), "size": 5 << 20}
        offer(script, config=huge)
        refused(script, other, LimitExceeded, "configuration is larger")
        script.answers["manifests"] = Answer(404, b"x" * (2 << 20))
        refused(script, other, LayerstoreError, "404 Not Found")


def test_another_manifest_than_asked_for(other: Store) -> None:
    """A digest is checked whoever gives it: the user, an index, the registry itself."""
    with scripted() as script:
        good = offer(script)
        digest = Digest.of(b"another")
        script.manifests[digest] = script.manifests["latest"]
        with pytest.raises(DigestMismatch, match="the manifest's digest is"):
            layerstore.pull(f"{script.host}/app@{digest}", root=other.root, options=FAST)
        platform = {"os": "linux", "architecture": "amd64"}
        size = len(script.manifests["latest"][1])
        entry = {"mediaType": media.OCI_MANIFEST, "digest": digest, "size": size, "platform": platform}
        document = {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": [entry]}
        publish(script, document, media.OCI_INDEX)
        refused(script, other, DigestMismatch, "the manifest's digest is")
        entry["size"] = size - 1
        publish(script, document, media.OCI_INDEX)
        refused(script, other, LimitExceeded, "larger than")
        raw = publish(script, good)
        claim = {"Content-Type": media.OCI_MANIFEST, "Docker-Content-Digest": digest}
        script.answers["manifests"] = Answer(200, raw, claim)
        refused(script, other, DigestMismatch, "the registry says")


def test_index_in_an_index(other: Store) -> None:
    with scripted() as script:
        platform = {"os": "linux", "architecture": "amd64"}
        raw = publish(script, {"schemaVersion": 2, "manifests": []}, media.OCI_INDEX)
        for _ in range(6):
            entry = {**descriptor(media.OCI_INDEX, raw), "platform": platform}
            raw = publish(script, {"schemaVersion": 2, "manifests": [entry]}, media.OCI_INDEX)
        refused(script, other, InvalidImage, "nested more than 4 deep")


def test_configuration_that_does_not_fit(other: Store) -> None:
    with scripted() as script:
        good = offer(script)
        offer(script, layers=[*good["layers"], *good["layers"]])
        refused(script, other, InvalidImage, "has 2 layers, but 1 diffIDs")


def test_endless_layer(other: Store) -> None:
    """A layer that goes on after its end is cut off there."""
    with scripted() as script:
        offer(script, layers=[descriptor(media.OCI_LAYER_GZIP, LAYER)])
        script.blobs[str(Digest.of(LAYER))] = LAYER + bytes(1 << 20)
        refused(script, other, DigestMismatch, "longer than the 5000 bytes")
        assert sum(path.stat().st_size for path in leftovers(other.root)) <= 5000


def test_partials_are_opened_without_following(other: Store, tmp_path: Path) -> None:
    """A link or a fifo in the place of a partial is not written through."""
    with scripted() as script:
        offer(script)
        place = other.root / "partial" / Digest.of(LAYER).hex
        place.parent.mkdir()
        victim = tmp_path / "victim"
        victim.write_text("mine")
        place.symlink_to(victim)
        with pytest.raises(OSError, match="symbolic links"):
            pull(script, other)
        assert victim.read_text() == "mine"


def test_message_without_colours(other: Store) -> None:
    """What a registry says cannot move the terminal's cursor."""
    body = json.dumps({"errors": [{"code": "DENIED", "message": "\x1b]0;x\x07 no\nlayerstore: all is well"}]})
    with scripted(answers={"manifests": Answer(403, body.encode())}) as script:
        with pytest.raises(LoginNeeded) as caught:
            pull(script, other)
        assert str(caught.value).isprintable()


def test_what_the_registry_says_about_its_limits(other: Store) -> None:
    body = b'{"errors": [{"code": "TOOMANYREQUESTS", "message": "You have reached your pull rate limit"}]}'
    with scripted(answers={"manifests": Answer(429, body)}) as script:
        refused(script, other, RegistryError, "429 TOOMANYREQUESTS .You have reached your pull rate limit")


def test_token_of_the_file_is_checked(other: Store, home: Path) -> None:
    """What does not fit into a header is not shown in an error about it either."""
    with scripted() as script:
        (home / ".docker").mkdir()
        kept = {"auths": {script.host: {"registrytoken": "hush\r\nX-Evil: 1"}}}
        (home / ".docker/config.json").write_text(json.dumps(kept))
        challenge = f'Bearer realm="http://{script.host}/token"'
        script.answers["v2"] = Answer(401, headers={"WWW-Authenticate": challenge})
        refused(script, other, LoginNeeded, "the stored token for .* is invalid")


def test_many_challenges_are_read_in_time() -> None:
    from layerstore.transport import challenge

    started = time.monotonic()
    for text in ("Bearer " * 20_000, 'Bearer a="' * 5_000, "a=b," * 20_000, 'Bearer x="' + "\\" * 100_000):
        challenge.parse([text] * 4)
    assert time.monotonic() - started < 2
