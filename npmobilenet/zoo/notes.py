"""Where published and computed numbers part, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from npmobilenet.zoo.checkpoints import Checkpoint

_V1_MACS_075 = (
    "The published MACs are 2.6 % below what TF-slim's code needs; mobilenet_v1.py's own list of layers "
    "has 106.0 M at 128 without classifier, as computed."
)
_V1_MACS_025_192 = "The published 34 M looks like a misprint: 41 M at 224 scale to 30 M at 192."
_V1_PARAMS = "Published parameters include batch norm's gamma and beta."
_V2 = "Published MACs are rounded down; parameters leave out batch norm's gamma and beta."
_V2_SHARED = "The row is shared with the float checkpoint."
_ROUNDED_DOWN = (
    "The published parameters are rounded down, and one decimal does not tell whether they include "
    "batch norm's gamma and beta."
)
_V3_SMALL = (
    "The published MACs and parameters look like those of an older, larger model: the published file "
    "v3-small_224_1.0_uint8.tflite needs 56.5 M and holds 2.54 M, as computed."
)
_V3_SMALL_075 = "The published parameters look like those of an older, larger model, as for V3 small 1.0."
_V3_SMALL_MINIMALISTIC = (
    "The published MACs look like those of an older, larger model, as for V3 small; the parameters fit."
)
_EDGETPU_FLOAT = (
    "The row describes the 8-bit model, whose archive holds this one too; its accuracy and latencies "
    "are left out here because they were measured in 8 bits."
)


def published_note(row: Checkpoint) -> str:
    """Why published and computed MACs or parameters differ, as far as known; else ""."""
    if row.family == "v1":
        macs = _V1_MACS_075 if row.depth_multiplier == 0.75 else ""
        if (row.depth_multiplier, row.resolution) == (0.25, 192):
            macs = _V1_MACS_025_192
        return f"{macs} {_V1_PARAMS}".strip()
    if row.family == "v2":
        return _V2 if row.dtype == "float32" else f"{_V2} {_V2_SHARED}"
    if row.family == "v3_small":
        return _V3_SMALL if row.depth_multiplier == 1 else _V3_SMALL_075
    if row.family == "v3_small_minimalistic":
        return _V3_SMALL_MINIMALISTIC
    if row.family == "edgetpu":
        return _ROUNDED_DOWN if row.dtype == "uint8" else f"{_ROUNDED_DOWN} {_EDGETPU_FLOAT}"
    # V3 large 1.0: 5.46 or 5.48 M, printed as 5.4. The other rows agree when rounded.
    return _ROUNDED_DOWN if (row.family, row.depth_multiplier) == ("v3_large", 1) else ""
