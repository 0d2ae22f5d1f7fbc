"""Overlay semantics over directory descriptors: kernel overlayfs in plain Python.

Synchronous and single-threaded; knows neither FUSE nor trio. Engines reach it
through `union.overlay` and its value types only.
"""
