"""A layer tar unpacked into an empty directory, in kernel overlayfs's on-disk format.

`apply` reads the entries and `place` puts each where it belongs, through `rootdir`, which never leaves that
directory. `attributes` sets owners, modes, xattrs and times; `lowers` reads what the tar leaves to the layers
below.
"""
