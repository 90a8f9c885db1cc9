"""A stream of images on several cores: each thread has an image of its own from file to result, and a model for it.

So no core waits for another, neither at the end of a layer nor for an image that isn't read yet.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore, Lock, get_ident
from typing import Generic, TypeVar

from npmobilenet.images import prefetch

M = TypeVar("M")
Item = TypeVar("Item")
Ready = TypeVar("Ready")
Result = TypeVar("Result")


class Twins(Generic[M]):
    """At most `most` of what `make` makes, as many as are in use at once; they are kept for the next who asks."""

    def __init__(self, make: Callable[[], M], most: int) -> None:
        self._make, self._most = make, most
        self._begin()

    def _begin(self) -> None:
        self._process, self._idle = os.getpid(), list[M]()
        self._places, self._lock = BoundedSemaphore(self._most), Lock()

    @contextmanager
    def one(self) -> Iterator[M]:
        """One that nobody else has until the block is left."""
        if self._process != os.getpid():  # a fork, whose parent's threads may have held places
            self._begin()
        with self._places:
            with self._lock:
                twin = self._idle.pop() if self._idle else self._make()
            try:
                yield twin
            finally:
                self._idle.append(twin)

    @contextmanager
    def in_order(
        self,
        own: M,
        prepare: Callable[[Item], Ready],
        use: Callable[[M, Ready], Result],
        items: Iterable[Item],
        ahead: int,
    ) -> Iterator[Iterator[Result]]:
        """`use(one of these, prepare(item))` for each of `items`, in their order: see `prefetch.in_order`.

        One item alone is the calling thread's, with `own`.
        """
        caller, cores = get_ident(), prefetch.cores()
        readers = BoundedSemaphore(prefetch.MOST_READERS)

        def work(item: Item) -> Result:
            with readers:
                ready = prepare(item)
            if get_ident() == caller:
                return use(own, ready)
            with self.one() as twin:
                return use(twin, ready)

        with prefetch.in_order(work, items, max(ahead, 2 * cores), cores) as results:
            yield results
