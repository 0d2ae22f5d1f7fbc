"""A file system of one empty directory, in a thread: just enough protocol to see what the kernel sends.

Run as ``python fuse_requests.py MOUNTPOINT OPTION...`` it mounts, prints "mounted" and serves until its input
ends, which leaves a dead mount unless it was told to unmount: so a mount by another user is tried out.
"""

import os
import struct
import sys
import threading
from dataclasses import dataclass, field
from typing import Any

from overlayfs_py.errors import MountError
from overlayfs_py.options import MountOptions
from overlayfs_py.syscalls import mount

LOOKUP, GETATTR, MKDIR, STATFS, INIT, INTERRUPT, FORGET, BATCH_FORGET = 1, 3, 9, 17, 26, 36, 2, 42

_IN = struct.Struct("=IIQQIIIHH")
_OUT = struct.Struct("=IiQ")
_INIT_OUT = struct.Struct("=IIIIHHIIHH32x")
_ATTR_OUT = struct.Struct("=QII6Q3I7I")
_MKDIR_IN = struct.Struct("=II")


@dataclass
class EmptyDirectory:
    """Serves `fd` until it is unmounted; remembers each MKDIR (mode, umask), which it refuses with EPERM."""

    fd: int
    made: list[tuple[int, int]] = field(default_factory=list)

    def start(self) -> threading.Thread:
        thread = threading.Thread(target=self._serve, daemon=True)
        thread.start()
        return thread

    def _serve(self) -> None:
        while True:
            try:
                message = os.read(self.fd, 1 << 20)
            except OSError:  # ENODEV: unmounted
                return
            _, opcode, unique, *_ = _IN.unpack_from(message)
            reply = self._reply(opcode, message[_IN.size :])
            if reply is None:
                continue
            error, body = reply
            try:
                os.write(self.fd, _OUT.pack(_OUT.size + len(body), -error, unique) + body)
            except OSError:  # ENOENT: interrupted meanwhile
                continue

    def _reply(self, opcode: int, body: bytes) -> tuple[int, bytes] | None:
        if opcode == INIT:
            return 0, _INIT_OUT.pack(7, 31, 65536, 0, 8, 8, 65536, 1, 0, 0)
        if opcode == GETATTR:
            owner = (os.getuid(), os.getgid())
            return 0, _ATTR_OUT.pack(0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0o40755, 2, *owner, 0, 512, 0)
        if opcode in (FORGET, BATCH_FORGET, INTERRUPT):
            return None
        if opcode == LOOKUP:
            return 2, b""
        if opcode == MKDIR:
            self.made.append(_MKDIR_IN.unpack_from(body))
            return 1, b""
        return 38, b""


def main() -> None:
    where = os.fsencode(sys.argv[1])
    switches: dict[str, Any] = dict.fromkeys(sys.argv[2:], True)
    try:
        fd = mount.mount_fuse(MountOptions(mountpoint=where, **switches))
    except MountError as error:
        print(error)
        return
    EmptyDirectory(fd).start()
    print("mounted", flush=True)
    for line in sys.stdin:
        if line.startswith("unmount"):
            try:
                mount.unmount(where, lazy="lazy" in line)
                print("unmounted", flush=True)
            except MountError as error:
                print(error, flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
