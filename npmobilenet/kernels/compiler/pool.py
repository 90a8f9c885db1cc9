"""Numba's threads: one pool in a process, whether Numba is imported or not."""

from __future__ import annotations

import ctypes
import functools
import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

from npmobilenet.kernels.compiler import without_numba

# void parallel_for(function, args, dims, steps, data, inner_ndim, array_count, num_threads): dims[0] times on that many
# threads, function(args', dims', steps, data): args'[j] is args[j] + steps[j] * n for the n-th, dims'[0] how many these
# are in a row. A null pointer in args may stay one. (numba/numba, numba/np/ufunc/omppool.cpp, workqueue.c, tbbpool.cpp)
PARALLEL_FOR = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 5, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int)


class Pool(NamedTuple):
    """The layer's name, the number of threads, its function, and this thread's share of them, to ask and to set."""

    layer: str
    most: int
    parallel_for: Callable[..., None]
    share: Callable[[], int]
    limit: Callable[[int], None]


def pool() -> Pool:
    """The threads, started. Raises `ValueError` where Numba can't start any."""
    if not without_numba.imported():
        try:
            return _loaded()
        except (ImportError, OSError, AttributeError):
            pass
    return _numbas()


@functools.cache
def _loaded() -> Pool:
    layer, most = without_numba.openmp(), without_numba.default_threads()
    ctypes.CFUNCTYPE(None, ctypes.c_int)(layer.launch_threads)(most)
    limit = ctypes.CFUNCTYPE(None, ctypes.c_int)(layer.set_num_threads)
    limit(most)
    return Pool("omp", most, PARALLEL_FOR(layer.parallel_for), ctypes.CFUNCTYPE(ctypes.c_int)(layer.get_num_threads),
                limit)  # fmt: skip


@functools.cache
def _numbas() -> Pool:
    numba: Any = importlib.import_module("numba")
    private: Any = importlib.import_module("npmobilenet.kernels.compiler.numba_private")
    numba.get_num_threads()  # starts them
    parallel_for = PARALLEL_FOR(private.parallel_for_address(numba.threading_layer()))
    most = int(numba.config.NUMBA_NUM_THREADS)
    return Pool(numba.threading_layer(), most, parallel_for, numba.get_num_threads, numba.set_num_threads)
