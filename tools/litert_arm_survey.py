"""Whether the dialects of arm64 give what LiteRT gives on emulated CPUs, over folders of .tflite files: a table.

    python tools/litert_arm_survey.py FOLDER [FOLDER ...] --cpu cortex-a53 --cpu neoverse-n1

Files with an 8-bit input are run on random values by LiteRT's optimized kernels and by its default delegate, inside
which --every N takes each Nth tensor (1: all, from a copy of the file that ends there). A file that this engine runs in
part is compared up to there. What can't be compared is said on stderr. Exit status 1 where a value differs.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import cut_tflite
import litert_arm
import numpy as np

import npmobilenet as nm
from npmobilenet.errors import NpMobilenetError
from npmobilenet.formats.tflite.flatbuffer import parse

CPUS = ("cortex-a53", "cortex-a76", "neoverse-n1")
SMALL = ("cortex-a53", "cortex-a55")  # whose uint8 matrices have 16-bit multipliers


def load(path: Path, dialect: str) -> nm.Model:
    """The model, or the part of it that this engine computes, which its refusal names."""
    try:
        return nm.load(path, dialect=dialect)
    except NpMobilenetError as error:
        ends = re.search(r"outputs=\[(.*?)\]", str(error))
        if not ends:
            raise
        return nm.load(path, dialect=dialect, outputs=re.findall(r"'(.*?)'", ends[1]))


def survey(path: Path, arm: litert_arm.ArmLiteRT, every: int) -> Iterator[tuple[str, int, int, int]]:
    """(dialect, tensors, values, values that differ) of each of the two."""
    content = cut_tflite.read(path)
    source = parse(content)
    index = source.inputs[0]
    for resolver in ("optimized", "xnnpack"):
        dialect = "tflite-optimized-arm64" if resolver == "optimized" else "xnnpack-arm64"
        model = load(path, dialect + "-neon" * (resolver == "xnnpack" and arm.cpu in SMALL))
        info = np.iinfo(model.input.dtype)
        shape = (1, *source.tensors[index].shape[1:])
        x = np.random.default_rng(0).integers(info.min, info.max, shape, info.dtype, endpoint=True)
        theirs = arm.run(content, {index: x}, resolver)
        if resolver == "xnnpack":
            for cut in cut_tflite.computed_by(source)[::every]:
                theirs |= arm.run(cut_tflite.cut(content, cut), {index: x}, resolver)
        found = litert_arm.compare(model, x, theirs)
        yield model.dialect, len(found), sum(row[3] for row in found), sum(row[2] for row in found)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--cpu", action="append", help=f"may be repeated; default: {', '.join(CPUS)}")
    parser.add_argument("--every", type=int, default=1, metavar="N")
    options = parser.parse_args(arguments)
    differ = 0
    print("| file | CPU | dialect | tensors | values | of which differ |\n|---|---|---|---:|---:|---:|", flush=True)
    for cpu in options.cpu or CPUS:
        with litert_arm.ArmLiteRT(cpu) as arm:
            for path in sorted(p for folder in options.folders for p in folder.glob("*.tflite")):
                try:
                    if load(path, "tflite-reference").input.dtype == "float32":
                        continue
                    for dialect, tensors, values, wrong in survey(path, arm, options.every):
                        print(f"| {path.stem} | {cpu} | `{dialect}` | {tensors} | {values:,} | {wrong:,} |", flush=True)
                        differ += wrong
                except NpMobilenetError as error:
                    print(f"{path.name} on {cpu}: {error}", file=sys.stderr)
    return int(differ > 0)


if __name__ == "__main__":
    sys.exit(main())
