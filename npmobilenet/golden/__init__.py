"""Golden tools: record what a model computes, compare dumps, explain a value, tell a dump's arithmetic, export vectors.

    from npmobilenet import golden
    golden.record("model.tflite", "random:0", "ours")
    result = golden.diff("ours", "theirs", names="names.json")
    print(result.verdict)

recording.py writes dumps, dump.py reads them and anyone else's (name_match.py, shape_match.py). differences.py compares
them: compare.py one pair of arrays, diff_patterns.py for what differences suggest, report.py for a page. explaining.py
takes one value apart, identifying.py tells which arithmetic a dump follows, both with nodes.py, which runs one node of
a model alone.
"""

from __future__ import annotations

from npmobilenet.golden.compare import Comparison, Tolerance
from npmobilenet.golden.differences import Diff, TensorDiff, diff
from npmobilenet.golden.dump import Dump
from npmobilenet.golden.explaining import Explanation, explain
from npmobilenet.golden.exporting import export
from npmobilenet.golden.identifying import Identification, identify
from npmobilenet.golden.recording import record
from npmobilenet.golden.report import write_report

__all__ = [
    "Comparison",
    "Diff",
    "Dump",
    "Explanation",
    "Identification",
    "TensorDiff",
    "Tolerance",
    "diff",
    "explain",
    "export",
    "identify",
    "record",
    "write_report",
]
