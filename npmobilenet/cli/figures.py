"""Published figures of a checkpoint beside computed ones, as `models` and `info` give them."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from npmobilenet.errors import NpMobilenetError

if TYPE_CHECKING:
    from pathlib import Path

    from npmobilenet.zoo.checkpoints import Checkpoint

# Heading in the published tables -> key in JSON and heading of our own table, milliseconds.
LATENCIES = {
    "Mobile CPU (ms) Pixel 1": "pixel_1",
    "Pixel 1": "pixel_1",
    "Pixel 2": "pixel_2",
    "Pixel 3": "pixel_3",
    "Pixel 4 Edge TPU": "pixel_4_edgetpu",
    "Pixel 4 CPU": "pixel_4_cpu",
}


@cache
def _counts(family: str, depth_multiplier: float, resolution: int) -> tuple[int, int, int]:
    """MACs, parameters without and with batch norm: the same for a float model and its 8-bit twin."""
    from npmobilenet.zoo import SPECS
    from npmobilenet.zoo.build import build

    graph = build(SPECS[family], depth_multiplier=depth_multiplier, resolution=resolution)
    return graph.total_macs, graph.total_params(), graph.total_params(batch_norm=True)


def figure(computed: int, published: str | None) -> dict[str, Any]:
    """A computed count beside the published cell, which is in millions and kept as printed."""
    return {"computed": computed, "computed_millions": round(computed / 1e6, 3), "published": published or None}


def latencies(row: Checkpoint) -> dict[str, str]:
    """The published latencies in milliseconds, as printed."""
    return {LATENCIES[heading]: cell for heading, cell in row.published.items() if heading in LATENCIES}


def figures(row: Checkpoint, file: Path | None = None) -> dict[str, Any]:
    """All that is known of a registered checkpoint, ready for JSON; `file` has its weights, if they are here."""
    from npmobilenet.zoo.checkpoints import aliases, published_note

    macs, params, with_batch_norm = _counts(row.family, row.depth_multiplier, row.resolution)
    return {
        "name": row.name,
        "present": file is not None,
        "file": None if file is None else str(file),
        "family": row.family,
        "depth_multiplier": row.depth_multiplier,
        "resolution": row.resolution,
        "dtype": row.dtype,
        "macs": figure(macs, row.macs),
        "params": {**figure(params, row.params), "computed_with_batch_norm": with_batch_norm},
        "top1": row.top1 or None,
        "top5": row.top5 or None,
        "latency_ms": latencies(row),
        "published": dict(row.published),
        "note": published_note(row),
        "label": row.label,
        "url": row.url,
        "table": row.table,
        "source": row.source,
        "aliases": list(aliases(row.name)),
    }


def figures_of_file(name: str, file: Path) -> dict[str, Any]:
    """The same of a weight file that is no published model's; `note` says why a file can't be read."""
    from npmobilenet.formats.model_path import load_data

    nothing: dict[str, Any] = dict.fromkeys(
        ("family", "depth_multiplier", "resolution", "dtype", "top1", "top5", "url")
    )
    found = {
        "name": name,
        "present": True,
        "file": str(file),
        **nothing,
        "latency_ms": {},
        "published": {},
        "aliases": [],
    }
    try:
        graph = load_data(file).graph
    except NpMobilenetError as error:
        counts = dict.fromkeys(("computed", "computed_millions", "published"))
        return {**found, "macs": counts, "params": {**counts, "computed_with_batch_norm": None}, "note": str(error)}
    params = {**figure(graph.total_params(), None), "computed_with_batch_norm": graph.total_params(batch_norm=True)}
    return {
        **found,
        "dtype": graph.tensors[graph.inputs[0]].dtype,
        "macs": figure(graph.total_macs, None),
        "params": params,
        "note": "",
    }
