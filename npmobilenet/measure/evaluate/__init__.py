"""Measuring a model on labelled images: streamed, interruptible, with the numbers that a plain loop would give.

loop.py runs, state.py keeps what is done, metrics.py counts, files.py writes predictions and the confusion picture.
"""

from __future__ import annotations

from npmobilenet.measure.evaluate.files import check_output, write_confusion, write_predictions
from npmobilenet.measure.evaluate.loop import Progress, evaluate, rehearse
from npmobilenet.measure.evaluate.metrics import ClassRow, Evaluation, wilson

__all__ = [
    "ClassRow",
    "Evaluation",
    "Progress",
    "check_output",
    "evaluate",
    "rehearse",
    "wilson",
    "write_confusion",
    "write_predictions",
]
