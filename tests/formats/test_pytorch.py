"""State dicts of timm and torchvision, without PyTorch: the readers, the names, and PyTorch's own logits."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_maker as maker

import npmobilenet as nm
from npmobilenet.errors import ConversionError, ModelNotFound
from npmobilenet.formats import read_model
from npmobilenet.formats.pytorch.names import layers_of
from npmobilenet.formats.pytorch.state_dict import open_state_dict
from npmobilenet.images.recipes import RECIPES
from npmobilenet.model import Model
from npmobilenet.modeldata import ModelData
from npmobilenet.zoo.pytorch import TORCH_MODELS, torch_model

GOLDENS = np.load(Path(__file__).with_name("torch_goldens.npz"))
FACTS: list[dict[str, Any]] = [
    json.loads(GOLDENS[key].tobytes()) for key in GOLDENS.files if key.startswith("facts:")
]  # fmt: skip
SMALL = "timm/mobilenetv4_conv_small_035"


def shapes_of(name: str, classes: int = 10, channels: int = 3) -> dict[str, tuple[int, ...]]:
    """The variables of a model, as `test_variables_are_those_of_pytorch` shows them to be PyTorch's."""
    model = torch_model(name)
    graph = model.graph(classes, 64, channels)
    return {n: s for layer in layers_of(model, graph, {}) for n, s in layer.variables(graph).items()}


def state_of(name: str = SMALL, classes: int = 10, channels: int = 3) -> dict[str, maker.Array]:
    return maker.state_of(shapes_of(name, classes, channels))


def write(path: Path, state: Mapping[str, maker.Array]) -> Path:
    path.write_bytes(maker.safetensors(state) if path.suffix == ".safetensors" else maker.pth(state))
    return path


# -- against PyTorch ---------------------------------------------------------------------------------------------------


@pytest.mark.equal("zoo", "fast", "PyTorch 2.14, timm 1.0, torchvision 0.29; logits", "1e-4 * max|expected|")
@pytest.mark.parametrize(
    "number", range(len(FACTS)), ids=lambda i: f"{FACTS[i]['model']}{list(FACTS[i]['options'].values())}"
)
def test_logits_of_pytorch(tmp_path: Path, number: int) -> None:
    """max|d| <= 1e-4 * max|expected|: sums in another order and batch norm folded, some 1e-6 each, in 20 to 90 layers.

    Measured worst: 2.9e-5, of models with fitted statistics. The images are of 64 x 64, the size that a canonical name
    would give; so the graph is built for it here.
    """
    facts, expected = FACTS[number], GOLDENS[f"logits:{number}"]
    state = maker.state_of({n: tuple(s) for n, s in facts["variables"].items()})
    path = write(tmp_path / f"m{'.pth' if number % 2 else '.safetensors'}", state)
    data = read_model(path, facts["model"])
    model = Model(resized(data, facts["size"]), threads=1)
    output, taps = model.run(maker.picture(facts["size"]), taps=["Logits"], check_range=False)
    assert float(np.abs(taps["Logits"] - expected).max()) <= 1e-4 * float(np.abs(expected).max())
    assert np.allclose(output.sum(axis=1), 1, atol=1e-5)


def resized(data: ModelData, size: int) -> ModelData:
    """The same weights in the graph for images of another size."""
    model = torch_model(data.info.name)
    model = type(model)(**{**vars(model), "multiplier": float(data.info.provenance["width"])})
    return ModelData(model.graph(10, size), data.tensors, data.info)


@pytest.mark.parametrize("number", range(len(FACTS)))
def test_variables_are_those_of_pytorch(number: int) -> None:
    facts = FACTS[number]
    model = torch_model(facts["model"])
    if facts["options"]:
        model = type(model)(**{**vars(model), "multiplier": facts["options"]["width_mult"]})
    graph = model.graph(10, 64)
    ours = {n: s for layer in layers_of(model, graph, {}) for n, s in layer.variables(graph).items()}
    theirs = {n: tuple(s) for n, s in facts["variables"].items() if not n.endswith("num_batches_tracked")}
    assert ours == theirs


@pytest.mark.parametrize("name", TORCH_MODELS)
def test_every_name_builds(name: str) -> None:
    model = TORCH_MODELS[name]
    graph = model.graph(7)
    assert graph.tensors["Predictions"].shape == (1, 7)
    names = {n for layer in layers_of(model, graph, {}) for n in layer.variables(graph)}
    assert len(names) == sum(len(layer.variables(graph)) for layer in layers_of(model, graph, {}))
    assert model.recipe in RECIPES


# PyTorch counts: sum(p.numel() for p in model.parameters()) of timm 1.0.31 and torchvision 0.29.1, 1000 classes.
PARAMETERS = {
    "timm/mobilenetv1_100": 4231976, "timm/mobilenetv2_100": 3504872, "timm/mobilenetv2_110d": 4516520,
    "timm/mobilenetv3_large_100": 5483032, "timm/mobilenetv4_conv_small": 3774024,
    "timm/mobilenetv4_conv_medium": 9715512, "timm/mobilenetv4_conv_large": 32590864,
    "torchvision/mobilenet_v3_small": 2542856,
}  # fmt: skip


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters(name: str) -> None:
    assert TORCH_MODELS[name].graph(1000).total_params(batch_norm=True) == PARAMETERS[name]


# -- files -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".safetensors"])
def test_both_forms_hold_the_same(tmp_path: Path, suffix: str) -> None:
    """Told by content, whatever they are called."""
    state = state_of()
    path = write(tmp_path / f"m{suffix}", state)
    data = nm.convert(path, tmp_path / "m.h5", model=SMALL)
    other = read_model(write(tmp_path / "other.safetensors", state), SMALL)
    for name, values in data.tensors.items():
        assert np.array_equal(values, other.tensors[name]), name
    assert data.info.preprocessing == "timm_half_bicubic"
    assert nm.load(tmp_path / "m.h5").info.name == SMALL


@pytest.mark.parametrize("kind", ["f2", "f8", "bf16"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_dtypes(tmp_path: Path, kind: str, suffix: str) -> None:
    """Halves, doubles and bfloat16 become float32; the provenance says so."""
    state = state_of()
    if kind != "bf16":
        state = {n: v.astype(kind) for n, v in state.items()}
    content = (maker.pth if suffix == ".pth" else maker.safetensors)(state, kind == "bf16")
    path = tmp_path / f"m{suffix}"
    path.write_bytes(content)
    with open_state_dict(path, "pytorch" if suffix == ".pth" else "safetensors", "auto") as found:
        for name, values in state.items():
            cut = (values.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32) if kind == "bf16" else values
            assert np.array_equal(found.entries[name].read(), cut.astype(np.float32)), name
    assert f"{maker.SAFE[kind]} to float32" in read_model(path, SMALL).info.provenance["dtypes"]


def test_views_and_byte_order(tmp_path: Path) -> None:
    """Tensors in channels-last order, parts of a shared block, and files of big-endian machines."""
    state = state_of()
    order = [list(state).index(n) for n in ("conv_stem.weight", "bn1.weight")]
    stem = state["conv_stem.weight"]  # (out, 3, 3, 3), stored as (out, h, w, in)
    items, blocks = {}, {}
    for index, (key, array) in enumerate(state.items()):
        items[key], blocks[str(index)] = (
            maker.tensor(str(index), array),
            array.astype(array.dtype.newbyteorder(">")).tobytes(),
        )
    _, i, h, w = stem.shape
    items["conv_stem.weight"] = maker.tensor(str(order[0]), stem, strides=(i * h * w, 1, w * i, i))
    blocks[str(order[0])] = np.ascontiguousarray(stem.transpose(0, 2, 3, 1)).astype(">f4").tobytes()
    pickled = maker.name("collections", "OrderedDict") + b")R" + maker.mapping(items)[1:]
    (tmp_path / "m.pth").write_bytes(maker.archive(pickled, blocks, b"big"))
    data, plain = read_model(tmp_path / "m.pth", SMALL), read_model(write(tmp_path / "n.pth", state), SMALL)
    assert all(np.array_equal(values, plain.tensors[name]) for name, values in data.tensors.items())


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "_orig_mod.", "module._orig_mod.", "net.backbone."])
def test_prefixes(tmp_path: Path, prefix: str) -> None:
    path = write(tmp_path / "m.pth", {f"{prefix}{n}": v for n, v in state_of().items()})
    data = read_model(path, SMALL)
    assert data.info.provenance.get("variable_prefix", "") == prefix


def test_wrappings_and_averages(tmp_path: Path) -> None:
    """{'state_dict': ..., 'state_dict_ema': ...} with a Namespace, an optimizer and counters beside them."""
    live = state_of()
    averages = {n: v * np.float32(0.5) if v.ndim > 1 else v for n, v in live.items()}
    first, blocks = maker.state_pickle(live)
    second, more = maker.state_pickle({f"module.{n}": v for n, v in averages.items()}, first=len(live))
    namespace = maker.name("argparse", "Namespace") + b")\x81" + maker.mapping({"lr": b"G" + bytes(8)}) + b"b"
    counter = maker.mapping({"n_averaged": maker.number(7)})
    for live_key, average_key in (("state_dict", "state_dict_ema"), ("model", "model_ema"), ("net", "ema")):
        wrapped = {
            "args": namespace,
            "optimizer": maker.mapping({"state": b"}", "lr": counter}),
            live_key: first,
            average_key: second,
        }
        path = tmp_path / f"{live_key}.pth"
        path.write_bytes(maker.archive(maker.mapping(wrapped), {**blocks, **more}))
        plain = {ema: read_model(path, SMALL, ema) for ema in ("auto", True, False)}
        for ema, state in ((True, averages), ("auto", averages), (False, live)):
            expected = read_model(write(tmp_path / "plain.pth", state), SMALL)
            assert all(np.array_equal(v, expected.tensors[n]) for n, v in plain[ema].tensors.items())
            assert plain[ema].info.provenance["ema"] == ("not used" if ema is False else "used")
    with pytest.raises(ConversionError, match="ema=True, but it holds no moving averages"):
        read_model(write(tmp_path / "m.pth", live), SMALL, ema=True)


def test_averages_beside_the_weights(tmp_path: Path) -> None:
    """Two networks in one flat dict: the one under a name with 'ema' is the averages."""
    live = state_of()
    averages = {n: v * np.float32(0.5) if v.ndim > 1 else v for n, v in live.items()}
    both = {**{f"model.{n}": v for n, v in live.items()}, **{f"ema_model.{n}": v for n, v in averages.items()}}
    path = write(tmp_path / "m.safetensors", both)
    assert read_model(path, SMALL).info.provenance["variable_prefix"] == "ema_model."
    assert read_model(path, SMALL, ema=False).info.provenance["variable_prefix"] == "model."


def test_width_classes_and_channels(tmp_path: Path) -> None:
    """torchvision's V2 of any width is told by its shapes; so are the classes and the channels of the input."""
    facts = next(f for f in FACTS if f["options"].get("width_mult") == 0.35)
    state = maker.state_of({n: tuple(s) for n, s in facts["variables"].items()})
    data = read_model(write(tmp_path / "x.pth", state))
    assert data.info.provenance["width"] == "0.35"
    assert "architecture assumed: torchvision/mobilenet_v2" in "; ".join(data.info.assumed)
    assert read_model(tmp_path / "x.pth", resolution=(96, 64)).graph.tensors["input"].shape == (1, 96, 64, 3)
    data = read_model(write(tmp_path / "mine.pth", state_of(SMALL, 3, channels=1)))
    assert data.graph.tensors["input"].shape == (1, 224, 224, 1)
    assert data.graph.tensors["Predictions"].shape == (1, 3)
    assert data.info.labels == ()
    lone = {n.replace("classifier.1.", "classifier."): v for n, v in state.items()}  # model.classifier = nn.Linear(...)
    assert read_model(write(tmp_path / "lone.pth", lone)).graph.tensors["Predictions"].shape == (1, 10)
    for place in ("classifier.0.", "classifier.1.0."):  # model.classifier = nn.Sequential(nn.Linear(...)), ...
        other = {n.replace("classifier.1.", place): v for n, v in state.items()}
        assert read_model(write(tmp_path / "other.pth", other)).graph.tensors["Predictions"].shape == (1, 10)
    thousand = read_model(write(tmp_path / "imagenet.pth", state_of(SMALL, 1000)))
    assert (thousand.info.labels, thousand.info.label_offset) == ("imagenet", 0)
    headless = {n: v for n, v in state_of().items() if not n.startswith("classifier.")}
    assert "Predictions" not in read_model(write(tmp_path / "features.pth", headless)).graph.tensors


@pytest.mark.parametrize("place", ["classifier.", "classifier.0.", ""])
def test_v3_whose_classifier_is_one_layer_or_none(tmp_path: Path, place: str) -> None:
    """torchvision's V3 with model.classifier = nn.Linear(576, 4), nn.Sequential(nn.Linear(576, 4)), nn.Identity()."""
    facts = next(
        f for f in FACTS if f["model"] == "torchvision/mobilenet_v3_small" and not f["options"].get("width_mult")
    )
    shapes = {n: tuple(s) for n, s in facts["variables"].items() if not n.startswith("classifier.")}
    shapes |= {f"{place}weight": (4, 576), f"{place}bias": (4,)} if place else {}
    graph = read_model(write(tmp_path / "x.pth", maker.state_of(shapes))).graph
    assert graph.tensors[graph.outputs[0]].shape[-1] == (4 if place else 576)


@pytest.mark.parametrize(("name", "width", "inner", "last"), [
    # adjust_channels of each width: 0.75 * 72 -> 56, 1.25 * 72 -> 88, 0.5 * 96 -> 48; the last is 6 times that before.
    ("torchvision/mobilenet_v3_large", 0.75, 56, 720),
    ("torchvision/mobilenet_v3_large", 1.25, 88, 1200),
    ("torchvision/mobilenet_v3_small", 0.5, 48, 288),
])  # fmt: skip
def test_widths_of_torchvision_v3(tmp_path: Path, name: str, width: float, inner: int, last: int) -> None:
    """Told by its shapes; inner widths are scaled themselves, not by the factors of the table."""
    model = dataclasses.replace(TORCH_MODELS[name], multiplier=width)
    graph = model.graph(10)
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in layers_of(model, graph, {}):
        shapes.update(layer.variables(graph))
    end = max(int(n.split(".")[1]) for n in shapes if n.startswith("features."))
    assert (shapes["features.4.block.0.0.weight"][0], shapes[f"features.{end}.0.weight"][0]) == (inner, last)
    data = read_model(write(tmp_path / "x.pth", maker.state_of(shapes)))
    assert data.info.provenance["width"] == str(width)
    assert read_model(tmp_path / "x.pth", name).graph.tensors["Predictions"].shape == (1, 10)


def test_load_takes_the_name_of_the_architecture(tmp_path: Path) -> None:
    path = write(tmp_path / "x.pth", state_of(SMALL))
    loaded = nm.load(path, model=SMALL, resolution=64)
    assert loaded.info.provenance["architecture"] == f"{SMALL}, as named by the caller"
    assert loaded.input.shape == (1, 64, 64, 3)
    with pytest.raises(ConversionError, match="doesn't hold the variables of timm/mobilenetv2_050"):
        nm.load(path, model="timm/mobilenetv2_050")
    nm.convert(path, tmp_path / "x.h5", SMALL)
    with pytest.raises(ConversionError, match="leave model= away"):
        nm.load(tmp_path / "x.h5", model=SMALL)


def test_the_architecture_is_named_or_found(tmp_path: Path) -> None:
    state = state_of("timm/tf_mobilenetv3_small_100")
    with pytest.raises(
        ConversionError, match=r"fit timm/mobilenetv3_small_100, timm/tf_mobilenetv3_small_100 alike.*--model"
    ):
        read_model(write(tmp_path / "mine.pth", state))
    for name, epsilon in (("mobilenetv3_small_100", "1e-05"), ("tf_mobilenetv3_small_100", "0.001")):
        assert read_model(tmp_path / "mine.pth", name).info.provenance["epsilon"] == epsilon
        folder = tmp_path / f"models--timm--{name}.lamb_in1k"
        folder.mkdir()
        data = read_model(write(folder / "model.safetensors", state))
        assert data.info.provenance["epsilon"] == epsilon
        assert "from the name of the file" in data.info.provenance["architecture"]
    config = {"architecture": "tf_mobilenetv3_small_100", "pretrained_cfg": {"tag": "in1k"}}
    for text, said in ((json.dumps(config), "0.001"), ("[" * 10_000, ""), ("[]", ""), ('{"architecture": 5}', "")):
        (tmp_path / "config.json").write_text(text, encoding="utf-8")
        if said:
            assert read_model(tmp_path / "mine.pth").info.provenance["epsilon"] == said
        else:
            with pytest.raises(ConversionError, match="alike"):
                read_model(tmp_path / "mine.pth")
    data = read_model(write(tmp_path / "v4.pth", state_of()))
    assert f"architecture assumed: {SMALL}" in data.info.assumed[0]
    named = read_model(tmp_path / "v4.pth", "mobilenet_v4_conv_small_0.35_96")
    assert named.graph.tensors["input"].shape == (1, 96, 96, 3)


def test_names() -> None:
    assert torch_model("hf_hub:timm/mobilenetv4_conv_medium.e500_r224_in1k").resolution == 224
    assert torch_model("timm/mobilenetv4_conv_medium").resolution == 256
    assert torch_model("mobilenetv3_large_100.miil_in21k").recipe == "timm_unit"
    assert torch_model("torchvision/mobilenet_v3_large").epsilon == 0.001
    for name, reason in (
        ("timm/mobilenetv4_hybrid_medium", r"attention.*litert_torch\.convert"),
        ("timm/mobilenetv4_conv_aa_large", "anti-aliasing"),
        ("timm/mobilenet_edgetpu_v2_m", "grouped convolutions"),
        ("timm/mobilenetv2_10", "closest: timm/mobilenetv2_1"),
    ):
        with pytest.raises(ModelNotFound, match=reason):
            torch_model(name)


def test_what_does_not_fit_is_one_list(tmp_path: Path) -> None:
    """Missing, left over and misshapen variables in one message."""
    state = state_of()
    del state["bn1.running_mean"]
    state["head.fc.weight"] = np.zeros((3, 4), np.float32)
    state["conv_head.weight"] = state["conv_head.weight"][:8]
    path = write(tmp_path / "m.pth", state)
    pattern = (
        r"1 missing: bn1.running_mean; 1 of another shape: conv_head.weight \(8, \d+, 1, 1\), expected \(1280.*; "
        r"1 left over: head.fc.weight; pass the model that it was made as"
    )
    with pytest.raises(ConversionError, match=pattern):
        read_model(path, SMALL)
    with pytest.raises(ConversionError, match=rf"of {re.escape(SMALL)}, the closest"):
        read_model(path)
    with pytest.raises(ConversionError, match=r"its variables have timm's names, and 'torchvision/mobilenet_v2'"):
        read_model(path, "torchvision/mobilenet_v2")
    hybrid = {**state_of(), "blocks.2.4.attn.query.proj.weight": np.zeros((4, 4, 1, 1), np.float32)}
    with pytest.raises(ConversionError, match=r"attention blocks .*MobileNetV4 hybrid.*litert_torch"):
        read_model(write(tmp_path / "hybrid.pth", hybrid))
    with pytest.raises(ConversionError, match="none of its 1 variables is the first convolution"):
        read_model(write(tmp_path / "resnet.pth", {"conv1.weight": np.zeros((4, 3, 3, 3), np.float32)}))
    with pytest.raises(ConversionError, match=r"one output.*sigmoid"):
        read_model(write(tmp_path / "binary.pth", state_of(SMALL, 1)))
    bad = {**state_of(), "bn1.bias": np.full_like(state_of()["bn1.bias"], np.nan)}
    with pytest.raises(ConversionError, match=r"bn1\.bias holds NaN"):
        read_model(write(tmp_path / "nan.pth", bad))
