"""Pictures by matplotlib (extra `plot`): the published models, times on this machine, how a plan uses its memory."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from npmobilenet.errors import MissingExtra, one_line
from npmobilenet.formats.layer_names import short_names
from npmobilenet.measure.benchmark.machine import cpu_name
from npmobilenet.runtime.plan import Plan
from npmobilenet.views.ranges import LayerRange
from npmobilenet.views.timings import Timed
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
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # of names; the reader's fonts draw the text
        figure.savefig(out, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    pyplot().close(figure)
    return out.getvalue()


def text_of(name: str) -> str:
    """A name out of a file as matplotlib draws it: one printable line, in which "$" begins no formula."""
    return one_line(name).replace("$", r"\$")


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


def latency(found: Sequence[Timed], what: str) -> bytes:
    """Milliseconds by width and by resolution, a line for each family. `what`: how it was measured, for the title."""
    figure, axes = _two_axes(what, sharey=True)
    _by_width(axes[0], found)
    along = [row for row in found if row.width == _along(found)]
    _lines(axes[1], [(row.family, row.resolution, row.ms) for row in along])
    axes[1].set(xlabel=f"pixels along a side, at width {_along(found):g}")
    axes[1].legend(loc="lower right", fontsize=8)
    return as_svg(figure)


def edgetpu(found: Sequence[Timed], what: str) -> bytes:
    """Milliseconds of 8-bit networks by width, and what is published of their accuracy over them."""
    figure, axes = _two_axes(what)
    _by_width(axes[0], found)
    axes[0].legend(loc="lower right", fontsize=8)
    for (family, rows), colour, mark in zip(_families(found).items(), COLOURS, MARKS, strict=False):
        for row in rows:
            size = family, row.width, row.resolution
            of_size = [c for c in CHECKPOINTS if (c.family, c.depth_multiplier, c.resolution) == size and c.top1]
            for c in sorted(of_size, key=lambda c: c.dtype != "uint8")[:1]:
                axes[1].plot(
                    row.ms, float(c.top1 or 0), mark, color=colour, fillstyle="full" if c.dtype == "uint8" else "none"
                )
                axes[1].annotate(f"{row.width:g}", (row.ms, float(c.top1 or 0)), (4, -9), textcoords="offset points")
    axes[1].set(
        xlabel="ms for one image", ylabel="published top-1 accuracy on ImageNet, %",
        title="number: width; hollow: accuracy of the float model",
    )  # fmt: skip
    axes[1].margins(0.1)
    _logarithmic(axes[1], "x")
    return as_svg(figure)


def _two_axes(what: str, sharey: bool = False) -> tuple[Any, Any]:
    figure, axes = pyplot().subplots(1, 2, figsize=(11, 4.8), layout="constrained", sharey=sharey)
    figure.suptitle(f"One image, {what}: {cpu_name()}")
    for side in axes:
        side.grid(alpha=0.3, which="both")
    return figure, axes


def _logarithmic(axes: Any, which: str) -> None:
    """A logarithmic axis whose ticks are plain numbers: 1, 2, 5, 10 ..."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set(**{f"{which}scale": "log"})
    axis = getattr(axes, f"{which}axis")
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def _families(found: Sequence[Timed]) -> dict[str, list[Timed]]:
    return {name: [row for row in found if row.family == name] for name in dict.fromkeys(row.family for row in found)}


def _along(found: Sequence[Timed]) -> float:
    """The width of which there are several resolutions."""
    widths = [row.width for row in found]
    return max(widths, key=widths.count)


def _by_width(axes: Any, found: Sequence[Timed]) -> None:
    largest = max(row.resolution for row in found)
    _lines(axes, [(row.family, row.width, row.ms) for row in found if row.resolution == largest])
    label = f"width (depth multiplier), at {largest} x {largest} pixels"
    axes.set(xlabel=label, ylabel="ms for one image")
    _logarithmic(axes, "y")


def _lines(axes: Any, points: Sequence[tuple[str, float, float]]) -> None:
    families = dict.fromkeys(family for family, _, _ in points)
    for family, colour, mark in zip(families, COLOURS, MARKS, strict=False):
        own = [(x, y) for name, x, y in points if name == family]
        axes.plot(*zip(*own, strict=True), color=colour, marker=mark, label=family)


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
            axes.text(*at, text_of(short[tensor]), fontsize=6, rotation=90, va="center", ha="center")
    title = f"{text_of(name)}: {plan.arena_bytes / 1024:,.0f} KiB of intermediate values for one image"
    axes.set(xlabel="step of the plan", ylabel="place in the block, KiB", title=title)
    axes.set_ylim(0, plan.arena_bytes / 1024)
    return as_svg(figure)


def ranges(rows: Sequence[LayerRange], name: str, images: int) -> bytes:
    """Of each layer the largest weight of every channel, above; below, its output and what 8 bits can hold of it."""
    figure, (top, bottom) = pyplot().subplots(
        2, 1, figsize=(min(max(len(rows) * 0.2, 8), 40), 8), sharex=True, layout="constrained"
    )
    shown = [(i, [w for w in row.weights if w > 0]) for i, row in enumerate(rows)]  # a channel of zeros has no range
    for i, weights in shown:
        if weights:
            least, low, high, most = np.percentile(weights, (0, 25, 75, 100))
            top.vlines(i, least, most, COLOURS[0], label="channels, by their largest absolute weight")
            top.bar(i, high - low, 0.6, low, color=COLOURS[0], label="the middle half of them")
            top.plot(i, most, "_", color=COLOURS[1], markersize=9, label="the largest, which one scale must cover")
    if any(weights for _, weights in shown):
        _logarithmic(top, "y")
    top.set(title=f"{text_of(name)}: what weights and outputs there are ({images} image{'s'[: images != 1]})")
    top.set_ylabel("real value of weights")
    for i, row in enumerate(rows):
        if row.holds:
            bottom.bar(i, row.holds[1] - row.holds[0], 0.9, row.holds[0], color="none", edgecolor=COLOURS[6],
                       linewidth=0.6, label="what 8 bits hold")  # fmt: skip
        bottom.bar(i, row.found[1] - row.found[0], 0.5, row.found[0], color=COLOURS[2], label="output, least to most")
    bottom.use_sticky_edges = False
    bottom.set_ylabel("real value of outputs")
    bottom.set_xticks(np.arange(len(rows)), [text_of(row.name) for row in rows], rotation=90, fontsize=6)
    for axes in (top, bottom):
        axes.grid(alpha=0.3)
        handles, labels = axes.get_legend_handles_labels()
        once = dict(zip(labels, handles, strict=True))
        axes.legend(once.values(), once.keys(), fontsize=8)
    return as_svg(figure)
