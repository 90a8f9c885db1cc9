"""Write docs/models.md from the registry: every published row beside computed MACs and parameters.

Usage: python tools/make_model_docs.py [--check]

`--check` writes nothing and exits with 1 if the file isn't current.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))  # the checkout, whether or not the package is installed

from npmobilenet.zoo.build import build_model  # noqa: E402
from npmobilenet.zoo.checkpoints import (  # noqa: E402
    CHECKPOINTS,
    Checkpoint,
    aliases,
    published_note,
)
from npmobilenet.zoo.published import (  # noqa: E402
    TABLES,
    V2_TRAINING,
    V3_TRAINING,
    Setting,
    Table,
)
from npmobilenet.zoo.pytorch import TORCH_MODELS  # noqa: E402

PAGE = ROOT / "docs" / "models.md"

INTRODUCTION = """\
# Models

<!-- Written by tools/make_model_docs.py; edit that file or the tables in npmobilenet/zoo. -->

Every published MobileNet checkpoint, with the columns of its table as printed (accuracy in percent of
ImageNet's validation set, latencies in milliseconds), and beside them what the graphs of this project
give for 1001 classes:

* **computed MACs**: multiply-accumulates of all convolutions for one image, padded taps included, in
  millions; **diff**: computed minus published.
* **computed params**: weights and biases in millions, then the same **with gamma, beta** of batch norm. A
  convolution that is followed by batch norm has no bias of its own.

The numbers under **notes** say why the two differ where that is known. `npmobilenet info MODEL` prints
the same for one model.
"""

NAMES = """\
## Names

A canonical name is `mobilenet_{family}_{depth multiplier}_{resolution}`, then `_uint8` for 8 bits. Any
multiplier and any resolution (`224`, or `192x256` for height x width) name an architecture; the rows
above name checkpoints. The other spellings below are derived by rule, and look-ups ignore case and take
`-` for `_`. timm's names may have `timm/` before and a tag behind (`tf_mobilenetv3_large_100.in1k`).

A spelling names the same weights. timm's own models (`mobilenetv2_100.ra_in1k`) and torchvision's (`mobilenet_v2`,
`mobilenet_v3_large`, `mobilenet_v3_small`) are the same architectures with weights and padding of their own: their
names will do where an architecture is asked for (`info`, `convert --model`), and `load` refuses them. What is read of
their files stands [below](#timm-and-torchvision).

Models whose weights are on this machine are listed by their names, too: `flowers` and `flowers_uint8`, in the box, and
the .h5 files of the folder that NPMOBILENET_WEIGHTS names, or that were pulled ([pull.md](pull.md)).
"""

TORCH = """\
## timm and torchvision

Their state dicts (`.safetensors`, `.pth`) are read by these names (`convert --model timm/mobilenetv2_110d`, with or
without a tag behind), or without one, where the file's name or its variables tell. torchvision's `mobilenet_v2` may
have any width. MACs and parameters (with gamma and beta) are computed for the image size given and 1000 classes;
**printed** is what the model card says, of MobileNetV4 alone (huggingface.co/timm). V4's tables may be built by name as
well: `mobilenet_v4_conv_small_1.0_224`.

| model | width | images | MACs (M) | Params (M) | printed | padding | epsilon | recipe |
|---|---:|---:|---:|---:|---|---|---:|---|
"""
CARDS = {
    "timm/mobilenetv4_conv_small": "0.2 G, 3.8 M",
    "timm/mobilenetv4_conv_medium": "1.1 G, 9.7 M",
    "timm/mobilenetv4_conv_large": "6.4 G, 32.6 M",
}

EXAMPLES = (
    "mobilenet_v1_0.5_160",
    "mobilenet_v1_1.0_224",
    "mobilenet_v1_1.0_224_uint8",
    "mobilenet_v2_1.0_224",
    "mobilenet_v2_1.4_224_uint8",
    "mobilenet_v3_large_1.0_224",
    "mobilenet_v3_large_1.0_224_uint8",
    "mobilenet_v3_small_minimalistic_1.0_224",
    "mobilenet_edgetpu_1.0_224",
    "mobilenet_edgetpu_1.0_224_uint8",
)


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table; the first column is aligned left, the others right."""
    align = ["---"] + ["---:"] * (len(head) - 1)
    return [f"| {' | '.join(cells)} |" for cells in (head, align, *rows)]


def computed(row: Checkpoint) -> tuple[str, str, str, str]:
    """MACs, their difference from the published ones, parameters without and with batch norm."""
    graph = build_model(row.name)
    macs = graph.total_macs / 1e6
    return (
        f"{macs:.1f}",
        f"{macs - float(row.macs):+.1f}",
        f"{graph.total_params() / 1e6:.2f}",
        f"{graph.total_params(batch_norm=True) / 1e6:.2f}",
    )


def published_section(table: Table) -> list[str]:
    """One published table with its computed columns and the notes that its rows refer to."""
    notes: list[str] = []
    lines = []
    for row in (c for c in CHECKPOINTS if c.table == table.title):
        note = published_note(row)
        if note and note not in notes:
            notes.append(note)
        cells = [row.published.get(heading, "") for heading in table.columns.values()]
        mark = str(notes.index(note) + 1) if note else ""
        link = f"[{row.label or 'same archive'}]({row.url})"
        lines.append([f"`{row.name}`", link, *cells, *computed(row), mark])
    head = ["model", "published as", *table.columns.values()]
    head += ["computed MACs", "diff", "computed params", "with gamma, beta", "notes"]
    text = [f"## {table.title}", "", f"Published in {table.source}.", ""]
    text += [*markdown_table(head, lines), ""]
    text += [f"{number}. {note}" for number, note in enumerate(notes, 1)]
    return [*text, ""] if notes else text


def training_section(title: str, remark: str, settings: Iterable[Setting]) -> list[str]:
    """A table of training settings as published."""
    rows = [(f"`{s.name}`", s.value, s.remark) for s in settings]
    table = ["| setting | value | remark |", "|---|---|---|"]
    return [f"### {title}", "", remark, "", *table, *(f"| {' | '.join(r)} |" for r in rows), ""]


def torch_section() -> list[str]:
    """timm's and torchvision's models, one row each."""
    rows = []
    for model in TORCH_MODELS.values():
        graph = model.graph(1000)
        cells = [
            f"`{model.name}`", f"{model.multiplier:g}", str(model.resolution), f"{graph.total_macs / 1e6:.1f}",
            f"{graph.total_params(batch_norm=True) / 1e6:.2f}", CARDS.get(model.name, ""),
            "SAME" if model.same else "symmetric", f"{model.epsilon:g}", f"`{model.recipe}`",
        ]  # fmt: skip
        rows.append(f"| {' | '.join(cells)} |")
    return [TORCH + "\n".join(rows)]


def page() -> str:
    """The whole text of docs/models.md."""
    lines = [INTRODUCTION]
    for table in TABLES:
        lines += published_section(table)
    lines += [NAMES, "| model | also called |", "|---|---|"]
    for name in EXAMPLES:
        lines.append(f"| `{name}` | {', '.join(f'`{a}`' for a in aliases(name))} |")
    lines += ["", *torch_section(), "", "## Training", ""]
    lines += training_section(
        "V3",
        "As published: 74.6 % top-1 on 8 GPUs; 75.2 % on a 2x2 TPU with the same settings.",
        V3_TRAINING,
    )
    lines += training_section(
        "V2",
        "Flags of TF-slim's train_image_classifier, as published: 72.0 % top-1 for V2 1.0_224 after about "
        "700,000 steps on 8 GPUs (5.5 million on one).",
        V2_TRAINING,
    )
    return "\n".join(lines).rstrip() + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page, or check it; returns the exit status."""
    parser = argparse.ArgumentParser(description="Write docs/models.md from the registry.")
    parser.add_argument("--check", action="store_true", help="only say whether the file is current")
    options = parser.parse_args(arguments)
    text = page()
    if options.check:
        current = PAGE.is_file() and PAGE.read_text(encoding="utf-8") == text
        if not current:
            print("docs/models.md is not current: run python tools/make_model_docs.py")
        return 0 if current else 1
    PAGE.parent.mkdir(exist_ok=True)
    temporary = PAGE.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8", newline="\n")
    os.replace(temporary, PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
