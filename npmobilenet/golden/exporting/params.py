"""params.h: all that a C program must know of each node beside its arrays, as macros."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from npmobilenet.golden.comparing import axes
from npmobilenet.golden.exporting.arrays import macros
from npmobilenet.graph import Node, Tensor
from npmobilenet.ops import OPS

RULES = ("rule", "lanes")  # parameters that name a rounding rule
_SIDES = ("top", "bottom", "left", "right")


def spatial(node: Node, tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Stride, padding, dilation and window of a node that has them, each number by itself."""
    found: dict[str, int] = {}
    weights = tensors[node.inputs[1]].shape if OPS[node.op].weights == 2 else ()
    kernel = node.attrs.get("kernel", weights[:2] if len(weights) > 2 else ())
    pairs = {"kernel": kernel, "stride": node.attrs.get("stride", ()), "dilation": node.attrs.get("dilation", ())}
    if kernel and weights and not pairs["dilation"]:
        pairs["dilation"] = (1, 1)
    for what, pair in pairs.items():
        found |= {f"{what}_{side}": number for side, number in zip("hw", pair, strict=False)}
    if "padding" in node.attrs:
        found |= {f"pad_{side}": n for side, n in zip(_SIDES, sum(node.attrs["padding"], ()), strict=True)}
    if node.op == "depthwise_conv2d":
        found["depth_multiplier"] = node.attrs.get("multiplier", 1)
    return found


def params_h(manifest: Mapping[str, Any]) -> str:
    """The header's text: every node's numbers, and all the arrays' headers.

    A node's names begin with its symbol. Shapes are INPUT_H, INPUT_W, INPUT_C (INPUT1_... of a second operand) and
    OUTPUT_...; RULE is one of the RULE_... that are numbered at the top.
    """
    rules = sorted(
        {node["parameters"][key] for node in manifest["nodes"] for key in RULES if key in node["parameters"]}
    )
    lines = ["/* written by npmobilenet golden export; manifest.json describes the symbols */\n#ifndef PARAMS_H\n"]
    lines.append("#define PARAMS_H\n")
    lines += [f"#define RULE_{rule.upper()} {number}\n" for number, rule in enumerate(rules, 1)]
    for node in manifest["nodes"]:
        lines.append(f"/* {node['op']} */\n")
        lines.append(macros({f"{node['symbol']}_{key}".upper(): value for key, value in _numbers(node).items()}))
        lines += [f'#include "{file["file"]}"\n' for file in node["files"].values()]
    lines += [f'#include "{vector["file"]}"\n' for vector in manifest.get("vectors", [])]
    return "".join([*lines, "#endif\n"])


def _numbers(node: Mapping[str, Any]) -> dict[str, int | float | str]:
    """Every number of a node by its name."""
    found: dict[str, int | float | str] = {}
    ports = {"input" + (str(i) if i else ""): port for i, port in enumerate(node["inputs"])}
    for what, port in {**ports, "output": node["output"]}.items():
        named = zip(axes(len(port["shape"])), port["shape"], strict=True)
        found |= {f"{what}_{axis}": size for axis, size in named if axis != "N"}
    found |= node["spatial"]
    for key, value in node["parameters"].items():
        if key in RULES:
            found[key] = f"RULE_{value}".upper()
        elif isinstance(value, list):
            found |= {f"{key}_{i}": part for i, part in enumerate(value)}
        elif isinstance(value, (int, float)):
            found[key] = int(value) if isinstance(value, bool) else value
    return found
