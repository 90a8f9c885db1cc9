"""MobileNet in NumPy and Numba, with results defined to the bit.

    import npmobilenet as nm
    m = nm.load("mobilenet_v2_1.0_224.tflite")
    m.predict("photo.jpg")       # [[(class_id, label, score), ...]]

Importing this package is light: its parts, NumPy, Numba, h5py and Pillow are imported when they are first needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from npmobilenet.errors import (
        ConversionError,
        DownloadError,
        GraphError,
        InputError,
        MissingExtra,
        ModelNotFound,
        NpMobilenetError,
        PlanError,
        WeightFileError,
    )
    from npmobilenet.model import Model, convert, load
    from npmobilenet.zoo.checkpoints import list_models

__version__ = "0.1.0"

__all__ = [
    "ConversionError",
    "DownloadError",
    "GraphError",
    "InputError",
    "MissingExtra",
    "Model",
    "ModelNotFound",
    "NpMobilenetError",
    "PlanError",
    "WeightFileError",
    "__version__",
    "convert",
    "list_models",
    "load",
]

_HOME = {"Model": "model", "load": "model", "convert": "model", "list_models": "zoo.checkpoints"}


def __getattr__(name: str) -> Any:
    """The public names, each from its module, imported when it is first asked for (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module 'npmobilenet' has no attribute '{name}'")
    import importlib

    module = importlib.import_module(f"npmobilenet.{_HOME.get(name, 'errors')}")
    # Set here, or `npmobilenet.formats` would be the package of that name once something has imported it.
    value = globals()[name] = getattr(module, name)
    return value


def __dir__() -> list[str]:
    return __all__
