"""Dialects: which rounding rule each op follows in each runtime. A dialect is a row; what the rules do is elsewhere.

"int8 TFLite" is several arithmetics: the same file gives different integers under the reference kernels, the optimized
kernels and XNNPACK. A dialect names one of them, op by op, each rule with the source that it was read from. Rules of
accumulating ops are names in `fixedpoint.REQUANTIZATIONS`; the other ops' names are explained where their parameters
are computed (`arithmetic/`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from npmobilenet.errors import PlanError


@dataclass(frozen=True)
class Rule:
    """How an op rounds: the rule's name, and where it was read (repository, path)."""

    name: str
    source: str


@dataclass(frozen=True)
class Dialect:
    """A named arithmetic. `runtime` says what it must equal, bit for bit, `evidence` how that is known.

    `rules` maps an op of ops.OPS, or "op:dtype" where the input's dtype matters ("activation:function"), to its rule;
    convolution.py: rule_of says what other keys its ops have.
    `aliases` are other runtimes' names for it. `most_shift`: real factors from 2^most_shift on are refused; what lies
    above MOST_SHIFT (ranges.py) is held there. `npu`: what no source defines of an Ethos-U is refused (vela.py).
    """

    name: str
    runtime: str
    rules: Mapping[str, Rule]
    evidence: str = ""
    aliases: tuple[str, ...] = ()
    most_shift: int = 30
    npu: bool = False

    @property
    def title(self) -> str:
        """Its name, and in brackets what else has this arithmetic."""
        return f"{self.name} ({', '.join(self.aliases)})" if self.aliases else self.name

    def row(self, op: str, dtype: str = "") -> Rule:
        """The rule for an op on inputs of a dtype: that of "op:dtype" where there is one."""
        return self.rules.get(f"{op}:{dtype}") or self.rules[op]

    def rule(self, op: str, dtype: str = "") -> str:
        """Its name."""
        return self.row(op, dtype).name


_REF = "LiteRT tflite/kernels/internal/reference"
_OPT = "LiteRT tflite/kernels/internal/optimized"

_REFERENCE = {
    "add": Rule("double", f"{_REF}/add.h, {_REF}/integer_ops/add.h"),
    "sub": Rule("double", f"{_REF}/sub.h"),
    "mul": Rule("double", f"{_REF}/mul.h, {_REF}/integer_ops/mul.h"),
    "mean": Rule("double", f"{_REF}/reduce.h, QuantizedMeanOrSum"),
    "average_pool": Rule("divide", f"{_REF}/pooling.h, {_REF}/integer_ops/pooling.h"),
    "max_pool": Rule("greatest", f"{_REF}/pooling.h, {_REF}/integer_ops/pooling.h"),
    "concat": Rule("rescale", f"{_REF}/concatenation.h, ConcatenationWithScaling"),
    "pad": Rule("copy", f"{_REF}/pad.h"),
    "reshape": Rule("copy", "LiteRT tflite/kernels/reshape.cc"),
    "transpose": Rule("copy", f"{_REF}/transpose.h"),
    "slice": Rule("copy", f"{_REF}/reference_ops.h, Split"),
    "arg_max": Rule("first", f"{_REF}/arg_min_max.h"),
    "conv2d": Rule("double", f"{_REF}/integer_ops/conv.h, {_REF}/conv.h"),
    "depthwise_conv2d": Rule("double", f"{_REF}/integer_ops/depthwise_conv.h, {_REF}/depthwiseconv_uint8.h"),
    "fully_connected": Rule("float64", f"{_REF}/integer_ops/fully_connected.h, {_REF}/fully_connected.h"),
    "activation": Rule("double", f"{_REF}/reference_ops.h, ReluX"),
    "activation:hard_swish": Rule("fixed16", f"{_REF}/hard_swish.h"),
    "activation:sigmoid": Rule("float32", "LiteRT tflite/kernels/activations.cc, SigmoidPrepare"),
    "minimum": Rule("copy", "LiteRT tflite/kernels/maximum_minimum.cc"),
    "maximum": Rule("copy", "LiteRT tflite/kernels/maximum_minimum.cc"),
    "unary": Rule("float32", "LiteRT tflite/kernels/internal/common.h, LUTPopulate"),
    "unary:sqrt": Rule("truncated", "LiteRT tflite/kernels/elementwise.cc, SqrtEvalQuantized"),
    "unary:abs": Rule("double", "LiteRT tflite/kernels/elementwise.cc, AbsEvalQuantized"),
    "unary:rsqrt": Rule("double", "LiteRT tflite/kernels/elementwise.cc, RsqrtEvalQuantizedInt8"),
    "l2_normalize": Rule("double", f"{_REF}/l2normalization.h, {_REF}/integer_ops/l2normalization.h"),
    # int8 weights of a float32 input (arithmetic/dynamic_range.py).
    "conv2d:dynamic": Rule("channel_first", f"{_REF}/conv.h, HybridConvPerChannel"),
    "depthwise_conv2d:dynamic": Rule("product", f"{_REF}/integer_ops/depthwise_conv.h, DepthwiseConvHybridPerChannel"),
    "fully_connected:dynamic": Rule("product", "LiteRT tflite/kernels/fully_connected.cc, EvalHybrid"),
    "prelu": Rule("double", f"{_REF}/prelu.h"),
    "leaky_relu": Rule("double", f"{_REF}/leaky_relu.h"),
    "softmax": Rule("fixed", f"{_REF}/softmax.h"),
    "quantize": Rule("double", f"{_REF}/requantize.h"),
    "quantize:float32": Rule("quotient32", f"{_REF}/quantize.h"),
    "dequantize": Rule("exact", f"{_REF}/dequantize.h, {_REF}/integer_ops/dequantize.h"),
    "resize_bilinear:uint8": Rule("float", f"{_REF}/resize_bilinear.h, ResizeBilinear"),
    "resize_bilinear:int8": Rule("fixed10", f"{_REF}/resize_bilinear.h, ResizeBilinearInteger"),
    "resize_nearest": Rule("float", f"{_REF}/resize_nearest_neighbor.h"),
}

_OPTIMIZED = {
    **_REFERENCE,
    # "neon": full vectors in NEON arithmetic (emulated on x86), the rest as the reference kernels. `sub` has no such.
    "add": Rule("neon", f"{_OPT}/optimized_ops.h, {_OPT}/integer_ops/add.h"),
    "mul": Rule("neon", f"{_OPT}/optimized_ops.h, {_OPT}/integer_ops/mul.h"),
    "mean": Rule("neon", f"{_OPT}/reduce.h, {_OPT}/integer_ops/mean.h"),
    # ruy's vectors on x86; on ARM, and without vectors, it rounds once (ruy/kernel_arm64.cc, ruy/apply_multiplier.cc).
    "conv2d": Rule("upward", "ruy ruy/kernel_avx.cc, ruy/kernel_avx2_fma.cc, ruy/kernel_avx512.cc"),
    "fully_connected": Rule("upward", "ruy ruy/kernel_avx.cc, ruy/kernel_avx2_fma.cc, ruy/kernel_avx512.cc"),
    # int8: channels in whole eights; the up to seven left over follow "double" (arithmetic/convolution.py).
    "depthwise_conv2d": Rule("double", f"{_OPT}/depthwiseconv_uint8.h"),
    "depthwise_conv2d:int8": Rule("upward", f"{_OPT}/optimized_ops.h, Quantize"),
    # Groups of channels are the reference kernel's alone (tflite/kernels/conv.cc, EvalImpl).
    "conv2d:grouped": _REFERENCE["conv2d"],
    "conv2d:dynamic": Rule("product", f"{_OPT}/optimized_ops.h, HybridConvPerChannel"),
    "depthwise_conv2d:dynamic": Rule("vectors", f"{_OPT}/integer_ops/depthwise_conv_hybrid.h"),
    "depthwise_conv2d:grouped": _REFERENCE["conv2d"],
    # In whole vectors of 16 or 8 elements, the rest as the reference kernels, or nearly (arithmetic/edges.py).
    "softmax": Rule("float32", f"{_OPT}/optimized_ops.h, Softmax"),
    "quantize": Rule("blocks16", f"{_OPT}/optimized_ops.h, Requantize"),
    "quantize:float32": Rule("blocks8", f"{_OPT}/optimized_ops.h, AffineQuantize"),
    "dequantize": Rule("blocks8", f"{_OPT}/optimized_ops.h, Dequantize"),
    "resize_bilinear:uint8": Rule("float_weights", f"{_OPT}/resize_bilinear.h"),
    "resize_nearest:uint8": Rule("fixed16", f"{_OPT}/optimized_ops.h, ResizeNearestNeighbor"),
}

_XNNPACK = {
    **_OPTIMIZED,
    "add": Rule("linear", "XNNPACK src/qs8-vadd, src/qu8-vadd"),
    "sub": Rule("linear", "XNNPACK src/qs8-vadd, src/qu8-vadd, b's scale negated"),
    "mul": Rule("float32", "XNNPACK src/qs8-vmul, src/qu8-vmul, fp32"),
    "mean": Rule("float32", "XNNPACK src/operators/reduce-nd.c"),
    # What the delegate leaves to LiteRT because of its scales (arithmetic/elementwise.py).
    "add:undelegated": _OPTIMIZED["add"],
    "sub:undelegated": _OPTIMIZED["sub"],
    "mul:undelegated": _OPTIMIZED["mul"],
    "conv2d": Rule("float32", "XNNPACK src/qs8-qc8w-gemm, src/qs8-qc8w-igemm, src/qu8-gemm, src/qu8-igemm"),
    "depthwise_conv2d": Rule("float32", "XNNPACK src/qs8-qc8w-dwconv, src/qu8-dwconv"),
    "depthwise_conv2d:int8": Rule("float32", "XNNPACK src/qs8-qc8w-dwconv"),
    "fully_connected": Rule("float32", "XNNPACK src/qs8-qc8w-gemm, src/qu8-gemm"),
    "conv2d:grouped": Rule("float32", "XNNPACK src/qs8-qc8w-gemm, src/qs8-qc8w-igemm, src/qu8-gemm, src/qu8-igemm"),
    "depthwise_conv2d:grouped": Rule("float32", "XNNPACK src/qs8-qc8w-dwconv, src/qu8-dwconv"),
    "conv2d:dynamic": Rule("fused", "XNNPACK src/qd8-f32-qc8w-gemm, src/qd8-f32-qc8w-igemm"),
    "fully_connected:dynamic": Rule("fused", "XNNPACK src/qd8-f32-qc8w-gemm"),
    "conv2d:undelegated:dynamic": _OPTIMIZED["conv2d:dynamic"],
    "leaky_relu": Rule("fixed8", "XNNPACK src/qs8-vlrelu, src/qu8-vlrelu"),
    "leaky_relu:undelegated": _OPTIMIZED["leaky_relu"],
    # What the delegate leaves to LiteRT (arithmetic/convolution.py).
    "conv2d:undelegated:grouped": _OPTIMIZED["conv2d:grouped"],
    "depthwise_conv2d:undelegated:grouped": _OPTIMIZED["depthwise_conv2d:grouped"],
    "conv2d:undelegated": _OPTIMIZED["conv2d"],
    "depthwise_conv2d:undelegated": _OPTIMIZED["depthwise_conv2d"],
    "depthwise_conv2d:undelegated:int8": _OPTIMIZED["depthwise_conv2d:int8"],
    "fully_connected:undelegated": _OPTIMIZED["fully_connected"],
    "activation:sigmoid": Rule("float64", "XNNPACK src/reference/unary-elementwise.cc, SigmoidOp"),
    "unary:tanh": Rule("float32_even", "XNNPACK src/reference/unary-elementwise.cc, TanHOp"),
    "unary:elu": Rule("float32_even", "XNNPACK src/reference/unary-elementwise.cc, ELUOp"),
    "quantize": Rule("multiplier8", "XNNPACK src/qs8-vcvt, src/qu8-vcvt"),
    "quantize:undelegated": _OPTIMIZED["quantize"],  # other dtype, or far scales (arithmetic/edges.py)
    "quantize:float32": Rule("reciprocal", "XNNPACK src/f32-qs8-vcvt, src/f32-qu8-vcvt"),
    "dequantize": Rule("exact", "XNNPACK src/qs8-f32-vcvt, src/qu8-f32-vcvt"),
    "resize_bilinear:uint8": Rule("fixed11", "XNNPACK src/u8-ibilinear, src/indirection.c"),
    "resize_bilinear:int8": Rule("fixed11", "XNNPACK src/s8-ibilinear, src/indirection.c"),
}

# On arm64 TFLite's matrices are ruy's, its depthwise filters of 3x3 have kernels of their own, and compilers fuse a
# product with the sum behind it. What `_OPTIMIZED` emulates of NEON on x86 is the same there.
_GEMV = "LiteRT tflite/kernels/cpu_backend_gemm_custom_gemv.h"
_3X3 = f"{_OPT}/depthwiseconv_uint8_3x3_filter.h, {_OPT}/integer_ops/depthwise_conv_3x3_filter.h"
_OPTIMIZED_ARM64 = {
    **_OPTIMIZED,
    "conv2d": Rule("single", "ruy ruy/kernel_arm64.cc"),
    "fully_connected": Rule("single", "ruy ruy/kernel_arm64.cc"),
    "conv2d:vector": Rule("upward", _GEMV),
    "fully_connected:vector": Rule("upward", _GEMV),
    "depthwise_conv2d:3x3": Rule("upward_late", _3X3),
    "softmax": Rule("lut16", f"{_OPT}/optimized_ops.h, SoftmaxInt8LUT"),
    "dequantize": Rule("blocks8_fused", f"{_OPT}/optimized_ops.h, ScaleWithNewZeroPoint"),
    "resize_bilinear:uint8": Rule("float_weights_fused", f"{_OPT}/resize_bilinear.h, fused by the compiler"),
}

# XNNPACK's uint8 kernels for Arm round once, in integers ("rndnu"); those for int8 in float32, as on x86.
_FILTERS = ("conv2d", "depthwise_conv2d", "conv2d:grouped", "depthwise_conv2d:grouped")
_RNDNU = Rule("rndnu", "XNNPACK src/qu8-gemm, src/qu8-igemm, src/qu8-dwconv, rndnu; src/configs/gemm-config.c")
_XNNPACK_ARM64 = {
    **_XNNPACK,
    **{f"{op}:undelegated": _OPTIMIZED_ARM64[op] for op in ("conv2d", "fully_connected")},
    **{f"{op}:undelegated:vector": _OPTIMIZED_ARM64[f"{op}:vector"] for op in ("conv2d", "fully_connected")},
    "depthwise_conv2d:undelegated:3x3": _OPTIMIZED_ARM64["depthwise_conv2d:3x3"],
    **dict.fromkeys((f"{op}:uint8" for op in (*_FILTERS, "fully_connected")), _RNDNU),
    "mul": Rule("rndnu", "XNNPACK src/qs8-vmul, src/qu8-vmul, rndnu"),
    "softmax": _OPTIMIZED_ARM64["softmax"],
    "mean": Rule("float32_fused", "XNNPACK src/operators/reduce-nd.c, fused by the compiler"),
}
# Cortex-A53, A55 and Kryo have uint8 matrix kernels with 16-bit multipliers; the other kernels are the same.
_RNDNU16 = Rule("rndnu16", "XNNPACK src/qu8-gemm, src/qu8-igemm, rndnu16; src/configs/gemm-config.c, Cortex-A53")
_XNNPACK_ARM64_NEON = {
    **_XNNPACK_ARM64,
    **dict.fromkeys((f"{op}:uint8" for op in (*_FILTERS, "fully_connected")), _RNDNU16),
    **dict.fromkeys((f"{op}:direct:uint8" for op in _FILTERS), _RNDNU),
}

# What builds with TFLITE_SINGLE_ROUNDING change: MultiplyByQuantizedMultiplier, wherever it occurs.
_ONCE = Rule("single", "LiteRT tflite/kernels/internal/common.cc, TFLITE_SINGLE_ROUNDING")
_FLAG = {
    **dict.fromkeys(("add", "sub", "mul", "mean", "conv2d", "depthwise_conv2d", "activation", "prelu", "leaky_relu",
                     "quantize", "unary:abs", "unary:rsqrt", "l2_normalize"), _ONCE),
    "softmax": Rule("single", f"{_REF}/softmax.h, TFLITE_SINGLE_ROUNDING"),
    "resize_bilinear:int8": Rule("fixed10_upward", f"{_REF}/resize_bilinear.h, TFLITE_SINGLE_ROUNDING"),
}  # fmt: skip
_SINGLE_ROUNDING = {
    **_REFERENCE,
    **_FLAG,
    "depthwise_conv2d:uint8": Rule("double", f"{_REF}/depthwiseconv_uint8.h, DepthwiseConvRound<kAwayFromZero>"),
    "depthwise_conv2d:grouped": _ONCE,  # a convolution there
}

# CMSIS-NN as it is built by default (not with CMSIS_NN_USE_SINGLE_ROUNDING), called by TFLite Micro; and TFLite Micro's
# own reference kernels. Its sums and pools are the reference kernels'; its fully connected layer has integer factors.
_MICRO = "TFLite Micro tensorflow/lite"
_CMSIS_NN = {
    **_REFERENCE,
    "conv2d": Rule("double", "CMSIS-NN Include/arm_nnsupportfunctions.h, arm_nn_requantize, arm_requantize_mve"),
    "depthwise_conv2d": Rule("double", "CMSIS-NN Include/arm_nnsupportfunctions.h, arm_nn_requantize"),
    "fully_connected": Rule("double", "CMSIS-NN Source/NNSupportFunctions/arm_nn_vec_mat_mult_t_s8.c"),
    "activation:sigmoid": Rule("fixed", f"{_MICRO}/kernels/internal/reference/integer_ops/logistic.h"),
    "unary:tanh": Rule("fixed", f"{_MICRO}/kernels/internal/reference/integer_ops/tanh.h, not written here"),
}
# Both built with their flags, TFLITE_SINGLE_ROUNDING and CMSIS_NN_USE_SINGLE_ROUNDING. With vectors (MVE),
# arm_requantize_mve and arm_requantize_mve_32x4, which all 8-bit kernels take, floor the product and round the shift:
# that is one rounding, too. arm_requantize_mve_pred is "upward", and for weights of 4 bits alone.
_ARM_ONCE = Rule("single", "CMSIS-NN Include/arm_nnsupportfunctions.h, CMSIS_NN_USE_SINGLE_ROUNDING")
_MICRO_SINGLE_ROUNDING = {
    **_CMSIS_NN,
    **_FLAG,
    **dict.fromkeys(("add", "mul", "conv2d", "depthwise_conv2d", "fully_connected"), _ARM_ONCE),
    "activation:sigmoid": Rule("fixed_once", f"{_MICRO}/kernels/internal/reference/integer_ops/logistic.h"),
}

# Vela has the NPU do what the reference kernels do, from registers, tables and graphs of its own, and leaves to TFLite
# Micro what the NPU can't (arithmetic/vela.py: what is refused). DOUBLE is its rounding "TFL".
_VELA = "Vela 5.2.0 ethosu/vela"
_ETHOS_U = {
    **_CMSIS_NN,
    **dict.fromkeys(("conv2d", "depthwise_conv2d", "fully_connected"), Rule(
        "double", f"{_VELA}/weight_compressor.py, _prepare_scale_and_bias; high_level_command_to_npu_op.py"
    )),
    **dict.fromkeys(("add", "sub", "mul"), Rule(
        "double", f"{_VELA}/scaling.py; register_command_stream_generator.py, generate_scaling_for_elementwise"
    )),
    "mean": Rule("double", f"{_VELA}/tflite_graph_optimiser.py, convert_mean_to_depthwise_conv"),
    "average_pool": Rule("divide", f"{_VELA}/scaling.py, quantise_pooling_scale"),
    "softmax": Rule("fixed", f"{_VELA}/softmax.py, get_graph_8bit"),
    "activation:hard_swish": Rule("fixed16_wide", f"{_VELA}/tflite_graph_optimiser.py, convert_hardswish_to_lut"),
    "activation:sigmoid": Rule("clamped64", f"{_VELA}/lut.py, create_lut_8bit_op; numeric_util.py, clamp_sigmoid"),
    "leaky_relu": Rule("double", f"{_VELA}/tflite_graph_optimiser.py, convert_lrelu_to_lut"),
    "prelu": Rule("double", f"{_VELA}/tflite_graph_optimiser.py, convert_prelu"),
}  # fmt: skip

_LITERT = "run beside LiteRT: tests/kernels/test_litert_integer.py"
_ARM = "run beside LiteRT's arm64 wheel on emulated CPUs: tests/kernels/test_arm64.py and tools/litert_arm_survey.py"
_C = "tables of the C's results: tests/arithmetic/test_micro.py"
_VELAS = (
    "Vela's command streams, interpreted: tests/arithmetic/test_vela.py and tools/vela_survey.py. Missing: results of "
    "the hardware, whose roundings no public source defines"
)
DIALECTS: Mapping[str, Dialect] = MappingProxyType({
    d.name: d
    for d in (
        Dialect("tflite-reference", "LiteRT 2.3.0, OpResolverType.BUILTIN_REF", _REFERENCE, _LITERT),
        Dialect(
            "tflite-optimized", "LiteRT 2.3.0, OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES, x86-64", _OPTIMIZED,
            _LITERT,
        ),
        Dialect("xnnpack", "LiteRT 2.3.0, default resolver (XNNPACK delegate), x86-64", _XNNPACK, _LITERT),
        Dialect(
            "tflite-optimized-arm64", "LiteRT 2.3.0, OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES, Linux on arm64, "
            "any CPU", _OPTIMIZED_ARM64, _ARM,
        ),
        Dialect(
            "xnnpack-arm64", "LiteRT 2.3.0, default resolver (XNNPACK delegate), arm64: Cortex-A72, A76, X, Neoverse, "
            "Apple and all others but A53's kin", _XNNPACK_ARM64, _ARM,
        ),
        Dialect(
            "xnnpack-arm64-neon", "LiteRT 2.3.0, default resolver (XNNPACK delegate), arm64 whose first core is a "
            "Cortex-A53, A55 or Kryo", _XNNPACK_ARM64_NEON, _ARM,
        ),
        Dialect(
            "tflite-single-rounding", "the reference kernels built with TFLITE_SINGLE_ROUNDING", _SINGLE_ROUNDING,
            _C, most_shift=127,
        ),
        Dialect(
            "cmsis-nn", "CMSIS-NN 7 (commit 99f736a6) under TFLite Micro, and its own kernels; ESP-NN's C", _CMSIS_NN,
            _C, ("tflite-micro", "esp-nn"),
        ),
        Dialect(
            "cmsis-nn-single-rounding", "as cmsis-nn, built with TFLITE_SINGLE_ROUNDING and "
            "CMSIS_NN_USE_SINGLE_ROUNDING, with vectors (MVE) or without", _MICRO_SINGLE_ROUNDING,
            _C, ("tflite-micro-single-rounding",), 127,
        ),
        Dialect(
            "ethos-u", "what Vela 5.2.0 compiles for an Ethos-U55 or U65, its roundings read as TFLite's; on the CPU "
            "beside it cmsis-nn", _ETHOS_U, _VELAS, ("vela",), npu=True,
        ),
    )
})  # fmt: skip

NAMES: Mapping[str, Dialect] = MappingProxyType(
    {**DIALECTS, **{alias: d for d in DIALECTS.values() for alias in d.aliases}}
)


def dialect(name: str) -> Dialect:
    """The dialect of that name or alias. Raises `PlanError` for an unknown one."""
    if name not in NAMES:
        raise PlanError(f"dialect='{name}' is not one of {', '.join(NAMES)}")
    return NAMES[name]
