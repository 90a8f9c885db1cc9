"""Operations that pick values out by position, or change which axes there are.

Source: Keras 3.15.1, keras/src/ops/core.py and numpy.py (GetItem, Squeeze, ExpandDims), keras/src/saving/
serialization_lib.py (__slice__, __ellipsis__); tf_keras 2.21, tf_keras/src/layers/core/tf_op_layer.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from npmobilenet.formats.keras.sheet import Sheet, refuse
from npmobilenet.formats.keras.topology import Call

MOST_PARTS = 64  # slices that one operation may become


def get_item(sheet: Sheet, call: Call) -> str:
    """`x[..., 1:-1, ::2, 0]`: slices and numbers for axes behind the batch, which stays whole."""
    x = sheet.operand(call)
    given = call.kwargs.get("slice_spec", call.kwargs.get("key", call.args[1] if len(call.args) > 1 else None))
    items = list(given) if isinstance(given, list) else [given]
    shape = sheet.shape(x)
    dots = [place for place, item in enumerate(items) if isinstance(item, Mapping) and "ellipsis" in str(item)]
    for place in dots[:1]:
        items[place : place + 1] = [{}] * (len(shape) - len(items) + 1)
    if len(items) > len(shape) or len(dots) > 1:
        refuse(call, f"{len(items)} slices of {shape}")
    gone = []
    for axis, item in enumerate(items):
        taken = _range(call, item, shape[axis])
        if axis == 0:
            if isinstance(item, int) or taken != range(len(taken)):
                refuse(call, "it takes some of the images, and the batch must stay whole")
            continue
        gone += [axis] if isinstance(item, int) else []
        x = _taken(sheet, call, x, axis, taken)
    left = tuple(size for axis, size in enumerate(sheet.shape(x)) if axis not in gone)
    return sheet.node("reshape", [x], call.name, shape=left) if gone else x


def _range(call: Call, item: Any, size: int) -> range:
    """The places that a slice or a number takes."""
    found = range(0)
    if isinstance(item, Mapping):
        said = item.get("config", item)
        bounds = [said.get(key) for key in ("start", "stop", "step")]
        if all(b is None or (isinstance(b, int) and not isinstance(b, bool)) for b in bounds) and bounds[2] != 0:
            found = range(*slice(*bounds).indices(size))
    elif isinstance(item, int) and not isinstance(item, bool) and -size <= item < size:
        found = range(item % size, item % size + 1)
    if not found:
        refuse(call, f"the slice {item!r:.60} of {size} values: expected whole numbers that leave some")
    return found


def _taken(sheet: Sheet, call: Call, x: str, axis: int, taken: range) -> str:
    if taken == range(sheet.shape(x)[axis]):
        return x
    if taken.step > 0:
        return sheet.node("slice", [x], call.name, axis=axis, first=taken.start, length=len(taken), step=taken.step)
    if len(taken) > MOST_PARTS:
        refuse(call, f"{len(taken)} values backwards: expected at most {MOST_PARTS}")
    parts = [sheet.node("slice", [x], f"{call.name}_{place}", axis=axis, first=place, length=1) for place in taken]
    return sheet.node("concat", parts, call.name, axis=axis)


def squeeze(sheet: Sheet, call: Call) -> str:
    """Axes of length 1 go."""
    x, said = sheet.operand(call), {**call.config, **call.kwargs}
    shape, given = sheet.shape(x), said.get("axis")
    axes = [given] if isinstance(given, int) else list(given or range(1, len(shape)))
    kept = [axis for axis in range(len(shape)) if axis not in [a % len(shape) for a in axes]]
    gone = [size for axis, size in enumerate(shape) if axis not in kept]
    if 0 not in kept or (given and max(gone) > 1):
        refuse(call, f"axis is {given!r:.40} of {shape}: expected axes of length 1")
    return sheet.node("reshape", [x], call.name, shape=tuple(s for a, s in enumerate(shape) if a in kept or s > 1))


def expand_dims(sheet: Sheet, call: Call) -> str:
    """An axis of length 1 more."""
    x, axis = sheet.operand(call), {**call.config, **call.kwargs}.get("axis")
    shape = list(sheet.shape(x))
    place = axis % (len(shape) + 1) if isinstance(axis, int) else 0
    if not 1 <= place <= len(shape):
        refuse(call, f"axis is {axis!r:.40}: expected from 1 to {len(shape)}")
    shape.insert(place, 1)
    return sheet.node("reshape", [x], call.name, shape=tuple(shape))
