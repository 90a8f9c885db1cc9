"""The options of the TFLite operators that are read.

Source: TensorFlow 2.18, tensorflow/compiler/mlir/lite/schema/schema.fbs.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

# The options that an operator may carry: table and scalar fields that the op rules read, by op. A
# field ending in [] is a vector of integers. Every op that is read is listed ("NONE": it has no
# options), so that options of another op, which tell of a wrong op code, are always noticed.
_FUSED = "FusedActivationFunction"
_WINDOW = ("Padding", "StrideH", "StrideW", _FUSED)
OPTIONS: Mapping[str, tuple[str, tuple[str, ...]]] = MappingProxyType({
    "ABS": ("AbsOptions", ()),
    "ADD": ("AddOptions", (_FUSED,)),
    "ARG_MAX": ("ArgMaxOptions", ()),
    "AVERAGE_POOL_2D": ("Pool2DOptions", (*_WINDOW, "FilterHeight", "FilterWidth")),
    "BATCH_MATMUL": ("BatchMatMulOptions", ("AdjX", "AdjY")),
    "BATCH_TO_SPACE_ND": ("BatchToSpaceNDOptions", ()),
    "BROADCAST_TO": ("BroadcastToOptions", ()),
    "CAST": ("CastOptions", ()),
    "CONCATENATION": ("ConcatenationOptions", ("Axis", _FUSED)),
    "CONV_2D": ("Conv2DOptions", (*_WINDOW, "DilationHFactor", "DilationWFactor")),
    "DENSIFY": ("DensifyOptions", ()),
    "DEPTHWISE_CONV_2D": (
        "DepthwiseConv2DOptions",
        (*_WINDOW, "DilationHFactor", "DilationWFactor", "DepthMultiplier"),
    ),
    "DEPTH_TO_SPACE": ("DepthToSpaceOptions", ("BlockSize",)),
    "DEQUANTIZE": ("DequantizeOptions", ()),
    "DIV": ("DivOptions", (_FUSED,)),
    "ELU": ("NONE", ()),
    "EXP": ("ExpOptions", ()),
    "EXPAND_DIMS": ("ExpandDimsOptions", ()),
    "FULLY_CONNECTED": (
        "FullyConnectedOptions", (_FUSED, "WeightsFormat", "KeepNumDims", "AsymmetricQuantizeInputs"),
    ),
    "GATHER": ("GatherOptions", ("Axis", "BatchDims")),
    "GELU": ("GeluOptions", ("Approximate",)),
    "HARD_SWISH": ("HardSwishOptions", ()),
    "L2_NORMALIZATION": ("L2NormOptions", (_FUSED,)),
    "LEAKY_RELU": ("LeakyReluOptions", ("Alpha",)),
    "LOG": ("NONE", ()),
    "LOGISTIC": ("NONE", ()),
    "LOG_SOFTMAX": ("LogSoftmaxOptions", ()),
    "MAXIMUM": ("MaximumMinimumOptions", ()),
    "MAX_POOL_2D": ("Pool2DOptions", (*_WINDOW, "FilterHeight", "FilterWidth")),
    "MEAN": ("ReducerOptions", ("KeepDims",)),
    "MINIMUM": ("MaximumMinimumOptions", ()),
    "MIRROR_PAD": ("MirrorPadOptions", ("Mode",)),
    "MUL": ("MulOptions", (_FUSED,)),
    "NEG": ("NegOptions", ()),
    "PACK": ("PackOptions", ("Axis",)),
    "PAD": ("PadOptions", ()),
    "PADV2": ("PadV2Options", ()),
    "PRELU": ("NONE", ()),
    "QUANTIZE": ("QuantizeOptions", ()),
    "REDUCE_MAX": ("ReducerOptions", ("KeepDims",)),
    "REDUCE_MIN": ("ReducerOptions", ("KeepDims",)),
    "REDUCE_PROD": ("ReducerOptions", ("KeepDims",)),
    "RELU": ("NONE", ()),
    "RELU6": ("NONE", ()),
    "RELU_0_TO_1": ("NONE", ()),
    "RELU_N1_TO_1": ("NONE", ()),
    "RESHAPE": ("ReshapeOptions", ("NewShape[]",)),
    "RESIZE_BILINEAR": ("ResizeBilinearOptions", ("AlignCorners", "HalfPixelCenters")),
    "RESIZE_NEAREST_NEIGHBOR": ("ResizeNearestNeighborOptions", ("AlignCorners", "HalfPixelCenters")),
    "REVERSE_V2": ("ReverseV2Options", ()),
    "RSQRT": ("NONE", ()),
    "SHAPE": ("ShapeOptions", ()),
    "SLICE": ("SliceOptions", ()),
    "SOFTMAX": ("SoftmaxOptions", ("Beta",)),
    "SPACE_TO_BATCH_ND": ("SpaceToBatchNDOptions", ()),
    "SPACE_TO_DEPTH": ("SpaceToDepthOptions", ("BlockSize",)),
    "SPLIT": ("SplitOptions", ()),
    "SPLIT_V": ("SplitVOptions", ()),
    "SQRT": ("NONE", ()),
    "SQUARE": ("SquareOptions", ()),
    "SQUARED_DIFFERENCE": ("SquaredDifferenceOptions", ()),
    "SQUEEZE": ("SqueezeOptions", ("SqueezeDims[]",)),
    "STRIDED_SLICE": (
        "StridedSliceOptions",
        ("BeginMask", "EndMask", "EllipsisMask", "NewAxisMask", "ShrinkAxisMask", "Offset"),
    ),
    "SUB": ("SubOptions", (_FUSED,)),
    "SUM": ("ReducerOptions", ("KeepDims",)),
    "TANH": ("NONE", ()),
    "TILE": ("TileOptions", ()),
    "TRANSPOSE": ("TransposeOptions", ()),
    "TRANSPOSE_CONV": ("TransposeConvOptions", _WINDOW),
    "UNPACK": ("UnpackOptions", ("Axis",)),
})  # fmt: skip
