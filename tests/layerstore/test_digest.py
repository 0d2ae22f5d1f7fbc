"""Digests and the readers that insist on them."""

import io

import pytest

from layerstore.digest import Digest, Hasher, HashingWriter, VerifyingReader
from layerstore.errors import DigestMismatch, InvalidDigest

GOOD = "sha256:" + "0123456789abcdef" * 4


def test_a_digest_is_its_text() -> None:
    digest = Digest(GOOD)
    assert (digest, digest.hex, digest.short) == (GOOD, GOOD[7:], GOOD[7:19])
    assert Digest.of(b"") == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256:",
        GOOD[:-1],
        GOOD + "0",
        GOOD + "\n",
        GOOD.upper(),
        "SHA256:" + GOOD[7:],
        "sha256:../../../../etc/passwd",
        "sha256:" + "g" * 64,
        "sha256:" + "٠" * 64,
        "sha512:" + "0" * 128,
        "md5:" + "0" * 32,
        " " + GOOD,
        "x" * 10_000,
        None,
        b"sha256:" + b"0" * 64,
    ],
)
def test_everything_else_is_refused(text: object) -> None:
    """CVE-2024-3727: a digest that was never checked became a path."""
    with pytest.raises(InvalidDigest) as caught:
        Digest(text)  # type: ignore[arg-type]
    assert len(str(caught.value)) < 200


class OneByOne(io.RawIOBase):
    """Writes only one byte at a time, as a pipe may."""

    def __init__(self) -> None:
        self.got = b""

    def write(self, data: object) -> int:
        self.got += bytes(memoryview(data)[:1])  # type: ignore[arg-type]
        return 1


def test_hashing_writer_writes_all_and_counts() -> None:
    out = OneByOne()
    writer = HashingWriter(out)  # type: ignore[arg-type]
    assert writer.write(b"hello ") == 6
    writer.write(memoryview(b"world"))
    assert out.got == b"hello world"
    assert (writer.size, writer.digest()) == (11, Digest.of(b"hello world"))
    hasher = Hasher()
    hasher.update(b"x")
    assert (hasher.size, hasher.digest()) == (1, Digest.of(b"x"))


def test_verifying_reader_accepts_the_right_bytes() -> None:
    reader = VerifyingReader(io.BytesIO(b"content"), Digest.of(b"content"), 7)
    assert (reader.read(3), reader.read(0), reader.read(), reader.read(1)) == (b"con", b"", b"tent", b"")
    reader.verify()
    early = VerifyingReader(io.BytesIO(b"content"), Digest.of(b"content"), 7)
    early.read(1)
    early.verify()


@pytest.mark.parametrize(
    ("content", "size"), [(b"conten", 7), (b"content!", 7), (b"CONTENT", 7), (b"", 7), (b"content", 8)]
)
def test_verifying_reader_refuses_others(content: bytes, size: int) -> None:
    with pytest.raises(DigestMismatch, match="sha256:"):
        VerifyingReader(io.BytesIO(content), Digest.of(b"content"), size).read()
    with pytest.raises(DigestMismatch):
        VerifyingReader(io.BytesIO(content), Digest.of(b"content"), size).verify()


def test_verifying_reader_refuses_at_the_first_byte_too_many() -> None:
    """An endless stream is not read to its end."""
    with open("/dev/zero", "rb") as endless:
        reader = VerifyingReader(endless, Digest.of(b""), 10)
        with pytest.raises(DigestMismatch, match="longer than the 10 bytes"):
            reader.read()
    with pytest.raises(DigestMismatch, match="impossible"):
        VerifyingReader(io.BytesIO(), Digest.of(b""), -1)
