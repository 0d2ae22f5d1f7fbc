"""Layers: an overlay's upper directory to a changeset tar, and a changeset tar to an overlay layer."""
