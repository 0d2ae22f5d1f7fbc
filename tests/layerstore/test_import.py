"""``import`` through the command line."""

import bz2
import gzip
import hashlib
import http.server
import json
import lzma
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

import layerstore
from tests.layerstore.commands import ROOTFS, Cli, contents, tarball
from tests.layerstore.transport.servers import web_server

TAR = tarball(ROOTFS)
FIXED = {"SOURCE_DATE_EPOCH": "1700000000"}


def only_manifest(cli: Cli) -> dict[str, Any]:
    (entry,) = json.loads((cli.root / "oci/index.json").read_text())["manifests"]
    return dict(json.loads((cli.root / "oci/blobs/sha256" / entry["digest"][7:]).read_text()))


@pytest.mark.parametrize(
    ("data", "media_type", "kept"),
    [
        (TAR, "tar", True),
        (gzip.compress(TAR, 1), "tar+gzip", True),
        (zstandard.compress(TAR), "tar+zstd", True),
        (bz2.compress(TAR), "tar+gzip", False),
        (lzma.compress(TAR), "tar+gzip", False),
    ],
    ids=["none", "gzip", "zstd", "bzip2", "xz"],
)
def test_compressions(cli: Cli, tmp_path: Path, data: bytes, media_type: str, kept: bool) -> None:
    """What OCI allows is kept byte for byte, the rest is compressed again; the diffID is the tar's in any
    case.
    """
    (tmp_path / "rootfs").write_bytes(data)
    image_id = cli.run("import", tmp_path / "rootfs", "base")
    (described,) = json.loads(cli.run("inspect", "base"))
    diff_id = "sha256:" + hashlib.sha256(TAR).hexdigest()
    assert described["Id"] == image_id
    assert described["RootFS"]["Layers"] == [diff_id]
    (layer,) = only_manifest(cli)["layers"]
    assert layer["mediaType"] == f"application/vnd.oci.image.layer.v1.{media_type}"
    blob = (cli.root / "oci/blobs/sha256" / layer["digest"][7:]).read_bytes()
    assert (blob == data) is kept
    assert layer["size"] == len(blob)
    if not kept:
        assert gzip.decompress(blob) == TAR
    unpacked = cli.root / "layers" / diff_id[7:]
    assert (unpacked / "etc/hosts").read_bytes() == ROOTFS["etc/hosts"]
    assert os.readlink(unpacked / "lib") == "usr/lib"
    assert not list(cli.root.rglob(".tmp-*"))


def test_options_and_output(cli: Cli) -> None:
    words = ["-c", 'CMD ["/bin/sh"]', "-c", "ENV A=1", "-m", "the base", "-", "base:1"]
    image_id = cli.run("import", *words, stdin=TAR, env=FIXED)
    assert image_id.startswith("sha256:")
    assert len(image_id) == 71
    (described,) = json.loads(cli.run("inspect", image_id))
    said = {key: value for key, value in described["Config"].items() if value}
    assert said == {"Cmd": ["/bin/sh"], "Env": ["A=1"]}
    assert described["Comment"] == "the base"
    assert described["Created"] == "2023-11-14T22:13:20Z"
    assert described["RepoTags"] == ["base:1"]
    assert described["Os"] == "linux"
    assert described["Architecture"] in {"amd64", "arm64"}


def test_same_input_same_image(cli: Cli, where: Path) -> None:
    other = Cli(where / "other")
    first = cli.run("import", "-", "a:1", stdin=TAR, env=FIXED)
    (where / "t.tar").write_bytes(TAR)
    assert other.run("import", where / "t.tar", "b:1", env=FIXED) == first
    assert only_manifest(cli) == only_manifest(other)


def test_without_a_name(cli: Cli) -> None:
    image_id = cli.run("import", "-", stdin=TAR)
    (line,) = cli.objects("images")
    assert (line["Repository"], line["Tag"]) == ("<none>", "<none>")
    assert image_id[7:19] == line["ID"]
    assert cli.run("images", "-q") == line["ID"]


def test_as_a_function(where: Path) -> None:
    (where / "t.tar").write_bytes(TAR)
    seen: list[int] = []
    image_id = layerstore.import_(
        str(where / "t.tar"), "base", changes=["USER me"], root=where / "s", progress=seen.append
    )
    assert layerstore.inspect("base", root=where / "s")["Id"] == image_id
    assert seen[-1] == len(TAR)


BAD_INPUT = {
    "empty": b"",
    "text": b"this is no tarball\n" * 100,
    "truncated tar": TAR[: len(TAR) // 2],
    "truncated in a header": TAR[:700],
    "truncated gzip": gzip.compress(TAR)[:-20],
    "truncated xz": lzma.compress(TAR)[:-20],
    "truncated zstd": zstandard.compress(TAR)[:-20],
    "damaged gzip": gzip.compress(TAR)[:100] + b"\0" * 50 + gzip.compress(TAR)[150:],
    "damaged bzip2": b"BZh9" + b"\0" * 300,
    "leaves the root": tarball({"../evil": b"x"}),
    "compressed nothing": gzip.compress(b""),
}


@pytest.mark.parametrize("data", BAD_INPUT.values(), ids=BAD_INPUT.keys())
def test_bad_input_leaves_nothing(cli: Cli, data: bytes) -> None:
    cli.make_store()
    before = contents(cli.root)
    message = cli.fail("import", "-", "base", stdin=data)
    assert message
    assert contents(cli.root) == before


def test_nothing_is_written_through_a_link(cli: Cli, where: Path) -> None:
    outside = where / "outside"
    outside.mkdir()
    cli.run("import", "-", "base", stdin=tarball({"a": str(outside), "a/evil": b"x"}))
    assert list(outside.iterdir()) == []


def test_bad_words(cli: Cli, where: Path) -> None:
    assert cli.fail("import", where / "no such") == f"no such file: {where / 'no such'}"
    assert "lower case" in cli.fail("import", "-", "Base", stdin=TAR)
    assert cli.fail("import", "-c", "RUN x", "-", stdin=TAR).startswith("-c 'RUN x': RUN is not one of CMD")
    assert "directory" in cli.fail("import", where).lower()
    assert "SOURCE_DATE_EPOCH" in cli.fail("import", "-", stdin=TAR, env={"SOURCE_DATE_EPOCH": "now"})
    assert "Missing argument" in cli.fail("import", status=2)


class Site(http.server.BaseHTTPRequestHandler):
    """Serves the tarball, cut short, or not at all."""

    def do_GET(self) -> None:
        if self.path == "/missing":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(TAR)))
        self.end_headers()
        self.wfile.write(TAR[: len(TAR) // 2] if self.path == "/short" else TAR)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def site() -> Iterator[str]:
    with web_server(Site) as url:
        yield url


def test_url(cli: Cli, site: str) -> None:
    env = {"no_proxy": "127.0.0.1"}
    cli.run("import", f"{site}/rootfs.tar", "web", env=env)
    (step,) = cli.objects("history", "web")
    assert step["Comment"] == f"Imported from {site}/rootfs.tar"
    assert "404" in cli.fail("import", f"{site}/missing", env=env)
    assert "ended after" in cli.fail("import", f"{site}/short", env=env)
    refused = "cannot get http://127.0.0.1:1/x: Connection refused"
    assert cli.fail("import", "http://127.0.0.1:1/x", env=env) == refused
    assert not list(cli.root.rglob(".tmp-*"))
