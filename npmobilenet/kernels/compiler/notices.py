"""Telling the user why the first run is slow, or whoever listens which kernel is compiled."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterator

from npmobilenet.kernels.compiler.cache import cache_folder


@functools.cache
def _say_once() -> None:
    if not os.environ.get("NPMOBILENET_QUIET"):
        kept = (
            "kept for the next time" if cache_folder() else "there is no folder to keep them in: see npmobilenet doctor"
        )
        print(f"npmobilenet: compiling kernels for this machine ({kept}) ...", file=sys.stderr, flush=True)


def _default_listener(kernel: str) -> None:
    _say_once()


_listeners: list[Callable[[str], None]] = [_default_listener]  # the last one is told


@contextlib.contextmanager
def listening(callback: Callable[[str], None]) -> Iterator[None]:
    """A block in which `callback` gets the name of each kernel that is about to be compiled, not loaded.

    It takes the place of the notice on standard error, and of a callback of a block around this one.
    """
    _listeners.append(callback)
    try:
        yield
    finally:
        _listeners.remove(callback)


def about_to_compile(kernel: str) -> None:
    """Tell whoever listens."""
    _listeners[-1](kernel)
