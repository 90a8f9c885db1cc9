"""The .tflite importer: equal to LiteRT on real and on made files; what it refuses; damaged files."""

from __future__ import annotations

import functools
import io
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import npmobilenet as nm
from npmobilenet.errors import ConversionError, InputError, MissingExtra
from npmobilenet.formats.tflite import flatbuffer as tflite_file
from npmobilenet.formats.tflite.model import RECIPES, convert_tflite
from npmobilenet.formats.tflite.operators import OPS
from npmobilenet.formats.tflite.options import OPTIONS
from npmobilenet.graph import Quantization
from npmobilenet.images import recipes as preprocess
from npmobilenet.modeldata import ModelData

pytest.importorskip("tflite", reason="the extra [convert] is not installed")
from litert import Peer, random_inputs
from tflite_maker import File, Op, T

F = np.float32
RNG = np.random.default_rng(0)
FILES = (
    "coral_mobilenet_v2_1.0_224_quant",
    "coral_tf2_mobilenet_v2_1.0_224_ptq",
    "mediapipe_mobilenet_v3_small_075_224_embedder",
    "mlperf_tiny_vww_96_int8",
    "mobilenet_edgetpu_224_1.0_uint8",
    "mobilenet_v1_0.25_128",
    "mobilenet_v1_0_25_128_quant",
    "mobilenet_v1_0_5_160_quant",
    "mobilenet_v2_0_5_96_quant",
    "mobilenet_v2_0_75_160_quant",
    "mobilenet_v2_1.0_224_float",
    "mobilenet_v2_1_0_224_quant",
    "v3-small_224_1.0_uint8",
)
FLOAT_FILES = tuple(name for name in FILES if name.endswith(("embedder", "0.25_128", "float")))


def normal(*shape: int) -> Any:
    return RNG.normal(size=shape).astype(F)


def ints(*values: int) -> T:
    return T(data=np.array(values, np.int32))


def interpreter(path: Path) -> Any:
    """LiteRT's reference kernels, which keep every tensor readable."""
    litert = pytest.importorskip("ai_edge_litert.interpreter", reason="ai-edge-litert is not installed")
    made = litert.Interpreter(
        str(path),
        experimental_op_resolver_type=litert.OpResolverType.BUILTIN_REF,
        experimental_preserve_all_tensors=True,
    )
    made.allocate_tensors()
    return made


def check_declarations(data: ModelData, litert: Any) -> None:
    """Name, shape, dtype and quantization of every computed tensor are LiteRT's."""
    details = {t["index"]: t for t in litert.get_tensor_details()}
    assert len(data.graph.endpoints) == sum(not t.constant and t.source != "" for t in data.graph.tensors.values())
    for endpoint, name in data.graph.endpoints.items():
        tensor, expected = data.graph.tensors[name], details[int(endpoint[1:])]
        assert tensor.source == endpoint
        assert tensor.name == expected["name"]
        shape = tuple(expected["shape"])  # of a dense layer by rows without a dimension for the batch
        assert tensor.shape[1:] == (shape if len(tensor.shape) == len(shape) + 1 else shape[1:])
        assert np.dtype(tensor.dtype) == expected["dtype"]
        q = tensor.quantization
        scales, zeros = (expected["quantization_parameters"][k].tolist() for k in ("scales", "zero_points"))
        assert (scales, zeros) == (([], []) if q is None else (list(q.scale), list(q.zero_point)))


def check_values(data: ModelData, litert: Any, seed: int = 0) -> None:
    """Every computed tensor agrees with LiteRT: max|d| <= 1e-4 * max(1, max|expected|), as design.md 7 has it."""
    wanted = litert.get_input_details()[0]
    x = np.random.default_rng(seed).uniform(-1, 1, wanted["shape"]).astype(F)
    litert.set_tensor(wanted["index"], x)
    litert.invoke()
    _, taps = nm.Model(data).run(x, taps=list(data.graph.endpoints), check_range=False)
    for endpoint, got in taps.items():
        expected = litert.get_tensor(int(endpoint[1:])).reshape(got.shape)
        assert np.abs(got - expected).max() <= 1e-4 * max(1.0, np.abs(expected).max()), endpoint


# -- real files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_real_files_declare_what_litert_declares(data: Path, name: str) -> None:
    path = data / "weights" / f"{name}.tflite"
    check_declarations(convert_tflite(path), interpreter(path))


@pytest.mark.parametrize("name", FLOAT_FILES)
def test_real_float_files_compute_what_litert_computes(data: Path, name: str) -> None:
    path = data / "weights" / f"{name}.tflite"
    check_values(convert_tflite(path), interpreter(path))


def test_facts_of_real_files(data: Path) -> None:
    weights = data / "weights"
    v2 = convert_tflite(weights / "mobilenet_v2_1.0_224_float.tflite")
    assert (v2.info.labels, v2.info.label_offset) == ("imagenet", 1)
    assert v2.info.name == "mobilenet_v2_1.0_224_float"
    assert v2.info.provenance["sha256"] == "59d728041eca298d311ba09882c472a431aecfd3328a0a3d09574fa86245b932"
    assert v2.graph.total_macs == pytest.approx(300.8e6, abs=0.05e6)
    coral = convert_tflite(weights / "coral_mobilenet_v2_1.0_224_quant.tflite")
    assert coral.info.labels[:3] == ("background", "tench, Tinca tinca", "goldfish, Carassius auratus")
    assert (len(coral.info.labels), coral.info.label_offset) == (1001, 0)
    assert "input_normalization" not in coral.info.provenance
    embedder = convert_tflite(weights / "mediapipe_mobilenet_v3_small_075_224_embedder.tflite")
    assert embedder.info.labels == ()
    assert embedder.info.preprocessing == "unit_range"  # its metadata says mean 0, std 255
    assert v2.info.preprocessing == "slim_inception_eval"
    assert set(RECIPES.values()) <= set(preprocess.RECIPES)


def test_a_graph_that_scales_its_input_wants_pixels(tmp_path: Path) -> None:
    for factor, recipe in ((1 / 127.5, "raw_pixels"), (2.0, "slim_inception_eval")):
        tensors = [T((1, 4, 4, 3)), T(data=F(factor)), T((1, 4, 4, 3))]
        (tmp_path / "m.tflite").write_bytes(File(tensors, [Op("MUL", [0, 1], [2], ("MulOptions", {}))]).bytes())
        assert convert_tflite(tmp_path / "m.tflite").info.preprocessing == recipe


def layers(*steps: tuple[str, Any]) -> File:
    """A model of a float input: constant operands of binary ops, or (low, high), a QUANTIZE of that range."""
    tensors, ops, last = [T((1, 8, 8, 3), name="x")], [], 0
    for op, value in steps:
        tensors.append(T(data=np.broadcast_to(np.array(value, F), (3,))) if op != "QUANTIZE" else T((1,)))
        scale, low = ((value[1] - value[0]) / 255, value[0]) if op == "QUANTIZE" else (0.0, 0.0)
        zero_point = round(-128 - low / scale) if op == "QUANTIZE" else 0
        quantization = {"type": "int8", "scale": (scale,), "zero_point": (zero_point,)} if op == "QUANTIZE" else {}
        tensors.append(T((1, 8, 8, 3), **quantization))
        inputs = [last] if op == "QUANTIZE" else [last, len(tensors) - 2]
        last = len(tensors) - 1
        ops.append(Op(op, inputs, [last]))
    return File(tensors, ops)


MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
IN_FRONT: dict[str, tuple[File, str, bool]] = {
    "nothing": (layers(("ADD", 0.0)), "slim_inception_eval", False),
    "a bias": (layers(("ADD", 0.1)), "slim_inception_eval", False),
    "quantize 0..255": (layers(("QUANTIZE", (0, 255))), "raw_pixels", True),
    "quantize 0..1": (layers(("QUANTIZE", (0, 1))), "unit_range", True),
    "quantize -1..1": (layers(("QUANTIZE", (-1, 1))), "slim_inception_eval", True),
    "quantize of ImageNet's deviations": (layers(("QUANTIZE", (-2.1179, 2.64))), "torchvision", False),
    "quantize of sounds": (layers(("QUANTIZE", (-123, 26))), "slim_inception_eval", False),
    "rescaling, then quantize": (layers(("MUL", 1 / 127.5), ("SUB", 1.0), ("QUANTIZE", (-1, 1))), "raw_pixels", True),
    "rescaling": (layers(("MUL", 1 / 127.5), ("ADD", -1.0)), "raw_pixels", True),
    "rescaling of 0..1": (layers(("MUL", 2.0), ("SUB", 1.0)), "unit_range", True),
    "to 0..1": (layers(("MUL", 1 / 255)), "raw_pixels", True),
    "from -1..1 to 0..1": (layers(("MUL", 0.5), ("ADD", 0.5)), "slim_inception_eval", True),
    "normalization of pixels": (layers(("SUB", 255 * MEAN), ("MUL", 1 / (255 * DEVIATION))), "raw_pixels", True),
    "normalization of dull pixels": (layers(("SUB", [90, 80, 70]), ("MUL", [0.05, 0.06, 0.07])), "raw_pixels", True),
    "normalization of 0..1": (layers(("SUB", MEAN), ("MUL", 1 / DEVIATION)), "unit_range", True),
    "rescaling and normalization": (
        layers(("MUL", 1 / 255), ("SUB", MEAN), ("MUL", 1 / DEVIATION)), "raw_pixels", True,
    ),
    "divided by 127.5": (layers(("DIV", 127.5), ("SUB", 1.0)), "raw_pixels", True),
    "ImageNet's, divided": (layers(("DIV", 255.0), ("SUB", MEAN), ("DIV", DEVIATION)), "raw_pixels", True),
    "divided, of 0..1": (layers(("SUB", MEAN), ("DIV", DEVIATION), ("QUANTIZE", (-2.12, 2.64))), "unit_range", True),
    "128 from each pixel": (layers(("SUB", 127.5), ("MUL", 1 / 128)), "raw_pixels", True),
    "a mean of pixels alone": (layers(("SUB", 255 * MEAN)), "raw_pixels", True),
    "numbers of any size": (layers(*[("MUL", 1e30)] * 12, ("QUANTIZE", (0, 255))), "slim_inception_eval", False),
}  # fmt: skip


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", IN_FRONT)
def test_recipes_from_the_layers_in_front(tmp_path: Path, name: str) -> None:
    file, recipe, told = IN_FRONT[name]
    info = converted(tmp_path, file).info
    assert info.preprocessing == recipe
    assert info.assumed == (() if told else (f"recipe assumed: {recipe}",))


def test_an_8_bit_model_with_float_ends_has_the_recipe_of_its_float_twin(tmp_path: Path) -> None:
    """What TensorFlow's converter makes by default: the scaling layer is one of integers, behind a QUANTIZE."""
    x, pixels = T((1, 8, 8, 3)), {"type": "int8", "scale": (1.0,), "zero_point": (-128,)}
    unit = {"type": "int8", "scale": (1 / 128,), "zero_point": (0,)}
    factor = T(data=np.array([127], np.int8), scale=(1 / 127.5 / 127,))
    tensors = [x, T((1, 8, 8, 3), **pixels), factor, T((1, 8, 8, 3), **unit), T((1, 8, 8, 3))]
    ops = [Op("QUANTIZE", [0], [1]), Op("MUL", [1, 2], [3]), Op("DEQUANTIZE", [3], [4])]
    info = converted(tmp_path, File(tensors, ops)).info
    assert (info.preprocessing, info.assumed) == (
        converted(tmp_path, layers(("MUL", 1 / 127.5))).info.preprocessing,
        (),
    )


def test_assumed_labels_are_named(tmp_path: Path) -> None:
    for classes, said in ((1001, ("labels assumed: ImageNet's, for 1001 outputs",)), (7, ())):
        file = File([T((1, classes)), T((1, classes))], [Op("SOFTMAX", [0], [1], ("SoftmaxOptions", {"Beta": 1.0}))])
        assert converted(tmp_path, file).info.assumed == ("recipe assumed: slim_inception_eval", *said)


def test_an_input_that_nothing_reads(tmp_path: Path) -> None:
    tensors = [T((1, 4)), T((1, 4)), T((1, 4))]
    (tmp_path / "m.tflite").write_bytes(File(tensors, [Op("RELU", [1], [2])], inputs=(0, 1)).bytes())
    model = nm.load(tmp_path / "m.tflite")
    first, second = model.graph.inputs
    x = np.array([[-1, 0, 1, 2]], F)
    assert model.run({first: x, second: x}).tolist() == [[0, 0, 1, 2]]


def test_an_embedder_is_no_classifier(data: Path) -> None:
    model = nm.load(data / "weights" / "mediapipe_mobilenet_v3_small_075_224_embedder.tflite")
    assert not model.is_classifier
    with pytest.raises(InputError, match="not a classifier"):
        model.predict(np.zeros((8, 8, 3), np.uint8))


def test_a_bias_with_the_axis_of_its_weights_is_read(data: Path) -> None:
    """LiteRT 2.3.0 refuses person_detect.tflite for its biases' quantized_dimension of 3."""
    model = convert_tflite(data / "weights" / "person_detect.tflite")
    biases = [model.graph.tensors[n.inputs[2]] for n in model.graph.nodes if n.op == "depthwise_conv2d"]
    assert len(biases) == 14
    for bias in biases:
        assert bias.dtype == "int32"
        assert bias.quantization is not None
        assert bias.quantization.axis == (0 if len(bias.quantization.scale) > 1 else None)


# -- made files: one op or group each, against LiteRT ------------------------------------------------------------------


def conv_options(kind: str = "Conv2DOptions", **fields: Any) -> tuple[str, dict[str, Any]]:
    return kind, {"StrideH": 1, "StrideW": 1, "DilationHFactor": 1, "DilationWFactor": 1, **fields}


def unary(op: str, options: tuple[str, dict[str, Any]] | None = None, *extra: T, shape: Any = (1, 5, 6, 3)) -> File:
    """One op on an input of that shape; `extra` are its constant operands."""
    tensors = [T(shape), *extra, T(None, name="out")]
    return File(tensors, [Op(op, range(len(tensors) - 1), [len(tensors) - 1], options)])


def binary_with(op: str, constant: Any, first: bool = False, fused: int = 0) -> File:
    table = {"ADD": "AddOptions", "SUB": "SubOptions", "MUL": "MulOptions", "DIV": "DivOptions"}[op]
    operands = [1, 0] if first else [0, 1]
    tensors = [T((1, 4, 5, 3)), T(data=np.asarray(constant, F)), T(None)]
    return File(tensors, [Op(op, operands, [2], (table, {"FusedActivationFunction": fused}))])


def dense(keep: bool, shape: Any, features: int, bias: bool) -> File:
    tensors = [T(shape), T(data=normal(4, features)), T(data=normal(4)), T(None)]
    options = ("FullyConnectedOptions", {"KeepNumDims": keep, "FusedActivationFunction": 1})
    return File(tensors, [Op("FULLY_CONNECTED", [0, 1, 2 if bias else -1], [3], options)])


def reshape_chain() -> File:
    """What a converter writes for a reshape with a dynamic batch."""
    slice_options = ("StridedSliceOptions", {"ShrinkAxisMask": 1})
    return File(
        [
            T((1, 2, 3, 4), signature=(-1, 2, 3, 4)),
            T((4,), type="int32"), ints(0), ints(1), T((), type="int32"), T(data=np.int32(-1)), T((2,), type="int32"),
            T((1, 24), signature=(-1, 24)),
        ],
        [
            Op("SHAPE", [0], [1], ("ShapeOptions", {"OutType": 2})),
            Op("STRIDED_SLICE", [1, 2, 3, 3], [4], slice_options),
            Op("PACK", [4, 5], [6], ("PackOptions", {"ValuesCount": 2, "Axis": 0})),
            Op("RESHAPE", [0, 6], [7]),
        ],
    )  # fmt: skip


def shape_arithmetic() -> File:
    """GATHER, REDUCE_PROD, CAST, MUL and CONCATENATION of shapes."""
    i32: dict[str, Any] = {"type": "int32"}
    return File(
        [
            T((1, 2, 3, 4)), T((4,), **i32), ints(1, 2), T((2,), **i32), ints(0), T((), **i32), T(data=np.int32(2)),
            T((), **i32), T((1,), **i32), T((1,), type="int64"), T((1,), **i32), ints(1), ints(2), T((3,), **i32),
            T((1, 12, 2)),
        ],
        [
            Op("SHAPE", [0], [1], ("ShapeOptions", {"OutType": 2})),
            Op("GATHER", [1, 2], [3], ("GatherOptions", {"Axis": 0})),
            Op("REDUCE_PROD", [3, 4], [5], ("ReducerOptions", {"KeepDims": False})),
            Op("MUL", [5, 6], [7], ("MulOptions", {})),
            Op("RESHAPE", [7], [8], ("ReshapeOptions", {"NewShape": [1]})),
            Op("CAST", [8], [9]),
            Op("CAST", [9], [10]),
            Op("CONCATENATION", [11, 10, 12], [13], ("ConcatenationOptions", {"Axis": 0})),
            Op("RESHAPE", [0, 13], [14]),
        ],
    )  # fmt: skip


def dilated(op: str, weights: Any, table: str) -> File:
    """SPACE_TO_BATCH_ND, a convolution, BATCH_TO_SPACE_ND."""
    block, pads, crops = np.array([3, 2]), np.array([[3, 5], [2, 2]]), np.array([[0, 2], [0, 0]])
    return File(
        [
            T((1, 7, 6, 2)), *(T(data=a.astype(np.int32)) for a in (block, pads, crops)), T(None), T(data=weights),
            T(data=normal(4)), T(None), T(None), T(None),
        ],
        [
            Op("SPACE_TO_BATCH_ND", [0, 1, 2], [4]),
            Op(op, [4, 5, 6], [7], conv_options(table, Padding=1, FusedActivationFunction=1)),
            Op("BATCH_TO_SPACE_ND", [7, 1, 3], [8]),
            Op("LOGISTIC", [8], [9]),
        ],
    )  # fmt: skip


def dense_on_pixels() -> File:
    """RESHAPE, FULLY_CONNECTED, RESHAPE."""
    return File(
        [T((1, 3, 2, 4)), ints(-1, 4), T(None), T(data=normal(5, 4)), T(None), ints(1, 3, 2, 5), T(None)],
        [
            Op("RESHAPE", [0, 1], [2]),
            Op("FULLY_CONNECTED", [2, 3, -1], [4], ("FullyConnectedOptions", {"FusedActivationFunction": 1})),
            Op("RESHAPE", [4, 5], [6]),
        ],
    )


def dense_by_rows() -> File:
    """Edge Impulse's head, with what may stand between: activations, constants, a shape computed from a shape."""
    i32: dict[str, Any] = {"type": "int32"}
    fused = ("FullyConnectedOptions", {"FusedActivationFunction": 1})
    return File(
        [
            T((1, 3, 2, 4)), ints(6, 4), T((6, 4)), T(data=normal(5, 4)), T((6, 5)), T((6, 5)), T(data=normal(5)),
            T((6, 5)), T((2,), **i32), ints(0), ints(1), T((), **i32), T((1,), **i32), ints(1), T((2,), **i32),
            T((1, 6, 5)), ints(1, -1), T((1, 30)), T(data=normal(3, 30)), T(data=normal(3)), T((1, 3)),
            T(data=np.int32(1)), T(data=np.int32(6)), T(data=np.int32(5)), T((3,), **i32),
        ],
        [
            Op("RESHAPE", [0, 1], [2]),
            Op("FULLY_CONNECTED", [2, 3, -1], [4], fused),
            Op("LOGISTIC", [4], [5]),
            Op("MUL", [5, 6], [7], ("MulOptions", {})),
            Op("SHAPE", [7], [8], ("ShapeOptions", {"OutType": 2})),
            Op("STRIDED_SLICE", [8, 9, 10, 10], [11], ("StridedSliceOptions", {"ShrinkAxisMask": 1})),
            Op("PACK", [21, 11, 23], [24], ("PackOptions", {"ValuesCount": 3, "Axis": 0})),
            Op("RESHAPE", [7, 24], [15]),
            Op("RESHAPE", [15, 16], [17]),
            Op("FULLY_CONNECTED", [17, 18, 19], [20], fused),
        ],
    )  # fmt: skip


def rows_into(op: str, options: tuple[str, dict[str, Any]], constant: T) -> File:
    """RESHAPE that leaves the batch out, then an op."""
    tensors = [T((1, 5, 6, 3)), ints(5, 6, 3), T(None), constant, T(None)]
    return File(tensors, [Op("RESHAPE", [0, 1], [2]), Op(op, [2, 3], [4], options)])


def dequantized(constant: T) -> File:
    """A weight behind DEQUANTIZE."""
    shape = constant.data.shape
    tensors = [T((1, 5, 5, 3)), constant, T(shape), T(data=normal(shape[0])), T(None)]
    return File(tensors, [Op("DEQUANTIZE", [1], [2], version=3), Op("CONV_2D", [0, 2, 3], [4], conv_options())])


def batched() -> File:
    """A file whose batch is 3."""
    return File(
        [T((3, 4, 4, 2)), T(data=np.array([-3, 2], np.int32)), T((3, 2)), ints(3, 1, 2), T((3, 1, 2))],
        [Op("MEAN", [0, 1], [2], ("ReducerOptions", {"KeepDims": False})), Op("RESHAPE", [2, 3], [4])],
    )


def concatenated() -> File:
    tensors = [T((1, 3, 4, 2)), T(None), T(None)]
    options = ("ConcatenationOptions", {"Axis": -1, "FusedActivationFunction": 0})
    return File(tensors, [Op("RELU", [0], [1]), Op("CONCATENATION", [0, 1, 0], [2], options)])


def pool(padding: int, height: int, width: int, stride: int) -> File:
    fields = {"Padding": padding, "StrideH": stride, "StrideW": 1, "FilterHeight": height, "FilterWidth": width}
    return unary("AVERAGE_POOL_2D", ("Pool2DOptions", fields))


def resize(corners: bool, centers: bool) -> File:
    options = ("ResizeBilinearOptions", {"AlignCorners": corners, "HalfPixelCenters": centers})
    return unary("RESIZE_BILINEAR", options, ints(9, 4))


INT8_WEIGHTS = T(
    data=RNG.integers(-127, 128, (2, 3, 3, 3)).astype(np.int8), scale=(0.5, 0.0123), zero_point=(0, 0), axis=0
)
CASES: dict[str, Callable[[], File]] = {
    "conv same": lambda: unary("CONV_2D", conv_options(StrideH=2, StrideW=2, FusedActivationFunction=3),
                               T(data=normal(4, 3, 3, 3)), T(data=normal(4))),
    "conv valid": lambda: unary("CONV_2D", conv_options(Padding=1, FusedActivationFunction=2),
                                T(data=normal(4, 2, 3, 3)), T(data=normal(4))),
    "conv dilated": lambda: unary("CONV_2D", conv_options(DilationHFactor=2, DilationWFactor=3),
                                  T(data=normal(4, 3, 3, 3)), T(data=normal(4))),
    "tanh": lambda: unary("TANH"),
    "tanh of rows": lambda: File([T((1, 3, 8)), T((3, 8)), T((3, 8))], [
        Op("RESHAPE", [0], [1], ("ReshapeOptions", {"NewShape": [3, 8]})), Op("TANH", [1], [2])]),
    **{f"{op.lower()} of {kind}": functools.partial(unary, op, None, *more)
       for op in ("MINIMUM", "MAXIMUM")
       for kind, more in (("a number", [T(data=np.float32(0.25))]), ("channels", [T(data=normal(3))]))},
    "maximum, constant first": lambda: File([T(data=normal(1, 5, 6, 3)), T((1, 5, 6, 3)), T(None)],
                                            [Op("MAXIMUM", [0, 1], [2])], inputs=[1]),
    "minimum of two": lambda: File([T((1, 5, 6, 3)), T(None), T(None)],
                                   [Op("LOGISTIC", [0], [1]), Op("MINIMUM", [0, 1], [2])]),
    "depthwise": lambda: unary("DEPTHWISE_CONV_2D", conv_options("DepthwiseConv2DOptions", DepthMultiplier=1),
                               T(data=normal(1, 3, 2, 3)), T(data=normal(3))),
    "depthwise multiplied": lambda: unary(
        "DEPTHWISE_CONV_2D", conv_options("DepthwiseConv2DOptions", DepthMultiplier=2, DilationHFactor=2),
        T(data=normal(1, 3, 2, 6)), T(data=normal(6))),
    "pool same": lambda: pool(0, 3, 2, 2),
    "pool valid": lambda: pool(1, 2, 3, 1),
    "mean": lambda: unary("MEAN", ("ReducerOptions", {"KeepDims": False}), ints(1, 2)),
    "mean kept": lambda: unary("MEAN", ("ReducerOptions", {"KeepDims": True}), ints(-2, -3)),
    "add vector": lambda: binary_with("ADD", normal(3), fused=1),
    "add scalar first": lambda: binary_with("ADD", 0.75, first=True),
    "sub from constant": lambda: binary_with("SUB", normal(5, 3), first=True, fused=3),
    "mul full": lambda: binary_with("MUL", normal(1, 4, 1, 3)),
    "div exact": lambda: binary_with("DIV", [0.25, -8.0, 1.0]),
    "hard swish": lambda: unary("HARD_SWISH"),
    "logistic": lambda: unary("LOGISTIC"),
    "relu": lambda: unary("RELU"),
    "relu6": lambda: unary("RELU6"),
    "relu_n1_to_1": lambda: unary("RELU_N1_TO_1"),
    "dense": lambda: dense(False, (1, 6), 6, True),
    "dense flattens": lambda: dense(False, (1, 2, 3, 1), 6, False),
    "dense keeps dims": lambda: dense(True, (1, 1, 1, 6), 6, False),
    "dense per pixel": lambda: dense(True, (1, 3, 2, 6), 6, True),
    "dense on pixels": dense_on_pixels,
    "dense keeps 3 dims": lambda: dense(True, (1, 4, 6), 6, True),
    "dense by rows of several pixels": lambda: dense(False, (1, 3, 2, 6), 12, True),
    "dense by rows, gates": dense_by_rows,
    "softmax": lambda: unary("SOFTMAX", ("SoftmaxOptions", {"Beta": 0.5}), shape=(1, 9)),
    "reshape by operand": lambda: unary("RESHAPE", None, ints(1, -1, 9)),
    "reshape by option": lambda: unary("RESHAPE", ("ReshapeOptions", {"NewShape": [1, 90]})),
    "squeeze": lambda: unary("SQUEEZE", ("SqueezeOptions", {"SqueezeDims": [1, -2]}), shape=(1, 1, 1, 7)),
    "batch squeezed": lambda: unary("SQUEEZE", ("SqueezeOptions", {}), shape=(1, 1, 1, 7)),
    "expand dims": lambda: unary("EXPAND_DIMS", None, ints(-2), shape=(1, 7)),
    "pad": lambda: unary("PAD", None, T(data=np.array([[0, 0], [1, 2], [0, 3], [0, 0]], np.int32))),
    "concatenation": concatenated,
    "resize": lambda: resize(False, False),
    "resize corners": lambda: resize(True, False),
    "resize centers": lambda: resize(False, True),
    "float16 weights": lambda: dequantized(T(data=normal(4, 3, 3, 3).astype(np.float16))),
    "int8 weights": lambda: dequantized(INT8_WEIGHTS),
    "shape chain": reshape_chain,
    "shape arithmetic": shape_arithmetic,
    "dilated by blocks": lambda: dilated("CONV_2D", normal(4, 2, 3, 2), "Conv2DOptions"),
    "depthwise by blocks": lambda: dilated("DEPTHWISE_CONV_2D", normal(1, 3, 2, 4), "DepthwiseConv2DOptions"),
    "batch of 3": batched,
}  # fmt: skip


@pytest.mark.equal("every kernel", "fast", "LiteRT 2.3.0 BUILTIN_REF; made files", "1e-4 * max(1, max|expected|)")
@pytest.mark.parametrize("name", CASES)
def test_made_files_compute_what_litert_computes(tmp_path: Path, name: str) -> None:
    path = tmp_path / "made.tflite"
    path.write_bytes(CASES[name]().bytes())
    data, litert = convert_tflite(path), interpreter(path)
    check_declarations(data, litert) if "blocks" not in name else None
    check_values(data, litert)


@pytest.mark.parametrize("name", CASES)
def test_made_files_run_in_batches(tmp_path: Path, name: str) -> None:
    """Each image of a batch gives the bits that it gives alone, constants included."""
    model = nm.Model(converted(tmp_path, CASES[name]()))
    x = np.random.default_rng(1).uniform(-1, 1, (2, *model.input.shape[1:])).astype(F)
    both = model.run(x)
    assert np.array_equal(both, np.concatenate([model.run(x[:1]), model.run(x[1:])]))


def converted(tmp_path: Path, file: File | bytes, name: str = "made.tflite") -> ModelData:
    path = tmp_path / name
    path.write_bytes(file if isinstance(file, bytes) else file.bytes())
    return convert_tflite(path)


# -- layouts, names, facts ---------------------------------------------------------------------------------------------


def test_layouts(tmp_path: Path) -> None:
    """Conv OHWI to HWIO, depthwise (1, H, W, C) to (H, W, C), dense (out, in) to (in, out)."""
    conv, depthwise, fc = normal(4, 3, 2, 3), normal(1, 2, 3, 6), normal(5, 7)
    data = converted(tmp_path, unary("CONV_2D", conv_options(), T(data=conv), T(data=normal(4))))
    assert np.array_equal(data.tensors["t1"], conv.transpose(1, 2, 3, 0))
    options = conv_options("DepthwiseConv2DOptions", DepthMultiplier=2)
    data = converted(tmp_path, unary("DEPTHWISE_CONV_2D", options, T(data=depthwise), T(data=normal(6))))
    assert np.array_equal(data.tensors["t1"], depthwise[0])
    assert data.graph.nodes[0].attrs["multiplier"] == 2
    data = converted(tmp_path, unary("FULLY_CONNECTED", None, T(data=fc), shape=(1, 7)))
    assert np.array_equal(data.tensors["t1"], fc.T)
    assert np.array_equal(data.tensors["out/bias"], np.zeros(5, F))


def quantized(op: str, weights: Any, axis: int, bias: T, **options: Any) -> File:
    """An int8 convolution or dense layer with a scale for each output channel."""
    count = weights.shape[axis]
    scale = tuple(float(F(0.01) * F(i + 1)) for i in range(count))
    act: dict[str, Any] = {"type": "int8", "scale": (0.5,), "zero_point": (-3,)}
    kernel = T(data=weights, scale=scale, zero_point=(0,) * count, axis=axis)
    tensors = [T((1, 4, 4, 3) if weights.ndim == 4 else (1, 3), **act), kernel, bias, T(None, **act)]
    table = {"CONV_2D": "Conv2DOptions", "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions"}.get(op)
    return File(tensors, [Op(op, [0, 1, 2], [3], conv_options(table, **options) if table else None, version=3)])


@pytest.mark.parametrize(
    ("op", "shape", "axis", "ours", "layout"),
    [
        ("CONV_2D", (4, 2, 2, 3), 0, 3, (1, 2, 3, 0)),
        ("DEPTHWISE_CONV_2D", (1, 2, 2, 3), 3, 2, None),
        ("FULLY_CONNECTED", (4, 3), 0, 1, (1, 0)),
    ],
)
def test_quantized_weights_stay_integers(
    tmp_path: Path, op: str, shape: Any, axis: int, ours: int, layout: Any
) -> None:
    weights = RNG.integers(-127, 128, shape).astype(np.int8)
    bias = T(data=np.arange(shape[axis], dtype=np.int32), scale=[0.1] * shape[axis], axis=axis)
    data = converted(tmp_path, quantized(op, weights, axis, bias))
    check_declarations(data, interpreter(tmp_path / "made.tflite")) if axis == 0 else None
    kernel = data.graph.tensors["t1"]
    assert kernel.quantization is not None
    assert kernel.quantization.axis == ours
    assert kernel.quantization.scale == tuple(float(F(0.01) * F(i + 1)) for i in range(shape[axis]))
    assert np.array_equal(data.tensors["t1"], weights.transpose(layout) if layout else weights[0])
    assert data.tensors["t2"].dtype == np.int32
    out = data.graph.tensors[data.graph.outputs[0]]
    assert out.dtype == "int8"
    assert (out.quantization.scale, out.quantization.zero_point) == ((0.5,), (-3,)) if out.quantization else False
    if axis == 0:  # LiteRT refuses a bias with another axis, which some exporters write
        peer = Peer((tmp_path / "made.tflite").read_bytes(), "tflite-reference")
        inputs = random_inputs(peer.inputs, 3)
        assert np.array_equal(nm.Model(data).run(inputs[0]), next(iter(peer.run(*inputs).values())))


def test_edges_of_quantized_models(tmp_path: Path) -> None:
    q: dict[str, Any] = {"type": "uint8", "scale": (0.5,), "zero_point": (7,)}
    tensors = [T((1, 3)), T((1, 3), **q), T((1, 3), type="int8", scale=(0.5,), zero_point=(-121,)), T((1, 3))]
    ops = [Op("QUANTIZE", [0], [1]), Op("QUANTIZE", [1], [2]), Op("DEQUANTIZE", [2], [3], version=2)]
    data = converted(tmp_path, File(tensors, ops))
    assert [n.op for n in data.graph.nodes] == ["quantize", "quantize", "dequantize"]
    assert [t.dtype for t in data.graph.tensors.values()] == ["float32", "uint8", "int8", "float32"]


def test_dynamic_range_weights_stay_integers(tmp_path: Path) -> None:
    """A float op with int8 weights: TFLite quantizes its input while running. uint8, as in 2018, becomes float."""
    data = converted(tmp_path, unary("CONV_2D", conv_options(), INT8_WEIGHTS, T(data=normal(2))))
    assert np.array_equal(data.tensors["t1"], INT8_WEIGHTS.data.transpose(1, 2, 3, 0))
    assert data.graph.tensors["t1"].quantization == Quantization(
        tuple(map(float, np.float32((0.5, 0.0123)))), (0, 0), 3
    )
    assert "note" not in data.info.provenance
    old = T(data=INT8_WEIGHTS.data.view(np.uint8), scale=(0.5,), zero_point=(3,))
    data = converted(tmp_path, unary("CONV_2D", conv_options(), old, T(data=normal(2))))
    assert np.array_equal(data.tensors["t1"], ((old.data.astype(F) - 3) * F(0.5)).transpose(1, 2, 3, 0))
    assert "uint8 weights of 1 float ops" in data.info.provenance["note"]


def test_names(tmp_path: Path) -> None:
    """Repeated, empty and unusable names are replaced; constants yield to computed tensors; uses share a constant."""
    names = ["x", "x", "", "#1", "a\x1bb", "x"]
    tensors = [T((1, 3), name=name) for name in names[:5]] + [T(data=normal(3), name="x")]
    ops = [Op("ADD", [i, 5], [i + 1], ("AddOptions", {})) for i in range(4)]
    data = converted(tmp_path, File(tensors, ops))
    assert dict(data.graph.endpoints) == {"#0": "x", "#1": "x_1", "#2": "tensor_2", "#3": "tensor_3", "#4": "a?b"}
    assert list(data.tensors) == ["x_2"]
    assert data.graph.tensors["x_2"].source == "#5"


def test_one_constant_for_a_product_and_a_quotient(tmp_path: Path) -> None:
    """The reciprocals are other values: they don't share the constant's tensor."""
    tensors = [T((1, 3)), T(data=np.array([2, 4, 8], F)), T(None), T(None)]
    ops = [Op("MUL", [0, 1], [2], ("MulOptions", {})), Op("DIV", [2, 1], [3], ("DivOptions", {}))]
    data = converted(tmp_path, File(tensors, ops))
    x = normal(1, 3)
    assert np.array_equal(nm.Model(data).run(x, check_range=False), x)


def test_classes_and_labels(tmp_path: Path) -> None:
    def facts(classes: int, packed: dict[str, str] | bytes | None = None) -> tuple[Any, int]:
        content = unary("RELU", shape=(1, classes)).bytes()
        buffer = io.BytesIO()
        if isinstance(packed, dict):
            with zipfile.ZipFile(buffer, "w") as archive:
                for name, text in packed.items():
                    archive.writestr(name, text)
        info = converted(tmp_path, content + (packed if isinstance(packed, bytes) else buffer.getvalue())).info
        return info.labels, info.label_offset

    assert facts(1001) == ("imagenet", 1)
    assert facts(1000) == ("imagenet", 0)
    assert facts(999) == ((), 0)
    assert facts(3, {"labels.txt": "a\nb\nc\n"}) == (("a", "b", "c"), 0)
    assert facts(3, {"labels_de.txt": "x\ny\nz\n", "labels.txt": "a\nb\nc"}) == (("a", "b", "c"), 0)
    assert facts(3, {"labels.txt": "a\nb\n"}) == ((), 0)
    assert facts(3, {"notes.txt": "a\nb\nc"}) == ((), 0)
    assert facts(3, {"labels.txt": "a\n" * 10**6}) == ((), 0)
    assert facts(3, b"PK\x05\x06 not a zip") == ((), 0)


def test_several_outputs_and_subgraphs(tmp_path: Path) -> None:
    """A backbone; the other subgraphs aren't used and don't matter."""
    ops = [Op("RELU", [0], [1]), Op("RELU6", [0], [2])]
    data = converted(tmp_path, File([T((1, 2, 2, 3)), T(None), T(None)], ops, outputs=[2, 1], subgraphs=3))
    assert data.graph.outputs == ("t2", "t1")
    assert data.info.labels == ()


def test_round_trip_through_a_weight_file(tmp_path: Path) -> None:
    file = dequantized(INT8_WEIGHTS)
    data = converted(tmp_path, file)
    nm.convert(tmp_path / "made.tflite", tmp_path / "made.h5")
    x = normal(2, 5, 5, 3).clip(-1, 1)
    assert np.array_equal(nm.load(tmp_path / "made.h5").run(x), nm.Model(data).run(x))


# -- refusals ----------------------------------------------------------------------------------------------------------

A = T((1, 4, 4, 2))
INT8 = T((1, 4, 4, 2), type="int8", scale=(0.1,))
WEIGHTS = T(data=np.ones((4, 1, 1, 2), F))
REFUSED: dict[str, tuple[Callable[[], File], str]] = {
    "op": (lambda: unary("SIN"), r"op 0 \(SIN\)"),
    "negative of 8 bits": (lambda: File([INT8, INT8], [Op("NEG", [0], [1])]), "of int8; supported: float32"),
    "quotient of 8 bits": (lambda: File([INT8, INT8, INT8], [Op("DIV", [0, 1], [2])], inputs=[0, 1]), "of int8"),
    "control flow": (lambda: unary("WHILE"), r"op 0 \(WHILE\)"),
    "custom op": (lambda: File([A, T(None)], [Op("CUSTOM", [0], [1], custom="Magic")]), "custom op 'Magic'"),
    "fused tanh": (lambda: binary_with("ADD", 1.0, fused=4), "fused activation number 4"),
    "dynamic size": (
        lambda: File([T((1, 1, 1, 3), signature=(1, -1, -1, 3)), T(None)], [Op("RELU", [0], [1])]),
        "fixed input size",
    ),
    "batch mixed": (lambda: unary("RESHAPE", None, ints(3, 60), shape=(2, 5, 6, 3)), "batch dimension"),
    "pooled by rows": (lambda: rows_into("MEAN", ("ReducerOptions", {}), ints(1)), "batch dimension 1 in front"),
    "reshape size": (lambda: unary("RESHAPE", None, ints(1, 7)), "can't reshape"),
    "batch padding": (
        lambda: unary("PAD", None, T(data=np.array([[1, 0], [0, 0], [0, 0], [0, 0]], np.int32))),
        "only height and width",
    ),
    "mean over the batch": (lambda: unary("MEAN", ("ReducerOptions", {}), ints(0, 3)), r"over axes \[0, 3\]"),
    "constant over the batch": (lambda: binary_with("ADD", normal(2, 4, 5, 3)), "vary with the batch"),
    "constant of higher rank": (lambda: binary_with("ADD", normal(1, 1, 4, 5, 3)), "4 dimensions"),
    "operands that don't fit": (lambda: binary_with("ADD", normal(7)), r"op 0 \(ADD\)"),
    "computed weights": (
        lambda: File([A, T((4, 1, 1, 2)), T(None)], [Op("CONV_2D", [0, 1, -1], [2], conv_options())], inputs=[0, 1]),
        "batch sizes",
    ),
    "grouped convolution": (
        lambda: unary("CONV_2D", conv_options(), T(data=np.ones((4, 1, 1, 1), F)), T(data=normal(4))),
        r"op 0 \(CONV_2D\)",
    ),
    "stride 0": (lambda: unary("CONV_2D", conv_options(StrideH=0), WEIGHTS, T(data=normal(4))), "stride"),
    "wrong options": (
        lambda: unary("CONV_2D", ("PackOptions", {"Axis": 1}), WEIGHTS, T(data=normal(4))),
        "expected Conv2DOptions",
    ),
    "shuffled weights": (
        lambda: unary("FULLY_CONNECTED", ("FullyConnectedOptions", {"WeightsFormat": 1}), T(data=normal(2, 90))),
        "shuffled",
    ),
    "declared shape": (lambda: File([A, T((1, 4, 4, 3))], [Op("RELU", [0], [1])]), r"\(1, 4, 4, 3\)"),
    "not finite": (lambda: binary_with("ADD", [1.0, np.nan, 2.0]), "not finite"),
    "buffer size": (lambda: unary("ADD", None, T((3,), raw=b"12345678")), "needs 12 bytes, its buffer has 8"),
    "constant type": (lambda: unary("ADD", None, T(data=np.array([True, False, True]))), "BOOL"),
    "input type": (lambda: File([T((1, 3), type="int64"), T(None)], [Op("RELU", [0], [1])]), "INT64"),
    "no scale": (lambda: File([T((1, 3), type="int8"), T(None)], [Op("RELU", [0], [1])]), "quantization parameters"),
    "scale 0": (
        lambda: File([T((1, 3), type="int8", scale=(0.0,)), T(None)], [Op("RELU", [0], [1])]),
        "finite and above 0",
    ),
    "zero point": (
        lambda: File([T((1, 3), type="int8", scale=(1.0,), zero_point=(128,)), T(None)], [Op("RELU", [0], [1])]),
        "range of int8",
    ),
    "quantized_dimension": (
        lambda: quantized("CONV_2D", np.ones((3, 2, 2, 3), np.int8), 3, T(data=np.zeros(3, np.int32))),
        "axis 3, expected 0",
    ),
    "types mixed": (lambda: File([A, INT8, T(None)], [Op("ADD", [0, 1], [2])], inputs=[0, 1]), "different types"),
    "type changed": (lambda: File([INT8, T(None)], [Op("RELU", [0], [1])]), "float32 where its input is int8"),
    "order": (lambda: File([A, T(None), T(None)], [Op("RELU", [2], [1]), Op("RELU", [0], [2])]), "nothing before it"),
    "written twice": (lambda: File([A, T(None)], [Op("RELU", [0], [1]), Op("RELU6", [0], [1])]), "computed before"),
    "two outputs": (lambda: File([A, T(None), T(None)], [Op("RELU", [0], [1, 2])], outputs=[1]), "expected one tensor"),
    "no such tensor": (lambda: File([A, T(None)], [Op("RELU", [0], [9])], outputs=[1]), "#9 doesn't exist"),
    "output not computed": (lambda: File([A, T(None), T(None)], [Op("RELU", [0], [1])], outputs=[2]), "isn't computed"),
    "no operand": (lambda: File([A, T(None)], [Op("ADD", [0, -1], [1])]), "two operands"),
    "huge": (lambda: File([T((1, 2**15, 2**15, 3)), T(None)], [Op("RELU", [0], [1])]), "elements"),
    "huge output": (lambda: unary("RESIZE_BILINEAR", ("ResizeBilinearOptions", {}), ints(2**16, 2**16)), "too large"),
    "blocks alone": (
        lambda: unary("SPACE_TO_BATCH_ND", None, ints(2, 2), T(data=np.zeros((2, 2), np.int32))),
        "supported only as",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_say_what_and_where(tmp_path: Path, name: str) -> None:
    make, message = REFUSED[name]
    with pytest.raises(ConversionError, match=message) as caught:
        converted(tmp_path, make())
    assert str(caught.value).startswith("made.tflite: ")


@pytest.mark.parametrize("old_codes", [True, False])
def test_op_codes_in_the_new_field_alone(old_codes: bool) -> None:
    """Every op is read by its name, whether or not the deprecated field holds its code as well."""
    names = [*OPS, "CUSTOM", "UNPACK", "BATCH_MATMUL"]  # the last lies above 127, where the old field says 127
    file = File([A, T(None)], [Op(name, [0], [1]) for name in names], old_codes=old_codes)
    assert [op.op for op in tflite_file.parse(file.bytes()).operators] == ["custom op ''" if n == "CUSTOM" else n
                                                                           for n in names]  # fmt: skip


def test_a_product_whose_code_is_in_the_new_field_alone(tmp_path: Path) -> None:
    """Read as an addition, whose options may be left out as well, it would give other values without a word."""
    file = File([T((1, 4)), T(data=normal(4)), T((1, 4))], [Op("MUL", [0, 1], [2])], old_codes=False)
    path = tmp_path / "made.tflite"
    path.write_bytes(file.bytes())
    data = convert_tflite(path)
    assert [node.op for node in data.graph.nodes] == ["mul"]
    check_values(data, interpreter(path))


def test_options_of_another_op_are_refused(tmp_path: Path) -> None:
    """They tell of a wrong code; ops that have no options aren't excepted."""
    assert set(OPTIONS) == set(OPS)
    for name in OPS:
        other = "PackOptions" if name != "PACK" else "AddOptions"
        with pytest.raises(ConversionError, match=f"op 0 \\({name}\\): options of kind"):
            converted(tmp_path, File([A, T(None)], [Op(name, [0], [1], (other, {}))]))


def test_missing_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(tflite_file.importlib, "import_module", absent)
    with pytest.raises(MissingExtra, match=r"npmobilenet\[convert\]"):
        converted(tmp_path, unary("RELU"))


# -- damaged and hostile files -----------------------------------------------------------------------------------------


def test_not_a_tflite_file(tmp_path: Path) -> None:
    good = unary("RELU").bytes()
    for content in (b"", b"\x00" * 8, b"some text", good[:15], good[:4] + b"TFL2" + good[8:]):
        with pytest.raises(ConversionError, match=r"not a \.tflite file"):
            converted(tmp_path, content)
    for path in (tmp_path, tmp_path / "absent.tflite", "a\0b.tflite"):
        with pytest.raises(ConversionError, match="can't be read"):
            convert_tflite(path)


@pytest.mark.parametrize("name", ["resize_16M.tflite", "resize_2G.h5"])
def test_a_vast_resize_is_refused_before_any_table(data: Path, name: str) -> None:
    start = time.process_time()
    with pytest.raises(nm.NpMobilenetError, match="from 1 to 65536"):
        nm.load(data / "hostile" / name)
    assert time.process_time() - start < 2


def test_a_large_weight_used_ten_thousand_times(tmp_path: Path) -> None:
    """Small in the file, long in the loop: refused when the uses add up to far more than the file."""
    weights = T(data=np.ones((64, 3, 3, 64), F))
    ops = [Op("CONV_2D", [0, 1, -1], [2 + i], conv_options()) for i in range(3000)]
    file = File([T((1, 4, 4, 64)), weights, *(T(None, name="y") for _ in ops)], ops)
    start = time.process_time()
    with pytest.raises(ConversionError, match="more often than once"):
        converted(tmp_path, file)
    assert time.process_time() - start < 8  # making the file takes most of it


# -- TensorFlow's converter, where TensorFlow is installed -------------------------------------------------------------


@pytest.mark.parametrize("weights", ["float32", "float16"])
def test_a_converted_keras_model(tmp_path: Path, weights: str) -> None:
    """A dynamic batch, squeeze-excite, dilation, a dense head: as TFLiteConverter writes them."""
    tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed (extra [tf])")
    layers, x = tf.keras.layers, None
    first = tf.keras.Input((33, 33, 3))
    x = layers.Conv2D(8, 3, 2, "same", activation="hard_swish")(first)
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = layers.Dense(8, activation="sigmoid")(layers.Conv2D(4, 1, activation="relu")(gate))
    x = layers.Multiply()([x, gate])
    x = layers.DepthwiseConv2D(3, dilation_rate=2, padding="same", depth_multiplier=2)(x)
    x = layers.Resizing(20, 20)(layers.ZeroPadding2D(((1, 0), (0, 1)))(layers.ReLU(6.0)(x)))
    mask = layers.Dense(3, activation="relu")(x)
    scores = layers.Softmax()(layers.Dense(5)(layers.Flatten()(layers.AveragePooling2D(5)(mask))))
    model = tf.keras.Model(first, [scores, mask])
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if weights == "float16":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
    path = tmp_path / "keras.tflite"
    path.write_bytes(converter.convert())
    check_values(convert_tflite(path), interpreter(path))
