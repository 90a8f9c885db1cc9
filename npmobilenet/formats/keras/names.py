"""Keras' names for the layers of its MobileNets, beside the TF-slim scopes that the graphs of this project carry.

Source: Keras 3.15.1, keras/src/applications/mobilenet.py, mobilenet_v2.py, mobilenet_v3.py; the spellings of Keras 2
(tf_keras 2.21, tf_keras/src/applications): V3 uses TF-slim's scopes (`expanded_conv_1/depthwise/BatchNorm`), and some
of the published V2 files call the classifier `Logits`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from npmobilenet.errors import ConversionError

SUPPORTED = (
    "supported are keras.applications' MobileNet, MobileNetV2, MobileNetV3Large and MobileNetV3Small (minimalistic "
    "ones too), with or without their classifier, and nothing added to them"
)

# Depthwise convolutions of a family: all four numbers differ, so they tell the families apart in files without names.
DEPTHWISE = {"v1": 13, "v2": 17, "v3_large": 15, "v3_small": 11}
# Convolutions of V3 without squeeze-excite and classifier: first, expansions, projections, last.
_V3_PLAIN = {"v3_large": 1 + 14 + 15 + 1, "v3_small": 1 + 10 + 11 + 1}


def layer_names(family: str, scope: str) -> tuple[str, str]:
    """The Keras names of a convolution and of its batch norm, for the TF-slim scope of a graph's node.

    Examples: ("v1", "MobilenetV1/Conv2d_3_pointwise") -> ("conv_pw_3", "conv_pw_3_bn");
    ("v2", "MobilenetV2/expanded_conv_4/expand") -> ("block_4_expand", "block_4_expand_BN");
    ("v3_large", "MobilenetV3/expanded_conv_3/squeeze_excite/Conv_1") -> ("expanded_conv_3_squeeze_excite_conv_1", ...).
    """
    rest = scope.split("/", 1)[1]
    if family == "v1":
        return _v1_names(rest)
    if family == "v2":
        return _v2_names(rest)
    name = "logits" if rest.startswith("Logits/") else rest.replace("/", "_").lower()
    return name, f"{name}_bn"


def _v1_names(rest: str) -> tuple[str, str]:
    match = re.fullmatch(r"Conv2d_(\d+)(?:_(depthwise|pointwise))?", rest)
    if match is None:
        return "conv_preds", ""
    kind = {None: "conv1", "depthwise": f"conv_dw_{match[1]}", "pointwise": f"conv_pw_{match[1]}"}[match[2]]
    return kind, f"{kind}_bn"


def _v2_names(rest: str) -> tuple[str, str]:
    match = re.fullmatch(r"expanded_conv(?:_(\d+))?/(\w+)", rest)
    if match is not None:
        name = f"block_{match[1]}_{match[2]}" if match[1] else f"expanded_conv_{match[2]}"
        return name, f"{name}_BN"
    return {"Conv": ("Conv1", "bn_Conv1"), "Conv_1": ("Conv_1", "Conv_1_bn")}.get(rest, ("predictions", ""))


def canonical(names: Collection[str]) -> dict[str, str]:
    """Each name in Keras 3's spelling: Keras 2's V3 names and V2's `Logits` are translated, others stay."""
    if any("/BatchNorm" in name for name in names):
        return {name: name.replace("/BatchNorm", "/bn").replace("/", "_").lower() for name in names}
    if "bn_Conv1" in names and "predictions" not in names:
        return {name: "predictions" if name == "Logits" else name for name in names}
    return {name: name for name in names}


def family_of_names(names: Collection[str]) -> str:
    """The family whose layers (in Keras 3's spelling) these are. Raises `ConversionError` if they are nobody's."""
    if any(re.fullmatch(r"conv_dw_\d+", name) for name in names):
        return "v1"
    if any(re.fullmatch(r"block_\d+_(expand|depthwise|project)", name) for name in names):
        return "v2"
    blocks = {int(m[1]) for name in names if (m := re.match(r"expanded_conv_(\d+)_(expand|depthwise|project)", name))}
    if not blocks:
        first = next(iter(names), None)
        found = f"the first layer is {first!r}" if first else "there are no layers with weights"
        raise ConversionError(f"not a model that can be converted: {found}; {SUPPORTED}")
    size = "large" if max(blocks) > 10 else "small"
    plain = not any("squeeze_excite" in name for name in names)
    return f"v3_{size}_minimalistic" if plain else f"v3_{size}"


def family_of_counts(counts: Mapping[str, int]) -> tuple[str, bool]:
    """The family, and whether it has its classifier, from the number of layers of each class with weights.

    Raises `ConversionError` if no MobileNet has so many depthwise convolutions.
    """
    depthwise, convolutions = counts.get("depthwise_conv2d", 0), counts.get("conv2d", 0)
    family = next((name for name, number in DEPTHWISE.items() if number == depthwise), None)
    if family is None:
        raise ConversionError(
            f"the file has no layer names and {depthwise} depthwise convolutions, where the known models have "
            f"{', '.join(f'{n} ({f})' for f, n in DEPTHWISE.items())}; {SUPPORTED}"
        )
    if family == "v1":
        return family, convolutions > DEPTHWISE["v1"] + 1
    if family == "v2":
        return family, counts.get("dense", 0) > 0
    plain = _V3_PLAIN[family]
    if convolutions <= plain + 2:
        return f"{family}_minimalistic", convolutions > plain
    squeeze = 2 * {"v3_large": 8, "v3_small": 9}[family]
    return family, convolutions > plain + squeeze
