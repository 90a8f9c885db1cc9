"""Preparing images by threads, a bounded number of them ahead of the model, results in the order of the images.

Reading, decoding and resizing release Python's lock for most of their time, so threads are enough.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_READERS = 4  # a decoded photo of the largest size allowed has 300 MB, so not one for each of many cores


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def in_order(
    work: Callable[[Item], Result], items: Iterable[Item], ahead: int, threads: int | None = None
) -> Iterator[Iterator[Result]]:
    """`work(item)` for each of `items`, in their order, by threads that have ended when the block is left.

    `threads`: how many; None: as many as may read images at once.

    At most `ahead` items are taken from `items`, always by the calling thread, whose results the block hasn't asked
    for yet; so neither many nor endless items need memory. What `work` raises, the block gets when it asks for that
    item's result, and what was not begun by then is dropped. One item alone is worked on by the calling thread.
    """
    rest = iter(items)
    first = list(islice(rest, 2))
    if len(first) < 2:
        yield map(work, first)
        return
    from concurrent.futures import ThreadPoolExecutor  # not for one image: it takes as long as a small model's run

    pool = ThreadPoolExecutor(threads or min(MOST_READERS, cores()), "npmobilenet-images")
    try:
        yield _results(pool, work, chain(first, rest), ahead)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _results(
    pool: ThreadPoolExecutor, work: Callable[[Item], Result], items: Iterator[Item], ahead: int
) -> Iterator[Result]:
    waiting: deque[Future[Result]] = deque()
    while True:
        waiting.extend(pool.submit(work, item) for item in islice(items, ahead - len(waiting)))
        if not waiting:
            return
        yield waiting.popleft().result()


def batches(results: Iterable[Result], size: int) -> Iterator[list[Result]]:
    """Lists of `size` results, the last one of what is left."""
    rest = iter(results)
    while batch := list(islice(rest, size)):
        yield batch
