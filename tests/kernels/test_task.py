"""Tasks and programs: every unit once, calls in order on any number of threads, arguments that arrive as they are."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import llvmlite.binding
import numba
import numpy as np
import pytest
from llvmlite import ir
from numba.core.registry import cpu_target

from npmobilenet.errors import PlanError
from npmobilenet.kernels.compiler import jit, notices, work_sharing
from npmobilenet.kernels.compiler.task import TaskFamily, in_one, task
from npmobilenet.kernels.compiler.trial import AGAIN, ROUNDS, TURN, Trial
from npmobilenet.kernels.compiler.work_sharing import (
    CHAIN,
    COARSE,
    GRAIN,
    PIECES,
    Call,
    Program,
    Work,
    _let_others_run,
)
from npmobilenet.runtime.exclusive import exclusive

Array = np.ndarray[Any, Any]
DTYPES = ("bool", "uint8", "int8", "uint16", "int16", "int32", "uint32", "int64", "uint64", "float32", "float64")
THREADS = (1, 2, 3, 7)
UNITS = (1, 2, 3, 5, 7, 13, 16, 17, 99, 1001)


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No cache: its folder stands for the package's sources, not for the kernels of this file."""
    monkeypatch.setattr(jit, "cache_folder", lambda: None)
    monkeypatch.setenv("NPMOBILENET_QUIET", "1")
    with exclusive(None, "fast"):
        yield


# -- sharing out -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("per_thread", [1, 8])
def test_pieces(per_thread: int) -> None:
    """A piece has no fewer units than GRAIN asks for, and there are no more pieces than threads have use for."""
    for units in (*UNITS, 100_000):
        for cost in (0, 1, 40, 1000, GRAIN, 10 * GRAIN):
            for threads in THREADS:
                for least in (1, 4, 1000):
                    pieces = Work(units, cost, per_thread, least=least).pieces(threads)
                    assert 1 <= pieces <= min(units, per_thread * threads)
                    assert pieces <= max(1, units * cost // GRAIN)
                    assert pieces <= threads or units // pieces >= least
    assert Work(16, GRAIN, 8).pieces(2) == 16
    assert Work(17, GRAIN, 8).pieces(2) == 16
    assert Work(17, GRAIN, 1).pieces(2) == 2
    assert Work(17, GRAIN, 8, least=6).pieces(2) == 2
    assert Work(49, GRAIN, 8, least=6).pieces(2) == 8
    assert Work(100, GRAIN // 10, 8).pieces(2) == 10


def units_of(counts: Array, marks: Array, cost: int, per_thread: int) -> Work:
    return Work(len(counts), cost, per_thread)


@pytest.fixture(autouse=True)
def on_all_threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs run on all threads that they are given, whichever way is faster."""
    if "trial" not in request.node.name:
        monkeypatch.setattr(Trial, "way", 0)


@task(units_of)
def count_units(first: int, stop: int, counts: Array, marks: Array, cost: int, per_thread: int) -> None:
    """Count how often each unit comes, and mark where pieces begin with their sizes."""
    marks[first] = stop - first
    for i in range(first, stop):
        counts[i] += 1


@pytest.mark.parametrize("threads", THREADS)
def test_every_unit_comes_once(threads: int) -> None:
    """Odd numbers of units, pieces that don't divide them, more threads than units, many runs."""
    for per_thread in (1, 8):
        for units in UNITS:
            for cost in (1, GRAIN // 3, GRAIN):
                counts, marks = np.zeros(units, np.int64), np.zeros(units, np.int64)
                call = count_units.bind(counts, marks, cost, per_thread)
                program = Program([call])
                for run in range(1, 4):
                    program.run(threads)
                    assert (counts == run).all(), (units, cost, counts)
                pieces = call.work.pieces(threads) if threads > 1 else 1
                cuts = np.arange(pieces + 1) * units // pieces
                wanted = np.zeros(units, np.int64)
                wanted[cuts[:-1]] = np.diff(cuts)
                assert (marks == wanted).all(), (units, cost)
                assert np.ptp(np.diff(cuts)) <= 1  # none has more than one unit more than another


def one_each(x: Array, factor: int, out: Array) -> Work:
    return Work(len(out), GRAIN)


@task(one_each)
def mix(first: int, stop: int, x: Array, factor: int, out: Array) -> None:
    """Each output depends on inputs far apart."""
    for i in range(first, stop):
        out[i] = x[(7 * i + factor) % len(x)] * factor + x[-1 - i % len(x)] + (x[i % len(x)] >> 3) + i * i


def dependent_calls(sizes: tuple[int, ...], seed: Array) -> tuple[list[Call], Array]:
    """Calls each of which reads what the one before wrote; some of a single unit, some of none. And the last output."""
    calls, x = [], seed
    for n, size in enumerate(sizes):
        out = np.zeros(size, np.int64)
        calls.append(mix.bind(x, 2 * n + 1, out))
        if size:
            x = out
    return calls, x


def test_dependent_calls_on_two_threads() -> None:
    seed = np.random.default_rng(0).integers(-(2**62), 2**62, 37)
    sizes = (1, 2, 3, 16, 17, 4, 0, 31, 40, 5, 2, 3, 63, 9, 33, 7, 0, 19, 8, 21) * 3
    calls, out = dependent_calls(sizes, seed)
    program = Program(calls)
    program.run(1)
    wanted = out.copy()
    assert len(set(wanted.tolist())) == len(wanted) == 21
    x = seed
    for n, size in enumerate(sizes):  # the same with NumPy
        i, factor = np.arange(size), 2 * n + 1
        if size:
            x = x[(7 * i + factor) % len(x)] * factor + x[-1 - i % len(x)] + (x[i % len(x)] >> 3) + i * i
    assert (wanted == x).all()
    for run in range(200):
        for call in calls:
            call.held[2][:] = -1
        program.run(2)
        assert (out == wanted).all(), run
    for threads in (7, 3, 1, 2):  # tables of several numbers of threads stay apart
        out[:] = -1
        program.run(threads)
        assert (out == wanted).all(), threads


def test_calls_of_one_piece_are_a_chain() -> None:
    """Each chain's length stands at its first call; calls of several pieces are by themselves."""
    sizes = (1, 1, 9, 1, 9, 9, 1, 1, 1)
    calls, out = dependent_calls(sizes, np.arange(3))
    program = Program(calls)
    program.run(1)
    wanted = out.copy()
    out[:] = -1
    program.run(2)
    assert program._ways[2][0].calls[:, CHAIN].tolist() == [2, 1, 1, 1, 1, 1, 3, 2, 1]
    assert (out == wanted).all()


def decide(trial: Trial, time: Callable[[int, int], float]) -> int:
    """The runs that a trial takes to decide; time(way, run) is what a run takes."""
    run = 0
    while trial.deciding:
        trial.took(time(trial.way, run))
        run += 1
    return run


def test_a_trial_takes_the_faster_way() -> None:
    """By medians of turns, after two rounds where that is clear; one way needs no trial."""
    trial = Trial(2)
    assert decide(trial, lambda way, run: (10e3, 5e3)[way]) == 4 * TURN
    assert trial.way == 1
    trial = Trial(2)
    assert decide(trial, lambda way, run: (9e3, 10e3)[way]) == ROUNDS * 2 * TURN
    assert trial.way == 0
    trial = Trial(2)
    assert decide(trial, lambda way, run: (50e6, 90e6)[way]) == 8  # two runs of a turn where they are long
    assert trial.way == 0
    trial = Trial(3)
    assert decide(trial, lambda way, run: (9e3, 5e3, 5.1e3)[way]) == 6 * TURN + (ROUNDS - 2) * 2 * TURN
    assert trial.way == 2  # hardly slower, and one thread
    assert not Trial(1).deciding
    assert Trial(1).way == 0


def test_a_trial_does_not_believe_lucky_runs() -> None:
    """Two threads at times take 110 us, mostly 173; one takes 124. The least time says two, the median one."""
    trial = Trial(2)
    decide(trial, lambda way, run: 124e3 if way else (110e3 if run % 5 == 0 else 173e3))
    assert trial.way == 1
    trial = Trial(2)  # whose second thread sleeps through the other's turn: it counts as when it runs all the time
    woken = {"before": 1}

    def time(way: int, run: int) -> float:
        first, woken["before"] = woken["before"] != way, way
        return 124e3 if way else (300e3 if first else 90e3)

    decide(trial, time)
    assert trial.way == 0


def test_a_trial_keeps_its_choice_unless_another_is_better() -> None:
    """Tried anew after AGAIN times the runs of a trial, then after twice as many; 4 % don't count, 6 % do."""
    trial = Trial(2)
    first = AGAIN * decide(trial, lambda way, run: (60e3, 100e3)[way])
    assert trial.chosen == 0

    def runs_to_the_next(most: int) -> int:
        for run in range(1, most + 1):
            assert trial.way == trial.chosen
            trial.took(1e3)
            if trial.deciding:
                return run
        return most

    assert runs_to_the_next(first + 1) == first
    longer = AGAIN * decide(trial, lambda way, run: (100e3, 96e3)[way])
    assert trial.chosen == 0
    assert longer > 2 * first
    assert runs_to_the_next(longer + 1) == longer
    decide(trial, lambda way, run: (100e3, 96e3)[way])
    assert runs_to_the_next(2 * longer + 1) == 2 * longer
    decide(trial, lambda way, run: (100e3, 94e3)[way])
    assert trial.chosen == 1
    assert runs_to_the_next(longer + 1) == longer


def test_a_trial_needs_no_second_thread_where_two_bring_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call is one piece, so that a second thread would only wait: one way."""
    calls, out = dependent_calls((1,) * 30, np.arange(3))
    program = Program(calls)
    program.run(1)
    wanted = out.copy()
    out[:] = -1
    monkeypatch.setattr(work_sharing, "run_together", None)
    program.run(2)
    assert (out == wanted).all()
    assert len(program._ways[2]) == 1


def test_a_trial_of_a_program_by_its_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three ways where large steps and small ones follow each other; equal results by each, and the fastest is kept."""

    @task(lambda x, out, cost: Work(len(out), cost))
    def twice(first: int, stop: int, x: Array, out: Array, cost: int) -> None:
        for i in range(first, stop):
            out[i] = 2 * x[i] + 1

    arrays = [np.arange(16), *(np.zeros(16, np.int64) for _ in range(4))]
    program = Program(
        [twice.bind(x, y, cost) for x, y, cost in zip(arrays, arrays[1:], (COARSE, GRAIN // 4) * 2, strict=False)]
    )
    for fastest in range(3):
        now = [0]

        def clock(fastest: int = fastest, now: list[int] = now) -> int:
            now[0] += 50_000 if 2 in program._trials and program._trials[2].way == fastest else 100_000
            return now[0]

        program._ways.clear()
        monkeypatch.setattr(work_sharing, "perf_counter_ns", clock)
        program.run(2)
        assert [(way.calls[:, CHAIN] > 0).all() and way.threads > 1 for way in program._ways[2]] == [True, True, False]
        assert [len(set((way.calls[:, PIECES] > 1).tolist())) for way in program._ways[2]][:2] == [1, 2]
        while program._trials[2].deciding:
            arrays[-1][:] = -1
            program.run(2)
            assert (arrays[-1] == 16 * np.arange(16) + 15).all()
        assert program._trials[2].chosen == fastest


def test_a_call_of_no_units_is_skipped() -> None:
    touched = np.zeros(1, np.int64)

    @task(lambda x, units: Work(units, GRAIN))
    def touch(first: int, stop: int, x: Array, units: int) -> None:
        x[0] += 1

    for threads in THREADS:
        Program([touch.bind(touched, 0)]).run(threads)
        Program([touch.bind(touched, 0), touch.bind(touched, 0)]).run(threads)
        Program([]).run(threads)
    assert touched[0] == 0
    Program([touch.bind(touched, 0), touch.bind(touched, 1), touch.bind(touched, 0)]).run(2)
    assert touched[0] == 1
    touch(touched, 1)
    assert touched[0] == 2


def test_more_threads_than_there_are() -> None:
    """What a thread's share is after a run must be one that Numba takes back."""
    work_sharing.compile_loops(numba.config.NUMBA_NUM_THREADS + 2)
    assert 1 <= numba.get_num_threads() <= numba.config.NUMBA_NUM_THREADS


def test_in_one() -> None:
    """A plain function becomes a task of one unit."""

    def copy_all(x: Array, out: Array) -> None:
        for i in range(len(x)):
            out[i] += x[i]

    x, out = np.arange(5.0), np.zeros(5)
    whole = in_one(copy_all)
    Program([whole.bind(x, out)]).run(3)
    assert whole.__name__ == "copy_all"
    assert out.tolist() == x.tolist()


# -- arguments ---------------------------------------------------------------------------------------------------------


def once(*args: Any) -> Work:
    return Work(1, 1)


def bits(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Array:
    """Any bits, NaNs too; booleans are 0 and 1."""
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    return rng.integers(0, 256, (*shape[:-1], shape[-1] * np.dtype(dtype).itemsize), np.uint8).view(dtype)


@pytest.mark.parametrize("rank", range(1, 6))
def test_arrays_of_every_dtype(rank: int) -> None:
    """Address, shape and strides: a copy index by index from one side, in order of memory to the other."""

    def index_by_index(x, out, shape):  # type: ignore[no-untyped-def]
        flat = out.reshape(-1)
        for i in range(len(x.shape)):
            shape[i] = x.shape[i]
        for n, index in enumerate(np.ndindex(x.shape)):
            flat[n] = x[index]

    step = jit.register_jitable(index_by_index)

    @task(once)
    def copy(first, stop, a, b, c, d, e, out_a, out_b, out_c, out_d, out_e, shapes):  # type: ignore[no-untyped-def]
        step(a, out_a, shapes[0])
        step(b, out_b, shapes[1])
        step(c, out_c, shapes[2])
        step(d, out_d, shapes[3])
        step(e, out_e, shapes[4])

    rng = np.random.default_rng(rank)
    some = (DTYPES * 2)[2 * rank : 2 * rank + 5]
    for names in (DTYPES[:5], DTYPES[5:10], (*DTYPES[7:], "bool")) if rank == 2 else (some,):  # compiling takes long
        arrays = [bits(rng, tuple(rng.integers(1, 5, rank).tolist()), name) for name in names]
        out, shapes = [np.zeros_like(a) for a in arrays], np.zeros((5, rank), np.int64)
        copy(*arrays, *out, shapes)
        for array, copied, shape in zip(arrays, out, shapes, strict=True):
            assert copied.tobytes() == array.tobytes(), array.dtype
            assert tuple(shape) == array.shape


def test_an_array_is_written_through_every_index() -> None:
    @task(once)
    def number(first, stop, out):  # type: ignore[no-untyped-def]
        for a in range(out.shape[0]):
            for b in range(out.shape[1]):
                for c in range(out.shape[2]):
                    out[a, b, c] = 100 * a + 10 * b + c

    out = np.zeros((3, 5, 4), np.int16)
    number(out)
    assert (out == np.fromfunction(lambda a, b, c: 100 * a + 10 * b + c, out.shape)).all()


def test_empty_and_read_only_arrays() -> None:
    @task(once)
    def size_of(first, stop, x, y, out):  # type: ignore[no-untyped-def]
        out[0] = x.size + 1
        out[1] = y[0] + y[1]

    locked = np.array([3, 4])
    locked.flags.writeable = False
    out = np.zeros(2, np.int64)
    size_of(np.zeros((2, 0, 3), np.float32), locked, out)
    assert out.tolist() == [1, 7]


INTEGERS = (0, 1, -1, 5, -70_000, 2**31, -(2**31), 2**62 + 1, 2**63 - 1, -(2**63))


def test_integers_and_booleans() -> None:
    @task(once)
    def keep(first, stop, i, yes, small, byte, out):  # type: ignore[no-untyped-def]
        out[0] = i
        out[1] = 10 if yes else 20
        out[2] = small
        out[3] = byte

    out = np.zeros(4, np.int64)
    for n, value in enumerate(INTEGERS):
        small, byte = np.int32(-5 * n), np.uint8(255 - n)
        keep(value, n % 2 == 0, small, byte, out)
        assert out.tolist() == [value, 10 if n % 2 == 0 else 20, -5 * n, 255 - n]
        keep(np.int64(value), np.bool_(n % 2 == 0), small, byte, out)
        assert out.tolist() == [value, 10 if n % 2 == 0 else 20, -5 * n, 255 - n]


FLOATS = (0.0, -0.0, 1.5, -1 / 3, 1e-45, 5e-324, math.inf, -math.inf, math.nan, 3.4e38)


def test_floats_keep_their_bits() -> None:
    @task(once)
    def keep(first, stop, single, double, also, singles, doubles):  # type: ignore[no-untyped-def]
        singles[0] = single
        doubles[0] = double
        doubles[1] = also

    singles, doubles = np.zeros(1, np.float32), np.zeros(2)
    for value in (*FLOATS, np.uint32(0xFFC12345).view(np.float32)):
        keep(np.float32(value), float(value), np.float64(value), singles, doubles)
        assert singles.tobytes() == np.float32(value).tobytes()
        assert doubles.tobytes() == np.array([value, value], np.float64).tobytes()


class Inner(NamedTuple):
    scale: np.float32
    table: Array


class Outer(NamedTuple):
    low: int
    inner: Inner
    sizes: tuple[int, int]
    exact: bool
    real: float


def test_tuples_of_any_depth() -> None:
    @task(once)
    def keep(first, stop, outer, plain, deep, ints, floats):  # type: ignore[no-untyped-def]
        ints[0] = outer.low
        ints[1] = outer.inner.table[1, 2]
        ints[2] = outer.inner.table.shape[0]
        ints[3], ints[4] = outer.sizes
        ints[5] = 1 if outer.exact else 0
        ints[6] = plain[0] + plain[1]
        ints[7] = deep[0][0][1]
        ints[8] = deep[1].table[0, 0]
        ints[9] = deep[0][1]
        floats[0] = outer.inner.scale
        floats[1] = outer.real
        floats[2] = deep[1].scale
        floats[3] = deep[2]

    ints, floats = np.zeros(10, np.int64), np.zeros(4)
    for n in range(3):
        table = np.arange(12, dtype=np.int16).reshape(3, 4) + np.int16(n)
        outer = Outer(-n, Inner(np.float32(0.1 + n), table), (n, 7), n == 1, 1e300 / (n + 1))
        deep = (((5, n - 9), -(2**40)), Inner(np.float32(-n), table + np.int16(50)), -0.25)
        keep(outer, (3, n), deep, ints, floats)
        assert ints.tolist() == [-n, 6 + n, 3, n, 7, int(n == 1), 3 + n, n - 9, 50 + n, -(2**40)]
        assert floats.tolist() == [float(np.float32(0.1 + n)), 1e300 / (n + 1), -n, -0.25]


def test_bound_arguments_live_as_long_as_the_call() -> None:
    @task(once)
    def double(first, stop, x, out):  # type: ignore[no-untyped-def]
        for i in range(len(x)):
            out[i] = 2 * x[i]

    out = np.zeros(1000)
    programs = [Program([double.bind(np.full(1000, float(n)), out)]) for n in range(20)]
    for n, program in enumerate(programs):
        program.run(1)
        assert (out == 2 * n).all()


@pytest.mark.parametrize("case", ["every second", "columns", "transposed", "in a tuple"])
def test_arrays_that_are_not_contiguous_are_refused(case: str) -> None:
    @task(once)
    def nothing(first, stop, x):  # type: ignore[no-untyped-def]
        pass

    x = np.zeros((4, 6), np.float32)
    arg: Any = {"every second": x[::2], "columns": x[:, 1:3], "transposed": x.T, "in a tuple": (1, (x.T,))}[case]
    with pytest.raises(TypeError, match="contiguous"):
        nothing.bind(arg)


def test_each_form_of_arguments_gets_its_own_code() -> None:
    """One task bound to arguments of several types, bound again in another order."""

    @task(once)
    def store(first, stop, value, out):  # type: ignore[no-untyped-def]
        out[0] = value

    cases: list[tuple[Any, Array]] = [
        (7, np.zeros(1, np.int64)), (np.float32(0.1), np.zeros(1)), (0.1, np.zeros(1)), (True, np.zeros(1, np.int8)),
        (7, np.zeros(1, np.float32)),
    ]  # fmt: skip
    calls = [store.bind(*case) for case in (*cases, *cases[::-1])]
    assert len({call.address for call in calls}) == len(cases)
    Program(calls).run(1)
    assert [float(out[0]) for _, out in cases] == [7, float(np.float32(0.1)), 0.1, 1, 7]


def test_code_from_the_cache_is_that_of_the_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every form is compiled once and then loaded; a task made anew stands for another process."""
    compiled: list[str] = []
    monkeypatch.setattr(jit, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(notices, "_listeners", [compiled.append])

    def keep_value(first, stop, value, out):  # type: ignore[no-untyped-def]
        out[0] = value

    for again in (False, True):
        for value in (np.float32(0.1), 0.1, 3, True):
            out = np.zeros(1)
            task(once)(keep_value)(value, out)
            assert out[0] == value
        assert compiled == ["keep_value"] * 4, again


def test_family_picks_by_value() -> None:
    def adding(amount: int) -> Any:
        def add(first, stop, out, how):  # type: ignore[no-untyped-def]
            out[0] += amount

        add.__name__ = f"add_{amount}"
        return task(once)(add)

    members = {how: adding(how) for how in (1, 10, 100)}
    family = TaskFamily("add", lambda out, how: members[how])
    out = np.zeros(1, np.int64)
    program = Program([family.bind(out, how) for how in (10, 1, 10, 100, 10)])
    program.run(1)
    assert out[0] == 131
    program.run(2)
    assert out[0] == 262
    family(out, 1)
    assert out[0] == 263
    assert family.__name__ == "add"


@task(lambda out, size: Work(4, 10**6))
def asks_for_memory(first, stop, out, size):
    """Writes where it gets as much memory as it asks for."""
    for unit in range(first, stop):
        got = np.empty(size if unit == 2 else 1, np.float64)
        got[0] = 1.0
        out[unit] = got[0]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("threads", [1, 2])
def test_memory_that_there_is_not_is_said(threads: int) -> None:
    out = np.zeros(4)
    Program([asks_for_memory.bind(out, 8)]).run(threads)
    assert out.tolist() == [1.0] * 4
    with pytest.raises(PlanError, match="no memory for its intermediate values"):
        Program([asks_for_memory.bind(out, 1 << 56)]).run(threads)


@pytest.mark.parametrize("there", ["sched_yield", "SwitchToThread", None])
def test_a_waiting_thread_gives_way_as_the_system_can(there: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llvmlite.binding, "address_of_symbol", lambda name: 1 if name == there else None)
    builder = ir.IRBuilder()
    module = ir.Module("waiting")
    builder.position_at_end(ir.Function(module, ir.FunctionType(ir.VoidType(), []), "wait").append_basic_block())
    _, codegen = _let_others_run.define(None)
    codegen(cpu_target.target_context, builder, None, ())
    assert [f.name for f in module.functions] == ["wait", *([there] if there else [])]
