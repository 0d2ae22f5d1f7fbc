"""What an upper directory changes, as a layer tar, as lines of ``diff``, or as a layer directory.

`walk` decides which entries there are and in which order; `members` turns them into tar members, `pipeline`
compresses and digests those, and `commit` joins the three. `rotate` moves the same entries into a directory:
it alone takes tools from `unpack`.
"""
