"""Fast twin of reference/depthwise_conv2d.py: the same sums, several rows of the window at a time."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from npmobilenet.kernels.compiler.deferred import register_jitable
from npmobilenet.kernels.compiler.packed_arena import LINE
from npmobilenet.kernels.compiler.spans import by_groups, under_windows
from npmobilenet.kernels.compiler.task import task
from npmobilenet.kernels.compiler.work_sharing import Work
from npmobilenet.kernels.fast.gemm_s8 import LANE, LANE_KIND, PACKED, line_form, requantize_block
from npmobilenet.kernels.fast.lhs_packing import is_signed
from npmobilenet.kernels.vectorcode.depthwise_s8 import (
    Block,
    Filters,
    OutputRows,
    RowGroup,
    Words,
    depthwise_s8_kernel,
    fill_kernel,
    interleave_kernel,
    interleave_one_kernel,
    raised,
)
from npmobilenet.kernels.vectorcode.gemm_s8 import address_of, kr_of
from npmobilenet.kernels.vectorcode.generated import Cells, borrowed, flat_view, keep, one_of

KR = kr_of(LANE_KIND)
RUN = 8192  # interleaved words and accumulators that are alive together, 32 KiB: about the first-level cache
PIXELS = 4  # neighbouring outputs that a tile computes together, or, where it computes one row, twice as many
MOST_PIXELS = 2 * PIXELS
# Channels that are interleaved together.
WIDTHS = (4 * LANE, 2 * LANE, LANE) if LANE == 16 or KR == 4 else (2 * LANE, LANE, LANE)
WIDE, MIDDLE, NARROW = WIDTHS
RAISED_INT8, RAISED_UINT8 = raised(LANE_KIND, True), raised(LANE_KIND, False)

interleave_by_width = one_of({width: interleave_kernel(width, LANE, LANE_KIND) for width in WIDTHS})
interleave_one, fill = interleave_one_kernel(LANE, LANE_KIND), fill_kernel(LANE)


class Form(NamedTuple):
    """What a kernel for a window computes together: outputs of a row, as sums or as bytes, and rows of outputs.

    The rows are as many as come out of the same groups of rows of the image. `side` pixels that lie side by side are
    computed as one, where so many make up a vector of channels.
    """

    columns: int
    stride: int
    pixels: int
    pixels_of_bytes: int
    rows: int
    side: int = 1

    def kernel(self, pixels: int, linear: bool) -> Any:
        """The kernel that computes so many outputs of a row together."""
        window = self.columns, self.stride * self.side
        return depthwise_s8_kernel(pixels, self.rows, LANE, LANE_KIND, window, linear, LANE // self.side)


# A window's form is its place here. The first is for all windows, as sums only; the others for the usual ones.
FORMS = (
    Form(0, 0, MOST_PIXELS, 0, 1),
    Form(3, 1, PIXELS, PIXELS, 2),
    Form(3, 2, MOST_PIXELS, MOST_PIXELS, 1),
    Form(5, 1, PIXELS, PIXELS, 4 if KR == 4 else 2),
    Form(5, 2, PIXELS, MOST_PIXELS, 2 if KR == 4 else 1),
    Form(3, 1, PIXELS, PIXELS, 2, side=2),
)
SIDE_BY_SIDE = len(FORMS) - 1
USUAL = dict(enumerate(FORMS[1:], 1))
sums_of_any = depthwise_s8_kernel(FORMS[0].pixels, FORMS[0].rows, LANE, LANE_KIND)
sums_of = one_of({n: f.kernel(f.pixels, False) for n, f in USUAL.items()})
bytes_of = one_of({n: f.kernel(f.pixels_of_bytes, True) for n, f in USUAL.items()})


def blocks_of(channels):
    """(first channel, width) of the blocks; the last may begin before the end of the one before it."""
    first, blocks = 0, []
    while first < channels:
        fits = [w for w in WIDTHS if w <= channels and 4 * (channels - first) > 3 * w]
        width = fits[0] if fits else NARROW
        first = min(first, max(channels - width, 0))
        blocks.append((first, width))
        first += width
    return blocks


def pack_depthwise_conv2d_q(weights, bias, zero_points):
    """(kh, kw, Cout) and bias -> ((words, parts, vectors, blocks), bias).

    blocks: the first channel and the width of each block. For each vector of LANE channels of each block, `vectors`
    holds its first part, the number of its parts and the place of its words; `parts` holds each part's group of rows.
    The words of a part: (kw, shifts, LANE), each the weights of the group's KR rows without their zero point, where
    the window is shifted by 0, 1, ... rows within the groups, so that one set of interleaved rows serves several rows
    of outputs; rows outside the window get 0.

    Bytes (gemm_s8.BYTES) can't hold weights outside -128 ... 127: what is left of them goes into a further part for the
    same group. As sum (x - z_in) w = sum x w - z_in sum w, the last term goes into the bias; a tap outside the image
    then has to read z_in. Bytes are read as x + raised (see depthwise_s8), so that z_in + raised takes its place.

    Half a vector of channels is repeated, for two pixels side by side.
    """
    if 2 * weights.shape[2] == LANE:
        weights, bias = np.concatenate([weights, weights], 2), np.concatenate([bias, bias])
    height, width, channels = weights.shape
    centred_weights, groups = weights.astype(np.int64) - zero_points[1], -(-height // KR)
    shifts = groups * KR - height + 1
    folded_bias = np.zeros(max(channels, LANE), np.int64)
    folded_bias[:channels] = bias - (
        zero_points[0] + raised(LANE_KIND, weights.dtype == np.int8)
    ) * centred_weights.sum((0, 1))
    limits, blocks = np.iinfo(PACKED), blocks_of(channels)
    words, parts, vectors, at = [], [], [], 0
    for first in (block + v for block, size in blocks for v in range(0, size, LANE)):
        some = centred_weights[:, :, first : first + LANE]
        rows = np.zeros((groups * KR, width, shifts, LANE), np.int64)
        for shift in range(shifts):
            rows[shift : shift + height, :, shift, : some.shape[2]] = some
        vector = [len(parts), 0, at]
        for g in range(groups):
            rest = np.moveaxis(rows[g * KR : (g + 1) * KR], 0, -1)
            while rest.any():
                part = rest.clip(limits.min, limits.max).astype(PACKED)
                words.append(part.reshape(-1))
                parts.append(g)
                rest, at = rest - part, at + part.size
        vector[1] = len(parts) - vector[0]
        vectors += vector
    packed = np.concatenate([np.zeros(0, PACKED), *words])
    tables = (np.array(parts, np.int64), np.array(vectors, np.int64), np.array(blocks, np.int64))
    return (in_lines(packed), *tables), folded_bias.astype(np.int32)


def in_lines(array):
    """A copy from the start of a cache line on: vectors that cross lines take twice as long to load."""
    room = np.zeros(array.nbytes + LINE, np.int8)
    skip = -room.ctypes.data % LINE
    copy = room[skip : skip + array.nbytes].view(array.dtype)
    copy[:] = array
    return copy


@register_jitable
def words_in_lines(size):
    """An array of int32 from the start of a cache line on."""
    array = np.empty(size + LINE // 4, np.int32)
    skip = -address_of(array) % LINE // 4
    return array[skip : skip + size]


@register_jitable
def outside_word(x, value):
    """The word of pixels outside the image, whose values are all `value`: see depthwise_s8.interleave_kernel."""
    if KR == 2:
        return (value & 0xFFFF) * 0x10001
    return ((value + (RAISED_INT8 if is_signed(x) else RAISED_UINT8)) & 0xFF) * 0x1010101


@register_jitable
def interleave(x, group, column, channel, count, words, channels, width):
    """`count` pixels of a block of channels, from pixel `column` on: see depthwise_s8.interleave_kernel."""
    if channels != x.shape[3] or channels < LANE:
        multiplier, some = channels // x.shape[3], min(width, channels - channel)
        interleave_one(x, group, column, channel, count, words, some, multiplier)
    else:
        interleave_by_width(width, x, group, column, channel, count, words)


@register_jitable
def form_of(taps, stride, dilation, rows):
    """The place in FORMS of a window's form."""
    for form in range(1, SIDE_BY_SIDE if dilation[0] == 1 and dilation[1] == 1 else 1):
        if taps[1] == FORMS[form].columns and stride[1] == FORMS[form].stride and rows == FORMS[form].rows:
            return form
    return 0


@register_jitable
def pixels_side_by_side(x, form, requant, out):
    """How many neighbouring pixels are computed as one: 2 where the channels of two fill a vector, else 1.

    Of wholly different rules within a vector the kernels know nothing.
    """
    half = 2 * x.shape[3] == LANE and out.shape[3] == x.shape[3] and out.shape[2] % 2 == 0
    return 2 if half and form == 1 and requant.rule.full > LANE else 1


@register_jitable
def interleave_side_by_side(x, rows, at, pixel, count, words, to):
    """`count` pixels of half a vector of channels, from pixel `pixel` on: see depthwise_s8.interleave_kernel."""
    unit, two = x.shape[3], count // 2
    interleave_by_width(LANE, x, RowGroup(rows, at), 0, pixel * unit, two, Cells(words, to, 0))
    if count % 2 == 1:
        last = (pixel + count - 1) * unit
        interleave_one(x, RowGroup(rows, at), 0, last, 1, Cells(words, to + 2 * two * unit, 0), unit, 1)


@register_jitable
def filter_block(form, words, filters, block, shift_step, acc, rows):
    """The accumulators of a block of channels of the outputs of `rows` rows, or more."""
    if form:
        sums_of(form, words, filters, block, 0, shift_step, acc)
        return
    for r in range(rows):
        to = OutputRows(acc.data, acc.at + r * acc.row, acc.step, acc.row, acc.count, 1)
        sums_of_any(words, filters, block, r * shift_step, shift_step, to)


@register_jitable
def requantize(acc, pixels, columns, channel, requant, out):
    """The outputs of a block of channels, see requantize_block. Those from rule.full on follow the other rule."""
    acc, requant, out = borrowed((acc, requant, out))
    head = columns if line_form(requant, channel, columns) else min(max(requant.rule.full - channel, 0), columns)
    if head > 0:
        requantize_block(acc, pixels, head, channel, requant, requant.rule.inside, out)
    if head < columns:
        acc, out = Cells(acc.data, acc.at + head, acc.step), Cells(out.data, out.at + head, out.step)
        requantize_block(acc, pixels, columns - head, channel + head, requant, requant.rule.outside, out)


@register_jitable
def pixels_at_once(size, out_w):
    """Neighbouring outputs, each of which takes `size` words, that are computed before they are requantized."""
    most = max(RUN // size // PIXELS * PIXELS, MOST_PIXELS)
    pieces = (out_w + most - 1) // most
    even = (out_w + pieces - 1) // pieces
    return min((even + PIXELS - 1) // PIXELS * PIXELS, out_w)


@register_jitable
def rows_together(taps, stride, dilation):
    """The groups of KR rows of the image that a window reads, and how many rows of outputs come out of the same."""
    groups = (taps[0] + KR - 1) // KR
    return groups, (groups * KR - taps[0]) // stride[0] + 1 if dilation[0] == 1 else 1


def row_groups(x, weights, bias, zero_points, taps, stride, pad, dilation, requant, out):
    """Units are the output rows that are computed together, or what is left of them at an image's end: half of them
    take as long. An output's requantization takes as long as some six multiply-adds elsewhere.
    """
    _, together = rows_together(taps, stride, dilation)
    units = out.shape[0] * -(-out.shape[1] // together)
    cost = together * out.shape[2] * out.shape[3] * (6 + taps[0] * taps[1] // 2)
    rows = under_windows(x, out, taps[0], stride[0], pad[0], dilation[0])
    return Work(units, cost, touch=by_groups(rows, out.shape[1], together))


@task(row_groups)
def depthwise_conv2d_q(start, stop, x, weights, bias, zero_points, taps, stride, pad, dilation, requant, out):
    """As the reference. Moves: KR rows of the input interleaved, so that one instruction multiplies and adds as many
    taps of 16 channels; rows of outputs that fit into the same groups of rows side by side; taps outside the image read
    zero points; accumulators requantized, a run at a time, while they are in the first-level cache. Threads take groups
    of output rows.
    """
    packed, parts, vectors, blocks = weights
    out_h, out_w, channels = out.shape[1], out.shape[2], out.shape[3]
    _, in_h, in_w, in_c = x.shape
    flat_out = flat_view(out)
    groups, most = rows_together(taps, stride, dilation)
    shifts = groups * KR - taps[0] + 1
    form = form_of(taps, stride, dilation, most)
    side = pixels_side_by_side(x, form, requant, out)
    if side > 1:
        form, out_w, channels = SIDE_BY_SIDE, out_w // side, channels * side
    unit, step = LANE // side, stride[1] * side  # words of a pixel in a vector, pixels from output to output
    extent = (taps[1] - 1) * dilation[1] + side
    blank, outside = np.full(in_c * (in_w if side > 1 else 1), zero_points[0], x.dtype), outside_word(x, zero_points[0])
    rows = np.empty(2 * groups * KR, np.int64)  # addresses and distances
    pixel = most + groups * stride[1]  # words that an output takes for each channel
    wide, middle = pixels_at_once(pixel * WIDE, out_w), pixels_at_once(pixel * MIDDLE, out_w)
    narrow = pixels_at_once(pixel * NARROW, out_w)
    size, room = 0, 0
    for run, width in ((wide, WIDE), (middle, MIDDLE), (narrow, NARROW)):
        pixels = max(run, MOST_PIXELS)
        size = max(size, most * pixels * width)
        room = max(room, groups * ((pixels - 1) * step + extent) * (width // LANE) * unit)
    own, own_rows = words_in_lines(size + room + 2 * LANE), rows
    acc, words, rows, requant = borrowed((own[: size + LANE], own[size + LANE :], own_rows, requant))
    filters = Filters(packed, parts, vectors, bias, taps[1], shifts)
    units = (out_h + most - 1) // most  # of an image
    row, end = start // units * out_h + start % units * most, stop // units * out_h + stop % units * most
    filled = 0
    while row < end:
        n, oy = row // out_h, row % out_h
        together = min(most, end - row, out_h - oy)
        for k in range(groups * KR):
            y = oy * stride[0] - pad[0] + k * dilation[0]
            inside = y >= 0 and y < in_h and k < (together - 1) * stride[0] + taps[0]
            rows[2 * k] = address_of(x) + (n * in_h + y) * in_w * in_c if inside else address_of(blank)
            rows[2 * k + 1] = in_c * side if inside or side > 1 else 0
        vector = 0
        for b in range(blocks.shape[0]):
            first, width = blocks[b, 0], blocks[b, 1]
            number, columns = width // LANE, min(width, channels - first)
            run = wide if width == WIDE else middle if width == MIDDLE else narrow
            for ox in range(0, out_w, run):
                count = min(run, out_w - ox)
                ix, needed = ox * step - pad[1], (count - 1) * step + extent
                left, right = min(max(-ix, 0), needed), min(max(in_w - ix, 0), needed)
                step_v = ((max(count, MOST_PIXELS) - 1) * step + extent) * unit
                step_g = step_v * number
                if width != filled or count < out_w:  # else what is outside the image is there already
                    behind = Cells(words, right * unit, step_v)
                    fill(Cells(words, 0, step_v), groups * number, 0, (left * unit + LANE - 1) // LANE, outside)
                    fill(behind, groups * number, 0, ((needed - right) * unit + LANE - 1) // LANE, outside)
                    filled = width
                for g in range(groups):
                    at, to = 2 * g * KR, g * step_g + left * unit
                    if side > 1:
                        interleave_side_by_side(x, rows, at, ix + left, right - left, words, to)
                        continue
                    cells = Cells(words, to, step_v)
                    interleave(x, RowGroup(rows, at), ix + left, first, right - left, cells, channels, width)
                image = Words(words, step_g, step_v, dilation[1], stride[1])
                block, line = Block(vector, number, first), line_form(requant, first, columns)
                if form and line and columns == width:
                    out_at = (row * out_w + ox) * channels + first
                    to = OutputRows(flat_out, out_at, channels, out_w * channels, count, together)
                    bytes_of(form, image, filters, block, 0, stride[0], to, requant, line)
                    continue
                acc_row = max(count, PIXELS) * width
                sums = OutputRows(acc, 0, width, acc_row, count, together)
                filter_block(form, image, filters, block, stride[0], sums, together)
                joined = count == out_w and count >= PIXELS  # then the rows of outputs follow each other
                for r in range(1 if joined else together):
                    target = Cells(flat_out, ((row + r) * out_w + ox) * channels + first, channels)
                    pixels = together * count if joined else count
                    requantize(Cells(acc, r * acc_row, width), pixels, columns, first, requant, target)
            vector += number
        row += together
    keep(own)
    keep(own_rows)
