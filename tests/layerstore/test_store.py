"""The store on disk: blobs, index, locks, leftovers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from layerstore import media, reference
from layerstore.digest import Digest, VerifyingReader
from layerstore.errors import DigestMismatch, InvalidImage, LayerstoreError, NotFound, UnsupportedMedia
from layerstore.model import Descriptor
from layerstore.store import blobs, index
from layerstore.store.store import Store
from tests.layerstore.commands import contents

DATA = b"some content"
DESCRIPTOR = Descriptor(media_type=media.OCI_LAYER, digest=Digest.of(DATA), size=len(DATA))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "s")


def test_layout_is_an_image_layout(store: Store) -> None:
    assert contents(store.root) == sorted(
        [
            "./layers",
            "./oci",
            "./workspaces",
            "oci/blobs",
            "oci/blobs/sha256",
            "oci/index.json",
            "oci/oci-layout",
        ]
    )
    assert store.layers.stat().st_mode & 0o777 == 0o700
    assert store.workspaces.stat().st_mode & 0o777 == 0o700
    before = (store.oci / "index.json").read_bytes()
    Store.open(store.root)
    assert (store.oci / "index.json").read_bytes() == before


def test_blob_round_trip(store: Store) -> None:
    assert blobs.put_bytes(store, DATA) == DESCRIPTOR.digest
    assert blobs.read_blob(store, DESCRIPTOR) == DATA
    assert blobs.is_present(store, DESCRIPTOR)
    assert contents(store.blobs) == [f"./{DESCRIPTOR.digest.hex}"]


class Pieces:
    """A stream of one piece a read, as a network would give it."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)

    def read(self, size: int = -1, /) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""


def put(store: Store, *pieces: bytes, size: int) -> None:
    """As whoever downloads a blob stores it."""
    source = VerifyingReader(Pieces(*pieces), DESCRIPTOR.digest, size)
    with blobs.new_blob(store) as blob:
        while data := source.read(1 << 20):
            blob.write(data)
        blob.publish(DESCRIPTOR.digest, size)


@pytest.mark.parametrize(
    ("pieces", "size"),
    [
        ((b"some ", b"conten"), 12),
        ((b"some ", b"content", b"!"), 12),
        ((b"some ", b"content"), 11),
        ((b"some ", b"content"), 13),
        ((b"some ", b"contenT"), 12),
        ((b"some content",), -1),
        ((), 12),
    ],
)
def test_wrong_blobs_are_not_stored(store: Store, pieces: tuple[bytes, ...], size: int) -> None:
    with pytest.raises(DigestMismatch):
        put(store, *pieces, size=size)
    assert contents(store.blobs) == []


def test_right_blob_in_pieces(store: Store) -> None:
    put(store, b"some ", b"content", size=len(DATA))
    assert blobs.read_blob(store, DESCRIPTOR) == DATA


def test_changed_blobs_are_noticed(store: Store) -> None:
    blobs.put_bytes(store, DATA)
    place = blobs.path_of(store, DESCRIPTOR.digest)
    for wrong in (b"Some content", b"some content and more", b"some", b""):
        place.write_bytes(wrong)
        with pytest.raises(DigestMismatch):
            blobs.read_blob(store, DESCRIPTOR)
    place.unlink()
    with pytest.raises(NotFound):
        blobs.read_blob(store, DESCRIPTOR)


def test_only_regular_files_are_blobs(store: Store, tmp_path: Path) -> None:
    """A layout from elsewhere may hold symbolic links or fifos in place of blobs."""
    place = blobs.path_of(store, DESCRIPTOR.digest)
    (tmp_path / "secret").write_bytes(DATA)
    place.symlink_to(tmp_path / "secret")
    assert not blobs.is_present(store, DESCRIPTOR)
    with pytest.raises(OSError, match="symbolic"):
        blobs.read_blob(store, DESCRIPTOR)
    place.unlink()
    os.mkfifo(place)
    with pytest.raises(LayerstoreError, match="not a regular file"):
        blobs.read_blob(store, DESCRIPTOR)


def test_index_is_opened_without_following_links(store: Store, tmp_path: Path) -> None:
    real = tmp_path / "elsewhere.json"
    (store.oci / "index.json").rename(real)
    (store.oci / "index.json").symlink_to(real)
    with pytest.raises(OSError, match="symbolic"):
        index.read(store)


def test_names_move(store: Store) -> None:
    first = Descriptor(media_type=media.OCI_MANIFEST, digest=Digest.of(b"1"), size=1)
    second = Descriptor(media_type=media.OCI_MANIFEST, digest=Digest.of(b"2"), size=1)
    name = reference.parse("app:1")
    index.add(store, first, None)
    index.add(store, first, None)
    assert [index.name_of(e) for e in index.read(store).manifests] == [None]
    index.add(store, first, name)
    index.add(store, first, name)
    assert [index.name_of(e) for e in index.read(store).manifests] == ["app:1"]
    index.add(store, first, None)
    assert [index.name_of(e) for e in index.read(store).manifests] == ["app:1"]
    index.add(store, second, name)
    entries = [(e.digest, index.name_of(e)) for e in index.read(store).manifests]
    assert entries == [(first.digest, None), (second.digest, "app:1")]
    index.add(store, first, reference.parse("app:old"))
    entries = [(e.digest, index.name_of(e)) for e in index.read(store).manifests]
    assert entries == [(second.digest, "app:1"), (first.digest, "app:old")]
    assert index.read(store).manifests[0].annotations == {
        index.REF_NAME: "app:1",
        index.FULL_NAME: "docker.io/library/app:1",
    }


def test_foreign_entries_survive(store: Store) -> None:
    """What another tool wrote into the index stays as it was."""
    digest = Digest.of(b"1")
    (store.oci / "index.json").write_text(
        f'{{"schemaVersion":2,"annotations":{{"a":"b"}},"manifests":[{{"mediaType":"{media.OCI_INDEX}",'
        f'"digest":"{digest}","size":3,"platform":{{"architecture":"arm64","os":"linux","os.version":"7"}},'
        f'"annotations":{{"x":"y"}},"artifactType":"t","data":"AAA="}}]}}'
    )
    index.add(
        store,
        Descriptor(media_type=media.OCI_MANIFEST, digest=Digest.of(b"2"), size=1),
        reference.parse("a"),
    )
    changed = index.read(store)
    assert changed.annotations == {"a": "b"}
    kept = changed.manifests[0]
    assert (kept.data, kept.artifact_type, kept.annotations) == ("AAA=", "t", {"x": "y"})
    assert kept.platform is not None
    assert kept.platform.os_version == "7"


def test_layout_version(store: Store) -> None:
    (store.oci / "oci-layout").write_text('{"imageLayoutVersion":"2.0.0"}')
    with pytest.raises(UnsupportedMedia):
        Store.open(store.root)
    (store.oci / "oci-layout").write_text("{}")
    with pytest.raises(InvalidImage):
        Store.open(store.root)


def test_leftovers_of_the_dead_go_and_of_the_living_stay(store: Store) -> None:
    with store.temp_file(store.blobs) as (file, _), store.temp_dir(store.layers) as (directory, _):
        (directory / "x").mkdir()
        for place in (store.blobs, store.oci):
            (place / ".tmp-dead").write_bytes(b"x")
        (store.layers / ".tmp-dead" / "deep").mkdir(parents=True)
        (store.workspaces / ".tmp-dead").mkdir()
        Store.open(store.root)
        assert file.exists()
        assert (directory / "x").exists()
        assert not list(store.root.rglob(".tmp-dead"))
    assert not file.exists()
    assert not directory.exists()


def test_killed_process_leaves_only_leftovers(store: Store) -> None:
    program = (
        "import os, signal; from pathlib import Path; from layerstore.store.store import Store\n"
        f"s = Store.open(Path({str(store.root)!r}))\n"
        "with s.temp_file(s.blobs) as (p, fd), s.temp_dir(s.layers):\n"
        "    os.write(fd, b'half'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=False, timeout=30)
    assert len(list(store.root.rglob(".tmp-*"))) == 2
    Store.open(store.root)
    assert not list(store.root.rglob(".tmp-*"))


def test_root_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LayerstoreError, match="cannot open the store"):
        Store.open(tmp_path / "file")


def test_large_blob(store: Store) -> None:
    """Long enough for the disk to be begun with before its end."""
    data = os.urandom(blobs._EAGER) * 2 + b"end"
    digest = blobs.put_bytes(store, data)
    assert blobs.path_of(store, digest).read_bytes() == data
