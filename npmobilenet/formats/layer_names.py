"""Layers' names as people read them. TensorFlow Lite's converter lists every op that it merged into a layer."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

# What TensorFlow appends to a layer's name for the op that a fused layer ends in.
_LAST_OP = re.compile(
    r"(Relu6?|relu6?|BiasAdd|add_fold|FusedBatchNormV3|[Bb]atch_?[Nn]orm|Conv2D|convolution|separable_conv2d|add_1|mul_1)"
    r"(_\d+)?"
)


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Names of tensors without what says nothing: "V1/V1/Conv_1_depthwise/Relu6;V1/..." is "Conv_1_depthwise".

    Left out are merged nodes behind the first, folders that most of the names begin with, and the op at the end, as
    long as no two tensors come to be called the same.
    """
    first = {name: name.split(";")[0].removeprefix("StatefulPartitionedCall/") for name in names}
    parts = {name: text.split("/") for name, text in first.items()}
    for _ in range(3):
        heads = Counter(p[0] for p in parts.values() if len(p) > 1)
        head, count = heads.most_common(1)[0] if heads else ("", 0)
        if 2 * count <= len(names):
            break
        parts = {name: p[1:] if len(p) > 1 and p[0] == head else p for name, p in parts.items()}
    ends = {name: p[:-1] if len(p) > 1 and _LAST_OP.fullmatch(p[-1]) else p for name, p in parts.items()}
    found = dict.fromkeys(names, "")
    for tries in ({n: "/".join(p) for n, p in ends.items()}, {n: "/".join(p) for n, p in parts.items()}, first):
        used = Counter(tries.values())
        taken = set(found.values())
        found |= {n: t for n, t in tries.items() if not found[n] and used[t] == 1 and t not in taken}
    return {name: text or name for name, text in found.items()}


def unused_name(name: str, used: set[str]) -> str:
    """`name`, or `name_2` and so on, the first that is not among `used`; it is from now on."""
    found, count = name, 1
    while found in used:
        count += 1
        found = f"{name}_{count}"
    used.add(found)
    return found
