"""Complete names of images and workspaces for a shell."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import click
from click.shell_completion import CompletionItem

import layerstore
from layerstore.errors import LayerstoreError

_PLAIN = re.compile(r"[A-Za-z0-9_.:/@-]+")  # names that no shell interprets; other tools may write any

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def images(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Complete repositories with their tags, and IDs if the word begins like one."""
    return _items(_image_words(_root(context), begun), begun)


def workspaces(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Complete names of workspaces."""
    return _items(_workspace_names(_root(context)), begun)


def either(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Complete workspaces, then images."""
    root = _root(context)
    return _items(_workspace_names(root), begun) + _items(_image_words(root, begun), begun)


def paths(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Complete files of the host, or the name of a workspace up to its colon."""
    named = _items((f"{name}:" for name in _workspace_names(_root(context))), begun)
    return [*named, CompletionItem(begun, type="file")]


def files(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Files of the host."""
    return [CompletionItem(begun, type="file")]


def _root(context: click.Context) -> str | None:
    top: Any = context.find_root().params.get("root")
    return top if isinstance(top, str) else None


def _items(words: Iterator[str], begun: str) -> list[CompletionItem]:
    """Return the words that fit and are safe to insert; none when the store cannot be read."""
    try:
        return [CompletionItem(word) for word in words if word.startswith(begun) and _PLAIN.fullmatch(word)]
    except (LayerstoreError, OSError):
        return []


def _image_words(root: str | None, begun: str) -> Iterator[str]:
    for image in layerstore.images(sizes=False, root=root, note=lambda line: None):
        if image.tag is not None:
            yield image.tag if image.repository is None else f"{image.repository}:{image.tag}"
        if image.tag is None or (begun and image.id.short.startswith(begun)):
            yield image.id.short


def _workspace_names(root: str | None) -> Iterator[str]:
    yield from (one.name for one in layerstore.ps(root=root, note=lambda line: None))
