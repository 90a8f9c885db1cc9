"""What a configuration says of a layer's calls: references to other calls' results, and constants.

Keras 3 writes a tensor as `{"class_name": "__keras_tensor__", "config": {"keras_history": [layer, call, output]}}`, an
array as `{"class_name": "__numpy__", "config": {"value": ...}}`; Keras 2 writes `[layer, call, output, {keyword:
value}]`, and an array as a list of numbers.

Source: Keras 3.15.1, keras/src/models/functional.py (serialize_node), keras/src/saving/serialization_lib.py; tf_keras
2.21, tf_keras/src/engine/node.py (serialize).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from npmobilenet.modeldata import Array

_CONSTANT = "_CONSTANT_VALUE"  # tf_keras: the first operand of an operation is a number or an array
_ARRAYS = ("__numpy__", "__tensor__")


@dataclass(frozen=True)
class Reference:
    """Output `output` of call `call` of a layer, as a configuration says it; `keras2`: in Keras 2's way."""

    layer: str
    call: int
    output: int
    keras2: bool = True


def references(value: Any) -> list[tuple[str, int, int]]:
    """`["x", 0, 0]` or a list or a mapping of such."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list) and len(value) == 3 and isinstance(value[0], str) and isinstance(value[1], int):
        return [(value[0], int(value[1]), int(value[2]))]
    return [found for item in value for found in references(item)]


def _is_call(item: Any) -> bool:
    """`[layer, call, output]` or `[layer, call, output, keywords]`, or a number in the first's place."""
    if not (isinstance(item, list) and len(item) in (3, 4) and isinstance(item[0], str)):
        return False
    return item[0] == _CONSTANT or all(isinstance(i, int) and not isinstance(i, bool) for i in item[1:3])


def arguments(node: Any) -> tuple[list[Any], dict[str, Any]]:
    """Positional and keyword arguments of a call, tensors in them as `Reference`."""
    if isinstance(node, Mapping):
        return [_marked(item) for item in node["args"]], {k: _marked(v) for k, v in node["kwargs"].items()}
    items = [node] if _is_call(node) else list(node)
    args, kwargs = [], {}
    for item in items:
        args.append(item[2] if item[0] == _CONSTANT else Reference(item[0], item[1], item[2]))
        if len(item) > 3:
            kwargs.update({word: _marked(value) for word, value in (item[3] or {}).items()})
    return ([args] if len(items) > 1 else args), kwargs


def _marked(item: Any) -> Any:
    if isinstance(item, Mapping):
        if item.get("class_name") == "__keras_tensor__":
            name, call, output = item["config"]["keras_history"]
            return Reference(str(name), int(call), int(output), False)
        return item["config"]["value"] if item.get("class_name") in _ARRAYS else item
    if _is_call(item):
        return Reference(item[0], item[1], item[2])
    return [_marked(part) for part in item] if isinstance(item, list) else item


def numbers(item: Any) -> Array | None:
    """The array that a list of numbers, or of lists of such, stands for; None for anything else."""
    if isinstance(item, np.ndarray):
        return item
    if not isinstance(item, list) or not item:
        return None
    leaves = np.asarray(item, object).reshape(-1)  # lists of other lengths are leaves
    if not all(isinstance(leaf, (int, float)) and not isinstance(leaf, bool) and abs(leaf) < 2**128 for leaf in leaves):
        return None
    return np.asarray(item, np.float64)


def plain(value: Any) -> Any:
    """A setting, without the wrapping of an array: Keras 2.2 wrote ReLU's as `{"type": "ndarray", "value": 6.0}`."""
    wrapped = isinstance(value, Mapping) and value.get("type") == "ndarray"
    return value["value"] if wrapped and "value" in value else value


def inner(items: Iterable[Any]) -> list[Reference]:
    """All references in these, however deep."""
    found = []
    for item in items:
        if isinstance(item, Reference):
            found.append(item)
        elif isinstance(item, list):
            found += inner(item)
    return found
