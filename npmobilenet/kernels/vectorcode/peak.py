"""What this machine can do at most: multiply-adds on accumulators in registers, operands in the first-level cache.

No model runs these kernels; `npmobilenet bench` does, for the peak that it measures layers against.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir

from npmobilenet.kernels.compiler.deferred import alloca_once_value, for_range
from npmobilenet.kernels.compiler.task import task
from npmobilenet.kernels.compiler.work_sharing import Work
from npmobilenet.kernels.fast.gemm_s8 import KIND, KR, LANE, MR, VECTORS
from npmobilenet.kernels.vectorcode.gemm_s8 import _multiply_add
from npmobilenet.kernels.vectorcode.generated import generated
from npmobilenet.kernels.vectorcode.vector import FLOAT, INT, INT32, constant, fma, load, splat, store

DEPTH = 64  # steps over the operands: 64 x (12 + 32) x 4 bytes = 11 KiB, in every first-level cache
SUMS = MR * VECTORS * LANE  # accumulators
FLOAT_OPS, INTEGER_OPS = 2 * DEPTH * SUMS, 2 * DEPTH * SUMS * KR  # multiplies and adds of one pass


def _kernel(kind: str) -> Any:
    """An intrinsic: out[at ...] += over `passes` and DEPTH steps k, x[k, row] * w[k, lane] for MR x VECTORS x LANE.

    kernel(x, w, passes, out, at). kind: "float", or a `kind` of gemm_s8_kernel, whose values are in words of 32
    bits here, KR of them in one or two. Arrays are flat; nothing is checked.
    """
    cell, word = (FLOAT, FLOAT) if kind == "float" else (INT32, INT32)

    def multiply_add(builder: Any, total: Any, x: Any, w: Any) -> Any:
        if kind == "float":
            return fma(builder, x, w, total, LANE)
        return _multiply_add(builder, total, x, w, kind, LANE, False, True)

    @generated
    def kernel(builder, kinds, x, w, passes, out, at):
        out = builder.gep(out, [at])
        slots = [alloca_once_value(builder, constant(cell, 0, LANE)) for _ in range(MR * VECTORS)]
        with for_range(builder, passes), for_range(builder, ir.Constant(INT, DEPTH)) as loop:
            panel = builder.gep(w, [builder.mul(loop.index, INT(VECTORS * LANE))])
            columns = [load(builder, builder.gep(panel, [INT(v * LANE)]), word, LANE) for v in range(VECTORS)]
            values = builder.gep(x, [builder.mul(loop.index, INT(MR))])
            for r in range(MR):
                value = splat(builder, builder.load(builder.gep(values, [INT(r)])), LANE)
                for v in range(VECTORS):
                    slot = slots[r * VECTORS + v]
                    builder.store(multiply_add(builder, builder.load(slot), value, columns[v]), slot)
        for i, slot in enumerate(slots):
            store(builder, builder.load(slot), builder.gep(out, [INT(i * LANE)]))

    return kernel


_float_kernel, _integer_kernel = _kernel("float"), _kernel(KIND)


def threads_of(x, w, passes, out):
    """Units are rows of `out`, one for each thread."""
    return Work(out.shape[0], passes * SUMS * DEPTH, 1)


@task(threads_of)
def peak_f32(first, stop, x, w, passes, out):
    """FLOAT_OPS * passes float32 operations in each of out.shape[0] threads: x (DEPTH * MR), w, out (n, SUMS)."""
    flat = out.reshape(-1)
    for t in range(first, stop):
        _float_kernel(x, w, passes, flat, t * SUMS)


@task(threads_of)
def peak_q(first, stop, x, w, passes, out):
    """INTEGER_OPS * passes operations on bytes (int16 if KR is 2) in each thread; int32 arrays of those in words."""
    flat = out.reshape(-1)
    for t in range(first, stop):
        _integer_kernel(x, w, passes, flat, t * SUMS)


def operands(integer: bool, threads: int) -> tuple[Any, Any, Any]:
    """x, w and out for peak_q or peak_f32: ones, so that every result is the number of products."""
    if not integer:
        x, w = np.ones(DEPTH * MR, np.float32), np.ones(DEPTH * VECTORS * LANE, np.float32)
        return x, w, np.zeros((threads, SUMS), np.float32)
    one = np.ones(1, np.int32) * (0x10001 if KR == 2 else 0x1010101)
    return np.repeat(one, DEPTH * MR), np.repeat(one, DEPTH * VECTORS * LANE), np.zeros((threads, SUMS), np.int32)
