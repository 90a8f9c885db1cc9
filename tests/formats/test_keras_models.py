"""Keras models of every make, against Keras itself: tools/make_ecosystem_files.py says which and makes them."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import npmobilenet as nm
from npmobilenet.errors import ConversionError
from npmobilenet.formats.keras.generic import is_teachable_machine
from npmobilenet.formats.keras.model import convert_keras
from npmobilenet.formats.keras.topology import snake_case, topology
from npmobilenet.model import Model

TOOL = Path(__file__).parents[2] / "tools" / "make_ecosystem_files.py"
KINDS = (
    "teachable_machine", "flat_head", "transfer_guide", "preprocess_ops", "v1_conv_head", "v3_head",
    "v3_minimalistic_head", "v3_large_head", "by_hand", "sequential_by_hand", "two_outputs", "grey", "any_size",
    "shared", "batch_norm_anywhere", "normalization_in_front", "functions", "hard_swish_by_hand", "squeeze_by_hand",
    "three_deep", "mixed_precision", "lambda_layer", "two_inputs", "siamese", "groups", "resizing",
    "activation_objects", "names", "channels_first", "elu", "segmentation", "norms", "attention_by_hand", "merges",
    "operations", "backwards", "aspects", "dictionaries",
)  # fmt: skip
FRAMEWORKS = ("keras", "tf_keras")
REFUSED = {
    "lambda_layer": r"'lambda' \(Lambda\): its maker's own code",
}  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of all kinds, by both Keras, each made by a process of its own."""
    if not all(importlib.util.find_spec(name) for name in (*FRAMEWORKS, "tensorflow")):
        pytest.skip("Keras isn't installed: pip install 'npmobilenet[tf]'")
    folder = tmp_path_factory.mktemp("models")
    jobs = [
        subprocess.Popen(
            [sys.executable, str(TOOL), str(folder), "--framework", name],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for name in FRAMEWORKS
    ]  # fmt: skip
    for job in jobs:
        _, errors = job.communicate()
        assert job.returncode == 0, errors[-4000:]
    return folder


@pytest.mark.equal(
    "whole model",
    "fast",
    "Keras 3 and tf_keras; 20 makes of models, three file formats",
    "1e-4 * max(1, max|expected|)",
)
@pytest.mark.parametrize(("kind", "framework", "suffix"), [
    *((kind, framework, suffix) for kind in KINDS for framework, suffix in (("keras", ".keras"), ("tf_keras", ".h5"))),
    *((kind, framework, suffix) for kind in ("teachable_machine", "three_deep", "v3_head")
      for framework, suffix in (("keras", ".h5"), ("tf_keras", ".keras"))),
])  # fmt: skip
def test_values_equal_keras(files: Path, kind: str, framework: str, suffix: str) -> None:
    path = files / f"{framework}-{kind}{suffix}"
    if kind in REFUSED:
        with pytest.raises(ConversionError, match=f"{REFUSED[kind]}.*TFLiteConverter"):
            convert_keras(path)
        return
    data = convert_keras(path, resolution=(96, 96) if kind == "any_size" else None)
    with np.load(files / f"{framework}-{kind}.npz") as golden:
        x = golden["input"]
        more = [golden[name] for name in golden.files if name.startswith("input_")]
        left_out = [note for note in data.info.provenance.get("notes", "").split("; ") if "Rescaling left" in note]
        if left_out:
            x = x / np.float32(127.5) - 1 if "[-1, 1]" in left_out[0] else x / np.float32(255)
        model = Model(data)
        given = dict(zip(data.graph.inputs, [x.astype(np.float32), *more], strict=True))
        _, values = model.run(given, taps=list(data.graph.outputs), check_range=False)
        assert len(data.graph.outputs) == sum(name.startswith("output") for name in golden.files)
        for place, name in enumerate(data.graph.outputs):
            expected = golden[f"output_{place}"]
            assert np.ptp(expected, axis=0).max() > 1e-3, "two pictures that differ"
            worst = np.abs(values[name] - expected).max()
            # Keras rounds each layer to float16 (by up to 2^-11 = 5e-4 of its value), and here none is: 8e-4 was seen.
            limit = 4e-3 if kind == "mixed_precision" else 1e-4
            assert worst <= limit * max(1.0, float(np.abs(expected).max())), f"{name}: {worst}"


RECIPES = {
    "teachable_machine": "teachable_machine", "transfer_guide": "tf2_bilinear", "preprocess_ops": "tf2_bilinear",
    "v3_head": "tf2_bilinear", "sequential_by_hand": "unit_range", "normalization_in_front": "raw_pixels",
    "flat_head": "keras_nearest",
}  # fmt: skip


@pytest.mark.parametrize("kind", RECIPES)
def test_recipes(files: Path, kind: str) -> None:
    data = convert_keras(files / f"tf_keras-{kind}.h5")
    assert data.info.preprocessing == RECIPES[kind]
    told = kind == "teachable_machine"
    assert (f"recipe assumed: {RECIPES[kind]}" in data.info.assumed) != told


def test_sizes(files: Path, tmp_path: Path) -> None:
    path = files / "keras-any_size.keras"
    assert convert_keras(path).graph.tensors["input_layer"].shape == (1, 224, 224, 3)
    assert any("224 x 224 is assumed" in text for text in convert_keras(path).info.assumed)
    assert convert_keras(path, "mobilenet_v2_0.35_128").graph.tensors["input_layer"].shape == (1, 128, 128, 3)
    with pytest.raises(ConversionError, match="not of"):
        convert_keras(files / "keras-flat_head.keras", resolution=(128, 128))
    assert nm.load(path, resolution=96).input.shape == (1, 96, 96, 3)
    nm.convert(path, tmp_path / "wide.h5", resolution=(64, 96))
    assert nm.load(tmp_path / "wide.h5", resolution=(64, 96)).input.shape == (1, 64, 96, 3)
    for wrong in (128, (0, 5), "x", (1, 2, 3)):
        with pytest.raises(ConversionError, match="resolution"):
            nm.load(tmp_path / "wide.h5", resolution=wrong)  # type: ignore[arg-type]
    nm.convert(files / "keras-two_outputs.keras", tmp_path / "two.h5")
    assert len(nm.load(tmp_path / "two.h5").graph.outputs) == 2


def test_samples(data: Path) -> None:
    """Files as people have them; what their own Keras computes was noted beside tf_keras 2.21."""
    machine = nm.load(data / "field" / "teachable_machine_keras_model.h5")
    assert (machine.info.preprocessing, machine.output.shape) == ("teachable_machine", (1, 2))
    wake = nm.load(data / "field" / "mlperf_vww_96.h5")
    assert (wake.output.name, wake.output.shape) == ("dense", (1, 2))


# -- configurations that are nobody's ----------------------------------------------------------------------------------


def sequential(*layers: dict[str, Any]) -> dict[str, Any]:
    first = {"class_name": "InputLayer", "config": {"name": "in", "batch_shape": [None, 8, 8, 3]}}
    return {"class_name": "Sequential", "config": {"name": "s", "layers": [first, *layers]}}


def whole(path: Path, config: dict[str, Any], weights: dict[str, np.ndarray]) -> Path:
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(config)
        root = file.create_group("model_weights")
        root.attrs["keras_version"] = b"2.4.0"
        names: dict[str, list[str]] = {}
        for name, array in weights.items():
            layer = name.split("/")[0]
            names.setdefault(layer, []).append(name)
            root.require_group(layer).create_dataset(name, data=array)
        root.attrs["layer_names"] = [name.encode() for name in names]
        for layer, listed in names.items():
            root[layer].attrs["weight_names"] = [name.encode() for name in listed]
    return path


DENSE = {"class_name": "Dense", "config": {"name": "d", "units": 2, "use_bias": False, "activation": "relu"}}
KERNEL = {"d/kernel:0": np.arange(6, dtype=np.float32).reshape(3, 2)}


def test_by_hand(tmp_path: Path) -> None:
    """Dense on every pixel of a Sequential, no Keras needed: [1, 2, 3] gives [0 + 4 + 12, 1 + 6 + 15]."""
    model = nm.load(whole(tmp_path / "m.h5", sequential(DENSE), KERNEL))
    x = np.broadcast_to(np.float32([1, 2, 3]), (1, 8, 8, 3))
    assert model.run(x, check_range=False)[0, 3, 4].tolist() == [16.0, 22.0]


def test_channels_first(tmp_path: Path) -> None:
    """The same layers and weights with channels first and last: the same values, and no transpose left inside."""
    rng = np.random.default_rng(0)
    values = {"c/kernel:0": rng.normal(size=(3, 3, 3, 4)), "c/bias:0": rng.normal(size=4),
              "d/depthwise_kernel:0": rng.normal(size=(3, 3, 4, 1)), "d/bias:0": rng.normal(size=4),
              "e/kernel:0": rng.normal(size=(4, 2)), "e/bias:0": rng.normal(size=2)}  # fmt: skip
    norm = {f"b/{name}:0": rng.uniform(0.5, 1.5, 4) for name in ("gamma", "beta", "moving_mean", "moving_variance")}
    weights = {name: array.astype(np.float32) for name, array in {**values, **norm}.items()}
    found = []
    for layout in ("channels_last", "channels_first"):
        front = layout == "channels_first"
        layers = [
            ("ZeroPadding2D", {"name": "z", "padding": 1}),
            ("Conv2D", {"name": "c", "filters": 4, "kernel_size": 3, "strides": 2, "activation": "linear"}),
            ("BatchNormalization", {"name": "b", "axis": 1 if front else 3}),
            ("Activation", {"name": "a", "activation": "relu"}),
            ("DepthwiseConv2D", {"name": "d", "kernel_size": 3, "padding": "same", "activation": "elu"}),
            ("GlobalAveragePooling2D", {"name": "g"}),
            ("Dense", {"name": "e", "units": 2}),
        ]  # fmt: skip
        image = {"data_format": layout}
        config = sequential(*({"class_name": kind, "config": {**more, **(image if more["name"] in "zcdg" else {})}}
                              for kind, more in layers))  # fmt: skip
        config["config"]["layers"][0]["config"]["batch_shape"] = [None, 3, 8, 8] if front else [None, 8, 8, 3]
        model = nm.load(whole(tmp_path / f"{layout}.h5", config, weights))
        x = np.random.default_rng(1).uniform(-1, 1, (2, 8, 8, 3)).astype(np.float32)
        found.append(model.run(x.transpose(0, 3, 1, 2).copy() if front else x))
        kinds = [node.op for node in model.graph.nodes]
        names = {node.name: node.op for node in model.graph.nodes}
        steps = [names.get(step.node.rpartition(" + ")[2]) for step in model.plan().steps]
        assert ("transpose" in kinds) == front
        assert steps.count("transpose") <= 2 * front, steps
    assert np.abs(found[0] - found[1]).max() < 1e-6


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ({"class_name": "ELU", "config": {"name": "e", "alpha": 0.5}}, [16.0, 22.0]),
        ({"class_name": "ReLU", "config": {"name": "r", "max_value": 6.0}}, [6.0, 6.0]),
        ({"class_name": "ReLU", "config": {"name": "r", "max_value": 20.0}}, [16.0, 20.0]),
        ("relu", [16.0, 22.0]),
        ({"class_name": "Softmax", "config": {"name": "s", "axis": -1}}, [1 / (1 + np.exp(6)), 1 / (1 + np.exp(-6))]),
        ({"class_name": "Activation", "config": {"name": "a", "activation": "sigmoid"}}, [1.0, 1.0]),
    ],
)
def test_a_layer_as_activation_keeps_its_settings(tmp_path: Path, function: Any, expected: list[float]) -> None:
    layer = {**DENSE, "config": {**DENSE["config"], "activation": function}}
    model = nm.load(whole(tmp_path / "m.h5", sequential(layer), KERNEL))
    x = np.broadcast_to(np.float32([1, 2, 3]), (1, 8, 8, 3))
    assert model.run(x, check_range=False)[0, 3, 4] == pytest.approx(expected, rel=1e-6)


def test_an_activation_along_another_axis_is_refused(tmp_path: Path) -> None:
    function = {"class_name": "Softmax", "config": {"name": "s", "axis": 1}}
    layer = {**DENSE, "config": {**DENSE["config"], "activation": function}}
    with pytest.raises(ConversionError, match=r"axis is 1, expected the last one.*TFLiteConverter"):
        convert_keras(whole(tmp_path / "m.h5", sequential(layer), KERNEL))


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).normal(size=shape).astype(np.float32)


def test_groups(tmp_path: Path) -> None:
    """A 1 x 1 convolution in two groups, a batch norm behind it: each half of the outputs sees half of the inputs."""
    conv = {"class_name": "Conv2D", "config": {"name": "c", "filters": 6, "kernel_size": 1, "groups": 2}}
    norm = {"class_name": "BatchNormalization", "config": {"name": "n", "epsilon": 1e-3, "scale": False}}
    first = {"class_name": "InputLayer", "config": {"name": "in", "batch_shape": [None, 3, 3, 4]}}
    config = {"class_name": "Sequential", "config": {"name": "s", "layers": [first, conv, norm]}}
    kernel, bias, mean, beta = random(1, 1, 2, 6), random(6), random(6) + 1, random(6) - 1
    weights = {"c/kernel:0": kernel, "c/bias:0": bias, "n/beta:0": beta, "n/moving_mean:0": mean,
               "n/moving_variance:0": np.full(6, 2, np.float32)}  # fmt: skip
    x = random(1, 3, 3, 4)
    sums = np.concatenate([x[..., :2] @ kernel[0, 0, :, :3], x[..., 2:] @ kernel[0, 0, :, 3:]], axis=-1) + bias
    found = nm.load(whole(tmp_path / "m.h5", config, weights)).run(x, check_range=False)
    assert np.allclose(found, (sums - mean) / np.sqrt(2.001) + beta, rtol=1e-5, atol=1e-5)
    conv["config"]["groups"] = 3  # type: ignore[index]
    with pytest.raises(ConversionError, match=r"3 groups of 4 channels.*TFLiteConverter"):
        convert_keras(whole(tmp_path / "m.h5", config, weights))


X = random(1, 8, 8, 3)
MOVES: dict[str, tuple[dict[str, Any], np.ndarray | str]] = {
    "Cropping2D": ({"cropping": [[1, 2], [0, 3]]}, X[:, 1:6, 0:5]),
    "CenterCrop": ({"height": 5, "width": 8}, X[:, 1:6]),
    "Permute": ({"dims": [3, 1, 2]}, X.transpose(0, 3, 1, 2)),
    "UpSampling2D": ({"size": [2, 3]}, X.repeat(2, axis=1).repeat(3, axis=2)),
    "Resizing": ({"height": 4, "width": 2, "interpolation": "nearest"}, X[:, 1::2, 2::4]),
    "Resizing, halves": ({"height": 4, "width": 4}, (X[:, ::2, ::2] + X[:, 1::2, ::2] + X[:, ::2, 1::2]
                                                    + X[:, 1::2, 1::2]) / 4),
    "Resizing, as it is": ({"height": 8, "width": 8, "interpolation": "lanczos5", "antialias": True}, X),
    "Resizing, lanczos": ({"height": 4, "width": 4, "interpolation": "lanczos3"}, "interpolation is 'lanczos3'"),
    "Resizing, cropped": ({"height": 4, "width": 2, "interpolation": "nearest", "crop_to_aspect_ratio": True},
                          X[:, 1::2, 3:6:2]),
    "Resizing, padded": ({"height": 4, "width": 2, "pad_to_aspect_ratio": True}, "pad_to_aspect_ratio has no node"),
    "CenterCrop, larger": ({"height": 9, "width": 8}, "only larger images"),
    "Cropping2D, all": ({"cropping": 4}, "nothing is left"),
    "Permute, channels": ({"dims": [0, 1, 2]}, "the order"),
    "UpSampling2D, huge": ({"size": 5000}, "sides"),
}  # fmt: skip


@pytest.mark.parametrize("name", MOVES)
def test_moves(tmp_path: Path, name: str) -> None:
    settings, expected = MOVES[name]
    layer = {"class_name": name.partition(",")[0], "config": {"name": "move", **settings}}
    relu = {"class_name": "ReLU", "config": {"name": "r"}}
    path = whole(tmp_path / "m.h5", sequential(layer, relu), {})
    if isinstance(expected, str):
        with pytest.raises(ConversionError, match=expected):
            convert_keras(path)
        return
    assert np.allclose(nm.load(path).run(X, check_range=False), np.maximum(expected, 0), atol=1e-6)


OPERATIONS: dict[str, tuple[dict[str, Any], np.ndarray | str]] = {
    "math.multiply": ({"y": [1.0, 2.0, 3.0]}, X * np.float32([1, 2, 3])),
    "__operators__.add": ({"y": [[[1.0]], [[2.0]], [[3.0]], [[0.0]], [[0.0]], [[0.0]], [[0.0]], [[0.0]]]},
                          X + np.float32([1, 2, 3, 0, 0, 0, 0, 0]).reshape(8, 1, 1)),
    "math.truediv": ({"y": [[[[0.5, 1.0, 2.0]]]]}, X / np.float32([0.5, 1, 2])),
    "math.divide": ({"y": [1.0, 0.0, 2.0]}, "a division by 0"),
    "math.subtract": ({"y": [1.0, 2.0]}, "dimensions are equal or 1"),
    "math.add": ({"y": np.zeros((2, 8, 8, 3)).tolist()}, "the same for every image"),
    "clip_by_value": ({"clip_value_min": -0.5, "clip_value_max": 0.25}, np.clip(X, -0.5, 0.25)),
    "clip_by_value, of tensors": ({"clip_value_min": "x", "clip_value_max": 0.25}, "expected two numbers"),
    "math.reduce_min": ({"axis": [3], "keepdims": True}, X.min(axis=3, keepdims=True)),
    "math.reduce_sum": ({"axis": -2}, X.sum(axis=2)),
    "math.reduce_max": ({"axis": [0, 1]}, "the batch is never reduced"),
    "math.reduce_mean": ({}, "the batch is never reduced"),
    "transpose": ({"perm": [1, 0, 2, 3]}, "the batch in front"),
    "expand_dims": ({"axis": 0}, "expected from 1"),
    "squeeze": ({"axis": [1]}, "axes of length 1"),
    "__operators__.getitem": ({"slice_spec": [{"class_name": "__ellipsis__"}, {"start": 2, "stop": None, "step": -2}]},
                              X[..., 2::-2]),
    "__operators__.getitem, number": ({"slice_spec": [{"start": None, "stop": None, "step": None}, -1]}, X[:, -1]),
    "__operators__.getitem, of images": ({"slice_spec": [0]}, "the batch must stay whole"),
    "__operators__.getitem, none": ({"slice_spec": [{}, {"start": 5, "stop": 5}]}, "that leave some"),
    "__operators__.getitem, step 0": ({"slice_spec": [{}, {"step": 0}]}, "that leave some"),
    "__operators__.getitem, too many": ({"slice_spec": [{}] * 5}, "5 slices"),
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations(tmp_path: Path, name: str) -> None:
    """Functions of TensorFlow between layers; a list of numbers is one array, not several operands."""
    settings, expected = OPERATIONS[name]
    layers = [
        {"class_name": "InputLayer", "name": "in", "inbound_nodes": [],
         "config": {"name": "in", "batch_input_shape": [None, 8, 8, 3]}},
        {"class_name": "TFOpLambda", "name": "op", "config": {"name": "op", "function": name.partition(",")[0]},
         "inbound_nodes": [["in", 0, 0, settings]]},
    ]  # fmt: skip
    config = {"name": "m", "layers": layers, "input_layers": [["in", 0, 0]], "output_layers": [["op", 0, 0]]}
    path = whole(tmp_path / "m.h5", {"class_name": "Functional", "config": config}, {})
    if isinstance(expected, str):
        with pytest.raises(ConversionError, match=expected):
            convert_keras(path)
        return
    found = nm.load(path).run(X, check_range=False)
    assert found.shape == expected.shape
    assert np.allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_a_resizing_layer_says_the_size(tmp_path: Path) -> None:
    resizing = {"class_name": "Resizing", "config": {"name": "z", "height": 6, "width": 7}}
    first = {"class_name": "InputLayer", "config": {"name": "in", "batch_shape": [None, None, None, 3]}}
    config = {"class_name": "Sequential", "config": {"name": "s", "layers": [first, resizing, DENSE]}}
    data = convert_keras(whole(tmp_path / "m.h5", config, KERNEL))
    assert data.graph.tensors[data.graph.inputs[0]].shape == (1, 6, 7, 3)
    assert [node.op for node in data.graph.nodes] == ["conv2d"]
    assert any("6 x 7 is assumed" in text for text in data.info.assumed)
    larger = convert_keras(whole(tmp_path / "m.h5", config, KERNEL), resolution=(9, 9))
    assert [node.op for node in larger.graph.nodes] == ["resize_bilinear", "conv2d"]


def test_a_cast_to_integers_is_refused(tmp_path: Path) -> None:
    cast = {"class_name": "TFOpLambda", "config": {"name": "c", "function": "cast", "dtype": "int32"}}
    with pytest.raises(ConversionError, match="a cast to 'int32'"):
        convert_keras(whole(tmp_path / "m.h5", sequential(cast), {}))
    cast["config"]["dtype"] = "float32"  # type: ignore[index]
    assert convert_keras(whole(tmp_path / "m.h5", sequential(cast, DENSE), KERNEL))


def test_old_sequential(tmp_path: Path) -> None:
    """Keras 2.2 wrote the layers as the configuration itself, and the input's shape into the first of them."""
    first = {**DENSE, "config": {**DENSE["config"], "batch_input_shape": [None, 8, 8, 3]}}
    model = nm.load(whole(tmp_path / "m.h5", {"class_name": "Sequential", "config": [first]}, KERNEL))
    assert model.run(np.zeros((1, 8, 8, 3), np.float32)).shape == (1, 8, 8, 2)


def test_old_spellings(tmp_path: Path) -> None:
    """Keras 2.2's numbers as arrays, TF 1.13's batch norm, `tf.nn.softmax` by its own name; worked by hand.

    [1, 2, 3] in a dense layer gives [16, 22]; batch norm 2 (x - 1) / sqrt(4), ReLU with cap 15.5: [15, 15.5].
    """
    wrapped = {"type": "ndarray", "value": 15.5}
    layers = [
        {**DENSE, "config": {**DENSE["config"], "activation": "linear"}},
        {"class_name": "BatchNormalizationV1", "config": {"name": "n", "axis": [3], "epsilon": 1e-9, "fused": True}},
        {"class_name": "RandomHeight", "config": {"name": "h", "factor": 0.1}},
        {"class_name": "ReLU", "config": {"name": "r", "max_value": wrapped, "threshold": {"type": "ndarray",
                                          "value": 0.0}, "negative_slope": {"type": "ndarray", "value": 0.0}}},
        {"class_name": "Activation", "config": {"name": "s", "activation": "softmax_v2"}},
    ]  # fmt: skip
    norm = {f"n/{name}:0": np.full(2, value, np.float32) for name, value in
            (("gamma", 2), ("beta", 0), ("moving_mean", 1), ("moving_variance", 4))}  # fmt: skip
    model = nm.load(whole(tmp_path / "m.h5", sequential(*layers), {**KERNEL, **norm}))
    x = np.broadcast_to(np.float32([1, 2, 3]), (1, 8, 8, 3))
    assert np.allclose(model.run(x, check_range=False)[0, 3, 4], [1 / (1 + np.exp(0.5)), 1 / (1 + np.exp(-0.5))])


def test_names_that_tensorflow_1_counted(tmp_path: Path) -> None:
    """A model inside another, made after one of the same names: its variables are `d_1/kernel`, its layer `d`."""
    inner = sequential(DENSE)
    inner["config"]["name"] = "inner"
    path = whole(tmp_path / "m.h5", sequential(inner), {"inner/d_1/kernel:0": KERNEL["d/kernel:0"]})
    with h5py.File(path, "r+") as file:
        group = file["model_weights/inner"]
        group.attrs["weight_names"] = [b"d_1/kernel:0"]
        group["d_1/kernel:0"] = np.asarray(group["inner/d_1/kernel:0"])
    x = np.broadcast_to(np.float32([1, 2, 3]), (1, 8, 8, 3))
    assert nm.load(path).run(x, check_range=False)[0, 3, 4].tolist() == [16.0, 22.0]


def test_operations_of_tensorflow_2_3(tmp_path: Path) -> None:
    """`preprocess_input` as TF 2.0 to 2.3 wrote it, and one minus something: 1 - (x / 2)."""
    layers = [{"class_name": "InputLayer", "config": {"name": "i", "batch_input_shape": [None, 2, 2, 3]},
               "inbound_nodes": []}]  # fmt: skip
    for name, op, constants, read in (("a", "RealDiv", {"1": 2.0}, "i"), ("b", "Sub", {"0": 1.0}, "a")):
        config = {"name": name, "node_def": {"name": name, "op": op}, "constants": constants}
        layers.append({"class_name": "TensorFlowOpLayer", "config": config, "inbound_nodes": [[[read, 0, 0, {}]]]})
    body = {"name": "m", "layers": layers, "input_layers": [["i", 0, 0]], "output_layers": [["b", 0, 0]]}
    model = nm.load(whole(tmp_path / "m.h5", {"class_name": "Functional", "config": body}, {}))
    x = np.arange(12, dtype=np.float32).reshape(1, 2, 2, 3)
    assert np.array_equal(model.run(x, check_range=False), 1 - x / 2)


def nested(depth: int) -> dict[str, Any]:
    """A model that calls a model twice, that calls a model twice, ...: 2^depth calls of nothing."""
    one = {"class_name": "InputLayer", "config": {"name": "i", "batch_shape": [None, 8, 8, 3]}, "inbound_nodes": []}
    layers, read = [one], ["i", 0, 0]
    if depth:
        for name in ("a", "b"):
            inner = nested(depth - 1)
            inner["config"]["name"] = name
            layers.append({**inner, "name": name, "inbound_nodes": [[read]]})
            read = [name, 1, 0]
    config = {"name": "m", "layers": layers, "input_layers": [["i", 0, 0]], "output_layers": [read]}
    return {"class_name": "Functional", "config": config}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (nested(14), "calls of layers"),
        ({"class_name": "Functional", "config": {"name": "m", "layers": [], "input_layers": [], "output_layers": []}},
         "no output"),
        (sequential({"class_name": "Lambda", "config": {"name": "l", "function": ["x"]}}), "never run"),
        (sequential({"class_name": "Swin", "config": {"name": "l"}}), "a class that isn't known"),
        (sequential({"class_name": "Conv2D", "config": {"name": "c", "filters": 10**9, "kernel_size": [3, 3]}}),
         "filters"),
        (sequential({"class_name": "Conv2D", "config": {"name": "c", "filters": 10**6, "kernel_size": [9999, 9999]}}),
         "missing: c/kernel"),
        (sequential({"class_name": "Reshape", "config": {"name": "r", "target_shape": [-1, -1]}}), "don't fit"),
        (sequential({"class_name": "ReLU", "config": {"name": "r", "max_value": float("nan")}}), "max_value"),
        (sequential({"class_name": "Rescaling", "config": {"name": "r", "scale": 1e300, "offset": 0}}), "float32"),
    ],
)  # fmt: skip
def test_strange_configurations(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConversionError, match=message):
        convert_keras(whole(tmp_path / "m.h5", config, KERNEL))


def test_layers_in_a_circle(tmp_path: Path) -> None:
    config = nested(0)
    for name, read in (("x", "y"), ("y", "x")):
        layer = {"class_name": "Dropout", "config": {"name": name}, "inbound_nodes": [[[read, 0, 0, {}]]]}
        config["config"]["layers"].append(layer)
    config["config"]["output_layers"] = [["y", 0, 0]]
    with pytest.raises(ConversionError, match="in a circle"):
        convert_keras(whole(tmp_path / "m.h5", config, KERNEL))


def test_variables_are_listed(tmp_path: Path) -> None:
    weights = {"d/kernel:0": np.zeros((4, 2), np.float32), "other/kernel:0": np.zeros(3, np.float32)}
    with pytest.raises(ConversionError, match=r"misshapen: d/kernel is \(4, 2\), expected \(3, 2\).*left over: other"):
        convert_keras(whole(tmp_path / "m.h5", sequential(DENSE), weights))


def test_helpers() -> None:
    names = ("DepthwiseConv2D", "SeparableConv2D", "ReLU", "Conv2D", "GlobalAveragePooling2D", "PReLU", "Dense")
    snakes = ("depthwise_conv2d", "separable_conv2d", "re_lu", "conv2d", "global_average_pooling2d", "p_re_lu", "dense")
    assert tuple(map(snake_case, names)) == snakes
    assert not is_teachable_machine(sequential(DENSE))
    assert [call.path for call in topology(sequential(DENSE)).calls] == [("d",)]
    assert zipfile.is_zipfile(TOOL) is False
