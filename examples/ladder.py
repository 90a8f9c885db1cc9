"""Two layers, from plain Python to all cores: each rung has the bits of the one before, and is then timed.

Usage: python examples/ladder.py [--side PIXELS] [--channels N] [--picture FILE.svg]

Pointwise: out[p,c] = sum over k of x[p,k] * w[k,c].
Depthwise: out[y,i,c] = sum over dy, dx of x[y+dy,i+dx,c] * w[dy,dx,c], 3x3.
Every sum is one chain of fused multiply-adds in one order, k or (dy, dx) ascending. Rungs may compute outputs in any
order and any number side by side; none may split a chain. So the bits can't change, and each rung asserts it.
"""

import argparse
import time

import numba
import numpy as np
from numba import njit, prange, types
from numba.extending import intrinsic

from npmobilenet.kernels.compiler.numba_private import for_range
from npmobilenet.kernels.reference.arithmetic import fma32
from npmobilenet.kernels.vectorcode.generated import generated
from npmobilenet.kernels.vectorcode.vector import FLOAT, INT, constant, load, splat, store, variable
from npmobilenet.kernels.vectorcode.vector import fma as vector_fma

LANES, ROWS, VECTORS = 16, 4, 2  # floats in a vector; pixels and vectors of the micro-kernel's block of accumulators


@intrinsic
def fma(_, a, b, c):
    """a * b + c, rounded once: the machine's instruction, or libm's function where it has none."""
    return types.float32(types.float32, types.float32, types.float32), lambda _, builder, __, args: builder.fma(*args)


# -- rung 1: plain Python. What is computed, and nothing else ----------------------------------------------------------


def pointwise_plain(x, w, out):
    """Loops as one would write them."""
    for p in range(out.shape[0]):
        for c in range(out.shape[1]):
            acc = np.float32(0)
            for k in range(x.shape[1]):
                acc = fma32(x[p, k], w[k, c], acc)
            out[p, c] = acc


def depthwise_plain(x, w, out):
    """Loops as one would write them."""
    for y in range(out.shape[0]):
        for i in range(out.shape[1]):
            for c in range(out.shape[2]):
                acc = np.float32(0)
                for dy in range(3):
                    for dx in range(3):
                        acc = fma32(x[y + dy, i + dx, c], w[dy, dx, c], acc)
                out[y, i, c] = acc


# -- rung 2: compiled. The same loops as machine code; an fma waits for the one before, four cycles or five ------------


@njit
def pointwise_compiled(x, w, out):
    """The same loops, compiled."""
    for p in range(out.shape[0]):
        for c in range(out.shape[1]):
            acc = np.float32(0)
            for k in range(x.shape[1]):
                acc = fma(x[p, k], w[k, c], acc)
            out[p, c] = acc


@njit
def depthwise_compiled(x, w, out):
    """The same loops, compiled."""
    for y in range(out.shape[0]):
        for i in range(out.shape[1]):
            for c in range(out.shape[2]):
                acc = np.float32(0)
                for dy in range(3):
                    for dx in range(3):
                        acc = fma(x[y + dy, i + dx, c], w[dy, dx, c], acc)
                out[y, i, c] = acc


# -- rung 3: loops exchanged. Channels innermost: neighbours in memory, chains that don't wait for each other, so that
#    the compiler takes whole vectors of them -------------------------------------------------------------------------


@njit
def pointwise_exchanged(x, w, out):
    """Channels innermost."""
    for p in range(out.shape[0]):
        out[p] = 0
        for k in range(x.shape[1]):
            for c in range(out.shape[1]):
                out[p, c] = fma(x[p, k], w[k, c], out[p, c])


@njit
def depthwise_exchanged(x, w, out):
    """Channels innermost."""
    for y in range(out.shape[0]):
        for i in range(out.shape[1]):
            out[y, i] = 0
            for dy in range(3):
                for dx in range(3):
                    for c in range(out.shape[2]):
                        out[y, i, c] = fma(x[y + dy, i + dx, c], w[dy, dx, c], out[y, i, c])


# -- rung 4: blocked. A weight that was loaded serves four pixels; sums still go through memory, term by term ---------


@njit
def pointwise_blocked(x, w, out):
    """Four pixels for each weight."""
    for p in range(0, out.shape[0], 4):
        out[p : p + 4] = 0
        for k in range(x.shape[1]):
            for c in range(out.shape[1]):
                v = w[k, c]
                out[p, c] = fma(x[p, k], v, out[p, c])
                out[p + 1, c] = fma(x[p + 1, k], v, out[p + 1, c])
                out[p + 2, c] = fma(x[p + 2, k], v, out[p + 2, c])
                out[p + 3, c] = fma(x[p + 3, k], v, out[p + 3, c])


@njit
def depthwise_blocked(x, w, out):
    """Four pixels for each weight."""
    for y in range(out.shape[0]):
        for i in range(0, out.shape[1], 4):
            out[y, i : i + 4] = 0
            for dy in range(3):
                for dx in range(3):
                    for c in range(out.shape[2]):
                        v = w[dy, dx, c]
                        out[y, i, c] = fma(x[y + dy, i + dx, c], v, out[y, i, c])
                        out[y, i + 1, c] = fma(x[y + dy, i + dx + 1, c], v, out[y, i + 1, c])
                        out[y, i + 2, c] = fma(x[y + dy, i + dx + 2, c], v, out[y, i + 2, c])
                        out[y, i + 3, c] = fma(x[y + dy, i + dx + 3, c], v, out[y, i + 3, c])


# -- rung 5: vector code. A block of accumulators stays in registers from the first term to the last. Compilers don't
#    find that by themselves, so these functions write it as LLVM instructions (a compiler's own language): they run
#    once, while the kernel is compiled, and each call of `builder`, `load` or `store` appends an instruction ----------


def at(builder, pointer, *terms):
    """The address of an element whose index is a sum of products."""
    index = INT(0)
    for a, b in terms:
        index = builder.add(index, builder.mul(a, b))
    return builder.gep(pointer, [index])


@generated
def pointwise_tile(builder, _, x, p, w, c, out, depth, channels):
    """ROWS pixels from p on, VECTORS vectors of channels from c on: load a weight's vectors, multiply, next k.

    `variable` is a place for a vector that LLVM keeps in a register, `splat` a vector with one value in all lanes.
    """
    cells = [(r, v, variable(builder, FLOAT, LANES)) for r in range(ROWS) for v in range(VECTORS)]
    for _, _, slot in cells:
        builder.store(constant(FLOAT, 0, LANES), slot)
    with for_range(builder, depth) as loop:
        k = loop.index
        weights = [load(builder, at(builder, w, (k, channels), (c, INT(1)), (INT(v * LANES), INT(1))), FLOAT, LANES)
                   for v in range(VECTORS)]  # fmt: skip
        rows = [at(builder, x, (builder.add(p, INT(r)), depth), (k, INT(1))) for r in range(ROWS)]
        values = [splat(builder, builder.load(row), LANES) for row in rows]
        for r, v, slot in cells:
            builder.store(vector_fma(builder, values[r], weights[v], builder.load(slot), LANES), slot)
    for r, v, slot in cells:
        place = at(builder, out, (builder.add(p, INT(r)), channels), (c, INT(1)), (INT(v * LANES), INT(1)))
        store(builder, builder.load(slot), place)


@njit
def pointwise_vector(x, w, out):
    """All pixels and channels by the micro-kernel."""
    for p in range(0, out.shape[0], ROWS):
        for c in range(0, out.shape[1], VECTORS * LANES):
            pointwise_tile(x, p, w, c, out, x.shape[1], out.shape[1])


@generated
def depthwise_tile(builder, _, x, y, i, w, c, out, width, channels):
    """ROWS pixels of row y from i on, one vector of channels: nine weights, nine multiply-adds each."""
    totals = [constant(FLOAT, 0, LANES)] * ROWS
    for dy in range(3):
        for dx in range(3):
            weight = load(builder, at(builder, w, (INT(3 * dy + dx), channels), (c, INT(1))), FLOAT, LANES)
            row = builder.mul(builder.add(y, INT(dy)), builder.add(width, INT(2)))
            for r in range(ROWS):
                pixel = builder.add(row, builder.add(i, INT(dx + r)))
                value = load(builder, at(builder, x, (pixel, channels), (c, INT(1))), FLOAT, LANES)
                totals[r] = vector_fma(builder, value, weight, totals[r], LANES)
    for r in range(ROWS):
        pixel = builder.add(builder.mul(y, width), builder.add(i, INT(r)))
        store(builder, totals[r], at(builder, out, (pixel, channels), (c, INT(1))))


@njit
def depthwise_vector(x, w, out):
    """All pixels and channels by the micro-kernel."""
    for y in range(out.shape[0]):
        for i in range(0, out.shape[1], ROWS):
            for c in range(0, out.shape[2], LANES):
                depthwise_tile(x, y, i, w, c, out, out.shape[1], out.shape[2])


# -- rung 6: threads. Each takes rows of its own, so no sum is shared --------------------------------------------------


@njit(parallel=True)
def pointwise_threads(x, w, out):
    """The same, by all cores."""
    for block in prange(out.shape[0] // ROWS):
        for c in range(0, out.shape[1], VECTORS * LANES):
            pointwise_tile(x, block * ROWS, w, c, out, x.shape[1], out.shape[1])


@njit(parallel=True)
def depthwise_threads(x, w, out):
    """The same, by all cores."""
    for y in prange(out.shape[0]):
        for i in range(0, out.shape[1], ROWS):
            for c in range(0, out.shape[2], LANES):
                depthwise_tile(x, y, i, w, c, out, out.shape[1], out.shape[2])


# -- climbing ----------------------------------------------------------------------------------------------------------

RUNGS = ("plain", "compiled", "exchanged", "blocked", "vector", "threads")


def peak_of(chains, threads=1):
    """GFLOP/s of `chains` independent vectors of multiply-adds on registers alone, on each of `threads`."""

    @generated
    def registers(builder, _, out, passes):
        value = load(builder, out, FLOAT, LANES)  # from memory, so that nothing is known and left out
        slots = [variable(builder, FLOAT, LANES) for _ in range(chains)]
        for i, slot in enumerate(slots):
            builder.store(load(builder, builder.gep(out, [INT(i * LANES)]), FLOAT, LANES), slot)
        with for_range(builder, passes):
            for slot in slots:
                builder.store(vector_fma(builder, value, value, builder.load(slot), LANES), slot)
        for i, slot in enumerate(slots):
            store(builder, builder.load(slot), builder.gep(out, [INT(i * LANES)]))

    @njit(parallel=threads > 1)
    def run(out, passes):
        for t in prange(out.shape[0]):
            registers(out[t], passes)

    out = np.zeros((threads, chains * LANES), np.float32)
    return 2 * out.size * 200_000 / seconds(run, out, 200_000) / 1e9


def seconds(function, *args):
    """The best of several runs, after one that compiles it and fills the caches."""
    function(*args)
    best, until = float("inf"), time.perf_counter() + 0.3
    while True:
        start = time.perf_counter()
        function(*args)
        best = min(best, time.perf_counter() - start)
        if time.perf_counter() > until:
            return best


def climb(name, x, w, shape, terms):
    """Run each rung of a layer, assert that its bits are those of the rung before, time it: (rung, GFLOP/s)."""
    before = None
    for rung in RUNGS:
        function = globals()[f"{name}_{rung}"]
        out = np.full(shape, np.nan, np.float32)
        if rung == "plain":  # a first piece tells
            piece = out[: 1 if name == "depthwise" else 4]
            start = time.perf_counter()
            function(x, w, piece)
            took, work = time.perf_counter() - start, 2 * terms * piece.size
            before = piece
        else:
            function(x, w, out)
            assert out[: len(before)].tobytes() == before.tobytes(), f"{name}: {rung} has other bits"
            before = out
            took, work = seconds(function, x, w, out), 2 * terms * out.size
        yield rung, work / took / 1e9


def picture(path, found, peaks):
    """A bar for each rung, on a logarithmic scale, with its share of the peak, which is a line above the bars."""
    import matplotlib.pyplot as plt

    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "npmobilenet"})
    figure, axes = plt.subplots(figsize=(8, 4.5))
    for i, (name, speeds) in enumerate(found.items()):
        at = [k + 0.42 * i - 0.21 for k in range(len(RUNGS))]
        bars = axes.bar(at, speeds, 0.4, label=name, color=("#0072B2", "#E69F00")[i], log=True)
        shares = [speed / best for speed, best in zip(speeds, peaks, strict=True)]
        axes.bar_label(bars, [*map(labelled, speeds, shares)], padding=2, fontsize=8, bbox=WHITE)
    last = len(RUNGS) - 1.5
    axes.hlines(peaks[-2:], [-0.5, last], [last, last + 1], "black", ["dashed", "dotted"])
    axes.annotate("peak of one core", (-0.45, peaks[0]), (0, 3), textcoords="offset points")
    axes.annotate("of all cores", (last, peaks[-1]), (0, 16), textcoords="offset points")
    axes.set_xticks(range(len(RUNGS)), RUNGS)
    axes.set(ylabel="GFLOP/s", title="Two float layers, six times each, the same bits", ylim=(None, 8 * peaks[-1]))
    axes.legend(loc="center left")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None} if path.endswith(".svg") else None)


WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # behind a label, so that no line strikes it out


def labelled(speed, share):
    """A bar's speed, and below it the share of the peak where that is half a percent or more."""
    text = f"{speed:.0f}" if speed >= 9.5 else f"{speed:.{1 if speed < 0.01 else 2}g}"
    return f"{text}\n{share:.0%}" if share >= 0.005 else text


def main(arguments=None):
    """Climb both ladders."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--side", type=int, default=28, help="pixels along each side of the image, a multiple of 4")
    parser.add_argument("--channels", type=int, default=192, help="a multiple of 32")
    parser.add_argument("--picture", help="write a bar chart to this file (needs matplotlib)")
    options = parser.parse_args(arguments)
    side, channels = options.side, options.channels
    if side < 4 or side % 4 or channels < 32 or channels % 32:
        parser.error("--side must be a multiple of 4, --channels of 32")
    rng = np.random.default_rng(0)
    shapes = (side * side, channels), (channels, channels), (side + 2, side + 2, channels), (3, 3, channels)
    image, square, framed, filters = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    layers = {
        "pointwise": (image, square, (side * side, channels), channels),
        "depthwise": (framed, filters, (side, side, channels), 9),
    }
    # Too few chains wait for each other, too many don't fit into the registers.
    threads, (peak, chains) = numba.get_num_threads(), max((peak_of(n), n) for n in (5, 8, 12))
    peaks = [peak] * (len(RUNGS) - 1) + [max(peak, peak_of(chains, threads)) if threads > 1 else peak]
    print(f"peak of one core: {peak:.1f} GFLOP/s; of {threads} threads: {peaks[-1]:.1f}")
    found = {}
    for name, layer in layers.items():
        found[name] = []
        for (rung, speed), best in zip(climb(name, *layer), peaks, strict=True):
            found[name].append(speed)
            print(f"{name:10} {rung:10} {speed:10.4f} GFLOP/s  {speed / best:8.3%} of the peak  same bits")
    if options.picture:
        picture(options.picture, found, peaks)


if __name__ == "__main__":
    main()
