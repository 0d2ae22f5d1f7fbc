"""Layers: an overlay's upper directory becomes a changeset tar, and a changeset tar becomes an overlay layer.

`write` makes layers, `unpack` reads them back, and both stand on `tar`, which knows the archive format and no
overlay. What they share is beside them: whiteouts, owner maps, stacks, notes for the user.
"""
