"""Words that left the tree: each had a standard term of the field, or meant two things at once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RETIRED = {
    "the reference kernels": r"\b(the |The )?[Bb]ook('s)?\b",
    "NodeContext, top_left, as_nhwc": r"\bSite\b|\bcorner\(|\brank4\b",
    "row_tiled_block (the pass of NPMOBILENET_FUSIONS stays `bands`), packed_arena": r"\bbands_f32|\bslab\b",
    "LinearRequant, one_offset, two_offsets, patched, exceptions": r"\b(Lined|STRAIGHT|BENT|MENDED|ODDS)\b",
    "LinearEpilogue, DownscaleRequant, NarrowToBytes": r"\bLineEnd\b|\bclass (Down|Narrow|Step)\b(?!\(NamedTuple)",
    "micro-kernel (gemm_f32_kernel, gemm_s8_kernel), pack_rhs, kr_of": r"\b(matrix_tile|dot_tile|pack_dot|group_of)\b",
    "the name of that module": r"\b(staircase|scaling|requantize|dot|tiles|rows|row_sums|pairs|streams)_q\b",
}
NOT_OURS = ("npmobilenet/data/", "tests/test_words.py", "CHANGELOG.md")  # labels; this table; what was


def texts() -> dict[str, str]:
    """Code and documents of the checkout."""
    places = [p for folder in ("npmobilenet", "tests", "tools", "examples", "docs") for p in (ROOT / folder).rglob("*")]
    files = [p for p in [*places, *ROOT.glob("*.md")] if p.suffix in (".py", ".md") and p.is_file()]
    named = {p.relative_to(ROOT).as_posix(): p for p in files}
    return {name: p.read_text(encoding="utf-8") for name, p in named.items() if not name.startswith(NOT_OURS)}


@pytest.mark.parametrize("instead", RETIRED)
def test_retired_words_stay_away(instead: str) -> None:
    """`instead` is what to write."""
    found = [
        f"{name}:{i}: {line.strip()}"
        for name, text in texts().items()
        for i, line in enumerate(text.splitlines(), 1)
        if re.search(RETIRED[instead], line)
    ]
    assert not found, f"write '{instead}':\n" + "\n".join(found)
