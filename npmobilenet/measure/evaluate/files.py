"""What an evaluation can leave behind: predictions as .npz or .csv, and a picture of the confusions."""

from __future__ import annotations

import csv
import io
import os
import warnings
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from npmobilenet.errors import InputError, MissingExtra
from npmobilenet.measure.evaluate.metrics import Evaluation
from npmobilenet.measure.evaluate.state import write_whole
from npmobilenet.modeldata import Array

PREDICTIONS = (".npz", ".csv")
COLUMNS = (
    "file", "truth", "truth_label", "predicted", "predicted_label", "score", "top_ids", "top_scores",
)  # fmt: skip
TICKS = 60  # classes whose names fit beside a matrix
MOST_CELLS = 400  # classes up to which a cell is at least two pixels wide


def check_output(
    path: str | os.PathLike[str], suffixes: Iterable[str], inputs: Iterable[str | os.PathLike[str] | None]
) -> Path:
    """The path of a file to be written after the run, if it can be: refused now rather than then.

    Raises `InputError`: another suffix, no such folder, a folder, or one of the `inputs`.
    """
    target = Path(path)
    if target.suffix not in suffixes:
        raise InputError(f"'{target}': expected a name that ends in {' or '.join(suffixes)}")
    if not target.parent.is_dir():
        raise InputError(f"'{target}': there is no folder '{target.parent}'; make it first")
    if target.is_dir():
        raise InputError(f"'{target}' is a folder: expected the name of a file")
    for other in inputs:
        if other is not None and target.exists() and os.path.exists(other) and target.samefile(other):
            raise InputError(f"'{target}' is read by this evaluation, so it can't be written; give another name")
    return target


def write_predictions(result: Evaluation, path: str | os.PathLike[str]) -> None:
    """Every image's prediction, as a .csv or .npz file (docs/evaluate.md lists what is in them).

    The .npz holds all outputs for each image if the evaluation kept them. Raises `InputError` if it can't be written.
    """
    target = Path(path)
    if target.suffix == ".csv":
        write_whole(target, lambda file: _write_csv(result, file))
    else:
        write_whole(target, lambda file: _write_npz(result, file))


def _write_csv(result: Evaluation, file: IO[bytes]) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for i, name in enumerate(result.names):
        truth = int(result.truths[i])
        row: list[object] = [name, truth, result.labels[truth]]
        if result.is_readable[i]:
            ids, scores = result.ids[i].tolist(), result.scores[i].tolist()
            row += [ids[0], result.labels[ids[0]], repr(scores[0])]
            row += [" ".join(map(str, ids)), " ".join(map(repr, scores))]
        else:
            row += [""] * 5
        writer.writerow(row)
    text.detach()  # flushes, and leaves the file open


def _write_npz(result: Evaluation, file: IO[bytes]) -> None:
    arrays: dict[str, Array] = {
        "names": np.array([encodable(n) for n in result.names], np.str_),
        "truth": result.truths,
        "readable": result.is_readable,
        "predicted": result.ids[:, 0],
        "score": result.scores[:, 0],
        "top_ids": result.ids,
        "top_scores": result.scores,
        "labels": np.array(result.labels, np.str_),
    }
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, array in arrays.items():
            with archive.open(zip_member(name), "w", force_zip64=True) as member:
                npy.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
        if result.all_scores is not None:
            with archive.open(zip_member("probabilities"), "w", force_zip64=True) as member:
                _write_scores(result, member)


def zip_member(name: str) -> zipfile.ZipInfo:
    """An array's place in an .npz file; the fixed date makes equal arrays equal files."""
    return zipfile.ZipInfo(f"{name}.npy")


def encodable(text: str) -> str:
    """A file name that isn't UTF-8, as Python gives it, can't stand in an array of strings that others read."""
    return text.encode("utf-8", "backslashreplace").decode()


def _write_scores(result: Evaluation, member: IO[bytes]) -> None:
    """All outputs, row by row from one file to the other, so that they are never in memory together."""
    if result.all_scores is None or result.score_rows is None:
        return
    dtype, classes = result.all_scores.dtype, result.all_scores.shape[0]
    header = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": (len(result.names), classes)}
    npy.write_array_header_1_0(member, header)
    nothing = np.zeros(classes, dtype).tobytes()
    for i, row in enumerate(result.score_rows.tolist()):
        if row < 0:
            member.write(nothing)
            continue
        scores = result.all_scores.read(row)
        if not np.array_equal(scores[result.ids[i]].astype(np.float64), result.scores[i]):
            raise InputError(
                f"{result.all_scores.path}, row {row}, differs from the prediction that the state keeps of "
                f"'{result.names[i]}': it is damaged; begin anew with another state"
            )
        member.write(scores.tobytes())


# ---------------------------------------------------------------------------------------------------------------------
# The picture


def check_matplotlib() -> None:
    """Raises `MissingExtra` without matplotlib."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise MissingExtra("matplotlib", "plot", "A picture of the confusions") from None


def write_confusion(result: Evaluation, path: str | os.PathLike[str]) -> None:
    """A .png of the confusion matrix: a row for each class of the data, its cells shares of the row's images.

    At most 400 rows, by class id. Columns are the rows' classes and others that were given, the most frequent first,
    400 in all.
    Raises `InputError` if it can't be written, `MissingExtra` without matplotlib.
    """
    check_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows, columns, shares = confusion_matrix(result)
    side = min(max(4.0, 0.22 * max(len(rows), len(columns)) + 2.5), 16.0)
    figure = Figure((side + 1.0, side), dpi=120, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0, interpolation="nearest", aspect="auto")
    figure.colorbar(image, ax=axes, label="share of the class's images")
    axes.set_xlabel("given by the model")
    axes.set_ylabel("class of the image")
    axes.set_title(f"top-1 {result.top1_hits / result.readable:.4f} of {result.readable} images")
    _ticks(axes.xaxis, [result.labels[i] for i in columns], rotation=90)
    _ticks(axes.yaxis, [result.labels[i] for i in rows], rotation=0)
    if len(rows) * len(columns) <= 100:
        _numbers(axes, result, rows, columns, shares)
    target = Path(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of characters that its font lacks
        write_whole(target, canvas.print_png)


def confusion_matrix(result: Evaluation) -> tuple[list[int], list[int], NDArray[np.float64]]:
    """Class ids of rows (truth) and columns (given), and the share of each row's images in each cell."""
    confusion = result.confusion()
    given: dict[int, int] = {}
    for (_, column), count in confusion.items():
        given[column] = given.get(column, 0) + count
    truths = sorted({truth for truth, _ in confusion})
    rows = truths[:MOST_CELLS]
    others = sorted(set(given) - set(rows), key=lambda column: (-given[column], column))
    columns = sorted([*rows, *others[: MOST_CELLS - len(rows)]])
    matrix = np.zeros((len(rows), len(columns)))
    total = np.zeros(len(rows))
    for (truth, column), count in confusion.items():
        if truth in rows:
            total[rows.index(truth)] += count
            if column in columns:
                matrix[rows.index(truth), columns.index(column)] = count
    return rows, columns, matrix / total[:, None]


def _ticks(axis: Any, names: list[str], rotation: int) -> None:
    if len(names) > TICKS * 2:
        axis.set_ticks([])
        return
    axis.set_ticks(range(len(names)), names, rotation=rotation, fontsize=8 if len(names) <= TICKS else 5)
    for label in axis.get_ticklabels():
        label.set_parse_math(False)  # a dollar sign in a class name is no formula


def _numbers(axes: Any, result: Evaluation, rows: list[int], columns: list[int], shares: NDArray[np.float64]) -> None:
    confusion = result.confusion()
    for y, truth in enumerate(rows):
        for x, column in enumerate(columns):
            colour = "white" if shares[y, x] > 0.5 else "black"
            axes.text(x, y, str(confusion[truth, column]), ha="center", va="center", color=colour, fontsize=8)
