"""A TF-slim MobileNet checkpoint -> graph, folded weights, facts. TensorFlow isn't needed.

The architecture is named by the caller, or by the checkpoint's file or folder, or found from the variables' names and
shapes. Every variable must be accounted for: what is missing, misshapen or left over is one error that lists it all.
The file itself, with its CRCs, is read in checkpoint.py and checkpoint_index.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from npmobilenet.errors import ConversionError, GraphError, ModelNotFound
from npmobilenet.formats.batch_norm import fold_batch_norm
from npmobilenet.formats.misfit import Misfit, in_a_row
from npmobilenet.formats.tensorflow.checkpoint import Checkpoint, read_checkpoint
from npmobilenet.formats.tensorflow.slim_names import (
    Candidate,
    Ema,
    SlimVariables,
    best_of,
    candidates,
    infer,
    misfit,
    slim_variables,
)
from npmobilenet.graph import Graph, Node
from npmobilenet.modeldata import Array, ModelData, ModelInfo, assumptions, imagenet_labels
from npmobilenet.zoo import SPECS
from npmobilenet.zoo.checkpoints import ModelName, parse

__all__ = ["Checkpoint", "convert_checkpoint", "read_checkpoint", "tensors_for_graph"]

ASSUMED_RESOLUTION = 224


def convert_checkpoint(path: str | Path, model: str | None = None, ema: Ema = "auto") -> ModelData:
    """Convert the checkpoint at `path` (prefix, `.index`, `.data-*`, or a folder with one checkpoint).

    `model` is a registered or canonical name. Without it, the names of the file and its folders are tried, then the
    architecture is found from the variables; its resolution, which no variable tells, is then 224, and
    `provenance["resolution"]` says that this is assumed. `ema`: use the moving averages of the weights ("auto": where
    there are any). Class count and fine-grained mode come from the checkpoint; without a classifier the graph ends with
    the pooled features, and if layers at the end are absent as well, with the last layer there is.

    Raises `ConversionError` for unreadable or damaged files and variables that don't fit, `ModelNotFound` for an
    unknown `model`.
    """
    checkpoint = Checkpoint(path)
    variables = slim_variables(checkpoint, ema)
    candidate, name, how = _choose(checkpoint, variables, model)
    try:
        graph = candidate.graph(name.resolution, str(name))
    except GraphError as error:
        raise ConversionError(f"checkpoint '{checkpoint.prefix}': as {name}: {error}") from error
    notes: dict[str, str] = {}
    tensors = _tensors(checkpoint, variables, graph, notes)
    labels, offset = imagenet_labels(candidate.num_classes)
    return ModelData(
        graph,
        tensors,
        ModelInfo(
            str(name),
            labels,
            offset,
            provenance={
                **_provenance(checkpoint, variables),
                **_architecture(candidate, how),
                **notes,
                **_assumed(candidate, how),
            },
        ),
    )


def tensors_for_graph(checkpoint: Checkpoint, graph: Graph, ema: Ema = "auto") -> dict[str, Array]:
    """The folded weights of a graph made by `npmobilenet.zoo.build` with any options, such as an output stride.

    Raises `ConversionError` where the variables don't fit the graph.
    """
    return _tensors(checkpoint, slim_variables(checkpoint, ema), graph, {})


# ---------------------------------------------------------------------------------------------------------------------
# Which model


def _choose(
    checkpoint: Checkpoint, variables: SlimVariables, model: str | None
) -> tuple[Candidate, ModelName, Mapping[str, str]]:
    """The network that fits, its name, and how both were found."""
    if model is not None:
        name = parse(model)
        if name.dtype != "float32":
            raise ConversionError(
                f"model '{model}' is an 8-bit model, and a checkpoint holds float weights; pass the float "
                "model's name (without '_uint8'), or convert the .tflite file"
            )
        difference, candidate = _named(variables, name)
        if len(difference):
            raise _unfit(checkpoint, difference, str(name))
        return candidate, name, {"architecture": "as named by the caller"}
    for guess in _names_on_path(checkpoint.prefix):
        if SPECS[guess.family].scope != variables.scope:
            continue
        difference, candidate = _named(variables, guess)
        if not len(difference):
            return candidate, guess, {"architecture": "from the name of the checkpoint or its folder"}
    fitting, difference = infer(variables)
    name = ModelName(
        family=fitting[0].spec.family,
        depth_multiplier=fitting[0].depth_multiplier,
        resolution=ASSUMED_RESOLUTION,
    )
    if len(difference):
        raise _unfit(checkpoint, difference, f"{name}, the closest")
    if len(fitting) > 1:
        families = ", ".join(f"mobilenet_{candidate.spec.family}" for candidate in fitting)
        raise ConversionError(
            f"checkpoint '{checkpoint.prefix}': its variables fit {families} alike; name the model, such as {name}"
        )
    how = {"architecture": "from the variables", "resolution": f"{ASSUMED_RESOLUTION}, assumed"}
    return fitting[0], name, how


def _named(variables: SlimVariables, name: ModelName) -> tuple[Misfit, Candidate]:
    spec = SPECS[name.family]
    if spec.scope != variables.scope:
        raise ConversionError(
            f"model '{name}' has its variables under '{spec.scope}', the checkpoint under "
            f"'{variables.prefix}{variables.scope}'; pass the right model, or none to have it found"
        )
    return best_of(candidates(variables, spec, (name.depth_multiplier,)), variables)


def _names_on_path(prefix: Path) -> list[ModelName]:
    """Models after which the file or one of the two folders around it is named, as far as they are float models.

    Published archives unpack to folders such as `v3-large_224_1.0_float/ema/model-540000`.
    """
    found = []
    for text in (prefix.name.removesuffix(".ckpt"), prefix.parent.name, prefix.parent.parent.name):
        for spelling in (text, f"{text}_float"):
            try:
                name = parse(spelling)
            except ModelNotFound:
                continue
            found += [name] if name.dtype == "float32" else []
    return found


def _unfit(checkpoint: Checkpoint, difference: Misfit, model: str) -> ConversionError:
    hint = "pass the model it was trained as, or a checkpoint of a plain TF-slim MobileNet"
    if any("quant/" in name for name in difference.extra):
        hint = "it was trained with fake quantization: convert the .tflite file made from it instead"
    elif any(name.endswith("/ExponentialMovingAverage") for name in difference.missing):
        hint = "some moving averages are absent: use ema=False for the live values"
    return ConversionError(
        f"checkpoint '{checkpoint.prefix}' doesn't hold the variables of {model}: {difference}; {hint}"
    )


# ---------------------------------------------------------------------------------------------------------------------
# Weights


def _tensors(checkpoint: Checkpoint, variables: SlimVariables, graph: Graph, notes: dict[str, str]) -> dict[str, Array]:
    difference = misfit(graph, variables)
    if len(difference):
        raise _unfit(checkpoint, difference, f"'{graph.name}'")
    reader = _Reader(checkpoint, variables)
    tensors: dict[str, Array] = {}
    for node in graph.nodes:
        if node.scope:
            tensors[node.inputs[1]], tensors[node.inputs[2]] = _weights_and_bias(reader, node)
    reader.check()
    if reader.converted:
        notes["dtypes"] = ", ".join(f"{dtype} rounded to float32" for dtype in sorted(reader.converted))
    return tensors


def _weights_and_bias(reader: _Reader, node: Node) -> tuple[Array, Array]:
    """In the graph's layout: depthwise weights (H, W, C, 1) become (H, W, C); the others keep TF's."""
    if node.op == "depthwise_conv2d":
        weights = reader(f"{node.scope}/depthwise_weights")[..., 0]
    else:
        weights = reader(f"{node.scope}/weights")
    if not node.batch_norm:
        return _float32(weights), _float32(reader(f"{node.scope}/biases"))
    gamma, beta, mean, variance = (
        reader(f"{node.scope}/BatchNorm/{leaf}") for leaf in ("gamma", "beta", "moving_mean", "moving_variance")
    )
    if reader.unfit:  # all of them are reported at once, at the end
        return weights, beta
    try:
        return fold_batch_norm(weights, gamma, beta, mean, variance)
    except ConversionError as error:
        raise ConversionError(f"checkpoint '{reader.checkpoint.prefix}', '{node.scope}': {error}") from error


def _float32(values: Array) -> Array:
    return np.ascontiguousarray(values, dtype=np.float32)


class _Reader:
    """Reads a network's variables, noting those that can't serve as weights."""

    def __init__(self, checkpoint: Checkpoint, variables: SlimVariables) -> None:
        self.checkpoint = checkpoint
        self.names = variables.names
        self.converted: set[str] = set()
        self.unfit: list[str] = []

    def __call__(self, name: str) -> Array:
        values = self.checkpoint.read(self.names[name])
        if values.dtype.kind != "f":
            self.unfit.append(f"{self.names[name]} is {values.dtype}, expected float32")
        elif not np.isfinite(values).all():
            self.unfit.append(f"{self.names[name]} holds NaN or infinite values")
        if values.dtype != np.float32:
            self.converted.add(str(values.dtype))
        return values

    def check(self) -> None:
        """Raise one error for all unfit variables."""
        if self.unfit:
            raise ConversionError(
                f"checkpoint '{self.checkpoint.prefix}': {in_a_row(self.unfit, '; ')}; "
                "such a network can't be run: pass another checkpoint"
            )


# ---------------------------------------------------------------------------------------------------------------------
# Facts


def _provenance(checkpoint: Checkpoint, variables: SlimVariables) -> dict[str, str]:
    files = [Path(f"{checkpoint.prefix}.index"), *checkpoint.files]
    facts = {
        "source": f"TensorFlow checkpoint {checkpoint.prefix.name}",
        "converter": "npmobilenet.formats.tensorflow.model",
        "ema": "used" if variables.ema else "not used",
        "batch_norm": "folded in float64",
    }
    if variables.prefix:
        facts["variable_prefix"] = variables.prefix
    for file in files:
        try:
            with file.open("rb") as stream:
                facts[f"sha256 {file.name}"] = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise ConversionError(f"'{file}': can't be read: {error.strerror or error}") from error
    return facts


def _assumed(candidate: Candidate, how: Mapping[str, str]) -> dict[str, str]:
    """The recipe is no assumption: TF-slim has one for all of its MobileNets."""
    size = f"input size assumed: {ASSUMED_RESOLUTION} x {ASSUMED_RESOLUTION} (pass a model name for another)"
    names = f"labels assumed: ImageNet's, for {candidate.num_classes} outputs"
    return assumptions([size] * ("resolution" in how) + [names] * bool(imagenet_labels(candidate.num_classes)[0]))


def _architecture(candidate: Candidate, how: Mapping[str, str]) -> dict[str, str]:
    facts = dict(how)
    if candidate.spec.finegrain and candidate.depth_multiplier != 1:
        facts["finegrain"] = "yes" if candidate.finegrain else "no"
    if candidate.final_endpoint:
        facts["final_endpoint"] = candidate.final_endpoint
    elif not candidate.num_classes:
        facts["classifier"] = "none in the checkpoint"
    return facts
