"""Every error that npmobilenet raises on bad input: one small family, all of them `NpMobilenetError`.

Each message says what was wrong, where, what was expected and found, and what to do next. The command
line turns any of them into one line on standard error and exit code 2.
"""

from __future__ import annotations


class NpMobilenetError(Exception):
    """Base of all errors caused by what the caller gave: a file, a name, an array, an option."""


class ModelNotFound(NpMobilenetError):
    """No registered model and no file answers to the name."""


class GraphError(NpMobilenetError):
    """A graph is inconsistent: a dangling or duplicate name, shapes that do not fit, an unknown op."""


class PlanError(NpMobilenetError):
    """A graph is sound but can't be run as asked: missing weights, an unknown tap, no kernel for a dtype."""


class WeightFileError(NpMobilenetError):
    """A weight file (.h5 of this project) is not one, is damaged, or holds what the format forbids."""


class ConversionError(NpMobilenetError):
    """A foreign model file (TensorFlow checkpoint, .tflite, Keras) can't be read or mapped."""


class InputError(NpMobilenetError):
    """An image or input array is unfit for the model: dtype, layout, range, size, or undecodable bytes."""


class MissingExtra(NpMobilenetError):
    """An optional package is needed; the message holds the pip command that installs it."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package '{package}', which is not installed. "
            f"Install it with: pip install 'npmobilenet[{extra}]'"
        )
