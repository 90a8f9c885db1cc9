"""What Vela makes of a node that no public source defines on an Ethos-U: it is refused instead of guessed.

Vela translates each op so that the NPU gives what TFLite's reference kernels give, and tests it so (its TESTING.md).
Where its translation parts from them, the result hangs on roundings inside the NPU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from npmobilenet.arithmetic.convolution import real_factors
from npmobilenet.arithmetic.ranges import scale_of, zero_point_of
from npmobilenet.errors import PlanError
from npmobilenet.ops import Node, Tensor

_ALIKE = {"average_pool": "Vela folds their ratio into the pool", "concat": "Vela rescales it while it copies"}


def refuse_undefined(node: Node, operands: Sequence[Tensor], result: Tensor) -> None:
    """Raise `PlanError` for a node of integers whose result on an Ethos-U is not known."""
    reason = _reason(node, operands, result)
    if reason:
        raise PlanError(
            f"node '{node.name}' ({node.op}): {reason}, and no public source says how an Ethos-U rounds there; take "
            "another dialect for it, or change the model"
        )


def _reason(node: Node, operands: Sequence[Tensor], result: Tensor) -> str:
    if node.op in _ALIKE:
        for x in operands:
            if (scale_of(x), zero_point_of(x)) != (scale_of(result), zero_point_of(result)):
                return f"'{x.name}' and its result differ in scale or zero point: {_ALIKE[node.op]}"
    if node.op in ("conv2d", "depthwise_conv2d", "fully_connected") and operands[0].dtype != "float32":
        return _of_factors(node, operands[0], operands[1], result)
    return ""


def _of_factors(node: Node, x: Tensor, weights: Tensor, result: Tensor) -> str:
    """Vela keeps the 32 bits of a multiplier that is rounded up to 2^31, where TFLite halves it; and factors below
    2^-32, which are 0 in TFLite: those of sums below 2^31 give 0 as well, but the sums of dead channels may be greater.

    Of the other ops factors are quotients of float32 numbers, which are never so near a power of two.
    Source: Vela 5.2.0, ethosu/vela/scaling.py, quantise_scale, and weight_compressor.py, _prepare_scale_and_bias.
    """
    if weights.quantization is None:
        return ""  # refused in every dialect
    each = len(weights.quantization.scale) > 1
    if each and x.dtype == "uint8":
        return "its uint8 weights have a scale for each channel"
    factors = real_factors(node, x, weights, result, "double").tolist()
    for channel, factor in enumerate(factors if each else factors[:1]):
        where = f"channel {channel}: " if each else ""
        fraction, exponent = math.frexp(factor)
        if fraction < 1 and math.floor(fraction * 2**31 + 0.5) == 2**31:
            return f"{where}its factor {factor!r} is next below 2^{exponent}, which Vela writes with 32 bits"
        if -34 < exponent < -31:
            return f"{where}its factor {factor:.3g} is below 2^-32, which is 0 in TFLite, but not in Vela"
    return ""
