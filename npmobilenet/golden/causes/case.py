"""What a hypothesis is tried on: a node whose values in a dump aren't the right ones; and what a hypothesis changes.

A change is computed by the engine: another node (operands, constants, attributes, quantization), other parameters of
its kernel, or another step behind its accumulators. Everything is tried on a part of the layer first (some channels,
some rows), since most hypotheses fail there; what passes is computed over the whole layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from npmobilenet.arithmetic import convolution
from npmobilenet.arithmetic.dialects import dialect as dialect_named
from npmobilenet.arithmetic.fixedpoint import INT32_MAX, INT32_MIN, Requantization
from npmobilenet.golden.causes.rounding import requantize_all
from npmobilenet.golden.single_node import IsolatedNode, run, steps
from npmobilenet.graph import Quantization
from npmobilenet.kernels import as_functions
from npmobilenet.modeldata import Array
from npmobilenet.runtime.exclusive import exclusive

Requantize = Callable[[Array, Requantization], Array]
CHANNELS = 8  # of the part that is tried first
PART_PRODUCTS = 10**6  # multiplications that the part is cut down to, if whole rows allow it
MOST_POSITIONS = 2048  # pixels of the part where only what follows the accumulators is tried


@dataclass(frozen=True)
class Change:
    """One hypothesis: `text` says what the device does, as a clause; the other fields, what is computed then.

    what: the changed node. edit: changes each record of parameters among the kernel's arguments (Requantization, Sum,
    Pool, ...) or table. sums: changes accumulators. scaling: takes the place of the requantization.
    values: the whole tensor, computed at once.
    """

    text: str
    what: IsolatedNode | None = None
    edit: Callable[[Any], Any] | None = None
    sums: Callable[[Array], Array] | None = None
    scaling: Requantize | None = None
    values: Array | None = None


@dataclass
class Case:
    """A node with the dump's own inputs (`what`), the dump's values of its output or a stage before it (`found`).

    `others`: values of the dump's other tensors by name, what may stand in a buffer; `later`: right values of tensors
    that are computed from this one. `constants`: arrays of layers nearby by the name of the node that has them;
    `rescalings`: their multipliers and shifts.
    """

    what: IsolatedNode
    found: Array
    dialect: str
    stage: str = "output"
    others: Mapping[str, Array] = field(default_factory=dict)
    later: Mapping[str, Array] = field(default_factory=dict)
    constants: Mapping[str, Sequence[Array]] = field(default_factory=dict)
    rescalings: Mapping[str, tuple[Array, Array]] = field(default_factory=dict)
    finish: Callable[[Array], Array] | None = None  # from the node's output to what the dump holds (partial dumps)
    reader: IsolatedNode | None = None  # the one node of that, with right operands
    position: int = 0  # of the node's output among the reader's operands

    @cached_property
    def ours(self) -> Array:
        """The right values of this stage."""
        return run(self.what, self.dialect, stage=self.stage)

    @cached_property
    def wrong(self) -> Array:
        """Where the dump differs; everywhere in a partial dump, whose last tensor lies elsewhere."""
        if self.finish is not None:
            return np.ones(self.ours.shape, bool)
        return np.asarray(self.ours != self.found)

    @cached_property
    def sums(self) -> Array:
        """The accumulators, int64."""
        return run(self.what, self.dialect, stage="accumulator").astype(np.int64)

    @cached_property
    def layered(self) -> bool:
        """Whether it is a layer with weights in 8 bits, whose accumulators and requantization are known."""
        dtypes = {t.dtype for t in self.what.operands[:2]}
        grouped = self.what.node.attrs.get("grouped") or self.what.node.attrs.get("by_blocks")
        return self.what.accumulates and dtypes <= {"int8", "uint8"} and not grouped

    @cached_property
    def requant(self) -> Requantization:
        """The step behind the accumulators, up to the stage that the dump shows."""
        return requant_of(self.what, self.dialect, self.stage)

    # -- changed nodes -------------------------------------------------------------------------------------------------

    def arrays(self, text: str, changes: Mapping[int, Array], **attrs: Any) -> Change:
        """A change of operands' arrays, by position, and of attributes."""
        return Change(text, with_arrays(self.what, changes, **attrs))

    def quantized(self, text: str, position: int, scale: Sequence[float] | None, zero: int | None) -> Change:
        """A change of an operand's (or, behind the last, the result's) scales or zero point."""
        tensors = [*self.what.operands, self.what.result]
        own = tensors[position].quantization
        assert own is not None
        scales = own.scale if scale is None else tuple(scale)
        q = Quantization(scales, own.zero_point if zero is None else (zero,) * len(scales), own.axis)
        tensors[position] = replace(tensors[position], quantization=q)
        return Change(text, replace(self.what, operands=tuple(tensors[:-1]), result=tensors[-1]))

    # -- the part that is tried first ----------------------------------------------------------------------------------

    @cached_property
    def channels(self) -> Array:
        """Some channels with many differences, and some with few; the order is kept."""
        counts = self.wrong.reshape(-1, self.wrong.shape[-1]).sum(axis=0)
        order = np.argsort(-counts, kind="stable")
        few = order if len(order) <= CHANNELS else np.concatenate([order[: CHANNELS - 2], order[-2:]])
        return np.sort(few)

    @cached_property
    def image(self) -> int:
        """The image with the most differences."""
        return int(self.wrong.reshape(len(self.wrong), -1).sum(axis=1).argmax())

    @cached_property
    def rows(self) -> tuple[int, int]:
        """First and last + 1 output row of the part: about the row with the most differences."""
        shape = self.wrong.shape
        if len(shape) != 4:
            return 0, 1
        terms = int(np.prod(self.what.arrays[1].shape[:-1]))
        count = max(1, min(shape[1], PART_PRODUCTS // max(terms * shape[2] * len(self.channels), 1)))
        middle = int(self.wrong[self.image].sum(axis=(1, 2)).argmax())
        first = min(max(middle - count // 2, 0), shape[1] - count)
        return first, first + count

    def part_of(self, array: Array) -> Array:
        """The part of an array of the output's shape."""
        cut = array[self.image : self.image + 1]
        return (cut[:, self.rows[0] : self.rows[1]] if array.ndim == 4 else cut)[..., self.channels]

    @cached_property
    def positions(self) -> Array:
        """Pixels of the part where only what follows the accumulators is tried: many that differ, and some others."""
        wrong = self.wrong[self.image][..., self.channels].reshape(-1, len(self.channels))
        order = np.argsort(-wrong.sum(axis=1), kind="stable")
        return np.concatenate([order[: MOST_POSITIONS // 2], order[MOST_POSITIONS // 2 :][-MOST_POSITIONS // 2 :]])

    def sample(self, array: Array) -> Array:
        """An array of the output's shape as (positions, channels)."""
        picked: Array = array[self.image].reshape(-1, array.shape[-1])[np.ix_(self.positions, self.channels)]
        return picked

    def first_try(self, change: Change) -> float | None:
        """The share of the part that a change explains; None where it has to be computed whole at once."""
        if self.finish is not None or not self.layered or change.values is not None:
            return None
        what = self.what if change.what is None else change.what
        if change.what is None:
            sums = self.sums if change.sums is None else change.sums(self.sums)
            sums, found = self.sample(sums), self.sample(self.found)
        else:
            sums, found = self.narrow(what), self.part_of(self.found)
        values = self._behind(change, what, sums, self.channels)
        return float(np.mean(values == found))

    def narrow(self, what: IsolatedNode) -> Array:
        """The accumulators of the part of a changed node."""
        small = cut_channels(what, self.channels, self.image)
        if what.node.op != "fully_connected":
            small = cut_rows(small, self.rows)
        return run(small, self.dialect, "reference", "accumulator").astype(np.int64)

    def whole(self, change: Change) -> Array:
        """All values of the stage under a change; behind them, in a partial dump, the nodes up to the dump's tensor."""
        what = self.what if change.what is None else change.what
        if change.values is not None:
            values = change.values
        elif self.layered:
            behind = change.sums is not None or change.scaling is not None or change.edit is not None
            if behind or change.what is None:
                sums = self.sums if change.what is None else run(what, self.dialect, stage="accumulator")
                sums = sums.astype(np.int64)
                values = self._behind(change, what, sums if change.sums is None else change.sums(sums), None)
            else:
                values = run(what, self.dialect, stage=self.stage)
        else:
            values = self._edited(change, what)
        return values if self.finish is None else self.finish(values.astype(self.ours.dtype))

    def _behind(self, change: Change, what: IsolatedNode, sums: Array, channels: Array | None) -> Array:
        """From accumulators (of some channels) to the stage."""
        if self.stage == "accumulator":
            return wrap_int32(sums)
        r = self.requant if change.what is None else requant_of(what, self.dialect, self.stage)
        r = r if change.edit is None else change.edit(r)
        r = r if channels is None else of_channels(r, channels)
        return (change.scaling or requantize_all)(sums, r)

    def _edited(self, change: Change, what: IsolatedNode) -> Array:
        """The node by its reference kernel, whose parameters are changed."""
        if change.edit is None:
            return run(what, self.dialect, stage=self.stage)
        calls, out = steps(what, self.dialect, "reference", self.stage)
        edit = change.edit
        calls = [s._replace(args=tuple(edit(a) if _is_parameters(a) else a for a in s.args)) for s in calls]
        with exclusive(None, "reference") as threads:
            for function in as_functions(calls):
                function(threads)
        return out


def _is_parameters(value: Any) -> bool:
    return hasattr(value, "_fields") or (isinstance(value, np.ndarray) and value.shape in ((2, 256), (256,)))


def wrap_int32(sums: Array) -> Array:
    """Modulo 2^32, as an int32."""
    return sums.astype(np.int64).astype(np.uint32).view(np.int32).reshape(sums.shape)


def requant_of(what: IsolatedNode, dialect: str, stage: str) -> Requantization:
    """What a layer's kernel is given to rescale accumulators with."""
    x, weights, bias = what.operands
    r = convolution.requantization(what.node, x, weights, what.result, dialect_named(dialect), bias)
    return r if stage == "output" else r._replace(low=INT32_MIN, high=INT32_MAX)


def of_channels(r: Requantization, channels: Array) -> Requantization:
    """The same step for some channels, in ascending order."""
    full = r.rule.full if r.rule.full == INT32_MAX else int(np.count_nonzero(channels < r.rule.full))
    multiplier, shift, scale = (np.asarray(v)[channels] for v in (r.multiplier, r.shift, r.scale))
    return r._replace(multiplier=multiplier, shift=shift, scale=scale, rule=r.rule._replace(full=full))


def with_arrays(what: IsolatedNode, changes: Mapping[int, Array], **attrs: Any) -> IsolatedNode:
    """The node with other arrays of operands; shapes follow."""
    arrays, operands = list(what.arrays), list(what.operands)
    for position, array in changes.items():
        arrays[position] = array
        shape = array.shape if operands[position].constant else (1, *array.shape[1:])
        operands[position] = replace(operands[position], shape=shape)
    node = replace(what.node, attrs={**what.node.attrs, **attrs}) if attrs else what.node
    return replace(what, node=node, operands=tuple(operands), arrays=tuple(arrays))


def cut_channels(what: IsolatedNode, channels: Array, image: int) -> IsolatedNode:
    """One image, and some output channels of a layer."""
    x, weights, bias = what.arrays
    x = x[image : image + 1]
    attrs = {}
    if what.node.op == "depthwise_conv2d":
        x = np.ascontiguousarray(x[..., channels // what.node.attrs.get("multiplier", 1)])
        attrs = {"multiplier": 1} if "multiplier" in what.node.attrs else {}
    small = with_arrays(what, {0: x, 1: np.ascontiguousarray(weights[..., channels]), 2: bias[channels]}, **attrs)
    operands = list(small.operands)
    for i in (1, 2):
        q = operands[i].quantization
        if q is not None and len(q.scale) > 1:
            scale, zero = (tuple(np.asarray(v)[channels].tolist()) for v in (q.scale, q.zero_point))
            operands[i] = replace(operands[i], quantization=Quantization(scale, zero, q.axis))
    shape = (*what.result.shape[:-1], len(channels))
    return replace(small, operands=tuple(operands), result=replace(what.result, shape=shape))


def cut_rows(what: IsolatedNode, rows: tuple[int, int]) -> IsolatedNode:
    """Some output rows of a convolution: what its windows read of the image, and the padding that remains."""
    x, attrs = what.arrays[0], what.node.attrs
    stride, dilation, ((top, _), sides) = attrs["stride"], attrs.get("dilation", (1, 1)), attrs["padding"]
    start = rows[0] * stride[0] - top
    end = (rows[1] - 1) * stride[0] - top + (what.arrays[1].shape[0] - 1) * dilation[0] + 1
    first, last = max(start, 0), min(end, x.shape[1])
    if first >= last:
        return what
    padding = ((first - start, end - last), sides)
    small = with_arrays(what, {0: np.ascontiguousarray(x[:, first:last])}, padding=padding)
    _, _, *rest = what.result.shape
    return replace(small, result=replace(what.result, shape=(1, rows[1] - rows[0], *rest)))


def listed(texts: Sequence[str], most: int = 4) -> str:
    """The first few of several, and how many there are."""
    return ", ".join(texts[:most]) + (f", ... ({len(texts)})" if len(texts) > most else "")
