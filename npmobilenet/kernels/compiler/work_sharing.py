"""Programs: calls of tasks, one after the other, run by a compiled loop on several threads.

From Python each of a model's 60 steps costs 1 to 5 us to call and 2 us to start and join threads for, more than a
small layer takes. Here the threads start once for a whole program and go through its calls side by side: of each call a
thread takes pieces of its own share first, then what others have left, and goes on to the next call when none is left.
A piece waits for those pieces of the call before that touch the same memory (spans.py), and all calls before that one
must be done. Every other thread goes through its share backwards, so that where two shares meet both come last, or both
first, and don't wait for each other. Calls of one piece that follow each other are a chain, which one thread takes.

Two threads bring a small model, or a small step, nothing where waking and waiting takes what they save, and where that
is depends on the machine and on what else it does. So a program tries (trial.py): with steps in small pieces, in larger
ones, of which small steps have but one, and on one thread. All ways give the same bits.

No thread ever waits for a piece that nobody has taken, nor for one of the same call or a later one, so a program ends
whatever the threading layer does, also where it runs the threads' loops one after the other: a thread goes on to a call
only when all pieces of the one before are taken. Which thread takes a piece makes no difference to its result.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence
from time import perf_counter_ns
from typing import Any, NamedTuple

import llvmlite.binding
import numpy as np
from llvmlite import ir

from npmobilenet.errors import PlanError
from npmobilenet.kernels.compiler.c_entry import WORD, address_of, kinds_of, words_of
from npmobilenet.kernels.compiler.deferred import array_data, get_or_insert_function, intrinsic, register_jitable, types
from npmobilenet.kernels.compiler.pool import pool
from npmobilenet.kernels.compiler.spans import Touch, needs, touched
from npmobilenet.kernels.compiler.trial import Trial

APART = 8  # int64 words between two counters: 64 bytes, so that threads don't share their cache lines
SPINS = 5000  # looks at a counter, some 10 us, before a waiting thread lets others have its core
ADDRESS, WORDS, UNITS, PIECES, CHAIN, AT = range(6)

# Multiply-adds (or what takes as long) in a piece of work that is worth handing to a thread: some 2 us.
GRAIN = 100_000
COARSE = 4 * GRAIN  # the same where handing over costs more
# The same for the one piece of a thread's where it needn't wait for the others, but reads what it has just written: a
# step of 4 us at 8 x 8 x 128 took 6.5 on one thread of two, which had to fetch half of its input from the other core.
FINE = 20_000
PER_THREAD = 8  # pieces for each thread: when one is held up, the others take what is left of its share


class Work(NamedTuple):
    """How a call can be shared out: the number of units, the multiply-adds of one, roughly, and pieces per thread.

    Kernels that have something to prepare for each piece say 1. `touch` says which memory units need (spans.py); where
    it isn't known, no piece begins before all of the call before are done. A piece of fewer than `least` units takes
    longer than its part of the whole.
    """

    units: int
    cost: int
    per_thread: int = PER_THREAD
    touch: Touch | None = None
    least: int = 1

    def pieces(self, threads: int, grain: int = GRAIN) -> int:
        """The number of pieces, as equal as whole units let them be. Where they are few, each thread has as many."""
        total = self.units * self.cost
        one_each = min(threads, total // FINE) if self.touch is not None and grain < COARSE else 1
        most = min(self.per_thread * threads, max(self.units // self.least, threads), self.units)
        pieces = max(1, min(most, max(total // grain, one_each)))
        return pieces - pieces % threads or pieces


class Call(NamedTuple):
    """A kernel with its arguments, ready for a program. `held` keeps the arguments' memory alive."""

    address: int
    words: np.ndarray
    work: Work
    held: tuple[Any, ...]


@intrinsic
def _call(typingctx, address, words, first, stop):
    """Call the compiled task at `address`; 0 where it failed."""

    def codegen(context, builder, signature, args):
        kind = ir.FunctionType(WORD, [WORD] * 3)
        return builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])

    return types.int64(types.int64, types.int64, types.int64, types.int64), codegen


def _counter(context: Any, builder: Any, array_type: Any, array: Any, at: Any) -> Any:
    return builder.gep(array_data(context, builder, array_type, array), [at])


@intrinsic
def _add(typingctx, counters, at, amount):
    """counters[at] += amount, as one step for all threads; the value before."""

    def codegen(context, builder, signature, args):
        pointer = _counter(context, builder, signature.args[0], args[0], args[1])
        return builder.atomic_rmw("add", pointer, args[2], "seq_cst")

    return types.int64(counters, types.int64, types.int64), codegen


@intrinsic
def _read(typingctx, counters, at):
    """counters[at], with all that its writers had written before."""

    def codegen(context, builder, signature, args):
        pointer = _counter(context, builder, signature.args[0], args[0], args[1])
        return builder.load_atomic(pointer, "acquire", 8)

    return types.int64(counters, types.int64), codegen


@intrinsic
def _set(typingctx, counters, at):
    """counters[at] = 1, for who sees it after all that this thread has written before."""

    def codegen(context, builder, signature, args):
        pointer = _counter(context, builder, signature.args[0], args[0], args[1])
        builder.store_atomic(WORD(1), pointer, "release", 8)
        return context.get_dummy_value()

    return types.void(counters, types.int64), codegen


@intrinsic
def _pause(typingctx):
    """What x86 wants in a loop that waits: a thread on the same core, and the one waited for, then run faster."""

    def codegen(context, builder, signature, args):
        if builder.module.triple.startswith(("x86_64", "i686", "i386")):
            kind = ir.FunctionType(ir.VoidType(), [])
            builder.call(get_or_insert_function(builder.module, kind, "llvm.x86.sse2.pause"), [])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def _let_others_run(typingctx):
    """The system's function for that: POSIX's, or that of Windows; both have this type. Nothing where there is none."""

    def codegen(context, builder, signature, args):
        names = [name for name in ("sched_yield", "SwitchToThread") if llvmlite.binding.address_of_symbol(name)]
        if names:
            kind = ir.FunctionType(ir.IntType(32), [])
            builder.call(get_or_insert_function(builder.module, kind, names[0]), [])
        return context.get_dummy_value()

    return types.void(), codegen


@register_jitable
def _wait(counters, first, stop):
    """Until counters[first:stop] are set."""
    for at in range(first, stop):
        looks = 0
        while _read(counters, at) == 0:
            looks += 1
            _pause()
            if looks > SPINS:
                _let_others_run()


@register_jitable
def _take_part(calls, needs, counters, thread, threads):
    """What one thread does, see the module's docstring.

    counters: the failures, for each call how much of each thread's share is taken, and for each piece if it is done.
    needs: the pieces that each piece waits for.
    """
    done = (calls.shape[0] * threads + 1) * APART
    before, last = done, done  # the first pieces of the call two before, and of the one before
    i = 0
    while i < calls.shape[0]:
        units, pieces, chain, at = calls[i, UNITS], calls[i, PIECES], calls[i, CHAIN], calls[i, AT]
        _wait(counters, before, last)
        before, last = last, done + at
        for other in range(threads):
            share = (thread + other) % threads
            first, stop = pieces * share // threads, pieces * (share + 1) // threads
            while True:
                taken = _add(counters, (1 + i * threads + share) * APART, 1) if first < stop else 0
                if taken >= stop - first:
                    break
                p = stop - 1 - taken if share % 2 else first + taken
                _wait(counters, done + needs[at + p, 0], done + needs[at + p, 1])
                begin, end = units * p // pieces, units * (p + 1) // pieces
                if _call(calls[i, ADDRESS], calls[i, WORDS], begin, end) == 0:
                    _add(counters, 0, 1)
                for j in range(i + 1, i + chain):
                    if _call(calls[j, ADDRESS], calls[j, WORDS], 0, calls[j, UNITS]) == 0:
                        _add(counters, 0, 1)
                _set(counters, done + at + p)
        i += chain


@intrinsic
def _word(typingctx, address):
    """The int64 at an address."""

    def codegen(context, builder, signature, args):
        return builder.load(builder.inttoptr(args[0], WORD.as_pointer()))

    return types.int64(types.int64), codegen


@register_jitable
def run_together(dims, steps, calls, needs, counters, threads, thread):
    """A thread's part of a program: what the pool calls (pool.PARALLEL_FOR). `thread` counts from 1."""
    for i in range(_word(dims)):
        _take_part(calls, needs, counters, thread - 1 + i, threads)


@register_jitable
def run_alone(first, stop, calls, failed):
    """Run calls `first` to `stop - 1` of a program on this thread; failed[0] counts those that failed."""
    for i in range(first, stop):
        failed[0] += 1 - _call(calls[i, ADDRESS], calls[i, WORDS], 0, calls[i, UNITS])


class Way(NamedTuple):
    """A way to run a program; `run` returns how many pieces failed."""

    calls: np.ndarray
    threads: int
    run: Callable[[], int]


def together(given: Sequence[Call], calls: np.ndarray, threads: int) -> Way:
    """On `threads` threads. What each piece waits for is found by the first run."""

    @functools.cache
    def start() -> Callable[[], int]:
        pieces = _needed(given, calls)
        counters = np.zeros((len(calls) * threads + 1) * APART + len(pieces), np.int64)
        args = (calls, pieces, counters, threads, 1)
        part = address_of(run_together, "run_together", kinds_of(args))
        words, dims = np.array(words_of(args), np.int64), np.array([threads], np.int64)
        steps = (np.arange(len(words)) == len(words) - 1).astype(np.int64)  # the same for all but the thread's number
        at = [part, *(array.ctypes.data for array in (words, dims, steps)), None, 0, len(words)]

        def go(held: tuple[np.ndarray, ...] = (pieces, words, dims, steps)) -> int:
            counters.fill(0)
            there = pool()
            there.parallel_for(*at, min(threads, there.most))  # which this thread's share is afterwards
            return int(counters[0])

        return go

    def run() -> int:
        return start()()

    return Way(calls, threads, run)


@functools.cache
def _run_alone(kinds: tuple[Any, ...]) -> Callable[[int, int, int], int]:
    """The compiled loop. It isn't called through Numba, whose functions for arrays' memory are not needed then."""
    return ctypes.CFUNCTYPE(*[ctypes.c_int64] * 4)(address_of(run_alone, "run_alone", kinds))


def alone(calls: np.ndarray) -> Way:
    """On this thread."""
    failed = np.zeros(1, np.int64)
    run, words = _run_alone(kinds_of((calls, failed))), np.array(words_of((calls, failed)), np.int64)
    at = words.ctypes.data

    def go(held: np.ndarray = words) -> int:
        failed[0] = 0
        run(at, 0, len(calls))
        return int(failed[0])

    return Way(calls, 1, go)


def compile_loops(threads: int) -> None:
    """Run a program of no calls alone and on `threads` threads: both loops are compiled, and the threads there."""
    calls = np.zeros((0, 6), np.int64)
    alone(calls).run()
    together([], calls, threads).run()


def _needed(given: Sequence[Call], calls: np.ndarray) -> np.ndarray:
    """The pieces, first and end, that each piece waits for; says in `calls` where each call's pieces begin."""
    found = [np.zeros((0, 2), np.int64)]
    at, i, before, previous = 0, 0, None, 0  # previous: the pieces of the call before
    while i < len(calls):
        (_, _, units, count, chain, _), call = calls[i].tolist(), given[i]
        now = touched(call.work.touch, call.held, units, count) if call.work.touch and count > 1 else None
        found.append(needs(before, now, (previous, count)) + (at - previous))
        calls[i, AT] = at
        at, before, previous, i = at + count, now, count, i + chain
    return np.concatenate(found)


class Program:
    """Calls in the order in which they are run. Not safe to run twice at the same time."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self.calls = [call for call in calls if call.work.units > 0]
        self._ways: dict[int, list[Way]] = {}  # by the number of threads
        self._trials: dict[int, Trial] = {}

    def run(self, threads: int) -> None:
        """Run all calls, on this thread and up to threads - 1 of Numba's. Raises `PlanError` where memory runs out."""
        if threads not in self._ways:
            self._prepare(threads)
        ways, trial = self._ways[threads], self._trials[threads]
        way = ways[trial.way]
        start = perf_counter_ns()
        failed = way.run()
        trial.took(perf_counter_ns() - start)
        if failed:
            raise PlanError(
                "a kernel got no memory for its intermediate values, so there is no result: use smaller images or "
                "batches, or fewer threads"
            )

    def way(self, threads: int) -> Callable[[], int]:
        """A function that runs it in the first of the ways for that many threads, come what may: to measure it."""
        table = self._table(threads, GRAIN)
        return (together(self.calls, table, threads) if threads > 1 else alone(table)).run

    def _prepare(self, threads: int) -> None:
        """The ways to run on that many threads: in small pieces, in larger ones, and, the last, alone."""
        tables: list[np.ndarray] = []
        for grain in (GRAIN, COARSE) if threads > 1 else ():
            calls = self._table(threads, grain)
            if (calls[:, PIECES] > 1).any() and not any(np.array_equal(calls, other) for other in tables):
                tables.append(calls)
        ways = [
            *(together(self.calls, table, threads) for table in tables),
            alone(self._table(threads, GRAIN)),
        ]
        self._ways[threads], self._trials[threads] = ways, Trial(len(ways))

    def _table(self, threads: int, grain: int) -> np.ndarray:
        rows = [[c.address, c.words.ctypes.data, c.work.units, c.work.pieces(threads, grain), 1, 0] for c in self.calls]
        for row, following in zip(rows[-2::-1], rows[:0:-1], strict=True):
            if row[PIECES] == following[PIECES] == 1:
                row[CHAIN] = following[CHAIN] + 1
        return np.array(rows, np.int64).reshape(-1, 6)
