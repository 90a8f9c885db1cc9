"""What pieces touch, as kernels say it, and what they therefore wait for."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Iterator
from pathlib import Path

import numba
import numpy as np
import pytest
from models import tiny

from npmobilenet import load
from npmobilenet.kernels.compiler import work_sharing
from npmobilenet.kernels.compiler.spans import Rows, alike, needs, touched, under_windows
from npmobilenet.kernels.compiler.task import task
from npmobilenet.kernels.compiler.trial import Trial
from npmobilenet.kernels.compiler.work_sharing import FINE, GRAIN, Call, Program, Work
from npmobilenet.model import Model
from npmobilenet.modeldata import Array
from npmobilenet.runtime import fusion
from npmobilenet.runtime.exclusive import exclusive


def run_piece(call: Call, first: int, stop: int) -> None:
    entry = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)(call.address)
    assert entry(call.words.ctypes.data, first, stop) == 1


def check_calls(model: Model, batch: int, seed: int) -> dict[str, int]:
    """Pieces of each call alone, where all that they don't say that they read is noise, write where they say, and
    together what the call writes as a whole. The number of calls that say what they touch, by kernel.
    """
    plan = model.plan(batch)
    rng = np.random.default_rng(seed)
    block, start = plan._block, plan._block.ctypes.data
    with np.errstate(all="ignore"):
        for array in plan.inputs:
            array[...] = (
                rng.uniform(-1, 1, array.shape) if array.dtype == "float32" else rng.integers(0, 100, array.shape)
            )
    noise = rng.uniform(-9, 9, block.size // 4 + 1).astype(np.float32).view(np.uint8)[: block.size]
    said: dict[str, int] = {}
    for step in plan.steps:
        call = step.kernel.bind(*step.args)  # type: ignore[attr-defined]
        before = block.copy()
        run_piece(call, 0, call.work.units)
        after = block.copy()
        if call.work.touch is None:
            continue
        said[step.kernel.__name__] = said.get(step.kernel.__name__, 0) + 1
        units = call.work.units
        cuts = sorted({0, units, *rng.integers(0, units + 1, 2).tolist()})
        together = before.copy()
        for first, stop in itertools.pairwise(cuts):
            touch = lambda _, end, first=first, call=call: call.work.touch(first, end)  # noqa: E731
            part = touched(touch, call.held, stop, 1)
            block[:] = noise
            for low, high in part.all[0] - start:
                if 0 <= low < high <= block.size:  # else it is no part of the block
                    block[low:high] = before[low:high]
            begun = block.copy()
            run_piece(call, first, stop)
            ((low, high),) = part.written[0] - start
            changed = np.flatnonzero(block != begun)
            assert changed.size == 0 or low <= changed[0] <= changed[-1] < high, (step.node, first, stop)
            together[changed] = block[changed]
        (whole,) = touched(call.work.touch, call.held, units, 1).written[0] - start
        assert together[slice(*whole)].tobytes() == after[slice(*whole)].tobytes(), step.node
        block[:] = after
    return said


@pytest.fixture
def all_in_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusion, "LARGE", 3000)


@pytest.mark.parametrize("batch", [1, 3])
def test_pieces_touch_what_they_say(batch: int) -> None:
    said = check_calls(tiny(), batch, seed=batch)
    assert {
        "conv2d_f32",
        "pointwise_conv2d_f32",
        "pointwise_add_f32",
        "depthwise_conv2d_f32",
        "squeeze_excite_f32",
    } <= {name.removesuffix("_3").removesuffix("_5") for name in said}


def test_bands_touch_what_they_say(all_in_bands: None) -> None:
    assert check_calls(tiny(family="v2"), 2, seed=4).get("row_tiled_block_f32", 0) > 1


@pytest.mark.parametrize("name", ["mlperf_tiny_vww_96_int8", "mobilenet_v2_0_5_96_quant"])
def test_pieces_of_integers_touch_what_they_say(data: Path, name: str) -> None:
    said = check_calls(load(data / "weights" / f"{name}.tflite"), 2, seed=5)
    assert {"conv2d_q", "depthwise_conv2d_q", "pointwise_conv2d_q"} <= set(said)


# -- who waits for whom ------------------------------------------------------------------------------------------------


def test_a_piece_waits_for_the_rows_that_it_reads() -> None:
    x, middle, out = np.zeros((2, 8, 4), np.float32), np.zeros((2, 8, 4), np.float32), np.zeros((2, 4, 4), np.float32)
    first = touched(alike(16, x, middle), (x, middle), 16, 4)
    window = under_windows(middle, out, 3, 2, 1, 1)
    assert window(3, 5)[0][1:3] == (5, 10)  # the last row of an image and the first of the next
    then = touched(window, (middle, out), 8, 4)
    assert needs(first, then, (4, 4)).tolist() == [[0, 1], [0, 2], [2, 3], [2, 4]]
    assert needs(None, then, (4, 4)).tolist() == [[0, 4]] * 4
    assert needs(first, None, (4, 1)).tolist() == [[0, 4]]


def test_a_piece_waits_for_those_whose_memory_it_takes() -> None:
    """The call before still reads what this one overwrites; a call that touches nothing of it waits for none."""
    x, y, other = np.zeros(64, np.int64), np.zeros(64, np.int64), np.zeros(64, np.int64)
    before = touched(alike(8, x, y), (x, y), 8, 4)
    reading = touched(
        lambda first, stop: [Rows(other, first, stop, 8), Rows(x, 7 - first, 8 - first, 8)], (other, x), 8, 8
    )
    assert needs(before, reading, (4, 8)).tolist() == [[3, 4]] * 2 + [[2, 3]] * 2 + [[1, 2]] * 2 + [[0, 1]] * 2
    apart = touched(alike(8, other), (other,), 8, 2)
    assert needs(before, apart, (4, 2)).tolist() == [[0, 0]] * 2
    whole = touched(alike(8, other), (y, other), 8, 2)  # which reads y, but doesn't say of which rows
    assert needs(before, whole, (4, 2)).tolist() == [[0, 4]] * 2


def test_every_thread_gets_a_piece_of_a_small_step_that_says_what_it_touches() -> None:
    x = np.zeros(16)
    assert Work(16, FINE // 4, touch=alike(16, x)).pieces(2) == 2
    assert Work(16, FINE // 4).pieces(2) == 1
    assert Work(16, FINE // 16, touch=alike(16, x)).pieces(2) == 1
    assert Work(16, FINE // 4, touch=alike(16, x)).pieces(2, 4 * GRAIN) == 1


# -- in their order ----------------------------------------------------------------------------------------------------


@pytest.fixture
def two_ways(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(Trial, "way", 0)
    with exclusive(None, "fast"):
        yield


def rows_around(x: Array, out: Array, pause: Array) -> Work:
    images = x[None, :, None], out[None, :, None]
    return Work(len(out), GRAIN, touch=under_windows(*images, 3, 1, 1, 1))


@task(rows_around)
def blur(first: int, stop: int, x: Array, out: Array, pause: Array) -> None:
    """out[i] = x[i - 1] + 3 x[i] + x[i + 1], after a while that depends on the row."""
    for i in range(first, stop):
        total = 3 * x[i]
        for _ in range(pause[i] * 50):
            total = total * 7 + 1
            total = (total - 1) * 7905747460161236407  # 1 / 7
        if i > 0:
            total += x[i - 1]
        if i + 1 < len(x):
            total += x[i + 1]
        out[i] = total


def blurred(rows: int, calls: int, seed: int) -> tuple[list[Call], list[Array], Array]:
    """Calls that take turns with three arrays, so that memory is written again; the arrays and the result."""
    rng = np.random.default_rng(seed)
    arrays = [rng.integers(-(2**62), 2**62, rows) for _ in range(3)]
    x = arrays[0]
    for _ in range(calls):
        padded = np.concatenate([[0], x, [0]])
        x = padded[:-2] + 3 * x + padded[2:]
    pauses = [rng.integers(0, 200, rows) * (rng.random(rows) < 0.1) for _ in range(calls)]
    return [blur.bind(arrays[n % 3], arrays[(n + 1) % 3], pauses[n]) for n in range(calls)], arrays, x


@pytest.mark.parametrize("threads", [2, 3, 7])
def test_rows_come_in_their_order(threads: int, two_ways: None) -> None:
    for rows in (2, 5, 16, 31):
        calls, arrays, wanted = blurred(rows, 40, seed=rows)
        program, seed = Program(calls), arrays[0].copy()
        for run in range(20):
            arrays[0][:] = seed
            program.run(threads)
            assert (arrays[40 % 3] == wanted).all(), (rows, run)


@numba.njit  # type: ignore[untyped-decorator]
def one_after_the_other(calls, needs, counters, threads, order):  # type: ignore[no-untyped-def]
    for thread in order:
        work_sharing._take_part(calls, needs, counters, thread, threads)


def test_a_program_ends_where_the_threads_run_one_after_the_other() -> None:
    """As a threading layer of one real thread does, in whichever order."""
    calls, arrays, wanted = blurred(31, 40, seed=1)
    seed = arrays[0].copy()
    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
        program = Program(calls)
        table = program._table(3, GRAIN)
        needed = work_sharing._needed(program.calls, table)
        assert (needed[:, 1] - needed[:, 0]).max() < len(needed) / len(calls)  # not whole calls
        counters = np.zeros((len(calls) * 3 + 1) * work_sharing.APART + len(needed), np.int64)
        arrays[0][:] = seed
        one_after_the_other(table, needed, counters, 3, np.array(order))
        assert (arrays[40 % 3] == wanted).all()
