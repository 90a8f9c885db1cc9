"""The sound small files that tools/fuzz.py damages: made here, of every format, in a folder for each format.

The makers of files are those of the tests (tests/tflite_maker.py and the writers beside the tests of each format).
"""

from __future__ import annotations

import io
import itertools
import json
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "formats"), str(TESTS / "kernels")]

CLASSES = 10
NAMES = tuple(f"class{i}" for i in range(CLASSES))
CORPUS_BYTES = 2_000_000  # a larger file of a corpus is passed over: its cases would take seconds each


def small_tflite(kind: str, seed: int) -> bytes:
    """A .tflite classifier of 8x8 images: a convolution, four layers drawn from all kinds, pooling, softmax."""
    from tflite_export import _VERSIONS
    from tflite_maker import File, Op, T

    rng = np.random.default_rng(seed)
    tensors: list[Any] = []
    ops: list[Any] = []
    integer = kind != "float32"
    zero = {"int8": -3, "uint8": 120}.get(kind, 0)

    def add(tensor: Any) -> int:
        tensors.append(tensor)
        return len(tensors) - 1

    def value(shape: Sequence[int], scale: float = 0.05, point: int | None = None) -> int:
        q = {"scale": [scale], "zero_point": [zero if point is None else point]} if integer else {}
        return add(T(tuple(shape), type=kind, **q))

    def weights(shape: Sequence[int], axis: int, x: int) -> list[int]:
        count = shape[axis]
        if not integer:
            floats = rng.normal(0, 0.3, shape).astype(np.float32)
            return [add(T(data=floats)), add(T(data=rng.normal(0, 0.1, count).astype(np.float32)))]
        many = count if kind == "int8" else 1
        scales = rng.uniform(0.002, 0.02, many).astype(np.float32)
        points = [0 if kind == "int8" else 125] * many
        limits = np.iinfo(kind)
        values = rng.integers(max(limits.min, -127), limits.max, shape, kind, endpoint=True)
        kernel = add(T(data=values, scale=scales, zero_point=points, axis=axis if many > 1 else 0))
        bias = rng.integers(-200, 200, count, np.int32)
        return [kernel, add(T(data=bias, scale=scales * np.float32(tensors[x].scale[0]), zero_point=[0] * many))]

    def emit(op: str, inputs: list[int], output: int, table: str = "", **fields: Any) -> int:
        ops.append(Op(op, inputs, [output], (table, fields) if table else None, _VERSIONS.get(op, 1) if integer else 1))
        return output

    def shape_of(x: int) -> tuple[int, ...]:
        return tuple(tensors[x].shape)

    def conv(x: int, out: int, size: int, stride: int, act: int) -> int:
        n, h, w, c = shape_of(x)
        y = (n, -(-h // stride), -(-w // stride), out)
        fields = {"Padding": 0, "StrideH": stride, "StrideW": stride, "FusedActivationFunction": act,
                  "DilationHFactor": 1, "DilationWFactor": 1}  # fmt: skip
        return emit("CONV_2D", [x, *weights((out, size, size, c), 0, x)], value(y), "Conv2DOptions", **fields)

    def layer(x: int, which: str) -> int:
        n, h, w, c = shape_of(x)
        if which == "depthwise":
            fields = {"Padding": 0, "StrideH": 1, "StrideW": 1, "DepthMultiplier": 1, "FusedActivationFunction": 3,
                      "DilationHFactor": 1, "DilationWFactor": 1}  # fmt: skip
            inputs = [x, *weights((1, 3, 3, c), 3, x)]
            return emit("DEPTHWISE_CONV_2D", inputs, value((n, h, w, c)), "DepthwiseConv2DOptions", **fields)
        if which in ("add", "mul"):
            fields = {"FusedActivationFunction": int(rng.choice([0, 1, 3]))}
            other = conv(x, c, 1, 1, 0)
            return emit(which.upper(), [x, other], value((n, h, w, c), 0.06), f"{which.title()}Options", **fields)
        if which == "gate":
            low = {"int8": -128}.get(kind, 0)
            y = emit("LOGISTIC", [x], value((n, h, w, c), 1 / 256, low))
            return emit("MUL", [x, y], value((n, h, w, c)), "MulOptions", FusedActivationFunction=0)
        if which == "average":
            fields = {"Padding": 0, "StrideH": 1, "StrideW": 1, "FilterHeight": 3, "FilterWidth": 3,
                      "FusedActivationFunction": 0}  # fmt: skip
            return emit("AVERAGE_POOL_2D", [x], add(T(shape_of(x), type=kind, scale=tensors[x].scale,
                        zero_point=tensors[x].zero_point)), "Pool2DOptions", **fields)  # fmt: skip
        same = {"type": kind, "scale": tensors[x].scale, "zero_point": tensors[x].zero_point}
        if which == "pad":
            pads = add(T(data=np.array([[0, 0], [1, 1], [0, 1], [0, 0]], np.int32)))
            return emit("PAD", [x, pads], add(T((n, h + 2, w + 1, c), **same)))
        if which == "concat":
            both = {"Axis": 3, "FusedActivationFunction": 0}
            return emit("CONCATENATION", [x, x], add(T((n, h, w, 2 * c), **same)), "ConcatenationOptions", **both)
        if which == "resize":
            size = add(T(data=np.array([h + 1, w * 2], np.int32)))
            flags = {"AlignCorners": False, "HalfPixelCenters": bool(rng.integers(2))}
            return emit("RESIZE_BILINEAR", [x, size], add(T((n, h + 1, w * 2, c), **same)), "ResizeBilinearOptions",
                        **flags)  # fmt: skip
        if which == "swish" and kind != "uint8":
            return emit("HARD_SWISH", [x], value((n, h, w, c), 0.04))
        return conv(x, 8, 1, 1, 3)

    x = conv(value((1, 8, 8, 3), 1 / 127.5), 8, 3, 2, 3)
    kinds = ["depthwise", "add", "mul", "gate", "average", "pad", "concat", "resize", "swish", "conv"]
    for which in rng.choice(kinds, 4, replace=False):
        x = layer(x, str(which))
    n, _, _, c = shape_of(x)
    axes = add(T(data=np.array([1, 2], np.int32)))
    x = emit("MEAN", [x, axes], value((n, c)), "ReducerOptions", KeepDims=False)
    fc = [x, *weights((CLASSES, c), 0, x)] if kind != "int8" else [x, *_one_scale(add, T, rng, c, tensors[x].scale[0])]
    x = emit("FULLY_CONNECTED", fc, value((n, CLASSES), 0.1), "FullyConnectedOptions", FusedActivationFunction=0)
    low = {"int8": -128}.get(kind, 0)
    emit("SOFTMAX", [x], value((n, CLASSES), 1 / 256, low), "SoftmaxOptions", Beta=1.0)
    content: bytes = File(tensors, ops).bytes()
    return content


def small_state() -> dict[str, Any]:
    """The state dict of torchvision's smallest V2: 8 channels in every block."""
    from dataclasses import replace

    from pytorch_maker import state_of

    from npmobilenet.formats.pytorch.names import layers_of
    from npmobilenet.zoo.pytorch import torch_model

    model = replace(torch_model("torchvision/mobilenet_v2"), multiplier=0.05)
    graph = model.graph(CLASSES, 32)
    shapes = {n: s for layer in layers_of(model, graph, {}) for n, s in layer.variables(graph).items()}
    return dict(state_of(shapes))


def _one_scale(add: Any, tensor: Any, rng: np.random.Generator, c: int, scale: float) -> list[int]:
    kernel = add(tensor(data=rng.integers(-127, 127, (CLASSES, c), np.int8), scale=[0.01], zero_point=[0]))
    bias = np.zeros(CLASSES, np.int32)
    return [kernel, add(tensor(data=bias, scale=[0.01 * scale], zero_point=[0]))]


def with_labels(model: bytes) -> bytes:
    """A .tflite file with the zip archive of its labels behind it, as TFLite's metadata has them."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("labels.txt", "\n".join(NAMES))
    return model + buffer.getvalue()


def pictures() -> dict[str, bytes]:
    """A noise picture in every format that is decoded."""
    from PIL import Image

    noise = np.random.default_rng(2).integers(0, 256, (19, 23, 3), np.uint8)
    found = {}
    for kind in ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP"):
        for mode in ("RGB", "L", "P", "RGBA", "CMYK", "I;16"):
            buffer = io.BytesIO()
            try:
                Image.fromarray(noise).convert(mode).save(buffer, kind)
            except (OSError, ValueError, KeyError):
                continue  # this format has no such mode
            found[f"{kind}_{mode.replace(';', '')}.{kind.lower()}"] = buffer.getvalue()
    return found


def make(folder: Path, corpus: Sequence[Path], with_keras: bool) -> None:
    """Write all seeds: FOLDER/FORMAT/NAME/files; what cases share lies in FOLDER/shared."""
    from test_keras import small_variables, write_legacy, write_numbered
    from test_tf_checkpoint import random_variables
    from test_tf_checkpoint import write as write_checkpoint

    from npmobilenet.formats import weightfile
    from npmobilenet.formats.model_path import load_data
    from npmobilenet.golden import record
    from npmobilenet.measure.evaluate import evaluate
    from npmobilenet.model import Model
    from npmobilenet.modeldata import ModelData, ModelInfo

    def put(kind: str, name: str, files: dict[str, bytes]) -> Path:
        place = folder / kind / name
        place.mkdir(parents=True)
        for file, content in files.items():
            (place / file).parent.mkdir(parents=True, exist_ok=True)
            (place / file).write_bytes(content)
        return place

    for kind in ("float32", "int8", "uint8"):
        for seed in range(5):
            content = small_tflite(kind, seed)
            place = put("tflite", f"{kind}_{seed}", {"m.tflite": content})
            if seed < 2:
                read = load_data(place / "m.tflite")
                own = put("h5", f"{kind}_{seed}", {})
                weightfile.write(own / "m.h5", ModelData(read.graph, read.tensors, ModelInfo("seed", NAMES)))
    _operators(put)
    put("tflite", "labels", {"m.tflite": with_labels(small_tflite("uint8", 1))})
    variables = small_variables()
    write_legacy(put("keras", "legacy", {}) / "m.h5", variables)
    write_numbered(put("keras", "numbered", {}) / "m.weights.h5", variables, True)
    if with_keras:
        _whole_keras(put)
    import pytorch_maker

    state = small_state()
    put("pytorch", "zip", {"m.pth": pytorch_maker.pth(state)})
    put("pytorch", "halves", {"m.pth": pytorch_maker.pth(state, bf16=True)})
    put("pytorch", "safetensors", {"m.safetensors": pytorch_maker.safetensors(state)})
    write_checkpoint(put("checkpoint", "v1", {}) / "m.ckpt", random_variables())
    images = pictures()
    for name, content in images.items():
        put("image", name, {name: content})
    jpeg = images["JPEG_RGB.jpeg"]
    truth = "\n".join(f"{i}.jpeg {NAMES[i]}" for i in range(3)) + "\n"
    put("labels", "pairs", {**{f"images/{i}.jpeg": jpeg for i in range(3)}, "truth.txt": truth.encode()})
    put("labels", "lines", {**{f"images/{i}.jpeg": jpeg for i in range(3)}, "truth.txt": "\n".join(NAMES[:3]).encode()})
    arrays: dict[str, Any] = {
        "val_jpeg": np.frombuffer(jpeg * 4, np.uint8), "val_offsets": np.arange(5) * len(jpeg),
        "val_labels": np.arange(4), "val_names": np.array([f"{i}.jpeg" for i in range(4)]), "classes": np.array(NAMES),
    }  # fmt: skip
    np.savez(put("dataset", "four", {}) / "data.npz", **arrays)
    shared = put("shared", ".", {}) if not (folder / "shared").exists() else folder / "shared"
    np.savez(shared / "data.npz", **arrays)
    weightfile.write(shared / "m.h5", ModelData(read.graph, read.tensors, ModelInfo("seed", NAMES)))
    model = Model(load_data(shared / "m.h5"), "python")  # nothing is compiled for a run of --load-only
    record(model, "random:1", shared / "dump")
    record(model, "random:1", put("golden", "folder", {}) / "dump")
    record(model, "random:1", put("golden", "archive", {}) / "dump.npz")
    evaluate(model, shared / "data.npz", state=put("state", "plain", {}) / "state.npz").close()
    evaluate(model, shared / "data.npz", state=put("state", "scores", {}) / "state.npz", scores=True).close()
    _packed(put, small_tflite("uint8", 1))
    x = np.random.default_rng(3).integers(0, 256, model.input.shape, np.uint8)
    _arrays(put, model.run(x, taps="*")[1])
    np.save(put("input", "array", {}) / "x.npy", x)
    np.savez(put("input", "archive", {}) / "x.npz", x=x)
    kinds = {".tflite": "tflite", ".keras": "keras", ".h5": "keras", ".jpg": "image", ".png": "image", ".bmp": "image"}
    for root in corpus:
        for i, path in enumerate(sorted(p for p in root.rglob("*") if p.suffix.lower() in kinds and p.is_file())):
            if path.stat().st_size <= CORPUS_BYTES:
                put(kinds[path.suffix.lower()], f"corpus_{i}", {"m" + path.suffix: path.read_bytes()})


def _operators(put: Any) -> None:
    """The files of one operator that the tests compare with LiteRT, in each of their types."""
    import test_dynamic_range
    import test_more_operators
    import test_selection

    cases = {name: (make, test_selection.DTYPES) for name, make in test_selection.CASES.items()}
    for name, (make, types) in (cases | test_more_operators.CASES).items():
        for kind in types:
            put("tflite", f"{name}_{kind}", {"m.tflite": make(np.random.default_rng(0), kind).bytes()})
    for layers in (test_dynamic_range.convolutions(), test_dynamic_range.dense_layers()):
        for name, file in itertools.islice(layers, 0, None, 5):
            put("tflite", name, {"m.tflite": file.bytes()})


def _packed(put: Any, model: bytes) -> None:
    """A model in the archives that downloads come in."""
    for name, files in (("zip", {"m.tflite": model, "labels.txt": b"0 daisy\n"}), ("tgz", {"./net/m.tflite": model})):
        buffer = io.BytesIO()
        if name == "zip":
            with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
                for member, content in files.items():
                    archive.writestr(member, content)
        else:
            with tarfile.open(fileobj=buffer, mode="w:gz") as packed:
                for member, content in files.items():
                    info = tarfile.TarInfo(member)
                    info.size = len(content)
                    packed.addfile(info, io.BytesIO(content))
        put("packed", name, {f"m.{name}": buffer.getvalue()})


def _arrays(put: Any, arrays: dict[str, Any]) -> None:
    """A run's tensors in the forms that other programs write: text, JSON, raw bytes, TFLite Micro's debugger's file."""
    from test_array_files import layer_by_layer

    arrays = {name.replace("/", "_"): array for name, array in arrays.items() if name[0] != "#"}
    put("arrays", "csv", {f"dump/{k}.csv": ",".join(map(str, v.reshape(-1))).encode() for k, v in arrays.items()})
    put("arrays", "json", {"dump.json": json.dumps({k: v.tolist() for k, v in arrays.items()}).encode()})
    shapes = json.dumps({k: {"dtype": str(v.dtype), "shape": v.shape} for k, v in arrays.items()}).encode()
    put("arrays", "raw", {**{f"dump/{k}.bin": v.tobytes() for k, v in arrays.items()}, "dump/shapes.json": shapes})
    put("arrays", "debugger", {"dump.fbs": layer_by_layer(list(enumerate(arrays.values())))})


def _whole_keras(put: Any) -> None:
    """Whole models as Keras writes them, where it is installed: without it, weights-only files are all there are."""
    try:
        import keras
    except ImportError:
        return
    made = keras.applications.MobileNet(input_shape=(32, 32, 3), alpha=0.125, weights=None, classes=3)
    made.save(put("keras", "archive", {}) / "m.keras")
    made.save(put("keras", "whole", {}) / "m.h5")


if __name__ == "__main__":
    make(Path(sys.argv[1]), [Path(p) for p in json.loads(sys.argv[2])], "no-keras" not in sys.argv)
