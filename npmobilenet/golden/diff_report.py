"""The report of `diff`: one HTML file that needs no other, with a picture for each diverging layer."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import npmobilenet
from npmobilenet.errors import short_name
from npmobilenet.golden.diff_verdict import Comparison, Diff, TensorDiff
from npmobilenet.images.heat_map import data_url, heat
from npmobilenet.measure.evaluate.state import write_whole

MOST_PICTURES = 60  # layers drawn; the table has all
_WIDTH, _HEIGHT = 520, 70  # of a strip, in CSS pixels
_BARS = 160  # bars of a strip: more channels share one

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem; color: #1c2128; }
h1 { font-size: 1.5rem; }
h2 { font-size: 1.1rem; margin-top: 2.5rem; border-top: 1px solid #d0d7de; padding-top: 1rem; }
table { border-collapse: collapse; font-size: .85rem; } td, th { padding: .15rem .6rem; text-align: left; }
th { border-bottom: 1px solid #8c959f; } td.n { text-align: right; font-variant-numeric: tabular-nums; }
tr.differs td { background: #fff1e5; } tr.first td { background: #ffd8b5; font-weight: 600; }
.verdict { font-size: 1.1rem; padding: .6rem 1rem; border-left: 5px solid #1a7f37; background: #eef7f0; }
.verdict.bad { border-color: #cf222e; background: #fff0ee; }
.panels { display: flex; flex-wrap: wrap; gap: 1.5rem; align-items: flex-start; }
figure { margin: .5rem 0; } figcaption { font-size: .8rem; color: #57606a; max-width: 34rem; }
img { image-rendering: pixelated; border: 1px solid #d0d7de; display: block; }
svg { background: #eef0f3; display: block; } code { background: #eef0f3; padding: 0 .25rem; }
ul { margin: .3rem 0; padding-left: 1.2rem; }
"""


def write_report(result: Diff, path: str | os.PathLike[str]) -> None:
    """Write the report of `result` to an .html file. Raises `InputError` if it can't be written."""
    text = html(result).encode("utf-8", "backslashreplace")
    write_whole(Path(path), lambda file: file.write(text))


def html(result: Diff) -> str:
    """The page."""
    differing = [row for row in result.rows if not row.equal]
    parts = [
        f"<!doctype html><html lang=en><head><meta charset=utf-8><title>{_headline(result)}</title>",
        f"<meta name=viewport content='width=device-width'><style>{_STYLE}</style></head><body>",
        f"<h1>{_headline(result)}</h1>",
        f"<p>A: <code>{_text(result.a)}</code><br>B: <code>{_text(result.b)}</code></p>",
        f"<p class='verdict{'' if result.equal else ' bad'}'>{_text(result.verdict)}{_why(result)}</p>",
        f"<p>{len(result.rows)} tensors compared, {len(differing)} differ{_tolerance(result)}.",
        "Differences are B - A.</p>",
        _list(result.notes),
        _table(result.rows, result.first),
        *(_layer(row) for row in differing[:MOST_PICTURES]),
    ]
    if len(differing) > MOST_PICTURES:
        parts.append(f"<p>{len(differing) - MOST_PICTURES} more layers differ; the table above has them.</p>")
    parts.append(f"<p><small>npmobilenet {_text(npmobilenet.__version__)}</small></p></body></html>\n")
    return "\n".join(parts)


def _text(value: object) -> str:
    """Escaped, and without control characters."""
    return escape("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(value)))


def _list(items: Iterable[str]) -> str:
    rows = "".join(f"<li>{_text(item)}</li>" for item in items)
    return f"<ul>{rows}</ul>" if rows else ""


def _headline(result: Diff) -> str:
    """What diverges first, and why, as far as that is known."""
    first = result.first
    if first is None:
        return _text(result.verdict)
    cause = result.cause.text.partition(". The same values")[0] if result.cause and result.cause.proved else ""
    known = result.taken or cause
    return _text(f"{short_name(first.name)}: {known}" if known else result.verdict)


def _why(result: Diff) -> str:
    """The cause, or what the pattern of the first differences suggests, below the verdict."""
    return "".join(f"<br><b>why:</b> {_text(text)}" for text in result.why)


def _tolerance(result: Diff) -> str:
    t = result.tolerance
    words = [f"{v} {unit}" for v, unit in ((t.lsb, "LSB"), (t.ulp, "ulp"), (t.atol, "absolute")) if v]
    return f" beyond {' / '.join(words)}" if words else ""


# ---------------------------------------------------------------------------------------------------------------------
# The table


def _table(rows: Sequence[TensorDiff], first: TensorDiff | None) -> str:
    head = ("#", "tensor", "op", "shape", "status", "differing", "share", "largest", "first at", "A", "B")
    lines = ["<table><tr>", *(f"<th>{h}</th>" for h in head), "</tr>"]
    for i, row in enumerate(rows):
        kind = "first" if row is first else "" if row.equal else "differs"
        name = _text(short_name(row.name))
        link = name if row.equal else f"<a href='#t{_anchor(row)}'>{name}</a>"
        lines.append(f"<tr class='{kind}'><td class=n>{i}</td><td>{link}</td><td>{_text(row.entry.op)}</td>")
        lines.append(f"<td>{_text('x'.join(map(str, row.entry.shape)))}</td><td>{_text(row.status)}</td>")
        lines.append("".join(f"<td class=n>{_text(cell)}</td>" for cell in _numbers(row.comparison)))
        lines.append("</tr>")
    return "".join([*lines, "</table>"])


def _anchor(row: TensorDiff) -> str:
    return row.name.encode("utf-8", "backslashreplace").hex()


def _numbers(c: Comparison | None) -> tuple[object, ...]:
    if c is None or not c.count or c.first is None or c.first_values is None:
        return ("",) * 6
    place = ",".join(map(str, c.first))
    a, b = c.first_values
    return (f"{c.count:,}", f"{100 * c.share:.3g} %", f"{c.largest:,} {c.unit}", place, f"{a:.9g}", f"{b:.9g}")


# ---------------------------------------------------------------------------------------------------------------------
# A layer


def _layer(row: TensorDiff) -> str:
    c = row.comparison
    shape = "x".join(map(str, row.entry.shape))
    parts = [
        f"<h2 id='t{_anchor(row)}'>{_text(short_name(row.name))}</h2>",
        f"<p>{_text(row.entry.op)}, {row.entry.dtype} {shape}",
    ]
    q = row.entry.quantization
    if q is not None and len(q.scale) == 1:
        parts.append(f", scale {q.scale[0]:.9g}, zero point {q.zero_point[0]}")
    parts += ["</p>", f"<p>{_text(row.problem)}</p>" if row.problem else "", _list([*row.hints, *row.notes])]
    if c is None or not c.count:
        return "".join(parts)
    parts.append("<div class=panels>")
    if c.plane is not None:
        parts.append(_plane(c.plane, row.entry.shape[3]))
    parts.append("<div>")
    parts += [_strip(profile, name) for name, profile in c.where.items() if profile.size > 1]
    parts.append(
        _bars(list(c.histogram), list(c.histogram.values()), f"elements by difference in {c.unit} (log scale)")
    )
    return "".join([*parts, "</div></div>"])


def _plane(plane: NDArray[np.int64], channels: int) -> str:
    height, width = plane.shape
    side = 320 / max(height, width)
    size = f"width={max(round(width * side), 1)} height={max(round(height * side), 1)}"
    return (
        f"<figure><img {size} alt='where in height and width' src='{data_url(heat(plane))}'><figcaption>where: "
        f"{height} rows, {width} columns; grey: equal, yellow to dark: up to {int(plane.max())} of {channels} "
        "channels differ</figcaption></figure>"
    )


def _strip(profile: NDArray[np.int64], name: str) -> str:
    step = -(-profile.size // _BARS)
    padded = np.pad(profile, (0, -profile.size % step)).reshape(-1, step).sum(axis=1)
    labels = [f"{name} {i * step}" + (f"..{min((i + 1) * step, profile.size) - 1}" if step > 1 else "")
              for i in range(padded.size)]  # fmt: skip
    touched = int(np.count_nonzero(profile))
    return _bars(labels, padded.tolist(), f"along {name}: {touched} of {profile.size} hold differences", linear=True)


def _bars(labels: Sequence[str], counts: Sequence[int], caption: str, linear: bool = False) -> str:
    """A bar chart as SVG; each bar has its label and count as a title."""
    most = max(*counts, 1)
    width = _WIDTH / len(counts)
    drawn = []
    for i, (label, count) in enumerate(zip(labels, counts, strict=True)):
        share = count / most if linear else float(np.log1p(count) / np.log1p(most))
        height = max(share * (_HEIGHT - 4), 1.5) if count else 0
        colour = "#8c959f" if label == "0" else "#cd2839"
        drawn.append(
            f"<rect x='{i * width:.2f}' y='{_HEIGHT - height:.2f}' width='{max(width - 0.5, 0.5):.2f}' "
            f"height='{height:.2f}' fill='{colour}'><title>{_text(label)}: {count:,}</title></rect>"
        )
    ends = f"{labels[0]} to {labels[-1]}" if len(labels) > 1 else labels[0]
    return (
        f"<figure><svg width={_WIDTH} height={_HEIGHT} role=img>{''.join(drawn)}</svg>"
        f"<figcaption>{_text(caption)}: {_text(ends)}</figcaption></figure>"
    )
