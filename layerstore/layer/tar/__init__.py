"""The tar format: entries, headers, PAX records, sparse maps, and the compressed stream they come in.

Reads what real writers produce and refuses damage; writes ustar, and PAX records where ustar is not enough.
Knows nothing of overlays: what an entry means on disk is for `unpack` and `write` to decide.
"""
