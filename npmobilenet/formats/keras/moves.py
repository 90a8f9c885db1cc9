"""Layers that move values: padding, cropping, resizing, joining, other shapes and orders of axes.

Source: Keras 3.15.1, keras/src/layers/reshaping, merging/concatenate.py, preprocessing/image_preprocessing; tf_keras
2.21, tf_keras/src/layers/preprocessing/image_preprocessing.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from npmobilenet.formats.keras.sheet import Sheet, refuse
from npmobilenet.formats.keras.topology import Call, Value

MAX_SIDE = 8192


def channels_last(call: Call) -> None:
    """Refuse a layer whose images have their channels first."""
    if call.config.get("data_format") == "channels_first":
        refuse(call, "it has channels first; build the model with data_format='channels_last'")


def concatenate(sheet: Sheet, call: Call) -> str:
    """Along any axis but the batch's."""
    tensors = [sheet.tensor(value) for value in call.operands if isinstance(value, Value)]
    axis = call.config.get("axis", call.kwargs.get("axis", -1))
    rank = len(sheet.shape(tensors[0]))
    if not isinstance(axis, int) or not 1 <= axis % rank < rank or not -rank <= axis < rank:
        refuse(call, f"axis is {axis!r:.40}, expected from 1 to {rank - 1}")
    return tensors[0] if len(tensors) == 1 else sheet.node("concat", tensors, call.name, axis=axis % rank)


def reshape(sheet: Sheet, call: Call) -> str:
    """Flatten, Reshape, squeezes: the elements stay in order."""
    x = sheet.operand(call)
    size = math.prod(sheet.shape(x))
    if call.kind == "Flatten":
        if call.config.get("data_format") == "channels_first" and len(sheet.shape(x)) > 2:
            refuse(call, "it has channels first")
        target: Sequence[Any] = (size,)
    else:
        found = call.config.get("target_shape") or call.config.get("newshape") or call.kwargs.get("shape") or ()
        target = tuple(found)[int("target_shape" not in call.config) :]
    known = math.prod(d for d in target if d != -1)
    if not all(isinstance(d, int) for d in target) or list(target).count(-1) > 1 or known < 1 or size % known:
        refuse(call, f"{size} values don't fit the shape {tuple(target)!r:.80}")
    shape = (1, *(size // known if d == -1 else d for d in target))
    return x if shape == sheet.shape(x) else sheet.node("reshape", [x], call.name, shape=shape)


def zero_padding(sheet: Sheet, call: Call) -> str:
    """Zeros around the image."""
    channels_last(call)
    return sheet.node("pad", [sheet.operand(call)], call.name, padding=tuple(_edges(call, call.config["padding"])))


def _image(sheet: Sheet, call: Call) -> str:
    """The operand, which must be (1, height, width, channels)."""
    channels_last(call)
    x = sheet.operand(call)
    if len(sheet.shape(x)) != 4:
        refuse(call, f"its input has the shape {sheet.shape(x)}, expected (1, height, width, channels)")
    return x


def _sides(call: Call, *values: Any) -> tuple[int, int]:
    if len(values) != 2 or not all(
        isinstance(v, int) and not isinstance(v, bool) and 1 <= v <= MAX_SIDE for v in values
    ):
        refuse(call, f"the sides {values!r:.40}: expected two whole numbers from 1 to {MAX_SIDE}")
    return values[0], values[1]


def resizing(sheet: Sheet, call: Call) -> str:
    """Pixels at their centres, bilinear or nearest, as tf.image.resize; to the size that it is already, nothing."""
    said = {**call.config, **call.kwargs}
    x, size = _image(sheet, call), _sides(call, *(said["size"] if "size" in said else (said["height"], said["width"])))
    odd = [key for key in ("pad_to_aspect_ratio", "preserve_aspect_ratio", "antialias") if said.get(key)]
    if odd and sheet.shape(x)[1:3] != size:
        refuse(call, f"{odd[0]} has no node here; pass images of {size[0]} x {size[1]} (resolution=)")
    if said.get("crop_to_aspect_ratio"):
        x = _of_aspect(sheet, call, x, size)
    return _resized(sheet, call, x, size, str(said.get("interpolation", said.get("method", "bilinear"))))


def random_crop(sheet: Sheet, call: Call) -> str:
    """In inference nothing in Keras 3; in Keras 2 what is left of an image cut to the aspect, resized."""
    x, size = _image(sheet, call), _sides(call, call.config["height"], call.config["width"])
    sheet.notes.append("RandomCrop: it cuts at random in training only")
    return x if sheet.keras3 else _resized(sheet, call, _of_aspect(sheet, call, x, size), size, "bilinear")


def _of_aspect(sheet: Sheet, call: Call, x: str, size: tuple[int, int]) -> str:
    """The largest part of this size's aspect, in the middle.

    Source: tf_keras 2.21, tf_keras/src/utils/image_utils.py, smart_resize; Keras 3.15.1, keras/src/backend/tensorflow/
    image.py, resize.
    """
    height, width = sheet.shape(x)[1:3]
    kept = min(height, int(float(width * size[0]) / size[1])), min(width, int(float(height * size[1]) / size[0]))
    edges = [((have - want) // 2, have - want - (have - want) // 2)
             for have, want in zip((height, width), kept, strict=True)]  # fmt: skip
    return _cropped(sheet, call, x, edges)


def _resized(sheet: Sheet, call: Call, x: str, size: tuple[int, int], how: str) -> str:
    if sheet.shape(x)[1:3] == size:
        return x
    if how not in ("bilinear", "nearest"):
        refuse(call, f"its interpolation is {how!r:.20}, expected 'bilinear' or 'nearest'")
    return sheet.node(f"resize_{how}", [x], call.name, size=size, align_corners=False, half_pixel_centers=True)


def up_sampling(sheet: Sheet, call: Call) -> str:
    """Each pixel several times, or bilinear between their centres."""
    x, given = _image(sheet, call), call.config.get("size", 2)
    factors = (given, given) if isinstance(given, int) else tuple(given)
    shape = sheet.shape(x)
    _sides(call, *factors)
    size = _sides(call, shape[1] * factors[0], shape[2] * factors[1])
    return _resized(sheet, call, x, size, str(call.config.get("interpolation", "nearest")))


def center_crop(sheet: Sheet, call: Call) -> str:
    """The middle of an image that is at least as large."""
    x, size = _image(sheet, call), _sides(call, call.config["height"], call.config["width"])
    spare = [have - want for have, want in zip(sheet.shape(x)[1:3], size, strict=True)]
    if min(spare) < 0:
        refuse(call, f"it makes {size} of {sheet.shape(x)[1:3]}, and only larger images are cropped here")
    return _cropped(sheet, call, x, [(n // 2, n - n // 2) for n in spare])


def cropping(sheet: Sheet, call: Call) -> str:
    """Rows and columns off the edges."""
    return _cropped(sheet, call, _image(sheet, call), _edges(call, call.config["cropping"]))


def _edges(call: Call, given: Any) -> list[tuple[int, int]]:
    """((top, bottom), (left, right)), of one number for all, or one for each axis."""
    if isinstance(given, int):
        given = (given, given)
    pads = [tuple(side) if isinstance(side, (list, tuple)) else (side, side) for side in given]
    if len(pads) != 2 or not all(len(s) == 2 and all(isinstance(p, int) and 0 <= p <= 4096 for p in s) for s in pads):
        refuse(call, f"{given!r:.80}: expected ((top, bottom), (left, right))")
    return [(side[0], side[1]) for side in pads]


def _cropped(sheet: Sheet, call: Call, x: str, edges: list[tuple[int, int]]) -> str:
    for axis, (first, last) in enumerate(edges, 1):
        length = sheet.shape(x)[axis] - first - last
        if length < 1:
            refuse(call, f"nothing is left of {sheet.shape(x)}")
        if first or last:
            x = sheet.node("slice", [x], f"{call.name}_{axis}", axis=axis, first=first, length=length)
    return x


def permute(sheet: Sheet, call: Call) -> str:
    """The axes behind the batch in another order, counted from 1; as an operation, all axes."""
    x, said = sheet.operand(call), {**call.config, **call.kwargs}
    order = [0, *said["dims"]] if "dims" in said else list(said.get("axes", said.get("perm")) or ())
    rank = len(sheet.shape(x))
    if sorted(order) != list(range(rank)) or order[0]:
        refuse(call, f"the order {order!r:.40}: expected all of 0 to {rank - 1}, the batch in front")
    return sheet.node("transpose", [x], call.name, order=tuple(order))
