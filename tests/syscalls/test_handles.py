import ctypes
import errno
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from overlayfs_py.syscalls import handles


def test_round_trip_survives_rename(root: None, tmp_path: Path, dir_fd: int) -> None:
    (tmp_path / "a").write_bytes(b"hello")
    kind, handle = handles.encode_handle(dir_fd, b"a")
    (tmp_path / "a").rename(tmp_path / "b")
    assert handles.encode_handle(dir_fd, b"b") == (kind, handle)
    fd = handles.open_handle(dir_fd, kind, handle, os.O_RDONLY)
    try:
        assert os.read(fd, 10) == b"hello"
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_PATH])
def test_empty_name_is_the_descriptor_itself(tmp_path: Path, dir_fd: int, flags: int) -> None:
    (tmp_path / "a").touch()
    fd = os.open(tmp_path / "a", flags)
    try:
        assert handles.encode_handle(fd, b"") == handles.encode_handle(dir_fd, b"a")
    finally:
        os.close(fd)


def test_does_not_follow_a_symbolic_link(root: None, tmp_path: Path, dir_fd: int) -> None:
    (tmp_path / "target").touch()
    (tmp_path / "link").symlink_to("target")
    assert handles.encode_handle(dir_fd, b"link") != handles.encode_handle(dir_fd, b"target")
    fd = handles.open_handle(dir_fd, *handles.encode_handle(dir_fd, b"link"), os.O_PATH)
    try:
        assert os.readlink("", dir_fd=fd) == "target"
    finally:
        os.close(fd)


def test_a_handle_too_long_for_the_first_buffer(
    tmp_path: Path, dir_fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = handles.encode_handle(dir_fd, b"")
    monkeypatch.setattr(handles, "_FIRST_SIZE", 4)
    monkeypatch.setattr(handles, "_first_question", struct.pack("=Ii", 4, 0) + bytes(32))
    again: list[int] = []
    make = ctypes.create_string_buffer

    def watched(init: bytes, size: int) -> object:
        again.append(size)
        return make(init, size)

    monkeypatch.setattr(ctypes, "create_string_buffer", watched)
    assert handles.encode_handle(dir_fd, b"") == expected
    assert again == [8 + len(expected[1])]


def test_errors(root: None, tmp_path: Path, dir_fd: int) -> None:
    with pytest.raises(FileNotFoundError):
        handles.encode_handle(dir_fd, b"missing")
    proc = os.open("/proc/self", os.O_RDONLY)
    try:
        with pytest.raises(OSError) as raised:  # noqa: PT011 - the errno is checked below
            handles.encode_handle(proc, b"status")
        assert raised.value.errno == errno.EOPNOTSUPP
    finally:
        os.close(proc)
    (tmp_path / "a").touch()
    kind, handle = handles.encode_handle(dir_fd, b"a")
    (tmp_path / "a").unlink()
    with pytest.raises(OSError) as raised:  # noqa: PT011 - the errno is checked below
        handles.open_handle(dir_fd, kind, handle, os.O_RDONLY)
    assert raised.value.errno == errno.ESTALE


def test_opening_needs_privilege(root: None) -> None:
    script = (
        "import os\nfrom overlayfs_py.syscalls import handles\n"
        "fd = os.open('/', os.O_RDONLY)\n"
        "try: handles.open_handle(fd, *handles.encode_handle(fd, b''), os.O_RDONLY)\n"
        "except PermissionError as e: print(e.errno)"
    )
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-c", script]
    assert subprocess.run(command, check=True, capture_output=True, timeout=30).stdout == b"1\n"
