"""The figures of tools/bench_peers.py as the tables and the chart of docs/performance.md."""

from __future__ import annotations

import json
import os
import re
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))  # the checkout, whether or not the package is installed

from npmobilenet.formats.layer_names import short_names  # noqa: E402

PAGE, JSON, CHART = (ROOT / "docs" / f"performance.{ending}" for ending in ("md", "json", "svg"))
AVX2_JSON = JSON.with_name("performance-avx2.json")
# Comparisons with sections of their own: their mark on the page -> their figures, and what their headings begin with.
FURTHER = {"zen4": (JSON.with_name("performance-zen4.json"), "On Zen 4"), "avx2": (AVX2_JSON, "With AVX2 only")}
NAMES = {"ours": "npmobilenet", "litert": "LiteRT", "openvino": "OpenVINO", "onnxruntime": "ONNX Runtime",
         "torch": "PyTorch", "reference": "LiteRT reference"}  # fmt: skip
COLOURS = {"ours": "#c0392b", "litert": "#2e6f9e", "openvino": "#6aa84f", "onnxruntime": "#8e7cc3", "torch": "#e69138"}
ONE, TWO = "1 threads, batch 1", "2 threads, batch 1"
PAUSED = ", after a pause"
EIGHT = {1: "1 threads, batch 8", 2: "2 threads, batch 8"}
SPEEDUP_BAR, RSS_BAR, PLANNED_BAR = 1.7, 180e6, 1.10
IMPORT_BAR, AGAIN_BAR, COLD_BAR = 0.02, 0.6, 6.0
MEDIAN_BARS = {"float": (0.88, 0.92), "8 bits": (0.50, 0.50)}  # on one thread, on two
AVX2_BARS = {True: (1.0, 1.0), False: (0.9, 0.9)}  # of float models, and of those of 8 bits
TIMES_REFERENCE = {"float": (25, 25), "integer": (50, 20)}  # with VNNI, without
Table = list[list[str]]


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table whose first column is text and whose others are numbers."""
    line = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    return [*line, *(f"| {' | '.join(row)} |" for row in rows)]


def number(value: float | None) -> str:
    """Three significant digits or more, as a time in milliseconds is read."""
    if value is None:
        return ""
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def median(case: dict[str, Any], what: str, engine: str) -> float | None:
    """A median of a case's `ms` or `ratio`."""
    found = case.get(what, {}).get(engine)
    return None if found is None else float(found["median"])


def ratio(quartiles: dict[str, float] | None) -> str:
    """0.93 (0.91-0.96)."""
    return "" if quartiles is None else f"{quartiles['median']:.2f} ({quartiles['q1']:.2f}–{quartiles['q3']:.2f})"


def met(ok: bool) -> str:
    """A bar's state."""
    return "yes" if ok else "**no**"


def fastest(case: dict[str, Any], engines: Sequence[str]) -> str | None:
    """Of some engines the one with the least median time; None where none was measured."""
    there = [(case["ms"][name]["median"], name) for name in engines if name in case.get("ms", {})]
    return min(there)[1] if there else None


def measured(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows that have figures."""
    for title, row in document["rows"].items():
        if row["cases"]:
            yield title, row


def bars(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Each bar: title, threads, which peer, the ratio's quartiles, the bar and whether it is met (None: unmeasured)."""
    found = []
    for title, row in measured(document):
        for threads, key, bar in zip((1, 2), (ONE, TWO), row.get("bars") or (), strict=False):
            case = row["cases"].get(key, {})
            peer = fastest(case, [name for name in document["engines"] if name != "ours"])
            quartiles = case.get("ratio", {}).get(peer)
            ok = None if quartiles is None else bool(round(quartiles["median"], 2) <= bar)
            found.append({"title": title, "threads": threads, "against": peer, "ratio": quartiles,
                          "kind": row["kind"], "bar": bar, "met": ok})  # fmt: skip
    return found


# ---------------------------------------------------------------------------------------------------------------------
# The sections


def about(document: dict[str, Any]) -> list[str]:
    """Where and how."""
    machine = document["machine"]
    versions: dict[str, str] = {}
    for _, row in measured(document):
        versions |= row["versions"]
    said = ", ".join(f"{NAMES[name]} {version}" for name, version in versions.items())
    shown = (
        ", shown to every engine as a CPU that ends with AVX2 (`tools/avx2_only.c`)"
        if document.get("avx2_only")
        else ""
    )
    loads = " to ".join("unknown" if v is None else str(v) for v in document["load_average"])
    return [
        f"Measured {document['date']} on {document['cpu']}{shown}, {machine['cores']} cores, instruction set "
        f"`{machine['instruction_set']}`, threading layer {machine['threading_layer']}; load average before and after: "
        f"{loads}. {said}. {document['pairs']} rounds at batch 1"
        + (
            f", {document['batch_pairs']} at batch 8, {document['paused']} runs after a pause."
            if document["paused"] and not shown
            else "."
        ),
        "",
    ]


def bar_table(document: dict[str, Any]) -> list[str]:
    """The bars, one line for each model."""
    by_title: dict[str, dict[int, dict[str, Any]]] = {}
    for one in bars(document):
        by_title.setdefault(one["title"], {})[one["threads"]] = one
    rows = []
    for title, both in by_title.items():
        cells = [title]
        for threads in (1, 2):
            one = both[threads]
            cells.append(f"{one['bar']:.2f}")
            if one["met"] is None:
                cells += ["", "", "not measured"]
            else:
                cells += [ratio(one["ratio"]), NAMES[one["against"]], met(one["met"])]
        rows.append(cells)
    for title, row in document["rows"].items():
        if not row["cases"]:
            rows.append([title, "", "", "", "not measured", "", "", "", ""])
    head = ["model", "bar", "1 thread", "against", "met", "bar", "2 threads", "against", "met"]
    return ["### Bars", "", "Our time as a part of that of the fastest peer, median (quartiles) of the rounds' ratios.",
            "", *markdown(head, rows), ""]  # fmt: skip


def median_lines(document: dict[str, Any]) -> list[str]:
    """The median ratio of all float models and of all integer ones, beside its bar."""
    lines = []
    for words, of_kind in MEDIAN_BARS.items():
        for threads, bar in zip((1, 2), of_kind, strict=True):
            some = [one for one in bars(document) if one["ratio"] and one["threads"] == threads]
            ratios = [one["ratio"]["median"] for one in some if (one["kind"] == "float") == (words == "float")]
            if ratios:
                middle = round(statistics.median(ratios), 2)
                said = f"- {words}, {threads} thread{'s' * (threads > 1)}: median of the models {middle:.2f}, "
                lines.append(f"{said}bar {bar:.2f}, met: {met(middle <= bar)}")
    return [*lines, ""]


def time_tables(document: dict[str, Any], batches: Sequence[int] = (1, 8)) -> list[str]:
    """Milliseconds of every engine, for each batch."""
    lines: list[str] = []
    engines = document["engines"]
    for batch in batches:
        rows = []
        for title, row in measured(document):
            cases = [row["cases"].get(f"{t} threads, batch {batch}", {}) for t in (1, 2)]
            pairs = [[number(median(case, "ms", name)) for case in cases] for name in engines]
            rows.append([title, *(f"{a} / {b}" if a or b else "–" for a, b in pairs)])
        lines += [f"### Milliseconds, batch {batch}, 1 thread / 2 threads", "",
                  *markdown(["model", *(NAMES[name] for name in engines)], rows), ""]  # fmt: skip
    return lines


def paused_table(document: dict[str, Any]) -> list[str]:
    """One run after a tenth of a second without any: milliseconds, and our ratio to the fastest peer."""
    rows, engines = [], document["engines"]
    for title, row in measured(document):
        cases = [row["cases"].get(key + PAUSED, {}) for key in (ONE, TWO)]
        if any(cases):
            pairs = [" / ".join(number(median(case, "ms", name)) for case in cases) for name in engines]
            peers = [fastest(case, engines[1:]) for case in cases]
            ratios = [case["ratio"].get(peer) for case, peer in zip(cases, peers, strict=True)]
            rows.append([title, *pairs, " / ".join("" if r is None else f"{r['median']:.2f}" for r in ratios)])
    if not rows:
        return []
    head = ["model", *(NAMES[name] for name in engines), "ours by the fastest peer"]
    return ["### After a pause of 0.1 s, milliseconds, batch 1, 1 thread / 2 threads", "",
            "What a camera at ten frames a second sees: threads have gone to sleep, caches are others'.", "",
            *markdown(head, rows), ""]  # fmt: skip


def thread_table(document: dict[str, Any]) -> list[str]:
    """Two threads against one, and images per second and core at batch 8 against batch 1."""
    rows = []
    for title, row in measured(document):
        cases = row["cases"]
        speedup = cases.get(TWO, {}).get("speedup")
        cells = [title, ratio(speedup)]
        bar = SPEEDUP_BAR if row["pixels"] >= 224 else 1.0
        cells += ["", ""] if speedup is None else [f"{bar:.1f}", met(round(speedup["median"], 2) >= bar)]
        for threads in (1, 2):
            gain = cases.get(EIGHT[threads], {}).get("by_single")
            cells += ["", ""] if gain is None else [ratio(gain), met(round(gain["median"], 2) >= 1)]
        rows.append(cells)
    head = ["model", "2 threads, times as fast as 1", "bar", "met",
            "batch 8, images per second by batch 1's, 1 thread", "at least 1", "2 threads", "at least 1"]  # fmt: skip
    return ["### Threads and batches", "", *markdown(head, rows), ""]


def reference_table(document: dict[str, Any]) -> list[str]:
    """LiteRT's reference kernels, one thread."""
    rows = []
    vnni = "vnni" in document["machine"]["instruction_set"]
    for title, row in measured(document):
        case = row.get("reference")
        if not case or "reference" not in case["ratio"]:
            continue
        times = 1 / case["ratio"]["reference"]["median"]
        bar = TIMES_REFERENCE["float" if row["kind"] == "float" else "integer"][0 if vnni else 1]
        apart = case["apart"].get("reference")
        rows.append([title, number(median(case, "ms", "ours")), number(median(case, "ms", "reference")),
                     f"{times:.1f}", str(bar), met(times >= bar), "" if apart is None else f"{apart:.2g}"])  # fmt: skip
    if not rows:
        return []
    head = ["model", "ours, ms", "LiteRT reference, ms", "times as fast", "bar", "met", "outputs differ by"]
    return ["### LiteRT's reference kernels, 1 thread, batch 1", "",
            "The difference is in steps of the output for integers, in parts of the largest value for float.", "",
            *markdown(head, rows), ""]  # fmt: skip


def start_table(document: dict[str, Any]) -> list[str]:
    """Start-up and memory, where they were measured."""
    start = document.get("start")
    if not start:
        return []
    rows: Table = [
        ["`import npmobilenet`", f"{start['import']:.3f} s", f"{IMPORT_BAR} s", met(start["import"] <= IMPORT_BAR)]
    ]
    for what, text, bar in (("classify_again", "`npmobilenet classify`, kernels in the cache", AGAIN_BAR),
                            ("classify_cold", "`npmobilenet classify`, empty kernel cache", COLD_BAR)):  # fmt: skip
        one = start[what]
        rows.append([text, one["error"] or f"{one['seconds']:.2f} s", f"{bar:g} s",
                     met(not one["error"] and one["seconds"] <= bar)])  # fmt: skip
    v2 = start.get("classify_v2")
    if v2 and v2["peak_rss"] and not v2["error"]:
        rows.append(["peak memory of `classify`, V2 1.0_224 float", f"{v2['peak_rss'] / 1e6:.0f} MB",
                     f"{RSS_BAR / 1e6:.0f} MB", met(v2["peak_rss"] <= RSS_BAR)])  # fmt: skip
    planned = start["planned"]
    rows.append(["weights and intermediate values planned for V2 1.0_224 float, by the ideal sum of "
                 f"{planned['ideal'] / 1e6:.2f} MB", f"{planned['planned_to_ideal']:.3f}", f"{PLANNED_BAR:.2f}",
                 met(planned["planned_to_ideal"] <= PLANNED_BAR)])  # fmt: skip
    return ["### Start and memory", "", *markdown(["what", "measured", "bar", "met"], rows), ""]


def scaling_tables(document: dict[str, Any]) -> list[str]:
    """V2 1.0 by batch and by pixels."""
    scaling = document.get("scaling")
    if not scaling:
        return []
    batch = [[b, number(ms), number(ms / int(b))] for b, ms in scaling["batch"].items()]
    side = [[s, number(ms), f"{1e6 * ms / int(s) ** 2:.1f}"] for s, ms in scaling["side"].items()]
    return [
        "### How time grows: V2 1.0, float, 1 thread", "",
        *markdown(["batch, 224 px", "ms", "ms for an image"], batch), "",
        *markdown(["side, px, batch 1", "ms", "ns for a pixel"], side), "",
    ]  # fmt: skip


def layer_tables(document: dict[str, Any]) -> list[str]:
    """Where the time goes: by kernel, then by layer for each model whose layers were timed."""
    lines: list[str] = []
    for title, row in measured(document):
        found = row.get("layers")
        if not found:
            continue
        unit = "GOP/s" if found["arithmetic"]["integer"] else "GFLOP/s"
        peak = found["arithmetic"]["peak_gops"]
        lines += [f"### Layers of {title}, 1 thread", "",
                  f"Peak measured with register tiles on L1-resident data: {peak:.0f} {unit} on one core.", "",
                  *markdown(["kernel", "calls", "ms", "time", unit, "of peak"], _by_kernel(found)), "",
                  "<details><summary>each layer</summary>", "",
                  *markdown(["layer", "output", "M MACs", "ms", "time", unit, "of peak"], _by_layer(found)), "",
                  "</details>", ""]  # fmt: skip
    return lines


def _by_kernel(found: dict[str, Any]) -> Table:
    groups: dict[str, list[dict[str, Any]]] = {}
    for layer in found["layers"]:
        groups.setdefault(layer["kernel"], []).append(layer)
    rows = []
    for kernel, layers in sorted(groups.items(), key=lambda item: -sum(one["ms"] for one in item[1])):
        ms, macs = sum(one["ms"] for one in layers), sum(one["macs"] for one in layers)
        gops = 2e-6 * macs / ms if macs and ms else None
        peaks = [one["gops"] / one["of_peak"] for one in layers if one["of_peak"]]
        rows.append([f"`{kernel}`", str(len(layers)), number(ms), f"{sum(one['share'] for one in layers):.1%}",
                     "" if gops is None else f"{gops:.1f}",
                     "" if gops is None or not peaks else f"{gops / peaks[0]:.0%}"])  # fmt: skip
    return rows


def _by_layer(found: dict[str, Any]) -> Table:
    fused = [one["node"].split(" + ") for one in found["layers"]]
    short = short_names([name for names in fused for name in names])
    return [
        [
            " + ".join(short[name] for name in names),
            "" if one["output_shape"] is None else " x ".join(map(str, one["output_shape"])),
            f"{one['macs'] / 1e6:.1f}" if one["macs"] else "",
            f"{one['ms']:.3f}",
            f"{one['share']:.1%}",
            "" if one["gops"] is None else f"{one['gops']:.1f}",
            "" if one["of_peak"] is None else f"{one['of_peak']:.0%}",
        ]
        for one, names in zip(found["layers"], fused, strict=True)
    ]


# ---------------------------------------------------------------------------------------------------------------------
# The chart


def chart(document: dict[str, Any]) -> str:
    """Milliseconds at batch 1 on one thread, as bars on a scale that LiteRT's (or the first peer's) bar fills alike."""
    rows = [(title, row["cases"][ONE]) for title, row in measured(document) if ONE in row["cases"]]
    engines = [name for name in document["engines"] if any(name in case["ms"] for _, case in rows)]
    bar, gap, left, width = 11, 12, 190, 420
    heights = [sum(name in case["ms"] for name in engines) * bar + gap for _, case in rows]
    total = sum(heights) + 46
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 130}" height="{total}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{left + width + 130}" height="{total}" fill="#ffffff"/>',
    ]
    for i, name in enumerate(engines):
        x = 10 + i * 115
        lines.append(f'<rect x="{x}" y="10" width="10" height="10" fill="{COLOURS[name]}"/>')
        lines.append(f'<text x="{x + 15}" y="19" fill="#222222">{NAMES[name]}</text>')
    y = 38
    for (title, case), height in zip(rows, heights, strict=True):
        longest = max(one["median"] for one in case["ms"].values())
        lines.append(
            f'<text x="{left - 8}" y="{y + height / 2 - 2:.0f}" text-anchor="end" fill="#222222">{title}</text>'
        )
        at = y
        for name in engines:
            if name not in case["ms"]:
                continue
            ms = case["ms"][name]["median"]
            lines.append(f'<rect x="{left}" y="{at}" width="{width * ms / longest:.1f}" height="{bar - 2}" '
                         f'fill="{COLOURS[name]}"/>')  # fmt: skip
            lines.append(f'<text x="{left + width * ms / longest + 5:.1f}" y="{at + bar - 3}" fill="#222222">'
                         f"{number(ms)} ms</text>")  # fmt: skip
            at += bar
        y += height
    return "\n".join([*lines, "</svg>", ""])


# ---------------------------------------------------------------------------------------------------------------------
# The page


def figures(document: dict[str, Any]) -> str:
    """What stands between the page's marks."""
    lines = [
        *about(document), *bar_table(document), *median_lines(document),
        "### Chart: one thread, batch 1", "",
        "Milliseconds; each model has a scale of its own.", "",
        f"![milliseconds of each engine for each model]({CHART.name})", "",
        *time_tables(document), *paused_table(document), *thread_table(document), *reference_table(document),
        *start_table(document), *scaling_tables(document), *layer_tables(document),
    ]  # fmt: skip
    return "\n".join(lines)


def further_figures(document: dict[str, Any], title: str) -> str:
    """What stands between the marks of a further comparison: batch 1."""
    medians = [] if document.get("avx2_only") else median_lines(document)
    lines = [*about(document), *bar_table(document), *medians, *time_tables(document, (1,))]
    return "\n".join(lines).replace("\n### ", f"\n### {title}: ")


def filled(page: str, mark: str, text: str) -> str:
    """The page with the text between its marks made anew. Raises `SystemExit` where it has no place for it."""
    place = re.compile(rf"(?<=<!-- {mark} -->\n).*?(?=<!-- /{mark} -->)", re.DOTALL)
    if not place.search(page):
        raise SystemExit(f"{PAGE.name}: there is no place marked <!-- {mark} --> ... <!-- /{mark} -->")
    return place.sub(lambda _: text, page)


def _read(path: Path) -> dict[str, Any]:
    """The figures in a file, without the engines that none was measured of."""
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    there = {name for _, row in measured(document) for case in row["cases"].values() for name in case.get("ms", {})}
    return document | {"engines": [name for name in document["engines"] if name in there]}


def write_page(check: bool = False) -> int:
    """Write docs/performance.md and its chart from the figures in docs/, or check them; the exit status."""
    document = _read(JSON)
    page = filled(PAGE.read_text(encoding="utf-8"), "figures", figures(document))
    for mark, (path, title) in FURTHER.items():
        if path.is_file():
            page = filled(page, mark, further_figures(_read(path), title))
    stale = False
    for path, text in ((PAGE, page), (CHART, chart(document))):
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        stale = True
        if check:
            print(f"{path.name} is not current: run python tools/bench_peers.py --from-json", file=sys.stderr)
            continue
        temporary = path.with_suffix(".tmp")
        temporary.write_text(text, encoding="utf-8", newline="\n")
        os.replace(temporary, path)
    return 1 if stale and check else 0
