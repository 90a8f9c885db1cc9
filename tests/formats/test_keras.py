"""The Keras converter: values against Keras itself, names rather than order, and files that mean harm."""

from __future__ import annotations

import importlib.util
import io
import json
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import npmobilenet as nm
from npmobilenet.errors import ConversionError, ModelNotFound
from npmobilenet.formats.keras.layers import Variant, block_widths, correct_pad, infer_alpha, keras_graph
from npmobilenet.formats.keras.model import convert_keras, variables_of
from npmobilenet.formats.keras.names import canonical, family_of_counts, family_of_names, layer_names
from npmobilenet.formats.keras.store import open_store
from npmobilenet.model import Model

TOOL = Path(__file__).parents[2] / "tools" / "make_tf_goldens.py"


def _tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_tf_goldens", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


CASES = _tool().CASES

# ---------------------------------------------------------------------------------------------------------------------
# Against Keras


@pytest.fixture(scope="module")
def goldens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every case of tools/make_tf_goldens.py, made by a process of its own (TensorFlow's warnings are not ours)."""
    if not (importlib.util.find_spec("keras") and importlib.util.find_spec("tensorflow")):
        pytest.skip("Keras isn't installed: pip install 'npmobilenet[tf]'")
    folder = tmp_path_factory.mktemp("keras")
    halves = [list(CASES)[::2], list(CASES)[1::2]]  # Keras builds models on one core
    command = [sys.executable, str(TOOL), str(folder), "--cases"]
    jobs = [
        subprocess.Popen([*command, *half], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for half in halves
    ]
    for job in jobs:
        _, errors = job.communicate()
        assert job.returncode == 0, errors[-4000:]
    return folder


def model_name(case: str) -> str:
    """The canonical name of a case, with the size that a weights-only file doesn't tell."""
    function, args = CASES[case].function, CASES[case].args
    family = {"MobileNet": "v1", "MobileNetV2": "v2", "MobileNetV3Large": "v3_large", "MobileNetV3Small": "v3_small"}
    height, width = CASES[case].size if any(CASES[case].size) else (97, 97)
    minimalistic = "_minimalistic" if args.get("minimalistic") else ""
    size = height if height == width else f"{height}x{width}"
    return f"mobilenet_{family[function]}{minimalistic}_{args.get('alpha', 1.0):.4f}_{size}"


def activated(logits: np.ndarray, function: str | None) -> np.ndarray:
    """What Keras puts after its classifier, in float64."""
    logits = logits.astype(np.float64)
    if function == "sigmoid":
        return 1 / (1 + np.exp(-logits))
    exp = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return logits if function is None else exp / exp.sum(axis=-1, keepdims=True)


def assert_close(found: np.ndarray, expected: np.ndarray, what: str) -> None:
    """Design 7's tolerance for float32 results of another implementation."""
    assert found.shape == expected.shape, what
    worst = np.abs(found - expected).max()
    assert worst <= 1e-4 * max(1.0, float(np.abs(expected).max())), f"{what}: {worst}"


@pytest.mark.equal(
    "whole model", "fast", "Keras 3; outputs and blocks, three file formats", "1e-4 * max(1, max|expected|)"
)
@pytest.mark.parametrize(("case", "suffix"), [(name, suffix) for name in CASES for suffix in CASES[name].formats])
def test_values_equal_keras(goldens: Path, case: str, suffix: str) -> None:
    weights_only = suffix == ".weights.h5"
    named = weights_only or "any_size" in case
    data = convert_keras(goldens / case / f"model{suffix}", model_name(case) if named else None)
    assert float(data.info.provenance["alpha"]) == pytest.approx(CASES[case].args.get("alpha", 1.0), abs=1e-3)
    with np.load(goldens / case / "golden.npz") as golden:
        taps = [key.removeprefix("endpoint:") for key in golden.files if key.startswith("endpoint:")]
        assert len(taps) >= 11
        top = CASES[case].args.get("include_top", True)
        output, values = Model(data).run(golden["input"], taps=[*taps, *(["Logits"] if top else [])])
        for tap in taps:
            assert_close(values[tap], golden[f"endpoint:{tap}"], f"{case}{suffix} {tap}")
        if weights_only and top:
            output = activated(values["Logits"], CASES[case].args.get("classifier_activation", "softmax"))
        assert_close(output, golden["output"], f"{case}{suffix} output")


def test_goldens_tell_layers_apart(goldens: Path) -> None:
    """The comparison above can fail: with two batch norms of one shape exchanged, it does."""
    path = goldens / "v2_0.35_96" / "model.keras"
    data = convert_keras(path)
    with np.load(goldens / "v2_0.35_96" / "golden.npz") as golden:
        tensors = dict(data.tensors)
        a, b = "MobilenetV2/expanded_conv_7/project/biases", "MobilenetV2/expanded_conv_8/project/biases"
        tensors[a], tensors[b] = tensors[b], tensors[a]
        output = Model(nm.modeldata.ModelData(data.graph, tensors, data.info)).run(golden["input"])
        assert np.abs(output - golden["output"]).max() > 1e-3


def test_load_and_convert_take_keras_files(goldens: Path, tmp_path: Path) -> None:
    source = goldens / "v3_small_minimalistic_1.0_96" / "model.keras"
    with np.load(source.parent / "golden.npz") as golden:
        loaded = nm.load(source)
        assert loaded.info.labels == "imagenet"
        assert loaded.info.label_offset == 0
        assert "[-1, 1]" in loaded.info.provenance["notes"]
        nm.convert(source, tmp_path / "model.h5")
        again = nm.load(tmp_path / "model.h5")
        assert np.array_equal(loaded.run(golden["input"]), again.run(golden["input"]))
        assert_close(again.run(golden["input"]), golden["output"], "after a round trip")


# ---------------------------------------------------------------------------------------------------------------------
# Configurations that are not the model they seem to be


def edited(goldens: Path, tmp_path: Path, edit: Callable[[Any], object], case: str = "v3_small_0.6_65x96") -> Path:
    """A copy of a golden `.keras` file with its configuration changed in place."""
    path = tmp_path / "edited.keras"
    with zipfile.ZipFile(goldens / case / "model.keras") as source, zipfile.ZipFile(path, "w") as target:
        config = json.loads(source.read("config.json"))
        edit(config)
        target.writestr("config.json", json.dumps(config))
        target.writestr("metadata.json", source.read("metadata.json"))
        target.writestr("model.weights.h5", source.read("model.weights.h5"))
    return path


def find(config: Any, name: str) -> Any:
    return next(layer for layer in config["config"]["layers"] if layer["config"]["name"] == name)


def setting(name: str, key: str, value: object) -> Callable[[Any], object]:
    return lambda config: find(config, name)["config"].update({key: value})


def insert_relu(config: Any) -> None:
    """A second ReLU behind the first block's, read by the layer after it."""
    layers = config["config"]["layers"]
    place = next(i for i, layer in enumerate(layers) if layer["config"]["name"] == "expanded_conv_project")
    extra = json.loads(json.dumps(layers[place - 1]))
    extra.update(class_name="LeakyReLU", name="surprise", config={"name": "surprise"})
    layers.insert(place, extra)


def rewire(config: Any) -> None:
    """The last block adds another block's output than its own input."""
    text = json.dumps(find(config, "expanded_conv_10_add")["inbound_nodes"])
    find(config, "expanded_conv_10_add")["inbound_nodes"] = json.loads(
        text.replace("expanded_conv_9_add", "expanded_conv_8_project_bn")
    )


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (insert_relu, "'surprise' reads 2 tensors"),
        (
            setting("expanded_conv_1_expand", "activation", "celu"),
            "'expanded_conv_1_expand'.*'celu'.*TFLiteConverter",
        ),
        (setting("expanded_conv_1_expand", "strides", [0, 2]), "'expanded_conv_1_expand'.*strides"),
        (setting("expanded_conv_1_depthwise", "depth_multiplier", 2), "expanded_conv_1_depthwise/depthwise_kernel is"),
        (setting("expanded_conv_1_depthwise", "padding", "causal"), "padding is 'causal'"),
        (setting("conv_bn", "scale", False), "conv_bn.*variance"),
        (setting("conv_bn", "epsilon", "a lot"), "settings that Keras doesn't write"),
        (setting("conv_bn", "axis", 1), "'conv_bn'.*over the last axis"),
        (setting("conv", "data_format", "channels_first"), "'conv'.*channels first"),
        (setting("predictions", "activation", "celu"), "'predictions'.*'celu'"),
        (setting("expanded_conv_depthwise_pad", "padding", [[0, -9], [0, 1]]), "expected \\(\\(top, bottom"),
        (setting("expanded_conv_depthwise_pad", "padding", [[0, 10**9], [0, 1]]), "expected \\(\\(top, bottom"),
        (lambda c: c["config"]["layers"].pop(), "'predictions', which isn't in the model"),
        (lambda c: c["config"].pop("layers"), "not of the form"),
        (lambda c: c["config"].update(layers="none"), "not of the form"),
        (lambda c: c.update(class_name="MyModel"), "'MyModel', a class of its maker's own"),
        (lambda c: find(c, "conv")["inbound_nodes"].append([]), "'conv' reads 0 tensors"),
        (lambda c: find(c, "conv").update(module="evil.layers"), "'conv'.*its maker's own code is never run"),
        (lambda c: find(c, "conv").update(class_name="Own>Conv2D"), "'conv'.*its maker's own code is never run"),
        (lambda c: find(c, "input_layer")["config"].update(batch_shape=[None, 10**9, 65, 3]), "sides from 1 to"),
        (lambda c: rename(c, "conv_1", "conv_3"), "calls layer 'conv_3' otherwise: 'conv_1'"),
    ],
)
def test_other_models_are_refused(goldens: Path, tmp_path: Path, edit: Callable[[Any], object], message: str) -> None:
    path = edited(goldens, tmp_path, lambda config: (_stable_names(config), edit(config)))
    with pytest.raises(ConversionError, match=message):
        convert_keras(path)


@pytest.mark.parametrize(
    "edit",
    [
        rewire,
        setting("expanded_conv_1_expand", "activation", "relu"),
        setting("predictions", "activation", "sigmoid"),
        lambda c: c["config"].update(output_layers=["conv_bn", 0, 0]),
    ],
)
def test_what_the_configuration_says_is_what_is_computed(
    goldens: Path, tmp_path: Path, edit: Callable[[Any], object]
) -> None:
    """A model that is almost one of keras.applications is taken as it is, not as what it resembles."""
    case = "v3_small_0.6_65x96"
    path = edited(goldens, tmp_path, edit, case)
    with np.load(goldens / case / "golden.npz") as golden:
        changed = Model(convert_keras(path)).run(golden["input"])
        if changed.shape == golden["output"].shape:
            assert np.abs(changed - golden["output"]).max() > 1e-3


def rename(config: Any, old: str, new: str) -> None:
    config["config"] = json.loads(json.dumps(config["config"]).replace(f'"{old}"', f'"{new}"'))


def _stable_names(config: Any) -> None:
    """Keras numbers input layers through a whole process; give this one a fixed name."""
    first = config["config"]["layers"][0]["config"]["name"]
    text = json.dumps(config["config"]).replace(f'"{first}"', '"input_layer"')
    config["config"] = json.loads(text)


def test_epsilon_of_the_configuration_counts(goldens: Path, tmp_path: Path) -> None:
    path = edited(goldens, tmp_path, setting("conv_bn", "epsilon", 0.5))
    a, b = convert_keras(path), convert_keras(goldens / "v3_small_0.6_65x96" / "model.keras")
    changed = [name for name in a.tensors if not np.array_equal(a.tensors[name], b.tensors[name])]
    assert changed == ["MobilenetV3/Conv/weights", "MobilenetV3/Conv/biases"]


@given(st.data())
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_configuration_gives_a_model_or_a_conversion_error(
    goldens: Path, tmp_path: Path, data: st.DataObject
) -> None:
    def edit(config: Any) -> None:
        holder: Any = config["config"]["layers"]
        for _ in range(data.draw(st.integers(1, 5))):
            keys = sorted(holder) if isinstance(holder, dict) else list(range(len(holder)))
            key = data.draw(st.sampled_from(keys))
            if not isinstance(holder[key], (dict, list)) or not holder[key]:
                break
            holder, last = holder[key], (holder, key)
            if data.draw(st.integers(0, 3)) == 0:
                holder, key = last
                break
        else:
            key = data.draw(st.sampled_from(sorted(holder) if isinstance(holder, dict) else list(range(len(holder)))))
        holder[key] = data.draw(st.sampled_from([None, -1, 0, 1e400, 3.5, "x", [], [1], {}, {"config": []}, True]))

    with_model(edited(goldens, tmp_path, edit, "v1_0.3333_96x128"))


def with_model(path: Path) -> bool:
    """Whether the file converts; anything but a model or a `ConversionError` fails the test."""
    try:
        convert_keras(path)
    except ConversionError:
        return False
    return True


# ---------------------------------------------------------------------------------------------------------------------
# Files made by hand: no Keras needed

SMALL = Variant("v1", 0.125, classes=3)
Variables = dict[tuple[str, str], np.ndarray]


def small_variables(variant: Variant = SMALL) -> Variables:
    rng = np.random.default_rng(5)
    shapes = variables_of(keras_graph(variant, "small"), variant.family)
    values = {key: rng.normal(0, 0.5, shape).astype(np.float32) for key, shape in shapes.items()}
    return {k: np.abs(v) + 0.1 if k[1] == "moving_variance" else v for k, v in values.items()}


def grouped(variables: Variables) -> dict[str, dict[str, np.ndarray]]:
    layers: dict[str, dict[str, np.ndarray]] = {}
    for (layer, name), values in variables.items():
        layers.setdefault(layer, {})[name] = values
    return layers


def write_legacy(path: Path, variables: Variables, backwards: bool = False, text: str = "{layer}/{name}:0") -> Path:
    """As `save_weights` of Keras 2 does; `backwards` lists layers and variables in the opposite order."""
    step = -1 if backwards else 1
    with h5py.File(path, "w") as file:
        layers = grouped(variables)
        file.attrs["layer_names"] = [name.encode() for name in [*layers, "some_relu"][::step]]
        file.create_group("some_relu").attrs["weight_names"] = []
        for layer, values in layers.items():
            group = file.create_group(layer)
            names = {name: text.format(layer=layer, name=name) for name in values}
            group.attrs["weight_names"] = [name.encode() for name in list(names.values())[::step]]
            for name, array in values.items():
                group[names[name]] = array
    return path


CLASSES = {"_bn": "batch_normalization", "conv_dw": "depthwise_conv2d", "conv": "conv2d"}
NUMBERS = {"kernel": "0", "bias": "1", "gamma": "0", "beta": "1", "moving_mean": "2", "moving_variance": "3"}


def write_numbered(path: Path | io.BytesIO, variables: Variables, names: bool, backwards: bool = False) -> None:
    """As Keras 3's `save_weights` does; `names`: from 3.5 on. `backwards` counts the layers from the last one."""
    counts: dict[str, int] = {}
    layers = list(grouped(variables).items())
    with h5py.File(path, "w") as file:
        for layer, values in layers[:: -1 if backwards else 1]:
            stem = next(kind for mark, kind in CLASSES.items() if mark in layer)
            count = counts.get(stem, 0)
            counts[stem] = count + 1
            group = file.create_group(f"layers/{stem}_{count}/vars" if count else f"layers/{stem}/vars")
            if names:
                group.attrs["name"] = layer
            for name, array in values.items():
                group[NUMBERS[name]] = array


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray]:
    """The small model, folded here by the definition, in float64."""
    variables = {key: value.astype(np.float64) for key, value in small_variables().items()}
    graph = keras_graph(SMALL, "small")
    tensors: dict[str, np.ndarray] = {}
    for node in graph.nodes:
        if not node.scope:
            continue
        conv, norm = layer_names("v1", node.scope)
        kernel = variables[conv, "kernel"].reshape(graph.tensors[node.inputs[1]].shape)
        bias = variables.get((conv, "bias"))
        if bias is None:
            scale = variables[norm, "gamma"] / np.sqrt(variables[norm, "moving_variance"] + 0.001)
            kernel, bias = kernel * scale, variables[norm, "beta"] - variables[norm, "moving_mean"] * scale
        tensors[node.inputs[1]], tensors[node.inputs[2]] = kernel, bias
    return tensors


def assert_same(path: Path, expected: dict[str, np.ndarray]) -> None:
    data = convert_keras(path)
    assert set(data.tensors) == set(expected)
    for name, values in expected.items():
        assert data.tensors[name].dtype == np.float32
        np.testing.assert_allclose(data.tensors[name], values, rtol=1e-6, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("text", ["{layer}/{name}:0", "{layer}/{name}", "{name}"])
def test_legacy_variables_go_by_name(
    tmp_path: Path, expected: dict[str, np.ndarray], backwards: bool, text: str
) -> None:
    assert_same(write_legacy(tmp_path / "w.h5", small_variables(), backwards, text), expected)


@pytest.mark.parametrize(("names", "backwards"), [(False, False), (True, False), (True, True)])
def test_numbered_layers_go_by_name(
    tmp_path: Path, expected: dict[str, np.ndarray], names: bool, backwards: bool
) -> None:
    write_numbered(tmp_path / "m.weights.h5", small_variables(), names, backwards)
    assert_same(tmp_path / "m.weights.h5", expected)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ">f4"])
def test_other_float_types_are_read(tmp_path: Path, dtype: Any) -> None:
    variables = {key: value.astype(dtype) for key, value in small_variables().items()}
    data = convert_keras(write_legacy(tmp_path / "w.h5", variables))
    bias = variables["conv_preds", "bias"].astype(np.float32)
    assert np.array_equal(data.tensors["MobilenetV1/Logits/Conv2d_1c_1x1/biases"], bias)


def test_keras_2_names_of_v3(tmp_path: Path) -> None:
    variant = Variant("v3_small_minimalistic", 0.35, classes=2)
    variables = small_variables(variant)
    assert "expanded_conv_3_depthwise_bn" in grouped(variables)

    def old(layer: str) -> str:
        base, norm = (layer.removesuffix("_bn"), "/BatchNorm") if layer.endswith("_bn") else (layer, "")
        for part in ("expand", "depthwise", "project"):
            base = base.replace(f"_{part}", f"/{part}") if base.endswith(f"_{part}") else base
        return (base[0].upper() + base[1:] if base[0] in "cl" else base) + norm

    renamed = {(old(layer), name): values for (layer, name), values in variables.items()}
    assert {"Conv/BatchNorm", "expanded_conv_3/depthwise", "Conv_2", "Logits"} <= set(grouped(renamed))
    a = convert_keras(write_legacy(tmp_path / "new.h5", variables))
    b = convert_keras(write_legacy(tmp_path / "old.h5", renamed))
    assert all(np.array_equal(a.tensors[name], b.tensors[name]) for name in a.tensors)


def test_one_error_lists_all_variables(tmp_path: Path) -> None:
    variables = small_variables()
    del variables["conv_dw_3_bn", "gamma"], variables["conv_pw_5", "kernel"]
    variables["conv_pw_6", "bias"] = np.zeros(64, np.float32)
    variables["dense", "kernel"] = np.zeros((2, 3), np.float32)
    variables["conv_dw_7", "kernel"] = np.zeros((5, 5, 64, 1), np.float32)
    with pytest.raises(ConversionError) as error:
        convert_keras(write_legacy(tmp_path / "w.h5", variables))
    for line in (
        "missing: conv_dw_3_bn/gamma (16,)", "missing: conv_pw_5/kernel (1, 1, 32, 32)",
        "left over: conv_pw_6/bias (64,)", "left over: dense/kernel (2, 3)",
        "misshapen: conv_dw_7/kernel is (5, 5, 64, 1), expected (3, 3, 64, 1)", "(5 variables)",
    ):  # fmt: skip
        assert line in str(error.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full(3, np.nan, np.float32), "conv_preds/bias has NaN"),
        (np.zeros(3, np.int32), "dtype int32"),
        (np.zeros(3, "S4"), "dtype |S4"),
    ],
)
def test_unfit_values_are_refused(tmp_path: Path, values: np.ndarray, message: str) -> None:
    variables = small_variables() | {("conv_preds", "bias"): values}
    with pytest.raises(ConversionError, match=message):
        convert_keras(write_legacy(tmp_path / "w.h5", variables))


def test_negative_variance_is_refused(tmp_path: Path) -> None:
    variables = small_variables()
    variables["conv_pw_2_bn", "moving_variance"] -= 10
    with pytest.raises(ConversionError, match=r"'conv_pw_2_bn'.*variance"):
        convert_keras(write_legacy(tmp_path / "w.h5", variables))


def test_model_name_must_fit(tmp_path: Path) -> None:
    path = write_legacy(tmp_path / "w.h5", small_variables())
    data = convert_keras(path, "mobilenet_v1_0.125_96x128")
    assert data.graph.tensors["input"].shape == (1, 96, 128, 3)
    assert convert_keras(path).graph.tensors["input"].shape == (1, 224, 224, 3)
    assert "224 x 224 is assumed" in convert_keras(path).info.provenance["notes"]
    for wrong, message in (
        ("mobilenet_v2_1.0_224", "holds a float mobilenet_v1"),
        ("MobileNet", "widths of alpha 0.125"),
    ):
        with pytest.raises(ConversionError, match=message):
            convert_keras(path, wrong)
    with pytest.raises(ModelNotFound):
        convert_keras(path, "mobilenet_v9")


def test_assumptions_are_named(tmp_path: Path) -> None:
    """A weights-only file tells neither its head's function, nor the input's size, nor how pictures are prepared."""
    path = write_legacy(tmp_path / "w.h5", small_variables())
    recipe, size, head = (
        "recipe assumed: keras_nearest",
        "224 x 224 is assumed",
        "softmax after the classifier is assumed",
    )
    for found in (convert_keras(path).info.assumed, nm.convert(path, tmp_path / "m.h5").info.assumed,
                  nm.load(tmp_path / "m.h5").info.assumed):  # fmt: skip
        assert [any(text in sentence for sentence in found) for text in (recipe, size, head)] == [True] * 3
    named = convert_keras(path, "mobilenet_v1_0.125_96").info.assumed
    assert not any(size in sentence for sentence in named)


@pytest.mark.parametrize("family", ["v1", "v2"])
def test_a_weights_only_file_of_one_class_is_refused(tmp_path: Path, family: str) -> None:
    """Its softmax would be 1 for every picture, whatever the sigmoid of the real model says."""
    path = write_legacy(tmp_path / "w.h5", small_variables(replace(SMALL, family=family, alpha=1.0, classes=1)))
    with pytest.raises(
        ConversionError, match=r"weights only, .*one output: .*always give 1.*model\.save\('model\.keras'"
    ):
        convert_keras(path)


# ---------------------------------------------------------------------------------------------------------------------
# Hostile and damaged files


def bias_of(file: h5py.File) -> tuple[h5py.Group, str]:
    return file["conv_preds/conv_preds"], "bias:0"


def soft_link(file: h5py.File, folder: Path) -> None:
    group, name = bias_of(file)
    del group[name]
    group[name] = h5py.SoftLink("/conv1_bn/conv1_bn/gamma:0")


def external_link(file: h5py.File, folder: Path) -> None:
    write_legacy(folder / "other.h5", small_variables())
    del file["conv_preds"]
    file["conv_preds"] = h5py.ExternalLink("other.h5", "/conv_preds")


def external_data(file: h5py.File, folder: Path) -> None:
    (folder / "secret").write_bytes(bytes(12))
    group, name = bias_of(file)
    del group[name]
    group.create_dataset(name, (3,), "f4", external=[(str(folder / "secret"), 0, 12)])


def virtual_data(file: h5py.File, folder: Path) -> None:
    layout = h5py.VirtualLayout((3,), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "/x", (3,))
    group, name = bias_of(file)
    del group[name]
    group.create_virtual_dataset(name, layout)


def compressed(file: h5py.File, folder: Path) -> None:
    group, name = bias_of(file)
    del group[name]
    group.create_dataset(name, (3,), "f4", chunks=(3,), compression="gzip")


def unallocated(file: h5py.File, folder: Path) -> None:
    group, name = bias_of(file)
    del group[name]
    group.create_dataset(name, (3,), "f4")


def huge(file: h5py.File, folder: Path) -> None:
    """16 GiB are declared, nothing is stored."""
    group = file["conv_preds/conv_preds"]
    del group["kernel:0"], group["bias:0"]
    group.create_dataset("kernel:0", (1, 1, 128, 1 << 20), "f8", chunks=(1, 1, 128, 1024))
    group.create_dataset("bias:0", (1 << 20,), "f8")


def group_for_dataset(file: h5py.File, folder: Path) -> None:
    group, name = bias_of(file)
    del group[name]
    group.create_group(name)


def missing_group(file: h5py.File, folder: Path) -> None:
    del file["conv_preds"]


def nested(file: h5py.File, folder: Path) -> None:
    file["conv1"].attrs["weight_names"] = [b"a/kernel:0", b"b/kernel:0"]
    for name in ("a", "b"):
        file[f"conv1/{name}/kernel:0"] = np.zeros(1, np.float32)


def many_layers(file: h5py.File, folder: Path) -> None:
    file.attrs.create("layer_names", np.zeros(20_000, "S1"))


def strange_path(file: h5py.File, folder: Path) -> None:
    file["conv1"].attrs["weight_names"] = [b"../conv_preds/conv_preds/kernel:0"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (soft_link, "soft or external link"),
        (external_link, "soft or external link"),
        (external_data, "stored externally"),
        (virtual_data, "stored externally, virtually"),
        (compressed, "in chunks"),
        (unallocated, "declares 12 bytes, of which 0"),
        (huge, "in chunks"),
        (group_for_dataset, "not a dataset"),
        (missing_group, "'conv_preds' is missing"),
        (nested, r"model inside the model.*save the whole model"),
        (many_layers, "20000 entries"),
        (strange_path, "is missing"),
    ],
)
def test_hostile_hdf5_is_refused(tmp_path: Path, spoil: Callable[[h5py.File, Path], None], message: str) -> None:
    path = write_legacy(tmp_path / "w.h5", small_variables())
    with h5py.File(path, "r+") as file:
        spoil(file, tmp_path)
    with pytest.raises(ConversionError, match=message):
        convert_keras(path)


def test_nothing_outside_is_opened(tmp_path: Path) -> None:
    """`name in group` would follow an external link; a pipe at its end would block for ever."""
    path = tmp_path / "w.h5"
    with h5py.File(path, "w") as file:
        file["layers"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/")
    with pytest.raises(ConversionError, match="soft or external link"):
        convert_keras(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "neither HDF5"),
        (b"a text file", "neither HDF5"),
        (b"\x89HDF\r\n\x1a\n" + bytes(200), "damaged"),
        (b"PK\x03\x04" + bytes(200), "damaged"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "model.keras"
    path.write_bytes(content)
    with pytest.raises(ConversionError, match=message):
        convert_keras(path)
    with pytest.raises(ConversionError, match="not a file"):
        convert_keras(tmp_path / "nothing.h5")
    with pytest.raises(ConversionError, match="not a file"):
        convert_keras(tmp_path)


def test_unknown_models_are_refused(tmp_path: Path) -> None:
    path = write_legacy(tmp_path / "w.h5", {("dense_1", "kernel"): np.zeros((2, 2), np.float32)})
    with pytest.raises(ConversionError, match="first layer is 'dense_1'; supported are"):
        convert_keras(path)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["weights"] = np.zeros(3)
    with pytest.raises(ConversionError, match=r"not a Keras file.*'weights'"):
        convert_keras(tmp_path / "x.h5")
    with pytest.raises(ConversionError, match="5 depthwise convolutions"):
        family_of_counts({"depthwise_conv2d": 5, "conv2d": 3})


def archive(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name.replace("_json", ".json").replace("_h5", ".weights.h5"), content)
    return path


def test_damaged_archives_are_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    write_numbered(buffer, small_variables(), names=True)
    weights, path = buffer.getvalue(), tmp_path / "model.keras"
    for members, message in (
        ({"model_h5": weights}, "0 members called 'config.json'"),
        ({"config_json": b"{}"}, "0 members called 'model.weights.h5'"),
        ({"config_json": b"[" * 100_000, "model_h5": weights}, "not JSON"),
        ({"config_json": b"[]", "model_h5": weights}, "a list, expected an object"),
        ({"config_json": b"{}", "model_h5": weights}, "not of the form"),
        ({"config_json": b"{}", "model_h5": weights[:5000]}, "damaged"),
    ):
        with pytest.raises(ConversionError, match=message):
            convert_keras(archive(path, **members))


def test_declared_sizes_of_archive_members_are_limited(tmp_path: Path) -> None:
    path = archive(tmp_path / "model.keras", config_json=b"{}", model_h5=b"")
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"config.json") - 46  # the central directory's entry; its sizes stand at 20 and 24
    struct.pack_into("<II", content, entry + 20, 0xFFFFFFF0, 0xFFFFFFF0)
    path.write_bytes(content)
    with pytest.raises(ConversionError, match=r"'config.json' in the archive has \d+ bytes"):
        convert_keras(path)


# ---------------------------------------------------------------------------------------------------------------------
# The rules, on numbers worked by hand


def test_correct_pad() -> None:
    assert [correct_pad(size, 3) for size in (224, 97)] == [(0, 1), (1, 1)]
    assert [correct_pad(size, 5) for size in (112, 7)] == [(1, 2), (2, 2)]


def test_v1_pads_odd_sizes_in_its_own_way() -> None:
    graph = keras_graph(Variant("v1", 1.0, resolution=(97, 97)), "v1")
    # 97 -> 49 (SAME), then (49 + 1 - 3) // 2 + 1 = 24, where SAME would give 25
    assert graph.tensors["Conv2d_1_pointwise"].shape[1:3] == (49, 49)
    assert graph.tensors["Conv2d_2_depthwise"].shape[1:3] == (24, 24)


def test_widths() -> None:
    assert block_widths("v1", 1 / 3)["conv_pw_13"] == 341  # int(1024 / 3)
    assert block_widths("v2", 1.12)["expanded_conv_project"] == 16  # int(17.92) = 17 rounds to 16; 17.92 would to 24
    assert block_widths("v2", 0.35)["Conv_1"] == 1280
    assert block_widths("v2", 1.4)["Conv_1"] == 1792
    small = block_widths("v3_small", 0.75)
    assert (small["conv"], small["conv_1"], small["conv_2"]) == (16, 432, 1024)  # 96 * 0.75 = 72, times 6


@pytest.mark.parametrize("family", ["v1", "v2", "v3_large", "v3_small_minimalistic"])
@pytest.mark.parametrize("alpha", [1.0, 0.35, 1.4, 0.6, 1 / 3, 1.12, 2.0])
def test_alpha_follows_from_widths(family: str, alpha: float) -> None:
    widths = block_widths(family, alpha)
    assert block_widths(family, infer_alpha(family, widths)) == widths
    assert infer_alpha(family, widths, first=alpha) == alpha


def test_families_and_names() -> None:
    assert family_of_names(["conv1", "conv_dw_1"]) == "v1"
    assert family_of_names(["expanded_conv_depthwise", "block_1_expand"]) == "v2"
    assert family_of_names(["expanded_conv_11_expand"]) == "v3_large_minimalistic"
    assert family_of_names(["expanded_conv_10_expand", "expanded_conv_squeeze_excite_conv"]) == "v3_small"
    assert canonical(["Conv/BatchNorm", "expanded_conv_1/squeeze_excite/Conv_1"]) == {
        "Conv/BatchNorm": "conv_bn",
        "expanded_conv_1/squeeze_excite/Conv_1": "expanded_conv_1_squeeze_excite_conv_1",
    }
    assert canonical(["bn_Conv1", "Logits"])["Logits"] == "predictions"
    for family in ("v1", "v2", "v3_large", "v3_small", "v3_large_minimalistic", "v3_small_minimalistic"):
        for classes in (0, 10):
            layers = grouped(
                dict.fromkeys(variables_of(keras_graph(Variant(family, 1.0, classes=classes), ""), family))
            )
            assert family_of_names(list(layers)) == family
            dense = int(family == "v2" and classes > 0)
            depthwise = sum("depthwise" in name or "conv_dw" in name for name in layers if "bn" not in name.lower())
            plain = sum("kernel" in values for values in layers.values()) - depthwise - dense
            counts = {"depthwise_conv2d": depthwise, "conv2d": plain, "dense": dense}
            assert family_of_counts(counts) == (family, classes > 0)


# ---------------------------------------------------------------------------------------------------------------------
# Attributes: HDF5 asks for as much memory as a string's length says, whatever the file holds


@pytest.mark.parametrize("version", [("earliest", "v114"), ("v110", "v110")], ids=["earliest", "v110"])
@pytest.mark.parametrize("place", ["layer_names", "keras_version"])
def test_declared_lengths_of_strings_are_checked(tmp_path: Path, version: tuple[str, str], place: str) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", libver=version) as file:
        file.attrs["keras_version"] = "2.15.0 and more"
        file.attrs["backend"] = "tensorflow"
        file.attrs["layer_names"] = ["first_layer_of_it", "second"]
        for name in ("first_layer_of_it", "second"):
            file.create_group(name).attrs["weight_names"] = np.zeros(0)
    with open_store(path) as store:
        assert store.layers == {}
    content = path.read_bytes()
    length = len(b"first_layer_of_it" if place == "layer_names" else b"2.15.0 and more")
    at = content.index(place.encode() + b"\0") + len(place) + 1
    at = content.index(length.to_bytes(4, "little"), at + 8)
    path.write_bytes(content[:at] + (2**31 - 16).to_bytes(4, "little") + content[at + 4 :])
    with pytest.raises(ConversionError, match=r"bytes in attribute|damaged"):
        peak_of(lambda: enter(path))


def enter(path: Path) -> None:
    with open_store(path):
        pass


def peak_of(function: Callable[[], object]) -> None:
    """Call it where no more than 1 GiB can be had beyond what there is."""
    resource = pytest.importorskip("resource", reason="this platform has no resource limits")
    used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, limits[1]))
    try:
        function()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def test_sample_with_a_string_of_two_gigabytes(data: Path) -> None:
    with pytest.raises(ConversionError, match="2147484242 bytes in attribute 'layer_names'"):
        peak_of(lambda: enter(data / "hostile" / "legacy_rss_429.h5"))


def test_a_damaged_heap_of_strings_takes_no_time(tmp_path: Path) -> None:
    """HDF5 takes minutes where sizes in a heap of strings are damaged; here, any change is soon over."""
    path = tmp_path / "m.h5"
    write_legacy(path, small_variables())
    with h5py.File(path, "a") as file:
        names = list(file.attrs["layer_names"])
        del file.attrs["layer_names"]
        file.attrs.create("layer_names", names, dtype=h5py.string_dtype())
    assert convert_keras(path)
    content = path.read_bytes()
    heap = content.index(b"GCOL")
    start = time.process_time()
    for at in range(heap, heap + 64):
        for value in (0xFF,) if at % 2 else (0, 0xFF):
            path.write_bytes(content[:at] + bytes([value]) + content[at + 1 :])
            with_model(path)
    assert time.process_time() - start < 60  # 4 s; some took minutes


def test_a_wrong_name_or_size_of_a_whole_model_is_refused(goldens: Path) -> None:
    any_size = next(case for case in CASES if "any_size" in case)
    path = goldens / any_size / "model.keras"
    with pytest.raises(ConversionError, match="holds a float mobilenet_"):
        convert_keras(path, "mobilenet_v1_1.0_96" if "v1" not in any_size else "mobilenet_v2_1.0_96")
    data = convert_keras(path, resolution=(96, 128))
    assert data.graph.tensors[data.graph.inputs[0]].shape[1:3] == (96, 128)
