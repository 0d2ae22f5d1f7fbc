"""Memory does not grow with the layer: measured in a process of its own."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = [pytest.mark.root, pytest.mark.slow]


def peak_mib(where: Path, program: str) -> tuple[float, dict[str, int]]:
    """Run a program that prints JSON; its peak resident memory in MiB."""
    prelude = """
        import io, json, os, sys
        from layerstore.layer.unpack.apply import apply_layer
        from layerstore.layer.write.commit import write_layer
        from layerstore.layer.stack import StackPaths
        from tests.layerstore.layer import tars
        def done(**facts):
            # Not getrusage: its peak includes that of the process that started this one.
            with open("/proc/self/status") as status:
                peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
            print(json.dumps({"peak": peak / 1024, **facts}))
    """
    text = textwrap.dedent(prelude) + textwrap.dedent(program)
    root = Path(__file__).resolve().parents[3]
    env = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", text],
        cwd=where,
        env=env,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    return facts.pop("peak"), facts


@pytest.mark.parametrize(
    ("compression", "most"), [("none", 60), ("gzip", 70), ("zstd", 110 + 16 * (os.cpu_count() or 1))]
)
def test_committing_a_big_file(where: Path, compression: str, most: int) -> None:
    (where / "upper").mkdir()
    with open(where / "upper/big", "wb") as stream:
        for _ in range(300):
            stream.write(os.urandom(1 << 20))
    peak, facts = peak_mib(
        where,
        f"""
        with open("layer", "wb", buffering=0) as out:
            result = write_layer(StackPaths(b"upper"), out, compression="{compression}")
        done(size=result.uncompressed_size)
        """,
    )
    assert facts["size"] > 300 << 20
    assert peak < most


def test_committing_many_files(where: Path) -> None:
    """10,000 entries in several directories."""
    for number in range(10):
        (where / f"upper/{number}").mkdir(parents=True)
        for name in range(1000):
            (where / f"upper/{number}/{name}").touch()
    peak, facts = peak_mib(
        where,
        """
        with open("layer", "wb", buffering=0) as out:
            done(entries=write_layer(StackPaths(b"upper"), out).entries)
        """,
    )
    assert facts["entries"] == 10_011
    assert peak < 60


def test_unpacking_a_big_file_and_many_directories(where: Path) -> None:
    """The directories' attributes are set last, but not remembered in memory."""
    peak, facts = peak_mib(
        where,
        """
        class Made(io.RawIOBase):
            def __init__(self):
                self.pieces = self.make()
                self.rest = b""
            def make(self):
                for number in range(5_000):
                    yield tars.directory(b"some-directory-name-%d/" % number, mtime=number)
                yield tars.block(b"big", size=300 << 20)
                for _ in range(300):
                    yield bytes(range(256)) * 4096
                yield tars.END
            def read(self, size=-1):
                while len(self.rest) < size:
                    piece = next(self.pieces, None)
                    if piece is None:
                        break
                    self.rest += piece
                data, self.rest = self.rest[:size], self.rest[size:]
                return data
        os.mkdir("o")
        fd = os.open("o", os.O_RDONLY)
        result = apply_layer(Made(), fd)
        done(entries=result.entries, mtime=int(os.stat("o/some-directory-name-4999").st_mtime))
        """,
    )
    assert facts == {"entries": 5_001, "mtime": 4999}
    assert peak < 70


@pytest.mark.parametrize("kind", ["gzip", "zstd", "bzip2", "xz"])
def test_a_bomb_is_met_with_little_memory(where: Path, kind: str) -> None:
    """4 GiB of zeros in a few megabytes or less: refused by its ratio."""
    peak, facts = peak_mib(
        where,
        f"""
        import bz2, lzma, zlib, zstandard
        from layerstore.errors import LimitExceeded
        from layerstore.limits import Limits
        new = {{
            "gzip": lambda: zlib.compressobj(9, zlib.DEFLATED, 31),
            "zstd": lambda: zstandard.ZstdCompressor(level=3).compressobj(),
            "bzip2": lambda: bz2.BZ2Compressor(9),
            "xz": lambda: lzma.LZMACompressor(preset=1),
        }}["{kind}"]
        stream = new()
        head = stream.compress(tars.block(b"bomb", size=4 << 30))
        blob = head + b"".join(stream.compress(bytes(1 << 20)) for _ in range(96)) + stream.flush()
        os.mkdir("o")
        fd = os.open("o", os.O_RDONLY)
        try:
            apply_layer(io.BytesIO(blob), fd, limits=Limits(max_ratio=200, ratio_floor=16 << 20))
        except LimitExceeded:
            done(refused=1, written=os.stat("o/bomb").st_size if os.path.exists("o/bomb") else 0)
        """,
    )
    assert facts["refused"]
    assert facts["written"] <= 96 << 20
    assert peak < 200


@pytest.mark.parametrize("kind", ["matches", "runs"])
def test_a_small_zstd_bomb_costs_little(where: Path, kind: str) -> None:
    """98 KB that become 3 GiB, 128 KiB from each four bytes: with the limits that everybody has."""
    peak, facts = peak_mib(
        where,
        f"""
        import zstandard
        from layerstore.errors import LimitExceeded
        head = tars.block(b"bomb", size=3 << 30)
        if "{kind}" == "runs":
            run = (128 << 10) << 3 | 2
            blob = b"\\x28\\xb5\\x2f\\xfd\\0\\x58" + (len(head) << 3).to_bytes(3, "little") + head
            blob += (run.to_bytes(3, "little") + b"a") * (3 << 30 >> 17) + b"\\x01\\0\\0"
        else:
            stream = zstandard.ZstdCompressor(level=3).compressobj()
            blob = stream.compress(head)
            blob += b"".join(stream.compress(bytes(1 << 20)) for _ in range(3072)) + stream.flush()
        assert len(blob) < 100_000
        os.mkdir("o")
        fd = os.open("o", os.O_RDONLY)
        try:
            apply_layer(io.BytesIO(blob), fd)
        except LimitExceeded as error:
            done(refused=error.limit == "ratio")
        """,
    )
    assert facts["refused"]
    assert peak < 60


def test_no_descriptor_is_left_open(where: Path) -> None:
    """After a commit, an unpack, and a failed one of each."""
    _, facts = peak_mib(
        where,
        """
        from layerstore.errors import LayerstoreError
        os.makedirs("upper/a/b/c")
        os.mkdir("lower")
        before = len(os.listdir("/proc/self/fd"))
        out = io.BytesIO()
        write_layer(StackPaths(b"upper", (b"lower",)), out)
        open("upper/a/.wh.x", "w").close()
        try:
            write_layer(StackPaths(b"upper", (b"lower",)), io.BytesIO())
        except LayerstoreError:
            pass
        os.mkdir("o")
        fd = os.open("o", os.O_RDONLY)
        apply_layer(io.BytesIO(out.getvalue()), fd, lowers=[b"lower"])
        try:
            apply_layer(io.BytesIO(tars.member(b"a/b/../x")), fd)
        except LayerstoreError:
            pass
        os.close(fd)
        done(left=len(os.listdir("/proc/self/fd")) - before)
        """,
    )
    assert facts["left"] == 0
