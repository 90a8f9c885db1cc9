"""Pictures by matplotlib (extra `plot`): the published models, and how a plan uses its memory."""

from __future__ import annotations

import io
from typing import Any

from npmobilenet.errors import MissingExtra
from npmobilenet.formats.layer_names import short_names
from npmobilenet.runtime.plan import Plan
from npmobilenet.zoo import SPECS
from npmobilenet.zoo.build import build
from npmobilenet.zoo.checkpoints import CHECKPOINTS

# Okabe and Ito's colours, which everyone can tell apart (jfly.uni-koeln.de/color), and a mark for each besides.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKS = "osD^vPX"


def pyplot() -> Any:
    """matplotlib.pyplot, drawing to files alone. Raises `MissingExtra`."""
    try:
        import matplotlib as mpl
    except ImportError:
        raise MissingExtra("matplotlib", "plot", "Drawing pictures") from None
    mpl.use("agg")
    # Text as text, and the same bytes for the same picture.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "npmobilenet", "font.size": 10})
    import matplotlib.pyplot

    return matplotlib.pyplot


def as_svg(figure: Any) -> bytes:
    """The figure as an SVG file, without the day on which it was drawn."""
    out = io.BytesIO()
    figure.savefig(out, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    pyplot().close(figure)
    return out.getvalue()


def zoo() -> bytes:
    """Every published row with an accuracy: multiply-accumulates against top-1, blobs as large as the parameters."""
    figure, axes = pyplot().subplots(figsize=(9, 6))
    graphs: dict[tuple[str, float, int], tuple[int, int]] = {}
    for family, colour, mark in zip(dict.fromkeys(c.family for c in CHECKPOINTS), COLOURS, MARKS, strict=False):
        named = False
        for eight_bit in (False, True):
            rows = [c for c in CHECKPOINTS if c.family == family and c.top1 and (c.dtype == "uint8") == eight_bit]
            for c in rows:
                key = c.family, c.depth_multiplier, c.resolution
                if key not in graphs:
                    graph = build(SPECS[c.family], depth_multiplier=c.depth_multiplier, resolution=c.resolution)
                    graphs[key] = graph.total_macs, graph.total_params()
            counts = [graphs[c.family, c.depth_multiplier, c.resolution] for c in rows]
            axes.scatter(
                [macs / 1e6 for macs, _ in counts], [float(c.top1 or 0) for c in rows],
                s=[params / 4e4 for _, params in counts], marker=mark, alpha=0.75, edgecolors=colour,
                facecolors="none" if eight_bit else colour, label=family if rows and not named else None,
            )  # fmt: skip
            named = named or bool(rows)
    axes.set_xscale("log")
    axes.set(
        xlabel="multiply-accumulates for one image, millions", ylabel="top-1 accuracy on ImageNet, %",
        title="Published MobileNets: size by parameters; hollow: 8-bit",
    )  # fmt: skip
    axes.grid(alpha=0.3)
    axes.legend(title="family", loc="lower right")
    return as_svg(figure)


def memory(plan: Plan, name: str) -> bytes:
    """The block of a plan over time: a bar for each value, from the step that writes it to the last that reads it."""
    figure, axes = pyplot().subplots(figsize=(10, 5))
    short = short_names(list(plan.placed))
    for i, (tensor, (offset, life)) in enumerate(plan.placed.items()):
        axes.broken_barh(
            [(life.first, life.last - life.first + 1)], (offset / 1024, life.size / 1024),
            facecolors=COLOURS[i % len(COLOURS)], alpha=0.7, edgecolor="black", linewidth=0.3,
        )  # fmt: skip
        if life.size > plan.arena_bytes / 5:
            at = life.first + (life.last - life.first + 1) / 2, (offset + life.size / 2) / 1024
            axes.text(*at, short[tensor], fontsize=6, rotation=90, va="center", ha="center")
    title = f"{name}: {plan.arena_bytes / 1024:,.0f} KiB of intermediate values for one image"
    axes.set(xlabel="step of the plan", ylabel="place in the block, KiB", title=title)
    axes.set_ylim(0, plan.arena_bytes / 1024)
    return as_svg(figure)
