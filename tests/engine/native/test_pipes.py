"""Answers through a pipe: pages pass by, and what was not sent disturbs nobody."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from overlayfs_py.engine.native import pipes, wire
from overlayfs_py.engine.native.pipes import AnswerPipe, Piped


@pytest.fixture
def pipe() -> Iterator[AnswerPipe]:
    made = AnswerPipe()
    yield made
    made.close()
    made.close()


@pytest.fixture
def target(tmp_path: Path) -> Iterator[int]:
    """Where answers go."""
    fd = os.open(tmp_path / "sent", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


@pytest.mark.parametrize(("offset", "size"), [(0, pipes.LONGEST), (1, pipes.LONGEST), (4096, 1 << 16)])
def test_pages_pass_by(pipe: AnswerPipe, target: int, tmp_path: Path, offset: int, size: int) -> None:
    content = os.urandom(2 << 20)
    (tmp_path / "file").write_bytes(content)
    with (tmp_path / "file").open("rb") as file:
        for unique in (7, 9):
            os.ftruncate(target, 0)
            os.lseek(target, 0, os.SEEK_SET)
            answer = pipe.fill(unique, file.fileno(), offset, size)
            assert isinstance(answer, Piped)
            assert len(answer) == size
            answer.pipe.send(target, answer.size)
            sent = os.pread(target, 4 << 20, 0)
            assert wire.OUT_HEADER.unpack_from(sent) == (16 + size, 0, unique)
            assert sent[16:] == content[offset : offset + size]


def test_end_of_the_file(pipe: AnswerPipe, target: int, tmp_path: Path) -> None:
    """The header that promised more is not sent, and the pipe is fit for the next."""
    (tmp_path / "file").write_bytes(b"x" * 70_000)
    with (tmp_path / "file").open("rb") as file:
        assert pipe.fill(3, file.fileno(), 0, 1 << 17) == b"x" * 70_000
        assert pipe.fill(5, file.fileno(), 1 << 20, 1 << 17) == b""
        assert isinstance(pipe.fill(7, file.fileno(), 0, 1 << 16), Piped)


def test_answer_that_was_not_sent(pipe: AnswerPipe, target: int, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * (1 << 17))
    with (tmp_path / "file").open("rb") as file:
        for unique in range(3, 9):
            answer = pipe.fill(unique, file.fileno(), 0, 1 << 17)
        assert isinstance(answer, Piped)
        answer.pipe.send(target, answer.size)
        assert wire.OUT_HEADER.unpack_from(os.pread(target, 100, 0))[2] == 8
