"""Names of models: the canonical form, and the rules by which others spell the same models.

Canonical names are `mobilenet_{family}_{depth multiplier}_{resolution}`, followed by `_uint8` for the
8-bit variants: `mobilenet_v2_1.4_224`, `mobilenet_v3_large_minimalistic_1.0_224_uint8`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from npmobilenet.zoo import SPECS

# In the order in which list_models sorts them; the detection backbones have no published checkpoint.
FAMILIES = tuple(SPECS)

_CANONICAL = re.compile(
    r"mobilenet_(?P<family>[a-z0-9_]+)"
    r"_(?P<multiplier>[0-9]{1,2}\.[0-9]{1,4})"
    r"_(?P<height>[0-9]{1,5})(?:x(?P<width>[0-9]{1,5}))?"
    r"(?P<suffix>_uint8)?"
)

# Keras: keras/src/applications/mobilenet.py, mobilenet_v2.py, mobilenet_v3.py (3.15): names of weight
# files, of models, and of functions (which default to multiplier 1 and 224 x 224).
_KERAS_ALPHA = {1.0: "1_0", 0.75: "7_5", 0.5: "5_0", 0.25: "2_5"}
_KERAS_FUNCTION = {
    "v1": "MobileNet",
    "v2": "MobileNetV2",
    "v3_large": "MobileNetV3Large",
    "v3_small": "MobileNetV3Small",
}
# timm: timm/models/efficientnet.py and mobilenetv3.py; the multiplier in percent follows. Models whose names begin with
# "tf_" have TF-slim's own weights and padding; the others are the same architectures, trained by their authors, with
# PyTorch's symmetric padding.
_TIMM_PORTS = {
    "v3_large": "tf_mobilenetv3_large",
    "v3_small": "tf_mobilenetv3_small",
    "v3_large_minimalistic": "tf_mobilenetv3_large_minimal",
    "v3_small_minimalistic": "tf_mobilenetv3_small_minimal",
}
_TIMM_OWN = {
    "v1": "mobilenetv1",
    "v2": "mobilenetv2",
    "v3_large": "mobilenetv3_large",
    "v3_small": "mobilenetv3_small",
    "edgetpu": "mobilenet_edgetpu",
}
# torchvision/models/mobilenetv2.py and mobilenetv3.py: `mobilenet_v2` and so on, of multiplier 1 for 224 x 224.
_TORCHVISION = ("v2", "v3_large", "v3_small")


@dataclass(frozen=True, kw_only=True)
class ModelName:
    """What a canonical name says. `resolution` is the side of a square image, else (height, width)."""

    family: str
    depth_multiplier: float
    resolution: int | tuple[int, int]
    dtype: str = "float32"

    def __str__(self) -> str:
        """The canonical name."""
        size = self.resolution
        side = str(size) if isinstance(size, int) else f"{size[0]}x{size[1]}"
        suffix = "_uint8" if self.dtype == "uint8" else ""
        return f"mobilenet_{self.family}_{self.depth_multiplier}_{side}{suffix}"


def normalise(name: str) -> str:
    """What look-ups compare: lower case, "_" for "-" and for spaces."""
    return name.strip().casefold().replace("-", "_").replace(" ", "_")


def canonical(key: str) -> ModelName | None:
    """Read a normalised name of canonical form; None for anything else, such as a size of 0."""
    match = _CANONICAL.fullmatch(key)
    if match is None or match["family"] not in FAMILIES:
        return None
    multiplier, height = float(match["multiplier"]), int(match["height"])
    width = int(match["width"] or height)
    if multiplier <= 0 or height < 1 or width < 1:
        return None
    return ModelName(
        family=match["family"],
        depth_multiplier=multiplier,
        resolution=height if height == width else (height, width),
        dtype="uint8" if match["suffix"] else "float32",
    )


def spellings(model: ModelName, label: str, archive: str) -> Iterator[str]:
    """Every other name of a published model, by the rules of those who use them; may repeat itself.

    Only names under which the same weights are known: those of `relatives` are no spellings.
    `label` is the text of its row ("" if no row is its own), `archive` the stem of its .tgz file.
    """
    name = str(model)
    kind = "uint8" if model.dtype == "uint8" else "float"
    if label:
        yield label
    if model.family == "edgetpu":  # one archive for both, so its bare name means the float model
        yield f"{archive}_{kind}"
    if model.family != "edgetpu" or kind == "float":
        yield archive
    yield name.replace(".", "_")  # where file names have no dots
    if kind == "uint8":
        # Files of TensorFlow Lite's hosted models and of Coral: mobilenet_v2_1.0_224_quant.tflite
        quant = f"{name.removesuffix('_uint8')}_quant"
        yield quant
        yield quant.replace(".", "_")
        return
    yield from _float_spellings(model, name)


def _float_spellings(model: ModelName, name: str) -> Iterator[str]:
    family, multiplier, size = model.family, model.depth_multiplier, model.resolution
    yield f"mobilenet_{family}_{_percent(model)}_{size}"  # TensorFlow Hub
    if family == "v1":
        yield f"mobilenet_{_KERAS_ALPHA[multiplier]}_{size}_tf"
        yield f"mobilenet_{multiplier:.2f}_{size}"
    elif family == "v2":
        yield f"mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{multiplier}_{size}"
        yield f"mobilenetv2_{multiplier:.2f}_{size}"
    elif family.startswith("v3"):
        yield f"weights_mobilenet_{family}_{size}_{multiplier}_float"
    if family in {"v1", "v2"}:
        yield f"google/{name}"  # Hugging Face
    if (multiplier, size) == (1, 224):
        if family not in _TORCHVISION:
            yield f"mobilenet_{family}"  # TF-slim's builders
        if family in _KERAS_FUNCTION:
            yield _KERAS_FUNCTION[family]
    yield from timm_ports(model)


def timm_ports(model: ModelName) -> list[str]:
    """timm's name of a published model's own weights: float models for 224 x 224 images."""
    return _in_timm(model, _TIMM_PORTS)


def timm_relatives(model: ModelName) -> list[str]:
    """timm's name of a model of the same architecture with other weights and another padding."""
    return _in_timm(model, _TIMM_OWN)


def relatives(model: ModelName) -> Iterator[tuple[str, str]]:
    """Names of the same architecture with other weights and another padding, each with the package that gives it."""
    for name in timm_relatives(model):
        yield name, "timm"
    if model.family in _TORCHVISION and (model.depth_multiplier, model.resolution, model.dtype) == (1, 224, "float32"):
        yield f"mobilenet_{model.family}", "torchvision"


def _in_timm(model: ModelName, prefixes: dict[str, str]) -> list[str]:
    if model.dtype != "float32" or model.resolution != 224 or model.family not in prefixes:
        return []
    return [f"{prefixes[model.family]}_{_percent(model)}"]


def _percent(model: ModelName) -> str:
    return f"{round(model.depth_multiplier * 100):03d}"
