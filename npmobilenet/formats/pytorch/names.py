"""The variables of timm's and torchvision's state dicts: their names and shapes, for each node of a model's graph.

Sources: huggingface/pytorch-image-models timm/models/_efficientnet_blocks.py, efficientnet.py and mobilenetv3.py (names
of modules); pytorch/vision torchvision/models/mobilenetv2.py, mobilenetv3.py, torchvision/ops/misc.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from npmobilenet.graph import Graph, Node
from npmobilenet.zoo.pytorch import TorchModel
from npmobilenet.zoo.rows import Conv, Fused, Row, Separable, Universal

BATCH_NORM = ("weight", "bias", "running_mean", "running_var")
_NODE = re.compile(r"(?:layer_|Conv2d_)(\d+)(?:[/_](.+))?")
_LOGITS = "Logits/Conv2d_1c_1x1"
_SQUEEZE, _EXCITE, _DEPTHWISE = "squeeze_excite/squeeze", "squeeze_excite/excite", "depthwise_output"
_START, _EXPAND = "start_depthwise_output", "expansion_output"


@dataclass(frozen=True)
class Layer:
    """A convolution of the graph, and its modules: `norm` is "" where there is no batch norm.

    `linear`: its weights are those of a fully connected layer. `bias`: it has one, where there is no batch norm.
    """

    node: Node
    conv: str
    norm: str = ""
    linear: bool = False
    bias: bool = True

    def variables(self, graph: Graph) -> dict[str, tuple[int, ...]]:
        """Name -> shape, as PyTorch stores them: (out, in, height, width), or (out, in)."""
        weights = graph.tensors[self.node.inputs[1]].shape
        channels = weights[-1:]
        if self.linear:
            shape: tuple[int, ...] = (*channels, weights[2])
        elif self.node.op == "depthwise_conv2d":
            shape = (*channels, 1, *weights[:2])
        else:
            shape = (*channels, weights[2], *weights[:2])
        found = {f"{self.conv}.weight": shape}
        if self.norm:
            found.update({f"{self.norm}.{leaf}": channels for leaf in BATCH_NORM})
        elif self.bias:
            found[f"{self.conv}.bias"] = channels
        return found


def layers_of(model: TorchModel, graph: Graph, names: Mapping[str, object]) -> list[Layer]:
    """Every convolution of the graph with its modules. `names` are those of the state dict, where a choice is left."""
    spec, stages = model.layout()
    expanded = {node.name.partition("/")[0] for node in graph.nodes if node.name.endswith(f"/{_EXPAND}")}
    places = list(_places(stages))
    found = []
    for node in graph.nodes:
        match = _NODE.fullmatch(node.name)
        if not node.scope:
            continue
        if match is None or node.name == _LOGITS:
            found.append(Layer(node, _classifier(model, names), linear=True))
            continue
        v1 = node.name.startswith("Conv2d_")
        index, leaf = int(match[1]) - (not v1), match[2] or ""
        row, expands = spec.rows[index], node.name.partition("/")[0] in expanded
        if model.package == "timm":
            place = places[index - 1] if 0 < index <= len(places) else ""
            conv, norm = _timm(model, row, index, place, leaf, expands)
            linear = False
        else:
            conv, norm = _torchvision(model, row, index, leaf, expands)
            linear = isinstance(row, Conv) and not row.bn
        found.append(Layer(node, conv, norm if node.batch_norm else "", linear, model.bare != "mobilenetv3_rw"
                           or conv != "conv_head"))  # fmt: skip
    return found


def _places(stages: tuple[int, ...]) -> Iterator[str]:
    for stage, count in enumerate(stages):
        yield from (f"blocks.{stage}.{block}" for block in range(count))


def _classifier(model: TorchModel, names: Mapping[str, object]) -> str:
    """The one layer below `classifier`, whatever a user put it into; torchvision's V3 has two, in a Sequential."""
    found, v2 = classifiers(names), model.family == "v2"
    if len(found) == 1 and (v2 or model.lone or model.package == "timm"):
        return found[0]
    return "classifier" if model.package == "timm" else "classifier.1" if v2 else "classifier.3"


def classifiers(names: Mapping[str, object]) -> list[str]:
    """The layers with weights below `classifier`."""
    return [n.removesuffix(".weight") for n in names if n.startswith("classifier.") and n.endswith(".weight")]


def classes_of(model: TorchModel, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """How many outputs the classifier has; 0 without one."""
    shape = shapes.get(f"{_classifier(model, shapes)}.weight", ())
    return shape[0] if len(shape) == 2 else 0


def _timm(model: TorchModel, row: Row, index: int, place: str, leaf: str, expands: bool) -> tuple[str, str]:
    if index == 0:
        return "conv_stem", "bn1"
    if not place:
        return "conv_head", "norm_head" if model.family.startswith("v4") else "bn2"
    if isinstance(row, Conv):
        names = {"": ("conv", "bn1")}
    elif isinstance(row, Separable):
        names = {"depthwise": ("conv_dw", "bn1"), "pointwise": ("conv_pw", "bn2")}
    elif isinstance(row, Universal):
        parts = {_START: "dw_start", _EXPAND: "pw_exp", _DEPTHWISE: "dw_mid"}
        names = {at: (f"{part}.conv", f"{part}.bn") for at, part in (*parts.items(), ("output", "pw_proj"))}
    elif isinstance(row, Fused):
        names = {_EXPAND: ("conv_exp", "bn1"), "output": ("conv_pwl", "bn2")}
    elif expands:
        names = {_EXPAND: ("conv_pw", "bn1"), _DEPTHWISE: ("conv_dw", "bn2"), "output": ("conv_pwl", "bn3")}
    else:
        names = {_DEPTHWISE: ("conv_dw", "bn1"), "output": ("conv_pw", "bn2")}
    names.update({_SQUEEZE: ("se.conv_reduce", ""), _EXCITE: ("se.conv_expand", "")})
    conv, norm = names[leaf.removeprefix("projection_")]
    return f"{place}.{conv}", f"{place}.{norm}"


def _torchvision(model: TorchModel, row: Row, index: int, leaf: str, expands: bool) -> tuple[str, str]:
    if isinstance(row, Conv):
        number = index if row.bn or index == 0 else 0
        return (f"features.{number}.0", f"features.{number}.1") if row.bn else ("classifier.0", "")
    if model.family == "v2":
        at = {_EXPAND: "0", _DEPTHWISE: str(int(expands))}.get(leaf)
        base = f"features.{index}.conv"
        if at is not None:
            return f"{base}.{at}.0", f"{base}.{at}.1"
        return f"{base}.{1 + expands}", f"{base}.{2 + expands}"
    squeezes = getattr(row, "se", False)
    order = [_EXPAND] * expands + [_DEPTHWISE] + ["se"] * squeezes + ["output"]
    base = f"features.{index}.block"
    if leaf in (_SQUEEZE, _EXCITE):
        return f"{base}.{order.index('se')}.{'fc1' if leaf == _SQUEEZE else 'fc2'}", ""
    at = str(order.index(leaf.removeprefix("projection_")))
    return f"{base}.{at}.0", f"{base}.{at}.1"
