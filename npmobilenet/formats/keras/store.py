"""Reads the variables and the layer list out of the three Keras file formats, trusting nothing in them.

* Legacy `.h5`: `layer_names`, an attribute of `/model_weights` (whole model) or `/` (`save_weights`), and each layer's
  `weight_names` name everything.
* Keras 3 `.weights.h5`: the layers in `/layers` (Keras 2.12: `/_layer_checkpoint_dependencies`) are counted by class
  (`conv2d_5`), their variables numbered. From Keras 3.5 on, a layer's name is an attribute of its `vars` group.
* `.keras`: a zip archive. `config.json` lists the layers, `model.weights.h5` is the format above.

Source: keras/src/legacy/saving/legacy_h5_format.py and keras/src/saving/saving_lib.py, Keras 3.15.1; files written by
Keras 3.0.5, 3.4.1, 3.6.0, 3.9.0 and by tf_keras 2.21 were compared with it.

Only hard links are followed, on every component of a path; datasets must be plain (contiguous, not external, not
virtual) floats, and are read after their shapes have been checked. No class is loaded, nothing is unpacked to disk.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from npmobilenet.errors import ConversionError
from npmobilenet.formats import archive
from npmobilenet.formats.file_kinds import HDF5_MAGIC
from npmobilenet.formats.hdf5_names import member_names
from npmobilenet.formats.keras.hdf5 import (
    MAX_FILE_BYTES,
    MAX_JSON_BYTES,
    MAX_LAYERS,
    Variable,
    child,
    guard,
    has_link,
    limit,
    listed,
    open_hdf5,
    read_names,
    read_text,
    variable,
)  # fmt: skip

# Variables of a layer in the order in which `save_own_variables` numbers them: trainable ones first, each kind in the
# order of `build()`. Source: Keras 3.15.1, keras/src/layers/layer.py (save_own_variables), layers/convolutional/
# base_conv.py and base_depthwise_conv.py, layers/core/dense.py, layers/normalization/batch_normalization.py (build).
# Gamma, beta and the moving statistics have one shape, so nothing but this order tells them apart in a numbered file.
VARIABLE_ORDER: Mapping[str, tuple[str, ...]] = {
    "conv2d": ("kernel", "bias"),
    "depthwise_conv2d": ("kernel", "bias"),
    "dense": ("kernel", "bias"),
    "batch_normalization": ("gamma", "beta", "moving_mean", "moving_variance"),
}
MAX_DEPTH = 16  # models inside each other
_STORE_GROUPS = ("layers", "_layer_checkpoint_dependencies")


@dataclass(frozen=True)
class Store:
    """The content of a file: `layers[layer][variable]` is in a file that is still open.

    `named` says that the keys of `layers` are layer names; otherwise they are class names with a counter
    (`batch_normalization_3`). `keys` maps such keys to names where the file has both. `config` is the parsed
    configuration, None in a weights-only file. `version` is the Keras version that the file declares, or "".

    `parts` holds the variables as the file has them: in a legacy file the layer's name -> {weight name: variable}, else
    the path of class keys (`sequential/conv2d_1`) -> {number: variable}. `nested` names a layer that is a model itself,
    whose variables are in `parts` only.
    """

    kind: str
    layers: dict[str, dict[str, Variable]]
    named: bool
    config: dict[str, Any] | None
    version: str
    keys: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, Mapping[str, Variable]] = field(default_factory=dict)
    nested: str = ""

    def flat(self) -> Store:
        """The store itself; raises `ConversionError` if a layer of it is a model itself."""
        if self.nested:
            raise ConversionError(
                f"layer {self.nested!r} is a model inside the model, and the file has no configuration that says what "
                "stands around it; save the whole model: model.save('model.keras')"
            )
        return self


@contextmanager
def open_store(path: Path) -> Iterator[Store]:
    """Open `path`, whose content (not its suffix) decides which format it is; the datasets live as long as the context.

    Raises `ConversionError` for a file that can't be read, isn't one of the three formats, or holds what a Keras model
    has no need of: links other than hard ones, external or virtual or compressed datasets, huge members.
    """
    if not path.is_file():
        raise ConversionError(f"'{path}' is not a file")
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            magic = file.read(8)
    except (OSError, ValueError) as error:
        raise ConversionError(f"'{path}' can't be read: {error}") from error
    if size > MAX_FILE_BYTES:
        raise ConversionError(f"'{path.name}' has {size} bytes, more than the {MAX_FILE_BYTES} that are read")
    if magic[:4] == b"PK\x03\x04":
        with _open_archive(path) as store:
            yield store
    elif magic == HDF5_MAGIC:
        with open_hdf5(path, path.name) as file:
            yield guard(path.name, _read_hdf5, file, path.name)
    else:
        raise ConversionError(
            f"'{path.name}' is neither HDF5 (.h5, .weights.h5) nor a zip archive (.keras): it starts with {magic!r}; "
            "fetch it again, or save the model anew"
        )


# ---------------------------------------------------------------------------------------------------------------------
# .keras


@contextmanager
def _open_archive(path: Path) -> Iterator[Store]:
    config, version, weights = _read_archive(path)
    with open_hdf5(io.BytesIO(weights), f"{path.name}:model.weights.h5") as file:
        yield guard(path.name, _numbered, file, ".keras", config, version)


def _read_archive(path: Path) -> tuple[dict[str, Any], str, bytes]:
    try:
        with archive.opened(path) as file:
            config = _json(_member(file, "config.json", MAX_JSON_BYTES), "config.json")
            metadata = _json(_member(file, "metadata.json", MAX_JSON_BYTES, optional=True) or b"{}", "metadata.json")
            weights = _member(file, "model.weights.h5", MAX_FILE_BYTES)
    except archive.ERRORS as error:
        raise ConversionError(f"'{path.name}' can't be read as a .keras file, it is damaged: {error}") from error
    return config, str(metadata.get("keras_version", ""))[:40], weights


def _member(file: zipfile.ZipFile, name: str, limit: int, optional: bool = False) -> bytes:
    found = [info for info in file.infolist() if info.filename == name]
    if not found and optional:
        return b""
    if len(found) != 1:
        raise ConversionError(
            f"the archive has {len(found)} members called '{name}', expected one: not a .keras file of Keras 3"
        )
    if found[0].file_size > limit:
        raise ConversionError(f"'{name}' in the archive has {found[0].file_size} bytes, more than {limit}")
    with archive.member(file, found[0], limit) as member:
        return member.read()


def _json(text: str | bytes, where: str) -> dict[str, Any]:
    if len(text) > MAX_JSON_BYTES:
        raise ConversionError(f"{where} has {len(text)} bytes, more than {MAX_JSON_BYTES}")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConversionError(f"{where} is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise ConversionError(f"{where} holds a {type(data).__name__}, expected an object")
    return data


# ---------------------------------------------------------------------------------------------------------------------
# HDF5


def _read_hdf5(file: Any, name: str) -> Store:
    if any(has_link(file, group) for group in _STORE_GROUPS):
        return _numbered(file, ".weights.h5", None, "")
    whole = has_link(file, "model_weights")
    root = child(file, "model_weights", "group") if whole else file
    if "layer_names" not in root.attrs and "layer_names0" not in root.attrs:
        raise ConversionError(
            f"'{name}' is not a Keras file: it has neither '/layers' (.weights.h5) nor 'layer_names' (legacy .h5); "
            f"it holds {listed(member_names(file))}"
        )
    config = _json(read_text(file, "model_config"), "model_config") if "model_config" in file.attrs else None
    version = read_text(root, "keras_version") if "keras_version" in root.attrs else ""
    parts, nested = _read_legacy(root)
    layers = {} if nested else {name: _leaves(group) for name, group in parts.items() if group}
    return Store("legacy .h5", layers, True, config, version[:40], parts=parts, nested=nested)


def _numbered(file: Any, kind: str, config: dict[str, Any] | None, version: str) -> Store:
    """`layers/<class>_<counter>/vars/<number>`: the layers, by name (all or none) where the file has names."""
    layers: dict[str, dict[str, Variable]] = {}
    parts, names, nested = _read_numbered(file)
    for key, variables in parts.items():
        names_of = {str(place): name for place, name in enumerate(VARIABLE_ORDER.get(class_of(key), ()))}
        layers[key] = {names_of.get(number, number): found for number, found in variables.items()}
        if len(layers[key]) != len(variables):
            raise ConversionError(f"layer {key!r} has a variable both by number and by name: {listed(list(variables))}")
    if nested:
        return Store(kind, {}, False, config, version, names, parts, nested)
    if names and set(names) != set(layers):
        raise ConversionError(f"some layers have no name: {listed(sorted(set(layers) - set(names)))}")
    return named(Store(kind, layers, False, config, version, parts=parts), names)


def _read_numbered(file: Any) -> tuple[dict[str, dict[str, Variable]], dict[str, str], str]:
    """Variables and names by the path of class keys, and the key of the first layer that is a model itself."""
    parts: dict[str, dict[str, Variable]] = {}
    names: dict[str, str] = {}
    nested = ""
    group = next((name for name in _STORE_GROUPS if has_link(file, name)), None)
    if group is None:
        raise ConversionError(f"no group '/layers' in the HDF5 file: it holds {listed(member_names(file))}")
    models = [("", child(file, group, "group"))]
    seen = 0
    for prefix, parent in models:  # grows while it is walked
        seen += len(parent)
        limit(seen, MAX_LAYERS, "layers")
        limit(prefix.count("/"), MAX_DEPTH, "models inside each other")
        for key in member_names(parent):
            layer = child(parent, key, "group")
            inner = next((name for name in _STORE_GROUPS if has_link(layer, name)), None)
            if inner is not None:
                nested = nested or key
                models.append((f"{prefix}{key}/", child(layer, inner, "group")))
            if not has_link(layer, "vars"):
                continue
            variables = child(layer, "vars", "group")
            if len(variables) == 0:
                continue
            limit(len(variables), 100, f"variables in layer '{key}'")
            if "name" in variables.attrs:
                names[prefix + key] = read_text(variables, "name")
            parts[prefix + key] = {number: variable(variables, number) for number in member_names(variables)}
    return parts, names, nested


def class_of(key: str) -> str:
    """`batch_normalization_3` -> `batch_normalization`."""
    stem, _, counter = key.rpartition("_")
    return stem if stem and counter.isdecimal() else key


def named(store: Store, names: Mapping[str, str]) -> Store:
    """The store with names in place of its class keys; keys that `names` lacks stay. No names: the store as it is.

    Raises `ConversionError` if two layers would have one name.
    """
    if not names:
        return store
    layers: dict[str, dict[str, Variable]] = {}
    for key, variables in store.layers.items():
        name = names.get(key, key)
        if name in layers:
            raise ConversionError(f"two layers are called {name!r}")
        layers[name] = variables
    return replace(store, layers=layers, named=True, keys=names)


def _read_legacy(root: Any) -> tuple[dict[str, dict[str, Variable]], str]:
    """`<layer>/<weight name>`, both listed in attributes, and the first layer that is a model itself."""
    parts: dict[str, dict[str, Variable]] = {}
    nested = ""
    for layer in read_names(root, "layer_names"):
        group = child(root, layer, "group")
        weights = read_names(group, "weight_names")
        if layer in parts:
            raise ConversionError(f"two layers are called {layer!r}")
        parts[layer] = {weight: variable(group, weight) for weight in weights}
        if len(_leaves(parts[layer])) < len(weights):
            nested = nested or layer
    return parts, nested


def leaf(weight: str) -> str:
    """A variable's own name: the end of a weight's name, as in `conv/kernel`, `bn/gamma:0`."""
    return weight.rsplit("/", 1)[-1].partition(":")[0]


def _leaves(weights: Mapping[str, Variable]) -> dict[str, Variable]:
    """The variables of a layer by their own names; a depthwise kernel alone is called as any other."""
    found = {leaf(name): variable for name, variable in weights.items()}
    if "pointwise_kernel" in found or "depthwise_kernel" not in found or "kernel" in found:
        return found
    return {"kernel" if name == "depthwise_kernel" else name: variable for name, variable in found.items()}
