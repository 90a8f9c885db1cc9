"""An 8-bit pointwise layer, from plain Python to bytes made in registers: each rung has the bytes of the one before.

Usage: python examples/ladder_int8.py [--side PIXELS] [--channels N] [--picture FILE.svg]

acc[p,c] = bias[c] + sum over k of (x[p,k] - z) * w[k,c], exactly; out[p,c] = acc[p,c] * factor[c], rounded once, plus a
zero point, clamped to a byte. x and out are uint8, w is int8, acc int32. Sums of integers are the same in any order and
any grouping, so rungs may split them, as those of floats may not (ladder.py). Only the rounding is followed to the
letter. Each rung is run, compared with the one before, and then timed.
"""

import argparse
import time
from collections import namedtuple

import numpy as np
from numba import njit

from npmobilenet.kernels.compiler.cpu import LANES as LANES_OF
from npmobilenet.kernels.compiler.cpu import isa
from npmobilenet.kernels.compiler.numba_private import for_range
from npmobilenet.kernels.vectorcode.generated import generated
from npmobilenet.kernels.vectorcode.vector import (
    INT,
    INT8,
    INT16,
    INT32,
    constant,
    intrinsic_call,
    lanes_of,
    load,
    max_of,
    min_of,
    splat,
    store,
    variable,
    vector,
)

LANES, ROWS, VECTORS = LANES_OF[isa()], 4, 2  # int32 in a vector; pixels and vectors of a block of accumulators
VNNI = "vnni" in isa()  # the CPU multiplies four bytes by four and adds the products, in one instruction

# factor = multiplier * 2^-(31 + shift), as a file's scales give it: arrays with an entry for each channel.
Layer = namedtuple("Layer", "bias multiplier shift zero_in zero_out")


# -- rung 1: plain Python. What is computed, and nothing else ----------------------------------------------------------


def rescaled(acc, multiplier, shift, zero_point):
    """An accumulator as an output byte: add a half, and floor."""
    value = ((acc * multiplier + (1 << (30 + shift))) >> (31 + shift)) + zero_point
    return min(max(value, 0), 255)


def plain(x, w, layer, out):
    """Loops as one would write them."""
    for p in range(out.shape[0]):
        for c in range(out.shape[1]):
            acc = int(layer.bias[c])
            for k in range(x.shape[1]):
                acc += (int(x[p, k]) - layer.zero_in) * int(w[k, c])
            out[p, c] = rescaled(acc, int(layer.multiplier[c]), int(layer.shift[c]), layer.zero_out)


# -- rung 2: compiled. The same loops as machine code, which walk down a column of w, far apart in memory --------------

rescaled_compiled = njit(rescaled)


@njit
def compiled(x, w, layer, out):
    """The same loops, compiled."""
    for p in range(out.shape[0]):
        for c in range(out.shape[1]):
            acc = np.int64(layer.bias[c])
            for k in range(x.shape[1]):
                acc += (np.int32(x[p, k]) - layer.zero_in) * np.int32(w[k, c])
            out[p, c] = rescaled_compiled(acc, layer.multiplier[c], layer.shift[c], layer.zero_out)


# -- rung 3: channels innermost. Neighbours in memory, whole vectors of int32: a product in each lane ------------------


@njit
def rescale_rows(acc, layer, out):
    """Accumulators in memory to bytes in memory."""
    for p in range(out.shape[0]):
        for c in range(out.shape[1]):
            out[p, c] = rescaled_compiled(np.int64(acc[p, c]), layer.multiplier[c], layer.shift[c], layer.zero_out)


@njit
def innermost(x, w, layer, out):
    """A pixel's accumulators are a row of memory, through which each k goes once."""
    acc = np.empty((1, out.shape[1]), np.int32)
    for p in range(out.shape[0]):
        acc[0] = layer.bias
        for k in range(x.shape[1]):
            value = np.int32(x[p, k]) - np.int32(layer.zero_in)
            for c in range(out.shape[1]):
                acc[0, c] += value * w[k, c]
        rescale_rows(acc, layer, out[p : p + 1])


# -- rung 4: int16 pairs. One instruction multiplies two neighbouring int16 by two others and adds the products, in each
#    lane of int32 (x86: PMADDWD). x - z and w fit into int16; weights are laid out beforehand as they are read --------


def grouped(w, size, dtype):
    """Weights (depth, channels) so that `size` terms of a channel lie side by side: (depth / size, channels, size)."""
    groups = w.reshape(len(w) // size, size, -1).transpose(0, 2, 1)
    return np.ascontiguousarray(groups, dtype)


def pair_products(builder, x, w):
    """In each lane of int32 the sum of two products of int16."""
    if LANES > 4:
        name = {8: "llvm.x86.avx2.pmadd.wd", 16: "llvm.x86.avx512.pmaddw.d.512"}[LANES]
        return intrinsic_call(builder, name, vector(INT32, LANES), [x, w])
    product = builder.mul(*(builder.sext(v, vector(INT32, 2 * LANES)) for v in (x, w)))
    return builder.add(*(lanes_of(builder, product, range(odd, 2 * LANES, 2)) for odd in (0, 1)))


def add_pairs(builder, total, x, w):
    """total + two products, of words that hold two int16 each."""
    return builder.add(total, pair_products(builder, *(builder.bitcast(v, vector(INT16, 2 * LANES)) for v in (x, w))))


def at(builder, words, *terms):
    """The address of a 32-bit word whose index is a sum of products."""
    index = INT(0)
    for a, b in terms:
        index = builder.add(index, builder.mul(a, b))
    return builder.gep(builder.bitcast(words, INT32.as_pointer()), [index])


def block(builder, add, x, w, bias, c, groups, channels):
    """ROWS pixels, VECTORS vectors of channels from c on: sums that stay in registers. `add` multiplies two words."""
    cells = [(r, v, variable(builder, INT32, LANES)) for r in range(ROWS) for v in range(VECTORS)]
    for _, v, slot in cells:
        builder.store(load(builder, at(builder, bias, (c, INT(1)), (INT(v), INT(LANES))), INT32, LANES), slot)
    with for_range(builder, groups) as loop:
        k = loop.index
        weights = [load(builder, at(builder, w, (k, channels), (c, INT(1)), (INT(v), INT(LANES))), INT32, LANES)
                   for v in range(VECTORS)]  # fmt: skip
        rows = [at(builder, x, (INT(r), groups), (k, INT(1))) for r in range(ROWS)]
        values = [splat(builder, builder.load(row, align=1), LANES) for row in rows]
        for r, v, slot in cells:
            builder.store(add(builder, builder.load(slot), values[r], weights[v]), slot)
    return cells


@generated
def pairs_tile(builder, _, x, w, bias, c, groups, channels, acc):
    """A block of sums, to memory."""
    for r, v, slot in block(builder, add_pairs, x, w, bias, c, groups, channels):
        store(builder, builder.load(slot), at(builder, acc, (INT(r), channels), (c, INT(1)), (INT(v), INT(LANES))))


@njit
def pairs(x, w, layer, out):
    """Four pixels at a time become int16, are multiplied with all channels, and rescaled."""
    channels, acc = out.shape[1], np.empty((ROWS, out.shape[1]), np.int32)
    rows = np.empty((ROWS, x.shape[1]), np.int16)
    for p in range(0, out.shape[0], ROWS):
        for r in range(ROWS):
            for k in range(x.shape[1]):
                rows[r, k] = np.int16(x[p + r, k]) - np.int16(layer.zero_in)
        for c in range(0, channels, VECTORS * LANES):
            pairs_tile(rows, w, layer.bias, c, x.shape[1] // 2, channels, acc)
        rescale_rows(acc, layer, out[p : p + ROWS])


# -- rung 5: four bytes at once. x stays as it is, since sum (x - z) w = sum x w - z sum w, and z sum w is known before.
#    With VNNI a lane takes four products of unsigned by signed bytes (VPDPBUSD). Without, a word's even and odd bytes
#    become int16 in registers, two pairs: no fewer instructions, but half the memory, and no copy of x. (x86 has an
#    older instruction for bytes, PMADDUBSW. It saturates, so its sums may be wrong; it isn't used.) -------------------


def folded(w, layer):
    """The layer with its input's zero point in the bias."""
    return layer._replace(bias=(layer.bias - layer.zero_in * w.sum(0, dtype=np.int64)).astype(np.int32))


def add_bytes(builder, total, x, w):
    """total + four products, of words that hold four bytes each: unsigned x, signed w."""
    if VNNI:
        name = f"llvm.x86.avx512.vpdpbusd.{32 * LANES}"
        return intrinsic_call(builder, name, vector(INT32, LANES), [total, x, w])
    x, w = (builder.bitcast(v, vector(INT16, 2 * LANES)) for v in (x, w))
    eight = constant(INT16, 8, 2 * LANES)
    even = builder.and_(x, constant(INT16, 255, 2 * LANES)), builder.ashr(builder.shl(w, eight), eight)
    odd = builder.lshr(x, eight), builder.ashr(w, eight)
    return builder.add(builder.add(total, pair_products(builder, *even)), pair_products(builder, *odd))


@generated
def bytes_tile(builder, _, x, w, bias, c, groups, channels, acc):
    """A block of sums, to memory."""
    for r, v, slot in block(builder, add_bytes, x, w, bias, c, groups, channels):
        store(builder, builder.load(slot), at(builder, acc, (INT(r), channels), (c, INT(1)), (INT(v), INT(LANES))))


@njit
def four_bytes(x, w, layer, out):
    """Pixels are read where they are."""
    channels, acc = out.shape[1], np.empty((ROWS, out.shape[1]), np.int32)
    for p in range(0, out.shape[0], ROWS):
        for c in range(0, channels, VECTORS * LANES):
            bytes_tile(x[p : p + ROWS], w, layer.bias, c, x.shape[1] // 4, channels, acc)
        rescale_rows(acc, layer, out[p : p + ROWS])


# -- rung 6: requantization in registers. floor(floor(a / 2^31) / 2^s) = floor(a / 2^(31 + s)), so of the product of 64
#    bits the upper 32 are enough for the shift by s. Sums never see memory; what is stored is a quarter as large ------


def rescale_vector(builder, acc, c, multiplier, shift, zero_point):
    """The bytes of LANES accumulators, of the channels from c on."""
    words, wide = vector(INT32, LANES), vector(INT, LANES)
    m, s = (load(builder, at(builder, p, (c, INT(1))), INT32, LANES) for p in (multiplier, shift))
    half = builder.shl(constant(INT, 1 << 30, LANES), builder.zext(s, wide))
    product = builder.add(builder.mul(builder.sext(acc, wide), builder.sext(m, wide)), half)
    upper = builder.trunc(builder.lshr(product, constant(INT, 31, LANES)), words)
    value = builder.add(builder.ashr(upper, s), splat(builder, builder.trunc(zero_point, INT32), LANES))
    value = min_of(builder, max_of(builder, value, constant(INT32, 0, LANES)), constant(INT32, 255, LANES))
    return builder.trunc(value, vector(INT8, LANES))


@generated
def registers_tile(builder, _, x, w, layer, c, groups, channels, out):
    """A block of sums, which become bytes before they are stored."""
    for r, v, slot in block(builder, add_bytes, x, w, layer.bias, c, groups, channels):
        first = builder.add(c, INT(v * LANES))
        done = rescale_vector(builder, builder.load(slot), first, layer.multiplier, layer.shift, layer.zero_out)
        store(builder, done, builder.gep(out, [builder.add(builder.mul(INT(r), channels), first)]))


@njit
def registers(x, w, layer, out):
    """All pixels and channels by the micro-kernel."""
    for p in range(0, out.shape[0], ROWS):
        for c in range(0, out.shape[1], VECTORS * LANES):
            registers_tile(x[p : p + ROWS], w, layer, c, x.shape[1] // 4, out.shape[1], out[p : p + ROWS])


# -- climbing ----------------------------------------------------------------------------------------------------------

RUNGS = {f.__name__: f for f in (plain, compiled, innermost, pairs, four_bytes, registers)}


def as_read(rung, w, layer):
    """Weights and layer in the form that a rung wants, made once, as a plan does."""
    if rung in ("four_bytes", "registers"):
        return grouped(w, 4, np.int8), folded(w, layer)
    return (grouped(w, 2, np.int16) if rung == "pairs" else w), layer


def example(side, channels):
    """A layer with random values whose outputs use the whole range of a byte."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (side * side, channels), np.uint8)
    w = rng.integers(-127, 128, (channels, channels), np.int8)
    factor = rng.uniform(0.8, 1.2, channels) * 128 / (3 * 74 * 73 * channels**0.5)  # 3 standard deviations: 128
    mantissa, exponent = np.frexp(factor)
    multiplier, shift = np.rint(mantissa * 2**31).astype(np.int64), -exponent
    layer = Layer(
        rng.integers(-9999, 9999, channels, np.int32), np.minimum(multiplier, 2**31 - 1).astype(np.int32),
        shift.astype(np.int32), 121, 128,
    )  # fmt: skip
    return x, w, layer


def peak_of(chains):
    """Operations per second of `chains` independent vectors of sums, on registers alone, by the best instruction."""

    @generated
    def alone(builder, _, out, passes):
        value = load(builder, out, INT32, LANES)  # from memory, so that nothing is known and left out
        slots = [variable(builder, INT32, LANES) for _ in range(chains)]
        for i, slot in enumerate(slots):
            builder.store(load(builder, builder.gep(out, [INT(i * LANES)]), INT32, LANES), slot)
        with for_range(builder, passes):
            for slot in slots:
                add = add_bytes if VNNI else add_pairs
                builder.store(add(builder, builder.load(slot), value, builder.load(slot)), slot)
        for i, slot in enumerate(slots):
            store(builder, builder.load(slot), builder.gep(out, [INT(i * LANES)]))

    @njit
    def run(out, passes):
        alone(out, passes)

    out = np.ones(chains * LANES, np.int32)
    return 2 * (4 if VNNI else 2) * out.size * 20_000 / seconds(run, out, 20_000)


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


def climb(x, w, layer):
    """Run each rung, assert that its bytes are those of the rung before, time it: (rung, operations per second)."""
    before = None
    for rung, function in RUNGS.items():
        out = np.full((len(x), w.shape[1]), 99, np.uint8)
        given = as_read(rung, w, layer)
        if rung == "plain":  # a first piece tells
            out = out[:4]
            start = time.perf_counter()
            function(x, *given, out)
            took, before = time.perf_counter() - start, out
        else:
            function(x, *given, out)
            assert out[: len(before)].tobytes() == before.tobytes(), f"{rung} has other bytes"
            took, before = seconds(function, x, *given, out), out
        yield rung, 2 * len(w) * out.size / took


def picture(path, found, peak):
    """A bar for each rung, on a logarithmic scale, with its share of the peak, which is a line."""
    import matplotlib.pyplot as plt

    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "npmobilenet"})
    figure, axes = plt.subplots(figsize=(7, 4))
    bars = axes.bar(list(found), [speed / 1e9 for speed in found.values()], 0.6, color="#0072B2", log=True)
    white = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # so that no line strikes a label out
    axes.bar_label(bars, [labelled(speed / 1e9, speed / peak) for speed in found.values()], padding=2, bbox=white)
    axes.axhline(peak / 1e9, color="black", linestyle="--")
    axes.annotate("peak of one core", (-0.4, peak / 1e9), (0, 3), textcoords="offset points")
    axes.set(ylabel="GOP/s", title="One 8-bit layer, six times, the same bytes", ylim=(None, 4 * peak / 1e9))
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None} if path.endswith(".svg") else None)


def labelled(speed, share):
    """A bar's speed, and below it the share of the peak where that is half a percent or more."""
    text = f"{speed:.0f}" if speed >= 9.5 else f"{speed:.{1 if speed < 0.01 else 2}g}"
    return f"{text}\n{share:.0%}" if share >= 0.005 else text


def main(arguments=None):
    """Climb the ladder."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--side", type=int, default=28, help="pixels along each side of the image, a multiple of 4")
    parser.add_argument("--channels", type=int, default=192, help="a multiple of 32")
    parser.add_argument("--picture", help="write a bar chart to this file (needs matplotlib)")
    options = parser.parse_args(arguments)
    side, channels = options.side, options.channels
    if side < 4 or side % 4 or channels < 32 or channels % 32:
        parser.error("--side must be a multiple of 4, --channels of 32")
    instruction = "four bytes (VNNI)" if VNNI else "int16 pairs"
    peak = max(map(peak_of, (5, 8, 12)))  # too few chains wait for each other, too many don't fit into the registers
    print(f"peak of one core, by {instruction}: {peak / 1e9:.1f} GOP/s; vectors of {LANES} int32 ({isa()})")
    if not VNNI:
        print("left out: the instruction for four bytes, VNNI; rungs 5 and 6 multiply two int16 pairs")
    found = {}
    for rung, speed in climb(*example(side, channels)):
        found[rung] = speed
        print(f"{rung:10} {speed / 1e9:10.4f} GOP/s  {speed / peak:8.3%} of that peak  same bytes")
    if options.picture:
        picture(options.picture, found, peak)


if __name__ == "__main__":
    main()
