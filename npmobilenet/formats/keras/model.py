"""Keras models from `.h5`, `.weights.h5` and `.keras`, without Keras.

Where a file has a configuration, the model is what that says, of any make (generic.py). What is exactly a MobileNet,
MobileNetV2 or MobileNetV3 of keras.applications, and weights alone, which must be of one, get the graph of their family
with TF-slim's names: here, every variable is found by the name of its layer and its own name
(`block_3_expand_BN/gamma`), never by its place or its shape. Shapes are compared with those of the architecture before
anything is read.

The `Rescaling` layer at the start of V3 (pixels 0..255 to [-1, 1]) is not converted: the input of a converted model is
[-1, 1], as with V1 and V2, and the preprocessing recipe does the rescaling. The provenance says so.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from npmobilenet.errors import ConversionError, GraphError
from npmobilenet.formats.batch_norm import EPSILON, fold_batch_norm
from npmobilenet.formats.keras import generic
from npmobilenet.formats.keras import store as keras_store
from npmobilenet.formats.keras.check import check_config, expected_layers
from npmobilenet.formats.keras.config import Config, names_of_keys, parse_config
from npmobilenet.formats.keras.hdf5 import listed, read
from npmobilenet.formats.keras.layers import Variant, block_widths, infer_alpha, keras_graph
from npmobilenet.formats.keras.names import canonical, family_of_counts, family_of_names, layer_names
from npmobilenet.formats.keras.store import VARIABLE_ORDER, Store, class_of, open_store
from npmobilenet.formats.misfit import in_lines
from npmobilenet.graph import Graph, Node
from npmobilenet.modeldata import Array, ModelData, ModelInfo, assumptions, recipe_assumed
from npmobilenet.zoo.checkpoints import ModelName, parse

# Keras' own recipe as its documentation shows it: `load_img(path, target_size=...)`, then `preprocess_input`.
PREPROCESSING = "keras_nearest"
ACTIVATIONS = ("softmax", "sigmoid", "linear")
MAX_CLASSES = 1 << 20


def convert_keras(path: Path, model: str | None = None, resolution: tuple[int, int] | None = None) -> ModelData:
    """The model in a Keras file: legacy `.h5` (whole or weights only), `.weights.h5` or `.keras`.

    A file with a configuration may hold any model of layers that rules.py knows. One that is exactly a model of
    keras.applications gets the tensor names and endpoints of its family; any other has its layers' names.

    `model` ("mobilenet_v2_0.35_96", or any name of the registry) gives the resolution of a file that doesn't tell it
    (weights only, or a model for images of any size; default: 224 x 224), and is compared with what the file does tell.

    The classifier may have any number of classes and be followed by softmax, sigmoid or nothing; without it, the output
    is the last feature map, or its mean where the model ends with a global average pool. In a weights-only file none of
    this is recorded, so softmax, and no pool, are taken for granted; the provenance says so.

    `resolution` (height, width) is that of a model for images of any size.

    Raises `ConversionError` if the file is damaged or hostile, if a layer isn't known here, if weights alone aren't
    those of one of keras.applications' MobileNets, or if variables are missing, left over or misshapen (all of them in
    one message).
    """
    path = Path(path)
    with open_store(path) as store:
        if store.config is None:
            return _Conversion(path, store.flat(), model, resolution).run()
        if not store.nested and _is_of_applications(path, store):
            return _Conversion(path, store, model, resolution).run()
        return _any_model(path, store, model, resolution)


def _is_of_applications(path: Path, store: Store) -> bool:
    """Whether the configuration is exactly that of one of keras.applications' models."""
    try:
        _Conversion(path, store, None, None).check()
    except ConversionError:
        return False
    return True


def _any_model(path: Path, store: Store, model: str | None, resolution: tuple[int, int] | None) -> ModelData:
    if resolution is None and model is not None:
        said = parse(model).resolution
        resolution = (said, said) if isinstance(said, int) else said
    assumed: list[str] = []
    notes: list[str] = []
    graph, tensors, recipe = generic.build(store, path.name, path.stem, resolution, assumed, notes)
    shape = graph.tensors[graph.outputs[0]].shape
    names = "imagenet" if len(graph.outputs) == 1 and shape == (1, 1000) else ()
    if names:
        assumed.append("labels assumed: ImageNet's, for 1000 outputs")
    facts = _provenance(path, store, notes, assumed)
    return ModelData(graph, tensors, ModelInfo(path.stem, names, 0, recipe, facts))


def _provenance(path: Path, store: Store, notes: list[str], assumed: list[str], **more: str) -> dict[str, str]:
    return {
        "source": path.name,
        "sha256": _sha256(path),
        "format": f"Keras {store.kind}" + (f", Keras {store.version}" if store.version else ""),
        "converter": "npmobilenet.formats.keras.model",
        **more,
        **({"notes": "; ".join(notes)} if notes else {}),
        **assumptions(assumed),
    }


class _Conversion:
    """One conversion; `assumed` collects what had to be, `notes` that and what else a user should know."""

    def __init__(self, path: Path, store: Store, model: str | None, resolution: tuple[int, int] | None) -> None:
        self.path, self.size = path, resolution
        self.notes: list[str] = []
        self.assumed: list[str] = [recipe_assumed(PREPROCESSING)]
        self.config = Config() if store.config is None else parse_config(store.config)
        self.has_config = store.config is not None
        self.store = self.named(store)
        self.layers = keras_store.named(self.store, canonical(self.store.layers)).layers
        order = canonical([layer.name for layer in self.config.layers]).values()
        self.family = family_of_names([name for name in order if name in self.layers] or list(self.layers))
        self.wanted = self.parse_model(model)

    def named(self, store: Store) -> Store:
        """Give a numbered store its layer names: those of the configuration, or those of the architecture."""
        if store.kind == ".keras":
            strange = [name for key, name in store.keys.items() if self.config.keys.get(key) != name]
            if strange:
                raise ConversionError(
                    f"model.weights.h5 has layers that config.json calls otherwise: {listed(strange)}"
                )
            return store if store.named else keras_store.named(store, self.config.keys)
        if store.named:
            return store
        counts = Counter(map(class_of, store.layers))
        family, top = family_of_counts(counts)
        variant = Variant(family, 1.0, classes=1000 if top else 0)
        layers = expected_layers(keras_graph(variant, family), variant, lambdas=False)
        self.assume(f"the file has no layer names: they are those of Keras' {family}, counted by class")
        return keras_store.named(store, names_of_keys((layer.kind, layer.name) for layer in layers))

    def assume(self, sentence: str) -> None:
        self.notes.append(sentence)
        self.assumed.append(sentence)

    def parse_model(self, model: str | None) -> ModelName | None:
        if model is None:
            return None
        wanted = parse(model)
        if wanted.family != self.family or wanted.dtype != "float32":
            raise ConversionError(f"'{self.path.name}' holds a float mobilenet_{self.family}, not {wanted}")
        return wanted

    def check(self) -> tuple[Graph, Variant, str]:
        """The graph, if this is one of keras.applications' models; where there is a configuration, by it."""
        variant = self.variant()
        name = str(ModelName(
            family=self.family, depth_multiplier=variant.alpha,
            resolution=variant.resolution[0] if len(set(variant.resolution)) == 1 else variant.resolution,
        ))  # fmt: skip
        try:
            graph = keras_graph(variant, name)
        except GraphError as error:
            raise ConversionError(f"{name}: {error}") from error
        if self.has_config:
            check_config(self.config, canonical([layer.name for layer in self.config.layers]), graph, variant)
        return graph, variant, name

    def run(self) -> ModelData:
        """Check everything, read and fold the weights."""
        graph, variant, name = self.check()
        self.check_variables(graph)
        return ModelData(graph, self.tensors(graph), self.info(name, variant))

    # -- what the model is ---------------------------------------------------------------------------------------------

    def variant(self) -> Variant:
        top = {"v1": "conv_preds", "v2": "predictions"}.get(self.family, "logits")
        found = top in self.layers or (self.family.startswith("v3") and "conv_2" in self.layers)
        classes = self.width(top) or 1000 if found else 0
        first = {"v1": "conv1", "v2": "Conv1"}.get(self.family, "conv")
        shape = self.shape(first)
        channels = self.config.channels if self.has_config else shape[2] if len(shape) == 4 else 3
        variant = Variant(self.family, self.alpha(), self.resolution(), channels, classes)
        if not self.has_config:
            if classes == 1:
                raise ConversionError(
                    f"'{self.path.name}' holds weights only, of a classifier with one output: a softmax, which is what "
                    "such files are taken for, would always give 1, and nothing tells what follows (a sigmoid?). "
                    "Save the whole model: model.save('model.keras')"
                )
            self.assume(
                "weights only: softmax after the classifier is assumed" if classes
                else "weights only: the last feature map is taken as the output"
            )  # fmt: skip
            return variant
        if self.config.pooling == "max" or (classes and self.config.activation not in ACTIVATIONS):
            what = "a global max pool" if self.config.pooling == "max" else f"activation '{self.config.activation}'"
            raise ConversionError(f"the model ends with {what}; supported are {', '.join(ACTIVATIONS)} after the "
                                  "classifier, and without one a global average pool or nothing")  # fmt: skip
        own = canonical(list(self.config.paddings) + [layer.name for layer in self.config.layers])
        return replace(
            variant,
            activation=self.config.activation if classes else "softmax",
            pooling="" if classes else self.config.pooling,
            paddings={own[name]: padding for name, padding in self.config.paddings.items()},
        )

    def alpha(self) -> float:
        widths = {name: self.width(name) for name in block_widths(self.family, 1.0) if name in self.layers}
        wanted = self.wanted.depth_multiplier if self.wanted else None
        alpha = infer_alpha(self.family, widths, wanted)
        if wanted is not None and block_widths(self.family, alpha) != block_widths(self.family, wanted):
            raise ConversionError(
                f"'{self.path.name}' has the widths of alpha {alpha}, not of {wanted} ({self.wanted})"
            )
        return alpha

    def resolution(self) -> tuple[int, int]:
        said = self.wanted.resolution if self.wanted else None
        wanted = self.size or ((said, said) if isinstance(said, int) else said)
        height, width = self.config.size
        if height is not None and width is not None:
            if wanted not in (None, (height, width)):
                raise ConversionError(
                    f"'{self.path.name}' takes images of {height} x {width}, not {self.wanted or wanted}"
                )
            return height, width
        if wanted is None:
            self.assume("the file gives no input size: 224 x 224 is assumed (pass a model name for another)")
        return wanted or (224, 224)

    def shape(self, layer: str) -> tuple[int, ...]:
        kernel = self.layers.get(layer, {}).get("kernel")
        return () if kernel is None else kernel.shape

    def width(self, layer: str) -> int:
        shape = self.shape(layer)
        return shape[-1] if shape and 1 <= shape[-1] <= MAX_CLASSES else 0

    # -- variables -----------------------------------------------------------------------------------------------------

    def check_variables(self, graph: Graph) -> None:
        """Raise one `ConversionError` that lists every missing, left over and misshapen variable."""
        expected = variables_of(graph, self.family)
        found = {(layer, name): data for layer, group in self.layers.items() for name, data in group.items()}
        problems = [f"missing: {layer}/{name} {shape}" for (layer, name), shape in expected.items()
                    if (layer, name) not in found]  # fmt: skip
        problems += [f"left over: {layer[:80]}/{name[:80]} {data.shape}" for (layer, name), data in found.items()
                     if (layer, name) not in expected]  # fmt: skip
        problems += [f"misshapen: {layer}/{name} is {found[layer, name].shape}, expected {shape}"
                     for (layer, name), shape in expected.items()
                     if (layer, name) in found and found[layer, name].shape != shape]  # fmt: skip
        if problems:
            raise ConversionError(
                f"'{self.path.name}' doesn't fit {graph.name} ({len(problems)} variables):{in_lines(problems)}"
            )

    def tensors(self, graph: Graph) -> dict[str, Array]:
        epsilons = self.config.epsilon(canonical([layer.name for layer in self.config.layers]))
        expected = variables_of(graph, self.family)
        tensors: dict[str, Array] = {}
        for node in _convolutions(graph):
            conv, norm = layer_names(self.family, node.scope)
            shape = graph.tensors[node.inputs[1]].shape
            weights = self.values(conv, "kernel", expected).reshape(shape)
            if node.batch_norm:
                gamma, beta, mean, variance = (
                    self.values(norm, name, expected) for name in VARIABLE_ORDER["batch_normalization"]
                )
                try:
                    weights, bias = fold_batch_norm(weights, gamma, beta, mean, variance, epsilons.get(norm, EPSILON))
                except ConversionError as error:
                    raise ConversionError(f"'{self.path.name}': layer {norm!r}: {error}") from error
            else:
                bias = self.values(conv, "bias", expected)
            tensors[node.inputs[1]] = np.ascontiguousarray(weights, np.float32)
            tensors[node.inputs[2]] = np.ascontiguousarray(bias, np.float32)
        return tensors

    def values(self, layer: str, name: str, expected: Mapping[tuple[str, str], tuple[int, ...]]) -> Array:
        return read(self.layers[layer][name], expected[layer, name], f"'{self.path.name}': {layer}/{name}")

    def info(self, name: str, variant: Variant) -> ModelInfo:
        if self.config.rescaling:
            self.notes.append("Rescaling left out: the input is [-1, 1], not 0..255")
        if variant.classes == 1000:
            self.assumed.append("labels assumed: ImageNet's, for 1000 outputs")
        return ModelInfo(
            name=name,
            labels="imagenet" if variant.classes == 1000 else (),
            label_offset=0,
            preprocessing=PREPROCESSING,
            provenance=_provenance(self.path, self.store, self.notes, self.assumed, alpha=str(variant.alpha)),
        )


def _convolutions(graph: Graph) -> list[Node]:
    return [node for node in graph.nodes if node.op in ("conv2d", "depthwise_conv2d")]


def variables_of(graph: Graph, family: str) -> dict[tuple[str, str], tuple[int, ...]]:
    """Every variable of the Keras model, (layer, name) -> shape as Keras stores it.

    Kernels: (height, width, in, out), depthwise (height, width, channels, 1), of V2's Dense classifier (in, out).
    """
    shapes: dict[tuple[str, str], tuple[int, ...]] = {}
    for node in _convolutions(graph):
        conv, norm = layer_names(family, node.scope)
        shape = graph.tensors[node.inputs[1]].shape
        if node.op == "depthwise_conv2d":
            shape = (*shape, 1)
        elif family == "v2" and conv == "predictions":
            shape = shape[2:]
        shapes[conv, "kernel"] = shape
        channels = graph.tensors[node.inputs[2]].shape
        if node.batch_norm:
            shapes.update({(norm, name): channels for name in VARIABLE_ORDER["batch_normalization"]})
        else:
            shapes[conv, "bias"] = channels
    return shapes


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
