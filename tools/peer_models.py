"""The models of the comparison: .tflite files that every engine reads, with their bars.

Those with published weights are files of the folder with the published weights; the others get random weights, which
cost the same time, and are written by TensorFlow's converter, as files in the field are.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from make_tf_quantized import convert

from npmobilenet.measure.benchmark.random_model import random_input, random_model
from npmobilenet.modeldata import Array

BARS = {"float": (0.95, 0.97), "uint8": (0.80, 0.80), "int8": (0.80, 0.80)}  # on one thread, on two
CALIBRATION = 4  # images; they set scales, which no time depends on


@dataclass(frozen=True)
class Row:
    """A model: `file` in the folder of published weights, or else made from `made`, in `kind` "float" or an integer."""

    title: str
    kind: str
    file: str = ""
    made: str = ""
    reference: bool = False  # compare with LiteRT's reference kernels as well

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return Path(self.file).stem if self.file else f"{self.made}_random_{self.kind}"

    @property
    def bars(self) -> tuple[float, float] | None:
        """The most that our time may be, in parts of that of the fastest peer, on one thread and on two."""
        return BARS.get(self.kind)


# fmt: off
ROWS = (
    Row("V1 1.0_224",            "float", made="mobilenet_v1_1.0_224"),
    Row("V2 1.0_224",            "float", "mobilenet_v2_1.0_224_float.tflite", reference=True),
    Row("V3 large",              "float", made="mobilenet_v3_large_1.0_224"),
    Row("V3 small",              "float", made="mobilenet_v3_small_1.0_224"),
    Row("V3 large minimalistic", "float", made="mobilenet_v3_large_minimalistic_1.0_224"),
    Row("V3 small minimalistic", "float", made="mobilenet_v3_small_minimalistic_1.0_224"),
    Row("V4 conv small",         "float", made="mobilenet_v4_conv_small_1.0_224"),
    Row("EdgeTPU 1.0",           "float", made="mobilenet_edgetpu_1.0_224"),
    Row("V2 0.35_96",            "float", made="mobilenet_v2_0.35_96"),
    Row("V1 0.25_128",           "float", "mobilenet_v1_0.25_128.tflite"),
    Row("V2 1.0_224 uint8",      "uint8", "mobilenet_v2_1_0_224_quant.tflite", reference=True),
    Row("V2 1.0_224 int8",       "int8",  "coral_tf2_mobilenet_v2_1.0_224_ptq.tflite", reference=True),
    Row("V3 large int8",         "int8",  made="mobilenet_v3_large_1.0_224"),
    Row("V3 small uint8",        "uint8", "v3-small_224_1.0_uint8.tflite"),
    Row("V3 small int8",         "int8",  made="mobilenet_v3_small_1.0_224"),
    Row("EdgeTPU 1.0 uint8",     "uint8", "mobilenet_edgetpu_224_1.0_uint8.tflite"),
    Row("V2 0.5_96 uint8",       "uint8", "mobilenet_v2_0_5_96_quant.tflite"),
    Row("V2 0.35_96 int8",       "int8",  made="mobilenet_v2_0.35_96"),
    Row("V1 0.25_128 int8",      "int8",  made="mobilenet_v1_0.25_128"),
    Row("MLPerf Tiny VWW int8",  "int8",  "mlperf_tiny_vww_96_int8.tflite"),
    Row("Edge Impulse int8",     "int8",  "../field/edge_impulse_head_rgb_int8.tflite"),
)
# fmt: on


def make(made: str, kind: str, path: Path) -> None:
    """Write the .tflite of a registered model with random weights. Needs TensorFlow."""
    data = random_model(made)
    images: Array = random_input((CALIBRATION, *data.graph.tensors[data.graph.inputs[0]].shape[1:]), "float32", seed=1)
    content = convert(data, images, quantized=kind == "int8")
    temporary = path.with_suffix(f".{os.getpid()}")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def any_batch(content: bytes) -> bytes:
    """The .tflite file with its reshapes' first dimension, 1, made -1 (whatever is left): so it takes any batch."""
    import tflite

    changed = bytearray(content)
    model = tflite.Model.GetRootAs(changed, 0)
    codes = [model.OperatorCodes(i) for i in range(model.OperatorCodesLength())]
    graph = model.Subgraphs(0)
    for i in range(graph.OperatorsLength()):
        op = graph.Operators(i)
        code = codes[op.OpcodeIndex()]
        if max(code.BuiltinCode(), code.DeprecatedBuiltinCode()) != tflite.BuiltinOperator.RESHAPE:
            continue
        if op.InputsLength() > 1:
            _free_first(model.Buffers(graph.Tensors(op.Inputs(1)).Buffer()).DataAsNumpy())
        table = op.BuiltinOptions()
        if table is not None:
            options = tflite.ReshapeOptions()
            options.Init(table.Bytes, table.Pos)
            if options.NewShapeLength():
                _free_first(options.NewShapeAsNumpy().view(np.uint8))
    return bytes(changed)


def _free_first(raw: Array | int) -> None:
    """Set the first int32 of a view into the file to -1 where it is 1 and no other is -1."""
    if isinstance(raw, np.ndarray) and raw.nbytes >= 4:
        shape = raw.view(np.int32)
        if shape[0] == 1 and (shape >= 0).all():
            shape[0] = -1


def ensure(rows: list[Row], folder: Path, weights: Path | None, python: str) -> dict[str, Path | str]:
    """For each row's title the file to measure, or why there is none. Missing ones are made, by `python`, in `folder`.

    Every file is written to `folder` once more in a form that takes any batch.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    missing = {row.name: row for row in rows if not row.file and not (folder / f"{row.name}.tflite").is_file()}
    failed = _make_all(list(missing.values()), folder, python) if missing else ""
    found: dict[str, Path | str] = {}
    for row in rows:
        if row.file and weights is None:
            found[row.title] = "set NPMOBILENET_DATA to the folder with the published weights"
            continue
        source = weights / row.file if row.file and weights is not None else folder / f"{row.name}.tflite"
        if not source.is_file():
            found[row.title] = f"{source.name} is missing" + ("" if row.file else f": {failed}")
            continue
        target = folder / f"{row.name}.any_batch.tflite"
        content = any_batch(source.read_bytes())
        if not target.is_file() or target.read_bytes() != content:
            target.write_bytes(content)
        found[row.title] = target
    return found


def _make_all(rows: list[Row], folder: Path, python: str) -> str:
    """Make files in another process: TensorFlow's threads and memory would disturb this one. Why it failed, or ""."""
    wanted = [[row.made, row.kind, os.fspath(folder / f"{row.name}.tflite")] for row in rows]
    print(f"making {len(wanted)} model files with TensorFlow (kept in {folder}) ...", file=sys.stderr, flush=True)
    command = [python, os.fspath(Path(__file__).resolve()), *(word for one in wanted for word in one)]
    env = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    root, tools = (os.fspath(p) for p in (Path(__file__).resolve().parent.parent, Path(__file__).resolve().parent))
    env["PYTHONPATH"] = os.pathsep.join([root, tools, *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return ""
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    return f"{python} could not make it ({last[:200]}); --make-with names a Python that has TensorFlow"


if __name__ == "__main__":
    for first in range(1, len(sys.argv), 3):
        make(sys.argv[first], sys.argv[first + 1], Path(sys.argv[first + 2]))
