"""Vectors as files for others: .npy, .npz, .csv and .parquet, written row by row and put in their place whole."""

from __future__ import annotations

import csv
import io
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from npmobilenet.images.inputs import NHWC
from npmobilenet.measure.datasets.remote import arrow
from npmobilenet.measure.embeddings.embed import Embedded
from npmobilenet.measure.embeddings.spool import Row
from npmobilenet.measure.evaluate import check_output as check_path
from npmobilenet.measure.evaluate.files import encodable, zip_member
from npmobilenet.measure.evaluate.state import write_whole
from npmobilenet.model import Model
from npmobilenet.modeldata import Array
from npmobilenet.runtime.pooled import layer_of

GROUP = 1024  # rows of a Parquet row group


def check_output(path: str | os.PathLike[str], inputs: Iterable[str | os.PathLike[str] | None] = ()) -> Path:
    """The path of a file of vectors, if it can be written: refused before the work. Raises as `write_vectors`."""
    target = check_path(path, OUTPUTS, inputs)
    if target.suffix == ".parquet":
        arrow()
    return target


def write_vectors(done: Embedded, path: str | os.PathLike[str]) -> list[Path]:
    """Write all vectors, with the images' names, in the format that the suffix tells; the files written.

    .npy: float32 (N, width) of the images that could be read; their names, a line each, go to NAME.names.txt beside it.
    .npz: the same as `vectors`, with `names`, and `unreadable` and `errors`. .csv and .parquet have a row for every
    image: its name, its vector, and the error of one that couldn't be read.

    Raises `InputError` if a file can't be written, `MissingExtra` without pyarrow.
    """
    target = Path(path)
    writer = OUTPUTS[target.suffix]
    written = [target]
    if target.suffix == ".npy":
        names = target.with_suffix(".names.txt")
        lines = (f"{_one_line(row.name)}\n".encode() for row in done.spool.rows() if row.vector is not None)
        write_whole(names, lambda file: file.writelines(lines))
        written.append(names)
    write_whole(target, lambda file: writer(done, file))
    return written


def _one_line(name: str) -> str:
    return encodable(name).replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")


def _readable(done: Embedded) -> Iterator[Row]:
    return (row for row in done.spool.rows() if row.vector is not None)


def _write_npy(done: Embedded, file: IO[bytes]) -> None:
    count = done.spool.done - done.spool.unreadable
    header = {"descr": "<f4", "fortran_order": False, "shape": (count, done.spool.width)}
    npy.write_array_header_1_0(file, header)
    for row in _readable(done):
        file.write(np.asarray(row.vector, "<f4").tobytes())


def _write_npz(done: Embedded, file: IO[bytes]) -> None:
    broken = done.unreadable
    texts = {
        "names": [row.name for row in _readable(done)],
        "unreadable": list(broken),
        "errors": list(broken.values()),
        "facts": [f"{key}={value}" for key, value in done.facts.items()],
    }
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        with archive.open(zip_member("vectors"), "w", force_zip64=True) as member:
            _write_npy(done, member)
        for name, lines in texts.items():
            array: Array = np.array([encodable(line) for line in lines], np.str_)
            with archive.open(zip_member(name), "w", force_zip64=True) as member:
                npy.write_array(member, array, allow_pickle=False)


def _write_csv(done: Embedded, file: IO[bytes]) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "error", *range(done.spool.width)])
    for row in done.spool.rows():
        values: Iterable[object] = [""] * done.spool.width if row.vector is None else map(str, row.vector)
        writer.writerow([row.name, row.error or "", *values])
    text.detach()  # flushes, and leaves the file open


def width_of(model: Model, layer: str) -> int:
    """The number of values of a layer's vector."""
    shape = layer_of(model.graph, layer).shape
    return int(shape[-1] if len(shape) == NHWC else np.prod(shape))


def _write_parquet(done: Embedded, file: IO[bytes]) -> None:
    write_parquet(done.spool.rows(), done.spool.width, done.facts, file)


def write_parquet(rows: Iterable[Row], width: int, facts: dict[str, str], file: IO[bytes]) -> None:
    """Columns `file`, `vector` (a list of `width` float32, null for an unreadable image) and `error`."""
    pa = arrow()
    kind = pa.list_(pa.float32(), width)
    schema = pa.schema([("file", pa.string()), ("vector", kind), ("error", pa.string())], facts)
    with pa.parquet.ParquetWriter(file, schema, compression="none") as writer:
        waiting: list[Row] = []

        def flush() -> None:
            vectors = [None if row.vector is None else row.vector.tolist() for row in waiting]
            columns = [pa.array([encodable(row.name) for row in waiting], pa.string()), pa.array(vectors, kind)]
            columns.append(pa.array([row.error for row in waiting], pa.string()))
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
            waiting.clear()

        for row in rows:
            waiting.append(row)
            if len(waiting) == GROUP:
                flush()
        if waiting:
            flush()


OUTPUTS: dict[str, Callable[[Embedded, IO[bytes]], None]] = {
    ".parquet": _write_parquet, ".npz": _write_npz, ".csv": _write_csv, ".npy": _write_npy,
}  # fmt: skip
