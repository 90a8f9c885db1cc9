"""Write the table of docs/formats.md: what becomes of files as people have them, beside what their own framework gives.

    python tools/make_format_docs.py FOLDER    # load what tools/make_ecosystem_files.py wrote there, record it
    python tools/make_format_docs.py [--check]

What was seen is recorded in docs/formats.json; the second form writes the page from it, or with `--check` exits with 1
if the page says otherwise.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
PAGE, RECORD = ROOT / "docs" / "formats.md", ROOT / "docs" / "formats.json"
MARKS = "<!-- formats -->", "<!-- /formats -->"
CLOSE = 1e-4  # of max(1, the largest value): a float sum's order is free
# Under mixed precision, whose roundings to float16 aren't computed here; and in dynamic-range models, of which
# TensorFlow's converter leaves some layers in float (below 1024 weights): sums of other orders part in the last bits,
# and the quantization of the next layer's input makes a step of a part that crosses its edge. Of the hybrid model with
# random weights, whose norms scale values of 1e-5 up, LiteRT's own three sets of kernels part by up to 4e-4.
WIDER = 4e-3
SOURCES = {
    "keras": "Keras 3", "tf_keras": "Keras 2 (tf_keras)", "tflite": "Keras models through TensorFlow's converter",
    "torch": "PyTorch's weights (torchvision, timm)",
    "export": "PyTorch's networks through litert-torch",
}  # fmt: skip
SUFFIXES = (".keras", ".h5", ".tflite", ".pth", ".safetensors")
SIGNS = {"equal": "equal", "close": "close", "wider": "wider", "refused": "refused", "differs": "**differs**"}

Row = dict[str, str]


def judged(path: Path) -> Row:
    """One file: how what is computed here compares with its golden."""
    import npmobilenet as nm
    from npmobilenet.formats import read_model

    framework, kind, *form = path.stem.split("-")
    row = {"source": framework, "kind": kind, "form": "-".join(form), "suffix": path.suffix}
    with np.load(path.with_suffix(".npz")) as stored:
        golden = {name: stored[name] for name in stored.files}
    named = str(golden.pop("model")) if "model" in golden else None
    x = golden.pop("input")
    more = [golden.pop(name) for name in list(golden) if name.startswith("input_")]
    try:
        size = (x.shape[1], x.shape[2]) if kind == "any_size" or framework == "torch" else None
        model = nm.Model(read_model(path, named, resolution=size))
        given = [_as_taken(model, x), *more]
        found = _values(model, dict(zip(model.graph.inputs, given, strict=True)), torch=framework == "torch")
    except nm.NpMobilenetError as error:
        return {**row, "result": "refused", "why": _plain(str(error), path)}
    worst = max(_difference(found[name], expected) for name, expected in golden.items())
    row["difference"] = f"{worst:.0e}" if worst else "0"
    close = worst <= CLOSE
    far = kind == "mixed_precision" or form == ["dynamic_range"] or "hybrid" in kind
    wider = far and worst < WIDER
    return {**row, "result": "equal" if not worst else "close" if close else "wider" if wider else "differs"}


def _as_taken(model: Any, x: Any) -> Any:
    """Pixels in the range that a model takes whose front layer became its recipe."""
    notes = model.info.provenance.get("notes", "")
    if "Rescaling left out" not in notes:
        return x
    return (x / np.float32(127.5) - 1 if "[-1, 1]" in notes else x / np.float32(255)).astype(np.float32)


def _values(model: Any, x: Any, torch: bool) -> dict[str, Any]:
    """The outputs as `output_N`, and every tensor of a .tflite as `#INDEX`."""
    graph = model.graph
    outputs = ["Logits"] if torch else list(graph.outputs)
    indices = [name for name in graph.endpoints if name.startswith("#")]
    _, taps = model.run(x, taps=[*dict.fromkeys([*outputs, *indices])], check_range=False)
    return {**taps, **{f"output_{place}": taps[name] for place, name in enumerate(outputs)}}


def _difference(found: Any, expected: Any) -> float:
    """The largest, by max(1, the largest value expected); of integers any counts as 1 at least."""
    found = found.reshape(expected.shape)
    if found.dtype == expected.dtype and np.array_equal(found, expected):
        return 0.0
    gap = np.abs(found.astype(np.float64) - expected.astype(np.float64)).max()
    if expected.dtype.kind in "iu":
        return max(1.0, float(gap))
    return float(gap / max(1.0, np.abs(expected).max())) if np.isfinite(gap) else np.inf


def _plain(text: str, path: Path) -> str:
    """A message without the file's name, to its first way out."""
    for name in (str(path), path.name):
        text = text.replace(f"'{name}': ", "").replace(f"{name}: ", "").replace(name, "FILE")
    for end in ("; a way that works", "; export it", ". What you can do"):
        text = text.partition(end)[0]
    return text if len(text) <= 200 else f"{text[:200].rpartition(' ')[0]} ..."


def record(folder: Path) -> None:
    """Judge every file of the folder that has a golden."""
    rows = []
    for path in sorted(folder.iterdir()):
        if path.suffix in SUFFIXES and path.with_suffix(".npz").is_file():
            rows.append(judged(path))
            print(path.name, rows[-1]["result"], rows[-1].get("difference", rows[-1].get("why")), flush=True)
    text = ",\n".join(json.dumps(row) for row in rows)
    RECORD.write_text(f"[\n{text}\n]\n", encoding="utf-8", newline="\n")


def table() -> str:
    """The tables of the page."""
    rows: list[Row] = json.loads(RECORD.read_text(encoding="utf-8"))
    count = Counter(row["result"] for row in rows)
    models: dict[tuple[str, str, str], set[str]] = {}
    for row in rows:
        models.setdefault((row["source"], row["kind"], row["form"]), set()).add(row["result"])
    good = sum(found <= {"equal", "close"} for found in models.values())
    largest = max(float(row["difference"]) for row in rows if row["result"] == "close")
    said = [f"{count[name]} {name}" for name in SIGNS if count[name]]
    lines = [
        f"{len(rows)} files of {len(models)} models: {', '.join(said)}. Of the models {good} are equal or close in",
        f"every file. 'Equal' is by bits; 'close' within {CLOSE:g} of the largest value or of 1 (the farthest:",
        f"{largest:g}), integers being equal; 'wider' within {WIDER:g}: mixed precision, whose roundings to float16",
        "aren't computed here, dynamic-range models with float layers, whose last bits decide on steps of the next",
        "layer's input, and a hybrid model with random weights, of which LiteRT's own kernels part by up to 4e-4.",
        "",
    ]  # fmt: skip
    for source, title in SOURCES.items():
        mine = [row for row in rows if row["source"] == source]
        lines += [f"### {title}", "", *_grid(mine), ""] if mine else []
    refused = [row for row in rows if row["result"] in ("refused", "wider", "differs")]
    lines += ["### Those neither equal nor close", ""]
    reasons: dict[tuple[str, str], list[str]] = {}
    for row in refused:
        why = row.get("why") or f"by up to {row['difference']}"
        reasons.setdefault((f"{row['kind']} {row['form']}".strip(), why), []).append(row["source"] + row["suffix"])
    lines += [f"* {kind} ({', '.join(files)}): {why}" for (kind, why), files in reasons.items()]
    return "\n".join(lines)


def _grid(rows: list[Row]) -> list[str]:
    """A row for each kind of model, a column for each form that it is in."""
    weights = rows[0]["source"] == "torch"
    cells: dict[str, dict[str, str]] = {}
    columns: list[str] = []
    for row in rows:
        column = row["suffix"] if weights or not row["form"] else row["form"].replace("_", " ")
        kind = row["kind"].replace("_", " ") if not weights and row["source"] != "export" else _torch_name(row["kind"])
        kind += f", {row['form']}" if weights and row["form"] else ""
        cells.setdefault(kind, {})[column] = SIGNS[row["result"]]
        columns += [column] if column not in columns else []
    head = [f"| | {' | '.join(columns)} |", "|---|" + "---|" * len(columns)]
    return [*head, *(f"| {k} | {' | '.join(found.get(c, '') for c in columns)} |" for k, found in cells.items())]


def _torch_name(kind: str) -> str:
    package, _, name = kind.partition("_")
    return f"{package}/{name}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Record, or write or check the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(arguments)
    if options.folder:
        record(options.folder)
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    wanted = f"{before}{MARKS[0]}\n{table()}\n{MARKS[1]}{after}"
    if options.check:
        return 0 if wanted == page else 1
    PAGE.write_text(wanted, encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
