"""Workspaces: a writable layer over an image, and its mount."""
