"""A state dict of timm or torchvision -> graph, folded weights, facts. PyTorch isn't needed.

The architecture is named by the caller, or by the file or its folder, or found from the variables' names and shapes.
Every variable must be accounted for: what is missing, misshapen or left over is one error that lists it all.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from npmobilenet.errors import ConversionError, GraphError, ModelNotFound
from npmobilenet.formats.batch_norm import fold_batch_norm
from npmobilenet.formats.misfit import Misfit, in_a_row
from npmobilenet.formats.pytorch.names import BATCH_NORM, Layer, classes_of, classifiers, layers_of
from npmobilenet.formats.pytorch.state_dict import ANCHORS, Ema, StateDict, open_state_dict
from npmobilenet.graph import Graph
from npmobilenet.modeldata import Array, ModelData, ModelInfo, assumptions, imagenet_labels, recipe_assumed
from npmobilenet.zoo.names import canonical, normalise
from npmobilenet.zoo.pytorch import TORCH_MODELS, TorchModel, torch_model
from npmobilenet.zoo.rows import ReduceTo1x1, make_divisible

_EXPORT = "export it with PyTorch: litert_torch.convert(model.eval(), (sample,)).export('model.tflite')"
_MOST_CONFIG = 1 << 20
_MULTIPLIERS = (1.0, 0.75, 0.5, 0.25, 0.35, 1.4, 1.3, 1.25, *(m / 100 for m in range(5, 401)))
# torchvision's second weights want another recipe; their files are told by the hash in their names.
# Source: pytorch/vision torchvision/models/mobilenetv2.py, mobilenetv3.py (IMAGENET1K_V2: resize_size=232).
_SECOND_WEIGHTS = ("7ebf99e0", "5c1a4163")


@dataclass(frozen=True)
class _Choice:
    """Which model the variables are of, how that was found, and the size of its images (None: its own)."""

    model: TorchModel
    how: str
    resolution: int | tuple[int, int] | None = None


def convert_pytorch(
    path: str | Path, kind: str, model: str | None = None, ema: Ema = "auto", resolution: tuple[int, int] | None = None
) -> ModelData:
    """Convert a `.safetensors` file (`kind` "safetensors") or a `.pth` in zip form ("pytorch").

    `model` is a name of timm or torchvision (`timm/mobilenetv3_large_100`, with or without a tag,
    `torchvision/mobilenet_v2`), or a canonical name, whose resolution then counts (`mobilenet_v2_1.0_160`). `ema`: use
    the moving averages ("auto": where there are any). `resolution` (height, width): of its pictures, if it isn't the
    name's; the weights fit any. The number of classes comes from the file. The output is softmax; the endpoint `Logits`
    is what PyTorch's model gives.

    Raises `ConversionError` for unreadable files and variables that don't fit, `ModelNotFound` for an unknown `model`.
    """
    source = Path(path)
    with open_state_dict(source, kind, ema) as state:
        choice = _choose(source, state, model)
        choice = replace(choice, resolution=resolution or choice.resolution)
        graph, layers = _built(source, state, choice)
        tensors, dtypes = _tensors(source, state, graph, layers, choice.model.epsilon)
    return ModelData(graph, tensors, _info(source, state, choice, graph, dtypes))


# ---------------------------------------------------------------------------------------------------------------------
# Which model


def _choose(path: Path, state: StateDict, name: str | None) -> _Choice:
    if hybrid := next((n for n in state.entries if ".attn." in n or n.endswith("layer_scale.gamma")), None):
        raise ConversionError(
            f"'{path.name}': it has attention blocks ({hybrid}): MobileNetV4 hybrid, which isn't read here; {_EXPORT}"
        )
    package = "timm" if ANCHORS[0] in state.entries else "torchvision"
    if name is not None:
        return _named(path, state, name, package)
    for guess in _names_on_path(path, package):
        fitted = _sized(guess, state)
        if not len(_misfit(state, fitted)):
            return _Choice(fitted, f"{fitted.name}, from the name of the file or its folder, or config.json")
    known = [_sized(m, state) for m in TORCH_MODELS.values() if m.package == package]
    judged = [(_misfit(state, model), model) for model in known]
    fitting = [model for misfit, model in judged if not len(misfit)]
    if len(fitting) == 1:
        return _Choice(fitting[0], "")
    if fitting:
        names = ", ".join(m.name for m in fitting)
        raise ConversionError(
            f"'{path.name}': its variables fit {names} alike, whose paddings or epsilons differ; say which: "
            f"npmobilenet convert FILE OUT.h5 --model {fitting[0].name}"
        )
    misfit, closest = min(judged, key=lambda pair: len(pair[0]))
    raise _unfit(path, misfit, f"any MobileNet of {package} that is read here; of {closest.name}, the closest")


def _named(path: Path, state: StateDict, name: str, package: str) -> _Choice:
    """The model of a name of timm's or torchvision's, or of this project."""
    resolution: int | tuple[int, int] | None = None
    own = canonical(normalise(name))
    if own is None:
        model = torch_model(name if "/" in name else f"{package}/{name}")
    else:
        alike = [
            m for m in TORCH_MODELS.values()
            if m.package == package and m.family == own.family
            and (m.multiplier == own.depth_multiplier or (package == "torchvision" and m.family == "v2"))
        ]  # fmt: skip
        fitting = [m for m in alike if not len(_misfit(state, _sized(m, state)))] or alike
        if len(fitting) != 1:
            found = ", ".join(m.name for m in fitting) or f"no model of {package}"
            raise ConversionError(f"'{path.name}': model '{name}' is {found} in PyTorch; pass one name of {package}'s")
        model, resolution = fitting[0], own.resolution
    if model.package != package:
        raise ConversionError(f"'{path.name}': its variables have {package}'s names, and '{name}' is {model.package}'s")
    return _Choice(_sized(model, state), f"{model.name}, as named by the caller", resolution)


def _names_on_path(path: Path, package: str) -> Iterator[TorchModel]:
    """What config.json beside the file says, then models after which the file or a folder is named, longest first."""
    yield from _configured(path)
    for part in (path.name, *(parent.name for parent in list(path.absolute().parents)[:3])):
        text = part.casefold()
        for model in sorted(TORCH_MODELS.values(), key=lambda m: -len(m.bare)):
            at = text.find(model.bare)
            if model.package == package and at >= 0:
                tagged = re.sub(r"\.(safetensors|pth|pt|bin|tar)\b.*", "", text[at:])
                yield torch_model(f"{package}/{tagged if tagged.startswith(f'{model.bare}.') else model.bare}")


def _configured(path: Path) -> Iterator[TorchModel]:
    """The architecture and tag in the config.json that timm writes beside model.safetensors.

    Source: huggingface/pytorch-image-models timm/models/_hub.py, save_config_for_hf.
    """
    try:
        text = path.with_name("config.json").read_bytes()[:_MOST_CONFIG]
        config = json.loads(text)
        tag = config.get("pretrained_cfg", {}).get("tag", "")
        yield torch_model(f"timm/{config['architecture']}" + (f".{tag}" if isinstance(tag, str) and tag else ""))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, ModelNotFound):
        return  # none there, or another program's


def _sized(model: TorchModel, state: StateDict) -> TorchModel:
    """torchvision's may have any width: the multiplier whose widths the file has, 1 if there is none."""
    if model.package != "torchvision":
        return model
    if model.family != "v2":  # whose classifier a user may have replaced by one layer, or by none
        model = replace(model, lone=len(classifiers(state.entries)) < 2)
    rows = [row for row in model.layout()[0].rows if not isinstance(row, ReduceTo1x1)]
    last: dict[int, str] = {}  # of each of `features.N`: its last convolution
    for layer in layers_of(model, model.graph(), state.entries):
        if place := re.match(r"features\.(\d+)\.", layer.conv):
            last[int(place[1])] = layer.conv
    last.pop(max(last))  # whose width has a rule of its own
    found = []
    for conv in last.values():
        entry = state.entries.get(f"{conv}.weight")
        found.append(entry.shape[0] if entry is not None and entry.shape else 0)
    for multiplier in _MULTIPLIERS:
        if found == [make_divisible(rows[index].out * multiplier) for index in last]:
            return replace(model, multiplier=multiplier)
    return model


# ---------------------------------------------------------------------------------------------------------------------
# Does it fit?


def _shapes(state: StateDict) -> dict[str, tuple[int, ...]]:
    return {name: entry.shape for name, entry in state.entries.items()}


def _graph(state: StateDict, choice: _Choice) -> Graph:
    shapes = _shapes(state)
    stem = next((shapes[a] for a in ANCHORS if a in shapes), ())
    channels = stem[1] if len(stem) == 4 and 1 <= stem[1] <= 16 else 3
    return choice.model.graph(classes_of(choice.model, shapes), choice.resolution, channels)


def _misfit(state: StateDict, model: TorchModel) -> Misfit:
    graph = _graph(state, _Choice(model, "", 224))
    return _differences(state, graph, layers_of(model, graph, state.entries))


def _differences(state: StateDict, graph: Graph, layers: list[Layer]) -> Misfit:
    wanted: dict[str, tuple[int, ...]] = {}
    for layer in layers:
        wanted.update(layer.variables(graph))
    result = Misfit(extra=list(state.extra))
    for name, shape in wanted.items():
        entry = state.entries.get(name)
        if entry is None:
            result.missing.append(state.prefix + name)
        elif entry.shape != shape:
            result.misshapen.append(f"{state.prefix}{name} {entry.shape}, expected {shape}")
    result.extra += [state.prefix + name for name in state.entries if name not in wanted]
    return result


def _unfit(path: Path, misfit: Misfit, model: str) -> ConversionError:
    return ConversionError(
        f"'{path.name}' doesn't hold the variables of {model}: {misfit}; pass the model that it was made as "
        f"(--model timm/NAME or torchvision/NAME), or, if it is another network, {_EXPORT}"
    )


def _built(path: Path, state: StateDict, choice: _Choice) -> tuple[Graph, list[Layer]]:
    if classes_of(choice.model, _shapes(state)) == 1:
        raise ConversionError(
            f"'{path.name}': its classifier has one output, of which a softmax, which is what state dicts are taken "
            f"for, would always give 1, and nothing tells what follows (a sigmoid?); {_EXPORT}"
        )
    try:
        graph = _graph(state, choice)
    except GraphError as error:
        raise ConversionError(f"'{path.name}': as {choice.model.name}: {error}") from error
    layers = layers_of(choice.model, graph, state.entries)
    misfit = _differences(state, graph, layers)
    if len(misfit):
        raise _unfit(path, misfit, choice.model.name)
    return graph, layers


# ---------------------------------------------------------------------------------------------------------------------
# Weights and facts


def _tensors(
    path: Path, state: StateDict, graph: Graph, layers: list[Layer], epsilon: float
) -> tuple[dict[str, Array], list[str]]:
    """The graph's constants, in its layouts, and the dtypes that were rounded to float32."""
    unfit: list[str] = []
    dtypes: set[str] = set()

    def read(name: str) -> Array:
        entry = state.entries[name]
        values = entry.read()
        if values.dtype != np.float32:
            unfit.append(f"{state.prefix}{name} is {entry.dtype}, expected floating point numbers")
        elif not np.isfinite(values).all():
            unfit.append(f"{state.prefix}{name} holds NaN or infinite values")
        if entry.dtype != "F32":
            dtypes.add(entry.dtype)
        return values

    tensors: dict[str, Array] = {}
    for layer in layers:
        weights = _in_layout(layer, read(f"{layer.conv}.weight"))
        if layer.norm:
            gamma, beta, mean, variance = (read(f"{layer.norm}.{leaf}") for leaf in BATCH_NORM)
            if not unfit:
                try:
                    weights, bias = fold_batch_norm(weights, gamma, beta, mean, variance, epsilon)
                except ConversionError as error:
                    raise ConversionError(f"'{path.name}', '{layer.norm}': {error}") from error
        else:
            bias = read(f"{layer.conv}.bias") if layer.bias else np.zeros(weights.shape[-1:], np.float32)
        if not unfit:
            tensors[layer.node.inputs[1]] = np.ascontiguousarray(weights, np.float32)
            tensors[layer.node.inputs[2]] = np.ascontiguousarray(bias, np.float32)
    if unfit:
        raise ConversionError(f"'{path.name}': {in_a_row(unfit, '; ')}; such a network can't be run")
    return tensors, sorted(dtypes)


def _in_layout(layer: Layer, weights: Array) -> Array:
    """(out, in, h, w) to (h, w, in, out); depthwise (channels, 1, h, w) to (h, w, channels); (out, in) as 1x1."""
    if layer.linear:
        return weights.T[np.newaxis, np.newaxis]
    if layer.node.op == "depthwise_conv2d":
        return weights[:, 0].transpose(1, 2, 0)
    return weights.transpose(2, 3, 1, 0)


def _info(path: Path, state: StateDict, choice: _Choice, graph: Graph, dtypes: list[str]) -> ModelInfo:
    model, classes = choice.model, classes_of(choice.model, _shapes(state))
    labels, offset = imagenet_labels(classes)
    second = any(mark in path.name for mark in _SECOND_WEIGHTS)
    recipe = "torchvision_232" if second else model.recipe
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    assumed = [] if choice.how else [f"architecture assumed: {model.name}, whose variables these are"]
    assumed += [recipe_assumed(recipe)]
    assumed += [f"labels assumed: ImageNet's, for {classes} outputs"] if labels else []
    facts = {
        "source": path.name,
        "sha256": digest,
        "converter": "npmobilenet.formats.pytorch.model",
        "architecture": choice.how or f"{model.name}, from the variables",
        "width": str(model.multiplier),
        "epsilon": str(model.epsilon),
        "padding": "SAME, as TensorFlow's" if model.same else "symmetric, as PyTorch's",
        "batch_norm": "folded in float64",
        "ema": "used" if state.ema else "not used",
        **({"variable_prefix": state.prefix} if state.prefix else {}),
        **({"dtypes": ", ".join(f"{dtype} to float32" for dtype in dtypes)} if dtypes else {}),
        **({} if classes else {"classifier": "none in the file"}),
    }
    return ModelInfo(graph.name, labels, offset, recipe, {**facts, **assumptions(assumed)})
