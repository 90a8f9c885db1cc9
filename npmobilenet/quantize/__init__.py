"""Post-training quantization: a float model and some images to an 8-bit model of TFLite's specification.

    from npmobilenet.quantize import calibrate, open_images, quantize
    found = calibrate(data, open_images("photos/", samples=100))
    weightfile.write("q.h5", quantize(data, found.ranges))

`parameters` is the arithmetic, `lower` brings the graph into ops with integer kernels, `scales` says which tensors
share their parameters, `calibration` measures ranges, `build` puts the model together; `equalize` readies a model
for one scale for each tensor.
"""

from __future__ import annotations

from npmobilenet.quantize.build import PORTS, quantize
from npmobilenet.quantize.calibration import Calibration, calibrate
from npmobilenet.quantize.equalize import equalize
from npmobilenet.quantize.images import Images, open_images
from npmobilenet.quantize.lower import lower
from npmobilenet.quantize.parameters import SCHEMES, Range
from npmobilenet.quantize.scales import Scales, as_tensorflow_sees

__all__ = [
    "PORTS", "SCHEMES", "Calibration", "Images", "Range", "Scales", "as_tensorflow_sees", "calibrate", "equalize",
    "lower", "open_images", "quantize",
]  # fmt: skip
