"""Edge Impulse's three ways from a picture to a square: recipes for its classifiers and FOMO models, [0, 1].

Which of the three a model was trained with is a setting of its project ("resize mode"), which no .tflite names. The
real values are `pixel / 255`; an int8 model's scale 1/255 and zero point -128 make `pixel - 128` of them.

Source: edgeimpulse/linux-sdk-python, edge_impulse_linux/image.py (get_features_from_image_with_studio_mode), commit
0039470e. For models of one channel it turns pictures grey after the resize; here they are grey before.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from npmobilenet.errors import InputError
from npmobilenet.images.resize import opencv_area

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]


def edge_impulse(image: Image, height: int, width: int) -> Floats:
    """Edge Impulse, "fit shortest axis": centre crop to the input's form, OpenCV's INTER_AREA, [0, 1]."""
    rows, columns = image.shape[:2]
    form = width / height
    if columns / rows > form:
        kept = int(rows * form)
        image = image[:, (columns - kept) // 2 :][:, :kept]
    else:
        kept = int(columns / form)
        image = image[(rows - kept) // 2 :][:kept]
    _check(kept, rows, columns)
    return edge_impulse_squash(image, height, width)


def edge_impulse_squash(image: Image, height: int, width: int) -> Floats:
    """Edge Impulse, "squash": the whole image, its form given up, OpenCV's INTER_AREA, [0, 1]."""
    return opencv_area(image, height, width).astype(np.float32) / np.float32(255)


def edge_impulse_longest(image: Image, height: int, width: int) -> Floats:
    """Edge Impulse, "fit longest axis": the whole image with black bars, OpenCV's INTER_AREA, [0, 1]."""
    rows, columns = image.shape[:2]
    scale = min(width / columns, height / rows)
    inner = int(rows * scale), int(columns * scale)
    _check(min(inner), rows, columns)
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    padded = np.zeros((height, width, image.shape[2]), np.uint8)
    padded[top : top + inner[0], left : left + inner[1]] = opencv_area(image, *inner)
    return edge_impulse_squash(padded, height, width)


def _check(left: int, rows: int, columns: int) -> None:
    if left < 1:
        raise InputError(
            f"an image of {rows} x {columns} pixels is too long and thin for this recipe: nothing would be left of "
            "its shorter side; use 'edge_impulse_squash'"
        )
