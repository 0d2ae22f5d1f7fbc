"""What users may ask of a mount that a unit's hardening could forbid its daemon; run in the mount named.

Its lower has: hello, lowerfile, big (files), lowerdir (a directory with one below).
"""

import os
import socket
import struct
import sys

os.umask(0)
os.chdir(sys.argv[1])
os.chown("hello", 1234, 5678)
os.chmod("hello", 0o6755)
os.utime("hello", ns=(1, 2))
os.mknod("fifo", 0o010600)
os.mknod("null", 0o020666, os.makedev(1, 3))
os.mknod("disk", 0o060600, os.makedev(7, 200))
with socket.socket(socket.AF_UNIX) as unix:
    unix.bind("socket")
os.symlink("hello", "symlink")
os.link("hello", "link")
os.mkdir("dir", 0o777)
os.rename("dir", "dir2")

net_raw = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)
os.setxattr("hello", "security.capability", net_raw)
os.setxattr("hello", "trusted.mine", b"1")
os.setxattr("hello", "user.mine", b"1")
ANYBODY = 0xFFFFFFFF
ACL = [(1, 6, ANYBODY), (2, 4, 1000), (4, 4, ANYBODY), (16, 4, ANYBODY), (32, 0, ANYBODY)]
packed = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in ACL)
os.setxattr("dir2", "system.posix_acl_default", packed)

os.unlink("lowerfile")
os.rename("lowerdir", "moved")
assert os.listdir("moved") == ["below"]
with open("big", "r+b") as big:
    big.seek(0, os.SEEK_END)
    big.write(b"x")
    os.fsync(big.fileno())

if os.fork() == 0:
    os.setgroups([])
    os.setgid(4321)
    os.setuid(4321)
    with open("dir2/users", "w"):
        os._exit(os.stat("dir2/users").st_uid != 4321)
assert os.wait()[1] == 0, "an ordinary user cannot create"

found = os.stat("hello")
assert (found.st_uid, found.st_gid, found.st_mtime_ns, found.st_nlink) == (1234, 5678, 2, 2), found
assert os.getxattr("hello", "security.capability") == net_raw
